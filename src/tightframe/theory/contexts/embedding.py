"""Contexts that were not trained: their features under a trained classifier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tightframe.geometry.blocks import Array

#: Newton steps allowed; more only loosens the bound.
MAX_STEPS = 100


class Embedding(NamedTuple):
    """Where contexts lie that were not trained.

    Attributes
    ----------
    logits : ndarray, shape (V, k)
        Without bias.
    features : ndarray, shape (d, k)
    errors : ndarray, shape (k,)
        Bound of every feature's distance from its minimiser, in the units of `features`.
    """

    logits: Array
    features: Array
    errors: Array


def embedded(
    classifier: Array, bias: Array, targets: Array, curvatures: Array, feature_decay: float
) -> Embedding:
    """Return the features of least loss and decay under a classifier that stays as it is.

    ``min_h lse(W h + b) - p^T (W h + b) + feature_decay / (2 kappa) |h|^2`` is strongly convex: a
    point's distance from the minimiser is at most its gradient times ``kappa / feature_decay``.

    Parameters
    ----------
    classifier : ndarray, shape (V, d)
    bias : ndarray, shape (V,)
    targets : ndarray, shape (V, k)
        Distributions as columns.
    curvatures : ndarray, shape (k,)
        kappa, every context's loss weight over its feature weight.
    feature_decay : float
    """
    features = np.zeros((classifier.shape[1], targets.shape[1]))
    errors = np.zeros(targets.shape[1])
    for j, decay in enumerate((feature_decay / curvatures).tolist()):
        features[:, j], errors[j] = _minimise(classifier, bias, targets[:, j], decay)
    return Embedding(classifier @ features, features, errors)


def _minimise(w: Array, bias: Array, p: Array, decay: float) -> tuple[Array, float]:
    def value(h: Array) -> float:
        z = w @ h + bias
        top = z.max()
        return float(top + np.log(np.exp(z - top).sum()) - p @ z + decay / 2 * (h @ h))

    h = np.zeros(w.shape[1])
    best, least, near = h, np.inf, False
    for _ in range(MAX_STEPS):
        z = w @ h + bias
        q = np.exp(z - z.max())
        q /= q.sum()
        gradient = w.T @ (q - p) + decay * h
        size = float(np.linalg.norm(gradient))
        if near and size > least / 2:
            break
        if size < least:
            best, least = h, size
        mean = w.T @ q
        hessian = (w.T * q) @ w - np.outer(mean, mean) + decay * np.eye(len(h))
        step = np.linalg.solve(hessian, -gradient)
        decrement, now, length = -float(gradient @ step), value(h), 1.0
        # Values no longer tell steps apart then, and full ones reach rounding.
        near = decrement <= 1e-13 * abs(now)
        while not near and value(h + length * step) > now - 0.25 * length * decrement:
            length /= 2
            near = length < 1e-12
        h = h + length * step
    return best, least / decay
