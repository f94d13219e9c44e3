"""The optimisation landscape of the factored problem: gradients, curvature, saddles, descent.

The function studied is the objective over the classifier W (K x d), the class means H (d x K) and
the bias b (K), every sample at its class mean (one linear layer, real features, any counts):

    F(W, H, b) = f(W H + b 1^T) + (weight_decay / 2) ||W||^2
                 + (feature_decay / 2) sum_k n_k ||h_k||^2 + (bias_decay / 2) ||b||^2

**Coordinates.** All gradients, operators and vectors here use ``V = H D^{1/2}`` in place of H
(column k is ``sqrt(n_k) h_k``), in the order ``x = (W row by row, V row by row, b)``, without b
for ``bias="none"``: ``2 K d`` or ``2 K d + K`` numbers. In these coordinates ``||V||^2`` is the
squared length of all N features, so that F's Hessian is the Hessian of the problem over all
samples' features restricted to collapsed features. That restriction is an invariant subspace: the
remaining eigenvalues of the full Hessian, on features that differ within a class k, are those of
``W^T C_k W / N + feature_decay I`` (C_k the loss's curvature), each ``n_k - 1`` times. They are at
least ``feature_decay``, so every direction of descent is a collapsed one.

**Which critical points are global.** With ``G = (1/N) R D^{1/2}`` the gradient of f in
``X = W V`` and ``lambda = sqrt(weight_decay feature_decay)``: a critical point is a global
minimiser iff ``||G||_op <= lambda``. Otherwise a unit vector a with ``W a = 0`` and ``a^T V = 0``
gives a direction of curvature ``-2 (||G||_op - lambda)`` (docs/theory.md section 4; Zhu et al.
2021, arXiv 2105.02375, for balanced counts and d > K). Such an a exists at EVERY critical point
that is not global as soon as d >= K. Proof: at a critical point ``weight_decay W^T W =
feature_decay V V^T``, so that W and V have the same null directions a, and ``W = c U S R^T``,
``V = R S Q^T / c`` with ``U^T G = -lambda Q^T``; without a null direction d = K and U is square,
so ``G = -lambda U Q^T`` and ``||G||_op = lambda``. For cross-entropy (``1^T G = 0 = 1^T U``) and
for MSE with a free bias (``G D^{1/2} 1 = 0``) the same argument serves d = K - 1.
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from tightframe.checks import positive_float
from tightframe.geometry.blocks import Array, Partition
from tightframe.problem.problem import Problem
from tightframe.solve import NotConvergedWarning
from tightframe.theory.certificate import Certificate, certify

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

#: Operators up to this size are written out where eigenvalues or linear systems are needed.
DENSE_SIZE = 600

#: A singular value of a point below this share of its largest counts as zero.
NULL_TOLERANCE = 1e-7

#: Local minimisation stops when the gradient is this small in units of lambda.
ACCURACY = 1e-10

#: Trust-region steps, and Newton steps after them, allowed to one local minimisation.
MAX_TRUST_STEPS, MAX_NEWTON_STEPS = 1000, 20


class Point(NamedTuple):
    """A point of the landscape, or a displacement; ``f(problem, *point)`` passes it on.

    Attributes
    ----------
    weights : ndarray, shape (K, d)
        The classifier W.
    class_means : ndarray, shape (d, K)
        The class means H as columns.
    bias : ndarray, shape (K,), or None
        None stands for zeros.
    """

    weights: Array
    class_means: Array
    bias: Array | None = None

    def to_vector(self, problem: Problem) -> Array:
        """Return the coordinates ``(W, H D^{1/2}, b)``, flattened row by row."""
        return _enter(problem, *self)[1]

    @classmethod
    def from_vector(cls, problem: Problem, vector: ArrayLike) -> Point:
        """Return the point that coordinates stand for; the inverse of `to_vector`.

        Raises
        ------
        ValueError
            If the vector's length fits no width.
        """
        k, x = problem.num_classes, np.asarray(vector, dtype=np.float64)
        dim, rest = divmod(x.size - (k if problem.bias != "none" else 0), 2 * k)
        if x.ndim != 1 or dim < 0 or rest:
            raise ValueError(
                f"vector: got shape {x.shape}; need 2 K d numbers, and K more with a bias (K = {k})"
            )
        return _Landscape(problem, dim).point(x)


class Eigenpair(NamedTuple):
    """The smallest eigenvalue of a symmetric operator, as computed.

    Attributes
    ----------
    value : float
        Rayleigh quotient of `vector`: never below the smallest eigenvalue, up to rounding.
    vector : ndarray, shape (n,)
        Unit vector.
    error : float
        An eigenvalue lies within this distance of `value`: the residual's norm, plus rounding.
    """

    value: float
    vector: Array
    error: float


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction of negative curvature.

    Attributes
    ----------
    step : Point
        The displacement (Delta_W, Delta_H, Delta_b); not of unit length.
    curvature : float
        ``v^T Hessian v`` of the displacement's coordinates v, from the operator; negative.
    predicted : float or None
        ``-2 (||G||_op - lambda)``, what the explicit direction's curvature must be; None for an
        eigenvector.
    kind : {"explicit", "eigenvector"}
        The formula of docs/theory.md section 4, or (where no unit vector a has ``W a = 0`` and
        ``a^T H = 0``) the eigenvector of the Hessian's smallest eigenvalue.
    """

    step: Point
    curvature: float
    predicted: float | None
    kind: str


