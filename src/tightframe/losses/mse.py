"""Mean squared error: R = Z + b 1^T - I, times the class weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tightframe.losses.base import Array, Columns, Datafit, Derivatives, Loss
from tightframe.rounding import UNDERFLOW, UNIT, gamma, inverse, two_sum

if TYPE_CHECKING:
    from torch import Tensor

    from tightframe.geometry.blocks import BlockMatrix, Partition


class MeanSquaredError(Loss):
    """Squared error ``0.5 ||z - e_y||^2`` from the one-hot label."""

    name = "mse"
    title = "MSE"
    unit = "logits"
    ignores_constants = False
    is_quadratic = True
    attains_zero = True
    vanishing_frame = "orthogonal"
    default_margin = 0.5
    margin_limit = 1.0

    def datafit(self, partition: Partition) -> Datafit:
        return MeanSquaredErrorFit(partition)

    def predictions(self, logits: Array) -> Array:
        """Spread what is missing from a sum of one evenly."""
        shares: Array = logits + (1 - logits.sum(axis=0)) / len(logits)
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

        targets = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        squares = (logits - targets).square()
        if weights is not None:
            squares = squares * weights[labels, None]
        return 0.5 * squares.sum() / len(labels)

    def column_values(self, scores: Tensor, targets: Tensor) -> Tensor:
        return (scores - targets).square().sum(dim=1) / 2

    def column_residuals(self, scores: Tensor, targets: Tensor) -> Tensor:
        return scores.sub_(targets)


class MeanSquaredErrorFit(Datafit):
    """Squared error ``0.5 ||z + b - e_y||^2``; R = Z + b 1^T - I, times the class weights."""

    def values(self, within: Array, scores: Array) -> Array:
        return self._mean(self.residual(within, scores))

    def evaluate(self, within: Array, mean: Array, bias: Array) -> tuple[Array, Array, BlockMatrix]:
        """Keep the digits of residuals: own logits nearly reach one, and that cancels."""
        p, g, own = self.partition, self.partition.num_groups, self.groups
        label, label_rest = inverse(p.sizes)
        residual = mean + bias[..., None]
        total, rest = two_sum(mean[..., own, own], bias)
        missing, rest_of_missing = two_sum(total, -label)
        residual[..., own, own] = missing + ((rest + rest_of_missing) - label_rest)
        missing_within = np.where(p.sizes > 1, within - 1, 0.0)
        blocks = p.matrix(missing_within * p.weights, residual * p.weights)
        values = self._mean(blocks)
        # What is left where all of that cancels.
        small = np.abs(rest) + np.abs(rest_of_missing) + np.abs(label_rest)
        least = (4 * UNIT * small * np.sqrt(p.sizes)).max(axis=-1)
        weight = p.loss_shares.sum()
        lost = 2 * least * np.sqrt(weight * values) + weight * least**2
        errors = gamma(2 * g + 20) * values + lost + UNDERFLOW
        return values, errors, blocks

    def residual(self, within: Array, scores: Array) -> BlockMatrix:
        p = self.partition
        within = np.where(p.sizes > 1, within - 1, 0.0)
        return p.matrix(within * p.weights, (scores - np.diag(1 / p.sizes)) * p.weights)

    def _mean(self, residual: BlockMatrix) -> Array:
        mean: Array = self._weighted_squares(residual) @ self.partition.shares / 2
        return mean

    def scores(self, residual: BlockMatrix) -> tuple[Array, Array]:
        p = self.partition
        within = np.where(p.sizes > 1, residual.within / p.weights + 1, 0.0)
        return within, residual.mean / p.weights + np.diag(1 / p.sizes)

    def derivatives(self, within: Array, scores: Array) -> Derivatives:
        p = self.partition
        margin_diagonal = p.loss_shares * (p.sizes - 1) / p.sizes
        by_score = p.sizes[:, None] * p.loss_shares

        def apply(d_within: Array, d_scores: Array) -> tuple[Array, Array]:
            return margin_diagonal * d_within, by_score * d_scores

        gradient = self._gradient(self.residual(within, scores))
        return Derivatives(*gradient, apply, margin_diagonal, by_score)

    def columns(self, within: Array, scores: Array) -> Columns:
        model = self.derivatives(within, scores)
        zero = np.zeros_like(within)
        return Columns(
            model.by_margin,
            model.by_score,
            zero,
            model.margin_diagonal,
            zero,
            model.score_diagonal,
            None,
        )

    @property
    def smoothness(self) -> float:
        return float(self.partition.weights.max()) / self.partition.num_samples

    def bias_derivatives(self, within: Array, scores: Array) -> tuple[Array, Array]:
        sizes, weight = self.partition.sizes, float(self.partition.loss_shares.sum())
        return sizes * self.residual(within, scores).row_average, np.diag(sizes * weight)

    def dual_values(self, residual: BlockMatrix) -> Array:
        """Return the mean of ``-||r||^2 / (2 weight) - r_own``."""
        p, k = self.partition, self.partition.sizes
        mean, within = residual.mean[..., self.groups, self.groups], residual.within * (k - 1) / k
        squares = self._weighted_squares(residual) / 2
        values: Array = (-squares - (mean + within)) @ p.shares
        size = (squares + np.abs(mean) + np.abs(within)) @ p.shares
        return values - gamma(2 * p.num_groups + 20) * size

    def restrict(self, residual: BlockMatrix) -> BlockMatrix:
        """Return the residual itself: the conjugate is finite everywhere."""
        return residual

    def repair(self, residual: BlockMatrix) -> BlockMatrix:
        """Subtract the row averages."""
        excess = residual.row_average
        return self.partition.matrix(residual.within, residual.mean - excess[..., None])

    def rows(self, residual: BlockMatrix) -> tuple[Array, Array]:
        shares, g = self.partition.shares, self.partition.num_groups
        return residual.row_average, gamma(2 * g + 16) * (np.abs(residual.mean) @ shares)

    def possible_rows(self, rows: Array) -> tuple[Array, Array]:
        """Return the rows themselves: nothing ties them together."""
        return rows, np.zeros_like(rows)

    def with_rows(self, residual: BlockMatrix, values: Array, miss: Array) -> tuple[Array, Array]:
        """Subtract what is missed from all entries of a row."""
        p = self.partition
        length = np.sqrt(miss**2 @ p.sizes)
        lengths = np.sqrt(self._weighted_squares(residual))
        inverse_root = 1 / np.sqrt(p.weights)
        moved = length[..., None] * inverse_root
        lost = (lengths * moved + moved**2 / 2) @ p.shares + miss @ p.shares
        exact = 1 + gamma(2 * p.num_groups + 24)
        return values - lost * exact, length * np.sqrt(p.num_samples) * exact

    def values_and_residuals(self, scores: Array) -> tuple[Array, Array]:
        residual = scores.copy()
        residual[:, self.groups, self.groups] -= 1
        p = self.partition
        values = np.einsum("bjk,bjk,k->b", residual, residual, p.loss_shares) / 2
        return values, residual * p.weights

    def sample_sum(self, logits: Array, labels: NDArray[np.intp]) -> float:
        logits[np.arange(len(logits)), labels] -= 1
        return float(np.einsum("ij,ij,i->", logits, logits, self._sample_weights(labels))) / 2

    def sample_residuals(self, logits: Array, labels: NDArray[np.intp]) -> Array:
        logits[np.arange(len(logits)), labels] -= 1
        logits *= self._sample_weights(labels)[:, None]
        return logits

    def _sample_weights(self, labels: NDArray[np.intp]) -> Array:
        p = self.partition
        weights: Array = p.weights[p.class_groups[labels]]
        return weights

    def _weighted_squares(self, r: BlockMatrix) -> Array:
        """Return the squares of the residuals, over the class weights: of each group, (G,)."""
        squares: Array = r.column_norms**2 / (self.partition.counts * self.partition.weights)
        return squares
