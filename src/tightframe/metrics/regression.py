"""Neural regression collapse: NRC1 to NRC3 of features, a linear layer and real targets.

Andriopoulos, Dong, Guo, Zhao and Ross (2024), *The Prevalence of Neural Collapse in Neural
Multivariate Regression*, NeurIPS, arXiv 2409.04180. The paper says what collapses (features onto
the subspace of their first q principal components, and onto that of the layer's rows; the layer's
Gram matrix onto a form of the targets' covariance); the formulas are those that its authors' code
plots, https://github.com/Konokiii/NC_regression, ``main/nrc_utils.py`` and
``plots/progressive_gamma.py``. Differences from that code:

- It divides by ``||h|| + 1e-8`` and counts features of length zero as collapsed; here they are left
  out, and nothing is added.
- It makes the rows of the layer orthonormal by Gram and Schmidt, which fails where they are
  dependent; here their span is taken.
- It looks for gamma on a grid from 0 to ``lambda_min`` of the targets' covariance; here the best in
  that range has a formula. Curves of the paper have one gamma for all epochs, the last one's:
  ``nrc3(..., gamma=...)``.
- An earlier version of it also has variants without normalised features (``NRC1``, ``NRC2`` there),
  and with features taken from their mean (``NRC1nc``: ``center=True`` here).

Everything is in float64 and in one pass over arrays in memory.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import number_of, positive_float, whole_number
from tightframe.relatives.regression import layer_of, matrix_of, targets_of
from tightframe.shown import record

Array = NDArray[np.float64]

#: What is left of ``S^{1/2} - c I`` below this share of it is rounding: a multiple of I.
_NOTHING_LEFT = 1e-12


@record
class NRC3Details(NamedTuple):
    """NRC3 and the constant that makes it smallest; see `nrc3`.

    Attributes
    ----------
    distance : float
        NRC3, from 0 to 4.
    gamma : float
        The constant, fitted or as given; NaN where every one does as well (a single target, or
        targets that are uncorrelated and of equal variance).
    largest_gamma : float
        Its upper end, the least eigenvalue of the targets' covariance.
    """

    distance: float
    gamma: float
    largest_gamma: float


def nrc1(features: ArrayLike, num_targets: int, *, center: bool = False) -> float:
    """Return NRC1: how far normalised features are from their first principal components.

    The mean of ``||h~_i - P h~_i||^2`` over the samples, where ``h~_i`` is a feature divided by its
    length and P projects on the first ``num_targets`` principal components of the features: 0 when
    all lie in that subspace, at most 1. Zero features are left out. Principal components are those
    of centred features, as everywhere; what is projected is not centred.

    Parameters
    ----------
    features : array_like, shape (N, D)
    num_targets : int
        The number q of targets.
    center : bool
        Whether features are taken from their mean before they are normalised too (``NRC1nc`` of the
        authors' code; not the paper's definition). Both agree where the features have no mean, as
        at the minimum with a free bias. Features after a ReLU have one, which then counts as a
        direction.

    Returns
    -------
    float
        NaN, with a RuntimeWarning, if all features are equal.

    Raises
    ------
    ValueError
        If ``features`` are no finite real numbers of two axes, or ``num_targets`` is no whole
        number from 1.

    Examples
    --------
    >>> plane = np.array([[1.0, 0, 0], [0, 2, 0], [-1, 0, 0], [0, -2, 0]])
    >>> nrc1(plane, 2), round(nrc1(plane, 1), 12)
    (0.0, 0.5)
    """
    h = matrix_of("features", features)
    q = whole_number("num_targets", num_targets)
    centred = h - h.mean(axis=0)
    if not _varies(centred, h):
        _warn("nrc1: all features are equal")
        return math.nan
    axes = np.linalg.svd(centred / np.abs(centred).max(), full_matrices=False)[2][:q]
    return _outside(centred if center else h, axes)


def nrc2(features: ArrayLike, weight: ArrayLike, *, center: bool = False) -> float:
    """Return NRC2: how far normalised features are from the span of the classifier's rows.

    The mean of ``||h~_i - P h~_i||^2`` as in `nrc1`, P the projection on the rows of ``weight``.

    Parameters
    ----------
    features : array_like, shape (N, D)
    weight : array_like, shape (q, D)
        The last linear layer. Rows that depend on others add nothing.
    center : bool
        As in `nrc1`.

    Returns
    -------
    float
        NaN, with a RuntimeWarning, if all features are zero (centred: equal) or the layer is zero.

    Raises
    ------
    ValueError
        If an array is no finite real numbers of two axes, or their widths differ.

    Examples
    --------
    >>> nrc2([[1.0, 0, 0], [-1, 0, 0]], [[2.0, 0, 0]])
    0.0
    """
    h, w = matrix_of("features", features), layer_of("weight", weight)
    if h.shape[1] != w.shape[1]:
        raise ValueError(f"weight: got shape {w.shape} with features {h.shape}, need (q, D)")
    vectors = h - h.mean(axis=0) if center else h
    largest = float(np.abs(w).max())
    if largest == 0 or not _varies(vectors, h):
        reason = "all features are equal" if center else "all features are zero"
        _warn(f"nrc2: {'the layer is zero' if largest == 0 else reason}")
        return math.nan
    _, values, right = np.linalg.svd(w / largest, full_matrices=False)
    limit = np.finfo(float).eps * max(w.shape) * values[0]
    return _outside(vectors, right[values > limit])


def nrc3(weight: ArrayLike, targets: ArrayLike, gamma: float | None = None) -> float:
    """Return NRC3: how far the classifier's Gram matrix is from what the targets ask for.

    ``|| W W^T / ||W W^T||_F - (S^{1/2} - c I) / ||S^{1/2} - c I||_F ||_F^2``, ``gamma = c^2``, S
    the covariance of the targets (divided by N), ``0 <= gamma <= lambda_min(S)``.

    Parameters
    ----------
    weight : array_like, shape (q, D)
    targets : array_like, shape (N, q) or (N,)
    gamma : float, optional
        By default that which makes the value smallest. Its one stationary point has a closed form
        (docs/theory.md section 11), and is compared with both ends. For a curve over epochs the
        source takes that of the last epoch for all of them. At the minimum of the unconstrained
        feature model it is `RegressionCollapse.gamma`, ``N weight_decay feature_decay``.

    Returns
    -------
    float
        From 0 to 4; 0 for a single target. NaN, with a RuntimeWarning, if the layer is zero, the
        targets are constant, or this gamma leaves nothing of them.

    Raises
    ------
    ValueError
        If an array is no finite real numbers, the layer has not q rows, or gamma is out of range:
        beyond ``lambda_min(S)`` some directions of the targets vanish and no gamma describes the
        Gram matrix; `RegressionCollapse.gram` does.

    Examples
    --------
    >>> targets = [[2, 1], [-2, 1], [2, -1], [-2, -1]]
    >>> round(nrc3(np.diag([1.5**0.5, 0.5**0.5]), targets), 12)  # (2 - c) / (1 - c) = 3 at c = 1/2
    0.0
    """
    return _fit(weight, targets, gamma).distance


def nrc3_details(weight: ArrayLike, targets: ArrayLike, gamma: float | None = None) -> NRC3Details:
    """Return `nrc3` with the gamma that was fitted.

    Examples
    --------
    >>> targets = [[2, 1], [-2, 1], [2, -1], [-2, -1]]
    >>> round(nrc3_details(np.diag([1.5**0.5, 0.5**0.5]), targets).gamma, 12)
    0.25
    """
    return _fit(weight, targets, gamma)


def _fit(weight: Any, targets: Any, gamma: Any) -> NRC3Details:
    w, y = layer_of("weight", weight), targets_of(targets)
    q = y.shape[1]
    if len(w) != q:
        raise ValueError(
            f"weight: got {number_of(len(w), 'row')} for {number_of(q, 'target')}, need one a "
            "target"
        )
    given = None if gamma is None else math.sqrt(positive_float("gamma", gamma, or_zero=True))
    centred = y - y.mean(axis=0)
    if not _varies(centred, y):
        _warn("nrc3: the targets are constant", 4)
        return NRC3Details(math.nan, math.nan, 0.0)
    # The root of the covariance without forming it, which would square its condition.
    unit = float(np.abs(centred).max())
    _, values, right = np.linalg.svd(centred / unit, full_matrices=False)
    values = values / math.sqrt(len(y))
    root = (right.T * values) @ right
    least = float(values[-1]) if len(values) == q else 0.0
    top = (least * unit) ** 2
    largest = float(np.abs(w).max())
    if largest == 0:
        _warn("nrc3: the layer is zero", 4)
        return NRC3Details(math.nan, math.nan, top)
    gram = (w / largest) @ (w / largest).T
    gram /= np.linalg.norm(gram)
    eye = np.eye(q)

    def distance(c: float) -> float:
        wanted = root - c * eye
        length = np.linalg.norm(wanted)
        if length <= _NOTHING_LEFT * np.linalg.norm(root):
            return math.inf
        return float(np.linalg.norm(gram - wanted / length) ** 2)

    if given is not None:
        if given > least * unit * (1 + _NOTHING_LEFT):
            raise ValueError(
                f"gamma: got {gamma:g}, need at most {top:g}, the least eigenvalue of the targets' "
                "covariance; beyond, directions vanish and RegressionCollapse.gram has the matrix"
            )
        found = distance(given / unit)
        if found == math.inf:
            _warn("nrc3: this gamma leaves nothing of the targets", 4)
        return NRC3Details(found if found < math.inf else math.nan, float(gamma), top)
    # Maximise <gram, root - c I> / ||root - c I||: its derivative has one zero.
    trace, root_trace = np.trace(gram), np.trace(root)
    square, product = np.vdot(root, root), np.vdot(gram, root)
    if q * square - root_trace**2 <= _NOTHING_LEFT * q * square:  # a multiple of I
        return NRC3Details(distance(0.0), math.nan, top)
    candidates = [0.0, least]
    slope = trace * root_trace - q * product
    if slope != 0:
        c = float((trace * square - product * root_trace) / slope)
        if 0 < c < least:
            candidates.append(c)
    best = min(candidates, key=distance)
    return NRC3Details(distance(best), (best * unit) ** 2, top)


def _outside(vectors: Array, axes: Array) -> float:
    """Return the mean square of what is left of normalised vectors beside orthonormal axes."""
    sizes = np.abs(vectors).max(axis=1)
    unit = vectors[sizes > 0] / sizes[sizes > 0, None]  # squares of it stay in the range
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rest = unit - (unit @ axes.T) @ axes
    return float(np.vdot(rest, rest)) / len(unit)


def _varies(centred: Array, given: Array) -> bool:
    """Tell whether anything but rounding is left of centred numbers."""
    limit = np.finfo(float).eps * len(given) * float(np.abs(given).max())
    return bool(np.abs(centred).max() > limit)


def _warn(message: str, stacklevel: int = 3) -> None:
    # That of other metrics loads torch.
    warnings.warn(message, RuntimeWarning, stacklevel=stacklevel)
