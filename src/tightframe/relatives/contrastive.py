"""Supervised contrastive loss on free features of length one (Khosla et al. 2020), certified.

    mean over i, over its positives p, of
    -log( exp(<h_i, h_p> / t) / sum_{a != i} exp(<h_i, h_a> / t) )

All samples of a class share one direction: averaged over permutations within classes, the Gram
matrix has one cosine a class and one a pair of classes, and a larger cosine within a class lowers
the loss and keeps it positive semi-definite. What is left is a convex function of the inner
products of K unit vectors, and `relatives.unit_gram` certifies its minimum.
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

#: Smallest temperature, below which softmax is a step to rounding.
MIN_TEMPERATURE = 1e-4


@dataclass(frozen=True, eq=False)
class SupervisedContrastive:
    """The best directions of class means, certified.

    Attributes
    ----------
    counts : ndarray, shape (K,)
    temperature : float
    objective : float
        Mean over the samples of a full batch, nats.
    lower_bound : float
        Certified, in any dimension; the rounding of its evaluation is subtracted.
    status : {"optimal", "not_converged"}
        Whether the gap is within the tolerance.
    class_means : ndarray, shape (r, K)
        Columns of length one.
    """

    counts: NDArray[np.int64]
    temperature: float
    objective: float
    lower_bound: float
    status: str
    class_means: Array

    @property
    def gap(self) -> float:
        """Certified distance from the minimum, nats."""
        return self.objective - self.lower_bound

    @property
    def rank(self) -> int:
        """Dimensions that these vectors have."""
        return len(self.class_means)

    @property
    def cosines(self) -> Array:
        """Between class means, shape (K, K)."""
        return self.class_means.T @ self.class_means

    def certify(self, class_means: ArrayLike) -> Certificate:
        """Return the objective of other directions, and its distance from the minimum.

        Parameters
        ----------
        class_means : array_like, shape (D, K)
            Normalised here.

        Raises
        ------
        ValueError
            If the shape does not fit, an entry is not finite, or a vector is zero.
        """
        shape = np.shape(class_means)
        if len(shape) != 2 or shape[1] != len(self.counts):
            raise ValueError(f"class_means: got shape {shape}, need (D, {len(self.counts)})")
        h = finite_array("class_means", class_means, shape)
        if (np.abs(h).max(axis=0) == 0).any():
            raise ValueError("class_means: a vector is zero, which has no direction")
        found = certified(
            _loss(self.counts, self.temperature), h.T, _span(self.counts, self.temperature)
        )
        return Certificate(found.objective, max(found.lower_bound, self.lower_bound))

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "counts": self.counts.tolist(),
            "temperature": self.temperature,
            "objective": self.objective,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "status": self.status,
            "rank": self.rank,
            "cosines": self.cosines.tolist(),
        }

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the cosines between class means.

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
        return plot(cosine_map("Cosines of class means", self.cosines, "class"), ax)

    def __repr__(self) -> str:
        """Return the size, the objective and its gap on one line."""
        return (
            f"SupervisedContrastive({len(self.counts)} classes, temperature {self.temperature:g}, "
            f"objective {self.objective:.8g}, gap {self.gap:.1e}, {self.status})"
        )


def supervised_contrastive(
    counts: CountsLike, *, temperature: float, tol: float = 1e-8, seed: int = 0
) -> SupervisedContrastive:
    """Return where supervised contrastive loss collapses to, on a full batch.

    A sample is no positive of its own, and left out of its own sum (``L_out``). Balanced classes
    make a simplex ETF; larger classes are further apart under imbalance.

    Parameters
    ----------
    counts : str, mapping or iterable of int
        Samples per class, at least 2 each (one alone has no positives), for 2 to 50 classes.
    temperature : float
        At least 1e-4.
    tol : float
        Certified gap wanted, nats; relative where the objective is above 1.
    seed : int
        Of the random start.

    Returns
    -------
    SupervisedContrastive

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
    >>> found = supervised_contrastive([5, 3, 2], temperature=0.5)
    >>> round(found.objective, 8), found.status
    (1.04521815, 'optimal')
    >>> found.cosines[0].round(4).tolist()
    [1.0, -0.5529, -0.5343]
    """
    n = counts_array(counts)
    if len(n) > MAX_CLASSES:
        raise ValueError(f"counts: got {len(n)} classes, need at most {MAX_CLASSES}")
    if n.min() < 2:
        k = int(np.argmin(n))
        raise ValueError(f"counts: class {k} has {n[k]} samples, need 2: one has no positives")
    t = positive_float("temperature", temperature)
    if t < MIN_TEMPERATURE:
        raise ValueError(f"temperature: got {t:g}, need at least {MIN_TEMPERATURE:g}")
    goal = positive_float("tol", tol)
    found = minimise(_loss(n, t), len(n), _span(n, t), goal, whole_number("seed", seed, 0))
    return SupervisedContrastive(
        counts=n,
        temperature=t,
        objective=found.objective,
        lower_bound=found.lower_bound,
        status=status_of(found, goal),
        class_means=found.vectors.T,
    )


def _span(counts: NDArray[np.int64], temperature: float) -> float:
    return 2 / temperature + float(np.log(counts.max()))


def _loss(counts: NDArray[np.int64], temperature: float) -> Function:
    """Return the loss as a function of the Gram matrix of class means."""
    shares = counts / counts.sum()
    others = np.log(np.broadcast_to(counts, (len(counts), len(counts)))).copy()
    np.fill_diagonal(others, np.log(counts - 1))
    own = np.eye(len(counts), dtype=bool)

    def value(gram: Array) -> tuple[float, Array]:
        terms = (gram - gram[own][:, None]) / temperature + others  # a class a row
        loss = np.logaddexp.reduce(terms, axis=1)
        slope = np.exp(terms - loss[:, None])
        slope[own] -= 1.0
        slope *= shares[:, None] / temperature
        return float(shares @ loss), (slope + slope.T) / 2

    return value
