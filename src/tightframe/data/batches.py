"""Batches of any form taken apart, and features of any shape brought to one row a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tightframe.problem.class_names import indexed
from tightframe.problem.labels import LabelsLike as LabelsLike
from tightframe.problem.labels import find_labels

#: How features with more than two axes become rows, see `sample_rows`.
REDUCTIONS = ("auto", "pool", "flatten", "first", "last", "mean", "tokens", "next_token")

#: A name of `REDUCTIONS`, or a function of features and mask that returns rows.
Reduction = str | Callable[[Tensor, Tensor | None], Tensor]


def as_tensor(name: str, value: Any) -> Tensor:
    """Return a tensor without graph from a tensor, array or nested list of real numbers.

    Raises
    ------
    ValueError
        If it cannot be read as one; the message names the argument.
    """
    if isinstance(value, Tensor):
        return value.detach()
    try:
        array = np.asarray(value)
        # Torch refuses foreign byte orders and negative strides, and warns of read-only memory.
        native = array.dtype.newbyteorder("=")
        return torch.from_numpy(np.require(array, native, requirements=["C", "W"]))
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}: got {type(value).__name__}, need a tensor or an array of real numbers"
        ) from None


class Batch(NamedTuple):
    """A batch taken apart.

    Attributes
    ----------
    args : tuple
        Positional inputs of the model.
    kwargs : dict
        Named inputs of the model.
    labels : Tensor
    mask : Tensor or None
        ``attention_mask`` of the inputs, shape (B, T).
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Tensor
    mask: Tensor | None


def split_batch(
    batch: Any, labels: LabelsLike = None, class_names: Sequence[str] | None = None
) -> Batch:
    """Take a batch apart into the model's inputs and the labels.

    Parameters
    ----------
    batch : mapping, tuple or list
        `find_labels` says where its labels are. What is left are the model's inputs: named ones of
        a mapping, also of a mapping that is the only other entry of a tuple.
    labels : str, int or callable, optional
        Where the labels are: a key, a position, or a function of the whole batch (which the model
        then gets without change).
    class_names : sequence of str, optional
        In class order; needed where labels are names.

    Raises
    ------
    ValueError
        If the batch has another form, no labels, or several entries that could be its labels, or a
        label is none of the names.
    """
    found, rest = find_labels(batch, labels)
    inputs = list(rest) if isinstance(rest, (tuple, list)) else [rest]
    named = inputs.pop() if len(inputs) == 1 and isinstance(inputs[0], Mapping) else {}
    mask = named.get("attention_mask")
    return Batch(tuple(inputs), dict(named), _label_tensor(found, class_names), mask)


def _label_tensor(labels: Any, class_names: Sequence[str] | None) -> Tensor:
    """Return labels as a tensor; names as the numbers of their classes."""
    if not isinstance(labels, Tensor) and len(labels) and isinstance(labels[0], (str, bytes)):
        if class_names is None:
            raise ValueError("labels: got names; pass class_names, the names in class order")
        return torch.from_numpy(indexed(labels, class_names).labels)
    return as_tensor("labels", labels)


