"""L-BFGS on many points at once: the leading axis of every array counts the points.

Each point has its own curvature pairs, step lengths and fate; they share the NumPy calls, which
is what costs where the functions are small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array

Mask = NDArray[np.bool_]

#: Maps points (B, P) to values (B,) and gradients (B, P).
Function = Callable[[Array], tuple[Array, Array]]

#: Maps values and gradients to whether each point has converged.
IsSmall = Callable[[Array, Array], Mask]

#: Curvature pairs kept a point.
MEMORY = 6

#: Function values allowed to one line search.
MAX_TRIALS = 30

#: Constants of the Wolfe conditions.
DECREASE, CURVATURE = 1e-4, 0.9

#: Changes of a value below this share of it are rounding.
NOISE = 1e-14


class Descents:
    """Points that go down together; they can be halted, some of them left, and told to go on.

    Attributes
    ----------
    x : ndarray, shape (B, P)
        Where the points are.
    values : ndarray, shape (B,)
    converged : ndarray of bool, shape (B,)

    Parameters
    ----------
    function : callable
        Maps points (B, P) to values (B,) and gradients (B, P); may overflow far away.
    x : ndarray, shape (B, P)
    is_small : callable
        Maps values and gradients to whether each point has converged.
    """

    def __init__(self, function: Function, x: Array, is_small: IsSmall) -> None:
        self._function, self._is_small = function, is_small
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            values, gradients = function(x)
        self._state = _State(x, values, gradients)
        self.x, self.values = x.copy(), values.copy()
        self.converged = np.zeros(len(x), dtype=np.bool_)

    def run(self, iterations: int, halt: Callable[[], bool] = lambda: False) -> Descents:
        """Take steps until all have converged, so many are taken, or ``halt()`` says so."""
        state = self._state
        for iteration in range(iterations + 1):
            small = self._is_small(state.values, state.gradients)
            ended = small | state.stuck
            if ended.any():
                self.converged[state.rows[ended]] = (small | state.exhausted)[ended]
                self._write(ended)
                state.keep(~ended)
            if not len(state.rows) or iteration == iterations or halt():
                break
            _advance(self._function, state)
        self._write(np.ones(len(state.rows), dtype=np.bool_))
        return self

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Leave all points but these, in the order given."""
        places = np.full(len(self.x), -1)
        places[rows] = np.arange(len(rows))
        self.x, self.values = self.x[rows], self.values[rows]
        self.converged = self.converged[rows]
        self._state.keep(places[self._state.rows] >= 0)
        self._state.rows = places[self._state.rows]

    def _write(self, mask: Mask) -> None:
        rows = self._state.rows[mask]
        self.x[rows], self.values[rows] = self._state.x[mask], self._state.values[mask]


def lbfgs(
    function: Function,
    x: Array,
    is_small: IsSmall,
    max_iterations: int,
    halt: Callable[[], bool] = lambda: False,
) -> Descents:
    """Minimise a smooth function from every row of ``x``; arguments as those of `Descents`."""
    return Descents(function, x, is_small).run(max_iterations, halt)


