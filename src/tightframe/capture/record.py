"""`TrainingRecord`: what a callback saw of a training, enough for a page without the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import number_of
from tightframe.metrics.classes import ClassTable
from tightframe.problem.problem import Problem
from tightframe.saved import Saved, kept
from tightframe.shown import Block, Shown, frame, record

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@kept
@record
class MeanLogits(NamedTuple):
    """Mean logits of every class at one measurement.

    Attributes
    ----------
    epoch : float
        Epochs of training done.
    step : int
    logits : ndarray, shape (K, K), float16
        Without bias, column k of class k.
    bias : ndarray, shape (K,), float32
    """

    epoch: float
    step: int
    logits: NDArray[np.float16]
    bias: NDArray[np.float32]

    @classmethod
    def of(cls, epoch: float, step: int, logits: Array, bias: Array) -> MeanLogits:
        """Return them in few digits; no softmax tells logits apart that are cut at the largest."""
        largest = np.finfo(np.float16).max
        kept = np.clip(logits, -largest, largest).astype(np.float16)
        return cls(epoch, step, kept, bias.astype(np.float32))


@dataclass(frozen=True, eq=False)
class TrainingRecord(Shown, Saved):
    """What a callback saw of somebody's training; `save` keeps it, `load` reads it again.

    `tightframe.report.write_training` makes a page of it.

    Attributes
    ----------
    network : str
        Class of the module that was trained.
    measured_on : str
        Which data, and when last, in words.
    on_training_set : bool or None
        Whether those were the training set; None where a loader was given, which may be it.
    history : tuple of dict
        One row a measurement: epoch, step and the numbers.
    classes : ClassTable
        What the network does with every class at the last measurement, worst first.
    moments : tuple of MeanLogits
        Of some measurements, the last among them; none of more than 128 classes or if a class has
        no samples.
    counts : ndarray of int, shape (K,)
    class_means, weight : ndarray, shape (K, D)
        At the last measurement; the classifier as the network applies it.
    bias : ndarray, shape (K,), or None
        None if the head has none.
    features : ndarray, shape (S, D), float32
        Of some samples of every class, up to 2,000 together; none of more classes.
    labels : ndarray of int, shape (S,)
        Theirs.
    problem : Problem or None
        What the network was said to be trained as; None if nobody said.
    notes : tuple of str
        What must be known of the head that was measured.
    """

    network: str
    measured_on: str
    on_training_set: bool | None
    history: tuple[dict[str, Any], ...]
    classes: ClassTable
    moments: tuple[MeanLogits, ...]
    counts: NDArray[np.int64]
    class_means: Array
    weight: Array
    bias: Array | None
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    problem: Problem | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.counts)

    def to_frame(self) -> pd.DataFrame:
        """Return the history, see `tightframe.shown.frame`."""
        return frame(list(self.history))

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the accuracies of the worst classes, see `tightframe.shown.plot`."""
        return self.classes.plot(ax)

    def _blocks(self) -> Iterator[Block]:
        yield f"{self.network}, measured on {self.measured_on}."
        yield self.classes.to_table()

    def __repr__(self) -> str:
        return (
            f"TrainingRecord({self.network}, {number_of(len(self.history), 'measurement')}, "
            f"{self.num_classes} classes; {self.classes.headline.rstrip('.')})"
        )
