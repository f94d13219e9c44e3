"""Command lines with junk in them: an exit code of the contract, one line, no traceback.

Every command starts from a line that works; a few of its options are changed, added or dropped,
with values that are nearly right, wrong or absurd. How much is worked (epochs, starts, points) is
not made absurd, for that is asked for, not junk.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.contract import broken
from tightframe.cli import entry


def _words(text, *more):
    return [*text.split(), *more]


NUMBERS = _words(
    "1e-3 0.1 5 0 -1 -0.0 nan inf -inf 1e400 1e-400 1e308 5e-324 1_0 0x10 1e x 1,2 1,,2 ½ ٣ True "
    "None 1:2 0.1:1:3 1:0:3 1:2:0 1:2:x 1:2:3:4",
    *("", " ", " 1 ", "9" * 400, "1," * 50, "-", "--", "\udcff", "1\n2"),
)
WHOLES = _words(
    "1 2 3 0 -1 1.5 1e3 nan inf x 1,2 8,,4 ٣ ½ 0x3 True",
    *("", " 2", "9" * 30),
)
WORK = _words("1 2 0 -1 1.5 x nan", "")
COUNTS = _words(
    "5x2,3 3,3,3 4x5,2x5 1 0 5x0 0x5 5x 5xx2 x5 5x2, ,5 5;2 5x2x3 -5x2 5.5x2 1e3x2 nan a:5 "
    "5x999999999999 99999999999999999999x2 1x1 2x1000,1 prior balanced 0.5*prior nan*prior "
    "1x5,10x5 inf,1 1e400 -1,2 ٣,٣",
    *("", " ", ",", "9" * 400 + "x2", "1," * 2000 + "1", "[3, 3]", "{'a': 3}"),
)
WORDS = ["", "x", "None", "\udcff", "a" * 5000, "../..", "{}"]
#: Options that say how much work is wanted, or start what no test may.
WORKING = {
    *("--starts", "--epochs", "--depth", "--classes", "--measure-every", "--threads", "--jobs"),
    *("--warmup-epochs", "--devices", "--hidden", "--feature-dim", "--dim"),
}
LEFT_OUT = {"--download", "--open", "--scheduler", "--device"}

PROBLEM = {"--counts": "5x2,3", "--weight-decay": "0.02", "--feature-decay": "0.01"}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Files of every kind, right ones and others; results are written to a folder of their own."""
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [5, 5, 3])
    arrays = {"features": rng.normal(size=(13, 4)), "labels": labels}
    np.savez(folder / "features.npz", weight=rng.normal(size=(3, 4)), **arrays)
    np.savez(folder / "logits.npz", logits=rng.normal(size=(3, 3)))
    np.save(folder / "labels.npy", labels)
    (folder / "labels.txt").write_text("a\nb\na\n")
    (folder / "labels.csv").write_text("label\n1\n0\n")
    (folder / "config.yaml").write_text("weight_decay: 5e-4\nbatch_size: 4\n")
    (folder / "text.npz").write_text("no archive")
    (folder / "empty.npy").write_bytes(b"")
    (folder / "empty").mkdir()
    return folder


def lines_of(material, results):
    """Return for every command the line that works, its options and its positional arguments."""
    out = str(results / "out")
    train = {
        **{"--out": out, "--counts": "4x5,2x5", "--epochs": "1", "--hidden": "4"},
        **{"--weight-decay": "0.02", "--feature-decay": "0.0002", "--feature-dim": "9"},
    }
    features, logits = str(material / "features.npz"), str(material / "logits.npz")
    return {
        "solve": (PROBLEM, []),
        "thresholds": (PROBLEM, []),
        "path": ({"--counts": "5x2,3", "--lambda": "0.01:0.1:3"}, []),
        "certify": (PROBLEM, [logits]),
        "advise": (PROBLEM, []),
        "measure": ({"--weight-decay": "0.02", "--feature-decay": "0.01"}, [features]),
        "run": (train, []),
        "reproduce": ({"--list": None}, []),
        "report": ({}, [str(material / "empty")]),
        "explore": ({"--port": "70000", "--no-open": None}, []),
    }


def value_for(option, rng, material, results):
    """Return a value for an option: right, nearly right or absurd."""
    kind = option.kind
    if kind.type is bool:
        return None
    if kind.type is Path:
        files = [str(file) for file in sorted(material.iterdir())]
        pool = [
            *files,
            *(str(results / name) for name in ("out", "new.npz", "new/er/file.npz", "out.txt")),
            *("", "/", "/dev/null", "/proc/none/x", "a" * 5000, "\udcff", "nowhere", " "),
        ]
    elif option.typed in WORKING:
        pool = WORK
    elif kind.metavar and "|" in kind.metavar and kind.metavar.islower():
        pool = [*kind.metavar.split("|"), *WORDS]
    elif kind.metavar and "INTEGER" in kind.metavar:
        pool = WHOLES
    elif kind.metavar == "NAME=VALUE":
        pool = ["", "=", "a", "a=", "=1", "batch_norm=true", "batch_norm=NaN", "a=" + "[" * 10**5]
    elif kind.metavar and ("NUMBER" in kind.metavar or "DEGREES" in kind.metavar):
        pool = [*NUMBERS, *COUNTS] if kind.type is str else NUMBERS
    elif option.name == "data":
        pool = ["digits", "mnist", "cifar10", str(material / "features.npz"), *WORDS]
    else:
        pool = [*COUNTS, *WORDS]
    return str(rng.choice(np.array(pool, dtype=object)))


def random_line(rng, material, results, commands):
    """Return one command line, drawn from a generator."""
    name = str(rng.choice(commands))
    options, positional = lines_of(material, results)[name]
    options, positional = dict(options), list(positional)
    known = {o.typed: o for o in _command(name).options if o.typed not in LEFT_OUT}
    for typed in rng.choice(sorted(known), size=rng.integers(1, 4)):
        if rng.random() < 0.1:
            options.pop(typed, None)
        else:
            options[typed] = value_for(known[typed], rng, material, results)
    if positional and rng.random() < 0.3:
        positional = [value_for(_PATH, rng, material, results)] * int(rng.integers(0, 3))
    if name == "reproduce" and "--list" not in options:
        positional = ["none/such"]
    if name == "explore" and options.get("--port", "0").strip().isdecimal():
        options["--port"] = "70000"  # a good one would serve for ever
    words = [w for typed, value in options.items() for w in (typed, value) if w is not None]
    if rng.random() < 0.05:
        words.append(str(rng.choice(np.array(["--nonsense", "-x", "--", "extra"], dtype=object))))
    return [name, *positional, *words]


def _command(name):
    return next(c.callback for c in entry.app.registered_commands if c.callback.__name__ == name)


_PATH = next(option for option in _command("solve").options if option.kind.type is Path)


def fuzz(capfd, material, results, seed, calls, commands):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(calls):
        line = random_line(rng, material, results, commands)
        problem = broken(capfd, line)
        if problem:
            found.append(f"{[word[:80] for word in line]!r}\n    {problem}")
    assert not found, "\n".join(found)


QUICK = ["solve", "thresholds", "path", "certify", "advise", "explore", "reproduce", "report"]


def test_a_sample_of_command_lines(capfd, material, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fuzz(capfd, material, tmp_path, 0, 20, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_command_lines(capfd, material, tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    fuzz(capfd, material, tmp_path, seed, 200, [*QUICK, "measure", "run"])
