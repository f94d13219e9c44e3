import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tightframe.geometry.dense import cosines, general_orthogonal_frame

SIZES = st.integers(2, 12)


@given(SIZES)
def test_simplex_etf_is_equinorm_and_equiangular(k):
    frame = tf.simplex_etf(k)
    off_diagonal = ~np.eye(k, dtype=bool)
    assert np.allclose(frame.classifier_cosines[off_diagonal], -1 / (k - 1))
    assert np.allclose(frame.means_norms, np.sqrt(1 - 1 / k))
    assert np.linalg.matrix_rank(frame.logits) == k - 1
    assert np.allclose(frame.centered_means, frame.means)


def test_orthogonal_frame_centred_is_the_etf():
    assert tf.orthogonal_frame(5).distance(tf.simplex_etf(5), "centered_means") < 1e-14
    assert tf.orthogonal_frame(5).distance(tf.simplex_etf(5), "means") > 0.1


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=8), st.integers(0, 1000))
def test_seli_factors_its_logits_at_least_norm(counts, seed):
    """Its Grams belong to vectors that interpolate the SEL matrix, at the nuclear norm's cost."""
    frame, k = tf.seli(counts), len(counts)
    scaled = frame.logits * np.sqrt(counts)
    nuclear = np.linalg.svd(scaled, compute_uv=False).sum()
    assert np.trace(frame.classifier) == pytest.approx(nuclear)
    assert counts @ np.diagonal(frame.means) == pytest.approx(nuclear)
    # W W^T = V L V^T is the square root of X X^T = V L^2 V^T.
    assert np.allclose(frame.classifier @ frame.classifier, scaled @ scaled.T, atol=1e-9)
    # Any other factors of the same logits cost no less.
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(k, k)) + k * np.eye(k)
    w, h = frame.logits @ a, np.linalg.inv(a)
    assert ((w**2).sum() + counts @ (h**2).sum(axis=0)) / 2 >= nuclear * (1 - 1e-9)


@pytest.mark.parametrize("ratio", [1, 10, 100])
def test_seli_norms_match_the_closed_forms_for_step_imbalance(ratio):
    k, s = 10, np.sqrt((ratio + 1) / 2)
    frame = tf.seli([ratio] * 5 + [1] * 5)
    w, h = frame.classifier, frame.means
    assert w[0, 0] == pytest.approx((1 - 2 / k) * np.sqrt(ratio) + s / k)
    assert w[9, 9] == pytest.approx((1 - 2 / k) + s / k)
    assert h[0, 0] == pytest.approx((1 - 2 / k) / np.sqrt(ratio) + 1 / (k * s))
    assert h[9, 9] == pytest.approx((1 - 2 / k) + 1 / (k * s))
    assert w[0, 9] == pytest.approx(-s / k)
    assert w[5, 9] == pytest.approx(-2 / k + s / k)
    assert h[0, 1] == pytest.approx(-(2 / k) / np.sqrt(ratio) + 1 / (k * s))
    assert h[0, 9] == pytest.approx(-1 / (k * s))


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=8))
def test_seli_with_a_free_bias_takes_the_shares_out(counts):
    """Its factors are those of the centred labels: logits and means have a weighted mean of 0."""
    frame, n = tf.seli(counts, bias="free"), np.array(counts, dtype=float)
    assert np.allclose(frame.logits @ n, 0, atol=1e-9)
    assert np.allclose(frame.logits.sum(axis=0), 0, atol=1e-12)
    assert np.allclose(frame.logits + (n / n.sum())[:, None], np.eye(len(n)))
    assert n @ frame.means @ n == pytest.approx(0, abs=1e-8 * n.sum() ** 2)
    laplacian = np.diag(n) - np.outer(n, n) / n.sum()
    assert np.allclose(frame.classifier @ frame.classifier, laplacian, atol=1e-9 * n.max())
    inner = frame.logits * np.sqrt(n)
    assert np.trace(frame.classifier) == pytest.approx(np.linalg.norm(inner, "nuc"))


def test_seli_is_the_etf_when_balanced():
    assert tf.seli("7x6", bias="free").distance(tf.simplex_etf(6), "classifier") < 1e-14
    assert tf.seli("7x6", bias="free").distance(tf.simplex_etf(6), "means") < 1e-14
    assert tf.seli("7x6").distance(tf.simplex_etf(6), "classifier") < 1e-14
    assert tf.seli("7x6").distance(tf.simplex_etf(6), "means") < 1e-14


