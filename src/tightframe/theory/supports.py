"""Which labels have which contexts, as far as the limit of vanishing decays tells them apart.

The max-margin problem (`tightframe.theory.max_margin`) knows of a context only its labels and its
feature weight. Contexts with the same labels have the same logits there, whatever their weights
are, and labels of the same contexts the same scaled logits: weighted means over either are
projections of X, and keep what is asked of the margins. So either are merged and their weights
added, which leaves the problem, not only its minimum, as it is (docs/theory.md section 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.problem.label_law import LabelLaw, Whole, require_entries
from tightframe.saved import kept


@kept
@dataclass(frozen=True, eq=False)
class Supports:
    """Merged labels (R) and merged contexts (C).

    ``X = y * roots`` is what the nuclear norm is of, y the scaled logits.

    Attributes
    ----------
    inside : ndarray of bool, shape (R, C)
        Whether a context has a label.
    row_weights, column_weights : ndarray, shapes (R,) and (C,)
        Sums over what was merged of ``1 / logit_scale^2`` and of the feature weights.
    rows, columns : ndarray of int, shapes (V,) and (m,)
        Where every label and context went; -1 for contexts whose logits are zero, those that have
        all labels, without a bias.
    free : bool
        Whether there is a free bias.
    """

    inside: NDArray[np.bool_]
    row_weights: Array
    column_weights: Array
    rows: Whole
    columns: Whole
    free: bool

    @classmethod
    def merged(cls, law: LabelLaw, logit_scale: Array, weights: Array, free: bool) -> Supports:
        """Merge the contexts of a law that have the same labels, then labels of the same contexts.

        Raises
        ------
        ValueError
            If the merged contexts are still too many to be written out.
        """
        full = law.sizes == law.num_labels
        columns = law.same_support.copy()
        if not free:
            columns[full] = -1
        kept, first, inverse = np.unique(columns, return_index=True, return_inverse=True)
        if kept[0] < 0:
            columns, first = inverse - 1, first[1:]
        else:
            columns = inverse
        require_entries(law.num_labels, len(first))
        inside = np.zeros((law.num_labels, len(first)), dtype=bool)
        for column, context in enumerate(first.tolist()):
            inside[law.labels[law.starts[context] : law.starts[context + 1]], column] = True
        kinds, rows = _equal_rows(inside)
        kept_columns = columns >= 0
        return cls(
            inside[kinds],
            _sums(rows, logit_scale**-2.0, len(kinds)),
            _sums(columns[kept_columns], weights[kept_columns], len(first)),
            rows,
            columns,
            free,
        )

    @cached_property
    def roots(self) -> Array:
        """Roots of the products of both weights, shape (R, C)."""
        return np.outer(np.sqrt(self.row_weights), np.sqrt(self.column_weights))

    @cached_property
    def _null(self) -> tuple[Array, Array]:
        rows, columns = np.sqrt(self.row_weights), np.sqrt(self.column_weights)
        return rows / np.linalg.norm(rows), columns / np.linalg.norm(columns)

    def centered(self, x: Array) -> Array:
        """Return X less what costs and does nothing: a shift of a context, with a bias the bias.

        Either is an orthogonal projection, which no unitarily invariant norm grows under.
        """
        left, right = self._null
        x = x - np.outer(left, left @ x)
        return x - np.outer(x @ right, right) if self.free else x

    @property
    def full_rank(self) -> int:
        """The largest rank that a centred X can have."""
        rows, columns = self.inside.shape
        return int(min(rows - 1, columns - self.free))

    @cached_property
    def support_matrix(self) -> Array:
        """The 0/1 matrix of the supports as an X, centred, shape (R, C)."""
        return self.centered(self.inside * self.roots)

    def grams(self, x: Array, logit_scale: Array) -> tuple[Array, Array]:
        """Return the Gram matrices of the cheapest factors W and H of an X: (V, V) and (m, m).

        They are scaled so that either has the trace that the other has, features weighted.
        """
        require_entries(len(self.columns), len(self.columns))
        left, values, right = np.linalg.svd(x, full_matrices=False)
        row_roots, column_roots = np.sqrt(self.row_weights), np.sqrt(self.column_weights)
        above = (left * values) @ left.T / np.outer(row_roots, row_roots)
        below = (right.T * values) @ right / np.outer(column_roots, column_roots)
        classifier = above[np.ix_(self.rows, self.rows)] / np.outer(logit_scale, logit_scale)
        below = np.pad(below, (0, 1))  # the last one is that of -1
        return classifier, below[np.ix_(self.columns, self.columns)]

    def written_out(self, x: Array, logit_scale: Array) -> Array:
        """Return the logits W h, before their scale, of an X: shape (V, m)."""
        require_entries(len(self.rows), len(self.columns))
        return self.part(x, logit_scale, np.arange(len(self.rows)), np.arange(len(self.columns)))

    def part(self, x: Array, logit_scale: Array, labels: Whole, contexts: Whole) -> Array:
        """Return those of some labels and contexts."""
        scaled = np.pad(x / self.roots, ((0, 0), (0, 1)))  # the last column is that of -1
        rows, columns = self.rows[labels], self.columns[contexts]
        return scaled[rows][:, columns] / logit_scale[labels][:, None]


def _sums(places: Whole, numbers: Array, size: int) -> Array:
    sums: Array = np.bincount(places, numbers, size).astype(np.float64)
    return sums


def _equal_rows(inside: NDArray[np.bool_]) -> tuple[Whole, Whole]:
    """Return one row of every kind, and the kind of every row."""
    if not inside.shape[1]:
        return np.zeros(1, dtype=np.intp), np.zeros(len(inside), dtype=np.intp)
    packed = np.packbits(inside, axis=1)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, kinds = np.unique(keys, return_index=True, return_inverse=True)
    return first, kinds
