import dataclasses
import json

import numpy as np
import pytest

from tightframe.problem.problem import Problem
from tightframe.runs.measure import measure
from tightframe.runs.verdicts import COLLAPSE_TOLERANCE, group_verdicts
from tightframe.solve import solve


def solved(decay, counts="100x5,10x5", **kwargs):
    problem = Problem(counts, weight_decay=decay, feature_decay=decay, **kwargs)
    return problem, solve(problem)


def test_agreement():
    problem, solution = solved(8e-3)
    large, small = group_verdicts(problem, solution, solution.logits)
    assert (large.predicted, large.measured, large.agrees) == ("distinct", "distinct", True)
    assert (small.predicted, small.measured, small.agrees) == ("merged", "merged", True)
    assert small.members == [5, 6, 7, 8, 9]
    assert small.sentence == (
        "The 5 classes with 10 samples each have merged, as the theory predicts (sibling margin "
        "0.000, predicted 0.000; decision margin 0.000, predicted 0.000; logits 0 from the "
        "prediction)."
    )
    json.dumps(small.to_dict(), allow_nan=False)


def test_disagreement():
    problem, solution = solved(8e-3)
    large, small = group_verdicts(problem, solution, np.eye(10) * 0.0)
    assert (large.agrees, small.agrees) == (False, False)
    assert "have vanished, but the theory predicts them distinct" in large.sentence
    _, small = group_verdicts(problem, solution, np.eye(10))
    assert small.agrees is False
    assert "are distinct, but the theory predicts them merged" in small.sentence


def test_too_close_to_the_threshold_to_tell():
    problem, solution = solved(0.9997 * 10**0.5 / 550)
    margin = solution.group_margins[1]
    assert 0 < margin < COLLAPSE_TOLERANCE
    for logits in (solution.logits, np.eye(10)):
        small = group_verdicts(problem, solution, logits)[1]
        assert small.agrees is None
        assert "too close to the collapse threshold to tell" in small.sentence


@pytest.mark.parametrize("kwargs", [{"features": "nonnegative"}, {"loss": "mse"}])
def test_classes_sent_to_zero_count_as_collapsed(kwargs):
    problem, solution = solved(8e-3, **kwargs)
    verdicts = group_verdicts(problem, solution, solution.logits)
    assert [v.predicted for v in verdicts] == ["distinct", "vanished"]
    assert all(v.agrees for v in verdicts)


def test_class_alone_in_its_group():
    problem, solution = solved(1e-3, counts="50x3,10")
    alone = group_verdicts(problem, solution, solution.logits)[1]
    assert alone.agrees is True
    assert alone.sentence.startswith(
        "The class with 10 samples is distinct, as the theory predicts"
    )
    assert dataclasses.replace(alone, agrees=None).agrees is None


def test_a_class_alone_is_judged_with_the_bias():
    """Majority classes lie behind the minority in logits alone; the bias makes the difference."""
    problem = Problem(
        "6x20,513x2,48,4", weight_decay=2e-3, feature_decay=2e-3, bias="decayed", bias_decay=0.03
    )
    solution = solve(problem)
    scores = solution.logits + solution.bias[:, None]
    for k in (22, 23):
        rivals = np.delete(scores[:, k], k)
        verdict = group_verdicts(problem, solution, scores)[k - 20]
        assert verdict.predicted_margin == pytest.approx(scores[k, k] - rivals.max())
        assert verdict.measured_margin == pytest.approx(verdict.predicted_margin)
        assert solution.margins[k] == pytest.approx(verdict.predicted_margin)


