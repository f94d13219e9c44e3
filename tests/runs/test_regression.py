"""`measure --regression`: saved arrays of a regression against the prediction."""

import json

import numpy as np
import pytest

import tightframe as tf
from tightframe.cli import run_command
from tightframe.runs.regression import LAST
from tightframe.runs.regression import measure_regression as measure_layers

DECAYS = {"weight_decay": 0.05, "feature_decay": 0.002}
TYPED = ["--weight-decay", "0.05", "--feature-decay", "0.002"]


def measure_regression(*arguments, **options):
    """Return the report of the last layer."""
    return measure_layers(*arguments, **options)[LAST]


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves the minimum, rotated into six features, with changes."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)) + 3
    found = tf.regression_collapse(y, **DECAYS)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0][:, :3]
    arrays = {
        "features": found.features @ turn.T,
        "targets": y,
        "weight": found.weights[0] @ turn.T,
        "bias": found.bias,
    }

    def save(**changes):
        path = tmp_path / "network.npz"
        kept = {name: array for name, array in (arrays | changes).items() if array is not None}
        np.savez(path, **kept)
        return path, arrays

    return save


def test_the_minimum_is_recognised(saved, capsys):
    path, arrays = saved()
    assert run_command(["measure", str(path), "--regression", *TYPED, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert max(found[key] for key in ("nrc1", "nrc2", "nrc3", "gram_distance")) < 1e-12
    assert found["gamma"] == pytest.approx(found["gamma_predicted"], rel=1e-6)
    assert found["gamma_predicted"] == pytest.approx(50 * 0.05 * 0.002)
    assert 0 <= found["gap"] < 1e-12
    answers = arrays["features"] @ arrays["weight"].T + arrays["bias"]
    error = ((answers - arrays["targets"]) ** 2).sum() / 50
    assert found["mean_squared_error"] == pytest.approx(error)
    assert run_command(["measure", str(path), "--regression", *TYPED]) == 0
    assert "gram_distance" in capsys.readouterr().out


def test_another_network_is_not(saved):
    rng = np.random.default_rng(1)
    path, arrays = saved(features=rng.normal(size=(50, 6)))
    found = measure_regression(path, **DECAYS)
    assert found.gram_distance < 1e-12
    assert found.certificate.gap > 1
    assert found.numbers["nrc1"] == pytest.approx(0.5, abs=0.2)
    other, _ = saved(weight=arrays["weight"] * np.array([[1.0], [3.0], [1.0]]))
    assert measure_regression(other, **DECAYS).gram_distance > 0.1


def test_targets_go_by_other_names_and_a_single_one_is_a_vector(saved):
    path, arrays = saved()
    alone = arrays["targets"][:, 0]
    path, _ = saved(targets=None, wanted=alone, weight=arrays["weight"][0], bias=np.array(3.0))
    found = measure_regression(path, "targets=wanted")
    assert (found.num_targets, found.numbers["nrc3"]) == (1, 0)
    assert found.to_dict() == measure_regression(path, {"targets": "wanted"}).to_dict()
    assert measure_regression(path, "labels=wanted").numbers == found.numbers


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"weight": None}, {}, "weight: missing"),
        ({"targets": None}, {}, "labels: missing"),
        ({"targets": np.ones((49, 3))}, {}, "targets: got 49 rows, features has 50"),
        ({"targets": np.full((50, 3), np.nan)}, {}, "targets: row 0 has an entry that is not f"),
        ({"weight": np.ones((2, 6))}, {}, r"weight: got shape \(2, 6\), need \(3, 6\)"),
        ({"bias": np.ones(2)}, {}, "bias: got 2 entries, need 3"),
        ({}, {"bias": "none", **DECAYS}, "bias: got a non-zero bias"),
        ({}, {"weight_decay": 0.1}, "feature_decay: missing; give both"),
    ],
)
def test_bad_arrays_are_named(saved, changes, options, message):
    path, _ = saved(**changes)
    with pytest.raises(ValueError, match=message):
        measure_regression(path, **options)


def test_one_row_a_layer(saved, capsys, tmp_path):
    rng = np.random.default_rng(2)
    hidden = {"conv": rng.normal(size=(50, 9)), "body.out": rng.normal(size=(50, 4))}
    path, _ = saved(**hidden)
    np.save(tmp_path / "first.npy", hidden["conv"])
    wanted = f"conv,out,{tmp_path / 'first.npy'},{path}"  # of a file with names, its features
    command = ["measure", str(path), "--regression", "--layers", wanted]
    assert run_command([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["layers"]) == wanted.split(",")
    conv, out, first, own = found["layers"].values()
    assert conv == first
    assert own["nrc1"] == found["nrc1"]
    assert conv["nrc1"] == pytest.approx(tf.metrics.nrc1(hidden["conv"], 3))
    assert out["nrc1_centered"] == tf.metrics.nrc1(hidden["body.out"], 3, center=True)
    assert run_command(command) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("conv", "out", "last layer", "nrc1_centered"))


def test_deep_linear_heads_are_measured_at_their_depth(saved, capsys):
    path, arrays = saved()
    found = tf.regression_collapse(arrays["targets"], **DECAYS, depth=2)
    first, last = found.weights
    path, _ = saved(
        weight=None, weight_1=first, weight_2=last, features=found.features, bias=found.bias
    )
    command = ["measure", str(path), "--regression", "--json", "--feature-decay", "0.002"]
    assert run_command([*command, "--weight-decay", "0.05,0.05"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert max(read[key] for key in ("nrc1", "nrc2", "gram_distance", "gap")) < 1e-10
    assert read["gamma_predicted"] is None
    assert read["prediction"]["weight_decays"] == [0.05, 0.05]
    path, _ = saved(weight=None, weight_2=last)
    assert run_command([*command[:4]]) == 2
    assert "weight: got weight_2, but not all of weight_1 to it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--layers", "none"], "--layers: "),
        (["--layers", ","], "--layers: got ',', need names"),
        (["--layers", "bias"], "--layers: 'bias': targets: got 50 rows, features has 3"),
        (["--layers", "features,features"], "--layers: 'features' is there twice"),
        (["--center", "sample"], "--center: got a value with --regression"),
        (["--class-names", "a,b"], "--class-names: got a value with --regression"),
        (["--bias", "decayed", *TYPED], "--bias: got 'decayed', which has no closed form"),
        (["--weight-decay", "1"], "--feature-decay: missing"),
    ],
)
def test_options_of_classes_are_refused(saved, capsys, typed, message):
    path, _ = saved()
    assert run_command(["measure", str(path), "--regression", *typed]) == 2
    assert message in capsys.readouterr().err


def test_layers_belong_to_regression(saved, capsys):
    path, _ = saved()
    assert run_command(["measure", str(path), "--layers", "a"]) == 2
    assert "--layers: got 'a', which belongs to --regression" in capsys.readouterr().err


def test_whole_numbers_stay_classes(tmp_path, capsys):
    labels = np.repeat([0.0, 1.0, 2.0], 5)
    rng = np.random.default_rng(0)
    features = np.eye(3)[labels.astype(int)] + 0.1 * rng.normal(size=(15, 3))
    np.savez(tmp_path / "x.npz", features=features, targets=labels, weight=np.eye(3))
    assert run_command(["measure", str(tmp_path / "x.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == [5, 5, 5]
