"""The Plotly backend: every panel of `figures.model` as data and layout, for pages and explorer."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from tightframe.figures import style
from tightframe.figures.diagrams import MergeTree, Wheel
from tightframe.figures.model import (
    Area,
    Cells,
    Chart,
    Curve,
    HeatMaps,
    Mark,
    Mesh,
    Panel,
    Stack,
    Table,
    Tick,
    band,
    drawn,
    evenly,
    has_points,
)
from tightframe.figures.style import DARK, LIGHT, Ink, color_of, log_ticks

_DASHES = {"dashed": "dash", "dotted": "dot", "dashdot": "dashdot"}
_SYMBOLS = {"up": "triangle-up", "right": "triangle-right", "cross": "x-thin", "half": "circle"}

#: Colours of a light page to those of a dark one, for pages that change when they are read.
DARKER = style.DARK_COLORS | {
    LIGHT.text: DARK.text,
    LIGHT.muted: DARK.muted,
    LIGHT.grid: DARK.grid,
    LIGHT.paper: DARK.paper,
}

_LEGENDS: dict[str, dict[str, Any]] = {
    # Plotly finds no free place inside; above is the nearest to it. On a phone ten names would take
    # half of the picture: what is above a fifth scrolls.
    "inside": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "maxheight": 0.2},
    "below": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
}

#: Of the height of a stack, between two of its charts.
_GAP = 0.1


@dataclass(frozen=True)
class Options:
    """How a figure is written, on a page or in the explorer.

    Parameters
    ----------
    ink : Ink, optional
        None: light data colours, and the page sets the rest by `ground`.
    digits : int
        Of every number, significant.
    most_points : int, optional
        Of a curve with more, evenly chosen ones are kept.
    packed : bool
        Whether matrices are sent as packed numbers of four bytes.
    height : int, optional
        In pixels; by default as high as its place.
    """

    ink: Ink | None = None
    digits: int = 7
    most_points: int | None = None
    packed: bool = False
    height: int | None = None

    @property
    def colors(self) -> Ink:
        """The ink that colours are chosen for."""
        return self.ink or LIGHT


_PAGE = Options()


def draw(panel: Panel, options: Options = _PAGE) -> dict[str, Any]:
    """Return a panel as Plotly's data and layout.

    Parameters
    ----------
    panel : Panel
        Of several `HeatMaps` one is seen and a slider chooses.
    options : Options

    Raises
    ------
    ValueError
        If it is a wheel or a merge tree, which `figures.svg` draws.
    """
    if isinstance(panel, (Wheel, MergeTree)):
        raise ValueError(f"panel: got a {type(panel).__name__}, which figures.svg draws")
    if isinstance(panel, Chart):
        figure = _stack([panel], [1.0], options)
    elif isinstance(panel, Stack):
        figure = _stack(panel.charts, panel.heights, options)
    elif isinstance(panel, HeatMaps):
        figure = _maps(panel, options)
    else:
        figure = _table(panel)
    layout = figure["layout"]
    if options.height is not None:
        layout["height"] = options.height
    if options.ink is not None:
        about = ground(options.ink)
        modebar = about["layout"]["modebar"] | layout.get("modebar", {})
        figure["layout"] = about["layout"] | layout | {"modebar": modebar}
        for name in [key for key in layout if key[1:].startswith("axis")]:
            axis = layout[name]
            axis |= about["axis"] | {"tickfont": axis["tickfont"] | {"color": options.ink.muted}}
    return figure


def ground(ink: Ink) -> dict[str, Any]:
    """Return what every figure on a ground has: its layout and each of its axes."""
    return {
        "layout": {
            "paper_bgcolor": ink.paper,
            "plot_bgcolor": ink.paper,
            "font": {"color": ink.text, "size": 12, "family": style.FAMILY},
            "hoverlabel": {
                "bgcolor": ink.paper,
                "bordercolor": ink.grid,
                "font": {"color": ink.text},
            },
            "modebar": {
                "bgcolor": "rgba(0,0,0,0)",
                "color": ink.muted,
                "activecolor": ink.text,
            },
        },
        "axis": {"gridcolor": ink.grid, "linecolor": ink.grid, "zerolinecolor": ink.grid},
    }


def blank() -> dict[str, Any]:
    """Return a figure with nothing in it, on any ground."""
    hidden, clear = {"visible": False}, "rgba(0,0,0,0)"
    layout = {"xaxis": hidden, "yaxis": hidden, "paper_bgcolor": clear, "plot_bgcolor": clear}
    layout["modebar"] = {"bgcolor": clear}
    return {"data": [], "layout": layout}


def script() -> str:
    """Return Plotly's own JavaScript, for pages that ask nothing of the network."""
    import plotly.offline

    return str(plotly.offline.get_plotlyjs())


