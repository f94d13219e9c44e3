"""The max-margin solver's parts: its projection by CVXPY, its bound from any matrix."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightframe.problem.label_law import LabelLaw
from tightframe.solvers import max_margin as solver
from tightframe.theory.max_margin import bound, cost, sign_test
from tightframe.theory.supports import Supports


def _supports(seed, free=False):
    rng = np.random.default_rng(seed)
    inside = rng.random((4, 6)) < 0.4
    inside[np.arange(6) % 4, np.arange(6)] = True
    law = LabelLaw.read(inside / inside.sum(axis=0))
    return Supports.merged(law, rng.uniform(0.3, 3, 4), rng.uniform(0.1, 50, 6), free)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=15)
def test_the_projection_is_cvxpys(seed):
    supports = _supports(seed)
    x = np.random.default_rng(seed).normal(size=supports.inside.shape) * supports.roots
    found = cp.Variable(x.shape)
    levels = cp.Variable(x.shape[1])
    asked = []
    for j in range(x.shape[1]):
        y = cp.multiply(found[:, j], 1 / supports.roots[:, j])
        own = supports.inside[:, j]
        asked += [y[own] == levels[j], y[~own] <= levels[j] - 1]
    task = cp.Problem(cp.Minimize(cp.sum_squares(found - x)), asked)
    task.solve(solver="CLARABEL")
    assert solver._projected(supports, x) == pytest.approx(found.value, abs=1e-5)


@given(st.integers(0, 10**6), st.booleans(), st.floats(0, 2))
@settings(deadline=None)
def test_no_matrix_gives_a_bound_above_the_least_norm(seed, free, noise):
    supports = _supports(seed, free)
    if not supports.inside.size or supports.inside.all():
        return
    test = sign_test(supports)
    found = solver.max_margin(supports, test, 1e-9, 3000)
    x = supports.centered(found.x)
    left, values, right = np.linalg.svd(x, full_matrices=False)
    kept = values > 1e-4 * values[0]
    polar = left[:, kept] @ right[kept]
    rng = np.random.default_rng(seed)
    given_matrix = polar + noise * rng.normal(size=polar.shape)
    got = bound(supports, given_matrix, found.norm)
    assert 0 <= got <= found.norm * (1 + 1e-12)
    # The scale of the matrix does not matter.
    assert bound(supports, 7 * given_matrix, found.norm) == pytest.approx(got, rel=1e-9)
    assert found.bound <= cost(x).norm * (1 + 1e-12)
    assert found.norm - found.bound <= 1e-9 * found.norm
