"""One width a layer: the least one counts, and factors have each."""

import itertools

import numpy as np
import pytest

import tightframe as tf
from tests.reference import ufm
from tightframe.theory.factors import cheapest_factors

DEEP = {"weight_decay": [2e-3, 1e-3, 4e-3], "feature_decay": 1e-3, "depth": 3}


def shapes(solution):
    return [w.shape for w in solution.weights], solution.class_means.shape


@pytest.mark.parametrize("features", ["real", "nonnegative"])
def test_the_least_width_decides_a_closed_form(features):
    problem = tf.Problem("20,10,5x2", "mse", features=features, **DEEP)
    one = tf.solve(problem.replace(dim=2))
    for dims in itertools.permutations([2, 5, 7]):
        solution = tf.solve(problem.replace(dim=dims))
        assert solution.objective == one.objective
        assert solution.gap <= 1e-12
        assert np.array_equal(solution.logits, one.logits)
        a, b, c = dims
        assert shapes(solution) == ([(b, a), (c, b), (4, c)], (a, 4))
        own = ufm.objective(solution.problem, solution.weights, solution.class_means, None)
        assert own == pytest.approx(solution.objective, rel=1e-12)


def test_no_factors_of_these_widths_are_cheaper():
    """Random factors with other widths cost at least what the Schatten form says."""
    rng = np.random.default_rng(0)
    problem = tf.Problem("20,10,5x2", dim=(3, 2, 5), **DEEP)
    decays = [*problem.weight_decays]
    for _ in range(50):
        layers = [rng.normal(size=shape) for shape in ((2, 3), (5, 2), (4, 5))]
        means = rng.normal(size=(3, 4))
        logits = np.linalg.multi_dot([*layers[::-1], means])
        cheapest, best_means = cheapest_factors(problem, logits)
        assert np.allclose(np.linalg.multi_dot([*cheapest[::-1], best_means]), logits)

        def cost(weights, h):
            squares = sum(d * (w**2).sum() for d, w in zip(decays, weights, strict=True))
            return squares + problem.feature_decay * (problem.counts * h**2).sum()

        assert cost(cheapest, best_means) <= cost(layers, means)


def test_a_search_takes_the_least_width():
    problem = tf.Problem(
        "20,10,5x2", weight_decay=2e-3, feature_decay=1e-3, depth=2, bias="free", dim=(4, 2)
    )
    solution = tf.solve(problem)
    assert solution.rank <= 2
    assert shapes(solution) == ([(2, 4), (4, 2)], (4, 4))
    assert solution.objective == tf.solve(problem.replace(dim=2)).objective
    assert solution.objective == tf.solve(problem.replace(dim=(2, 4))).objective
    own = ufm.objective(problem, solution.weights, solution.class_means, solution.bias)
    assert own == pytest.approx(solution.objective, rel=1e-12)
