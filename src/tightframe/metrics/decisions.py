"""NC4, NC5 and the bias: what the network decides, and how that follows from the class means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tightframe.checks import number_of
from tightframe.data.batches import as_tensor
from tightframe.metrics.answers import Answers
from tightframe.metrics.inputs import (
    as_array,
    classifier,
    require_complete,
    usable,
    warn,
)
from tightframe.metrics.moments import EPS
from tightframe.metrics.plain import plain_tensors
from tightframe.metrics.readings import Readings
from tightframe.metrics.samples import checked_features
from tightframe.metrics.snapshot import Snapshot
from tightframe.metrics.tall import (
    Matrix,
    dense,
    lengths,
    mean_row,
    row_blocks,
    weighted_sum,
)
from tightframe.problem.problem import Problem
from tightframe.shown import record
from tightframe.theory.certificate import certify

#: Most scores of a sample that are computed at a time.
_FEW_COLUMNS = 2048


@plain_tensors()
def nc4(features: Any, moments: Readings, weight: Any, bias: Any = None) -> float:
    """Return NC4, the share of samples on which classifier and nearest class centre differ.

    Parameters
    ----------
    features : tensor or array_like, shape (B, D), B >= 1
        The samples to be judged; they need not be those of ``moments``. For more than fit into
        memory, and for shares by class, see `Decisions`.
    moments : ClassMoments
        Gives the class centres. Classes without samples have none, with a RuntimeWarning.
    weight : tensor or array_like, shape (K, D)
        Classifier; a Parameter is fine.
    bias : tensor or array_like, shape (K,), optional
        Its bias, part of the decision.

    Returns
    -------
    float
        Between 0 and 1. A sample whose largest logit, or whose nearest centre, is tied to within
        float64 rounding has no decision: it counts as differing, with a RuntimeWarning.

    Raises
    ------
    ValueError
        If there is no sample, a shape is wrong, an entry is not finite, or fewer than two classes
        have a centre.
    """
    decisions = Decisions(moments, weight, bias)
    return decisions.update(features).nc4


@record
class Decisions:
    """Compare the classifier's decisions with the nearest class centre's, batch by batch.

    Parameters
    ----------
    moments : ClassMoments
        Gives the class centres, as they are now. Classes without samples have none, with a
        RuntimeWarning.
    weight : tensor or array_like, shape (K, D), optional
        Linear classifier. Without it every `update` must be given the network's decisions.
    bias : tensor or array_like, shape (K,), optional
        Part of the classifier's decision.

    Raises
    ------
    ValueError
        If a shape is wrong, an entry is not finite, or fewer than two classes have a centre.

    Notes
    -----
    Papyan et al. (2020), NC4. A sample whose largest logit, or whose nearest centre, is tied to
    within float64 rounding has no decision: it counts as differing from everything. Memory is two
    K x D arrays (none where they would take more than 256 MiB each: the moments and the classifier
    are then read again for every thousand samples), a few blocks of 16 MiB, and 12 bytes for every
    labelled sample's margin.
    """

    @plain_tensors()
    def __init__(self, moments: Readings, weight: Any = None, bias: Any = None) -> None:
        given = None if weight is None else classifier(moments, weight, bias)
        self._classifier = given
        self._longest = 0.0 if given is None else float(lengths(given[0]).max())
        self._kept = torch.nonzero(moments.counts)[:, 0]
        own = usable(moments, "nc4")
        if own.large:
            moments.share()  # the centres are computed from its tensors
        self._origin, self._middle = own.origin, mean_row(own.offsets)
        self._centers = own.centered_means()
        self._lengths = lengths(self._centers)
        self._blur = float(own.mean_errors.max())
        self._num_samples = self._differing = self._undecided = 0
        self._answers = None if given is None else Answers(moments.num_classes)
        # By class of the labels: samples, differing, classifier right, nearest centre right.
        self._by_class = torch.zeros(4, moments.num_classes, dtype=torch.int64)

    @plain_tensors()
    def update(self, features: Any, labels: Any = None, decisions: Any = None) -> Decisions:
        """Judge a batch of samples.

        Parameters
        ----------
        features : tensor or array_like, shape (B, D)
        labels : tensor or array_like, shape (B,) or (B, 1), optional
            Classes from 0 to K - 1, for accuracies and shares by class.
        decisions : tensor or array_like, shape (B,), optional
            The classes that the network decided on, in place of the linear classifier's.

        Returns
        -------
        Decisions
            This object.

        Raises
        ------
        ValueError
            If a shape, type or label is wrong, or a feature is not finite.
        """
        centers, device = self._centers, self._centers.device
        k = self._by_class.shape[1]
        x = checked_features(features, centers.shape[1])
        y = None if labels is None else _classes("labels", labels, len(x), k)
        if decisions is None and self._classifier is None:
            raise ValueError("decisions: missing; this object has no classifier to make them")
        given = None if decisions is None else _classes("decisions", decisions, len(x), k)
        longest = float(self._lengths.max())
        rounding = 8 * EPS * math.sqrt(x.shape[1])
        for block in row_blocks(len(x), max(min(k, _FEW_COLUMNS), x.shape[1])):
            rows = x[block].to(device).double()
            shifted = (rows - self._origin) - self._middle
            # ||x||^2 is common to all centres: the nearest one has the largest 2 x.c - ||c||^2.
            best, columns, _ = _best_two(2 * shifted, centers, -self._lengths.square())
            reach = 2 * torch.linalg.vector_norm(shifted, dim=1) + longest
            slack = reach * (rounding * longest + 2 * self._blur)
            nearest, no_nearest = self._kept[columns[:, 0]], best[:, 0] - best[:, 1] <= slack
            if given is not None:
                chosen, no_choice = given[block].to(device), torch.zeros_like(no_nearest)
            else:
                chosen, no_choice = self._choose(rows, rounding, None if y is None else y[block])
            tied = no_choice | no_nearest
            differing = tied | (chosen != nearest)
            self._undecided += int(tied.sum())
            self._differing += int(differing.sum())
            self._num_samples += len(rows)
            if y is not None:
                own = y[block].cpu()
                right = (chosen.cpu() == own) & ~no_choice.cpu()
                near = (nearest.cpu() == own) & ~no_nearest.cpu()
                flags = (torch.ones_like(own), differing.cpu(), right, near)
                for counts, flag in zip(self._by_class, flags, strict=True):
                    counts.index_add_(0, own, flag.long())
        return self

    def _choose(
        self, rows: Tensor, rounding: float, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the classifier's decisions, and which are ties; tally what labels say of them."""
        assert self._classifier is not None
        assert self._answers is not None
        w, b = self._classifier
        w_length = self._longest
        size = torch.linalg.vector_norm(rows, dim=1) * w_length + float(b.abs().max())
        slack, own = rounding * size, None if labels is None else labels.to(rows.device)
        best, columns, given = _best_two(rows, w, b, own)
        if own is not None and given is not None:
            second = (columns[:, 0] == own).long()[:, None]  # then the other one is the second best
            margins = given[:, None] - best.gather(1, second)
            rivals = columns.gather(1, second)
            tallied = (own, rivals[:, 0], margins[:, 0], slack)
            self._answers.add(*(part.cpu().numpy() for part in tallied))
        return columns[:, 0], best[:, 0] - best[:, 1] <= slack

    @property
    def num_samples(self) -> int:
        """Samples judged."""
        return self._num_samples

    @property
    def differing(self) -> int:
        """Samples on which the two differ, those with a tie among them."""
        return self._differing

    @property
    def undecided(self) -> int:
        """Samples with a tie; they count as differing."""
        return self._undecided

    @property
    def nc4(self) -> float:
        """Share of samples on which the two differ; warns of ties.

        Raises
        ------
        ValueError
            If there are no samples.
        """
        if not self._num_samples:
            raise ValueError("features: got no samples, NC4 needs at least one")
        if self._undecided:
            warn(
                f"nc4: {self._undecided} of {self._num_samples} samples are tied; "
                "they count as differing",
                5,
            )
        return self._differing / self._num_samples

    @property
    def by_class(self) -> NDArray[np.float64]:
        """NC4 of the labelled samples of every class, shape (K,); NaN where there are none."""
        return self._shares(1)

    @property
    def accuracy(self) -> float:
        """Share of the labelled samples that the classifier gets right; NaN without labels."""
        return self._share(2)

    @property
    def nearest_center_accuracy(self) -> float:
        """Share of the labelled samples whose nearest centre is their own; NaN without labels."""
        return self._share(3)

    @property
    def answers(self) -> Answers | None:
        """What the classifier answers on labelled samples, by class: accuracies, margins, rivals.

        None without a classifier; without samples where every batch was given decisions.
        """
        return self._answers

    @property
    def class_accuracy(self) -> NDArray[np.float64]:
        """Share of the labelled samples of every class that are right, (K,); NaN without any."""
        return self._shares(2)

    def _shares(self, row: int) -> NDArray[np.float64]:
        seen = self._by_class[0].double()
        return as_array(torch.where(seen > 0, self._by_class[row] / seen, math.nan))

    def _share(self, row: int) -> float:
        seen = int(self._by_class[0].sum())
        return int(self._by_class[row].sum()) / seen if seen else math.nan


