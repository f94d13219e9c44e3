"""What NC2 and NC3 compare with: frames and predicted geometries, by name or as they are.

Imports no torch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import MAX_DENSE_CLASSES, is_several, whole_number
from tightframe.geometry.blocks import Partition
from tightframe.geometry.dense import (
    SELI_NAMES,
    SELI_REASONS,
    Geometry,
    orthogonal_frame,
    simplex_etf,
)
from tightframe.geometry.grouped import GroupedGeometry, GroupedMatrix
from tightframe.saved import kept
from tightframe.solution import Solution
from tightframe.theory.factors import balanced_geometry
from tightframe.theory.svm import seli_blocks

#: Frames that can be asked for by name, at any number of classes.
FRAMES = ("etf", "orthogonal_frame", "general_orthogonal_frame", "seli")

#: The matrices that are compared with a target, in the order reports show them: Gram matrices of
#: classifier, class means and centred class means; mean logits of the class means and of the
#: centred class means.
TARGET_PARTS = ("classifier", "means", "centered_means", "logits", "centered_logits")


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


@kept
class HeadKind(NamedTuple):
    """What picks the SELI geometry of a measured head.

    Attributes
    ----------
    counts : ndarray, shape (K,), int
        Samples of every class; 0 where there are none.
    has_bias : bool
        Whether the head has a bias, free or decayed (see `tightframe.geometry.dense.seli_of_head`).
    """

    counts: NDArray[np.int64]
    has_bias: bool

    @property
    def seli(self) -> GroupedGeometry:
        """The SELI geometry of these counts and this kind of bias."""
        return _seli(np.asarray(self.counts, dtype=np.int64).tobytes(), self.has_bias)

    def pick(self, targets: Any) -> list[Target]:
        """Return targets as a list, with the geometry in place of ``"seli"``."""
        return [
            self.seli if isinstance(target, str) and target == "seli" else target
            for target in target_list(targets)
        ]

    def remark(self, target: Geometry | GroupedGeometry | str) -> str:
        """Say why a SELI geometry is the target of this head, or that it is not; else nothing."""
        if isinstance(target, str) or target.name not in SELI_REASONS:
            return ""
        own = SELI_NAMES["free" if self.has_bias else "none"]
        if target.name == own:
            return SELI_REASONS[own]
        name = target.name[0].upper() + target.name[1:]
        if np.ptp(self.counts) == 0:
            return f"{name}: all counts are equal, so the head's bias makes no difference."
        return (
            f"{name} is not the limit of small decays for this head, which has "
            f"{'a' if self.has_bias else 'no'} bias: the target 'seli' is."
        )


@lru_cache(maxsize=4)
def _seli(counts: bytes, has_bias: bool) -> GroupedGeometry:
    values, groups = np.unique(np.frombuffer(counts, dtype=np.int64), return_inverse=True)
    if len(values) > MAX_DENSE_CLASSES:
        raise ValueError(
            f"targets: 'seli' of {len(values)} distinct counts takes the singular value "
            f"decomposition of as many rows; at most {MAX_DENSE_CLASSES} are allowed"
        )
    sizes = np.bincount(groups).astype(np.float64)
    partition = Partition(values.astype(np.float64), sizes, lambda: groups)
    kind = "free" if has_bias else "none"
    return balanced_geometry(seli_blocks(partition, kind), 1.0, SELI_NAMES[kind])


def as_target(
    target: Target, num_classes: int, name: str = "target", head: HeadKind | None = None
) -> Geometry | GroupedGeometry | str:
    """Return what to compare with, checked against the number of classes.

    The nearest general orthogonal frame depends on what is measured: its name is returned as is.
    ``"seli"`` needs the head.

    Raises
    ------
    ValueError
        If it is no target, or one of another number of classes.
    """
    if isinstance(target, str):
        if target not in FRAMES:
            raise ValueError(f"{name}: got {target!r}, allowed names are {', '.join(FRAMES)}")
        if target == FRAMES[3]:
            if head is None:
                raise ValueError(
                    f"{name}: 'seli' depends on the counts and on the head's bias, which are not "
                    "known here; give tightframe.seli(counts, bias=...)"
                )
            return head.seli
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
    if not is_several(targets):
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
