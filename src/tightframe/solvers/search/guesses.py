"""Where the descents of a search start."""

from __future__ import annotations

import math

import numpy as np

from tightframe.geometry.blocks import Array, svd
from tightframe.solvers.search.factors import Classes, Factors

#: Of random factors: their scale relative to those of the relaxed solution is drawn, evenly in its
#: logarithm, from here to 1.
LEAST_SCALE = 0.03


def deep_starts(f: Factors, starts: int, rng: np.random.Generator) -> Array:
    """Return random balanced points, shape (starts, P), for any depth."""
    k, width = f.num_classes, f.width
    guesses = []
    for i in range(starts):
        codes = rng.standard_normal((k, width))
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
        # Every other start is self-dual, as softmax codes are.
        guesses.append(codes @ (codes if i % 2 == 0 else rng.standard_normal((k, width))).T)
    return _near(f, np.array(guesses), rng)


def structured_starts(f: Factors, rng: np.random.Generator) -> Array:
    """Return classes merged on a cross-polytope and on a simplex, and the encoded labels cut."""
    k, width = f.num_classes, f.width
    axes = np.eye(width)
    guesses = []
    for corners in (np.concatenate([axes, -axes]), np.eye(width + 1) - 1 / (width + 1)):
        codes = corners[np.arange(k) % len(corners)]
        guesses.append(codes @ codes.T)
    guesses.append(np.eye(k))
    return _near(f, np.array(guesses), rng)


def narrow_starts(f: Factors, relaxed: Array, starts: int, rng: np.random.Generator) -> Array:
    """Return random points for one layer, shape (starts, P), of three kinds in turn.

    The solution without a width, cut to a random subspace; small random factors; and classes in
    random directions, further out the more frequent they are.

    Parameters
    ----------
    relaxed : ndarray, shape (K, K)
        X of the solution without a width.
    """
    k, width = f.num_classes, f.width
    left, values, right = svd(relaxed)
    root = np.sqrt(values)
    length = math.sqrt(float(values[:width].mean()) * width / k) or 1.0  # of a class's factor
    prior = np.zeros(k)
    if f.problem.loss_object.is_softmax:
        prior = np.log(f.shares * f.problem.class_weights) - f.problem.logit_adjustment
        prior -= prior.mean()
    u, v = np.empty((starts, k, width)), np.empty((starts, k, width))
    for i in range(starts):
        kind = int(rng.integers(3)) if starts < 3 else i % 3
        if kind == 0:
            latent = np.linalg.qr(rng.standard_normal((k, width)))[0]
            u[i], v[i] = (left * root) @ latent, (right.T * root) @ latent
        elif kind == 1:
            scale = length / math.sqrt(width) * LEAST_SCALE ** rng.uniform()
            u[i], v[i] = scale * rng.standard_normal((2, k, width))
        else:
            codes = rng.standard_normal((k, width))
            codes /= np.linalg.norm(codes, axis=1, keepdims=True)
            weights = f.shares ** (rng.uniform() / 2)
            codes *= (weights / np.sqrt((weights**2).mean()))[:, None]
            u[i] = v[i] = length * codes
    parts = [u.reshape(starts, -1), v.reshape(starts, -1)]
    if f.problem.bias != "none":
        parts.append(np.broadcast_to(prior / f.bias_scale, (starts, k)))
    return np.concatenate(parts, axis=1)


def orthant_starts(f: Factors, relaxed: Array, starts: int, rng: np.random.Generator) -> Array:
    """Return random points with non-negative means, shape (starts, P), of three kinds in turn.

    The classes with most samples on axes of their own, the others on any; small random factors;
    and classes in random directions, further out the more frequent they are.

    Parameters
    ----------
    relaxed : ndarray, shape (K, K)
        X of the solution without a width.
    """
    k, width = f.num_classes, f.width
    shares = f.problem.counts / f.problem.num_samples
    length = math.sqrt(float(np.linalg.norm(relaxed, axis=0).mean())) or 1.0
    center = np.eye(k) - f.problem.loss_object.ignores_constants / k
    rows, means = np.empty((starts, k, width)), np.empty((starts, k, width))
    for i in range(starts):
        kind = rng.permutation(3)[0] if starts < 3 else i % 3
        scale = length
        if kind == 0:
            axes = np.concatenate([rng.permutation(width), rng.integers(width, size=k)])[:k]
            codes = np.eye(width)[axes] + 0.1 * np.abs(rng.standard_normal((k, width)))
        else:
            codes = np.abs(rng.standard_normal((k, width)))
            if kind == 1:
                scale *= LEAST_SCALE ** rng.uniform() / math.sqrt(width)
            else:
                codes *= (shares ** (rng.uniform() / 2) / np.linalg.norm(codes, axis=1))[:, None]
                codes /= math.sqrt(float((codes**2).sum()) / k)
        rows[i], means[i] = (
            scale * center @ codes,
            scale * codes / np.sqrt(f.problem.counts)[:, None],
        )
    prior = np.log(shares) - np.log(shares).mean() if f.problem.bias != "none" else np.zeros(k)
    bias = np.broadcast_to(prior, (starts, k))
    return f.from_classes(Classes(rows, means, bias, np.zeros((starts, 0))))


def _near(f: Factors, guesses: Array, rng: np.random.Generator) -> Array:
    """Return points near guesses of Z."""
    center = np.eye(f.num_classes) - f.problem.loss_object.ignores_constants / f.num_classes
    x = _scaled(f, center @ guesses * f.root)
    # Structured starts are symmetric, and a descent keeps symmetries: a little noise breaks them.
    noise = 0.01 * np.sqrt((x**2).mean(axis=1, keepdims=True)) * rng.standard_normal(x.shape)
    near: Array = x + noise
    return near


def _scaled(f: Factors, guesses: Array) -> Array:
    """Return balanced points along guesses of X, at the least scale with a minimum along the ray.

    Small logits only collapse. Where the ray has no minimum but zero, the cheapest scale is taken.
    """
    left, values, right = svd(guesses)
    r = f.width
    values = values[:, :r] / np.maximum(values[:, :1], 1e-300)
    values = np.maximum(values, 0.01)  # a zero would stay zero
    margin = 1.0
    if not f.problem.loss_object.attains_zero:  # logits where the loss's slope balances the decays
        mean_count = f.problem.num_samples / f.num_classes
        margin = max(1.0, -math.log(f.decay) - math.log(mean_count) / (f.depth + 1))
    scales = margin * f.root.max() * 2.0 ** np.arange(-3, 7)
    none = np.zeros((len(guesses), f.num_classes))
    rays = [
        f.join(left[:, :, :r], s * values, right[:, :r].transpose(0, 2, 1), none) for s in scales
    ]
    costs = np.array([f(ray)[0] for ray in rays])
    inner = np.full_like(costs, np.inf)
    inner[1:-1] = np.where(
        (costs[1:-1] <= costs[:-2]) & (costs[1:-1] <= costs[2:]), costs[1:-1], np.inf
    )
    first = np.isfinite(inner).argmax(axis=0)
    picked = np.where(np.isfinite(inner).any(axis=0), first, costs.argmin(axis=0))
    chosen: Array = np.array(rays)[picked, np.arange(len(guesses))]
    return chosen
