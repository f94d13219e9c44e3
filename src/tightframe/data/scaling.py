"""Values of inputs: rows of float32, images in [0, 1], standardised channels."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tightframe.data.dataset import Dataset

_CHUNK_VALUES = 2**22  # values in float64 at a time: 32 MiB


def as_rows(name: str, inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Return inputs as rows of finite float32; bytes, which images are, are scaled to [0, 1].

    Parameters
    ----------
    name : str
        What an error calls them.
    inputs : ndarray, shape (N, ...)
        Real numbers. uint8 is divided by 255; every other type keeps its values.

    Returns
    -------
    ndarray, shape (N, p), float32
        The array itself, reshaped, where it is float32.

    Raises
    ------
    ValueError
        If the values are not real numbers, or not finite in float32.
    """
    if inputs.dtype.kind not in "buif":
        raise ValueError(f"{name}: got {inputs.dtype}, need real numbers")
    rows = inputs.reshape(len(inputs), math.prod(inputs.shape[1:]))
    if rows.dtype == np.uint8:
        # With a dtype the division casts piece by piece: no float copy of the bytes.
        scaled: NDArray[np.float32] = np.divide(rows, np.float32(255), dtype=np.float32)
        return scaled
    with np.errstate(over="ignore"):
        rows = np.asarray(rows.astype(np.float32, copy=False))
    for block in _blocks(rows):
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            raise ValueError(f"{name}: NaN or infinite in float32, need finite values")
    return rows


def standardize(dataset: Dataset) -> Dataset:
    """Return the data set with every channel centred and scaled by training statistics.

    A channel is the C of ``input_shape`` = (C, H, W), so that images keep the relation between
    their pixels; of vectors, every one of the p values is a channel. Test samples are moved by the
    training samples' mean and standard deviation.

    Parameters
    ----------
    dataset : Dataset
        With at least one training sample.

    Returns
    -------
    Dataset
        Training inputs have mean 0 and standard deviation 1 (divided by the number of values, not
        by one less) in every channel. A channel that is constant in training is only centred, with
        a RuntimeWarning.

    Raises
    ------
    ValueError
        If there is no training sample.
    """
    if len(dataset.train_inputs) == 0:
        raise ValueError(f"dataset: {dataset.name} has no training sample to take statistics of")
    channels, pixels = dataset.input_shape[0], math.prod(dataset.input_shape[1:])
    train = dataset.train_inputs.reshape(-1, channels, pixels)
    test = dataset.test_inputs.reshape(-1, channels, pixels)
    count = len(train) * pixels
    # Two passes in float64: sums of squares would lose a small spread around a large mean.
    mean = sum(block.sum(axis=(0, 2), dtype=np.float64) for block in _blocks(train)) / count
    mean = mean[:, None]
    squares = sum(np.square(block - mean).sum(axis=(0, 2)) for block in _blocks(train))
    deviation = np.sqrt(squares / count)[:, None]
    # Below what float32 resolves at this mean, the spread is rounding.
    constant = deviation <= np.finfo(np.float32).eps * np.abs(mean)
    if constant.any():
        warnings.warn(
            f"{dataset.name}: {np.count_nonzero(constant)} of {channels} channels are constant in "
            "the training samples; they are centred, not scaled",
            RuntimeWarning,
            stacklevel=2,
        )
    deviation[constant] = 1.0

    def moved(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.empty_like(inputs)
        for block, result in zip(_blocks(inputs), _blocks(out), strict=True):
            result[...] = (block - mean) / deviation
        return out.reshape(-1, channels * pixels)

    return dataclasses.replace(dataset, train_inputs=moved(train), test_inputs=moved(test))


def _blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield views of some samples at a time, so that float64 needs little memory."""
    step = max(1, _CHUNK_VALUES // max(1, array[:1].size))
    for start in range(0, len(array), step):
        yield array[start : start + step]
