"""Matplotlib pictures of a figure's panels (`tightframe.figures.model`)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import SubFigure
from matplotlib.ticker import NullLocator

from tightframe.figures.model import Chart, HeatMaps, Panel, Table, points
from tightframe.figures.mpl import (
    check_formats,
    empty_axis,
    label_axis,
    new_figure,
    save_figures,
    style_axis,
)
from tightframe.figures.style import COLORS, DIVERGING, GROUP_COLORS, LIGHT
from tightframe.reproduce.folder import FigureRecord, load_reproduction
from tightframe.runs.tables import format_number

#: Colours of numbered curves: those of the class groups, then more with a contrast of at least 3
#: to white and to the dark page.
PALETTE = (*GROUP_COLORS, "#7a68c8", "#a06a00", "#c4493f", "#7d848e")

#: At most so many maps stand in one row of a picture, and so many rows in a drawn table.
_COLUMNS = 5
_TABLE_ROWS = 24

_DIVERGING = LinearSegmentedColormap.from_list("tightframe", DIVERGING)
_DASHES = {"solid": "-", "dashed": "--", "dotted": ":", "points": "none", "line+points": "-"}
_WIDTH = 11.0
_LEGEND_WIDTH = 80  # characters
_NOTHING = "nothing to draw"


def curve_color(color: str | int) -> str:
    """Return the colour of a role or of a number of the palette."""
    return COLORS[color] if isinstance(color, str) else PALETTE[color % len(PALETTE)]


def save_reproduction_plots(
    folder: str | os.PathLike[str], formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write a picture of every judged figure of a reproduction folder, each file atomically.

    Parameters
    ----------
    folder : path-like
    formats : sequence of {"png", "svg", "pdf"}

    Returns
    -------
    list of Path
        ``figures/<paper>/<figure>/<figure>.png``, likewise in other formats; none for a figure
        without panels.

    Raises
    ------
    ValueError
        If a format is not allowed, or the folder holds no reproduction.
    """
    formats = check_formats(formats)
    records = load_reproduction(folder).figures
    return [path for record in records for path in save_figure_plot(record, formats)]


