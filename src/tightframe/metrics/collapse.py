"""Neural-collapse metrics: NC1 to NC4, class-distance normalised variance, measured geometry.

Everything is computed in float64 from `ClassMoments` and the classifier. A state in which a metric
has no meaningful value gives infinity or NaN with a RuntimeWarning, or a ValueError where nothing
can be said at all; it never gives a small number that would read as collapse.

Two things no implementation can mend: with K = 2 the centred class means are a simplex frame
whatever they are, so their distance to it is 0; and with D < K - 1 no simplex frame fits, so that
distance has a floor above 0.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tightframe.geometry import PARTS, Geometry, normalized_distance
from tightframe.metrics.moments import (
    BLOCK_ENTRIES,
    ClassMoments,
    as_tensor,
    checked_features,
    describe_classes,
    plain_tensors,
)
from tightframe.problem import require_dense

_EPS = torch.finfo(torch.float64).eps

#: The fast eigenvalue route is used while the smallest eigenvalue kept is above this share of the
#: largest: its relative error is then about eps / 1e-6 = 2e-10 at most.
_SAFE_CONDITION = 1e-6


@plain_tensors()
def nc1(moments: ClassMoments, weighting: str = "class") -> float:
    """Return NC1, ``tr(Sigma_W pinv(Sigma_B)) / K``: within-class relative to between-class spread.

    Sigma_W averages over samples. Classes without samples are left out, K with them, with a
    RuntimeWarning.

    Parameters
    ----------
    moments : ClassMoments
        With ``scatter=True``.
    weighting : {"class", "sample"}
        How Sigma_B and its global mean weigh the classes; they agree on balanced data.

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
    its Gram matrix, which would square the condition number.

    References
    ----------
    Papyan, Han, Donoho (2020), https://doi.org/10.1073/pnas.2015509117.
    """
    moments = _usable(moments, "nc1")
    within = moments.within()
    rows, floor = _scaled_means(moments, weighting)
    directions, squares = _between_directions(rows, floor)
    if not len(squares):
        warnings.warn(
            "nc1: all class means are equal, NC1 is infinite", RuntimeWarning, stacklevel=3
        )
        return math.inf
    limit = min(rows.shape[0] - 1, rows.shape[1])
    if len(squares) < limit:
        warnings.warn(
            f"nc1: the class means span {len(squares)} of {limit} directions; spread within "
            "classes outside those is not counted",
            RuntimeWarning,
            stacklevel=3,
        )
    spread = torch.linalg.vecdot(within @ directions, directions, dim=0).clamp(min=0.0)
    return float((spread / squares).sum()) / moments.num_classes


@plain_tensors()
def nc1_quotient(moments: ClassMoments, weighting: str = "class") -> float:
    """Return ``tr Sigma_W / tr Sigma_B``, which needs no pseudo-inverse and no scatter matrix.

    Parameters and errors are those of `nc1`; classes without samples are left out with a
    RuntimeWarning, and equal class means give infinity with a RuntimeWarning.
    """
    moments = _usable(moments, "nc1_quotient")
    within = float(moments.shares("sample") @ moments.traces)
    rows, floor = _scaled_means(moments, weighting)
    between = float(rows.square().sum())
    if math.sqrt(between) <= floor:
        message = "nc1_quotient: all class means are equal, the quotient is infinite"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return math.inf
    return within / between


@plain_tensors()
def cdnv(moments: ClassMoments) -> float:
    """Return the class-distance normalised variance.

    The mean over pairs i != j of ``(v_i + v_j) / (2 ||mu_i - mu_j||^2)``, v the trace of a class's
    covariance (Galanti, György, Hutter 2022, https://arxiv.org/abs/2112.15121). Ordered and
    unordered pairs have the same mean. No scatter matrix is needed.

    Parameters
    ----------
    moments : ClassMoments
        Classes without samples are left out with a RuntimeWarning.

    Returns
    -------
    float
        Infinity, with a RuntimeWarning, when two class means are equal.

    Raises
    ------
    ValueError
        If fewer than two classes have samples.
    """
    moments = _usable(moments, "cdnv")
    means, traces, errors = moments.centered_means(), moments.traces, moments.mean_errors
    k = moments.num_classes
    classes = torch.arange(k, device=means.device)
    lengths = torch.linalg.vecdot(means, means)
    total = 0.0
    step = max(1, BLOCK_ENTRIES // k)
    for start in range(0, k, step):
        block = slice(start, start + step)
        own = classes[block, None] == classes
        sizes = lengths[block, None] + lengths
        squares = (sizes - 2 * means[block] @ means.T).masked_fill(own, math.inf)
        # Close means cancel in that product: rows with such a pair take differences instead.
        close = (squares < 1e-4 * sizes).any(dim=1)
        exact = "donot_use_mm_for_euclid_dist"
        squares[close] = torch.cdist(means[block][close], means, compute_mode=exact).square()
        squares.masked_fill_(own, math.inf)
        equal = squares <= (errors[block, None] + errors).square()
        if bool(equal.any()):
            i, j = (int(t) for t in torch.nonzero(equal)[0])
            message = f"cdnv: the means of classes {start + i} and {j} are equal, CDNV is infinite"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            return math.inf
        total += float(((traces[block, None] + traces) / (2 * squares)).sum())
    return total / (k * (k - 1))


@plain_tensors()
def nc4(features: Any, moments: ClassMoments, weight: Any, bias: Any = None) -> float:
    """Return NC4, the share of samples on which classifier and nearest class centre differ.

    Parameters
    ----------
    features : tensor or array_like, shape (B, D), B >= 1
        The samples to be judged; they need not be those of ``moments``.
    moments : ClassMoments
        Gives the class centres. Classes without samples have none, with a RuntimeWarning.
    weight : tensor or array_like, shape (K, D)
        Classifier; a Parameter is fine.
    bias : tensor or array_like, shape (K,), optional
        Its bias, part of the decision.

    Returns
    -------
    float
        Between 0 and 1. A sample whose largest logit, or whose nearest centre, is tied to within
        float64 rounding has no decision: it counts as differing, with a RuntimeWarning.

    Raises
    ------
    ValueError
        If there is no sample, a shape is wrong, an entry is not finite, or fewer than two classes
        have a centre.
    """
    w, b = _classifier(moments, weight, bias)
    kept = torch.nonzero(moments.counts)[:, 0]
    moments = _usable(moments, "nc4")
    x = checked_features(features, moments.dim)
    if not len(x):
        raise ValueError("features: got no samples, NC4 needs at least one")
    offsets, origin = moments.offsets, moments.origin
    middle = offsets.mean(dim=0)
    centers = offsets - middle
    lengths = torch.linalg.vector_norm(centers, dim=1)
    longest, blur = float(lengths.max()), float(moments.mean_errors.max())
    rounding = 8 * _EPS * math.sqrt(x.shape[1])
    w_length = float(torch.linalg.vector_norm(w, dim=1).max())
    b_length = float(b.abs().max())
    differing = undecided = 0
    step = max(1, BLOCK_ENTRIES // max(w.shape))
    for start in range(0, len(x), step):
        rows = x[start : start + step].to(w.device).double()
        shifted = (rows - origin) - middle
        logits = rows @ w.T + b
        # ||x||^2 is common to all centres: the nearest one has the largest 2 x.c - ||c||^2.
        closeness = 2 * shifted @ centers.T - lengths.square()
        size = torch.linalg.vector_norm(rows, dim=1) * w_length + b_length
        chosen, no_choice = _winner(logits, rounding * size)
        reach = 2 * torch.linalg.vector_norm(shifted, dim=1) + longest
        nearest, no_nearest = _winner(closeness, reach * (rounding * longest + 2 * blur))
        tied = no_choice | no_nearest
        undecided += int(tied.sum())
        differing += int((tied | (chosen != kept[nearest])).sum())
    if undecided:
        message = f"nc4: {undecided} of {len(x)} samples are tied; they count as differing"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return differing / len(x)


@plain_tensors()
def measured_geometry(moments: ClassMoments, weight: Any) -> Geometry:
    """Return the network's geometry: Grams of classifier and class means, mean logits W H.

    Parameters
    ----------
    moments : ClassMoments
        Every class must have samples.
    weight : tensor or array_like, shape (K, D)
        Classifier, the product of the layers where there are several.

    Raises
    ------
    ValueError
        If a class has no samples (it is named: no Gram matrix is complete without it), K < 2,
        K > 4096, or the classifier's shape or entries are wrong.
    """
    w, _ = _classifier(moments, weight, None)
    _require_complete(moments)
    centered = _array(_resolved_means(moments).T)
    return Geometry.from_vectors(_array(w), _array(moments.means.T), centered=centered)


@plain_tensors()
def self_duality(moments: ClassMoments, weight: Any) -> float:
    """Return the classical NC3, ``|| W/||W|| - M/||M|| ||_F`` with M the centred class means.

    M holds the class means less their class-averaged mean as rows, shape (K, D) (Papyan et al.
    2020). NaN, with a RuntimeWarning, for a zero classifier or equal class means.

    Parameters and errors are those of `measured_geometry`.
    """
    w, _ = _classifier(moments, weight, None)
    _require_complete(moments)
    return normalized_distance(_array(w), _array(_resolved_means(moments)))


@plain_tensors()
def margins(moments: ClassMoments, weight: Any) -> NDArray[np.float64]:
    """Return the margins without bias, shape (K, K).

    Entry (j, k) is the mean over the samples of class k of logit k less logit j; it is 0 on the
    diagonal, and class k is told from j when it is positive.

    Parameters and errors are those of `measured_geometry`.
    """
    w, _ = _classifier(moments, weight, None)
    _require_complete(moments)
    logits = w @ moments.means.T
    return _array(logits.diagonal() - logits)


@dataclass(frozen=True, eq=False)
class CollapseReport:
    """What one pass over a network's features says about its collapse; see `measure`.

    Attributes
    ----------
    num_samples : int
        Samples N behind the moments.
    counts : ndarray, shape (K,), int64
        Samples of every class.
    nc1 : float or None
        `nc1`; None if the moments have no scatter matrix.
    nc1_quotient : float
        `nc1_quotient`.
    cdnv : float
        `cdnv`.
    nc4 : float or None
        `nc4`; None if no features were given.
    self_duality : float
        `self_duality`, the classical NC3.
    bias_alignment : float
        ``||b + W mu||_2`` with mu the class-averaged global mean; 0 when the bias only undoes the
        mean (NC4 of Zhu et al. 2021). Without bias, b = 0.
    geometry : Geometry
        `measured_geometry`.
    logits : ndarray, shape (K, K), float64
        Mean logits with bias; column k holds the samples of class k.
    margins : ndarray, shape (K, K), float64
        `margins`, without bias.
    """

    num_samples: int
    counts: NDArray[np.int64]
    nc1: float | None
    nc1_quotient: float
    cdnv: float
    nc4: float | None
    self_duality: float
    bias_alignment: float
    geometry: Geometry
    logits: NDArray[np.float64]
    margins: NDArray[np.float64]

    @classmethod
    @plain_tensors()
    def measure(
        cls, moments: ClassMoments, weight: Any, bias: Any = None, *, features: Any = None
    ) -> CollapseReport:
        """Measure everything that moments and a classifier determine.

        Parameters
        ----------
        moments : ClassMoments
            Every class must have samples.
        weight : tensor or array_like, shape (K, D)
            Classifier, the product of the layers where there are several.
        bias : tensor or array_like, shape (K,), optional
            Its bias.
        features : tensor or array_like, shape (B, D), optional
            Samples for NC4, the one metric that moments do not determine.

        Raises
        ------
        ValueError
            If a class has no samples, K < 2, K > 4096, a shape is wrong or an entry is not finite.
        """
        w, b = _classifier(moments, weight, bias)
        geometry = measured_geometry(moments, w)
        return cls(
            num_samples=moments.num_samples,
            counts=moments.counts.cpu().numpy(),
            nc1=nc1(moments) if moments.scatter else None,
            nc1_quotient=nc1_quotient(moments),
            cdnv=cdnv(moments),
            nc4=None if features is None else nc4(features, moments, w, b),
            self_duality=self_duality(moments, w),
            bias_alignment=float(torch.linalg.vector_norm(b + w @ moments.global_mean())),
            geometry=geometry,
            logits=geometry.logits + _array(b)[:, None],
            margins=margins(moments, w),
        )

    def distances(self, target: Geometry) -> dict[str, float]:
        """Return the distance of every part to a predicted geometry: NC2 and NC3 of the papers.

        Parameters
        ----------
        target : Geometry
            Of the same number of classes.

        Returns
        -------
        dict of str to float
            A number from 0 to 2 for each of `tightframe.geometry.PARTS`; NaN, with a
            RuntimeWarning, where either matrix is zero. For ``"centered_means"``, K = 2 and
            D < K - 1 are special: see the module's text.

        Raises
        ------
        ValueError
            If the number of classes differs.
        """
        if target.num_classes != self.geometry.num_classes:
            raise ValueError(
                f"target: got a geometry of {target.num_classes} classes, "
                f"need {self.geometry.num_classes}"
            )
        return {part: self.geometry.distance(target, part) for part in PARTS}

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values: NaN as None and infinity as the text ``"Infinity"``.

        Strict JSON has neither; both Python's ``float`` and JavaScript's ``Number`` read the text.
        """
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "geometry"}
        parts = {part: getattr(self.geometry, part) for part in PARTS}
        out["geometry"] = {"name": self.geometry.name, **parts}
        return {name: _json(value) for name, value in out.items()}


