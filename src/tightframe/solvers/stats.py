"""What a solver did on its way: for looking into slow solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Round(NamedTuple):
    """Where a round of Newton steps ended.

    Attributes
    ----------
    iteration : int
        Steps taken so far.
    primal, dual : float
        Objective and certified lower bound.
    rank : int
        Columns of the factors.
    """

    iteration: int
    primal: float
    dual: float
    rank: int


@dataclass(frozen=True)
class Stats:
    """Counts of a solve; zeros for a closed form, and for a point interpolated along a sweep.

    Attributes
    ----------
    iterations : int
        Newton steps.
    starts : int
        Starts of a search; 1 for the Newton solver.
    rank_adaptations : int
        How often a proximal step changed the rank of the factors.
    history : tuple of Round
        One a certificate.
    """

    iterations: int = 0
    starts: int = 0
    rank_adaptations: int = 0
    history: tuple[Round, ...] = ()
