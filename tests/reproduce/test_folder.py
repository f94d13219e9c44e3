"""The folder of a reproduction: what is run, kept, judged, and gone on with after anything."""

import dataclasses
import json
import os
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tests import processes
from tests.reproduce.toy_paper import BAD, DECAYS, GOOD, SHARED, problem
from tightframe.problem.problem import Problem
from tightframe.reproduce import folder as module
from tightframe.reproduce import spec
from tightframe.reproduce.folder import load_reproduction, reproduce
from tightframe.reproduce.spec import Task
from tightframe.reproduce.tasks import cosine_columns, run_task, seeded
from tightframe.runs.config import RunConfig
from tightframe.runs.devices import train_apart
from tightframe.runs.limit import TimeIsUp


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(spec, "papers", lambda: GOOD)


@pytest.fixture
def calls(monkeypatch):
    """Record which tasks are run."""
    made = []

    def counted(**task):
        made.append(task)
        return run_task(**task)

    monkeypatch.setattr(module, "run_task", counted)
    return made


def contents(out):
    """Every verdict and row of a folder, without times."""
    found = {}
    for record in load_reproduction(out).figures:
        rows = record.results.drop(columns=["seconds"], errors="ignore")
        found[record.name] = (record.verdicts, record.failed, rows.to_json())
    return found


# -- a whole run -----------------------------------------------------------------------------------


def test_a_reproduction_keeps_everything(tmp_path, calls):
    out, seen, steps = tmp_path / "out", [], []
    records = reproduce(
        "all", out, on_figure=seen.append, progress=lambda *step: steps.append(step)
    )
    assert [record.name for record in records] == ["toy/rank", "toy/again"]
    assert [record.name for record in seen] == ["toy/again", "toy/rank"]  # as they are ready
    assert all(record.finished and not record.shortfalls for record in records)
    assert records[0].verdicts[0].outcome == "reproduced"
    assert len(calls) == 2  # the figures share one of their three tasks
    assert [step[:2] for step in steps] == [(0, 2), (1, 2), (2, 2)]
    rows = records[0].results
    alone = tf.solve(Problem(**problem(DECAYS[1])))
    mine = rows[(rows["what"] == "all") & (rows["row"] == 1)].iloc[0]
    assert mine["objective"] == pytest.approx(alone.objective, rel=1e-12)
    assert mine["group1_margin"] == pytest.approx(alone.group_margins[1])
    assert mine["group1_threshold"] == pytest.approx(5**0.5 / 160)
    record = json.loads((out / "reproduce.json").read_text())
    assert record["config"] == {"scale": "smoke", "seed": 0, "device": "cpu"}
    assert len(record["config_hash"]) == 16
    assert record["environment"]["versions"]["numpy"] == np.__version__
    assert record["environment"]["versions"]["tightframe"] == tf.__version__
    assert set(record["figures"]) == {"toy/rank", "toy/again"}
    result = json.loads((out / "tasks" / SHARED.hash / "result.json").read_text())
    assert (result["status"], result["arguments"]) == ("done", SHARED.arguments)
    assert result["seconds"] > 0
    assert [type(panel).__name__ for panel in records[0].panels][:2] == ["Chart", "HeatMaps"]


def test_rows_say_where_they_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(spec, "papers", lambda: BAD)
    out = tmp_path / "out"
    rows = {r.name: r for r in reproduce("all", out, seed=3)}["toy/broken"].results
    assert rows["status"].tolist() == ["optimal", "failed"]
    record = json.loads((out / "reproduce.json").read_text())
    assert set(rows["config_hash"]) == {record["config_hash"]}
    assert rows["task_hash"].nunique() == 2
    assert set(rows["base_seed"]) == {3}
    assert set(rows["device"]) == {"cpu"}
    assert set(rows["commit"].where(rows["commit"].notna(), None)) == {module.source_commit()}
    for versions in rows["versions"]:
        assert json.loads(versions) == record["environment"]["versions"]
    # A task is kept with what it was run with, whatever judges it later.
    file = out / "tasks" / rows["task_hash"][0] / "result.json"
    result = json.loads(file.read_text())
    result["environment"]["commit"] = "older"
    file.write_text(json.dumps(result))
    rows = {r.name: r for r in reproduce("all", out, seed=3, resume=True)}["toy/broken"].results
    assert rows["commit"][0] == "older" != rows["commit"][1]


def test_the_commit_is_that_of_the_sources():
    try:
        command = ["git", "-C", os.path.dirname(tf.__file__), "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not in a git tree")
    assert module.source_commit().removesuffix("-dirty") == found.stdout.strip()


