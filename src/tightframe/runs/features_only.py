"""Measure saved features that come without a classifier: what class means and scatter say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.table import Column, Table
from tightframe.metrics import (
    ClassMoments,
    Decisions,
    cdnv,
    equiangularity,
    equinorm,
    nc1,
    nc1_quotient,
    nc2,
)
from tightframe.metrics.registry import CENTERINGS
from tightframe.metrics.snapshot import Snapshot
from tightframe.problem.labels import require_several_classes
from tightframe.runs.network_files import SavedNetwork
from tightframe.shown import record

#: Keys of the numbers, and what they are called.
_NAMES = {
    "nc1": "NC1, pinv(Sigma_B) Sigma_W",
    "nc1_quotient": "NC1, quotient of the traces",
    "cdnv": "CDNV, class-distance normalised variance",
    "nc2": "NC2, centred means to the simplex ETF",
    "equinorm": "spread of the centred means' lengths",
    "equiangularity": "spread of the centred means' cosines",
    "nearest_center_accuracy": "accuracy of the nearest class centre",
}


@record
@dataclass(frozen=True, eq=False)
class FeatureMeasurement:
    """What features and labels say by themselves.

    Attributes
    ----------
    num_samples : int
    counts : ndarray, shape (K,), int64
        Samples of every class; the numbers are of the classes that have some.
    numbers : dict of str to float
    class_names : tuple of str or None
    center : {"class", "sample"}
        The global mean that class means are less.
    """

    num_samples: int
    counts: NDArray[np.int64]
    numbers: dict[str, float]
    class_names: tuple[str, ...] | None
    center: str = "class"

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready (numbers that are not finite are left to the writer)."""
        return {
            "num_samples": self.num_samples,
            "counts": self.counts,
            **self.numbers,
            "center": self.center,
            "missing": np.flatnonzero(self.counts == 0),
            "class_names": self.class_names,
            "notes": [
                "there is no classifier: NC3, NC4 and the states of classes need one",
                *filter(None, [CENTERINGS[self.center]]),
            ],
        }

    def to_table(self) -> Table:
        """Return the numbers as a table."""
        rows = [[key, number, _NAMES[key]] for key, number in self.numbers.items()]
        classes = int((self.counts > 0).sum())
        title = f"{self.num_samples} samples of {classes} classes, no classifier"
        value = Column("value", align="right", format=".6g")
        note = f"NC3, NC4 and the states of classes need the classifier. {CENTERINGS[self.center]}"
        columns: list[str | Column] = ["metric", value, "what it is"]
        return Table(title, columns, rows, missing="-", note=note.strip())


def measure_features(network: SavedNetwork, *, center: str = "class") -> FeatureMeasurement:
    """Measure features and labels without a classifier.

    Parameters
    ----------
    network : SavedNetwork
    center : {"class", "sample"}
        As in `CollapseReport.measure`.

    Raises
    ------
    ValueError
        If fewer than two classes have samples, or an entry is not finite.
    """
    counts = np.bincount(network.labels, minlength=network.num_classes)
    require_several_classes(counts)
    present, own = np.unique(network.labels, return_inverse=True)
    moments = ClassMoments(max(len(present), 1)).update(network.features, own)
    decisions = Decisions(moments).update(network.features, own, decisions=own)
    centered = Snapshot.of(moments).vectors_from(center)
    numbers = {
        "nc1": nc1(moments, center=center),
        "nc1_quotient": nc1_quotient(moments, center=center),
        "cdnv": cdnv(moments),
        "nc2": nc2(moments, "etf", weighting=center),
        "equinorm": equinorm(centered),
        "equiangularity": equiangularity(centered),
        "nearest_center_accuracy": decisions.nearest_center_accuracy,
    }
    return FeatureMeasurement(moments.num_samples, counts, numbers, network.class_names, center)
