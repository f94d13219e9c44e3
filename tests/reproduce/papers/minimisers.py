"""The results of the papers' figures as if all training had ended in the certified minimiser."""

import functools
import json

import numpy as np
import pandas as pd

from tightframe.geometry.dense import PARTS
from tightframe.problem.problem import Problem
from tightframe.reproduce.results import Results, TaskResult
from tightframe.reproduce.spec import papers
from tightframe.reproduce.tasks import run_task
from tightframe.runs.config import RunConfig
from tightframe.training.callbacks import ERRORS


@functools.cache
def _solved(kind, arguments):
    """Solve once what many tests change afterwards."""
    return run_task(kind, json.loads(arguments), "")


def of(what):
    """Restrict a change to the rows and arrays of tasks with that label ``what``."""

    def restrict(change):
        def changed(task, rows, arrays, history):
            if task.labels["what"] == what:
                change(rows, arrays)

        return changed

    return restrict


def trained(change):
    """Restrict a change to the rows and arrays of the UFM and networks."""

    def changed(task, rows, arrays, history):
        if task.kind not in ("solve", "path"):
            change(rows, arrays)

    return changed


def failed(result, reason="diverged: a reason"):
    """The same task, failed as a whole."""
    rows = pd.DataFrame([{"row": 0, "status": "failed", "reason": reason}])
    return TaskResult(result.task, rows, pd.DataFrame(), dict)


def last_failed(result, reason="diverged: a reason"):
    """The same task, its last run failed."""
    rows = result.rows.astype({"reason": object})
    rows.loc[rows.index[-1], ["status", "reason"]] = ["failed", reason]
    return TaskResult(result.task, rows, result.history, result.read_arrays)


def outcomes(verdicts):
    return [verdict.outcome for verdict in verdicts]


class Minimisers:
    """The figures of a paper with minimisers in the place of what is trained.

    Parameters
    ----------
    paper : str
    columns : callable
        Task and its rows to what training adds to these rows.
    history : callable
        Task to the history of one run.
    quick : dict
        Figure to its scale here, where the usual one is slow.
    **options
        Arguments of the solve tasks.
    """

    def __init__(self, paper, columns, history, quick=None, **options):
        self.figures = {figure.name: figure for figure in papers()[paper].figures}
        self.columns, self.history = columns, history
        self.quick, self.options = quick or {}, options

    def _output(self, task):
        if task.kind == "path":
            return _solved("path", json.dumps(task.arguments))
        problems = task.arguments.get("problems")
        if problems is None:
            config = RunConfig.from_dict(task.arguments["config"])
            problems = [problem.to_dict() for problem in config.problems]
        narrow = []
        for values in problems:
            problem = Problem(**values)
            wide = problem.width is None or problem.width >= problem.num_classes
            values = {**values, "dim": None if wide else values["dim"]}
            # Descent without decays tends to the direction without a bias.
            narrow.append(values | {"bias": "none"} if task.arguments.get("normalized") else values)
        arguments = {"problems": narrow, "arrays": True, **self.options}
        return _solved("solve", json.dumps(arguments))

    def result(self, task, change=None):
        """What a task gives if training ends in the minimiser, then changed."""
        output = self._output(task)
        seeds = len(task.arguments.get("seeds", [0]))
        rows = pd.DataFrame(output.rows)
        rows = rows.loc[rows.index.repeat(seeds)].reset_index(drop=True)
        rows["row"] = rows.index
        arrays = {}
        for name, value in output.arrays.items():
            kind, _, number = name.rpartition("_")
            for i in range(seeds * int(number), seeds * int(number) + seeds):
                arrays[f"{kind}_{i}"] = value
        history = pd.DataFrame()
        if task.kind not in ("solve", "path"):
            rows = rows.assign(
                iterations=task.arguments.get("iterations"), **self.columns(task, rows)
            )
            arrays |= {f"predicted_logits_{i}": arrays[f"logits_{i}"] for i in rows.index}
            table = pd.DataFrame(self.history(task))
            history = pd.concat([table.assign(row=i) for i in rows.index])
        if change is not None:
            change(task, rows, arrays, history)
        return TaskResult(task, rows, history, lambda: arrays)

    def ideal(self, name, scale=None, change=None):
        """The results of a figure, changed by ``change(task, rows, arrays, history)``."""
        scale = scale or self.quick.get(name, "cpu")
        tasks = self.figures[name].tasks(scale)
        return Results(scale, tuple(self.result(task, change) for task in tasks))

    def judged(self, name, scale=None, change=None):
        """The outcomes of a figure's verdicts on these results."""
        return outcomes(self.figures[name].judge(self.ideal(name, scale, change)))


# -- what training adds, paper by paper ------------------------------------------------------------

