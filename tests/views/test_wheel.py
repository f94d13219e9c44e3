"""Where classes are sent, against sums over dense predictions and distances by hand."""

import numpy as np
import pytest
from scipy.special import softmax

import tightframe as tf
from tests.problems import make
from tightframe.geometry.states import measured_states
from tightframe.views import wheel as wheels
from tightframe.views.wheel import View, class_homes, sent_by_logits, sent_by_solution, wheel

STEP = "100x5,10x5"


def at(decay, counts=STEP, **terms):
    return tf.solve(tf.Problem(counts, weight_decay=decay, feature_decay=decay, **terms))


def moment(solution):
    return wheels.solution_wheel(solution).moments[0]


def angles(places):
    """Return angles clockwise from the top, in degrees."""
    return np.degrees(np.arctan2(places[:, 0], places[:, 1])) % 360


# -- homes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counts", ["7,7", "9,2", STEP, "30x3", "5,9,7", "8x3,4x2,2", "9,8,7,6,5,4"]
)
def test_homes_are_apart_on_the_rim(counts):
    homes = class_homes(make(counts))
    np.testing.assert_allclose(np.hypot(*homes.places.T), 1)
    distances = np.linalg.norm(homes.places[:, None] - homes.places, axis=2)
    k = len(homes.places)
    assert distances[~np.eye(k, dtype=bool)].min() > 2 * np.sin(np.pi / (k + 4 * wheels.ARC_GAP))
    counts = make(counts).counts[homes.order]
    assert (np.diff(counts) <= 0).all()


def test_homes_of_groups_and_rings():
    step = angles(class_homes(make(STEP)).places)
    # Ten classes and two gaps of 0.9 slots; class 2 on top, class 7 below.
    slot = 360 / 11.8
    np.testing.assert_allclose(step[:5], np.array([-2, -1, 0, 1, 2]) * slot % 360, atol=1e-9)
    np.testing.assert_allclose(np.diff(step[5:]), slot)
    assert step[7] == pytest.approx(180)
    alike = angles(class_homes(make("30x4")).places)
    np.testing.assert_allclose(alike, [0, 90, 180, 270], atol=1e-9)
    tail = angles(class_homes(make("9,5,7")).places)  # open before the largest: a slot more
    np.testing.assert_allclose(tail, [0, 180, 90], atol=1e-9)
    np.testing.assert_allclose(class_homes(make("3,9")).places, [[1, 0], [-1, 0]], atol=1e-12)


# -- places ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("bias", ["none", "free"])
@pytest.mark.parametrize("counts", ["60x2,20x3,9", "30x4", "90,50,20,8"])
def test_a_mark_is_the_mean_of_the_homes(counts, loss, bias):
    solution = tf.solve(make(counts, loss, 3e-3, bias=bias))
    homes = class_homes(solution.problem)
    z = solution.logits + solution.bias[:, None]
    shares = softmax(z, axis=0) if loss == "cross_entropy" else z + (1 - z.sum(axis=0)) / len(z)
    places = np.array(
        [sum(shares[j, k] * homes.places[j] for j in range(len(z))) for k in range(len(z))]
    )
    sent = sent_by_solution(solution, homes)
    np.testing.assert_allclose(sent.places, places, atol=1e-12)
    np.testing.assert_allclose(sent.own, np.diagonal(shares))
    again = sent_by_logits(solution.problem, solution.logits, solution.bias, solution.states, homes)
    np.testing.assert_allclose(again.places, places, atol=1e-12)
    np.testing.assert_allclose(again.cross, sent.cross, atol=1e-9)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_from_groups_as_from_dense_logits(loss, monkeypatch):
    solution = tf.solve(make("60x4,20x3,9,7", loss, 3e-3, bias="free"))
    homes = class_homes(solution.problem)
    dense = sent_by_solution(solution, homes)
    monkeypatch.setattr(wheels, "MOST_MARKS", 5)
    compact = sent_by_solution(solution, homes)
    assert compact.predictions is None
    np.testing.assert_allclose(compact.places, dense.places, atol=1e-12)
    np.testing.assert_allclose(compact.own, dense.own, atol=1e-12)


