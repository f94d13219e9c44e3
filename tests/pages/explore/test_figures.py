"""What is drawn is what the library computes."""

import base64
import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("dash")

from plotly.utils import PlotlyJSONEncoder

import tightframe as tf
from tests.pages.explore.files import STATES
from tightframe.figures.style import DARK, LIGHT
from tightframe.figures.table import Column, Table
from tightframe.pages.explore import compute, figures, views
from tightframe.pages.explore.code import python_code
from tightframe.pages.explore.page import shown, solved_later
from tightframe.pages.explore.state import VIEWS, State
from tightframe.pages.explore.tables import to_dash
from tightframe.pages.explore.upload import measure_file
from tightframe.sweeps.phase_picture import picture
from tightframe.theory.thresholds import thresholds as closed_form

#: The views without a figure.
TABLES_ONLY = ("classes", "advice", "measured", "code")


@pytest.fixture
def few_ratios(monkeypatch):
    monkeypatch.setattr(compute, "PHASE_RATIOS", 4)


def unpacked(array):
    values = np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"])
    return values.reshape([int(part) for part in array["shape"].split(",")])


def run(code):
    names = {}
    exec(compile(code, "shown", "exec"), names)
    return names


@pytest.mark.parametrize("state", STATES)
def test_heat_maps_show_the_solution_and_the_code_gives_it(state):
    result = shown(replace(state, view="geometry"), LIGHT, None)
    assert result["message"] == ""
    names = run(result["code"])
    order = np.argsort(names["problem"].class_groups, kind="stable")
    for part, matrix in zip(views.PARTS, names["matrices"], strict=True):
        drawn = unpacked(result[part]["data"][0]["z"])
        np.testing.assert_allclose(
            drawn, matrix[np.ix_(order, order)], rtol=1e-6, atol=1e-6 * np.abs(matrix).max()
        )
    assert result["overlay"] is True  # hidden


def test_classes_are_sorted_by_group():
    state = State(counts="10,20,10,20", view="geometry")
    drawn = unpacked(shown(state, LIGHT, None)["logits"]["data"][0]["z"])
    solution = tf.solve(state.problem())
    np.testing.assert_allclose(drawn[0, 1], solution.logits[0, 2], rtol=1e-5)


def test_of_many_classes_some_of_every_group_are_drawn():
    state = State(counts="500x1500,100x1500,7", view="geometry")
    result = shown(state, LIGHT, None)
    classes = compute.shown_classes(state.problem())
    assert len(classes) <= compute.MAX_SHOWN
    assert set(state.problem().class_groups[classes]) == {0, 1, 2}
    drawn = unpacked(result["logits"]["data"][0]["z"])
    assert drawn.shape == (len(classes), len(classes))
    blocks = tf.solve(state.problem()).blocks.mean
    assert drawn[0, -1] == pytest.approx(blocks[0, 2], rel=1e-5)
    assert f"{len(classes)} of 3001 classes" in result["logits-text"]
    run(result["code"])


def test_vanished_classes_have_rank_zero():
    result = shown(State(weight_decay="5", feature_decay="5"), LIGHT, None)
    assert result["message"] == ""
    assert "vanished: 5 of 500, 5 of 100" in result["headline"]
    assert "rank 0" in result["headline"]


@pytest.mark.parametrize("state", STATES)
def test_margins_are_the_solution_s(state):
    result = shown(replace(state, view="margins"), LIGHT, None)
    names = run(result["code"])
    bars = [trace["y"] for trace in result["margins-graph"]["data"]]
    atol = 1e-4 * np.abs(bars).max()
    np.testing.assert_allclose(bars[0], names["to_a_sibling"], atol=atol)
    np.testing.assert_allclose(bars[1], names["to_the_nearest"], atol=atol)


def test_a_class_alone_with_its_count_has_no_sibling_margin():
    solution = tf.solve(State(counts="500x5,10").problem())
    table = views.margins(solution, None, LIGHT)[1]
    rows = table.children[0].children[2].children
    siblings = [row.children[2].children for row in rows]
    assert siblings == [f"{solution.group_margins[0]:.5g}", "-"]


