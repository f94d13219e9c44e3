"""Anderson's acceleration: exact on linear maps of few dimensions, harmless where nothing falls."""

import numpy as np
import pytest

from tightframe.solvers.anderson import Anderson, AndersonOptions


def iterate(matrix, offset, steps, options):
    at = np.zeros(len(offset))
    accelerated = Anderson(options, at)
    for _ in range(steps):
        at = accelerated.next(at, matrix @ at + offset - at)
    return at


@pytest.mark.parametrize("single_size", [1, 10**9])
def test_a_linear_map_is_solved_in_as_many_steps_as_dimensions(single_size):
    rng = np.random.default_rng(0)
    matrix = np.diag([0.99, 0.9, -0.5])
    offset = rng.normal(size=3)
    exact = np.linalg.solve(np.eye(3) - matrix, offset)
    options = AndersonOptions(memory=3, ridge=1e-14, restart=1e9, single_size=single_size)
    found = iterate(matrix, offset, 12, options)
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    plain = np.zeros(3)
    for _ in range(12):
        plain = matrix @ plain + offset
    assert np.abs(plain - exact).max() > 1e4 * np.abs(found - exact).max()


def test_memory_is_bounded_in_bytes():
    like = np.zeros(1000)
    assert Anderson(AndersonOptions(memory=8, memory_bytes=3 * 8 * 1000), like).most == 3
    assert Anderson(AndersonOptions(memory=8, memory_bytes=1.0), like).most == 1


def test_plain_steps_follow_where_the_residual_does_not_fall():
    """A map without a fixed point: after some steps nothing is combined any more."""
    options = AndersonOptions(idle=3)
    accelerated = Anderson(options, np.zeros(4))
    at, move = np.zeros(4), np.ones(4)
    plain = []
    for _ in range(20):
        following = accelerated.next(at, move)
        plain.append(np.array_equal(following, at + move))
        at = following
    assert any(plain[i : i + 3] == [True] * 3 for i in range(4, 17))


def test_options_are_positive():
    with pytest.raises(ValueError, match="memory"):
        AndersonOptions(memory=0)
