"""The loss of a `Problem`, and the unconstrained feature model's objective, for training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tightframe.heads.terms import LossTerms
from tightframe.problem.problem import Problem
from tightframe.training.networks import head_bias, head_layers


class ProblemLoss(nn.Module):
    r"""The loss of a `Problem` without its decays: a criterion for any training loop.

    For a batch of B logits z_i,

        (1/B) sum_i c_{y_i} loss(s * z_i + a - m_{y_i} e_{y_i}, p_{y_i})

    with class weights c, logit scales s (CDT, VS), logit adjustment a, class margins m (LDAM), and
    labels p smoothed: whatever of them ``problem`` has. Its decays are not used. Logits come as
    the network predicts by them: a bias is scaled too, and test accuracy needs none of this.

    Where ``problem`` has targets, y_i is the context of sample i and p_y its label distribution. A
    row may then stand for several samples of its context (``repeats``), which count as often.

    Parameters
    ----------
    problem : Problem

    Notes
    -----
    The sum is divided by B. That is PyTorch's ``CrossEntropyLoss(label_smoothing=)``; with class
    weights PyTorch divides by the batch's weights, see `Problem.from_weighted_mean`. Feature
    weights are no part of the loss, see `UFMLoss`.

    Examples
    --------
    >>> decays = {"weight_decay": 5e-4, "feature_decay": 1e-5}
    >>> ldam = ProblemLoss(Problem("100x2,10x2", class_margins="0.28x2,0.5x2", **decays))
    >>> round(float(ldam(torch.zeros(1, 4), torch.tensor([3]))), 4)
    1.7827
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self._terms = LossTerms.of(problem)
        # They follow the module to its device; the problem has them already, so no checkpoint does.
        for name, numbers in vars(self._terms).items():
            single = None if numbers is None else torch.tensor(numbers, dtype=torch.float32)
            self.register_buffer(f"_{name}", single, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, repeats: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch, a scalar.

        Parameters
        ----------
        logits : Tensor, shape (B, K)
        labels : Tensor, shape (B,), int64
            Contexts where the problem has targets.
        repeats : Tensor, shape (B,), optional
            How many samples every row stands for; with targets only.

        Raises
        ------
        ValueError
            If there are repeats, and the problem has no targets.
        """
        require_repeatable(self.problem, repeats)
        laws = self.per_class("targets", logits)
        if laws is not None:
            return self._of_contexts(logits, labels, laws, repeats)
        scales, margins = self.per_class("scales", logits), self.per_class("margins", logits)
        if scales is not None:
            logits = logits * scales
        if margins is not None:
            logits = logits.scatter_add(1, labels[:, None], -margins[labels][:, None])
        share, spread = self.per_class("smoothing", logits), self.per_class("spread", logits)
        return self.problem.loss_object.batch_mean(
            logits,
            labels,
            self.per_class("weights", logits),
            self.per_class("adjustment", logits),
            None if share is None or spread is None else (share, spread),
        )

    def _of_contexts(
        self, logits: Tensor, contexts: Tensor, laws: Tensor, repeats: Tensor | None
    ) -> Tensor:
        each = self.problem.loss_object.column_values(logits.T[None], laws[contexts].T[None])[0]
        weights = self.per_class("weights", logits)
        if weights is not None:
            each = each * weights[contexts]
        if repeats is None:
            return each.mean()
        repeats = repeats.to(each.dtype)
        return each @ repeats / repeats.sum()

    def per_class(self, name: str, like: Tensor) -> Tensor | None:
        """Return one of `LossTerms`; beside float64, which is for measuring, to all digits."""
        numbers = getattr(self._terms, name)
        if numbers is None or like.dtype != torch.float64:
            single: Tensor | None = getattr(self, f"_{name}")
            return single
        return torch.as_tensor(numbers, device=like.device)


class UFMLoss(nn.Module):
    r"""The objective of `Problem`, estimated from a batch.

    For a batch of B of the N training samples, with features h_i and logits z_i,

        (1/B) sum_i c_{y_i} loss(z_i + a, y_i) + (feature_decay / 2) (N/B) sum_i f_{y_i} ||h_i||^2
            + sum_m (weight_decay_m / 2) ||W_m||_F^2 + (bias_decay / 2) ||b||^2

    with i over the batch and loss = cross-entropy, or ``0.5 * ||z - e_y||^2``; c are the class
    weights (ones) and a is the logit adjustment (zeros) of ``problem``; scales, margins and
    smoothed labels are as in `ProblemLoss`; f is ``feature_weights`` over counts (ones). N/B makes
    the batch's features stand for all N, so that ``problem``'s decays are the effective ones,
    whatever the batch size: over the batches of one epoch, the average weighted by B/N *is* the
    objective (for fixed parameters), and one random batch is an unbiased estimate of it.

    How other training scripts map to these constants:

    - *Optimiser weight decay.* SGD's ``weight_decay=w`` (not AdamW's decoupled one, which is not
      the gradient of any penalty) adds ``w * theta`` to the gradient, which is the penalty
      ``(w / 2) ||theta||^2``. On the head's layers it equals our ``weight_decay = w``. Do not give
      the head both; `CollapseModule` gives it this one. On all other layers it is *not* the
      UFM's ``feature_decay``: it limits features only through the layers before them.
    - *Features summed per batch* (``(w / 2) sum_{i in batch} ||h_i||^2`` beside a mean loss, no
      N/B) amount to a ``feature_decay`` of ``w * B / N``, and averaged per batch to ``w / N``.
      `Problem.from_batch_features` converts the former, and an extra factor before the loss.
    - *A fixed layer* (`tightframe.heads.FixedETF`) has no gradient. Its decay term is a constant
      that stays in the objective, so that values compare with those of a trained head; a learnable
      scale is decayed through it.
    - *Class weights* of PyTorch's ``CrossEntropyLoss(weight=c)`` have their mean taken over
      ``sum_{i in batch} c_{y_i}``, not over B: the loss of a class depends on who else is in the
      batch, and the decays count for more or less beside it. `Problem.from_weighted_mean` converts
      it for the whole training set.
    - *No one half*, or a *summed* loss: `Problem.from_no_half`, `Problem.from_summed_loss`.

    Parameters
    ----------
    problem : Problem
        Its counts give N; its decays and all terms of its loss are used as they are.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self._num_samples = problem.num_samples
        self._criterion = ProblemLoss(problem)

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        head: nn.Module,
        decay_factor: float = 1.0,
        repeats: Tensor | None = None,
    ) -> Tensor:
        """Return the batch's estimate of the objective, a scalar.

        Parameters
        ----------
        features : Tensor, shape (B, d)
        labels : Tensor, shape (B,), int64
            Contexts where the problem has targets.
        head : nn.Module
            As `head_layers` takes it.
        decay_factor : float
            On all decays, as while they are warmed up.
        repeats : Tensor, shape (B,), optional
            As in `ProblemLoss`: all contexts once, with their counts, give the objective itself.
        """
        loss = self.data_loss(head(features), labels, repeats)
        penalties = self.feature_penalty(features, labels, repeats), self.head_penalty(head)
        if decay_factor != 1:
            return loss + decay_factor * sum(penalties)
        return loss + penalties[0] + penalties[1]

    def data_loss(self, logits: Tensor, labels: Tensor, repeats: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch of logits, shape (B, K), without decays.

        As `ProblemLoss`: ``logits`` come as the network predicts by them.
        """
        loss: Tensor = self._criterion(logits, labels, repeats)
        return loss

    def feature_penalty(
        self, features: Tensor, labels: Tensor | None = None, repeats: Tensor | None = None
    ) -> Tensor:
        """Return the decay of the features, scaled from the batch to all N samples.

        Parameters
        ----------
        features : Tensor, shape (B, d)
        labels : Tensor, shape (B,), int64, optional
            Needed where the problem has ``feature_weights``.
        repeats : Tensor, shape (B,), optional
            As in `ProblemLoss`.
        """
        require_repeatable(self.problem, repeats)
        repeats = None if repeats is None else repeats.to(features.dtype)
        rows = len(features) if repeats is None else repeats.sum()
        scale = 0.5 * self.problem.feature_decay * self._num_samples / rows
        factors = self._criterion.per_class("feature_factors", features)
        if factors is None and repeats is None:
            return scale * features.square().sum()
        if factors is not None and labels is None:
            raise ValueError("labels: missing; the problem's feature_weights go by the class")
        each = features.square().sum(dim=1)
        if repeats is not None:
            each = each * repeats
        return scale * (each.sum() if factors is None else each @ factors[labels])

    def head_penalty(self, head: nn.Module) -> Tensor:
        """Return the decay of the head's layers and of its bias."""
        layers = head_layers(head)
        penalty = torch.zeros((), dtype=layers[0].weight.dtype, device=layers[0].weight.device)
        for decay, layer in zip(self.problem.weight_decays, layers, strict=True):
            penalty = penalty + 0.5 * decay * layer.weight.square().sum()
        bias = head_bias(head)
        if bias is not None and self.problem.bias_decay > 0:
            penalty = penalty + 0.5 * self.problem.bias_decay * bias.square().sum()
        return penalty


def require_repeatable(problem: Problem, repeats: Tensor | None) -> None:
    """Refuse rows that stand for several samples, where the problem has one class a sample.

    Raises
    ------
    ValueError
        If there are repeats, and the problem has no targets.
    """
    if repeats is not None and problem.targets is None:
        raise ValueError("repeats: got some, and the problem has no targets: a row is a sample")
