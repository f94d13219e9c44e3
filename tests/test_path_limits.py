import functools
import itertools
import sys

import cvxpy as cp
import numpy as np
import pytest

import tightframe as tf
from tests.problems import at, changing, make
from tightframe.theory import thresholds as closed

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
    make("60x2,20x3", logit_scale="1x2,.6x3"),
    make("60,20x3", logit_scale="1,.6x3", feature_weights="10,30x3", bias="decayed"),
    make("60x2,20x3", logit_scale="1x2,.6x3", bias="free"),
    make("60,20x3", feature_weights="contexts", bias="free"),
    make("60,20x3", "mse", feature_weights="10,30x3"),
    make("60,20x3", "mse", feature_weights="10,30x3", bias="free"),
]
SMOOTHED = [
    make("60,20x3", label_smoothing=0.1, bias="free"),
    make("60x2,20x3", label_smoothing=0.1, logit_scale="1x2,.6x3", bias="free"),
    make("60,20x3", label_smoothing=0.1, class_margins=".1,.4x3", bias="decayed"),
]


@pytest.mark.parametrize("problem", ENDED, ids=changing)
def test_what_is_left_last_is_the_limit_at_total_collapse(problem):
    limits = tf.path_limits(problem)
    assert limits.total_collapse == pytest.approx(closed.ends(problem).total_collapse, rel=1e-12)
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
    distances = []
    for nearness in (1e-1, 1e-3, 1e-5, 1e-7):
        solution = tf.solve(at(problem, limits.total_collapse * nearness))
        assert solution.status == "optimal"
        distances.append([solution.geometry.distance(limits.vanishing, part) for part in PARTS])
    for further, nearer in itertools.pairwise(distances):
        assert all(b < max(0.9 * a, 1e-6) for a, b in zip(further, nearer, strict=True))
    assert max(distances[-1]) < (1e-5 if problem.loss == "mse" else 0.1)


@pytest.mark.parametrize("ratio", [0.01, 1, 10, 22, 40, 1000])
@pytest.mark.parametrize("counts", ["60,20x3", "60x2,20x3,9", "9x5", "500,3"])
def test_mse_with_all_decays_vanishing_in_proportion(counts, ratio):
    unit = make(counts, "mse", bias="decayed", bias_decay=ratio, decay=1)
    distances = []
    for decay in (1e-4, 1e-5, 1e-6):
        problem = at(unit, decay).replace(bias_decay=ratio * decay)
        limits = tf.path_limits(problem)
        solution = tf.solve(problem, 1e-12)
        frame = limits.vanishing_in_proportion
        distances.append([solution.geometry.distance(frame, part) for part in PARTS])
    for further, nearer in itertools.pairwise(distances):
        assert all(b < max(0.2 * a, 1e-7) for a, b in zip(further, nearer, strict=True))
    assert max(distances[-1]) < 1e-3
    if ratio <= 10:
        # That of a decay that is held is another one, far away.
        assert solution.geometry.distance(limits.vanishing, "logits") > 0.1


@pytest.mark.parametrize("problem", SMOOTHED, ids=changing)
def test_smoothed_labels_are_fitted_as_the_decays_vanish(problem):
    distances = []
    for decay in (1e-4, 1e-5, 1e-6):
        solution = tf.solve(at(problem, decay), 1e-12)
        frame = tf.path_limits(problem).vanishing
        distances.append([solution.geometry.distance(frame, part) for part in PARTS])
    for further, nearer in itertools.pairwise(distances):
        assert all(b < max(0.2 * a, 1e-7) for a, b in zip(further, nearer, strict=True))
    assert max(distances[-1]) < 1e-3


