"""Label distributions of contexts: what ``targets`` may be, read and checked."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import array_of, is_whole, plain_number, wide
from tightframe.saved import kept
from tightframe.shown import Shown

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: What ``targets`` may be: an array or SciPy sparse matrix (V, m), or what `Targets.to_dict` gives.
TargetsLike = Any

#: Dense targets of more entries than this are refused (256 MiB).
MAX_DENSE_ENTRIES = 2**25

#: A distribution's sum may be this far from one, as those of single precision are; it is then
#: divided by its sum.
SUM_TOLERANCE = 1e-5

#: A sum this close to one is one.
ROUNDING = 1e-14


@kept
@dataclass(frozen=True, eq=False)
class Targets(Shown):
    """Label distributions of m contexts over V labels, held by context; immutable.

    Attributes
    ----------
    num_labels : int
        V.
    starts : ndarray of int, shape (m + 1,)
        Where every context's labels begin in the other two.
    labels : ndarray of int
        Ascending within a context.
    shares : ndarray
        Probabilities, above 0, of sum 1 within a context.
    """

    num_labels: int
    starts: NDArray[np.int64]
    labels: NDArray[np.int32]
    shares: NDArray[np.float64]

    def __post_init__(self) -> None:
        for array in (self.starts, self.labels, self.shares):
            array.flags.writeable = False

    @property
    def num_contexts(self) -> int:
        """Number of contexts m."""
        return len(self.starts) - 1

    @cached_property
    def by_context(self) -> csr_array:
        """The distributions as a sparse matrix with a row a context, (m, V)."""
        from scipy.sparse import csr_array

        shape = (self.num_contexts, self.num_labels)
        return csr_array((self.shares, self.labels, self.starts), shape=shape)

    @cached_property
    def _digest(self) -> bytes:
        digest = hashlib.sha256(str(self.num_labels).encode())
        for array in (self.starts, self.labels, self.shares):
            digest.update(np.ascontiguousarray(array).data)
        return digest.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Targets) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"<{self.num_labels} labels x {self.num_contexts} contexts>"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, which `Problem` takes as ``targets``."""
        return {
            "num_labels": self.num_labels,
            "starts": self.starts.tolist(),
            "labels": self.labels.tolist(),
            "shares": self.shares.tolist(),
        }

    @classmethod
    def _unpacked(cls, fields: Mapping[str, Any]) -> Targets:
        """Make them of a file's arrays, which need not fit."""
        read_targets(fields)
        return cls(**fields)


def read_targets(value: TargetsLike, num_contexts: int | None = None) -> Targets:
    """Read label distributions, (V, m): column j is that of context j.

    Parameters
    ----------
    value : array_like, SciPy sparse matrix, Targets, or mapping as of `Targets.to_dict`
    num_contexts : int, optional
        m, if the counts have said it.

    Raises
    ------
    ValueError
        If there are not as many columns, fewer than two labels or contexts, entries that are no
        probabilities, or columns that are not of sum one; the message names ``targets``.
    """
    if isinstance(value, Targets):
        _require_shape((value.num_labels, value.num_contexts), num_contexts)
        return value
    is_sparse = hasattr(value, "tocsc") and hasattr(value, "nnz")
    if isinstance(value, Mapping) and not is_sparse:  # SciPy's DOK matrices are both
        value, is_sparse = _from_dict(value), True
    if is_sparse:
        _require_shape(value.shape, num_contexts)
        table = value.tocsc(copy=True)
        table.sum_duplicates()
        table.sort_indices()
        if (zeros := int((table.data == 0).sum())) > 0:
            raise ValueError(
                f"targets: got {zeros} explicit zero{'s' * (zeros > 1)} in a sparse matrix: that "
                "leaves open whether a context has that label; call eliminate_zeros() first"
            )
    else:
        table = _from_dense(value, num_contexts)
    data = table.data
    if data.dtype.kind not in "biuf":
        raise ValueError(f"targets: got entries of type {data.dtype}, need probabilities")
    starts = table.indptr.astype(np.int64)
    labels = table.indices.astype(np.int32)
    shares = data.astype(np.float64)
    num_labels, num_contexts = table.shape
    each = np.repeat(np.arange(num_contexts), np.diff(starts))
    bad = ~(np.isfinite(shares) & (shares > 0))
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            f"targets: column {each[i]} has the entry {shares[i]:g}; need probabilities, from 0 "
            "to 1"
        )
    sums = np.bincount(each, shares, minlength=num_contexts)
    if not sums.all():
        j = int(np.argmin(sums != 0))
        raise ValueError(f"targets: column {j} is all zero; every context needs a distribution")
    off = np.abs(sums - 1) > SUM_TOLERANCE
    if off.any():
        j = int(np.argmax(off))
        rows = np.bincount(labels, shares, num_labels)
        hint = "; its rows do: transpose it" if (abs(rows - 1) <= SUM_TOLERANCE).all() else ""
        raise ValueError(
            f"targets: column {j} has the sum {sums[j]:g}; a distribution over the labels has 1"
            f"{hint}"
        )
    # What was normalised before stays bit for bit.
    sums = np.where(np.abs(sums - 1) > ROUNDING, sums, 1.0)
    return Targets(int(num_labels), starts, labels, shares / sums[each])


