"""The labels of every context, and what limits of vanishing decays take beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.problem.counts import Group, PerClass, parse_per_class, spread
from tightframe.problem.problem import logit_scale_runs
from tightframe.problem.targets import read_targets
from tightframe.saved import kept
from tightframe.shown import record

Array = NDArray[np.float64]
Whole = NDArray[np.intp]

#: Arrays with more entries, labels times contexts, are not written out (2^25 doubles: 256 MiB).
MAX_ENTRIES = 2**25

#: Allowed weights of features, from and to.
WEIGHTS = 1e-9, 1e18

#: Weights of features by name: as many as samples, or one a context.
WEIGHT_NAMES = ("samples", "contexts")


@kept
@record
@dataclass(frozen=True, eq=False)
class LabelLaw:
    """The labels that every context has, and their probabilities, context after context.

    Attributes
    ----------
    num_labels : int
        V.
    starts : ndarray of int, shape (m + 1,)
        Context j has entries ``starts[j]`` to ``starts[j + 1]`` of the other two.
    labels : ndarray of int, shape (E,)
        Ascending in each context.
    probabilities : ndarray, shape (E,), float64
        Above zero, one in sum over each context.
    """

    num_labels: int
    starts: Whole
    labels: Whole
    probabilities: Array

    @classmethod
    def _unpacked(cls, fields: Mapping[str, Any]) -> LabelLaw:
        """Make it of a file's arrays, which need not fit."""
        read_targets({("shares" if n == "probabilities" else n): v for n, v in fields.items()})
        return cls(**fields)

    @classmethod
    def read(cls, targets: Any) -> LabelLaw:
        """Read targets of shape (V, m), column j the distribution of context j.

        Raises
        ------
        ValueError
            As `tightframe.problem.targets.read_targets`.
        """
        table = read_targets(targets)
        return cls(
            table.num_labels,
            table.starts.astype(np.intp),
            table.labels.astype(np.intp),
            table.shares,
        )

    @property
    def num_contexts(self) -> int:
        """Number of contexts m."""
        return len(self.starts) - 1

    @cached_property
    def sizes(self) -> Whole:
        """How many labels every context has, shape (m,)."""
        return np.diff(self.starts)

    @cached_property
    def contexts(self) -> Whole:
        """Context of every entry, shape (E,)."""
        return np.repeat(np.arange(self.num_contexts), self.sizes)

    def sum(self, values: Array) -> Array:
        """Return the sum of a number an entry over every context, shape (m,)."""
        sums: Array = np.bincount(self.contexts, values, self.num_contexts).astype(np.float64)
        return sums

    @cached_property
    def entropies(self) -> Array:
        """Entropy of every context's distribution in nats, shape (m,)."""
        p = self.probabilities
        return np.maximum(-self.sum(p * np.log(p)), 0.0)

    @cached_property
    def same_support(self) -> Whole:
        """Number from 0 of every context, equal where the labels are the same, shape (m,)."""
        number = np.empty(self.num_contexts, dtype=np.intp)
        found = 0
        for size in np.unique(self.sizes).tolist():
            contexts = np.flatnonzero(self.sizes == size)
            labels = self.labels[self.starts[contexts][:, None] + np.arange(size)]
            keys = np.ascontiguousarray(labels, dtype=np.int64).view(np.dtype((np.void, 8 * size)))
            _, inverse = np.unique(keys.ravel(), return_inverse=True)
            number[contexts] = found + inverse
            found = int(number[contexts].max()) + 1
        return number

    def dense(self, values: Array, elsewhere: float) -> Array:
        """Return a number an entry, and one for labels that a context lacks, shape (V, m).

        Raises
        ------
        ValueError
            If that has more than `MAX_ENTRIES` entries.
        """
        require_entries(self.num_labels, self.num_contexts)
        array = np.full((self.num_labels, self.num_contexts), elsewhere)
        array[self.labels, self.contexts] = values
        return array


def logit_scales(value: PerClass | None, num_labels: int) -> Array:
    """Return the scale of every label's logit, ones where none is given, shape (V,).

    Raises
    ------
    ValueError
        If a scale is out of range or there is not one a label.
    """
    runs = logit_scale_runs(value, (Group(1, num_labels),))
    return spread(runs) if runs else np.ones(num_labels)


def feature_weights_of(value: PerClass, counts: Array) -> Array:
    """Return the feature weight of every context by its count, shape (m,).

    Raises
    ------
    ValueError
        If a weight is out of range or there is not one a context.
    """
    if isinstance(value, str) and value in WEIGHT_NAMES:
        return counts if value == "samples" else np.ones_like(counts)
    low, high = WEIGHTS
    contexts = (Group(1, len(counts)),)
    runs = parse_per_class(
        *("feature_weights", value, contexts),
        lambda weights: (weights >= low) & (weights <= high),
        f"{', '.join(map(repr, WEIGHT_NAMES))} or numbers from {low:g} to {high:g}",
    )
    if not runs:
        raise ValueError("feature_weights: got None, need one of " + ", ".join(WEIGHT_NAMES))
    return spread(runs)


def require_entries(rows: int, columns: int) -> None:
    """Refuse an array of labels or contexts that is too large to be written out.

    Raises
    ------
    ValueError
        If it has more than `MAX_ENTRIES` entries.
    """
    if rows * columns > MAX_ENTRIES:
        raise ValueError(
            f"targets: {rows} x {columns} entries are too many to be written out; at most "
            f"{MAX_ENTRIES} are"
        )
