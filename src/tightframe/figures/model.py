"""What a picture shows, as plain data: charts, heat maps and tables, for any plotting library.

A picture is declared once; the backends `figures.mpl` and `figures.plotly` draw it, and only they
know a plotting library. Panels are stored as JSON, so a page can be made again from the folder
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tightframe.checks import choice
from tightframe.figures.diagrams import MergeTree as MergeTree
from tightframe.figures.diagrams import Wheel as Wheel
from tightframe.figures.style import (
    LIGHT,
    MARKERS,
    PALETTE,
    ROLES,
    SEQUENTIAL,
    STATES,
    Ink,
    diverging,
)
from tightframe.figures.table import Table as Table

#: How a `Curve` is drawn; steps change half-way between two points.
STYLES = ("solid", "dashed", "dotted", "dashdot", "points", "line+points", "steps")

#: How a `Mark` is drawn; a triangle stands on the axis where lines would hide the curves.
MARK_STYLES = ("solid", "dashed", "dotted", "triangle")

#: Where a `Chart` has its legend.
LEGENDS = ("below", "inside", "none")

#: More series than this share no panel that can be read.
PALETTE_SIZE = len(PALETTE)

#: A place on an axis and what stands there.
Tick = tuple[float, str]

_NOTHING = "nothing to draw"


@dataclass(frozen=True)
class Shades:
    """A logarithmic scale of colours for many curves, drawn beside the chart.

    Parameters
    ----------
    label : str
    low, high : float
        Its ends, both above 0.
    """

    label: str
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        """Its ends, apart even where both are given as one."""
        return self.low, max(self.high, self.low * 1.001)

    def fraction(self, value: float) -> float:
        """Return where a value is on the scale, from 0 to 1."""
        reach = math.log(self.high / self.low)
        place = math.log(value / self.low) / reach if reach > 0 else 0.0
        return min(max(place, 0.0), 1.0)


@dataclass(frozen=True)
class Curve:
    """One series of a `Chart`.

    Parameters
    ----------
    label : str
        In the legend; empty: not there.
    x, y : sequence of float
        Equally many. None, NaN and infinity (on a log axis also what is not positive) are gaps.
    color : str or int
        A role of `figures.style.ROLES`, or the number of a palette colour (taken modulo its
        length), for series that have no role. The line of what is predicted is dashed and its
        points are rings, unless they are said to be something else.
    style : {"solid", "dashed", "dotted", "dashdot", "points", "line+points", "steps"}
    low, high : sequence of float, optional
        A band around the curve, for example the range over seeds.
    marker : str, optional
        Shape of its points, of `figures.style.MARKERS`; by default that of the state that its color
        is, else a circle.
    hollow : bool or sequence of bool
        Whether the points are outlines; one truth value a point says which are.
    size, width : float
        Of points and line, as factors of the usual ones.
    shade : float, optional
        A value on the chart's `Shades`, which gives the colour instead.
    seam : bool
        Whether the line has a seam in the colour of the ground, to be seen on coloured cells.

    Raises
    ------
    ValueError
        If lengths differ or a name is unknown.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: str | int = "measured"
    style: str = "solid"
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    marker: str = ""
    hollow: bool | Sequence[bool] = False
    size: float = 1.0
    width: float = 1.0
    shade: float | None = None
    seam: bool = False

    def __post_init__(self) -> None:
        """Store plain lists of numbers."""
        choice("style", self.style, STYLES)
        _check_color(self.color)
        if not self.marker:
            usual = STATES[str(self.color)].marker if self.color in STATES else "circle"
            object.__setattr__(self, "marker", usual)
        choice("marker", self.marker, MARKERS)
        if self.color == "predicted" and self.hollow is False:
            object.__setattr__(self, "hollow", True)
        if not isinstance(self.hollow, bool):
            object.__setattr__(self, "hollow", [bool(value) for value in self.hollow])
        if (self.low is None) != (self.high is None):
            raise ValueError("low, high: a band needs both")
        for name in ("x", "y", "low", "high"):
            values = getattr(self, name)
            if values is None:
                continue
            plain = [_finite(value) for value in values]
            if len(plain) != len(self.x):
                raise ValueError(f"{name}: got {len(plain)} values for {len(self.x)} of x")
            object.__setattr__(self, name, plain)
        if not isinstance(self.hollow, bool) and len(self.hollow) != len(self.x):
            raise ValueError(f"hollow: got {len(self.hollow)} values for {len(self.x)} of x")

    @property
    def has_line(self) -> bool:
        """Whether its points are joined."""
        return self.style != "points"

    @property
    def dash(self) -> str:
        """How its line is broken."""
        plain = "dashed" if self.color == "predicted" else "solid"
        return self.style if self.style in ("dashed", "dotted", "dashdot") else plain


