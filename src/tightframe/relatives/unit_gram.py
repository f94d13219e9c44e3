"""Convex functions of the inner products of unit vectors, minimised and certified.

    min F(Q)   over   Q positive semi-definite, diag Q = 1

By low-rank factors ``Q = V V^T`` with rows of length one, at full rank first, where every local
minimum is global, then at the rank that was found. The certificate asks no solver: F is convex, so
with its gradient S at ANY Q, ``y = diag(S Q)`` and every feasible Q',

    F(Q') >= F(Q) + <S, Q' - Q> >= F(Q) + size * min(0, least eigenvalue of S - diag y).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import HeatMaps, Matrix
from tightframe.rounding import FUNCTION, gamma, svd_error
from tightframe.solve import NotConvergedWarning
from tightframe.theory.certificate import settled

Array = NDArray[np.float64]

#: Most classes.
MAX_CLASSES = 50

#: Value and gradient (symmetric) of F at a Gram matrix.
Function = Callable[[Array], tuple[float, Array]]

#: Shares of the largest singular value of V below which a direction is dropped, one a round.
RANK_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)

#: Iterations of L-BFGS a round, and steps of `_polish` without progress.
MAX_ITERATIONS, PATIENCE = 5000, 100


@dataclass(frozen=True, eq=False)
class UnitGram:
    """Unit vectors and how well they are certified.

    Attributes
    ----------
    vectors : ndarray, shape (size, rank)
    objective, lower_bound : float
        The bound has the rounding of its evaluation subtracted.
    """

    vectors: Array
    objective: float
    lower_bound: float

    @property
    def gap(self) -> float:
        """Certified distance from the minimum."""
        return self.objective - self.lower_bound


def wanted(objective: float, tol: float) -> float:
    """Return the gap that a tolerance allows: absolute below an objective of 1, relative above."""
    return tol * max(1.0, abs(objective))


def status_of(found: UnitGram, tol: float) -> str:
    """Return whether the gap is within a tolerance, as `tightframe.solve` says it, and warn."""
    goal = wanted(found.objective, tol)
    if found.gap <= goal:
        return "optimal"
    warnings.warn(
        f"not converged: the certified gap is {found.gap:.1e}, wanted {goal:.1e}",
        NotConvergedWarning,
        stacklevel=3,
    )
    return "not_converged"


def cosine_map(title: str, cosines: Array, what: str) -> HeatMaps:
    """Return a picture of the cosines between the vectors of classes."""
    return HeatMaps(title, [Matrix("", cosines)], x_label=what, y_label=what, limit=1.0)


def minimise(function: Function, size: int, span: float, tol: float, seed: int) -> UnitGram:
    """Return the best of the rounds; the certified gap says whether that is the minimum.

    ``tol`` as for `wanted`; it ends the rounds.
    """
    rng = np.random.default_rng(seed)
    vectors = _descend(function, rng.normal(size=(size, size)) / np.sqrt(size))
    best = certified(function, vectors, span)
    left, values, _ = np.linalg.svd(vectors, full_matrices=False)
    for tolerance in RANK_TOLERANCES:
        kept = max(int((values > tolerance * values[0]).sum()), 1)
        found = certified(function, _descend(function, left[:, :kept] * values[:kept]), span)
        # Of two that are good enough, the one of lower rank.
        if found.gap <= max(best.gap, wanted(best.objective, tol)):
            best = found
        if found.gap <= wanted(found.objective, tol):
            break
    return best


def certified(function: Function, vectors: Array, span: float) -> UnitGram:
    """Return any vectors, made unit ones, with their bound.

    ``span`` is the largest number that F takes the exponential of: its rounding is relative to that
    of F and of its gradient.
    """
    unit = _unit(vectors)
    gram = unit @ unit.T
    np.fill_diagonal(gram, 1.0)
    value, gradient = function(gram)
    size = len(gram)
    slack = gradient - np.diag((gradient * gram).sum(axis=1))
    error = svd_error(size) * float(np.linalg.norm(slack))
    least = float(np.linalg.eigvalsh(slack)[0]) - error
    # No Q has an entry above 1, so rounding of the gradient counts at most twice its share.
    roundings = gamma(4 * size + 10 * FUNCTION + 8 * span)
    rounding = roundings * (2 * float(np.abs(gradient).sum()) + abs(value))
    bound = value + size * min(least, 0.0) - rounding
    return UnitGram(unit, value, settled(value, bound, rounding, "unit vectors"))


def _descend(function: Function, start: Array) -> Array:
    """Minimise over rows of unit length by L-BFGS on their directions, then `_polish`."""
    from scipy.optimize import minimize

    shape = start.shape

    def value(x: Array) -> tuple[float, Array]:
        rows = x.reshape(shape)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        cost, slope = _on_spheres(function, rows / lengths)
        return cost, (slope / lengths).ravel()

    options: Any = {
        "maxiter": MAX_ITERATIONS,
        "maxfun": 2 * MAX_ITERATIONS,
        "maxcor": 30,
        "ftol": 0.0,
        "gtol": 1e-13,
    }
    x = _unit(start).ravel()
    found = minimize(value, x, jac=True, method="L-BFGS-B", options=options).x.reshape(shape)
    return _polish(function, _unit(found))


def _polish(function: Function, unit: Array) -> Array:
    """Follow the gradient by steps of Barzilai and Borwein until its size no longer falls.

    Values of F stop telling points apart at half the digits of its gradient.
    """
    _, slope = _on_spheres(function, unit)
    best, size, waited = unit, float(np.linalg.norm(slope)), 0
    length = 1e-3 / size if size > 0 else 0.0
    while size > 0 and waited < PATIENCE:
        new = _unit(unit - length * slope)
        _, new_slope = _on_spheres(function, new)
        step, change = new - unit, new_slope - slope
        curvature = float(np.vdot(step, change))
        if not curvature > 0:
            break
        length = float(np.vdot(step, step)) / curvature
        unit, slope, waited = new, new_slope, waited + 1
        if (reached := float(np.linalg.norm(slope))) < size:
            best, size, waited = unit, reached, 0
    return best


def _on_spheres(function: Function, unit: Array) -> tuple[float, Array]:
    """Return F and its gradient along the spheres that the rows are on."""
    cost, gradient = function(unit @ unit.T)
    slope = 2 * gradient @ unit
    return cost, slope - (slope * unit).sum(axis=1, keepdims=True) * unit


def _unit(rows: Array) -> Array:
    unit: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