@dataclass(frozen=True, eq=False)
class CriticalPoint:
    """What `critical_point` found.

    Attributes
    ----------
    verdict : {"global minimum", "strict saddle", "not critical", "undecided"}
        ``"undecided"``: critical, not shown to be global, and no direction of negative curvature.
        That happens only for d < K (see the module's text), where local minima may exist.
    objective : float
        F at the point (nats for cross-entropy).
    gradient_norm : float
        Length of `gradient` there.
    stationarity : float
        Length of the gradient over lambda, W and V rescaled so that both decays are lambda. The
        point counts as critical iff this is at most ``tol``.
    residual_norm : float
        ``||G||_op``, the largest singular value of the data fit's gradient in ``X = W V``.
    logit_decay : float
        lambda, what `residual_norm` is compared with (up to the factor ``1 + tol``).
    rank : int
        Rank of the logits ``W H``.
    certificate : Certificate or None
        F at this point and a lower bound of the global minimum, for a global minimum only.
    direction : Direction or None
        The direction of negative curvature of a strict saddle.
    """

    verdict: str
    objective: float
    gradient_norm: float
    stationarity: float
    residual_norm: float
    logit_decay: float
    rank: int
    certificate: Certificate | None
    direction: Direction | None

    @property
    def gap(self) -> float | None:
        """Certified distance from the global minimum; None unless the verdict is that."""
        return None if self.certificate is None else self.certificate.gap


@dataclass(frozen=True, eq=False)
class Descent:
    """A descent from a start to the certified minimum.

    Attributes
    ----------
    stages : tuple of CriticalPoint
        The start and the end of every local minimisation, in order; objectives do not rise
        (up to rounding).
    point : Point
        The last stage's point.
    converged : bool
        Whether the last verdict is ``"global minimum"``.
    """

    stages: tuple[CriticalPoint, ...]
    point: Point
    converged: bool

    @property
    def certificate(self) -> Certificate | None:
        """The last stage's certificate."""
        return self.stages[-1].certificate


# -- gradient and curvature ------------------------------------------------------------------------


def objective(
    problem: Problem, weights: ArrayLike, class_means: ArrayLike, bias: ArrayLike | None = None
) -> float:
    """Return F(W, H, b) (nats for cross-entropy); parameters as in `gradient`."""
    landscape, x = _enter(problem, weights, class_means, bias)
    return landscape.value(x)


def gradient(
    problem: Problem, weights: ArrayLike, class_means: ArrayLike, bias: ArrayLike | None = None
) -> Array:
    """Return F's gradient in the coordinates ``(W, H D^{1/2}, b)``.

    Parameters
    ----------
    problem : Problem
        One linear layer, real features; any counts, loss and bias.
    weights : array_like, shape (K, d)
        The classifier W.
    class_means : array_like, shape (d, K)
        The class means H as columns.
    bias : array_like, shape (K,), optional
        The bias; zeros if omitted. Non-zero only with ``problem.bias`` other than ``"none"``.

    Returns
    -------
    ndarray, shape (2 K d,) or with a bias (2 K d + K,)
        ``(G V^T + weight_decay W, W^T G + feature_decay V, G D^{1/2} 1 + bias_decay b)``,
        ``V = H D^{1/2}`` and ``G = R D^{1/2} / N``, flattened row by row.

    Raises
    ------
    ValueError
        If the problem has several layers or non-negative features, or shapes do not fit.
    """
    landscape, x = _enter(problem, weights, class_means, bias)
    return landscape.gradient(x)


