"""Data sets from a user's own arrays: an .npz file, or a folder of .npy and .npz files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.data.dataset import Dataset, Samples, as_labels, pool_dataset, split_dataset
from tightframe.files import read_npy, read_npz

_SPLIT = ("train_inputs", "train_labels", "test_inputs", "test_labels")
_POOL = ("inputs", "labels")


def load_arrays(
    path: str | os.PathLike[str],
    *,
    train_per_class: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set from arrays on disk, without pickle.

    Parameters
    ----------
    path : path-like
        An ``.npz`` file with the arrays ``train_inputs``, ``train_labels``, ``test_inputs`` and
        ``test_labels``, or ``inputs`` and ``labels``, which a seed splits. Or a folder with these
        as ``.npy`` files, or as ``train.npz`` and ``test.npz`` with ``inputs`` and ``labels`` each.

        Inputs are vectors (N, p), grey images (N, H, W) or images (N, C, H, W); uint8 is divided by
        255. Labels are whole numbers, 0 to K - 1, and every class has training samples.
    train_per_class : int, optional
        Training samples of every class. None: all of those that come as training samples, or four
        fifths of every class where the seed splits.
    seed : int

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If files or arrays are missing, do not fit together, or are not what is said above; the
        message names file and array.
    """
    name = os.fspath(path)
    arrays = _read_folder(Path(path)) if Path(path).is_dir() else read_npz(path)
    keys = _SPLIT if all(key in arrays for key in _SPLIT) else _POOL
    if not all(key in arrays for key in keys):
        raise ValueError(
            f"{name}: has {', '.join(sorted(arrays)) or 'no arrays'}; need {', '.join(_SPLIT)}, "
            f"or {' and '.join(_POOL)}"
        )
    samples = [
        _samples(f"{name}: {inputs}", arrays[inputs], f"{name}: {labels}", arrays[labels])
        for inputs, labels in zip(keys[::2], keys[1::2], strict=True)
    ]
    shape = samples[0].inputs.shape[1:]
    if samples[-1].inputs.shape[1:] != shape:
        raise ValueError(
            f"{name}: test_inputs: got samples of shape {samples[-1].inputs.shape[1:]}, "
            f"train_inputs has {shape}"
        )
    num_classes = _count_classes(f"{name}: {keys[1]}", samples[0].labels)
    if keys == _POOL:
        return pool_dataset(
            name,
            num_classes,
            samples[0],
            input_shape=shape,
            train_per_class=train_per_class,
            seed=seed,
        )
    return split_dataset(
        name,
        num_classes,
        samples[0],
        samples[1],
        input_shape=shape,
        train_per_class=train_per_class,
        seed=seed,
    )


def _read_folder(folder: Path) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for part in ("train", "test"):
        if (folder / f"{part}.npz").is_file():
            content = read_npz(folder / f"{part}.npz")
            arrays |= {f"{part}_{key}": content[key] for key in _POOL if key in content}
    for key in (*_SPLIT, *_POOL):
        if (file := folder / f"{key}.npy").is_file():
            arrays[key] = read_npy(file, mapped=True)
    return arrays


def _samples(
    inputs_name: str, inputs: NDArray[Any], labels_name: str, labels: NDArray[Any]
) -> Samples:
    if inputs.ndim == 3:
        inputs = inputs[:, None]
    if inputs.ndim not in (2, 4) or inputs.size == 0:
        raise ValueError(
            f"{inputs_name}: got shape {inputs.shape}, need (N, p), (N, H, W) or (N, C, H, W), "
            "not empty"
        )
    colours = (1, 3, 4)
    if inputs.ndim == 4 and inputs.shape[3] in colours and inputs.shape[1] not in colours:
        raise ValueError(
            f"{inputs_name}: got shape {inputs.shape}, which looks like (N, H, W, C); need "
            "(N, C, H, W), as x.transpose(0, 3, 1, 2) gives"
        )
    numbers = as_labels(labels_name, labels)
    if len(numbers) != len(inputs):
        raise ValueError(f"{labels_name}: got {len(numbers)}, need {len(inputs)}, one a sample")
    return Samples(_plain(inputs), numbers)


def _plain(inputs: NDArray[Any]) -> NDArray[Any]:
    """Return a mapped array of float32 in memory: nothing later would copy it off the disk."""
    mapped = isinstance(inputs, np.memmap) or not inputs.flags.writeable
    return np.array(inputs) if mapped and inputs.dtype == np.float32 else inputs


def _count_classes(name: str, labels: NDArray[np.int64]) -> int:
    num_classes = int(labels.max()) + 1
    # Every class has a sample, so there are no more classes than samples: `bincount` stays small.
    present = np.unique(labels)
    if len(present) < num_classes:
        k = int(np.argmax(present != np.arange(len(present))))
        raise ValueError(
            f"{name}: the largest label is {num_classes - 1}, but no sample has label {k}"
        )
    if num_classes < 2:
        raise ValueError(f"{name}: got one class, need at least 2")
    return num_classes
