import itertools
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, root

import tightframe as tf
from tests.reference import extended, ufm

TEN = "500,400,300,200,150,100,80,50,30,10"


def problem(counts, **kwargs):
    return tf.Problem(counts, weight_decay=1, feature_decay=1, **kwargs)


def states_at(base, decay):
    """Return states, and the class that lost ones are taken for, by a solve of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tf.NotConvergedWarning)  # as exact as rounding lets it be
        found = tf.solve(base.replace(weight_decay=decay, feature_decay=decay), tol=1e-15).states
    return [
        (s.state, s.rival if s.state == "lost" else None)
        for s in map(found.__getitem__, range(len(found)))
    ]


def assert_changes_are_true(changes):
    places = np.array([change.logit_decay for change in changes])
    for i, change in enumerate(changes):
        # Just above the decay where the last direction vanishes a solver from afar keeps a bit.
        side = 1e-4 if change.after == "vanished" else 1e-6
        others = np.abs(places / change.logit_decay - 1)
        side = min([side, *(others[others > 1e-8] / 3)])
        below = states_at(changes.problem, change.logit_decay * (1 - side))
        above = states_at(changes.problem, change.logit_decay * (1 + side))
        for k in change.classes.tolist():
            assert below[k][0] == change.before, (i, change)
            assert above[k] == (change.after, change.rival), (i, change)


def vanishing_decay():
    """Return where the small classes of 100x5,10x5 vanish: only the large ones' contrasts are left.

    Two equations: the contrasts' gradient and that between the groups both balance the decay.
    """
    root = np.sqrt([100, 10])

    def shares(s):
        odds = np.exp([0.8 * s, -0.2 * s, 0])
        return odds / (odds @ [1, 4, 5])

    def between(s):
        own, sibling, other = shares(s)
        means = np.array([[(own + 4 * sibling - 1) / 5, 0.1], [other, 0.1 - 1 / 5]])
        return np.linalg.norm(5 * means * root, 2) / 550

    def inside(s):
        own, sibling, _ = shares(s)
        return 10 / 550 * (1 - own + sibling)

    return inside(brentq(lambda s: between(s) - inside(s), 1e-3, 10, xtol=1e-14))


def test_two_groups_have_three_changes():
    changes = tf.state_changes(problem("100x5,10x5"))
    assert [(c.classes.tolist(), c.before, c.after) for c in changes] == [
        ([5, 6, 7, 8, 9], "distinct", "merged"),
        ([5, 6, 7, 8, 9], "merged", "vanished"),
        ([0, 1, 2, 3, 4], "distinct", "vanished"),
    ]
    merge, vanish, total = (c.logit_decay for c in changes)
    assert merge == pytest.approx(np.sqrt(10) / 550, rel=1e-9)
    assert vanish == pytest.approx(vanishing_decay(), rel=1e-9)
    assert total == pytest.approx(10 / 550, rel=1e-9)
    assert_changes_are_true(changes)


def test_ten_distinct_counts_are_lost_one_by_one():
    changes = tf.state_changes(problem(TEN))
    lost = [c for c in changes if c.after == "lost" != c.before]
    assert [c.classes.tolist() for c in lost] == [[9], [8], [7], [6], [5], [4], [3], [2]]
    expected = [0.00178, 0.00307, 0.00399, 0.00502, 0.00581, 0.00708, 0.0086, 0.01038]
    assert [c.logit_decay for c in lost] == pytest.approx(expected, abs=5e-6)
    # Each is taken for the rarest class that is left; then the taker moves on.
    assert [c.rival for c in lost] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert [c.rival for c in changes.of_class(9)] == [8, 7, 6, 5, 4, 3, 2, 1, None]
    assert {c.logit_decay for c in changes if c.after == "vanished"} == {changes[-1].logit_decay}
    assert changes[-1].logit_decay == pytest.approx(0.01196, abs=5e-6)
    assert_changes_are_true(changes)
    without = tf.state_changes(problem(TEN), takers=False)
    assert [c.logit_decay for c in without if c.after == "lost"] == pytest.approx(
        [c.logit_decay for c in lost], rel=1e-9
    )
    assert len(json.dumps(changes.to_dict())) > 0
    assert len(changes.to_frame()) == sum(len(c.groups) for c in changes)
    with pytest.raises(ValueError, match="group: got 10, need 0 to 9"):
        changes.of_group(10)
    with pytest.raises(ValueError, match="label: got -1"):
        changes.of_class(-1)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"bias": "free"},
        {"bias": "decayed", "bias_decay": 0.01},
        {"loss": "mse"},
        {"loss": "mse", "bias": "free"},
        {"loss": "mse", "bias": "free", "depth": 3},
        {"loss": "mse", "bias": "decayed", "bias_decay": 0.01},
        {"features": "nonnegative"},
        {"class_weights": "balanced"},
        {"logit_adjustment": "prior"},
    ],
)
def test_states_differ_on_both_sides_of_every_change(kwargs):
    assert_changes_are_true(tf.state_changes(problem("50,40x2,20,5x2", **kwargs)))


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=6), st.sampled_from(["none", "free"]))
def test_states_around_the_changes_of_any_counts(counts, bias):
    assert_changes_are_true(tf.state_changes(problem(counts, bias=bias)))


def test_thresholds_have_every_state_and_need_no_decay():
    found = tf.thresholds(counts="100x5,10x5")
    large, small = found.groups
    assert (small.merges, small.lost) == (pytest.approx(np.sqrt(10) / 550, rel=1e-9), None)
    assert small.vanishes == pytest.approx(0.00903, abs=5e-6)
    assert (large.merges, large.lost) == (None, None)
    assert large.vanishes == pytest.approx(found.total_collapse, rel=1e-9)
    assert found.logit_decay is None
    assert (small.collapsed, small.total_samples, small.distinct_counts) == (None, None, None)
    states = [small.state_at(decay) for decay in (0.005, small.merges, 0.006, 0.01)]
    assert states == ["distinct", "merged", "merged", "vanished"]
    own = tf.thresholds(problem("100x5,10x5").replace(weight_decay=1e-2, feature_decay=1e-3))
    assert [g.merges for g in own.groups] == [g.merges for g in found.groups]
    assert own.groups[1].distinct_counts is not None


def test_with_balanced_weights_the_large_classes_are_lost_first():
    plain = [group.lost for group in tf.thresholds(counts=TEN).groups]
    weighted = [group.lost for group in tf.thresholds(counts=TEN, class_weights="balanced").groups]
    assert plain[2:] == sorted(plain[2:], reverse=True)
    assert weighted[:8] == sorted(weighted[:8])


def test_a_million_classes_in_three_groups():
    changes = tf.state_changes(problem("1000x300000,100x300000,10x400000"))
    assert changes[0].num_classes == 400_000
    assert changes[-1].after == "vanished"


def test_what_is_not_known_is_said():
    with pytest.raises(ValueError, match="depth: got 2"):
        tf.state_changes(problem("5x2", depth=2))
    with pytest.raises(ValueError, match="problem: got str"):
        tf.thresholds("5x2")
    with pytest.raises(ValueError, match="counts: missing"):
        tf.thresholds(bias="free")
    with pytest.raises(ValueError, match="bias: given with a problem"):
        tf.thresholds(problem("5x2"), bias="free")


@pytest.mark.parametrize(
    ("counts", "kwargs", "group", "words"),
    [
        # Lost to a class alone, which falls behind again before they vanish.
        (
            "25x7,21,2x3",
            {"class_weights": "balanced", "logit_adjustment": "0.25*prior"},
            0,
            ["merged", "lost", "merged", "vanished"],
        ),
        # Lost for a while, then distinct again.
        (
            "6,4x3,3",
            {"class_weights": "0.36,4.45x3,0.37", "logit_adjustment": "-0.32*prior"},
            2,
            ["lost", "distinct", "vanished"],
        ),
    ],
)
def test_states_that_are_left_again_are_told(counts, kwargs, group, words):
    asked = problem(counts, **kwargs)
    found = tf.thresholds(asked).groups[group]
    assert [state for _, state in found.changes] == words
    places = [place for place, _ in found.changes]
    for low, high, word in zip(places, places[1:], words, strict=False):
        middle = float(np.sqrt(low * high))
        at = asked.replace(weight_decay=middle, feature_decay=middle)
        assert found.state_at(middle) == word == tf.solve(at).group_states.state[group]
    assert [state for state, _, _ in found.detours] == ["lost"]


def equations_of_a_tie(counts, label, rival):
    """Return seven equations of where a class of three is taken for another, and a start for them.

    There is no bias. At full rank the gradient in X = Z D^{1/2}, on a basis of the sum-free logits,
    is minus the decay times the polar factor of X; the seventh equation is that both logits are
    equal.
    """
    n = np.array(counts, dtype=float)
    basis = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])

    def equations(unknown):
        x, decay = unknown[:6].reshape(2, 3), unknown[6] / 1000
        logits = basis.T @ x / np.sqrt(n)
        odds = np.exp(logits)
        gradient = basis @ (odds / odds.sum(axis=0) - np.eye(3)) * np.sqrt(n) / n.sum()
        values, vectors = np.linalg.eigh(x @ x.T)
        polar = (vectors / np.sqrt(values)) @ vectors.T @ x
        tie = logits[label, label] - logits[rival, label]
        return [*((gradient + decay * polar).ravel() * 100), tie]

    def start(decay):
        found = tf.solve(tf.Problem(counts, weight_decay=decay, feature_decay=decay), tol=1e-12)
        return np.r_[(basis @ found.logits * np.sqrt(n)).ravel(), decay * 1000]

    return equations, start


@pytest.mark.parametrize("counts", [[100, 60, 30], [50, 45, 20], [90, 30, 25]])
def test_a_lost_class_solves_the_equations_of_a_tie(counts):
    changes = tf.state_changes(problem(counts))
    change = next(c for c in changes if c.after == "lost" != c.before)
    label = int(change.classes[0])
    equations, start = equations_of_a_tie(counts, label, change.rival)
    found = root(equations, start(change.logit_decay * 0.98), method="hybr", tol=1e-15)
    assert np.abs(found.fun).max() < 1e-12
    assert change.logit_decay == pytest.approx(found.x[6] / 1000, rel=1e-9)


@pytest.mark.skipif(not extended.AVAILABLE, reason="long double is no longer than double here")
@pytest.mark.parametrize(
    "classes",
    [
        24,
        pytest.param(100, marks=pytest.mark.slow),  # CIFAR-100-LT, 85 groups
    ],
)
def test_decays_of_long_tails_hold_in_extended_precision(classes):
    counts = [round(500 * 100 ** (-k / (classes - 1))) for k in range(classes)]
    changes = tf.state_changes(problem(counts), takers=False)
    found = [
        c
        for c in changes
        if "lost" in (c.before, c.after) and "vanished" not in (c.before, c.after)
    ]
    assert len(found) > 0.8 * len(changes.problem.groups)
    for change in found:
        (group,) = change.groups
        for side, state in ((-1, change.before), (1, change.after)):
            decay = change.logit_decay * (1 + side * 1e-9)
            at = changes.problem.replace(weight_decay=decay, feature_decay=decay)
            margin = extended.decision_margins(at)[group]
            assert (margin < 0) == (state == "lost"), change


def states_by_definition(logits, bias):
    """Return every class's state, and its taker if it is lost, of logits known to about 1e-5."""
    spread = logits - logits.mean(axis=0)
    found = []
    for k, column in enumerate((logits + bias[:, None]).T):
        same = np.abs(logits.T - logits[:, k]).max(axis=1) < 1e-3
        apart = np.where(same, -np.inf, column)
        if np.abs(spread[:, k]).max() < 1e-3:
            found.append(("vanished", None))
        elif column[k] < apart.max():
            found.append(("lost", int(apart.argmax())))
        else:
            found.append(("merged" if same.sum() > 1 else "distinct", None))
    return found