def hessian(
    problem: Problem, weights: ArrayLike, class_means: ArrayLike, bias: ArrayLike | None = None
) -> LinearOperator:
    """Return F's Hessian as a symmetric float64 operator; parameters as in `gradient`.

    The matrix, in the coordinates ``(W, V, b)``, ``V = H D^{1/2}``, flattened row by row, is

        J^T C J + S + diag(weight_decay I, feature_decay I, bias_decay I)

    with J the derivative of the logits, ``J (dW, dV, db) = (dW V + W dV) D^{-1/2} + db 1^T``, C
    the loss's curvature, on column k ``(n_k / N) (diag(p_k) - p_k p_k^T)`` for cross-entropy and
    ``(n_k / N) I`` for MSE, and S the residual's part, ``S (dW, dV, db) = (G dV^T, dW^T G, 0)``.
    A product costs six multiplications of K x d with d x K or K x K matrices.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Square, of the size of `gradient`.
    """
    return _operator(*_enter(problem, weights, class_means, bias))


def gauss_newton(
    problem: Problem, weights: ArrayLike, class_means: ArrayLike, bias: ArrayLike | None = None
) -> LinearOperator:
    """Return the Gauss-Newton matrix with the decays; parameters as in `gradient`.

    The matrix is that of `hessian` without the residual's part S:

        J^T C J + diag(weight_decay I, feature_decay I, bias_decay I).

    It is positive semi-definite, its eigenvalues at least the least decay. S links dW with dV
    only, so the two matrices agree in their diagonal blocks (W with W, V with V) and in all rows
    of the bias; they are equal iff ``G = 0``, that is where MSE is interpolated exactly,
    ``W H + b 1^T = I`` (for cross-entropy at infinite logits only).

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Square, symmetric, float64.
    """
    return _operator(*_enter(problem, weights, class_means, bias), with_residual=False)


def smallest_eigenpair(operator: LinearOperator, *, seed: int = 0) -> Eigenpair:
    """Return the smallest eigenvalue of a symmetric operator with a unit eigenvector.

    Up to `DENSE_SIZE` rows the matrix is written out; above, SciPy's Lanczos method (`eigsh`) runs
    on ``s I - A`` with s just above the largest absolute eigenvalue, so that it converges to an
    accuracy relative to s also where the smallest eigenvalue is zero.

    Parameters
    ----------
    operator : scipy.sparse.linalg.LinearOperator
        Symmetric, for example a `hessian`.
    seed : int
        Seed of the Lanczos start vector; the same seed gives the same result.

    Raises
    ------
    ValueError
        If the operator is not square.
    """
    rows, columns = operator.shape
    if rows != columns or not rows:
        raise ValueError(f"operator: got shape {operator.shape}, need a square one")
    if rows <= DENSE_SIZE:
        values, vectors = np.linalg.eigh(_dense(operator))
        vector, norm = vectors[:, 0], float(np.abs(values).max())
    else:
        vector, norm = _lanczos(operator, seed)
    product = operator @ vector
    value = float(vector @ product)
    residual = float(np.linalg.norm(product - value * vector))
    return Eigenpair(value, vector, residual + np.finfo(float).eps * rows * norm)


def _lanczos(operator: LinearOperator, seed: int) -> tuple[Array, float]:
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    start = np.random.default_rng(seed).standard_normal(operator.shape[0])
    if not np.any(operator @ start):
        return start / np.linalg.norm(start), 0.0  # the zero operator, which ARPACK refuses
    # Ten percent is enough: the shift only has to exceed the norm.
    top = eigsh(operator, 1, which="LM", v0=start, tol=0.1, return_eigenvectors=False)
    shift = 1.2 * abs(float(top[0]))
    flipped = LinearOperator(
        operator.shape, matvec=lambda x: shift * x - operator @ x, dtype=np.float64
    )
    try:
        _, vectors = eigsh(flipped, 1, which="LA", v0=start, tol=1e-11, maxiter=2000)
    except ArpackNoConvergence:
        # A cluster at the lower end: the looser vector's error is reported with it.
        _, vectors = eigsh(flipped, 1, which="LA", v0=start, tol=1e-6, maxiter=10000)
    return vectors[:, 0], shift


