"""Data sets by name, split once and for all by a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.problem import whole_number


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set in memory, split into training and test samples.

    Attributes
    ----------
    name : str
        Name in the registry.
    num_classes : int
        Number of classes K; the labels are 0 to K - 1.
    train_inputs : ndarray, shape (N, p), float32
        One row a sample.
    train_labels : ndarray, shape (N,), int64
    test_inputs : ndarray, shape (N_test, p), float32
    test_labels : ndarray, shape (N_test,), int64
    """

    name: str
    num_classes: int
    train_inputs: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_inputs: NDArray[np.float32]
    test_labels: NDArray[np.int64]

    @property
    def train_counts(self) -> NDArray[np.int64]:
        """Training samples of every class, shape (K,)."""
        return np.bincount(self.train_labels, minlength=self.num_classes)

    @property
    def test_counts(self) -> NDArray[np.int64]:
        """Test samples of every class, shape (K,)."""
        return np.bincount(self.test_labels, minlength=self.num_classes)


def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    # Imported here: scikit-learn takes a second, and only this data set needs it.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16.0).astype(np.float32), labels.astype(np.int64)


@dataclass(frozen=True)
class _Source:
    read: Callable[[], tuple[NDArray[np.float32], NDArray[np.int64]]]
    train_per_class: int


#: Data sets by name: how to read all samples, and how many a class go to the training pool.
#: digits: 1797 images of 8 x 8 grey values 0..16, divided by 16; its smallest class has 174.
_SOURCES = {"digits": _Source(_digits, train_per_class=140)}


def names() -> tuple[str, ...]:
    """Return the names that `load` knows."""
    return tuple(_SOURCES)


def load(name: str, *, train_per_class: int | None = None, seed: int = 0) -> Dataset:
    """Load a data set and split it, the same way for the same seed.

    The split is stratified: ``train_per_class`` random samples of every class are for training,
    all others for testing.

    Parameters
    ----------
    name : str
        One of `names`; ``"digits"`` comes with scikit-learn, 64 grey values in [0, 1], and has
        140 training samples a class.
    train_per_class : int, optional
        Training samples of every class; at least one sample of each stays for testing.
    seed : int
        Of the split.

    Returns
    -------
    Dataset
        Float32 inputs and int64 labels, in the order of the source.

    Raises
    ------
    ValueError
        If the name is unknown or a class has too few samples.
    """
    if not isinstance(name, str) or name not in _SOURCES:
        raise ValueError(f"data: got {name!r}, allowed are {', '.join(_SOURCES)}")
    source = _SOURCES[name]
    wanted = source.train_per_class if train_per_class is None else train_per_class
    wanted = whole_number("train_per_class", wanted, 1)
    inputs, labels = source.read()
    num_classes = int(labels.max()) + 1
    available = np.bincount(labels, minlength=num_classes)
    k = int(np.argmin(available))
    if wanted >= available[k]:
        raise ValueError(
            f"train_per_class: got {wanted}; class {k} of {name} has {available[k]} samples, "
            "and at least one must stay for testing"
        )
    chosen = pick(labels, np.full(num_classes, wanted), seed)
    train = np.zeros(len(labels), dtype=bool)
    train[chosen] = True
    return Dataset(name, num_classes, inputs[train], labels[train], inputs[~train], labels[~train])


def pick(labels: NDArray[np.int64], counts: NDArray[Any], seed: int) -> NDArray[np.intp]:
    """Choose ``counts[k]`` random samples of every class k.

    Every class has its own generator, seeded by ``(seed, k)``: the choice in one class does not
    depend on the other counts, and a larger count only adds samples.

    Parameters
    ----------
    labels : ndarray, shape (N,), int64
    counts : ndarray, shape (K,)
        At most the samples there are.
    seed : int

    Returns
    -------
    ndarray, shape (sum of counts,)
        Indices in increasing order.
    """
    seed = whole_number("seed", seed, 0)
    parts = []
    for k, count in enumerate(counts):
        members = np.flatnonzero(labels == k)
        order = np.random.default_rng((seed, k)).permutation(len(members))
        parts.append(members[order[: int(count)]])
    return np.sort(np.concatenate(parts))
