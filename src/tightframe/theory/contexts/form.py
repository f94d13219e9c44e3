"""The convex problem of contexts with label distributions, and its exact merging.

V labels, m contexts; ``p_j`` is the label distribution of context j, ``a_j`` its share of the loss,
``omega_j`` and ``beta_v`` weigh features and rows of the classifier, ``c_v`` is added to a label's
logit inside the loss:

    min_{Z, b}  sum_j a_j [lse(z_j + b + c) - p_j^T (z_j + b + c)]
                + lambda ||B^{1/2} Z Omega^{1/2}||_* + (bias_decay / 2) sum_v beta_v b_v^2

with ``B = diag(beta)`` and ``Omega = diag(omega)`` (docs/theory.md section 10). Everything here has
a row a context, so that softmaxes run along memory: ``X``, (m, V), is ``Omega^{1/2} Z^T B^{1/2}``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.problem.problem import Problem
from tightframe.rounding import UNIT

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = NDArray[np.float64]

#: Entries that are worked on at a time: some megabytes, which stay in a core's cache.
BLOCK = 400_000

#: Two contexts' loss per feature weight this close, relatively, are equal but for rounding.
EQUAL_CURVATURE = 16 * UNIT


@dataclass(frozen=True, eq=False)
class ContextForm:
    """One problem of the form above.

    Attributes
    ----------
    targets : scipy.sparse.csr_array, shape (m, V)
        Label distributions, a row a context, without explicit zeros.
    weights : ndarray, shape (m,)
        Factor a of every context's loss, above 0.
    feature_weights : ndarray, shape (m,)
        Omega, above 0.
    decay : float
        Lambda, the factor of the nuclear norm.
    label_weights : ndarray, shape (V,)
        Beta, above 0.
    shifts : ndarray, shape (V,)
        c, in nats.
    bias : {"none", "free", "decayed"}
    bias_decay : float
        0 unless decayed.
    """

    targets: csr_array
    weights: Array
    feature_weights: Array
    decay: float
    label_weights: Array
    shifts: Array
    bias: str = "none"
    bias_decay: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Contexts and labels, (m, V)."""
        m, v = self.targets.shape
        return int(m), int(v)

    @cached_property
    def context_scale(self) -> Array:
        """Omega^{-1/2}: a context's logits per row of X; shape (m,)."""
        scale: Array = 1 / np.sqrt(self.feature_weights)
        return scale

    @cached_property
    def label_scale(self) -> Array:
        """B^{-1/2}: a label's logits per column of X; shape (V,)."""
        scale: Array = 1 / np.sqrt(self.label_weights)
        return scale

    @cached_property
    def label_axis(self) -> Array:
        """Unit vector along which the loss ignores X, shape (V,)."""
        root = np.sqrt(self.label_weights)
        axis: Array = root / np.linalg.norm(root)
        return axis

    @cached_property
    def context_axis(self) -> Array:
        """Unit vector along which a bias moves X, shape (m,)."""
        root = np.sqrt(self.feature_weights)
        axis: Array = root / np.linalg.norm(root)
        return axis

    @cached_property
    def marginal(self) -> Array:
        """Every label's share of the loss, ``sum_j a_j p_jv``; shape (V,)."""
        return np.asarray(self.targets.T @ self.weights)

    @cached_property
    def target_entropy(self) -> float:
        """``sum_j a_j H(p_j)``, which no logits go below."""
        shares = self.targets.data
        each = np.repeat(self.weights, np.diff(self.targets.indptr))
        return -float(np.sum(each * shares * np.log(shares)))

    # -- labels as columns; a form that is reduced by its symmetry has cells instead ------------

    def scale_at(self, rows: slice) -> Array:
        """Return logits per entry of X, of some contexts: one row for all, or one each."""
        return self.label_scale

    def shifts_at(self, rows: slice) -> Array:
        """Return what is added to logits inside the loss, in the same way."""
        return self.shifts

    def roots_at(self, rows: slice) -> Array:
        """Return roots of the label weights."""
        return np.sqrt(self.label_weights)

    def axis_at(self, rows: slice) -> Array:
        """Return the unit vector along which the loss ignores X."""
        return self.label_axis

    def grouped(self, columns: Array) -> Array:
        """Add up what is of cells to what is of labels, along the last axis."""
        return columns

    def in_cells(self, labels: Array) -> Array:
        """Repeat for every cell what is of labels, (V,)."""
        return labels

    def shared(self, labels: Array, rows: slice) -> Array:
        """Spread what is of labels, (V,), evenly over the labels that a cell stands for."""
        return labels

    def lifted(self, between: NDArray[Any], rows: slice = slice(None)) -> NDArray[Any]:
        """Return X, or some rows, from its matrix between contexts and labels."""
        return between

    def between(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Return the matrix between contexts and labels, whose nuclear norm counts."""
        return matrix

    def within(self, matrix: NDArray[Any]) -> tuple[NDArray[Any] | None, Array]:
        """Return what of X deviates inside labels, and its length for every label."""
        return None, np.zeros(len(self.label_weights))

    @property
    def within_costs(self) -> Array:
        """Nuclear norm per length of those."""
        return np.zeros(len(self.label_weights))

    def spread_gain(self, q: Array, rows: slice) -> tuple[float, float]:
        """Return what cells add to a dual value beside the labels' shifts, and its terms' size."""
        return 0.0, 0.0

    # -- a block at a time ------------------------------------------------------------------------

    def blocks(self) -> Iterator[slice]:
        """Give slices of contexts that together are all, of some `BLOCK` entries each."""
        m, v = self.shape
        size = max(1, BLOCK // v)
        for start in range(0, m, size):
            yield slice(start, min(start + size, m))

    def add_targets(self, array: NDArray[np.floating], rows: slice, factor: Array | float) -> None:
        """Add ``factor`` (one, or one a row) times the targets of some contexts to an array."""
        p = self.targets
        first, last = p.indptr[rows.start], p.indptr[rows.stop]
        lengths = np.diff(p.indptr[rows.start : rows.stop + 1])
        at = np.repeat(np.arange(len(lengths)), lengths)
        each = np.broadcast_to(np.asarray(factor, dtype=np.float64), lengths.shape)[at]
        array[at, p.indices[first:last]] += (each * p.data[first:last]).astype(array.dtype)

    def target_dot(self, scores: NDArray[np.floating], rows: slice) -> Array:
        """Return ``p_j^T scores_j`` of some contexts."""
        p = self.targets
        first, last = p.indptr[rows.start], p.indptr[rows.stop]
        lengths = np.diff(p.indptr[rows.start : rows.stop + 1])
        at = np.repeat(np.arange(len(lengths)), lengths)
        products = p.data[first:last] * scores[at, p.indices[first:last]]
        sums: Array = np.bincount(at, products, minlength=len(lengths)).astype(np.float64)
        return sums


class Factors(NamedTuple):
    """X in thin factors, ``left diag(values) right^T`` with orthonormal columns.

    Attributes
    ----------
    left : ndarray, shape (m, r)
    values : ndarray, shape (r,)
        Positive, descending.
    right : ndarray, shape (V, r)
    """

    left: Array
    values: Array
    right: Array

    @classmethod
    def of_product(cls, tall: Array, wide: Array) -> Factors:
        """Decompose ``tall wide^T``, (m, r) and (V, r)."""
        q, upper = np.linalg.qr(tall)
        p, lower = np.linalg.qr(wide)
        return cls._from_svd(*np.linalg.svd(upper @ lower.T), q, p)

    @classmethod
    def of_matrix(cls, matrix: Array) -> Factors:
        """Decompose a matrix (m, V)."""
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        kept = values > 4 * UNIT * max(matrix.shape) * values[:1]
        return cls(left[:, kept], values[kept], right[kept].T)

    @classmethod
    def _from_svd(cls, left: Array, values: Array, right: Array, q: Array, p: Array) -> Factors:
        kept = values > 4 * UNIT * len(q) * values[:1]
        return cls(q @ left[:, kept], values[kept], p @ right[kept].T)

    @property
    def norm(self) -> float:
        """Nuclear norm of X."""
        return float(self.values.sum())

    @property
    def rank(self) -> int:
        """Number of singular values."""
        return len(self.values)

    def rows(self, rows: slice) -> Array:
        """Return some rows of X."""
        return (self.left[rows] * self.values) @ self.right.T


def form_of(problem: Problem) -> ContextForm:
    """Return the form of a problem with targets: a row a context, nothing merged."""
    if problem.targets is None:
        raise ValueError("targets: missing; the form of contexts is of label distributions")
    v = problem.num_classes
    return ContextForm(
        targets=problem.targets.by_context,
        weights=problem.class_weights * problem.counts / problem.num_samples,
        feature_weights=problem.feature_weights,
        decay=problem.logit_decay,
        label_weights=np.ones(v),
        shifts=np.zeros(v),
        bias=problem.bias,
        bias_decay=problem.bias_decay,
    )


@dataclass(frozen=True, eq=False)
class Merged:
    """A form with equal contexts and equal labels merged, and which became which.

    Attributes
    ----------
    form : ContextForm
        The smaller problem; its minimum is that of the whole less ``constant``.
    context_of : ndarray of int, shape (m,)
        Merged context of every context.
    label_of : ndarray of int, shape (V,)
        Merged label of every label.
    constant : float
        What the merged loss lacks: ``k`` equal labels count as one with ``log k`` added to its
        logit inside the loss, which the targets do not see.
    """

    form: ContextForm
    context_of: NDArray[np.intp]
    label_of: NDArray[np.intp]
    constant: float


def merged(form: ContextForm) -> Merged:
    """Merge contexts of equal targets and ``a / omega``, then labels of equal rows.

    Both are exact. The merged contexts' mean logits, weighed by omega, have no larger nuclear norm
    (they are X times a projection) and no larger loss where ``a / omega`` agree (by convexity); a
    permutation of equal labels is a symmetry, and the average over it costs no more.
    """
    p = form.targets
    curvature = classes_of(form.weights / form.feature_weights)
    context_of, first = _equal_rows(p, curvature[None])
    if len(first) < p.shape[0]:
        p = p[first]
    weights: Array = np.bincount(context_of, form.weights).astype(np.float64)
    feature_weights: Array = np.bincount(context_of, form.feature_weights).astype(np.float64)
    keys = np.stack(
        [classes_of(form.label_weights), np.unique(form.shifts, return_inverse=True)[1]]
    )
    by_label = p.T.tocsr()
    label_of, first_label = _equal_rows(by_label, keys)
    counts = np.bincount(label_of)
    label_weights, shifts, constant = form.label_weights, form.shifts, 0.0
    if len(first_label) < len(label_of):
        # A merged label has the probability of all.
        p = by_label[first_label].T.tocsr()
        p.sort_indices()
        p.data = p.data * counts[p.indices]
        logs = np.log(counts)
        label_weights = form.label_weights[first_label] * counts
        shifts = form.shifts[first_label] + logs
        constant = float(weights @ (p @ logs))
    small = ContextForm(
        p,
        weights,
        feature_weights,
        form.decay,
        label_weights,
        shifts,
        form.bias,
        form.bias_decay,
    )
    return Merged(small, context_of, label_of, constant)


def classes_of(numbers: Array) -> NDArray[np.intp]:
    """Give positive numbers that are equal but for rounding one number, whole and from 0."""
    order = np.argsort(numbers, kind="stable")
    ascending = numbers[order]
    apart = np.diff(ascending) > EQUAL_CURVATURE * ascending[:-1]
    classes = np.empty(len(numbers), dtype=np.intp)
    classes[order] = np.concatenate([[0], np.cumsum(apart)])
    return classes


def _equal_rows(
    matrix: csr_array, keys: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which rows are equal, in their entries and keys: a number a row, and first rows.

    Numbers go by first appearance. Rows are told apart by two random sums of their bits (modulo
    2^64), and those that agree are compared.
    """
    rows, columns = matrix.shape
    random = np.random.default_rng(0)
    bits = np.ascontiguousarray(matrix.data).view(np.uint64)
    sums = []
    for _ in range(2):
        factors = random.integers(1, 2**63, size=columns, dtype=np.uint64) * 2 + 1
        mixed = (bits ^ (bits >> np.uint64(29))) * factors[matrix.indices]
        mixed ^= mixed >> np.uint64(32)
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
        sums.append(total[matrix.indptr[1:]] - total[matrix.indptr[:-1]])
    every = np.stack([*sums, *keys.astype(np.uint64)])
    _, first, number = np.unique(every, axis=1, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    order = np.argsort(first)
    rank[order] = np.arange(len(first))
    number, first = rank[number.ravel()], first[order]
    if len(first) < rows:
        twins = np.flatnonzero(first[number] != np.arange(rows))
        difference = matrix[twins] - matrix[first[number[twins]]]
        if difference.count_nonzero():
            return np.arange(rows), np.arange(rows)  # never seen: the sums met by chance
    return number, first
