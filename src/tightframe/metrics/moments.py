"""The moments of classes: a handful of tensors, and pure functions that gather, merge and derive.

Every class has an *anchor*, its first sample, which is subtracted before anything is summed or
multiplied. The anchor lies inside its class, so the sums are of the size of the class's spread
and nothing cancels, however far from zero the features are.

`ClassMoments`, `CollapseMetric` and the moments of several layers are shells around these. What
may be asked of which moments is their matter (`tightframe.metrics.readings`): the functions here
check nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor

from tightframe.metrics.panels import add_products, mirror, panels, quadratic_forms
from tightframe.metrics.tall import (
    Index,
    Matrix,
    Tall,
    is_tall,
    lengths,
    row_blocks,
    select,
)
from tightframe.saved import kept

#: How classes are averaged: all alike, or by their share of the samples.
WEIGHTINGS = ("class", "sample")

EPS = torch.finfo(torch.float64).eps


@kept
class Moments(NamedTuple):
    """What is known of the samples: K classes of width D.

    Attributes
    ----------
    counts : Tensor, shape (K,), int64
        Samples of every class.
    anchors : Tensor, shape (K, D), float64
        What a class's samples are measured from; of no meaning without samples. Large ones have
        the samples' own type, which loses nothing.
    sums : Tensor, shape (K, D), float64
        Of ``x - anchor``; of no meaning without samples.
    squares : Tensor, shape (K,), float64
        Of ``||x - anchor||^2``.
    products : Tensor, shape (D, D), float64
        Of ``(x - anchor)(x - anchor)^T`` over all classes; (0, 0) where no scatter matrix is kept.
        Only what `panels` cover is kept up.
    ignored, dropped : Tensor, shape (), int64
        Rows that were left out, for their label and for their entries.
    """

    counts: Tensor
    anchors: Tensor
    sums: Tensor
    squares: Tensor
    products: Tensor
    ignored: Tensor
    dropped: Tensor


# -- gathering -------------------------------------------------------------------------------------


def empty(
    num_classes: int,
    dim: int,
    scatter: bool = True,
    device: torch.device | None = None,
    anchors: torch.dtype = torch.float64,
) -> Moments:
    """Return the moments of no samples; of width 0 where D is not known yet."""

    def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device or "cpu")

    return Moments(
        counts=zeros(num_classes, dtype=torch.int64),
        anchors=zeros(num_classes, dim, dtype=anchors),
        sums=zeros(num_classes, dim),
        squares=zeros(num_classes),
        products=zeros(dim, dim) if scatter else zeros(0, 0),
        ignored=zeros(dtype=torch.int64),
        dropped=zeros(dtype=torch.int64),
    )


def choose_anchors_(moments: Moments, known: Tensor, x: Tensor, y: Tensor) -> None:
    """Make the first row of every class that has none yet its anchor, in place.

    Parameters
    ----------
    moments : Moments
    known : Tensor, shape (K,), bool
        Which classes have an anchor; changed in place, too.
    x, y : Tensor, shapes (B, D) and (B,)
    """
    fresh = torch.nonzero(~known[y])[:, 0]
    if len(fresh):
        classes, place = torch.unique(y[fresh], return_inverse=True)
        first = torch.full_like(classes, len(x)).scatter_reduce_(0, place, fresh, "amin")
        moments.anchors[classes] = x[first].to(moments.anchors.dtype)
        # What they hold may be of samples that do not count, see `of_frequent`.
        moments.sums[classes] = 0.0
        known[classes] = True


def add_(moments: Moments, deviations: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
    """Add samples, in place: one D x D product for all of them.

    Parameters
    ----------
    moments : Moments
    deviations : Tensor, shape (B, D + padding), float64
        ``x - anchor``; further columns are zero.
    labels : Tensor, shape (B,), int64
    dtype : torch.dtype
        In which the product is computed, one of `PRODUCT_TYPES`.
    """
    rows = deviations[:, : moments.anchors.shape[1]]
    moments.counts.index_add_(0, labels, torch.ones_like(labels))
    # Rows with gaps between them are added slowly: first whole ones, a sum a class.
    classes, place = torch.unique(labels, return_inverse=True)
    sums = deviations.new_zeros(len(classes), deviations.shape[1])
    sums.index_add_(0, place, deviations)
    moments.sums.index_add_(0, classes, sums[:, : rows.shape[1]])
    # Not vecdot, which makes a product of the block's size first.
    moments.squares.index_add_(0, labels, torch.linalg.vector_norm(rows, dim=1).square())
    if len(moments.products):
        add_products(moments.products, rows, dtype)


def merge(moments: Moments, other: Moments) -> Moments:
    """Return the moments of the samples of both: of equal sizes, on one device.

    Their sums are moved from their anchors to ours (Chan, Golub, LeVeque 1983); the two anchors
    lie within one class's spread, so nothing cancels here either.
    """
    known, theirs = (moments.counts > 0)[:, None], (other.counts > 0)[:, None]
    sums, others = (m.sums.masked_fill(m.counts[:, None] == 0, 0.0) for m in (moments, other))
    shift = torch.where(known & theirs, other.anchors.double() - moments.anchors, 0.0)
    moved = shift * other.counts.double()[:, None]
    products = moments.products
    if len(products):
        cross = others.T @ shift
        products = products + other.products + cross + cross.T + shift.T @ moved
    squares = (
        moments.squares
        + other.squares
        + 2 * torch.linalg.vecdot(others, shift)
        + torch.linalg.vecdot(moved, shift)
    )
    return Moments(
        counts=moments.counts + other.counts,
        anchors=torch.where(known, moments.anchors, other.anchors),
        sums=sums.add_(others).add_(moved),
        squares=squares,
        products=products,
        ignored=moments.ignored + other.ignored,
        dropped=moments.dropped + other.dropped,
    )


def of_present(moments: Moments) -> Moments:
    """Return a copy of the classes that have samples, renumbered in order."""
    kept = moments.counts > 0
    return Moments(
        counts=moments.counts[kept],
        anchors=moments.anchors[kept],
        sums=moments.sums[kept],
        squares=moments.squares[kept],
        products=moments.products.clone(),
        ignored=torch.zeros_like(moments.ignored),
        dropped=torch.zeros_like(moments.dropped),
    )


def read_present(moments: Moments) -> Moments:
    """Return `of_present`, of large moments with anchors and sums that are read in rows."""
    if not is_large(moments):
        return of_present(moments)
    kept = torch.nonzero(moments.counts)[:, 0]
    anchors, sums = (select(Tall.of(m), kept) for m in (moments.anchors, moments.sums))
    return moments._replace(
        counts=moments.counts[kept],
        anchors=cast(Tensor, anchors),  # nobody writes to these
        sums=cast(Tensor, sums),
        squares=moments.squares[kept],
        ignored=torch.zeros_like(moments.ignored),
        dropped=torch.zeros_like(moments.dropped),
    )


def of_frequent(moments: Moments, least: int) -> Moments:
    """Return moments without the samples of classes that have fewer than ``least``.

    They share anchors and sums. Those classes stay, without samples. The scatter within classes is
    known of all together, and its trace of every one: Sigma_W gets the trace of those kept.
    """
    kept = moments.counts >= least
    frequent = moments._replace(
        counts=torch.where(kept, moments.counts, 0),
        squares=torch.where(kept, moments.squares, 0.0),
    )
    if not len(moments.products):
        return frequent
    spread = traces(moments).nan_to_num() * moments.counts
    whole = float(spread.sum())
    share = float(spread[kept].sum()) / whole if whole else 1.0
    products = share * (moments.products - _shift_gram(moments)) + _shift_gram(frequent)
    return frequent._replace(products=products)


# -- deriving --------------------------------------------------------------------------------------


def origin(moments: Moments) -> Tensor:
    """Return where `offsets` are taken from: the anchor of the first class, shape (D,)."""
    first = torch.argmax((moments.counts > 0).to(torch.uint8))
    return moments.anchors[first[None]][0].double()


def is_large(moments: Moments) -> bool:
    """Return whether means are read in blocks of rows."""
    return is_tall(*moments.sums.shape)


def in_rows(moments: Moments, read: Callable[[Index], Tensor]) -> Tall:
    """Return a matrix of as many rows and columns as the means."""
    k, d = moments.sums.shape
    return Tall(read, k, d, moments.counts.device)


def offsets(moments: Moments, rows: Index = slice(None)) -> Tensor:
    """Return the class means less the `origin`, shape (K, D); zero for classes without samples."""
    counts = moments.counts[rows]
    # Anchors are samples, so their difference is taken before the small offsets are added.
    anchors, sums = moments.anchors[rows].double(), moments.sums[rows]
    found = (anchors - origin(moments)).addcdiv_(sums, counts.double()[:, None])
    missing = counts == 0
    return found.masked_fill_(missing[:, None], 0.0) if bool(missing.any()) else found


def means(moments: Moments, rows: Index = slice(None)) -> Tensor:
    """Return the class means, shape (K, D)."""
    return moments.anchors[rows] + moments.sums[rows] / moments.counts[rows][:, None]


def mean_errors(moments: Moments, offsets: Matrix) -> Tensor:
    """Return the estimated rounding error of every row of `offsets`, shape (K,), as a length.

    ``2 eps (sqrt(n_k) r_k + ||offset||)`` with r_k the root mean square distance of the class
    from its anchor: n_k float64 additions of terms of that size, by random-walk rounding.
    """
    return 2 * EPS * (moments.squares.sqrt() + lengths(offsets))


def blur(errors: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the root mean square of the rows' errors, (..., K): the error of their mean."""
    squares = errors.square()
    return (squares.mean(dim=-1) if weights is None else squares @ weights).sqrt()


