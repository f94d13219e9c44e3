"""CDNV of tens of thousands of classes, to a certified accuracy and without all pairs.

``sum over i != j of v_i / d_ij^2`` with ``d^2 = s - 2 g``, ``s = |x_i|^2 + |x_j|^2``, g the inner
product, is the sum of three parts. Pairs that lie close, which no sample may miss, are found by a
projection to a few dimensions, which shortens distances: they are computed one by one. Of the
others ``1/d^2 = (1 + q + q^2 + ...) / s`` with ``q = 2 g / s``, whose first terms, up to small
changes, are sums of products of a term in i and one in j: their sum over all pairs is exact and
cheap. What remains is of the size of q^3, about D^-1.5, and its mean is taken over sampled blocks
of pairs, whose spread gives the standard error.

Of means in clusters, or of very unequal lengths, too much remains. Then all pairs are summed in
float32, in a quarter of the time, and what that is off is sampled in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tightframe.metrics.moments import EPS
from tightframe.metrics.panels import add_products, mirror
from tightframe.metrics.rows import Rows
from tightframe.metrics.tall import Index, Matrix, row_blocks, weighted_sum

#: With fewer classes all pairs take a second or two.
FEW_CLASSES = 8192

#: Six standard errors may be that share of the sum.
ACCURACY = 1e-6

#: Pairs whose squared distance is a smaller share of s are close.
_CLOSE = 0.01

#: Dimensions of the projection, at least, and the features' own for each of its: in fewer, pairs
#: that are not close often seem so.
_SKETCH, _SKETCH_SHARE = 32, 16

#: Most pairs that may be, or seem, close.
_MOST_CLOSE = 2**20

#: The same share in float32, whose distances have lost half their digits there.
_CLOSE_SINGLE = 1e-3

#: Rows and columns of a block of pairs in float32: 2 MiB.
_SINGLE_TILE = (512, 1024)

#: Up to so many numbers (256 MiB) all rows are kept in float32, else every block's anew.
_MOST_SINGLE = 2**26

#: Rows and columns of a block of projected pairs: 2 MiB.
_TILE = (256, 2048)

#: Nodes of the polynomials in the squared lengths.
_NODES = 6

#: Sampled blocks, and their rows and columns.
_BLOCKS, _ROWS, _COLUMNS = 16, 512, 2048

#: Rows and columns of pairs.
Places = tuple[Tensor, Tensor]


class PairSum(NamedTuple):
    """The sum over ordered pairs; or the first pair whose distance is rounding.

    Attributes
    ----------
    total : float
    equal : tuple of int or None
    """

    total: float
    equal: tuple[int, int] | None


def inverse_distance_sum(rows: Rows, values: Tensor, errors: Tensor) -> PairSum | None:
    """Return ``sum over i != j of v_i / ||x_i - x_j||^2`` of the scaled rows, see above.

    Parameters
    ----------
    rows : Rows
        Centred, at least some thousand.
    values : Tensor, shape (K,), float64
        v, not negative.
    errors : Tensor, shape (K,)
        Rounding errors of the rows, as lengths.

    Returns
    -------
    PairSum or None
        None where what is sampled is not known to `ACCURACY`, or too many pairs are close: then
        all pairs have to be summed in float64.
    """
    found = _by_expansion(rows, values, errors)
    return _in_single(rows, values, errors) if found is None else found


# -- inside --------------------------------------------------------------------------------------


def _by_expansion(rows: Rows, values: Tensor, errors: Tensor) -> PairSum | None:
    x, squares = rows.scaled, rows.lengths.square()
    if not float(squares.min()) > 1e-4 * float(squares.max()) or not float(values.sum()) > 0:
        return None
    generator = torch.Generator().manual_seed(0)
    smooth = _Smooth(x, squares, values)
    means, size = _sampled_means(smooth, x, squares, values, generator)
    if _error(means) > 2 * ACCURACY * size:  # then the rest need not be computed
        return None
    total = _corrected(smooth.total(), means, len(x))
    close = None if total is None else _close_pairs(x, squares, generator)
    if total is None or close is None:
        return None
    return _with_close(total, *close, rows, values, errors, _CLOSE)


def _corrected(total: float, means: Tensor, k: int) -> float | None:
    """Return a sum over all pairs and what it leaves out, of which the means of blocks are given.

    None where that is not known to `ACCURACY`.
    """
    pairs = k * (k - 1)
    total += pairs * float(means.mean())
    return total if pairs * _error(means) <= ACCURACY * total else None


def _error(means: Tensor) -> float:
    """Return six standard errors of the mean."""
    return 6 * float(means.std()) / math.sqrt(len(means))


def _with_close(
    total: float,
    i: Tensor,
    j: Tensor,
    rows: Rows,
    values: Tensor,
    errors: Tensor,
    share: float,
) -> PairSum:
    """Add pairs i < j one by one, as far as they are closer than a share of s."""
    x, squares = rows.scaled, rows.lengths.square()
    # A block of pairs at a time: there may be a million.
    parts = row_blocks(len(i), x.shape[1])
    sums = [(x[i[part]] - x[j[part]]).square_().sum(dim=1) for part in parts]
    distances = torch.cat(sums) if sums else values.new_zeros(0)
    equal = torch.nonzero(distances <= (errors[i] + errors[j]).square())
    if len(equal):
        return PairSum(math.inf, (int(i[equal[0]]), int(j[equal[0]])))
    kept = distances <= share * (squares[i] + squares[j])
    near = float(((values[i] + values[j]) / distances)[kept].sum())
    return PairSum(total + near, None)


def _close_pairs(
    x: Matrix, squares: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """Return the pairs i < j that may be close, among them all that are; None if too many seem so.

    An orthogonal projection makes no distance longer.
    """
    d = x.shape[1]
    width = min(max(_SKETCH, d // _SKETCH_SHARE), d)
    basis = torch.linalg.qr(torch.randn(d, width, generator=generator, dtype=x.dtype))[0]
    y = x @ basis.to(squares)
    # |y_i - y_j|^2 - CLOSE s as one product; float32 rounds by less than what is added to CLOSE.
    slack = y.square().sum(dim=1) - (_CLOSE + 1e-5) * squares
    ones = torch.ones_like(slack)
    left = torch.cat([-2 * y, ones[:, None], slack[:, None]], dim=1).float()
    right = torch.cat([y, slack[:, None], ones[:, None]], dim=1).float()
    found: list[Tensor] = []
    for i in range(0, len(x), _TILE[0]):
        for j in range(i, len(x), _TILE[1]):
            seeming = left[i : i + _TILE[0]] @ right[j : j + _TILE[1]].T
            if i == j:  # what follows begins with the block's own square
                seeming += torch.full_like(seeming, math.inf).tril_()
            if not float(seeming.min()) > 0:
                places = torch.nonzero(seeming <= 0)
                found.append(places + places.new_tensor([i, j]))
        if sum(map(len, found)) > _MOST_CLOSE:
            return None
    pairs = torch.cat(found) if found else torch.empty(0, 2, dtype=torch.int64, device=x.device)
    return pairs[:, 0], pairs[:, 1]


class _Smooth:
    """Sums of products that are near ``v_i (1 + q + q^2) / s``, of all pairs and of blocks.

    1/s and 1/s^2 are polynomials in both squared lengths; in the square term s is twice the product
    of the lengths, which it is but for the square of their difference.
    """

    def __init__(self, x: Matrix, squares: Tensor, values: Tensor) -> None:
        low, high = float(squares.min()), float(squares.max()) * (1 + 1e-9)
        places = torch.arange(_NODES, dtype=x.dtype, device=x.device)
        angles = torch.pi * (places + 0.5) / _NODES
        nodes = (low + high) / 2 + (high - low) / 2 * torch.cos(angles)
        self._x, self._squares, self._values = x, squares, values
        self._basis = _lagrange(squares, nodes, angles)
        sums = nodes[:, None] + nodes
        self._first, self._second = sums.reciprocal(), 2 * sums.square().reciprocal()
        self._lengths = squares.sqrt()

    def block(self, i: Tensor, j: Tensor, products: Tensor) -> Tensor:
        """Return the terms of rows i and columns j, given their inner products."""
        basis, lengths = self._basis, self._lengths
        terms = basis[i] @ self._first @ basis[j].T
        terms += products * (basis[i] @ self._second @ basis[j].T)
        cosines = products / lengths[i, None] / lengths[j]
        terms += cosines.square_() / (2 * lengths[i, None]) / lengths[j]
        return terms * self._values[i, None]

    def total(self) -> float:
        """Return their sum over all i != j."""
        x, basis, lengths, values = self._x, self._basis, self._lengths, self._values
        weighted = values[:, None] * basis
        total = weighted.sum(dim=0) @ self._first @ basis.sum(dim=0)
        total += (self._second * (weighted_sum(weighted.T, x) @ weighted_sum(basis.T, x).T)).sum()
        grams = []
        for weights in (values / (2 * lengths), lengths.reciprocal()):
            gram = x.new_zeros(x.shape[1], x.shape[1])
            for block in row_blocks(len(x), x.shape[1]):
                scales = weights[block].sqrt() / lengths[block]
                add_products(gram, x[block] * scales[:, None], torch.float32)
            grams.append(mirror(gram))
        total += (grams[0] * grams[1]).sum()
        own = (basis @ self._first * basis).sum(dim=1)
        own += self._squares * (basis @ self._second * basis).sum(dim=1)
        own += 1 / (2 * self._squares)
        return float(total - values @ own)


def _lagrange(at: Tensor, nodes: Tensor, angles: Tensor) -> Tensor:
    """Return the Lagrange polynomials of Chebyshev nodes, (K, n), by the barycentric formula."""
    signs = torch.where(torch.arange(len(nodes), device=at.device) % 2 == 0, 1.0, -1.0)
    gaps = at[:, None] - nodes
    tiny = EPS * nodes.abs().max()
    gaps = torch.where(gaps.abs() < tiny, tiny, gaps)
    shares = signs * torch.sin(angles) / gaps
    return shares / shares.sum(dim=1, keepdim=True)


def _sampled_blocks(k: int, generator: torch.Generator, device: torch.device) -> Iterator[Places]:
    """Yield rows and columns of blocks of pairs, none of which is of equal ones."""
    order = torch.randperm(k, generator=generator).to(device)
    rows, columns = min(_ROWS, k // (2 * _BLOCKS)), min(_COLUMNS, k // (2 * _BLOCKS))
    for b in range(_BLOCKS):
        yield order[b * rows : (b + 1) * rows], order[k - (b + 1) * columns : k - b * columns]


def _sampled_means(
    smooth: _Smooth, x: Matrix, squares: Tensor, values: Tensor, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Return the mean of what is not smooth over blocks of pairs, and that of all; none close."""
    means, size = [], 0.0
    for i, j in _sampled_blocks(len(x), generator, x.device):
        products = x[i] @ x[j].T
        sizes = squares[i, None] + squares[j]
        distances = sizes - 2 * products
        inverse = torch.where(distances <= _CLOSE * sizes, 0.0, 1 / distances)
        inverse *= values[i, None]
        size += float(inverse.mean()) / _BLOCKS
        inverse -= smooth.block(i, j, products)
        means.append(inverse.mean())
    return torch.stack(means), size


