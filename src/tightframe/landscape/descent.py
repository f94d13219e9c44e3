"""Local minimisation, saddles by minimising with part of the freedom, and the way out of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.checks import is_whole, plain_number, require_positive_fields
from tightframe.geometry.blocks import Array
from tightframe.landscape.critical import ROUNDING, CriticalPoint, classify, follow
from tightframe.landscape.curvature import DENSE_SIZE, Objective, Smooth, newton_step
from tightframe.landscape.point import Point
from tightframe.problem.problem import Problem
from tightframe.saved import filed
from tightframe.shown import record
from tightframe.solve import NotConvergedWarning
from tightframe.theory.certificate import Certificate

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


@dataclass(frozen=True)
class DescentOptions:
    """What a local minimisation may cost, and where it stops.

    Attributes
    ----------
    accuracy : float
        Stop when the gradient is this small in units of lambda.
    dense_size : int
        Up to so many unknowns a Newton step solves with the Hessian written out.
    max_trust_steps, max_newton_steps : int
        Trust-region steps, and Newton steps after them, allowed.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    accuracy: float = 1e-10
    dense_size: int = DENSE_SIZE
    max_trust_steps: int = 1000
    max_newton_steps: int = 20

    def __post_init__(self) -> None:
        require_positive_fields(self)


DEFAULTS = DescentOptions()


@filed
@record
@dataclass(frozen=True, eq=False)
class Descent:
    """A descent from a start to the certified minimum.

    Attributes
    ----------
    stages : tuple of CriticalPoint
        The start and the end of every local minimisation, in order; objectives do not rise
        (up to rounding).
    point : Point
        The last stage's point.
    converged : bool
        Whether the last verdict is ``"global minimum"``, or with several layers, where hardly
        anything is certified, ``"local minimum"``.
    """

    stages: tuple[CriticalPoint, ...]
    point: Point
    converged: bool

    @property
    def certificate(self) -> Certificate | None:
        """The last stage's certificate."""
        return self.stages[-1].certificate


def restricted_minimiser(
    f: Objective, keep: int | Iterable[int], seed: int, options: DescentOptions
) -> Array:
    """Return a critical point with part of the freedom, see `Landscape.saddle`; a flat vector."""
    problem, width = f.problem, f.dim
    rng = np.random.default_rng(seed)
    keep = plain_number(keep)
    if not isinstance(keep, Iterable):
        if not is_whole(keep) or not 0 <= keep <= width:
            raise ValueError(
                f"keep: got {keep!r}, need 0 to {width} directions, or a list of group indices"
            )
        r = int(keep)
        narrow = Objective(problem, (r,) * problem.depth)
        factors, b = narrow.split(minimise(narrow, narrow.random(rng), options))
        x = f.join([_padded(*pair) for pair in zip(factors, f.shapes, strict=True)], b)
    else:
        tied = Tied(f, _cells(problem, keep))
        x = tied.lift(minimise(tied, tied.drop(f.random(rng)), options))
    stationarity = f.stationarity(x)
    if stationarity > 1e-6:
        warnings.warn(
            f"saddle stopped at a gradient of {stationarity:.1e} lambda, above 1e-6",
            NotConvergedWarning,
            stacklevel=4,
        )
    return x


def follow_down(
    f: Objective,
    x: Array,
    tol: float,
    seed: int,
    max_stages: int | None,
    options: DescentOptions,
) -> Descent:
    """Descend from saddle to saddle, see `Landscape.descend`."""
    allowed = f.dim + f.problem.num_classes if max_stages is None else max_stages
    if not is_whole(allowed) or allowed < 1:
        raise ValueError(f"max_stages: got {max_stages!r}, need a positive whole number")
    stages = [classify(f, x, tol, seed)]
    while stages[-1].verdict in ("strict saddle", "not critical") and len(stages) <= allowed:
        last = stages[-1]
        moved = x if last.direction is None else follow(f, x, last.direction)
        new = minimise(f, moved, options)
        if f.value(new) > last.objective * (1 + ROUNDING):
            break  # too shallow for float64
        x = new
        stages.append(classify(f, x, tol, seed))
        if last.verdict == stages[-1].verdict == "not critical":
            break  # the local method is stuck
    # With several layers hardly anything certifies a minimum.
    wanted = ("global minimum", "local minimum")[: f.problem.depth]
    converged = stages[-1].verdict in wanted
    if not converged:
        warnings.warn(
            f"descend stopped at a point with verdict {stages[-1].verdict!r} after "
            f"{len(stages) - 1} stages",
            NotConvergedWarning,
            stacklevel=4,
        )
    return Descent(tuple(stages), f.point(x), converged)


# -- parts -----------------------------------------------------------------------------------------


