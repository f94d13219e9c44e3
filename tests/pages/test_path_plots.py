from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import tightframe as tf
from tightframe.figures.mpl import draw
from tightframe.figures.style import STATES
from tightframe.report import save_grid_plots
from tightframe.sweeps.grid import Grid, run_grid
from tightframe.sweeps.phase import PhaseDiagram, step_rows
from tightframe.sweeps.plots import MAX_PATHS, path_sheet, phase_chart, phase_sheet

DECAYS = np.geomspace(1e-3, 3e-2, 7).tolist()


def make(*counts: str, sweep: dict[str, Any] | None = None, **changes: Any) -> Grid:
    problem = tf.Problem(counts[0], weight_decay=1e-3, feature_decay=1e-3, **changes)
    return Grid(problem, sweep or {"weight_decay": DECAYS, "feature_decay": DECAYS}, counts)


def phases(ratios: list[float], decays: list[float] = DECAYS) -> tuple[Grid, list[dict[str, Any]]]:
    counts, real = step_rows(6, ratios, minority=12)
    problem = tf.Problem(counts[0], weight_decay=1, feature_decay=1)
    grid = Grid(problem, {"weight_decay": decays, "feature_decay": decays}, counts, real)
    return grid, run_grid(grid)


def path_figure(rows: list[dict[str, Any]]) -> Figure:
    return draw(path_sheet(rows))


def phase_figure(diagram: PhaseDiagram) -> Figure:
    return draw(phase_sheet(diagram))


def drawn(figure: Figure) -> list[list[str]]:
    """Legend entries of every pair of axes that has a legend."""
    legends = [axis.get_legend() for axis in figure.axes]
    return [[text.get_text() for text in legend.get_texts()] for legend in legends if legend]


def test_saved_pictures(tmp_path: Path) -> None:
    grid = make("500x5,100x5")
    paths = save_grid_plots(grid, run_grid(grid), tmp_path / "new")
    paths += save_grid_plots(*phases([1, 2, 5]), tmp_path / "new")
    assert [path.name for path in paths] == ["path.png", "phase.png"]
    assert sorted((tmp_path / "new").iterdir()) == paths, "temporary files are left"
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 500
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_groups_of_equal_count_are_told_apart() -> None:
    rows = run_grid(make("100x6", class_weights="1x3,2x3"))
    names = [name for legend in drawn(path_figure(rows)) for name in legend]
    assert names[:2] == ["3 classes of 100", "3 classes of 100 with weight 2"]
    limits = [group["threshold"] for group in rows[0]["points"][0]["groups"]]
    assert limits == pytest.approx([10 / 600, 2 * 10 / 600])


def test_lines_are_the_rows_numbers() -> None:
    (row,) = rows = run_grid(make("500x5,100x5"))
    figure = path_figure(rows)
    top, bottom = figure.axes
    limits = [line for line in top.lines if to_hex(line.get_color()) == STATES["merged"].light]
    limits = [line for line in limits if line.get_linestyle() == "--"]
    for g in range(2):
        curve = top.lines[g]
        assert curve.get_label() == f"5 classes of {[500, 100][g]}"
        limit = row["points"][0]["groups"][g]["threshold"]
        # Zero on the threshold, and everywhere else the rows' numbers.
        i = int(np.searchsorted(DECAYS, limit))
        np.testing.assert_allclose(curve.get_xdata(), np.insert(DECAYS, i, limit))
        margins = [point["groups"][g]["decision_margin"] for point in row["points"]]
        np.testing.assert_array_equal(curve.get_ydata(), np.insert(margins, i, 0.0))
    (merging,) = limits
    (gone,) = [line for line in top.lines if line.get_linestyle() == ":"]
    assert merging.get_xdata()[0] == pytest.approx(np.sqrt(100) / 3000)
    assert gone.get_xdata()[0] == pytest.approx(np.sqrt(500) / 3000)
    assert to_hex(gone.get_color()) == STATES["vanished"].light
    assert top.lines[0].get_linewidth() > top.lines[1].get_linewidth()
    groups = [(x, own) for x, p in zip(DECAYS, row["points"], strict=True) for own in p["groups"]]
    for state in ("distinct", "vanished"):
        (marks,) = [line for line in top.lines if line.get_label() == state]
        assert to_hex(marks.get_color()) == STATES[state].light
        there = [(x, own["decision_margin"]) for x, own in groups if own["state"] == state]
        np.testing.assert_allclose(np.transpose(marks.get_data()), there)
    rank = bottom.lines[-1]
    np.testing.assert_array_equal(rank.get_ydata(), [point["rank"] for point in row["points"]])
    assert (top.get_xscale(), bottom.get_xscale()) == ("log", "log")
    assert bottom.get_xlabel().startswith("λ")
    assert drawn(figure) == [
        [
            *("5 classes of 500", "5 classes of 100"),
            *("distinct", "vanished", "group merges from here", "all zero from here"),
        ]
    ]


