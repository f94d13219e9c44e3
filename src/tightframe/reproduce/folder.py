"""Reproduce figures of papers: run their tasks, judge their claims, keep everything in a folder.

Layout of a reproduction folder::

    reproduce.json                 configuration, its hash, versions, seed, device, commit, figures
    tasks/<hash>/rows.parquet      final rows of a task, see `tightframe.reproduce.tasks`
    tasks/<hash>/history.parquet   measurements on the way, if any
    tasks/<hash>/arrays.npz        matrices, if any are kept
    tasks/<hash>/run/              the run folder of a network, to go on with after a kill
    tasks/<hash>/result.json       what was run, how it ended, where; written last
    figures/<paper>/<figure>/results.parquet   final rows of all its tasks, with their labels and
                                               where they come from (`PROVENANCE`)
    figures/<paper>/<figure>/panels.json       what is drawn (`tightframe.figures.model`)
    figures/<paper>/<figure>/verdicts.json     claim, verdicts, failed runs, settings; written last

A page can be made of ``reproduce.json`` and ``figures`` alone. Every file is written atomically,
and a task or figure is finished exactly if its last file is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from tightframe.checks import choice, whole_number
from tightframe.data.places import given_folder
from tightframe.figures.model import Panel
from tightframe.figures.storage import panel_from_dict, panel_to_dict
from tightframe.files import read_json, read_npz, read_table, write_json, write_npz
from tightframe.parallel import runner
from tightframe.reproduce.results import FAILED, Results, TaskResult
from tightframe.reproduce.spec import (
    NOT_REPRODUCED,
    SCALES,
    UNDECIDED,
    Figure,
    Paper,
    Task,
    Verdict,
    find_figures,
)
from tightframe.reproduce.tasks import Output, failed_row, run_task, seeded
from tightframe.runs.config import DEVICES
from tightframe.runs.folder import config_hash, environment, open_folder, read_record, using_record
from tightframe.runs.limit import TimeIsUp, is_over, seconds_of
from tightframe.runs.store import write_parquet
from tightframe.shown import record

#: Version of the layout above, stored in ``reproduce.json``.
FORMAT = 1

#: Called as ``progress(tasks_done, tasks, name)`` with the name of what was just done.
Progress = Callable[[int, int, str], None]

#: Columns of ``results.parquet`` that say where a row comes from: hash of the configuration and of
#: the task, the seed added to all seeds, where networks were to be trained, the commit and the
#: versions of packages (JSON) of the process that wrote the task, which a resumed folder may have
#: from several.
PROVENANCE = ("config_hash", "task_hash", "base_seed", "device", "commit", "versions")

#: Seeds of a figure's tasks are a little larger, and PyTorch takes none from 2**63 on.
_SEED_LIMIT = 2**62

_PACKAGES = ("tightframe", "numpy", "scipy", "torch", "lightning", "pandas", "scikit-learn")


@record
@dataclass(frozen=True, eq=False)
class FigureRecord:
    """What a reproduction folder holds about one figure.

    Attributes
    ----------
    name : str
        ``"hong-ling/limit"``.
    folder : Path
        ``<out>/figures/<paper>/<figure>``.
    about : dict
        citation, url, title, source, claim, caption, note.
    num_tasks, num_done : int
        Tasks that it needs, and those of them that have ended, well or not.
    verdicts : tuple of Verdict
        None before all tasks have ended.
    panels : tuple of Panel
    failed : tuple of dict
        One a failed run: ``task`` (its name), ``reason``.
    not_converged : tuple of str
        Names of tasks with solutions that did not converge.
    error : str or None
        Why the results could not be judged or drawn; a mistake in the paper's module.
    tasks : tuple of dict
        hash, kind, arguments, labels, status, seconds of each.
    """

    name: str
    folder: Path
    about: dict[str, str]
    num_tasks: int
    num_done: int
    verdicts: tuple[Verdict, ...] = ()
    panels: tuple[Panel, ...] = ()
    failed: tuple[dict[str, Any], ...] = ()
    not_converged: tuple[str, ...] = ()
    error: str | None = None
    tasks: tuple[dict[str, Any], ...] = ()

    @property
    def finished(self) -> bool:
        """Whether it was judged."""
        return bool(self.verdicts)

    @property
    def results(self) -> pd.DataFrame:
        """Final rows of all its tasks, read from ``results.parquet``."""
        return read_table(self.folder / "results.parquet")

    @property
    def shortfalls(self) -> list[str]:
        """What went wrong, a sentence each."""
        sentences = [f"{self.name}: {f['task']} failed: {f['reason']}" for f in self.failed]
        sentences += [f"{self.name}: {task} did not converge" for task in self.not_converged]
        return sentences + ([f"{self.name}: {self.error}"] if self.error else [])

    def to_dict(self) -> dict[str, Any]:
        """Return name, verdicts and what went wrong, JSON-ready."""
        return {
            "name": self.name,
            **self.about,
            "finished": self.finished,
            "num_tasks": self.num_tasks,
            "num_done": self.num_done,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "failed": list(self.failed),
            "not_converged": list(self.not_converged),
            "error": self.error,
        }


@record
@dataclass(frozen=True, eq=False)
class Reproduction:
    """A reproduction folder read into memory.

    Attributes
    ----------
    folder : Path
    config : dict
        scale, seed, device.
    config_hash : str
    environment : dict
        versions, platform, commit.
    figures : tuple of FigureRecord
        All that were asked for, finished or not.
    """

    folder: Path
    config: dict[str, Any]
    config_hash: str
    environment: dict[str, Any]
    figures: tuple[FigureRecord, ...]


def reproduce(
    names: str | Sequence[str],
    out: str | os.PathLike[str],
    *,
    scale: str = "smoke",
    seed: int = 0,
    device: str | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    resume: bool = False,
    data_root: str | os.PathLike[str] | None = None,
    download: bool = False,
    devices: int = 1,
    limit: str | float | None = None,
    progress: Progress | None = None,
    on_figure: Callable[[FigureRecord], object] | None = None,
    on_start: Callable[[dict[str, list[Task]]], object] | None = None,
) -> list[FigureRecord]:
    """Run, judge and keep figures of the papers.

    Killed at any moment, the folder keeps the tasks that have ended and the checkpoints of the
    networks; resumed, it goes on from there. A task that crashes, diverges or is refused becomes a
    row with its reason, and the verdicts of its figures say so.

    Parameters
    ----------
    names : str or sequence of str
        ``"all"``, a paper or PAPER/FIGURE, see `tightframe.reproduce.spec.find_figures`.
    out : path-like
        A folder that is new or empty; or, with ``resume``, holds a reproduction of the same scale,
        seed and device, of these figures or of others, which are kept.
    scale : {"smoke", "cpu", "paper"}
    seed : int
        Added to all seeds of all tasks; below 2**62.
    device : {"cpu", "gpu", "auto"}, optional
        Where networks are trained; default: ``"auto"`` at scale paper, else ``"cpu"``.
    jobs, scheduler
        Where to run, see `tightframe.parallel.runner`; the networks of a Dask cluster
        that shares no file system start anew after a kill.
    resume : bool
        Keep the finished tasks in ``out``; run the others, failed and damaged ones too.
    data_root : path-like, optional
        Folder with data sets.
    download : bool
        Fetch data sets that are nowhere, see `tightframe.data.load`.
    devices : int
        Processes that train a network together (DDP), one a device; with ``jobs=1`` only.
    limit : str or float, optional
        Time after which no task begins and networks stop at the end of their epoch, with a
        checkpoint: ``"90s"``, ``"15m"``, ``"2h"`` or seconds. What else runs then is finished.
        `resume` goes on; the limit changes no number.
    progress : callable, optional
        See `Progress`.
    on_figure : callable, optional
        Called with every figure's record as soon as it is judged.
    on_start : callable, optional
        Called once before anything runs, with the tasks that are left of every figure, by its name.

    Returns
    -------
    list of FigureRecord
        One a figure asked for, in the papers' order; without verdicts where ``limit`` came before
        all of its tasks had ended.

    Raises
    ------
    ValueError
        If a name or option is not allowed, ``out`` holds something else, another process writes
        there or a data set is nowhere; nothing has been run then.
    """
    figures = find_figures(names)
    choice("scale", scale, SCALES)
    seed = whole_number("seed", seed, 0)
    if seed >= _SEED_LIMIT:
        raise ValueError(f"seed: got {seed}, need a whole number below 2**62")
    device = device or ("auto" if scale == "paper" else "cpu")
    choice("device", device, DEVICES)
    devices = whole_number("devices", devices)
    if devices > 1 and (jobs != 1 or scheduler is not None):
        raise ValueError(f"devices: got {devices}, need 1 with several jobs or a scheduler")
    until = None if limit is None else time.time() + seconds_of(limit)
    root = None
    if data_root is not None:
        root = os.path.abspath(given_folder(data_root, "data_root"))
    if root is not None and not os.path.isdir(root):
        raise ValueError(f"data_root: {root} is no folder")
    work = {
        f"{paper.name}/{figure.name}": _Work(
            paper, figure, [seeded(task, seed, device) for task in figure.tasks(scale)]
        )
        for paper, figure in figures
    }
    folder = _Folder(Path(out), {"scale": scale, "seed": seed, "device": device})
    with runner(jobs, scheduler) as run, folder.open(work, resume=resume):
        tasks = {task.hash: task for item in work.values() for task in item.tasks}
        missing = {key: task for key, task in tasks.items() if folder.read_task(task) is None}
        if scheduler is None:  # whose workers have their own
            _find_data(missing.values(), root, download)
        done = len(tasks) - len(missing)
        records: dict[str, FigureRecord] = {}

        def judge_ready() -> None:
            for name, item in work.items():
                if name not in records and not any(task.hash in missing for task in item.tasks):
                    records[name] = folder.judge(name, item)
                    if on_figure is not None:
                        on_figure(records[name])

        if on_start is not None:
            on_start(
                {name: [t for t in item.tasks if t.hash in missing] for name, item in work.items()}
            )
        if progress is not None:
            progress(done, len(tasks), "")
        judge_ready()
        order = list(missing.values())
        calls = [
            {
                "kind": task.kind,
                "arguments": task.arguments,
                "folder": os.fspath(folder.task_folder(task).absolute()),
                "data_root": root,
                "devices": devices,
                "until": until,
            }
            for task in order
        ]
        for outcome in run(_timed, calls):
            task = order[outcome.index]
            if outcome.reason is None and outcome.value is None:
                continue  # left for another time
            output, seconds = outcome.value if outcome.reason is None else (None, None)
            folder.write_task(task, output, outcome.reason, seconds)
            del missing[task.hash]
            done += 1
            if progress is not None:
                progress(done, len(tasks), task.name)
            judge_ready()
        return [records.get(name) or folder.read(name, item) for name, item in work.items()]


@dataclass(frozen=True, eq=False)
class _Work:
    """A figure and its tasks, seeds and device filled in."""

    paper: Paper
    figure: Figure
    tasks: list[Task]

    def about(self) -> dict[str, str]:
        """Return what is said of the figure, whatever comes out."""
        figure = self.figure
        return {
            "citation": self.paper.citation,
            "url": self.paper.url,
            "title": figure.title,
            "source": figure.source,
            "claim": figure.claim,
            "caption": figure.caption,
            "note": figure.note,
        }

    def told(self) -> dict[str, Any]:
        """Return what ``reproduce.json`` says of the figure."""
        return {**self.about(), "tasks": [task.hash for task in self.tasks]}


def _find_data(tasks: Iterable[Task], root: str | None, download: bool) -> None:
    """Refuse to begin what will lack its data, or fetch that."""
    from tightframe.data import load

    configs = (task.arguments["config"] for task in tasks if task.kind == "network")
    for name in dict.fromkeys(config.get("data", "digits") for config in configs):
        load(name, root=root, download=download)


def _timed(**task: Any) -> tuple[Output, float] | None:
    """Run a task and return its seconds too; None if it has to wait for another time."""
    start = time.perf_counter()
    if is_over(task["until"]):
        return None
    try:
        return run_task(**task), time.perf_counter() - start
    except TimeIsUp:
        return None


# -- the folder ------------------------------------------------------------------------------------


def reproduction_file(folder: str | os.PathLike[str]) -> Path:
    """Return the path of a reproduction folder's ``reproduce.json``."""
    return Path(folder) / "reproduce.json"


