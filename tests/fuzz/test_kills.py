"""Killed with SIGKILL at random moments of its work, a command that resumes ends with the same."""

import csv
import functools
import json
import os
import signal
import sys

import numpy as np
import pytest

from tests import processes
from tests.fuzz.test_damaged_files import PATH, RUN
from tests.reproduce.toy_paper import GOOD
from tightframe.cli import run_command
from tightframe.reproduce import spec

COMMANDS = {
    "path": ["path", *PATH],
    "run": ["run", *RUN, "--epochs", "3"],
    "reproduce": ["reproduce", "toy"],
}
#: What no two runs have in common.
VOLATILE = {"seconds", "started", "finished", "created", "time", "elapsed", "digest"}


def _work(name, out, resume, last, told):
    """Run a command in this process; die at the ``last``-th event that has to do with its folder.

    Between two such events nothing happens on the disk but the writing of an opened file.
    """
    spec.papers = lambda: GOOD
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        if any(isinstance(a, (str, bytes)) and str(out) in os.fsdecode(a) for a in arguments):
            seen += 1
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    code = run_command([*COMMANDS[name], "--out", str(out), *(["--resume"] if resume else [])])
    told.write_text(str(seen))
    sys.exit(code)


def record(folder):
    """Return everything that a results folder says, without what no two runs have in common."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.name.startswith(".") or not file.is_file() or "logs" in file.parts:
            continue  # logs tell of every start
        if file.suffix == ".json":
            found[name] = _steady(json.loads(file.read_text()))
        elif file.suffix == ".csv":
            with open(file, newline="") as text:
                found[name] = [_steady(row) for row in csv.DictReader(text)]
        elif file.suffix == ".npz":
            with np.load(file) as arrays:
                found[name] = {key: arrays[key].tolist() for key in arrays.files}
        else:
            found[name] = None  # pages and pictures: that they are there
    return found


def _steady(value):
    if isinstance(value, dict):
        return {
            key: _steady(inner)
            for key, inner in value.items()
            if not any(word in key for word in VOLATILE)
        }
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """For every command, the record of a run that nothing disturbs, and how many events it has."""
    base = tmp_path_factory.mktemp("undisturbed")

    def one(name):
        out, told = base / name, base / f"{name}.txt"
        assert processes.run(_work, name, out, False, 0, told) == 0
        return record(out), int(told.read_text())

    return functools.cache(one)


def killed_and_resumed(name, folder, moments):
    """Kill a command at one moment after the other, then let it finish; return its record."""
    out, resume = folder / "out", False
    for moment in moments:
        code = processes.run(_work, name, out, resume, moment, folder / "told.txt")
        # A resumed run may have fewer events than the moment drawn.
        assert code in (-signal.SIGKILL, 0)
        resume = True
    assert processes.run(_work, name, out, True, 0, folder / "told.txt") == 0
    return record(out)


def moments_of(seed, events):
    rng = np.random.default_rng(seed)
    return [int(rng.integers(1, events + 1)) for _ in range(rng.integers(1, 4))]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_work_is_resumed(undisturbed, tmp_path, name, seed):
    whole, events = undisturbed(name)
    assert killed_and_resumed(name, tmp_path, moments_of(seed, events)) == whole
