"""Non-negative features, one layer: how far a gradient reaches over the orthant, and the bound.

For any ``G = R D^{1/2} / N`` with ``|G v| <= lambda |v|`` for all ``v >= 0`` the decays cost at
least ``-<G, X>``, whatever the width: with ``X = W V`` and rows ``v_j >= 0`` of V,
``-<G, X> = -sum_j <w_j, G v_j> <= lambda sum_j |w_j| |v_j|``. So ``-f*(R)`` is a lower bound, as in
the certificate of real features, where the same must hold for all v (docs/theory.md section 5).

``lambda^2 I - G^T G`` must be copositive. To show that is hard in general; it is enough to find a
symmetric ``S >= 0`` with ``G^T G + S <= lambda^2 I``, and for up to four classes nothing else is
needed (Diananda 1962).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix
from tightframe.losses.base import Datafit
from tightframe.problem.problem import Problem

#: Roundings of a bound's terms, for every class.
ROUNDINGS = 8

#: Steps allowed to the search for S, and to the ascents over the orthant.
MAX_STEPS, MAX_ASCENTS = 1000, 200


def orthant_norm(matrix: Array) -> float:
    """Return an upper bound of ``max |G v|`` over unit vectors ``v >= 0``, aimed at one.

    Tight where the maximum is one and S exists. ``|(G^T G + S - I)_+|^2`` is convex and smooth in
    S >= 0; the largest eigenvalue of ``G^T G + S`` is a bound for whatever S a descent ends at.
    """
    from scipy.optimize import minimize

    gram = matrix.T @ matrix
    above = np.triu_indices(len(gram), 1)
    off = gram[above]

    def symmetric(entries: Array) -> Array:
        s = np.zeros_like(gram)
        s[above] = entries
        s += s.T
        return s

    def excess(entries: Any) -> Any:
        values, vectors = np.linalg.eigh(gram + symmetric(entries))
        over = np.maximum(values - 1, 0.0)
        return float(over @ over) / 2, 2 * ((vectors * over) @ vectors.T)[above]

    # Often S cancels the negative entries, which leaves a diagonal.
    start = np.maximum(-off, 0.0)
    found = start
    if len(off) and excess(start)[0] > 0:
        options: Any = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "ftol": 0.0, "gtol": 1e-14}
        found = minimize(
            excess, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(off),
            options=options | {"maxcor": 30},
        ).x  # fmt: skip
    squares = min(
        float(np.linalg.eigvalsh(gram + symmetric(np.maximum(s, 0.0)))[-1]) for s in (start, found)
    )
    return float(np.sqrt(max(squares, 0.0) * (1 + len(gram) * np.finfo(float).eps)))


def steepest_axes(matrix: Array) -> tuple[Array, Array]:
    """Return local maxima of ``|G v|`` over unit vectors ``v >= 0``, and where: (S,), (S, K).

    ``v <- (G^T G v)_+`` never lowers it, as a convex function lies above its tangents.
    """
    gram = matrix.T @ matrix
    vectors = np.linalg.eigh(gram)[1].T
    v = _unit(np.maximum(np.concatenate([np.eye(len(gram)), vectors, -vectors]), 0.0))
    for _ in range(MAX_ASCENTS):
        moved = _unit(np.maximum(v @ gram, 0.0))
        done = np.abs(moved - v).max() < 1e-12
        v = moved
        if done:
            break
    return np.linalg.norm(v @ matrix.T, axis=1), v


def _unit(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit


def orthant_bound(problem: Problem, fit: Datafit, residual: BlockMatrix) -> float:
    """Return the lower bound that a residual gives, after it is made feasible.

    Parameters
    ----------
    problem : Problem
        One layer, non-negative features.
    fit : Datafit
    residual : BlockMatrix
        Of logits near the minimiser's; every class stands alone.
    """
    if problem.bias == "free":
        residual = fit.repair(residual)
    p = residual.partition
    reach = orthant_norm(residual.reduced / (p.num_samples * problem.logit_decay))
    residual = residual * (1 / max(reach, 1.0))
    bound, rows = fit.dual_value(residual), residual.row_average
    # What the rounding of the sums, over classes and their logits, may have added.
    size = abs(bound) + float(p.shares @ np.abs(np.diagonal(residual.mean)))
    size += float(p.sizes @ np.abs(p.adjustment * rows))
    if problem.bias == "decayed":
        cost = float(p.sizes @ rows**2) / (2 * problem.bias_decay)
        bound, size = bound - cost, size + cost
    return max(bound - ROUNDINGS * p.num_classes * np.finfo(float).eps * size, 0.0)
