"""No lower bound is above the minimum, whatever rounding does: against 60 digits."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

import tightframe as tf
from tests.reference import exact
from tests.strategies import label_options, per_class
from tightframe.geometry.blocks import BlockMatrix
from tightframe.problem.counts import Group
from tightframe.theory.certificate import BoundError, certify_blocks
from tightframe.theory.closed_form import relu

pytestmark = pytest.mark.filterwarnings("ignore::tightframe.NotConvergedWarning")

#: A solver that stops early has a bound all the same.
STEPS = 20


def assert_bounded(solution):
    """The bound is below the exact objective, and what is printed is that but for rounding."""
    problem, blocks, bias = solution.problem, solution.blocks, solution.group_bias
    value = exact.objective(problem, blocks.within, blocks.mean, bias)
    assert 0 <= solution.lower_bound <= value
    rounding = certify_blocks(problem, blocks, bias, enough=1.0).rounding
    assert abs(solution.objective - value) <= rounding
    # Where logits of some hundreds leave a large loss, which minimisers do not have, it is more.
    # Smoothed labels subtract logits from a loss of their size.
    share = 1e-12 if solution.status == "optimal" else 1e-10
    assert rounding <= (30 * share if problem.label_smoothing else share) * value
    return value


def scaled(counts, exponent, **options):
    """Return a problem with a lambda of 10^exponent times the one from which all is zero."""
    decay = 10.0**exponent
    one = tf.Problem(counts, weight_decay=decay, feature_decay=decay, **options)
    if exponent < -20:
        return one
    # The states of all groups, which `thresholds` gives too, take seconds.
    convex = one.features == "real" and one.depth == 1
    decay *= (tf.path_limits if convex else tf.thresholds)(one).total_collapse
    return one.replace(weight_decay=decay, feature_decay=decay)


@st.composite
def problems(draw, low=-100.0):
    """Draw a problem of the convex form, decays log-uniform up to those where all is zero."""
    counts = draw(st.lists(st.sampled_from([1, 2, 7, 40, 900, 60_000]), min_size=2, max_size=6))
    loss = draw(st.sampled_from(["cross_entropy", "cross_entropy", "cross_entropy", "mse"]))
    bias = draw(st.sampled_from(["none", "free", "decayed"]))
    exponent = draw(st.floats(low, 0.0))
    options = {"loss": loss, "bias": bias}
    if bias == "decayed":
        options["bias_decay"] = 10 ** draw(st.floats(max(exponent, -90), 1))
    options["class_weights"] = per_class(draw, [0.02, 1.0, 50.0], counts)
    features = per_class(draw, [1e-3, 0.3, 700.0], counts)
    options["feature_weights"] = "samples" if features is None else features
    if loss == "cross_entropy":
        options["logit_adjustment"] = per_class(draw, [-30.0, -1.3, 0.0, 4.0], counts)
        options["logit_scale"] = per_class(draw, [0.03, 0.7, 1.0, 9.0], counts)
        options |= label_options(draw, counts)
    return scaled(counts, exponent, **options)


@settings(max_examples=40)
@given(problems())
def test_bounds_are_below_the_exact_objective(problem):
    assert_bounded(tf.solve(problem, max_iterations=STEPS))


@pytest.mark.slow
@settings(max_examples=2000)
@given(problems())
def test_bounds_of_many_problems_are_below_the_exact_objective(problem):
    assert_bounded(tf.solve(problem, max_iterations=STEPS))


def test_the_bound_of_nearly_one_hot_predictions():
    """1.4e-8 above the minimum once: probabilities of 1e-17 were rounded up from below zero."""
    problem = tf.Problem(
        [63843, 12, 1, 877, 9464, 2, 119],
        weight_decay=1e-14,
        feature_decay=1e-14,
        logit_adjustment=[-3.9, 0.7, -4.9, 4, -1.6, -1.3, 0.5],
    )
    solution = tf.solve(problem)
    assert_bounded(solution)
    assert solution.status == "optimal"


@pytest.mark.parametrize(
    "decay", [pytest.param(1e-100, marks=pytest.mark.slow), 1e-16, 1e-8, 1e-3, 0.1]
)
@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_small_decays_are_certified_relative_to_the_objective(bias, decay):
    problem = tf.Problem(
        "500x2,40,3",
        weight_decay=decay,
        feature_decay=decay,
        bias=bias,
        bias_decay=decay if bias == "decayed" else None,
    )
    solution = tf.solve(problem)
    value = assert_bounded(solution)
    assert solution.status == "optimal"
    assert value - solution.lower_bound <= 1e-8 * value


# -- closed forms: the exact minimum is known ------------------------------------------------------

FAMILIES = [
    ("balanced", exact.balanced_minimum, {}),
    ("balanced", exact.balanced_minimum, {"bias": "free"}),
    ("balanced", exact.balanced_minimum, {"bias": "decayed", "bias_decay": 1e-3}),
    ("any", exact.nonnegative_minimum, {"features": "nonnegative"}),
    ("any", exact.quadratic_minimum, {"loss": "mse"}),
    ("any", exact.quadratic_minimum, {"loss": "mse", "features": "nonnegative"}),
    ("any", exact.quadratic_minimum, {"loss": "mse", "bias": "free"}),
    ("any", exact.quadratic_minimum, {"loss": "mse", "depth": 2}),
    ("any", exact.quadratic_minimum, {"loss": "mse", "depth": 3, "bias": "free"}),
]


@settings(max_examples=60)
@given(
    st.sampled_from(FAMILIES),
    st.lists(st.sampled_from([1, 2, 7, 40, 900, 60_000]), min_size=2, max_size=6),
    st.floats(-100.0, 0.5),
    st.sampled_from([None, 0.02, 50.0]),
)
def test_closed_forms_are_bounded_by_their_exact_minimum(family, counts, exponent, weight):
    kind, minimum, options = family
    if kind == "balanced":
        counts = counts[:1] * len(counts)
    if "loss" not in options and weight is not None:
        options = options | {"class_weights": [weight] * len(counts)}
    problem = scaled(counts, exponent, **options)
    solution = tf.solve(problem)
    assert solution.method.startswith("closed form")
    least = minimum(problem)
    assert solution.lower_bound <= least
    if problem.depth == 1:
        assert solution.gap >= (assert_bounded(solution) - least) * (1 - 1e-12)
    if problem.loss == "cross_entropy" or exponent > -15:
        assert solution.gap <= 1e-11 * solution.objective


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("decay", [1e-30, 1e-12, 1e-8])
def test_a_million_classes_are_bounded(loss, bias, decay):
    problem = tf.Problem(
        "3000x300000,200x300000,1x400000",
        loss,
        weight_decay=decay,
        feature_decay=decay,
        bias=bias,
        bias_decay=decay if bias == "decayed" else None,
    )
    assert_bounded(tf.solve(problem))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 3), st.floats(-12, -2))
def test_deep_objectives_are_those_of_the_factors(seed, depth, exponent):
    """Exactly multiplied: the logits' rounding would count as singular values."""
    counts = np.random.default_rng(seed).integers(1, 60, size=4)
    problem = tf.Problem(
        counts, "mse", weight_decay=10**exponent, feature_decay=10**exponent, depth=depth
    )
    solution = tf.solve(problem)
    with mp.workdps(exact.DIGITS):
        layers = [mp.matrix(layer.tolist()) for layer in solution.weights]
        product = mp.matrix(solution.class_means.tolist())
        squares = sum(
            int(n) * product[i, k] ** 2 for k, n in enumerate(counts) for i in range(product.rows)
        )
        value = exact.number(problem.feature_decay) / 2 * squares
        for layer, decay in zip(layers, problem.weight_decays, strict=True):
            value += exact.number(decay) / 2 * sum(x**2 for x in layer)
            product = layer * product
        for k, n in enumerate(counts):
            misses = [(product[j, k] - (j == k)) ** 2 for j in range(4)]
            value += mp.mpf(int(n)) / int(counts.sum()) * sum(misses) / 2
    assert solution.lower_bound <= value
    rounding = certify_blocks(problem, solution.blocks, solution.group_bias).rounding
    # The factors' own entries are rounded too, which changes decay costs by that share.
    assert abs(solution.objective - value) <= rounding + 1e-14 * value


