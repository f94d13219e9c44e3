"""The Lightning module: any backbone that returns features, a linear head, the UFM's loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from tightframe.checks import number_of
from tightframe.problem.problem import Problem
from tightframe.training.losses import UFMLoss
from tightframe.training.networks import head_layers
from tightframe.training.options import check_optimizer, lr_factor


class CollapseModule(lightning.LightningModule):
    """Train a backbone and a linear head on the objective of `Problem`.

    The decays of ``problem`` act on the features and on the head, through the loss (`UFMLoss`), so
    they are the UFM's constants. The backbone itself is not decayed unless
    ``backbone_weight_decay`` asks for it, which the UFM does not know. With ``decay_on="all"`` it
    is the other way round: all parameters have ``problem``'s weight decay, as networks usually do,
    and the features have none; ``loss`` remains the UFM's objective, measured but not trained.

    Parameters
    ----------
    backbone : nn.Module
        Maps a batch of inputs to features, shape (B, d). With ``problem.features`` of
        ``"nonnegative"`` it must return none below zero (the measuring callback checks).
    head : nn.Module
        `torch.nn.Linear`, or a `torch.nn.Sequential` of ``problem.depth`` of them (`linear_head`);
        layers may be fixed (`tightframe.heads.FixedETF`).
    problem : Problem
        Its counts are those of the training set.
    optimizer : {"adam", "sgd", "lbfgs"}
        L-BFGS: history 10, strong Wolfe line search, at most 20 iterations a step (a step is a
        batch, which should be the whole training set).
    lr : float
        Learning rate at the start; for L-BFGS the first step that the line search tries.
    momentum : float
        Of SGD, in [0, 1); the others ignore it.
    schedule : {"cosine", "step", "constant", "milestones"}
        Of the learning rate over all steps of the fit: half a cosine down to zero, a tenth from
        one half and a hundredth from three quarters on, no change, or a further tenth from each
        of ``milestones`` on.
    backbone_weight_decay : float
        ``(backbone_weight_decay / 2) ||theta||^2`` on all parameters outside the head.
    milestones : sequence of int
        Epochs, increasing.
    warmup_epochs : int
        Epochs at the start in which every decay is multiplied by ``warmup_decay_factor``
        (Hong & Ling: a tenth for the first sixth).
    warmup_decay_factor : float
        In [0, 1].
    decay_on : {"features", "all"}
        What decays: features, head and bias as in ``problem``; or all parameters, biases and those
        of normalisations included, by its weight decay (Zhu et al. 2021).

    Raises
    ------
    ValueError
        If an argument is out of range, the head does not fit the problem, or ``decay_on="all"``
        finds several weight decays in the problem.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        problem: Problem,
        *,
        optimizer: str = "adam",
        lr: float = 1e-3,
        momentum: float = 0.9,
        schedule: str = "cosine",
        backbone_weight_decay: float = 0.0,
        milestones: Sequence[int] = (),
        warmup_epochs: int = 0,
        warmup_decay_factor: float = 0.1,
        decay_on: str = "features",
    ) -> None:
        super().__init__()
        check_head(head, problem)
        check_optimizer(
            optimizer,
            lr,
            momentum,
            schedule,
            backbone_weight_decay,
            milestones=milestones,
            warmup_epochs=warmup_epochs,
            warmup_decay_factor=warmup_decay_factor,
            decay_on=decay_on,
        )
        if decay_on == "all" and len(set(problem.weight_decays)) > 1:
            raise ValueError(
                "decay_on: 'all' has one weight decay for all parameters, the problem has "
                f"{list(problem.weight_decays)}"
            )
        self.backbone = backbone
        self.head = head
        self.loss = UFMLoss(problem)
        self.problem = problem
        self.optimizer_name = optimizer
        self.lr = float(lr)
        self.momentum = float(momentum)
        self.schedule = schedule
        self.backbone_weight_decay = float(backbone_weight_decay)
        self.milestones = tuple(milestones)
        self.warmup_epochs = int(warmup_epochs)
        self.warmup_decay_factor = float(warmup_decay_factor)
        self.decay_on = decay_on

    @property
    def decay_factor(self) -> float:
        """Factor on all decays in this epoch."""
        return self.warmup_decay_factor if self.current_epoch < self.warmup_epochs else 1.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, shape (B, K)."""
        logits: Tensor = self.head(self.backbone(inputs))
        return logits

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Return what the step minimises: the batch's estimate of the objective.

        A batch is inputs and labels; where the problem has targets, inputs and contexts, and
        perhaps how many samples every row stands for, see `UFMLoss`.

        With ``decay_on="all"`` that is the data loss. Weight decay of other parameters than the
        head's is the optimiser's, but for L-BFGS, which has none and needs it in the value.

        Nothing is logged here: one call of ``self.log`` costs as much as a step of a small
        network. `CollapseCallback` measures and logs the whole training set instead.
        """
        inputs, labels, *rest = batch
        repeats = rest[0] if rest else None
        features = self.backbone(inputs)
        loss: Tensor
        if self.decay_on == "all":
            loss = self.loss.data_loss(self.head(features), labels, repeats)
        else:
            loss = self.loss(features, labels, self.head, self.decay_factor, repeats)
        if self.optimizer_name == "lbfgs":
            for group in self._groups():
                if decay := self.decay_factor * group["weight_decay"]:
                    loss = loss + 0.5 * decay * sum(p.square().sum() for p in group["params"])
        return loss

    def on_train_epoch_start(self) -> None:
        """Set the optimiser's weight decays of this epoch, where they are warmed up."""
        if self.warmup_epochs and self.optimizer_name != "lbfgs":
            optimizer = self.trainer.optimizers[0]
            for group, made in zip(optimizer.param_groups, self._groups(), strict=True):
                group["weight_decay"] = self.decay_factor * made["weight_decay"]

    def configure_optimizers(self) -> Any:
        """Return the optimiser and, stepped with it, the learning rate schedule."""
        groups = self._groups()
        # The fused kernels take one pass over the parameters instead of a dozen small ones.
        optimizer: torch.optim.Optimizer
        if self.optimizer_name == "adam":
            optimizer = torch.optim.Adam(groups, lr=self.lr, fused=True)
        elif self.optimizer_name == "sgd":
            optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=True)
        else:
            optimizer = torch.optim.LBFGS(
                [p for group in groups for p in group["params"]],
                lr=self.lr,
                history_size=10,
                line_search_fn="strong_wolfe",
            )
        if self.schedule == "constant":
            return optimizer
        by_epoch = self.schedule == "milestones"
        total = 0 if by_epoch else int(self.trainer.estimated_stepping_batches)
        factor = lr_factor(self.schedule, total, self.milestones)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "epoch" if by_epoch else "step"},
        }

    def _groups(self) -> list[dict[str, Any]]:
        """Return the trained parameters by weight decay: the head's, then the backbone's."""
        head, backbone = (
            [p for p in part.parameters() if p.requires_grad] for part in (self.head, self.backbone)
        )
        if self.decay_on == "all":
            decays = (self.problem.weight_decays[0],) * 2
        else:
            decays = (0.0, self.backbone_weight_decay)
        groups = zip((head, backbone), decays, strict=True)
        return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


def check_head(head: nn.Module, problem: Problem) -> None:
    """Refuse a head that is not the problem's.

    Raises
    ------
    ValueError
        If depth, number of classes, bias or width differ.
    """
    layers = head_layers(head)
    if len(layers) != problem.depth:
        raise ValueError(
            f"head: got {number_of(len(layers), 'layer')}, the problem has depth {problem.depth}"
        )
    if layers[-1].out_features != problem.num_classes:
        raise ValueError(
            f"head: got {layers[-1].out_features} outputs, the problem has "
            f"{problem.num_classes} classes"
        )
    has_bias = layers[-1].bias is not None
    if has_bias != (problem.bias != "none"):
        raise ValueError(
            f"head: it has {'a' if has_bias else 'no'} bias, the problem's bias is {problem.bias!r}"
        )
    widths = [layer.in_features for layer in layers]
    if problem.dims is not None and widths != list(problem.dims):
        named = f"features of width {widths[0]}"
        if len(widths) > 1:
            named += f" and layers of width {', '.join(map(str, widths[1:]))}"
        raise ValueError(f"head: {named}, the problem's dim is {problem.dim}")
