"""Networks, optimisers and schedules, by name, and when a run is measured; loads no torch."""

from __future__ import annotations

import itertools
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tightframe.checks import choice, positive_float, whole_number
from tightframe.problem.problem import FEATURES

OPTIMIZERS = ("adam", "sgd", "lbfgs")
SCHEDULES = ("cosine", "step", "constant", "milestones")
DECAY_ON = ("features", "all")
STEMS = ("cifar", "imagenet")

_RESNET = {"stem": "cifar", "width": 64, "last_relu": None}
_VGG = {"width": 64, "last_relu": None}

#: The backbones of `tightframe.training.build_backbone` with their options and defaults.
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"batch_norm": False, "last_relu": None},
    "resnet18": _RESNET,
    "resnet50": _RESNET,
    "vgg11": _VGG,
    "vgg13": _VGG,
    "vgg16": _VGG,
    "densenet_cifar": {"width": 12, "last_relu": None},
}

#: Packages whose models are backbones too, as ``"timm:resnet34"``.
MODEL_PACKAGES = ("timm", "torchvision")

#: Initial weights of a linear head's layers.
HEAD_INITS = ("uniform", "orthogonal")

# Features of a network over its ``width``: channels are k, 2 k, 4 k, 8 k; a bottleneck has 4 x; the
# layers of a DenseNet's last block and half the channels before it are 32 growth rates.
_FEATURES_PER_WIDTH = {
    "resnet18": 8,
    "resnet50": 32,
    "vgg11": 8,
    "vgg13": 8,
    "vgg16": 8,
    "densenet_cifar": 32,
}


# -- networks --------------------------------------------------------------------------------------


def package_model(network: str) -> tuple[str, str] | None:
    """Split ``"timm:resnet34"`` into package and model; None for a name of `NETWORKS`.

    Raises
    ------
    ValueError
        If the name is neither.
    """
    if isinstance(network, str):
        package, colon, model = network.partition(":")
        if network in NETWORKS:
            return None
        if package in MODEL_PACKAGES and colon and model:
            return package, model
    raise ValueError(
        f"network: got {network!r}, allowed are {', '.join(NETWORKS)}, "
        f"{' and '.join(f'{package}:MODEL' for package in MODEL_PACKAGES)}"
    )


