"""What a network does with its classes, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightframe.figures.model import Bars, Chart, Mark
from tightframe.metrics.answers import LOST_BELOW, WEAK_BELOW
from tightframe.problem.class_names import shown_names

if TYPE_CHECKING:
    from tightframe.metrics.classes import ClassTable

#: Most classes of a printed table, or of a picture.
MOST_ROWS = 20


def chart_of(classes: ClassTable) -> Chart:
    """Return the accuracies of the worst classes, on training and held-out samples.

    Where only class means are known, their decision margins.
    """
    shown = classes[:MOST_ROWS]
    by_samples = any(row.accuracy is not None for row in shown)
    series = {"training accuracy": [row.accuracy for row in shown]}
    if not by_samples:
        series = {"decision margin at the mean": [row.decision_margin for row in shown]}
    if classes.held_out:
        series["held-out recall"] = [row.held_out_recall for row in shown]
    high = 0.8 / len(series)
    bars = [
        Bars(
            name,
            [place + (i + 0.5) * high - 0.4 for place in range(len(shown))],
            values,
            color=i,
            width=high,
            across=True,
        )
        for i, (name, values) in enumerate(series.items())
    ]
    names = shown_names([row.name for row in shown])
    more = len(classes) - len(shown)
    return Chart(
        "Classes, worst first",
        "share of samples answered right" if by_samples else "decision margin",
        "",
        [],
        bars=bars,
        marks=[
            Mark(LOST_BELOW, "lost below", color="lost", in_legend=True),
            Mark(WEAK_BELOW, "weak below", color="muted", style="dashed", in_legend=True),
        ]
        if by_samples
        else [],
        x_range=(0.0, 1.0) if by_samples else (None, None),
        y_ticks=[(float(i), f"{names[i]} ({row.count})") for i, row in enumerate(shown)],
        downwards=True,
        note=f"{more} more classes are better." if more else "",
    )
