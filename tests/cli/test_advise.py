"""`tightframe advise`: what it takes, what it prints, what it refuses."""

import json

import numpy as np
import pytest

import tightframe as tf
from tightframe.advice.remedies import remedies
from tightframe.runs import calibrated
from tightframe.runs.store import trained_setting
from tightframe.runs.tables import class_table_of

STEP = ("--counts", "500x5,100x5", "--weight-decay", "1e-2", "--feature-decay", "2e-3")


def saved(path, problem):
    """Write a solution as the features of a network that reached it."""
    solution = tf.solve(problem)
    labels = np.repeat(np.arange(problem.num_classes), problem.counts)
    np.savez(
        path,
        features=solution.class_means.T[labels],
        labels=labels,
        weight=solution.weights[0],
        bias=solution.bias,
    )


def test_json_is_the_library_s_answer(command):
    code, out, err = command("advise", *STEP, "--json")
    assert (code, err) == (0, "")
    problem = tf.Problem("500x5,100x5", weight_decay=1e-2, feature_decay=2e-3)
    expected = json.loads(json.dumps(tf.advise(problem).to_dict()))
    assert json.loads(out) == expected | {"calibration": None}


def test_people_read_what_merges_and_what_helps(command):
    code, out, err = command("advise", *STEP, "--margin", "0.5")
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    for words in (
        "5 classes of 100 samples merge",
        "Lower weight_decay to",
        "Weigh the loss",
        "Logit adjustment does not move the thresholds",
        "10 times the data",
        "Unconstrained feature model",
    ):
        assert words in text


