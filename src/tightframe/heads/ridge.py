"""The convex problem of a head on given features: its value, its gradient and its dual bound.

With features ``h_i`` (and a constant for a bias) as rows ``x_i``, and one matrix V of weight and
bias,

    P(V) = sum_i c_i loss_i(V x_i) + (weight_decay / 2) ||V||^2,
    loss_i(z) = logsumexp(z + a) - (z + a)_{y_i},

where ``c_i`` is the class weight over N and ``a`` the logit adjustment. As logsumexp is the largest
``<p, z> + entropy(p)`` over distributions p, any distributions ``p_i`` give a lower bound of every
P(V), the dual (minimise over V first):

    D(p) = sum_i c_i (entropy(p_i) + <p_i - e_{y_i}, a>) - ||G(p)||^2 / (2 weight_decay),
    G(p) = sum_i c_i (p_i - e_{y_i}) x_i^T.

At ``p = softmax(V x + a)`` G is the gradient of the loss, and ``P(V) - D(p)`` is exactly
``||grad P(V)||^2 / (2 weight_decay)``: small at a solved V, loose anywhere else.

Further terms of the loss change what stands in these lines, and nothing about them: smoothed labels
are other distributions than ``e_{y_i}``, margins an adjustment that depends on the sample, and
logit scales factors of the rows of V.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightframe.heads.terms import LossTerms

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

#: Numbers in one block of logits or features; blocks of this size stay near the processor.
BLOCK = 2**20

#: The samples that make up the metric, for every entry of a row.
METRIC_SAMPLES = 4

#: Wider features have no metric: its factors would cost more than they save.
MAX_METRIC_WIDTH = 4096


@dataclass(frozen=True, eq=False)
class RidgeProblem:
    """P(V) of the module's text.

    Attributes
    ----------
    features : ndarray, shape (N, D)
    labels : ndarray, shape (N,)
    class_weights : ndarray, shape (K,)
        Their mean over the samples is 1.
    adjustment : ndarray, shape (K,)
    weight_decay : float
    bias : bool
        Whether there is one: `bias_scale` times the last column of V.
    bias_scale : float
        The bias's ridge is ``weight_decay`` over its square.
    terms : LossTerms or None
        Margins, scales and smoothing of the loss; None if it has none of these.
    """

    features: Array
    labels: Labels
    class_weights: Array
    adjustment: Array
    weight_decay: float
    bias: bool
    bias_scale: float = 1.0
    terms: LossTerms | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of V: (K, D), or (K, D + 1) with a bias."""
        return len(self.class_weights), self.features.shape[1] + self.bias

    def value_and_gradient(self, v: Array) -> tuple[float, Array]:
        """Return P(V) and its gradient, of V's shape."""
        value = 0.0
        gradient = np.zeros(self.shape)
        for x, y in self._blocks():
            z = self._logits(v, x, y)
            own = self._at_labels(z, y)
            np.exp(z, out=z)
            total = z.sum(axis=1)
            share = self.class_weights[y] / len(self.labels)
            value += float(share @ (np.log(total) - own))
            z *= (share / total)[:, None]
            self._less_labels(z, share, y)
            self._add_product(gradient, z, x)
        value += self.weight_decay / 2 * float(np.vdot(v, v))
        return value, gradient + self.weight_decay * v

    @property
    def value_at_zero(self) -> float:
        """P of the head that answers nothing, V = 0."""
        shift = self.adjustment - self.adjustment.max()
        own, total, terms = shift, np.exp(shift).sum(), self.terms
        if terms is not None and terms.margins is not None:
            own = shift - terms.margins
            total = total - np.exp(shift) + np.exp(own)
        losses = np.log(total) - own
        if terms is not None and terms.smoothing is not None and terms.spread is not None:
            mean = shift @ terms.spread + (own - shift) * terms.spread
            losses += terms.smoothing * (own - mean)
        return float(self.class_weights[self.labels] @ losses[self.labels]) / len(self.labels)

    def gap(self, gradient: Array) -> float:
        """Return ``P(V) - D(softmax)`` from the gradient at V."""
        return float(np.vdot(gradient, gradient)) / (2 * self.weight_decay)

    def metric(self, v: Array) -> Array | None:
        """Return the lower Cholesky factor of about the mean Hessian block of a class at V.

        The Hessian has one block ``sum_i c_i p_ik (1 - p_ik) x_i x_i^T + weight_decay`` a class.
        Their mean weighs a sample by ``c_i (1 - ||p_i||^2) / K``, which is taken from samples at
        equal steps of that weight: rare classes have most of it. None where it would not pay.
        """
        k, width = self.shape
        size = min(METRIC_SAMPLES * width, 10 * len(self.labels) * k // width)
        if width > MAX_METRIC_WIDTH or size < k:
            return None
        weights = np.concatenate([self._spread(v, x, y) for x, y in self._blocks()])
        heights = np.cumsum(weights)
        if len(weights) <= size:
            chosen, share = self.features, weights
        else:
            total = float(heights[-1])
            steps = (np.arange(size) + 0.5) * (total / size)
            chosen = self.features[np.searchsorted(heights, steps).clip(max=len(weights) - 1)]
            share = np.full(size, total / size)
        if self.bias:
            chosen = np.column_stack([chosen, np.full(len(chosen), self.bias_scale)])
        gram = (chosen * (share / k)[:, None]).T @ chosen
        gram[np.diag_indices(width)] += self.weight_decay
        return np.linalg.cholesky(gram).astype(np.float64, copy=False)

    def _spread(self, v: Array, x: Array, y: Labels) -> Array:
        p = np.exp(self._logits(v, x, y))
        p /= p.sum(axis=1, keepdims=True)
        spread: Array = (1 - np.einsum("ij,ij->i", p, p)).clip(min=0)
        if self.terms is not None and self.terms.scales is not None:
            spread = ((p - p**2) @ self.terms.scales**2).clip(min=0)
        return spread * self.class_weights[y] / len(self.labels)

    def _logits(self, v: Array, x: Array, y: Labels) -> Array:
        """Return logits as the loss sees them, the largest 0."""
        z: Array = x @ v[:, : x.shape[1]].T
        bias, terms = self.bias_scale * v[:, -1] if self.bias else 0.0, self.terms
        if terms is not None and terms.scales is not None:
            z = (z + bias) * terms.scales
            bias = 0.0
        z += self.adjustment + bias
        if terms is not None and terms.margins is not None:
            z[np.arange(len(y)), y] -= terms.margins[y]
        z -= z.max(axis=1, keepdims=True)
        return z

    def _at_labels(self, z: Array, y: Labels) -> Array:
        """Return the mean of seen logits over the label distribution of every sample."""
        own: Array = z[np.arange(len(y)), y]
        terms = self.terms
        if terms is None or terms.smoothing is None or terms.spread is None:
            return own
        share = terms.smoothing[y]
        mean: Array = (1 - share) * own + share * (z @ terms.spread)
        return mean

    def _less_labels(self, z: Array, share: Array, y: Labels) -> None:
        """Take so much of the label distributions off, and scale the rest as V's rows are."""
        rows, terms = np.arange(len(y)), self.terms
        if terms is None or terms.smoothing is None or terms.spread is None:
            z[rows, y] -= share
        else:
            smoothed = share * terms.smoothing[y]
            z[rows, y] -= share - smoothed
            z -= smoothed[:, None] * terms.spread
        if terms is not None and terms.scales is not None:
            z *= terms.scales

    def _add_product(self, gradient: Array, residual: Array, x: Array) -> None:
        gradient[:, : x.shape[1]] += residual.T @ x
        if self.bias:
            gradient[:, -1] += self.bias_scale * residual.sum(axis=0)

    def _blocks(self) -> Iterator[tuple[Array, Labels]]:
        rows = max(1, BLOCK // max(len(self.class_weights), self.features.shape[1]))
        for start in range(0, len(self.labels), rows):
            yield self.features[start : start + rows], self.labels[start : start + rows]
