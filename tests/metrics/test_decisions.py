"""NC4 by batches, NC5, bias alignment, certificate gap and NC1's variants."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tests.metrics.samples import gather, networks, quick, rotation
from tests.reference import two_pass
from tightframe.metrics import (
    ClassMoments,
    Decisions,
    bias_alignment,
    cdnv,
    certificate_gap,
    class_variability,
    nc1,
    nc1_details,
    nc4,
    nc5,
)

pytestmark = pytest.mark.filterwarnings("error")


class TestDecisions:
    @quick
    @given(networks(), st.data())
    def test_batches_labels_and_classes(self, network, data):
        x, y, k, w, b = network
        moments = gather(x, y, k)
        decisions = Decisions(moments, w, b)
        for rows in np.split(
            np.arange(len(y)), sorted(data.draw(st.lists(st.integers(0, len(y)), max_size=3)))
        ):
            decisions.update(x[rows], y[rows])
        assert decisions.nc4 == two_pass.nc4(x, x, y, k, w, b) == nc4(x, moments, w, b)
        assert decisions.num_samples == len(y)
        means = two_pass.class_means(x, y, k)
        chosen = (x @ w.T + b).argmax(axis=1)
        nearest = np.linalg.norm(x[:, None] - means, axis=2).argmin(axis=1)
        assert decisions.accuracy == np.mean(chosen == y)
        assert decisions.nearest_center_accuracy == np.mean(nearest == y)
        want = [np.mean((chosen != nearest)[y == c]) for c in range(k)]
        np.testing.assert_allclose(decisions.by_class, want)
        foreign = Decisions(moments).update(x, decisions=chosen)
        assert foreign.nc4 == decisions.nc4
        assert math.isnan(foreign.accuracy)
        assert np.isnan(foreign.by_class).all()

    def test_ties_are_wrong_too(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        decisions = Decisions(moments, np.zeros((3, 3))).update(np.eye(3), [0, 1, 2])
        assert decisions.undecided == 3
        assert decisions.accuracy == 0  # argmax alone would give 1/3
        assert decisions.nearest_center_accuracy == 1

    def test_refusals(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        decisions = Decisions(moments, np.eye(3))
        with pytest.raises(ValueError, match="got no samples"):
            _ = decisions.nc4
        with pytest.raises(ValueError, match=r"labels: got torch.int64 of shape \(2,\), need \(3,"):
            decisions.update(np.eye(3), [0, 1])
        with pytest.raises(ValueError, match="labels: got -1 to 1, allowed are 0 to 2"):
            decisions.update(np.eye(3), [0, 1, -1])
        with pytest.raises(ValueError, match="decisions: missing"):
            Decisions(moments).update(np.eye(3))
        assert decisions.num_samples == 0


class TestNc5:
    @quick
    @given(networks(), st.integers(0, 99))
    def test_is_the_mean_cosine(self, network, seed):
        x, y, k, _, _ = network
        ood = np.random.default_rng(seed).normal(size=(9, x.shape[1]))
        means = two_pass.class_means(x, y, k)
        moments = gather(x, y, k)
        for centered in (True, False):
            middle = means.mean(axis=0) if centered else 0
            rows, foreign = means - middle, ood.mean(axis=0) - middle
            want = np.mean(
                [abs(m @ foreign) / np.linalg.norm(m) / np.linalg.norm(foreign) for m in rows]
            )
            for other in (ood, ood.mean(axis=0), gather(ood, np.arange(9) % 4, 5)):
                assert nc5(moments, other, centered=centered) == pytest.approx(want, abs=1e-6)

    def test_exact_values(self):
        moments = gather(np.eye(3, 5), np.arange(3), 3)
        middle = np.full(5, 1 / 3) * [1, 1, 1, 0, 0]
        ood = np.eye(5)[3]
        assert nc5(moments, ood, centered=False) == 0
        assert nc5(moments, middle + ood) == pytest.approx(0, abs=1e-15)
        assert nc5(moments, np.eye(5)[0]) == pytest.approx((1 + 0.5 + 0.5) / 3)

    @pytest.mark.parametrize("offset", [0.0, 1e6])
    def test_far_from_zero_nothing_is_lost(self, offset):
        rng = np.random.default_rng(0)
        x, y = rng.integers(-8, 9, size=(40, 4)) / 8, np.arange(40) % 4
        ood = rng.integers(-8, 9, size=(8, 4)) / 8
        want = nc5(gather(x, y, 4), ood)
        assert nc5(gather(x + offset, y, 4), ood + offset) == pytest.approx(want, rel=1e-8)

    def test_degenerate(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        with pytest.warns(RuntimeWarning, match="OOD samples has no direction"):
            assert math.isnan(nc5(moments, np.zeros(3), centered=False))
        with pytest.warns(RuntimeWarning, match="OOD samples has no direction"):
            assert math.isnan(nc5(moments, np.full((4, 3), 1 / 3)))
        equal = gather(np.ones((6, 3)), np.arange(6) % 3, 3)
        with pytest.warns(RuntimeWarning, match="no class mean has a direction"):
            assert math.isnan(nc5(equal, np.eye(3)[0]))
        middle = gather(np.array([[1.0, 0], [-1, 0], [0, 0]]), np.arange(3), 3)
        with pytest.warns(RuntimeWarning, match="1 class means have no direction"):
            assert nc5(middle, [0.0, 2.0]) == 0
        with pytest.raises(ValueError, match=r"ood: .*got 2 columns, need 3"):
            nc5(moments, np.ones((4, 2)))
        with pytest.raises(ValueError, match="ood: got no samples"):
            nc5(moments, np.ones((0, 3)))
        with pytest.raises(ValueError, match="ood: got no samples"):
            nc5(moments, ClassMoments(2))
        with pytest.raises(ValueError, match="ood: "):
            nc5(moments, [[math.nan] * 3])


class TestBiasAndCertificate:
    @quick
    @given(networks())
    def test_bias_alignment(self, network):
        x, y, k, w, b = network
        moments = gather(x, y, k)
        want = two_pass.bias_alignment(x, y, k, w, b)
        assert bias_alignment(moments, w, b) == pytest.approx(want, rel=1e-9)
        want = np.linalg.norm(b + w @ x.mean(axis=0))
        assert bias_alignment(moments, w, b, "sample") == pytest.approx(want, rel=1e-9)
        want = np.linalg.norm(w @ two_pass.class_means(x, y, k).mean(axis=0))
        assert bias_alignment(moments, w) == pytest.approx(want, rel=1e-9)

    def test_certificate_gap(self):
        problem = tf.Problem("50x2,9x2", weight_decay=1e-3, feature_decay=1e-3, bias="free")
        s = tf.solve(problem)
        turn = rotation(4)
        means, w = s.class_means.T @ turn, s.weights[0] @ turn
        moments = gather(means, np.arange(4), 4)
        assert certificate_gap(problem, moments, w, s.bias, lower_bound=s.lower_bound) <= 1e-7
        assert certificate_gap(problem, moments, w, s.bias) <= 1e-6
        gap = certificate_gap(problem, moments, 2 * w, s.bias, lower_bound=s.lower_bound)
        logits = 2 * s.logits
        want = tf.certify(problem, logits, s.bias).primal - s.lower_bound
        assert gap == pytest.approx(want, rel=1e-6)
        assert gap > 1e-3
        with pytest.raises(ValueError, match="problem: got one of 4 classes, need 3"):
            certificate_gap(problem, gather(np.eye(3), np.arange(3), 3), np.eye(3))
        with pytest.raises(ValueError, match="problem: got str"):
            certificate_gap("50x4", moments, w)
        with pytest.raises(ValueError, match="class 3 is without samples"):
            certificate_gap(problem, gather(means[:3], np.arange(3), 4), w)
        unbiased = tf.Problem("50x2,9x2", weight_decay=1e-3, feature_decay=1e-3)
        with pytest.raises(ValueError, match="bias: got a non-zero bias"):
            certificate_gap(unbiased, moments, w, np.ones(4))


class TestVariability:
    @quick
    @given(networks(), st.sampled_from([0.5, 2.0, 3.0]))
    def test_power_of_cdnv(self, network, power):
        x, y, k, _, _ = network
        means, v = two_pass.class_means(x, y, k), two_pass.traces(x, y, k)
        terms = [
            (v[i] + v[j]) / (2 * np.sum((means[i] - means[j]) ** 2) ** power)
            for i in range(k)
            for j in range(i)
        ]
        assert cdnv(gather(x, y, k), power) == pytest.approx(np.mean(terms), rel=1e-6, abs=1e-12)

    @quick
    @given(networks())
    def test_class_variability(self, network):
        x, y, k, _, _ = network
        means, v = two_pass.class_means(x, y, k), two_pass.traces(x, y, k)
        for weighting in ("class", "sample"):
            middle = two_pass.global_mean(x, y, k, weighting)
            want = v / np.sum((means - middle) ** 2, axis=1)
            got = class_variability(gather(x, y, k), weighting)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-10)

    def test_class_variability_at_the_global_mean(self):
        x = np.array([[1.0, 0], [1, 2], [-1, 0], [-1, -2], [0, 1], [0, -1]])
        moments = gather(x, np.array([0, 0, 1, 1, 3, 3]), 4)
        with pytest.warns(RuntimeWarning) as caught:
            got = class_variability(moments)
        texts = [str(warning.message) for warning in caught]
        assert any("class 2 is without samples" in text for text in texts)
        assert any("1 class means equal the global mean" in text for text in texts)
        np.testing.assert_array_equal(got, [0.5, 0.5, np.nan, np.inf])

    def test_kept_rank_and_cutoff(self):
        # Sigma_B = diag(2/3, 2 delta^2), Sigma_W = sigma^2 I, turned.
        delta, sigma = 1e-4, 1e-3
        means = np.array([[1, delta], [-1, delta], [0, -2 * delta]])
        steps = sigma * math.sqrt(2) * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        x = (np.repeat(means, 4, axis=0) + np.tile(steps, (3, 1))) @ rotation(2)
        moments = gather(x, np.repeat(np.arange(3), 4), 3)
        whole = nc1_details(moments)
        assert whole.value == nc1(moments)
        assert whole.value == pytest.approx(sigma**2 * (3 / 2 + 1 / (2 * delta**2)) / 3, rel=1e-7)
        assert (whole.rank, whole.limit) == (2, 2)
        assert whole.cutoff < 1e-14
        # The singular values of A are sqrt(2/3) and sqrt(2) delta: their ratio is sqrt(3) delta.
        assert nc1_details(moments, rtol=1.7 * delta).rank == 2
        with pytest.warns(RuntimeWarning, match="span 1 of 2 directions"):
            cut = nc1_details(moments, rtol=1.8 * delta)
        assert cut.value == pytest.approx(sigma**2 * 3 / 2 / 3, rel=1e-9)
        assert cut.rank == 1
        assert cut.cutoff == pytest.approx(1.8 * delta * math.sqrt(2 / 3), rel=1e-9)
        with pytest.warns(RuntimeWarning, match="span 1 of 2"):
            assert nc1(moments, rtol=1) == cut.value
        with pytest.warns(RuntimeWarning, match="infinite"):
            equal = nc1_details(gather(np.ones((4, 2)), np.arange(4) % 2, 2))
        assert (equal.value, equal.rank) == (math.inf, 0)

    def test_refusals(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        for rtol in (-1, 2, math.nan):
            with pytest.raises(ValueError, match="rtol: got"):
                nc1(moments, rtol=rtol)
        for power in (0, -1, math.nan, math.inf):
            with pytest.raises(ValueError, match="power: got"):
                cdnv(moments, power)
        with pytest.raises(ValueError, match="moments: got ndarray"):
            cdnv(np.eye(3))

    def test_cdnv_names_the_classes_that_the_caller_knows(self):
        x = torch.tensor([[0.0, 1], [1, 0], [1, 0]])
        moments = gather(x.numpy(), np.array([0, 2, 4]), 5)
        with pytest.warns(RuntimeWarning) as caught:
            assert cdnv(moments) == math.inf
        assert "the means of classes 2 and 4 are equal" in str(caught[-1].message)
