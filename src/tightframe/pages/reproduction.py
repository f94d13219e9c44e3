"""The self-contained HTML page of a reproduction: verdicts first, then figure by figure."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tightframe.figures.model import Chart, Curve, HeatMaps, Mark, Panel, Table, points
from tightframe.figures.style import DIVERGING, LIGHT
from tightframe.files import format_json
from tightframe.pages.page import flatten, render_page, rounded, write_page
from tightframe.reproduce.folder import FigureRecord, Reproduction, load_reproduction
from tightframe.reproduce.plots import curve_color
from tightframe.reproduce.spec import NOT_REPRODUCED, OUTCOMES, REPRODUCED, UNDECIDED, Verdict
from tightframe.runs.tables import format_number

#: With more maps than this, one at a time is shown and a slider chooses.
_MAX_MAPS = 4

_DIGITS = 5  # of a number in a plot; the Parquet tables hold all of them
_TEXT = 160  # characters of a setting

_BADGES = {
    REPRODUCED: ("agrees", "✓"),
    NOT_REPRODUCED: ("differs", "✗"),
    UNDECIDED: ("open", "!"),
}
_OPEN = ("open", "?")
_DASHES = {"dashed": "dash", "dotted": "dot"}


def write_reproduction(
    folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> Path:
    """Write the page of a reproduction, finished or not, as one HTML file.

    The file holds its scripts and styles and asks nothing of the network; it has no time stamp, so
    the same record gives the same bytes.

    Parameters
    ----------
    folder : path-like
        As written by `tightframe.reproduce.folder.reproduce`; ``tasks`` may be missing.
    out : path-like, optional
        The file to write, atomically; ``report.html`` in the folder by default.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the folder holds no reproduction or a damaged one.
    """
    path = Path(folder) / "report.html" if out is None else Path(out)
    return write_page(path, render(load_reproduction(folder)))


def render(reproduction: Reproduction) -> str:
    """Return the page as HTML text."""
    plots: dict[str, Any] = {}
    figures = [
        _figure_view(record, f"f{i}", plots) for i, record in enumerate(reproduction.figures)
    ]
    papers: dict[str, dict[str, Any]] = {}
    for view in figures:
        paper = papers.setdefault(
            view["paper"], {"citation": view["citation"], "url": view["url"], "figures": []}
        )
        paper["figures"].append(view)
    return render_page(
        "reproduction.html",
        plots,
        {"cell": _cell},
        overview=_overview(reproduction),
        scale=reproduction.config["scale"],
        papers=list(papers.values()),
        counts=_outcome_counts(reproduction),
        config_hash=reproduction.config_hash,
        environment=flatten({**reproduction.config, **reproduction.environment}, _shortened),
    )


# -- text ------------------------------------------------------------------------------------------


def _outcome_counts(reproduction: Reproduction) -> list[tuple[str, str, int]]:
    """Return the badge, name and number of every outcome."""
    found = Counter(v.outcome for record in reproduction.figures for v in record.verdicts)
    return [(_badge(outcome)[0], outcome, found[outcome]) for outcome in OUTCOMES]


def _overview(reproduction: Reproduction) -> str:
    figures = reproduction.figures
    papers = len({record.name.partition("/")[0] for record in figures})
    text = (
        f"{len(figures)} {'figure' if len(figures) == 1 else 'figures'} of {papers} "
        f"{'paper' if papers == 1 else 'papers'}, run at scale {reproduction.config['scale']}. For "
        "every claim: what the paper says, what the theory predicts (computed, not quoted), what "
        "was measured, and the rule with its number that decides between them."
    )
    open_ = sum(not record.finished for record in figures)
    if open_:
        text += f" {open_} of the figures {'is' if open_ == 1 else 'are'} unfinished."
    failed = sum(len(record.failed) for record in figures)
    if failed:
        text += f" {failed} {'run' if failed == 1 else 'runs'} failed, listed with the reasons."
    return text


def _badge(outcome: str) -> tuple[str, str]:
    return _BADGES.get(outcome, _OPEN)


def _figure_view(record: FigureRecord, anchor: str, plots: dict[str, Any]) -> dict[str, Any]:
    """Return what the template shows of a figure; its plots are added to ``plots``."""
    return {
        **record.about,
        "anchor": anchor,
        "name": record.name,
        "paper": record.name.partition("/")[0],
        "short": record.name.partition("/")[2],
        "finished": record.finished,
        "progress": f"{record.num_done} of {record.num_tasks} tasks have ended",
        "verdicts": [_verdict_view(verdict) for verdict in record.verdicts],
        "panels": [
            _panel_view(panel, f"{anchor}-{i}", plots) for i, panel in enumerate(record.panels)
        ],
        "failed": list(record.failed),
        "not_converged": list(record.not_converged),
        "error": record.error,
        "settings": _settings(record.tasks),
    }


def _verdict_view(verdict: Verdict) -> dict[str, Any]:
    kind, mark = _badge(verdict.outcome)
    return {**verdict.to_dict(), "kind": kind, "mark": mark}


def _cell(value: Any) -> Any:
    """Return an entry for reading, with all its digits for machines."""
    if value is None:
        return Markup('<span class="note">n/a</span>')
    if isinstance(value, (str, int)):
        return str(value)
    return Markup('<data value="{}">{}</data>').format(repr(float(value)), format_number(value))


def _settings(tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the tasks of each kind share, and what they differ in."""
    views = []
    for kind in dict.fromkeys(task["kind"] for task in tasks):
        own = [task for task in tasks if task["kind"] == kind]
        flat = [dict(flatten(_compact(task["arguments"]), _shortened)) for task in own]
        names = list(dict.fromkeys(name for values in flat for name in values))
        shared, varied = [], []
        for name in names:
            values = [values.get(name, "default") for values in flat]
            if len(set(values)) == 1:
                shared.append((name, values[0]))
            else:
                varied.append((name, _shortened(", ".join(dict.fromkeys(values)))))
        seconds = [task["seconds"] for task in own if task["seconds"] is not None]
        views.append(
            {
                "kind": kind,
                "count": len(own),
                "seconds": math.fsum(seconds),
                "shared": shared,
                "varied": varied,
            }
        )
    return views


