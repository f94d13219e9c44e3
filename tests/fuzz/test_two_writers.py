"""Two commands started together on one new folder: one writes it, the other gets one line."""

import os
import sys

import pytest

from tests import processes
from tests.fuzz.test_kills import COMMANDS, record
from tests.reproduce.toy_paper import GOOD
from tightframe.cli import run_command
from tightframe.reproduce import spec


def _write(name, out, said):
    spec.papers = lambda: GOOD
    for number, file in ((1, os.devnull), (2, said)):
        with open(file, "w") as target:
            os.dup2(target.fileno(), number)
    sys.exit(run_command([*COMMANDS[name], "--out", str(out)]))


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(3))
@pytest.mark.parametrize("name", COMMANDS)
def test_one_of_two_writers_is_refused(tmp_path, name, trial):
    out = tmp_path / "out"
    said = [tmp_path / f"{i}.txt" for i in range(2)]
    codes = processes.run_all([(_write, name, out, file) for file in said])
    assert sorted(codes) == [0, 2]
    line = said[codes.index(2)].read_text()
    assert line.startswith("tightframe: ")
    assert line.count("\n") == 1
    assert processes.run(_write, name, tmp_path / "alone", tmp_path / "alone.txt") == 0
    assert record(out) == record(tmp_path / "alone")
