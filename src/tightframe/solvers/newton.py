"""Solver of the convex form: factored Newton, X = U V^T, trust region, certified stop.

The nuclear norm becomes ``(||U||^2 + ||V||^2) / 2``, a smooth problem whose only local minima are
global once U and V have a spare column (docs/theory.md section 4). Newton steps are exact where the
Hessian is small, and Steihaug's truncated conjugate gradients (matrix products only) elsewhere.
Between rounds of Newton steps a proximal gradient step on X finds the rank: it drops singular
values that the minimiser does not have and adds directions along which the objective falls.

Many groups go to the operator splitting first, and mostly no further.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import require_positive_fields
from tightframe.geometry.blocks import Array, BlockMatrix, Partition, singular_values, svd
from tightframe.problem.problem import Problem, at_most
from tightframe.solvers.splitting import split
from tightframe.solvers.starts import Factors, first_guess
from tightframe.solvers.stats import Round, Stats
from tightframe.theory.certificate import Certificate, certify_blocks, without_constant

Vector = Array

#: No round asks for more than this: rounding is above.
LAST_ACCURACY = 1e-14


@dataclass(frozen=True)
class NewtonOptions:
    """What the solver's work is spent on; the answer's certificate does not depend on it.

    Attributes
    ----------
    split_groups : int
        More groups than this are for the splitting, and Newton steps only for what it leaves.
    max_dense_unknowns : int
        Up to so many a Newton step solves with the Hessian written out.
    first_radius : float
        The first radius is at most so many times the scaled gradient: where that is small, long
        steps go along directions that turn U and V together, which are of no use.
    max_warm_iterations : int
        A prediction that needs more Newton steps than this was a bad one.
    max_rounds, steps_a_round : int
        Of a prediction whose rank may be wrong, which Newton steps at that rank do not get over:
        rounds allowed, and steps until the rank is looked at.
    max_regroupings : int
        Times that groups may be merged or torn apart, where class margins leave that open.
    slope_accuracy : float
        Relative, of the gradient's balance in the derivative by the decay.
    max_cg_steps : int
        Conjugate-gradient steps allowed for one Newton step.
    shift : float
        Added to the scaled Hessian's diagonal (about one) before it is factored.
    max_longer_steps : int
        Times that a proximal step into new directions is made four times as long.
    rough_accuracy : float
        Newton steps go to this norm of the gradient (see `_newton`) before the rank is looked at.
        After that they aim at the tolerance: the certified relative gap is 0.1 to 200 times its
        square.
    rank_slack, settled_accuracy : float
        Where a singular value of X is as small as the former (relatively), or one of the residual
        as near its limit, Newton steps go on to a norm of the latter: before, the rank may be
        another.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    split_groups: int = 60
    max_dense_unknowns: int = 80
    first_radius: float = 300.0
    max_warm_iterations: int = 20
    max_rounds: int = 8
    steps_a_round: int = 4
    max_regroupings: int = 30
    slope_accuracy: float = 1e-4
    max_cg_steps: int = 1000
    shift: float = 1e-9
    max_longer_steps: int = 20
    rough_accuracy: float = 1e-2
    rank_slack: float = 2e-3
    settled_accuracy: float = 1e-9

    def __post_init__(self) -> None:
        require_positive_fields(self)


DEFAULTS = NewtonOptions()


@dataclass(frozen=True)
class FactoredResult:
    """What the solver returns: the point, its certificate, and the work done."""

    logits: BlockMatrix
    factors: Factors
    certificate: Certificate
    converged: bool
    stats: Stats
    method: str = "grouped Newton"


class Model(NamedTuple):
    """Second-order model at a point.

    ``weights`` scales the unknowns: in ``weights * x`` the Hessian's diagonal is about one, so the
    squared norm of the scaled gradient is about twice the excess of the objective.
    """

    gradient: Vector
    hessian: Callable[[Vector], Vector]
    weights: Vector


