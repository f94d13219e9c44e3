"""How far long work is: told to whoever asks, and on one line where somebody watches."""

import io
import sys
import threading

import pytest
import torch
from torch import nn

import tightframe as tf
from tests.problems import make
from tightframe import progress
from tightframe.cli import console
from tightframe.lazy import handed_on
from tightframe.progress import loading, watched
from tightframe.training import continue_at, train_ufm


class Terminal(io.StringIO):
    """A standard error that says what it is, and when something was written."""

    def __init__(self, is_terminal=True):
        super().__init__()
        self.is_terminal, self.written = is_terminal, threading.Event()

    def isatty(self):
        return self.is_terminal

    def write(self, text):
        super().write(text)
        self.written.set()

    @property
    def left(self):
        """What stands on the last line."""
        line = ""
        for part in self.getvalue().split("\r"):
            line = part + line[len(part) :]
        return line


@pytest.fixture
def watch(monkeypatch):
    """Return what makes a terminal of standard error; pytest has its own before the test begins."""

    def of(**kind):
        found = Terminal(**kind)
        monkeypatch.setattr(sys, "stderr", found)
        monkeypatch.setattr(progress, "PATIENCE", 0.0)
        monkeypatch.setattr(progress, "INTERVAL", 0.01)
        return found

    return of


def test_the_line_says_how_far_it_is_and_goes(watch):
    terminal = watch()
    with watched(True, "searching") as tell:
        assert not tell(3, 12, "width 2")
        assert terminal.written.wait(10)
    assert "\rsearching 3 of 12 (width 2), 0 s" in terminal.getvalue()
    assert not terminal.left.strip()
    assert "\n" not in terminal.getvalue()


def test_the_line_counts_seconds_while_nothing_is_told(watch):
    terminal = watch()
    with watched(True, "loading") as tell:
        tell(0, 0)
        for _ in range(3):
            terminal.written.clear()
            assert terminal.written.wait(10)
    assert terminal.getvalue().count("\rloading, 0 s") >= 3


def test_a_long_line_fits_and_a_shorter_one_leaves_nothing_of_it(watch):
    terminal = watch()
    with watched(True, "searching") as tell:
        for name in ("x" * 200, "y"):
            tell(1, 2, name)
            terminal.written.clear()
            assert terminal.written.wait(10)
            terminal.written.clear()
            assert terminal.written.wait(10)
        assert terminal.left.rstrip() == "searching 1 of 2 (y), 0 s"
    assert max(map(len, terminal.getvalue().split("\r"))) <= progress.WIDTH


def test_work_that_tells_nothing_writes_nothing(watch):
    terminal = watch()
    threads = threading.active_count()
    with watched(True, "searching"):
        assert threading.active_count() == threads
    assert not terminal.getvalue()


def test_the_line_goes_when_the_work_fails(watch):
    terminal = watch()

    def fail():
        with watched(True, "searching") as tell:
            tell(1, 2, "")
            assert terminal.written.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not terminal.left.strip()


def test_who_is_told(monkeypatch):
    monkeypatch.delattr(sys, "ps1", raising=False)
    for silent in (None, False):
        with watched(silent, "searching") as tell:
            assert tell is None
    with watched(print, "searching") as tell:
        assert tell is print
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)  # as IPython and notebooks have it
    with watched(None, "searching") as tell:
        assert tell is not None
    with watched(False, "searching") as tell:
        assert tell is None
    with pytest.raises(ValueError, match="progress: got 3, need a function, or None, True or"):
        watched(3, "searching").__enter__()


def test_a_script_and_a_notebook_get_the_same(watch, monkeypatch):
    terminal = watch()
    asked = make("4x4", dim=2)
    plain = tf.solve(asked, starts=2)
    assert not terminal.getvalue()
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    assert tf.solve(asked, starts=2).objective == plain.objective
    assert "searching" in terminal.getvalue()
    assert not terminal.left.strip()


BATCHES = [(torch.eye(2).repeat(9, 1), torch.tensor([0, 1]).repeat(9))]

CALLS = {
    "solve": lambda tell: tf.solve(make("4x4", dim=2), starts=2, progress=tell),
    "path": lambda tell: tf.path(make(), weight_decay=[0.1, 0.05, 0.02, 0.01], progress=tell),
    "path of counts": lambda tell: tf.path(make(), counts=["5x2,3", "5x2,4"], progress=tell),
    "phase_diagram": lambda tell: tf.phase_diagram(
        4, [0.01, 0.1], [1, 5], minority=4, progress=tell
    ),
    "state_changes": lambda tell: tf.state_changes(make("5x2,3"), progress=tell),
    "thresholds": lambda tell: tf.thresholds(make("5x2,3"), progress=tell),
    "continue_at": lambda tell: continue_at(
        nn.Linear(2, 2), BATCHES, weight_decay=0.05, progress=tell
    ),
    "train_ufm": lambda tell: train_ufm(make("5x2,3"), iterations=250, progress=tell),
}


@pytest.mark.parametrize("name", CALLS)
def test_long_calls_tell_how_far_they_are(name):
    heard = []
    CALLS[name](lambda *told: heard.append(told))
    done = [told[0] for told in heard]
    assert len(heard) > 1
    assert all(told[0] <= told[1] for told in heard)
    if name != "solve":  # a search may go back to other widths
        assert done == sorted(done)
        assert len({total for _, total, _ in heard}) == 1


def test_advice_about_a_network_says_what_it_asks(watch):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    heard = []
    tf.advise(model, BATCHES, head="2", progress=heard.append)
    assert heard
    terminal = watch()
    tf.advise(model, BATCHES, head="2", progress=True)
    assert "\rasking (" in terminal.getvalue()
    assert not terminal.left.strip()


def test_a_true_answer_ends_the_training():
    runs = train_ufm(make("5x2,3"), iterations=10_000, progress=lambda done, *_: done >= 100)
    assert runs.interrupted
    assert runs[0].iterations == 100


@pytest.mark.parametrize(("is_terminal", "silent"), [(True, False), (False, False), (True, True)])
def test_the_command_waits_aloud_on_a_terminal_only(watch, is_terminal, silent):
    terminal = watch(is_terminal=is_terminal)
    said = is_terminal and not silent
    with console.waiting("loading PyTorch", silent=silent) as ready:
        assert not said or terminal.written.wait(10)
        ready()  # before anything else is written
        assert not terminal.left.strip()
    assert ("loading PyTorch" in terminal.getvalue()) == said


def test_a_slow_import_is_told_by_hand(watch, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    (tmp_path / "slowly.py").write_text("import time\ntime.sleep(0.05)\nname = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("tightframe.progress.PATIENCE", 0.01)
    terminal = watch()
    found = handed_on("package", {"slowly": ("name",)}, around=loading)
    assert found("name") == 3
    assert "loading slowly, 0 s" in terminal.getvalue()
    assert not terminal.left.strip()
    monkeypatch.delattr(sys, "ps1")  # a script is told nothing
    sys.modules.pop("slowly")
    before = terminal.getvalue()
    assert found("name") == 3
    assert terminal.getvalue() == before
