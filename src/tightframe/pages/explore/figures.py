"""Plotly figures of predictions and measurements: pure functions, each with its text."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.figures.style import (
    COLORS,
    DARK,
    DARK_COLORS,
    DIVERGING,
    GROUP_COLORS,
    Ink,
    margin_label,
)
from tightframe.pages.explore.margins import Margins
from tightframe.pages.explore.vectors import Vectors
from tightframe.path import Path
from tightframe.problem.problem import Problem, with_loss_terms
from tightframe.sweeps.phase import PhaseDiagram
from tightframe.theory.thresholds import Thresholds, overall_decay

#: Told apart together with `GROUP_COLORS` where there are more groups.
_DASHES = ("solid", "dash", "dot", "dashdot")

#: Dark blue to yellow, told apart with every colour blindness (Nunez et al. 2018).
_SEQUENTIAL = "Cividis"

_LAMBDA = "λ = √(weight decay · feature decay)"
_MEAN_LAMBDA = "λ, geometric mean of all decays"
_MAX_TICKS = 10
_MAX_LEGEND = 5


class Picture(NamedTuple):
    """A figure and what it shows in words.

    Attributes
    ----------
    figure : dict
        Plotly's data and layout.
    text : str
    """

    figure: dict[str, Any]
    text: str


# -- heat maps -------------------------------------------------------------------------------------


def heat_map(
    values: NDArray[np.float64],
    problem: Problem,
    classes: NDArray[np.intp],
    title: str,
    ink: Ink,
    limit: float | None = None,
) -> Picture:
    """Draw a matrix over classes on a diverging scale.

    Parameters
    ----------
    values : ndarray, shape (k, k)
    problem : Problem
    classes : ndarray of int, shape (k,)
        Which classes the rows and columns are, sorted by group.
    title : str
        Starts the text.
    ink : Ink
    limit : float, optional
        The scale runs from minus to plus this; by default the largest entry.
    """
    largest = float(np.abs(values).max())
    reach = limit or largest or 1.0
    groups = problem.class_groups[classes]
    borders = (np.flatnonzero(np.diff(groups)) + 0.5).tolist()
    edges = [-0.5, *borders, len(classes) - 0.5]
    names = _broken(group_names(problem))
    shown = [names[g] for g in dict.fromkeys(groups.tolist())]
    places = [(low + high) / 2 for low, high in pairwise(edges)]
    ticks = _spaced(list(zip(places, shown, strict=True)), 0.07 * len(classes))
    stroke = {"color": ink.muted, "width": 1}
    ends = {"0": -0.5, "1": edges[-1]}
    shapes = [
        {"type": "line", "line": stroke, f"{a}0": place, f"{a}1": place}
        | {f"{b}{end}": value for end, value in ends.items()}
        for place in borders
        for a, b in ("xy", "yx")
    ]
    axis = {
        "tickvals": [place for place, _ in ticks],
        "ticktext": [name for _, name in ticks],
        "constrain": "domain",
        "automargin": False,  # would draw everything twice
        "showgrid": False,
        "zeroline": False,
    }
    figure = {
        "data": [
            {
                "type": "heatmap",
                "z": _packed(values),
                "zmin": -reach,
                "zmax": reach,
                "colorscale": [[i / 10, color] for i, color in enumerate(DIVERGING)],
                "colorbar": {"thickness": 9, "outlinewidth": 0, "len": 0.95, "xpad": 4},
                "hovertemplate": "row %{y}, column %{x}: %{z:.4g}<extra></extra>",
            }
        ],
        "layout": _layout(ink)
        | {
            "xaxis": _axis(ink) | axis | {"showticklabels": False, "ticks": ""},
            "yaxis": _axis(ink) | axis | {"autorange": "reversed", "scaleanchor": "x"},
            "shapes": shapes if len(borders) <= len(classes) // 2 else [],
            "margin": {"l": 70, "r": 52, "t": 6, "b": 10},
        },
    }
    diagonal = np.diagonal(values)
    rest = values[~np.eye(len(values), dtype=bool)]
    text = (
        f"{title}: diagonal from {diagonal.min():.3g} to {diagonal.max():.3g}, the rest from "
        f"{rest.min():.3g} to {rest.max():.3g}"
    )
    if len(classes) < problem.num_classes:
        text += f"; {len(classes)} of {problem.num_classes} classes"
    return Picture(figure, text + ".")


# -- class vectors ---------------------------------------------------------------------------------


def class_vectors(
    predicted: Vectors,
    measured: Vectors | None,
    problem: Problem,
    classes: NDArray[np.intp],
    ink: Ink,
) -> Picture:
    """Draw classifier rows and class means along three axes, a colour a group."""
    groups = problem.class_groups[classes]
    names = group_names(problem)
    present = list(dict.fromkeys(groups.tolist()))
    # A legend names a few groups; many are drawn as one trace, which is much quicker.
    parts = [[group] for group in present] if len(present) <= _MAX_LEGEND else [present]
    data = []
    for part in parts:
        chosen = np.isin(groups, part)
        colors = [_group_color(group, ink) for group in groups[chosen].tolist()]
        label = names[part[0]] if len(part) == 1 else "all groups"
        for kind, points, symbol in (
            ("means", predicted.means, "circle"),
            ("classifier", predicted.classifier, "diamond-open"),
        ):
            width = 4 if kind == "means" else 2
            trace = _spokes(_three(points[chosen]), colors, width, symbol)
            data.append(trace | {"name": f"{label}, {kind}", "legendgroup": label})
    if measured is not None:
        for kind, points, symbol in (
            ("means", measured.means, "cross"),
            ("classifier", measured.classifier, "x"),
        ):
            trace = _spokes(_three(points), [ink.text] * len(points), 1, symbol)
            data.append(trace | {"name": f"measured {kind}"})
    axis = {
        "showbackground": False,
        "gridcolor": ink.grid,
        "zerolinecolor": ink.muted,
        "showticklabels": False,
        "range": [-1.15, 1.15],
    }
    scene = {f"{name}axis": axis | {"title": {"text": ""}} for name in "xyz"}
    figure = {
        "data": data,
        "layout": _layout(ink)
        | {
            "scene": scene
            | {
                "aspectmode": "cube",
                "bgcolor": ink.paper,
                "camera": {"eye": {"x": 1.15, "y": 1.15, "z": 0.75}},
            },
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
            "showlegend": len(present) <= _MAX_LEGEND,
            "legend": {"orientation": "h", "x": 0, "y": 0, "yanchor": "top"},
            "uirevision": "vectors",
        },
    }
    text = (
        "Class means (filled) and classifier rows (open), either scaled to its longest vector, on "
        f"their first three principal axes, which hold {100 * predicted.share:.3g} % of the "
        "squared lengths."
    )
    return Picture(figure, text)


def _three(points: NDArray[np.float64]) -> NDArray[np.float64]:
    axes = points[:, :3]
    return np.pad(axes, ((0, 0), (0, 3 - axes.shape[1])))


def _spokes(
    points: NDArray[np.float64], colors: list[str], width: int, symbol: str
) -> dict[str, Any]:
    """Return a trace with a line from the origin to every point, in the point's color."""
    # Origin, point, gap: three entries a spoke.
    spokes = np.full((3, 3 * len(points)), np.nan)
    spokes[:, 0::3] = 0.0
    spokes[:, 1::3] = points.T
    size = np.tile([0, 6, 0], len(points)).tolist()
    single = len(set(colors)) == 1
    color: Any = colors[0] if single else [color for color in colors for _ in range(3)]
    return {
        "type": "scatter3d",
        "mode": "lines+markers",
        **{name: _rounded(row, 1.0) for name, row in zip("xyz", spokes, strict=True)},
        "line": {"color": color, "width": width},
        "marker": {"size": size, "color": color, "symbol": symbol, "opacity": 1},
        "hoverinfo": "name",
    }


