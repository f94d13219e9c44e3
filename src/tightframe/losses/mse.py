"""Mean squared error: R = Z + b 1^T - I."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tightframe.losses.base import Array, Columns, Datafit, Derivatives, Loss

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
        return self.values_at(self.residual(within, scores))

    def residual(self, within: Array, scores: Array) -> BlockMatrix:
        p = self.partition
        return p.matrix(np.where(p.sizes > 1, within - 1, 0.0), scores - np.diag(1 / p.sizes))

    def values_at(self, residual: BlockMatrix) -> Array:
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
        return 1 / self.partition.num_samples

    def bias_derivatives(self, within: Array, scores: Array) -> tuple[Array, Array]:
        sizes = self.partition.sizes
        return sizes * self.residual(within, scores).row_average, np.diag(sizes)

    def dual_values(self, residual: BlockMatrix) -> Array:
        """Return the mean of ``-||r||^2 / 2 - r_own``."""
        k = self.partition.sizes
        own = residual.mean[..., self.groups, self.groups] + residual.within * (k - 1) / k
        mean: Array = (-self._squares(residual) / 2 - own) @ self.partition.shares
        return mean

    def restrict(self, residual: BlockMatrix) -> BlockMatrix:
        """Return the residual itself: the conjugate is finite everywhere."""
        return residual

    def repair(self, residual: BlockMatrix) -> BlockMatrix:
        """Subtract the row averages."""
        excess = residual.row_average
        return self.partition.matrix(residual.within, residual.mean - excess[:, None])

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