def to_device(value: Any, device: torch.device) -> Any:
    """Return tensors, also those inside tuples, lists and mappings, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: to_device(item, device) for name, item in value.items()}
    if isinstance(value, tuple | list):
        items = [to_device(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def sample_rows(
    features: Tensor,
    labels: Tensor,
    how: Reduction = "auto",
    mask: Tensor | None = None,
    *,
    ignore_index: int | None = -100,
    name: str = "features",
) -> tuple[Tensor, Tensor]:
    """Bring features to one row a sample, with its label.

    Parameters
    ----------
    features : Tensor, shape (B, D), (B, C, H, W), (B, T, D) or with more axes
    labels : Tensor, shape (B,), (B, 1), or (B, T) for tokens
    how : str or callable
        ``"auto"`` leaves (B, D) alone, pools (B, C, H, W), and takes (B, T, D) as ``"tokens"`` if
        the labels are (B, T); otherwise it refuses, for nobody knows which is meant.
        ``"pool"``: global average over all axes after the second. ``"flatten"``: all axes after
        the first in one row. For sequences (B, T, D) ``"first"`` (class token), ``"last"`` (the
        last token that is not masked), ``"mean"`` (over tokens that are not masked), ``"tokens"``
        (every token a sample) and ``"next_token"`` (every token a sample of the class that is the
        next token's label: causal language models, whose labels are not shifted).
        A function gets features and mask and returns rows (B, D), or (B, T, D) as ``"tokens"``.
    mask : Tensor, shape (B, T), optional
        Not zero where there is a token; masked tokens are no samples.
    ignore_index : int or None
        Samples with this label are dropped, as by `torch.nn.functional.cross_entropy`.
    name : str
        For messages.

    Returns
    -------
    tuple of Tensor
        Rows (N, D) and labels (N,).

    Raises
    ------
    ValueError
        If the shape does not fit the reduction or the labels.
    """
    if not callable(how) and how not in REDUCTIONS:
        raise ValueError(f"reduce: got {how!r}, allowed are {', '.join(REDUCTIONS)} or a function")
    if how == "auto":
        how = _automatic(features, labels, name)
    if callable(how):
        features = how(features, mask)
        how = "tokens" if features.ndim == 3 else "as it is"
    if how == "as it is":
        rows = features
    elif how == "pool":
        _require(features, features.ndim >= 3, name, how, "(B, C, ...)")
        rows = _wide(features).flatten(2).mean(dim=2)
    elif how == "flatten":
        rows = features.flatten(1)
    else:
        _require(features, features.ndim == 3, name, how, "(B, T, D)")
        if mask is not None and tuple(mask.shape) != tuple(features.shape[:2]):
            raise ValueError(
                f"reduce: the attention mask is {tuple(mask.shape)}, {name!r} gives "
                f"{tuple(features.shape)}"
            )
        if how in ("tokens", "next_token"):
            return _tokens(features, labels, how, mask, ignore_index, name)
        rows = _one_token(features, how, mask)
    if rows.ndim != 2:
        raise ValueError(
            f"reduce: {name!r} gives rows of shape {tuple(rows.shape)}, need (B, D), one a sample"
        )
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    return _without_ignored(rows, labels.to(rows.device), ignore_index)


# -- inside --------------------------------------------------------------------------------------


def _automatic(features: Tensor, labels: Tensor, name: str) -> str:
    if features.ndim <= 2:
        return "as it is"
    if features.ndim >= 4:
        return "pool"
    if features.ndim == 3 and labels.shape == features.shape[:2] and features.shape[1] > 1:
        return "tokens"
    raise ValueError(
        f"reduce: {name!r} gives features of shape {tuple(features.shape)} with labels of shape "
        f"{tuple(labels.shape)}; say which rows are meant, one of {', '.join(REDUCTIONS[1:])}"
    )


def _require(features: Tensor, fits: bool, name: str, how: str, shape: str) -> None:
    if not fits:
        raise ValueError(
            f"reduce: {how!r} needs features of shape {shape}, {name!r} gives "
            f"{tuple(features.shape)}"
        )


def _one_token(features: Tensor, how: str, mask: Tensor | None) -> Tensor:
    if how == "first":
        return features[:, 0]
    length = features.shape[1]
    if mask is None:
        return features[:, -1] if how == "last" else _wide(features).mean(dim=1)
    kept = (mask != 0).to(features.device)
    if not bool(kept.any(dim=1).all()):
        raise ValueError("reduce: the attention mask leaves a sequence without tokens")
    if how == "last":
        # With padding on either side: the largest position that is kept.
        last = (kept * torch.arange(length, device=kept.device)).argmax(dim=1)
        return features[torch.arange(len(features), device=kept.device), last]
    total = (_wide(features) * kept[:, :, None]).sum(dim=1)
    return total / kept.sum(dim=1, keepdim=True)


def _tokens(
    features: Tensor,
    labels: Tensor,
    how: str,
    mask: Tensor | None,
    ignore_index: int | None,
    name: str,
) -> tuple[Tensor, Tensor]:
    if labels.shape != features.shape[:2]:
        raise ValueError(
            f"reduce: {how!r} needs a label a token, {name!r} gives {tuple(features.shape)} and "
            f"the labels are {tuple(labels.shape)}"
        )
    labels = labels.to(features.device)
    kept = (
        torch.ones_like(labels, dtype=torch.bool) if mask is None else mask.to(labels.device) != 0
    )
    if how == "next_token":
        # A token predicts the next one, so both have to be there.
        features, labels, kept = features[:, :-1], labels[:, 1:], kept[:, :-1] & kept[:, 1:]
    return _without_ignored(features[kept], labels[kept], ignore_index)


def _without_ignored(
    rows: Tensor, labels: Tensor, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    if ignore_index is None or labels.shape != rows.shape[:1]:
        return rows, labels
    kept = labels != ignore_index
    return (rows, labels) if bool(kept.all()) else (rows[kept], labels[kept])


def _wide(features: Tensor) -> Tensor:
    # Averages of 16-bit features are taken in 32 bits.
    return features.float() if features.element_size() < 4 else features
