"""Letters that Matplotlib's own font lacks: another font's, or one warning."""

import warnings

import pytest
from matplotlib.font_manager import fontManager

from tightframe.figures import fonts
from tightframe.figures.model import Chart, Curve
from tightframe.figures.mpl import plot, save_figure

#: Of Matplotlib's own fonts only STIX has it.
RARE = "\N{LATIN SMALL LETTER D WITH PALATAL HOOK}"


@pytest.fixture
def own_fonts(monkeypatch):
    """Leave the fonts that Matplotlib brings along, and forget what was said and found."""
    own = [font for font in fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(fonts.fontManager, "ttflist", own)
    monkeypatch.setattr(fonts, "_told", set())
    fonts._having.cache_clear()
    yield
    fonts._having.cache_clear()


def drawn(name):
    curve = Curve(name, [0.0, 1.0], [0.0, 1.0], 0)
    return plot(Chart(name, "x", "y", [curve]))


def saved(figure, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return save_figure(figure, folder / "a.png")


def test_another_font_has_the_letters(own_fonts, tmp_path):
    figure, axis = drawn(f"{RARE}og")
    assert "STIXGeneral" in axis.get_legend().get_texts()[0].get_fontfamily()
    assert "STIXGeneral" not in axis.xaxis.label.get_fontfamily()
    assert saved(figure, tmp_path).exists()


def test_letters_that_no_font_has_are_warned_of_once(own_fonts, tmp_path):
    with pytest.warns(UserWarning, match="no font of this machine has the letters 犬猫 ") as said:
        figure, _ = drawn("犬と猫".replace("と", "/"))
    assert len(said) == 1
    assert saved(figure, tmp_path).exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn("猫")


def test_names_from_right_to_left_need_no_other_font(own_fonts, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, _ = drawn("\N{FIRST STRONG ISOLATE}שלום\N{POP DIRECTIONAL ISOLATE} (5)")
    assert saved(figure, tmp_path).exists()
