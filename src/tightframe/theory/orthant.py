"""Non-negative features, one layer: how far a gradient reaches over the orthant.

For any ``G = R D^{1/2} / N`` with ``|G v| <= lambda |v|`` for all ``v >= 0`` the decays cost at
least ``-<G, X>``, whatever the width: with ``X = W V`` and rows ``v_j >= 0`` of V,
``-<G, X> = -sum_j <w_j, G v_j> <= lambda sum_j |w_j| |v_j|``. So ``-f*(R)`` is a lower bound, as in
the certificate of real features, where the same must hold for all v (docs/theory.md section 5).

``lambda^2 I - G^T G`` must be copositive. To show that is hard in general; it is enough to find a
symmetric ``S >= 0`` with ``G^T G + S <= lambda^2 I``, and for up to four classes nothing else is
needed (Diananda 1962).

Where classes of a group are interchangeable, all of this is so for matrices of the size of the
groups. G acts on group indicators as a G x G ``matrix``, and on what sums to zero within group i as
a number ``within[i]``. Of ``v >= 0`` the part in a group of k classes matters by its sum and its
square only, and between a vector with one entry and a constant one the square is free: where
``within`` exceeds lambda the former is worse, and adds ``(k - 1) (within^2 - lambda^2)`` to the
diagonal of ``G^T G``; elsewhere the latter is (docs/theory.md section 5).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from tightframe.geometry.blocks import Array
from tightframe.rounding import FUNCTION, gamma, svd_error

#: Steps allowed to the search for S, and to the ascents over the orthant.
MAX_STEPS, MAX_ASCENTS = 1000, 200

#: Steps by which a norm of groups is brought down, and what a reach is told to, relatively.
HALVINGS, REACHED = 16, 1e-14


def orthant_norm(matrix: Array, within: Array | None = None, sizes: Array | None = None) -> float:
    """Return an upper bound of ``max |G v|`` over unit vectors ``v >= 0``, aimed at one.

    Tight where the maximum is one and S exists. ``|(G^T G + S - I)_+|^2`` is convex and smooth in
    S >= 0; the largest eigenvalue of ``G^T G + S`` is a bound for whatever S a descent ends at.

    Parameters
    ----------
    matrix : ndarray, shape (G, G)
        On group indicators; the matrix itself where every class stands alone.
    within, sizes : ndarray, shape (G,), optional
        On what sums to zero within a group, and the classes of each group.
    """
    from scipy.optimize import minimize

    # Entries may differ from those meant by a few roundings, own ones by as many as groups.
    grams = partial(_gram, matrix, within, sizes, 1 + gamma(2 * len(matrix) + 24))
    gram = grams(1.0)
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
    sums = [np.maximum(entries, 0.0) for entries in (start, found)]
    blur = gamma(len(gram)) * float(np.square(matrix).sum())  # the Gram matrix is rounded

    def norm_at(gram: Array) -> float:
        squares = min(_largest_eigenvalue(gram + symmetric(entries)) for entries in sums)
        return math.sqrt(max(squares + blur, 0.0))

    norm = norm_at(gram)
    if within is not None and sizes is not None and (sizes > 1).any():
        # Below one as far only as no group's own number is; above one, not as far.
        norm = max(norm, min(1.0, float(np.abs(within * (sizes > 1)).max())))
        below = 1.0
        for _ in range(HALVINGS if norm > 1 else 0):
            middle = (below + norm) / 2
            below, norm = (below, middle) if norm_at(grams(middle)) <= middle else (middle, norm)
    return norm * (1 + gamma(2 * len(matrix) + 4 * FUNCTION))


def _gram(
    matrix: Array, within: Array | None, sizes: Array | None, factor: float, level: float
) -> Array:
    """Return ``G^T G`` of groups, with what vectors with one entry in a group add at a norm."""
    gram: Array = matrix.T @ matrix
    if within is not None and sizes is not None:
        gram += np.diag((sizes - 1) * np.maximum(within**2 * factor - level**2, 0.0))
    return gram


def _largest_eigenvalue(matrix: Array) -> float:
    """Return an upper bound; LAPACK's eigenvalues are as exact as its singular values."""
    largest = float(np.linalg.eigvalsh(matrix)[-1])
    return largest + (svd_error(len(matrix)) + gamma(2)) * float(np.linalg.norm(matrix))


def steepest_axes(
    matrix: Array, within: Array | None = None, sizes: Array | None = None
) -> tuple[Array, Array]:
    """Return local maxima of ``|G v|`` over unit vectors ``v >= 0``, and where: (S,), (S, G).

    ``v <- (G^T G v)_+`` never lowers it, as a convex function lies above its tangents. Of groups,
    see `orthant_norm`, lengths are such that those above one are, and where.
    """
    gram = _gram(matrix, within, sizes, 1.0, 1.0)
    vectors = np.linalg.eigh(gram)[1].T
    v = unit_rows(np.maximum(np.concatenate([np.eye(len(gram)), vectors, -vectors]), 0.0))
    for _ in range(MAX_ASCENTS):
        moved = unit_rows(np.maximum(v @ gram, 0.0))
        done = np.abs(moved - v).max() < 1e-12
        v = moved
        if done:
            break
    return np.sqrt(np.maximum(((v @ gram) * v).sum(axis=1), 0.0)), v


def orthant_reach(matrix: Array, within: Array, sizes: Array) -> float:
    """Return the largest ``|G v|`` over unit vectors ``v >= 0`` that ascents find, of groups."""
    gram, siblings = matrix.T @ matrix, sizes - 1
    alone = (np.diagonal(gram) + siblings * within**2) / sizes  # of one class of each group
    reach = math.sqrt(max(float(np.maximum(np.diagonal(gram), alone).max()), np.finfo(float).tiny))
    for _ in range(MAX_ASCENTS):
        lengths, axes = steepest_axes(matrix / reach, within / reach, sizes)
        v = axes[lengths.argmax()]
        single = siblings * (np.abs(within) > reach)  # one entry in the group, or a constant
        larger = v @ gram @ v + single @ (within * v) ** 2
        larger = math.sqrt(larger / (v @ v + single @ v**2))
        if larger <= reach * (1 + REACHED):
            return max(larger, reach)
        reach = larger
    return reach


def unit_rows(rows: Array) -> Array:
    """Return rows scaled to length one; zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit
