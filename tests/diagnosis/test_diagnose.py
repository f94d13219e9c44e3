"""The assembled answer: its order, its words, its dict; from a layer and from a model."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.utils.data import DataLoader, TensorDataset

import tightframe as tf
from tests.diagnosis.conftest import digits
from tightframe.diagnosis.diagnose import diagnose
from tightframe.heads import LastLayer


def text_of(found, width=100):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(found)
    return " ".join(capture.get().split())


def test_the_answer_comes_in_its_order(lost):
    found = diagnose(lost, weight_decay=5e-2, at_weight_decay=[1e-1], layers=3)
    text = text_of(found)
    places = [
        text.index(words)
        for words in (
            "5 of 10 classes are lost",
            "Classes, worst first",
            "What the head alone can do",
            "What to do",
            "another weight decay would do",
            "Theory: the unconstrained feature model",
            "does not describe this network",
        )
    ]
    assert places == sorted(places)
    for label in "56789":
        assert f"{label} for " in found.headline
    assert "nothing to change" not in text
    assert "safety" not in text.partition("Theory:")[2].partition("does not describe")[0]
    assert "html" not in repr(found)
    assert "<table>" in found._repr_html_()


def test_what_is_done_is_told_in_its_order(lost):
    said = []
    diagnose(lost, weight_decay=5e-2, at_weight_decay=1e-1, layers=3, progress=said.append)
    assert said == [
        "what another weight decay would do",
        "what the head answers",
        "whether the head is at its optimum",
        "fitting a head with logit adjustment",
        "fitting a balanced head",
        "what the network does with every class",
        "what the theory says",
    ]
    with pytest.raises(ValueError, match="progress: got 3, need a function, or None"):
        diagnose(lost, progress=3)


def test_everything_is_in_the_dict(lost):
    found = json.loads(json.dumps(diagnose(lost, weight_decay=5e-2).to_dict()))
    assert {row["label"] for row in found["classes"] if row["accuracy_state"] == "lost"} == set(
        range(5, 10)
    )
    assert found["head"]["suboptimality"] < 0.01
    assert found["remedies"]["advised"][0]["evidence"]["id"] == (
        "some lost: smaller decay + logit adjustment"
    )
    assert found["theory"]["describes"] is False
    assert found["larger_decay"] is None
    assert any("does not describe this network" in warning for warning in found["warnings"])
    assert "safety" not in found
    assert "largest_decay" not in found


def test_where_theory_holds_its_advice_has_the_keys_it_always_had():
    problem = tf.Problem("40x3,6x3", weight_decay=2e-2, feature_decay=1e-3)
    solution = tf.solve(problem)
    labels = np.repeat(np.arange(6), problem.counts)
    layer = LastLayer.of(solution.class_means.T[labels], labels, solution.weights[0])
    found = diagnose(layer)
    advice = tf.advise(found.theory.calibration.problem).to_dict()
    assert set(advice) <= set(found.to_dict())
    assert "as predicted" in text_of(found)
    # Six samples a class say little of held-out ones, whatever the theory says.
    assert found.theory.advice.met
    assert "nothing to change" not in text_of(found)


def test_no_class_is_lost_and_none_has_few_samples():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 150)
    layer = LastLayer.of(np.eye(2)[labels] + 0.1 * rng.normal(size=(300, 2)), labels, np.eye(2))
    text = text_of(diagnose(layer))
    assert "No class is lost" in text
    assert "What may still help" in text


def test_a_model_is_asked_in_one_line(lost_model, lost):
    data = digits()
    loader = DataLoader(
        TensorDataset(torch.from_numpy(data.train_inputs), torch.from_numpy(data.train_labels)), 200
    )
    names = [f"digit {k}" for k in range(10)]
    found = tf.advise(lost_model, loader, head="4", weight_decay=5e-2, class_names=names)
    expected = diagnose(LastLayer.of(*vars_of(lost), class_names=names), weight_decay=5e-2)
    assert [row.name for row in found.classes] == [row.name for row in expected.classes]
    assert found.head.suboptimality == pytest.approx(expected.head.suboptimality, abs=1e-4)
    assert "digit 9 for digit" in found.headline


def vars_of(layer):
    return layer.features, layer.labels, layer.weight, layer.bias


def test_absent_classes_are_rivals_and_the_rest_is_said(kept):
    weight = np.vstack([kept.weight, np.zeros((1, kept.weight.shape[1]))])
    bias = np.append(kept.bias, 50.0)
    found = diagnose(LastLayer.of(kept.features, kept.labels, weight, bias))
    assert len(found.classes.lost) == 10
    assert {row.rival for row in found.classes} == {10}
    assert not found.theory.describes
    assert "classes without samples" in text_of(found)
    assert "know no samples of the absent classes" in text_of(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_weight_decay": 0.1, "layers": 3}, "weight_decay: missing"),
        ({"at_weight_decay": 0.1, "layers": 3, "weight_decay": 0}, "weight_decay: got 0"),
        ({"at_weight_decay": -1, "layers": 3, "weight_decay": 1}, "at_weight_decay: got -1"),
        ({"layers": 3}, "layers: given without at_weight_decay"),
        ({"problem": 3}, "problem: got int, need a tightframe.Problem"),
        ({"bias": "decaying"}, "bias: got 'decaying', allowed are"),
        ({"loss": "hinge"}, "loss: got 'hinge'"),
        ({"margin": 0}, "margin: got 0"),
        ({"margin": 1, "angle": 60}, "margin, angle: got both"),
        ({"angle": 100}, "angle: got 100, need less than 90 degrees"),
        ({"feature_decay_of": "all"}, "feature_decay_of: got 'all'"),
    ],
)
def test_bad_options_are_named(kept, options, message):
    with pytest.raises(ValueError, match=message):
        diagnose(kept, **options)


def test_a_mistyped_option_is_none_of_another_question(kept):
    for known in ({}, {"at_weight_decay": 0.1, "layers": 3, "weight_decay": 0.1}):
        with pytest.raises(TypeError, match="unexpected keyword argument 'weihgt_decay'"):
            diagnose(kept, weihgt_decay=0.1, **known)


def test_names_by_label_are_read_by_label(kept):
    names = {k: f"class {k}" for k in reversed(range(10))}
    layer = LastLayer.of(*vars_of(kept), class_names=names)
    assert [layer.name(k) for k in range(10)] == [f"class {k}" for k in range(10)]


def test_what_advise_takes():
    with pytest.raises(ValueError, match="problem: got list, need a tightframe"):
        tf.advise([1, 2])
    with pytest.raises(ValueError, match="loader: missing"):
        tf.advise(torch.nn.Linear(2, 2))
    problem = tf.Problem("5x2", weight_decay=1e-2, feature_decay=1e-2)
    with pytest.raises(ValueError, match="loader: given with a Problem"):
        tf.advise(problem, [])


def test_the_picture_has_the_accuracies_of_every_class(lost):
    found = diagnose(LastLayer.of(*vars_of(lost), held_out=held(), class_names=list("abcdefghij")))
    figure, axes = found.plot()
    assert axes.figure is figure
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == [f"{row.name} ({row.count})" for row in found.classes]
    widths = [bar.get_width() for bar in axes.patches]
    training = [row.accuracy for row in found.classes]
    assert widths == training + [row.held_out_recall for row in found.classes]


def held():
    """Return samples of every class that differ from the training's."""
    rng = np.random.default_rng(0)
    return rng.random((40, 64)), np.repeat(range(10), 4)


def test_one_class_alone_is_refused(kept):
    own = kept.labels == 3
    layer = LastLayer.of(kept.features[own], kept.labels[own], kept.weight, kept.bias)
    with pytest.raises(ValueError, match="labels: 1 of 10 classes have samples"):
        diagnose(layer)
