"""Smooth stretches of the decay, against solves of their own."""

import itertools
import math

import numpy as np
import pytest

import tightframe as tf
from tests.problems import at
from tightframe import changes as found_changes
from tightframe.geometry.blocks import Partition
from tightframe.geometry.states import group_gaps
from tightframe.solvers.crossings import crossings
from tightframe.solvers.starts import Factors
from tightframe.solvers.stretches import TOLERANCE, trace

TAIL = "500,300,200,100,50,20,10"


def solved(problem, decay):
    return tf.solve(at(problem, decay), tol=1e-13).averaged()


def traced(problem, low, high):
    first = solved(problem, low)
    start = Factors.balanced(first.blocks, first.group_bias)
    return list(trace(problem, Partition.coarsest(problem), start, math.log(low), math.log(high)))


@pytest.mark.parametrize("bias", ["none", "free"])
def test_polynomials_are_minimisers_between_their_nodes(bias):
    problem = tf.Problem(TAIL, bias=bias, weight_decay=1, feature_decay=1)
    stretches = traced(problem, 1e-3, 1e-2)
    assert stretches[-1].high == pytest.approx(math.log(1e-2))
    assert len(stretches) > 3
    for one, other in itertools.pairwise(stretches):
        assert (one.high, one.rank) >= (other.low, other.rank)
    apart = ~np.eye(len(problem.groups), dtype=bool)
    for stretch in stretches:
        time = stretch.low + 0.37 * (stretch.high - stretch.low)
        found = solved(problem, math.exp(time))
        expected = group_gaps(found.blocks, found.group_bias)
        (gaps,) = stretch.gaps(np.array([time]))
        # Where nobody's state changes less is asked for.
        near = max(10 * TOLERANCE, 0.1 * gaps.min())
        np.testing.assert_allclose(gaps[apart], expected[apart], atol=near)
        column = stretch.column(1)(time)
        np.testing.assert_allclose(column, gaps[:, 1], rtol=1e-8, atol=1e-10)


def test_crossings_are_ties():
    problem = tf.Problem(TAIL, weight_decay=1, feature_decay=1)
    looked = 0
    for stretch in traced(problem, 1e-3, 1e-2):
        for crossing in crossings(stretch, takers=True):
            found = solved(problem, math.exp(crossing.time))
            gaps = group_gaps(found.blocks, found.group_bias)[:, crossing.group]
            gaps[crossing.group] = np.inf
            assert crossing.difference(gaps) == pytest.approx(0, abs=1e-4)
            looked += 1
    assert looked >= 10


def test_places_of_many_groups_are_those_of_solves(monkeypatch):
    problem = tf.Problem(TAIL, weight_decay=1, feature_decay=1)
    exact = tf.state_changes(problem)
    monkeypatch.setattr(found_changes, "FEW_GROUPS", 2)  # takers' changes stay as polynomials say
    rough = tf.state_changes(problem)
    assert [(c.groups, c.before, c.after, c.rival) for c in rough] == [
        (c.groups, c.before, c.after, c.rival) for c in exact
    ]
    places = [[c.logit_decay for c in changes] for changes in (rough, exact)]
    np.testing.assert_allclose(*places, rtol=1e-5)


def test_where_stretches_fail_points_are_compared(monkeypatch):
    problem = tf.Problem(TAIL, weight_decay=1, feature_decay=1)
    expected = tf.state_changes(problem)
    monkeypatch.setattr(found_changes.stretches, "trace", lambda *_: [])
    scanned = tf.state_changes(problem)
    assert [(c.groups, c.before, c.after, c.rival) for c in scanned] == [
        (c.groups, c.before, c.after, c.rival) for c in expected
    ]
    places = [[c.logit_decay for c in changes] for changes in (scanned, expected)]
    np.testing.assert_allclose(*places, rtol=1e-9)


def test_a_taker_that_changes_where_a_mean_crosses_zero_changes_once():
    """All gaps of that class are zero there, with one root a polynomial."""
    problem = tf.Problem(
        [2749664, 1229810, 16528499],
        class_margins=[1.0, 0.0, 0.0],
        class_weights="balanced",
        weight_decay=1,
        feature_decay=1,
    )
    changes = tf.state_changes(problem)
    (place,) = [c.logit_decay for c in changes if c.before == c.after]
    for side, rival in ((1 - 1e-4, 1), (1 + 1e-4, 0)):
        states = solved(problem, side * place).group_states
        assert (states.state[2], states.rival[2]) == ("lost", rival)
    assert [(c.before, c.after, c.rival) for c in changes.of_group(2)] == [
        ("distinct", "lost", 1),
        ("lost", "lost", 0),
        ("lost", "vanished", None),
    ]
    without = tf.state_changes(problem, takers=False).of_group(2)
    assert [(c.before, c.after) for c in without] == [("distinct", "lost"), ("lost", "vanished")]


def test_takers_that_are_tied_do_not_change():
    """Two classes of other weights take alike here, and rounding alone tells them apart."""
    problem = tf.Problem(
        [10, 11, 11, 11, 11],
        "mse",
        bias="free",
        class_weights=[2.0, 0.5, 2.0, 1.0, 1.0],
        weight_decay=1,
        feature_decay=1,
    )
    changes = tf.state_changes(problem)
    (lost, *rest) = changes.of_group(1)
    assert (lost.before, lost.after) == ("distinct", "lost")
    for decay in lost.logit_decay * np.array([1.01, 1.05, 1.1]):
        found = solved(problem, decay)
        gaps = group_gaps(found.blocks, found.group_bias)[:, 1]
        assert gaps[2] == pytest.approx(gaps[3], abs=1e-6)
    assert [change.after for change in rest] == ["vanished"]
