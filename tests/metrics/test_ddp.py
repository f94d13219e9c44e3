"""CollapseMetric in two real processes (gloo) against one process that saw everything."""

import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests import processes
from tests.reference import two_pass
from tightframe.metrics import ClassMoments
from tightframe.metrics.torchmetrics import CollapseMetric

K, D = 4, 5
WEIGHT, BIAS = np.arange(K * D).reshape(K, D) % 7 - 3.0, np.arange(K) / 4


def data():
    """Return samples far from zero: anchors that differ between ranks matter."""
    rng = np.random.default_rng(0)
    y = np.r_[np.arange(K), rng.integers(0, K, 45)]
    return 100 + rng.normal(size=(K, D))[y] + 0.1 * rng.normal(size=(len(y), D)), y


#: Name to what rank 1 sees of the 49 samples; rank 0 has the rest.
SHARDS = {
    "uneven": slice(40, None),
    "rank 1 lacks classes": slice(0, 2),
    "rank 1 has nothing": slice(0, 0),
    "rank 0 has nothing": slice(None),
}


def shard(rank, rows):
    theirs = np.zeros(49, dtype=bool)
    theirs[rows] = True
    return np.flatnonzero(theirs == bool(rank))


def numbers(metric):
    return {name: float(value) for name, value in metric.compute().items()}


def gather(metric, x, y, batch=7):
    for start in range(0, len(y), batch):
        metric.update(x[start : start + batch], y[start : start + batch])
    return metric


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    x, y = data()
    found = {}
    for name, rows in SHARDS.items():
        own = shard(rank, rows)
        metric = gather(CollapseMetric(K, classifier=(WEIGHT, BIAS)), x[own], y[own])
        values = numbers(metric)
        with metric.sync_context():
            state = metric.moments.state_dict()
        alone = metric.moments.num_samples  # unsynchronised again
        again = numbers(gather(metric, x[own], y[own]))  # and it goes on
        found[name] = (values, state, alone, again)
    untouched = CollapseMetric(K, sync_on_compute=True)
    with untouched.sync_context():
        found["empty"] = untouched.moments.num_samples
    by_step = CollapseMetric(K, dist_sync_on_step=True)
    found["step"] = {n: float(v) for n, v in by_step(x[rank::2], y[rank::2]).items()}
    tallied = CollapseMetric(K, ignore_index=-100)
    tallied.update(np.ones((3, D)), np.array([-100, rank, -100]))
    with tallied.sync_context():
        found["ignored"] = (tallied.moments.num_ignored, tallied.moments.counts.tolist())
    large = CollapseMetric(K, scatter=False)
    large.update(np.ones((1, D)), [0])
    large.counts += 2**40
    with large.sync_context():
        found["counts"] = large.moments.num_samples
    with open(f"{folder}/{rank}", "wb") as file:
        pickle.dump(found, file)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    assert processes.run_all([(worker, rank, str(folder)) for rank in range(2)]) == [0, 0]
    return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(2)]


@pytest.fixture(scope="module")
def single():
    return gather(CollapseMetric(K, classifier=(WEIGHT, BIAS)), *data())


@pytest.mark.parametrize("name", SHARDS)
def test_two_processes_measure_what_one_does(ranks, single, name):
    x, y = data()
    for rank, found in enumerate(ranks):
        values, state, alone, again = found[name]
        assert values == pytest.approx(numbers(single), rel=1e-9)
        # Both saw everything twice: counts doubled, metrics the same.
        assert again == pytest.approx(numbers(single), rel=1e-9)
        assert alone == len(shard(rank, SHARDS[name]))
        moments = ClassMoments(K).load_state_dict(state)
        assert moments.counts.dtype == torch.int64
        assert moments.counts.tolist() == np.bincount(y).tolist()
        np.testing.assert_allclose(moments.means, two_pass.class_means(x, y, K), rtol=1e-14)
        np.testing.assert_allclose(moments.within(), two_pass.within(x, y, K), atol=1e-14)
        assert values["nc1"] == pytest.approx(two_pass.nc1(x, y, K), rel=1e-9)


@pytest.mark.parametrize("name", SHARDS)
def test_processes_agree_to_the_last_bit(ranks, name):
    assert ranks[0][name][0] == ranks[1][name][0]


def test_a_plain_sum_of_states_would_be_wrong():
    # Otherwise the tests above would not need the merge.
    x, y = data()
    parts = [gather(ClassMoments(K), x[o], y[o]).state_dict() for o in (slice(40), slice(40, None))]
    total = {n: parts[0][n] + parts[1][n] for n in ("counts", "anchors", "sums")}
    means = total["anchors"] + total["sums"] / total["counts"][:, None]
    assert not np.allclose(means, two_pass.class_means(x, y, K))


def test_no_process_has_samples(ranks):
    assert [found["empty"] for found in ranks] == [0, 0]


def test_synchronised_at_every_step(ranks, single):
    for found in ranks:
        assert found["step"]["nc1"] == pytest.approx(numbers(single)["nc1"], rel=1e-9)


def test_tallies_and_counts_beyond_int32_and_float64_add_up(ranks):
    for found in ranks:
        assert found["ignored"] == (4, [1, 1, 0, 0])
        assert found["counts"] == 2 * (1 + K * 2**40)
