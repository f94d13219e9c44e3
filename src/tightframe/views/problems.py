"""What a problem shows: a table, a frame and a chart of its classes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from tightframe.figures.model import Bars, Chart, Curve
from tightframe.figures.table import Column, Table
from tightframe.problem.class_names import listed

if TYPE_CHECKING:
    from tightframe.problem.problem import Problem

#: Groups that have a row in a table, and classes that have a bar, at most.
MOST_ROWS, MOST_BARS = 12, 40


def problem_rows(problem: Problem) -> list[dict[str, Any]]:
    """Return one row a group of classes (contexts) that are alike: its count and its terms."""
    names = problem.group_names() if problem.targets is None else [[] for _ in problem.groups]
    return [
        {"count": group.count, of_what(problem): group.classes, **terms}
        | ({"names": own} if own else {})
        for group, terms, own in zip(problem.groups, problem.group_terms, names, strict=True)
    ]


def of_what(problem: Problem) -> str:
    """Return what the counts are of."""
    return "classes" if problem.targets is None else "contexts"


def problem_table(problem: Problem) -> Table:
    """Return the groups of most samples as a table."""
    rows = sorted(problem_rows(problem), key=lambda row: -row["count"])
    shown = rows[:MOST_ROWS]
    named = any("names" in row for row in shown)
    # Of what a plain problem has not, nothing is said.
    plain = {"class_weight": 1.0, "logit_adjustment": 0.0}
    heads = [
        name
        for name in shown[0]
        if name != "names" and any(row[name] != plain.get(name) for row in rows)
    ]
    columns: list[str | Column] = [Column(name.replace("_", " "), format=".6g") for name in heads]
    cells = [[row[name] for name in heads] for row in shown]
    if named:
        columns.append(Column("names", align="left"))
        for cell, row in zip(cells, shown, strict=True):
            cell.append(listed(row.get("names", [])))
    more = len(rows) - len(shown)
    note = f"{more} more groups of fewer samples." if more else ""
    return Table("", columns, cells, note)


def problem_chart(problem: Problem) -> Chart:
    """Return the samples of every class (context), in their order."""
    what = of_what(problem)
    size, counts = problem.num_contexts, [count for count, _ in problem.runs]
    bars, curves = [], []
    if size <= MOST_BARS:
        places = [float(k) for k in range(size)]
        bars = [Bars("", places, problem.counts.tolist(), "predicted")]
    else:
        ends = [0, *itertools.accumulate(classes for _, classes in problem.runs)]
        x = [place for start, end in itertools.pairwise(ends) for place in (start, end - 1)]
        y = [float(count) for count in counts for _ in range(2)]
        curves = [Curve("", [float(place) for place in x], y, "predicted")]
    wide = max(counts) >= 20 * min(counts)
    return Chart(
        f"{problem.num_samples} samples of {size} {what}",
        "class" if what == "classes" else "context",
        "samples",
        curves,
        bars=bars,
        # From a bar's foot, which is nowhere on a log axis.
        log_y=wide and not bars,
        y_range=(None if wide and not bars else 0.0, None),
        whole=("x",),
        legend="none",
    )
