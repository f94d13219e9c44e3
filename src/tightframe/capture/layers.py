"""Collapse of several layers at once: moments and a report a layer, from one pass over the data."""

from __future__ import annotations

import contextlib
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tightframe.capture.distributed import with_own
from tightframe.capture.gather import LayerMoments, Mismatch, in_group, share_error
from tightframe.capture.head import HeadInUse
from tightframe.capture.hooks import Recorder, uncompiled
from tightframe.capture.names import names_for
from tightframe.capture.sample import Sample
from tightframe.capture.splits import warn_of_augmentation, warn_of_sampler
from tightframe.capture.tokens import read_sequences, takes_labels
from tightframe.checks import choice, whole_number
from tightframe.data.batches import (
    Batch,
    LabelsLike,
    Reduction,
    split_batch,
    to_device,
)
from tightframe.heads.find import Head, features_head, unwrapped
from tightframe.heads.modes import evaluating, preserved_rng
from tightframe.metrics.class_moments import ClassMoments
from tightframe.metrics.moments import WEIGHTINGS
from tightframe.metrics.registry import BY_KEY, about_classifier
from tightframe.metrics.report import CollapseReport
from tightframe.metrics.targets import Target
from tightframe.problem.class_names import NamesLike, given_names
from tightframe.problem.problem import Problem

#: Most lost classes that are named in a log.
MOST_NAMED = 10

#: Runs a model on a batch in a way of one's own; what it returns is not used.
Forward = Callable[[nn.Module, Any], Any]


