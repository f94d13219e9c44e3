"""Cross-entropy of smoothed labels, and with margins taken off the own logit.

With label distributions ``p_i = (1 - e_i) e_own + e_i s`` (see `Labels`) the loss of a sample is

    lse(t) - p_i^T t,    t = z + adjustment - margin_i e_own,

so that R = Q - P, times the weights, Q the probabilities of t. A margin moves the own logit only:
everything about Q is that of `CrossEntropyFit` at shifted logits. The conjugate is finite where
``Q = P + R / weight`` is a distribution, and the dual value is the mean entropy of Q plus
``<R, adjustment - margins>`` (docs/theory.md section 2).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tightframe.losses.base import Array, Columns, Datafit, Derivatives
from tightframe.losses.cross_entropy import CrossEntropy, CrossEntropyFit, _xlogx
from tightframe.losses.scaled import ScaledFit
from tightframe.rounding import FUNCTION, UNIT, gamma, long_gamma

if TYPE_CHECKING:
    from tightframe.geometry.blocks import BlockMatrix, Labels, Partition


class SoftCrossEntropy(CrossEntropy):
    """Cross-entropy, whose labels need not be one-hot and whose logits may be scaled."""

    def datafit(self, partition: Partition) -> Datafit:
        labels = partition.labels
        fit = super().datafit(partition) if labels is None else SoftLabelFit(partition, labels)
        return ScaledFit(fit) if partition.is_scaled else fit


class SoftLabelFit(CrossEntropyFit):
    """Cross-entropy of label distributions that are not one-hot; R = (Q - P) times the weights."""

    def __init__(self, partition: Partition, labels: Labels) -> None:
        super().__init__(partition)
        self.smoothing, self.spread, self.margins = labels
        self.shift_within = np.where(partition.sizes > 1, self.margins, 0.0)
        self.spread_share = partition.sizes * self.spread  # of a whole group
        #: Smoothed share of one class of group j in the labels of group i.
        self.smoothed = self.spread[:, None] * self.smoothing
        self.own_smoothed = self.spread * self.smoothing
        #: What a label has of its own class, at least.
        self.least_own = 1 - float(self.smoothing.max())
        self.largest_shift += float(np.abs(self.margins).max())
        self.label_within = 1 - self.smoothing

    # -- logits without margins ---------------------------------------------------------------

    def _seen(self, within: Array, scores: Array) -> tuple[Array, Array]:
        """Return logits as the loss sees them but for the adjustment: margins taken off."""
        scores = scores.copy()
        scores[..., self.groups, self.groups] -= self.margins / self.partition.sizes
        return within - self.shift_within, scores

    def _tilt(self, within: Array, scores: Array) -> tuple[Array, Array]:
        """Return the mean of the seen logits over ``spread`` less the own one, and a bound of it.

        Of logits without margins; the bound is the mean of sizes that rounding goes by.
        """
        k = self.partition.sizes
        scores = self._adjusted(scores)
        own = scores[..., self.groups, self.groups] + within * (k - 1) / k
        apart = scores - own[..., None, :]
        return self.spread_share @ apart, self.spread_share @ np.abs(apart)

    def _smoothing_loss(self, within: Array, scores: Array) -> tuple[Array, Array]:
        """Return what smoothing adds to the loss of a sample of each group, and its size."""
        tilt, size = self._tilt(within, scores)
        return -self.smoothing * tilt, self.smoothing * size

    # -- values and derivatives --------------------------------------------------------------

    def values(self, within: Array, scores: Array) -> Array:
        within, scores = self._seen(within, scores)
        losses = self._losses(within, scores)[0] + self._smoothing_loss(within, scores)[0]
        mean: Array = losses @ self.partition.loss_shares
        return mean

    def evaluate(self, within: Array, mean: Array, bias: Array) -> tuple[Array, Array, BlockMatrix]:
        p = self.partition
        seen, shifted = self._seen(within, mean)
        values, errors, residual = super().evaluate(seen, shifted, bias)
        scores = shifted + bias[..., None]
        more, size = self._smoothing_loss(seen, scores)
        # A logit's difference is off by a dozen roundings of its parts, a margin by four more.
        parts = np.abs(mean).max(axis=-2) + np.abs(within) + 2 * self.largest_shift
        parts = parts + 2 * np.abs(bias).max(axis=-1)[..., None]
        added = 12 * UNIT * self.smoothing * parts + gamma(2 * p.num_groups + 16) * size
        if self.margins.any():
            losses = self._losses(seen, scores)[0]
            added = added - 8 * UNIT * np.expm1(-losses) * parts
        errors = errors + added @ p.loss_shares
        values = values + more @ p.loss_shares
        errors = errors + gamma(2 * p.num_groups + 8) * (size @ p.loss_shares + np.abs(values))
        return values, errors, residual

    def residual(self, within: Array, scores: Array) -> BlockMatrix:
        return super().residual(*self._seen(within, scores))

    def _wrong_to_residual(self, sibling: Array, others: Array) -> BlockMatrix:
        return super()._wrong_to_residual(sibling - self.own_smoothed, others - self.smoothed)

    def derivatives(self, within: Array, scores: Array) -> Derivatives:
        return super().derivatives(*self._seen(within, scores))

    def columns(self, within: Array, scores: Array) -> Columns:
        return super().columns(*self._seen(within, scores))

    def bias_derivatives(self, within: Array, scores: Array) -> tuple[Array, Array]:
        return super().bias_derivatives(*self._seen(within, scores))

    def scores(self, residual: BlockMatrix) -> tuple[Array, Array]:
        k = self.partition.sizes
        within, scores = super().scores(residual)
        scores[..., self.groups, self.groups] += self.margins / k
        return within + self.shift_within, scores - self.margins / k.sum()

    # -- the dual -----------------------------------------------------------------------------

    def _wrong(self, residual: BlockMatrix) -> tuple[Array, Array, Array]:
        """Return the sizes, and the probabilities Q of siblings and of other classes."""
        k, sibling, others = super()._wrong(residual)
        others += self.smoothed
        others[..., self.groups, self.groups] = 0.0
        return k, np.where(k > 1, sibling + self.own_smoothed, 0.0), others

    def dual_values(self, residual: BlockMatrix) -> Array:
        """Return the weighted mean entropy of Q's columns plus ``<R, shifts>``; -inf outside.

        Q is what the wrong classes' entries of R say, exactly; the own class has what is left.
        Where that is zero but for the rounding of R, it is zero.
        """
        p, g = self.partition, self.partition.num_groups
        k, sibling, others = self._wrong(residual)
        slack = gamma(g + 4 * FUNCTION)
        # How far the computed probabilities are from those.
        scale = np.abs(residual.within) / (k * p.weights)
        own_entry = np.abs(residual.mean[..., self.groups, self.groups]) / p.weights
        blur_sibling = 6 * UNIT * (self.own_smoothed + scale + own_entry + np.abs(sibling))
        blur_others = 6 * UNIT * (self.smoothed + np.abs(others))
        below = (sibling < -blur_sibling) | (others < -blur_others).any(axis=-2)
        sibling, others = np.maximum(sibling, 0.0), np.maximum(others, 0.0)
        escape = (k - 1) * sibling + k @ others  # probability of all wrong classes
        size = escape + (k - 1) * blur_sibling / UNIT + k @ blur_others / UNIT
        own, blur_own = 1 - escape, slack * size
        outside = np.asarray((below | (own < -blur_own)).any(axis=-1))
        if outside.all():
            return np.where(outside, -np.inf, 0.0)
        few = np.minimum(escape, 0.5)
        kept = np.where(
            escape <= 0.5,
            (few - 1) * np.log1p(-few) - blur_own,  # of a slope below one
            _entropy_below(own, blur_own),
        )
        parts = k @ _entropy_below(others, blur_others * (others > 0))
        parts += (k - 1) * _entropy_below(sibling, blur_sibling * (sibling > 0)) + kept
        value = parts @ p.loss_shares
        # An own class below zero is mended by mixing the residual with zero.
        mixed = np.where(own < blur_own, 2 * blur_own, 0.0).max(axis=-1) / self.least_own
        value = value - (gamma(2 * g + 8 + 5 * FUNCTION) + mixed) * np.abs(value)
        if self.largest_shift:
            gain, size = self._shifted(residual)
            value = value + gain - (gamma(2 * g + 24) + 2 * slack + mixed) * size
        return np.where(outside, -np.inf, value)

    def _shifted(self, residual: BlockMatrix) -> tuple[Array, Array]:
        """Return ``<R, adjustment - margins>``, a mean over the samples, and the sum of sizes.

        Relative to the own class, of which R has what the wrong ones balance.
        """
        p, k = self.partition, self.partition.sizes
        wrong = residual.mean * p.sizes[:, None]
        siblings = wrong[..., self.groups, self.groups] - residual.within
        parts = np.abs(wrong[..., self.groups, self.groups]) + np.abs(residual.within)
        siblings = np.where(k > 1, siblings * (k - 1) / k, 0.0)
        parts = np.where(k > 1, parts * (k - 1) / k, 0.0)
        wrong[..., self.groups, self.groups] = 0.0
        moved = wrong * (p.adjustment[:, None] - p.adjustment + self.margins)
        gain = moved.sum(axis=-2) + siblings * self.margins
        size = np.abs(moved).sum(axis=-2) + parts * np.abs(self.margins)
        size += np.abs(wrong).sum(axis=-2) * self.largest_shift
        return gain @ p.shares, size @ p.shares

    def restrict(self, residual: BlockMatrix) -> BlockMatrix:
        """Set negative probabilities of wrong classes to zero; the own class balances."""
        p, k = self.partition, self.partition.sizes
        own = residual.mean[..., self.groups, self.groups]
        sibling = np.maximum(own - residual.within / k, -self.own_smoothed * p.weights)
        sibling = np.where(k > 1, sibling, 0.0)
        mean = np.maximum(residual.mean, -self.smoothed * p.weights)
        mean[..., self.groups, self.groups] = 0.0
        leak = k @ mean
        mean[..., self.groups, self.groups] = -leak / k
        return p.matrix(np.where(k > 1, -(leak + k * sibling), 0.0), mean)

    def rows(self, residual: BlockMatrix) -> tuple[Array, Array]:
        """Sum R's own entries of wrong classes, in long double."""
        p = self.partition
        wrong = residual.mean.copy()
        wrong[..., self.groups, self.groups] = 0.0
        flows = wrong * p.counts.astype(np.longdouble)  # of a class's samples
        sizes = np.abs(flows)
        rows = (flows @ p.sizes - p.sizes @ flows) / p.num_samples
        size = (sizes @ p.sizes + p.sizes @ sizes) / p.num_samples
        # Probabilities that are zero but for rounding are zero.
        exact = long_gamma(2 * len(p.sizes) + 8) + 16 * UNIT
        error = exact * size.astype(np.float64) + 4 * UNIT * np.abs(rows).astype(np.float64)
        return rows.astype(np.float64), error

    def _lost(self, residual: BlockMatrix, values: Array, taken: Array) -> Array:
        """Where labels have little of the own class, what its probability leaves may say more.

        Taking from it without an end, until nothing is left, ends at an entropy that is not below
        zero: what is taken costs that share of the entropy, which is concave.
        """
        p = self.partition
        lost = super()._lost(residual, values, taken / self.least_own)
        if self.least_own > 0.5:
            return lost
        k, sibling, others = self._wrong(residual)
        escape = (k - 1) * np.maximum(sibling, 0.0) + k @ np.maximum(others, 0.0)
        own = np.maximum(1 - escape - gamma(p.num_groups + 16) * (1 + escape), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(taken > 0, taken / own, 0.0).max(axis=-1)
        entropy = np.log(k.sum()) * p.loss_shares.sum()
        return np.minimum(lost, np.where(share < 1, share * entropy, np.inf))

    @cached_property
    def _shift_to_hub(self) -> Array:
        margins: Array = np.maximum(np.abs(self.margins), abs(self.margins[self._hub]))
        return super()._shift_to_hub + margins

    @cached_property
    def label_mean(self) -> Array:
        mean: Array = self.smoothed + np.diag((1 - self.smoothing) / self.partition.sizes)
        return mean

    @cached_property
    def _prior(self) -> Array:
        p = self.partition
        own = p.counts * p.weights * (1 - self.smoothing) / p.num_samples
        shares: Array = (own + self.spread * (p.loss_shares @ self.smoothing)) / p.loss_shares.sum()
        return shares

    # -- searches and samples -----------------------------------------------------------------

    def values_and_residuals(self, scores: Array) -> tuple[Array, Array]:
        within, seen = self._seen(np.zeros(scores.shape[:-1]), scores)
        values, residuals = super().values_and_residuals(seen)
        values += self._smoothing_loss(within, seen)[0] @ self.partition.loss_shares
        smoothed = np.diag(self.smoothing) - self.smoothed
        residuals += smoothed * self.partition.weights
        return values, residuals

    def sample_sum(self, logits: Array, labels: NDArray[np.intp]) -> float:
        p = self.partition
        own = p.class_groups[labels]
        logits = logits + p.adjustment[p.class_groups]
        logits[np.arange(len(labels)), labels] -= self.margins[own]
        logits -= np.take_along_axis(logits, labels[:, None], axis=1)
        losses = np.logaddexp.reduce(logits, axis=1)
        losses -= self.smoothing[own] * (logits @ self.spread[p.class_groups])
        return float(losses @ p.weights[own])

    def sample_residuals(self, logits: Array, labels: NDArray[np.intp]) -> Array:
        p = self.partition
        own, rows = p.class_groups[labels], np.arange(len(labels))
        logits = logits.copy()
        logits[rows, labels] -= self.margins[own]
        residuals = super().sample_residuals(logits, labels)
        spread = p.weights[own] * self.smoothing[own]
        residuals -= spread[:, None] * self.spread[p.class_groups]
        residuals[rows, labels] += spread
        return residuals


def _entropy_below(x: Array, blur: Array) -> Array:
    """Return the least of ``-x log x`` within ``blur`` of x, from zero on; it is concave."""
    low, high = np.maximum(x - blur, 0.0), np.maximum(x, 0.0) + blur
    least: Array = np.minimum(-_xlogx(low), -_xlogx(high))
    return least
