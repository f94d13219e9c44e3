"""What is drawn, without a plotting library: both backends draw the same panels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.style import margin_label
from tightframe.runs.store import SettingRecord
from tightframe.runs.tables import (
    METRIC_NAMES,
    PART_NAMES,
    certified,
    group_name,
    predicted_groups,
    predicted_metrics,
    problem_groups,
    with_group_terms,
)

#: With more groups than this, margins are drawn over the groups, not over training.
MAX_MARGIN_PANELS = 6


@dataclass(frozen=True)
class Line:
    """One curve, or a horizontal line across the panel.

    Attributes
    ----------
    label : str
    role : str
        A key of `tightframe.figures.style.COLORS`.
    x, y : list of float; None in y where there is nothing to draw
    markers : bool
        Points instead of a line.
    dashed : bool
    """

    label: str
    role: str
    x: list[float]
    y: list[float | None]
    markers: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes
    ----------
    key : str
        Unique among the panels of a setting.
    title, x_label, y_label : str
    lines : list of Line
        Empty if nothing was measured.
    log : bool
        Whether a log scale is asked for; `log_y` is what is drawn.
    ticks : list of (position, label) or None
        Of the x axis, where it is not a number line.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    lines: list[Line] = field(default_factory=list)
    log: bool = False
    ticks: list[tuple[float, str]] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is no point to draw."""
        return not self._drawn

    @property
    def log_y(self) -> bool:
        """Whether the y axis is logarithmic: only from a decade on, else it has no labels."""
        drawn = self._drawn
        return self.log and bool(drawn) and max(drawn) >= 10 * min(drawn)

    @property
    def _drawn(self) -> list[float]:
        return [value for line in self.lines for value in line.y if value is not None]


@dataclass(frozen=True)
class HeatMap:
    """One square matrix on a diverging scale, classes sorted by group.

    Attributes
    ----------
    key, title : str
    values : ndarray, shape (k, k), or None
        None if it is not there yet.
    classes : list of int
        Which classes the rows and columns are.
    limit : float
        The scale runs from minus to plus this; the same for all maps of a setting.
    ticks : list of (position, label)
        Sample counts (and class weights), one label a group at its middle.
    borders : list of float
        Between the groups.
    """

    key: str
    title: str
    values: NDArray[np.float64] | None
    classes: list[int]
    limit: float
    ticks: list[tuple[float, str]]
    borders: list[float]


def loss_panels(setting: SettingRecord) -> list[Panel]:
    """Return the objective with the certified bound, and the difference on a log scale."""
    bound = (setting.prediction or {}).get("lower_bound")
    objective = _curve(setting, "objective", "measured", "training objective")
    lines = [objective] if objective else []
    if objective and bound is not None:
        label = "certified lower bound" if certified(setting) else "lower bound (not tight)"
        lines.append(_level(objective, "bound", label, bound))
    excess = _curve(setting, "excess", "measured", "objective minus bound", log=True)
    return [
        Panel("objective", "Training objective", "epoch", "objective", lines),
        Panel(
            "excess",
            "Distance left to the bound",
            "epoch",
            "objective above bound",
            [excess] if excess else [],
            True,
        ),
    ]


def distance_panels(setting: SettingRecord) -> list[Panel]:
    """Return the distances of every part to the prediction and to the ETF."""
    panels = []
    for part, name in PART_NAMES.items():
        lines = [
            _curve(setting, f"{part}_to_predicted", "predicted", "to predicted", log=True),
            _curve(setting, f"{part}_to_etf", "etf", "to ETF", log=True, dashed=True),
        ]
        panels.append(
            Panel(
                f"distance-{part}",
                name.capitalize(),
                "epoch",
                "normalised distance",
                [line for line in lines if line],
                True,
            )
        )
    return panels


def margin_panels(setting: SettingRecord) -> list[Panel]:
    """Return measured against predicted margins, a panel a group or all groups in one."""
    groups = predicted_groups(setting)
    if len(groups) > MAX_MARGIN_PANELS:
        return [_margins_by_group(setting)]
    panels = []
    for i, group in enumerate(groups):
        measured = _curve(setting, f"group{i}_margin", "measured", "measured")
        lines = []
        if measured:
            lines = [measured, _level(measured, "predicted", "predicted", group["margin"])]
        state = "collapse" if group["collapsed"] else "stay distinct"
        title = f"{group_name(group)}: predicted to {state}"
        panels.append(Panel(f"margin-{i}", title, "epoch", _margin_axis(setting), lines))
    return panels


