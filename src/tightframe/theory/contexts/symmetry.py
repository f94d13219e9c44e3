"""Exact symmetry of contexts: labels that may be exchanged, and the smaller problem they leave.

Two labels are exchangeable where swapping their probabilities maps the set of contexts, with their
weights, to itself. That is an equivalence, and all permutations inside its groups are symmetries of
the problem, whose minimiser can be averaged over them: contexts in one orbit have the same logits
but for the permutation, and a context has equal logits for the labels of a group that it treats
alike, its *cells*. On functions of the labels the symmetries act by one constant a group and, in
the rest of a group of k, irreducibly: so X falls apart into the matrix between orbits and groups,
and one block a group whose k - 1 singular values are all the length of what a context's logits
deviate inside the group, over ``sqrt(k - 1)``:

    ||X||_* = ||T||_* + sum_g sqrt(k_g - 1) |D_g|.

The blocks of `Partition` are the case of one orbit a group; all pairs of labels, mixup between
classes, noise that is even over groups are others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.theory.contexts.form import Array, ContextForm, Factors, classes_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Ints = NDArray[np.intp]
Hashes = NDArray[np.uint64]

#: A reduced problem is used where its entries are at most this share of the whole's.
PAYS = 0.5

#: How often labels are told apart by their contexts and contexts by their labels.
REFINEMENTS = 3

#: Passes in which labels that look alike are compared; where more would be needed, they stay apart.
PASSES = 6

#: Added inside the loss to the logit of a cell that a context does not have.
ABSENT = -1e4


@dataclass(frozen=True, eq=False, kw_only=True)
class SymmetricForm(ContextForm):
    """A problem reduced by its symmetry: a row an orbit of contexts, a column a cell of labels.

    As `ContextForm`, where ``label_weights``, ``shifts`` and ``marginal`` are of the groups of
    labels together, ``weights`` and ``feature_weights`` of the contexts of an orbit together.

    Attributes
    ----------
    group_of : ndarray of int, shape (C,)
        Group of every cell, ascending.
    group_sizes : ndarray of int, shape (G,)
        Labels of every group.
    cell_sizes : ndarray, shape (m, C)
        Labels of every context's cells; 0 where it has fewer cells than others.
    """

    group_of: Ints
    group_sizes: Ints
    cell_sizes: Array

    @cached_property
    def share_root(self) -> Array:
        """Root of a cell's share of its group: its entry in the group's unit vector; (m, C)."""
        root: Array = np.sqrt(self.cell_sizes / self.group_sizes[self.group_of])
        return root

    @cached_property
    def first_cells(self) -> Ints:
        """First column of every group, shape (G,)."""
        first: Ints = np.searchsorted(self.group_of, np.arange(len(self.group_sizes)))
        return first

    @cached_property
    def within_costs(self) -> Array:
        """``sqrt(k - 1)``, what a group's deviations cost per length; shape (G,)."""
        cost: Array = np.sqrt(self.group_sizes - 1.0)
        return cost

    @cached_property
    def marginal(self) -> Array:
        """Every group's share of the loss, shape (G,)."""
        return self.grouped(np.asarray(self.targets.T @ self.weights))

    @cached_property
    def _scales(self) -> Array:
        with np.errstate(divide="ignore"):
            scale = self.label_scale[self.group_of] / self.share_root
        return np.where(self.cell_sizes > 0, scale, 0.0)

    @cached_property
    def _spread(self) -> Array:
        """Logarithm of a cell's share of its group, 0 where there is none."""
        return 2 * np.log(np.where(self.cell_sizes > 0, self.share_root, 1.0))

    def scale_at(self, rows: slice) -> Array:
        """Return logits per entry of X, a row a context."""
        return self._scales[rows]

    def shifts_at(self, rows: slice) -> Array:
        """Return what is added to logits inside the loss, a cell's share of its group too."""
        shifts = self.shifts[self.group_of] + self._spread[rows]
        return np.where(self.cell_sizes[rows] > 0, shifts, ABSENT)

    def roots_at(self, rows: slice) -> Array:
        """Return roots of the cells' weights."""
        return np.sqrt(self.label_weights)[self.group_of] * self.share_root[rows]

    def axis_at(self, rows: slice) -> Array:
        """Return the unit vector along which the loss ignores X."""
        return self.label_axis[self.group_of] * self.share_root[rows]

    def grouped(self, cells: Array) -> Array:
        """Add up the cells of every group, along the last axis."""
        return np.add.reduceat(cells, self.first_cells, axis=-1)

    def in_cells(self, groups: Array) -> Array:
        """Repeat what is of groups for their cells."""
        return groups[self.group_of]

    def shared(self, groups: Array, rows: slice) -> Array:
        """Spread what is of groups by the sizes of their cells."""
        shares: Array = groups[self.group_of] * self.share_root[rows] ** 2
        return shares

    def lifted(self, between: NDArray[np.floating], rows: slice = slice(None)) -> NDArray[Any]:
        """Return X, or some rows, from the matrix between orbits and groups."""
        lifted: NDArray[Any] = between[:, self.group_of] * self.share_root[rows].astype(
            between.dtype
        )
        return lifted

    def between(self, matrix: NDArray[np.floating]) -> NDArray[Any]:
        """Return the matrix between orbits and groups."""
        between: NDArray[Any] = np.add.reduceat(
            matrix * self.share_root.astype(matrix.dtype), self.first_cells, axis=1
        )
        return between

    def within(self, matrix: NDArray[np.floating]) -> tuple[NDArray[Any], Array]:
        """Return what deviates inside groups, and its length for every group."""
        deviations = matrix - self.lifted(self.between(matrix))
        squares = np.square(deviations, dtype=np.float64).sum(axis=0)
        lengths = np.sqrt(self.grouped(squares))
        return deviations, np.where(self.group_sizes > 1, lengths, 0.0)

    def spread_gain(self, q: Array, rows: slice) -> tuple[float, float]:
        """Return what the cells' sizes add to a dual value, and the size of its terms."""
        moved = q.copy()
        self.add_targets(moved, rows, -1.0)
        moved *= self._spread[rows]
        a = self.weights[rows]
        return float(a @ moved.sum(axis=1)), float(a @ np.abs(moved).sum(axis=1))


