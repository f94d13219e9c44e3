r"""How a `Table` is written: for the console, HTML, LaTeX and Markdown.

A format is a function from a table to text, and its line in `FORMATS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from tightframe.checks import choice
from tightframe.figures.style import DARK, STATES, state_variables
from tightframe.figures.table import Column, Table, is_missing, is_number
from tightframe.problem.class_names import MAX_NAME, shown_names

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.table import Table as RichTable
    from rich.text import Text


# -- console ---------------------------------------------------------------------------------------

#: A name is never shown narrower; other columns are left out before it is narrower than the second.
_LEAST_NAME, _ROOM_FOR_NAMES = 8, 11

#: In fewer columns of letters a row of many columns is a block.
NARROW = 60


def to_rich(table: Table, *, ascii_only: bool = False, width: int | None = None) -> RichTable:
    """Return a table for Rich, which draws it as wide as the console allows.

    Parameters
    ----------
    table : Table
    ascii_only : bool
        Whether the console can't show the marks of states.
    width : int, optional
        Of the console; by default there is room for every column. In a console narrower than
        `NARROW` that has no room for all of them, each row is a block of lines.
    """
    from rich.table import Table as RichTable
    from rich.text import Text

    heads = table.heads
    cells: list[list[Any]] = [
        [_cell_rich(*cell, ascii_only) for cell in zip(heads, row, strict=True)]
        for row in table.texts
    ]
    if width is not None and width < NARROW and not _all_fit(heads, cells, width):
        return _blocks(table, heads, cells, width)
    note = table.note
    kept = list(range(len(heads))) if width is None else _with_room(heads, cells, width)
    if len(kept) < len(heads):
        left = ", ".join(head.head for i, head in enumerate(heads) if i not in kept)
        note = f"{note} No room for: {left}.".strip()
        heads, cells = [heads[i] for i in kept], [[row[i] for i in kept] for row in cells]
    wide = _widths(heads, cells, width)
    drawn = RichTable(
        title=_unread(table.title, "table.title") or None,
        caption=_unread(note, "table.caption") or None,
        title_justify="left",
    )
    for i, head in enumerate(heads):
        own = [row[i] for row in cells]
        if head.names:
            drawn.add_column(Text(head.head), justify=_justify(head))
            names = tuple(cell.plain for cell in own)
            for place, row in enumerate(cells):
                row[i] = _Name(names, place)
            continue
        # A name without spaces that is broken over lines could not be copied; a mark of a state
        # stays beside its word. Of other texts no letter is left out.
        whole = all(cell.style for cell in own) or not (i or any(" " in cell.plain for cell in own))
        drawn.add_column(
            Text(head.head),
            justify=_justify(head),
            width=wide[i],
            no_wrap=whole,
            overflow="ellipsis" if whole or head.align == "right" else "fold",
        )
    for i, row in enumerate(cells):
        if i in table.sections:
            drawn.add_section()
        drawn.add_row(*row, style="bold" if i in table.strong else None)
    return drawn


def _all_fit(heads: list[Column], cells: list[list[Text]], width: int) -> bool:
    """Tell whether a console has room for every column with no word of it broken."""
    columns = range(len(heads))
    return 1 + sum(3 + _least(heads, cells, i, _ROOM_FOR_NAMES) for i in columns) <= width


def _blocks(table: Table, heads: list[Column], cells: list[list[Text]], width: int) -> RichTable:
    """Return a table whose rows are blocks, one line a column."""
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        title=_unread(table.title, "table.title") or None,
        caption=_unread(table.note, "table.caption") or None,
        title_justify="left",
        caption_justify="left",
        box=None,
        show_header=False,
        pad_edge=False,
    )
    # The name of a column takes half of the line at most.
    name = min(max((len(head.head) for head in heads), default=1), width // 2)
    # Title and note are not broken earlier than the console ends.
    whole = min(max(len(table.title), len(table.note)), width)
    drawn.add_column(width=name, overflow="fold")
    drawn.add_column(min_width=max(whole - name - 2, 1), overflow="fold")
    for i, row in enumerate(cells):
        if i:
            drawn.add_row()
        style = "bold" if i in table.strong else None
        for head, cell in zip(heads, row, strict=True):
            if cell.plain:
                drawn.add_row(Text(head.head), cell, style=style)
    return drawn


def _widths(heads: list[Column], cells: list[list[Text]], width: int | None) -> list[int | None]:
    """Return how wide columns of numbers are, None where there is room for everything.

    Where there is too little room, heads of numbers are broken at their spaces before words of
    texts are broken, and cut before a digit is.
    """
    columns = range(len(heads))
    natural = [
        max(len(head.head), *(row[i].cell_len for row in cells), 1) for i, head in enumerate(heads)
    ]
    numbers = [i for i in columns if heads[i].align == "right"]
    if width is None or sum(natural) + 3 * len(heads) < width or not numbers:
        return [None] * len(heads)
    room = width - 1 - 3 * len(heads)
    least = [_least(heads, cells, i, _LEAST_NAME) for i in columns]
    texts = sum(natural[i] for i in columns if i not in numbers)
    spare = max(room - texts - sum(least[i] for i in numbers), 0) // len(numbers)
    found = {i: min(natural[i], least[i] + spare) for i in numbers}
    over = sum(least) - room
    for i in sorted(numbers, key=lambda i: _digits(cells, i) - least[i]):
        cut = min(max(over, 0), least[i] - _digits(cells, i))
        found[i], over = found[i] - cut, over - cut
    return [found.get(i) for i in columns]


def _least(heads: list[Column], cells: list[list[Text]], i: int, name: int) -> int:
    """Return how wide a column is if no word of it is broken, names as wide as given."""
    words = max(map(len, heads[i].head.split()), default=0)
    return max(words, _contents(heads, cells, i, name))


def _contents(heads: list[Column], cells: list[list[Text]], i: int, name: int) -> int:
    """Return the same of its cells alone."""
    widest = _digits(cells, i)
    if heads[i].names:
        return min(widest, name)
    if heads[i].align == "right" or any(row[i].style for row in cells):
        return widest
    words = (word for row in cells for word in row[i].plain.split())
    return max(map(len, words), default=1)


def _digits(cells: list[list[Text]], i: int) -> int:
    return max((row[i].cell_len for row in cells), default=1)


def _with_room(heads: list[Column], cells: list[list[Text]], width: int) -> list[int]:
    """Return the columns for which a console has room, be it with short names.

    Where no other may be spared, numbers that would be cut are left out, the first ones never.
    """
    kept = list(range(len(heads)))

    def fits(wide: list[int]) -> bool:
        return 1 + sum(3 + wide[k] for k in kept) <= width

    wide = [_least(heads, cells, i, _ROOM_FOR_NAMES) for i in kept]
    for i in reversed(range(len(heads))):
        if heads[i].spare and not fits(wide):
            kept.remove(i)
    numbers = [i for i in kept if heads[i].align == "right"]
    wide = [_contents(heads, cells, i, _LEAST_NAME) for i in range(len(heads))]
    for i in reversed(numbers[1:]):
        if not fits(wide):
            kept.remove(i)
    return kept


def _unread(text: str, style: str) -> str | Text:
    """Return a text in which Rich takes no square brackets for markup and no colons for emoji."""
    from rich.text import Text

    return Text(text, style=style) if re.search(r"[\[:]", text) else text


def _justify(head: Column) -> Any:
    return head.align or "left"


@dataclass(frozen=True)
class _Name:
    """A cell with a class's name, which takes one line whatever room there is."""

    names: tuple[str, ...]
    place: int

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        width = max(_LEAST_NAME, min(options.max_width, MAX_NAME))
        yield Text(shown_names(self.names, width)[self.place], no_wrap=True, overflow="ellipsis")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement
        from rich.text import Text

        name = Text(shown_names(self.names)[self.place])
        wide = Measurement.get(console, options, name).maximum
        return Measurement(min(_LEAST_NAME, wide), wide)


