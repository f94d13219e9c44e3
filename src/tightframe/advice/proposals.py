"""Proposals: of each kind of change the least that gives every class what is wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.advice.prediction import Outlook, outlook
from tightframe.advice.remedies import (
    BALANCED,
    ROUNDING,
    SCALE_POWER,
    Places,
    by_group,
    margins_of,
    merging,
    moved,
    scales_of,
    takes_terms,
    with_terms,
)
from tightframe.advice.safety import at
from tightframe.geometry.blocks import Array, Partition
from tightframe.geometry.states import VANISHED
from tightframe.problem.counts import MAX_SAMPLES, format_runs
from tightframe.problem.problem import Problem
from tightframe.saved import kept
from tightframe.shown import record
from tightframe.solve import solve
from tightframe.theory.coverage import coverage
from tightframe.theory.thresholds import MAX_FOLLOWED, Thresholds

#: What stays the same when the number of samples changes.
FEATURE_DECAY_OF = ("sample", "mean")

#: Relative accuracy of the least or largest number that does.
ACCURACY = 1e-3

#: Points of the first look for a number that does, before the place is bisected.
LOOKS = 25

#: The same for terms of the loss, of which four are looked for.
LOOKS_AT_TERMS = 5

#: The largest margin that is tried, in nats; and the largest power of the counts, with which
#: classes of all counts merge at one decay.
MAX_MARGIN = 5.0
MAX_POWER = 0.5

#: Factors of groups up to this many are lowered one by one, where the others allow it.
MAX_TRIMMED = 30

#: The largest multiple of the log-prior that is tried.
MAX_TEMPERATURE = 3.0

#: Decays are lowered to this share at most.
LEAST_DECAY = 1e-9


@kept
@record
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


@kept
@record
@dataclass(frozen=True)
class Proposal:
    """One thing to change, and what certified solves say it does.

    Attributes
    ----------
    kind : {"decay", "oversampling", "class_weights", "logit_adjustment", "label_smoothing", \
"class_margins", "logit_scale", "feature_weights"}
        Of plain remedies ``"balanced_oversampling"`` and ``"balanced_weights"``.
    text : str
        What to do, in a sentence, and where classes merge then; or why it cannot be done.
    changes : dict
        The numbers of it, JSON-ready: arguments of `Problem` (``weight_decay``, ``feature_decay``,
        or the one that it is called by), or ``oversample``, factors for every class.
    problem : Problem or None
        The problem that it makes; None where nothing of the kind does.
    after : Outlook or None
        What that problem's certified minimiser predicts.
    merges, factors : tuple of float or None
        Where the classes of each group merge then, and that over where they merge now: as in
        `tightframe.advice.remedies.Remedy`. Empty where there is no such problem.
    """

    kind: str
    text: str
    changes: dict[str, Any]
    problem: Problem | None = None
    after: Outlook | None = None
    merges: Places = ()
    factors: Places = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "kind": self.kind,
            "text": self.text,
            "changes": self.changes,
            "problem": None if self.problem is None else self.problem.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
            "merges": list(self.merges),
            "factors": list(self.factors),
        }


class Search:
    """Looks for the least change of each kind that gives what is wanted."""

    def __init__(
        self,
        problem: Problem,
        wanted: Wanted,
        feature_decay_of: str,
        thresholds: Thresholds,
        tol: float,
    ) -> None:
        self.problem, self.wanted, self.tol = problem, wanted, tol
        self.feature_decay_of = feature_decay_of
        self.partition = Partition.coarsest(problem)
        self.counts = np.array([group.count for group in problem.groups])
        self.thresholds = thresholds
        self.unproven = False  # whether a solve on the way had no certificate
        self.now = self.look(problem)
        if self.now.gap is None:
            raise ValueError(f"problem: {coverage(problem).reason}")

    def look(self, problem: Problem) -> Outlook:
        """Solve a problem and read the solution."""
        return outlook(solve(problem, self.tol).averaged())

    def met(self, problem: Problem | None) -> bool:
        """Tell whether a problem has what is wanted, by a certified solve."""
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

    # -- proposals ---------------------------------------------------------------------------------

    def proposals(self) -> tuple[Proposal, ...]:
        """Return a proposal of each kind that theory has for the problem."""
        kinds = [self.decay, self.oversampling]
        if self.problem.loss_object.takes_adjustment:
            kinds += [self.class_weights, self.logit_adjustment]
        if takes_terms(self.problem):
            kinds += [self.label_smoothing, self.class_margins, self.logit_scale]
            kinds += [self.feature_weights]
        return tuple(map(self.proposed, kinds))

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
        while not self.met(at(self.problem, low)):
            if low <= LEAST_DECAY * top:
                text = f"Smaller decays do not: {self.wanted} is out of reach even as they vanish."
                if any(
                    group.state == VANISHED for group in self.look(at(self.problem, low)).groups
                ):
                    text = "Smaller decays do not: even as they vanish a class mean is zero."
                return Proposal("decay", text, {})
            low /= 4
        decay = math.exp(self._bisect(math.log(low), math.log(4 * low), self._at_log))
        changes = as_decays(self.problem, decay)
        text = (
            f"Lower weight_decay to {changes['weight_decay']:.4g} or feature_decay to "
            f"{changes['feature_decay']:.4g} (square root of the product: {decay:.4g})."
        )
        changed = self.problem.replace(weight_decay=changes["weight_decay"])
        return self._proposal("decay", text, changes, changed)

    def _at_log(self, log_decay: float) -> Problem:
        return at(self.problem, math.exp(log_decay))

    def oversampling(self) -> Proposal:
        """Repeat the samples of small classes: the least factors that do."""
        counts = self.partition.samples
        level = self._least(
            math.log(counts.min()), math.log(counts.max()), lambda x: self.repeated(self._up_to(x))
        )
        if level is None:
            text = (
                "Oversampling does not: with all classes repeated up to the largest count "
                f"{self.wanted} is still out of reach. Copies make N larger, so that every sample "
                "weighs less."
            )
            return Proposal("oversampling", text, {})
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
            return Proposal("class_weights", text, {})
        changed = self._weighted(level)
        assert changed is not None
        changes = {"class_weights": changed.to_dict()["class_weights"]}
        listed = self._listed(self._weights(level))
        text = f"Weigh the loss of the classes by {listed}, of mean 1 over the samples."
        return self._proposal("class_weights", text, changes, changed)

    def _weighted(self, level: float) -> Problem:
        return self.problem.replace(class_weights=self.problem.runs_of(self._weights(level)))

    def _weights(self, level: float) -> Array:
        """Raise every class's pull to a level, then scale the weights to the sum they had."""
        p, own = self.partition, self.problem.group_weights
        weights = own * np.maximum(1.0, math.exp(level) / p.pull)
        shares = p.samples * p.sizes / self.problem.num_samples
        scaled: Array = weights * ((shares @ own) / (shares @ weights))
        return scaled

    def logit_adjustment(self) -> Proposal:
        """Adjust the logits in the loss by a multiple of the log-prior: the least that does."""
        kind = "logit_adjustment"
        if self.problem.bias == "free":
            text = "Logit adjustment does nothing here: a free bias takes it up."
            return Proposal(kind, text, {})
        if self.problem.features == "nonnegative":
            # There it moves the decays at which classes vanish, and takes a search for each solve.
            if len(self.problem.groups) > MAX_FOLLOWED:
                text = f"Logit adjustment of ReLU features is tried up to {MAX_FOLLOWED} groups."
                return Proposal(kind, text, {})
        elif not self.problem.margin_runs and any(
            group.sibling_margin == 0 or group.state == VANISHED for group in self.now.groups
        ):
            text = "Logit adjustment does not move the thresholds at which classes merge or vanish."
            return Proposal(kind, text, {})
        if self.counts.min() == self.counts.max():
            return Proposal(kind, "Logit adjustment has no prior to correct.", {})
        factor = self._least(0.0, MAX_TEMPERATURE, self._adjusted)
        if factor is None:
            text = f"Logit adjustment does not, up to {MAX_TEMPERATURE:g} times the log-prior."
            return Proposal(kind, text, {})
        text = f"Add {factor:.4g} log(n_k / N) to the logits in the loss only."
        changes = {"logit_adjustment": f"{factor!r}*prior"}
        return self._proposal(kind, text, changes, self._adjusted(factor))

    def _adjusted(self, factor: float) -> Problem:
        prior = np.log(self.counts / self.problem.num_samples)
        adjustment = self.problem.group_adjustment + factor * prior
        return self.problem.replace(logit_adjustment=self.problem.runs_of(adjustment))

    # -- terms of the loss that move where classes merge -------------------------------------------

    def label_smoothing(self) -> Proposal:
        """Smooth less: the largest share that does. More is never proposed: it acts as decay."""
        kind, share = "label_smoothing", self.problem.label_smoothing
        sooner = "it lets all classes merge at 1 - label_smoothing of the decay"
        if not share:
            return Proposal(kind, f"Label smoothing does not: {sooner}.", {})

        def made(less: float) -> Problem:
            return self.problem.replace(label_smoothing=max(share - less, 0.0))

        less = self._least(0.0, share, made, LOOKS_AT_TERMS)
        if less is None:
            text = f"Less label smoothing does not, although {sooner}."
            return Proposal(kind, text, {})
        changed = made(less)
        text = f"Lower label_smoothing to {changed.label_smoothing:.4g}."
        return self._proposal(kind, text, {kind: changed.label_smoothing}, changed)

    def class_margins(self) -> Proposal:
        """Take margins off the own logits, as LDAM does: the least that do."""
        kind, counts = "class_margins", self.counts.astype(np.float64)

        def margins(largest: float) -> Array:
            return self.problem.group_margins + margins_of(counts, largest)

        largest = self._least_terms(kind, MAX_MARGIN, margins)
        if largest is None:
            text = f"Margins in the loss (LDAM) do not, up to {MAX_MARGIN:g} nats."
            return Proposal(kind, text, {})
        numbers = margins(largest)
        text = f"Take margins off the own logits in the loss (LDAM): {self._listed(numbers)}."
        return self._with_terms(kind, text, numbers)

    def logit_scale(self) -> Proposal:
        """Scale logits of small classes up. CDT scales them down, which merges them earlier."""
        kind, counts = "logit_scale", self.counts.astype(np.float64)
        own = self.problem.group_scales
        least = float(scales_of(counts, SCALE_POWER).min())
        sooner = ""
        if least < 1:
            sooner = f" Scaled down, as CDT does, they merge earlier: at {least:.3g} of the decay."

        def scales(power: float) -> Array:
            return _scaled_up(counts, own, power)

        power = self._least_terms(kind, MAX_POWER, scales, _least_power(own))
        if power is None:
            text = "Scaling logits of small classes up in the loss does not, up to sqrt(n_max / n)."
            return Proposal(kind, text + sooner, {})
        numbers = scales(power)
        text = f"Scale the logits of small classes up in the loss, by {self._listed(numbers)}."
        if power < 0:
            text = f"Scale logits in the loss by no less than {self._listed(numbers)}."
        return self._with_terms(kind, text + sooner, numbers)

    def feature_weights(self) -> Proposal:
        """Decay the features of small classes less, as LDT's loss amounts to: the least that do."""
        kind, counts = "feature_weights", self.counts.astype(np.float64)
        own = np.sqrt(counts / self.problem.group_feature_weights)

        def weights(power: float) -> Array:
            return counts / _scaled_up(counts, own, power) ** 2

        power = self._least_terms(kind, MAX_POWER, weights, _least_power(own))
        if power is None:
            text = (
                "Feature weights n / kappa^2, weaker decay of small classes' features, do not, up "
                "to kappa = sqrt(n_max / n)."
            )
            return Proposal(kind, text, {})
        numbers = weights(power)
        kappa = self._listed(np.sqrt(counts / numbers))
        what = "less" if power >= 0 else "by no more"
        text = (
            f"Decay the features of small classes {what}: feature_weights n / kappa^2, kappa "
            f"{kappa}. As a loss (LDT: logits of these samples times kappa) classes merge as late, "
            "and margins at test time are these over kappa."
        )
        return self._with_terms(kind, text, numbers)

    def _least_terms(
        self, kind: str, most: float, numbers: Callable[[float], Array], least: float = 0.0
    ) -> float | None:
        """Return the least strength whose numbers, one a group, do; None if none does."""
        if np.array_equal(numbers(most), numbers(least)):
            return None

        def made(strength: float) -> Problem | None:
            return with_terms(self.problem, **{kind: self.problem.runs_of(numbers(strength))})

        return self._least(least, most, made, LOOKS_AT_TERMS)

    def _with_terms(self, kind: str, text: str, numbers: Array) -> Proposal:
        runs = self.problem.runs_of(numbers)
        changes = {kind: format_runs(runs)}
        return self._proposal(kind, text, changes, self.problem.replace(**{kind: runs}))

    def _listed(self, numbers: Array) -> str:
        return by_group(self.problem, numbers.tolist())

    # -- for comparison ----------------------------------------------------------------------------

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
            weighted = self.problem.replace(class_weights="balanced")
            changes = {"class_weights": "balanced"}
            found.append(self._proposal("balanced_weights", BALANCED, changes, weighted))
        return tuple(found)

    def _proposal(
        self, kind: str, text: str, changes: dict[str, Any], changed: Problem
    ) -> Proposal:
        merges, factors = merging(changed, self.problem, self.thresholds)
        if said := moved(self.problem, factors, self.thresholds.kind):
            text = f"{text} {said}"
        return Proposal(kind, text, changes, changed, self.look(changed), merges, factors)

    # -- searches ----------------------------------------------------------------------------------

    def _least(
        self,
        low: float,
        high: float,
        make: Callable[[float], Problem | None],
        looks: int = LOOKS,
    ) -> float | None:
        """Return the least x from low to high whose problem does; None if none of them does."""
        before = low
        for x in np.linspace(low, high, looks)[1:].tolist():
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


def _scaled_up(counts: Array, own: Array, power: float) -> Array:
    """Return factors of the logits: own ones times ``(n_max / n)^power``.

    Those below one are taken back first, so that classes merge later all along: from power -1, the
    own factors, to 0, none below one.
    """
    if power < 0:
        return np.where(own < 1, own**-power, own)
    factors: Array = np.maximum(own, 1.0) / scales_of(counts, power)
    return factors


def _least_power(own: Array) -> float:
    return -1.0 if (own < 1 - ROUNDING).any() else 0.0


def as_decays(problem: Problem, logit_decay: float) -> dict[str, float]:
    """Return the weight decay, or the feature decay, that alone give a ``logit_decay``."""
    square = logit_decay**2
    return {
        "weight_decay": square / problem.feature_decay,
        "feature_decay": square / problem.weight_decays[0],
    }
