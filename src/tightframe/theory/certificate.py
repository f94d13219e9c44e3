"""Certificates: how far a candidate is from the global minimum, whoever made it.

Imports no solver. The convex case (one linear layer, real features) uses the duality gap of

    min_{Z, b}  f(Z + b 1^T) + lambda ||Z D^{1/2}||_* + (bias_decay / 2) ||b||^2

(docs/theory.md section 2). Any residual R that is feasible for the data fit, has
``||R D^{1/2} / N||_op <= lambda`` and, with a free bias, ``R n = 0`` gives the lower bound
``-f*(R) - ||R n / N||^2 / (2 bias_decay)``. Every bound has the rounding of its own evaluation
subtracted, and that of the objective too: no bound is above the minimum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from tightframe.checks import detached, number_of
from tightframe.geometry.blocks import (
    RANK_TOLERANCE,
    SMALL,
    Array,
    BlockMatrix,
    Partition,
    svd,
)
from tightframe.geometry.eigen import eigenpairs_above
from tightframe.losses.base import Datafit
from tightframe.problem.problem import Problem
from tightframe.rounding import FUNCTION, gamma, svd_error
from tightframe.saved import filed
from tightframe.shown import Block, Shown, fields_table, one_line
from tightframe.theory.contexts.certificate import certify_logits
from tightframe.theory.contexts.form import form_of
from tightframe.theory.coverage import coverage, is_convex
from tightframe.theory.orthant import orthant_norm

#: Newton steps allowed for the bias of a candidate; more only loosens the bound, never breaks it.
MAX_BIAS_STEPS = 100

#: Largest change of a bias in one step, in logit units.
MAX_BIAS_STEP = 20.0

#: Singular vectors of logits with smaller values than this, relatively, say nothing.
FACE_TOLERANCE = 1e-6

#: A large matrix no longer than so many limits is clipped by its Gram matrix, to 1e-10 at worst.
GRAM_RANGE = 1e3

#: Shares of the limit, and of the size of their terms, above which a norm that should not exceed
#: the limit and row averages that should be zero are not so by rounding alone.
ROUGH_NORM = 1e-12
ROUGH_ROWS = 1e-9

#: Row averages are known to this share of the size of their terms, at least.
ROUGH_NOISE = 1e-12

#: Samples whose logits are held at a time.
SAMPLE_CHUNK = 65536


class BoundError(RuntimeError):
    """A lower bound above an objective, by more than rounding explains: an error of tightframe."""


@filed
@dataclass(frozen=True)
class Certificate(Shown):
    """A candidate's objective and a lower bound of the global minimum.

    Attributes
    ----------
    primal : float
        The candidate's objective (nats for cross-entropy).
    dual : float
        Lower bound of the global minimum; what rounding may have done to it, and to ``primal``, is
        subtracted.
    rounding : float
        Bound of the rounding error of ``primal``.
    """

    primal: float
    dual: float
    rounding: float = field(default=0.0, kw_only=True)

    @property
    def gap(self) -> float:
        """Upper bound of the candidate's distance from the minimum, at least 0."""
        return self.primal - self.dual

    def __repr__(self) -> str:
        return f"{one_line(self)[:-1]}, gap={self.gap:.3g})"

    def _blocks(self) -> Iterator[Block]:
        yield f"At most {self.gap:.3g} above the global minimum."
        yield fields_table(self)


