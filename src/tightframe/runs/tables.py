"""What a report says in words and tables, as plain numbers; no plotting library is imported."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.changes import FEW_GROUPS, class_thresholds
from tightframe.checks import number_of
from tightframe.figures.style import margin_kind
from tightframe.figures.table import Column, Table, format_number
from tightframe.geometry.blocks import Array
from tightframe.geometry.dense import PARTS, Geometry
from tightframe.geometry.states import LOST, MERGED, VANISHED
from tightframe.metrics.classes import ClassTable, class_table
from tightframe.metrics.registry import CENTERINGS, LEADING, METRICS, TO_TARGET
from tightframe.problem.class_names import listed
from tightframe.problem.problem import Problem, terms_in, with_loss_terms
from tightframe.runs.class_records import class_accuracies
from tightframe.runs.store import RunRecord, SettingRecord
from tightframe.theory.thresholds import Thresholds
from tightframe.theory.thresholds import thresholds as closed_forms

if TYPE_CHECKING:
    from tightframe.metrics import CollapseReport

#: What classes do that change to a state; a closed form does not tell merging from vanishing.
_STATE_VERBS = {"": "collapses", MERGED: "merges", LOST: "lost", VANISHED: "vanishes"}

#: Parts of a `tightframe.Geometry` in words.
PART_NAMES = {
    "logits": "logits",
    "classifier": "classifier",
    "means": "class means",
    "centered_means": "centred class means",
}

_SCALARS = {
    "objective": "training objective",
    "excess": "objective above the certified bound",
    "train_accuracy": "training accuracy",
    "test_accuracy": "test accuracy",
}

METRIC_NAMES = {metric.key: metric.label for metric in METRICS if metric.place}


@dataclass(frozen=True)
class MetricRow:
    """One line of the table of a setting.

    Attributes
    ----------
    key : str
        The history column.
    label : str
        The same in words.
    start, end : float or None
        Value at the first and the last measurement; for a part of the geometry that is its
        distance to the prediction. None where there is no value.
    to_predicted, to_etf : float or None
        Of the last measurement: normalised distance of a part of the geometry; absolute difference
        for the objective (to the certified lower bound), the margins and the two metrics that do
        not tend to zero. None where nothing is predicted.
    """

    key: str
    label: str
    start: float | None
    end: float | None
    to_predicted: float | None
    to_etf: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as a dict."""
        return asdict(self)


def metric_rows(setting: SettingRecord) -> list[MetricRow]:
    """Return the table of a setting: metric, start, end, distance to predicted, distance to ETF.

    Parameters
    ----------
    setting : SettingRecord
        May be unfinished: the end is then the last measurement so far.

    Returns
    -------
    list of MetricRow
        Always the same rows for the same groups; numbers that are not there are None.
    """
    first, last = first_and_last(setting)
    rows = []
    for key, label in _SCALARS.items():
        to_predicted = _number(last.get("excess")) if key == "objective" else None
        rows.append(_row(key, label, first, last, to_predicted))
    for part in _parts():
        key, label = f"{part}_to_predicted", f"{PART_NAMES[part]}, distance to predicted"
        etf = _number(last.get(f"{part}_to_etf"))
        rows.append(_row(key, label, first, last, _number(last.get(key)), etf))
    for i, group in enumerate(predicted_groups(setting)):
        key = f"group{i}_margin"
        distance = _difference(last.get(key), group.get("margin"))
        name = "sibling margin" if group["classes"] > 1 else "decision margin"
        rows.append(_row(key, f"{name}, {group_name(group)}", first, last, distance))
    targets = predicted_metrics(setting)
    for key, label in METRIC_NAMES.items():
        distance = _difference(last.get(key), targets.get(key))
        # The ETF is self-dual: the metric itself is the distance.
        etf = _number(last.get(key)) if key == "self_duality" else None
        rows.append(_row(key, label, first, last, distance, etf))
    return rows


def metric_table(setting: SettingRecord, digits: int = 5) -> Table:
    """Return `metric_rows` as a table."""
    numbers = [
        Column(name, align="right", format=f".{digits}g")
        for name in ("start", "end", "to predicted", "to ETF")
    ]
    rows = [[r.label, r.start, r.end, r.to_predicted, r.to_etf] for r in metric_rows(setting)]
    return Table(setting_title(setting), ["metric", *numbers], rows)


