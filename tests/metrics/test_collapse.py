"""Collapse metrics against the two-pass reference, exact values, invariances and degenerate states.

Classes named ``TestPeerDefect...`` hold one test for each fault of existing code that
metrics-design.md lists; the moments' share of them is in test_moments.py.
"""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.metrics.samples import Sizes, gather, networks, quick, rotation
from tests.reference import two_pass
from tightframe.geometry.dense import PARTS, Geometry, orthogonal_frame, seli, simplex_etf
from tightframe.metrics import (
    ClassMoments,
    CollapseReport,
    cdnv,
    frames,
    margins,
    measured_geometry,
    nc1,
    nc1_quotient,
    nc4,
    self_duality,
    tall,
    variability,
)

pytestmark = pytest.mark.filterwarnings("error")


def frame_features(gram_root, d, n=3, seed=0):
    """Return n equal samples a class, their means the columns of a K x K root, turned into R^d."""
    k = len(gram_root)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, k)))[0]
    means = gram_root.T @ basis.T
    y = np.tile(np.arange(k), n)
    return means[y], y, means


class TestAgainstTwoPass:
    @quick
    @given(networks(), st.data())
    def test_every_metric(self, network, data):
        x, y, k, w, b = network
        cuts = data.draw(st.lists(st.integers(0, len(y)), max_size=3))
        moments = gather(x, y, k, cuts)
        for weighting in ("class", "sample"):
            want = two_pass.nc1(x, y, k, weighting)
            assert nc1(moments, weighting) == pytest.approx(want, rel=1e-7, abs=1e-12)
            want = two_pass.nc1_quotient(x, y, k, weighting)
            assert nc1_quotient(moments, weighting) == pytest.approx(want, rel=1e-10, abs=1e-13)
        assert cdnv(moments) == pytest.approx(two_pass.cdnv(x, y, k), rel=1e-8, abs=1e-12)
        assert nc4(x, moments, w, b) == two_pass.nc4(x, x, y, k, w, b)

        report = CollapseReport.measure(moments, w, b, features=x)
        assert report.num_samples == len(y)
        assert report.counts.tolist() == np.bincount(y).tolist()
        assert report.nc1 == nc1(moments)
        assert report.nc1_quotient == nc1_quotient(moments)
        assert report.cdnv == cdnv(moments)
        assert report.nc4 == nc4(x, moments, w, b)
        want = two_pass.self_duality(x, y, k, w)
        assert report.self_duality == pytest.approx(want, rel=1e-10)
        want = two_pass.bias_alignment(x, y, k, w, b)
        assert report.bias_alignment == pytest.approx(want, rel=1e-10)
        grams = two_pass.grams(x, y, k, w)
        for part in PARTS:
            got = getattr(report.geometry, part)
            np.testing.assert_allclose(got, grams[part], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(report.logits, grams["logits"] + b[:, None], atol=1e-12)
        np.testing.assert_allclose(report.margins, two_pass.margins(x, y, k, w), atol=1e-11)
        target = simplex_etf(k)
        for part, got in report.distances(target).items():
            want = two_pass.frobenius_distance(grams[part], getattr(target, part))
            assert got == pytest.approx(want, abs=1e-7)

    @quick
    @given(networks(), st.integers(1, 30))
    def test_chunks_do_not_show(self, network, block):
        x, y, k, w, b = network
        moments = gather(x, y, k)
        want = cdnv(moments), nc4(x, moments, w, b)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tall, "BLOCK_ENTRIES", block)
            assert (cdnv(moments), nc4(x, moments, w, b)) == pytest.approx(want, rel=1e-13)

    def test_nc4_makes_no_array_of_samples_by_classes_by_width(self, monkeypatch):
        monkeypatch.setattr(tall, "BLOCK_ENTRIES", 2000)
        sizes = Sizes()
        x, y = torch.randn(500, 20), torch.arange(500) % 50
        moments = ClassMoments(50).update(x, y)
        moments.tensors()  # adds the rows that wait, a block of its own size
        with sizes:
            nc4(x, moments, torch.randn(50, 20), torch.randn(50))
        assert sizes.largest == 500 * 20  # the features themselves

    @pytest.mark.parametrize(
        "features",
        [
            lambda mu, noise: 1000 + 1e-3 * (mu + noise),
            lambda mu, noise: mu + 1e-4 * noise,
            lambda mu, noise: 100 + mu + 1e-3 * noise,
        ],
        ids=["1000+1e-3(mu+noise)", "mu+1e-4 noise", "100+mu+1e-3 noise"],
    )
    def test_accuracy_table(self, features):
        rng = np.random.default_rng(11)
        y = rng.integers(0, 5, 2000)
        x = features(rng.normal(size=(5, 16))[y], rng.normal(size=(2000, 16))).astype(np.float32)
        exact = x.astype(float) - x[0].astype(float)
        w, b = rng.normal(size=(5, 16)), rng.normal(size=5)
        moments = gather(x, y, 5, cuts=range(0, 2000, 250))
        assert nc1(moments) == pytest.approx(two_pass.nc1(exact, y, 5), rel=1e-10)
        assert nc1_quotient(moments) == pytest.approx(two_pass.nc1_quotient(exact, y, 5), rel=1e-10)
        assert cdnv(moments) == pytest.approx(two_pass.cdnv(exact, y, 5), rel=1e-10)
        report = CollapseReport.measure(moments, w, b, features=x)
        assert report.self_duality == pytest.approx(two_pass.self_duality(exact, y, 5, w), rel=1e-9)
        want = two_pass.grams(exact, y, 5, w)["centered_means"]
        atol = 1e-10 * np.abs(want).max()
        np.testing.assert_allclose(report.geometry.centered_means, want, rtol=1e-9, atol=atol)
        # The means' distances to the samples are the same before and after the exact move.
        moved = b + w @ x[0].astype(float)
        assert report.nc4 == two_pass.nc4(exact, exact, y, 5, w, moved)


