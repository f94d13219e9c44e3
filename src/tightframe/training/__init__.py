"""Training with Lightning: the UFM objective as a loss, and collapse measured on the way.

The names below are loaded on first use: Lightning takes seconds to import, and configurations and
margins (`tightframe.training.options`, `tightframe.training.margins`) need none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tightframe.training.backbones import VGG, AdaptedModel, ResNet, adapted, build_backbone
    from tightframe.training.callbacks import CollapseCallback, history_columns
    from tightframe.training.huggingface import CollapseTrainerCallback
    from tightframe.training.losses import UFMLoss
    from tightframe.training.margins import group_margins
    from tightframe.training.module import CollapseModule
    from tightframe.training.monitor import CollapseMonitor
    from tightframe.training.networks import MLP, head_bias, head_layers, head_weight, linear_head
    from tightframe.training.ufm import UFMRun, UFMRuns, svm_direction, train_ufm

__all__ = [
    "MLP",
    "VGG",
    "AdaptedModel",
    "CollapseCallback",
    "CollapseModule",
    "CollapseMonitor",
    "CollapseTrainerCallback",
    "ResNet",
    "UFMLoss",
    "UFMRun",
    "UFMRuns",
    "adapted",
    "build_backbone",
    "group_margins",
    "head_bias",
    "head_layers",
    "head_weight",
    "history_columns",
    "linear_head",
    "svm_direction",
    "train_ufm",
]

_MODULES = {
    "backbones": ("VGG", "AdaptedModel", "ResNet", "adapted", "build_backbone"),
    "callbacks": ("CollapseCallback", "history_columns"),
    "huggingface": ("CollapseTrainerCallback",),
    "losses": ("UFMLoss",),
    "margins": ("group_margins",),
    "module": ("CollapseModule",),
    "monitor": ("CollapseMonitor",),
    "networks": ("MLP", "head_bias", "head_layers", "head_weight", "linear_head"),
    "ufm": ("UFMRun", "UFMRuns", "svm_direction", "train_ufm"),
}


def __getattr__(name: str) -> Any:
    for module, exported in _MODULES.items():
        if name in exported:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