# -- charts ----------------------------------------------------------------------------------------


def _stack(charts: Sequence[Chart], heights: Sequence[float], options: Options) -> dict[str, Any]:
    """Return charts above each other over one x axis."""
    data: list[dict[str, Any]] = []
    last = charts[-1]
    layout: dict[str, Any] = {
        "xaxis": _axis(last, "x") | ({"anchor": f"y{len(charts)}"} if charts[1:] else {}),
        "margin": {"l": 8, "r": 10 if last.cells or last.mesh else 40, "t": 10, "b": 8},
        # Beside the picture: the legend may be as wide as it.
        "modebar": {"orientation": "v"},
        "hovermode": "closest" if any(c.cells or c.mesh or c.bars for c in charts) else "x unified",
        "shapes": [],
        "annotations": [],
        "showlegend": False,
    }
    for i, (chart, domain) in enumerate(zip(charts, _domains(heights), strict=True)):
        own = "" if i == 0 else str(i + 1)
        axis = _axis(chart, "y")
        layout[f"yaxis{own}"] = axis | ({"domain": domain} if charts[1:] else {})
        traces = _traces(chart, i, options)
        if chart.legend == "none":
            traces = [trace | {"showlegend": False} for trace in traces]
        data += [trace | {"yaxis": f"y{own}"} for trace in traces] if own else traces
        named = any(trace.get("showlegend", True) and trace.get("name") for trace in traces)
        for mark in chart.marks:
            shape, annotation = _mark(chart, mark, own, options, through=i == 0)
            layout["shapes"] += shape
            layout["annotations"] += annotation
            named |= mark.in_legend
        for note in chart.notes:
            layout["annotations"].append(
                _annotation(note.text, color_of(note.color, options.colors))
                | {"x": _place(chart, "x", note.x), "y": _place(chart, "y", note.y)}
                | {"xanchor": "right", "yanchor": "bottom", "yref": f"y{own}"}
            )
        if chart.legend != "none" and named:
            layout |= {"showlegend": True, "legend": _LEGENDS[chart.legend]}
    return {"data": data, "layout": layout}


def _domains(heights: Sequence[float]) -> list[list[float]]:
    """Return the part of a stack's height that every chart has, the first on top."""
    free = 1 - _GAP * (len(heights) - 1)
    ends, top = [], 1.0
    for height in heights:
        bottom = top - free * height / sum(heights)
        ends.append([max(round(bottom, 4), 0.0), round(top, 4)])
        top = bottom - _GAP
    return ends


def _axis(chart: Chart, name: str) -> dict[str, Any]:
    """Return an axis without its colours."""
    horizontal = name == "x"
    label = chart.x_label if horizontal else chart.y_label
    ticks = chart.x_ticks if horizontal else chart.y_ticks
    low, high = chart.x_range if horizontal else chart.y_range
    axis: dict[str, Any] = {
        "title": {"text": _plain(label), "standoff": 6},
        "automargin": True,
        "tickfont": {"size": 11},
    }
    if ticks is not None and (chart.log_x if horizontal else chart.log_y):
        ends = None if low is None or high is None else [math.log10(low), math.log10(high)]
        return axis | _named(ticks) | {"showgrid": False, "type": "log", "range": ends}
    if ticks is not None:
        axis |= _named(ticks) | {"showgrid": False}
    elif chart.log_x if horizontal else chart.log_y:
        return axis | _log_axis(chart, name, low, high)
    elif name in chart.whole:
        axis |= {"tickformat": ",d"}
    if low == 0 and high is None:
        axis["rangemode"] = "tozero"
    elif low is not None or high is not None:
        axis["range"] = [low, high]
    if chart.downwards and not horizontal:
        axis["autorange"] = "reversed"
    return axis


