"""State changes: at which decays each class merges, is lost, taken for another, and vanishes."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import choice, number_of
from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.geometry.states import (
    DISTINCT,
    LOST,
    MERGED,
    STATES,
    VANISHED,
    States,
    block_states,
    group_gaps,
)
from tightframe.problem.problem import Problem, at_most, require_no_targets
from tightframe.progress import Progress, ProgressLike, told, watched
from tightframe.saved import Saved, kept
from tightframe.shown import Block, Shown, frame, plot
from tightframe.solve import NotConvergedWarning, solve, uses_solver
from tightframe.solvers import stretches
from tightframe.solvers.continuation import turned
from tightframe.solvers.crossings import Crossing, codes, crossings
from tightframe.solvers.interpolation import lagrange
from tightframe.solvers.newton import (
    FactoredProblem,
    minimise,
    minimise_from,
    remaining,
    settle,
    slope,
)
from tightframe.solvers.starts import Factors
from tightframe.solvers.stretches import Stretch
from tightframe.solvers.unranked import unranked
from tightframe.theory import thresholds as closed
from tightframe.theory.closed_form import deep_linear
from tightframe.theory.contexts.thresholds import ContextThresholds, context_thresholds
from tightframe.theory.coverage import coverage

if TYPE_CHECKING:
    import pandas as pd

#: Relative accuracy of a decay at which a state changes; states are told apart this far below and
#: above it.
ACCURACY = 2e-10

#: The same where every point is a descent in the orthant.
ORTHANT_ACCURACY = 1e-6

#: Of so many groups all changes are found within a second or two, and all places by solves.
FEW_GROUPS = 30

#: Points of the first scan, a factor of ten of decays.
POINTS_A_DECADE = 25

#: The scan begins at this share of the least merging threshold, and lower as long as a class is not
#: distinct there, down to a share of `LEAST`.
LOWEST, LEAST = 0.05, 1e-6

#: Certified relative gap to which a solve goes where no prediction is good. Newton steps go on to
#: what a gap of `ROUGH` needs, and one of `GAP` where margins are near zero, if it could be
#: certified: a margin's error is about the root of the gap over the class's share of the samples.
RANK_GAP = 1e-12
ROUGH = 1e-13
GAP = 1e-20
STEPS = 200

#: Steps from a certified minimiser towards an accuracy that could not be settled.
LAST_STEPS = 20

#: A neighbour whose decay is no further away, in logarithms, is what a solve starts from.
NEAR = 0.2

#: A relative gap above this at any decay is warned of.
POOR_GAP = 1e-9

#: A relative error of a decay above this is warned of.
POOR_PLACE = 1e-8

#: Merging with a class margin: where solves tell it is this near to the root, relatively.
SAME_ROOT = 1e-6

#: Margins of logits that are known to `ROUGH` have their sign for sure above this.
CLEAR = 1e-3

#: Points of the polynomial from which a solve starts, and how many on either side are looked at.
NODES = 5
AROUND = 12

#: A root between two points so near is where the tangent says that is no longer than the latter;
#: or anywhere between, if rounding hides on which side of it they are.
CLOSE = 1e-2
SURE = 2e-7

#: Where slopes at the ends of an interval differ more than that, the steeper one tells the root.
STEEPER = 2

#: Between known decays that are as near, relatively, there is no room for a stretch.
CLOSE_EDGES = 1e-6

#: Where a crossing lies is asked of solves until it moves by less, in logarithms: the next step
#: would be within rounding. Two are enough, or something is wrong.
LAST_STEP, PLACING_STEPS = 1e-6, 4

#: Events of a group that are nearer, relatively, are one: places are good to no more.
ONE_PLACE = 1e-9

#: Takers whose polynomials differ by no more may be tied: they are where solves tell their gaps
#: apart by less than the other, a share of the largest gap.
UNSURE, TIED = 1e-4, 1e-12

#: Of so many cuts of an interval one halves it, in case that the others do not get on.
HALVED = 4


@kept
@dataclass(frozen=True, eq=False)
class StateChange(Shown):
    """A decay at which the state of some classes changes, or the class that they are taken for.

    Attributes
    ----------
    groups : tuple of int
        Indices into ``problem.groups``: all classes of a group change together.
    logit_decay : float
        ``sqrt(weight_decay feature_decay)``; with several layers the geometric mean of all decays.
    before, after : {"vanished", "lost", "merged", "distinct"}
        States at slightly smaller and slightly larger decays. Both ``"lost"``: the taker changes.
    rival : int or None
        The class that they are taken for afterwards, if they are lost; the first one of its group.
    problem : Problem
    """

    groups: tuple[int, ...]
    logit_decay: float
    before: str
    after: str
    rival: int | None
    problem: Problem

    @cached_property
    def classes(self) -> NDArray[np.intp]:
        """Labels of the classes that change."""
        return np.flatnonzero(np.isin(self.problem.class_groups, self.groups))

    @property
    def num_classes(self) -> int:
        """How many classes change."""
        return sum(self.problem.groups[i].classes for i in self.groups)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready, by group: a million classes need no list."""
        return {
            "groups": list(self.groups),
            "counts": [self.problem.groups[i].count for i in self.groups],
            "num_classes": self.num_classes,
            "logit_decay": self.logit_decay,
            "before": self.before,
            "after": self.after,
            "rival": self.rival,
        }

    def __repr__(self) -> str:
        taken = "" if self.rival is None else f", rival={self.rival}"
        return (
            f"StateChange({number_of(self.num_classes, 'class', 'classes')}, "
            f"logit_decay={self.logit_decay:.6g}, "
            f"{self.before!r} -> {self.after!r}{taken})"
        )