def settled(primal: float, dual: float, rounding: float, subject: object) -> float:
    """Return a lower bound less the rounding of the objective, at least 0.

    Raises
    ------
    BoundError
        If the bound is above the objective by more than that.
    """
    if not dual <= primal + rounding:
        raise BoundError(
            f"internal error: a lower bound of {dual!r} was found above the objective {primal!r} "
            f"of a candidate, and rounding explains {rounding:.1e} only. Please report this, with "
            f"{subject!r}"
        )
    return max(dual - rounding, 0.0)


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
    logits : array_like, shape (K, K), with targets (V, m)
        Mean logits without bias, ``W H``; column k holds the samples of class, or context, k.
    bias : array_like, shape (K,), with targets (V,), optional
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
    columns = problem.num_contexts
    z = finite_array("logits", logits, (k, columns))
    b = np.zeros(k) if bias is None else finite_array("bias", bias, (k,))
    if problem.bias == "none" and b.any():
        raise ValueError(
            "bias: got a non-zero bias for a problem with bias='none', need 'free' or 'decayed'"
        )
    if lower_bound is not None:
        lower_bound = float(finite_array("lower_bound", lower_bound, ()))
    if problem.targets is not None:
        if problem.width is not None and problem.width < min(z.shape):
            rank = int(np.linalg.matrix_rank(z, rtol=RANK_TOLERANCE))
            _require_width(problem, f"rank {rank}", rank)
        bounds = certify_logits(form_of(problem), z, b)
        primal, dual, rounding = bounds
        certificate = Certificate(
            primal, settled(primal, dual, rounding, problem), rounding=rounding
        )
        return with_bound(certificate, lower_bound)
    blocks = BlockMatrix.from_dense(problem, z)
    _require_reachable(problem, blocks)
    return with_bound(certify_blocks(problem, blocks, b), lower_bound)


def with_bound(certificate: Certificate, lower_bound: float | None) -> Certificate:
    """Return a certificate with the better of its own lower bound and one known otherwise."""
    primal, rounding = certificate.primal, certificate.rounding
    if lower_bound is None or lower_bound - rounding <= certificate.dual:
        return certificate
    # A bound that was printed and read again may have lost some digits.
    if lower_bound > primal * (1 + 1e-9) + rounding:
        raise ValueError(
            f"lower_bound: got {lower_bound}, above this candidate's objective {primal}: "
            "not a lower bound of this problem"
        )
    return Certificate(primal, min(lower_bound, primal) - rounding, rounding=rounding)


def _require_reachable(problem: Problem, logits: BlockMatrix) -> None:
    """Refuse logits that no factors of the problem's width have."""
    if problem.width is None or is_convex(problem):
        return
    real = problem.features == "real"
    needed = logits.rank if real else int((logits.column_norms > 0).sum())
    what = f"rank {needed}" if real else f"{needed} classes with non-zero logits"
    _require_width(problem, what, needed)


def _require_width(problem: Problem, what: str, needed: int) -> None:
    if problem.width is not None and needed > problem.width:
        raise ValueError(f"logits: {what}, which features of dim {problem.width} cannot have")


