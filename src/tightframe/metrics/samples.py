"""What a batch of features and labels must be, and which of its rows count."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from tightframe.checks import MAX_FEATURE, number_of
from tightframe.data.batches import as_tensor

#: What may happen to rows with NaN, infinite or too large entries.
NONFINITE = ("raise", "drop")


class Accepted(NamedTuple):
    """The rows of a batch that count, and how many others there were."""

    features: Tensor  # (B, D), as given but for the type
    labels: Tensor  # (B,), int64
    ignored: int
    dropped: int


def accepted(
    features: Any,
    labels: Any,
    *,
    num_classes: int,
    dim: int | None,
    ignore_index: int | None,
    nonfinite: str,
) -> Accepted:
    """Return the rows of a batch that count.

    Raises
    ------
    ValueError
        If a shape, type or label is wrong, or a feature is unusable and not to be dropped.
    """
    x, y = _flattened(as_tensor("features", features), as_tensor("labels", labels))
    x = feature_rows(x, dim)
    y = _label_column(y, x.shape[0])
    rows: Tensor | None = None  # where they were in the batch; None if all are there still
    ignored = dropped = 0
    if ignore_index is not None:
        seen = y != ignore_index
        ignored = len(y) - int(seen.sum())
        if ignored:
            rows = torch.nonzero(seen)[:, 0]
            x, y = x[rows.to(x.device)], y[rows]
    if len(y) == 0:
        return Accepted(x, y, ignored, dropped)
    low, high = torch.aminmax(y)
    if int(low) < 0 or int(high) >= num_classes:
        i = int(torch.nonzero((y < 0) | (y >= num_classes))[0])
        row = i if rows is None else int(rows[i])
        raise ValueError(
            f"labels: got {int(y[i])} in row {row}, allowed are 0 to {num_classes - 1}"
        )
    bad = unusable_rows(x)
    if bad is not None:
        if nonfinite == "raise":
            i = int(torch.nonzero(bad)[0])
            refuse_row(i if rows is None else int(rows[i]))
        dropped = int(bad.sum())
        x, y = x[~bad], y[~bad.to(y.device)]
    return Accepted(x, y, ignored, dropped)


def feature_rows(features: Any, dim: int | None) -> Tensor:
    """Return features as a detached tensor of shape (B, D), of a floating or whole-number type.

    Raises
    ------
    ValueError
        If the shape or type is wrong.
    """
    x = as_tensor("features", features)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"features: got shape {tuple(x.shape)}, need (B, D), one row a sample")
    if x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"features: got type {x.dtype}, need real numbers")
    if dim is not None and x.shape[1] != dim:
        raise ValueError(f"features: got {number_of(x.shape[1], 'column')}, need {dim} as before")
    if x.is_floating_point():
        return x.float() if x.element_size() == 1 else x  # the 8-bit types have no arithmetic
    wide = x.dtype in (torch.uint16, torch.uint32, torch.uint64)  # nor have these
    return x.double() if wide else x


def unusable_rows(x: Tensor) -> Tensor | None:
    """Return which rows have an entry that is NaN, infinite or above `MAX_FEATURE`; None if none.

    The mask has shape (B,), bool, on the rows' device.
    """
    if x.shape[0] == 0 or not x.is_floating_point():
        return None
    low, high = torch.aminmax(x)  # NaN if any entry is
    if float(low) >= -MAX_FEATURE and float(high) <= MAX_FEATURE:
        return None
    # Only float64 can hold the limit itself.
    limit = min(MAX_FEATURE, torch.finfo(x.dtype).max)
    return ~(x.abs() <= limit).all(dim=1)


def refuse_row(row: int) -> NoReturn:
    """Raise the ValueError for an unusable row of features."""
    raise ValueError(
        f"features: row {row} has an entry that is NaN, infinite or above {MAX_FEATURE:g}"
    )


def checked_features(features: Any, dim: int | None) -> Tensor:
    """Return `feature_rows` whose entries are all finite.

    Raises
    ------
    ValueError
        If the shape or type is wrong or an entry is NaN, infinite or above `MAX_FEATURE`.
    """
    x = feature_rows(features, dim)
    bad = unusable_rows(x)
    if bad is not None:
        refuse_row(int(torch.nonzero(bad)[0]))
    return x


def _flattened(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (..., D) with labels (...) as rows; other shapes as they are."""
    if x.ndim <= 2:
        return x, y
    if y.shape != x.shape[:-1]:
        raise ValueError(
            f"features: got shape {tuple(x.shape)}, need (B, D), one row a sample, or (..., D) "
            f"with labels of shape (...), which are {tuple(y.shape)}"
        )
    return x.reshape(-1, x.shape[-1]), y.reshape(-1)


def _label_column(y: Tensor, batch: int) -> Tensor:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if tuple(y.shape) != (batch,):
        raise ValueError(
            f"labels: got shape {tuple(y.shape)}, need ({batch},) or ({batch}, 1) "
            "as there are features"
        )
    if batch and (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool):
        raise ValueError(f"labels: got type {y.dtype}, need whole numbers (class indices)")
    return y.long()