def test_groups_of_equal_count_are_told_apart_by_their_loss():
    """Three groups of 10 samples on the two sides of ``weight sqrt(n) / N``."""
    problem, solution = solved(
        0.05, counts="10x6", class_weights="1x2,3x4", logit_adjustment="0x4,-0.5x2"
    )
    assert 10**0.5 / 60 > 0.05  # and all stay distinct
    measured = solution.logits.copy()
    measured[:2, :2] = measured[:2, :2].mean()
    first, second, third = group_verdicts(problem, solution, measured)
    assert [v.members for v in (first, second, third)] == [[0, 1], [2, 3], [4, 5]]
    assert [v.agrees for v in (first, second, third)] == [False, True, True]
    assert [v.samples for v in (first, second, third)] == [
        "10 samples",
        "10 samples, weight 3",
        "10 samples, weight 3, adjustment -0.5",
    ]
    assert second.sentence.startswith("The 2 classes with 10 samples, weight 3 each are distinct")
    assert third.predicted_margin == pytest.approx(solution.group_margins[2])


def test_a_state_is_not_enough():
    """Features in an orthogonal frame far longer than predicted: distinct, but not as predicted."""
    y = np.repeat(range(4), [50, 50, 10, 10])
    arrays = {
        "features": 3 * np.eye(4, 8)[y] + 0.1 * np.random.default_rng(0).normal(size=(120, 8)),
        "labels": y,
        "weight": 3 * np.eye(4, 8),
    }
    result = measure(arrays, weight_decay=5e-3, feature_decay=1e-3)
    for verdict in result.verdicts:
        assert (verdict.predicted, verdict.measured, verdict.agrees) == (
            "distinct",
            "distinct",
            False,
        )
        assert verdict.differs == ["sibling margin", "decision margin", "size", "geometry"]
        assert verdict.distance == pytest.approx(0.531, abs=5e-4)
        assert verdict.nearest == "orthogonal frame"
        assert verdict.nearest_distance == pytest.approx(0.0145, abs=5e-5)
        assert "as the theory predicts" not in verdict.sentence
        wanted = "the sibling margin, decision margin, size and geometry differ"
        assert wanted in verdict.sentence
        assert "nearest to the orthogonal frame (0.0145)" in verdict.sentence
    assert "sibling margin 9.080, predicted 3.519" in result.verdicts[1].sentence


def test_margins_and_geometry_are_judged_apart():
    problem, solution = solved(2e-3)
    (large, _) = group_verdicts(problem, solution, 2 * solution.logits)
    assert large.differs == ["sibling margin", "decision margin", "size"]
    z = solution.logits
    turned = z + 0.5 * np.diag(np.diagonal(z)).mean(axis=0)[:, None]
    (large, _) = group_verdicts(problem, solution, turned)
    assert large.differs == ["geometry"]


def test_classes_in_different_states_are_told():
    problem, solution = solved(2e-3)
    logits = solution.logits.copy()
    logits[0, 9] = logits[9, 9] + 1
    small = group_verdicts(problem, solution, logits)[1]
    assert (small.measured, small.agrees) == ("mixed", False)
    assert "are in different states (1 lost, 4 distinct)" in small.sentence


def test_the_scale_of_merged_classes_is_judged():
    """Their margins are zero at any scale, and a normalised distance does not see it."""
    problem, solution = solved(8e-3)
    _, small = group_verdicts(problem, solution, 2 * solution.logits)
    assert (small.predicted, small.measured, small.differs) == ("merged", "merged", ["size"])
    assert small.agrees is False
    assert "the predicted state, but the size differs" in small.sentence
    assert small.measured_size == pytest.approx(2 * small.predicted_size)


def test_one_class_of_many_is_not_averaged_away():
    """One of 50 with three quarters of the predicted decision margin: 0.5 % of the mean."""
    problem, solution = solved(1e-3, counts="100x50")
    logits = solution.logits.copy()
    logits[:, 7] *= 0.75
    (verdict,) = group_verdicts(problem, solution, logits)
    assert verdict.measured_margin == pytest.approx(verdict.predicted_margin, rel=0.01)
    assert verdict.distance < 0.05
    assert verdict.differs == ["decision margin"]
    low, high = 0.75 * verdict.predicted_margin, verdict.predicted_margin
    assert f"({low:.3f} to {high:.3f}), predicted {high:.3f}" in verdict.sentence