# -- critical points -------------------------------------------------------------------------------


def critical_point(
    problem: Problem,
    weights: ArrayLike,
    class_means: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    tol: float = 1e-6,
    seed: int = 0,
) -> CriticalPoint:
    """Tell global minimum, strict saddle and non-critical point apart.

    Parameters
    ----------
    problem, weights, class_means, bias
        As in `gradient`.
    tol : float
        The point counts as critical up to a gradient of ``tol`` lambda, and as a global minimum
        up to ``||G||_op = (1 + tol) lambda``. The certified gap that comes with the verdict
        says what that leaves open.
    seed : int
        For `smallest_eigenpair`, where the explicit direction does not exist.

    Raises
    ------
    ValueError
        As in `gradient`, or if ``tol`` is not a positive number.
    """
    tol = positive_float("tol", tol)
    landscape, x = _enter(problem, weights, class_means, bias)
    return _classify(landscape, x, tol, seed)


def descent_direction(
    problem: Problem,
    weights: ArrayLike,
    class_means: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> Direction | None:
    """Return a direction of negative curvature, or None where none is found.

    With (u, v) the top singular pair of G, a unit vector a with ``W a = 0`` and ``a^T H = 0``, and
    ``c = (feature_decay / weight_decay)^{1/4}``:

        Delta_W = c u a^T,    Delta_H = -(1/c) a v^T D^{-1/2},    Delta_b = 0

    has curvature ``-2 (||G||_op - lambda)`` (docs/theory.md section 4), at critical and other
    points. Where no such a exists, the result is the unit eigenvector of the Hessian's smallest
    eigenvalue and its ``kind`` says so. If ``||G||_op <= lambda`` the Hessian is positive
    semi-definite and there is no such direction.

    Parameters
    ----------
    problem, weights, class_means, bias
        As in `gradient`.
    seed : int
        For `smallest_eigenpair`.
    """
    landscape, x = _enter(problem, weights, class_means, bias)
    return _escape(landscape, x, seed)


def saddle(
    problem: Problem, keep: int | Iterable[int], dim: int | None = None, *, seed: int = 0
) -> Point:
    """Return a critical point that uses part of the freedom only: in general a strict saddle.

    Parameters
    ----------
    problem : Problem
        One linear layer, real features.
    keep : int or iterable of int
        A number r: F is minimised at width r and padded with zero directions, which leaves the
        gradient zero; ``keep=0`` is the origin, with the best bias. Or indices into
        ``problem.groups``: the classes of the other groups share one row of W, one mean and one
        bias; F is symmetric under their permutations, so a minimiser over these points is
        critical for F too.
    dim : int, optional
        Width d of the result; ``problem.dim`` or K if omitted.
    seed : int
        Seed of the minimisation's start.

    Returns
    -------
    Point
        Critical to 1e-6, else a `NotConvergedWarning` is given. It is the global minimum where the
        kept freedom suffices, for example if r is at least the minimiser's rank.

    Raises
    ------
    ValueError
        If ``keep`` or ``dim`` is out of range.
    """
    _check(problem)
    width = _width(problem, dim)
    rng = np.random.default_rng(seed)
    if not isinstance(keep, Iterable):
        if not _is_whole(keep) or not 0 <= keep <= width:
            raise ValueError(
                f"keep: got {keep!r}, need 0 to {width} directions, or a list of group indices"
            )
        r = int(keep)
        narrow = _Landscape(problem, r)
        w, v, b = narrow.split(_minimise(narrow, narrow.random(rng)))
        w, v = np.pad(w, ((0, 0), (0, width - r))), np.pad(v, ((0, width - r), (0, 0)))
        landscape = _Landscape(problem, width)
        x = landscape.join(w, v, b)
    else:
        landscape = _Landscape(problem, width)
        tied = _Tied(landscape, _cells(problem, keep))
        x = tied.lift(_minimise(tied, tied.drop(landscape.random(rng))))
    stationarity = landscape.stationarity(x)
    if stationarity > 1e-6:
        warnings.warn(
            f"saddle stopped at a gradient of {stationarity:.1e} lambda, above 1e-6",
            NotConvergedWarning,
            stacklevel=2,
        )
    return landscape.point(x)


def descend(
    problem: Problem,
    start: Point,
    *,
    tol: float = 1e-6,
    seed: int = 0,
    max_stages: int | None = None,
) -> Descent:
    """Descend from any start, for example a saddle, to the certified global minimum.

    From a strict saddle F is followed along its direction of negative curvature (the best of a
    geometric sequence of lengths), then minimised locally by trust-region Newton-CG; where that
    ends in another saddle, again. Along the explicit direction each round adds one direction to
    the features, so that the rank rises to that of the minimiser.

    Parameters
    ----------
    problem : Problem
        One linear layer, real features.
    start : Point
        Its width d is kept; d >= K always leads to the minimum (see the module's text).
    tol : float
        As in `critical_point`.
    seed : int
        As in `critical_point`.
    max_stages : int, optional
        Local minimisations allowed; ``d + K`` if omitted.

    Returns
    -------
    Descent
        Not converged, after a `NotConvergedWarning`, if it ended elsewhere: an undecided point of
        a narrow problem, or too few stages.

    Raises
    ------
    ValueError
        As in `critical_point`, or if ``start`` is not a `Point`.
    """
    if not isinstance(start, Point):
        raise ValueError(f"start: got {type(start).__name__}, need a landscape.Point")
    tol = positive_float("tol", tol)
    landscape, x = _enter(problem, *start)
    allowed = landscape.dim + problem.num_classes if max_stages is None else max_stages
    if not _is_whole(allowed) or allowed < 1:
        raise ValueError(f"max_stages: got {max_stages!r}, need a positive whole number")
    stages = [_classify(landscape, x, tol, seed)]
    while stages[-1].verdict in ("strict saddle", "not critical") and len(stages) <= allowed:
        last = stages[-1]
        moved = x if last.direction is None else _follow(landscape, x, last.direction)
        new = _minimise(landscape, moved)
        if landscape.value(new) > last.objective * (1 + 1e-14):
            break  # too shallow for float64
        x = new
        stages.append(_classify(landscape, x, tol, seed))
        if last.verdict == stages[-1].verdict == "not critical":
            break  # the local method is stuck
    converged = stages[-1].verdict == "global minimum"
    if not converged:
        warnings.warn(
            f"descend stopped at a point with verdict {stages[-1].verdict!r} after "
            f"{len(stages) - 1} stages",
            NotConvergedWarning,
            stacklevel=2,
        )
    return Descent(tuple(stages), landscape.point(x), converged)


# -- the function and its restrictions -------------------------------------------------------------


class _Smooth(Protocol):
    """What local minimisation needs of a function."""

    decay: float
    tilt: Array  # rescales the coordinates so that both decays are lambda

    def value(self, x: Array) -> float: ...
    def gradient(self, x: Array) -> Array: ...
    def product(self, x: Array) -> Callable[[Array], Array]: ...


class _Landscape:
    """F at one width, on flat vectors ``(W, V, b)``."""

    def __init__(self, problem: Problem, dim: int) -> None:
        self.problem, self.dim = problem, dim
        self.fit = problem.loss_object.datafit(Partition.singletons(problem))
        self.root = np.sqrt(problem.counts)
        self.decay = problem.logit_decay
        self.decays = (problem.weight_decays[0], problem.feature_decay, problem.bias_decay)
        self.has_bias = problem.bias != "none"
        self.c = (problem.feature_decay / problem.weight_decays[0]) ** 0.25
        k = problem.num_classes
        self.within = np.zeros(k)
        self.tilt = self.join(np.full((k, dim), self.c), np.full((dim, k), 1 / self.c), np.ones(k))

    def split(self, x: Array) -> tuple[Array, Array, Array]:
        """Return W, V and b (zeros without a bias)."""
        k, size = self.problem.num_classes, self.problem.num_classes * self.dim
        w, v = x[:size].reshape(k, self.dim), x[size : 2 * size].reshape(self.dim, k)
        return w, v, x[2 * size :] if self.has_bias else np.zeros(k)

    def join(self, w: Array, v: Array, b: Array) -> Array:
        return np.concatenate([w.ravel(), v.ravel(), b if self.has_bias else b[:0]])

    def point(self, x: Array) -> Point:
        w, v, b = self.split(x)
        return Point(w.copy(), v / self.root, b.copy() if self.has_bias else None)

    def random(self, rng: np.random.Generator) -> Array:
        x: Array = rng.standard_normal(len(self.tilt)) * self.tilt
        return x

    def scores(self, w: Array, v: Array, b: Array) -> Array:
        scores: Array = w @ v / self.root + b[:, None]
        return scores

    def value(self, x: Array) -> float:
        parts = self.split(x)
        squares = (float(np.vdot(part, part)) for part in parts)
        cost = sum(decay / 2 * square for decay, square in zip(self.decays, squares, strict=True))
        return self.fit.value(self.within, self.scores(*parts)) + cost

    def residual(self, x: Array) -> Array:
        """Return G, the gradient of the data fit in ``X = W V``."""
        mean = self.fit.residual(self.within, self.scores(*self.split(x))).mean
        g: Array = mean * (self.root / self.problem.num_samples)
        return g

    def gradient(self, x: Array) -> Array:
        w, v, b = self.split(x)
        g = self.residual(x)
        by_w, by_v, by_b = self.decays
        return self.join(g @ v.T + by_w * w, w.T @ g + by_v * v, g @ self.root + by_b * b)

    def stationarity(self, x: Array) -> float:
        return float(np.linalg.norm(self.tilt * self.gradient(x))) / self.decay

    def product(self, x: Array, with_residual: bool = True) -> Callable[[Array], Array]:
        """Return the Hessian's (or the Gauss-Newton matrix's) product with a flat vector."""
        w, v, b = self.split(x)
        g = self.residual(x) if with_residual else None
        curvature = self.fit.derivatives(self.within, self.scores(w, v, b)).curvature
        by_w, by_v, by_b = self.decays

        def apply(d: Array) -> Array:
            dw, dv, db = self.split(np.asarray(d, dtype=np.float64).ravel())
            slope = curvature(self.within, (dw @ v + w @ dv) / self.root + db[:, None])[1]
            dg = slope / self.root
            out_w, out_v = dg @ v.T + by_w * dw, w.T @ dg + by_v * dv
            if g is not None:
                out_w += g @ dv.T
                out_v += dw.T @ g
            return self.join(out_w, out_v, slope.sum(axis=1) + by_b * db)

        return apply

    def rank(self, x: Array) -> int:
        w, v, _ = self.split(x)
        if not self.dim:
            return 0
        values = np.linalg.svd(w @ v, compute_uv=False)
        # Logits of 1e-10 are zero, whatever the largest.
        floor = max(NULL_TOLERANCE * values[0], 1e-10 * float(self.root.max()))
        return int((values > floor).sum())


class _Tied:
    """F on points whose classes of one cell share everything: a fixed subspace of symmetries.

    ``cells`` (K x C) has orthonormal columns, so that lengths agree with those of F.
    """

    def __init__(self, landscape: _Landscape, cells: Array) -> None:
        self.full, self.cells = landscape, cells
        self.decay = landscape.decay
        c, d = cells.shape[1], landscape.dim
        tilt = [np.full(c * d, landscape.c), np.full(c * d, 1 / landscape.c)]
        self.tilt = np.concatenate([*tilt, np.ones(c if landscape.has_bias else 0)])

    def lift(self, y: Array) -> Array:
        c, d = self.cells.shape[1], self.full.dim
        w, v = y[: c * d].reshape(c, d), y[c * d : 2 * c * d].reshape(d, c)
        b = y[2 * c * d :] if self.full.has_bias else np.zeros(c)
        return self.full.join(self.cells @ w, v @ self.cells.T, self.cells @ b)

    def drop(self, x: Array) -> Array:
        w, v, b = self.full.split(x)
        tail = self.cells.T @ b if self.full.has_bias else b[:0]
        return np.concatenate([(self.cells.T @ w).ravel(), (v @ self.cells).ravel(), tail])

    def value(self, y: Array) -> float:
        return self.full.value(self.lift(y))

    def gradient(self, y: Array) -> Array:
        return self.drop(self.full.gradient(self.lift(y)))

    def product(self, y: Array) -> Callable[[Array], Array]:
        product = self.full.product(self.lift(y))
        return lambda d: self.drop(product(self.lift(d)))


def _operator(landscape: _Landscape, x: Array, with_residual: bool = True) -> LinearOperator:
    from scipy.sparse.linalg import LinearOperator

    product = landscape.product(x, with_residual)
    size = len(landscape.tilt)
    return LinearOperator((size, size), matvec=product, rmatvec=product, dtype=np.float64)


def _dense(operator: LinearOperator) -> Array:
    matrix: Array = np.column_stack([operator @ row for row in np.eye(operator.shape[0])])
    return (matrix + matrix.T) / 2


# -- what comes in ---------------------------------------------------------------------------------


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check(problem: Any) -> None:
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    if problem.depth != 1:
        raise ValueError(f"problem: got depth {problem.depth}, the landscape is that of depth 1")
    if problem.features != "real":
        raise ValueError(
            f"problem: got features={problem.features!r}, the landscape is that of 'real' ones"
        )


def _width(problem: Problem, dim: int | None) -> int:
    if dim is None:
        return problem.dim or problem.num_classes
    if not _is_whole(dim) or dim < 1:
        raise ValueError(f"dim: got {dim!r}, need a positive whole number")
    if problem.dim not in (None, dim):
        raise ValueError(f"dim: got {dim}, but the problem's is {problem.dim}")
    return int(dim)


def _enter(
    problem: Problem, weights: ArrayLike, class_means: ArrayLike, bias: ArrayLike | None
) -> tuple[_Landscape, Array]:
    """Check a point and return its landscape and coordinates."""
    _check(problem)
    k = problem.num_classes
    w = _matrix("weights", weights)
    h = _matrix("class_means", class_means)
    if w.shape[0] != k or not w.shape[1]:
        raise ValueError(f"weights: got shape {w.shape}, need (K, d) = ({k}, d)")
    dim = w.shape[1]
    if problem.dim not in (None, dim):
        raise ValueError(f"weights: got width {dim}, but the problem's dim is {problem.dim}")
    if h.shape != (dim, k):
        raise ValueError(f"class_means: got shape {h.shape}, need (d, K) = ({dim}, {k})")
    b = np.zeros(k) if bias is None else _finite("bias", bias)
    if b.shape != (k,):
        raise ValueError(f"bias: got shape {b.shape}, need ({k},)")
    if problem.bias == "none" and b.any():
        raise ValueError("bias: got a non-zero bias for a problem with bias='none'")
    landscape = _Landscape(problem, dim)
    return landscape, landscape.join(w, h * landscape.root, b)


def _matrix(name: str, value: ArrayLike) -> Array:
    array = _finite(name, value)
    if array.ndim != 2:
        raise ValueError(f"{name}: got shape {array.shape}, need a matrix")
    return array


def _finite(name: str, value: ArrayLike) -> Array:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: need an array of numbers") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: entries must be finite")
    return array