def _in_single(rows: Rows, values: Tensor, errors: Tensor) -> PairSum | None:
    x, squares = rows.scaled, rows.lengths.square()
    least = float(squares.topk(2, largest=False)[0].sum())
    # Equal pairs have to be among the close ones.
    if not 4 * float(errors.max()) ** 2 < _CLOSE_SINGLE * least:
        return None
    single = _Single(x, squares)
    total, close = 0.0, [torch.empty(0, 2, dtype=torch.int64, device=x.device)]
    for start in range(0, len(x), _SINGLE_TILE[0]):
        i = slice(start, start + _SINGLE_TILE[0])
        left = single.rows(i)
        for first in range(start, len(x), _SINGLE_TILE[1]):
            j = slice(first, first + _SINGLE_TILE[1])
            inverse, near = single.inverse(i, j, left, diagonal=first == start)
            total += float(values[i] @ inverse.sum(dim=1).to(values))
            total += float(values[j] @ inverse.sum(dim=0).to(values))
            if len(near):
                close.append(near + near.new_tensor([start, first]))
        if sum(map(len, close)) > _MOST_CLOSE:
            return None
    means, generator = [], torch.Generator().manual_seed(0)
    for a, b in _sampled_blocks(len(x), generator, x.device):
        inverse, _ = single.inverse(a, b, single.rows(a))
        distances = squares[a, None] + squares[b] - 2 * (x[a] @ x[b].T)
        missed = torch.where(inverse == 0, 0.0, 1 / distances - single.unit * inverse.double())
        means.append((missed * values[a, None]).mean())
    known = _corrected(single.unit * total, torch.stack(means), len(x))
    if known is None:
        return None
    places = torch.cat(close)
    return _with_close(known, places[:, 0], places[:, 1], rows, values, errors, math.inf)


