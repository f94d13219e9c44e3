"""Networks for images that return features, and backbones by name.

They take inputs (B, p) or (B, C, H, W) and reshape them to the data set's ``input_shape``; they
return features (B, d), and the head is another module (`tightframe.training.linear_head`,
`tightframe.heads.FixedETF`). Their shapes are those of the papers' codes, so parameter counts equal
those of `tightframe.heads.savings` and of the models that the papers trained.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.checks import choice, whole_number
from tightframe.heads.find import find_head
from tightframe.heads.fixed import replace_module
from tightframe.heads.narrow import narrow_last_block
from tightframe.training.networks import MLP, ends_in_relu
from tightframe.training.options import check_network, package_model

#: Blocks per stage, and whether blocks are bottlenecks.
_RESNETS = {"resnet18": ((2, 2, 2, 2), False), "resnet50": ((3, 4, 6, 3), True)}

#: Channels of the convolutions over the width, 0 for a pooling layer.
_VGGS = {
    "vgg11": (1, 0, 2, 0, 4, 4, 0, 8, 8, 0, 8, 8, 0),
    "vgg13": (1, 1, 0, 2, 2, 0, 4, 4, 0, 8, 8, 0, 8, 8, 0),
    "vgg16": (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0),
}

#: Layers of the dense blocks.
_DENSENETS = {"densenet_cifar": (6, 12, 24, 16)}


def build_backbone(
    name: str,
    input_shape: Sequence[int],
    feature_dim: int | None = None,
    features: str = "real",
    **options: Any,
) -> nn.Module:
    """Make a backbone by name; PyTorch's generator draws the weights.

    Parameters
    ----------
    name : str
        ``"mlp"``, ``"resnet18"``, ``"resnet50"``, ``"vgg11"``, ``"vgg13"``, ``"vgg16"``,
        ``"densenet_cifar"``; or a model of a package, ``"timm:MODEL"`` or ``"torchvision:MODEL"``,
        without its classifier (`adapted`).
    input_shape : sequence of int
        ``(p,)`` or ``(C, H, W)``, `tightframe.data.Dataset.input_shape`; an MLP takes any.
    feature_dim : int, optional
        Width d of the features. None: the network's own; the MLP has none. A ResNet or VGG of
        another width than its own has its last block narrowed, as in Zhu et al. (2021) for d = K;
        a DenseNet, whose last block hands on its inputs, and a package's model are refused.
    features : {"real", "nonnegative"}
        As in `Problem.features`; nonnegative ones end in a ReLU.
    **options
        - mlp: ``hidden`` (widths, (256, 256)), ``batch_norm`` (False), ``last_relu``, see `MLP`;
        - resnet: ``stem`` ("cifar"), ``width`` (64), ``last_relu``, see `ResNet`;
        - vgg: ``width`` (64), ``last_relu``, see `VGG`;
        - densenet: ``width`` (12), ``last_relu``, see `DenseNet`;
        - timm: of ``timm.create_model``; torchvision: of ``torchvision.models.get_model``.

    Returns
    -------
    nn.Module
        Inputs (B, p) or (B, C, H, W) to features (B, d); its ``feature_dim`` is d.

    Raises
    ------
    ValueError
        If a name or an option is unknown or out of range, the inputs are no images, or the
        package cannot be imported.
    """
    shape = tuple(whole_number("input_shape", size, 1) for size in input_shape)
    hidden = {"hidden": options.pop("hidden")} if name == "mlp" and "hidden" in options else {}
    foreign = package_model(name)
    options = check_network(name, options, features)
    if name == "mlp":
        if feature_dim is None:
            raise ValueError("feature_dim: missing, an MLP has no width of its own")
        return MLP(math.prod(shape), feature_dim, features=features, **hidden, **options)
    if len(shape) != 3:
        raise ValueError(
            f"network: {name} needs images, an input_shape (C, H, W), not {shape}; use 'mlp'"
        )
    if foreign is None:
        kind: type[ResNet | VGG | DenseNet] = (
            ResNet if name in _RESNETS else VGG if name in _VGGS else DenseNet
        )
        return kind(name, shape, feature_dim, features, **options)
    model = _package_model(*foreign, shape, options)
    backbone = adapted(model, input_shape=shape, last_relu=ends_in_relu(features))
    if feature_dim is not None and feature_dim != backbone.feature_dim:
        raise ValueError(
            f"feature_dim: got {feature_dim}, the features of {name} have {backbone.feature_dim}"
        )
    return backbone


class ResNet(nn.Module):
    """Residual network (He et al. 2016) for images of any size, without its classifier.

    Channels are k, 2 k, 4 k and 8 k for a ``width`` of k, four times as many after the bottlenecks
    of ResNet-50. Convolutions have no bias; initial weights are He's, as in torchvision.

    Parameters
    ----------
    name : {"resnet18", "resnet50"}
    input_shape : (int, int, int)
        Channels, height and width of an image.
    feature_dim : int, optional
        Width d of the features. None: 8 k, or 32 k. Another width narrows the last block with
        `tightframe.heads.narrow_last_block`, as Zhu et al. (2021) do for d = K.
    features : {"real", "nonnegative"}
    stem : {"cifar", "imagenet"}
        A 3 x 3 convolution with stride 1; or 7 x 7 with stride 2, then 3 x 3 max pooling with
        stride 2 (torchvision's).
    width : int
        Channels k of the first stage.
    last_relu : bool, optional
        Whether the last block ends in a ReLU. None: if the features are ``"nonnegative"``. Usual
        networks have it; without it the features are real, as the UFM's are.

    Raises
    ------
    ValueError
        If an argument is unknown or out of range.
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int],
        feature_dim: int | None = None,
        features: str = "real",
        *,
        stem: str = "cifar",
        width: int = 64,
        last_relu: bool | None = None,
    ) -> None:
        super().__init__()
        _check(name, _RESNETS, features, {"stem": stem, "width": width, "last_relu": last_relu})
        stages, bottleneck = _RESNETS[name]
        self.input_shape = _image_shape(input_shape)
        channels, own = self.input_shape[0], width * 8 * (4 if bottleneck else 1)
        self.feature_dim = own if feature_dim is None else whole_number("feature_dim", feature_dim)
        small = stem == "cifar"
        self.conv1 = nn.Conv2d(channels, width, *((3, 1, 1) if small else (7, 2, 3)), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        fan_in = width
        for stage, blocks in enumerate(stages):
            inner = width * 2**stage
            parts = []
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                parts.append(_Block(fan_in, inner, stride, bottleneck))
                fan_in = inner * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*parts))
        parts[-1].last_relu = ends_in_relu(features, last_relu)
        if self.feature_dim != own:
            # The narrow block is made for a classifier of as many classes, which goes again.
            self.fc = nn.Linear(own, self.feature_dim, bias=False)
            narrow_last_block(self, "fc", fixed=False)
            del self.fc
        _initialize(self.modules())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features, shape (B, d), of inputs (B, p) or (B, C, H, W)."""
        x = _images(inputs, self.input_shape)
        x = self.maxpool(nn.functional.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        # The mean, for adaptive pooling has no deterministic gradient on a GPU.
        features: Tensor = x.mean(dim=(2, 3))
        return features


class _Block(nn.Module):
    """Basic or bottleneck block with torchvision's names, which `narrow_last_block` looks for."""

    def __init__(self, fan_in: int, inner: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * inner if bottleneck else inner
        # The stride of a bottleneck is at the 3 x 3 convolution, as in torchvision.
        shapes = (
            [(fan_in, inner, 1, 1), (inner, inner, 3, stride), (inner, out, 1, 1)]
            if bottleneck
            else [(fan_in, inner, 3, stride), (inner, out, 3, 1)]
        )
        self._depth = len(shapes)
        for i, (before, after, kernel, step) in enumerate(shapes, start=1):
            conv = nn.Conv2d(before, after, kernel, step, padding=kernel // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(after))
        self.downsample: nn.Module | None = None
        if stride != 1 or fan_in != out:
            side = nn.Conv2d(fan_in, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(side, nn.BatchNorm2d(out))
        self.last_relu = True

    def forward(self, x: Tensor) -> Tensor:
        side = x if self.downsample is None else self.downsample(x)
        for i in range(1, self._depth + 1):
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
            if i < self._depth:
                x = nn.functional.relu(x)
        total: Tensor = x + side
        return nn.functional.relu(total) if self.last_relu else total


class VGG(nn.Module):
    """VGG-11, VGG-13 or VGG-16 with batch norm as usual for CIFAR, without its classifier.

    3 x 3 convolutions with bias, batch norm and ReLU, five times followed by 2 x 2 max pooling,
    and no hidden fully connected layers; channels are k, 2 k, 4 k, 8 k, 8 k. Pooling keeps what is
    left at the border, so 28 x 28 and smaller images work; what is larger than one pixel at the
    end is averaged.

    Parameters
    ----------
    name : {"vgg11", "vgg13", "vgg16"}
    input_shape : (int, int, int)
        Channels, height and width of an image.
    feature_dim : int, optional
        Width d of the features, the channels of the last convolution; None: 8 k.
    features : {"real", "nonnegative"}
    width : int
        Channels k of the first convolution.
    last_relu : bool, optional
        Whether the last convolution is followed by a ReLU. None: if the features are
        ``"nonnegative"``.

    Raises
    ------
    ValueError
        If an argument is unknown or out of range.
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int],
        feature_dim: int | None = None,
        features: str = "real",
        *,
        width: int = 64,
        last_relu: bool | None = None,
    ) -> None:
        super().__init__()
        _check(name, _VGGS, features, {"width": width, "last_relu": last_relu})
        self.input_shape = _image_shape(input_shape)
        self.feature_dim = (
            8 * width if feature_dim is None else whole_number("feature_dim", feature_dim)
        )
        shape = _VGGS[name]
        last = max(i for i, factor in enumerate(shape) if factor)
        layers: list[nn.Module] = []
        fan_in = self.input_shape[0]
        for i, factor in enumerate(shape):
            if factor == 0:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
                continue
            out = self.feature_dim if i == last else factor * width
            layers += [nn.Conv2d(fan_in, out, 3, padding=1), nn.BatchNorm2d(out)]
            if i != last or ends_in_relu(features, last_relu):
                layers.append(nn.ReLU())
            fan_in = out
        self.layers = nn.Sequential(*layers)
        _initialize(self.modules())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features, shape (B, d), of inputs (B, p) or (B, C, H, W)."""
        features: Tensor = self.layers(_images(inputs, self.input_shape)).mean(dim=(2, 3))
        return features


class DenseNet(nn.Module):
    """DenseNet-BC (Huang et al. 2017) as usual for CIFAR, without its classifier.

    A 3 x 3 convolution to 2 k channels, then four blocks of 6, 12, 24 and 16 layers for a growth
    rate of k, each layer's k channels stacked on its inputs; between blocks the channels are halved
    and 2 x 2 average pooling follows, which keeps what is left at the border. Convolutions have no
    bias; initial weights are He's. Dang et al. (2024) train it with k = 12.

    Parameters
    ----------
    name : {"densenet_cifar"}
    input_shape : (int, int, int)
        Channels, height and width of an image.
    feature_dim : int, optional
        Width d of the features, which is 32 k; no other is possible.
    features : {"real", "nonnegative"}
    width : int
        Growth rate k.
    last_relu : bool, optional
        Whether the last batch norm is followed by a ReLU. None: if the features are
        ``"nonnegative"``.

    Raises
    ------
    ValueError
        If an argument is unknown or out of range.
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int],
        feature_dim: int | None = None,
        features: str = "real",
        *,
        width: int = 12,
        last_relu: bool | None = None,
    ) -> None:
        super().__init__()
        _check(name, _DENSENETS, features, {"width": width, "last_relu": last_relu})
        self.input_shape = _image_shape(input_shape)
        channels = 2 * width
        layers: list[nn.Module] = [nn.Conv2d(self.input_shape[0], channels, 3, 1, 1, bias=False)]
        for block, count in enumerate(_DENSENETS[name]):
            if block:
                layers += [nn.BatchNorm2d(channels), nn.ReLU()]
                layers += [nn.Conv2d(channels, channels // 2, 1, bias=False)]
                layers += [nn.AvgPool2d(2, ceil_mode=True)]
                channels //= 2
            for _ in range(count):
                layers.append(_DenseLayer(channels, width))
                channels += width
        layers.append(nn.BatchNorm2d(channels))
        if ends_in_relu(features, last_relu):
            layers.append(nn.ReLU())
        if feature_dim is not None and feature_dim != channels:
            raise ValueError(
                f"feature_dim: got {feature_dim}, the features of {name} of width {width} have "
                f"{channels}"
            )
        self.feature_dim = channels
        self.layers = nn.Sequential(*layers)
        _initialize(self.modules())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features, shape (B, d), of inputs (B, p) or (B, C, H, W)."""
        features: Tensor = self.layers(_images(inputs, self.input_shape)).mean(dim=(2, 3))
        return features


class _DenseLayer(nn.Module):
    """A bottleneck of 4 k channels and k new ones, stacked on the inputs."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.layers(x), x], dim=1)


# -- anybody's model -------------------------------------------------------------------------------


class AdaptedModel(nn.Module):
    """A classification model without its classifier; made by `adapted`.

    Attributes
    ----------
    model : nn.Module
        Its classifier is an `torch.nn.Identity`.
    feature_dim : int
        Width d of the features.
    """

    def __init__(
        self,
        model: nn.Module,
        feature_dim: int,
        input_shape: Sequence[int] | None,
        last_relu: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.feature_dim = feature_dim
        self.input_shape = None if input_shape is None else _image_shape(input_shape)
        self.last_relu = last_relu

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features, shape (B, d)."""
        images = inputs if self.input_shape is None else _images(inputs, self.input_shape)
        features: Tensor = self.model(images)
        if features.shape != (len(images), self.feature_dim):
            raise ValueError(
                f"model: without its classifier it returns shape {tuple(features.shape)} for "
                f"{len(images)} inputs, need ({len(images)}, {self.feature_dim})"
            )
        return nn.functional.relu(features) if self.last_relu else features


def adapted(
    model: nn.Module,
    head: str | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    last_relu: bool = False,
) -> AdaptedModel:
    """Make a backbone of any classification model (timm, torchvision, your own), in place.

    Parameters
    ----------
    model : nn.Module
        Its classifier is replaced by an `torch.nn.Identity`.
    head : str, optional
        Dotted name of the classifier; None looks for the usual names
        (`tightframe.heads.find.find_head`).
    input_shape : (int, int, int), optional
        Inputs (B, p) are reshaped to it; None passes them as they are.
    last_relu : bool
        Put a ReLU behind the features, as nonnegative ones need.

    Raises
    ------
    ValueError
        If there is no such classifier; when run, if the model does not return its features.
    """
    found = find_head(model, head)
    replace_module(model, found.name, nn.Identity())
    return AdaptedModel(model, int(found.layers[0].in_features), input_shape, last_relu)


def _package_model(
    package: str, model: str, input_shape: tuple[int, ...], options: dict[str, Any]
) -> nn.Module:
    try:
        if package == "timm":
            maker = importlib.import_module("timm").create_model
        else:
            maker = importlib.import_module("torchvision.models").get_model
    except Exception as error:  # torchvision raises RuntimeError where it does not match torch
        raise ValueError(
            f"network: '{package}:{model}' needs the package {package}, which cannot be imported "
            f"({error}); install one that matches this PyTorch"
        ) from None
    if package == "timm":
        options = {"in_chans": input_shape[0]} | options
    elif input_shape[0] != 3:
        raise ValueError(
            f"network: '{package}:{model}' takes 3 channels, the images have {input_shape[0]}"
        )
    try:
        made: nn.Module = maker(model, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"network: {package} makes no {model!r} ({error})") from None
    return made


# -- inside ----------------------------------------------------------------------------------------


def _check(name: str, known: Collection[str], features: str, options: dict[str, Any]) -> None:
    choice("name", name, known)
    check_network(name, options, features)


def _image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    sizes = tuple(whole_number("input_shape", size, 1) for size in shape)
    if len(sizes) != 3:
        raise ValueError(f"input_shape: got {sizes}, need (channels, height, width)")
    return sizes


def _images(inputs: Tensor, shape: tuple[int, int, int]) -> Tensor:
    if math.prod(inputs.shape[1:]) != math.prod(shape):
        raise ValueError(
            f"inputs: got shape {tuple(inputs.shape)}, need images of {shape} or rows of "
            f"{math.prod(shape)}"
        )
    return inputs.reshape(-1, *shape)


def _initialize(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
