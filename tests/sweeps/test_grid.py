"""Grids agree with single solves, and a folder loses no row and solves none twice."""

import csv
import json
import os
import sys

import numpy as np
import pandas as pd
import pytest

import tightframe as tf
from tightframe.sweeps import grid as module
from tightframe.sweeps.grid import (
    Grid,
    parse_values,
    read_grid,
    run_grid,
    shortfalls,
)
from tightframe.theory import thresholds as closed

COUNTS = ["500x5,100x5", "60,20,9,4", "30x3", "40x2,10x3,7"]
DECAYS = [1e-3, 4e-3, 2e-2]


def problem(**changes):
    base = {"counts": COUNTS[0], "weight_decay": 5e-3, "feature_decay": 2e-3}
    return tf.Problem(**(base | changes))


def make(**changes):
    return Grid(
        **({"problem": problem(), "sweep": {"weight_decay": DECAYS}, "rows": COUNTS} | changes)
    )


def untimed(rows):
    """Rows without what differs from run to run."""
    rows = json.loads(json.dumps(rows))
    for row in rows:
        for point in row["points"]:
            del point["seconds"]
    return rows


@pytest.fixture
def calls(monkeypatch):
    """Counts of every row that is solved; an exception in `calls.raising` is raised for its row."""

    class Calls(list):
        raising = {}  # noqa: RUF012

    calls, path = Calls(), module.path
    calls.raising = {}

    def counted(problem, **options):
        calls.append(problem.compact_counts)
        if problem.compact_counts in calls.raising:
            raise calls.raising[problem.compact_counts]
        return path(problem, **options)

    monkeypatch.setattr(module, "path", counted)
    return calls


# -- values and grids ------------------------------------------------------------------------------


def test_values_from_text():
    assert parse_values("x", "3") == [3.0]
    assert parse_values("x", "1e-3,5,2") == [1e-3, 5.0, 2.0]
    assert parse_values("x", "1e-3/2e-3,4/5") == [(1e-3, 2e-3), (4.0, 5.0)]
    values = parse_values("x", "1e-4:1e-1:4")
    assert values == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1], rel=1e-12)
    assert (values[0], values[-1]) == (1e-4, 1e-1)
    assert parse_values("x", "8:1:4") == pytest.approx([8, 4, 2, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("much", "x: got 'much', need a number, numbers with commas between, or LOW:HIGH:POINTS"),
        ("1,,2", "x: got ''"),
        ("1:2", "x: got '1:2', need LOW:HIGH:POINTS"),
        ("1:2:3:4", "need LOW:HIGH:POINTS"),
        ("0:1:3", "x: got 0.0, need a finite number above 0"),
        ("1:inf:3", "x: got inf"),
        ("1:a:3", "x: got 'a'"),
        ("1:2:1", "x: got '1' points in '1:2:1', need a whole number from 2 to 100000"),
        ("1:2:x", "x: got 'x' points"),
        ("1:2:1000000000", "need a whole number from 2 to 100000"),
    ],
)
def test_values_that_are_none(text, message):
    with pytest.raises(ValueError, match=message.replace("'1:2:1'", ".*")):
        parse_values("x", text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sweep": {}}, "sweep: need at least one value"),
        ({"sweep": {"weight_decay": []}}, "sweep: need at least one value"),
        ({"sweep": {"lr": [1]}}, "sweep: got 'lr', allowed are weight_decay, feature_decay"),
        (
            {"sweep": {"weight_decay": [1, 2], "feature_decay": [1]}},
            "sweep: got 2 of weight_decay, 1 of feature_decay",
        ),
        ({"sweep": {"weight_decay": [1e-3, -1]}}, "weight_decay: got -1"),
        ({"rows": ["5x2", "5"]}, "counts: got 1 class"),
        ({"sweep": {"counts": ["5x2", "6x2"]}}, "rows: given with counts to sweep"),
        ({"ratios": [1, 2]}, "ratios: got 2 for 4 rows"),
        ({"tol": 0}, "tol: got 0"),
        ({"max_iterations": 0}, "max_iterations: got 0"),
    ],
)
def test_bad_grids_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_grid_is_its_plain_values():
    for grid in (
        make(),
        make(sweep={"counts": COUNTS}, rows=()),
        make(problem=problem(loss="mse", depth=2), sweep={"weight_decay": [(1e-3, 2e-3), (1, 2)]}),
        make(ratios=[1, 2, 3, 4.5]),
    ):
        again = Grid.from_dict(json.loads(json.dumps(grid.to_dict())))
        assert again.to_dict() == grid.to_dict()
        assert again.problem == grid.problem
    with pytest.raises(ValueError, match="config: not that of a grid"):
        Grid.from_dict({"problem": 3})