class FactoredProblem:
    """The smooth function of (U, V, margins, bias) that `minimise` works on, flattened.

    Parameters
    ----------
    problem : Problem
        Convex form required.
    partition : Partition
        Classes of a group share their logits.
    options : NewtonOptions
    merged : ndarray of bool, shape (G,), optional
        Groups whose classes share their logits, of those that may or may not: class margins leave
        that to the other logits. None by default; see `regrouped`.
    """

    def __init__(
        self,
        problem: Problem,
        partition: Partition,
        options: NewtonOptions = DEFAULTS,
        merged: NDArray[np.bool_] | None = None,
    ) -> None:
        self.problem, self.options = problem, options
        self.partition = partition
        self.fit = problem.loss_object.datafit(partition)
        self.decay = problem.logit_decay
        self.step_size = 1 / self.fit.smoothness
        # A proximal step of that size drops no singular value above this.
        self.safe_value = self.decay * self.step_size
        root = np.sqrt(partition.counts)
        # Whether a group's margin is positive does not depend on the rest, without class margins.
        surely, possibly = (
            at_most(pull / partition.num_samples, self.decay)
            for pull in reversed(partition.pull_range)
        )
        self.unsure = (partition.sizes > 1) & possibly & ~surely
        self.merged = surely if merged is None else surely | (merged & self.unsure)
        self.active = np.flatnonzero((partition.sizes > 1) & ~self.merged)
        cost = self.decay * (partition.sizes - 1) * root
        self.margin_cost = cost[self.active]
        # Below zero, where Newton steps go, the cost alone might fall faster than the loss rises:
        # this bends it upwards within a logit or so of the loss.
        self.bend = np.where(self.unsure & ~self.merged, cost * partition.scales, 0.0)
        self.bent = bool(self.bend.any())
        self.has_bias = problem.bias != "none"
        # With a free bias ``Z n = 0`` at the minimum: the bias carries row averages for nothing.
        # Held there, V has no soft direction along which it trades them with the bias.
        self.pinned = np.sqrt(partition.shares) if problem.bias == "free" else None
        self.num_tail = len(self.active) + self.has_bias * partition.num_groups

    # -- points ----------------------------------------------------------------------------------

    def unpack(self, x: Vector) -> Factors:
        """Split a vector (or a batch of them, on the last axis)."""
        g, r, m = self.partition.num_groups, self.rank(x), len(self.active)
        batch = x.shape[:-1]
        within = np.zeros((*batch, g))
        if m:
            within[..., self.active] = x[..., 2 * g * r : 2 * g * r + m]
        return Factors(
            x[..., : g * r].reshape(*batch, g, r),
            x[..., g * r : 2 * g * r].reshape(*batch, g, r),
            within,
            x[..., 2 * g * r + m :] if self.has_bias else np.zeros((*batch, g)),
        )

    def rank(self, x: Vector) -> int:
        """Return the number of columns of U and V."""
        return int(x.shape[-1] - self.num_tail) // (2 * self.partition.num_groups)

    def pack(self, left: Array, right: Array, within: Array, bias: Array) -> Vector:
        """Join the parts into a vector; the inverse of `unpack`."""
        batch = left.shape[:-2]
        parts = [left.reshape(*batch, -1), right.reshape(*batch, -1), within[..., self.active]]
        return np.concatenate([*parts, bias] if self.has_bias else parts, axis=-1)

    def enter(self, factors: Factors) -> Vector:
        """Return factors as a vector; margins that must be positive and are not start at one."""
        within = np.where(factors.within > 0, factors.within, 1.0)
        return self.pack(factors.left, self.project(factors.right), within, factors.bias)

    def project(self, right: Array) -> Array:
        """Project V, or a change or gradient of it, onto ``Z n = 0`` where the bias is free."""
        if self.pinned is None:
            return right
        return right - self.pinned[:, None] * (self.pinned @ right)[..., None, :]

    def regrouped(self, x: Vector) -> FactoredProblem | None:
        """Return the problem in which other groups are merged, or None where these are right.

        Newton steps let a margin fall below zero; at zero it stays iff siblings are torn apart by
        no more than the decay.
        """
        if not self.unsure.any():
            return None
        u, v, within, bias = self.unpack(x)
        residual = self.fit.residual(within, u @ v.T / self.partition.scale + bias[:, None])
        limit = self.decay * self.partition.num_samples / np.sqrt(self.partition.counts)
        merged = np.where(within == 0, at_most(-residual.within, limit), within < 0)
        if np.array_equal(merged & self.unsure, self.merged & self.unsure):
            return None
        return FactoredProblem(self.problem, self.partition, self.options, merged)

    def feasible(self, step: Vector) -> Vector:
        """Return a step with its change of V projected."""
        if self.pinned is None:
            return step
        du, dv, d_within, d_bias = self.unpack(step)
        return self.pack(du, self.project(dv), d_within, d_bias)

    def blocks(self, x: Vector) -> tuple[BlockMatrix, Array]:
        """Return the logits and the bias that a vector stands for."""
        u, v, within, bias = self.unpack(x)
        return BlockMatrix(self.partition, within, u @ v.T / self.partition.scale), bias

    # -- the function ----------------------------------------------------------------------------

    def value(self, x: Vector) -> float:
        """Return the objective."""
        u, v, within, bias = self.unpack(x)
        value = self.fit.value(within, u @ v.T / self.partition.scale + bias[:, None])
        size = 2 * u.size
        value += self.decay / 2 * float(x[:size] @ x[:size]) + float(
            self.margin_cost @ within[self.active]
        )
        if self.problem.bias_decay:
            value += self.problem.bias_decay / 2 * float(self.partition.sizes @ bias**2)
        if self.bent:
            value += float(self.bend @ np.minimum(within, 0.0) ** 2) / 2
        return value

    def size(self, x: Vector, value: float) -> float:
        """Return the objective itself, above zero, from `value`: there some margins lower it."""
        if not self.bent:
            return value
        below = np.minimum(self.unpack(x).within, 0.0)
        value -= 2 * float(self.margin_cost @ below[self.active])
        return value - float(self.bend @ below**2) / 2

    def model(self, x: Vector) -> Model:
        """Return gradient, Hessian product (of one vector or a batch) and scales."""
        u, v, within, bias = self.unpack(x)
        scale, decay = self.partition.scale, self.decay
        point = self.fit.derivatives(within, u @ v.T / scale + bias[:, None])
        g = point.by_score / scale
        bias_cost = self.problem.bias_decay * self.partition.sizes
        bend = np.where(within < 0, self.bend, 0.0)

        def hessian(d: Vector) -> Vector:
            du, dv, d_within, d_bias = self.unpack(d)
            dv = self.project(dv)
            d_scores = (du @ v.T + u @ dv.swapaxes(-1, -2)) / scale
            if self.has_bias:
                d_scores += d_bias[..., None]
            by_margin, by_score = point.curvature(d_within, d_scores)
            dg = by_score / scale
            return self.pack(
                dg @ v + g @ dv + decay * du,
                self.project(dg.swapaxes(-1, -2) @ u + g.T @ du + decay * dv),
                by_margin + bend * d_within if self.bent else by_margin,
                by_score.sum(axis=-1) + bias_cost * d_bias,
            )

        slope = point.by_margin.copy()
        slope[self.active] += self.margin_cost
        if self.bent:
            slope += bend * within
        by_bias = point.by_score.sum(axis=1) + bias_cost * bias
        gradient = self.pack(g @ v + decay * u, self.project(g.T @ u + decay * v), slope, by_bias)
        # The Hessian's diagonal, floored where the softmax saturates and it vanishes.
        by_entry = point.score_diagonal / scale**2
        diagonal = self.pack(
            by_entry @ v**2 + decay,
            by_entry.T @ u**2 + decay,
            point.margin_diagonal + bend,
            point.score_diagonal.sum(axis=1) + bias_cost,
        )
        weights = np.sqrt(np.maximum(diagonal, 1e-6 * decay))
        return Model(gradient, hessian, weights)

    def proximal_step(self, x: Vector, size: float) -> Factors:
        """Step down the data fit's gradient in X, then shrink the singular values by the decay."""
        u, v, within, bias = self.unpack(x)
        residual = self.fit.residual(within, u @ v.T / self.partition.scale + bias[:, None])
        slope = self.project(residual.reduced.T).T / self.partition.num_samples
        target = u @ v.T - size * slope
        left, values, right = svd(target)
        shrunk = np.maximum(values - size * self.decay, 0.0)
        return Factors.from_svd(left, shrunk, right, within, bias)


