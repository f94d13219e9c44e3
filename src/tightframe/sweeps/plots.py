"""Matplotlib pictures of grids: margins and rank along paths, and phase diagrams."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullLocator
from numpy.typing import NDArray

from tightframe.figures.mpl import (
    check_formats,
    empty_axis,
    label_axis,
    new_figure,
    save_figures,
    style_axis,
)
from tightframe.figures.style import GROUP_COLORS, LIGHT, margin_label
from tightframe.runs.tables import group_name
from tightframe.sweeps.grid import Grid
from tightframe.sweeps.phase import PhaseDiagram

#: More paths than this are not drawn in one picture; evenly chosen ones are, and the title says so.
MAX_PATHS = 6

#: Dark blue to yellow, told apart with every colour blindness and in print (Nunez et al. 2018).
_SEQUENTIAL = "cividis"
_COLLAPSED = LIGHT.grid
_MARKERS = "osD^"
_LAMBDA = "λ = √(weight decay · feature decay)"


def save_grid_plots(
    grid: Grid,
    rows: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Write a grid's picture, each file atomically.

    Parameters
    ----------
    grid : Grid
    rows : sequence of mapping
        As `tightframe.sweeps.grid.run_grid` returned them.
    folder : path-like
        Made if need be.
    formats : sequence of {"png", "svg", "pdf"}

    Returns
    -------
    list of Path
        ``path.png``; for a grid with imbalance ratios ``phase.png``; likewise in other formats.

    Raises
    ------
    ValueError
        If a format is not allowed.
    """
    formats = check_formats(formats)
    if grid.ratios is None:
        return save_figures(path_figure(rows), Path(folder) / "path", formats)
    diagram = PhaseDiagram.from_rows(grid, rows)
    return save_figures(phase_figure(diagram), Path(folder) / "phase", formats)


# -- paths -----------------------------------------------------------------------------------------


