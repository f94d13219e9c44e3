"""Batched L-BFGS against SciPy and exact minima."""

import itertools

import numpy as np
import pytest
from scipy.optimize import rosen, rosen_der

from tightframe.solvers.search.lbfgs import lbfgs


def _quadratic(condition, size, seed):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = (q * np.geomspace(1, condition, size)) @ q.T
    target = rng.normal(size=size)

    def function(x):
        slope = (x - target) @ matrix
        return np.einsum("bi,bi->b", x - target, slope) / 2, slope

    return function, target


def _rosenbrock(x):
    return np.array([rosen(row) for row in x]), np.array([rosen_der(row) for row in x])


def _small(accuracy):
    return lambda _, gradients: (gradients**2).sum(axis=1) <= accuracy


@pytest.mark.parametrize("condition", [1, 1e2, 1e4])
def test_quadratic(condition):
    function, target = _quadratic(condition, 12, 0)
    start = np.random.default_rng(1).normal(size=(5, 12)) * np.geomspace(1e-3, 1e3, 5)[:, None]
    end = lbfgs(function, start, _small(1e-18), 2000)
    assert end.converged.all()
    assert np.allclose(end.x, target, atol=1e-8)


def test_rosenbrock():
    start = np.random.default_rng(0).uniform(-1, 1, size=(4, 5)) + 1
    end = lbfgs(_rosenbrock, start, _small(1e-16), 1000)
    assert end.converged.all()
    assert np.allclose(end.x, 1, atol=1e-6)
    assert np.allclose(end.values, [rosen(row) for row in end.x])


def test_points_do_not_touch_each_other():
    start = np.random.default_rng(0).uniform(0, 2, size=(4, 5))
    together = lbfgs(_rosenbrock, start, _small(1e-16), 40)
    for i in range(4):
        alone = lbfgs(_rosenbrock, start[[i]], _small(1e-16), 40)
        assert np.allclose(alone.x[0], together.x[i], rtol=1e-6, atol=1e-8)
        assert alone.converged[0] == together.converged[i]


def test_stops_where_told_and_never_climbs():
    start = np.random.default_rng(0).uniform(-2, 2, size=(3, 4))
    values = [lbfgs(_rosenbrock, start, _small(0), n).values for n in (0, 1, 5, 20)]
    assert np.allclose(values[0], _rosenbrock(start)[0])
    for before, after in itertools.pairwise(values):
        assert (after <= before).all()


def test_a_start_that_overflows_is_left_alone():
    def function(x):
        return np.where(x[:, 0] > 100, np.inf, (x**2).sum(axis=1)), 2 * x

    start = np.array([[200.0, 1.0], [2.0, 1.0]])
    end = lbfgs(function, start, _small(1e-16), 50)
    assert end.converged.tolist() == [False, True]
    assert np.array_equal(end.x[0], start[0])


def test_the_wall_of_a_domain_is_respected():
    """-log(x) + x is infinite below zero: steps that leave the domain are shortened."""

    def function(x):
        inside = x > 0
        values = np.where(inside, x - np.log(np.where(inside, x, 1)), np.inf).sum(axis=1)
        return values, 1 - 1 / np.where(inside, x, np.nan)

    end = lbfgs(function, np.array([[1e-3], [40.0]]), _small(1e-16), 200)
    assert end.converged.all()
    assert np.allclose(end.x, 1)
