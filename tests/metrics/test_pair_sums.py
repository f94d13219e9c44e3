"""CDNV of many classes: certified sampling against all pairs, and when it must not be believed."""

import math

import numpy as np
import pytest
import torch

from tightframe.metrics import ClassMoments, cdnv, pair_sums, variability
from tightframe.metrics.rows import Rows

K, D = 3000, 768


def means(seed=0, clusters=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(K, D, generator=generator, dtype=torch.float64)
    if clusters:
        x += (
            3
            * torch.randn(clusters, D, generator=generator, dtype=torch.float64)[
                torch.arange(K) % clusters
            ]
        )
    return x - x.mean(dim=0)


def values(seed=0):
    return 1 + torch.rand(K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def over_all_pairs(x, v, near=()):
    """The sum in NumPy, of all pairs at once; of near ones from their differences."""
    x, v = x.numpy(), v.numpy()
    squares = np.square(x).sum(axis=1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distances, np.inf)
    for i, j in near:
        distances[i, j] = distances[j, i] = np.square(x[i] - x[j]).sum()
    return v @ np.sum(1 / distances, axis=1)


def found(x, v, errors=0.0):
    return pair_sums.inverse_distance_sum(Rows(x), v, torch.full((len(x),), errors))


@pytest.fixture
def coarser(monkeypatch):
    """As few classes as these are known less well."""
    monkeypatch.setattr(pair_sums, "ACCURACY", 5e-6)


def test_the_sum_is_that_over_all_pairs(coarser):
    x, v = means(), values()
    # Lengths and variances of all sizes.
    x *= torch.linspace(0.95, 1.05, K, dtype=torch.float64)[:, None]
    assert found(x, v).total == pytest.approx(over_all_pairs(x, v), rel=5e-6)


def test_close_pairs_are_not_missed(coarser):
    x, v = means(), values()
    for i, j, size in ((5, 1700, 1e-3), (2999, 0, 1e-2), (10, 11, 0.05)):
        x[j] = x[i] + size * torch.randn(D, dtype=torch.float64)
    total = over_all_pairs(x, v)
    assert total > 1.1 * float(v.sum()) * K / (2 * D)  # about what all others sum to
    assert found(x, v).total == pytest.approx(total, rel=5e-6)


def test_equal_means_are_found(coarser):
    x = means()
    x[1234] = x[77]
    assert found(x, values(), 1e-12) == (math.inf, (77, 1234))


def clustered(clusters=5, spread=1.0):
    """Means in clusters, with lengths of all sizes and a class at the global mean."""
    x = spread * means() + means(seed=1)[torch.arange(K) % clusters]
    order = torch.randperm(K, generator=torch.Generator().manual_seed(2))
    x *= torch.logspace(-0.5, 0.5, K, dtype=torch.float64)[order, None]
    x[3] *= 1e-3
    return x - x.mean(dim=0)


@pytest.mark.parametrize("x", [means(clusters=5), means(clusters=200), clustered(20, 0.5)])
def test_clusters_and_unequal_lengths_are_summed_in_float32(x):
    v = values()
    assert pair_sums._by_expansion(Rows(x), v, torch.zeros(K)) is None
    for unit in (1.0, 1e-30):  # squares of which leave float32
        total = over_all_pairs(x, v) / unit**2
        assert found(unit * x, v).total == pytest.approx(total, rel=1e-6)


def test_close_and_equal_means_in_clusters_are_found():
    x, v = clustered(), values()
    near = {(5, 1700): 1e-3, (2999, 0): 1e-6, (10, 11): 1e-4}
    for (i, j), size in near.items():
        x[j] = x[i] + size * x[i].norm() / D**0.5 * torch.randn(D, dtype=torch.float64)
    assert found(x, v).total == pytest.approx(over_all_pairs(x, v, near), rel=1e-6)
    x[1234] = x[77]
    assert found(x, v, 1e-12) == (math.inf, (77, 1234))


def test_what_is_not_certified_is_not_returned(monkeypatch):
    x, v = means(seed=1)[torch.arange(K) % 300] + 1e-3 * means(), values()
    total = over_all_pairs(x, v)  # of mostly close pairs
    assert found(x, v).total == pytest.approx(total, rel=1e-6)
    assert found(x, v, errors=1.0) is None  # rounding everywhere
    monkeypatch.setattr(pair_sums, "_MOST_CLOSE", 1000)
    assert found(x, v) is None
    monkeypatch.undo()
    monkeypatch.setattr(pair_sums, "ACCURACY", 1e-13)
    assert found(x, v) is None


def moments(x, v):
    """Two samples a class with these means and variances."""
    shift = torch.zeros_like(x)
    shift[:, 0] = v.sqrt()
    labels = torch.arange(len(x))
    return ClassMoments(len(x), scatter=False).update(x + shift, labels).update(x - shift, labels)


@pytest.mark.parametrize("clusters", [0, 5])
def test_cdnv_is_the_same_either_way(clusters, coarser, monkeypatch):
    gathered = moments(means(clusters=clusters), values())
    exact = cdnv(gathered)
    assert exact == pytest.approx(
        over_all_pairs(means(clusters=clusters), values()) / (K * (K - 1))
    )
    monkeypatch.setattr(variability, "FEW_CLASSES", 100)
    assert cdnv(gathered) == pytest.approx(exact, rel=5e-6)
    assert cdnv(gathered) != exact
    assert cdnv(gathered, power=2.0) == pytest.approx(cdnv(gathered, power=2.0), rel=1e-14)
    monkeypatch.setattr(pair_sums, "ACCURACY", 0.0)
    assert cdnv(gathered) == exact  # all pairs


def test_equal_classes_are_named(monkeypatch, coarser):
    x = means()
    x[1234] = x[77]
    monkeypatch.setattr(variability, "FEW_CLASSES", 100)
    with pytest.warns(RuntimeWarning, match="the means of classes 77 and 1234 are equal"):
        assert cdnv(moments(x, values())) == math.inf


@pytest.mark.slow
def test_twenty_thousand_classes_to_one_in_a_million(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    gathered = ClassMoments(20_000, scatter=False)
    centers = torch.randn(20_000, D, generator=generator)
    for _ in range(2):
        noise = torch.randn(20_000, D, generator=generator)
        gathered.update(centers + noise, torch.arange(20_000))
    value = cdnv(gathered)
    monkeypatch.setattr(variability, "FEW_CLASSES", 10**9)
    exact = cdnv(gathered)
    assert value != exact  # it was sampled
    assert value == pytest.approx(exact, rel=1e-6)
