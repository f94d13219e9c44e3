"""What peers of this library measure: grids of pairs, norms of distances, effective ranks, NC1 to
NC3 from the mean of all samples. Each against plain NumPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.metrics.samples import gather, networks, quick, streams
from tests.reference import two_pass
from tightframe.geometry.dense import simplex_etf
from tightframe.metrics import (
    ClassMoments,
    CollapseMetric,
    CollapseReport,
    Watch,
    alignment,
    bias_alignment,
    cdnv,
    cdnv_grid,
    collapse_report,
    distance_norms,
    effective_ranks,
    kernel_grid,
    nc1,
    nc1_details,
    nc1_quotient,
    nc2,
    nc3,
    self_duality,
    uniformity,
)

pytestmark = pytest.mark.filterwarnings("error")


def scaled(matrix):
    return matrix / np.linalg.norm(matrix)


@pytest.fixture
def network():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), [40, 9, 5, 2])
    x = rng.normal(size=(4, 7))[y] + 0.3 * rng.normal(size=(len(y), 7))
    return x, y, rng.normal(size=(4, 7)), rng.normal(size=4)


class TestMeanOfAllSamples:
    """The papers' code: classes weigh alike, but deviate from the mean of all samples."""

    def between(self, x, y):
        means = two_pass.class_means(x, y, 4) - x.mean(axis=0)
        return means.T @ means / 4

    def test_nc1(self, network):
        x, y, _, _ = network
        moments = gather(x, y, 4)
        own = x - two_pass.class_means(x, y, 4)[y]
        within = own.T @ own / len(y)
        want = np.trace(within @ np.linalg.pinv(self.between(x, y), 1e-12)) / 4
        assert nc1(moments, center="sample") == pytest.approx(want, rel=1e-9)
        details = nc1_details(moments, center="sample")
        assert (details.value, details.rank, details.limit) == (pytest.approx(want), 3, 3)
        assert nc1(moments) != pytest.approx(want, rel=0.01)
        assert nc1_quotient(moments, center="sample") == pytest.approx(
            np.trace(within) / np.trace(self.between(x, y))
        )

    @pytest.mark.parametrize("weighting", ["class", "sample"])
    @pytest.mark.parametrize("center", ["class", "sample"])
    def test_nc1_of_many_classes(self, weighting, center):
        """Where Gram matrices are inverted, too."""
        rng = np.random.default_rng(1)
        counts = rng.integers(1, 9, 80)
        for d in (70, 100):
            y = np.arange(80).repeat(counts)
            x = rng.normal(size=(80, d))[y] + 0.3 * rng.normal(size=(len(y), d))
            means = np.stack([x[y == k].mean(axis=0) for k in range(80)])
            shares = counts / counts.sum() if weighting == "sample" else np.full(80, 1 / 80)
            root = means - (x.mean(axis=0) if center == "sample" else means.mean(axis=0))
            root *= np.sqrt(shares)[:, None]
            own = x - means[y]
            inverse = np.linalg.pinv(root.T @ root, 1e-12, hermitian=True)
            want = np.trace(own.T @ own / len(y) @ inverse) / 80
            found = nc1(gather(x, y, 80), weighting, center=center)
            assert found == pytest.approx(want, rel=1e-8)

    def test_nc2_and_nc3(self, network):
        x, y, w, _ = network
        moments = gather(x, y, 4)
        means = two_pass.class_means(x, y, 4) - x.mean(axis=0)
        etf = scaled(np.eye(4) - 1 / 4)
        assert nc2(moments, weighting="sample") == pytest.approx(
            np.linalg.norm(scaled(means @ means.T) - etf)
        )
        assert nc3(moments, w, weighting="sample") == pytest.approx(
            np.linalg.norm(scaled(w @ means.T) - etf)
        )
        assert self_duality(moments, w, weighting="sample") == pytest.approx(
            np.linalg.norm(scaled(w) - scaled(means))
        )
        cosines = (scaled(w[0]) @ scaled(means[0]), scaled(w[3]) @ scaled(means[3]))
        found = alignment(moments, w, weighting="sample")
        assert (found[0], found[3]) == pytest.approx(cosines)

    def test_a_report_measures_all_of_it(self, network):
        x, y, w, b = network
        moments = gather(x, y, 4)
        report = CollapseReport.measure(moments, w, b, targets=["etf"], center="sample")
        assert report.nc1 == nc1(moments, center="sample")
        assert report.nc1_rank == 3
        assert report.nc1_quotient == nc1_quotient(moments, center="sample")
        assert report.self_duality == self_duality(moments, w, weighting="sample")
        assert report.bias_alignment == bias_alignment(moments, w, b, "sample")
        rows = {row[:3]: row.value for row in report.rows}
        assert rows["nc2", "centered_means", "simplex ETF"] == pytest.approx(
            nc2(moments, weighting="sample")
        )
        assert rows["nc3", "centered_logits", "simplex ETF"] == pytest.approx(
            nc3(moments, w, weighting="sample")
        )

    def test_every_entry_measures_it(self, network):
        """Against the definitions, in two passes over the samples."""
        x, y, w, b = network
        means = two_pass.class_means(x, y, 4)
        centered, own = means - x.mean(axis=0), x - means[y]
        inverse = np.linalg.pinv(self.between(x, y), 1e-12)
        want = {
            "nc1": np.trace(own.T @ own / len(y) @ inverse) / 4,
            "nc1_quotient": np.trace(own.T @ own) / len(y) / np.trace(self.between(x, y)),
            "self_duality": np.linalg.norm(scaled(w) - scaled(centered)),
            "bias_alignment": np.linalg.norm(b + w @ x.mean(axis=0)),
        }
        head = nn.Linear(7, 4).double()
        with torch.no_grad():
            head.weight.copy_(torch.tensor(w))
            head.bias.copy_(torch.tensor(b))
        model = nn.Sequential(nn.Identity(), head)
        batches = [(torch.tensor(x[i::3]), torch.tensor(y[i::3])) for i in range(3)]
        metric = CollapseMetric(4, classifier=head, center="sample")
        with Watch(model, nc4=True, center="sample") as watch:
            for inputs, labels in batches:
                metric.update(inputs, labels)
                watch.labels(labels)
                model(inputs)
            watched = watch.reports()["1"]
        passed = collapse_report(model, batches, center="sample")["1"]
        for report in (watched, passed):
            for key, value in want.items():
                assert report.numbers[key] == pytest.approx(value, rel=1e-9)
            assert report.to_dict()["center"] == "sample"
            assert sum("the mean of all samples" in note for note in report.notes) == 1
            # Distances to a prediction are centred in the same way.
            gram = scaled(centered @ centered.T) - scaled(np.eye(4) - 1 / 4)
            distances = report.distances(simplex_etf(4))
            assert distances["centered_means"] == pytest.approx(np.linalg.norm(gram), rel=1e-9)
        found = metric.compute()
        for key, value in want.items():
            assert float(found[key]) == pytest.approx(value, rel=1e-9)
        plain = collapse_report(model, batches)["1"]
        assert plain.to_dict()["center"] == "class"
        assert not any("the mean of all samples" in note for note in plain.notes)

    def test_layers_of_a_deep_head(self, network):
        x, y, w, _ = network
        moments = gather(x, y, 4)
        first = np.random.default_rng(1).normal(size=(6, 7))
        last = w[:, :6]
        report = CollapseReport.measure(
            moments, last @ first, weights=[first, last], targets=["etf"], center="sample"
        )
        centered = (two_pass.class_means(x, y, 4) - x.mean(axis=0)) @ first.T
        gram = scaled(centered @ centered.T) - scaled(np.eye(4) - 1 / 4)
        (row,) = [row for row in report.rows if row.part == "layer 2 centered_means"]
        assert row.value == pytest.approx(np.linalg.norm(gram), rel=1e-9)

    @quick
    @given(networks(max_dim=3))
    def test_balanced_classes_have_one_mean(self, network):
        _, _, k, w, _ = network
        rng = np.random.default_rng(k)
        y = np.arange(k).repeat(3)
        moments = gather(rng.normal(size=(3 * k, w.shape[1])), y, k)
        assert nc1(moments, center="sample") == pytest.approx(nc1(moments), rel=1e-6)

    def test_refusals(self, network):
        x, y, w, b = network
        moments = gather(x, y, 4)
        with pytest.raises(ValueError, match="center: got 'all', allowed are class, sample"):
            nc1(moments, center="all")
        with pytest.raises(ValueError, match="center: got 'all'"):
            CollapseMetric(4, center="all")
        with pytest.raises(ValueError, match="center: got 'all'"):
            collapse_report(nn.Sequential(nn.Linear(7, 4)), [], center="all")
        with pytest.raises(ValueError, match="center: got 'all'"):
            CollapseReport.measure(moments, w, b, center="all")
        for function in (nc3, self_duality, distance_norms, alignment):
            with pytest.raises(ValueError, match="weighting: got 'all', allowed are class"):
                function(moments, w, weighting="all")


