"""`CollapseReport`: everything that class moments and a classifier say about neural collapse."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tightframe.checks import MAX_DENSE_CLASSES, choice, require_dense
from tightframe.data.batches import as_tensor
from tightframe.files import format_json, replacing
from tightframe.geometry.blocks import Array
from tightframe.geometry.dense import PARTS, Geometry, product_of
from tightframe.geometry.grouped import GroupedGeometry
from tightframe.metrics.angles import GroupAngles, group_angles
from tightframe.metrics.answers import Answers
from tightframe.metrics.class_moments import ClassMoments
from tightframe.metrics.classes import ClassTable, table_of
from tightframe.metrics.decisions import Decisions
from tightframe.metrics.frames import LayerMetrics, layer_metrics, measured_geometry
from tightframe.metrics.inputs import (
    as_array,
    classifier,
    layer_list,
    require_moments,
    usable,
)
from tightframe.metrics.moments import WEIGHTINGS
from tightframe.metrics.plain import plain_tensors
from tightframe.metrics.readings import Readings, describe_missing
from tightframe.metrics.registry import (
    BY_KEY,
    CENTERINGS,
    LEADING,
    VECTOR_PARTS,
    Descriptor,
    of_fan,
)
from tightframe.metrics.snapshot import Snapshot
from tightframe.metrics.source import Source, Vectors
from tightframe.metrics.tall import Matrix, Tall, dense, lengths
from tightframe.metrics.targets import (
    TARGET_PARTS,
    HeadKind,
    Target,
    as_target,
    target_name,
)
from tightframe.problem.class_names import NamesLike, given_names
from tightframe.problem.problem import Problem, with_loss_terms
from tightframe.saved import Saved, kept
from tightframe.shown import Block, Shown, draw, plot, record

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from tightframe.figures.table import Table as Rows

#: More groups than this are not listed in the rows of a report.
MAX_LISTED_GROUPS = 8

_NO_PART = ""


@record
class MetricRow(NamedTuple):
    """One number of a report.

    Attributes
    ----------
    metric : str
        For example ``"nc2"``.
    part : str
        What was measured, for example ``"classifier"``; empty for the network as a whole.
    target : str
        What it was compared with, for example ``"simplex ETF"``, or the groups of classes that it
        is about, ``"group 100"``; empty if neither. Only ``nc2`` and ``nc3`` are distances to it.
    value : float
    """

    metric: str
    part: str
    target: str
    value: float

    @property
    def kind(self) -> str:
        """What the number is: ``"distance"`` (0 to 2), ``"cosine"`` (-1 to 1), ``"share"``, ...

        One of `tightframe.metrics.registry.KINDS`, which has the range of each.
        """
        return BY_KEY[self.metric].kind


@dataclass(frozen=True, eq=False)
class CollapseReport(Shown, Saved):
    """What one pass over a network's features says about its collapse; see `measure`.

    The numbers are measured at once. Everything else (`rows`, `group_angles`, tables and pictures)
    is computed from the report's own copy of class means and classifier when it is first asked
    for, and warns then. Where classes are missing, everything but the classifier's own norms and
    angles is about the classes that have samples.

    Every metric of `tightframe.metrics.registry` that is measured once is an attribute under its
    key, None where something that it needs was not given: ``report.nc1``, ``report.cdnv``,
    ``report.nc4``, ``report.accuracy`` and so on.

    Attributes
    ----------
    num_samples : int
        Samples N behind the moments.
    counts : ndarray, shape (K,), int64
        Samples of every class.
    numbers : dict of str to float, int or None
        All those metrics by key.
    missing : tuple of int
        Classes without samples.
    head : HeadKind
        Counts, and whether the network's head has a bias.
    answers : Answers or None
        What the classifier answers on the samples, by class; None where no labelled samples were
        seen after the moments were known (``nc4=False``, or no ``features`` with ``labels``).
    class_names : tuple of str or None
    remarks : tuple of str
        What must be known of the head that was measured: see `notes`.
    min_count : int
        Classes with fewer samples were left out.
    measured_on : str
        Which data, and when, in words; empty where nobody said.
    center : {"class", "sample"}
        The global mean that class means are less, see `measure`; `geometry` has that of the
        classes always, as predictions have.
    """

    num_samples: int
    counts: NDArray[np.int64]
    numbers: dict[str, Any]
    missing: tuple[int, ...]
    _dense: tuple[Geometry, Tensor] | None = field(repr=False)  # with the bias
    _later: _Later = field(repr=False)
    head: HeadKind = field(repr=False)
    answers: Answers | None = field(default=None, repr=False)
    class_names: tuple[str, ...] | None = field(default=None, repr=False)
    remarks: tuple[str, ...] = field(default=(), repr=False)
    min_count: int = 1
    measured_on: str = ""
    center: str = "class"

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return a metric that is measured once."""

    # -- measuring ---------------------------------------------------------------------------------

    @classmethod
    @plain_tensors()
    def measure(
        cls,
        moments: Readings,
        weight: Any = None,
        bias: Any = None,
        *,
        features: Any = None,
        labels: Any = None,
        weights: Sequence[Any] | None = None,
        targets: Target | Iterable[Target] | None = None,
        problem: Problem | None = None,
        lower_bound: float | None = None,
        ood: Any = None,
        groups: ArrayLike | None = None,
        missing: str = "raise",
        class_names: NamesLike | None = None,
        center: str = "class",
        min_count: int = 1,
    ) -> CollapseReport:
        """Measure everything that moments and a classifier determine.

        Parameters
        ----------
        moments : ClassMoments
            Every class must have samples, see ``missing``.
        weight : tensor or array_like, shape (K, D), optional
            Classifier, the product of the layers where there are several. May be omitted where
            ``weights`` is given.
        bias : tensor or array_like, shape (K,), optional
            Its bias.
        features : tensor or array_like, shape (B, D), optional
            Samples for NC4, the one metric that moments do not determine.
        labels : tensor or array_like, shape (B,), optional
            Their classes, for the accuracies.
        weights : list of array_like, optional
            Layers of a deep linear head, W_1 (next to the features) first: NC2 and NC3 of every
            partial product, see `layer_metrics`.
        targets : target or iterable of targets, optional
            What NC2 and NC3 are compared with, see `nc2`: by default the simplex ETF and the
            orthogonal frame. Also ``"seli"``, the limit of small decays for these counts and for a
            head with or without bias, whichever this is; `notes` says which.
        problem : Problem, optional
            For `certificate_gap`.
        lower_bound : float, optional
            A known lower bound of it.
        ood : ClassMoments or array_like, optional
            Out-of-distribution samples for `nc5`.
        groups : array_like, shape (K,), optional
            Which classes form a group, see `group_angles`; by default those of equal count
            (and class weight and logit adjustment of the problem).
        missing : {"raise", "leave_out"}
            What to do where classes have no samples, as of a large vocabulary: refuse, or measure
            the others, at least two, with a RuntimeWarning; `CollapseReport.missing` lists them.
        class_names : sequence of str, mapping, str or path-like, optional
            What the classes are called, in tables and pictures; see
            `tightframe.problem.class_names.class_names_of`.
        center : {"class", "sample"}
            The global mean that class means are less: the mean of the classes, or, as the code of
            Papyan et al. (2020) and Zhu et al. (2021) has it, of all samples. They agree on
            balanced data.
        min_count : int
            Leave out classes with fewer samples, see `ClassMoments.at_least`; their counts are 0
            in the report.

        Returns
        -------
        CollapseReport

        Raises
        ------
        ValueError
            If a class has no samples (see ``missing``), a shape or target is wrong or an entry is
            not finite.
        """
        _require_classes(moments, missing)
        moments = _lasting(_frequent(moments, min_count))
        head = _head(moments, weight, bias, weights)
        decisions = None
        if features is not None:
            decisions = Decisions(moments, *head).update(features, labels)
        elif labels is not None:
            raise ValueError("labels: given without features; moments have their own")
        return _measure(
            cls,
            moments,
            head,
            bias is not None,
            decisions,
            weights=weights,
            targets=targets,
            problem=problem,
            lower_bound=lower_bound,
            ood=ood,
            groups=groups,
            class_names=class_names,
            center=center,
        )

    @classmethod
    @plain_tensors()
    def from_loader(
        cls,
        batches: Iterable[Any] | Callable[[], Iterable[Any]],
        weight: Any = None,
        bias: Any = None,
        *,
        features: Callable[[Any], Any] | None = None,
        num_classes: int | None = None,
        nc4: bool = True,
        scatter: bool = True,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> CollapseReport:
        """Measure a stream of batches, none of which is kept.

        One pass gathers the moments. NC4 compares samples with class centres that are known only
        after it, so it takes a second pass, over the same samples in any order; ``nc4=False`` does
        without.

        Parameters
        ----------
        batches : iterable of (inputs, labels), or a callable that returns one
            For example a ``DataLoader``. With ``nc4=True`` it is gone through twice, so a
            generator, which can be used only once, is refused.
        weight, bias
            As for `measure`.
        features : callable, optional
            Turns inputs into features (B, D): the network up to its classifier, in eval mode. It
            is called without a graph. By default the inputs are the features.
        num_classes : int, optional
            K; by default the rows of the classifier.
        nc4 : bool
            Whether to make the second pass, for NC4 and the accuracies.
        scatter, device
            Of the `ClassMoments`.
        **options
            ``weights``, ``targets``, ``problem``, ``lower_bound``, ``ood``, ``groups``,
            ``missing``, ``min_count``, ``class_names``, ``center``: as for `measure`.

        Returns
        -------
        CollapseReport

        Raises
        ------
        ValueError
            As `measure`; or if there is no batch, batches are no pairs, or the two passes differ in
            their number of samples.
        """
        if nc4 and isinstance(batches, Iterator):
            raise ValueError(
                "batches: got an iterator, which can be used only once; NC4 needs a second pass: "
                "give a list, a DataLoader or a callable, or nc4=False"
            )
        if num_classes is None:
            last = weight if weight is not None else (options.get("weights") or [None])[-1]
            if last is None:
                raise ValueError("weight: missing; give weight, weights or num_classes")
            num_classes = len(last)
        gathered = ClassMoments(num_classes, scatter=scatter, device=device)
        for x, y in _pairs(batches, features):
            gathered.update(x, y)
        if not gathered.num_samples:
            raise ValueError("batches: got no samples")
        _require_classes(gathered, options.pop("missing", "raise"))
        moments = _lasting(_frequent(gathered, options.pop("min_count", 1)))
        head = _head(moments, weight, bias, options.get("weights"))
        decisions = None
        if nc4:
            decisions, seen = Decisions(moments, *head), 0
            for x, y in _pairs(batches, features):
                x, y = as_tensor("features", x), as_tensor("labels", y)
                seen += len(y)
                decisions.update(*counted(moments, x, y))
            if seen != gathered.num_samples:
                raise ValueError(
                    f"batches: the second pass gave {seen} samples, the first "
                    f"{gathered.num_samples}; both must go through the same ones"
                )
        return _measure(cls, moments, head, bias is not None, decisions, **options)

    # -- the classes -------------------------------------------------------------------------------

    def class_name(self, label: int) -> str:
        """Return a class's name, or its label where classes have no names."""
        return str(label) if self.class_names is None else self.class_names[label]

    @property
    def class_accuracy(self) -> NDArray[np.float64] | None:
        """Accuracy on the samples of every class, (K,), NaN without any; None without `answers`."""
        return None if self.answers is None else self.answers.accuracy

    def class_table(
        self,
        *,
        held_out: CollapseReport | Answers | None = None,
        separable: ArrayLike | None = None,
        history: Sequence[Any] | None = None,
        problem: Problem | None = None,
    ) -> ClassTable:
        """Return what the network does with every class, worst first, at any number of classes.

        As `tightframe.metrics.classes.class_table`. Without `answers` there are only class means
        to judge by: no accuracies, median margins and most frequent wrong answers.

        Parameters
        ----------
        held_out : CollapseReport or Answers, optional
            Of the same network on held-out samples, with accuracies: their recall.
        separable, history, problem
            As there; the problem is by default the one that the report was measured with.

        Raises
        ------
        ValueError
            If an argument has another number of classes, or no accuracies; or there is no
            classifier.
        """
        truth = held_out.answers if isinstance(held_out, CollapseReport) else held_out
        if held_out is not None and (truth is None or truth.num_classes != len(self.counts)):
            have = "no accuracies" if truth is None else f"{truth.num_classes} classes"
            raise ValueError(
                f"held_out: a report with {have}, need accuracies of {len(self.counts)} classes"
            )
        table = table_of(
            self.counts,
            *self._later.head(),
            answers=self.answers,
            recalls=None if truth is None else truth.accuracy,
            names=self.class_names,
            history=history,
            problem=self._later.problem if problem is None else problem,
        )
        return table if separable is None else table.separated(separable)

    def classes(self, **options: Any) -> pd.DataFrame:
        """Return `class_table` as a DataFrame, one row a class, worst first.

        Parameters
        ----------
        **options
            Of `class_table`.

        Raises
        ------
        ValueError
            As `class_table`.
        ImportError
            If pandas is missing (``pip install 'tightframe[report]'``).
        """
        return self.class_table(**options).to_frame()

    # -- K x K matrices ----------------------------------------------------------------------------

    @property
    def geometry(self) -> Geometry:
        """`measured_geometry`.

        Raises
        ------
        ValueError
            If a class has no samples or K is above 4096; so for the properties below.
        """
        return self._required()[0]

    @property
    def logits(self) -> NDArray[np.float64]:
        """Mean logits with bias, shape (K, K); column k holds the samples of class k."""
        geometry, bias = self._required()
        return geometry.logits + as_array(bias)[:, None]

    @cached_property
    def margins(self) -> NDArray[np.float64]:
        """`margins`, without bias, shape (K, K)."""
        logits = self.geometry.logits
        return np.diagonal(logits) - logits

    def distances(self, target: Geometry) -> dict[str, float]:
        """Return the distance of every part to a predicted geometry: NC2 and NC3 of the papers.

        Parameters
        ----------
        target : Geometry
            Of the same number of classes.

        Returns
        -------
        dict of str to float
            A number from 0 to 2 for each of `tightframe.geometry.dense.PARTS`; NaN, with a
            RuntimeWarning, where either matrix is zero. For ``"centered_means"``, K = 2 and
            D < K - 1 are special: see `nc2`.

        Raises
        ------
        ValueError
            If the number of classes differs, a class has no samples or K is above 4096; `rows` has
            no such limits.
        """
        geometry = self.geometry
        if target.num_classes != geometry.num_classes:
            raise ValueError(
                f"target: got a geometry of {target.num_classes} classes, "
                f"need {geometry.num_classes}"
            )
        if self.center == "class":
            return {part: geometry.distance(target, part) for part in PARTS}
        return {part: self._later.vectors.distance(part, target) for part in PARTS}

    def _required(self) -> tuple[Geometry, Tensor]:
        if self.missing:
            raise ValueError(
                f"moments: {describe_missing(self.missing, self.min_count)}; "
                "the geometry needs every class"
            )
        require_dense(len(self.counts), "moments")
        assert self._dense is not None
        return self._dense

    # -- when asked for ----------------------------------------------------------------------------

    @cached_property
    def rows(self) -> tuple[MetricRow, ...]:
        """Every number of the report, one row each.

        Metrics that were not measured have no row. NC2 and NC3 are called ``nc2`` (classifier,
        means, centred means) and ``nc3`` (logits, centred logits); those of a deep linear head
        have ``layer <m>`` before the part.
        """
        rows = self._measured
        # One degenerate vector shows in many metrics: every reason is given once.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows += self._later.rows()
        for message in dict.fromkeys(str(warning.message) for warning in caught):
            warnings.warn(message, RuntimeWarning, stacklevel=3)
        return tuple(rows)

    @property
    def _measured(self) -> list[MetricRow]:
        """The rows of `numbers`."""
        return [
            MetricRow(key, _NO_PART, "", float(value))
            for key, value in self.numbers.items()
            if value is not None
        ]

    @property
    def group_angles(self) -> dict[str, GroupAngles]:
        """Norms and cosines inside and across groups of classes, of classifier and centred means.

        The classifier's tells which minority classes have merged; see `group_angles`.
        """
        return self._later.group_angles

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be known to read the numbers, in words.

        Of the head that was found in a network, where it is not simply ``W h + b`` of its
        parameters; which SELI geometry it is compared with and why, if with one at all; and which
        data; and whether the global mean is that of all samples.
        """
        where = f"Measured on {self.measured_on}." if self.measured_on else None
        frames = map(self.head.remark, self._later.targets)
        return (*self.remarks, *filter(None, [*frames, CENTERINGS[self.center], where]))

    @property
    def layers(self) -> dict[str, list[LayerMetrics]]:
        """NC2 and NC3 of every partial product by target name; empty without ``weights``."""
        return self._later.layers

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values: NaN as None and infinity as the text ``"Infinity"``.

        Strict JSON has neither; both Python's ``float`` and JavaScript's ``Number`` read the text.
        K x K matrices are None where a class is missing or K is above 4096, `classes` in the
        latter case. `rows` stand under ``"metrics"``.
        """
        out: dict[str, Any] = {"num_samples": self.num_samples, "counts": self.counts}
        out |= {metric.key: self.numbers[metric.key] for metric in LEADING}  # these come first
        out |= self.numbers | {"center": self.center, "missing": self.missing}
        out |= {"logits": None, "margins": None, "geometry": None}
        if self._dense is not None:
            out["logits"], out["margins"] = self.logits, self.margins
            parts = {part: getattr(self.geometry, part) for part in PARTS}
            out["geometry"] = {"name": self.geometry.name, **parts}
        out["classes"] = None
        if len(self.counts) <= MAX_DENSE_CLASSES:
            out["classes"] = self.class_table().to_dict()
        out["metrics"] = [row._asdict() for row in self.rows]
        out["notes"] = self.notes
        return {name: _json(value) for name, value in out.items()}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return `to_dict` as strict JSON text; write it to a file, atomically, if one is named.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        text = format_json(self.to_dict())
        if path is not None:
            with replacing(path) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        return text

    def to_frame(self) -> pd.DataFrame:
        """Return `rows` as a DataFrame with the columns metric, part, target and value.

        See `tightframe.shown.frame`.
        """
        from tightframe.metrics.pictures import frame_of

        return frame_of(self)

    def to_table(self) -> Table:
        """Return `rows` as a Rich table."""
        from tightframe.figures.formats import to_rich
        from tightframe.metrics.pictures import rows_of

        return to_rich(rows_of(self, self.rows))

    def _at_once(self) -> Rows:
        """Return the table that is shown without being asked for.

        Of more classes than `MAX_DENSE_CLASSES` only what is known so far: the angles of all pairs
        take minutes, and are shown once `rows` were asked for.
        """
        from tightframe.metrics.pictures import rows_of

        if len(self.counts) <= MAX_DENSE_CLASSES or "rows" in self.__dict__:
            return rows_of(self, self.rows)
        note = "Frames and angles of so many classes take a while: `rows` and `to_frame` have them."
        return rows_of(self, self._measured, note)

    def __repr__(self) -> str:
        shown = {metric.key.upper(): self.numbers[metric.key] for metric in LEADING}
        known = [f"{name} {value:.3g}" for name, value in shown.items() if value is not None]
        return (
            f"CollapseReport({self.num_samples} samples, {len(self.counts)} classes, "
            f"{', '.join(known)})"
        )

    def _blocks(self) -> Iterator[Block]:
        yield self._at_once()

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw distances to the targets, norms by class, and mean logits.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            For the distances alone; by default all three are drawn on a figure of their own.

        Returns
        -------
        tuple of figure and axes
            Of all three a list of their axes. See `tightframe.shown.plot`.
        """
        from tightframe.metrics.pictures import distances_chart, sheet_of

        if ax is not None:
            return plot(distances_chart(self), ax)
        return draw(sheet_of(self))

    def norms(self) -> dict[str, NDArray[np.float64]]:
        """Return the lengths of classifier rows and centred class means, shape (K,) each.

        NaN for the mean of a class without samples.
        """
        return self._later.norms()

    def vectors(self) -> tuple[Array, Array, Array | None]:
        """Return class means, zero without samples, classifier and bias: (K, D), (K, D), (K,)."""
        return self._later.head()


@kept
@dataclass(frozen=True, eq=False)
class _Later:
    """What a report computes when it is first asked for."""

    vectors: Vectors
    targets: list[Geometry | GroupedGeometry | str]
    groups: NDArray[Any]
    moments: Readings | None  # for layers only
    weights: list[Tensor] | None
    given: list[Target]
    bias: Tensor | None
    problem: Problem | None
    center: str

    def head(self) -> tuple[Array, Array, Array | None]:
        """Return class means (K, D), zero without samples, classifier and bias."""
        weight = self.vectors.weight
        assert weight is not None
        means = weight.new_zeros(*weight.shape)
        means[self.vectors.kept] = dense(self.vectors.means)
        bias = None if self.bias is None else as_array(self.bias)
        return as_array(means), as_array(weight), bias

    def norms(self) -> dict[str, NDArray[np.float64]]:
        weight, centered = self.vectors.weight, self.vectors.centered
        assert weight is not None
        means = np.full(len(weight), np.nan)
        means[as_array(self.vectors.kept)] = as_array(centered.lengths * centered.scale)
        rows = as_array(lengths(weight))
        return {"classifier": rows, "centered_means": means}

    @cached_property
    def group_angles(self) -> dict[str, GroupAngles]:
        return {
            "classifier": group_angles(self.vectors.directed("classifier").vectors, self.groups),
            "centered_means": group_angles(
                self.vectors.centered, self.groups[as_array(self.vectors.kept)]
            ),
        }

    @cached_property
    def layers(self) -> dict[str, list[LayerMetrics]]:
        if self.weights is None or self.moments is None:
            return {}
        return {
            target_name(target): layer_metrics(
                self.moments, self.weights, given, weighting=self.center
            )
            for target, given in zip(self.targets, self.given, strict=True)
        }

    @plain_tensors()
    def rows(self) -> list[MetricRow]:
        return [*self._distances(), *self._layers(), *self._angles(), *self._groups()]

    def _distances(self) -> Iterator[MetricRow]:
        for target in self.targets:
            for metric in of_fan("target"):
                for part in metric.parts:
                    if isinstance(target, str) and part.startswith("centered"):
                        continue  # there is no centred general orthogonal frame
                    value = metric.measure(self, part, target)
                    yield MetricRow(metric.key, part, target_name(target), value)

    def _layers(self) -> Iterator[MetricRow]:
        metric_of = {part: metric.key for metric in of_fan("target") for part in metric.parts}
        for target, layers in self.layers.items():
            for layer in layers:
                for part in (*TARGET_PARTS, "self_duality"):
                    value = getattr(layer, part)
                    if not (math.isnan(value) and part.startswith("centered")):
                        metric = metric_of.get(part, part)
                        yield MetricRow(metric, f"layer {layer.layer} {part}", target, value)

    def _angles(self) -> Iterator[MetricRow]:
        for part in VECTOR_PARTS:
            directed = self.vectors.directed(part)
            for metric in of_fan("vectors"):
                value = float(metric.measure(directed))
                yield MetricRow(metric.key, part, metric.target, value)
        if len(self.vectors.alignment):
            for metric in of_fan("pairs"):
                value = float(metric.measure(self.vectors.alignment))
                yield MetricRow(metric.key, _NO_PART, metric.target, value)

    def _groups(self) -> Iterator[MetricRow]:
        if len(np.unique(self.groups)) > MAX_LISTED_GROUPS:
            return
        for part, angles in self.group_angles.items():
            for i, name in enumerate(angles.groups):
                for metric in of_fan("groups"):
                    value = float(metric.measure(angles, i))
                    yield MetricRow(metric.key, part, f"group {name}", value)
                for j in range(i, len(angles.groups)):
                    if math.isnan(angles.mean[i, j]):
                        continue
                    pair = f"group {name}"
                    if i != j:
                        pair = f"groups {name} and {angles.groups[j]}"
                    for metric in of_fan("group_pairs"):
                        value = float(metric.measure(angles, i, j))
                        yield MetricRow(metric.key, part, pair, value)


def _number(metric: Descriptor) -> property:
    def value(report: CollapseReport) -> Any:
        return report.numbers[metric.key]

    value.__doc__ = f"{metric.label}: {metric.says}."
    return property(value)


for _metric in of_fan("once"):
    setattr(CollapseReport, _metric.key, _number(_metric))


def _head(
    moments: Readings, weight: Any, bias: Any, weights: Sequence[Any] | None
) -> tuple[Matrix, Tensor]:
    """Return classifier and bias; the product of the layers where no classifier is given."""
    if weight is None:
        if weights is None:
            raise ValueError("weight: missing; give it, or the layers of a deep head as weights")
        weight = product_of(layer_list(moments, weights))
    given = as_tensor("weight", weight)
    w, b = classifier(moments, given, bias)
    # The report's own, which no training changes; K x D numbers are not copied twice.
    if isinstance(w, Tall):
        return w, b  # until it is measured: there is more room then
    return (w.clone() if w.data_ptr() == given.data_ptr() else w), b


def _require_classes(moments: Readings, missing: str) -> None:
    if missing not in ("raise", "leave_out"):
        raise ValueError(f"missing: got {missing!r}, allowed are 'raise', 'leave_out'")
    require_moments(moments)
    if moments.num_classes > 1 and moments.missing and missing == "raise":
        raise ValueError(
            f"moments: {moments.describe_missing()}; missing='leave_out' measures the others"
        )


def _frequent(moments: Readings, min_count: int) -> Readings:
    """Return the moments of classes with so many samples; the others have none."""
    if min_count == 1:
        return moments
    if not isinstance(moments, ClassMoments):
        raise ValueError(f"min_count: got {min_count} with {type(moments).__name__}")
    return moments.at_least(min_count)


def _lasting(moments: Readings) -> Snapshot:
    """Return the moments as they are now for good."""
    own = Snapshot.of(moments)
    if own.large:
        moments.share()
    return own


def counted(moments: Readings, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of a batch whose classes count."""
    if moments.least == 1:
        return x, y
    labels = y.reshape(-1).long()
    kept = moments.counts.to(labels.device)[labels] > 0
    return x[kept.to(x.device)], labels[kept]


def _measure(
    cls: type[CollapseReport],
    moments: Readings,
    head: tuple[Matrix, Tensor],
    with_bias: bool,
    decisions: Decisions | None,
    *,
    weights: Sequence[Any] | None = None,
    targets: Target | Iterable[Target] | None = None,
    problem: Problem | None = None,
    lower_bound: float | None = None,
    ood: Any = None,
    groups: ArrayLike | None = None,
    class_names: NamesLike | None = None,
    center: str = "class",
) -> CollapseReport:
    choice("center", center, WEIGHTINGS)
    w, b = head
    k, missing = moments.num_classes, moments.missing
    own = usable(moments, "report")
    if targets is None:
        targets = ["etf", "orthogonal_frame"]
    kind = HeadKind(moments.counts.cpu().numpy(), with_bias)
    given = kind.pick(targets)
    goals = [as_target(target, k, "targets") for target in given]
    layers = None if weights is None else layer_list(moments, weights)
    if layers is not None and missing:
        raise ValueError(f"weights: {moments.describe_missing()}; layers need every class")
    values = moments.counts.cpu().numpy() if groups is None else np.asarray(groups)
    if groups is None and problem is not None and problem.num_classes == k:
        values = _group_names(problem)
    if values.shape != (k,):
        raise ValueError(f"groups: got shape {values.shape}, need one number a class, ({k},)")

    names = given_names(class_names, k, f"need one a class, {k}")

    source = Source(
        moments,
        own,
        w,
        b,
        with_bias=with_bias,
        decisions=decisions,
        problem=problem,
        lower_bound=lower_bound,
        ood=ood,
        center=center,
    )
    dense = k <= MAX_DENSE_CLASSES and not missing
    numbers = {
        metric.key: metric.measure(source) if source.has(metric) else None
        for metric in of_fan("once")
    }
    if isinstance(w, Tall):
        source = replace(source, weight=w.copy())
    return cls(
        num_samples=moments.num_samples,
        counts=moments.counts.cpu().numpy(),
        numbers=numbers,
        missing=tuple(missing),
        _dense=(measured_geometry(moments, w), b) if dense else None,
        _later=_Later(
            vectors=source.vectors,
            targets=goals,
            groups=values,
            moments=own.present() if layers is not None else None,
            weights=None if layers is None else [layer.clone() for layer in layers],
            given=given,
            bias=b.clone() if with_bias else None,
            problem=problem if problem is not None and problem.num_classes == k else None,
            center=center,
        ),
        head=kind,
        answers=(decisions.answers or None) if decisions is not None else None,
        class_names=names,
        min_count=moments.least,
        center=center,
    )


def _group_names(problem: Problem) -> NDArray[Any]:
    """Return what `group_angles` tells classes by: their counts, or names where that is too little.

    Classes of one count may differ in their class weights and the like.
    """
    if len({group.count for group in problem.groups}) == len(problem.groups):
        return problem.counts
    kinds = zip(problem.groups, problem.group_terms, strict=True)
    names = [with_loss_terms(str(group.count), **terms) for group, terms in kinds]
    return np.array(names)[problem.class_groups]


def _pairs(
    batches: Iterable[Any] | Callable[[], Iterable[Any]], features: Callable[[Any], Any] | None
) -> Iterator[tuple[Any, Any]]:
    for i, batch in enumerate(batches() if callable(batches) else batches):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise ValueError(
                f"batches: batch {i} is a {type(batch).__name__}, need a pair (inputs, labels)"
            )
        inputs, labels = batch
        yield (inputs if features is None else features(inputs)), labels


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return _json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
