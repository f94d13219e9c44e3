"""The command's contract: one JSON object on stdout, exit codes, one-line errors."""

import functools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

import tightframe as tf
from tests import processes
from tightframe.cli import main, run_command

DECAYS = ["--weight-decay", "0.005", "--feature-decay", "0.001"]
SOLVE = ["solve", "--counts", "500x5,100x5", *DECAYS]


def _network(seed=0, counts=(6, 4, 5), dim=4, noise=0.1):
    """Features around class means, with a classifier that tells the classes apart."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    means = rng.normal(size=(len(counts), dim))
    features = means[labels] + noise * rng.normal(size=(len(labels), dim))
    return {
        "features": features.astype(np.float32),
        "labels": labels,
        "weight": means.astype(np.float32),
    }


# -- solve -----------------------------------------------------------------------------------------


def test_solve_json_has_the_contract(command):
    code, out, err = command(*SOLVE, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    needed = {
        "objective",
        "gap",
        "status",
        "method",
        "groups",
        "rank",
        "bias",
        "seconds",
        "problem",
    }
    assert needed <= result.keys()
    assert result["gap"] <= 1e-7
    assert result["status"] == "optimal"
    assert [group["collapsed"] for group in result["groups"]] == [False, False]
    assert [group["count"] for group in result["groups"]] == [500, 100]
    expected = tf.solve(tf.Problem("500x5,100x5", weight_decay=0.005, feature_decay=0.001))
    assert result["objective"] == expected.objective  # all digits
    assert tf.Problem(**result["problem"]) == expected.problem


def test_solve_json_above_the_minority_threshold(command):
    decays = ["--weight-decay", "0.02", "--feature-decay", "0.001"]
    code, out, _ = command("solve", "--counts", "500x5,100x5", *decays, "--json")
    groups = json.loads(out)["groups"]
    assert code == 0
    assert [(group["count"], group["collapsed"]) for group in groups] == [(500, False), (100, True)]
    assert groups[1]["margin"] == 0


def test_solve_prints_for_people(command):
    code, out, _ = command(*SOLVE)
    assert code == 0
    for word in ("margin", "distinct", "objective", "gap", "optimal", "rank 9"):
        assert word in out


def test_solve_writes_its_arrays(command, tmp_path):
    path = tmp_path / "new" / "solution.npz"
    code, _, _ = command(*SOLVE, "--out", path)
    assert code == 0
    with np.load(path, allow_pickle=False) as arrays:
        logits = arrays["weight_1"] @ arrays["class_means"]
        assert np.allclose(logits, arrays["logits"])
        assert arrays["bias"].shape == (10,)


def test_solve_with_several_layers(command):
    options = ["--loss", "mse", "--depth", "2", "--weight-decay", "1e-3,2e-3"]
    code, out, _ = command(
        "solve", "--counts", "20,10", *options, "--feature-decay", "1e-3", "--json"
    )
    assert code == 0
    assert json.loads(out)["problem"]["weight_decay"] == [1e-3, 2e-3]


def test_solve_says_what_nothing_certifies(command):
    options = ["--counts", "10x4", "--weight-decay", "3e-3", "--feature-decay", "3e-4"]
    options += ["--depth", "3", "--starts", "3", "--seed", "1"]
    code, out, err = command("solve", *options)
    assert (code, err) == (0, "")
    words = ("gap none", "local", "low-rank", "ETF", "closed form", "independent chains", "seed 1")
    for word in (*words, "Nothing certifies"):
        assert word in " ".join(out.split())
    code, out, _ = command("solve", *options, "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["status"], result["gap"]) == ("local", None)
    assert result["search"]["winner"] == "low-rank"
    assert [c["rank"] for c in result["search"]["candidates"]] == [2, 3, 1, 0]


def test_a_time_limit_keeps_the_result_and_is_exit_code_3(command):
    options = ["--counts", "60,20,9,4", *DECAYS, "--depth", "2", "--time-limit", "1e-9"]
    code, out, err = command("solve", *options, "--json")
    assert code == 3
    result = json.loads(out)
    assert (result["status"], result["search"]["stopped"]) == ("not_converged", "time limit")
    assert err.startswith("tightframe: warning: solve stopped its search early (time limit)")


def test_ctrl_c_ends_a_search_with_what_it_has(command, monkeypatch):
    """The signal comes while the search says how far it is; the command still prints a result."""

    def interrupted(*arguments, progress, **options):
        def told(*step):
            os.kill(os.getpid(), signal.SIGINT)
            return progress(*step)

        return tf.solve(*arguments, progress=lambda *s: progress(*s) or told(*s), **options)

    monkeypatch.setattr("tightframe.cli.theory.solve_problem", interrupted)
    options = ["--counts", "60,20,9,4", *DECAYS, "--depth", "2"]
    code, out, _ = command("solve", *options, "--json")
    assert code == 130
    assert json.loads(out)["search"]["stopped"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_non_convergence_is_exit_code_3(command, monkeypatch):
    limited = functools.partial(tf.solve, max_iterations=1)
    monkeypatch.setattr("tightframe.cli.theory.solve_problem", limited)
    code, out, err = command("solve", "--counts", "60,20,9,4", *DECAYS, "--json")
    assert code == 3
    assert json.loads(out)["status"] == "not_converged"
    assert err.startswith("tightframe: warning: solve stopped at a relative gap")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--counts", "500"], "tightframe: --counts: got 1 class"),
        (["--bias", "decayed"], "tightframe: --bias-decay: missing"),
        (["--starts", "0"], "tightframe: --starts: got 0, need a whole number, at least 1"),
        (["--features", "nonnegative", "--depth", "2"], "problem: non-negative features with"),
        (["--weight-decay", "much"], "'--weight-decay': got 'much', need a number"),
        (["--weight-decay", "1e-3,x"], "'--weight-decay': got 'x', need a number"),
        (["--dim", "2.5"], "'--dim': got '2.5', need a whole number"),
        (["--out", "x.txt"], "--out: got 'x.txt', need a name that ends in .npz"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_options_are_named_in_one_line(fails, options, message):
    """Those of the library in tests/problem and tests/test_solve.py; here how they are told."""
    assert message in fails(*SOLVE, *options)


def test_missing_options_and_unknown_commands(fails):
    assert "--counts" in fails("solve", *DECAYS)
    assert "'solv'" in fails("solv")


def test_unwritable_output_is_named(fails, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file/x.npz: " in fails(*SOLVE, "--out", tmp_path / "file" / "x.npz")


def test_version(command):
    assert command("--version") == (0, f"{tf.__version__}\n", "")


def test_help_is_not_an_error(command):
    for arguments in (["--help"], ["solve", "-h"], ["run", "--help"]):
        code, out, err = command(*arguments)
        assert (code, err) == (0, "")
        assert "Usage" in out


# -- thresholds, certify ---------------------------------------------------------------------------


def test_thresholds(command):
    code, out, _ = command("thresholds", "--counts", "500x5,100x5", *DECAYS, "--json")
    assert code == 0
    groups = json.loads(out)["groups"]
    assert groups[1]["logit_decay"] == pytest.approx(1 / 300)
    assert groups[1]["collapsed"] is False
    code, out, _ = command("thresholds", "--counts", "500x5,100x4,7", *DECAYS)
    assert code == 0
    assert "merge from" in out


def test_thresholds_of_many_groups_take_long_and_say_so(command, monkeypatch):
    monkeypatch.setattr("tightframe.cli.theory.FEW_GROUPS", 2)
    for counts, groups in (("9x2,5", None), ("9,5,3", 3)):
        code, _, err = command("thresholds", "--counts", counts)
        assert code == 0
        assert (f"states of {groups} groups" in err) if groups else (err == "")


DEEP = ["--loss", "mse", "--depth", "2", "--weight-decay", "1e-3,4e-3", "--feature-decay", "2e-3"]


def test_thresholds_with_several_layers(command):
    code, out, err = command("thresholds", "--counts", "20x2,10", *DEEP, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    problem = tf.Problem(**found["problem"])
    assert (problem.depth, problem.weight_decays) == (2, (1e-3, 4e-3))
    assert found["logit_decay"] == pytest.approx(2e-3)
    # The class with 10 samples vanishes from c_2 10^(2/3) / 50 on, c_2 = 2^(-4/3).
    assert found["groups"][1]["logit_decay"] == pytest.approx(5 ** (2 / 3) / 50 / 2 ** (2 / 3))
    assert "rank_changes" not in found
    code, out, _ = command("thresholds", "--counts", "20x2,10", *DEEP)
    assert code == 0
    assert "lambda = geometric mean of all decays = 0.002" in out
    assert "sqrt" not in out


def test_thresholds_with_ranks(command):
    options = ["thresholds", "--counts", "60,20x3", *DECAYS, "--ranks"]
    code, out, err = command(*options, "--json")
    assert (code, err) == (0, "")
    changes = json.loads(out)["rank_changes"]
    assert [set(change) for change in changes] == [{"logit_decay", "rank_above", "rank_below"}] * 2
    assert [(change["rank_above"], change["rank_below"]) for change in changes] == [(0, 1), (1, 3)]
    for change in changes:
        for factor, side in ((1 + 1e-5, "rank_above"), (1 - 1e-5, "rank_below")):
            decay = change["logit_decay"] * factor
            solution = tf.solve(tf.Problem("60,20x3", weight_decay=decay, feature_decay=decay))
            assert solution.rank == change[side]
    code, out, _ = command(*options)
    assert code == 0
    for words in ("merge from", "Where the rank changes", "rank above", "rank below"):
        assert words in out
    for change in changes:
        assert f"{change['logit_decay']:.6g}" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--depth", "2"], "--depth: got 2; thresholds with several layers are known for MSE"),
        ([*DEEP, "--ranks"], "problem: rank_changes needs one layer"),
        (["--ranks", "yes"], "yes"),
    ],
)
def test_bad_options_of_thresholds(fails, options, message):
    assert message in fails("thresholds", "--counts", "20x2,10", *DECAYS, *options)


def test_certify_a_solution_and_a_spoilt_one(command, tmp_path):
    command(*SOLVE, "--out", tmp_path / "best.npz")
    with np.load(tmp_path / "best.npz") as arrays:
        np.savez(tmp_path / "spoilt.npz", logits=arrays["logits"] * 1.2)
        factors = {"weight": arrays["weight_1"], "class_means": arrays["class_means"]}
        save_file(factors, tmp_path / "factors.safetensors")
    gaps = {}
    for name in ("best.npz", "factors.safetensors", "spoilt.npz"):
        code, out, _ = command(
            "certify", tmp_path / name, "--counts", "500x5,100x5", *DECAYS, "--json"
        )
        assert code == 0
        gaps[name] = json.loads(out)["gap"]
    assert gaps["best.npz"] <= 1e-7
    assert gaps["factors.safetensors"] <= 1e-7
    assert gaps["spoilt.npz"] > 1e-3
    code, out, _ = command("certify", tmp_path / "spoilt.npz", "--counts", "500x5,100x5", *DECAYS)
    assert "gap (certified)" in out


def test_certify_refuses_what_nothing_certifies(fails, tmp_path):
    np.savez(tmp_path / "x.npz", logits=np.zeros((4, 4)))
    options = ["--counts", "10x4", *DECAYS, "--depth", "2"]
    assert "depth 2 is certified" in fails("certify", tmp_path / "x.npz", *options)


def test_certify_bad_files(fails, tmp_path):
    np.savez(tmp_path / "other.npz", x=np.eye(2))
    np.savez(tmp_path / "small.npz", logits=np.eye(2))
    options = ["--counts", "500x5,100x5", *DECAYS]
    assert "need logits, or weight and class_means; it has x" in fails(
        "certify", tmp_path / "other.npz", *options
    )
    assert "logits: got shape (2, 2), need (10, 10)" in fails(
        "certify", tmp_path / "small.npz", *options
    )
    assert "no such file" in fails("certify", tmp_path / "none.npz", *options)


# -- measure ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_measure_reads_what_any_network_can_save(command, tmp_path, ending):
    path, arrays = tmp_path / f"features.{ending}", _network()
    (np.savez(path, **arrays) if ending == "npz" else save_file(arrays, path))
    code, out, err = command("measure", path, *DECAYS, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["num_samples"] == 15
    assert set(result["distances"]) == {"predicted", "simplex ETF", "orthogonal frame", "SELI"}
    certificate = result["certificate"]
    # Features off their means only cost more, and nothing passes the bound.
    assert certificate["network_objective"] >= certificate["primal"] >= certificate["lower_bound"]
    assert certificate["gap"] == pytest.approx(certificate["primal"] - certificate["lower_bound"])
    assert len(result["verdicts"]) == 3
    code, out, _ = command("measure", path, *DECAYS)
    assert code == 0
    assert "certified gap of the class means" in out
    code, out, _ = command("measure", path, "--json")
    assert code == 0
    assert "certificate" not in json.loads(out)


def test_measure_prints_the_numbers_of_its_json(command, tmp_path):
    np.savez(tmp_path / "x.npz", **_network())
    numbers = json.loads(command("measure", tmp_path / "x.npz", "--json")[1])
    _, out, err = command("measure", tmp_path / "x.npz")
    assert err == ""
    classes, title, out = out.partition("15 samples")  # the classes come first
    assert title
    rows = [line.strip("│ ").split("│") for line in classes.splitlines() if line.startswith("│")]
    for row, cells in zip(numbers["classes"], rows, strict=True):
        name, count, accuracy, margin, rival = (cell.strip() for cell in cells[:5])
        assert (name, count, rival) == (row["name"], str(row["count"]), row["rival_name"])
        assert float(accuracy) == pytest.approx(row["accuracy"], abs=0.005)
        assert float(margin) == pytest.approx(row["median_margin"], abs=0.005)
    rows = [line.strip("│ ").split("│") for line in out.splitlines() if line.startswith("│")]
    printed = {name.strip(): [float(cell) for cell in cells] for name, *cells in rows}
    parts = ("classifier", "means", "centered_means", "logits")
    for target, found in numbers["distances"].items():
        assert printed.pop(target) == pytest.approx([found[part] for part in parts], abs=1e-4)
    assert {"nc1", "nc1_quotient", "cdnv", "nc4", "self_duality"} <= printed.keys()
    for metric, (value,) in printed.items():
        assert value == pytest.approx(numbers[metric], rel=1e-5)


def test_measure_prints_no_distance_of_a_zero_classifier(command, tmp_path):
    np.savez(tmp_path / "x.npz", **{**_network(), "weight": np.zeros((3, 4))})
    code, out, _ = command("measure", tmp_path / "x.npz")
    assert code == 0
    (row,) = [line for line in out.splitlines() if line.startswith("│ SELI")]
    _, classifier, *means, logits = [cell.strip() for cell in row.strip("│").split("│")]
    assert (classifier, logits) == ("-", "-")
    assert all(float(mean) > 0 for mean in means)


def test_states_are_marked_in_whatever_the_terminal_can_show():
    code = "import sys; from tightframe.cli.entry import main; sys.argv[1:] = {}; main()"
    lost = ["solve", "--counts", "500x5,100x5,10", *DECAYS[:1], "0.01", *DECAYS[2:]]
    for encoding, marks in (("utf-8", "●◆▶"), ("ascii", "o=>")):
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code.format(lost)],
            env=environment,
            capture_output=True,
            check=True,
        )
        shown = done.stdout.decode(encoding)
        assert f"{marks[0]} distinct" in shown
        assert f"{marks[2]} lost" in shown


def test_measure_finds_no_gap_at_the_solution(command, tmp_path):
    problem = tf.Problem("6,4,5", weight_decay=0.005, feature_decay=0.001, bias="free")
    solution = tf.solve(problem)
    labels = np.repeat(np.arange(3), problem.counts)
    arrays = {"features": solution.class_means.T[labels], "labels": labels}
    arrays |= {"weight": solution.weights[0], "bias": solution.bias}
    np.savez(tmp_path / "x.npz", **arrays)
    code, out, _ = command("measure", tmp_path / "x.npz", *DECAYS, "--bias", "free", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["certificate"]["gap"] <= 1e-8
    assert result["certificate"]["network_objective"] == pytest.approx(solution.objective)
    assert max(result["distances"]["predicted"].values()) < 1e-6


def test_measure_names_the_file_or_the_option(fails, tmp_path):
    """What is wrong with an array is told in tests/runs/test_measure.py."""
    path, arrays = tmp_path / "x.npz", _network()
    np.savez(path, features=arrays["features"])
    assert f"{path}: labels: missing" in fails("measure", path)
    np.savez(path, **arrays)
    assert "--feature-decay: missing" in fails("measure", path, "--weight-decay", "1")
    message = fails("measure", path, *DECAYS, "--features", "nonnegative")
    assert "--features: smallest entry is -" in message


def test_measure_reads_what_there_is(command, fails, tmp_path):
    """Names, files and absent classes; the formats are told in tests/runs/test_network_files.py."""
    arrays, names = _network(), np.array(["ant", "bee", "cat", "dog"])
    labels = names[arrays["labels"]]
    weight = np.vstack([arrays["weight"], arrays["weight"][:1] - 1])
    path = tmp_path / "x.npz"
    np.savez(path, X=arrays["features"], y=labels, **{"fc.weight": weight})
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-16")
    how = ["--keys", "features=X,labels=y", "--class-names", tmp_path / "names.txt"]
    other = {"X": arrays["features"] + 0.01, "y": labels}
    np.savez(tmp_path / "held.npz", **other)
    how += ["--held-out", tmp_path / "held.npz"]
    code, out, err = command("measure", path, *how, "--json")
    result = json.loads(out)
    assert (code, result["missing"]) == (0, [3])
    assert err == "tightframe: warning: class dog is without samples, but rivals\n"
    assert sorted(row["name"] for row in result["classes"]) == ["ant", "bee", "cat"]
    assert all(row["held_out_recall"] == row["accuracy"] for row in result["classes"])
    code, out, _ = command("measure", path, *how)
    assert (code, "dog" in out) == (0, True)  # without samples, but a rival

    assert "--class-names: got 2, weight has 4 rows" in fails(
        "measure", path, *how[:2], "--class-names", "ant,bee"
    )
    assert "--class-names: missing; the labels are 3 names" in fails("measure", path)
    assert "--keys: got 'x', allowed are" in fails("measure", path, "--keys", "x=y")
    message = fails("measure", path, *how[:4], *DECAYS)
    assert f"{path}: labels: class dog is without samples" in message
    np.savez(path, features=arrays["features"], labels=np.where(labels == "ant", 0, -1))
    assert f"{path}: labels: got -1" in fails("measure", path)
    code, out, err = command("measure", path, "--ignore-index", "-1", "--json")
    assert code == 2  # of one class only


def test_measure_without_a_classifier(command, tmp_path):
    arrays = _network()
    del arrays["weight"]
    np.savez(tmp_path / "x.npz", **arrays)
    code, out, _ = command("measure", tmp_path / "x.npz", "--json")
    result = json.loads(out)
    assert (code, result["num_samples"]) == (0, len(arrays["labels"]))
    assert 0 < result["nc1"] < 1
    code, out, _ = command("measure", tmp_path / "x.npz")
    assert (code, f"{result['nc1']:.6g}" in out) == (0, True)


def test_commands_say_the_names(command, tmp_path):
    """What the folder of a path keeps is drawn and tabulated again, with the names."""
    named = ["--counts", "50,50,5", "--class-names", "ant,bee,cat"]
    code, out, _ = command("solve", *named, *DECAYS)
    assert (code, "ant, bee" in out) == (0, True)
    folder = tmp_path / "path"
    sweep = ["--weight-decay", "1e-3,1e-2", "--feature-decay", "1e-3"]
    assert command("path", *named, *sweep, "--out", folder)[0] == 0
    drawn = (folder / "path.png").read_bytes()
    (folder / "path.png").unlink()
    code, out, _ = command("report", folder, "--latex")
    assert (code, out.split()) == (
        0,
        [str(folder / "path.png"), str(folder / "tables" / "row-1.tex")],
    )
    assert (folder / "path.png").read_bytes() == drawn
    assert "2 classes of 50 (ant, bee)" in (folder / "tables" / "row-1.tex").read_text()


# -- run, report -----------------------------------------------------------------------------------

TINY = ["--epochs", "6", "--measure-every", "2", "--hidden", "16", "--feature-dim", "10"]


def test_run_reports_and_resumes(command, fails, tmp_path, unrendered):
    out = tmp_path / "run"
    code, text, _ = command("run", "--out", out, *TINY)
    assert code == 0
    for words in ("Predicted class groups", "to ETF", "The 5 classes with 10 samples each"):
        assert words in text
    printed = " ".join(text.split())
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "plots" / "summary.png").is_file()
    assert "already holds a run" in fails("run", "--out", out, *TINY)
    assert (out / "report.html").is_file()

    before = (out / "report.html").read_bytes()
    code, text, _ = command("run", "--out", out, "--resume", "--json")
    assert code == 0
    assert [result["finished"] for result in json.loads(text)["results"]] == [True, True]
    assert json.loads(text)["outcome"] in printed
    assert (out / "report.html").read_bytes() == before

    assert "--setting: " in fails("measure", out)  # it has two
    setting = json.loads((out / "run.json").read_text())["config"]["settings"][0]
    name = f"w{setting[0]:g}-h{setting[1]:g}"
    code, text, _ = command("measure", out, "--setting", name, "--json")
    assert (code, json.loads(text)["num_samples"]) == (0, 550)
    final = out / "settings" / name / "final.npz"
    same = json.loads(command("measure", final, "--json")[1])
    assert json.loads(text)["nc1"] == same["nc1"]

    (out / "report.html").unlink()
    code, text, _ = command("report", out)
    assert code == 0
    assert (out / "report.html").read_bytes() == before


def test_damaged_runs_are_named_or_mended(command, fails, tmp_path, unrendered):
    out, one = tmp_path / "run", [*TINY, *DECAYS]
    code, _, err = command("run", "--out", out, "--resume", *one)
    assert code == 0
    assert "nothing to resume" in err
    setting = next((out / "settings").iterdir())
    whole = (setting / "result.json").read_text()
    (setting / "result.json").write_text("{}")  # not finished, so it is made again
    (setting / "history.parquet").write_bytes(b"half")
    assert command("run", "--out", out, "--resume")[0] == 0
    mended = json.loads((setting / "result.json").read_text())
    assert mended["last"]["objective"] == json.loads(whole)["last"]["objective"]
    for damage in (b"", b"garbage", (setting / "checkpoints" / "last.ckpt").read_bytes()[:500]):
        (setting / "result.json").unlink(missing_ok=True)
        (setting / "checkpoints" / "last.ckpt").write_bytes(damage)
        code, _, err = command("run", "--out", out, "--resume")
        assert code == 2
        assert "delete it to train this setting anew" in err
        assert err.count("\n") == 1
    (out / "run.json").write_text('{"format": 1, "config": 2, "config_hash": 3, "settings": 4}')
    assert "not the record of a run" in fails("run", "--out", out, "--resume")


def test_no_device_no_folder(fails, tmp_path):
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    assert "--device: got 'gpu'" in fails("run", "--out", tmp_path / "run", "--device", "gpu")
    assert not (tmp_path / "run").exists()


def test_interrupted_before_anything_is_kept(command, tmp_path, monkeypatch):
    import tightframe.runs.train as train

    def interrupt(problem):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "solve_certified", interrupt)
    code, out, err = command("run", "--out", tmp_path / "run", *TINY)
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert "kept" not in err


def test_report_needs_a_run(fails, tmp_path):
    assert "holds no run" in fails("report", tmp_path)
    assert "holds no run" in fails("report", tmp_path / "nowhere")


def run_with_ctrl_c(arguments, out, said):
    """Run the command, with standard error in a file; Ctrl-C comes once there is a checkpoint."""

    def interrupt(*_):
        # Python drops an interrupt that meets a finaliser, as of the checkpoint's file.
        if any(out.glob("settings/*/checkpoints/last.ckpt")):
            os.kill(os.getpid(), signal.SIGINT)

    import lightning

    lightning.Callback.on_train_epoch_start = interrupt
    sys.argv = ["tightframe", *arguments]
    with open(said, "w") as sys.stderr:
        main()


def test_ctrl_c_keeps_what_was_finished_and_resume_continues(tmp_path, unrendered):
    out, said = tmp_path / "run", tmp_path / "said"
    options = ["--hidden", "8", "--feature-dim", "10", "--measure-every", "2", *DECAYS]
    arguments = ["run", "--out", str(out), "--epochs", "5", *options]
    code = processes.run(run_with_ctrl_c, arguments, out, said)
    err = said.read_text()
    assert code == 130, err
    assert "Traceback" not in err
    assert "--resume" in err
    settings = out / "settings"
    name = next(settings.glob("*/checkpoints/last.ckpt")).parent.parent.name
    assert not (settings / name / "result.json").exists()
    assert run_command(["report", str(out)]) == 0  # an unfinished run can be looked at
    history = settings / name / "history.parquet"
    assert pd.read_parquet(history)["epoch"].tolist() == [0, 2]

    assert run_command(["run", "--out", str(out), "--resume"]) == 0
    assert all((folder / "result.json").is_file() for folder in settings.iterdir())
    assert pd.read_parquet(history)["epoch"].tolist() == [0, 2, 4, 5]
