"""Decays are fitted to a run's folder or a file; what has none is refused by its name."""

import shutil

import numpy as np
import pytest

from tightframe.runs.calibrated import calibrate_saved
from tightframe.runs.config import RunConfig
from tightframe.runs.store import setting_paths
from tightframe.runs.train import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two settings, trained for an epoch."""
    out = tmp_path_factory.mktemp("run") / "out"
    run(RunConfig(counts="8x5,2x5", hidden=(8,), feature_dim=10, epochs=1, measure_every=1), out)
    return out


@pytest.mark.parametrize(
    ("setting", "options", "message"),
    [
        (None, {}, "setting: .* has several, name one: w0.02-h0.0002, w0.08-h0.0008"),
        ("none", {}, "setting: got 'none', .* has w0.02-h0.0002, w0.08-h0.0008"),
        ("w0.02-h0.0002", {"bias": "free"}, "bias: given for a run's folder, whose record has it"),
    ],
)
def test_bad_questions_to_a_run_are_named(folder, setting, options, message):
    with pytest.raises(ValueError, match=message):
        calibrate_saved(folder, setting, **options)


def test_an_unfinished_setting_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    setting_paths(copy, "w0.02-h0.0002").final.unlink()
    with pytest.raises(ValueError, match=r"setting: w0.02-h0.0002 of .* to the end"):
        calibrate_saved(copy, "w0.02-h0.0002")


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("x.npz", None, "x.npz: features: missing; there are logits"),
        ("x.npz", "a", "setting: got 'a', but .*x.npz is no run's folder"),
        ("nowhere.npz", None, "nowhere.npz: no such file"),
        ("nowhere.xyz", None, "need .npz, .safetensors"),
    ],
)
def test_files_without_a_network_are_named(tmp_path, name, setting, message):
    np.savez(tmp_path / "x.npz", logits=np.ones(3))
    with pytest.raises(ValueError, match=message):
        calibrate_saved(tmp_path / name, setting)