def path_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw margins and rank along every row, with the predicted thresholds.

    Collapsed points are hollow and points that did not converge are crossed out.
    """
    shown = list(rows)
    if len(shown) > MAX_PATHS:
        chosen = np.linspace(0, len(shown) - 1, MAX_PATHS).round().astype(int)
        shown = [shown[i] for i in chosen]
    columns = min(len(shown), 3)
    lines = -(-len(shown) // columns)
    # Room in inches, by hand: a layout engine doubles the time of a plot.
    wide, high, low = 5.0, 3.2, 0.9
    cell_width, cell_height = wide + 0.9, high + low + 1.25
    width, height = columns * cell_width + 0.05, lines * cell_height + 0.3
    figure = new_figure(width, height, layout=False)
    title = "Predicted margins and rank along the path"
    if len(shown) < len(rows):
        title += f" ({len(shown)} of {len(rows)} rows)"
    figure.suptitle(title, fontsize=12, color=LIGHT.text, y=1 - 0.1 / height, va="top")
    for i, row in enumerate(shown):
        left = (i % columns) * cell_width + 0.75
        bottom = (lines - 1 - i // columns) * cell_height + 0.7
        margins = figure.add_axes(
            (left / width, (bottom + low + 0.2) / height, wide / width, high / height)
        )
        rank = figure.add_axes((left / width, bottom / height, wide / width, low / height))
        if row["status"] == "failed":
            label_axis(margins, _row_title(row))
            empty_axis(margins, "failed")
            rank.set_axis_off()
        else:
            _draw_row(figure, margins, rank, row)
    return figure


def _row_title(row: Mapping[str, Any]) -> str:
    return f"Samples per class: {_shortened(row['counts'])}"


def _shortened(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True)
class _Horizontal:
    """The horizontal axis of a path: what varies along it."""

    label: str
    values: list[float]
    is_lambda: bool = False
    ticks: list[str] | None = None


def _horizontal(points: Sequence[Mapping[str, Any]]) -> _Horizontal:
    """Choose lambda if it varies, else what does; values on a log axis, or numbered counts."""
    problems = [point["problem"] for point in points]
    decays = [point["lambda"] for point in points]
    counts = [problem["counts"] for problem in problems]
    if len(set(counts)) > 1:
        return _Horizontal(
            "samples per class", [float(i) for i in range(len(points))], ticks=counts
        )
    if max(decays) <= min(decays) * (1 + 1e-9):
        for name in ("bias_decay", "feature_decay"):
            values = [problem[name] for problem in problems]
            if len(set(values)) > 1:
                return _Horizontal(name.replace("_", " "), values)
    depth = problems[0]["depth"]
    label = _LAMBDA if depth == 1 else "λ, geometric mean of all decays"
    return _Horizontal(label, decays, is_lambda=True)


def _draw_row(figure: Figure, top: Axes, bottom: Axes, row: Mapping[str, Any]) -> None:
    points = row["points"]
    across = _horizontal(points)
    order = np.argsort(across.values, kind="stable")
    points = [points[i] for i in order]
    x = np.array(across.values)[order]
    ticks = None if across.ticks is None else [across.ticks[i] for i in order]
    groups = max(len(point["groups"]) for point in points)
    colors, bar = _group_colors(points, groups)

    title = "Samples per class vary" if ticks else _row_title(row)
    label_axis(top, title, "", margin_label(points[0]["problem"]["loss"]))
    label_axis(bottom, "", across.label, "rank")
    for axis in (top, bottom):
        style_axis(axis)
        if ticks is None:
            axis.set_xscale("log")
    markers = _MARKERS if bar is None else "." * groups
    handles = [_draw_group(top, x, points, g, colors[g], markers[g]) for g in range(groups)]
    if across.is_lambda:
        handles += _draw_thresholds(top, bottom, x, points, colors)
    stopped = np.array([point["status"] == "not_converged" for point in points])
    if stopped.any():
        place = np.zeros(int(stopped.sum()))
        (cross,) = top.plot(x[stopped], place, "x", color=LIGHT.text, label="not converged")
        handles.append(cross)
    if any(group["collapsed"] for point in points for group in point["groups"]):
        handles.append(_entry("collapsed", marker="o", linestyle="none", fillstyle="none"))
    if bar is not None:
        handles = handles[groups:]
        legend = figure.colorbar(bar, ax=[top, bottom], aspect=40)
        legend.set_label("samples per class", fontsize=9.5, color=LIGHT.muted)
        legend.ax.tick_params(labelsize=9, colors=LIGHT.muted)
    if handles:
        top.legend(handles=handles, fontsize=9, edgecolor="none", labelcolor=LIGHT.text)
    bottom.plot(x, [point["rank"] for point in points], color=LIGHT.text, marker=".", linewidth=1.5)
    bottom.set_ylim(-0.5, None)
    bottom.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    low, high = float(x.min()), float(x.max())
    room = (high / low) ** 0.03 if ticks is None else 0.03 * (high - low)
    for axis in (top, bottom):
        if ticks is not None:
            chosen = np.linspace(0, len(x) - 1, min(len(x), 6)).round().astype(int)
            names = [_shortened(ticks[i], 16) for i in chosen]
            axis.set_xticks(x[chosen], names, rotation=20, ha="right")
            axis.set_xlim(low - max(room, 0.1), high + max(room, 0.1))
        else:
            axis.set_xlim(low / max(room, 1.01), high * max(room, 1.01))
            _plain_log_ticks(axis, low, high)
    top.tick_params(which="both", labelbottom=False)


def _plain_log_ticks(axis: Axes, low: float, high: float) -> None:
    if high < 20 * low:  # Matplotlib would label no tick, or too many
        axis.xaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.7)))
        axis.tick_params(axis="x", which="minor", labelsize=8)
    else:
        axis.xaxis.set_minor_locator(NullLocator())  # they take a third of the time


def _group_colors(
    points: Sequence[Mapping[str, Any]], groups: int
) -> tuple[list[Any], ScalarMappable | None]:
    """Return a colour a group; by sample count, with a scale, where there are many."""
    if groups <= len(GROUP_COLORS):
        return list(GROUP_COLORS[:groups]), None
    counts = [group["count"] for group in points[0]["groups"]]
    counts += counts[-1:] * (groups - len(counts))  # counts may vary along the path
    # Not up to yellow, which is hard to see on white.
    colors = ListedColormap(colormaps[_SEQUENTIAL](np.linspace(0, 0.8, 256)))
    bar = ScalarMappable(LogNorm(min(counts), max(max(counts), min(counts) + 1)), colors)
    return list(bar.to_rgba(np.array(counts))), bar


def _draw_group(
    axis: Axes,
    x: NDArray[Any],
    points: Sequence[Mapping[str, Any]],
    g: int,
    color: Any,
    marker: str,
) -> Line2D:
    groups = [point["groups"][g] if g < len(point["groups"]) else None for point in points]
    margins = np.array([np.nan if group is None else group["margin"] for group in groups])
    collapsed = np.array([group is not None and group["collapsed"] for group in groups])
    names = {group_name(group) for group in groups if group is not None}
    name = names.pop() if len(names) == 1 else f"group {g + 1}"
    axis.plot(x, margins, color=color, linewidth=1.8)
    # Later groups in smaller markers: where all are zero, all are seen.
    size = max(7.0 - 1.2 * g, 3.0)
    style: dict[str, Any] = {"color": color, "marker": marker, "markersize": size}
    axis.plot(x, np.where(collapsed, np.nan, margins), linestyle="none", **style)
    hollow = np.where(collapsed, margins, np.nan)
    axis.plot(x, hollow, linestyle="none", fillstyle="none", zorder=3, clip_on=False, **style)
    return _entry(name, linewidth=1.8, **style)


def _entry(label: str, **style: Any) -> Line2D:
    return Line2D([], [], label=label, **({"color": LIGHT.muted} | style))


def _draw_thresholds(
    top: Axes,
    bottom: Axes,
    x: NDArray[Any],
    points: Sequence[Mapping[str, Any]],
    colors: Sequence[Any],
) -> list[Line2D]:
    """Draw the predicted thresholds that lie on the path; return their legend entries."""
    handles = []
    low, high = float(x.min()), float(x.max())
    inside = [
        (group["threshold"], color)
        for group, color in zip(points[0]["groups"], colors, strict=False)
        if group["threshold"] is not None and low <= group["threshold"] <= high
    ]
    many = len(points[0]["groups"]) > len(GROUP_COLORS)
    for threshold, color in inside:
        if many:  # lines would hide the curves
            top.plot([threshold], [0], marker="^", color=color, clip_on=False, zorder=4)
        else:
            for axis in (top, bottom):
                axis.axvline(threshold, color=color, linestyle="--", linewidth=1.2)
    if inside:
        verb = {"merge": "merges", "vanish": "vanishes"}.get(
            points[0]["collapse_kind"], "collapses"
        )
        look: dict[str, Any] = (
            {"marker": "^", "linestyle": "none"} if many else {"linestyle": "--", "linewidth": 1.2}
        )
        handles.append(_entry(f"group {verb} from here", **look))
    total = points[0]["total_collapse"]
    same = len({point["total_collapse"] for point in points}) == 1
    drawn = any(np.isclose(total, threshold) for threshold, _ in inside) if total else True
    if same and not drawn and low <= total <= high:
        for axis in (top, bottom):
            axis.axvline(total, color=LIGHT.muted, linestyle=":", linewidth=1.6)
        handles.append(_entry("all zero from here", linestyle=":", linewidth=1.6))
    return handles


# -- phase diagrams --------------------------------------------------------------------------------


def phase_figure(diagram: PhaseDiagram) -> Figure:
    """Draw the minority's margin over (lambda, imbalance ratio) with the closed-form thresholds."""
    figure = new_figure(8.2, 5.6)
    axis = figure.subplots()
    along = np.argsort(diagram.logit_decays, kind="stable")
    upward = np.argsort(diagram.ratios, kind="stable")
    x, y = diagram.logit_decays[along], diagram.ratios[upward]
    cells = np.ix_(upward, along)
    margin, collapsed = diagram.minority_margin[cells], diagram.minority_collapsed[cells]
    missing = np.isnan(margin)
    edges = (_edges(x), _edges(y))
    distinct = np.ma.masked_where(collapsed | missing, margin)
    # From zero, also below it: a lone class may have a negative margin.
    low = min(0.0, float(distinct.min())) if distinct.count() else 0.0
    high = float(distinct.max()) if distinct.count() else 1.0
    mesh = axis.pcolormesh(*edges, distinct, cmap=_SEQUENTIAL, norm=Normalize(low, high))
    flat = np.ma.masked_where(~collapsed, np.zeros(margin.shape))
    axis.pcolormesh(*edges, flat, cmap=ListedColormap([_COLLAPSED]))
    axis.set_xscale("log")
    axis.set_yscale("log")
    round_numbers = np.outer(10.0 ** np.arange(17), [1, 2, 5]).ravel()
    labelled = round_numbers[(round_numbers >= y[0]) & (round_numbers <= y[-1])]
    if len(labelled) < 3:
        labelled = y[np.unique(np.linspace(0, len(y) - 1, 8).round().astype(int))]
    axis.set_yticks(labelled, [f"{ratio:.3g}" for ratio in labelled])
    axis.yaxis.set_minor_locator(NullLocator())
    _plain_log_ticks(axis, x[0], x[-1])
    for spine in axis.spines.values():
        spine.set_color(LIGHT.grid)
    axis.tick_params(which="both", labelsize=9, colors=LIGHT.muted)
    label_axis(
        axis, _phase_title(diagram), _LAMBDA, "imbalance ratio R = majority / minority count"
    )
    handles: list[Any] = []
    for name, limits, style in (
        ("minority threshold, closed form", diagram.minority_threshold, "-"),
        ("majority threshold, closed form", diagram.majority_threshold, "--"),
        ("all class means are zero", diagram.total_collapse, ":"),
    ):
        curve = limits[upward]
        drawn = limits is diagram.total_collapse and np.allclose(limits, diagram.majority_threshold)
        if np.isfinite(curve).any() and not drawn:
            # A white seam, so that the line is seen on the dark colours.
            axis.plot(
                curve,
                y,
                style,
                color=LIGHT.text,
                linewidth=1.8,
                marker="o" if len(y) == 1 else None,
                path_effects=[withStroke(linewidth=4, foreground=LIGHT.paper)],
            )
            handles.append(_entry(name, color=LIGHT.text, linestyle=style, linewidth=1.8))
    if collapsed.any():
        handles.insert(0, Patch(facecolor=_COLLAPSED, label="minority collapsed"))
    if missing.any():
        handles.append(Patch(facecolor=LIGHT.paper, edgecolor=LIGHT.muted, label="failed"))
    axis.set_xlim(edges[0][0], edges[0][-1])
    axis.set_ylim(edges[1][0], edges[1][-1])
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=2,
        fontsize=9,
        frameon=False,
        labelcolor=LIGHT.text,
    )
    bar = figure.colorbar(mesh, ax=axis, aspect=30)
    bar.set_label("margin of the minority classes (logits)", fontsize=9.5, color=LIGHT.muted)
    bar.ax.tick_params(labelsize=9, colors=LIGHT.muted)
    bar.outline.set_edgecolor(LIGHT.grid)
    return figure


def _phase_title(diagram: PhaseDiagram) -> str:
    return (
        f"Minority margin, counts {_shortened(diagram.counts[0], 30)} to "
        f"{_shortened(diagram.counts[-1], 30)}"
    )


def _edges(values: NDArray[Any]) -> NDArray[Any]:
    """Return the borders of cells around values, in the middle on a log scale."""
    logs = np.log(values)
    if len(logs) == 1:
        half = np.array([0.05])
        return np.exp(np.r_[logs - half, logs + half])  # type: ignore[no-any-return]
    middle = (logs[1:] + logs[:-1]) / 2
    first, last = 2 * logs[0] - middle[0], 2 * logs[-1] - middle[-1]
    return np.exp(np.r_[first, middle, last])  # type: ignore[no-any-return]