def test_a_finished_folder_is_only_judged_again(tmp_path, calls):
    first = reproduce("all", tmp_path / "out")
    calls.clear()
    (tmp_path / "out/figures/toy/rank/verdicts.json").unlink()
    again = reproduce("all", tmp_path / "out", resume=True)
    assert calls == []
    assert [r.to_dict() for r in again] == [r.to_dict() for r in first]


@pytest.mark.parametrize("name", ["result.json", "rows.parquet", "history.parquet", "arrays.npz"])
def test_a_damaged_or_missing_task_is_run_again(tmp_path, calls, name):
    out = tmp_path / "out"
    reproduce("toy/rank", out)
    before = contents(out)
    calls.clear()
    file = out / "tasks" / SHARED.hash / name
    if name == "arrays.npz":
        file.unlink()
    else:
        file.write_bytes(b"PAR1 no table")
    reproduce("toy/rank", out, resume=True)
    assert [call["arguments"] for call in calls] == [SHARED.arguments]
    assert contents(out) == before


def test_figures_can_be_added_and_the_others_stay(tmp_path, calls):
    out = tmp_path / "out"
    reproduce("toy/rank", out)
    calls.clear()
    reproduce(["toy/again"], out, resume=True)
    assert calls == []  # its only task had been run for the other figure
    assert [record.name for record in load_reproduction(out).figures] == ["toy/rank", "toy/again"]


