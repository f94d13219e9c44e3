"""Verdicts on whether a trained network collapses where the theory says it does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tightframe.problem.problem import Problem, loss_terms
from tightframe.solution import Solution
from tightframe.training.margins import group_margins

#: A group whose measured within-group margin is below this many logit units (nats for
#: cross-entropy) counts as collapsed. Training stops at a finite precision, so a collapsed group's
#: margin is small, never zero: odds of e^0.05 = 1.05 between siblings are no prediction.
COLLAPSE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Verdict:
    """Measured against predicted state of one group of interchangeable classes.

    Attributes
    ----------
    count : int
        Samples of each class of the group.
    classes : int
        Classes in the group.
    members : list of int
        Which classes.
    predicted_margin, measured_margin : float
        Mean margin inside the group, see `tightframe.training.group_margins`.
    predicted, measured : {"collapsed", "distinct"}
        Predicted: exactly, by the theory. Measured: margin below `COLLAPSE_TOLERANCE`.
    agrees : bool or None
        None if the predicted margin is below the tolerance without being zero: such a group is
        distinct, but too close to its threshold for this measurement to tell.
    sentence : str
        The same in one plain sentence.
    class_weight, logit_adjustment : float
        Of the classes' loss.
    """

    count: int
    classes: int
    members: list[int]
    predicted_margin: float
    measured_margin: float
    predicted: str
    measured: str
    agrees: bool | None
    sentence: str
    class_weight: float = 1.0
    logit_adjustment: float = 0.0

    @property
    def samples(self) -> str:
        """What each class of the group has: ``"100 samples"``, ``"100 samples, weight 5"``."""
        return _samples(self.count, self.class_weight, self.logit_adjustment)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as a dict."""
        return asdict(self)


def group_verdicts(
    problem: Problem, solution: Solution, measured_logits: ArrayLike
) -> list[Verdict]:
    """Return one verdict a group, in the order of ``problem.groups``.

    Parameters
    ----------
    problem : Problem
    solution : Solution
        Of this problem. A group counts as collapsed if all its classes are.
    measured_logits : array_like, shape (K, K)
        The network's mean logits with bias; column k holds the samples of class k.
    """
    expected = group_margins(problem, solution.logits + solution.bias[:, None])
    found = group_margins(problem, measured_logits)
    verdicts = []
    weights, adjustment = problem.group_weights.tolist(), problem.group_adjustment.tolist()
    for i, group in enumerate(problem.groups):
        members = np.flatnonzero(problem.class_groups == i)
        margins = float(expected[i]), float(found[i])
        predicted = _state(bool(solution.collapsed[members].all()))
        measured = _state(margins[1] < COLLAPSE_TOLERANCE)
        agrees: bool | None = predicted == measured
        if predicted == "distinct" and margins[0] < COLLAPSE_TOLERANCE:
            agrees = None
        verdicts.append(
            Verdict(
                count=group.count,
                classes=group.classes,
                members=members.tolist(),
                predicted_margin=margins[0],
                measured_margin=margins[1],
                predicted=predicted,
                measured=measured,
                agrees=agrees,
                sentence=_sentence(
                    _samples(group.count, weights[i], adjustment[i]),
                    group.classes,
                    margins,
                    predicted,
                    measured,
                    agrees,
                ),
                class_weight=weights[i],
                logit_adjustment=adjustment[i],
            )
        )
    return verdicts


def _state(collapsed: bool) -> str:
    return "collapsed" if collapsed else "distinct"


def _samples(count: int, class_weight: float, logit_adjustment: float) -> str:
    samples = f"{count} sample" if count == 1 else f"{count} samples"
    return ", ".join([samples, *loss_terms(class_weight, logit_adjustment)])


def _sentence(
    samples: str,
    classes: int,
    margins: tuple[float, float],
    predicted: str,
    measured: str,
    agrees: bool | None,
) -> str:
    if classes == 1:
        who, words = (
            f"The class with {samples}",
            {
                "collapsed": "has collapsed: it does not stand out from the others",
                "distinct": "stands out from the others",
            },
        )
    else:
        who, words = (
            f"The {classes} classes with {samples} each",
            {
                "collapsed": "have collapsed together",
                "distinct": "are distinct",
            },
        )
    numbers = f"(margin {margins[1]:.3f}, predicted {margins[0]:.3f})"
    if agrees is None:
        return (
            f"{who}: the predicted margin is below {COLLAPSE_TOLERANCE}, too close to the "
            f"collapse threshold to tell {numbers}."
        )
    if agrees:
        return f"{who} {words[measured]}, as the theory predicts {numbers}."
    return f"{who} {words[measured]}, but the theory predicts them {predicted} {numbers}."
