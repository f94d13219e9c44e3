"""Inputs as one flat float32 row a sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    pass


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
    for block in row_blocks(rows):
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            raise ValueError(f"{name}: NaN or infinite in float32, need finite values")
    return rows


def row_blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield views of some samples at a time, so that float64 needs little memory."""
    step = max(1, _CHUNK_VALUES // max(1, array[:1].size))
    for start in range(0, len(array), step):
        yield array[start : start + step]
