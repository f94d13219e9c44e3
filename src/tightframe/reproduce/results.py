"""What the tasks of a figure gave, as typed runs: the input of judging and drawing.

A `Run` is one solution, one trained UFM or one network, whether it ended well or not: every run
that a task was to give is there, and one that failed says why. The tables on disk have a column a
quantity (`tightframe.reproduce.tasks`); this is the one place that reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.dense import Geometry
from tightframe.problem.problem import Problem
from tightframe.reproduce.spec import Task
from tightframe.reproduce.tasks import GRAMS, Planned, planned
from tightframe.theory.thresholds import overall_decay

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: Status of a run that gave nothing, see `Run.reason`.
FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Run:
    """One solution, trained UFM or network of a task.

    Attributes
    ----------
    result : TaskResult
        Of the task that it belongs to.
    number : int
        Which of the task's runs it is, from 0 on.
    values : dict
        Column to value of its row, see `tightframe.reproduce.tasks`; empty if there is none.
    reason : str or None
        Why it failed; None if it ended.
    """

    result: TaskResult
    number: int
    values: Mapping[str, Any]
    reason: str | None

    @property
    def task(self) -> Task:
        """The task that it belongs to."""
        return self.result.task

    @property
    def labels(self) -> Mapping[str, Any]:
        """The labels of its task."""
        return self.result.task.labels

    @property
    def failed(self) -> bool:
        """Whether it gave nothing to judge."""
        return self.reason is not None

    @property
    def status(self) -> str:
        """``"failed"``, or how it ended: ``"optimal"``, ``"converged"``, ``"trained"`` ..."""
        return FAILED if self.failed else str(self.values["status"])

    @cached_property
    def problem(self) -> Problem:
        """What was to be solved; known of failed runs as well.

        Raises
        ------
        ValueError
            If the task's arguments are no problem, which is why it failed.
        """
        return self.result.planned[self.number].problem()

    @property
    def seed(self) -> int:
        """Seed of its starting values."""
        return self.result.planned[self.number].seed

    @property
    def decay(self) -> float:
        """Lambda of the problem; of several layers the geometric mean of all decays."""
        return overall_decay(self.problem)

    def measured(self, name: str) -> float:
        """Return a number of its row; NaN if it has none or has failed."""
        value = None if self.failed else self.values.get(name)
        return math.nan if value is None else float(value)

    def text(self, name: str) -> str | None:
        """Return a text of its row; None if it has none."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    @property
    def objective(self) -> float:
        """Where it ended."""
        return self.measured("objective")

    @property
    def excess(self) -> float:
        """By how much that is above the predicted minimum, over it."""
        return self.measured("excess") / self.measured("predicted_objective")

    @property
    def margins(self) -> Array:
        """Measured margin inside every group of interchangeable classes, shape (G,)."""
        return self._of_groups("margin")

    @property
    def predicted_margins(self) -> Array:
        """What the theory gives in their place."""
        return self._of_groups("predicted_margin")

    def _of_groups(self, name: str) -> Array:
        groups = range(len(self.problem.groups))
        return np.array([self.measured(f"group{g}_{name}") for g in groups])

    def cosine(self, i: int, j: int) -> float:
        """Return the mean cosine between mean logits of different classes of two groups."""
        return self.measured(f"cosine_{i}_{j}")

    def predicted_cosine(self, i: int, j: int) -> float:
        """Return what the theory gives in its place."""
        return self.measured(f"predicted_cosine_{i}_{j}")

    @cached_property
    def history(self) -> pd.DataFrame:
        """Its measurements on the way, possibly none."""
        table: pd.DataFrame = self.result.history
        return table[table["row"] == self.number] if len(table) else table

    def array(self, name: str) -> Array:
        """Return an array that it kept, for example its ``"logits"``.

        Raises
        ------
        KeyError
            If the task did not keep it (``arrays`` in its arguments).
        """
        return self.result.arrays[f"{name}_{self.number}"]

    @cached_property
    def geometry(self) -> Geometry:
        """What was measured, up to rotation."""
        return Geometry(self.task.kind, *(self.array(name) for name in GRAMS))


@dataclass(frozen=True, eq=False)
class TaskResult:
    """What one task gave.

    Attributes
    ----------
    task : Task
    rows : DataFrame
        One row a run, numbered by ``row``; a task that failed as a whole has one row of status
        ``"failed"``.
    history : DataFrame
        Measurements on the way, ``row`` says whose; empty without any.
    read_arrays : callable
        Reads the named arrays.
    """

    task: Task
    rows: pd.DataFrame
    history: pd.DataFrame
    read_arrays: Callable[[], dict[str, NDArray[Any]]]

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by ``<name>_<row>``, read when first asked for."""
        return self.read_arrays()

    @cached_property
    def planned(self) -> list[Planned]:
        """The runs that the task was to give."""
        return planned(self.task)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Every run that the task was to give; those without a row have failed, too."""
        rows = {int(row["row"]): row for row in self.rows.to_dict("records")}
        lost = [row["reason"] for row in rows.values() if row["status"] == FAILED]
        found = []
        for i in range(len(self.planned)):
            row = {str(key): v for key, v in rows.get(i, {}).items() if not _missing(v)}
            reason = None
            if not row:
                reason = str(lost[0]) if lost else "its row is missing"
            elif row["status"] == FAILED:
                reason = str(row.get("reason", "unknown"))
            found.append(Run(self, i, row, reason))
        return tuple(found)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


@dataclass(frozen=True, eq=False)
class Results:
    """What the tasks of a figure gave: the input of `Figure.judge` and `Figure.draw`.

    Attributes
    ----------
    scale : {"smoke", "cpu", "paper"}
    tasks : tuple of TaskResult
        In the figure's order.
    """

    scale: str
    tasks: tuple[TaskResult, ...]

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Every run of all tasks, failed ones too."""
        return tuple(run for result in self.tasks for run in result.runs)

    @property
    def done(self) -> tuple[Run, ...]:
        """The runs that ended, converged or not."""
        return tuple(run for run in self.runs if not run.failed)

    @property
    def failed(self) -> tuple[Run, ...]:
        """The runs that gave nothing."""
        return tuple(run for run in self.runs if run.failed)

    def select(self, kind: str | None = None, **labels: Any) -> Results:
        """Return the results of the tasks of a kind and with these labels; possibly of none."""
        chosen = tuple(
            result
            for result in self.tasks
            if kind in (None, result.task.kind)
            and all(result.task.labels.get(name) == value for name, value in labels.items())
        )
        return Results(self.scale, chosen)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Final rows of all tasks with their labels, ``kind`` and ``task`` (its number)."""
        import pandas as pd

        tables = []
        for i, result in enumerate(self.tasks):
            if len(result.rows):
                own = {"task": i, "kind": result.task.kind, **result.task.labels}
                rest = result.rows.drop(columns=[name for name in own if name in result.rows])
                tables.append(rest.assign(**own)[[*own, *rest.columns]])
        # Columns without any value would decide the type of the joined ones.
        tables = [table.dropna(axis="columns", how="all") for table in tables]
        if not tables:
            return pd.DataFrame({"task": [], "kind": [], "row": [], "status": []})
        joined: pd.DataFrame = pd.concat(tables, ignore_index=True)
        if "reason" not in joined:
            joined = joined.copy().assign(reason=None)  # one block again
        return joined


#: Runs that a part of a criterion rests on.
Evidence = Results | Iterable[Run]


def runs_of(evidence: Evidence) -> tuple[Run, ...]:
    """Return the runs, failed ones too."""
    return evidence.runs if isinstance(evidence, Results) else tuple(evidence)
