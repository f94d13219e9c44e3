"""One look for both plotting backends: a colour means the same thing in every picture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tightframe.losses.registry import LOSSES

#: Role of a curve to its colour on white, from the palette of Okabe & Ito (2008), which is told
#: apart with the common colour blindnesses. All have a contrast of at least 3 to white.
COLORS = {
    "etf": "#cc79a7",
    "bound": "#009e73",
}

#: Of numbered curves: none looks like a state of classes, and class groups have none of them. Their
#: contrast is at least 3 to white and to the dark page; with each colour blindness (Machado et al.
#: 2009) any two are 18 apart or more (CIE76), the first four 30.
PALETTE = (
    "#754ed1",
    "#36a61e",
    "#d470bf",
    "#cb1f5c",
    "#736b28",
    "#7d8aed",
    "#b5249e",
    "#f35b98",
)

#: ColorBrewer's RdBu from blue (negative) over white (zero) to red (positive).
DIVERGING = (
    "#053061",
    "#2166ac",
    "#4393c3",
    "#92c5de",
    "#d1e5f0",
    "#f7f7f7",
    "#fddbc7",
    "#f4a582",
    "#d6604d",
    "#b2182b",
    "#67001f",
)

#: Cividis: dark blue to yellow, told apart with every colour blindness and in print (Nunez et al.
#: 2018).
SEQUENTIAL = (
    "#00224e",
    "#123570",
    "#3b496c",
    "#575d6d",
    "#707173",
    "#8a8678",
    "#a59c74",
    "#c3b369",
    "#e1cc55",
    "#fee838",
)

#: Shades of curves end here, before yellow, which is hard to see on white.
SHADE_END = 0.8

#: Shapes of points.
MARKERS = ("circle", "square", "diamond", "up", "right", "cross", "star", "half")

#: Dashes of class groups, in turn: their colour is the ink.
GROUP_DASHES = ("solid", "dashed", "dotted", "dashdot")

#: Widths of their lines, relative to the usual one: of the largest counts first.
GROUP_WIDTHS = (1.9, 1.5, 1.1, 0.8)

#: Of a line, a point (mean of its axes) and letters, in points of 1/72 inch.
LINE, POINT = 1.8, 6.0
TITLE, LABEL, TICK, LEGEND, SMALL = 10.5, 9.5, 9.0, 9.0, 8.5
SHEET_TITLE = 12.0

#: A page's letters.
FAMILY = "system-ui, sans-serif"


@dataclass(frozen=True)
class Ink:
    """Colours of everything that is not data, for one kind of page.

    Attributes
    ----------
    text, muted, grid, paper : str
        Of titles and labels, of ticks, of the grid, and of the ground.
    """

    text: str
    muted: str
    grid: str
    paper: str


LIGHT = Ink("#1c2128", "#57606a", "#d8dee4", "#ffffff")
DARK = Ink("#e6edf3", "#9da7b3", "#3a424c", "#161b22")


class StateLook(NamedTuple):
    """How a state of a class is shown, in every picture and in the command.

    Attributes
    ----------
    light, dark : str
        Colours of its mark on a light and on a dark ground; contrast at least 3 on both.
    marker : str
        Of `MARKERS`: colour is never alone.
    sign, ascii : str
        The mark in the command's output, and where only ASCII can be written.
    terminal : int
        Colour in the command's output, of the 256 of terminals; contrast at least 3 to white and to
        black, as nobody knows a terminal's ground.
    hatch : str
        Of an area in pictures, in Matplotlib's letters; empty: none.
    area : str
        Ground of that area.
    """

    light: str
    dark: str
    marker: str
    sign: str
    ascii: str
    terminal: int
    hatch: str
    area: str


#: State of a class to its look. "weak" is said of accuracies alone.
STATES = {
    "distinct": StateLook("#0072b2", "#56b4e9", "circle", "●", "o", 25, "", ""),
    "merged": StateLook("#d55e00", "#ff8f4a", "diamond", "◆", "=", 166, "//", "#f7d9c4"),
    "lost": StateLook("#8a2560", "#ffc4ea", "right", "▶", ">", 126, "\\\\", "#ead0e0"),
    "vanished": StateLook("#818a93", "#7d8590", "cross", "✕", "x", 245, "xx", "#e3e6e9"),
    "weak": StateLook("#0072b2", "#56b4e9", "half", "◐", "~", 25, "", ""),
}

#: What replaces colours on a dark page: those of states, some of which are too dark there.
DARK_COLORS = {look.light: look.dark for look in STATES.values()}

#: Roles without a colour of their own, as colour is for states: what is predicted is a ring or a
#: dashed line, what is measured a mark or a solid line.
SIDES = ("predicted", "measured")


def state_variables(ink: Ink) -> str:
    """Return the colours of states as CSS variables, ``--tf-merged`` and so on, on a ground."""
    return "".join(f"--tf-{state}:{color_of(state, ink)};" for state in STATES)


#: What a part of a picture may name as its colour: what it is, the ink, or a state.
ROLES = (*SIDES, *COLORS, "ink", "muted", *STATES)


def color_of(color: str | int, ink: Ink = LIGHT) -> str:
    """Return the colour of a role, or of a number of the palette, on a ground.

    Parameters
    ----------
    color : str or int
        One of `ROLES`; a number is taken modulo the length of `PALETTE`.
    ink : Ink
    """
    if color in STATES:
        look = STATES[str(color)]
        return look.dark if ink is DARK else look.light
    if color in ("ink", "muted", *SIDES):
        return ink.muted if color == "muted" else ink.text
    plain = COLORS[color] if isinstance(color, str) else PALETTE[color % len(PALETTE)]
    return DARK_COLORS.get(plain, plain) if ink is DARK else plain


def area_of(state: str, ink: Ink = LIGHT) -> str:
    """Return the ground of a state's area: on a dark page its colour over the page's."""
    look = STATES[state]
    if ink is not DARK:
        return look.area
    parts = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (look.dark, ink.paper)]
    mixed = [round(0.3 * over + 0.7 * below) for over, below in zip(*parts, strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed)


#: Colours of margins of distinct classes, from none up, on a light and on a dark ground: lightness
#: is the margin, as the state's colour is.
_MARGINS = (
    ("#e8f2fa", "#9cc9e8", "#4a9fd3", "#0072b2", "#00507d", "#00304d"),
    ("#1b2733", "#1f4663", "#2b6f9f", "#56b4e9", "#9bd3f3", "#dff1fc"),
)


def margin_colors(ink: Ink = LIGHT) -> tuple[str, ...]:
    """Return the colours of margins of distinct classes, from none up."""
    return _MARGINS[ink is DARK]


def diverging(ink: Ink = LIGHT) -> tuple[str, ...]:
    """Return the colours from negative over zero, the ground's colour, to positive."""
    if ink is not DARK:
        return DIVERGING
    # The same hues towards the ends, turned around: pale is far from zero on a dark page.
    blue, red = (
        ("#9fd0f0", "#56a6dc", "#2f73ab", "#22456a"),
        ("#fbb9a0", "#ee7f63", "#b5483f", "#672f35"),
    )
    return (*blue, DARK.paper, *reversed(red))


