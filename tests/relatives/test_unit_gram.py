"""Normalised heads and supervised contrastive loss against CVXPY, factors and known values."""

import math

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import tightframe as tf
from tightframe.relatives import contrastive, normalized
from tightframe.relatives.unit_gram import certified


def head_loss(counts, scale, margin, weight, means):
    """Return the mean cross-entropy of normalised rows and columns, written out."""
    w = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    h = means / np.linalg.norm(means, axis=0)
    logits = scale * (w @ h - margin * np.eye(len(counts)))
    log_sum = np.log(np.exp(logits).sum(axis=0))
    return np.average(log_sum - np.diagonal(logits), weights=counts)


def contrastive_loss(features, labels, temperature):
    """Return the loss over samples, as Khosla et al. define it (L_out)."""
    total = 0.0
    similar = features @ features.T / temperature
    for i in range(len(labels)):
        others = [a for a in range(len(labels)) if a != i]
        log_sum = np.log(np.exp(similar[i, others]).sum())
        total += np.mean([log_sum - similar[i, p] for p in others if labels[p] == labels[i]])
    return total / len(labels)


@pytest.mark.parametrize(
    ("counts", "scale", "margin"),
    [([100, 100, 10, 10], 4.0, 0.0), ([30, 7, 2], 2.0, 0.35), ([5, 1], 1.0, 0.5)],
)
def test_head_is_what_cvxpy_finds(counts, scale, margin):
    k = len(counts)
    gram = cp.Variable((2 * k, 2 * k), PSD=True)
    logits = scale * (gram[:k, k:] - margin * np.eye(k))
    loss = sum(
        n / sum(counts) * (cp.log_sum_exp(logits[:, i]) - logits[i, i])
        for i, n in enumerate(counts)
    )
    value = cp.Problem(cp.Minimize(loss), [cp.diag(gram) == 1]).solve(solver=cp.CLARABEL)
    found = tf.normalized_head(counts, scale=scale, margin=margin)
    assert found.objective == pytest.approx(value, abs=1e-7)
    assert found.status == "optimal"
    assert 0 <= found.gap < 1e-11
    own = head_loss(counts, scale, margin, found.weights, found.class_means)
    assert own == pytest.approx(found.objective, abs=1e-13)


COUNTS = st.lists(st.integers(1, 500), min_size=2, max_size=8)


@settings(max_examples=6, deadline=None)
@given(COUNTS, st.floats(0.3, 8.0), st.sampled_from([0.0, 0.35]))
def test_heads_of_any_counts_are_what_cvxpy_finds(counts, scale, margin):
    k, shares = len(counts), np.array(counts) / sum(counts)
    gram = cp.Variable((2 * k, 2 * k), PSD=True)
    logits = scale * (gram[k:, :k] - margin * np.eye(k))
    loss = shares @ (cp.log_sum_exp(logits, axis=1) - cp.diag(logits))
    value = cp.Problem(cp.Minimize(loss), [cp.diag(gram) == 1]).solve(solver=cp.CLARABEL)
    found = tf.normalized_head(counts, scale=scale, margin=margin)
    assert found.objective == pytest.approx(value, abs=1e-6)
    assert found.status == "optimal"
    assert found.relative_gap < 1e-10


@settings(max_examples=6, deadline=None)
@given(COUNTS, st.floats(0.2, 5.0))
def test_contrastive_of_any_counts_is_what_cvxpy_finds(counts, temperature):
    n = np.array(counts) + 1
    gram = cp.Variable((len(n), len(n)), PSD=True)
    sums = np.log(n - np.eye(len(n)))  # a sample is not in its own sum
    loss = (n / n.sum()) @ (cp.log_sum_exp(gram / temperature + sums, axis=1) - 1 / temperature)
    value = cp.Problem(cp.Minimize(loss), [cp.diag(gram) == 1]).solve(solver=cp.CLARABEL)
    found = tf.supervised_contrastive(n, temperature=temperature)
    assert found.objective == pytest.approx(value, abs=1e-6)
    assert found.status == "optimal"
    assert found.relative_gap < 1e-10