def _cells(problem: Problem, keep: Iterable[int]) -> Array:
    """Return normalised indicators of single classes (kept groups) and whole groups (others)."""
    groups = len(problem.groups)
    kept = list(keep)
    for item in kept:
        if not _is_whole(item) or not 0 <= item < groups:
            raise ValueError(
                f"keep: got group {item!r}; the {groups} groups are numbered from 0 "
                "(or give one number of directions)"
            )
    index = problem.class_groups
    columns = []
    for group in range(groups):
        members = index == group
        if group in kept:
            columns.extend(np.eye(len(index))[members])
        else:
            columns.append(members / np.sqrt(members.sum()))
    return np.column_stack(columns)


# -- parts of the algorithms -----------------------------------------------------------------------


def _classify(landscape: _Landscape, x: Array, tol: float, seed: int) -> CriticalPoint:
    stationarity = landscape.stationarity(x)
    norm = float(np.linalg.norm(landscape.residual(x), 2))
    value = landscape.value(x)
    certificate = direction = None
    if stationarity > tol:
        verdict = "not critical"
    elif norm <= landscape.decay * (1 + tol):
        verdict = "global minimum"
        w, v, b = landscape.split(x)
        # The convex form's bound holds at every width; a narrow one is certified by it too.
        wide = landscape.problem.replace(dim=None)
        certificate = Certificate(value, certify(wide, w @ v / landscape.root, b).dual)
    else:
        direction = _escape(landscape, x, seed)
        verdict = "undecided" if direction is None else "strict saddle"
    return CriticalPoint(
        verdict=verdict,
        objective=value,
        gradient_norm=float(np.linalg.norm(landscape.gradient(x))),
        stationarity=stationarity,
        residual_norm=norm,
        logit_decay=landscape.decay,
        rank=landscape.rank(x),
        certificate=certificate,
        direction=direction,
    )


