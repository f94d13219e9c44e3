"""Verdicts on whether a trained network ends where the theory says it does."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tightframe.checks import number_of
from tightframe.geometry.blocks import Array
from tightframe.geometry.dense import (
    normalized_distance,
    orthogonal_frame,
    seli_of_head,
    simplex_etf,
)
from tightframe.geometry.states import (
    DISTINCT,
    LOST,
    MERGED,
    SAME_PREDICTION,
    STATES,
    VANISHED,
    States,
    measured_states,
)
from tightframe.problem.class_names import listed
from tightframe.problem.problem import Problem, loss_terms, terms_in
from tightframe.shown import record
from tightframe.solution import Solution
from tightframe.training.margins import group_margins

#: Margins within this many logit units (nats for cross-entropy) of each other are equal, whatever
#: their size. Training stops at a finite precision, so a merged group's margin is small, never
#: zero: odds of e^0.05 = 1.05 between siblings are no prediction.
COLLAPSE_TOLERANCE = 0.05

#: Measured margins agree with predicted ones within this share of those, and the logits' geometry
#: within this normalised distance. Runs that end where the theory says do so at distances of 0.0002
#: to 0.036 (`RunConfig` lists them); those that do not, at 0.12 and more.
MARGIN_TOLERANCE = 0.1
GEOMETRY_TOLERANCE = 0.05

#: What "as the theory predicts" wants, for whoever prints verdicts.
CRITERIA = (
    '"As the theory predicts" means the same state (predictions nearer than '
    f"{SAME_PREDICTION:g} in total variation are one), every class's decision margin, the sibling "
    f"margin and the logits' size within {MARGIN_TOLERANCE:.0%} or {COLLAPSE_TOLERANCE:g}, logits "
    f"within {GEOMETRY_TOLERANCE:g} of the predicted geometry (normalised distance). All of them "
    "are of class means; how far samples spread about those is not judged."
)

#: A measured group whose classes are in different states.
MIXED = "mixed"


@record
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
        Mean sibling margin of the group; the decision margin of a class alone in it. See
        `tightframe.training.group_margins`.
    predicted, measured : str
        States of `tightframe.geometry.states`; ``"mixed"`` where the classes' measured ones differ.
    agrees : bool or None
        Whether state, margins, size and geometry agree with the prediction. None if the predicted
        margin is below `COLLAPSE_TOLERANCE` without being zero: such a group is distinct, but too
        close to its threshold for this measurement to tell.
    sentence : str
        The same in one plain sentence.
    class_weight, logit_adjustment : float
        Of the classes' loss.
    class_margin, logit_scale, feature_weight : float or None
        Likewise, see `Problem`; None where the problem has none.
    predicted_decision_margin, measured_decision_margin : float
        Own minus largest other logit, mean over the group's classes.
    measured_states : list of str
        One a class of ``members``.
    differs : list of str
        Which of ``"state"``, ``"sibling margin"``, ``"decision margin"`` (of any class), ``"size"``
        and ``"geometry"`` differ from the prediction.
    measured_decision_margins : list of float
        One a class of ``members``.
    predicted_size, measured_size : float
        Root mean square of the classes' mean logits, without bias if the network has one. Nothing
        else tells the scale of a group whose margins are zero.
    names : sequence of str
        Of the classes of ``members``; empty where they have none.
    distance : float or None
        Normalised distance of all logits to the prediction's; None where either is zero.
    nearest : str or None
        Known geometry that the logits are nearest to, the prediction among them.
    nearest_distance : float or None
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
    predicted_decision_margin: float = math.nan
    measured_decision_margin: float = math.nan
    measured_states: Sequence[str] = ()
    differs: Sequence[str] = ()
    distance: float | None = None
    nearest: str | None = None
    nearest_distance: float | None = None
    measured_decision_margins: Sequence[float] = ()
    predicted_size: float = math.nan
    measured_size: float = math.nan
    names: Sequence[str] = ()
    class_margin: float | None = None
    logit_scale: float | None = None
    feature_weight: float | None = None

    @property
    def samples(self) -> str:
        """What each class of the group has: ``"100 samples"``, ``"100 samples, weight 5"``."""
        return ", ".join([number_of(self.count, "sample"), *loss_terms(**terms_in(asdict(self)))])

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as a dict; names where there are any."""
        values = asdict(self)
        if not self.names:
            del values["names"]
        return values