@pytest.mark.parametrize(
    ("counts", "kwargs"),
    [
        ("30x2,6x3", {}),
        ("40,25,12,6", {}),
        ("50x2,20,4x2", {"bias": "free"}),
        ("30,9x2,4", {"bias": "decayed", "bias_decay": 0.01}),
        ("30x2,10,3", {"class_weights": "balanced"}),
        ("30,10x2,5", {"logit_adjustment": "0.5*prior"}),
        ("30x2,9x2,4", {"loss": "mse", "bias": "free"}),
    ],
)
def test_an_interior_point_solver_agrees_on_the_states(counts, kwargs):
    asked = problem(counts, **kwargs)
    changes = tf.state_changes(asked)
    places = sorted({change.logit_decay for change in changes})
    ends = [changes.lowest * 10, *(p for p in places if p > changes.lowest * 10), places[-1] * 1.2]
    looked = 0
    for low, high in itertools.pairwise(ends):
        if high < low * 1.1:
            continue  # too near for that solver
        decay = float(np.sqrt(low * high))
        at = asked.replace(weight_decay=decay, feature_decay=decay)
        _, logits, bias = ufm.convex_minimum(at)
        expected = states_by_definition(logits, bias if asked.bias != "none" else 0 * bias)
        for group in range(len(asked.groups)):
            mine = [c for c in changes.of_group(group) if c.logit_decay < decay]
            state = mine[-1].after if mine else changes.first.state[group]
            rival = mine[-1].rival if mine and state == "lost" else None
            for label in np.flatnonzero(asked.class_groups == group).tolist():
                assert expected[label][0] == state, (decay, group)
                if rival is not None:
                    taker = asked.class_groups[expected[label][1]]
                    assert taker == asked.class_groups[rival]
        looked += 1
    assert looked >= 2


def test_rounding_is_told_where_it_hides_the_place_of_a_change():
    """The last layer of fifty million classes: margins of 1e-6, losses known to 1e-16."""
    weight = 0.002440031166687077
    hidden = problem("371881134311x46,258x2,1x50308524", class_weights=f"{weight}x50308572")
    with pytest.warns(RuntimeWarning, match=r"rounding hides .* good to [0-9.]+e[+-]\d+ only"):
        changes = tf.state_changes(hidden, takers=False)
    # What is known exactly is not touched by it.
    merges = {change.logit_decay for change in changes if change.after == "merged"}
    limits = np.sqrt([258, 1]) * weight / hidden.num_samples
    for limit in limits:
        assert any(place == pytest.approx(limit, rel=1e-9) for place in merges)


def test_no_warning_where_nothing_is_hidden():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tf.state_changes(problem("500,300,200,100,50,20,10"))
