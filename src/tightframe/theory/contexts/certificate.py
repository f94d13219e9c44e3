"""Certificates of the context form: how far ANY candidate is from the minimum.

The dual of the form (`tightframe.theory.contexts.form`) is

    max_Q  sum_j a_j H(q_j) + <G, c> - ||B^{-1/2} G 1||^2 / (2 bias_decay),   G = diag(a) (Q - P),

over label distributions q_j with ``||Omega^{-1/2} G B^{-1/2}||_op <= decay``, rows being contexts;
without a bias the last term is absent, with a free one ``Q^T a = P^T a`` instead. Points near the
dual minimiser come from the candidate; each is made feasible, whatever it was, so that no bound is
above the minimum. Blocked: a few (m, V) arrays at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tightframe.geometry.eigen import eigenpairs_above, largest_eigenvalue
from tightframe.rounding import FUNCTION, UNIT, gamma
from tightframe.theory.contexts.form import Array, ContextForm, Factors
from tightframe.theory.contexts.symmetry import CellFactors

#: Singular values below this share of the largest say nothing about the face of the norm ball: of
#: a point near the minimiser, then of one whose small ones are noise.
FACES = (1e-7, 1e-4)

#: Share that a norm may be off by: of the Gram matrix's largest eigenvalue, before its size counts.
NORM_SLACK = 1e-12

#: The most that moving probability from one label to another may change a bound by, in nats: the
#: logarithm of the smallest number.
LONGEST_LOG = 745.0

#: How often a point near the dual minimiser is put into the norm ball and among distributions, in
#: turn, before it is scaled.
ROUNDS = 4

#: Newton steps allowed for the bias of a candidate.
MAX_BIAS_STEPS = 60

#: Largest change of a bias in one step, in nats.
MAX_BIAS_STEP = 20.0


AnyFactors = Factors | CellFactors


class Bounds(NamedTuple):
    """A candidate's objective, a lower bound of the minimum, and the rounding of the former."""

    primal: float
    dual: float
    rounding: float


def certify_factors(form: ContextForm, x: Factors, bias: Array, *, enough: float = 0.0) -> Bounds:
    """Bound how far X in factors, with a bias of shape (V,), is from the minimum.

    Parameters
    ----------
    form : ContextForm
    x : Factors
    bias : ndarray, shape (V,)
    enough : float
        Relative gap that is good enough: further bounds are then not computed.
    """
    primal, rounding = _evaluate(form, x, bias)
    softmax = _softmax(form, x, bias)
    dual = 0.0  # no loss and no decay cost is below
    for face in (*FACES, None):
        if primal - dual <= max(enough * primal, 10 * rounding):
            break
        if face is None:
            # Predictions themselves, mixed with the targets: loose, but for any candidate.
            dual = max(dual, _bound_at(form, softmax))
        else:
            dual = max(dual, _aligned(form, x, softmax, face))
    return Bounds(primal, min(dual, primal), rounding)


def certify_with(
    form: ContextForm, x: AnyFactors, bias: Array, residual: Array, *, enough: float
) -> Bounds:
    """Bound how far X in factors is from the minimum, by a dual point that its solver has.

    Parameters
    ----------
    form : ContextForm
    x : Factors or CellFactors
    bias : ndarray, shape (V,)
    residual : ndarray, shape (m, V)
        ``Omega^{-1/2} G B^{-1/2}``, near that of the dual maximiser; overwritten.
    enough : float
        Relative gap that is good enough.
    """
    primal, rounding = _evaluate(form, x, bias)
    _to_distributions(form, residual)
    dual = max(_bound_near(form, residual, 0.1 * enough), 0.0)
    return Bounds(primal, min(dual, primal), rounding)


def certify_nothing(form: ContextForm, bias: Array, *, enough: float) -> Bounds:
    """Bound how far all logits at zero, with their bias, are from the minimum."""
    nothing = _nothing(form)
    residual = _residual(form, _softmax(form, nothing, bias))
    return certify_with(form, nothing, bias, residual, enough=enough)


def _nothing(form: ContextForm) -> Factors:
    m, v = form.shape
    return Factors(np.zeros((m, 0)), np.zeros(0), np.zeros((v, 0)))


def certify_logits(form: ContextForm, logits: Array, bias: Array) -> Bounds:
    """Bound how far logits (V, m) are from the minimum."""
    z = logits.T * np.sqrt(form.feature_weights)[:, None] * np.sqrt(form.label_weights)
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            bounds = certify_factors(form, Factors.of_matrix(z), bias)
        except (np.linalg.LinAlgError, ValueError):  # an overflow reached LAPACK
            bounds = Bounds(np.inf, 0.0, np.inf)
    if not np.isfinite(bounds.primal + bounds.rounding):
        raise ValueError("logits: so large that the objective overflows")
    return bounds


def collapse_decay(form: ContextForm) -> tuple[float, Array]:
    """Return the decay from which on all logits are zero, and the bias there, shape (V,)."""
    bias = bias_alone(form)
    return _norm(form, _residual(form, _softmax(form, _nothing(form), bias))), bias