def _escape(landscape: _Landscape, x: Array, seed: int) -> Direction | None:
    left, values, right = np.linalg.svd(landscape.residual(x))
    if values[0] <= landscape.decay:
        return None
    a = _null_direction(landscape, x)
    if a is None:
        pair = smallest_eigenpair(_operator(landscape, x), seed=seed)
        if pair.value + pair.error >= 0:
            return None
        return Direction(landscape.point(pair.vector), pair.value, None, "eigenvector")
    step = landscape.join(
        landscape.c * np.outer(left[:, 0], a),
        -np.outer(a, right[0]) / landscape.c,
        np.zeros(landscape.problem.num_classes),
    )
    curvature = float(step @ landscape.product(x)(step))
    predicted = -2 * (float(values[0]) - landscape.decay)
    return Direction(landscape.point(step), curvature, predicted, "explicit")


def _null_direction(landscape: _Landscape, x: Array) -> Array | None:
    """Return a unit vector a with ``W a = 0`` and ``a^T V = 0``, or None."""
    w, v, _ = landscape.split(x)
    if not landscape.dim:
        return None
    _, values, right = np.linalg.svd(np.vstack([w / landscape.c, landscape.c * v.T]))
    least = values[-1] if len(values) == landscape.dim else 0.0
    return right[-1] if least <= NULL_TOLERANCE * values[0] else None


