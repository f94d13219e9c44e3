"""Data fits (cross-entropy, MSE) on block matrices: value, residual, curvature, dual value.

For both losses the gradient of the mean loss with respect to ``X = Z D^{1/2}`` is
``R D^{1/2} / N`` with a residual matrix R: ``R = P - I`` for cross-entropy (P the softmax
probabilities as columns), ``R = Z + b 1^T - I`` for MSE. R is also the dual variable, so the
certificate needs nothing else.

``within`` and ``scores`` describe the logits: ``scores[j, i] = mean[j, i] + bias[j]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from tightframe.blocks import Array, BlockMatrix, Partition

#: Maps a change of (within, scores) to the change of the gradient with respect to both.
Curvature = Callable[[Array, Array], tuple[Array, Array]]


class Datafit(ABC):
    """Mean loss ``f(Z + b 1^T)`` of block logits over a partition."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition

    @abstractmethod
    def value(self, within: Array, scores: Array) -> float:
        """Return the mean loss over all samples (cross-entropy in nats)."""

    @abstractmethod
    def residual(self, within: Array, scores: Array) -> BlockMatrix:
        """Return R, so that ``R D^{1/2} / N`` is the gradient in ``X``."""

    @abstractmethod
    def curvature(self, within: Array, scores: Array) -> Curvature:
        """Return the Hessian of `value` in (within, scores) as a function."""

    @abstractmethod
    def dual_value(self, residual: BlockMatrix) -> float:
        """Return ``-f*`` at ``R D^{1/2} / N``: a lower bound's data part."""

    @abstractmethod
    def restrict(self, residual: BlockMatrix) -> BlockMatrix:
        """Return a nearby residual in the domain of the conjugate, where it left that."""

    @abstractmethod
    def repair(self, residual: BlockMatrix) -> BlockMatrix:
        """Return a nearby residual with ``R n = 0``, as a free bias demands of a dual point."""

    @abstractmethod
    def bias_hessian(self, within: Array, scores: Array) -> Array:
        """Return the Hessian of `value` in the bias of each group, shape (G, G)."""

    def gradient(self, within: Array, scores: Array) -> tuple[Array, Array]:
        """Return the gradient of `value` with respect to ``within`` and ``scores``."""
        p = self.partition
        residual = self.residual(within, scores)
        by_margin = p.shares * residual.within * (p.sizes - 1) / p.sizes
        return by_margin, residual.mean * p.shares * p.sizes[:, None]