def test_another_configuration_is_refused(tmp_path):
    out = tmp_path / "out"
    reproduce("toy/rank", out)
    for options, message in (
        ({}, "already holds a reproduction"),
        ({"resume": True, "seed": 1}, "another configuration .seed is 0 there, 1 here"),
        ({"resume": True, "scale": "cpu"}, "scale is 'smoke' there, 'cpu' here"),
    ):
        with pytest.raises(ValueError, match=message):
            reproduce("toy/rank", out, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "huge"}, "scale: got 'huge', allowed are smoke, cpu, paper"),
        ({"seed": -1}, "seed: got -1"),
        ({"seed": 2**62}, "seed: got 4611686018427387904, need a whole number below"),
        ({"device": "tpu"}, "device: got 'tpu', allowed are cpu, gpu, auto"),
        ({"jobs": 0}, "jobs: got 0"),
        ({"devices": 0}, "devices: got 0"),
        ({"devices": 2, "jobs": 2}, "devices: got 2, need 1 with several jobs"),
        ({"data_root": "/nowhere"}, "data_root: /nowhere is no folder"),
        ({"data_root": "~nobody-here/x"}, "data_root: got '~nobody-here/x', but there is no such"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        reproduce("toy", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_processes_give_the_same_numbers(tmp_path):
    reproduce("all", tmp_path / "one")
    reproduce("all", tmp_path / "two", jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


# -- what goes wrong -------------------------------------------------------------------------------


def test_failures_are_rows_and_verdicts_say_so(tmp_path, monkeypatch, calls):
    monkeypatch.setattr(spec, "papers", lambda: BAD)
    out = tmp_path / "out"
    records = {record.name: record for record in reproduce("all", out)}
    broken = records["toy/broken"]
    (failure,) = broken.failed
    assert failure["task"] == "solve (what bad)"
    assert failure["reason"].startswith("feature_decay: got -1")
    table = broken.results
    assert table["status"].tolist() == ["optimal", "failed"]
    assert table["reason"].tolist()[1] == failure["reason"]
    assert broken.verdicts[0].sentence == "It ran. (1 of 2 runs of this figure failed.)"
    assert len(broken.shortfalls) == 1
    mistaken = records["toy/mistaken"]
    assert mistaken.verdicts[0].outcome == "not reproduced"
    assert "a mistake in the module" in mistaken.verdicts[0].sentence
    assert mistaken.error == "judging failed: RuntimeError: a mistake in the module"
    assert mistaken.shortfalls
    assert records["toy/rank"].verdicts[0].outcome == "reproduced"  # the others are not touched
    calls.clear()
    reproduce("all", out, resume=True)
    assert [call["arguments"]["problems"][0]["feature_decay"] for call in calls] == [-1.0]


def test_without_its_runs_a_claim_is_undecided(tmp_path, monkeypatch):
    def crash(**task):
        raise MemoryError("no room")

    monkeypatch.setattr(module, "run_task", crash)
    (record,) = reproduce("toy/again", tmp_path / "out")
    (found,) = record.verdicts
    assert found.outcome == "undecided"
    assert found.sentence == (
        "Undecided: 6 of 6 runs failed (solve (what all): MemoryError: no room)."
    )
    assert found.to_dict()["measured"] is None
    assert record.error is None
    assert len(record.failed) == 1


def test_a_mistake_beside_failed_runs_is_told(tmp_path, monkeypatch):
    def crash(**task):
        raise MemoryError("no room")

    monkeypatch.setattr(module, "run_task", crash)
    monkeypatch.setattr(spec, "papers", lambda: BAD)
    (record,) = reproduce("toy/mistaken", tmp_path / "out")
    assert [v.outcome for v in record.verdicts] == ["undecided"]
    assert record.error == "judging failed: RuntimeError: a mistake in the module"
    assert len(record.failed) == 1


def test_an_interrupted_folder_tells_how_far_it_came(tmp_path, calls):
    def stop(done, total, name):
        if done == 1:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        reproduce("all", out, progress=stop)
    rank, _ = load_reproduction(out).figures
    assert (rank.finished, rank.num_done, rank.num_tasks) == (False, 1, 2)
    assert rank.about["title"] == "Title of rank"
    calls.clear()
    reproduce("all", out, resume=True)
    assert len(calls) == 1
    reproduce("all", tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def _die_before(last, out):
    """Reproduce until a file of that name is to be written."""
    spec.papers = lambda: GOOD
    write = module.write_json

    def killing(path, value):
        if path.name == last:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, value)

    module.write_json = killing
    reproduce("all", out, resume=True)


def test_kill_minus_nine_and_resume(tmp_path):
    """Killed between a task's tables and its result, then between a figure's tables and verdict."""
    out = tmp_path / "out"
    for last in ("result.json", "verdicts.json"):
        assert processes.run(_die_before, last, out) == -signal.SIGKILL
        assert not any(record.finished for record in load_reproduction(out).figures)
    reproduce("all", out, resume=True)
    reproduce("all", tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_verdict_on_other_tasks_is_out_of_date(tmp_path):
    out = tmp_path / "out"
    reproduce("toy/rank", out)
    file = out / "reproduce.json"
    record = json.loads(file.read_text())
    record["figures"]["toy/rank"]["tasks"][0] = "0" * 16
    file.write_text(json.dumps(record))
    (figure,) = load_reproduction(out).figures
    assert (figure.finished, figure.num_done) == (False, 1)


def test_a_damaged_figure_is_named(tmp_path):
    out = tmp_path / "out"
    reproduce("toy/rank", out)
    file = out / "figures/toy/rank/verdicts.json"
    stored = json.loads(file.read_text())
    del stored["verdicts"]
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="figures/toy/rank: not the record of a figure"):
        load_reproduction(out)
    with pytest.raises(ValueError, match="holds no reproduction"):
        load_reproduction(tmp_path)


# -- tasks -----------------------------------------------------------------------------------------


def test_seed_and_device_become_part_of_the_task():
    ufm = seeded(Task("ufm", {"problems": [], "seeds": [0, 2]}), 5, "auto")
    assert (ufm.arguments["seeds"], ufm.arguments["device"]) == ([5, 7], "auto")
    network = seeded(Task("network", {"config": {"seed": 1}}, {"what": "n"}), 5, "gpu")
    assert network.arguments["config"] == {"seed": 6, "device": "gpu"}
    assert network.labels == {"what": "n"}
    assert seeded(SHARED, 0, "cpu") == SHARED
    assert seeded(SHARED, 3, "cpu").arguments["seed"] == 3


def test_a_path_task_gives_the_rows_of_its_points():
    decays = [1e-3, 2e-3, 2e-2]
    output = run_task("path", {"problem": problem(1e-3), "sweep": {"weight_decay": decays}}, "")
    expected = tf.path(Problem(**problem(1e-3)), weight_decay=decays)
    assert [row["weight_decay"] for row in output.rows] == decays
    assert [row["objective"] for row in output.rows] == pytest.approx(list(expected.objective))
    assert [row["rank"] for row in output.rows] == list(expected.rank)


def test_groups_of_equal_count_have_columns_of_their_own():
    given = {**problem(1e-3), "counts": "4x4", "class_weights": "1x2,3x2"}
    row = run_task("solve", {"problems": [given]}, "").rows[0]
    solution = tf.solve(Problem(**given))
    limits = [group.logit_decay for group in tf.thresholds(Problem(**given)).groups]
    for g, weight in enumerate((1, 3)):
        assert row[f"group{g}_count"] == 4
        assert row[f"group{g}_class_weight"] == weight
        assert row[f"group{g}_threshold"] == limits[g] == pytest.approx(weight * 2 / 16)
        assert row[f"group{g}_margin"] == pytest.approx(solution.group_margins[g])
    plain = run_task("solve", {"problems": [problem(1e-3)]}, "").rows[0]
    assert not [name for name in plain if "class_weight" in name or "adjustment" in name]


def test_unknown_arguments_are_refused():
    with pytest.raises(ValueError, match=r"arguments: of a solve task: .*'colour'"):
        run_task("solve", {"problems": [problem(1e-3)], "colour": 1}, "")


@given(st.integers(0, 10**6), st.sampled_from(["4x2,2x3", "7x1,3x2,1x1", "5x4"]))
def test_cosines_are_means_over_pairs_of_classes(seed, counts):
    z = np.random.default_rng(seed).normal(size=(Problem(counts, **ANY).num_classes,) * 2)
    given_problem = Problem(counts, **ANY)
    groups = given_problem.class_groups
    expected = {}
    for i in range(len(given_problem.groups)):
        for j in range(i, len(given_problem.groups)):
            pairs = [
                z[:, k] @ z[:, m] / np.sqrt(z[:, k] @ z[:, k]) / np.sqrt(z[:, m] @ z[:, m])
                for k in np.flatnonzero(groups == i)
                for m in np.flatnonzero(groups == j)
                if k != m
            ]
            if pairs:
                expected[f"cosine_{i}_{j}"] = np.mean(pairs)
    assert cosine_columns(given_problem, z) == pytest.approx(expected, abs=1e-12)


ANY = {"weight_decay": 1.0, "feature_decay": 1.0}


def test_ufm_runs_reach_the_solution_and_divergence_is_a_row():
    given_problem = {**problem(5e-3), "bias": "decayed", "bias_decay": 0.02}
    options = {"seeds": [0, 1], "dim": 6, "per_sample": False, "arrays": True}
    options |= {"lr": 5.0, "iterations": 3000}
    output = run_task("ufm", {"problems": [given_problem, problem(1e-3)], **options}, "")
    assert [row["seed"] for row in output.rows] == [0, 1, 0, 1]
    for i, row in enumerate(output.rows):
        solution = tf.solve(Problem(**[given_problem, problem(1e-3)][i // 2]))
        assert row["lambda"] == solution.problem.logit_decay
        assert row["status"] in ("converged", "stopped")
        assert row["objective"] == pytest.approx(solution.objective, abs=1e-6)
        assert row["group1_margin"] == pytest.approx(solution.group_margins[1], abs=0.02)
        assert row["group1_predicted_margin"] == pytest.approx(solution.group_margins[1])
        z, bias = output.arrays[f"logits_{i}"], output.arrays[f"bias_{i}"]
        scores = z + bias[:, None]
        naive = np.mean([scores[k, k] - scores[j, k] for k, j in ((3, 4), (4, 3))])
        assert row["group1_margin"] == pytest.approx(naive)
        assert output.arrays[f"predicted_logits_{i}"] == pytest.approx(solution.logits)
        assert np.linalg.norm(bias) > 0 if i < 2 else not bias.any()
    history = pd.DataFrame(output.history)
    assert sorted(set(history["row"])) == [0, 1, 2, 3]
    output = run_task("ufm", {"problems": [problem(5e-3)], **options, "lr": 1e9}, "")
    assert [row["status"] for row in output.rows] == ["failed", "failed"]
    assert output.rows[0]["reason"].startswith("diverged: ")
    assert output.arrays == {}


def test_a_network_goes_on_in_its_folder(tmp_path):
    config = {"counts": "12x5,4x5", "settings": [[2e-2, 2e-4]], "epochs": 4, "measure_every": 2}
    config |= {"hidden": [8], "bias": "decayed", "bias_decay": 0.02}
    first = run_task("network", {"config": config, "arrays": True}, str(tmp_path))
    (row,) = first.rows
    assert row["status"] == "trained"
    assert row["loss"] == "cross_entropy"
    assert row["data_loss"] > 0
    assert row["epoch"] == 4
    assert [record["epoch"] for record in first.history] == [0, 2, 4]
    final = next((tmp_path / "run").rglob("final.npz"))
    with np.load(final) as stored:
        assert first.arrays["logits_0"] == pytest.approx(stored["logits"])
        assert first.arrays["bias_0"] == pytest.approx(stored["bias"])
    again = run_task("network", {"config": config, "arrays": True}, str(tmp_path))
    assert again.rows == first.rows  # seconds too: nothing was trained
    with pytest.raises(ValueError, match="colour"):
        run_task("network", {"config": {"colour": 1}}, str(tmp_path / "other"))


def test_missing_data_are_found_out_before_anything_runs(tmp_path, monkeypatch, calls):
    network = Task("network", {"config": {"data": str(tmp_path / "none.npz")}}, {"what": "n"})
    figure = GOOD["toy"].figures[0]
    figure = dataclasses.replace(figure, tasks=lambda scale: [SHARED, network])
    paper = dataclasses.replace(GOOD["toy"], figures=(figure,))
    monkeypatch.setattr(spec, "papers", lambda: {"toy": paper})
    with pytest.raises(ValueError, match=r"none\.npz"):
        reproduce("toy", tmp_path / "out")
    assert not calls


# -- a limit ---------------------------------------------------------------------------------------


def test_at_the_limit_no_task_begins_and_resumed_all_is_done(tmp_path, monkeypatch, calls):
    out, answers = tmp_path / "out", iter([False, True])
    monkeypatch.setattr(module, "is_over", lambda until: next(answers))
    rank, again = reproduce("all", out, limit="15m")
    assert len(calls) == 1
    assert (rank.finished, rank.num_done, rank.num_tasks) == (False, 1, 2)
    assert again.finished  # its one task was the first
    assert 0 < calls[0]["until"] - time.time() <= 900
    monkeypatch.undo()
    monkeypatch.setattr(spec, "papers", lambda: GOOD)
    reproduce("all", out, resume=True)
    reproduce("all", tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_limit_that_is_over_leaves_everything(tmp_path, monkeypatch, jobs):
    monkeypatch.setattr(module, "seconds_of", lambda limit: -1.0)
    records = reproduce("all", tmp_path / "out", limit="1s", jobs=jobs)
    assert [record.num_done for record in records] == [0, 0]


def test_a_network_that_was_left_at_the_limit_goes_on(tmp_path, monkeypatch):
    config = {"counts": "6x10", "epochs": 4, "measure_every": 2, "settings": [[1e-2, 1e-3]]}
    network = Task("network", {"config": config}, {"what": "n"})
    figure = dataclasses.replace(GOOD["toy"].figures[0], tasks=lambda scale: [network])
    paper = dataclasses.replace(GOOD["toy"], figures=(figure,))
    monkeypatch.setattr(spec, "papers", lambda: {"toy": paper})
    answers = iter([False, False, True])
    monkeypatch.setattr("tightframe.runs.train.is_over", lambda until: next(answers))
    (record,) = reproduce("toy", tmp_path / "out", limit=60)
    assert not record.finished
    folder = tmp_path / "out/tasks" / seeded(network, 0, "cpu").hash
    assert not (folder / "result.json").exists()
    assert list((folder / "run").rglob("*.ckpt"))
    (record,) = reproduce("toy", tmp_path / "out", resume=True)
    assert (record.finished, record.num_done, record.failed) == (True, 1, ())
    assert record.results["epoch"].tolist() == [4]


@pytest.mark.slow  # starts two programs
def test_two_devices_train_a_network_task(tmp_path):
    config = {"counts": "6x10", "epochs": 4, "measure_every": 2, "settings": [[1e-2, 1e-3]]}
    one, two = (
        run_task("network", {"config": config}, str(tmp_path / str(n)), devices=n) for n in (1, 2)
    )
    record = json.loads((tmp_path / "2" / "run" / "run.json").read_text())
    assert record["environment"]["devices"] == 2
    assert two.rows[0]["objective"] == pytest.approx(one.rows[0]["objective"], rel=1e-6)


@pytest.mark.slow  # starts three programs
def test_two_devices_stop_at_the_limit_and_go_on(tmp_path):
    config = {"counts": "6x10", "epochs": 4, "measure_every": 2, "settings": [[1e-2, 1e-3]]}
    with pytest.raises(TimeIsUp):
        run_task("network", {"config": config}, str(tmp_path / "2"), devices=2, until=0.0)
    (checkpoint,) = (tmp_path / "2").rglob("*.ckpt")
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 0
    two = run_task("network", {"config": config}, str(tmp_path / "2"), devices=2)
    one = run_task("network", {"config": config}, str(tmp_path / "1"))
    assert two.rows[0]["objective"] == pytest.approx(one.rows[0]["objective"], rel=1e-6)


def test_what_another_program_says_last_is_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(RunConfig, "to_dict", lambda config: {"colour": "blue"})
    with pytest.raises(ValueError, match="colour"):
        train_apart(RunConfig(), tmp_path / "run")


@pytest.mark.slow  # starts a program that loads Lightning
def test_what_another_program_misses_is_the_reason(tmp_path):
    config = RunConfig(data=str(tmp_path / "none.npz"), devices=2)
    with pytest.raises(ValueError, match=r"none\.npz"):
        train_apart(config, tmp_path / "run")
