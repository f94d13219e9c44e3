"""Mean squared error: R = Z + b 1^T - I."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tightframe.losses.base import Array, Datafit, Derivatives, Loss
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
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, adjustment: Tensor | None
    ) -> Tensor:
        from torch.nn import functional

        targets = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        return 0.5 * (logits - targets).square().sum() / len(labels)

    def column_values(self, scores: Tensor, targets: Tensor) -> Tensor:
        return (scores - targets).square().sum(dim=1) / 2

    def column_residuals(self, scores: Tensor, targets: Tensor) -> Tensor:
        return scores.sub_(targets)


class MeanSquaredErrorFit(Datafit):
    """Squared error ``0.5 ||z + b - e_y||^2``; R = Z + b 1^T - I."""

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
        blocks = p.matrix(np.where(p.sizes > 1, within - 1, 0.0), residual)
        values = self._mean(blocks)
        # What is left where all of that cancels.
        small = np.abs(rest) + np.abs(rest_of_missing) + np.abs(label_rest)
        least = (4 * UNIT * small * np.sqrt(p.sizes)).max(axis=-1)
        errors = gamma(2 * g + 16) * values + 2 * least * np.sqrt(values) + least**2 + UNDERFLOW
        return values, errors, blocks

    def residual(self, within: Array, scores: Array) -> BlockMatrix:
        p = self.partition
        return p.matrix(np.where(p.sizes > 1, within - 1, 0.0), scores - np.diag(1 / p.sizes))

    def _mean(self, residual: BlockMatrix) -> Array:
        mean: Array = self._squares(residual) @ self.partition.shares / 2
        return mean

    def scores(self, residual: BlockMatrix) -> tuple[Array, Array]:
        p = self.partition
        within = np.where(p.sizes > 1, residual.within + 1, 0.0)
        return within, residual.mean + np.diag(1 / p.sizes)

    def derivatives(self, within: Array, scores: Array) -> Derivatives:
        p = self.partition
        margin_diagonal = p.shares * (p.sizes - 1) / p.sizes
        by_score = p.sizes[:, None] * p.shares

        def apply(d_within: Array, d_scores: Array) -> tuple[Array, Array]:
            return margin_diagonal * d_within, by_score * d_scores

        gradient = self._gradient(self.residual(within, scores))
        return Derivatives(*gradient, apply, margin_diagonal, by_score)

    @property
    def smoothness(self) -> float:
        return 1 / self.partition.num_samples

    def bias_derivatives(self, within: Array, scores: Array) -> tuple[Array, Array]:
        sizes = self.partition.sizes
        return sizes * self.residual(within, scores).row_average, np.diag(sizes)

    def dual_values(self, residual: BlockMatrix) -> Array:
        """Return the mean of ``-||r||^2 / 2 - r_own``."""
        p, k = self.partition, self.partition.sizes
        mean, within = residual.mean[..., self.groups, self.groups], residual.within * (k - 1) / k
        squares = self._squares(residual) / 2
        values: Array = (-squares - (mean + within)) @ p.shares
        size = (squares + np.abs(mean) + np.abs(within)) @ p.shares
        return values - gamma(2 * p.num_groups + 16) * size

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
        lengths = np.sqrt(self._squares(residual))
        lost = (lengths * length[..., None] + miss) @ p.shares + length**2 / 2
        exact = 1 + gamma(2 * p.num_groups + 16)
        return values - lost * exact, length * np.sqrt(p.num_samples) * exact

    def values_and_residuals(self, scores: Array) -> tuple[Array, Array]:
        residual = scores.copy()
        residual[:, self.groups, self.groups] -= 1
        shares = self.partition.shares
        return np.einsum("bjk,bjk,k->b", residual, residual, shares) / 2, residual

    def sample_sum(self, logits: Array, labels: NDArray[np.intp]) -> float:
        residual = self.sample_residuals(logits, labels)
        return float(np.vdot(residual, residual)) / 2

    def sample_residuals(self, logits: Array, labels: NDArray[np.intp]) -> Array:
        logits[np.arange(len(logits)), labels] -= 1
        return logits

    def _squares(self, r: BlockMatrix) -> Array:
        return r.column_norms**2 / self.partition.counts
