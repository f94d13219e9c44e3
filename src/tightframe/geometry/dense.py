"""Geometry: Gram matrices of classifier and class means, the frames of the field, distances."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import choice, detached, is_whole, require_dense, whole_number
from tightframe.problem.counts import CountsLike, PerClass, counts_array
from tightframe.problem.label_law import logit_scales
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame, plot

if TYPE_CHECKING:
    import pandas as pd

#: The matrices of a Geometry that can be compared, in the order reports show them.
PARTS = ("classifier", "means", "centered_means", "logits")

#: Names of the SELI geometries by the head's bias.
SELI_NAMES = {"none": "SELI", "free": "free-bias SELI"}

#: Why a head is compared with which of them, by name.
SELI_REASONS = {
    SELI_NAMES["none"]: "SELI is the limit of small decays for a head without bias, as this one.",
    SELI_NAMES["free"]: "Free-bias SELI is the limit of small decays for a head with a bias, as "
    "this one.",
}


@dataclass(frozen=True, eq=False)
class Geometry(Shown, Saved):
    """The last layer's geometry up to rotation: two Gram matrices and the mean logits.

    Attributes
    ----------
    name : str
        What this geometry is, for example ``"simplex ETF"``.
    classifier : ndarray, shape (K, K), float64
        Gram matrix of the classifier's rows, ``W W^T``.
    means : ndarray, shape (K, K), float64
        Gram matrix of the (uncentred) class means, ``H^T H``.
    logits : ndarray, shape (K, K), float64
        Mean logits without bias, ``W H``; column k holds the samples of class k.
    """

    name: str
    classifier: NDArray[np.float64]
    means: NDArray[np.float64]
    logits: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = {part: getattr(self, part).shape for part in ("classifier", "means", "logits")}
        k = self.num_classes
        for part, shape in shapes.items():
            if shape != (k, k):
                raise ValueError(f"{part}: got shape {shape}, need ({k}, {k}) as the others")

    def __repr__(self) -> str:
        return f"Geometry({self.name!r}, {self.num_classes} classes)"

    def _blocks(self) -> Iterator[Block]:
        from tightframe.views.geometries import geometry_table

        yield geometry_table(self)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a class: its vectors' lengths, and which other ones are nearest to them.

        See `tightframe.shown.frame`.
        """
        from tightframe.views.geometries import geometry_columns

        return frame(geometry_columns(self))

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the cosines between the class means, see `tightframe.shown.plot`."""
        from tightframe.views.geometries import geometry_map

        return plot(geometry_map(self), ax)

    @classmethod
    def from_vectors(
        cls,
        weights: ArrayLike,
        class_means: ArrayLike,
        name: str = "measured",
        *,
        centered: ArrayLike | None = None,
    ) -> Geometry:
        """Build the geometry of a classifier and class means.

        Parameters
        ----------
        weights : array_like, shape (K, d)
            Classifier rows (the product of the layers where there are several).
        class_means : array_like, shape (d, K)
            Class means as columns.
        name : str
            Label for reports.
        centered : array_like, shape (d, K), optional
            Class means less their mean, where they are known to more digits than ``class_means``
            holds; computed from those if omitted.
        """
        w = np.asarray(weights, dtype=np.float64)
        h = np.asarray(class_means, dtype=np.float64)
        if w.ndim != 2 or h.ndim != 2 or w.shape != h.T.shape:
            raise ValueError(
                f"class_means: got shape {h.shape} with weights {w.shape}; "
                "need (d, K) with weights (K, d)"
            )
        geometry = cls(name, w @ w.T, h.T @ h, w @ h)
        # Centring the Gram of means far from zero would cancel, so the vectors are centred; the
        # cached property is filled in advance.
        c = h - h.mean(axis=1, keepdims=True) if centered is None else np.asarray(centered)
        geometry.__dict__["centered_means"] = c.T @ c
        return geometry

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return int(self.classifier.shape[0])

    @cached_property
    def centered_means(self) -> NDArray[np.float64]:
        """Gram matrix of the class means less their class-averaged mean, shape (K, K)."""
        return _center(self.means)

    @property
    def classifier_norms(self) -> NDArray[np.float64]:
        """Lengths of the classifier's rows, shape (K,)."""
        return _norms(self.classifier)

    @property
    def means_norms(self) -> NDArray[np.float64]:
        """Lengths of the class means, shape (K,)."""
        return _norms(self.means)

    @property
    def classifier_cosines(self) -> NDArray[np.float64]:
        """Cosines between classifier rows, shape (K, K); NaN where a row is zero."""
        return cosines(self.classifier)

    @property
    def means_cosines(self) -> NDArray[np.float64]:
        """Cosines between class means, shape (K, K); NaN where a mean is zero."""
        return cosines(self.means)

    def distance(self, other: Geometry, part: str = "logits") -> float:
        """Return the normalised Frobenius distance to another geometry.

        Parameters
        ----------
        other : Geometry
            Of the same number of classes.
        part : {"classifier", "means", "centered_means", "logits"}
            Which matrix is compared.
        """
        choice("part", part, PARTS)
        return normalized_distance(getattr(self, part), getattr(other, part))


