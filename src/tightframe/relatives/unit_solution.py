"""Results that are directions of classes: how near they are, in numbers, words and pictures."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import number_of
from tightframe.figures.model import HeatMaps, Matrix
from tightframe.problem.counts import CountsLike, counts_array
from tightframe.relatives.unit_gram import UnitGram
from tightframe.saved import Saved, kept
from tightframe.shown import Block, Shown, frame, plot
from tightframe.solve import NotConvergedWarning

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: Most classes.
MAX_CLASSES = 50

#: Classes share a direction if the cosine is 1 up to the first, and have come together from the
#: second on: less than a right angle is left.
_MERGED, _ACUTE = 1e-6, 1e-3


@kept
class Siblings(NamedTuple):
    """Classes of one count, and how near their vectors are.

    Attributes
    ----------
    classes : int
    samples : int
        Of each.
    cosine : float
        The largest between two of them; NaN of a class alone.
    to_others : float
        The largest to a class of another count; NaN where all have one count.
    """

    classes: int
    samples: int
    cosine: float
    to_others: float


@dataclass(frozen=True, eq=False)
class UnitSolution(Shown, Saved, ABC):
    """What `NormalizedHead` and `SupervisedContrastive` have in common.

    Which classes come together is read off the classifier rows of a head and off the class means of
    a contrastive loss.
    """

    counts: NDArray[np.int64]
    objective: float
    lower_bound: float
    relative_gap: float
    status: str

    @property
    def gap(self) -> float:
        """Certified distance from the minimum, nats."""
        return self.objective - self.lower_bound

    @property
    @abstractmethod
    def rank(self) -> int:
        """Dimensions that the vectors have; fewer may do, no more are of use."""

    @property
    @abstractmethod
    def _cosines(self) -> dict[str, Array]:
        """Cosines between the vectors of classes, (K, K), by what these are; what tells first."""

    @property
    def siblings(self) -> tuple[Siblings, ...]:
        """Classes of equal count, the largest first: whether minorities come together."""
        cosines = next(iter(self._cosines.values()))
        found = []
        for count in sorted(set(self.counts.tolist()), reverse=True):
            own = self.counts == count
            pairs = cosines[np.ix_(own, own)][np.triu_indices(own.sum(), 1)]
            others = cosines[np.ix_(own, ~own)].ravel()
            closest = [float(some.max()) if len(some) else math.nan for some in (pairs, others)]
            found.append(Siblings(int(own.sum()), count, *closest))
        return tuple(found)

    @property
    def merged(self) -> tuple[tuple[int, ...], ...]:
        """Classes that share one direction, as far as numbers tell: they cannot be told apart."""
        same = next(iter(self._cosines.values())) > 1 - _MERGED
        groups = {tuple(np.flatnonzero(row).tolist()) for row in same}
        return tuple(sorted(group for group in groups if len(group) > 1))

    @property
    def note(self) -> str:
        """In words, which classes have merged or come together; empty where none have."""
        what, etf = next(iter(self._cosines)), -1 / (len(self.counts) - 1)
        said = []
        for group in self.merged:
            least, most = self.counts[list(group)].min(), self.counts[list(group)].max()
            samples = number_of(most, "sample")
            samples = samples if least == most else f"{least} to {samples}"
            said.append(f"{len(group)} classes of {samples} share one direction")
        said += [
            f"classes of {number_of(group.samples, 'sample')} come together (cosine of {what} "
            f"{group.cosine:.3f}, {etf:.3f} in a simplex ETF)"
            for group in self.siblings
            if _ACUTE < group.cosine <= 1 - _MERGED
        ]
        return "; ".join(said)

    @abstractmethod
    def _settings(self) -> dict[str, float]:
        """Return what was asked beside counts, by name."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "counts": self.counts.tolist(),
            **self._settings(),
            "objective": self.objective,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "relative_gap": self.relative_gap,
            "status": self.status,
            "rank": self.rank,
            "siblings": [
                {key: None if value != value else value for key, value in group._asdict().items()}
                for group in self.siblings
            ],
            "merged": [list(group) for group in self.merged],
            "note": self.note,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row a class: its samples, the class whose vector is nearest, and the cosine.

        See `tightframe.shown.frame`.
        """
        cosines = next(iter(self._cosines.values())) - 3 * np.eye(len(self.counts))
        nearest = cosines.argmax(axis=1)
        return frame(
            {
                "samples": self.counts,
                "nearest": nearest,
                "cosine": cosines.max(axis=1),
                "merged": [any(k in group for group in self.merged) for k in range(len(nearest))],
            }
        )

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the cosines between the vectors of classes, see `tightframe.shown.plot`."""
        what, cosines = next(iter(self._cosines.items()))
        return plot(
            HeatMaps(
                f"Cosines of {what}",
                [Matrix(f"Cosines of {what}", cosines)],
                x_label="class",
                y_label="class",
                limit=1.0,
                note=self.note,
            ),
            ax,
        )

    def _blocks(self) -> Iterator[Block]:
        from tightframe.figures.table import Column, Table

        yield repr(self)
        what = next(iter(self._cosines))
        columns: list[str | Column] = ["samples", "classes"]
        columns.append(Column(f"cosine of {what}", align="right", format=".5g"))
        rows = [[group.samples, group.classes, group.cosine] for group in self.siblings]
        yield Table("", columns, rows, missing="-")
        if self.note:
            yield self.note

    def __repr__(self) -> str:
        """Return the size, the objective and its gap on one line."""
        settings = ", ".join(f"{name} {value:g}" for name, value in self._settings().items())
        return (
            f"{type(self).__name__}({len(self.counts)} classes, {settings}, objective "
            f"{self.objective:.8g}, gap {self.gap:.1e}, {self.status})"
        )


def few_counts(counts: CountsLike) -> NDArray[np.int64]:
    """Return samples per class, of few enough classes.

    Raises
    ------
    ValueError
        If they are no counts, or of more than `MAX_CLASSES` classes.
    """
    n = counts_array(counts)
    if len(n) > MAX_CLASSES:
        raise ValueError(f"counts: got {len(n)} classes, need at most {MAX_CLASSES}")
    return n


def status_of(found: UnitGram, tol: float) -> str:
    """Return whether the gap is within a tolerance, as `tightframe.solve` says it, and warn."""
    if found.relative_gap <= tol:
        return "optimal"
    warnings.warn(
        f"not converged: the certified relative gap is {found.relative_gap:.1e}, wanted {tol:.1e}",
        NotConvergedWarning,
        stacklevel=3,
    )
    return "not_converged"