@pytest.mark.parametrize("scale", [64.0, 256.0, 1000.0])
def test_at_large_scales_directions_are_those_of_the_largest_margin(scale):
    """The loss is 1e-37 and less, and says as much of directions as ever."""
    counts = [100, 100, 10, 10]
    gram, margin = cp.Variable((8, 8), PSD=True), cp.Variable()
    cosines = gram[4:, :4]
    ahead = [cosines[i, i] - cosines[i, j] >= margin for i in range(4) for j in range(4) if i != j]
    best = cp.Problem(cp.Maximize(margin), [cp.diag(gram) == 1, *ahead]).solve(solver=cp.CLARABEL)
    found = tf.normalized_head(counts, scale=scale)
    assert found.status == "optimal"
    cosines = found.logits / scale
    own = np.diagonal(cosines)
    reached = (own - cosines + 4 * np.eye(4)).min()
    assert best - 4 / scale < reached <= best + 1e-6
    assert found.relative_gap < 1e-8
    # Of another direction a little is lost, which is much of so small a loss.
    rng = np.random.default_rng(0)
    rows = found.weights + 1e-3 * rng.normal(size=found.weights.shape)
    own = certified(
        normalized._Cosines(found.counts, scale, 0.0), np.vstack([rows, found.class_means.T])
    )
    assert own.relative_gap > 1e-4


def test_minorities_merge_at_small_scales():
    found = tf.normalized_head([1000, 1000, 10, 10, 9], scale=1)
    assert found.merged == ((2, 3, 4),)
    assert found.note == "3 classes of 9 to 10 samples share one direction"
    assert np.abs(np.diff(found.logits[[2, 3, 4], :2], axis=0)).max() < 1e-4
    apart = tf.normalized_head([1000, 1000, 10, 10, 9], scale=8)
    assert apart.merged == ()
    assert apart.note.startswith("classes of 10 samples come together (cosine of classifier rows ")
    assert tf.normalized_head([10] * 5, scale=1).note == ""


def test_head_known_values():
    found = tf.normalized_head("100x2,10x2", scale=4)
    assert found.objective == pytest.approx(0.01119293, abs=5e-9)
    cosines = found.weight_cosines
    assert [cosines[0, 1], cosines[2, 3], cosines[0, 2]] == pytest.approx(
        [-0.632, 0.200, -0.333], abs=1e-3
    )
    assert found.rank == 3
    # In two dimensions more is lost than certified: direct minimisation there.
    rng = np.random.default_rng(0)

    def loss(x):
        return head_loss([100, 100, 10, 10], 4, 0, x[:8].reshape(4, 2), x[8:].reshape(2, 4))

    narrow = min(
        (minimize(loss, rng.normal(size=16)) for _ in range(3)), key=lambda result: result.fun
    )
    assert narrow.fun == pytest.approx(0.0232759, abs=1e-5)
    other = found.certify(narrow.x[:8].reshape(4, 2), narrow.x[8:].reshape(2, 4))
    assert other.primal == pytest.approx(narrow.fun, rel=1e-9)
    assert other.gap == pytest.approx(narrow.fun - found.objective, abs=1e-9)


@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_balanced_heads_are_a_simplex_etf(margin):
    found = tf.normalized_head([7] * 6, scale=8, margin=margin)
    etf = 1.2 * np.eye(6) - 0.2
    for cosines in (found.weight_cosines, found.mean_cosines, found.logits / 8):
        assert np.allclose(cosines, etf, atol=1e-6)
    assert found.objective == pytest.approx(math.log1p(5 * math.exp(-8 * (1.2 - margin))))


def test_contrastive_is_what_cvxpy_finds_over_all_samples():
    counts, temperature = [3, 2, 2], 0.5
    labels = np.repeat(range(3), counts)
    gram = cp.Variable((7, 7), PSD=True)
    loss = 0
    for i in range(7):
        others = [a for a in range(7) if a != i]
        positives = [a for a in others if labels[a] == labels[i]]
        loss += cp.log_sum_exp(gram[i, others] / temperature) / 7
        loss -= sum(gram[i, p] for p in positives) / len(positives) / temperature / 7
    value = cp.Problem(cp.Minimize(loss), [cp.diag(gram) == 1]).solve(solver=cp.CLARABEL)
    found = tf.supervised_contrastive(counts, temperature=temperature)
    assert found.objective == pytest.approx(value, abs=1e-7)
    assert 0 <= found.gap < 1e-11
    samples = found.class_means.T[labels]
    assert contrastive_loss(samples, labels, temperature) == pytest.approx(found.objective)


def test_contrastive_known_values():
    found = tf.supervised_contrastive([5, 3, 2], temperature=0.5)
    assert found.objective == pytest.approx(1.04521815, abs=5e-9)
    pairs = found.cosines[np.triu_indices(3, 1)]
    assert pairs == pytest.approx([-0.5529, -0.5343, -0.4089], abs=5e-5)
    balanced = tf.supervised_contrastive([4] * 5, temperature=0.2)
    assert np.allclose(balanced.cosines, 1.25 * np.eye(5) - 0.25, atol=1e-6)


@pytest.mark.parametrize(
    "solve",
    [
        lambda: tf.normalized_head("1000x25,10x25", scale=16, margin=0.1),
        lambda: tf.supervised_contrastive(list(range(2, 52)), temperature=0.1),
    ],
)
def test_fifty_classes_are_certified(solve):
    found = solve()
    assert found.status == "optimal"
    assert found.gap < 1e-11
    assert found.rank == 49


