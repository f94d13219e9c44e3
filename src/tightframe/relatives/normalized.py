"""Heads with normalised weights and features: cosine softmax, NormFace, CosFace.

    logits  s <w_j, h> - s m [j = y],   all w_j and h of length one

Every sample of a class may share one h (the mean of theirs is a shorter vector, which another
dimension makes longer), so the loss is a convex function of the inner products of 2K unit vectors,
at any counts, and `relatives.unit_gram` certifies its minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import positive_float, whole_number
from tightframe.lazy import needed
from tightframe.problem.counts import CountsLike, counts_array
from tightframe.relatives.unit_gram import (
    MAX_CLASSES,
    Function,
    certified,
    cosine_map,
    minimise,
    status_of,
)
from tightframe.theory.certificate import Certificate, finite_array

Array = NDArray[np.float64]

#: Largest scale, beyond which softmax is a step to rounding.
MAX_SCALE = 1e4

#: Cosines differ by no more.
MAX_MARGIN = 2.0


@dataclass(frozen=True, eq=False)
class NormalizedHead:
    """The best directions of classifier rows and class means, certified.

    Attributes
    ----------
    counts : ndarray, shape (K,)
    scale, margin : float
    objective : float
        Mean cross-entropy over the samples, nats.
    lower_bound : float
        Certified, in any dimension; the rounding of its evaluation is subtracted.
    status : {"optimal", "not_converged"}
        Whether the gap is within the tolerance.
    weights : ndarray, shape (K, r)
        Rows of length one.
    class_means : ndarray, shape (r, K)
        Columns of length one.
    """

    counts: NDArray[np.int64]
    scale: float
    margin: float
    objective: float
    lower_bound: float
    status: str
    weights: Array
    class_means: Array

    @property
    def gap(self) -> float:
        """Certified distance from the minimum, nats."""
        return self.objective - self.lower_bound

    @property
    def rank(self) -> int:
        """Dimensions that these vectors have; fewer may do, no more are of use."""
        return int(self.weights.shape[1])

    @property
    def logits(self) -> Array:
        """``s <w_j, h_k>`` without margin, shape (K, K), column k of class k."""
        return self.scale * self.weights @ self.class_means

    @property
    def weight_cosines(self) -> Array:
        """Between classifier rows, shape (K, K)."""
        return self.weights @ self.weights.T

    @property
    def mean_cosines(self) -> Array:
        """Between class means, shape (K, K)."""
        return self.class_means.T @ self.class_means

    def certify(self, weight: ArrayLike, class_means: ArrayLike) -> Certificate:
        """Return the objective of other directions, and its distance from the minimum.

        Parameters
        ----------
        weight : array_like, shape (K, D)
            Normalised here.
        class_means : array_like, shape (D, K)
            Means of normalised features, normalised here.

        Raises
        ------
        ValueError
            If shapes do not fit, an entry is not finite, or a vector is zero.
        """
        k = len(self.counts)
        shape = np.shape(weight)
        if len(shape) != 2 or shape[0] != k:
            raise ValueError(f"weight: got shape {shape}, need ({k}, D)")
        w = finite_array("weight", weight, shape)
        h = finite_array("class_means", class_means, (shape[1], k))
        for name, vectors in (("weight", w), ("class_means", h.T)):
            if (np.abs(vectors).max(axis=1) == 0).any():
                raise ValueError(f"{name}: a vector is zero, which has no direction")
        loss = _loss(self.counts, self.scale, self.margin)
        span = _span(self.scale, self.margin)
        found = certified(loss, np.vstack([w, h.T]), span)
        return Certificate(found.objective, max(found.lower_bound, self.lower_bound))

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "counts": self.counts.tolist(),
            "scale": self.scale,
            "margin": self.margin,
            "objective": self.objective,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "status": self.status,
            "rank": self.rank,
            "weight_cosines": self.weight_cosines.tolist(),
            "mean_cosines": self.mean_cosines.tolist(),
            "logits": self.logits.tolist(),
        }

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the cosines between classifier rows.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Drawn on a figure of its own by default.

        Returns
        -------
        tuple of figure and axes

        Raises
        ------
        ImportError
            If Matplotlib is missing (``pip install 'tightframe[report]'``).
        """
        with needed("plot", "Matplotlib"):
            from tightframe.figures.mpl import plot
        return plot(cosine_map("Cosines of classifier rows", self.weight_cosines, "class"), ax)

    def __repr__(self) -> str:
        """Return the size, the objective and its gap on one line."""
        return (
            f"NormalizedHead({len(self.counts)} classes, scale {self.scale:g}, margin "
            f"{self.margin:g}, objective {self.objective:.8g}, gap {self.gap:.1e}, {self.status})"
        )