# -- numbers ---------------------------------------------------------------------------------------


def test_points_are_single_solutions():
    rows = run_grid(make())
    assert [row["counts"] for row in rows] == COUNTS
    for row in rows:
        assert (row["status"], row["reason"], row["ratio"]) == ("done", None, None)
        for decay, point in zip(DECAYS, row["points"], strict=True):
            single = problem(counts=row["counts"], weight_decay=decay)
            assert tf.Problem(**point["problem"]) == single
            assert point["lambda"] == single.logit_decay
            solution = tf.solve(single)
            margins = [group["margin"] for group in point["groups"]]
            np.testing.assert_allclose(margins, solution.group_margins, atol=1e-4)
            assert point["objective"] == pytest.approx(solution.objective, rel=2e-8)
            limits = closed.ends(single)
            assert point["total_collapse"] == pytest.approx(limits.total_collapse)
            assert point["collapse_kind"] == limits.kind
            assert [g["threshold"] for g in point["groups"]] == [
                g.logit_decay for g in limits.groups
            ]
    assert shortfalls(rows) == []


@pytest.mark.parametrize(
    "terms",
    [
        {"logit_scale": "1x2,.6x2"},
        {"feature_weights": "30x2,10x2"},
        {"class_margins": "0x2,.6x2"},
        {"class_margins": "-.3x2,.6x2"},
        {"class_margins": ".2x2,.6x2", "label_smoothing": 0.1, "logit_scale": "1x2,.6x2"},
    ],
)
def test_groups_of_one_count_keep_a_threshold_of_their_own(terms):
    """Each is where certified solves on either side say that its classes merge."""
    base = problem(counts="30x4", **terms)
    ((point,),) = (row["points"] for row in run_grid(Grid(base, {"weight_decay": [1e-3]})))
    places = [group["threshold"] for group in point["groups"]]
    assert len(set(places)) == 2
    for group, place in enumerate(places):
        below, above = (
            tf.solve(base.replace(weight_decay=place * f, feature_decay=place * f))
            for f in (0.999, 1.001)
        )
        assert below.blocks.within[group] > 0 == above.blocks.within[group]


def test_counts_can_be_the_path():
    (row,) = run_grid(make(sweep={"counts": COUNTS}, rows=()))
    assert [point["problem"]["counts"] for point in row["points"]] == COUNTS
    totals = [closed.ends(problem(counts=counts)).total_collapse for counts in COUNTS]
    assert [point["total_collapse"] for point in row["points"]] == pytest.approx(totals)


def test_a_cluster_and_processes_give_the_same_rows(cluster, tmp_path):
    here = untimed(run_grid(make()))
    steps = []
    there = run_grid(
        make(),
        tmp_path / "grid",
        scheduler=cluster.scheduler_address,
        progress=lambda *step: steps.append(step),
    )
    assert steps == [(done, 4) for done in range(5)]
    for rows in (untimed(there), untimed(run_grid(make(), jobs=2))):
        assert [row["counts"] for row in rows] == COUNTS
        for row, other in zip(rows, here, strict=True):
            for point, same in zip(row["points"], other["points"], strict=True):
                assert point["groups"] == [
                    group | {"margin": pytest.approx(group["margin"], abs=1e-6)}
                    for group in same["groups"]
                ]
                assert point["objective"] == pytest.approx(same["objective"], rel=1e-10)