def collapse_report(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Sequence[str] = (),
    head: str | None = None,
    num_classes: int | None = None,
    *,
    weight: Any = None,
    bias: Any = None,
    features: str | None = None,
    class_names: NamesLike | None = None,
    targets: Target | Iterable[Target] | None = None,
    problem: Problem | None = None,
    reduce: Reduction | Mapping[str, Reduction] = "auto",
    labels: LabelsLike = None,
    forward: Forward | None = None,
    nc4: bool = True,
    scatter: bool = True,
    ignore_index: int | None = -100,
    min_count: int = 1,
    center: str = "class",
    check: bool = True,
    synchronize: bool = False,
    sample: Sample | None = None,
) -> dict[str, CollapseReport]:
    """Measure the collapse of a network's last layer and of any other named layers.

    One pass over the loader gathers the moments of all layers, each batch going through the model
    once. NC4 compares samples with class centres that are known only afterwards, so it needs a
    **second pass**; ``nc4=False`` saves it. The model runs in eval mode without gradients.
    Afterwards the hooks are gone, also after an error, and the mode of every submodule, the
    gradient mode and the random states are as before.

    What leaves the model in the first batch is compared with ``W h + b``. What the head does beside
    that is part of the weight and bias that are measured (low-rank updates, norms, a factor or an
    offset behind it), and `CollapseReport.notes` says so, or it is refused.

    Parameters
    ----------
    model : nn.Module
        Any network.
    loader : iterable of batches
        A DataLoader or a list. A batch is ``(inputs, labels)``, with several inputs if there are
        more entries, or a mapping with labels whose other entries are the model's named inputs.
        Collapse is a property of the *training* set: give it without augmentation.
    layers : sequence of str
        Dotted names of modules whose outputs are measured; the head is measured always.
    head : str, optional
        Dotted name of the classifier, whose *input* are the last layer's features; None takes the
        linear layer whose output leaves the model in the first batch, or where that cannot be seen
        the one with a usual name (`find_head`).
    num_classes : int, optional
        Number of classes K; None takes the classifier's rows.
    weight, bias : tensor, array_like, or callable that returns one, optional
        The classifier, shapes (K, D) and (K,), where it is no linear layer, as in
        `tightframe.heads.find.given_head`; then ``head`` names the module that takes the features
        in, of whatever kind.
    features : str, optional
        With ``weight``, in the place of ``head``: name of the module whose *output* are the
        features.
    class_names : sequence of str, mapping, str or path-like, optional
        What the classes are called, see `tightframe.problem.class_names.class_names_of`; labels may
        then be names. By default as the model (``config.id2label``) or the loader's data set
        (``classes``) calls them.
    targets : target or iterable of targets, optional
        What NC2 and NC3 are compared with, as for `CollapseReport.measure`; give a `Solution` to
        compare with the prediction.
    problem : Problem, optional
        For the certificate gap of the last layer, as there.
    reduce : str, callable, or mapping of layer names to them
        How features with more than two axes become rows, see `tightframe.data.batches`. A
        mapping may leave layers out; they are ``"auto"``: (B, C, H, W) is pooled; of tokens with a
        label each, each is a sample, of its own label or, where the model's own loss or class says
        so (causal language models), of the next token's; of sequences with one label the head's
        token is the one whose logits the model gave.
    labels : str, int or callable, optional
        Where a batch has its labels, if `tightframe.problem.labels.find_labels` cannot tell.
    forward : callable, optional
        ``forward(model, batch)`` runs the model where ``model(inputs)`` does not do.
    nc4 : bool
        Whether to compute NC4 and the accuracies in a second pass.
    scatter : bool
        Whether to compute NC1, whose D x D products are most of the work where D is large. Hidden
        layers need it.
    ignore_index : int or None
        Samples with this label are left out.
    min_count : int
        Classes with fewer samples are left out, see `ClassMoments.at_least`: rare tokens of a
        vocabulary.
    center : {"class", "sample"}
        The global mean that class means are less, see `CollapseReport.measure`.
    check : bool
        Send the first batch through twice and warn if its features differ (dropout, noise); read
        some samples twice and warn if they differ (augmentation).
    synchronize : bool
        The loader has this process's share of the samples; merge what all processes of a
        ``torch.distributed`` group gathered. All must call it, and all get the same reports. What a
        distributed sampler repeats, to make the shares equally long, counts once.
    sample : Sample, optional
        Is given some of the head's features; of several processes each keeps its own.

    Returns
    -------
    dict of str to CollapseReport
        By layer name, in the order of ``layers``; the head last, under its full name. Hidden
        layers have no classifier of their own: theirs is `least_squares_classifier`, and their
        `nc4` is the share of samples whose nearest class centre *in that layer* is not the
        decision of the network's head (Ben-Shaul & Dekel 2022, https://arxiv.org/abs/2201.08924).

    Raises
    ------
    ValueError
        If a module does not exist or does not run exactly once in a forward pass, the head has no
        weight, several layers could be it, what leaves the model is not what it computes, a batch
        has an unknown form, a label is out of range, no batch came, or the loader can be read only
        once and NC4 is wanted.

    Warns
    -----
    RuntimeWarning
        If features are not repeatable, a class has no samples (it is then left out of the
        reports), or the second pass brings other samples than the first.
    """
    use = HeadInUse(model, layers, head, weight, bias, features, copy=False)
    if layers and not scatter:
        raise ValueError("scatter: got False, hidden layers need it; see layer_moments for theirs")
    if nc4 and isinstance(loader, Iterator):
        raise ValueError(
            "loader: got an iterator, which can be read once; NC4 needs a second pass: give a "
            "DataLoader or a list, or nc4=False"
        )

    def start() -> LayerMoments:
        assert use.head is not None
        k = use.head.num_classes
        k = k if num_classes is None else whole_number("num_classes", num_classes, 2)
        names = [*layers, use.head.name]
        return LayerMoments(
            k, names, reduce=reduce, scatter=scatter, ignore_index=ignore_index, sample=sample
        )

    gathered: LayerMoments | None = None
    class_names = given_names(class_names)
    choice("center", center, WEIGHTINGS)
    known = names_for(class_names, model, loader)
    with running(model, loader, use, labels, forward, known) as run:
        error = None
        try:
            gathered = _gather(run, loader, start, check, synchronize)
        except ValueError as refusal:
            if not synchronize:
                raise
            error = refusal
        if synchronize:
            share_error(error)  # before the others wait for this process's sums
        if in_group() and synchronize:
            use.share()
        if gathered is None:
            if use.head is None:
                raise ValueError("loader: no batch seen, nothing passed through the model")
            gathered = start()
        if synchronize:
            gathered = gathered.synchronized()
        gathered.require_samples("loader")
        gathered = gathered.at_least(whole_number("min_count", min_count))
        reading = use.reading
        gathered.unit = reading.name if reading.unit else None
        mismatch = None
        if nc4:
            mismatch = Mismatch(gathered.moments, reading)
            for batch, own in _batches(loader, synchronize):
                passed = run(batch)
                run.settle(passed, gathered)
                caught, parts, _ = passed
                mismatch.update(gathered.rows(caught, parts.labels, parts.mask, own))
            if synchronize:
                mismatch.synchronize()
            mismatch.check_counts()
    return gathered.reports(
        reading,
        mismatch,
        targets=targets,
        problem=problem,
        center=center,
        class_names=names_for(
            class_names, model, loader, gathered.moments[reading.name].num_classes
        ),
    )