@dataclass(frozen=True)
class Mark:
    """A straight line across a `Chart`: a threshold, a limit.

    Parameters
    ----------
    value : float
    label : str
    axis : {"x", "y"}
        The axis that the value is on: ``"x"`` draws a vertical line.
    color : str or int
        As of a `Curve`.
    style : {"dotted", "dashed", "solid", "triangle"}
    in_legend : bool
        Whether the label stands in the legend instead of along the line; marks with one label and
        one style share an entry.
    shade : float, optional
        As of a `Curve`.
    """

    value: float
    label: str
    axis: str = "x"
    color: str | int = "predicted"
    style: str = "dotted"
    in_legend: bool = False
    shade: float | None = None

    def __post_init__(self) -> None:
        choice("axis", self.axis, ("x", "y"))
        choice("style", self.style, MARK_STYLES)
        _check_color(self.color)
        if not math.isfinite(self.value):
            raise ValueError(f"value: got {self.value}, need a finite number")


@dataclass(frozen=True)
class Bars:
    """Bars of one series of a `Chart`, from zero to each value.

    Parameters
    ----------
    label : str
        In the legend.
    places, values : sequence of float
        Middles of the bars on their axis, and how far they reach.
    color : str or int
        As of a `Curve`.
    width : float
        Of a bar, in units of the places.
    across : bool
        Whether they run from left to right instead of upwards.
    hatched : bool
    """

    label: str
    places: Sequence[float]
    values: Sequence[float | None]
    color: str | int = 0
    width: float = 0.8
    across: bool = False
    hatched: bool = False

    def __post_init__(self) -> None:
        _check_color(self.color)
        for name in ("places", "values"):
            object.__setattr__(self, name, [_finite(value) for value in getattr(self, name)])
        if len(self.values) != len(self.places):
            raise ValueError(f"values: got {len(self.values)} for {len(self.places)} places")


