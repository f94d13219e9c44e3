"""Grids: paths over several class counts, each path one task, kept in a folder as they finish.

Layout of a grid folder::

    grid.json          configuration, its hash, package versions; written first
    rows/<row>.json    the solutions along one row, see `run_grid`; written when the row is finished
    points.csv         one line a point and class group, of all rows there are; also for failed rows
    points.parquet     the same, where pandas and pyarrow are installed

A grid needs neither torch nor, in one process, anything but NumPy and SciPy.
"""

from __future__ import annotations

import contextlib
import csv
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tightframe.changes import FEW_GROUPS, known_thresholds
from tightframe.checks import positive_float, whole_number
from tightframe.files import read_json, replacing, to_plain, write_json
from tightframe.path import path
from tightframe.problem.counts import CountsLike, compact_counts
from tightframe.problem.layers import parse_layers
from tightframe.problem.problem import Problem, require_no_targets, terms_in
from tightframe.solution import Solution
from tightframe.solve import NotConvergedWarning, solve
from tightframe.theory.thresholds import overall_decay, thresholds

#: Version of the layout above, stored in ``grid.json``.
FORMAT = 1

#: What can be swept along a row.
SWEPT = ("weight_decay", "feature_decay", "bias_decay", "counts")

#: More values than this are refused in one sweep.
MAX_POINTS = 100_000

#: Called as ``progress(rows_done, rows)``.
Progress = Callable[[int, int], None]

_PACKAGES = ("tightframe", "numpy", "scipy")

#: Columns of the table of points with their pandas types; a depth above 1 has a weight decay a
#: layer, ``weight_decay_1`` and so on.
_COLUMNS = {
    "row": "Int64",
    "point": "Int64",
    "group": "Int64",
    "counts": "string",
    "ratio": "Float64",
    "weight_decay": "Float64",
    "feature_decay": "Float64",
    "bias_decay": "Float64",
    "lambda": "Float64",
    "count": "Int64",
    "classes": "Int64",
    "class_weight": "Float64",
    "logit_adjustment": "Float64",
    "state": "string",
    "decision_margin": "Float64",
    "sibling_margin": "Float64",
    "margin": "Float64",
    "collapsed": "boolean",
    "threshold": "Float64",
    "rank": "Int64",
    "objective": "Float64",
    "gap": "Float64",
    "lower_bound": "Float64",
    "status": "string",
    "method": "string",
    "seconds": "Float64",
    "reason": "string",
}


