"""Which labels of a form may be exchanged: some order of the contexts then leaves it as it is.

Exchanging two labels in all label distributions must give the same distributions again, with the
same weights in loss and decay cost, in another order. That is an equivalence: of the labels of a
set any permutation is such a symmetry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tightframe.theory.contexts.form import ContextForm, classes_of

#: Pairs of labels that are tried at most; labels that are left over count as alone.
MAX_PAIRS = 200_000

#: Rounds in which labels and contexts that look different are told apart before any pair is tried.
ROUNDS = 4

Hashes = NDArray[np.uint64]
Whole = NDArray[np.intp]


def exchangeable_labels(form: ContextForm) -> list[Whole]:
    """Return the sets of two or more labels any of which may be exchanged.

    Probabilities and weights are compared but for rounding, whole distributions by two random
    sums of 64 bits.

    Returns
    -------
    list of ndarray of int
        Ascending, by their first label; no label is in two of them.
    """
    table = _Table(form)
    looks = table.looks()
    order = np.argsort(looks, kind="stable")
    starts = np.flatnonzero(np.r_[True, looks[order][1:] != looks[order][:-1]])
    sets: list[list[int]] = []
    tried = 0
    for alike in np.split(order, starts[1:]):
        if len(alike) < 2:
            continue
        found: list[list[int]] = []
        for label in np.sort(alike).tolist():
            for own in found:
                if tried == MAX_PAIRS:
                    break
                tried += 1
                if table.may_exchange(own[0], label):
                    own.append(label)
                    break
            else:
                found.append([label])
        sets += [own for own in found if len(own) > 1]
    return [np.array(own, dtype=np.intp) for own in sorted(sets)]


class _Table:
    """The targets of a form by label, every probability as the number of those that equal it."""

    def __init__(self, form: ContextForm) -> None:
        self.form = form
        by_label = form.targets.T.tocsr()
        by_label.sort_indices()
        self.starts = by_label.indptr
        self.contexts = by_label.indices.astype(np.intp)
        self.labels = np.repeat(np.arange(by_label.shape[0]), np.diff(by_label.indptr))
        self.shares = classes_of(by_label.data).astype(np.uint64)
        weights = [classes_of(w).astype(np.uint64) for w in (form.weights, form.feature_weights)]
        self.own = _mixed(_mixed(weights[0]) + weights[1])
        random = np.random.default_rng(0)
        # Two sums a context, of what each of its entries gives.
        self.salts = random.integers(1, 2**63, size=(2, by_label.shape[0]), dtype=np.uint64)
        self.sums = np.stack(
            [self.own + _summed(self.contexts, self._given(i), form.shape[0]) for i in range(2)]
        )

    def _given(self, i: int) -> Hashes:
        return _mixed(self.salts[i, self.labels] ^ _mixed(self.shares))

    def looks(self) -> Hashes:
        """Return a number a label, equal for all that may be exchanged, and mostly for these only.

        Labels look different if their probabilities do, in contexts that look different.
        """
        m, v = self.form.shape
        shifts = np.unique(self.form.shifts, return_inverse=True)[1].astype(np.uint64)
        labels = _mixed(_mixed(classes_of(self.form.label_weights).astype(np.uint64)) + shifts)
        contexts = self.own
        for _ in range(ROUNDS):
            entries = _mixed(_mixed(self.shares) + contexts[self.contexts])
            new = _mixed(labels + _summed(self.labels, entries, v))
            entries = _mixed(_mixed(self.shares) + labels[self.labels])
            contexts = _mixed(contexts + _summed(self.contexts, entries, m))
            labels = new
        return labels

    def may_exchange(self, one: int, other: int) -> bool:
        """Tell whether exchanging two labels gives the same contexts in another order."""
        a = slice(self.starts[one], self.starts[one + 1])
        b = slice(self.starts[other], self.starts[other + 1])
        touched = np.union1d(self.contexts[a], self.contexts[b])
        change = np.zeros((2, len(touched)), dtype=np.uint64)
        for part, now, then in ((a, one, other), (b, other, one)):
            places = np.searchsorted(touched, self.contexts[part])
            shares = _mixed(self.shares[part])
            for i in range(2):
                salts = self.salts[i]
                moved = _mixed(salts[then] ^ shares) - _mixed(salts[now] ^ shares)
                np.add.at(change[i], places, moved)
        before = self.sums[:, touched]
        return np.array_equal(_sorted(before), _sorted(before + change))


def _mixed(numbers: Hashes) -> Hashes:
    """Scramble 64-bit numbers (the finaliser of splitmix64)."""
    x = numbers + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = x ^ (x >> np.uint64(31))
    return mixed


def _summed(places: Whole, entries: Hashes, size: int) -> Hashes:
    sums = np.zeros(size, dtype=np.uint64)
    np.add.at(sums, places, entries)
    return sums


def _sorted(pairs: Hashes) -> Hashes:
    found: Hashes = pairs[:, np.lexsort(pairs)]
    return found
