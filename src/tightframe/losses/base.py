"""What a loss is: its facts, its values on block matrices, on samples and on tensors.

A `Loss` says once what the rest of tightframe needs to know about a loss; nothing else asks for its
name. Its `Datafit` is the mean loss over a `Partition`, which carries all that depends on the
labels (counts, class weights, logit adjustment, scales).

For every loss the gradient of the mean loss with respect to ``X = Z D^{1/2}`` is ``R D^{1/2} / N``
with a residual matrix R, the derivatives by the logits. R is also the dual variable, so the
certificate needs nothing else.

``within`` and ``scores`` describe the logits: ``scores[j, i] = mean[j, i] + bias[j]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from tightframe.geometry.blocks import BlockMatrix, Partition

Array = NDArray[np.float64]

#: Maps a change of (within, scores) to the change of the gradient with respect to both; leading
#: axes are a batch.
Curvature = Callable[[Array, Array], tuple[Array, Array]]


class Loss(ABC):
    """A loss: facts about it, and where its values come from.

    A theorem, a start or a picture that holds for some losses asks for the fact behind it.

    Attributes
    ----------
    name : str
        As `Problem` takes it.
    title : str
        As sentences and tables say it.
    unit : str
        Of a difference of logits, in words: ``"nats"`` where it is a logarithm of odds.
    ignores_constants : bool
        Whether a constant added to all logits changes nothing, as softmax does not see it. Then
        columns of the logits have a mean of zero, and their rank is at most K - 1.
    takes_adjustment : bool
        Whether it may have a logit adjustment; class weights every loss may have.
    is_softmax : bool
        Whether the loss is the negative logarithm of the own class's softmax probability, for
        which the closed forms with ``log`` margins are known.
    is_quadratic : bool
        Whether the loss is half the squared distance from the one-hot label. Then the singular
        values of ``Z D^{1/2}`` decouple, at any depth.
    attains_zero : bool
        Whether finite logits have loss zero. Otherwise they grow like the logarithm of 1/decay.
    vanishing_frame : {"seli", "orthogonal"} or None
        What the logits without bias tend to as the decays vanish, as far as that is known.
    default_margin : float
        Margin that advice aims at if not told otherwise, in `unit`.
    margin_limit : float or None
        Margins of minimisers stay below this; None: they may be of any size.
    """

    name: str
    title: str
    unit: str
    ignores_constants: bool
    takes_adjustment: bool = False
    is_softmax: bool = False
    is_quadratic: bool = False
    attains_zero: bool
    vanishing_frame: str | None = None
    default_margin: float
    margin_limit: float | None = None

    def max_rank(self, num_classes: int) -> int:
        """Return the largest rank that the logits of a minimiser can have."""
        return num_classes - self.ignores_constants

    @abstractmethod
    def datafit(self, partition: Partition) -> Datafit:
        """Return the mean loss of block logits over a partition."""

    @abstractmethod
    def predictions(self, logits: Array) -> Array:
        """Return the predictions that logits stand for, columns that sum to one, shape (K, n)."""

    # -- tensors: torch is loaded by whoever has some ----------------------------------------------

    @abstractmethod
    def batch_mean(
        self,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        adjustment: Tensor | None,
        smoothing: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the mean loss of a batch, for training by autograd.

        Parameters
        ----------
        logits : Tensor, shape (B, K)
        labels : Tensor, shape (B,), int64
        weights, adjustment : Tensor, shape (K,), or None
            Class weights and logit adjustment; None where there are none.
        smoothing : tuple of Tensor, shape (K,), or None
            What is taken off the own label of every class's samples, and the share of it that
            every label gets; only for a loss that `takes_adjustment`.
        """

    @abstractmethod
    def column_values(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every column, before class weights, shape (R, C).

        Parameters
        ----------
        scores : Tensor, shape (R, K, C)
            Logits with bias and adjustment; one column a sample, or a class.
        targets : Tensor, shape (K, C)
            Label distribution of every column.
        """

    @abstractmethod
    def column_residuals(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the derivatives of `column_values`, shape (R, K, C); may overwrite ``scores``."""


class Derivatives(NamedTuple):
    """First and second derivatives of a data fit at one point.

    Attributes
    ----------
    by_margin, by_score : ndarray, shapes (G,) and (G, G)
        Gradient with respect to ``within`` and ``scores``.
    curvature : callable
        The Hessian.
    margin_diagonal, score_diagonal : ndarray, shapes (G,) and (G, G)
        Second derivatives in each ``within[i]`` and each ``scores[j, i]`` alone. Row sums of the
        latter are those in the bias of each group.
    """

    by_margin: Array
    by_score: Array
    curvature: Curvature
    margin_diagonal: Array
    score_diagonal: Array


class Columns(NamedTuple):
    """Second-order model of every column alone: that of `Derivatives`, in a form to be inverted.

    In the change of a column's scores, the own one's counted with ``slope`` times that of
    ``within``, and in the change of ``within`` the Hessian is ``diag(curvature) - share q q^T`` and
    ``bend``, without mixed terms.

    Attributes
    ----------
    by_margin, by_score : ndarray, shapes (G,) and (G, G)
        Gradient, as in `Derivatives`.
    slope, bend, share : ndarray, shape (G,)
    curvature : ndarray, shape (G, G)
        ``share q`` where there is a q, times `Partition.scales`.
    direction : ndarray, shape (G, G), or None
        The q of every column; divided by `Partition.scales` of sum one.
    """

    by_margin: Array
    by_score: Array
    slope: Array
    bend: Array
    share: Array
    curvature: Array
    direction: Array | None


class Datafit(ABC):
    """Mean loss ``f(Z + b 1^T)`` of block logits over a partition.

    `values`, `residual`, `scores` and what a certificate asks for take batches, on leading axes.

    Where siblings share their logits, the own less a sibling's residual is minus the class weight
    (times the scale), whatever the others do: thresholds of merging rest on that.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.groups = np.arange(partition.num_groups)

    def value(self, within: Array, scores: Array) -> float:
        """Return the mean loss over all samples (cross-entropy in nats)."""
        return float(self.values(within, scores))

    @abstractmethod
    def values(self, within: Array, scores: Array) -> Array:
        """Return `value` of a batch."""

    @abstractmethod
    def residual(self, within: Array, scores: Array) -> BlockMatrix:
        """Return R, so that ``R D^{1/2} / N`` is the gradient in ``X``."""

    def values_and_residuals(self, scores: Array) -> tuple[Array, Array]:
        """Return the values (B,) of a batch of K x K scores and their residuals (B, K, K).

        Of a partition in which every class stands alone; for searches, which ask for both at once.
        """
        within = np.zeros(scores.shape[:-1])
        return self.values(within, scores), self.residual(within, scores).mean

    @abstractmethod
    def scores(self, residual: BlockMatrix) -> tuple[Array, Array]:
        """Return (within, scores) that have a residual, the inverse of `residual`.

        For a loss that ignores constants up to one a column, chosen so that columns sum to zero.
        """

    @abstractmethod
    def evaluate(self, within: Array, mean: Array, bias: Array) -> tuple[Array, Array, BlockMatrix]:
        """Return `values` of logits ``mean + bias 1^T``, bounds of their rounding, and R.

        A constant added to the bias, where that changes nothing, may have been rounded as well.
        """

    @abstractmethod
    def derivatives(self, within: Array, scores: Array) -> Derivatives:
        """Return gradient and Hessian of `value` in (within, scores)."""

    @abstractmethod
    def columns(self, within: Array, scores: Array) -> Columns:
        """Return the model of every column at a point."""

    @property
    @abstractmethod
    def smoothness(self) -> float:
        """Bound of the Hessian's largest eigenvalue in ``X = Z D^{1/2}``."""

    def dual_value(self, residual: BlockMatrix) -> float:
        """Return ``-f*`` at ``R D^{1/2} / N``: a lower bound's data part."""
        return float(self.dual_values(residual))

    @abstractmethod
    def dual_values(self, residual: BlockMatrix) -> Array:
        """Return `dual_value` of a batch, their rounding subtracted; -inf outside the domain."""

    @abstractmethod
    def restrict(self, residual: BlockMatrix) -> BlockMatrix:
        """Return a nearby residual in the domain of the conjugate, where it left that; a batch.

        What the domain demands exactly, such as columns with a sum of zero, it has but for the
        rounding that `BlockMatrix.norm_bound` covers.
        """

    @abstractmethod
    def repair(self, residual: BlockMatrix) -> BlockMatrix:
        """Return a nearby residual with ``R n = 0``, as a free bias demands; a batch too."""

    @abstractmethod
    def rows(self, residual: BlockMatrix) -> tuple[Array, Array]:
        """Return `BlockMatrix.row_average` of a dual point, and bounds of the error; a batch."""

    @abstractmethod
    def possible_rows(self, rows: Array) -> tuple[Array, Array]:
        """Return row averages that a residual can have, and bounds of their rounding; a batch."""

    @abstractmethod
    def with_rows(self, residual: BlockMatrix, values: Array, miss: Array) -> tuple[Array, Array]:
        """Bound what it costs that row averages become others, without rounding; a batch.

        Parameters
        ----------
        residual : BlockMatrix
            In the domain of the conjugate.
        values : ndarray
            Its `dual_values`.
        miss : ndarray, shape (..., G)
            How far each row average is from what it shall be, at most.

        Returns
        -------
        values, change : ndarray
            There is a dual point whose row averages are what they shall be, or a common share of
            that. Its dual value is at least the former, and in ``X`` times N it is at most the
            latter away, in the operator norm.
        """

    @abstractmethod
    def bias_derivatives(self, within: Array, scores: Array) -> tuple[Array, Array]:
        """Return gradient (G,) and Hessian (G, G) of `value` in the bias of each group."""

    @abstractmethod
    def sample_sum(self, logits: Array, labels: NDArray[np.intp]) -> float:
        """Return the summed loss of single samples, class weights included.

        Parameters
        ----------
        logits : ndarray, shape (S, K)
            With bias, before the adjustment; may be overwritten.
        labels : ndarray, shape (S,)
        """

    @abstractmethod
    def sample_residuals(self, logits: Array, labels: NDArray[np.intp]) -> Array:
        """Return the derivatives of `sample_sum` by the logits, shape (S, K); parameters alike."""

    def _gradient(self, residual: BlockMatrix) -> tuple[Array, Array]:
        p = self.partition
        by_margin = p.shares * residual.within * (p.sizes - 1) / p.sizes
        return by_margin, residual.mean * p.shares * p.sizes[:, None]
