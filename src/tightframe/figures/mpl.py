"""What all Matplotlib pictures share; without pyplot and its global state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tightframe.figures.style import LIGHT
from tightframe.files import replacing

_DPI = 150

#: What a picture can be written as, and what keeps the date and the release out of each: the same
#: record gives the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(_METADATA)


def new_figure(width: float, height: float, *, layout: bool = True) -> Figure:
    """Return a figure of a size in inches; without ``layout`` the caller makes the room."""
    engine = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08) if layout else None
    figure = Figure(figsize=(width, height), layout=engine, facecolor=LIGHT.paper)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, dpi: int = _DPI) -> Path:
    """Write a figure as its path's ending says, atomically; return the path."""
    ending = path.suffix[1:]
    with (
        replacing(path) as temporary,
        # Letters stay letters, and names in an SVG do not change from run to run.
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tightframe", "pdf.fonttype": 42}),
    ):
        figure.savefig(temporary, format=ending, dpi=dpi, metadata=_METADATA[ending])
    return path


def save_figures(
    figure: Figure, path: Path, formats: Sequence[str] = FORMATS[:1], dpi: int = _DPI
) -> list[Path]:
    """Write a figure under one name in several `FORMATS`; return the paths."""
    return [save_figure(figure, path.with_name(f"{path.name}.{end}"), dpi) for end in formats]


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return formats once each, or raise a ValueError that names what is allowed."""
    for ending in formats:
        if ending not in FORMATS:
            raise ValueError(f"formats: got {ending!r}, allowed are {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(formats))


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
