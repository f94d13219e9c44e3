"""Vectors with a given Gram matrix: contrasts of classes, orthonormal columns, factors."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import whole_number

#: Eigenvalues of a Gram matrix below this share of the largest count as zero.
GRAM_TOLERANCE = 1e-12


def contrasts(k: int) -> NDArray[np.float64]:
    """Return an orthonormal basis of the vectors that sum to zero, shape (K, K - 1) (Helmert)."""
    basis = np.zeros((k, k - 1))
    for j in range(k - 1):
        basis[: j + 1, j] = 1.0
        basis[j + 1, j] = -(j + 1.0)
        basis[: j + 2, j] /= math.sqrt((j + 1.0) * (j + 2.0))
    return basis


def orthonormal_columns(d: int, rank: int, seed: int) -> NDArray[np.float64]:
    """Return a random matrix with orthonormal columns, shape (d, rank), by QR."""
    rng = np.random.default_rng(whole_number("seed", seed, 0))
    q, r = np.linalg.qr(rng.standard_normal((d, rank)))
    # LAPACK leaves the signs open; positive diagonals make the rotation uniform and repeatable.
    signed: NDArray[np.float64] = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return signed


def gram_factor(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows of shape (K, rank) with a given Gram matrix."""
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    top = values[-1]
    if not np.isfinite(values).all() or top <= 0 or values[0] < -1e-8 * top:
        raise ValueError(
            "geometry: its classifier is zero or no Gram matrix of real vectors "
            f"(eigenvalues from {values[0]:.3g} to {top:.3g})"
        )
    kept = values > GRAM_TOLERANCE * top
    rows: NDArray[np.float64] = vectors[:, kept] * np.sqrt(values[kept])
    return rows