def layer_moments(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Sequence[str],
    num_classes: int,
    *,
    head: str | None = None,
    scatter: bool = True,
    reduce: Reduction | Mapping[str, Reduction] = "auto",
    labels: LabelsLike = None,
    forward: Forward | None = None,
    ignore_index: int | None = -100,
    check: bool = True,
) -> dict[str, ClassMoments]:
    """Return the class moments of named layers from one pass over a loader.

    As `collapse_report`, for networks without a linear classifier or for metrics of one's own.

    Parameters
    ----------
    model, loader, layers, reduce, labels, forward, ignore_index, check
        As in `collapse_report`.
    num_classes : int
        Number of classes K.
    head : str, optional
        Name of a classifier whose input is measured too, of whatever kind; unlike there, None means
        none.
    scatter : bool
        Keep the D x D matrices (see `ClassMoments`).

    Returns
    -------
    dict of str to ClassMoments

    Raises
    ------
    ValueError
        As `collapse_report`; also if there is neither a layer nor a head.
    """
    found = None if head is None else features_head(model, head)
    names = [*layers, *([] if found is None else [found.name])]
    gathered = LayerMoments(
        num_classes, names, reduce=reduce, scatter=scatter, ignore_index=ignore_index
    )
    with running(model, loader, Recorder(model, found, layers), labels, forward, head=found) as run:
        _gather(run, loader, lambda: gathered, check)
    gathered.require_samples("loader")
    return gathered.moments


def report_scalars(report: CollapseReport, *, probe: bool = False) -> dict[str, float]:
    """Return the numbers of a report under names that suit a logger.

    The rows of the report but those of groups of classes: ``nc1``, ``equinorm_classifier``,
    ``classifier_to_simplex_etf`` (NC2), ``logits_to_predicted`` (NC3) and so on. NaN and infinity
    are kept. The worst lost classes are named: ``accuracy_of_lost_class_shirt``.

    Parameters
    ----------
    report : CollapseReport
    probe : bool
        The classifier is only the probe of a hidden layer: leave out what is about it.
    """
    scalars = {}
    for row in report.rows:
        fan = BY_KEY[row.metric].fan
        if fan in ("groups", "group_pairs"):
            continue  # as many as there are pairs of groups
        if probe and about_classifier(row.metric, row.part):
            continue
        name = f"{row.metric}_{row.part}" if row.part else row.metric
        if fan == "target":
            name = f"{row.part}_to_{row.target}"
        scalars[name.lower().replace(" ", "_")] = row.value
    if report.answers is not None and not probe:
        accuracy = report.answers.accuracy
        worst = np.argsort(accuracy, kind="stable")[: min(report.answers.num_lost, MOST_NAMED)]
        for label in worst.tolist():
            name = report.class_name(label).replace("/", "_")
            scalars[f"accuracy_of_lost_class_{name}"] = float(accuracy[label])
    return scalars


def layer_scalars(reports: Mapping[str, CollapseReport]) -> dict[str, float]:
    """Return `report_scalars` of all reports; those of the last, the head's, by their bare name.

    The others are called ``<layer>/<metric>``.
    """
    *hidden, head = reports
    scalars: dict[str, float] = {}
    for layer in hidden:
        numbers = report_scalars(reports[layer], probe=True)
        scalars |= {f"{layer}/{name}": value for name, value in numbers.items()}
    return scalars | report_scalars(reports[head])


def run_on(model: nn.Module, parts: Batch) -> Any:
    """Run a model on the inputs of a batch, without its wrappers, and return what it gives.

    DDP would wait for the other processes at every batch. Labels of tokens are given to a model
    that takes them: its loss tells which token they belong to.

    Raises
    ------
    ValueError
        If the model does not take these inputs by number and name.
    """
    inner = unwrapped(model)
    if takes_labels(inner, parts):
        parts = parts._replace(kwargs=parts.kwargs | {"labels": parts.labels})
    try:
        inspect.signature(inner.forward).bind(*parts.args, **parts.kwargs)
    except ValueError:  # compiled code has no signature
        pass
    except TypeError as error:
        named = f" and {', '.join(map(str, parts.kwargs))}" if parts.kwargs else ""
        raise ValueError(
            f"forward: beside its labels a batch has {len(parts.args)} positional inputs{named}, "
            f"which {type(inner).__name__} does not take ({error}); pass a function of the model "
            "and the batch that runs it"
        ) from None
    return inner(*parts.args, **parts.kwargs)


