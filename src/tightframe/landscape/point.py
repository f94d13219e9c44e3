"""Points of the landscape and their coordinates, checked as they come in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tightframe.checks import detached, is_whole, plain_number
from tightframe.geometry.blocks import Array
from tightframe.problem.problem import Problem, require_no_targets
from tightframe.saved import filed
from tightframe.shown import record
from tightframe.theory.coverage import require_unscaled


@filed
@record
class Point(NamedTuple):
    """A point of the landscape, or a displacement; ``f(problem, *point)`` passes it on.

    Attributes
    ----------
    weights : ndarray, shape (K, d), or list of ndarray
        The classifier W. With several layers all of them as in `Solution.weights`, that next to the
        features first.
    class_means : ndarray, shape (d, K)
        The class means H as columns.
    bias : ndarray, shape (K,), or None
        None stands for zeros.
    """

    weights: Array | Sequence[Array]
    class_means: Array
    bias: Array | None = None

    def to_vector(self, problem: Problem) -> Array:
        """Return the coordinates ``(W, H D^{1/2}, b)``, flattened row by row."""
        return Coordinates.of(problem, self).enter(self)

    @classmethod
    def from_vector(cls, problem: Problem, vector: ArrayLike) -> Point:
        """Return the point that coordinates stand for; the inverse of `to_vector`.

        Without ``problem.dim`` all layers are taken as equally wide.

        Raises
        ------
        ValueError
            If the vector's length fits no width.
        """
        x = np.asarray(vector, dtype=np.float64)
        check_problem(problem)
        widths = problem.dims or (_equal_width(problem, x.size),) * problem.depth
        shapes = chain_shapes(problem, widths)
        own = sum(rows * columns for rows, columns in shapes) + _bias_size(problem)
        if x.ndim != 1 or x.size != own:
            k, inner = problem.num_classes, "" if problem.depth == 1 else " and the inner layers'"
            raise ValueError(
                f"vector: got shape {x.shape}; need 2 K d numbers{inner}, and K more with a bias "
                f"(K = {k})"
            )
        return Coordinates(problem, widths).point(x)


class Coordinates:
    """The flat vectors ``(W, V, b)`` of points of one width, and the scales between them.

    With M layers they are ``(W_M, ..., W_1, V, b)``; the logits are those of the product
    ``W_M ... W_1 V`` of the M + 1 *factors*.

    Parameters
    ----------
    problem : Problem
        Real features.
    widths : tuple of int
        Width of what goes into every layer, the features' first.

    Raises
    ------
    ValueError
        If the problem has non-negative features.
    """

    def __init__(self, problem: Problem, widths: tuple[int, ...]) -> None:
        check_problem(problem)
        self.problem, self.widths, self.dim = problem, widths, min(widths)
        self.root = np.sqrt(problem.counts)
        self.has_bias = problem.bias != "none"
        self.shapes = chain_shapes(problem, widths)
        self.ends = np.cumsum([rows * columns for rows, columns in self.shapes]).tolist()
        self.factor_decays = (*problem.weight_decays[::-1], problem.feature_decay)
        self.decay = problem.logit_decay if problem.depth == 1 else problem.mean_decay
        #: Rescales the coordinates so that all decays are that one.
        self.tilt = self.join(
            [np.full(s, c) for s, c in zip(self.shapes, self.scales, strict=True)],
            np.ones(problem.num_classes),
        )

    @property
    def scales(self) -> list[float]:
        """Scale of every factor."""
        return [math.sqrt(self.decay / decay) for decay in self.factor_decays]

    @classmethod
    def of(cls, problem: Problem, point: Point) -> Coordinates:
        """Return the coordinates of a point's width."""
        return cls(problem, widths_of(problem, point.weights))

    def split(self, x: Array) -> tuple[list[Array], Array]:
        """Return the factors, W_M first and V last, and b (zeros without a bias)."""
        parts = np.split(x, self.ends)
        factors = [p.reshape(s) for p, s in zip(parts, self.shapes, strict=False)]
        return factors, parts[-1] if self.has_bias else np.zeros(self.problem.num_classes)

    def join(self, factors: Sequence[Array], b: Array) -> Array:
        """Return the flat vector of factors and b; the inverse of `split`."""
        parts = [factor.ravel() for factor in factors]
        return np.concatenate([*parts, b if self.has_bias else b[:0]])

    def point(self, x: Array) -> Point:
        """Return the point that a flat vector stands for."""
        (*layers, v), b = self.split(x)
        weights = [layer.copy() for layer in reversed(layers)]
        bias = b.copy() if self.has_bias else None
        return Point(weights[0] if len(weights) == 1 else weights, v / self.root, bias)

    def enter(self, point: Point) -> Array:
        """Check a point and return its flat vector.

        Raises
        ------
        ValueError
            If a shape does not fit, an entry is not finite, or there is a bias where there is none.
        """
        k = self.problem.num_classes
        weights, class_means, bias = point
        layers = _layers(self.problem, weights)
        h = _matrix("class_means", class_means)
        for layer, shape in zip(reversed(layers), self.shapes, strict=False):
            if layer.shape != shape:
                need = f"(K, d) = {shape}" if len(layers) == 1 else f"{shape}"
                raise ValueError(f"weights: got shape {layer.shape}, need {need}")
        dim = self.widths[0]
        if h.shape != (dim, k):
            raise ValueError(f"class_means: got shape {h.shape}, need (d, K) = ({dim}, {k})")
        b = np.zeros(k) if bias is None else _finite("bias", bias)
        if b.shape != (k,):
            raise ValueError(f"bias: got shape {b.shape}, need ({k},)")
        if not self.has_bias and b.any():
            raise ValueError(
                "bias: got a non-zero bias for a problem with bias='none', need 'free' or 'decayed'"
            )
        return self.join([*reversed(layers), h * self.root], b)

    def random(self, rng: np.random.Generator) -> Array:
        """Draw a flat vector, of the scale of the decays."""
        x: Array = rng.standard_normal(len(self.tilt)) * self.tilt
        return x


