"""The trial of the advice on tiny runs, and its committed tables; no accuracy is judged here."""

import math
import shutil

import numpy as np
import pytest
from scipy import stats

import tightframe as tf
from benchmarks import advice as trial
from tightframe.data import load
from tightframe.files import read_json
from tightframe.runs.store import load_run

TINY = trial.Settings(
    data=("digits",),
    seeds=2,
    counts="20x5,2x5",
    decays=(0.16, 0.0016),
    epochs=3,
    hidden=(8,),
    longer=0,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of runs, the folder of results, and what stands there."""
    folder = tmp_path_factory.mktemp("advice")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "QUICK", TINY)
        trial.main(["--quick", "--runs", str(folder / "runs"), "--out", str(folder)])
    return folder / "runs", folder, read_json(folder / "advice.json")


def test_everything_is_written(tiny):
    _, folder, record = tiny
    text = (folder / "advice.md").read_text(encoding="utf-8")
    assert text == trial.page(record)
    assert "**A quick run" in text
    assert "?" not in text
    assert (folder / "advice.png").read_bytes().startswith(b"\x89PNG")
    study = record["studies"]["digits"]
    names = [way["name"] for way in study["conditions"]]
    assert names[0] == "as-it-is"
    assert names[-2:] == ["plain-oversampling", "plain-class-weights"]
    assert [(r["seed"], r["condition"]) for r in study["rows"]] == [
        (seed, name) for seed in (0, 1) for name in names
    ]
    for row in study["rows"]:
        assert all(row[name] is not None for name in (*trial.MEASURES, "logits_to_predicted"))
    for line in study["summary"]:
        title = next(w["title"] for w in study["conditions"] if w["name"] == line["condition"])
        assert f"| {title} |" in text
    for sentence in study["sentences"]:
        assert sentence["text"] in text


def test_nothing_finished_is_trained_again(tiny, tmp_path):
    runs, _, record = tiny
    shutil.copytree(runs, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "digits" / "plain-oversampling" / "seed1")
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.ckpt")}
    assert written
    again = trial.measure_all(TINY, tmp_path / "runs")
    (trained,) = set(tmp_path.rglob("last.ckpt")) - set(written)
    assert "digits/plain-oversampling/seed1" in trained.as_posix()
    assert written == {path: path.stat().st_mtime_ns for path in written}
    for old, new in zip(record["studies"]["digits"]["rows"], again["digits"]["rows"], strict=True):
        assert old | {"seconds": 0} == new | {"seconds": 0}


def test_what_is_measured_is_what_the_definitions_say(tiny):
    runs, _, record = tiny
    rows = record["studies"]["digits"]["rows"]
    labels = load("digits", seed=1).test_labels
    shares = np.bincount(labels) / len(labels)
    for name in ("as-it-is", "plain-oversampling"):
        (setting,) = load_run(runs / "digits" / name / "seed1").settings
        row = next(r for r in rows if (r["condition"], r["seed"]) == (name, 1))
        recall = trial.recall(TINY.config("digits", 1), setting)
        assert recall @ shares == pytest.approx(setting.result["last"]["test_accuracy"])
        assert row["minority_accuracy"] == pytest.approx(np.mean(recall[5:]))
        assert row["balanced_accuracy"] == pytest.approx(np.mean(recall))
        features, seen = setting.final["features"].astype(float), setting.final["labels"]
        weight = setting.final["weight"].astype(float)
        means = [weight @ features[seen == k].mean(axis=0) for k in range(10)]
        margins = [z[k] - max(np.delete(z, k)) for k, z in enumerate(means)]
        assert row["margin"] == pytest.approx(min(margins), abs=1e-6)
        assert row["margins"] == pytest.approx(margins, abs=1e-6)
        pairs = [(i, j) for i in range(5, 10) for j in range(5, 10) if i != j]
        inside = np.mean([means[k][k] - means[k][j] for k, j in pairs])
        assert row["margin_inside"] == pytest.approx(inside, abs=1e-6)
        assert row["merged"] == (inside < 0.05)
        unit = weight / np.linalg.norm(weight, axis=1)[:, None]
        cosine = max(unit[i] @ unit[j] for i, j in pairs)
        assert row["angle"] == pytest.approx(math.degrees(math.acos(cosine)), abs=1e-6)


@pytest.mark.parametrize("decays", [(8e-2, 8e-4), (5e-2, 5e-4)])
def test_conditions_train_the_problems_of_the_advice(decays):
    settings = trial.Settings(decays=decays)
    config = settings.config("digits", 0)
    advice = tf.advise(config.problems[0], margin=settings.margin)
    ways = trial.conditions(advice)
    wanted = [p for p in advice.proposals if p.problem is not None]
    proposals = [way for way in ways if way.kind == trial.PROPOSAL]
    assert len(proposals) == len(wanted) > 0
    assert ("logit_adjustment" in [p.kind for p in wanted]) == (decays == (5e-2, 5e-4))
    for way, proposal in zip(proposals, wanted, strict=True):
        problem = config.replace(**way.changes).problems[0]
        assert problem == proposal.problem
        row = trial.predicted(config, problem)
        assert row["predicted_margin"] == pytest.approx(proposal.after.margin, abs=1e-6)
        assert row["predicted_margin"] > 0.999 * settings.margin
        assert row["predicted_state"] == "distinct"
    balanced, weighted = (config.replace(**way.changes).problems[0] for way in ways[-2:])
    assert balanced.compact_counts == "100x10"
    assert weighted.class_weights.tolist() == pytest.approx([0.55] * 5 + [5.5] * 5)


def test_a_zero_row_has_no_angle():
    few = np.array([False, True, True, True])
    assert trial.smallest_angle(np.diag([1.0, 1.0, 0.0, 1.0]), few) == 0
    assert trial.smallest_angle(np.eye(4), few) == pytest.approx(90)


def test_intervals_are_those_of_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5))
    found = trial.interval(a)
    want = stats.ttest_1samp(a, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((want.low, want.high))
    assert found["mean"] == pytest.approx(a.mean())
    rows = [
        {"condition": name, "seed": seed, "margin": values[seed]}
        for name, values in (("x", a), ("y", b))
        for seed in rng.permutation(5)  # pairs are found by their seed
    ]
    found = trial.difference(rows, "x", "y", "margin")
    want = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((want.low, want.high))
    assert math.isnan(trial.interval([1.0])["low"])
    assert trial.direction(trial.interval([1.0])) == 0
    assert trial.direction({"low": 0.1, "high": 0.2}) == 1
    assert trial.direction({"low": -0.2, "high": -0.1}) == -1
    assert trial.direction({"low": -0.1, "high": 0.1}) == 0


WAYS = [
    trial.Condition("before", "as it is", trial.BEFORE, ""),
    trial.Condition("good", "a good one", trial.PROPOSAL, ""),
    trial.Condition("plain", "a plain one", trial.PLAIN, ""),
]


def _rows(**changes):
    """Rows with which everything holds, but for the last seed's changes of ``good``, ``before``."""
    rows = []
    for seed in range(3):
        for name, accuracy, margin in (
            ("before", 0.1, 0.0),
            ("good", 0.7, 0.95),
            ("plain", 0.8, 1),
        ):
            row = {
                "condition": name,
                "seed": seed,
                "minority_accuracy": accuracy + 0.01 * seed * (name == "good"),
                "balanced_accuracy": 0.9 + 0.03 * (seed - 1) * (name == "good"),
                "margin": margin,
                "merged": name == "before",
                "predicted_state": "merged" if name == "before" else "distinct",
                "predicted_margin": margin,
                "logits_to_predicted": 1e-3,
                "margins": [1.0, 1.0, 1.0],
                "longer": None,
            }
            rows.append(row | (changes.get(name, {}) if seed == 2 else {}))
    return rows


def test_sentences_follow_from_the_numbers():
    found = trial.sentences(WAYS, _rows(), 1.0)
    assert [(s["criterion"], s["holds"]) for s in found] == [
        ("a", True),
        ("b", True),
        ("c", True),
        ("d", None),
    ]
    assert "minority accuracy lower" in found[-1]["text"]
    assert "balanced accuracy not told apart" in found[-1]["text"]


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({"before": {"merged": False}}, "a"),
        ({"good": {"margin": 0.89}}, "b"),
        ({"good": {"merged": True}}, "b"),
        ({"good": {"minority_accuracy": 0.0}}, "c"),
    ],
)
def test_one_seed_is_enough_to_fail(changes, fails):
    found = trial.sentences(WAYS, _rows(**changes), 1.0)
    assert [s["criterion"] for s in found if s["holds"] is False] == [fails]


