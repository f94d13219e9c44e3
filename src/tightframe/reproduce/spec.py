"""What a reproduction consists of: papers, their figures, the tasks behind them, the verdicts.

A paper is one module of this package with a constant ``PAPER`` (see `PAPERS`). A figure says which
tasks it needs at each scale, what decides whether the claim holds (`Figure.judge`), and what is
drawn (`Figure.draw`); `tightframe.reproduce.tasks` runs the tasks and
`tightframe.reproduce.folder` keeps everything in a folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tightframe.figures.model import Panel
from tightframe.files import to_plain
from tightframe.runs.folder import config_hash

if TYPE_CHECKING:
    import pandas as pd

#: How much is spent: seconds a figure; at most ten minutes a figure on two cores; the original
#: settings, for a GPU.
SCALES = ("smoke", "cpu", "paper")

#: What a task can be, see `tightframe.reproduce.tasks`.
KINDS = ("solve", "path", "ufm", "network")

REPRODUCED, NOT_REPRODUCED, NOT_AT_THIS_SCALE = "reproduced", "not reproduced", "not at this scale"
OUTCOMES = (REPRODUCED, NOT_REPRODUCED, NOT_AT_THIS_SCALE)

#: Name of a paper to its module in this package; one that is not written yet is absent.
PAPERS = {
    "zhu": "zhu",
    "thrampoulidis": "thrampoulidis",
    "dang-2023": "dang_2023",
    "hong-ling": "hong_ling",
    "dang-2024": "dang_2024",
}

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Task:
    """One thing to run; equal tasks of several figures run once.

    Parameters
    ----------
    kind : {"solve", "path", "ufm", "network"}
    arguments : mapping
        What it depends on, JSON-ready; see the function of that name in
        `tightframe.reproduce.tasks`.
    labels : mapping
        Columns that every row of its results gets, for ``results.select``; texts and numbers. They
        are the figure's own: tasks that differ in labels only are equal.

    Raises
    ------
    ValueError
        If the kind is unknown or something is not plain data.
    """

    kind: str
    arguments: Mapping[str, Any]
    labels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the task can be stored and sent."""
        if self.kind not in KINDS:
            raise ValueError(f"kind: got {self.kind!r}, allowed are {', '.join(KINDS)}")
        try:
            plain = to_plain(self.arguments)
            json.dumps(plain, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"arguments: not JSON-ready ({error})") from None
        for name, value in self.labels.items():
            if not isinstance(value, (str, int, float, bool)):
                raise ValueError(f"labels: {name} is {value!r}, need text or a number")
        object.__setattr__(self, "arguments", plain)
        object.__setattr__(self, "labels", dict(self.labels))

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of kind and arguments, the name of the task's folder."""
        return config_hash({"kind": self.kind, "arguments": self.arguments})

    @property
    def name(self) -> str:
        """The task in words: its kind and labels."""
        text = ", ".join(f"{name} {value}" for name, value in self.labels.items())
        return f"{self.kind} ({text})" if text else self.kind


@dataclass(frozen=True, eq=False)
class TaskResult:
    """What one task gave.

    Attributes
    ----------
    task : Task
    rows : DataFrame
        One row a solution, run or network, numbered by ``row``; columns are in
        `tightframe.reproduce.tasks`. A task that failed has one row of status ``"failed"``.
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
    def all_rows(self) -> pd.DataFrame:
        """Final rows of all tasks with their labels, ``kind`` and ``task`` (its number)."""
        return self._joined("rows")

    @property
    def rows(self) -> pd.DataFrame:
        """`all_rows` without those that failed; columns that no row has are missing."""
        return self._of(failed=False)

    @property
    def failed(self) -> pd.DataFrame:
        """Rows of `all_rows` with status ``"failed"``; their ``reason`` says why."""
        return self._of(failed=True)

    @cached_property
    def history(self) -> pd.DataFrame:
        """History rows of all tasks with their labels, ``kind``, ``task`` and ``row``."""
        return self._joined("history")

    def select(self, kind: str | None = None, **labels: Any) -> Results:
        """Return the results of the tasks of a kind and with these labels; possibly of none."""
        chosen = tuple(
            result
            for result in self.tasks
            if kind in (None, result.task.kind)
            and all(result.task.labels.get(name) == value for name, value in labels.items())
        )
        return Results(self.scale, chosen)

    def array(self, row: Mapping[str, Any] | pd.Series, name: str) -> NDArray[Any]:
        """Return the array of a row of this table, for example its ``"logits"``.

        Raises
        ------
        KeyError
            If the task did not keep it (``arrays`` in its arguments).
        """
        return self.tasks[int(row["task"])].arrays[f"{name}_{int(row['row'])}"]

    def _of(self, *, failed: bool) -> pd.DataFrame:
        table: pd.DataFrame = self.all_rows
        return table[(table["status"] == "failed") == failed].reset_index(drop=True)

    def _joined(self, name: str) -> pd.DataFrame:
        import pandas as pd

        tables = []
        for i, result in enumerate(self.tasks):
            table = getattr(result, name)
            if len(table):
                own = {"task": i, "kind": result.task.kind, **result.task.labels}
                rest = table.drop(columns=[column for column in own if column in table])
                tables.append(rest.assign(**own)[[*own, *rest.columns]])
        # Columns without any value would decide the type of the joined ones.
        tables = [table.dropna(axis="columns", how="all") for table in tables]
        if not tables:
            return pd.DataFrame({"task": [], "kind": [], "row": [], "status": []})
        joined: pd.DataFrame = pd.concat(tables, ignore_index=True)
        if name == "rows" and "reason" not in joined:
            joined = joined.copy().assign(reason=None)  # one block again
        return joined


@dataclass(frozen=True)
class Verdict:
    """Whether one claim holds, and what decides that.

    Attributes
    ----------
    criterion : str
        The rule, with its number: ``"the switch is within one grid step of the threshold"``.
    claimed : str
        What the paper says.
    predicted : float, str or None
        What the theory gives, computed; None where it gives nothing.
    measured : float, str or None
        What the runs gave.
    tolerance : float, str or None
        What the criterion allows.
    outcome : {"reproduced", "not reproduced", "not at this scale"}
    sentence : str
        The finding in one plain sentence.
    """

    criterion: str
    claimed: str
    predicted: float | str | None
    measured: float | str | None
    tolerance: float | str | None
    outcome: str
    sentence: str

    def __post_init__(self) -> None:
        """Check the outcome; a measured NaN is no evidence for a claim."""
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome: got {self.outcome!r}, allowed are {', '.join(OUTCOMES)}")
        measured = self.measured
        if isinstance(measured, float) and math.isnan(measured) and self.outcome == REPRODUCED:
            raise ValueError("measured: is NaN, which reproduces nothing")

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON-ready values."""
        plain: dict[str, Any] = to_plain(asdict(self))
        return plain