def lines_of(figure, groups):
    """Return margins along lambda, one row a group, of curves that are one a group and state."""
    curves = [trace for trace in figure["data"] if trace["mode"] == "lines"]
    curves = [trace for trace in curves if trace["name"] != "rank"]
    starts = [i for i, trace in enumerate(curves) if trace["name"]]
    assert len(starts) == groups
    x = sorted({place for trace in curves for place in trace["x"]})
    rows = np.full((groups, len(x)), np.nan)
    for g, (first, last) in enumerate(zip(starts, [*starts[1:], len(curves)], strict=True)):
        for trace in curves[first:last]:
            y = np.array(trace["y"], dtype=float)
            rows[g, np.searchsorted(x, trace["x"])] = np.where(
                np.isnan(y), rows[g, np.searchsorted(x, trace["x"])], y
            )
    return np.array(x), rows


@pytest.mark.parametrize("state", STATES[:6])
def test_a_path_goes_through_the_solution_and_the_code_gives_it(state):
    low, high, *_ = compute.sweep(state.problem())
    inside = repr((low * high) ** 0.5)
    state = replace(state, view="margins", weight_decay=inside, feature_decay=inside)
    result = shown(state, LIGHT, None)
    assert result["message"] == ""
    solution = tf.solve(state.problem())
    x, lines = lines_of(result["path-graph"], len(solution.group_margins))
    for y, margin in zip(lines, solution.group_states.decision_margin, strict=True):
        assert np.interp(float(inside), x, y) == pytest.approx(margin, abs=0.02 * y.max())
    names = run(result["code"])
    along = np.transpose(names["along"])
    np.testing.assert_allclose(lines, along, atol=1e-4 * np.max(along))
    limits = [
        place
        for group in names["limits"].groups
        for place in (group.merges, group.lost, group.vanishes)
        if place is not None
    ]
    drawn = [s["x0"] for s in result["path-graph"]["layout"]["shapes"] if s["line"].get("dash")]
    assert limits
    assert drawn == pytest.approx(sorted(set(limits)), rel=1e-8)
    assert all(f"from {place:.4g}" in result["path-graph-text"] for place in limits)


@pytest.mark.parametrize("counts", ["100x5,10x5", "50x3,20x2"])
def test_a_curve_is_zero_on_its_threshold_and_not_below(counts):
    state = State(counts=counts, view="margins")
    found = shown(state, LIGHT, None)["path-graph"]
    x, lines = lines_of(found, len(state.problem().groups))
    limits = tf.thresholds(state.problem())
    for group, line in zip(limits.groups, lines, strict=True):
        place = group.merges or group.vanishes
        below = x < place * (1 - 2e-6)  # places have six digits
        assert line[~below] == pytest.approx(0, abs=1e-12)
        assert (line[below] > 0).all()
        assert x[below].max() == pytest.approx(place, rel=2e-5)


def test_the_path_says_what_is_not_followed():
    many = ",".join(str(10 * (k + 1)) for k in range(compute.MAX_AT_ONCE + 1))
    text = shown(State(counts=f"{many},500x2", view="path"), LIGHT, None)["path-graph-text"]
    assert "it is not followed from where on they are lost" in text
    followed = shown(State(counts="500,400,300,20", view="path"), LIGHT, None)["path-graph-text"]
    assert "lost from" in followed


@pytest.mark.parametrize("smoothing", ["", "0.1"])
def test_the_phase_diagram_is_the_library_s(smoothing, few_ratios):
    state = State(counts="40x2,10x4", view="phase", label_smoothing=smoothing)
    compute._DIAGRAMS.clear()
    result = shown(state, LIGHT, None)
    assert result["later"]["state"] == vars(state)
    args = compute.phases(state.problem())
    names = run(result["code"])
    outline = {trace["name"]: trace for trace in result["phase-graph"]["data"]}
    line = outline["minority merges"]
    np.testing.assert_allclose(line["x"], args.ratios, rtol=1e-5)
    np.testing.assert_allclose(line["y"], names["collapses"], rtol=1e-5)
    total = [closed_form(row).total_collapse for row in args.rows]
    area = outline["all vanished"]
    np.testing.assert_allclose(area["y"][: len(total)], total, rtol=1e-5)
    assert not any(trace["type"] == "heatmap" for trace in outline.values())
    assert "Margins follow" in result["phase-graph-text"]
    picture = views.phase(state.problem(), LIGHT)
    again = shown(state, LIGHT, None)
    assert (again["phase-graph"], again["phase-graph-text"]) == picture
    assert "later" not in again
    diagram = compute.phase_diagram(args)
    np.testing.assert_allclose(diagram.margins, names["rows"], atol=1e-3 * np.max(names["rows"]))
    # Colours are those of the nearest nodes, wherever they are.
    heat = picture.figure["data"][0]
    z = np.array(heat["z"], dtype=float)
    for i in (0, -1):
        decays, margins = np.log(diagram.decays[i]), diagram.margins[i]
        inside = (np.array(heat["y"]) < diagram.decays[i, -1]) & np.isfinite(z[:, i])
        expected = np.interp(np.log(heat["y"]), decays, margins)[inside]
        np.testing.assert_allclose(z[inside, i], expected, atol=0.02 * margins.max())
    (place,) = [trace for trace in picture.figure["data"] if trace.get("name") == "the controls"]
    assert place["x"] == [4.0]


