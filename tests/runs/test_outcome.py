"""How a run ended, in words: what differs from the theory is never passed over."""

from types import SimpleNamespace

import numpy as np
import pytest

import tightframe as tf
from tightframe.runs.outcome import accuracy_text, ending_of, outcome, who


def setting(problem, agrees=True, accuracy=None, *, logits=None, status="optimal", **verdict):
    """A finished setting whose network is the prediction, or has other logits."""
    solution = tf.solve(problem)
    logits = solution.logits if logits is None else logits
    k = problem.num_classes
    final = {"logits": logits, "bias": np.zeros(k), "weight": np.eye(k)}
    if accuracy is not None:
        # A test sample of class k is answered 0 where it is not right.
        n = 100
        right = np.rint(n * np.asarray(accuracy)).astype(int)
        labels = np.repeat(np.arange(k), n)
        answers = np.concatenate(
            [np.where(np.arange(n) < r, i, i == 0) for i, r in enumerate(right)]
        )
        final |= {"held_out_features": np.eye(k)[answers], "held_out_labels": labels}
    groups = [
        {"members": np.flatnonzero(problem.class_groups == i), "agrees": agrees} | verdict
        for i in range(len(problem.groups))
    ]
    return SimpleNamespace(
        problem=problem,
        final=final,
        classes=None,
        history=None,
        on_text=False,
        finished=True,
        name="x",
        prediction={"status": status, "gap": 0.0},
        result={"verdicts": groups},
    )


def run(*settings, more=0):
    unfinished = SimpleNamespace(problem=None, final=None, finished=False, on_text=False)
    return SimpleNamespace(settings=(*settings, *[unfinished] * more))


def problem(decay=0.002, counts="100x5,10x5", **terms):
    return tf.Problem(counts, weight_decay=10 * decay, feature_decay=decay / 10, **terms)


RARE = [1.0] * 5


def test_the_demo():
    apart = setting(problem(), accuracy=[*RARE, 0.7, 0.9, 0.8, 0.6, 0.85])
    merged = setting(problem(0.008), accuracy=[*RARE, 0.1, 0, 0.05, 0, 0.1])
    assert outcome(run(apart, merged)) == (
        "Both networks ended where the theory said. At λ = 0.002 all ten classes stay apart; at "
        "λ = 0.008 the five rare ones merge, and their test accuracy falls from 77.0 % to 5.0 %."
    )
    assert outcome(run(merged, apart)) == outcome(run(apart, merged))
    assert accuracy_text(ending_of(apart)) == "100.0 % of the common, 77.0 % of the rare classes"


def test_what_is_not_as_predicted_comes_first():
    apart = tf.solve(problem()).logits
    wrong = setting(problem(0.008), False, logits=apart, predicted="merged", measured="distinct")
    wrong.result["verdicts"][0] |= {"agrees": True}
    right = setting(problem())
    said = outcome(run(right, wrong))
    assert said.startswith(
        "One of two networks did not end where the theory said: at λ = 0.008. One of two networks "
        "ended where the theory said."
    )
    assert "at λ = 0.008 all ten classes stay apart (predicted: the five rare ones merged)" in said
    alone = outcome(run(wrong))
    assert alone.startswith("The network did not end where the theory said.")
    assert outcome(run(wrong, setting(problem(), False))).startswith("Neither of two networks")


def test_an_objective_far_above_its_minimum_is_told_before_the_classes():
    def at(decay, share, agrees=False):
        one = setting(problem(decay), agrees, predicted="distinct", measured="distinct")
        one.prediction["lower_bound"] = 0.5
        one.result["last"] = {"excess": 0.5 * share}
        return one

    said = outcome(run(at(0.002, 0.67)))
    assert said.startswith(
        "The network did not end where the theory said. The objective ended 67 % above the "
        "certified minimum: training is not done, or is stuck. At"
    )
    said = outcome(run(at(0.002, 0.67), at(0.003, 0.2)))
    assert "ended 67 % (λ = 0.002) and 20 % (λ = 0.003) above" in said
    for quiet in (at(0.002, 0.67, agrees=True), at(0.002, 0.001)):
        assert "objective" not in outcome(run(quiet))


def test_one_rare_class_is_one():
    one = setting(problem(counts="100,10"), accuracy=[1.0, 0.8])
    assert accuracy_text(ending_of(one)) == "100.0 % of the common, 80.0 % of the rare class"