def page_tables(setting: SettingRecord) -> list[Table]:
    """Return `metric_rows` as tables without gaps: what is predicted, distances, all the rest."""
    rows = {row.key: row for row in metric_rows(setting)}
    targets: dict[str, float | None] = {"objective": (setting.prediction or {}).get("lower_bound")}
    for i, group in enumerate(predicted_groups(setting)):
        targets[f"group{i}_margin"] = _number(group.get("margin"))
    targets |= predicted_metrics(setting)
    known = {key: value for key, value in targets.items() if value is not None}
    distances = [row for row in rows.values() if row.key.endswith("_to_predicted")]
    apart = {row.key for row in distances} | known.keys()
    measured = [row for row in rows.values() if row.start is not None or row.end is not None]
    rest = [row for row in measured if row.key not in apart]
    gone = [row.label for row in rows.values() if row not in measured]
    tables = [
        (
            "What is predicted",
            ("start", "end", "predicted"),
            [[r.label, r.start, r.end, known[r.key]] for r in measured if r.key in known],
        ),
        (
            "Distances to known geometries",
            ("to predicted, start", "to predicted, end", "to the ETF, end"),
            [
                [r.label.removesuffix(", distance to predicted"), r.start, r.end, r.to_etf]
                for r in distances
                if r in measured
            ],
        ),
        ("Accuracies and collapse", ("start", "end"), [[r.label, r.start, r.end] for r in rest]),
    ]
    return [
        replace(
            Table(title, [title, *(Column(name, align="right") for name in names)], cells),
            missing="no value",
            note=f"Without a value: {', '.join(gone)}."
            if gone and names == ("start", "end")
            else "",
        )
        for title, names, cells in tables
        if cells
    ]


def class_table_of(setting: SettingRecord) -> ClassTable | None:
    """Return what a setting's network does with every class, with its test recall and since when.

    None before it has been trained to the end.
    """
    layer = setting.last_layer()
    if layer is None:
        return None
    test = class_accuracies(setting, "test")
    return class_table(
        replace(layer, held_out=None),  # the record has the recalls of every measurement
        history=class_history(setting),
        recalls=None if test is None or np.isnan(test[1][-1]).all() else test[1][-1],
        problem=setting.problem,
    )


def class_history(setting: SettingRecord) -> list[tuple[int, Array]] | None:
    """Return the epochs and the training accuracies of all classes, for `class_table`.

    None where the record has none.
    """
    found = class_accuracies(setting, "train")
    return None if found is None else list(zip(*found, strict=True))


def leading_table(report: CollapseReport, named_by: str = "label") -> Table:
    """Return the few metrics of a training history and of ``tightframe measure`` as a table.

    Parameters
    ----------
    report : CollapseReport
    named_by : {"label", "key"}
        Whether metrics are called as in texts or as in JSON.
    """
    rows = [[getattr(metric, named_by), report.numbers[metric.key]] for metric in LEADING]
    numbers = Column("value", align="right", format=".6g")
    return Table(
        number_of(report.num_samples, "sample"),
        ["metric", numbers],
        rows,
        CENTERINGS[report.center],
        missing="-",
    )


def distances_by_target(
    report: CollapseReport, targets: Collection[Geometry]
) -> dict[str, dict[str, float]]:
    """Return how far the measured geometry is from others, by their name and by part.

    Without targets these are the frames of the report's rows, in which classes without samples are
    left out.
    """
    found = {target.name: report.distances(target) for target in targets}
    if not found:
        for row in report.rows:
            if row.metric in TO_TARGET and row.part in PARTS:
                found.setdefault(row.target, {})[row.part] = row.value
    return found


