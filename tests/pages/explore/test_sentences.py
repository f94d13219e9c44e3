"""Sentences, from states alone."""

import numpy as np
import pytest

import tightframe as tf
from tightframe.pages.explore.sentences import Members, Next, counts_of, sentence, who

STEP = tf.Problem("100x5,10x5", weight_decay=1, feature_decay=1)
TAIL = tf.Problem("500,400,300,200,150,100,80,50,30,10", weight_decay=1, feature_decay=1)
NONE = np.array([], dtype=int)


def of(state, *classes, taker=(), number=0):
    return Members(np.array(classes), state, np.array(taker, dtype=int), number)


COMMON = of("distinct", 0, 1, 2, 3, 4)
RARE = (5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("problem", "members", "expected"),
    [
        (STEP, [COMMON, of("distinct", *RARE)], "All 10 classes stay apart."),
        (
            STEP,
            [COMMON, of("merged", *RARE, number=1)],
            "Classes 5, 6, 7, 8, 9 have merged: they get one and the same prediction."
            " 5 of 10 are told apart.",
        ),
        (
            STEP,
            [COMMON, of("vanished", *RARE)],
            "Classes 5, 6, 7, 8, 9 have vanished: their class means are zero, the network has no "
            "opinion on them. 5 of 10 are told apart.",
        ),
        (
            STEP,
            [of("vanished", 0, 1, 2, 3, 4), of("vanished", *RARE)],
            "Everything has vanished: the network has the same answer for every input.",
        ),
        (
            TAIL,
            [of("distinct", *range(7)), *(of("lost", k, taker=[6]) for k in (7, 8, 9))],
            "Classes 7, 8, 9 are lost: their samples are taken for class 6, the rarest that is left"
            " (80 samples). 7 of 10 are told apart.",
        ),
        (
            TAIL,
            [of("distinct", *range(9)), of("lost", 9, taker=[7])],
            "Class 9 is lost: its samples are taken for class 7. 9 of 10 are told apart.",
        ),
        (
            STEP,
            [of("merged", 0, 1, 2, 3, 4), of("merged", *RARE, number=1)],
            "Classes 0, 1, 2, 3, 4 have merged, and so have classes 5, 6, 7, 8, 9. None is told "
            "apart.",
        ),
        (
            TAIL,
            [
                of("distinct", 0),
                of("lost", 1, 2, taker=[0]),
                of("merged", 3, 4),
                of("vanished", *range(5, 10)),
            ],
            "Classes 5, 6, 7, 8, 9 have vanished: their class means are zero, the network has no "
            "opinion on them. Classes 1, 2 are lost: their samples are taken for class 0, the "
            "rarest that is left (500 samples). Classes 3, 4 have merged. 1 of 10 is told apart.",
        ),
    ],
)
def test_every_state_has_its_sentence(problem, members, expected):
    assert sentence(problem, members) == expected


@pytest.mark.parametrize(
    ("upcoming", "expected"),
    [
        (Next(0.00575, np.array(RARE), "merged", False), "classes 5, 6, 7, 8, 9 merge."),
        (Next(0.00575, np.array([9]), "lost", False), "class 9 is lost."),
        (Next(0.00575, np.array([8, 9]), "vanished", False), "classes 8, 9 vanish."),
        (Next(0.00575, np.arange(10), "vanished", True), "everything vanishes."),
    ],
)
def test_what_comes_next_is_said_while_all_stay_apart(upcoming, expected):
    text = sentence(STEP, [COMMON, of("distinct", *RARE)], upcoming)
    start = "All 10 classes stay apart. Raise λ {fold}-fold, to 0.00575, and "
    assert text == start + expected
    merged = sentence(STEP, [COMMON, of("merged", *RARE)], upcoming)
    assert "Raise" not in merged


def test_classes_are_called_by_their_names_or_counted():
    named = tf.Problem("9,4,2", weight_decay=1, feature_decay=1, class_names=["ant", "bee", "cat"])
    assert who(named, np.array([2])) == "cat"
    members = [of("distinct", 0), of("lost", 1, 2, taker=[0])]
    assert sentence(named, members).startswith("bee, cat are lost: their samples are taken for ant")
    many = tf.Problem("9x100", weight_decay=1, feature_decay=1)
    assert who(many, np.arange(69, 100)) == "classes 69 to 99"
    assert who(many, np.arange(0, 100, 2)) == "50 classes"


def test_two_classes_are_both():
    pair = tf.Problem("9,4", weight_decay=1, feature_decay=1)
    assert sentence(pair, [of("distinct", 0, 1)]) == "Both classes stay apart."
    assert counts_of([of("lost", 1), of("distinct", 0)]) == {"distinct": 1, "lost": 1}
