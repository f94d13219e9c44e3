"""ReLU features and one layer: points of the orthant, and descents that end at exact zeros.

With ``H >= 0`` no rotation of the features is free: a coordinate of a class mean is zero or not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.solvers.search.budget import Budget
from tightframe.solvers.search.factors import Classes, Factors
from tightframe.solvers.search.orthant_factors import OrthantFactors
from tightframe.theory.orthant import unit_rows

#: Descents from a point: where Newton steps get stuck, quasi-Newton ones lead on.
MAX_DESCENTS = 6

#: A gradient below this share of the decay times the point's length is rounding.
CONVERGED = 1e-9

#: Of SciPy's L-BFGS-B, which stops where the objective no longer changes.
QUASI_NEWTON = {"ftol": 1e-15, "gtol": 1e-12, "maxcor": 30}

#: Newton steps of a polish, conjugate gradients of each, and the share of the gradient's square
#: that they may leave.
MAX_NEWTON, MAX_GRADIENTS, LEFT = 30, 600, 1e-10


class Orthant(Factors):
    """The objective on points (B, P) that hold (U, Y, bias), ``V = Y^2``; one layer."""

    signed = False

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return the objective, shape (B,), and its gradient, shape (B, P)."""
        values, gradients = super().__call__(self.leave(x))
        own = _means(self)
        gradients[:, own] *= 2 * x[:, own]
        return values, gradients

    def classes(self, x: Array) -> Classes:
        """Return what belongs to single classes."""
        return super().classes(self.leave(x))

    def from_classes(self, classes: Classes) -> Array:
        """Return the points (B, P), the inverse of `classes`."""
        x, own = super().from_classes(classes), _means(self)
        x[:, own] = np.sqrt(np.maximum(x[:, own], 0.0))
        return x

    def leave(self, x: Array) -> Array:
        """Return the points of `Factors`, which hold V."""
        points, own = x.copy(), _means(self)
        points[:, own] **= 2
        return points


def _means(f: Factors) -> slice:
    """Return where points hold V, or what stands for it."""
    return slice(*f.cuts[:2])


def descend(
    f: OrthantFactors, points: Array, max_iterations: int, budget: Budget
) -> tuple[Array, bool]:
    """Descend from a point (1, P) within the orthant; tell whether that converged."""
    from scipy.optimize import minimize

    own = f.held
    bounds = np.full((points.shape[1], 2), np.inf)
    bounds[:, 0] *= -1
    bounds[own, 0] = 0.0

    def function(x: Any) -> Any:
        values, gradients = f(x[None])
        return float(values[0]), gradients[0]

    def stop(_: Any) -> None:
        if budget.over():
            raise StopIteration

    rest: Any = {"method": "L-BFGS-B", "bounds": bounds, "callback": stop}
    rest["options"] = QUASI_NEWTON | {"maxiter": max_iterations, "maxfun": 2 * max_iterations}
    best, least = points, np.inf
    for _ in range(MAX_DESCENTS):
        points[:, own] = np.minimum(points[:, own], bounds[own, 1])
        end = minimize(function, points[0], jac=True, **rest)
        points, left = polish(f, end.x[None], bounds[own, 1] > 0, budget)
        if not f(points)[0][0] <= end.fun * (1 + CONVERGED):  # Newton steps may climb to a saddle
            points, left = end.x[None], np.inf
        value = float(f(points)[0][0])
        if value > least * (1 + CONVERGED):  # what was held is needed
            return best, False
        best, least = points, value
        if left <= CONVERGED or budget.over():
            return best, left <= CONVERGED
        bounds[own, 1] = np.where(_rivals(f, points, 10 * left), 0.0, np.inf)
    return best, False


def _rivals(f: OrthantFactors, points: Array, error: float) -> NDArray[np.bool_]:
    """Return which entries of V lose against a larger one of their axis, flattened; no spread.

    Two classes, or groups, whose ``-(G^T G)_ij`` stays positive share no axis at the minimum. As
    long as both are on one they push each other off it, with a force that vanishes with their
    entries. Which pairs those are, the larger of that and of their cosine tells near the minimum.
    """
    slope, _ = f.slopes(points)
    v = f.axes(points).right
    unit = unit_rows(v)
    apart = -slope.T @ slope > np.maximum(unit @ unit.T, error)
    lose = np.zeros(v.shape, dtype=np.bool_)
    for axis in range(f.width):
        stay: list[int] = []
        for k in np.argsort(-v[:, axis]):
            if apart[k, stay].any():
                lose[k, axis] = True
            else:
                stay.append(int(k))
    return np.concatenate([lose.ravel(), np.zeros(len(f.many), dtype=np.bool_)])


# -- Newton steps on what is free ------------------------------------------------------------------


def polish(
    f: OrthantFactors, points: Array, loose: NDArray[np.bool_], budget: Budget
) -> tuple[Array, float]:
    """Converge by Newton steps on what is not held at zero.

    Held are those that a step along the gradient, of the length 1/decay that is a Newton step
    where the decay prevails, leaves at zero, and all that are not ``loose``. Returns a point
    (1, P), and the length of its gradient over the decay and the point's length.
    """
    own = f.held
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
        if budget.over():
            break
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


def _newton_step(f: OrthantFactors, x: Array, gradient: Array, free: NDArray[np.bool_]) -> Array:
    """Solve for the Newton step on the free coordinates by conjugate gradients.

    Axes inside a face of the orthant may turn at no cost: the system is singular there, but has
    solutions. Where curvature is not positive, the step so far is returned.
    """
    product = f.curvature(x)
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