# -- margins ---------------------------------------------------------------------------------------


def margins(
    problem: Problem,
    predicted: Margins,
    measured: Margins | None,
    ink: Ink,
) -> Picture:
    """Draw the margins of every group: to a sibling class and to the nearest of all classes.

    Parameters
    ----------
    problem : Problem
    predicted : Margins
    measured : Margins, optional
        Of a network.
    ink : Ink
    """
    names = group_names(problem)
    places = list(range(len(names)))
    about = ("to a sibling class", "to the nearest class")
    data: list[dict[str, Any]] = []
    for label, values, color, shift in zip(
        about, predicted[:2], (COLORS["predicted"], COLORS["bound"]), (-0.2, 0.2), strict=True
    ):
        data.append(
            {
                "type": "bar",
                "name": f"predicted {label}",
                "x": [place + shift for place in places],
                "y": _rounded(values, float(np.abs(values).max())),
                "width": 0.36,
                "marker": {"color": _ground(color, ink)},
                "hovertemplate": "%{y:.5g}",
            }
        )
    if measured is not None:
        for label, values, symbol, shift in zip(
            about, measured[:2], ("circle", "diamond"), (-0.2, 0.2), strict=True
        ):
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"measured {label}",
                    "x": [place + shift for place in places],
                    "y": _rounded(values, float(np.abs(values).max())),
                    "marker": {
                        "color": COLORS["measured"],
                        "size": 11,
                        "symbol": symbol,
                        "line": {"color": ink.paper, "width": 1.5},
                    },
                    "hovertemplate": "%{y:.5g}",
                }
            )
    ticks = {"tickvals": _thinned(places), "ticktext": _thinned(_broken(names))}
    figure = {
        "data": data,
        "layout": _layout(ink)
        | {
            "xaxis": _axis(ink, "group (classes of samples each)") | ticks | {"showgrid": False},
            "yaxis": _axis(ink, margin_label(problem.loss)) | {"rangemode": "tozero"},
            "showlegend": True,
            "legend": _LEGEND,
            "bargap": 0.1,
        },
    }
    parts = [
        f"{value:.3g} for {name}" + (" (collapsed)" if collapsed else "")
        for name, value, collapsed in zip(
            names, predicted.sibling, predicted.collapsed, strict=True
        )
    ]
    return Picture(figure, f"Predicted margin to a sibling class: {_listed(parts)}.")


