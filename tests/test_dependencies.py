"""Dependencies: all are pinned with hashes, and all have licences that go with Apache-2.0."""

import importlib.metadata
import re

import pytest

from benchmarks import pins

PINNED = {
    name: version
    for file in (pins.RUNTIME, pins.DEV)
    for name, version in pins.pinned(file).items()
}

#: Permissive licences, as SPDX names them.
PERMISSIVE = {
    *("Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "ISC", "Zlib"),
    *("BSD-2-Clause", "BSD-3-Clause", "0BSD", "BSL-1.0", "CC0-1.0", "PSF-2.0", "CNRI-Python"),
}

#: The Mozilla licence asks for the source of its own files only, where these are handed on. These
#: packages are used as they come, and nothing of them is in this one.
MOZILLA = {"certifi", "hypothesis", "pathspec", "tqdm"}

#: Docutils' is that of an Emacs mode, which is not in what pip installs; the rest is in the public
#: domain or under BSD licences.
BESIDES = {"docutils": {"Public Domain", "GNU General Public License (GPL)"}}

#: What older metadata says instead of a name of SPDX.
WORDS = {
    r"Apache( Software)?( 2| 2\.0)?( License)?": "Apache-2.0",
    r"BSD( License)?|(3-Clause BSD|BSD 3-Clause) License|3-clause BSD": "BSD-3-Clause",
    r"BSD 2-Clause License": "BSD-2-Clause",
    r"MIT License": "MIT",
    r"ISC License( \(ISCL\))?": "ISC",
    r"Mozilla Public License 2\.0 \(MPL 2\.0\)": "MPL-2.0",
    r"Python Software Foundation License": "PSF-2.0",
}


def licences(name):
    """Return the licences of an installed package, by its metadata; of alternatives one."""
    metadata = importlib.metadata.metadata(name)
    text = metadata.get("License-Expression")
    if text is None:
        classified = [
            line.rpartition(" :: ")[2]
            for line in metadata.get_all("Classifier") or []
            if line.startswith("License :: ")
        ]
        text = " AND ".join(classified) or metadata.get("License") or "none"
    found = set()
    for part in re.split(r"\s+AND\s+", text.strip()):
        choices = [
            _spdx(choice) for choice in re.split(r"\s+OR\s+", re.sub(r"^\((.*)\)$", r"\1", part))
        ]
        found.add(next((choice for choice in choices if choice in PERMISSIVE), choices[0]))
    return found


def _spdx(words):
    return next((spdx for old, spdx in WORDS.items() if re.fullmatch(old, words)), words)


@pytest.mark.parametrize("name", sorted(PINNED.keys() | pins.APART))
def test_licences_go_with_apache(name):
    allowed = PERMISSIVE | ({"MPL-2.0"} if name in MOZILLA else set()) | BESIDES.get(name, set())
    assert licences(name) <= allowed


def test_everything_needed_is_pinned():
    missing = pins.closure("dev") - PINNED.keys()
    assert missing == set()


@pytest.mark.parametrize("file", [pins.RUNTIME, pins.DEV])
def test_every_pin_has_its_hashes(file):
    lines = (pins.ROOT / file).read_text().splitlines()
    kinds = [
        "pin"
        if re.fullmatch(r"[a-z0-9._-]+==\S+ \\", line)
        else "hash"
        if re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?", line)
        else "comment"
        if line.startswith("#")
        else line
        for line in lines
    ]
    assert set(kinds) == {"comment", "pin", "hash"}
    assert all(kinds[i + 1] == "hash" for i, kind in enumerate(kinds) if kind == "pin")
