"""Tall matrices (K, D) of which a block of rows is computed when it is read, in float64.

Class means and classifiers of a vocabulary take a gigabyte each in float64. What is kept of them
are the moments and the classifier as it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tightframe.checks import MAX_DENSE_CLASSES

#: Entries of one float64 working block (16 MiB); longer batches are taken in pieces.
BLOCK_ENTRIES = 2**21

#: Larger matrices of more than `MAX_DENSE_CLASSES` rows are not written out, 256 MiB.
KEPT_ENTRIES = 2**25

#: Which rows are read.
Index = slice | Tensor


def is_tall(rows: int, width: int) -> bool:
    """Return whether a matrix is read in blocks of rows."""
    return rows > MAX_DENSE_CLASSES and rows * width > KEPT_ENTRIES


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Split ``rows`` rows of ``width`` entries into blocks of at most `BLOCK_ENTRIES` entries."""
    step = max(1, BLOCK_ENTRIES // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


class Tall:
    """A matrix (K, D) whose rows a function computes.

    Parameters
    ----------
    read : callable
        Returns some rows as a float64 tensor, the reader's own or not to be changed.
    rows, width : int
    device : torch.device
    """

    dtype = torch.float64
    _tensor: Tensor | None = None  # what it is read from

    def __init__(
        self, read: Callable[[Index], Tensor], rows: int, width: int, device: torch.device
    ) -> None:
        self._read, self.shape, self.device = read, torch.Size((rows, width)), device

    @classmethod
    def of(cls, tensor: Tensor, device: torch.device | None = None) -> Tall:
        """Return a tensor of any real type, read in float64 on a device."""
        device = device or tensor.device
        rows, width = tensor.shape
        out = cls(lambda i: tensor[i].to(device).double(), rows, width, device)
        out._tensor = tensor
        return out

    def copy(self) -> Tall:
        """Return the same read from a copy of its tensor, which nobody else changes."""
        return self if self._tensor is None else Tall.of(self._tensor.clone(), self.device)

    def __len__(self) -> int:
        return self.shape[0]

    def numel(self) -> int:
        """Return the number of entries."""
        return self.shape.numel()

    def __getitem__(self, index: Index) -> Tensor:
        return self._read(index)

    def map(self, function: Callable[[Tensor, Index], Tensor]) -> Tall:
        """Return the matrix whose rows are a function of these and of their index."""
        rows, width = self.shape
        return Tall(lambda i: function(self._read(i), i), rows, width, self.device)

    def new_zeros(self, *shape: int) -> Tensor:
        """Return zeros as they come out of it."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def __matmul__(self, other: Tensor) -> Tensor:
        """Multiply with a vector (D,) or a matrix (D, R), which makes a tensor."""
        out = self.new_zeros(len(self), *other.shape[1:])
        for block in row_blocks(*self.shape):
            out[block] = self[block] @ other
        return out


#: Rows of any number.
Matrix = Tensor | Tall


def dense(matrix: Matrix) -> Tensor:
    """Return a matrix written out."""
    if isinstance(matrix, Tensor):
        return matrix
    out = matrix.new_zeros(*matrix.shape)
    for block in row_blocks(*matrix.shape):
        out[block] = matrix[block]
    return out


def select(matrix: Matrix, kept: Tensor) -> Matrix:
    """Return some rows of a matrix."""
    if isinstance(matrix, Tensor):
        return matrix[kept]
    return Tall(lambda i: matrix[kept[i]], len(kept), matrix.shape[1], matrix.device)


def lengths(matrix: Matrix) -> Tensor:
    """Return the lengths of the rows, shape (K,)."""
    if isinstance(matrix, Tensor):
        result: Tensor = torch.linalg.vector_norm(matrix, dim=1)
        return result
    out = matrix.new_zeros(len(matrix))
    for block in row_blocks(*matrix.shape):
        out[block] = torch.linalg.vector_norm(matrix[block], dim=1)
    return out


def row_products(left: Matrix, right: Matrix) -> Tensor:
    """Return the inner products of the rows of two matrices, shape (K,)."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        products: Tensor = torch.linalg.vecdot(left, right)
        return products
    out = torch.zeros(len(left), dtype=left.dtype, device=left.device)
    for block in row_blocks(*left.shape):
        out[block] = torch.linalg.vecdot(left[block], right[block])
    return out


def weighted_sum(weights: Tensor, matrix: Matrix) -> Tensor:
    """Return ``weights @ matrix`` of weights (K,) or (R, K)."""
    if isinstance(matrix, Tensor):
        product: Tensor = weights @ matrix
        return product
    out = matrix.new_zeros(*weights.shape[:-1], matrix.shape[1])
    for block in row_blocks(*matrix.shape):
        out += weights[..., block] @ matrix[block]
    return out


def mean_row(matrix: Matrix) -> Tensor:
    """Return the mean of the rows, shape (D,)."""
    if isinstance(matrix, Tensor):
        return matrix.mean(dim=0)
    return weighted_sum(matrix.new_zeros(len(matrix)) + 1 / len(matrix), matrix)


def smaller_gram(x: Matrix) -> Tensor:
    """Return ``X X^T``, shape (K, K), or ``X^T X``, shape (D, D), whichever is smaller."""
    if isinstance(x, Tall):
        if x.shape[0] <= x.shape[1]:
            return smaller_gram(dense(x))
        gram = x.new_zeros(x.shape[1], x.shape[1])
        for block in row_blocks(*x.shape):
            rows = x[block]
            gram.addmm_(rows.T, rows)
        return gram
    return x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x


def triangle(x: Matrix) -> Tensor:
    """Return R of the QR decomposition ``X = Q R`` of at least as many rows as columns."""
    if isinstance(x, Tensor):
        factor: Tensor = torch.linalg.qr(x, mode="r")[1]
        return factor
    factor = x.new_zeros(0, x.shape[1])
    for block in row_blocks(*x.shape):
        factor = torch.linalg.qr(torch.cat([factor, x[block]]), mode="r")[1]
    return factor


def largest_entry(rows: Matrix) -> float:
    """Return the largest absolute value; NaN if there is any."""
    if isinstance(rows, Tall):
        found = torch.tensor([largest_entry(rows[block]) for block in row_blocks(*rows.shape)])
        return float(found.max())  # NaN if any is
    low, high = torch.aminmax(rows)  # faster than a norm or abs
    return max(abs(float(low)), abs(float(high)))
