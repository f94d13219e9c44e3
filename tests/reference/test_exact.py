import numpy as np
import pytest

import tightframe as tf
from tests.reference import exact, ufm
from tightframe.geometry.blocks import BlockMatrix

KINDS = [
    {},
    {"bias": "free"},
    {"bias": "decayed", "bias_decay": 0.1},
    {"class_weights": "1x2,3x3", "logit_adjustment": "0.5x2,-2x3"},
    {"loss": "mse"},
    {"loss": "mse", "bias": "decayed", "bias_decay": 0.1},
]


@pytest.mark.parametrize("options", KINDS)
def test_exact_objective_is_that_of_the_definition(options):
    """At any block logits, by cheapest factors written out in float64."""
    problem = tf.Problem("9x2,4x3", weight_decay=2e-2, feature_decay=3e-3, **options)
    rng = np.random.default_rng(0)
    solution = tf.solve(problem)
    p = solution.blocks.partition
    blocks = BlockMatrix(p, rng.normal(size=2), rng.normal(size=(2, 2)))
    bias = np.zeros(2) if problem.bias == "none" else rng.normal(size=2)
    counts, dense = problem.counts, blocks.to_dense()
    u, s, vt = np.linalg.svd(dense * np.sqrt(counts))
    tilt = (problem.feature_decay / problem.weight_decay) ** 0.25
    w, h = tilt * u * np.sqrt(s), np.sqrt(s)[:, None] * vt / tilt / np.sqrt(counts)
    value = ufm.objective(
        problem, [w], h, None if problem.bias == "none" else bias[[0, 0, 1, 1, 1]]
    )
    assert float(exact.objective(problem, blocks.within, blocks.mean, bias)) == pytest.approx(
        value, rel=1e-12
    )


@pytest.mark.parametrize("decay", [1e-3, 3e-2, 0.5])
@pytest.mark.parametrize(
    ("minimum", "options"),
    [
        (exact.balanced_minimum, {"counts": "20x4", "class_weights": "2x4"}),
        (exact.balanced_minimum, {"counts": "20x4", "bias": "free"}),
        (exact.nonnegative_minimum, {"counts": "40,12,3x2", "features": "nonnegative"}),
        (exact.quadratic_minimum, {"counts": "40,12,3x2", "loss": "mse"}),
        (exact.quadratic_minimum, {"counts": "40,12,3x2", "loss": "mse", "bias": "free"}),
        (exact.quadratic_minimum, {"counts": "9,4,3", "loss": "mse", "depth": 2}),
        (exact.quadratic_minimum, {"counts": "9,4,3", "loss": "mse", "depth": 3, "bias": "free"}),
    ],
)
def test_exact_minima_are_those_of_direct_minimisation(minimum, options, decay):
    problem = tf.Problem(weight_decay=decay, feature_decay=decay / 3, **options)
    value, *_ = ufm.multistart(problem, problem.num_classes + 1, starts=6)
    assert float(minimum(problem)) == pytest.approx(value, rel=1e-7)
