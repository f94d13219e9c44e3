"""The multilayer perceptron, and linear heads of any depth, trained or fixed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from tightframe.checks import choice, whole_number
from tightframe.geometry.dense import product_of
from tightframe.heads.fixed import FixedHead
from tightframe.problem.problem import FEATURES, MAX_DEPTH
from tightframe.training.options import HEAD_INITS


class MLP(nn.Sequential):
    """Multilayer perceptron from inputs (B, in_dim) to features (B, feature_dim).

    Every hidden layer is linear with bias, batch norm if asked for, ReLU. The features are the last
    linear layer's output (``"real"``), or its ReLU (``"nonnegative"``). Inputs with more axes, as
    images, are flattened.

    Parameters
    ----------
    in_dim : int
        Width of the inputs.
    feature_dim : int
        Width d of the features.
    hidden : sequence of int
        Widths of the hidden layers.
    features : {"real", "nonnegative"}
        As in `Problem.features`.
    batch_norm : bool
        Normalise the batch in every hidden layer; not the features.
    last_relu : bool, optional
        Whether the features end in a ReLU. None: if they are ``"nonnegative"``. True beside
        ``"real"`` features is what usual networks have while the theory's features are free.

    Raises
    ------
    ValueError
        If a width is below 1, ``features`` is unknown, or nonnegative features are to have no
        ReLU.
    """

    def __init__(
        self,
        in_dim: int,
        feature_dim: int,
        hidden: Sequence[int] = (256, 256),
        features: str = "real",
        *,
        batch_norm: bool = False,
        last_relu: bool | None = None,
    ) -> None:
        relu = ends_in_relu(features, last_relu)
        widths = [
            whole_number("in_dim", in_dim),
            *(whole_number("hidden", width) for width in hidden),
            whole_number("feature_dim", feature_dim),
        ]
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            hidden_layer = i < len(widths) - 2
            layers.append(nn.Linear(fan_in, fan_out))
            if hidden_layer and batch_norm:
                layers.append(nn.BatchNorm1d(fan_out))
            if hidden_layer or relu:
                layers.append(nn.ReLU())
        super().__init__(*layers)
        self.feature_dim = feature_dim

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features, shape (B, feature_dim)."""
        features: Tensor = super().forward(inputs.flatten(1))  # type: ignore[no-untyped-call]
        return features


def ends_in_relu(features: str, last_relu: bool | None = None) -> bool:
    """Return whether a backbone's features end in a ReLU.

    Parameters
    ----------
    features : {"real", "nonnegative"}
        As in `Problem.features`.
    last_relu : bool, optional
        None: if the features are nonnegative.

    Raises
    ------
    ValueError
        If ``features`` is unknown, or nonnegative features are to have no ReLU.
    """
    choice("features", features, FEATURES)
    nonnegative = features == "nonnegative"
    if nonnegative and last_relu is False:
        raise ValueError("last_relu: got False, but nonnegative features end in a ReLU")
    return nonnegative if last_relu is None else bool(last_relu)


def linear_head(
    feature_dim: int,
    num_classes: int,
    *,
    depth: int = 1,
    bias: bool = False,
    init: str = "uniform",
) -> nn.Sequential:
    """Return ``depth`` linear layers, the UFM's ``W_M ... W_1``; only the last can have a bias.

    Parameters
    ----------
    feature_dim : int
        Width d of the features, and of what is between the layers.
    num_classes : int
        Number of logits K.
    depth : int
        Number of layers M.
    bias : bool
        Whether the last layer has a bias.
    init : {"uniform", "orthogonal"}
        Of the weights: PyTorch's own, whose layers shorten vectors to about 0.6 of their length
        each; or orthogonal (`torch.nn.init.orthogonal_`), which keeps lengths through any number of
        layers.

    Raises
    ------
    ValueError
        If a width, the number of logits or the depth is no whole number, at least 1, or ``init`` is
        unknown.
    """
    choice("init", init, HEAD_INITS)
    for name, value in (
        ("feature_dim", feature_dim),
        ("num_classes", num_classes),
        ("depth", depth),
    ):
        if whole_number(name, value) > MAX_DEPTH and name == "depth":
            raise ValueError(f"depth: got {depth}, need at most {MAX_DEPTH}")
    inner = [nn.Linear(feature_dim, feature_dim, bias=False) for _ in range(depth - 1)]
    layers = [*inner, nn.Linear(feature_dim, num_classes, bias=bias)]
    if init == "orthogonal":
        for layer in layers:
            nn.init.orthogonal_(layer.weight)
    return nn.Sequential(*layers)


def head_layers(head: nn.Module) -> list[nn.Linear | FixedHead]:
    """Return the linear layers of a head, W_1 (next to the features) first.

    Parameters
    ----------
    head : nn.Module
        A `torch.nn.Linear` or a fixed layer (`tightframe.heads.FixedETF`,
        `tightframe.heads.FixedFrame`), or a `torch.nn.Sequential` of them.

    Raises
    ------
    ValueError
        If the head is anything else, or a layer before the last has a bias.
    """
    layers = list(head) if isinstance(head, nn.Sequential) else [head]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear | FixedHead)]
    if not linear or len(linear) != len(layers):
        raise ValueError(
            f"head: got {type(head).__name__}, need torch.nn.Linear, a tightframe.heads.FixedHead "
            "or a Sequential of them only"
        )
    if any(layer.bias is not None for layer in linear[:-1]):
        raise ValueError("head: a layer before the last has a bias, the problem knows none there")
    return linear


def head_weight(head: nn.Module) -> Tensor:
    """Return the product ``W_M ... W_1`` of a head, shape (K, d), in its own dtype.

    A fixed layer counts with its effective weight, frame times scale.
    """
    product: Tensor = product_of(layer.weight for layer in head_layers(head))
    return product


def head_bias(head: nn.Module) -> Tensor | None:
    """Return the bias of a head, shape (K,), or None."""
    return head_layers(head)[-1].bias
