"""`fit_head`: the best head on given features, certified."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import array_of, positive_float, whole_number
from tightframe.heads.last_layer import LastLayer, finite_array, loss_terms
from tightframe.heads.ridge import RidgeProblem
from tightframe.heads.scores import Scores
from tightframe.heads.terms import LossTerms
from tightframe.problem.class_names import MAX_LABEL
from tightframe.problem.counts import PerClass
from tightframe.saved import Saved
from tightframe.shown import Shown
from tightframe.solution import Status
from tightframe.solve import NotConvergedWarning

Array = NDArray[np.float64]

#: Iterations until the metric is taken anew: it is worst where the fit begins.
STAGES = (10, 30, 70, 200, 400, 800)

#: Evaluations of the objective before it is given up.
MAX_EVALUATIONS = 3000


@dataclass(frozen=True, eq=False)
class FittedHead(Shown, Saved):
    """A minimiser of the head's convex problem, and how well that is certified.

    Attributes
    ----------
    weight : ndarray, shape (K, D)
    bias : ndarray, shape (K,), or None
    objective : float
        Mean loss in nats and ridge, at this head.
    lower_bound : float
        No head on these features has a smaller objective: a value of the dual problem.
    status : Status
        ``"optimal"`` if the gap is within the tolerance, else ``"not_converged"``.
    training : Scores
        Accuracies on the samples that it was fitted to, by its plain logits.
    held_out : Scores or None
        The same of the held-out samples.
    """

    weight: Array
    bias: Array | None
    objective: float
    lower_bound: float
    status: Status
    training: Scores
    held_out: Scores | None

    @property
    def gap(self) -> float:
        """Certified absolute gap to the best head."""
        return self.objective - self.lower_bound

    @property
    def accuracy(self) -> float:
        """Share of the training samples that it gets right."""
        return self.training.accuracy

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the classes of the share of training samples that it gets right."""
        return self.training.balanced

    @property
    def held_out_accuracy(self) -> float | None:
        """Share of the held-out samples that it gets right."""
        return None if self.held_out is None else self.held_out.accuracy

    @property
    def held_out_balanced_accuracy(self) -> float | None:
        """The same, a mean over the classes that have held-out samples."""
        return None if self.held_out is None else self.held_out.balanced

    def __repr__(self) -> str:
        return (
            f"FittedHead({len(self.weight)} classes, {self.status}, balanced accuracy "
            f"{self.balanced_accuracy:.3g})"
        )

    def logits(self, features: ArrayLike) -> Array:
        """Return ``features W^T + b``, shape (N, K)."""
        x, width = array_of("features", features), self.weight.shape[1]
        if x.dtype.kind not in "iuf" or x.shape[-1:] != (width,):
            raise ValueError(f"features: got {x.dtype} of shape {x.shape}, need (N, {width})")
        product: Array = x.astype(np.float64, copy=False) @ self.weight.T
        return product if self.bias is None else product + self.bias

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays, JSON-ready."""
        return {
            "objective": self.objective,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "status": str(self.status),
            "training": self.training.to_dict(),
            "held_out": None if self.held_out is None else self.held_out.to_dict(),
        }


def fit_head(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    weight_decay: float,
    class_weights: PerClass | None = None,
    logit_adjustment: PerClass | None = None,
    label_smoothing: float = 0.0,
    smoothing_weights: str = "own",
    class_margins: PerClass | None = None,
    logit_scale: PerClass | None = None,
    bias: bool = True,
    num_classes: int | None = None,
    held_out: tuple[Any, Any] | None = None,
    tol: float = 1e-6,
    max_evaluations: int = MAX_EVALUATIONS,
    start: tuple[ArrayLike, ArrayLike | None] | None = None,
) -> FittedHead:
    """Fit the head that is best on given features: cross-entropy with a ridge, to its optimum.

    The objective is ``sum_i c_i loss(W h_i + b + a, y_i) + (weight_decay / 2) (||W||^2 +
    ||b||^2)``, its labels smoothed, its logits scaled or less a margin if asked for. It is convex,
    so that the result does not depend on where a training began: what the head alone can do. L-BFGS
    solves it in the metric of its Hessian; the gap is certified by a point of the dual problem (see
    `tightframe.heads.ridge`).

    Parameters
    ----------
    features : array_like or tensor, shape (N, D)
        They are kept in double precision: 8 N D bytes, unless they already are.
    labels : array_like or tensor, shape (N,)
        Whole numbers from 0.
    weight_decay : float
        Of weight and bias, as in an optimiser: mean loss plus ``weight_decay / 2`` times squares.
    class_weights : str, iterable of float, or mapping, optional
        As in `Problem`, also ``"balanced"``. They are scaled to mean 1 over the samples, as
        PyTorch's weighted mean does.
    logit_adjustment : str, iterable of float, or mapping, optional
        As in `Problem`, also ``"prior"`` for ``log(n_k / N)``: added to the logits inside the loss
        only. A class without samples counts as one of one sample.
    label_smoothing, smoothing_weights, class_margins, logit_scale : optional
        As in `Problem`: further terms of the loss, with all of which it stays convex. PyTorch's
        loss with both weights and smoothing has ``smoothing_weights="labels"``. Scores are those of
        plain logits, without margins and scales.
    bias : bool
        Whether the head has one.
    num_classes : int, optional
        K; one more than the largest label if not given.
    held_out : tuple of (features, labels), optional
        Samples to score the head on.
    tol : float
        Certified gap wanted, relative to the objective.
    max_evaluations : int
        Of objective and gradient; each takes 4 N D K operations.
    start : tuple of (weight, bias), optional
        Where to begin; by default at zero. The minimum is the same: a head of the same features,
        with other terms or another decay, saves some of the evaluations.

    Returns
    -------
    FittedHead

    Raises
    ------
    ValueError
        If an argument is out of range.

    Warns
    -----
    NotConvergedWarning
        If the gap stays above ``tol``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1, 2], [100, 100, 5])
    >>> features = np.eye(3)[labels] + 0.5 * rng.standard_normal((205, 3))
    >>> plain = fit_head(features, labels, weight_decay=1e-2)
    >>> plain.status, plain.gap <= 1e-6 * plain.objective
    ('optimal', True)
    >>> balanced = fit_head(features, labels, weight_decay=1e-2, class_weights="balanced")
    >>> bool(plain.training.recalls[2] < balanced.training.recalls[2])
    True
    """
    layer = _on_given_features(features, labels, num_classes, held_out)
    if not isinstance(bias, bool | np.bool_):
        raise ValueError(f"bias: got {type(bias).__name__}, need True or False")
    decay, tolerance = positive_float("weight_decay", weight_decay), positive_float("tol", tol)
    loss = loss_terms(
        layer.counts,
        class_weights,
        logit_adjustment,
        label_smoothing=label_smoothing,
        smoothing_weights=smoothing_weights,
        class_margins=class_margins,
        logit_scale=logit_scale,
    )
    terms = LossTerms.of(loss)
    weights = loss.class_weights if terms.weights is None else terms.weights
    problem = RidgeProblem(
        layer.features,
        layer.labels,
        weights / loss.class_weights[layer.labels].mean(),
        loss.logit_adjustment,
        decay,
        bool(bias),
        terms=terms if terms.are_soft else None,
    )
    most = whole_number("max_evaluations", max_evaluations)
    begin = None if start is None else _parameters(start, problem.shape, bool(bias))
    v, objective, gap = minimise(problem, tolerance, most, begin)
    d = layer.features.shape[1]
    weight, b = v[:, :d], v[:, d] if bias else None
    status = Status.OPTIMAL if gap <= tolerance * objective else Status.NOT_CONVERGED
    if status is Status.NOT_CONVERGED:
        warnings.warn(
            f"the head is not at its optimum: certified gap {gap / objective:.1e} of the "
            f"objective, wanted {tolerance:.1e}; a larger weight_decay is easier, more evaluations "
            "help",
            NotConvergedWarning,
            stacklevel=2,
        )
    held = None if layer.held_out is None else Scores.of_head(*layer.held_out, weight, b)
    training = Scores.of_head(layer.features, layer.labels, weight, b)
    return FittedHead(weight, b, objective, objective - gap, status, training, held)


def _on_given_features(
    features: Any, labels: Any, num_classes: int | None, held_out: tuple[Any, Any] | None
) -> LastLayer:
    """Check the arguments as `LastLayer` does, with a head of zeros."""
    x, y = array_of("features", features), array_of("labels", labels)
    k = 2
    if num_classes is not None:
        k = whole_number("num_classes", num_classes, 2)
    elif y.size and y.dtype.kind in "iuf" and np.isfinite(largest := y.max()):
        if largest > MAX_LABEL:
            raise ValueError(f"labels: got {largest}, need whole numbers up to {MAX_LABEL}")
        k = max(k, int(largest) + 1)
    zeros = np.zeros((k, x.shape[1] if x.ndim == 2 and x.shape[1] else 1))
    return LastLayer.of(x, y, zeros, held_out=held_out)


def _parameters(start: Any, shape: tuple[int, int], bias: bool) -> Array:
    """Return V of a head, checked."""
    if not isinstance(start, tuple | list) or len(start) != 2:
        size = f" of {len(start)}" if isinstance(start, tuple | list) else ""
        raise ValueError(f"start: got {type(start).__name__}{size}, need a pair of weight and bias")
    k, width = shape
    weight = finite_array("start", start[0], 2)
    own = np.zeros(k) if start[1] is None else finite_array("start", start[1], 1)
    if weight.shape != (k, width - bias) or own.shape != (k,):
        raise ValueError(
            f"start: got shapes {weight.shape} and {own.shape}, need ({k}, {width - bias}) and "
            f"({k},)"
        )
    return np.column_stack([weight, own]) if bias else weight


def minimise(
    problem: RidgeProblem, tol: float, most: int = MAX_EVALUATIONS, start: Array | None = None
) -> tuple[Array, float, float]:
    """Return the best V that was found, its objective, and its certified gap.

    Steps end when the gap is within ``tol`` of the objective, and of what V gains over no head at
    all, and of the square of that gain: on features near 0 any small head is optimal to rounding,
    but few tell the classes apart. There a head that gains g nats moves the logits by about g, and
    the objective by g^2. A ``start`` that is no better than no head is left: what is wrong of its
    bias is far larger than such logits.
    """
    nothing = problem.value_at_zero

    def reached(value: float, gap: float) -> bool:
        gain = max(nothing - value, 0.0)
        return gap <= tol * min(value, gain, gain**2)

    if start is None or problem.value_and_gradient(start)[0] >= nothing:
        start = np.zeros(problem.shape)
    best = (start, np.inf, np.inf)
    evaluations = 0
    for steps in STAGES:
        before = best[2]
        best, done = _stage(problem, best[0], steps, reached, most - evaluations)
        evaluations += done
        stuck = best[2] >= before  # rounding leaves no descent
        if reached(*best[1:]) or stuck or evaluations >= most:
            break
    v, value, gap = best
    return v, value, min(gap, value)  # no objective is below 0


def _stage(
    problem: RidgeProblem,
    start: Array,
    steps: int,
    reached: Callable[[float, float], bool],
    most: int,
) -> tuple[tuple[Array, float, float], int]:
    """Take L-BFGS steps in the metric at ``start``; return the point of the smallest gap."""
    from scipy.linalg import solve_triangular
    from scipy.optimize import minimize

    minimize_it: Any = minimize  # its overloads do not know a jacobian that comes with the value
    factor = problem.metric(start)
    best = (start, np.inf, np.inf)
    done = 0

    def evaluate(flat: Array) -> tuple[float, Array]:
        nonlocal best, done
        u = flat.reshape(problem.shape)
        v = u if factor is None else solve_triangular(factor, u.T, trans="T", lower=True).T
        value, gradient = problem.value_and_gradient(v)
        gap = problem.gap(gradient)
        done += 1
        if gap < best[2]:
            best = (v, value, gap)
        if reached(value, gap):
            raise _SolvedError
        if factor is not None:
            gradient = solve_triangular(factor, gradient.T, lower=True).T
        return value, gradient.ravel()

    first = (start if factor is None else start @ factor).ravel()
    options = {"maxiter": steps, "maxfun": most, "maxcor": 10, "ftol": 0.0, "gtol": 0.0}
    with contextlib.suppress(_SolvedError):
        minimize_it(evaluate, first, jac=True, method="L-BFGS-B", options=options)
    return best, done


class _SolvedError(Exception):
    """The gap is small enough: ends a minimisation."""