@pytest.mark.parametrize("ratio", [0.1, 1, 10])
@pytest.mark.parametrize(
    "terms",
    [
        {"label_smoothing": 0.1},
        {"label_smoothing": 0.2, "logit_scale": "1,.6x3", "class_margins": ".1,.5x3"},
        {"label_smoothing": 0.1, "feature_weights": "10,30x3"},
        {"loss": "mse", "feature_weights": "10,30x3"},
    ],
)
def test_what_fits_labels_with_a_bias_that_is_decayed_in_proportion(terms, ratio):
    unit = make("60,20x3", bias="decayed", decay=1, **terms)
    distances = []
    for decay in (1e-4, 1e-5, 1e-6):
        problem = at(unit, decay).replace(bias_decay=ratio * decay)
        limits = tf.path_limits(problem)
        solution = tf.solve(problem, 1e-12)
        frame = limits.vanishing_in_proportion
        distances.append([solution.geometry.distance(frame, part) for part in PARTS])
    for further, nearer in itertools.pairwise(distances):
        assert all(b < max(0.2 * a, 1e-5) for a, b in zip(further, nearer, strict=True))
    assert max(distances[-1]) < 1e-3
    # That of a decay that is held is another one, far away.
    assert solution.geometry.distance(limits.vanishing, "logits") > 0.05


@pytest.mark.parametrize(
    ("scale", "weights", "bias", "name"),
    [
        ("1,.6,2", "60,3,25", "none", "SELI, scaled"),
        ("1,1,1", "60,3,25", "free", "SELI, scaled"),
        ("1,3,.2", "500,40,3", "free", "max-margin direction"),
    ],
)
def test_the_direction_of_scaled_logits_is_that_of_cvxpy(scale, weights, bias, name):
    """The least nuclear norm with margins of one between scaled logits."""
    problem = make("50,20,5", bias=bias, logit_scale=scale, feature_weights=weights)
    z, b = cp.Variable((3, 3)), cp.Variable((3, 1))
    seen = cp.multiply(problem.logit_scale[:, None] @ np.ones((1, 3)), z + b @ np.ones((1, 3)))
    kept = [seen[j, j] - seen[v, j] >= 1 for j in range(3) for v in range(3) if v != j]
    kept += [] if bias == "free" else [b == 0]
    norm = cp.normNuc(z @ np.diag(np.sqrt(problem.feature_weights)))
    cp.Problem(cp.Minimize(norm), kept).solve(solver=cp.CLARABEL)
    found = tf.path_limits(problem).vanishing
    assert found.name == name
    expected = z.value / np.linalg.norm(z.value)
    assert np.allclose(found.logits / np.linalg.norm(found.logits), expected, atol=1e-4)


def test_scaled_logits_with_a_free_bias_have_a_direction_of_their_own():
    """Where the centred labels are proven not to be it."""
    problem = make("500,40,3,2", bias="free", logit_scale="1,3,.2,.7")
    limits = tf.path_limits(problem)
    assert limits.vanishing.name == "max-margin direction"
    assert limits.reason == ""
    distances = []
    for decay in (1e-4, 1e-6, 1e-8):
        geometry = tf.solve(at(problem, decay)).geometry
        distances.append([geometry.distance(limits.vanishing, part) for part in PARTS])
    for further, nearer in itertools.pairwise(distances):
        assert all(b < 0.8 * a for a, b in zip(further, nearer, strict=True))


def test_a_limit_that_no_certificate_says_is_none_in_words(monkeypatch):
    cut_short = functools.partial(tf.label_limits, max_iterations=1)
    monkeypatch.setattr(sys.modules["tightframe.path_limits"], "label_limits", cut_short)
    limits = tf.path_limits(make("500,40,3,2", bias="free", logit_scale="1,3,.2,.7"))
    assert limits.vanishing is limits.vanishing_in_proportion is None
    assert limits.reason.startswith("logit_scale with bias 'free': the max-margin direction was")


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("bias", ["none", "free"])
def test_without_a_decayed_bias_there_is_one_limit(loss, bias):
    limits = tf.path_limits(make("60,20x3", loss, bias=bias))
    assert limits.vanishing_in_proportion is limits.vanishing


def test_both_limits_of_cross_entropy_with_a_decayed_bias_are_one():
    """Reached slowly: the larger the bias decay in proportion, the nearer."""
    distances = []
    for ratio in (1, 10, 100):
        problem = make("60,20x3", decay=1e-9, bias="decayed", bias_decay=ratio * 1e-9)
        limits = tf.path_limits(problem)
        assert limits.vanishing_in_proportion is limits.vanishing
        distances.append(tf.solve(problem).geometry.distance(limits.vanishing, "means"))
    assert distances[0] > 2 * distances[1] > 2 * distances[2]
    assert distances[2] < 0.1


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