@dataclass(frozen=True)
class Grid:
    """What to solve: one path for each of several class counts.

    Parameters
    ----------
    problem : Problem
        What is neither swept nor set by ``rows`` is taken from here.
    sweep : mapping
        The path: names of `SWEPT` to equally many values each, swept together.
    rows : sequence of counts, optional
        One path each. Default: the problem's counts, or those of the sweep.
    ratios : sequence of float, optional
        Imbalance ratio of every row, for a phase diagram.
    tol, max_iterations
        As in `tightframe.solve`.

    Raises
    ------
    ValueError
        If an argument is out of range, or a row or a value of the sweep is not a valid problem.
    """

    problem: Problem
    sweep: Mapping[str, Sequence[Any]]
    rows: Sequence[CountsLike] = ()
    ratios: Sequence[float] | None = None
    tol: float = 1e-8
    max_iterations: int = 5000

    def __post_init__(self) -> None:
        """Check every argument and store it in one canonical form."""
        require_no_targets(self.problem, "a grid")
        unknown = sorted(set(self.sweep) - set(SWEPT))
        if unknown:
            raise ValueError(f"sweep: got {unknown[0]!r}, allowed are {', '.join(SWEPT)}")
        sweep = {name: tuple(values) for name, values in self.sweep.items()}
        lengths = {name: len(values) for name, values in sweep.items()}
        if not lengths or 0 in lengths.values():
            raise ValueError("sweep: need at least one value of something to sweep")
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{length} of {name}" for name, length in lengths.items())
            raise ValueError(f"sweep: got {text}; what is swept together needs equally many values")
        if max(lengths.values()) > MAX_POINTS:
            raise ValueError(f"sweep: got {max(lengths.values())} values, at most {MAX_POINTS}")
        rows = tuple(compact_counts(counts) for counts in self.rows)
        if "counts" in sweep:
            if rows:
                raise ValueError("rows: given with counts to sweep; a grid has one of the two")
            sweep["counts"] = tuple(compact_counts(c) for c in sweep["counts"])
            rows = (sweep["counts"][0],)
        rows = rows or (self.problem.compact_counts,)
        if self.ratios is not None and len(self.ratios) != len(rows):
            raise ValueError(f"ratios: got {len(self.ratios)} for {len(rows)} rows")
        first = self.problem.replace(counts=rows[0])
        points = [
            first.replace(**dict(zip(sweep, values, strict=True)))
            for values in zip(*sweep.values(), strict=True)
        ]
        for counts in rows[1:]:
            points[0].replace(counts=counts)  # decays and counts are checked apart: no row x column
        set_field = object.__setattr__  # the class is frozen
        set_field(self, "problem", points[0])
        set_field(self, "sweep", sweep)
        set_field(self, "rows", rows)
        if self.ratios is not None:
            set_field(self, "ratios", tuple(positive_float("ratios", r) for r in self.ratios))
        set_field(self, "tol", positive_float("tol", self.tol))
        set_field(self, "max_iterations", whole_number("max_iterations", self.max_iterations))

    @property
    def num_points(self) -> int:
        """Number of points in each row."""
        return len(next(iter(self.sweep.values())))

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON-ready values; `from_dict` is the inverse."""
        counts_swept = "counts" in self.sweep
        plain: dict[str, Any] = to_plain(
            {
                "problem": self.problem.to_dict(),
                "sweep": self.sweep,
                "rows": [] if counts_swept else self.rows,
                "ratios": self.ratios,
                "tol": self.tol,
                "max_iterations": self.max_iterations,
            }
        )
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Grid:
        """Make a grid from what `to_dict` returned, for example a stored one.

        Raises
        ------
        ValueError
            If that is not a valid grid.
        """
        try:
            return cls(**{**values, "problem": Problem(**values["problem"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"config: not that of a grid ({error})") from None


def parse_values(name: str, text: str) -> list[Any]:
    """Read the values of a sweep from text.

    Parameters
    ----------
    name : str
        Of the argument, for messages.
    text : str
        ``LOW:HIGH:POINTS`` (in geometric progression) or values with commas between; a value is a
        number, or one number a layer with slashes between: ``1e-3/2e-3``.

    Returns
    -------
    list of float or of tuple of float

    Raises
    ------
    ValueError
        If the text is neither.
    """
    if ":" not in text:
        return [parse_layers(part, partial(_number, name)) for part in text.split(",")]
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f"{name}: got {text!r}, need LOW:HIGH:POINTS, as in 1e-4:1e-2:20")
    low, high = (positive_float(name, _number(name, part)) for part in parts[:2])
    try:
        points = int(parts[2])
    except ValueError:
        points = 0
    if not 2 <= points <= MAX_POINTS:
        raise ValueError(
            f"{name}: got {parts[2]!r} points in {text!r}, need a whole number from 2 to "
            f"{MAX_POINTS}"
        )
    values: list[Any] = np.geomspace(low, high, points).tolist()
    return values


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"{name}: got {text!r}, need a number, numbers with commas between, or LOW:HIGH:POINTS"
        ) from None


# -- running ---------------------------------------------------------------------------------------


def run_grid(
    grid: Grid,
    out: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Solve all rows of a grid; with a folder, keep each as soon as it is finished.

    Interrupted by Ctrl-C (which comes out as KeyboardInterrupt) or a kill, the folder keeps the
    finished rows.

    Parameters
    ----------
    grid : Grid
    out : path-like, optional
        A folder that is new or empty; or, with ``resume``, holds the same grid.
    resume : bool
        Keep the finished rows in ``out``; solve the others, failed and damaged ones too.
    jobs, scheduler
        Where to run, see `tightframe.parallel.runner`.
    progress : callable, optional
        See `Progress`.

    Returns
    -------
    list of dict
        For every row: ``row`` (its number), ``counts``, ``ratio``, ``status`` (``"done"`` or
        ``"failed"``), ``reason`` (of the failure) and ``points``: what
        `tightframe.Solution.to_dict` gives and ``lambda``; ``collapse_kind`` and ``total_collapse``
        of `tightframe.thresholds`; and in every group its ``threshold`` in lambda. None where no
        threshold is known.

    Raises
    ------
    ValueError
        If no row could be solved because nothing covers the problem, ``out`` holds something else,
        another process writes there, or the runner refuses its arguments; nothing has been written
        then.
    """
    from tightframe.parallel import runner

    if resume and out is None:
        raise ValueError("resume: given without out, the folder to go on with")
    folder = None if out is None else GridFolder(Path(out), grid)
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(runner(jobs, scheduler))
        if out is None or not grid_file(out).exists():
            _refuse_uncovered(grid.problem)
        rows: list[dict[str, Any] | None] = [None] * len(grid.rows)
        if folder is not None:
            stack.enter_context(folder.open(resume=resume))
            rows = [folder.read_row(i) for i in range(len(grid.rows))]
        missing = [i for i, row in enumerate(rows) if row is None]
        shared = {
            "problem": grid.problem.to_dict(),
            "sweep": to_plain(grid.sweep),
            "tol": grid.tol,
            "max_iterations": grid.max_iterations,
        }
        tasks = [{**shared, "counts": grid.rows[i]} for i in missing]
        done = len(rows) - len(missing)
        if progress is not None:
            progress(done, len(rows))
        try:
            for outcome in run(solve_row, tasks):
                i = missing[outcome.index]
                row = _row(grid, i, outcome.value, outcome.reason)
                rows[i] = row
                if folder is not None:
                    folder.write_row(row)
                done += 1
                if progress is not None:
                    progress(done, len(rows))
        except KeyboardInterrupt:
            if folder is not None:
                # What is on the disk: the signal may have come while a row was written.
                kept = (folder.read_row(i) for i in range(len(rows)))
                folder.write_table([row for row in kept if row is not None])
            raise
        finished = [row for row in rows if row is not None]
        if folder is not None:
            folder.write_table(finished)
    return finished


