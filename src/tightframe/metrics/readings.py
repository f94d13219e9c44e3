"""What can be read off class moments, with the refusals of what they do not determine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tightframe.checks import choice, first_few
from tightframe.metrics import moments as of
from tightframe.metrics.moments import WEIGHTINGS, Moments
from tightframe.metrics.plain import plain_tensors
from tightframe.metrics.tall import mean_row, weighted_sum

if TYPE_CHECKING:
    from tightframe.metrics.snapshot import Snapshot


class Readings:
    """Sizes, means and covariances of moments: what `ClassMoments` and its snapshots share."""

    _moments: Moments
    _scatter: bool
    _snapshot: Snapshot | None = None  # what metrics derived from these moments, see `Snapshot.of`
    least: int = 1  # samples that a class needs to count

    def tensors(self) -> Moments:
        """Return the state itself, not a copy; `ClassMoments.state_dict` is for everyone else."""
        return self._moments

    def share(self) -> Moments:
        """Return the state as it is now for good: whatever comes later is added to a copy."""
        return self.tensors()

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self._moments.counts)

    @property
    def dim(self) -> int | None:
        """Width D of the features, None while unknown."""
        return self._moments.anchors.shape[1] or None

    @property
    def scatter(self) -> bool:
        """Whether the pooled D x D matrix is kept."""
        return self._scatter

    @property
    def device(self) -> torch.device:
        """Where the sums live."""
        return self._moments.counts.device

    @property
    def num_samples(self) -> int:
        """Number of samples N."""
        return int(self._counts().sum())

    @property
    def num_ignored(self) -> int:
        """Number of rows left out because of their label, ``ignore_index``."""
        return int(self._moments.ignored)

    @property
    def num_dropped(self) -> int:
        """Number of rows dropped because of a NaN, infinite or too large entry."""
        return int(self._moments.dropped)

    @property
    @plain_tensors()
    def counts(self) -> Tensor:
        """Samples of every class, shape (K,), int64."""
        return self._counts().clone()

    @property
    def missing(self) -> list[int]:
        """Classes without samples, in order."""
        counts = self._counts()
        if int(counts.min()) > 0:
            return []
        return [int(k) for k in torch.nonzero(counts == 0)]

    @property
    @plain_tensors()
    def means(self) -> Tensor:
        """Class means, shape (K, D), float64.

        Raises
        ------
        ValueError
            If a class has no samples (see `ClassMoments.present`); this goes for the properties
            below too.
        """
        self._require_all("means")
        return of.means(self.tensors())

    @property
    @plain_tensors()
    def origin(self) -> Tensor:
        """Where `offsets` are taken from: the first sample of the first class, shape (D,)."""
        self._require_samples("origin")
        return of.origin(self.tensors()).clone()

    @property
    @plain_tensors()
    def offsets(self) -> Tensor:
        """Class means less `origin`, shape (K, D), float64.

        Differences of means keep all their digits here when the features are far from zero.
        """
        self._require_all("offsets")
        return self._offsets()

    @property
    @plain_tensors()
    def mean_errors(self) -> Tensor:
        """Estimated rounding error of every row of `offsets`, shape (K,), as a length.

        ``2 eps (sqrt(n_k) r_k + ||offset||)`` with r_k the root mean square distance of the class
        from its anchor: n_k float64 additions of terms of that size, by random-walk rounding.
        """
        return of.mean_errors(self.tensors(), self.offsets)

    @plain_tensors()
    def global_mean(self, weighting: str = "class") -> Tensor:
        """Return the mean of the class means, shape (D,), float64.

        Parameters
        ----------
        weighting : {"class", "sample"}
            ``"class"`` averages the K means alike, ``"sample"`` is the mean of all samples.

        Raises
        ------
        ValueError
            If there are no samples, or, with ``"class"``, if a class has none.
        """
        mean: Tensor = self.origin + self._mean_offset(weighting)
        return mean

    @plain_tensors()
    def centered_means(self, weighting: str = "class") -> Tensor:
        """Return the class means less their `global_mean`, shape (K, D), float64."""
        self._require_all("centered_means")
        return self._offsets() - self._mean_offset(weighting)

    @property
    @plain_tensors()
    def traces(self) -> Tensor:
        """Trace of every class's covariance, its mean squared distance to its mean, (K,)."""
        self._require_all("traces")
        return of.traces(self.tensors())

    @plain_tensors()
    def within(self) -> Tensor:
        """Return the within-class covariance Sigma_W, shape (D, D), float64.

        ``(1/N) sum_i (h_i - mu_{y_i})(h_i - mu_{y_i})^T``, an average over samples.

        Raises
        ------
        ValueError
            If it was not kept (``scatter=False``) or there are no samples.
        """
        self._require_scatter("within")
        return of.within(self.tensors())

    @plain_tensors()
    def within_inner(self, matrix: Tensor) -> Tensor:
        """Return ``tr(Sigma_W M)`` of a symmetric matrix M, a number.

        The same as from `within`, without another D x D matrix.

        Parameters
        ----------
        matrix : Tensor, shape (D, D), float64
            On the device of the sums.

        Raises
        ------
        ValueError
            As `within`.
        """
        self._require_scatter("within_inner")
        return of.within_inner(self.tensors(), matrix)

    @plain_tensors()
    def within_along(self, directions: Tensor) -> Tensor:
        """Return the within-class variances ``v^T Sigma_W v`` along directions v, shape (R,).

        The same as from `within`, without another D x D matrix.

        Parameters
        ----------
        directions : Tensor, shape (D, R), float64
            As columns, on the device of the sums.

        Raises
        ------
        ValueError
            As `within`.
        """
        self._require_scatter("within_along")
        return of.within_along(self.tensors(), directions)

    @plain_tensors()
    def between(self, weighting: str = "class") -> Tensor:
        """Return the between-class covariance Sigma_B, shape (D, D), float64.

        ``sum_k p_k (mu_k - mu)(mu_k - mu)^T`` with the `shares` p and the `global_mean` mu of the
        same weighting.
        """
        centered = self._offsets() - self._mean_offset(weighting)
        return centered.T @ (centered * self.shares(weighting)[:, None])

    @plain_tensors()
    def shares(self, weighting: str = "class") -> Tensor:
        """Return the classes' weights p, shape (K,), float64: 1/K, or n_k/N.

        Raises
        ------
        ValueError
            If there are no samples, or, with ``"class"``, if a class has none.
        """
        choice("weighting", weighting, WEIGHTINGS)
        self._require_samples("shares")
        if weighting == "class":
            self._require_all("weighting 'class'")
        return of.shares(self.tensors(), weighting)

    def describe_missing(self) -> str:
        """Return in words which classes have no samples, or too few to count."""
        return describe_missing(self.missing, self.least)

    # -- inside --------------------------------------------------------------------------------

    def _counts(self) -> Tensor:
        return self._moments.counts

    def _offsets(self) -> Tensor:
        self._require_samples("offsets")
        return of.offsets(self.tensors())

    def _mean_offset(self, weighting: str) -> Tensor:
        """Return the global mean less `origin`."""
        if weighting == "class":
            self._require_all("weighting 'class'")
            return mean_row(self._offsets())
        return weighted_sum(self.shares(weighting), self._offsets())

    def _require_scatter(self, what: str) -> None:
        if not self._scatter:
            raise ValueError("scatter: got False, Sigma_W needs ClassMoments(..., scatter=True)")
        self._require_samples(what)

    def _require_samples(self, what: str) -> None:
        if self.num_samples == 0:
            raise ValueError(f"{what}: no samples were gathered; call update() first")

    def _require_all(self, what: str) -> None:
        if self.missing:
            self._require_samples(what)
            raise ValueError(
                f"{what}: {self.describe_missing()}; every class needs one, or use present()"
            )


def describe_missing(classes: Sequence[int], least: int = 1) -> str:
    """Return which classes are without samples, or have fewer than ``least``, in words."""
    few = "without samples" if least == 1 else f"of fewer than {least} samples"
    return f"{describe_classes(list(classes))} {few}"


def describe_classes(classes: Sequence[int | str], limit: int = 10) -> str:
    """Return ``"class 3 is"`` or ``"classes 3, 5 are"``, shortened where there are many."""
    if len(classes) == 1:
        return f"class {classes[0]} is"
    return f"classes {first_few([str(k) for k in classes], limit)} are"
