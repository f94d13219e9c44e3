"""`Dataset`: samples in memory, split into training and test samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import number_of, whole_number
from tightframe.data.rows import as_rows
from tightframe.figures.model import evenly
from tightframe.problem.class_names import given_names
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame, plot

if TYPE_CHECKING:
    import pandas as pd


def require_dataset(dataset: Any) -> None:
    """Refuse what is no `Dataset`."""
    if not isinstance(dataset, Dataset):
        raise ValueError(f"dataset: got {type(dataset).__name__}, need a tightframe.data.Dataset")


#: Classes that have a row in a table, at most.
MOST_ROWS = 12


@dataclass(frozen=True, eq=False)
class Dataset(Shown, Saved):
    """A classification data set in memory, split into training and test samples.

    Attributes
    ----------
    name : str
        Name in the registry, or the path the data came from.
    num_classes : int
        Number of classes K; the labels are 0 to K - 1.
    train_inputs : ndarray, shape (N, p), float32
        One row a sample.
    train_labels : ndarray, shape (N,), int64
    test_inputs : ndarray, shape (N_test, p), float32
    test_labels : ndarray, shape (N_test,), int64
    input_shape : tuple of int
        What a row holds: ``(p,)`` for vectors, the default; ``(C, H, W)`` for images, to which a
        network that wants images reshapes the rows. Its product is p.
    class_names : tuple of str or None
        What the classes are called, in class order.

    Raises
    ------
    ValueError
        If shapes or types are others than these, or a label is not one of 0 to K - 1.
    """

    name: str
    num_classes: int
    train_inputs: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_inputs: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    input_shape: tuple[int, ...] = ()
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        whole_number("num_classes", self.num_classes, 1)
        for part in ("train", "test"):
            inputs, labels = getattr(self, f"{part}_inputs"), getattr(self, f"{part}_labels")
            if inputs.ndim != 2 or inputs.dtype != np.float32:
                raise ValueError(
                    f"{part}_inputs: got shape {inputs.shape} of {inputs.dtype}, "
                    "need (N, p) float32"
                )
            if labels.shape != (len(inputs),) or labels.dtype != np.int64:
                raise ValueError(
                    f"{part}_labels: got shape {labels.shape} of {labels.dtype}, "
                    f"need ({len(inputs)},) int64, one a row of {part}_inputs"
                )
            check_range(f"{part}_labels", labels, self.num_classes)
        width = self.train_inputs.shape[1]
        if self.test_inputs.shape[1] != width:
            raise ValueError(
                f"test_inputs: got {self.test_inputs.shape[1]} values a row, "
                f"train_inputs has {width}"
            )
        shape = tuple(whole_number("input_shape", size, 1) for size in self.input_shape or (width,))
        if math.prod(shape) != width:
            raise ValueError(f"input_shape: got {shape}, but a row has {width} values")
        object.__setattr__(self, "input_shape", shape)  # the class is frozen
        names = given_names(
            self.class_names, self.num_classes, f"need one a class, {self.num_classes}"
        )
        object.__setattr__(self, "class_names", names)

    def __repr__(self) -> str:
        sizes = f"{len(self.train_labels)} training and {len(self.test_labels)} test samples"
        shape = "x".join(map(str, self.input_shape))
        return f"Dataset({self.name!r}, {self.num_classes} classes, {sizes} of {shape})"

    def _blocks(self) -> Iterator[Block]:
        from tightframe.figures.table import Column, Table

        yield repr(self)
        most = np.argsort(-self.train_counts, kind="stable")
        shown = [most[i] for i in evenly(len(most), MOST_ROWS)]
        names = self.class_names or range(self.num_classes)
        rows = [[str(names[k]), int(self.train_counts[k]), int(self.test_counts[k])] for k in shown]
        note = f"{len(rows)} of {self.num_classes} classes." if len(rows) < len(most) else ""
        columns: list[str | Column] = [
            Column("class", align="left", names=True),
            "training",
            "test",
        ]
        yield Table("Samples, most first", columns, rows, note)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a class: its samples, see `tightframe.shown.frame`."""
        names = {} if self.class_names is None else {"name": self.class_names}
        counts = {"training": self.train_counts, "test": self.test_counts}
        return frame({"class": np.arange(self.num_classes), **names, **counts})

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the training samples of every class, see `tightframe.shown.plot`."""
        from tightframe.figures.model import Bars, Chart

        places = [float(k) for k in range(self.num_classes)]
        bars = [Bars("", places, self.train_counts.tolist(), "measured")]
        title = f"{len(self.train_labels)} training samples of {self.name}"
        chart = Chart(title, "class", "samples", [], bars=bars, whole=("x",), legend="none")
        return plot(chart, ax)

    @property
    def train_counts(self) -> NDArray[np.int64]:
        """Training samples of every class, shape (K,)."""
        return np.bincount(self.train_labels, minlength=self.num_classes)

    @property
    def test_counts(self) -> NDArray[np.int64]:
        """Test samples of every class, shape (K,)."""
        return np.bincount(self.test_labels, minlength=self.num_classes)


class Samples(NamedTuple):
    """Samples as a file holds them: inputs (N, ...) of any numeric type, labels (N,) int64."""

    inputs: NDArray[Any]
    labels: NDArray[np.int64]


def split_dataset(
    name: str,
    num_classes: int,
    train: Samples,
    test: Samples,
    *,
    input_shape: tuple[int, ...],
    train_per_class: int | None,
    seed: int,
    class_names: tuple[str, ...] | None = None,
) -> Dataset:
    """Make a `Dataset` of samples that come split; the test samples are kept as they are.

    Training samples are chosen before they become float32, which is four times as large as the
    bytes of an image.

    Raises
    ------
    ValueError
        If a class has fewer than ``train_per_class`` training samples.
    """
    if train_per_class is not None:
        wanted = whole_number("train_per_class", train_per_class, 1)
        available = np.bincount(train.labels, minlength=num_classes)
        k = int(np.argmin(available))
        if wanted > available[k]:
            raise ValueError(
                f"train_per_class: got {wanted}; class {k} of {name} has {available[k]} training "
                "samples"
            )
        if wanted * num_classes < len(train.labels):
            chosen = pick(train.labels, np.full(num_classes, wanted), seed)
            train = Samples(train.inputs[chosen], train.labels[chosen])
    return Dataset(
        name,
        num_classes,
        as_rows(f"{name}: train_inputs", train.inputs),
        train.labels,
        as_rows(f"{name}: test_inputs", test.inputs),
        test.labels,
        input_shape,
        class_names,
    )


def pool_dataset(
    name: str,
    num_classes: int,
    pool: Samples,
    *,
    input_shape: tuple[int, ...],
    train_per_class: int | None,
    seed: int,
) -> Dataset:
    """Make a `Dataset` of samples that come in one piece, by a stratified random split.

    ``train_per_class`` samples of every class are for training, four fifths of each class where it
    is None; all others are for testing, at least one of each class.

    Raises
    ------
    ValueError
        If a class has too few samples.
    """
    available = np.bincount(pool.labels, minlength=num_classes)
    k = int(np.argmin(available))
    if train_per_class is None:
        if available[k] < 2:
            raise ValueError(
                f"data: class {k} of {name} has {number_of(available[k], 'sample')}, need at "
                "least 2: one for "
                "training, one for testing"
            )
        wanted = np.maximum(available * 4 // 5, 1)
    else:
        each = whole_number("train_per_class", train_per_class, 1)
        if each >= available[k]:
            raise ValueError(
                f"train_per_class: got {each}; class {k} of {name} has "
                f"{number_of(available[k], 'sample')}, "
                "and at least one must stay for testing"
            )
        wanted = np.full(num_classes, each)
    train = np.zeros(len(pool.labels), dtype=bool)
    train[pick(pool.labels, wanted, seed)] = True
    return Dataset(
        name,
        num_classes,
        as_rows(f"{name}: inputs", pool.inputs[train]),
        pool.labels[train],
        as_rows(f"{name}: inputs", pool.inputs[~train]),
        pool.labels[~train],
        input_shape,
    )


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


def as_labels(name: str, labels: ArrayLike) -> NDArray[np.int64]:
    """Return class labels as int64 of shape (N,); a column (N, 1) is taken as well.

    Raises
    ------
    ValueError
        If they are not whole numbers of an integer type, one a sample, at least 0.
    """
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: got shape {array.shape} of {array.dtype}, need (N,) of an integer type"
        )
    check_range(name, array, 2**31)
    return array.astype(np.int64)


def check_range(name: str, labels: NDArray[Any], num_classes: int) -> None:
    """Raise a ValueError that names the first label outside 0 to ``num_classes`` - 1."""
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        i = int(np.argmax(outside))
        raise ValueError(f"{name}: got {labels[i]} at {i}, need 0 to {num_classes - 1}")