def test_poor_candidates_have_bounds_below_the_minimum():
    rng = np.random.default_rng(0)
    head = tf.normalized_head([9, 3, 1], scale=3)
    contrast = tf.supervised_contrastive([9, 3, 2], temperature=0.3)
    # Without the solution's bound to lean on.
    for _ in range(20):
        w, h = rng.normal(size=(3, 4)), rng.normal(size=(4, 3))
        own = certified(normalized._Cosines(head.counts, 3.0, 0.0), np.vstack([w, h.T]))
        assert own.lower_bound <= head.objective <= own.objective
        assert head.certify(w, h).dual >= head.lower_bound
        own = certified(contrastive._Contrast(contrast.counts, 0.3), h.T)
        assert own.lower_bound <= contrast.objective <= own.objective
        assert contrast.certify(h).primal == own.objective


def test_what_they_say_of_themselves():
    head = tf.normalized_head([9, 3, 1], scale=3)
    contrast = tf.supervised_contrastive([9, 3, 2], temperature=0.3)
    assert head.to_dict()["gap"] == head.gap
    assert [group["samples"] for group in head.to_dict()["siblings"]] == [9, 3, 1]
    assert contrast.to_dict()["cosines"] == contrast.cosines.tolist()
    assert repr(head).startswith("NormalizedHead(3 classes, scale 3, margin 0, objective ")
    assert repr(contrast).startswith("SupervisedContrastive(3 classes, temperature 0.3, obj")
    frame = tf.normalized_head([1000, 1000, 10, 10, 9], scale=1).to_frame()
    assert frame.merged.tolist() == [False, False, True, True, True]
    assert frame.nearest[1] != 1
    assert frame.cosine.max() == pytest.approx(1)
    for found in (head, contrast):
        figure, ax = found.plot()
        assert ax in figure.axes


def test_a_gap_above_the_tolerance_is_said():
    with pytest.warns(tf.NotConvergedWarning, match="not converged: the certified relative gap is"):
        found = tf.normalized_head([9, 3, 1], scale=3, tol=1e-30)
    assert found.status == "not_converged"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tf.normalized_head([5], scale=1), "counts: got 1 class, need at least 2"),
        (lambda: tf.normalized_head("5x51", scale=1), "counts: got 51 classes"),
        (lambda: tf.normalized_head([5, 0], scale=1), "counts"),
        (lambda: tf.normalized_head([5, 5], scale=0), "scale: got 0"),
        (lambda: tf.normalized_head([5, 5], scale=1e5), "scale: got 100000, need 0.01 to 10000"),
        (lambda: tf.normalized_head([5, 5], scale=1e-3), "scale: got 0.001, need 0.01 to 10000"),
        (lambda: tf.normalized_head([5, 5], scale=math.nan), "scale: got nan"),
        (lambda: tf.normalized_head([5, 5], scale=1, margin=-1), "margin: got -1"),
        (lambda: tf.normalized_head([5, 5], scale=1, margin=3), "margin: got 3, need at most 2"),
        (lambda: tf.normalized_head([5, 5], scale=1, tol=0), "tol: got 0"),
        (lambda: tf.normalized_head([5, 5], scale=1, seed=-1), "seed: got -1"),
        (lambda: tf.supervised_contrastive([5, 1], temperature=1), "counts: class 1 has 1 sample"),
        (lambda: tf.supervised_contrastive([5, 5], temperature=1e-9), "temperature: got 1e-09"),
        (lambda: tf.supervised_contrastive([5, 5], temperature=1e3), "temperature: got 1000, need"),
        (lambda: tf.supervised_contrastive([5], temperature=1), "counts: got 1 class"),
        (lambda: tf.supervised_contrastive("5x51", temperature=1), "counts: got 51 classes"),
        (
            lambda: tf.supervised_contrastive([5, 5], temperature=1).certify(np.zeros((2, 2))),
            "class_means: a vector is zero",
        ),
        (
            lambda: tf.supervised_contrastive([5, 5], temperature=1).certify(np.ones((2, 3))),
            r"class_means: got shape \(2, 3\), need \(D, 2\)",
        ),
        (
            lambda: tf.normalized_head([5, 5], scale=1).certify(np.ones((3, 2)), np.ones((2, 2))),
            r"weight: got shape \(3, 2\), need \(2, D\)",
        ),
        (
            lambda: tf.normalized_head([5, 5], scale=1).certify(np.ones((2, 2)), np.ones((3, 2))),
            r"class_means: got shape \(3, 2\), need \(2, 2\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
