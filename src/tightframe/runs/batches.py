"""Batches of samples in memory, as a function of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data as torch_data


def loader(
    parts: tuple[Tensor, ...], batch_size: int | None, seed: int
) -> torch_data.DataLoader[tuple[Tensor, ...]]:
    """Return what a trainer takes batches from: inputs, labels and what else samples have.

    Parameters
    ----------
    parts : tuple of Tensor
        Of equal length.
    batch_size : int, optional
        None: all samples in one batch, in their order.
    seed : int
    """
    sampler = Batches(len(parts[0]), batch_size, seed)
    return torch_data.DataLoader(_Samples(parts), batch_size=None, sampler=sampler)


def chunks(
    inputs: NDArray[np.float32], labels: NDArray[np.int64], size: int
) -> list[tuple[Tensor, Tensor]]:
    """Return samples in their order, parted for passes that need not be trained on."""
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(y), size)]


class _Samples(torch_data.Dataset[tuple[Tensor, ...]]):
    """Tensors in memory; an index is a whole batch, so nothing is collated sample by sample."""

    def __init__(self, parts: tuple[Tensor, ...]) -> None:
        self._parts = parts

    def __getitem__(self, index: Tensor | slice) -> tuple[Tensor, ...]:
        return tuple(part[index] for part in self._parts)

    def __len__(self) -> int:
        return len(self._parts[0])


class Batches(torch_data.Sampler[Any]):
    """Batches of indices, shuffled anew every epoch, as a function of seed and epoch alone.

    Sizes differ by one at most: no small last batch with a noisy estimate. In distributed training
    every process gets its share of every batch.
    """

    def __init__(self, num_samples: int, batch_size: int | None, seed: int) -> None:
        self._num_samples = num_samples
        self._num_batches = -(-num_samples // (batch_size or num_samples))
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order; Lightning calls this before every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Tensor | slice]:
        # A generator, so that the epoch is read when the first batch is asked for: in the first
        # epoch of a resumed fit Lightning makes the iterator before it calls `set_epoch`.
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, world = (
            (torch.distributed.get_rank(), torch.distributed.get_world_size()) if shared else (0, 1)
        )
        if self._num_batches == 1 and world == 1:
            yield slice(None)  # a view of all samples: no copy, and no order to speak of
            return
        generator = torch.Generator().manual_seed(mix(self._seed, self._epoch))
        order = torch.randperm(self._num_samples, generator=generator)
        for batch in torch.tensor_split(order, self._num_batches):
            yield torch.tensor_split(batch, world)[rank] if world > 1 else batch


def mix(seed: int, epoch: int) -> int:
    """Return a seed for one epoch of one run."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)
