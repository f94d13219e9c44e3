"""Norms, angles, groups and kernels against loops over pairs, exact frames, closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tests.metrics.samples import Sizes, gather, networks, quick, rotation
from tests.reference import two_pass
from tightframe.metrics import (
    ClassMoments,
    alignment,
    cosine_statistics,
    equiangularity,
    equinorm,
    group_angles,
    mutual_coherence,
    tall,
    uniformity,
)

pytestmark = pytest.mark.filterwarnings("error")


def simplex(k, d=None, seed=0):
    return (np.eye(k) - 1 / k) @ np.linalg.qr(np.random.default_rng(seed).normal(size=(d or k, k)))[
        0
    ].T


def pair_cosines(rows):
    return np.array(
        [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(rows, 2)]
    )


def pair_distances(rows):
    units = [row / np.linalg.norm(row) for row in rows]
    return np.array([np.linalg.norm(a - b) for a, b in itertools.combinations(units, 2)])


class TestAgainstLoops:
    @quick
    @given(networks(), st.integers(1, 30))
    def test_norms_and_cosines(self, network, block):
        x, y, k, w, _ = network
        means = two_pass.class_means(x, y, k)
        centered = means - means.mean(axis=0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tall, "BLOCK_ENTRIES", block)
            for given, rows in ((gather(x, y, k), centered), (w, w), (means, means)):
                norms = np.linalg.norm(rows, axis=1)
                assert equinorm(given) == pytest.approx(norms.std() / norms.mean(), abs=1e-10)
                cosines = pair_cosines(rows)
                got = cosine_statistics(given)
                want = [cosines.mean(), cosines.std(), cosines.min(), cosines.max()]
                want += [np.abs(cosines + 1 / (k - 1)).mean(), np.abs(cosines).max()]
                assert got == pytest.approx(want, abs=1e-7)
                assert equiangularity(given) == got.std
                assert mutual_coherence(given) == got.coherence

    @quick
    @given(networks(), st.integers(1, 30))
    def test_kernels(self, network, block):
        x, y, k, w, _ = network
        means = two_pass.class_means(x, y, k)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tall, "BLOCK_ENTRIES", block)
            cases = [(gather(x, y, k), means - means.mean(axis=0)), (w, w)]
            for given, rows in cases:
                d = pair_distances(rows)
                if d.min() < 1e-3:
                    continue  # exact log kernels need more digits than a comparison has
                kernels = {"log": np.log(1 / d), "distance": d}
                for kernel, values in kernels.items():
                    got = uniformity(given, kernel)
                    assert got.mean == pytest.approx(values.mean(), abs=1e-6)
                    assert got.variance == pytest.approx(values.var(), abs=1e-6)
                    if abs(values.mean()) > 0.1:
                        want = values.std() / abs(values.mean())
                        assert got.cov == pytest.approx(want, abs=1e-5)
                for s in (-1.5, 2.0):
                    got = uniformity(given, "riesz", s=s)
                    values = math.copysign(1, s) * d**-s
                    assert got.mean == pytest.approx(values.mean(), rel=1e-5)

    @quick
    @given(networks(), st.data(), st.integers(1, 30))
    def test_groups(self, network, data, block):
        x, y, k, w, _ = network
        groups = np.array(data.draw(st.lists(st.integers(0, 2), min_size=k, max_size=k)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tall, "BLOCK_ENTRIES", block)
            got = group_angles(w, groups)
        names = sorted(set(groups.tolist()), reverse=True)
        assert got.groups.tolist() == names
        norms = np.linalg.norm(w, axis=1)
        for i, a in enumerate(names):
            assert got.sizes[i] == (groups == a).sum()
            assert got.norms[i] == pytest.approx(norms[groups == a].mean())
            for j, b in enumerate(names):
                cosines = [
                    w[p] @ w[q] / norms[p] / norms[q]
                    for p in range(k)
                    for q in range(k)
                    if p != q and groups[p] == a and groups[q] == b
                ]
                found = got.minimum[i, j], got.mean[i, j], got.maximum[i, j]
                if not cosines:
                    assert np.isnan(found).all()
                else:
                    want = min(cosines), np.mean(cosines), max(cosines)
                    assert found == pytest.approx(want, abs=1e-12)
        by_count = group_angles(gather(x, y, k))
        assert by_count.groups.tolist() == sorted(set(np.bincount(y).tolist()), reverse=True)

    @quick
    @given(networks())
    def test_alignment(self, network):
        x, y, k, w, _ = network
        means = two_pass.class_means(x, y, k)
        moments = gather(x, y, k)
        for centered in (True, False):
            rows = means - means.mean(axis=0) if centered else means
            products = [w[c] @ rows[c] for c in range(k)]
            got = alignment(moments, w, centered=centered, cosine=False)
            np.testing.assert_allclose(got, products, atol=1e-10)
            cosines = [
                products[c] / np.linalg.norm(w[c]) / np.linalg.norm(rows[c]) for c in range(k)
            ]
            got = alignment(moments, w, centered=centered)
            np.testing.assert_allclose(got, cosines, atol=1e-7)


class TestExactValues:
    @pytest.mark.parametrize("k", [3, 5, 12])
    def test_simplex_etf(self, k):
        rows = simplex(k, k + 2)
        moments = gather(7 + 3 * rows, np.arange(k), k)
        for vectors in (rows, moments):
            assert equinorm(vectors) <= 1e-13
            got = cosine_statistics(vectors)
            assert got.mean == pytest.approx(-1 / (k - 1))
            assert got.std <= 1e-7
            assert got.etf_deviation <= 1e-13
            assert got.coherence == pytest.approx(1 / (k - 1))
            uniform = uniformity(vectors)
            assert uniform.mean == pytest.approx(-0.5 * math.log(2 * k / (k - 1)))
            assert uniform.cov <= 1e-7
            assert uniformity(vectors, "distance").mean == pytest.approx(math.sqrt(2 * k / (k - 1)))
        np.testing.assert_allclose(alignment(moments, 5 * rows), 1, atol=1e-13)

    def test_orthogonal_frame_of_unequal_lengths(self):
        lengths = np.array([1.0, 2, 3, 4])
        rows = lengths[:, None] * rotation(4)
        assert equinorm(rows) == pytest.approx(np.std(lengths) / 2.5)
        got = cosine_statistics(rows)
        assert got.coherence <= 1e-15
        assert got.etf_deviation == pytest.approx(1 / 3)

    def test_the_simplex_has_the_least_log_energy(self):
        # Liu et al. (2023): uniformity is minimal at the simplex for K <= D + 1.
        least = uniformity(simplex(4, 4)).mean
        rng = np.random.default_rng(0)
        assert all(uniformity(rng.normal(size=(4, 4))).mean > least for _ in range(20))

    @pytest.mark.parametrize("ratio", [10, 100])
    def test_seli_table_of_thrampoulidis_et_al(self, ratio):
        # W^T W and H^T H of (R, 1/2)-STEP imbalance, K = 10, by their closed forms.
        s, k = math.sqrt((ratio + 1) / 2), 10
        counts = [ratio] * 5 + [1] * 5
        values, vectors = np.linalg.eigh(tf.seli(counts).classifier)
        w = vectors * np.sqrt(np.clip(values, 0, None))
        got = group_angles(w, counts)
        major, minor = (1 - 2 / k) * math.sqrt(ratio) + s / k, (1 - 2 / k) + s / k
        assert got.groups.tolist() == [ratio, 1]
        assert got.norms[0] / got.norms[1] == pytest.approx(math.sqrt(major / minor))
        assert got.mean[0, 0] == pytest.approx((s / k - 2 / k * math.sqrt(ratio)) / major)
        assert got.mean[1, 1] == pytest.approx((s / k - 2 / k) / minor)
        assert got.mean[0, 1] == got.mean[1, 0]
        assert got.mean[0, 1] == pytest.approx(-s / k / math.sqrt(major * minor))
        if ratio == 10:
            assert got.mean[1, 1] == pytest.approx(0.0334, abs=5e-5)

    @pytest.mark.parametrize(("weight_decay", "merged"), [(2e-3, False), (2e-2, True)])
    def test_minority_merge_indicator(self, weight_decay, merged):
        # sqrt(n_B) / N = 3 / 177 against sqrt(lW lH): both sides of the threshold.
        problem = tf.Problem("50x3,9x3", weight_decay=weight_decay, feature_decay=2e-2)
        s = tf.solve(problem)
        got = group_angles(s.weights[0], problem.counts)
        assert s.group_collapsed.tolist() == [False, merged]
        assert (got.minimum[1, 1] > 1 - 1e-9) == merged
        assert (got.widest[1, 1] < 0.01) == merged
        assert got.maximum[0, 0] < 0
        assert got.narrowest[0, 0] > 90

    def test_close_directions_keep_their_digits(self):
        angle = 1e-7
        rows = np.array([[1.0, 0], [math.cos(angle), math.sin(angle)], [0, 1]])
        d = np.array(
            [2 * math.sin(angle / 2), math.sqrt(2), 2 * math.sin((math.pi / 2 - angle) / 2)]
        )
        assert uniformity(rows).mean == pytest.approx(np.log(1 / d).mean(), rel=1e-8)


class TestDegenerate:
    def test_zero_rows_are_left_out(self):
        rows = np.vstack([simplex(4), np.zeros(4)])
        with pytest.warns(RuntimeWarning, match="cosine_statistics: 1 of 5 vectors are zero"):
            got = cosine_statistics(rows)
        assert got.mean == pytest.approx(-1 / 3)
        assert got.etf_deviation == pytest.approx(1 / 3 - 1 / 4)  # of five, not four
        with pytest.warns(RuntimeWarning, match="uniformity: 1 of 5 vectors are zero"):
            assert uniformity(rows).mean == pytest.approx(uniformity(rows[:4]).mean)
        with pytest.warns(RuntimeWarning, match="group_angles: 1 of 5"):
            got = group_angles(rows, [2, 2, 2, 1, 1])
        assert got.sizes.tolist() == [3, 1]
        assert math.isnan(got.mean[1, 1])
        assert got.norms[1] == pytest.approx(math.sqrt(3 / 4) / 2)
        assert equinorm(rows) == pytest.approx(0.5)

    def test_all_zero(self):
        zeros = np.zeros((3, 2))
        with pytest.warns(RuntimeWarning, match="equinorm: all vectors are zero"):
            assert math.isnan(equinorm(zeros))
        with pytest.warns(RuntimeWarning, match="3 of 3"):
            assert np.isnan(cosine_statistics(zeros)).all()
        with pytest.warns(RuntimeWarning, match="3 of 3"):
            assert np.isnan(uniformity(zeros)).all()
        with pytest.warns(RuntimeWarning, match="3 of 3"):
            assert np.isnan(group_angles(zeros, [1, 1, 2]).mean).all()
        with pytest.warns(RuntimeWarning, match="alignment: 3 classes have a zero"):
            assert np.isnan(alignment(gather(np.eye(3), np.arange(3), 3), np.zeros((3, 3)))).all()

    def test_equal_means_have_no_angles(self):
        rng = np.random.default_rng(5)
        own = 3 + rng.normal(size=(50, 4))
        x, y = np.concatenate([rng.permutation(own) for _ in range(3)]), np.repeat(np.arange(3), 50)
        moments = gather(x, y, 3, cuts=[60])
        with pytest.warns(RuntimeWarning, match="all vectors are zero"):
            assert math.isnan(equinorm(moments))
        with pytest.warns(RuntimeWarning, match="3 of 3"):
            assert math.isnan(cosine_statistics(moments).std)

    def test_equal_directions_have_no_log_kernel(self):
        rows = np.array([[1.0, 2], [2, 4], [0, 1]])
        for kernel, s in (("log", None), ("riesz", 1.0)):
            with pytest.warns(RuntimeWarning, match="one direction"):
                got = uniformity(rows, kernel, s=s)
            assert got.mean == math.inf
            assert math.isnan(got.cov)
        assert math.isfinite(uniformity(rows, "distance").mean)
        assert math.isfinite(uniformity(rows, "riesz", s=-2).mean)
        # Equal means that differ by rounding only.
        rng = np.random.default_rng(5)
        own = 3 + rng.normal(size=(50, 4))
        x = np.concatenate([own, rng.permutation(own), 7 + own])
        with pytest.warns(RuntimeWarning, match="one direction"):
            assert uniformity(gather(x, np.repeat(np.arange(3), 50), 3)).mean == math.inf

    def test_riesz_kernel_of_wide_features(self):
        # Its values leave float64 at s = D - 2 in the thousands; their variation does not.
        k, d = 5, 3000
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(k, d))
        distances = pair_distances(rows)
        scaled = (distances / distances.mean()) ** -(d - 2)
        with pytest.warns(RuntimeWarning, match="s = 2998 leaves float64"):
            got = uniformity(rows, "riesz")
        assert got.mean == 0
        assert got.cov == pytest.approx(scaled.std() / scaled.mean(), rel=1e-6)
        with pytest.warns(RuntimeWarning, match="s = -2998 leaves float64"):
            assert uniformity(rows, "riesz", s=2 - d).mean == -math.inf

    def test_missing_classes(self):
        rows = simplex(4)
        moments = gather(rows[[0, 1, 3]], np.array([0, 1, 3]), 4)
        own = rows[[0, 1, 3]] - rows[[0, 1, 3]].mean(axis=0)
        with pytest.warns(RuntimeWarning, match="class 2 is without samples and left out"):
            assert cosine_statistics(moments).mean == pytest.approx(-0.5)
        with pytest.warns(RuntimeWarning, match="alignment: class 2"):
            got = alignment(moments, rows)
        assert np.isnan(got).tolist() == [False, False, True, False]
        want = [
            rows[c] @ own[i] / np.linalg.norm(rows[c]) / np.linalg.norm(own[i])
            for i, c in enumerate([0, 1, 3])
        ]
        np.testing.assert_allclose(got[[0, 1, 3]], want)
        with pytest.warns(RuntimeWarning, match="group_angles: class 2"):
            assert group_angles(moments, [1, 1, 1, 2]).sizes.tolist() == [1, 2]

    def test_refusals(self):
        w = np.eye(3)
        with pytest.raises(ValueError, match="kernel: got 'rbf', allowed are log, distance, riesz"):
            uniformity(w, "rbf")
        with pytest.raises(ValueError, match="s: got 2 with kernel 'log'"):
            uniformity(w, s=2)
        with pytest.raises(ValueError, match="s: got 0 = D - 2"):
            uniformity(np.eye(2), "riesz")
        with pytest.raises(ValueError, match="s: got nan"):
            uniformity(w, "riesz", s=math.nan)
        with pytest.raises(ValueError, match="groups: missing"):
            group_angles(w)
        with pytest.raises(ValueError, match=r"groups: got shape \(2,\)"):
            group_angles(w, [1, 2])
        with pytest.raises(ValueError, match="groups: has NaN"):
            group_angles(w, [1, 2, math.nan])
        with pytest.raises(ValueError, match="got 1 vector"):
            equinorm([[1.0]])
        with pytest.raises(ValueError, match="got 1 class"):
            equinorm(ClassMoments(1).update([[1.0]], [0]))
        with pytest.raises(ValueError, match="vectors: got type"):
            equinorm(np.ones((2, 2), dtype=complex))


class TestManyClasses:
    def test_nothing_of_k_by_k_is_held(self, monkeypatch):
        k, block = 600, 3000
        monkeypatch.setattr(tall, "BLOCK_ENTRIES", block)
        sizes = Sizes()
        rows = torch.randn(k, 7, generator=torch.Generator().manual_seed(0))
        moments = ClassMoments(k, scatter=False).update(rows, torch.arange(k))
        moments.tensors()  # adds the rows that wait, a block of its own size
        with sizes:
            cosine_statistics(rows)
            uniformity(moments)
            group_angles(rows, np.arange(k) % 3)
            equinorm(moments)
        assert sizes.largest <= max(block, 7 * k)

    def test_more_classes_than_a_dense_matrix_is_written_for(self):
        rows = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)).double()
        units = (rows / rows.norm(dim=1, keepdim=True)).numpy()
        # Sums over all pairs from the sums of vectors: sum_{i != j} u_i.u_j = |sum u|^2 - K.
        pairs = 5000 * 4999
        want = (np.square(units.sum(axis=0)).sum() - 5000) / pairs
        assert cosine_statistics(rows).mean == pytest.approx(want, rel=1e-9)
        gram = units.T @ units
        second = (np.square(gram).sum() - 5000) / pairs
        assert cosine_statistics(rows).std == pytest.approx(math.sqrt(second - want**2), rel=1e-9)
