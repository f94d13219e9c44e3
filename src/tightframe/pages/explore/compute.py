"""What the page computes: calls of the library, kept for a while, and what it declines to try."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.advice.advise import Advice
from tightframe.advice.advise import advise as make_advice
from tightframe.changes import (
    FEW_GROUPS,
    StateChanges,
    state_changes,
    thresholds_of,
)
from tightframe.geometry.dense import Geometry
from tightframe.geometry.grouped import GroupedGeometry
from tightframe.geometry.states import VANISHED, States
from tightframe.path import Path
from tightframe.path import path as solve_path
from tightframe.problem.problem import LOSS_ARGUMENTS, Problem, require_no_targets
from tightframe.solution import Solution
from tightframe.solve import NotConvergedWarning
from tightframe.solve import solve as solve_problem
from tightframe.sweeps.phase import step_rows
from tightframe.sweeps.phase_picture import Columns, nodes
from tightframe.theory.coverage import coverage, has_compact_form
from tightframe.theory.thresholds import GroupThreshold, Thresholds
from tightframe.theory.thresholds import thresholds as find_thresholds

#: More groups, or classes, than this are not drawn; more classes than the last are not searched
#: for, where nothing certifies (that takes minutes).
MAX_GROUPS = 100
MAX_CLASSES = 100_000
MAX_SEARCHED = 12

#: At most so many classes are in a matrix; of more, evenly chosen ones of every group.
MAX_SHOWN = 100

#: Where there is no compact form, all classes are written out: at most so many.
MAX_DENSE = 400

#: Of the pictures of paths and phases: certified relative gap, and points of the grids.
PICTURE_TOL = 1e-4
PATH_POINTS, PATH_POINTS_MANY = 41, 17
PHASE_RATIOS, PHASE_DECAYS, PHASE_ACCURACY = 12, 16, 0.004

#: Just below a threshold, as its part: there a margin is not zero yet.
JUST_BELOW = 1 - 1e-5

#: The path of more groups is drawn in two steps: thresholds, then margins.
MAX_AT_ONCE = 12

_KEPT = 64


@lru_cache(_KEPT)
def solve(problem: Problem) -> Solution:
    """Return the solution, from memory if it was asked for lately.

    Raises
    ------
    ValueError
        If the problem is larger than what the page draws at once, or nothing solves it.
    """
    if problem.num_classes > MAX_CLASSES:
        raise ValueError(
            f"counts: got {problem.num_classes} classes, this page takes up to {MAX_CLASSES}"
        )
    if len(problem.groups) > MAX_GROUPS:
        raise ValueError(
            f"counts: got {len(problem.groups)} groups of different classes; this page draws up to "
            f"{MAX_GROUPS} (tightframe solve takes more)"
        )
    if not coverage(problem).is_certified and problem.num_classes > MAX_SEARCHED:
        raise ValueError(
            f"counts: got {problem.num_classes} classes; nothing certifies this loss, depth and "
            f"dim, and this page searches up to {MAX_SEARCHED} classes (tightframe solve takes "
            "more)"
        )
    return solve_problem(problem)


def thresholds(problem: Problem) -> Thresholds | None:
    """Return the thresholds, or None where none are known.

    Of more than `MAX_AT_ONCE` groups only the closed forms: following their states takes seconds.
    """
    try:
        limits = find_thresholds(problem)
        if len(problem.groups) > MAX_AT_ONCE:
            return limits
        followed = _followed(problem.replace(weight_decay=1.0, feature_decay=1.0, dim=None))
    except ValueError:
        return None
    groups = tuple(
        replace(group, merges=f.merges, lost=f.lost, vanishes=f.vanishes, changes=f.changes)
        for group, f in zip(limits.groups, followed, strict=True)
    )
    return replace(limits, groups=groups)


@lru_cache(_KEPT)
def _followed(problem: Problem) -> tuple[GroupThreshold, ...]:
    """Return the thresholds of every state, which do not depend on the problem's decays."""
    return thresholds_of(changes(problem.replace(class_names=None))).groups


