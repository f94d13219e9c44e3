"""`LastLayer`: what is known of a trained network's last layer and its loss, checked once.

It needs NumPy only, SciPy for class means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import MAX_FEATURE, array_of, number_of, wide
from tightframe.problem.class_names import NamesLike, given_names
from tightframe.problem.counts import PerClass
from tightframe.problem.problem import Problem
from tightframe.saved import filed
from tightframe.shown import record

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


@filed
@record
@dataclass(frozen=True, eq=False)
class LastLayer:
    """Features, labels and classifier of a trained network; make one with `of`.

    Attributes
    ----------
    features : ndarray, shape (N, D), float64
    labels : ndarray, shape (N,), int64
        From 0 to K - 1. Classes may be absent.
    weight : ndarray, shape (K, D), float64
    bias : ndarray, shape (K,), float64, or None
        None if the head has none.
    held_out : tuple of (features, labels) or None
        Of samples that were not trained on.
    class_names : tuple of str or None
    """

    features: Array
    labels: Labels
    weight: Array
    bias: Array | None = None
    held_out: tuple[Array, Labels] | None = None
    class_names: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        features: Any,
        labels: Any,
        weight: Any,
        bias: Any = None,
        *,
        held_out: tuple[Any, Any] | None = None,
        class_names: NamesLike | None = None,
    ) -> LastLayer:
        """Check arrays or tensors, and keep them in double precision.

        Raises
        ------
        ValueError
            If a shape is wrong, an entry is not finite, or a label is no class.
        """
        w = finite_array("weight", weight, 2)
        if len(w) < 2:
            raise ValueError(
                f"weight: got {number_of(len(w), 'row')}, need at least 2, one for each class"
            )
        b = None if bias is None else finite_array("bias", bias, 1)
        if b is not None and len(b) != len(w):
            raise ValueError(
                f"bias: got {number_of(len(b), 'entry', 'entries')}, weight has {len(w)} rows"
            )
        x, y = _samples("", features, labels, w)
        held = None if held_out is None else _held_out(held_out, w)
        names = given_names(class_names, len(w), f"weight has {len(w)} rows")
        return cls(x, y, w, b, held, names)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.weight)

    @property
    def counts(self) -> Labels:
        """Training samples of every class, shape (K,)."""
        return np.bincount(self.labels, minlength=self.num_classes)

    @property
    def class_means(self) -> Array:
        """Mean features of every class, shape (K, D); nan for classes without samples."""
        from scipy import sparse

        counts, n = self.counts, len(self.labels)
        shares, places = 1 / counts[self.labels], (self.labels, np.arange(n))
        average = sparse.csr_matrix((shares, places), (self.num_classes, n))
        means: Array = np.asarray(average @ self.features)
        means[counts == 0] = np.nan
        return means

    def logits(self, features: Array | None = None) -> Array:
        """Return ``features W^T + b``, shape (N, K), of the training samples by default."""
        product = (self.features if features is None else features) @ self.weight.T
        return product if self.bias is None else product + self.bias

    def name(self, label: int) -> str:
        """Return a class's name, or its label where classes have no names."""
        return str(label) if self.class_names is None else self.class_names[label]


def _held_out(given: Any, weight: Array) -> tuple[Array, Labels]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        size = f" of {len(given)}" if isinstance(given, tuple | list) else ""
        raise ValueError(
            f"held_out: got {type(given).__name__}{size}, need a pair of features and labels"
        )
    features, labels = given
    return _samples("held_out ", features, labels, weight)


def loss_terms(
    counts: Labels,
    class_weights: PerClass | None = None,
    logit_adjustment: PerClass | None = None,
    class_names: tuple[str, ...] | None = None,
    **others: Any,
) -> Problem:
    """Read the terms of a loss as `Problem` does, and return one with them.

    A problem has no classes without samples: they count as classes of one. Its decays are nothing.
    """
    return Problem(
        np.maximum(counts, 1),
        weight_decay=1.0,
        feature_decay=1.0,
        class_weights=class_weights,
        logit_adjustment=logit_adjustment,
        class_names=class_names,
        **others,
    )


def _samples(prefix: str, features: Any, labels: Any, weight: Array) -> tuple[Array, Labels]:
    x = finite_array(f"{prefix}features", features, 2)
    if x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"{prefix}features: got shape {x.shape}, weight has shape {weight.shape}; "
            "need (N, D) and (K, D)"
        )
    y = array_of(f"{prefix}labels", labels)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (len(x),):
        raise ValueError(f"{prefix}labels: got shape {y.shape}, need ({len(x)},)")
    with np.errstate(invalid="ignore"):  # entries that are not finite differ, see below
        whole = y.astype(np.int64) if y.dtype.kind in "iufb" else None
    if whole is None or y.dtype.kind == "b" or not np.array_equal(whole, y):
        raise ValueError(f"{prefix}labels: got {y.dtype} entries, need whole numbers from 0")
    if len(y) == 0:
        raise ValueError(f"{prefix}labels: got no samples")
    if whole.min() < 0 or whole.max() >= len(weight):
        raise ValueError(
            f"{prefix}labels: got {whole.min()} to {whole.max()}, need 0 to {len(weight) - 1}"
        )
    return x, whole


def finite_array(name: str, value: Any, axes: int) -> Array:
    """Return finite numbers along so many axes in double precision, checked."""
    array = array_of(name, value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: got {array.dtype}, need real numbers")
    if array.ndim != axes or 0 in array.shape[1:]:
        kind = "(K,)" if axes == 1 else "rows and columns"
        raise ValueError(f"{name}: got {array.dtype} of shape {array.shape}, need {kind}")
    result = wide(array).astype(np.float64, copy=False)
    if not np.isfinite(result).all():
        raise ValueError(f"{name}: got an entry that is not finite")
    if result.size and max(result.max(), -result.min()) > MAX_FEATURE:
        raise ValueError(f"{name}: got an entry above {MAX_FEATURE:g}, need smaller ones")
    return result
