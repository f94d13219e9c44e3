"""Closed forms of the decays, counts and totals at which the classes of a group collapse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.checks import number_of
from tightframe.geometry.blocks import BlockMatrix, Partition
from tightframe.geometry.states import DISTINCT, LOST, MERGED, STATES, VANISHED
from tightframe.problem.problem import Problem, at_most
from tightframe.saved import Saved, kept
from tightframe.shown import Block, Shown, frame, plot, record
from tightframe.theory.certificate import best_bias
from tightframe.theory.closed_form import deep_linear
from tightframe.theory.coverage import require_thresholds
from tightframe.theory.orthant import orthant_reach

if TYPE_CHECKING:
    import pandas as pd

#: As many groups of equal classes as a descent in the orthant takes.
MAX_FOLLOWED = 100


@kept
@record
@dataclass(frozen=True)
class GroupThreshold:
    """Where the classes of one group collapse.

    Attributes
    ----------
    count, classes : int
        The group.
    logit_decay : float or None
        The classes merge (or vanish, see `Thresholds.kind`) iff ``sqrt(weight_decay
        feature_decay)`` is at least this; with several layers, iff the geometric mean of all decays
        (`Problem.mean_decay`) is. None for a class alone in its group that has no threshold of its
        own (`rank_changes` tells where the rank falls then).
    collapsed : bool or None
        Whether that is so at the problem's decays.
    total_samples : float or None
        At these decays the group collapses iff N is at least this, its own count unchanged.
    distinct_counts : tuple of float or None
        Open interval of counts per class for which the group stays distinct at these decays, the
        other groups unchanged; None if there is none, and with feature weights.
    merges, lost, vanishes : float or None
        From which logit decay on its classes are in that state: the last at which they change to it
        and stay, until one that is worse. None if they never are, and from the closed forms of this
        module alone: `tightframe.thresholds` finds them.
    changes : tuple of (float, str) or None
        Every logit decay at which their state changes, and the state from there on, in order: of
        classes that are lost for a while only, nothing else tells. None from closed forms alone.
    """

    count: int
    classes: int
    logit_decay: float | None
    collapsed: bool | None
    total_samples: float | None
    distinct_counts: tuple[float, float] | None
    merges: float | None = None
    lost: float | None = None
    vanishes: float | None = None
    changes: tuple[tuple[float, str], ...] | None = None

    def state_at(self, logit_decay: float) -> str:
        """Return the state at a decay.

        Raises
        ------
        ValueError
            If the changes are not known, see there.
        """
        if self.changes is None:
            raise ValueError("changes: not known; tightframe.thresholds finds them")
        reached = [state for place, state in self.changes if at_most(place, logit_decay)]
        return reached[-1] if reached else DISTINCT

    @property
    def places(self) -> dict[str, float]:
        """From which logit decay on its classes are in which state; a closed form names none."""
        places = {"": self.logit_decay}
        if self.changes is not None:
            places = {MERGED: self.merges, LOST: self.lost, VANISHED: self.vanishes}
        return {state: place for state, place in places.items() if place is not None}

    @property
    def detours(self) -> tuple[tuple[str, float, float], ...]:
        """States that are left again for better ones: (state, from decay, to decay)."""
        changes = self.changes or ()
        return tuple(
            (state, place, later)
            for (place, state), (later, after) in itertools.pairwise(changes)
            if STATES.index(after) > STATES.index(state)
        )


@dataclass(frozen=True)
class Thresholds(Shown, Saved):
    """Collapse thresholds of a problem.

    Attributes
    ----------
    kind : {"merge", "vanish"}
        What collapse means: the classes of a group share one mean, or their means are zero.
    logit_decay : float or None
        ``sqrt(weight_decay feature_decay)`` of the problem; with several layers the geometric mean
        of all decays. None where none were given.
    total_collapse : float
        From this logit decay on, all class means are zero.
    groups : tuple of GroupThreshold
    """

    kind: str
    logit_decay: float | None
    total_collapse: float
    groups: tuple[GroupThreshold, ...]

    def without_decays(self) -> Thresholds:
        """Return these without what belongs to the problem's own decays."""
        none: dict[str, Any] = dict.fromkeys(("collapsed", "total_samples", "distinct_counts"))
        groups = tuple(replace(group, **none) for group in self.groups)
        return replace(self, logit_decay=None, groups=groups)

    @property
    def collapsed_state(self) -> str:
        """What the closed form's thresholds make of classes: ``"merged"`` or ``"vanished"``."""
        return MERGED if self.kind == "merge" else VANISHED

    def places_of(self, group: GroupThreshold) -> dict[str, float]:
        """Return from which logit decay on classes are in which state, the closed form's named too.

        Parameters
        ----------
        group : GroupThreshold
            One of `groups`.
        """
        return {state or self.collapsed_state: place for state, place in group.places.items()}

    def __repr__(self) -> str:
        told = [number_of(len(self.groups), "group")]
        places = (self.places_of(group).items() for group in self.groups)
        first = min(((place, state) for own in places for state, place in own), default=None)
        if first is not None:
            place, state = first
            told[0] += f", the first {state} from logit_decay {place:.6g}"
        told.append(f"total_collapse={self.total_collapse:.6g}")
        if self.logit_decay is not None:
            told.append(f"logit_decay={self.logit_decay:.6g}")
        return f"Thresholds({', '.join(told)})"

    def _blocks(self) -> Iterator[Block]:
        from tightframe.views.thresholds import groups_table

        yield groups_table(self)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a group of classes: from which decay on it is in which state.

        See `tightframe.shown.frame`.
        """
        from tightframe.views.thresholds import thresholds_rows

        return frame(thresholds_rows(self))

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw where classes collapse, over their samples, see `tightframe.shown.plot`."""
        from tightframe.views.thresholds import thresholds_chart

        return plot(thresholds_chart(self), ax)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return asdict(self)


def thresholds(problem: Problem) -> Thresholds:
    """Return the decays, totals and counts at which each group collapses, by closed forms alone.

    One layer, real features: the classes of a group of two or more merge iff ``sqrt(n_i)/N <=
    lambda``, whatever the other groups, the bias and the loss (docs/theory.md section 6; Hong &
    Ling 2023). Class weights, logit scales and ``1 - label_smoothing`` multiply ``sqrt(n_i)``,
    feature weights o replace it by ``n_i / sqrt(o_i)``, a logit adjustment changes nothing, and
    margins have no closed form.
    Non-negative features with cross-entropy: a class vanishes iff ``sqrt(n_i (K-1)/K)/N <= lambda``
    (Dang et al. 2024), class weights as before. MSE with M layers, no or free bias: iff
    ``c_M n_i^{M/(M+1)} / N <= mu``, ``c_M = ((M-1)/M)^{(M-1)/(M+1)} / M`` (Dang et al. 2023); for
    M > 1 the singular value jumps there. They are those of features that are wide enough: a ``dim``
    below the rank drops further directions (`solve` tells which).

    Raises
    ------
    ValueError
        If the problem is cross-entropy, or has a decayed bias, with more than one linear layer, or
        has non-negative features with a bias.
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    require_thresholds(problem)
    loss = problem.loss_object
    relu = problem.features == "nonnegative" and loss.is_softmax
    vanish = relu or (loss.is_quadratic and problem.bias == "none")
    factor = deep_linear.collapse_factor(problem.depth)
    if relu:
        factor = math.sqrt((problem.num_classes - 1) / problem.num_classes)
    groups = tuple(
        _group_threshold(problem, i, factor * strength)
        if (vanish or classes > 1) and strength is not None
        else GroupThreshold(count, classes, None, None, None, None)
        for i, ((count, classes), strength) in enumerate(
            zip(problem.groups, strengths(problem), strict=True)
        )
    )
    total = _total_collapse(problem, factor)
    return Thresholds("vanish" if vanish else "merge", overall_decay(problem), total, groups)


def strengths(problem: Problem) -> list[float | None]:
    """Return what multiplies ``sqrt(n) / N`` in the threshold of every group's classes.

    Class weights, scales of the logits, and what label smoothing leaves of the label. Margins
    change it by what siblings' probability is where the classes merge, which no closed form tells:
    None.
    """
    left = 1 - problem.label_smoothing
    terms = zip(problem.group_weights, problem.group_scales, problem.group_margins, strict=True)
    return [None if margin else float(w * scale * left) for w, scale, margin in terms]


def ends(problem: Problem) -> Thresholds:
    """Return `thresholds`; where only total collapse is known, that and no group's.

    So it is with non-negative features that have a bias or a logit adjustment: all class means are
    zero iff ``|G v| <= lambda`` for all unit vectors ``v >= 0``, G the gradient at zero with its
    best bias (docs/theory.md section 5).

    Raises
    ------
    ValueError
        As `thresholds`, for other problems.
    """
    if not isinstance(problem, Problem) or problem.features == "real" or problem.depth > 1:
        return thresholds(problem)
    if problem.bias == "none" and not problem.adjustment_runs:
        return thresholds(problem)
    if len(problem.groups) > MAX_FOLLOWED:
        raise ValueError(
            f"counts: got {len(problem.groups)} groups of equal classes; the states of classes "
            f"with non-negative features and a bias are followed for {MAX_FOLLOWED} at most"
        )
    residual = residual_at_zero(problem)
    p, n = residual.partition, residual.partition.num_samples
    within = residual.within * np.sqrt(p.counts)
    total = orthant_reach(residual.reduced / n, within / n, p.sizes)
    groups = tuple(
        GroupThreshold(count, classes, None, None, None, None) for count, classes in problem.groups
    )
    return Thresholds("vanish", overall_decay(problem), total, groups)


def overall_decay(problem: Problem) -> float:
    """Return lambda, or for several layers what stands in its place: the decays' geometric mean."""
    return problem.logit_decay if problem.depth == 1 else problem.mean_decay


def _group_threshold(problem: Problem, group: int, factor: float) -> GroupThreshold:
    """Solve ``factor n^{M/(M+1)} / N = mu`` for mu, for N, and for n (N grows with n).

    With feature weights o it is ``factor n / sqrt(o) / N``, and how they follow n is not known.
    """
    count, classes = problem.groups[group]
    total, power = problem.num_samples, problem.depth / (problem.depth + 1)
    ratio = overall_decay(problem) / factor
    own = bool(problem.feature_runs)
    reach = count / math.sqrt(problem.group_feature_weights[group]) if own else count**power
    return GroupThreshold(
        count,
        classes,
        factor * reach / total,
        bool(at_most(reach / total, ratio)),
        reach / ratio,
        None if own else _distinct_interval(total - count * classes, classes, ratio, power),
    )


def _distinct_interval(
    others: int, classes: int, ratio: float, power: float
) -> tuple[float, float] | None:
    """Return where ``n^power > ratio (others + classes n)``, an interval of n, or None."""

    def excess(log_n: float) -> float:
        return power * log_n - math.log(ratio * (others + classes * math.exp(log_n)))

    # The excess rises, then falls; the end without other classes is known.
    top = -math.log(ratio * classes) / (1 - power)
    if others == 0:
        return 0.0, math.exp(top)
    peak = math.log(power / (1 - power) * others / classes)
    if not excess(peak) > 0:
        return None
    bottom = math.log(ratio * others) / power  # excess < 0 below, for the classes' own samples
    return math.exp(_crossing(excess, bottom, peak)), math.exp(_crossing(excess, top, peak))


def _crossing(function: Callable[[float], float], below: float, above: float) -> float:
    """Bisect between a point where a function is negative and one where it is positive."""
    while True:
        middle = (below + above) / 2
        if middle in (below, above):
            return middle
        if function(middle) > 0:
            above = middle
        else:
            below = middle


def _total_collapse(problem: Problem, factor: float) -> float:
    """Return the decay from which on all logits are zero."""
    p, power = Partition.coarsest(problem), problem.depth / (problem.depth + 1)
    if problem.features == "nonnegative":
        return float(factor * (p.weights * p.counts**power).max() / problem.num_samples)
    quadratic = problem.loss_object.is_quadratic and problem.has_equal_weights
    quadratic = quadratic and not p.has_feature_weights
    if quadratic and problem.bias != "decayed":
        # The largest target, less what a free bias takes.
        largest = deep_linear.common_weight(problem)
        largest *= deep_linear.targets(problem, p).operator_norm ** (2 * power)
        return float(factor * largest / problem.num_samples)
    residual = residual_at_zero(problem)
    return residual.operator_norm / residual.partition.num_samples


def residual_at_zero(problem: Problem) -> BlockMatrix:
    """Return the data fit's residual at zero logits and the best bias for them.

    ``R D^{1/2} / N`` is the gradient there (docs/theory.md section 2).
    """
    partition = Partition.coarsest(problem)
    fit = problem.loss_object.datafit(partition)
    g = partition.num_groups
    zero = BlockMatrix(partition, np.zeros(g), np.zeros((g, g)))
    bias = np.zeros(g)
    if problem.bias != "none":
        bias = best_bias(problem, fit, zero, bias)
    return fit.residual(zero.within, zero.mean + bias[:, None])
