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
from tightframe.figures.style import DARK, LIGHT
from tightframe.figures.table import Column, Table
from tightframe.pages.explore import compute, figures, views
from tightframe.pages.explore.code import python_code
from tightframe.pages.explore.page import shown, solved_later
from tightframe.pages.explore.state import VIEWS, State
from tightframe.pages.explore.tables import to_dash
from tightframe.pages.explore.upload import measure_file

STATES = [
    State(),
    State(counts="500x5,100x5", weight_decay="0.02"),
    State(counts="30,20,10x2", loss="mse", bias="free"),
    State(counts="9x3,4x3", loss="mse", depth="3", weight_decay="0.01,0.02,0.03"),
    State(counts="60x3,20x2", features="nonnegative"),
    State(counts="90x3,30x3", bias="decayed", bias_decay="0.1", class_weights="balanced"),
    State(counts="90x3,30x3", logit_adjustment="prior", dim="3"),
]

#: The views without a figure.
TABLES_ONLY = ("advice", "measured")


def unpacked(array):
    values = np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"])
    return values.reshape([int(part) for part in array["shape"].split(",")])


def run(code):
    names = {}
    exec(compile(code, "shown", "exec"), names)
    return names


@pytest.mark.parametrize("state", STATES)
def test_heat_maps_show_the_solution_and_the_code_gives_it(state):
    result = shown(state, LIGHT, None)
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
    state = State(counts="10,20,10,20")
    drawn = unpacked(shown(state, LIGHT, None)["logits"]["data"][0]["z"])
    solution = tf.solve(state.problem())
    np.testing.assert_allclose(drawn[0, 1], solution.logits[0, 2], rtol=1e-5)


def test_of_many_classes_some_of_every_group_are_drawn():
    state = State(counts="500x1500,100x1500,7")
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


@pytest.mark.parametrize("state", STATES[:6])
def test_every_class_has_a_mark_where_it_is_sent(state):
    found = shown(state, LIGHT, None)["wheel"]
    stored = json.loads(re.search(r"<script type=.application/json.>(.*?)</script>", found)[1])
    solution = tf.solve(state.problem())
    (moment,) = stored["moments"]
    names = stored["states"]
    assert [names[i] for i in moment["states"]] == solution.states.state.tolist()
    problem = solution.problem
    shares = problem.loss_object.predictions(solution.logits + solution.bias[:, None])
    homes = np.array(stored["homes"])
    np.testing.assert_allclose(moment["places"], shares.T @ homes, atol=0.2)  # tenths of a pixel


def test_states_are_drawn_apart():
    """In three dimensions ten distinct classes lay at the origin, like ten that have vanished."""
    pictures = {
        decay: re.findall(
            r'<use class="(\w+)" href="#tf-\1" data-i="\d+" transform="translate\((.*?)\)',
            shown(State(counts="100x5,10x5", weight_decay=decay, feature_decay=decay), LIGHT, None)[
                "wheel"
            ],
        )
        for decay in ("0.0001", "0.008", "0.012", "0.03")
    }
    states = {decay: {state for state, _ in marks} for decay, marks in pictures.items()}
    places = {decay: len({place for _, place in marks}) for decay, marks in pictures.items()}
    assert list(states.values()) == [
        {"distinct"},
        {"distinct", "merged"},
        {"distinct", "vanished"},
        {"vanished"},
    ]
    assert list(places.values()) == [10, 6, 6, 1]


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


@pytest.mark.parametrize("state", STATES[:6])
def test_a_path_goes_through_the_solution_and_the_code_gives_it(state):
    low, high, _ = compute.sweep(state.problem())
    inside = repr((low * high) ** 0.5)
    state = replace(state, view="path", weight_decay=inside, feature_decay=inside)
    result = shown(state, LIGHT, None)
    assert result["message"] == ""
    lines = [trace for trace in result["path-graph"]["data"] if trace["name"] != "rank"]
    for trace, margin in zip(lines, tf.solve(state.problem()).group_margins, strict=True):
        at = np.interp(float(inside), trace["x"], trace["y"])
        assert at == pytest.approx(margin, abs=0.02 * max(trace["y"]))
    names = run(result["code"])
    np.testing.assert_allclose(
        np.transpose(names["margins"]),
        [trace["y"] for trace in lines],
        atol=1e-4 * np.max(names["margins"]),
    )
    limits = [
        place
        for group in names["limits"].groups
        for place in (group.merges, group.lost, group.vanishes)
        if place is not None
    ]
    drawn = [s["x0"] for s in result["path-graph"]["layout"]["shapes"] if s["line"].get("dash")]
    assert limits
    assert drawn == pytest.approx(limits, rel=1e-8)
    assert all(f"from {place:.4g}" in result["path-graph-text"] for place in limits)


