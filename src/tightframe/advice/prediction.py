"""Outlook: what a problem's minimiser means for each group of classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tightframe.checks import number_of
from tightframe.geometry.blocks import Array, BlockMatrix
from tightframe.geometry.grouped import GroupedGeometry, GroupedMatrix
from tightframe.geometry.states import DISTINCT
from tightframe.problem.class_names import listed
from tightframe.problem.problem import terms_in, with_loss_terms
from tightframe.saved import kept
from tightframe.shown import record
from tightframe.solution import Solution


@kept
@record
@dataclass(frozen=True)
class GroupOutlook:
    """What is predicted for the classes of one group.

    Attributes
    ----------
    count, classes : int
        The group.
    class_weight, logit_adjustment : float
        In the loss.
    state : str
        Of `tightframe.geometry.states.STATES`.
    decision_margin : float
        Own logit minus the largest other one at the class mean, bias included and without the
        adjustment (as at test time), in nats.
    sibling_margin : float or None
        Own logit minus that of another class of the group; None for a class alone in it.
    rival : int or None
        Group that they are taken for, or nearest to; their own where that is a sibling.
    angle : float
        Smallest angle between the group's classifier rows and any other class's, in degrees; 0 for
        zero rows.
    classifier_norm, mean_norm : float
        Length of a classifier row and of a class mean.
    names : list of str
        Of the classes; empty where they have none.
    class_margin, logit_scale, feature_weight : float or None
        In the loss and the decay cost, see `Problem`; None where the problem has none.
    """

    count: int
    classes: int
    class_weight: float
    logit_adjustment: float
    state: str
    decision_margin: float
    sibling_margin: float | None
    rival: int | None
    angle: float
    classifier_norm: float
    mean_norm: float
    names: list[str] = field(default_factory=list)
    class_margin: float | None = None
    logit_scale: float | None = None
    feature_weight: float | None = None

    @property
    def margin(self) -> float:
        """The decision margin."""
        return self.decision_margin

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        values = asdict(self) | {"margin": self.margin}
        if not self.names:
            del values["names"]
        for name in ("class_margin", "logit_scale", "feature_weight"):
            if values[name] is None:
                del values[name]
        return values


@kept
@record
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
    def decision_margin(self) -> float:
        """The smallest decision margin, in nats."""
        return min(group.decision_margin for group in self.groups)

    @property
    def margin(self) -> float:
        """The smallest decision margin, in nats."""
        return self.decision_margin

    @property
    def angle(self) -> float:
        """The smallest angle between two classifier rows, in degrees."""
        return min(group.angle for group in self.groups)

    @property
    def distinct(self) -> bool:
        """Whether every class keeps a prediction of its own."""
        return all(group.state == DISTINCT for group in self.groups)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return asdict(self) | {
            "groups": [group.to_dict() for group in self.groups],
            "margin": self.margin,
            "decision_margin": self.decision_margin,
            "angle": self.angle,
            "distinct": self.distinct,
        }


def outlook(solution: Solution, *, as_ldt: bool = False) -> Outlook:
    """Read a solution group by group.

    Parameters
    ----------
    solution : Solution
    as_ldt : bool
        Whether its feature weights ``n / kappa^2`` stand for a loss that multiplies the logits of
        a class's samples by kappa. Features and logits of the network, which decide at test time,
        are then the solution's over kappa.

    Raises
    ------
    ValueError
        If the solution has several linear layers, or a ``dim`` that is too narrow.
    """
    p = solution.blocks.partition
    names, terms = solution.problem.group_names(p), solution.problem.group_terms
    if p.num_groups != len(terms):  # every class is a group of its own
        terms = [terms[kind] for kind in solution.problem.class_groups.tolist()]
    rows, means = _vectors(solution)
    lengths, states = means.lengths, solution.group_states
    if as_ldt:
        weights = [
            term.get("feature_weight") or n for term, n in zip(terms, p.samples, strict=True)
        ]
        kappa = np.sqrt(p.samples / np.array(weights, dtype=np.float64))
        blocks = solution.blocks
        lengths = lengths / kappa
        states = solution.states_with(BlockMatrix(p, blocks.within / kappa, blocks.mean / kappa))
    # Rows of siblings that share a prediction are equal, and an arc cosine of rounding is not zero.
    angles = np.where(states.sibling_margin == 0, 0.0, _angles(rows))
    groups = tuple(
        GroupOutlook(
            int(p.samples[i]),
            int(p.sizes[i]),
            terms[i]["class_weight"],
            terms[i]["logit_adjustment"],
            states[i].state,
            states[i].decision_margin,
            states[i].sibling_margin,
            states[i].rival,
            float(angles[i]),
            float(rows.lengths[i]),
            float(lengths[i]),
            names[i],
            *(terms[i].get(name) for name in ("class_margin", "logit_scale", "feature_weight")),
        )
        for i in range(p.num_groups)
    )
    return Outlook(groups, solution.objective, solution.gap, solution.status)


def _vectors(solution: Solution) -> tuple[GroupedMatrix, GroupedMatrix]:
    """Return the Gram matrices of classifier rows and class means, one entry a pair of groups.

    Logits and bias of a minimiser are the same under permutations inside the groups, and so are
    these matrices where the search for non-negative features ends: their averages stand for them.
    """
    if solution.factors is None:
        geometry = GroupedGeometry.from_solution(solution)
        return geometry.classifier, geometry.means
    p, dense = solution.blocks.partition, solution.geometry

    def grouped(gram: Array) -> GroupedMatrix:
        average = BlockMatrix.averaged(p, gram)
        blocks = average.mean - np.diag(average.within / p.sizes)
        return GroupedMatrix(p, average.within, blocks)

    return grouped(dense.classifier), grouped(dense.means)


def _angles(rows: GroupedMatrix) -> Array:
    """Return the smallest angle of a row of each group to any other row, degrees, shape (G,)."""
    largest = np.fmax.reduce(rows.cosines, axis=1, initial=-1.0)
    zero = rows.lengths == 0
    angles: Array = np.degrees(np.arccos(largest))
    return np.where(zero | (rows.num_classes < 2), 0.0, angles)


def describe(group: GroupOutlook) -> str:
    """Name a group in a sentence: ``"5 classes of 100 samples"``, with the classes' names."""
    name = number_of(group.classes, "class", "classes")
    text = f"{name} of {number_of(group.count, 'sample')}"
    text = with_loss_terms(text, **terms_in(asdict(group)))
    return f"{text} ({listed(group.names)})" if group.names else text
