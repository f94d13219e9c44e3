"""`solve --loss focal`, `normalized` and `contrastive`: the library's results, other options no."""

import json

import pytest

import tightframe as tf

FOCAL = ["--loss", "focal", "--gamma", "2", "--weight-decay", "5e-3", "--feature-decay", "1e-3"]
HEAD = ["--counts", "1000x2,10x3", "--loss", "normalized", "--scale", "1"]
CONTRAST = ["--counts", "5,3,2", "--loss", "contrastive", "--temperature", "0.5"]


def read(command, *options):
    code, out, err = command("solve", *options, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_results_are_those_of_the_library(command):
    focal = tf.focal_collapse(10, 100, 2, weight_decay=5e-3, feature_decay=1e-3, starts=1)
    found = read(command, "--counts", "100x10", *FOCAL, "--starts", "1")
    assert found == {"loss": "focal"} | focal.to_dict()
    head = tf.normalized_head("1000x2,10x3", scale=1, margin=0.1, seed=3)
    found = read(command, *HEAD, "--margin", "0.1", "--seed", "3")
    assert found["objective"] == head.objective
    assert found["merged"] == [[2, 3, 4]]
    contrast = tf.supervised_contrastive([5, 3, 2], temperature=0.5)
    assert read(command, *CONTRAST)["cosines"] == contrast.to_dict()["cosines"]


def test_what_is_printed_says_what_is_certified(command):
    code, out, _ = command("solve", "--counts", "100x10", *FOCAL)
    assert code == 0
    assert "not certified: focal loss is not convex" in out
    assert "0.0122447" in out
    code, out, _ = command("solve", *HEAD)
    assert code == 0
    assert "(certified)" in out
    assert "3 classes of 10 samples share one direction" in out
    code, out, _ = command("solve", *CONTRAST)
    assert "objective 1.0452181" in out


def test_a_gap_above_the_tolerance_has_its_exit_code(command):
    code, out, err = command("solve", *CONTRAST, "--tol", "1e-30")
    assert code == 3
    assert "not_converged" in out
    assert "the certified relative gap is" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--counts", "100x9,10", *FOCAL], "--counts: got '100x9,10', need classes of one count"),
        (["--counts", "100x9", *FOCAL, "--bias", "free"], "--bias: got a value with --loss focal"),
        (["--counts", "100x9", *FOCAL[:4]], "--weight-decay, --feature-decay: missing; --loss foc"),
        ([*CONTRAST[:4]], "--temperature: missing; --loss contrastive needs it"),
        ([*CONTRAST, "--gamma", "2"], "--gamma: got a value with --loss contrastive"),
        ([*CONTRAST, "--out", "x.npz"], "--out: got a value with --loss contrastive"),
        ([*HEAD, "--weight-decay", "1"], "--weight-decay: got a value with --loss normalized"),
        ([*HEAD, "--scale", "0"], "--scale: got 0"),
        (["--counts", "5x51", *HEAD[2:]], "--counts: got 51 classes, need at most 50"),
        (
            ["--counts", "5,3", "--scale", "2", *FOCAL[4:]],
            "--scale: got 2.0, which belongs to --lo",
        ),
        (["--counts", "5,3", "--loss", "dice"], "--loss: got 'dice', allowed are cross_entropy, m"),
        (["--counts", "5,3", "--weight-decay", "1"], "--feature-decay: missing; give both decays"),
    ],
)
def test_options_without_meaning_are_refused_by_name(fails, options, message):
    assert message in fails("solve", *options)