def minimise(
    problem: Problem,
    partition: Partition,
    *,
    tol: float,
    max_iterations: int = 5000,
    start: Factors | None = None,
    options: NewtonOptions = DEFAULTS,
) -> FactoredResult:
    """Solve the convex form over block logits to a certified relative gap.

    Parameters
    ----------
    problem : Problem
        One linear layer, real features, wide enough.
    partition : Partition
        The classes' symmetry; singletons use none.
    tol : float
        Stop when the duality gap is at most ``tol`` times the objective.
    max_iterations : int
        Newton iterations allowed.
    start : Factors, optional
        Where to start from, over the same partition; by default `first_guess`.
    options : NewtonOptions
    """
    used, adaptations, radius = 0, 0, math.inf
    history: list[Round] = []
    if partition.num_groups > options.split_groups:
        # An overflow on its way leaves all to Newton's method, which guards its steps.
        with suppress(np.linalg.LinAlgError), np.errstate(over="ignore", invalid="ignore"):
            result = _split(problem, partition, tol, max_iterations, start)
            if result.converged or result.stats.iterations >= max_iterations:
                return result
            start, used = result.factors, result.stats.iterations
            history += result.stats.history
    f = FactoredProblem(problem, partition, options)
    regroupings = 0
    if start is not None:
        if f.unsure.any():
            f = FactoredProblem(problem, partition, options, start.within <= 0)
        x = f.enter(start)
    else:
        x, used, adaptations = _begin(f, max_iterations)
    accuracy, afresh = _accuracy(tol), False
    while True:
        x, steps, reached, radius = _newton(f, x, accuracy, radius, max_iterations - used)
        used += steps
        logits, bias = f.blocks(x)
        certificate = certify_blocks(problem, logits, bias, enough=tol)
        converged = certificate.gap <= tol * certificate.primal
        history.append(Round(used, certificate.primal, certificate.dual, f.rank(x)))
        if used >= max_iterations:
            break
        regrouped = f.regrouped(x) if regroupings < options.max_regroupings else None
        if regrouped is not None:
            # Afresh: from a margin far below zero steps may end in a saddle.
            f, radius, regroupings = regrouped, math.inf, regroupings + 1
            x, steps, adapted_times = _begin(f, max_iterations - used)
            used, adaptations = used + steps, adaptations + adapted_times
            continue
        if accuracy <= LAST_ACCURACY:
            if converged or afresh or certificate.gap <= 5 * certificate.rounding:
                break
            # Directions that were added too early may not be got rid of: once more, none is.
            afresh, accuracy, radius = True, options.settled_accuracy, math.inf
            x, steps, adapted_times = _begin(f, max_iterations - used)
            used, adaptations = used + steps, adaptations + adapted_times
            continue
        hidden = converged and _may_hide_rank(f, x, logits, reached)
        if not converged or _may_shrink(f, x, logits):
            adapted = _adapt_rank(f, x)
            if adapted is not x:
                adaptations += 1
                x, radius = adapted, math.inf
                accuracy = max(accuracy if steps else 0.1 * accuracy, LAST_ACCURACY)
                continue
        if hidden:
            accuracy = max(1e-3 * min(reached, accuracy), LAST_ACCURACY)
            continue
        if converged:
            break
        # The gap falls as fast as the square of the gradient.
        wanted = math.sqrt(0.1 * tol * certificate.primal / certificate.gap)
        accuracy = max(min(reached, accuracy) * min(max(wanted, 1e-2), 0.2), LAST_ACCURACY)
    factors = f.unpack(x)
    factors = factors._replace(bias=without_constant(problem, factors.bias, partition))
    stats = Stats(used, 1, adaptations, tuple(history))
    return FactoredResult(logits, factors, certificate, converged, stats)


