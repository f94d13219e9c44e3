import itertools

import numpy as np
import pytest

import tightframe as tf
from tests.problems import at, changing, make

PARTS = ("classifier", "means", "centered_means", "logits")
ENDED = [
    make("60,20,9,4"),
    make("60x2,20x3,9"),
    make("60,20x3", bias="free"),
    make("60x2,20x3,9", bias="free"),
    make("60,20x3", bias="decayed"),
    make("60x3,20x3,9", "mse", bias="decayed"),
    make("60,20x3", "mse", bias="decayed"),
    make("60x2,20x3,9", "mse"),
    make("60,20,9,4", "mse", bias="free"),
    make("9x5"),
    make("9x5", "mse"),
]


@pytest.mark.parametrize("problem", ENDED, ids=changing)
def test_what_is_left_last_is_the_limit_at_total_collapse(problem):
    limits = tf.path_limits(problem)
    assert limits.total_collapse == pytest.approx(tf.thresholds(problem).total_collapse, rel=1e-12)
    distances = []
    for nearness in (1e-1, 1e-2, 1e-3):
        decay = limits.total_collapse * (1 - nearness)
        solution = tf.solve(at(problem, decay), 1e-13)
        distances.append([solution.geometry.distance(limits.collapse, part) for part in PARTS])
    for further, nearer in itertools.pairwise(distances):
        assert all(b < max(0.2 * a, 1e-6) for a, b in zip(further, nearer, strict=True))
    assert max(distances[-1]) < 1e-2
    assert np.linalg.matrix_rank(limits.collapse.logits, 1e-9) == solution.rank


@pytest.mark.parametrize("problem", ENDED, ids=changing)
def test_what_the_path_tends_to_as_the_decays_vanish(problem):
    limits = tf.path_limits(problem)
    if problem.bias == "free":
        assert limits.vanishing is None
        return
    distances = []
    for nearness in (1e-1, 1e-3, 1e-5, 1e-7):
        solution = tf.solve(at(problem, limits.total_collapse * nearness))
        assert solution.status == "optimal"
        distances.append([solution.geometry.distance(limits.vanishing, part) for part in PARTS])
    for further, nearer in itertools.pairwise(distances):
        assert all(b < max(0.9 * a, 1e-6) for a, b in zip(further, nearer, strict=True))
    assert max(distances[-1]) < (1e-5 if problem.loss == "mse" else 0.1)


def test_limits_of_balanced_problems_are_the_frames_of_the_field():
    for bias in ("none", "free", "decayed"):
        collapse = tf.path_limits(make("9x5", bias=bias)).collapse
        assert max(collapse.distance(tf.simplex_etf(5), part) for part in PARTS) < 1e-12
    limits = tf.path_limits(make("9x5", "mse"))
    for geometry in (limits.collapse, limits.vanishing):
        distances = [geometry.distance(tf.orthogonal_frame(5), part) for part in PARTS]
        assert max(distances) < 1e-12


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"features": "nonnegative"}, 5),
        ({"loss": "mse", "depth": 2}, 6),
        ({"depth": 2}, 5),
        ({"dim": 4}, 5),
    ],
)
def test_what_has_no_known_limits_is_said(changes, least):
    message = f"path_limits needs one layer, real features and dim of at least {least}, or none"
    with pytest.raises(ValueError, match=message):
        tf.path_limits(make(**changes))