def _follow(landscape: _Landscape, x: Array, direction: Direction) -> Array:
    """Return the best point along a direction, either way, at lengths in a geometric sequence."""
    w, h, b = direction.step
    k = landscape.problem.num_classes
    step = landscape.join(w, h * landscape.root, np.zeros(k) if b is None else b)
    lengths = 4.0 ** np.arange(-12, 8)
    return min((x + t * step for t in np.r_[lengths, -lengths]), key=landscape.value)


def _minimise(f: _Smooth, x: Array) -> Array:
    """Minimise locally: SciPy's trust-region Newton-CG, then Newton steps to `ACCURACY` lambda."""
    from scipy.optimize import minimize

    if not len(x):
        return x
    tilt = f.tilt

    def value_at(y: Any) -> float:
        return f.value(tilt * y)

    def slope_at(y: Any) -> Any:
        return tilt * f.gradient(tilt * y)

    result = minimize(
        value_at,
        x / tilt,
        jac=slope_at,
        hessp=_product_at_last_point(f),
        method="trust-ncg",
        options={"gtol": 1e-5 * f.decay, "maxiter": MAX_TRUST_STEPS},
    )
    # Below rounding of the value only the gradient tells steps apart.
    y, slope = result.x, slope_at(result.x)
    for _ in range(MAX_NEWTON_STEPS):
        norm = float(np.linalg.norm(slope))
        if norm <= ACCURACY * f.decay:
            break
        trial = y - _solve(f, y, slope)
        trial_slope = slope_at(trial)
        if not np.linalg.norm(trial_slope) < 0.9 * norm:
            break
        y, slope = trial, trial_slope
    return np.asarray(tilt * y, dtype=np.float64)


