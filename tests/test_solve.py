import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightframe as tf
from tests.reference import ufm
from tests.strategies import convex_problems
from tightframe.geometry.blocks import Partition
from tightframe.solvers import newton as factored
from tightframe.solvers.continuation import ContinuationOptions
from tightframe.solvers.search import multistart
from tightframe.solvers.splitting import SplittingOptions
from tightframe.solvers.starts import Factors
from tightframe.solvers.sweep import SweepOptions
from tightframe.theory import thresholds as closed


@settings(max_examples=25)
@given(convex_problems())
def test_agrees_with_cvxpy(problem):
    value, _, _ = ufm.convex_minimum(problem)
    solution = tf.solve(problem)
    assert solution.objective == pytest.approx(value, rel=2e-6, abs=2e-7)
    # An interior-point solver stops just above the minimum; ours may not be above its value.
    assert solution.objective <= value * (1 + 1e-7) + 1e-9


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("counts", ["40x2,5x3", "60,20,9,4", "8x4"])
def test_agrees_with_direct_minimisation(bias, counts):
    decay = 0.01 if bias == "decayed" else None
    problem = tf.Problem(counts, weight_decay=1e-2, feature_decay=2e-3, bias=bias, bias_decay=decay)
    value, weights, means, found_bias = ufm.multistart(problem, problem.num_classes, starts=3)
    solution = tf.solve(problem)
    assert solution.objective == pytest.approx(value, rel=1e-9)
    logits = weights[0] @ means
    assert np.allclose(solution.logits, logits, atol=1e-3 * np.abs(logits).max())
    measured = tf.Geometry.from_vectors(weights[0], means)
    assert solution.geometry.distance(measured, "classifier") < 1e-3
    assert solution.geometry.distance(measured, "means") < 1e-3
    if bias != "none":
        centred = found_bias - found_bias.mean() * (bias == "free")
        assert np.allclose(solution.bias, centred, atol=1e-3)


@settings(max_examples=30)
@given(convex_problems())
def test_symmetry_loses_nothing(problem):
    """Solving without the group reduction gives the same minimum and the same logits."""
    full = factored.minimise(problem, Partition.singletons(problem), tol=1e-9)
    solution = tf.solve(problem, tol=1e-9)
    assert full.converged
    assert solution.objective == pytest.approx(full.certificate.primal, rel=2e-9)
    scale = max(np.abs(solution.logits).max(), 1e-3)
    assert np.allclose(full.logits.to_dense(), solution.logits, atol=1e-2 * scale)


@settings(max_examples=30)
@given(convex_problems(), st.integers(0, 1000))
def test_solution_is_equivariant(problem, seed):
    order = np.random.default_rng(seed).permutation(problem.num_classes)
    one = tf.solve(problem, tol=1e-10)
    two = tf.solve(problem.reordered(order), tol=1e-10)
    assert two.objective == pytest.approx(one.objective, rel=1e-9)
    scale = max(np.abs(one.logits).max(), 1e-3)
    assert np.allclose(two.logits, one.logits[np.ix_(order, order)], atol=1e-2 * scale)
    assert (two.collapsed == one.collapsed[order]).all()


@settings(max_examples=40)
@given(convex_problems())
def test_factors_attain_the_objective(problem):
    solution = tf.solve(problem)
    bias = None if problem.bias == "none" else solution.bias
    value = ufm.objective(problem, solution.weights, solution.class_means, bias)
    assert value == pytest.approx(solution.objective, rel=1e-10)
    assert np.allclose(solution.weights[0] @ solution.class_means, solution.logits, atol=1e-10)


# -- class weights and logit adjustment ------------------------------------------------------------

REWEIGHTED = {"class_weights": "1x2,0.2x3,6x2", "logit_adjustment": "0.5x2,-2x3,1x2"}


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_weighted_and_adjusted_loss_agrees_with_direct_minimisation(bias):
    decay = 0.01 if bias == "decayed" else None
    decays = {"weight_decay": 1e-2, "feature_decay": 1e-3, "bias": bias, "bias_decay": decay}
    problem = tf.Problem("30x2,5x5", **decays, **REWEIGHTED)
    assert len(problem.groups) == 3
    value, weights, means, _ = ufm.multistart(problem, problem.num_classes, starts=3)
    solution = tf.solve(problem)
    assert solution.objective == pytest.approx(value, rel=1e-9)
    logits = weights[0] @ means
    assert np.allclose(solution.logits, logits, atol=1e-3 * np.abs(logits).max())