@pytest.mark.parametrize("columns", ["80", "40"])
def test_remedies_are_compared_in_the_terminal(command, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    decays = ("--weight-decay", "2e-3", "--feature-decay", "2e-3")
    code, out, _ = command("advise", *STEP[:2], *decays, "--logit-scale", "1x5,0.6x5")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    problem = tf.Problem(
        "500x5,100x5", weight_decay=2e-3, feature_decay=2e-3, logit_scale="1x5,0.6x5"
    )
    names = ("merge", "big", "small")
    for remedy in remedies(problem):
        low, high = (f"{factor:.3g}" for factor in (min(remedy.factors), max(remedy.factors)))
        place = low if low == high else f"{low}-{high}"
        margins = [f"{group.decision_margin:.3g}" for group in remedy.after.groups]
        if columns == "40":  # a block of lines a remedy
            row = [
                f"{name:6}  {value}" for name, value in zip(names, [place, *margins], strict=True)
            ]
            assert "\n".join(row) in "\n".join(line.rstrip() for line in lines)
            continue
        cells = [[cell.strip() for cell in line.split("│")] for line in lines if "│" in line]
        assert [place, *margins] in [row[2:5] for row in cells]
    text = " ".join(out.split())
    assert "logit_scale 0.6: 5 classes of 100 samples merge at 0.6 of the decay" in text


def test_nothing_to_change(command):
    _, out, _ = command("advise", *STEP[:2], "--weight-decay", "1e-3", "--feature-decay", "1e-4")
    assert "every class has a decision margin of 1 or more: nothing to change" in " ".join(
        out.split()
    )


def test_labels_and_config_files(command, tmp_path):
    np.save(tmp_path / "labels.npy", np.repeat(range(10), [500] * 5 + [100] * 5))
    (tmp_path / "config.json").write_text(
        json.dumps({"weight_decay": 1e-2, "per_device_train_batch_size": 100, "optim": "sgd"})
    )
    code, out, _ = command(
        "advise",
        "--labels",
        tmp_path / "labels.npy",
        "--config",
        tmp_path / "config.json",
        "--batch-feature-decay",
        "0.06",
        "--json",
    )
    assert code == 0
    problem = json.loads(out)["problem"]
    assert problem["counts"] == "500x5,100x5"
    assert problem["weight_decay"] == 1e-2
    assert problem["feature_decay"] == pytest.approx(0.06 * 100 / 3000)


def test_typed_values_stand_against_those_of_the_configuration(command, tmp_path):
    """Though it be the default's: without them the configuration's are taken."""
    config = {"label_smoothing_factor": 0.1, "loss_type": "VS", "gamma": 0.2, "tau": 1.0}
    (tmp_path / "config.json").write_text(json.dumps({"weight_decay": 1e-2} | config))
    arguments = ["advise", *STEP[:2], *STEP[4:], "--config", tmp_path / "config.json", "--json"]
    code, out, err = command(*arguments)
    assert code == 0, err
    problem = json.loads(out)["problem"]
    assert problem["label_smoothing"] == 0.1
    assert {"logit_scale", "logit_adjustment"} < set(problem)
    assert "logit_scale (n / n_max)^0.2, logit_adjustment 1*prior" in err
    neutral = ["--label-smoothing", "0", "--logit-scale", "1", "--logit-adjustment", "0"]
    code, out, err = command(*arguments, *neutral)
    assert code == 0, err
    assert not {"label_smoothing", "logit_scale", "logit_adjustment"} & set(
        json.loads(out)["problem"]
    )
    assert "config: read weight_decay 0.01" in err


def test_what_the_loss_of_a_network_had_is_told_by_options_or_configuration(command, tmp_path):
    terms = {"label_smoothing": 0.1, "class_margins": "0.2x3,0.5x3"}
    saved(
        tmp_path / "net.npz", tf.Problem("40x3,6x3", weight_decay=2e-2, feature_decay=1e-3, **terms)
    )
    (tmp_path / "config.json").write_text('{"weight_decay": 0.02, "label_smoothing": 0.1}')
    run = ["advise", "--from-run", tmp_path / "net.npz", "--json"]
    margins = ["--class-margins", terms["class_margins"]]
    by_config = ["--config", tmp_path / "config.json", *margins]
    by_options = ["--weight-decay", "0.02", "--label-smoothing", "0.1", *margins]
    for told in (by_config, by_options):
        code, out, err = command(*run, *told)
        assert code == 0, err
        found = json.loads(out)
        assert found["calibration"]["weight_decay"] == pytest.approx(2e-2, rel=1e-3)
        assert found["calibration"]["warnings"] == []
        assert found["head"]["suboptimality"] < 1e-3
        assert "with label smoothing 0.1 and class margins" in found["head"]["verdict"]
        assert found["theory"]["describes"]
    code, out, err = command(*run, "--config", tmp_path / "config.json")
    assert "config: read weight_decay 0.02, label_smoothing 0.1" in err
    code, out, _ = command(*run, *by_config, "--label-smoothing", "0")
    found = json.loads(out)
    assert not found["theory"]["describes"]
    assert "label smoothing 0.1 with weight_decay 0.02" in " ".join(found["warnings"])


def test_decays_of_a_trained_network(command, tmp_path):
    problem = tf.Problem("40x3,6x3", weight_decay=2e-2, feature_decay=1e-3)
    saved(tmp_path / "net.npz", problem)
    code, out, _ = command("advise", "--from-run", tmp_path / "net.npz", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["calibration"]["weight_decay"] == pytest.approx(2e-2, rel=1e-3)
    assert result["calibration"]["feature_decay"] == pytest.approx(1e-3, rel=1e-3)
    assert result["problem"]["counts"] == "40x3,6x3"
    code, out, _ = command("advise", "--from-run", tmp_path / "net.npz")
    assert "fitted to the network: weight_decay 0.02" in " ".join(out.split())


def test_decays_of_a_run_s_folder(command, fails, tmp_path, unrendered):
    options = ["--counts", "8x5,2x5", "--epochs", "2", "--measure-every", "1", "--data", "digits"]
    decays = "--weight-decay 2e-2 --feature-decay 2e-4 --weight-decay 8e-2 --feature-decay 8e-4"
    code, _, err = command("run", "--out", tmp_path / "run", *options, *decays.split())
    assert code == 0, err
    arguments = ("advise", "--from-run", tmp_path / "run", "--setting", "w0.08-h0.0008", "--json")
    code, out, _ = command(*arguments)
    assert code == 0
    fitted = calibrated.calibrate_saved(tmp_path / "run", "w0.08-h0.0008")
    assert json.loads(out)["calibration"]["weight_decay"] == fitted.weight_decay
    since = {row["name"]: row["since"] for row in json.loads(out)["classes"]}
    history = class_table_of(trained_setting(tmp_path / "run", "w0.08-h0.0008"))
    assert since == {row.name: row.since for row in history}
    assert set(since.values()) <= {0, 1, 2, None}
    assert set(since.values()) != {None}
    for option in (["--label-smoothing", "0.1"], ["--config", tmp_path / "config.json"]):
        message = fails(*arguments[:-1], *option)
        assert f"tightframe: {option[0]}: given for a run's folder" in message
    message = fails(*arguments[:-1], "--bias", "free")
    assert "tightframe: --bias: given for a run's folder" in message


def ordinary(path):
    """Write a network whose two rare classes a head with much decay has lost."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [200, 200, 8, 8])
    means = np.maximum(rng.normal(size=(4, 12)), 0)
    features, held_out = (
        np.maximum(means[labels] + 0.3 * rng.normal(size=(416, 12)), 0) for _ in range(2)
    )
    head = tf.heads.fit_head(features, labels, weight_decay=0.1)
    assert (head.training.recalls[2:] < 0.5).all()
    np.savez(path, features=features, labels=labels, weight=head.weight, bias=head.bias)
    np.savez(path.with_name("held.npz"), features=held_out, labels=labels)
    return path


def test_an_ordinary_network_is_told_the_truth(command, tmp_path):
    arguments = ["advise", "--from-run", ordinary(tmp_path / "net.npz"), "--weight-decay", "0.1"]
    arguments += ["--held-out", tmp_path / "held.npz", "--class-names", "cat,dog,owl,bee"]
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert text.startswith("2 of 4 classes are lost: ")
    for words in (
        "owl for",
        "bee for",
        "held-out",
        "The head is trained to the end",
        "1. Train again with a tenth of the weight decay (0.01)",
        "Not post-hoc logit adjustment",
        "does not describe this network",
    ):
        assert words in text
    for words in ("nothing to change", "safety 1", "all classes are distinct below", "error 0"):
        assert words not in text
    code, out, _ = command(*arguments, "--json")
    found = json.loads(out)
    assert code == 0
    assert not {"safety", "largest_decay", "proposals"} & set(found)
    assert any("does not describe" in warning for warning in found["warnings"])
    lost = [row["name"] for row in found["classes"] if row["accuracy_state"] == "lost"]
    assert sorted(lost) == ["bee", "owl"]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"features": np.full((4, 12), 1e300)}, (), "net.npz: features: got an entry above 1e+140"),
        ({"features": np.zeros((4, 12), bool)}, (), "net.npz: features: got bool, need real"),
        ({"labels": np.full(4, -100)}, (), "net.npz: labels: all 4 are -100"),
        ({"labels": np.zeros(4, int)}, (), "net.npz: labels: 1 of 4 classes have samples"),
        ({}, ("--at-weight-decay", "-1", "--layers", "3"), "--at-weight-decay: got -1.0"),
        ({}, ("--batch-size", "5"), "--batch-size: given with --from-run"),
        ({}, ("--reduction", "sum"), "--reduction: given with --from-run"),
        ({}, ("--held-out", "net.npz"), "--held-out features: are those of the training"),
        ({}, ("--held-out", "empty.npz"), "--held-out labels: got no samples"),
        ({}, ("--held-out", "page.npz"), "page.npz: not an .npz file of arrays (it does not begin"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(
    fails, tmp_path, monkeypatch, changes, options, message
):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {"features": rng.random((4, 12)), "labels": np.arange(4)}
    np.savez("net.npz", weight=rng.random((4, 12)), **arrays | changes)
    np.savez("empty.npz", features=arrays["features"][:0], labels=arrays["labels"][:0])
    (tmp_path / "page.npz").write_text("<html>")
    found = fails("advise", "--from-run", "net.npz", "--weight-decay", "0.1", *options)
    assert found.startswith(f"tightframe: {message}")


def test_a_theory_of_few_samples_does_not_say_that_nothing_has_to_change(command):
    arguments = ["--weight-decay", "1e-3", "--feature-decay", "1e-4"]
    _, out, _ = command("advise", "--counts", "100x5,10x5", *arguments)
    assert "every class has a decision margin of 1 or more, by the theory" in " ".join(out.split())


def test_the_training_is_taken_into_account(command, tmp_path):
    path = ordinary(tmp_path / "net.npz")
    code, out, _ = command("advise", "--from-run", path, "--sampler", "balanced", "--json")
    assert code == 0
    rows = [row["name"] for row in json.loads(out)["head"]["rows"]]
    assert "post-hoc logit adjustment" not in rows
    options = ("--weight-decay", "0.1", "--at-weight-decay", "0.2", "--layers", "2")
    code, out, _ = command("advise", "--from-run", path, *options, "--json")
    assert json.loads(out)["larger_decay"]["at"] == [0.2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "tightframe: --counts, --labels: got neither"),
        ((*STEP, "--angle", "120"), "tightframe: --angle: got 120"),
        ((*STEP, "--config", "nowhere.yaml"), "tightframe: --config: nowhere.yaml is no file"),
        ((*STEP, "--from-run", "nowhere.npz"), "--from-run: given with counts or decays"),
        (("--from-run", "x.npz", "--setting", "a"), "--setting: got 'a', but x.npz is no run"),
        (("--from-run", "nowhere.npz"), "tightframe: nowhere.npz: no such file"),
        ((*STEP, "--sampler", "balanced"), "--sampler: given without --from-run, for which it is"),
        ((*STEP, "--layers", "3"), "--layers: given without --from-run, for which it is"),
    ],
)
def test_bad_options_are_named_in_one_line(fails, options, message):
    """Those of the library in tests/advice, tests/problem and tests/runs/test_calibrated.py."""
    assert message in fails("advise", *options)