@dataclass(frozen=True)
class Cells:
    """Coloured cells behind the curves of a `Chart`: values over both axes.

    Parameters
    ----------
    x, y : sequence of float
        Middles of the cells, ascending; on a log axis the borders lie half-way in logarithms.
    values : array_like, shape (len(y), len(x))
        None and NaN: no colour, so that the ground is seen.
    label : str
        Of the colour scale.
    states : array_like of str, optional
        Of `figures.style.STATES`, of cells that have no value because of them; empty: none.
    missing_label : str
        Of cells with neither; in the legend if there are any.
    """

    x: Sequence[float]
    y: Sequence[float]
    values: Any
    label: str
    states: Any = None
    missing_label: str = ""

    def __post_init__(self) -> None:
        shape = (len(self.y), len(self.x))
        values = np.asarray(self.values, dtype=np.float64)
        states = np.full(shape, "") if self.states is None else np.asarray(self.states, dtype=str)
        for name, grid in (("values", values), ("states", states)):
            if grid.shape != shape:
                raise ValueError(f"{name}: got shape {grid.shape}, need {shape}")
        for state in np.unique(states).tolist():
            if state:
                choice("states", state, tuple(STATES))
        object.__setattr__(self, "values", [[_finite(v) for v in row] for row in values])
        object.__setattr__(self, "states", states.tolist())
        for name in ("x", "y"):
            object.__setattr__(self, name, [float(value) for value in getattr(self, name)])

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the colour scale: from zero, or below it, to the largest value."""
        drawn = [v for row in self.values for v in row if v is not None]
        return min(0.0, *drawn) if drawn else 0.0, max(drawn, default=1.0) or 1.0

    @property
    def missing(self) -> bool:
        """Whether a cell has neither value nor state."""
        return any(
            value is None and not state
            for row, states in zip(self.values, self.states, strict=True)
            for value, state in zip(row, states, strict=True)
        )

    @property
    def shown_states(self) -> list[str]:
        """States of some cell, in the order of the table."""
        there = {state for row in self.states for state in row}
        return [state for state in STATES if state in there]


@dataclass(frozen=True)
class Mesh:
    """Colours behind the curves of a `Chart`, between columns that end at heights of their own.

    Where `Cells` would cross a line, the nodes of a mesh lie on it. Contours are at whole numbers.

    Parameters
    ----------
    x : sequence of float, length n
        Of the columns, ascending; at least two.
    y : array_like, shape (n, m)
        Heights of the nodes of every column, none below the one before; at least two.
    values : array_like, shape (n, m)
        Finite.
    label : str
        Of the colour scale.

    Raises
    ------
    ValueError
        If shapes differ or a value is not finite.
    """

    x: Sequence[float]
    y: Any
    values: Any
    label: str

    def __post_init__(self) -> None:
        for name in ("y", "values"):
            grid = np.asarray(getattr(self, name), dtype=np.float64)
            if grid.ndim != 2 or len(grid) != len(self.x) or min(grid.shape) < 2:
                raise ValueError(f"{name}: got shape {grid.shape}, need ({len(self.x)}, 2 or more)")
            if not np.isfinite(grid).all():
                raise ValueError(f"{name}: need finite numbers")
            object.__setattr__(self, name, grid.tolist())
        if np.shape(self.y) != np.shape(self.values):
            raise ValueError(f"values: got shape {np.shape(self.values)}, need {np.shape(self.y)}")
        object.__setattr__(self, "x", [float(value) for value in self.x])

    @property
    def top(self) -> float:
        """The largest value, where the colour scale ends; it begins at zero or below."""
        return float(max(*(value for own in self.values for value in own), 0.0)) or 1.0

    @property
    def bottom(self) -> float:
        """Where the colour scale begins."""
        return float(min(*(value for own in self.values for value in own), 0.0))

    @property
    def levels(self) -> list[float]:
        """Where contours are."""
        step = max(1, math.ceil((self.top - self.bottom) / 8))
        first = math.ceil(self.bottom / step) * step
        return [float(v) for v in range(first, math.ceil(self.top), step) if self.bottom < v]


@dataclass(frozen=True)
class Area:
    """What a state fills between two curves of a `Chart`.

    Parameters
    ----------
    label : str
        In the legend.
    state : str
        Of `figures.style.STATES`: gives ground, hatch and colour.
    x, low, high : sequence of float
        Equally many.
    whole : bool
        Whether nothing else is left there: a darker ground without a hatch.
    """

    label: str
    state: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    whole: bool = False

    def __post_init__(self) -> None:
        choice("state", self.state, tuple(STATES))
        for name in ("x", "low", "high"):
            values = [float(value) for value in getattr(self, name)]
            if len(values) != len(self.x):
                raise ValueError(f"{name}: got {len(values)} values for {len(self.x)} of x")
            object.__setattr__(self, name, values)


@dataclass(frozen=True)
class Note:
    """A few words at a place of a `Chart`.

    Parameters
    ----------
    x, y : float
    text : str
    color : str or int
        As of a `Curve`.
    """

    x: float
    y: float
    text: str
    color: str | int = "ink"

    def __post_init__(self) -> None:
        _check_color(self.color)


@dataclass(frozen=True)
class Chart:
    """One pair of axes with curves, bars, cells and marks.

    Parameters
    ----------
    title, x_label, y_label : str
    curves : sequence of Curve
    marks : sequence of Mark
    log_x, log_y : bool
    note : str
        A sentence under the chart.
    bars : sequence of Bars
    cells : Cells, optional
    mesh : Mesh, optional
    areas : sequence of Area
    notes : sequence of Note
    shades : Shades, optional
        Of the curves that have a shade.
    x_ticks, y_ticks : sequence of (place, name), optional
        Where an axis is no number line.
    x_range, y_range : pair of float or None, optional
        Ends of an axis; None leaves an end to the data.
    whole : sequence of {"x", "y"}
        Axes that count: only whole numbers are written on them.
    downwards : bool
        Whether the y axis starts at the top.
    legend : {"below", "inside", "none"}
    hollow_label : str
        What hollow points mean; in the legend if there are any.
    nothing : str
        Stands in place of a chart that has nothing to draw.

    Raises
    ------
    ValueError
        If a name is unknown.
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    marks: Sequence[Mark] = ()
    log_x: bool = False
    log_y: bool = False
    note: str = ""
    bars: Sequence[Bars] = ()
    cells: Cells | None = None
    notes: Sequence[Note] = ()
    shades: Shades | None = None
    x_ticks: Sequence[Tick] | None = None
    y_ticks: Sequence[Tick] | None = None
    x_range: tuple[float | None, float | None] = (None, None)
    y_range: tuple[float | None, float | None] = (None, None)
    whole: Sequence[str] = ()
    downwards: bool = False
    legend: str = "below"
    hollow_label: str = ""
    nothing: str = _NOTHING
    mesh: Mesh | None = None
    areas: Sequence[Area] = ()

    def __post_init__(self) -> None:
        choice("legend", self.legend, LEGENDS)
        for axis in self.whole:
            choice("whole", axis, ("x", "y"))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        drawn = any(points(self, curve)[0] for curve in self.curves)
        grounds = self.cells is not None or self.mesh is not None
        return not (drawn or self.bars or grounds or self.areas)

    def span(self, axis: str) -> tuple[float, float]:
        """Return the smallest and the largest number that is drawn on an axis, as it is shown.

        Parameters
        ----------
        axis : {"x", "y"}
        """
        values: list[float] = []
        for curve in self.curves:
            values += points(self, curve)[axis == "y"]
            if axis == "y" and curve.low is not None and curve.high is not None:
                values += [v for _, *ends in band(self, curve) for v in ends]
        for bars in self.bars:
            reach = [v for v in bars.values if v is not None]
            values += reach if bars.across == (axis == "x") else list(bars.places)
        if self.cells is not None:
            values += getattr(self.cells, axis)
        if self.mesh is not None:
            values += self.mesh.x if axis == "x" else [v for own in self.mesh.y for v in own]
        for area in self.areas:
            values += area.x if axis == "x" else [*area.low, *area.high]
        low, high = self.x_range if axis == "x" else self.y_range
        ends = [min(values, default=1.0), max(values, default=1.0)]
        return (ends[0] if low is None else low, ends[1] if high is None else high)