def test_points_that_did_not_converge_are_said():
    rows = run_grid(make(rows=["60,20,9,4", "30x3"], max_iterations=1, tol=1e-12))
    assert [point["status"] for point in rows[1]["points"]] == ["optimal"] * 3
    stopped = [p["lambda"] for p in rows[0]["points"] if p["status"] == "not_converged"]
    assert stopped
    (sentence,) = shortfalls(rows)
    assert sentence == (
        f"row 0 (60,20,9,4): {len(stopped)} of 3 points did not converge, the first at lambda = "
        f"{stopped[0]:.6g}"
    )


# -- the folder ------------------------------------------------------------------------------------


def test_an_interrupted_grid_is_kept_and_resumed(tmp_path, calls):
    whole = untimed(run_grid(make()))
    calls.clear()
    calls.raising = {COUNTS[2]: KeyboardInterrupt()}
    out = tmp_path / "grid"
    with pytest.raises(KeyboardInterrupt):
        run_grid(make(), out)
    assert calls == COUNTS[:3]
    assert sorted(path.name for path in (out / "rows").iterdir()) == ["00000.json", "00001.json"]
    assert set(pd.read_csv(out / "points.csv")["row"]) == {0, 1}
    assert len(pd.read_parquet(out / "points.parquet")) == len(pd.read_csv(out / "points.csv"))

    calls.clear()
    calls.raising = {}
    steps = []
    rows = run_grid(make(), out, resume=True, progress=lambda *step: steps.append(step))
    assert calls == COUNTS[2:]
    assert steps == [(2, 4), (3, 4), (4, 4)]
    assert untimed(rows) == whole
    assert set(pd.read_csv(out / "points.csv")["row"]) == {0, 1, 2, 3}

    calls.clear()
    assert untimed(run_grid(make(), out, resume=True)) == whole
    assert calls == []
    assert read_grid(out).to_dict() == make().to_dict()