class _Folder:
    """Writes and reads the files of a reproduction."""

    def __init__(self, out: Path, config: dict[str, Any]) -> None:
        self._out = out
        self._config = config
        self._environment = environment(_PACKAGES) | {"commit": source_commit()}

    @contextlib.contextmanager
    def open(self, work: Mapping[str, _Work], *, resume: bool) -> Iterator[None]:
        """Start the folder or go on with one; while the block runs nobody else writes there."""
        figures = {name: item.told() for name, item in work.items()}
        record = {
            "format": FORMAT,
            "config": self._config,
            "environment": self._environment,
            "figures": figures,
        }
        file = reproduction_file(self._out)
        with open_folder(file, "reproduction", record, resume=resume):
            stored = read_json(file)
            with using_record(self._out, "reproduction"):
                merged = {**stored["figures"], **figures}
            if stored["figures"] != merged:
                write_json(file, {**stored, "figures": merged})
            yield

    # -- tasks

    def task_folder(self, task: Task) -> Path:
        """Return where a task's files are."""
        return self._out / "tasks" / task.hash

    def write_task(
        self, task: Task, output: Output | None, reason: str | None, seconds: float | None
    ) -> None:
        """Write what a task gave, or why it gave nothing."""
        folder = self.task_folder(task)
        output = output or Output([failed_row(reason or "")])
        write_parquet(folder / "rows.parquet", _table(output.rows))
        write_parquet(folder / "history.parquet", _table(output.history))
        write_npz(folder / "arrays.npz", **output.arrays)
        result = {
            "format": FORMAT,
            "hash": task.hash,
            "kind": task.kind,
            "arguments": task.arguments,
            "status": "done" if reason is None else "failed",
            "reason": reason,
            "seconds": seconds,
            "config": self._config,
            "environment": self._environment,
        }
        write_json(folder / "result.json", result)

    def read_task(self, task: Task, *, ended: bool = False) -> tuple[TaskResult, Any] | None:
        """Return what a task gave and its ``result.json``; None if that is missing or damaged.

        One that failed also counts as missing, unless ``ended``.
        """
        folder = self.task_folder(task)
        try:
            result = read_json(folder / "result.json")
            if result["hash"] != task.hash or (result["status"] != "done" and not ended):
                return None
            rows = read_table(folder / "rows.parquet")
            history = read_table(folder / "history.parquet")
        except (OSError, ValueError, KeyError, TypeError):
            return None
        arrays = folder / "arrays.npz"
        if not arrays.is_file():
            return None
        return TaskResult(task, rows, history, lambda: read_npz(arrays)), result

    # -- figures

    def judge(self, name: str, item: _Work) -> FigureRecord:
        """Judge a figure all of whose tasks have ended, and write its files."""
        read = [self.read_task(task, ended=True) for task in item.tasks]
        ended = [pair for pair in read if pair is not None]
        results = Results(self._config["scale"], tuple(result for result, _ in ended))
        failed = _failures(results)
        verdicts, error = _verdicts(item.figure, results)
        panels: list[Panel] = []
        try:
            panels = list(item.figure.draw(results))
            plain = [panel_to_dict(panel) for panel in panels]
        except Exception as problem:  # a mistake in one figure does not end the others
            panels, plain = [], []
            error = error or f"drawing failed: {_described(problem)}"
        folder = _figure_folder(self._out, name)
        rows = _with_provenance(results.table, [stored for _, stored in ended])
        write_parquet(folder / "results.parquet", _table_of(rows))
        write_json(folder / "panels.json", plain)
        write_json(
            folder / "verdicts.json",
            {
                "format": FORMAT,
                "name": name,
                "config": self._config,
                "environment": self._environment,
                **item.about(),
                "verdicts": [verdict.to_dict() for verdict in verdicts],
                "failed": failed,
                "not_converged": _not_converged(results),
                "error": error,
                "tasks": [
                    {
                        "hash": task.hash,
                        "kind": task.kind,
                        "labels": task.labels,
                        "arguments": task.arguments,
                        "status": stored["status"],
                        "seconds": stored["seconds"],
                    }
                    for task, (_, stored) in zip(item.tasks, ended, strict=True)
                ],
            },
        )
        return self.read(name, item)

    def read(self, name: str, item: _Work) -> FigureRecord:
        """Return what the folder holds about a figure, finished or not."""
        return _read_figure(self._out, name, item.told())