@dataclass(frozen=True, eq=False)
class StateChanges(Shown, Saved):
    """All changes of the classes' states as the decay grows; a sequence of `StateChange`.

    Attributes
    ----------
    problem : Problem
    changes : tuple of StateChange
        From the smallest decay up.
    lowest : float
        The smallest decay looked at.
    first : States
        The states there, one entry a group of ``problem.groups``.
    """

    problem: Problem
    changes: tuple[StateChange, ...]
    lowest: float
    first: States

    def __len__(self) -> int:
        return len(self.changes)

    def __iter__(self) -> Iterator[StateChange]:
        return iter(self.changes)

    def __getitem__(self, index: int) -> StateChange:
        return self.changes[index]

    def of_group(self, group: int) -> tuple[StateChange, ...]:
        """Return the changes of the classes of one group, in order of the decay."""
        if not 0 <= group < len(self.problem.groups):
            raise ValueError(f"group: got {group}, need 0 to {len(self.problem.groups) - 1}")
        return tuple(change for change in self.changes if group in change.groups)

    def of_class(self, label: int) -> tuple[StateChange, ...]:
        """Return the changes of one class, in order of the decay."""
        if not 0 <= label < self.problem.num_classes:
            raise ValueError(f"label: got {label}, need 0 to {self.problem.num_classes - 1}")
        return self.of_group(int(self.problem.class_groups[label]))

    def from_decay(self, group: int, state: str) -> float | None:
        """Return from which decay on the classes of a group are in a state, None if never.

        The last decay at which they change to it and stay, until they change to one that is worse.
        """
        order = STATES[::-1]
        found: float | None = None
        for change in self.of_group(group):
            if order.index(change.after) < order.index(state):
                found = None
            elif change.after == state != change.before:
                found = change.logit_decay
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "problem": self.problem.to_dict(),
            "lowest": self.lowest,
            "changes": [change.to_dict() for change in self.changes],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row a change and group, see `tightframe.shown.frame`."""
        rows = [
            {
                "logit_decay": change.logit_decay,
                "group": group,
                "count": self.problem.groups[group].count,
                "classes": self.problem.groups[group].classes,
                "before": change.before,
                "after": change.after,
                "rival": change.rival,
            }
            for change in self.changes
            for group in change.groups
        ]
        columns = ["logit_decay", "group", "count", "classes", "before", "after", "rival"]
        found = frame({name: [row[name] for row in rows] for name in columns})
        return found.astype({"rival": "Int64"})

    def plot(self, ax: Any = None, *, what: str = "tree") -> tuple[Any, Any]:
        """Draw which class joins, is taken for another, or vanishes along the decay.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
        what : {"tree", "numbers"}
            The tree of `tightframe.report.merge_tree`, or how many classes are in which state.

        Returns
        -------
        fig, ax
            See `tightframe.shown.plot`.

        Raises
        ------
        ValueError
            If ``what`` is something else.
        """
        from tightframe.views.merge_tree import merge_tree
        from tightframe.views.thresholds import changes_chart

        choice("what", what, ("tree", "numbers"))
        return plot(lambda: (merge_tree if what == "tree" else changes_chart)(self), ax)

    def _blocks(self) -> Iterator[Block]:
        from tightframe.views.thresholds import changes_table

        yield changes_table(self)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.changes[:4]))
        more = len(self) - 4
        return f"StateChanges({shown}{f', and {more} more' if more > 0 else ''})"


def state_changes(
    problem: Problem, *, takers: bool = True, progress: ProgressLike = None
) -> StateChanges:
    """Follow every class from small decays to total collapse and return where its state changes.

    Merging and, with closed forms, vanishing happen at decays that are known exactly
    (docs/theory.md section 6). Where another class's logit overtakes the own one, the decay is a
    root of the decision margin, and where all logits between groups vanish, of the gradient's
    excess over the decay: both are found to 1e-9 relative (checked with gradients in extended
    precision, up to CIFAR-100-LT's 85 groups); where of more than 30 groups a taker changes, to
    1e-5. Between changes of the logits' rank these are polynomials in the decay's logarithm, from
    a dozen solves each, whose crossings are all found. Where that fails, as with rounding in the
    way, points of a scan are compared (`POINTS_A_DECADE`, and every known threshold). Where
    rounding hides the logits' differences fewer digits hold, and a warning says how many: one or
    two at 1e-16, counts of 4e11 and 258. States may change back. Missed are changes that undo each
    other between two neighbouring points, and what lies below ``lowest``.

    Parameters
    ----------
    problem : Problem
        As for `thresholds`. Non-negative features with a bias or a logit adjustment are followed
        from solve to solve, of up to 100 groups of equal classes, to 1e-6. Only the product of its
        decays is swept: their ratio changes nothing.
    takers : bool
        Whether a lost class whose taker changes counts as changing. There are about as many such
        changes as pairs of lost groups.
    progress : callable or bool, optional
        As in `tightframe.solve`, of the decays of the scan; its answer does not end it.

    Returns
    -------
    StateChanges

    Raises
    ------
    ValueError
        As `thresholds`, or if ``dim`` is too narrow for the minimiser without it.

    Warns
    -----
    RuntimeWarning
        If rounding hides where classes are lost or taken for others, with the accuracy reached.
    NotConvergedWarning
        If a solve on the way stopped at a gap above 1e-9, or found what nothing certifies.

    Examples
    --------
    >>> changes = state_changes(Problem("100x5,10x5", weight_decay=1e-3, feature_decay=1e-3))
    >>> [(c.num_classes, round(c.logit_decay, 5), c.before, c.after) for c in changes]
    [(5, 0.00575, 'distinct', 'merged'), (5, 0.00903, 'merged', 'vanished'), \
(5, 0.01818, 'distinct', 'vanished')]
    """
    if isinstance(problem, Problem):
        require_no_targets(problem, "state_changes")
    limits = closed.ends(problem)
    line = _Line(problem.replace(dim=None), takers)
    limits = _with_margins(limits, problem, line)
    known = _known_decays(line, limits)
    lowest = LOWEST * min(known)
    while not (line.at(lowest).states.state == DISTINCT).all() and lowest > LEAST * min(known):
        lowest /= 4
    edges = sorted(decay * (1 + side * line.accuracy) for decay in known for side in (-1, 1))
    with watched(progress, "decays") as tell:
        found = line.follow([lowest, *edges], tell)
    if line.worst_gap > POOR_GAP:
        warnings.warn(
            f"state_changes: a solve stopped at a relative gap of {line.worst_gap:.1e}",
            NotConvergedWarning,
            stacklevel=2,
        )
    if line.unproven < math.inf:
        warnings.warn(
            f"state_changes: from a decay of {line.unproven:.3g} on some points are the best of a "
            "search, which nothing certifies",
            NotConvergedWarning,
            stacklevel=2,
        )
    if line.worst_error > POOR_PLACE:
        warnings.warn(
            f"state_changes: rounding hides the logits' differences; decays at which classes are "
            f"lost or taken for others are good to {line.worst_error:.0e} only",
            RuntimeWarning,
            stacklevel=2,
        )
    return StateChanges(problem, records(problem, found), lowest, line.at(lowest).states)


def known_thresholds(problem: Problem) -> closed.Thresholds:
    """Return the closed forms of `thresholds`, and roots where class margins leave none.

    The classes of a group with margin m merge iff ``sqrt(n) (1 - label_smoothing + q (1 - e^-m)) /
    N <= lambda`` (times class weight and scale), q the probability of a sibling where they are
    merged: a certified minimiser on either side says which of them holds.
    """
    limits = closed.ends(problem)
    if not problem.margin_runs:
        return limits
    return _with_margins(limits, problem, _Line(problem.replace(dim=None), takers=False))


def _with_margins(limits: closed.Thresholds, problem: Problem, line: _Line) -> closed.Thresholds:
    if not problem.margin_runs:
        return limits
    here = closed.overall_decay(problem)
    groups = list(limits.groups)
    for i in np.flatnonzero((line.partition.sizes > 1) & (problem.group_margins != 0)).tolist():
        place = line.merging(i)
        collapsed = bool(at_most(place, here))
        groups[i] = replace(groups[i], logit_decay=place, collapsed=collapsed)
    return replace(limits, groups=tuple(groups))


def _known_decays(line: _Line, limits: closed.Thresholds) -> list[float]:
    """Return the decays at which merging, vanishing and total collapse are known to happen."""
    problem, partition = line.problem, line.partition
    known = {limits.total_collapse}
    known |= {group.logit_decay for group in limits.groups if group.logit_decay is not None}
    if not uses_solver(problem) and problem.features == "real" and problem.has_equal_weights:
        # One layer's balanced cross-entropy, or MSE, whose singular values vanish one by one.
        values, _ = deep_linear.targets(problem, partition).spectrum
        m = problem.depth
        pull = deep_linear.common_weight(problem) * values ** (2 * m / (m + 1))
        places = deep_linear.collapse_factor(m) * pull / problem.num_samples
        known |= set(places[values > 1e-9 * values.max()].tolist())
    return sorted(known)


def thresholds(
    problem: Problem | None = None, *, progress: ProgressLike = None, **rest: Any
) -> closed.Thresholds | ContextThresholds:
    """Return from which decays on the classes of each group merge, are lost and vanish.

    Of problems with targets: from which on labels that may be exchanged share their logits and all
    logits vanish, and which labels and contexts are one at every decay, as
    `tightframe.theory.contexts.thresholds.ContextThresholds`.

    ``merges``, ``lost`` and ``vanishes`` of every group follow from `state_changes`. The other
    fields are closed forms. One layer, real features: the classes of a group of two or more share
    one prediction iff ``sqrt(n_i)/N <= lambda``, whatever the other groups, the bias and the loss
    (docs/theory.md section 6; Hong & Ling 2023); another class may take them all the same. Class
    weights multiply ``sqrt(n_i)``; a logit adjustment changes nothing of that. Non-negative
    features with cross-entropy: a class vanishes iff ``sqrt(n_i (K-1)/K)/N <= lambda`` (Dang et al.
    2024), class weights as before; with a bias or a logit adjustment only total collapse has a
    closed form. MSE with M layers, no or free bias: iff ``c_M n_i^{M/(M+1)} / N <= mu``,
    ``c_M = ((M-1)/M)^{(M-1)/(M+1)} / M`` (Dang et al. 2023); for M > 1 the singular value jumps
    there.

    With one layer no threshold depends on the ratio of the decays, so that none need be given.
    Features are taken as wide enough: a ``dim`` below the rank drops further directions (`solve`
    tells which).

    Parameters
    ----------
    problem : Problem, optional
    progress : callable or bool, optional
        As in `state_changes`.
    **rest
        Instead of a problem: its arguments, ``counts`` among them. Decays may be left out; then
        ``logit_decay`` of the result is None, and so are ``collapsed``, ``total_samples`` and
        ``distinct_counts`` of its groups, which are those at the problem's own decays.

    Raises
    ------
    ValueError
        If the problem is cross-entropy, or has a decayed bias, with more than one linear layer, or
        has non-negative features of too many groups with a bias; or an argument is out of range.

    Examples
    --------
    >>> found = thresholds(counts="100x5,10x5").groups[1]
    >>> round(found.merges, 5), found.lost, round(found.vanishes, 5)
    (0.00575, None, 0.00903)
    """
    own = True
    if problem is None:
        given = {name: value for name, value in rest.items() if value is not None}
        if "counts" not in given:
            raise ValueError("counts: missing; give a problem, or counts")
        own = {"weight_decay", "feature_decay"} <= given.keys()
        problem = Problem(**({"weight_decay": 1.0, "feature_decay": 1.0} | given))
    elif rest:
        raise ValueError(f"{next(iter(rest))}: given with a problem, which has it already")
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    found: closed.Thresholds | ContextThresholds
    if problem.targets is not None:
        found = context_thresholds(problem)
    else:
        found = class_thresholds(problem, progress)
    return found if own else found.without_decays()


def class_thresholds(problem: Problem, progress: ProgressLike = False) -> closed.Thresholds:
    """Return `thresholds` of a problem with one class a context.

    Raises
    ------
    ValueError
        If it has targets, and as `thresholds`.
    """
    return thresholds_of(state_changes(problem, takers=False, progress=progress))


def thresholds_of(changes: StateChanges) -> closed.Thresholds:
    """Return the thresholds of every state from its changes, with or without takers."""
    problem = changes.problem
    limits = known_thresholds(problem)
    groups = []
    for i, group in enumerate(limits.groups):
        merges, lost, vanishes = (changes.from_decay(i, s) for s in (MERGED, LOST, VANISHED))
        own = (change for change in changes.of_group(i) if change.before != change.after)
        places = tuple((change.logit_decay, change.after) for change in own)
        root = group.logit_decay if problem.margin_runs else None
        if merges and root and math.isclose(merges, root, rel_tol=SAME_ROOT):
            # The root is good to more digits than where solves tell a tiny margin from none.
            places = tuple((root if p == merges else p, state) for p, state in places)
            merges = root
        if (first := str(changes.first.state[i])) != DISTINCT:
            places = ((0.0, first), *places)
        groups.append(replace(group, merges=merges, lost=lost, vanishes=vanishes, changes=places))
    return replace(limits, groups=tuple(groups))


class Event(NamedTuple):
    """What happens to one group; ``rival`` is the group that it is lost to, -1 if it is not."""

    decay: float
    group: int
    before: str
    after: str
    rival: int


class _Point(NamedTuple):
    """A minimiser; ``code`` tells states (and takers) apart, one number a group.

    ``gaps``: see `group_gaps`, infinite on the diagonal.
    """

    problem: Problem
    blocks: BlockMatrix
    bias: Array
    factors: Factors | None
    states: States
    gaps: Array
    code: NDArray[np.intp]


class _Margin(NamedTuple):
    """What tells two states of a group apart: a difference of logits, which changes its sign.

    Own minus the largest of the others, or if ``takers`` are given, that of the later one minus
    that of the earlier one.
    """

    group: int
    takers: tuple[int, int] | None

    def at(self, point: _Point, gaps: Array | None = None) -> float:
        """Return the difference at a point, or of other gaps (changes of them) there."""
        own = point.gaps[:, self.group]
        gaps = own if gaps is None else gaps[:, self.group]
        if self.takers is None:
            return float(gaps[own.argmin()])
        return float(gaps[self.takers[0]] - gaps[self.takers[1]])

    def involved(self, point: _Point) -> set[int]:
        """Return the groups with the largest logits: one, or as many as there are takers."""
        nearest = np.argsort(point.gaps[:, self.group], kind="stable")
        return set(nearest[: 1 if self.takers is None else 2].tolist())


class _Line:
    """The minimisers of a problem along its decay, each solved once, from its neighbours."""

    def __init__(self, problem: Problem, takers: bool) -> None:
        self.problem, self.takers = problem, takers
        self.partition = Partition.coarsest(problem)
        self.numeric = uses_solver(problem)
        searched = not coverage(problem).is_certified
        self.accuracy = ORTHANT_ACCURACY if searched else ACCURACY
        self.points: dict[float, _Point] = {}
        self.known: list[float] = []  # their decays, sorted
        self.slopes: dict[float, tuple[Factors, Array]] = {}
        self.unsettled: dict[float, float] = {}  # by decay, what the gradient did not fall below
        self.worst_gap, self.unproven, self.worst_error = 0.0, math.inf, 0.0

    def at(self, decay: float) -> _Point:
        """Return the minimiser at one decay."""
        if decay not in self.points:
            problem = self._problem(decay)
            self.points[decay] = self._point(problem, *self._minimise(problem, decay))
            bisect.insort(self.known, decay)
        return self.points[decay]

    def _point(
        self, problem: Problem, blocks: BlockMatrix, bias: Array, factors: Factors | None
    ) -> _Point:
        states = block_states(blocks, bias)
        code = np.array([STATES.index(state) for state in states.state])
        if self.takers:
            code += np.where(states.state == LOST, len(STATES) * (1 + states.rival), 0)
        return _Point(problem, blocks, bias, factors, states, _gaps(blocks, bias), code)

    def _problem(self, decay: float) -> Problem:
        return self.problem.replace(weight_decay=decay, feature_decay=decay)

    def _minimise(
        self, problem: Problem, decay: float
    ) -> tuple[BlockMatrix, Array, Factors | None]:
        if not self.numeric:
            solution = solve(problem).averaged()
            if solution.gap is None:
                self.unproven = min(self.unproven, decay)
            return solution.blocks, solution.group_bias, None
        start = self._start(decay)
        if start is None or start.left.shape[1] <= 1:
            factors, excess = self._unranked(problem, start)
            if excess <= 0:
                return _blocks(self.partition, factors), factors.bias, factors
        rough = start and settle(start, problem, self.partition, ROUGH, STEPS)
        factors = rough or self._certified(problem, start, ROUGH)
        if not self._decides(factors):
            factors = self._exactly(problem, factors)
        if not factors.left.shape[1]:
            # Not zero, as is known by now, but too near to it for Newton steps to leave it.
            f = FactoredProblem(problem, self.partition)
            factors = f.proximal_step(f.enter(factors), f.step_size)
        return _blocks(self.partition, factors), factors.bias, factors

    def _certified(self, problem: Problem, start: Factors | None, gap: float) -> Factors:
        """Return a certified minimiser, settled to what a gap needs where that can be."""
        result = minimise_from(start, problem, self.partition, RANK_GAP, STEPS)
        reached = result.certificate.gap / result.certificate.primal
        self.worst_gap = max(self.worst_gap, reached)
        found = settle(result.factors, problem, self.partition, gap, STEPS)
        if found is None:  # rounding is in the way, and a few more steps show where it begins
            near = result.factors
            last = minimise(problem, self.partition, tol=gap, max_iterations=LAST_STEPS, start=near)
            found = last.factors
            self.unsettled[problem.logit_decay] = remaining(found, problem, self.partition)
        return found

    def _exactly(self, problem: Problem, factors: Factors) -> Factors:
        """Go on to what a gap of `GAP` needs."""
        self.unsettled.pop(problem.logit_decay, None)
        found = settle(factors, problem, self.partition, GAP, STEPS)
        return found or self._certified(problem, factors, GAP)

    def _decides(self, rough: Factors) -> bool:
        """Tell whether roughly known logits are far enough apart for the states to be known."""
        gaps = np.sort(_gaps(_blocks(self.partition, rough), rough.bias), axis=0)
        decides = bool(np.abs(gaps[0]).min() > CLEAR)
        if decides and self.takers and len(gaps) > 2:
            lost = gaps[0] < 0
            decides = bool((gaps[1] - gaps[0])[lost].min(initial=math.inf) > CLEAR)
        return decides

    def _unranked(self, problem: Problem, near: Factors | None) -> tuple[Factors, float]:
        return unranked(problem, self.partition, near, GAP, STEPS)

    def _around(self, decay: float) -> list[tuple[float, _Point]]:
        """Return known points near a decay, nearest first, with the logarithm of their distance."""
        place = bisect.bisect(self.known, decay)
        around = self.known[max(place - AROUND, 0) : place + AROUND]
        near = sorted((abs(math.log(known / decay)), known) for known in around)
        return [
            (math.log(known / decay), self.points[known])
            for distance, known in near
            if distance < NEAR
        ]

    def _start(self, decay: float) -> Factors | None:
        """Return factors to start from: a polynomial through those around that are alike."""
        around = self._around(decay)
        if not around:
            return None
        (first, nearest), *others = around
        times, parts = [first], [nearest.factors]
        assert nearest.factors is not None
        for time, point in others:
            # Of points in a cluster one is enough.
            apart = all(abs(time - known) > 0.3 * abs(time) for known in times)
            if len(times) < NODES and apart and _alike(nearest, point):
                assert point.factors is not None
                times.append(time)
                parts.append(turned(point.factors, nearest.factors))
        if len(times) < 3 and nearest.problem.logit_decay in self.slopes:
            change, _ = self.slopes[nearest.problem.logit_decay]
            return Factors(*(a - first * b for a, b in zip(nearest.factors, change, strict=True)))
        (weights,) = lagrange(np.array(times), np.zeros(1), NODES)
        return Factors(
            *(np.tensordot(weights, np.array(part), axes=1) for part in zip(*parts, strict=True))
        )

    def follow(self, edges: list[float], tell: Progress | None) -> list[Event]:
        """Return all that happens between the first and the last of some decays.

        Between two of them groups neither merge nor part, but for classes with a margin.
        """
        total = round(POINTS_A_DECADE * math.log10(edges[-1] / edges[0])) + 1

        def reached(decay: float) -> None:
            told(tell, math.floor(POINTS_A_DECADE * math.log10(decay / edges[0])), total)

        found: list[Event] = []
        width = stretches.WIDEST
        reached(edges[0])
        for low, high in itertools.pairwise(edges):
            traced = self._traced(low, high, width, reached) if self._is_smooth(low, high) else None
            if traced is None:
                found += self._scanned(low, high, reached)
            else:
                events, width = traced
                found += events
        return found

    def _is_smooth(self, low: float, high: float) -> bool:
        return self.numeric and high > low * (1 + CLOSE_EDGES)

    def _scanned(self, low: float, high: float, reached: Callable[[float], None]) -> list[Event]:
        """Return all that happens between two decays, of which points of a grid show some."""
        points = 2 + math.floor(POINTS_A_DECADE * math.log10(high / low))
        found: list[Event] = []
        for one, other in itertools.pairwise(
            [*np.geomspace(low, high, points)[:-1].tolist(), high]
        ):
            reached(one)
            found += self._events(one, other)
        return found

    def _events(self, low: float, high: float) -> list[Event]:
        found = []
        for decay, below, above in self.changes(low, high):
            self.worst_error = max(self.worst_error, self.error(below, above))
            for group in np.flatnonzero(below.code != above.code).tolist():
                before, after = str(below.states.state[group]), str(above.states.state[group])
                rival = int(above.states.rival[group]) if after == LOST else -1
                takers = int(below.states.rival[group]), rival
                ends = (self.at(end).gaps[:, group] for end in (low, high))
                if before == after == LOST and all(_are_equal(gaps, takers) for gaps in ends):
                    continue
                found.append(Event(decay, group, before, after, rival))
        return found

    def _traced(
        self, low: float, high: float, width: float, reached: Callable[[float], None]
    ) -> tuple[list[Event], float] | None:
        """Return all that happens between two decays as smooth stretches tell, and the last width.

        None where they do not: rounding is in the way.
        """
        first = self.at(low).factors
        assert first is not None
        ends = math.log(low), math.log(high)
        parts = []
        for stretch in stretches.trace(self.problem, self.partition, first, *ends, width):
            reached(math.exp(stretch.high))
            parts.append(stretch)
        if not parts or parts[-1].high < ends[1]:
            return None
        # Where stretches end states may change too, all at once.
        unclear: list[tuple[float, float]] = []
        for one, other in itertools.pairwise([*parts, None]):
            assert one is not None
            after = self.at(high).code if other is None else self._code(other, other.low)
            if not np.array_equal(self._code(one, one.high), after):
                last = one.times[one.times < one.high].max()
                unclear.append(
                    (float(last), ends[1] if other is None else float(other.times.min()))
                )
        events = (event for span in unclear for event in self._events(*map(math.exp, span)))
        found = [(math.log(event.decay), event) for event in events]
        for stretch in parts:
            for crossing in crossings(stretch, takers=self.takers):
                if any(start <= crossing.time <= end for start, end in unclear):
                    continue
                if crossing.is_of_takers and self._tied(stretch, crossing):
                    continue
                event = self._placed(stretch, crossing)
                if event is None:
                    return None
                found.append((crossing.time, event))
        joined = self._joined(low, [event for _, event in sorted(found)])
        return None if joined is None else (joined, parts[-1].high - parts[-1].low)

    def _joined(self, low: float, found: list[Event]) -> list[Event] | None:
        """Return events in order, with those of a group at one decay as one.

        Where its class mean crosses zero a group parts from one taker and is lost to another at
        once, which polynomials tell apart. None if what comes before is not what was there.
        """
        first = self.at(low).states
        events: list[Event] = []
        for group in sorted({event.group for event in found}):
            own = [Event(0.0, group, "", str(first.state[group]), int(first.rival[group]))]
            for event in found:
                if event.group != group:
                    continue
                if event.before != own[-1].after:
                    return None
                if event.decay <= own[-1].decay * (1 + ONE_PLACE):
                    earlier = own.pop()
                    event = event._replace(decay=earlier.decay, before=earlier.before)
                own.append(event)
            events += [new for old, new in itertools.pairwise(own) if self._differ(old, new)]
        return sorted(events)

    def _differ(self, old: Event, new: Event) -> bool:
        """Tell whether anything is another after an event than it was after the one before."""
        if new.before != new.after:
            return True
        return self.takers and new.after == LOST and new.rival != old.rival

    def _code(self, stretch: Stretch, time: float) -> NDArray[np.intp]:
        (code,) = codes(stretch, np.array([time]), takers=self.takers)
        return np.asarray(code)

    def _tied(self, stretch: Stretch, crossing: Crossing) -> bool:
        """Tell whether two takers have equal logits all along, which only rounding tells apart."""
        column, ends = stretch.column(crossing.group), (stretch.low, stretch.high)
        if max(abs(crossing.difference(column(end))) for end in ends) > UNSURE:
            return False
        low, high = (stretch.low + share * (stretch.high - stretch.low) for share in (0.2, 0.8))
        far = max(low, high, key=lambda time: abs(time - crossing.time))
        start = stretch.factors(far, stretch.rank)
        factors = settle(start, self._problem(math.exp(far)), self.partition, GAP, STEPS)
        if factors is None:
            return False
        gaps = _gaps(_blocks(self.partition, factors), factors.bias)[:, crossing.group]
        return _are_equal(gaps, crossing.rivals)

    def _placed(self, stretch: Stretch, crossing: Crossing) -> Event | None:
        """Return what a crossing says, at the decay that solves near it say; None if they fail."""
        _, group, before, after, rivals = crossing
        rival = rivals[1] if after == LOST else -1
        time = crossing.time
        if not crossing.is_of_takers or self.partition.num_groups <= FEW_GROUPS:
            rise = crossing.slope(stretch.column(group))
            for _ in range(PLACING_STEPS):
                start = stretch.factors(time, stretch.rank)
                factors = settle(start, self._problem(math.exp(time)), self.partition, GAP, STEPS)
                if factors is None:
                    return None
                gaps = _gaps(_blocks(self.partition, factors), factors.bias)[:, group]
                step = crossing.difference(gaps) / rise
                time -= step
                if abs(step) < LAST_STEP:
                    break
            else:
                return None
        return Event(math.exp(time), group, before, after, rival)

    def changes(self, low: float, high: float, cuts: int = 1) -> list[tuple[float, _Point, _Point]]:
        """Return all decays between two at which a code changes, with points below and above."""
        below, above = self.at(low), self.at(high)
        if np.array_equal(below.code, above.code):
            return []
        middle = math.sqrt(low * high)
        near = high <= low * (1 + 3 * self.accuracy)
        if near or (high <= low * (1 + CLOSE) and self._hidden(below, above)):
            return [(middle, below, above)]
        root, cut = self._root(low, high) if cuts % HALVED else (None, None)
        if root is not None:
            return [(root, below, above)]
        if cut is None or not low < cut < high:
            cut = middle
        return self.changes(low, cut, cuts + 1) + self.changes(cut, high, cuts + 1)

    def _root(self, low: float, high: float) -> tuple[float | None, float | None]:
        """Return the only decay at which codes change; or if that takes more, where to look next.

        Neither if no function tells the states apart.
        """
        below, above = self.at(low), self.at(high)
        if self.numeric and any(
            (below.states.state == VANISHED) != (above.states.state == VANISHED)
        ):
            root = self._vanishing(low, high)
            if root is not None:
                sides = (root * (1 - ACCURACY), root * (1 + ACCURACY))
                return None, next((side for side in sides if low < side < high), None)
        groups = np.flatnonzero(below.code != above.code).tolist()
        margins = [self._margin(group, below.states, above.states) for group in groups]
        for margin in margins:
            if margin is not None and margin.at(below) * margin.at(above) < 0:
                root, cut = self._crossing(margin, low, high)
                return (root, cut) if len(groups) == 1 else (None, cut)
        return None, None

    def _crossing(
        self, margin: _Margin, low: float, high: float
    ) -> tuple[float | None, float | None]:
        """Return where a margin crosses zero, if an end is near enough; and where to look next.

        The tangent at the nearer end tells, or where both lie on one smooth stretch, a cubic
        through both. The next point lies a little beyond, so that the root is soon between close
        points: as much as tangent and cubic differ.
        """
        width = math.log(high / low)
        ends = self.at(low), self.at(high)
        values = np.array([margin.at(end) for end in ends])
        times = np.array([0.0, width])
        if not self.numeric:
            return None, low * math.exp(width * values[0] / (values[0] - values[1]))
        pairs = zip(ends, (low, high), strict=True)
        slopes = np.array([margin.at(end, self._slope(decay)) for end, decay in pairs])
        with np.errstate(divide="ignore"):
            tangents = times - values / slopes
        steps = np.where((tangents > 0) & (tangents < width), np.abs(tangents - times), np.inf)
        # A margin may bend where the rank falls; the root is mostly on the steeper side.
        steep = np.abs(slopes) > STEEPER * np.abs(slopes[::-1])
        nearer = int(np.argmin(np.where(steep[::-1], 1e3, 1.0) * steps))
        if not np.isfinite(steps[nearer]):
            return None, None
        best, error = tangents[nearer], math.inf
        if _alike(*ends) and margin.involved(ends[0]) == margin.involved(ends[1]):
            if width < CLOSE and steps[nearer] < SURE:
                return low * math.exp(best), None
            curve = _inverse_cubic(times, values, slopes)
            if 0 < curve < width:
                best, error = curve, abs(curve - best)
        step = best - times[nearer]
        beyond = max(min(error, 0.05 * abs(step)), min(ACCURACY, 0.5 * abs(step)))
        return None, low * math.exp(best + math.copysign(beyond, step))

    def _slope(self, decay: float) -> Array:
        """Return the derivative of a point's gaps by the logarithm of the decay."""
        if decay not in self.slopes:
            point = self.points[decay]
            factors = point.factors
            assert factors is not None
            change = slope(factors, point.problem, self.partition)
            mean = factors.left @ change.right.T + change.left @ factors.right.T
            blocks = BlockMatrix(self.partition, change.within, mean / self.partition.scale)
            self.slopes[decay] = change, group_gaps(blocks, change.bias)
        return self.slopes[decay][1]

    def merging(self, group: int) -> float:
        """Return the decay from which on the classes of a group with a margin are merged.

        Below, they are apart; above, what tears them apart falls short of the decay.
        """
        from scipy.optimize import toms748

        p = self.partition
        fit = self.problem.loss_object.datafit(p)
        root = math.sqrt(p.counts[group])

        def excess(log_decay: float) -> float:
            point = self.at(math.exp(log_decay))
            blocks, bias = point.blocks, point.bias
            if point.factors is not None and point.factors.left.shape[1]:
                better = settle(point.factors, point.problem, p, GAP, STEPS)
                if better is not None:
                    blocks, bias = _blocks(p, better), better.bias
            if blocks.within[group] > 0:
                return float(blocks.within[group])
            torn = fit.residual(blocks.within, blocks.mean + bias[:, None]).within[group]
            return float(-torn) * root / p.num_samples / point.problem.logit_decay - 1

        low, high = (float(pull[group]) / p.num_samples for pull in p.pull_range)
        start, end = math.log(low * (1 - SAME_ROOT)), math.log(high * (1 + SAME_ROOT))
        return math.exp(toms748(excess, start, end, xtol=ACCURACY / 4, rtol=1e-15))

    def _vanishing(self, low: float, high: float) -> float | None:
        """Return the decay between two from which on all logits between groups are zero."""
        from scipy.optimize import toms748

        near = self.at(high).factors

        def excess(log_decay: float) -> float:
            return self._unranked(self._problem(math.exp(log_decay)), near)[1]

        start, end = math.log(low), math.log(high)
        if not excess(start) * excess(end) < 0:
            return None
        return math.exp(toms748(excess, start, end, xtol=ACCURACY / 4, rtol=1e-15))

    def error(self, below: _Point, above: _Point) -> float:
        """Return how far, relatively, rounding may have put a change that lies between two points.

        That is what the margin's error is worth in decays, at the end where it is less.
        """
        worst = 0.0
        groups = np.flatnonzero(below.code != above.code).tolist() if self.unsettled else []
        for group in groups:
            if margin := self._margin(group, below.states, above.states):
                errors = []
                for point in (below, above):
                    if off := self._off(point, group):
                        rise = abs(margin.at(point, self._slope(point.problem.logit_decay)))
                        errors.append(off / rise if rise > off else 1.0)
                worst = max(worst, min(errors, default=0.0))
        return worst

    def _hidden(self, below: _Point, above: _Point) -> bool:
        """Tell whether rounding hides at both points which state is which: nothing is between."""
        if not self.unsettled:
            return False
        for group in np.flatnonzero(below.code != above.code).tolist():
            margin = self._margin(group, below.states, above.states)
            if margin is None or any(
                abs(margin.at(point)) >= self._off(point, group) for point in (below, above)
            ):
                return False
        return True

    def _off(self, point: _Point, group: int) -> float:
        """Return a margin's error: what is left of the gradient, over the class's share's root."""
        p = self.partition
        share = p.weights[group] * p.counts[group] / p.num_samples
        return self.unsettled.get(point.problem.logit_decay, 0.0) / math.sqrt(share)

    def _margin(self, group: int, below: States, above: States) -> _Margin | None:
        """Return the margin whose sign tells the two states of a group apart."""
        before, after = below.state[group], above.state[group]
        if VANISHED in (before, after) or LOST not in (before, after):
            return None
        if before == after:
            return _Margin(group, (int(below.rival[group]), int(above.rival[group])))
        return _Margin(group, None)


def _inverse_cubic(times: Array, values: Array, slopes: Array) -> float:
    """Return the time at which the value is zero, by the cubic of times through both ends."""
    size = values[1] - values[0]
    share = -values[0] / size
    rise = times[1] - times[0]
    first, last = size / slopes
    return float(
        times[0]
        + share * rise
        + share * (1 - share) * ((1 - share) * (first - rise) - share * (last - rise))
    )


def _alike(one: _Point, other: _Point) -> bool:
    """Tell whether two points lie on one smooth stretch, as far as their ranks tell."""
    if one.factors is None or other.factors is None:
        return True
    return one.factors.left.shape == other.factors.left.shape and np.array_equal(
        one.factors.within > 0, other.factors.within > 0
    )


def _gaps(blocks: BlockMatrix, bias: Array) -> Array:
    gaps = group_gaps(blocks, bias)
    np.fill_diagonal(gaps, np.inf)
    return gaps


def _blocks(partition: Partition, factors: Factors) -> BlockMatrix:
    mean = factors.left @ factors.right.T / partition.scale
    return BlockMatrix(partition, factors.within, mean)


def _are_equal(gaps: Array, groups: tuple[int, int]) -> bool:
    """Tell whether two groups have equal logits, up to rounding, by the gaps of a third one."""
    largest = float(np.abs(gaps[np.isfinite(gaps)]).max(initial=0.0))
    return bool(abs(gaps[groups[0]] - gaps[groups[1]]) <= TIED * largest)


def records(problem: Problem, found: Iterable[Event]) -> tuple[StateChange, ...]:
    """Join groups that change alike at one decay."""
    firsts: dict[int, int] = {}  # label of the first class of every group
    label = 0
    for group, classes in problem.runs_of(np.arange(len(problem.groups))):
        firsts.setdefault(int(group), label)
        label += classes
    alike: dict[tuple[float, str, str, int], list[int]] = {}
    for decay, group, before, after, rival in found:
        alike.setdefault((decay, before, after, rival), []).append(group)
    joined = []
    for (decay, before, after, rival), groups in alike.items():
        taker = None if rival < 0 else firsts[rival]
        joined.append(StateChange(tuple(groups), decay, before, after, taker, problem))
    return tuple(joined)
