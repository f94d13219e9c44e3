"""Pictures in words, for those who do not see them."""

from __future__ import annotations

from tightframe.figures.model import Chart, HeatMaps, Panel, Space, Stack, points
from tightframe.figures.table import format_number


def in_words(panel: Panel) -> str:
    """Return what a panel shows as a sentence with its most telling numbers."""
    if isinstance(panel, Stack):
        return " ".join(in_words(chart) for chart in panel.charts)
    if isinstance(panel, Chart):
        return _chart_in_words(panel)
    if isinstance(panel, HeatMaps):
        return _maps_in_words(panel)
    if isinstance(panel, Space):
        return f"{panel.title}: {sum(len(part.points) for part in panel.spokes)} vectors."
    return f"{panel.title}: a table of {len(panel.rows)} rows."


def _chart_in_words(chart: Chart) -> str:
    if chart.empty:
        return f"{chart.title}: {chart.nothing}."
    parts = []
    for curve in chart.curves:
        _, y = points(chart, curve)
        ends = list(dict.fromkeys(format_number(value, 3) for value in (*y[:1], *y[-1:])))
        if ends and curve.label:
            parts.append(f"{curve.label} " + (f"from {' to '.join(ends)}" if ends[1:] else ends[0]))
    for bars in chart.bars:
        reach = [value for value in bars.values if value is not None]
        if reach:
            ends = [format_number(value, 3) for value in (min(reach), max(reach))]
            parts.append(f"{bars.label} between {ends[0]} and {ends[1]}")
    parts += [f"{m.label} at {format_number(m.value, 3)}" for m in chart.marks if m.label]
    about = f"{chart.y_label} over {chart.x_label}"
    return f"{chart.title}; {about}: {'; '.join(parts)}."


def _maps_in_words(panel: HeatMaps) -> str:
    if panel.empty:
        return f"{panel.title}: {panel.nothing}."
    there = [matrix for matrix in panel.maps if matrix.values is not None]
    if len(there) > 1:
        names = f"{there[0].title} to {there[-1].title}"
        return f"{panel.title}: {len(there)} heat maps, {names}."
    rows, columns = len(there[0].values), len(there[0].values[0])
    low, high = format_number(-panel.scale, 3), format_number(panel.scale, 3)
    return f"{there[0].title}: a {rows} by {columns} heat map from {low} to {high}."
