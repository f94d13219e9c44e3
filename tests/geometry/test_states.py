import numpy as np
import pytest

import tightframe as tf
from tightframe.geometry.states import SAME_PREDICTION, measured_states


def solved(counts, decay, **kwargs):
    return tf.solve(tf.Problem(counts, weight_decay=decay, feature_decay=decay, **kwargs))


def rules(solution):
    """Apply the definitions to dense logits, class by class, without the library's block form."""
    z = solution.logits
    scores = z + solution.bias[:, None]
    states = []
    for k in range(len(z)):
        near = [np.abs(z[:, j] - z[:, k]).max() < 1e-9 for j in range(len(z))]
        others = scores[np.logical_not(near), k]
        if np.abs(z[:, k]).max() < 1e-9:
            states.append("vanished")
        elif others.max() >= scores[k, k]:
            states.append("lost")
        else:
            states.append("merged" if sum(near) > 1 else "distinct")
    return states


@pytest.mark.parametrize(
    ("counts", "decay", "kwargs"),
    [
        ("100x5,10x5", 2e-3, {}),
        ("100x5,10x5", 7e-3, {}),
        ("100x5,10x5", 1.2e-2, {}),
        ("100x5,10x5", 2e-2, {}),
        ("500,400,300,200,150,100,80,50,30,10", 4.5e-3, {}),
        ("500,400,300x3,100,30,10x2", 1.6e-3, {"bias": "free"}),
        ("500,400,300x3,100,30,10x2", 1e-2, {"class_weights": "balanced"}),
        ("60x3,20x2,5", 5e-3, {"bias": "decayed", "bias_decay": 0.01}),
        ("60x3,20x2,5", 1e-2, {"loss": "mse"}),
        ("60x3,20x2,5", 2e-2, {"loss": "mse", "bias": "free"}),
        ("60x3,20x2,5", 1e-2, {"loss": "mse", "bias": "free", "depth": 3}),
        ("60x3,20x2,5", 1e-2, {"features": "nonnegative"}),
        ("60x3,20x2,5", 5e-3, {"loss": "mse", "dim": 4}),
    ],
)
def test_states_are_the_definitions(counts, decay, kwargs):
    solution = solved(counts, decay, **kwargs)
    states = solution.states
    assert states.state.tolist() == rules(solution)
    scores = solution.logits + solution.bias[:, None]
    for k in range(len(states)):
        others = np.delete(scores[:, k], k)
        assert states.decision_margin[k] == pytest.approx(scores[k, k] - others.max(), abs=1e-9)
        if states[k].state == "lost":
            assert scores[states[k].rival, k] == pytest.approx(others.max(), abs=1e-12)


def test_a_class_knows_with_whom_it_shares_and_its_sibling_margin():
    states = solved("100x5,10x5", 7e-3).states
    assert states[7].shares_with == (5, 6, 8, 9)
    assert states[7].to_dict()["with"] == (5, 6, 8, 9)
    assert states[2].shares_with == ()
    assert states.counts == {"merged": 5, "distinct": 5}
    assert solved("100x5,10", 2e-3).states[5].sibling_margin is None
    with pytest.raises(IndexError, match="entry 10 of 10"):
        states[10]


@pytest.mark.parametrize("below", [1e-7, 1e-9, 1e-12])
@pytest.mark.parametrize(("counts", "group"), [("100x5,10x5", 1), ("500x5,100x5", 1)])
def test_just_below_its_threshold_a_group_is_distinct(counts, group, below):
    """Lost with a margin of -7.8e-10 is what rounding made of it."""
    count, classes = [(10, 550), (100, 3000)][counts == "500x5,100x5"]
    threshold = np.sqrt(count) / classes
    states = solved(counts, threshold * (1 - below)).group_states
    assert states.state[group] == "distinct"
    assert states.sibling_margin[group] > 0
    for at in (threshold, threshold * (1 + 1e-9)):
        merged = solved(counts, at).group_states
        assert merged.state[group] == "merged"
        assert merged.sibling_margin[group] == 0


def test_groups_that_another_class_takes_are_lost_although_they_share_a_prediction():
    counts = ",".join(str(round(500 * 100 ** (-k / 99))) for k in range(100))
    solution = solved(counts, 6e-4)
    taken = [g for g, group in enumerate(solution.problem.groups) if group.count in (15, 13, 12)]
    assert len(taken) == 3
    for g in taken:
        assert solution.group_states[g].state == "lost"
        assert solution.group_collapsed[g]
    assert solution.states.state.tolist() == rules(solution)


def test_a_million_classes_have_states():
    solution = solved("1000x300000,100x300000,10x400000", 1e-9)
    assert solution.states.counts == {"distinct": 1_000_000}
    assert solution.to_dict()["groups"][2]["state"] == "distinct"


def test_measured_states_are_the_predicted_ones_of_a_minimiser():
    for decay in (2e-3, 7e-3, 1.2e-2, 2e-2):
        solution = solved("100x5,10x5", decay)
        measured = measured_states(solution.problem, solution.logits, solution.bias)
        assert measured.state.tolist() == solution.states.state.tolist()


def test_measured_predictions_are_one_within_the_tolerance():
    problem = tf.Problem("10x2,5", weight_decay=1, feature_decay=1)

    def states(margin):
        """Return the first two classes' states, whose logits differ by a margin."""
        logits = np.array([[margin, 0, -5], [0, margin, -5], [-40, -40, 5]])
        return measured_states(problem, logits).state[:2].tolist()

    # Two classes with odds e^m have probabilities that differ by tanh(m / 2).
    edge = 2 * np.arctanh(SAME_PREDICTION)
    assert states(0.99 * edge) == ["merged", "merged"]
    assert states(1.01 * edge) == ["distinct", "distinct"]


def test_measured_classes_without_an_opinion_have_vanished_whatever_the_bias():
    problem = tf.Problem("10x2,5", weight_decay=1, feature_decay=1, bias="free")
    common = np.array([[2.0], [1.0], [-3.0]]) + np.zeros((3, 3))
    assert set(measured_states(problem, common, [5, 0, 0]).state) == {"vanished"}
    for name, logits, bias in (("logits", np.eye(2), None), ("bias", np.eye(3), [1])):
        with pytest.raises(ValueError, match=f"{name}: got shape"):
            measured_states(problem, logits, bias)
    with pytest.raises(ValueError, match="logits: got entries that are not finite"):
        measured_states(problem, np.full((3, 3), np.nan))
