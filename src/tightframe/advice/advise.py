"""Advise: which classes merge or vanish, with what safety, and what keeps them apart.

Every number comes from a certified solve of the problem that a proposal would make: nothing is
extrapolated. What the theory leaves out is said in `LIMITS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.advice.prediction import GroupOutlook, Outlook, describe, outlook
from tightframe.advice.remedies import Remedy, earlier, remedies
from tightframe.changes import FEW_GROUPS, known_thresholds, state_changes
from tightframe.checks import choice, positive_float
from tightframe.geometry.blocks import Array, Partition
from tightframe.geometry.states import DISTINCT, MERGED, VANISHED
from tightframe.losses.registry import LOSSES
from tightframe.path import path
from tightframe.problem.class_names import listed
from tightframe.problem.counts import MAX_SAMPLES, format_runs
from tightframe.problem.problem import Problem
from tightframe.solve import solve
from tightframe.theory.coverage import coverage, has_compact_form, require_covered
from tightframe.theory.thresholds import MAX_FOLLOWED

LIMITS = (
    "Unconstrained feature model: a network that fits anything, trained to the end. What is wanted "
    "is a floor: classes that look alike may stay merged near a threshold. Where features decay "
    "only through the network's weights, feature_decay is an effective number: fit it to a trained "
    "network with tightframe.calibrate (--from-run)."
)

#: What stays the same when the number of samples changes.
FEATURE_DECAY_OF = ("sample", "mean")

#: Relative accuracy of the least or largest number that does.
ACCURACY = 1e-3

#: How close to a closed form a decay that was followed is taken for it.
SAME_DECAY = 1e-9

#: Points of the first look for a number that does, before the place is bisected.
LOOKS = 25

#: Factors of groups up to this many are lowered one by one, where the others allow it.
MAX_TRIMMED = 30

#: Points of the path on which classes of more than `FEW_GROUPS` groups are followed.
PATH_POINTS = 121

#: The largest multiple of the log-prior that is tried.
MAX_TEMPERATURE = 3.0

#: Decays are lowered to this share at most.
LEAST_DECAY = 1e-9

#: How much more data is looked at.
MORE_DATA = (2, 10)


@dataclass(frozen=True)
class Wanted:
    """What every class should keep.

    Attributes
    ----------
    margin : float or None
        Own minus largest other logit at the class mean.
    angle : float or None
        To every other classifier row, in degrees.
    """

    margin: float | None
    angle: float | None

    def met(self, found: Outlook) -> bool:
        """Tell whether an outlook has it, and all classes are distinct."""
        return (
            found.distinct
            and (self.margin is None or found.decision_margin >= self.margin)
            and (self.angle is None or found.angle >= self.angle)
        )

    def __str__(self) -> str:
        if self.margin is not None:
            return f"a decision margin of {self.margin:g}"
        return f"an angle of {self.angle:g} degrees"


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


@dataclass(frozen=True)
class Proposal:
    """One thing to change, and what certified solves say it does.

    Attributes
    ----------
    kind : {"decay", "oversampling", "class_weights", "logit_adjustment"}
        Of plain remedies ``"balanced_oversampling"`` and ``"balanced_weights"``.
    text : str
        What to do, in a sentence; or why it cannot be done.
    changes : dict
        The numbers of it, JSON-ready: arguments of `Problem` (``weight_decay``, ``feature_decay``,
        ``class_weights``, ``logit_adjustment``), or ``oversample``, factors for every class.
    problem : Problem or None
        The problem that it makes; None where nothing of the kind does.
    after : Outlook or None
        What that problem's certified minimiser predicts.
    """

    kind: str
    text: str
    changes: dict[str, Any]
    problem: Problem | None
    after: Outlook | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "kind": self.kind,
            "text": self.text,
            "changes": self.changes,
            "problem": None if self.problem is None else self.problem.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
        }


@dataclass(frozen=True)
class Advice:
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
        """What every remedy, as papers use it, does to merging and to margins: see `remedies`.

        Solved when it is first asked for.
        """
        return remedies(self.problem)

    @property
    def largest_decays(self) -> dict[str, float]:
        """The weight decay, and the feature decay, that alone give `largest_decay`."""
        return _as_decays(self.problem, self.largest_decay)

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
            return f"{verb}: taken for a class of {rival.count} samples"

        return [
            f"{describe(group)} {fate(group)} (safety factor {safety.factor:.3g})"
            for group, safety in zip(self.now.groups, self.safety, strict=True)
            if group.state != DISTINCT
        ] + earlier(self.problem, self.now.groups)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
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
        PyTorch's convention, of mean 1 over the samples), logit adjustment; each with what it
        leads to.

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
    >>> [proposal.problem is not None for proposal in advice.proposals]
    [True, False, True, False]
    >>> round(advice.proposals[0].changes["weight_decay"], 6)
    0.003856
    >>> advise(problem, feature_decay_of="mean").proposals[1].changes
    {'oversample': '1x5,4x5'}
    """
    wanted = _check(problem, margin, angle, feature_decay_of)
    search = _Search(problem, wanted, feature_decay_of, positive_float("tol", tol))
    safety, first = search.safety()
    kinds = [search.decay, search.oversampling]
    if problem.loss_object.takes_adjustment:
        kinds += [search.class_weights, search.logit_adjustment]
    proposals = () if wanted.met(search.now) else tuple(map(search.proposed, kinds))
    larger = [(times, search.repeated(np.full(len(problem.groups), times))) for times in MORE_DATA]
    more = tuple((times, search.look(made)) for times, made in larger if made is not None)
    return Advice(
        problem,
        wanted,
        feature_decay_of,
        search.now,
        safety,
        first,
        proposals,
        search.plain_remedies(),
        more,
    )


