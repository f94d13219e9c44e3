"""Multi-start search for the best local minimum where nothing is known to certify one.

Several layers make the decay cost of logits ``(M+1)/2 mu sum sigma^{2/(M+1)}``, concave in every
singular value, and features that are too narrow forbid ranks: such problems are not convex. The
search descends from many starts and says what it found, no more (docs/theory.md section 5).

At a balanced point every layer is diagonal between the singular vectors, so M layers need one
matrix at each end and one number a direction in between: ``X = Z D^{1/2} = U diag(c)^{M-1} V^T`` at
cost ``mu/2 (||U||^2 + ||V||^2 + (M-1) ||c||^2)``. By Rotfel'd's inequality no choice of U, c and V
costs less than the singular values of X do, so nothing is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import require_positive_fields
from tightframe.geometry.blocks import Array, BlockMatrix, Partition, svd
from tightframe.problem.problem import Problem
from tightframe.solvers.search.lbfgs import MEMORY, lbfgs
from tightframe.solvers.search.record import Candidate, Search
from tightframe.theory.certificate import best_bias, objective, without_constant

#: More classes than this are refused: no symmetry is used, and the work grows with their cube.
MAX_CLASSES = 100

#: Random starts at every width, if not told otherwise.
STARTS = 8

#: Singular values and differences of class means below this share of the largest vanish at the
#: minimum that a descent approaches.
VANISHING = 1e-6

#: Halvings that exhaust float64.
BISECTIONS = 100


@dataclass(frozen=True)
class SearchOptions:
    """What a search spends its work on.

    Attributes
    ----------
    max_widths : int
        With several layers a singular value that is zero stays zero in a descent, so every width
        is tried; above this many, as many widths in geometric progression.
    explore_iterations : int
        Iterations allowed to a start.
    max_polished : int
        The best of each rank, at most so many, then go on until their rank is clear, and with that
        rank fixed to convergence.
    refine_iterations : int
        Iterations allowed until the rank is clear.
    explore_accuracy, refine_accuracy, polish_accuracy : float
        Converged: squared gradient at most this share of ``mu`` times the objective. As curvatures
        are of the order of mu, that is the order of the relative distance left to the minimum.
    found_tolerance, tie_tolerance : float
        Relative difference below which two objectives are one: of explored points, of polished
        ones.
    batch_numbers : int
        Numbers held for one batch of points (10 million are 80 MB).

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    max_widths: int = 16
    explore_iterations: int = 300
    max_polished: int = 12
    refine_iterations: int = 1000
    explore_accuracy: float = 1e-10
    refine_accuracy: float = 1e-13
    polish_accuracy: float = 1e-18
    found_tolerance: float = 1e-4
    tie_tolerance: float = 1e-9
    batch_numbers: int = 10_000_000

    def __post_init__(self) -> None:
        require_positive_fields(self)


DEFAULTS = SearchOptions()


@dataclass(frozen=True)
class Found:
    """The winner of a search: logits, bias per group, objective, and the record of the search."""

    logits: BlockMatrix
    bias: Array
    objective: float
    search: Search