@pytest.mark.parametrize(("k", "d"), [(80, 100), (100, 80), (80, 80), (81, 80)])
@pytest.mark.parametrize("weighting", ["class", "sample"])
@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-5, 1e-9])
def test_nc1_of_many_classes(k, d, weighting, smallest):
    # One direction of the means is short; from 1e-5 on the Gram matrix may not be inverted.
    rng = np.random.default_rng(k + d)
    y = np.concatenate([np.arange(k), rng.integers(k, size=200)])
    means = rng.normal(size=(k, d))
    means[:, 0] *= smallest
    x = means[y] + 0.1 * rng.normal(size=(len(y), d)) * np.where(np.arange(d), 1, smallest)
    moments = gather(x, y, k)
    shares = np.full(k, 1 / k) if weighting == "class" else np.bincount(y) / len(y)
    centered = two_pass.class_means(x, y, k) - two_pass.global_mean(x, y, k, weighting)
    _, values, along = np.linalg.svd(np.sqrt(shares)[:, None] * centered)  # nothing is squared
    along = along[: min(k - 1, d)] / values[: min(k - 1, d), None]
    truth = np.trace(along @ two_pass.within(x, y, k) @ along.T) / k
    assert nc1(moments, weighting) == pytest.approx(truth, rel=1e-9)
    assert variability.nc1_details(moments, weighting).value == pytest.approx(truth, rel=1e-9)


