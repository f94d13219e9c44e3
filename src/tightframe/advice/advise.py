"""Advise: which classes merge or vanish, with what safety, and what keeps them apart.

Every number comes from a certified solve of the problem that a proposal would make: nothing is
extrapolated. What the theory leaves out is said in `LIMITS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.advice.prediction import GroupOutlook, Outlook, describe
from tightframe.advice.proposals import FEATURE_DECAY_OF, Proposal, Search, Wanted, as_decays
from tightframe.advice.remedies import Remedy, earlier, remedies
from tightframe.advice.safety import Follower, Safety
from tightframe.checks import choice, number_of, positive_float
from tightframe.geometry.states import DISTINCT, MERGED, VANISHED
from tightframe.losses.registry import LOSSES
from tightframe.problem.class_names import listed
from tightframe.problem.problem import Problem
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame, plot
from tightframe.theory.coverage import has_compact_form, require_covered

if TYPE_CHECKING:
    import pandas as pd

LIMITS = (
    "Unconstrained feature model: a network that fits anything, trained to the end. What is wanted "
    "is a floor: classes that look alike may stay merged near a threshold. Where features decay "
    "only through the network's weights, feature_decay is an effective number: fit it to a trained "
    "network with tightframe.calibrate (--from-run)."
)

#: How much more data is looked at.
MORE_DATA = (2, 10)


@dataclass(frozen=True)
class Advice(Shown, Saved):
    """What `advise` found.

    Attributes
    ----------
    problem : Problem
    wanted : Wanted
    feature_decay_of : str
    now : Outlook
        Of the problem as it is.
    safety : tuple of Safety
        One a group.
    largest_decay : float
        The ``sqrt(weight_decay feature_decay)`` below which all classes are distinct; 0 where they
        were at no decay.
    proposals : tuple of Proposal
        The least change of each kind; none where all classes have what is wanted.
    plain_remedies : tuple of Proposal
        For comparison: oversampling to balance and balanced class weights, whatever they lead to;
        none where the counts are equal.
    more_data : tuple of (int, Outlook)
        What the problem with so many times the samples predicts.
    limits : str
        What the theory leaves out.
    """

    problem: Problem
    wanted: Wanted
    feature_decay_of: str
    now: Outlook
    safety: tuple[Safety, ...]
    largest_decay: float
    proposals: tuple[Proposal, ...]
    plain_remedies: tuple[Proposal, ...]
    more_data: tuple[tuple[int, Outlook], ...]
    limits: str = LIMITS

    @property
    def met(self) -> bool:
        """Whether the problem as it is has what is wanted."""
        return self.wanted.met(self.now)

    @cached_property
    def remedies(self) -> tuple[Remedy, ...]:
        """What every remedy, as papers use it, does to merging and to margins.

        One entry each, put in place of the problem's own; see
        `tightframe.advice.remedies.remedies`. Solved when it is first asked for.
        """
        return remedies(self.problem)

    @property
    def largest_decays(self) -> dict[str, float]:
        """The weight decay, and the feature decay, that alone give `largest_decay`."""
        return as_decays(self.problem, self.largest_decay)

    @property
    def warnings(self) -> list[str]:
        """Which groups are not distinct, and what lets some merge earlier, a sentence each."""
        groups = self.now.groups

        def fate(group: GroupOutlook) -> str:
            alone = group.classes == 1
            if group.state == VANISHED:
                whose = "vanishes: its class mean is" if alone else "vanish: their class means are"
                return f"{whose} zero"
            if group.state == MERGED:
                return "merge: they share one prediction"
            assert group.rival is not None  # a lost class has a taker
            verb = "is lost" if alone else "are lost"
            rival = groups[group.rival]
            if len(rival.names) == 1:
                return f"{verb}: taken for {listed(rival.names)}"
            return f"{verb}: taken for a class of {number_of(rival.count, 'sample')}"

        return [
            f"{describe(group)} {fate(group)} (safety factor {safety.factor:.3g})"
            for group, safety in zip(self.now.groups, self.safety, strict=True)
            if group.state != DISTINCT
        ] + earlier(self.problem, self.now.groups)

    def __repr__(self) -> str:
        met = "all have" if self.met else "not all have"
        states: Counter[str] = Counter()
        for group in self.now.groups:
            states[group.state] += group.classes
        found = ", ".join(f"{number} {state}" for state, number in states.items())
        changes = [proposal.kind for proposal in self.proposals if proposal.after is not None]
        return (
            f"Advice({self.problem.num_classes} classes ({found}), {met} {self.wanted} or more"
            f"{f', change {changes}' if changes else ''})"
        )

    def _blocks(self) -> Iterator[Block]:
        from tightframe.advice.blocks import MAX_ROWS, advice_blocks

        # Of many groups they take minutes, for which nobody asked.
        compared = "remedies" in vars(self) or len(self.problem.groups) <= MAX_ROWS
        yield from advice_blocks(self, compared=compared)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a proposal, the problem as it is first, see `tightframe.shown.frame`."""
        from tightframe.advice.blocks import advice_rows

        return frame(advice_rows(self))

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the smallest decision margin now and after each change.

        See `tightframe.shown.plot`.
        """
        from tightframe.advice.blocks import advice_chart

        return plot(advice_chart(self), ax)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready; `remedies` are ``compared_remedies`` there."""
        return {
            "problem": self.problem.to_dict(),
            "wanted": asdict(self.wanted),
            "met": self.met,
            "feature_decay_of": self.feature_decay_of,
            "warnings": self.warnings,
            "now": self.now.to_dict(),
            "safety": [asdict(safety) for safety in self.safety],
            "largest_decay": {"logit_decay": self.largest_decay} | self.largest_decays,
            "proposals": [proposal.to_dict() for proposal in self.proposals],
            "plain_remedies": [proposal.to_dict() for proposal in self.plain_remedies],
            "compared_remedies": [remedy.to_dict() for remedy in self.remedies],
            "more_data": [{"times": times} | found.to_dict() for times, found in self.more_data],
            "limits": self.limits,
        }


