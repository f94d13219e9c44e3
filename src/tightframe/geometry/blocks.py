"""Block matrices: K x K matrices that treat classes of a group alike, in compact form.

A matrix ``B`` (logits, probabilities, residuals) is invariant under permuting the classes inside
each group of a `Partition` iff, for samples of group i, all classes of another group j share one
entry, all siblings share one entry, and the own class has one entry. Two small arrays hold that:
``within[i]`` = own minus sibling entry, ``mean[j, i]`` = mean entry over the classes of group j.
Singular values split the same way (docs/theory.md section 3), so the cost depends on the number of
groups, never on K. With every class its own group the form holds any K x K matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import require_dense
from tightframe.problem.problem import Problem, require_no_targets
from tightframe.rounding import FUNCTION, UNIT, gamma, svd_error
from tightframe.saved import kept
from tightframe.shown import record

Array = NDArray[np.float64]

#: Singular values below this share of the largest count as zero.
RANK_TOLERANCE = 1e-10

#: Up to so many groups the singular values of one matrix cost less than bounds of them.
SMALL = 32


@kept
class Labels(NamedTuple):
    """Labels that are not one-hot, and margins: of each group, shape (G,).

    A class's samples have the label distribution ``(1 - smoothing) e_own + smoothing spread``, and
    the loss sees their own logit less the margin.

    Attributes
    ----------
    smoothing : ndarray
        What is taken off the own label.
    spread : ndarray
        Where it goes: the share of one class of each group; over all classes it sums to one.
    margins : ndarray
    """

    smoothing: Array
    spread: Array
    margins: Array


#: Of a `Partition`, beside what it works out when asked.
_ATTRIBUTES = (
    *("samples", "counts", "sizes", "num_samples", "weights", "adjustment", "labels", "scales"),
    *("is_scaled", "has_feature_weights"),
)


@kept
@record
class Partition:
    """Classes split into groups whose members are interchangeable: of equal count, mostly.

    Parameters
    ----------
    counts : array_like, shape (G,)
        Samples in each class of a group.
    sizes : array_like, shape (G,)
        Classes in each group.
    class_groups : callable
        Returns the group index of every class, shape (K,); called only when a dense array is asked
        for, so that a million classes cost nothing before.
    weights, adjustment, scales : array_like, shape (G,), optional
        Factors of the loss, logit adjustment and factor of the logits inside the loss, of each
        group; ones and zeros by default.
    labels : Labels, optional
        None for one-hot labels without margins.
    feature_weights : array_like, shape (G,), optional
        Factor of a squared class mean in the decay cost; the counts by default. Others are the same
        as other counts: a problem with counts n, weights w and feature weights o is the one
        with counts o and weights ``(w n / N) / (o / O)``, where N and O are the sums of n and o
        over the classes. The attributes ``counts``, ``num_samples`` and ``weights`` are then those.

    Attributes
    ----------
    samples : ndarray, shape (G,)
        Counts as they were given.
    """

    def __init__(
        self,
        counts: Array,
        sizes: Array,
        class_groups: Callable[[], NDArray[np.intp]],
        weights: Array | None = None,
        adjustment: Array | None = None,
        labels: Labels | None = None,
        scales: Array | None = None,
        feature_weights: Array | None = None,
    ) -> None:
        self.samples = self.counts = np.asarray(counts, dtype=np.float64)
        self.sizes = np.asarray(sizes, dtype=np.float64)
        self.num_samples = float(self.counts @ self.sizes)
        self._class_groups = class_groups
        self.weights = np.ones_like(self.counts) if weights is None else weights
        self.adjustment = np.zeros_like(self.counts) if adjustment is None else adjustment
        self.labels = labels
        self.scales = np.ones_like(self.counts) if scales is None else scales
        self.is_scaled = bool((self.scales != 1).any())
        self.has_feature_weights = feature_weights is not None
        if feature_weights is not None:
            self.counts = np.asarray(feature_weights, dtype=np.float64)
            total = float(self.counts @ self.sizes)
            self.weights = self.weights * self.samples * total / (self.num_samples * self.counts)
            self.num_samples = total

    def _packed(self) -> dict[str, Any]:
        """Return the attributes, with the group of every class in place of what tells it."""
        known = {name: value for name, value in vars(self).items() if name in _ATTRIBUTES}
        return known | {"class_groups": self.class_groups}

    @classmethod
    def _unpacked(cls, fields: Mapping[str, Any]) -> Partition:
        made = cls.__new__(cls)
        vars(made).update({name: fields[name] for name in _ATTRIBUTES})
        made._class_groups = partial(np.asarray, fields["class_groups"])
        return made

    @classmethod
    def coarsest(cls, problem: Problem) -> Partition:
        """Return the partition of a problem into its groups."""
        require_no_targets(problem, "a block form")
        counts, sizes = np.array(problem.groups, dtype=np.float64).T
        class_groups = partial(getattr, problem, "class_groups")
        weights, labels = _labels(problem, problem.group_weights, problem.group_margins, sizes)
        return cls(
            counts,
            sizes,
            class_groups,
            weights,
            problem.group_adjustment,
            labels,
            problem.group_scales if problem.scale_runs else None,
            problem.group_feature_weights if problem.feature_runs else None,
        )

    @classmethod
    def singletons(cls, problem: Problem) -> Partition:
        """Return the partition in which every class stands alone: no symmetry is used."""
        require_no_targets(problem, "a block form")
        k = problem.num_classes
        require_dense(k, "counts")
        counts, sizes = problem.counts.astype(np.float64), np.ones(k)
        weights, labels = _labels(problem, problem.class_weights, problem.class_margins, sizes)
        return cls(
            counts,
            sizes,
            partial(np.arange, k),
            weights,
            problem.logit_adjustment,
            labels,
            problem.logit_scale if problem.scale_runs else None,
            problem.feature_weights if problem.feature_runs else None,
        )

    def matrix(self, within: Array, mean: Array) -> BlockMatrix:
        """Return the block matrix with these entries."""
        return BlockMatrix(self, within, mean)

    @property
    def num_groups(self) -> int:
        """Number of groups G."""
        return len(self.counts)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return int(self.sizes.sum())

    @cached_property
    def class_groups(self) -> NDArray[np.intp]:
        """Group index of every class, shape (K,)."""
        return self._class_groups()

    @cached_property
    def shares(self) -> Array:
        """Share of all samples that lie in each group, ``k_i n_i / N``, shape (G,)."""
        return self.counts * self.sizes / self.num_samples

    @cached_property
    def loss_shares(self) -> Array:
        """Factor of each group's loss in the mean: its share times its weight, shape (G,)."""
        return self.shares * self.weights

    @cached_property
    def pull(self) -> Array:
        """``weight scale (1 - smoothing) sqrt(count)``, shape (G,).

        Classes of a group without a margin merge iff this is at most ``N lambda``.
        """
        pull = self._root_pull
        return pull if self.labels is None else pull * (1 - self.labels.smoothing)

    @cached_property
    def _root_pull(self) -> Array:
        pull: Array = self.weights * np.sqrt(self.counts)
        return pull * self.scales if self.is_scaled else pull

    @cached_property
    def ignored(self) -> Array:
        """What a softmax does not see, on group indicators, of length one, shape (G,).

        A constant in all logits, or where they are scaled multiples of ``1 / scale``.
        """
        if not self.is_scaled:
            ones: Array = np.sqrt(self.sizes / self.sizes.sum())
            return ones
        inverse = np.sqrt(self.sizes) / self.scales
        unit: Array = inverse / np.linalg.norm(inverse)
        return unit

    @cached_property
    def pull_range(self) -> tuple[Array, Array]:
        """The least and the most that pulls siblings apart, whatever the other logits.

        With a margin it depends on what the siblings' probability is where they merge: at most what
        it is where no other class has any.
        """
        if self.labels is None or not self.labels.margins.any():
            return self.pull, self.pull
        margins = np.abs(self.labels.margins)
        rest = np.maximum(self.sizes - 1, 0)
        more = -np.expm1(-margins) / (rest + np.exp(-margins))  # a margin above zero adds this
        less = -np.expm1(-margins) / (1 + rest * np.exp(-margins))  # one below takes this
        root = self._root_pull
        return (
            self.pull - np.where(self.labels.margins < 0, root * less, 0.0),
            self.pull + np.where(self.labels.margins > 0, root * more, 0.0),
        )

    @cached_property
    def scale(self) -> Array:
        """``sqrt(k_j k_i n_i)``: turns group means into the reduced G x G matrix."""
        root = np.sqrt(self.sizes)
        return np.outer(root, root * np.sqrt(self.counts))


