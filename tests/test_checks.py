"""Numbers as arrays, tensors and half floats, wherever a number or one a class is asked for."""

import re
import warnings

import numpy as np
import pytest
import torch

import tightframe as tf
from tightframe.checks import number_of
from tightframe.data import step_counts
from tightframe.problem.labels import label_counts

DECAYS = {"weight_decay": 0.125, "feature_decay": 0.25}
PLAIN = tf.Problem("50,20", **DECAYS)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def without_axes(value):
    """Return all forms of one number."""
    return [
        np.array(value),
        np.float16(value),
        np.array(value, np.float32),
        torch.tensor(value),
        torch.tensor(value, dtype=torch.bfloat16),
        torch.tensor(value, requires_grad=True),
    ]


@pytest.mark.parametrize("form", range(6))
def test_decays_without_axes_are_numbers(form):
    weight, feature, bias = (without_axes(x)[form] for x in (0.125, 0.25, 0.5))
    assert tf.Problem("50,20", weight_decay=weight, feature_decay=feature) == PLAIN
    decayed = tf.Problem("50,20", bias="decayed", bias_decay=bias, **DECAYS)
    assert decayed.bias_decay == 0.5
    assert tf.Problem.from_no_half("50,20", weight_decay=weight / 2, feature_decay=feature / 2) == (
        PLAIN
    )
    assert PLAIN.replace(weight_decay=weight) == PLAIN


def test_one_decay_a_layer_in_a_tensor():
    deep = tf.Problem("50,20", weight_decay=[0.5, 0.25], feature_decay=0.25, depth=2)
    for given in (np.array([0.5, 0.25], np.float16), torch.tensor([0.5, 0.25], requires_grad=True)):
        assert deep.replace(weight_decay=given) == deep


@pytest.mark.parametrize("whole", [np.array(2), torch.tensor(2), np.int8(2)])
def test_whole_numbers_without_axes(whole):
    problem = tf.Problem("50,20", depth=whole, dim=whole, **DECAYS)
    assert (problem.depth, problem.dim) == (2, 2)
    assert step_counts(whole, 50, ratio=np.array(2.5)) == step_counts(2, 50, ratio=2.5)


@pytest.mark.parametrize(
    "value", [np.array(True), np.array("x"), np.array(None), torch.tensor(1j), torch.tensor(True)]
)
def test_what_is_no_number_is_refused_without_axes_too(value):
    for name in DECAYS:
        with pytest.raises(ValueError, match=f"{name}: got"):
            tf.Problem("50,20", **DECAYS | {name: value})


def test_a_tensor_without_data_is_refused():
    with pytest.raises(ValueError, match="weight_decay: got tensor"):
        PLAIN.replace(weight_decay=torch.tensor(1.0, device="meta"))


@pytest.mark.parametrize("value", [np.array(0.1), torch.tensor(0.1)])
def test_one_number_is_no_sequence(value):
    with pytest.raises(ValueError, match=r"weight_decay: got .* need a sequence"):
        tf.path(PLAIN, weight_decay=value)
    for name in ("class_weights", "logit_adjustment"):
        with pytest.raises(ValueError, match=rf"{name}: got .* need one number a class"):
            PLAIN.replace(**{name: value})
    with pytest.raises(ValueError, match="counts: got"):
        tf.Problem(value, **DECAYS)
    with pytest.raises(ValueError, match="labels: got"):
        label_counts(value)


HALVES = [np.float16, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("half", HALVES)
def test_half_floats_count(half):
    make = np.array if half is np.float16 else torch.tensor
    assert tf.Problem(make([50, 20], dtype=half), **DECAYS) == PLAIN
    weighted = PLAIN.replace(class_weights=make([1, 2], dtype=half))
    assert weighted.class_weights.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"counts: class 1 has count 0\.5"):
        tf.Problem(make([50, 0.5], dtype=half), **DECAYS)


@pytest.mark.parametrize(
    "labels", [np.array([0, 1, 1], np.float16), torch.tensor([0.0, 1, 1]).half()]
)
def test_half_floats_are_labels(labels):
    assert label_counts(labels).tolist() == [1, 2]
    with pytest.raises(ValueError, match="labels: sample 0 has nan"):
        label_counts(labels * np.nan)


def test_counts_in_a_tensor_with_a_gradient():
    assert tf.Problem(torch.tensor([50.0, 20.0], requires_grad=True), **DECAYS) == PLAIN


def test_a_weighted_mean_needs_weights():
    with pytest.raises(ValueError, match="class_weights: missing; a weighted mean needs them"):
        tf.Problem.from_weighted_mean("50,20", **DECAYS)


PER_CLASS = ["class_weights", "logit_adjustment", "class_margins", "logit_scale", "feature_weights"]


@pytest.mark.parametrize("name", PER_CLASS)
@pytest.mark.parametrize(
    "value",
    [
        np.ma.array([1.0, 2.0], mask=[False, True]),
        np.ones((2, 1)),
        np.array([1, 2], "datetime64[s]"),
        ((1.0, 3), (2.0, -1)),
        ((1.0, 1.5), (2.0, 0.5)),
        (("a", 2),),
        ((1.0,), (2.0,)),
        ((True, 2),),
    ],
)
def test_numbers_a_class_are_refused_in_one_line(name, value):
    """What a mask hides is not a number, and pairs are not what was read before."""
    with pytest.raises(ValueError, match=rf"^{name}: [^\n]*$"):
        tf.Problem("50,20", **{name: value}, **DECAYS)


def test_masked_numbers_are_none():
    with pytest.raises(ValueError, match=r"^label_smoothing: got masked"):
        tf.Problem("50,20", label_smoothing=np.ma.masked, **DECAYS)
    with pytest.raises(ValueError, match=r"^counts: class 1 has count nan"):
        tf.Problem(np.ma.array([50, 20], mask=[0, 1]), **DECAYS)
    with pytest.raises(ValueError, match=r"^logits: entries must be finite"):
        tf.certify(PLAIN, np.ma.array(np.eye(2), mask=np.eye(2)))
    kept = tf.Problem(np.ma.array([50, 20], mask=[0, 0]), **DECAYS)
    assert kept == PLAIN


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 classes"), (1, "1 class"), (2, "2 classes"), (151, "151 classes")]
)
def test_numbers_agree_with_their_nouns(number, words):
    assert number_of(number, "class", "classes") == words
    assert number_of(np.int64(number), "class", "classes") == words


def test_a_group_of_one_is_told_as_one():
    found = tf.advise(tf.Problem("100x5,1", weight_decay=0.05, feature_decay=0.05))
    text = "\n".join(str(block) for block in found._blocks() if isinstance(block, str))
    assert not re.search(r"\b1 (classes|samples|groups)\b|\b1 class .{0,20}\bare\b", text)
    assert repr(tf.path(found.problem, weight_decay=[0.05])).startswith("Path(1 point, ")