def _refuse_uncovered(problem: Problem) -> None:
    """Raise what `solve` raises where it cannot solve a problem, for the price of an iteration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        solve(problem, max_iterations=1, starts=1)


def solve_row(
    problem: Mapping[str, Any],
    counts: str,
    sweep: Mapping[str, Sequence[Any]],
    tol: float,
    max_iterations: int,
) -> list[dict[str, Any]]:
    """Solve one row and return its points, see `run_grid`; a task of the runner."""
    base = Problem(**{**problem, "counts": counts})
    with warnings.catch_warnings():
        # The status of every point says so, and the caller counts them.
        warnings.simplefilter("ignore", NotConvergedWarning)
        options: dict[str, Any] = {**sweep, "tol": tol, "max_iterations": max_iterations}
        solutions = path(base, **options).solutions
    known: dict[Any, dict[str, Any]] = {}
    points: list[dict[str, Any]] = []
    for solution in solutions:
        # Of what is swept, thresholds in lambda depend on these two only; class weights are fixed.
        key = (solution.problem.runs, solution.problem.bias_decay)
        if key not in known:
            known[key] = _thresholds(solution.problem)
        points.append(_point(solution, known[key]))
    return points


def _thresholds(problem: Problem) -> dict[str, Any]:
    try:
        result = thresholds(problem)
    except ValueError:  # none are known for this kind of problem
        return {"kind": None, "total": None, "groups": {}}
    if problem.margin_runs and len(problem.groups) <= FEW_GROUPS:
        result = known_thresholds(problem)
    groups = {
        (group.count, *terms.values()): group.logit_decay
        for group, terms in zip(result.groups, problem.group_terms, strict=True)
    }
    return {"kind": result.kind, "total": result.total_collapse, "groups": groups}


def _point(solution: Solution, known: Mapping[str, Any]) -> dict[str, Any]:
    summary = solution.to_dict()
    for group in summary["groups"]:
        kind = (group["count"], *terms_in(group).values())
        group["threshold"] = known["groups"].get(kind)
    place = {
        "lambda": overall_decay(solution.problem),
        "collapse_kind": known["kind"],
        "total_collapse": known["total"],
    }
    plain: dict[str, Any] = to_plain(place | summary)
    return plain


def _row(grid: Grid, i: int, points: Any, reason: str | None) -> dict[str, Any]:
    return {
        "row": i,
        "counts": grid.rows[i],
        "ratio": None if grid.ratios is None else grid.ratios[i],
        "status": "done" if reason is None else "failed",
        "reason": reason,
        "points": [] if reason is not None else points,
    }


def shortfalls(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say what is wrong with a grid's rows, a sentence each: failed rows, points not converged."""
    sentences = []
    for row in rows:
        name = f"row {row['row']} ({row['counts']})"
        if row["status"] == "failed":
            sentences.append(f"{name} failed: {row['reason']}")
        stopped = [p for p in row["points"] if p["status"] == "not_converged"]
        if stopped:
            sentences.append(
                f"{name}: {len(stopped)} of {len(row['points'])} points did not converge, the "
                f"first at lambda = {stopped[0]['lambda']:.6g}"
            )
    return sentences


# -- the folder ------------------------------------------------------------------------------------


def grid_file(folder: str | os.PathLike[str]) -> Path:
    """Return the path of a grid folder's ``grid.json``."""
    return Path(folder) / "grid.json"


def read_grid(folder: str | os.PathLike[str]) -> Grid:
    """Read which grid a folder holds.

    Raises
    ------
    ValueError
        If it holds none, or one of another layout.
    """
    from tightframe.runs.folder import read_record

    record = read_record(grid_file(folder), "grid", FORMAT, {"format", "config", "config_hash"})
    return Grid.from_dict(record["config"])