def _cell_rich(head: Column, text: str, ascii_only: bool) -> Text:
    """Return a cell; a state of a class has its mark and colour."""
    from rich.text import Text

    look = STATES.get(text) if head.states else None
    if look is not None:
        mark = look.ascii if ascii_only else look.sign
        return Text(f"{mark} {text}", style=f"color({look.terminal})")
    # A number with its error is one number.
    shown = text.replace("∞", "inf") if ascii_only else text
    return Text(shown, no_wrap=True if head.align == "right" else None)


def to_console(table: Table, width: int = 100) -> str:
    """Return a table as plain text, drawn by Rich in so many columns of letters."""
    import io

    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(to_rich(table, width=width))
    return capture.get()


# -- HTML ------------------------------------------------------------------------------------------


def to_html(table: Table, *, alone: bool = False) -> str:
    """Return a table as HTML, every text escaped; `pages.page` has the classes' style.

    A first column of texts names the rows. A number has all its digits in ``<data value=...>``, a
    very long name its beginning in ``title``. ``alone``: whether it stands in a notebook, without a
    page that has its title and style.
    """
    heads = table.heads
    look = _left if alone else _numbers_class
    title = f"<p><b>{escape(table.title)}</b></p>\n" if alone and table.title else ""
    if alone and any(column.states for column in heads):
        title = f"<style>{_ON_DARK} {{{state_variables(DARK)}}}</style>\n{title}"
    head = "".join(f'<th scope="col"{look(head)}>{escape(head.head)}</th>' for head in heads)
    columns = [
        shown_names(own, _NAME_WIDTH) if head.names else own
        for head, own in zip(heads, zip(*table.texts, strict=True), strict=False)
    ]
    body = []
    for row, texts, shown in zip(table.rows, table.texts, zip(*columns, strict=True), strict=True):
        cells = [
            _cell_html(head, value, text, name, look(head), first=i == 0)
            for i, (head, value, text, name) in enumerate(
                zip(heads, row, texts, shown, strict=True)
            )
        ]
        body.append(f"<tr>{''.join(cells)}</tr>\n")
    note = f'<p class="note">{escape(table.note)}</p>\n' if table.note else ""
    return (
        f'{title}<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(table.title)}">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(body)}</tbody>\n</table>\n"
        f"</div>\n{note}"
    )


