"""Advice as text and tables in reading order, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tightframe.advice.prediction import Outlook, describe
from tightframe.figures.model import Bars, Chart, Mark
from tightframe.figures.table import Column, Table
from tightframe.geometry.states import STATES
from tightframe.shown import Block

if TYPE_CHECKING:
    from tightframe.advice.advise import Advice

#: How many class groups have a row in advice.
MAX_ROWS = 12


def advice_blocks(advice: Advice, *, is_all: bool = True, compared: bool = True) -> list[Block]:
    """Say how far the classes are from collapse, and what is proposed.

    ``is_all``: whether there is nothing to change if the theory has nothing. ``compared``: whether
    `Advice.remedies` are there, which are solved for that.
    """
    factors = [safety.factor for safety in advice.safety]
    title = f"As it is: lambda {advice.problem.logit_decay:.4g}"
    blocks: list[Block] = [outlook_table(advice.now, title, factors), *advice.warnings]
    decays = advice.largest_decays
    blocks.append(
        f"all classes are distinct below lambda {advice.largest_decay:.4g}: weight_decay "
        f"{decays['weight_decay']:.4g} or feature_decay {decays['feature_decay']:.4g}"
        if advice.largest_decay
        else "all classes are distinct at no decay that was looked at"
    )
    if advice.met:
        end = ": nothing to change" if is_all else ", by the theory"
        blocks.append(f"every class has {advice.wanted} or more{end}")
    else:
        blocks.append(f"\nWhat gives every class {advice.wanted}:")
    for proposal in advice.proposals:
        blocks.append(f"- {proposal.text}")
        if proposal.after is not None:
            blocks.append(outlook_table(proposal.after))
    if advice.plain_remedies:
        blocks.append("\nFor comparison, plain remedies:")
    blocks += [
        f"- {remedy.text} Smallest decision margin {remedy.after.decision_margin:.4g}, "
        f"smallest angle {remedy.after.angle:.4g}."
        for remedy in advice.plain_remedies
        if remedy.after is not None
    ]
    if compared and advice.remedies:
        blocks.append(remedies_table(advice))
    blocks += [
        f"{times} times the data, feature_decay of the {advice.feature_decay_of} as it is: "
        f"smallest decision margin {found.decision_margin:.4g}, smallest angle {found.angle:.4g}"
        for times, found in advice.more_data
    ]
    return [*blocks, advice.limits]


def remedies_table(advice: Advice) -> Table:
    """Compare remedies, as papers use them, in merging and in margins of big and small classes."""
    counts = [group.count for group in advice.problem.groups]
    ends = counts.index(max(counts)), counts.index(min(counts))
    columns: list[str | Column] = [
        Column("remedy", wrapped=True),
        Column("merge", align="right"),
        Column("big", align="right", format=".3g"),
        Column("small", align="right", format=".3g"),
        Column("state", states=True, spare=True),
    ]
    merging = any(factor is not None for r in advice.remedies for factor in r.factors)
    rows = [_compared("As it is.", [1.0] if merging else [], advice.now, ends)]
    rows += [_compared(r.text, r.factors, r.after, ends) for r in advice.remedies]
    title = "Each remedy in place of the problem's own, as papers use it"
    note = (
        "merge: times the decay at which classes merge now; big, small: decision margins of the "
        "classes with most and with fewest samples."
    )
    return Table(title, columns, rows, note, missing="-")


def _compared(
    text: str, factors: Sequence[float | None], after: Outlook, ends: Sequence[int]
) -> list[Any]:
    known = [factor for factor in factors if factor is not None]
    place = None
    if known:
        low, high = (f"{number:.3g}" for number in (min(known), max(known)))
        place = low if low == high else f"{low}-{high}"
    margins = [after.groups[i].decision_margin for i in ends]
    worst = min((group.state for group in after.groups), key=STATES.index)
    return [text, place, *margins, worst]


def outlook_table(found: Outlook, title: str = "", safety: Sequence[float] = ()) -> Table:
    """Tabulate an outlook by group, the worst groups if there are many."""
    lengths = ("classifier norm", "mean norm")

    def numbers(*names: str, format: str) -> list[str | Column]:
        return [Column(name, align="right", format=format) for name in names]

    columns: list[str | Column] = ["classes"]
    columns += numbers("decision margin", "angle", *lengths, format=".4g")
    columns += numbers("safety", format=".3g") if safety else []
    columns.append(Column("state", states=True))
    worst = sorted(range(len(found.groups)), key=lambda i: found.groups[i].decision_margin)
    rows: list[list[Any]] = []
    for i in sorted(worst[:MAX_ROWS]):
        group = found.groups[i]
        row = [group.decision_margin, group.angle, group.classifier_norm, group.mean_norm]
        rows.append([describe(group), *row, *safety[i : i + 1], group.state])
    note = ""
    if len(found.groups) > MAX_ROWS:
        note = f"the {MAX_ROWS} smallest decision margins of {len(found.groups)} groups"
    return Table(title, columns, rows, note)


def advice_rows(advice: Advice) -> list[dict[str, Any]]:
    """Return one row a proposal or plain remedy, the problem as it is first."""
    asked = [("as it is", "The problem as it is.", advice.now)]
    made = (*advice.proposals, *advice.plain_remedies)
    asked += [(found.kind, found.text, found.after) for found in made if found.after is not None]
    return [
        {
            "kind": kind,
            "text": text,
            "decision_margin": after.decision_margin,
            "angle": after.angle,
            "distinct": after.distinct,
            "objective": after.objective,
            "gap": after.gap,
        }
        for kind, text, after in asked
    ]


def advice_chart(advice: Advice) -> Chart:
    """Return the smallest decision margin now and after every proposal."""
    rows = advice_rows(advice)
    places = [float(i) for i in range(len(rows))]
    wanted = advice.wanted.margin
    names = [row["kind"].replace("_", " ") for row in rows]
    margins = [row["decision_margin"] for row in rows]
    return Chart(
        "What each change would do",
        "smallest decision margin",
        "",
        [],
        bars=[Bars("", places, margins, "predicted", across=True)],
        marks=[] if wanted is None else [Mark(wanted, "wanted", color="ink", style="dashed")],
        y_ticks=list(zip(places, names, strict=True)),
        downwards=True,
        legend="none",
    )