class _State:
    """The points still moving, with their curvature pairs."""

    def __init__(self, x: Array, values: Array, gradients: Array) -> None:
        self.rows = np.arange(len(x))
        self.x, self.values, self.gradients = x, values, gradients
        self.fresh = np.ones(len(x), dtype=np.bool_)  # without curvature pairs
        self.stuck = ~np.isfinite(values)
        self.exhausted = np.zeros(len(x), dtype=np.bool_)
        self.pairs: list[tuple[Array, Array, Array]] = []

    def keep(self, mask: Mask) -> None:
        for name in ("rows", "x", "values", "gradients", "fresh", "stuck", "exhausted"):
            setattr(self, name, getattr(self, name)[mask])
        self.pairs = [(s[mask], y[mask], inverse[mask]) for s, y, inverse in self.pairs]

    def forget(self, mask: Mask) -> None:
        for _, _, inverse in self.pairs:
            inverse[mask] = 0.0
        self.fresh = self.fresh | mask

    def remember(self, s: Array, y: Array) -> None:
        product = _dot(s, y)
        usable = product > 0
        self.pairs.append((s, y, np.divide(1.0, product, out=0.0 * product, where=usable)))
        del self.pairs[:-MEMORY]
        self.fresh = self.fresh & ~usable

    def directions(self) -> Array:
        """Return minus the inverse-Hessian estimate times the gradient (two-loop recursion)."""
        q = self.gradients.copy()
        coefficients = []
        for s, y, inverse in reversed(self.pairs):
            a = inverse * _dot(s, q)
            q -= a[:, None] * y
            coefficients.append(a)
        size = 0.1 * np.maximum(1.0, np.sqrt(_dot(self.x, self.x)))
        scale = size / np.maximum(np.sqrt(_dot(self.gradients, self.gradients)), 1e-300)
        for _, y, inverse in self.pairs:  # the newest usable pair of each point counts
            usable = inverse > 0
            scale[usable] = 1 / (inverse * np.maximum(_dot(y, y), 1e-300))[usable]
        q *= scale[:, None]
        for (s, y, inverse), a in zip(self.pairs, reversed(coefficients), strict=True):
            q += s * (a - inverse * _dot(y, q))[:, None]
        return -q


def _advance(function: Function, state: _State) -> None:
    """Move every point by one quasi-Newton step."""
    directions = state.directions()
    slopes = _dot(state.gradients, directions)
    uphill = ~(slopes < 0)
    if uphill.any():
        state.forget(uphill)
        directions = state.directions()
        slopes = _dot(state.gradients, directions)
    x, values, gradients = _line_search(function, state, directions, slopes)
    moved = (x != state.x).any(axis=1)
    # Where a quasi-Newton step would lower the value by its rounding only, nothing is left to do.
    state.exhausted = ~moved & ~state.fresh & (-slopes <= NOISE * np.abs(state.values))
    state.stuck = state.exhausted | (~moved & state.fresh)
    state.remember(x - state.x, gradients - state.gradients)
    state.forget(~moved)
    state.x, state.values, state.gradients = x, values, gradients


def _line_search(
    function: Function,
    state: _State,
    directions: Array,
    slopes: Array,
) -> tuple[Array, Array, Array]:
    """Return points that meet the weak Wolfe conditions, by bisection; the start where none does.

    Below rounding of the value the slope decides (Hager and Zhang's approximate condition).
    """
    x, values, gradients = state.x.copy(), state.values.copy(), state.gradients.copy()
    low, high = np.zeros(len(x)), np.full(len(x), np.inf)
    step = np.ones(len(x))
    todo = np.arange(len(x))
    for _ in range(MAX_TRIALS):
        trial = state.x[todo] + step[todo, None] * directions[todo]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            new, new_gradients = function(trial)
            new_slopes = _dot(new_gradients, directions[todo])
        old, slope = state.values[todo], slopes[todo]
        lower = new <= old + DECREASE * step[todo] * slope
        rounding = new <= old + NOISE * np.abs(old)
        lower |= rounding & (new_slopes <= (2 * DECREASE - 1) * slope)
        lower &= np.isfinite(new_slopes)
        done = lower & (new_slopes >= CURVATURE * slope)
        better = todo[lower]
        x[better], values[better] = trial[lower], new[lower]
        gradients[better] = new_gradients[lower]
        low[better], high[todo[~lower]] = step[better], step[todo[~lower]]
        todo = todo[~done]
        if not len(todo):
            break
        bounded = np.isfinite(high[todo])
        step[todo] = np.where(bounded, (low[todo] + high[todo]) / 2, 2 * step[todo])
    return x, values, gradients


def _dot(a: Array, b: Array) -> Any:
    return np.einsum("bi,bi->b", a, b)
