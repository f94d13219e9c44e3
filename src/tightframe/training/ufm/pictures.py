"""What trained unconstrained features models show: a table and a chart of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tightframe.figures.model import Chart, Curve, evenly
from tightframe.figures.table import Column, Table
from tightframe.theory.thresholds import overall_decay

if TYPE_CHECKING:
    from tightframe.training.ufm.train import UFMRun

#: Runs that have a row in a table, and a curve, at most.
MOST_ROWS, MOST_CURVES = 12, 8


def runs_table(runs: Sequence[UFMRun]) -> Table:
    """Return one row a run: where it ended, and how far from the optimum."""
    columns: list[str | Column] = ["classes", Column("lambda", align="right", format=".4g")]
    columns += ["seed", "status", Column("iterations", align="right")]
    numbers = ("objective", "excess", "distance")
    columns += [Column(name, align="right", format=".6g") for name in numbers]
    shown = runs[:MOST_ROWS]
    rows = [
        [
            run.problem.num_classes,
            overall_decay(run.problem),
            run.seed,
            run.status,
            run.iterations,
            run.history[-1]["objective"],
            run.excess,
            run.distance,
        ]
        for run in shown
    ]
    note = f"{len(runs) - len(shown)} more runs." if len(shown) < len(runs) else ""
    return Table("Runs", columns, rows, note, missing="-")


def excess_chart(runs: Sequence[UFMRun]) -> Chart:
    """Return how far every run's objective is above the bound, along the iterations."""
    chosen = evenly(len(runs), MOST_CURVES) if runs else []
    decays = len({overall_decay(run.problem) for run in runs}) > 1
    curves = []
    for number, i in enumerate(chosen):
        run = runs[i]
        name = f"seed {run.seed}"
        if decays:
            name = f"lambda {overall_decay(run.problem):.4g}, {name}"
        x = [row["iteration"] + 1 for row in run.history]
        curves.append(Curve(name, x, [row["excess"] for row in run.history], number))
    more = len(runs) - len(chosen)
    return Chart(
        "Above the certified bound",
        "iteration",
        "excess of the objective",
        curves,
        log_x=True,
        log_y=True,
        note=f"{more} more runs are not drawn." if more else "",
        nothing="no bound is known",
    )