def _begin(f: FactoredProblem, max_iterations: int) -> tuple[Vector, int, int]:
    """Return a point near the first guess, Newton steps taken, and how often the rank changed."""
    guess = Factors.balanced(*first_guess(f.problem, f.partition))
    x = f.enter(guess)
    if _is_settled(f, guess):
        return x, 0, 0
    first = _adapt_rank(f, x)
    rough, used, _, _ = _newton(f, first, f.options.rough_accuracy, math.inf, max_iterations)
    last = _adapt_rank(f, rough)
    return last, used, (first is not x) + (last is not rough)


def minimise_from(
    start: Factors | None, problem: Problem, partition: Partition, tol: float, max_iterations: int
) -> FactoredResult:
    """Minimise from a prediction, if there is one; afresh where it turns out a bad one."""
    if start is not None:
        few = min(DEFAULTS.max_warm_iterations, max_iterations)
        result = minimise(problem, partition, tol=tol, max_iterations=few, start=start)
        if result.converged:
            return result
    return minimise(problem, partition, tol=tol, max_iterations=max_iterations)


def _accuracy(tol: float) -> float:
    return max(0.05 * math.sqrt(tol), LAST_ACCURACY)


def polish(
    start: Factors, problem: Problem, partition: Partition, tol: float, max_iterations: int
) -> Factors | None:
    """Take a few Newton steps at the rank of a prediction, to what a gap of ``tol`` mostly needs.

    Neither rank nor gap are looked at, but which groups merge is. None if few are not enough.
    """
    f = FactoredProblem(problem, partition, merged=start.within <= 0)
    few = min(f.options.max_warm_iterations, max_iterations)
    x = f.enter(start)
    for _ in range(f.options.max_rounds):
        x, _, reached, _ = _newton(f, x, _accuracy(tol), math.inf, few)
        if reached > _accuracy(tol):
            return None
        other = f.regrouped(x)
        if other is None:
            return f.unpack(x)
        x, f = other.enter(f.unpack(x)), other
    return None


