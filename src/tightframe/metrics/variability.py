"""NC1, variability collapse: how small the spread within classes is beside that between them.

A state in which a metric has no meaningful value gives infinity or NaN with a RuntimeWarning, or a
ValueError where nothing can be said at all; never a small number that would read as collapse.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tightframe.checks import choice, positive_float, require_dense, whole_number
from tightframe.data.batches import as_tensor
from tightframe.metrics.inputs import as_array, usable, warn
from tightframe.metrics.moments import EPS, WEIGHTINGS
from tightframe.metrics.pair_sums import FEW_CLASSES, inverse_distance_sum
from tightframe.metrics.plain import plain_tensors
from tightframe.metrics.readings import Readings
from tightframe.metrics.samples import accepted
from tightframe.metrics.snapshot import Snapshot
from tightframe.metrics.tall import Matrix, Tall, dense, lengths, smaller_gram, triangle
from tightframe.metrics.tiles import first_equal, pair_distances, pair_tiles, square_distances
from tightframe.shown import record

#: The Gram matrix is used while its smallest eigenvalue kept is above this share of the largest:
#: the relative error is then about eps / 1e-6 = 2e-10 at most.
_SAFE_CONDITION = 1e-6

#: Gram matrices larger than this are inverted sooner than decomposed.
_INVERSE_SIZE = 64


@record
class NC1Details(NamedTuple):
    """What `nc1` is made of.

    Attributes
    ----------
    value : float
        NC1; infinity when all class means are equal.
    rank : int
        Directions of Sigma_B that were kept.
    limit : int
        Most directions there can be, min(K - 1, D), with K the classes that have samples.
    cutoff : float
        Singular values of the scaled class means above this were kept (unit of the features).
    """

    value: float
    rank: int
    limit: int
    cutoff: float


@plain_tensors()
def nc1(
    moments: Readings,
    weighting: str = "class",
    *,
    rtol: float | None = None,
    center: str | None = None,
) -> float:
    """Return NC1, ``tr(Sigma_W pinv(Sigma_B)) / K``: within-class relative to between-class spread.

    Sigma_W averages over samples. Classes without samples are left out, K with them, with a
    RuntimeWarning.

    Parameters
    ----------
    moments : ClassMoments
        With ``scatter=True``.
    weighting : {"class", "sample"}
        How Sigma_B and its global mean weigh the classes; they agree on balanced data. Zhu et al.
        (2021) and Dang et al. (2023) use ``"class"``, Hong and Ling (2023) ``"sample"``.
    rtol : float, optional
        From 0 to 1. Directions whose singular value in A (below) is at most ``rtol`` times the
        largest are dropped too: Sigma_B's eigenvalues at most ``rtol**2`` times its largest.
    center : {"class", "sample"}, optional
        The global mean that Sigma_B measures from; by default that of ``weighting``. The code of
        Papyan et al. (2020) and Zhu et al. (2021) weighs classes alike but measures from the mean
        of all samples: ``center="sample"``.

    Returns
    -------
    float
        Infinity, with a RuntimeWarning, when all class means are equal.

    Raises
    ------
    ValueError
        If fewer than two classes have samples, or the moments have no scatter matrix.

    Notes
    -----
    Sigma_B = A^T A, where row k of the K x D matrix A is sqrt(p_k) (mu_k - mu). A direction counts
    as real when its singular value in A exceeds

        eps max(K, D) sigma_1 + sqrt(sum_k p_k e_k^2),

    eps = 2.2e-16 and e_k the rounding error of the class means (`ClassMoments.mean_errors`), and at
    most min(K - 1, D) directions are kept. So a direction is dropped only if float64 cannot tell
    it from rounding; in terms of eigenvalues of Sigma_B that is around 1e-28 of the largest.
    Where the smallest eigenvalue kept is below 1e-6 of the largest, A itself is decomposed and not
    its Gram matrix, which would square the condition number. Where all are surely above, a large
    Gram matrix is inverted and not decomposed, as `nc1_details` does always.

    References
    ----------
    Papyan, Han, Donoho (2020), https://doi.org/10.1073/pnas.2015509117.
    """
    own, between = _nc1_input(moments, weighting, rtol, center)
    value = None if rtol else _regular_nc1(own, between)
    return _nc1(own, between, rtol).value if value is None else value


@plain_tensors()
def nc1_details(
    moments: Readings,
    weighting: str = "class",
    *,
    rtol: float | None = None,
    center: str | None = None,
) -> NC1Details:
    """Return `nc1` with the kept rank and the cut-off that decided it.

    Parameters and errors are those of `nc1`.
    """
    return _nc1(*_nc1_input(moments, weighting, rtol, center), rtol)


class _Between(NamedTuple):
    """How Sigma_B weighs the classes, and the global mean that it measures from."""

    weighting: str
    center: str

    @classmethod
    def of(cls, weighting: str, center: str | None) -> _Between:
        choice("weighting", weighting, WEIGHTINGS)
        return cls(weighting, choice("center", weighting if center is None else center, WEIGHTINGS))


def _nc1_input(
    moments: Readings, weighting: str, rtol: float | None, center: str | None
) -> tuple[Snapshot, _Between]:
    if rtol is not None and not 0 <= rtol <= 1:  # NaN fails, too
        raise ValueError(f"rtol: got {rtol}, need a number from 0 to 1")
    return usable(moments, "nc1"), _Between.of(weighting, center)


def _nc1(moments: Snapshot, kind: _Between, rtol: float | None) -> NC1Details:
    floor = moments.blur(kind.center)
    limit = min(moments.num_classes - 1, moments.dim or 0)
    between = _regular_directions(moments, kind, floor, rtol or 0.0)
    if between is None:
        root = _between_root(moments, kind)
        # R of a QR decomposition has the same singular values and directions.
        rows = triangle(root) if isinstance(root, Tall) else root
        k = moments.num_classes
        between = between_directions(rows, rows.new_tensor(floor), rtol or 0.0, k)
    rank, cut = int(between.real.sum()), float(between.cutoff)
    if not rank:
        warn("nc1: all class means are equal, NC1 is infinite", 5)
        return NC1Details(math.inf, 0, limit, cut)
    if rank < limit:
        warn(
            f"nc1: the class means span {rank} of {limit} directions; spread within "
            "classes outside those is not counted",
            5,
        )
    spread = moments.within_along(between.vectors).clamp(min=0.0)
    return NC1Details(float(nc1_along(between, spread)), rank, limit, cut)


class Directions(NamedTuple):
    """Directions between class means, for any leading axes; see `nc1` for which are real."""

    vectors: Tensor  # (..., D, R), as columns
    squares: Tensor  # (..., R), Sigma_B's eigenvalues
    real: Tensor  # (..., R), bool: above the cut-off
    cutoff: Tensor  # (...), of the eigenvalues' square roots
    num_classes: int


def between_directions(
    rows: Tensor, floor: Tensor, rtol: float = 0.0, num_classes: int | None = None
) -> Directions:
    """Return the directions of Sigma_B = A^T A, for any leading axes.

    Parameters
    ----------
    rows : Tensor, shape (..., K, D), float64
        A.
    floor : Tensor, shape (...)
        Rounding error of its rows.
    rtol : float
        As for `nc1`.
    num_classes : int, optional
        K, where A is only the triangle of its QR decomposition.
    """
    k, d = num_classes or rows.shape[-2], rows.shape[-1]
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    values, directions = values[..., : min(k - 1, d)], directions[..., : min(k - 1, d), :]
    top = values[..., 0]
    rounding = EPS * max(k, d) * top + floor
    cut = torch.maximum(rounding, rtol * top)
    real = values > cut[..., None]
    real[..., 0] |= top > rounding  # with rtol = 1, too
    return Directions(directions.mT, values.square(), real, cut, k)


def nc1_along(between: Directions, spread: Tensor) -> Tensor:
    """Return NC1 from the variance within classes along directions, (..., R); infinite without."""
    ratios = torch.where(between.real, spread / between.squares, 0.0)
    value = ratios.sum(dim=-1) / between.num_classes
    return torch.where(between.real.any(dim=-1), value, math.inf)


def _between_root(moments: Snapshot, kind: _Between) -> Matrix:
    """Return A with Sigma_B = A^T A, shape (K, D)."""
    centered = moments.centered_means(kind.center)
    scales = moments.shares(kind.weighting).sqrt()
    if isinstance(centered, Tall):
        return centered.map(lambda rows, i: rows * scales[i][:, None])
    if kind.weighting == "class":
        return centered / math.sqrt(moments.num_classes)
    return centered * scales[:, None]


def _between_gram(moments: Snapshot, kind: _Between) -> Tensor:
    """Return `smaller_gram` of A, zero where A is rounding."""
    means = moments.resolved_means
    if kind == ("class", "class") and means.scale == 1:
        return means.gram / moments.num_classes  # which other metrics use, too
    return smaller_gram(_between_root(moments, kind))


def _regular_nc1(moments: Snapshot, kind: _Between) -> float | None:
    """Return NC1 from the inverse of a large Gram matrix, where it is surely well conditioned."""
    k, d = moments.num_classes, moments.dim or 0
    if min(k, d) < _INVERSE_SIZE:
        return None
    gram = _between_gram(moments, kind)
    if k <= d:
        # Its one eigenvector of value zero is known; an average value stands there for now.
        null = moments.shares(kind.center) / moments.shares(kind.weighting).sqrt()
        null /= torch.linalg.vector_norm(null)
        gram.addr_(null, null, alpha=float(gram.trace()) / k)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        return None
    inverse = torch.cholesky_inverse(factor)
    # Frobenius norms bound the largest eigenvalue, and the reciprocal of the smallest.
    largest, reciprocal = (float(torch.linalg.matrix_norm(a)) for a in (gram, inverse))
    cut = EPS * max(k, d) * math.sqrt(largest) + moments.blur(kind.center)
    if not 0 < reciprocal * max(_SAFE_CONDITION * largest, cut**2) < 1:
        return None
    if k <= d:
        # pinv(A^T A) = A^T pinv(A A^T)^2 A
        rows = inverse @ dense(_between_root(moments, kind))
        spread = moments.within_along(rows.T).clamp(min=0.0).sum()
    else:
        spread = moments.within_inner(inverse).clamp(min=0.0)
    return float(spread) / k


def _regular_directions(
    moments: Snapshot, kind: _Between, floor: float, rtol: float
) -> Directions | None:
    """Return `between_directions` from the smaller Gram matrix of A, if well conditioned."""
    k, d, gram = moments.num_classes, moments.dim or 0, _between_gram(moments, kind)
    limit = min(k - 1, d)
    squares, vectors = torch.linalg.eigh(gram)
    squares, vectors = squares[-limit:], vectors[:, -limit:]
    least, top = float(squares[0]), math.sqrt(max(float(squares[-1]), 0.0))
    cut = max(EPS * max(k, d) * top + floor, rtol * top)
    if not least > max(_SAFE_CONDITION * top**2, cut**2):
        return None
    if k <= d:
        vectors = dense(_between_root(moments, kind)).T @ vectors / squares.sqrt()
    return Directions(vectors, squares, squares > 0, squares.new_tensor(cut), k)


@plain_tensors()
def nc1_quotient(
    moments: Readings, weighting: str = "class", *, center: str | None = None
) -> float:
    """Return ``tr Sigma_W / tr Sigma_B``, which needs no pseudo-inverse and no scatter matrix.

    Tirer, Huang, Niles-Weed (2023), https://proceedings.mlr.press/v202/tirer23a. Parameters and
    errors are those of `nc1`; classes without samples are left out with a RuntimeWarning, and
    equal class means give infinity with a RuntimeWarning.
    """
    moments = usable(moments, "nc1_quotient")
    kind = _Between.of(weighting, center)
    within = moments.shares("sample") @ moments.traces
    centered = lengths(moments.centered_means(kind.center))
    root = torch.linalg.vector_norm(centered * moments.shares(kind.weighting).sqrt())
    value = float(trace_quotient(within, root, root.new_tensor(moments.blur(kind.center))))
    if value == math.inf:
        warn("nc1_quotient: all class means are equal, the quotient is infinite")
    return value


def trace_quotient(within: Tensor, root: Tensor, floor: Tensor) -> Tensor:
    """Return ``tr Sigma_W / tr Sigma_B`` for any leading axes, infinite where A is rounding.

    Parameters
    ----------
    within : Tensor, shape (...)
        tr Sigma_W.
    root, floor : Tensor, shape (...)
        Frobenius norm of A with Sigma_B = A^T A, and its rounding error.
    """
    return torch.where(root <= floor, math.inf, within / root.square())


@plain_tensors()
def class_variability(moments: Readings, weighting: str = "class") -> NDArray[np.float64]:
    """Return every class's own quotient, ``v_k / ||mu_k - mu||^2``, shape (K,).

    v_k is the trace of the class's covariance: which classes have collapsed, and which have not.

    Parameters
    ----------
    moments : ClassMoments
        NaN for a class without samples, with a RuntimeWarning.
    weighting : {"class", "sample"}
        Of the global mean mu.

    Returns
    -------
    ndarray, shape (K,), float64
        Infinity, with a RuntimeWarning, for a class whose mean is the global mean.

    Raises
    ------
    ValueError
        If fewer than two classes have samples.
    """
    own = usable(moments, "class_variability")
    kept = as_array(moments.counts > 0)
    centered = own.centered_means(weighting)
    tall = isinstance(centered, Tall)
    squares = lengths(centered).square() if tall else dense(centered).square().sum(dim=1)
    errors = own.mean_errors
    lost = squares.sqrt() <= errors + errors.square().mean().sqrt()
    if bool(lost.any()):
        warn(f"class_variability: {int(lost.sum())} class means equal the global mean")
    values = torch.where(lost, math.inf, own.traces / squares)
    out = np.full(moments.num_classes, np.nan)
    out[kept] = as_array(values)
    return out


@plain_tensors()
def cdnv(moments: Readings, power: float = 1.0) -> float:
    """Return the class-distance normalised variance.

    The mean over pairs i != j of ``(v_i + v_j) / (2 ||mu_i - mu_j||^2)``, v the trace of a class's
    covariance (Galanti, György, Hutter 2022, https://arxiv.org/abs/2112.15121). Ordered and
    unordered pairs have the same mean. No scatter matrix is needed, and K x K work is tiled. Of
    more than 8192 classes, on a CPU, it is known to 1e-6 of its value (six standard errors): pairs
    of close classes and most of the others' sum are computed, what remains is sampled
    (`tightframe.metrics.pair_sums`). Where that does not do, as of means in clusters or of very
    unequal lengths, all pairs are summed in float32, and what that is off is sampled; at worst all
    pairs are summed in float64.

    Parameters
    ----------
    moments : ClassMoments
        Classes without samples are left out with a RuntimeWarning.
    power : float
        Above 0. Exponent of the squared distance; above 1 distant pairs count less (Wu, Papyan
        2024, https://arxiv.org/abs/2405.17767), and the value then depends on the scale.

    Returns
    -------
    float
        Infinity, with a RuntimeWarning, when two class means are equal.

    Raises
    ------
    ValueError
        If fewer than two classes have samples, or the power is not above 0.
    """
    power = positive_float("power", power)
    own = usable(moments, "cdnv")
    k, rows, traces, errors = own.num_classes, own.resolved_means, own.traces, own.mean_errors
    if rows.scale != 1:
        traces, errors = traces / rows.scale**2, errors / rows.scale
    total = 0.0
    if k > FEW_CLASSES and power == 1 and rows.given.device.type == "cpu":
        found = inverse_distance_sum(rows, traces, errors)
        if found is not None and found.equal is not None:
            return _infinite_cdnv(moments, found.equal)
        if found is not None:
            return found.total / (k * (k - 1))
    if isinstance(rows.scaled, Tall):
        for i, j, squares in pair_tiles(rows):
            equal = torch.nonzero(squares <= (errors[i, None] + errors[j]).square())
            if len(equal):
                a, b = equal[0].tolist()
                return _infinite_cdnv(moments, (i.start + a, j.start + b))
            weights = squares.pow_(-power)
            total += float(traces[i] @ weights.sum(dim=1) + weights.sum(dim=0) @ traces[j])
        return total * float(rows.scale ** (2 - 2 * power)) / (k * (k - 1))
    for block, squares, least in pair_distances(rows):
        pair = first_equal(squares, least, errors, block)
        if pair is not None:
            return _infinite_cdnv(moments, pair)
        weights = squares.reciprocal_() if power == 1 else squares.pow_(-power)
        of_rows = torch.dot(weights.sum(dim=1), traces[block])
        total += float(of_rows + torch.dot(weights.sum(dim=0), traces[block.start :]))
    scale: float = rows.scale ** (2 - 2 * power)
    return total * scale / (k * (k - 1))


def _infinite_cdnv(moments: Readings, pair: tuple[int, int]) -> float:
    """Return infinity, with a warning that names the classes."""
    names = torch.nonzero(moments.counts)[:, 0]
    i, j = (int(names[t]) for t in pair)
    warn(f"cdnv: the means of classes {i} and {j} are equal, CDNV is infinite", 5)
    return math.inf


@plain_tensors()
def cdnv_grid(moments: Readings, power: float = 1.0) -> NDArray[np.float64]:
    """Return the class-distance normalised variance of every pair of classes, shape (K, K).

    ``(v_i + v_j) / (2 ||mu_i - mu_j||^2)``, whose mean over pairs is `cdnv`: which two classes are
    as wide as they are apart.

    Parameters
    ----------
    moments : ClassMoments
        At most 4096 classes.
    power : float
        As for `cdnv`.

    Returns
    -------
    ndarray, shape (K, K), float64
        Infinite where two means are equal, NaN on the diagonal and for classes without samples.

    Raises
    ------
    ValueError
        As `cdnv`; or if there are more classes.
    """
    power = positive_float("power", power)
    require_dense(moments.num_classes, "cdnv_grid")
    own = usable(moments, "cdnv_grid")
    rows, traces, errors = own.resolved_means, own.traces, own.mean_errors
    if rows.scale != 1:
        traces, errors = traces / rows.scale**2, errors / rows.scale
    squares = square_distances(rows, errors)
    sums = (traces[:, None] + traces) * (rows.scale ** (2 - 2 * power) / 2)
    grid = torch.where(squares == 0, math.inf, sums / squares.pow(power))
    kept = as_array(torch.nonzero(moments.counts)[:, 0]).astype(np.intp)
    out = np.full((moments.num_classes,) * 2, np.nan)
    out[np.ix_(kept, kept)] = as_array(grid.fill_diagonal_(math.nan))
    return out


@plain_tensors()
def effective_ranks(
    features: Any, labels: Any, *, num_classes: int | None = None, relative: bool = False
) -> NDArray[np.float64]:
    """Return the effective rank of every class's samples about their mean, shape (K,).

    ``exp(-sum_i p_i log p_i)`` of the singular values of the centred samples over their sum: in how
    many directions a class spreads (Roy and Vetterli 2007). A class that has collapsed to a line
    has 1, whatever the others have.

    Parameters
    ----------
    features : tensor or array_like, shape (N, D)
    labels : tensor or array_like, shape (N,)
        Whole numbers from 0.
    num_classes : int, optional
        K; by default the largest label and one.
    relative : bool
        Whether to divide by the largest possible one, min(n_k, D). One minus that is the
        ``per_class_rank`` of MONAI's ``EmbeddingCollapseMetric``.

    Returns
    -------
    ndarray, shape (K,), float64
        0 for a class whose samples are all equal, NaN for one with fewer than two samples.

    Raises
    ------
    ValueError
        If a shape, type or label is wrong or an entry is not finite.
    """
    k = 0 if num_classes is None else whole_number("num_classes", num_classes)
    y = as_tensor("labels", labels)
    most = int(y.max()) + 1 if y.numel() and not y.is_floating_point() else 1
    x, y, *_ = accepted(
        features, labels, num_classes=k or most, dim=None, ignore_index=None, nonfinite="raise"
    )
    ranks = np.full(k or most, np.nan)
    order = torch.argsort(y, stable=True)
    start = 0
    for label, count in enumerate(torch.bincount(y, minlength=len(ranks)).tolist()):
        if count > 1:
            rows = x[order[start : start + count]].double()
            rank = _effective_rank(rows - rows[0])
            ranks[label] = rank / min(rows.shape) if relative else rank
        start += count
    return ranks


def _effective_rank(rows: Tensor) -> float:
    # Less a row, so that equal rows are exactly zero whatever the rounding of their mean.
    if not bool(rows.any()):
        return 0.0
    rows = rows / rows.abs().max()
    gram = smaller_gram(rows - rows.mean(dim=0))
    values = torch.linalg.eigvalsh(gram).clamp(min=0.0).sqrt()
    shares = values / values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))
