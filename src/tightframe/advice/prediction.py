"""Outlook: what a problem's minimiser means for each group of classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tightframe.geometry.blocks import Array
from tightframe.geometry.grouped import GroupedGeometry
from tightframe.problem.problem import with_loss_terms
from tightframe.solution import Solution

#: What becomes of a group's classes, worst first.
STATES = ("vanished", "merged", "lost", "distinct")


@dataclass(frozen=True)
class GroupOutlook:
    """What is predicted for the classes of one group.

    Attributes
    ----------
    count, classes : int
        The group.
    class_weight, logit_adjustment : float
        In the loss.
    state : {"vanished", "merged", "lost", "distinct"}
        Vanished: the class means are zero. Merged: the group's classes share one prediction. Lost:
        another group's logit is as large as their own, so that they are taken for that one.
    margin : float
        Own logit minus the largest other one at the class mean, bias included and without the
        adjustment (as at test time), in nats.
    angle : float
        Smallest angle between the group's classifier rows and any other class's, in degrees; 0 for
        zero rows.
    classifier_norm, mean_norm : float
        Length of a classifier row and of a class mean.
    """

    count: int
    classes: int
    class_weight: float
    logit_adjustment: float
    state: str
    margin: float
    angle: float
    classifier_norm: float
    mean_norm: float


@dataclass(frozen=True)
class Outlook:
    """What a solution predicts, group by group.

    Attributes
    ----------
    groups : tuple of GroupOutlook
        In the order of ``problem.groups``.
    objective : float
    gap : float or None
        Certified, absolute.
    status : str
        Of the solution.
    """

    groups: tuple[GroupOutlook, ...]
    objective: float
    gap: float | None
    status: str

    @property
    def margin(self) -> float:
        """The smallest margin, in nats."""
        return min(group.margin for group in self.groups)

    @property
    def angle(self) -> float:
        """The smallest angle between two classifier rows, in degrees."""
        return min(group.angle for group in self.groups)

    @property
    def distinct(self) -> bool:
        """Whether every class keeps a prediction of its own."""
        return all(group.state == "distinct" for group in self.groups)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return asdict(self) | {
            "groups": [asdict(group) for group in self.groups],
            "margin": self.margin,
            "angle": self.angle,
            "distinct": self.distinct,
        }


def outlook(solution: Solution) -> Outlook:
    """Read a solution group by group.

    Raises
    ------
    ValueError
        If the solution has several linear layers, or a ``dim`` that is too narrow.
    """
    p = solution.blocks.partition
    geometry = GroupedGeometry.from_solution(solution)
    margins = group_margins(solution)
    vanished = solution.blocks.column_norms == 0
    merged = (p.sizes > 1) & (solution.blocks.within == 0) & ~vanished
    angles = np.where(merged, 0.0, _angles(geometry))  # an arc cosine of rounding is not zero
    states = np.select([vanished, merged, margins <= 0], STATES[:3], default=STATES[3]).tolist()
    groups = tuple(
        GroupOutlook(
            int(p.counts[i]),
            int(p.sizes[i]),
            float(p.weights[i]),
            float(p.adjustment[i]),
            states[i],
            float(margins[i]),
            float(angles[i]),
            float(geometry.classifier.lengths[i]),
            float(geometry.means.lengths[i]),
        )
        for i in range(p.num_groups)
    )
    return Outlook(groups, solution.objective, solution.gap, solution.status)


def group_margins(solution: Solution) -> Array:
    """Return own minus largest other logit of a class of each group, bias included, shape (G,).

    Unlike `Solution.group_margins`, over the siblings and all other groups.
    """
    blocks, k = solution.blocks, solution.blocks.partition.sizes
    scores = blocks.mean + solution.group_bias[:, None]
    own = np.diagonal(scores) + blocks.within * (k - 1) / k
    rivals = scores.copy()
    np.fill_diagonal(rivals, np.where(k > 1, own - blocks.within, -np.inf))
    margins: Array = own - rivals.max(axis=0)
    return margins + 0.0  # no negative zeros


def _angles(geometry: GroupedGeometry) -> Array:
    """Return the smallest angle of a row of each group to any other row, degrees, shape (G,)."""
    cosines = geometry.classifier.cosines
    largest = np.fmax.reduce(cosines, axis=1, initial=-1.0)
    zero = geometry.classifier.lengths == 0
    angles: Array = np.degrees(np.arccos(largest))
    return np.where(zero | (geometry.classifier.num_classes < 2), 0.0, angles)


def describe(group: GroupOutlook) -> str:
    """Name a group in a sentence: ``"5 classes of 100 samples"``."""
    name = "1 class" if group.classes == 1 else f"{group.classes} classes"
    text = f"{name} of {group.count} samples"
    return with_loss_terms(text, group.class_weight, group.logit_adjustment)
