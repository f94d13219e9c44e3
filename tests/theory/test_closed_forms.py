"""Every closed form against direct minimisation, its own conditions, and the convex solver."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightframe as tf
from tests.reference import ufm
from tightframe.geometry.blocks import Partition
from tightframe.solvers import newton as factored
from tightframe.theory import thresholds as closed


def _assert_minimum(problem, dim, **options):
    solution = tf.solve(problem)
    assert solution.method.startswith("closed form")
    value, weights, means, _ = ufm.multistart(problem, dim, **options)
    assert solution.objective == pytest.approx(value, rel=1e-8)
    return solution, weights, means


# -- balanced cross-entropy ------------------------------------------------------------------------


@pytest.mark.parametrize("bias", ["none", "free"])
@pytest.mark.parametrize("decay", [1e-3, 2e-2, 0.2])
def test_balanced_cross_entropy(bias, decay):
    problem = tf.Problem("20x4", weight_decay=decay, feature_decay=decay / 5, bias=bias)
    solution, weights, means = _assert_minimum(problem, 5, starts=4)
    assert np.allclose(solution.logits, weights[0] @ means, atol=1e-4)
    if decay < 0.1:
        assert solution.geometry.distance(tf.simplex_etf(4), "classifier") < 1e-12
    else:
        assert solution.collapsed.all()
        assert solution.rank == 0


@pytest.mark.parametrize(("factor", "collapsed"), [(0.999, False), (1.001, True)])
def test_balanced_collapse_is_where_the_theorem_says(factor, collapsed):
    k, n = 5, 16
    decay = factor / (k * np.sqrt(n))
    solution = tf.solve(tf.Problem([n] * k, weight_decay=decay, feature_decay=decay))
    assert solution.collapsed.all() == collapsed
    assert (solution.objective < np.log(k) - 1e-12) != collapsed


@settings(max_examples=20)
@given(st.integers(2, 6), st.integers(1, 50), st.floats(-5, -1))
def test_balanced_form_is_the_solvers_answer(k, n, exponent):
    problem = tf.Problem([n] * k, weight_decay=10**exponent, feature_decay=10**exponent)
    numerical = factored.minimise(problem, Partition.singletons(problem), tol=1e-10)
    solution = tf.solve(problem)
    assert solution.objective == pytest.approx(numerical.certificate.primal, rel=1e-9)
    assert solution.gap <= 1e-12


# -- non-negative features -------------------------------------------------------------------------


@pytest.mark.parametrize("class_weights", [None, "balanced"])
@pytest.mark.parametrize("counts", ["20x4", "60,30,12,3", "50x2,4x3"])
@pytest.mark.parametrize("decay", [2e-3, 3e-2])
def test_nonnegative_cross_entropy(counts, decay, class_weights):
    problem = tf.Problem(
        counts,
        weight_decay=decay,
        feature_decay=decay / 4,
        features="nonnegative",
        class_weights=class_weights,
    )
    solution, weights, means = _assert_minimum(problem, problem.num_classes + 1, starts=6)
    assert np.allclose(solution.logits, weights[0] @ means, atol=1e-3)
    assert solution.class_means.min() >= 0
    gram = solution.class_means.T @ solution.class_means
    assert np.allclose(gram, np.diag(np.diagonal(gram)), atol=1e-12)
    assert np.allclose(gram, means.T @ means, atol=2e-3)


def test_nonnegative_worked_example():
    """papers.md section E: the classifier is made of scaled, centred class means."""
    n, k = np.array([500, 400, 300, 200, 100, 20]), 6
    problem = tf.Problem(n, weight_decay=2e-3, feature_decay=1e-4, features="nonnegative", dim=12)
    solution = tf.solve(problem)
    h, w = solution.class_means, solution.weights[0]
    factor = np.sqrt(1e-4 / (2e-3 * k * (k - 1)))
    expected = factor * (k * np.sqrt(n) * h - (np.sqrt(n) * h).sum(axis=1, keepdims=True)).T
    assert np.allclose(w, expected, atol=1e-12)
    assert w.shape == (6, 12)


@pytest.mark.parametrize(("factor", "vanishes"), [(0.999, False), (1.001, True)])
def test_nonnegative_classes_vanish_at_their_own_threshold(factor, vanishes):
    counts, k = [200, 50, 10], 3
    decay = factor * np.sqrt(10 * (k - 1) / k) / 260
    problem = tf.Problem(counts, weight_decay=decay, feature_decay=decay, features="nonnegative")
    assert tf.solve(problem).collapsed.tolist() == [False, False, vanishes]
    assert closed.ends(problem).groups[2].collapsed == vanishes


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 1000))
def test_nonnegative_bound_holds_for_random_factors(counts, seed):
    rng = np.random.default_rng(seed)
    k = len(counts)
    problem = tf.Problem(
        counts,
        weight_decay=1e-2,
        feature_decay=1e-2,
        features="nonnegative",
        class_weights=10 ** rng.uniform(-1, 1, k),
    )
    scale = 10 ** rng.uniform(-2, 1)
    w, h = scale * rng.normal(size=(k, k + 1)), scale * np.abs(rng.normal(size=(k + 1, k)))
    assert ufm.objective(problem, [w], h, None) >= tf.solve(problem).lower_bound


# -- MSE -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("bias", ["none", "free"])
@pytest.mark.parametrize("counts", ["20,10,5x2", "12x4"])
def test_mse(depth, bias, counts):
    problem = tf.Problem(
        counts,
        "mse",
        weight_decay=[2e-3, 4e-3, 1e-3][:depth],
        feature_decay=1e-3,
        bias=bias,
        depth=depth,
    )
    solution, weights, means = _assert_minimum(problem, 4, starts=4)
    product = means
    for weight in weights:
        product = weight @ product
    assert np.allclose(solution.logits, product, atol=1e-3)


@pytest.mark.parametrize("features", ["real", "nonnegative"])
@pytest.mark.parametrize("decay", [2e-3, 0.1])
def test_weighted_mse_is_diagonal(features, decay):
    problem = tf.Problem(
        "20,10,5x2",
        "mse",
        weight_decay=decay,
        feature_decay=decay / 2,
        features=features,
        class_weights=[0.3, 2.0, 1.0, 5.0],
    )
    solution, weights, means = _assert_minimum(problem, 5, starts=6)
    assert solution.gap <= 1e-13
    assert np.array_equal(solution.logits, np.diag(np.diagonal(solution.logits)))
    assert np.allclose(solution.logits, weights[0] @ means, atol=1e-3)
    collapse = closed.ends(problem).groups[0].logit_decay
    assert collapse == pytest.approx(0.3 * np.sqrt(20) / 40)


@pytest.mark.parametrize("bias", ["none", "free"])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_weight_of_all_classes_divides_the_decays_of_mse(bias, depth):
    problem = tf.Problem(
        "20,10,5x2", "mse", weight_decay=2e-3, feature_decay=1e-3, bias=bias, depth=depth, dim=3
    )
    weighted = problem.replace(class_weights=[3.0] * 4, weight_decay=6e-3, feature_decay=3e-3)
    one, three = tf.solve(problem), tf.solve(weighted)
    assert three.objective == pytest.approx(3 * one.objective, rel=1e-12)
    assert np.allclose(one.logits, three.logits, atol=1e-12)
    assert three.gap <= 1e-12
    above = closed.ends(weighted).total_collapse
    assert above == pytest.approx(3 * closed.ends(problem).total_collapse, rel=1e-12)


@pytest.mark.parametrize("bias", ["none", "free"])
def test_mse_without_enough_width(bias):
    problem = tf.Problem(
        "20,10,5x2", "mse", weight_decay=2e-3, feature_decay=1e-3, bias=bias, dim=2
    )
    solution, _, _ = _assert_minimum(problem, 2, starts=4)
    assert solution.rank == 2
    assert solution.collapsed.tolist() == [False, False, True, True]
    assert solution.weights[0].shape == (4, 2)


def test_mse_worked_values():
    """papers.md section C: diagonals of W W^T for n = (200, 100, 50, 50)."""
    arguments = {"loss": "mse", "feature_decay": 5e-4, "weight_decay": 5e-4}
    expected = {
        1: [13.942, 9.800, 6.871, 6.871],
        2: [33.932, 21.277, 13.305, 13.305],
        3: [52.883, 31.322, 18.502, 18.502],
    }
    for depth, diagonal in expected.items():
        solution = tf.solve(tf.Problem("200,100,50x2", depth=depth, **arguments))
        gram = solution.geometry.classifier
        assert np.allclose(np.diagonal(gram), diagonal, atol=6e-4)
        assert np.allclose(gram, np.diag(np.diagonal(gram)), atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_mse_classes_vanish_where_zero_is_cheaper(depth):
    """Around each threshold, found by scanning the scalar cost on a grid."""
    for decay in np.geomspace(1e-4, 0.5, 40):
        problem = tf.Problem("30,3x2", "mse", weight_decay=decay, feature_decay=decay, depth=depth)
        total = problem.num_samples
        for i, n in enumerate((30, 3)):
            sigma = np.linspace(0, np.sqrt(n), 200_001)
            cost = (sigma - np.sqrt(n)) ** 2 / (2 * total)
            cost += (depth + 1) / 2 * decay * sigma ** (2 / (depth + 1))
            best = sigma[np.argmin(cost)]
            margin = tf.solve(problem).group_margins[i]
            assert margin == pytest.approx(best / np.sqrt(n), abs=1e-5)


def test_mse_with_nonnegative_features_is_an_orthogonal_frame_in_the_orthant():
    arguments = {"loss": "mse", "weight_decay": 2e-3, "feature_decay": 1e-3}
    problem = tf.Problem("20,10,5x2", features="nonnegative", **arguments)
    solution, _, _ = _assert_minimum(problem, 5, starts=4)
    assert solution.class_means.min() >= 0
    real = tf.solve(problem.replace(features="real"))
    assert solution.objective == pytest.approx(real.objective, rel=1e-12)


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=6),
    st.integers(1, 3),
    st.sampled_from(["none", "free"]),
    st.integers(1, 7),
    st.integers(0, 1000),
)
def test_mse_bound_holds_for_random_factors(counts, depth, bias, dim, seed):
    rng = np.random.default_rng(seed)
    problem = tf.Problem(
        counts, "mse", weight_decay=1e-2, feature_decay=1e-3, depth=depth, bias=bias, dim=dim
    )
    k = len(counts)
    scale = 10 ** rng.uniform(-1.5, 0.5)
    shapes = [(dim, dim)] * (depth - 1) + [(k, dim), (dim, k)]
    parts = [scale * rng.normal(size=shape) for shape in shapes]
    b = None if bias == "none" else rng.normal(size=k)
    assert ufm.objective(problem, parts[:-1], parts[-1], b) >= tf.solve(problem).lower_bound


@pytest.mark.parametrize("bias", ["none", "free"])
def test_mse_form_is_the_convex_solvers_answer(bias):
    problem = tf.Problem("40,13x2,6", "mse", weight_decay=3e-3, feature_decay=2e-3, bias=bias)
    numerical = factored.minimise(problem, Partition.singletons(problem), tol=1e-10)
    solution = tf.solve(problem)
    assert solution.objective == pytest.approx(numerical.certificate.primal, rel=1e-9)
    assert np.allclose(numerical.logits.to_dense(), solution.logits, atol=1e-4)
    assert solution.note == "duality gap"
