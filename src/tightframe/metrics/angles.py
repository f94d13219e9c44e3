"""Norms, angles and kernels of class means or classifier rows: equinorm, equiangular, uniform.

K x K work is tiled (`tightframe.metrics.tiles`): K = 50,000 needs no K x K array. Zero vectors have
no direction; they are left out of angles with a RuntimeWarning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tightframe.checks import choice, number_of, require_dense
from tightframe.data.batches import as_tensor
from tightframe.metrics.inputs import (
    Array,
    as_array,
    classifier,
    coefficient_of_variation,
    unit_vectors,
    usable,
    vectors_of,
    warn,
)
from tightframe.metrics.moments import WEIGHTINGS
from tightframe.metrics.plain import plain_tensors
from tightframe.metrics.readings import Readings
from tightframe.metrics.rows import Rows
from tightframe.metrics.tall import dense, select
from tightframe.metrics.tiles import (
    Spread,
    first_equal,
    pair_blocks,
    pair_distances,
    pair_values,
    square_distances,
)
from tightframe.shown import record

#: Kernels of `uniformity`.
KERNELS = ("log", "distance", "riesz")


@record
class CosineStatistics(NamedTuple):
    """Cosines between pairs of different vectors; see `cosine_statistics`.

    Attributes
    ----------
    mean, std, minimum, maximum : float
        Over the pairs; the standard deviation is that of the population.
    etf_deviation : float
        Mean of ``|cos + 1/(K - 1)|``: 0 for a simplex ETF.
    coherence : float
        Mutual coherence, the largest ``|cos|``.
    """

    mean: float
    std: float
    minimum: float
    maximum: float
    etf_deviation: float
    coherence: float


@plain_tensors()
def equinorm(vectors: Any) -> float:
    """Return the coefficient of variation of the norms: 0 when all are equally long.

    Population standard deviation over mean, of the centred class means or of the classifier's rows
    (Papyan et al. 2020, figure 2).

    Parameters
    ----------
    vectors : ClassMoments or array_like, shape (K, D)
        Of moments the centred class means are taken, of the classes that have samples; a matrix is
        taken as it is, for example ``moments.means`` or a classifier.

    Returns
    -------
    float
        NaN, with a RuntimeWarning, when all vectors are zero.

    Raises
    ------
    ValueError
        If there are fewer than two vectors, or a matrix is not real, finite and of two axes.
    """
    rows = vectors_of(vectors, "equinorm")
    if rows.largest == 0:
        warn("equinorm: all vectors are zero")
        return math.nan
    return coefficient_of_variation(rows.lengths)


@plain_tensors()
def cosine_statistics(vectors: Any) -> CosineStatistics:
    """Return mean, spread and extremes of the cosines between all pairs of vectors.

    Papyan et al. (2020) measure equiangularity by the standard deviation (figure 3) and maximal
    angles by ``etf_deviation`` (figure 4).

    Parameters
    ----------
    vectors : ClassMoments or array_like, shape (K, D)
        As for `equinorm`.

    Returns
    -------
    CosineStatistics
        Zero vectors are left out with a RuntimeWarning, but count in the ETF's 1/(K - 1); NaN if
        fewer than two are left. With K = 2 centred means have the cosine -1, whatever they are.

    Raises
    ------
    ValueError
        As `equinorm`.
    """
    units = unit_vectors(vectors, "cosine_statistics")
    rows = units.rows
    if len(rows) < 2:
        return CosineStatistics(*[math.nan] * 6)
    given = len(units.lengths)
    spread, low, high, etf = Spread(), 1.0, -1.0, 0.0
    for block in pair_blocks(len(rows)):
        for values in pair_values(rows[block] @ rows[block.start :].T):
            if values.numel():
                values = values.clamp_(-1.0, 1.0)
                spread.add(values)
                low, high = min(low, float(values.min())), max(high, float(values.max()))
                etf += float(values.add_(1 / (given - 1)).abs_().sum())
    return CosineStatistics(
        spread.mean,
        math.sqrt(spread.variance),
        low,
        high,
        etf / spread.count,
        max(abs(low), abs(high)),
    )


def equiangularity(vectors: Any) -> float:
    """Return the standard deviation of the cosines between pairs; see `cosine_statistics`."""
    return cosine_statistics(vectors).std


def mutual_coherence(vectors: Any) -> float:
    """Return the largest ``|cos|`` between two vectors; see `cosine_statistics`.

    A simplex ETF has 1/(K - 1) and an orthogonal frame 0.
    """
    return cosine_statistics(vectors).coherence


@plain_tensors()
def alignment(
    moments: Readings,
    weight: Any,
    *,
    centered: bool = True,
    cosine: bool = True,
    weighting: str = "class",
) -> NDArray[np.float64]:
    """Return how well each classifier row points to its class mean, ``cos(w_k, mu_k - mu)``.

    1 for every class at self-duality. The distance of the two unit vectors is
    ``sqrt(2 - 2 cos)``. Under imbalance SELI has less than 1 for minority classes (Thrampoulidis
    et al. 2022).

    Parameters
    ----------
    moments : ClassMoments
    weight : array_like, shape (K, D)
    centered : bool
        Whether the class means are less their class average.
    cosine : bool
        False gives the products ``<w_k, mu_k - mu>``, whose variation Wu and Papyan (2024) call
        uniform duality.
    weighting : {"class", "sample"}
        Of the global mean mu.

    Returns
    -------
    ndarray, shape (K,), float64
        NaN, with a RuntimeWarning, for classes without samples and, with ``cosine``, where row or
        mean is zero.

    Raises
    ------
    ValueError
        If fewer than two classes have samples or the classifier does not fit.
    """
    kept, w, means = _pairs(moments, weight, centered, weighting, "alignment")
    values = torch.linalg.vecdot(w, means)
    if cosine:
        (w, means), zero = _directions((w, means), "alignment")
        values = torch.linalg.vecdot(w, means).clamp(-1.0, 1.0).masked_fill(zero, math.nan)
    return _of_classes(values, kept, moments.num_classes)


@plain_tensors()
def distance_norms(
    moments: Readings,
    weight: Any,
    *,
    centered: bool = True,
    normalized: bool = True,
    weighting: str = "class",
) -> NDArray[np.float64]:
    """Return how far each classifier row is from its class mean, ``||w_k - (mu_k - mu)||``.

    Parameters
    ----------
    moments : ClassMoments
    weight : array_like, shape (K, D)
    centered : bool
        Whether the class means are less their global mean mu.
    normalized : bool
        Whether both are scaled to length one first: then 0 is self-duality, and 2 opposite.
    weighting : {"class", "sample"}
        Of the global mean.

    Returns
    -------
    ndarray, shape (K,), float64
        NaN as for `alignment`.

    Raises
    ------
    ValueError
        As `alignment`.
    """
    kept, w, means = _pairs(moments, weight, centered, weighting, "distance_norms")
    zero = torch.zeros(len(w), dtype=torch.bool, device=w.device)
    if normalized:
        (w, means), zero = _directions((w, means), "distance_norms")
    values = torch.linalg.vector_norm(w - means, dim=1).masked_fill(zero, math.nan)
    return _of_classes(values, kept, moments.num_classes)


def _pairs(
    moments: Readings, weight: Any, centered: bool, weighting: str, what: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the classes that have samples, their classifier rows and their means."""
    w, _ = classifier(moments, weight)
    kept = torch.nonzero(moments.counts)[:, 0]
    own = usable(moments, what)
    choice("weighting", weighting, WEIGHTINGS)
    means = own.resolved(weighting).given if centered else own.means
    return kept, dense(select(w, kept)), dense(means)