def group_verdicts(
    problem: Problem,
    solution: Solution,
    measured_logits: ArrayLike,
    bias: ArrayLike | None = None,
) -> list[Verdict]:
    """Return one verdict a group, in the order of ``problem.groups``.

    Parameters
    ----------
    problem : Problem
    solution : Solution
        Of this problem.
    measured_logits : array_like, shape (K, K)
        The network's mean logits with bias; column k holds the samples of class k.
    bias : array_like, shape (K,), optional
        The network's bias; without it the geometry is compared with the bias in the logits.
    """
    scores = np.asarray(measured_logits, dtype=np.float64)
    own_bias = np.zeros(len(scores)) if bias is None else np.asarray(bias, dtype=np.float64)
    states = measured_states(problem, scores - own_bias[:, None], own_bias)
    aim = solution.logits if bias is not None else solution.logits + solution.bias[:, None]
    distances = _distances(problem, aim, scores - own_bias[:, None], bias is not None)
    expected = group_margins(problem, solution.logits + solution.bias[:, None])
    found = group_margins(problem, scores)
    predicted = solution.states
    verdicts, names = [], problem.group_names()
    terms = problem.group_terms
    for i, group in enumerate(problem.groups):
        members = np.flatnonzero(problem.class_groups == i)
        taker = _taker(states, members)
        verdicts.append(
            _verdict(
                Verdict(
                    count=group.count,
                    classes=group.classes,
                    members=members.tolist(),
                    predicted_margin=float(expected[i]),
                    measured_margin=float(found[i]),
                    predicted=state_of(predicted, members),
                    measured=state_of(states, members),
                    agrees=None,
                    sentence="",
                    class_weight=terms[i]["class_weight"],
                    logit_adjustment=terms[i]["logit_adjustment"],
                    class_margin=terms[i].get("class_margin"),
                    logit_scale=terms[i].get("logit_scale"),
                    feature_weight=terms[i].get("feature_weight"),
                    predicted_decision_margin=float(predicted.decision_margin[members].mean()),
                    measured_decision_margin=float(states.decision_margin[members].mean()),
                    measured_states=states.state[members].tolist(),
                    measured_decision_margins=states.decision_margin[members].tolist(),
                    predicted_size=_size(aim[:, members]),
                    measured_size=_size((scores - own_bias[:, None])[:, members]),
                    names=names[i],
                ),
                distances,
                None if taker is None else _called(problem, taker),
            )
        )
    return verdicts


