"""`Answers`: what a classifier answers on labelled samples, tallied by class.

Needs NumPy only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.saved import kept
from tightframe.shown import record

Labels = NDArray[np.int64]

#: A class is lost below this share of right answers.
LOST_BELOW = 0.5

#: A class that is not lost is weak below this training accuracy.
WEAK_BELOW = 0.9

#: Entries of a block of logits (16 MiB).
BLOCK_ENTRIES = 2**21

#: Wrong answers that wait before they are counted together.
_WAITING = 2**16

#: Rounding of a logit, over its size and the square root of its number of terms.
ROUNDING = 8 * np.finfo(np.float64).eps


@kept
@record
class Answers:
    """Accuracies, wrong answers and margins of labelled samples by class, batch by batch.

    A sample's margin is its own logit minus the largest other one, whose class is its strongest
    rival. An answer is right where the margin is above rounding: ties are wrong. Memory is 12
    bytes a sample, and what different wrong answers take: nothing is K x K.

    Parameters
    ----------
    num_classes : int
        Number of classes K.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._labels: list[NDArray[np.int32]] = []
        self._margins: list[Array] = []
        # Class times K plus answer, and how often; wrong answers wait until they are many.
        self._pairs = np.zeros((2, 0), dtype=np.int64)
        self._waiting: list[Labels] = []
        self._num_waiting = 0

    def _packed(self) -> dict[str, Any]:
        none = [np.zeros(0)]
        return {
            "num_classes": self.num_classes,
            "labels": self._all_labels(),
            "margins": np.concatenate(self._margins or none),
            "pairs": self._add_waiting(),
        }

    @classmethod
    def _unpacked(cls, fields: dict[str, Any]) -> Answers:
        found = cls(fields["num_classes"])
        found._labels, found._margins = [fields["labels"]], [fields["margins"]]
        found._pairs = fields["pairs"]
        return found

    def add(
        self, labels: Labels, rivals: Labels, margins: Array, slack: Array | float = 0.0
    ) -> None:
        """Add samples, shape (B,) each: their class, strongest rival, margin, and its rounding."""
        self._labels.append(labels.astype(np.int32))
        self._margins.append(margins)
        wrong = ~(margins > slack)
        self._wait(_counted(labels[wrong] * self.num_classes + rivals[wrong]))

    def _wait(self, pairs: Labels) -> None:
        if not pairs.size:
            return
        self._waiting.append(pairs)
        self._num_waiting += pairs.shape[1]
        if self._num_waiting > max(_WAITING, self._pairs.shape[1]):
            self._add_waiting()

    def _add_waiting(self) -> Labels:
        if self._waiting:
            self._pairs = _counted(*np.concatenate([self._pairs, *self._waiting], axis=1))
            self._waiting, self._num_waiting = [], 0
        return self._pairs

    def merge(self, other: Answers) -> Answers:
        """Add what another one tallied, and return this one."""
        self._labels += other._labels
        self._margins += other._margins
        self._wait(other._add_waiting())
        return self

    def __len__(self) -> int:
        return sum(map(len, self._labels))

    @property
    def counts(self) -> Labels:
        """Samples of every class, shape (K,)."""
        return np.bincount(self._all_labels(), minlength=self.num_classes)

    @property
    def wrong(self) -> tuple[Labels, Labels, Labels]:
        """Wrong answers: class, answer, and how many samples; one entry a pair that occurs."""
        pairs, times = self._add_waiting()
        return pairs // self.num_classes, pairs % self.num_classes, times

    @property
    def accuracy(self) -> Array:
        """Share of right answers of every class, shape (K,); NaN without samples."""
        classes, _, times = self.wrong
        missed = np.bincount(classes, times, minlength=self.num_classes)
        with np.errstate(invalid="ignore"):
            accuracy: Array = 1 - missed / self.counts
        return accuracy

    @property
    def num_lost(self) -> int:
        """Number of classes with samples that have an accuracy below `LOST_BELOW`."""
        return int((self.accuracy < LOST_BELOW).sum())

    @property
    def rival(self) -> Labels:
        """Most frequent wrong answer of every class, shape (K,); -1 where none is wrong."""
        classes, answers, times = self.wrong
        rivals = np.full(self.num_classes, -1, dtype=np.int64)
        order = np.lexsort(
            (-answers, times)
        )  # the last wins: the most frequent, of those the first
        rivals[classes[order]] = answers[order]
        return rivals

    @property
    def median_margin(self) -> Array:
        """Median margin of every class, shape (K,); NaN without samples."""
        medians = np.full(self.num_classes, np.nan)
        labels = self._all_labels()
        if len(labels):
            margins = np.concatenate(self._margins)
            order = np.lexsort((margins, labels))
            margins, counts = margins[order], self.counts
            seen = np.flatnonzero(counts)
            last = np.cumsum(counts)[seen]
            low, high = last - counts[seen] // 2 - 1, last - (counts[seen] + 1) // 2
            medians[seen] = (margins[low] + margins[high]) / 2
        return medians

    def _all_labels(self) -> NDArray[np.int32]:
        return np.concatenate([np.zeros(0, dtype=np.int32), *self._labels])


def _counted(values: Labels, times: Labels | None = None) -> Labels:
    """Return the different values in order, and how often each occurs, shape (2, P)."""
    values, place = np.unique(values, return_inverse=True)
    return np.stack([values, np.bincount(place, times, len(values)).astype(np.int64)])


def answers_of(features: Array, labels: Labels, weight: Array, bias: Array | None) -> Answers:
    """Tally the answers of a linear classifier.

    Parameters
    ----------
    features : ndarray, shape (N, D)
    labels : ndarray, shape (N,)
    weight : ndarray, shape (K, D)
    bias : ndarray, shape (K,), or None
    """
    found = Answers(len(weight))
    longest = float(np.linalg.norm(weight, axis=1).max())
    lift = 0.0 if bias is None else float(np.abs(bias).max())
    step = max(1, BLOCK_ENTRIES // len(weight))
    for start in range(0, len(features), step):
        x, y = features[start : start + step], labels[start : start + step]
        scores = x @ weight.T
        if bias is not None:
            scores += bias
        slack = ROUNDING * math.sqrt(x.shape[1]) * (np.linalg.norm(x, axis=1) * longest + lift)
        rows = np.arange(len(x))
        own = scores[rows, y]
        scores[rows, y] = -np.inf
        rivals = scores.argmax(axis=1)
        found.add(y, rivals, own - scores[rows, rivals], slack)
    return found