def finite_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return finite float64 numbers of a shape, or raise a ValueError that names the argument."""
    try:
        array = np.asarray(detached(value))
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
    return float(_cost(problem, logits, problem.mean_decay))


def _cost(problem: Problem, logits: BlockMatrix, mean_decay: float | Array) -> Array:
    if problem.features == "real":
        values, times = logits.spectrum
    else:
        values, times = logits.column_norms, logits.partition.sizes
    m = problem.depth
    lengths = values if m == 1 else values ** (2 / (m + 1))
    cost: Array = (m + 1) / 2 * mean_decay * (lengths @ times)
    return cost


def penalty_with_error(
    problem: Problem, logits: BlockMatrix, mean_decay: float | Array
) -> tuple[Array, Array]:
    """Return `penalty` and a bound of its rounding error, of a batch.

    Of several layers' point the singular values that are rounding are zero, as in the factors.
    """
    g, m = logits.partition.num_groups, problem.depth
    cost = _cost(problem, logits, mean_decay)
    # The mean decay itself is off by a few roundings.
    relative = gamma(2 * g + 8 * FUNCTION) * cost
    if problem.features == "nonnegative":
        return cost, relative
    found = logits.decomposition[1]  # zeros may be left out
    error = svd_error(g) * np.sqrt(np.square(found).sum(axis=-1))
    kept = logits.spectrum[0][..., : found.shape[-1]]
    if m == 1:
        # The sum of n singular values moves by at most root n times the Frobenius norm.
        error = math.sqrt(g) * error + (found - kept).sum(axis=-1)
    else:
        low, high = np.maximum(kept - error[..., None], 0.0), kept + error[..., None]
        spread = high ** (2 / (m + 1)) - low ** (2 / (m + 1))
        error = np.where(kept > 0, spread, 0.0).sum(axis=-1)
    return cost, (m + 1) / 2 * mean_decay * error + relative


def objective(problem: Problem, logits: BlockMatrix, bias: Array) -> float:
    """Return the objective of block logits with their cheapest factors; ``bias`` per group."""
    fit = problem.loss_object.datafit(logits.partition)
    bias_cost = problem.bias_decay / 2 * float(logits.partition.sizes @ bias**2)
    value = fit.value(logits.within, logits.mean + bias[:, None])
    return value + penalty(problem, logits) + bias_cost


def _evaluate(
    problem: Problem,
    fit: Datafit,
    logits: BlockMatrix,
    bias: Array,
    mean_decay: float | Array,
    bias_decay: float | Array,
) -> tuple[Array, Array, BlockMatrix]:
    """Return objectives, bounds of their rounding errors and the residuals, of a batch."""
    values, errors, residual = fit.evaluate(logits.within, logits.mean, bias)
    cost, cost_errors = penalty_with_error(problem, logits, mean_decay)
    values, errors = values + cost, errors + cost_errors
    if problem.bias == "decayed":
        values = values + bias_decay / 2 * (bias**2 @ fit.partition.sizes)
    errors = errors + gamma(fit.partition.num_groups + 8) * values
    return values, errors, residual


def _rounding_of_factors(logits: BlockMatrix, residual: BlockMatrix) -> float:
    """Bound how far apart the loss is of logits and of factors without what is rounding in them."""
    found, (values, _) = logits.decomposition[1], logits.spectrum
    dropped = found - values[: len(found)]
    moved = svd_error(len(found)) * np.linalg.norm(found) + np.linalg.norm(dropped)
    p = logits.partition
    return float(moved * np.sqrt(residual.column_norms**2 @ p.sizes) / p.num_samples)


def certify_blocks(
    problem: Problem, logits: BlockMatrix, bias: Array, *, enough: float = 0.0
) -> Certificate:
    """Certify block logits and a bias per group, by duality, by a theorem's bound, or both.

    Further bounds are left out once the gap is at most ``enough`` times the objective, or nearly
    all rounding.
    """
    fit = problem.loss_object.datafit(logits.partition)
    decays = np.asarray(problem.mean_decay), np.asarray(problem.bias_decay)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            value, error, residual = _evaluate(problem, fit, logits, bias, *decays)
            primal, rounding = float(value), float(error)
            if problem.depth > 1 and problem.features == "real":
                rounding += _rounding_of_factors(logits, residual)
    except np.linalg.LinAlgError:  # an overflow reached the singular values
        primal = rounding = np.inf
    if not np.isfinite(primal + rounding):
        raise ValueError("logits: so large that the objective overflows")
    dual = -np.inf
    for bound in _bounds(problem, fit, logits, bias, residual):
        dual = max(dual, bound)
        if primal - dual + rounding <= max(enough * primal, 5 * rounding):
            break
    if dual == -np.inf:
        raise ValueError(f"problem: {coverage(problem).reason}")
    return Certificate(primal, settled(primal, dual, rounding, problem), rounding=rounding)


def _bounds(
    problem: Problem, fit: Datafit, logits: BlockMatrix, bias: Array, residual: BlockMatrix
) -> Iterator[float]:
    """Give lower bounds of the minimum; near the minimiser the first ones are the tightest."""
    family = coverage(problem).family
    if family is not None and (bound := family.lower_bound(problem)) is not None:
        yield bound
    if is_convex(problem):
        yield 0.0  # no loss and no decay cost is below
        limit = np.asarray(problem.logit_decay * logits.partition.num_samples)
        bound_at = partial(bound_from, problem, fit)
        yield bound_at(_aligned(problem, logits, residual, limit), bias)
        if problem.bias != "none":
            bias = best_bias(problem, fit, logits, bias)
            residual = fit.residual(logits.within, logits.mean + bias[:, None])
            yield bound_at(_aligned(problem, logits, residual, limit), bias)
        if problem.bias == "free":
            residual = fit.repair(residual)
        yield bound_at(_clipped(problem, residual), bias)
        yield bound_at(residual, bias)
    elif family is None and problem.features == "nonnegative" and problem.depth == 1:
        yield 0.0
        yield bound_from(problem, fit, residual, bias)
        if problem.bias != "none":
            bias = best_bias(problem, fit, logits, bias)
            residual = fit.residual(logits.within, logits.mean + bias[:, None])
            yield bound_from(problem, fit, residual, bias)


def certify_batch(
    problem: Problem, logits: BlockMatrix, bias: Array, decays: Array, bias_decays: Array
) -> tuple[Array, Array, Array]:
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
    primal, dual, rounding : ndarray, shape (T,)
        As those of a `Certificate`; the dual may be -inf.
    """
    fit = problem.loss_object.datafit(logits.partition)
    primal, rounding, residual = _evaluate(problem, fit, logits, bias, decays, bias_decays)
    residual = _aligned(problem, logits, residual, decays * logits.partition.num_samples)
    dual = _dual(problem, fit, residual, bias, decays, bias_decays)
    for i in np.flatnonzero(dual > primal + rounding)[:1]:
        settled(float(primal[i]), float(dual[i]), float(rounding[i]), problem)  # raises
    return primal, dual - rounding, rounding


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
    rest -= face @ (back @ rest)
    rest -= (rest @ back) @ face
    reduced = _clip(rest, limit)
    del rest
    reduced = reduced - limit[..., None, None] * face
    del face, back
    # X is only nearly orthogonal to what R must be orthogonal to.
    if problem.loss_object.ignores_constants:
        reduced -= p.ignored[:, None] * (p.ignored @ reduced)[..., None, :]
    if problem.bias == "free":
        counts = np.sqrt(p.shares)
        reduced -= (reduced @ counts)[..., None] * counts
    reach = limit[..., None] / np.sqrt(p.counts)
    clipped = np.minimum(np.maximum(residual.within, -reach), reach)
    within = np.where(logits.within > 0, -reach, clipped)
    return BlockMatrix(p, np.where(p.sizes > 1, within, 0.0), reduced / p.scale)


