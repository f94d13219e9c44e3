"""What a solver did on its way: for looking into slow solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tightframe.saved import kept
from tightframe.shown import record


@kept
class Round(NamedTuple):
    """Where a certificate was asked for.

    Attributes
    ----------
    iteration : int
        Steps taken so far.
    primal, dual : float
        Objective and certified lower bound.
    rank : int
        Rank of the point between the groups.
    """

    iteration: int
    primal: float
    dual: float
    rank: int


@kept
@record
@dataclass(frozen=True)
class Stats:
    """Counts of a solve; zeros for a closed form, and for a point interpolated along a sweep.

    Attributes
    ----------
    iterations : int
        Steps: of Newton's method, or of the splitting.
    starts : int
        Starts of a search; 1 for the certified solver.
    rank_adaptations : int
        How often a proximal step changed the rank of the factors.
    history : tuple of Round
        One a certificate.
    """

    iterations: int = 0
    starts: int = 0
    rank_adaptations: int = 0
    history: tuple[Round, ...] = ()