def settle(
    start: Factors, problem: Problem, partition: Partition, tol: float, max_iterations: int
) -> Factors | None:
    """Newton steps as in `polish`, and the rank is changed until it is the minimiser's.

    A certified gap of 1e-12 can hide a wrong rank. That a proximal step keeps it says more: no
    singular value falls to zero, and the gradient exceeds the decay in no other direction. None if
    a few rounds are not enough.
    """
    f = FactoredProblem(problem, partition, merged=start.within <= 0)
    few = min(f.options.steps_a_round, max_iterations)
    x = f.enter(start)
    for _ in range(f.options.max_rounds):
        x, _, reached, _ = _newton(f, x, _accuracy(tol), math.inf, few)
        adapted = _adapt_rank(f, x)
        if adapted is x and reached <= _accuracy(tol):
            other = f.regrouped(x)
            if other is None:
                return f.unpack(x)
            x, f = other.enter(f.unpack(x)), other
            continue
        x = adapted
    return None


def remaining(factors: Factors, problem: Problem, partition: Partition) -> float:
    """Return the norm of the scaled gradient: its square is about twice the objective's excess."""
    f = FactoredProblem(problem, partition, merged=factors.within <= 0)
    model = f.model(f.enter(factors))
    return float(np.linalg.norm(model.gradient / model.weights))


def slope(factors: Factors, problem: Problem, partition: Partition) -> Factors:
    """Return the derivative of a minimiser by the logarithm of the decay, at fixed rank.

    The gradient stays zero: the Hessian times the derivative balances how it changes by itself.
    """
    f = FactoredProblem(problem, partition, merged=factors.within <= 0)
    x = f.enter(factors)
    model = f.model(x)
    pull = f.pack(factors.left, factors.right, np.zeros(partition.num_groups), 0 * factors.bias)
    pull *= f.decay
    size = 2 * factors.left.size
    pull[size : size + len(f.active)] = f.margin_cost
    balance = model._replace(gradient=pull)
    solve = _direct_step if len(x) <= f.options.max_dense_unknowns else _truncated_step
    exactness = f.options.slope_accuracy * float(np.linalg.norm(pull / model.weights))
    step, _ = solve(balance, f.options, math.inf, f.options.shift, exactness)
    return f.unpack(f.feasible(step))


