"""Geometries in compact form, for any number of classes.

A `Geometry` writes its K x K matrices out; a `GroupedGeometry` holds matrices that are constant
over groups of classes apart from the diagonal, which is all that the simplex ETF, orthogonal frames
and the solutions for grouped counts need.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import require_dense
from tightframe.geometry.blocks import Array, Partition
from tightframe.geometry.dense import Geometry
from tightframe.saved import filed, kept
from tightframe.shown import record

if TYPE_CHECKING:
    from tightframe.solution import Solution


@kept
@record
@dataclass(frozen=True, eq=False)
class GroupedMatrix:
    """The K x K matrix ``T_ij = [i = j] diagonal[g_i] + blocks[g_i, g_j]``, g the classes' groups.

    Attributes
    ----------
    classes : Partition, or ndarray of int, shape (K,)
        Which classes are in which group; a partition takes no memory of the size of K.
    diagonal : ndarray, shape (G,), float64
    blocks : ndarray, shape (G, G), float64
    """

    classes: Partition | NDArray[np.intp]
    diagonal: Array
    blocks: Array

    @property
    def groups(self) -> NDArray[np.intp]:
        """Group of every class, 0 to G - 1, shape (K,)."""
        known = self.classes
        return known.class_groups if isinstance(known, Partition) else known

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        known = self.classes
        return known.num_classes if isinstance(known, Partition) else len(known)

    @cached_property
    def sizes(self) -> Array:
        """Classes in every group, shape (G,)."""
        if isinstance(self.classes, Partition):
            return self.classes.sizes
        sizes: Array = np.bincount(self.classes, minlength=len(self.diagonal)).astype(np.float64)
        return sizes

    @cached_property
    def norm(self) -> float:
        """Frobenius norm."""
        own = np.diagonal(self.blocks)
        # Off the diagonal, then on it: a sum of squares, in which nothing cancels.
        pairs = np.outer(self.sizes, self.sizes) - np.diag(self.sizes)
        squares = float((pairs * self.blocks**2).sum())
        return float(np.sqrt(squares + self.sizes @ (self.diagonal + own) ** 2))

    @cached_property
    def lengths(self) -> Array:
        """Of a Gram matrix: length of the vector of a class of each group, shape (G,)."""
        return np.sqrt(np.maximum(self.diagonal + np.diagonal(self.blocks), 0.0))

    @cached_property
    def cosines(self) -> Array:
        """Of a Gram matrix: cosines between classes of two groups, shape (G, G).

        On the diagonal between siblings, NaN for a group of one class. NaN beside zero vectors.
        """
        lengths = np.where(self.lengths > 0, self.lengths, np.nan)
        cosines: Array = np.clip(self.blocks / np.outer(lengths, lengths), -1.0, 1.0)
        np.fill_diagonal(cosines, np.where(self.sizes > 1, np.diagonal(cosines), np.nan))
        return cosines

    def centered(self, *, rows: bool) -> GroupedMatrix:
        """Return the matrix less the mean of its columns; with ``rows`` of its rows as well."""
        k, sizes = self.num_classes, self.sizes
        of_columns = (self.diagonal + self.blocks @ sizes) / k  # a group's row: mean of columns
        blocks = self.blocks - of_columns[:, None]
        if rows:
            blocks = blocks - (self.diagonal + sizes @ blocks) / k
        return GroupedMatrix(self.classes, self.diagonal, blocks)

    def restrict(self, kept: NDArray[np.intp]) -> GroupedMatrix:
        """Return rows and columns of some classes."""
        return GroupedMatrix(self.groups[kept], self.diagonal, self.blocks)

    def to_dense(self) -> Array:
        """Return the K x K matrix, or raise ValueError where it would be too large."""
        require_dense(self.num_classes, "target")
        dense: Array = self.blocks[np.ix_(self.groups, self.groups)]
        dense[np.diag_indices_from(dense)] += self.diagonal[self.groups]
        return dense


@filed
@record
@dataclass(frozen=True, eq=False)
class GroupedGeometry:
    """A geometry whose matrices are `GroupedMatrix`: no K x K array is held.

    Attributes
    ----------
    name : str
        What this geometry is, for example ``"simplex ETF"``.
    classifier, means, logits : GroupedMatrix
        As in `Geometry`.
    """

    name: str
    classifier: GroupedMatrix
    means: GroupedMatrix
    logits: GroupedMatrix

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.classifier.num_classes

    def part(self, name: str) -> GroupedMatrix:
        """Return one of `TARGET_PARTS`."""
        part: GroupedMatrix = getattr(self, name)
        return part

    @cached_property
    def centered_means(self) -> GroupedMatrix:
        """Gram matrix of the class means less their class-averaged mean."""
        return self.means.centered(rows=True)

    @cached_property
    def centered_logits(self) -> GroupedMatrix:
        """Mean logits of those means."""
        return self.logits.centered(rows=False)

    def restrict(self, kept: NDArray[np.intp]) -> GroupedGeometry:
        """Return the geometry of some of the classes."""
        parts = (part.restrict(kept) for part in (self.classifier, self.means, self.logits))
        return GroupedGeometry(self.name, *parts)

    def to_geometry(self) -> Geometry:
        """Return it written out, or raise ValueError where it would be too large."""
        parts = (part.to_dense() for part in (self.classifier, self.means, self.logits))
        return Geometry(self.name, *parts)

    @classmethod
    def from_solution(cls, solution: Solution) -> GroupedGeometry:
        """Return the predicted geometry of a solution, at any number of classes.

        Real features: the matrices follow from the singular vectors of ``Z D^{1/2}`` on group
        indicators and, within a group, from one number each (docs/theory.md, sections 2 and 3).
        Non-negative ones: the columns of ``Z D^{1/2}`` take the singular vectors' place, or with a
        bias or a logit adjustment and more than 100 classes, axes of groups.

        Parameters
        ----------
        solution : Solution
            Of one linear layer with features that are wide enough.

        Raises
        ------
        ValueError
            For any other solution.
        """
        return solution.grouped_geometry
