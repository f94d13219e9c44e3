"""What every metric asks of its input: usable classes, a checked classifier, resolved vectors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tightframe.checks import MAX_FEATURE, require_dense
from tightframe.data.batches import as_tensor
from tightframe.metrics.readings import Readings
from tightframe.metrics.rows import Rows
from tightframe.metrics.snapshot import Snapshot
from tightframe.metrics.tall import Matrix, Tall, dense, is_tall, largest_entry

Array = NDArray[np.float64]


def warn(message: str, stacklevel: int = 4) -> None:
    """Warn of a degenerate state; by default at the caller of a metric under `plain_tensors`."""
    warnings.warn(message, RuntimeWarning, stacklevel=stacklevel + 1)


def require_moments(moments: Any) -> None:
    """Refuse what is no `ClassMoments`."""
    if not isinstance(moments, Readings):
        raise ValueError(f"moments: got {type(moments).__name__}, need a ClassMoments")


def usable(moments: Readings, what: str) -> Snapshot:
    """Return the moments of the classes with samples, at least two, and warn of the others."""
    require_moments(moments)
    moments = Snapshot.of(moments)
    if moments.num_classes < 2:
        raise ValueError(f"{what}: got 1 class, need at least 2")
    missing = moments.missing
    if len(missing) > moments.num_classes - 2:
        have = moments.num_classes - len(missing)
        raise ValueError(f"{what}: {have} of {moments.num_classes} classes have samples, need 2")
    if not missing:
        return moments
    warn(f"{what}: {moments.describe_missing()} and left out", 5)
    return moments.present()


def require_complete(moments: Readings, *, dense: bool = True) -> None:
    """Refuse moments with a missing class, and, for K x K results, too many classes."""
    require_moments(moments)
    if dense:
        require_dense(moments.num_classes, "moments")
    if moments.num_classes < 2:
        raise ValueError("moments: got 1 class, need at least 2")
    if moments.missing:
        raise ValueError(f"moments: {moments.describe_missing()}; the geometry needs every class")


def real_matrix(name: str, value: Any, device: torch.device | None = None) -> Tensor:
    """Return finite real numbers with two axes as float64, or raise a ValueError."""
    return dense(real_rows(name, value, device).given)


def real_rows(name: str, value: Any, device: torch.device | None = None) -> Rows:
    """Return the same as `Rows`."""
    tensor = as_tensor(name, value)
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, need (K, D), one row a class")
    return Rows(*_real(name, tensor, device or tensor.device))


def classifier(moments: Readings, weight: Any, bias: Any = None) -> tuple[Matrix, Tensor]:
    """Return weight (K, D) and bias (K,), zero if None, in float64 on the moments' device.

    A large weight of another type is `Tall`: it is read where it was given.
    """
    w = classifier_rows(moments, weight).given
    if bias is None:
        return w, w.new_zeros(len(w))
    b = as_tensor("bias", bias)
    if tuple(b.shape) != (len(w),):
        raise ValueError(f"bias: got shape {tuple(b.shape)}, need ({len(w)},)")
    return w, dense(_within("bias", Rows(*_real("bias", b, moments.device))).given)


def classifier_rows(moments: Readings, weight: Any) -> Rows:
    """Return the weight (K, D) alone."""
    require_moments(moments)
    k, d = moments.num_classes, moments.dim
    if isinstance(weight, Tall):  # our own
        return Rows(weight)
    w = as_tensor("weight", weight)
    if w.ndim != 2 or w.shape[0] != k or w.shape[1] != (d or w.shape[1]):
        raise ValueError(
            f"weight: got shape {tuple(w.shape)}, need ({k}, {d or 'D'}), one row a class"
        )
    return _within("weight", Rows(*_real("weight", w, moments.device)))


def _within(name: str, rows: Rows) -> Rows:
    """Return a head's numbers unless they are larger than features may be."""
    if rows.largest > MAX_FEATURE:
        raise ValueError(
            f"{name}: largest entry is {rows.largest:.3g}, need at most {MAX_FEATURE:g}"
        )
    return rows


def _real(name: str, tensor: Tensor, device: torch.device) -> tuple[Matrix, None, float]:
    """Return finite real numbers as float64 on a device, and the largest; or raise a ValueError.

    As the arguments of `Rows`.
    """
    if tensor.is_complex():
        raise ValueError(f"{name}: got type {tensor.dtype}, need real numbers")
    matrix: Matrix
    if tensor.ndim == 2 and is_tall(*tensor.shape) and tensor.dtype != torch.float64:
        matrix = Tall.of(tensor, device)
    else:
        matrix = tensor.to(device).double()
    largest = largest_entry(matrix)
    if not math.isfinite(largest):
        raise ValueError(f"{name}: has NaN or infinite entries")
    return matrix, None, largest


def layer_list(moments: Readings, weights: Sequence[Any]) -> list[Tensor]:
    """Return the linear layers W_1 (D -> d_1) to W_M (d_{M-1} -> K), checked, in float64."""
    if not isinstance(weights, Sequence):  # one tensor or array is not
        raise ValueError(
            f"weights: got {type(weights).__name__}, need a list of layers, first one first"
        )
    if not weights:
        raise ValueError("weights: got no layer, need at least one")
    layers = []
    width = moments.dim
    for m, layer in enumerate(weights, start=1):
        w = real_matrix(f"weights[{m - 1}]", layer, moments.device)
        rows = moments.num_classes if m == len(weights) else w.shape[0]
        if tuple(w.shape) != (rows, width):
            raise ValueError(
                f"weights[{m - 1}]: got shape {tuple(w.shape)}, need ({rows}, {width}); "
                "layers are listed from the features to the logits"
            )
        layers.append(w)
        width = w.shape[0]
    return layers


def vectors_of(value: Any, what: str) -> Rows:
    """Return the rows of a matrix, or the centred class means of moments, at least two."""
    if isinstance(value, Rows):
        return value
    if isinstance(value, Readings):
        return usable(value, what).centered_vectors
    rows = real_rows("vectors", value)
    if len(rows.given) < 2:
        raise ValueError(f"{what}: got 1 vector, need at least 2")
    return rows


class UnitVectors(NamedTuple):
    """Rows of length one with their errors, which rows they were, and all rows' lengths."""

    rows: Tensor
    errors: Tensor
    kept: Tensor
    lengths: Tensor


def unit_vectors(value: Any, what: str) -> UnitVectors:
    """Return the rows scaled to length one; zero rows are left out.

    Warns of zero rows; fewer than two rows may remain.
    """
    vectors = vectors_of(value, what)
    rows, errors = dense(vectors.given), vectors.errors
    # The largest entry first: squares of tiny or huge entries under- or overflow.
    scales = rows.abs().amax(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)
    rows, errors = rows / scales[:, None], errors / scales
    lengths = torch.linalg.vector_norm(rows, dim=1)
    kept = torch.nonzero(lengths > 0)[:, 0]
    if len(kept) < len(rows):
        zeros = len(rows) - len(kept)
        warn(f"{what}: {zeros} of {len(rows)} vectors are zero, have no direction and are left out")
    own = lengths[kept]
    return UnitVectors(rows[kept] / own[:, None], errors[kept] / own, kept, lengths * scales)


def as_array(tensor: Matrix) -> Array:
    """Return a float64 tensor as an array on the CPU."""
    array: Array = dense(tensor).cpu().numpy()
    return array


def coefficient_of_variation(values: Tensor) -> float:
    """Return the (population) standard deviation over the mean; NaN for a mean of zero."""
    deviation, mean = (float(value) for value in torch.std_mean(values, correction=0))
    return deviation / mean if mean else math.nan