# -- path ------------------------------------------------------------------------------------------


def path(
    line: Path | None,
    decays: NDArray[np.float64],
    problem: Problem,
    limits: Thresholds,
    measured: NDArray[np.float64] | None,
    ink: Ink,
) -> Picture:
    """Draw margins and rank along lambda, with the thresholds and where the problem is.

    Parameters
    ----------
    line : Path, optional
        None: only the thresholds are drawn.
    decays : ndarray
        Values of lambda.
    problem : Problem
        Where the page is.
    limits : Thresholds
    measured : ndarray, shape (G,), optional
        Margins of a network, drawn at the problem's lambda.
    ink : Ink
    """
    if line is None:
        values, top = np.full((len(decays), len(problem.groups)), np.nan), 1.0
        # As many as decays, or Plotly leaves the lower axes out.
        ranks, rank_text = [None] * len(decays), "Margins follow."
    else:
        values = np.array([point.group_margins for point in line.solutions])
        top = float(values.max()) or 1.0
        ranks = line.rank.tolist()
        rank_text = f"Rank {line.rank.max()} to {line.rank.min()}."
    here = overall_decay(problem)
    names = group_names(problem)
    data: list[dict[str, Any]] = []
    shapes = []
    for g, (name, column, limit) in enumerate(zip(names, values.T, limits.groups, strict=True)):
        style = {"color": _group_color(g, ink), "width": 2.5}
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": _significant(decays),
                "y": _rounded(column, top),
                "line": style | {"dash": _DASHES[g // len(GROUP_COLORS) % len(_DASHES)]},
                "hovertemplate": "%{y:.4g}",
            }
        )
        if limit.logit_decay is not None:
            shapes.append(_upright(limit.logit_decay, style | {"width": 1.5, "dash": "dot"}))
        if measured is not None:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"{name}, measured",
                    "x": [here],
                    "y": [float(measured[g])],
                    "marker": {"color": style["color"], "size": 11, "symbol": "circle-open"}
                    | {"line": {"width": 3}},
                    "hovertemplate": "%{y:.4g}",
                    "showlegend": False,
                }
            )
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "rank",
            "x": _significant(decays),
            "y": ranks,
            "yaxis": "y2",
            "line": {"color": ink.muted, "width": 2, "shape": "hvh"},
            "hovertemplate": "%{y}",
            "showlegend": False,
        }
    )
    inside = decays[0] <= here <= decays[-1]
    if inside:
        shapes.append(_upright(here, {"color": ink.text, "width": 1.5}))
    title = _LAMBDA if problem.depth == 1 else _MEAN_LAMBDA
    layout = _layout(ink)
    figure = {
        "data": data,
        "layout": layout
        | {
            "xaxis": _axis(ink, title) | _log_axis(decays[0], decays[-1]) | {"anchor": "y2"},
            "yaxis": _axis(ink, margin_label(problem.loss))
            | {"domain": [0.34, 1], "rangemode": "tozero"},
            "yaxis2": _axis(ink, "rank") | {"domain": [0, 0.24], "rangemode": "tozero"},
            "shapes": shapes,
            "hovermode": "x unified",
            "showlegend": len(names) <= 12,
            "legend": _LEGEND,
            # Beside the picture: the legend may be as wide as it.
            "modebar": layout["modebar"] | {"orientation": "v"},
            "margin": layout["margin"] | {"r": 40},
        },
    }
    verb = limits.kind
    parts = [
        f"{name} from {group.logit_decay:.4g}"
        for name, group in zip(names, limits.groups, strict=True)
        if group.logit_decay is not None
    ]
    text = (
        f"Full line: λ = {here:.4g} of the controls{'' if inside else ' is outside'}. Dotted: "
        f"where classes {verb}: {_listed(parts) or 'none'}. Everything is zero from "
        f"{limits.total_collapse:.4g}. {rank_text}"
    )
    return Picture(figure, text)