@dataclass(frozen=True, eq=False)
class CellFactors:
    """X of a `SymmetricForm`: the matrix between groups in factors, and deviations inside them.

    Attributes
    ----------
    form : SymmetricForm
    factors : Factors
    deviations : ndarray, shape (m, C)
    """

    form: SymmetricForm
    factors: Factors
    deviations: Array

    @cached_property
    def lengths(self) -> Array:
        """Length of every group's deviations, shape (G,)."""
        squares = np.square(self.deviations).sum(axis=0)
        return np.sqrt(self.form.grouped(squares))

    @property
    def norm(self) -> float:
        """Nuclear norm of X."""
        return self.factors.norm + float(self.lengths @ self.form.within_costs)

    @property
    def rank(self) -> int:
        """Rank of X."""
        return self.factors.rank + int((self.form.group_sizes - 1) @ (self.lengths > 0))

    def rows(self, rows: slice) -> Array:
        """Return some rows of X, as cells."""
        return self.form.lifted(self.factors.rows(rows), rows) + self.deviations[rows]


@dataclass(frozen=True, eq=False)
class Symmetry:
    """The reduced form, and how labels and contexts of the whole lie in it.

    Attributes
    ----------
    form : SymmetricForm
        Its minimum is that of the whole less ``constant``.
    label_group : ndarray of int, shape (V,)
    context_orbit : ndarray of int, shape (m,)
    cells : csr_array, shape (m, V)
        Of labels that a context has: their cell's column, plus one.
    constant : float
    """

    form: SymmetricForm
    label_group: Ints
    context_orbit: Ints
    cells: csr_array
    constant: float

    def expanded(self, x: CellFactors) -> Factors:
        """Return X of the whole problem, in factors."""
        from scipy.sparse import csr_array

        form, k = self.form, self.form.group_sizes
        orbits = np.bincount(self.context_orbit)
        root = np.sqrt(orbits[:, None] * form.cell_sizes)
        each = x.deviations / np.where(root > 0, root, 1.0)  # what a label's entry deviates
        at = np.repeat(np.arange(len(self.context_orbit)), np.diff(self.cells.indptr))
        orbit, group = self.context_orbit[at], self.label_group[self.cells.indices]
        # From the rest of the group, and from any number where there is none: constants drop out.
        change = each[orbit, self.cells.data - 1] - each[orbit, form.first_cells[group]]
        by_context = csr_array((change, self.cells.indices, self.cells.indptr), self.cells.shape)
        changes = by_context.tocsc()
        between = x.factors.rank
        left = np.zeros((len(self.context_orbit), x.rank))
        right = np.zeros((len(self.label_group), x.rank))
        left[:, :between] = (x.factors.left / np.sqrt(orbits)[:, None])[self.context_orbit]
        right[:, :between] = (x.factors.right / np.sqrt(k)[:, None])[self.label_group]
        values, start = [x.factors.values], between
        for g in np.flatnonzero(x.lengths > 0):
            members = np.flatnonzero(self.label_group == g)
            basis, stop = _helmert(k[g]), start + k[g] - 1
            value = x.lengths[g] / form.within_costs[g]
            left[:, start:stop] = changes[:, members] @ (basis / value)
            right[members, start:stop] = basis
            values.append(np.full(k[g] - 1, value))
            start = stop
        return Factors(left, np.concatenate(values), right)


