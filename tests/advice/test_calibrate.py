"""Fitted decays: a minimiser has its own, and the errors are those of PyTorch's gradients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightframe as tf
from tests.strategies import convex_problems
from tightframe.advice.calibrate import fitted

STEP = tf.Problem("30x2,8x3", weight_decay=2e-2, feature_decay=3e-3)


def samples(problem, solution):
    labels = np.repeat(np.arange(problem.num_classes), problem.counts)
    bias = None if problem.bias == "none" else solution.bias
    return solution.weights[0], solution.class_means.T[labels], labels, bias


@settings(max_examples=30)
@given(convex_problems(), st.floats(0.5, 2))
def test_a_minimiser_has_its_own_decays(problem, scale):
    solution = tf.solve(problem, 1e-13)
    if np.abs(solution.logits).max() < 1e-3:
        return  # nothing is left to measure
    fit = tf.calibrate(
        problem.replace(weight_decay=scale, feature_decay=scale), *samples(problem, solution)
    )
    assert fit.weight_decay == pytest.approx(problem.weight_decays[0], rel=1e-3)
    assert fit.feature_decay == pytest.approx(problem.feature_decay, rel=1e-3)
    assert fit.weight_error < 0.02
    assert fit.feature_error < 0.02
    assert fit.logits_distance < 0.02


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_a_minimiser_with_relu_features_has_its_own_decays(bias):
    """Where a feature is zero its gradient need not vanish: complementarity leaves the identity."""
    problem = tf.Problem(
        "30x2,8x3",
        weight_decay=2e-2,
        feature_decay=3e-3,
        bias=bias,
        bias_decay=1e-2 if bias == "decayed" else None,
        features="nonnegative",
    )
    solution = tf.solve(problem)
    w, h, y, b = samples(problem, solution)
    fit = tf.calibrate(problem.replace(weight_decay=1.0, feature_decay=1.0), w, h, y, b)
    assert fit.weight_decay == pytest.approx(2e-2, rel=1e-6)
    assert fit.feature_decay == pytest.approx(3e-3, rel=1e-6)
    assert max(fit.weight_error, fit.feature_error, fit.logits_distance) < 1e-6
    # For real features the same network is far from stationary.
    real = problem.replace(features="real")
    assert tf.calibrate(real, w, h, y, b).feature_error > 0.1
    with pytest.raises(ValueError, match="features: got -1, need none below 0"):
        tf.calibrate(problem, w, h - (h == h.max()) * (1 + h), y, b)


def test_some_samples_of_every_class_stand_for_all():
    solution = tf.solve(STEP)
    w, h, y, b = samples(STEP, solution)
    some = np.r_[0:7, 30:37, 60, 68:75, 76]
    found = fitted(STEP, w, h[some], y[some], b, whole=False)
    assert found.weight_decay == pytest.approx(2e-2, rel=1e-3)
    assert found.feature_decay == pytest.approx(3e-3, rel=1e-3)
    with pytest.raises(ValueError, match="labels: their counts are not the problem's"):
        fitted(STEP, w, h[some], y[some], b)
    with pytest.raises(ValueError, match="labels: no sample of class 4"):
        fitted(STEP, w, h[some[:-1]], y[some[:-1]], b, whole=False)


def test_other_lengths_are_other_decays():
    """A turn between W and H keeps the logits and trades one decay for the other."""
    w, h, y, _ = samples(STEP, tf.solve(STEP))
    fit = tf.calibrate(STEP, 2 * w, h / 2, y)
    assert fit.weight_decay == pytest.approx(STEP.weight_decay / 4, rel=1e-3)
    assert fit.feature_decay == pytest.approx(STEP.feature_decay * 4, rel=1e-3)


def test_errors_tell_of_a_network_that_is_no_stationary_point():
    rng = np.random.default_rng(0)
    w, h, y, _ = samples(STEP, tf.solve(STEP))
    fit = tf.calibrate(STEP, w, h + 0.5 * rng.normal(size=h.shape), y)
    assert fit.feature_error > 0.3
    assert fit.to_dict()["logit_decay"] == fit.problem.logit_decay


def test_the_errors_are_what_is_left_of_the_gradient():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    w, h, y, _ = samples(STEP, tf.solve(STEP))
    w, h = w + 0.1 * rng.normal(size=w.shape), h + 0.1 * rng.normal(size=h.shape)
    fit = tf.calibrate(STEP, w, h, y)
    tw, th = (torch.tensor(a, requires_grad=True) for a in (w, h))
    torch.nn.functional.cross_entropy(th @ tw.T, torch.tensor(y)).backward()
    for gradient, x, decay, error in (
        (tw.grad, tw, fit.weight_decay, fit.weight_error),
        (th.grad, th, fit.feature_decay, fit.feature_error),
    ):
        left = (gradient + decay * x).norm() / (decay * x.norm())
        assert error == pytest.approx(left.item(), rel=1e-9)
        # Least squares: no other decay leaves less.
        for factor in (0.99, 1.01):
            other = gradient + factor * decay * x
            assert other.norm() > (gradient + decay * x).norm()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (0, np.zeros((5, 5)), "features: the loss does not pull"),
        (0, np.zeros((4, 5)), "weight, features, bias: got shapes"),
        (0, np.full((5, 5), np.nan), "weight: entries must be finite"),
        (0, "abc", "weight: got"),
        (1, np.zeros((84, 5)), "features: the loss does not pull"),
        (1, np.zeros((3, 5)), "labels: got int64 of shape"),
        (1, np.zeros(84), "features: got float64 of shape"),
        (2, np.zeros(84, dtype=int), "labels: their counts are not the problem's"),
        (2, np.full(84, 9), "labels: from 9 to 9, need 0 to 4"),
        (2, np.zeros(84), "labels: got float64"),
        (3, np.ones(5), "bias: got a non-zero bias"),
    ],
)
def test_bad_arrays_are_named(part, value, message):
    arrays = list(samples(STEP, tf.solve(STEP)))
    arrays[part] = value
    with pytest.raises(ValueError, match=message):
        tf.calibrate(STEP, *arrays)


def test_problems_that_cannot_be_fitted():
    arrays = samples(STEP, tf.solve(STEP))
    for changes in ({"depth": 2},):
        with pytest.raises(ValueError, match="problem: calibration needs"):
            tf.calibrate(STEP.replace(**changes), *arrays)
    with pytest.raises(ValueError, match="problem: got str"):
        tf.calibrate("3x2", *arrays)


@pytest.mark.parametrize(
    "terms",
    [
        {"label_smoothing": 0.1},
        {"class_margins": "0x2,0.5x3"},
        {"logit_scale": "1x2,0.6x3", "bias": "free"},
        {"feature_weights": "contexts"},
        {
            "label_smoothing": 0.1,
            "smoothing_weights": "labels",
            "class_weights": "1x2,3x3",
            "class_margins": "0x2,0.2x3",
            "logit_scale": "1x2,0.7x3",
            "feature_weights": "30x2,4x3",
            "bias": "decayed",
            "bias_decay": 0.1,
        },
    ],
)
def test_terms_of_the_loss_are_calibrated_with(terms):
    problem = tf.Problem("30x2,8x3", weight_decay=2e-2, feature_decay=2e-3, **terms)
    trained = samples(problem, tf.solve(problem, 1e-12))
    fit = tf.calibrate(problem.replace(weight_decay=1.0, feature_decay=1.0), *trained)
    assert fit.weight_decay == pytest.approx(2e-2, rel=1e-4)
    assert fit.feature_decay == pytest.approx(2e-3, rel=1e-4)
    assert max(fit.weight_error, fit.feature_error, fit.logits_distance) < 1e-3
    # Who trains so and does not say so fits other decays.
    plain = tf.Problem(problem.compact_counts, weight_decay=1.0, feature_decay=1.0, bias="free")
    unsaid = tf.calibrate(plain, *trained)
    assert abs(np.log(unsaid.problem.logit_decay / problem.logit_decay)) > 0.01
