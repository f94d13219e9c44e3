"""State changes: at which decays each class merges, is lost, taken for another, and vanishes."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array, BlockMatrix, Partition, singular_values
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
from tightframe.path import rank_excesses
from tightframe.problem.problem import Problem
from tightframe.solve import NotConvergedWarning, solve, uses_solver
from tightframe.solvers.continuation import turned
from tightframe.solvers.newton import FactoredProblem, minimise_from, polish
from tightframe.solvers.starts import Factors
from tightframe.theory import thresholds as closed
from tightframe.theory.closed_form import deep_linear

if TYPE_CHECKING:
    import pandas as pd

#: Relative accuracy of a decay at which a state changes; states are told apart this far below and
#: above it.
ACCURACY = 2e-10

#: Points of the first scan, a factor of ten of decays.
POINTS_A_DECADE = 25

#: The scan begins at this share of the least merging threshold, and lower as long as a class is not
#: distinct there, down to a share of `LEAST`.
LOWEST, LEAST = 0.05, 1e-6

#: Certified relative gap to which a solve goes first; where it has the minimiser's rank by then,
#: Newton steps go on to what a gap of `GAP` needs, if it could be certified: a margin's error is
#: about the root of the gap. Otherwise the solve itself goes on.
RANK_GAP = 1e-12
GAP = 1e-20
STEPS = 200

#: A neighbour whose decay is no further away, in logarithms, is what a solve starts from.
NEAR = 0.2

#: A relative gap above this at any decay is warned of.
POOR_GAP = 1e-9

#: After so many cuts of an interval at roots it is halved.
MAX_ROOTS = 8


@dataclass(frozen=True, eq=False)
class StateChange:
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
            f"StateChange({self.num_classes} classes, logit_decay={self.logit_decay:.6g}, "
            f"{self.before!r} -> {self.after!r}{taken})"
        )


@dataclass(frozen=True, eq=False)
class StateChanges:
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
        """Return one row a change and group."""
        import pandas as pd

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
        return pd.DataFrame(rows, columns=columns).astype({"rival": "Int64"})

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.changes[:4]))
        more = len(self) - 4
        return f"StateChanges({shown}{f', and {more} more' if more > 0 else ''})"


def state_changes(problem: Problem, *, takers: bool = True) -> StateChanges:
    """Follow every class from small decays to total collapse and return where its state changes.

    Merging and, with closed forms, vanishing happen at decays that are known exactly
    (docs/theory.md section 6). Where another class's logit overtakes the own one, the decay is a
    root of the decision margin, and where all logits between groups vanish, of the gradient's
    excess over the decay: both are found between neighbouring points of a scan, to 1e-9 relative.
    States may change back; wherever they differ between neighbouring points of the scan
    (`POINTS_A_DECADE`, and every known threshold), all that is between is found. Missed are changes
    that undo each other between two neighbouring points, and what lies below ``lowest``.

    Parameters
    ----------
    problem : Problem
        As for `thresholds`. Only the product of its decays is swept: their ratio changes nothing.
    takers : bool
        Whether a lost class whose taker changes counts as changing. There are about as many such
        changes as pairs of lost groups; without them hundreds of groups take seconds.

    Returns
    -------
    StateChanges

    Raises
    ------
    ValueError
        As `thresholds`, or if ``dim`` is too narrow for the minimiser without it.

    Examples
    --------
    >>> changes = state_changes(Problem("100x5,10x5", weight_decay=1e-3, feature_decay=1e-3))
    >>> [(c.num_classes, round(c.logit_decay, 5), c.before, c.after) for c in changes]
    [(5, 0.00575, 'distinct', 'merged'), (5, 0.00903, 'merged', 'vanished'), \
(5, 0.01818, 'distinct', 'vanished')]
    """
    limits = closed.thresholds(problem)
    line = _Line(problem.replace(dim=None), takers)
    known = _known_decays(line, limits)
    top = max(known)
    lowest = LOWEST * min(known)
    while not (line.at(lowest).states.state == DISTINCT).all() and lowest > LEAST * min(known):
        lowest /= 4
    points = 2 + round(POINTS_A_DECADE * math.log10(top / lowest))
    edges = [decay * (1 + side * ACCURACY) for decay in known for side in (-1, 1)]
    grid = sorted({*np.geomspace(lowest, top, points)[:-1].tolist(), *edges})
    found: list[tuple[float, _Point, _Point]] = []
    for low, high in itertools.pairwise(grid):
        found += line.changes(low, high)
    if line.worst_gap > POOR_GAP:
        warnings.warn(
            f"state_changes: a solve stopped at a relative gap of {line.worst_gap:.1e}",
            NotConvergedWarning,
            stacklevel=2,
        )
    first = line.at(grid[0])
    return StateChanges(problem, _records(problem, found), grid[0], first.states)


def _known_decays(line: _Line, limits: closed.Thresholds) -> list[float]:
    """Return the decays at which merging, vanishing and total collapse are known to happen."""
    problem, partition = line.problem, line.partition
    known = {limits.total_collapse}
    known |= {group.logit_decay for group in limits.groups if group.logit_decay is not None}
    if not uses_solver(problem) and problem.features == "real":
        # One layer's balanced cross-entropy, or MSE, whose singular values vanish one by one.
        values, _ = deep_linear.targets(problem, partition).spectrum
        m = problem.depth
        places = deep_linear.collapse_factor(m) * values ** (2 * m / (m + 1)) / problem.num_samples
        known |= set(places[values > 1e-9 * values.max()].tolist())
    return sorted(known)


def thresholds(problem: Problem | None = None, **rest: Any) -> closed.Thresholds:
    """Return from which decays on the classes of each group merge, are lost and vanish.

    ``merges``, ``lost`` and ``vanishes`` of every group follow from `state_changes`. The other
    fields are closed forms. One layer, real features: the classes of a group of two or more share
    one prediction iff ``sqrt(n_i)/N <= lambda``, whatever the other groups, the bias and the loss
    (docs/theory.md section 6; Hong & Ling 2023); another class may take them all the same. Class
    weights multiply ``sqrt(n_i)``; a logit adjustment changes nothing of that. Non-negative
    features with cross-entropy: a class vanishes iff ``sqrt(n_i (K-1)/K)/N <= lambda`` (Dang et al.
    2024), class weights as before. MSE with M layers, no or free bias: iff
    ``c_M n_i^{M/(M+1)} / N <= mu``, ``c_M = ((M-1)/M)^{(M-1)/(M+1)} / M`` (Dang et al. 2023); for
    M > 1 the singular value jumps there.

    With one layer no threshold depends on the ratio of the decays, so that none need be given.
    Features are taken as wide enough: a ``dim`` below the rank drops further directions (`solve`
    tells which).

    Parameters
    ----------
    problem : Problem, optional
    **rest
        Instead of a problem: its arguments, ``counts`` among them. Decays may be left out; then
        ``logit_decay`` of the result is None, and so are ``collapsed``, ``total_samples`` and
        ``distinct_counts`` of its groups, which are those at the problem's own decays.

    Raises
    ------
    ValueError
        If the problem is cross-entropy, or has a decayed bias, with more than one linear layer, or
        has non-negative features with a bias; or an argument is out of range.

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
    limits = closed.thresholds(problem)
    changes = state_changes(problem, takers=False)
    groups = []
    for i, group in enumerate(limits.groups):
        merges, lost, vanishes = (changes.from_decay(i, s) for s in (MERGED, LOST, VANISHED))
        places = tuple((change.logit_decay, change.after) for change in changes.of_group(i))
        if (first := str(changes.first.state[i])) != DISTINCT:
            places = ((0.0, first), *places)
        groups.append(replace(group, merges=merges, lost=lost, vanishes=vanishes, changes=places))
    found = replace(limits, groups=tuple(groups))
    return found if own else found.without_decays()


