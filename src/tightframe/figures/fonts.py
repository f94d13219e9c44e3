"""Fonts for names in any script: Matplotlib's own has no glyphs for many of them."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from matplotlib.artist import Artist
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

#: Weights that fonts of running text call themselves.
_REGULAR = (400, 500, "normal", "regular", "book", "roman", "medium")

#: Letters that no font has, of which a warning was given: once is enough.
_told: set[str] = set()


def fit_fonts(drawn: Artist) -> None:
    """Give every text of a figure or axes fonts that have its letters, where there are some.

    Warns
    -----
    UserWarning
        If it has none; once for each letter.
    """
    unknown: set[str] = set()
    for text in drawn.findobj(Text):
        assert isinstance(text, Text)
        families = text.get_fontfamily()
        missing = _missing(text.get_text(), tuple(families))
        if not missing:
            continue
        found, left = _having(missing)
        text.set_fontfamily([*families, *(name for name in found if name not in families)])
        unknown |= left
    if unknown - _told:
        letters = "".join(sorted(unknown - _told))
        shown = letters if len(letters) <= 10 else f"{letters[:10]}…"
        _told.update(unknown)
        warnings.warn(
            f"no font of this machine has the letters {shown} of the names: pictures have boxes in "
            "their place; a font that has them (Noto Sans CJK has Chinese, Japanese and Korean) is "
            "used once it is installed",
            stacklevel=2,
        )


@contextmanager
def told_before() -> Iterator[None]:
    """Keep Matplotlib from warning of every missing glyph, of which `fit_fonts` has warned."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _missing(text: str, families: tuple[str, ...]) -> frozenset[str]:
    """Return the letters that a family's font does not have."""
    seen = {c for c in text if not c.isascii() and unicodedata.category(c)[0] not in "CZM"}
    return frozenset(seen - _letters_of(families)) if seen else frozenset()


@cache
def _letters_of(families: tuple[str, ...]) -> frozenset[str]:
    fonts = {findfont(FontProperties(family=[family])) for family in families}
    return frozenset().union(*(_letters(path) for path in fonts))


@cache
def _letters(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError):  # damaged, or gone since the list was made
        return frozenset()


@cache
def _having(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the families that have given letters, the fewest, and the letters that none has."""
    fonts = {
        entry.name: entry.fname
        for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname))
        if entry.style == "normal"
        and entry.weight in _REGULAR
        and not entry.name.startswith("Last Resort")
    }
    found, left = [], letters
    while left and fonts:
        best = max(fonts, key=lambda name: len(left & _letters(fonts[name])))
        rest = left - _letters(fonts[best])
        if rest == left:
            break
        found.append(best)
        left = rest
    return tuple(found), left
