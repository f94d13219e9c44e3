"""Parameters and memory that a fixed or narrow classifier saves, counted from layers' shapes.

Zhu et al. (2021, https://arxiv.org/abs/2105.02375) fix the classifier as a simplex ETF
and narrow the features to d = K. In a ResNet only the last block changes: its last convolution and
batch norm get K channels, and a 1 x 1 convolution with batch norm becomes the shortcut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tightframe.checks import positive_float, whole_number
from tightframe.figures.table import Column, Table
from tightframe.saved import filed
from tightframe.shown import record

if TYPE_CHECKING:
    from rich.table import Table as RichTable

#: Numbers that an optimiser keeps for every parameter.
OPTIMIZER_STATES = {"sgd": 0, "sgd_momentum": 1, "adam": 2, "adamw": 2}

#: Blocks per stage, and whether blocks are bottlenecks (1 x 1, 3 x 3, 1 x 1 with 4 x the channels).
_RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}

#: Width, blocks and width of the MLP; patches of 16 x 16 pixels, images of 224 x 224.
_VITS = {
    "vit_s_16": (384, 12, 1536),
    "vit_b_16": (768, 12, 3072),
    "vit_l_16": (1024, 24, 4096),
}

#: Architectures whose shapes are known.
ARCHITECTURES = (*_RESNETS, *_VITS)


@filed
@record
@dataclass(frozen=True)
class Savings:
    """What a network costs with its usual classifier and after the change.

    Attributes
    ----------
    architecture : str
    num_classes : int
    fixed : bool
        Whether the classifier's weight is fixed afterwards (its bias is trained all the same).
    width_before, width_after : int
        Width d of the features.
    parameters_before, parameters_after : int
        Numbers stored, a fixed weight included, as the paper counts.
    trainable_before, trainable_after : int
        Numbers trained.
    memory_before, memory_after : int
        Bytes of the parameters and, for those that are trained, of gradients and optimiser state.
        Activations and the running statistics of batch norm are not counted.
    """

    architecture: str
    num_classes: int
    fixed: bool
    width_before: int
    width_after: int
    parameters_before: int
    parameters_after: int
    trainable_before: int
    trainable_after: int
    memory_before: int
    memory_after: int

    @property
    def saved(self) -> int:
        """Parameters saved; negative where the change costs some."""
        return self.parameters_before - self.parameters_after

    @property
    def percent(self) -> float:
        """Parameters saved, in percent of those before."""
        return 100 * self.saved / self.parameters_before

    @property
    def memory_percent(self) -> float:
        """Memory saved, in percent of that before."""
        return 100 * (self.memory_before - self.memory_after) / self.memory_before

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        derived = {name: getattr(self, name) for name in ("saved", "percent", "memory_percent")}
        return asdict(self) | derived


def parameter_savings(
    architecture: str,
    num_classes: int,
    *,
    width: int | None = None,
    fixed: bool = True,
    optimizer: str = "sgd_momentum",
    bytes_per_number: float = 4,
) -> Savings:
    """Count what a fixed simplex ETF classifier, narrow features, or both save.

    Parameters
    ----------
    architecture : {"resnet18", "resnet34", "resnet50", "resnet101", "vit_s_16", "vit_b_16", ...}
        One of `ARCHITECTURES`, with torchvision's shapes: ResNets with the 7 x 7 stem and no bias
        in convolutions; ViT with a class token, biases everywhere, 16 x 16 patches of a 224 x 224
        image.
    num_classes : int
        Number of classes K.
    width : int, optional
        Features are narrowed to this width by the last block; ``width=num_classes`` is the paper's
        d = K. None keeps the architecture's width. In a ViT the last block's second MLP layer and
        the final norm get this width and a linear layer becomes the shortcut, by analogy.
    fixed : bool
        Fix the classifier's weight; its bias is trained. False narrows only.
    optimizer : {"sgd", "sgd_momentum", "adam", "adamw"}
        For the memory: 0, 1, 2 and 2 numbers of state per trained parameter.
    bytes_per_number : float
        Of parameters, gradients and state alike.

    Raises
    ------
    ValueError
        If an argument is unknown or out of range, or the classifier is to be fixed and the
        features are narrower than K - 1, where no simplex ETF fits.

    Examples
    --------
    >>> result = parameter_savings("resnet18", 10, width=10)
    >>> result.parameters_before, result.saved, round(result.percent, 2)
    (11181642, 2314100, 20.7)
    """
    k = whole_number("num_classes", num_classes, 2)
    if optimizer not in OPTIMIZER_STATES:
        allowed = ", ".join(OPTIMIZER_STATES)
        raise ValueError(f"optimizer: got {optimizer!r}, allowed are {allowed}")
    size = positive_float("bytes_per_number", bytes_per_number)
    if width is not None:
        width = whole_number("width", width)
    before, old_width = layer_parameters(architecture, k)
    after, new_width = layer_parameters(architecture, k, width)
    if fixed and new_width < k - 1:
        raise ValueError(
            f"width: the features have {new_width} columns, a simplex ETF of {k} classes needs "
            f"{k - 1}; give a width of at least that, or fixed=False"
        )
    stored, untrained = sum(after.values()), new_width * k if fixed else 0
    trained_numbers = 2 + OPTIMIZER_STATES[optimizer]  # parameter, gradient, state
    return Savings(
        architecture=architecture,
        num_classes=k,
        fixed=bool(fixed),
        width_before=old_width,
        width_after=new_width,
        parameters_before=sum(before.values()),
        parameters_after=stored,
        trainable_before=sum(before.values()),
        trainable_after=stored - untrained,
        memory_before=round(size * trained_numbers * sum(before.values())),
        memory_after=round(size * (trained_numbers * (stored - untrained) + untrained)),
    )


def savings_table(
    cases: Iterable[tuple[str, int]] = (
        ("resnet18", 10),
        ("resnet50", 10),
        ("resnet18", 100),
        ("resnet50", 1000),
        ("vit_b_16", 10),
        ("vit_b_16", 100),
    ),
    **options: Any,
) -> RichTable:
    """Return a Rich table of savings: fixed ETF at full width, and fixed ETF with d = K.

    Parameters
    ----------
    cases : iterable of (architecture, num_classes)
    **options
        ``optimizer`` and ``bytes_per_number`` of `parameter_savings`.
    """
    from tightframe.figures.formats import to_rich

    columns: list[str | Column] = ["architecture", "classifier", "K"]
    columns += [
        Column("d", align="right"),
        Column("parameters", format=",d"),
        Column("saved", format=",d"),
        Column("of all", format=".2f", suffix=" %"),
        Column("trained", format=",d"),
        Column("memory", "MiB", format=".1f"),
        Column("saved", format=".2f", suffix=" %"),
    ]
    rows: list[list[Any]] = []
    for architecture, k in cases:
        for name, width in (("fixed", None), ("fixed, d = K", k)):
            try:
                s = parameter_savings(architecture, k, width=width, **options)
            except ValueError as error:
                if not str(error).startswith("width:"):
                    raise
                rows.append([architecture, name, k, "no ETF fits", *[None] * 6])
                continue
            row = [s.width_after, s.parameters_after, s.saved, s.percent, s.trainable_after]
            rows.append([architecture, name, k, *row, s.memory_after / 2**20, s.memory_percent])
    title = "Fixed simplex ETF classifier: what it saves"
    return to_rich(Table(title, columns, rows, missing="-"))


def layer_parameters(
    architecture: str, num_classes: int, width: int | None = None
) -> tuple[dict[str, int], int]:
    """Return the parameters of every layer by name, and the width d of the features.

    Parameters
    ----------
    architecture : str
        One of `ARCHITECTURES`.
    num_classes : int
        Number of classes K.
    width : int, optional
        As in `parameter_savings`.

    Raises
    ------
    ValueError
        If the architecture is unknown.
    """
    if architecture in _RESNETS:
        layers, d = _resnet(*_RESNETS[architecture], width)
    elif architecture in _VITS:
        layers, d = _vit(*_VITS[architecture], width)
    else:
        raise ValueError(
            f"architecture: got {architecture!r}, known are {', '.join(ARCHITECTURES)}"
        )
    layers["head"] = d * num_classes + num_classes
    return layers, d


def _resnet(
    stages: tuple[int, ...], bottleneck: bool, width: int | None
) -> tuple[dict[str, int], int]:
    layers = {"conv1": 3 * 64 * 7 * 7, "bn1": 2 * 64}
    channels = 64
    for stage, blocks in enumerate(stages, start=1):
        inner = 64 * 2 ** (stage - 1)
        for block in range(blocks):
            last = stage == len(stages) and block == blocks - 1
            usual = 4 * inner if bottleneck else inner
            out = width if last and width is not None else usual
            if bottleneck:
                shapes = [(channels, inner, 1), (inner, inner, 3), (inner, out, 1)]
            else:
                shapes = [(channels, inner, 3), (inner, out, 3)]
            name = f"layer{stage}.{block}"
            for i, (fan_in, fan_out, kernel) in enumerate(shapes, start=1):
                layers[f"{name}.conv{i}"] = fan_in * fan_out * kernel**2
                layers[f"{name}.bn{i}"] = 2 * fan_out
            # Where the shape changes, a 1 x 1 convolution with batch norm is the shortcut.
            if channels != out or (block == 0 and stage > 1):
                layers[f"{name}.downsample"] = channels * out + 2 * out
            channels = out
    return layers, channels


def _vit(dim: int, blocks: int, hidden: int, width: int | None) -> tuple[dict[str, int], int]:
    layers = {
        "patches": 3 * 16 * 16 * dim + dim,
        "class_token": dim,
        "positions": (14 * 14 + 1) * dim,
    }
    out = dim
    for block in range(blocks):
        if block == blocks - 1 and width is not None:
            out = width
        name = f"block{block}"
        layers[f"{name}.norm1"] = 2 * dim
        layers[f"{name}.qkv"] = 3 * (dim * dim + dim)
        layers[f"{name}.projection"] = dim * dim + dim
        layers[f"{name}.norm2"] = 2 * dim
        layers[f"{name}.mlp1"] = dim * hidden + hidden
        layers[f"{name}.mlp2"] = hidden * out + out
        if out != dim:
            layers[f"{name}.shortcut"] = dim * out + out
    layers["norm"] = 2 * out
    return layers, out
