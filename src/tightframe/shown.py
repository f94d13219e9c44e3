"""What people see of a result: a line in a console, tables in a notebook, a picture, a frame.

Results of any layer are shown by what is here, so that it loads tables and pictures by their names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from tightframe.checks import number_of, shortened
from tightframe.lazy import loaded, needed

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderableType

    from tightframe.figures.model import Panel, Sheet
    from tightframe.figures.table import Table

#: A sentence, or a table.
Block: TypeAlias = "str | Table"

#: A line about a record is no longer than this, and what it says of one entry.
MOST_LETTERS, MOST_OF_ENTRY = 400, 60

#: Collections of more entries than this are told by their number.
MOST_ENTRIES = 6

_Kind = TypeVar("_Kind", bound=type)


class Shown:
    """A result that consoles and notebooks show as sentences and tables, never as its arrays."""

    def _blocks(self) -> Iterator[Block]:
        """Yield sentences and tables in reading order."""
        yield fields_table(self)

    def __repr__(self) -> str:
        return one_line(self)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Show everything in Rich, with the marks that the console can show."""
        from rich.text import Text

        to_rich = loaded("tightframe.figures.formats.to_rich")
        for block in self._blocks():
            if isinstance(block, str):
                yield Text(block)
            else:
                yield to_rich(block, ascii_only=options.ascii_only, width=options.max_width)

    def _repr_html_(self) -> str:
        return "\n".join(map(_html, self._blocks()))


def record(kind: _Kind) -> _Kind:
    """Let consoles show a dataclass or named tuple as `one_line`, and notebooks as a table."""
    shown = {"__repr__": one_line, "_repr_html_": lambda self: _html(fields_table(self))}
    for name, method in shown.items():
        setattr(kind, name, method)
    return kind


def one_line(thing: Any) -> str:
    """Return the name of a thing's class and its fields: numbers in full, arrays by their shape."""
    parts = [f"{name}={_short(value)}" for name, value in _fields(thing).items()]
    name = type(thing).__name__
    while sum(map(len, parts)) + 2 * len(parts) > MOST_LETTERS:
        parts[-2:] = ["..."]
    return f"{name}({', '.join(parts)})"


def plot(
    panel: Panel | Callable[[], Panel], ax: Any = None, *, name: str = "plot"
) -> tuple[Any, Any]:
    """Draw a panel: what every ``plot`` of a result does.

    Parameters
    ----------
    panel : Panel or callable
        With one pair of axes; or what makes it, which is not called in vain.
    ax : matplotlib.axes.Axes, optional
        Drawn on a figure of its own by default, which pyplot does not know.
    name : str
        What was called, for messages.

    Returns
    -------
    tuple of figure and axes
        As the last value of a notebook's cell it is shown as the picture, once.

    Raises
    ------
    ValueError
        If ``ax`` is something else.
    ImportError
        If Matplotlib is missing (``pip install 'tightframe[report]'``).
    """
    with needed(name, "matplotlib"):
        draw, axes = (loaded(f"tightframe.figures.mpl.{each}") for each in ("plot", "Axes"))
    if ax is not None and not isinstance(ax, axes):
        raise ValueError(
            f"ax: got {type(ax).__name__}, need one pair of Matplotlib's axes, or None"
        )
    drawn: tuple[Any, Any] = draw(panel() if callable(panel) else panel, ax)
    return drawn


def draw(sheet: Sheet) -> tuple[Any, Any]:
    """Draw a picture of several panels; as `plot`, with a list of axes."""
    with needed("plot", "matplotlib"):
        drawn_sheet = loaded("tightframe.figures.mpl.drawn_sheet")
    drawn: tuple[Any, Any] = drawn_sheet(sheet)
    return drawn


def frame(columns: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return columns or rows as a DataFrame: what every ``to_frame`` of a result does.

    Raises
    ------
    ImportError
        If pandas is missing (``pip install 'tightframe[report]'``).
    """
    with needed("to_frame", "pandas"):
        import pandas as pd
    return pd.DataFrame(columns)


def _html(block: Block) -> str:
    if not isinstance(block, str):
        text: str = loaded("tightframe.figures.formats.to_html")(block, alone=True)
        return text
    # A text after an empty line is a heading.
    tag = "h4" if block.startswith("\n") else "p"
    return f"<{tag}>{escape(block.strip())}</{tag}>"


def _fields(thing: Any) -> dict[str, Any]:
    """Return the public fields of a dataclass or named tuple, or else attributes."""
    if dataclasses.is_dataclass(thing):
        names = [field.name for field in dataclasses.fields(thing) if field.repr]
    else:
        names = list(getattr(thing, "_fields", vars(thing) if hasattr(thing, "__dict__") else ()))
    return {name: getattr(thing, name) for name in names if not name.startswith("_")}


def fields_table(thing: Any) -> Table:
    """Return the fields of a dataclass or named tuple as a table, each as `one_line` has it."""
    table = loaded("tightframe.figures.table.Table")
    rows = [[name, _short(value)] for name, value in _fields(thing).items()]
    made: Table = table(type(thing).__name__, ["", "value"], rows)
    return made


def _short(value: Any) -> str:
    """Say in a few letters what an entry is."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return shortened(repr(value), MOST_OF_ENTRY)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return (
            f"<{'x'.join(map(str, value.shape))} {str(value.dtype).removeprefix('torch.')}>"
            if (len(value.shape))
            else repr(value.item())
        )
    if isinstance(value, (list, tuple, dict, set, frozenset)) and not hasattr(value, "_fields"):
        return _several(value)
    text = repr(value)
    return text if len(text) <= MOST_OF_ENTRY else f"<{type(value).__name__}>"


def _several(values: Any) -> str:
    inside = [*values, *values.values()] if isinstance(values, dict) else list(values)
    plain = all(isinstance(each, (str, bool, int, float)) or each is None for each in inside)
    if plain and len(values) <= MOST_ENTRIES and len(text := repr(values)) <= MOST_OF_ENTRY:
        return text
    return f"<{number_of(len(values), 'entry', 'entries')}>"