def _distances(problem: Problem, aim: Array, measured: Array, apart: bool) -> dict[str, float]:
    """Return the normalised distances of the logits to the prediction and to every known frame.

    ``apart``: the head has a bias, which is not in the logits. SELI's logits with a free bias are
    those without one once that bias is in them.
    """
    k = problem.num_classes
    frames = {"prediction": aim}
    for frame in (simplex_etf(k), orthogonal_frame(k), seli_of_head(problem.compact_counts, apart)):
        frames[frame.name] = frame.logits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of zero matrices: NaN, left out
        found = {name: normalized_distance(measured, z) for name, z in frames.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _size(logits: Array) -> float:
    return float(np.sqrt(np.mean(logits**2)))


def state_of(states: States, members: Any) -> str:
    """Return the state that all members share, or `MIXED`."""
    found = set(states.state[members].tolist())
    return found.pop() if len(found) == 1 else MIXED


def _taker(states: States, members: Any) -> int | None:
    """Return the class that lost members are taken for, if it is one and the same."""
    takers = set(states.rival[members][states.state[members] == LOST].tolist())
    return takers.pop() if len(takers) == 1 else None


def _called(problem: Problem, label: int) -> str:
    return f"class {label}" if problem.class_names is None else listed([problem.name(label)])


def _far(measured: float, predicted: float) -> bool:
    return abs(measured - predicted) > max(COLLAPSE_TOLERANCE, MARGIN_TOLERANCE * abs(predicted))


def _verdict(facts: Verdict, distances: dict[str, float], taker: str | None) -> Verdict:
    """Judge a group whose numbers are known."""
    distance = distances.get("prediction")
    nearest = min(distances, key=distances.__getitem__, default=None)
    differs = []
    if facts.measured != facts.predicted:
        differs.append("state")
    if facts.classes > 1 and _far(facts.measured_margin, facts.predicted_margin):
        differs.append("sibling margin")
    if any(_far(m, facts.predicted_decision_margin) for m in facts.measured_decision_margins):
        differs.append("decision margin")
    if _far(facts.measured_size, facts.predicted_size):
        differs.append("size")
    if distance is not None and distance > GEOMETRY_TOLERANCE:
        differs.append("geometry")
    close = facts.predicted in (DISTINCT, LOST) and any(
        0 < abs(predicted) < COLLAPSE_TOLERANCE
        for predicted in (facts.predicted_margin, facts.predicted_decision_margin)
    )
    verdict = replace(
        facts,
        agrees=None if close else not differs,
        differs=differs,
        distance=distance,
        nearest=nearest,
        nearest_distance=None if nearest is None else distances[nearest],
    )
    return replace(verdict, sentence=_sentence(verdict, taker))


def described(verdict: Verdict, taker: str | None = None) -> str:
    """Return what was measured: ``"The 5 classes with 10 samples each have merged"``."""
    alone = verdict.classes == 1
    who = f"The {verdict.classes} classes with {verdict.samples} each"
    if alone:
        who = f"The class with {verdict.samples}"
    if verdict.names:
        who += f" ({listed(verdict.names)})"
    if verdict.measured == MIXED:
        found = [(name, verdict.measured_states.count(name)) for name in STATES]
        parts = ", ".join(f"{number} {name}" for name, number in found if number)
        return f"{who} are in different states ({parts})"
    verb = {
        VANISHED: "has vanished" if alone else "have vanished",
        LOST: "is lost" if alone else "are lost",
        MERGED: "has merged" if alone else "have merged",
        DISTINCT: "is distinct" if alone else "are distinct",
    }[verdict.measured]
    taken = "" if taker is None else f" (taken for {taker})"
    return f"{who} {verb}{taken}"


def margins_text(verdict: Verdict) -> str:
    """Return the measured and the predicted margins, named."""
    parts = []
    if verdict.classes > 1:
        parts.append(
            f"sibling margin {_fixed(verdict.measured_margin)}, "
            f"predicted {_fixed(verdict.predicted_margin)}"
        )
    margins = verdict.measured_decision_margins
    single = [m for m in margins if _far(m, verdict.predicted_decision_margin)]
    spread = ""
    if single and not _far(verdict.measured_decision_margin, verdict.predicted_decision_margin):
        spread = f" ({_fixed(min(margins))} to {_fixed(max(margins))})"
    parts.append(
        f"decision margin {_fixed(verdict.measured_decision_margin)}{spread}, "
        f"predicted {_fixed(verdict.predicted_decision_margin)}"
    )
    return "; ".join(parts)


def _fixed(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # no negative zero


def _sentence(verdict: Verdict, taker: str | None) -> str:
    who, margins = described(verdict, taker), margins_text(verdict)
    them = "it" if verdict.classes == 1 else "them"
    if verdict.agrees is None:
        return (
            f"{who}: a predicted margin is below {COLLAPSE_TOLERANCE}, too close to the "
            f"collapse threshold to tell ({margins})."
        )
    if "size" in verdict.differs:
        margins += (
            f"; logits of size {_fixed(verdict.measured_size)}, "
            f"predicted {_fixed(verdict.predicted_size)}"
        )
    far = ""
    if verdict.distance is not None:
        far = f"logits {verdict.distance:.3g} from the prediction"
        if "geometry" in verdict.differs and verdict.nearest != "prediction":
            far += f", nearest to the {verdict.nearest} ({verdict.nearest_distance:.3g})"
    numbers = "; ".join(part for part in (margins, far) if part)
    if verdict.agrees:
        return f"{who}, as the theory predicts ({numbers})."
    if "state" in verdict.differs:
        return f"{who}, but the theory predicts {them} {verdict.predicted} ({numbers})."
    what = ", ".join(verdict.differs[:-1]) + " and " * (len(verdict.differs) > 1)
    what += verdict.differs[-1]
    verb = "differs" if len(verdict.differs) == 1 else "differ"
    return f"{who}, which is the predicted state, but the {what} {verb} ({numbers})."
