"""Networks on contexts, and the callback that measures them against a certified minimum."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tightframe.checks import whole_number
from tightframe.context_solution import ContextSolution
from tightframe.geometry.dense import gram_distance, normalized_distance
from tightframe.heads.modes import evaluating
from tightframe.training.context_measures import (
    accuracy,
    distance_to_etf,
    least_loss,
    singular_values,
)
from tightframe.training.measuring import MeasuringCallback, Row
from tightframe.training.module import CollapseModule
from tightframe.training.networks import MLP, head_bias, head_weight

Array = NDArray[np.float64]

#: A direction of the network's logits counts as used from this share of the smallest predicted one.
_USED = 0.5

#: Columns of a history row.
COLUMNS = (
    "epoch",
    "step",
    "seconds",
    "loss",
    "objective",
    "excess",
    "relative_excess",
    "divergence",
    "train_accuracy",
    "logits_to_predicted",
    "classifier_to_predicted",
    "classifier_to_etf",
    "means_to_predicted",
    "directions",
    "beyond_rank",
)


class TokenMLP(nn.Sequential):
    """Multilayer perceptron from contexts of token numbers (B, context) to features (B, d).

    Every token has an embedding, shared by all places; those of a context, side by side, go
    through an `MLP`.

    Parameters
    ----------
    num_tokens : int
        Tokens that contexts are made of, 0 to ``num_tokens - 1``.
    context : int
        Tokens in a context.
    feature_dim : int
        Width d of the features.
    hidden : sequence of int
        Widths of the hidden layers.
    embedding_dim : int
        Width of a token's embedding.

    Raises
    ------
    ValueError
        If a width is below 1.
    """

    def __init__(
        self,
        num_tokens: int,
        context: int,
        feature_dim: int,
        hidden: Sequence[int] = (256,),
        embedding_dim: int = 64,
    ) -> None:
        width = whole_number("embedding_dim", embedding_dim)
        super().__init__(
            nn.Embedding(whole_number("num_tokens", num_tokens), width),
            nn.Flatten(),
            MLP(whole_number("context", context) * width, feature_dim, hidden),
        )
        self.feature_dim = feature_dim


@dataclass(frozen=True, eq=False)
class MeasuredContexts:
    """What a network does with every context.

    Attributes
    ----------
    row : dict of str to float
        All of `COLUMNS` but epoch, step and seconds.
    features : Tensor, shape (m, d)
        On the CPU.
    weight : Tensor, shape (V, d)
    bias : Tensor or None, shape (V,)
    """

    row: Row
    features: Tensor
    weight: Tensor
    bias: Tensor | None


class ContextCallback(MeasuringCallback[MeasuredContexts]):
    """Measure a network on contexts at the start, every n epochs, and at the end.

    Each measurement is a row of `history`, with `COLUMNS`:

    - epoch, step, seconds: as in `CollapseCallback`;
    - loss, objective, excess, relative_excess: mean loss over the occurrences, regularised
      objective, the objective less the certified lower bound of its minimum, and that over the
      bound;
    - divergence: the loss less what no law of the next label can go below, that is the mean
      Kullback-Leibler divergence of the network's law from the data's, in nats;
    - train_accuracy: share of the occurrences whose label is the likeliest by the network;
    - logits_to_predicted, classifier_to_predicted, means_to_predicted: normalised Frobenius
      distances of the logits, and of the Gram matrices of classifier and context features, to the
      minimiser's;
    - classifier_to_etf: of the classifier's Gram matrix to the simplex ETF's;
    - directions: how many singular values of the logits, times the roots of the feature weights,
      are above half of the smallest that the minimiser has: the width that the network uses;
    - beyond_rank: what is left of them, as a share of their norm, outside of as many leading
      directions as the minimiser's rank.

    Parameters
    ----------
    solution : ContextSolution
        What the theory predicts, with the problem.
    inputs : Tensor, shape (m, ...)
        Of every context, in the order of the problem.
    every : int
        Epochs between measurements.
    on_measure : callable, optional
        Called with the history after every measurement.

    Raises
    ------
    ValueError
        If there are not as many inputs as contexts, or ``every`` is below 1.
    """

    def __init__(
        self,
        solution: ContextSolution,
        inputs: Tensor,
        *,
        every: int = 1,
        on_measure: Callable[[list[Row]], None] | None = None,
    ) -> None:
        super().__init__(list(COLUMNS), every, on_measure)
        problem = solution.problem
        if len(inputs) != problem.num_contexts:
            raise ValueError(
                f"inputs: got {len(inputs)}, the problem has {problem.num_contexts} contexts"
            )
        self.problem = problem
        self._solution = solution
        self._inputs = inputs
        self._contexts = torch.arange(problem.num_contexts)
        self._counts = torch.from_numpy(problem.counts)
        self._entropy = least_loss(problem)
        predicted = singular_values(problem, solution.weights[0], solution.class_means)
        self._least = _USED * float(predicted[solution.rank - 1]) if solution.rank else 0.0

    @torch.no_grad()
    def measure(self, module: CollapseModule) -> MeasuredContexts:
        """Run all contexts through a module, in eval mode and without gradients.

        Raises
        ------
        ValueError
            If features or loss are not finite, because training diverged.
        """
        with evaluating(module):
            features = module.backbone(self._inputs.to(module.device)).cpu()
            weight = head_weight(module.head).detach().cpu().clone()
            bias = head_bias(module.head)
            bias = None if bias is None else bias.detach().cpu().clone()
            # float64: the excess over the bound is the small difference of two such sums.
            wide = features.double()
            logits = wide @ weight.double().T
            scores = logits if bias is None else logits + bias.double()
            loss = float(module.loss.data_loss(scores, self._contexts, self._counts))
            penalty = module.loss.feature_penalty(wide, self._contexts, self._counts)
            objective = loss + float(penalty) + float(module.loss.head_penalty(module.head))
        if not math.isfinite(loss) or not bool(torch.isfinite(features).all()):
            raise ValueError("lr: training diverged, loss or features are not finite; lower it")
        row: Row = {
            "loss": loss,
            "objective": objective,
            "divergence": loss - self._entropy,
            "train_accuracy": accuracy(self.problem, scores.numpy()),
            **self._excess(objective),
            **self._distances(wide.numpy().T, weight.double().numpy()),
        }
        return MeasuredContexts(row, features, weight, bias)

    def _excess(self, objective: float) -> Row:
        bound = self._solution.lower_bound
        excess = math.nan if bound is None else objective - bound
        return {"excess": excess, "relative_excess": excess / bound if bound else math.nan}

    def _distances(self, features: Array, weight: Array) -> Row:
        best, predicted = self._solution, self._solution.class_means
        values = singular_values(self.problem, weight, features)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of zero matrices: NaN
            return {
                "logits_to_predicted": normalized_distance(weight @ features, best.logits),
                "classifier_to_predicted": gram_distance(weight.T, best.weights[0].T),
                "classifier_to_etf": distance_to_etf(weight),
                "means_to_predicted": gram_distance(features, predicted),
                "directions": float((values > self._least).sum()),
                "beyond_rank": float(np.linalg.norm(values[best.rank :]) / np.linalg.norm(values)),
            }