def class_labels(problem: Problem) -> tuple[Array, Labels | None]:
    """Return factors of the losses and labels with one number a class, however many there are."""
    ones = np.ones(problem.num_classes)
    return _labels(problem, problem.class_weights, problem.class_margins, ones)


def _labels(
    problem: Problem, weights: Array, margins: Array, sizes: Array
) -> tuple[Array, Labels | None]:
    """Return the factors of the losses and the labels; weights and margins one a group."""
    smoothing = problem.label_smoothing
    if not smoothing and not problem.margin_runs:
        return weights, None
    total = sizes.sum()
    if problem.smoothing_weights == "own":
        even = np.full_like(weights, 1 / total)
        return weights, Labels(np.full_like(weights, smoothing), even, margins)
    # (1 - e) w_own e_own + (e / K) sum_j w_j e_j, as a factor times a distribution.
    mean = float(weights @ sizes / total)
    factors = (1 - smoothing) * weights + smoothing * mean
    return factors, Labels(smoothing * mean / factors, weights / (total * mean), margins)


@kept
@record
@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """A K x K matrix B in block form; column k belongs to the samples of class k.

    Leading axes of both arrays are a batch, for `reduced`, `decomposition`, `spectrum`,
    `column_norms`, `norm_bound` and `row_average`.

    Attributes
    ----------
    partition : Partition
    within : ndarray, shape (G,)
        Own entry minus sibling entry; 0 for groups of one class.
    mean : ndarray, shape (G, G)
        ``mean[j, i]``: mean over the classes of group j for a sample of group i.
    """

    partition: Partition
    within: Array
    mean: Array

    @classmethod
    def from_dense(cls, problem: Problem, matrix: Array) -> BlockMatrix:
        """Hold any K x K matrix, every class its own group."""
        partition = Partition.singletons(problem)
        return cls(partition, np.zeros(partition.num_groups), np.array(matrix, dtype=np.float64))

    @classmethod
    def averaged(cls, partition: Partition, matrix: Array) -> BlockMatrix:
        """Return the average of a K x K matrix over all permutations of classes inside groups."""
        p, groups = partition, np.arange(partition.num_groups)
        share = (groups[:, None] == p.class_groups) / p.sizes[:, None]
        own, mean = share @ np.diagonal(matrix), share @ matrix @ share.T
        # The mean over a group's block holds own and sibling entries.
        many = np.where(p.sizes > 1, p.sizes, 2)
        within = np.where(p.sizes > 1, (own - np.diagonal(mean)) * many / (many - 1), 0.0)
        return cls(p, within, mean)

    @classmethod
    def from_svd(
        cls, partition: Partition, within: Array, left: Array, values: Array, right: Array
    ) -> BlockMatrix:
        """Build from the `decomposition` of `reduced`; zero singular values may be left out."""
        blocks = cls(partition, within, (left * values[..., None, :]) @ right / partition.scale)
        blocks.__dict__["decomposition"] = left, values, right  # the cached property
        return blocks

    def to_dense(self) -> Array:
        """Return the K x K matrix, or raise ValueError where it would be too large."""
        p = self.partition
        require_dense(p.num_classes, "logits")
        index = p.class_groups
        dense: Array = (self.mean - np.diag(self.within / p.sizes))[np.ix_(index, index)]
        dense[np.diag_indices_from(dense)] += self.within[index]
        return dense

    @property
    def reduced(self) -> Array:
        """The G x G matrix with the singular values of ``B D^{1/2}`` on group indicators."""
        return self.mean * self.partition.scale

    @cached_property
    def decomposition(self) -> tuple[Array, Array, Array]:
        """Left vectors, values and right vectors of `reduced`, see `svd`."""
        return svd(self.reduced)

    @cached_property
    def spectrum(self) -> tuple[Array, Array]:
        """Singular values of ``B D^{1/2}`` and how often each occurs (two arrays)."""
        p = self.partition
        many = p.sizes > 1
        reduced = without_rounding(self.decomposition[1])
        within = np.sqrt(p.counts[many]) * np.abs(self.within[..., many])
        values = np.concatenate([reduced, within], axis=-1)
        return values, np.concatenate([np.ones(reduced.shape[-1]), p.sizes[many] - 1])

    @cached_property
    def column_norms(self) -> Array:
        """Length of a column of ``B D^{1/2}`` for a class of each group, shape (G,)."""
        p = self.partition
        squares = p.sizes @ self.mean**2 + self.within**2 * (p.sizes - 1) / p.sizes
        return np.sqrt(p.counts * squares)

    @property
    def operator_norm(self) -> float:
        """Largest singular value of ``B D^{1/2}``."""
        return float(self.spectrum[0].max())

    @property
    def norm_bound(self) -> Array:
        """Upper bound of `operator_norm`, rounding included, of a batch too.

        It holds as well for matrices whose entries differ from these by a few roundings, those on
        the diagonal (``within`` and the diagonal of ``mean``) by as many as there are groups.
        """
        p, g = self.partition, self.partition.num_groups
        reduced = self.reduced
        size = np.abs(reduced).max(axis=(-2, -1), keepdims=True)
        matrix = reduced / np.maximum(size, np.finfo(float).tiny)
        del reduced  # of large matrices, few at a time
        length = np.sqrt(np.square(matrix).sum(axis=(-2, -1)))
        if g <= SMALL and matrix.ndim == 2:
            norm = singular_values(matrix)[0] + (svd_error(g) + gamma(g + 16)) * length
        else:
            norm = _norm_bound(matrix, length)
        within = (np.sqrt(p.counts) * np.abs(self.within) * (p.sizes > 1)).max(axis=-1)
        bound: Array = np.maximum(
            size[..., 0, 0] * norm * (1 + gamma(4 * FUNCTION)), within * (1 + gamma(g + 12))
        )
        return bound

    @property
    def rank(self) -> int:
        """Number of singular values above `RANK_TOLERANCE` times the largest."""
        values, times = self.spectrum
        return int(times[values > RANK_TOLERANCE * values.max()].sum())

    @property
    def row_average(self) -> Array:
        """``B n / N`` for a class of each group, shape (G,): the sample-weighted row average."""
        return self.mean @ self.partition.shares

    def __mul__(self, factor: float | Array) -> BlockMatrix:
        """Return the matrix times a number, a batch times one number each."""
        each = np.asarray(factor)[..., None]
        return BlockMatrix(self.partition, self.within * each, self.mean * each[..., None])


