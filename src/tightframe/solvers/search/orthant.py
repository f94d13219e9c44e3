"""ReLU features and one layer: points of the orthant, their descents, and axes that are added.

With ``H >= 0`` no rotation of the features is free. Over factors of any width the minimum is that
of a convex problem all the same (docs/theory.md section 5): where no direction of the orthant
lowers the objective, a local minimum is global, and a bound shows it (`tightframe.theory.orthant`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.problem.problem import Problem
from tightframe.solvers.search.factors import Classes, Factors
from tightframe.solvers.search.record import Candidate, Search
from tightframe.theory.certificate import without_constant
from tightframe.theory.orthant import orthant_bound, steepest_axes

#: Rounds of descent and new axes.
MAX_ROUNDS = 40

#: Descents of a round: where Newton steps get stuck, quasi-Newton ones lead on.
MAX_DESCENTS = 6
CONVERGED = 1e-9
LBFGSB = {"ftol": 1e-15, "gtol": 1e-12, "maxcor": 30}

#: A direction lowers the objective where its pull exceeds the decay by more than this share.
STEEP = 1e-8

#: Newton steps of a polish, conjugate gradients of each, and the share of the gradient's square
#: that they may leave.
MAX_NEWTON, MAX_GRADIENTS, LEFT = 30, 600, 1e-10

#: Entries, and differences of classes, below this share of the largest vanish.
VANISHING = 1e-7


class Orthant:
    """The objective on points (B, P) that hold (U, Y, bias), ``V = Y^2``; one layer.

    Parameters
    ----------
    problem : Problem
    width : int
        Columns of U and V.
    """

    signed = False

    def __init__(self, problem: Problem, width: int) -> None:
        self.problem, self.width = problem, width
        self.factors = Factors(problem, width)
        self.num_classes = problem.num_classes
        self.root = self.factors.root
        self._own = slice(*self.factors.cuts[:2])

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return the objective, shape (B,), and its gradient, shape (B, P)."""
        values, gradients = self.factors(self.leave(x))
        gradients[:, self._own] *= 2 * x[:, self._own]
        return values, gradients

    def is_small(self, accuracy: float, values: Array, gradients: Array) -> NDArray[np.bool_]:
        """Tell whether gradients are small enough for an accuracy."""
        return self.factors.is_small(accuracy, values, gradients)

    def classes(self, x: Array) -> Classes:
        """Return what belongs to single classes."""
        return self.factors.classes(self.leave(x))

    def from_classes(self, classes: Classes) -> Array:
        """Return the points (B, P), the inverse of `classes`."""
        return self.enter(self.factors.from_classes(classes))

    def leave(self, x: Array) -> Array:
        """Return the points of `Factors`, which hold V."""
        points = x.copy()
        points[:, self._own] **= 2
        return points

    def enter(self, points: Array) -> Array:
        """Return the points for some of `Factors`; the inverse of `leave`."""
        x = points.copy()
        x[:, self._own] = np.sqrt(np.maximum(x[:, self._own], 0.0))
        return x


def point(f: Factors, u: Array, v: Array, bias: Array) -> Array:
    """Return the point (1, P) of `Factors` with U and V, (K, r) each, and the bias (K,)."""
    means = v / f.root[:, None]
    return f.from_classes(Classes(u[None], means[None], bias[None], np.zeros((1, 0))))


