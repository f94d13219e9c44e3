"""The pictures of judged figures as files, next to their results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tightframe.figures.model import Block, Chart, HeatMaps, Panel, Sheet, Table
from tightframe.figures.mpl import (
    check_formats,
    draw,
    legend_columns,
    save_figures,
    table_height,
)
from tightframe.reproduce.folder import FigureRecord, load_reproduction
from tightframe.runs.folder import using_record

#: At most so many maps stand in one row of a picture.
_COLUMNS = 5
_WIDTH = 11.0


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
    with using_record(folder, "reproduction"):
        records = load_reproduction(folder).figures
        return [path for record in records for path in save_figure_plot(record, formats)]


def save_figure_plot(record: FigureRecord, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write the picture of one figure next to its results; nothing if it has no panels."""
    sheet = figure_sheet(record)
    if not sheet.blocks:
        return []
    path = record.folder / record.name.partition("/")[2]
    return save_figures(draw(sheet), path, formats, dpi=100)


def figure_sheet(record: FigureRecord) -> Sheet:
    """Return the panels of a figure on one sheet: charts first, two in a row."""
    panels = [panel for panel in record.panels if not panel.empty]
    charts = [panel for panel in panels if isinstance(panel, Chart)]
    blocks = []
    if charts:
        height = max(map(_chart_height, charts))
        blocks.append(Block(charts, 2, height))
    blocks += [_block(panel) for panel in panels if not isinstance(panel, Chart)]
    title = f"{record.about['title']}\n{record.name}, {record.about['source']}"
    return Sheet(title, blocks, _WIDTH)


def _chart_height(chart: Chart) -> float:
    labels = [curve.label for curve in chart.curves if curve.label] or [""]
    return 3.7 + 0.2 * -(-len(labels) // legend_columns(labels, _WIDTH / 2))


def _block(panel: Panel) -> Block:
    if isinstance(panel, Table):
        return Block([panel], 1, table_height(panel))
    if isinstance(panel, HeatMaps):
        columns = min(len(panel.maps), _COLUMNS)
        height = min(_WIDTH / columns + 0.2, 3.4)
        return Block([panel], columns, height, panel.title)
    return Block([replace(panel, title="")], 1, 5.0, panel.title)
