import os
import signal
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import tightframe as tf
from tests import processes
from tightframe.geometry.dense import PARTS
from tightframe.runs import store
from tightframe.runs.batches import Batches
from tightframe.runs.config import RunConfig
from tightframe.runs.limit import TimeIsUp
from tightframe.runs.train import run

# Small enough for a second a run; minibatches, so that the order of the samples matters.
CONFIG = RunConfig(
    counts="8x5,3x5",
    settings=((2e-2, 2e-3), (2e-1, 8e-3)),
    hidden=(16,),
    feature_dim=12,
    batch_size=20,
    epochs=7,
    measure_every=2,
)
EPOCHS = [0, 2, 4, 6, 7]
PACKAGE = os.path.dirname(os.path.dirname(tf.__file__))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    return folder, run(CONFIG, folder)


def timeless(rows):
    return pd.DataFrame(rows).drop(columns="seconds")


def assert_same_numbers(folder, other):
    for ours, theirs in zip(
        store.load_run(folder).settings, store.load_run(other).settings, strict=True
    ):
        pd.testing.assert_frame_equal(
            timeless(ours.history), timeless(theirs.history), check_exact=True
        )
        for name, array in theirs.final.items():
            assert np.array_equal(ours.final[name], array), name
        assert ours.classes.keys() == theirs.classes.keys()
        for name, array in theirs.classes.items():
            assert np.array_equal(ours.classes[name], array), name


def test_record_on_disk(finished):
    folder, results = finished
    record = store.load_run(folder)
    assert record.finished
    assert RunConfig.from_dict(record.config) == CONFIG
    assert record.config_hash == store.config_hash(CONFIG.to_dict())
    assert record.environment["versions"]["torch"] == torch.__version__
    assert [s.name for s in record.settings] == ["w0.02-h0.002", "w0.2-h0.008"]
    for setting, result, problem in zip(record.settings, results, CONFIG.problems, strict=True):
        solution = tf.solve(problem)
        assert setting.result == result
        assert setting.problem == problem
        assert setting.prediction["objective"] == solution.objective
        assert setting.prediction["groups"][1]["members"] == [5, 6, 7, 8, 9]
        assert setting.predicted.distance(solution.geometry) == 0
        of_several_layers = {"partial_classifiers", "partial_means"}
        assert set(setting.final) == set(store.FINAL_ARRAYS) - of_several_layers
        assert set(setting.prediction_arrays) == set(store.PREDICTION_ARRAYS)
        assert setting.history["epoch"].tolist() == EPOCHS
        assert result["finished"] is True
        assert result["first"]["epoch"] == 0
        last = setting.history.iloc[-1].to_dict()
        assert result["last"] == {k: None if np.isnan(v) else v for k, v in last.items()}
        assert len(result["verdicts"]) == 2
        assert any(setting.paths.logs.rglob("metrics.csv"))
        assert any(setting.paths.logs.rglob("events.out.tfevents.*"))


def test_final_arrays_are_the_last_measurement(finished):
    for setting in store.load_run(finished[0]).settings:
        last, final = setting.result["last"], setting.final
        assert final["features"].shape == (55, 12)
        assert np.bincount(final["labels"]).tolist() == [8] * 5 + [3] * 5
        assert final["logits"] == pytest.approx(
            final["weight"].astype(float) @ final["class_means"], rel=1e-6
        )
        scores = final["held_out_features"] @ final["weight"].T + final["bias"]
        right = scores.argmax(axis=1) == final["held_out_labels"]
        assert right.mean() == pytest.approx(last["test_accuracy"], abs=1e-12)
        for part in PARTS:
            distance = setting.measured.distance(setting.predicted, part)
            assert distance == pytest.approx(last[f"{part}_to_predicted"], rel=1e-6)
        certified = tf.certify(setting.problem, setting.measured.logits)
        assert certified.dual <= last["objective"]


def test_training_goes_towards_the_bound(finished):
    for result in finished[1]:
        assert 0 < result["last"]["excess"] < result["first"]["excess"]


def test_checkpoint_loads_without_pickle(finished):
    for setting in store.load_run(finished[0]).settings:
        state = torch.load(setting.paths.checkpoint, weights_only=True)
        assert state["epoch"] == CONFIG.epochs
        assert "backbone.0.weight" in state["state_dict"]