@pytest.mark.parametrize(
    ("counts", "more"),
    [
        ("40x2,10x4", {}),
        ("60x3,20x2", {"features": "nonnegative"}),
        ("100x5,10x5", {"loss": "mse"}),
    ],
)
def test_no_row_of_the_phase_diagram_crosses_a_threshold(counts, more, few_ratios):
    """Neither colours nor areas: each ends where the closed form says that a state does."""
    problem = State(counts=counts, **more).problem()
    args = compute.phases(problem)
    diagram = compute.phase_diagram(args)
    limits = [closed_form(row) for row in args.rows]
    ends = np.array([limit.groups[-1].logit_decay for limit in limits])
    assert (diagram.decays < ends[:, None]).all()
    np.testing.assert_allclose(diagram.decays[:, -1], ends, rtol=2e-5)
    assert (diagram.margins > 0).all()
    after = "vanished" if limits[0].kind == "vanish" else "merged"
    chart = picture(diagram, "", "", after=after)
    merged = [area for area in chart.areas if area.state == "merged"]
    gone = next(area for area in chart.areas if area.whole)
    for area in merged:
        np.testing.assert_allclose(area.low, ends)
    np.testing.assert_allclose(gone.low, [limit.total_collapse for limit in limits])
    for low, high in zip(chart.areas, chart.areas[1:], strict=False):
        np.testing.assert_array_equal(low.high, high.low)


def test_a_lost_minority_ends_the_colours_where_its_margin_does(few_ratios):
    args = compute.phases(State(counts="100x5,10x5", bias="free").problem())
    diagram = compute.phase_diagram(args)
    i = len(args.rows) // 2
    expected = tf.thresholds(args.rows[i]).groups[-1].lost
    assert diagram.ends[i] == pytest.approx(expected, rel=compute.PHASE_ACCURACY)
    assert diagram.decays[i, -1] < diagram.ends[i] < args.collapses[i]
    assert (diagram.margins >= 0).all()
    text = views.phase(State(counts="100x5,10x5", bias="free").problem(), LIGHT).text
    assert "The minority is lost from" in text


@pytest.mark.parametrize(
    ("counts", "start"),
    [
        ("300x2,6x3", "5 classes: 3 of them with 6 samples, the minority, the others with R times"),
        ("6x4", "4 classes: half of them with 6 samples"),
        ("300,80,6x2", "4 classes: 3 of them with 6 samples"),
    ],
)
def test_the_phase_diagram_says_whose_counts_it_has(counts, start, few_ratios):
    text = views.phase(State(counts=counts).problem(), LIGHT).text
    assert text.startswith(start)
    assert ("more sizes than these two" in text) == (counts == "300,80,6x2")


def test_where_the_minority_vanishes_in_the_phase_diagram(few_ratios):
    """The same decay as where states are followed, to what a picture shows."""
    args = compute.phases(State(counts="100x5,10x5").problem())
    diagram = compute.phase_diagram(args)
    i = len(args.rows) // 2
    expected = tf.thresholds(args.rows[i]).groups[-1].vanishes
    assert diagram.vanishes[i] == pytest.approx(expected, rel=compute.PHASE_ACCURACY)


