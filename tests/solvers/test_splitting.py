"""The operator splitting against Newton's method on factors, which shares no step with it."""

import numpy as np
import pytest

import tightframe as tf
from tightframe.geometry.blocks import Partition
from tightframe.solvers.newton import DEFAULTS, minimise
from tightframe.solvers.splitting import split
from tightframe.solvers.starts import Factors, first_guess

COUNTS = "90x3,70,64x2,50,41x4,33,25,20x2,11,9x5,6,3x3"

KINDS = [
    {},
    {"bias": "free"},
    {"bias": "decayed", "bias_decay": 0.01},
    {"class_weights": "balanced"},
    {"logit_adjustment": "prior", "bias": "decayed", "bias_decay": 1e-3},
    {"loss": "mse", "bias": "decayed", "bias_decay": 0.1},
]


@pytest.mark.parametrize("decay", [3e-4, 3e-3, 1e-2])
@pytest.mark.parametrize("kind", KINDS)
def test_it_agrees_with_newton(kind, decay):
    problem = tf.Problem(COUNTS, weight_decay=decay, feature_decay=decay, **kind)
    partition = Partition.coarsest(problem)
    assert partition.num_groups <= DEFAULTS.split_groups
    newton = minimise(problem, partition, tol=1e-11)
    found = split(problem, first_guess(problem, partition), 1e-9, 200)
    assert found.certificate.gap <= 1e-9 * found.certificate.primal
    assert found.certificate.primal == pytest.approx(newton.certificate.primal, rel=2e-9)
    assert found.certificate.dual <= newton.certificate.primal
    np.testing.assert_array_equal(found.logits.within > 0, newton.logits.within > 0)


def test_a_far_start_ends_at_the_same_minimum():
    problem = tf.Problem(COUNTS, weight_decay=3e-3, feature_decay=3e-3)
    partition = Partition.coarsest(problem)
    g = partition.num_groups
    rng = np.random.default_rng(0)
    far = Factors(*rng.normal(size=(2, g, g)), np.ones(g), np.zeros(g))
    start = partition.matrix(far.within, far.left @ far.right.T / partition.scale)
    found = split(problem, (start, far.bias), 1e-8, 500)
    newton = minimise(problem, partition, tol=1e-11)
    assert found.certificate.primal == pytest.approx(newton.certificate.primal, rel=2e-8)


def test_steps_end_at_the_tolerance_asked_for():
    """The smallest singular value is a thousandth of the largest: no reason to go on."""
    counts = np.unique(np.geomspace(100, 10**7, 80).round()).astype(int)
    decay = np.sqrt(counts[0]) / (2 * counts.sum())
    problem = tf.Problem(counts, weight_decay=decay, feature_decay=decay)
    rough, fine = (tf.solve(problem, tol).stats for tol in (1e-5, 1e-11))
    assert rough.iterations < fine.iterations
    assert len(rough.history) == 1
    last = rough.history[-1]
    assert 1e-9 < (last.primal - last.dual) / last.primal <= 1e-5