def check_network(
    network: str, options: Mapping[str, Any], features: str = "real"
) -> dict[str, Any]:
    """Refuse an unknown network or bad options; return those options that are not the default.

    Parameters
    ----------
    network : str
        One of `NETWORKS`, or ``"timm:MODEL"``, ``"torchvision:MODEL"``.
    options : mapping
        Of `tightframe.training.build_backbone`. Those of a package's model can only be checked by
        the package; they must be JSON-ready.
    features : {"real", "nonnegative"}
        As in `Problem.features`.

    Raises
    ------
    ValueError
        Naming the argument, what came and what is allowed.
    """
    choice("features", features, FEATURES)
    foreign = package_model(network)
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise ValueError(f"network_options: got {options!r}, need a mapping of names to values")
    try:
        values: dict[str, Any] = json.loads(json.dumps(dict(options), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"network_options: not JSON-ready ({error})") from None
    if foreign is not None:
        return values
    defaults = NETWORKS[network]
    for name, value in values.items():
        if name not in defaults:
            raise ValueError(
                f"network_options: {name!r} is not an option of {network}, "
                f"there are {', '.join(defaults)}"
            )
        if name == "width":
            whole_number("width", value, 1)
        elif name == "stem":
            choice("stem", value, STEMS)
        elif not isinstance(value, bool) and not (value is None and defaults[name] is None):
            raise ValueError(f"{name}: got {value!r}, need true or false")
    if features == "nonnegative" and values.get("last_relu") is False:
        raise ValueError("last_relu: got False, but nonnegative features end in a ReLU")
    # What says the default is dropped, so that equal networks have equal configurations.
    values = {name: value for name, value in values.items() if value != defaults[name]}
    if values.get("last_relu") is (features == "nonnegative"):
        del values["last_relu"]
    return values


def own_feature_dim(network: str, options: Mapping[str, Any]) -> int | None:
    """Return the width of the features that an architecture has by itself, None for the MLP.

    Raises
    ------
    ValueError
        For a model of a package, whose width only the package knows.
    """
    if package_model(network) is not None:
        raise ValueError(f"feature_dim: missing, {network} needs the width of its features")
    if network not in _FEATURES_PER_WIDTH:
        return None
    return _FEATURES_PER_WIDTH[network] * int(options.get("width", NETWORKS[network]["width"]))


# -- optimisers ------------------------------------------------------------------------------------


def lr_factor(schedule: str, total: int, milestones: Sequence[int] = ()) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the steps done.

    Parameters
    ----------
    schedule : {"cosine", "step", "constant", "milestones"}
    total : int
        Steps of the whole fit.
    milestones : sequence of int
        For ``"milestones"``: from each of them on a further factor of 0.1. They and the argument
        of the returned function are epochs, not steps.
    """
    if schedule == "cosine":
        # min: Lightning asks once more after the last step.
        return lambda step: 0.5 * (1.0 + math.cos(math.pi * min(step / total, 1.0)))
    if schedule == "step":
        return lambda step: 1.0 if 2 * step < total else 0.1 if 4 * step < 3 * total else 0.01
    if schedule == "milestones":
        return lambda epoch: float(10.0 ** -bisect_right(milestones, epoch))
    return lambda step: 1.0


def check_optimizer(
    optimizer: str,
    lr: float,
    momentum: float,
    schedule: str,
    backbone_weight_decay: float,
    *,
    milestones: Sequence[int] = (),
    warmup_epochs: int = 0,
    warmup_decay_factor: float = 0.1,
    decay_on: str = "features",
) -> None:
    """Refuse arguments of `CollapseModule` that are out of range.

    Raises
    ------
    ValueError
        Naming the argument, what came and what is allowed.
    """
    for name, value, allowed in (
        ("optimizer", optimizer, OPTIMIZERS),
        ("schedule", schedule, SCHEDULES),
        ("decay_on", decay_on, DECAY_ON),
    ):
        choice(name, value, allowed)
    positive_float("lr", lr)
    if momentum != 0 and positive_float("momentum", momentum) >= 1:
        raise ValueError(f"momentum: got {momentum}, need a number in [0, 1)")
    if backbone_weight_decay != 0:
        positive_float("backbone_weight_decay", backbone_weight_decay)
        if decay_on == "all":
            raise ValueError(
                f"backbone_weight_decay: got {backbone_weight_decay}, but decay_on='all' decays "
                "the backbone with the setting's weight_decay; leave it at 0"
            )
    check_milestones(schedule, milestones)
    whole_number("warmup_epochs", warmup_epochs, 0)
    if warmup_decay_factor != 0 and positive_float("warmup_decay_factor", warmup_decay_factor) > 1:
        raise ValueError(f"warmup_decay_factor: got {warmup_decay_factor}, need one in [0, 1]")


def check_milestones(schedule: str, milestones: Sequence[int]) -> tuple[int, ...]:
    """Return the milestones as a tuple of epochs.

    Raises
    ------
    ValueError
        If they are not increasing whole numbers of at least 1, are missing for the schedule of
        that name, or are given for another.
    """
    if not isinstance(milestones, Sequence) or isinstance(milestones, str | bytes):
        raise ValueError(f"milestones: got {milestones!r}, need a sequence of epochs")
    epochs = tuple(whole_number("milestones", epoch, 1) for epoch in milestones)
    if any(late <= early for early, late in itertools.pairwise(epochs)):
        raise ValueError(f"milestones: got {list(epochs)}, need increasing epochs")
    if bool(epochs) != (schedule == "milestones"):
        raise ValueError(
            "milestones: missing, schedule 'milestones' needs epochs at which the learning rate "
            "falls to a tenth"
            if not epochs
            else f"milestones: got {list(epochs)}, but the schedule is {schedule!r}"
        )
    return epochs


# -- when it is measured --------------------------------------------------------------------------

#: Unless told otherwise a run is measured so often, first after these epochs: what happens to
#: classes happens in the first tenth.
MEASUREMENTS, EARLY = 41, range(0, 20, 2)


def measured_epochs(epochs: int, every: int | None = None) -> list[int]:
    """Return the epochs after which a run is measured, 0 and the last among them.

    Parameters
    ----------
    epochs : int
        Of the run.
    every : int, optional
        Epochs between measurements. By default those of `EARLY`, then each farther from the one
        before by the same factor, at most `MEASUREMENTS` in all.
    """
    if every is not None:
        return [*range(0, epochs, every), epochs]
    if epochs <= EARLY[-1]:
        return [*range(0, epochs, EARLY.step), epochs]
    steps = MEASUREMENTS - len(EARLY)
    factor = epochs / EARLY[-1]
    return sorted(
        {*EARLY, *(round(EARLY[-1] * factor ** (i / steps)) for i in range(1, steps + 1))}
    )