class CrossEntropy(Datafit):
    """Softmax cross-entropy; R = P - I."""

    def _log_own(self, within: Array) -> Array:
        """Log-sum-exp of a group's logits about their mean, less log(size), shape (G,)."""
        k = self.partition.sizes
        return (
            within * (k - 1) / k
            + np.logaddexp(0.0, np.log(np.maximum(k - 1, 1e-300)) - within)
            - np.log(k)
        )

    def value(self, within: Array, scores: Array) -> float:
        k = self.partition.sizes
        own = np.diagonal(scores) + within * (k - 1) / k
        # Logits relative to the sample's own class; siblings and other groups separately, so
        # that a loss near zero keeps its digits.
        with np.errstate(divide="ignore"):
            siblings = np.log(k - 1) - within
        others = np.log(k)[:, None] + scores - own
        np.fill_diagonal(others, siblings)
        top = np.maximum(others.max(axis=0), 0.0)
        rest = np.exp(others - top).sum(axis=0)
        losses = np.where(top > 0, top + np.log(rest + np.exp(-top)), np.log1p(rest))
        return float(self.partition.shares @ losses)

    def _group_probabilities(self, within: Array, scores: Array) -> Array:
        """Probability of each group j for a sample of group i, shape (G, G)."""
        t = scores + np.log(self.partition.sizes)[:, None]
        t[np.diag_indices_from(t)] += self._log_own(within)
        t -= t.max(axis=0)
        np.exp(t, out=t)
        t /= t.sum(axis=0)
        return t

    def residual(self, within: Array, scores: Array) -> BlockMatrix:
        p = self.partition
        k = p.sizes
        q = self._group_probabilities(within, scores)
        # Of the own group's probability, one sibling's share: e^-s / (1 + (k - 1) e^-s).
        sibling = np.diagonal(q) * np.exp(-np.logaddexp(within, np.log(np.maximum(k - 1, 1e-300))))
        # 1 - own probability is summed from the small ones, which keeps digits where it is tiny.
        np.fill_diagonal(q, 0.0)
        leak = q.sum(axis=0)
        mean = q / k[:, None]
        mean[np.diag_indices_from(mean)] = -leak / k
        return BlockMatrix(p, np.where(k > 1, -(leak + k * sibling), 0.0), mean)

    def curvature(self, within: Array, scores: Array) -> Curvature:
        p = self.partition
        q = self._group_probabilities(within, scores)
        k = p.sizes
        # Of the own group's probability, the own class's share and all siblings' share.
        log_siblings = np.log(np.maximum(k - 1, 1e-300)) - within
        own_share = np.exp(-np.logaddexp(0.0, log_siblings))
        siblings_share = np.exp(log_siblings - np.logaddexp(0.0, log_siblings))
        slope = (k - 1) / k * own_share - siblings_share / k  # d log_own / d within
        bend = own_share * siblings_share
        diagonal = np.diag_indices(p.num_groups)
        own = q[diagonal]

        def apply(d_within: Array, d_scores: Array) -> tuple[Array, Array]:
            d = d_scores.copy()
            d[diagonal] += slope * d_within
            d -= np.einsum("ji,ji->i", q, d)
            d *= q
            by_margin = p.shares * (d[diagonal] * slope + own * bend * d_within)
            return by_margin, d * p.shares

        return apply

    def bias_hessian(self, within: Array, scores: Array) -> Array:
        q = self._group_probabilities(within, scores)
        weighted = q * self.partition.shares
        return np.diag(weighted.sum(axis=1)) - weighted @ q.T

    def dual_value(self, residual: BlockMatrix) -> float:
        """Return the mean entropy of the columns of ``P = I + R``; -inf outside the simplex."""
        p = self.partition
        k = p.sizes
        sibling = np.where(k > 1, np.diagonal(residual.mean) - residual.within / k, 0.0)
        others = residual.mean.copy()
        np.fill_diagonal(others, 0.0)
        sibling, others = _round_up(sibling), _round_up(others)
        escape = (k - 1) * sibling + k @ others  # probability of all wrong classes
        own = _round_up(1 - escape)
        if min(own.min(), sibling.min(), others.min()) < 0:
            return -np.inf
        log_own = np.where(
            own > 0.5, np.log1p(-np.minimum(escape, 0.5)), np.log(np.maximum(own, 1e-300))
        )
        entropy = -(k @ _xlogx(others)) - (k - 1) * _xlogx(sibling) - own * log_own
        return float(p.shares @ entropy)

    def restrict(self, residual: BlockMatrix) -> BlockMatrix:
        """Set negative probabilities of wrong classes to zero; the own class balances."""
        k = self.partition.sizes
        sibling = np.maximum(np.diagonal(residual.mean) - residual.within / k, 0.0)
        mean = np.maximum(residual.mean, 0.0)
        np.fill_diagonal(mean, 0.0)
        leak = k @ mean
        mean[np.diag_indices_from(mean)] = -leak / k
        within = np.where(k > 1, -(leak + k * sibling), 0.0)
        return BlockMatrix(self.partition, within, mean)

    def repair(self, residual: BlockMatrix) -> BlockMatrix:
        """Shift rows so that ``P n = n``, after mixing in ``n 1^T / N`` to stay non-negative."""
        p = self.partition
        excess = residual.row_average
        prior = p.counts / p.num_samples
        mix = float(np.max(np.maximum(excess, 0) / prior))
        mix = mix / (1 + mix)
        mean = (1 - mix) * (residual.mean - excess[:, None])
        mean += mix * (prior[:, None] - np.diag(1 / p.sizes))
        within = np.where(p.sizes > 1, (1 - mix) * residual.within - mix, 0.0)
        return BlockMatrix(p, within, mean)


class MeanSquaredError(Datafit):
    """Squared error ``0.5 ||z + b - e_y||^2``; R = Z + b 1^T - I."""

    def value(self, within: Array, scores: Array) -> float:
        r = self.residual(within, scores)
        return float(self.partition.shares @ self._squares(r)) / 2

    def residual(self, within: Array, scores: Array) -> BlockMatrix:
        p = self.partition
        return BlockMatrix(p, np.where(p.sizes > 1, within - 1, 0.0), scores - np.diag(1 / p.sizes))

    def curvature(self, within: Array, scores: Array) -> Curvature:
        p = self.partition
        by_margin = p.shares * (p.sizes - 1) / p.sizes
        by_score = p.sizes[:, None] * p.shares

        def apply(d_within: Array, d_scores: Array) -> tuple[Array, Array]:
            return by_margin * d_within, by_score * d_scores

        return apply

    def bias_hessian(self, within: Array, scores: Array) -> Array:
        return np.diag(self.partition.sizes)

    def dual_value(self, residual: BlockMatrix) -> float:
        """Return the mean of ``-||r||^2 / 2 - r_own``."""
        p = self.partition
        k = p.sizes
        own = np.diagonal(residual.mean) + residual.within * (k - 1) / k
        return float(p.shares @ (-self._squares(residual) / 2 - own))

    def restrict(self, residual: BlockMatrix) -> BlockMatrix:
        """Return the residual itself: the conjugate is finite everywhere."""
        return residual

    def repair(self, residual: BlockMatrix) -> BlockMatrix:
        """Subtract the row averages."""
        excess = residual.row_average
        return BlockMatrix(self.partition, residual.within, residual.mean - excess[:, None])

    def _squares(self, r: BlockMatrix) -> Array:
        return r.column_norms**2 / self.partition.counts


def make_datafit(loss: str, partition: Partition) -> Datafit:
    """Return the data fit of a `Problem.loss` over a partition."""
    return {"cross_entropy": CrossEntropy, "mse": MeanSquaredError}[loss](partition)


def _xlogx(x: Array) -> Array:
    return x * np.log(np.where(x > 0, x, 1.0))


def _round_up(x: Array) -> Array:
    return np.where((x < 0) & (x > -1e-15), 0.0, x)