def read_rows(folder: str | os.PathLike[str]) -> tuple[Grid, list[dict[str, Any]]]:
    """Read a grid and its finished rows from a folder.

    Raises
    ------
    ValueError
        If it holds no grid, or no row of it is finished.
    """
    grid = read_grid(folder)
    kept = GridFolder(Path(folder), grid)
    rows = [row for i in range(len(grid.rows)) if (row := kept.read_row(i)) is not None]
    if not rows:
        raise ValueError(f"{os.fspath(folder)}: no row of its grid is finished")
    return grid, rows


class GridFolder:
    """A folder that keeps the rows of one grid.

    Parameters
    ----------
    folder : Path
    grid : Grid
    """

    def __init__(self, folder: Path, grid: Grid) -> None:
        from tightframe.runs.folder import config_hash

        self._folder = folder
        self._grid = grid
        self._hash = config_hash(grid.to_dict())

    def open(self, *, resume: bool) -> contextlib.AbstractContextManager[None]:
        """Return the block in which the folder is written, see `runs.folder.open_folder`."""
        from tightframe.runs.folder import environment, open_folder

        record = {
            "format": FORMAT,
            "config": self._grid.to_dict(),
            "environment": environment(_PACKAGES),
        }
        return open_folder(grid_file(self._folder), "grid", record, resume=resume)

    def _row_file(self, index: int) -> Path:
        return self._folder / "rows" / f"{index:05d}.json"

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Write one row, atomically."""
        write_json(self._row_file(row["row"]), {**row, "digest": self._digest(row)})

    def read_row(self, index: int) -> dict[str, Any] | None:
        """Return a finished row as it was written; None if it is missing, failed or damaged."""
        try:
            row = read_json(self._row_file(index))
        except (ValueError, OSError):
            return None
        if not isinstance(row, dict) or row.get("status") != "done":
            return None
        digest = row.pop("digest", None)
        return row if row.get("row") == index and digest == self._digest(row) else None

    def _digest(self, row: Mapping[str, Any]) -> str:
        from tightframe.runs.folder import config_hash

        return config_hash({"grid": self._hash, "row": row})

    def write_table(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write ``points.csv`` and, where pandas and pyarrow are installed, ``points.parquet``."""
        types = _column_types(self._grid.problem)
        lines = [line for row in rows for line in _lines(row)]
        with (
            replacing(self._folder / "points.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, types)
            writer.writeheader()
            writer.writerows(lines)
        try:
            import pandas as pd
            import pyarrow  # noqa: F401  # pandas writes Parquet with it

            from tightframe.runs.store import write_parquet
        except ImportError:
            return
        table = pd.DataFrame(lines, columns=list(types)).astype(types)
        write_parquet(self._folder / "points.parquet", table)


def _column_types(problem: Problem) -> dict[str, str]:
    types: dict[str, str] = {}
    for name, kind in _COLUMNS.items():
        if name == "weight_decay" and problem.depth > 1:
            types |= {f"weight_decay_{m}": kind for m in range(1, problem.depth + 1)}
        else:
            types[name] = kind
        if name == "logit_adjustment":  # and what only some problems have
            types |= dict.fromkeys(problem.group_terms[0], kind)
    return types


def _lines(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table's lines of one row: one a point and group; one in all for a failed row."""
    shared = {"row": row["row"], "counts": row["counts"], "ratio": row["ratio"]}
    if row["status"] == "failed":
        return [shared | {"status": "failed", "reason": row["reason"]}]
    lines = []
    for i, point in enumerate(row["points"]):
        problem = point["problem"]
        decays, depth = problem["weight_decay"], problem["depth"]
        layers = decays if isinstance(decays, list) else [decays] * depth
        names = ["weight_decay"] if depth == 1 else [f"weight_decay_{m + 1}" for m in range(depth)]
        values = (
            shared
            | {"point": i, "counts": problem["counts"]}
            | dict(zip(names, layers, strict=True))
        )
        values |= {name: problem[name] for name in ("feature_decay", "bias_decay")}
        for name in ("lambda", "rank", "objective", "gap", "lower_bound", "status", "method"):
            values[name] = point[name]
        values["seconds"] = point["seconds"]
        for g, group in enumerate(point["groups"]):
            own = ["count", "classes", *terms_in(group)]
            own += ["state", "decision_margin", "sibling_margin"]
            own += ["margin", "collapsed", "threshold"]
            lines.append(values | {"group": g} | {name: group.get(name) for name in own})
    return lines