def distance_table(report: CollapseReport, targets: Collection[Geometry]) -> Table:
    """Return how far the measured geometry is from others, part by part, as a table."""
    parts = [Column(PART_NAMES[part], align="right", format=".4f") for part in PARTS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a zero matrix has no distance
        found = distances_by_target(report, targets)
    rows = [[name, *(distances.get(part) for part in PARTS)] for name, distances in found.items()]
    notes = [*map(report.head.remark, targets)]
    if report.missing:
        present = len(report.counts) - len(report.missing)
        notes.append(f"Means and logits are those of the {present} classes with samples.")
    title, note = "Normalised Frobenius distance (0 to 2)", " ".join(filter(None, notes))
    return Table(title, ["distance to", *parts], rows, missing="-", note=note)


def group_rows(setting: SettingRecord) -> list[dict[str, Any]]:
    """Return what is said of a setting's class groups: predicted, measured, verdict."""
    limits = setting_thresholds(setting)
    groups = () if limits is None else limits.groups
    found = verdicts(setting)
    rows = []
    for i, group in enumerate(predicted_groups(setting)):
        verdict = found[i] if i < len(found) else {}
        rows.append(
            {
                "name": group_name(group),
                "threshold": groups[i].logit_decay if i < len(groups) else None,
                "places": groups[i].places if i < len(groups) else {},
                "margin": group.get("margin"),
                "predicted": predicted_state(group),
                "measured_margin": verdict.get("measured_margin"),
                "measured": verdict.get("measured"),
            }
        )
    return rows


def group_table(setting: SettingRecord) -> Table:
    """Return `group_rows` as a table, with a column for every state that some group changes to."""
    rows = group_rows(setting)
    states = [state for state in _STATE_VERBS if any(state in row["places"] for row in rows)]
    kind = margin_kind(group["classes"] for group in predicted_groups(setting))
    columns: list[str | Column] = [
        "class group",
        *(Column(f"{_STATE_VERBS[state]} from λ", align="right") for state in states),
        Column(f"predicted {kind}", align="right"),
        Column("predicted", states=True),
        Column(f"measured {kind}", align="right"),
        Column("measured", align="left", states=True),
    ]
    names = ("margin", "predicted", "measured_margin", "measured")
    cells = [
        [row["name"], *map(row["places"].get, states), *(row[name] for name in names)]
        for row in rows
    ]
    return Table(setting_title(setting), columns, cells)


def predicted_metrics(setting: SettingRecord) -> dict[str, float | None]:
    """Return the predicted values of the metrics that do not tend to zero under imbalance.

    These are ``self_duality`` and ``bias_alignment``; both follow from the predicted matrices.
    """
    geometry, arrays = setting.predicted, setting.prediction_arrays
    if geometry is None or arrays is None:
        return {}
    trace, total = float(np.trace(geometry.logits)), float(geometry.logits.sum())
    squares = float(np.trace(geometry.classifier)) * float(np.trace(geometry.centered_means))
    duality = None
    if squares > 0:
        # <W, M> of the classifier and the centred means is the trace of the centred logits.
        cosine = (trace - total / geometry.num_classes) / math.sqrt(squares)
        duality = math.sqrt(max(2.0 - 2.0 * cosine, 0.0))
    alignment = float(np.linalg.norm(arrays["bias"] + geometry.logits.mean(axis=1)))
    return {"self_duality": _number(duality), "bias_alignment": _number(alignment)}


def headline(setting: SettingRecord) -> str:
    """Return one sentence on how a setting ended, or how far it came."""
    if setting.prediction is None:
        return "Not started: there is no prediction yet."
    _, last = first_and_last(setting)
    if not last:
        return "Unfinished: predicted, but nothing measured yet."
    end, ends = ("end", "ends") if setting.finished else ("are", "is")
    parts = [
        f"the logits {end} at distance {format_number(last.get('logits_to_predicted'), 3)} from "
        f"the predicted geometry and {format_number(last.get('logits_to_etf'), 3)} from the ETF"
    ]
    if certified(setting):
        excess, bound = last.get("excess"), setting.prediction.get("lower_bound")
        parts.append(
            f"the objective {ends} {format_number(excess, 3)} above the certified bound "
            f"{format_number(bound)}"
        )
    else:
        parts.append(f"the objective {ends} at {format_number(last.get('objective'))}")
        parts.append("the prediction is not certified")
    found = verdicts(setting)
    if found and setting.finished:
        agreeing = sum(verdict.get("agrees") is True for verdict in found)
        groups = "class group" if len(found) == 1 else "class groups"
        parts.append(f"{agreeing} of {len(found)} {groups} as predicted")
    text = "; ".join(parts) + "."
    if setting.finished:
        return text[0].upper() + text[1:]
    return f"Unfinished, measured up to epoch {format_number(last.get('epoch'))}: {text}"


def setting_title(setting: SettingRecord) -> str:
    """Return what tells a setting from the others: its decays."""
    problem = setting.problem
    if problem is None:
        return setting.name
    decays = dict.fromkeys(problem.weight_decays)
    text = f"weight decay {', '.join(f'{decay:g}' for decay in decays)}, "
    text += f"feature decay {problem.feature_decay:g}"
    return f"{text} (λ = {problem.logit_decay:.3g})" if problem.depth == 1 else text


def predicted_states(setting: SettingRecord) -> str:
    """Return what the theory says of every group: ``"5 classes of 10 merged, ..."``."""
    states = []
    for group in predicted_groups(setting):
        states.append(f"{group_name(group)} {predicted_state(group)}")
    return ", ".join(states)


def predicted_state(group: Mapping[str, Any]) -> str:
    """Return the state that a record predicts for a group."""
    before = "collapsed" if group.get("collapsed") else "distinct"  # records of earlier versions
    return str(group.get("state", before))


def overview(run: RunRecord) -> str:
    """Return one paragraph in plain language on what a run did and found."""
    config = run.config
    count = len(run.settings)
    problem = next((s.problem for s in run.settings if s.problem is not None), None)
    samples = ""
    if problem is not None:
        if len(problem.groups) <= 4:
            sizes = ", ".join(map(group_name, problem_groups(problem)))
        else:
            counts = [group.count for group in problem.groups]
            sizes = f"{min(counts)} to {max(counts)} each"
        samples = (
            f" with {problem.num_samples} training samples in {problem.num_classes} classes "
            f"({sizes})"
        )
    text = (
        f"A network was trained on {config.get('data', 'the data')}{samples}, "
        + (f"{count} times with different decays. " if count != 1 else "once. ")
        + "Before each training the theory stated where the last layer must end: the geometry of "
        "logits, classifier and class means, and a certified lower bound that the training "
        "objective of no network can pass. Then the network was measured against that prediction, "
        "and against the simplex equiangular tight frame (ETF), the answer for balanced classes. "
    )
    done = [setting for setting in run.settings if setting.finished]
    right = sum(all(v.get("agrees") is True for v in verdicts(s)) for s in done)
    if not done:
        return text + "No setting is finished yet."
    settings = "setting" if len(done) == 1 else "settings"
    text += f"In {right} of {len(done)} finished {settings} all class groups behave as predicted."
    missing = count - len(done)
    if missing:
        text += f" {missing} {'setting is' if missing == 1 else 'settings are'} unfinished."
    return text


def certified(setting: SettingRecord) -> bool:
    """Return whether the prediction is a certified optimum."""
    prediction = setting.prediction or {}
    return prediction.get("status") == "optimal" and _number(prediction.get("gap")) is not None


def verdicts(setting: SettingRecord) -> list[dict[str, Any]]:
    """Return the verdicts of a setting's result, one a group; none for an unfinished setting."""
    return list((setting.result or {}).get("verdicts") or [])


def as_predicted(setting: SettingRecord) -> bool | None:
    """Return whether all groups of a setting ended as predicted; None where that is open."""
    found = [verdict.get("agrees") for verdict in verdicts(setting)]
    if False in found:
        return False
    return True if found and None not in found else None


def predicted_groups(setting: SettingRecord) -> list[dict[str, Any]]:
    """Return the predicted groups, see `SettingRecord.prediction`."""
    return list((setting.prediction or {}).get("groups") or [])


def problem_groups(problem: Problem) -> list[dict[str, Any]]:
    """Return what `group_name` needs of every group of a problem."""
    return [
        {**group._asdict(), **terms}
        for group, terms in zip(problem.groups, problem.group_terms, strict=True)
    ]


def setting_thresholds(setting: SettingRecord) -> Thresholds | None:
    """Return the collapse thresholds of a setting's problem, None where the theory has none."""
    return None if setting.problem is None else _thresholds(setting.problem)


@lru_cache(maxsize=64)  # a page and its tables ask for the same ones
def _thresholds(problem: Problem) -> Thresholds | None:
    try:
        few = len(problem.groups) <= FEW_GROUPS
        return (class_thresholds if few else closed_forms)(problem)
    except ValueError:
        return None


def group_name(group: Mapping[str, Any]) -> str:
    """Return a group in words: ``"5 classes of 100"``, ``"5 classes of 100 with weight 5"``."""
    classes = int(group["classes"])
    many = "class" if classes == 1 else "classes"
    name = with_group_terms(f"{classes} {many} of {int(group['count'])}", group)
    return f"{name} ({listed(group['names'])})" if group.get("names") else name


def with_group_terms(name: str, group: Mapping[str, Any]) -> str:
    """Add a group's class weight and the like to its name; old records have none."""
    return with_loss_terms(name, **terms_in(group))


def _parts() -> list[str]:
    # The logits first: they decide what the network answers.
    return ["logits", *(part for part in PARTS if part != "logits")]


def first_and_last(setting: SettingRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first and the last measurement, column by column."""
    history = setting.history
    if history is not None and len(history):
        first, last = history.iloc[0], history.iloc[-1]
        return {str(k): v for k, v in first.items()}, {str(k): v for k, v in last.items()}
    result = setting.result or {}
    return dict(result.get("first") or {}), dict(result.get("last") or {})


def _row(
    key: str,
    label: str,
    first: Mapping[str, Any],
    last: Mapping[str, Any],
    to_predicted: float | None = None,
    to_etf: float | None = None,
) -> MetricRow:
    start, end = _number(first.get(key)), _number(last.get(key))
    return MetricRow(key, label, start, end, to_predicted, to_etf)


def _number(value: Any) -> float | None:
    """Return a float, infinity included; None for what is no number."""
    return None if value is None or math.isnan(value) else float(value)


def _difference(value: Any, target: Any) -> float | None:
    a, b = _number(value), _number(target)
    return None if a is None or b is None or not math.isfinite(a - b) else abs(a - b)