def test_same_seed_same_numbers_and_callers_state_untouched(finished, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(CONFIG, tmp_path / "again")
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert_same_numbers(tmp_path / "again", finished[0])
    assert [str(w.message) for w in caught if "ightning" in w.filename] == []


def test_other_seed_other_numbers(finished, tmp_path):
    one = CONFIG.replace(seed=1, settings=CONFIG.settings[:1], epochs=1)
    result = run(one, tmp_path)[0]
    assert result["first"]["loss"] != finished[1][0]["first"]["loss"]


def test_progress_and_prediction(tmp_path):
    events = []
    config = CONFIG.replace(epochs=2)
    run(
        config,
        tmp_path,
        progress=lambda *event: events.append(event),
        on_prediction=lambda name, solution: events.append((name, solution.status)),
    )
    first = [event for event in events if event[0] == config.setting_names[0]]
    assert first[0][1] == "optimal"
    assert first[1][1:3] == (0, 2)
    assert first[-1][1:3] == (2, 2)
    assert first[-1][3]["epoch"] == 2


# -- interruption and resume -----------------------------------------------------------------------


class Stop:
    """A progress callback that stops the run at an epoch of a setting."""

    def __init__(self, setting, epoch, action):
        self.where, self.action = (CONFIG.setting_names[setting], epoch), action

    def __call__(self, name, epoch, epochs, row):
        if (name, epoch) == self.where:
            self.action()


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def terminate():
    signal.raise_signal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def report_every_epoch(monkeypatch):
    monkeypatch.setattr("tightframe.runs.train._PROGRESS_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("setting", "epoch", "kept"), [(0, 0, [0]), (0, 5, [0, 2, 4]), (1, 3, [0, 2]), (1, 7, EPOCHS)]
)
def test_interrupted_and_resumed_ends_in_the_same_numbers(finished, tmp_path, setting, epoch, kept):
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, tmp_path, progress=Stop(setting, epoch, ctrl_c))
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    record = store.load_run(tmp_path)
    assert [s.finished for s in record.settings] == [k < setting for k in range(2)]
    assert record.settings[setting].history["epoch"].tolist() == kept
    assert record.settings[setting].paths.checkpoint.exists() == (epoch >= 2)
    results = run(CONFIG, tmp_path, resume=True)
    assert_same_numbers(tmp_path, finished[0])
    for ours, theirs in zip(results, finished[1], strict=True):
        assert ours["verdicts"] == theirs["verdicts"]


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_at_the_limit_it_keeps_a_checkpoint_and_resumed_it_ends_in_the_same_numbers(
    finished, tmp_path, monkeypatch, epoch
):
    """An epoch's end is one call of `is_over`; the last epochs ask no more."""
    asked = []
    monkeypatch.setattr("tightframe.runs.train.is_over", lambda until: asked.append(until))
    run(CONFIG.replace(settings=CONFIG.settings[:1]), tmp_path / "asked", until=1.0)
    assert asked == [1.0] * (CONFIG.epochs - 1)
    answers = iter([False] * (epoch - 1) + [True])
    monkeypatch.setattr("tightframe.runs.train.is_over", lambda until: next(answers))
    with pytest.raises(TimeIsUp):
        run(CONFIG, tmp_path / "out", until=1.0)
    first = store.load_run(tmp_path / "out").settings[0]
    assert not first.finished
    assert first.history["epoch"].tolist() == [e for e in EPOCHS if e <= epoch]
    checkpoint = torch.load(first.paths.checkpoint, weights_only=True)
    assert checkpoint["epoch"] == epoch - 1  # as Lightning counts
    run(CONFIG, tmp_path / "out", resume=True)
    assert_same_numbers(tmp_path / "out", finished[0])


def test_sigterm_exits_with_143_and_can_be_resumed(finished, tmp_path):
    with pytest.raises(SystemExit) as caught:
        run(CONFIG, tmp_path, progress=Stop(0, 4, terminate))
    assert caught.value.code == 143
    run(CONFIG, tmp_path, resume=True)
    assert_same_numbers(tmp_path, finished[0])


def _die_in_the_third_checkpoint(folder):
    """Die by SIGKILL with half of it written."""
    save, calls = torch.save, []

    def half(checkpoint, path):
        calls.append(path)
        if len(calls) == 3:
            with open(path, "wb") as file:
                file.write(b"half")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        save(checkpoint, path)

    torch.save = half
    run(CONFIG, folder)


def test_killed_while_writing_a_checkpoint(finished, tmp_path):
    assert processes.run(_die_in_the_third_checkpoint, tmp_path) == -signal.SIGKILL
    paths = store.load_run(tmp_path).settings[0].paths
    assert torch.load(paths.checkpoint, weights_only=True)["epoch"] == 3
    run(CONFIG, tmp_path, resume=True)
    assert_same_numbers(tmp_path, finished[0])


