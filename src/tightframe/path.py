"""Paths: solutions along a sweep of decays or counts, and where the rank changes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tightframe.checks import is_several, is_unordered, number_of, positive_float, whole_number
from tightframe.geometry.blocks import Array, BlockMatrix, Partition, singular_values
from tightframe.lazy import needed
from tightframe.problem.counts import CountsLike, compact_counts
from tightframe.problem.problem import Problem
from tightframe.progress import ProgressLike, told, watched
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, plot, record
from tightframe.solution import Solution
from tightframe.solve import (
    NotConvergedWarning,
    solve_along,
    solve_context_sweep,
    solve_sweep,
    uses_solver,
)
from tightframe.solvers.continuation import Continuation
from tightframe.solvers.search import multistart
from tightframe.solvers.unranked import unranked
from tightframe.theory.coverage import require_convex
from tightframe.theory.thresholds import thresholds

if TYPE_CHECKING:
    import pandas as pd

#: Certified relative gap at which the rank of a point on a path is judged, and the Newton steps
#: allowed: next to a change of the rank the last digits come slowly and are not needed.
RANK_GAP = 1e-11
RANK_STEPS = 200

#: The same where classes with a margin merge: what tells siblings apart shrinks slowly there.
MERGING_GAP = 1e-14

#: Relative accuracy of a decay at which the rank changes, and how close to a merging threshold such
#: a decay is taken for it.
RANK_ACCURACY = 1e-9
SAME_DECAY = 1e-7


@dataclass(frozen=True, eq=False)
class Path(Shown, Saved):
    """Solutions along a sweep.

    Attributes
    ----------
    sweep : dict
        The arguments that were swept, by name, one value a point.
    solutions : tuple of Solution
        One a point, in the order given.
    """

    sweep: dict[str, tuple[Any, ...]]
    solutions: tuple[Solution, ...]

    @property
    def logit_decay(self) -> Array:
        """``sqrt(weight_decay feature_decay)`` of every point, shape (T,); depth 1 only."""
        return np.array([solution.problem.logit_decay for solution in self.solutions])

    @property
    def objective(self) -> Array:
        """Objective of every point, shape (T,)."""
        return np.array([solution.objective for solution in self.solutions])

    @property
    def rank(self) -> Array:
        """Rank of the logits of every point, shape (T,)."""
        return np.array([solution.rank for solution in self.solutions])

    @property
    def gap(self) -> Array:
        """Certified absolute gap of every point, NaN where there is none, shape (T,)."""
        gaps = [solution.gap for solution in self.solutions]
        return np.array([math.nan if gap is None else gap for gap in gaps])

    @property
    def nuclear_norm(self) -> Array:
        """`Solution.nuclear_norm` of every point, shape (T,); depth 1 only."""
        return np.array([solution.nuclear_norm for solution in self.solutions])

    @property
    def margins(self) -> Array:
        """Margins of the classes of every point, shape (T, K); not with targets."""
        return np.array([solution.margins for solution in self.solutions])

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready; label distributions once, as ``targets``."""
        points = [solution.to_dict() for solution in self.solutions]
        shared: dict[str, Any] = {}
        if (targets := self.solutions[0].problem.targets) is not None:
            for point in points:
                del point["problem"]["targets"]
            shared = {"targets": targets.to_dict()}
        sweep = {name: list(values) for name, values in self.sweep.items()}
        return {"sweep": sweep, "points": points} | shared

    def to_frame(self) -> pd.DataFrame:
        """Return one row a point and class group; with targets one row a point.

        See `tightframe.shown.frame`.
        """
        from tightframe.views.paths import path_frame

        with needed("to_frame", "pandas"):
            return path_frame(self)

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the decision margins of class groups along the path.

        With targets the rank: the width that the data need.

        See `tightframe.shown.plot`.
        """
        from tightframe.views.paths import path_chart

        return plot(path_chart(self, self._limits()), ax)

    def _limits(self) -> list[float | None]:
        """Return from which lambda on each group collapses, if decays alone are swept."""
        problem = self.solutions[0].problem
        if problem.targets is not None or not self.sweep.keys() <= {
            "weight_decay",
            "feature_decay",
        }:
            return []
        try:
            return [group.logit_decay for group in thresholds(problem).groups]
        except ValueError:  # none are known
            return []

    def __repr__(self) -> str:
        swept, objective = ", ".join(self.sweep), self.objective
        return (
            f"Path({number_of(len(self.solutions), 'point')}, {swept}; objective "
            f"{objective[0]:.6g} to "
            f"{objective[-1]:.6g}, rank {self.rank[0]} to {self.rank[-1]})"
        )

    def _blocks(self) -> Iterator[Block]:
        from tightframe.views.paths import path_table

        yield path_table(self)


def path(
    problem: Problem,
    *,
    weight_decay: Iterable[Any] | None = None,
    feature_decay: Iterable[float] | None = None,
    bias_decay: Iterable[float] | None = None,
    counts: Iterable[CountsLike] | None = None,
    tol: float = 1e-8,
    max_iterations: int = 5000,
    starts: int = multistart.STARTS,
    seed: int = 0,
    progress: ProgressLike = None,
) -> Path:
    """Solve a problem along a sweep of one or more of its arguments.

    Where a sweep of decays is smooth, few points are solved and the others interpolated; in a sweep
    of counts, each solve starts from an extrapolation of the last ones. Every point has its own
    certificate, of the same tolerance. With targets, a sweep of decays goes from the largest down,
    each solve from where the last ones lead to.

    Parameters
    ----------
    problem : Problem
        What is not swept is taken from here.
    weight_decay, feature_decay, bias_decay : iterable of float, optional
        Swept together where more than one is given: they have equal lengths then.
    counts : iterable of counts, optional
        One entry a point, each as `Problem` takes it.
    tol, max_iterations, starts, seed
        As in `solve`, for every point.
    progress : callable or bool, optional
        As in `solve`, of the points that are solved.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If nothing is swept, lengths differ, or a point is not a valid problem.

    Examples
    --------
    >>> problem = Problem("500x5,100x5", weight_decay=1e-3, feature_decay=1e-3)
    >>> path(problem, weight_decay=[1e-3, 2e-2]).margins[:, [0, -1]].round(4).tolist()
    [[4.3343, 3.0445], [2.244, 0.0]]
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    tol = positive_float("tol", tol)
    max_iterations = whole_number("max_iterations", max_iterations)
    starts, seed = whole_number("starts", starts), whole_number("seed", seed, 0)
    given = {
        "weight_decay": weight_decay,
        "feature_decay": feature_decay,
        "bias_decay": bias_decay,
        "counts": counts,
    }
    sweep = {name: _points(name, values) for name, values in given.items() if values is not None}
    lengths = {len(values) for values in sweep.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "weight_decay, feature_decay, bias_decay, counts: give at least one, with at least one "
            "value, all of one length"
        )
    if "counts" in sweep:
        sweep["counts"] = tuple(compact_counts(entry) for entry in sweep["counts"])
    problems = [
        problem.replace(**dict(zip(sweep, values, strict=True)))
        for values in zip(*sweep.values(), strict=True)
    ]
    with watched(progress, "points") as tell:
        if "counts" not in sweep and problem.targets is not None:
            return Path(sweep, tuple(solve_context_sweep(problems, tol, max_iterations, tell)))
        if "counts" not in sweep and uses_solver(problem):
            return Path(sweep, tuple(solve_sweep(problems, tol, max_iterations, tell)))
        memory, solutions = Continuation(), []
        for each in problems:
            solutions.append(solve_along(each, tol, max_iterations, starts, seed, memory))
            told(tell, len(solutions), len(problems))
        return Path(sweep, tuple(solutions))


