"""Contexts that were not trained: those that were, again; new ones of little weight; bad input."""

import numpy as np
import pytest
from scipy.optimize import minimize

import tightframe as tf

P1 = np.array([[0.7, 0.1, 0, 0.25, 0], [0.2, 0.6, 0.5, 0.25, 0], [0.1, 0.3, 0.5, 0.25, 0]])
P1 = np.vstack([P1, 1 - P1.sum(axis=0)])
COUNTS = np.array([40, 30, 20, 10, 5])


def problem(**options):
    defaults = {"bias": "decayed", "bias_decay": 0.02} | options
    defaults = {"weight_decay": 0.03, "feature_decay": 0.01} | defaults
    return tf.Problem(COUNTS, targets=P1, **defaults)


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": "none", "bias_decay": None}, {"feature_weights": "contexts"}],
)
def test_what_was_trained_is_found_again(options):
    found = tf.solve(problem(**options), tol=1e-12)
    again = found.embed(P1, counts=COUNTS)
    assert np.abs(again.logits - found.logits).max() < 1e-5
    assert np.abs(again.features - found.class_means).max() < 1e-5
    assert (again.errors < 1e-8).all()


def test_a_new_context_of_little_weight_is_where_training_puts_it():
    new = np.array([0.05, 0.15, 0.3, 0.5])
    small = tf.solve(
        problem().replace(counts=[*(1000 * COUNTS), 1], targets=np.c_[P1, new], feature_decay=1e-5),
        tol=1e-13,
    )
    without = tf.solve(problem().replace(counts=1000 * COUNTS, feature_decay=1e-5), tol=1e-12)
    found = without.embed(new, counts=1)
    assert np.abs(found.logits[:, 0] - small.logits[:, -1]).max() < 1e-3
    assert np.abs(found.logits[:, 0]).max() > 0.1


def test_errors_bound_the_distance_from_an_independent_minimiser():
    solution = tf.solve(problem(), tol=1e-12)
    p = np.random.default_rng(0).dirichlet(np.ones(4), 3).T
    found = solution.embed(p, counts=[1, 2, 3], class_weights=2.0)
    w, b, decay = solution.weights[0], solution.bias, 0.01 * 105 / 2
    for j in range(3):

        def value(h, j=j):
            z = w @ h + b
            return np.log(np.exp(z).sum()) - p[:, j] @ z + decay / 2 * h @ h

        end = minimize(value, np.zeros(w.shape[1]), method="BFGS", options={"gtol": 1e-9})
        assert np.linalg.norm(end.x - found.features[:, j]) < 1e-6
        assert value(found.features[:, j]) <= end.fun + 1e-12


@pytest.mark.parametrize("feature_weights", ["samples", "contexts"])
def test_features_are_no_further_from_a_trained_context_than_the_bound(feature_weights):
    solution = tf.solve(problem(feature_weights=feature_weights), tol=1e-12)
    rng = np.random.default_rng(1)
    p = 0.9 * P1[:, [0, 2, 4, 1]] + 0.1 * rng.dirichlet(np.ones(4), 4).T
    counts = [1, 20, 2, 7]
    found = solution.embed(p, counts=counts)
    means = solution.class_means
    distances = np.linalg.norm(found.features[:, :, None] - means[:, None], axis=0)
    own = distances[np.arange(4), found.nearest]
    assert (own <= found.bounds + found.errors + 1e-9).all()
    assert (own > 0.01 * found.bounds).all()
    # By the formula: kappa over the decay times the distance of the distributions.
    omega = np.array(counts if feature_weights == "samples" else np.ones(4))
    kappas = counts / COUNTS.sum() / omega
    w = solution.weights[0]
    if feature_weights == "samples":
        formula = kappas / 0.01 * np.linalg.norm(w.T @ (p - P1[:, found.nearest]), axis=0)
        np.testing.assert_allclose(found.bounds, formula, rtol=1e-4)
        assert found.nearest.tolist() == [0, 2, 4, 1]


def test_training_a_near_context_keeps_it_within_the_bound():
    """Solved again with the context added: a weight of one in a hundred thousand."""
    new = 0.95 * P1[:, 1] + 0.05 * P1[:, 3]
    counts = 1000 * COUNTS
    decayed = problem().replace(counts=counts, feature_decay=1e-5)
    (bound,) = tf.solve(decayed, tol=1e-12).embed(new, counts=1).bounds
    both = decayed.replace(counts=[*counts, 1], targets=np.c_[P1, new])
    means = tf.solve(both, tol=1e-12).class_means
    distance = np.linalg.norm(means[:, -1] - means[:, 1])
    assert 0.1 * bound < distance < 1.001 * bound
    # The bound is no empty one: other contexts are further away.
    assert bound < np.linalg.norm(means[:, -1] - means[:, 2])


def test_a_trained_context_is_its_own_nearest():
    solution = tf.solve(problem(dim=3), tol=1e-12)
    found = solution.embed(P1, counts=COUNTS)
    assert found.nearest.tolist() == list(range(5))
    assert found.bounds.max() < 1e-5
    assert found.features.shape == (3, 5)
    nothing = tf.solve(problem(weight_decay=10.0), tol=1e-12).embed(P1)
    assert nothing.bounds.tolist() == [0.0] * 5


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([0.5, 0.5], {}, r"targets: got shape \(2,\)"),
        ([[0.5] * 3] * 4, {}, "targets: column 0 is no distribution"),
        ([0.5, 0.5, 0.5, -0.5], {}, "targets: column 0"),
        ([np.nan, 1, 0, 0], {}, "targets: column 0"),
        ("abcd", {}, "targets: got 'abcd', need numbers"),
        (P1[:, :2], {"counts": [1, 2, 3]}, r"counts: got \[1, 2, 3\]"),
        (P1[:, :2], {"counts": 0}, "counts: got 0"),
        (P1[:, :2], {"class_weights": -1}, "class_weights: got -1"),
        (P1[:, :2], {"feature_weights": np.inf}, "feature_weights: got inf"),
    ],
)
def test_bad_contexts_are_named(arguments, options, message):
    solution = tf.solve(problem())
    with pytest.raises(ValueError, match=message):
        solution.embed(arguments, **options)


def test_feature_weights_of_its_own_are_asked_for():
    solution = tf.solve(problem(feature_weights=[3, 1, 4, 1, 5]))
    with pytest.raises(ValueError, match="feature_weights: missing"):
        solution.embed(P1)
    again = solution.embed(P1, counts=COUNTS, feature_weights=[3, 1, 4, 1, 5])
    assert np.abs(again.logits - solution.logits).max() < 1e-3
