"""Points of the landscape and their coordinates, checked as they come in."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tightframe.checks import detached, is_whole, plain_number
from tightframe.geometry.blocks import Array
from tightframe.problem.problem import Problem


class Point(NamedTuple):
    """A point of the landscape, or a displacement; ``f(problem, *point)`` passes it on.

    Attributes
    ----------
    weights : ndarray, shape (K, d)
        The classifier W.
    class_means : ndarray, shape (d, K)
        The class means H as columns.
    bias : ndarray, shape (K,), or None
        None stands for zeros.
    """

    weights: Array
    class_means: Array
    bias: Array | None = None

    def to_vector(self, problem: Problem) -> Array:
        """Return the coordinates ``(W, H D^{1/2}, b)``, flattened row by row."""
        return Coordinates.of(problem, self).enter(self)

    @classmethod
    def from_vector(cls, problem: Problem, vector: ArrayLike) -> Point:
        """Return the point that coordinates stand for; the inverse of `to_vector`.

        Raises
        ------
        ValueError
            If the vector's length fits no width.
        """
        k, x = problem.num_classes, np.asarray(vector, dtype=np.float64)
        dim, rest = divmod(x.size - (k if problem.bias != "none" else 0), 2 * k)
        if x.ndim != 1 or dim < 0 or rest:
            raise ValueError(
                f"vector: got shape {x.shape}; need 2 K d numbers, and K more with a bias (K = {k})"
            )
        return Coordinates(problem, dim).point(x)


class Coordinates:
    """The flat vectors ``(W, V, b)`` of points of one width, and the scales between them.

    Parameters
    ----------
    problem : Problem
        One linear layer, real features.
    dim : int
        Width d.

    Raises
    ------
    ValueError
        If the problem has several layers or non-negative features.
    """

    def __init__(self, problem: Problem, dim: int) -> None:
        check_problem(problem)
        self.problem, self.dim = problem, dim
        self.root = np.sqrt(problem.counts)
        self.has_bias = problem.bias != "none"
        self.c = (problem.feature_decay / problem.weight_decays[0]) ** 0.25
        k = problem.num_classes
        #: Rescales the coordinates so that both decays are lambda.
        self.tilt = self.join(np.full((k, dim), self.c), np.full((dim, k), 1 / self.c), np.ones(k))

    @classmethod
    def of(cls, problem: Problem, point: Point) -> Coordinates:
        """Return the coordinates of a point's width."""
        return cls(problem, width_of(problem, point.weights))

    def split(self, x: Array) -> tuple[Array, Array, Array]:
        """Return W, V and b (zeros without a bias)."""
        k, size = self.problem.num_classes, self.problem.num_classes * self.dim
        w, v = x[:size].reshape(k, self.dim), x[size : 2 * size].reshape(self.dim, k)
        return w, v, x[2 * size :] if self.has_bias else np.zeros(k)

    def join(self, w: Array, v: Array, b: Array) -> Array:
        """Return the flat vector of W, V and b; the inverse of `split`."""
        return np.concatenate([w.ravel(), v.ravel(), b if self.has_bias else b[:0]])

    def point(self, x: Array) -> Point:
        """Return the point that a flat vector stands for."""
        w, v, b = self.split(x)
        return Point(w.copy(), v / self.root, b.copy() if self.has_bias else None)

    def enter(self, point: Point) -> Array:
        """Check a point and return its flat vector.

        Raises
        ------
        ValueError
            If a shape does not fit, an entry is not finite, or there is a bias where there is none.
        """
        k, dim = self.problem.num_classes, self.dim
        weights, class_means, bias = point
        w, h = _matrix("weights", weights), _matrix("class_means", class_means)
        if w.shape != (k, dim):
            raise ValueError(f"weights: got shape {w.shape}, need (K, d) = ({k}, {dim})")
        if h.shape != (dim, k):
            raise ValueError(f"class_means: got shape {h.shape}, need (d, K) = ({dim}, {k})")
        b = np.zeros(k) if bias is None else _finite("bias", bias)
        if b.shape != (k,):
            raise ValueError(f"bias: got shape {b.shape}, need ({k},)")
        if not self.has_bias and b.any():
            raise ValueError("bias: got a non-zero bias for a problem with bias='none'")
        return self.join(w, h * self.root, b)

    def random(self, rng: np.random.Generator) -> Array:
        """Draw a flat vector, of the scale of the decays."""
        x: Array = rng.standard_normal(len(self.tilt)) * self.tilt
        return x


def check_problem(problem: Any) -> None:
    """Refuse what is no problem of one linear layer with real features."""
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    if problem.depth != 1:
        raise ValueError(f"problem: got depth {problem.depth}, the landscape is that of depth 1")
    if problem.features != "real":
        raise ValueError(
            f"problem: got features={problem.features!r}, the landscape is that of 'real' ones"
        )


def checked_width(problem: Problem, dim: int | None) -> int:
    """Return a width that was asked for: that of the problem, or K, where none was."""
    if dim is None:
        return problem.width or problem.num_classes
    dim = plain_number(dim)
    if not is_whole(dim) or dim < 1:
        raise ValueError(f"dim: got {dim!r}, need a positive whole number")
    if problem.dim not in (None, dim):
        raise ValueError(f"dim: got {dim}, but the problem's is {problem.dim}")
    return int(dim)


def width_of(problem: Problem, weights: ArrayLike) -> int:
    """Return the width d of a classifier, or raise a ValueError where it does not fit."""
    check_problem(problem)
    k, w = problem.num_classes, _matrix("weights", weights)
    if w.shape[0] != k or not w.shape[1]:
        raise ValueError(f"weights: got shape {w.shape}, need (K, d) = ({k}, d)")
    dim = int(w.shape[1])
    if problem.dim not in (None, dim):
        raise ValueError(f"weights: got width {dim}, but the problem's dim is {problem.dim}")
    return dim


def _matrix(name: str, value: ArrayLike) -> Array:
    array = _finite(name, value)
    if array.ndim != 2:
        raise ValueError(f"{name}: got shape {array.shape}, need a matrix")
    return array


def _finite(name: str, value: ArrayLike) -> Array:
    try:
        array = np.asarray(detached(value))
    except (TypeError, ValueError):
        raise ValueError(f"{name}: need an array of numbers") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: need an array of numbers, got {array.dtype}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: entries must be finite")
    return array
