"""Softmax cross-entropy: R = P - I, P the probabilities as columns, times the class weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tightframe.losses.base import Array, Columns, Datafit, Derivatives, Loss

if TYPE_CHECKING:
    from torch import Tensor

    from tightframe.geometry.blocks import BlockMatrix, Partition


class CrossEntropy(Loss):
    """Softmax cross-entropy ``-log p_y`` in nats, with class weights and a logit adjustment."""

    name = "cross_entropy"
    title = "cross-entropy"
    unit = "nats"
    ignores_constants = True
    takes_class_terms = True
    is_softmax = True
    attains_zero = False
    vanishing_frame = "seli"
    default_margin = 1.0

    def datafit(self, partition: Partition) -> Datafit:
        return CrossEntropyFit(partition)

    def predictions(self, logits: Array) -> Array:
        """Return the softmax: as at test time, without adjustment."""
        odds = np.exp(logits - logits.max(axis=0))
        shares: Array = odds / odds.sum(axis=0)
        return shares

    def batch_mean(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, adjustment: Tensor | None
    ) -> Tensor:
        from torch.nn import functional

        if adjustment is not None:
            logits = logits + adjustment
        if weights is None:
            return functional.cross_entropy(logits, labels)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return (losses * weights[labels]).mean()

    def column_values(self, scores: Tensor, targets: Tensor) -> Tensor:
        # Where a run has diverged, zero times infinity must not enter the sum.
        own = (scores * targets).where(targets > 0, 0.0).sum(dim=1)
        return scores.logsumexp(dim=1) - own

    def column_residuals(self, scores: Tensor, targets: Tensor) -> Tensor:
        return scores.softmax(dim=1).sub_(targets)


class CrossEntropyFit(Datafit):
    """Softmax cross-entropy; R = (P - I) times the class weights, P that of adjusted logits."""

    def __init__(self, partition: Partition) -> None:
        super().__init__(partition)
        # Most problems have neither, and sweeps call these functions thousands of times.
        self.weighted = bool((partition.weights != 1).any())
        self.adjusted = bool(partition.adjustment.any())

    def _log_own(self, within: Array) -> Array:
        """Log-sum-exp of a group's logits about their mean, less log(size), shape (G,)."""
        k = self.partition.sizes
        return (
            within * (k - 1) / k
            + np.logaddexp(0.0, np.log(np.maximum(k - 1, 1e-300)) - within)
            - np.log(k)
        )

    def values(self, within: Array, scores: Array) -> Array:
        k = self.partition.sizes
        scores = self._adjusted(scores)
        own = scores[..., self.groups, self.groups] + within * (k - 1) / k
        # Logits relative to the sample's own class; siblings and other groups separately, so
        # that a loss near zero keeps its digits.
        with np.errstate(divide="ignore"):
            siblings = np.log(k - 1) - within
        others = np.log(k)[:, None] + scores - own[..., None, :]
        others[..., self.groups, self.groups] = siblings
        top = np.maximum(others.max(axis=-2), 0.0)
        others -= top[..., None, :]
        rest = np.exp(others, out=others).sum(axis=-2)
        losses = np.where(top > 0, top + np.log(rest + np.exp(-top)), np.log1p(rest))
        mean: Array = losses @ self.partition.loss_shares
        return mean

    def _adjusted(self, scores: Array) -> Array:
        return scores + self.partition.adjustment[:, None] if self.adjusted else scores

    def _group_probabilities(self, within: Array, scores: Array) -> Array:
        """Probability of each group j for a sample of group i, shape (G, G)."""
        p = self.partition
        t: Array = scores + (np.log(p.sizes) + p.adjustment)[:, None]
        t[..., self.groups, self.groups] += self._log_own(within)
        t -= t.max(axis=-2, keepdims=True)
        np.exp(t, out=t)
        t /= t.sum(axis=-2, keepdims=True)
        return t

    def residual(self, within: Array, scores: Array) -> BlockMatrix:
        return self._residual(within, self._group_probabilities(within, scores))

    def _residual(self, within: Array, q: Array) -> BlockMatrix:
        p = self.partition
        k = p.sizes
        # Of the own group's probability, one sibling's share: e^-s / (1 + (k - 1) e^-s).
        own = q[..., self.groups, self.groups]
        sibling = own * np.exp(-np.logaddexp(within, np.log(np.maximum(k - 1, 1e-300))))
        # 1 - own probability is summed from the small ones, which keeps digits where it is tiny.
        mean = q / k[:, None]
        mean[..., self.groups, self.groups] = 0.0
        leak = k @ mean
        mean[..., self.groups, self.groups] = -leak / k
        within = np.where(k > 1, -(leak + k * sibling), 0.0)
        if self.weighted:
            within, mean = within * p.weights, mean * p.weights
        return p.matrix(within, mean)

    def scores(self, residual: BlockMatrix) -> tuple[Array, Array]:
        k = self.partition.sizes
        own, sibling, others = self._probabilities(residual)
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN and -inf outside the simplex
            own = np.log(own)
            within = np.where(k > 1, own - np.log(sibling), 0.0)
            scores: Array = np.log(others)
            scores[..., self.groups, self.groups] = own - within * (k - 1) / k
        if self.adjusted:
            scores -= self.partition.adjustment[:, None]
        return within, scores - (k @ scores / k.sum())[..., None, :]

    def values_at(self, residual: BlockMatrix) -> Array:
        k = self.partition.sizes
        own, within = residual.mean[..., self.groups, self.groups], residual.within
        if self.weighted:
            own, within = own / self.partition.weights, within / self.partition.weights
        # In a residual the diagonal's mean is minus the probability of all other groups, over k.
        others = -k * own
        sibling = -(within + others) / k
        wrong = np.where(k > 1, others + (k - 1) * sibling, others)
        with np.errstate(divide="ignore"):
            mean: Array = -np.log1p(-wrong) @ self.partition.loss_shares
        return mean

    def _probabilities(self, residual: BlockMatrix) -> tuple[Array, Array, Array]:
        """Return the probabilities P of own class, of siblings and of other classes.

        Of shapes (G,), (G,) and (G, G); the last has zeros on its diagonal, and that of siblings
        is zero for a group of one class.
        """
        k, sibling, others = self._wrong(residual)
        return 1 - (k - 1) * sibling - k @ others, sibling, others

    def _wrong(self, residual: BlockMatrix) -> tuple[Array, Array, Array]:
        """Return the sizes, and the probabilities of siblings and of other classes."""
        k, within = self.partition.sizes, residual.within
        if self.weighted:
            others = residual.mean / self.partition.weights
            within = within / self.partition.weights
        else:
            others = residual.mean.copy()
        sibling = others[..., self.groups, self.groups] - within / k
        sibling = np.where(k > 1, sibling, 0.0)
        others[..., self.groups, self.groups] = 0.0
        return k, sibling, others

    def _margin_terms(self, within: Array) -> tuple[Array, Array]:
        """Return first and second derivative of `_log_own`."""
        k = self.partition.sizes
        # Of the own group's probability, the own class's share and all siblings' share.
        log_siblings = np.log(np.maximum(k - 1, 1e-300)) - within
        own_share = np.exp(-np.logaddexp(0.0, log_siblings))
        siblings_share = np.exp(log_siblings - np.logaddexp(0.0, log_siblings))
        return (k - 1) / k * own_share - siblings_share / k, own_share * siblings_share

    def derivatives(self, within: Array, scores: Array) -> Derivatives:
        p = self.partition
        q = self._group_probabilities(within, scores)
        k = p.sizes
        slope, bend = self._margin_terms(within)
        bend = np.diagonal(q) * bend
        weights = q * p.loss_shares
        groups = self.groups
        alone = not np.any(k > 1)  # then there are no margins

        def apply(d_within: Array, d_scores: Array) -> tuple[Array, Array]:
            if alone:
                d = d_scores - (q * d_scores).sum(axis=-2, keepdims=True)
                d *= weights
                return np.zeros_like(d_within), d
            d = d_scores.copy()
            d[..., groups, groups] += slope * d_within
            d -= (q * d).sum(axis=-2, keepdims=True)
            d *= weights
            return d[..., groups, groups] * slope + p.loss_shares * bend * d_within, d

        spread = q * (1 - q) * p.loss_shares
        margin_diagonal = np.diagonal(spread) * slope**2 + p.loss_shares * bend
        return Derivatives(
            *self._gradient(self._residual(within, q)), apply, margin_diagonal, spread
        )

    def columns(self, within: Array, scores: Array) -> Columns:
        p = self.partition
        q = self._group_probabilities(within, scores)
        slope, bend = self._margin_terms(within)
        bend = np.diagonal(q) * bend * p.loss_shares
        gradient = self._gradient(self._residual(within, q))
        return Columns(*gradient, slope, bend, p.loss_shares, q * p.loss_shares, q)

    @property
    def smoothness(self) -> float:
        return float(self.partition.weights.max()) / (2 * self.partition.num_samples)

    def bias_derivatives(self, within: Array, scores: Array) -> tuple[Array, Array]:
        p = self.partition
        q = self._group_probabilities(within, scores)
        weighted = q * p.loss_shares
        gradient = p.sizes * self._residual(within, q).row_average
        return gradient, np.diag(weighted.sum(axis=1)) - weighted @ q.T

    def dual_values(self, residual: BlockMatrix) -> Array:
        """Return the weighted mean entropy of P's columns; -inf outside the simplex.

        An adjustment a adds ``a^T R n / N``.
        """
        p = self.partition
        k, sibling, others = self._wrong(residual)
        if others.min(initial=0.0) < 0 or sibling.min() < 0:
            sibling, others = _round_up(sibling), _round_up(others)
        escape = (k - 1) * sibling + k @ others  # probability of all wrong classes
        own = _round_up(1 - escape)
        outside = np.minimum(np.minimum(own, sibling), others.min(axis=-2)).min(axis=-1) < 0
        if outside.all():
            return np.where(outside, -np.inf, 0.0)
        if outside.any():
            sibling, others = np.maximum(sibling, 0.0), np.maximum(others, 0.0)
        log_own = np.where(
            own > 0.5, np.log1p(-np.minimum(escape, 0.5)), np.log(np.maximum(own, 1e-300))
        )
        entropy = -(k @ _xlogx(others)) - (k - 1) * _xlogx(sibling) - own * log_own
        value = entropy @ p.loss_shares
        if self.adjusted:
            value = value + residual.row_average @ (p.sizes * p.adjustment)
        return np.where(outside, -np.inf, value)

    def restrict(self, residual: BlockMatrix) -> BlockMatrix:
        """Set negative probabilities of wrong classes to zero; the own class balances."""
        k = self.partition.sizes
        sibling = np.maximum(np.diagonal(residual.mean) - residual.within / k, 0.0)
        mean = np.maximum(residual.mean, 0.0)
        np.fill_diagonal(mean, 0.0)
        leak = k @ mean
        mean[np.diag_indices_from(mean)] = -leak / k
        within = np.where(k > 1, -(leak + k * sibling), 0.0)
        return self.partition.matrix(within, mean)

    def repair(self, residual: BlockMatrix) -> BlockMatrix:
        """Shift rows to averages of zero, after mixing in what keeps P non-negative.

        That is the residual of the weighted class shares, whose rows average to zero.
        """
        p = self.partition
        excess = residual.row_average
        prior = p.counts * p.weights / (p.loss_shares.sum() * p.num_samples)
        mix = float(np.max(np.maximum(excess, 0) / prior)) / float(p.weights.min())
        mix = mix / (1 + mix)
        mean = (1 - mix) * (residual.mean - excess[:, None])
        mean += mix * (prior[:, None] - np.diag(1 / p.sizes)) * p.weights
        within = np.where(p.sizes > 1, (1 - mix) * residual.within - mix * p.weights, 0.0)
        return p.matrix(within, mean)

    def values_and_residuals(self, scores: Array) -> tuple[Array, Array]:
        p, own = self.partition, self.groups
        scores = self._adjusted(scores)
        # Relative to the own class, whose term is kept apart: a loss near zero keeps its digits.
        others = scores - scores[:, own, own][:, None]
        others[:, own, own] = -np.inf
        top = np.maximum(others.max(axis=1), 0.0)
        odds = np.exp(others - top[:, None])
        wrong = odds.sum(axis=1)
        total = wrong + np.exp(-top)
        losses = np.where(top > 0, top + np.log(total), np.log1p(wrong))
        residual = odds / total[:, None]
        residual[:, own, own] = -wrong / total
        return losses @ p.loss_shares, residual * p.weights

    def sample_sum(self, logits: Array, labels: NDArray[np.intp]) -> float:
        p = self.partition
        logits = logits + p.adjustment[p.class_groups]
        logits -= np.take_along_axis(logits, labels[:, None], axis=1)
        losses = np.logaddexp.reduce(logits, axis=1)
        return float(losses @ p.weights[p.class_groups[labels]])

    def sample_residuals(self, logits: Array, labels: NDArray[np.intp]) -> Array:
        p = self.partition
        logits = logits + p.adjustment[p.class_groups]
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        logits[np.arange(len(logits)), labels] -= 1
        logits *= p.weights[p.class_groups[labels], None]
        return logits


def _xlogx(x: Array) -> Array:
    return x * np.log(np.where(x > 0, x, 1.0))


def _round_up(x: Array) -> Array:
    return np.where((x < 0) & (x > -1e-15), 0.0, x)
