"""The picture of a phase diagram: columns up to the threshold, and areas of states above it.

A grid with the same decays at every ratio crosses the threshold in every column; here a column's
nodes end on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import Area, Chart, Curve, Mesh, Tick, evenly

Array = NDArray[np.float64]

LAMBDA = "λ = √(weight decay · feature decay)"

#: What happens to the minority where it ends to be distinct, by its state then.
VERBS = {"merged": "merges", "lost": "is lost", "vanished": "vanishes"}

#: Nodes of a column that is drawn from other decays.
NODES = 48


@dataclass(frozen=True, eq=False)
class Columns:
    """A phase diagram by imbalance ratio.

    Attributes
    ----------
    ratios : ndarray, shape (R,)
        Ascending.
    decays : ndarray, shape (R, U)
        Nodes of every column, ascending: the last is the minority's threshold, or the upper end.
    margins : ndarray, shape (R, U)
        The minority's; NaN: not solved, and only the thresholds are drawn.
    ends, vanishes, total : ndarray, shape (R,)
        From which lambda on the minority is not distinct, has vanished, and everything has. NaN in
        ``vanishes``: that is not known.
    low, high : float
        Ends of lambda.
    """

    ratios: Array
    decays: Array
    margins: Array
    ends: Array
    vanishes: Array
    total: Array
    low: float
    high: float


def nodes(low: float, top: float, number: int) -> Array:
    """Return decays from one to another: fractions of the latter, closer to each other near it."""
    share = 1 - (1 - np.linspace(0, 1, number)) ** 2
    found: Array = low * (top / low) ** share
    found[-1] = top
    return found


def up_to_threshold(decays: Array, margins: Array, threshold: float) -> tuple[Array, Array]:
    """Return a column from margins at ascending decays: nodes up to the threshold, zero there.

    Beyond the last decay nothing is known: a threshold above it is not reached.
    """
    below = decays < threshold
    places, values = decays[below], margins[below]
    if threshold <= decays[-1]:
        places, values = np.append(places, threshold), np.append(values, 0.0)
    column = nodes(decays[0], max(float(places[-1]), decays[0] * (1 + 1e-9)), NODES)
    return column, np.interp(np.log(column), np.log(places), values)


def picture(
    columns: Columns, title: str, label: str, more: Sequence[Curve] = (), *, after: str = "merged"
) -> Chart:
    """Return a phase diagram.

    Parameters
    ----------
    columns : Columns
    title, label : str
        Of the chart and of its colours.
    more : sequence of Curve
        On top.
    after : {"merged", "lost", "vanished"}
        What becomes of the minority where it ends to be distinct.
    """
    x = columns.ratios.tolist()

    def inside(limits: Array) -> Array:
        return np.clip(limits, columns.low, columns.high)

    ends, total = inside(columns.ends), inside(columns.total)
    known = np.isfinite(columns.vanishes)
    vanishes = np.where(known, np.clip(inside(columns.vanishes), ends, total), total)
    areas = []
    if after != "vanished":
        areas.append(Area(f"minority {after}", after, x, ends.tolist(), vanishes.tolist()))
    if known.any() or after == "vanished":
        start = ends if after == "vanished" else vanishes
        areas.append(Area("minority vanished", "vanished", x, start.tolist(), total.tolist()))
    top = np.full(len(x), columns.high)
    areas.append(Area("all vanished", "vanished", x, total.tolist(), top.tolist(), whole=True))
    lines = [
        Curve(f"minority {VERBS[after]}", x, columns.ends.tolist(), after, width=1.3),
        Curve("", x, columns.total.tolist(), "vanished", width=1.3),
    ]  # fmt: skip
    if after != "vanished" and known.all():
        lines.append(Curve("", x, columns.vanishes.tolist(), "vanished"))
    solved = bool(np.isfinite(columns.margins).all())
    return Chart(
        title,
        "imbalance ratio R",
        LAMBDA,
        [*lines, *more],
        log_x=True,
        log_y=True,
        mesh=Mesh(x, columns.decays, columns.margins, label) if solved else None,
        areas=areas,
        x_range=(x[0], x[-1]),
        y_range=(columns.low, columns.high),
        x_ticks=ratio_ticks(columns.ratios),
        legend="inside",
    )


def ratio_ticks(ratios: Array) -> list[Tick]:
    """Return labels at 1, 2 and 5 of every decade; at the ratios themselves where few are there."""
    round_numbers = np.outer(10.0 ** np.arange(17), [1, 2, 5]).ravel()
    places = round_numbers[(round_numbers >= ratios[0]) & (round_numbers <= ratios[-1])]
    if len(places) < 3:
        places = ratios[evenly(len(ratios), 8)]
    return [(float(place), f"{place:.3g}") for place in places]