def _figure_folder(out: Path, name: str) -> Path:
    if re.fullmatch(r"[\w-]+/[\w-]+", name) is None:  # as none is that is known
        raise ValueError(f"figures: got {name!r}, need PAPER/FIGURE")
    paper, _, figure = name.partition("/")
    return out / "figures" / paper / figure


def _failures(results: Results) -> list[dict[str, Any]]:
    return [
        {"task": result.task.name, "reason": row["reason"]}
        for result in results.tasks
        for row in result.rows.to_dict("records")
        if row["status"] == FAILED
    ]


def _not_converged(results: Results) -> list[str]:
    return [
        result.task.name
        for result in results.tasks
        if any(run.status == "not_converged" for run in result.runs)
    ]


def _verdicts(figure: Figure, results: Results) -> tuple[list[Verdict], str | None]:
    """Judge; where that is not possible say so, and reproduce nothing."""
    lost, total = len(results.failed), len(results.runs)
    try:
        verdicts = list(figure.judge(results))
        if not verdicts:
            raise ValueError("the figure gives no verdict")
    except Exception as problem:  # a mistake in the paper's module
        reason = _described(problem)
        open_ = Verdict(
            criterion="the runs can be judged",
            claimed=figure.claim,
            predicted=None,
            measured=f"{lost} of {total} runs failed",
            tolerance=None,
            outcome=UNDECIDED if lost else NOT_REPRODUCED,
            sentence=f"The results could not be judged: {reason}",
        )
        return [open_], f"judging failed: {reason}"
    if lost:
        runs = "run" if total == 1 else "runs"
        note = f" ({lost} of {total} {runs} of this figure failed.)"
        verdicts = [
            v if v.outcome == UNDECIDED else replace(v, sentence=v.sentence + note)
            for v in verdicts
        ]
    return verdicts, None