# -- phase diagram ---------------------------------------------------------------------------------


def phase(
    diagram: PhaseDiagram, problem: Problem, place: tuple[float, float] | None, ink: Ink
) -> Picture:
    """Draw the minority's margin over imbalance ratio and lambda, with the thresholds.

    Parameters
    ----------
    diagram : PhaseDiagram
        Without a solved point: only the thresholds are drawn.
    problem : Problem
        Where the page is.
    place : pair of float, optional
        Its ratio and lambda, if it is in the diagram.
    ink : Ink
    """
    solved = bool((diagram.status != "failed").any())
    margin = np.where(diagram.minority_collapsed, np.nan, diagram.minority_margin).T
    top = float(np.nanmax(margin)) if np.isfinite(margin).any() else 1.0
    ratios = _significant(diagram.ratios)
    colors = {
        "type": "heatmap",
        "x": ratios,
        "y": _significant(diagram.logit_decays),
        "z": _rounded(margin, top),
        "zmin": 0,
        "zmax": top,
        "colorscale": _SEQUENTIAL,
        "showscale": solved,
        "colorbar": {
            "title": {"text": f"minority's {margin_label(problem.loss)}", "side": "right"},
            "thickness": 9,
            "outlinewidth": 0,
        },
        "hovertemplate": "R = %{x:.4g}, λ = %{y:.4g}: margin %{z:.4g}<extra></extra>",
    }
    data: list[dict[str, Any]] = [colors]
    for label, values, dash in (
        ("minority collapses", diagram.minority_threshold, "solid"),
        ("majority collapses", diagram.majority_threshold, "dash"),
        ("everything is zero", diagram.total_collapse, "dot"),
    ):
        if np.isfinite(values).any():
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": label,
                    "x": ratios,
                    "y": _significant(values),
                    "line": {"color": COLORS["measured"], "width": 2.5, "dash": dash},
                    "hovertemplate": f"{label} from %{{y:.4g}}<extra></extra>",
                }
            )
    low, high = float(diagram.logit_decays[0]), float(diagram.logit_decays[-1])
    text = (
        f"{problem.num_classes} classes; R is the largest count over the smallest. "
        + (
            "Colour: margin of the minority classes; grey: collapsed"
            if solved
            else "Margins follow"
        )
        + ". The minority collapses from λ = "
        f"{diagram.minority_threshold[0]:.4g} at R = "
        f"{diagram.ratios[0]:.3g}, from {diagram.minority_threshold[-1]:.4g} at R = "
        f"{diagram.ratios[-1]:.3g}."
    )
    if place is not None:
        seen = low <= place[1] <= high
        text += f" The controls are at R = {place[0]:.4g}, λ = {place[1]:.4g}"
        text += "." if seen else ", outside."
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "the controls",
                "x": [place[0]],
                "y": [place[1]],
                "marker": {
                    "symbol": "star",
                    "size": 15,
                    "color": "#ffffff",
                    "line": {"color": "#000000", "width": 1.5},
                },
                "hovertemplate": "R = %{x:.4g}, λ = %{y:.4g}<extra>the controls</extra>",
            }
        )
    figure = {
        "data": data,
        "layout": _layout(ink)
        | {
            "xaxis": _axis(ink, "imbalance ratio R")
            | _log_axis(diagram.ratios[0], diagram.ratios[-1]),
            "yaxis": _axis(ink, _LAMBDA) | _log_axis(low, high),
            "plot_bgcolor": ink.grid if solved else ink.paper,
            "showlegend": True,
            "legend": _LEGEND,
        },
    }
    return Picture(figure, text)


