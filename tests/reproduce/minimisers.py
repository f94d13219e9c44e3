"""The results of a paper's figures as if all training had ended in the certified minimiser."""

import functools
import json

import pandas as pd

from tightframe.reproduce.spec import Results, TaskResult
from tightframe.reproduce.tasks import run_task
from tightframe.runs.config import RunConfig


@functools.cache
def _solved(arguments):
    """Solve once what many tests change afterwards."""
    return run_task("solve", json.loads(arguments), "")


def of(what):
    """Restrict a change to the rows and arrays of tasks with that label ``what``."""

    def restrict(change):
        def changed(task, rows, arrays):
            if task.labels["what"] == what:
                change(rows, arrays)

        return changed

    return restrict


def trained(change):
    """Restrict a change to the rows and arrays of the UFM and networks."""

    def changed(task, rows, arrays):
        if task.kind != "solve":
            change(rows, arrays)

    return changed


class Minimisers:
    """The figures of a paper with minimisers in the place of what is trained.

    Parameters
    ----------
    paper : Paper
    columns : dict
        What training adds to the rows of a solution.
    history : DataFrame
        The history of every task.
    **options
        Arguments of the solve tasks.
    """

    def __init__(self, paper, columns, history, **options):
        self.figures = {figure.name: figure for figure in paper.figures}
        self.columns, self.history, self.options = columns, history, options

    def _result(self, task, change):
        problems = task.arguments.get("problems")
        if problems is None:
            problems = [p.to_dict() for p in RunConfig.from_dict(task.arguments["config"]).problems]
        arguments = {"problems": problems, "arrays": True, **self.options}
        output = _solved(json.dumps(arguments))
        rows, arrays = pd.DataFrame(output.rows), dict(output.arrays)
        if task.kind != "solve":
            rows = rows.assign(iterations=task.arguments.get("iterations"), **self.columns)
            for i in range(len(rows)):
                arrays[f"predicted_logits_{i}"] = arrays[f"logits_{i}"]
        if change is not None:
            change(task, rows, arrays)
        return TaskResult(task, rows, self.history, lambda: arrays)

    def ideal(self, name, scale="cpu", change=None):
        """The results of a figure, changed by ``change(task, rows, arrays)``."""
        tasks = self.figures[name].tasks(scale)
        return Results(scale, tuple(self._result(task, change) for task in tasks))

    def outcomes(self, name, results):
        """The outcomes of a figure's verdicts."""
        return [verdict.outcome for verdict in self.figures[name].judge(results)]