class TestGrids:
    @quick
    @given(networks(), st.sampled_from([1.0, 2.0]))
    def test_cdnv(self, network, power):
        x, y, k, _, _ = network
        grid = cdnv_grid(gather(x, y, k), power)
        means = two_pass.class_means(x, y, k)
        spread = [((x[y == c] - means[c]) ** 2).sum(axis=1).mean() for c in range(k)]
        for i in range(k):
            for j in range(k):
                square = ((means[i] - means[j]) ** 2).sum()
                want = (spread[i] + spread[j]) / 2 / square**power if i != j else math.nan
                assert grid[i, j] == pytest.approx(want, rel=1e-6, nan_ok=True)
        off = grid[~np.eye(k, dtype=bool)]
        assert off.mean() == pytest.approx(cdnv(gather(x, y, k), power))

    @pytest.mark.parametrize(
        ("kernel", "options", "of"),
        [
            ("distance", {}, lambda d: d),
            ("log", {}, lambda d: -np.log(d)),
            ("riesz", {}, lambda d: d**-5.0),  # D - 2 = 5
            ("riesz", {"s": -2.0}, lambda d: -(d**2)),
        ],
    )
    def test_kernels(self, network, kernel, options, of):
        x, y, _, _ = network
        moments = gather(x, y, 4)
        grid = kernel_grid(moments, kernel, **options)
        means = two_pass.class_means(x, y, 4)
        units = np.stack([scaled(row) for row in means - means.mean(axis=0)])
        distances = np.linalg.norm(units[:, None] - units, axis=2)
        off = ~np.eye(4, dtype=bool)
        np.testing.assert_allclose(grid[off], of(distances[off]), rtol=1e-9)
        assert np.isnan(grid.diagonal()).all()
        assert grid[off].mean() == pytest.approx(uniformity(moments, kernel, **options).mean)

    def test_what_has_no_value_is_nan(self):
        w = np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        with pytest.warns(RuntimeWarning, match="kernel_grid: 1 of 4 vectors are zero"):
            grid = kernel_grid(w, "log")
        assert np.isnan(grid[1]).all()
        assert grid[0, 2] == math.inf
        assert grid[0, 3] == pytest.approx(-math.log(2) / 2)
        x, y = np.array([[1.0, 0.0], [1.0, 2.0], [1.0, 1.0], [4.0, 0.0]]), np.array([0, 0, 2, 3])
        with pytest.warns(RuntimeWarning, match="class 1 is without samples and left out"):
            grid = cdnv_grid(ClassMoments(4).update(x, y))
        assert np.isnan(grid[1]).all()
        assert grid[0, 2] == math.inf  # their means are equal
        assert grid[0, 3] == pytest.approx(1 / 2 / 10)

    def test_many_classes_are_refused(self):
        with pytest.raises(ValueError, match="kernel_grid: 5000 classes would need"):
            kernel_grid(np.ones((5000, 2)))
        with pytest.raises(ValueError, match="cdnv_grid: 5000 classes would need"):
            cdnv_grid(ClassMoments(5000))


