"""The methods of `Landscape` as functions of a problem and a point."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from tightframe.geometry.blocks import Array
from tightframe.landscape.critical import CriticalPoint, Direction
from tightframe.landscape.descent import Descent
from tightframe.landscape.landscape import Landscape
from tightframe.landscape.point import Point, widths_of
from tightframe.problem.problem import Problem

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


def objective(
    problem: Problem, weights: ArrayLike, class_means: ArrayLike, bias: ArrayLike | None = None
) -> float:
    """Return F(W, H, b) (nats for cross-entropy); parameters as in `gradient`."""
    return _around(problem, weights).objective(_point(weights, class_means, bias))


def gradient(
    problem: Problem, weights: ArrayLike, class_means: ArrayLike, bias: ArrayLike | None = None
) -> Array:
    """Return F's gradient in the coordinates ``(W, H D^{1/2}, b)``.

    Parameters
    ----------
    problem : Problem
        Real features; any number of linear layers, counts, loss and bias.
    weights : array_like, shape (K, d), or list of array_like
        The classifier W; all layers of several, that next to the features first.
    class_means : array_like, shape (d, K)
        The class means H as columns.
    bias : array_like, shape (K,), optional
        The bias; zeros if omitted. Non-zero only with ``problem.bias`` other than ``"none"``.

    Returns
    -------
    ndarray, shape (2 K d,) or with a bias (2 K d + K,)
        ``(G V^T + weight_decay W, W^T G + feature_decay V, G D^{1/2} 1 + bias_decay b)``,
        ``V = H D^{1/2}`` and ``G = R D^{1/2} / N``, flattened row by row.

    Raises
    ------
    ValueError
        If the problem has non-negative features, or shapes do not fit.
    """
    return _around(problem, weights).gradient(_point(weights, class_means, bias))


def hessian(
    problem: Problem, weights: ArrayLike, class_means: ArrayLike, bias: ArrayLike | None = None
) -> LinearOperator:
    """Return F's Hessian, see `Landscape.hessian`; parameters as in `gradient`."""
    return _around(problem, weights).hessian(_point(weights, class_means, bias))


def gauss_newton(
    problem: Problem, weights: ArrayLike, class_means: ArrayLike, bias: ArrayLike | None = None
) -> LinearOperator:
    """Return the Gauss-Newton matrix, see `Landscape.gauss_newton`; parameters as in `gradient`."""
    return _around(problem, weights).gauss_newton(_point(weights, class_means, bias))


def critical_point(
    problem: Problem,
    weights: ArrayLike,
    class_means: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    tol: float = 1e-6,
    seed: int = 0,
) -> CriticalPoint:
    """Tell global minimum, local minimum, strict saddle and non-critical point apart.

    As `Landscape.critical_point`; the point as in `gradient`.
    """
    point = _point(weights, class_means, bias)
    return _around(problem, weights).critical_point(point, tol=tol, seed=seed)


def descent_direction(
    problem: Problem,
    weights: ArrayLike,
    class_means: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> Direction | None:
    """Return a direction of negative curvature, or None where none is found.

    As `Landscape.descent_direction`; the point as in `gradient`.
    """
    point = _point(weights, class_means, bias)
    return _around(problem, weights).descent_direction(point, seed=seed)


def saddle(
    problem: Problem, keep: int | Iterable[int], dim: int | None = None, *, seed: int = 0
) -> Point:
    """Return a critical point that uses part of the freedom only: in general a strict saddle.

    As `Landscape.saddle`, at width ``dim``: ``problem.dim`` or K if omitted.
    """
    return Landscape(problem, dim).saddle(keep, seed=seed)


def descend(
    problem: Problem,
    start: Point,
    *,
    tol: float = 1e-6,
    seed: int = 0,
    max_stages: int | None = None,
) -> Descent:
    """Descend from any start, for example a saddle, to the certified global minimum.

    As `Landscape.descend`, at the start's width.
    """
    if not isinstance(start, Point):
        raise ValueError(f"start: got {type(start).__name__}, need a landscape.Point")
    landscape = _around(problem, start.weights)
    return landscape.descend(start, tol=tol, seed=seed, max_stages=max_stages)


def _around(problem: Problem, weights: ArrayLike) -> Landscape:
    """Return the landscape of a classifier's width."""
    widths = widths_of(problem, weights)
    if len(set(widths)) > 1:
        return Landscape(problem.replace(dim=widths))
    return Landscape(problem, widths[0])


def _point(weights: ArrayLike, class_means: ArrayLike, bias: ArrayLike | None) -> Point:
    """Return what was given as a point; `Landscape` checks and converts it."""
    return Point(weights, class_means, bias)  # type: ignore[arg-type]