def _split(
    problem: Problem, partition: Partition, tol: float, max_iterations: int, start: Factors | None
) -> FactoredResult:
    """Minimise by operator splitting, from a start or the first guess."""
    # In the call: the splitting lets go of what it has entered.
    found = split(problem, _entry(problem, partition, start), tol, max_iterations)
    factors = Factors.from_svd(*found.logits.decomposition, found.logits.within, found.bias)
    converged = found.certificate.gap <= tol * found.certificate.primal
    stats = Stats(found.history[-1].iteration, 1, 0, found.history)
    return FactoredResult(
        found.logits, factors, found.certificate, converged, stats, "operator splitting"
    )


def _entry(
    problem: Problem, partition: Partition, start: Factors | None
) -> tuple[BlockMatrix, Array]:
    """Return logits and bias to start from."""
    if start is None:
        return first_guess(problem, partition)
    left, right, within, bias = start
    return BlockMatrix(partition, within, left @ right.T / partition.scale), bias


def _adapt_rank(f: FactoredProblem, x: Vector) -> Vector:
    """Return a proximal gradient step from x where that changes the rank, otherwise x itself."""
    new = f.enter(f.proximal_step(x, f.step_size))
    if len(new) > len(x):
        return _longer_step(f, x, new)
    return x if len(new) == len(x) else new


def _is_settled(f: FactoredProblem, balanced: Factors) -> bool:
    """Tell whether the rank of balanced factors can hardly change: full, and nothing near zero."""
    values = np.square(balanced.left).sum(axis=0)
    return len(values) >= f.partition.num_groups - 1 and bool(
        values.min(initial=math.inf) >= f.safe_value
    )


def _may_shrink(f: FactoredProblem, x: Vector, logits: BlockMatrix) -> bool:
    """Tell whether a proximal step could drop a singular value: only one below its threshold."""
    rank = f.rank(x)
    if rank == 0:
        return False
    smallest = np.sort(logits.spectrum[0][: f.partition.num_groups])[-rank]
    return bool(smallest < f.safe_value)


def _may_hide_rank(f: FactoredProblem, x: Vector, logits: BlockMatrix, reached: float) -> bool:
    """Tell whether the minimiser may have another rank, for all that the gradient says.

    Of many groups the singular values lie so close that always some seem to tell so.
    """
    if f.partition.num_groups > f.options.split_groups:
        return False
    if reached <= f.options.settled_accuracy:
        return False
    left, values, right = logits.decomposition
    rank = f.rank(x)
    if rank and values[rank - 1] < f.options.rank_slack * max(values[0], f.safe_value):
        return True
    if rank >= f.problem.loss_object.max_rank(f.partition.num_groups):
        return False
    _, _, within, bias = f.unpack(x)
    residual = f.fit.residual(within, logits.mean + bias[:, None]).reduced
    residual = f.project(residual.T).T
    rest = residual - left[:, :rank] @ (left[:, :rank].T @ residual)
    rest = rest - (rest @ right[:rank].T) @ right[:rank]
    limit = (1 - f.options.rank_slack) * f.decay * f.partition.num_samples
    return bool(singular_values(rest)[0] > limit)


def _longer_step(f: FactoredProblem, x: Vector, best: Vector) -> Vector:
    """Make the proximal gradient step from x to ``best`` longer as long as the objective falls.

    The bound of the curvature is far too cautious where factors are small, or only begin.
    """
    size, value = f.step_size, f.value(best)
    for _ in range(f.options.max_longer_steps):
        size *= 4
        longer = f.enter(f.proximal_step(x, size))
        longer_value = f.value(longer)
        if not longer_value < value:
            break
        best, value = longer, longer_value
    return best


