"""Training with Lightning: the UFM objective as a loss, and collapse measured on the way.

The names below are loaded on first use: Lightning takes seconds to import, and configurations and
margins (`tightframe.training.options`, `tightframe.training.margins`) need none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightframe.lazy import handed_on
from tightframe.progress import loading

if TYPE_CHECKING:
    from tightframe.capture.huggingface import CollapseTrainerCallback
    from tightframe.capture.lightning import CollapseMonitor
    from tightframe.capture.record import TrainingRecord
    from tightframe.training.backbones import (
        VGG,
        AdaptedModel,
        DenseNet,
        ResNet,
        adapted,
        build_backbone,
    )
    from tightframe.training.callbacks import CollapseCallback, history_columns
    from tightframe.training.contexts import ContextCallback, TokenMLP
    from tightframe.training.continuing import Continuation, continue_at
    from tightframe.training.losses import ProblemLoss, UFMLoss
    from tightframe.training.margins import group_margins
    from tightframe.training.module import CollapseModule
    from tightframe.training.networks import MLP, head_bias, head_layers, head_weight, linear_head
    from tightframe.training.ufm.train import UFMRun, UFMRuns, svm_direction, train_ufm

__all__ = [
    "MLP",
    "VGG",
    "AdaptedModel",
    "CollapseCallback",
    "CollapseModule",
    "CollapseMonitor",
    "CollapseTrainerCallback",
    "ContextCallback",
    "Continuation",
    "DenseNet",
    "ProblemLoss",
    "ResNet",
    "TokenMLP",
    "TrainingRecord",
    "UFMLoss",
    "UFMRun",
    "UFMRuns",
    "adapted",
    "build_backbone",
    "continue_at",
    "group_margins",
    "head_bias",
    "head_layers",
    "head_weight",
    "history_columns",
    "linear_head",
    "svm_direction",
    "train_ufm",
]

__getattr__ = handed_on(
    __name__,
    {
        "tightframe.capture.huggingface": ("CollapseTrainerCallback",),
        "tightframe.capture.lightning": ("CollapseMonitor",),
        "tightframe.capture.record": ("TrainingRecord",),
        "tightframe.training.backbones": (
            "VGG",
            "AdaptedModel",
            "DenseNet",
            "ResNet",
            "adapted",
            "build_backbone",
        ),
        "tightframe.training.callbacks": ("CollapseCallback", "history_columns"),
        "tightframe.training.contexts": ("ContextCallback", "TokenMLP"),
        "tightframe.training.continuing": ("Continuation", "continue_at"),
        "tightframe.training.losses": ("ProblemLoss", "UFMLoss"),
        "tightframe.training.margins": ("group_margins",),
        "tightframe.training.module": ("CollapseModule",),
        "tightframe.training.networks": (
            "MLP",
            "head_bias",
            "head_layers",
            "head_weight",
            "linear_head",
        ),
        "tightframe.training.ufm.train": ("UFMRun", "UFMRuns", "svm_direction", "train_ufm"),
    },
    around=loading,
)
