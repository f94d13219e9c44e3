"""Pictures in words, for those who do not see them."""

from __future__ import annotations

from collections import Counter

from tightframe.checks import number_of
from tightframe.figures.diagrams import MergeTree, Wheel
from tightframe.figures.model import Chart, HeatMaps, Panel, Stack, points
from tightframe.figures.table import format_number


def in_words(panel: Panel) -> str:
    """Return what a panel shows as a sentence with its most telling numbers."""
    if isinstance(panel, Stack):
        return " ".join(in_words(chart) for chart in panel.charts)
    if isinstance(panel, Chart):
        return _chart_in_words(panel)
    if isinstance(panel, HeatMaps):
        return _maps_in_words(panel)
    if isinstance(panel, Wheel):
        return _wheel_in_words(panel)
    if isinstance(panel, MergeTree):
        return _tree_in_words(panel)
    return f"{panel.title}: a table of {number_of(len(panel.rows), 'row')}."


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
    low, high = (format_number(end, 3) for end in panel.limits)
    return f"{there[0].title}: a {rows} by {columns} heat map from {low} to {high}."


def _wheel_in_words(wheel: Wheel) -> str:
    if wheel.empty:
        return f"{wheel.title}: nothing to draw."
    moment = wheel.moments[-1]
    number = Counter(moment.states)
    found = [f"{number[state]} {state}" for state in wheel.shown_states if number[state]]
    what = "classes" if wheel.joined else "marks"
    return f"{wheel.title}: {len(wheel.names)} {what} at {moment.label}, {', '.join(found)}."


def _tree_in_words(tree: MergeTree) -> str:
    if tree.empty:
        return f"{tree.title}: {tree.nothing}."
    found = [f"{c.label or c.state} at {format_number(c.value, 3)}" for c in tree.changes]
    if not found:
        ends = Counter(x for lane in tree.lanes for x, _ in lane.ends)
        found = [f"{n} end at {format_number(x, 3)}" for x, n in sorted(ends.items())][:10]
    about = f"{len(tree.lanes)} classes over {tree.x_label}"
    return f"{tree.title}; {about}: {'; '.join(found) or 'no change'}."
