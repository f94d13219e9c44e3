"""Moments at rest: what metrics derive from class moments, computed once for all of them."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from tightframe.metrics.moments import BLOCK_ENTRIES, Moments, blur, of_present
from tightframe.metrics.readings import Readings
from tightframe.metrics.rows import Rows

#: Larger matrices of offsets are not kept, 256 MiB.
_KEPT = 2**25


class Snapshot(Readings):
    """Moments as they are now, which remember the K x D matrices derived from them.

    Its tensors are those of the original, not copies: it is of no use after the next update. What
    it returns is not to be changed in place.
    """

    def __init__(self, moments: Moments, scatter: bool) -> None:
        self._moments, self._scatter = moments, scatter
        self._centered: dict[str, Tensor] = {}
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

    def present(self) -> Snapshot:
        """Return the snapshot of a copy of the classes that have samples."""
        return Snapshot(of_present(self._moments), self._scatter)

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
    def means(self) -> Tensor:
        """`ClassMoments.means`."""
        return super().means

    @cached_property
    def mean_errors(self) -> Tensor:
        """`ClassMoments.mean_errors`."""
        return super().mean_errors

    @cached_property
    def traces(self) -> Tensor:
        """`ClassMoments.traces`."""
        return super().traces

    @cached_property
    def _known_offsets(self) -> Tensor:
        return super()._offsets()

    def _offsets(self) -> Tensor:
        # Of very many classes the matrix is sooner computed again than kept.
        return self._known_offsets if self._moments.sums.numel() <= _KEPT else super()._offsets()

    def centered_means(self, weighting: str = "class") -> Tensor:
        """`ClassMoments.centered_means`."""
        if weighting not in self._centered:
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
        return Rows(torch.zeros_like(centered), rows.errors)

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
    return Rows(rows.given.masked_fill(lost[:, None], 0.0), rows.errors)