def _best_two(
    rows: Tensor, vectors: Matrix, lift: Tensor, own: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the two largest scores ``<x, v_k> + lift_k`` of every row, and whose they are.

    Shapes (B, 2); also the scores of the rows' own classes, (B,), if these are given.
    """
    best, columns, given = None, None, None
    for start in range(0, len(vectors), _FEW_COLUMNS):
        part = slice(start, start + _FEW_COLUMNS)
        scores = torch.addmm(lift[part], rows, vectors[part].T)
        if own is not None:
            given = rows.new_zeros(len(rows)) if given is None else given
            here = torch.nonzero((own >= start) & (own < start + _FEW_COLUMNS))[:, 0]
            given[here] = scores[here, own[here] - start]
        found, places = scores.topk(min(2, scores.shape[1]), dim=1)
        places = places + start
        if best is None or columns is None:
            best, columns = found, places
        else:
            best, order = torch.cat([best, found], dim=1).topk(2, dim=1)
            columns = torch.cat([columns, places], dim=1).gather(1, order)
    assert best is not None
    assert columns is not None
    return best, columns, given


def _classes(name: str, values: Any, batch: int, num_classes: int) -> Tensor:
    y = as_tensor(name, values)
    if y.numel() != batch or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(
            f"{name}: got {y.dtype} of shape {tuple(y.shape)}, need ({batch},) whole numbers"
        )
    y = y.reshape(-1).long()
    if batch and not (int(y.min()) >= 0 and int(y.max()) < num_classes):
        raise ValueError(
            f"{name}: got {int(y.min())} to {int(y.max())}, allowed are 0 to {num_classes - 1}"
        )
    return y


@plain_tensors()
def bias_alignment(
    moments: Readings, weight: Any, bias: Any = None, weighting: str = "class"
) -> float:
    """Return ``||b + W mu||_2``: 0 when the bias only undoes the global mean mu.

    NC4 as Zhu et al. (2021) plot it, in units of the logits.

    Parameters
    ----------
    moments : ClassMoments
        Classes without samples are left out of the mean with a RuntimeWarning.
    weight : array_like, shape (K, D)
    bias : array_like, shape (K,), optional
        0 if omitted.
    weighting : {"class", "sample"}
        Of the global mean.

    Raises
    ------
    ValueError
        If a shape is wrong, an entry is not finite, or fewer than two classes have samples.
    """
    w, b = classifier(moments, weight, bias)
    own = usable(moments, "bias_alignment")
    return float(torch.linalg.vector_norm(b + w @ own.global_mean(weighting)))


@plain_tensors()
def nc5(moments: Readings, ood: Any, *, centered: bool = True) -> float:
    """Return NC5, how far the mean of foreign data is from orthogonal to the class means.

    The mean over classes of ``|cos(mu_k, mu_OOD)|``: 0 when out-of-distribution (OOD) samples
    lie, on average, orthogonal to every class (Ammar et al. 2024,
    https://arxiv.org/abs/2310.06823).

    Parameters
    ----------
    moments : ClassMoments
        Of the training data. Classes without samples are left out with a RuntimeWarning.
    ood : ClassMoments or array_like, shape (B, D) or (D,)
        OOD samples, or their mean; of moments the mean over all samples.
    centered : bool
        Take both from the class-averaged global mean of ``moments``. False takes them from zero.

    Returns
    -------
    float
        From 0 to 1. NaN, with a RuntimeWarning, if the OOD mean has no direction or no class mean
        has one; class means that have none are left out with a RuntimeWarning.

    Raises
    ------
    ValueError
        If a width differs, there are no OOD samples, or fewer than two classes have samples.
    """
    own = usable(moments, "nc5")
    mean = _ood_mean(own, ood)
    errors = own.mean_errors
    if centered:
        # Through the origin, near which all means lie: far from zero nothing is lost.
        shares, origin = own.shares(), own.origin
        blur = 4 * EPS * float(torch.linalg.vector_norm(origin) + torch.linalg.vector_norm(mean))
        means = dense(own.resolved_means.given)
        mean = (mean - origin) - weighted_sum(shares, own.offsets)
        errors = errors + errors.square().mean().sqrt()
    else:
        means, blur = dense(own.means), 0.0
    length = float(torch.linalg.vector_norm(mean))
    if length <= blur:
        warn("nc5: the mean of the OOD samples has no direction")
        return math.nan
    lengths = torch.linalg.vector_norm(means, dim=1)
    real = lengths > errors
    if not bool(real.any()):
        warn("nc5: no class mean has a direction")
        return math.nan
    if not bool(real.all()):
        warn(f"nc5: {int((~real).sum())} class means have no direction and are left out")
    cosines = (means[real] / lengths[real, None]) @ (mean / length)
    return float(cosines.abs().clamp(max=1.0).mean())


def _ood_mean(moments: Readings, ood: Any) -> Tensor:
    """Return the mean of the OOD samples, shape (D,), on the moments' device."""
    if isinstance(ood, Readings):
        if not ood.num_samples:
            raise ValueError("ood: got no samples, NC5 needs at least one")
        mean: Tensor = Snapshot.of(ood).present().global_mean("sample")
        if len(mean) != moments.dim:
            raise ValueError(f"ood: got {number_of(len(mean), 'column')}, need {moments.dim}")
    else:
        x = as_tensor("ood", ood)
        x = x[None] if x.ndim == 1 else x
        try:
            x = checked_features(x, moments.dim)
        except ValueError as error:
            raise ValueError(f"ood: {error}") from None
        if not len(x):
            raise ValueError("ood: got no samples, NC5 needs at least one")
        mean = x[:1].double()
        # Differences from a sample: means far from zero keep their digits.
        mean = (mean + (x.double() - mean).mean(dim=0, keepdim=True))[0]
    return mean.to(moments.device)


@plain_tensors()
def certificate_gap(
    problem: Problem,
    moments: Readings,
    weight: Any,
    bias: Any = None,
    *,
    lower_bound: float | None = None,
) -> float:
    """Return how far the class means' mean logits are from the certified optimum.

    The objective of the logits ``W mu_k`` with their cheapest factors, less a lower bound of the
    problem's minimum: an upper bound of what training could still gain by moving these logits.

    Parameters
    ----------
    problem : Problem
        One that `tightframe.certify` covers, with as many classes. The objective weighs the classes
        by its counts.
    moments : ClassMoments
        Every class must have samples. How many does not matter, so that the means may be those of
        a part of the training set.
    weight : array_like, shape (K, D)
        Classifier, the product of the layers where there are several.
    bias : array_like, shape (K,), optional
        Only where the problem has one.
    lower_bound : float, optional
        A known lower bound, for example ``tf.solve(problem).lower_bound``; the bound that follows
        from the candidate alone is loose for a poor one.

    Returns
    -------
    float
        At least 0, in the unit of the loss (nats for cross-entropy).

    Raises
    ------
    ValueError
        As `tightframe.certify`, or if a class has no samples.
    """
    w, b = classifier(moments, weight, bias)
    require_complete(moments)
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    if problem.num_classes != moments.num_classes:
        raise ValueError(
            f"problem: got one of {problem.num_classes} classes, need {moments.num_classes}"
        )
    logits = as_array(dense(w) @ moments.means.T)
    given = None if bias is None else as_array(b)
    return certify(problem, logits, given, lower_bound=lower_bound).gap