def whole_area(ink: Ink = LIGHT) -> str:
    """Return the ground of where every class has vanished."""
    return "#2b323b" if ink is DARK else "#c9cdd2"


def shade_of(fraction: float) -> str:
    """Return the colour of a curve at a fraction of a scale of shades."""
    place = min(max(fraction, 0.0), 1.0) * SHADE_END * (len(SEQUENTIAL) - 1)
    i = min(int(place), len(SEQUENTIAL) - 2)
    ends = [[int(SEQUENTIAL[k][c : c + 2], 16) for c in (1, 3, 5)] for k in (i, i + 1)]
    mixed = [round(a + (place - i) * (b - a)) for a, b in zip(*ends, strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def margin_label(loss: str, kind: str) -> str:
    """Return the label of an axis of margins: differences of logits, with cross-entropy in nats.

    ``kind`` says of which, mostly `margin_kind`.
    """
    return f"{kind} ({LOSSES[loss].unit})"


def margin_kind(sizes: Iterable[int]) -> str:
    """Return what the margins of groups of these sizes are: a class alone has no sibling."""
    kinds = {"sibling margin" if size > 1 else "decision margin" for size in sizes}
    return kinds.pop() if len(kinds) == 1 else "sibling or decision margin"


#: A log axis of fewer decades is labelled at 1, 2 and 5, of more at the powers of ten.
FEW_DECADES = 2.2


def log_ticks(low: float, high: float) -> list[float] | None:
    """Return where a log axis has labels, written out; None for labels at the powers of ten."""
    if not 0 < low < high or math.log10(high / low) > FEW_DECADES:
        return None
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    places = [float(f"{m}e{e}") for e in range(first, last + 1) for m in (1, 2, 5)]
    inside = [place for place in places if low <= place <= high]
    if len(inside) >= 3:
        return inside
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step *= max(m for m in (1, 2, 5) if m * step <= (high - low) / 2)
    count = math.floor(high / step) - math.ceil(low / step) + 1
    return [float(f"{(math.ceil(low / step) + i) * step:.12g}") for i in range(count)]
