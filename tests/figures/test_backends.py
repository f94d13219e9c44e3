"""Both backends draw every panel, with the panel's numbers."""

import json
import math
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.figures.panels import (
    BARS,
    CELLS,
    CURVES,
    DIAGRAMS,
    MAPS,
    MESH,
    PANELS,
    SHADES,
    STACK,
    TABLE,
    TREE,
    WHEEL,
    X,
)
from tightframe.figures import mpl, plotly
from tightframe.figures.model import Block, Chart, Curve, HeatMaps, Mark, Matrix, Sheet
from tightframe.figures.style import DARK, LIGHT, SEQUENTIAL, STATES, shade_of
from tightframe.figures.words import in_words


def sheet(panel, ink=LIGHT):
    return mpl.draw(Sheet("", [Block([panel], 1, 4.0)], 6.0), ink)


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


@pytest.mark.parametrize("ink", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
class TestEveryPanel:
    def test_matplotlib(self, panel, ink):
        figure = sheet(panel, ink)
        figure.canvas.draw()
        assert to_hex(figure.get_facecolor()) == ink.paper
        assert figure.axes

    def test_plotly(self, panel, ink):
        figure = plotly.draw(panel, plotly.Options(ink=ink, digits=6, packed=True))
        json.dumps(figure, allow_nan=False)
        drawn = go.Figure(figure)  # raises on an unknown property
        assert drawn.layout.paper_bgcolor == ink.paper
        assert drawn.data


# -- curves ----------------------------------------------------------------------------------------


def test_curves_in_matplotlib():
    (axis,) = sheet(CURVES).axes
    banded, gap, hollow, line, full, outlined, steps = axis.lines[:7]
    np.testing.assert_array_equal(banded.get_ydata(), [1, 2, 4, 8])
    assert banded.get_color() == gap.get_color() == LIGHT.text  # colour is for states
    assert (banded.get_linestyle(), banded.get_fillstyle()) == ("--", "none")
    np.testing.assert_array_equal(gap.get_ydata(), [8, math.nan, 2, 1])
    assert gap.get_linestyle() == "--"
    assert gap.get_marker() == "o"  # or the first value would not be seen
    assert (hollow.get_fillstyle(), hollow.get_marker()) == ("none", "D")
    np.testing.assert_array_equal(line.get_ydata(), [5, 5, 0.1, 0.1])
    np.testing.assert_array_equal(full.get_ydata(), [5, 5, math.nan, math.nan])
    np.testing.assert_array_equal(outlined.get_ydata(), [math.nan, math.nan, 0.1, 0.1])
    assert steps.get_drawstyle() == "steps-mid"
    (band,) = axis.collections
    assert band.get_paths()[0].vertices[:, 1].max() == 16
    assert [mark.get_xdata()[0] for mark in axis.lines[7:10]] == [30.0, 300.0, 500.0]
    names = ["banded", "gap", "open", "partly", "steps"]
    assert legend(axis) == [*names, "named once", "collapsed"]
    assert {text.get_text() for text in axis.texts} == {"threshold", "limit", "the end"}
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")


def test_curves_in_plotly():
    figure = plotly.draw(CURVES)
    band, banded, gap, hollow, partly, steps = figure["data"]
    assert max(band["y"]) == 16
    assert (banded["x"], banded["y"]) == (X, [1, 2, 4, 8])
    assert gap["y"] == [8, None, 2, 1]
    assert (gap["line"]["dash"], gap["mode"]) == ("dash", "lines+markers")
    assert (hollow["mode"], hollow["marker"]["symbol"]) == ("markers", "diamond-open")
    assert partly["marker"]["symbol"] == ["circle", "circle", "circle-open", "circle-open"]
    assert steps["line"]["shape"] == "hvh"
    layout = figure["layout"]
    assert [shape.get("x0") for shape in layout["shapes"]] == [30.0, 300.0, 500.0, 0]
    assert [shape.get("name") for shape in layout["shapes"]] == [None, *["named once"] * 2, None]
    words = {note["text"]: note for note in layout["annotations"]}
    assert set(words) == {"threshold", "limit", "the end"}
    assert 10 ** words["threshold"]["x"] == pytest.approx(30)
    assert 10 ** words["the end"]["y"] == pytest.approx(8)
    assert layout["xaxis"]["type"] == layout["yaxis"]["type"] == "log"


def test_colours_of_states_follow_the_ground():
    chart = Chart("", "", "", [Curve(state, X, X, state) for state in STATES])
    for ink, name in ((LIGHT, "light"), (DARK, "dark")):
        expected = [getattr(look, name) for look in STATES.values()]
        (axis,) = sheet(chart, ink).axes
        assert [line.get_color() for line in axis.lines] == expected
        data = plotly.draw(chart, plotly.Options(ink=ink))["data"]
        assert [trace["line"]["color"] for trace in data] == expected


def test_a_curve_of_many_points_is_thinned_for_a_page():
    x = [float(i) for i in range(1000)]
    (trace,) = plotly.draw(Chart("", "", "", [Curve("", x, x)]), plotly.Options(most_points=11))[
        "data"
    ]
    assert len(trace["x"]) == 11
    assert (trace["x"][0], trace["x"][-1]) == (0, 999)
    assert trace["x"] == trace["y"]


# -- bars, cells and shades ------------------------------------------------------------------------


def test_bars():
    (axis,) = sheet(BARS).axes
    widths = [patch.get_width() for patch in axis.patches]
    np.testing.assert_array_equal(widths, [0.5, 2.0, 1.0, math.nan])
    assert [text.get_text() for text in axis.get_yticklabels()] == ["first", "second"]
    assert axis.yaxis_inverted()
    one, two = plotly.draw(BARS)["data"]
    assert (one["x"], one["y"], two["x"]) == ([0.5, 2.0], [0, 1], [1.0, None])
    assert one["orientation"] == "h"
    upright = Chart("", "", "", [], bars=[replace(bars, across=False) for bars in BARS.bars])
    (axis,) = sheet(upright).axes
    assert [patch.get_height() for patch in axis.patches][:2] == [0.5, 2.0]
    assert plotly.draw(upright)["data"][0]["y"] == [0.5, 2.0]


def test_cells():
    axis, scale = sheet(CELLS).axes
    mesh, merged = axis.collections
    values, covered = mesh.get_array(), merged.get_array()
    assert merged.get_hatch() == STATES["merged"].hatch
    np.testing.assert_array_equal(values.filled(np.nan), [[1.5, 0.5, np.nan], [-1.0, np.nan, 2.5]])
    np.testing.assert_array_equal(~np.ma.getmaskarray(covered), [[False, False, True], [False] * 3])
    assert axis.get_xlim() == pytest.approx((10**-0.5, 10**2.5))  # half-way in logarithms
    assert scale.get_ylabel() == "margin"
    assert legend(axis) == ["merged", "failed", "threshold"]
    cells, area, signs, seam, line = plotly.draw(CELLS)["data"]
    assert cells["z"] == [[1.5, 0.5, None], [-1.0, None, 2.5]]
    assert (cells["zmin"], cells["zmax"]) == (-1.0, 2.5)
    assert area["z"] == [[None, None, 1], [None] * 3]
    assert (signs["name"], signs["x"], signs["y"]) == ("merged", [100.0], [1.0])
    assert signs["marker"]["symbol"] == "diamond"
    assert seam["line"]["width"] > line["line"]["width"]
    assert cells["hovertemplate"].startswith("λ %{x:.4g}, ratio %{y:.4g}")


def test_a_mesh_ends_where_its_columns_do():
    axis, scale = sheet(MESH).axes
    mesh = axis.collections[0]
    x, y = (np.array(mesh.get_coordinates())[..., i] for i in (0, 1))
    np.testing.assert_array_equal(y, MESH.mesh.y)
    np.testing.assert_array_equal(x[:, 0], MESH.mesh.x)
    np.testing.assert_array_equal(mesh.get_array(), MESH.mesh.values)
    assert scale.get_ylabel() == "margin"
    assert legend(axis) == ["merged", "all gone", "merges"]
    areas = [part for part in axis.collections if part.get_label() in ("merged", "all gone")]
    assert [area.get_hatch() for area in areas] == [STATES["merged"].hatch, None]
    heat, contours, merged, gone, line = plotly.draw(MESH)["data"]
    z, heights = np.array(heat["z"], dtype=float), np.array(heat["y"])
    step = heights[1] / heights[0]
    for i, top in ((0, 10.0), (-1, 2.5)):
        shown = heights[np.isfinite(z[:, i])]
        # One cell more, below the area: there is no gap.
        assert top / step < shown.max() < top * step**2
        assert z[0, i] == MESH.mesh.values[i][0]
    assert (contours["contours"]["start"], contours["contours"]["end"]) == (1.0, 2.0)
    assert merged["fillpattern"]["shape"] == "/"
    assert merged["y"][:3] == line["y"] == [10.0, 5.0, 2.5]
    assert "fillpattern" not in gone
    layout = plotly.draw(MESH)["layout"]["xaxis"]
    assert (layout["type"], layout["ticktext"]) == ("log", ["1", "4"])
    assert layout["range"] == pytest.approx([0.0, np.log10(4)])


def test_in_dark_heat_maps_zero_is_the_ground():
    for ink, middle in ((LIGHT, "#f7f7f7"), (DARK, DARK.paper)):
        figure = plotly.draw(MAPS, plotly.Options(ink=ink))
        scale = figure["data"][0]["colorscale"]
        assert [color for place, color in scale if place == 0.5] == [middle]


def test_shades_give_many_curves_a_scale():
    axis, scale = sheet(SHADES).axes
    assert [to_hex(line.get_color()) for line in axis.lines[:3]] == [
        shade_of(0.0),
        shade_of(0.5),
        shade_of(1.0),
    ]
    assert to_hex(axis.lines[3].get_color()) == shade_of(0.5)
    assert axis.lines[3].get_marker() == "^"
    assert scale.get_ylabel() == "samples"
    assert legend(axis) == ["from here"]
    *curves, bar = plotly.draw(SHADES)["data"]
    assert [curve["line"]["color"] for curve in curves] == [shade_of(t) for t in (0, 0.5, 1)]
    assert bar["marker"]["colorbar"]["title"]["text"] == "samples"
    assert not any(trace["showlegend"] for trace in (*curves, bar))


# -- several axes ----------------------------------------------------------------------------------


def test_a_stack_shares_its_axis_and_its_marks():
    top, bottom = sheet(STACK).axes
    assert top.get_shared_x_axes().joined(top, bottom)
    assert [axis.lines[i].get_xdata()[0] for axis, i in ((top, 1), (bottom, 0))] == [20.0, 20.0]
    assert top.get_position().height > 2 * bottom.get_position().height
    figure = plotly.draw(STACK)
    assert [trace.get("yaxis", "y") for trace in figure["data"]] == ["y", "y2"]
    layout = figure["layout"]
    (low, high), (least, most) = layout["yaxis2"]["domain"], layout["yaxis"]["domain"]
    assert (low, most) == (0, 1)
    assert high < least
    assert layout["xaxis"]["anchor"] == "y2"
    (shape,) = layout["shapes"]
    assert (shape["x0"], shape["yref"]) == (20.0, "paper")


def test_maps_have_one_scale():
    one, two, scale = mpl.draw(Sheet("", [Block([MAPS], 2, 3.0)], 8.0)).axes
    for axis, matrix in zip((one, two), MAPS.maps, strict=True):
        expected = np.array(matrix.values, dtype=float)
        np.testing.assert_array_equal(axis.images[0].get_array().filled(np.nan), expected)
        assert axis.images[0].get_clim() == (-4.0, 4.0)
        assert [text.get_text() for text in axis.get_xticklabels()] == ["5 of 10", "2 of 3"]
        assert axis.lines[0].get_ydata()[0] == 0.5
    assert scale.get_ylabel() == "logit"
    figure = plotly.draw(MAPS)
    assert [trace["zmax"] for trace in figure["data"]] == [4.0, 4.0]
    assert [trace["visible"] for trace in figure["data"]] == [True, False]
    assert figure["data"][0]["z"] == [[1.0, -4.0], [0.0, None]]
    assert figure["data"][0]["customdata"][1] == ["logit 7 of class 4", "logit 7 of class 7"]
    (slider,) = figure["layout"]["sliders"]
    assert [step["label"] for step in slider["steps"]] == ["one", "two"]


def test_a_table_is_drawn_as_its_texts():
    (axis,) = sheet(TABLE).axes
    (table,) = axis.tables
    texts = [cell.get_text().get_text() for cell in table.get_celld().values()]
    assert sorted(texts) == sorted(["name", "number", "a", "1.25", "b", "n/a"])
    (trace,) = plotly.draw(TABLE)["data"]
    assert trace["cells"]["values"] == [["a", "b"], ["1.25", "n/a"]]


# -- sheets ----------------------------------------------------------------------------------------


def test_a_sheet_has_its_size_and_its_titles():
    figure = mpl.draw(
        Sheet("All", [Block([CURVES, BARS], 2, 3.0, "first"), Block([MAPS], 2, 2.0)], 9.0)
    )
    assert figure.get_size_inches().tolist() == pytest.approx([9.0, 0.3 + 3 + 0.3 + 2 + 0.1])
    assert figure.get_suptitle() == "All"
    assert [part.get_suptitle() for part in figure.subfigs] == ["first", ""]
    assert len(figure.axes) == 2 + 2 + 1


def test_what_has_nothing_to_draw_says_so():
    empty = Chart("T", "x", "y", [Curve("", X, [None] * 4)], nothing="not measured")
    (axis,) = sheet(empty).axes
    assert [text.get_text() for text in axis.texts] == ["not measured"]
    assert not axis.lines


def test_a_panel_can_be_drawn_into_given_axes():
    own = Figure().subplots()
    figure, axis = mpl.plot(CURVES, own)
    assert (figure, axis) == (own.figure, own)
    assert axis.lines
    figure, axis = mpl.plot(replace(MAPS, maps=MAPS.maps[:1]))
    assert axis.images
    assert mpl.plot(TABLE)[1].tables
    with pytest.raises(ValueError, match="panel: got a Stack, which needs axes of its own"):
        mpl.plot(STACK)


def test_few_decades_are_labelled_alike():
    chart = Chart("", "", "", [Curve("", [1e-3, 3e-2], [1.0, 2.0])], log_x=True)
    (axis,) = sheet(chart).axes
    axis.figure.canvas.draw()
    shown = [text.get_text() for text in axis.get_xticklabels()]
    assert shown == ["0.001", "0.002", "0.005", "0.01", "0.02"]
    ticks = plotly.draw(chart)["layout"]["xaxis"]
    assert (ticks["dtick"], ticks["tickformat"]) == ("D2", "~g")
    wide = Chart("", "", "", [Curve("", [1e-6, 1.0], [1.0, 2.0])], log_x=True)
    assert plotly.draw(wide)["layout"]["xaxis"]["dtick"] == 1


def test_a_page_can_change_light_into_dark():
    text = json.dumps(plotly.draw(CURVES))
    for light, dark in plotly.DARKER.items():
        text = text.replace(light, dark)
    expected = plotly.draw(CURVES, plotly.Options(ink=DARK))
    assert json.loads(text)["data"] == expected["data"]
    assert json.loads(text)["layout"]["shapes"] == expected["layout"]["shapes"]


def test_a_mark_of_a_lower_chart_stays_in_it():
    charts = [STACK.charts[0], replace(STACK.charts[1], marks=[Mark(5.0, ""), Mark(2.0, "", "y")])]
    _, upright, level = plotly.draw(replace(STACK, charts=charts))["layout"]["shapes"]
    assert upright["yref"] == "y2 domain"
    assert (level["y0"], level["yref"], level["xref"]) == (2.0, "y2", "paper")


# -- wheels and merge trees ------------------------------------------------------------------------


def marks(axis):
    """Return place, marker and colour of every mark of a wheel, in order."""
    lines = [line for line in axis.lines if str(line.get_gid()).startswith("mark-")]
    return {
        int(line.get_gid()[5:]): (
            [float(v[0]) for v in line.get_data()],
            line.get_marker(),
            to_hex(line.get_color()),
        )
        for line in lines
    }


@pytest.mark.parametrize("ink", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("panel", DIAGRAMS, ids=lambda panel: panel.title)
def test_diagrams_in_matplotlib(panel, ink):
    figure = sheet(panel, ink)
    figure.canvas.draw()
    assert to_hex(figure.get_facecolor()) == ink.paper
    own = Figure().subplots()
    assert mpl.plot(panel, own, ink) == (own.figure, own)
    assert own.get_title(loc="left") == panel.title
    with pytest.raises(ValueError, match=r"panel: got a .*, which figures\.svg draws"):
        plotly.draw(panel)


@pytest.mark.parametrize("ink", [LIGHT, DARK], ids=["light", "dark"])
def test_the_last_moment_of_a_wheel_is_drawn(ink):
    _, axis = mpl.plot(WHEEL, ink=ink)
    shade = "dark" if ink is DARK else "light"
    assert marks(axis) == {
        i: (place, marker, getattr(STATES[state], shade))
        for i, (place, marker, state) in enumerate(
            [
                ([0, 0.9], "o", "distinct"),
                ([0.8, 0], "D", "merged"),
                ([0.1, 0.2], "x", "vanished"),
            ]
        )
    }
    assert legend(axis) == ["distinct", "merged", "vanished", "predicted"]
    texts = [text.get_text() for text in axis.texts]
    assert texts == ["cat", "dog", "<b>", "3 classes", "<b> vanished"]
    earlier = replace(WHEEL, moments=WHEEL.moments[:1])
    seen = marks(mpl.plot(earlier)[1])
    assert sorted(seen) == [0, 1]  # the third has no mark
    assert seen[0][1] == ">"
    assert legend(mpl.plot(earlier)[1]) == ["lost", "weak"]


def test_a_tree_ends_its_curves_at_changes():
    figure, axis = mpl.plot(TREE)
    figure.canvas.draw()
    paths = {patch.get_gid(): [] for patch in axis.patches}
    for patch in axis.patches:
        ends = patch.get_path().vertices[[0, -1]].tolist()
        paths[patch.get_gid()].append((to_hex(patch.get_edgecolor()), ends))
    assert paths["lane-1"] == [
        (STATES["distinct"].light, [[0.001, 90], [0.01, 20]]),
        (STATES["lost"].light, [[0.01, 20], [0.05, 20]]),
    ]
    texts = [text.get_text() for text in axis.texts]
    assert texts == ["<b> lost", "all vanish", "cat", "<b>", "two", "A"]
    assert legend(axis) == ["distinct", "lost", "vanished"]
    lines = [line.get_xdata()[0] for line in axis.lines if line.get_gid() == "change"]
    assert lines == [0.01, 0.05]


@pytest.mark.parametrize("columns", [1, 3])
def test_long_titles_are_in_the_picture(columns):
    title = "Measured cosines between classifier rows, at most 0.123 from predicted, " * 2
    chart = Chart(title.strip(), "x", "y", [Curve("a", [0.0, 1.0], [0.0, 1.0], 0)])
    figure = mpl.draw(Sheet(title, [Block([chart] * columns, columns, 3.0)], 4.5 * columns))
    figure.canvas.draw()
    for part in (figure.texts[0] if figure.texts else figure._suptitle, *figure.axes):
        text = part if isinstance(part, Text) else part._left_title
        assert text.get_text().replace("\n", " ") == title.strip()
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_shares_have_all_colours():
    shares = HeatMaps("", [Matrix("", [[0.0, 1.0]])], limit=1.0, signed=False)
    assert shares.limits == (0.0, 1.0)
    _, axes = mpl.plot(shares)
    (image,) = axes.images
    assert image.get_clim() == (0.0, 1.0)
    colors = [to_hex(color) for color in image.to_rgba([0.0, 1.0])]
    assert colors == [SEQUENTIAL[0], SEQUENTIAL[-1]]
    (trace,) = plotly.draw(shares)["data"]
    assert (trace["zmin"], trace["zmax"]) == (0.0, 1.0)
    assert "from 0 to 1" in in_words(shares)
