"""Work on K x K matrices in blocks of rows, so that K = 50,000 classes need no K x K array.

Memory is bounded by a few blocks of `BLOCK_ENTRIES` float64 numbers (16 MiB each; one row where K
is larger than that) beside the K x D inputs. Symmetric matrices are worked on above the diagonal
only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tightframe.metrics import tall
from tightframe.metrics.rows import Rows
from tightframe.metrics.tall import dense, row_blocks

#: Most rows of a block of pairs.
PAIR_ROWS = 256

#: Squared distances below this share of the squared lengths lose digits in a product formula.
_CLOSE = 1e-4


def pair_blocks(rows: int) -> Iterator[slice]:
    """Split rows for work on all pairs i < j, done for i in a block and j from its start on.

    Blocks of `PAIR_ROWS` rows at most: larger ones would leave the processor's cache, and do more
    work below the diagonal.
    """
    return row_blocks(rows, max(rows, tall.BLOCK_ENTRIES // PAIR_ROWS))


def pair_values(block: Tensor) -> list[Tensor]:
    """Return the entries above the diagonal of a block of rows i and columns j >= first i."""
    size = block.shape[0]
    above = torch.triu_indices(size, min(size, block.shape[1]), 1, device=block.device)
    return [block[above[0], above[1]], block[:, size:].reshape(-1)]


@lru_cache(maxsize=4)
def _lower(size: int, device: torch.device) -> Tensor:
    """Return where a square block is on or below its diagonal."""
    return torch.ones(size, size, dtype=torch.bool, device=device).tril_()


def pair_distances(rows: Rows) -> Iterator[tuple[slice, Tensor, float]]:
    """Yield blocks i, ``||x_i - x_j||^2`` for all j from the block's start on, and the least.

    Of the scaled rows. Pairs that lie close, where the product formula would cancel, are computed
    from differences. A block's own diagonal, and what lies below it, is infinite.
    """
    x, lengths = dense(rows.scaled), rows.lengths.square()
    longest = float(lengths.max())
    # Where the product is as small as a block, other metrics use it, too.
    gram = rows.gram if x.shape[0] <= x.shape[1] and len(x) ** 2 <= tall.BLOCK_ENTRIES else None
    for block in pair_blocks(len(x)):
        if gram is None:
            # The lengths of all others come first, as the bias of a linear layer.
            others = x[block.start :].T
            squares = torch.addmm(lengths[block.start :], x[block], others, alpha=-2.0)
        else:
            squares = torch.sub(lengths[block.start :], gram[block, block.start :], alpha=2.0)
        squares += lengths[block, None]
        size = len(squares)
        squares[:, :size].masked_fill_(_lower(size, x.device), math.inf)
        least = float(squares.min())
        if not least > 2 * _CLOSE * longest:
            sizes = lengths[block, None] + lengths[block.start :]
            close = torch.nonzero(squares < sizes.mul_(_CLOSE))
            for part in row_blocks(len(close), x.shape[1]):
                i, j = close[part].T
                difference = x[block.start + i] - x[block.start + j]
                squares[i, j] = torch.linalg.vecdot(difference, difference)
            least = float(squares.min())
        yield block, squares, least


def pair_tiles(rows: Rows) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows i, columns j and ``||x_i - x_j||^2`` of tiles that hold all pairs i < j.

    As `pair_distances`, of rows that are read in blocks. What is not of such a pair is infinite.
    """
    x, lengths = rows.scaled, rows.lengths.square()
    step = max(1, math.isqrt(tall.BLOCK_ENTRIES))
    for i in range(0, len(x), step):
        left, own = x[i : i + step], lengths[i : i + step, None]
        places = torch.arange(i, i + len(left), device=x.device)[:, None]
        for j in range(i, len(x), step):
            columns = slice(j, j + step)
            right, others = x[columns], lengths[columns]
            squares = torch.addmm(others, left, right.T, alpha=-2.0).add_(own)
            if i == j:
                squares.masked_fill_(places >= places.T, math.inf)
            if not float(squares.min()) > 2 * _CLOSE * float(torch.max(own.max(), others.max())):
                close = torch.nonzero(squares < (own + others).mul_(_CLOSE))
                for part in row_blocks(len(close), x.shape[1]):
                    a, b = close[part].T
                    difference = left[a] - right[b]
                    squares[a, b] = torch.linalg.vecdot(difference, difference)
            yield slice(i, i + step), columns, squares


def square_distances(rows: Rows, errors: Tensor) -> Tensor:
    """Return ``||x_i - x_j||^2`` of all pairs of the scaled rows, shape (K, K).

    Zero where two rows are equal within their errors.
    """
    out = rows.scaled.new_zeros(len(rows.scaled), len(rows.scaled))
    for block, squares, _ in pair_distances(rows):
        reach = errors[block, None] + errors[block.start :]
        out[block, block.start :] = torch.where(
            squares.isinf() | (squares <= reach.square()), 0.0, squares
        )
    return out + out.T


def first_equal(
    squares: Tensor, least: float, errors: Tensor, block: slice
) -> tuple[int, int] | None:
    """Return the first pair whose distance is within the rounding errors of its two rows.

    ``squares`` and ``least`` are what `pair_distances` gave for the block.
    """
    if least > 4 * float(errors.max()) ** 2:
        return None  # as nearly always
    own, others = errors[block], errors[block.start :]
    equal = torch.nonzero(squares <= (own[:, None] + others).square())
    if not len(equal):
        return None
    i, j = equal[0].tolist()
    return block.start + i, block.start + j


@dataclass
class Spread:
    """Number, mean and squared deviations of a stream of values, merged by Chan's formula."""

    count: int = 0
    mean: float = 0.0
    deviations: float = 0.0

    def add(self, values: Tensor) -> None:
        """Add the values of a block."""
        size = values.numel()
        if not size:
            return
        mean = float(values.mean())
        deviations = float((values - mean).square().sum())
        step, self.count = mean - self.mean, self.count + size
        self.deviations += deviations + step * step * size * (self.count - size) / self.count
        self.mean += step * size / self.count

    @property
    def variance(self) -> float:
        """Population variance; NaN without values."""
        return self.deviations / self.count if self.count else math.nan
