"""What all panels have in common that Matplotlib draws: titles, ticks, texts, shapes of points."""

from __future__ import annotations

import textwrap

import matplotlib as mpl
from matplotlib.axes import Axes

from tightframe.figures import style
from tightframe.figures.style import LIGHT, Ink
from tightframe.problem.class_names import END_ISOLATE, ISOLATE

#: Whether Matplotlib draws texts in the order in which they are read.
_SHAPES = mpl.__version_info__[:2] >= (3, 11)

#: Mean width of a letter, over the size of the font; and a line has at least so many.
_LETTER, _FEWEST = 0.55, 16

#: Shapes of points.
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "up": "^",
    "right": ">",
    "cross": "x",
    "star": "*",
    "half": "o",
}


def label_axis(
    axis: Axes, title: str, x_label: str = "", y_label: str = "", ink: Ink = LIGHT
) -> None:
    """Set the title, and those axis labels that are given."""
    inches = axis.bbox.width / axis.figure.dpi
    text = wrapped(plain(title), inches, style.TITLE)
    axis.set_title(text, fontsize=style.TITLE, color=ink.text, loc="left")
    if x_label:
        axis.set_xlabel(plain(x_label), fontsize=style.LABEL, color=ink.muted)
    if y_label:
        axis.set_ylabel(plain(y_label), fontsize=style.LABEL, color=ink.muted)


def plain(text: str) -> str:
    """Return a text that Matplotlib does not take for mathematics: a name may have dollar signs.

    Releases that do not shape text draw boxes for what isolates a name.
    """
    text = text.replace("$", r"\$")
    return text if _SHAPES else text.replace(ISOLATE, "").replace(END_ISOLATE, "")


def wrapped(text: str, inches: float, size: float) -> str:
    """Return a text in lines that fit a width, of letters of a size in points."""
    letters = int(inches * 72 / (_LETTER * size))
    return textwrap.fill(text, max(letters, _FEWEST), break_long_words=False)


def style_axis(axis: Axes, ink: Ink = LIGHT) -> None:
    """Draw ticks, spines and grid so that the data stand out."""
    axis.set_facecolor(ink.paper)
    axis.tick_params(which="both", labelsize=style.TICK, colors=ink.muted)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(ink.grid)
    axis.grid(True, color=ink.grid, linewidth=0.6)
    axis.set_axisbelow(True)


def empty_axis(axis: Axes, text: str, ink: Ink) -> None:
    """Write a text where there is nothing to draw."""
    axis.set_axis_off()
    axis.text(0.5, 0.5, plain(text), transform=axis.transAxes, ha="center", color=ink.muted)
