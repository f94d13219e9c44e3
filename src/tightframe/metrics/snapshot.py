"""Moments at rest: what metrics derive from class moments, computed once for all of them."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tightframe.metrics import moments as of
from tightframe.metrics.moments import Moments, blur, is_large, read_present
from tightframe.metrics.readings import Readings
from tightframe.metrics.rows import Rows
from tightframe.metrics.tall import BLOCK_ENTRIES, Matrix, Tall
from tightframe.saved import kept


@kept
class Snapshot(Readings):
    """Moments as they are now, which remember the K x D matrices derived from them.

    Of very many classes these matrices are `Tall`.

    Its tensors are those of the original, not copies: it is of no use after the next update. What
    it returns is not to be changed in place.
    """

    def __init__(self, moments: Moments, scatter: bool) -> None:
        self._moments, self._scatter = moments, scatter
        self._centered: dict[str, Matrix] = {}
        self._blur: dict[str, float] = {}

    @classmethod
    def of(cls, moments: Readings) -> Snapshot:
        """Return the snapshot of moments; of a snapshot itself.

        Moments keep theirs until they change, for the next metric, if each of its matrices takes
        at most 16 MiB.
        """
        if isinstance(moments, cls):
            return moments
        if moments._snapshot is not None:
            return moments._snapshot
        out = cls(moments.tensors(), moments.scatter)
        out.least = moments.least
        if moments.num_classes * (moments.dim or 0) <= BLOCK_ENTRIES:
            moments._snapshot = out
        return out

    def _packed(self) -> dict[str, Any]:
        return {"moments": self._moments, "scatter": self._scatter, "least": self.least}

    @classmethod
    def _unpacked(cls, fields: dict[str, Any]) -> Snapshot:
        found = cls(fields["moments"], fields["scatter"])
        found.least = fields["least"]
        return found

    def present(self) -> Snapshot:
        """Return the snapshot of a copy of the classes that have samples, unless it is `large`."""
        return Snapshot(read_present(self._moments), self._scatter)

    @property
    def large(self) -> bool:
        """Whether its K x D matrices are `Tall` and read from the tensors of the original."""
        return is_large(self._moments)

    @cached_property
    def missing(self) -> list[int]:
        """`ClassMoments.missing`."""
        return super().missing

    @cached_property
    def num_samples(self) -> int:
        """`ClassMoments.num_samples`."""
        return super().num_samples

    @cached_property
    def origin(self) -> Tensor:
        """`ClassMoments.origin`."""
        return super().origin

    @cached_property
    def means(self) -> Matrix:  # type: ignore[override]
        """`ClassMoments.means`."""
        if not self.large:
            return super().means
        self._require_all("means")
        return of.in_rows(self._moments, lambda rows: of.means(self._moments, rows))

    @cached_property
    def mean_errors(self) -> Tensor:
        """`ClassMoments.mean_errors`."""
        return super().mean_errors

    @cached_property
    def traces(self) -> Tensor:
        """`ClassMoments.traces`."""
        return super().traces

    @cached_property
    def _known_offsets(self) -> Matrix:
        if not self.large:
            return super()._offsets()
        self._require_samples("offsets")
        return of.in_rows(self._moments, lambda rows: of.offsets(self._moments, rows))

    def _offsets(self) -> Matrix:  # type: ignore[override]
        return self._known_offsets

    def centered_means(self, weighting: str = "class") -> Matrix:  # type: ignore[override]
        """`ClassMoments.centered_means`."""
        if weighting not in self._centered:
            offsets = self._offsets()
            if isinstance(offsets, Tall):
                self._require_all("centered_means")
                middle = self._mean_offset(weighting)
                self._centered[weighting] = offsets.map(lambda rows, _: rows - middle)
            else:
                self._centered[weighting] = super().centered_means(weighting)
        return self._centered[weighting]

    def blur(self, weighting: str = "class") -> float:
        """Return the rounding error of the global mean, as a length: root mean square of all."""
        if weighting not in self._blur:
            weights = None if weighting == "class" else self.shares(weighting)
            self._blur[weighting] = float(blur(self.mean_errors, weights))
        return self._blur[weighting]

    @cached_property
    def resolved_means(self) -> Rows:
        """The centred class means, exactly zero where all are nothing but rounding."""
        return self.resolved("class")

    def resolved(self, weighting: str) -> Rows:
        """Return the same with the global mean of a weighting taken off."""
        centered, blur = self.centered_means(weighting), self.blur(weighting)
        rows = Rows(centered, self.mean_errors + blur)
        if rows.norm > blur * math.sqrt(self.num_classes) / rows.scale:
            return rows
        return Rows(_masked(centered, torch.ones_like(rows.lengths, dtype=torch.bool)), rows.errors)

    @cached_property
    def centered_vectors(self) -> Rows:
        """The same, each row exactly zero that is nothing but rounding."""
        return _vectors(self.resolved_means)

    def vectors_from(self, weighting: str) -> Rows:
        """Return the same with the global mean of a weighting taken off."""
        return self.centered_vectors if weighting == "class" else _vectors(self.resolved(weighting))


def _vectors(rows: Rows) -> Rows:
    lost = rows.lengths <= (rows.errors if rows.scale == 1 else rows.errors / rows.scale)
    if not bool(lost.any()):
        return rows
    return Rows(_masked(rows.given, lost), rows.errors)


def _masked(matrix: Matrix, rows: Tensor) -> Matrix:
    """Return a matrix with zeros in some rows."""
    if isinstance(matrix, Tensor):
        return matrix.masked_fill(rows[:, None], 0.0)
    return matrix.map(lambda part, i: part.masked_fill(rows[i][:, None], 0.0))
