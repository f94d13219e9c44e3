"""What all Matplotlib pictures share; without pyplot and its global state."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tightframe.files import replacing
from tightframe.report.style import LIGHT

_DPI = 150


def new_figure(width: float, height: float, *, layout: bool = True) -> Figure:
    """Return a figure of a size in inches; without ``layout`` the caller makes the room."""
    engine = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08) if layout else None
    figure = Figure(figsize=(width, height), layout=engine, facecolor=LIGHT.paper)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, dpi: int = _DPI) -> Path:
    """Write a figure as PNG, atomically; return its path."""
    with replacing(path) as temporary:
        # Without metadata the same record gives the same bytes under every Matplotlib release.
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
    return path


def label_axis(axis: Axes, title: str, x_label: str = "", y_label: str = "") -> None:
    """Set the title, and those axis labels that are given."""
    axis.set_title(title, fontsize=10.5, color=LIGHT.text, loc="left")
    if x_label:
        axis.set_xlabel(x_label, fontsize=9.5, color=LIGHT.muted)
    if y_label:
        axis.set_ylabel(y_label, fontsize=9.5, color=LIGHT.muted)


def style_axis(axis: Axes) -> None:
    """Draw ticks, spines and grid so that the data stand out."""
    axis.tick_params(which="both", labelsize=9, colors=LIGHT.muted)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(LIGHT.grid)
    axis.grid(True, color=LIGHT.grid, linewidth=0.6)
    axis.set_axisbelow(True)


def empty_axis(axis: Axes, text: str) -> None:
    """Write a text where there is nothing to draw."""
    axis.set_axis_off()
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", color=LIGHT.muted)
