"""Continuation: along a sweep of problems, starts each solve from extrapolated factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tightframe.checks import require_positive_fields
from tightframe.geometry.blocks import Array, Partition, svd
from tightframe.problem.problem import Problem
from tightframe.solvers.interpolation import lagrange
from tightframe.solvers.newton import FactoredResult, minimise_from
from tightframe.solvers.starts import Factors


@dataclass(frozen=True)
class ContinuationOptions:
    """How far extrapolations go.

    Attributes
    ----------
    max_points : int
        Points an extrapolation goes through, at most.
    max_reach : float
        It reaches no further than so many times the last step.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    max_points: int = 4
    max_reach: float = 2.0

    def __post_init__(self) -> None:
        require_positive_fields(self)


DEFAULTS = ContinuationOptions()


class Continuation:
    """The last points of a sweep, as long as the factors change smoothly between them.

    U and V may be turned together, which leaves the point where it is. Turned to agree, those of
    the last points predict the next by a polynomial through them. Where the rank or the set of
    merged groups changes, the path has a kink: what lies before is forgotten.
    """

    def __init__(self, options: ContinuationOptions = DEFAULTS) -> None:
        self.options = options
        self.positions: list[Array] = []
        self.points: list[Factors] = []

    def minimise(
        self, problem: Problem, partition: Partition, tol: float, max_iterations: int
    ) -> FactoredResult:
        """Solve the next problem, from a prediction where there is one, and remember it."""
        predicted = self._predict(problem, partition)
        result = minimise_from(predicted, problem, partition, tol, max_iterations)
        if result.converged:
            self._record(problem, partition, result.factors)
        return result

    def _predict(self, problem: Problem, partition: Partition) -> Factors | None:
        """Return extrapolated factors, or None where too little is known."""
        position = _position(problem, partition)
        if len(self.points) < 2 or position.shape != self.positions[-1].shape:
            return None
        chain = np.array([*self.positions, position])
        steps = np.linalg.norm(np.diff(chain, axis=0), axis=1)
        if not 0 < steps[-1] <= self.options.max_reach * steps[-2]:
            return None
        times = np.r_[0.0, np.cumsum(steps)]
        (weights,) = lagrange(times[:-1], times[-1:], self.options.max_points)
        left, right, within, bias = (
            np.tensordot(weights, np.array(parts), axes=1)
            for parts in zip(*self.points, strict=True)
        )
        return Factors(left, right, within, bias)

    def _record(self, problem: Problem, partition: Partition, factors: Factors) -> None:
        """Add a solved point."""
        position = _position(problem, partition)
        if self.points:
            last = self.points[-1]
            smooth = (
                position.shape == self.positions[-1].shape
                and factors.left.shape == last.left.shape
                and np.array_equal(factors.within > 0, last.within > 0)
            )
            if not smooth:
                self.positions, self.points = [], []
            elif np.array_equal(position, self.positions[-1]):
                return
            else:
                factors = turned(factors, last)
        self.positions = [*self.positions, position][-self.options.max_points :]
        self.points = [*self.points, factors][-self.options.max_points :]


def turned(factors: Factors, last: Factors) -> Factors:
    """Turn U and V together to lie nearest to those of the last point (Procrustes)."""
    turn, _, back = svd(factors.left.T @ last.left + factors.right.T @ last.right)
    rotation = turn @ back
    return factors._replace(left=factors.left @ rotation, right=factors.right @ rotation)


def _position(problem: Problem, partition: Partition) -> Array:
    """Return what the solution depends on, in logarithms; the sizes tell sweeps apart."""
    decays = np.array([problem.logit_decay, problem.bias_decay or 1.0])
    parts = [decays, partition.counts, partition.sizes, partition.weights]
    if partition.is_scaled:
        parts.append(partition.scales)
    return np.concatenate([np.log(np.concatenate(parts)), partition.adjustment])