def verdict(
    holds: bool | None,
    *,
    criterion: str,
    claimed: str,
    predicted: float | str | None,
    measured: float | str | None,
    tolerance: float | str | None,
    sentence: str,
) -> Verdict:
    """Make a `Verdict` whose outcome follows from ``holds``; None: not at this scale."""
    outcome = NOT_AT_THIS_SCALE if holds is None else REPRODUCED if holds else NOT_REPRODUCED
    return Verdict(criterion, claimed, predicted, measured, tolerance, outcome, sentence)


@dataclass(frozen=True)
class Figure:
    """A figure or table of a paper, as something to run, judge and draw.

    Parameters
    ----------
    name : str
        Lower-case words with hyphens: ``"minority-lambda"``.
    title : str
    source : str
        Where it is in the paper: ``"Fig. 5-6"``.
    claim : str
        What the paper claims, one or two sentences.
    caption : str
        What to see in the picture.
    tasks : callable
        Scale to list of `Task`.
    judge : callable
        `Results` to list of `Verdict`, at least one.
    draw : callable
        `Results` to list of `tightframe.figures.model.Panel`.
    note : str
        How this differs from the paper's own figure.
    """

    name: str
    title: str
    source: str
    claim: str
    caption: str
    tasks: Callable[[str], list[Task]]
    judge: Callable[[Results], list[Verdict]]
    draw: Callable[[Results], list[Panel]]
    note: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name)


@dataclass(frozen=True)
class Paper:
    """A paper and what of it can be reproduced.

    Parameters
    ----------
    name : str
        As in `PAPERS`.
    citation : str
        Authors, year, title, venue.
    url : str
    figures : sequence of Figure
        In the paper's order.
    """

    name: str
    citation: str
    url: str
    figures: Sequence[Figure]

    def __post_init__(self) -> None:
        _check_name(self.name)
        names = [figure.name for figure in self.figures]
        doubles = {name for name in names if names.count(name) > 1}
        if doubles:
            raise ValueError(f"figures: two are named {min(doubles)!r}")


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"name: got {name!r}, need lower-case words joined by hyphens")


# -- the registry ----------------------------------------------------------------------------------


def papers() -> dict[str, Paper]:
    """Return all papers there are, by name, in the order of `PAPERS`."""
    found = {}
    for name, module in PAPERS.items():
        full_name = f"tightframe.reproduce.papers.{module}"
        if importlib.util.find_spec(full_name) is None:
            continue
        paper = getattr(importlib.import_module(full_name), "PAPER", None)
        if paper is not None:
            found[name] = paper
    return found


def find_figures(names: str | Sequence[str]) -> list[tuple[Paper, Figure]]:
    """Return the figures that names stand for, each once, in the papers' order.

    Parameters
    ----------
    names : str or sequence of str
        ``"all"``, a paper (``"hong-ling"``) or one of its figures (``"hong-ling/limit"``).

    Raises
    ------
    ValueError
        If a name is unknown; the message lists what there is.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted:
        raise ValueError("names: need a paper, PAPER/FIGURE or all")
    known = papers()
    chosen: set[tuple[str, str]] = set()
    for name in wanted:
        if name == "all":
            chosen |= {(p.name, f.name) for p in known.values() for f in p.figures}
            continue
        paper_name, slash, figure_name = name.partition("/")
        if paper_name not in known:
            raise ValueError(f"names: got {name!r}, allowed are all, {', '.join(known)}")
        figures = [figure.name for figure in known[paper_name].figures]
        if slash and figure_name not in figures:
            raise ValueError(
                f"names: got {name!r}, the figures of {paper_name} are {', '.join(figures)}"
            )
        chosen |= {(paper_name, figure) for figure in ([figure_name] if slash else figures)}
    return [
        (paper, figure)
        for paper in known.values()
        for figure in paper.figures
        if (paper.name, figure.name) in chosen
    ]
