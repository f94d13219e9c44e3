"""How often a head is right, class by class.

It needs NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.saved import kept
from tightframe.shown import record

Array = NDArray[np.float64]

#: Logits in one block.
BLOCK = 2**20


@kept
@record
@dataclass(frozen=True, eq=False)
class Scores:
    """Accuracy of a head on some samples, by class.

    Attributes
    ----------
    recalls : ndarray, shape (K,)
        Share of a class's samples whose own logit is above all others; nan for classes without
        samples.
    accuracy : float
        The same share of all samples.
    """

    recalls: Array
    accuracy: float

    @classmethod
    def of(cls, logits: Array, labels: NDArray[np.int64]) -> Scores:
        """Score logits, shape (N, K), against labels, shape (N,). A tie is not right."""
        return cls._of(own_margins(logits, labels) > 0, labels, logits.shape[1])

    @classmethod
    def of_head(
        cls, features: Array, labels: NDArray[np.int64], weight: Array, bias: Array | None
    ) -> Scores:
        """Score a head on features, shape (N, D), in blocks: no N x K array is made."""
        right = np.zeros(len(labels), dtype=bool)
        rows = max(1, BLOCK // len(weight))
        for start in range(0, len(labels), rows):
            part = slice(start, start + rows)
            logits = features[part] @ weight.T
            if bias is not None:
                logits += bias
            right[part] = own_margins(logits, labels[part]) > 0
        return cls._of(right, labels, len(weight))

    @classmethod
    def _of(cls, right: NDArray[np.bool_], labels: NDArray[np.int64], classes: int) -> Scores:
        counts = np.bincount(labels, minlength=classes)
        hits = np.bincount(labels, weights=right, minlength=classes)
        recalls = np.full(classes, np.nan)
        np.divide(hits, counts, out=recalls, where=counts > 0)
        return cls(recalls, float(right.mean()))

    @property
    def balanced(self) -> float:
        """Balanced accuracy: the mean recall of the classes that have samples."""
        return float(np.nanmean(self.recalls))

    @property
    def smallest(self) -> float:
        """The smallest recall of a class that has samples."""
        return float(np.nanmin(self.recalls))

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready; None for classes without samples."""
        recalls = [None if np.isnan(recall) else float(recall) for recall in self.recalls]
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced,
            "smallest": self.smallest,
            "recalls": recalls,
        }


def own_margins(logits: Array, labels: NDArray[np.int64]) -> Array:
    """Return own minus largest other logit of every sample, shape (N,)."""
    rows = np.arange(len(labels))
    own = logits[rows, labels]
    others = logits.copy()
    others[rows, labels] = -np.inf
    margins: Array = own - others.max(axis=1)
    return margins