def _points(name: str, values: Any) -> tuple[Any, ...]:
    if not is_several(values) or is_unordered(values):
        raise ValueError(f"{name}: got {values!r}, need a sequence with one entry a point")
    return tuple(values)


# -- where the rank changes ------------------------------------------------------------------------


@record
class RankChange(NamedTuple):
    """A decay at which the rank of the minimiser's logits changes.

    Attributes
    ----------
    logit_decay : float
        ``sqrt(weight_decay feature_decay)``.
    rank_above, rank_below : int
        Rank at slightly larger and at slightly smaller decays.
    """

    logit_decay: float
    rank_above: int
    rank_below: int


def rank_changes(
    problem: Problem, *, lowest: float | None = None, points: int = 100
) -> tuple[RankChange, ...]:
    """Follow the path down from total collapse and return where the rank changes.

    This is what collapse means for classes that are alone with their count: no merging, but one
    direction after the other is lost as the decay grows. At the minimum ``X = Z D^{1/2}`` and minus
    the gradient G share singular vectors, and ``sigma(X - t G) - t lambda`` changes sign where a
    singular value of X becomes zero; that is bracketed on a grid, then found to about 1e-8. Where
    the last direction between groups vanishes, which a solver cannot tell so well, the gradient at
    the best point without one tells. Where groups merge the decay is known exactly (docs/theory.md
    section 6), or with a class margin, found in the same way.

    Parameters
    ----------
    problem : Problem
        One layer, real features, wide enough; its decays are not used.
    lowest : float, optional
        Smallest decay looked at; by default a hundredth of the smallest threshold of the counts,
        ``sqrt(n_min) / N`` (or the least with class weights).
    points : int
        Points of the geometric grid; two changes in between that undo each other are missed.

    Returns
    -------
    tuple of RankChange
        From the largest decay down.

    Raises
    ------
    ValueError
        If the problem has no convex form, or an argument is out of range.
    """
    require_convex(problem, "rank_changes")
    points = whole_number("points", points, 2)
    partition = Partition.coarsest(problem)
    # Between these the classes of a group merge: without a margin both are where they do.
    least, most = (pull / partition.num_samples for pull in partition.pull_range)
    low = 0.01 * float(least.min()) if lowest is None else positive_float("lowest", lowest)
    top = thresholds(problem).total_collapse
    if low >= top:
        raise ValueError(f"lowest: got {low}, need less than {top}, where everything collapses")
    memory = Continuation()

    def at(decay: float) -> Problem:
        return problem.replace(weight_decay=decay, feature_decay=decay)

    def excesses(decay: float, continuation: Continuation, gap: float = RANK_GAP) -> Array:
        here = at(decay)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)
            solution = solve_along(here, gap, RANK_STEPS, 1, 0, continuation)
        return rank_excesses(here, solution.blocks, solution.group_bias)

    def excess(i: int, decay: float) -> float:
        if i == 0:  # none is left between groups on one side
            return unranked(at(decay), partition, None, RANK_GAP, RANK_STEPS)[1]
        gap = RANK_GAP if i < len(problem.groups) else MERGING_GAP
        return float(excesses(decay, Continuation(), gap)[i])

    # A little beyond the lowest, for a change that lies there.
    grid = np.geomspace(top, low * (1 - 10 * SAME_DECAY), points).tolist()
    found = [excesses(decay, memory) for decay in grid[1:]]
    exact = least == most
    steps: dict[float, int] = {}
    for decay, size in zip(least[exact].tolist(), partition.sizes[exact].tolist(), strict=True):
        if size > 1:
            steps[decay] = steps.get(decay, 0) + int(size) - 1
    sizes = np.concatenate([np.ones(len(least)), np.where(exact, 0, partition.sizes - 1)])
    above = np.full(len(sizes), -1.0)  # nothing is left at the top
    for high, decay, below in zip(grid, grid[1:], found, strict=False):
        for i in np.flatnonzero(((above > 0) != (below > 0)) & (sizes > 0)).tolist():
            place = _bisect(partial(excess, i), decay, high)
            # For MSE without bias a group's mean vanishes where its classes do.
            place = next((s for s in steps if math.isclose(s, place, rel_tol=SAME_DECAY)), place)
            steps[place] = steps.get(place, 0) + int(sizes[i]) * (1 if below[i] > 0 else -1)
        above = below
    changes, rank = [], 0
    for decay, step in sorted(steps.items(), reverse=True):
        if decay >= low * (1 - SAME_DECAY) and step:
            changes.append(RankChange(decay, rank, rank + step))
            rank += step
    return tuple(changes)


def rank_excesses(problem: Problem, blocks: BlockMatrix, bias: Array) -> Array:
    """Return ``sigma(X - t G) - t lambda`` at a minimiser, shape (2G,).

    First between the groups, largest first: as many are positive as the logits have rank there.
    Then what tells the siblings of each group apart: positive where they are not merged.
    """
    p = blocks.partition
    fit = problem.loss_object.datafit(p)
    residual = fit.residual(blocks.within, blocks.mean + bias[:, None])
    size = 1 / fit.smoothness
    step = size / p.num_samples
    between = singular_values(blocks.reduced - step * residual.reduced)
    within = np.sqrt(p.counts) * np.abs(blocks.within - step * residual.within)
    values: Array = np.concatenate([between, within])
    return values - size * problem.logit_decay


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Find the decay at which a function of it changes sign."""
    from scipy.optimize import brentq

    def value(log_decay: float) -> float:
        return function(math.exp(log_decay))

    ends = value(math.log(low)), value(math.log(high))
    if ends[0] * ends[1] >= 0:  # zero at one end but for rounding, such as total collapse itself
        return low if abs(ends[0]) < abs(ends[1]) else high
    return math.exp(brentq(value, math.log(low), math.log(high), xtol=RANK_ACCURACY))
