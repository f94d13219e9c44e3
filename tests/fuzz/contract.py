"""The contract of a command line: its exit code, its one line, its one JSON object."""

import json
import re
import warnings

import pytest

from tests.fuzz.guards import ending
from tightframe.cli import run_command

_WARNING = re.compile(r"tightframe: warning: .*")
#: Hints that are no errors, see `tightframe.cli.run` and `tightframe.cli.path`.
_HINT = re.compile(r"tightframe: (nothing to resume in|kept; go on with:) .*")
_OF_NUMPY = re.compile("encountered in|Mean of empty|Degrees of freedom|Casting|divide by zero")


def broken(capfd, line):
    """Run a command line and return what breaks the contract, None if nothing does."""
    capfd.readouterr()
    try:
        with ending(), warnings.catch_warnings():
            code = run_command(line)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}"
    out, err = capfd.readouterr()
    lines = [s for s in err.splitlines() if not (_WARNING.fullmatch(s) or _HINT.fullmatch(s))]
    if code not in (0, 2, 3):
        return f"exit code {code}: {err[-300:]}"
    if _OF_NUMPY.search(err):
        return f"a warning of NumPy: {err[-300:]}"
    if code == 2 and (len(lines) != 1 or not lines[0].startswith("tightframe: ")):
        return f"exit code 2 with {len(lines)} lines: {err[-300:]}"
    if code == 2 and out and line[0] != "reproduce":
        return f"exit code 2 with output: {out[-300:]}"
    if code in (0, 3) and "--json" in line and "--help" not in line:
        try:
            json.loads(out, parse_constant=lambda name: pytest.fail(name))
        except ValueError as error:
            return f"no JSON object: {error}: {out[-300:]}"
    return None
