"""What a figure shows, as plain data: charts, heat maps and tables, for any plotting library.

A figure declares these once; `tightframe.report` draws them on the page and as pictures. They are
stored as JSON, so a page can be made again from the folder alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

#: How a `Curve` is drawn.
STYLES = ("solid", "dashed", "dotted", "points", "line+points")

#: Roles a `Curve` may name as its colour (see `tightframe.figures.style`); an integer takes the
#: palette's colour of that number instead, for series that have no role.
ROLES = ("predicted", "measured", "etf", "bound")

#: More series than this share no panel that can be read.
PALETTE_SIZE = 8


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
        A role of `ROLES`, or the number of a palette colour (taken modulo its length).
    style : {"solid", "dashed", "dotted", "points", "line+points"}
    low, high : sequence of float, optional
        A band around the curve, for example the range over seeds.

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

    def __post_init__(self) -> None:
        """Store plain lists of numbers."""
        if self.style not in STYLES:
            raise ValueError(f"style: got {self.style!r}, allowed are {', '.join(STYLES)}")
        if isinstance(self.color, str) and self.color not in ROLES:
            raise ValueError(
                f"color: got {self.color!r}, allowed are {', '.join(ROLES)} and whole numbers"
            )
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
    """

    value: float
    label: str
    axis: str = "x"
    color: str | int = "predicted"

    def __post_init__(self) -> None:
        if self.axis not in ("x", "y"):
            raise ValueError(f"axis: got {self.axis!r}, allowed are x, y")
        if not math.isfinite(self.value):
            raise ValueError(f"value: got {self.value}, need a finite number")


@dataclass(frozen=True)
class Chart:
    """One pair of axes with curves and marks.

    Parameters
    ----------
    title, x_label, y_label : str
    curves : sequence of Curve
    marks : sequence of Mark
    log_x, log_y : bool
    note : str
        A sentence under the chart.
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    marks: Sequence[Mark] = ()
    log_x: bool = False
    log_y: bool = False
    note: str = ""

    @property
    def empty(self) -> bool:
        """Whether no curve has a point to draw."""
        return not any(points(self, curve)[0] for curve in self.curves)


@dataclass(frozen=True)
class Matrix:
    """One K x K matrix of a `HeatMaps`.

    Parameters
    ----------
    title : str
    values : array_like, shape (K, K)
    """

    title: str
    values: Any

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 2 or not values.size:
            raise ValueError(f"values: got shape {values.shape}, need a matrix")
        object.__setattr__(self, "values", [[_finite(v) for v in row] for row in values.tolist()])


@dataclass(frozen=True)
class HeatMaps:
    """Matrices on one diverging scale around zero; more than four get a slider on the page.

    Parameters
    ----------
    title : str
    maps : sequence of Matrix
    x_label, y_label : str
    borders : sequence of float
        Lines between groups of classes: 5 lies between the fifth and the sixth class.
    limit : float, optional
        The scale runs from minus to plus this; default: the largest entry.
    note : str
    """

    title: str
    maps: Sequence[Matrix]
    x_label: str = "class of the samples"
    y_label: str = "logit of class"
    borders: Sequence[float] = ()
    limit: float | None = None
    note: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is no matrix."""
        return not self.maps

    @property
    def scale(self) -> float:
        """Where the colour scale ends."""
        if self.limit is not None:
            return self.limit
        entries = [abs(v) for m in self.maps for row in m.values for v in row if v is not None]
        return max(entries, default=0.0) or 1.0


@dataclass(frozen=True)
class Table:
    """Numbers side by side.

    Parameters
    ----------
    title : str
    columns : sequence of str
    rows : sequence of sequence
        Texts, numbers, None; one entry a column.
    note : str
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"rows: got {len(row)} entries for {len(self.columns)} columns")

    @property
    def empty(self) -> bool:
        """Whether there is no row."""
        return not self.rows


#: What `Figure.draw` returns a list of.
Panel = Chart | HeatMaps | Table

_KINDS: dict[str, Any] = {"chart": Chart, "heat_maps": HeatMaps, "table": Table}
_PARTS: dict[str, Any] = {"curves": Curve, "marks": Mark, "maps": Matrix}


def block_borders(counts: ArrayLike) -> list[float]:
    """Return where the sample count changes from one class to the next, for `HeatMaps`."""
    return [float(i + 1) for i in np.flatnonzero(np.diff(np.asarray(counts)))]


def points(chart: Chart, curve: Curve) -> tuple[list[float], list[float]]:
    """Return the points of a curve that can be drawn on the chart's axes."""
    drawn = [
        (x, y)
        for x, y in zip(curve.x, curve.y, strict=True)
        if x is not None
        and y is not None
        and (x > 0 or not chart.log_x)
        and (y > 0 or not chart.log_y)
    ]
    return [x for x, _ in drawn], [y for _, y in drawn]


def panel_to_dict(panel: Panel) -> dict[str, Any]:
    """Return a panel as JSON-ready values; `panel_from_dict` is the inverse."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(panel, cls))
    return {"kind": kind, **_plain(panel)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _finite(value) if isinstance(value, (float, np.floating)) else value


def panel_from_dict(values: Mapping[str, Any]) -> Panel:
    """Make a panel from what `panel_to_dict` returned.

    Raises
    ------
    ValueError
        If that is not a panel.
    """
    try:
        rest = {name: value for name, value in values.items() if name != "kind"}
        for name, cls in _PARTS.items():
            if name in rest:
                rest[name] = [cls(**part) for part in rest[name]]
        panel: Panel = _KINDS[values["kind"]](**rest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"panel: not one of a figure ({error})") from None
    return panel


def _finite(value: Any) -> float | None:
    """Return a number that can be drawn, None for every other."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)
