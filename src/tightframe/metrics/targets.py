"""What NC2 and NC3 compare with: frames and predicted geometries, in compact form for any K.

Imports no torch. A `Geometry` writes its K x K matrices out; a `GroupedGeometry` holds matrices
that are constant over groups of classes apart from the diagonal, which is all that the simplex
ETF, orthogonal frames and the solutions for grouped counts need.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.blocks import without_rounding
from tightframe.geometry import Geometry, orthogonal_frame, simplex_etf
from tightframe.problem import MAX_DENSE_CLASSES, require_dense, whole_number
from tightframe.solution import Solution
from tightframe.solvers.certificate import is_convex

Array = NDArray[np.float64]

#: Frames that can be asked for by name, at any number of classes.
FRAMES = ("etf", "orthogonal_frame", "general_orthogonal_frame")

#: The matrices that are compared with a target, in the order reports show them: Gram matrices of
#: classifier, class means and centred class means; mean logits of the class means and of the
#: centred class means.
TARGET_PARTS = ("classifier", "means", "centered_means", "logits", "centered_logits")


@dataclass(frozen=True, eq=False)
class GroupedMatrix:
    """The K x K matrix ``T_ij = [i = j] diagonal[g_i] + blocks[g_i, g_j]``, g the classes' groups.

    Attributes
    ----------
    groups : ndarray, shape (K,), int
        Group of every class, 0 to G - 1.
    diagonal : ndarray, shape (G,), float64
    blocks : ndarray, shape (G, G), float64
    """

    groups: NDArray[np.intp]
    diagonal: Array
    blocks: Array

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.groups)

    @cached_property
    def sizes(self) -> Array:
        """Classes in every group, shape (G,)."""
        sizes: Array = np.bincount(self.groups, minlength=len(self.diagonal)).astype(np.float64)
        return sizes

    @cached_property
    def norm(self) -> float:
        """Frobenius norm."""
        own = np.diagonal(self.blocks)
        # Off the diagonal, then on it: a sum of squares, in which nothing cancels.
        pairs = np.outer(self.sizes, self.sizes) - np.diag(self.sizes)
        squares = float((pairs * self.blocks**2).sum())
        return float(np.sqrt(squares + self.sizes @ (self.diagonal + own) ** 2))

    def centered(self, *, rows: bool) -> GroupedMatrix:
        """Return the matrix less the mean of its columns; with ``rows`` of its rows as well."""
        k, sizes = self.num_classes, self.sizes
        of_columns = (self.diagonal + self.blocks @ sizes) / k  # a group's row: mean of columns
        blocks = self.blocks - of_columns[:, None]
        if rows:
            blocks = blocks - (self.diagonal + sizes @ blocks) / k
        return GroupedMatrix(self.groups, self.diagonal, blocks)

    def restrict(self, kept: NDArray[np.intp]) -> GroupedMatrix:
        """Return rows and columns of some classes."""
        return GroupedMatrix(self.groups[kept], self.diagonal, self.blocks)

    def to_dense(self) -> Array:
        """Return the K x K matrix, or raise ValueError where it would be too large."""
        require_dense(self.num_classes, "target")
        dense: Array = self.blocks[np.ix_(self.groups, self.groups)]
        dense[np.diag_indices_from(dense)] += self.diagonal[self.groups]
        return dense


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

        Its matrices follow from the singular vectors of ``Z D^{1/2}`` on group indicators and,
        within a group, from one number each (docs/theory.md, sections 2 and 3).

        Parameters
        ----------
        solution : Solution
            Of one linear layer with real features that are wide enough.

        Raises
        ------
        ValueError
            For any other solution.
        """
        problem, blocks = solution.problem, solution.blocks
        if not is_convex(problem):
            raise ValueError(
                f"target: a solution of {problem.num_classes} classes is compared in compact form "
                "for one linear layer, real features and a wide enough dim only"
            )
        p = blocks.partition
        left, values, right = blocks.decomposition
        values = without_rounding(values)
        # Sqrt of Sigma goes to either side; the ratio of the decays shares it out.
        ratio = np.sqrt(problem.feature_decay / problem.weight_decays[0])
        within = np.where(p.sizes > 1, np.sqrt(p.counts) * np.abs(blocks.within), 0.0)
        root = np.sqrt(p.sizes)
        groups = p.class_groups

        def gram(frame: Array, inner: Array, scale: Array) -> GroupedMatrix:
            mean = (frame * values) @ frame.T / np.outer(root * scale, root * scale)
            inner = inner / scale**2
            return GroupedMatrix(groups, inner, mean - np.diag(inner / p.sizes))

        logits = GroupedMatrix(
            groups, blocks.within, blocks.mean - np.diag(blocks.within / p.sizes)
        )
        ones = np.ones(p.num_groups)
        return cls(
            "predicted",
            gram(left, within, ones / np.sqrt(ratio)),
            gram(right.T, within, np.sqrt(p.counts * ratio)),
            logits,
        )


