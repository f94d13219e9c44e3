"""Synthetic data: Gaussian mixtures."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import plain_number, whole_number
from tightframe.data.dataset import Dataset


def gaussian_mixture(
    num_classes: int = 10,
    dim: int = 32,
    train_per_class: int = 100,
    *,
    test_per_class: int = 100,
    separation: float = 4.0,
    noise: float = 1.0,
    means: ArrayLike | None = None,
    seed: int = 0,
) -> Dataset:
    """Draw a data set from a mixture of spherical Gaussians, one a class.

    A sample of class k is ``separation * means[k] + noise * N(0, I)``.

    Parameters
    ----------
    num_classes : int
        Number of classes K, at least 2.
    dim : int
        Values of a sample, p.
    train_per_class, test_per_class : int
        Samples of every class. More training samples only add to fewer, and leave the test samples
        as they are.
    separation : float
        Factor of the means, at least 0: the length of each, where ``means`` is None.
    noise : float
        Standard deviation of every value around its mean, at least 0.
    means : array-like, shape (K, p), optional
        One row a class, for example the transposed class means of a `Solution`. None: directions
        drawn uniformly from the unit sphere, nearly orthogonal where p is large.
    seed : int

    Returns
    -------
    Dataset
        Named ``gaussian_mixture``, samples in the order of the classes.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    num_classes = whole_number("num_classes", num_classes, 2)
    dim = whole_number("dim", dim, 1)
    seed = whole_number("seed", seed, 0)
    sizes = (
        whole_number("train_per_class", train_per_class, 1),
        whole_number("test_per_class", test_per_class, 1),
    )
    length = _not_negative("separation", separation)
    deviation = _not_negative("noise", noise)
    centres = length * (
        _directions(num_classes, dim, seed)
        if means is None
        else _checked_means(means, num_classes, dim)
    )
    parts = []
    for part, size in enumerate(sizes):
        inputs = np.empty((num_classes, size, dim), dtype=np.float32)
        for k in range(num_classes):
            generator = np.random.default_rng((seed, 1 + part, k))
            with np.errstate(over="ignore"):  # looked for below
                inputs[k] = centres[k] + deviation * generator.standard_normal((size, dim))
        if not np.isfinite(inputs).all():
            raise ValueError("separation, noise, means: samples are not finite in float32")
        parts.append((inputs.reshape(-1, dim), np.repeat(np.arange(num_classes), size)))
    return Dataset("gaussian_mixture", num_classes, *parts[0], *parts[1])


def _directions(num_classes: int, dim: int, seed: int) -> NDArray[np.float64]:
    means = np.random.default_rng((seed, 0)).standard_normal((num_classes, dim))
    unit: NDArray[np.float64] = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def _checked_means(means: ArrayLike, num_classes: int, dim: int) -> NDArray[np.float64]:
    array = np.asarray(means)
    if array.shape != (num_classes, dim) or array.dtype.kind not in "iuf":
        raise ValueError(
            f"means: got shape {array.shape} of {array.dtype}, need ({num_classes}, {dim}) numbers"
        )
    if not np.isfinite(array).all():
        raise ValueError("means: NaN or infinite, need finite numbers")
    return array.astype(np.float64)


def _not_negative(name: str, value: Any) -> float:
    value = plain_number(value)
    real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if not real or not 0 <= value < math.inf:
        raise ValueError(f"{name}: got {value!r}, need a finite number, at least 0")
    return float(value)
