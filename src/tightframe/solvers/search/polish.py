"""From a point near a minimum to the minimum: Newton steps, vanished directions, merged classes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.solvers.search.budget import Budget
from tightframe.solvers.search.factors import VANISHING, Factors, FixedRank
from tightframe.solvers.search.lbfgs import NOISE, lbfgs
from tightframe.solvers.search.options import SearchOptions

#: Regularisations of a Newton step, in units of the decay: the least, and the largest tried.
LEAST_SHIFT, LARGEST_SHIFT = 1e-9, 1e9

#: Newton steps from where a descent stopped, and with several layers so many until the gradient
#: has to be half of what it was: the objective has flat, bent valleys where singular values nearly
#: agree, and there they only come near the minimum.
MAX_NEWTON_STEPS, PATIENCE = 50, 8


class Polished(NamedTuple):
    """A minimum: logits and bias of all classes, objective, rank, and whether it is one."""

    logits: Array
    bias: Array
    objective: float
    rank: int
    converged: bool


def polish(
    f: Factors, x: Array, max_iterations: int, options: SearchOptions, budget: Budget
) -> Polished | None:
    """Descend from a point (1, P) to convergence; None where that vanishes."""
    f, x, converged = _descend(f, x, max_iterations, options, budget)
    if f.width == 0:
        return None
    return _finished(f, *_merged(f, x, options.tie_tolerance), converged)


def nearly(f: Factors, x: Array, options: SearchOptions, budget: Budget) -> Polished | None:
    """Take some Newton steps where they are cheap; None where the point (1, P) vanishes."""
    f, x = cut(f, x)
    if f.width == 0:
        return None
    converged = False
    if x.shape[1] <= options.max_cheap:
        x, converged = newton(f, x, options.polish_accuracy, budget)
        f, x = cut(f, x)
    return _finished(f, x, np.arange(f.num_classes), converged) if f.width else None


def _finished(f: Factors, x: Array, parents: NDArray[np.intp], converged: bool) -> Polished:
    # Copies, so that merged classes agree in every bit.
    logits = (f.products(x)[0] / f.root)[np.ix_(parents, parents)]
    bias = f.split(x)[3][0][parents]
    return Polished(logits, bias, f.objective(x), f.width, converged)


def _descend(
    f: Factors, x: Array, max_iterations: int, options: SearchOptions, budget: Budget
) -> tuple[Factors, Array, bool]:
    """Return the minimum, on as many directions as do not vanish there."""
    if f.depth > 1:
        f, x = cut(f, x)
    if x.shape[1] <= options.max_dense:
        while f.width > 0:
            x, converged = newton(f, x, options.polish_accuracy, budget, max_iterations)
            if not converged:
                break
            width = f.width
            f, x = cut(f, x)
            if f.width == width:
                return f, x, True
    return _without_hessian(f, x, max_iterations, options, budget)


def newton(
    f: Factors, x: Array, accuracy: float, budget: Budget, max_steps: int = 100
) -> tuple[Array, bool]:
    """Take Newton steps from a point (1, P); return where they end and whether it is critical.

    The Hessian is singular along the ways that leave the objective as it is, rotations for
    example. A shift that goes to zero with the gradient leaves the convergence quadratic
    (Yamashita and Fukushima, "On the rate of convergence of the Levenberg-Marquardt method",
    2001).
    """
    values, gradients = f(x)
    halved, least = 0, math.inf
    for step in range(min(max_steps, MAX_NEWTON_STEPS)):
        if f.is_small(accuracy, values, gradients)[0]:
            return x, True
        if budget.over() or not np.isfinite(gradients).all():
            break
        size = float(np.linalg.norm(gradients))
        if size < least / 2:
            halved, least = step, size
        if f.depth > 1 and step - halved > PATIENCE:
            break
        hessian, gradient = f.hessian(x), gradients[0]
        relative = math.sqrt(gradient @ gradient / (f.decay * values[0]))
        shift = f.decay * max(min(1.0, relative), LEAST_SHIFT)
        found = None
        while found is None and shift <= LARGEST_SHIFT * f.decay:
            found = _step(f, x, values, gradient, hessian, shift)
            shift *= 10
        if found is None:
            # Where a step would lower the value by its rounding only, nothing is left to do.
            rest = _newton_step(hessian, gradient, LEAST_SHIFT * f.decay)
            return x, rest is not None and bool(gradient @ rest <= NOISE * abs(values[0]))
        x, values, gradients = found
    return x, bool(f.is_small(accuracy, values, gradients)[0])


def _step(
    f: Factors, x: Array, values: Array, gradient: Array, hessian: Array, shift: float
) -> tuple[Array, Array, Array] | None:
    """Return a better point with value and gradient, or None."""
    step = _newton_step(hessian, gradient, shift)
    if step is None:
        return None
    trial = x - step
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        new, slopes = f(trial)
    promised = gradient @ step
    lower = new[0] <= values[0] - 1e-4 * promised
    # Below rounding of the value the gradient decides.
    rounding = new[0] <= values[0] + NOISE * abs(values[0])
    if lower or (rounding and np.linalg.norm(slopes) < 0.5 * np.linalg.norm(gradient)):
        return trial, new, slopes
    return None


def _newton_step(hessian: Array, gradient: Array, shift: float) -> Array | None:
    """Return the shifted Newton step, or None where the shifted Hessian is not positive."""
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    try:
        factor = cho_factor(hessian + shift * np.eye(len(gradient)), lower=True)
    except LinAlgError:
        return None
    step: Array = cho_solve(factor, gradient)
    return step


def _without_hessian(
    f: Factors, x: Array, max_iterations: int, options: SearchOptions, budget: Budget
) -> tuple[Factors, Array, bool]:
    """Descend by L-BFGS: until the rank is clear, then with that rank fixed.

    With several layers it is clear: the minimum has no singular values near zero.
    """
    if f.width == 0:
        return f, x, True
    if f.depth > 1:
        x, converged = _with_fixed_rank(f, x, max_iterations, options, budget)
        if converged:
            return f, x, True
    steps = min(max_iterations, options.refine_iterations)
    x = lbfgs(f, x, lambda v, g: f.is_small(options.refine_accuracy, v, g), steps, budget.over).x
    f, x = cut(f, x)
    if f.width == 0:
        return f, x, True
    x, converged = _with_fixed_rank(f, x, max_iterations, options, budget)
    if converged:
        return f, x, True
    # A singular value goes to zero after all.
    end = lbfgs(
        f, x, lambda v, g: f.is_small(options.polish_accuracy, v, g), max_iterations, budget.over
    )
    return *cut(f, end.x), bool(end.converged[0])


def _with_fixed_rank(
    f: Factors, x: Array, max_iterations: int, options: SearchOptions, budget: Budget
) -> tuple[Array, bool]:
    """Return the minimum of full rank and True; where there is none, the same point and False."""
    fixed = FixedRank(f, float(f.decompose(x)[1].max()))

    def is_small(values: Array, gradients: Array) -> NDArray[np.bool_]:
        return f.is_small(options.polish_accuracy, values, gradients)

    end = lbfgs(fixed, fixed.enter(x), is_small, max_iterations, budget.over)
    return (fixed.leave(end.x), True) if end.converged[0] else (x, False)


def cut(f: Factors, x: Array) -> tuple[Factors, Array]:
    """Return a point (1, P) without its vanishing directions, of the width that is left."""
    left, values, right, bias = f.decompose(x)
    rank = int(f.ranks(values)[0])
    cut = Factors(f.problem, rank)
    return cut, cut.join(left[:, :, :rank], values[:, :rank], right[:, :, :rank], bias)


def _merged(f: Factors, x: Array, tolerance: float) -> tuple[Array, NDArray[np.intp]]:
    """Make equal what a descent can only bring close; also return each class's representative.

    Where two classes of equal count share one mean, averaging their logits and biases does not
    raise the objective: it is convex in U and the bias, and invariant under their exchange.
    """
    u, v, _, bias = (part[0].copy() for part in f.split(x))
    means = v / f.root[:, None]
    lengths = np.linalg.norm(means, axis=1)
    limit = VANISHING * lengths.max()
    v[lengths <= limit] = 0.0
    near = np.linalg.norm(means[:, None] - means, axis=2) <= limit
    near &= f.root[:, None] == f.root
    parents = np.arange(f.num_classes)
    for k in parents:
        parents[k] = next(j for j in np.flatnonzero(near[k]) if parents[j] == j)
    for parent in np.unique(parents):
        members = parents == parent
        for rows in (u, v, bias):
            rows[members] = rows[members].mean(axis=0)
    merged = x.copy()
    ends = f.cuts
    merged[0, : ends[1]] = np.concatenate([u.ravel(), v.ravel()])
    merged[0, ends[2] :] = bias[: ends[3] - ends[2]] / f.bias_scale
    if f.objective(merged) > f.objective(x) * (1 + tolerance):
        return x, np.arange(f.num_classes)
    return merged, parents