def _log_axis(chart: Chart, name: str, low: float | None, high: float | None) -> dict[str, Any]:
    axis: dict[str, Any] = {"type": "log"}
    if low is not None and high is not None:
        axis["range"] = [math.log10(low), math.log10(high)]
    places = log_ticks(*chart.span(name))
    if places is None:
        # Plotly writes powers of ten a quarter larger.
        return axis | {"dtick": 1, "exponentformat": "power", "tickfont": {"size": 9.5}}
    axis["tickformat"] = "~g"
    firsts = {f"{place:e}"[0] for place in places}
    return axis | ({"dtick": "D2"} if len(places) >= 3 and firsts <= set("125") else {})


def _named(ticks: Sequence[Tick]) -> dict[str, Any]:
    return {
        "tickvals": [place for place, _ in ticks],
        "ticktext": [_plain(text) for _, text in ticks],
    }


def _traces(chart: Chart, number: int, options: Options) -> list[dict[str, Any]]:
    traces = [] if chart.cells is None else _cells(chart, chart.cells, options)
    traces += [] if chart.mesh is None else _mesh(chart, chart.mesh, options)
    traces += [_area(area, options) for area in chart.areas]
    for bars in chart.bars:
        a, b = ("y", "x") if bars.across else ("x", "y")
        traces.append(
            {
                "type": "bar",
                "name": _plain(bars.label),
                a: bars.places,
                b: _rounded(bars.values, options),
                "width": bars.width,
                "orientation": "h" if bars.across else "v",
                "marker": {
                    "color": color_of(bars.color, options.colors),
                    "pattern": {"shape": "/" if bars.hatched else ""},
                },
                "hovertemplate": f"%{{{b}:.5g}}",
            }
        )
    for i, curve in enumerate(chart.curves):
        group = f"c{number}-{i}"
        traces += _band(chart, curve, group, options)
        traces += _seam(chart, curve, group, options)
        traces.append(_curve(chart, curve, group, options))
    if chart.shades is not None:
        traces.append(_shades(chart))
    return traces


def _curve(chart: Chart, curve: Curve, group: str, options: Options) -> dict[str, Any]:
    x, y, hollow = drawn(chart, curve)
    marked = has_points(curve, y)
    if options.most_points is not None and len(x) > options.most_points:
        chosen = evenly(len(x), options.most_points)
        x, y, hollow = [x[i] for i in chosen], [y[i] for i in chosen], [hollow[i] for i in chosen]
    color = _curve_color(chart, curve, options)
    label = "" if curve.shade is not None and chart.shades is not None else curve.label
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": _plain(curve.label),
        "legendgroup": group,
        "showlegend": bool(label),
        "x": _rounded(x, options),
        "y": _rounded(y, options),
        "mode": "+".join(["lines"] * curve.has_line + ["markers"] * marked),
        "hovertemplate": _hover(chart, curve),
    }
    if marked:
        trace["marker"] = _marker(curve, hollow, color, options)
    if curve.has_line:
        trace["line"] = {"color": color, "width": 2.4 * curve.width}
        if curve.dash in _DASHES:
            trace["line"]["dash"] = _DASHES[curve.dash]
        if curve.style == "steps":
            trace["line"]["shape"] = "hvh"
    return trace


def _hover(chart: Chart, curve: Curve) -> str:
    if chart.cells is None and chart.mesh is None:
        return "%{y:.5g}"
    return f"{_pointed(chart)}<extra>{_plain(curve.label)}</extra>"


