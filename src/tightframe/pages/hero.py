"""The first screen of a run's report: its outcome, wheels that play, classes, the timeline."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np
from markupsafe import Markup

from tightframe.checks import number_of
from tightframe.figures import svg
from tightframe.figures.diagrams import Wheel
from tightframe.figures.style import STATES
from tightframe.geometry.blocks import Array
from tightframe.metrics.wheels import sent_by_network
from tightframe.problem.class_names import shown_names
from tightframe.problem.problem import Problem
from tightframe.runs.class_records import ClassEpochs, class_epochs
from tightframe.runs.outcome import accuracy_text, ending_of, outcome
from tightframe.runs.store import RunRecord, SettingRecord
from tightframe.runs.tables import group_name, problem_groups, setting_title, verdicts
from tightframe.runs.wheels import setting_wheel
from tightframe.views.wheel import class_homes, decay_label

#: Classes times epochs on a page: of more, epochs are left out; of more than the other, what is
#: said of a mark that is pointed at is said at the end only.
_MOST_MOMENTS, _MOST_TIPS = 3000, 1500

#: Wheels that are seen at once, rows that are seen at once and at all, groups that are named.
_WHEELS, _ROWS, _MOST_ROWS, _GROUPS = 2, 10, 100, 4

#: Stands where there is nothing.
_NONE = "\u2013"

#: Names on the timeline.
_TICKS = 7

_MEANINGS = {
    "merged": "one prediction for several classes",
    "lost": "taken for another class",
    "vanished": "no decision",
}

#: Letters of a name in the table.
_NAME_WIDTH = 22

#: Size of the curves of the timeline, before it is stretched.
_WIDE, _HIGH = 1000, 60


@dataclass(frozen=True, eq=False)
class _Shown:
    """A setting with what is shown of it."""

    setting: SettingRecord
    problem: Problem
    found: ClassEpochs
    wheel: Wheel
    predicted: Array

    @property
    def label(self) -> str:
        return decay_label(self.problem)

    @property
    def states(self) -> list[list[str]]:
        """States of the classes, a row an epoch."""
        return [sent.states.state.tolist() for sent in self.found.sent]

    @property
    def margins(self) -> list[Array]:
        return [sent.states.decision_margin for sent in self.found.sent]


def hero_view(run: RunRecord) -> dict[str, Any]:
    """Return what the template shows of a run first; no wheels before anything is measured."""
    shown = [one for one in (_shown(s, len(run.settings)) for s in run.settings) if one is not None]
    # What belongs together stays in one line.
    text = outcome(run).replace(" = ", "\u00a0=\u00a0").replace(" %", "\u00a0%")
    view: dict[str, Any] = {"kicker": _kicker(run), "outcome": text}
    if not shown:
        return view | {"wheels": []}
    part = "test" if any(one.found.test_accuracy is not None for one in shown) else "training"
    if part == "training" and all(one.found.train_accuracy is None for one in shown):
        part = ""
    epochs = sorted({epoch for one in shown for epoch in one.found.epochs})
    chosen = _chosen(shown)
    rows = _worst_first(shown[chosen], part)[:_MOST_ROWS]
    states = [s for s in STATES if any(s in one.wheel.shown_states for one in shown)]
    # The chosen one, and beside it the first of the others.
    open_ = sorted({chosen, *[i for i in range(len(shown)) if i != chosen][: _WHEELS - 1]})
    data = {
        "epochs": epochs,
        "rows": _ROWS if len(rows) > 2 * _ROWS else len(rows),
        "states": list(STATES),
        "settings": [_data(one, rows, part) for one in shown],
        "chosen": chosen,
        "open": open_,
    }
    return view | {
        "head": Markup(svg.head()),
        "key": Markup(svg.state_key(states, "predicted, before training", _MEANINGS)),
        "wheels": [_wheel_view(one, i, i in open_) for i, one in enumerate(shown)],
        "chosen": chosen,
        "label": shown[chosen].label,
        "epochs": epochs,
        "table": _table(shown[chosen], rows, part),
        "part": part,
        "taken": any(one.found.taken_for is not None for one in shown),
        "more": len(rows) > 2 * _ROWS,
        "timeline": _timeline(shown, epochs, chosen),
        "notes": _notes(run, shown, rows, part),
        "data": Markup(_json(data)),
        "style": Markup(_file("hero.css")),
        "script": Markup(_file("hero.js")),
    }


def _file(name: str) -> str:
    return files("tightframe.pages").joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")


def _shown(setting: SettingRecord, settings: int) -> _Shown | None:
    problem, predicted = setting.problem, setting.prediction_arrays
    if problem is None or predicted is None:
        return None
    homes = class_homes(problem)
    found = class_epochs(setting, homes, _MOST_MOMENTS // (settings * problem.num_classes))
    wheel = None if found is None else setting_wheel(setting, found)
    if found is None or wheel is None:
        return None
    if settings * len(wheel.names) * len(wheel.moments) > _MOST_TIPS:
        *early, end = wheel.moments
        wheel = replace(wheel, moments=[*(replace(m, tips=(), takers=()) for m in early), end])
    sent = sent_by_network(problem, predicted["logits"], predicted["bias"], homes)
    return _Shown(setting, problem, found, wheel, sent.states.decision_margin)


def _kicker(run: RunRecord) -> str:
    """Return what was trained, in a line."""
    config, parts = run.config, ["tightframe run", str(run.config.get("data", "data"))]
    problem = next((s.problem for s in run.settings if s.problem is not None), None)
    if problem is not None:
        groups = problem_groups(problem)
        sizes = [group_name(group | {"names": ()}) for group in groups]
        counts = problem.counts
        parts.append(
            f"{' and '.join(sizes)} samples"
            if len(groups) <= _GROUPS
            else f"{problem.num_classes} classes of {counts.min()} to {counts.max()} samples"
        )
    parts.append(number_of(len(run.settings), "setting"))
    if config.get("epochs") is not None:
        parts.append(f"{config['epochs']} epochs")
    return " · ".join(parts)


def _chosen(shown: Sequence[_Shown]) -> int:
    """Return the setting that is looked at first: not as predicted, or the least accurate."""

    def badness(one: _Shown) -> tuple[bool, float]:
        right = all(verdict.get("agrees") is not False for verdict in verdicts(one.setting))
        ending = ending_of(one.setting)
        known = None if ending is None else ending.accuracy
        return right, math.inf if known is None else float(np.nanmean(known))

    return min(range(len(shown)), key=lambda i: badness(shown[i]))


def _wheel_view(one: _Shown, i: int, shown: bool) -> dict[str, Any]:
    counts = one.found.sent[-1].states.counts
    states = [(state, counts[state]) for state in STATES if state in counts]
    ending = ending_of(one.setting)
    return {
        "name": f"wheel{i}",
        "label": one.label,
        "decays": _decays(one),
        "picture": Markup(svg.draw(one.wheel, f"wheel{i}", bare=True, drawn=shown)),
        "states": states,
        "accuracy": "" if ending is None else accuracy_text(ending),
        "finished": one.setting.finished,
        "shown": shown,
    }


def _decays(one: _Shown) -> str:
    if one.problem.depth > 1:
        return setting_title(one.setting)
    return f"decays {one.problem.weight_decay:g}, {one.problem.feature_decay:g}"


# -- the table -------------------------------------------------------------------------------------


def _shares(one: _Shown, part: str) -> Array | None:
    return {"test": one.found.test_accuracy, "training": one.found.train_accuracy}.get(part)


def _worst_first(one: _Shown, part: str) -> list[int]:
    """Return the classes at the last epoch by accuracy, then by margin."""
    shares = _shares(one, part)
    last = np.full(one.problem.num_classes, np.nan) if shares is None else shares[-1]
    keys = (one.margins[-1], np.where(np.isnan(last), 2.0, last))
    return [int(k) for k in np.lexsort(keys)]


def _table(one: _Shown, rows: Sequence[int], part: str) -> list[dict[str, Any]]:
    """Return the rows of the table at the last epoch, as the script would write them."""
    states, margins, shares = one.states[-1], one.margins[-1], _shares(one, part)
    names = shown_names([one.problem.name(k) for k in rows], _NAME_WIDTH)
    view = []
    for place, (k, name) in enumerate(zip(rows, names, strict=True)):
        share = None if shares is None else _number(shares[-1][k], 3)
        view.append(
            {
                "class": k,
                "name": name,
                "count": int(one.problem.counts[k]),
                "state": states[k],
                "sign": Markup(svg.sign(states[k])) if states[k] in STATES else "",
                "margin": _fixed(margins[k]),
                "predicted": _fixed(one.predicted[k]),
                "share": share,
                # Halves up, as in the script.
                "percent": _NONE if share is None else f"{math.floor(100 * share + 0.5)} %",
                "taken": _taken(one, k),
                "hidden": len(rows) > 2 * _ROWS and place >= _ROWS,
            }
        )
    return view


def _taken(one: _Shown, k: int) -> tuple[str, str] | None:
    """Return what a class's test samples are taken for at the end, and how many of them."""
    who, share = one.found.taken_for, one.found.taken_share
    if who is None or share is None or who[k] < 0:
        return None
    name = shown_names([one.problem.name(int(who[k]))], _NAME_WIDTH)[0]
    return name, f"{100 * share[k]:.0f} %"