def search(
    problem: Problem,
    *,
    starts: int = STARTS,
    seed: int = 0,
    max_iterations: int = 5000,
    relaxed: tuple[BlockMatrix, float | None] | None = None,
    options: SearchOptions = DEFAULTS,
) -> Found:
    """Return the best local minimum that descents from many starts and closed forms reach.

    Parameters
    ----------
    problem : Problem
        Real features, at most `MAX_CLASSES` classes.
    starts : int
        Random starts at every width. Structured ones are added: merged classes on a cross-polytope
        and on a simplex, and the encoded labels cut to the width.
    seed : int
        Of the random starts. Renaming classes of different counts does not change the answer.
    max_iterations : int
        Quasi-Newton iterations allowed to each of the best points (to every start at most
        ``options.explore_iterations``).
    relaxed : tuple of BlockMatrix and float, optional
        With one layer: solution and lower bound of the problem without ``dim``.
    options : SearchOptions

    Raises
    ------
    ValueError
        If there are too many classes.
    """
    k = problem.num_classes
    if k > MAX_CLASSES:
        raise ValueError(
            f"counts: got {k} classes; nothing certifies this kind of problem, and the multi-start "
            f"search takes at most {MAX_CLASSES}"
        )
    # One order of the classes, so that the answer does not depend on how they are named.
    order = np.lexsort((problem.logit_adjustment, -problem.class_weights, -problem.counts))
    ordered = problem.reordered(order)
    widths = _widths(problem, options.max_widths)
    steps = min(max_iterations, options.explore_iterations)
    pools = []
    for width in widths:
        f = Factors(ordered, width)
        rng = np.random.default_rng((seed, width))
        guesses = _guesses(f, starts, rng)
        if relaxed is not None:
            dense = relaxed[0].to_dense()[np.ix_(order, order)]
            guesses = np.concatenate([guesses, (dense * f.root)[None]])
        pools.append((f, *_explore(f, guesses, rng, steps, options)))
    endings = np.concatenate([values for _, _, values in pools])
    best_ones = _best_of_each_rank(pools)[: options.max_polished]
    found = [_polish(f, x, max_iterations, endings, options) for f, x in best_ones]
    places = np.argsort(order)
    polished = [entry.renamed(problem, places) for entry in found if entry is not None]
    winner, entries = _compare(
        _closed_forms(problem), polished, _full_rank(problem), options.tie_tolerance
    )
    record = Search(
        starts=len(endings),
        seed=seed,
        widths=widths,
        candidates=tuple(entry.candidate for entry in entries),
        winner=winner,
        converged=entries[0].converged and (not polished or min(polished, key=_value).converged),
        relaxed_bound=None if relaxed is None else relaxed[1],
    )
    best = entries[0]
    return Found(best.logits, best.bias, best.candidate.objective, record)


def _full_rank(problem: Problem) -> int:
    """Return the highest rank a solution can have."""
    k = problem.num_classes
    return min(problem.loss_object.max_rank(k), problem.dim or k)


def _widths(problem: Problem, most: int = DEFAULTS.max_widths) -> tuple[int, ...]:
    full = _full_rank(problem)
    if problem.depth == 1:
        return (full,)  # ranks grow and shrink freely with one layer
    if full <= most:
        return tuple(range(1, full + 1))
    return tuple(sorted({round(width) for width in np.geomspace(1, full, most)}))