# -- inside --------------------------------------------------------------------------------------


def _usable(moments: ClassMoments, what: str) -> ClassMoments:
    """Return the moments of the classes with samples, at least two, and warn of the others."""
    if moments.num_classes < 2:
        raise ValueError(f"{what}: got 1 class, need at least 2")
    missing = moments.missing
    if len(missing) > moments.num_classes - 2:
        have = moments.num_classes - len(missing)
        raise ValueError(f"{what}: {have} of {moments.num_classes} classes have samples, need 2")
    if not missing:
        return moments
    warnings.warn(
        f"{what}: {describe_classes(missing)} without samples and left out",
        RuntimeWarning,
        stacklevel=4,
    )
    return moments.present()


def _require_complete(moments: ClassMoments) -> None:
    require_dense(moments.num_classes, "moments")
    if moments.num_classes < 2:
        raise ValueError("moments: got 1 class, need at least 2")
    if moments.missing:
        raise ValueError(
            f"moments: {describe_classes(moments.missing)} without samples; "
            "the geometry needs every class"
        )


def _classifier(moments: ClassMoments, weight: Any, bias: Any) -> tuple[Tensor, Tensor]:
    """Return weight (K, D) and bias (K,), zero if None, in float64 on the moments' device."""
    k, d = moments.num_classes, moments.dim
    w = as_tensor("weight", weight)
    if w.ndim != 2 or w.shape[0] != k or w.shape[1] != (d or w.shape[1]):
        raise ValueError(
            f"weight: got shape {tuple(w.shape)}, need ({k}, {d or 'D'}), one row a class"
        )
    b = torch.zeros(k) if bias is None else as_tensor("bias", bias)
    if tuple(b.shape) != (k,):
        raise ValueError(f"bias: got shape {tuple(b.shape)}, need ({k},)")
    for name, tensor in (("weight", w), ("bias", b)):
        if tensor.is_complex():
            raise ValueError(f"{name}: got type {tensor.dtype}, need real numbers")
    w, b = w.to(moments.device).double(), b.to(moments.device).double()
    for name, tensor in (("weight", w), ("bias", b)):
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name}: has NaN or infinite entries")
    return w, b


