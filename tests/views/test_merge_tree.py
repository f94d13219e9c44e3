"""Lines of classes along the decay, against the states of solutions between all changes."""

import functools
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import tightframe as tf
from tests.problems import at
from tightframe.figures.diagrams import TREE_WIDTH, s_curve
from tightframe.views import merge_tree as trees
from tightframe.views.merge_tree import chosen_classes, merge_tree

STEP, TAIL = "100x5,10x5", "500,300,100,30,10"


@functools.cache
def changes(counts, loss="cross_entropy", **terms):
    return tf.state_changes(
        tf.Problem(counts, loss, weight_decay=1e-3, feature_decay=1e-3, **terms)
    )


def heights(tree, decay):
    return [lane.at(decay)[1] for lane in tree.lanes]


@pytest.mark.parametrize(
    ("counts", "terms"),
    [
        (STEP, {}),
        (TAIL, {}),
        ("90x3,40x3,20x3,5x3", {}),
        (STEP, {"bias": "free"}),
        (STEP, {"loss": "mse", "depth": 3}),
    ],
    ids=str,
)
def test_lanes_have_the_states_of_solutions(counts, terms):
    found = changes(counts, **terms)
    tree = merge_tree(found)
    order = chosen_classes(found.problem)
    ends = [tree.low, *sorted({change.logit_decay for change in found}), tree.high]
    for low, high in pairwise(ends):
        decay = np.sqrt(low * high)
        states = tf.solve(_at(found.problem, decay)).states.state
        seen = [lane.at(decay) for lane in tree.lanes]
        assert [s[0] if s else "vanished" for s in seen] == states[order].tolist()


def _at(problem, decay):
    if problem.depth == 1:
        return at(problem, decay)
    return problem.replace(weight_decay=(decay,) * problem.depth, feature_decay=decay)


def test_distinct_merged_lost_and_vanished_are_drawn_apart():
    tree = merge_tree(changes(STEP))
    merge, vanish, end = (change.logit_decay for change in changes(STEP))
    before, cable = heights(tree, 0.5 * merge), heights(tree, merge)
    assert np.diff(before).min() > 20
    assert np.diff(cable)[5:] == pytest.approx([trees.CABLE] * 4)  # a cable of five
    assert cable[7] == before[7]  # into the middle
    assert heights(tree, 0.9 * vanish)[5:] == pytest.approx(cable[5:])
    assert [lane.ends for lane in tree.lanes[5:]] == [[(vanish, y)] for y in cable[5:]]
    assert [x for lane in tree.lanes[:5] for x, _ in lane.ends] == [end] * 5
    assert {run.state for lane in tree.lanes[:5] for run in lane.runs} == {"distinct"}

    tail = merge_tree(changes(TAIL))
    lost = {c.classes[0]: c for c in changes(TAIL) if (c.before, c.after) == ("distinct", "lost")}
    assert sorted(lost) == [2, 3, 4]
    for label, change in lost.items():
        there = heights(tail, change.logit_decay)
        below = there[label] - there[change.rival]
        assert 0 < below <= trees.UNDER + trees.TAKEN * len(lost)


def test_curves_end_exactly_at_changes():
    for counts in (STEP, TAIL):
        tree, places = merge_tree(changes(counts)), {c.logit_decay for c in changes(counts)}
        for lane in tree.lanes:
            for run in lane.runs:
                bends = [i for i in range(1, len(run.y)) if run.y[i] != run.y[i - 1]]
                assert {run.x[i] for i in bends} <= places
                assert np.diff(run.x).min() > 0
            for one, other in pairwise(lane.runs):
                assert (one.x[-1], one.y[-1]) == (other.x[0], other.y[0])


def test_lost_lanes_do_not_lie_on_each_other():
    tree = merge_tree(changes(TAIL))
    for change in changes(TAIL):
        if change.after == "lost":
            there = heights(tree, change.logit_decay)
            assert np.diff(np.sort(there)).min() > 1


