"""Certificates: how far a candidate is from the global minimum, whoever made it.

Imports no solver. The convex case (one linear layer, real features) uses the duality gap of

    min_{Z, b}  f(Z + b 1^T) + lambda ||Z D^{1/2}||_* + (bias_decay / 2) ||b||^2

(docs/theory.md section 2). Any residual R that is feasible for the data fit, has
``||R D^{1/2} / N||_op <= lambda`` and, with a free bias, ``R n = 0`` gives the lower bound
``-f*(R) - ||R n / N||^2 / (2 bias_decay)``. Evaluated in float64; rounding of the last digits is
not covered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tightframe.geometry.blocks import Array, BlockMatrix, Partition, svd
from tightframe.losses.base import Datafit
from tightframe.problem.problem import Problem
from tightframe.theory.coverage import coverage, is_convex
from tightframe.theory.orthant import orthant_bound

#: Newton steps allowed for the bias of a candidate; more only loosens the bound, never breaks it.
MAX_BIAS_STEPS = 100

#: Largest change of a bias in one step, in logit units.
MAX_BIAS_STEP = 20.0

#: Singular vectors of logits with smaller values than this, relatively, say nothing.
FACE_TOLERANCE = 1e-6

#: Samples whose logits are held at a time.
SAMPLE_CHUNK = 65536


@dataclass(frozen=True)
class Certificate:
    """A candidate's objective and a lower bound of the global minimum.

    Attributes
    ----------
    primal : float
        The candidate's objective (nats for cross-entropy).
    dual : float
        Lower bound of the global minimum.
    """

    primal: float
    dual: float

    @property
    def gap(self) -> float:
        """Upper bound of the candidate's distance from the minimum, at least 0."""
        return max(self.primal - self.dual, 0.0)


def certify(
    problem: Problem,
    logits: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    lower_bound: float | None = None,
) -> Certificate:
    """Certify ANY candidate, for example the class means of a trained network.

    Parameters
    ----------
    problem : Problem
        The convex form (one layer, real features, ``dim`` at least K - 1, K for MSE), a case with a
        closed form, or any with one layer and non-negative features.
    logits : array_like, shape (K, K)
        Mean logits without bias, ``W H``; column k holds the samples of class k.
    bias : array_like, shape (K,), optional
        The bias; zeros if omitted. Only with ``problem.bias`` other than ``"none"``.
    lower_bound : float, optional
        A lower bound of the same problem's objective that is known already, for example
        ``tf.solve(problem).lower_bound``; the better bound is used. The bound that follows from a
        candidate alone is valid for any candidate, but loose for a poor one.

    Returns
    -------
    Certificate
        ``primal`` is the objective of these logits with their cheapest factors (with non-negative
        features: with orthogonal class means); ``gap`` bounds its distance from the minimum.

    Raises
    ------
    ValueError
        If shapes or values are off, or nothing certifies this kind of problem.
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    k = problem.num_classes
    z = finite_array("logits", logits, (k, k))
    b = np.zeros(k) if bias is None else finite_array("bias", bias, (k,))
    if problem.bias == "none" and b.any():
        raise ValueError("bias: got a non-zero bias for a problem with bias='none'")
    if lower_bound is not None:
        lower_bound = float(finite_array("lower_bound", lower_bound, ()))
    blocks = BlockMatrix.from_dense(problem, z)
    _require_reachable(problem, blocks)
    certificate = certify_blocks(problem, blocks, b)
    if lower_bound is None or lower_bound <= certificate.dual:
        return certificate
    if lower_bound > certificate.primal * (1 + 1e-9) + 1e-12:
        raise ValueError(
            f"lower_bound: got {lower_bound}, above this candidate's objective "
            f"{certificate.primal}: not a lower bound of this problem"
        )
    return Certificate(certificate.primal, float(lower_bound))


def _require_reachable(problem: Problem, logits: BlockMatrix) -> None:
    """Refuse logits that no factors of the problem's width have."""
    if problem.width is None or is_convex(problem):
        return
    real = problem.features == "real"
    needed = logits.rank if real else int((logits.column_norms > 0).sum())
    if needed > problem.width:
        what = f"rank {needed}" if real else f"{needed} classes with non-zero logits"
        raise ValueError(f"logits: {what}, which features of dim {problem.width} cannot have")