def test_training_that_ends_away_from_the_prediction_is_said_so():
    there = {"logits_to_predicted": 1e-3, "predicted_margin": 1.0, "margin": 1.0, "margins": [1, 1]}
    away = there | {"logits_to_predicted": 0.25, "margins": [0.0, 1.0], "longer": there}
    found = trial.sentences(WAYS, _rows(good=away), 1.0)
    assert found[-1] == {
        "criterion": "e",
        "holds": None,
        "text": "A good one ended away from its prediction with 1 of 3 seeds: distance 0.2 to 0.2, "
        "smallest margin 1.00 to 1.00, classes with less than 0.05: 0 (with 1). Trained longer, 1 "
        "of 1 get there: distance 0.001 to 0.001, smallest margin 1.00 to 1.00, classes with less "
        "than 0.05: none.",
    }
    assert trial.is_away(there | {"margin": 0.89})
    assert not trial.is_away(there | {"margin": 0.91})


def test_only_what_ended_away_is_trained_longer(monkeypatch, tmp_path):
    trained = []

    def train(config, folder):
        trained.append((folder.parent.name, folder.name, config.epochs, config.measure_every))
        away = "decay" in str(folder)
        return {"predicted_margin": 1.0, "margin": 1.0, "seconds": 0, "logits_to_predicted": away}

    monkeypatch.setattr(trial, "train", train)
    for name in ("summary", "differences", "sentences"):
        monkeypatch.setattr(trial, name, lambda *_: None)
    record = trial.measure_all(trial.Settings(data=("digits",), seeds=1), tmp_path)
    assert [t for t in trained if t[2] != 1200] == [("advised-decay", "seed0-longer", 3600, 300)]
    for row in record["digits"]["rows"]:
        assert (row["longer"] is not None) == (row["condition"] == "advised-decay")


