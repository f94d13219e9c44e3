"""Write constraints.txt and constraints-dev.txt: the versions installed here, with their hashes.

    .venv/bin/python -m pip install uv
    .venv/bin/python -m benchmarks.pins

The first file is what `make demo` installs, the second what ``.[dev]`` needs besides. The hashes
are those of every file of a version, so that other platforms find theirs. PyTorch is in neither:
which of its builds is right, for a CPU or for a GPU, depends on the machine, and with hashes pip
takes PyPI's (see the Makefile, which has its version).
"""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
#: Not pinned here, see above.
APART = {"torch"}
DEMO, DEV = "constraints.txt", "constraints-dev.txt"
HEAD = """\
# {what}; made by 'python -m benchmarks.pins'.
# The Makefile has the version of torch.
"""


def closure(extras: str) -> set[str]:
    """Return the names of all that extras of this project need, here."""
    project = _pyproject()["project"]
    found: set[str] = set()
    waiting = [Requirement(text) for text in [*project["dependencies"], f"tightframe[{extras}]"]]
    seen = set()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        key = name, frozenset(needed.extras)
        if key in seen:
            continue
        seen.add(key)
        if name == project["name"]:
            for own in needed.extras:
                waiting += [Requirement(text) for text in project["optional-dependencies"][own]]
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or []:
            inner = Requirement(text)
            wanted = needed.extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in wanted):
                waiting.append(inner)
    return found - APART


def _pyproject() -> dict[str, Any]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        return tomllib.load(file)


def write(name: str, what: str, packages: set[str], more: Iterable[str] = ()) -> None:
    """Write the installed versions of packages, and others, with the hashes of all their files."""
    pins = [f"{package}=={importlib.metadata.version(package)}" for package in sorted(packages)]
    pins += more
    version = ".".join(map(str, sys.version_info[:3]))
    command = [sys.executable, "-m", "uv", "pip", "compile", "--no-deps", "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--quiet", "--python-version", version, "-"]
    made = subprocess.run(
        command, input="\n".join(pins), text=True, check=True, stdout=subprocess.PIPE
    ).stdout
    (ROOT / name).write_text(HEAD.format(what=what) + made, encoding="utf-8")


def pinned(name: str) -> dict[str, str]:
    """Return the versions in one of the files, by package."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+) \\$", text, re.MULTILINE))


def main() -> None:
    """Write both files."""
    # The newest of what builds the package, which is then built without downloading anything.
    build = _pyproject()["build-system"]["requires"]
    names = {canonicalize_name(Requirement(text).name) for text in build}
    demo, dev = closure("lightning,report") - names, closure("dev") - names
    write(DEMO, "What .[lightning,report] needs", demo, build)
    write(DEV, "What .[dev] needs besides constraints.txt", dev - demo)


if __name__ == "__main__":
    main()
