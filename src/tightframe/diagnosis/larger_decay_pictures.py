"""What another decay would do, as a table and as a picture; each is loaded on request."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tightframe.diagnosis.decay_rules import ROUGH
from tightframe.figures.model import Chart, Curve, Mark
from tightframe.figures.style import PALETTE
from tightframe.figures.table import Column, Table
from tightframe.problem.class_names import shown_names
from tightframe.shown import Block

Array = NDArray[np.float64]

#: Classes with a row of the table, and with a curve of the picture.
MAX_ROWS, MAX_CURVES = 20, len(PALETTE)


class Outlook(Protocol):
    """What is read of a `tightframe.diagnosis.larger_decay.LargerDecay`."""

    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def at(self) -> Array: ...  # noqa: D102
    @property
    def counts(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def now(self) -> Array: ...  # noqa: D102
    @property
    def margins(self) -> Array | None: ...  # noqa: D102
    @property
    def error(self) -> Array | None: ...  # noqa: D102
    @property
    def objective(self) -> Array | None: ...  # noqa: D102
    @property
    def note(self) -> str: ...  # noqa: D102
    def name(self, label: int) -> str: ...  # noqa: D102


def blocks_of(found: Outlook) -> Iterator[Block]:
    """Yield the table of classes and sentences about it; sentences alone where nothing speaks."""
    spoken = _spoken(found)
    if spoken:
        yield _table(found, spoken)
    yield found.note
    if not spoken:
        return
    if _entry(found, spoken[0], _worst(found)[0])[1] < ROUGH.error:
        yield "The bars held for 90 % of the classes of small networks trained from scratch."
    else:
        yield "The bars are rough: few networks were trained from scratch to compare."
    yield (
        "A margin of up to 1 is a risk: of classes predicted from 0 to 1 about half were lost, "
        "above it none."
    )
    if found.objective is not None:
        known = [row for row in spoken if not math.isnan(found.objective[row])]
        if known:
            bounds = [f"{found.objective[row]:.4f} at {found.at[row]:g}" for row in known]
            yield f"The best objective is at most {', '.join(bounds)}."


def _table(found: Outlook, spoken: list[int]) -> Table:
    """Return one row a class, those with the smallest margins first."""
    columns: list[str | Column] = [
        Column("class", align="left", names=True),
        Column("samples", align="right", spare=True),
        Column(f"now, at {found.weight_decay:g}", align="right", format=".2f"),
    ]
    columns += [Column(f"at {found.at[row]:g}", align="right") for row in spoken]
    order = _worst(found)
    rows: list[list[Any]] = [
        [found.name(k), int(found.counts[k]), float(found.now[k])]
        + [_with_bar(found, row, k) for row in spoken]
        for k in order[:MAX_ROWS]
    ]
    more = len(order) - len(rows)
    note = f"{more} more classes have larger margins" if more else ""
    return Table("Margins at the class means (nats), by weight decay", columns, rows, note)


def chart_of(found: Outlook) -> Chart:
    """Return the smallest margins along the decays, with their bars."""
    spoken = _spoken(found)
    curves = []
    worst = _worst(found)[:MAX_CURVES] if spoken else []
    names = shown_names([found.name(k) for k in worst])
    for number, k in enumerate(worst):
        points = [(found.weight_decay, float(found.now[k]), 0.0)]
        for row in spoken:
            margin, bar = _entry(found, row, k)
            points.append((float(found.at[row]), margin, bar))
        points.sort()
        curves.append(
            Curve(
                f"class {names[number]} ({found.counts[k]})",
                [decay for decay, _, _ in points],
                [margin for _, margin, _ in points],
                color=number,
                style="line+points",
                low=[margin - bar for _, margin, bar in points],
                high=[margin + bar for _, margin, bar in points],
            )
        )
    return Chart(
        "What another weight decay would do",
        "weight decay",
        "margin at the class mean (nats)",
        curves,
        marks=[Mark(0.0, "lost below", axis="y")],
        log_x=True,
        note=found.note,
        nothing="no prediction",
    )


def _spoken(found: Outlook) -> list[int]:
    """Return the rows that have a prediction."""
    if found.margins is None:
        return []
    return [row for row, margins in enumerate(found.margins) if not np.isnan(margins).all()]


def _worst(found: Outlook) -> list[int]:
    """Return the classes by their margin in the last row that speaks, or now."""
    spoken = _spoken(found)
    last = found.margins[spoken[-1]] if found.margins is not None and spoken else found.now
    return [int(k) for k in np.argsort(last, kind="stable") if not math.isnan(found.now[k])]


def _entry(found: Outlook, row: int, k: int) -> tuple[float, float]:
    margins, error = found.margins, found.error
    assert margins is not None  # the row speaks
    assert error is not None
    return float(margins[row, k]), float(error[row, k])


def _with_bar(found: Outlook, row: int, k: int) -> str:
    margin, bar = _entry(found, row, k)
    return f"{margin + 0.0:.2f} ± {bar:.1f}"