def test_a_free_bias_undoes_any_logit_adjustment():
    plain = tf.Problem("40,12,5x2", weight_decay=1e-2, feature_decay=2e-3, bias="free")
    adjusted = plain.replace(logit_adjustment="prior")
    one, two = tf.solve(plain, 1e-12), tf.solve(adjusted, 1e-12)
    assert two.objective == pytest.approx(one.objective, rel=1e-11)
    assert np.allclose(two.logits, one.logits, atol=1e-5)
    shifted = two.bias + adjusted.logit_adjustment
    assert np.allclose(shifted - shifted.mean(), one.bias, atol=1e-5)


def test_equal_weights_divide_the_decays():
    problem = tf.Problem("40,12,5x2", weight_decay=1e-2, feature_decay=2e-3)
    weighted = tf.solve(problem.replace(class_weights="4x4"), 1e-12)
    divided = tf.solve(problem.replace(weight_decay=2.5e-3, feature_decay=5e-4), 1e-12)
    assert weighted.objective == pytest.approx(4 * divided.objective, rel=1e-11)
    assert np.allclose(weighted.logits, divided.logits, atol=1e-5)


def test_balanced_weights_do_what_balancing_repeats_do_not():
    """Weights act on the loss alone; repeating samples shares the features' decay among them."""
    decays = {"weight_decay": 2e-3, "feature_decay": 2e-3}
    weighted = tf.solve(tf.Problem("500x5,100x5", class_weights="balanced", **decays))
    repeated = tf.solve(tf.Problem("500x10", **decays))
    assert weighted.margins[-1] > repeated.margins[-1] > 0


@pytest.mark.parametrize("depth", [1, 2])
def test_weighted_search_of_narrow_and_deep_problems(depth):
    problem = tf.Problem(
        "9x2,4x2",
        weight_decay=1e-2,
        feature_decay=1e-3,
        depth=depth,
        dim=2,
        class_weights="1x2,3x2",
        logit_adjustment="0x3,1",
    )
    value, *_ = ufm.multistart(problem, 2, starts=40)
    assert tf.solve(problem).objective == pytest.approx(value, rel=1e-7)


# -- what the issue asks for, word for word --------------------------------------------------------


def test_minority_is_distinct_below_its_threshold():
    solution = tf.solve(tf.Problem("500x5,100x5", weight_decay=0.005, feature_decay=0.001))
    assert solution.gap <= 1e-7
    assert solution.status == "optimal"
    assert not solution.collapsed.any()
    assert solution.rank == 9


def test_minority_collapses_exactly_above_its_threshold():
    solution = tf.solve(tf.Problem("500x5,100x5", weight_decay=0.02, feature_decay=0.001))
    assert solution.gap <= 1e-7
    assert solution.collapsed.tolist() == [False] * 5 + [True] * 5
    assert (solution.margins[5:] == 0).all()  # exactly, not 1e-8
    assert (solution.margins[:5] > 1).all()
    minority = solution.class_means[:, 5:]
    assert np.allclose(minority, minority[:, :1], atol=1e-12)


@pytest.mark.parametrize("f", [1e-6, 1e-4, 1e-2, 0.5, 0.99])
@pytest.mark.parametrize("bias", ["none", "free"])
def test_certified_from_vanishing_to_total_decay(f, bias):
    counts = [5, 9, 13, 40, 90, 210]
    unit = tf.Problem(counts, weight_decay=1, feature_decay=1, bias=bias)
    largest = closed.ends(unit).total_collapse
    problem = tf.Problem(counts, weight_decay=f * largest, feature_decay=f * largest, bias=bias)
    solution = tf.solve(problem)
    assert solution.gap <= 1e-8 * solution.objective
    assert np.abs(solution.logits).max() > 0


