"""What becomes of the classes in one sentence, from their states alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.style import STATES
from tightframe.problem.class_names import shown_names
from tightframe.problem.problem import Problem

#: More classes than this are counted, not named, unless they follow each other.
MOST_NAMED = 6

#: More classes that take others are not named.
_MOST_TAKERS = 3

#: Letters of a name in a sentence.
_NAME = 24

#: Stands for how many times larger the decay of the next change is: that moves with the slider.
FOLD = "{fold}"

#: What happens to several classes, and to one, at a change to a state.
_VERBS = {
    "merged": ("merge", "merges"),
    "lost": ("are lost", "is lost"),
    "vanished": ("vanish", "vanishes"),
    "distinct": ("come apart again", "comes apart again"),
}


class Members(NamedTuple):
    """Classes that are alike, in one state.

    Attributes
    ----------
    classes : ndarray of int
    state : str
        Of `tightframe.geometry.states.STATES`.
    taker : ndarray of int
        Classes that they are taken for, if they are lost.
    prediction : int
        Members with one number share one prediction.
    """

    classes: NDArray[np.intp]
    state: str
    taker: NDArray[np.intp]
    prediction: int


class Next(NamedTuple):
    """The next change: from which decay on which classes are in which state."""

    decay: float
    classes: NDArray[np.intp]
    after: str
    is_last: bool


def counts_of(members: Sequence[Members]) -> dict[str, int]:
    """Return how many classes are in each state, in the order of the table of states."""
    number = {name: sum(len(m.classes) for m in members if m.state == name) for name in STATES}
    return {name: classes for name, classes in number.items() if classes}


def sentence(problem: Problem, members: Sequence[Members], upcoming: Next | None = None) -> str:
    """Say what becomes of the classes at one decay.

    Parameters
    ----------
    problem : Problem
    members : sequence of Members
        All classes.
    upcoming : Next, optional
        Said where all classes are distinct, with `FOLD` in place of how many times larger its
        decay is.
    """
    k, counts = problem.num_classes, counts_of(members)
    apart = counts.get("distinct", 0)
    if apart == k:
        stay = "Both classes stay apart." if k == 2 else f"All {k} classes stay apart."
        return stay if upcoming is None else f"{stay} {_warning(problem, upcoming)}"
    if counts.get("vanished", 0) == k:
        return "Everything has vanished: the network has the same answer for every input."
    parts = [
        _SAID[state](problem, [m for m in members if m.state == state], members)
        for state in ("vanished", "lost", "merged")
        if state in counts
    ]
    left = f"{apart} of {k} {'is' if apart == 1 else 'are'} told apart."
    return " ".join([*parts, left if apart else "None is told apart."])


def who(problem: Problem, classes: NDArray[np.intp]) -> str:
    """Name some classes: ``"class 7"``, ``"classes 7, 8, 9"``, ``"31 classes"``."""
    labels = np.sort(classes).tolist()
    if len(labels) == 1:
        name = _names(problem, labels)[0]
        return name if problem.class_names is not None else f"class {name}"
    if len(labels) <= MOST_NAMED:
        named = ", ".join(_names(problem, labels))
        return named if problem.class_names is not None else f"classes {named}"
    if problem.class_names is None and labels[-1] - labels[0] == len(labels) - 1:
        return f"classes {labels[0]} to {labels[-1]}"
    return f"{len(labels)} classes"


def _names(problem: Problem, labels: Sequence[int]) -> list[str]:
    return shown_names([problem.name(k) for k in labels], _NAME)


def _all(members: Sequence[Members]) -> NDArray[np.intp]:
    return np.concatenate([m.classes for m in members])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text.startswith("class") else text


def _warning(problem: Problem, upcoming: Next) -> str:
    verb = _VERBS[upcoming.after][len(upcoming.classes) == 1]
    happens = (
        "everything vanishes" if upcoming.is_last else f"{who(problem, upcoming.classes)} {verb}"
    )
    # Written out as the page's script does it.
    decay = np.format_float_positional(float(f"{upcoming.decay:.3g}"), trim="-")
    if upcoming.decay < 1e-6:
        decay = f"{upcoming.decay:.3g}"
    return f"Raise λ {FOLD}-fold, to {decay}, and {happens}."


def _vanished(problem: Problem, own: Sequence[Members], members: Sequence[Members]) -> str:
    classes = _all(own)
    if len(classes) == 1:
        rest = "has vanished: its class mean is zero, the network has no opinion on it."
    else:
        rest = "have vanished: their class means are zero, the network has no opinion on them."
    return f"{_capital(who(problem, classes))} {rest}"


def _lost(problem: Problem, own: Sequence[Members], members: Sequence[Members]) -> str:
    classes, takers = _all(own), np.unique(np.concatenate([m.taker for m in own]))
    one = len(classes) == 1
    text = (
        f"{_capital(who(problem, classes))} {'is lost: its' if one else 'are lost: their'} samples"
    )
    if not 0 < len(takers) <= _MOST_TAKERS:
        return f"{text} are taken for other classes."
    text += f" are taken for {who(problem, takers)}"
    left = [m.classes for m in members if m.state == "distinct"]
    if len(takers) == 1 and left:
        count, rarest = int(problem.counts[takers[0]]), problem.counts[np.concatenate(left)].min()
        if count == rarest:
            text += f", the rarest that is left ({count} samples)"
    return f"{text}."


def _merged(problem: Problem, own: Sequence[Members], members: Sequence[Members]) -> str:
    sets = [
        _all([m for m in own if m.prediction == number])
        for number in dict.fromkeys(m.prediction for m in own)
    ]
    if len(sets) == 1:
        named = f"{_capital(who(problem, sets[0]))} have merged"
        if {m.state for m in members} <= {"merged", "distinct"}:
            named += ": they get one and the same prediction"
        return f"{named}."
    if len(sets) <= 3:
        first, *rest = [who(problem, classes) for classes in sets]
        return f"{_capital(first)} have merged, and so have {' and '.join(rest)}."
    return f"{sum(map(len, sets))} classes have merged into {len(sets)} predictions."


_SAID = {"vanished": _vanished, "lost": _lost, "merged": _merged}
