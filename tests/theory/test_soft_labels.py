"""Label smoothing and class margins: reference values, closed forms, PyTorch's convention."""

import numpy as np
import pytest
import torch
from torch.nn import functional

import tightframe as tf
from tests.reference import exact, ufm
from tightframe.geometry.blocks import Partition
from tightframe.solvers.newton import minimise


def _problem(counts, decay=0.002, **options):
    return tf.Problem(counts, weight_decay=decay, feature_decay=decay, **options)


@pytest.mark.parametrize(
    ("counts", "decay", "share", "objective"),
    [
        ("500x5,100x5", 0.002, 0.0, 1.2195279189113),
        ("500x5,100x5", 0.002, 0.1, 1.4807472362387),
        ("100x2,10x2", 0.005, 0.1, 0.655568939446),
        ("1000x200000,100x300000,10x500000", 2.127659574468085e-8, 0.1, 4.9589617),
    ],
)
def test_objectives_are_those_of_another_solver(counts, decay, share, objective):
    """CVXPY's, checked against a prototype; a million classes by groups."""
    solution = tf.solve(_problem(counts, decay, label_smoothing=share), tol=1e-10)
    digits = 2e-8 if solution.problem.num_classes > 1000 else 1e-11
    assert solution.objective == pytest.approx(objective, abs=digits)
    assert solution.gap <= 1e-10 * solution.objective


@pytest.mark.parametrize("decay", [1e-4, 1e-3, 5e-3, 0.0081, 0.02])
def test_smoothing_of_balanced_classes_is_extra_decay(decay):
    share, n, k = 0.3, 50, 8
    smoothed = tf.solve(_problem(f"{n}x{k}", decay, label_smoothing=share))
    more = tf.solve(_problem(f"{n}x{k}", decay + share / (k * np.sqrt(n))))
    assert smoothed.method == "closed form: balanced cross-entropy"
    assert np.allclose(smoothed.logits, more.logits, atol=1e-12)
    assert smoothed.gap <= 1e-12


@pytest.mark.parametrize("margin", [-2.0, 0.5, 3.0])
@pytest.mark.parametrize("decay", [1e-3, 0.01, 0.02, 0.04])
def test_closed_form_with_margins_is_certified(margin, decay):
    problem = _problem(
        "50x8", decay, class_margins=f"{margin}x8", label_smoothing=0.2 * (margin > 0)
    )
    solution = tf.solve(problem)
    assert solution.method == "closed form: balanced cross-entropy"
    assert solution.gap <= 1e-12


def test_weighted_mean_is_that_of_pytorch():
    counts, share = np.array([30, 20, 7, 7]), 0.2
    weights = np.array([0.5, 1.0, 3.0, 2.0])
    problem = tf.Problem.from_weighted_mean(
        counts, class_weights=weights, label_smoothing=share, weight_decay=1e-2, feature_decay=1e-3
    )
    labels = np.repeat(range(4), counts)
    logits = np.random.default_rng(0).normal(size=(4, 4))
    loss = functional.cross_entropy(
        torch.tensor(logits.T[labels]),
        torch.tensor(labels),
        weight=torch.tensor(weights),
        label_smoothing=share,
    )
    fit = problem.loss_object.datafit(Partition.singletons(problem))
    assert fit.value(np.zeros(4), logits) == pytest.approx(loss.item(), rel=1e-12)
    assert fit.sample_sum(logits.T[labels], labels) / 64 == pytest.approx(loss.item(), rel=1e-12)
    assert tf.Problem(**problem.to_dict()) == problem
    assert problem.replace(label_smoothing=0).smoothing_weights == "own"


def test_smoothing_without_weights_is_that_of_pytorch():
    problem = _problem("30,20,7", label_smoothing=0.3)
    labels = np.repeat(range(3), problem.counts)
    logits = np.random.default_rng(1).normal(size=(3, 3))
    loss = functional.cross_entropy(
        torch.tensor(logits.T[labels]), torch.tensor(labels), label_smoothing=0.3
    )
    fit = problem.loss_object.datafit(Partition.singletons(problem))
    assert fit.value(np.zeros(3), logits) == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("side", [0.999, 1.001])
@pytest.mark.parametrize("bias", ["none", "free"])
def test_groups_merge_at_the_threshold_of_smoothing(side, bias):
    problem = _problem("50x3,10x3", label_smoothing=0.2, class_weights="1x3,2x3", bias=bias)
    place = 0.8 * 2 * np.sqrt(10) / problem.num_samples
    decay = side * place
    found = tf.solve(problem.replace(weight_decay=decay, feature_decay=decay))
    assert (found.group_margins[1] == 0) == (side > 1)
    assert found.gap <= 1e-8 * found.objective