def _newton(
    f: FactoredProblem, x: Vector, accuracy: float, radius: float, max_iterations: int
) -> tuple[Vector, int, float, float]:
    """Minimise at fixed rank by Newton steps in a trust region.

    Stops when the scaled gradient's norm is at most ``accuracy`` times the root of the objective,
    and returns the point, the steps taken, what that ratio has become and the last radius.
    """
    value = f.value(x)
    size = f.size(x, value)
    model = f.model(x)
    reached = float(np.linalg.norm(model.gradient / model.weights))
    longest = math.sqrt(2 * size)
    radius = min(radius, longest, f.options.first_radius * reached)
    if not math.isfinite(radius):
        return x, 0, math.inf, math.inf
    solve = _direct_step if len(x) <= f.options.max_dense_unknowns else _truncated_step
    refused = math.inf  # from here, a step of this length was seen to raise the value
    for iteration in range(max_iterations):
        reached = float(np.linalg.norm(model.gradient / model.weights)) / math.sqrt(size)
        if reached <= accuracy:
            return x, iteration, reached, radius
        # No more exact than superlinear convergence, or the end of the round, asks for.
        exactness = max(0.5 * accuracy, reached * min(0.1, math.sqrt(reached)))
        step, length = solve(model, f.options, radius, reached, exactness * math.sqrt(size))
        step = f.feasible(step)
        predicted = -float(model.gradient @ step + step @ model.hessian(step) / 2)
        trial = x + step
        new = f.value(trial)
        # Below rounding of the value the gradient decides.
        noise = 1e-13 * size
        new_model = None
        if predicted < -noise:
            # Rounding has led the conjugate gradients astray; shorter steps are safer.
            ratio = -1.0
        elif predicted < noise:
            new_model = f.model(trial)
            before, after = model.gradient, new_model.gradient
            smaller = np.linalg.norm(after / model.weights) < np.linalg.norm(before / model.weights)
            ratio = 1.0 if smaller else -1.0
            if not smaller and 0.99 * radius < length and radius < min(longest, refused / 8):
                # Cut short along a soft direction, the gradient may well grow.
                radius = min(8 * radius, longest)
                continue
        else:
            ratio = (value - new) / predicted
        if ratio < 0.25:
            radius = 0.25 * length
        elif ratio > 0.75:
            radius = max(radius, 2 * length)
        if ratio > 1e-3:
            x, value, model = trial, new, new_model or f.model(trial)
            size = f.size(x, value)
            refused = math.inf
        elif abs(predicted) <= noise:
            return x, iteration, reached, radius
        else:
            refused = length
    return x, max_iterations, math.inf, radius


def _direct_step(
    model: Model, options: NewtonOptions, radius: float, shift: float, _: float
) -> tuple[Vector, float]:
    """Minimise the model in the trust region with the Hessian written out.

    A small shift makes up for the directions that turn U and V together, where it is singular.
    Returns the step and its length, the radius where that is what limits it.
    """
    w = model.weights
    matrix = model.hessian(np.eye(len(w))) / w / w[:, None]
    target = -model.gradient / w
    least, shift, limited = max(options.shift, shift), options.shift, False
    while True:
        shifted = matrix + shift * np.eye(len(w))
        try:
            np.linalg.cholesky(shifted)
            step = np.linalg.solve(shifted, target)
            length = float(np.linalg.norm(step))
            if length <= radius:
                return step / w, radius if limited else length
        except np.linalg.LinAlgError:
            pass
        shift, limited = max(8 * shift, least), True


def _truncated_step(
    model: Model, options: NewtonOptions, radius: float, shift: float, accuracy: float
) -> tuple[Vector, float]:
    """Minimise the model in the trust region by Steihaug's truncated conjugate gradients."""
    w = model.weights
    residual = -model.gradient / w
    step = np.zeros_like(residual)
    direction = residual.copy()
    squared = float(residual @ residual)
    for _ in range(min(2 * len(w), options.max_cg_steps)):
        product = model.hessian(direction / w) / w + shift * direction
        curvature = float(direction @ product)
        length = squared / curvature if curvature > 0 else math.inf
        if curvature <= 0 and step.any():
            # Away from a critical point, turning U and V has curvature below zero, of no use.
            break
        longer = step + length * direction if curvature > 0 else step
        if curvature <= 0 or longer @ longer >= radius**2:
            step = step + _to_boundary(step, direction, radius) * direction
            break
        step = longer
        residual -= length * product
        new = float(residual @ residual)
        if new <= accuracy**2:
            break
        direction *= new / squared
        direction += residual
        squared = new
    return step / w, float(np.linalg.norm(step))


def _to_boundary(step: Vector, direction: Vector, radius: float) -> float:
    a, b = float(direction @ direction), float(step @ direction)
    c = float(step @ step) - radius**2
    return (-b + math.sqrt(max(b * b - a * c, 0.0))) / a