def _helmert(k: int) -> Array:
    """Return an orthonormal basis of what sums to zero, shape (k, k - 1)."""
    i = np.arange(1, k)
    basis = np.where(np.arange(k)[:, None] < i, 1 / np.sqrt(i * (i + 1.0)), 0.0)
    basis[i, i - 1] = -np.sqrt(i / (i + 1.0))
    return basis


def symmetry(form: ContextForm) -> Symmetry | None:
    """Find exchangeable labels; None where that makes the problem hardly smaller.

    Numbers are equal where they are but for rounding; labels and contexts are told apart by two
    random numbers of 64 bits each.
    """
    numbers = _Numbers.of(form)
    group = numbers.groups()
    if group.max() + 1 == len(group):
        return None
    return _reduced(form, group, numbers.context, numbers.at, numbers.value)


def exchangeable_groups(form: ContextForm) -> Ints:
    """Return a number for every label, equal for those that may be exchanged; shape (V,)."""
    return _Numbers.of(form).groups()


class _Numbers(NamedTuple):
    """Weights and probabilities as numbers, equal where they are but for rounding.

    Attributes
    ----------
    label, context : ndarray of int, shapes (V,) and (m,)
    labels, at, value : ndarray of int, shape (E,)
        Label, context and probability of every entry of the targets.
    shape : tuple of int
        Contexts and labels.
    """

    label: Ints
    context: Ints
    labels: Ints
    at: Ints
    value: Ints
    shape: tuple[int, int]

    @classmethod
    def of(cls, form: ContextForm) -> _Numbers:
        """Give what a form has its numbers."""
        p = form.targets
        shift = np.unique(form.shifts, return_inverse=True)[1]
        return cls(
            _pairs(classes_of(form.label_weights), shift),
            _pairs(classes_of(form.weights), classes_of(form.feature_weights)),
            p.indices.astype(np.intp),
            np.repeat(np.arange(p.shape[0]), np.diff(p.indptr)),
            classes_of(p.data) + 1,
            form.shape,
        )

    def groups(self) -> Ints:
        """Return groups of exchangeable labels."""
        alike = _alike(*self)
        if alike.max() + 1 == len(alike):
            return alike
        return _exchangeable(alike, *self[1:])


def _mixed(*numbers: Ints | Hashes | int) -> Hashes:
    """Return random numbers of 64 bits that the given ones determine, in two rows."""
    results: list[Hashes] = []
    for seed in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F):
        mixed: Hashes = np.full(1, seed, dtype=np.uint64)
        for number in numbers:
            part = np.asarray(number).astype(np.uint64)
            if part.ndim == 2:  # mixed before
                part = part[len(results)]
            mixed = (mixed ^ part) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(32))
        results.append(mixed)
    return np.array(results)


def _sums(hashes: Hashes, at: Ints, size: int) -> Hashes:
    """Add what belongs together, modulo 2^64."""
    sums = np.zeros((2, size), dtype=np.uint64)
    for row, part in zip(sums, hashes, strict=True):
        np.add.at(row, at, part)
    return sums


def _pairs(first: Ints, second: Ints) -> Ints:
    """Return a number for every pair of numbers."""
    return np.unique(first * (second.max() + 1) + second, return_inverse=True)[1]


def _numbered(hashes: Hashes) -> Ints:
    """Return a number for every column, by what it is."""
    return np.unique(hashes, axis=1, return_inverse=True)[1].ravel()


def _alike(
    label: Ints, context: Ints, labels: Ints, contexts: Ints, value: Ints, shape: tuple[int, int]
) -> Ints:
    """Tell labels apart by what their contexts look like; exchangeable ones get one number."""
    m, v = shape
    seen_label, seen_context = _mixed(label), _mixed(context)
    for _ in range(REFINEMENTS):
        own = _sums(_mixed(value, seen_context[:, contexts]), labels, v)
        seen_label = _mixed(seen_label, own)
        numbers = _numbered(seen_label)
        if numbers.max() + 1 == v:
            break
        own = _sums(_mixed(value, seen_label[:, labels]), contexts, m)
        seen_context = _mixed(seen_context, own)
    return numbers