def _pointed(chart: Chart) -> str:
    """Return the words for a place: the axes' symbols with what they are there."""
    x, y = (label.partition(" = ")[0] for label in (chart.x_label, chart.y_label))
    return f"{x} %{{x:.4g}}, {y} %{{y:.4g}}"


def _curve_color(chart: Chart, curve: Curve | Mark, options: Options) -> str:
    if curve.shade is not None and chart.shades is not None:
        return style.shade_of(chart.shades.fraction(curve.shade))
    return color_of(curve.color, options.colors)


def _marker(curve: Curve, hollow: Sequence[bool], color: str, options: Options) -> dict[str, Any]:
    plain = _SYMBOLS.get(curve.marker, curve.marker)
    symbols = [f"{plain}-open" if flag else plain for flag in hollow]
    symbol: Any = symbols[0] if len(set(symbols)) == 1 else symbols
    outline = {"width": 2.5, "color": color} if all(hollow) or curve.marker == "cross" else {}
    if curve.style == "points" and not outline and not any(hollow):
        outline = {"width": 1, "color": options.colors.paper}
    size = 1.3 * style.POINT * curve.size
    return {"color": color, "size": size, "symbol": symbol} | ({"line": outline} if outline else {})


def _band(chart: Chart, curve: Curve, group: str, options: Options) -> list[dict[str, Any]]:
    edges = band(chart, curve)
    if not edges:
        return []
    x = [edge[0] for edge in edges]
    return [
        {
            "type": "scatter",
            "x": _rounded([*x, *reversed(x)], options),
            "y": _rounded([e[1] for e in edges] + [e[2] for e in reversed(edges)], options),
            "fill": "toself",
            "mode": "none",
            "legendgroup": group,
            "showlegend": False,
            "hoverinfo": "skip",
            "fillcolor": _curve_color(chart, curve, options),
            "opacity": 0.18,
        }
    ]


def _seam(chart: Chart, curve: Curve, group: str, options: Options) -> list[dict[str, Any]]:
    """Return a wider line under a curve that lies on coloured cells."""
    if not curve.seam:
        return []
    x, y, _ = drawn(chart, curve)
    return [
        {
            "type": "scatter",
            "x": _rounded(x, options),
            "y": _rounded(y, options),
            "mode": "lines",
            "legendgroup": group,
            "showlegend": False,
            "hoverinfo": "skip",
            "line": {"color": options.colors.paper, "width": 5 * curve.width},
        }
    ]


def _cells(chart: Chart, cells: Cells, options: Options) -> list[dict[str, Any]]:
    low, high = cells.limits
    some = any(value is not None for row in cells.values for value in row)
    places = {"x": _rounded(cells.x, options), "y": _rounded(cells.y, options)}
    traces: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            **places,
            "z": [_rounded(row, options) for row in cells.values],
            "zmin": low,
            "zmax": high,
            "colorscale": _colorscale(style.SEQUENTIAL),
            "showscale": some,
            "colorbar": {
                "title": {"text": cells.label, "side": "right"},
                "thickness": 9,
                "outlinewidth": 0,
            },
            "hovertemplate": f"{_pointed(chart)}: %{{z:.4g}}<extra></extra>",
        }
    ]
    for state in cells.shown_states:
        area = style.area_of(state, options.colors)
        own = [[own == state for own in row] for row in cells.states]
        traces.append(
            {
                "type": "heatmap",
                **places,
                "z": [[1 if flag else None for flag in row] for row in own],
                "colorscale": [[0, area], [1, area]],
                "showscale": False,
                "hovertemplate": f"{_pointed(chart)}<extra>{state}</extra>",
            }
        )
        traces.append(_signs(cells, state, own, options))
    return traces


