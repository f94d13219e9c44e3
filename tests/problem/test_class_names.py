"""Classes have names: where these come from, and labels that are names."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import tightframe as tf
from tests.metrics.samples import quick
from tightframe.problem.class_names import class_names_of, indexed, listed, shown_names
from tightframe.problem.labels import class_counts
from tightframe.problem.scripts import described_problem

DECAYS = {"weight_decay": 5e-3, "feature_decay": 1e-3}
NAMES = ("cat", "dog", "eel")


@pytest.mark.parametrize(
    "given",
    [
        ["cat", "dog", "eel"],
        np.array(NAMES),
        {0: "cat", 2: "eel", 1: "dog"},  # id2label of Hugging Face
        {"1": "dog", "0": "cat", "2": "eel"},  # and as JSON has it
        {"eel": 2, "cat": 0, "dog": 1},  # class_to_idx of torchvision
        "cat, dog,eel",
        np.array(NAMES, "S"),  # as some files have it
    ],
)
def test_names_come_in_many_forms(given):
    assert class_names_of(given) == NAMES


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "cat\ndog\r\neel\n"),
        ("a.json", json.dumps(NAMES)),
        ("a.json", json.dumps({"id2label": {"0": "cat", "1": "dog", "2": "eel"}, "layers": 3})),
        ("a.json", json.dumps({"target_labels_space": NAMES, "label2id": {}})),
    ],
)
def test_names_come_from_files(tmp_path, name, content, encoding):
    (tmp_path / name).write_text(content, encoding=encoding)
    assert class_names_of(tmp_path / name) == NAMES
    assert class_names_of(str(tmp_path / name)) == NAMES


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "class_names: got no names"),
        (["cat", "cat"], "class_names: got 'cat' for two classes"),
        (["cat", ""], "class_names: got an empty name"),
        ({"cat", "dog"}, "class_names: got {.*need names in class order"),
        ({0: "cat", 2: "dog"}, "class_names: label 1 is missing; they are 0 to 1"),
        ({"x": "cat"}, "class_names: got {'x': 'cat'}, need the name of every label"),
        ("cat", "class_names: got 'cat', need names with commas between them, or a .txt or .json"),
        ("nowhere.txt", "nowhere.txt: no such file"),
        (3, "class_names: got 3, need names in class order"),
        (np.array("cat"), "class_names: got array.*need names in class order"),
        (["cat", None], "class_names: got None for label 1, need a name"),
        (["cat", float("nan")], "class_names: got nan for label 1, need a name"),
        ({0: "cat", 1: None}, "class_names: got None for label 1, need a name"),
        (np.array([NAMES]), "class_names: got array.* for label 0, need a name"),
    ],
)
def test_what_gives_no_names_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        class_names_of(given)


@pytest.mark.parametrize(
    "labels",
    [
        ["dog", "cat", "dog"],
        np.array(["dog", "cat", "dog"]),
        np.array([b"dog", b"cat", b"dog"]),
        np.array(["dog", "cat", "dog"], dtype=object),
        np.array([["dog"], ["cat"], ["dog"]]),
    ],
)
def test_names_become_labels(labels):
    found = indexed(labels)
    assert (found.labels.tolist(), found.class_names) == ([1, 0, 1], ("cat", "dog"))
    found = indexed(labels, ("eel", "dog", "cat"))
    assert (found.labels.tolist(), found.class_names) == ([1, 2, 1], ("eel", "dog", "cat"))


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.float16, np.float32, float, "U2", object])
def test_numbers_of_any_type_are_labels(dtype):
    found = indexed(np.array([2, 0, 11]).astype(dtype))
    assert (found.labels.tolist(), found.class_names) == ([2, 0, 11], None)


def test_ignored_samples_are_told_apart():
    found = indexed([2, -100, 0], ignore_index=-100)
    assert (found.labels.tolist(), found.kept.tolist()) == ([2, 0], [True, False, True])
    found = indexed(["b", "-100", "a"], ignore_index=-100)
    assert (found.labels.tolist(), found.class_names) == ([1, 0], ("a", "b"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -1], "labels: got -1 in row 1"),
        ([0, 0.5], "labels: got 0.5 in row 1"),
        ([0, np.nan], "labels: got nan in row 1"),
        ([True, False], "labels: got bool"),
        (np.array([0, 4000], np.float16), "float16 with 4000, .* up to 2048 only exactly"),
        (["a", "z"], "labels: got 'z', which is none of the 2 class names"),
        (["0", "9" * 20], "labels: got 9{20}, need whole numbers up to"),
        (np.array([0, -(10**20)], object), "labels: got -10{20}, need whole numbers up to"),
        (np.array(["a", None], object), "labels: sample 1 has none"),
        (np.array(["a", 3], object), "labels: got entries of type int and str"),
        (np.eye(3), r"labels: got shape \(3, 3\)"),
    ],
)
def test_bad_labels_are_named(labels, message):
    with pytest.raises(ValueError, match=message):
        indexed(labels, ("a", "b"))


def test_numbers_may_be_names():
    assert class_names_of([2019, 2020]) == class_names_of(torch.tensor([2019, 2020]))
    assert class_names_of([2019, 2020]) == ("2019", "2020")


def test_long_names_are_shortened_and_many_counted():
    assert listed(["a" * 100, "b"]) == "a" * 12 + "…" + "a" * 11 + ", b"
    assert listed(["a", "b", "c", "d"]) == "a, b, c and 1 other"


# -- shown to people -------------------------------------------------------------------------------

ODD_NAMES = (
    "ankle boots for a very long winter, in red",
    "ankle boots for a very long winter, in blue",
    "imagenet/train/american_pit_bull/1/photographs/large",
    "imagenet/train/american_pit_bull/2/photographs/large",
    "中文名字很长很长很长很长很长一",
    "中文名字很长很长很长很长很长二",
    "\N{FAMILY}\N{ZERO WIDTH JOINER}" * 20,
    "שם ארוך מאוד של מחלקה אחת בעברית",
    "[b]x[/b]",
    ":smile: [/]",
    "two\nlines\x1b[31m",
)


@pytest.mark.parametrize("width", [8, 12, 24])
def test_shown_names_have_room_and_differ(width):
    shown = shown_names(ODD_NAMES, width)
    assert len(set(shown)) == len(ODD_NAMES)
    # Rich counts the places of a console by a table of its own.
    assert max(map(cell_len, shown)) <= width
    assert not any({"\n", "\x1b"} & set(name) for name in shown)
    # Names that fit are whole, and the same name is always the same.
    assert shown_names(["cat", *ODD_NAMES, "cat"], width)[::12] == ["cat", "cat"]
    assert ODD_NAMES[8] in shown


@quick
@given(st.lists(st.text("ab中é\u0301👩\u200d ", min_size=1, max_size=50), unique=True, min_size=1))
def test_shown_names_differ_whatever_they_are(names):
    for width in (8, 24):
        assert len(set(shown_names(names, width))) == len(names)


# -- problems --------------------------------------------------------------------------------------


def test_a_problem_has_names():
    problem = tf.Problem({"dog": 7, "cat": 9, "eel": 7}, **DECAYS)
    assert problem.class_names == NAMES
    assert problem.counts.tolist() == [9, 7, 7]
    assert tf.Problem(**problem.to_dict()).class_names == NAMES
    assert problem.reordered([2, 0, 1]).class_names == ("eel", "cat", "dog")
    assert problem.replace(counts=[1, 2]).class_names is None  # of other classes
    assert problem.group_names() == [["cat"], ["dog", "eel"]]
    assert tf.Problem("9,7x2", **DECAYS).group_names() == [[], []]


def test_explicit_names_let_keys_be_names_or_labels():
    in_order = tf.Problem([5, 6], class_weights=[1, 2], **DECAYS)
    for keys in (("y", "x"), (0, 1), ("0", "1")):
        weights = dict(zip(keys, (1, 2), strict=True))
        counts = dict(zip(keys, (5, 6), strict=True))
        problem = tf.Problem(counts, class_weights=weights, class_names=["y", "x"], **DECAYS)
        assert problem == in_order
        assert problem.class_names == ("y", "x")
    with pytest.raises(ValueError, match="class_weights: got the key 'z', need the names y, x"):
        tf.Problem([5, 6], class_weights={"z": 1, "y": 2}, class_names=["y", "x"], **DECAYS)
    with pytest.raises(ValueError, match="class_names: got 3, counts are of 2 classes"):
        tf.Problem([5, 6], class_names=NAMES, **DECAYS)


def test_predictions_say_the_names():
    problem = tf.Problem({"cat": 500, "dog": 500, "eel": 5}, weight_decay=0.1, feature_decay=1e-3)
    solution = tf.solve(problem)
    assert solution.states[1].name == "dog"
    assert solution.states.to_frame()["name"].tolist() == list(NAMES)
    assert [group["names"] for group in solution.to_dict()["groups"]] == [["cat", "dog"], ["eel"]]
    (warning,) = tf.advise(problem).warnings
    assert warning.startswith("1 class of 5 samples (eel) ")


@pytest.mark.parametrize("name", ["counts", "class_weights", "logit_adjustment"])
def test_sets_are_no_numbers_by_class(name):
    with pytest.raises(ValueError, match=f"{name}: got the set .*, which has no order"):
        tf.Problem(**({"counts": "5,6"} | DECAYS | {name: {3, 4}}))


@pytest.mark.parametrize("value", [{1: 1e-3, 2: 1e-2}, {1e-3, 1e-2}])
def test_layers_are_given_in_order_only(value):
    with pytest.raises(ValueError, match=r"weight_decay: got \{"):
        tf.Problem("5,6", weight_decay=value, feature_decay=1e-3, depth=2)
    with pytest.raises(ValueError, match=r"dim: got \{"):
        tf.Problem("5,6", **DECAYS, depth=2, dim={int(1000 * v): v for v in value})


# -- counted labels --------------------------------------------------------------------------------


def test_labels_that_are_names_are_counted():
    counts, names = class_counts(["dog", "cat", "dog"])
    assert (counts.tolist(), names) == ([1, 2], ("cat", "dog"))
    counts, names = class_counts(["dog", "cat", "dog"], class_names="dog,cat")
    assert (counts.tolist(), names) == ([2, 1], ("dog", "cat"))
    assert class_counts([0, 1, -100, 1]).counts.tolist() == [1, 2]
    with pytest.raises(ValueError, match="labels: class 'eel' has no samples"):
        class_counts(["dog", "cat"], class_names="dog,cat,eel")
    with pytest.raises(ValueError, match="labels: class 'dog' has no samples"):
        class_counts(["eel", "cat"], class_names="cat,dog,eel")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("header", ["", "label\n", "Class\n"])
@pytest.mark.parametrize("ending", ["txt", "csv"])
def test_labels_of_a_text_have_a_header_or_none(tmp_path, ending, header, encoding):
    if ending == "csv" and header == "Class\n":
        header = "label\n"
    path = tmp_path / f"a.{ending}"
    path.write_text(header + "1\n0\n1\n", encoding=encoding)
    assert class_counts(path, None if header or ending == "txt" else "0").counts.tolist() == [1, 2]
    if header or ending == "txt":
        path.write_text(header + "dög\ncat\ndög\n", encoding=encoding)
        assert described_problem(labels=path, **DECAYS).class_names == ("cat", "dög")


@pytest.mark.parametrize("name", ["שלום", "مرحبا", "a שלום"])
def test_names_read_from_right_to_left_leave_the_numbers_beside_them(name):
    """Unicode's isolates (UAX 9): first strong, and the end; they take no place of a console."""
    (shown,) = shown_names([name])
    assert shown == f"\N{FIRST STRONG ISOLATE}{name}\N{POP DIRECTIONAL ISOLATE}"
    assert cell_len(shown) == cell_len(name)
    assert shown_names([shown]) == [shown]
    assert listed([name, "cat"]) == f"{shown}, cat"
    assert class_names_of([name, "cat"]) == (name, "cat")


def test_a_name_can_not_turn_what_stands_beside_it():
    """An override without its end would turn the rest of the line."""
    assert shown_names(["cat\N{RIGHT-TO-LEFT OVERRIDE}"]) == ["cat"]
