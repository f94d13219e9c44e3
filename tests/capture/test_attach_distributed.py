"""The callbacks in two real processes against one: samplers repeat samples, which count once."""

import json
import socket

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from tests import processes
from tests.capture.attached import measure
from tightframe.capture.distributed import own_samples, with_own

SAMPLES = 31  # in batches of 7: two processes see 32 or, with accelerate, 42


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attached")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    calls = [(measure, SAMPLES, folder)]
    calls += [(measure, SAMPLES, folder, 2, rank, port) for rank in range(2)]
    assert processes.run_all(calls) == [0, 0, 0]
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.parametrize("source", ["validation", "train", "transformers"])
def test_two_processes_measure_what_one_does(found, source):
    alone = found["1-0"][source]
    assert alone["counts"] == [11, 10, 10]
    for rank in range(2):
        together = found[f"2-{rank}"][source]
        assert together["counts"] == alone["counts"]
        for name in ("nc1", "nc4", "cdnv"):
            # Batches of other sizes round differently in float32.
            assert together[name] == pytest.approx(alone[name], rel=1e-4)
    assert found["2-0"][source] == found["2-1"][source]


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("samples", [1, 7, 12, 13])
def test_every_sample_is_some_process_s_own_once(processes, shuffle, samples):
    data = TensorDataset(torch.arange(samples))
    seen = []
    for rank in range(processes):
        sampler = DistributedSampler(data, processes, rank, shuffle=shuffle)
        loader = DataLoader(data, 2, sampler=sampler)
        own = [(batch[0], count) for batch, count in with_own(loader)]
        assert sum(count for _, count in own) == own_samples(loader)
        seen += [int(x) for batch, count in own for x in batch[:count]]
    assert sorted(seen) == list(range(samples))


def test_other_loaders_repeat_nothing():
    data = TensorDataset(torch.arange(5))
    for loader in (DataLoader(data, 2), [{"x": torch.ones(2)}], [[torch.tensor(1)]], ["text"]):
        assert own_samples(loader) is None
        assert [count for _, count in with_own(loader)] == [None] * len(loader)
