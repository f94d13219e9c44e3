"""Moments and decisions of several layers, gathered batch by batch and merged over processes."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tightframe.capture.passes import Reading
from tightframe.capture.sample import Sample
from tightframe.checks import number_of
from tightframe.data.batches import Reduction, sample_rows
from tightframe.metrics.answers import Answers
from tightframe.metrics.class_moments import ClassMoments
from tightframe.metrics.decisions import Decisions
from tightframe.metrics.plain import plain_tensors
from tightframe.metrics.report import CollapseReport, counted
from tightframe.metrics.targets import HeadKind, Target
from tightframe.problem.labels import all_ignored
from tightframe.problem.problem import Problem

#: Wider layers are refused: their D x D scatter matrix would be above 512 MiB.
MAX_LAYER_WIDTH = 8192

#: Label of samples that do not count, where there is no such label.
_REPEATED = torch.iinfo(torch.int64).min

#: Ridge of `least_squares_classifier`, as a share of the mean eigenvalue of the covariance.
PROBE_RIDGE = 1e-6


class NonFiniteFeatures(ValueError):  # noqa: N818  (the ValueError is what callers know)
    """A batch has features that are NaN or infinite: training diverged, or 16 bits overflowed."""


class LayerMoments:
    """Moments of several layers whose features come from the same batches.

    What `collapse_report` and the tools that attach to a running loop have in common.

    Parameters
    ----------
    num_classes : int
        Number of classes K.
    names : sequence of str
        Names of the layers.
    reduce : str, callable, or mapping
        As in `collapse_report`.
    scatter : bool
        As for `ClassMoments`.
    ignore_index : int or None
        Samples with this label are left out.
    sample : Sample, optional
        Keeps some rows of the last of the layers; what it had is dropped.

    Attributes
    ----------
    moments : dict of str to ClassMoments
    unit : str or None
        Name of the layer whose rows are brought to unit length, where a head does.
    shifted : bool or None
        Whether the model predicts at every token the label of the next one; None until a batch of
        sequences has shown it.
    ignored : int
        Labels that are left out, of batches of which nothing else is left.
    """

    def __init__(
        self,
        num_classes: int,
        names: Sequence[str],
        *,
        reduce: Reduction | Mapping[str, Reduction] = "auto",
        scatter: bool = True,
        ignore_index: int | None = -100,
        sample: Sample | None = None,
    ) -> None:
        if not names:
            raise ValueError("layers: got no names, need at least one layer or a head")
        self.moments = {name: ClassMoments(num_classes, scatter=scatter) for name in names}
        self.unit: str | None = None
        self._ignore_index = ignore_index
        self.ignored = 0
        self.shifted: bool | None = None
        self._sample = sample
        if sample is not None:
            sample.clear(num_classes)
        if isinstance(reduce, Mapping):
            unknown = [name for name in reduce if name not in self.moments]
            if unknown:
                raise ValueError(
                    f"reduce: got {unknown[0]!r}, the measured layers are {', '.join(names)}"
                )
            self._reduce = {name: reduce.get(name, "auto") for name in names}
        else:
            self._reduce = dict.fromkeys(names, reduce)

    def rows(
        self,
        features: Mapping[str, Tensor],
        labels: Tensor,
        mask: Tensor | None = None,
        own: int | None = None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return rows (N, D) and labels (N,) of every layer, see `sample_rows`.

        ``own`` is how many samples of the batch, the first ones, count; None means all.
        """
        ignored, given = self._ignore_index, labels
        if own is not None and own < len(labels):
            ignored = _REPEATED if ignored is None else ignored
            labels = labels.long().clone()
            labels[own:] = ignored
        found = {
            name: sample_rows(
                features[name],
                labels,
                self._reduce[name],
                mask,
                ignore_index=ignored,
                name=name,
                shifted=bool(self.shifted),
            )
            for name in self.moments
        }
        if self._ignore_index is not None and not any(len(y) for _, y in found.values()):
            self.ignored += int((given[:own] == self._ignore_index).sum())
        if self.unit is not None:
            x, y = found[self.unit]
            found[self.unit] = nn.functional.normalize(x, dim=1), y
        return found

    def reduction(self, name: str) -> Reduction:
        """Return how the features of a layer become rows."""
        return self._reduce[name]

    def is_automatic(self, name: str) -> bool:
        """Tell whether it was left open how the features of a layer become rows."""
        return self._reduce[name] == "auto"

    def update(
        self,
        features: Mapping[str, Tensor],
        labels: Tensor,
        mask: Tensor | None = None,
        own: int | None = None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Add a batch and return its `rows`.

        Raises
        ------
        NonFiniteFeatures
            A ValueError, if a feature is NaN or infinite; no layer has then changed.
        ValueError
            If a shape or label is wrong, or a layer too wide.
        """
        rows = self.rows(features, labels, mask, own)
        for name, (x, _) in rows.items():
            low, high = torch.aminmax(x) if x.numel() else (0.0, 0.0)  # NaN if any entry is
            if not (math.isfinite(float(low)) and math.isfinite(float(high))):
                raise NonFiniteFeatures(f"features: those at {name!r} have NaN or infinite entries")
            if self.moments[name].scatter and x.shape[1] > MAX_LAYER_WIDTH:
                raise ValueError(
                    f"reduce: {name!r} gives rows of {x.shape[1]} columns, at most "
                    f"{MAX_LAYER_WIDTH} are measured; use reduce='pool', or layer_moments with "
                    "scatter=False"
                )
        for name, (x, y) in rows.items():
            self.moments[name].update(x, y)
        if self._sample is not None:
            self._sample.add(x, y)  # of the last
        return rows

    def require_samples(self, argument: str) -> None:
        """Refuse to go on without samples."""
        for name, moments in self.moments.items():
            if moments.num_samples == 0:
                raise self.nothing(argument, name)

    def nothing(self, argument: str, name: str) -> ValueError:
        """Return the error of a layer without samples."""
        if self.ignored:
            return all_ignored(f"{argument}: labels", self.ignored, self._ignore_index)
        return ValueError(
            f"{argument}: no batch seen, nothing with a label passed through {name!r}"
        )

    def synchronized(self) -> LayerMoments:
        """Return the moments of all processes of a ``torch.distributed`` group; all must call it.

        Every process gets the same sums, on the CPU; a process may have no samples. Outside such
        a group this is the object itself.
        """
        if not in_group():
            return self
        total = copy.copy(self)
        total.moments = {}
        for name, moments in self.moments.items():
            states: list[Any] = [None] * dist.get_world_size()
            state = {
                key: value.cpu() if isinstance(value, Tensor) else value
                for key, value in moments.state_dict().items()
            }
            dist.all_gather_object(states, state)
            # The order of the ranks is the same everywhere, and so is the rounding.
            kind: dict[str, Any] = {"scatter": moments.scatter, "device": "cpu"}
            merged = ClassMoments(moments.num_classes, **kind)
            for other in states:
                merged.merge(ClassMoments(moments.num_classes, **kind).load_state_dict(other))
            total.moments[name] = merged
        return total

    def at_least(self, min_count: int) -> LayerMoments:
        """Return the moments of the classes that have so many samples."""
        if min_count == 1:
            return self
        kept = copy.copy(self)
        kept.moments = {name: part.at_least(min_count) for name, part in self.moments.items()}
        return kept

    def reports(
        self,
        head: Reading,
        mismatch: Mismatch | None = None,
        *,
        targets: Target | Iterable[Target] | None = None,
        problem: Problem | None = None,
        class_names: Sequence[str] | None = None,
        center: str = "class",
    ) -> dict[str, CollapseReport]:
        """Return a report a layer; the head's has its own classifier, the others a probe's."""
        reports = {}
        for name, moments in self.moments.items():
            # A layer's probe has a bias, whether the network's head has one or not.
            kind = HeadKind(moments.counts.cpu().numpy(), head.bias is not None)
            options: dict[str, Any] = {
                "missing": "leave_out",
                "class_names": class_names,
                "center": center,
            }
            if targets is not None:
                options["targets"] = kind.pick(targets)
            if name == head.name:
                weight, bias = head.weight, head.bias
                options["problem"] = problem
                if head.factors and not moments.missing:
                    options["weights"] = list(head.factors)
            else:
                weight, bias = least_squares_classifier(moments)
            report = CollapseReport.measure(moments, weight, bias, **options)
            remarks = head.notes if name == head.name else ()
            report = replace(report, head=kind, remarks=remarks)
            if mismatch is not None:
                shares, answers = mismatch.shares(name), mismatch.answers(name)
                report = replace(report, numbers=report.numbers | shares, answers=answers)
            reports[name] = report
        return reports


class Mismatch:
    """NC4 of several layers: nearest class centre against the decision of the network's head.

    Parameters
    ----------
    moments : mapping of str to ClassMoments
        They give the class centres, so they must be complete.
    head : Reading
        Of one of the layers.
    """

    def __init__(self, moments: Mapping[str, ClassMoments], head: Reading) -> None:
        self._moments, self._head = moments, head
        self._weight, self._bias = head.weight, head.bias
        # A hidden layer decides nothing by itself.
        self._decisions = {
            name: Decisions(part, self._weight, self._bias)
            if name == head.name
            else Decisions(part)
            for name, part in moments.items()
        }
        self._totals: dict[str, dict[str, int]] | None = None
        self._all_answers: Answers | None = None

    def update(self, rows: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add a batch, given as the rows of `LayerMoments.rows`.

        Raises
        ------
        ValueError
            If a layer has another number of rows than the head, whose decisions then do not fit.
        """
        rows = {name: counted(self._moments[name], *pair) for name, pair in rows.items()}
        x, _ = rows[self._head.name]
        if not len(x):
            return
        decided: Tensor | None = None
        for name, (layer, labels) in rows.items():
            if name == self._head.name:
                self._decisions[name].update(layer, labels)
                continue
            if len(layer) != len(x):
                raise ValueError(
                    f"reduce: {name!r} gives {number_of(len(layer), 'row')} where the head "
                    f"decides on {len(x)}; "
                    "NC4 needs as many, or nc4=False"
                )
            if decided is None:
                logits = x.double() @ self._weight.to(x.device).double().T
                bias = 0 if self._bias is None else self._bias.to(logits)
                decided = (logits + bias).argmax(dim=1)
            self._decisions[name].update(layer, labels, decided)

    def shares(self, name: str) -> dict[str, Any]:
        """Return the fields of a layer's report that depend on decisions, None without samples."""
        count = self._count(name) if self._totals is None else self._totals[name]
        seen = count.pop("seen")
        shares: dict[str, Any] = {
            field: value / seen if seen else None for field, value in count.items()
        }
        answers = self.answers(name)
        return shares if answers is None else shares | {"num_lost": answers.num_lost}

    def answers(self, name: str) -> Answers | None:
        """Return what the head answers, by class; None for other layers and without samples."""
        if self._all_answers is not None and name == self._head.name:
            return self._all_answers or None
        return self._decisions[name].answers or None

    def check_counts(self) -> None:
        """Warn if the samples judged are not as many as those behind the centres."""
        for name, moments in self._moments.items():
            seen = self._decisions[name].num_samples
            if self._totals is not None:
                seen = self._totals[name]["seen"]
            if seen != moments.num_samples:
                warnings.warn(
                    f"loader: its second pass brought {seen} samples, the first "
                    f"{moments.num_samples}; NC4 judges the second's",
                    RuntimeWarning,
                    stacklevel=3,
                )
                return

    def synchronize(self) -> None:
        """Add what the other processes of a ``torch.distributed`` group counted."""
        if not in_group():
            return
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, {name: self._count(name) for name in self._decisions})
        self._totals = {
            name: {
                field: sum(part[name].get(field, 0) for part in parts)
                for field in {field: None for part in parts for field in part[name]}
            }
            for name in self._decisions
        }
        own = self._decisions[self._head.name].answers
        assert own is not None
        given: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(given, own)
        self._all_answers = Answers(own.num_classes)
        for other in given:
            self._all_answers.merge(other)

    def _count(self, name: str) -> dict[str, int]:
        """Return how many samples a layer has, and on how many a field of its report holds."""
        decisions = self._decisions[name]
        seen = decisions.num_samples
        if not seen:
            return {"seen": 0}
        shares = {"nearest_center_accuracy": decisions.nearest_center_accuracy}
        if name == self._head.name:
            shares |= {"nc4": decisions.nc4, "accuracy": decisions.accuracy}
        else:  # without `Decisions.nc4`'s warning: the centres of a hidden layer may well be tied
            shares |= {"nc4": decisions.differing / seen}
        return {"seen": seen} | {field: round(seen * share) for field, share in shares.items()}


