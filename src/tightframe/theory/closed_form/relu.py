"""Cross-entropy with non-negative (ReLU) features, no bias, any counts (Dang et al. 2024)."""

from __future__ import annotations

import math

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.problem.problem import Problem, at_most
from tightframe.rounding import FUNCTION, gamma

NAME = "cross-entropy with non-negative features"


def num_axes(problem: Problem) -> int:
    """Return the number of classes that do not vanish: each needs an axis of its own."""
    positive = margins(problem, Partition.coarsest(problem)) > 0
    return sum(group.classes for group, m in zip(problem.groups, positive, strict=True) if m)


def solve(problem: Problem) -> tuple[BlockMatrix, Array]:
    """Return logits ``m_k (delta_jk - 1/K)`` on orthogonal class means.

    ``m_k = log((K-1)(1/t_k - 1))`` with ``t_k = N lambda sqrt((K-1)/(K n_k))`` if
    ``t_k < (K-1)/K``, else 0: the class vanishes. A class weight divides its ``t_k``.
    """
    partition = Partition.coarsest(problem)
    return logits(partition, margins(problem, partition)), np.zeros(partition.num_groups)


def logits(partition: Partition, margins: Array) -> BlockMatrix:
    """Return ``Z = (I - 11^T/K) diag(m)`` for a margin of each group, shape (G,)."""
    mean = np.diag(margins / partition.sizes) - margins / partition.sizes.sum()
    return BlockMatrix(partition, np.where(partition.sizes > 1, margins, 0.0), mean)


def lower_bound(problem: Problem) -> float:
    """Return a bound of the objective that holds for all W and all H >= 0.

    By Jensen the loss of class k is at least ``log(1 + (K-1) e^{-m_k})``, ``m_k`` its mean margin.
    Since H >= 0 makes all products of features non-negative, the decay cost is at least
    ``sum_k c_k m_k`` for any ``0 <= c_k <= lambda sqrt(n_k (K-1)/K)``. The sum of both is minimised
    class by class (docs/theory.md section 5).
    """
    p, k = Partition.coarsest(problem), problem.num_classes
    # That minimum is the largest entropy of a wrong class's probability q at most t. What rounding
    # adds to t is taken off: any q below gives a bound.
    q = np.minimum(_slopes(problem, p), (k - 1) / k) * (1 - gamma(6 * FUNCTION))
    bounds = q * (math.log(k - 1) - np.log(q)) - (1 - q) * np.log1p(-q)
    return float(p.loss_shares @ bounds) * (1 - gamma(2 * p.num_groups + 6 * FUNCTION))


def margins(problem: Problem, partition: Partition) -> Array:
    """Return the margin of each group, shape (G,); 0 where its classes vanish.

    With smoothed labels or margins these are the best of their kind, and no minimiser's.
    """
    k, labels = problem.num_classes, partition.labels
    t = _slopes(problem, partition)
    if labels is not None:
        t = t + labels.smoothing * (k - 1) / k
    shown = np.minimum(t, (k - 1) / k)  # keeps the logarithm defined for vanished classes
    m = math.log(k - 1) + np.log1p(-shown) - np.log(shown)
    if labels is not None:
        return np.maximum(np.where(t < (k - 1) / k, m, 0.0) + labels.margins, 0.0)
    return np.where(at_most((k - 1) / k, t), 0.0, m)


def _slopes(problem: Problem, partition: Partition) -> Array:
    """Return t of each group, shape (G,): the decay's pull on a margin over that of the loss."""
    k = problem.num_classes
    scale = partition.num_samples * problem.logit_decay * math.sqrt((k - 1) / k)
    slopes: Array = scale / (partition.weights * np.sqrt(partition.counts) * partition.scales)
    return slopes
