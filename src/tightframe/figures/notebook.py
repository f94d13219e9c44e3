"""What a notebook shows of figures that pyplot does not know: the picture, once.

Notebooks show pyplot's figures at the end of a cell. Others, and tuples of a figure and axes, they
show as text, unless these say what their picture is.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

from matplotlib import _pylab_helpers
from matplotlib.figure import Figure

#: Dots of a picture in a notebook, an inch of which has `SHOWN` on the screen.
_DPI, SHOWN = 150, 80


class Picture(Figure):
    """A figure that a notebook shows as its picture."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return picture_of(self)


class Drawn(NamedTuple):
    """A figure and its axes, as they were drawn; a notebook shows the picture.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes, or a list of them
    """

    figure: Any
    axes: Any

    def __repr__(self) -> str:
        return f"({self.figure!r}, {self.axes!r})"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]] | None:
        whole = getattr(self.figure, "figure", self.figure)  # of a part the figure that it is in
        # pyplot's own, in which somebody gave axes, are shown at the end of the cell.
        known = _pylab_helpers.Gcf.get_all_fig_managers()
        if any(manager.canvas.figure is whole for manager in known):
            return None
        return picture_of(whole)


def picture_of(figure: Figure) -> tuple[bytes, dict[str, int]]:
    """Return a figure as a PNG, and how wide and high it is shown."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI)
    width, height = (round(SHOWN * size) for size in figure.get_size_inches())
    return out.getvalue(), {"width": width, "height": height}