def test_groups_of_which_the_same_was_predicted_are_told_together():
    one = setting(problem(), False, logits=np.zeros((10, 10)), predicted="distinct", measured="x")
    assert "vanish (predicted distinct)." in outcome(run(one))
    logits = tf.solve(problem()).logits.copy()
    logits[:, [0, 7]] = 0
    one = setting(problem(), False, logits=logits, predicted="distinct", measured="x")
    assert "classes 0 and 7 vanish (predicted: all ten classes distinct)." in outcome(run(one))


def test_other_numbers_than_predicted_are_named():
    differs = ["decision margin", "sibling margin", "size"]
    off = setting(problem(), False, predicted="distinct", measured="distinct", differs=differs)
    assert "stay apart as predicted, but with other margins and size." in outcome(run(off))


def test_open_verdicts_missing_networks_and_certificates_are_told():
    near = setting(problem(), None)
    assert "is open, see the verdicts" in outcome(run(near))
    assert (
        "of one of two networks it is open" in outcome(run(near, setting(problem(0.003)))).lower()
    )
    loose = setting(problem(), status="not_converged")
    assert "The prediction at λ = 0.002 is not certified." in outcome(run(loose))
    assert "Two of three networks are not trained to the end." in outcome(run(near, more=2))
    assert outcome(run(more=1)) == "No network is trained to the end yet."
    before = setting(problem())
    before.result = {}
    assert "is open" in outcome(run(before))


def test_classes_that_samples_lose_are_told_though_their_means_are_apart():
    weak = setting(problem(), accuracy=[*RARE, 0.7, 0.3, 0.8, 0.6, 0.85])
    said = outcome(run(weak))
    assert "fewer than half of the test samples are right of class 6 at λ = 0.002." in said
    assert "Test accuracy: 100.0 % of the common, 65.0 % of the rare classes." in said


def test_lost_classes_and_vanished_ones():
    logits = 3 * np.eye(5)
    logits[1, [3, 4]] = 4
    one = problem(0.001, "500,300,100,50,20")
    lost = setting(one, False, [1, 0.9, 1, 0, 0.5], logits=logits, predicted="distinct")
    for verdict in lost.result["verdicts"]:
        verdict["measured"] = "distinct"
    lost.result["verdicts"][3] |= {"measured": "lost"}
    assert outcome(run(lost)) == (
        "The network did not end where the theory said. At λ = 0.001 classes 3 and 4 are lost, "
        "taken for class 1 (predicted: class 3 distinct), their test accuracy 25.0 %."
    )
    gone = setting(problem(0.05))
    assert "at λ = 0.05 all ten classes vanish." in outcome(run(gone)).lower()


def test_networks_of_one_kind_are_told_together():
    many = [setting(problem(decay)) for decay in (0.001, 0.002, 0.003, 0.007, 0.008)]
    said = outcome(run(*many))
    assert "All five networks ended" in said
    assert "At λ = 0.001 to 0.003 all ten classes stay apart" in said
    assert "at λ = 0.007 to 0.008 the five rare ones merge" in said


@pytest.mark.parametrize(
    ("counts", "classes", "expected"),
    [
        ("100x5,10x5", range(10), "all ten classes"),
        ("9x2", range(2), "both classes"),
        ("100x5,10x5", range(5, 10), "the five rare ones"),
        ("100x5,10x5", range(5), "the five common ones"),
        ("100x5,10", [5], "the rare one"),
        ("100x5,10x5", [7], "class 7"),
        ("100x5,10x5", [0, 7], "classes 0 and 7"),
        ("500,300,100,50,20,10", [2, 3, 4, 5], "the four rarest"),
        ("500,300,100,50,20,10", [0, 3, 4, 5], "four of six classes"),
        ("9x30", range(14), "14 of 30 classes"),
        ("50x5,20x6,9x3", range(5, 11), "the six of 20 samples"),
    ],
)
def test_classes_have_a_name_together(counts, classes, expected):
    one = problem(counts=counts)
    mask = np.isin(np.arange(one.num_classes), list(classes))
    assert who(one, mask) == expected


def test_named_classes_keep_their_names():
    one = problem(counts="9x3", class_names=["cat", "dog", "deer"])
    assert who(one, np.array([True, False, True])) == "cat and deer"