def _with_provenance(rows: pd.DataFrame, stored: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a figure's rows with the columns `PROVENANCE`, from the ``result.json`` of tasks."""
    told = []
    for result in stored:
        config, machine = result["config"], result["environment"]
        told.append(
            {
                "config_hash": config_hash(config),
                "task_hash": result["hash"],
                "base_seed": config["seed"],
                "device": config["device"],
                "commit": machine["commit"],
                "versions": json.dumps(machine["versions"], sort_keys=True),
            }
        )
    columns = {name: [told[int(task)][name] for task in rows["task"]] for name in PROVENANCE}
    return rows.assign(**columns)


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    return _table_of(pd.DataFrame(list(rows)))


def _table_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table that Parquet can hold: no column of texts and numbers mixed."""
    table = table.copy()
    for name in table.columns:
        if not pd.api.types.is_object_dtype(table[name]):
            continue
        present = table[name].dropna()
        kinds = {isinstance(value, str) for value in present}
        if len(kinds) > 1:
            table[name] = table[name].map(lambda value: value if value is None else str(value))
    return table


# -- reading ---------------------------------------------------------------------------------------


def load_reproduction(folder: str | os.PathLike[str]) -> Reproduction:
    """Read a reproduction folder, finished or not; ``tasks`` may be missing.

    Raises
    ------
    ValueError
        If the folder holds no reproduction, one of another layout, or a damaged one.
    """
    out = Path(folder)
    keys = {"format", "config", "config_hash", "environment", "figures"}
    record = read_record(reproduction_file(out), "reproduction", FORMAT, keys)
    with using_record(out, "reproduction"):
        figures = [_read_figure(out, name, told) for name, told in record["figures"].items()]
    return Reproduction(
        folder=out,
        config=record["config"],
        config_hash=record["config_hash"],
        environment=record["environment"],
        figures=tuple(figures),
    )


def _read_figure(out: Path, name: str, told: Mapping[str, Any]) -> FigureRecord:
    folder = _figure_folder(out, name)
    about = {key: text for key, text in told.items() if key != "tasks"}
    file = folder / "verdicts.json"
    stored = read_json(file) if file.exists() else None
    try:
        # Of other tasks: those of an older version, which this one is about to replace.
        if stored is None or [task["hash"] for task in stored["tasks"]] != told["tasks"]:
            done = sum((out / "tasks" / key / "result.json").exists() for key in told["tasks"])
            return FigureRecord(name, folder, about, len(told["tasks"]), done)
        return FigureRecord(
            name,
            folder,
            {key: stored[key] for key in about},
            len(stored["tasks"]),
            len(stored["tasks"]),
            verdicts=tuple(Verdict(**verdict) for verdict in stored["verdicts"]),
            panels=tuple(panel_from_dict(p) for p in read_json(folder / "panels.json")),
            failed=tuple(stored["failed"]),
            not_converged=tuple(stored["not_converged"]),
            error=stored["error"],
            tasks=tuple(stored["tasks"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: not the record of a figure ({error})") from None


def source_commit() -> str | None:
    """Return the commit of the source tree that tightframe runs from, ``-dirty`` if it differs.

    None where it runs from an installation, or git is missing.
    """
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", os.fspath(package), *arguments]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return found.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # not a repository around a venv
        commit = git("rev-parse", "HEAD")
        dirty = git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if dirty else commit
