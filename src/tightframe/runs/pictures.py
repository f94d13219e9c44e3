"""The pictures of a run as data: panels of a setting, and sheets of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from tightframe.figures.model import (
    Block,
    Chart,
    Curve,
    HeatMaps,
    Matrix,
    Note,
    Panel,
    Sheet,
    Tick,
    evenly,
)
from tightframe.figures.style import margin_kind, margin_label
from tightframe.figures.table import format_number
from tightframe.runs.store import RunRecord, SettingRecord
from tightframe.runs.tables import (
    METRIC_NAMES,
    PART_NAMES,
    certified,
    group_name,
    predicted_groups,
    predicted_metrics,
    predicted_state,
    predicted_states,
    problem_groups,
    setting_title,
    with_group_terms,
)

#: With more groups than this, margins are drawn over the groups, not over training.
MAX_MARGIN_PANELS = 6

_NOTHING = "no finite measurement"

#: Names on one axis, at most.
_MOST_TICKS = 12


# -- panels, by a key that is unique among those of a setting --------------------------------------


def loss_charts(setting: SettingRecord) -> dict[str, Chart]:
    """Return the objective with the certified bound, and the difference on a log scale."""
    bound = (setting.prediction or {}).get("lower_bound")
    objective = _curve(setting, "objective", "measured", "training objective")
    curves = [objective] if objective else []
    if objective and bound is not None:
        label = "certified lower bound" if certified(setting) else "lower bound (not tight)"
        curves.append(_level(objective, "bound", label, bound))
    excess = _curve(setting, "excess", "measured", "objective minus bound", log=True)
    left = "Distance left to the bound"
    return {
        "objective": _over_epochs("Training objective", "objective", curves),
        "excess": _over_epochs(left, "objective above bound", [excess] if excess else [], log=True),
    }


def distance_charts(setting: SettingRecord) -> dict[str, Chart]:
    """Return the distances of every part to the prediction and to the ETF."""
    charts = {}
    for part, name in PART_NAMES.items():
        curves = [
            _curve(setting, f"{part}_to_predicted", "predicted", "to predicted", log=True),
            _curve(setting, f"{part}_to_etf", "etf", "to ETF", log=True, style="dashed"),
        ]
        charts[f"distance-{part}"] = _over_epochs(
            name.capitalize(), "normalised distance", [c for c in curves if c], log=True
        )
    return charts


def margin_charts(setting: SettingRecord) -> dict[str, Chart]:
    """Return measured against predicted margins, a chart a group or all groups in one."""
    groups = predicted_groups(setting)
    if len(groups) > MAX_MARGIN_PANELS:
        return {"margin-all": _margins_by_group(setting)}
    charts = {}
    for i, group in enumerate(groups):
        measured = _curve(setting, f"group{i}_margin", "measured", "measured")
        curves = []
        if measured:
            curves = [measured, _level(measured, "predicted", "predicted", group["margin"])]
        title = f"{group_name(group)}: predicted {predicted_state(group)}"
        charts[f"margin-{i}"] = _over_epochs(title, _margin_axis(setting, [group]), curves)
    return charts


def _margins_by_group(setting: SettingRecord) -> Chart:
    groups = predicted_groups(setting)
    places = [float(i) for i in range(len(groups))]
    predicted = [group["margin"] for group in groups]
    curves = [Curve("predicted", places, predicted, "predicted", "points", **_PREDICTED)]
    history = setting.history
    if history is not None and len(history):
        last = [history[f"group{i}_margin"].iloc[-1] for i in range(len(groups))]
        curves.append(Curve("measured", places, last, "measured", "points", size=1.3))
    names = [with_group_terms(str(group["count"]), group) for group in groups]
    return Chart(
        "Every group at the end",
        "samples per class",
        _margin_axis(setting, groups),
        curves,
        x_ticks=_thinned(list(zip(places, names, strict=True))),
        legend="inside",
        nothing=_NOTHING,
    )


#: Points of a prediction, so that a measurement inside them is seen.
_PREDICTED: dict[str, Any] = {"marker": "square", "hollow": True, "size": 1.4}


def _margin_axis(setting: SettingRecord, groups: Sequence[Mapping[str, Any]]) -> str:
    assert setting.problem is not None  # or it would have no groups
    kind = margin_kind(group["classes"] for group in groups)
    return margin_label(setting.problem.loss, kind)


def collapse_charts(setting: SettingRecord) -> dict[str, Chart]:
    """Return the collapse metrics over training."""
    targets = predicted_metrics(setting)
    charts = {}
    for key, name in METRIC_NAMES.items():
        target = targets.get(key)
        log = key != "nc4" and target is None
        curve = _curve(setting, key, "measured", "measured", log=log)
        curves = [curve] if curve else []
        if curve and target is not None:
            curves.append(_level(curve, "predicted", "predicted", target))
        title, _, detail = name.partition(", ")
        charts[key] = _over_epochs(title[0].upper() + title[1:], detail, curves, log=log)
    return charts


def heat_maps(setting: SettingRecord, max_classes: int = 256) -> HeatMaps | None:
    """Return predicted and measured mean logits and their difference, on one scale.

    Parameters
    ----------
    setting : SettingRecord
    max_classes : int
        With more classes than this, evenly chosen ones are shown.

    Returns
    -------
    HeatMaps or None
        None without a prediction; classes are sorted by group.
    """
    problem, arrays = setting.problem, setting.prediction_arrays
    if problem is None or arrays is None:
        return None
    order = np.argsort(problem.class_groups, kind="stable")
    order = order[evenly(len(order), max_classes)]
    chosen = np.ix_(order, order)
    predicted = arrays["logits"][chosen]
    measured = difference = None
    title = "Measured minus predicted"
    if setting.final is not None:
        measured = setting.final["logits"][chosen]
        difference = measured - predicted
        largest = np.abs(setting.final["logits"] - arrays["logits"]).max()  # of all classes
        title += f" (largest {largest:.2g})"
    there = [predicted] if measured is None else [predicted, measured]
    groups = problem.class_groups[order]
    borders = [float(i + 1) for i in np.flatnonzero(np.diff(groups))]
    known = problem_groups(problem)
    shown = [known[i] for i in dict.fromkeys(groups.tolist())]
    edges = [0.0, *borders, float(len(order))]
    ticks = [
        ((low + high - 1) / 2, _tick_name(group))
        for (low, high), group in zip(pairwise(edges), shown, strict=True)
    ]
    return HeatMaps(
        "Mean logits",
        [
            Matrix("Predicted logits", predicted),
            Matrix("Measured logits", measured),
            Matrix(title, difference),
        ],
        borders=borders,
        limit=max(float(np.abs(matrix).max()) for matrix in there) or 1.0,
        ticks=_thinned(ticks),
        classes=[int(k) for k in order],
        scale_label="logit",
        nothing=_NOTHING,
    )


# -- sheets ----------------------------------------------------------------------------------------


def setting_sheets(setting: SettingRecord) -> dict[str, Sheet]:
    """Return the pictures of a setting by their names in a file."""
    maps = heat_maps(setting)
    no_prediction = Chart("", "", "", [], nothing="no prediction yet")
    return {
        "loss": _grid(
            setting, "training objective and certified bound", loss_charts(setting), columns=2
        ),
        "distance": _grid(
            setting, "distance to the prediction and to the ETF", distance_charts(setting), 2
        ),
        "margin": _grid(setting, "margins inside the class groups", margin_charts(setting), 2),
        "collapse": _grid(setting, "collapse metrics", collapse_charts(setting), 3),
        "logits": Sheet(
            _title(setting, "mean logits"), [Block([maps or no_prediction], 3 if maps else 1, 4.0)],
            13.0,
        ),
    }  # fmt: skip


def summary_sheet(run: RunRecord) -> Sheet:
    """Return every setting in one row: loss, distances, predicted and measured logits."""
    none = Block([Chart("", "", "", [], nothing="no setting")], 1, 4.0)
    return Sheet("", [_summary_row(setting) for setting in run.settings] or [none], 16.0)


def _summary_row(setting: SettingRecord) -> Block:
    few = 0 < len(predicted_groups(setting)) <= 3
    states = f"predicted {predicted_states(setting)}" if few else ""
    losses = loss_charts(setting)
    loss = losses["objective"] if losses["excess"].empty else losses["excess"]
    maps = heat_maps(setting)
    panels: list[Panel] = [
        _with_end_values(replace(loss, title="Objective falls onto the certified bound")),
        _with_end_values(
            replace(
                distance_charts(setting)["distance-logits"],
                title="Logits: distance to prediction and ETF",
            )
        ),
    ]
    if maps is None:
        panels += [Chart("", "", "", [], nothing="no prediction yet")] * 2
    else:
        panels.append(replace(maps, maps=maps.maps[:2]))
    return Block(panels, 4, 3.45, _setting_line(setting, states), (1.25, 1.25, 1, 1))


def _with_end_values(chart: Chart) -> Chart:
    """Write the last value of every curve at its end."""
    notes = [
        Note(curve.x[-1], last, format_number(last, 2), curve.color)
        for curve in chart.curves
        if (last := curve.y[-1]) is not None
    ]
    return replace(chart, notes=notes)


def _grid(setting: SettingRecord, what: str, charts: Mapping[str, Chart], columns: int) -> Sheet:
    panels = list(charts.values()) or [Chart("", "", "", [], nothing=_NOTHING)]
    columns = min(len(panels), columns)
    return Sheet(_title(setting, what), [Block(panels, columns, 3.0)], 4.75 * columns)


def _title(setting: SettingRecord, what: str) -> str:
    return f"{what[0].upper()}{what[1:]}\n{_setting_line(setting)}"


def _setting_line(setting: SettingRecord, states: str = "") -> str:
    text = ": ".join(part for part in (setting_title(setting), states) if part)
    return text if setting.finished else f"{text} [unfinished]"


# -- what the panels share -------------------------------------------------------------------------


def _over_epochs(title: str, y_label: str, curves: Sequence[Curve], *, log: bool = False) -> Chart:
    drawn = [value for curve in curves for value in curve.y if value is not None]
    single = all(len(curve.x) == 1 for curve in curves)
    return Chart(
        title,
        "epoch",
        y_label,
        curves,
        # Only from a decade on, or the axis has no labels.
        log_y=log and bool(drawn) and max(drawn) >= 10 * min(drawn),
        x_range=(0, 1 if single else None),
        whole=("x",),
        legend="inside",
        nothing=_NOTHING,
    )


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
    style: str = "solid",
) -> Curve | None:
    """Return a history column as a curve; None if there is nothing of it to draw."""
    history = setting.history
    if history is None or column not in history:
        return None
    y = [value if _is_drawn(value, log) else None for value in history[column]]
    if all(value is None for value in y):
        return None
    return Curve(label, [float(x) for x in history["epoch"]], y, role, style)


def _level(like: Curve, role: str, label: str, value: float | None) -> Curve:
    """Return a horizontal line as wide as a curve."""
    return Curve(label, [like.x[0], like.x[-1]], [value, value], role, "dashed")


def _is_drawn(value: float | None, positive: bool) -> bool:
    return value is not None and math.isfinite(value) and (value > 0 or not positive)


def _thinned(ticks: list[Tick]) -> list[Tick]:
    return ticks[:: -(-len(ticks) // _MOST_TICKS)] if ticks else ticks