class TestDistanceNorms:
    @quick
    @given(networks(), st.booleans(), st.booleans(), st.sampled_from(["class", "sample"]))
    def test_are_lengths_of_differences(self, network, centered, normalized, weighting):
        x, y, k, w, _ = network
        means = two_pass.class_means(x, y, k)
        if centered:
            means = means - (means if weighting == "class" else x).mean(axis=0)
        options = {"centered": centered, "normalized": normalized, "weighting": weighting}
        found = distance_norms(gather(x, y, k), w, **options)
        for c in range(k):
            a, b = (scaled(w[c]), scaled(means[c])) if normalized else (w[c], means[c])
            assert found[c] == pytest.approx(np.linalg.norm(a - b), rel=1e-6, abs=1e-7)

    def test_zero_rows_have_none(self):
        moments = gather(np.eye(3), np.arange(3), 3)
        w = np.diag([1.0, 0.0, 1.0])
        with pytest.warns(RuntimeWarning, match="distance_norms: 1 class has a zero class"):
            found = distance_norms(moments, w)
        assert np.isnan(found).tolist() == [False, True, False]
        assert not np.isnan(distance_norms(moments, w, normalized=False)).any()


class TestEffectiveRanks:
    @quick
    @given(streams())
    def test_are_those_of_the_singular_values(self, stream):
        x, y, k = stream
        found = effective_ranks(x, y, num_classes=k + 1)
        relative = effective_ranks(torch.tensor(x), torch.tensor(y), relative=True)
        for c in range(k):
            own = x[y == c]
            if len(own) < 2:
                assert np.isnan(found[c])
                continue
            values = np.linalg.svd(own - own.mean(axis=0), compute_uv=False)
            shares = values[values > 1e-9 * values[0]] / values.sum()
            want = math.exp(-(shares * np.log(shares)).sum())
            assert found[c] == pytest.approx(want, rel=1e-4)
            assert relative[c] == pytest.approx(want / min(own.shape), rel=1e-4)
        assert np.isnan(found[k])

    def test_a_class_on_a_line_and_one_on_a_point(self):
        rng = np.random.default_rng(0)
        line = np.outer(rng.normal(size=50), [1.0, 2.0, 3.0]) + 1e6
        x = np.concatenate([line, np.full((50, 3), 0.1), rng.normal(size=(50, 3))])
        found = effective_ranks(x, np.arange(3).repeat(50))
        assert found[0] == pytest.approx(1, abs=1e-3)
        assert found[1] == 0
        assert 2.5 < found[2] <= 3

    def test_refusals(self):
        with pytest.raises(ValueError, match="labels: got 2 in row 1, allowed are 0 to 1"):
            effective_ranks(np.eye(2), [0, 2], num_classes=2)
        with pytest.raises(ValueError, match="labels"):
            effective_ranks(np.eye(2), [0.5, 1.0])
