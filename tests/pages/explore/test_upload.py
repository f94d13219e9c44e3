import io
import subprocess
import sys

import numpy as np
import pytest

import tightframe as tf
from tests.pages.explore import files
from tightframe.pages.explore import upload
from tightframe.pages.explore.state import State
from tightframe.pages.explore.upload import KEPT, Shelf, measure_file
from tightframe.pages.explore.views import measured_tables

STATE = State(counts="40x3,10x2")


def test_both_formats_are_measured(tmp_path):
    for path in files.good(tmp_path, STATE):
        key, measured = (shelf := Shelf()).add(io.BytesIO(path.read_bytes()), path.name)
        assert shelf.get(key) is measured
        assert shelf.get("another") is None
        assert shelf.get(None) is None
        assert measured.counts == "4x5"
        solution = tf.solve(STATE.problem())
        assert measured.report.geometry.distance(solution.geometry) < 0.05
        margins = measured.margins(STATE.problem())
        np.testing.assert_allclose(margins.sibling, solution.group_margins, rtol=0.1)
        assert measured.fits(STATE.problem())
        assert not measured.fits(State().problem())


def test_the_classes_are_shown_first(tmp_path):
    arrays = {"features": np.eye(3).repeat(4, axis=0), "labels": np.arange(3).repeat(4)}
    weight = np.eye(3)[[0, 0, 2]] * [[2], [1], [1]]  # class 1 has no logit of its own
    np.savez(tmp_path / "x.npz", weight=weight, **arrays)
    measured = measure_file(tmp_path / "x.npz", "x.npz")
    assert [row.name for row in measured.classes.lost] == ["1"]
    _, table, remarks, *_ = measured_tables(measured, None)
    assert "Classes, worst first" in str(table.to_plotly_json())
    assert "1 of 3 classes is lost: 1." in str(remarks.to_plotly_json())


def test_a_bias_that_the_problem_has_not_is_said_and_the_rest_shown(tmp_path):
    arrays = {"features": np.eye(3).repeat(4, axis=0), "labels": np.arange(3).repeat(4)}
    np.savez(tmp_path / "x.npz", weight=3 * np.eye(3), bias=np.array([0.1, 0, 0]), **arrays)
    measured = measure_file(tmp_path / "x.npz", "x.npz")
    decays = {"weight_decay": 1e-2, "feature_decay": 1e-3}
    shown = {
        bias: str(measured_tables(measured, tf.solve(tf.Problem("4x3", bias=bias, **decays))))
        for bias in ("none", "free")
    }
    assert all("Classes, worst first" in text for text in shown.values())
    assert "It has a bias, the problem has none" in shown["none"]
    assert "(certified)" in shown["free"]


def test_a_shelf_forgets_the_oldest(tmp_path):
    content = files.good(tmp_path, STATE)[0].read_bytes()
    shelf = Shelf()
    keys = [shelf.add(io.BytesIO(content), "a.npz")[0] for _ in range(KEPT + 1)]
    assert [shelf.get(key) is None for key in keys] == [True] + [False] * KEPT


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return folder, files.hostile(folder)


def test_hostile_files_are_refused_and_named(hostile):
    folder, messages = hostile
    of_arrays = ("missing.npz", "one.npz", "wide.npz", "text.npz")
    for name, message in messages.items():
        with pytest.raises(ValueError, match=message) as error:
            Shelf().add(io.BytesIO((folder / name).read_bytes()), f"../../{name}")
        assert "\n" not in str(error.value)
        assert "tightframe-" not in str(error.value)  # the temporary folder
        assert name in str(error.value) or name in of_arrays


def test_an_upload_that_is_too_large_is_cut_off(monkeypatch):
    monkeypatch.setattr(upload, "MAX_UPLOAD", 3 * 2**20)

    class Endless(io.RawIOBase):
        read_so_far = 0

        def read(self, size=-1):
            self.read_so_far += size
            return bytes(size)

    stream = Endless()
    with pytest.raises(ValueError, match=r"big\.npz: larger than 3 MiB"):
        Shelf().add(stream, "big.npz")
    assert stream.read_so_far < 2**23


def test_too_many_classes_or_numbers_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez(path, features=np.zeros((2, 2)), labels=[0, 1], weight=np.zeros((1500, 2)))
    with pytest.raises(ValueError, match="weight: got 1500 classes, this page measures up to"):
        measure_file(path, "x.npz")
    monkeypatch.setattr(upload, "MAX_NUMBERS", 3)
    with pytest.raises(ValueError, match="features: got 4 numbers, this page measures up to 3"):
        measure_file(path, "x.npz")


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_refusing_hostile_files_takes_little_memory(hostile):
    folder, names = hostile
    code = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from tightframe.pages.explore.upload import measure_file\n"
        "import tightframe.runs.measure\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak()\n"
        "for name in sys.argv[2:]:\n"
        "    try:\n"
        "        measure_file(Path(sys.argv[1]) / name, name)\n"
        "    except ValueError:\n"
        "        continue\n"
        "    raise SystemExit(name)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), *names], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 64  # MiB
