"""What moments remember between two metrics never outlives the state that it came from."""

import copy
import pickle

import numpy as np
import pytest
import torch

from tests.reference import two_pass
from tightframe.metrics import ClassMoments, cdnv, equinorm, nc1, nc2
from tightframe.metrics.snapshot import Snapshot

K, D = 4, 6


def batch(seed, size=40):
    rng = np.random.default_rng(seed)
    return 3 + rng.normal(size=(size, D)), np.arange(size) % K


def measured(moments):
    return [nc1(moments), cdnv(moments), nc2(moments), equinorm(moments), nc1(moments, "sample")]


def fresh(*batches):
    moments = ClassMoments(K)
    for x, y in batches:
        moments.update(x, y)
    return measured(moments)


def test_metrics_of_one_state_share_a_snapshot_and_agree_with_two_passes():
    x, y = batch(0)
    moments = ClassMoments(K).update(x, y)
    assert nc1(moments) == pytest.approx(two_pass.nc1(x, y, K), rel=1e-10)
    assert Snapshot.of(moments) is Snapshot.of(moments)
    assert nc1(moments) == pytest.approx(two_pass.nc1(x, y, K), rel=1e-10)


def test_every_change_is_seen():
    first, second = batch(1), batch(2, size=37)
    moments = ClassMoments(K).update(*first)
    measured(moments)
    moments.update(*second)
    both = fresh(first, second)
    assert measured(moments) == pytest.approx(both, rel=1e-12)
    moments.merge(ClassMoments(K).update(*first))
    assert measured(moments) == pytest.approx(fresh(first, second, first), rel=1e-10)
    moments.load_state_dict(ClassMoments(K).update(*second).state_dict())
    assert measured(moments) == pytest.approx(fresh(second), rel=1e-12)
    empty = ClassMoments(K).merge(moments)
    assert measured(empty) == pytest.approx(fresh(second), rel=1e-12)


def test_copies_have_their_own():
    first, second = batch(3), batch(4)
    moments = ClassMoments(K).update(*first)
    measured(moments)
    for other in (copy.deepcopy(moments), pickle.loads(pickle.dumps(moments))):
        other.update(*second)
        assert measured(other) == pytest.approx(fresh(first, second), rel=1e-12)
    assert measured(moments) == pytest.approx(fresh(first), rel=1e-12)


def test_the_callers_own_matrices_are_not_remembered():
    moments = ClassMoments(K).update(*batch(5))
    want = measured(moments)
    moments.means.zero_()
    moments.centered_means().zero_()
    moments.offsets.zero_()
    moments.mean_errors.fill_(1e9)
    moments.missing.append(0)
    assert measured(moments) == want


def test_large_matrices_are_not_kept(monkeypatch):
    moments = ClassMoments(K).update(*batch(6))
    monkeypatch.setattr("tightframe.metrics.snapshot.BLOCK_ENTRIES", K * D - 1)
    assert Snapshot.of(moments) is not Snapshot.of(moments)


@pytest.mark.parametrize("dim", [5, 128, 300])
def test_variance_along_directions_is_that_of_the_covariance(dim):
    rng = np.random.default_rng(dim)
    x, y = 2 + rng.normal(size=(200, dim)), rng.integers(0, K, 200)
    moments = ClassMoments(K).update(x, y)
    directions = rng.normal(size=(dim, 3))
    means = np.stack([x[y == k].mean(axis=0) for k in range(K)])
    want = np.square((x - means[y]) @ directions).mean(axis=0)
    got = moments.within_along(torch.from_numpy(directions))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)


def test_variance_along_directions_needs_the_scatter_matrix():
    with pytest.raises(ValueError, match="scatter: got False"):
        ClassMoments(K, scatter=False).update(*batch(7)).within_along(torch.eye(D).double())
