"""Optimisers and learning rate schedules by name; plain Python, so checking them loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable

from tightframe.problem import positive_float

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("cosine", "step", "constant")


def lr_factor(schedule: str, total: int) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the steps done.

    Parameters
    ----------
    schedule : {"cosine", "step", "constant"}
    total : int
        Steps of the whole fit.
    """
    if schedule == "cosine":
        # min: Lightning asks once more after the last step.
        return lambda step: 0.5 * (1.0 + math.cos(math.pi * min(step / total, 1.0)))
    if schedule == "step":
        return lambda step: 1.0 if 2 * step < total else 0.1 if 4 * step < 3 * total else 0.01
    return lambda step: 1.0


def check_optimizer(
    optimizer: str, lr: float, momentum: float, schedule: str, backbone_weight_decay: float
) -> None:
    """Refuse arguments of `CollapseModule` that are out of range.

    Raises
    ------
    ValueError
        Naming the argument, what came and what is allowed.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer: got {optimizer!r}, allowed are {', '.join(OPTIMIZERS)}")
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule: got {schedule!r}, allowed are {', '.join(SCHEDULES)}")
    positive_float("lr", lr)
    if momentum != 0 and positive_float("momentum", momentum) >= 1:
        raise ValueError(f"momentum: got {momentum}, need a number in [0, 1)")
    if backbone_weight_decay != 0:
        positive_float("backbone_weight_decay", backbone_weight_decay)