def finite_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return finite float64 numbers of a shape, or raise a ValueError that names the argument."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: need numbers of shape {shape}") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: need numbers of shape {shape}, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: got shape {array.shape}, need {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: entries must be finite")
    return array.astype(np.float64)


def penalty(problem: Problem, logits: BlockMatrix) -> float:
    """Return the least decay cost of factors with these logits.

    For M layers ``(M+1)/2 mu sum sigma^{2/(M+1)}``, ``mu = (feature_decay prod
    weight_decay)^{1/(M+1)}``, over the singular values of ``Z D^{1/2}``; for M = 1 that is
    ``lambda ||Z D^{1/2}||_*``. With non-negative features: over the column lengths, the cost of
    orthogonal class means.
    """
    if problem.features == "real":
        values, times = logits.spectrum
    else:
        values, times = logits.column_norms, logits.partition.sizes
    m = problem.depth
    return float((m + 1) / 2 * problem.mean_decay * (times @ values ** (2 / (m + 1))))


def objective(problem: Problem, logits: BlockMatrix, bias: Array) -> float:
    """Return the objective of block logits with their cheapest factors; ``bias`` per group."""
    fit = problem.loss_object.datafit(logits.partition)
    bias_cost = problem.bias_decay / 2 * float(logits.partition.sizes @ bias**2)
    return (
        fit.value(logits.within, logits.mean + bias[:, None]) + penalty(problem, logits) + bias_cost
    )


def certify_blocks(
    problem: Problem, logits: BlockMatrix, bias: Array, *, enough: float = 0.0
) -> Certificate:
    """Certify block logits and a bias per group, by duality, by a theorem's bound, or both.

    Further bounds are left out once the gap is at most ``enough`` times the objective.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            primal = objective(problem, logits, bias)
    except np.linalg.LinAlgError:  # an overflow reached the singular values
        primal = np.inf
    if not np.isfinite(primal):
        raise ValueError("logits: so large that the objective overflows")
    dual = -np.inf
    for bound in _bounds(problem, logits, bias):
        dual = max(dual, bound)
        if primal - dual <= enough * primal:
            break
    if dual == -np.inf:
        raise ValueError(f"problem: {coverage(problem).reason}")
    return Certificate(primal, dual)


def _bounds(problem: Problem, logits: BlockMatrix, bias: Array) -> Iterator[float]:
    """Give lower bounds of the minimum; near the minimiser the first ones are the tightest."""
    family = coverage(problem).family
    if family is not None and (bound := family.lower_bound(problem)) is not None:
        yield bound
    if is_convex(problem):
        fit = problem.loss_object.datafit(logits.partition)
        yield 0.0  # no loss and no decay cost is below
        limit = np.asarray(problem.logit_decay * logits.partition.num_samples)
        residual = fit.residual(logits.within, logits.mean + bias[:, None])
        yield _bound(problem, fit, _aligned(problem, logits, residual, limit))
        if problem.bias != "none":
            best = best_bias(problem, fit, logits, bias)
            residual = fit.residual(logits.within, logits.mean + best[:, None])
            yield _bound(problem, fit, _aligned(problem, logits, residual, limit))
        if problem.bias == "free":
            residual = fit.repair(residual)
        yield _bound(problem, fit, _clipped(problem, residual))
        yield _bound(problem, fit, _scaled(problem, residual))
    elif family is None and problem.features == "nonnegative" and problem.depth == 1:
        fit = problem.loss_object.datafit(logits.partition)
        biases = [bias]
        if problem.bias != "none":
            biases.append(best_bias(problem, fit, logits, bias))
        for b in biases:
            residual = fit.residual(logits.within, logits.mean + b[:, None])
            yield orthant_bound(problem, fit, residual)


def certify_batch(
    problem: Problem, logits: BlockMatrix, bias: Array, decays: Array, bias_decays: Array
) -> tuple[Array, Array]:
    """Certify a batch of points near the minimisers of problems that differ in their decays.

    Parameters
    ----------
    problem : Problem
        Convex form required; its decays are not used.
    logits : BlockMatrix
        With one leading axis, of length T.
    bias : ndarray, shape (T, G)
    decays, bias_decays : ndarray, shape (T,)
        ``logit_decay`` and ``bias_decay`` of every point.

    Returns
    -------
    primal, dual : ndarray, shape (T,)
        Objectives and lower bounds; the latter may be -inf.
    """
    p = logits.partition
    fit = problem.loss_object.datafit(p)
    scores = logits.mean + bias[..., None]
    values, times = logits.spectrum
    residual = fit.residual(logits.within, scores)
    primal = fit.values_at(residual) + decays * (values @ times)
    residual = _aligned(problem, logits, residual, decays * p.num_samples)
    dual = fit.dual_values(residual)
    if problem.bias == "decayed":
        primal += bias_decays / 2 * (bias**2 @ p.sizes)
        dual -= residual.row_average**2 @ p.sizes / (2 * bias_decays)
    return primal, dual


def _aligned(
    problem: Problem, logits: BlockMatrix, residual: BlockMatrix, limit: Array
) -> BlockMatrix:
    """Put a residual, or a batch, on the face of the norm ball that the logits expose.

    With ``X = U S V^T``, the minimiser's residual is ``-limit U V^T`` plus a part orthogonal to U
    and V, of norm at most ``limit``. Put there, a residual loses only the square of its distance
    from the optimum, where `_clipped` and `_scaled` lose the distance.
    """
    p = residual.partition
    left, values, right = logits.decomposition
    kept = values > FACE_TOLERANCE * values[..., :1]
    face = (left * kept[..., None, :]) @ right
    back = face.swapaxes(-1, -2)
    rest = residual.reduced
    rest = rest - face @ (back @ rest)
    rest = _clip(rest - (rest @ back) @ face, limit)
    reduced = rest - limit[..., None, None] * face
    # X is only nearly orthogonal to what R must be orthogonal to.
    if problem.loss_object.ignores_constants:
        ones = np.sqrt(p.sizes / p.sizes.sum())
        reduced -= ones[:, None] * (ones @ reduced)[..., None, :]
    if problem.bias == "free":
        counts = np.sqrt(p.shares)
        reduced -= (reduced @ counts)[..., None] * counts
    reach = limit[..., None] / np.sqrt(p.counts)
    within = np.where(logits.within > 0, -reach, np.clip(residual.within, -reach, reach))
    return BlockMatrix(p, np.where(p.sizes > 1, within, 0.0), reduced / p.scale)


def _clipped(problem: Problem, residual: BlockMatrix) -> BlockMatrix:
    """Clip singular values above the limit; 2 to 20 times tighter than scaling all of them."""
    p = residual.partition
    limit = problem.logit_decay * p.num_samples
    reach = limit / np.sqrt(p.counts)
    reduced = _clip(residual.reduced, np.asarray(limit))
    return BlockMatrix(p, np.clip(residual.within, -reach, reach), reduced / p.scale)


def _scaled(problem: Problem, residual: BlockMatrix) -> BlockMatrix:
    """Scale a residual until its largest singular value is feasible."""
    limit = problem.logit_decay * residual.partition.num_samples
    return residual * (limit / max(residual.operator_norm, limit))


def _clip(matrices: Array, limit: Array) -> Array:
    """Return a matrix, or a batch, with its singular values clipped."""
    if np.all(np.linalg.norm(matrices, axis=(-2, -1)) <= limit):
        return matrices
    left, values, right = svd(matrices)
    clipped: Array = (left * np.minimum(values, limit[..., None])[..., None, :]) @ right
    return clipped


def _bound(problem: Problem, fit: Datafit, residual: BlockMatrix) -> float:
    """Return the dual objective at a residual of feasible norm, or near it if outside of `fit`."""
    bound = fit.dual_value(residual)
    if bound == -np.inf:
        residual = fit.restrict(residual)
        if problem.bias == "free":
            residual = fit.repair(residual)
        residual = _scaled(problem, residual)
        bound = fit.dual_value(residual)
    if problem.bias == "decayed":
        rows = residual.row_average
        bound -= float(residual.partition.sizes @ rows**2) / (2 * problem.bias_decay)
    return bound


def factored_objective(
    problem: Problem,
    weights: Sequence[ArrayLike],
    features: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None = None,
) -> float:
    """Return the objective of actual factors: every layer, every sample's features, the bias.

    Parameters
    ----------
    problem : Problem
    weights : sequence of array_like
        The ``problem.depth`` layers, W_1 (next to the features) first; the last is (K, d).
    features : array_like, shape (N, d)
        One row a sample; N must be the problem's.
    labels : array_like, shape (N,), integers below K
    bias : array_like, shape (K,), optional

    Returns
    -------
    float
        At least any lower bound of the problem.
    """
    layers = [np.asarray(weight, dtype=np.float64) for weight in weights]
    h, y = np.asarray(features), np.asarray(labels)
    if len(layers) != problem.depth:
        raise ValueError(f"weights: got {len(layers)} layers for depth {problem.depth}")
    if len(h) != problem.num_samples or y.shape != (len(h),):
        raise ValueError(
            f"features, labels: got {h.shape} and {y.shape}, need {problem.num_samples} samples"
        )
    b = np.zeros(problem.num_classes) if bias is None else np.asarray(bias, dtype=np.float64)
    fit = problem.loss_object.datafit(Partition.coarsest(problem))
    loss = squares = 0.0
    for start in range(0, len(h), SAMPLE_CHUNK):
        rows = np.asarray(h[start : start + SAMPLE_CHUNK], dtype=np.float64)
        squares += float(np.vdot(rows, rows))
        for layer in layers:
            rows = rows @ layer.T
        rows = rows + b
        loss += fit.sample_sum(rows, y[start : start + SAMPLE_CHUNK])
    decays = zip(problem.weight_decays, layers, strict=True)
    return (
        loss / problem.num_samples
        + sum(decay / 2 * float(np.vdot(layer, layer)) for decay, layer in decays)
        + problem.feature_decay / 2 * squares
        + problem.bias_decay / 2 * float(b @ b)
    )


def without_constant(problem: Problem, bias: Array, sizes: Array) -> Array:
    """Fix the constant of a free bias that a loss may ignore: the mean over classes is zero."""
    if problem.bias == "free" and problem.loss_object.ignores_constants:
        return bias - np.average(bias, weights=sizes)
    return bias


def best_bias(
    problem: Problem,
    fit: Datafit,
    logits: BlockMatrix,
    start: Array,
) -> Array:
    """Minimise the objective over the bias alone, by damped Newton steps; shape (G,)."""
    sizes = fit.partition.sizes

    def value(b: Array) -> float:
        cost = problem.bias_decay / 2 * float(sizes @ b**2)
        return fit.value(logits.within, logits.mean + b[:, None]) + cost

    b = start
    for _ in range(MAX_BIAS_STEPS):
        gradient, hessian = fit.bias_derivatives(logits.within, logits.mean + b[:, None])
        gradient = gradient + problem.bias_decay * sizes * b
        hessian = hessian + np.diag(problem.bias_decay * sizes)
        if problem.loss_object.ignores_constants and problem.bias_decay == 0:
            # The bias may move along the constant vector for nothing: pin that direction.
            hessian += np.trace(hessian) / len(b) ** 2
        with np.errstate(all="ignore"):
            try:
                step = -np.linalg.solve(hessian, gradient)
            except np.linalg.LinAlgError:
                step = -np.linalg.lstsq(hessian, gradient, rcond=1e-14)[0]
        if not np.isfinite(step).all():
            return b
        # Where the softmax saturates the Hessian is nearly singular: keep steps finite.
        step /= max(1.0, float(np.abs(step).max()) / MAX_BIAS_STEP)
        decrement = -float(gradient @ step)
        if decrement < 1e-13:
            # Values no longer tell steps apart, and a full Newton step reaches rounding.
            return b + step
        current, length = value(b), 1.0
        while value(b + length * step) > current - 1e-4 * length * decrement and length > 1e-12:
            length /= 2
        b = b + length * step
    return b