def _exchangeable(
    alike: Ints, context: Ints, labels: Ints, contexts: Ints, value: Ints, shape: tuple[int, int]
) -> Ints:
    """Return groups of exchangeable labels, by swapping two of those that look alike at a time."""
    m, v = shape
    entry = _mixed(labels, value)
    whole = _mixed(context) + _sums(entry, contexts, m)
    order = np.lexsort((contexts, labels))
    rows, columns, values = labels[order], contexts[order], value[order]
    keys = rows.astype(np.int64) * m + columns
    starts = np.searchsorted(rows, np.arange(v + 1))

    def may_swap(one: Ints, other: Ints) -> NDArray[np.bool_]:
        before = np.zeros((2, len(one)), dtype=np.uint64)
        after = np.zeros_like(before)
        for first, second, is_other in ((one, other, False), (other, one, True)):
            lengths = starts[first + 1] - starts[first]
            pair = np.repeat(np.arange(len(first)), lengths)
            offset = np.arange(len(pair)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            place = starts[first][pair] + offset
            x, column = values[place], columns[place]
            key = second[pair].astype(np.int64) * m + column
            found = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            y = np.where(keys[found] == key, values[found], 0)
            kept = (y == 0) if is_other else (x != y)  # contexts with both count once
            pair, x, y, column = pair[kept], x[kept], y[kept], column[kept]
            i, j = first[pair], second[pair]
            gone = _mixed(i, x) + np.where(y > 0, _mixed(j, y), np.uint64(0))
            come = _mixed(j, x) + np.where(y > 0, _mixed(i, y), np.uint64(0))
            now = whole[:, column]
            before += _sums(_mixed(now), pair, len(one))
            after += _sums(_mixed(now - gone + come), pair, len(one))
        same: NDArray[np.bool_] = (before == after).all(axis=0)
        return same

    head = np.arange(v)  # of every label's group, as far as it is known
    for _ in range(PASSES):
        heads = np.flatnonzero(head == np.arange(v))
        heads = heads[np.argsort(alike[heads], kind="stable")]
        apart = np.r_[True, alike[heads[1:]] != alike[heads[:-1]]]
        first = heads[apart][np.cumsum(apart) - 1]
        one, other = first[~apart], heads[~apart]
        if not len(one):
            break
        good = may_swap(one, other)
        head[other[good]] = one[good]
        head = head[head]
        # What cannot be swapped with the first that looks like it is looked at without that.
        alike = _pairs(alike, np.isin(np.arange(v), other[~good]).astype(np.intp))
    return np.unique(head, return_inverse=True)[1]


def _reduced(
    form: ContextForm, group: Ints, context: Ints, at: Ints, value: Ints
) -> Symmetry | None:
    from scipy.sparse import csr_array

    p = form.targets
    m, v = form.shape
    sizes = np.bincount(group)
    groups = len(sizes)
    own = group[p.indices]
    orbit = _numbered(_mixed(context, _sums(_mixed(own, value), at, m)))
    first = np.unique(orbit, return_index=True)[1]
    orbits = len(first)
    # Cells, in order of group and probability: equal ones of a context follow each other.
    order = np.lexsort((value, own, at))
    sorted_at, sorted_own, sorted_value = at[order], own[order], value[order]
    same_group = (np.diff(sorted_at) == 0) & (np.diff(sorted_own) == 0)
    new_cell = np.r_[True, ~same_group | (np.diff(sorted_value) != 0)]
    number = np.cumsum(new_cell)
    start = np.maximum.accumulate(np.where(np.r_[True, ~same_group], number, 0))
    slot = number - start + 1  # slot 0 is the rest
    most = np.zeros(groups, dtype=np.intp)
    np.maximum.at(most, sorted_own, slot)
    width = most + 1
    begin = np.cumsum(width) - width
    columns = int(width.sum())
    if orbits * columns > PAYS * m * v:
        return None
    cell = np.empty(len(at), dtype=np.intp)
    cell[order] = begin[sorted_own] + slot
    cells = csr_array((cell + 1, p.indices, p.indptr), shape=p.shape)
    represented = np.isin(at, first)
    row = orbit[at[represented]]
    flat = row * columns + cell[represented]
    held = np.bincount(flat, minlength=orbits * columns).reshape(orbits, columns)
    mass = np.bincount(flat, p.data[represented], orbits * columns).reshape(orbits, columns)
    group_of = np.repeat(np.arange(groups), width)
    held[:, begin] = sizes - np.add.reduceat(held, begin, axis=1)
    logs = np.log(np.maximum(held, 1))
    weights = np.bincount(orbit, form.weights)
    head = np.unique(group, return_index=True)[1]
    reduced = SymmetricForm(
        targets=csr_array(mass),
        weights=weights.astype(np.float64),
        feature_weights=np.bincount(orbit, form.feature_weights).astype(np.float64),
        decay=form.decay,
        label_weights=form.label_weights[head] * sizes,
        shifts=form.shifts[head] + np.log(sizes),
        bias=form.bias,
        bias_decay=form.bias_decay,
        group_of=group_of,
        group_sizes=sizes,
        cell_sizes=held.astype(np.float64),
    )
    constant = float(weights @ (mass * logs).sum(axis=1))
    return Symmetry(reduced, group, orbit, cells, constant)