def svd(matrices: NDArray[Any]) -> tuple[Array, Array, Array]:
    """Return left vectors, values and right vectors of a square matrix, or of a batch of them.

    Raises
    ------
    numpy.linalg.LinAlgError
        If an entry is not finite.
    """
    try:
        return np.linalg.svd(matrices)
    except np.linalg.LinAlgError:
        if not np.isfinite(matrices).all():
            raise
    # LAPACK's fast driver fails on some graded matrices.
    from scipy.linalg import svd as svd_of_one

    shape = matrices.shape
    parts = [
        svd_of_one(matrix, lapack_driver="gesvd") for matrix in matrices.reshape(-1, *shape[-2:])
    ]
    left, values, right = (np.array(part) for part in zip(*parts, strict=True))
    return left.reshape(shape), values.reshape(shape[:-1]), right.reshape(shape)


def singular_values(matrices: NDArray[Any]) -> Array:
    """Return the singular values of a square matrix, or a batch, largest first; raises as `svd`."""
    try:
        values: Array = np.linalg.svd(matrices, compute_uv=False)
    except np.linalg.LinAlgError:
        values = svd(matrices)[1]
    return values


def _norm_bound(matrices: Array, lengths: Array) -> Array:
    """Bound the largest singular values of a batch, see `BlockMatrix.norm_bound`."""
    g = matrices.shape[-1]
    diagonal = range(g), range(g)
    entries = np.abs(matrices)
    # Of the matrix of absolute values, which rounding of entries and products goes by.
    absolute = entries.sum(axis=-1).max(axis=-1) * entries.sum(axis=-2).max(axis=-1)
    absolute = np.minimum(absolute, lengths**2)
    on_diagonal = entries[..., *diagonal].max(axis=-1)
    del entries
    gram = matrices.swapaxes(-1, -2) @ matrices
    norms = np.sqrt(np.abs(gram).sum(axis=-1).max(axis=-1) + gamma(g + 8) * absolute)
    # Where singular values differ, the row sums of the Gram matrix say too little.
    least = np.sqrt(gram[..., *diagonal].max(axis=-1))
    loose = np.asarray(norms > least * (1 + gamma(32 * (g + 8))))
    if loose.any():
        exact = np.full(loose.shape, np.inf)
        exact[loose] = singular_values(matrices[loose])[..., 0]
        norms = np.minimum(norms, exact + svd_error(g) * lengths)
    bounds: Array = norms + 8 * UNIT * np.sqrt(absolute) + gamma(g + 8) * on_diagonal
    return bounds


def without_rounding(singular_values: NDArray[Any]) -> Array:
    """Return singular values with those zeroed that are rounding: at most eps n times the largest.

    Factors carry roots of singular values, and a root makes 1e-16 into 1e-8.
    """
    largest = singular_values.max(axis=-1, keepdims=True)
    limit = np.finfo(float).eps * singular_values.shape[-1] * largest
    return np.where(singular_values <= limit, 0.0, singular_values)  # NaN stays NaN
