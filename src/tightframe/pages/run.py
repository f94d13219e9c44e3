"""The self-contained HTML report: one file, no request to anywhere."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from tightframe.figures.style import COLORS, DIVERGING, LIGHT
from tightframe.pages.page import flatten, render_page, rounded, write_page
from tightframe.problem.problem import Problem
from tightframe.runs.pictures import (
    HeatMap,
    Line,
    Panel,
    collapse_panels,
    distance_panels,
    heat_maps,
    loss_panels,
    margin_panels,
)
from tightframe.runs.store import RunRecord, SettingRecord, load_run
from tightframe.runs.tables import (
    certified,
    format_number,
    group_name,
    headline,
    metric_rows,
    overview,
    predicted_groups,
    setting_thresholds,
    setting_title,
    verdicts,
)

# All numbers of the plots together; with Plotly's 4.8 MB the file stays under 6 MB.
_MAX_POINTS = 24_000
_LINES = 24  # of a setting, about
_DIGITS = 7  # of a number in a plot; the tables hold all of them


def write_report(
    run_folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> Path:
    """Write the report of a run, finished or not, as one HTML file.

    The file holds its scripts and styles and asks nothing of the network; it has no time stamp, so
    the same record gives the same bytes.

    Parameters
    ----------
    run_folder : path-like
        As written by `tightframe.runs.train.run`.
    out : path-like, optional
        The file to write, atomically; ``report.html`` in the run folder by default.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the folder holds no run or a damaged one.
    """
    path = Path(run_folder) / "report.html" if out is None else Path(out)
    return write_page(path, render(load_run(run_folder)))


def render(run: RunRecord) -> str:
    """Return the report of a run as HTML text."""
    plots: dict[str, Any] = {}
    budget = _MAX_POINTS // max(len(run.settings), 1)
    settings = [
        _setting_view(setting, f"s{i}", plots, budget) for i, setting in enumerate(run.settings)
    ]
    return render_page(
        "report.html",
        plots,
        {"number": _number_cell},
        title=f"Neural collapse on {run.config.get('data', 'data')}, "
        f"counts {run.config.get('counts', 'n/a')}",
        overview=overview(run),
        settings=settings,
        configuration=flatten(run.config),
        environment=flatten(run.environment),
        seed=run.config.get("seed"),
        config_hash=run.config_hash,
        colors=COLORS,
    )


# -- one setting -----------------------------------------------------------------------------------


def _setting_view(
    setting: SettingRecord, anchor: str, plots: dict[str, Any], budget: int
) -> dict[str, Any]:
    """Return what the template shows of a setting; its plots are added to ``plots``."""
    per_line = max(budget // (2 * _LINES), 20)
    per_map = max(math.isqrt(budget // 6), 8)

    def section(panels: list[Panel]) -> list[dict[str, str]]:
        views = []
        for panel in panels:
            name = f"{anchor}-{panel.key}"
            if not panel.empty:
                plots[name] = _panel_plot(panel, per_line)
            views.append(
                {
                    "name": "" if panel.empty else name,
                    "title": panel.title,
                    "alt": _panel_text(panel),
                }
            )
        return views

    maps = []
    for heat in heat_maps(setting, per_map):
        name = f"{anchor}-{heat.key}"
        if heat.values is not None:
            plots[name] = _heat_plot(heat)
        maps.append(
            {
                "name": "" if heat.values is None else name,
                "title": heat.title,
                "alt": f"{heat.title}: a {len(heat.classes)} by {len(heat.classes)} heat map from "
                f"{format_number(-heat.limit, 3)} to {format_number(heat.limit, 3)}.",
            }
        )
    problem = setting.problem
    history = setting.history
    return {
        "anchor": anchor,
        "name": setting.name,
        "title": setting_title(setting),
        "headline": headline(setting),
        "finished": setting.finished,
        "certified": certified(setting),
        "prediction": _prediction_facts(setting),
        "predicted": setting.prediction is not None,
        "note": (setting.prediction or {}).get("note"),
        "groups": group_rows(setting),
        "verdicts": [_verdict_view(verdict) for verdict in verdicts(setting)],
        "rows": metric_rows(setting),
        "loss": section(loss_panels(setting)),
        "distances": section(distance_panels(setting)),
        "margins": section(margin_panels(setting)),
        "collapse": section(collapse_panels(setting)),
        "maps": maps,
        "thinned": history is not None and len(history) > per_line,
        "sampled": problem is not None and problem.num_classes > per_map,
        "seconds": (setting.result or {}).get("seconds"),
    }


def _prediction_facts(setting: SettingRecord) -> list[tuple[str, Any]]:
    """Return names and values of the prediction."""
    prediction, problem = setting.prediction, setting.problem
    if prediction is None or problem is None:
        return []
    facts: list[tuple[str, Any]] = [
        ("samples per class", problem.compact_counts),
        ("samples, classes", f"{problem.num_samples}, {problem.num_classes}"),
        ("loss", problem.loss.replace("_", "-")),
        *_loss_facts(problem),
        ("bias", _bias_text(problem.bias, problem.bias_decay)),
        ("features", problem.features),
        ("linear layers", problem.depth),
        ("weight decay", _decay_text(problem.weight_decays)),
        ("feature decay", problem.feature_decay),
    ]
    if problem.depth == 1:
        facts.append(("λ, √(weight decay · feature decay)", problem.logit_decay))
    else:
        facts.append(("λ, geometric mean of all decays", problem.mean_decay))
    limits = setting_thresholds(setting)
    if limits is not None:
        facts.append(("everything collapses from λ", limits.total_collapse))
    return [
        *facts,
        ("rank of the logits", prediction.get("rank")),
        ("objective", prediction.get("objective")),
        ("certified lower bound", prediction.get("lower_bound")),
        ("certified gap", prediction.get("gap")),
        ("status", str(prediction.get("status", "n/a")).replace("_", " ")),
        ("method", prediction.get("method")),
        ("seconds to solve", prediction.get("seconds")),
    ]


def group_rows(setting: SettingRecord) -> list[dict[str, Any]]:
    """Return the table of a setting's class groups: predicted, measured, verdict."""
    limits = setting_thresholds(setting)
    places = [] if limits is None else [group.logit_decay for group in limits.groups]
    found = verdicts(setting)
    rows = []
    for i, group in enumerate(predicted_groups(setting)):
        verdict = found[i] if i < len(found) else {}
        rows.append(
            {
                "name": group_name(group),
                "threshold": places[i] if i < len(places) else None,
                "margin": group.get("margin"),
                "predicted": "collapsed" if group.get("collapsed") else "distinct",
                "measured_margin": verdict.get("measured_margin"),
                "measured": verdict.get("measured"),
            }
        )
    return rows


