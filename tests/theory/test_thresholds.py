import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tightframe.theory import thresholds as closed


def _at(problem, decay):
    """All decays times a number: the mean decay, where it is one."""
    return problem.replace(
        weight_decay=[decay * layer for layer in problem.weight_decays],
        feature_decay=decay * problem.feature_decay,
    )


def _deep(counts, *weight_decays, bias="none", features="real"):
    """MSE with a layer for every weight decay; the geometric mean of all decays is one."""
    return tf.Problem(
        counts,
        "mse",
        weight_decay=weight_decays,
        feature_decay=1 / math.prod(weight_decays),
        bias=bias,
        features=features,
        depth=len(weight_decays),
    )


PROBLEMS = [
    tf.Problem("500x5,100x5", weight_decay=1, feature_decay=1),
    tf.Problem("500x3,100x7", weight_decay=1, feature_decay=1, bias="free"),
    tf.Problem("40x2,7x3,90", weight_decay=1, feature_decay=1, bias="decayed", bias_decay=0.1),
    tf.Problem("40x2,7x3,90", "mse", weight_decay=1, feature_decay=1, bias="decayed", bias_decay=1),
    tf.Problem("40x2,7x3", "mse", weight_decay=1, feature_decay=1, bias="free"),
    tf.Problem("40x2,7x3,90", "mse", weight_decay=1, feature_decay=1),
    tf.Problem("40x2,7x3,90", weight_decay=1, feature_decay=1, features="nonnegative"),
    tf.Problem(
        "40x2,7x3,90",
        weight_decay=1,
        feature_decay=1,
        features="nonnegative",
        class_weights="1x2,5x4",
    ),
    tf.Problem(
        "40x2,7x5,90",
        weight_decay=1,
        feature_decay=1,
        bias="free",
        class_weights="1x2,4x3,0.5x3",
        logit_adjustment="prior",
    ),
    tf.Problem("40x2,7x3,90", weight_decay=1, feature_decay=1, logit_adjustment="0,1,2,2,2,-3"),
    _deep("40x2,7x3,90", 2, 0.3),
    _deep("40x2,7x3,90", 2, 0.3, bias="free"),
    _deep("40x2,7x3,90", 0.5, 3, 2),
    _deep("40x2,7x3,90", 0.5, 3, 2, bias="free"),
    _deep("40x2,7x3,90", 2, 0.3, features="nonnegative"),
]


def _name(problem):
    return f"{problem.loss}-{problem.bias}-{problem.features}-{problem.depth}"


@pytest.mark.parametrize("problem", PROBLEMS, ids=_name)
def test_every_group_switches_at_its_threshold(problem):
    for i, group in enumerate(closed.ends(problem).groups):
        if group.logit_decay is None:
            assert group.classes == 1
            continue
        below = tf.solve(_at(problem, group.logit_decay * (1 - 1e-6)))
        above = tf.solve(_at(problem, group.logit_decay * (1 + 1e-6)))
        assert not below.group_collapsed[i]
        assert above.group_collapsed[i]
        assert closed.ends(below.problem).groups[i].collapsed is False
        assert closed.ends(above.problem).groups[i].collapsed is True


@pytest.mark.parametrize("problem", PROBLEMS[::4], ids=_name)
def test_the_public_thresholds_have_the_closed_forms(problem):
    """The tests of this file ask for these alone: where states change takes many solves."""
    found, known = tf.thresholds(problem), closed.ends(problem)
    assert (found.logit_decay, found.total_collapse) == (known.logit_decay, known.total_collapse)
    found_later = {"merges": None, "lost": None, "vanishes": None, "changes": None}
    assert tuple(replace(group, **found_later) for group in found.groups) == known.groups


@pytest.mark.parametrize("problem", PROBLEMS, ids=_name)
def test_total_collapse(problem):
    total = closed.ends(problem).total_collapse
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
        ("153x2,60", {"loss": "mse", "depth": 2}),
        ("13x4,77x2,5", {"loss": "mse", "depth": 2, "bias": "free"}),
        ("6338x5", {"loss": "mse", "depth": 3}),
        ("3x3,1700", {"loss": "mse", "depth": 4, "bias": "free"}),
    ],
)
def test_exactly_at_the_threshold_all_agree(counts, changes):
    problem = tf.Problem(counts, weight_decay=1, feature_decay=1, **changes)
    at = _at(problem, closed.ends(problem).groups[0].logit_decay)
    solution = tf.solve(at)
    assert closed.ends(at).groups[0].collapsed
    assert solution.group_collapsed[0]
    assert solution.group_margins[0] == 0 or solution.problem.features == "nonnegative"
    assert np.isfinite(solution.geometry.logits).all()


def test_hong_ling_thresholds():
    """papers.md section D: where the published experiments show the switch."""
    five = closed.ends(PROBLEMS[0]).groups
    assert five[1].logit_decay == pytest.approx(math.sqrt(100) / 3000)
    assert five[0].logit_decay == pytest.approx(math.sqrt(500) / 3000)
    three = closed.ends(PROBLEMS[1]).groups
    assert three[1].logit_decay == pytest.approx(math.sqrt(100) / 2200)


@given(
    st.integers(1, 200), st.integers(2, 5), st.integers(1, 200), st.integers(1, 5), st.floats(-4, 0)
)
def test_distinct_counts_are_exactly_those_that_stay_distinct(n, k, others, m, exponent):
    problem = tf.Problem(
        [n] * k + [others + 200] * m, weight_decay=10**exponent, feature_decay=10**exponent
    )
    group = closed.ends(problem).groups[0]
    assert group.collapsed == (math.sqrt(n) / problem.num_samples <= problem.logit_decay)
    assert group.collapsed == (problem.num_samples >= group.total_samples)
    interval = group.distinct_counts
    for count in (1, 5, n, 150, 10_000):
        total = count * k + (others + 200) * m
        distinct = math.sqrt(count) / total > problem.logit_decay
        assert distinct == (interval is not None and interval[0] < count < interval[1])