@dataclass(frozen=True)
class Stack:
    """Charts over one x axis, the first and largest on top, whose marks run through all.

    Parameters
    ----------
    title : str
    charts : sequence of Chart
        The x axis is that of the last.
    heights : sequence of float
        Of the charts, relative to each other.
    note : str
    """

    title: str
    charts: Sequence[Chart]
    heights: Sequence[float]
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.heights) != len(self.charts) or not self.charts:
            raise ValueError(f"heights: got {len(self.heights)} for {len(self.charts)} charts")

    @property
    def empty(self) -> bool:
        """Whether no chart has anything to draw."""
        return all(chart.empty for chart in self.charts)


@dataclass(frozen=True)
class Matrix:
    """One K x K matrix of a `HeatMaps`.

    Parameters
    ----------
    title : str
    values : array_like, shape (K, K), or None
        None if it is not there yet.
    """

    title: str
    values: Any

    def __post_init__(self) -> None:
        if self.values is None:
            return
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 2 or not values.size:
            raise ValueError(f"values: got shape {values.shape}, need a matrix")
        object.__setattr__(self, "values", [[_finite(v) for v in row] for row in values.tolist()])


@dataclass(frozen=True)
class HeatMaps:
    """Matrices on one scale of colours; more than four get a slider on the page.

    Parameters
    ----------
    title : str
    maps : sequence of Matrix
    x_label, y_label : str
    borders : sequence of float
        Lines between groups of classes: 5 lies between the fifth and the sixth class.
    limit : float, optional
        The scale runs from minus to plus this, around zero; default: the largest entry.
    note : str
    ticks : sequence of (place, name)
        Of rows and columns alike: 0 is the middle of the first; without: none are named.
    names_below : bool
        Whether the columns are named too.
    classes : sequence of int
        Which classes the rows and columns are, for those who point at an entry.
    names : sequence of str
        What rows and columns are called there, where they are no classes.
    scale_label : str
        Of the colour scale.
    nothing : str
        Stands in place of a matrix that is not there.
    signed : bool
        Whether there may be entries below zero. Otherwise, as with shares, the scale begins there.
    """

    title: str
    maps: Sequence[Matrix]
    x_label: str = "class of the samples"
    y_label: str = "logit of class"
    borders: Sequence[float] = ()
    limit: float | None = None
    note: str = ""
    ticks: Sequence[Tick] = ()
    names_below: bool = True
    classes: Sequence[int] = ()
    names: Sequence[str] = ()
    scale_label: str = ""
    nothing: str = _NOTHING
    signed: bool = True

    @property
    def empty(self) -> bool:
        """Whether there is no matrix."""
        return not any(matrix.values is not None for matrix in self.maps)

    @property
    def lines(self) -> list[float]:
        """Where the borders are drawn, in the units of the ticks; none if they hid the entries."""
        size = max((len(m.values) for m in self.maps if m.values is not None), default=0)
        return [b - 0.5 for b in self.borders] if len(self.borders) <= size // 2 else []

    @property
    def scale(self) -> float:
        """Where the colour scale ends."""
        if self.limit is not None:
            return self.limit
        there = [matrix.values for matrix in self.maps if matrix.values is not None]
        entries = [abs(v) for values in there for row in values for v in row if v is not None]
        return max(entries, default=0.0) or 1.0

    @property
    def limits(self) -> tuple[float, float]:
        """Both ends of the colour scale."""
        return (-self.scale if self.signed else 0.0), self.scale

    def colors(self, ink: Ink = LIGHT) -> tuple[str, ...]:
        """Return the colours of the scale on a page, from its low end to its high one."""
        return diverging(ink) if self.signed else SEQUENTIAL


