"""Thresholds: at which decays, counts and totals the classes of a group merge or vanish."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tightframe.blocks import BlockMatrix, Partition
from tightframe.problem import Problem, at_most
from tightframe.solvers.certificate import best_bias
from tightframe.solvers.datafits import make_datafit


@dataclass(frozen=True)
class GroupThreshold:
    """Where the classes of one group collapse.

    Attributes
    ----------
    count, classes : int
        The group.
    logit_decay : float or None
        The classes merge (or vanish, see `Thresholds.kind`) iff ``sqrt(weight_decay
        feature_decay)`` is at least this. None for a class alone in its group that has no
        threshold of its own.
    collapsed : bool or None
        Whether that is so at the problem's decays.
    total_samples : float or None
        At these decays the group collapses iff N is at least this, its own count unchanged.
    distinct_counts : tuple of float or None
        Open interval of counts per class for which the group stays distinct at these decays, the
        other groups unchanged; None if there is none.
    """

    count: int
    classes: int
    logit_decay: float | None
    collapsed: bool | None
    total_samples: float | None
    distinct_counts: tuple[float, float] | None


@dataclass(frozen=True)
class Thresholds:
    """Collapse thresholds of a problem.

    Attributes
    ----------
    kind : {"merge", "vanish"}
        What collapse means: the classes of a group share one mean, or their means are zero.
    logit_decay : float
        ``sqrt(weight_decay feature_decay)`` of the problem.
    total_collapse : float
        From this logit decay on, all class means are zero.
    groups : tuple of GroupThreshold
    """

    kind: str
    logit_decay: float
    total_collapse: float
    groups: tuple[GroupThreshold, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return asdict(self)


def thresholds(problem: Problem) -> Thresholds:
    """Return the decays, totals and counts at which each group collapses.

    Real features: the classes of a group of two or more merge iff ``sqrt(n_i)/N <= lambda``,
    whatever the other groups, the bias and the loss (docs/theory.md section 6; Hong & Ling 2023).
    Non-negative features with cross-entropy: a class vanishes iff ``sqrt(n_i (K-1)/K)/N <=
    lambda`` (Dang et al. 2024). MSE without bias: iff ``sqrt(n_i)/N <= lambda`` (Dang et al. 2023).

    Raises
    ------
    ValueError
        If the problem has more than one linear layer, or non-negative features with a bias.
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    decay = problem.logit_decay  # refuses depth above 1
    if problem.features == "nonnegative" and problem.bias != "none":
        raise ValueError("bias: thresholds for non-negative features are known for bias 'none'")
    relu = problem.features == "nonnegative" and problem.loss == "cross_entropy"
    vanish = relu or (problem.loss == "mse" and problem.bias == "none")
    factor = math.sqrt((problem.num_classes - 1) / problem.num_classes) if relu else 1.0
    groups = tuple(
        _group_threshold(problem, count, classes, decay / factor, factor)
        if vanish or classes > 1
        else GroupThreshold(count, classes, None, None, None, None)
        for count, classes in problem.groups
    )
    largest = math.sqrt(max(group.count for group in problem.groups)) / problem.num_samples
    total = factor * largest if vanish else _total_collapse(problem)
    return Thresholds("vanish" if vanish else "merge", decay, total, groups)


def _group_threshold(
    problem: Problem, count: int, classes: int, ratio: float, factor: float
) -> GroupThreshold:
    """Solve ``sqrt(n) / N = ratio`` for the decay, for N, and for n (N grows with n)."""
    total = problem.num_samples
    root = math.sqrt(count)
    others = total - count * classes
    # ratio (others + classes x^2) < x with x = sqrt(n): between the roots of a parabola.
    discriminant = 1 - 4 * ratio**2 * classes * others
    interval = None
    if discriminant > 0:
        wide = 1 + math.sqrt(discriminant)
        interval = ((2 * ratio * others / wide) ** 2, (wide / (2 * ratio * classes)) ** 2)
    return GroupThreshold(
        count,
        classes,
        factor * root / total,
        bool(at_most(root / total, ratio)),
        root / ratio,
        interval,
    )


def _total_collapse(problem: Problem) -> float:
    """Return the norm of the data fit's gradient at zero logits and the best bias for them."""
    partition = Partition.coarsest(problem)
    fit = make_datafit(problem.loss, partition)
    g = partition.num_groups
    zero = BlockMatrix(partition, np.zeros(g), np.zeros((g, g)))
    bias = np.zeros(g)
    if problem.bias != "none":
        bias = best_bias(problem, fit, zero, bias)
    residual = fit.residual(zero.within, zero.mean + bias[:, None])
    return residual.operator_norm / partition.num_samples
