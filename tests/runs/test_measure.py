"""Saved arrays that cannot be measured are refused by the name of the array."""

import numpy as np
import pytest

import tightframe as tf
from tests.reference import two_pass
from tightframe.runs.features_only import measure_features
from tightframe.runs.measure import measure
from tightframe.runs.network_files import SavedNetwork
from tightframe.runs.tables import distance_table
from tightframe.runs.verdicts import group_verdicts

DECAYS = {"weight_decay": 5e-3, "feature_decay": 1e-3}


def network(counts=(6, 4, 5), dim=4):
    """Return features around class means, their labels, and the means as classifier."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    means = rng.normal(size=(len(counts), dim))
    features = means[labels] + 0.1 * rng.normal(size=(len(labels), dim))
    return {"features": features, "labels": labels, "weight": means}


def spoilt(name, value):
    arrays = network()
    return arrays | {name: value(arrays.get(name))}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": np.ones((3, 2))}, "labels: missing; need features, labels, weight"),
        (spoilt("weight", lambda w: w[:, :3]), r"weight: got shape \(3, 3\) with features \(15, 4"),
        (spoilt("features", lambda h: h[:, 0]), r"weight: got shape \(3, 4\) with features \(15,"),
        (spoilt("weight", lambda w: w[:1]), "weight: got 1 row, need at least 2"),
        (spoilt("labels", lambda y: y[:-1]), "labels: got"),
        (spoilt("labels", lambda y: y + 1), "labels: got 3"),
        (spoilt("labels", lambda y: y - 1), "labels: got -1"),
        (spoilt("labels", lambda y: y + 0.5), "labels"),
        (spoilt("labels", lambda y: np.where(y == 1, 0, y)), "class 1"),
        (spoilt("features", lambda h: np.where(h == h[3, 1], np.nan, h)), "features"),
        (spoilt("weight", lambda w: w * np.inf), "weight"),
        (
            spoilt("weight", lambda w: w * 1e300),
            r"weight: largest entry is \S+, need at most 1e\+140",
        ),
        (spoilt("bias", lambda _: np.full(3, 1e200)), r"bias: largest entry is 1e\+200, need at"),
        (spoilt("bias", lambda _: np.ones(2)), "bias"),
        (spoilt("bias", lambda _: np.ones(3)), "bias: got a non-zero bias"),
        (
            spoilt("features", lambda h: h[:0]) | {"labels": np.zeros(0, int)},
            "classes 0, 1, 2 are without samples",
        ),
        (network((3, 3, 3, 3), dim=2), "problem: .*needs dim of at least 3"),
    ],
)
def test_bad_arrays_are_named(arrays, message):
    with pytest.raises(ValueError, match=message):
        measure(arrays, **DECAYS)


def test_features_below_zero_are_none_of_a_relu():
    with pytest.raises(ValueError, match=r"features: smallest entry is -.* with 'nonnegative'"):
        measure(network(), features="nonnegative", **DECAYS)


@pytest.mark.parametrize("has_head", [True, False])
def test_the_mean_of_all_samples_is_said(has_head):
    """Where classes differ in size it gives other numbers, which nobody may confuse."""
    arrays = network((12, 4, 2))
    x, y = arrays["features"], arrays["labels"]
    saved = SavedNetwork(x, y, arrays["weight"] if has_head else None)
    found = [
        (measure(saved, center=c) if has_head else measure_features(saved, center=c)).to_dict()
        for c in ("class", "sample")
    ]
    means = two_pass.class_means(x, y, 3)
    for out, middle in zip(found, (means.mean(axis=0), x.mean(axis=0)), strict=True):
        root = means - middle
        want = np.trace(two_pass.within(x, y, 3) @ np.linalg.pinv(root.T @ root / 3, 1e-12)) / 3
        assert out["nc1"] == pytest.approx(want, rel=1e-8)
    assert [out["center"] for out in found] == ["class", "sample"]
    told = [any("the mean of all samples" in note for note in out["notes"]) for out in found]
    assert told == [False, True]


@pytest.mark.parametrize("has_bias", [False, True])
def test_the_head_picks_the_seli_geometry(has_bias):
    arrays = network() | ({"bias": np.array([0.3, -0.2, 0.1])} if has_bias else {})
    found = measure(arrays, **(DECAYS | {"bias": "free"} if has_bias else DECAYS))
    frame = tf.seli([6, 4, 5], bias="free" if has_bias else "none")
    name = "free-bias SELI" if has_bias else "SELI"
    said = found.to_dict()
    assert list(said["distances"]) == ["predicted", "simplex ETF", "orthogonal frame", name]
    assert said["distances"][name] == found.report.distances(frame)
    (note,) = said["notes"]
    kind = "Free-bias SELI" if has_bias else "SELI"
    assert note.startswith(f"{kind} is the limit of small decays for a head with")
    assert distance_table(found.report, found.targets).note == note


@pytest.mark.filterwarnings("ignore:class 3 is without samples")
def test_distances_are_those_to_frames_where_a_class_is_without_samples():
    """Deviations of cosines and cosines of groups have a part and a target, too."""
    arrays = network()
    x, y = arrays["features"], arrays["labels"]
    w = np.random.default_rng(1).normal(size=(4, 4))
    found = measure({"features": x, "labels": y, "weight": w}).to_dict()["distances"]
    means, rows = two_pass.class_means(x, y, 3), w[:3]  # all rows of the classifier are there
    measured = {"classifier": w @ w.T, "means": means @ means.T, "logits": rows @ means.T}
    frames = (tf.simplex_etf(4), tf.orthogonal_frame(4))
    assert list(found) == [frame.name for frame in frames]
    for frame in frames:
        for part, matrix in measured.items():
            goal = getattr(frame, part)[: len(matrix), : len(matrix)]
            units = [each / np.linalg.norm(each) for each in (matrix, goal)]
            want = np.linalg.norm(units[0] - units[1])
            assert found[frame.name][part] == pytest.approx(want, rel=1e-10), part


def test_verdicts_name_the_seli_geometry_of_the_head():
    """A network far from the prediction, at the limit of its kind of head."""
    counts = [200, 200, 10, 10]
    for kind, name in (("none", "SELI"), ("free", "free-bias SELI")):
        problem = tf.Problem(counts, weight_decay=4e-3, feature_decay=4e-3, bias=kind)
        logits = 3 * tf.seli(counts, kind).logits
        bias = None if kind == "none" else np.zeros(4)
        verdicts = group_verdicts(problem, tf.solve(problem), logits, bias)
        assert verdicts[0].nearest_distance == pytest.approx(0, abs=1e-9)
        if kind == "free":  # without bias SELI's logits are the simplex ETF's
            assert verdicts[0].nearest == name


def test_the_classes_come_first_with_names_and_held_out_recall():
    arrays = network()
    x, y, w = (arrays[name] for name in ("features", "labels", "weight"))
    arrays["weight"] = np.stack([w[0], w[0], w[2]])  # nobody is taken for class 1
    apart = {"class_names": ("cat", "dog", "ox"), "held_out": (x[::2], y[::2])}
    for decays in ({}, DECAYS):
        found = measure(arrays | apart, **decays).to_dict()
        assert next(iter(found)) == "classes"
        assert sorted(row["name"] for row in found["classes"]) == ["cat", "dog", "ox"]
        chosen = (x @ arrays["weight"].T).argmax(axis=1)
        for row in found["classes"]:
            own = y == row["label"]
            right = (chosen == y) & (row["label"] == 2)  # equal rows tie, which is wrong
            assert row["accuracy"] == right[own].mean()
            assert row["held_out_recall"] == right[::2][own[::2]].mean()
        assert {found["classes"][0]["rival_name"], found["classes"][1]["rival_name"]} <= {
            "cat",
            "dog",
            "ox",
        }


def test_absent_classes_are_rivals():
    arrays = network((6, 4, 5, 3))
    kept = arrays["labels"] != 1
    own = {name: arrays[name][kept] for name in ("features", "labels")}
    own["features"][own["labels"] == 3] = arrays["weight"][1] * 2  # taken for the absent class
    with pytest.warns(RuntimeWarning, match="class 1 is without samples"):
        found = measure(arrays | own)
    assert found.classes.absent == (1,)
    row = found.classes.of(3)
    assert (row.rival, row.accuracy_state, row.count) == (1, "lost", 3)
    assert [row["label"] for row in found.to_dict()["classes"]].count(1) == 0
