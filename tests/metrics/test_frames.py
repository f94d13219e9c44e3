"""NC2, NC3 and layers against dense float64 NumPy, exact frames, theorems and minimisation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

import tightframe as tf
from tests.metrics.samples import Sizes, gather, networks, quick, rotation
from tests.reference import two_pass
from tightframe.geometry.dense import (
    Geometry,
    distance_floor,
    etf_distance_floor,
    general_orthogonal_frame,
    orthogonal_frame,
    seli,
    simplex_etf,
)
from tightframe.metrics import (
    ClassMoments,
    GroupedGeometry,
    GroupedMatrix,
    frames,
    layer_metrics,
    nc2,
    nc3,
    self_duality,
    tall,
)
from tightframe.metrics.targets import TARGET_PARTS, frame

pytestmark = pytest.mark.filterwarnings("error")


def center(k):
    return np.eye(k) - 1 / k


def dense_parts(target):
    parts = {name: getattr(target, name) for name in ("classifier", "means", "logits")}
    p = center(len(parts["means"]))
    parts["centered_means"] = p @ parts["means"] @ p
    parts["centered_logits"] = parts["logits"] @ p
    return parts


def naive_distances(means, w, target):
    """Every part written out: means (K, D) and classifier (K, D), as the papers' formulas say."""
    c = means - means.mean(axis=0)
    measured = {
        "classifier": w @ w.T,
        "means": means @ means.T,
        "centered_means": c @ c.T,
        "logits": w @ means.T,
        "centered_logits": w @ c.T,
    }
    goal = dense_parts(target)
    return {
        part: two_pass.frobenius_distance(measured[part], goal[part])
        for part in TARGET_PARTS
        if np.abs(goal[part]).max() > 1e-9
    }


def measured_distances(moments, w, target):
    return {
        "classifier": nc2(w, target),
        "means": nc2(moments, target, part="means"),
        "centered_means": nc2(moments, target),
        "logits": nc3(moments, w, target, centered=False),
        "centered_logits": nc3(moments, w, target),
    }


class TestDistances:
    @quick
    @given(networks(), st.data(), st.integers(1, 40))
    def test_any_target_is_the_dense_formula(self, network, data, block):
        x, y, k, w, _ = network
        means = two_pass.class_means(x, y, k)
        counts = np.bincount(y)
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        a = rng.normal(size=(3, k, k))
        random = Geometry("random", a[0] @ a[0].T, a[1] @ a[1].T, a[2])
        targets = {
            "etf": simplex_etf(k),
            "orthogonal_frame": orthogonal_frame(k),
            seli(counts): seli(counts),
            random: random,
        }
        moments = gather(x, y, k)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tall, "BLOCK_ENTRIES", block)
            patch.setattr(frames, "_SAFE_SQUARE", data.draw(st.sampled_from([0.1, 5.0])))
            for target, written in targets.items():
                got = measured_distances(moments, w, target)
                for part, want in naive_distances(means, w, written).items():
                    assert got[part] == pytest.approx(want, abs=1e-7), (written.name, part)

    @pytest.mark.parametrize("square", [0.1, 5.0])
    @pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3])
    def test_small_distances_are_exact(self, size, square, monkeypatch):
        # The formula by inner products alone would give 0 or 1e-8 here.
        monkeypatch.setattr(frames, "_SAFE_SQUARE", square)
        k = 6
        rng = np.random.default_rng(0)
        w = center(k) + size * rng.normal(size=(k, k))
        want = two_pass.frobenius_distance(w @ w.T, center(k))
        assert nc2(w) == pytest.approx(want, rel=1e-3 if size == 1e-12 else 1e-8)
        assert nc2(w) == pytest.approx(nc2(w, simplex_etf(k)), rel=1e-3, abs=1e-15)

    @pytest.mark.parametrize("scale", [1e-120, 1e120])
    def test_scale_does_not_matter(self, scale):
        w = np.random.default_rng(0).normal(size=(5, 3))
        assert nc2(scale * w) == pytest.approx(nc2(w), rel=1e-12)
        assert nc2(scale * w, "general_orthogonal_frame") == pytest.approx(
            nc2(w, "general_orthogonal_frame"), rel=1e-12
        )

    @quick
    @given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 99))
    def test_nearest_general_orthogonal_frame(self, k, d, seed):
        rng = np.random.default_rng(seed)
        w = rng.normal(size=(k, d))
        gram = w @ w.T
        # No diagonal matrix comes closer than the Gram's own diagonal.
        got = nc2(w, "general_orthogonal_frame")
        assert got == pytest.approx(
            two_pass.frobenius_distance(gram, np.diag(np.diag(gram))), abs=1e-12
        )
        for _ in range(5):
            other = np.diag(np.diag(gram) * rng.uniform(0.5, 2, size=k))
            assert got <= two_pass.frobenius_distance(gram, other) + 1e-12
        lengths = rng.uniform(0.1, 3, size=k)
        exact = lengths[:, None] * rotation(k, seed)
        assert nc2(exact, "general_orthogonal_frame") <= 1e-13
        target = general_orthogonal_frame(lengths, 1 / lengths)
        assert nc2(exact, target) <= 1e-13
        x, y = (1 / lengths)[:, None] * rotation(k, seed), np.arange(k)
        assert nc3(gather(x, y, k), exact, target, centered=False) <= 1e-13

    def test_no_k_by_k_array_against_frames(self, monkeypatch):
        monkeypatch.setattr(tall, "BLOCK_ENTRIES", 4 * 500)
        sizes = Sizes()
        basis = torch.as_tensor(rotation(500), dtype=torch.float64)
        etf = basis - basis.mean(dim=0)
        moments = ClassMoments(500, scatter=False).update(etf, torch.arange(500))
        moments.tensors()  # adds the rows that wait, a block of its own size
        with sizes:
            assert nc2(moments) <= 1e-13
            assert nc3(moments, etf) <= 1e-13
            assert nc2(etf[:, :20], "orthogonal_frame") > 1
        assert sizes.largest == 500 * 500  # the features themselves: D = K here
        narrow = torch.randn(500, 20, dtype=torch.float64)
        with (sizes := Sizes()):
            nc2(narrow)
            nc2(narrow, "general_orthogonal_frame")
        assert sizes.largest == 500 * 20


