from dataclasses import replace

import pytest

import tightframe as tf
from tightframe.pages.explore.state import State


def test_a_link_brings_the_state_back():
    state = State(
        counts="300x2,40x3",
        loss="mse",
        weight_decay="0.01,0.02",
        bias="free",
        depth="2",
        class_weights="",
        view="phase",
        margin="0.3",
    )
    assert State.from_query("?" + state.query()) == state
    assert State().query() == ""
    assert State.from_query("") == State()


def test_an_earlier_link_shows_what_it_showed():
    assert State.from_query("?view=path").view == State(view="path").view == "margins"


def test_the_default_is_the_problem_of_the_readme():
    expected = tf.Problem("500x5,100x5", weight_decay=5e-3, feature_decay=1e-3)
    assert State().problem() == expected
    assert State.from_problem(expected) == State()


def test_every_problem_has_a_state():
    problem = tf.Problem(
        "50x2,7",
        weight_decay=0.1 + 0.2,
        feature_decay=1e-4,
        bias="decayed",
        bias_decay=0.3,
        class_weights="balanced",
        logit_adjustment="0.5*prior",
    )
    assert State.from_problem(problem).problem() == problem
    deep = tf.Problem("9x3", "mse", weight_decay=(0.1, 0.2), feature_decay=0.3, depth=2, dim=4)
    assert State.from_problem(deep).problem() == deep


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": "500x5;100"}, r"counts: cannot read '500x5;100'"),
        ({"weight_decay": "lots"}, "weight_decay: got 'lots', need a number"),
        ({"weight_decay": ""}, "weight_decay: got '', need a number"),
        ({"bias": "decayed"}, "bias_decay: missing"),
        ({"depth": "1.5"}, "depth: got '1.5', need a whole number"),
        ({"dim": "x"}, "dim: got 'x', need a whole number"),
        ({"counts": "1," * 3000}, "counts: got 6000 characters, allowed are 4000"),
    ],
)
def test_bad_text_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(State(), **changes).problem()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?colour=red", "link: got 'colour', allowed are counts"),
        ("?view=secret", "view: got 'secret', allowed are classes"),
        ("?counts=" + "1" * 5000, "counts: got 5000 characters"),
    ],
)
def test_a_bad_link_is_named(query, message):
    with pytest.raises(ValueError, match=message):
        State.from_query(query)


def test_a_hidden_control_says_nothing():
    assert State(bias="free", bias_decay="nonsense").problem().bias_decay == 0
    assert State(margin="2", feature_decay_of="mean").wanted() == {
        "margin": 2.0,
        "feature_decay_of": "mean",
    }
