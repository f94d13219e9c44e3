"""Moments at rest: what metrics derive from class moments, computed once for all of them."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from tightframe.metrics.moments import BLOCK_ENTRIES, ClassMoments


class Snapshot(ClassMoments):
    """Class moments as they are now, which remember the K x D matrices derived from them.

    Its tensors are those of the original, not copies: it is of no use after the next update. What
    it returns is not to be changed in place.
    """

    @classmethod
    def of(cls, moments: ClassMoments) -> Snapshot:
        """Return the snapshot of moments; of a snapshot itself.

        Moments keep theirs until they change, for the next metric, if each of its matrices takes
        at most 16 MiB.
        """
        if isinstance(moments, cls):
            return moments
        if moments._snapshot is not None:
            return moments._snapshot
        out = cls.__new__(cls)
        out.__dict__.update(moments.__getstate__(), _centered={}, _missing=moments.missing)
        if moments.num_classes * (moments.dim or 0) <= BLOCK_ENTRIES:
            moments._snapshot = out
        return out

    _centered: dict[str, Tensor]
    _missing: list[int]

    @property
    def missing(self) -> list[int]:
        """`ClassMoments.missing`."""
        return self._missing

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
        return self._known_offsets

    def centered_means(self, weighting: str = "class") -> Tensor:
        """`ClassMoments.centered_means`."""
        if weighting not in self._centered:
            self._centered[weighting] = super().centered_means(weighting)
        return self._centered[weighting]