class TestExactValues:
    def test_two_classes_on_a_line(self):
        s = 0.25
        x = np.array([[-1 - s], [-1 + s], [1 - s], [1 + s]])
        moments = gather(x, np.array([0, 0, 1, 1]), 2)
        assert nc1(moments) == pytest.approx(s**2 / 2, rel=1e-14)
        assert nc1_quotient(moments) == pytest.approx(s**2, rel=1e-14)
        assert cdnv(moments) == pytest.approx(s**2 / 4, rel=1e-14)

    def test_class_and_sample_weighting_differ_as_they_should(self):
        # Means 0 and 1, counts 3 and 1: Sigma_B is 1/4, or 3/16 weighted; Sigma_W = 3/4 * 2/3.
        x, y = np.array([[-1.0], [0], [1], [1]]), np.array([0, 0, 0, 1])
        moments = gather(x, y, 2)
        assert nc1_quotient(moments) == pytest.approx(0.5 * 4)
        assert nc1_quotient(moments, "sample") == pytest.approx(0.5 * 16 / 3)
        assert nc1(moments, "sample") == pytest.approx(0.5 * 16 / 3 / 2)

    @pytest.mark.parametrize("k", [3, 4, 10])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_simplex_etf_is_perfect_collapse(self, k, dtype):
        frame = np.eye(k) - 1 / k
        x, y, means = frame_features(frame, k + 2)
        x = torch.as_tensor(x, dtype=dtype)
        tol = 1e-12 if dtype == torch.float64 else 1e-6
        moments = gather(x, y, k, cuts=[1, 5])
        report = CollapseReport.measure(moments, 3.0 * means, np.zeros(k), features=x)
        assert report.nc1 == report.nc1_quotient == report.cdnv == report.nc4 == 0
        assert max(report.distances(simplex_etf(k)).values()) <= tol
        assert report.self_duality <= tol
        assert report.bias_alignment <= tol
        np.testing.assert_allclose(report.margins, 3 * (1 - np.eye(k)), atol=3 * tol)

    def test_orthogonal_frame_and_seli(self):
        x, y, means = frame_features(2 * np.eye(4), 6)
        report = CollapseReport.measure(gather(x, y, 4), means)
        assert max(report.distances(orthogonal_frame(4)).values()) <= 1e-12
        assert report.distances(simplex_etf(4))["means"] == pytest.approx(
            np.linalg.norm(np.eye(4) / 2 - (np.eye(4) - 0.25) / math.sqrt(3)), rel=1e-12
        )
        # SELI is made of factors: W = V L^(1/2), H = L^(1/2) U^T D^(-1/2).
        counts = np.array([9, 9, 2, 1])
        root = np.sqrt(counts)
        v, length, ut = np.linalg.svd((np.eye(4) - 0.25) * root)
        length[-1] = 0
        x = ((np.sqrt(length)[:, None] * ut) / root).T
        y = np.repeat(np.arange(4), counts)
        report = CollapseReport.measure(gather(x[y], y, 4), v * np.sqrt(length))
        assert max(report.distances(seli(counts)).values()) <= 1e-12

    @pytest.mark.parametrize("gap", [1.0, 1e-4, 1e-9])
    def test_cdnv_of_two_close_classes_among_distant_ones(self, gap):
        # The pair has v = 4, and distance 5 to both others; it is not near the global mean.
        x = np.array([[0, 2, 4.0], [0, -2, 4], [gap, 2, 4], [gap, -2, 4], [0, 3, 0], [0, -3, 0]])
        moments = gather(x, np.array([0, 0, 1, 1, 2, 3]), 4)
        far = 2 * 4 / (2 * 25) + 2 * 4 / (2 * (25 + gap**2))
        want = (8 / (2 * gap**2) + far) / 6
        assert cdnv(moments) == pytest.approx(want, rel=1e-12 if gap > 1e-9 else 1e-6)

    @pytest.mark.parametrize("scale", [1e-120, 1e120])
    def test_cdnv_of_tiny_and_huge_features(self, scale):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(40, 5)), np.arange(40) % 4
        moments, other = gather(x, y, 4), gather(scale * x, y, 4)
        assert cdnv(other) == pytest.approx(cdnv(moments), rel=1e-10)
        assert cdnv(other, 1.5) == pytest.approx(cdnv(moments, 1.5) / scale, rel=1e-10)

    @pytest.mark.parametrize("size", [(30, 5), (5, 30)])
    def test_cdnv_is_the_formula_with_and_without_the_gram(self, size):
        k, d = size
        rng = np.random.default_rng(1)
        x, y = 3 + rng.normal(size=(4 * k, d)), np.arange(4 * k) % k
        means = np.stack([x[y == c].mean(axis=0) for c in range(k)])
        traces = np.array([((x[y == c] - means[c]) ** 2).sum(axis=1).mean() for c in range(k)])
        squares = ((means[:, None] - means) ** 2).sum(axis=2)
        pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
        want = np.mean([(traces[i] + traces[j]) / (2 * squares[i, j]) for i, j in pairs])
        assert cdnv(gather(x, y, k)) == pytest.approx(want, rel=1e-10)

    @pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-9])
    def test_weak_directions_are_real(self, delta):
        # Sigma_B = diag(2/3, 2 delta^2) and Sigma_W = sigma^2 I, by hand.
        sigma = 1e-3
        means = np.array([[1, delta], [-1, delta], [0, -2 * delta]])
        steps = sigma * math.sqrt(2) * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        y = np.repeat(np.arange(3), 4)
        # Turned, for the Gram of an axis-parallel A is diagonal and too easy a case.
        x = (means[y] + np.tile(steps, (3, 1))) @ rotation(2)
        want = sigma**2 * (3 / 2 + 1 / (2 * delta**2)) / 3
        assert nc1(gather(x, y, 3)) == pytest.approx(want, rel=1e-9 if delta > 1e-9 else 1e-5)

    def test_a_large_frame_takes_the_same_value_on_both_routes(self, monkeypatch):
        rng = np.random.default_rng(2)
        y = np.arange(200) % 20
        for d in (10, 30):
            x = rng.normal(size=(20, d))[y] + rng.normal(size=(200, d))
            moments = gather(x, y, 20)
            fast = nc1(moments)
            with monkeypatch.context() as patch:
                patch.setattr(variability, "_SAFE_CONDITION", math.inf)
                assert nc1(moments) == pytest.approx(fast, rel=1e-10)
            assert fast == pytest.approx(two_pass.nc1(x, y, 20), rel=1e-9)