def test_finished_but_result_lost(finished, tmp_path):
    run(CONFIG, tmp_path)
    paths = store.load_run(tmp_path).settings[1].paths
    paths.result.unlink()
    paths.final.unlink()
    run(CONFIG, tmp_path, resume=True)
    assert_same_numbers(tmp_path, finished[0])


def test_resume_of_a_finished_run_trains_nothing(finished):
    folder, results = finished
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert run(CONFIG, folder, resume=True) == results
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


# -- refusals --------------------------------------------------------------------------------------


def test_folder_with_a_run_is_refused(finished):
    with pytest.raises(ValueError, match="already holds a run; resume it or name another folder"):
        run(CONFIG, finished[0])


def test_resume_with_another_configuration_is_refused(finished):
    with pytest.raises(ValueError, match=r"another configuration \(lr is 0.005 there, 0.1 here\)"):
        run(CONFIG.replace(lr=0.1), finished[0], resume=True)


def test_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not an empty folder and holds no run"):
        run(CONFIG, tmp_path)
    with pytest.raises(ValueError, match="is not an empty folder and holds no run"):
        run(CONFIG, tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": "141,10x9"}, "class 0 wants 141 training samples, digits has 140"),
        ({"counts": "10x4"}, "counts: got 4 classes, digits has 10"),
        ({"depth": 2}, "problem: "),
        ({"feature_dim": 3}, "problem: .*dim is 3"),
        ({"data": "gaussian_mixture", "network": "vgg11", "hidden": (256, 256)}, "network: vgg11"),
    ],
)
def test_what_cannot_be_run_leaves_no_folder(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(CONFIG.replace(batch_size=None, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_divergence_is_an_error(tmp_path):
    wild = CONFIG.replace(optimizer="sgd", lr=1e9)
    with pytest.raises(ValueError, match="lr: training diverged"):
        run(wild, tmp_path)
    assert not store.load_run(tmp_path).settings[0].finished


@pytest.mark.parametrize(
    "changes",
    [
        {"features": "nonnegative"},
        {"loss": "mse", "depth": 2},
        {"bias": "free"},
        {"bias": "decayed", "bias_decay": 0.1},
        {"batch_size": None, "optimizer": "sgd", "schedule": "step"},
    ],
)
def test_other_problems_run_too(tmp_path, changes):
    config = CONFIG.replace(settings=CONFIG.settings[:1], epochs=2, **changes)
    result = run(config, tmp_path)[0]
    assert result["last"]["excess"] > 0
    final = store.load_run(tmp_path).settings[0].final
    if config.depth > 1:
        assert set(final) == set(store.FINAL_ARRAYS)
        weight, means = final["weight"].astype(float), final["class_means"]
        assert final["partial_classifiers"][0] == pytest.approx(weight @ weight.T, abs=1e-6)
        assert final["partial_means"][0] == pytest.approx(means.T @ means)


# -- networks, optimisers, decays ------------------------------------------------------------------

#: Options under which a run must resume to the same numbers; one setting of few epochs each.
VARIANTS = {
    "resnet18, sgd, milestones, fixed classifier": {
        "network": "resnet18",
        "network_options": {"width": 2, "last_relu": True},
        "feature_dim": None,
        "hidden": (256, 256),
        "optimizer": "sgd",
        "lr": 0.1,
        "schedule": "milestones",
        "milestones": (1, 3),
        "head": "fixed_etf",
        "bias": "free",
    },
    "narrow vgg11, warm-up, random labels, oversampled": {
        "network": "vgg11",
        "network_options": {"width": 2},
        "feature_dim": 10,
        "features": "nonnegative",
        "hidden": (256, 256),
        "warmup_epochs": 3,
        "warmup_decay_factor": 0.0,
        "backbone_weight_decay": 0.1,
        "labels": "random",
        "oversample": "balance",
    },
    "batch norm, decay on all, warm-up, time limit": {
        "network_options": {"batch_norm": True},
        "decay_on": "all",
        "warmup_epochs": 3,
        "max_seconds": 1000.0,
    },
    "lbfgs": {"optimizer": "lbfgs", "lr": 1.0, "batch_size": None, "schedule": "constant"},
}


def test_decays_that_are_warmed_up_from_zero_to_the_end_change_no_weight(tmp_path):
    """What the refusal of decays of zero points to."""
    bare = {"epochs": 3, "warmup_epochs": 3, "warmup_decay_factor": 0.0}
    config = CONFIG.replace(settings=((1e-6, 1e-6), (0.5, 0.5)), **bare)
    run(config, tmp_path)
    small, large = (setting.final["weight"] for setting in store.load_run(tmp_path).settings)
    assert np.array_equal(small, large)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_resumed_with_each_option_ends_in_the_same_numbers(tmp_path, variant):
    config = CONFIG.replace(settings=CONFIG.settings[:1], epochs=4, **VARIANTS[variant])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    (result,) = run(config, whole, resume=True)
    with pytest.raises(KeyboardInterrupt):
        run(config, parts, progress=Stop(0, 3, ctrl_c))
    assert store.load_run(parts).settings[0].paths.checkpoint.exists()
    run(config, parts, resume=True)
    assert_same_numbers(parts, whole)
    assert (result["status"], result["epochs"]) == ("trained", 4)
    assert result["last"]["excess"] > 0
    assert RunConfig.from_dict(store.load_run(whole).config) == config


def test_network_of_the_configuration_is_trained(tmp_path):
    config = CONFIG.replace(
        settings=CONFIG.settings[:1],
        epochs=1,
        network="resnet18",
        network_options={"width": 2, "last_relu": True},
        feature_dim=None,
        hidden=(256, 256),
        head="fixed_etf",
    )
    run(config, tmp_path)
    (setting,) = store.load_run(tmp_path).settings
    state = torch.load(setting.paths.checkpoint, weights_only=True)["state_dict"]
    assert state["backbone.conv1.weight"].shape == (2, 1, 3, 3)
    assert state["head.frame"].shape == (10, 16)
    assert setting.final["features"].shape == (55, 16)
    assert setting.final["features"].min() >= 0


@pytest.mark.parametrize(("head_init", "kept"), [("uniform", False), ("orthogonal", True)])
def test_head_starts_as_asked_for(tmp_path, head_init, kept):
    still = {"optimizer": "sgd", "momentum": 0.0, "lr": 1e-9, "epochs": 1}
    config = CONFIG.replace(settings=CONFIG.settings[:1], loss="mse", depth=3, **still)
    run(config.replace(head_init=head_init), tmp_path)
    final = store.load_run(tmp_path).settings[0].final
    assert np.allclose(final["partial_classifiers"], np.eye(10), atol=1e-5) == kept
    assert np.allclose(final["partial_means"][2], final["partial_means"][0], atol=1e-5) == kept


def test_random_labels_and_oversampling_are_what_is_trained_on(tmp_path):
    one = CONFIG.replace(settings=CONFIG.settings[:1], epochs=1, batch_size=None)
    inputs = {}
    for name, changes in {
        "true": {},
        "random": {"labels": "random"},
        "factors": {"oversample": "1x5,2x5"},
        "balance": {"oversample": "balance"},
    }.items():
        config = one.replace(**changes)
        run(config, tmp_path / name)
        (setting,) = store.load_run(tmp_path / name).settings
        inputs[name] = np.sort(setting.final["features"].sum(axis=1))
        counts = np.bincount(setting.final["labels"]).tolist()
        assert counts == setting.problem.counts.tolist() == config.problems[0].counts.tolist()
    assert counts == [8] * 10
    plain = store.load_run(tmp_path / "true").settings[0]
    random = store.load_run(tmp_path / "random").settings[0]
    assert random.problem == plain.problem
    # The same images in the same order: other labels alone.
    assert not np.array_equal(random.final["labels"], plain.final["labels"])
    assert len(inputs["factors"]) == 5 * 8 + 5 * 6
    assert len(np.unique(inputs["factors"].round(4))) <= 55


def test_decay_on_all_is_recorded_and_gets_no_verdict(tmp_path):
    config = CONFIG.replace(settings=CONFIG.settings[:1], epochs=1, decay_on="all")
    (result,) = run(config, tmp_path)
    assert "decays of the prediction are not those of the training" in result["notes"][0]
    assert len(result["verdicts"]) == 2
    for verdict in result["verdicts"]:
        assert verdict["agrees"] is None
        assert "No verdict: training decayed all parameters" in verdict["sentence"]


@pytest.mark.parametrize(
    ("changes", "length", "noted"),
    [
        ({"counts": "5x10"}, None, False),
        ({"counts": "5x10", "decay_on": "all"}, 1.0, True),
        ({}, None, True),  # imbalanced: the predicted classifier is no ETF
        ({"counts": "5x10", "loss": "mse"}, None, True),  # an orthogonal frame
        ({"counts": "5x10", "settings": [(5.0, 5.0)]}, 1.0, True),  # all is zero
    ],
)
def test_fixed_etf_is_as_long_as_the_predicted_classifier(tmp_path, changes, length, noted):
    config = CONFIG.replace(
        **({"settings": CONFIG.settings[:1], "epochs": 1, "head": "fixed_etf"} | changes)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        (result,) = run(config, tmp_path)
    (setting,) = store.load_run(tmp_path).settings
    weight = setting.final["weight"].astype(float)
    gram = weight @ weight.T
    predicted = np.diagonal(setting.predicted.classifier).mean() ** 0.5
    length = predicted if length is None else length
    off = -1 / 9
    etf = length**2 * ((1 - off) * np.eye(10) + off)
    assert gram == pytest.approx(etf, abs=1e-5 * length**2)
    assert bool(result["notes"]) == noted
    assert result["verdicts"]
    if noted:
        assert all(verdict["agrees"] is None for verdict in result["verdicts"])


def test_fixed_etf_reaches_the_bound_of_the_balanced_problem(tmp_path):
    config = CONFIG.replace(
        counts="4x10",
        settings=((2e-2, 2e-3),),
        head="fixed_etf",
        optimizer="lbfgs",
        lr=1.0,
        batch_size=None,
        schedule="constant",
        epochs=20,
        measure_every=20,
    )
    (result,) = run(config, tmp_path)
    # The trained head's minimum is the fixed one's, for its rows have the predicted length.
    assert 0 <= result["last"]["excess"] < 1e-3 * result["first"]["excess"]
    assert result["last"]["logits_to_predicted"] < 0.02
    assert [verdict["agrees"] for verdict in result["verdicts"]] == [True]


def test_max_seconds_ends_with_an_epoch_and_says_so(tmp_path):
    config = CONFIG.replace(settings=CONFIG.settings[:1], max_seconds=1e-6)
    (result,) = run(config, tmp_path)
    assert (result["status"], result["epochs"], result["finished"]) == ("out of time", 1, True)
    assert store.load_run(tmp_path).settings[0].history["epoch"].tolist() == [0, 1]
    paths = store.load_run(tmp_path).settings[0].paths
    paths.result.unlink()
    # Killed before its result was there: no epoch more, the time is up already.
    (again,) = run(config, tmp_path, resume=True)
    assert (again["epochs"], again["last"]) == (1, result["last"])
    assert store.load_run(tmp_path).settings[0].classes["epochs"].tolist() == [0, 1]


@pytest.mark.parametrize("missing", ["/nowhere", "~nobody-here/x"])
def test_the_folder_of_data_sets_has_the_name_of_the_configuration(tmp_path, missing):
    with pytest.raises(ValueError, match=f"^data_root: got '{missing}', "):
        run(CONFIG.replace(data="mnist", data_root=missing), tmp_path / "out")


def test_place_may_change_when_resuming(finished, tmp_path):
    folder, results = finished
    assert run(CONFIG.replace(data_root=tmp_path), folder, resume=True) == results


@pytest.mark.slow  # starts a second process
def test_two_devices_train_as_one(tmp_path):
    """The same steps, for the shares of a batch are equally large; what differs is rounding."""
    config = CONFIG.replace(
        counts="8x5,4x5", optimizer="sgd", lr=0.1, epochs=3, device="cpu", batch_size=20
    )
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        from tightframe.runs.train import RunConfig, run

        config = RunConfig.from_dict({config.replace(devices=2).to_dict()!r})
        assert len(run(config, sys.argv[1], resume=True)) == 2
        """)
    )
    environment = os.environ | {"PYTHONPATH": PACKAGE}
    for _ in range(2):  # the second time all is finished
        command = [sys.executable, str(script), str(tmp_path / "two")]
        assert subprocess.run(command, env=environment, check=False, timeout=300).returncode == 0
    run(config, tmp_path / "one")
    one, two = (store.load_run(tmp_path / name) for name in ("one", "two"))
    assert one.config == two.config
    assert two.environment["devices"] == 2
    for ours, theirs in zip(two.settings, one.settings, strict=True):
        assert ours.history["objective"].to_numpy() == pytest.approx(
            theirs.history["objective"].to_numpy(), rel=1e-6
        )
        assert ours.history["step"].tolist() == theirs.history["step"].tolist()


def test_batches_are_shuffled_anew_and_nearly_equal():
    batches = Batches(55, 20, seed=0)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        parts = list(batches)
        assert sorted(len(part) for part in parts) == [18, 18, 19]
        epochs.append(torch.cat(parts))
        assert torch.equal(epochs[-1].sort().values, torch.arange(55))
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])
