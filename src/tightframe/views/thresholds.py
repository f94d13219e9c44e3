"""What thresholds and changes of state show: tables, frames and charts along the decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tightframe.figures.model import Chart, Curve, Mark
from tightframe.figures.table import Column, Table
from tightframe.views.merge_tree import VERBS

if TYPE_CHECKING:
    from tightframe.changes import StateChanges
    from tightframe.theory.contexts.thresholds import ContextThresholds
    from tightframe.theory.thresholds import Thresholds

#: States in the order in which classes get into them.
COLLAPSED = ("merged", "lost", "vanished")

#: Rows of a table, at most.
MOST_ROWS = 12

LAMBDA = "λ = √(weight decay · feature decay)"


def thresholds_rows(found: Thresholds) -> list[dict[str, Any]]:
    """Return one row a group of classes."""
    names = ("count", "classes", "logit_decay", "collapsed", "merges", "lost", "vanishes")
    return [{name: getattr(group, name) for name in names} for group in found.groups]


def groups_table(found: Thresholds) -> Table:
    """Return from which decay on which classes are in which state."""
    shown = found.groups[:MOST_ROWS]
    own, followed = found.logit_decay, _followed(found)
    places = [found.places_of(group) for group in shown]
    states = [state for state in COLLAPSED if any(state in each for each in places)]
    cells: list[list[Any]] = [
        [f"{group.classes} of {group.count}", *(each.get(state) for state in states)]
        for group, each in zip(shown, places, strict=True)
    ]
    columns: list[str | Column] = ["classes"]
    columns += [Column(f"{VERBS[state]} from", align="right", format=".6g") for state in states]
    if own is not None and followed:
        columns.append(Column("now", states=True))
        cells = [[*row, each.state_at(own)] for row, each in zip(cells, shown, strict=True)]
    elif any(group.collapsed is not None for group in shown):
        said = {True: "yes", False: "no", None: None}
        columns.append(f"{found.collapsed_state} now")
        cells = [[*row, said[each.collapsed]] for row, each in zip(cells, shown, strict=True)]
    more = len(found.groups) - len(shown)
    note = f"All class means are zero from {found.total_collapse:.6g} on."
    note += f" {more} more groups." if more else ""
    return Table("lambda" + ("" if own is None else f" = {own:.6g}"), columns, cells, note, "-")


def thresholds_chart(found: Thresholds) -> Chart:
    """Return over the samples of a class from which decay on it is in which state."""
    known = [(group.count, found.places_of(group)) for group in found.groups]
    curves = []
    for state in COLLAPSED:
        own = [(each[state], float(count)) for count, each in known if state in each]
        if own:
            places, counts = zip(*own, strict=True)
            curves.append(Curve(f"{state} from here", places, counts, state, "points"))
    return Chart(
        "Where classes collapse",
        LAMBDA,
        "samples of the class",
        curves,
        marks=_marks(found),
        log_x=True,
        log_y=True,
        nothing="no threshold is known",
    )


def _marks(found: Thresholds | ContextThresholds) -> list[Mark]:
    """Return lines where all is zero, and at the problem's own decay if it has one."""
    marks = [Mark(found.total_collapse, "all zero", color="muted", in_legend=True)]
    if found.logit_decay is not None:
        marks.append(Mark(found.logit_decay, "this decay", color="ink", style="solid"))
    return marks


def _followed(found: Thresholds) -> bool:
    """Tell whether every change of state is known, not the closed form alone."""
    return all(group.changes is not None for group in found.groups)


def merging_chart(found: ContextThresholds) -> Chart:
    """Return how many labels share their logits with others along the decay."""
    places = [(own.logit_decay, len(own.labels)) for own in found.sets]
    top = found.total_collapse
    together = sum(len(own) for own in found.equal_labels)
    decays = [min([place for place, _ in places] + [top]) / 3]
    numbers = [together]
    for place, size in sorted(places):
        together += size
        decays += [place] * 2
        numbers += [numbers[-1], together]
    decays += [top] * 2
    numbers += [numbers[-1], found.problem.num_classes]
    return Chart(
        "Where labels share their logits",
        LAMBDA,
        "labels that share",
        [Curve("labels that share their logits", decays, numbers, "merged")],
        marks=_marks(found),
        log_x=True,
        whole=("y",),
        note=f"Of {len(found.alone)} more labels no place is known." if found.alone else "",
    )


def changes_table(found: StateChanges) -> Table:
    """Return the first changes as a table."""
    groups = found.problem.groups
    cells = [
        [
            change.logit_decay,
            ", ".join(f"{groups[g].classes} of {groups[g].count}" for g in change.groups[:3])
            + (", ..." if len(change.groups) > 3 else ""),
            change.before,
            change.after,
            None if change.rival is None else found.problem.name(change.rival),
        ]
        for change in found.changes[:MOST_ROWS]
    ]
    columns: list[str | Column] = [
        Column("lambda", format=".6g", align="left"),
        "classes",
        Column("before", states=True),
        Column("after", states=True),
        Column("taken for", align="left", spare=True),
    ]
    more = len(found) - len(cells)
    note = f"{more} more changes." if more else ""
    return Table("Changes of state as the decay grows", columns, cells, note, missing="-")


def changes_chart(found: StateChanges) -> Chart:
    """Return how many classes are in which state along the decay."""
    sizes = [group.classes for group in found.problem.groups]
    states = [str(state) for state in found.first.state]
    order = ("distinct", "merged", "lost", "vanished")
    top = found.changes[-1].logit_decay if found.changes else found.lowest
    decays, numbers = [found.lowest], [dict.fromkeys(order, 0)]
    for state, size in zip(states, sizes, strict=True):
        numbers[0][state] += size
    for change in found.changes:
        after = dict(numbers[-1])
        for group in change.groups:
            after[states[group]] -= sizes[group]
            states[group] = change.after
            after[change.after] += sizes[group]
        # A jump: the old numbers up to the decay, the new ones from there.
        decays += [change.logit_decay] * 2
        numbers += [numbers[-1], after]
    decays.append(top * 1.3)
    numbers.append(numbers[-1])
    curves = [
        Curve(state, decays, [float(each[state]) for each in numbers], state)
        for state in order
        if any(each[state] for each in numbers)
    ]
    return Chart("States along the decay", LAMBDA, "classes", curves, log_x=True, whole=("y",))