def _data(one: _Shown, rows: Sequence[int], part: str) -> dict[str, Any]:
    """Return what the script writes into the table, for the classes of its rows."""
    shares, numbers = _shares(one, part), {state: i for i, state in enumerate(STATES)}
    return {
        "label": one.label,
        "epochs": one.found.epochs,
        "states": [[numbers.get(own[k], -1) for k in rows] for own in one.states],
        "margins": [[_number(own[k], 2) for k in rows] for own in one.margins],
        "predicted": [_number(one.predicted[k], 2) for k in rows],
        "shares": None
        if shares is None
        else [[_number(own[k], 3) for k in rows] for own in shares],
        "taken": [_taken(one, k) for k in rows],
    }


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) + 0.0 if math.isfinite(value) else None


def _fixed(value: float) -> str:
    return _NONE if not math.isfinite(value) else f"{round(float(value), 2) + 0.0:.2f}"


# -- the timeline ----------------------------------------------------------------------------------


def _timeline(shown: Sequence[_Shown], epochs: Sequence[int], chosen: int) -> dict[str, Any] | None:
    """Return the objectives above their bounds as curves, None where only one epoch is known."""
    if len(epochs) < 2:
        return None
    curves = [_excess(one.setting, epochs) for one in shown]
    values = np.concatenate([y for _, y in curves])
    low, high = 0.0, 1.0
    marks = []
    if len(values):
        low, high = math.log10(values.min()), math.log10(values.max())
        high += 0.02 + (high - low < 0.1)
        step = max(math.ceil((high - low) / 3), 1)
        decades = range(math.ceil(low), math.floor(high) + 1)
        marks = [
            (f"{10.0**e:g}", round(100 * (high - e) / (high - low), 1))
            for e in decades
            if (decades[-1] - e) % step == 0
        ]
    lines = []
    for i, (x, y) in enumerate(curves):
        points = " ".join(
            f"{_WIDE * p / (len(epochs) - 1):.1f},{_HIGH * (high - q) / (high - low):.1f}"
            for p, q in zip(x, np.log10(y), strict=True)
        )
        lines.append({"points": points, "setting": i, "chosen": i == chosen})
    places = np.unique(np.linspace(0, len(epochs) - 1, _TICKS).round().astype(int)).tolist()
    ticks = [(epochs[p], round(100 * p / (len(epochs) - 1), 2)) for p in places]
    box = f"0 0 {_WIDE} {_HIGH}"
    return {"lines": lines, "marks": marks, "ticks": ticks, "box": box, "known": bool(len(values))}


