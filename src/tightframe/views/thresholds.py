"""What thresholds and changes of state show: tables, frames and charts along the decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tightframe.figures.model import Chart, Curve, Mark
from tightframe.figures.table import Column, Table

if TYPE_CHECKING:
    from tightframe.changes import StateChanges
    from tightframe.theory.contexts.thresholds import ContextThresholds
    from tightframe.theory.thresholds import Thresholds

#: Rows of a table, at most.
MOST_ROWS = 12

LAMBDA = "λ = √(weight decay · feature decay)"


def thresholds_rows(found: Thresholds) -> list[dict[str, Any]]:
    """Return one row a group of classes."""
    names = ("count", "classes", "logit_decay", "collapsed", "merges", "lost", "vanishes")
    return [{name: getattr(group, name) for name in names} for group in found.groups]


def groups_table(found: Thresholds) -> Table:
    """Return from which decay on which classes are in which state."""
    rows = thresholds_rows(found)
    shown = rows[:MOST_ROWS]
    said = {True: "yes", False: "no", None: None}
    closed = "merge from" if found.kind == "merge" else "vanish from"
    heads = {"logit_decay": closed, "lost": "lost from", "vanishes": "vanish from"}
    if found.kind == "vanish":
        del heads["vanishes"]
    kept = [n for n in heads if any(row[n] is not None for row in shown)]
    cells = [
        [
            f"{row['classes']} of {row['count']}",
            *(row[name] for name in kept),
            said[row["collapsed"]],
        ]
        for row in shown
    ]
    columns: list[str | Column] = ["classes"]
    columns += [Column(heads[name], align="right", format=".6g") for name in kept]
    columns.append("now")
    if all(row["collapsed"] is None for row in shown):
        columns, cells = columns[:-1], [cell[:-1] for cell in cells]
    own = "" if found.logit_decay is None else f" = {found.logit_decay:.6g}"
    more = len(rows) - len(shown)
    note = f"All class means are zero from {found.total_collapse:.6g} on."
    note += f" {more} more groups." if more else ""
    return Table(f"lambda{own}", columns, cells, note, missing="-")


def thresholds_chart(found: Thresholds) -> Chart:
    """Return over the samples of a class from which decay on it is in which state."""
    rows = thresholds_rows(found)
    merged = "merged" if found.kind == "merge" else "vanished"
    heads = {"logit_decay": merged, "lost": "lost", "vanishes": "vanished"}
    curves = []
    for name, state in heads.items():
        own = [row for row in rows if row[name] is not None]
        if own and not (name == "vanishes" and found.kind == "vanish"):
            places = [row[name] for row in own]
            counts = [float(row["count"]) for row in own]
            curves.append(Curve(f"{state} from here", places, counts, state, "points"))
    marks = [Mark(found.total_collapse, "all zero", color="muted", in_legend=True)]
    if found.logit_decay is not None:
        marks.append(Mark(found.logit_decay, "this decay", color="ink", style="solid"))
    return Chart(
        "Where classes collapse",
        LAMBDA,
        "samples of the class",
        curves,
        marks=marks,
        log_x=True,
        log_y=True,
        nothing="no threshold is known",
    )


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
    marks = [Mark(top, "all zero", color="muted", in_legend=True)]
    if found.logit_decay is not None:
        marks.append(Mark(found.logit_decay, "this decay", color="ink", style="solid"))
    return Chart(
        "Where labels share their logits",
        LAMBDA,
        "labels that share",
        [Curve("labels that share their logits", decays, numbers, "merged")],
        marks=marks,
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
