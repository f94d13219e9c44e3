"""The UFM-SVM: CVXPY, the theorem's sign, and the closed norms of the SELI paper."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

import tightframe as tf

COUNTS = st.lists(st.integers(1, 10**6), min_size=2, max_size=7)
BIASES = ("none", "free")


def _minimum(counts, bias="none"):
    """Return the minimum of the UFM-SVM and its logits by CVXPY."""
    k = len(counts)
    z = cp.Variable((k, k))
    b = cp.Variable(k) if bias == "free" else np.zeros(k)
    others = [(j, c) for c in range(k) for j in range(k) if j != c]
    margins = [z[c, c] + b[c] - z[j, c] - b[j] >= 1 for j, c in others]
    task = cp.Problem(cp.Minimize(cp.normNuc(z @ np.diag(np.sqrt(counts)))), margins)
    task.solve(solver="CLARABEL")
    return task.value, z.value


@pytest.mark.parametrize("counts", [[7, 7, 7], [20, 5, 1], [30, 12, 12, 2], [9, 4, 4, 1, 1]])
def test_seli_is_cvxpys_solution(counts):
    value, logits = _minimum(counts)
    certificate = tf.certify_svm(counts)
    assert certificate.primal == pytest.approx(value, rel=1e-6)
    assert certificate.dual <= value * (1 + 1e-9)
    assert np.allclose(logits, np.eye(len(counts)) - 1 / len(counts), atol=1e-4)
    assert tf.certify_svm(counts, logits).gap < 1e-2 * value


@pytest.mark.parametrize("counts", [[7, 7, 7], [20, 5, 1], [30, 12, 12, 2], [9, 4, 4, 1, 1]])
def test_seli_with_a_free_bias_is_cvxpys_solution(counts):
    value, logits = _minimum(counts, "free")
    certificate = tf.certify_svm(counts, bias="free")
    assert certificate.primal == pytest.approx(value, rel=1e-6)
    assert certificate.dual <= value * (1 + 1e-9)
    assert np.allclose(logits, tf.seli(counts, bias="free").logits, atol=1e-4)
    assert tf.certify_svm(counts, logits, bias="free").gap < 1e-2 * value


@given(COUNTS)
def test_seli_with_a_free_bias_solves_it_for_any_counts(counts):
    certificate = tf.certify_svm(counts, bias="free")
    assert certificate.largest_off_diagonal < 0
    assert certificate.gap <= 1e-10 * certificate.primal
    frame = tf.seli(counts, bias="free")
    # The least norm is the trace of the root of a graph's Laplacian.
    n = np.array(counts, dtype=float)
    values = np.linalg.eigvalsh(np.diag(n) - np.outer(n, n) / n.sum())
    root = np.sqrt(values[1:]).sum()  # the first is zero
    assert certificate.primal == pytest.approx(root, rel=1e-7)
    assert np.trace(frame.classifier) == pytest.approx(root, rel=1e-7)
    assert n @ np.diagonal(frame.means) == pytest.approx(root, rel=1e-7)
    assert certificate.primal <= tf.certify_svm(counts).primal * (1 + 1e-12)
    # Any bias in the logits is undone.
    shifted = frame.logits + np.linspace(-5, 5, len(n))[:, None]
    assert tf.certify_svm(counts, shifted, bias="free").dual == pytest.approx(root, rel=1e-7)


@given(st.integers(2, 6), st.integers(0, 1000), st.sampled_from([0.1, 0.5, 2.0]))
def test_the_best_bias_is_that_of_a_linear_programme(k, seed, noise):
    rng = np.random.default_rng(seed)
    logits = np.eye(k) + noise * rng.uniform(-1, 1, (k, k))
    # Variables (b, m): maximise m with b_j - b_c + m <= z_cc - z_jc.
    rows, limits = [], []
    for c in range(k):
        for j in range(k):
            if j != c:
                row = np.zeros(k + 1)
                row[j], row[c], row[k] = 1, -1, 1
                rows.append(row)
                limits.append(logits[c, c] - logits[j, c])
    aim = np.zeros(k + 1)
    aim[k] = -1
    bounds = [(0, 0)] + [(None, None)] * k
    margin = -linprog(aim, np.array(rows), limits, bounds=bounds).fun
    counts = rng.integers(1, 100, k).tolist()
    if margin <= 1e-6:
        with pytest.raises(ValueError, match="least margin"):
            tf.certify_svm(counts, logits, bias="free")
        return
    norm = np.linalg.norm(logits * np.sqrt(counts), "nuc")
    found = tf.certify_svm(counts, logits, bias="free")
    assert found.primal == pytest.approx(norm / margin, rel=1e-7)


@given(COUNTS)
def test_seli_solves_it_for_any_counts(counts):
    certificate = tf.certify_svm(counts)
    assert certificate.largest_off_diagonal < 0
    assert certificate.gap <= 1e-10 * certificate.primal
    k = len(counts)
    scaled = (np.eye(k) - 1 / k) * np.sqrt(counts)
    assert certificate.primal == pytest.approx(np.linalg.norm(scaled, "nuc"), rel=1e-12)
    assert tf.certify_svm(counts, 3 * np.eye(k)).dual == pytest.approx(certificate.dual, rel=1e-9)


@pytest.mark.parametrize("bias", BIASES)
@given(COUNTS, st.integers(0, 1000), st.sampled_from([0.01, 0.1, 0.3]))
def test_the_bound_holds_for_any_logits(bias, counts, seed, noise):
    k = len(counts)
    best = tf.certify_svm(counts, bias=bias)
    logits = np.eye(k) - 1 / k + noise * np.random.default_rng(seed).uniform(-1, 1, (k, k))
    candidate = tf.certify_svm(counts, logits, bias=bias)
    assert 0 <= candidate.dual <= best.primal * (1 + 1e-10)
    assert candidate.primal > best.primal  # no other logits attain the minimum
    assert candidate.gap > 0
    scaled = tf.certify_svm(counts, 7 * logits, bias=bias)
    assert scaled.primal == pytest.approx(candidate.primal, rel=1e-12)


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=5), st.integers(0, 1000))
def test_classes_can_be_renamed(counts, seed):
    rng = np.random.default_rng(seed)
    k = len(counts)
    logits = np.eye(k) + 0.2 * rng.uniform(-1, 1, (k, k))
    order = rng.permutation(k)
    one = tf.certify_svm(counts, logits)
    two = tf.certify_svm(np.array(counts)[order], logits[np.ix_(order, order)])
    assert (two.primal, two.dual) == pytest.approx((one.primal, one.dual), rel=1e-9)
    assert two.largest_off_diagonal == pytest.approx(one.largest_off_diagonal, abs=1e-9)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("counts", ["10x3,2x4", "5x4", "7,3x2,1x3"])
def test_blocks_equal_the_dense_matrix(counts, bias):
    blocks = tf.certify_svm(counts, bias=bias)
    dense = tf.certify_svm(counts, tf.seli(counts, bias).logits, bias=bias)
    assert blocks.primal == pytest.approx(dense.primal, rel=1e-12)
    assert blocks.dual == pytest.approx(dense.dual, rel=1e-10)
    assert blocks.largest_off_diagonal == pytest.approx(dense.largest_off_diagonal, rel=1e-9)


def test_rank_deficient_logits():
    """A square in the plane separates four classes; its factors cost more than SELI's."""
    square = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    certificate = tf.certify_svm("5x4", square @ square.T)
    assert certificate.primal == pytest.approx(4 * np.sqrt(5), rel=1e-12)  # sigma 2, 2, sqrt(5)
    assert 0 < certificate.dual <= tf.certify_svm("5x4").primal == pytest.approx(3 * np.sqrt(5))


