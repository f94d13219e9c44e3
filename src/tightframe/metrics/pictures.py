"""A `CollapseReport` as a DataFrame, a Rich table and a Matplotlib figure, loaded on request."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.metrics.readings import describe_classes
from tightframe.metrics.targets import TARGET_PARTS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

    from tightframe.metrics.report import CollapseReport


def frame_of(report: CollapseReport) -> pd.DataFrame:
    """Return the rows of a report as a DataFrame: metric, part, target, value."""
    try:
        import pandas as pd
    except ImportError as error:
        raise _missing("to_frame", "pandas") from error
    frame = pd.DataFrame(report.rows, columns=["metric", "part", "target", "value"])
    return frame.astype({"value": "float64"})


def table_of(report: CollapseReport) -> Table:
    """Return the rows of a report as a Rich table."""
    from rich.table import Table

    title = f"Neural collapse: {report.num_samples} samples, {len(report.counts)} classes"
    missing = list(report.missing)
    caption = f"{describe_classes(missing)} without samples" if missing else None
    table = Table(title=title, caption=caption, title_justify="left")
    table.add_column("metric", no_wrap=True)
    table.add_column("part")
    table.add_column("target")
    table.add_column("value", justify="right")
    previous = None
    for row in report.rows:
        about = row.target if row.metric in ("nc2", "nc3") else row.part.split()[:2]
        if previous is not None and about != previous:
            table.add_section()
        table.add_row(row.metric, row.part, row.target, f"{row.value:.6g}")
        previous = about
    return table


def figure_of(report: CollapseReport) -> Figure:
    """Draw distances to the targets, norms by class, and mean logits."""
    try:
        from tightframe.figures.mpl import empty_axis, label_axis, new_figure
        from tightframe.figures.style import LIGHT
    except ImportError as error:
        raise _missing("plot", "matplotlib") from error
    figure = new_figure(15.0, 4.6)
    figure.suptitle(_headline(report), fontsize=12, color=LIGHT.text)
    distances, norms, logits = figure.subplots(1, 3, width_ratios=[1.3, 1.1, 1])
    label_axis(distances, "Normalised distance (0 to 2)")
    label_axis(norms, "Norms, over their mean", "class", "norm / mean norm")
    label_axis(logits, "Mean logits", "class of the samples", "logit of class")
    _draw_distances(distances, report)
    _draw_norms(norms, report)
    if report.missing or len(report.counts) > _MOST_PIXELS:
        empty_axis(logits, "a class is missing" if report.missing else "too many classes to draw")
    else:
        _draw_logits(figure, logits, report.logits)
    return figure


#: Logits of more classes than this would be smaller than the picture's dots.
_MOST_PIXELS = 1000


def _missing(what: str, package: str) -> ImportError:
    return ImportError(f"{what} needs {package}: pip install 'tightframe[report]'")


def _headline(report: CollapseReport) -> str:
    values = {"NC1": report.nc1, "CDNV": report.cdnv, "NC4": report.nc4, "NC5": report.nc5}
    shown = [f"{name} {value:.3g}" for name, value in values.items() if value is not None]
    return f"{report.num_samples} samples, {len(report.counts)} classes: " + ", ".join(shown)


def _draw_distances(axis: Axes, report: CollapseReport) -> None:
    from tightframe.figures.mpl import empty_axis, style_axis
    from tightframe.figures.style import GROUP_COLORS, LIGHT

    rows = [row for row in report.rows if row.metric in ("nc2", "nc3")]
    rows = [row for row in rows if row.part in TARGET_PARTS and math.isfinite(row.value)]
    if not rows:
        empty_axis(axis, "no distance is defined")
        return
    style_axis(axis)
    targets = list(dict.fromkeys(row.target for row in rows))
    high = 0.8 / len(targets)
    for i, target in enumerate(targets):
        own = [row for row in rows if row.target == target]
        places = [TARGET_PARTS.index(row.part) + i * high for row in own]
        color = GROUP_COLORS[i % len(GROUP_COLORS)]
        hatch = "///" if i >= len(GROUP_COLORS) else None
        values = [row.value for row in own]
        axis.barh(places, values, high, color=color, label=target, hatch=hatch, edgecolor="white")
    middle = 0.4 - high / 2
    names = [part.replace("_", " ") for part in TARGET_PARTS]
    axis.set_yticks([place + middle for place in range(len(names))], names)
    axis.invert_yaxis()
    axis.legend(
        loc="upper left",
        bbox_to_anchor=(0, -0.1),
        ncols=2,
        fontsize=9,
        frameon=False,
        labelcolor=LIGHT.text,
    )


def _draw_norms(axis: Axes, report: CollapseReport) -> None:
    from matplotlib.ticker import MaxNLocator

    from tightframe.figures.mpl import empty_axis, style_axis
    from tightframe.figures.style import GROUP_COLORS, LIGHT

    drawn = False
    for color, (part, values) in zip(GROUP_COLORS, report.norms().items(), strict=False):
        mean = np.nanmean(values)
        if mean > 0:
            drawn = True
            axis.plot(
                np.arange(len(values)),
                values / mean,
                color=color,
                marker="o" if len(values) <= 100 else None,
                markersize=5,
                linewidth=1.5,
                label=part.replace("_", " "),
            )
    if not drawn:
        empty_axis(axis, "all vectors are zero")
        return
    style_axis(axis)
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=9, frameon=False, labelcolor=LIGHT.text)


def _draw_logits(figure: Figure, axis: Axes, logits: Any) -> None:
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.ticker import MaxNLocator

    from tightframe.figures.style import DIVERGING, LIGHT

    limit = float(np.abs(logits).max()) or 1.0
    colors = LinearSegmentedColormap.from_list("tightframe", DIVERGING)
    image = axis.imshow(logits, cmap=colors, norm=Normalize(-limit, limit), interpolation="nearest")
    axis.tick_params(length=0, labelsize=9, colors=LIGHT.muted)
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(image, ax=axis, shrink=0.85)
    bar.ax.tick_params(labelsize=9, colors=LIGHT.muted)
