"""The merge tree: which class joins, is taken by another, or vanishes, along the decay."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.diagrams import (
    LETTER,
    TREE_WIDTH,
    Change,
    Lane,
    MergeTree,
    Network,
    Run,
    text_width,
)
from tightframe.figures.model import evenly
from tightframe.problem.class_names import shown_names
from tightframe.problem.problem import Problem
from tightframe.views.paths import LAMBDA, MEAN_LAMBDA
from tightframe.views.wheel import FEW, MOST_MARKS, NAME_WIDTH, class_homes

if TYPE_CHECKING:
    from tightframe.changes import StateChange, StateChanges

Indices = NDArray[np.intp]

#: Between lanes, at most, and of all lanes together, in pixels.
PITCH, LEAST_HEIGHT, HEIGHT = 30.0, 90.0, 320.0

#: Between lines of a cable, and from a line to what it has taken, in pixels.
CABLE, TAKEN, UNDER = 3.4, 3.2, 1.5

#: Share of the height that all gaps between groups take.
GROUP_GAP = 0.12

#: A curve is so many pixels wide, or this part of the way from the change before.
CURVE, CURVE_PART = 30.0, 0.9

#: The axis begins at this part of the first change, and ends so far beyond the last.
BEFORE, BEYOND = 0.1, 1.3

#: Of lanes that are not all named, one in so many is.
NAMED = 20

VERBS = {"merged": "merge", "lost": "lost", "vanished": "vanish", "distinct": "apart again"}


class Part(NamedTuple):
    """A group's time in one state.

    Attributes
    ----------
    low, high : float
        Decays.
    state : str
    taker : int or None
        Group that it is taken for, if it is lost.
    """

    low: float
    high: float
    state: str
    taker: int | None


# -- mathematics -----------------------------------------------------------------------------------


def group_parts(changes: StateChanges, low: float, high: float) -> list[list[Part]]:
    """Return the states of every group between two decays, in order."""
    problem = changes.problem
    parts = []
    for group in range(len(problem.groups)):
        state = str(changes.first.state[group])
        rival = int(changes.first.rival[group])
        taker = rival if state == "lost" else None
        found, since = [], low
        for change in changes.of_group(group):
            if change.logit_decay > low:
                found.append(Part(since, change.logit_decay, state, taker))
                since = change.logit_decay
            state = change.after
            taker = None if change.rival is None else int(problem.class_groups[change.rival])
        found.append(Part(since, high, state, taker))
        parts.append(found)
    return parts


def chosen_classes(problem: Problem, most: int = MOST_MARKS) -> Indices:
    """Return the classes that have lanes, from the top: all, or as many of every group as fit."""
    homes = class_homes(problem)
    order, k = homes.order, problem.num_classes
    if k <= most:
        return order
    own = problem.class_groups[order]
    groups, first, sizes = np.unique(own, return_index=True, return_counts=True)
    if len(groups) >= most:
        kept: Indices = order[np.sort(first)[evenly(len(groups), most)]]
        return kept
    share = 1 + (most - len(groups)) * (sizes - 1) // (k - len(groups))
    chosen = [
        np.flatnonzero(own == group)[evenly(int(size), int(n))]
        for group, size, n in zip(groups, sizes, share, strict=True)
    ]
    kept = order[np.sort(np.concatenate(chosen))]
    return kept


class _Heights:
    """Where the lanes run: heights of their own, and of what they have joined."""

    def __init__(self, problem: Problem, classes: Indices, parts: list[list[Part]]) -> None:
        self.groups = problem.class_groups[classes]
        self.parts, self.cables = parts, len(classes) <= FEW
        self._ends = [[part.high for part in of_group] for of_group in parts]
        steps = np.ones(len(classes) - 1)
        if class_homes(problem).arcs:
            steps = steps + GROUP_GAP * len(classes) * (np.diff(self.groups) != 0)
        places = np.concatenate([[0.0], np.cumsum(steps)])
        high = min(max(PITCH * places[-1], LEAST_HEIGHT), HEIGHT)
        scale = high / places[-1] if places[-1] > 0 else 0.0
        self.own = 10 + scale * places
        self.height = 32 + high  # letters of networks stand on the axis
        self.pitch = scale
        self._found: dict[tuple[int, float], float] = {}
        self._slots: dict[tuple[int, float], int] = {}
        self.lanes_of = {g: np.flatnonzero(self.groups == g) for g in set(self.groups.tolist())}

    def at(self, lane: int, decay: float) -> float:
        """Return where a lane is just above a decay, when it has joined what it joins."""
        if (lane, decay) not in self._found:
            self._found[lane, decay] = float(self.own[lane])  # should two be taken for each other
            self._found[lane, decay] = self._height(lane, decay)
        return self._found[lane, decay]

    def _height(self, lane: int, decay: float) -> float:
        group = int(self.groups[lane])
        part = self._part(group, decay)
        state = "distinct" if part.state == "vanished" else part.state
        siblings = self.lanes_of[group]
        if state == "merged":
            middle = float(self.own[siblings].mean())
            place = int(np.searchsorted(siblings, lane)) - (len(siblings) - 1) / 2
            return middle + (CABLE * place if self.cables else 0.0)
        if state == "lost" and part.taker is not None:
            onto = self.lanes_of.get(part.taker)
            if onto is None:  # the taker has no lane of its own
                return float(self.own[lane])
            # Several that could have taken it are alike: the nearest of them.
            target = int(onto[np.abs(onto - lane).argmin()])
            line = self.at(target, decay)
            if not self.cables:
                return line
            return line + UNDER + TAKEN * (1 + self._slot(lane, part))
        return float(self.own[lane])

    def has_vanished(self, lane: int, decay: float) -> bool:
        """Tell whether a lane's class has vanished just above a decay."""
        return self._part(int(self.groups[lane]), decay).state == "vanished"

    def _slot(self, lane: int, part: Part) -> int:
        """Return how far below its taker a lane runs: the first place that was free when it came.

        It stays there when another one leaves: a lane moves for changes only.
        """
        if (lane, part.low) not in self._slots:
            before = [
                (one.low, other, one)
                for group, lanes in self.lanes_of.items()
                for one in [self._part(group, part.low)]
                if one.state == "lost" and one.taker == part.taker
                for other in lanes.tolist()
                if (one.low, other) < (part.low, lane)
            ]
            used = {self._slot(other, one) for _, other, one in before}
            self._slots[lane, part.low] = next(i for i in range(len(used) + 1) if i not in used)
        return self._slots[lane, part.low]

    def _part(self, group: int, decay: float) -> Part:
        place = bisect.bisect_right(self._ends[group], decay)
        return self.parts[group][min(place, len(self.parts[group]) - 1)]