def traces(moments: Moments) -> Tensor:
    """Return every class's mean squared distance to its mean, shape (K,)."""
    n = moments.counts.double()
    shifts = lengths(moments.sums) / n
    return torch.addcmul(moments.squares / n, shifts, shifts, value=-1.0).clamp_(min=0.0)


def shares(moments: Moments, weighting: str) -> Tensor:
    """Return the classes' weights p, shape (K,): 1/K, or n_k/N."""
    if weighting == "sample":
        return moments.counts.double() / moments.counts.sum()
    return torch.full_like(moments.squares, 1 / len(moments.counts))


def within(moments: Moments) -> Tensor:
    """Return the within-class covariance Sigma_W, shape (D, D)."""
    share = 1 / int(moments.counts.sum())
    covariance = moments.products * share
    for rows in _shift_blocks(moments):
        for left, right in panels(len(covariance)):
            covariance[left:right, :right].addmm_(
                rows[:, left:right].T, rows[:, :right], alpha=-share
            )
    return mirror(covariance)


def within_inner(moments: Moments, matrix: Tensor) -> Tensor:
    """Return ``tr(Sigma_W M)`` of a symmetric matrix M, without another D x D matrix if small."""
    if is_large(moments):
        return (within(moments) * matrix).sum()
    (rows,), total = _shift_blocks(moments), moments.squares.new_zeros(())
    for left, right in panels(len(matrix)):
        panel = torch.addmm(
            moments.products[left:right, :right],
            rows[:, left:right].T,
            rows[:, :right],
            alpha=-1.0,
        )
        panel *= matrix[left:right, :right]
        # What a panel holds before its diagonal block stands for its mirror image, too.
        total += 2 * panel.sum() - panel[:, left:].sum()
    return total / int(moments.counts.sum())


