"""The page of somebody's own training, from what a callback saw of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from markupsafe import Markup

from tightframe.capture.record import MeanLogits, TrainingRecord
from tightframe.checks import MAX_DENSE_CLASSES, number_of
from tightframe.diagnosis.diagnose import theory_blocks, undescribed
from tightframe.diagnosis.recorded import ask_of_record, recorded_problem
from tightframe.diagnosis.theory import TheoryAnswer
from tightframe.figures import svg
from tightframe.figures.diagrams import Wheel
from tightframe.figures.formats import to_html
from tightframe.figures.model import Chart, Curve
from tightframe.figures.plotly import Options
from tightframe.figures.table import Column, Table
from tightframe.metrics.wheels import network_view
from tightframe.pages.page import render_page, write_page
from tightframe.pages.run_views import CHART, figures
from tightframe.runs.panels import over_epochs
from tightframe.runs.tables import METRIC_NAMES
from tightframe.shown import Block
from tightframe.version import __version__
from tightframe.views.wheel import class_homes, sent_by_solution
from tightframe.views.wheel import wheel as wheel_of

#: Points of a curve, at most.
_MOST_POINTS = 1000


class Callback(Protocol):
    """What measures a training: `CollapseMonitor`, `CollapseTrainerCallback`."""

    def record(self) -> TrainingRecord:
        """Return what was measured so far."""


def write_training(
    training: Callback | TrainingRecord | str | os.PathLike[str],
    out: str | os.PathLike[str] = "training.html",
) -> Path:
    """Write a page of a training by Lightning's or Hugging Face's Trainer, as a callback saw it.

    The page says first whether the theory describes the network, then what the network does with
    every class, over the epochs, and what of it is known, found and assumed: of the rest of the
    training nothing is. Decays are fitted to the features that the callback kept.

    Parameters
    ----------
    training : callback, TrainingRecord or path-like
        A `CollapseMonitor` or `CollapseTrainerCallback` that has measured; its ``record()``; or the
        file that ``record().save(file)`` wrote.
    out : path-like
        The file to write, atomically. It holds its scripts and styles and asks nothing of the
        network.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If nothing was measured, or a file holds something else.

    Examples
    --------
    After ``trainer.fit(...)`` with ``callbacks=[monitor]``::

        tf.report.write_training(monitor, "training.html")
    """
    return write_page(Path(out), render(_record_of(training)))


def _record_of(training: Any) -> TrainingRecord:
    if isinstance(training, TrainingRecord):
        return training
    if isinstance(training, (str, os.PathLike)):
        return TrainingRecord.load(training)
    record = getattr(training, "record", None)
    if callable(record) and isinstance(found := record(), TrainingRecord):
        return found
    raise ValueError(
        f"training: got {type(training).__name__}, need a CollapseMonitor, a "
        "CollapseTrainerCallback, what its record() gives, or a file that this saved"
    )


def render(record: TrainingRecord) -> str:
    """Return the page of a record as HTML text."""
    theory = ask_of_record(record)
    plots: dict[str, Any] = {}
    charts = {chart.title.lower(): chart for chart in _charts(record)}
    title, *blocks = theory_blocks(theory, record.classes)
    return render_page(
        "training.html",
        plots,
        title=f"Neural collapse of {record.network}",
        pictures=Markup(svg.head()),
        describes=theory.describes,
        reason=theory.reason,
        error=theory.error,
        headline=record.classes.headline,
        measured=_measured(record),
        wheel=_wheel(record, theory),
        classes=Markup(to_html(record.classes.to_table(remarks=False))),
        remarks=record.classes.remarks[1:],
        known=list(_known(record, theory)),
        theory_title=str(title).strip(),
        theory=[_block(block) for block in blocks if block != undescribed(theory)],
        metrics=Markup(to_html(_metrics(record))),
        charts=figures(charts, "training", plots, Options(most_points=_MOST_POINTS, height=CHART)),
        environment=[("tightframe", __version__), ("network", record.network)],
    )


def _block(block: Block) -> Markup:
    """Return a sentence, a heading (after an empty line) or a table with its title."""
    if isinstance(block, str):
        tag = "h3" if block.startswith("\n") else "p"
        return Markup("<{0}>{1}</{0}>").format(tag, block.strip())
    title = Markup("<h3>{}</h3>").format(block.title) if block.title else Markup()
    return title + Markup(to_html(block))


def _measured(record: TrainingRecord) -> str:
    number, first = len(record.history), record.history[0]
    since = f" since epoch {first['epoch']:g}" if number > 1 else ""
    return (
        f"Measured on {record.measured_on}: {int(record.counts.sum()):,} samples of "
        f"{record.num_classes:,} classes; {number_of(number, 'measurement')}{since}."
    )


# -- the wheel -------------------------------------------------------------------------------------


def _wheel(record: TrainingRecord, theory: TheoryAnswer) -> Markup:
    problem = recorded_problem(record)
    moments = record.moments or _last_moment(record)
    if problem is None or not moments:
        why = "a class has no samples" if problem is None else "there are too many classes"
        return Markup("<p class='empty'>{}</p>").format(f"No wheel: {why}.")
    homes, rings = class_homes(problem), None
    if theory.describes and theory.calibration is not None:
        rings = sent_by_solution(theory.calibration.solution, homes).places
    views = [
        network_view(problem, m.logits, m.bias, homes, rings, f"epoch {m.epoch:g}", m.epoch)
        for m in moments
    ]
    drawn: Wheel = wheel_of(problem, views, homes, title="Where every class is sent")
    return Markup(svg.draw(drawn, "wheel"))


def _last_moment(record: TrainingRecord) -> list[MeanLogits]:
    """Return the last measurement from class means, where mean logits were too many to be kept."""
    k = record.num_classes
    if k > MAX_DENSE_CLASSES:
        return []
    last, bias = record.history[-1], record.bias
    logits = record.weight @ record.class_means.T
    shift = np.zeros(k) if bias is None else bias
    return [MeanLogits.of(last["epoch"], int(last["step"]), logits, shift)]


# -- sentences and tables --------------------------------------------------------------------------


def _known(record: TrainingRecord, theory: TheoryAnswer) -> Iterator[str]:
    kept = f"{len(record.labels):,}" if len(record.labels) else "no"
    yield (
        f"Known is what the callback saw: class means, classifier, accuracies and {kept} features. "
        "Nothing is known of the rest of the training: its optimiser, schedule and regularisation, "
        "augmentation, held-out samples, and whether it has ended."
    )
    if record.on_training_set is None:
        yield "Assumed: the loader that was given is the training set, whose property collapse is."
    elif not record.on_training_set:
        yield "Not the training set was measured, which collapse and the theory are about."
    problem, fit = recorded_problem(record), theory.calibration
    if problem is None or problem is not record.problem:
        bias = "" if record.bias is None else ", and the bias does not decay"
        because = "" if record.problem is None else "; the given problem is one of other counts"
        yield (
            "Assumed: the loss is cross-entropy without class weights, label smoothing or other "
            f"terms{bias}{because}."
        )
    else:
        yield f"Given: the network was trained as {problem!r}. Its decays were not taken."
    if fit is None:
        yield "Found: no decays; the theory was not asked, or the features do not pull as it says."
    else:
        yield (
            f"Found: weight decay {fit.weight_decay:.4g} and feature decay {fit.feature_decay:.4g} "
            "are those that come nearest to holding classifier and features where they are; what "
            f"is left over is {fit.weight_error:.0%} and {fit.feature_error:.0%} of their pull. "
            "They are effective ones, not what is written in the training's configuration."
        )
    yield from (f"{note[0].upper()}{note[1:]}." for note in record.notes)


def _metrics(record: TrainingRecord) -> Table:
    ends = [record.history[0], record.history[-1]][: len(record.history)]
    rows = [
        [label, *(row.get(key) for row in ends)]
        for key, label in {**METRIC_NAMES, "accuracy": "accuracy"}.items()
        if any(row.get(key) is not None for row in ends)
    ]
    columns: list[str | Column] = ["metric"]
    columns += [Column(f"epoch {row['epoch']:g}", align="right", format=".4g") for row in ends]
    title = "First and last measurement" if len(ends) > 1 else "The measurement"
    return Table(title, columns, rows)


def _charts(record: TrainingRecord) -> Iterator[Chart]:
    """Yield the metrics over the epochs, and the distances to every target."""
    for key, label in METRIC_NAMES.items():
        log = key != "nc4"
        curve = _curve(record, key, "measured", "measured", log=log)
        if curve is not None:
            name, _, detail = label.partition(", ")
            yield over_epochs(name[0].upper() + name[1:], detail, [curve], log=log)
    curve = _curve(record, "accuracy", "measured", "measured", log=False)
    if curve is not None:
        yield over_epochs("Accuracy", "", [curve])
    parts = ("classifier", "centered_means", "centered_logits")
    targets = dict.fromkeys(
        name.removeprefix(f"{parts[0]}_to_")
        for row in record.history
        for name in row
        if name.startswith(f"{parts[0]}_to_")
    )
    for target in targets:
        drawn = [
            _curve(record, f"{part}_to_{target}", part.replace("_", " "), i, log=True)
            for i, part in enumerate(parts)
        ]
        name = target.replace("_", " ").replace("etf", "ETF")
        yield over_epochs(f"Distance to {name}", "", [c for c in drawn if c], log=True)


def _curve(
    record: TrainingRecord, key: str, label: str, color: str | int, *, log: bool
) -> Curve | None:
    def drawn(value: Any) -> float | None:
        there = value is not None and math.isfinite(value) and (value > 0 or not log)
        return float(value) if there else None

    values = [drawn(row.get(key)) for row in record.history]
    if all(value is None for value in values):
        return None
    epochs = [float(row["epoch"]) for row in record.history]
    return Curve(label, epochs, values, color)
