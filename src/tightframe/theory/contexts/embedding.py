"""Contexts that were not trained: their features under a trained classifier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.saved import filed
from tightframe.shown import record

#: Newton steps allowed; more only loosens the bound.
MAX_STEPS = 100


@filed
@record
class Embedding(NamedTuple):
    """Where contexts lie that were not trained.

    Attributes
    ----------
    logits : ndarray, shape (V, k)
        Without bias.
    features : ndarray, shape (d, k)
    errors : ndarray, shape (k,)
        Bound of every feature's distance from its minimiser, in the units of `features`.
    nearest : ndarray of int, shape (k,)
        The trained context with the least of these bounds:
    bounds : ndarray, shape (k,)
        Bound of the minimiser's distance from the feature of that context. With the same loss
        weight per feature weight kappa it is ``kappa / feature_decay |W^T (p - p_j)|``: contexts
        of near label distributions lie near each other.
    """

    logits: Array
    features: Array
    errors: Array
    nearest: NDArray[np.intp]
    bounds: Array


class Trained(NamedTuple):
    """Trained contexts that are told apart.

    Attributes
    ----------
    features : ndarray, shape (d, m)
    pulls : ndarray, shape (d, m)
        ``W^T softmax(W h + b)`` there.
    """

    features: Array
    pulls: Array


def embedded(
    classifier: Array,
    bias: Array,
    targets: Array,
    curvatures: Array,
    feature_decay: float,
    trained: Trained,
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
    trained : Trained
        What new contexts are compared with, of the classifier's width.
    """
    features = np.zeros((classifier.shape[1], targets.shape[1]))
    errors = np.zeros(targets.shape[1])
    for j, decay in enumerate((feature_decay / curvatures).tolist()):
        features[:, j], errors[j] = _minimise(classifier, bias, targets[:, j], decay)
    nearest, bounds = _nearest(classifier.T @ targets, feature_decay / curvatures, trained)
    return Embedding(classifier @ features, features, errors, nearest, bounds)


def _nearest(pulled: Array, decays: Array, trained: Trained) -> tuple[NDArray[np.intp], Array]:
    """Bound distances by the gradients at the features of trained contexts.

    The gradient of what a new context minimises is there what its label distribution (and kappa,
    if another) differs by.
    """
    nearest, bounds = np.zeros(len(decays), dtype=np.intp), np.zeros(len(decays))
    for j, decay in enumerate(decays.tolist()):
        gradients = trained.pulls + decay * trained.features - pulled[:, j, None]
        sizes = np.linalg.norm(gradients, axis=0)
        nearest[j] = np.argmin(sizes)
        bounds[j] = sizes[nearest[j]] / decay
    return nearest, bounds


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
