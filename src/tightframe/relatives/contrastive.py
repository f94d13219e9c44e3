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

from tightframe.checks import number_of, positive_float, whole_number
from tightframe.problem.counts import CountsLike
from tightframe.relatives.unit_gram import UnitLoss, candidate, minimise, require_directions
from tightframe.relatives.unit_solution import UnitSolution, few_counts, status_of
from tightframe.theory.certificate import Certificate, finite_array

Array = NDArray[np.float64]

#: Temperatures below which softmax is a step, and beyond which the loss hardly knows of directions.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-4, 1e2


@dataclass(frozen=True, eq=False, repr=False)
class SupervisedContrastive(UnitSolution):
    """The best directions of class means, certified.

    Attributes
    ----------
    counts : ndarray, shape (K,)
    objective : float
        Mean over the samples of a full batch, nats.
    lower_bound : float
        Certified, in any dimension; the rounding of its evaluation is subtracted.
    relative_gap : float
        Certified distance from the minimum, as a share of what of the objective directions decide:
        beyond the mean of ``log(n_k - 1)``, which samples of the own class cost in any case.
    status : {"optimal", "not_converged"}
        Whether the relative gap is within the tolerance.
    temperature : float
    class_means : ndarray, shape (r, K)
        Columns of length one.
    """

    temperature: float
    class_means: Array

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
        require_directions("class_means", h.T)
        return candidate(_Contrast(self.counts, self.temperature), h.T, self.lower_bound)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {**super().to_dict(), "cosines": self.cosines.tolist()}

    @property
    def _cosines(self) -> dict[str, Array]:
        return {"class means": self.cosines}

    def _settings(self) -> dict[str, float]:
        return {"temperature": self.temperature}


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
        From 1e-4 to 100.
    tol : float
        Certified gap wanted, relative to what of the loss directions decide.
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
    n = few_counts(counts)
    if n.min() < 2:
        k = int(np.argmin(n))
        raise ValueError(
            f"counts: class {k} has {number_of(n[k], 'sample')}, need 2: one has no positives"
        )
    t = positive_float("temperature", temperature)
    if not MIN_TEMPERATURE <= t <= MAX_TEMPERATURE:
        raise ValueError(f"temperature: got {t:g}, need {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}")
    goal = positive_float("tol", tol)
    found = minimise(_Contrast(n, t), goal, whole_number("seed", seed, 0))
    return SupervisedContrastive(
        counts=n,
        objective=found.objective,
        lower_bound=found.lower_bound,
        relative_gap=found.relative_gap,
        status=status_of(found, goal),
        temperature=t,
        class_means=found.vectors.T,
    )


class _Contrast(UnitLoss):
    """What the loss is above the mean of ``log(n_k - 1)``, of class means."""

    def __init__(self, counts: NDArray[np.int64], temperature: float) -> None:
        self._temperature = temperature
        self.size = len(counts)
        self.shares = counts / counts.sum()
        own = np.log(counts - 1)
        self._others = np.log(counts) - own[:, None]
        self.span = 2 / temperature + float(np.log(counts.sum()))
        self.constant = float(self.shares @ own)

    def ahead(self, gram: Array) -> Array:
        ahead: Array = (gram - 1.0) / self._temperature + self._others  # a class a row
        return ahead

    def slope(self, weights: Array) -> Array:
        gradient: Array = (weights + weights.T) / (2 * self._temperature)
        return gradient