class Tied:
    """F on points whose classes of one cell share everything: a fixed subspace of symmetries.

    ``cells`` (K x C) has orthonormal columns, so that lengths agree with those of F.
    """

    def __init__(self, landscape: Objective, cells: Array) -> None:
        self.full, self.cells = landscape, cells
        self.decay = landscape.decay
        self.shapes = [list(shape) for shape in landscape.shapes]
        self.shapes[0][0] = self.shapes[-1][1] = cells.shape[1]
        self.ends = np.cumsum([rows * columns for rows, columns in self.shapes]).tolist()
        parts = zip(self.shapes, landscape.scales, strict=True)
        tilt = [np.full(rows * columns, scale) for (rows, columns), scale in parts]
        self.tilt = np.concatenate([*tilt, np.ones(cells.shape[1] * landscape.has_bias)])

    def lift(self, y: Array) -> Array:
        """Return the point of F."""
        *parts, tail = np.split(y, self.ends)
        factors = [p.reshape(s) for p, s in zip(parts, self.shapes, strict=True)]
        factors[0] = self.cells @ factors[0]
        factors[-1] = factors[-1] @ self.cells.T
        bias = self.cells @ tail if self.full.has_bias else np.zeros(len(self.cells))
        return self.full.join(factors, bias)

    def drop(self, x: Array) -> Array:
        """Return the tied part of a point, or of a gradient, of F."""
        factors, b = self.full.split(x)
        factors[0] = self.cells.T @ factors[0]
        factors[-1] = factors[-1] @ self.cells
        tail = self.cells.T @ b if self.full.has_bias else b[:0]
        return np.concatenate([*(factor.ravel() for factor in factors), tail])

    def value(self, y: Array) -> float:
        """Return F."""
        return self.full.value(self.lift(y))

    def gradient(self, y: Array) -> Array:
        """Return the gradient of F by the tied point."""
        return self.drop(self.full.gradient(self.lift(y)))

    def product(self, y: Array) -> Callable[[Array], Array]:
        """Return the product of that function's Hessian with a vector."""
        product = self.full.product(self.lift(y))
        return lambda d: self.drop(product(self.lift(d)))


def _padded(factor: Array, shape: tuple[int, int]) -> Array:
    """Return a factor with zero directions in addition."""
    return np.pad(factor, [(0, full - own) for full, own in zip(shape, factor.shape, strict=True)])


def _cells(problem: Problem, keep: Iterable[int]) -> Array:
    """Return normalised indicators of single classes (kept groups) and whole groups (others)."""
    groups = len(problem.groups)
    kept = list(keep)
    for item in kept:
        if not is_whole(item) or not 0 <= item < groups:
            raise ValueError(
                f"keep: got group {item!r}; the {groups} groups are numbered from 0 "
                "(or give one number of directions)"
            )
    index = problem.class_groups
    columns = []
    for group in range(groups):
        members = index == group
        if group in kept:
            columns.extend(np.eye(len(index))[members])
        else:
            columns.append(members / np.sqrt(members.sum()))
    return np.column_stack(columns)


def minimise(f: Smooth, x: Array, options: DescentOptions) -> Array:
    """Minimise locally: SciPy's trust-region Newton-CG, then Newton steps."""
    from scipy.optimize import minimize

    if not len(x):
        return x
    tilt = f.tilt

    def value_at(y: Any) -> float:
        return f.value(tilt * y)

    def slope_at(y: Any) -> Any:
        return tilt * f.gradient(tilt * y)

    result = minimize(
        value_at,
        x / tilt,
        jac=slope_at,
        hessp=_product_at_last_point(f),
        method="trust-ncg",
        options={"gtol": 1e-5 * f.decay, "maxiter": options.max_trust_steps},
    )
    # Below rounding of the value only the gradient tells steps apart.
    y, slope = result.x, slope_at(result.x)
    for _ in range(options.max_newton_steps):
        norm = float(np.linalg.norm(slope))
        if norm <= options.accuracy * f.decay:
            break
        trial = y - newton_step(_rescaled(f, y), slope, options.dense_size, 1e-10)
        trial_slope = slope_at(trial)
        if not np.linalg.norm(trial_slope) < 0.9 * norm:
            break
        y, slope = trial, trial_slope
    return np.asarray(tilt * y, dtype=np.float64)


def _rescaled(f: Smooth, y: Array) -> LinearOperator:
    """Return the Hessian in rescaled coordinates."""
    from scipy.sparse.linalg import LinearOperator

    product = f.product(f.tilt * y)
    return LinearOperator(
        (len(y), len(y)), matvec=lambda d: f.tilt * product(f.tilt * np.ravel(d)), dtype=np.float64
    )


def _product_at_last_point(f: Smooth) -> Callable[[Any, Any], Any]:
    """Return ``hessp(y, d)``; the curvature is computed once for all products at one point."""
    last: list[tuple[Array, Callable[[Array], Array]]] = []

    def hessp(y: Array, d: Array) -> Array:
        if not last or last[0][0] is not y:
            last[:] = [(y, f.product(f.tilt * y))]
        product: Array = f.tilt * last[0][1](f.tilt * d)
        return product

    return hessp
