"""Interpolation and extrapolation by polynomials, as weights of known points."""

from __future__ import annotations

import numpy as np

from tightframe.geometry.blocks import Array


def lagrange(known: Array, now: Array, most: int) -> Array:
    """Return the weights, shape (T, n), of n known times at T others.

    Each polynomial goes through the ``most`` nearest known times; the others weigh nothing.
    """
    near = np.argsort(np.abs(known - now[:, None]), kind="stable")[:, :most]
    nodes = known[near]
    own = np.eye(near.shape[1], dtype=bool)
    gaps = np.where(own, 1.0, nodes[:, :, None] - nodes[:, None, :])
    distances = np.where(own, 1.0, (now[:, None] - nodes)[:, None, :])
    weights = np.zeros((len(now), len(known)))
    np.put_along_axis(weights, near, np.prod(distances / gaps, axis=2), axis=1)
    return weights
