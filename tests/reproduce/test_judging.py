"""The rule for failed runs, and where something collapses for good on a grid."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reproduce.toy_paper import problem
from tightframe.reproduce.judging import (
    Switch,
    below,
    best_by,
    best_switch,
    decided,
    first_by,
    largest,
    largest_each,
    least,
    mean_by,
    sorted_by,
    switch,
    unless_early,
    verdict,
)
from tightframe.reproduce.results import TaskResult
from tightframe.reproduce.spec import Task

FACTS = {"criterion": "c", "claimed": "d", "sentence": "A finding."}
MORE = {"predicted": 1.0, "measured": 2.0, "tolerance": None}
UNDECIDED, NO = "undecided", "not reproduced"


def runs(*values, decays=None):
    """Runs with these values; None: failed."""
    decays = decays or [1e-3] * len(values)
    task = Task("solve", {"problems": [problem(d) for d in decays]}, {"what": "x"})
    rows = [
        {"row": i, "status": "failed", "reason": "it broke"}
        if value is None
        else {"row": i, "status": "optimal", "reason": None, "value": value, "objective": value}
        for i, value in enumerate(values)
    ]
    return TaskResult(task, pd.DataFrame(rows), pd.DataFrame(), dict).runs


def value(run):
    return run.measured("value")


# -- the rule --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "holds", "outcome"),
    [
        ((1.0, 2.0), True, "reproduced"),
        ((1.0, 2.0), False, NO),
        ((1.0, 2.0), None, "not at this scale"),
        ((1.0, None), True, UNDECIDED),
        ((1.0, None), None, UNDECIDED),
        ((1.0, None), False, NO),  # what every run has to fulfil is refuted by one
        ((None, None), True, UNDECIDED),
        ((None, None), False, UNDECIDED),  # nothing is left that could refute it
        ((), True, "reproduced"),  # computed on the spot
        ((), False, NO),
    ],
)
def test_a_failed_run_is_no_evidence(values, holds, outcome):
    found = verdict(decided(runs(*values), holds), **FACTS, **MORE)
    assert found.outcome == outcome
    assert found.sentence.startswith("A finding." if values != (None, None) else "Undecided: ")
    assert ("it broke" in found.sentence) == (outcome == UNDECIDED)


def test_the_rest_refutes_only_what_it_can_refute():
    half = runs(1.0, None)
    assert decided(half, False, refuted=False).outcome == UNDECIDED
    assert decided(half[:1], False, refuted=False).outcome == NO  # nothing is missing


@given(st.lists(st.sampled_from([True, False, None]), min_size=2, max_size=4), st.data())
def test_parts_are_joined_as_if_they_were_one(parts, data):
    """Reproduced only if all parts are; refuted as soon as one is; else undecided before early."""
    lacking = [data.draw(st.booleans()) for _ in parts]
    decisions = [
        decided(runs(1.0, None if lacks else 2.0), holds)
        for holds, lacks in zip(parts, lacking, strict=True)
    ]
    joined = decisions[0]
    for other in decisions[1:]:
        joined = joined & other
    if False in parts:
        expected = NO
    elif any(lacking):
        expected = UNDECIDED
    else:
        expected = "not at this scale" if None in parts else "reproduced"
    assert joined.outcome == expected
    assert len(joined.failed) == sum(lacking)


@pytest.mark.parametrize("holds", [True, False, None])
def test_runs_that_scatter_too_much_decide_nothing(holds):
    done = runs(1.0, 2.0)
    unclear = decided(done, holds, unclear=True)
    found = verdict(unclear, **FACTS, **MORE)
    assert (found.outcome, found.sentence) == (UNDECIDED, "A finding.")
    for other, outcome in ((True, UNDECIDED), (None, UNDECIDED), (False, NO)):
        assert (unclear & decided(done, other)).outcome == outcome
        assert (decided(done, other) & unclear).outcome == outcome


def test_the_sentence_says_what_failed_and_why():
    done, lost = runs(1.0, 2.0), runs(None)
    found = verdict(decided((*done, *lost), True), **FACTS, **MORE)
    assert found.sentence == "A finding. Undecided: 1 of 3 runs failed (solve (what x): it broke)."
    told = verdict(decided((*done, *lost), True), **{**FACTS, "sentence": "It is nan."}, **MORE)
    assert told.sentence == "Undecided: 1 of 3 runs failed (solve (what x): it broke)."


@pytest.mark.parametrize(
    ("values", "measured"), [((1.0, None), "1, 2"), ((None, None), None), ((), "1, 2")]
)
def test_a_text_of_failed_runs_alone_is_no_measurement(values, measured):
    more = {**MORE, "measured": "1, 2"}
    assert verdict(decided(runs(*values), True), **FACTS, **more).measured == measured


@pytest.mark.parametrize(
    ("values", "outcome", "measured"),
    [
        ((0.1, 0.2), "reproduced", 0.2),
        ((0.1, 0.5), NO, 0.5),
        ((0.1, math.nan), NO, math.nan),
        ((0.1, None), UNDECIDED, 0.1),
        ((0.7, None), NO, 0.7),
        ((None, None), UNDECIDED, math.nan),
    ],
)
def test_below_a_limit(values, outcome, measured):
    own = runs(*values)
    found = below(largest(own, value), 0.5, own, **FACTS)
    assert (found.outcome, found.tolerance, found.predicted) == (outcome, 0.5, 0.0)
    assert found.measured == pytest.approx(measured, nan_ok=True)
    early = below(largest(own, value), 0.5, own, decidable=False, **FACTS).outcome
    assert early == (UNDECIDED if None in values else "not at this scale")


def test_numbers_of_runs_leave_out_the_failed_ones():
    own = runs(3.0, None, 1.0, 2.0, decays=[1e-3, 1e-3, 2e-3, 2e-3])
    assert (largest(own, value), least(own, value)) == (3.0, 1.0)
    assert largest_each(own, lambda run: [value(run), -value(run)]) == [3.0, -1.0]
    assert math.isnan(largest(runs(None), value))
    assert largest(own, lambda run: np.array([0.0, 10 * value(run)])) == 30.0
    assert list(sorted_by(own, lambda run: -run.decay)) == pytest.approx([-2e-3, -1e-3])
    means = mean_by(own, lambda run: run.decay, value)
    assert list(means.values()) == [3.0, 1.5]
    assert [run.number for run in first_by(own, lambda run: run.decay)] == [0, 2]


def test_the_best_run_of_every_place_decides_where_something_collapses():
    own = runs(3.0, 1.0, 2.0, 5.0, 4.0, decays=[1e-3, 1e-3, 2e-3, 3e-3, 3e-3])
    best = best_by(own, lambda run: run.decay)
    assert [value(run) for run in best.values()] == [1.0, 2.0, 4.0]
    found = best_switch(own, 3e-3, lambda run: run.decay, lambda run: value(run) == 4.0)
    assert (found.found, found.expected, found.holds) == (2, 2, True)
    own = runs(3.0, None, 2.0, 5.0, None, decays=[1e-3, 1e-3, 2e-3, 3e-3, 3e-3])
    found = best_switch(own, 3e-3, lambda run: run.decay, lambda run: value(run) == 5.0)
    assert found.possible == (2, 3)  # what failed may have been the best, and not collapsed


def test_only_a_smoke_run_may_be_too_early():
    task = Task("ufm", {"problems": [problem(1e-3)]})
    rows = pd.DataFrame([{"row": 0, "status": "stopped", "reason": None}])
    own = TaskResult(task, rows, pd.DataFrame(), dict).runs
    assert unless_early(own, False, "smoke") is None
    assert unless_early(own, True, "smoke") is True
    assert unless_early(own, False, "cpu") is False
    assert unless_early(runs(1.0), False, "smoke") is False


# -- switches --------------------------------------------------------------------------------------

states = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=7)


@given(states, st.floats(-1, 8))
def test_a_switch_is_where_collapse_stays_whatever_the_unknown_would_have_been(collapsed, limit):
    values = list(range(len(collapsed)))
    found = Switch.of(values, collapsed, limit)
    filled = [
        [next(rest) if state is None else state for state in collapsed]
        for rest in map(iter, itertools.product([True, False], repeat=collapsed.count(None)))
    ]
    alternatives = [Switch.of(values, states, limit) for states in filled]
    for one, states in zip(alternatives, filled, strict=True):
        assert all(states[one.found :])
        assert one.found == 0 or not states[one.found - 1]
    assert set(found.possible) == {one.found for one in alternatives}
    assert found.refuted == (not any(one.holds for one in alternatives))
    assert found.expected == sum(v < limit for v in values)


def test_at_the_threshold_itself_things_have_collapsed():
    for rounding in (1.0, 1 + 1e-15, 1 - 1e-15):
        assert Switch.of([1.0, 3.0, 5.0], [False, True, True], 3.0 * rounding).steps == 0
    assert Switch.of([1.0, 3.0, 5.0], [False, False, True], 3.0 * (1 + 1e-12)).steps == 0


@pytest.mark.parametrize(
    ("last", "holds"), [(0, False), (1, False), (2, True), (3, True), (4, True), (5, False)]
)
def test_one_grid_step_is_allowed(last, holds):
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert Switch.of(values, [v > last for v in values], 3.5).holds == holds


def test_a_grid_on_one_side_of_the_threshold_shows_nothing():
    for limit in (0.5, 9.0):
        found = Switch.of([1.0, 2.0], [limit < 1] * 2, limit)
        assert (found.steps, found.covered, found.holds, found.refuted) == (0, False, False, True)


def test_where_a_switch_is():
    found = Switch.of([1.0, 2.5], [False, True], 2.0)
    assert [found.interval(i) for i in range(3)] == [
        "from 1 on",
        "between 1 and 2.5",
        "nowhere up to 2.5",
    ]
    assert found.interval(1, ".2f", "{} to {}") == "1.00 to 2.50"


def test_the_worst_run_of_a_place_decides_its_state():
    decays = [1e-3, 1e-3, 2e-3, 2e-3, 3e-3, 3e-3, 4e-3, 4e-3]

    def at(*margins):
        own = runs(*margins, decays=decays)
        return switch(own, 2.5e-3, lambda run: run.decay, lambda some: largest(some, value) < 0.5)

    assert at(1, 1, 1, 1, 0, 0, 0, 0).steps == 0
    assert at(1, 1, 1, 1, 0, 0, 0, 1).steps == 2
    assert at(0, 0, 0, 0, 0, 0, 0, 0).steps == -2
    # A failed run leaves its place open, unless the other one has not collapsed there.
    assert at(1, 1, 1, 1, 0, None, 0, 0).possible == (2, 3)
    assert at(1, 1, 1, None, 0, 0, 0, 0).possible == (2,)
    assert at(0, 0, 0, None, 0, 0, 0, 0).possible == (0, 2)
    assert at(1, 1, 1, 1, 0, 0, 1, None).refuted