def test_several_layers_have_the_product_s_logits():
    solution = tf.solve(make("60x2,20x3", "mse", 1e-2, depth=3))
    z = solution.logits
    shares = z + (1 - z.sum(axis=0)) / len(z)
    homes = class_homes(solution.problem)
    np.testing.assert_allclose(
        sent_by_solution(solution, homes).places, shares.T @ homes.places, atol=1e-12
    )


# -- what becomes of classes, told apart -----------------------------------------------------------


def told(solution):
    """Return state, distance from the home and from the cross, and marks in one place, a class."""
    seen = moment(solution)
    places = np.array(seen.places)
    together = np.linalg.norm(places[:, None] - places, axis=2) < 1e-9
    return (
        seen.states,
        np.linalg.norm(places - class_homes(solution.problem).places, axis=1),
        np.linalg.norm(places - seen.cross, axis=1),
        together.sum(axis=1),
    )


def test_every_state_has_a_picture_of_its_own():
    states, home, cross, together = told(at(0.002))
    assert states == ["distinct"] * 10
    assert (together == 1).all()
    assert (home < 0.6).all()
    assert (cross > 0.3).all()

    states, _, cross, together = told(at(0.008))
    assert states[5:] == ["merged"] * 5
    assert together.tolist() == [1] * 5 + [5] * 5
    assert (cross[5:] > 0.03).all()  # merged is not vanished

    states, _, cross, together = told(at(0.012))
    assert states[5:] == ["vanished"] * 5
    assert (cross[5:] < 1e-9).all()
    assert (cross[:5] > 0.1).all()

    states, _, cross, together = told(at(0.0045, "500,400,300,200,150,100,80,50,30,10"))
    assert states[7:] == ["lost"] * 3
    assert (together == 1).all()
    assert (cross > 0.01).all()

    states, _, cross, together = told(at(0.03))
    assert states == ["vanished"] * 10
    assert (together == 10).all()
    assert (cross < 1e-9).all()


def test_ten_distinct_vectors_are_in_ten_places():
    """In three dimensions all lay at the origin."""
    for counts in ("100x10", STEP, "500,400,300,200,150,100,80,50,30,10"):
        solution = at(1e-4, counts)
        assert moment(solution).states == ["distinct"] * 10
        places = np.array(moment(solution).places)
        apart = np.linalg.norm(places[:, None] - places, axis=2)[~np.eye(10, dtype=bool)]
        assert apart.min() > 0.3


def test_a_bias_moves_the_cross():
    solution = at(0.01, bias="free")
    seen = moment(solution)
    assert seen.states[5:] == ["vanished"] * 5
    shares = softmax(solution.bias)
    homes = class_homes(solution.problem).places
    np.testing.assert_allclose(seen.cross, shares @ homes, atol=1e-12)
    np.testing.assert_allclose(seen.places[5:], [seen.cross] * 5, atol=1e-9)
    assert np.hypot(*seen.cross) > 0.3


def test_marks_of_squared_errors_stay_near_the_rim():
    problem = make("30x3", "mse")
    homes = class_homes(problem)
    logits = 5 * np.eye(3)
    states = measured_states(problem, logits)
    sent = sent_by_logits(problem, logits, np.zeros(3), states, homes)
    seen = wheel(problem, [View("", sent)], homes).moments[0]
    np.testing.assert_allclose(np.hypot(*np.array(seen.places).T), wheels.FARTHEST)
    np.testing.assert_allclose(angles(np.array(seen.places)), angles(homes.places), atol=1e-9)


# -- words -----------------------------------------------------------------------------------------


