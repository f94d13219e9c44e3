"""A path of label distributions in a folder.

Layout of the folder::

    path.json    problem, sweep, their hash, package versions; written first
    points.json  the solutions, as `Path.to_dict` has them; written when all are solved
    points.csv   one line a point
    path.png     the rank along the path, where Matplotlib is installed
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tightframe.files import replacing, write_json
from tightframe.path import Path as DecayPath
from tightframe.path import path
from tightframe.problem.problem import Problem
from tightframe.runs.folder import environment, open_folder
from tightframe.views.paths import path_chart, path_rows

#: Version of the layout above, stored in ``path.json``.
FORMAT = 1

_PACKAGES = ("tightframe", "numpy", "scipy")


def solve_into(
    folder: Path, problem: Problem, sweep: Mapping[str, Sequence[Any]], tol: float
) -> DecayPath:
    """Solve along a sweep and keep what is found in a folder that is empty or not there yet.

    Raises
    ------
    ValueError
        If something is in the folder already; before anything is solved. As `tightframe.path`.
    """
    config = {"problem": problem.to_dict(), "sweep": sweep, "tol": tol}
    record = {"format": FORMAT, "config": config, "environment": environment(_PACKAGES)}
    with open_folder(folder / "path.json", "path", record, resume=False):
        options: dict[str, Any] = {**sweep, "tol": tol}
        found = path(problem, **options)
        write_json(folder / "points.json", found.to_dict())
        _write_table(folder / "points.csv", path_rows(found))
        _draw(found, folder)
    return found


def _write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(file) as temporary, open(temporary, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _draw(found: DecayPath, folder: Path) -> None:
    try:
        from tightframe.figures.mpl import plot, save_figures
    except ImportError:  # the numbers are there without it
        return
    figure, _ = plot(path_chart(found))
    save_figures(figure, folder / "path")
