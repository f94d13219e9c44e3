"""Paths of problems with targets: against separate solves, CVXPY and differences of the optimum."""

import itertools
import json
import math

import numpy as np
import pytest

import tightframe as tf
from tests.reference.contexts import convex_minimum
from tests.test_contexts import COUNTS, TARGETS
from tightframe.theory.contexts.form import form_of

BIASES = [("none", None), ("free", None), ("decayed", 0.02)]
#: Not in order, and one beyond total collapse.
DECAYS = [0.01, 0.5, 0.002, 0.03, 0.0055]


def make(bias="none", bias_decay=None, **options):
    decays = {"weight_decay": 0.01, "feature_decay": 0.01}
    return tf.Problem(
        COUNTS, targets=TARGETS, bias=bias, bias_decay=bias_decay, **(decays | options)
    )


def both(decays):
    return {"weight_decay": decays, "feature_decay": decays}


@pytest.mark.parametrize(("bias", "bias_decay"), BIASES)
def test_points_are_certified_and_those_of_separate_solves(bias, bias_decay):
    problem = make(bias, bias_decay)
    found = tf.path(problem, **both(DECAYS), tol=1e-10)
    assert found.logit_decay == pytest.approx(DECAYS)
    for decay, point in zip(DECAYS, found.solutions, strict=True):
        alone = tf.solve(problem.replace(weight_decay=decay, feature_decay=decay), 1e-10)
        assert point.problem == alone.problem
        assert (point.status, point.rank) == ("optimal", alone.rank)
        assert point.gap <= 1e-10 * point.objective
        assert point.lower_bound <= alone.objective
        assert alone.lower_bound <= point.objective
    assert found.objective[3] == pytest.approx(
        convex_minimum(form_of(found.solutions[3].problem)), rel=3e-7
    )


def test_problems_that_symmetry_reduces_have_paths():
    """All pairs of ten labels: one orbit; the fewer numbers go from point to point."""
    rows = np.array([np.isin(np.arange(10), pair) for pair in itertools.combinations(range(10), 2)])
    problem = tf.Problem.from_label_matrix(
        np.repeat(rows, 3, axis=0), weight_decay=1e-3, feature_decay=1e-3
    )
    decays = np.geomspace(1e-3, 0.1, 6)
    found = tf.path(problem, **both(decays), tol=1e-9)
    (own,) = tf.thresholds(problem).sets
    # Labels are told apart below their threshold only, all by the same margin.
    assert found.rank.tolist() == [9 if decay < own.logit_decay else 0 for decay in decays]
    assert 0 < np.count_nonzero(found.rank) < 6
    alone = tf.solve(problem.replace(weight_decay=decays[1], feature_decay=decays[1]), 1e-11)
    assert found.objective[1] == pytest.approx(alone.objective, rel=2e-9)
    assert found.nuclear_norm[1] == pytest.approx(alone.nuclear_norm, rel=1e-4)


def test_bias_decays_are_swept_too():
    values = [0.001, 0.5, 0.02]
    found = tf.path(make("decayed", 0.02), bias_decay=values, tol=1e-9)
    assert found.objective[2] == pytest.approx(
        tf.solve(make("decayed", 0.02), 1e-11).objective, rel=2e-9
    )
    assert found.objective[1] == pytest.approx(
        convex_minimum(form_of(make("decayed", 0.5))), rel=3e-7
    )


def test_counts_are_swept():
    other = [5, 10, 20, 30, 40]
    found = tf.path(make(), counts=[COUNTS, other], tol=1e-9)
    assert found.objective[1] == pytest.approx(
        tf.solve(make().replace(counts=other), 1e-11).objective, rel=2e-9
    )


def test_the_nuclear_norm_is_how_fast_the_optimum_rises():
    decay = 0.01
    step = 1e-4 * decay
    found = tf.path(make(), **both([decay - step, decay, decay + step]), tol=1e-12)
    slope = (found.objective[2] - found.objective[0]) / (2 * step)
    assert found.nuclear_norm[1] == pytest.approx(slope, rel=1e-4)


def test_a_long_path_takes_fewer_steps_than_its_points_alone():
    rng = np.random.default_rng(0)
    targets = rng.dirichlet(np.full(12, 0.3), 20).T
    problem = tf.Problem(rng.integers(1, 90, 20), targets=targets, **dict.fromkeys(both(0), 1e-3))
    decays = np.geomspace(3e-4, 5e-3, 15)
    steps = sum(s.stats.iterations for s in tf.path(problem, **both(decays)).solutions)
    alone = sum(
        tf.solve(problem.replace(weight_decay=d, feature_decay=d)).stats.iterations for d in decays
    )
    assert 0 < steps < 0.8 * alone


def test_frame_dictionary_picture_and_words():
    found = tf.path(make(), **both([0.01, 0.5]))
    frame = found.to_frame()
    assert frame["rank"].tolist() == found.rank.tolist() == [2, 0]
    assert frame["gap"].tolist() == found.gap.tolist()
    assert frame["nuclear_norm"].tolist() == found.nuclear_norm.tolist()
    values = json.loads(json.dumps(found.to_dict()))
    assert tf.Problem(**values["points"][1]["problem"], targets=values["targets"]) == (
        found.solutions[1].problem
    )
    figure, axis = found.plot()
    assert figure is axis.figure
    assert axis.lines[0].get_ydata().tolist() == [2, 0]
    assert repr(found) == (
        "Path(2 points, weight_decay, feature_decay; objective "
        f"{found.objective[0]:.6g} to {found.objective[1]:.6g}, rank 2 to 0)"
    )
    assert "nuclear norm" in found._repr_html_()


def test_square_paths_have_them_too():
    problem = tf.Problem("100x5,10x5", weight_decay=1e-3, feature_decay=1e-3)
    found = tf.path(problem, weight_decay=[1e-3, 4e-2])
    frame = found.to_frame()
    assert len(frame) == 4
    assert frame["state"].tolist() == ["distinct", "distinct", "distinct", "merged"]
    _, axis = found.plot()
    drawn = {tuple(point) for line in axis.lines for point in line.get_xydata().tolist()}
    margins = [s.group_states.decision_margin for s in found.solutions]
    # Curves change their colour with the state, and begin at its threshold.
    places = np.repeat(found.logit_decay, 2), np.ravel(margins)
    assert set(zip(*map(np.ndarray.tolist, places), strict=True)) <= drawn
    w, h = found.solutions[0].weights[0], found.solutions[0].class_means
    cost = 1e-3 / 2 * ((w**2).sum() + (problem.counts * h**2).sum())
    assert found.nuclear_norm[0] * found.logit_decay[0] == pytest.approx(cost, rel=1e-9)
    assert math.isfinite(found.gap.max())
    assert "merged" not in repr(found)


def test_too_few_steps_are_warned_of_where_path_was_called():
    with pytest.warns(tf.NotConvergedWarning, match="solve stopped at a relative gap") as caught:
        found = tf.path(make(), weight_decay=[0.01], max_iterations=1)
    assert caught[0].filename == __file__
    assert found.solutions[0].status == "not_converged"