def test_a_path_of_ones_own_is_zero_on_its_thresholds() -> None:
    decays = np.geomspace(1e-3, 5e-2, 9)
    problem = tf.Problem("100x5,10x5", weight_decay=1, feature_decay=1)
    _, axis = tf.path(problem, weight_decay=decays, feature_decay=decays).plot()
    for line, group in zip(axis.lines, tf.thresholds(problem).groups, strict=False):
        x, y = (np.asarray(part) for part in line.get_data())
        limit = group.merges or group.vanishes
        assert y[x >= limit * (1 - 1e-12)] == pytest.approx(0, abs=1e-9)
        assert (y[x < limit * (1 - 1e-12)] > 0).all()
        assert np.isin(decays, x).all()
        assert np.isclose(x, limit, rtol=1e-9).any()


def test_what_is_drawn_when_lambda_is_not_swept() -> None:
    grid = Grid(
        tf.Problem("9,4", weight_decay=3e-3, feature_decay=3e-3),
        {"counts": ["50x5,40x5", "50x5,2x5", "50x10"]},
    )
    top, bottom = path_figure(run_grid(grid)).axes
    assert top.get_xscale() == "linear"
    names = [text.get_text() for text in bottom.get_xticklabels()]
    assert names == ["50x5,40x5", "50x5,2x5", "50x10"]
    assert bottom.get_xlabel() == "samples per class"
    figure = path_figure(
        run_grid(make("50x5,9x5", sweep={"bias_decay": [0.1, 1]}, bias="decayed", bias_decay=1))
    )
    assert figure.axes[1].get_xlabel() == "bias decay"
    assert drawn(figure) == [["5 classes of 50", "5 classes of 9", "distinct"]]


def test_many_groups_have_a_scale_of_colours() -> None:
    figure = path_figure(run_grid(make("90,80,70,60,50x2,40x2")))
    top, _, scale = figure.axes
    assert scale.get_ylabel() == "samples per class"
    colors = {
        tuple(line.get_color()) for line in top.lines if not isinstance(line.get_color(), str)
    }
    assert len(colors) == 6
    assert "group merges from here" in drawn(figure)[0]


def test_rows_that_failed_or_stopped_or_are_left_out_are_seen_as_such() -> None:
    rows = run_grid(make("60,20,9,4", "30x3", sweep={"weight_decay": [1e-4, 1e-3]}))
    rows[0]["points"][0]["status"] = "not_converged"
    rows[1] |= {"status": "failed", "reason": "no", "points": []}
    figure = path_figure(rows)
    assert "not converged" in drawn(figure)[0]
    assert "failed" in [text.get_text() for axis in figure.axes for text in axis.texts]
    figure.canvas.draw()
    many = run_grid(make(*(f"{n}x3" for n in range(5, 20)), sweep={"weight_decay": [1e-3]}))
    figure = path_figure(many)
    assert figure.get_suptitle().endswith(f"({MAX_PATHS} of 15 rows)")
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert {"Samples per class: 5x3", "Samples per class: 19x3"} <= set(titles)