# -- everything else that prints a bound -----------------------------------------------------------


@settings(max_examples=12)
@given(problems(low=-30.0), st.integers(0, 10**6), st.sampled_from([1e-9, 1e-3, 1.0, 30.0]))
def test_bounds_of_any_candidate_are_below_the_best_objective(problem, seed, scale):
    """Near the minimiser and far from it."""
    best = tf.solve(problem, max_iterations=STEPS)
    rng = np.random.default_rng(seed)
    k = problem.num_classes
    logits = best.logits + scale * rng.normal(size=(k, k))
    bias = None if problem.bias == "none" else best.bias + scale * rng.normal(size=k)
    value = exact.objective(problem, best.blocks.within, best.blocks.mean, best.group_bias)
    found = tf.certify(problem, logits, bias)
    assert 0 <= found.dual <= value
    improved = tf.certify(problem, logits, bias, lower_bound=best.lower_bound)
    assert found.dual <= improved.dual <= max(found.dual, best.lower_bound)
    apart = BlockMatrix.from_dense(problem, logits)
    bias = np.zeros(k) if bias is None else bias
    singles = problem_of_singles(problem)
    assert (
        abs(found.primal - exact.objective(singles, 0 * bias, apart.mean, bias)) <= found.rounding
    )


def problem_of_singles(problem):
    """Return the same problem for `exact`, every class a group of its own."""
    return SimpleNamespace(
        groups=[Group(int(n), 1) for n in problem.counts],
        group_weights=problem.class_weights,
        group_adjustment=problem.logit_adjustment,
        group_margins=problem.class_margins,
        group_scales=problem.logit_scale,
        group_feature_weights=problem.feature_weights,
        label_smoothing=problem.label_smoothing,
        smoothing_weights=problem.smoothing_weights,
        weight_decays=problem.weight_decays,
        feature_decay=problem.feature_decay,
        bias_decay=problem.bias_decay,
        loss=problem.loss,
        features=problem.features,
    )


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_bounds_along_a_path_are_below_the_exact_objectives(loss, bias):
    problem = tf.Problem(
        "900x2,40,7x3",
        loss,
        weight_decay=1e-3,
        feature_decay=1.0,
        bias=bias,
        bias_decay=0.01 if bias == "decayed" else None,
    )
    path = tf.path(problem, weight_decay=np.geomspace(1e-20, 1.0, 60))
    assert any("interpolation" in solution.method for solution in path.solutions) == (
        loss == "cross_entropy" or bias == "decayed"
    )
    for solution in path.solutions[::3]:
        assert_bounded(solution)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=7), st.integers(0, 10**6))
