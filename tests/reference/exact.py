"""The objective, and minima in closed form, in 60 digits; no code is shared with the package.

Numbers that a solution holds are taken as they are, exactly: what is evaluated is the objective of
the very point that was returned.
"""

from fractions import Fraction

from mpmath import mp, mpf

#: Digits carried. Singular values come from squares, which halve them.
DIGITS = 60


def number(value):
    """Return a float, an int or a fraction exactly, as far as the digits go."""
    if isinstance(value, Fraction):
        return mpf(value.numerator) / value.denominator
    return mpf(value.item() if hasattr(value, "item") else value)


def decay(problem):
    """Return the geometric mean of all decays; of one layer, the factor of the nuclear norm."""
    decays = [number(d) for d in (*problem.weight_decays, problem.feature_decay)]
    return mp.root(mp.fprod(decays), len(decays))


def groups(problem):
    """Return (count, classes, class weight, adjustment) of every group."""
    parts = problem.groups, problem.group_weights, problem.group_adjustment
    return [(g.count, g.classes, number(w), number(a)) for g, w, a in zip(*parts, strict=True)]


def loss(problem, own, sibling, others, index):
    """Return the loss of a sample of a group from exact logits with bias.

    ``own`` and ``sibling`` are logits of the sample's class and of its siblings, ``others`` those
    of the classes of every group (the own group's is not used).
    """
    known = groups(problem)
    _, classes, weight, adjustment = known[index]
    if problem.loss == "mse":
        squares = (own - 1) ** 2 + (classes - 1) * sibling**2
        for j, (_, size, _, _) in enumerate(known):
            if j != index:
                squares += size * others[j] ** 2
        return weight * squares / 2
    scales = [number(scale) for scale in problem.group_scales]
    own, sibling = scales[index] * own, scales[index] * sibling
    others = [scale * other for scale, other in zip(scales, others, strict=True)]
    own -= number(problem.group_margins[index])
    # Logits relative to the own one: of every group's classes, the own class left out.
    apart = [
        (classes - 1, sibling - own) if j == index else (size, others[j] + other - own - adjustment)
        for j, (_, size, _, other) in enumerate(known)
    ]
    lse = mp.log1p(mp.fsum(size * mp.exp(logit) for size, logit in apart))
    share, total = number(problem.label_smoothing), sum(size for _, size, _, _ in known)
    spread = [w if problem.smoothing_weights == "labels" else weight for _, _, w, _ in known]
    smoothed = spread[index] * lse + mp.fsum(
        w * size * (lse - logit) for w, (size, logit) in zip(spread, apart, strict=True)
    )
    return (1 - share) * weight * lse + share / total * smoothed


def nuclear_norm(rows):
    """Return the sum of the singular values of a square matrix of mp numbers."""
    matrix = mp.matrix(rows)
    squares = mp.eigsy(matrix.T * matrix, eigvals_only=True)
    return mp.fsum(mp.sqrt(max(square, mpf(0))) for square in squares)


def objective(problem, within, mean, bias):
    """Return the objective of one layer's logits in block form, and its parts (loss, decays).

    ``within`` (G,) is the own less a sibling's logit, ``mean`` (G, G) the mean logit of a group's
    classes (rows) for a sample of a group (columns), ``bias`` (G,) that of a group's classes.
    """
    with mp.workdps(DIGITS):
        known = groups(problem)
        g = len(known)
        features = [number(weight) for weight in problem.group_feature_weights]
        z = [[number(mean[j, i]) for i in range(g)] for j in range(g)]
        margins = [number(m) for m in within]
        b = [number(value) for value in bias]
        total = sum(count * classes for count, classes, _, _ in known)
        value = mpf(0)
        for i, (count, classes, _, _) in enumerate(known):
            sibling = z[i][i] - margins[i] / classes + b[i]
            others = [z[j][i] + b[j] for j in range(g)]
            value += (
                mpf(count * classes)
                / total
                * loss(problem, sibling + margins[i], sibling, others, i)
            )
        if problem.features == "nonnegative":
            norm = _column_lengths(known, margins, z)
        else:
            reduced = [
                [z[j][i] * mp.sqrt(known[j][1] * known[i][1] * features[i]) for i in range(g)]
                for j in range(g)
            ]
            norm = nuclear_norm(reduced) + mp.fsum(
                (classes - 1) * mp.sqrt(weight) * abs(margin)
                for weight, (_, classes, _, _), margin in zip(features, known, margins, strict=True)
            )
        cost = decay(problem) * norm
        squares = mp.fsum(classes * x**2 for (_, classes, _, _), x in zip(known, b, strict=True))
        return value + cost + number(problem.bias_decay) / 2 * squares


