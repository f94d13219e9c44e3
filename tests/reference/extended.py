"""Minimisers of one layer's cross-entropy refined by gradients in extended precision.

Value and gradient are written here again, for groups; of the package only Newton's equation is
solved, to a few digits, which can slow the refinement down but not make it end elsewhere.
"""

import math

import numpy as np

from tightframe.geometry.blocks import Partition
from tightframe.solvers.newton import FactoredProblem, _truncated_step, minimise_from
from tightframe.solvers.starts import Factors

AVAILABLE = np.finfo(np.longdouble).eps < 1e-18


def decision_margins(problem):
    """Return every group's own logit minus the largest of another group, at the minimiser.

    No bias, weights or adjustments. The gradient is balanced to 1e-13 of the decays, and the
    residual in every direction that the minimiser lacks is below the decay: it is the global one.
    """
    p = Partition.coarsest(problem)
    f = FactoredProblem(problem, p)
    sizes, counts = p.sizes.astype(np.longdouble), p.counts.astype(np.longdouble)
    decay, total = np.longdouble(problem.logit_decay), np.longdouble(problem.num_samples)
    scale = np.sqrt(sizes)[:, None] * np.sqrt(sizes * counts)
    amount = sizes * counts / total
    none = np.zeros(p.num_groups)
    found = minimise_from(None, problem, p, 1e-13, 200).factors
    left, right, within = (np.array(part, np.longdouble) for part in found[:3])

    def logits():
        mean = left @ right.T / scale
        own = np.diag(mean) + within * (sizes - 1) / sizes
        return mean, own, own - within

    norms = [math.inf]
    while True:
        mean, own, sibling = logits()
        top = np.maximum(mean.max(axis=0), own)
        odds = sizes[:, None] * np.exp(mean - top)
        mine, siblings = np.exp(own - top), (sizes - 1) * np.exp(sibling - top)
        np.fill_diagonal(odds, 0)
        others = odds.sum(axis=0)
        every = others + mine + siblings
        slope = odds / every * amount
        np.fill_diagonal(slope, -others / every * amount)
        slope /= scale
        share = (sizes - 1) / sizes
        inside = -share * (others + siblings) / every - siblings / every / sizes
        by_within = amount * inside + decay * (sizes - 1) * np.sqrt(counts)
        parts = (slope @ right + decay * left, slope.T @ left + decay * right, by_within)
        here = f.pack(*(part.astype(float) for part in (left, right, within)), none)
        gradient = f.pack(*(part.astype(float) for part in parts), none)
        model = f.model(here)
        norms.append(np.linalg.norm(gradient / model.weights))
        if norms[-1] > 0.3 * norms[-2]:
            break
        model = model._replace(gradient=gradient)
        step, _ = _truncated_step(model, f.options, math.inf, 1e-12, 1e-4 * norms[-1])
        change: Factors = f.unpack(step)
        left, right, within = left + change.left, right + change.right, within + change.within
    assert min(norms) < 1e-13
    rest = slope.astype(float)
    for side, rows in ((left, True), (right, False)):
        q, _ = np.linalg.qr(side.astype(float))
        rest = rest - (q @ (q.T @ rest) if rows else (rest @ q) @ q.T)
    assert np.linalg.norm(rest, 2) < decay
    assert (within >= 0).all()
    np.fill_diagonal(mean, -np.inf)
    return (own - mean.max(axis=0)).astype(float)