@pytest.mark.parametrize(
    ("counts", "bias", "exponent"),
    [
        ("100,60,36,22,13,8,5,3,2,1", "none", -17),
        ("61,7,48,1,6,9,8,2", "none", -22.4),
        ("1,2,4,5,6,57,283,623,624,841", "free", -18.8),
        ("2,10,12,16,23,247,294,676", "free", -22.5),
    ],
)
def test_steps_that_rounding_leads_astray_are_made_shorter(counts, bias, exponent):
    """Far below the machine's precision conjugate gradients may end where the model is higher."""
    total = tf.Problem(counts, weight_decay=1.0, feature_decay=1.0).num_samples
    decay = 10**exponent / total
    solution = tf.solve(tf.Problem(counts, weight_decay=decay, feature_decay=decay, bias=bias))
    assert solution.status == "optimal"
    assert 0 <= solution.gap <= 1e-8 * solution.objective


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_every_start_ends_at_the_same_minimum(bias):
    counts = np.arange(5, 5 + 2 * 40, 2)
    decay = np.sqrt(5) / counts.sum() / 2
    problem = tf.Problem(
        counts,
        weight_decay=decay,
        feature_decay=decay,
        bias=bias,
        bias_decay=0.01 if bias == "decayed" else None,
    )
    solution = tf.solve(problem)
    assert solution.gap <= 1e-8 * solution.objective
    partition, g = Partition.coarsest(problem), len(counts)
    rng = np.random.default_rng(0)
    starts = [
        Factors(np.zeros((g, 0)), np.zeros((g, 0)), np.zeros(g), np.zeros(g)),
        Factors(*rng.normal(size=(2, g, g)), np.zeros(g), rng.normal(size=g)),
    ]
    for start in starts:
        other = factored.minimise(problem, partition, tol=1e-8, start=start)
        assert other.converged
        assert solution.objective == pytest.approx(other.certificate.primal, rel=2e-8)
        assert other.logits.rank == solution.rank
    options = factored.NewtonOptions(split_groups=10)
    pooled = factored.minimise(problem, partition, tol=1e-8, options=options)
    assert solution.objective == pytest.approx(pooled.certificate.primal, rel=2e-8)


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_two_independent_solvers_agree(loss, bias):
    """Newton on grouped factors, certified, and batched L-BFGS on all classes, from random."""
    problem = tf.Problem(
        "40x2,15x2,6",
        loss,
        weight_decay=8e-3,
        feature_decay=2e-2,
        bias=bias,
        bias_decay=0.05 if bias == "decayed" else None,
    )
    solution = tf.solve(problem, 1e-10)
    found = multistart.search(problem, starts=2, seed=0, max_iterations=5000, relaxed=None)
    assert solution.lower_bound <= found.objective * (1 + 1e-14)
    assert found.objective == pytest.approx(solution.objective, rel=1e-8)
    difference = np.abs(found.logits.to_dense() - solution.logits).max()
    assert difference < 1e-3  # the objective is flat to second order


def test_vanishing_decay_approaches_seli():
    distances = []
    for decay in (1e-3, 1e-4, 1e-5, 1e-6):
        problem = tf.Problem("100x2,10x2", weight_decay=decay, feature_decay=decay)
        distances.append(tf.solve(problem).geometry.distance(tf.seli("100x2,10x2"), "logits"))
    assert distances == sorted(distances, reverse=True)
    assert distances == pytest.approx([0.19, 0.13, 0.10, 0.08], abs=0.005)  # theory.md section 5


def test_a_million_classes():
    problem = tf.Problem("1000x100000,100x400000,10x500000", weight_decay=1e-7, feature_decay=1e-7)
    solution = tf.solve(problem)
    assert solution.gap <= 1e-8 * solution.objective
    assert solution.group_collapsed.tolist() == [False, True, True]
    assert len(solution.margins) == 1_000_000
    with pytest.raises(ValueError, match="1000000 classes would need"):
        _ = solution.logits
    with pytest.raises(ValueError, match="1000000 classes would need"):
        _ = solution.geometry


def test_non_convergence_is_said():
    problem = tf.Problem("60,20,9,4", weight_decay=1e-2, feature_decay=2e-3)
    with pytest.warns(tf.NotConvergedWarning, match="relative gap"):
        solution = tf.solve(problem, max_iterations=1)
    assert solution.status == "not_converged"
    assert solution.gap > 1e-8 * solution.objective
    best = tf.solve(problem)
    assert solution.gap >= solution.objective - best.objective > 0


def test_solving_twice_gives_the_same_bits():
    problem = tf.Problem("60,20,9,4x3", weight_decay=1e-2, feature_decay=2e-3, bias="free")
    assert np.array_equal(tf.solve(problem).logits, tf.solve(problem).logits)


def test_summary_is_json_ready():
    import json

    solution = tf.solve(tf.Problem("500x5,100x5", weight_decay=0.02, feature_decay=0.001))
    summary = json.loads(json.dumps(solution.to_dict(), allow_nan=False))
    assert summary["groups"][1] == {
        "count": 100,
        "classes": 5,
        "state": "merged",
        "decision_margin": 0.0,
        "sibling_margin": 0.0,
        "rival": 0,
        "with": [],
        "margin": 0.0,
        "collapsed": True,
        "class_weight": 1.0,
        "logit_adjustment": 0.0,
    }
    assert summary["gap"] == solution.gap
    assert tf.Problem(**summary["problem"]) == solution.problem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "'cross_entropy' are solved for depth 1, got 2"),
        ({"bias": "free"}, "'cross_entropy' are solved for depth 1, got 2"),
        ({"loss": "mse", "bias": "free"}, "MSE and several layers are solved for bias 'none'"),
    ],
)
def test_what_is_not_covered_is_said(changes, message):
    decays = {"weight_decay": 1e-2, "feature_decay": 1e-4}
    problem = tf.Problem("50x2,5x3", features="nonnegative", depth=2, **(decays | changes))
    with pytest.raises(ValueError, match=message):
        tf.solve(problem)