@dataclass(frozen=True)
class Found:
    """A local minimum over the orthant, decays balanced: both factors carry the mean decay.

    Attributes
    ----------
    left, right : ndarray, shapes (K, r) and (r, K)
        ``Z D^{1/2} = left @ right``, ``right >= 0``.
    bias : ndarray, shape (K,)
    objective : float
    lower_bound : float
        Of the minimum over factors of any width.
    converged : bool
        Whether the gradient became as small as it can.
    rounds : int
        Descents.
    """

    left: Array
    right: Array
    bias: Array
    objective: float
    lower_bound: float
    converged: bool
    rounds: int

    @property
    def width(self) -> int:
        """Number of axes."""
        return self.left.shape[1]

    def blocks(self, problem: Problem) -> tuple[BlockMatrix, Array]:
        """Return the logits and a bias per group; by class where classes of a group differ.

        The problem without ``dim`` is convex in the logits: those of classes of a group agree.
        """
        z = self.left @ self.right / np.sqrt(problem.counts)
        groups, sizes = problem.class_groups, np.array([n for _, n in problem.groups])
        share = (np.arange(len(sizes))[:, None] == groups) / sizes[:, None]
        mean, bias = share @ z @ share.T, share @ self.bias
        own = share @ np.diagonal(z)
        partition = Partition.coarsest(problem)
        # The mean over a group holds own and sibling entries.
        many = np.where(sizes > 1, sizes, 2)
        within = np.where(sizes > 1, (own - np.diagonal(mean)) * many / (many - 1), 0.0)
        limit = VANISHING * float(np.abs(z).max())
        within[np.abs(within) <= limit] = 0.0
        blocks = BlockMatrix(partition, within, mean)
        scale = limit + VANISHING * float(np.abs(self.bias).max())
        if (
            np.abs(blocks.to_dense() - z).max() <= scale
            and np.abs(bias[groups] - self.bias).max() <= scale
        ):
            return blocks, bias
        return BlockMatrix.from_dense(problem, z), self.bias

    def factors(self, problem: Problem) -> tuple[list[Array], Array]:
        """Return the classifier and the class means, with axes that are zero up to ``dim``."""
        k, width = problem.num_classes, max(problem.width or problem.num_classes, self.width)
        weights, means = np.zeros((k, width)), np.zeros((width, k))
        decay = problem.mean_decay
        weights[:, : self.width] = self.left * np.sqrt(decay / problem.weight_decays[0])
        means[: self.width] = self.right * np.sqrt(decay / (problem.feature_decay * problem.counts))
        return [weights], means

    def record(self, problem: Problem, seed: int) -> Search:
        """Return the record of one descent to a minimum that no further axis lowers."""
        rank = self.blocks(problem)[0].rank
        full = min(problem.loss_object.max_rank(problem.num_classes), self.width)
        return Search(
            starts=1,
            seed=seed,
            widths=(self.width,),
            candidates=(Candidate("search", rank, self.objective, 1),),
            winner="full-rank" if rank == full else "low-rank",
            chains=1,
            agreed=1,
            stopped=None,
            converged=self.converged,
            relaxed_bound=self.lower_bound,
        )

    def renamed(self, places: NDArray[np.intp]) -> Found:
        """Return the same with class k moved from place ``places[k]``."""
        return replace(
            self, left=self.left[places], right=self.right[:, places], bias=self.bias[places]
        )


def minimise(problem: Problem, *, tol: float, max_iterations: int) -> Found:
    """Descend to a local minimum that no further axis lowers: the global one, where bounds close.

    Parameters
    ----------
    problem : Problem
        One layer, non-negative features; ``dim`` is not used.
    tol : float
        Relative gap to the bound at which rounds end.
    max_iterations : int
        Quasi-Newton iterations allowed to a descent.
    """
    k = problem.num_classes
    f = Factors(problem, k)
    points = _first_guess(f)
    for rounds in range(1, MAX_ROUNDS + 1):
        points, converged = descend(f, points, max_iterations)
        f, points = _without_spare_axes(f, points)
        gradient = _gradient(f, points)
        lengths, axes = steepest_axes(gradient / f.decay)
        steep = lengths > 1 + STEEP
        if not steep.any():
            break
        f, points = _with_axes(f, points, gradient, axes[steep][np.argsort(-lengths[steep])])
    return found(f, points, converged, rounds)


