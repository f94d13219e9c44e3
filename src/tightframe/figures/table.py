"""A table as data: numbers stay numbers until a renderer of `figures.formats` writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tightframe.checks import choice
from tightframe.problem.class_names import on_one_line

#: Flush left, or flush right as numbers are.
ALIGNMENTS = ("left", "right")

#: Larger numbers are written with an exponent.
TOO_LONG = 1e12

#: A number as text.
_WRITTEN = re.compile(r"[-−]?\d[\d.,]*(e[-+]\d+)?( %)?")  # noqa: RUF001

_FORMAT = re.compile(r",?(\.\d+)?[defg%]?")


@dataclass(frozen=True)
class Column:
    """What a column of a `Table` holds.

    Parameters
    ----------
    name : str
    unit : str
        Stands behind the name, in brackets.
    align : {"left", "right"}, optional
        By default numbers are flush right and texts flush left.
    format : str
        How a number is written: Python's format specification, as ``".4g"`` or ``",d"``. By default
        whole numbers have all their digits and others five.
    suffix : str
        Stands behind every number, as ``" %"``.
    wrapped : bool
        Whether it holds sentences, which are broken over lines where they are long.
    states : bool
        Whether its texts are states of classes, which have marks and colours in a console.
    names : bool
        Whether its texts are names of classes, of which a console shows what it has room for.
    spare : bool
        Whether a console leaves it out where it has no room; of several the last goes first.

    Raises
    ------
    ValueError
        If the alignment or the format is unknown.
    """

    name: str
    unit: str = ""
    align: str | None = None
    format: str = ""
    suffix: str = ""
    wrapped: bool = False
    states: bool = False
    names: bool = False
    spare: bool = False

    def __post_init__(self) -> None:
        if self.align is not None:
            choice("align", self.align, ALIGNMENTS)
        if not _FORMAT.fullmatch(self.format):
            raise ValueError(
                f"format: got {self.format!r}, need one of a number, as '.4g', ',d' or '.2f'"
            )

    @property
    def head(self) -> str:
        """Name and unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def text(self, value: Any, missing: str) -> str:
        """Return an entry of the column as plain text."""
        if is_missing(value):
            return missing
        if isinstance(value, (str, bool, np.bool_)):
            return on_one_line(str(value)) if self.names else str(value)
        if not math.isfinite(value):
            return format_number(value)
        counts = self.format in ("", ",", "d", ",d")
        whole = isinstance(value, (int, np.integer)) or (
            self.format.endswith("d") and float(value).is_integer()
        )
        if counts and whole:
            return f"{int(value):{self.format}}{self.suffix}"
        written = ".5g" if counts or abs(value) > TOO_LONG else self.format
        return f"{float(value) + 0.0:{written}}{self.suffix}"  # + 0.0: no negative zero


@dataclass(frozen=True)
class Table:
    """Numbers side by side.

    Parameters
    ----------
    title : str
    columns : sequence of str or Column
        A text is the name of a column without unit, alignment and format.
    rows : sequence of sequence
        Texts, numbers, None; one entry a column. What has no value is None or NaN.
    note : str
        A sentence under the table.
    missing : str
        Stands where there is no value.
    sections : sequence of int
        Rows before which a line is drawn.
    strong : sequence of int
        Rows that stand out in a console.
    name : str
        By which a document refers to it.

    Raises
    ------
    ValueError
        If a row has not as many entries as there are columns.

    Examples
    --------
    >>> from tightframe.figures.formats import to_markdown
    >>> table = Table("", ["classes", Column("from", "λ", format=".3g")], [[5, 0.00575]])
    >>> print(to_markdown(table))
    | classes | from (λ) |
    |--------:|---------:|
    |       5 |  0.00575 |
    """

    title: str
    columns: Sequence[str | Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    missing: str = "n/a"
    sections: Sequence[int] = ()
    strong: Sequence[int] = ()
    name: str = ""

    def __post_init__(self) -> None:
        columns = [Column(**c) if isinstance(c, dict) else c for c in self.columns]
        object.__setattr__(self, "columns", columns)
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"rows: got {len(row)} entries for {len(self.columns)} columns")

    @property
    def empty(self) -> bool:
        """Whether there is no row."""
        return not self.rows

    @property
    def heads(self) -> list[Column]:
        """The columns, each with its alignment."""
        heads = []
        for i, column in enumerate(self.columns):
            own = column if isinstance(column, Column) else Column(column)
            align = own.align or ("right" if self._is_numeric(i) else "left")
            heads.append(replace(own, align=align))
        return heads

    @property
    def texts(self) -> list[list[str]]:
        """All entries as plain text, row by row."""
        heads = self.heads
        return [
            [head.text(value, self.missing) for head, value in zip(heads, row, strict=True)]
            for row in self.rows
        ]

    def _is_numeric(self, column: int) -> bool:
        """Tell whether a column holds numbers and gaps only, be they written already."""
        entries = [row[column] for row in self.rows]
        values = [v for v in entries if not is_missing(v) and v not in ("", "n/a", "∞", "-∞")]
        return bool(values) and all(
            is_number(v) or (isinstance(v, str) and _WRITTEN.fullmatch(v)) for v in values
        )


def is_number(value: Any) -> bool:
    """Tell whether an entry is a number: not a text, not a truth value."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def is_missing(value: Any) -> bool:
    """Tell whether an entry has no value: None or NaN."""
    return value is None or (is_number(value) and math.isnan(value))


def format_number(value: Any, digits: int = 5) -> str:
    """Return a number for a table cell: ``"n/a"`` for None and NaN, never those words."""
    if value is None or isinstance(value, str):
        return value or "n/a"
    number = float(value)
    if math.isnan(number):
        return "n/a"
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    return f"{number + 0.0:.{digits}g}"  # + 0.0: no negative zero
