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
from tightframe.problem.counts import CountsLike
from tightframe.relatives.unit_gram import UnitLoss, candidate, minimise, require_directions
from tightframe.relatives.unit_solution import UnitSolution, few_counts, status_of
from tightframe.theory.certificate import Certificate, finite_array

Array = NDArray[np.float64]

#: Scales below which the loss hardly knows of directions, and beyond which softmax is a step.
MIN_SCALE, MAX_SCALE = 1e-2, 1e4

#: Cosines differ by no more.
MAX_MARGIN = 2.0


@dataclass(frozen=True, eq=False, repr=False)
class NormalizedHead(UnitSolution):
    """The best directions of classifier rows and class means, certified.

    Attributes
    ----------
    counts : ndarray, shape (K,)
    objective : float
        Mean cross-entropy over the samples, nats.
    lower_bound : float
        Certified, in any dimension; the rounding of its evaluation is subtracted.
    relative_gap : float
        Certified distance from the minimum as a share of the objective, also where that is too
        small for a float (zero at scales of a thousand).
    status : {"optimal", "not_converged"}
        Whether the relative gap is within the tolerance.
    scale, margin : float
    weights : ndarray, shape (K, r)
        Rows of length one.
    class_means : ndarray, shape (r, K)
        Columns of length one.
    """

    scale: float
    margin: float
    weights: Array
    class_means: Array

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
            require_directions(name, vectors)
        loss = _Cosines(self.counts, self.scale, self.margin)
        return candidate(loss, np.vstack([w, h.T]), self.lower_bound)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            **super().to_dict(),
            "weight_cosines": self.weight_cosines.tolist(),
            "mean_cosines": self.mean_cosines.tolist(),
            "logits": self.logits.tolist(),
        }

    @property
    def _cosines(self) -> dict[str, Array]:
        return {"classifier rows": self.weight_cosines, "class means": self.mean_cosines}

    def _settings(self) -> dict[str, float]:
        return {"scale": self.scale, "margin": self.margin}


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
    with weight decay (``note`` says so).

    Parameters
    ----------
    counts : str, mapping or iterable of int
        Samples per class, for 2 to 50 classes.
    scale : float
        Factor ``s`` of the cosines, one over the temperature; from 0.01 to 10,000.
    margin : float
        Taken off the own cosine, from 0 to 2.
    tol : float
        Certified gap wanted, relative to the objective.
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
    >>> print(found.note)
    classes of 10 samples come together (cosine of classifier rows 0.200, -0.333 in a simplex ETF)
    """
    n = few_counts(counts)
    s, m = positive_float("scale", scale), positive_float("margin", margin, or_zero=True)
    if not MIN_SCALE <= s <= MAX_SCALE:
        raise ValueError(f"scale: got {s:g}, need {MIN_SCALE:g} to {MAX_SCALE:g}")
    if m > MAX_MARGIN:
        raise ValueError(f"margin: got {m:g}, need at most {MAX_MARGIN:g}")
    goal = positive_float("tol", tol)
    k = len(n)
    found = minimise(_Cosines(n, s, m), goal, whole_number("seed", seed, 0))
    return NormalizedHead(
        counts=n,
        objective=found.objective,
        lower_bound=found.lower_bound,
        relative_gap=found.relative_gap,
        status=status_of(found, goal),
        scale=s,
        margin=m,
        weights=found.vectors[:k],
        class_means=found.vectors[k:].T,
    )


class _Cosines(UnitLoss):
    """Mean cross-entropy of cosines of rows and class means, rows first."""

    def __init__(self, counts: NDArray[np.int64], scale: float, margin: float) -> None:
        self._k, self._scale, self._margin = len(counts), scale, margin
        self.size = 2 * len(counts)
        self.shares = counts / counts.sum()
        self.span = scale * (2 + margin) + float(np.log(len(counts)))

    def ahead(self, gram: Array) -> Array:
        cosines = gram[self._k :, : self._k]  # a class mean a row
        ahead: Array = self._scale * (cosines - np.diagonal(cosines)[:, None] + self._margin)
        return ahead

    def slope(self, weights: Array) -> Array:
        k = self._k
        cross = self._scale / 2 * (weights - np.diag(weights.sum(axis=1)))
        gradient = np.zeros((2 * k, 2 * k))
        gradient[k:, :k], gradient[:k, k:] = cross, cross.T
        return gradient
