"""A process's share of a distributed loader without the samples that make all shares equally long.

Samplers of distributed loaders repeat some samples so that every process has equally many batches.
Collapse measured over all processes must not count those twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler


def own_samples(loader: Any) -> int | None:
    """Return how many samples of this process's share, the first ones, are not repeats.

    None if the loader has no `torch.utils.data.DistributedSampler`, which puts repeats last.
    """
    for source in (loader, getattr(loader, "batch_sampler", None)):
        sampler = getattr(source, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            total = len(sampler.dataset)  # type: ignore[arg-type]
            return len(range(sampler.rank, total, sampler.num_replicas))
    return None


def with_own(loader: Iterable[Any]) -> Iterator[tuple[Any, int | None]]:
    """Iterate over a loader; with every batch, how many of its samples are no repeats.

    They are the first ones of the batch; None means all. Knows torch's distributed sampler and the
    loaders that Hugging Face's accelerate prepares.
    """
    own, seen = own_samples(loader), 0
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    for batch in loader:
        size = _batch_size(batch)
        if size is None:
            yield batch, None
        elif own is not None:
            yield batch, min(max(own - seen, 0), size)
            seen += size
        elif (rest := _last_of_all_processes(loader)) is not None:
            yield batch, min(max(rest - rank * size, 0), size)
        else:
            yield batch, None


def _last_of_all_processes(loader: Any) -> int | None:
    """Return how many samples the processes' last batches hold, at the last batch only.

    That is known of a loader by accelerate, whose last batches hold the samples in order of the
    processes, followed by repeats.
    """
    if not getattr(loader, "end_of_dataloader", False):
        return None
    if not getattr(getattr(loader, "batch_sampler", None), "even_batches", True):
        return None
    rest = getattr(loader, "remainder", -1)
    return rest if rest > 0 else None


def _batch_size(batch: Any) -> int | None:
    """Return the length of the first tensor of a batch."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else None
    values = batch.values() if hasattr(batch, "values") else batch
    if not isinstance(values, Iterable) or isinstance(values, str | bytes):
        return None
    return next((size for value in values if (size := _batch_size(value)) is not None), None)
