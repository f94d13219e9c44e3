"""What a solution shows: a table and a frame of its class groups, and a picture of its logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.checks import choice, number_of
from tightframe.figures.model import Chart, Curve, HeatMaps, Mark, Matrix, Panel, block_borders
from tightframe.figures.table import Column, Table, is_missing
from tightframe.problem.class_names import listed, shown_names
from tightframe.problem.problem import terms_in, with_loss_terms
from tightframe.views.wheel import solution_wheel

if TYPE_CHECKING:
    from tightframe.geometry.states import States
    from tightframe.solution import Solution

#: Groups that have a row in a table; and classes whose logits are drawn, and named, at most.
MOST_ROWS, MOST_CLASSES, MOST_NAMES = 12, 100, 20

#: What a group is said to be, in a frame.
_OF_GROUPS = ("count", "classes", "state", "decision_margin", "sibling_margin", "rival")


def solution_rows(solution: Solution) -> list[dict[str, Any]]:
    """Return one row a group of classes that are alike."""
    return [
        {name: group[name] for name in _OF_GROUPS} | terms_in(group)
        for group in solution.to_dict()["groups"]
    ]


def solution_table(solution: Solution) -> Table:
    """Return the groups of smallest decision margin as a table."""
    groups = solution.to_dict()["groups"]
    worst = sorted(range(len(groups)), key=lambda i: groups[i]["decision_margin"])[:MOST_ROWS]
    cells = []
    for i in sorted(worst):
        own = groups[i]
        called = with_loss_terms(f"{own['classes']} of {own['count']}", **terms_in(own))
        margins = (own["decision_margin"], own["sibling_margin"])
        cells.append([called, own["state"], *margins, nearest_group(groups, i)])
    note = f"The worst {MOST_ROWS} of {len(groups)} groups." if len(groups) > MOST_ROWS else ""
    return _states_table("", "classes", "nearest", cells, note)


def nearest_group(groups: Sequence[Mapping[str, Any]], i: int) -> str:
    """Return the samples of the class that a group's are nearest to, or taken for."""
    rival = groups[i]["rival"]
    if rival is None:
        return "-"
    if rival != i and len(groups[rival].get("names", ())) == 1:
        return listed(groups[rival]["names"])
    return "a sibling" if rival == i else f"one of {groups[rival]['count']}"


def _states_table(
    title: str, subject: str | Column, rival: str, cells: list[list[Any]], note: str
) -> Table:
    """Return subject, state, margins and rival; the margin to siblings where there are any."""
    columns: list[str | Column] = [
        subject,
        Column("state", states=True),
        Column("decision margin", align="right", format=".5g"),
        Column("sibling margin", align="right", format=".5g", spare=True),
        Column(rival, spare=True),
    ]
    if all(is_missing(row[3]) for row in cells):
        columns, cells = columns[:3] + columns[4:], [row[:3] + row[4:] for row in cells]
    return Table(title, columns, cells, note, missing="-")


def solution_panels(solution: Solution, what: str) -> Callable[[], Panel]:
    """Return what makes a solution's picture: the wheel, its logits, or its margins."""
    choice("what", what, ("wheel", "logits", "margins"))
    classes = solution.problem.num_classes
    if what == "logits" and classes > MOST_CLASSES:
        raise ValueError(
            f"what: got 'logits' of {classes} classes, need at most {MOST_CLASSES}; of more there "
            "are 'wheel' and 'margins'"
        )
    if what == "wheel":
        return lambda: solution_wheel(solution)
    if what == "logits":
        return lambda: logits_map(solution)
    return lambda: margins_chart(solution.states, "Decision margins")


def logits_map(solution: Solution) -> HeatMaps:
    """Return the mean logits, bias included."""
    problem = solution.problem
    logits = solution.logits + solution.bias[:, None]
    ticks = []
    if problem.class_names is not None and problem.num_classes <= MOST_NAMES:
        names = shown_names(problem.class_names, 16)
        ticks = [(float(k), name) for k, name in enumerate(names)]
    return HeatMaps(
        "Mean logits",
        [Matrix("Mean logits", logits)],
        borders=block_borders(problem.counts),
        ticks=ticks,
        scale_label="logit",
    )


def margins_chart(states: States, title: str) -> Chart:
    """Return the decision margin of every class or group, by its state."""
    curves = []
    for name in states.counts:
        places = np.flatnonzero(states.state == name)
        margins = states.decision_margin[places].tolist()
        if len(places):
            label = f"{name} ({states.counts[name]})"
            where = places.astype(float).tolist()
            curves.append(Curve(label, where, margins, name, "points"))
    what = "class" if (states.sizes == 1).all() else "group of classes"
    return Chart(
        title,
        what,
        "decision margin",
        curves,
        marks=[Mark(0.0, "", axis="y", color="muted")],
        whole=("x",),
    )


def states_table(states: States) -> Table:
    """Return the entries of smallest decision margin as a table."""
    worst = np.argsort(states.decision_margin, kind="stable")[:MOST_ROWS]
    several = bool((states.sizes != 1).any())
    cells = []
    for k in np.sort(worst).tolist():
        entry = states[k]
        name = entry.name or (number_of(states.sizes[k], "class", "classes") if several else str(k))
        cells.append([name, entry.state, entry.decision_margin, entry.sibling_margin, entry.rival])
    note = f"The worst {MOST_ROWS} of {len(states)}." if len(states) > MOST_ROWS else ""
    named = Column("class", align="left", names=True)
    return _states_table(repr(states), named, "rival", cells, note)