#: Notebooks that say that their ground is dark: JupyterLab, VS Code, Colab, pages of Sphinx.
_ON_DARK = '[data-jp-theme-light="false"], .vscode-dark, html[theme="dark"], [data-theme="dark"]'

#: Letters of a name in HTML, and of those that are told by pointing at it.
_NAME_WIDTH, _MOST_TOLD = 100, 400

#: After a sign: no emoji.
_AS_TEXT = "\ufe0e"


def entry_html(value: Any, text: str) -> str:
    """Return an entry for reading; a number has all its digits for machines."""
    shown = escape(text)
    if is_missing(value) or text in ("∞", "-∞"):
        return f'<span class="note">{shown}</span>'
    return f'<data value="{float(value)!r}">{shown}</data>' if is_number(value) else shown


def state_html(state: str) -> str:
    """Return a state with its mark and colour; a page has the colours as `state_variables`."""
    look = STATES[state]
    return (
        f'<span class="state" style="color:var(--tf-{state},{look.light});white-space:nowrap">'
        f'<span aria-hidden="true">{look.sign}{_AS_TEXT}</span> {state}</span>'
    )


def _numbers_class(head: Column) -> str:
    return ' class="n"' if head.align == "right" else ""


def _left(head: Column) -> str:
    # Notebooks set everything flush right.
    return "" if head.align == "right" else ' style="text-align:left"'


def _cell_html(head: Column, value: Any, text: str, name: str, look: str, *, first: bool) -> str:
    shown = state_html(text) if head.states and text in STATES else entry_html(value, text)
    if name != text:
        shown = f'<span title="{escape(text[:_MOST_TOLD])}">{escape(name)}</span>'
    if first and head.align == "left":
        return f'<th scope="row"{look}>{shown}</th>'
    return f"<td{look}>{shown}</td>"


# -- Markdown --------------------------------------------------------------------------------------


def to_markdown(table: Table) -> str:
    """Return a table in GitHub's Markdown under its title, aligned in the source too."""
    heads = table.heads
    texts = [[_escaped_markdown(head.head) for head in heads]]
    texts += [[_escaped_markdown(text) for text in row] for row in table.texts]
    widths = [max(3, *(len(row[i]) for row in texts)) for i in range(len(heads))]

    def line(row: list[str]) -> str:
        cells = [
            text.rjust(width) if head.align == "right" else text.ljust(width)
            for text, width, head in zip(row, widths, heads, strict=True)
        ]
        return f"| {' | '.join(cells)} |"

    rule = [
        "-" * (width + 1) + (":" if head.align == "right" else "-")
        for width, head in zip(widths, heads, strict=True)
    ]
    lines = [line(texts[0]), f"|{'|'.join(rule)}|", *map(line, texts[1:])]
    above = [f"**{_escaped_markdown(table.title)}**", ""] if table.title else []
    below = ["", _escaped_markdown(table.note)] if table.note else []
    return "\n".join([*above, *lines, *below])


def _escaped_markdown(text: str) -> str:
    """Escape what would end a cell, be taken for HTML, or for emphasis."""
    plain = re.sub(r"([\\|*_`\[\]])", r"\\\1", " ".join(text.split()))
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# -- LaTeX -----------------------------------------------------------------------------------------