def _margins_by_group(setting: SettingRecord) -> Panel:
    groups = predicted_groups(setting)
    places = [float(i) for i in range(len(groups))]
    predicted = [_finite(group["margin"]) for group in groups]
    lines = [Line("predicted", "predicted", places, predicted, markers=True)]
    history = setting.history
    if history is not None and len(history):
        columns = [f"group{i}_margin" for i in range(len(groups))]
        last = [_finite(history[column].iloc[-1]) for column in columns]
        lines.append(Line("measured", "measured", places, last, markers=True))
    names = [with_group_terms(str(group["count"]), group) for group in groups]
    ticks = list(zip(places, names, strict=True))
    return Panel(
        "margin-all",
        "Margin of every group at the end",
        "samples per class",
        _margin_axis(setting),
        lines,
        ticks=_thinned(ticks),
    )


def _margin_axis(setting: SettingRecord) -> str:
    assert setting.problem is not None  # or it would have no groups
    return margin_label(setting.problem.loss)


def collapse_panels(setting: SettingRecord) -> list[Panel]:
    """Return the collapse metrics over training."""
    targets = predicted_metrics(setting)
    panels = []
    for key, name in METRIC_NAMES.items():
        target = targets.get(key)
        log = key != "nc4" and target is None
        line = _curve(setting, key, "measured", "measured", log=log)
        lines = [line] if line else []
        if line and target is not None:
            lines.append(_level(line, "predicted", "predicted", target))
        title, _, detail = name.partition(", ")
        title = title[0].upper() + title[1:]
        panels.append(Panel(key, title, "epoch", detail, lines, log))
    return panels


def heat_maps(setting: SettingRecord, max_classes: int = 256) -> list[HeatMap]:
    """Return predicted and measured mean logits and their difference, on one scale.

    Parameters
    ----------
    setting : SettingRecord
    max_classes : int
        With more classes than this, evenly chosen ones are shown.
    """
    problem, arrays = setting.problem, setting.prediction_arrays
    if problem is None or arrays is None:
        return []
    order = np.argsort(problem.class_groups, kind="stable")
    if len(order) > max_classes:
        order = order[np.linspace(0, len(order) - 1, max_classes).round().astype(np.intp)]
    chosen = np.ix_(order, order)
    predicted = arrays["logits"][chosen]
    measured = None if setting.final is None else setting.final["logits"][chosen]
    limit = float(np.abs(predicted).max())
    difference = None
    title = "Measured minus predicted"
    if setting.final is not None and measured is not None:
        difference = measured - predicted
        limit = max(limit, float(np.abs(measured).max()))
        largest = np.abs(setting.final["logits"] - arrays["logits"]).max()  # of all classes
        title += f" (largest {largest:.2g})"
    groups = problem.class_groups[order]
    borders = (np.flatnonzero(np.diff(groups)) + 0.5).tolist()
    edges = [-0.5, *borders, len(order) - 0.5]
    known = problem_groups(problem)
    shown = [known[i] for i in dict.fromkeys(groups.tolist())]
    ticks = [
        ((low + high) / 2, _tick_name(group))
        for low, high, group in zip(edges, edges[1:], shown, strict=False)
    ]
    shared = ([int(k) for k in order], limit or 1.0, _thinned(ticks), borders)
    return [
        HeatMap("heat-predicted", "Predicted logits", predicted, *shared),
        HeatMap("heat-measured", "Measured logits", measured, *shared),
        HeatMap("heat-difference", title, difference, *shared),
    ]


def _tick_name(group: Mapping[str, Any]) -> str:
    count, classes = group["count"], group["classes"]
    return with_group_terms(f"{classes} of {count}" if classes > 1 else f"{count}", group)


def _curve(
    setting: SettingRecord,
    column: str,
    role: str,
    label: str,
    *,
    log: bool = False,
    dashed: bool = False,
) -> Line | None:
    """Return a history column as a line; None if there is nothing of it to draw."""
    history = setting.history
    if history is None or column not in history:
        return None
    y = [_finite(value, positive=log) for value in history[column]]
    if all(value is None for value in y):
        return None
    return Line(label, role, [float(x) for x in history["epoch"]], y, dashed=dashed)


def _level(like: Line, role: str, label: str, value: float | None) -> Line:
    """Return a horizontal line as wide as a curve."""
    level = _finite(value)
    return Line(label, role, [like.x[0], like.x[-1]], [level, level], dashed=True)


def _finite(value: float | None, *, positive: bool = False) -> float | None:
    """Return what can be drawn: not NaN, infinity, or on a log axis zero and below."""
    if value is None or not math.isfinite(value) or (positive and value <= 0):
        return None
    return float(value)


def _thinned(ticks: list[tuple[float, str]], most: int = 12) -> list[tuple[float, str]]:
    return ticks[:: -(-len(ticks) // most)] if ticks else ticks