def test_the_path_says_what_is_not_followed():
    many = ",".join(str(10 * (k + 1)) for k in range(compute.MAX_AT_ONCE + 1))
    text = shown(State(counts=f"{many},500x2", view="path"), LIGHT, None)["path-graph-text"]
    assert "it is not followed from where on they are lost" in text
    followed = shown(State(counts="500,400,300,20", view="path"), LIGHT, None)["path-graph-text"]
    assert "lost from" in followed


@pytest.mark.parametrize("smoothing", ["", "0.1"])
def test_the_phase_diagram_is_the_library_s(smoothing):
    state = State(counts="40x2,10x4", view="phase", label_smoothing=smoothing)
    compute._DIAGRAMS.clear()
    result = shown(state, LIGHT, None)
    assert result["later"]["state"] == vars(state)
    diagram = run(result["code"])["diagram"]
    outline = result["phase-graph"]["data"]
    thresholds = (diagram.minority_threshold, diagram.majority_threshold, diagram.total_collapse)
    for line, limits in zip(outline[1:4], thresholds, strict=True):
        np.testing.assert_allclose(line["x"], diagram.ratios, rtol=1e-5)
        np.testing.assert_allclose(line["y"], limits, rtol=1e-5)
    assert {z for row in outline[0]["z"] for z in row} == {None}
    assert "Sibling margins follow" in result["phase-graph-text"]
    picture = views.phase(state.problem(), LIGHT)
    again = shown(state, LIGHT, None)
    assert (again["phase-graph"], again["phase-graph-text"]) == picture
    assert "later" not in again
    drawn = np.array(picture.figure["data"][0]["z"], dtype=float)
    assert np.isnan(drawn.T[diagram.minority_collapsed]).all()
    kept = ~diagram.minority_collapsed
    np.testing.assert_allclose(
        drawn.T[kept], diagram.minority_margin[kept], atol=1e-3 * diagram.minority_margin.max()
    )
    assert picture.figure["data"][-1]["x"] == [4.0]


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
    drawn = np.array([trace["y"] for trace in result["path-graph"]["data"][:2]])
    expected = np.array([point.group_margins for point in line.solutions]).T
    np.testing.assert_allclose(drawn, expected, atol=1e-3 * expected.max())
    names = [trace["name"] for trace in result["path-graph"]["data"][:2]]
    assert names[0] != names[1]


def test_the_path_of_many_groups_comes_in_two_steps():
    state = State(counts=",".join(str(100 * i) for i in range(1, 15)), view="path")
    compute._PATHS.clear()
    result = shown(state, LIGHT, None)
    assert result["later"]["state"] == vars(state)
    assert "Sibling margins follow" in result["path-graph-text"]
    limits = [group.logit_decay for group in tf.thresholds(state.problem()).groups]
    places = [shape["x0"] for shape in result["path-graph"]["layout"]["shapes"]]
    assert {limit for limit in limits if limit is not None} <= set(places)
    found = solved_later(state, LIGHT, None)
    line = run(result["code"])["path"]
    drawn = np.array([trace["y"] for trace in found["path-graph"]["data"][:14]])
    expected = np.array([point.group_margins for point in line.solutions]).T
    np.testing.assert_allclose(drawn, expected, atol=1e-3 * expected.max())
    again = shown(state, LIGHT, None)
    assert again["path-graph"] == found["path-graph"]
    assert "later" not in again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view": "phase", "depth": "2", "loss": "mse"}, "depth: got 2, a phase diagram needs 1"),
        ({"view": "phase", "class_weights": "balanced"}, "class_weights: a phase diagram"),
        ({"view": "path", "dim": "4"}, "path: needs certified solves"),
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
        view: shown(replace(state, view=view), LIGHT, measured)
        for view in ("geometry", "margins", "path")
    }
    ticks = found["geometry"]["logits"]["layout"]["yaxis"]["ticktext"]
    assert (len(ticks), ticks[0]) == (4, "T-shirt/top")
    assert max(len(html.unescape(tick)) for tick in ticks) <= 11
    below = found["margins"]["margins-graph"]["layout"]["xaxis"]["ticktext"]
    assert html.unescape(below[2]) == "$5 to $10<br>(2)"
    assert "<b>bag</b>" in plain(found["margins"]["margins-table"])
    legend = [trace["name"] for trace in found["path"]["path-graph"]["data"]]
    assert {"$5 to $10 (2)", "$5 to $10 (2), measured"} <= set(legend)
    for result in found.values():
        assert "<b>" not in json.dumps([v for v in result.values() if isinstance(v, dict)])
    assert "1 class of 2 samples ($5 to $10)" in plain(views.advice(state, measured))
