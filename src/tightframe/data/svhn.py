"""SVHN's cropped house numbers: the two MATLAB files of their authors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tightframe.array_files import read_named
from tightframe.data.cifar import IMAGE_SHAPE
from tightframe.data.dataset import Samples, as_labels, check_range

#: Training and test samples.
FILES = ("train_32x32.mat", "test_32x32.mat")

_CHANNELS, _HEIGHT, _WIDTH = IMAGE_SHAPE


def read_svhn(paths: Sequence[Path]) -> tuple[Samples, Samples]:
    """Read training and test samples from the files, in the order of `FILES`.

    Raises
    ------
    ValueError
        If a file is missing or not in this format; the message names it.
    """
    train, test = (_samples(path) for path in paths)
    return train, test


def _samples(path: Path) -> Samples:
    name = os.fspath(path)
    arrays = read_named(path)
    images, labels = arrays.get("X"), arrays.get("y")
    if (
        images is None
        or images.dtype != np.uint8
        or images.shape[:-1]
        != (
            _HEIGHT,
            _WIDTH,
            _CHANNELS,
        )
    ):
        raise ValueError(f"{name}: 'X' is no array of uint8 of shape (32, 32, 3, N)")
    if labels is None or labels.shape != images.shape[-1:]:
        raise ValueError(f"{name}: 'y' does not hold {images.shape[-1]} labels")
    digits = as_labels(f"{name}: 'y'", labels)
    check_range(f"{name}: digit", digits - 1, 10)
    # MATLAB counts from one, and the digit 0 is the tenth class there.
    return Samples(np.ascontiguousarray(np.moveaxis(images, (2, 3), (1, 0))), digits % 10)