def _directions(pairs: tuple[Tensor, Tensor], what: str) -> tuple[list[Tensor], Tensor]:
    """Return rows of length one, and where either has none; warns of those."""
    lengths = [torch.linalg.vector_norm(rows, dim=1) for rows in pairs]
    zero = (lengths[0] == 0) | (lengths[1] == 0)
    if bool(zero.any()):
        who = number_of(int(zero.sum()), "class has", "classes have")
        warn(f"{what}: {who} a zero classifier row or class mean", 5)
    return [rows / length[:, None] for rows, length in zip(pairs, lengths, strict=True)], zero


def _of_classes(values: Tensor, kept: Tensor, num_classes: int) -> NDArray[np.float64]:
    """Return values of classes that have samples as those of all, NaN elsewhere."""
    out = np.full(num_classes, np.nan)
    out[as_array(kept).astype(np.intp)] = as_array(values)
    return out


@record
@dataclass(frozen=True, eq=False)
class GroupAngles:
    """Norms and cosines of vectors by group of classes; see `group_angles`.

    Entry (a, b) of the matrices is over the pairs of one vector of group a and another of group b,
    the diagonal over pairs inside a group; NaN where there is no such pair.

    Attributes
    ----------
    groups : ndarray, shape (G,)
        The groups' values, for example their counts, largest first.
    sizes : ndarray, shape (G,), int64
        Vectors in each group, zero vectors not counted.
    norms : ndarray, shape (G,), float64
        Mean length of the vectors, zero vectors counted.
    minimum, mean, maximum : ndarray, shape (G, G), float64
        Of the cosines.
    """

    groups: NDArray[Any]
    sizes: NDArray[np.int64]
    norms: Array
    minimum: Array
    mean: Array
    maximum: Array

    @property
    def widest(self) -> Array:
        """Largest angle of a pair, degrees, shape (G, G): 0 on the diagonal of a merged group."""
        return np.degrees(np.arccos(self.minimum))

    @property
    def narrowest(self) -> Array:
        """Smallest angle of a pair, degrees, shape (G, G)."""
        return np.degrees(np.arccos(self.maximum))