class Factors:
    """The objective of factors of one width, on points (B, P) that hold (U, V, c, bias) flattened.

    All decays are the geometric mean mu: rescaling the layers makes them so. c and the bias are
    scaled to curvatures like those of the rest.

    Parameters
    ----------
    problem : Problem
        Real features.
    width : int
        Columns of U and V.
    """

    def __init__(self, problem: Problem, width: int) -> None:
        self.problem, self.width = problem, width
        k = self.num_classes = problem.num_classes
        self.depth, self.decay = problem.depth, problem.mean_decay
        counts = problem.counts.astype(np.float64)
        self.root, self.shares = np.sqrt(counts), counts / counts.sum()
        self.slope_scale = self.root / counts.sum()  # d(mean loss)/dX = residual times this
        self.fit = problem.loss_object.datafit(Partition.singletons(problem))
        self.middle_scale = math.sqrt(max(self.depth - 1, 1))
        self.bias_scale = 1 / math.sqrt(1 + problem.bias_decay)
        sizes = (k * width, k * width, width * (self.depth > 1), k * (problem.bias != "none"))
        self.cuts = np.cumsum(sizes)

    def split(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Return U (B, K, r), V (B, K, r), c (B, r; ones for one layer) and bias (B, K)."""
        shape = (len(x), self.num_classes, self.width)
        u, v, c, bias = np.split(x, self.cuts[:-1], axis=1)
        c = c / self.middle_scale if self.depth > 1 else np.ones((len(x), self.width))
        bias = bias * self.bias_scale if bias.shape[1] else np.zeros(shape[:2])
        return u.reshape(shape), v.reshape(shape), c, bias

    def join(self, left: Array, values: Array, right: Array, bias: Array) -> Array:
        """Return the balanced points of singular value decompositions and biases.

        Parameters
        ----------
        left, right : ndarray, shape (B, K, r)
        values : ndarray, shape (B, r)
        bias : ndarray, shape (B, K)
        """
        lengths = values ** (1 / (self.depth + 1))
        parts = [
            (left * lengths[:, None]).reshape(len(left), -1),
            (right * lengths[:, None]).reshape(len(left), -1),
        ]
        if self.depth > 1:
            parts.append(lengths * self.middle_scale)
        if self.problem.bias != "none":
            parts.append(bias / self.bias_scale)
        return np.concatenate(parts, axis=1)

    def from_parts(self, u: Array, v: Array, bias: Array) -> Array:
        """Return the point (1, P) of U and V, (K, r) each, and the bias (K,); one layer."""
        parts = [u.ravel(), v.ravel()]
        if self.problem.bias != "none":
            parts.append(bias / self.bias_scale)
        return np.concatenate(parts)[None]

    def products(self, x: Array) -> Array:
        """Return ``X = Z D^{1/2}``, shape (B, K, K)."""
        u, v, c, _ = self.split(x)
        product: Array = (u * (c ** (self.depth - 1))[:, None]) @ v.transpose(0, 2, 1)
        return product

    def decompose(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Return left (B, K, r), values (B, r), right (B, K, r) of X, and the bias (B, K)."""
        u, v, c, bias = self.split(x)
        left, values, right = _thin_svd(u * (c ** (self.depth - 1))[:, None], v)
        return left, values, right, bias

    def ranks(self, values: Array) -> NDArray[np.intp]:
        """Return the number of singular values (B, r) that do not vanish, shape (B,)."""
        limit = VANISHING * np.maximum(values[:, :1], self.root.min())
        ranks: NDArray[np.intp] = (values > limit).sum(axis=1)
        return ranks

    def is_small(self, accuracy: float, values: Array, gradients: Array) -> NDArray[np.bool_]:
        """Tell whether gradients are small enough for an accuracy."""
        squares = np.einsum("bi,bi->b", gradients, gradients)
        small: NDArray[np.bool_] = squares <= accuracy * self.decay * values
        return small

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return the objective, shape (B,), and its gradient, shape (B, P)."""
        u, v, c, bias = self.split(x)
        m, mu = self.depth, self.decay
        strength = c ** (m - 1)
        product = (u * strength[:, None]) @ v.transpose(0, 2, 1)
        values, residual = self.fit.values_and_residuals(product / self.root + bias[:, :, None])
        slope = residual * self.slope_scale
        by_left = slope @ v
        gradients = [
            (by_left * strength[:, None] + mu * u).reshape(len(x), -1),
            ((slope.transpose(0, 2, 1) @ u) * strength[:, None] + mu * v).reshape(len(x), -1),
        ]
        squares = np.einsum("bkr,bkr->b", u, u) + np.einsum("bkr,bkr->b", v, v)
        if m > 1:
            by_strength = np.einsum("bkr,bkr->br", u, by_left)
            gradients.append(self.middle_scale * (by_strength * c ** (m - 2) + mu * c))
            squares += (m - 1) * np.einsum("br,br->b", c, c)
        values = values + mu / 2 * squares
        if self.problem.bias != "none":
            bias_decay = self.problem.bias_decay
            gradients.append(self.bias_scale * (residual @ self.shares + bias_decay * bias))
            values += bias_decay / 2 * np.einsum("bk,bk->b", bias, bias)
        return values, np.concatenate(gradients, axis=1)

    def objective(self, x: Array) -> float:
        """Return the objective of the logits of one point (1, P) with their cheapest factors."""
        _, values, _, bias = self.decompose(x)
        m, scores = self.depth, self.products(x) / self.root + bias[:, :, None]
        cost = (m + 1) / 2 * self.decay * float((values ** (2 / (m + 1))).sum())
        bias_cost = self.problem.bias_decay / 2 * float((bias**2).sum())
        return float(self.fit.values_and_residuals(scores)[0][0]) + cost + bias_cost


class FixedRank:
    """The objective on ``X = s U V^T`` of full rank, on points (B, P) that hold (U, V, bias).

    Smooth only while no singular value vanishes, but well conditioned: `Factors` has flat valleys
    where singular values nearly agree.

    Parameters
    ----------
    f : Factors
        Its width is the rank.
    scale : float
        The number s; as large as X, it makes curvatures as large as those of `Factors`.
    """

    def __init__(self, f: Factors, scale: float) -> None:
        self.f, self.scale = f, scale

    def enter(self, x: Array) -> Array:
        """Return the point of this class for one of `Factors`."""
        left, values, right, bias = self.f.decompose(x)
        lengths = np.sqrt(values / self.scale)[:, None]
        parts = [(left * lengths).reshape(len(x), -1), (right * lengths).reshape(len(x), -1)]
        if self.f.problem.bias != "none":
            parts.append(bias / self.f.bias_scale)
        return np.concatenate(parts, axis=1)

    def leave(self, y: Array) -> Array:
        """Return the balanced point of `Factors`; the inverse of `enter`."""
        u, v, bias = self._split(y)
        left, values, right = _thin_svd(u, v)
        return self.f.join(left, self.scale * values, right, bias)

    def _split(self, y: Array) -> tuple[Array, Array, Array]:
        shape = (len(y), self.f.num_classes, self.f.width)
        u, v, bias = np.split(y, self.f.cuts[:2], axis=1)
        bias = bias * self.f.bias_scale if bias.shape[1] else np.zeros(shape[:2])
        return u.reshape(shape), v.reshape(shape), bias

    def __call__(self, y: Array) -> tuple[Array, Array]:
        """Return the objective, shape (B,), and its gradient, shape (B, P)."""
        f, power = self.f, 2 / (self.f.depth + 1)
        u, v, bias = self._split(y)
        product = self.scale * (u @ v.transpose(0, 2, 1))
        values, residual = f.fit.values_and_residuals(product / f.root + bias[:, :, None])
        left, sigma, right = _thin_svd(u, v)
        sigma = self.scale * sigma
        slope = residual * f.slope_scale
        slope += f.decay * (left * sigma[:, None] ** (power - 1)) @ right.transpose(0, 2, 1)
        slope *= self.scale
        gradients = [
            (slope @ v).reshape(len(y), -1),
            (slope.transpose(0, 2, 1) @ u).reshape(len(y), -1),
        ]
        values = values + f.decay / power * (sigma**power).sum(axis=1)
        if f.problem.bias != "none":
            bias_decay = f.problem.bias_decay
            gradients.append(f.bias_scale * (residual @ f.shares + bias_decay * bias))
            values += bias_decay / 2 * np.einsum("bk,bk->b", bias, bias)
        return values, np.concatenate(gradients, axis=1)


def _thin_svd(u: Array, v: Array) -> tuple[Array, Array, Array]:
    """Return left (B, K, r), values (B, r) and right (B, K, r) of ``U V^T``, (B, K, r) each.

    Through the thin factors: of their product, rounding would make up small singular values.
    """
    q, r = np.linalg.qr(u)
    p, s = np.linalg.qr(v)
    core = r @ s.transpose(0, 2, 1)
    left, values, right = svd(core)
    return q @ left, values, p @ right.transpose(0, 2, 1)


# -- starts ----------------------------------------------------------------------------------------


def _guesses(f: Factors, starts: int, rng: np.random.Generator) -> Array:
    """Return directions of X to start from, shape (S, K, K), of any scale."""
    k, width = f.num_classes, f.width
    center = np.eye(k) - f.problem.loss_object.ignores_constants / k
    guesses = []
    for i in range(starts):
        codes = rng.standard_normal((k, width))
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
        # Every other start is self-dual, as softmax codes are.
        guesses.append(codes @ (codes if i % 2 == 0 else rng.standard_normal((k, width))).T)
    axes = np.eye(width)
    for corners in (np.concatenate([axes, -axes]), np.eye(width + 1) - 1 / (width + 1)):
        codes = corners[np.arange(k) % len(corners)]
        guesses.append(codes @ codes.T)
    guesses.append(np.eye(k))
    directions: Array = center @ np.array(guesses) * f.root
    return directions


def _explore(
    f: Factors,
    guesses: Array,
    rng: np.random.Generator,
    iterations: int,
    options: SearchOptions,
) -> tuple[Array, Array]:
    """Descend from guesses of X; return points (S, P) and values (S,)."""
    # Structured starts are symmetric, and a descent keeps symmetries: a little noise breaks them.
    x = _scaled(f, guesses)
    x = x + 0.01 * np.sqrt((x**2).mean(axis=1, keepdims=True)) * rng.standard_normal(x.shape)
    held = 2 * MEMORY * x.shape[1] + 8 * f.num_classes**2
    batches = np.array_split(x, -(-len(x) * held // options.batch_numbers))
    ended = [
        lbfgs(f, batch, lambda v, g: f.is_small(options.explore_accuracy, v, g), iterations)
        for batch in batches
    ]
    points = np.concatenate([end.x for end in ended])
    values = np.concatenate([end.values for end in ended])
    finite = np.isfinite(values)
    return points[finite], values[finite]


def _scaled(f: Factors, guesses: Array) -> Array:
    """Return balanced points along guesses of X, at the least scale with a minimum along the ray.

    Small logits only collapse. Where the ray has no minimum but zero, the cheapest scale is taken.
    """
    left, values, right = svd(guesses)
    r = f.width
    values = values[:, :r] / np.maximum(values[:, :1], 1e-300)
    values = np.maximum(values, 0.01)  # a zero would stay zero
    margin = 1.0
    if not f.problem.loss_object.attains_zero:  # logits where the loss's slope balances the decays
        mean_count = f.problem.num_samples / f.num_classes
        margin = max(1.0, -math.log(f.decay) - math.log(mean_count) / (f.depth + 1))
    scales = margin * f.root.max() * 2.0 ** np.arange(-3, 7)
    none = np.zeros((len(guesses), f.num_classes))
    rays = [
        f.join(left[:, :, :r], s * values, right[:, :r].transpose(0, 2, 1), none) for s in scales
    ]
    costs = np.array([f(ray)[0] for ray in rays])
    inner = np.full_like(costs, np.inf)
    inner[1:-1] = np.where(
        (costs[1:-1] <= costs[:-2]) & (costs[1:-1] <= costs[2:]), costs[1:-1], np.inf
    )
    first = np.isfinite(inner).argmax(axis=0)
    picked = np.where(np.isfinite(inner).any(axis=0), first, costs.argmin(axis=0))
    chosen: Array = np.array(rays)[picked, np.arange(len(guesses))]
    return chosen


# -- from explored points to candidates ------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """A candidate with its logits."""

    candidate: Candidate
    logits: BlockMatrix
    bias: Array
    converged: bool

    def renamed(self, problem: Problem, places: NDArray[np.intp]) -> _Entry:
        """Return the entry with class k moved from place ``places[k]``."""
        dense = self.logits.mean[np.ix_(places, places)]
        logits = BlockMatrix.from_dense(problem, dense)
        return _Entry(self.candidate, logits, self.bias[places], self.converged)


def _best_of_each_rank(pools: list[tuple[Factors, Array, Array]]) -> list[tuple[Factors, Array]]:
    """Return the lowest explored point (1, P) of every rank, lowest values first."""
    best: dict[int, tuple[float, Factors, Array]] = {}
    for f, x, values in pools:
        if not len(x):
            continue
        ranks = f.ranks(f.decompose(x)[1])
        for rank, value, point in zip(ranks.tolist(), values.tolist(), x, strict=True):
            if rank not in best or value < best[rank][0]:
                best[rank] = (value, f, point[None])
    ordered = sorted(best.values(), key=lambda item: item[0])
    return [(f, point) for _, f, point in ordered]


def _polish(
    f: Factors, x: Array, max_iterations: int, endings: Array, options: SearchOptions
) -> _Entry | None:
    """Descend from an explored point (1, P) to convergence; None where that vanishes."""
    if f.depth > 1:
        f, x = _cut(f, x)
    steps = min(max_iterations, options.refine_iterations)
    x = lbfgs(f, x, lambda v, g: f.is_small(options.refine_accuracy, v, g), steps).x
    f, x = _cut(f, x)
    if f.width == 0:
        return None
    fixed = FixedRank(f, float(f.decompose(x)[1].max()))
    end = lbfgs(
        fixed,
        fixed.enter(x),
        lambda v, g: f.is_small(options.polish_accuracy, v, g),
        max_iterations,
    )
    if end.converged[0]:
        x = fixed.leave(end.x)
    else:  # a singular value goes to zero after all
        end = lbfgs(f, x, lambda v, g: f.is_small(options.polish_accuracy, v, g), max_iterations)
        f, x = _cut(f, end.x)
        if f.width == 0:
            return None
    x, parents = _merged(f, x, options.tie_tolerance)
    value = f.objective(x)
    # Copies, so that merged classes agree in every bit.
    mean = (f.products(x)[0] / f.root)[np.ix_(parents, parents)]
    bias = f.split(x)[3][0][parents]
    bias = without_constant(f.problem, bias, np.ones(f.num_classes))
    near = np.abs(endings - value) <= options.found_tolerance * value
    return _Entry(
        Candidate("search", f.width, value, int(near.sum())),
        BlockMatrix.from_dense(f.problem, mean),
        bias,
        bool(end.converged[0]),
    )


def _cut(f: Factors, x: Array) -> tuple[Factors, Array]:
    """Return a point (1, P) without its vanishing directions, of the width that is left."""
    left, values, right, bias = f.decompose(x)
    rank = int(f.ranks(values)[0])
    cut = Factors(f.problem, rank)
    return cut, cut.join(left[:, :, :rank], values[:, :rank], right[:, :, :rank], bias)


def _merged(f: Factors, x: Array, tolerance: float) -> tuple[Array, NDArray[np.intp]]:
    """Make equal what a descent can only bring close; also return each class's representative.

    Where two classes of equal count share one mean, averaging their logits and biases does not
    raise the objective: it is convex in U and the bias, and invariant under their exchange.
    """
    u, v, _, bias = (part[0].copy() for part in f.split(x))
    means = v / f.root[:, None]
    lengths = np.linalg.norm(means, axis=1)
    limit = VANISHING * lengths.max()
    v[lengths <= limit] = 0.0
    near = np.linalg.norm(means[:, None] - means, axis=2) <= limit
    near &= f.root[:, None] == f.root
    parents = np.arange(f.num_classes)
    for k in parents:
        parents[k] = next(j for j in np.flatnonzero(near[k]) if parents[j] == j)
    for parent in np.unique(parents):
        members = parents == parent
        for rows in (u, v, bias):
            rows[members] = rows[members].mean(axis=0)
    merged = x.copy()
    ends = f.cuts
    merged[0, : ends[1]] = np.concatenate([u.ravel(), v.ravel()])
    merged[0, ends[2] :] = bias[: ends[3] - ends[2]] / f.bias_scale
    if f.objective(merged) > f.objective(x) * (1 + tolerance):
        return x, np.arange(f.num_classes)
    return merged, parents


def _closed_forms(problem: Problem) -> list[_Entry]:
    """Return the zero solution and, where there is one, the simplex ETF."""
    partition = Partition.coarsest(problem)
    g = partition.num_groups
    zero = BlockMatrix(partition, np.zeros(g), np.zeros((g, g)))
    bias = np.zeros(g)
    if problem.bias != "none":
        bias = best_bias(problem, problem.loss_object.datafit(partition), zero, bias)
    bias = without_constant(problem, bias, partition.sizes)
    points = [("zero", zero, bias)]
    balanced = problem.loss_object.is_softmax and problem.depth > 1 and g == 1
    wide = problem.dim is None or problem.dim >= problem.loss_object.max_rank(problem.num_classes)
    if balanced and wide and (margin := etf_margin(problem)) is not None:
        points.append(("ETF", BlockMatrix(partition, np.array([margin]), zero.mean), np.zeros(g)))
    return [
        _Entry(Candidate(name, z.rank, objective(problem, z, b), None), z, b, True)
        for name, z, b in points
    ]


def _compare(
    closed: list[_Entry], polished: list[_Entry], full_rank: int, tolerance: float
) -> tuple[str, list[_Entry]]:
    """Return who wins, and the winner followed by the others in the order of their objectives."""
    lowest: dict[int, _Entry] = {}
    for entry in sorted(polished, key=_value):
        lowest.setdefault(entry.candidate.rank, entry)
    # A search that only finds a closed form again has not beaten it.
    entries = closed + [
        entry
        for rank, entry in lowest.items()
        if not any(
            form.candidate.rank == rank and _unbeaten(form, entry, tolerance) for form in closed
        )
    ]
    best = next(
        (form for form in closed if all(_unbeaten(form, entry, tolerance) for entry in entries)),
        min(entries, key=_value),
    )
    name = best.candidate.name
    if name == "search":
        name = "low-rank" if best.candidate.rank < full_rank else "full-rank"
    others = sorted((entry for entry in entries if entry is not best), key=_value)
    return name, [best, *others]


def _value(entry: _Entry) -> float:
    return entry.candidate.objective


def _unbeaten(form: _Entry, entry: _Entry, tolerance: float) -> bool:
    return form.candidate.objective <= entry.candidate.objective * (1 + tolerance)


def etf_margin(problem: Problem) -> float | None:
    """Return the largest stationary margin m of ``Z = m (I - 11^T/K)``, balanced cross-entropy.

    The larger root of ``m^{1-p} = mu n^{1/(M+1)} (e^m + K - 1)``, ``p = 2/(M+1)``, M >= 2: there
    the objective has a local minimum over m, the other being m = 0. None where there is no root.
    Equal class weights divide mu.
    """
    ((count, k),) = problem.groups
    p = 2 / (problem.depth + 1)
    target = math.log(problem.mean_decay) + math.log(count) / (problem.depth + 1)
    target -= math.log(problem.group_weights[0])

    def excess(m: float) -> float:  # concave in m
        return (1 - p) * math.log(m) - float(np.logaddexp(m, math.log(k - 1))) - target

    # Its peak: m e^m / (e^m + K - 1) = 1 - p, increasing in m.
    low, high = 0.0, math.log(k) + 2
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = middle / (1 + (k - 1) * math.exp(-middle)) > 1 - p
        low, high = (low, middle) if above else (middle, high)
    if excess(high) <= 0:
        return None
    low, high = high, 2 * high
    while excess(high) > 0:
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return low
