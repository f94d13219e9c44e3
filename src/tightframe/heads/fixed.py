"""Classifiers whose geometry is fixed beforehand: simplex ETF, any predicted frame, narrow d = K.

They take the place of a `torch.nn.Linear`. Its weight is not trained, which saves its gradient and
optimiser state; features of width d = K save parameters as well (Zhu et al. 2021,
https://arxiv.org/abs/2105.02375; `tightframe.heads.savings` counts how many).
"""

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tightframe.checks import positive_float, whole_number
from tightframe.geometry.dense import Geometry
from tightframe.heads.find import find_head, find_module, wrapping
from tightframe.heads.vectors import contrasts, gram_factor, orthonormal_columns
from tightframe.solution import Solution

#: Wrappers that keep lists of the parameters that a model had when they were made.
_REGISTERED = ("DeepSpeedEngine", "DistributedDataParallel", "FullyShardedDataParallel")


class FixedHead(nn.Module):
    """A linear classifier with a fixed weight; the base of `FixedETF` and `FixedFrame`.

    Parameters
    ----------
    frame : array_like, shape (K, d)
        One row a class.
    bias : bool or array_like, shape (K,)
        Whether there is a trained bias; an array is its start, zero otherwise.
    scale : float
        Factor on the frame.
    learnable_scale : bool
        Make the factor a trained parameter, an inverse temperature that starts at ``scale``.
    device, dtype
        Of all tensors, as for `torch.nn.Linear`.

    Attributes
    ----------
    in_features, out_features : int
        Width d of the features and number of classes K.
    frame : Tensor, shape (K, d)
        A buffer: saved, moved and cast with the module, never trained. With a fixed scale it
        contains it.
    scale : Parameter or None, shape ()
        The learnable factor.
    bias : Parameter or None, shape (K,)

    Notes
    -----
    The state has ``frame``, not ``weight``: the checkpoint of a learned classifier is refused by
    ``load_state_dict`` instead of silently taking the frame's place.
    """

    frame: Tensor

    def __init__(
        self,
        frame: Any,
        bias: Any = False,
        *,
        scale: float = 1.0,
        learnable_scale: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        rows = np.asarray(frame, dtype=np.float64)
        factor = positive_float("scale", scale)
        self.out_features, self.in_features = rows.shape
        options: dict[str, Any] = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        self.register_buffer(
            "frame", torch.tensor(rows if learnable_scale else factor * rows, **options)
        )
        self.scale = nn.Parameter(torch.tensor(factor, **options)) if learnable_scale else None
        self.bias: nn.Parameter | None = None
        if bias is not False:
            start = np.zeros(len(rows)) if bias is True else np.asarray(bias, dtype=np.float64)
            self.bias = nn.Parameter(torch.tensor(start, **options))

    @property
    def weight(self) -> Tensor:
        """The effective weight, shape (K, d): the frame times the learnable scale."""
        return self.frame if self.scale is None else self.scale * self.frame

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits, shape (..., K), of features of shape (..., d)."""
        # Scaling the features costs B d products, scaling the weight K d.
        if self.scale is not None:
            features = features * self.scale
        return nn.functional.linear(features, self.frame, self.bias)

    def extra_repr(self) -> str:
        """Show sizes, as `torch.nn.Linear` does."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, learnable_scale={self.scale is not None}"
        )

    def to_linear(self) -> nn.Linear:
        """Return a `torch.nn.Linear` with the same weight and bias, trainable, for export."""
        linear = nn.Linear(
            self.in_features,
            self.out_features,
            bias=self.bias is not None,
            device=self.frame.device,
            dtype=self.frame.dtype,
        )
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        return linear