@pytest.mark.parametrize(
    "terms",
    [
        {"logit_scale": "1x2,.6x2"},
        {"class_margins": "0x2,.6x2"},
        {"feature_weights": "30x2,10x2"},
        {"class_weights": "1x2,.5x2", "label_smoothing": ".1", "smoothing_weights": "labels"},
    ],
)
def test_groups_of_one_count_have_lines_of_their_own(terms):
    state = State(counts="30x4", view="path", **terms)
    result = shown(state, LIGHT, None)
    limits = tf.thresholds(state.problem())
    places = {shape["x0"] for shape in result["path-graph"]["layout"]["shapes"]}
    for group in limits.groups:
        assert {place for place in (group.merges, group.vanishes) if place} <= places
    line = run(result["code"])["path"]
    x, drawn = lines_of(result["path-graph"], 2)
    drawn = [np.interp(line.logit_decay, x, own) for own in drawn]  # places have six digits there
    expected = np.array([point.group_states.decision_margin for point in line.solutions]).T
    np.testing.assert_allclose(drawn, expected, atol=1e-3 * expected.max())
    entries = [
        t["name"] for t in result["path-graph"]["data"] if t.get("name") and t["mode"] == "lines"
    ]
    assert entries[0] != entries[1]


def test_the_path_of_many_groups_comes_in_two_steps():
    state = State(counts=",".join(str(100 * i) for i in range(1, 15)), view="path")
    compute._PATHS.clear()
    result = shown(state, LIGHT, None)
    assert result["later"]["state"] == vars(state)
    assert "Margins follow" in result["path-graph-text"]
    limits = [group.logit_decay for group in tf.thresholds(state.problem()).groups]
    places = [shape["x0"] for shape in result["path-graph"]["layout"]["shapes"]]
    assert {limit for limit in limits if limit is not None} <= set(places)
    found = solved_later(state, LIGHT, None)
    line = run(result["code"])["path"]
    _, drawn = lines_of(found["path-graph"], 14)
    expected = np.array([point.group_states.decision_margin for point in line.solutions]).T
    np.testing.assert_allclose(drawn, expected, atol=1e-3 * expected.max())
    again = shown(state, LIGHT, None)
    assert again["path-graph"] == found["path-graph"]
    assert "later" not in again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view": "phase", "depth": "2", "loss": "mse"}, "depth: got 2, a phase diagram needs 1"),
        ({"view": "phase", "class_weights": "balanced"}, "class_weights: a phase diagram"),
        ({"counts": "5x1000000"}, "counts: got 1000000 classes, this page takes up to 100000"),
        ({"counts": ",".join(map(str, range(1, 120)))}, "counts: got 119 groups"),
        ({"counts": "5x30", "depth": "2"}, "counts: got 30 classes; nothing certifies"),
        ({"counts": "abc"}, "counts: cannot read 'abc'"),
        ({"features": "nonnegative", "depth": "2"}, "non-negative features .* depth 1, got 2"),
    ],
)
def test_what_cannot_be_shown_is_said(changes, message):
    result = shown(State(**changes), LIGHT, None)
    assert re.search(message, result["message"])
    assert result["code"].startswith("# ")
    assert "query" in result


def test_without_a_path_the_margins_are_there_all_the_same():
    result = shown(State(view="margins", dim="4", counts="50x3,20x3"), LIGHT, None)
    assert result["message"] == ""
    assert result["path-graph-text"].startswith("path: needs certified solves")
    assert len(result["margins-graph"]["data"]) == 2
    run(result["code"])


def test_the_code_of_all_views_is_one_script():
    state = State(counts="40x2,10x2")
    code = shown(replace(state, view="code"), LIGHT, None)["code"]
    for view in VIEWS:
        own = python_code(replace(state, view=view), tf.solve(state.problem()), None)
        assert set(own.splitlines()) <= set(code.splitlines())
    assert code.count("import tightframe as tf") == 1
    compile(code, "shown", "exec")


@pytest.mark.parametrize("ink", [LIGHT, DARK])
@pytest.mark.parametrize("view", [view for view in VIEWS if view not in TABLES_ONLY])
def test_every_figure_is_strict_json_on_its_ground(view, ink):
    result = shown(State(view=view), ink, None)
    drawn = [v for v in result.values() if isinstance(v, dict) and "layout" in v]
    assert drawn
    for figure in drawn:
        json.dumps(figure, allow_nan=False)
        assert figure["layout"]["paper_bgcolor"] == ink.paper
        assert figure["layout"]["font"]["color"] == ink.text


