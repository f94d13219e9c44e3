from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import tightframe as tf
from tests.pages.conftest import DECAYS, FINISHED, MISSING, UNFINISHED, write_run, write_setting
from tightframe.figures.model import HeatMaps
from tightframe.figures.mpl import draw, save_figure
from tightframe.figures.style import COLORS, LIGHT
from tightframe.runs import plots
from tightframe.runs.pictures import (
    MAX_MARGIN_PANELS,
    heat_maps,
    margin_charts,
    setting_sheets,
    summary_sheet,
)
from tightframe.runs.store import RunRecord, SettingRecord, load_run


def picture(record: SettingRecord, name: str) -> Figure:
    return draw(setting_sheets(record)[name])


def maps_of(record: SettingRecord, max_classes: int = 256) -> HeatMaps:
    maps = heat_maps(record, max_classes)
    assert maps is not None
    return maps


def setting(run: RunRecord, name: str) -> SettingRecord:
    return next(s for s in run.settings if s.name == name)


@pytest.fixture(scope="module")
def saved(run: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    few = replace(run, settings=(setting(run, FINISHED), setting(run, MISSING)))
    return plots.save_plots(few, tmp_path_factory.mktemp("plots") / "new")


def test_saved_files_are_png_pictures(saved: list[Path]) -> None:
    assert len(saved) == len({path.name for path in saved}) == 1 + 5
    assert sorted(saved[0].parent.iterdir()) == sorted(saved), "temporary files are left"
    for path in saved:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            pixels = np.asarray(picture.convert("L"))
        assert len(np.unique(pixels)) > 10, f"{path.name} is blank"


def test_every_format_has_the_same_bytes_again(run: RunRecord, tmp_path: Path) -> None:
    few = replace(run, settings=())
    one, two = (plots.save_plots(few, tmp_path / n, ["svg", "pdf", "svg"]) for n in "ab")
    assert [path.name for path in one] == ["summary.svg", "summary.pdf"]
    for first, again in zip(one, two, strict=True):
        assert first.read_bytes() == again.read_bytes()
    assert one[0].read_bytes().startswith(b"<?xml")
    assert one[1].read_bytes().startswith(b"%PDF")


def test_letters_of_an_svg_stay_letters(run: RunRecord, tmp_path: Path) -> None:
    figure = picture(setting(run, FINISHED), "loss")
    assert "certified bound" in save_figure(figure, tmp_path / "loss.svg").read_text()


def test_other_formats_are_refused(run: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="formats: got 'jpg', allowed are png, svg, pdf"):
        plots.save_plots(run, tmp_path / "plots", ["png", "jpg"])
    assert not (tmp_path / "plots").exists()


def test_summary_is_1600_pixels_wide(saved: list[Path]) -> None:
    with Image.open(saved[0]) as picture:
        assert picture.width == 1600


def test_same_record_same_bytes(run: RunRecord, saved: list[Path], tmp_path: Path) -> None:
    record = setting(run, FINISHED)
    again = save_figure(picture(record, "loss"), tmp_path / "loss.png")
    first = next(path for path in saved if path.name == f"{FINISHED}-loss.png")
    assert again.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("what", ["loss", "distance", "collapse", "margin"])
@pytest.mark.parametrize("name", [FINISHED, UNFINISHED])
def test_axes_have_labels(what: str, name: str, run: RunRecord) -> None:
    figure = picture(setting(run, name), what)
    drawn = [axis for axis in figure.axes if axis.lines]
    assert drawn
    for axis in drawn:
        assert axis.get_xlabel() == "epoch"
        assert axis.get_ylabel()
        assert axis.get_title(loc="left")
        assert axis.get_legend() is not None


def test_heat_maps_have_labels_and_one_scale(run: RunRecord) -> None:
    figure = picture(setting(run, FINISHED), "logits")
    maps = [axis for axis in figure.axes if axis.images]
    assert len(maps) == 3
    assert len({axis.images[0].get_clim() for axis in maps}) == 1
    low, high = maps[0].images[0].get_clim()
    assert low == -high
    for axis in maps:
        assert axis.get_xlabel()
        assert axis.get_ylabel()
        assert [text.get_text() for text in axis.get_xticklabels()] == ["3 of 30", "3 of 5"]


def test_lines_are_the_records_numbers_in_their_colours(run: RunRecord) -> None:
    record = setting(run, FINISHED)
    assert record.history is not None
    assert record.prediction is not None
    objective = picture(record, "loss").axes[0]
    measured, bound = objective.lines
    np.testing.assert_array_equal(measured.get_ydata(), record.history["objective"])
    assert set(bound.get_ydata()) == {record.prediction["lower_bound"]}
    assert to_hex(measured.get_color()) == LIGHT.text
    assert to_hex(bound.get_color()) == COLORS["bound"]
    predicted, etf = picture(record, "distance").axes[0].lines
    np.testing.assert_array_equal(predicted.get_ydata(), record.history["logits_to_predicted"])
    assert (predicted.get_linestyle(), etf.get_linestyle()) == ("-", "--")
    assert to_hex(predicted.get_color()) == LIGHT.text
    assert to_hex(etf.get_color()) == COLORS["etf"]


def test_heat_maps_are_the_records_numbers(run: RunRecord) -> None:
    record = setting(run, FINISHED)
    assert record.final is not None
    assert record.prediction_arrays is not None
    predicted, measured, difference = maps_of(record).maps
    np.testing.assert_array_equal(predicted.values, record.prediction_arrays["logits"])
    np.testing.assert_array_equal(measured.values, record.final["logits"])
    assert difference.values is not None
    assert np.abs(difference.values).max() < 0.1


def test_heat_maps_sort_the_classes_by_group(tmp_path: Path) -> None:
    solution = tf.solve(tf.Problem("9,4,9,4", weight_decay=0.01, feature_decay=0.001))
    write_run(tmp_path, ["x"])
    write_setting(tmp_path, "x", solution)
    record = load_run(tmp_path).settings[0]
    maps = maps_of(record)
    assert maps.classes == [0, 2, 1, 3]
    assert maps.lines == [1.5]
    order = [0, 2, 1, 3]
    drawn = maps.maps[0].values
    np.testing.assert_allclose(drawn, solution.logits[np.ix_(order, order)], atol=1e-12)
    assert maps_of(record, max_classes=2).classes == [0, 3]


def test_groups_of_equal_count_have_their_own_labels(tmp_path: Path) -> None:
    weights = [1, 2, 1, 2, *range(3, 3 + MAX_MARGIN_PANELS)]
    problem = tf.Problem(
        f"9x{len(weights)}", weight_decay=0.001, feature_decay=0.001, class_weights=weights
    )
    solution = tf.solve(problem)
    write_run(tmp_path, ["x"])
    write_setting(tmp_path, "x", solution)
    record = load_run(tmp_path).settings[0]
    predicted = maps_of(record)
    assert predicted.classes[:4] == [0, 2, 1, 3]
    assert [name for _, name in predicted.ticks][:3] == [
        "2 of 9",
        "2 of 9 with weight 2",
        "9 with weight 3",
    ]
    (panel,) = margin_charts(record).values()
    assert [name for _, name in panel.x_ticks or ()][:3] == [
        "9",
        "9 with weight 2",
        "9 with weight 3",
    ]
    assert panel.curves[0].y == pytest.approx(solution.group_margins.tolist())


def test_many_groups_share_one_margin_panel(tmp_path: Path) -> None:
    counts = list(range(20, 20 + MAX_MARGIN_PANELS + 2))
    solution = tf.solve(tf.Problem(counts, weight_decay=0.001, feature_decay=0.001))
    write_run(tmp_path, ["x"])
    write_setting(tmp_path, "x", solution)
    record = load_run(tmp_path).settings[0]
    (panel,) = margin_charts(record).values()
    assert panel.x_label == "samples per class"
    assert panel.curves[0].y == pytest.approx(solution.group_margins.tolist())
    axis = picture(record, "margin").axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == [str(n) for n in counts]


def test_a_setting_that_was_not_started_is_drawn_as_such(run: RunRecord) -> None:
    figure = draw(summary_sheet(run))
    assert len(figure.subfigs) == len(DECAYS)
    titles = [part.get_suptitle() for part in figure.subfigs]
    assert [("[unfinished]" in title) for title in titles] == [False, False, True, True]
    for sheet in setting_sheets(setting(run, MISSING)).values():
        draw(sheet).canvas.draw()


def test_global_state_is_left_alone(run: RunRecord) -> None:
    import matplotlib

    before = dict(rcParams)
    picture(setting(run, FINISHED), "loss")
    assert dict(rcParams) == before
    pyplot = matplotlib.__dict__.get("pyplot")
    assert pyplot is None or not pyplot.get_fignums()