class FixedETF(FixedHead):
    """A fixed simplex ETF as classifier.

    The rows have length ``scale`` and the cosines between them are -1/(K - 1).

    Parameters
    ----------
    in_features : int
        Width d of the features, at least K - 1.
    num_classes : int
        Number of classes K, at least 2.
    bias : bool
        Whether there is a trained bias, zero at the start.
    seed : int or None
        Of the random rotation into the d coordinates (a QR decomposition). None takes the first K
        coordinates, padded with zeros as in Zhu et al. (2021); it needs d >= K.
    scale : float
        Length of the rows.
    learnable_scale : bool
        Train the scale as an inverse temperature.
    device, dtype
        As for `torch.nn.Linear`. The frame is made in float64 on the CPU and then cast, so it is
        the same everywhere.

    Raises
    ------
    ValueError
        If an argument is out of range, above all ``in_features`` below K - 1.

    Examples
    --------
    >>> head = FixedETF(512, 10)
    >>> sum(p.numel() for p in head.parameters())
    0
    >>> round(float(head.weight[0] @ head.weight[1]), 4)
    -0.1111
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        bias: bool = False,
        seed: int | None = 0,
        scale: float = 1.0,
        *,
        learnable_scale: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        d, k = whole_number("in_features", in_features), whole_number("num_classes", num_classes, 2)
        if d < k - 1:
            raise ValueError(
                f"in_features: got {d}, a simplex ETF of {k} classes needs at least {k - 1}"
            )
        factor = math.sqrt(k / (k - 1))
        if seed is None:
            if d < k:
                raise ValueError(
                    f"seed: got None, which needs in_features of at least {k}, not {d}"
                )
            frame = np.zeros((k, d))
            frame[:, :k] = factor * (np.eye(k) - 1 / k)
        else:
            frame = factor * contrasts(k) @ orthonormal_columns(d, k - 1, seed).T
        super().__init__(
            frame,
            bool(bias),
            scale=scale,
            learnable_scale=learnable_scale,
            device=device,
            dtype=dtype,
        )


class FixedFrame(FixedHead):
    """The classifier of any predicted geometry, fixed.

    Parameters
    ----------
    geometry : Solution or Geometry
        Whose classifier is taken: of a `Solution` for imbalanced counts, of
        `tightframe.seli` (for the head's kind of bias), or a measured one. Its Gram matrix is
        factored, so the weight is fixed up to the rotation that ``seed`` chooses.
    in_features : int
        Width d of the features, at least the rank of the classifier.
    bias : bool
        Whether there is a trained bias; it starts at the bias of a `Solution`, else at zero.
    seed : int or None
        Of the random rotation into the d coordinates. None takes the first coordinates.
    scale : float
        Factor on the predicted lengths.
    learnable_scale : bool
        Train the factor.
    device, dtype
        As for `torch.nn.Linear`.

    Raises
    ------
    ValueError
        If an argument is out of range, the Gram matrix is not one of real vectors, or its rank is
        above ``in_features``; above 4096 classes a `Solution` has no dense Gram matrix.

    Examples
    --------
    >>> from tightframe import Problem, solve
    >>> solution = solve(Problem("500x2,50x3", weight_decay=5e-3, feature_decay=1e-3))
    >>> FixedFrame(solution, in_features=16)
    FixedFrame(in_features=16, out_features=5, bias=False, learnable_scale=False)
    """

    def __init__(
        self,
        geometry: Solution | Geometry,
        in_features: int,
        bias: bool = False,
        seed: int | None = 0,
        scale: float = 1.0,
        *,
        learnable_scale: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(geometry, Solution | Geometry):
            raise ValueError(
                f"geometry: got {type(geometry).__name__}, need a tightframe Solution or Geometry"
            )
        d = whole_number("in_features", in_features)
        predicted = geometry.geometry if isinstance(geometry, Solution) else geometry
        rows = gram_factor(predicted.classifier)
        rank = rows.shape[1]
        if d < rank:
            raise ValueError(
                f"in_features: got {d}, the classifier of {predicted.name!r} has rank {rank}"
            )
        if seed is None:
            frame = np.zeros((len(rows), d))
            frame[:, :rank] = rows
        else:
            frame = rows @ orthonormal_columns(d, rank, seed).T
        start = geometry.bias if isinstance(geometry, Solution) and bias else bool(bias)
        super().__init__(
            frame,
            start,
            scale=scale,
            learnable_scale=learnable_scale,
            device=device,
            dtype=dtype,
        )


# -- putting one into a model --------------------------------------------------------------------


def replace_module(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put a module in the place of another and return the one that was there.

    Parameters
    ----------
    model : nn.Module
        Inside `torch.compile`, DataParallel and the like the inner model is changed.
    name : str
        Dotted name as in ``model.named_modules()``.
    module : nn.Module

    Raises
    ------
    ValueError
        If the model has no module of that name.

    Warns
    -----
    RuntimeWarning
        If the model is inside a wrapper that must be made anew, as DistributedDataParallel, which
        knows the old parameters.
    """
    old = find_module(model, name)
    *wrappers, inner = wrapping(model)
    # A name of the inner model is set there: on a wrapper the module would be an orphan.
    at = inner if any(name == found for found, _ in inner.named_modules()) else model
    path, _, leaf = name.rpartition(".")
    setattr(at.get_submodule(path), leaf, module)
    stale = [type(part).__name__ for part in wrappers if type(part).__name__ in _REGISTERED]
    if stale:
        warnings.warn(
            f"model: {name!r} was replaced inside {stale[0]}, which goes on working with the "
            f"parameters that it met; wrap the model again, {stale[0]}(model.module, ...)",
            RuntimeWarning,
            stacklevel=2,
        )
    return old


def freeze_to_etf(
    model: nn.Module,
    head: str | None = None,
    *,
    seed: int | None = 0,
    scale: float = 1.0,
    learnable_scale: bool = False,
) -> FixedETF:
    """Replace a model's classifier by a fixed simplex ETF of the same shape, in place.

    Device and dtype stay, a bias keeps its values and is trained on. Do it before the model is
    wrapped in DistributedDataParallel, or wrap it again; see `replace_module`.

    Parameters
    ----------
    model : nn.Module
    head : str, optional
        Dotted name of the classifier, for example ``"fc"``; None looks for the usual names
        (`tightframe.heads.find.find_head`).
    seed, scale, learnable_scale
        As for `FixedETF`.

    Returns
    -------
    FixedETF
        The new classifier. Make the optimiser after this call: the old weight is gone.

    Raises
    ------
    ValueError
        If there is no such classifier or its features are narrower than K - 1.
    """
    name, old, kind = single_linear(model, head)
    new = FixedETF(
        old.in_features,
        old.out_features,
        old.bias is not None,
        seed,
        scale,
        learnable_scale=learnable_scale,
        **kind,
    )
    take_place(model, name, old, new)
    return new


def freeze_to_frame(
    model: nn.Module,
    geometry: Solution | Geometry,
    head: str | None = None,
    *,
    seed: int | None = 0,
    scale: float = 1.0,
    learnable_scale: bool = False,
) -> FixedFrame:
    """Replace a model's classifier by that of a predicted geometry, in place.

    As `freeze_to_etf`, with a `FixedFrame`. A bias keeps the model's values.

    Raises
    ------
    ValueError
        If there is no such classifier, or its classes or width do not fit the geometry.
    """
    name, old, kind = single_linear(model, head)
    new = FixedFrame(
        geometry,
        old.in_features,
        old.bias is not None,
        seed,
        scale,
        learnable_scale=learnable_scale,
        **kind,
    )
    if new.out_features != old.out_features:
        raise ValueError(
            f"geometry: got {new.out_features} classes, the classifier {name!r} has "
            f"{old.out_features}"
        )
    take_place(model, name, old, new)
    return new


# -- inside --------------------------------------------------------------------------------------


def single_linear(model: nn.Module, head: str | None) -> tuple[str, Any, dict[str, Any]]:
    """Return the name of a classifier of one linear layer, that layer, and its device and type."""
    found = find_head(model, head)
    if len(found.layers) > 1:
        raise ValueError(
            f"head: {found.name!r} has {len(found.layers)} linear layers; name the one to replace"
        )
    # A Sequential of one layer keeps its place.
    old: Any = found.layers[0]
    name = found.name if found.module is old else f"{found.name}.0"
    return name, old, {"device": old.weight.device, "dtype": old.weight.dtype}


def take_place(model: nn.Module, name: str, old: Any, new: FixedHead) -> None:
    """Put a fixed classifier in the place of a layer, with the bias that the layer has."""
    if new.bias is not None:
        with torch.no_grad():
            new.bias.copy_(old.bias)
    new.train(old.training)
    replace_module(model, name, new)