def test_advice_links_to_what_it_proposes():
    state = State(weight_decay="0.01", feature_decay="0.002", view="advice")
    text = json.dumps(views.advice(state), default=lambda part: part.to_plotly_json())
    advice = tf.advise(state.problem())
    assert advice.warnings[0] in text
    link = text.split('"href": "/')[1].split('"')[0]
    assert State.from_query(link).problem() == advice.proposals[0].problem
    names = run(python_code(state, tf.solve(state.problem()), None))
    assert names["advice"].to_dict() == advice.to_dict()


def test_a_table_as_the_page_shows_it():
    table = Table("T", ["name", Column("n", "°", format=".2f")], [["a", 1], ["b", None]], "A note")
    shown_table = json.loads(json.dumps(to_dash(table), cls=PlotlyJSONEncoder))
    parts = [(part["type"], part["props"]) for part in components(shown_table)]
    texts = [(kind, props["children"]) for kind, props in parts if kind in ("Th", "Td", "P")]
    heads = [("Th", "name"), ("Th", "n (°)")]
    assert texts == [
        *heads,
        ("Th", "a"),
        ("Td", "1.00"),
        ("Th", "b"),
        ("Td", "n/a"),
        ("P", "A note"),
    ]
    assert [props["scope"] for kind, props in parts if kind == "Th"] == ["col", "col", "row", "row"]
    assert all(props["className"] == "n" for kind, props in parts if kind == "Td")
    assert parts[0][1]["aria-label"] == "T"


def components(part):
    """All components of a serialised one, itself first."""
    if isinstance(part, list):
        for child in part:
            yield from components(child)
    elif isinstance(part, dict):
        yield part
        yield from components(part["props"].get("children"))


def test_names_of_groups_tell_weights_and_adjustments():
    problem = State(class_weights="1x5,5x5", logit_adjustment="0x5,2x5").problem()
    assert figures.group_names(problem) == ["5 of 500", "5 of 100 with weight 5 and adjustment 2"]


def test_of_many_groups_the_table_has_some_among_them_the_smallest():
    state = State(counts=",".join(str(1000 - 10 * i) for i in range(90)), view="margins")
    result = json.loads(json.dumps(shown(state, LIGHT, None), cls=PlotlyJSONEncoder))
    table = json.dumps(result["margins-table"])
    assert f"Margins of {views.MAX_ROWS} of 90 groups" in table
    assert len(result["margins-graph"]["data"][0]["y"]) == 90
    counts = re.findall(r'"children": "(\d+0)"', table)
    assert len(counts) == views.MAX_ROWS
    assert (counts[0], counts[-1]) == ("1000", "110")


def plain(parts):
    return json.dumps(parts, default=lambda part: part.to_plotly_json())


def test_names_of_classes_are_where_the_classes_are(tmp_path):
    """In every view; short where there is little room, and nothing of them is markup."""
    names = ["T-shirt/top", "a name that is too long for a heat map", "<b>bag</b>", "$5 to $10"]
    labels = np.repeat(np.arange(4), [6, 6, 3, 2])
    features = np.eye(4)[labels] + 0.1 * np.random.default_rng(0).normal(size=(17, 4))
    np.savez(tmp_path / "x.npz", features=features, labels=labels, weight=np.eye(4))
    measured = measure_file(tmp_path / "x.npz", "x.npz", class_names=names)
    state = State(counts="6,6,3,2")
    whole = figures.group_names(measured.naming(state.problem()))
    assert whole[1:] == ["<b>bag</b> (3)", "$5 to $10 (2)"]
    assert whole[0].startswith("2 of 6 (T-shirt/top, a name that ")
    found = {
        view: shown(replace(state, view=view), LIGHT, measured) for view in ("geometry", "margins")
    }
    ticks = found["geometry"]["logits"]["layout"]["yaxis"]["ticktext"]
    assert (len(ticks), ticks[0]) == (4, "T-shirt/top")
    assert max(len(html.unescape(tick)) for tick in ticks) <= 11
    below = found["margins"]["margins-graph"]["layout"]["xaxis"]["ticktext"]
    assert html.unescape(below[2]) == "$5 to $10<br>(2)"
    assert "<b>bag</b>" in plain(found["margins"]["margins-table"])
    legend = [trace["name"] for trace in found["margins"]["path-graph"]["data"]]
    assert {"$5 to $10 (2)", "$5 to $10 (2), measured"} <= set(legend)
    for result in found.values():
        assert "<b>" not in json.dumps([v for v in result.values() if isinstance(v, dict)])
    assert "1 class of 2 samples ($5 to $10)" in plain(views.advice(state, measured))
