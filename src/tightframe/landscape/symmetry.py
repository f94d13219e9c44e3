"""What leaves F unchanged at a point, and how F is curved across it.

Rotations of the features, ``W exp(A)`` and ``exp(-A) V`` with A antisymmetric, cost nothing; nor
does a constant added to a free bias, where the loss ignores constants. Along these the Hessian is
zero at a critical point and as small as the gradient near one, of either sign: a curvature there
tells nothing. Everything below is in coordinates rescaled so that both decays are lambda.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tightframe.geometry.blocks import Array
from tightframe.landscape.curvature import DENSE_SIZE, NULL_TOLERANCE, Objective, newton_step

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


def across(landscape: Objective, x: Array) -> Callable[[Array], Array]:
    """Return the orthogonal projection of rescaled vectors that takes the symmetries out."""
    w, v, _ = landscape.split(x / landscape.tilt)
    # The antisymmetric A nearest to (dW, dV) solves M A + A M = S - S^T.
    sizes, turn = np.linalg.eigh(w.T @ w + v @ v.T)
    sums = sizes[:, None] + sizes
    moves = sums > NULL_TOLERANCE**2 * sums.max()  # turning two null directions moves nothing
    problem = landscape.problem
    shifts = problem.bias == "free" and problem.loss_object.ignores_constants

    def project(d: Array) -> Array:
        dw, dv, db = landscape.split(np.asarray(d, dtype=np.float64).ravel())
        s = turn.T @ (w.T @ dw - dv @ v.T) @ turn
        a = turn @ np.divide(s - s.T, sums, out=np.zeros_like(s), where=moves) @ turn.T
        return landscape.join(dw - w @ a, dv + a @ v, db - db.mean() if shifts else db)

    return project


def hessian_across(landscape: Objective, x: Array) -> LinearOperator:
    """Return the rescaled Hessian across the symmetries; along them it is ``2 lambda``."""
    from scipy.sparse.linalg import LinearOperator

    tilt, project, product = landscape.tilt, across(landscape, x), landscape.product(x)

    def apply(d: Array) -> Array:
        d = np.ravel(d)
        kept = project(d)
        bent: Array = project(tilt * product(tilt * kept)) + 2 * landscape.decay * (d - kept)
        return bent

    size = len(tilt)
    return LinearOperator((size, size), matvec=apply, rmatvec=apply, dtype=np.float64)


def unsettled(landscape: Objective, x: Array, vector: Array, value: float) -> float:
    """Return how far a curvature at x may be from that at the critical point next to it.

    That is the change of ``H v``, v a rescaled unit vector and ``value`` its curvature, over the
    Newton step that the gradient at x leaves to do.
    """
    tilt, project = landscape.tilt, across(landscape, x)
    slope = project(tilt * landscape.gradient(x))
    own = float(slope @ vector)
    if abs(own) > abs(value) * np.linalg.norm(x / tilt):
        return float("inf")  # the next critical point along v is as far as the origin
    # Flat directions are left out of the step: rounding alone moves along them. v is not.
    rest = newton_step(hessian_across(landscape, x), slope - own * vector, DENSE_SIZE, 1e-3)
    step = rest + (own / value if own else 0.0) * vector
    there = landscape.product(x - tilt * step)(tilt * vector)
    change = tilt * (there - landscape.product(x)(tilt * vector))
    return float(np.linalg.norm(project(change)))
