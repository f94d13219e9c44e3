"""Class means, classifier and some features as one table of vectors with names: an embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.capture.sample import Sample
from tightframe.checks import MAX_DENSE_CLASSES
from tightframe.figures.model import evenly
from tightframe.metrics.report import CollapseReport

#: What is known of every vector.
COLUMNS = ("class", "vector", "samples", "state")

#: Entries of an embedding, at most: it is written as text.
MOST_ENTRIES = 5_000_000


@dataclass(frozen=True, eq=False)
class Embedding:
    """Vectors with names.

    Attributes
    ----------
    vectors : ndarray, shape (V, D), float32
    rows : list of list
        What is known of each, by `columns`.
    columns : tuple of str
    """

    vectors: NDArray[np.float32]
    rows: list[list[Any]]
    columns: tuple[str, ...] = COLUMNS

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Return columns and rows of one table, the vectors' entries among them."""
        names = [*self.columns, *(f"d{i}" for i in range(self.vectors.shape[1]))]
        pairs = zip(self.rows, self.vectors.tolist(), strict=True)
        return names, [[*row, *entries] for row, entries in pairs]


def embedding_of(report: CollapseReport, sample: Sample) -> Embedding | None:
    """Return the class means and classifier rows of a report, and features of its samples.

    Means and features are less the global mean, so that they lie about the origin as the
    classifier does. Rows of the classifier have the length of the class means together: the two
    have scales of their own.

    Returns
    -------
    Embedding or None
        None of more than 4096 classes, or if there would be more than `MOST_ENTRIES` numbers
        without any features.
    """
    if len(report.counts) > MAX_DENSE_CLASSES:
        return None
    means, weight, _ = report.vectors()
    k, dim = means.shape
    if 2 * k * dim > MOST_ENTRIES:
        return None
    present = report.counts > 0
    center = means[present].mean(axis=0)
    centered = np.where(present[:, None], means - center, 0.0)
    size = np.linalg.norm(weight)
    scaled = weight * (np.linalg.norm(centered) / size if size > 0 else 1.0)
    features, labels = sample.arrays()
    chosen = evenly(len(labels), MOST_ENTRIES // dim - 2 * k)
    features, labels = features[chosen], labels[chosen]
    rows = {row.label: row for row in report.class_table()}

    def known(label: int, vector: str) -> list[Any]:
        row = rows.get(label)
        state = "" if row is None else (row.accuracy_state or row.state)
        return [_plain(report.class_name(label)), vector, int(report.counts[label]), state]

    parts = [centered[present], scaled]
    if len(labels):
        parts.append(features - center)
    return Embedding(
        np.concatenate(parts).astype(np.float32),
        [
            *(known(label, "class mean") for label in np.flatnonzero(present).tolist()),
            *(known(label, "classifier") for label in range(k)),
            *(known(label, "sample") for label in labels.tolist()),
        ],
    )


def _plain(name: str) -> str:
    """Return a name without what ends cells and lines of the files that it is written to."""
    return " ".join(name.split())