def advise(
    problem: Problem,
    *,
    margin: float | None = None,
    angle: float | None = None,
    feature_decay_of: str = "sample",
    tol: float = 1e-8,
) -> Advice:
    """Tell which classes collapse, how far that is, and what keeps them apart.

    Parameters
    ----------
    problem : Problem
        One linear layer. Non-negative features with a bias or a logit adjustment: of up to 100
        groups of equal classes; a few take seconds to half a minute, many minutes.
    margin : float, optional
        Wanted of every class: own minus largest other logit at its mean. If neither this nor
        ``angle`` is given, 1 nat for cross-entropy, and 0.5 for MSE, where it cannot reach 1.
    angle : float, optional
        Wanted instead: the angle of every classifier row to all others, in degrees, below 90.
    feature_decay_of : {"sample", "mean"}
        What stays when the number of samples changes. ``"sample"``: every sample, copies included,
        adds ``(feature_decay / 2) ||h||^2``, as in `Problem`. ``"mean"``: training averages
        ``||h||^2`` over its batches (or decays features through the network's weights), so that
        ``N feature_decay`` stays.
    tol : float
        Certified relative gap of every solve.

    Returns
    -------
    Advice
        A proposal of each kind: a smaller decay, whole-number oversampling, class weights (in
        PyTorch's convention, of mean 1 over the samples), logit adjustment, and where theory has
        them (`Problem`) less label smoothing, margins, scales of the logits and weights of the
        features; each with what it leads to, in merging and in margins. What lets classes merge
        earlier is no proposal.

    Raises
    ------
    ValueError
        If nothing certifies the problem, or an argument is out of range.

    Examples
    --------
    >>> problem = Problem("500x5,100x5", weight_decay=1e-2, feature_decay=2e-3)
    >>> advice = advise(problem)
    >>> advice.warnings
    ['5 classes of 100 samples merge: they share one prediction (safety factor 0.745)']
    >>> [proposal.kind for proposal in advice.proposals if proposal.problem is not None]
    ['decay', 'class_weights', 'feature_weights']
    >>> round(advice.proposals[0].changes["weight_decay"], 6)
    0.003856
    >>> advise(problem, feature_decay_of="mean").proposals[1].changes
    {'oversample': '1x5,4x5'}
    """
    wanted = _check(problem, margin, angle, feature_decay_of)
    tol = positive_float("tol", tol)
    follower = Follower(problem, tol)
    search = Search(problem, wanted, feature_decay_of, follower.thresholds, tol)
    safety, first = follower.safety()
    larger = [(times, search.repeated(np.full(len(problem.groups), times))) for times in MORE_DATA]
    more = tuple((times, search.look(made)) for times, made in larger if made is not None)
    return Advice(
        problem,
        wanted,
        feature_decay_of,
        search.now,
        safety,
        first,
        () if wanted.met(search.now) else search.proposals(),
        search.plain_remedies(),
        more,
    )


def _check(problem: Any, margin: Any, angle: Any, feature_decay_of: str) -> Wanted:
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    if problem.targets is not None:
        raise ValueError(
            "targets: proposals need one class a context; tightframe.advise(problem) says what "
            "theory has of label distributions"
        )
    if not (has_compact_form(problem) or _is_wide_in_the_orthant(problem)):
        raise ValueError(
            "problem: advice needs certified solves: one linear layer and a dim that is wide "
            f"enough, got depth {problem.depth} and dim {problem.dim}"
        )
    if problem.features == "real":
        require_covered(problem)
    return wanted_of(problem.loss, margin, angle, feature_decay_of)


def _is_wide_in_the_orthant(problem: Problem) -> bool:
    """Tell whether features are non-negative, with an axis for every class."""
    wide = problem.width is None or problem.width >= problem.num_classes
    return problem.features == "nonnegative" and problem.depth == 1 and wide


def wanted_of(loss: str, margin: Any, angle: Any, feature_decay_of: str) -> Wanted:
    """Return what is wanted of every class, checked; see `advise`.

    Raises
    ------
    ValueError
        If both are given, one is out of range, or an option or the loss is unknown.
    """
    if margin is not None and angle is not None:
        raise ValueError("margin, angle: got both, give one of them")
    choice("feature_decay_of", feature_decay_of, FEATURE_DECAY_OF)
    if angle is None:
        own = LOSSES[choice("loss", loss, LOSSES)]
        wanted = positive_float("margin", own.default_margin if margin is None else margin)
        if own.margin_limit is not None and wanted >= own.margin_limit:
            raise ValueError(
                f"margin: got {wanted:g}, {own.title} needs less than {own.margin_limit:g}"
            )
        return Wanted(wanted, None)
    degrees = positive_float("angle", angle)
    if degrees >= 90:
        raise ValueError(f"angle: got {degrees:g}, need less than 90 degrees")
    return Wanted(None, degrees)