#: What pdfLaTeX cannot set as text.
_SIGNS = {
    ">=": r"$\geq$",
    "<=": r"$\leq$",
    ">": r"$>$",
    "<": r"$<$",
    "|": r"$|$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "Σ": r"$\Sigma$",
    "Θ": r"$\Theta$",
    "√": r"$\surd$",
    "‖": r"$\|$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "−": r"$-$",
    "°": r"$^\circ$",
    "²": r"$^2$",
    "⁺": r"$^+$",
    "ᵀ": r"$^\top$",
    "₀": r"$_0$",
    "…": r"\dots{}",
    "H̄": r"$\bar H$",
}

#: As in NC2_WW; longer ones are names, as test_accuracy.
_SUBSCRIPT = re.compile(r"\\_([A-Za-z]{1,2})(?![A-Za-z_])")

_NUMBER = re.compile(r"([-−]?)(\d[\d.,]*)(?:e([-+]\d+))?")


def to_latex(table: Table) -> str:
    """Return a table for LaTeX with ``booktabs``; its title becomes the caption.

    It is made smaller where it is wider than the page (``graphicx``). A table with a wrapped column
    is a ``longtable``, over as many pages as it needs.
    """
    heads = table.heads
    lines = [_row_latex([_escaped_latex(head.head) for head in heads])]
    body = []
    for i, row in enumerate(table.texts):
        body += [r"\midrule"] if i in table.sections and i else []
        body.append(_row_latex([_cell_latex(text) for text in row]))
    caption, name = _escaped_latex(table.title), f"tab:{table.name}"
    if any(head.wrapped for head in heads):
        return _long_latex(heads, lines[0], body, caption, name)
    columns = "".join("r" if head.align == "right" else "l" for head in heads)
    start, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    tabular = "\n".join([start, r"\toprule", *lines, r"\midrule", *body, r"\bottomrule", end])
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{{name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{" + tabular + "}",
            *([rf"\par\footnotesize {_escaped_latex(table.note)}"] if table.note else []),
            r"\end{table}",
            "",
        ]
    )


def _long_latex(heads: list[Column], head: str, body: list[str], caption: str, name: str) -> str:
    columns = "".join(r"p{0.48\linewidth}" if column.wrapped else "l" for column in heads)
    return "\n".join(
        [
            r"{\footnotesize",
            rf"\begin{{longtable}}{{{columns}}}",
            rf"\caption{{{caption}}} \label{{{name}}} \\",
            *[r"\toprule", head, r"\midrule", r"\endfirsthead"],
            rf"\caption[]{{{caption}}} \\",
            *[r"\toprule", head, r"\midrule", r"\endhead"],
            *[r"\midrule", rf"\multicolumn{{{len(heads)}}}{{r}}{{Continued on next page}} \\"],
            *[r"\midrule", r"\endfoot", r"\bottomrule", r"\endlastfoot"],
            *body,
            r"\end{longtable}",
            "}",
            "",
        ]
    )


def _row_latex(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell_latex(text: str) -> str:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return _escaped_latex(text)
    sign, digits, exponent = match.groups()
    digits = digits.replace(",", "{,}") if sign or exponent else digits
    power = "" if exponent is None else rf" \cdot 10^{{{int(exponent)}}}"
    return f"${'-' if sign else ''}{digits}{power}$" if sign or power else digits


def _escaped_latex(text: str) -> str:
    """Escape what is special to LaTeX, then write signs and subscripts as mathematics."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}"}
    special |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}"}
    plain = "".join(special.get(c, c) for c in " ".join(text.split()))
    for sign, command in _SIGNS.items():
        plain = plain.replace(sign, command)
    return _SUBSCRIPT.sub(r"$_{\1}$", plain)


# -- all -------------------------------------------------------------------------------------------


class Format(NamedTuple):
    """One way to write a table.

    Attributes
    ----------
    ending : str
        Of a file that holds such a table.
    write : callable
        From a `Table` to text.
    """

    ending: str
    write: Callable[[Table], str]


#: Name of a format to how a table is written in it.
FORMATS = {
    "console": Format("txt", to_console),
    "html": Format("html", to_html),
    "latex": Format("tex", to_latex),
    "markdown": Format("md", to_markdown),
}


def table_format(name: str) -> Format:
    """Return one of `FORMATS`, or raise a ValueError that names what is allowed."""
    return FORMATS[choice("format", name, FORMATS)]