# -- several layers --------------------------------------------------------------------------------


def _scalar_switch(count, total, depth):
    """Bisect for the mean decay from which on zero minimises the scalar problem, on a grid."""
    target = math.sqrt(count)
    s = target * np.r_[np.geomspace(1e-9, 1e-4, 1000), np.linspace(1e-4, 1, 100_001)]
    fit = ((s - target) ** 2 - target**2) / (2 * total)
    cost = (depth + 1) / 2 * s ** (2 / (depth + 1))
    low, high = 0.0, target
    for _ in range(40):
        decay = (low + high) / 2
        low, high = (decay, high) if (fit + decay * cost).min() < 0 else (low, decay)
    return high


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_thresholds_are_where_zero_minimises_the_scalar_problem(depth):
    counts = (90, 40, 7)
    problem = _deep(counts, *np.linspace(0.5, 2, depth).tolist())
    result = closed.ends(problem)
    expected = [_scalar_switch(count, 137, depth) for count in counts]
    found = [group.logit_decay for group in result.groups]
    assert found == pytest.approx(expected, rel=1e-6)
    assert result.total_collapse == pytest.approx(max(expected), rel=1e-6)
    assert result.logit_decay == pytest.approx(1)


def test_the_singular_value_jumps():
    """With several layers a class does not shrink to zero but vanishes from a finite size."""
    problem = _deep("90,40,7", 2, 0.3)
    threshold = closed.ends(problem).groups[1].logit_decay
    below = tf.solve(_at(problem, threshold * (1 - 1e-9)))
    # sigma = sqrt(n) 2p / (1 + p), p = (M - 1)/(M + 1): the end of a double root.
    assert below.logits[1, 1] == pytest.approx(0.5, abs=1e-6)


@st.composite
def _deep_problems(draw):
    """MSE with a group of k classes first, and perhaps others; decays near the thresholds."""
    bias = draw(st.sampled_from(["none", "free"]))
    depth = draw(st.integers(1, 3))
    count, classes = draw(st.integers(1, 300)), draw(st.integers(2, 5))
    others = draw(st.sampled_from([[], [400], [301, 500, 500]]))
    counts = [count] * classes + others
    decays = [10 ** draw(st.floats(-0.5, 0.5)) for _ in range(depth)]
    problem = _deep(counts, *decays, bias=bias)
    threshold = closed.ends(problem).groups[0].logit_decay
    return _at(problem, threshold * 10 ** draw(st.floats(-1.5, 0.5))), others


@given(_deep_problems())
def test_distinct_counts_are_sharp_at_any_depth(drawn):
    problem, others = drawn
    classes = problem.groups[0].classes
    interval = closed.ends(problem).groups[0].distinct_counts
    ends = (1, problem.groups[0].count, 50, 10_000) if interval is None else interval
    for end in ends:
        for count in (math.floor(end), math.ceil(end), math.floor(end) - 1, math.ceil(end) + 1):
            rounding = any(math.isclose(count, e, rel_tol=1e-9) for e in interval or ())
            if count < 1 or count * classes > 2**50 or count in others or rounding:
                continue
            solution = tf.solve(problem.replace(counts=[count] * classes + others))
            distinct = interval is not None and interval[0] < count < interval[1]
            assert solution.group_collapsed[0] == (not distinct)
    assert others or interval is not None  # without others, few enough samples stay distinct


@given(_deep_problems())
def test_total_samples_are_sharp_at_any_depth(drawn):
    problem, _ = drawn
    group = closed.ends(problem).groups[0]
    own = group.count * group.classes
    for rest in (
        math.floor(group.total_samples) - own,
        math.ceil(group.total_samples) - own,
        10**6,
    ):
        total = own + rest
        if rest < 1 or rest == group.count or abs(total / group.total_samples - 1) < 1e-12:
            continue
        solution = tf.solve(problem.replace(counts=[group.count] * group.classes + [rest]))
        assert solution.group_collapsed[0] == (total > group.total_samples)


@pytest.mark.parametrize(
    "changes", [{}, {"bias": "free"}, {"loss": "mse", "bias": "decayed", "bias_decay": 1}]
)
def test_what_has_no_thresholds_at_depth_is_said(changes):
    with pytest.raises(ValueError, match="depth: got 2; thresholds with several layers are known"):
        tf.thresholds(tf.Problem("5x2", weight_decay=1, feature_decay=1, depth=2, **changes))


@pytest.mark.parametrize(
    "changes", [{}, {"bias": "free"}, {"loss": "mse", "bias": "free"}, {"loss": "mse", "dim": 9}]
)
def test_what_has_no_thresholds_with_relu_features_at_depth_is_said(changes):
    kind = {"features": "nonnegative", "depth": 2, "class_weights": [1, 2]}
    problem = tf.Problem("5x2", weight_decay=1, feature_decay=1, **kind, **changes)
    for function in (tf.thresholds, tf.state_changes):
        with pytest.raises(ValueError, match="depth: got 2; thresholds for non-negative features"):
            function(problem)


def test_what_has_no_thresholds_is_said():
    with pytest.raises(ValueError, match="depth: got 2; thresholds with several layers"):
        tf.thresholds(tf.Problem("5x2", weight_decay=1, feature_decay=1, depth=2))
    with pytest.raises(ValueError, match="problem: got str"):
        tf.thresholds("5x2")
