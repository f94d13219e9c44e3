"""All classes along lambda: solutions, states and takers at the decays that the page moves over."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tightframe.changes import FEW_GROUPS, Event, StateChange, StateChanges, records
from tightframe.geometry.states import DISTINCT, LOST
from tightframe.pages.explore.compute import MAX_AT_ONCE, PICTURE_TOL, keep
from tightframe.pages.explore.compute import changes as changes_of
from tightframe.pages.explore.sentences import Members, Next
from tightframe.path import path
from tightframe.problem.problem import Problem
from tightframe.solution import Solution
from tightframe.solve import NotConvergedWarning
from tightframe.theory.coverage import coverage
from tightframe.theory.thresholds import overall_decay
from tightframe.theory.thresholds import thresholds as closed_thresholds
from tightframe.views.merge_tree import BEFORE, BEYOND, group_parts
from tightframe.views.wheel import MOST_MARKS

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Told how many decays of how many are done.
Tell = Callable[[int, int], None]

#: Decays of the grid: usually, of many groups, and of more classes than a wheel has marks.
POINTS, POINTS_MANY, POINTS_HUGE = 49, 65, 25

#: Just below a change, where margins fall as a root: shares of its decay.
BELOW = (0.97, 0.997, 1 - 1e-6)

#: Of many groups: a first look for where the first class is lost, from this share of the decay at
#: which everything vanishes.
_LOOK, _LOOK_POINTS = 1e-4, 25

#: The axis follows a problem so far to the left, no further.
_FARTHEST = 1e-3


@dataclass(frozen=True, eq=False)
class Followed:
    """A problem along lambda.

    Attributes
    ----------
    changes : StateChanges
    decays : ndarray, shape (T,)
        With every decay at which a state changes.
    solutions : tuple of Solution, length T
    exact : bool
        Whether changes are exact; otherwise they are known to the next of the decays.
    """

    changes: StateChanges
    decays: Array
    solutions: tuple[Solution, ...]
    exact: bool

    @property
    def problem(self) -> Problem:
        """The problem; its decays do not matter."""
        return self.changes.problem

    @property
    def has_takers(self) -> bool:
        """Whether every change of a taker is known exactly."""
        return self.exact and len(self.problem.groups) <= FEW_GROUPS

    @cached_property
    def states(self) -> NDArray[np.str_]:
        """State of every group at every decay, shape (T, G)."""
        return np.array([[self._part(g, d)[0] for g in self._groups] for d in self.decays.tolist()])

    @cached_property
    def takers(self) -> Indices:
        """Group that a lost one is taken for, otherwise -1, shape (T, G)."""
        found = np.full(self.states.shape, -1)
        for i, (decay, solution) in enumerate(
            zip(self.decays.tolist(), self.solutions, strict=True)
        ):
            rivals = solution.group_states.rival
            for g in np.flatnonzero(self.states[i] == LOST).tolist():
                known = self._part(g, decay)[1] if self.has_takers else None
                found[i, g] = rivals[g] if known is None else known
        return found

    @property
    def _groups(self) -> range:
        return range(len(self.problem.groups))

    @cached_property
    def _parts(self) -> list[list[tuple[float, str, int | None]]]:
        ends = float(self.decays[0]), float(self.decays[-1])
        return [
            [(part.low, part.state, part.taker) for part in own]
            for own in group_parts(self.changes, *ends)
        ]

    def _part(self, group: int, decay: float) -> tuple[str, int | None]:
        _, state, taker = next(p for p in reversed(self._parts[group]) if p[0] <= decay)
        return state, taker

    def since(self, group: int) -> float | None:
        """Return from which decay on a group is not distinct; None if nowhere on the axis."""
        return next((low for low, state, _ in self._parts[group] if state != DISTINCT), None)

    def parts_of(self, group: int) -> list[tuple[float, str]]:
        """Return from which decays on a group is in which states."""
        return [(low, state) for low, state, _ in self._parts[group]]

    def members(self, i: int) -> list[Members]:
        """Return what becomes of all classes at a decay, by its number."""
        classes = [np.flatnonzero(self.problem.class_groups == g) for g in self._groups]
        none = np.array([], dtype=np.intp)
        return [
            Members(own, str(state), none if taker < 0 else np.setdiff1d(classes[taker], own), g)
            for g, (own, state, taker) in enumerate(
                zip(classes, self.states[i], self.takers[i].tolist(), strict=True)
            )
        ]

    def upcoming(self, i: int) -> Next | None:
        """Return the first change above a decay, by its number; of those at one decay the worst."""
        here = float(self.decays[i])
        later = [c for c in self.changes if c.logit_decay > here and c.before != c.after]
        if not later:
            return None
        first = later[0]
        together = [
            c for c in later if c.logit_decay == first.logit_decay and c.after == first.after
        ]
        classes = np.concatenate([c.classes for c in together])
        left = {c.logit_decay for c in later}
        is_last = len(left) == 1 and all(c.after == "vanished" for c in later)
        return Next(first.logit_decay, classes, first.after, is_last)


# -- how it is found -------------------------------------------------------------------------------

#: What was followed lately, oldest first; by the problem without its decays, and
#: the decay that the axis reaches to.
_KEPT: dict[tuple[Problem, float], Followed] = {}


def follow(problem: Problem, tell: Tell) -> Iterator[Followed]:
    """Yield a problem along lambda: first to the grid, then exactly if that is known.

    Raises
    ------
    ValueError
        If nothing certifies the problem's solutions: searching at every decay would take minutes.
    """
    if not coverage(problem).is_certified:
        raise ValueError("nothing certifies these features, loss, depth, dim and bias")
    line = problem.replace(weight_decay=1.0, feature_decay=1.0, class_names=None)
    here = overall_decay(problem)
    known = [found for (own, _), found in list(_KEPT.items()) if own == line]
    known = [found for found in known if _on(found, here)]
    if known:
        yield known[-1]
        return
    yield _rough(line, here)
    try:
        found = _exact(line, here, tell)
    except ValueError:  # as for some biases with non-negative features
        return
    keep(_KEPT, (line, here), found)
    yield found


def _on(found: Followed, decay: float) -> bool:
    return bool(found.decays[0] <= decay <= found.decays[-1])


def _exact(line: Problem, here: float, tell: Tell) -> Followed:
    few = len(line.groups) <= FEW_GROUPS
    changes = changes_of(line, lambda done, total, name: tell(done, total))
    changing = sorted({c.logit_decay for c in changes if c.before != c.after})
    taken = [c.logit_decay for c in changes if c.before == c.after] if few else []
    low, high = _ends(changing or [closed_thresholds(line).total_collapse], here)
    grid = np.geomspace(low, high, _points(line))
    close = [share * d for d in changing for share in BELOW] if len(changing) <= FEW_GROUPS else []
    decays = np.unique([*grid, *changing, *taken, *close])
    # Below the lowest decay looked at, everything is as it is there.
    changes = replace(changes, lowest=min(changes.lowest, low))
    return Followed(changes, decays, _solutions(line, decays), exact=True)


def _rough(line: Problem, here: float) -> Followed:
    """Follow a problem to the next decay of a grid that has all thresholds known in closed form."""
    limits = closed_thresholds(line)
    top = limits.total_collapse
    known = [g.logit_decay for g in limits.groups if g.logit_decay is not None] + [top]
    look = np.geomspace(_LOOK * top, top, _LOOK_POINTS)
    found = _solutions(line, look)
    whole = [d for d, s in zip(look.tolist(), found, strict=True) if _all_distinct(s)]
    low, high = _ends([min([*known, max(whole, default=look[0])]), top], here)
    # At the problem's own decay what is said is true at once.
    own = [here] if low < here < high else []
    decays = np.unique([*np.geomspace(low, high, _points(line)), *known, *own])
    solutions = _solutions(line, decays)
    changes = StateChanges(line, _changes(line, decays, solutions), low, solutions[0].group_states)
    return Followed(changes, decays, solutions, exact=False)


def _all_distinct(solution: Solution) -> bool:
    return bool((solution.group_states.state == DISTINCT).all())


def _changes(
    line: Problem, decays: Array, solutions: Sequence[Solution]
) -> tuple[StateChange, ...]:
    events = []
    for decay, (below, above) in zip(decays[1:].tolist(), pairwise(solutions), strict=True):
        before, after = below.group_states, above.group_states
        for g in np.flatnonzero(before.state != after.state).tolist():
            rival = int(after.rival[g]) if after.state[g] == LOST else -1
            events.append(Event(decay, g, str(before.state[g]), str(after.state[g]), rival))
    return records(line, events)


def _ends(places: Sequence[float], here: float) -> tuple[float, float]:
    low, high = BEFORE * min(places), BEYOND * max(places)
    if here > _FARTHEST * low:
        low = min(low, here / 1.5)
    if here < high / _FARTHEST:
        high = max(high, 1.2 * here)
    return low, high


def _points(line: Problem) -> int:
    if line.num_classes > MOST_MARKS:
        return POINTS_HUGE
    return POINTS_MANY if len(line.groups) > MAX_AT_ONCE else POINTS


def _solutions(line: Problem, decays: Array) -> tuple[Solution, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        found = path(
            line, weight_decay=decays, feature_decay=decays, tol=PICTURE_TOL, progress=False
        )
    return found.solutions
