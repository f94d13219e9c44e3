"""Run a module in eval mode, and leave its modes and all random states as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Generator, nn


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode and without gradients; afterwards every submodule is as before."""
    modes = [(child, child.training) for child in model.modules()]
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        if was_training:
            model.train()  # modules that do more than set a flag undo it here
        for child, mode in modes:
            if child.training != mode:  # setting an attribute of a module is slow
                child.training = mode


@contextlib.contextmanager
def preserved_rng(loader: Any = None) -> Iterator[None]:
    """Leave the random states of torch (CPU and CUDA), NumPy and Python as they were.

    Those of a loader's own generators, too.
    """
    batches = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
    generators = [g for o in owners if isinstance(g := getattr(o, "generator", None), Generator)]
    states = [generator.get_state() for generator in generators]
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if used else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
