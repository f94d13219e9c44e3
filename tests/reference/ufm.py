"""Independent oracles for the unconstrained feature model; no code is shared with the package.

`objective` writes the definition out; `multistart` minimises it over the factors directly;
`convex_minimum` hands the nuclear-norm form to CVXPY.
"""

import cvxpy as cp
import numpy as np
from scipy.optimize import minimize


def label_terms(problem):
    """Return what ``-log q_v`` of a sample of class i counts (K, K), and the logits' shifts (K, K).

    From the definitions of class weights, label smoothing, logit adjustment and class margins.
    """
    k, share, weights = problem.num_classes, problem.label_smoothing, problem.class_weights
    spread = weights[:, None] if problem.smoothing_weights == "labels" else weights
    terms = (1 - share) * np.diag(weights) + share / k * np.broadcast_to(spread, (k, k))
    return terms, problem.logit_adjustment[:, None] - np.diag(problem.class_margins)


def objective(problem, weights, class_means, bias):
    """Return the objective with every sample at its class mean; bias None means no bias."""
    return value_and_gradients(problem, weights, class_means, bias)[0]


def value_and_gradients(problem, weights, class_means, bias):
    """Return the objective and its gradients by the weights of every layer, means and bias."""
    counts = problem.counts
    shares = counts / counts.sum() * problem.class_weights
    inputs = [class_means]
    for weight in weights:
        inputs.append(weight @ inputs[-1])
    logits = inputs.pop()
    if bias is not None:
        logits = logits + bias[:, None]
    eye = np.eye(len(counts))
    if problem.loss == "mse":
        value = 0.5 * (shares * (logits - eye) ** 2).sum()
        slope = (logits - eye) * shares
    else:
        terms, shifts = label_terms(problem)
        logits = logits + shifts
        logits = logits - logits.max(axis=0)
        exps = np.exp(logits)
        terms = terms * counts / counts.sum()
        value = (terms * (np.log(exps.sum(axis=0)) - logits)).sum()
        slope = exps / exps.sum(axis=0) * terms.sum(axis=0) - terms
    by_bias = None
    if bias is not None:
        value += problem.bias_decay / 2 * bias @ bias
        by_bias = slope.sum(axis=1) + problem.bias_decay * bias
    by_weights = []
    for decay, weight, x in reversed(
        list(zip(problem.weight_decays, weights, inputs, strict=True))
    ):
        value += decay / 2 * (weight**2).sum()
        by_weights.insert(0, slope @ x.T + decay * weight)
        slope = weight.T @ slope
    value += problem.feature_decay / 2 * (counts * class_means**2).sum()
    return value, by_weights, slope + problem.feature_decay * counts * class_means, by_bias


def multistart(problem, dim, starts=6, seed=0, scale=1.0):
    """Return the best objective and factors found by L-BFGS-B from random starts."""
    rng = np.random.default_rng(seed)
    k = problem.num_classes
    shapes = [(dim, dim)] * (problem.depth - 1) + [(k, dim), (dim, k)]
    if problem.bias != "none":
        shapes.append((k,))
    cuts = np.cumsum([np.prod(shape) for shape in shapes])

    def unpack(x):
        parts = np.split(x, cuts[:-1])
        arrays = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        bias = arrays.pop() if problem.bias != "none" else None
        return arrays[:-1], arrays[-1], bias

    def value_and_gradient(x):
        value, by_weights, by_means, by_bias = value_and_gradients(problem, *unpack(x))
        parts = [*by_weights, by_means, *([] if by_bias is None else [by_bias])]
        return value, np.concatenate([part.ravel() for part in parts])

    lower = np.full(cuts[-1], -np.inf)
    if problem.features == "nonnegative":
        lower[cuts[problem.depth - 1] : cuts[problem.depth]] = 0.0
    options = {"maxiter": 4000, "maxfun": 8000, "ftol": 1e-15, "gtol": 1e-10, "maxcor": 20}
    best = None
    for _ in range(starts):
        start = scale * rng.standard_normal(cuts[-1])
        result = minimize(
            value_and_gradient,
            np.where(lower == 0, np.abs(start), start),
            jac=True,
            method="L-BFGS-B",
            bounds=[(low, None) for low in lower] if (lower == 0).any() else None,
            options=options,
        )
        if best is None or result.fun < best.fun:
            best = result
    return best.fun, *unpack(best.x)


def convex_minimum(problem, solver="CLARABEL"):
    """Return the minimum of the convex form (one layer, real features) by CVXPY, and Z and b."""
    counts = problem.counts.astype(float)
    k, n = len(counts), counts.sum()
    z, b = cp.Variable((k, k)), cp.Variable(k)
    terms, (label, shifts) = [], label_terms(problem)
    for c in range(k):
        column = z[:, c] + b
        if problem.loss == "mse":
            loss = problem.class_weights[c] * 0.5 * cp.sum_squares(column - np.eye(k)[c])
        else:
            column = column + shifts[:, c]
            loss = label[:, c].sum() * cp.log_sum_exp(column) - label[:, c] @ column
        terms.append(counts[c] / n * loss)
    cost = cp.sum(terms) + problem.logit_decay * cp.normNuc(z @ np.diag(np.sqrt(counts)))
    constraints = []
    if problem.bias == "none":
        constraints.append(b == 0)
    elif problem.bias == "decayed":
        cost = cost + problem.bias_decay / 2 * cp.sum_squares(b)
    task = cp.Problem(cp.Minimize(cost), constraints)
    task.solve(solver=solver)
    return task.value, z.value, b.value