def bias_alone(form: ContextForm) -> Array:
    """Return the best bias where all logits are zero, shape (V,)."""
    total = form.weights.sum()
    if form.bias == "none":
        return np.zeros(len(form.label_weights))
    share = form.marginal / total
    if form.bias == "free":
        return without_constant(form, np.log(share) - form.shifts)
    b = np.zeros(len(share))
    cost = form.bias_decay * form.label_weights
    for _ in range(MAX_BIAS_STEPS):
        q = _normalised(b + form.shifts)
        gradient = total * (q - share) + cost * b
        # The Hessian is diagonal less a rank-one matrix.
        inverse = 1 / (total * q + cost)
        step = -inverse * gradient
        step += inverse * q * total * float(q @ step) / float(q @ (inverse * cost))
        step /= max(1.0, float(np.abs(step).max()) / MAX_BIAS_STEP)
        b = b + step
        if np.abs(step).max() < 1e-14:
            break
    return b


def without_constant(form: ContextForm, bias: Array) -> Array:
    """Fix the constant that the loss ignores: a free bias has a mean of zero over the labels."""
    if form.bias != "free":
        return bias
    return bias - float(np.average(bias, weights=form.label_weights))


def _normalised(scores: Array) -> Array:
    q: Array = np.exp(scores - scores.max(axis=-1, keepdims=True))
    q /= q.sum(axis=-1, keepdims=True)
    return q


def _scores(form: ContextForm, x: AnyFactors, bias: Array) -> Iterator[tuple[slice, Array]]:
    """Give logits inside the loss, less their largest, of some contexts at a time."""
    for rows in form.blocks():
        scores = x.rows(rows)
        scores *= form.context_scale[rows, None]
        scores *= form.scale_at(rows)
        scores += form.in_cells(bias) + form.shifts_at(rows)
        scores -= scores.max(axis=1, keepdims=True)
        yield rows, scores


def _softmax(form: ContextForm, x: AnyFactors, bias: Array) -> Array:
    """Return all predictions (m, V)."""
    q = np.empty(form.shape)
    for rows, scores in _scores(form, x, bias):
        np.exp(scores, out=scores)
        np.divide(scores, scores.sum(axis=1, keepdims=True), out=q[rows])
    return q


def _evaluate(form: ContextForm, x: AnyFactors, bias: Array) -> tuple[float, float]:
    """Return the objective and a bound of its rounding."""
    loss = size = 0.0
    for rows, scores in _scores(form, x, bias):
        fit = form.target_dot(scores, rows)
        np.exp(scores, out=scores)
        total = scores.sum(axis=1)
        weights = form.weights[rows]
        loss += float(weights @ (np.log(total) - fit))
        size += float(weights @ (np.log(total) + np.abs(fit)))
    costs = form.decay * x.norm
    costs += form.bias_decay / 2 * float(form.label_weights @ bias**2)
    # Sums along memory are pairwise; terms of the scores are rank many.
    return loss + costs, gamma(64 + FUNCTION + x.rank**0.5) * (size + costs)


def _residual(form: ContextForm, q: Array) -> Array:
    """Return ``Omega^{-1/2} diag(a) (Q - P) B^{-1/2}`` in a new array, (m, V)."""
    residual = np.empty_like(q)
    for rows in form.blocks():
        part = residual[rows]
        part[:] = q[rows]
        form.add_targets(part, rows, -1.0)
        part *= (form.weights * form.context_scale)[rows, None]
        part *= form.scale_at(rows)
    return residual


def _gram(matrix: Array) -> Array:
    """Return the smaller Gram matrix."""
    gram: Array = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    return gram


def _norm(form: ContextForm, residual: Array) -> float:
    """Bound the operator norm of a residual from above, for rounding too."""
    norm = _largest(form.between(residual))
    deviations, lengths = form.within(residual)
    if deviations is not None and (many := form.within_costs > 0).any():
        error = 16 * UNIT * max(residual.shape) ** 0.5 * float(np.linalg.norm(residual))
        inside = float((lengths[many] / form.within_costs[many]).max())
        norm = max(norm * (1 + 16 * UNIT), inside * (1 + NORM_SLACK) + error)
    return norm


def _largest(matrix: Array) -> float:
    """Bound the largest singular value from above, for rounding too."""
    gram = _gram(matrix)
    size = float(np.trace(gram))
    if size == 0:
        return 0.0
    n = len(gram)
    largest = largest_eigenvalue(gram)
    # Entries of the Gram matrix are sums of max(m, V) terms; errors of its eigenvalues are of the
    # size of that of its entries. Random, they grow with roots.
    error = 8 * UNIT * (n + max(matrix.shape)) ** 0.5
    return float(np.sqrt(max(largest, 0.0) * (1 + NORM_SLACK + error)) * (1 + 4 * UNIT))


def _clip(form: ContextForm, residual: Array, limit: float) -> float:
    """Clip singular values above the limit, in place; return by which share the largest was."""
    deviations, lengths = form.within(residual)
    if deviations is None:
        return _clip_matrix(residual, limit)
    between = form.between(residual)
    most = _clip_matrix(between, limit)
    size = lengths / np.where(form.within_costs > 0, form.within_costs * limit, 1.0)
    residual[:] = form.lifted(between) + deviations / form.in_cells(np.maximum(size, 1.0))
    return max(most, float(size.max()) - 1)


