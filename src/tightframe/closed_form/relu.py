"""Cross-entropy with non-negative (ReLU) features, no bias, any counts (Dang et al. 2024)."""

from __future__ import annotations

import math

import numpy as np

from tightframe.blocks import Array, BlockMatrix, Partition
from tightframe.problem import Problem, at_most

NAME = "cross-entropy with non-negative features"


def applies(problem: Problem) -> bool:
    """Tell whether the theorem covers a problem.

    One layer, no bias, and a width that holds an axis for every class that does not vanish.
    """
    covered = (
        problem.loss == "cross_entropy"
        and problem.features == "nonnegative"
        and problem.depth == 1
        and problem.bias == "none"
    )
    if not covered or problem.dim is None:
        return covered
    margins = _margins(problem, Partition.coarsest(problem))
    kept = sum(group.classes for group, m in zip(problem.groups, margins, strict=True) if m > 0)
    return problem.dim >= kept


def solve(problem: Problem) -> tuple[BlockMatrix, Array]:
    """Return logits ``m_k (delta_jk - 1/K)`` on orthogonal class means.

    ``m_k = log((K-1)(1/t_k - 1))`` with ``t_k = N lambda sqrt((K-1)/(K n_k))`` if
    ``t_k < (K-1)/K``, else 0: the class vanishes.
    """
    partition = Partition.coarsest(problem)
    margins = _margins(problem, partition)
    mean = np.diag(margins / partition.sizes) - margins / problem.num_classes
    within = np.where(partition.sizes > 1, margins, 0.0)
    return BlockMatrix(partition, within, mean), np.zeros(partition.num_groups)


def lower_bound(problem: Problem) -> float:
    """Return a bound of the objective that holds for all W and all H >= 0.

    By Jensen the loss of class k is at least ``log(1 + (K-1) e^{-m_k})``, ``m_k`` its mean margin.
    Since H >= 0 makes all products of features non-negative, the decay cost is at least
    ``sum_k c_k m_k`` for any ``0 <= c_k <= lambda sqrt(n_k (K-1)/K)``. The sum of both is minimised
    class by class (docs/theory.md section 5).
    """
    partition = Partition.coarsest(problem)
    margins = _margins(problem, partition)
    k = problem.num_classes
    losses = np.log1p((k - 1) * np.exp(-margins))
    costs = problem.logit_decay * np.sqrt(partition.counts * (k - 1) / k) * margins
    return float(partition.shares @ losses + partition.sizes @ costs)


def _margins(problem: Problem, partition: Partition) -> Array:
    k = problem.num_classes
    t = partition.num_samples * problem.logit_decay * np.sqrt((k - 1) / (k * partition.counts))
    shown = np.minimum(t, (k - 1) / k)  # keeps the logarithm defined for vanished classes
    margins = math.log(k - 1) + np.log1p(-shown) - np.log(shown)
    return np.where(at_most((k - 1) / k, t), 0.0, margins)
