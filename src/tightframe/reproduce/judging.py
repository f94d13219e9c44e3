"""The vocabulary of verdicts: what a criterion rests on, and one rule for runs that failed.

A failed run is no evidence. A part of a criterion whose evidence includes one is undecided, unless
the runs that ended refute it by themselves; so `verdict` takes a `Decision`, which names its
evidence, and not a truth value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tightframe.problem.problem import at_most
from tightframe.reproduce.results import Array, Evidence, Run, runs_of
from tightframe.reproduce.spec import (
    NOT_AT_THIS_SCALE,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Verdict,
)

Key = TypeVar("Key")

#: So many reasons for failures are told.
_REASONS = 3


@dataclass(frozen=True)
class Decision:
    """Whether a part of a criterion holds; ``a & b`` is the decision on both parts.

    Attributes
    ----------
    holds : bool or None
        By the runs that ended; None: they cannot decide it at this scale.
    refuted : bool
        Whether no outcome of the failed runs could make it hold.
    runs : tuple of Run
        The evidence, failed ones too.
    unclear : bool
        Whether runs that ended leave it open by their scatter, not by the scale.
    """

    holds: bool | None
    refuted: bool
    runs: tuple[Run, ...]
    unclear: bool = False

    def __and__(self, other: Decision) -> Decision:
        parts = (self.holds, other.holds)
        holds = False if False in parts else None if None in parts else True
        runs = dict.fromkeys((*self.runs, *other.runs))
        return Decision(
            holds,
            self.refuted or other.refuted,
            tuple(runs),
            unclear=self.unclear or other.unclear,
        )

    @property
    def failed(self) -> tuple[Run, ...]:
        """The evidence that is missing."""
        return tuple(run for run in self.runs if run.failed)

    @property
    def outcome(self) -> str:
        """The outcome of a verdict on it."""
        if self.failed and not self.refuted:
            return UNDECIDED
        if self.holds is None:
            return UNDECIDED if self.unclear else NOT_AT_THIS_SCALE
        return REPRODUCED if self.holds else NOT_REPRODUCED

    def explained(self, sentence: str) -> str:
        """Return a finding with the runs that it lacks, if that leaves it undecided."""
        failed = self.failed
        if not failed or self.outcome != UNDECIDED:
            return sentence
        why = list(dict.fromkeys(f"{run.task.name}: {run.reason}" for run in failed))
        text = f"{len(failed)} of {len(self.runs)} runs failed ({'; '.join(why[:_REASONS])}"
        text += f"; and {len(why) - _REASONS} more)." if len(why) > _REASONS else ")."
        # A number that no run is left for says nothing.
        known = len(failed) < len(self.runs) and re.search(r"\bnan\b", sentence) is None
        return f"{sentence} Undecided: {text}" if known else f"Undecided: {text}"


def decided(
    evidence: Evidence,
    holds: bool | None,
    *,
    refuted: bool | None = None,
    unclear: bool = False,
) -> Decision:
    """Decide a part of a criterion by its evidence.

    Parameters
    ----------
    evidence : Results or iterable of Run
        All runs that the part rests on, failed ones too; empty for what is computed on the spot.
    holds : bool or None
        What the runs that ended say; None: nothing, at this scale.
    refuted : bool, optional
        Whether they refute it whatever failed runs would have given. Default: whether it does not
        hold, which is right for what every run has to fulfil, but not for means and for the best
        of several runs.
    unclear : bool
        Whether the runs that ended scatter too much to say, which is undecided; ``holds`` then
        counts for nothing.
    """
    runs = runs_of(evidence)
    holds = None if holds is None or unclear else bool(holds)
    failed = sum(run.failed for run in runs)
    if refuted is None or not failed:
        refuted = holds is False
    return Decision(holds, refuted and not (failed and failed == len(runs)), runs, unclear)


def verdict(
    decision: Decision,
    *,
    criterion: str,
    claimed: str,
    predicted: float | str | None,
    measured: float | str | None,
    tolerance: float | str | None,
    sentence: str,
) -> Verdict:
    """Make a `Verdict` whose outcome follows from a decision; numbers of failed runs alone go."""
    if isinstance(measured, str) and decision.runs and len(decision.failed) == len(decision.runs):
        measured = None
    return Verdict(
        criterion,
        claimed,
        predicted,
        measured,
        tolerance,
        decision.outcome,
        decision.explained(sentence),
    )


def below(
    measured: float,
    limit: float,
    evidence: Evidence,
    *,
    decidable: bool = True,
    predicted: float | None = 0.0,
    **texts: str,
) -> Verdict:
    """Judge whether a number that every run may only raise stays below a limit.

    Parameters
    ----------
    measured : float
        Of the runs that ended; NaN is not below.
    limit : float
        The verdict's tolerance.
    evidence : Results or iterable of Run
    decidable : bool
        False: not at this scale.
    predicted : float or None
    **texts
        ``criterion``, ``claimed`` and ``sentence`` of the `Verdict`.
    """
    return verdict(
        decided(evidence, measured < limit if decidable else None),
        predicted=predicted,
        measured=measured,
        tolerance=limit,
        **texts,
    )


# -- numbers of runs -------------------------------------------------------------------------------


def largest(runs: Evidence, measure: Callable[[Run], Any]) -> float:
    """Return the largest measure of the runs that ended; NaN if one is NaN or there is none."""
    return _extreme(np.max, runs, measure)


def least(runs: Evidence, measure: Callable[[Run], Any]) -> float:
    """Return the least measure of the runs that ended; NaN if one is NaN or there is none."""
    return _extreme(np.min, runs, measure)


def largest_each(runs: Evidence, measure: Callable[[Run], Sequence[float] | Array]) -> list[float]:
    """Return the largest of every entry of a measure, over the runs that ended; NaN as above."""
    values = [measure(run) for run in runs_of(runs) if not run.failed]
    return [float(np.max(column)) for column in zip(*values, strict=True)]


def _extreme(function: Callable[..., Any], runs: Evidence, measure: Callable[[Run], Any]) -> float:
    values = [np.ravel(measure(run)) for run in runs_of(runs) if not run.failed]
    flat = np.concatenate(values) if values else np.empty(0)
    return float(function(flat.astype(np.float64))) if len(flat) else math.nan


def sorted_by(runs: Iterable[Run], key: Callable[[Run], Key]) -> dict[Key, list[Run]]:
    """Return runs by a key, in its order."""
    found: dict[Key, list[Run]] = {}
    for run in sorted(runs, key=key):  # type: ignore[arg-type]
        found.setdefault(key(run), []).append(run)
    return found


def mean_by(
    runs: Evidence, key: Callable[[Run], Key], measure: Callable[[Run], Any]
) -> dict[Key, Any]:
    """Return the mean measure of the runs that ended, by a key and in its order."""
    done = (run for run in runs_of(runs) if not run.failed)
    return {
        value: np.mean([measure(run) for run in own], axis=0)
        for value, own in sorted_by(done, key).items()
    }


def best_by(runs: Evidence, key: Callable[[Run], Key]) -> dict[Key, Run]:
    """Return the run with the least objective of those that ended, by a key and in its order.

    For claims about global minimisers: descent from one start may end in a local minimum.
    """
    done = (run for run in runs_of(runs) if not run.failed)
    return {
        value: min(own, key=lambda run: run.objective)
        for value, own in sorted_by(done, key).items()
    }


def first_by(runs: Iterable[Run], key: Callable[[Run], Any]) -> list[Run]:
    """Return the first run of every value of a key, in the order of the runs."""
    found: dict[Any, Run] = {}
    for run in runs:
        found.setdefault(key(run), run)
    return list(found.values())


def certified(runs: Evidence) -> bool:
    """Return whether all that ended are certified minimisers."""
    return all(run.status == "optimal" for run in runs_of(runs) if not run.failed)


def relative_gap(run: Run) -> float:
    """Return the certified gap of a minimiser over its objective."""
    return run.measured("gap") / run.objective


def stopped(runs: Evidence) -> int:
    """Return how many runs used up their iterations."""
    return sum(run.status == "stopped" for run in runs_of(runs))


def unless_early(runs: Evidence, holds: bool, scale: str) -> bool | None:
    """Return None for a smoke run that fails a criterion because it was stopped early."""
    return None if scale == "smoke" and stopped(runs) and not holds else holds


def at_minimum(run: Run) -> bool:
    """Return whether a run ended within 1e-4 of the predicted minimum, relatively."""
    return run.excess < 1e-4


def number(value: float) -> str:
    """Return a number for a sentence."""
    return f"{value:.2g}"


def rises(values: Iterable[float]) -> bool:
    """Return whether values rise at every step."""
    return bool((np.diff([float(value) for value in values]) > 0).all())


# -- thresholds ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Switch:
    """Where on a grid something collapses for good, measured against a threshold.

    Attributes
    ----------
    values : tuple of float
        The grid, rising.
    found : int
        The first grid point from which on all have collapsed; their number if none is.
    expected : int
        The first grid point at or beyond the threshold.
    possible : tuple of int
        What ``found`` could be, whatever the points without a run would have given.
    """

    values: tuple[float, ...]
    found: int
    expected: int
    possible: tuple[int, ...]

    @classmethod
    def of(
        cls, values: Sequence[float], collapsed: Sequence[bool | None], threshold: float
    ) -> Switch:
        """Compare a grid with a threshold, at which things have collapsed already.

        Parameters
        ----------
        values : sequence of float
            Rising.
        collapsed : sequence of bool or None
            None: no run tells.
        threshold : float
        """
        left = [i + 1 for i, is_collapsed in enumerate(collapsed) if is_collapsed is False]
        found = max(left, default=0)
        unknown = [i + 1 for i, is_collapsed in enumerate(collapsed) if is_collapsed is None]
        possible = (found, *(i for i in unknown if i > found))
        expected = sum(not at_most(threshold, value) for value in values)
        return cls(tuple(values), found, expected, possible)

    @property
    def steps(self) -> int:
        """By how many grid points it is off; positive: late."""
        return self.found - self.expected

    @property
    def covered(self) -> bool:
        """Whether the grid has points on both sides of the threshold."""
        return 0 < self.expected < len(self.values)

    @property
    def holds(self) -> bool:
        """Whether it is within one grid step of the threshold."""
        return self.covered and abs(self.steps) <= 1

    @property
    def refuted(self) -> bool:
        """Whether it is not, whatever the points without a run would have given."""
        near = any(abs(found - self.expected) <= 1 for found in self.possible)
        return not (self.covered and near)

    def interval(self, index: int, spec: str = "g", between: str = "between {} and {}") -> str:
        """Say where on the grid a point is."""
        values = self.values
        if index == 0:
            return f"from {values[0]:{spec}} on" if values else "nowhere"
        if index == len(values):
            return f"nowhere up to {values[-1]:{spec}}"
        return between.format(f"{values[index - 1]:{spec}}", f"{values[index]:{spec}}")


def intervals(switches: Mapping[str, Switch]) -> tuple[str, str]:
    """Return where on the grid switches are expected and where they were found, by their names."""

    def places(attribute: str) -> str:
        return "; ".join(
            f"{name}: {one.interval(getattr(one, attribute), '.3g', '{} to {}')}"
            for name, one in switches.items()
        )

    return places("expected"), places("found")


def switch(
    runs: Evidence,
    threshold: float,
    at: Callable[[Run], float],
    is_collapsed: Callable[[Sequence[Run]], bool],
) -> Switch:
    """Compare where runs collapse for good with a threshold.

    Parameters
    ----------
    runs : Results or iterable of Run
    threshold : float
    at : callable
        Place of a run on the grid; failed runs have one, too.
    is_collapsed : callable
        Whether the runs of a place have collapsed; at a place with a failed one nothing tells,
        unless the others have not.
    """
    values, states = [], []
    for value, own in sorted_by(runs_of(runs), at).items():
        done = [run for run in own if not run.failed]
        state: bool | None = is_collapsed(done) if done else None
        if state and len(done) < len(own):
            state = None
        values.append(value)
        states.append(state)
    return Switch.of(values, states, threshold)


def best_switch(
    runs: Evidence,
    threshold: float,
    at: Callable[[Run], float],
    is_collapsed: Callable[[Run], bool],
) -> Switch:
    """Compare where the best run collapses for good with a threshold.

    As `switch`; where a run failed nothing tells, because it may have been the best.
    """
    best = best_by(runs, at)
    unknown = {at(run) for run in runs_of(runs) if run.failed}
    values = sorted({*best, *unknown})
    states = [None if value in unknown else is_collapsed(best[value]) for value in values]
    return Switch.of(values, states, threshold)