def _check(problem: Any, margin: Any, angle: Any, feature_decay_of: str) -> Wanted:
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
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


class _Search:
    """Looks for the least change of each kind that gives what is wanted."""

    def __init__(self, problem: Problem, wanted: Wanted, feature_decay_of: str, tol: float) -> None:
        self.problem, self.wanted, self.tol = problem, wanted, tol
        self.feature_decay_of = feature_decay_of
        self.partition = Partition.coarsest(problem)
        self.counts = np.array([group.count for group in problem.groups])
        self.thresholds = known_thresholds(problem)
        self.unproven = False  # whether a solve on the way had no certificate
        self.now = self.look(problem)
        if self.now.gap is None:
            raise ValueError(f"problem: {coverage(problem).reason}")

    def look(self, problem: Problem) -> Outlook:
        """Solve a problem and read the solution."""
        return outlook(solve(problem, self.tol).averaged())

    def met(self, problem: Problem | None) -> bool:
        if problem is None:
            return False
        found = self.look(problem)
        self.unproven |= found.gap is None
        return found.gap is not None and self.wanted.met(found)

    def with_counts(self, counts: NDArray[np.int64]) -> Problem | None:
        """Return the problem with other counts, one a group; its classes may be too many to list.

        The features' decay is as `feature_decay_of` says. None beyond `MAX_SAMPLES`.
        """
        if counts.astype(np.float64) @ self.partition.sizes > MAX_SAMPLES:
            return None
        changed = self.problem.replace(counts=format_runs(self.problem.runs_of(counts)))
        if self.feature_decay_of == "sample":
            return changed
        share = self.problem.num_samples / changed.num_samples
        return changed.replace(feature_decay=self.problem.feature_decay * share)

    def repeated(self, factors: Array | NDArray[np.int64]) -> Problem | None:
        """Return the problem with every sample repeated so many times, by group."""
        return self.with_counts(self.counts * factors.astype(np.int64))

    def at(self, logit_decay: float) -> Problem:
        """Return the problem with both decays changed alike, to another ``logit_decay``."""
        factor = logit_decay / self.problem.logit_decay
        return self.problem.replace(
            weight_decay=self.problem.weight_decays[0] * factor,
            feature_decay=self.problem.feature_decay * factor,
        )

    # -- how far collapse is -----------------------------------------------------------------------

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
            collapsed = [place for place in left if back <= place <= here]
            places.append(collapsed[-1] if collapsed else next(p for p in left if p > here))
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
            states = solve(self.at(middle), self.tol).group_states
            below, above = (below, middle) if states.state[group] == VANISHED else (middle, above)
        return float(below)

    @property
    def _n(self) -> int:
        return self.problem.num_samples

    # -- proposals ---------------------------------------------------------------------------------

    def proposed(self, propose: Callable[[], Proposal]) -> Proposal:
        """Return a proposal, or why there is none."""
        self.unproven = False
        made = propose()
        if made.problem is not None or not self.unproven:
            return made
        text = f"{made.text} Some solves on the way were not certified, and do not count."
        return replace(made, text=text)

    def decay(self) -> Proposal:
        """Lower the decays: the largest that do."""
        top = min(self.problem.logit_decay, self.thresholds.total_collapse)
        low = top
        while not self.met(self.at(low)):
            if low <= LEAST_DECAY * top:
                text = f"Smaller decays do not: even as they vanish there is not {self.wanted}."
                if any(group.state == VANISHED for group in self.look(self.at(low)).groups):
                    text = "Smaller decays do not: even as they vanish a class mean is zero."
                return Proposal("decay", text, {}, None, None)
            low /= 4
        decay = math.exp(self._bisect(math.log(low), math.log(4 * low), self.at_log))
        changes = _as_decays(self.problem, decay)
        text = (
            f"Lower weight_decay to {changes['weight_decay']:.4g} or feature_decay to "
            f"{changes['feature_decay']:.4g} (square root of the product: {decay:.4g})."
        )
        changed = self.problem.replace(weight_decay=changes["weight_decay"])
        return self._proposal("decay", text, changes, changed)

    def at_log(self, log_decay: float) -> Problem:
        return self.at(math.exp(log_decay))

    def oversampling(self) -> Proposal:
        """Repeat the samples of small classes: the least factors that do."""
        counts = self.partition.samples
        level = self._least(
            math.log(counts.min()), math.log(counts.max()), lambda x: self.repeated(self._up_to(x))
        )
        if level is None:
            text = (
                "Oversampling does not: even with all classes repeated up to the largest count "
                f"there is not {self.wanted}. Copies add to N, which all classes pay for."
            )
            return Proposal("oversampling", text, {}, None, None)
        factors = self._trimmed(self._up_to(level))
        changes = {"oversample": format_runs(self.problem.runs_of(factors.astype(np.int64)))}
        text = f"Repeat the samples of every class so many times: {changes['oversample']}."
        changed = self.repeated(factors)
        assert changed is not None  # it was looked at
        return self._proposal("oversampling", text, changes, changed)

    def _up_to(self, level: float) -> Array:
        # A hair below the level counts as there: exponentials round.
        reach = math.exp(level) * (1 - 1e-9)
        return np.maximum(1.0, np.ceil(reach / self.partition.samples))

    def _trimmed(self, factors: Array) -> Array:
        """Lower single factors as far as the others allow."""
        if len(factors) > MAX_TRIMMED:
            return factors
        for i in np.argsort(-factors, kind="stable"):
            low, high = 0, int(factors[i])  # high does
            while high - low > 1:
                middle = (low + high) // 2
                factors[i] = middle
                low, high = (low, middle) if self.met(self.repeated(factors)) else (middle, high)
            factors[i] = high
        return factors

    def class_weights(self) -> Proposal:
        """Weigh the loss of small classes: the least uneven weights that do."""
        pull = self.partition.pull
        top = pull.max() * math.sqrt(self.counts.max() / self.counts.min())
        level = self._least(math.log(pull.min()), math.log(top), self._weighted)
        if level is None:
            text = f"Class weights do not: no weights up to N / (K n_k) give {self.wanted}."
            return Proposal("class_weights", text, {}, None, None)
        changed = self._weighted(level)
        changes = {"class_weights": changed.to_dict()["class_weights"]}
        groups = zip(changed.groups, changed.group_weights, strict=True)
        listed = ", ".join(f"{weight:.4g} (n = {group.count})" for group, weight in groups)
        if len(changed.groups) > 8:
            least, most = changed.group_weights.min(), changed.group_weights.max()
            listed = f"factors from {least:.4g} to {most:.4g}"
        text = f"Weigh the loss of the classes by {listed}, of mean 1 over the samples."
        return self._proposal("class_weights", text, changes, changed)

    def _weighted(self, level: float) -> Problem:
        """Raise every class's pull to a level, then scale the weights to the sum they had."""
        p, own = self.partition, self.problem.group_weights
        weights = own * np.maximum(1.0, math.exp(level) / p.pull)
        shares = p.samples * p.sizes / self._n
        weights *= (shares @ own) / (shares @ weights)
        return self.problem.replace(class_weights=self.problem.runs_of(weights))

    def logit_adjustment(self) -> Proposal:
        """Adjust the logits in the loss by a multiple of the log-prior: the least that does."""
        kind = "logit_adjustment"
        if self.problem.bias == "free":
            text = "Logit adjustment does nothing here: a free bias takes it up."
            return Proposal(kind, text, {}, None, None)
        if self.problem.features == "nonnegative":
            # There it moves the decays at which classes vanish, and takes a search for each solve.
            if len(self.problem.groups) > MAX_FOLLOWED:
                text = f"Logit adjustment of ReLU features is tried up to {MAX_FOLLOWED} groups."
                return Proposal(kind, text, {}, None, None)
        elif any(group.sibling_margin == 0 or group.state == VANISHED for group in self.now.groups):
            text = "Logit adjustment does not move the thresholds at which classes merge or vanish."
            return Proposal(kind, text, {}, None, None)
        if self.counts.min() == self.counts.max():
            return Proposal(kind, "Logit adjustment has no prior to correct.", {}, None, None)
        factor = self._least(0.0, MAX_TEMPERATURE, self._adjusted)
        if factor is None:
            text = f"Logit adjustment does not, up to {MAX_TEMPERATURE:g} times the log-prior."
            return Proposal(kind, text, {}, None, None)
        text = f"Add {factor:.4g} log(n_k / N) to the logits in the loss only."
        changes = {"logit_adjustment": f"{factor!r}*prior"}
        return self._proposal(kind, text, changes, self._adjusted(factor))

    def _adjusted(self, factor: float) -> Problem:
        prior = np.log(self.counts / self._n)
        adjustment = self.problem.group_adjustment + factor * prior
        return self.problem.replace(logit_adjustment=self.problem.runs_of(adjustment))

    def plain_remedies(self) -> tuple[Proposal, ...]:
        """Look at what is done unasked: full balance, by repeats or by weights."""
        if self.counts.min() == self.counts.max():
            return ()
        repeated = self.with_counts(np.full_like(self.counts, self.counts.max()))
        found = []
        if repeated is not None:
            text, changes = (
                "All classes oversampled to the largest count.",
                {"oversample": "balance"},
            )
            found.append(self._proposal("balanced_oversampling", text, changes, repeated))
        if self.problem.loss_object.takes_adjustment:
            text = "Balanced class weights, N / (K n_k)."
            weighted = self.problem.replace(class_weights="balanced")
            changes = {"class_weights": "balanced"}
            found.append(self._proposal("balanced_weights", text, changes, weighted))
        return tuple(found)

    def _proposal(
        self, kind: str, text: str, changes: dict[str, Any], changed: Problem
    ) -> Proposal:
        return Proposal(kind, text, changes, changed, self.look(changed))

    # -- searches ----------------------------------------------------------------------------------

    def _least(
        self, low: float, high: float, make: Callable[[float], Problem | None]
    ) -> float | None:
        """Return the least x from low to high whose problem does; None if none of them does."""
        before = low
        for x in np.linspace(low, high, LOOKS)[1:].tolist():
            if self.met(make(x)):
                return self._bisect(x, before, make)
            before = x
        return None

    def _bisect(self, good: float, bad: float, make: Callable[[float], Problem | None]) -> float:
        """Narrow down the place between a number that does and one that does not."""
        while abs(good - bad) > ACCURACY:
            middle = (good + bad) / 2
            good, bad = (middle, bad) if self.met(make(middle)) else (good, middle)
        return good


def _crossing(decays: Array, margins: Array) -> float:
    """Return where margins along decays are no longer positive, interpolated."""
    lost = np.flatnonzero(margins <= 0)
    first = int(lost[0]) if len(lost) else len(margins) - 1
    if first == 0:
        return float(decays[0])
    above, below = margins[first - 1], min(margins[first], 0.0)
    share = above / (above - below) if above > below else 1.0
    return float(decays[first - 1] * (decays[first] / decays[first - 1]) ** share)


def _as_decays(problem: Problem, logit_decay: float) -> dict[str, float]:
    """Return the weight decay, or the feature decay, that alone give a ``logit_decay``."""
    square = logit_decay**2
    return {
        "weight_decay": square / problem.feature_decay,
        "feature_decay": square / problem.weight_decays[0],
    }