#: What was followed lately, oldest first, and who follows what just now.
_CHANGES: dict[Problem, StateChanges] = {}
_FOLLOWING: dict[Problem, threading.Lock] = {}


def changes(line: Problem, tell: Callable[[int, int, str], object] | None = None) -> StateChanges:
    """Return where states change, of few groups with all takers; from memory if it is there.

    The first screen and the margins ask for the same at one time: whoever is second waits.

    Parameters
    ----------
    line : Problem
        Without names, its decays 1.
    tell : callable, optional
        As of `tightframe.state_changes`.

    Raises
    ------
    ValueError
        As `tightframe.state_changes`.
    """
    with _FOLLOWING.setdefault(line, threading.Lock()):
        found = _CHANGES.get(line)
        if found is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotConvergedWarning)
                warnings.simplefilter("ignore", RuntimeWarning)
                takers = len(line.groups) <= FEW_GROUPS
                found = state_changes(line, takers=takers, progress=tell or False)
            keep(_CHANGES, line, found)
    _FOLLOWING.pop(line, None)
    return found


# -- geometry --------------------------------------------------------------------------------------


def shown_classes(problem: Problem) -> NDArray[np.intp]:
    """Return the classes that are drawn, sorted by group: all, or some of each group."""
    groups = problem.class_groups
    order = np.argsort(groups, kind="stable")
    if len(order) <= MAX_SHOWN:
        return order
    sizes = np.bincount(groups)
    shares = np.maximum(np.minimum(sizes, 2), sizes * (MAX_SHOWN - 2 * len(sizes)) // len(order))
    starts = np.cumsum(sizes) - sizes
    return np.concatenate(
        [order[start : start + share] for start, share in zip(starts, shares, strict=True)]
    )


def geometry(solution: Solution) -> Geometry:
    """Return the predicted geometry of the `shown_classes`.

    Raises
    ------
    ValueError
        If all classes would have to be written out and there are too many.
    """
    problem = solution.problem
    shown = shown_classes(problem)
    if has_compact_form(problem):
        return GroupedGeometry.from_solution(solution).restrict(shown).to_geometry()
    if problem.num_classes > MAX_DENSE:
        raise ValueError(
            f"counts: got {problem.num_classes} classes; with several layers or a narrow dim this "
            f"page draws up to {MAX_DENSE}"
        )
    return restrict(solution.geometry, shown)


def restrict(whole: Geometry, classes: NDArray[np.intp]) -> Geometry:
    """Return the geometry of some classes."""
    chosen = np.ix_(classes, classes)
    parts = (part[chosen] for part in (whole.classifier, whole.means, whole.logits))
    return Geometry(whole.name, *parts)


# -- path ------------------------------------------------------------------------------------------


class Sweep(NamedTuple):
    """Values of lambda along which a path is drawn.

    Attributes
    ----------
    low, high : float
    points : int
        Of a geometric grid between them, to which all thresholds come and what is just below.
    known : tuple of float
        Thresholds.
    """

    low: float
    high: float
    points: int
    known: tuple[float, ...]

    @property
    def decays(self) -> NDArray[np.float64]:
        """The values: of all layers' decays and the features'."""
        places = [place * share for place in self.known for share in (JUST_BELOW, 1)]
        return np.union1d(np.geomspace(self.low, self.high, self.points), places)


def sweep(problem: Problem) -> Sweep:
    """Return where the path of a problem has its thresholds.

    Raises
    ------
    ValueError
        If nothing certifies the problem: searching at every point would take minutes.
    """
    limits = thresholds(problem)
    if limits is None or not coverage(problem).is_certified:
        raise ValueError(
            "path: needs certified solves and thresholds; these features, loss, depth, dim and "
            "bias lack them"
        )
    top = limits.total_collapse
    known = {place for group in limits.groups for place in group.places.values()} | {top}
    low = max(0.2 * min(known), 1e-3 * top)
    points = PATH_POINTS if len(problem.groups) <= 4 else PATH_POINTS_MANY
    inside = tuple(sorted(place for place in known if place > low))
    return Sweep(float(f"{low:.4g}"), float(f"{1.5 * top:.4g}"), points, inside)


class _Line(NamedTuple):
    """What a path depends on: the problem without its decays, and where it is solved."""

    problem: Problem
    points: Sweep


#: Those that were solved lately, oldest first.
_PATHS: dict[_Line, Path] = {}


def _line(problem: Problem) -> _Line:
    # The logits depend on the decays through lambda only, so that one path serves all of them.
    return _Line(problem.replace(weight_decay=1.0, feature_decay=1.0), sweep(problem))


def is_path_solved(problem: Problem) -> bool:
    """Tell whether the `path` of a problem is in memory."""
    return _line(problem) in _PATHS


def path(problem: Problem) -> Path:
    """Return the solutions along the `sweep`; the problem's own decays do not matter."""
    line = _line(problem)
    found = _PATHS.get(line)
    if found is None:
        decays = line.points.decays
        found = solve_path(line.problem, weight_decay=decays, feature_decay=decays, tol=PICTURE_TOL)
        keep(_PATHS, line, found)
    return found


def keep(memory: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep what was found, and forget the oldest of what is too much."""
    memory[key] = value
    for oldest in list(memory)[:-_KEPT]:
        memory.pop(oldest, None)


# -- phase diagram ---------------------------------------------------------------------------------


class Phases(NamedTuple):
    """The phase diagram around a problem; its decays do not matter.

    Attributes
    ----------
    rows : tuple of Problem
        STEP-imbalanced, of growing ratio, as many classes and the same minority.
    ratios : tuple of float
    limits : tuple of Thresholds
        Of the rows.
    low, high : float
        Ends of lambda.
    """

    rows: tuple[Problem, ...]
    ratios: tuple[float, ...]
    limits: tuple[Thresholds, ...]
    low: float
    high: float

    @property
    def collapses(self) -> NDArray[np.float64]:
        """From which lambda on the minority of every row collapses."""
        return np.array([limits.groups[-1].logit_decay for limits in self.limits], dtype=float)

    @property
    def total(self) -> NDArray[np.float64]:
        """From which lambda on everything is zero."""
        return np.array([limits.total_collapse for limits in self.limits])

    @property
    def decays(self) -> NDArray[np.float64]:
        """Nodes of every row, up to just below the threshold."""
        return np.array(
            [nodes(self.low, limit * JUST_BELOW, PHASE_DECAYS) for limit in self.collapses.tolist()]
        )

    @property
    def key(self) -> tuple[Any, ...]:
        """What it depends on."""
        return self.rows, self.low


def phases(problem: Problem) -> Phases:
    """Return the STEP-imbalanced problems around a problem: as many classes, the same minority.

    Raises
    ------
    ValueError
        If the phase diagram is not known for such a problem.
    """
    require_no_targets(problem, "a phase diagram")
    if problem.depth > 1:
        raise ValueError(f"depth: got {problem.depth}, a phase diagram needs 1")
    for name in LOSS_ARGUMENTS:
        if name in problem.to_dict() and name != "label_smoothing":
            raise ValueError(f"{name}: a phase diagram is drawn without; make the field empty")
    if not coverage(problem.replace(dim=None)).is_certified:
        raise ValueError(
            "features: a phase diagram needs thresholds, which these lack with this bias"
        )
    counts = problem.counts
    small = int(counts.min())
    few = counts < counts.max()
    fraction = round(float(few.mean()), 6) if few.any() else 0.5
    # Ratios that whole counts can have.
    reach = max(20.0, 2.0 * float(counts.max()) / small)
    larges = np.unique(np.round(small * np.geomspace(1, reach, PHASE_RATIOS)))
    texts, ratios = step_rows(
        problem.num_classes,
        [float(f"{large / small:.6g}") for large in larges],
        minority=small,
        fraction=fraction,
    )
    plain = problem.replace(weight_decay=1.0, feature_decay=1.0, dim=None, class_names=None)
    rows = tuple(plain.replace(counts=text) for text in texts)
    limits = tuple(find_thresholds(row) for row in rows)
    ends = [limit.groups[-1].logit_decay for limit in limits]
    if None in ends:
        raise ValueError("counts: a phase diagram needs a minority of at least two classes")
    low = 0.5 * min(end for end in ends if end is not None)
    high = 1.5 * max(limit.total_collapse for limit in limits)
    return Phases(rows, tuple(ratios), limits, float(f"{low:.4g}"), float(f"{high:.4g}"))


#: Those that were solved lately, oldest first.
_DIAGRAMS: dict[Any, Columns] = {}


def is_diagram_solved(args: Phases) -> bool:
    """Tell whether the phase diagram with some arguments is in memory."""
    return args.key in _DIAGRAMS


def phase_diagram(args: Phases) -> Columns:
    """Return the phase diagram with some arguments, from memory if it is there.

    The margins are decision margins: to the nearest of all classes.
    """
    found = _DIAGRAMS.get(args.key)
    if found is None:
        places: list[Any] = []
        margins: list[Any] = []
        vanishes: list[float] = []
        ends = args.collapses
        for row, limits, decays in zip(args.rows, args.limits, args.decays, strict=True):
            own = _minority_margins(row, decays)
            if (own < 0).any():  # lost before it merges: there its colours end
                i = int(np.argmax(own < 0))
                end = _change(row, decays[max(i - 1, 0)], decays[i], _is_lost)
                decays = nodes(args.low, end * JUST_BELOW, PHASE_DECAYS)
                own = np.maximum(_minority_margins(row, decays), 0.0)
                ends[len(margins)] = end
            places.append(decays)
            margins.append(own)
            start, top = float(ends[len(vanishes)]), limits.total_collapse
            known = limits.kind == "vanish" or start >= top
            vanishes.append(start if known else _change(row, start, top, _has_vanished))
        found = replace(
            phase_outline(args),
            decays=np.array(places),
            margins=np.array(margins),
            ends=ends,
            vanishes=np.array(vanishes),
        )
        keep(_DIAGRAMS, args.key, found)
    return found


def _minority_margins(row: Problem, decays: NDArray[np.float64]) -> NDArray[np.float64]:
    line = solve_path(row, weight_decay=decays, feature_decay=decays, tol=PICTURE_TOL)
    return np.array([s.group_states.decision_margin[-1] for s in line.solutions])


def _change(row: Problem, low: float, high: float, has: Callable[[States], bool]) -> float:
    """Return from which lambda between two on the states are such, to what a picture shows."""
    while high / low > 1 + PHASE_ACCURACY:
        middle = (low * high) ** 0.5
        solution = solve_problem(row.replace(weight_decay=middle, feature_decay=middle))
        low, high = (low, middle) if has(solution.group_states) else (middle, high)
    return float(high)


def _has_vanished(states: States) -> bool:
    return bool(states.state[-1] == VANISHED)


def _is_lost(states: States) -> bool:
    return bool(states.decision_margin[-1] < 0)


def phase_outline(args: Phases) -> Columns:
    """Return a phase diagram's thresholds, which need no solve; the rest is NaN."""
    unknown = np.full(len(args.rows), np.nan)
    return Columns(
        np.array(args.ratios),
        args.decays,
        np.full(args.decays.shape, np.nan),
        args.collapses,
        unknown,
        args.total,
        args.low,
        args.high,
    )


def place_in(problem: Problem) -> tuple[float, float] | None:
    """Return a problem's ratio and lambda if it has a place in its phase diagram."""
    counts = problem.counts
    if len(set(counts.tolist())) > 2 or (np.diff(counts) > 0).any():
        return None
    return float(counts.max() / counts.min()), problem.logit_decay


# -- advice ----------------------------------------------------------------------------------------


@lru_cache(_KEPT)
def advise(problem: Problem, wanted: tuple[tuple[str, Any], ...]) -> Advice:
    """Return the advice for a problem."""
    solve(problem)  # for its limits
    return make_advice(problem, **dict(wanted))
