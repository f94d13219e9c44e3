"""The pictures of a run on text as data: panels of a setting, and sheets of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import Block, Chart, Curve, HeatMaps, Mark, Matrix, Panel, Sheet
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
from tightframe.runs.text_tables import TextSetting, Vectors, cosines_of
from tightframe.training.context_measures import singular_values

#: Tokens in a heat map, at most.
MOST_TOKENS = 48

_PARTS = {
    "logits": "Logits",
    "classifier": "Classifier",
    "means": "Context features",
}


def text_distance_charts(setting: SettingRecord) -> dict[str, Chart]:
    """Return the distances of every part to the prediction, of the classifier to the ETF too."""
    charts = {}
    for part, name in _PARTS.items():
        curves = [
            history_curve(setting, f"{part}_to_predicted", "measured", "to predicted", log=True)
        ]
        if part == "classifier":
            curves.append(
                history_curve(
                    setting, "classifier_to_etf", "etf", "to ETF", log=True, style="dashed"
                )
            )
        known = [curve for curve in curves if curve]
        charts[f"distance-{part}"] = over_epochs(name, "normalised distance", known, log=True)
    return charts


def law_charts(setting: SettingRecord) -> dict[str, Chart]:
    """Return how near the network's laws are to the text's, with what is predicted."""
    goal = (setting.prediction or {}).get("row") or {}
    kinds = {
        "divergence": ("Divergence from the text's law", "nats", True),
        "train_accuracy": ("Likeliest token right", "share of the places", False),
    }
    charts = {}
    for key, (title, unit, log) in kinds.items():
        measured = history_curve(setting, key, "measured", "measured", log=log)
        curves = [measured] if measured else []
        if measured and goal.get(key) is not None:
            curves.append(level_line(measured, "predicted", "predicted", goal[key]))
        charts[key] = over_epochs(title, unit, curves, log=log)
    return charts


def spectrum_chart(setting: SettingRecord) -> Chart:
    """Return the singular values of the logits, predicted and measured: the width in use."""
    view = TextSetting.of(setting)
    curves: list[Curve] = []
    marks: list[Mark] = []
    if view is not None:
        rank = int((setting.prediction or {}).get("rank") or 0)
        curves.append(_spectrum(view, view.predicted, "predicted", rank))
        if view.measured is not None:
            measured = _spectrum(view, view.measured, "measured")
            curves.append(replace(measured, size=0.8))
        marks.append(Mark(rank + 0.5, f"certified rank {rank}", in_legend=True))
    return Chart(
        "Singular values of the logits",
        "direction",
        "value",
        [curve for curve in curves if curve.x],
        marks=marks if curves and curves[0].x else [],
        log_y=True,
        whole=("x",),
        legend="inside",
        nothing=NOTHING,
    )


def _spectrum(view: TextSetting, side: Vectors, role: str, most: int | None = None) -> Curve:
    values = singular_values(view.problem, side.classifier, side.features.T)[:most]
    hollow: dict[str, Any] = {"hollow": True, "size": 1.9}
    look = hollow if role == "predicted" else {}
    places = [float(i + 1) for i in range(len(values))]
    return Curve(role, places, values.tolist(), role, "points", **look)


def token_maps(
    setting: SettingRecord, most: int = MOST_TOKENS, named: int = MOST_TOKENS
) -> HeatMaps | None:
    """Return the cosines between the classifier's rows, predicted and measured, like ones together.

    Parameters
    ----------
    setting : SettingRecord
    most, named : int
        How many tokens there are at most, the most frequent ones, and how many names beside them.

    Returns
    -------
    HeatMaps or None
        None without a prediction.
    """
    view = TextSetting.of(setting)
    if view is None:
        return None
    chosen = view.frequent_tokens(most)
    order = chosen[_leaves(cosines_of(view.predicted.classifier[chosen]))]
    predicted = cosines_of(view.predicted.classifier[order])
    measured, title = None, "Measured cosines"
    if view.measured is not None:
        measured = cosines_of(view.measured.classifier[order])
        apart = np.abs(measured - predicted)
        if np.isfinite(apart).any():
            title += f" (at most {np.nanmax(apart):.2g} from predicted)"
    names = [view.tokens[v] for v in order.tolist()]
    ticks = [(float(i), name) for i, name in enumerate(names)]
    short = max(map(len, names)) <= 2
    return HeatMaps(
        "Cosines between tokens",
        [Matrix("Predicted cosines", predicted), Matrix(title, measured)],
        "",
        "",
        limit=1.0,
        ticks=thinned(ticks, named) if short else thinned(ticks),
        names_below=short,
        names=names,
        scale_label="cosine",
        nothing=NOTHING,
    )


def _leaves(cosines: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return an order in which like vectors are neighbours: the leaves of their tree."""
    if len(cosines) < 3:
        return np.arange(len(cosines))
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    # Cosines of equal vectors may exceed one by rounding.
    apart = np.maximum(1 - np.nan_to_num(cosines, nan=0.0), 0.0)
    np.fill_diagonal(apart, 0.0)
    tree = linkage(squareform((apart + apart.T) / 2), "average", optimal_ordering=True)
    return np.asarray(leaves_list(tree), dtype=np.intp)


# -- sheets ----------------------------------------------------------------------------------------


def text_sheets(setting: SettingRecord) -> dict[str, Sheet]:
    """Return the pictures of a setting by their names in a file."""
    maps = token_maps(setting)
    none = Chart("", "", "", [], nothing="no prediction yet")
    width = {"width": spectrum_chart(setting)}
    return {
        "loss": chart_sheet(
            setting, "training objective and certified bound", loss_charts(setting), 2
        ),
        "distance": chart_sheet(
            setting, "distance to the prediction and to the ETF", text_distance_charts(setting), 3
        ),
        "law": chart_sheet(setting, "laws of the next token", law_charts(setting) | width, 3),
        "tokens": Sheet(
            sheet_title(setting, "tokens"), [Block([maps or none], 2 if maps else 1, 5.0)], 11.0
        ),
    }


def text_summary(run: RunRecord) -> Sheet:
    """Return every setting in one row: loss, distances, spectrum, tokens."""
    none = Block([Chart("", "", "", [], nothing="no setting")], 1, 4.0)
    return Sheet("", [_summary_row(setting) for setting in run.settings] or [none], 16.0)


def _summary_row(setting: SettingRecord) -> Block:
    losses = loss_charts(setting)
    loss = losses["objective"] if losses["excess"].empty else losses["excess"]
    classifier = text_distance_charts(setting)["distance-classifier"]
    maps = token_maps(setting)
    panels: list[Panel] = [
        with_end_values(replace(loss, title="Objective falls onto the certified bound")),
        with_end_values(replace(classifier, title="Classifier: distance to prediction and ETF")),
        spectrum_chart(setting),
        Chart("", "", "", [], nothing="no prediction yet")
        if maps is None
        else replace(maps, maps=maps.maps[1:2] if setting.final is not None else maps.maps[:1]),
    ]
    return Block(panels, 4, 3.45, setting_line(setting), (1.25, 1.25, 1, 1))
