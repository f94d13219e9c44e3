"""The classes of a run over its epochs, against what its final arrays say by themselves."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import softmax

import tightframe as tf
from tightframe.geometry.states import STATES, measured_states
from tightframe.runs import class_records, store
from tightframe.runs.class_records import class_arrays, class_epochs, keeper, most_taken
from tightframe.runs.config import RunConfig
from tightframe.runs.train import run
from tightframe.runs.wheels import setting_wheel
from tightframe.training.options import measured_epochs
from tightframe.views.wheel import class_homes

CONFIG = RunConfig(
    counts="8x5,3x5",
    settings=((2e-2, 2e-3),),
    bias="free",
    hidden=(16,),
    feature_dim=12,
    epochs=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    run(CONFIG, folder)
    return folder


@pytest.fixture
def setting(folder):
    return store.load_run(folder).settings[0]


# -- when ------------------------------------------------------------------------------------------


def test_by_default_most_measurements_are_early():
    epochs = measured_epochs(1200)
    assert epochs[:10] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert (len(epochs), epochs[-1]) == (41, 1200)
    steps = np.diff(epochs[9:])
    assert (np.diff(steps) >= -1).all()  # ever farther apart, but for whole epochs
    assert np.array(epochs[20:]) / epochs[19:-1] == pytest.approx((1200 / 18) ** (1 / 31), rel=0.02)


@pytest.mark.parametrize("epochs", [1, 2, 7, 18, 19, 20, 60])
def test_short_runs_are_measured_at_both_ends(epochs):
    found = measured_epochs(epochs)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (0, epochs)


def test_a_number_of_epochs_means_what_it_says():
    assert measured_epochs(100, 30) == [0, 30, 60, 90, 100]
    assert measured_epochs(60, 30) == [0, 30, 60]


# -- what ------------------------------------------------------------------------------------------


def test_the_last_epoch_is_that_of_the_final_arrays(setting):
    classes, final = setting.classes, setting.final
    assert classes["epochs"].tolist() == setting.history["epoch"].tolist() == [0, 2, 4, 6]
    of_few = {"epochs", "train_accuracy", "test_accuracy", "logits", "bias", "test_confusion"}
    assert set(classes) == of_few <= set(store.CLASS_ARRAYS)
    labels = final["labels"]
    means = np.stack([final["features"][labels == k].mean(axis=0) for k in range(10)], axis=1)
    logits = final["weight"] @ means
    assert np.abs(classes["logits"][-1] - logits).max() <= 2**-10 * np.abs(logits).max()
    assert np.array_equal(classes["bias"][-1], final["bias"])
    scores = final["held_out_features"] @ final["weight"].T + final["bias"]
    held_out, answers = final["held_out_labels"], scores.argmax(axis=1)
    counts = np.bincount(held_out)
    assert np.array_equal(classes["test_confusion"].sum(axis=0), counts)
    for k in range(10):
        found = [int(((answers == j) & (held_out == k)).sum()) for j in range(10)]
        assert classes["test_confusion"][:, k].tolist() == found
        assert classes["test_accuracy"][-1, k] == pytest.approx(found[k] / counts[k], abs=1e-3)


def test_accuracies_are_those_of_the_history(setting):
    for part in ("train", "test"):
        columns = [f"class{k}_{part}_accuracy" for k in range(10)]
        expected = setting.history[columns].to_numpy()
        np.testing.assert_allclose(setting.classes[f"{part}_accuracy"], expected, atol=2**-11)


def test_epochs_of_a_record(setting):
    found = class_epochs(setting, class_homes(setting.problem))
    assert found.recorded
    assert found.epochs == [0, 2, 4, 6]
    for i, sent in enumerate(found.sent):
        logits, bias = setting.classes["logits"][i].astype(float), setting.classes["bias"][i]
        shares = softmax(logits + bias[:, None], axis=0)
        homes = class_homes(setting.problem).places
        np.testing.assert_allclose(sent.places, shares.T @ homes, atol=2e-3)
    final = setting.final
    exact = measured_states(setting.problem, final["logits"], final["bias"])
    assert np.array_equal(found.sent[-1].states.decision_margin, exact.decision_margin)
    some = class_epochs(setting, class_homes(setting.problem), most=3)
    assert some.epochs == [0, 4, 6]
    assert np.array_equal(some.test_accuracy[1], found.test_accuracy[2])


def test_the_most_frequent_wrong_answer():
    confusion = np.array([[5, 0, 0], [1, 0, 0], [2, 3, 0]])
    who, share = most_taken(confusion)
    assert who.tolist() == [2, 2, -1]
    assert share == pytest.approx([2 / 8, 1, 0])


def test_a_wheel_plays_with_its_rings_standing_still(setting):
    wheel = setting_wheel(setting)
    assert [moment.value for moment in wheel.moments] == [0, 2, 4, 6]
    assert [moment.rings is None for moment in wheel.moments] == [True, True, True, False]


# -- many classes ----------------------------------------------------------------------------------


def test_of_many_classes_there_is_what_a_wheel_shows(tmp_path):
    k = class_records.MOST_LOGITS + 2
    problem = tf.Problem(f"6x{k // 2},2x{k // 2}", weight_decay=1e-3, feature_decay=1e-3)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(k, k)) + 3 * np.eye(k)
    labels = np.repeat(np.arange(k), 2)
    answers = np.where(rng.random(2 * k) < 0.5, labels, rng.integers(0, k, 2 * k))
    row = {f"class{i}_{part}_accuracy": i / k for i in range(k) for part in ("train", "test")}
    measured = SimpleNamespace(
        row=row,
        geometry=SimpleNamespace(logits=logits),
        bias=None,
        weight=np.zeros((k, 1)),
        held_out=(None, torch.from_numpy(labels)),
        test_answers=torch.from_numpy(answers),
    )
    kept = [{"epoch": np.array(e)} | keeper(problem)(measured) for e in (0, 3)]
    arrays = class_arrays(kept, measured)
    assert set(arrays) == set(store.CLASS_ARRAYS) - {"logits", "bias", "test_confusion"}
    assert sum(a.nbytes for a in arrays.values()) < 100 * k
    paths = store.setting_paths(tmp_path, "a")
    store.write_npz(paths.classes, **arrays)
    prediction = {"problem": problem.to_dict()}
    setting = store.SettingRecord(
        "a", paths, prediction, *[None] * 4, store.read_npz(paths.classes)
    )
    found = class_epochs(setting, class_homes(problem))
    shares, states = softmax(logits, axis=0), measured_states(problem, logits)
    for sent in found.sent:
        expected = shares.T @ class_homes(problem).places
        np.testing.assert_allclose(sent.places, expected, atol=1e-3)
        np.testing.assert_allclose(sent.own, np.diagonal(shares), atol=1e-3)
        assert sent.states.state.tolist() == states.state.tolist()
        margins = np.diagonal(logits) - (logits - 1e9 * np.eye(k)).max(axis=0)
        np.testing.assert_allclose(sent.states.decision_margin, margins, atol=5e-3)
    rest = shares - np.diag(np.diagonal(shares))
    assert arrays["taker"][-1].tolist() == rest.argmax(axis=0).tolist()
    np.testing.assert_allclose(arrays["taken"][-1], rest.max(axis=0), atol=1e-3)
    wrong = [answers[(labels == i) & (answers != i)] for i in range(k)]
    assert [bool(len(own)) for own in wrong] == (found.taken_for >= 0).tolist()
    assert all(i < 0 or i in own for own, i in zip(wrong, found.taken_for, strict=True))
    assert found.test_accuracy[-1] == pytest.approx(np.arange(k) / k, abs=1e-3)
    assert set(np.unique(arrays["state"])) <= set(range(len(STATES)))


# -- records of old and of somebody else -----------------------------------------------------------


def test_without_the_file_the_end_is_known(folder, setting):
    there = class_epochs(setting, class_homes(setting.problem))
    object.__setattr__(setting, "classes", None)
    found = class_epochs(setting, class_homes(setting.problem))
    assert not found.recorded
    assert found.epochs == [6]
    assert np.array_equal(found.taken_for, there.taken_for)
    assert np.array_equal(found.test_accuracy[-1], there.test_accuracy[-1])
    object.__setattr__(setting, "history", setting.history[["epoch", "objective"]])
    found = class_epochs(setting, class_homes(setting.problem))
    assert found.test_accuracy[-1] == pytest.approx(there.test_accuracy[-1])
    assert found.train_accuracy is None


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("epochs", None, "epochs: need whole numbers"),
        ("epochs", np.array([0, 4, 2, 6]), "epochs: need rising numbers"),
        ("epochs", np.zeros((2, 2), int), "epochs: need whole numbers"),
        ("logits", None, "logits: missing"),
        ("logits", np.zeros((4, 9, 9)), r"logits: got shape \(4, 9, 9\) of float64, need \(4, 10"),
        ("logits", np.full((4, 10, 10), np.inf), "logits: got entries that are not finite"),
        ("bias", np.array(["a"]), "bias: got shape"),
        ("test_accuracy", np.full((4, 10), 2.0), "test_accuracy: got entries that are no shares"),
        ("test_confusion", np.full((10, 10), -1), "test_confusion: got entries that are no counts"),
    ],
)
def test_what_is_no_record_is_named(setting, name, values, message):
    arrays = {**setting.classes, name: values}
    object.__setattr__(setting, "classes", {k: v for k, v in arrays.items() if v is not None})
    path = re.escape(str(setting.paths.classes))
    with pytest.raises(ValueError, match=rf"{path}: not a record of classes \({message}"):
        class_epochs(setting, class_homes(setting.problem))


def many_classes(tmp_path, loss="cross_entropy", size=1.0):
    """Return a setting of more classes than have logits, and its problem."""
    k = 130
    problem = tf.Problem([2] * k, loss, weight_decay=0.01, feature_decay=0.01)
    labels = np.repeat(np.arange(k), 2)
    measured = SimpleNamespace(
        row={f"class{i}_{part}_accuracy": 0.5 for i in range(k) for part in ("train", "test")},
        geometry=SimpleNamespace(logits=size * np.random.default_rng(0).normal(size=(k, k))),
        bias=None,
        weight=np.zeros((k, 1)),
        held_out=(None, torch.from_numpy(labels)),
        test_answers=torch.from_numpy(labels[::-1].copy()),
    )
    kept = [{"epoch": np.array(e)} | keeper(problem)(measured) for e in (0, 3)]
    paths = store.setting_paths(tmp_path, "a")
    arrays = class_arrays(kept, measured)
    return store.SettingRecord("a", paths, {"problem": problem.to_dict()}, *[None] * 4, arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"taken_for": None}, "taken_for, taken_for_share: one is missing"),
        ({"taken_for_share": None}, "taken_for, taken_for_share: one is missing"),
        ({"taken_for_share": np.full(130, 2.0)}, "taken_for_share: got entries that are no shares"),
        ({"taken_for_share": np.full(130, np.nan)}, "taken_for_share: got entries that are no sh"),
        ({"taken_for": np.full(130, 130)}, "taken_for: got entries that are no classes"),
        ({"places": np.full((2, 130, 2), 1e308)}, "places: got entries that are not finite, or to"),
        ({"own": np.full((2, 130), -1e308)}, "own: got entries that are not finite, or too large"),
        ({"prediction": np.full((2, 130), -(2**63))}, "prediction: got entries that are not finit"),
        ({"epochs": np.array([0, 2**62])}, "epochs: got entries that are not finite, or too large"),
    ],
)
def test_what_is_no_record_of_many_classes_is_named(tmp_path, changes, message):
    setting = many_classes(tmp_path)
    homes = class_homes(setting.problem)
    assert class_epochs(setting, homes).taken_share == pytest.approx(1)
    arrays = {**setting.classes, **changes}
    object.__setattr__(setting, "classes", {k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=rf"not a record of classes \({message}"):
        class_epochs(setting, homes)


@pytest.mark.filterwarnings("error")
def test_outputs_of_any_size_are_kept(tmp_path):
    setting = many_classes(tmp_path, "mse", size=1e7)
    found = class_epochs(setting, class_homes(setting.problem))
    assert np.abs(found.sent[0].own).max() == pytest.approx(6e4)  # where half precision ends


def test_a_damaged_file_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    path = store.load_run(tmp_path / "run").settings[0].paths.classes
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"classes\.npz"):
        store.load_run(tmp_path / "run")
    np.savez(path, epochs=np.array([{}], dtype=object))  # a pickle
    with pytest.raises(ValueError, match=r"classes\.npz"):
        store.load_run(tmp_path / "run")