def _verdict_view(verdict: Mapping[str, Any]) -> dict[str, str]:
    agrees = verdict.get("agrees")
    if agrees is None:
        kind, mark = "open", "? too close to tell"
    else:
        kind, mark = ("agrees", "✓ agrees") if agrees else ("differs", "✗ differs")
    return {"kind": kind, "mark": mark, "sentence": str(verdict.get("sentence", ""))}


def _loss_facts(problem: Problem) -> list[tuple[str, Any]]:
    given = problem.to_dict()
    names = [name for name in ("class_weights", "logit_adjustment") if name in given]
    return [(name.replace("_", " "), given[name]) for name in names]


def _bias_text(bias: str, decay: float) -> str:
    return {"none": "no bias", "free": "free, not decayed"}.get(bias, f"decayed, {decay:g}")


def _decay_text(decays: tuple[float, ...]) -> Any:
    return decays[0] if len(set(decays)) == 1 else ", ".join(f"{decay:g}" for decay in decays)


def _number_cell(value: Any) -> Any:
    """Return a number for reading, with all its digits for machines; text as it is."""
    if isinstance(value, (str, int)):
        return str(value)
    text = format_number(value)
    if value is None or not math.isfinite(value):
        return Markup('<span class="note">{}</span>').format(text)
    return Markup('<data value="{}">{}</data>').format(repr(float(value)), text)


# -- plots -----------------------------------------------------------------------------------------