class _Point(NamedTuple):
    """A minimiser; ``code`` tells states (and takers) apart, one number a group."""

    problem: Problem
    blocks: BlockMatrix
    bias: Array
    factors: Factors | None
    states: States
    code: NDArray[np.intp]

    def overtaken(self, group: int) -> float:
        """Return own minus the largest logit of other groups."""
        return float(np.delete(group_gaps(self.blocks, self.bias)[:, group], group).min())

    def ahead(self, group: int, taker: int, next_taker: int) -> float:
        """Return the logit of the next taker minus that of the taker, for samples of a group."""
        gaps = group_gaps(self.blocks, self.bias)[:, group]
        return float(gaps[taker] - gaps[next_taker])


class _Line:
    """The minimisers of a problem along its decay, each solved once, from its neighbour."""

    def __init__(self, problem: Problem, takers: bool) -> None:
        self.problem, self.takers = problem, takers
        self.partition = Partition.coarsest(problem)
        self.numeric = uses_solver(problem)
        self.points: dict[float, _Point] = {}
        self.known: list[float] = []  # their decays, sorted
        self.worst_gap = 0.0

    def at(self, decay: float) -> _Point:
        """Return the minimiser at one decay."""
        if decay not in self.points:
            problem = self.problem.replace(weight_decay=decay, feature_decay=decay)
            blocks, bias, factors = self._minimise(problem, decay)
            states = block_states(blocks, bias)
            code = np.array([STATES.index(state) for state in states.state])
            if self.takers:
                code += np.where(states.state == LOST, len(STATES) * (1 + states.rival), 0)
            self.points[decay] = _Point(problem, blocks, bias, factors, states, code)
            bisect.insort(self.known, decay)
        return self.points[decay]

    def _minimise(
        self, problem: Problem, decay: float
    ) -> tuple[BlockMatrix, Array, Factors | None]:
        if not self.numeric:
            solution = solve(problem)
            return solution.blocks, solution.group_bias, None
        nearest, start = self._neighbours(decay)
        if nearest is None or nearest.left.shape[1] <= 1:
            factors, excess = self.unranked(problem, nearest)
            if excess <= 0:
                return _blocks(self.partition, factors), factors.bias, factors
        if start is not None:
            polished = polish(start, problem, self.partition, GAP, STEPS)
            if polished is not None and self._has_its_rank(problem, polished):
                return _blocks(self.partition, polished), polished.bias, polished
        for gap in (RANK_GAP, GAP):
            result = minimise_from(start, problem, self.partition, gap, STEPS)
            factors = polish(result.factors, problem, self.partition, GAP, STEPS) or result.factors
            if self._has_its_rank(problem, factors):
                break
        self.worst_gap = max(self.worst_gap, result.certificate.gap / result.certificate.primal)
        if not factors.left.shape[1]:
            # Not zero, as is known by now, but too near to it for Newton steps to leave it.
            f = FactoredProblem(problem, self.partition)
            factors = f.proximal_step(f.enter(factors), f.step_size)
        return _blocks(self.partition, factors), factors.bias, factors

    def _has_its_rank(self, problem: Problem, factors: Factors) -> bool:
        """Tell whether factors have the minimiser's rank; a tiny gap does not say so."""
        excesses = rank_excesses(problem, _blocks(self.partition, factors), factors.bias)
        return bool((excesses > 0).sum() == factors.left.shape[1])

    def unranked(self, problem: Problem, near: Factors | None) -> tuple[Factors, float]:
        """Return the best factors of rank zero, and how much the gradient exceeds the decay there.

        Where it does not, they are the minimiser: next to that decay factors of rank one converge
        too slowly to tell.
        """
        g = self.partition.num_groups
        none = np.zeros((g, 0))
        within = np.zeros(g) if near is None else near.within
        bias = np.zeros(g) if near is None else near.bias
        start = Factors(none, none, within, bias)
        factors = polish(start, problem, self.partition, GAP, STEPS)
        if factors is None:
            factors = minimise_from(start, problem, self.partition, GAP, 0).factors
        fit = problem.loss_object.datafit(self.partition)
        scores = np.zeros((g, g)) + factors.bias[:, None]
        residual = fit.residual(factors.within, scores)
        return factors, float(
            singular_values(residual.reduced)[0]
        ) / problem.num_samples - problem.logit_decay

    def _neighbours(self, decay: float) -> tuple[Factors | None, Factors | None]:
        """Return the nearest known factors, and a start: between two where they are alike."""
        place = bisect.bisect(self.known, decay)
        around = self.known[max(place - 1, 0) : place + 1]
        near = sorted((abs(math.log(known / decay)), known) for known in around)
        factors = [self.points[known].factors for distance, known in near if distance < NEAR]
        if len(factors) < 2:
            return (factors[0], factors[0]) if factors else (None, None)
        one, other = factors
        assert one is not None
        assert other is not None
        shown = np.array_equal(one.within > 0, other.within > 0)
        if one.left.shape != other.left.shape or not shown:
            return one, one
        share = near[0][0] / (near[0][0] + near[1][0])
        parts = zip(one, turned(other, one), strict=True)
        return one, Factors(*((1 - share) * a + share * b for a, b in parts))

    def changes(
        self, low: float, high: float, roots: int = 0
    ) -> list[tuple[float, _Point, _Point]]:
        """Return all decays between two at which a code changes, with the points on both sides."""
        below, above = self.at(low), self.at(high)
        if np.array_equal(below.code, above.code):
            return []
        if high <= low * (1 + 3 * ACCURACY):
            return [(math.sqrt(low * high), below, above)]
        cuts = [math.sqrt(low * high)]
        if roots < MAX_ROOTS:
            root = self._root(low, high)
            if root is not None:
                cuts = [root * (1 - ACCURACY), root * (1 + ACCURACY)]
        places = [low, *(cut for cut in cuts if low < cut < high), high]
        return [
            change
            for start, end in itertools.pairwise(places)
            for change in self.changes(start, end, (roots + 1) % (2 * MAX_ROOTS))
        ]

    def _root(self, low: float, high: float) -> float | None:
        """Return a decay at which one of the groups changes; None if no function tells it."""
        from scipy.optimize import toms748

        below, above = self.at(low), self.at(high)
        start, end = math.log(low), math.log(high)
        # The ends are known already: logarithms must not move them.
        ends = {start: below, end: above}

        def point(log_decay: float) -> _Point:
            return ends.get(log_decay) or self.at(math.exp(log_decay))

        for group in np.flatnonzero(below.code != above.code).tolist():
            sign = self._sign(group, below.states, above.states)
            if sign is None or not sign(below) * sign(above) < 0:
                continue
            value = partial(_after, sign, point)
            return math.exp(toms748(value, start, end, xtol=ACCURACY / 4, rtol=1e-15))
        return None

    def _excess(self, point: _Point) -> float:
        return self.unranked(point.problem, point.factors)[1]

    def _sign(self, group: int, below: States, above: States) -> Callable[[_Point], float] | None:
        """Return the function whose sign tells the two states of a group apart."""
        before, after = below.state[group], above.state[group]
        if (before == VANISHED) != (after == VANISHED):
            return self._excess if self.numeric else None
        if before == LOST and after == LOST:
            taker, next_taker = int(below.rival[group]), int(above.rival[group])
            return lambda point: point.ahead(group, taker, next_taker)
        if LOST in (before, after):
            return lambda point: point.overtaken(group)
        return None


def _after(sign: Callable[[_Point], float], point: Callable[[float], _Point], x: float) -> float:
    return sign(point(x))


def _blocks(partition: Partition, factors: Factors) -> BlockMatrix:
    mean = factors.left @ factors.right.T / partition.scale
    return BlockMatrix(partition, factors.within, mean)


def _records(
    problem: Problem, found: list[tuple[float, _Point, _Point]]
) -> tuple[StateChange, ...]:
    """Join groups that change alike at one decay."""
    firsts = {
        int(group): int(label)
        for group, label in zip(*np.unique(problem.class_groups, return_index=True), strict=True)
    }
    records = []
    for decay, below, above in found:
        alike: dict[tuple[str, str, int], list[int]] = {}
        for group in np.flatnonzero(below.code != above.code).tolist():
            after = str(above.states.state[group])
            rival = int(above.states.rival[group]) if after == LOST else -1
            alike.setdefault((str(below.states.state[group]), after, rival), []).append(group)
        for (before, after, rival), groups in alike.items():
            taker = None if rival < 0 else firsts[rival]
            records.append(StateChange(tuple(groups), decay, before, after, taker, problem))
    return tuple(records)
