"""A data fit of scaled logits: a softmax loss that sees ``scale_v (z_v + b_v)`` in place of them.

Logits, bias and residuals are those before the scale, as everywhere else: with S the diagonal
matrix of the scales the residual is S times that of the loss. What the loss ignores is then not a
constant in all logits but multiples of ``1 / scale`` (docs/theory.md, "Scaled
logits").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tightframe.losses.base import Array, Columns, Datafit, Derivatives
from tightframe.rounding import UNIT, gamma

if TYPE_CHECKING:
    from tightframe.geometry.blocks import BlockMatrix


class ScaledFit(Datafit):
    """Another data fit of the same partition, of logits times `Partition.scales`."""

    def __init__(self, fit: Datafit) -> None:
        super().__init__(fit.partition)
        self.fit = fit
        self.scales = fit.partition.scales
        self.rows_scale = self.scales[:, None]

    def _up(self, residual: BlockMatrix) -> BlockMatrix:
        p = self.partition
        return p.matrix(residual.within * self.scales, residual.mean * self.rows_scale)

    def _down(self, residual: BlockMatrix) -> BlockMatrix:
        """Return the residual of the loss itself that belongs to one of these.

        A sibling's entry is a difference: one that only rounding has put below zero is put back.
        """
        p, k, own = self.partition, self.partition.sizes, self.groups
        within, mean = residual.within / self.scales, residual.mean / self.rows_scale
        diagonal = mean[..., own, own]
        sibling = diagonal - within / k
        rounded = (sibling < 0) & (sibling >= -8 * UNIT * np.abs(within) / k)
        return p.matrix(np.where((k > 1) & rounded, k * diagonal, within), mean)

    def values(self, within: Array, scores: Array) -> Array:
        return self.fit.values(within * self.scales, scores * self.rows_scale)

    def residual(self, within: Array, scores: Array) -> BlockMatrix:
        return self._up(self.fit.residual(within * self.scales, scores * self.rows_scale))

    def values_and_residuals(self, scores: Array) -> tuple[Array, Array]:
        values, residuals = self.fit.values_and_residuals(scores * self.rows_scale)
        return values, residuals * self.rows_scale

    def scores(self, residual: BlockMatrix) -> tuple[Array, Array]:
        within, scores = self.fit.scores(self._down(residual))
        p, inverse = self.partition, 1 / self.scales
        scores = scores * inverse[:, None]
        free = p.sizes * inverse
        return within * inverse, scores - inverse[:, None] * ((free @ scores) / (free @ inverse))[
            ..., None, :
        ]

    def evaluate(self, within: Array, mean: Array, bias: Array) -> tuple[Array, Array, BlockMatrix]:
        p, k, own = self.partition, self.partition.sizes, self.groups
        within, mean, bias = within * self.scales, mean * self.rows_scale, bias * self.scales
        values, errors, residual = self.fit.evaluate(within, mean, bias)
        # Each product was rounded: the loss changes by the residual times that, at most.
        off = np.abs(mean).max(axis=-2) + np.abs(within) + np.abs(bias).max(axis=-1)[..., None]
        sizes = np.abs(residual.mean)
        sizes[..., own, own] += np.abs(residual.within)
        errors = errors + 8 * UNIT * ((k @ sizes) * off) @ p.shares
        return values, errors, self._up(residual)

    def derivatives(self, within: Array, scores: Array) -> Derivatives:
        point = self.fit.derivatives(within * self.scales, scores * self.rows_scale)

        def apply(d_within: Array, d_scores: Array) -> tuple[Array, Array]:
            by_margin, by_score = point.curvature(
                d_within * self.scales, d_scores * self.rows_scale
            )
            return by_margin * self.scales, by_score * self.rows_scale

        return Derivatives(
            point.by_margin * self.scales,
            point.by_score * self.rows_scale,
            apply,
            point.margin_diagonal * self.scales**2,
            point.score_diagonal * self.rows_scale**2,
        )

    def columns(self, within: Array, scores: Array) -> Columns:
        model = self.fit.columns(within * self.scales, scores * self.rows_scale)
        return model._replace(
            by_margin=model.by_margin * self.scales,
            by_score=model.by_score * self.rows_scale,
            bend=model.bend * self.scales**2,
            curvature=model.curvature * self.rows_scale**2,
            direction=None if model.direction is None else model.direction * self.rows_scale,
        )

    @property
    def smoothness(self) -> float:
        return self.fit.smoothness * float(self.scales.max()) ** 2

    def dual_values(self, residual: BlockMatrix) -> Array:
        return self.fit.dual_values(self._down(residual))

    def restrict(self, residual: BlockMatrix) -> BlockMatrix:
        return self._up(self.fit.restrict(self._down(residual)))

    def repair(self, residual: BlockMatrix) -> BlockMatrix:
        return self._up(self.fit.repair(self._down(residual)))

    def rows(self, residual: BlockMatrix) -> tuple[Array, Array]:
        rows, blur = self.fit.rows(self._down(residual))
        rows = rows * self.scales
        return rows, (blur * self.scales + 2 * UNIT * np.abs(rows)) * (1 + gamma(4))

    def possible_rows(self, rows: Array) -> tuple[Array, Array]:
        found, blur = self.fit.possible_rows(rows / self.scales)
        found = found * self.scales
        return found, (blur * self.scales + 2 * UNIT * np.abs(found)) * (1 + gamma(4))

    def with_rows(self, residual: BlockMatrix, values: Array, miss: Array) -> tuple[Array, Array]:
        miss = miss / self.scales * (1 + gamma(2))
        values, change = self.fit.with_rows(self._down(residual), values, miss)
        return values, change * float(self.scales.max()) * (1 + gamma(2))

    def bias_derivatives(self, within: Array, scores: Array) -> tuple[Array, Array]:
        gradient, hessian = self.fit.bias_derivatives(
            within * self.scales, scores * self.rows_scale
        )
        return gradient * self.scales, hessian * self.scales * self.rows_scale

    def sample_sum(self, logits: Array, labels: NDArray[np.intp]) -> float:
        return self.fit.sample_sum(logits * self.scales[self.partition.class_groups], labels)

    def sample_residuals(self, logits: Array, labels: NDArray[np.intp]) -> Array:
        scales = self.scales[self.partition.class_groups]
        return self.fit.sample_residuals(logits * scales, labels) * scales
