"""Convex functions of the inner products of unit vectors, minimised and certified.

    min F(Q) = sum_k share_k log(1 + sum_{j != k} exp(a_kj(Q)))
    over   Q positive semi-definite, diag Q = 1,   a_kj affine in Q

By low-rank factors ``Q = V V^T`` with rows of length one, at full rank first, where every local
minimum is global, then at the rank that was found. The certificate asks no solver: F is convex, so
with its gradient S at ANY Q, ``y = diag(S Q)`` and every feasible Q',

    F(Q') >= F(Q) + <S, Q' - Q> >= F(Q) + size * min(0, least eigenvalue of S - diag y).

Everything is relative to F(Q), by the logarithm of F and its gradient: at the scales that people
train with F is 1e-30 and less, and what directions it leaves is as sharp as ever.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.rounding import FUNCTION, gamma, svd_error
from tightframe.saved import kept
from tightframe.theory.certificate import Certificate, settled

Array = NDArray[np.float64]

#: Shares of the largest singular value of V below which a direction is dropped, one a round.
RANK_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)

#: Iterations of L-BFGS in a first approach and after it, and steps of `_polish` without progress.
FIRST_ITERATIONS, MAX_ITERATIONS, PATIENCE = 100, 5000, 100

#: Least that a row counts beside others.
FLATTEST = 1e-8

#: Below, ``log(1 + e^x)`` is ``e^x (1 - e^x / 2)`` to rounding.
_SMALL = -30.0


class UnitLoss(ABC):
    """The function F: what a loss leaves to directions.

    Attributes
    ----------
    size : int
        Number of unit vectors.
    shares : ndarray, shape (K,)
        Of the classes in the mean.
    span : float
        The largest number that F takes the exponential of.
    constant : float
        What the loss has beside F.
    """

    size: int
    shares: Array
    span: float
    constant: float = 0.0

    @abstractmethod
    def ahead(self, gram: Array) -> Array:
        """Return ``a_kj``, shape (K, K), a class a row; the diagonal does not count."""

    @abstractmethod
    def slope(self, weights: Array) -> Array:
        """Return the symmetric gradient of ``sum_kj weights_kj a_kj``; the diagonal is zero."""

    def log_value(self, gram: Array) -> tuple[float, Array]:
        """Return log F and its gradient."""
        ahead = self.ahead(gram)
        np.fill_diagonal(ahead, -np.inf)
        largest = np.logaddexp.reduce(ahead, axis=1)
        small = largest < _SMALL
        loss = np.logaddexp(0.0, largest)  # zero where it underflows, which is small
        log_loss = np.where(
            small,
            largest - np.exp(np.minimum(largest, 0.0)) / 2,
            np.log(np.where(small, 1.0, loss)),
        )
        terms = np.log(self.shares) + log_loss
        value = float(np.logaddexp.reduce(terms))
        steep = np.exp(terms - value + largest - loss - log_loss)  # of every class's sum
        weights: Array = np.exp(ahead - largest[:, None]) * steep[:, None]
        return value, self.slope(weights)


@kept
@dataclass(frozen=True, eq=False)
class UnitGram:
    """Unit vectors and how well they are certified.

    Attributes
    ----------
    vectors : ndarray, shape (size, rank)
    objective, lower_bound : float
        Of the whole loss. The bound has the rounding of its evaluation subtracted.
    relative_gap : float
        Certified distance from the minimum of F, as a share of it.
    """

    vectors: Array
    objective: float
    lower_bound: float
    relative_gap: float


def minimise(loss: UnitLoss, tol: float, seed: int) -> UnitGram:
    """Return the best of the rounds; the certified gap says whether that is the minimum.

    ``tol`` is the relative gap that ends the rounds.
    """
    rng = np.random.default_rng(seed)
    vectors = _descend(loss, rng.normal(size=(loss.size, loss.size)) / np.sqrt(loss.size))
    best = certified(loss, vectors)
    left, values, _ = np.linalg.svd(vectors, full_matrices=False)
    for tolerance in RANK_TOLERANCES:
        kept = max(int((values > tolerance * values[0]).sum()), 1)
        found = certified(loss, _descend(loss, left[:, :kept] * values[:kept]))
        # Of two that are good enough, the one of lower rank.
        if found.relative_gap <= max(best.relative_gap, tol):
            best = found
        if found.relative_gap <= tol:
            break
    return best


def certified(loss: UnitLoss, vectors: Array) -> UnitGram:
    """Return any vectors, made unit ones, with their bound."""
    unit = _unit(vectors)
    gram = unit @ unit.T
    np.fill_diagonal(gram, 1.0)
    log_value, gradient = loss.log_value(gram)
    slack = gradient - np.diag((gradient * gram).sum(axis=1))
    error = svd_error(loss.size) * float(np.linalg.norm(slack))
    least = float(np.linalg.eigvalsh(slack)[0]) - error
    # No Q has an entry above 1, so rounding of the gradient counts at most twice its share.
    roundings = gamma(4 * loss.size + 10 * FUNCTION + 8 * loss.span)
    rounding = roundings * (2 * float(np.abs(gradient).sum()) + 1.0)
    share = settled(1.0, 1.0 + loss.size * min(least, 0.0), rounding, "unit vectors")
    value = math.exp(log_value)
    bound = loss.constant + value * share
    bound -= gamma(loss.size + 4 * FUNCTION) * loss.constant
    return UnitGram(unit, loss.constant + value, bound, 1.0 - share)


def candidate(loss: UnitLoss, vectors: Array, lower_bound: float) -> Certificate:
    """Certify vectors, with a lower bound that is known."""
    found = certified(loss, vectors)
    return Certificate(found.objective, max(found.lower_bound, lower_bound))


def require_directions(name: str, vectors: Array) -> None:
    """Refuse rows of which one has no direction."""
    if (np.abs(vectors).max(axis=1, initial=0.0) == 0).any():
        raise ValueError(f"{name}: a vector is zero, which has no direction")


def _descend(loss: UnitLoss, start: Array) -> Array:
    """Minimise over rows of unit length, then `_polish`.

    In a first approach rows are alike. Then each counts as its multiplier ``y``: that is how F
    bends along its sphere, and differs by the imbalance of the classes.
    """
    alike = np.ones((loss.size, 1))
    unit = _approach(loss, _unit(start), alike, FIRST_ITERATIONS)
    _, gradient = loss.log_value(unit @ unit.T)
    multipliers = np.abs((gradient * (unit @ unit.T)).sum(axis=1, keepdims=True))
    sizes = np.sqrt(np.maximum(multipliers / multipliers.max(), FLATTEST))
    unit = _approach(loss, unit, sizes, MAX_ITERATIONS)
    return _polish(loss, _polish(loss, unit, sizes), alike)


def _approach(loss: UnitLoss, unit: Array, sizes: Array, iterations: int) -> Array:
    """Follow L-BFGS on rows of these lengths: the shorter a row, the further it turns."""
    from scipy.optimize import minimize

    shape = unit.shape

    def value(x: Array) -> tuple[float, Array]:
        rows = x.reshape(shape)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        cost, slope = _on_spheres(loss, rows / lengths)
        return cost, (slope / lengths).ravel()

    options: Any = {
        "maxiter": iterations,
        "maxfun": 2 * iterations,
        "maxcor": 30,
        "ftol": 0.0,
        "gtol": 1e-13,
    }
    x = (sizes * unit).ravel()
    found = minimize(value, x, jac=True, method="L-BFGS-B", options=options).x
    return _unit(found.reshape(shape))


def _polish(loss: UnitLoss, unit: Array, sizes: Array) -> Array:
    """Follow the gradient by steps of Barzilai and Borwein until its size no longer falls.

    Values of F stop telling points apart at half the digits of its gradient.
    """
    slope = _on_spheres(loss, unit)[1] / sizes
    best, size, waited = unit, float(np.linalg.norm(slope)), 0
    length = 1e-3 / size if size > 0 else 0.0
    while size > 0 and waited < PATIENCE:
        new = _unit(unit - length * slope / sizes)
        new_slope = _on_spheres(loss, new)[1] / sizes
        step, change = sizes * (new - unit), new_slope - slope
        curvature = float(np.vdot(step, change))
        if not curvature > 0:
            break
        length = float(np.vdot(step, step)) / curvature
        unit, slope, waited = new, new_slope, waited + 1
        if (reached := float(np.linalg.norm(slope))) < size:
            best, size, waited = unit, reached, 0
    return best


def _on_spheres(loss: UnitLoss, unit: Array) -> tuple[float, Array]:
    """Return log F and its gradient along the spheres that the rows are on."""
    cost, gradient = loss.log_value(unit @ unit.T)
    slope = 2 * gradient @ unit
    return cost, slope - (slope * unit).sum(axis=1, keepdims=True) * unit


def _unit(rows: Array) -> Array:
    # Squares of very large or small entries would leave the range.
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    unit: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