def test_svm_bounds_are_below_the_exact_nuclear_norm(counts, seed):
    """SELI separates with margin one exactly: its norm is at least the minimum."""
    k = len(counts)
    noise = 1e-6 * np.random.default_rng(seed).normal(size=(k, k))
    with mp.workdps(exact.DIGITS):
        rows = [
            [((i == j) - mp.mpf(1) / k) * mp.sqrt(counts[j]) for j in range(k)] for i in range(k)
        ]
        norm = exact.nuclear_norm(rows)
    for found in (tf.certify_svm(counts), tf.certify_svm(counts, np.eye(k) - 1 / k + noise)):
        assert 0 <= found.dual <= norm
        assert found.gap >= 0
    assert abs(tf.certify_svm(counts).primal - norm) <= tf.certify_svm(counts).rounding


def test_a_bound_above_an_objective_is_an_error_that_shouts(monkeypatch):
    problem = tf.Problem("9x2,4", weight_decay=1e-2, feature_decay=1e-2, features="nonnegative")
    minimum = tf.solve(problem).objective
    monkeypatch.setattr(relu, "lower_bound", lambda problem: minimum * (1 + 1e-12))
    with pytest.raises(BoundError, match=r"internal error: .* Please report this, with Problem"):
        tf.solve(problem)
    monkeypatch.setattr(relu, "lower_bound", lambda problem: minimum * (1 + 1e-15))
    assert tf.solve(problem).gap > 0


def test_a_known_bound_is_judged_relative_to_the_objective():
    problem = tf.Problem("9x2,4", weight_decay=1e-40, feature_decay=1e-40)
    best = tf.solve(problem)
    with pytest.raises(ValueError, match="not a lower bound of this problem"):
        tf.certify(problem, best.logits, lower_bound=2 * best.objective)


@pytest.mark.filterwarnings("ignore:solve stopped")
@pytest.mark.parametrize("bias", ["free", "decayed"])
@pytest.mark.parametrize("ratio", [1.0, 1e60])
def test_a_minimum_below_all_rounding_is_bounded(bias, ratio):
    """Weights ten orders apart: rounding of logits alone costs 1e-33, the minimum is near 1e-59."""
    options = {"loss": "mse", "bias": bias, "class_weights": [1, 1e-9, 10, 1]}
    if bias == "decayed":
        options["bias_decay"] = 1e-3
    decays = {"weight_decay": 1e-60 * ratio**0.5, "feature_decay": 1e-60 / ratio**0.5}
    problem = tf.Problem([50, 7, 3, 20], **decays, **options)
    targets = (np.eye(4) - 0.25 * (bias == "free")) * np.sqrt(problem.counts)
    reached = problem.logit_decay * np.linalg.svd(targets, compute_uv=False).sum()
    bound = tf.solve(problem, max_iterations=50).lower_bound
    assert 0.3 * reached < bound <= reached
