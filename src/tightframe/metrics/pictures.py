"""A collapse report as a DataFrame, a table and a picture; each is loaded on request."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import (
    Bars,
    Block,
    Chart,
    Curve,
    HeatMaps,
    Matrix,
    Panel,
    Sheet,
    Tick,
)
from tightframe.figures.style import PALETTE
from tightframe.figures.table import Column, Table
from tightframe.metrics.readings import describe_missing
from tightframe.metrics.registry import TO_TARGET
from tightframe.metrics.targets import TARGET_PARTS
from tightframe.problem.class_names import shown_names
from tightframe.shown import frame

if TYPE_CHECKING:
    import pandas as pd


#: A number of a report: metric, part, target, value.
Row = tuple[str, str, str, float]


class Report(Protocol):
    """What is read of a `tightframe.metrics.CollapseReport`, which is made of nothing here."""

    @property
    def num_samples(self) -> int: ...  # noqa: D102
    @property
    def counts(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def class_names(self) -> tuple[str, ...] | None: ...  # noqa: D102
    @property
    def missing(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def min_count(self) -> int: ...  # noqa: D102
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def rows(self) -> Sequence[Row]: ...  # noqa: D102
    @property
    def logits(self) -> NDArray[np.float64]: ...  # noqa: D102
    def norms(self) -> Mapping[str, NDArray[np.float64]]: ...  # noqa: D102


#: Metrics in the title of the picture.
_HEADLINE = ("nc1", "cdnv", "nc4", "nc5")

#: Logits of more classes than this would be smaller than the picture's dots.
_MOST_PIXELS = 1000

#: With more classes than this, points on a line would be a thicker line.
_MOST_POINTS = 100

#: At most so many classes are named on an axis, by names of so many letters.
_MOST_TICKS, _NAME_WIDTH = 10, 16


def frame_of(report: Report) -> pd.DataFrame:
    """Return the rows of a report as a DataFrame: metric, part, target, value."""
    names = ("metric", "part", "target", "value")
    columns = zip(*report.rows, strict=True) if report.rows else [()] * len(names)
    return frame(dict(zip(names, columns, strict=True))).astype({"value": "float64"})


def rows_of(report: Report, rows: Sequence[Row], note: str = "") -> Table:
    """Return rows of a report as a table, in sections of one target or one part."""
    about = [
        target if metric in TO_TARGET else tuple(part.split()[:2])
        for metric, part, target, _ in rows
    ]
    notes = [describe_missing(report.missing, report.min_count)] if report.missing else []
    return Table(
        f"Neural collapse: {report.num_samples} samples, {len(report.counts)} classes",
        ["metric", "part", "target or group", Column("value", align="right", format=".6g")],
        [list(row) for row in rows],
        note=" ".join(filter(None, [*notes, *report.notes, note])),
        sections=[i for i in range(1, len(about)) if about[i] != about[i - 1]],
    )


def distances_chart(report: Report) -> Chart:
    """Return the distances to the targets."""
    return _distances(report.rows)


def sheet_of(report: Report) -> Sheet:
    """Return distances to the targets, norms by class, and mean logits."""
    rows = report.rows
    panels = [_distances(rows), _norms(report), _logits(report)]
    return Sheet(_headline(report, rows), [Block(panels, 3, 4.2, widths=(1.3, 1.1, 1))], 15.0)


def _headline(report: Report, rows: Sequence[Row]) -> str:
    shown = [f"{metric.upper()} {v:.3g}" for metric, _, _, v in rows if metric in _HEADLINE]
    return f"{report.num_samples} samples, {len(report.counts)} classes: " + ", ".join(shown)


def _distances(rows: Sequence[Row]) -> Chart:
    # By part and target; those of a deep head's layers have other parts.
    values = {
        (part, target): value
        for metric, part, target, value in rows
        if metric in TO_TARGET and part in TARGET_PARTS and math.isfinite(value)
    }
    targets = list(dict.fromkeys(target for _, target in values))
    high = 0.8 / max(len(targets), 1)
    bars = []
    for i, target in enumerate(targets):
        own = [(k, part) for k, part in enumerate(TARGET_PARTS) if (part, target) in values]
        places = [k + (i + 0.5) * high - 0.4 for k, _ in own]
        repeated = i >= len(PALETTE)
        color = i % len(PALETTE)
        bars.append(
            Bars(
                target,
                places,
                [values[part, target] for _, part in own],
                color,
                high,
                across=True,
                hatched=repeated,
            )
        )
    names = [(float(i), part.replace("_", " ")) for i, part in enumerate(TARGET_PARTS)]
    return Chart(
        "Normalised distance (0 to 2)",
        "",
        "",
        [],
        bars=bars,
        y_ticks=names,
        downwards=True,
        nothing="no distance is defined",
    )


def _norms(report: Report) -> Panel:
    curves = []
    for color, (part, values) in enumerate(report.norms().items()):
        mean = float(np.nanmean(values))
        if mean > 0 and color < len(PALETTE):
            places = [float(k) for k in range(len(values))]
            style = "line+points" if len(values) <= _MOST_POINTS else "solid"
            name = part.replace("_", " ")
            curves.append(Curve(name, places, (values / mean).tolist(), color, style))
    return Chart(
        "Norms, over their mean",
        "" if report.class_names else "class",
        "norm / mean norm",
        curves,
        x_ticks=_class_ticks(report) if report.class_names else None,
        y_range=(0, None),
        whole=("x",),
        legend="inside",
        nothing="all vectors are zero",
    )


def _logits(report: Report) -> Panel:
    k = len(report.counts)
    nothing = "a class is missing" if report.missing else "too many classes to draw"
    if report.missing or k > _MOST_PIXELS:
        return Chart("Mean logits", "", "", [], nothing=nothing)
    return HeatMaps(
        "", [Matrix("Mean logits", report.logits)], ticks=_class_ticks(report), scale_label="logit"
    )


def _class_ticks(report: Report) -> list[Tick]:
    """Return the names of some classes at their places, or their labels."""
    k = len(report.counts)
    chosen = range(0, k, -(-k // _MOST_TICKS))
    if report.class_names is None:
        return [(float(i), str(i)) for i in chosen]
    names = shown_names([report.class_names[i] for i in chosen], _NAME_WIDTH)
    return [(float(i), name) for i, name in zip(chosen, names, strict=True)]