def _clipped(problem: Problem, residual: BlockMatrix) -> BlockMatrix:
    """Clip singular values above the limit; 2 to 20 times tighter than scaling all of them."""
    p = residual.partition
    limit = problem.logit_decay * p.num_samples
    reach = limit / np.sqrt(p.counts)
    reduced = _clip(residual.reduced, np.asarray(limit))
    return BlockMatrix(p, np.clip(residual.within, -reach, reach), reduced / p.scale)


def _clip(matrices: Array, limit: Array) -> Array:
    """Return a matrix, or a batch, with its singular values clipped."""
    lengths = np.sqrt(np.square(matrices).sum(axis=(-2, -1)))
    if (lengths <= limit).all():
        return matrices
    if matrices.ndim == 2 and len(matrices) > SMALL and lengths <= GRAM_RANGE * limit:
        return _clip_one(matrices, float(limit))
    left, values, right = svd(matrices)
    clipped: Array = (left * np.minimum(values, limit[..., None])[..., None, :]) @ right
    return clipped


def _clip_one(matrix: Array, limit: float) -> Array:
    """Subtract what singular values exceed the limit: only those are computed, of many."""
    squares, vectors = eigenpairs_above(matrix.T @ matrix, limit**2)
    clipped: Array = matrix - (matrix @ vectors * (1 - limit / np.sqrt(squares))) @ vectors.T
    return clipped


def bound_from(problem: Problem, fit: Datafit, residual: BlockMatrix, bias: Array) -> float:
    """Return the lower bound that a residual near the minimiser's gives; one layer."""
    decays = np.asarray(problem.logit_decay), np.asarray(problem.bias_decay)
    return float(_dual(problem, fit, residual, bias, *decays))


def _dual(
    problem: Problem,
    fit: Datafit,
    residual: BlockMatrix,
    bias: Array,
    decays: Array,
    bias_decays: Array,
) -> Array:
    """Return lower bounds of the minimum from dual points near these residuals, of a batch.

    The dual objective is concave and zero at a residual of zero, so a point whose norm exceeds the
    limit by a share of 1e-16 costs that share of its value. Row averages that must be exact are
    made so by `Datafit.with_rows`.
    """
    p = residual.partition
    # Scales and feature weights are factors of their own, with their own rounding.
    more = 16 if p.is_scaled or p.has_feature_weights else 0
    limit = decays * p.num_samples * (1 - gamma(p.num_groups + 3 * FUNCTION + more))
    residual = fit.restrict(residual)
    bound = _dual_at(problem, fit, residual, bias, limit, bias_decays)
    if problem.bias == "free":
        rows = np.abs(residual.row_average)
        if (rows > ROUGH_ROWS * (np.abs(residual.mean) @ p.shares)).any():
            residual = fit.restrict(fit.repair(residual))
            other = _dual_at(problem, fit, residual, bias, limit, bias_decays)
            bound = np.maximum(bound, other)
    if more:
        bound = np.where(bound > -np.inf, bound - gamma(more) * np.abs(bound), bound)
    return bound


