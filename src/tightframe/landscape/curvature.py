"""The function F on flat coordinates: value, gradient, curvature and its least eigenvalue."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from tightframe.geometry.blocks import Array, Partition
from tightframe.landscape.point import Coordinates
from tightframe.problem.problem import Problem

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

    def __init__(self, problem: Problem, dim: int) -> None:
        super().__init__(problem, dim)
        self.fit = problem.loss_object.datafit(Partition.singletons(problem))
        self.decay = problem.logit_decay
        self.decays = (problem.weight_decays[0], problem.feature_decay, problem.bias_decay)
        self.within = np.zeros(problem.num_classes)

    def scores(self, w: Array, v: Array, b: Array) -> Array:
        """Return the logits with bias."""
        scores: Array = w @ v / self.root + b[:, None]
        return scores

    def value(self, x: Array) -> float:
        """Return F."""
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
        """Return F's gradient."""
        w, v, b = self.split(x)
        g = self.residual(x)
        by_w, by_v, by_b = self.decays
        return self.join(g @ v.T + by_w * w, w.T @ g + by_v * v, g @ self.root + by_b * b)

    def stationarity(self, x: Array) -> float:
        """Return the length of the rescaled gradient over lambda."""
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
        """Return the rank of the logits without bias."""
        w, v, _ = self.split(x)
        if not self.dim:
            return 0
        values = np.linalg.svd(w @ v, compute_uv=False)
        # Logits of 1e-10 are zero, whatever the largest.
        floor = max(NULL_TOLERANCE * values[0], 1e-10 * float(self.root.max()))
        return int((values > floor).sum())


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