@pytest.mark.parametrize("bias", BIASES)
def test_a_million_classes(bias):
    certificate = tf.certify_svm("1000x400000,100x1,10x599999", bias=bias)
    assert certificate.gap <= 1e-10 * certificate.primal
    assert -1e-5 < certificate.largest_off_diagonal < 0


@pytest.mark.parametrize("ratio", [1, 10, 100])
def test_closed_norms_of_two_halves(ratio):
    """papers.md section B: (R, 1/2)-STEP imbalance, one sample a minority class."""
    k, root = 10, np.sqrt((ratio + 1) / 2)
    geometry = tf.seli(f"{ratio}x5,1x5")
    w, h = np.diagonal(geometry.classifier), np.diagonal(geometry.means)
    assert w[0] == pytest.approx((1 - 2 / k) * np.sqrt(ratio) + root / k)
    assert w[-1] == pytest.approx((1 - 2 / k) + root / k)
    assert h[0] == pytest.approx((1 - 2 / k) / np.sqrt(ratio) + 1 / (k * root))
    assert h[-1] == pytest.approx((1 - 2 / k) + 1 / (k * root))
    assert geometry.classifier[0, -1] == pytest.approx(-root / k)
    assert geometry.means[0, -1] == pytest.approx(-1 / (k * root))
    # Half the squared norms of these factors are the minimum.
    halves = (
        w.sum() + tf.Problem(f"{ratio}x5,1x5", weight_decay=1, feature_decay=1).counts @ h
    ) / 2
    assert tf.certify_svm(f"{ratio}x5,1x5").primal == pytest.approx(halves, rel=1e-12)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((3, 3)), "logits: the least margin is 0; every class must beat"),
        (-np.eye(3), "logits: the least margin is -1"),
        (np.eye(2), r"logits: got shape \(2, 2\), need \(3, 3\)"),
        (np.full((3, 3), np.nan), "logits: entries must be finite"),
    ],
)
def test_bad_logits_are_named(logits, message):
    with pytest.raises(ValueError, match=message):
        tf.certify_svm("5x3", logits)


def test_a_bad_bias_is_named():
    for call in (tf.certify_svm, tf.seli):
        with pytest.raises(ValueError, match="bias: got 'decayed', allowed are none, free"):
            call("5x3", bias="decayed")
