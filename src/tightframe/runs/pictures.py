"""The pictures of a run as data: panels of a setting, and sheets of them."""

from __future__ import annotations

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
    Panel,
    Sheet,
    evenly,
)
from tightframe.figures.style import margin_kind, margin_label
from tightframe.runs.panels import (
    NOTHING,
    chart_sheet,
    history_curve,
    level_line,
    loss_charts,
    over_epochs,
    setting_line,
    sheet_title,
    thinned,
    with_end_values,
)
from tightframe.runs.store import RunRecord, SettingRecord
from tightframe.runs.tables import (
    METRIC_NAMES,
    PART_NAMES,
    group_name,
    predicted_groups,
    predicted_metrics,
    predicted_state,
    predicted_states,
    problem_groups,
    with_group_terms,
)

#: With more groups than this, margins are drawn over the groups, not over training.
MAX_MARGIN_PANELS = 6


# -- panels, by a key that is unique among those of a setting --------------------------------------


def distance_charts(setting: SettingRecord) -> dict[str, Chart]:
    """Return the distances of every part to the prediction and to the ETF."""
    charts = {}
    for part, name in PART_NAMES.items():
        curves = [
            history_curve(setting, f"{part}_to_predicted", "measured", "to predicted", log=True),
            history_curve(setting, f"{part}_to_etf", "etf", "to ETF", log=True, style="dashed"),
        ]
        charts[f"distance-{part}"] = over_epochs(
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
        measured = history_curve(setting, f"group{i}_margin", "measured", "measured")
        curves = []
        if measured:
            curves = [measured, level_line(measured, "predicted", "predicted", group["margin"])]
        title = f"{group_name(group)}: predicted {predicted_state(group)}"
        charts[f"margin-{i}"] = over_epochs(title, _margin_axis(setting, [group]), curves)
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
        x_ticks=thinned(list(zip(places, names, strict=True))),
        legend="inside",
        nothing=NOTHING,
    )


#: Rings, so that a measurement inside them is seen.
_PREDICTED: dict[str, Any] = {"hollow": True, "size": 1.9}


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
        curve = history_curve(setting, key, "measured", "measured", log=log)
        curves = [curve] if curve else []
        if curve and target is not None:
            curves.append(level_line(curve, "predicted", "predicted", target))
        title, _, detail = name.partition(", ")
        charts[key] = over_epochs(title[0].upper() + title[1:], detail, curves, log=log)
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
        ticks=thinned(ticks),
        classes=[int(k) for k in order],
        scale_label="logit",
        nothing=NOTHING,
    )


# -- sheets ----------------------------------------------------------------------------------------


def setting_sheets(setting: SettingRecord) -> dict[str, Sheet]:
    """Return the pictures of a setting by their names in a file."""
    maps = heat_maps(setting)
    no_prediction = Chart("", "", "", [], nothing="no prediction yet")
    return {
        "loss": chart_sheet(
            setting, "training objective and certified bound", loss_charts(setting), columns=2
        ),
        "distance": chart_sheet(
            setting, "distance to the prediction and to the ETF", distance_charts(setting), 2
        ),
        "margin": chart_sheet(
            setting, "margins inside the class groups", margin_charts(setting), 2
        ),
        "collapse": chart_sheet(setting, "collapse metrics", collapse_charts(setting), 3),
        "logits": Sheet(
            sheet_title(setting, "mean logits"),
            [Block([maps or no_prediction], 3 if maps else 1, 4.0)],
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
        with_end_values(replace(loss, title="Objective falls onto the certified bound")),
        with_end_values(
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
    return Block(panels, 4, 3.45, setting_line(setting, states), (1.25, 1.25, 1, 1))


def _tick_name(group: Mapping[str, Any]) -> str:
    count, classes = group["count"], group["classes"]
    return with_group_terms(f"{classes} of {count}" if classes > 1 else f"{count}", group)