def within_along(moments: Moments, directions: Tensor) -> Tensor:
    """Return ``v^T Sigma_W v`` along the columns v, shape (R,), without another D x D matrix."""
    along = quadratic_forms(moments.products, directions)
    shares = moments.counts.clamp(min=1).double().reciprocal_() * (moments.counts > 0)
    width = max(directions.shape)
    for block in row_blocks(len(shares), width):  # K x R numbers are as many as the means
        squares = (moments.sums[block] @ directions).square_()
        along.addmv_(squares.T, shares[block], alpha=-1.0)
    return along.div_(int(moments.counts.sum()))


def _shift_blocks(moments: Moments) -> Iterator[Tensor]:
    """Yield rows of S with ``N Sigma_W = products - S^T S``: means less anchors, times sqrt n.

    All at once, unless they are very many. Sigma_W is an average over samples, so it needs no
    sample in every class.
    """
    shape = moments.sums.shape
    for block in row_blocks(*shape) if is_large(moments) else [slice(0, shape[0])]:
        counts = moments.counts[block]
        rows = moments.sums[block] / counts.clamp(min=1).double().sqrt()[:, None]
        yield rows.masked_fill_((counts == 0)[:, None], 0.0)


def _shift_gram(moments: Moments) -> Tensor:
    """Return ``S^T S``, shape (D, D)."""
    gram = torch.zeros_like(moments.products)
    for rows in _shift_blocks(moments):
        gram.addmm_(rows.T, rows)
    return gram
