import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf


def _at(problem, logit_decay):
    """The problem at another lambda, split evenly over both decays."""
    return problem.replace(weight_decay=logit_decay, feature_decay=logit_decay)


PROBLEMS = [
    tf.Problem("500x5,100x5", weight_decay=1, feature_decay=1),
    tf.Problem("500x3,100x7", weight_decay=1, feature_decay=1, bias="free"),
    tf.Problem("40x2,7x3,90", weight_decay=1, feature_decay=1, bias="decayed", bias_decay=0.1),
    tf.Problem("40x2,7x3,90", "mse", weight_decay=1, feature_decay=1, bias="decayed", bias_decay=1),
    tf.Problem("40x2,7x3", "mse", weight_decay=1, feature_decay=1, bias="free"),
    tf.Problem("40x2,7x3,90", "mse", weight_decay=1, feature_decay=1),
    tf.Problem("40x2,7x3,90", weight_decay=1, feature_decay=1, features="nonnegative"),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"{p.loss}-{p.bias}-{p.features}")
def test_every_group_switches_at_its_threshold(problem):
    for i, group in enumerate(tf.thresholds(problem).groups):
        if group.logit_decay is None:
            assert group.classes == 1
            continue
        below = tf.solve(_at(problem, group.logit_decay * (1 - 1e-6)))
        above = tf.solve(_at(problem, group.logit_decay * (1 + 1e-6)))
        assert not below.group_collapsed[i]
        assert above.group_collapsed[i]
        assert tf.thresholds(below.problem).groups[i].collapsed is False
        assert tf.thresholds(above.problem).groups[i].collapsed is True


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"{p.loss}-{p.bias}-{p.features}")
def test_total_collapse(problem):
    total = tf.thresholds(problem).total_collapse
    assert np.abs(tf.solve(_at(problem, total * 0.999)).logits).max() > 0
    above = tf.solve(_at(problem, total * 1.001))
    assert np.abs(above.logits).max() < 1e-9
    assert above.collapsed.all()


@pytest.mark.parametrize(
    ("counts", "changes"),
    [
        ("153x2", {"bias": "decayed", "bias_decay": 1.0}),
        ("13438x2", {}),
        ("6338x5", {}),
        ("3x3,1700", {"loss": "mse", "bias": "free"}),
        ("204x20", {"loss": "mse", "features": "nonnegative", "dim": 16}),
        ("7x3,9", {"features": "nonnegative"}),
    ],
)
def test_exactly_at_the_threshold_all_agree(counts, changes):
    problem = tf.Problem(counts, weight_decay=1, feature_decay=1, **changes)
    at = _at(problem, tf.thresholds(problem).groups[0].logit_decay)
    solution = tf.solve(at)
    assert tf.thresholds(at).groups[0].collapsed
    assert solution.group_collapsed[0]
    assert solution.group_margins[0] == 0 or solution.problem.features == "nonnegative"
    assert np.isfinite(solution.geometry.logits).all()


def test_hong_ling_thresholds():
    """papers.md section D: where the published experiments show the switch."""
    five = tf.thresholds(PROBLEMS[0]).groups
    assert five[1].logit_decay == pytest.approx(math.sqrt(100) / 3000)
    assert five[0].logit_decay == pytest.approx(math.sqrt(500) / 3000)
    three = tf.thresholds(PROBLEMS[1]).groups
    assert three[1].logit_decay == pytest.approx(math.sqrt(100) / 2200)


@given(
    st.integers(1, 200), st.integers(2, 5), st.integers(1, 200), st.integers(1, 5), st.floats(-4, 0)
)
def test_distinct_counts_are_exactly_those_that_stay_distinct(n, k, others, m, exponent):
    problem = tf.Problem(
        [n] * k + [others + 200] * m, weight_decay=10**exponent, feature_decay=10**exponent
    )
    group = tf.thresholds(problem).groups[0]
    assert group.collapsed == (math.sqrt(n) / problem.num_samples <= problem.logit_decay)
    assert group.collapsed == (problem.num_samples >= group.total_samples)
    interval = group.distinct_counts
    for count in (1, 5, n, 150, 10_000):
        total = count * k + (others + 200) * m
        distinct = math.sqrt(count) / total > problem.logit_decay
        assert distinct == (interval is not None and interval[0] < count < interval[1])


def test_what_has_no_thresholds_is_said():
    with pytest.raises(ValueError, match="depth 1 only"):
        tf.thresholds(tf.Problem("5x2", "mse", weight_decay=1, feature_decay=1, depth=2))
    with pytest.raises(ValueError, match="bias: thresholds for non-negative features"):
        tf.thresholds(
            tf.Problem("5x2", weight_decay=1, feature_decay=1, features="nonnegative", bias="free")
        )
    with pytest.raises(ValueError, match="problem: got str"):
        tf.thresholds("5x2")