def _signs(
    cells: Cells, state: str, own: Sequence[Sequence[bool]], options: Options
) -> dict[str, Any]:
    """Return a state's mark in its cells, where Matplotlib has hatches: colour is never alone."""
    chosen = [(i, j) for i, row in enumerate(own) for j, flag in enumerate(row) if flag]
    marker = style.STATES[state].marker
    color = color_of(state, options.colors)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": state,
        "x": _rounded([cells.x[j] for _, j in chosen], options),
        "y": _rounded([cells.y[i] for i, _ in chosen], options),
        "marker": {
            "symbol": _SYMBOLS.get(marker, marker),
            "size": 4,
            "color": color,
            "line": {"width": 1, "color": color},
        },
        "hoverinfo": "skip",
    }


#: Columns and rows of the grid on which Plotly has a mesh.
_MESH = (72, 120)


def _mesh(chart: Chart, mesh: Mesh, options: Options) -> list[dict[str, Any]]:
    """Return a mesh as a fine heat map with contours; areas lie over what crosses its upper end."""
    forward = np.log if chart.log_x else np.asarray
    upward = np.log if chart.log_y else np.asarray
    columns, heights, values = forward(mesh.x), upward(mesh.y), np.array(mesh.values)
    x = np.linspace(columns[0], columns[-1], _MESH[0])
    y = np.linspace(heights.min(), heights.max(), _MESH[1])
    reach = np.linspace(0, 1, heights.shape[1])

    def across(grid: Any) -> Any:
        return np.array([np.interp(x, columns, own) for own in np.transpose(grid)])

    z = np.full((len(y), len(x)), np.nan)
    step = (y[1] - y[0]) * 1.5
    for i, (own, shown) in enumerate(zip(across(heights).T, across(values).T, strict=True)):
        place = np.interp(y, own, reach)
        z[:, i] = np.where(y <= own[-1] + step, np.interp(place, reach, shown), np.nan)
    back = np.exp if chart.log_x else np.asarray, np.exp if chart.log_y else np.asarray
    grid: dict[str, Any] = {
        "x": _rounded(back[0](x).tolist(), options),
        "y": _rounded(back[1](y).tolist(), options),
        "z": [_rounded([None if math.isnan(v) else v for v in row], options) for row in z.tolist()],
    }
    scale = {"zmin": mesh.bottom, "zmax": mesh.top, "showlegend": False}
    levels = mesh.levels
    return [
        {
            "type": "heatmap",
            **grid,
            **scale,
            "colorscale": _colorscale(style.margin_colors(options.colors)),
            "colorbar": {
                "title": {"text": mesh.label, "side": "right"},
                "thickness": 9,
                "outlinewidth": 0,
            },
            "hovertemplate": f"{_pointed(chart)}: %{{z:.4g}}<extra></extra>",
        },
        {
            "type": "contour",
            **grid,
            **scale,
            "autocontour": False,
            "contours": {
                "coloring": "none",
                "start": levels[0] if levels else 0.0,
                "end": levels[-1] if levels else -1.0,
                "size": levels[1] - levels[0] if levels[1:] else 1.0,
                "showlabels": True,
                "labelfont": {"size": 10, "color": options.colors.paper},
            },
            "line": {"width": 1, "color": options.colors.paper},
            "showscale": False,
            "hoverinfo": "skip",
        },
    ]


#: A state's hatch in Matplotlib's letters to Plotly's.
_HATCHES = {"//": "/", "\\\\": "\\", "xx": "x"}


def _area(area: Area, options: Options) -> dict[str, Any]:
    look = style.STATES[area.state]
    color = color_of(area.state, options.colors)
    fill = (
        style.whole_area(options.colors)
        if area.whole
        else style.area_of(area.state, options.colors)
    )
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": _plain(area.label),
        "x": _rounded([*area.x, *reversed(area.x)], options),
        "y": _rounded([*area.low, *reversed(area.high)], options),
        "mode": "lines",
        "line": {"width": 0, "color": color},
        "fill": "toself",
        "fillcolor": fill,
        "hoverinfo": "skip",
    }
    if not area.whole and look.hatch in _HATCHES:
        shape = {"shape": _HATCHES[look.hatch], "fgcolor": color, "bgcolor": fill, "size": 7}
        trace["fillpattern"] = shape | {"solidity": 0.12, "fillmode": "replace"}
    return trace