def _matrix(k, seed):
    return np.random.default_rng(seed).normal(size=(k, k))


@given(SIZES, st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_distance_ignores_scale_and_is_a_metric(k, seed, scale):
    a, b, c = (_matrix(k, seed + i) for i in range(3))
    distance = tf.normalized_distance
    assert distance(a, scale * b) == pytest.approx(distance(a, b), abs=1e-12)
    assert distance(a, scale * a) < 1e-12
    assert distance(a, -a) == pytest.approx(2)
    assert distance(a, b) == distance(b, a)
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-12


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_distance_survives_extreme_scales(scale):
    a, b = _matrix(4, 0), _matrix(4, 1)
    assert tf.normalized_distance(scale * a, b) == pytest.approx(tf.normalized_distance(a, b))


def test_distance_to_zero_is_undefined_and_says_so():
    with pytest.warns(RuntimeWarning, match="zero matrix"):
        assert np.isnan(tf.normalized_distance(np.zeros((2, 2)), np.eye(2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_distance_refuses_what_is_not_finite(bad):
    with pytest.raises(ValueError, match="finite"):
        tf.normalized_distance(np.full((2, 2), bad), np.eye(2))


def test_distance_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"got shape \(3, 3\), need \(2, 2\)"):
        tf.normalized_distance(np.eye(2), np.eye(3))
    with pytest.raises(ValueError, match="part: got 'bias'"):
        tf.simplex_etf(3).distance(tf.simplex_etf(3), "bias")


@given(SIZES, st.integers(0, 10**6))
def test_geometry_of_vectors_ignores_rotation(k, seed):
    rng = np.random.default_rng(seed)
    w, h = rng.normal(size=(k, k + 2)), rng.normal(size=(k + 2, k))
    rotation = np.linalg.qr(rng.normal(size=(k + 2, k + 2)))[0]
    one, two = (
        tf.Geometry.from_vectors(w, h),
        tf.Geometry.from_vectors(w @ rotation.T, rotation @ h),
    )
    for part in ("classifier", "means", "centered_means", "logits"):
        assert one.distance(two, part) < 1e-12
    centred = h - h.mean(axis=1, keepdims=True)
    assert np.allclose(one.centered_means, centred.T @ centred)
    assert np.allclose(one.means_norms, np.linalg.norm(h, axis=0))


def test_cosines_of_a_zero_vector_are_undefined():
    result = cosines(np.diag([4.0, 0.0]))
    assert result[0, 0] == 1
    assert np.isnan(result[1]).all()
    assert np.isnan(result[:, 1]).all()


@pytest.mark.parametrize("k", [1, 0, 2.5, True, 10**6])
def test_frames_refuse_bad_sizes(k):
    with pytest.raises(ValueError, match="num_classes"):
        tf.simplex_etf(k)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="class_means: got shape"):
        tf.Geometry.from_vectors(np.ones((3, 4)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="logits: got shape"):
        tf.Geometry("x", np.eye(3), np.eye(3), np.eye(2))


def test_general_orthogonal_frame_is_the_imbalanced_mse_geometry():
    solution = tf.solve(
        tf.Problem("200,100,50x2", loss="mse", weight_decay=5e-4, feature_decay=5e-4)
    )
    predicted = solution.geometry
    frame = general_orthogonal_frame(predicted.classifier_norms, predicted.means_norms)
    for part in ("classifier", "means", "logits", "centered_means"):
        assert frame.distance(predicted, part) < 1e-12
    assert np.allclose(frame.logits, predicted.logits)


def test_general_orthogonal_frame_refuses_what_are_no_lengths():
    with pytest.raises(ValueError, match="means_norms: got shape"):
        general_orthogonal_frame([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="classifier_norms: lengths must be"):
        general_orthogonal_frame([1, -2], [1, 2])
    with pytest.raises(ValueError, match="classifier_norms: got shape"):
        general_orthogonal_frame(1.0, [1, 2])
    with pytest.raises(ValueError, match="num_classes"):
        general_orthogonal_frame([1], [1])
