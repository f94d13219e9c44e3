"""MSE with one or more linear layers, no or free bias, any counts: singular values decouple.

Without bias the geometry is a general orthogonal frame (Dang et al. 2023). A free bias is
minimised out first, which replaces ``D^{1/2}`` by ``A = D^{1/2}(I - u u^T)``, ``u = sqrt(n/N)``.
By von Neumann's trace inequality the objective is at least
``sum_i (sigma_i - a_i)^2 / (2N) + (M+1)/2 mu sigma_i^{2/(M+1)}`` over sorted singular values, with
equality where logits and A share singular vectors; so each sigma_i solves a scalar problem. Without
bias the minimiser is diagonal and can be built from non-negative features too. A weight that all
classes have divides N. With unequal ones nothing decouples (`closed_form.weighted_mse`).
"""

from __future__ import annotations

import math

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix, Partition, svd
from tightframe.problem.problem import Problem, at_most
from tightframe.rounding import FUNCTION, gamma, svd_error

NAME = "MSE, decoupled singular values"


def solve(problem: Problem) -> tuple[BlockMatrix, Array]:
    """Return the minimiser; if ``dim`` is too small, the largest singular values are kept."""
    weight = common_weight(problem)
    partition = Partition.coarsest(problem)
    values, times = targets(problem, partition).spectrum
    width = problem.num_classes if problem.width is None else problem.width
    if width < times[shrink(problem, values, weight) > 0].sum():
        # The cut may run through a group of equal classes, so no symmetry is used.
        partition = Partition.singletons(problem)
    root = np.sqrt(partition.counts)
    if problem.bias == "none":  # diagonal already; an SVD would blur its zeros
        order = np.argsort(-root, kind="stable")
        left, values, right = np.eye(len(root))[:, order], root[order], np.eye(len(root))[order]
    else:
        left, values, right = svd(targets(problem, partition).reduced)
    sigma = shrink(problem, values, weight)
    if partition.num_groups == problem.num_classes:
        sigma[width:] = 0.0
    within = np.where(partition.sizes > 1, shrink(problem, root, weight) / root, 0.0)
    logits = BlockMatrix(partition, within, (left * sigma) @ right / partition.scale)
    prior = partition.counts / partition.num_samples
    bias = prior if problem.bias == "free" else np.zeros(partition.num_groups)
    return logits, bias


def lower_bound(problem: Problem) -> float:
    """Return the decoupled bound; it holds for all factors of the given width.

    Rounding is subtracted. The cost of a target grows with it, so targets are taken as low as they
    may be.
    """
    partition = Partition.coarsest(problem)
    if problem.bias == "none":
        values, times = np.sqrt(partition.counts) * (1 - gamma(FUNCTION)), partition.sizes
    else:
        values, times = targets(problem, partition).spectrum
        error = svd_error(partition.num_groups) * math.sqrt(float(times @ values**2))
        values = np.maximum(values - error, 0.0)
    order = np.argsort(-values)
    values, times = values[order], times[order]
    width = problem.num_classes if problem.width is None else problem.width
    used = np.clip(width - (np.cumsum(times) - times), 0, times)
    zero = common_weight(problem) * values**2 / (2 * problem.num_samples)
    bound = float(used @ np.minimum(_nonzero_cost(problem, values), zero) + (times - used) @ zero)
    return bound * (1 - gamma(2 * len(values) + 10 * FUNCTION))


def common_weight(problem: Problem) -> float:
    """Return the class weight that all classes have."""
    return float(problem.group_weights[0])


def shrink(problem: Problem, targets: Array, weights: Array | float) -> Array:
    """Minimise ``w (s - a)^2 / (2N) + (M+1)/2 mu s^{2/(M+1)}`` over s >= 0 for every target a.

    One layer: soft-thresholding at ``N mu / w``. More: the larger root of
    ``(a - s) s^p = N mu / w``, ``p = (M-1)/(M+1)``, unless zero costs no more (`collapse_factor`).
    """
    threshold = problem.num_samples * problem.mean_decay / weights
    return shrunk(targets, threshold, problem.depth)


def shrunk(targets: Array, threshold: Array | float, depth: int) -> Array:
    """Minimise ``(s - a)^2 / 2 + (M+1)/2 threshold s^{2/(M+1)}`` over s >= 0, M the depth."""
    m = depth
    zero = at_most(collapse_factor(m) * targets ** (2 * m / (m + 1)), threshold)
    if m == 1:
        return np.where(zero, 0.0, targets - threshold)
    p = (m - 1) / (m + 1)
    # (a - s) s^p falls from its peak at s = a p / (1 + p) to zero at a: bisect in between.
    low, high = targets * p / (1 + p), targets.copy()
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = (targets - middle) * middle**p > threshold
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(zero, 0.0, (low + high) / 2)


def collapse_factor(depth: int) -> float:
    """Return c_M: `shrink` takes a target a to zero iff ``w c_M a^{2M/(M+1)} <= N mu``."""
    m = depth
    return float(((m - 1) / m) ** ((m - 1) / (m + 1)) / m)


#: Halvings that exhaust float64 from any bracket [p a / (1 + p), a].
BISECTIONS = 60


def _nonzero_cost(problem: Problem, targets: Array) -> Array:
    """Return `least_nonzero_cost` at the problem's decays."""
    total, weight = problem.num_samples, common_weight(problem)
    return least_nonzero_cost(targets, problem.mean_decay, problem.depth, total, weight)


def least_nonzero_cost(
    targets: Array, mean_decay: float, depth: int, total: int, weight: float = 1.0
) -> Array:
    """Return a lower bound of the cost of the best s > 0 for each target; inf if zero is better.

    There ``a - s = N mu / (w s^p)``, which keeps its digits where s is next to a.
    """
    m = depth
    threshold, p = total * mean_decay / weight, (m - 1) / (m + 1)
    s = shrunk(targets, threshold, m)
    low, high = (
        s * (1 - gamma(16 * FUNCTION)),
        np.minimum(s * (1 + gamma(16 * FUNCTION)), targets),
    )
    if m == 1:
        low = high = np.maximum(targets - threshold, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = threshold / high**p
        decay_cost = (m + 1) / 2 * mean_decay * low ** (2 / (m + 1))
        cost = weight * missed**2 / (2 * total) + decay_cost
    return np.where(s > 0, cost, np.inf)


def targets(problem: Problem, partition: Partition) -> BlockMatrix:
    """Return the identity, centred by the class shares where a free bias takes those."""
    within = np.where(partition.sizes > 1, 1.0, 0.0)
    mean = np.diag(1 / partition.sizes)
    if problem.bias == "free":
        share = partition.counts / partition.num_samples
        mean = np.repeat(-share[:, None], partition.num_groups, axis=1)
        # One minus the share of a group that has nearly all samples keeps no digits.
        others = np.where(np.eye(len(share)) > 0, 0.0, partition.shares).sum(axis=1)
        np.fill_diagonal(mean, others / partition.sizes)
    return BlockMatrix(partition, within, mean)