# -- the picture -----------------------------------------------------------------------------------


def merge_tree(
    changes: StateChanges,
    *,
    networks: Sequence[tuple[float, str, Sequence[str]]] = (),
    now: float | None = None,
    low: float | None = None,
    high: float | None = None,
    title: str = "Which classes stay apart",
) -> MergeTree:
    """Return the merge tree of a problem.

    Parameters
    ----------
    changes : StateChanges
    networks : sequence of (decay, letter, states)
        Trained networks with the measured states of all classes, which may be empty.
    now : float, optional
        A decay that is looked at.
    low, high : float, optional
        Ends of the axis; by default all changes, networks and ``now`` are inside. Nothing is known
        below ``changes.lowest``.
    title : str
    """
    problem = changes.problem
    places = [change.logit_decay for change in changes]
    looked_at = [*(value for value, *_ in networks), *([] if now is None else [now])]
    if low is None:
        low = min([BEFORE * min(places, default=changes.lowest), *(v / 1.5 for v in looked_at)])
    low = max(low, changes.lowest)
    if high is None:
        high = max([BEYOND * max(places, default=10 * low), *(1.2 * v for v in looked_at)])
    if not low < high:
        raise ValueError(f"high: got {high}, need more than {low}, where the axis begins")
    parts = group_parts(changes, low, high)
    classes = chosen_classes(problem)
    heights = _Heights(problem, classes, parts)
    few = len(classes) <= FEW
    counts = problem.counts[classes]
    roots = np.sqrt(counts / counts.max())
    widths = 1.4 + 2.4 * roots if few else min(1.0, 0.35 * heights.pitch) * (0.6 + 1.2 * roots)
    axis = _Axis(low, high)
    stops = sorted({change.logit_decay for change in changes if low < change.logit_decay < high})
    lanes = [
        _lane(name, float(width), i, heights, axis, stops)
        for i, (name, width) in enumerate(zip(_names(problem, classes), widths, strict=True))
    ]
    places_of = dict(zip(classes.tolist(), range(len(classes)), strict=True))
    return MergeTree(
        title,
        LAMBDA if problem.depth == 1 else MEAN_LAMBDA,
        low,
        high,
        heights.height,
        lanes,
        _lines(changes, axis) if few else [],
        _captions(problem, heights),
        [
            Network(value, letter, [states[k] for k in places_of] if len(states) else [])
            for value, letter, states in networks
        ],
        now,
        note="Joins are exact; heights are not to scale."
        + ("" if len(classes) == problem.num_classes else _CHOSEN)
        .replace("{}", str(len(classes)), 1)
        .replace("{}", str(problem.num_classes)),
    )


