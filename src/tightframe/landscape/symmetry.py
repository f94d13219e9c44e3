"""What leaves F unchanged at a point, and how F is curved across it.

Rotations of the features, ``W exp(A)`` and ``exp(-A) V`` with A antisymmetric, cost nothing, nor do
those between two layers; nor does a constant added to a free bias, where the loss ignores
constants. (Other invertible matrices leave the logits as they are, but not the decays.) Along these
the Hessian is zero at a critical point and as small as the gradient near one, of either sign: a
curvature there tells nothing. Everything below is in coordinates rescaled so that all decays are
lambda.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tightframe.geometry.blocks import Array
from tightframe.landscape.curvature import DENSE_SIZE, NULL_TOLERANCE, Objective, newton_step

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


#: Numbers of the tangents of all symmetries that are written out for several layers.
MAX_TANGENTS = 5 * 10**7


def across(landscape: Objective, x: Array) -> Callable[[Array], Array]:
    """Return the orthogonal projection of rescaled vectors that takes the symmetries out."""
    factors, _ = landscape.split(x / landscape.tilt)
    problem = landscape.problem
    shifts = problem.bias == "free" and problem.loss_object.ignores_constants
    turns = _turns_of_one if len(factors) == 2 else _turns_of_many
    take_out = turns(landscape, factors)

    def project(d: Array) -> Array:
        moves, db = landscape.split(take_out(np.asarray(d, dtype=np.float64).ravel()))
        return landscape.join(moves, db - db.mean() if shifts else db)

    return project


def _turns_of_one(landscape: Objective, factors: Sequence[Array]) -> Callable[[Array], Array]:
    """Return what takes the rotations of one layer's features out of a vector."""
    w, v = factors
    # The antisymmetric A nearest to (dW, dV) solves M A + A M = S - S^T.
    sizes, turn = np.linalg.eigh(w.T @ w + v @ v.T)
    sums = sizes[:, None] + sizes
    moves = sums > NULL_TOLERANCE**2 * sums.max()  # turning two null directions moves nothing

    def take_out(d: Array) -> Array:
        (dw, dv), db = landscape.split(d)
        s = turn.T @ (w.T @ dw - dv @ v.T) @ turn
        a = turn @ np.divide(s - s.T, sums, out=np.zeros_like(s), where=moves) @ turn.T
        return landscape.join([dw - w @ a, dv + a @ v], db)

    return take_out


def _turns_of_many(landscape: Objective, factors: Sequence[Array]) -> Callable[[Array], Array]:
    """Return what takes the rotations between several layers out of a vector.

    A layer lies between two of them, so that they are taken out together, by a basis.
    """
    none = np.zeros(landscape.problem.num_classes)
    tangents = []
    for place, (before, after) in enumerate(itertools.pairwise(factors)):
        for i, j in itertools.combinations(range(len(after)), 2):
            moves = [np.zeros_like(factor) for factor in factors]
            moves[place][:, j], moves[place][:, i] = before[:, i], -before[:, j]
            moves[place + 1][i], moves[place + 1][j] = -after[j], after[i]
            tangents.append(landscape.join(moves, none))
    if not tangents:
        return lambda d: d
    basis, values, _ = np.linalg.svd(np.array(tangents).T, full_matrices=False)
    basis = basis[:, values > NULL_TOLERANCE * values[0]]

    def take_out(d: Array) -> Array:
        rest: Array = d - basis @ (basis.T @ d)
        return rest

    return take_out


def require_few_tangents(widths: Sequence[int], size: int) -> None:
    """Refuse several layers that are too wide for `across`."""
    number = sum(width * (width - 1) // 2 for width in widths)
    if len(widths) > 1 and number * size > MAX_TANGENTS:
        raise ValueError(
            f"dim: got {max(widths)}; the symmetries of {len(widths)} layers so wide take "
            f"{number * size:.1e} numbers, and {MAX_TANGENTS:.0e} are written out at most"
        )


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
