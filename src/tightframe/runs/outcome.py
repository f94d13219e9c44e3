"""How the networks of a run ended, in a few sentences: what differs from the theory comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.geometry.states import DISTINCT, LOST, MERGED, STATES, VANISHED, States
from tightframe.metrics.answers import LOST_BELOW
from tightframe.metrics.classes import shortened_list
from tightframe.problem.class_names import shown_names
from tightframe.problem.problem import Problem
from tightframe.runs.class_records import class_epochs
from tightframe.runs.store import RunRecord, SettingRecord
from tightframe.runs.tables import (
    as_predicted,
    certified,
    first_and_last,
    setting_title,
    verdicts,
)
from tightframe.views.wheel import class_homes, decay_label

Mask = NDArray[np.bool_]

#: Of more parts of a sentence, and of more classes, not all are named.
_MOST_PARTS, _MOST_NAMED = 4, 3

#: An objective that is further above the certified minimum than this share has not arrived.
_EARLY = 0.02

_NUMBERS = (
    *("no", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)

_VERBS = {
    DISTINCT: ("stays apart", "stay apart"),
    MERGED: ("merges", "merge"),
    LOST: ("is lost", "are lost"),
    VANISHED: ("vanishes", "vanish"),
}


@dataclass(frozen=True, eq=False)
class Ending:
    """How the network of one setting ended.

    Attributes
    ----------
    setting : SettingRecord
    problem : Problem
    states : States
    accuracy : ndarray, shape (K,), or None
        Of test samples.
    """

    setting: SettingRecord
    problem: Problem
    states: States
    accuracy: Array | None

    @property
    def fallen(self) -> Mask:
        """Which classes are not distinct."""
        return np.asarray(self.states.state != DISTINCT)

    @cached_property
    def states_text(self) -> str:
        """What becomes of the classes: ``"the five rare ones merge"``."""
        parts = []
        for state in STATES[::-1]:
            own = np.asarray(self.states.state == state)
            if own.all() or (own.any() and state != DISTINCT):
                single, several = _VERBS[state]
                text = f"{who(self.problem, own)} {single if own.sum() == 1 else several}"
                parts.append(text + self._more(state, own))
        return " and ".join(parts)

    def _more(self, state: str, own: Mask) -> str:
        """Return what lost classes are taken for, or into how many sets classes merge."""
        if state == LOST:
            takers = set(self.states.rival[own].tolist())
            if len(takers) == 1:
                return f", taken for {named(self.problem, list(takers))}"
        if state == MERGED:
            sets = len(set(self.states.prediction[own].tolist()))
            return f" into {_number(sets)}" if sets > 1 else ""
        return ""

    def accuracy_of(self, classes: Mask) -> float | None:
        """Return the mean test accuracy of classes, None where none is known."""
        if self.accuracy is None or np.isnan(self.accuracy[classes]).all():
            return None
        return float(np.nanmean(self.accuracy[classes]))


def outcome(run: RunRecord) -> str:
    """Return how the networks of a run ended.

    Whether as the theory said, what became of the classes, and their test accuracy. What did not
    end as predicted comes first, and nothing is said that was not measured.

    Parameters
    ----------
    run : RunRecord
        Of samples with classes.
    """
    endings = [ending for ending in map(ending_of, run.settings) if ending is not None]
    if not endings:
        return "No network is trained to the end yet."
    sentences = [*_judged(endings), *_unjudged(run, endings)]
    states = list(_states(endings))
    if states:
        sentences.append(f"{'; '.join(states)}.")
    sentences += _accuracies(endings)
    return " ".join(f"{text[0].upper()}{text[1:]}" for text in sentences)


def ending_of(setting: SettingRecord) -> Ending | None:
    """Return how the network of a setting ended, None before it has."""
    problem = setting.problem
    if problem is None or setting.final is None or not setting.finished or setting.on_text:
        return None
    found = class_epochs(setting, class_homes(problem), most=2)
    assert found is not None
    accuracy = None if found.test_accuracy is None else found.test_accuracy[-1]
    return Ending(setting, problem, found.sent[-1].states, accuracy)


def accuracy_text(ending: Ending) -> str:
    """Return ``"100.0 % of the common, 77.0 % of the rare classes"``, or the mean and the worst.

    Empty without test samples.
    """
    rare = rare_classes(ending.problem)
    whole = np.ones(len(ending.states), dtype=bool)
    if rare is not None:
        parts = [ending.accuracy_of(~rare), ending.accuracy_of(rare)]
        if None not in parts:
            noun = "class" if rare.sum() == 1 else "classes"
            return f"{percent(parts[0])} of the common, {percent(parts[1])} of the rare {noun}"
    mean = ending.accuracy_of(whole)
    if mean is None or ending.accuracy is None:
        return ""
    worst = int(np.nanargmin(ending.accuracy))
    least = f"{percent(ending.accuracy[worst])} of {named(ending.problem, [worst])}"
    return f"{percent(mean)} on average, {least}"


def percent(share: float | None) -> str:
    """Return a share as a text."""
    return "" if share is None else f"{100 * share:.1f} %"


# -- as predicted, or not --------------------------------------------------------------------------


def _judged(endings: Sequence[Ending]) -> Iterator[str]:
    """Yield whether the networks ended where the theory said; those that did not come first."""
    n = len(endings)
    agrees = [as_predicted(ending.setting) for ending in endings]
    right = agrees.count(True)
    wrong = [ending for ending, right in zip(endings, agrees, strict=True) if right is False]
    if n == 1:
        yield {
            True: "the network ended where the theory said.",
            False: "the network did not end where the theory said.",
            None: "whether the network ended where the theory said is open, see the verdicts.",
        }[agrees[0]]
        return
    if wrong and len(wrong) == n:
        none = "neither of two" if n == 2 else f"not one of {_number(n)}"
        yield f"{none} networks ended where the theory said."
    elif wrong:
        where = shortened_list([_label(ending, endings) for ending in wrong], _MOST_NAMED)
        yield (
            f"{_number(len(wrong))} of {_number(n)} networks did not end where the theory said: "
            f"at {where}."
        )
    if right == n:
        yield f"{'both' if n == 2 else f'all {_number(n)}'} networks ended where the theory said."
    elif right:
        yield f"{_number(right)} of {_number(n)} networks ended where the theory said."
    open_ = n - right - len(wrong)
    if open_:
        yield f"of {_number(open_)} of {_number(n)} networks it is open, see the verdicts."


def _unjudged(run: RunRecord, endings: Sequence[Ending]) -> Iterator[str]:
    """Yield what keeps a verdict from saying all: objectives still high, no certificate, no end."""
    above = [_above(ending) for ending in endings]
    early = [
        f"{100 * share:.0f} %" + (f" ({_label(ending, endings)})" if len(endings) > 1 else "")
        for ending, share in zip(endings, above, strict=True)
        if share is not None and share > _EARLY and as_predicted(ending.setting) is False
    ]
    if early:
        yield (
            f"the objective ended {shortened_list(early, _MOST_NAMED)} above the certified "
            "minimum: training is not done, or is stuck."
        )
    missing = [ending for ending in endings if not certified(ending.setting)]
    if missing:
        labels = shortened_list([_label(ending, endings) for ending in missing], _MOST_NAMED)
        yield f"the prediction at {labels} is not certified."
    rest = len(run.settings) - len(endings)
    if rest:
        total, verb = _number(len(run.settings)), "is" if rest == 1 else "are"
        yield f"{_number(rest)} of {total} networks {verb} not trained to the end."


def _above(ending: Ending) -> float | None:
    """Return how far the objective ended above the certified bound, as a share of it."""
    bound = ending.setting.prediction.get("lower_bound") if ending.setting.prediction else None
    excess = first_and_last(ending.setting)[1].get("excess")
    if not certified(ending.setting) or not bound or excess is None or not np.isfinite(excess):
        return None
    return float(excess) / float(bound)


def _unlike(ending: Ending) -> str:
    """Return in what way groups are not as predicted: their states, or else other numbers."""
    wrong = [v for v in verdicts(ending.setting) if v.get("agrees") is False]
    others = [v for v in wrong if v.get("measured") != v.get("predicted")]
    if others:
        predicted: dict[str, Mask] = {}
        for verdict in others:
            state, own = str(verdict.get("predicted")), _group(ending.problem, verdict)
            predicted[state] = own | predicted.get(state, np.zeros_like(own))
        if len(predicted) == 1 and np.array_equal(next(iter(predicted.values())), ending.fallen):
            return f" (predicted {next(iter(predicted))})"
        parts = [f"{who(ending.problem, own)} {state}" for state, own in predicted.items()]
        return f" (predicted: {', '.join(parts)})"
    if not wrong:
        return ""
    names = [str(name) for verdict in wrong for name in verdict.get("differs") or ()]
    plain = dict.fromkeys("margins" if "margin" in name else name for name in names)
    return f" as predicted, but with other {shortened_list(list(plain) or ['numbers'])}"


def _group(problem: Problem, verdict: Mapping[str, Any]) -> Mask:
    """Return the classes of a verdict; records of earlier versions have their count alone."""
    members = verdict.get("members")
    if members is None:
        return np.asarray(problem.counts == verdict.get("count"))
    return np.isin(np.arange(problem.num_classes), members)


# -- what became of the classes --------------------------------------------------------------------


def _states(endings: Sequence[Ending]) -> Iterator[str]:
    """Yield what became of the classes, from the smallest decay up."""
    ordered = sorted(endings, key=lambda ending: ending.problem.mean_decay)
    runs = [(text, list(own)) for text, own in groupby(ordered, key=_told)]
    for i, (text, own) in enumerate(runs):
        if len(runs) > _MOST_PARTS and 1 < i < len(runs) - 1:
            if i == 2:
                yield f"then in {_number(len(runs) - 3)} further ways"
            continue
        where = _label(own[0], endings)
        if len(own) > 1:
            where += f" to {_label(own[-1], endings).removeprefix('λ = ')}"
        comma = "," if text[0].isdigit() else ""
        before = runs[i - 1][1][-1] if i else None
        yield f"at {where}{comma} {text}{_fall(own[-1], before)}"


def _told(ending: Ending) -> str:
    return ending.states_text + _unlike(ending)


def _fall(ending: Ending, before: Ending | None) -> str:
    """Return what merging, being lost or vanishing did to the test accuracy of the classes."""
    fallen = ending.fallen
    now = ending.accuracy_of(fallen) if fallen.any() else None
    if now is None:
        return ""
    whose = "its" if fallen.sum() == 1 else "their"
    was = None if before is None or (before.fallen & fallen).any() else before.accuracy_of(fallen)
    if was is None:
        return f", {whose} test accuracy {percent(now)}"
    if percent(was) == percent(now):
        return f", and {whose} test accuracy stays {percent(now)}"
    verb = "falls" if now < was else "rises"
    return f", and {whose} test accuracy {verb} from {percent(was)} to {percent(now)}"


def _accuracies(endings: Sequence[Ending]) -> Iterator[str]:
    """Yield test accuracies where no state speaks of them: of classes that stay apart."""
    if len(endings) <= 2 and not any(ending.fallen.any() for ending in endings):
        for ending in endings:
            if text := accuracy_text(ending):
                where = "" if len(endings) == 1 else f" at {_label(ending, endings)}"
                yield f"test accuracy{where}: {text}."
    parts = []
    for ending in endings:
        if ending.accuracy is None:
            continue
        with np.errstate(invalid="ignore"):
            own = ~ending.fallen & (ending.accuracy < LOST_BELOW)
        if own.any():
            parts.append(f"{who(ending.problem, own)} at {_label(ending, endings)}")
    if parts:
        yield (
            "though apart at the means, fewer than half of the test samples are right of "
            f"{shortened_list(parts, _MOST_NAMED)}."
        )


# -- words -----------------------------------------------------------------------------------------


def rare_classes(problem: Problem) -> Mask | None:
    """Return which classes have the smaller of two counts; None where there are not just two."""
    counts = np.asarray(problem.counts)
    sizes = np.unique(counts)
    return counts == sizes[0] if len(sizes) == 2 else None


def who(problem: Problem, classes: Mask) -> str:
    """Return classes as the subject of a sentence: ``"the five rare ones"``, ``"class 7"``."""
    k, n = len(classes), int(classes.sum())
    if n == k:
        return "both classes" if k == 2 else f"all {_number(k)} classes"
    rare = rare_classes(problem)
    for name, group in () if rare is None else (("rare", rare), ("common", ~rare)):
        if np.array_equal(classes, group):
            return f"the {name} one" if n == 1 else f"the {_number(n)} {name} ones"
    if n <= _MOST_NAMED:
        return named(problem, np.flatnonzero(classes).tolist())
    counts = np.asarray(problem.counts)
    if counts[classes].max() < counts[~classes].min():
        return f"the {_number(n)} rarest"
    own = np.unique(counts[classes])
    if len(own) == 1 and not np.any(counts[~classes] == own[0]):
        return f"the {_number(n)} of {own[0]} samples"
    return f"{_number(n)} of {_number(k)} classes"


def named(problem: Problem, classes: Sequence[int]) -> str:
    """Return the names of a few classes: ``"classes 7 and 8"``, ``"cat and dog"``."""
    names = shortened_list(shown_names([problem.name(i) for i in classes]))
    if problem.class_names is not None:
        return names
    return f"class {names}" if len(classes) == 1 else f"classes {names}"


def _label(ending: Ending, endings: Sequence[Ending]) -> str:
    """Return which setting it is: its λ, if no other has the same."""
    label = decay_label(ending.problem)
    same = sum(decay_label(other.problem) == label for other in endings)
    return label if same == 1 else setting_title(ending.setting)


def _number(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
