"""The objective in 60 digits, from the definition; no code is shared with the package.

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
    """Return (count, classes, weight, adjustment) of every group."""
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
        return squares / 2
    rest = (classes - 1) * mp.exp(sibling - own)
    for j, (_, size, _, other) in enumerate(known):
        if j != index:
            rest += size * mp.exp(others[j] + other - own - adjustment)
    return weight * mp.log1p(rest)


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
        z = [[number(mean[j, i]) for i in range(g)] for j in range(g)]
        margins = [number(m) for m in within]
        b = [number(value) for value in bias]
        total = sum(count * classes for count, classes, _, _ in known)
        value = mpf(0)
        for i, (count, classes, _, _) in enumerate(known):
            sibling = z[i][i] - margins[i] / classes + b[i]
            others = [z[j][i] + b[j] for j in range(g)]
            value += mpf(count * classes) / total * loss(
                problem, sibling + margins[i], sibling, others, i
            )
        if problem.features == "nonnegative":
            norm = _column_lengths(known, margins, z)
        else:
            reduced = [
                [z[j][i] * mp.sqrt(known[j][1] * known[i][1] * known[i][0]) for i in range(g)]
                for j in range(g)
            ]
            norm = nuclear_norm(reduced) + mp.fsum(
                (classes - 1) * mp.sqrt(count) * abs(margin)
                for (count, classes, _, _), margin in zip(known, margins, strict=True)
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


def balanced_minimum(problem):
    """Return the minimum of balanced cross-entropy: one logarithm (docs/theory.md section 5)."""
    with mp.workdps(DIGITS):
        (count, k, weight, _) = groups(problem)[0]
        t = decay(problem) * mp.sqrt(count) * k / weight  # k times an own sample's slope at zero
        if t >= 1:
            return weight * mp.log(k)
        m = mp.log(k / t - k + 1)
        return weight * mp.log1p((k - 1) * mp.exp(-m)) + decay(problem) * (k - 1) * mp.sqrt(
            count
        ) * m