def normalized_head(
    counts: CountsLike,
    *,
    scale: float,
    margin: float = 0.0,
    tol: float = 1e-8,
    seed: int = 0,
) -> NormalizedHead:
    """Return the best directions of a head with normalised weights and features.

    Cosine softmax and NormFace (Wang et al. 2017) without, CosFace (Wang et al. 2018) with a
    margin. Under imbalance the directions are no simplex ETF: minorities come together, as they do
    with weight decay.

    Parameters
    ----------
    counts : str, mapping or iterable of int
        Samples per class, for 2 to 50 classes.
    scale : float
        Factor ``s`` of the cosines, one over the temperature; up to 10,000.
    margin : float
        Taken off the own cosine, from 0 to 2.
    tol : float
        Certified gap wanted, nats; relative where the objective is above 1.
    seed : int
        Of the random start.

    Returns
    -------
    NormalizedHead

    Raises
    ------
    ValueError
        If an argument is out of range.

    Warns
    -----
    NotConvergedWarning
        If the gap is above ``tol``.

    Examples
    --------
    >>> found = normalized_head("100x2,10x2", scale=4)
    >>> round(found.objective, 8), found.status
    (0.01119293, 'optimal')
    >>> cosines = found.weight_cosines
    >>> cosines[0, 1].round(3), cosines[2, 3].round(3)
    (np.float64(-0.632), np.float64(0.2))
    """
    n = counts_array(counts)
    if len(n) > MAX_CLASSES:
        raise ValueError(f"counts: got {len(n)} classes, need at most {MAX_CLASSES}")
    s, m = positive_float("scale", scale), positive_float("margin", margin, or_zero=True)
    if s > MAX_SCALE:
        raise ValueError(f"scale: got {s:g}, need at most {MAX_SCALE:g}")
    if m > MAX_MARGIN:
        raise ValueError(f"margin: got {m:g}, need at most {MAX_MARGIN:g}")
    goal = positive_float("tol", tol)
    k = len(n)
    found = minimise(_loss(n, s, m), 2 * k, _span(s, m), goal, whole_number("seed", seed, 0))
    return NormalizedHead(
        counts=n,
        scale=s,
        margin=m,
        objective=found.objective,
        lower_bound=found.lower_bound,
        status=status_of(found, goal),
        weights=found.vectors[:k],
        class_means=found.vectors[k:].T,
    )


def _span(scale: float, margin: float) -> float:
    return scale * (2 + margin)


def _loss(counts: NDArray[np.int64], scale: float, margin: float) -> Function:
    """Return the loss as a function of the Gram matrix of rows and class means."""
    k, shares = len(counts), counts / counts.sum()
    own = np.eye(k, dtype=bool)

    def value(gram: Array) -> tuple[float, Array]:
        cosines = gram[:k, k:]
        # Differences from the own logit, which keep a small loss's digits.
        ahead = scale * (cosines - cosines[own] + margin)
        ahead[own] = -np.inf
        loss = np.logaddexp(0.0, np.logaddexp.reduce(ahead, axis=0))
        slope = np.exp(ahead - loss)
        slope[own] = np.expm1(-loss)
        slope *= scale / 2 * shares
        gradient = np.zeros((2 * k, 2 * k))
        gradient[:k, k:], gradient[k:, :k] = slope, slope.T
        return float(shares @ loss), gradient

    return value
