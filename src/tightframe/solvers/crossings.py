"""Crossings: where states change on a smooth stretch of the decay, read from its polynomial."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.geometry.states import DISTINCT, LOST, MERGED, STATES, VANISHED
from tightframe.solvers.stretches import Stretch

Indices = NDArray[np.intp]

#: Points of a stretch whose states are compared; all that is between two that differ is found.
POINTS = 49

#: Times, as logarithms, of a crossing that are nearer are one.
SAME = 1e-11

#: Half the step of a difference quotient.
STEP = 1e-6


class Crossing(NamedTuple):
    """A state that changes, or the group that a lost one is taken for.

    ``rivals``: whose logits are equal there, with the group's own or with each other.
    """

    time: float
    group: int
    before: str
    after: str
    rivals: tuple[int, int]

    @property
    def is_of_takers(self) -> bool:
        """Whether only the taker changes."""
        return self.before == self.after

    def difference(self, gaps: Array) -> float:
        """Return what crosses zero, of one group's gaps."""
        if self.is_of_takers:
            return float(gaps[self.rivals[0]] - gaps[self.rivals[1]])
        return float(gaps[self.rivals[self.after == LOST]])

    def slope(self, gaps: Callable[[float], Array]) -> float:
        """Return its derivative by the time."""
        low, high = (self.difference(gaps(self.time + side)) for side in (-STEP, STEP))
        return (high - low) / (2 * STEP)


def resting(stretch: Stretch) -> NDArray[np.str_]:
    """Return the states of groups where nobody else's logit is larger, shape (G,)."""
    p = stretch.partition
    vanished = (stretch.rank == 0) & (stretch.within == 0)
    together = (p.sizes > 1) & (stretch.within == 0)
    return np.select([vanished, together], [VANISHED, MERGED], default=DISTINCT)


def codes(stretch: Stretch, times: Array, *, takers: bool) -> Indices:
    """Return numbers that tell states (and takers) apart, shape (T, G)."""
    gaps = stretch.gaps(times)
    rest = resting(stretch)
    numbers = np.array([STATES.index(state) for state in rest])
    lost = (gaps.min(axis=1) <= 0) & (rest != VANISHED)
    taken = STATES.index(LOST) + (len(STATES) * (1 + gaps.argmin(axis=1)) if takers else 0)
    return np.where(lost, taken, numbers)


def crossings(stretch: Stretch, *, takers: bool) -> list[Crossing]:
    """Return the crossings on a stretch, from the smallest decay up.

    Parameters
    ----------
    stretch : Stretch
    takers : bool
        Whether those of takers count.
    """
    if stretch.high <= stretch.low:
        return []
    times = np.linspace(stretch.low, stretch.high, POINTS)
    found = codes(stretch, times, takers=takers)
    rest = resting(stretch)
    result: list[Crossing] = []
    for group in np.flatnonzero((found != found[0]).any(axis=0)).tolist():
        column = stretch.column(group)
        finder = _Finder(group, column, str(rest[group]), takers)
        changed = np.flatnonzero(np.diff(found[:, group])).tolist()
        for i in changed:
            result += finder.between(float(times[i]), float(times[i + 1]))
    return sorted(result)


class _Finder:
    """Finds the crossings of one group."""

    def __init__(self, group: int, gaps: Callable[[float], Array], rest: str, takers: bool) -> None:
        self.group, self.gaps, self.rest, self.takers = group, gaps, rest, takers

    def state(self, gaps: Array) -> tuple[str, int]:
        nearest = int(gaps.argmin())
        return (LOST if gaps[nearest] <= 0 else self.rest), nearest

    def differ(self, one: tuple[str, int], other: tuple[str, int]) -> bool:
        if one[0] != other[0]:
            return True
        return self.takers and one[0] == LOST and one[1] != other[1]

    def between(self, low: float, high: float) -> list[Crossing]:
        """Return all crossings between two times, as far as the states at both differ."""
        from scipy.optimize import brentq

        below, above = self.state(self.gaps(low)), self.state(self.gaps(high))
        if not self.differ(below, above):
            return []
        crossing = Crossing(low, self.group, below[0], above[0], (below[1], above[1]))

        def difference(time: float) -> float:
            return crossing.difference(self.gaps(time))

        ends = difference(low), difference(high)
        if high - low <= 4 * SAME or not ends[0] * ends[1] < 0:
            middle = (low + high) / 2
            if high - low <= 4 * SAME:
                return [crossing._replace(time=middle)]
            return self.between(low, middle) + self.between(middle, high)
        root = float(brentq(difference, low, high, xtol=SAME / 4, rtol=1e-15))
        sides = max(low, root - SAME), min(high, root + SAME)
        inner = [self.state(self.gaps(side)) for side in sides]
        result = self.between(low, sides[0]) if self.differ(below, inner[0]) else []
        if self.differ(*inner):
            (before, first), (after, last) = inner
            result.append(Crossing(root, self.group, before, after, (first, last)))
        return result + (self.between(sides[1], high) if self.differ(inner[1], above) else [])