# -- what the figures share ------------------------------------------------------------------------

_LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


def group_names(problem: Problem) -> list[str]:
    """Return a short name of every group: how many classes, of how many samples each."""
    terms = zip(problem.group_weights, problem.group_adjustment, strict=True)
    return [
        with_loss_terms(f"{group.classes} of {group.count}", *(float(f"{x:.3g}") for x in own))
        for group, own in zip(problem.groups, terms, strict=True)
    ]


def _broken(names: Sequence[str]) -> list[str]:
    """Break names over lines where they would not fit beside or below a picture."""
    return [
        re.sub(" (of|with|and) ", r"<br>\1 ", name) if len(name) > 10 else name for name in names
    ]


def blank() -> dict[str, Any]:
    """Return a figure with nothing in it, on any ground."""
    hidden, ground = {"visible": False}, "rgba(0,0,0,0)"
    layout = {"xaxis": hidden, "yaxis": hidden, "paper_bgcolor": ground, "plot_bgcolor": ground}
    return {"data": [], "layout": layout}


def _layout(ink: Ink) -> dict[str, Any]:
    return {
        "margin": {"l": 8, "r": 10, "t": 10, "b": 8},
        "paper_bgcolor": ink.paper,
        "plot_bgcolor": ink.paper,
        "font": {"color": ink.text, "size": 12, "family": "system-ui, sans-serif"},
        "hoverlabel": {"bgcolor": ink.paper, "bordercolor": ink.grid, "font": {"color": ink.text}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": ink.muted, "activecolor": ink.text},
    }


def _axis(ink: Ink, title: str = "") -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 6},
        "gridcolor": ink.grid,
        "linecolor": ink.grid,
        "zerolinecolor": ink.grid,
        "tickfont": {"color": ink.muted, "size": 11},
        "automargin": True,
    }


def _log_axis(low: float, high: float) -> dict[str, Any]:
    room = 0.02 * math.log10(high / low)
    ends = [math.log10(low) - room, math.log10(high) + room]
    decades = ends[1] - ends[0]
    # A label a decade, or at 1, 2 and 5 where there are few.
    return {
        "type": "log",
        "range": ends,
        "dtick": "D2" if decades < 1.5 else 1,
        "exponentformat": "power",
    }


def _upright(place: float, line: dict[str, Any]) -> dict[str, Any]:
    ends = {"x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper"}
    return {"type": "line", "line": line} | ends


def _group_color(group: int, ink: Ink) -> str:
    return _ground(GROUP_COLORS[group % len(GROUP_COLORS)], ink)


def _ground(color: str, ink: Ink) -> str:
    return DARK_COLORS.get(color, color) if ink is DARK else color


def _packed(values: NDArray[np.float64]) -> dict[str, str]:
    """Return a matrix as Plotly's packed array, quick to send and to read."""
    small = np.ascontiguousarray(values, dtype="<f4")
    shape = ", ".join(map(str, small.shape))
    return {"dtype": "f4", "bdata": base64.b64encode(small.tobytes()).decode(), "shape": shape}


def _rounded(values: NDArray[np.float64], scale: float) -> list[Any]:
    """Return values to five digits of a scale, for a small message; None where there is none."""
    digits = 4 - math.floor(math.log10(scale)) if scale > 0 else 0
    plain: list[Any] = np.round(values, min(max(digits, -300), 300)).tolist()
    if np.isfinite(values).all():
        return plain
    return _without_nan(plain)


def _without_nan(values: list[Any]) -> list[Any]:
    return [
        _without_nan(value) if isinstance(value, list) else value if math.isfinite(value) else None
        for value in values
    ]


def _significant(values: ArrayLike) -> list[float | None]:
    return [
        float(f"{value:.6g}") if math.isfinite(value) else None
        for value in np.asarray(values, dtype=float).tolist()
    ]


def _spaced(ticks: Sequence[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """Leave out labels that would run into the one before."""
    kept: list[tuple[float, str]] = []
    for place, name in ticks:
        if not kept or place - kept[-1][0] >= least:
            kept.append((place, name))
    return kept


def _thinned(entries: Sequence[Any]) -> list[Any]:
    return list(entries[:: -(-len(entries) // _MAX_TICKS)]) if entries else []


def _listed(parts: Sequence[str], most: int = 8) -> str:
    listed = "; ".join(parts[:most])
    return f"{listed}; and {len(parts) - most} more" if len(parts) > most else listed