def _excess(setting: SettingRecord, epochs: Sequence[int]) -> tuple[Array, Array]:
    """Return places on the timeline and the objective above the certified bound there."""
    history = setting.history
    if history is None or "excess" not in history:
        return np.empty(0), np.empty(0)
    values: Array = history["excess"].to_numpy(dtype=np.float64)
    there = np.isfinite(values) & (values > 0)  # on a log scale
    at: Array = np.interp(history["epoch"].to_numpy(), epochs, np.arange(float(len(epochs))))
    return at[there], values[there]


def _notes(run: RunRecord, shown: Sequence[_Shown], rows: Sequence[int], part: str) -> list[str]:
    """Return what is to be known of the picture."""
    notes = [
        "Every class has a home on the rim. A mark shows where its samples are sent: the mean of "
        "the homes, weighted with the predicted probabilities at the class mean. On the rim: "
        "certain. At the cross: no decision. Dashed rings: the prediction, made before training. "
        "States are judged on all classes, not by places in the plane."
    ]
    if not all(one.found.recorded for one in shown):
        notes.append(
            "This record has no classes.npz, which earlier versions did not write: its classes are "
            "shown at the end only."
        )
    if part == "training":
        notes.append("There are no test samples: the accuracies are those of training samples.")
    missing = len(run.settings) - len(shown)
    if missing:
        verb = "setting has" if missing == 1 else "settings have"
        notes.append(f"{missing} {verb} no measured classes and no wheel yet.")
    total = shown[0].problem.num_classes
    if total > len(rows):
        notes.append(f"The table has the {len(rows)} worst of {total} classes at the end.")
    return notes