class TestFloor:
    @pytest.mark.parametrize(("k", "d"), [(3, 1), (4, 2), (5, 2), (6, 4), (5, 4), (5, 7)])
    def test_is_the_least_that_minimisation_finds(self, k, d):
        target = torch.as_tensor(center(k))

        def loss(flat):
            w = torch.tensor(flat.reshape(k, d), requires_grad=True)
            gram = w @ w.T
            value = (gram / gram.norm() - target / target.norm()).square().sum()
            value.backward()
            return value.item(), w.grad.numpy().ravel()

        rng = np.random.default_rng(0)
        found = [
            minimize(loss, rng.normal(size=k * d), jac=True, options={"gtol": 1e-9}).x
            for _ in range(4)
        ]
        least = min(nc2(x.reshape(k, d)) for x in found)
        floor = etf_distance_floor(k, d)
        assert least == pytest.approx(floor, abs=1e-6)
        assert least >= floor - 1e-7
        assert distance_floor(center(k), d) == pytest.approx(floor, abs=1e-12)
        assert (floor == 0) == (d >= k - 1)

    def test_of_a_prediction(self):
        geometry = seli([100, 100, 10, 10])
        values, vectors = np.linalg.eigh(geometry.classifier)
        for d in (1, 2, 3):
            best = vectors[:, -d:] * np.sqrt(values[-d:])
            assert nc2(best, geometry) == pytest.approx(
                distance_floor(geometry.classifier, d), abs=1e-7
            )
        assert nc2(np.random.default_rng(0).normal(size=(4, 2)), geometry) > distance_floor(
            geometry.classifier, 2
        )

    def test_refusals(self):
        with pytest.raises(ValueError, match="num_classes"):
            etf_distance_floor(1, 3)
        with pytest.raises(ValueError, match="dim"):
            etf_distance_floor(3, 0)
        with pytest.raises(ValueError, match="target: got shape"):
            distance_floor(np.ones((2, 3)), 1)
        with pytest.raises(ValueError, match="target: entries must be finite"):
            distance_floor(np.full((2, 2), np.nan), 1)
        with pytest.warns(RuntimeWarning, match="zero matrix"):
            assert math.isnan(distance_floor(np.zeros((3, 3)), 1))