def _compact(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with a list of problems as what they share and what varies."""
    values = dict(arguments)
    problems = values.pop("problems", None)
    if problems:
        values["problems"] = len(problems)
        for name in problems[0]:
            found = list(dict.fromkeys(format_json(p[name]).strip('"') for p in problems))
            values[f"problem.{name}"] = ", ".join(found)
    return values


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 12]} … {text[-9:]}"


# -- panels ----------------------------------------------------------------------------------------


def _panel_view(panel: Panel, name: str, plots: dict[str, Any]) -> dict[str, Any]:
    view: dict[str, Any] = {"title": panel.title, "note": panel.note, "kind": "plots", "plots": []}
    if isinstance(panel, Table):
        return view | {"kind": "table", "columns": panel.columns, "rows": panel.rows}
    if panel.empty:
        return view | {"kind": "empty"}
    drawn: list[tuple[str, str, dict[str, Any]]] = []
    if isinstance(panel, Chart):
        drawn = [("", _chart_text(panel), _chart_plot(panel))]
    elif len(panel.maps) > _MAX_MAPS:
        drawn = [("", _maps_text(panel), _maps_plot(panel, range(len(panel.maps))))]
    else:
        for i, matrix in enumerate(panel.maps):
            drawn.append((matrix.title, f"Heat map: {matrix.title}", _maps_plot(panel, [i])))
    for i, (title, text, plot) in enumerate(drawn):
        plots[f"{name}-{i}"] = plot
        view["plots"].append({"name": f"{name}-{i}", "title": title, "alt": text})
    return view


def _chart_text(chart: Chart) -> str:
    """Return a chart in words, for those who do not see it."""
    parts = []
    for curve in chart.curves:
        _, y = points(chart, curve)
        if y:
            parts.append(
                f"{curve.label} from {format_number(y[0], 3)} to {format_number(y[-1], 3)}"
            )
    parts += [f"{mark.label} at {format_number(mark.value, 3)}" for mark in chart.marks]
    return f"{chart.title}; {chart.y_label} over {chart.x_label}: {'; '.join(parts)}."


def _maps_text(panel: HeatMaps) -> str:
    names = f"{panel.maps[0].title} to {panel.maps[-1].title}"
    return f"{panel.title}: {len(panel.maps)} heat maps, {names}, chosen with a slider."


def _chart_plot(chart: Chart) -> dict[str, Any]:
    """Return a chart as Plotly's data and layout."""
    data = []
    for i, curve in enumerate(chart.curves):
        data += _band(chart, curve, f"c{i}")
        data.append(_trace(chart, curve, f"c{i}"))
    shapes, annotations = [], []
    for mark in chart.marks:
        shape, annotation = _mark(chart, mark)
        shapes.append(shape)
        annotations.append(annotation)
    return {
        "data": data,
        "layout": {
            "xaxis": _axis(chart.x_label, chart.log_x),
            "yaxis": _axis(chart.y_label, chart.log_y) | _powers(chart),
            "height": 400,
            "margin": {"l": 62, "r": 14, "t": 14, "b": 42},
            "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
            "showlegend": any(curve.label for curve in chart.curves),
            "hovermode": "x unified",
            "shapes": shapes,
            "annotations": annotations,
        },
    }


def _axis(title: str, log: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": title, "standoff": 8}}
    if log:
        axis |= {"type": "log", "exponentformat": "power"}
    return axis


def _powers(chart: Chart) -> dict[str, Any]:
    """Label the powers of ten only, on a logarithmic axis that shows several."""
    drawn = [y for curve in chart.curves for y in points(chart, curve)[1]]
    several = chart.log_y and bool(drawn) and max(drawn) >= 100 * min(drawn)
    return {"dtick": 1} if several else {}


def _trace(chart: Chart, curve: Curve, group: str) -> dict[str, Any]:
    x, y = points(chart, curve)
    color = curve_color(curve.color)
    marked = "points" in curve.style or len(x) == 1
    lined = curve.style != "points"
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": curve.label,
        "legendgroup": group,
        "showlegend": bool(curve.label),
        "x": [rounded(v, _DIGITS) for v in x],
        "y": [rounded(v, _DIGITS) for v in y],
        "mode": "+".join(["lines"] * lined + ["markers"] * marked),
        "hovertemplate": "%{y:.4g}",
        "marker": {"color": color, "size": 7},
        "line": {"color": color, "width": 2.2, "dash": _DASHES.get(curve.style, "solid")},
    }
    return trace


def _band(chart: Chart, curve: Curve, group: str) -> list[dict[str, Any]]:
    if curve.low is None or curve.high is None:
        return []
    edges = [
        (x, low, high)
        for x, low, high in zip(curve.x, curve.low, curve.high, strict=True)
        if low is not None and high is not None and not (chart.log_y and min(low, high) <= 0)
    ]
    if not edges:
        return []
    x = [edge[0] for edge in edges]
    return [
        {
            "type": "scatter",
            "x": [rounded(v, _DIGITS) for v in [*x, *reversed(x)]],
            "y": [
                rounded(v, _DIGITS) for v in [e[1] for e in edges] + [e[2] for e in reversed(edges)]
            ],
            "fill": "toself",
            "mode": "none",
            "legendgroup": group,
            "showlegend": False,
            "hoverinfo": "skip",
            "fillcolor": curve_color(curve.color),
            "opacity": 0.18,
        }
    ]


def _mark(chart: Chart, mark: Mark) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a line and its label."""
    color = curve_color(mark.color)
    stroke = {"color": color, "width": 1.5, "dash": "dot"}
    upright = mark.axis == "x"
    own, other = ("x", "y") if upright else ("y", "x")
    shape = {
        "type": "line",
        f"{own}0": mark.value,
        f"{own}1": mark.value,
        f"{other}0": 0,
        f"{other}1": 1,
        f"{other}ref": "paper",
        "line": stroke,
    }
    # Plotly takes the place of an annotation, unlike that of a shape, in logarithms.
    log = chart.log_x if upright else chart.log_y
    place = math.log10(mark.value) if log else mark.value
    annotation = {
        "text": mark.label,
        own: place,
        other: 1,
        f"{other}ref": "paper",
        "xanchor": "right",
        "yanchor": "top" if upright else "bottom",
        "textangle": -90 if upright else 0,
        "showarrow": False,
        "font": {"color": color, "size": 11},
    }
    return shape, annotation


def _maps_plot(panel: HeatMaps, chosen: Sequence[int]) -> dict[str, Any]:
    """Return one heat map, or several of which a slider shows one."""
    last = len(DIVERGING) - 1
    traces = []
    for place, i in enumerate(chosen):
        traces.append(
            {
                "type": "heatmap",
                "z": [[rounded(value, _DIGITS) for value in row] for row in panel.maps[i].values],
                "zmin": -panel.scale,
                "zmax": panel.scale,
                "visible": place == 0,
                "colorscale": [[k / last, color] for k, color in enumerate(DIVERGING)],
                "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 0.9},
                "hovertemplate": "row %{y}, column %{x}: %{z:.4g}<extra></extra>",
            }
        )
    rows, columns = len(panel.maps[0].values), len(panel.maps[0].values[0])
    stroke = {"color": LIGHT.muted, "width": 1}
    shapes = []
    for border in panel.borders:
        line = {"type": "line", "line": stroke}
        at = border - 0.5
        shapes.append(line | {"x0": at, "x1": at, "y0": -0.5, "y1": rows - 0.5})
        shapes.append(line | {"x0": -0.5, "x1": columns - 0.5, "y0": at, "y1": at})
    axis: dict[str, Any] = {"showgrid": False, "zeroline": False, "constrain": "domain"}
    layout: dict[str, Any] = {
        "xaxis": _axis(panel.x_label, False) | axis,
        "yaxis": _axis(panel.y_label, False) | axis | {"autorange": "reversed", "scaleanchor": "x"},
        "height": 340,
        "margin": {"l": 52, "r": 8, "t": 10, "b": 44},
        "shapes": shapes,
    }
    if len(traces) > 1:
        layout["height"] = 450
        layout["sliders"] = [
            {
                "active": 0,
                "pad": {"t": 48, "b": 6},
                "currentvalue": {"prefix": ""},
                "steps": [
                    {
                        "label": panel.maps[i].title,
                        "method": "restyle",
                        "args": [{"visible": [k == place for k in range(len(traces))]}],
                    }
                    for place, i in enumerate(chosen)
                ],
            }
        ]
    return {"data": traces, "layout": layout}
