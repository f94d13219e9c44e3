"""What each remedy for imbalance does to merging and to margins, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tightframe.advice.prediction import GroupOutlook, Outlook, outlook
from tightframe.changes import FEW_GROUPS, known_thresholds
from tightframe.problem.problem import Problem
from tightframe.solve import solve

#: What papers use: the share of labels that is smoothed (Szegedy et al. 2016), the power of the
#: counts in CDT's scales (Ye et al. 2020) and in the factors of LDT, the largest margin of LDAM
#: (Cao et al. 2019) and its power.
SMOOTHING = 0.1
SCALE_POWER = 0.3
LARGEST_MARGIN = 0.5
MARGIN_POWER = 0.25

#: Factors of thresholds this near to one are one.
ROUNDING = 1e-12


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
        merge; None for classes alone in their group.
    factors : tuple of float or None
        That over where they merge without the remedy: below 1 they merge earlier.
    after : Outlook
        What the problem with the remedy predicts, margins and states.
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


def remedies(problem: Problem, tol: float = 1e-8) -> tuple[Remedy, ...]:
    """Compare what is done about imbalance: one entry a remedy, each put in place of the problem's.

    Balanced class weights, logit adjustment by the prior, label smoothing of 0.1, CDT's scales
    ``(n_k / n_max)^0.3``, the same upside down, LDT's feature weights ``n_k / kappa_k^2`` with
    ``kappa_k = (n_max / n_k)^0.3``, and LDAM's margins ``0.5 (n_min / n_k)^(1/4)``.

    Parameters
    ----------
    problem : Problem
        Cross-entropy, one linear layer, real features that are wide enough. None are compared for
        others, with equal counts, and for more than 30 groups of equal classes.
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
    known = problem.loss_object.is_softmax and problem.features == "real" and problem.depth == 1
    if not known or len(counts) > FEW_GROUPS or counts.min() == counts.max():
        return ()
    share = (counts / counts.max()) ** SCALE_POWER
    margins = LARGEST_MARGIN * (counts.min() / counts) ** MARGIN_POWER
    runs = problem.runs_of
    tried: list[tuple[str, str, Any]] = [
        ("class_weights", "Balanced class weights.", "balanced"),
        ("logit_adjustment", "Logits adjusted by the log-prior in the loss.", "prior"),
        ("label_smoothing", f"Labels smoothed by {SMOOTHING:g}.", SMOOTHING),
        ("logit_scale", "CDT: logits of small classes scaled down in the loss.", runs(share)),
        ("logit_scale", "CDT upside down: logits of small classes scaled up.", runs(1 / share)),
        (
            "feature_weights",
            "LDT: logits of small classes' samples scaled up.",
            runs(counts * share**2),
        ),
        ("class_margins", "LDAM: a margin, larger for small classes.", runs(margins)),
    ]
    before = _merging(problem)
    found = []
    for kind, text, value in tried:
        changed = problem.replace(**{kind: value})
        if len(changed.groups) != len(problem.groups):
            continue  # groups that another term told apart
        merges = _merging(changed)
        factors = tuple(
            None if new is None or old is None else new / old
            for new, old in zip(merges, before, strict=True)
        )
        after = outlook(solve(changed, tol))
        found.append(Remedy(kind, text, changed, merges, factors, after))
    return tuple(found)


def _merging(problem: Problem) -> tuple[float | None, ...]:
    return tuple(group.logit_decay for group in known_thresholds(problem).groups)


def earlier(problem: Problem, groups: tuple[GroupOutlook, ...]) -> list[str]:
    """Say which remedies in use let classes merge at smaller decays, a sentence each."""
    if not (problem.loss_object.is_softmax and problem.features == "real" and problem.depth == 1):
        return []
    said = []
    if share := problem.label_smoothing:
        said.append(f"label_smoothing {share:g}: all classes merge at {1 - share:.3g} of the decay")
    counts = np.array([group.count for group in problem.groups])
    shrunk = np.sqrt(counts / problem.group_feature_weights)
    used = (
        ("logit_scale", problem.group_scales, problem.group_scales),
        ("feature_weights", problem.group_feature_weights, shrunk),
    )
    for i, group in enumerate(groups):
        if group.classes == 1:
            continue
        who = f"{group.classes} classes of {group.count} samples"
        for name, numbers, factors in used:
            if factors[i] < 1 - ROUNDING:
                said.append(
                    f"{name} {numbers[i]:.4g}: {who} merge at {factors[i]:.3g} of the decay"
                )
        if (margin := problem.group_margins[i]) < 0:
            said.append(f"class_margins {margin:g}: {who} merge at a smaller decay")
    return said
