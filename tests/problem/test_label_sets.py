"""Problems from a label matrix: pick-all-labels, counted set by set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import tightframe as tf

DECAYS = {"weight_decay": 1e-2, "feature_decay": 1e-2}
SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]])


def test_a_known_minimum_of_seven_sets():
    # contexts.md, R3: CVXPY and the factors.
    rows = np.repeat(SETS, [50, 40, 30, 10, 8, 6, 2], axis=0)
    found = tf.solve(tf.Problem.from_label_matrix(rows, **DECAYS), tol=1e-10)
    assert found.objective == pytest.approx(0.754415311308, rel=1e-10)
    assert found.rank == 2


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.sampled_from(["dense", "sparse"]))
def test_the_loss_of_any_logits_is_that_of_the_samples(drawn, form):
    rows = SETS[drawn]
    if len(set(drawn)) < 2:
        return
    given_rows = rows if form == "dense" else sparse.coo_array(rows.astype(bool))
    problem = tf.Problem.from_label_matrix(given_rows, **DECAYS)
    order = list(dict.fromkeys(drawn))
    logits = np.random.default_rng(0).normal(size=(3, len(order)))
    logits -= logits.mean(axis=0)
    own = logits[:, [order.index(s) for s in drawn]]
    log_shares = own - np.log(np.exp(own).sum(axis=0))
    loss = -(rows.T * log_shares).sum() / len(rows)
    cost = 1e-2 * np.linalg.norm(logits * np.sqrt(problem.counts), "nuc")
    assert tf.certify(problem, logits).primal == pytest.approx(loss + cost, rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([[1, 0], [0, 0]], {}, "labels: sample 1 has none"),
        ([[1, 0], [0, 2]], {}, "labels: got 2, need zeros and ones"),
        ([[1, 0], [0, -1]], {}, "labels: got -1, need zeros and ones"),
        ([[1, 0], [0, np.nan]], {}, "labels: got nan, need zeros and ones"),
        ([1, 0], {}, r"labels: got int64 of shape \(2,\)"),
        ("ab", {}, "labels: "),
        ([["a", "b"]], {}, "labels: "),
        ([[1, 0], [1, 0]], {}, "labels: all samples have the same set"),
        ([[1, 0], [0, 1]], {"counts": [1, 1]}, "counts: the label matrix says it"),
        ([[1, 0], [0, 1]], {"class_weights": [1, 1]}, "class_weights: the label matrix"),
    ],
)
def test_bad_label_matrices_are_named(labels, options, message):
    with pytest.raises(ValueError, match=message):
        tf.Problem.from_label_matrix(labels, **DECAYS, **options)
