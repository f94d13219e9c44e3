"""Non-negative features, one layer: how far a gradient reaches over the orthant.

For any ``G = R D^{1/2} / N`` with ``|G v| <= lambda |v|`` for all ``v >= 0`` the decays cost at
least ``-<G, X>``, whatever the width: with ``X = W V`` and rows ``v_j >= 0`` of V,
``-<G, X> = -sum_j <w_j, G v_j> <= lambda sum_j |w_j| |v_j|``. So ``-f*(R)`` is a lower bound, as in
the certificate of real features, where the same must hold for all v (docs/theory.md section 5).

``lambda^2 I - G^T G`` must be copositive. To show that is hard in general; it is enough to find a
symmetric ``S >= 0`` with ``G^T G + S <= lambda^2 I``, and for up to four classes nothing else is
needed (Diananda 1962).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tightframe.geometry.blocks import Array
from tightframe.rounding import FUNCTION, gamma, svd_error

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
    squares = min(_largest_eigenvalue(gram + symmetric(np.maximum(s, 0.0))) for s in (start, found))
    squares += gamma(len(gram)) * float(np.square(matrix).sum())  # the Gram matrix is rounded
    return math.sqrt(max(squares, 0.0)) * (1 + gamma(FUNCTION))


def _largest_eigenvalue(matrix: Array) -> float:
    """Return an upper bound; LAPACK's eigenvalues are as exact as its singular values."""
    largest = float(np.linalg.eigvalsh(matrix)[-1])
    return largest + (svd_error(len(matrix)) + gamma(2)) * float(np.linalg.norm(matrix))


def steepest_axes(matrix: Array) -> tuple[Array, Array]:
    """Return local maxima of ``|G v|`` over unit vectors ``v >= 0``, and where: (S,), (S, K).

    ``v <- (G^T G v)_+`` never lowers it, as a convex function lies above its tangents.
    """
    gram = matrix.T @ matrix
    vectors = np.linalg.eigh(gram)[1].T
    v = unit_rows(np.maximum(np.concatenate([np.eye(len(gram)), vectors, -vectors]), 0.0))
    for _ in range(MAX_ASCENTS):
        moved = unit_rows(np.maximum(v @ gram, 0.0))
        done = np.abs(moved - v).max() < 1e-12
        v = moved
        if done:
            break
    return np.linalg.norm(v @ matrix.T, axis=1), v


def unit_rows(rows: Array) -> Array:
    """Return rows scaled to length one; zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit
