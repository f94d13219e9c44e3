"""What each remedy for imbalance does to merging and to margins, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tightframe.advice.prediction import GroupOutlook, Outlook, outlook
from tightframe.changes import FEW_GROUPS, known_thresholds
from tightframe.checks import number_of
from tightframe.geometry.blocks import Array, Partition
from tightframe.problem.problem import Problem, with_loss_terms
from tightframe.shown import record
from tightframe.solve import solve
from tightframe.theory.thresholds import Thresholds, ends

#: What papers use: the share of labels that is smoothed (Szegedy et al. 2016), the power of the
#: counts in CDT's scales (Ye et al. 2020) and in the factors of LDT, the largest margin of LDAM
#: (Cao et al. 2019) and its power.
SMOOTHING = 0.1
SCALE_POWER = 0.3
LARGEST_MARGIN = 0.5
MARGIN_POWER = 0.25

#: Factors of thresholds this near to one are one.
ROUNDING = 1e-12

#: Of more groups than this a sentence names a range.
MAX_NAMED = 8

#: Of more groups than this a warning names a range.
MAX_WARNED = 4

#: What is said of a remedy wherever it is named, by argument of `Problem`.
BALANCED = "Balanced class weights, N / (K n_k)."
PRIOR = "Logits adjusted by the log-prior in the loss."
SMOOTHED = "Labels smoothed by {:g}."
CDT = "CDT: logits of small classes scaled down in the loss."
CDT_REVERSED = "CDT upside down: logits of small classes scaled up."
LDT = "LDT: logits of small classes' samples scaled up."
LDAM = "LDAM: a margin, larger for small classes."


@record
@dataclass(frozen=True)
class Remedy:
    """One remedy as papers use it, and what certified solves say it does.

    Attributes
    ----------
    kind : str
        The argument of `Problem` that it changes.
    text : str
        What it is, in a sentence.
    problem : Problem
    merges : tuple of float or None
        From which ``sqrt(weight_decay feature_decay)`` on the classes of each group of the problem
        without the remedy merge; None for classes alone in their group.
    factors : tuple of float or None
        That over where they merge without the remedy: below 1 they merge earlier.
    after : Outlook
        What the problem with the remedy predicts, margins and states, one entry a group of that. Of
        LDT what decides at test time: features and logits over kappa.
    """

    kind: str
    text: str
    problem: Problem
    merges: tuple[float | None, ...]
    factors: tuple[float | None, ...]
    after: Outlook

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "kind": self.kind,
            "text": self.text,
            "problem": self.problem.to_dict(),
            "merges": list(self.merges),
            "factors": list(self.factors),
            "after": self.after.to_dict(),
        }


def takes_terms(problem: Problem) -> bool:
    """Tell whether theory has smoothing, margins, scales and feature weights for a problem."""
    return problem.loss_object.is_softmax and problem.features == "real" and problem.depth == 1


def remedies(problem: Problem, tol: float = 1e-8) -> tuple[Remedy, ...]:
    """Compare what is done about imbalance: one entry a remedy, each put in place of the problem's.

    Balanced class weights, logit adjustment by the prior, label smoothing of 0.1, CDT's scales
    ``(n_k / n_max)^0.3``, the same upside down, LDT's feature weights ``n_k / kappa_k^2`` with
    ``kappa_k = (n_max / n_k)^0.3``, and LDAM's margins ``0.5 (n_min / n_k)^(1/4)``. What theory has
    no numbers for, out of the range of `Problem`, is left out.

    Parameters
    ----------
    problem : Problem
        Cross-entropy, one linear layer, real features that are wide enough. None are compared for
        others and with equal counts. Of more than 30 groups of equal classes it is not followed
        where those with a margin merge.
    tol : float
        Certified relative gap of every solve.

    Returns
    -------
    tuple of Remedy

    Examples
    --------
    >>> problem = Problem("500x5,100x5", weight_decay=2e-3, feature_decay=1e-3)
    >>> found = {remedy.text: remedy.factors[1] for remedy in remedies(problem)}
    >>> round(found["Labels smoothed by 0.1."], 3)
    0.9
    """
    counts = np.array([group.count for group in problem.groups], dtype=np.float64)
    if not takes_terms(problem) or counts.min() == counts.max():
        return ()
    scales, runs = scales_of(counts, SCALE_POWER), problem.runs_of
    tried: list[tuple[str, str, Any]] = [
        ("class_weights", BALANCED, "balanced"),
        ("logit_adjustment", PRIOR, "prior"),
        ("label_smoothing", SMOOTHED.format(SMOOTHING), SMOOTHING),
        ("logit_scale", CDT, runs(scales)),
        ("logit_scale", CDT_REVERSED, runs(1 / scales)),
        ("feature_weights", LDT, runs(counts * scales**2)),
        ("class_margins", LDAM, runs(margins_of(counts, LARGEST_MARGIN))),
    ]
    before = _thresholds(problem)
    found = []
    for kind, text, value in tried:
        changed = with_terms(problem, **{kind: value})
        if changed is not None:
            merges, factors = merging(changed, problem, before)
            after = outlook(solve(changed, tol), as_ldt=kind == "feature_weights")
            found.append(Remedy(kind, text, changed, merges, factors, after))
    return tuple(found)


# -- numbers of remedies ---------------------------------------------------------------------------


def scales_of(counts: Array, power: float) -> Array:
    """Return CDT's scales ``(n / n_max)^power``; those of LDT and upside down are one over them."""
    scales: Array = (counts / counts.max()) ** power
    return scales


def margins_of(counts: Array, largest: float) -> Array:
    """Return LDAM's margins ``largest (n_min / n)^(1/4)``."""
    margins: Array = largest * (counts.min() / counts) ** MARGIN_POWER
    return margins


def with_terms(problem: Problem, **terms: Any) -> Problem | None:
    """Return the problem with other terms of the loss; None where they are out of range."""
    try:
        return problem.replace(**terms)
    except ValueError:
        return None


# -- where classes merge ---------------------------------------------------------------------------

Places = tuple[float | None, ...]


def merging(changed: Problem, problem: Problem, before: Thresholds) -> tuple[Places, Places]:
    """Return where the classes of each group of a problem merge if it is changed, and the factors.

    Parameters
    ----------
    changed : Problem
        Of the same classes; those of one group of the problem still are in one.
    problem : Problem
    before : Thresholds
        Of the problem.
    """
    groups = _thresholds(changed).groups
    merges = tuple(groups[i].logit_decay for i in _groups_in(changed, problem))
    factors = tuple(
        None if new is None or old.logit_decay is None else new / old.logit_decay
        for new, old in zip(merges, before.groups, strict=True)
    )
    return merges, factors


def _thresholds(problem: Problem) -> Thresholds:
    return (known_thresholds if len(problem.groups) <= FEW_GROUPS else ends)(problem)


def _groups_in(changed: Problem, problem: Problem) -> list[int]:
    """Return in which group of a changed problem the classes of each group of a problem are."""
    # In runs of classes: these may be too many to be listed.
    own, new = (p.runs_of(np.arange(len(p.groups))) for p in (problem, changed))
    ends_of = [np.cumsum([classes for _, classes in runs]) for runs in (own, new)]
    groups = [0] * len(problem.groups)
    for (group, _), end in zip(own, ends_of[0].tolist(), strict=True):
        groups[int(group)] = int(new[int(np.searchsorted(ends_of[1], end))][0])
    return groups


def by_group(problem: Problem, numbers: Sequence[float | None]) -> str:
    """List one number a group: ``"0.6 (n = 500), 3 (n = 100)"``; of many groups a range."""
    known = [number for number in numbers if number is not None]
    if len(known) > MAX_NAMED:
        return f"{min(known):.4g} to {max(known):.4g}"
    named = zip(numbers, problem.groups, problem.group_terms, strict=True)
    return ", ".join(
        f"{number:.4g} ({with_loss_terms(f'n = {group.count}', **terms)})"
        for number, group, terms in named
        if number is not None
    )


def moved(problem: Problem, factors: Places, verb: str = "merge") -> str:
    """Say in a sentence where classes merge then; nothing where that stays."""
    known = [factor for factor in factors if factor is not None]
    if all(abs(factor - 1) <= ROUNDING for factor in known):
        return ""
    return f"Classes then {verb} at {by_group(problem, factors)} times the decay."


# -- what is in use --------------------------------------------------------------------------------


def earlier(problem: Problem, groups: tuple[GroupOutlook, ...]) -> list[str]:
    """Say which remedies in use let classes merge at smaller decays, a sentence each.

    Class weights are relative, so that some classes always merge earlier: they are named where any
    classes merge before all would without.
    """
    if problem.features != "real" or problem.depth > 1:
        return []
    said = []
    verb = "vanish" if problem.loss_object.is_quadratic and problem.bias == "none" else "merge"
    if share := problem.label_smoothing:
        said.append(f"label_smoothing {share:g}: all classes merge at {1 - share:.3g} of the decay")
    counts = np.array([group.count for group in problem.groups])
    kappa = np.sqrt(counts / problem.group_feature_weights)
    many = np.array([group.classes > 1 for group in groups])
    weights = problem.group_weights
    used = [
        ("logit_scale", problem.group_scales, problem.group_scales),
        ("feature_weights", problem.group_feature_weights, kappa),
    ]
    pull = Partition.coarsest(problem).pull
    least = min((pull / weights)[many], default=math.inf)
    sooner = min(pull[many], default=math.inf) < least * (1 - ROUNDING)
    if sooner and not problem.has_equal_weights:
        used.append(("class_weights", weights, np.where(pull < least, weights, 1.0)))
    for name, numbers, factors in used:
        found = np.flatnonzero(many & (factors < 1 - ROUNDING)).tolist()
        if len(found) > MAX_WARNED:
            low, high = factors[found].min(), factors[found].max()
            said.append(
                f"{name}: the classes of {len(found)} groups {verb} at {low:.3g} to {high:.3g} of "
                "the decay"
            )
            continue
        said += [
            f"{name} {numbers[i]:.4g}: {groups[i].classes} classes of "
            f"{number_of(groups[i].count, 'sample')} {verb} at {factors[i]:.3g} of the decay"
            for i in found
        ]
    for i in np.flatnonzero(many & (problem.group_margins < 0)).tolist():
        who = f"{groups[i].classes} classes of {number_of(groups[i].count, 'sample')}"
        said.append(f"class_margins {problem.group_margins[i]:g}: {who} merge at a smaller decay")
    return said