#: What a picture is made of.
Panel = Chart | Stack | HeatMaps | Table | Wheel | MergeTree


@dataclass(frozen=True)
class Block:
    """Small multiples of a `Sheet`: panels in a grid, row by row.

    Parameters
    ----------
    panels : sequence of Panel
        Every matrix of `HeatMaps` takes one place of the grid.
    columns : int
    height : float
        Of a row, in inches.
    title : str
    widths : sequence of float
        Of the columns, relative to each other; empty: all the same.
    """

    panels: Sequence[Panel]
    columns: int
    height: float
    title: str = ""
    widths: Sequence[float] = ()

    @property
    def cells(self) -> list[tuple[Panel, int]]:
        """A panel for every place of the grid, with the number of its matrix."""
        return [
            (panel, i)
            for panel in self.panels
            for i in range(len(panel.maps) if isinstance(panel, HeatMaps) else 1)
        ]


@dataclass(frozen=True)
class Sheet:
    """A whole picture: blocks of panels under each other.

    Parameters
    ----------
    title : str
    blocks : sequence of Block
    width : float
        In inches.
    """

    title: str
    blocks: Sequence[Block]
    width: float

    @property
    def height(self) -> float:
        """In inches."""
        lines = self.title.count("\n") + 1 if self.title else 0
        rows = sum(-(-len(b.cells) // b.columns) * b.height for b in self.blocks)
        return 0.3 * lines + rows + 0.3 * sum(bool(b.title) for b in self.blocks) + 0.1


def evenly(size: int, most: int) -> list[int]:
    """Return at most so many indices of a sequence, evenly chosen, first and last among them."""
    chosen: list[int] = np.linspace(0, size - 1, min(size, most)).round().astype(int).tolist()
    return chosen


def block_borders(counts: ArrayLike) -> list[float]:
    """Return where the sample count changes from one class to the next, for `HeatMaps`."""
    return [float(i + 1) for i in np.flatnonzero(np.diff(np.asarray(counts)))]


def points(chart: Chart, curve: Curve) -> tuple[list[float], list[float]]:
    """Return the points of a curve that can be drawn on the chart's axes."""
    kept = [
        (x, y)
        for x, y in zip(curve.x, curve.y, strict=True)
        if y is not None and _can_be_drawn(chart, x, y)
    ]
    return [x for x, _ in kept], [y for _, y in kept]


def drawn(chart: Chart, curve: Curve) -> tuple[list[float | None], list[float | None], list[bool]]:
    """Return a curve as a backend joins it: from its first to its last point, None for gaps.

    A curve without a point keeps its length, so that its axes keep their place. The third list says
    of every point whether it is hollow.
    """
    kept = [_can_be_drawn(chart, x, y) for x, y in zip(curve.x, curve.y, strict=True)]
    part = slice(kept.index(True), len(kept) - kept[::-1].index(True)) if any(kept) else slice(None)
    y = [value if keep else None for value, keep in zip(curve.y, kept, strict=True)]
    hollow = [curve.hollow] * len(y) if isinstance(curve.hollow, bool) else list(curve.hollow)
    x: list[float | None] = list(curve.x)
    return x[part], y[part], hollow[part]


def has_points(curve: Curve, y: Sequence[float | None]) -> bool:
    """Tell whether markers are drawn: also where a line alone would not show a lone value."""
    padded = [None, *y, None]
    alone = any(
        b is not None and a is None and c is None
        for a, b, c in zip(padded, padded[1:], padded[2:], strict=False)
    )
    return "points" in curve.style or alone


def band(chart: Chart, curve: Curve) -> list[tuple[float, float, float]]:
    """Return x, low and high of a curve's band where all can be drawn."""
    if curve.low is None or curve.high is None:
        return []
    return [
        (x, low, high)
        for x, low, high in zip(curve.x, curve.low, curve.high, strict=True)
        if low is not None and high is not None
        if _can_be_drawn(chart, x, low) and _can_be_drawn(chart, x, high)
    ]


def single_maps(panel: HeatMaps) -> list[HeatMaps]:
    """Return a panel for every matrix, all on the scale of all."""
    return [replace(panel, title=m.title, maps=[m], limit=panel.scale) for m in panel.maps]


def _can_be_drawn(chart: Chart, x: float | None, y: float | None) -> bool:
    return (
        x is not None
        and y is not None
        and (x > 0 or not chart.log_x)
        and (y > 0 or not chart.log_y)
    )


def _check_color(color: str | int) -> None:
    if isinstance(color, str) and color not in ROLES:
        raise ValueError(f"color: got {color!r}, allowed are {', '.join(ROLES)} and whole numbers")


def _finite(value: Any) -> float | None:
    """Return a number that can be drawn, None for every other."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)
