"""Softmax cross-entropy: R = P - I, P the probabilities as columns, times the class weights."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tightframe.losses.base import Array, Columns, Datafit, Derivatives, Loss
from tightframe.rounding import FUNCTION, UNDERFLOW, UNIT, gamma, long_gamma

if TYPE_CHECKING:
    from torch import Tensor

    from tightframe.geometry.blocks import BlockMatrix, Partition


class CrossEntropy(Loss):
    """Softmax cross-entropy ``-log p_y`` in nats, with class weights and a logit adjustment."""

    name = "cross_entropy"
    title = "cross-entropy"
    unit = "nats"
    ignores_constants = True
    takes_adjustment = True
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
        self,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        adjustment: Tensor | None,
        smoothing: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        from torch.nn import functional

        if adjustment is not None:
            logits = logits + adjustment
        if weights is None and smoothing is None:
            return functional.cross_entropy(logits, labels)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        if smoothing is not None:
            share, spread = smoothing
            own = logits.gather(1, labels[:, None])
            losses = losses - share[labels] * ((logits - own) @ spread)
        return losses.mean() if weights is None else (losses * weights[labels]).mean()

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
        self.largest_shift = float(np.abs(partition.adjustment).max())
        # What a label has of its own class before the others, see `SoftLabelFit`.
        self.label_within: Array | float = 1.0

    def _log_own(self, within: Array) -> Array:
        """Log-sum-exp of a group's logits about their mean, less log(size), shape (G,)."""
        k = self.partition.sizes
        return (
            within * (k - 1) / k
            + np.logaddexp(0.0, np.log(np.maximum(k - 1, 1e-300)) - within)
            - np.log(k)
        )

    def values(self, within: Array, scores: Array) -> Array:
        losses, _, _ = self._losses(within, scores)
        mean: Array = losses @ self.partition.loss_shares
        return mean

    def _losses(self, within: Array, scores: Array) -> tuple[Array, Array, Array]:
        """Return the loss of a sample of each group, before its weight, and odds.

        Odds are those of wrong classes of each group, and of the own class, over a common factor.
        """
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
        alone = np.exp(-top)
        losses = np.where(top > 0, top + np.log(rest + alone), np.log1p(rest))
        return losses, others, rest + alone

    def evaluate(self, within: Array, mean: Array, bias: Array) -> tuple[Array, Array, BlockMatrix]:
        p, g, k = self.partition, self.partition.num_groups, self.partition.sizes
        losses, q, total = self._losses(within, mean + bias[..., None])
        values = losses @ p.loss_shares
        # A dozen roundings, each at most half a unit of these sizes, make a logit's difference...
        size = np.abs(mean).max(axis=-2) + np.abs(within) + math.log(p.sizes.max()) + 1
        size += 2 * np.abs(bias).max(axis=-1)[..., None]
        if self.largest_shift:
            size += 2 * self.largest_shift
        share = 12 * UNIT * size + gamma(g + 3 * FUNCTION)
        # ... and relative errors of odds change log(1 + odds) by that share of 1 - exp(-loss).
        errors = -2 * np.expm1(-losses) * share + 2 * FUNCTION * UNIT * losses
        errors = errors @ p.loss_shares + gamma(2 * g + 8) * values + UNDERFLOW
        q /= total[..., None, :]
        siblings = q[..., self.groups, self.groups] / np.maximum(k - 1, 1)
        return values, errors, self._wrong_to_residual(siblings, q / k[:, None])

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
        return self._wrong_to_residual(sibling, q / k[:, None])

    def _wrong_to_residual(self, sibling: Array, others: Array) -> BlockMatrix:
        """Return R with these probabilities of each sibling and each class of other groups.

        ``others`` is overwritten; its diagonal is not used.
        """
        p, k = self.partition, self.partition.sizes
        # 1 - own probability is summed from the small ones, which keeps digits where it is tiny.
        others[..., self.groups, self.groups] = 0.0
        leak = k @ others
        others[..., self.groups, self.groups] = -leak / k
        within = np.where(k > 1, -(leak + k * sibling), 0.0)
        if self.weighted:
            within, others = within * p.weights, others * p.weights
        return p.matrix(within, others)

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

        An adjustment a adds ``a^T R n / N``. P is what its wrong classes' entries say: the own
        class has what is left, and where that is within rounding of zero, the point meant is the
        residual times a number as near to one.
        """
        p, g = self.partition, self.partition.num_groups
        k, sibling, others = self._wrong(residual)
        slack = gamma(g + 3 * FUNCTION)
        # A sibling's entry is a difference, and may fall below zero by its rounding.
        blur = 4 * UNIT * np.abs(residual.within) / (k * p.weights)
        outside = (sibling < -blur) | (others.min(axis=-2) < 0)
        sibling = np.maximum(sibling, 0.0)
        escape = (k - 1) * sibling + k @ others  # probability of all wrong classes
        own = 1 - escape
        outside = (outside | (own < -slack)).any(axis=-1)
        if outside.all():
            return np.where(outside, -np.inf, 0.0)
        if outside.any():
            others = np.maximum(others, 0.0)
        low, high = np.maximum(own - slack, 0.0), np.maximum(own, 0.0) + slack
        own = np.where(
            escape <= 0.5,
            (np.minimum(escape, 0.5) - 1) * np.log1p(-np.minimum(escape, 0.5)),
            np.minimum(-_xlogx(low), -_xlogx(high)),  # the function is concave
        )
        entropy = -(k @ _xlogx(others)) - (k - 1) * _xlogx(sibling) + own
        value = entropy @ p.loss_shares
        value = value - (5 * slack + gamma(2 * g + 8)) * np.abs(value)
        if self.adjusted:
            # Relative to the own class: that is what does not cancel.
            moved = others * (k[:, None] * (p.adjustment[:, None] - p.adjustment))
            gain, size = (part.sum(axis=-2) @ p.loss_shares for part in (moved, np.abs(moved)))
            value = value + gain - (gamma(2 * g + 8) + 2 * slack) * size
        return np.where(outside, -np.inf, value)

    def restrict(self, residual: BlockMatrix) -> BlockMatrix:
        """Set negative probabilities of wrong classes to zero; the own class balances."""
        p, k = self.partition, self.partition.sizes
        own = residual.mean[..., self.groups, self.groups]
        sibling = np.where(k > 1, np.maximum(own - residual.within / k, 0.0), 0.0)
        mean = np.maximum(residual.mean, 0.0)
        mean[..., self.groups, self.groups] = 0.0
        leak = k @ mean
        mean[..., self.groups, self.groups] = -leak / k
        return p.matrix(np.where(k > 1, -(leak + k * sibling), 0.0), mean)

    def rows(self, residual: BlockMatrix) -> tuple[Array, Array]:
        """Sum in long double: at a minimum with a free bias all of it cancels."""
        p = self.partition
        _, _, others = self._wrong(residual)
        flows = others * (p.weights * p.counts).astype(np.longdouble)  # of a class's samples
        out, into = p.sizes @ flows, flows @ p.sizes
        rows = ((into - out) / p.num_samples).astype(np.float64)
        size = ((into + out) / p.num_samples).astype(np.float64)
        exact = long_gamma(2 * len(p.sizes) + 8) - 2 * UNIT
        # Weights times counts were rounded, where there are weights.
        return rows, (exact + self.weighted * UNIT) * size + 4 * UNIT * np.abs(rows)

    def possible_rows(self, rows: Array) -> tuple[Array, Array]:
        """Let the rows of the hub make up for all others: columns sum to zero, so rows do."""
        k, hub = self.partition.sizes, self._hub
        others = k.astype(np.longdouble) * rows
        others[..., hub] = 0.0
        rows = rows.copy()
        rows[..., hub] = -others.sum(axis=-1) / k[hub]
        size = np.abs(others).sum(axis=-1).astype(np.float64) / k[hub]
        blur = np.zeros_like(rows)
        blur[..., hub] = (long_gamma(len(k) + 8) - 2 * UNIT) * size + 4 * UNIT * np.abs(
            rows[..., hub]
        )
        return rows, blur

    @cached_property
    def _hub(self) -> int:
        """The group with most samples."""
        return int(np.argmax(self.partition.shares))

    def with_rows(self, residual: BlockMatrix, values: Array, miss: Array) -> tuple[Array, Array]:
        """Move probability between each class and the hub's classes.

        Too much in the row of class j goes from the own class to the hub in the columns of class
        j, too little comes from the own class in the hub's columns.
        """
        p, k, hub = self.partition, self.partition.sizes, self._hub
        flow = p.num_samples * miss
        flow[..., hub] = 0.0
        total = (flow @ k) / (p.counts[hub] * k[hub])  # of a column of the hub
        taken = flow / (p.counts * p.weights)
        taken[..., hub] = total / p.weights[hub]
        # Entries of X that change: own classes', the hub's in their columns, theirs in the hub's.
        lengths = 1 / p.counts + k / k[hub] * (1 / p.counts + 1 / p.counts[hub])
        change = np.sqrt(flow**2 @ lengths) + total * math.sqrt(p.counts[hub])
        lost = self._lost(residual, values, taken)
        if self.largest_shift:
            lost = lost + miss @ (k * self._shift_to_hub)
        exact = 1 + gamma(2 * len(k) + 16)
        return values - lost * exact, change * exact

    def _lost(self, residual: BlockMatrix, values: Array, taken: Array) -> Array:
        """Bound what taking so much from every own class lowers the dual value by, inf if unknown.

        Nothing but an own class falls below zero: mixing the residual with zero by a share mends
        it, and costs that share of the dual value, which is concave and not below zero there.
        """
        moved = taken.max(axis=-1)
        return np.where(moved < 1, moved * np.abs(values), np.inf)

    @cached_property
    def _shift_to_hub(self) -> Array:
        """How far apart what is added to the logits is of the hub's classes and of others, (G,)."""
        shift: Array = np.abs(self.partition.adjustment - self.partition.adjustment[self._hub])
        return shift

    @cached_property
    def label_mean(self) -> Array:
        """Mean share of the classes of group j in the labels of group i, shape (G, G)."""
        return np.diag(1 / self.partition.sizes)

    @cached_property
    def _prior(self) -> Array:
        """Weighted mean of all labels: the share of one class of each group, shape (G,)."""
        p = self.partition
        shares: Array = p.counts * p.weights / (p.loss_shares.sum() * p.num_samples)
        return shares

    def repair(self, residual: BlockMatrix) -> BlockMatrix:
        """Shift rows to averages of zero, after mixing in what keeps P non-negative.

        That is the residual of the weighted mean label, whose rows average to zero.
        """
        p = self.partition
        excess = residual.row_average
        prior = self._prior
        mix = np.max(np.maximum(excess, 0) / prior, axis=-1) / float(p.weights.min())
        mix = (mix / (1 + mix))[..., None]
        mean = (1 - mix[..., None]) * (residual.mean - excess[..., None])
        mean += mix[..., None] * (prior[:, None] - self.label_mean) * p.weights
        mixed = mix * p.weights * self.label_within
        within = np.where(p.sizes > 1, (1 - mix) * residual.within - mixed, 0.0)
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
    product = np.log(np.where(x > 0, x, 1.0))
    product *= x
    return product