def _panel_text(panel: Panel) -> str:
    """Return a panel in words, for those who do not see it."""
    if panel.empty:
        return f"{panel.title}: no finite measurement."
    parts = []
    for line in panel.lines:
        drawn = [value for value in line.y if value is not None]
        if not drawn:
            continue
        if len(drawn) == 1 or drawn[0] == drawn[-1]:
            parts.append(f"{line.label} {format_number(drawn[-1], 3)}")
        elif line.markers:
            low, high = format_number(min(drawn), 3), format_number(max(drawn), 3)
            parts.append(f"{line.label} between {low} and {high}")
        else:
            start, end = format_number(drawn[0], 3), format_number(drawn[-1], 3)
            parts.append(f"{line.label} from {start} to {end}")
    return f"{panel.title}: {'; '.join(parts)}."


def _panel_plot(panel: Panel, per_line: int) -> dict[str, Any]:
    """Return a panel as Plotly's data and layout."""
    x_axis: dict[str, Any] = {"title": _axis_title(panel.x_label), "rangemode": "tozero"}
    if panel.ticks is not None:
        places, names = zip(*panel.ticks, strict=True)
        x_axis |= {"tickvals": places, "ticktext": names, "rangemode": "normal"}
    y_axis: dict[str, Any] = {"title": _axis_title(panel.y_label)}
    if panel.log_y:
        y_axis |= {"type": "log", "exponentformat": "power", "dtick": 1}
    return {
        "data": [_trace(line, per_line) for line in panel.lines],
        "layout": {
            "xaxis": x_axis,
            "yaxis": y_axis,
            "height": 290,
            "margin": {"l": 62, "r": 12, "t": 28, "b": 42},
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
            "showlegend": True,
            "hovermode": "x unified",
        },
    }


def _trace(line: Line, per_line: int) -> dict[str, Any]:
    count = min(len(line.x), per_line)
    chosen = np.linspace(0, len(line.x) - 1, count).round().astype(int).tolist()
    color = COLORS[line.role]
    points = line.markers or len(line.x) == 1
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": line.label,
        "x": [line.x[i] for i in chosen],
        "y": [rounded(line.y[i], _DIGITS) for i in chosen],
        "mode": "markers" if points else "lines",
        "hovertemplate": "%{y:.5g}",
    }
    if points:
        symbol = "square-open" if line.role == "predicted" else "circle"
        trace["marker"] = {"color": color, "size": 10, "symbol": symbol}
    else:
        trace["line"] = {"color": color, "width": 2.5, "dash": "dash" if line.dashed else "solid"}
    return trace


def _heat_plot(heat: HeatMap) -> dict[str, Any]:
    """Return a matrix as Plotly's data and layout."""
    assert heat.values is not None
    last = len(DIVERGING) - 1
    places = [place for place, _ in heat.ticks]
    names = [name for _, name in heat.ticks]
    axis = {"tickvals": places, "ticktext": names, "showgrid": False, "zeroline": False}
    edge = len(heat.classes) - 0.5
    lines = heat.borders if len(heat.borders) <= len(heat.classes) // 2 else []
    stroke = {"color": LIGHT.muted, "width": 1}
    shapes = []
    for place in lines:
        shapes.append(
            {"type": "line", "x0": place, "x1": place, "y0": -0.5, "y1": edge, "line": stroke}
        )
        shapes.append(
            {"type": "line", "x0": -0.5, "x1": edge, "y0": place, "y1": place, "line": stroke}
        )
    return {
        "data": [
            {
                "type": "heatmap",
                "z": [[rounded(value, _DIGITS) for value in row] for row in heat.values.tolist()],
                "customdata": [
                    [f"logit {j} of class {k}" for k in heat.classes] for j in heat.classes
                ],
                "zmin": -heat.limit,
                "zmax": heat.limit,
                "colorscale": [[i / last, color] for i, color in enumerate(DIVERGING)],
                "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 0.9},
                "hovertemplate": "%{customdata}: %{z:.4f}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": axis
            | {"title": _axis_title("class of the samples"), "constrain": "domain", "tickangle": 0},
            "yaxis": axis
            | {
                "title": _axis_title("logit of class"),
                "autorange": "reversed",
                "scaleanchor": "x",
                "constrain": "domain",
                "tickangle": -90 if len(names) <= 4 else 0,
            },
            "height": 330,
            "margin": {"l": 58, "r": 8, "t": 10, "b": 48},
            "shapes": shapes,
        },
    }


def _axis_title(text: str) -> dict[str, Any]:
    return {"text": text, "standoff": 8}