_ZERO = {f"{part}_to_predicted": 1e-5 for part in PARTS} | {"logits_to_etf": 1e-5, "nc1": 1e-5}
_DISTANCES = [
    "means_to_predicted",
    "classifier_to_predicted",
    "logits_to_predicted",
    "classifier_to_etf",
    "means_to_orthogonal_frame",
]
_GROUPS = [
    *(f"group{i}_{name}_norm" for i in range(5) for name in ("classifier", "means")),
    *(
        f"group{i}_group{j}_{name}_cosine"
        for i in range(5)
        for j in range(5)
        for name in ("classifier", "means")
    ),
]
_COLLAPSED = {
    "nc1": 1e-3,
    "classifier_to_etf": 1e-3,
    "self_duality": 1e-3,
    "bias_alignment": 1e-3,
    "train_accuracy": 1.0,
    "test_accuracy": 0.95,
}
_REACHED = {
    "nc1": 1e-12,
    "excess": 1e-12,
    "classifier_to_etf": 1e-8,
    "centered_means_to_etf": 1e-8,
    "logits_to_etf": 1e-8,
}


def _always(**columns):
    return lambda task, rows: columns


def _falling(values, names, **times):
    """Let measurements of these names take the same values over time."""
    return lambda task: {**times, **{name: list(values) for name in names}}


def _zhu(task, rows):
    if task.kind == "ufm":
        return {**_REACHED, "status": "converged"}
    columns = {**_COLLAPSED, "status": "trained"}
    if "width" in task.labels:  # random labels
        wide = task.labels["width"] >= {"MLP": 64, "ResNet18": 8}[task.labels["network"]]
        columns |= {"test_accuracy": 0.11, "train_accuracy": 1.0 if wide else 0.5}
        columns["nc1"] = 1e-3 if wide else 10.0
    return columns


def _later_with_the_imbalance(task):
    arrived = 10 * task.labels["ratio"]
    points = [0, 1, arrived, 2 * arrived]
    columns = {"iteration": points, "epoch": points}
    for part in PARTS:
        columns |= {f"{part}_to_predicted": [1.0, 0.5, 1e-3, 1e-6]}
        columns |= {f"{part}_to_{frame}": [1.0, 0.5, 0.4, 0.4] for frame in ("seli", "etf")}
    return columns


MINIMISERS = {
    "zhu": Minimisers(
        "zhu",
        _zhu,
        _falling(
            [1.0, 0.1, 0.01],
            [*_COLLAPSED, "excess", "logits_to_etf"],
            epoch=[0, 1, 2],
            iteration=[0, 1, 2],
        ),
        # Scales of the landscape differ in how many runs there are; its verdicts take seconds.
        quick={"landscape": "smoke"},
    ),
    "thrampoulidis": Minimisers(
        "thrampoulidis",
        _always(status="converged", nc1=1e-6, test_accuracy=0.9),
        _later_with_the_imbalance,
    ),
    "dang-2023": Minimisers(
        "dang-2023",
        _always(
            seed=0,
            excess=0.0,
            test_accuracy=0.9,
            status="converged",
            partial_to_predicted=1e-5,
            **_ZERO,
        ),
        _falling([1.0, 1e-5], _ZERO, epoch=[0, 9], iteration=[1, 9]),
        quick={"deep-ce": "smoke"},
        starts=1,
    ),
    "hong-ling": Minimisers(
        "hong-ling",
        _always(nc1=1e-4, train_accuracy=1.0, test_accuracy=0.9, status="converged"),
        _falling([1.0, 1e-4], ["nc1", *ERRORS], epoch=[0, 9]),
    ),
    "dang-2024": Minimisers(
        "dang-2024",
        _always(
            excess=0.0,
            nc1=1e-20,
            test_accuracy=0.9,
            status="converged",
            **dict.fromkeys(_DISTANCES, 1e-9),
        ),
        _falling(
            [1.0, 0.1, 1e-3],
            ["nc1", "self_duality_to_predicted", *_DISTANCES, *_GROUPS],
            iteration=[0, 1, 9],
            epoch=[0, 1, 9],
        ),
    ),
}

#: Every figure, as ``(paper, figure)``.
ALL = [(paper, name) for paper, own in MINIMISERS.items() for name in own.figures]


def spoilt(task, rows, arrays, history, first=0):
    """As if a task had given nonsense, from one of its runs on."""
    rng = np.random.default_rng(0)
    for name in rows.columns:
        # What was to be solved stays.
        if rows[name].dtype.kind == "f" and not name.endswith(("_decay", "lambda", "_threshold")):
            rows.loc[first:, name] = 1e3
    if task.kind in ("solve", "path"):
        rows.loc[first:, "status"] = "local"
    for name, value in arrays.items():
        if int(name.rpartition("_")[2]) >= first:
            arrays[name] = rng.normal(size=np.shape(value)) * 10


def last_spoilt(task, rows, arrays, history):
    """As if the last run of a task had given nonsense."""
    spoilt(task, rows, arrays, history, len(rows) - 1)
