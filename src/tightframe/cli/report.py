"""The command report: the page, plots and tables of a finished folder, written again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tightframe.cli.console import waiting
from tightframe.cli.options import FLAG, Option, one_of, with_options


@with_options(
    Option(
        "formats",
        one_of("png", "svg", "pdf").repeated,
        "Of the plots; may be given several times.",
        unset="png",
        flag="--format",
    ),
    Option("latex", FLAG, "Also write the tables for LaTeX.", False),
)
def report(
    folder: Annotated[
        Path, typer.Argument(help="What 'run', 'path' or 'reproduce' wrote; may be unfinished.")
    ],
    *,
    formats: list[str] | None,
    latex: bool,
) -> None:
    """Write report.html, plots and, if asked for, LaTeX tables of a folder again.

    Of what 'path' wrote these are its picture and its tables.

    Examples
    --------
        tightframe report digits
        tightframe report digits --format pdf --latex
    """
    from tightframe.runs.store import read_run_file
    from tightframe.runs.writer import writing

    # By its name, not by the module that knows it: a run's report needs nothing of that.
    write = write_run_report
    if (folder / "reproduce.json").exists():
        write = write_reproduction_report
    elif (folder / "grid.json").exists():
        write = write_grid_report
    else:
        read_run_file(folder)  # before a lock is put among somebody's files
    with writing(folder, "folder"):
        with waiting("drawing"):
            page = write(folder, formats or ["png"])
        print(page)
        if latex:
            from tightframe.report import write_tables

            for path in write_tables(folder):
                print(path)


def write_run_report(folder: Path, formats: Sequence[str] = ("png",)) -> Path:
    """Write the page and the plots of a run."""
    from tightframe.report import save_plots, write_report
    from tightframe.runs.store import load_run

    save_plots(load_run(folder), folder / "plots", formats)
    return write_report(folder)


def write_grid_report(folder: Path, formats: Sequence[str] = ("png",)) -> Path:
    """Draw the picture of a path or a phase diagram."""
    from tightframe.report import save_grid_plots
    from tightframe.sweeps.grid import read_rows

    return save_grid_plots(*read_rows(folder), folder, formats)[0]


def write_reproduction_report(folder: Path, formats: Sequence[str] = ("png",)) -> Path:
    """Write the page and the plots of a reproduction."""
    from tightframe.report import save_reproduction_plots, write_reproduction

    save_reproduction_plots(folder, formats)
    return write_reproduction(folder)
