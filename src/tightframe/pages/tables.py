"""The tables of a run or a reproduction as files, in any format of `figures.formats`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tightframe.figures.formats import table_format
from tightframe.figures.table import Column, Table
from tightframe.files import replacing
from tightframe.reproduce.folder import load_reproduction, reproduction_file
from tightframe.runs.folder import using_record
from tightframe.runs.store import load_run
from tightframe.runs.tables import group_name, group_table, metric_table
from tightframe.runs.text_tables import text_tables
from tightframe.sweeps.grid import grid_file, read_rows


def write_tables(folder: str | os.PathLike[str], format: str = "latex") -> list[Path]:
    r"""Write a folder's tables, each file atomically.

    Those for LaTeX need ``\usepackage{booktabs,graphicx,longtable}``.

    Parameters
    ----------
    folder : path-like
        What ``tightframe run``, ``path`` or ``reproduce`` wrote; may be unfinished.
    format : str
        Of `tightframe.figures.formats.FORMATS`: "latex", "markdown", "html", "console", ...

    Returns
    -------
    list of Path
        Of a run ``tables/<setting>-metrics.tex`` and ``tables/<setting>-groups.tex``, of one on
        text ``-metrics``, ``-tokens``, ``-contexts``, ``-pairs`` and, if any, ``-merged``; of a
        reproduction ``tables/<paper>-verdicts.tex`` and the tables of the figures,
        ``tables/<paper>-<figure>-<number>.tex``; of a path ``tables/row-<number>.tex``, from 1;
        likewise in the other formats.

    Raises
    ------
    ValueError
        If the format is unknown, or the folder holds none of these.
    """
    ending, write = table_format(format)
    home = Path(folder)
    of, what = _of_run, "run"
    if reproduction_file(home).exists():
        of, what = _of_reproduction, "reproduction"
    elif grid_file(home).exists():
        of, what = _of_grid, "grid"
    with using_record(home, what):
        texts = {name: write(replace(table, name=name)) for name, table in of(home)}
    paths = []
    for name, text in texts.items():
        path = home / "tables" / f"{name}.{ending}"
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def _of_run(folder: Path) -> Iterator[tuple[str, Table]]:
    run = load_run(folder)
    for setting in run.settings:
        if run.on_text:
            for name, table in text_tables(setting).items():
                yield f"{setting.name}-{name}", replace(table, missing="")
        elif setting.prediction is not None:
            yield f"{setting.name}-metrics", replace(metric_table(setting), missing="")
            yield f"{setting.name}-groups", replace(group_table(setting), missing="")


def _of_grid(folder: Path) -> Iterator[tuple[str, Table]]:
    number = Column("", align="right", format=".6g")
    columns: list[str | Column] = [
        replace(number, name="lambda"),
        "class group",
        *(replace(number, name=name) for name in ("decision margin", "sibling margin")),
        "state",
    ]
    for row in read_rows(folder)[1]:
        lines = [
            [
                point["lambda"],
                group_name(group),
                group["decision_margin"],
                group["sibling_margin"],
                group["state"],
            ]
            for point in row["points"]
            for group in point["groups"]
        ]
        title = f"Samples per class: {row['counts']}"
        yield f"row-{row['row'] + 1}", Table(title, columns, lines, missing="")


def _of_reproduction(folder: Path) -> Iterator[tuple[str, Table]]:
    figures = load_reproduction(folder).figures
    for paper in dict.fromkeys(figure.name.partition("/")[0] for figure in figures):
        own = [figure for figure in figures if figure.name.startswith(f"{paper}/")]
        rows = [
            ["" if i else figure.name.partition("/")[2], verdict.sentence, verdict.outcome]
            for figure in own
            for i, verdict in enumerate(figure.verdicts)
        ]
        columns: list[str | Column] = ["figure", Column("finding", wrapped=True), "verdict"]
        yield f"{paper}-verdicts", Table(own[0].about["citation"], columns, rows)
        for figure in own:
            panels = [panel for panel in figure.panels if isinstance(panel, Table)]
            for i, panel in enumerate(panels, start=1):
                yield f"{figure.name.replace('/', '-')}-{i}", replace(panel, missing="")
