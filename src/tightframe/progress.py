"""How far long work is: one line that is written over, where somebody watches.

Terminals and notebooks take it alike. Nothing is written of work that is done within a second.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

#: Called with how many steps are done, how many there may be, and what goes on, in words; a true
#: answer asks the work to end with what it has.
Progress = Callable[[int, int, str], object]

#: What ``progress`` may be: such a function; True, the line; False, nothing; None, the line where
#: Python is used by hand: a notebook, IPython, Python's own prompt.
ProgressLike = Progress | bool | None

#: Seconds of work before the line is written, and between two times that it is.
PATIENCE, INTERVAL = 1.0, 0.2

#: Letters of the line; the last place of narrow terminals stays free.
WIDTH = 79


@contextlib.contextmanager
def watched(progress: ProgressLike, what: str) -> Iterator[Progress | None]:
    """Give what long work tells how far it is; None where nobody is told.

    Parameters
    ----------
    progress : callable, bool or None
        See `ProgressLike`.
    what : str
        The work, in a word: ``"searching"``.

    Raises
    ------
    ValueError
        If ``progress`` is something else.
    """
    if progress is not None and not isinstance(progress, bool):
        if not callable(progress):
            raise ValueError(f"progress: got {progress!r}, need a function, or None, True or False")
        yield progress
        return
    by_hand = hasattr(sys, "ps1")  # IPython and notebooks have it too
    if progress is False or (progress is None and not by_hand) or sys.stderr is None:
        yield None
        return
    line = _Line(what)
    try:
        yield line
    finally:
        line.clear()


class _Line:
    """A line on standard error about one work; it counts the seconds whatever the work does."""

    def __init__(self, what: str) -> None:
        self._what, self._began = what, time.monotonic()
        self._told, self._length = "", 0
        self._ended = threading.Event()
        self._writer: threading.Thread | None = None

    def __call__(self, done: int, total: int, name: str = "") -> None:
        """Take note of how far the work is."""
        share = f" {done} of {total}" if total else ""
        self._told = share + (f" ({name})" if share and name else f" {name}" if name else "")
        if self._writer is None:  # work that tells nothing needs no thread
            self._writer = threading.Thread(target=self._write_on, daemon=True)
            self._writer.start()

    def clear(self) -> None:
        """Leave nothing of the line."""
        self._ended.set()
        if self._writer is not None:
            self._writer.join()
        if self._length:
            sys.stderr.write(f"\r{' ' * self._length}\r")
            sys.stderr.flush()

    def _write_on(self) -> None:
        wait = PATIENCE
        while not self._ended.wait(wait):
            seconds = time.monotonic() - self._began
            text = f"{self._what}{self._told}, {seconds:.0f} s"[:WIDTH]
            sys.stderr.write(f"\r{text.ljust(self._length)}")
            sys.stderr.flush()
            self._length, wait = len(text), INTERVAL


@contextlib.contextmanager
def loading(module: str) -> Iterator[None]:
    """Say what is imported where that takes a while, as PyTorch does, and somebody watches."""
    with watched(None, f"loading {module}") as tell:
        told(tell, 0, 0)
        yield


def told(progress: Progress | None, done: int, total: int, name: str = "") -> Any:
    """Tell how far work is, if anybody is told; return the answer."""
    return None if progress is None else progress(done, total, name)
