"""Balanced cross-entropy with real features and one layer: a simplex ETF (Zhu et al. 2021)."""

from __future__ import annotations

import math

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.problem.problem import Problem, at_most

NAME = "balanced cross-entropy"


def solve(problem: Problem) -> tuple[BlockMatrix, Array]:
    """Return ``Z = m (I - 11^T/K)``, ``m = log(1/(lambda sqrt(n)) - K + 1)``.

    If ``lambda sqrt(n) >= 1/K``, everything collapses to zero. A bias is zero at the minimum.
    Equal class weights divide lambda. Smoothed labels are extra decay, ``epsilon / K`` more in
    place of ``lambda sqrt(n)``, and a margin is added to m.
    """
    partition = Partition.coarsest(problem)
    k, labels = problem.num_classes, partition.labels
    ratio = problem.logit_decay * math.sqrt(partition.counts[0]) / float(partition.weights[0])
    added = 0.0
    if labels is not None:
        ratio += float(labels.smoothing[0]) / k
        added = float(labels.margins[0])
    # One over a wrong class's probability where all logits are zero.
    flat = k + math.expm1(-added)
    zero = at_most(1.0, ratio * flat)
    margin = 0.0 if zero else max(math.log1p(1 / ratio - k) + added, 0.0)
    logits = BlockMatrix(partition, np.array([margin]), np.zeros((1, 1)))
    return logits, np.zeros(1)


def lower_bound(problem: Problem) -> float | None:
    """Return None: the problem is convex, and the duality gap certifies the point."""
    return None
