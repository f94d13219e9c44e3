"""Other losses and heads of the command solve: focal, normalised, supervised contrastive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import typer

from tightframe.checks import number_of
from tightframe.cli.console import plain_console, print_table
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import LAMBDA, NUMBER, Option
from tightframe.figures.table import Column, Table
from tightframe.files import format_json
from tightframe.problem.counts import counts_array
from tightframe.relatives.contrastive import supervised_contrastive
from tightframe.relatives.focal import FocalCollapse, focal_collapse
from tightframe.relatives.normalized import normalized_head
from tightframe.relatives.unit_solution import UnitSolution

#: What `solve` takes beside the options of a `Problem`.
RELATIVE_OPTIONS = tuple(
    option.but(panel="Other losses")
    for option in (
        Option("gamma", NUMBER, "Of --loss focal: its focusing parameter.", unset="needed with it"),
        Option(
            "scale", NUMBER, "Of --loss normalized: factor of the cosines.", unset="needed with it"
        ),
        Option(
            "margin", NUMBER, "Of --loss normalized: taken off the own cosine (CosFace).", unset="0"
        ),
        Option(
            "temperature",
            NUMBER,
            "Of --loss contrastive: it divides cosines.",
            unset="needed with it",
        ),
    )
)


class Relative(NamedTuple):
    """One loss that is no `Problem`: the options it needs, may have, and what solves it."""

    needed: tuple[str, ...]
    allowed: tuple[str, ...]
    solve: Callable[..., FocalCollapse | UnitSolution]


def is_relative(loss: str) -> bool:
    """Tell whether a loss is one of these."""
    return loss in RELATIVES


def refuse_foreign(typed: Sequence[str], values: dict[str, Any]) -> None:
    """Refuse options of these losses with another loss."""
    for option in RELATIVE_OPTIONS:
        if option.name in typed:
            (owner,) = (name for name, own in RELATIVES.items() if option.name in sum(own[:2], ()))
            value = values[option.name]
            raise ValueError(f"{option.name}: got {value!r}, which belongs to --loss {owner}")


def solve_relative(loss: str, typed: Sequence[str], *, json: bool, **options: Any) -> None:
    """Solve a problem of such a loss and print the result."""
    relative = RELATIVES[loss]
    known = {"loss", "json", *relative.needed, *relative.allowed}
    if known.issuperset(LAMBDA.fills):
        known.add(LAMBDA.name)
    for name in typed:
        if name not in known:
            raise ValueError(f"{name}: got a value with --loss {loss}, which has no use for it")
    missing = [name for name in relative.needed if options[name] is None]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        raise ValueError(f"{', '.join(missing)}: missing; --loss {loss} needs {them}")
    chosen = {name: options[name] for name in relative.needed}
    chosen |= {name: options[name] for name in relative.allowed if name in typed}
    found = relative.solve(**chosen)
    if json:
        print(format_json({"loss": loss} | found.to_dict()))
    elif isinstance(found, FocalCollapse):
        _print_focal(found)
    else:
        _print_directions(found)
    if found.status == "not_converged":
        raise typer.Exit(NOT_CONVERGED)


def _focal(counts: str, **options: Any) -> FocalCollapse:
    """Solve focal loss for classes of one count."""
    n = counts_array(counts)
    if n.min() != n.max():
        raise ValueError(
            f"counts: got {counts!r}, need classes of one count with --loss focal: nothing is "
            "known, and nothing found, for counts that differ"
        )
    return focal_collapse(len(n), int(n[0]), options.pop("gamma"), **options)


RELATIVES = {
    "focal": Relative(
        ("counts", "gamma", "weight_decay", "feature_decay"), ("starts", "seed"), _focal
    ),
    "normalized": Relative(("counts", "scale"), ("margin", "tol", "seed"), normalized_head),
    "contrastive": Relative(("counts", "temperature"), ("tol", "seed"), supervised_contrastive),
}


# -- what is printed -------------------------------------------------------------------------------


def _print_focal(found: FocalCollapse) -> None:
    rows = [
        ["margin of the simplex ETF", found.margin],
        ["objective", found.objective],
        ["lambda", found.logit_decay],
        ["zero is a local minimum from lambda", found.stability_limit],
        ["zero is better than any ETF from lambda", found.collapse],
        ["margin just below", found.jump],
    ]
    title = f"Focal loss, {found.num_classes} classes of "
    title += number_of(found.samples_per_class, "sample")
    table = Table(title, ["", Column("value", align="right", format=".6g")], rows)
    print_table(table, plain_console())
    plain_console().print(found.note, highlight=False)


def _print_directions(found: UnitSolution) -> None:
    rows = [
        [group.classes, group.samples, *(None if np.isnan(c) else c for c in group[2:])]
        for group in found.siblings
    ]
    columns: list[str | Column] = [
        Column("classes", align="left"),
        Column("samples each", align="right", format="d"),
        Column("cosine to a sibling", align="right", format=".4g"),
        Column("to another class", align="right", format=".4g"),
    ]
    print_table(Table("Closest directions of classes", columns, rows, missing="-"), plain_console())
    lines = [
        f"objective {found.objective:.12g}, gap {found.gap:.2g} (certified), relative gap "
        f"{found.relative_gap:.2g}, rank {found.rank}",
        *([found.note] if found.note else []),
        found.status,
    ]
    plain_console().print("\n".join(lines), highlight=False, soft_wrap=True)
