"""What remedies do to merging and margins, and warnings of those that let classes merge earlier."""

import numpy as np
import pytest

import tightframe as tf
from tests.problems import at, make
from tightframe.advice.remedies import remedies


def test_remedies_are_compared_in_merging_and_in_margins():
    problem = make("500x5,100x5", decay=1.4e-3)
    found = {(remedy.kind, remedy.factors[1] > 1): remedy for remedy in remedies(problem)}
    scale = 0.2**0.3
    expected = {
        ("class_weights", True): 3,
        ("logit_adjustment", False): 1,
        ("label_smoothing", False): 0.9,
        ("logit_scale", False): scale,
        ("logit_scale", True): 1 / scale,
        ("feature_weights", True): 1 / scale,
    }
    for key, factor in expected.items():
        assert found[key].factors[1] == pytest.approx(factor)
    assert found["class_margins", True].factors[1] == pytest.approx(1.0496, abs=1e-3)
    for remedy in found.values():
        solution = tf.solve(remedy.problem)
        margins = [group.decision_margin for group in remedy.after.groups]
        assert np.allclose(margins, solution.group_states.decision_margin, atol=1e-6)
        place = remedy.merges[1]
        below, above = (tf.solve(at(remedy.problem, place * f)) for f in (0.999, 1.001))
        assert below.group_margins[1] > 1e-5
        assert above.group_margins[1] == 0
    assert tf.advise(problem).remedies[0].kind == "class_weights"


@pytest.mark.parametrize(
    "options", [{"loss": "mse"}, {"counts": "9x3"}, {"features": "nonnegative"}]
)
def test_nothing_is_compared_where_nothing_is_known(options):
    assert remedies(make(**options)) == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing 0.1: all classes merge at 0.9 of the decay"),
        (
            {"logit_scale": "1x5,.6x5"},
            "logit_scale 0.6: 5 classes of 100 samples merge at 0.6 of the decay",
        ),
        (
            {"feature_weights": "500x5,400x5"},
            "feature_weights 400: 5 classes of 100 samples merge at 0.5 of the decay",
        ),
        (
            {"class_margins": "0x5,-.5x5"},
            "class_margins -0.5: 5 classes of 100 samples merge at a smaller decay",
        ),
    ],
)
def test_a_remedy_that_lets_classes_merge_earlier_is_warned_of(options, said):
    problem = make("500x5,100x5", decay=1e-3, **options)
    found = tf.advise(problem).warnings
    assert said in found
    plain = tf.thresholds(make("500x5,100x5")).groups[1].merges
    assert tf.thresholds(problem).groups[1].merges < plain * (1 - 1e-6)


@pytest.mark.parametrize("options", [{}, {"logit_scale": "1x5,2x5"}, {"class_margins": "0x5,.5x5"}])
def test_others_are_not(options):
    assert tf.advise(make("500x5,100x5", decay=1e-3, **options)).warnings == []
