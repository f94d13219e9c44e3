"""A run on text: what is predicted, recorded, gone on with, and refused."""

import numpy as np
import pandas as pd
import pytest

import tightframe as tf
from tests.problems import SMALL_TEXT
from tightframe.geometry.dense import normalized_distance, simplex_etf
from tightframe.problem.tokens import next_tokens
from tightframe.runs import store
from tightframe.runs.calibrated import calibrate_saved
from tightframe.runs.diagnosed import diagnose_saved
from tightframe.runs.measure import measure
from tightframe.runs.network_files import read_network
from tightframe.runs.text_config import TextConfig
from tightframe.runs.text_task import TextTask
from tightframe.runs.text_verdicts import text_verdicts
from tightframe.runs.train import run

FOUND = next_tokens(SMALL_TEXT.strip(), 2, 5)
DECAYS = {"weight_decay": 2e-2, "feature_decay": 2e-4}
SMALL = {"min_count": 5, "settings": [(2e-2, 2e-4)], "hidden": (8,), "embedding_dim": 4}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "cat.txt"
    path.write_text(SMALL_TEXT, encoding="utf-8")
    return TextConfig(data=str(path), epochs=5, measure_every=2, **SMALL)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    return folder, run(config, folder)


def expected_problem(**rest):
    return tf.Problem.from_tokens(SMALL_TEXT.strip(), context=2, min_count=5, **DECAYS | rest)


def test_record_on_disk(finished, config):
    folder, (result,) = finished
    record = store.load_run(folder)
    (setting,) = record.settings
    solution = tf.solve(expected_problem())
    assert record.on_text
    assert record.finished
    assert TextConfig.from_dict(record.config).replace(digest=None) == config
    assert setting.result == result
    assert setting.problem == expected_problem()
    assert setting.problem.class_names == FOUND.labels
    assert setting.prediction["contexts"] == [list(context) for context in FOUND.contexts]
    assert setting.prediction["objective"] == solution.objective
    assert setting.prediction["text"]["left_out"] == FOUND.left_out
    assert setting.history["epoch"].tolist() == [0, 2, 4, 5]
    assert result["last"] == setting.history.iloc[-1].to_dict()
    assert set(setting.final) == set(store.TEXT_FINAL_ARRAYS)
    assert set(setting.prediction_arrays) == set(store.TEXT_PREDICTION_ARRAYS)
    arrays = setting.prediction_arrays
    assert arrays["weight"] @ arrays["features"] == pytest.approx(solution.logits)


def test_final_arrays_are_the_last_measurement(finished):
    setting = store.load_run(finished[0]).settings[0]
    last, final, arrays = setting.result["last"], setting.final, setting.prediction_arrays
    w, h = final["weight"].astype(float), final["features"].astype(float).T
    own, best = w @ h, arrays["weight"] @ arrays["features"]
    assert normalized_distance(own, best) == pytest.approx(last["logits_to_predicted"])
    etf = simplex_etf(len(w)).classifier
    assert normalized_distance(w @ w.T, etf) == pytest.approx(last["classifier_to_etf"])
    certified = tf.certify(setting.problem, own)
    assert certified.dual <= last["objective"]


def test_gone_on_with_it_ends_in_the_same_numbers(finished, config, tmp_path, monkeypatch):
    """Ended in the middle, as by a kill, and resumed."""

    class Killed(BaseException):
        pass

    def killed(self, solution, final):
        raise Killed

    monkeypatch.setattr(TextTask, "judged", killed)
    with pytest.raises(Killed):
        run(config, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="already holds a run"):
        run(config, tmp_path / "out")
    run(config, tmp_path / "out", resume=True)
    ours, theirs = (store.load_run(f).settings[0] for f in (tmp_path / "out", finished[0]))
    pd.testing.assert_frame_equal(
        ours.history.drop(columns="seconds"), theirs.history.drop(columns="seconds")
    )
    assert np.array_equal(ours.final["weight"], theirs.final["weight"])


def test_another_text_is_no_resumption(config, tmp_path):
    path = tmp_path / "own.txt"
    path.write_text(SMALL_TEXT)
    own = config.replace(data=str(path), epochs=1)
    run(own, tmp_path / "out")
    path.write_text(SMALL_TEXT * 2)
    with pytest.raises(ValueError, match=r"with another configuration \(digest is"):
        run(own, tmp_path / "out", resume=True)
    stored = TextConfig.from_dict(store.read_run_file(tmp_path / "out")["config"])
    with pytest.raises(ValueError, match=r"data: the file own\.txt has changed: its digest is"):
        run(stored, tmp_path / "out", resume=True)


def test_a_seed_is_another_start(config):
    weights = []
    for seed in (0, 0, 1):
        task = TextTask(config.replace(seed=seed))
        module = task.module(tf.solve(task.problems[0]))
        weights.append(module.head[-1].weight.detach().numpy())
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_width_by_default_and_given(config):
    solution = tf.solve(expected_problem())
    module = TextTask(config).module(solution)
    assert module.head[-1].in_features == solution.rank + 8
    wide = config.replace(feature_dim=40)
    assert TextTask(wide).module(solution).head[-1].in_features == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_dim": 1}, "dim: got 1, and the minimiser has rank"),
        ({"min_count": 100}, "min_count: got 100, and the most frequent context was seen"),
        ({"data": "nowhere.txt"}, r"data: nowhere\.txt: no such file"),
        ({"digest": "0" * 16}, r"data: the file cat\.txt has changed"),
    ],
)
def test_refused_before_a_folder_is_made(config, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(config.replace(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_text_of_one_context_is_refused(config, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 50)
    with pytest.raises(ValueError, match="min_count: got 5, which leaves 1 contexts and 1 next"):
        run(config.replace(data=str(tmp_path / "a.txt")), tmp_path / "out")


@pytest.mark.parametrize(
    "use", [calibrate_saved, diagnose_saved, lambda folder: measure(read_network(folder))]
)
def test_what_needs_classes_refuses_the_folder(finished, use):
    with pytest.raises(ValueError, match="is of a run on text, whose contexts have laws"):
        use(finished[0])


def test_verdicts():
    row = {
        "relative_excess": 2e-6,
        "logits_to_predicted": 0.004,
        "classifier_to_predicted": 0.02,
        "means_to_predicted": np.nan,
        "classifier_to_etf": 0.8,
        "beyond_rank": 2e-4,
    }
    found = {verdict["name"]: verdict for verdict in text_verdicts(22, row)}
    assert {name: verdict["agrees"] for name, verdict in found.items()} == {
        "objective": True,
        "logits": True,
        "classifier": False,
        "means": None,
        "width": True,
    }
    assert "0.02 from the predicted, 0.8 from the ETF's" in found["classifier"]["sentence"]
    assert [v["agrees"] for v in text_verdicts(22, row | {"beyond_rank": 0.02})][-1] is False
    assert [v["agrees"] for v in text_verdicts(0, row)][-1] is None


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["samples", "contexts"])
def test_the_text_that_ships_ends_at_the_certified_optimum(tmp_path, weights):
    """The goal of the demonstration, by default and with contexts that decay once."""
    config = TextConfig(feature_weights=weights)
    (result,) = run(config, tmp_path / "out")
    last = result["last"]
    assert 0 < last["relative_excess"] < 1e-5
    assert last["classifier_to_predicted"] < 0.01
    assert last["classifier_to_etf"] > 0.5
    assert all(verdict["agrees"] for verdict in result["verdicts"])