def test_lines_say_what_happens():
    lines = merge_tree(changes(STEP)).changes
    assert [line.label for line in lines] == ["5 classes merge", "5 classes vanish", "all vanish"]
    assert [line.state for line in lines] == ["merged", "vanished", "vanished"]
    assert [line.row for line in lines] == [0, 1, 0]
    tail = merge_tree(changes(TAIL))
    assert [line.label for line in tail.changes] == ["4 lost", "3 lost", "2 lost", "all vanish"]
    found = changes(TAIL)
    named = found.problem.replace(class_names=["a", "b", "c", "d", "e"])
    alike = [replace(change, problem=named) for change in found]
    assert (
        merge_tree(replace(found, problem=named, changes=tuple(alike))).changes[0].label == "e lost"
    )


def test_labels_leave_each_other_room():
    tree = merge_tree(changes("90x3,40x3,20x3,5x3"))
    pixels = TREE_WIDTH / np.log(tree.high / tree.low)
    for row in (0, 1):
        own = [line for line in tree.changes if line.label and line.row == row]
        for one, other in pairwise(own):
            apart = pixels * np.log(other.value / one.value)
            assert apart > (trees.text_width(one.label) + trees.text_width(other.label)) / 2


def test_networks_and_the_decay_looked_at_are_inside():
    found = changes(STEP)
    states = ["distinct"] * 5 + ["merged"] * 5
    tree = merge_tree(found, networks=[(0.05, "A", states)], now=0.0004)
    assert tree.low < 0.0004
    assert tree.high > 0.05
    assert tree.networks[0].states == states
    with pytest.raises(ValueError, match="high: got 1e-05, need more than"):
        merge_tree(found, high=1e-5)
    # Nothing is known below.
    assert merge_tree(found, low=1e-9).low == found.lowest


def test_many_classes_have_as_many_lanes_as_fit():
    found = changes("500x700,50x300")
    tree = merge_tree(found)
    assert len(tree.lanes) <= trees.MOST_MARKS
    assert tree.changes == []
    assert f"{len(tree.lanes)} of 1000 classes" in tree.note
    assert [text for _, text in tree.captions] == ["700 classes of 500", "n=50"]
    # Siblings lie on each other: no cables.
    small = found.problem.counts[chosen_classes(found.problem)] == 50
    merged = [y for y, own in zip(heights(tree, found[0].logit_decay), small, strict=True) if own]
    assert len(set(merged)) == 1
    assert len(merged) > 50


def test_every_group_has_a_lane_if_there_are_few():
    def problem(counts):
        return tf.Problem(counts, weight_decay=1, feature_decay=1)

    groups = problem("500x700,50x297,9x3").class_groups
    assert set(groups[chosen_classes(problem("500x700,50x297,9x3"), 20)]) == {0, 1, 2}
    some = chosen_classes(problem(list(range(400, 100, -1))), 50)
    assert (some[0], some[-1], len(some)) == (0, 299, 50)
    assert np.diff(some).min() > 0


def test_a_lane_returns_where_a_class_comes_back():
    """States may change back; no problem of these tests does."""
    found = changes(STEP)
    back = replace(found.changes[1], before="vanished", after="merged", logit_decay=0.012)
    again = replace(found, changes=(*found.changes[:2], back, found.changes[2]))
    lane = merge_tree(again).lanes[6]
    assert [run.state for run in lane.runs] == ["distinct", "merged", "merged"]
    assert lane.at(0.010) is None
    assert lane.at(0.013)[0] == "merged"


def test_the_curve_is_the_picture_s():
    for t in (0.0, 0.2, 0.5, 0.9, 1.0):
        x = 1.5 * t * (1 - t) ** 2 + 1.5 * t**2 * (1 - t) + t**3
        assert s_curve(x) == pytest.approx(3 * t**2 * (1 - t) + t**3, abs=1e-9)
