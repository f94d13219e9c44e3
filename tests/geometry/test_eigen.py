"""Eigenvalues where most of them are equal, at which LAPACK's fast ways sometimes fail."""

import numpy as np
import pytest

from tightframe.geometry.eigen import all_above, eigenpairs_above, largest_eigenvalue


def clustered(seed, size):
    """A matrix of order 40, all but five of whose eigenvalues are ``size``."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    values = np.full(40, size)
    values[:5] = size * np.linspace(0, 0.8, 5)
    half = q * np.sqrt(values)
    return half @ half.T


@pytest.mark.parametrize("size", [4.77e-8, 1.0])
def test_equal_eigenvalues(size):
    """LAPACK fails at some of these sixty; at which depends on its build."""
    for seed in range(60):
        matrix = clustered(seed, size)
        assert largest_eigenvalue(matrix) == pytest.approx(size, rel=1e-12)
        for found in (eigenpairs_above(matrix, 0.9 * size), all_above(matrix, 0.9 * size)):
            values, vectors = found
            np.testing.assert_allclose(values, np.full(35, size), rtol=1e-12)
            np.testing.assert_allclose(matrix @ vectors, size * vectors, atol=1e-12 * size)
            np.testing.assert_allclose(vectors.T @ vectors, np.eye(35), atol=1e-12)


def test_few_eigenvalues_are_those_of_all():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(12, 12))
    matrix = half @ half.T
    values = np.linalg.eigvalsh(matrix)
    found, vectors = eigenpairs_above(matrix, values[-4] * (1 - 1e-9))
    np.testing.assert_allclose(found, values[-4:], rtol=1e-12)
    np.testing.assert_allclose(matrix @ vectors, found * vectors, atol=1e-10)
    assert largest_eigenvalue(matrix) == pytest.approx(values[-1], rel=1e-13)
    assert len(eigenpairs_above(matrix, 2 * values[-1])[0]) == 0
