"""Starts: points of the factored problem, and good ones to begin a solve from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix, Partition, svd, without_rounding
from tightframe.problem.problem import Problem
from tightframe.theory.certificate import objective, penalty
from tightframe.theory.closed_form import deep_linear, relu


class Factors(NamedTuple):
    """A point of the factored problem.

    Attributes
    ----------
    left, right : ndarray, shape (G, r)
        ``X = left @ right.T`` is the reduced matrix of the logits.
    within : ndarray, shape (G,)
        Margins inside the groups.
    bias : ndarray, shape (G,)
    """

    left: Array
    right: Array
    within: Array
    bias: Array

    @classmethod
    def balanced(cls, logits: BlockMatrix, bias: Array) -> Factors:
        """Return the cheapest factors of given logits."""
        return cls.from_svd(*svd(logits.reduced), logits.within, bias)

    @classmethod
    def from_svd(
        cls, left: Array, values: Array, right: Array, within: Array, bias: Array
    ) -> Factors:
        """Return balanced factors, one column a positive singular value."""
        rank = int((without_rounding(values) > 0).sum())
        root = np.sqrt(values[:rank])
        return cls(left[:, :rank] * root, right[:rank].T * root, within, bias)


def first_guess(problem: Problem, partition: Partition) -> tuple[BlockMatrix, Array]:
    """Return logits and a bias near the minimiser.

    For a softmax loss without bias those are the logits with ReLU features: known in closed form,
    and within a percent or so of the objective with real ones. Where nothing is known it is zero,
    from which proximal steps find the rank.
    """
    bias = np.zeros(partition.num_groups)
    if problem.loss_object.is_quadratic:
        return _quadratic_guess(problem, partition)
    if not problem.loss_object.is_softmax:
        return partition.matrix(bias, np.diag(bias)), bias
    logits = relu.logits(partition, relu.margins(problem, partition))
    if partition.is_scaled:
        logits = _unscaled(logits)
    if problem.bias == "none":
        return logits, bias
    # The bias can carry the sample-weighted row averages: at no cost if it is free, else as far as
    # that saves more of the logits' decay than it costs.
    row = logits.row_average
    moved = _without_rows(logits)
    share = 1.0
    if problem.bias == "decayed":
        saved = penalty(problem, logits) - penalty(problem, moved)
        cost = problem.bias_decay * float(partition.sizes @ row**2)
        share = min(max(saved, 0.0) / cost, 1.0) if cost > 0 else 0.0
    guess = BlockMatrix(partition, logits.within, logits.mean - share * row[:, None]), share * row
    if problem.bias == "decayed" or partition.is_scaled:
        return guess
    return min(
        guess, _full_rank_guess(problem, moved), key=lambda point: objective(problem, *point)
    )


def _quadratic_guess(problem: Problem, partition: Partition) -> tuple[BlockMatrix, Array]:
    """Return the best of the exact minimisers for a few biases between zero and the class shares.

    Exact where the class weights are equal; others are replaced by their mean over the samples.
    For a given bias the targets' singular values are soft-thresholded (docs/theory.md section 5).
    """
    root = np.sqrt(partition.counts)
    weight = float(partition.loss_shares.sum())
    within = np.where(
        partition.sizes > 1, deep_linear.shrink(problem, root, partition.weights) / root, 0.0
    )
    points = []
    for share in (0.0,) if problem.bias == "none" else np.linspace(0, 1, 5):
        bias = share * partition.counts / partition.num_samples
        target = (np.diag(1 / partition.sizes) - bias[:, None]) * partition.scale
        left, values, right = svd(target)
        reduced = (left * deep_linear.shrink(problem, values, weight)) @ right
        points.append((BlockMatrix(partition, within, reduced / partition.scale), bias))
    return min(points, key=lambda point: objective(problem, *point))


def _full_rank_guess(problem: Problem, logits: BlockMatrix) -> tuple[BlockMatrix, Array]:
    """Return logits and a bias whose probabilities solve the optimality condition at full rank.

    There ``P - I = -lambda N T D^{-1/2}``, divided by the class weights, with T the polar factor of
    ``Z D^{1/2}``, which is taken from other logits. Where that leaves the simplex, probabilities
    are cut off.
    """
    p = logits.partition
    k = p.sizes
    left, values, right = svd(logits.reduced)
    rank = int((without_rounding(values) > 0).sum())
    reach = problem.logit_decay * p.num_samples / (p.weights * np.sqrt(p.counts))
    wrong = -(left[:, :rank] @ right[:rank]) / np.sqrt(np.outer(k, k)) * reach
    least = 1e-3 * reach / k.sum()
    if p.labels is not None:
        wrong += p.labels.spread[:, None] * p.labels.smoothing
    sibling = np.maximum(np.diagonal(wrong) + reach / k, least)
    wrong = np.maximum(wrong, least)
    np.fill_diagonal(wrong, (k - 1) / k * sibling)
    escape = k @ wrong
    shrink = np.minimum(1, 0.9 / escape)
    own = np.log1p(-shrink * escape)
    within = np.where(k > 1, np.maximum(own - np.log(shrink * sibling), 0.0), 0.0)
    np.fill_diagonal(wrong, 1.0)
    mean = np.log(shrink * wrong)
    np.fill_diagonal(mean, own - (k - 1) / k * within)
    mean -= p.adjustment[:, None]
    if p.labels is not None:
        within = np.where(k > 1, within + np.maximum(p.labels.margins, 0.0), 0.0)
        mean[np.diag_indices(len(k))] += p.labels.margins / k
    guess = BlockMatrix(p, within, mean - k @ mean / k.sum())
    return _without_rows(guess), guess.row_average


def _unscaled(logits: BlockMatrix) -> BlockMatrix:
    """Divide logits by their scales, without what a softmax does not see."""
    p = logits.partition
    mean = logits.mean / p.scales[:, None]
    root = np.sqrt(p.sizes)
    mean -= np.outer(p.ignored / root, (p.ignored * root) @ mean)
    return BlockMatrix(p, logits.within / p.scales, mean)


def _without_rows(logits: BlockMatrix) -> BlockMatrix:
    """Subtract the sample-weighted row averages."""
    mean = logits.mean - logits.row_average[:, None]
    return BlockMatrix(logits.partition, logits.within, mean)
