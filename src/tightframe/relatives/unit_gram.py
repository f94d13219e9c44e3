"""Convex functions of the inner products of unit vectors, minimised and certified.

    min F(Q) = sum_k share_k log(1 + sum_{j != k} exp(a_kj(Q)))
    over   Q positive semi-definite, diag Q = 1,   a_kj affine in Q

By low-rank factors ``Q = V V^T`` with rows of length one, at full rank first, where every local
minimum is global, then at the rank that was found. The certificate asks no solver: F is convex, so
with its gradient S at ANY Q, ``y = diag(S Q)`` and every feasible Q',

    F(Q') >= F(Q) + <S, Q' - Q> >= F(Q) + size * min(0, least eigenvalue of S - diag y).

Everything is relative to F(Q), by the logarithm of F and its gradient: at the scales that people
train with F is 1e-30 and less, and what directions it leaves is as sharp as ever.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import HeatMaps, Matrix
from tightframe.lazy import needed
from tightframe.problem.counts import CountsLike, counts_array
from tightframe.rounding import FUNCTION, gamma, svd_error
from tightframe.solve import NotConvergedWarning
from tightframe.theory.certificate import Certificate, settled

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: Most classes.
MAX_CLASSES = 50

#: Shares of the largest singular value of V below which a direction is dropped, one a round.
RANK_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)

#: Iterations of L-BFGS in a first approach and after it, and steps of `_polish` without progress.
FIRST_ITERATIONS, MAX_ITERATIONS, PATIENCE = 100, 5000, 100

#: Least that a row counts beside others.
FLATTEST = 1e-8

#: Below, ``log(1 + e^x)`` is ``e^x (1 - e^x / 2)`` to rounding.
_SMALL = -30.0

#: Classes share a direction if the cosine is 1 up to the first, and have come together from the
#: second on: less than a right angle is left.
_MERGED, _ACUTE = 1e-6, 1e-3


class UnitLoss(ABC):
    """The function F: what a loss leaves to directions.

    Attributes
    ----------
    size : int
        Number of unit vectors.
    shares : ndarray, shape (K,)
        Of the classes in the mean.
    span : float
        The largest number that F takes the exponential of.
    constant : float
        What the loss has beside F.
    """

    size: int
    shares: Array
    span: float
    constant: float = 0.0

    @abstractmethod
    def ahead(self, gram: Array) -> Array:
        """Return ``a_kj``, shape (K, K), a class a row; the diagonal does not count."""

    @abstractmethod
    def slope(self, weights: Array) -> Array:
        """Return the symmetric gradient of ``sum_kj weights_kj a_kj``; the diagonal is zero."""

    def log_value(self, gram: Array) -> tuple[float, Array]:
        """Return log F and its gradient."""
        ahead = self.ahead(gram)
        np.fill_diagonal(ahead, -np.inf)
        largest = np.logaddexp.reduce(ahead, axis=1)
        small = largest < _SMALL
        loss = np.logaddexp(0.0, largest)  # zero where it underflows, which is small
        log_loss = np.where(
            small,
            largest - np.exp(np.minimum(largest, 0.0)) / 2,
            np.log(np.where(small, 1.0, loss)),
        )
        terms = np.log(self.shares) + log_loss
        value = float(np.logaddexp.reduce(terms))
        steep = np.exp(terms - value + largest - loss - log_loss)  # of every class's sum
        weights: Array = np.exp(ahead - largest[:, None]) * steep[:, None]
        return value, self.slope(weights)


@dataclass(frozen=True, eq=False)
class UnitGram:
    """Unit vectors and how well they are certified.

    Attributes
    ----------
    vectors : ndarray, shape (size, rank)
    objective, lower_bound : float
        Of the whole loss. The bound has the rounding of its evaluation subtracted.
    relative_gap : float
        Certified distance from the minimum of F, as a share of it.
    """

    vectors: Array
    objective: float
    lower_bound: float
    relative_gap: float


class Siblings(NamedTuple):
    """Classes of one count, and how near their vectors are.

    Attributes
    ----------
    classes : int
    samples : int
        Of each.
    cosine : float
        The largest between two of them; NaN of a class alone.
    to_others : float
        The largest to a class of another count; NaN where all have one count.
    """

    classes: int
    samples: int
    cosine: float
    to_others: float


@dataclass(frozen=True, eq=False)
class UnitSolution(ABC):
    """What `NormalizedHead` and `SupervisedContrastive` have in common.

    Which classes come together is read off the classifier rows of a head and off the class means of
    a contrastive loss.
    """

    counts: NDArray[np.int64]
    objective: float
    lower_bound: float
    relative_gap: float
    status: str

    @property
    def gap(self) -> float:
        """Certified distance from the minimum, nats."""
        return self.objective - self.lower_bound

    @property
    @abstractmethod
    def rank(self) -> int:
        """Dimensions that the vectors have; fewer may do, no more are of use."""

    @property
    @abstractmethod
    def _cosines(self) -> dict[str, Array]:
        """Cosines between the vectors of classes, (K, K), by what these are; what tells first."""

    @property
    def siblings(self) -> tuple[Siblings, ...]:
        """Classes of equal count, the largest first: whether minorities come together."""
        cosines = next(iter(self._cosines.values()))
        found = []
        for count in sorted(set(self.counts.tolist()), reverse=True):
            own = self.counts == count
            pairs = cosines[np.ix_(own, own)][np.triu_indices(own.sum(), 1)]
            others = cosines[np.ix_(own, ~own)].ravel()
            closest = [float(some.max()) if len(some) else math.nan for some in (pairs, others)]
            found.append(Siblings(int(own.sum()), count, *closest))
        return tuple(found)

    @property
    def merged(self) -> tuple[tuple[int, ...], ...]:
        """Classes that share one direction, as far as numbers tell: they cannot be told apart."""
        same = next(iter(self._cosines.values())) > 1 - _MERGED
        groups = {tuple(np.flatnonzero(row).tolist()) for row in same}
        return tuple(sorted(group for group in groups if len(group) > 1))

    @property
    def note(self) -> str:
        """In words, which classes have merged or come together; empty where none have."""
        what, etf = next(iter(self._cosines)), -1 / (len(self.counts) - 1)
        said = []
        for group in self.merged:
            least, most = self.counts[list(group)].min(), self.counts[list(group)].max()
            samples = f"{least}" if least == most else f"{least} to {most}"
            said.append(f"{len(group)} classes of {samples} samples share one direction")
        said += [
            f"classes of {group.samples} samples come together (cosine of {what} "
            f"{group.cosine:.3f}, {etf:.3f} in a simplex ETF)"
            for group in self.siblings
            if _ACUTE < group.cosine <= 1 - _MERGED
        ]
        return "; ".join(said)

    @abstractmethod
    def _settings(self) -> dict[str, float]:
        """Return what was asked beside counts, by name."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "counts": self.counts.tolist(),
            **self._settings(),
            "objective": self.objective,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "relative_gap": self.relative_gap,
            "status": self.status,
            "rank": self.rank,
            "siblings": [
                {key: None if value != value else value for key, value in group._asdict().items()}
                for group in self.siblings
            ],
            "merged": [list(group) for group in self.merged],
            "note": self.note,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row a class: its samples, the class whose vector is nearest, and the cosine.

        Raises
        ------
        ImportError
            If pandas is missing (``pip install 'tightframe[report]'``).
        """
        with needed("to_frame", "pandas"):
            import pandas as pd
        cosines = next(iter(self._cosines.values())) - 3 * np.eye(len(self.counts))
        nearest = cosines.argmax(axis=1)
        return pd.DataFrame(
            {
                "samples": self.counts,
                "nearest": nearest,
                "cosine": cosines.max(axis=1),
                "merged": [any(k in group for group in self.merged) for k in range(len(nearest))],
            }
        )

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the cosines between the vectors of classes.

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
        what, cosines = next(iter(self._cosines.items()))
        return plot(
            HeatMaps(
                f"Cosines of {what}",
                [Matrix("", cosines)],
                x_label="class",
                y_label="class",
                limit=1.0,
                note=self.note,
            ),
            ax,
        )

    def __repr__(self) -> str:
        """Return the size, the objective and its gap on one line."""
        settings = ", ".join(f"{name} {value:g}" for name, value in self._settings().items())
        return (
            f"{type(self).__name__}({len(self.counts)} classes, {settings}, objective "
            f"{self.objective:.8g}, gap {self.gap:.1e}, {self.status})"
        )


def few_counts(counts: CountsLike) -> NDArray[np.int64]:
    """Return samples per class, of few enough classes.

    Raises
    ------
    ValueError
        If they are no counts, or of more than `MAX_CLASSES` classes.
    """
    n = counts_array(counts)
    if len(n) > MAX_CLASSES:
        raise ValueError(f"counts: got {len(n)} classes, need at most {MAX_CLASSES}")
    return n


def status_of(found: UnitGram, tol: float) -> str:
    """Return whether the gap is within a tolerance, as `tightframe.solve` says it, and warn."""
    if found.relative_gap <= tol:
        return "optimal"
    warnings.warn(
        f"not converged: the certified relative gap is {found.relative_gap:.1e}, wanted {tol:.1e}",
        NotConvergedWarning,
        stacklevel=3,
    )
    return "not_converged"


def minimise(loss: UnitLoss, tol: float, seed: int) -> UnitGram:
    """Return the best of the rounds; the certified gap says whether that is the minimum.

    ``tol`` is the relative gap that ends the rounds.
    """
    rng = np.random.default_rng(seed)
    vectors = _descend(loss, rng.normal(size=(loss.size, loss.size)) / np.sqrt(loss.size))
    best = certified(loss, vectors)
    left, values, _ = np.linalg.svd(vectors, full_matrices=False)
    for tolerance in RANK_TOLERANCES:
        kept = max(int((values > tolerance * values[0]).sum()), 1)
        found = certified(loss, _descend(loss, left[:, :kept] * values[:kept]))
        # Of two that are good enough, the one of lower rank.
        if found.relative_gap <= max(best.relative_gap, tol):
            best = found
        if found.relative_gap <= tol:
            break
    return best


def certified(loss: UnitLoss, vectors: Array) -> UnitGram:
    """Return any vectors, made unit ones, with their bound."""
    unit = _unit(vectors)
    gram = unit @ unit.T
    np.fill_diagonal(gram, 1.0)
    log_value, gradient = loss.log_value(gram)
    slack = gradient - np.diag((gradient * gram).sum(axis=1))
    error = svd_error(loss.size) * float(np.linalg.norm(slack))
    least = float(np.linalg.eigvalsh(slack)[0]) - error
    # No Q has an entry above 1, so rounding of the gradient counts at most twice its share.
    roundings = gamma(4 * loss.size + 10 * FUNCTION + 8 * loss.span)
    rounding = roundings * (2 * float(np.abs(gradient).sum()) + 1.0)
    share = settled(1.0, 1.0 + loss.size * min(least, 0.0), rounding, "unit vectors")
    value = math.exp(log_value)
    bound = loss.constant + value * share
    bound -= gamma(loss.size + 4 * FUNCTION) * loss.constant
    return UnitGram(unit, loss.constant + value, bound, 1.0 - share)


def candidate(loss: UnitLoss, vectors: Array, lower_bound: float) -> Certificate:
    """Certify vectors, with a lower bound that is known."""
    found = certified(loss, vectors)
    return Certificate(found.objective, max(found.lower_bound, lower_bound))


def require_directions(name: str, vectors: Array) -> None:
    """Refuse rows of which one has no direction."""
    if (np.abs(vectors).max(axis=1, initial=0.0) == 0).any():
        raise ValueError(f"{name}: a vector is zero, which has no direction")


def _descend(loss: UnitLoss, start: Array) -> Array:
    """Minimise over rows of unit length, then `_polish`.

    In a first approach rows are alike. Then each counts as its multiplier ``y``: that is how F
    bends along its sphere, and differs by the imbalance of the classes.
    """
    alike = np.ones((loss.size, 1))
    unit = _approach(loss, _unit(start), alike, FIRST_ITERATIONS)
    _, gradient = loss.log_value(unit @ unit.T)
    multipliers = np.abs((gradient * (unit @ unit.T)).sum(axis=1, keepdims=True))
    sizes = np.sqrt(np.maximum(multipliers / multipliers.max(), FLATTEST))
    unit = _approach(loss, unit, sizes, MAX_ITERATIONS)
    return _polish(loss, _polish(loss, unit, sizes), alike)


def _approach(loss: UnitLoss, unit: Array, sizes: Array, iterations: int) -> Array:
    """Follow L-BFGS on rows of these lengths: the shorter a row, the further it turns."""
    from scipy.optimize import minimize

    shape = unit.shape

    def value(x: Array) -> tuple[float, Array]:
        rows = x.reshape(shape)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        cost, slope = _on_spheres(loss, rows / lengths)
        return cost, (slope / lengths).ravel()

    options: Any = {
        "maxiter": iterations,
        "maxfun": 2 * iterations,
        "maxcor": 30,
        "ftol": 0.0,
        "gtol": 1e-13,
    }
    x = (sizes * unit).ravel()
    found = minimize(value, x, jac=True, method="L-BFGS-B", options=options).x
    return _unit(found.reshape(shape))


def _polish(loss: UnitLoss, unit: Array, sizes: Array) -> Array:
    """Follow the gradient by steps of Barzilai and Borwein until its size no longer falls.

    Values of F stop telling points apart at half the digits of its gradient.
    """
    slope = _on_spheres(loss, unit)[1] / sizes
    best, size, waited = unit, float(np.linalg.norm(slope)), 0
    length = 1e-3 / size if size > 0 else 0.0
    while size > 0 and waited < PATIENCE:
        new = _unit(unit - length * slope / sizes)
        new_slope = _on_spheres(loss, new)[1] / sizes
        step, change = sizes * (new - unit), new_slope - slope
        curvature = float(np.vdot(step, change))
        if not curvature > 0:
            break
        length = float(np.vdot(step, step)) / curvature
        unit, slope, waited = new, new_slope, waited + 1
        if (reached := float(np.linalg.norm(slope))) < size:
            best, size, waited = unit, reached, 0
    return best


def _on_spheres(loss: UnitLoss, unit: Array) -> tuple[float, Array]:
    """Return log F and its gradient along the spheres that the rows are on."""
    cost, gradient = loss.log_value(unit @ unit.T)
    slope = 2 * gradient @ unit
    return cost, slope - (slope * unit).sum(axis=1, keepdims=True) * unit


def _unit(rows: Array) -> Array:
    # Squares of very large or small entries would leave the range.
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    unit: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