def _shades(chart: Chart) -> dict[str, Any]:
    """Return a trace without points that has the scale of a chart's shades."""
    shades = chart.shades
    assert shades is not None
    ends = [math.log10(end) for end in shades.ends]
    ticks = log_ticks(shades.low, shades.high) or [shades.low, shades.high]
    return {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "mode": "markers",
        "showlegend": False,
        "hoverinfo": "skip",
        "marker": {
            "color": [ends[0]],
            "cmin": ends[0],
            "cmax": ends[1],
            "colorscale": _colorscale([style.shade_of(i / 9) for i in range(10)]),
            "showscale": True,
            "colorbar": {
                "title": {"text": shades.label, "side": "right"},
                "thickness": 9,
                "outlinewidth": 0,
                "tickvals": [math.log10(tick) for tick in ticks],
                "ticktext": [f"{tick:g}" for tick in ticks],
            },
        },
    }


def _mark(
    chart: Chart, mark: Mark, own: str, options: Options, *, through: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a mark's line and its label; the line runs through all charts of a stack, or its own.

    Plotly takes the place of an annotation, unlike that of a shape, in logarithms.
    """
    color = _curve_color(chart, mark, options)
    upright = mark.axis == "x"
    a, b = ("x", "y") if upright else ("y", "x")
    across = "paper" if through or not upright else f"y{own} domain"
    place = {a: _place(chart, a, mark.value), f"{b}ref": across}
    if not upright:
        place["yref"] = f"y{own}"
    if mark.style == "triangle":
        sign = {"text": "▲" if upright else "▶", b: 0, "xanchor": "center", "yanchor": "middle"}
        return [], [_annotation("", color) | place | sign]
    line: dict[str, Any] = {"color": color, "width": 1.5}
    if mark.style in _DASHES:
        line["dash"] = _DASHES[mark.style]
    shape = {"type": "line", "line": line, f"{b}0": 0, f"{b}1": 1, f"{b}ref": across}
    shape |= {f"{a}0": mark.value, f"{a}1": mark.value}
    if not upright and own:
        shape["yref"] = f"y{own}"
    if mark.in_legend and mark.label:
        shape |= {"name": _plain(mark.label), "showlegend": True, "legendgroup": mark.label}
    if not mark.label or mark.in_legend:
        return [shape], []
    anchors = {b: 1, "xanchor": "right", "yanchor": "top" if upright else "bottom"}
    turned = {"textangle": -90 if upright else 0}
    return [shape], [_annotation(mark.label, color) | place | anchors | turned]


def _place(chart: Chart, axis: str, value: float) -> float:
    log = chart.log_x if axis == "x" else chart.log_y
    return math.log10(value) if log else value


def _annotation(text: str, color: str) -> dict[str, Any]:
    return {"text": _plain(text), "showarrow": False, "font": {"color": color, "size": 11}}


# -- heat maps -------------------------------------------------------------------------------------


def _maps(panel: HeatMaps, options: Options) -> dict[str, Any]:
    """Return one heat map, or several of which a slider shows one."""
    there = [matrix for matrix in panel.maps if matrix.values is not None]
    traces = []
    for place, matrix in enumerate(there):
        trace: dict[str, Any] = {
            "type": "heatmap",
            "z": _matrix(matrix.values, options),
            "zmin": panel.limits[0],
            "zmax": panel.limits[1],
            "visible": place == 0,
            "colorscale": _colorscale(panel.colors(options.colors)),
            "colorbar": {"thickness": 9, "outlinewidth": 0, "len": 0.9, "xpad": 4},
            "hovertemplate": "row %{y}, column %{x}: %{z:.4g}<extra></extra>",
        }
        pointed = [[f"logit {j} of class {k}" for k in panel.classes] for j in panel.classes]
        pointed = pointed or [[f"{row}, {column}" for column in panel.names] for row in panel.names]
        if pointed:
            trace["customdata"] = [[_plain(text) for text in row] for row in pointed]
            trace["hovertemplate"] = "%{customdata}: %{z:.4g}<extra></extra>"
        traces.append(trace)
    rows, columns = (len(there[0].values), len(there[0].values[0])) if there else (0, 0)
    stroke = {"type": "line", "line": {"color": options.colors.muted, "width": 1}}
    shapes = []
    for at in panel.lines:
        shapes.append(stroke | {"x0": at, "x1": at, "y0": -0.5, "y1": rows - 0.5})
        shapes.append(stroke | {"x0": -0.5, "x1": columns - 0.5, "y0": at, "y1": at})
    axis: dict[str, Any] = {
        "tickfont": {"size": 11},
        "constrain": "domain",
        "showgrid": False,
        "zeroline": False,
        "automargin": False,  # would draw everything twice
    }
    axis |= _named(panel.ticks) if panel.ticks else {}
    below = {"tickangle": 0} if panel.names_below else {"showticklabels": False, "ticks": ""}
    few = len(panel.ticks) <= 4 and bool(panel.x_label)
    beside = {"tickangle": -90} if panel.ticks and few else {}
    titled = bool(panel.x_label) + panel.names_below
    lines = [line for _, text in panel.ticks for line in text.split("\n")]
    longest = max(map(len, lines), default=0)
    layout: dict[str, Any] = {
        "xaxis": axis | below | {"title": {"text": panel.x_label, "standoff": 8}},
        "yaxis": axis
        | beside
        | {"title": {"text": panel.y_label, "standoff": 8}}
        | {"autorange": "reversed", "scaleanchor": "x"},
        "margin": {
            "l": 62 if few else max(70, round(12 + 6.6 * longest)),
            "r": 52,
            "t": 8,
            "b": 10 + 18 * titled,
        },
        "shapes": shapes,
    }
    if len(traces) > 1:
        layout["sliders"] = [_slider([matrix.title for matrix in there])]
    return {"data": traces, "layout": layout}


def _slider(titles: Sequence[str]) -> dict[str, Any]:
    return {
        "active": 0,
        "pad": {"t": 48, "b": 6},
        "currentvalue": {"prefix": ""},
        "steps": [
            {
                "label": _plain(title),
                "method": "restyle",
                "args": [{"visible": [k == place for k in range(len(titles))]}],
            }
            for place, title in enumerate(titles)
        ],
    }


def _matrix(values: Sequence[Sequence[float | None]], options: Options) -> Any:
    """Return a matrix; packed it is quick to send and to read."""
    if not options.packed:
        return [_rounded(row, options) for row in values]
    small = np.array(values, dtype="<f4")
    shape = ", ".join(map(str, small.shape))
    return {"dtype": "f4", "bdata": base64.b64encode(small.tobytes()).decode(), "shape": shape}


# -- tables ----------------------------------------------------------------------------------------


def _table(panel: Table) -> dict[str, Any]:
    heads = panel.heads
    align = [head.align for head in heads]
    texts = [[_plain(text) for text in row] for row in panel.texts]
    columns = [list(column) for column in zip(*texts, strict=True)] or [[]] * len(heads)
    trace = {
        "type": "table",
        "header": {"values": [head.head for head in heads], "align": align},
        "cells": {"values": columns, "align": align},
    }
    return {"data": [trace], "layout": {"margin": {"l": 8, "r": 8, "t": 8, "b": 8}}}


# -- numbers and words -----------------------------------------------------------------------------


def _colorscale(colors: Sequence[str]) -> list[list[Any]]:
    return [[i / (len(colors) - 1), color] for i, color in enumerate(colors)]


def _rounded(values: Sequence[float | None], options: Options) -> list[float | None]:
    return [None if value is None else float(f"{value:.{options.digits}g}") for value in values]


def _plain(text: str) -> str:
    """Return a text in which Plotly takes nothing for HTML but the ends of lines."""
    return escape(text, quote=False).replace("\n", "<br>")
