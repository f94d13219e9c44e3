"""Specifications: tasks and their hashes, results joined, verdicts, names, panels as data."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reproduce.toy_paper import BAD, single
from tightframe.figures import model as charts
from tightframe.figures.model import Chart, Curve, HeatMaps, Mark, Matrix, Table
from tightframe.reproduce import spec
from tightframe.reproduce.spec import Results, Task, TaskResult, Verdict, verdict

FACTS = {
    "criterion": "c",
    "claimed": "d",
    "predicted": 1.0,
    "measured": 2.0,
    "tolerance": None,
    "sentence": "s",
}


def result(rows, labels, history=(), arrays=None, kind="solve"):
    task = Task(kind, {"n": len(rows)}, labels)
    table = pd.DataFrame(history or {"row": []})
    return TaskResult(task, pd.DataFrame(rows), table, lambda: arrays or {})


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


def test_an_unwritten_paper_is_absent(monkeypatch):
    monkeypatch.setattr(spec, "PAPERS", {"hong-ling": "hong_ling", "later": "not_written_yet"})
    assert list(spec.papers()) == ["hong-ling"]


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


def test_the_outcome_follows_from_what_holds():
    outcomes = [verdict(holds, **FACTS).outcome for holds in (True, False, None)]
    assert outcomes == ["reproduced", "not reproduced", "not at this scale"]
    assert verdict(np.bool_(False), **FACTS).outcome == "not reproduced"
    stored = json.loads(json.dumps(verdict(True, **FACTS).to_dict()))
    assert Verdict(**stored) == verdict(True, **FACTS)


def test_nan_reproduces_nothing():
    with pytest.raises(ValueError, match="reproduces nothing"):
        verdict(True, **{**FACTS, "measured": math.nan})
    assert verdict(False, **{**FACTS, "measured": math.nan}).to_dict()["measured"] is None
    with pytest.raises(ValueError, match="outcome: got 'maybe'"):
        Verdict(**FACTS, outcome="maybe")


def test_results_join_rows_with_their_labels():
    done = {"status": "done", "reason": None}
    a = result(
        [{"row": 0, "x": 1.5, **done}, {"row": 1, "x": 2.5, **done}],
        {"what": "a"},
        [{"row": 0, "epoch": 3}],
        {"logits_1": np.eye(2)},
    )
    b = result([{"row": 0, "y": "text", **done}], {"what": "b", "n": 4}, kind="path")
    bad = result([{"row": 0, "status": "failed", "reason": "why"}], {"what": "a"})
    results = Results("smoke", (b, a, bad))
    assert results.rows["what"].tolist() == ["b", "a", "a"]
    assert results.rows["task"].tolist() == [0, 1, 1]
    assert results.rows["x"].tolist()[1:] == [1.5, 2.5]
    assert results.failed["reason"].tolist() == ["why"]
    assert len(results.all_rows) == 4
    assert results.history[["what", "row", "epoch"]].values.tolist() == [["a", 0, 3]]
    part = results.select(what="a")
    assert part.rows["task"].tolist() == [0, 0]  # numbered within the part
    assert (part.array(part.rows.iloc[1], "logits") == np.eye(2)).all()
    assert (results.array(results.rows.iloc[2], "logits") == np.eye(2)).all()
    assert results.select("path", n=4).rows["y"].tolist() == ["text"]
    assert len(results.select(what="c").rows) == 0
    assert len(results.select(what="c").history) == 0
    with pytest.raises(KeyError):
        results.array(results.rows.iloc[0], "logits")


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
        text = json.dumps(charts.panel_to_dict(panel), allow_nan=False)
        again = charts.panel_from_dict(json.loads(text))
        assert charts.panel_to_dict(again) == charts.panel_to_dict(panel)
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
        (lambda: charts.panel_from_dict({"kind": "pie"}), "panel: not one of a figure"),
        (lambda: charts.panel_from_dict({"kind": "chart", "x": 1}), "panel: not one of a figure"),
    ],
)
def test_panels_refuse_what_cannot_be_drawn(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_toy_tasks_differ():
    assert single(1e-3).hash != single(2e-3).hash
