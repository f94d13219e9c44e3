import json
import os

import numpy as np
import pandas as pd
import pytest

from tightframe.runs import store


def test_config_hash_ignores_the_order_of_keys():
    assert store.config_hash({"a": 1, "b": [1, 2.5]}) == store.config_hash({"b": (1, 2.5), "a": 1})
    assert store.config_hash({"a": 1}) != store.config_hash({"a": 2})
    assert len(store.config_hash({})) == 16


def test_parquet_round_trip_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    table = pd.DataFrame({"epoch": [0, 1], "x": [np.nan, 1.5]})
    store.write_parquet(path, table)
    pd.testing.assert_frame_equal(pd.read_parquet(path), table)

    def half(self, file, **kwargs):
        file.write_bytes(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(KeyboardInterrupt):
        store.write_parquet(path, table)
    pd.testing.assert_frame_equal(pd.read_parquet(path), table)
    assert os.listdir(tmp_path) == ["t.parquet"]


def write_run(folder, **changes):
    run = {
        "format": store.FORMAT,
        "config": {"seed": 0},
        "config_hash": "0" * 16,
        "settings": ["a", "b"],
        "environment": {"versions": {}},
    }
    store.write_json(folder / "run.json", run | changes)


def test_load_run_of_an_unfinished_run(tmp_path):
    write_run(tmp_path)
    paths = store.setting_paths(tmp_path, "a")
    store.write_json(
        paths.prediction,
        {"problem": {"counts": "5x3", "weight_decay": 0.1, "feature_decay": 0.2}},
    )
    store.write_parquet(paths.history, pd.DataFrame({"epoch": [0]}))
    record = store.load_run(tmp_path)
    first, second = record.settings
    assert (first.name, second.name) == ("a", "b")
    assert not record.finished
    assert first.problem.num_classes == 3
    assert first.history["epoch"].tolist() == [0]
    assert (first.final, first.measured, first.predicted, first.result) == (None,) * 4
    assert (second.prediction, second.problem, second.history) == (None,) * 3


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f: None, "holds no run"),
        (lambda f: (f / "run.json").write_text("{"), "run.json: not a JSON file"),
        (lambda f: (f / "run.json").write_text("[]"), "not the record of a run"),
        (lambda f: write_run(f, format=99), "layout 99, this version reads layout 1"),
        (lambda f: write_run(f, settings=["../.."]), "name: got '../..'"),
    ],
)
def test_load_run_refuses(tmp_path, write, message):
    write(tmp_path)
    with pytest.raises(ValueError, match=message):
        store.load_run(tmp_path)


def test_load_run_names_a_broken_table(tmp_path):
    write_run(tmp_path)
    paths = store.setting_paths(tmp_path, "a")
    paths.folder.mkdir(parents=True)
    paths.history.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"history.parquet: not a Parquet table"):
        store.load_run(tmp_path)


def test_json_is_strict(tmp_path):
    store.write_json(tmp_path / "x.json", {"a": float("nan"), "b": np.float32(1.5)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": 1.5}