def _column_lengths(known, margins, z):
    total = mpf(0)
    for i, (count, classes, _, _) in enumerate(known):
        squares = margins[i] ** 2 * (classes - 1) / mpf(classes)
        squares += mp.fsum(size * z[j][i] ** 2 for j, (_, size, _, _) in enumerate(known))
        total += classes * mp.sqrt(count * squares)
    return total


# -- minima in closed form (docs/theory.md section 5) ----------------------------------------------


def balanced_minimum(problem):
    """Return the minimum of balanced cross-entropy, which any bias leaves at zero bias."""
    with mp.workdps(DIGITS):
        ((count, k, weight, _),) = groups(problem)
        reach = decay(problem) * mp.sqrt(count) / weight
        if reach * k >= 1:
            return weight * mp.log(k)
        margin = mp.log(1 / reach - k + 1)
        loss_ = weight * mp.log1p((k - 1) * mp.exp(-margin))
        return loss_ + decay(problem) * (k - 1) * mp.sqrt(count) * margin


def nonnegative_minimum(problem):
    """Return the minimum of cross-entropy with non-negative features: class by class."""
    with mp.workdps(DIGITS):
        k, total = mpf(problem.num_classes), problem.num_samples
        value = mpf(0)
        for count, classes, weight, _ in groups(problem):
            cost = decay(problem) * mp.sqrt(count * (k - 1) / k)
            share = weight * count / mpf(total)
            t = cost / share
            margin = mp.log((k - 1) * (1 / t - 1)) if t < (k - 1) / k else mpf(0)
            value += classes * (share * mp.log1p((k - 1) * mp.exp(-margin)) + cost * margin)
        return value


def quadratic_minimum(problem):
    """Return the minimum of MSE without a decayed bias, at any depth: target by target."""
    with mp.workdps(DIGITS):
        known, total = groups(problem), problem.num_samples
        targets = [(mp.sqrt(count), classes) for count, classes, _, _ in known]
        if problem.bias == "free":
            # Centred by the class shares: within groups nothing changes, between them this is left.
            matrix = _centred(known, total)
            squares = mp.eigsy(matrix, eigvals_only=True)
            targets = [(root_, classes - 1) for root_, classes in targets]
            targets += [(mp.sqrt(max(square, mpf(0))), 1) for square in squares]
        return mp.fsum(times * _least_cost(problem, target) for target, times in targets)


def _centred(known, total):
    """Return the Gram matrix of ``(I - u u^T) D^{1/2}`` on group indicators, u = sqrt(n / N)."""
    g = range(len(known))
    weight = [
        mp.sqrt(count * classes / mpf(total)) * mp.sqrt(count) for count, classes, _, _ in known
    ]
    return mp.matrix(
        [[(known[i][0] if i == j else 0) - weight[i] * weight[j] for j in g] for i in g]
    )


def _least_cost(problem, target):
    """Minimise ``(s - a)^2 / (2N) + (M+1)/2 mu s^{2/(M+1)}`` over s >= 0."""
    m, total, mu = problem.depth, problem.num_samples, decay(problem)
    none = target**2 / (2 * total)
    if target == 0:
        return none
    power = mpf(m - 1) / (m + 1)
    s = target
    for _ in range(400):  # from above, the larger root of (a - s) s^p = N mu is stable
        s = target - total * mu / s**power
        if s <= target * power / (1 + power):
            return none
    return min(none, (s - target) ** 2 / (2 * total) + (m + 1) * mu / 2 * s ** (2 / mpf(m + 1)))
