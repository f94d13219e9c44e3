"""What a picture holds, whoever draws it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.color import Color

from tests.figures.panels import CELLS, CURVES, DIAGRAMS, MAPS, PANELS, STACK, TREE, WHEEL, X
from tightframe.figures import style
from tightframe.figures.diagrams import Lane, MergeTree, Moment, Network, Wheel
from tightframe.figures.model import (
    Area,
    Bars,
    Block,
    Cells,
    Chart,
    Curve,
    HeatMaps,
    Mark,
    Matrix,
    Mesh,
    Note,
    Sheet,
    Stack,
    drawn,
    has_points,
    single_maps,
)
from tightframe.figures.storage import panel_from_dict, panel_to_dict
from tightframe.figures.words import in_words


@pytest.mark.parametrize("panel", [*PANELS, *DIAGRAMS], ids=lambda panel: panel.title)
def test_every_panel_survives_storage(panel):
    again = panel_from_dict(json.loads(json.dumps(panel_to_dict(panel), allow_nan=False)))
    assert panel_to_dict(again) == panel_to_dict(panel)
    assert type(again) is type(panel)
    for name in ("cells", "mesh", "areas", "curves"):
        assert type(getattr(again, name, None)) is type(getattr(panel, name, None))
    assert [type(area) for area in getattr(again, "areas", ())] == [
        type(area) for area in getattr(panel, "areas", ())
    ]
    assert in_words(again) == in_words(panel)


def test_a_curve_is_joined_from_its_first_to_its_last_point():
    chart = Chart("", "", "", [], log_y=True)
    curve = Curve("", X, [0.0, 2.0, None, 3.0], hollow=[True, False, True, False])
    assert drawn(chart, curve) == ([10.0, 100.0, 1000.0], [2.0, None, 3.0], [False, True, False])
    nothing = Curve("", X, [None, 0.0, -1.0, float("nan")])
    assert drawn(chart, nothing) == (X, [None] * 4, [False] * 4)


def test_a_lone_value_gets_a_point():
    curve = Curve("", X, [1.0, 2.0, None, 3.0])
    assert has_points(curve, [1.0, 2.0, None, 3.0])
    assert not has_points(curve, [1.0, 2.0, None, 3.0, 3.0])
    assert has_points(Curve("", [1.0], [1.0]), [1.0])
    assert has_points(Curve("", X, X, style="points"), X)


def test_what_can_be_drawn_spans_the_axes():
    assert CURVES.span("x") == (1.0, 1000.0)
    assert CURVES.span("y") == (0.1, 16.0)
    assert CELLS.span("y") == (1.0, 9.0)
    fixed = Chart("", "", "", CURVES.curves, x_range=(0, None))
    assert fixed.span("x") == (0, 1000.0)


def test_the_colours_of_cells_start_at_zero_or_below():
    assert CELLS.cells.limits == (-1.0, 2.5)
    assert Cells([1.0], [1.0], [[3.0]], "").limits == (0.0, 3.0)
    assert CELLS.cells.missing
    assert not Cells([1.0], [1.0], [[None]], "", [["merged"]]).missing


def test_every_map_alone_keeps_the_scale_of_all():
    one, two = single_maps(MAPS)
    assert (one.scale, two.scale) == (4.0, 4.0)
    assert (two.title, two.maps[0].values) == ("two", [[2.0, 0.0], [0.0, 2.0]])


def test_borders_that_would_hide_the_entries_are_left_out():
    matrix = [Matrix("", np.eye(4))]
    assert HeatMaps("", matrix, borders=[2.0]).lines == [1.5]
    assert HeatMaps("", matrix, borders=[1.0, 2.0, 3.0]).lines == []


def test_words_say_the_numbers():
    text = in_words(CURVES)
    for part in ("banded from 1 to 8", "threshold at 30", "limit at 2.5"):
        assert part in text
    assert in_words(Chart("T", "", "", [], nothing="failed")) == "T: failed."
    assert "rank from 3 to 1" in in_words(STACK)
    assert "from -4 to 4" in in_words(single_maps(MAPS)[0])


def test_a_matrix_takes_a_place_of_its_own():
    block = Block([MAPS, CURVES], 2, 1.5)
    assert block.cells == [(MAPS, 0), (MAPS, 1), (CURVES, 0)]
    assert Sheet("", [block], 5.0).height == pytest.approx(2 * 1.5 + 0.1)


def test_every_state_differs_by_its_mark_and_its_colours():
    looks = list(style.STATES.values())
    for field in ("marker", "sign", "ascii"):
        assert len({getattr(look, field) for look in looks}) == len(looks)
    assert all(look.ascii.isascii() and len(look.ascii) == 1 for look in looks)
    assert {look.marker for look in looks} <= set(style.MARKERS)
    for ground, name in ((style.LIGHT, "light"), (style.DARK, "dark")):
        for state, look in style.STATES.items():
            assert style.color_of(state, ground) == getattr(look, name)
            assert contrast(getattr(look, name), ground.paper) >= 3


def test_colours_of_states_are_seen_in_terminals_of_any_ground():
    for look in style.STATES.values():
        shown = Color.from_ansi(look.terminal).get_truecolor().hex
        assert min(contrast(shown, ground) for ground in ("#ffffff", "#000000")) >= 3


@pytest.mark.parametrize("ink", [style.LIGHT, style.DARK])
def test_every_colour_is_seen_on_its_ground(ink):
    for color in (*style.ROLES, *range(len(style.PALETTE))):
        assert contrast(style.color_of(color, ink), ink.paper) >= 2.9, color


def contrast(one, other):
    """The contrast of WCAG 2.1, from 1 to 21."""
    lights = []
    for color in (one, other):
        parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        lights.append(linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    return max(lights) / min(lights)


def lab(color):
    """CIELAB coordinates of a colour, of CIE 15:2004 for sRGB and D65."""
    parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(to_xyz @ linear / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_no_numbered_curve_looks_like_a_state_or_another():
    palette = [lab(color) for color in style.PALETTE]
    for ground in (style.LIGHT, style.DARK):
        taken = [lab(style.color_of(state, ground)) for state in ("distinct", *style.STATES)]
        assert min(np.linalg.norm(one - two) for one in palette for two in taken) > 25
    pairs = [(a, b) for i, a in enumerate(palette) for b in palette[:i]]
    assert min(np.linalg.norm(a - b) for a, b in pairs) > 18


def test_shades_run_through_their_colours():
    assert style.shade_of(0) == style.SEQUENTIAL[0]
    assert style.shade_of(1 / 7.2) == style.SEQUENTIAL[1]  # 0.8 of the way to the ninth
    brightness = [sum(int(style.shade_of(t)[i : i + 2], 16) for i in (1, 3, 5)) for t in (0, 1)]
    assert brightness[0] < brightness[1]


def test_labels_of_a_log_axis_are_written_out_where_they_fit():
    assert style.log_ticks(1e-3, 3e-2) == [1e-3, 2e-3, 5e-3, 1e-2, 2e-2]
    assert style.log_ticks(1e-6, 1) is None
    for low, high in ((3e-3, 4e-3), (1.01, 1.02), (40, 90)):
        ticks = style.log_ticks(low, high)
        assert 2 <= len(ticks) <= 6
        assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Curve("", [1.0], [1.0], marker="heart"), "marker: got 'heart', allowed are circ"),
        (lambda: Curve("", [1.0], [1.0], hollow=[]), "hollow: got 0 values for 1 of x"),
        (lambda: Mark(1.0, "", style="wavy"), "style: got 'wavy', allowed are solid"),
        (lambda: Mark(1.0, "", color="red"), "color: got 'red', allowed are predicted"),
        (lambda: Bars("", [1.0], []), "values: got 0 for 1 places"),
        (lambda: Cells([1.0], [1.0], [1.0], ""), r"values: got shape \(1,\), need \(1, 1\)"),
        (lambda: Cells([1.0], [1.0], [[1.0]], "", ["lost"]), r"states: got shape \(1,\)"),
        (lambda: Cells([1.0], [1.0], [[1.0]], "", [["gone"]]), "states: got 'gone', allowed are"),
        (lambda: Mesh([1.0], [[1.0, 2.0]], [[1.0, 2.0]], ""), r"y: got shape \(1, 2\), need"),
        (
            lambda: Mesh([1.0, 2.0], [[1.0, 2.0]] * 2, [[1.0, np.nan]] * 2, ""),
            "values: need finite numbers",
        ),
        (
            lambda: Mesh([1.0, 2.0], [[1.0, 2.0]] * 2, [[1.0, 2.0, 3.0]] * 2, ""),
            r"values: got shape \(2, 3\), need \(2, 2\)",
        ),
        (lambda: Area("", "weird", [], [], []), "state: got 'weird', allowed are distinct"),
        (lambda: Area("", "merged", [1.0], [1.0], []), "high: got 0 values for 1 of x"),
        (lambda: Note(1.0, 1.0, "", "red"), "color: got 'red'"),
        (lambda: Chart("", "", "", [], legend="left"), "legend: got 'left', allowed are below"),
        (lambda: Chart("", "", "", [], whole=["z"]), "whole: got 'z', allowed are x, y"),
        (lambda: Stack("", [], []), "heights: got 0 for 0 charts"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- wheels and merge trees ------------------------------------------------------------------------


def test_wheels_and_trees_in_words():
    assert in_words(WHEEL) == "Wheel: 3 classes at end, 1 distinct, 1 merged, 1 vanished."
    assert in_words(TREE) == "Tree; 2 classes over λ: <b> lost at 0.01; all vanish at 0.05."
    assert "no change" in in_words(
        replace(TREE, changes=[], networks=[], lanes=[Lane("", 1.0, [])])
    )
    assert in_words(replace(TREE, lanes=[], networks=[])) == "Tree: nothing to draw."


def test_states_and_lengths_of_diagrams_are_checked():
    with pytest.raises(ValueError, match="state: got 'gone', allowed are distinct, merged"):
        Moment("", [[0, 0]], ["gone"])
    with pytest.raises(ValueError, match=r"places: got shape \(1, 2\), need finite"):
        Moment("", [[0, 0]], ["lost", "lost"])
    with pytest.raises(ValueError, match="tips: got 2 for 1 marks"):
        Moment("", [[0, 0]], ["lost"], tips=["a", "b"])
    with pytest.raises(ValueError, match="moments: got 1 marks for 2 names"):
        Wheel("", ["a", "b"], [[0, 1], [1, 0]], [1, 1], [Moment("", [[0, 0]], ["lost"])])
    with pytest.raises(ValueError, match="low, high: got 2 and 1"):
        MergeTree("", "", 2, 1, 10, [])
    with pytest.raises(ValueError, match="networks: got 1 states for 2 lanes"):
        replace(TREE, networks=[Network(0.02, "A", ["lost"])])


def test_a_wheel_reaches_as_far_as_its_names():
    across, up = WHEEL.reach
    long = replace(WHEEL, names=["cat", "a very long name indeed", "<b>"]).reach
    assert long[0] > across + 0.9
    assert long[1] == up > 1.3


def test_crosses_of_a_cable_are_thinned():
    lanes = [Lane("", 2.0, [], [(0.05, 10 + 3 * i)]) for i in range(6)]
    crosses = replace(TREE, lanes=lanes, networks=[]).crosses
    assert [y for _, y, _ in crosses] == [10, 19]


def test_predictions_are_rings_and_dashed_lines():
    for look, dash in (("solid", "dashed"), ("line+points", "dashed"), ("dotted", "dotted")):
        predicted, measured = (Curve("", X, X, role, look) for role in ("predicted", "measured"))
        assert (predicted.dash, predicted.hollow) == (dash, True)
        assert (measured.dash, measured.hollow) == (
            "dotted" if look == "dotted" else "solid",
            False,
        )
        assert colors(predicted) == colors(measured)
    assert Curve("", X, X, "predicted", hollow=[True, False, True, False]).hollow[1] is False


def colors(curve):
    return [style.color_of(curve.color, ink) for ink in (style.LIGHT, style.DARK)]
