"""Specifications: tasks and their hashes, results joined, verdicts, names, panels as data."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reproduce.toy_paper import BAD, single
from tightframe.figures import model as charts
from tightframe.figures import storage
from tightframe.figures.model import Chart, Curve, HeatMaps, Mark, Matrix, Table
from tightframe.reproduce import papers as package
from tightframe.reproduce import spec
from tightframe.reproduce.spec import Task, Verdict

FACTS = {
    "criterion": "c",
    "claimed": "d",
    "predicted": 1.0,
    "measured": 2.0,
    "tolerance": None,
    "sentence": "s",
}


def test_a_task_is_its_kind_and_arguments_not_its_labels():
    a = Task("solve", {"tol": 1e-8, "problems": [{"x": 1}]}, {"what": "a"})
    b = Task("solve", {"problems": [{"x": 1}], "tol": 1e-8}, {"what": "b"})
    assert a.hash == b.hash
    assert a.hash != Task("path", a.arguments).hash
    assert a.hash != Task("solve", {**a.arguments, "tol": 1e-9}).hash
    assert a.name == "solve (what a)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", {}), "kind: got 'train', allowed are solve, path, ufm, network"),
        (("solve", {"f": print}), "arguments: not JSON-ready"),
        (("solve", {}, {"a": [1]}), r"labels: a is \[1\], need text or a number"),
    ],
)
def test_a_task_is_plain_data(arguments, message):
    with pytest.raises(ValueError, match=message):
        Task(*arguments)


PAPER_FILE = """
from tightframe.reproduce.spec import Paper, figures_in
PAPER = Paper("{name}", "citation", "https://arxiv.org/abs/{number}", figures_in(__name__))
"""
FIGURE_FILE = """
from tightframe.reproduce.spec import Figure
FIGURE = Figure("{name}", "", "", "", "", tasks=list, judge=list, draw=list, place={place})
"""


def test_papers_and_figures_are_found_by_looking(monkeypatch, tmp_path):
    """A new figure is one file; papers stand by their numbers, figures by their places."""
    for name, number in (("first_one", "1001.1"), ("second", "2999.1")):
        folder = tmp_path / name
        folder.mkdir()
        text = PAPER_FILE.format(name=name.replace("_", "-"), number=number)
        (folder / "__init__.py").write_text(text)
        (folder / "shared.py").write_text("NO_FIGURE = None")
        for figure, place in (("a", 2), ("b", 1), ("c", 3)):
            text = FIGURE_FILE.format(name=f"{figure}-x", place=place)
            (folder / f"{figure}.py").write_text(text)
    monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    found = spec.papers()
    assert list(found) == ["first-one", "second"]
    assert [figure.name for figure in found["second"].figures] == ["b-x", "a-x", "c-x"]


def test_names_find_figures_once_and_in_order(monkeypatch):
    monkeypatch.setattr(spec, "papers", lambda: BAD)
    names = lambda *given: [f.name for _, f in spec.find_figures(list(given))]  # noqa: E731
    assert names("all") == names("toy") == ["rank", "again", "broken", "mistaken"]
    assert names("toy/broken", "toy/rank", "toy/broken") == ["rank", "broken"]
    assert [f.name for _, f in spec.find_figures("toy/again")] == ["again"]
    with pytest.raises(ValueError, match="names: got 'boy', allowed are all, toy"):
        names("boy")
    with pytest.raises(ValueError, match="figures of toy are rank, again, broken, mistaken"):
        names("toy/rang")
    with pytest.raises(ValueError, match="names: need"):
        names()


def test_figures_and_papers_need_plain_and_different_names():
    figure = BAD["toy"].figures[0]
    with pytest.raises(ValueError, match="two are named 'rank'"):
        spec.Paper("toy", "", "", [figure, figure])
    with pytest.raises(ValueError, match=r"name: got '\.\./x'"):
        spec.Paper("../x", "", "", [])


def test_nan_reproduces_nothing():
    facts = {**FACTS, "measured": math.nan}
    with pytest.raises(ValueError, match="reproduces nothing"):
        Verdict(**facts, outcome="reproduced")
    assert Verdict(**facts, outcome="not reproduced").to_dict()["measured"] is None
    with pytest.raises(ValueError, match="outcome: got 'maybe'"):
        Verdict(**FACTS, outcome="maybe")


# -- panels ----------------------------------------------------------------------------------------

numbers = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(-9, 9))


@given(st.lists(numbers, min_size=1, max_size=6), st.booleans(), st.booleans())
def test_panels_survive_storage(values, log_x, log_y):
    x = [float(i) for i in range(len(values))]
    band = {"low": values, "high": values}
    chart = Chart(
        "t", "x", "y", [Curve("c", x, values, 3, "dotted", **band)], [Mark(2.0, "m", "y", "etf")],
        log_x, log_y, "n",
    )  # fmt: skip
    maps = HeatMaps("h", [Matrix("a", [[1.0, math.nan], [0.0, -3.0]])], borders=[1.0])
    table = Table("t", ["a", "b"], [["x", 1.5], [None, 2]])
    for panel in (chart, maps, table):
        text = json.dumps(storage.panel_to_dict(panel), allow_nan=False)
        again = storage.panel_from_dict(json.loads(text))
        assert storage.panel_to_dict(again) == storage.panel_to_dict(panel)
        assert type(again) is type(panel)
    drawn = [
        (a, b)
        for a, b in zip(x, values, strict=True)
        if b is not None and math.isfinite(b) and not (log_x and a <= 0) and not (log_y and b <= 0)
    ]
    assert list(zip(*charts.points(chart, chart.curves[0]), strict=True)) == drawn
    assert chart.empty == (not drawn)


def test_the_scale_of_maps_is_their_largest_entry():
    maps = [Matrix("a", [[1.0, -4.0]]), Matrix("b", [[math.nan, 2.0]])]
    assert HeatMaps("h", maps).scale == 4.0
    assert HeatMaps("h", maps, limit=9.0).scale == 9.0
    assert HeatMaps("h", [Matrix("zero", [[0.0]])]).scale == 1.0
    assert HeatMaps("h", []).empty


def test_borders_lie_where_the_count_changes():
    assert charts.block_borders([5, 5, 3, 3, 3, 1]) == [2.0, 5.0]
    assert charts.block_borders([5, 5]) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Curve("c", [1.0], [1.0, 2.0]), "y: got 2 values for 1 of x"),
        (lambda: Curve("c", [1.0], [1.0], "red"), "color: got 'red', allowed are predicted"),
        (lambda: Curve("c", [1.0], [1.0], style="wavy"), "style: got 'wavy'"),
        (lambda: Curve("c", [1.0], [1.0], low=[1.0]), "low, high: a band needs both"),
        (lambda: Mark(math.nan, "m"), "value: got nan"),
        (lambda: Mark(1.0, "m", "z"), "axis: got 'z'"),
        (lambda: Matrix("m", [1.0]), r"values: got shape \(1,\)"),
        (lambda: Table("t", ["a"], [[1, 2]]), "rows: got 2 entries for 1 columns"),
        (lambda: storage.panel_from_dict({"kind": "pie"}), "panel: not one of a figure"),
        (lambda: storage.panel_from_dict({"kind": "chart", "x": 1}), "panel: not one of a figure"),
    ],
)
def test_panels_refuse_what_cannot_be_drawn(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_toy_tasks_differ():
    assert single(1e-3).hash != single(2e-3).hash