class TestInvariances:
    @quick
    @given(networks(), st.sampled_from([1e-3, 0.5, 7.0, 1e4]), st.integers(0, 99))
    def test_rotation_and_scale(self, network, scale, seed):
        x, y, k, w, b = network
        turn = rotation(x.shape[1], seed)
        before = CollapseReport.measure(gather(x, y, k), w, b, features=x)
        x2, w2 = scale * x @ turn, w @ turn / scale
        after = CollapseReport.measure(gather(x2, y, k), w2, b, features=x2)
        for name in ("nc1", "nc1_quotient", "cdnv", "self_duality", "bias_alignment"):
            want = getattr(before, name)
            assert getattr(after, name) == pytest.approx(want, rel=1e-6, abs=1e-10)
        assert after.nc4 == before.nc4
        np.testing.assert_allclose(after.margins, before.margins, atol=1e-10)
        got, want = after.distances(simplex_etf(k)), before.distances(simplex_etf(k))
        assert got == pytest.approx(want, abs=1e-8)

    @quick
    @given(networks(), st.integers(-8, 8))
    def test_translation_with_the_bias_that_undoes_it(self, network, shift):
        x, y, k, w, b = network
        t = shift * np.ones(x.shape[1])
        before = CollapseReport.measure(gather(x, y, k), w, b, features=x)
        after = CollapseReport.measure(gather(x + t, y, k), w, b - w @ t, features=x + t)
        for name in ("nc1", "nc1_quotient", "cdnv", "self_duality", "bias_alignment"):
            want = getattr(before, name)
            assert getattr(after, name) == pytest.approx(want, rel=1e-6, abs=1e-10)
        assert after.nc4 == before.nc4
        np.testing.assert_allclose(after.logits, before.logits, atol=1e-10)
        np.testing.assert_allclose(
            after.geometry.centered_means, before.geometry.centered_means, atol=1e-10
        )

    @quick
    @given(networks(), st.permutations(range(6)))
    def test_relabelling(self, network, order):
        x, y, k, w, b = network
        names = np.array([c for c in order if c < k])  # old class c is now names[c]
        w2, b2 = np.empty_like(w), np.empty_like(b)
        w2[names], b2[names] = w, b
        before = CollapseReport.measure(gather(x, y, k), w, b, features=x)
        after = CollapseReport.measure(gather(x, names[y], k), w2, b2, features=x)
        for name in ("nc1", "nc1_quotient", "cdnv", "self_duality", "bias_alignment", "nc4"):
            want = getattr(before, name)
            assert getattr(after, name) == pytest.approx(want, rel=1e-7, abs=1e-11)
        index = np.ix_(names, names)
        np.testing.assert_allclose(after.logits[index], before.logits, atol=1e-11)
        np.testing.assert_allclose(after.margins[index], before.margins, atol=1e-11)
        got, want = after.distances(simplex_etf(k)), before.distances(simplex_etf(k))
        assert got == pytest.approx(want, abs=1e-9)

    @quick
    @given(networks(max_dim=2))
    def test_nc1_of_full_rank_means_ignores_any_linear_map(self, network):
        x, y, k, _, _ = network
        d = x.shape[1]
        assume(d <= k - 1)
        bend = rotation(d) @ np.diag([1.0, 30.0][:d])
        want = nc1(gather(x, y, k))
        assert nc1(gather(x @ bend, y, k)) == pytest.approx(want, rel=1e-6, abs=1e-10)