def _product_at_last_point(f: _Smooth) -> Callable[[Any, Any], Any]:
    """Return ``hessp(y, d)``; the curvature is computed once for all products at one point."""
    last: list[tuple[Array, Callable[[Array], Array]]] = []

    def hessp(y: Array, d: Array) -> Array:
        if not last or last[0][0] is not y:
            last[:] = [(y, f.product(f.tilt * y))]
        product: Array = f.tilt * last[0][1](f.tilt * d)
        return product

    return hessp


def _solve(f: _Smooth, y: Array, slope: Array) -> Array:
    """Return the least Newton step: rotations of the features cost nothing, so H is singular."""
    from scipy.sparse.linalg import LinearOperator, minres

    size, product = len(y), f.product(f.tilt * y)
    operator = LinearOperator(
        (size, size), matvec=lambda d: f.tilt * product(f.tilt * np.ravel(d)), dtype=np.float64
    )
    if size > DENSE_SIZE:
        step: Array = minres(operator, slope, rtol=1e-10, maxiter=5 * size)[0]
        return step
    values, vectors = np.linalg.eigh(_dense(operator))
    kept = np.abs(values) > 1e-11 * np.abs(values).max()
    part: Array = vectors[:, kept] @ ((vectors[:, kept].T @ slope) / values[kept])
    return part
