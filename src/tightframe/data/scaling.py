"""Values of inputs: rows of float32, images in [0, 1], standardised channels."""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
from numpy.typing import NDArray

from tightframe.data.dataset import Dataset, require_dataset
from tightframe.data.rows import row_blocks


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
    require_dataset(dataset)
    if len(dataset.train_inputs) == 0:
        raise ValueError(f"dataset: {dataset.name} has no training sample to take statistics of")
    channels, pixels = dataset.input_shape[0], math.prod(dataset.input_shape[1:])
    train = dataset.train_inputs.reshape(-1, channels, pixels)
    test = dataset.test_inputs.reshape(-1, channels, pixels)
    count = len(train) * pixels
    # Two passes in float64: sums of squares would lose a small spread around a large mean.
    mean = sum(block.sum(axis=(0, 2), dtype=np.float64) for block in row_blocks(train)) / count
    mean = mean[:, None]
    squares = sum(np.square(block - mean).sum(axis=(0, 2)) for block in row_blocks(train))
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
        for block, result in zip(row_blocks(inputs), row_blocks(out), strict=True):
            result[...] = (block - mean) / deviation
        return out.reshape(-1, channels * pixels)

    return dataclasses.replace(dataset, train_inputs=moved(train), test_inputs=moved(test))