def check_repeatable(
    model: nn.Module, first: Mapping[str, Tensor], second: Mapping[str, Tensor]
) -> None:
    """Warn if the features of one batch are others the second time, by dropout or noise."""
    for name, a in first.items():
        b = second[name]
        if a.shape == b.shape and a.numel():
            slack = math.sqrt(torch.finfo(a.dtype).eps) if a.is_floating_point() else 0.0
            if bool((a - b).abs().max() <= slack * a.abs().max()) or not bool(a.isfinite().all()):
                continue
        noisy = [
            f"{n} ({type(m).__name__})"
            for n, m in unwrapped(model).named_modules()
            if "drop" in type(m).__name__.lower() or "noise" in type(m).__name__.lower()
        ]
        suspects = f"; suspects are {', '.join(noisy[:5])}" if noisy else ""
        warnings.warn(
            f"model: the same batch gives other features at {name!r} the second time, so dropout, "
            f"noise or sampling acts in eval mode too and NC1 counts it{suspects}",
            RuntimeWarning,
            stacklevel=4,
        )
        return


# -- inside --------------------------------------------------------------------------------------


class Passed(NamedTuple):
    """A batch that went through: features by layer, its parts, and what the model gave."""

    features: dict[str, Tensor]
    parts: Batch
    output: Any


@dataclass(frozen=True, eq=False)
class Run:
    """Sends batches through a model with hooks on it."""

    model: nn.Module
    recorder: Recorder | HeadInUse
    labels: LabelsLike
    forward: Forward | None
    class_names: Sequence[str] | None = None
    features_of: Head | None = None  # where the recorder does not know the head

    def __call__(self, batch: Any) -> Passed:
        """Send a batch through the model."""
        parameter = next(self.model.parameters(), None)
        if parameter is not None:
            batch = to_device(batch, parameter.device)
        parts = split_batch(batch, self.labels, self.class_names)
        if self.forward is not None:
            output = self.forward(self.model, batch)
        else:
            output = run_on(self.model, parts)
        return Passed(self.recorder.take(), parts, output)

    @property
    def head(self) -> Head | None:
        """The classifier, as far as it is known."""
        return self.recorder.head if isinstance(self.recorder, HeadInUse) else self.features_of

    def settle(self, passed: Passed, gathered: LayerMoments) -> None:
        """Settle which tokens of sequences are measured, in place."""
        read_sequences(
            passed.features, gathered, self.model, self.head, passed.parts, passed.output
        )


@contextlib.contextmanager
def running(
    model: nn.Module,
    loader: Iterable[Any],
    recorder: Recorder | HeadInUse,
    labels: LabelsLike,
    forward: Forward | None,
    class_names: Sequence[str] | None = None,
    *,
    head: Head | None = None,
) -> Iterator[Run]:
    """Give what sends batches through a model with hooks, in eval mode and without gradients."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(preserved_rng(loader))
        stack.enter_context(uncompiled())
        stack.enter_context(evaluating(model))
        stack.enter_context(recorder)
        yield Run(model, recorder, labels, forward, class_names, head)


def _batches(loader: Iterable[Any], shared: bool) -> Iterator[tuple[Any, int | None]]:
    """Iterate over batches and how many of their samples count."""
    return with_own(loader) if shared else ((batch, None) for batch in loader)


def _gather(
    run: Run,
    loader: Iterable[Any],
    start: Callable[[], LayerMoments],
    check: bool,
    shared: bool = False,
) -> LayerMoments | None:
    """Return the moments of a pass over the loader, None if it brings nothing.

    ``start`` makes those of no samples, when the first batch has shown which layer is the head.
    """
    if not isinstance(loader, Iterable):
        raise ValueError(f"loader: got {type(loader).__name__}, need an iterable of batches")
    if check:
        warn_of_augmentation(loader)
        warn_of_sampler(loader)
    gathered: LayerMoments | None = None
    for batch, own in _batches(loader, shared):
        passed = run(batch)
        features, parts, _ = passed
        first = gathered is None
        gathered = start() if gathered is None else gathered
        run.settle(passed, gathered)
        if first:
            use = run.recorder
            if isinstance(use, HeadInUse):
                reading = use.read(
                    features[use.name], parts.labels, gathered.reduction(use.name), parts.mask
                )
                gathered.unit = reading.name if reading.unit else None
            if check:
                again = run(batch)
                run.settle(again, gathered)
                check_repeatable(run.model, features, again.features)
        gathered.update(features, parts.labels, parts.mask, own)
    return gathered