class TestPeerDefects:
    def test_missing_class_is_named_not_a_zero_mean(self):
        x, y, means = frame_features(np.eye(4) - 0.25, 5)
        moments = gather(x[y != 2], y[y != 2], 4)
        for measure in (
            lambda: measured_geometry(moments, means),
            lambda: self_duality(moments, means),
            lambda: margins(moments, means),
            lambda: CollapseReport.measure(moments, means),
        ):
            with pytest.raises(ValueError, match="moments: class 2 is without samples"):
                measure()

    def test_missing_class_is_left_out_with_a_warning(self):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(30, 3)), np.arange(30) % 3
        moments, full = gather(x, y + (y > 0), 4), gather(x, y, 3)  # no class 1
        for metric in (nc1, nc1_quotient, cdnv):
            with pytest.warns(RuntimeWarning, match="class 1 is without samples and left out"):
                got = metric(moments)
            assert got == metric(full) == metric(moments.present())
        w, b = rng.normal(size=(4, 3)), rng.normal(size=4)
        with pytest.warns(RuntimeWarning, match="nc4: class 1 is without"):
            got = nc4(x, moments, w, b)
        # A decision for the missing class is a disagreement; the others are compared by name.
        chosen = np.argmax(x @ w.T + b, axis=1)
        means = two_pass.class_means(x, y, 3)
        nearest = np.array([0, 2, 3])[
            [np.argmin([np.linalg.norm(h - m) for m in means]) for h in x]
        ]
        assert (chosen == 1).any()
        assert got == np.mean(chosen != nearest)

    def test_nan_features_are_no_nc4(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        with pytest.raises(ValueError, match="features: row 0 has an entry that is NaN"):
            nc4(np.full((5, 3), np.nan), moments, np.eye(3))

    def test_no_samples_is_no_nc4(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        with pytest.raises(ValueError, match="features: got no samples"):
            nc4(np.zeros((0, 3)), moments, np.eye(3))

    def test_nc4_listens_to_the_bias(self):
        moments = gather(np.eye(2), np.arange(2), 2)
        x = np.array([[1.0, 0.1], [0.9, 0.0]])
        assert nc4(x, moments, np.eye(2)) == 0
        assert nc4(x, moments, np.eye(2), [0.0, 5.0]) == 1

    @pytest.mark.parametrize("spread", [0.0, 1.0, 1e3])
    def test_equal_means_are_not_collapse(self, spread):
        # The same 50 samples in every class, in other orders: the means differ by rounding only.
        rng = np.random.default_rng(5)
        own = 3 + spread * rng.normal(size=(50, 4))
        x, y = np.concatenate([rng.permutation(own) for _ in range(3)]), np.repeat(np.arange(3), 50)
        moments = gather(x, y, 3, cuts=[60])
        for metric in (nc1, nc1_quotient, cdnv):
            with pytest.warns(RuntimeWarning, match="equal, .* is infinite"):
                assert metric(moments) == math.inf
        with pytest.warns(RuntimeWarning, match="zero matrix"):
            assert math.isnan(self_duality(moments, np.eye(3, 4)))
        with pytest.warns(RuntimeWarning, match="3 of 3 samples are tied"):
            assert nc4(np.eye(3, 4), moments, np.eye(3, 4)) == 1

    @quick
    @given(
        st.integers(2, 5),
        st.integers(1, 300),
        st.integers(1, 6),
        st.integers(-6, 6),
        st.integers(0),
    )
    def test_rounding_never_passes_for_a_difference_of_means(self, k, n, d, power, seed):
        rng = np.random.default_rng(seed % 2**32)
        own = rng.normal(size=d) + 10.0**power * rng.normal(size=(n, d))
        x, y = np.concatenate([rng.permutation(own) for _ in range(k)]), np.repeat(np.arange(k), n)
        parts = [gather(x[i::3], y[i::3], k) for i in range(3)]
        moments = parts[0].merge(parts[1]).merge(parts[2])
        for metric in (nc1, nc1_quotient, cdnv):
            with pytest.warns(RuntimeWarning, match="is infinite"):
                assert metric(moments) == math.inf

    def test_one_merged_pair_is_reported(self):
        # Two of four classes share a mean: NC1 alone would read as perfect collapse.
        x = np.repeat(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]), 2, axis=0)
        moments = gather(x, np.repeat(np.arange(4), 2), 4)
        with pytest.warns(RuntimeWarning, match="span 2 of 3 directions"):
            assert nc1(moments) == 0
        with pytest.warns(RuntimeWarning, match="means of classes 2 and 3 are equal"):
            assert cdnv(moments) == math.inf

    @pytest.mark.parametrize("metric", [nc1, nc1_quotient, cdnv])
    def test_fewer_than_two_classes(self, metric):
        with pytest.raises(ValueError, match="got 1 class, need at least 2"):
            metric(ClassMoments(1).update([[1.0]], [0]))
        with pytest.raises(ValueError, match="0 of 5 classes have samples, need 2"):
            metric(ClassMoments(5))
        with pytest.raises(ValueError, match="1 of 5 classes have samples, need 2"):
            metric(ClassMoments(5).update([[1.0]], [0]))

    def test_fewer_than_two_classes_for_the_rest(self):
        one = ClassMoments(1).update([[1.0]], [0])
        lone = ClassMoments(5).update([[1.0]], [0])
        with pytest.raises(ValueError, match="need at least 2"):
            measured_geometry(one, [[1.0]])
        with pytest.raises(ValueError, match="need at least 2"):
            nc4([[1.0]], one, [[1.0]])
        with pytest.raises(ValueError, match="need 2"):
            nc4([[1.0]], lone, np.ones((5, 1)))
        with pytest.raises(ValueError, match="classes 0, 1, 2, 3, 4 are without samples"):
            CollapseReport.measure(ClassMoments(5), np.ones((5, 1)))

    @pytest.mark.parametrize(
        "convert",
        [
            lambda w: torch.nn.Parameter(torch.tensor(w)),
            lambda w: torch.tensor(w, requires_grad=True),
            lambda w: torch.tensor(w, dtype=torch.bfloat16),
            lambda w: torch.tensor(w, dtype=torch.float16, requires_grad=True),
            lambda w: w.astype(np.float32),
            lambda w: w.tolist(),
        ],
        ids=["parameter", "grad", "bfloat16", "float16-grad", "numpy", "list"],
    )
    def test_any_kind_of_classifier(self, convert):
        w = np.array([[1.0, 0.5, 0], [0, 2, 0], [0, -0.5, 1]])  # exact in every type
        b = np.array([0.5, 0.0, -1.0])
        x, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 3
        moments = gather(x, y, 3)
        got = CollapseReport.measure(moments, convert(w), convert(b), features=x)
        want = CollapseReport.measure(moments, w, b, features=x)
        assert json.dumps(got.to_dict()) == json.dumps(want.to_dict())

    def test_measuring_under_inference_mode_and_autocast(self):
        x, y = torch.randn(12, 3), torch.arange(12) % 3
        layer = torch.nn.Linear(3, 3)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            moments = gather(x, y, 3)
            inside = CollapseReport.measure(moments, layer.weight, layer.bias, features=x)
        outside = CollapseReport.measure(moments, layer.weight, layer.bias, features=x)
        assert inside.to_dict() == outside.to_dict()

    def test_two_classes_are_a_simplex_whatever_they_are(self):
        # Not a fault of the metric, but of reading it: the docstring says so.
        x, y = np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) % 2
        report = CollapseReport.measure(gather(x, y, 2), np.eye(2, 5))
        assert report.distances(simplex_etf(2))["centered_means"] <= 1e-12
        assert "K = 2" in frames.__doc__

    def test_narrow_features_keep_a_distance_from_the_simplex(self):
        # Best rank-2 fit of the K = 5 simplex: cosine sqrt(2 / 4) between the matrices.
        circle = 2 * np.pi * np.arange(5) / 5
        x = np.stack([np.cos(circle), np.sin(circle)], axis=1)
        report = CollapseReport.measure(gather(x, np.arange(5), 5), x)
        floor = math.sqrt(2 - 2 * math.sqrt(2 / 4))
        assert report.distances(simplex_etf(5))["centered_means"] == pytest.approx(floor, rel=1e-12)


