"""The Lightning module: any backbone that returns features, a linear head, the UFM's loss."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from tightframe.problem import Problem
from tightframe.training.losses import UFMLoss
from tightframe.training.networks import head_layers
from tightframe.training.options import check_optimizer, lr_factor


class CollapseModule(lightning.LightningModule):
    """Train a backbone and a linear head on the objective of `Problem`.

    The decays of ``problem`` act on the features and on the head, through the loss (`UFMLoss`), so
    they are the UFM's constants. The backbone itself is not decayed unless
    ``backbone_weight_decay`` asks for it, which the UFM does not know.

    Parameters
    ----------
    backbone : nn.Module
        Maps a batch of inputs to features, shape (B, d). With ``problem.features`` of
        ``"nonnegative"`` it must return none below zero (the measuring callback checks).
    head : nn.Module
        `torch.nn.Linear`, or a `torch.nn.Sequential` of ``problem.depth`` of them (`linear_head`).
    problem : Problem
        Its counts are those of the training set.
    optimizer : {"adam", "sgd"}
    lr : float
        Learning rate at the start.
    momentum : float
        Of SGD, in [0, 1); Adam ignores it.
    schedule : {"cosine", "step", "constant"}
        Of the learning rate over all steps of the fit: half a cosine down to zero, a tenth from
        one half and a hundredth from three quarters on, or no change.
    backbone_weight_decay : float
        ``(backbone_weight_decay / 2) ||theta||^2`` on all parameters outside the head.

    Raises
    ------
    ValueError
        If an argument is out of range or the head does not fit the problem.
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
    ) -> None:
        super().__init__()
        check_head(head, problem)
        check_optimizer(optimizer, lr, momentum, schedule, backbone_weight_decay)
        self.backbone = backbone
        self.head = head
        self.loss = UFMLoss(problem)
        self.problem = problem
        self.optimizer_name = optimizer
        self.lr = float(lr)
        self.momentum = float(momentum)
        self.schedule = schedule
        self.backbone_weight_decay = float(backbone_weight_decay)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, shape (B, K)."""
        logits: Tensor = self.head(self.backbone(inputs))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the batch's estimate of the objective.

        Nothing is logged here: one call of ``self.log`` costs as much as a step of a small
        network. `CollapseCallback` measures and logs the whole training set instead.
        """
        inputs, labels = batch
        loss: Tensor = self.loss(self.backbone(inputs), labels, self.head)
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimiser and, stepped with it, the learning rate schedule."""
        groups: list[dict[str, Any]] = [
            {"params": list(self.head.parameters()), "weight_decay": 0.0},
            {
                "params": [p for p in self.backbone.parameters() if p.requires_grad],
                "weight_decay": self.backbone_weight_decay,
            },
        ]
        groups = [group for group in groups if group["params"]]
        # The fused kernels take one pass over the parameters instead of a dozen small ones.
        optimizer: torch.optim.Optimizer
        if self.optimizer_name == "adam":
            optimizer = torch.optim.Adam(groups, lr=self.lr, fused=True)
        else:
            optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=True)
        if self.schedule == "constant":
            return optimizer
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(self.schedule, total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def check_head(head: nn.Module, problem: Problem) -> None:
    """Refuse a head that is not the problem's.

    Raises
    ------
    ValueError
        If depth, number of classes, bias or width differ.
    """
    layers = head_layers(head)
    if len(layers) != problem.depth:
        raise ValueError(f"head: got {len(layers)} layers, the problem has depth {problem.depth}")
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
    if problem.dim is not None and layers[0].in_features != problem.dim:
        raise ValueError(
            f"head: features of width {layers[0].in_features}, the problem's dim is {problem.dim}"
        )
