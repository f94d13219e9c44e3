"""Independent oracle for problems with label distributions: the convex problem, handed to CVXPY."""

import cvxpy as cp
import numpy as np


def convex_minimum(form):
    """Return the minimum of a `ContextForm`, by Clarabel."""
    m, v = form.shape
    targets = form.targets.toarray()
    z, b = cp.Variable((m, v)), cp.Variable(v)
    scores = z + np.tile(form.shifts, (m, 1))
    if form.bias != "none":
        scores = scores + np.ones((m, 1)) @ cp.reshape(b, (1, v), order="C")
    fit = form.weights @ cp.log_sum_exp(scores, axis=1)
    fit -= cp.sum(cp.multiply(form.weights[:, None] * targets, scores))
    roots = np.sqrt(form.feature_weights), np.sqrt(form.label_weights)
    cost = form.decay * cp.normNuc(np.diag(roots[0]) @ z @ np.diag(roots[1]))
    if form.bias == "decayed":
        cost += form.bias_decay / 2 * cp.sum(cp.multiply(form.label_weights, cp.square(b)))
    problem = cp.Problem(cp.Minimize(fit + cost))
    problem.solve(solver="CLARABEL")
    return problem.value


def objective(form, z, b):
    """Return the objective of logits (m, V) and a bias (V,), written out."""
    scores = z + b + form.shifts
    value = 0.0
    for a, row, p in zip(form.weights, scores, form.targets.toarray(), strict=True):
        value += a * (np.log(np.exp(row - row.max()).sum()) + row.max() - p @ row)
    scaled = np.sqrt(form.feature_weights)[:, None] * z * np.sqrt(form.label_weights)
    value += form.decay * np.linalg.svd(scaled, compute_uv=False).sum()
    return value + form.bias_decay / 2 * float(form.label_weights @ b**2)
