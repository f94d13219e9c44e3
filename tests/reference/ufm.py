"""Independent oracles for the unconstrained feature model; no code is shared with the package.

`objective` writes the definition out over samples; `multistart` minimises over the factors
directly; `convex_minimum` hands the nuclear-norm form to CVXPY.
"""

import cvxpy as cp
import numpy as np
import torch
from scipy.optimize import minimize


torch.set_num_threads(1)  # tiny matrices


def objective(problem, weights, class_means, bias):
    """Return the objective as a torch scalar, with every sample at its class mean."""
    counts = torch.tensor(problem.counts, dtype=torch.float64)
    n = counts.sum()
    logits = class_means
    for weight in weights:
        logits = weight @ logits
    if bias is not None:
        logits = logits + bias[:, None]
    eye = torch.eye(len(counts), dtype=torch.float64)
    if problem.loss == "mse":
        losses = 0.5 * ((logits - eye) ** 2).sum(0)
    else:
        losses = torch.logsumexp(logits, 0) - logits.diagonal()
    total = (counts * losses).sum() / n
    for decay, weight in zip(problem.weight_decays, weights, strict=True):
        total = total + decay / 2 * (weight**2).sum()
    total = total + problem.feature_decay / 2 * (counts * (class_means**2).sum(0)).sum()
    if bias is not None:
        total = total + problem.bias_decay / 2 * (bias**2).sum()
    return total


def multistart(problem, dim, starts=6, seed=0, scale=1.0):
    """Return the best objective and factors found by L-BFGS-B from random starts."""
    rng = np.random.default_rng(seed)
    k = problem.num_classes
    shapes = [(dim, dim)] * (problem.depth - 1) + [(k, dim), (dim, k)]
    sizes = [a * b for a, b in shapes]
    if problem.bias != "none":
        sizes.append(k)
    cuts = np.cumsum(sizes)[:-1]

    def unpack(x):
        parts = torch.tensor_split(x, cuts.tolist())
        matrices = [p.reshape(s) for p, s in zip(parts, shapes, strict=False)]
        bias = parts[-1] if problem.bias != "none" else None
        return matrices[:-1], matrices[-1], bias

    def value_and_gradient(x):
        t = torch.tensor(x, requires_grad=True)
        value = objective(problem, *unpack(t))
        value.backward()
        return value.item(), t.grad.numpy()

    bounds = None
    if problem.features == "nonnegative":
        h = slice(cuts[problem.depth - 1], sum(sizes[: problem.depth + 1]))
        bounds = [(None, None)] * sum(sizes)
        bounds[h] = [(0, None)] * (h.stop - h.start)
    best = None
    for _ in range(starts):
        x = scale * rng.standard_normal(sum(sizes))
        if bounds is not None:
            x[h] = np.abs(x[h])
        options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20}
        result = minimize(
            value_and_gradient, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        if best is None or result.fun < best.fun:
            best = result
    weights, means, bias = unpack(torch.tensor(best.x))
    bias = None if bias is None else bias.numpy()
    return best.fun, [w.numpy() for w in weights], means.numpy(), bias


def convex_minimum(problem, solver="CLARABEL"):
    """Return the minimum of the convex form (one layer, real features) by CVXPY."""
    counts = problem.counts.astype(float)
    k, n = len(counts), counts.sum()
    z, b = cp.Variable((k, k)), cp.Variable(k)
    shifted = z + cp.reshape(b, (k, 1), order="F") @ np.ones((1, k))
    terms = []
    for c in range(k):
        column = shifted[:, c]
        if problem.loss == "mse":
            loss = 0.5 * cp.sum_squares(column - np.eye(k)[c])
        else:
            loss = cp.log_sum_exp(column) - column[c]
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