def _scaled_means(moments: ClassMoments, weighting: str) -> tuple[Tensor, float]:
    """Return A with Sigma_B = A^T A, shape (K, D), and the length below which it is rounding."""
    shares = moments.shares(weighting)
    rows = moments.centered_means(weighting) * shares.sqrt()[:, None]
    return rows, float((shares @ moments.mean_errors.square()).sqrt())


def _resolved_means(moments: ClassMoments) -> Tensor:
    """Return the centred class means, exactly zero where they are nothing but rounding."""
    rows, floor = _scaled_means(moments, "class")
    zero = float(torch.linalg.matrix_norm(rows)) <= floor
    return torch.zeros_like(rows) if zero else moments.centered_means()


def _between_directions(rows: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Return real directions of A as columns (D, R), and their squared singular values (R,).

    The rule for R is that of `nc1`. Values are in descending order.
    """
    k, d = rows.shape
    limit = min(k - 1, d)
    gram = rows @ rows.T if k <= d else rows.T @ rows
    squares, vectors = torch.linalg.eigh(gram)
    squares, vectors = squares.flip(0)[:limit], vectors.flip(1)[:, :limit]
    top = math.sqrt(max(float(squares[0]), 0.0))
    cut = _EPS * max(k, d) * top + floor
    if top <= cut:
        return rows.new_zeros(d, 0), squares[:0]
    if float(squares[-1]) > max(_SAFE_CONDITION * top**2, cut**2):
        return (rows.T @ vectors / squares.sqrt() if k <= d else vectors), squares
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    values = values[:limit]
    kept = values > cut
    return directions[:limit][kept].T, values[kept].square()


def _winner(scores: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
    """Return the column of every row's largest score, and whether another is within the slack."""
    best, columns = scores.topk(2, dim=1)
    return columns[:, 0], best[:, 0] - best[:, 1] <= slack


def _array(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.cpu().numpy()
    return array


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return _json(value.tolist())
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
