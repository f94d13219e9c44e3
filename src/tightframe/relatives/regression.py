"""Regression collapse: the unconstrained feature model with squared error and real targets.

    min  1/(2N) sum_i ||W_M ... W_1 h_i + b - y_i||^2 + sum_m (weight_decay_m / 2) ||W_m||^2
         + (feature_decay / 2) sum_i ||h_i||^2

Its singular values decouple as those of MSE on classes do (`closed_form.deep_linear`): the centred
targets ``Y_c = U A V^T`` keep their singular vectors, and every value ``a_i`` is shrunk by itself.
docs/theory.md section 11 has the derivation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import MAX_DENSE_CLASSES, MAX_FEATURE, array_of, number_of, positive_float
from tightframe.figures.model import Chart, Curve, Mark
from tightframe.figures.style import PALETTE
from tightframe.geometry.dense import normalized_distance
from tightframe.problem.problem import Problem
from tightframe.rounding import FUNCTION, UNIT, gamma, svd_error
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame, plot
from tightframe.theory.certificate import Certificate, settled
from tightframe.theory.closed_form.deep_linear import collapse_factor, least_nonzero_cost, shrunk

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: Biases with a closed form.
BIASES = ("free", "none")

#: Targets are the same up to this share of them; below the second nothing is compared.
_SAME, _SMALL = 1e-6, 1e-150

#: Target directions with a curve in the picture, and decays along it.
MAX_CURVES, NUM_DECAYS = len(PALETTE), 200


@dataclass(frozen=True, eq=False)
class RegressionCollapse(Shown, Saved):
    """The global minimum of the unconstrained feature model of a regression.

    ``r`` is the rank, ``q`` the number of targets. All features and hidden layers may be rotated:
    ``W_1 R^T`` and ``R h`` for any R with orthonormal columns are as good.

    Attributes
    ----------
    objective : float
        Half the mean squared error (summed over the targets) plus the costs of the decays.
    lower_bound : float
        No network with these decays is below; the rounding of its evaluation is subtracted.
    weights : tuple of ndarray
        The layers W_1 (next to the features) to W_M; the last is (q, r).
    features : ndarray, shape (N, r)
        One row a sample.
    bias : ndarray, shape (q,)
        The mean target, or zeros.
    thresholds : ndarray, shape (min(N, q),)
        Direction i of the targets vanishes iff ``mean_decay`` is at least ``thresholds[i]``, the
        largest first. With one layer that is ``sqrt(variance_i / N)``.
    directions : ndarray, shape (q, min(N, q))
        The principal directions of the targets as columns, that of the largest variance first.
    variances : ndarray, shape (min(N, q),)
        Of the targets along them (about zero without a bias), divided by N.
    shares : ndarray, shape (min(N, q),)
        Share of every direction that the network fits, 0 where it vanishes.
    mean_decay : float
        ``sqrt(weight_decay feature_decay)``; with several layers the geometric mean of all decays.
    weight_decays : tuple of float
        Of every layer.
    feature_decay : float
    bias_kind : {"free", "none"}
    """

    objective: float
    lower_bound: float
    weights: tuple[Array, ...]
    features: Array
    bias: Array
    thresholds: Array
    directions: Array
    variances: Array
    shares: Array
    mean_decay: float
    weight_decays: tuple[float, ...]
    feature_decay: float
    bias_kind: str

    @property
    def gap(self) -> float:
        """Upper bound of the objective's distance from the minimum, from rounding alone."""
        return self.objective - self.lower_bound

    @property
    def rank(self) -> int:
        """Number of target directions that the features keep."""
        return len(self.weights[-1].T)

    @cached_property
    def gram(self) -> Array:
        """``W_M W_M^T`` of the last layer, shape (q, q): rotations do not change it."""
        return self.weights[-1] @ self.weights[-1].T

    @property
    def gamma(self) -> float | None:
        """The constant of NRC3, ``N weight_decay feature_decay``; None with several layers.

        The Gram matrix is proportional to ``S^{1/2} - gamma^{1/2} I`` as long as no direction
        vanishes, S the targets' covariance (about zero without a bias); beyond, eigenvalues that
        would be negative are zero.
        """
        return len(self.features) * self.mean_decay**2 if len(self.weights) == 1 else None

    @property
    def predictions(self) -> Array:
        """What the network answers for every sample, shape (N, q)."""
        fitted = self.features
        for weight in self.weights:
            fitted = fitted @ weight.T
        return fitted + self.bias

    def distance(self, weight: ArrayLike) -> float:
        """Return how far a classifier's Gram matrix is from the predicted one, from 0 to 2.

        ``|| W W^T / ||W W^T||_F - G / ||G||_F ||_F`` for the last layer (q, D) of a network.

        Raises
        ------
        ValueError
            If the layer has not q rows, or an entry is not finite.
        """
        w = layer_of("weight", weight)
        if len(w) != len(self.bias):
            raise ValueError(
                f"weight: got {number_of(len(w), 'row')}, need {len(self.bias)}, one a target"
            )
        return normalized_distance(w @ w.T, self.gram)

    def shares_at(self, mean_decay: float) -> Array:
        """Return which share of every target direction is fitted at another decay.

        Parameters
        ----------
        mean_decay : float
            In place of `mean_decay`.

        Returns
        -------
        ndarray, shape (min(N, q),)
            0 from `thresholds` on. A width that was given is left out of account.
        """
        total = len(self.features)
        values = np.sqrt(total * self.variances)
        decay = positive_float("mean_decay", mean_decay)
        kept = shrunk(values, total * decay, len(self.weights))
        return np.divide(kept, values, out=np.zeros_like(values), where=values > 0)

    def certify(
        self,
        targets: ArrayLike,
        features: ArrayLike,
        weights: ArrayLike | Iterable[ArrayLike],
        bias: ArrayLike | None = None,
    ) -> Certificate:
        """Return a network's own objective at these decays, and its distance from the minimum.

        Parameters
        ----------
        targets : array_like, shape (N, q)
            Those that were given to `regression_collapse`.
        features : array_like, shape (N, D)
        weights : array_like, shape (q, D), or a sequence of the layers, W_1 first
        bias : array_like, shape (q,), optional

        Raises
        ------
        ValueError
            If shapes are off, an entry is not finite, there is a bias where none is allowed, or the
            targets are others.
        """
        y, h = targets_of(targets), matrix_of("features", features)
        layers = layers_of(weights)
        if len(layers) != len(self.weights):
            raise ValueError(
                f"weights: got {number_of(len(layers), 'layer')}, need {len(self.weights)}"
            )
        if y.shape != (len(self.features), len(self.bias)):
            raise ValueError(
                f"targets: got shape {y.shape}, need {(len(self.features), len(self.bias))}"
            )
        self._require_same(y)
        b = np.zeros(y.shape[1]) if bias is None else matrix_of("bias", bias)[:, 0]
        if self.bias_kind == "none" and b.any():
            raise ValueError("bias: got a non-zero bias with bias='none'")
        cost = self.feature_decay / 2 * float(np.vdot(h, h))
        answers, size = h, h.shape[1] + 1
        for layer, decay in zip(layers, self.weight_decays, strict=True):
            w = layer_of("weights", layer)
            if answers.shape[1] != w.shape[1]:
                raise ValueError(
                    f"weights: got a layer of shape {w.shape} for {answers.shape[1]} features"
                )
            cost += decay / 2 * float(np.vdot(w, w))
            answers, size = answers @ w.T, size + w.shape[1]
        if len(answers) != len(y) or answers.shape[1] != y.shape[1] or len(b) != y.shape[1]:
            raise ValueError(
                f"features, weights, bias: make answers of shape {answers.shape}, need {y.shape}"
            )
        missed = answers + b - y
        primal = float(np.vdot(missed, missed)) / (2 * len(y)) + cost
        rounding = gamma(y.size + h.size + size) * primal
        return Certificate(
            primal, float(settled(primal, self.lower_bound, rounding, self)), rounding=rounding
        )

    def _require_same(self, targets: Array) -> None:
        """Refuse targets of another covariance: the bound is not theirs."""
        centred = targets - self.bias
        unit = float(np.abs(centred).max())
        if unit < _SMALL:  # so small that variances underflow, or zero
            return
        own = (self.directions * (self.variances / unit / unit)) @ self.directions.T
        found = (centred / unit).T @ (centred / unit) / len(targets)
        if not np.linalg.norm(found - own) <= _SAME * np.linalg.norm(own) + _SAME:
            raise ValueError("targets: are not those that the minimum was found for")

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready but what has a row a sample."""
        return {
            "num_samples": len(self.features),
            "weight_decays": list(self.weight_decays),
            "feature_decay": self.feature_decay,
            "mean_decay": self.mean_decay,
            "bias_kind": self.bias_kind,
            "objective": self.objective,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "rank": self.rank,
            "bias": self.bias.tolist(),
            "gram": self.gram.tolist(),
            "gamma": self.gamma,
            "directions": [
                {
                    "variance": float(variance),
                    "threshold": float(threshold),
                    "share": float(share),
                    "direction": direction.tolist(),
                }
                for variance, threshold, share, direction in zip(
                    self.variances, self.thresholds, self.shares, self.directions.T, strict=True
                )
            ],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row a target direction: its variance, its threshold, and what is fitted.

        See `tightframe.shown.frame`.
        """
        return frame(
            {
                "variance": self.variances,
                "threshold": self.thresholds,
                "share": self.shares,
                "vanished": self.shares == 0,
            }
        )

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw which share of every target direction is fitted, along the decay.

        See `tightframe.shown.plot`.
        """
        return plot(self._chart(), ax)

    def _chart(self) -> Chart:
        reach = np.append(self.thresholds[self.thresholds > 0], self.mean_decay)
        grid = np.geomspace(reach.min() / 10, reach.max() * 2, NUM_DECAYS)
        shares = np.array([self.shares_at(decay) for decay in grid])
        curves = [
            Curve(f"direction {i + 1}", grid.tolist(), shares[:, i].tolist(), color=i)
            for i in np.flatnonzero(self.variances[:MAX_CURVES]).tolist()
        ]
        more = np.count_nonzero(self.variances) - len(curves)
        return Chart(
            "Target directions that the features keep",
            "geometric mean of the decays",
            "share that is fitted",
            curves,
            marks=[Mark(self.mean_decay, "these decays")],
            log_x=True,
            note=f"{more} more directions have less variance" if more > 0 else "",
            nothing="the targets are constant",
        )

    def _blocks(self) -> Iterator[Block]:
        from tightframe.figures.table import Column, Table

        yield repr(self)
        names = ("variance", "threshold", "share")
        columns: list[str | Column] = ["direction"]
        columns += [Column(name, align="right", format=".5g") for name in names]
        parts = [getattr(self, name).tolist() for name in ("variances", "thresholds", "shares")]
        rows = [[i + 1, *row] for i, row in enumerate(zip(*parts, strict=True))][:MAX_CURVES]
        more = len(self.shares) - len(rows)
        yield Table("", columns, rows, f"{more} more directions." if more else "")

    def __repr__(self) -> str:
        """Return the size, the objective and its gap on one line."""
        return (
            f"RegressionCollapse({number_of(len(self.features), 'sample')}, "
            f"{number_of(len(self.bias), 'target')}, "
            f"rank {self.rank}, objective {self.objective:.6g}, gap {self.gap:.1e})"
        )


def regression_collapse(
    targets: ArrayLike,
    *,
    weight_decay: float | Iterable[float],
    feature_decay: float,
    bias: str = "free",
    depth: int = 1,
    dim: int | None = None,
) -> RegressionCollapse:
    """Return where regression with weight decay collapses to, in closed form.

    One layer (Andriopoulos et al. 2024, for decays that leave every direction): the classifier's
    Gram matrix is ``sqrt(feature_decay / weight_decay) [(Y_c Y_c^T)^{1/2} - N lambda I]_+``,
    ``lambda = sqrt(weight_decay feature_decay)``. Several layers: by von Neumann's trace inequality
    as for classes (docs/theory.md section 5), the values no longer shrink to zero but jump there.

    Parameters
    ----------
    targets : array_like, shape (N, q) or (N,)
        Real numbers, one row a sample.
    weight_decay : float or sequence of float
        ``(weight_decay / 2) ||W||_F^2``; one number for all layers or one a layer, W_1 first.
        Beside half the squared error, summed over targets: of a network trained with PyTorch's
        `MSELoss`, which has no half and averages over targets, multiply its decays by ``q / 2``.
    feature_decay : float
        ``(feature_decay / 2) sum_i ||h_i||^2``. The source's has a factor of 1/N: divide it by N.
    bias : {"free", "none"}
        A free bias takes the mean of the targets; a decayed one has no closed form.
    depth : int
        Linear layers after the features.
    dim : int, optional
        Width of features and hidden layers; fewer than the rank keep the largest directions.

    Returns
    -------
    RegressionCollapse

    Raises
    ------
    ValueError
        If the targets are no finite real numbers, of fewer than two samples or of more than 4096
        columns, or another argument is out of range.

    Examples
    --------
    Two targets of variances 4 and 0.01; the second vanishes from a decay of 0.05 on:

    >>> import numpy as np
    >>> targets = np.array([[2, 0.1], [-2, 0.1], [2, -0.1], [-2, -0.1]])
    >>> found = regression_collapse(targets, weight_decay=0.1, feature_decay=0.1)
    >>> found.thresholds.round(12).tolist(), found.rank
    ([1.0, 0.05], 1)
    >>> found.gram.round(12).tolist()
    [[3.6, 0.0], [0.0, 0.0]]
    """
    if isinstance(bias, str) and bias == "decayed":
        raise ValueError("bias: got 'decayed', which has no closed form; need 'free' or 'none'")
    y = targets_of(targets)
    # For the checks of its decays, and their mean.
    problem = Problem(
        [1, 1],
        loss="mse",
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        bias=bias,
        depth=depth,
        dim=dim,
    )
    total, count = y.shape
    mu, m = problem.mean_decay, problem.depth
    centre = np.zeros(count)
    if bias == "free":
        centre = y.mean(axis=0)
        centre = centre + (y - centre).mean(axis=0)  # the first sum has rounded
    centred = y - centre
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    size = float(np.linalg.norm(centred))
    error = svd_error(max(count, min(total, count))) * size + 4 * UNIT * float(np.linalg.norm(y))
    values = np.where(values <= error, 0.0, values)
    sigma = shrunk(values, total * mu, m)
    if problem.width is not None:
        sigma[problem.width :] = 0.0
    kept = sigma > 0
    cost = mu * sigma[kept] ** (2 / (m + 1))  # of every layer, and of the features
    layers = [np.diag(np.sqrt(cost / decay)) for decay in problem.weight_decays]
    layers[-1] = right[kept].T @ layers[-1]
    features = left[:, kept] * np.sqrt(cost / problem.feature_decay)
    missed = values - sigma
    objective = float(missed @ missed / (2 * total) + (m + 1) / 2 * cost.sum())
    rounding = gamma(2 * len(values) + 10 * FUNCTION) * objective + error * missed.sum() / total
    bound = _lower_bound(np.maximum(values - error, 0.0), mu, m, total, problem.width)
    return RegressionCollapse(
        objective=objective,
        lower_bound=settled(objective, bound, rounding, problem),
        weights=tuple(layers),
        features=features,
        bias=centre,
        thresholds=collapse_factor(m) * values ** (2 * m / (m + 1)) / total,
        directions=right.T,
        variances=values**2 / total,
        shares=np.divide(sigma, values, out=np.zeros_like(values), where=values > 0),
        mean_decay=mu,
        weight_decays=problem.weight_decays,
        feature_decay=problem.feature_decay,
        bias_kind=problem.bias,
    )


def _lower_bound(
    values: Array, mean_decay: float, depth: int, total: int, width: int | None
) -> float:
    """Return the decoupled bound of all factors, values as low as they may be."""
    zero = values**2 / (2 * total)
    cost = np.minimum(least_nonzero_cost(values, mean_decay, depth, total), zero)
    if width is not None:
        cost[width:] = zero[width:]
    return float(cost.sum()) * (1 - gamma(2 * len(values) + 10 * FUNCTION))


def targets_of(value: ArrayLike) -> Array:
    """Return targets as (N, q), or raise a ValueError."""
    array = matrix_of("targets", value)
    if len(array) < 2:
        raise ValueError(f"targets: got {number_of(len(array), 'sample')}, need at least 2")
    if array.shape[1] > MAX_DENSE_CLASSES:
        raise ValueError(
            f"targets: got {array.shape[1]} columns, need at most {MAX_DENSE_CLASSES}; "
            "one row a sample"
        )
    return array


def layers_of(weights: Any) -> list[Any]:
    """Return linear layers of one, or of several in a sequence; their entries are not looked at."""
    axes = getattr(weights, "ndim", None)
    if axes is None and isinstance(weights, Iterable) and not isinstance(weights, str):
        weights = list(weights)
        axes = 1 + max(map(_axes, weights), default=0)
    if not axes:
        raise ValueError(f"weights: got {weights!r}, need one layer or a sequence of layers")
    return [weights] if axes <= 2 else list(weights)


def _axes(value: Any) -> int:
    """Return how many axes a number, an array or a nested list has."""
    if isinstance(value, list | tuple):
        return 1 + max(map(_axes, value), default=0)
    return int(getattr(value, "ndim", 0))


def layer_of(name: str, value: Any) -> Array:
    """Return a layer as `matrix_of`; numbers of one axis or none as its single row."""
    return matrix_of(name, np.atleast_2d(array_of(name, value)))


def matrix_of(name: str, value: Any) -> Array:
    """Return finite real numbers of two axes; those of one axis as a column."""
    array = array_of(name, value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: got {array.dtype}, need real numbers")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: got shape {array.shape}, need two axes that are not empty")
    array = array.astype(np.float64)
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise ValueError(f"{name}: row {int(np.argmax(bad))} has an entry that is not finite")
    if np.abs(array).max() > MAX_FEATURE:
        raise ValueError(f"{name}: largest entry is {np.abs(array).max():.3g}, need at most 1e140")
    return array
