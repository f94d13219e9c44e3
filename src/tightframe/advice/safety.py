"""Safety: how far the classes of every group are from merging, vanishing or being lost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tightframe.changes import FEW_GROUPS, known_thresholds, state_changes
from tightframe.geometry.blocks import Array, Partition
from tightframe.geometry.states import DISTINCT, VANISHED
from tightframe.path import path
from tightframe.problem.problem import Problem
from tightframe.saved import kept
from tightframe.shown import record
from tightframe.solve import solve

#: How close to a closed form a decay that was followed is taken for it.
SAME_DECAY = 1e-9

#: Points of the path on which classes of more than `FEW_GROUPS` groups are followed.
PATH_POINTS = 121

#: Relative accuracy of what is bisected on it.
ACCURACY = 1e-3


@kept
@record
@dataclass(frozen=True)
class Safety:
    """How far one group is from collapse.

    Attributes
    ----------
    logit_decay : float
        The next ``sqrt(weight_decay feature_decay)`` at which its classes merge, vanish or are
        lost; if they have collapsed already, the last one.
    factor : float
        That over the problem's: below 1 they have collapsed already.
    by : {"theorem", "changes", "path"}
        A closed form; `state_changes`, to its accuracy; or of more than `FEW_GROUPS` groups
        interpolated between certified points, to about 1 %.
    """

    logit_decay: float
    factor: float
    by: str


def at(problem: Problem, logit_decay: float) -> Problem:
    """Return the problem with both decays changed alike, to another ``logit_decay``."""
    factor = logit_decay / problem.logit_decay
    return problem.replace(
        weight_decay=problem.weight_decays[0] * factor,
        feature_decay=problem.feature_decay * factor,
    )


class Follower:
    """Follows the classes of a problem along its decay.

    Parameters
    ----------
    problem : Problem
    tol : float
        Certified relative gap of every solve.
    """

    def __init__(self, problem: Problem, tol: float) -> None:
        self.problem, self.tol = problem, tol
        self.partition = Partition.coarsest(problem)
        self.thresholds = known_thresholds(problem)

    def safety(self) -> tuple[tuple[Safety, ...], float]:
        """Return where each group collapses, and the least decay at which any does."""
        here = self.problem.logit_decay
        if len(self.problem.groups) <= FEW_GROUPS:
            by, (places, first) = "changes", self._changes()
        else:
            by, places = "path", self._lost()
            first = min(places)
        found = []
        for group, place in zip(self.thresholds.groups, places, strict=True):
            limit = group.logit_decay
            if limit is not None and math.isclose(limit, place, rel_tol=SAME_DECAY):
                found.append(Safety(limit, limit / here, "theorem"))
            else:
                found.append(Safety(place, place / here, by))
        return tuple(found), min(first, *(safety.logit_decay for safety in found))

    def _changes(self) -> tuple[list[float], float]:
        """Return where each group is next, or was last, no longer distinct; and the least such.

        That is 0 where a group is not distinct at the lowest decay that was looked at.
        """
        here = self.problem.logit_decay
        changes = state_changes(self.problem, takers=False)
        places, least = [], math.inf
        for group, first in enumerate(changes.first.state):
            left = [] if first == DISTINCT else [changes.lowest]
            back = 0.0
            for change in changes.of_group(group):
                if change.before == DISTINCT:
                    left.append(change.logit_decay)
                elif change.after == DISTINCT and change.logit_decay <= here:
                    back = change.logit_decay
            # Rounding may hide a change; all have collapsed where everything is zero.
            left = left or [self.thresholds.total_collapse]
            collapsed = [place for place in left if back <= place <= here]
            later = [place for place in left if place > here] or left[-1:]
            places.append((collapsed[-1:] or later)[0])
            least = min(least, left[0] if first == DISTINCT else 0.0)
        return places, least

    def _lost(self) -> list[float]:
        """Return the decay from which on each group is lost or vanishes."""
        top = self.thresholds.total_collapse
        low = (
            min(
                self.problem.logit_decay,
                top,
                float(self.partition.pull.min()) / self.partition.num_samples,
            )
            / 4
        )
        decays = np.geomspace(low, top, PATH_POINTS)
        ratio = math.sqrt(self.problem.weight_decays[0] / self.problem.feature_decay)
        line = path(
            self.problem,
            weight_decay=decays * ratio,
            feature_decay=decays / ratio,
            tol=max(self.tol, 1e-8),
        )
        margins = np.array([point.group_states.decision_margin for point in line.solutions])
        gone = np.array([point.group_states.state == VANISHED for point in line.solutions])
        found = [_crossing(decays, column) for column in margins.T]
        for group, first in enumerate(gone.argmax(axis=0).tolist()):
            # With a bias the decision margin need not be zero where the class mean is.
            distinct = self.problem.bias != "none" and (margins[:first, group] > 0).all()
            if first and gone[first, group] and distinct:
                place = self._vanishing(decays[first - 1], decays[first], group)
                found[group] = min(found[group], place)
        for group, limit in enumerate(group.logit_decay for group in self.thresholds.groups):
            # Another group may take over before the classes merge.
            if limit is not None and limit <= found[group] * (1 + ACCURACY):
                found[group] = limit
        return found

    def _vanishing(self, below: float, above: float, group: int) -> float:
        """Bisect for the decay from which on the class means of a group are zero."""
        while above > below * (1 + ACCURACY):
            middle = math.sqrt(below * above)
            states = solve(at(self.problem, middle), self.tol).group_states
            below, above = (below, middle) if states.state[group] == VANISHED else (middle, above)
        return float(below)


def _crossing(decays: Array, margins: Array) -> float:
    """Return where margins along decays are no longer positive, interpolated."""
    lost = np.flatnonzero(margins <= 0)
    first = int(lost[0]) if len(lost) else len(margins) - 1
    if first == 0:
        return float(decays[0])
    above, below = margins[first - 1], min(margins[first], 0.0)
    share = above / (above - below) if above > below else 1.0
    return float(decays[first - 1] * (decays[first] / decays[first - 1]) ** share)