def _require_shape(shape: tuple[int, ...], num_contexts: int | None) -> None:
    if len(shape) != 2:
        raise ValueError(f"targets: got shape {tuple(shape)}, need (labels, contexts)")
    if num_contexts is not None and shape[1] != num_contexts:
        raise ValueError(
            f"targets: got {shape[1]} columns, counts are of {num_contexts} contexts; need "
            "(labels, contexts)"
        )
    if min(shape) < 2:
        what = "label" if shape[0] < 2 else "context"
        raise ValueError(f"targets: got {min(shape)} {what}, need at least 2 of both")


def _from_dense(value: ArrayLike, num_contexts: int | None) -> Any:
    from scipy.sparse import csc_array

    shape = getattr(value, "shape", None)
    if shape is not None:
        _require_shape(tuple(shape), num_contexts)
        if int(np.prod(shape, dtype=object)) > MAX_DENSE_ENTRIES:
            raise ValueError(
                f"targets: got a dense array of {shape[0]} x {shape[1]}; more than "
                f"{MAX_DENSE_ENTRIES} entries are taken sparse only, as a scipy.sparse matrix"
            )
    array = array_of("targets", value)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"targets: got {array.dtype}, need an array or sparse matrix of probabilities"
        )
    _require_shape(array.shape, num_contexts)
    return csc_array(wide(array))


def _from_dict(value: Mapping[str, Any]) -> Any:
    from scipy.sparse import csc_array

    try:
        starts, labels = np.asarray(value["starts"]), np.asarray(value["labels"])
        shares = np.asarray(value["shares"], dtype=np.float64)
        v = plain_number(value["num_labels"])
        fit = (
            starts.ndim == labels.ndim == shares.ndim == 1
            and starts.dtype.kind in "iu"
            and (labels.dtype.kind in "iu" or not labels.size)
            and is_whole(v)
            and starts[0] == 0
            and starts[-1] == len(labels) == len(shares)
            and (np.diff(starts) >= 0).all()
            and ((labels >= 0) & (labels < v)).all()
        )
    except (KeyError, TypeError, ValueError, IndexError):
        fit = False
    if not fit:  # SciPy would read beyond its arrays
        raise ValueError(
            "targets: got a mapping without num_labels, starts, labels and shares that fit"
        )
    return csc_array((shares, labels, starts), shape=(int(v), len(starts) - 1))


def label_sets(labels: Any) -> tuple[NDArray[np.int64], csr_array, NDArray[np.float64]]:
    """Count which sets of labels samples have.

    Parameters
    ----------
    labels : array_like or SciPy sparse matrix, shape (N, V)
        Zeros and ones.

    Returns
    -------
    counts : ndarray, shape (m,)
        Samples of every set, in order of appearance.
    targets : csr_array, shape (V, m)
        Even over every set.
    sizes : ndarray, shape (m,)
        Labels of every set.

    Raises
    ------
    ValueError
        If it is no matrix of zeros and ones, a sample has no label, or all have the same ones.
    """
    from scipy.sparse import csc_array, csr_array, issparse

    given: Any = labels if issparse(labels) else wide(array_of("labels", labels))
    if given.ndim != 2 or given.dtype.kind not in "biuf":
        raise ValueError(
            f"labels: got {given.dtype} of shape {tuple(given.shape)}, need zeros and ones, "
            "(samples, labels)"
        )
    rows = csr_array(given, copy=True)
    rows.eliminate_zeros()
    rows.sort_indices()
    if (odd := rows.data[rows.data != 1]).size:
        raise ValueError(f"labels: got {odd[0]:g}, need zeros and ones")
    sizes = np.diff(rows.indptr)
    if not sizes.all():
        raise ValueError(f"labels: sample {int(np.argmin(sizes))} has none")
    places: dict[bytes, int] = {}
    first: list[int] = []
    set_of = np.empty(len(sizes), dtype=np.int64)
    for sample, (start, end) in enumerate(itertools.pairwise(rows.indptr.tolist())):
        found = places.setdefault(rows.indices[start:end].tobytes(), len(places))
        set_of[sample] = found
        if found == len(first):
            first.append(sample)
    if len(first) < 2:
        raise ValueError("labels: all samples have the same set, need at least two sets")
    sets = rows[first]
    sizes = np.diff(sets.indptr)
    even = csc_array(
        (np.repeat(1 / sizes, sizes), sets.indices, sets.indptr), shape=sets.shape[::-1]
    )
    return np.bincount(set_of), even.tocsr(), sizes.astype(np.float64)
