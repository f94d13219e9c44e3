"""The oracle's own gradient, against finite differences: everything else leans on it."""

import numpy as np
import pytest
from scipy.optimize import check_grad

import tightframe as tf
from tests.reference import ufm


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(("depth", "bias"), [(1, "none"), (3, "free"), (2, "decayed")])
def test_gradient(loss, depth, bias):
    problem = tf.Problem(
        "3x2,7",
        loss,
        weight_decay=[0.1, 0.2, 0.3][:depth],
        feature_decay=0.05,
        bias=bias,
        bias_decay=0.4 if bias == "decayed" else None,
        depth=depth,
    )
    shapes = [(4, 4)] * (depth - 1) + [(3, 4), (4, 3), (3,)]
    cuts = np.cumsum([np.prod(shape) for shape in shapes])[:-1]

    def parts(x):
        arrays = [p.reshape(s) for p, s in zip(np.split(x, cuts), shapes, strict=True)]
        return arrays[:depth], arrays[depth], arrays[-1] if bias != "none" else None

    def value(x):
        return ufm.objective(problem, *parts(x))

    def gradient(x):
        _, by_weights, by_means, by_bias = ufm.value_and_gradients(problem, *parts(x))
        tail = np.zeros(3) if by_bias is None else by_bias
        return np.concatenate([*(w.ravel() for w in by_weights), by_means.ravel(), tail])

    x = np.random.default_rng(0).standard_normal(cuts[-1] + 3)
    assert check_grad(value, gradient, x) < 1e-6 * np.linalg.norm(gradient(x))