class _Single:
    """Reciprocal squared distances in float32, over `unit`: that of the largest squared length."""

    def __init__(self, x: Matrix, squares: Tensor) -> None:
        self.unit = 1 / float(squares.max())
        self._x, self._squares = x, (squares * self.unit).float()
        self._rows: Tensor | None = None
        if x.shape[0] * x.shape[1] <= _MOST_SINGLE:
            self._rows = self.rows(slice(None))

    def rows(self, i: Index) -> Tensor:
        """Return rows as they are multiplied."""
        if self._rows is not None:
            return self._rows[i]
        return (self._x[i] * math.sqrt(self.unit)).float()

    def inverse(
        self, i: Index, j: Index, left: Tensor, *, diagonal: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return ``1 / d^2`` of rows i and columns j, 0 for close pairs, and where those are.

        ``left`` are the rows; with ``diagonal`` the columns begin with them, and only i < j counts.
        """
        own, others = self._squares[i], self._squares[j]
        distances = torch.addmm(others, left, self.rows(j).T, alpha=-2.0).add_(own[:, None])
        if diagonal:
            distances += torch.full_like(distances, math.inf).tril_()
        places = torch.empty(0, 2, dtype=torch.int64, device=own.device)
        if not float(distances.min()) > 2 * _CLOSE_SINGLE * float(max(own.max(), others.max())):
            close = distances <= _CLOSE_SINGLE * (own[:, None] + others)
            places = torch.nonzero(close)
            distances[close] = math.inf
        return distances.reciprocal_(), places
