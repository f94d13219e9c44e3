"""What once ended in a traceback, or never, is one line and exit code 2."""

import json
import os
import pwd
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests import processes
from tests.cli.test_cli import DECAYS, SOLVE
from tests.runs.test_measure import network
from tightframe.cli import run_command

STEP = ["--counts", "50,20", *DECAYS]


def test_a_weighted_mean_without_weights(fails):
    line = "tightframe: --class-weights: missing; a weighted mean needs them\n"
    assert fails("advise", *STEP, "--weighted-mean") == line


def test_a_classifier_without_measure(fails, tmp_path):
    path, arrays = tmp_path / "x.npz", network()
    np.savez(path, **arrays | {"weight": arrays["weight"] * 1e300})
    for options in ([], DECAYS):
        assert f"{path}: weight: largest entry is" in fails("measure", path, *options)
    np.savez(path, weight=np.eye(2) * 1e300, class_means=np.eye(2) * 1e300)
    assert "logits: entries must be finite" in fails("certify", path, *STEP)


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
def test_a_pipe_is_not_waited_for(fails, tmp_path, name):
    os.mkfifo(tmp_path / name)
    line = f"tightframe: {tmp_path / name}: is no regular file\n"
    assert fails("measure", tmp_path / name) == line
    assert fails("certify", tmp_path / name, *STEP) == line
    assert fails("advise", "--from-run", tmp_path / name) == line


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.parquet", "x.txt"])
def test_a_pipe_of_labels_is_not_waited_for(fails, tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert "is no file" in fails("advise", "--labels", tmp_path / name, *DECAYS)


def test_damaged_labels(fails, tmp_path):
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }('\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "x.npy").write_bytes(content)
    pd.DataFrame({"labels": [0, 1]}).to_parquet(tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(whole[:-60] + bytes(30) + whole[-30:])
    for name in ("x.npy", "x.parquet"):
        message = fails("advise", "--labels", tmp_path / name, *DECAYS)
        assert f"{tmp_path / name}: not " in message


@pytest.mark.parametrize(
    ("record", "arguments"),
    [
        ("run.json", ["report"]),
        ("reproduce.json", ["report"]),
        ("grid.json", ["path", "--resume", "--out"]),
        ("run.json", ["run", "--resume", "--out"]),
        ("reproduce.json", ["reproduce", "hong-ling/limit", "--resume", "--out"]),
        ("run.json", ["advise", "--from-run"]),
    ],
)
def test_a_record_that_is_nested_without_end(fails, tmp_path, record, arguments):
    (tmp_path / record).write_text("[" * 100_000 + "]" * 100_000)
    assert f"{record}: not a JSON file" in fails(*arguments, tmp_path)


def test_an_option_that_is_nested_without_end(fails, tmp_path):
    deep = "width=" + "[" * 100_000 + "]" * 100_000
    arguments = ["--network", "resnet18", "--network-option", deep]
    assert "width" in fails("run", "--out", tmp_path / "run", *arguments)


NO_HOME = "tightframe: --data: mnist is not on this machine", "this user has no home folder"


def run_without_home(arguments, said):
    """Run the command with standard error in a file."""

    def unknown(number):
        raise KeyError(number)

    pwd.getpwuid = unknown
    for name in ("HOME", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)
    with open(said, "w") as sys.stderr:
        sys.exit(run_command(arguments))


@pytest.mark.skipif(sys.platform != "linux", reason="a user without a home folder")
def test_no_home_folder(tmp_path):
    """The home is looked up by the user's number where HOME is not set."""
    arguments = ["run", "--data", "mnist", "--out", str(tmp_path / "run")]
    assert processes.run(run_without_home, arguments, tmp_path / "said") == 2
    said = (tmp_path / "said").read_text()
    assert said.count("\n") == 1
    assert all(words in said for words in NO_HOME)


@pytest.mark.slow  # loads PyTorch and Lightning without a home, too
@pytest.mark.skipif(sys.platform != "linux", reason="a user without a home folder")
def test_no_home_folder_from_the_start(tmp_path):
    code = (
        "import pwd\n"
        "def unknown(number): raise KeyError(number)\n"
        "pwd.getpwuid = unknown\n"
        "from tightframe.cli import main; main()"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    environment |= {"MPLCONFIGDIR": str(tmp_path)}
    arguments = ["run", "--data", "mnist", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert all(words in done.stderr for words in NO_HOME)


# -- files that the command did not write ----------------------------------------------------------


def test_solve_replaces_its_own_file_and_no_other(command, fails, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, logits=np.eye(2), weights_of_a_friend=np.eye(3))
    before = path.read_bytes()
    line = f"tightframe: --out: {path} is there and was not written by this command; name another "
    assert fails(*SOLVE, "--out", path) == line + "file, or replace it with --force\n"
    assert path.read_bytes() == before
    assert command(*SOLVE, "--out", path, "--force")[0] == 0
    with np.load(path) as arrays:
        assert "class_means" in arrays
    other = ["solve", "--counts", "20,10", "--loss", "mse", "--depth", "2", *DECAYS]
    assert command(*other, "--out", path, "--json")[0] == 0  # its own, of another problem
    with np.load(path) as arrays:
        assert arrays["logits"].shape == (2, 2)
        assert "weight_2" in arrays


@pytest.mark.parametrize("kind", ["text", "empty", "folder", "pipe", "link", "lost link"])
def test_solve_replaces_nothing_that_is_no_solution(fails, tmp_path, kind):
    path = tmp_path / "x.npz"
    {
        "text": lambda: path.write_text("thesis"),
        "empty": lambda: path.write_bytes(b""),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(__file__),
        "lost link": lambda: path.symlink_to(tmp_path / "nowhere"),
    }[kind]()
    before = os.lstat(path)
    assert "was not written by this command" in fails(*SOLVE, "--out", path)
    assert os.lstat(path).st_ino == before.st_ino


def test_nothing_is_solved_for_a_file_that_is_refused(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tightframe.cli.theory.solve_problem", lambda *_, **__: pytest.fail("solved")
    )
    (tmp_path / "x.npz").write_text("thesis")
    fails(*SOLVE, "--out", tmp_path / "x.npz")


def test_json_is_all_that_force_adds_to(command, tmp_path):
    code, out, err = command(*SOLVE, "--out", tmp_path / "x.npz", "--force", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["status"] == "optimal"