_CHOSEN = " {} of {} classes."


class _Axis:
    """The decay's axis in pixels."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self._scale = TREE_WIDTH / math.log(high / low)

    def pixels(self, decay: float) -> float:
        return self._scale * math.log(decay / self.low)

    def decay(self, pixels: float) -> float:
        return self.low * math.exp(pixels / self._scale)


def _lane(
    name: str, width: float, lane: int, heights: _Heights, axis: _Axis, stops: Sequence[float]
) -> Lane:
    """Draw one class: where its state changes, or that of a class it has joined, it may curve."""
    runs: list[Run] = []
    ends = []
    y = heights.at(lane, axis.low)
    for part in heights.parts[int(heights.groups[lane])]:
        if part.state == "vanished":
            ends.append((part.low, y))
            continue
        if runs and runs[-1].x[-1] < part.low:  # it had vanished
            y = heights.at(lane, part.low)
        x, heads = [part.low], [y]
        if runs and (runs[-1].state, runs[-1].x[-1]) == (part.state, part.low):
            before = runs.pop()  # only the taker changes: one line
            x, heads = [*before.x], [*before.y]
        first, last = (bisect.bisect_right(stops, end) for end in (part.low, part.high))
        for stop in stops[first:last]:
            after = heights.at(lane, stop)
            if after == y or heights.has_vanished(lane, stop):
                continue
            end = axis.pixels(stop)
            start = max(end - CURVE, end - CURVE_PART * (end - axis.pixels(x[-1])))
            x += [axis.decay(start), stop]
            heads += [y, after]
            y = after
        if x[-1] < part.high:
            x.append(part.high)
            heads.append(y)
        runs.append(Run(part.state, x, heads))
    return Lane(name, width, runs, ends)


def _names(problem: Problem, classes: Indices) -> list[str]:
    """Return what stands left of every lane; of many lanes how many samples every 20th has."""
    if len(classes) <= FEW:
        return shown_names([problem.name(k) for k in classes.tolist()], NAME_WIDTH)
    if class_homes(problem).arcs:  # which have captions
        return [""] * len(classes)
    return [
        f"n={problem.counts[k]}" if i % NAMED == 0 else "" for i, k in enumerate(classes.tolist())
    ]


def _captions(problem: Problem, heights: _Heights) -> list[tuple[float, str]]:
    """Return what stands along the lanes of every arc: the longest for which there is room."""
    found = []
    for group, classes in class_homes(problem).arcs:
        lanes, count = heights.lanes_of[group], problem.groups[group].count
        room = heights.own[lanes[-1]] - heights.own[lanes[0]] + 30
        for text in (f"{len(classes)} classes of {count}", f"n={count}"):
            if len(lanes) > 1 and text_width(text) <= room:
                found.append((float(heights.own[lanes].mean()), text))
                break
    return found


def _lines(changes: StateChanges, axis: _Axis) -> list[Change]:
    """Return a line for every decay at which states change, with labels where they have room."""
    problem = changes.problem
    found: list[Change] = []
    ends = [0.0, 0.0]  # of the labels in every row
    gone: set[int] = set()
    together: dict[tuple[float, str], list[StateChange]] = {}
    for change in changes:
        if change.before != change.after and axis.low < change.logit_decay < axis.high:
            together.setdefault((change.logit_decay, change.after), []).append(change)
    for (decay, state), alike in together.items():
        if state == "vanished":
            gone.update(group for change in alike for group in change.groups)
        label = _label(problem, state, alike, len(gone) == len(problem.groups))
        middle, half = axis.pixels(decay), text_width(label) / 2
        row = next((i for i, end in enumerate(ends) if middle - half > end), None)
        if row is None or middle + half > TREE_WIDTH + 30:
            label, row = "", 0
        else:
            ends[row] = middle + half + LETTER
        found.append(Change(decay, state, label, row))
    return found


def _label(problem: Problem, state: str, alike: Sequence[StateChange], is_last: bool) -> str:
    """Return what is said above a line: which classes change, or how many."""
    number = sum(change.num_classes for change in alike)
    verb = VERBS[state]
    if state == "vanished" and is_last:
        return f"all {verb}"
    if number == 1:
        name = shown_names([problem.name(int(alike[0].classes[0]))], NAME_WIDTH)[0]
        return f"{name} {verb}{'es' if state == 'vanished' else ''}"
    return f"{number} classes {verb}"
