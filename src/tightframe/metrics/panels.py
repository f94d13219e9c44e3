"""Products of rows with themselves, D x D, summed in panels that end at the diagonal.

Torch has no symmetric rank-k update. Panels come near to one: sixteen of them are 17/32 of the
whole product's work, each still wide enough for the processor's full rate. Of such a matrix only
what the panels cover is kept up; the rest is its mirror image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

#: Types in which the products may be computed; they are summed in float64.
PRODUCT_TYPES = (torch.float64, torch.float32)

#: Least width of a panel.
_PANEL = 128

#: Deviations between 2^-40 and 2^40 have float32 squares that sum with 7 digits.
_FLOAT32_EXPONENT = 40


def panels(dim: int) -> Iterator[tuple[int, int]]:
    """Yield first and last column of the panels of a D x D matrix."""
    width = max(_PANEL, -(-dim // 16))
    for left in range(0, dim, width):
        yield left, min(left + width, dim)


def add_products(products: Tensor, rows: Tensor, dtype: torch.dtype) -> None:
    """Add ``rows^T rows``, computed in a type, to the panels of float64 products."""
    if dtype == torch.float64:
        _add_square(products, rows)
        return
    # Squares of very small or large deviations leave float32; powers of two move them exactly.
    exponent = math.frexp(float(torch.linalg.vector_norm(rows, ord=math.inf)))[1]
    if abs(exponent) > _FLOAT32_EXPONENT:
        exponent = max(exponent, -1000)
        rows = rows * math.ldexp(1.0, -exponent)
    else:
        exponent = 0
    part = rows.new_zeros(products.shape, dtype=dtype)
    _add_square(part, rows.to(dtype))
    products.add_(part, alpha=math.ldexp(1.0, 2 * exponent))


def _add_square(products: Tensor, rows: Tensor) -> None:
    for left, right in panels(rows.shape[1]):
        products[left:right, :right].addmm_(rows[:, left:right].T, rows[:, :right])


def quadratic_forms(products: Tensor, vectors: Tensor) -> Tensor:
    """Return ``v^T P v`` for columns v, of a symmetric matrix P of which the panels are given."""
    image, weighted = [], vectors.clone()
    for left, right in panels(len(products)):
        image.append(products[left:right, :right] @ weighted[:right])
        if right < len(products):
            # What later panels hold before their diagonal blocks stands for its mirror image, too.
            weighted[left:right].mul_(2.0)
    return torch.cat(image).mul_(vectors).sum(dim=0)


def mirror(products: Tensor) -> Tensor:
    """Complete a symmetric matrix in place from its panels, and return it."""
    for left, right in panels(len(products)):
        products[:left, left:right] = products[left:right, :left].T
        square = products[left:right, left:right]  # symmetric but for rounding
        square.copy_((square + square.T) / 2)
    return products