def _clip_matrix(matrix: Array, limit: float) -> float:
    squares, vectors = eigenpairs_above(_gram(matrix), limit**2)
    if not len(squares):
        return 0.0
    most = float(np.sqrt(squares[-1])) / limit - 1
    excess = 1 - limit / np.sqrt(squares)
    if matrix.shape[0] >= matrix.shape[1]:
        matrix -= (matrix @ vectors * excess) @ vectors.T
    else:
        matrix -= (vectors * excess) @ (vectors.T @ matrix)
    return most


def _aligned(form: ContextForm, x: Factors, softmax: Array, face: float) -> float:
    """Bound from the residual put on the face of the norm ball that X exposes.

    There ``G = -decay U V^T`` plus what is orthogonal to both, of norm at most the decay. Entries
    of ``Q = P + G / a`` below zero are cut and the rest normalised, which costs the square of what
    is cut only.
    """
    y = _residual(form, softmax)
    kept = x.values > face * x.values[:1]
    left, right = x.left[:, kept], x.right[:, kept]
    y -= left @ (left.T @ y)
    y -= (y @ right) @ right.T
    _clip_matrix(y, form.decay)
    y -= form.decay * (left @ right.T)
    _to_distributions(form, y)
    return _bound_at(form, y)


def _bound_near(form: ContextForm, q: Array, accuracy: float) -> float:
    """Bound from distributions near the dual maximiser's; a share ``accuracy`` of it may be lost.

    Where their norm exceeds the limit by a share, scaling loses at most that share of the bound.
    """
    for _ in range(ROUNDS):
        y = _residual(form, q)
        if _clip(form, y, form.decay) <= accuracy:
            break
        _to_distributions(form, y)
        q = y
    return _bound_at(form, q)


def _to_distributions(form: ContextForm, y: Array) -> None:
    """Turn a residual into label distributions near its own, in place."""
    if form.bias == "free":
        y -= form.lifted(np.outer(form.context_axis, form.context_axis @ form.between(y)))
    for rows in form.blocks():
        q, axis = y[rows], form.axis_at(rows)
        q -= np.einsum("jv,jv->j", q, np.broadcast_to(axis, q.shape))[:, None] * axis
        q *= form.roots_at(rows)
        q /= (form.weights * form.context_scale)[rows, None]
        form.add_targets(q, rows, 1.0)
        np.maximum(q, 0.0, out=q)
        q /= q.sum(axis=1, keepdims=True)


def _bound_at(form: ContextForm, q: Array) -> float:
    """Return a lower bound of the minimum from label distributions; ``q`` may be overwritten."""
    if form.bias == "free":
        _meet_marginal(form, q)
    residual = _residual(form, q)
    norm = _norm(form, residual)
    share = min(1.0, form.decay / norm) if norm else 1.0
    rows = form.between(residual).T @ np.sqrt(form.feature_weights)  # B^{-1/2} G 1
    del residual
    entropy = size = 0.0
    for part in form.blocks():
        block = q[part]
        if share < 1:
            block *= share
            form.add_targets(block, part, 1 - share)
        # Nought times its logarithm is nought.
        logs = np.log(np.maximum(block, 1e-300))
        np.minimum(logs, 0.0, out=logs)
        terms = -np.einsum("jv,jv->j", block, logs)
        entropy += float(form.weights[part] @ terms)
        size += float(form.weights[part] @ (terms + 1))
        gain, gain_size = form.spread_gain(block, part)
        entropy, size = entropy + gain, size + gain_size
    rows = share * rows
    bound = entropy + float((rows / form.label_scale) @ form.shifts)
    size += float(np.abs(rows / form.label_scale) @ np.abs(form.shifts))
    if form.bias == "decayed":
        cost = float(rows @ rows) / (2 * form.bias_decay)
        bound, size = bound - cost, size + cost
    if form.bias == "free":
        # What rounding left of the rows' sums could be moved away at this price.
        bound -= LONGEST_LOG * float(np.abs(rows / form.label_scale).sum())
    return bound - gamma(64 + 2 * FUNCTION) * size


def _meet_marginal(form: ContextForm, q: Array) -> None:
    """Move probability between labels, in place, until every label has its share of the loss.

    Labels with too much give in proportion; what a context gives goes to labels with too little in
    the proportion of what those lack.
    """
    for _ in range(2):  # the second time only rounding is left
        have = form.grouped(q.T @ form.weights)
        excess = have - form.marginal
        lacking = np.maximum(-excess, 0.0)
        if not lacking.any() or not (excess > 0).any():
            return
        given = np.where(excess > 0, excess / np.where(have > 0, have, 1.0), 0.0)
        lacking /= lacking.sum()
        for rows in form.blocks():
            block, each = q[rows], form.in_cells(given)
            freed = block @ each
            block *= 1 - each
            block += freed[:, None] * form.shared(lacking, rows)