def save_figure_plot(record: FigureRecord, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write the picture of one figure next to its results; nothing if it has no panels."""
    panels = [panel for panel in record.panels if not panel.empty]
    if not panels:
        return []
    charts = [panel for panel in panels if isinstance(panel, Chart)]
    others = [panel for panel in panels if not isinstance(panel, Chart)]
    rows: list[Sequence[Panel]] = [charts[i : i + 2] for i in range(0, len(charts), 2)]
    rows += [[panel] for panel in others]
    heights = [max(_height(panel) for panel in row) for row in rows]
    figure = new_figure(_WIDTH, sum(heights) + 0.9)
    title = f"{record.about['title']}\n{record.name}, {record.about['source']}"
    figure.suptitle(title, fontsize=12, color=LIGHT.text)
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        part.set_facecolor(LIGHT.paper)
        (panel, *_) = row
        if isinstance(panel, HeatMaps):
            _draw_maps(part, panel)
        elif isinstance(panel, Table):
            _draw_table(part.subplots(), panel)
        else:
            axes = part.subplots(1, 2, squeeze=False)[0]
            for axis, chart in zip(axes, row, strict=False):
                assert isinstance(chart, Chart)
                _draw_chart(axis, chart)
            for axis in axes[len(row) :]:
                axis.set_axis_off()
    return save_figures(figure, record.folder / record.name.partition("/")[2], formats, dpi=100)


def _height(panel: Panel) -> float:
    """Return a row's height in inches."""
    if isinstance(panel, HeatMaps):
        columns = min(len(panel.maps), _COLUMNS)
        return 0.5 + math.ceil(len(panel.maps) / columns) * min(_WIDTH / columns + 0.2, 3.4)
    if isinstance(panel, Table):
        return 0.5 + 0.2 * (min(len(panel.rows), _TABLE_ROWS) + 1)
    return 3.7 + 0.2 * math.ceil(len(_labels(panel)) / _legend_columns(panel))


def _labels(chart: Chart) -> list[str]:
    return [curve.label for curve in chart.curves if curve.label]


def _legend_columns(chart: Chart) -> int:
    """Return how many columns the legend has: as many as fit below half a picture, about."""
    labels = _labels(chart) or [""]
    most = max(1, min(4, _LEGEND_WIDTH // (max(map(len, labels)) + 7)))
    return math.ceil(len(labels) / math.ceil(len(labels) / most))


def _draw_chart(axis: Axes, chart: Chart) -> None:
    label_axis(axis, chart.title, chart.x_label, chart.y_label)
    if chart.empty:
        empty_axis(axis, _NOTHING)
        return
    style_axis(axis)
    for curve in chart.curves:
        x, y = points(chart, curve)
        if not x:
            continue
        color = curve_color(curve.color)
        marked = "points" in curve.style or len(x) == 1
        axis.plot(
            x,
            y,
            label=curve.label or None,
            color=color,
            linestyle=_DASHES[curve.style],
            linewidth=1.8,
            marker="o" if marked else None,
            markersize=5,
        )
        if curve.low is not None and curve.high is not None:
            band = [
                (x, a, b)
                for x, a, b in zip(curve.x, curve.low, curve.high, strict=True)
                if a is not None and b is not None and not (chart.log_y and min(a, b) <= 0)
            ]
            places, low, high = zip(*band, strict=True) if band else ((), (), ())
            axis.fill_between(places, low, high, color=color, alpha=0.18, linewidth=0)
    for mark in chart.marks:
        line = axis.axvline if mark.axis == "x" else axis.axhline
        color = curve_color(mark.color)
        line(mark.value, color=color, linewidth=1.2, linestyle=":")
        upright = mark.axis == "x"
        axis.annotate(
            mark.label,
            (mark.value, 0.97) if upright else (0.99, mark.value),
            xycoords=axis.get_xaxis_transform() if upright else axis.get_yaxis_transform(),
            xytext=(-3, 0) if upright else (0, 3),
            textcoords="offset points",
            rotation=90 if upright else 0,
            ha="right",
            va="top" if upright else "bottom",
            fontsize=8.5,
            color=color,
        )
    if chart.log_x:
        axis.set_xscale("log")
    if chart.log_y:
        axis.set_yscale("log")
        bottom, top = axis.get_ylim()
        if top >= 100 * bottom:
            axis.yaxis.set_minor_locator(NullLocator())
    if _labels(chart):
        # Below the axes it can cover neither data nor marks.
        axis.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=_legend_columns(chart),
            fontsize=8.5,
            frameon=False,
            labelcolor=LIGHT.text,
            borderaxespad=0.0,
        )


def _draw_maps(part: SubFigure, panel: HeatMaps) -> None:
    part.suptitle(panel.title, fontsize=10.5, color=LIGHT.text, x=0.01, ha="left")
    columns = min(len(panel.maps), _COLUMNS)
    rows = math.ceil(len(panel.maps) / columns)
    axes = part.subplots(rows, columns, squeeze=False)
    norm = Normalize(-panel.scale, panel.scale)
    for i, axis in enumerate(axes.flat):
        if i >= len(panel.maps):
            axis.set_axis_off()
            continue
        matrix = panel.maps[i]
        values = [[math.nan if v is None else v for v in row] for row in matrix.values]
        axis.imshow(values, cmap=_DIVERGING, norm=norm, interpolation="nearest")
        first_column, last_row = i % columns == 0, i // columns == rows - 1
        label_axis(
            axis,
            matrix.title,
            panel.x_label if last_row else "",
            panel.y_label if first_column else "",
        )
        axis.set_xticks([])
        axis.set_yticks([])
        for border in panel.borders:
            axis.axhline(border - 0.5, color=LIGHT.muted, linewidth=0.8)
            axis.axvline(border - 0.5, color=LIGHT.muted, linewidth=0.8)
        for spine in axis.spines.values():
            spine.set_color(LIGHT.grid)
    bar = part.colorbar(ScalarMappable(norm, _DIVERGING), ax=list(axes.flat), shrink=0.85)
    bar.ax.tick_params(labelsize=8.5, colors=LIGHT.muted)
    bar.outline.set_edgecolor(LIGHT.grid)  # type: ignore[operator,unused-ignore]


def _draw_table(axis: Axes, panel: Table) -> None:
    title = panel.title
    if len(panel.rows) > _TABLE_ROWS:
        title += f" (the first {_TABLE_ROWS} of {len(panel.rows)} rows)"
    label_axis(axis, title)
    axis.set_axis_off()
    cells = [[table_text(value) for value in row] for row in panel.rows[:_TABLE_ROWS]]
    table = axis.table(cells, colLabels=list(panel.columns), loc="upper center", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for cell in table.get_celld().values():
        cell.set_edgecolor(LIGHT.grid)
        cell.get_text().set_color(LIGHT.text)


def table_text(value: object) -> str:
    """Return an entry of a table as text."""
    if isinstance(value, (bool, str)):
        return str(value)
    return str(value) if isinstance(value, int) else format_number(value)