@plain_tensors()
def least_squares_classifier(moments: ClassMoments) -> tuple[Tensor, Tensor]:
    """Return the linear classifier that fits one-hot labels best, from the moments alone.

    It minimises ``(1/N) sum_i ||W h_i + b - e_{y_i}||^2 + r ||W||^2``, with a ridge r of
    `PROBE_RIDGE` times the mean eigenvalue of the features' covariance: the least-squares probe of
    a layer (Webb & Lowe 1990), and what a last layer
    trained with MSE converges to (Han, Papyan, Donoho 2022, https://arxiv.org/abs/2106.02073).

    Parameters
    ----------
    moments : ClassMoments
        With ``scatter=True``.

    Returns
    -------
    weight : Tensor, shape (K, D), float64
        Zero if all features are equal, and in the rows of classes without samples.
    bias : Tensor, shape (K,), float64

    Raises
    ------
    ValueError
        If there are no samples or no scatter matrix.
    """
    shares = moments.shares("sample")
    kept = shares > 0
    part = moments.present() if moments.missing else moments
    centered = part.centered_means("sample")
    middle = part.global_mean("sample")
    covariance = part.within() + part.between("sample")
    size = float(covariance.diagonal().mean())
    weight = centered.new_zeros(moments.num_classes, centered.shape[1])
    if size > 0 and math.isfinite(size):
        covariance.diagonal().add_(PROBE_RIDGE * size)
        targets = shares[kept][:, None] * centered
        weight[kept] = torch.linalg.solve(covariance, targets.T).T
    return weight, shares - weight @ middle


def in_group() -> bool:
    """Whether this process is one of several of a ``torch.distributed`` group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def share_error(error: ValueError | None) -> None:
    """Raise what any process of a ``torch.distributed`` group ran into; all must call it."""
    if in_group():
        errors: list[Any] = [None] * dist.get_world_size()
        own = None if error is None else (isinstance(error, NonFiniteFeatures), str(error))
        dist.all_gather_object(errors, own)
        for rank, other in enumerate(errors):
            if other is not None:
                kind = NonFiniteFeatures if other[0] else ValueError
                raise kind(f"{other[1]} (process {rank})") from error
    if error is not None:
        raise error