def test_runs_of_other_settings_are_refused(tiny, capsys):
    runs, folder, _ = tiny
    with pytest.raises(SystemExit):
        trial.main(["--data", "digits", "--runs", str(runs), "--out", str(folder / "no")])
    assert "with another configuration" in capsys.readouterr().err
    assert not (folder / "no").exists()


def test_the_committed_tables_are_those_of_the_committed_rows():
    record = read_json(trial.RESULTS / "advice.json")
    assert (trial.RESULTS / "advice.md").read_text(encoding="utf-8") == trial.page(record)
    assert (trial.RESULTS / "advice.png").exists()
    assert not record["environment"]["quick"]
    assert list(record["studies"]) == ["digits", "fashion_mnist"]
    for study in record["studies"].values():
        ways = [trial.Condition(**way) for way in study["conditions"]]
        rows = study["rows"]
        assert sorted({row["seed"] for row in rows}) == list(range(5))
        assert len(rows) == 5 * len(ways)
        for name, again in (
            ("summary", trial.summary(ways, rows)),
            ("differences", trial.differences(ways, rows)),
        ):
            for old, new in zip(study[name], again, strict=True):
                assert old == {k: _close(v) for k, v in new.items()}
        assert study["sentences"] == trial.sentences(
            ways, rows, study["advice"]["wanted"]["margin"]
        )
        wanted = [p for p in study["advice"]["proposals"] if p["problem"] is not None]
        assert [way.text for way in ways if way.kind == trial.PROPOSAL] == [
            p["text"] for p in wanted
        ]


def _close(value):
    """Other releases of NumPy may round other digits at the end."""
    if isinstance(value, dict):
        return {name: pytest.approx(number, rel=1e-9, abs=1e-12) for name, number in value.items()}
    return value