def chain_shapes(problem: Problem, widths: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the shapes of the factors, W_M first and V last."""
    k = problem.num_classes
    ends = [k, *widths[::-1], k]
    return list(pairwise(ends))


def check_problem(problem: Any) -> None:
    """Refuse what is no problem with real features."""
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    require_no_targets(problem, "a landscape")
    if problem.features != "real":
        raise ValueError(
            f"problem: got features={problem.features!r}, the landscape is that of 'real' ones"
        )
    require_unscaled(problem, "the landscape")


def checked_widths(problem: Problem, dim: int | None) -> tuple[int, ...]:
    """Return the widths that were asked for: those of the problem, or K, where none were."""
    if dim is None:
        return problem.dims or (problem.num_classes,) * problem.depth
    dim = plain_number(dim)
    if not is_whole(dim) or dim < 1:
        raise ValueError(f"dim: got {dim!r}, need a positive whole number")
    if problem.dim not in (None, dim):
        raise ValueError(f"dim: got {dim}, but the problem's is {problem.dim}")
    return (int(dim),) * problem.depth


def widths_of(problem: Problem, weights: Any) -> tuple[int, ...]:
    """Return the widths of layers, or raise a ValueError where they do not fit the problem."""
    check_problem(problem)
    k, layers = problem.num_classes, _layers(problem, weights)
    if layers[-1].shape[0] != k or not all(layer.shape[1] for layer in layers):
        raise ValueError(f"weights: got shape {layers[-1].shape}, need (K, d) = ({k}, d)")
    widths = tuple(int(layer.shape[1]) for layer in layers)
    if problem.dims not in (None, widths):
        got = widths[0] if len(widths) == 1 else widths
        raise ValueError(f"weights: got width {got}, but the problem's dim is {problem.dim}")
    return widths


def _layers(problem: Problem, weights: Any) -> list[Array]:
    """Return the layers, that next to the features first."""
    if problem.depth == 1:
        return [_matrix("weights", weights)]
    if not isinstance(weights, (list, tuple)) or len(weights) != problem.depth:
        raise ValueError(
            f"weights: need a list of {problem.depth} layers, that next to the features first"
        )
    return [_matrix("weights", layer) for layer in weights]


def _bias_size(problem: Problem) -> int:
    return problem.num_classes if problem.bias != "none" else 0


def _equal_width(problem: Problem, size: int) -> int:
    """Return the width d with ``2 K d + (M - 1) d^2`` numbers besides the bias, rounded down."""
    k, inner, rest = problem.num_classes, problem.depth - 1, max(size - _bias_size(problem), 0)
    return (math.isqrt(k * k + inner * rest) - k) // inner if inner else rest // (2 * k)


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
