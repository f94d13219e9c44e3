"""Which data are measured: what they are called, and whether they are the same when read again."""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler, SequentialSampler

from tightframe.checks import number_of
from tightframe.heads.modes import preserved_rng

#: What reports and logs call the data.
SPLIT_NAMES = {
    "train": "the training set",
    "validation": "the validation set",
    "evaluation": "the evaluation set",
    "loader": "the loader that was given",
}

#: Logged, 1 or 0, under every prefix: whether the numbers are those of the training set.
ON_TRAINING_SET = "on_training_set"

#: Samples that are read twice.
_SAMPLES = 4

_LOG = logging.getLogger("tightframe")


def announce(split: str, how_else: str) -> None:
    """Log which data are measured, and how to measure others."""
    _LOG.info("collapse is measured on %s; %s", SPLIT_NAMES[split], how_else)


def split_scalars(split: str) -> dict[str, float]:
    """Return what a logger, which takes numbers only, is told of the data."""
    return {} if split == "loader" else {ON_TRAINING_SET: float(split == "train")}


def warn_of_augmentation(loader: Any) -> None:
    """Warn if a loader's data set gives other inputs for the same index on a second read.

    A few samples are read twice, through the loader's ``collate_fn``, which may mask or mix them.
    What is no map-style data set, or fails, is left alone: the loop itself will say so.
    """
    dataset: Any = getattr(loader, "dataset", None)
    collate: Any = getattr(loader, "collate_fn", None)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return
    try:
        count = len(dataset)
        places = [i * count // _SAMPLES for i in range(_SAMPLES)] if count >= _SAMPLES else [0]
        reads = []
        for _ in range(2):
            samples = [dataset[i] for i in places]
            batched = callable(collate) and getattr(loader, "batch_size", None) is not None
            reads.append(collate(samples) if batched else samples)
    except Exception:  # a data set of anybody's may refuse to be read so
        return
    if not _equal(*reads):
        warnings.warn(
            "loader: its samples are others when they are read again, so augmentation (or a "
            "collator's masking) is in the features and NC1 counts it; give a loader of the "
            "training set without it",
            RuntimeWarning,
            stacklevel=4,
        )


def warn_of_sampler(loader: Any) -> None:
    """Warn if a pass over a loader does not meet every sample once: counts are then of draws.

    Its sampler is gone through once. A subset is what was meant; one that repeats samples was made
    for training, as those that draw rare classes more often. What fails is left alone.
    """
    try:
        places, left = _places(loader), _left_out(loader)
    except Exception:  # a sampler of anybody's may refuse to be read so
        return
    if left:
        warnings.warn(
            f"loader: its last batch is not full, and drop_last leaves its "
            f"{number_of(left, 'sample')} out",
            RuntimeWarning,
            stacklevel=4,
        )
    if places is None or len(set(places)) == len(places):
        return
    met = len(set(places))
    warnings.warn(
        f"loader: a pass draws {len(places)} times from {len(loader.dataset)} samples and meets "
        f"{met} of them, so counts are those of draws and few samples look like many; give a "
        "loader of the training set without its sampler",
        RuntimeWarning,
        stacklevel=4,
    )


# -- inside --------------------------------------------------------------------------------------


def _places(loader: Any) -> list[int] | None:
    """Return which samples a pass over a loader meets; None where that cannot be told cheaply."""
    if not hasattr(getattr(loader, "dataset", None), "__getitem__"):
        return None
    batches = getattr(loader, "batch_sampler", None)
    nested = batches is not None and type(batches) is not BatchSampler
    # The loader's own is another where its batches were given.
    source = batches if nested else getattr(batches or loader, "sampler", None)
    # Those of several processes repeat a few samples, which are told apart elsewhere.
    if source is None or isinstance(source, SequentialSampler | DistributedSampler):
        return None
    with preserved_rng(loader):
        # A copy: what counts its epochs is as before.
        drawn = list(itertools.islice(copy.copy(source), len(source)))
    return [int(place) for one in drawn for place in (one if nested else [one])]


def _left_out(loader: Any) -> int:
    """Return how many samples a pass leaves out, as its last batch would not be full."""
    batches: Any = getattr(loader, "batch_sampler", None)
    if type(batches) is not BatchSampler or not batches.drop_last:
        return 0
    sampler: Any = batches.sampler
    return len(sampler) % batches.batch_size


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two samples or batches are the same; what cannot be compared is."""
    if isinstance(one, Tensor):
        if not isinstance(other, Tensor) or one.shape != other.shape:
            return False
        return bool(torch.equal(one.nan_to_num(), other.nan_to_num()))
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and all(
            name in other and _equal(value, other[name]) for name, value in one.items()
        )
    if isinstance(one, Sequence) and not isinstance(one, str | bytes):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, np.ndarray) or hasattr(one, "__array_interface__"):  # images, too
        return np.array_equal(np.asarray(one), np.asarray(other))
    if isinstance(one, int | float | str | bytes):
        return one == other or one != one
    return True
