"""Theory's gate: open for its own minimisers, merged classes included, and for nothing else."""

import numpy as np
import pytest

import tightframe as tf
from tightframe.diagnosis.theory import ask_theory, mean_margins
from tightframe.heads import LastLayer


def of_solution(problem, noise=0.0, seed=0):
    """Return a network that is the problem's minimiser, and its problem without decays."""
    solution = tf.solve(problem, 1e-12)
    labels = np.repeat(np.arange(problem.num_classes), problem.counts)
    features = solution.class_means.T[labels]
    features = features + noise * np.random.default_rng(seed).normal(size=features.shape)
    bias = None if problem.bias == "none" else solution.bias
    layer = LastLayer.of(features, labels, solution.weights[0], bias)
    return layer, problem.replace(weight_decay=1.0, feature_decay=1.0)


def ask(layer, problem, accuracies=None):
    return ask_theory(layer, problem, np.ones(10) if accuracies is None else accuracies)


def problem(weight_decay, **rest):
    return tf.Problem("100x5,10x5", weight_decay=weight_decay, feature_decay=2e-4, **rest)


@pytest.mark.parametrize("bias", ["none", "free"])
def test_a_minimiser_is_described(bias):
    layer, own = of_solution(problem(2e-2, bias=bias))
    answer = ask(layer, own)
    assert answer.describes
    assert answer.error < 1e-3
    assert answer.calibration.weight_decay == pytest.approx(2e-2, rel=1e-3)
    expected = tf.advise(problem(2e-2, bias=bias))
    assert answer.advice.largest_decay == pytest.approx(expected.largest_decay, rel=1e-3)


def test_merged_classes_are_described_whatever_their_accuracy():
    layer, own = of_solution(problem(0.3))
    lost = np.array([1.0] * 5 + [0.0] * 4 + [1.0])  # a tie is won by one
    answer = ask(layer, own, lost)
    assert answer.predicted[5:] == pytest.approx(np.zeros(5))
    assert answer.measured[5:] == pytest.approx(np.zeros(5), abs=1e-6)
    assert answer.describes
    assert answer.advice.now.groups[1].state == "merged"


def test_a_lost_class_that_it_calls_distinct_closes_the_gate():
    layer, own = of_solution(problem(2e-2))
    lost = np.ones(10)
    lost[7] = 0.4
    answer = ask(layer, own, lost)
    assert not answer.describes
    assert answer.wrongly_distinct == (7,)
    assert "calls classes distinct that are lost: 7" in answer.reason


def test_margins_that_are_off_close_it_with_the_numbers():
    layer, own = of_solution(problem(2e-2))
    bias = np.zeros(10)
    bias[9] = -0.8
    answer = ask(LastLayer.of(layer.features, layer.labels, layer.weight, bias), own)
    assert "got a non-zero bias for a problem with bias='none'" in answer.reason
    free = own.replace(bias="free")
    answer = ask(LastLayer.of(layer.features, layer.labels, layer.weight, bias), free)
    assert not answer.describes
    assert answer.advice is None
    assert answer.error > 0.5
    assert "class 9: predicted" in answer.reason


def test_features_that_nothing_holds_close_it():
    """Spread features have the margins of their means, but no decay keeps them where they are."""
    layer, own = of_solution(problem(2e-2), noise=0.2)
    answer = ask(layer, own)
    assert answer.error < 0.5
    assert answer.calibration.feature_error > 0.3
    assert not answer.describes
    assert "no decay of their own holds its features" in answer.reason


def test_an_ordinary_network_is_not_described(lost):
    own = tf.Problem(lost.counts, weight_decay=1, feature_decay=1, bias="free")
    answer = ask(lost, own)
    assert not answer.describes
    assert answer.error > 3
    assert (
        set(answer.wrongly_distinct) == {5, 6, 7, 8, 9} - set(np.flatnonzero(answer.predicted <= 0))
        or answer.wrongly_distinct == ()
    )
    assert answer.to_dict()["classes"][9]["measured_margin"] < 0


def test_what_cannot_be_compared_is_said(lost):
    assert "no place in the theory" in ask(lost, None).reason
    away = LastLayer.of(lost.features, lost.labels, -lost.weight, lost.bias)
    own = tf.Problem(lost.counts, weight_decay=1, feature_decay=1, bias="free")
    assert "no decays fit" in ask(away, own).reason


def test_margins_at_the_means_are_those_of_each_class_alone(lost):
    for k, margin in enumerate(mean_margins(lost)):
        z = lost.logits(lost.features[lost.labels == k].mean(0)[None])[0]
        assert margin == pytest.approx(z[k] - np.delete(z, k).max())