def test_the_phase_diagram_s_colours_end_on_the_threshold() -> None:
    """Nodes up to the closed form, none beyond; where states change beyond it, areas do."""
    grid, rows = phases([1, 2, 5, 30])
    diagram = PhaseDiagram.from_rows(grid, rows)
    axis = phase_figure(diagram).axes[0]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    expected = np.sqrt(12) / (36 * (1 + diagram.ratios))
    chart = phase_chart(diagram)
    assert chart.mesh is not None
    decays, margins = np.array(chart.mesh.y), np.array(chart.mesh.values)
    low, high = diagram.logit_decays[[0, -1]]
    np.testing.assert_allclose(decays[:, -1], np.clip(expected, None, high))
    assert (decays >= low * (1 - 1e-12)).all()
    assert diagram.minority_decision_margin is not None
    for own, column, drawn_margins in zip(
        diagram.minority_decision_margin, decays, margins, strict=True
    ):
        inside = diagram.logit_decays < column[-1]
        shown = np.interp(np.log(diagram.logit_decays[inside]), np.log(column), drawn_margins)
        np.testing.assert_allclose(shown, own[inside], atol=0.05 * own.max())
    # Merged and vanished are told apart, and lie where the rows say so.
    merged, vanished, whole = chart.areas
    assert (merged.state, vanished.state, whole.whole) == ("merged", "vanished", True)
    for area, state in ((merged, "merged"), (vanished, "vanished")):
        inside = (diagram.logit_decays > np.array(area.low)[:, None]) & (
            diagram.logit_decays < np.array(area.high)[:, None]
        )
        assert inside.any()
        assert set(diagram.minority_state[inside].tolist()) == {state}
    ends, total = axis.lines[:2]
    np.testing.assert_allclose(ends.get_ydata(), expected)
    np.testing.assert_allclose(total.get_ydata(), expected * np.sqrt(diagram.ratios))
    np.testing.assert_array_equal(ends.get_xdata(), diagram.ratios)
    hatches = {patch.get_hatch() for patch in axis.collections if patch.get_hatch()}
    assert hatches == {STATES["merged"].hatch, STATES["vanished"].hatch}


def test_cells_that_no_mesh_shows_have_values_or_states() -> None:
    grid, rows = phases([30], DECAYS)
    diagram = PhaseDiagram.from_rows(grid, rows)
    axis = phase_figure(diagram).axes[0]
    cells, *areas = (mesh.get_array() for mesh in axis.collections)
    np.testing.assert_array_equal(np.ma.getmaskarray(cells), diagram.minority_collapsed.T)
    # Merged and vanished are told apart.
    for state, area in zip(("merged", "vanished"), areas, strict=True):
        own = (diagram.minority_state == state).T
        assert own.any()
        np.testing.assert_array_equal(~np.ma.getmaskarray(area), own)
    np.testing.assert_array_equal(
        cells.compressed(), diagram.minority_decision_margin[~diagram.minority_collapsed]
    )


def test_the_order_of_the_values_does_not_matter() -> None:
    sorted_axis = phase_figure(PhaseDiagram.from_rows(*phases([1, 2, 30]))).axes[0]
    mixed_axis = phase_figure(PhaseDiagram.from_rows(*phases([30, 1, 2], DECAYS[::-1]))).axes[0]
    for one, other in zip(sorted_axis.collections, mixed_axis.collections, strict=True):
        for drawn_once, drawn_again in zip(one.get_paths(), other.get_paths(), strict=True):
            np.testing.assert_allclose(drawn_once.vertices, drawn_again.vertices, rtol=1e-6)


@pytest.mark.parametrize(("ratios", "decays"), [([4], [1e-3]), ([2, 3], [1e-3, 1]), ([9], [9, 8])])
def test_small_diagrams_can_be_drawn(ratios: list[float], decays: list[float]) -> None:
    grid, rows = phases(ratios, decays)
    phase_figure(PhaseDiagram.from_rows(grid, rows)).canvas.draw()
    rows[0] |= {"status": "failed", "points": []}
    figure = phase_figure(PhaseDiagram.from_rows(grid, rows))
    figure.canvas.draw()
    assert "failed" in drawn(figure)[0]


def test_global_state_is_left_alone() -> None:
    before = dict(rcParams)
    path_figure(run_grid(make("9,4")))
    assert dict(rcParams) == before
