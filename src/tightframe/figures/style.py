"""One look for both plotting backends: a colour means the same thing in every picture."""

from __future__ import annotations

from dataclasses import dataclass

from tightframe.losses.registry import LOSSES

#: Role of a curve to its colour on white, from the palette of Okabe & Ito (2008), which is told
#: apart with the common colour blindnesses. All have a contrast of at least 3 to white.
COLORS = {
    "predicted": "#0072b2",
    "measured": "#d55e00",
    "etf": "#cc79a7",
    "bound": "#009e73",
}

#: Of class groups, largest first, in pictures of predictions alone; same palette, same contrast.
GROUP_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")

#: Colours of `COLORS` that are too dark on a dark page, and what replaces them there.
DARK_COLORS = {COLORS["predicted"]: "#56b4e9"}

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


def margin_label(loss: str) -> str:
    """Return the label of an axis of margins: differences of logits, with cross-entropy in nats."""
    return f"margin ({LOSSES[loss].unit})"


LIGHT = Ink("#1c2128", "#57606a", "#d8dee4", "#ffffff")
DARK = Ink("#e6edf3", "#9da7b3", "#3a424c", "#161b22")