class TestNc4:
    def test_tied_logits_are_no_decision(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        with pytest.warns(RuntimeWarning, match="nc4: 3 of 3 samples are tied"):
            assert nc4(np.eye(3), moments, np.zeros((3, 3)), np.ones(3)) == 1

    def test_only_the_tied_samples_are_lost(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        x = np.array([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0.1, 1]])
        with pytest.warns(RuntimeWarning, match="nc4: 1 of 4 samples are tied"):
            assert nc4(x, moments, np.eye(3)) == 0.25

    def test_centres_that_differ_a_little_far_from_zero(self):
        rng = np.random.default_rng(0)
        y = np.arange(200) % 4
        x = 1e4 + 1e-5 * (rng.normal(size=(4, 3))[y] + rng.normal(size=(200, 3)))
        w = 1e5 * rng.normal(size=(4, 3))
        b = -w @ np.full(3, 1e4)
        exact = x - 1e4
        want = two_pass.nc4(exact, exact, y, 4, w, np.zeros(4))
        assert nc4(x, gather(x, y, 4), w, b) == want

    def test_other_samples_than_the_moments(self):
        rng = np.random.default_rng(1)
        x, y, queries = rng.normal(size=(40, 3)), np.arange(40) % 4, rng.normal(size=(25, 3))
        w, b = rng.normal(size=(4, 3)), rng.normal(size=4)
        got = nc4(torch.tensor(queries, requires_grad=True), gather(x, y, 4), w, b)
        assert got == two_pass.nc4(queries, x, y, 4, w, b)


class TestReport:
    @pytest.fixture
    def moments(self):
        return gather(np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3, 3)

    def test_without_features_scatter_or_bias(self, moments):
        w = np.random.default_rng(1).normal(size=(3, 4))
        report = CollapseReport.measure(moments, w)
        assert report.nc4 is None
        np.testing.assert_array_equal(report.logits, report.geometry.logits)
        want = np.linalg.norm(w @ moments.global_mean().numpy())
        assert report.bias_alignment == pytest.approx(want, rel=1e-12)
        x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
        light = CollapseReport.measure(gather(x, y, 3, scatter=False), w)
        assert light.nc1 is None
        assert light.nc1_quotient == pytest.approx(report.nc1_quotient, rel=1e-13)
        with pytest.raises(ValueError, match="scatter"):
            nc1(gather(x, y, 3, scatter=False))

    def test_zero_classifier_has_no_direction(self, moments):
        with pytest.warns(RuntimeWarning, match="zero matrix"):
            report = CollapseReport.measure(moments, np.zeros((3, 4)))
        assert math.isnan(report.self_duality)
        with pytest.warns(RuntimeWarning, match="zero matrix"):
            distances = report.distances(simplex_etf(3))
        assert math.isnan(distances["classifier"])
        assert math.isnan(distances["logits"])
        assert distances["means"] > 0
        with pytest.warns(RuntimeWarning):
            out = report.to_dict()
        assert json.loads(json.dumps(out, allow_nan=False))["self_duality"] is None

    def test_equal_means_all_through(self):
        moments = gather(np.ones((6, 4)), np.arange(6) % 3, 3)
        with pytest.warns(RuntimeWarning):
            report = CollapseReport.measure(moments, np.eye(3, 4), features=np.ones((6, 4)))
        assert report.nc1 == report.nc1_quotient == report.cdnv == math.inf
        assert report.nc4 == 1
        assert math.isnan(report.self_duality)
        with pytest.warns(RuntimeWarning):
            assert math.isnan(report.distances(simplex_etf(3))["centered_means"])
        with pytest.warns(RuntimeWarning):
            out = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        assert float(out["nc1"]) == math.inf

    def test_to_dict_is_strict_json_with_every_field(self, moments):
        report = CollapseReport.measure(moments, np.eye(3, 4), np.ones(3), features=np.eye(3, 4))
        out = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        assert list(out) == [
            *("num_samples", "counts", "nc1", "nc1_quotient", "cdnv", "nc4", "self_duality"),
            *("bias_alignment", "nc1_rank", "accuracy", "num_lost"),
            *("nearest_center_accuracy", "nc5", "certificate_gap", "center", "missing"),
            *("logits", "margins", "geometry", "classes", "metrics", "notes"),
        ]
        assert out["nc1"] == report.nc1  # full precision
        assert out["counts"] == [10, 10, 10]
        assert np.array_equal(out["logits"], report.logits)
        assert set(out["geometry"]) == {"name", *PARTS}

    def test_target_of_another_size(self, moments):
        report = CollapseReport.measure(moments, np.eye(3, 4))
        with pytest.raises(ValueError, match="target: got a geometry of 4 classes, need 3"):
            report.distances(simplex_etf(4))

    def test_geometry_is_an_ordinary_one(self, moments):
        geometry = measured_geometry(moments, np.eye(3, 4))
        assert geometry.name == "measured"
        plain = Geometry.from_vectors(np.eye(3, 4), moments.means.numpy().T)
        np.testing.assert_allclose(geometry.centered_means, plain.centered_means, atol=1e-14)
        np.testing.assert_array_equal(geometry.means, plain.means)

    @pytest.mark.parametrize(
        ("weight", "bias", "message"),
        [
            (np.ones((4, 3)), None, r"weight: got shape \(4, 3\), need \(3, 4\)"),
            (np.ones((3, 5)), None, r"weight: got shape \(3, 5\), need \(3, 4\)"),
            (np.ones(12), None, r"weight: got shape \(12,\)"),
            (np.full((3, 4), np.nan), None, "weight: has NaN or infinite entries"),
            (np.ones((3, 4), dtype=complex), None, "weight: got type torch.complex128"),
            ("text", None, "weight: got str"),
            (np.ones((3, 4)), np.ones(4), r"bias: got shape \(4,\), need \(3,\)"),
            (np.ones((3, 4)), np.ones((3, 1)), r"bias: got shape \(3, 1\), need \(3,\)"),
            (np.ones((3, 4)), [0, 0, np.inf], "bias: has NaN or infinite entries"),
        ],
    )
    def test_refused_classifiers(self, moments, weight, bias, message):
        with pytest.raises(ValueError, match=message):
            CollapseReport.measure(moments, weight, bias)
        with pytest.raises(ValueError, match=message):
            nc4(np.eye(4), moments, weight, bias)

    def test_features_of_another_width(self, moments):
        with pytest.raises(ValueError, match="features: got 3 columns, need 4"):
            CollapseReport.measure(moments, np.ones((3, 4)), features=np.eye(3))

    def test_weighting(self, moments):
        for metric in (nc1, nc1_quotient):
            with pytest.raises(ValueError, match="weighting: got 'both'"):
                metric(moments, "both")

    def test_too_many_classes_for_a_dense_matrix(self):
        moments = ClassMoments(5000).update(torch.randn(5000, 2), torch.arange(5000))
        with pytest.raises(ValueError, match="moments: 5000 classes would need"):
            measured_geometry(moments, torch.zeros(5000, 2))