@pytest.mark.parametrize("bias", ["none", "free"])
def test_margins_merge_groups_where_the_optimum_does(bias):
    """Whether siblings merge depends on the other logits: the solver tries both."""
    for factor in (1.05, 1.1, 1.2, 1.3):
        decay = factor * np.sqrt(100) / 2400
        problem = _problem("500x4,100x4", decay, class_margins="0.5x4,1x4", bias=bias)
        grouped = tf.solve(problem)
        single = minimise(problem, Partition.singletons(problem), tol=1e-9)
        assert grouped.gap <= 1e-8 * grouped.objective
        assert grouped.objective == pytest.approx(single.certificate.primal, rel=2e-9)
    # Predicted at 1.1083 times the plain threshold without a bias.
    if bias == "none":
        lower, upper = (
            tf.solve(problem.replace(weight_decay=d, feature_decay=d)).group_margins[1]
            for d in np.array([1.108, 1.110]) * np.sqrt(100) / 2400
        )
        assert lower > 0
        assert upper == 0


@pytest.mark.parametrize(
    ("counts", "decay", "options"),
    [
        # Margins below zero, on the way to merged groups, made the objective fall without end.
        (
            "37x3,1x2,32x5,7x40",
            2.0756455093120995e-3,
            {"class_weights": "90.5869x3,.347294x2,66.3728x5,.168042x40"}
            | {"class_margins": "9.99182x3,1x2,.5x5,1x40", "label_smoothing": 0.9}
            | {"smoothing_weights": "labels"},
        ),
        (
            "5x5,9x40,4x2",
            1e-8,
            {"bias": "free", "class_margins": "28x5,-20x40,-26x2"}
            | {"logit_scale": "3.5x5,.002x40,350x2"},
        ),
        # The rank rose before the gradient was as small as so small a decay needs.
        (
            "8,1x40,384253x5",
            2.509557170732636e-12,
            {"bias": "decayed", "bias_decay": 0.22926715661011937}
            | {"class_weights": "19.7023,.13603x40,6.23891x5", "label_smoothing": 0.1}
            | {"logit_adjustment": "2.10464,-5.94189x40,-8.29396x5"}
            | {"class_margins": "30x41,1x5", "feature_weights": "contexts"},
        ),
        # The bound took rounding off that little of the own class in a label makes large.
        (
            "2285x5,281516x40,247877x40,8x3",
            1.1e-4,
            {"bias": "decayed", "bias_decay": 13.5, "class_weights": "50x5,.5x40,3x40,.05x3"}
            | {"class_margins": "0x5,1x40,9x40,.5x3", "label_smoothing": 0.999}
            | {"feature_weights": "contexts"},
        ),
    ],
)
def test_extreme_terms_are_certified(counts, decay, options):
    solution = tf.solve(_problem(counts, decay, **options))
    assert solution.status == "optimal"
    blocks = solution.blocks
    value = exact.objective(solution.problem, blocks.within, blocks.mean, solution.group_bias)
    assert solution.lower_bound <= value <= solution.lower_bound * (1 + 2e-8)


def test_vanishing_decays_fit_smoothed_labels():
    problem = _problem("50x3,10x3", 1e-9, label_smoothing=0.2, class_margins="0x3,1x3")
    solution = tf.solve(problem)
    terms, shifts = ufm.label_terms(problem)
    seen = solution.logits + shifts
    odds = np.exp(seen) / np.exp(seen).sum(axis=0)
    assert np.allclose(odds, terms, atol=1e-6)
    assert solution.geometry.distance(tf.path_limits(problem).vanishing) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "nonnegative"}, "problem: label_smoothing is solved with real features"),
        ({"depth": 2}, "problem: label_smoothing is solved for depth 1, got 2"),
    ],
)
def test_what_is_not_covered_is_named(options, message):
    problem = _problem("50x3,10x3", label_smoothing=0.2, **options)
    with pytest.raises(ValueError, match=message):
        tf.solve(problem)
    with pytest.raises(ValueError, match=message):
        tf.thresholds(problem)


def test_bad_labels_are_named():
    with pytest.raises(ValueError, match=r"class_margins: got -1 with label_smoothing 0\.2"):
        _problem("5x2,3x2", label_smoothing=0.2, class_margins="-1x2,0x2")
    with pytest.raises(ValueError, match="smoothing_weights: got 'all'"):
        _problem("5x2,3x2", smoothing_weights="all")


def test_a_narrow_problem_is_searched():
    problem = _problem("50x2,10x2", 0.01, label_smoothing=0.2, class_margins="0x2,1x2", dim=2)
    solution = tf.solve(problem, starts=2)
    wide = tf.solve(problem.replace(dim=None))
    assert solution.objective >= wide.lower_bound
    direct, *_ = ufm.multistart(problem, 2, starts=4)
    assert solution.objective <= direct * (1 + 1e-8)
