"""The function F on flat coordinates: value, gradient, curvature and its least eigenvalue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from tightframe.geometry.blocks import Array, Partition
from tightframe.landscape.point import Coordinates
from tightframe.problem.problem import Problem
from tightframe.shown import record

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

#: Operators up to this size are written out where eigenvalues or linear systems are needed.
DENSE_SIZE = 600

#: A singular value of a point below this share of its largest counts as zero.
NULL_TOLERANCE = 1e-7

#: An eigenvalue of a Hessian below this share of its largest is one of a flat direction.
FLAT = 1e-11


class Smooth(Protocol):
    """What local minimisation needs of a function."""

    decay: float
    tilt: Array  # rescales the coordinates so that both decays are lambda

    def value(self, x: Array) -> float:
        """Return the function's value."""

    def gradient(self, x: Array) -> Array:
        """Return its gradient."""

    def product(self, x: Array) -> Callable[[Array], Array]:
        """Return the product of its Hessian with a vector."""


class Objective(Coordinates):
    """F at one width, on flat vectors ``(W, V, b)``; parameters as of `Coordinates`."""

    def __init__(self, problem: Problem, widths: tuple[int, ...]) -> None:
        super().__init__(problem, widths)
        self.fit = problem.loss_object.datafit(Partition.singletons(problem))
        self.within = np.zeros(problem.num_classes)

    def product_of(self, factors: Sequence[Array]) -> Array:
        """Return X, the product of the factors."""
        return reduce(np.matmul, factors)

    def scores(self, factors: Sequence[Array], b: Array) -> Array:
        """Return the logits with bias."""
        scores: Array = self.product_of(factors) / self.root + b[:, None]
        return scores

    def value(self, x: Array) -> float:
        """Return F."""
        factors, b = self.split(x)
        decays = (*self.factor_decays, self.problem.bias_decay)
        squares = (float(np.vdot(part, part)) for part in (*factors, b))
        cost = sum(decay / 2 * square for decay, square in zip(decays, squares, strict=True))
        return self.fit.value(self.within, self.scores(factors, b)) + cost

    def residual(self, x: Array) -> Array:
        """Return G, the gradient of the data fit in X."""
        mean = self.fit.residual(self.within, self.scores(*self.split(x))).mean
        g: Array = mean * (self.root / self.problem.num_samples)
        return g

    def gradient(self, x: Array) -> Array:
        """Return F's gradient."""
        factors, b = self.split(x)
        g = self.residual(x)
        by_factors = [
            left.T @ g @ right.T + decay * factor
            for (left, right), decay, factor in zip(
                _around(factors), self.factor_decays, factors, strict=True
            )
        ]
        return self.join(by_factors, g @ self.root + self.problem.bias_decay * b)

    def stationarity(self, x: Array) -> float:
        """Return the length of the rescaled gradient over lambda."""
        return float(np.linalg.norm(self.tilt * self.gradient(x))) / self.decay

    def product(self, x: Array, with_residual: bool = True) -> Callable[[Array], Array]:
        """Return the Hessian's (or the Gauss-Newton matrix's) product with a flat vector."""
        factors, b = self.split(x)
        g = self.residual(x) if with_residual else None
        curvature = self.fit.derivatives(self.within, self.scores(factors, b)).curvature
        around = _around(factors)

        def apply(d: Array) -> Array:
            moves, db = self.split(np.asarray(d, dtype=np.float64).ravel())
            lefts, rights = _moved(factors, moves)
            dx = lefts[-1] @ factors[-1] + around[-1][0] @ moves[-1]
            slope = curvature(self.within, dx / self.root + db[:, None])[1]
            dg = slope / self.root
            bent = []
            for i, (left, right) in enumerate(around):
                part = left.T @ dg @ right.T + self.factor_decays[i] * moves[i]
                if g is not None:
                    part += lefts[i].T @ g @ right.T + left.T @ g @ rights[i].T
                bent.append(part)
            return self.join(bent, slope.sum(axis=1) + self.problem.bias_decay * db)

        return apply

    def rank(self, x: Array) -> int:
        """Return the rank of the logits without bias."""
        if not self.dim:
            return 0
        values = np.linalg.svd(self.product_of(self.split(x)[0]), compute_uv=False)
        # Logits of 1e-10 are zero, whatever the largest.
        floor = max(NULL_TOLERANCE * values[0], 1e-10 * float(self.root.max()))
        return int((values > floor).sum())


def _around(factors: Sequence[Array]) -> list[tuple[Array, Array]]:
    """Return, for every factor, the products of those before and of those after it."""
    lefts = [np.eye(len(factors[0]))]
    for factor in factors[:-1]:
        lefts.append(lefts[-1] @ factor)
    rights = [np.eye(factors[-1].shape[1])]
    for factor in reversed(factors[1:]):
        rights.append(factor @ rights[-1])
    return list(zip(lefts, reversed(rights), strict=True))


def _moved(factors: Sequence[Array], moves: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Return how the products of `_around` change as the factors move."""
    left, d_lefts = np.eye(len(factors[0])), [np.zeros((len(factors[0]),) * 2)]
    for factor, move in zip(factors[:-1], moves[:-1], strict=True):
        d_lefts.append(d_lefts[-1] @ factor + left @ move)
        left = left @ factor
    k = factors[-1].shape[1]
    right, d_rights = np.eye(k), [np.zeros((k, k))]
    for factor, move in zip(reversed(factors[1:]), reversed(moves[1:]), strict=True):
        d_rights.append(factor @ d_rights[-1] + move @ right)
        right = factor @ right
    return d_lefts, d_rights[::-1]


@record
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


def operator(landscape: Objective, x: Array, with_residual: bool = True) -> LinearOperator:
    """Return the Hessian, or the Gauss-Newton matrix, as an operator."""
    from scipy.sparse.linalg import LinearOperator

    product = landscape.product(x, with_residual)
    size = len(landscape.tilt)
    return LinearOperator((size, size), matvec=product, rmatvec=product, dtype=np.float64)


def dense(operator: LinearOperator) -> Array:
    """Write a symmetric operator out."""
    matrix: Array = np.column_stack([operator @ row for row in np.eye(operator.shape[0])])
    return (matrix + matrix.T) / 2


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
        values, vectors = np.linalg.eigh(dense(operator))
        vector, norm = vectors[:, 0], float(np.abs(values).max())
    else:
        vector, norm = _lanczos(operator, seed)
    product = operator @ vector
    value = float(vector @ product)
    residual = float(np.linalg.norm(product - value * vector))
    return Eigenpair(value, vector, residual + np.finfo(float).eps * rows * norm)


def newton_step(operator: LinearOperator, slope: Array, dense_size: int, accuracy: float) -> Array:
    """Return the least d with ``A d = slope``; A is singular: rotations of features cost nothing.

    Parameters
    ----------
    operator : LinearOperator
        A, symmetric.
    slope : ndarray, shape (n,)
    dense_size : int
        Up to so many unknowns A is written out.
    accuracy : float
        Relative, of the iteration above.
    """
    from scipy.sparse.linalg import minres

    if len(slope) > dense_size:
        step: Array = minres(operator, slope, rtol=accuracy, maxiter=5 * len(slope))[0]
        return step
    values, vectors = np.linalg.eigh(dense(operator))
    kept = np.abs(values) > FLAT * np.abs(values).max()
    part: Array = vectors[:, kept] @ ((vectors[:, kept].T @ slope) / values[kept])
    return part


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