#: What functions that compare geometries accept.
Target = str | Geometry | GroupedGeometry | Solution


@lru_cache(maxsize=4)
def frame(name: str, num_classes: int) -> GroupedGeometry:
    """Return the simplex ETF or the orthogonal frame of any number of classes.

    Parameters
    ----------
    name : {"etf", "orthogonal_frame"}
    num_classes : int
        At least 2.
    """
    k = whole_number("num_classes", num_classes, 2)
    share = -1 / k if name == "etf" else 0.0
    matrix = GroupedMatrix(np.zeros(k, dtype=np.intp), np.ones(1), np.full((1, 1), share))
    label = (simplex_etf(2) if name == "etf" else orthogonal_frame(2)).name
    return GroupedGeometry(label, matrix, matrix, matrix)


def as_target(
    target: Target, num_classes: int, name: str = "target"
) -> Geometry | GroupedGeometry | str:
    """Return what to compare with, checked against the number of classes.

    The nearest general orthogonal frame depends on what is measured: its name is returned as is.

    Raises
    ------
    ValueError
        If it is no target, or one of another number of classes.
    """
    if isinstance(target, str):
        if target not in FRAMES:
            raise ValueError(f"{name}: got {target!r}, allowed names are {', '.join(FRAMES)}")
        return target if target == FRAMES[2] else frame(target, num_classes)
    if isinstance(target, Solution):
        if target.problem.num_classes <= MAX_DENSE_CLASSES:
            target = target.geometry
        else:
            target = GroupedGeometry.from_solution(target)
    if not isinstance(target, (Geometry, GroupedGeometry)):
        raise ValueError(
            f"{name}: got {type(target).__name__}, need a Geometry, a Solution or a name "
            f"({', '.join(FRAMES)})"
        )
    if target.num_classes != num_classes:
        raise ValueError(
            f"{name}: got a geometry of {target.num_classes} classes, need {num_classes}"
        )
    return target


def target_list(targets: Any) -> list[Target]:
    """Return several targets as a list; a single one may stand alone."""
    if isinstance(targets, (str, Geometry, GroupedGeometry, Solution)):
        return [targets]
    if not isinstance(targets, Iterable):
        raise ValueError(f"targets: got {type(targets).__name__}, need a list of targets")
    return list(targets)


def target_name(target: Geometry | GroupedGeometry | str) -> str:
    """Return how reports call a target."""
    return target.replace("_", " ") if isinstance(target, str) else target.name


def restrict(target: Geometry | GroupedGeometry | str, kept: NDArray[np.intp]) -> Any:
    """Return the target of some of the classes only."""
    if isinstance(target, str):
        return target
    if isinstance(target, GroupedGeometry):
        return target.restrict(kept)
    index = np.ix_(kept, kept)
    parts = (part[index] for part in (target.classifier, target.means, target.logits))
    return Geometry(target.name, *parts)
