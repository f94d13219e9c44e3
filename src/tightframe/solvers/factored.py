"""Factored Newton solver for the convex form: X = U V^T, trust region, conjugate gradients.

The nuclear norm becomes ``(||U||^2 + ||V||^2) / 2``, a smooth problem whose only local minima are
global once U and V have a spare column (docs/theory.md section 4). Newton steps come from
Steihaug's truncated conjugate gradients: matrix products only. A critical point whose gradient
exceeds the decay is left along its top singular pairs, so the rank starts at zero and grows to
what is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tightframe.blocks import Array, BlockMatrix, Partition, without_rounding
from tightframe.problem import Problem, at_most
from tightframe.solvers.certificate import Certificate, certify_blocks
from tightframe.solvers.datafits import make_datafit

Vector = Array

#: Up to this many groups are solved from zero; more start from an answer with groups pooled by
#: `POOL`, solved to `COARSE_TOLERANCE` (a rough one leaves the fine problem in a flat valley).
DIRECT_GROUPS = 40
POOL = 3
COARSE_TOLERANCE = 1e-6

#: Conjugate-gradient steps allowed for one Newton step.
MAX_CG_STEPS = 1000


@dataclass(frozen=True)
class FactoredResult:
    """What the solver returns: logits, bias per group, their certificate, and the work done."""

    logits: BlockMatrix
    bias: Array
    certificate: Certificate
    converged: bool
    iterations: int


class FactoredProblem:
    """The smooth function of (U, V, margins, bias) that `minimise` works on, flattened.

    Parameters
    ----------
    problem : Problem
        Convex form required.
    partition : Partition
        Classes of a group share their logits.
    """

    def __init__(self, problem: Problem, partition: Partition) -> None:
        self.problem = problem
        self.partition = partition
        self.fit = make_datafit(problem.loss, partition)
        self.decay = problem.logit_decay
        root = np.sqrt(partition.counts)
        # A group's margin is positive iff sqrt(n_i) / N > lambda, whatever the rest does.
        merged = at_most(root / partition.num_samples, self.decay)
        self.active = (partition.sizes > 1) & ~merged
        self.margin_cost = (self.decay * (partition.sizes - 1) * root)[self.active]
        self.has_bias = problem.bias != "none"
        self.rank = 0

    def unpack(self, x: Vector) -> tuple[Array, Array, Array, Array]:
        """Split a vector into U (G, r), V (G, r), within (G,) and bias (G,)."""
        g, r, m = self.partition.num_groups, self.rank, int(self.active.sum())
        u, v = x[: g * r].reshape(g, r), x[g * r : 2 * g * r].reshape(g, r)
        within = np.zeros(g)
        within[self.active] = x[2 * g * r : 2 * g * r + m]
        bias = x[2 * g * r + m :] if self.has_bias else np.zeros(g)
        return u, v, within, bias

    def pack(self, u: Array, v: Array, within: Array, bias: Array) -> Vector:
        """Join the parts into a vector; the inverse of `unpack`."""
        tail = bias if self.has_bias else bias[:0]
        return np.concatenate([u.ravel(), v.ravel(), within[self.active], tail])

    def cold_start(self) -> Vector:
        """Return zero logits between groups, and unit margins inside those that do not merge."""
        g = self.partition.num_groups
        none = np.zeros((g, 0))
        return self.pack(none, none, np.where(self.active, 1.0, 0.0), np.zeros(g))

    def warm_start(self, logits: BlockMatrix, bias: Array) -> Vector:
        """Return the balanced factors of given logits."""
        left, values, right = np.linalg.svd(logits.reduced)
        values = without_rounding(values)
        self.rank = int((values > 0).sum())
        root = np.sqrt(values[: self.rank])
        u, v = left[:, : self.rank] * root, right[: self.rank].T * root
        return self.pack(u, v, np.where(logits.within > 0, logits.within, 1.0), bias)

    def blocks(self, x: Vector) -> tuple[BlockMatrix, Array]:
        """Return the logits and the bias that a vector stands for."""
        u, v, within, bias = self.unpack(x)
        return BlockMatrix(self.partition, within, u @ v.T / self.partition.scale), bias

    def value(self, x: Vector) -> float:
        """Return the objective."""
        u, v, within, bias = self.unpack(x)
        scores = u @ v.T / self.partition.scale + bias[:, None]
        return (
            self.fit.value(within, scores)
            + self.decay / 2 * float(np.vdot(u, u) + np.vdot(v, v))
            + float(self.margin_cost @ within[self.active])
            + self.problem.bias_decay / 2 * float(self.partition.sizes @ bias**2)
        )

    def linearise(self, x: Vector) -> tuple[Vector, Callable[[Vector], Vector]]:
        """Return the gradient and the Hessian as a product function."""
        u, v, within, bias = self.unpack(x)
        scale, sizes = self.partition.scale, self.partition.sizes
        scores = u @ v.T / scale + bias[:, None]
        by_margin, by_score = self.fit.gradient(within, scores)
        curvature = self.fit.curvature(within, scores)
        g = by_score / scale
        bias_decay = self.problem.bias_decay

        def hessian(d: Vector) -> Vector:
            du, dv, d_within, d_bias = self.unpack(d)
            d_scores = (du @ v.T + u @ dv.T) / scale + d_bias[:, None]
            d_by_margin, d_by_score = curvature(d_within, d_scores)
            dg = d_by_score / scale
            return self.pack(
                dg @ v + g @ dv + self.decay * du,
                dg.T @ u + g.T @ du + self.decay * dv,
                d_by_margin,
                d_by_score.sum(axis=1) + bias_decay * sizes * d_bias,
            )

        slope = by_margin.copy()
        slope[self.active] += self.margin_cost
        gradient = self.pack(
            g @ v + self.decay * u,
            g.T @ u + self.decay * v,
            slope,
            by_score.sum(axis=1) + bias_decay * sizes * bias,
        )
        return gradient, hessian

    def escaping_pairs(self, x: Vector) -> tuple[Array, Array]:
        """Return the singular pairs of minus the gradient above the decay, as columns.

        They are descent directions (docs/theory.md section 4); empty at a global minimiser.
        """
        _, _, within, bias = self.unpack(x)
        logits, _ = self.blocks(x)
        residual = self.fit.residual(within, logits.mean + bias[:, None])
        left, values, right = np.linalg.svd(-residual.reduced / self.partition.num_samples)
        above = int((values > self.decay * (1 + 1e-9)).sum())
        take = min(above, self.partition.num_groups - self.rank)
        return left[:, :take], right[:take].T


def minimise(
    problem: Problem,
    partition: Partition,
    *,
    tol: float,
    max_iterations: int = 5000,
    start: tuple[BlockMatrix, Array] | None = None,
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
    start : tuple of BlockMatrix and ndarray, optional
        Logits and bias per group to start from, over the same partition. By default zero, or for
        many groups the answer of a coarser partition.
    """
    f = FactoredProblem(problem, partition)
    if start is None and partition.num_groups > DIRECT_GROUPS:
        start = _pooled_start(problem, partition)
    x = f.cold_start() if start is None else f.warm_start(*start)
    used, accuracy = 0, 0.1
    while True:
        x, steps = _trust_region_newton(f, x, max_iterations - used, accuracy)
        used += steps
        logits, bias = f.blocks(x)
        certificate = certify_blocks(problem, logits, bias)
        converged = certificate.gap <= tol * certificate.primal
        grown = x if converged else _leave_saddle(f, x)
        stuck = grown is x and accuracy < 1e-14
        if converged or stuck or used >= max_iterations:
            return FactoredResult(logits, bias, certificate, converged, used)
        if grown is x:
            accuracy *= 0.1
        x = grown