def test_what_is_said_of_marks():
    seen = moment(at(0.008))
    (callout,) = seen.callouts
    assert (callout.text, callout.state) == ("5 6 7 8 9 merged", "merged")
    assert callout.y < seen.places[5][1]
    assert seen.tips[0].startswith("class 0: 100 samples\ndistinct\ndecision margin")
    # Class 5 sends as much to each of its siblings as to itself.
    shares = softmax(at(0.008).logits, axis=0)[:, 5]
    assert seen.takers[5] == [(k, round(shares[5], 3)) for k in (6, 7, 8)]
    many = moment(at(0.006, "100x5,10x12"))
    assert [c.text for c in many.callouts] == ["12 classes merged"]
    lost = moment(at(0.0045, "500,400,300,200,150,100,80,50,30,10"))
    assert not lost.callouts
    assert "lost, taken for 6" in lost.tips[9]


def test_callouts_do_not_cover_marks():
    seen = moment(at(0.01, bias="free"))
    (callout,) = seen.callouts
    reach = wheels.text_width(callout.text) / wheels.RIM / 2
    for (x, y), state in zip(seen.places, seen.states, strict=True):
        assert state == "vanished" or abs(x - callout.x) > reach or abs(y - callout.y) > 0.08


def test_names_are_written_where_there_is_room():
    named = tf.Problem(
        "9,7,5", weight_decay=0.1, feature_decay=0.1,
        class_names=["American pit bull terrier", "cat", "dog"],
    )  # fmt: skip
    few = wheels.solution_wheel(tf.solve(named))
    assert few.names[1:] == ["cat", "dog"]
    assert len(few.names[0]) <= wheels.NAME_WIDTH
    assert few.named == [0, 1, 2]
    many = wheels.solution_wheel(at(1e-3, "500x50,50x50"))
    assert many.named == list(range(0, 100, 10))
    assert [text for *_, text in many.captions] == ["50 classes of 500", "50 classes of 50"]


def test_many_classes_share_marks_and_hide_no_state():
    """One class in a thousand has vanished: it is seen."""
    counts = np.r_[np.full(999, 500), 1]
    problem = tf.Problem(counts, weight_decay=1e-5, feature_decay=1e-5)
    solution = tf.solve(problem)
    drawn = wheels.solution_wheel(solution)
    assert len(drawn.names) == wheels.MOST_MARKS
    assert not drawn.joined
    seen = drawn.moments[0]
    assert seen.states.count("distinct") == wheels.MOST_MARKS - 1
    assert seen.states[-1] == str(solution.states.state[-1]) != "distinct"
    assert seen.tips[-1].startswith("5 classes of 1 to 500 samples\n1 ")
    assert "200 marks for 1000 classes" in drawn.note


def test_classes_without_samples_have_no_mark():
    solution = at(0.002)
    sent = sent_by_solution(solution, class_homes(solution.problem))
    sent.states.state[3] = "absent"
    assert wheel(solution.problem, [View("", sent)]).moments[0].states[3] == ""


def test_label_distributions_have_no_wheel():
    problem = make("9x3", targets=np.full((3, 3), 1 / 3))
    with pytest.raises(ValueError, match="targets: a wheel needs one class a context"):
        wheels.wheel(problem, [])


@pytest.mark.parametrize("counts", [STEP, "500,400,300,200,150,100,80,50,30,10"])
def test_marks_in_one_place_share_their_prediction(counts):
    """A plane can't hold nine dimensions; of ten classes it shows no two that differ as one."""
    for decay in np.geomspace(1e-3, 9e-3, 7):
        solution = at(decay, counts)
        shares = softmax(solution.logits, axis=0)
        apart = np.abs(shares[:, :, None] - shares[:, None, :]).sum(axis=0) / 2
        places = np.array(moment(solution).places)
        pixels = wheels.RIM * np.linalg.norm(places[:, None] - places, axis=2)
        assert apart[pixels < 6].max() < 0.1


def test_many_moments_say_less():
    solution = at(0.002)
    homes = class_homes(solution.problem)
    view = View("", sent_by_solution(solution, homes))
    few, many = (wheel(solution.problem, [view] * n, homes).moments[0] for n in (2, 600))
    assert len(few.tips) == len(few.takers) == 10
    assert (many.tips, many.takers) == ([], [])
    assert many.places == few.places