def test_a_folder_of_something_else_is_refused(tmp_path, calls):
    out = tmp_path / "grid"
    run_grid(make(), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    calls.clear()
    with pytest.raises(ValueError, match="already holds a grid; resume it or name another folder"):
        run_grid(make(), out)
    for changes, key in (
        ({"tol": 1e-6}, "tol is 1e-08 there, 1e-06 here"),
        ({"rows": COUNTS[:2]}, "rows is "),
        ({"sweep": {"weight_decay": [1e-3]}}, "sweep is "),
        ({"problem": problem(bias="free")}, "problem is "),
    ):
        with pytest.raises(ValueError, match=rf"a grid with another configuration \({key}"):
            run_grid(make(**changes), out, resume=True)
    assert calls == []
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(ValueError, match="not an empty folder and holds no grid"):
            run_grid(make(), other, resume=resume)
    assert os.listdir(other) == ["notes.txt"]
    with pytest.raises(ValueError, match="holds no grid"):
        read_grid(other)
    with pytest.raises(ValueError, match="resume: given without out"):
        run_grid(make(), resume=True)


def test_damaged_rows_are_solved_again(tmp_path, calls):
    out = tmp_path / "grid"
    whole = untimed(run_grid(make(), out))
    files = sorted((out / "rows").iterdir())
    good = [path.read_text() for path in files]
    changed = json.loads(good[3])
    changed["points"][0]["groups"][0]["margin"] += 1
    for damage in (good[3][:100], "{}", "[1]", "", good[1], json.dumps(changed)):
        files[3].write_text(damage)
        calls.clear()
        assert untimed(run_grid(make(), out, resume=True)) == whole
        assert calls == [COUNTS[3]]
    # A row of another grid is not one of this.
    run_grid(make(tol=1e-4), tmp_path / "rough")
    (tmp_path / "rough" / "rows" / "00001.json").replace(files[1])
    calls.clear()
    assert untimed(run_grid(make(), out, resume=True)) == whole
    assert calls == [COUNTS[1]]
    (out / "grid.json").write_text("{")
    with pytest.raises(ValueError, match=r"grid\.json: not a JSON file"):
        run_grid(make(), out, resume=True)


def test_a_failed_row_is_kept_with_its_reason_and_tried_again(tmp_path, calls):
    calls.raising = {COUNTS[1]: ValueError("counts: too odd"), COUNTS[3]: MemoryError("no room")}
    out = tmp_path / "grid"
    rows = run_grid(make(), out)
    assert [row["status"] for row in rows] == ["done", "failed", "done", "failed"]
    assert rows[1]["points"] == []
    assert shortfalls(rows) == [
        "row 1 (60,20,9,4) failed: counts: too odd",
        "row 3 (40x2,10x3,7) failed: MemoryError: no room",
    ]
    table = pd.read_parquet(out / "points.parquet")
    failed = table[table["status"] == "failed"]
    assert failed["row"].tolist() == [1, 3]
    assert failed["reason"].tolist() == ["counts: too odd", "MemoryError: no room"]
    calls.raising = {}
    calls.clear()
    assert shortfalls(run_grid(make(), out, resume=True)) == []
    assert calls == [COUNTS[1], COUNTS[3]]


def test_the_table_has_a_line_a_point_and_group(tmp_path):
    rows = run_grid(make(), tmp_path)
    with open(tmp_path / "points.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    expected = [
        (row["row"], i, g, group["count"], group["margin"], point["objective"], point["lambda"])
        for row in rows
        for i, point in enumerate(row["points"])
        for g, group in enumerate(point["groups"])
    ]
    assert len(expected) == 3 * (2 + 4 + 1 + 3)
    numbers = ("row", "point", "group", "count", "margin", "objective", "lambda")
    assert [tuple(float(line[name]) for name in numbers) for line in lines] == expected
    table = pd.read_parquet(tmp_path / "points.parquet")
    assert table.columns.tolist() == list(lines[0])
    assert [tuple(line) for line in table[list(numbers)].itertuples(index=False)] == expected
    assert table["collapsed"].tolist() == [line["collapsed"] == "True" for line in lines]
    kinds = {table[name].dtype.name for name in ("row", "rank", "margin", "collapsed")}
    assert kinds == {"Int64", "Float64", "boolean"}


def test_several_layers_have_a_column_each(tmp_path):
    grid = make(
        problem=problem(loss="mse", depth=2), sweep={"weight_decay": [(1e-3, 2e-3), (3e-3, 1e-3)]}
    )
    run_grid(grid, tmp_path)
    table = pd.read_parquet(tmp_path / "points.parquet")
    first = table[(table["row"] == 0) & (table["group"] == 0)]
    assert first["weight_decay_1"].tolist() == [1e-3, 3e-3]
    assert first["weight_decay_2"].tolist() == [2e-3, 1e-3]
    assert first["lambda"].tolist() == pytest.approx([(4e-9) ** (1 / 3), (6e-9) ** (1 / 3)])
    found = closed.ends(grid.problem.replace(counts=grid.rows[0])).groups[0].logit_decay
    assert first["threshold"].tolist() == pytest.approx([found] * 2)


def test_the_table_needs_no_pandas(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    run_grid(make(), tmp_path)
    assert (tmp_path / "points.csv").stat().st_size > 1000
    assert not (tmp_path / "points.parquet").exists()


def test_what_nothing_covers_is_refused_before_a_folder_is_made(tmp_path):
    uncovered = problem(features="nonnegative", depth=2)
    with pytest.raises(ValueError, match="problem: non-negative features"):
        run_grid(make(problem=uncovered), tmp_path / "grid")
    for options in ({"jobs": 0}, {"scheduler": "nowhere"}):
        with pytest.raises(ValueError, match=r"jobs|scheduler"):
            run_grid(make(), tmp_path / "grid", **options)
    assert not (tmp_path / "grid").exists()


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run_grid(make(), tmp_path / "file" / "grid")
    with pytest.raises(ValueError, match="not an empty folder"):
        run_grid(make(), tmp_path / "file")
    out = tmp_path / "grid"
    run_grid(make(), out)
    (out / "rows").rename(out / "kept")
    (out / "rows").write_text("in the way")
    with pytest.raises(OSError, match="rows"):
        run_grid(make(), out, resume=True)
    if os.geteuid():  # root may write anywhere
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(PermissionError):
            run_grid(make(), locked / "grid")