def _pooled_start(problem: Problem, partition: Partition) -> tuple[BlockMatrix, Array]:
    """Return the answer for neighbouring counts pooled, spread over their groups.

    The logits vary smoothly with the counts, so a few Newton steps remain to be done where a cold
    start takes dozens; the coarse problem is started in the same way.
    """
    parents = np.empty(partition.num_groups, dtype=np.intp)
    parents[np.argsort(partition.counts)] = np.arange(partition.num_groups) // POOL
    sizes = np.bincount(parents, partition.sizes).astype(np.float64)
    counts = np.bincount(parents, partition.sizes * partition.counts) / sizes
    coarse = minimise(problem, Partition(counts, sizes, lambda: parents), tol=COARSE_TOLERANCE)
    return coarse.logits.refine(partition, parents), coarse.bias[parents]


def _leave_saddle(f: FactoredProblem, x: Vector) -> Vector:
    """Add columns along the gradient's singular pairs above the decay; x itself if none is."""
    left, right = f.escaping_pairs(x)
    if not left.shape[1]:
        return x
    u, v, within, bias = f.unpack(x)
    f.rank += left.shape[1]
    trials = (
        f.pack(np.hstack([u, size * left]), np.hstack([v, size * right]), within, bias)
        for size in 4.0 ** np.arange(-8, 8)
    )
    return min(trials, key=f.value)


