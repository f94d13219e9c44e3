"""`tightframe path`: grids from the shell, and what becomes of them when something goes wrong."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest

import tightframe as tf
from tightframe.sweeps import grid as grid_module

COUNTS = ["--counts", "500x5,100x5"]
PATH = ["path", *COUNTS, "--lambda", "1e-3:2e-2:6"]
PHASES = ["path", "--ratios", "1:30:4", "--classes", "6", "--minority", "12"]
PHASES += ["--lambda", "1e-3:5e-2:5"]


@pytest.fixture
def result(command):
    """Run the command with --json; return its one object after checking that it succeeded."""

    def run(*arguments):
        code, out, err = command(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


def values(result, name):
    return [[point["problem"][name] for point in row["points"]] for row in result["rows"]]


def untimed(result):
    rows = json.loads(json.dumps(result["rows"]))
    for row in rows:
        for point in row["points"]:
            del point["seconds"]
    return rows


def test_json_is_one_object_with_every_point(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = result(*PATH)
    (row,) = found["rows"]
    assert (row["counts"], row["status"]) == ("500x5,100x5", "done")
    decays = np.geomspace(1e-3, 2e-2, 6)
    assert [point["lambda"] for point in row["points"]] == pytest.approx(decays)
    for decay, point in zip(decays, row["points"], strict=True):
        one = tf.solve(tf.Problem("500x5,100x5", weight_decay=decay, feature_decay=decay))
        assert point["objective"] == pytest.approx(one.objective, rel=2e-8)
        assert point["rank"] == one.rank
        assert [group["threshold"] for group in point["groups"]] == pytest.approx(
            [500**0.5 / 3000, 1 / 300]
        )
    assert found["out"] is None
    assert list(tmp_path.iterdir()) == []  # without --out nothing is written


def test_decays_are_numbers_lists_or_ranges(result):
    found = result("path", *COUNTS, "--weight-decay", "1e-3,5e-3", "--feature-decay", "1e-3")
    assert values(found, "weight_decay") == [[1e-3, 5e-3]]
    assert values(found, "feature_decay") == [[1e-3, 1e-3]]
    both = ["--weight-decay", "1e-3:4e-3:3", "--feature-decay", "4e-3:1e-3:3"]
    found = result("path", *COUNTS, *both)
    assert values(found, "weight_decay")[0] == pytest.approx([1e-3, 2e-3, 4e-3])
    assert [point["lambda"] for point in found["rows"][0]["points"]] == pytest.approx([2e-3] * 3)
    bias = ["--bias", "decayed", "--bias-decay", "0.01:1:3"]
    found = result("path", *COUNTS, "--lambda", "2e-3", *bias)
    assert values(found, "bias_decay")[0] == pytest.approx([0.01, 0.1, 1])
    layers = ["--depth", "2", "--loss", "mse", "--weight-decay", "1e-3/2e-3,2e-3/1e-3"]
    found = result("path", "--counts", "20,10", *layers, "--feature-decay", "1e-3")
    assert values(found, "weight_decay") == [[[1e-3, 2e-3], [2e-3, 1e-3]]]
    deep = tf.Problem("20,10", "mse", depth=2, weight_decay=(1e-3, 2e-3), feature_decay=1e-3)
    point = found["rows"][0]["points"][0]
    assert point["total_collapse"] == pytest.approx(tf.thresholds(deep).total_collapse)
    found = result("path", "--counts", "20,10", *layers[:2], "--lambda", "0.1")  # cross-entropy
    point = found["rows"][0]["points"][0]
    assert point["total_collapse"] is None


def test_the_other_options_reach_the_problem(result):
    options = ["--loss", "mse", "--bias", "free", "--dim", "12", "--tol", "1e-6"]
    found = result("path", *COUNTS, "--lambda", "1e-3", *options)
    (point,) = found["rows"][0]["points"]
    assert tf.Problem(**point["problem"]) == tf.Problem(
        "500x5,100x5", "mse", weight_decay=1e-3, feature_decay=1e-3, bias="free", dim=12
    )
    assert found["grid"]["tol"] == 1e-6
    found = result("path", *COUNTS, "--lambda", "1e-3", "--features", "nonnegative")
    assert found["rows"][0]["points"][0]["collapse_kind"] == "vanish"


def test_class_weights_and_logit_adjustment(result, command, fails, tmp_path, monkeypatch):
    terms = ["--class-weights", "1x5,4x5", "--logit-adjustment", "0.5*prior"]
    found = result(*PATH, *terms)
    problem = tf.Problem(
        "500x5,100x5",
        weight_decay=1e-3,
        feature_decay=1e-3,
        class_weights="1x5,4x5",
        logit_adjustment="0.5*prior",
    )
    points = found["rows"][0]["points"]
    assert tf.Problem(**points[0]["problem"]) == problem
    expected = tf.solve(problem.replace(weight_decay=2e-2, feature_decay=2e-2))
    margins = [group["margin"] for group in points[-1]["groups"]]
    np.testing.assert_allclose(margins, expected.group_margins, atol=1e-4)
    monkeypatch.setenv("COLUMNS", "160")
    _, out, _ = command(*PATH, *terms[:2], "--out", tmp_path / "x")
    assert "5 of 100 with" in out
    table = pd.read_csv(tmp_path / "x" / "points.csv")
    assert table.class_weight.tolist() == [1.0, 4.0] * 6
    assert table.logit_adjustment.tolist() == [0.0] * 12
    more = ["--counts", "60x5,20x5"]
    assert "--class-weights: got '1x5,4x5', which belongs to one --counts" in fails(
        *PATH, *more, *terms
    )
    line = fails(*PHASES, "--feature-weights", "60x5,20x5")
    assert "--feature-weights: got '60x5,20x5', which belongs to one --counts" in line
    line = fails(*PHASES, *terms[2:])
    assert "--logit-adjustment: got '0.5*prior', which belongs to one --counts" in line


def test_every_counts_is_a_row_or_with_fixed_decays_a_point(result):
    more = ["--counts", "60,20,9,4"]
    found = result(*PATH, *more)
    assert [row["counts"] for row in found["rows"]] == ["500x5,100x5", "60,20,9,4"]
    found = result("path", *COUNTS, *more, "--lambda", "1e-3")
    assert values(found, "counts") == [["500x5,100x5", "60,20,9,4"]]


def test_a_phase_diagram(result, tmp_path):
    out = tmp_path / "phases"
    found = result(*PHASES, "--out", out, "--jobs", "2")
    diagram = found["phase_diagram"]
    assert diagram["counts"] == ["12x6", "37x3,12x3", "116x3,12x3", "360x3,12x3"]
    assert diagram["ratios"] == pytest.approx([1, 37 / 12, 116 / 12, 30])
    decays = np.geomspace(1e-3, 5e-2, 5)
    for ratio, row in zip(diagram["ratios"], diagram["minority_collapsed"], strict=True):
        threshold = 12**0.5 / (36 * (1 + ratio))
        assert row == [decay >= threshold for decay in decays]
    assert sorted(path.name for path in out.iterdir()) == [
        "grid.json",
        "phase.png",
        "points.csv",
        "points.parquet",
        "rows",
    ]
    assert found["pictures"] == [str(out / "phase.png")]
    options = ["--ratios", "2,4", "--classes", "4", "--majority", "40", "--fraction", "0.25"]
    found = result("path", *options, "--lambda", "1e-3")
    assert [row["counts"] for row in found["rows"]] == ["40x3,20", "40x3,10"]


def test_tables_for_people(command, tmp_path):
    code, out, err = command(*PATH, "--counts", "60,20,9,4", "--out", tmp_path / "x")
    assert (code, err) == (0, "")
    for words in ("500x5,100x5", "60,20,9,4", "threshold", "0.00333333", "vanished", "optimal"):
        assert words in out
    lines = out.splitlines()
    limit = next(i for i, line in enumerate(lines) if "merge" in line)
    assert "0.00331" in lines[limit - 1]
    assert "vanished" not in lines[limit - 1]
    assert "0.00603" in lines[limit + 1]
    assert "vanished" in lines[limit + 1]
    assert f"kept in {tmp_path / 'x'}" in out
    assert (tmp_path / "x" / "path.png").is_file()
    code, out, err = command("path", *COUNTS, "--counts", "9,5", "--lambda", "1e-2")
    assert (code, err) == (0, "")
    assert "group 2" in out
    code, out, err = command(*PHASES)
    assert (code, err) == (0, "")
    assert "0.0481125" in out  # sqrt(12) / 72
    many = ["--counts", "90,80,70,60,50,40,30"]
    assert "2 more groups" in command("path", *many, "--lambda", "1e-3")[1]


def test_points_that_did_not_converge_are_exit_code_3(command, monkeypatch, tmp_path):
    monkeypatch.setattr(grid_module, "path", functools.partial(grid_module.path, max_iterations=1))
    solve_row = grid_module.solve_row
    monkeypatch.setattr(
        grid_module, "solve_row", lambda **task: solve_row(**task | {"max_iterations": 1})
    )
    arguments = ["path", "--counts", "60,20,9,4", "--lambda", "1e-3,1", "--tol", "1e-12"]
    code, out, err = command(*arguments, "--json", "--out", tmp_path / "x")
    assert code == 3
    statuses = [point["status"] for point in json.loads(out)["rows"][0]["points"]]
    assert statuses == ["not_converged", "optimal"]
    assert err == (
        "tightframe: row 0 (60,20,9,4): 1 of 2 points did not converge, the first at lambda = "
        "0.001\n"
    )
    assert pd.read_csv(tmp_path / "x" / "points.csv")["status"].tolist()[0] == "not_converged"


def test_a_failed_row_is_exit_code_3_with_its_reason(command, tmp_path, monkeypatch):
    path = grid_module.path

    def failing(problem, **options):
        if problem.compact_counts == "9,5":
            raise ValueError("counts: the moon is full")
        return path(problem, **options)

    monkeypatch.setattr(grid_module, "path", failing)
    out = tmp_path / "x"
    code, text, err = command(*PATH, "--counts", "9,5", "--out", out)
    assert code == 3
    assert err == "tightframe: row 1 (9,5) failed: counts: the moon is full\n"
    assert "500x5,100x5" in text
    assert "the moon is full" in (out / "points.csv").read_text()
    monkeypatch.setattr(grid_module, "path", path)
    code, text, err = command("path", "--out", out, "--resume", "--json")
    assert (code, err) == (0, "")
    assert [row["status"] for row in json.loads(text)["rows"]] == ["done", "done"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lambda", "1e-3"], "--counts: missing; give --counts, or --ratios and --classes"),
        (COUNTS, "--weight-decay, --feature-decay: missing; give both decays, or --lambda"),
        ([], "--counts, --weight-decay, --feature-decay: missing"),
        ([*COUNTS, "--weight-decay", "1"], "--feature-decay: missing"),
        (
            [*COUNTS, "--lambda", "1", "--feature-decay", "1"],
            "--feature-decay: given with --lambda, which sets both decays",
        ),
        ([*COUNTS, "--lambda", "1", "--classes", "4"], "--ratios is missing"),
        ([*COUNTS, "--lambda", "1", "--ratios", "2"], "--counts: given with --ratios"),
        (["--lambda", "1", "--ratios", "2"], "--classes: missing; --ratios need it"),
        ([*COUNTS, "--lambda", "much"], "tightframe: --lambda: got 'much', need a number"),
        ([*COUNTS, "--lambda", "-1,2"], "tightframe: --lambda: got -1.0"),
        (
            ["--lambda", "1", "--ratios", "2", "--classes", "4"],
            "tightframe: --majority, --minority: give exactly",
        ),
        (
            [*COUNTS, "--weight-decay", "1,2,3", "--feature-decay", "1,2"],
            "tightframe: sweep: got 3 of weight_decay, 2 of feature_decay",
        ),
        ([*COUNTS, "--lambda", "1", "--scheduler", "here"], "--scheduler: no Dask scheduler"),
    ],
)
def test_bad_options_are_named_in_one_line_and_write_nothing(fails, tmp_path, arguments, message):
    """Those of the library in tests/sweeps and tests/test_parallel.py; here how they are told."""
    assert message in fails("path", *arguments, "--out", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_folders_of_something_else_are_refused(fails, command, tmp_path):
    out = tmp_path / "x"
    assert command(*PATH, "--out", out)[0] == 0
    assert "already holds a grid" in fails(*PATH, "--out", out)
    assert "another configuration (tol is " in fails(
        *PATH, "--out", out, "--resume", "--tol", "1e-5"
    )
    assert "--out: missing" in fails(*PATH, "--resume")
    (tmp_path / "file").write_text("")
    assert "not an empty folder" in fails(*PATH, "--out", tmp_path / "file")
    assert "file" in fails(*PATH, "--out", tmp_path / "file" / "x")
    code, _, err = command("path", "--out", tmp_path / "new", "--resume")
    assert code == 2
    assert "nothing to resume" in err
    assert "--counts, --weight-decay, --feature-decay: missing" in err
    code, _, err = command(*PATH, "--out", tmp_path / "new", "--resume")
    assert code == 0
    assert "nothing to resume" in err


def test_a_grid_on_a_cluster_outlives_a_killed_worker(cluster, result, tmp_path):
    rows = [option for n in range(20, 30) for option in ("--counts", f"400,120,{n},3")]
    grid = ["path", *rows, "--lambda", "1e-4:2e-2:10"]
    out, killed = tmp_path / "x", []

    def kill():
        while not list(out.glob("rows/*.json")):
            time.sleep(0.005)
        killed.append(next(iter(cluster.workers.values())).pid)
        os.kill(killed[0], signal.SIGKILL)
        killed.append(len(list(out.glob("rows/*.json"))))

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    there = result(*grid, "--out", out, "--scheduler", cluster.scheduler_address)
    assert killed[1] < 10  # in the middle of it
    here = result(*grid)
    assert [row["counts"] for row in there["rows"]] == [row["counts"] for row in here["rows"]]
    for row, same in zip(untimed(there), untimed(here), strict=True):
        for point, other in zip(row["points"], same["points"], strict=True):
            assert point["objective"] == pytest.approx(other["objective"], rel=1e-9)
            assert point["rank"] == other["rank"]
    assert len(list(out.glob("rows/*.json"))) == 10
    assert set(pd.read_parquet(out / "points.parquet")["row"]) == set(range(10))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_keeps_the_finished_rows(command, tmp_path, jobs):
    out = tmp_path / "x"
    # Too many rows to be finished before the signal.
    rows = [option for n in range(400) for option in ("--counts", f"4000,{900 + n},300,{9 + n},3")]
    arguments = ["path", *rows, "--lambda", "1e-4:2e-2:12", "--out", str(out), "--jobs", jobs]
    process = subprocess.Popen(
        [sys.executable, "-c", "from tightframe.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("rows/*.json"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert b"kept; go on with: tightframe path --out" in err
    files = {path: path.read_bytes() for path in (out / "rows").glob("0*.json")}
    assert 2 <= len(files) < 400
    table = pd.read_csv(out / "points.csv")
    assert {f"{row:05d}.json" for row in table["row"]} == {path.name for path in files}


def test_resume_solves_what_is_missing(result, tmp_path, monkeypatch):
    out = tmp_path / "x"
    arguments = [*PHASES, "--out", out]
    whole = result(*arguments)
    (out / "rows" / "00002.json").unlink()
    (out / "phase.png").unlink()
    solved, path = [], grid_module.path

    def counted(problem, **options):
        solved.append(problem.compact_counts)
        return path(problem, **options)

    monkeypatch.setattr(grid_module, "path", counted)
    again = result("path", "--out", out, "--resume")
    assert solved == ["116x3,12x3"]
    assert untimed(again) == untimed(whole)
    assert (out / "phase.png").is_file()
    assert untimed(result(*arguments, "--resume")) == untimed(whole)


def test_without_the_extras_the_numbers_are_still_there(tmp_path):
    blocked = ("torch", "lightning", "pandas", "pyarrow", "matplotlib", "joblib", "distributed")
    block = "; ".join(f"sys.modules[{name!r}] = None" for name in blocked)
    arguments = [*PHASES, "--out", str(tmp_path / "x")]
    code = f"import sys; {block}; from tightframe.cli import run_command; "
    code += f"print(run_command({arguments!r}), run_command({[*PATH, '--jobs', '2']!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "0 2", done.stderr
    assert "no picture, matplotlib is not installed" in done.stderr
    assert "joblib: not installed" in done.stderr
    assert (tmp_path / "x" / "points.csv").is_file()
    assert not (tmp_path / "x" / "points.parquet").exists()
