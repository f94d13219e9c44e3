"""What a trained network does, counted from its record: the truth that the library is held to.

Nothing of the library is used here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.practice.networks import SMALL_SHARE, Network

Array = NDArray[np.float64]

LOST = 0.5


@dataclass(frozen=True)
class Facts:
    """Counts of a network's right answers, one number a class.

    Attributes
    ----------
    counts : ndarray, shape (K,)
        Training samples.
    accuracy, recall : ndarray, shape (K,)
        Share of the training and of the held-out samples that are right.
    margins : ndarray, shape (K,)
        Own minus largest other logit, at the class mean; nats.
    """

    counts: NDArray[np.int64]
    accuracy: Array
    recall: Array
    margins: Array

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Which classes have most of their training samples wrong."""
        return self.accuracy < LOST

    @property
    def small(self) -> NDArray[np.bool_]:
        """Which classes have at most a fifth of the largest one's samples."""
        return self.counts * SMALL_SHARE <= self.counts.max()

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the held-out recalls."""
        return float(self.recall.mean())


def read(folder: Path, network: Network) -> dict[str, Any]:
    """Return the arrays of a network's record."""
    with np.load(folder / network.file) as found:
        return dict(found)


def facts(record: dict[str, Any]) -> Facts:
    """Count what a record says."""
    labels, classes = record["labels"], len(record["mean_logits"])
    return Facts(
        counts=np.bincount(labels, minlength=classes),
        accuracy=shares(record["predicted"], labels, classes),
        recall=shares(record["held_out_predicted"], record["held_out_labels"], classes),
        margins=margins(record["mean_logits"].astype(np.float64)),
    )


def shares(predicted: NDArray[Any], labels: NDArray[Any], classes: int) -> Array:
    """Return the share of every class's samples that are predicted right."""
    right = np.bincount(labels[predicted == labels], minlength=classes)
    return right / np.bincount(labels, minlength=classes)


def margins(scores: Array) -> Array:
    """Return own minus largest other entry of every row, shape (K, K)."""
    rivals = scores.copy()
    np.fill_diagonal(rivals, -np.inf)
    own: Array = np.diagonal(scores) - rivals.max(axis=1)
    return own