@plain_tensors()
def group_angles(vectors: Any, groups: ArrayLike | None = None) -> GroupAngles:
    """Return norms and angles inside and across groups of classes: who merges, who is longer.

    Of a classifier this is the indicator of minority collapse: the rows of a merged group have the
    cosine 1 (Fang et al. 2021, https://doi.org/10.1073/pnas.2103091118; Hong and Ling 2023,
    https://arxiv.org/abs/2309.09725). The ratios of the norms, and the cosines across, are the
    SELI table of Thrampoulidis et al. (2022).

    Parameters
    ----------
    vectors : ClassMoments or array_like, shape (K, D)
        As for `equinorm`; for mean logits ``moments.means @ weight.T``.
    groups : array_like, shape (K,), optional
        Classes of equal value form a group, for example ``counts``. By default the counts of the
        moments; a matrix needs it.

    Returns
    -------
    GroupAngles
        Zero vectors are left out of the cosines with a RuntimeWarning: whether two vanished
        classes have merged is no question of angles.

    Raises
    ------
    ValueError
        If groups are missing or of another length, or there are more than 4096 of them.
    """
    values = _group_values(vectors, groups)
    units = unit_vectors(vectors, "group_angles")
    names, place = np.unique(values, return_inverse=True)
    require_dense(len(names), "groups")
    names, place = names[::-1], len(names) - 1 - place
    norms = np.bincount(place, as_array(units.lengths)) / np.bincount(place)

    # Sorted by group, a group is a run of rows and of columns, which `reduceat` reduces.
    place = place[as_array(units.kept).astype(np.intp)]
    order = np.argsort(place, kind="stable")
    place = place[order]
    sorted_units = units.rows[torch.as_tensor(order, device=units.rows.device)]
    shape = (len(names), len(names))
    lows, highs, sums = np.full(shape, np.inf), np.full(shape, -np.inf), np.zeros(shape)
    for block in pair_blocks(len(place)):
        cosines = as_array((sorted_units[block] @ sorted_units[block.start :].T).clamp_(-1.0, 1.0))
        of_rows, of_columns = place[block], place[block.start :]
        below = np.tril_indices(len(cosines), 0, len(of_rows))
        index = np.ix_(np.unique(of_rows), np.unique(of_columns))
        for out, reduce, nothing in (
            (lows, np.minimum, np.inf),
            (highs, np.maximum, -np.inf),
            (sums, np.add, 0.0),
        ):
            cosines[below] = nothing
            part = reduce.reduceat(cosines, _starts(of_columns), axis=1)
            out[index] = reduce(out[index], reduce.reduceat(part, _starts(of_rows), axis=0))
    sizes = np.bincount(place, minlength=len(names))
    pairs = np.outer(sizes, sizes) - np.diag(sizes * (sizes + 1) // 2)
    # Only pairs in sorted order were seen: the lower triangle is still empty.
    lows, highs = np.minimum(lows, lows.T), np.maximum(highs, highs.T)
    sums = np.triu(sums) + np.triu(sums, 1).T
    none = pairs == 0
    lows[none], highs[none] = np.nan, np.nan
    means = np.divide(sums, pairs, out=np.full(shape, np.nan), where=~none)
    return GroupAngles(names, sizes, norms, lows, means, highs)


def _starts(places: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.flatnonzero(np.r_[True, places[1:] != places[:-1]])


def _group_values(vectors: Any, groups: ArrayLike | None) -> NDArray[Any]:
    if isinstance(vectors, Readings):
        kept = as_array(torch.nonzero(vectors.counts)[:, 0]).astype(np.intp)
        size = vectors.num_classes
        if groups is None:
            groups = vectors.counts.cpu().numpy()
    else:
        size = _size(vectors)
        kept = np.arange(size)
        if groups is None:
            raise ValueError("groups: missing; a matrix does not say which classes belong together")
    values = np.asarray(groups)
    if values.shape != (size,) or values.dtype.kind not in "biufU":
        raise ValueError(f"groups: got shape {values.shape}, need one number a class, ({size},)")
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError("groups: has NaN entries")
    return values[kept]


def _size(vectors: Any) -> int:
    if isinstance(vectors, Readings):
        return vectors.num_classes
    return len(vectors.given if isinstance(vectors, Rows) else as_tensor("vectors", vectors))


@record
class KernelStatistics(NamedTuple):
    """A kernel over all pairs of directions; see `uniformity`.

    Attributes
    ----------
    mean, variance : float
        Over the pairs; the variance is that of the population.
    cov : float
        Coefficient of variation, ``sqrt(variance) / |mean|``; NaN for a mean of zero.
    """

    mean: float
    variance: float
    cov: float


@plain_tensors()
def uniformity(vectors: Any, kernel: str = "log", *, s: float | None = None) -> KernelStatistics:
    """Return how uniformly directions fill the sphere: the generalised NC2.

    Mean and variation over pairs of a kernel of the distance d of two unit vectors: a small mean of
    ``log`` or ``riesz`` is hyperspherical uniformity (Liu et al. 2023,
    https://arxiv.org/abs/2303.06484), a small variation says that all pairs interact alike (Wu and
    Papyan 2024, https://arxiv.org/abs/2405.17767), which a simplex ETF does exactly, with
    ``d = sqrt(2 K / (K - 1))``.

    Parameters
    ----------
    vectors : ClassMoments or array_like, shape (K, D)
        As for `equinorm`; they are scaled to length one here.
    kernel : {"log", "distance", "riesz"}
        ``log(1 / d)``; ``d``; ``sign(s) d^-s``.
    s : float, optional
        Exponent of the Riesz kernel, not 0; D - 2 by default.

    Returns
    -------
    KernelStatistics
        Zero vectors are left out with a RuntimeWarning. Infinite mean and NaN variation, with a
        RuntimeWarning, if two vectors have one direction and the kernel has a pole there. A Riesz
        mean beyond float64, as at D in the thousands, is 0 or infinite with a RuntimeWarning.

    Raises
    ------
    ValueError
        If the kernel or its exponent is not allowed, or as `equinorm`.
    """
    _require_kernel(kernel, s)
    rows, errors, *_ = unit_vectors(vectors, "uniformity")
    exponent = _exponent(kernel, s, rows.shape[1])
    if len(rows) < 2:
        return KernelStatistics(math.nan, math.nan, math.nan)
    pole = kernel == "log" or (kernel == "riesz" and exponent > 0)
    spread = Spread()  # of the Riesz kernel, relative to that of a right angle
    for block, squares, least in pair_distances(Rows(rows)):
        if pole and first_equal(squares, least, errors, block) is not None:
            warn(f"uniformity: two vectors have one direction, the {kernel} kernel is infinite")
            return KernelStatistics(math.inf, math.nan, math.nan)
        for values in pair_values(squares):
            spread.add(_kernel(values, kernel, exponent))
    mean, variance = spread.mean, spread.variance
    cov = math.sqrt(variance) / abs(mean) if mean and math.isfinite(mean) else math.nan
    if kernel == "riesz":
        unit = _power(2.0, -exponent / 2)
        mean, variance = mean * unit, variance * unit**2 if unit < 1e150 else math.inf
        if not 0 < abs(mean) < math.inf:
            warn(f"uniformity: the mean of the Riesz kernel with s = {exponent:g} leaves float64")
    return KernelStatistics(mean, variance, cov)


@plain_tensors()
def kernel_grid(vectors: Any, kernel: str = "distance", *, s: float | None = None) -> Array:
    """Return a kernel of every pair of directions, shape (K, K): what `uniformity` averages.

    Parameters
    ----------
    vectors : ClassMoments or array_like, shape (K, D)
        As for `equinorm`; at most 4096. They are scaled to length one here.
    kernel : {"log", "distance", "riesz"}
        As for `uniformity`.
    s : float, optional
        Exponent of the Riesz kernel, not 0; D - 2 by default.

    Returns
    -------
    ndarray, shape (K, K), float64
        NaN on the diagonal, for zero vectors and for classes without samples. Infinite, with its
        sign, where two vectors have one direction and the kernel has a pole.

    Raises
    ------
    ValueError
        As `uniformity`; or if there are more vectors.
    """
    _require_kernel(kernel, s)
    size = _size(vectors)
    require_dense(size, "kernel_grid")
    rows, errors, kept, _ = unit_vectors(vectors, "kernel_grid")
    exponent = _exponent(kernel, s, rows.shape[1])
    squares = square_distances(Rows(rows), errors)
    grid = _kernel(squares, kernel, exponent)
    if kernel == "riesz":
        grid = grid * _power(2.0, -exponent / 2)
    places = as_array(kept).astype(np.intp)
    if isinstance(vectors, Readings):
        places = as_array(torch.nonzero(vectors.counts)[:, 0]).astype(np.intp)[places]
    out = np.full((size, size), np.nan)
    out[np.ix_(places, places)] = as_array(grid.fill_diagonal_(math.nan))
    return out


def _require_kernel(kernel: str, s: float | None) -> None:
    choice("kernel", kernel, KERNELS)
    if s is not None and kernel != "riesz":
        raise ValueError(f"s: got {s} with kernel {kernel!r}; only 'riesz' has an exponent")


def _exponent(kernel: str, s: float | None, dim: int) -> float:
    """Return the exponent of the Riesz kernel in D dimensions."""
    exponent = float(dim - 2 if s is None else s)
    if kernel == "riesz" and not (math.isfinite(exponent) and exponent):
        raise ValueError(
            f"s: got {exponent:g}{' = D - 2' if s is None else ''}, need a finite number that is "
            "not 0 (the limit there is the log kernel)"
        )
    return exponent


def _power(base: float, exponent: float) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def _kernel(squares: Tensor, kernel: str, exponent: float) -> Tensor:
    if kernel == "log":
        return squares.log().mul_(-0.5)
    if kernel == "distance":
        return squares.clamp(min=0.0).sqrt_()
    return squares.clamp(min=0.0).div_(2.0).pow_(-exponent / 2).mul_(math.copysign(1.0, exponent))
