"""The command's standard output and error: what becomes of what cannot be written."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="through a POSIX shell")

SOLVE = "solve --counts 50,20 --weight-decay .005 --feature-decay .001"
LONG = "path --counts 50,20 --lambda 1e-4:1e-1:500 --json"  # more than a pipe holds
CLOSED = "tightframe: standard output is closed; send it to /dev/null if it is not wanted\n"


#: Output is lost when it is flushed, or where it is written.
BUFFERING = {"buffered": "", "unbuffered": "1"}


@pytest.fixture(params=["buffered"])
def shell(request, tmp_path):
    """Run a line in a shell in which `tf` is the command; return its exit code and output."""
    script = tmp_path / "tf"
    script.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from tightframe.cli import main; main()' \"$@\"\n"
    )
    script.chmod(0o755)

    def run(line):
        done = subprocess.run(
            ["bash", "-c", f"{line}"],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "PYTHONUNBUFFERED": BUFFERING[request.param],
            },
        )
        return done.returncode, done.stdout, done.stderr

    return run


both = pytest.mark.parametrize("shell", BUFFERING, indirect=True)


def commands(*lines):
    """All of them with buffers, one without: it loads for most of a second."""
    rows = [("buffered", line) for line in lines] + [("unbuffered", lines[0])]
    return pytest.mark.parametrize(("shell", "arguments"), rows, indirect=["shell"])


@commands(LONG, f"{SOLVE}", f"{SOLVE} --json", "solve --help")
def test_a_reader_that_leaves_ends_it_without_a_word(shell, arguments):
    code, out, err = shell(f"tf {arguments} | true; echo ${{PIPESTATUS[0]}}")
    assert (code, out, err) == (0, "141\n", "")


@both
def test_head_gets_its_line(shell):
    code, out, err = shell(f"tf {LONG} | head -1; echo ${{PIPESTATUS[0]}}")
    assert (code, out, err) == (0, "{\n141\n", "")


@both
def test_what_a_pipe_holds_is_not_lost(shell):
    code, out, err = shell(f"set -o pipefail; tf {SOLVE} --json | cat")
    assert (code, err) == (0, "")
    assert json.loads(out)["status"] == "optimal"


@commands(SOLVE, f"{SOLVE} --json", "--version", "solve --help")
def test_a_closed_standard_output_is_refused(shell, arguments):
    assert shell(f"tf {arguments} >&-") == (2, "", CLOSED)


def test_nothing_is_begun_without_a_standard_output(shell, tmp_path):
    code, _, err = shell(f"tf path --counts 50,20 --lambda 1e-3,1e-2 --out {tmp_path}/p >&-")
    assert (code, err) == (2, CLOSED)
    assert not (tmp_path / "p").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
@commands(SOLVE, f"{SOLVE} --json", "--version")
def test_a_full_disk_is_told(shell, arguments):
    line = "tightframe: standard output: No space left on device\n"
    assert shell(f"tf {arguments} >/dev/full") == (2, "", line)


def test_a_closed_standard_error_spoils_no_output(shell):
    code, out, _ = shell(f"tf {SOLVE} --json 2>&-")
    assert (code, json.loads(out)["status"]) == (0, "optimal")
    assert shell("tf solve --counts 50 --weight-decay 1 --feature-decay 1 --json 2>&-") == (
        2,
        "",
        "",
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_lost_error_line_keeps_the_exit_code(shell):
    assert shell("tf solve --counts 50 --weight-decay 1 --feature-decay 1 2>/dev/full")[0] == 2


def test_sigterm_is_said_and_keeps_what_was_finished(shell, tmp_path):
    """As a batch system sends it, while a grid is solved that takes minutes."""
    out = tmp_path / "grid"
    long = f"path --counts 200,90,40,20,9,4 --dim 1 --lambda 1e-4:1e-2:2000 --out {out}"
    code, _, err = shell(
        f"tf {long} & pid=$!; until [ -e {out}/grid.json ]; do sleep .1; done; kill $pid; wait $pid"
    )
    assert code == 143
    resume = f"tightframe: kept; go on with: tightframe path --out {out} --resume"
    assert err.splitlines()[-2:] == [resume, "tightframe: interrupted"]
    assert (out / "points.csv").exists()