class TestTargets:
    @pytest.mark.parametrize(
        "options",
        [
            {"bias": "none"},
            {"bias": "free"},
            {"bias": "decayed", "bias_decay": 0.01},
            {"loss": "mse"},
            {"features": "nonnegative"},
            {"loss": "mse", "features": "nonnegative"},
            {"class_weights": "balanced", "logit_adjustment": "prior"},
        ],
    )
    @pytest.mark.parametrize("weight_decay", [1e-3, 2e-2])
    def test_a_solution_in_compact_form(self, options, weight_decay):
        counts = [50, 9, 9, 50, 2, 50, 9, 50]
        problem = tf.Problem(counts, weight_decay=weight_decay, feature_decay=3e-3, **options)
        solution = tf.solve(problem)
        grouped = GroupedGeometry.from_solution(solution)
        for part, want in dense_parts(solution.geometry).items():
            matrix = grouped.part(part)
            np.testing.assert_allclose(
                matrix.to_dense(), want, atol=1e-9 * np.abs(want).max(), rtol=0
            )
            assert matrix.norm == pytest.approx(np.linalg.norm(want), rel=1e-9)
            if part in ("classifier", "means"):
                lengths = np.sqrt(np.diagonal(want))
                np.testing.assert_allclose(matrix.lengths[matrix.groups], lengths, rtol=1e-7)
                cosines = matrix.cosines[np.ix_(matrix.groups, matrix.groups)]
                scale = np.outer(lengths, lengths)
                off = ~np.eye(len(counts), dtype=bool) & (scale > 0)
                np.testing.assert_allclose(cosines[off], want[off] / scale[off], atol=1e-8)
        w, means = solution.weights[0], solution.class_means.T
        moments = gather(means, np.arange(len(counts)), len(counts))
        got = measured_distances(moments, w, grouped)
        assert max(got.values()) <= 1e-6
        assert max(measured_distances(moments, w, solution).values()) <= 1e-6
        assert min(measured_distances(moments, w, "etf").values()) > 0.01

    def test_a_solution_of_too_many_classes_for_a_dense_matrix(self):
        problem = tf.Problem("50x2100,5x2100", weight_decay=1e-5, feature_decay=1e-6)
        solution = tf.solve(problem)
        rng = np.random.default_rng(0)
        got = nc2(rng.normal(size=(4200, 3)), solution)
        want = GroupedGeometry.from_solution(solution).classifier
        w = rng.normal(size=(4200, 3))
        assert 0 < got < math.sqrt(2)
        # Independent of tiles and norms: inner products by the definition of T.
        g = w @ w.T
        t = want.blocks[np.ix_(want.groups, want.groups)]
        t[np.diag_indices_from(t)] += want.diagonal[want.groups]
        assert nc2(w, solution) == pytest.approx(
            math.sqrt(2 - 2 * (g * t).sum() / np.linalg.norm(g) / np.linalg.norm(t)), rel=1e-10
        )

    def test_centring_and_restriction(self):
        rng = np.random.default_rng(0)
        groups = np.array([0, 1, 1, 2, 0, 2, 2])
        matrix = GroupedMatrix(groups, rng.normal(size=3), rng.normal(size=(3, 3)))
        dense, p = matrix.to_dense(), center(7)
        np.testing.assert_allclose(matrix.centered(rows=False).to_dense(), dense @ p, atol=1e-14)
        np.testing.assert_allclose(matrix.centered(rows=True).to_dense(), p @ dense @ p, atol=1e-14)
        assert matrix.norm == pytest.approx(np.linalg.norm(dense))
        kept = np.array([0, 2, 3, 6])
        np.testing.assert_array_equal(matrix.restrict(kept).to_dense(), dense[np.ix_(kept, kept)])
        # Rounding of 25 entries and their norm.
        assert frame("etf", 5).to_geometry().distance(simplex_etf(5), "means") <= 1e-14

    def test_refusals(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        with pytest.raises(ValueError, match="target: got 'ETF', allowed names are etf"):
            nc2(moments, "ETF")
        with pytest.raises(ValueError, match="target: got a geometry of 4 classes, need 3"):
            nc3(moments, np.eye(3), simplex_etf(4))
        with pytest.raises(ValueError, match="target: got ndarray"):
            nc2(moments, np.eye(3))
        with pytest.raises(ValueError, match="part: got 'logits', allowed are classifier, means"):
            nc2(np.eye(3), part="logits")
        with pytest.raises(ValueError, match="part: got 'classifier', allowed are means, centered"):
            nc2(moments, part="classifier")
        with pytest.raises(ValueError, match="centered_means has no general orthogonal frame"):
            nc2(moments, "general_orthogonal_frame")
        with pytest.raises(ValueError, match="nc2: got 1 vector"):
            nc2([[1.0, 2.0]])
        with pytest.raises(ValueError, match="vectors: got shape"):
            nc2([1.0, 2.0])
        with pytest.raises(ValueError, match="vectors: has NaN"):
            nc2([[1.0], [math.nan]])
        deep = tf.solve(tf.Problem("9x3", weight_decay=1e-3, feature_decay=1e-3, dim=2))
        with pytest.raises(ValueError, match="num_classes"):
            frame("etf", 1)
        assert nc2(moments, deep) <= 1e-6


class TestDegenerate:
    def test_zero_and_equal_vectors(self):
        with pytest.warns(RuntimeWarning, match="zero matrix"):
            assert math.isnan(nc2(np.zeros((3, 2))))
        moments = gather(np.ones((6, 4)), np.arange(6) % 3, 3)
        with pytest.warns(RuntimeWarning, match="zero matrix"):
            assert math.isnan(nc2(moments))
        with pytest.warns(RuntimeWarning, match="zero matrix"):
            assert math.isnan(nc3(moments, np.eye(3, 4)))

    def test_classifier_orthogonal_to_the_means(self):
        turn = rotation(6)
        means, w = np.eye(3, 6) @ turn, np.eye(6)[3:] @ turn
        moments = gather(means, np.arange(3), 3)
        with pytest.warns(RuntimeWarning, match="zero matrix"):
            assert math.isnan(nc3(moments, w))

    def test_missing_class_leaves_the_target_too(self):
        counts = np.array([100, 100, 10, 10])
        geometry = seli(counts)
        values, vectors = np.linalg.eigh(geometry.means)
        means = vectors * np.sqrt(np.clip(values, 0, None))
        kept = [0, 1, 3]
        moments = gather(means[kept], np.array(kept), 4)
        with pytest.warns(RuntimeWarning, match="nc2: class 2 is without samples and left out"):
            assert nc2(moments, geometry) <= 1e-7
        p = center(4)
        moments = gather(p[kept], np.array(kept), 4)
        with pytest.warns(RuntimeWarning, match="nc2: class 2"):
            assert nc2(moments) <= 1e-13  # three vertices of the simplex are a simplex
        with pytest.warns(RuntimeWarning, match="nc3: class 2"):
            assert nc3(moments, np.array(p)) <= 1e-13

    def test_two_classes(self):
        # cos of the two centred means is -1, whatever they are; the raw ones still say something.
        x = np.array([[3.0, 1.0], [2.0, 5.0]])
        moments = gather(x, np.arange(2), 2)
        assert nc2(moments) <= 1e-14  # rounding of means up to 5
        assert nc2(moments, part="means") > 0.1


class TestSelfDuality:
    def test_against_the_etf_it_is_the_classical_one(self):
        rng = np.random.default_rng(0)
        x, y, w = rng.normal(size=(20, 5)), np.arange(20) % 4, rng.normal(size=(4, 5))
        moments = gather(x, y, 4)
        for target in ("etf", simplex_etf(4)):
            assert self_duality(moments, w, target) == pytest.approx(
                self_duality(moments, w), rel=1e-12
            )

    @pytest.mark.parametrize("depth", [1, 2])
    def test_of_imbalanced_mse_is_the_scaled_duality_of_dang_et_al_2023(self, depth):
        counts = np.array([200, 100, 50, 50])
        problem = tf.Problem(counts, loss="mse", weight_decay=5e-4, feature_decay=5e-4, depth=depth)
        s = tf.solve(problem)
        w = s.weights[0]
        for layer in s.weights[1:]:
            w = layer @ w
        rng = np.random.default_rng(0)
        means = s.class_means.T + 0.05 * rng.normal(size=s.class_means.T.shape)
        # W = diag(s_k^{2M} + N lambda_H) H^T, with s_k^{2M} = ||w_k||^2 of the prediction.
        want = (np.diag(s.geometry.classifier) + counts.sum() * 5e-4)[:, None] * means
        moments = gather(means, np.arange(4), 4)
        got = self_duality(moments, w, s)
        assert got == pytest.approx(two_pass.frobenius_distance(w, want), rel=1e-8)
        assert self_duality(gather(s.class_means.T, np.arange(4), 4), w, s) <= 1e-8

    def test_of_imbalanced_relu_is_the_centred_scaling_of_dang_et_al_2024(self):
        counts = np.array([500, 400, 300, 200, 100])
        s = tf.solve(
            tf.Problem(counts, features="nonnegative", weight_decay=2e-4, feature_decay=1e-4)
        )
        rng = np.random.default_rng(0)
        means = s.class_means.T + 0.01 * rng.normal(size=s.class_means.T.shape)
        roots = np.sqrt(counts)[:, None]
        want = 5 * roots * means - (roots * means).sum(axis=0)
        w = s.weights[0]
        got = self_duality(gather(means, np.arange(5), 5), w, s)
        assert got == pytest.approx(two_pass.frobenius_distance(w, want), rel=1e-8)

    def test_refusals(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        with pytest.raises(ValueError, match="predicts no classifier"):
            self_duality(moments, np.eye(3), "general_orthogonal_frame")


class TestLayers:
    @quick
    @given(networks(), st.integers(1, 3), st.integers(0, 99))
    def test_every_partial_product_is_the_dense_formula(self, network, depth, seed):
        x, y, k, _, _ = network
        rng = np.random.default_rng(seed)
        widths = [x.shape[1], *rng.integers(1, 5, size=depth - 1), k]
        weights = [rng.normal(size=(widths[m + 1], widths[m])) for m in range(depth)]
        means = two_pass.class_means(x, y, k)
        layers = layer_metrics(gather(x, y, k), weights, orthogonal_frame(k))
        assert [layer.layer for layer in layers] == list(range(1, depth + 1))
        for m, layer in enumerate(layers):
            head = np.linalg.multi_dot([*weights[m:][::-1], np.eye(widths[m])])
            own = means @ np.linalg.multi_dot([np.eye(widths[0])] * 2 + [v.T for v in weights[:m]])
            for part, want in naive_distances(own, head, orthogonal_frame(k)).items():
                assert getattr(layer, part) == pytest.approx(want, abs=1e-6)
            want = two_pass.frobenius_distance(head, own - own.mean(axis=0))
            assert layer.self_duality == pytest.approx(want, abs=1e-6)

    @pytest.mark.parametrize("counts", [[50] * 4, [200, 100, 50, 50]])
    def test_deep_linear_mse_matches_its_prediction_in_every_layer(self, counts):
        problem = tf.Problem(counts, loss="mse", weight_decay=5e-4, feature_decay=5e-4, depth=3)
        s = tf.solve(problem)
        turns = [np.linalg.qr(np.random.default_rng(i).normal(size=(4, 4)))[0] for i in range(3)]
        w1, w2, w3 = s.weights
        weights = [turns[1] @ w1 @ turns[0].T, turns[2] @ w2 @ turns[1].T, w3 @ turns[2].T]
        moments = gather((turns[0] @ s.class_means).T, np.arange(4), 4)
        for layer in layer_metrics(moments, weights, s):
            assert max(layer[1:6]) <= 1e-7
        flat = layer_metrics(moments, weights, "orthogonal_frame")
        general = layer_metrics(moments, weights, "general_orthogonal_frame")
        for layer, other in zip(flat, general, strict=True):
            if len(set(counts)) == 1:
                assert max(layer[1:6]) <= 1e-7  # balanced, bias-free: orthogonal at every cut
            else:
                assert min(layer.classifier, layer.means) > 0.05
            assert max(other.classifier, other.means, other.logits) <= 1e-7
            assert math.isnan(other.centered_means)
        # One geometry for all layers is not the imbalanced prediction.
        if len(set(counts)) > 1:
            last = layer_metrics(moments, weights, s.geometry)[-1]
            assert last.classifier > 0.05

    def test_refusals(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        for weights, message in [
            (np.eye(3), "weights: got ndarray, need a list"),
            ([], "weights: got no layer"),
            ([np.ones((4, 2)), np.ones((3, 4))], r"weights\[0\]: got shape \(4, 2\), need \(4, 3"),
            ([np.ones((4, 3)), np.ones((2, 4))], r"weights\[1\]: got shape \(2, 4\), need \(3, 4"),
            ([np.full((3, 3), np.nan)], r"weights\[0\]: has NaN"),
        ]:
            with pytest.raises(ValueError, match=message):
                layer_metrics(moments, weights)
        s = tf.solve(tf.Problem("9x3", weight_decay=1e-3, feature_decay=1e-3))
        with pytest.raises(ValueError, match="target: got a solution of 1 layers, the head has 2"):
            layer_metrics(moments, [np.eye(3), np.eye(3)], s)
        with pytest.raises(ValueError, match="class 3 is without samples"):
            layer_metrics(gather(np.eye(3), np.arange(3), 4), [np.ones((4, 3))])
