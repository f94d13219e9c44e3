"""A `Table` as components of the page."""

from __future__ import annotations

from typing import Any

from dash import html

from tightframe.figures.style import STATES
from tightframe.figures.table import Column, Table

#: Longer texts get room in a narrow table, which scrolls: a word a line is hard to read.
_LONG = 16


def to_dash(table: Table) -> Any:
    """Return a table that scrolls by itself where it is too wide; its first column names rows."""
    heads = table.heads
    head = [html.Th(column.head, scope="col", **_class_of(column)) for column in heads]
    body = [
        html.Tr(
            [
                html.Td(_entry(column, text), **_class_of(column, text))
                if i
                else html.Th(text, scope="row", **_class_of(Column(""), text))
                for i, (column, text) in enumerate(zip(heads, row, strict=True))
            ]
        )
        for row in table.texts
    ]
    parts = [html.Caption(table.title), html.Thead(html.Tr(head)), html.Tbody(body)]
    return html.Div(
        [html.Table(parts), *([html.P(table.note, className="note")] if table.note else [])],
        className="scroll",
        tabIndex=0,
        role="region",
        **attributes(aria_label=table.title),
    )


def _entry(column: Column, text: str) -> Any:
    """Return a text; a state of a class with its mark and colour."""
    look = STATES.get(text) if column.states else None
    if look is None:
        return text
    mark = html.Span(f"{look.sign}\ufe0e", **attributes(aria_hidden="true"))
    style = {"color": f"var(--tf-{text})"}
    return html.Span([mark, f" {text}"], className="state", style=style)


def _class_of(column: Column, text: str = "") -> dict[str, Any]:
    if column.align == "right":
        return {"className": "n"}
    return {"className": "long"} if len(text) > _LONG else {}


def attributes(**values: str) -> Any:
    """Return attributes whose names have hyphens in HTML, as Dash takes them."""
    return {name.replace("_", "-"): value for name, value in values.items()}