def _dual_at(
    problem: Problem,
    fit: Datafit,
    residual: BlockMatrix,
    bias: Array,
    limit: Array,
    bias_decays: Array,
) -> Array:
    p = residual.partition
    if problem.features == "real":
        norm = residual.norm_bound
    else:  # no batch
        within = residual.within * np.sqrt(p.counts)
        norm = limit * orthant_norm(residual.reduced / limit, within / limit, p.sizes)
    if (norm > limit * (1 + ROUGH_NORM)).any():
        factor = limit / np.maximum(norm, limit)
        residual, norm = residual * factor, norm * factor
    values = fit.dual_values(residual)
    if problem.bias == "none":
        return _within(values, norm, limit)
    inside = values > -np.inf
    all_inside = inside.all()
    if not all_inside:
        values = np.where(inside, values, 0.0)
    rows, blur = fit.rows(residual)
    if problem.bias == "free":
        values, change = fit.with_rows(residual, values, np.abs(rows) + blur)
        bound = _within(values, norm + change, limit)
        return bound if all_inside else np.where(inside, bound, -np.inf)
    # At the minimum rows are -bias_decay times the bias, which says more where that is tiny.
    targets = [rows]
    noise = ROUGH_NOISE * (np.abs(residual.mean) @ p.shares)
    if (noise**2 @ p.sizes > ROUGH_ROWS * bias_decays * np.abs(values)).any():
        targets.append(-bias_decays[..., None] * bias)
    bound = np.full(np.shape(values), -np.inf)
    for wanted in targets:
        target, unsure = fit.possible_rows(wanted)
        miss = np.abs(rows - target) * (1 + gamma(2)) + unsure + blur
        moved, change = fit.with_rows(residual, values, miss)
        cost = (np.abs(target) + unsure) ** 2 @ p.sizes / (2 * bias_decays)
        moved = moved - cost * (1 + gamma(p.num_groups + 8))
        bound = np.maximum(bound, _within(moved, norm + change, limit))
    return bound if all_inside else np.where(inside, bound, -np.inf)


def _within(values: Array, norms: Array, limit: Array) -> Array:
    """Return the dual values of points scaled until their norms are feasible."""
    return values * (limit / np.maximum(norms, limit)) * (1 - np.sign(values) * gamma(8))


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
        raise ValueError(
            f"weights: got {number_of(len(layers), 'layer')} for depth {problem.depth}"
        )
    if len(h) != problem.num_samples or y.shape != (len(h),):
        raise ValueError(
            f"features, labels: got {h.shape} and {y.shape}, need {problem.num_samples} samples"
        )
    b = np.zeros(problem.num_classes) if bias is None else np.asarray(bias, dtype=np.float64)
    # The loss goes by the samples, whatever the features' decay goes by.
    counted = problem.replace(feature_weights="samples")
    fit = problem.loss_object.datafit(Partition.coarsest(counted))
    each = problem.feature_weights / problem.counts if problem.feature_runs else None
    loss = squares = 0.0
    for start in range(0, len(h), SAMPLE_CHUNK):
        rows = np.asarray(h[start : start + SAMPLE_CHUNK], dtype=np.float64)
        weighed = rows if each is None else rows * each[y[start : start + SAMPLE_CHUNK], None]
        squares += float(np.vdot(rows, weighed))
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


def without_constant(problem: Problem, bias: Array, partition: Partition) -> Array:
    """Fix what a loss may ignore of a free bias: the mean over classes is zero.

    With scaled logits that is a multiple of ``1 / scale``, and the bias is orthogonal to it.
    """
    if problem.bias == "free" and problem.loss_object.ignores_constants:
        if partition.is_scaled:
            unit, root = partition.ignored, np.sqrt(partition.sizes)
            return bias - unit / root * (unit @ (root * bias))
        return bias - np.average(bias, weights=partition.sizes)
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