def product_of(layers: Iterable[Any]) -> Any:
    """Return ``W_M ... W_1`` of linear layers, W_1 first: arrays, or tensors."""
    return reduce(lambda product, layer: layer @ product, layers)


def partial_products(layers: Sequence[Any], class_means: ArrayLike) -> list[Geometry]:
    """Return the geometry of a deep linear head at every layer, the whole head's first.

    Parameters
    ----------
    layers : sequence of array_like
        ``W_1`` (next to the features) to ``W_M``.
    class_means : array_like, shape (d, K)
        Class means as columns.

    Returns
    -------
    list of Geometry
        The j-th has ``W_M ... W_j`` for a classifier, and ``W_{j-1} ... W_1 H`` for class means;
        the logits are all the same.
    """
    given = [np.asarray(layer, dtype=np.float64) for layer in layers]
    passed = np.asarray(class_means, dtype=np.float64)
    found = []
    for j, layer in enumerate(given):
        found.append(Geometry.from_vectors(product_of(given[j:]), passed, name=f"layer {j + 1}"))
        passed = layer @ passed
    return found


def normalized_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Return ``|| A/||A||_F - B/||B||_F ||_F``, between 0 and 2.

    This is the papers' NC2 and NC3. A zero matrix has no direction: the answer is then NaN, with a
    RuntimeWarning, never a flattering zero.

    Parameters
    ----------
    a, b : array_like, equal shapes

    Raises
    ------
    ValueError
        If the shapes differ or an entry is not finite.
    """
    x, y = np.asarray(detached(a)), np.asarray(detached(b))
    for name, given in (("a", x), ("b", y)):
        if given.dtype.kind not in "biuf":
            raise ValueError(f"{name}: got {given.dtype}, need real numbers")
    x, y = x.astype(np.float64), y.astype(np.float64)
    if x.shape != y.shape:
        raise ValueError(f"b: got shape {y.shape}, need {x.shape} as the first matrix")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a, b: entries must be finite")
    # Dividing by the largest entry first keeps the squares from over- or underflowing.
    scale_x, scale_y = np.abs(x).max(initial=0.0), np.abs(y).max(initial=0.0)
    if scale_x == 0 or scale_y == 0:
        warnings.warn("distance to a zero matrix is undefined", RuntimeWarning, stacklevel=2)
        return float("nan")
    x, y = x / scale_x, y / scale_y
    return float(np.linalg.norm(x / np.linalg.norm(x) - y / np.linalg.norm(y)))


def gram_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Return `normalized_distance` of the Gram matrices of two sets of vectors.

    The Gram matrices are not made: of many vectors of small width they would be large. What is
    left of rounding is 2e-8.

    Parameters
    ----------
    a, b : array_like, shapes (d_1, m) and (d_2, m)
        The vectors as columns.

    Raises
    ------
    ValueError
        If the numbers of vectors differ.

    Examples
    --------
    >>> gram_distance([[1, 0], [0, 1]], [[0, 2], [2, 0]])  # turned and scaled
    0.0
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"b: got shape {y.shape}, need (d, m) with as many vectors as {x.shape}")
    top_x, top_y = np.abs(x).max(initial=0.0), np.abs(y).max(initial=0.0)
    if top_x == 0 or top_y == 0:
        warnings.warn("distance to a zero matrix is undefined", RuntimeWarning, stacklevel=2)
        return float("nan")
    x, y = x / top_x, y / top_y
    sizes = np.linalg.norm(x @ x.T) * np.linalg.norm(y @ y.T)
    cosine = float(np.linalg.norm(y @ x.T) ** 2 / sizes)
    return math.sqrt(max(2 - 2 * cosine, 0.0))


def cosines(gram: ArrayLike) -> NDArray[np.float64]:
    """Return the cosines behind a Gram matrix; NaN in the rows of a zero vector."""
    g = np.asarray(gram, dtype=np.float64)
    norms = _norms(g)
    norms[norms == 0] = np.nan
    result: NDArray[np.float64] = np.clip(g / norms[:, None] / norms[None, :], -1.0, 1.0)
    return result


def simplex_etf(num_classes: int) -> Geometry:
    """Return the simplex equiangular tight frame: every Gram is ``I - 11^T/K``.

    The geometry of neural collapse on balanced data (Papyan et al. 2020; Zhu et al. 2021, Thm 3.1).
    """
    frame = _projection(num_classes)
    return Geometry("simplex ETF", frame, frame, frame)


def orthogonal_frame(num_classes: int) -> Geometry:
    """Return the orthonormal frame, every Gram the identity (balanced MSE without bias)."""
    _projection(num_classes)
    eye = np.eye(num_classes)
    return Geometry("orthogonal frame", eye, eye, eye)


def general_orthogonal_frame(classifier_norms: ArrayLike, means_norms: ArrayLike) -> Geometry:
    """Return orthogonal classifier rows and class means of given lengths, aligned class by class.

    The general orthogonal frame (GOF) of imbalanced MSE without bias (Dang et al. 2023): every
    Gram is diagonal. A class of length 0 has vanished.

    Parameters
    ----------
    classifier_norms, means_norms : array_like, shape (K,)
        Lengths, finite and not below 0.

    Raises
    ------
    ValueError
        If they are not of one shape, fewer than two, or out of range.
    """
    lengths: list[NDArray[np.float64]] = []
    for name, value in (("classifier_norms", classifier_norms), ("means_norms", means_norms)):
        array = np.asarray(value, dtype=np.float64)
        if array.ndim != 1 or (lengths and array.shape != lengths[0].shape):
            need = "(K,)" if not lengths else f"{lengths[0].shape} as classifier_norms"
            raise ValueError(f"{name}: got shape {array.shape}, need {need}")
        if not (np.isfinite(array).all() and (array >= 0).all()):
            raise ValueError(f"{name}: lengths must be finite and at least 0")
        lengths.append(array)
    w, h = lengths
    _projection(len(w))
    return Geometry("general orthogonal frame", np.diag(w**2), np.diag(h**2), np.diag(w * h))


def etf_distance_floor(num_classes: int, dim: int) -> float:
    """Return the least distance to the simplex ETF that features of a width can have.

    ``sqrt(2 - 2 sqrt(r / (K - 1)))`` with r = min(D, K - 1): a Gram matrix (or mean logits) of
    rank r has at most r of the frame's K - 1 equal eigenvalues. 0 from D = K - 1 on; for K = 2 any
    centred vectors reach 0, which says nothing about them.

    Parameters
    ----------
    num_classes, dim : int
        K, at least 2, and D, at least 1.

    Raises
    ------
    ValueError
        If either is out of range.

    See Also
    --------
    distance_floor : for any target.
    """
    k, d = whole_number("num_classes", num_classes, 2), whole_number("dim", dim)
    return float(np.sqrt(2 - 2 * np.sqrt(min(d, k - 1) / (k - 1))))


def distance_floor(target: ArrayLike, dim: int) -> float:
    """Return the least normalised distance of a matrix of rank at most D to a target.

    ``sqrt(2 - 2 sqrt(sum of the D largest sigma_i^2 / sum of all))`` over the target's singular
    values (Eckart and Young). For a Gram matrix the best one is a Gram matrix itself, so no
    vectors of width D come closer.

    Parameters
    ----------
    target : array_like, shape (K, K)
        For example ``solution.geometry.classifier``.
    dim : int
        Width D of the vectors, at least 1.

    Returns
    -------
    float
        From 0 to sqrt(2); NaN, with a RuntimeWarning, for a zero target.

    Raises
    ------
    ValueError
        If the target is no finite square matrix or D is out of range.
    """
    matrix, d = np.asarray(target, dtype=np.float64), whole_number("dim", dim)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"target: got shape {matrix.shape}, need (K, K)")
    if not np.isfinite(matrix).all():
        raise ValueError("target: entries must be finite")
    values = np.linalg.svd(matrix, compute_uv=False)
    if values[0] == 0:
        warnings.warn("distance to a zero matrix is undefined", RuntimeWarning, stacklevel=2)
        return float("nan")
    # By the part left out, (1 - c) = (1 - c^2) / (1 + c): nothing cancels near 0.
    values = values / np.linalg.norm(values)
    left_out = float(np.sum(values[d:] ** 2))
    return float(np.sqrt(2 * left_out / (1 + np.sqrt(max(1 - left_out, 0.0)))))


def seli(
    counts: CountsLike, bias: str = "none", *, logit_scale: PerClass | None = None
) -> Geometry:
    """Return the simplex-encoded-labels interpolation geometry of class counts.

    The direction of the cross-entropy minimiser as the decays vanish. With
    ``(I - 11^T/K) D^{1/2} = V L U^T``: classifier ``V L V^T``, class means
    ``D^{-1/2} U L U^T D^{-1/2}``, logits ``I - 11^T/K`` (Thrampoulidis et al. 2022). With a free
    bias, which takes the classes' shares out, the same of the logits ``I - n 1^T/N``
    (docs/theory.md section 5): another frame, unless all counts are equal.

    Where the loss sees every logit times a factor (CDT, Ye et al. 2020; VS, Kini et al. 2021), the
    logits before it are ``(I - d d^T / ||d||^2) diag(d)``, ``d = 1 / logit_scale``: the cheapest
    with equal margins after it. A scale of 0.6 on the minorities makes their logits the larger.

    Parameters
    ----------
    counts : str or iterable of int
        Samples per class.
    bias : {"none", "free"}
        Bias of the head. For one whose bias is decayed like its weights ``"free"`` is by far the
        nearer of the two, see `seli_of_head`.
    logit_scale : str, iterable of float, or mapping, optional
        Factor of every class's logit in the loss, from 1e-3 to 1e3.

    Raises
    ------
    ValueError
        If an argument is malformed or out of range, or different scales come with a free bias:
        the limit has such a form in some cases only then, see `tightframe.label_limits`.

    Examples
    --------
    >>> seli("100x2,10x2").distance(seli("100x2,10x2", bias="free"), "means") > 0.6
    True
    >>> scaled = seli("100x2,10x2", logit_scale="1x2,0.5x2")
    >>> np.diag(scaled.logits).round(2).tolist()
    [0.9, 0.9, 1.2, 1.2]
    """
    n = counts_array(counts)
    root = np.sqrt(n)
    choice("bias", bias, SELI_NAMES)
    scale = logit_scales(logit_scale, len(root))
    scaled = bool((scale != scale[0]).any())
    if scaled and bias == "free":
        raise ValueError(
            "logit_scale: got different scales with bias='free', whose limit has this form in some "
            "cases only; need equal ones, or tightframe.label_limits, which finds it"
        )
    logits = _projection(len(root)) / scale
    if scaled:
        d = 1 / scale
        logits = np.diag(d) - np.outer(d, d**2) / (d @ d)
    elif bias == "free":
        logits = (np.eye(len(root)) - (n / n.sum())[:, None]) / scale
    v, length, ut = np.linalg.svd(logits * root)
    length[-1] = 0.0  # the frame has rank K - 1; the last value is rounding
    means = (ut.T * length) @ ut / np.outer(root, root)
    name = "SELI of scaled logits" if scaled else SELI_NAMES[bias]
    return Geometry(name, (v * length) @ v.T, means, logits)


def seli_of_head(counts: CountsLike, has_bias: bool) -> Geometry:
    """Return the SELI geometry that a head is compared with: that of its kind of bias.

    A decayed bias counts as a free one. Where all decays are equal the two limits compete: at
    counts 100x2,10x2 the class means of the minimiser are 0.07 from the frame of a free bias at
    lambda = 1e-3 and 0.22 at 1e-9, 0.65 and 0.49 from the other.
    """
    return seli(counts, "free" if has_bias else "none")


def _projection(num_classes: int) -> NDArray[np.float64]:
    if not is_whole(num_classes):
        raise ValueError(f"num_classes: got {num_classes!r}, need a whole number, at least 2")
    if num_classes < 2:
        raise ValueError(f"num_classes: got {num_classes}, need at least 2")
    require_dense(num_classes, "num_classes")
    return np.eye(num_classes) - 1.0 / num_classes


def _center(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = gram - gram.mean(axis=0)
    centered: NDArray[np.float64] = rows - rows.mean(axis=1, keepdims=True)
    return centered


def _norms(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = np.sqrt(np.clip(np.diagonal(gram), 0.0, None))
    return norms