def _trust_region_newton(
    f: FactoredProblem, x: Vector, max_iterations: int, accuracy: float
) -> tuple[Vector, int]:
    """Minimise by Newton steps in a trust region until the gradient is small."""
    value = f.value(x)
    gradient, hessian = f.linearise(x)
    radius = max(1.0, float(np.linalg.norm(x)))
    for iteration in range(max_iterations):
        norm = float(np.linalg.norm(gradient))
        if norm <= accuracy * f.decay:
            return x, iteration
        step = _steihaug(gradient, hessian, radius, norm * min(0.1, math.sqrt(norm / f.decay)))
        predicted = -float(gradient @ step + step @ hessian(step) / 2)
        trial = x + step
        new = f.value(trial)
        new_gradient, new_hessian = f.linearise(trial)
        # Below rounding of the value the gradient decides.
        noise = 1e-13 * abs(value)
        if predicted < noise:
            ratio = 1.0 if np.linalg.norm(new_gradient) < norm else -1.0
        else:
            ratio = (value - new) / predicted
        if ratio < 0.25:
            radius = 0.25 * float(np.linalg.norm(step))
        elif ratio > 0.75:
            radius = max(radius, 2 * float(np.linalg.norm(step)))
        if ratio > 1e-3:
            x, value, gradient, hessian = trial, new, new_gradient, new_hessian
        elif predicted < noise:
            return x, iteration
    return x, max_iterations


def _steihaug(
    gradient: Vector, hessian: Callable[[Vector], Vector], radius: float, accuracy: float
) -> Vector:
    """Minimise the quadratic model in the trust region by truncated conjugate gradients."""
    step = np.zeros_like(gradient)
    residual = -gradient
    direction = residual.copy()
    squared = float(residual @ residual)
    for _ in range(min(2 * len(gradient), MAX_CG_STEPS)):
        product = hessian(direction)
        curvature = float(direction @ product)
        length = squared / curvature if curvature > 0 else math.inf
        if curvature <= 0 or np.linalg.norm(step + length * direction) >= radius:
            return step + _to_boundary(step, direction, radius) * direction
        step = step + length * direction
        residual = residual - length * product
        new = float(residual @ residual)
        if math.sqrt(new) <= accuracy:
            break
        direction = residual + new / squared * direction
        squared = new
    return step


def _to_boundary(step: Vector, direction: Vector, radius: float) -> float:
    a, b = float(direction @ direction), float(step @ direction)
    c = float(step @ step) - radius**2
    return (-b + math.sqrt(max(b * b - a * c, 0.0))) / a
