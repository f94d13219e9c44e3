"""Evidence: what remedies did to networks that were trained again, from the project's benchmark.

``evidence.csv`` beside this module is ``benchmarks/results/practice_remedies.csv``, which `make
bench-practice` writes. Small networks (MLPs and small convolutional ones), mostly of
10 classes, a few of 100, with at most 100 times as many samples in the largest class as in the
smallest.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from tightframe.saved import kept
from tightframe.shown import record

#: What helps a network depends on whether it has lost classes; and if not, on whether a sampler
#: drew all classes alike in training.
SOME_LOST, NONE_LOST, DRAWN_ALIKE = "some lost", "none lost", "none lost, drawn alike"

#: A class is small if the largest has at least so many times its samples.
SMALL_SHARE = 5


@kept
@record
@dataclass(frozen=True)
class Evidence:
    """What one remedy did to the networks of one state.

    Attributes
    ----------
    state : {"some lost", "none lost", "none lost, drawn alike"}
        Whether any class had a training accuracy below .5, and a sampler was used.
    remedy : str
    networks : int
        How many were trained again.
    mean_gain, worst_gain : float
        Of the held-out balanced accuracy.
    large_mean, large_worst : float
        Mean and worst change of the held-out recall of the classes that are not small.
    source : str
        Table of the benchmark.
    """

    state: str
    remedy: str
    networks: int
    mean_gain: float
    worst_gain: float
    large_mean: float
    large_worst: float
    source: str

    @property
    def id(self) -> str:
        """Name of the row: ``"some lost: balanced weights"``."""
        return f"{self.state}: {self.remedy}"

    @property
    def text(self) -> str:
        """The row in words."""
        of = "networks with a sampler" if self.state == DRAWN_ALIKE else "networks"
        return (
            f"{self.mean_gain:+.3f} held-out balanced accuracy on average, worst "
            f"{self.worst_gain:+.3f} ({self.networks} {of}); recall of the large classes "
            f"{self.large_mean:+.3f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "id": self.id,
            "networks": self.networks,
            "mean_gain": self.mean_gain,
            "worst_gain": self.worst_gain,
            "large_mean": self.large_mean,
            "large_worst": self.large_worst,
            "source": self.source,
        }


@functools.cache
def evidence() -> dict[tuple[str, str], Evidence]:
    """Return every row of the table by state and remedy."""
    text = files("tightframe.diagnosis").joinpath("evidence.csv").read_text(encoding="utf-8")
    rows = [_row(cells) for cells in csv.DictReader(text.splitlines())]
    return {(row.state, row.remedy): row for row in rows}


def _row(cells: dict[str, str]) -> Evidence:
    return Evidence(
        cells["state"],
        cells["remedy"],
        int(cells["networks"]),
        float(cells["mean_gain"]),
        float(cells["worst_gain"]),
        float(cells["large_mean"]),
        float(cells["large_worst"]),
        cells["source"],
    )
