"""Rows (K, D), class means or classifier, with products that several metrics derive from them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tightframe.metrics.tall import Matrix, Tall, dense, largest_entry, lengths, smaller_gram
from tightframe.saved import kept

#: Entries up to here, and down to its reciprocal, have fourth powers that can be summed.
_SAFE_ENTRY = 1e50


@kept
class Rows:
    """Rows (K, D), whose lengths and Gram matrix are computed once.

    Parameters
    ----------
    given : Tensor or Tall, shape (K, D), float64
    errors : Tensor, shape (K,), optional
        Their rounding errors, as lengths; none by default.
    largest : float, optional
        Their largest absolute entry, where it is known.

    Attributes
    ----------
    given : Tensor or Tall
    largest : float
        Largest absolute entry; NaN if there is any.
    scale : float
        1, unless products of the entries would over- or underflow: then the largest.
    scaled : Tensor or Tall, shape (K, D), float64
        The rows over the scale. Lengths and products are of these.
    """

    def __init__(
        self, given: Matrix, errors: Tensor | None = None, largest: float | None = None
    ) -> None:
        self.given, self._errors = given, errors
        self.largest = largest_entry(given) if largest is None else largest
        safe = not self.largest or 1 / _SAFE_ENTRY < self.largest < _SAFE_ENTRY
        self.scale = 1.0 if safe else self.largest
        self.scaled: Matrix = given
        if not safe:
            over = self.largest
            if isinstance(given, Tall):
                self.scaled = given.map(lambda rows, _: rows / over)
            else:
                self.scaled = given / over

    def _packed(self) -> dict[str, Any]:
        return {"given": dense(self.given), "errors": self._errors, "largest": self.largest}

    @property
    def errors(self) -> Tensor:
        """Of the given rows, shape (K,)."""
        return self.given.new_zeros(len(self.given)) if self._errors is None else self._errors

    @cached_property
    def lengths(self) -> Tensor:
        """Shape (K,)."""
        return lengths(self.scaled)

    @cached_property
    def norm(self) -> float:
        """Frobenius norm."""
        return float(torch.linalg.vector_norm(self.lengths))

    @cached_property
    def gram(self) -> Tensor:
        """``X X^T``, (K, K), or ``X^T X``, (D, D), whichever is smaller."""
        return smaller_gram(self.scaled)

    @cached_property
    def gram_norm(self) -> float:
        """Frobenius norm of either Gram matrix."""
        return float(torch.linalg.matrix_norm(self.gram))
