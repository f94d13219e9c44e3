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


def over_all_pairs(x, v):
    """The sum in NumPy, of all pairs at once."""
    x, v = x.numpy(), v.numpy()
    squares = np.square(x).sum(axis=1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distances, np.inf)
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


@pytest.mark.parametrize("clusters", [5, 200])
def test_what_is_not_certified_is_not_returned(clusters):
    assert found(means(clusters=clusters), values()) is None
    x = means()
    x[3] *= 1e-3  # a class at the global mean
    assert found(x, values()) is None


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
    assert (cdnv(gathered) == exact) == bool(clusters)
    assert cdnv(gathered, power=2.0) == pytest.approx(cdnv(gathered, power=2.0), rel=1e-14)


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