def descend(f: Factors, points: Array, max_iterations: int) -> tuple[Array, bool]:
    """Descend from a point (1, P) of `Factors` within the orthant; tell whether that converged."""
    from scipy.optimize import minimize

    own = slice(*f.cuts[:2])
    bounds = np.full((points.shape[1], 2), np.inf)
    bounds[:, 0] *= -1
    bounds[own, 0] = 0.0

    def function(x: Array) -> tuple[float, Array]:
        values, gradients = f(x[None])
        return float(values[0]), gradients[0]

    options = LBFGSB | {"maxiter": max_iterations, "maxfun": 2 * max_iterations}
    best, least = points, np.inf
    for _ in range(MAX_DESCENTS):
        points[:, own] = np.minimum(points[:, own], bounds[own, 1])
        end = minimize(
            function, points[0], jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        points, left = polish(f, end.x[None], bounds[own, 1] > 0)
        value = float(f(points)[0][0])
        if value > least * (1 + CONVERGED):  # what was held is needed
            return best, False
        best, least = points, value
        if left <= CONVERGED:
            return best, True
        bounds[own, 1] = np.where(_rivals(f, points, 10 * left), 0.0, np.inf)
    return best, False


def _rivals(f: Factors, points: Array, error: float) -> NDArray[np.bool_]:
    """Return which entries of V lose against a larger one of their axis, flattened.

    Two classes whose ``-(G^T G)_ij`` stays positive share no axis at the minimum. As long as both
    are on one they push each other off it, with a force that vanishes with their entries. Which
    pairs those are, the larger of that and of their cosine tells near the minimum.
    """
    gradient = _gradient(f, points) / f.decay
    v = f.split(points)[1][0]
    unit = _unit(v)
    apart = -gradient.T @ gradient > np.maximum(unit @ unit.T, error)
    lose = np.zeros(v.shape, dtype=np.bool_)
    for axis in range(f.width):
        stay: list[int] = []
        for k in np.argsort(-v[:, axis]):
            if apart[k, stay].any():
                lose[k, axis] = True
            else:
                stay.append(int(k))
    return lose.ravel()


def _unit(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit


def _first_guess(f: Factors) -> Array:
    """Return a point with an axis a class: the shape of the closed form without bias."""
    k = f.num_classes
    codes = np.eye(k) - f.problem.loss_object.ignores_constants / k
    size = np.sqrt(f.root.mean())
    return point(f, size * codes, size * np.eye(k), np.zeros(k))


def _gradient(f: Factors, points: Array) -> Array:
    """Return G, the gradient of the data fit in X, (K, K)."""
    _, _, _, bias = f.split(points)
    scores = f.products(points) / f.root + bias[:, :, None]
    gradient: Array = (f.fit.values_and_residuals(scores)[1] * f.slope_scale)[0]
    return gradient


def _without_spare_axes(f: Factors, points: Array) -> tuple[Factors, Array]:
    """Drop axes that vanish and join those that point the same way, which costs no more."""
    u, v, _, bias = (part[0] for part in f.split(points))
    lengths = np.linalg.norm(v, axis=0)
    kept = lengths > VANISHING * max(lengths.max(initial=0.0), 1e-3)
    if not kept.any():
        kept[0] = True
        u, v, lengths = 0 * u, 0 * v, np.ones_like(lengths)
    u, v, lengths = u[:, kept], v[:, kept], lengths[kept]
    same = (v / lengths).T @ (v / lengths) > 1 - VANISHING**2
    leaders = same.argmax(axis=1)
    joined = []
    for leader in np.unique(leaders):
        members = leaders == leader
        # X's part is of rank one: w = -G v / lambda is parallel too, and lengths agree.
        product = u[:, members] @ v[:, members].T
        axis = v[:, leader] / lengths[leader]
        w = product @ axis
        size = np.sqrt(np.linalg.norm(w))
        joined.append((w / size if size else w, axis * size))
    smaller = Factors(f.problem, len(joined))
    parts = [np.array([pair[side] for pair in joined]).T for side in (0, 1)]
    k = f.num_classes
    return smaller, point(smaller, *(part.reshape(k, -1) for part in parts), bias)


def _with_axes(f: Factors, points: Array, gradient: Array, axes: Array) -> tuple[Factors, Array]:
    """Add axes along which the objective falls, the steepest first, none twice."""
    chosen: list[Array] = []
    for axis in axes:
        if all(axis @ other < 0.99 for other in chosen):
            chosen.append(axis)
    u, v, _, bias = (part[0] for part in f.split(points))
    new_v = np.array(chosen).T
    new_u = -gradient @ new_v
    new_u /= np.linalg.norm(new_u, axis=0)
    wider = Factors(f.problem, f.width + len(chosen))
    lengths = np.sqrt(f.root.mean()) * np.geomspace(1e-3, 3.0, 12)
    trials = np.concatenate(
        [point(wider, np.c_[u, s * new_u], np.c_[v, s * new_v], bias) for s in lengths]
    )
    best = int(wider(trials)[0].argmin())
    return wider, trials[[best]]


def found(f: Factors, points: Array, converged: bool, rounds: int) -> Found:
    u, v, _, bias = (part[0] for part in f.split(points))
    bias = without_constant(f.problem, bias, np.ones(f.num_classes))
    partition = f.fit.partition
    scores = u @ v.T / f.root + bias[:, None]
    residual = f.fit.residual(np.zeros(f.num_classes), scores)
    bound = orthant_bound(f.problem, f.fit, residual)
    return Found(u, v.T, bias, float(f(points)[0][0]), bound, converged, rounds)


# -- Newton steps on what is free ------------------------------------------------------------------


def polish(f: Factors, points: Array, loose: NDArray[np.bool_]) -> tuple[Array, float]:
    """Converge by Newton steps on the coordinates of V that are not held at zero.

    Held are those that a step along the gradient, of the length 1/decay that is a Newton step
    where the decay prevails, leaves at zero, and all that are not ``loose``. Returns a point
    (1, P), and the length of its gradient over the decay and the point's length.
    """
    own = slice(*f.cuts[:2])
    x = points[0].copy()

    def look(x: Array) -> tuple[Array, NDArray[np.bool_], float]:
        gradient = f(x[None])[1][0]
        free = np.ones(len(x), dtype=np.bool_)
        free[own] = (x[own] > gradient[own] / f.decay) & loose
        inside = gradient.copy()
        inside[own] = np.where(x[own] > 0, gradient[own], np.minimum(gradient[own], 0.0)) * loose
        return gradient, free, float(np.linalg.norm(inside))

    gradient, free, size = look(x)
    for _ in range(MAX_NEWTON):
        if (x[~free] != 0).any():
            x = np.where(free, x, 0.0)
            gradient, free, size = look(x)
        step = _newton_step(f, x, gradient, free)
        length = 1.0
        while length > 1e-4:
            moved = x + length * step
            moved[own] = np.maximum(moved[own], 0.0)
            seen = look(moved)
            if seen[2] < size * (1 - 0.1 * length):
                break
            length /= 4
        else:
            break
        x, (gradient, free, size) = moved, seen
    return x[None], size / (f.decay * max(float(np.linalg.norm(x)), 1e-3))


def _newton_step(f: Factors, x: Array, gradient: Array, free: NDArray[np.bool_]) -> Array:
    """Solve for the Newton step on the free coordinates by conjugate gradients.

    Axes inside a face of the orthant may turn at no cost: the system is singular there, but has
    solutions. Where curvature is not positive, the step so far is returned.
    """
    product = _hessian(f, x)
    step = np.zeros_like(x)
    residual = np.where(free, -gradient, 0.0)
    direction = residual.copy()
    square = first = float(residual @ residual)
    for _ in range(MAX_GRADIENTS):
        if square <= LEFT * first:
            break
        image = np.where(free, product(direction), 0.0)
        bend = float(direction @ image)
        if bend <= 1e-14 * float(direction @ direction):
            break
        step += square / bend * direction
        residual -= square / bend * image
        new = float(residual @ residual)
        direction = residual + new / square * direction
        square = new
    return step


def _hessian(f: Factors, x: Array) -> Callable[[Array], Array]:
    """Return the product of the Hessian at a point (P,) with a vector."""
    u, v, _, bias = (part[0] for part in f.split(x[None]))
    none = np.zeros(f.num_classes)
    found = f.fit.derivatives(none, u @ v.T / f.root + bias[:, None])
    g = found.by_score / f.root

    def product(d: Array) -> Array:
        du, dv, _, db = (part[0] for part in f.split(d[None]))
        slope = found.curvature(none, (du @ v.T + u @ dv.T) / f.root + db[:, None])[1]
        dg = slope / f.root
        parts = [
            (dg @ v + g @ dv + f.decay * du).ravel(),
            (dg.T @ u + g.T @ du + f.decay * dv).ravel(),
        ]
        if f.problem.bias != "none":
            parts.append(f.bias_scale * (slope.sum(axis=1) + f.problem.bias_decay * db))
        return np.concatenate(parts)

    return product