@pytest.mark.parametrize("tol", [0, -1, np.nan, "x", None])
def test_bad_tolerance(tol):
    with pytest.raises(ValueError, match="tol: got"):
        tf.solve(tf.Problem("5x2", weight_decay=1e-2, feature_decay=1e-2), tol)


def test_a_problem_is_needed():
    with pytest.raises(ValueError, match="problem: got str"):
        tf.solve("500x5")


def test_no_warning_on_the_way():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loss in ("cross_entropy", "mse"):
            for bias in ("none", "free"):
                decays = {"weight_decay": 1e-2, "feature_decay": 1e-3}
                tf.solve(tf.Problem("60,20x2,4x3", loss, bias=bias, **decays))


def test_a_solution_survives_pickling():
    import pickle

    solution = tf.solve(tf.Problem("5x2,3", weight_decay=1e-2, feature_decay=1e-2))
    assert np.array_equal(pickle.loads(pickle.dumps(solution)).logits, solution.logits)


def test_no_overflow_warning_at_extreme_imbalance():
    counts = "138x3,15486729,37x20"
    problem = tf.Problem(counts, weight_decay=5.7416e-4, feature_decay=6.08894e-11)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tf.solve(problem).status == "optimal"


@pytest.mark.parametrize("steps", [0, -1, 2.5, None])
def test_bad_iteration_limits(steps):
    with pytest.raises(ValueError, match="max_iterations: got"):
        tf.solve(tf.Problem("5x2", weight_decay=1, feature_decay=1), max_iterations=steps)


def test_factors_of_absurd_width_are_refused():
    problem = tf.Problem("5x2,3", weight_decay=1e-2, feature_decay=1e-2, dim=10**9)
    with pytest.raises(ValueError, match="dim is 1000000000"):
        _ = tf.solve(problem).weights


# -- the record ------------------------------------------------------------------------------------


def test_status_is_a_word_with_a_message():
    problem = tf.Problem("9,5x2", weight_decay=2e-3, feature_decay=1e-3)
    certified = tf.solve(problem)
    found = tf.solve(problem.replace(depth=2), starts=1)
    with pytest.warns(tf.NotConvergedWarning):
        stopped = tf.solve(problem, 1e-15, max_iterations=1)
    for solution, word in ((certified, "optimal"), (found, "local"), (stopped, "not_converged")):
        assert solution.status == word
        assert f"{solution.status}" == json.loads(json.dumps(solution.status)) == word
        assert type(solution.to_dict()["status"]) is str
    messages = [solution.status.message for solution in (certified, found, stopped)]
    assert len(set(messages)) == 3
    assert "certified" in messages[0]
    assert "nothing certifies" in messages[1]
    assert "stopped" in messages[2]


def test_stats_tell_what_the_solver_did():
    problem = tf.Problem("60,20,9,4", weight_decay=0.042, feature_decay=0.042)
    solution = tf.solve(problem, 1e-12)
    stats = solution.stats
    assert stats.starts == 1
    assert stats.rank_adaptations >= 1  # of the rank's changes to that of the minimiser
    last = stats.history[-1]
    assert last == (stats.iterations, solution.objective, solution.lower_bound, solution.rank)
    iterations = [step.iteration for step in stats.history]
    assert iterations == sorted(iterations)
    assert all(step.dual <= solution.objective for step in stats.history)
    assert tf.solve(problem.replace(counts="9x4")).stats.iterations == 0  # a closed form
    found = tf.solve(problem.replace(depth=2), starts=3)
    assert found.stats.starts == found.search.starts > 3


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (factored.NewtonOptions, "shift"),
        (SplittingOptions, "memory"),
        (SweepOptions, "power"),
        (ContinuationOptions, "max_points"),
        (multistart.SearchOptions, "batch_numbers"),
    ],
)
def test_options_out_of_range_are_named(options, name):
    with pytest.raises(ValueError, match=f"^{name}: got 0, need"):
        options(**{name: 0})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": "free"},
        {"class_weights": [1, 1, 2, 2]},
        {"logit_scale": [1, 1, 0.6, 0.6]},
        {"feature_weights": "contexts"},
        {"label_smoothing": 0.1},
        {"loss": "mse"},
    ],
    ids=str,
)
def test_the_nuclear_norm_is_what_the_factors_cost(options):
    problem = tf.Problem("50x2,10x2", weight_decay=2e-3, feature_decay=1e-3, **options)
    found = tf.solve(problem, 1e-11)
    (w,), h = found.weights, found.class_means
    cost = 2e-3 / 2 * (w**2).sum() + 1e-3 / 2 * (problem.feature_weights * h**2).sum()
    assert problem.logit_decay * found.nuclear_norm == pytest.approx(cost, rel=1e-8)
