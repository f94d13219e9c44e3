"""MSE with class weights, one layer, no bias, any counts: the logits are diagonal.

Changing the sign of a class's row and column, ``X -> S X S`` with S diagonal and ``S^2 = I``,
leaves loss and nuclear norm as they are, and the problem is convex in X: the average over all S,
the diagonal of X, is no worse. There each class has its own scalar problem. Non-negative features
reach the diagonal too.
"""

from __future__ import annotations

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.problem.problem import Problem
from tightframe.rounding import FUNCTION, gamma
from tightframe.theory.closed_form import deep_linear

NAME = "weighted MSE, one class at a time"


def num_axes(problem: Problem) -> int:
    """Return the number of classes that do not vanish: the rank of the minimiser."""
    shown = _sigma(problem, Partition.coarsest(problem)) > 0
    return sum(group.classes for group, s in zip(problem.groups, shown, strict=True) if s)


def solve(problem: Problem) -> tuple[BlockMatrix, Array]:
    """Return ``Z = diag(sigma_k / sqrt(n_k))``, ``sigma_k = (sqrt(n_k) - N lambda / w_k)_+``."""
    partition = Partition.coarsest(problem)
    own = _sigma(problem, partition) / np.sqrt(partition.counts)
    within = np.where(partition.sizes > 1, own, 0.0)
    logits = BlockMatrix(partition, within, np.diag(own / partition.sizes))
    return logits, np.zeros(partition.num_groups)


def lower_bound(problem: Problem) -> float:
    """Return the minima of the classes' scalar problems, summed; their rounding is subtracted."""
    p = Partition.coarsest(problem)
    root = np.sqrt(p.counts)
    # What is missing from the label keeps its digits, the difference would not.
    missing = np.minimum(root, p.num_samples * problem.logit_decay / p.weights)
    losses = p.weights * missing**2 / (2 * p.num_samples)
    bound = float(p.sizes @ (losses + problem.logit_decay * (root - missing)))
    return bound * (1 - gamma(p.num_groups + 12 * FUNCTION))


def _sigma(problem: Problem, partition: Partition) -> Array:
    return deep_linear.shrink(problem, np.sqrt(partition.counts), partition.weights)
