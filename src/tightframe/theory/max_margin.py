"""The max-margin problem of label distributions: its dual, and a certificate for any candidate.

    min ||X||_*   subject to, in every context,
    equal scaled logits of its labels,  margins of at least one of these over all others

with ``X = B^{1/2} Y Omega^{1/2}`` of scaled logits Y (`tightframe.theory.supports`). It is where
cross-entropy points as the decays vanish. Any A with zero column sums (with a free bias also row
sums) and no positive entry off the supports has ``<A, Y> >= T``, T the sum of minus its entries
there, for every feasible Y; so ``T / ||B^{-1/2} A Omega^{-1/2}||_op`` is a lower bound
(docs/theory.md section 5). Contexts of one label each give the UFM-SVM of
`tightframe.theory.svm`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tightframe.geometry.blocks import RANK_TOLERANCE, Array
from tightframe.rounding import FUNCTION, LONG_UNIT, gamma, long_gamma, svd_error
from tightframe.saved import kept
from tightframe.theory.supports import Supports

#: A candidate counts as a minimiser from this gap on, relative to its norm.
CLOSED = 1e-9

#: Entries of ``U V^T`` above this are positive, unless the rank is less sure than that.
POSITIVE = 1e-10


@kept
@dataclass(frozen=True)
class Cost:
    """Nuclear norm of a matrix and what rounding may have done to it."""

    norm: float
    rounding: float


@kept
@dataclass(frozen=True)
class SignTest:
    """What the polar factor ``U V^T`` of the centred support matrix says of it.

    Attributes
    ----------
    cost : Cost
        Of the support matrix, which keeps all margins at one.
    bound : float
        Lower bound of the minimum, from the polar factor.
    rank : int
    largest : float
        Largest entry of the polar factor off the supports; -1 where there is none.
    wrong : float
        Share of these entries that are positive, labels and contexts counted one by one.
    excluded : bool
        Whether a positive entry proves that it is no minimiser: the rank leaves no other dual.
    """

    cost: Cost
    bound: float
    rank: int
    largest: float
    wrong: float
    excluded: bool

    @property
    def closed(self) -> bool:
        """Whether the bound meets the norm, relatively to `CLOSED`."""
        return self.cost.norm - self.bound <= CLOSED * self.cost.norm


def cost(x: Array) -> Cost:
    """Return the nuclear norm of an X."""
    values = np.linalg.svd(x, compute_uv=False)
    norm = float(values.sum())
    error = svd_error(sum(x.shape)) * float(np.linalg.norm(values)) * len(values)
    return Cost(norm, error + gamma(4 * FUNCTION) * norm)


def sign_test(supports: Supports) -> SignTest:
    """Test the centred support matrix by the signs of its polar factor.

    All its margins are one, so it is a minimiser iff some dual ``U V^T + W``, W between the
    complements of U and V, has no positive entry off the supports. With the largest rank W is zero.
    """
    x = supports.support_matrix
    left, values, right = np.linalg.svd(x, full_matrices=False)
    kept = values > RANK_TOLERANCE * values[0]
    rank = int(kept.sum())
    polar = left[:, kept] @ right[kept]
    found = cost(x)
    noise = POSITIVE + svd_error(sum(x.shape)) * float(np.linalg.norm(values)) / values[rank - 1]
    off = ~supports.inside
    positive = off & (polar > noise)
    times = np.outer(
        np.bincount(supports.rows, minlength=x.shape[0]),
        np.bincount(supports.columns[supports.columns >= 0], minlength=x.shape[1]),
    )
    return SignTest(
        found,
        bound(supports, polar, found.norm),
        rank,
        float(polar[off].max(initial=-1.0)),
        float(times[positive].sum() / max(times[off].sum(), 1)),
        bool(positive.any()) and rank == supports.full_rank,
    )


def bound(supports: Supports, gradient: Array, norm: float) -> float:
    """Return the lower bound of the dual that is made feasible from a matrix beside X, at least 0.

    Parameters
    ----------
    supports : Supports
    gradient : ndarray, shape (R, C)
        Near a subgradient of the norm at the minimiser, of any scale.
    norm : float
        Of a feasible X, which limits the logits of the minimiser; for rounding only.
    """
    inside, roots, weights = supports.inside, supports.roots, supports.column_weights
    dual = np.where(inside, gradient * roots, np.minimum(gradient * roots, 0.0))
    share = np.where(inside, supports.row_weights[:, None], 0.0)
    share /= share.sum(axis=0)
    dual -= share * dual.sum(axis=0)
    if supports.free:
        # Row sums go out evenly; an ample dual of the right signs makes up for entries above zero.
        # Both spread like the roots of the weights, which the operator norm sees as even.
        spread = np.sqrt(weights) / np.sqrt(weights).sum()
        dual -= np.outer(dual.sum(axis=1), spread)
        ample = (share - (share @ spread)[:, None]) * spread
        lacking = np.max(np.where(inside, 0.0, dual / -np.where(inside, 1.0, ample)), initial=0.0)
        dual += lacking * ample
        dual = np.where(inside, dual, np.minimum(dual, 0.0))
    total = float(-dual[~inside].sum(dtype=np.longdouble))
    scaled = dual / roots
    operator = float(np.linalg.norm(scaled, 2))
    operator += svd_error(sum(dual.shape)) * float(np.linalg.norm(scaled))
    if not (total > 0 and operator > 0):
        return 0.0
    # Sums that should be zero are so but for rounding. Those of columns act on the minimiser's
    # scaled logits, which its norm limits; those of rows on its bias, whose differences between
    # labels are no more than twice as large, as every label has a context.
    logits = norm / np.sqrt(supports.row_weights.min() * weights)
    residues = float(_residues(dual, 0) @ logits)
    if supports.free:
        residues += 2 * float(_residues(dual, 1).sum() * logits.max())
    return float(max((total * (1 - long_gamma(dual.size)) - residues) / operator, 0.0))


def _residues(dual: Array, axis: int) -> Array:
    """Return bounds of the sums along an axis."""
    sums = np.abs(dual.sum(axis=axis, dtype=np.longdouble))
    noise = dual.shape[axis] * LONG_UNIT * np.abs(dual).sum(axis=axis)
    residues: Array = (sums + 2 * noise).astype(np.float64)
    return residues
