"""One writer a results folder: a lock of the operating system, which dies with its holder."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tightframe.files import read_json, write_json

#: The lock, and who holds it, in a file of its own: on Windows nobody else can read a locked one.
#: A holder that is killed leaves them behind, unlocked; names with a dot are no part of a record.
LOCK, HOLDER = ".lock", ".writer"

#: Seconds for which a lock is waited for: a process that was killed needs a moment to be gone.
PATIENCE = 1.0

#: What a file system without locks answers.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}

#: The folders that this process writes, and the thread of each.
_ours: set[tuple[str, int, int]] = set()

_kept: ContextVar[ExitStack | None] = ContextVar("_kept", default=None)


@contextlib.contextmanager
def writing(folder: Path, name: str = "out") -> Iterator[None]:
    """Keep all others from writing in a results folder while the block runs.

    The folder is made if need be. Within the block the same thread may ask again.

    Parameters
    ----------
    folder : Path
    name : str
        Of the argument, for messages.

    Raises
    ------
    ValueError
        If another process, or another thread of this one, writes there.
    OSError
        With the folder's name, if it cannot be written.

    Warns
    -----
    UserWarning
        If the file system has no locks; the block runs all the same.
    """
    key = os.path.realpath(folder), os.getpid(), threading.get_ident()
    if key in _ours:
        yield
        return
    with ExitStack() as own:
        stack = _kept.get() or own
        stack.enter_context(_locked(folder, name))
        _ours.add(key)
        stack.callback(_ours.discard, key)
        yield


def may_be_written(folder: Path) -> bool:
    """Tell whether somebody writes in a folder, or was killed there; `writing` knows which."""
    return (folder / LOCK).exists()


@contextlib.contextmanager
def keeping_folders() -> Iterator[None]:
    """Release what the block locks at its end only: a command's page belongs to its results."""
    with ExitStack() as stack:
        token = _kept.set(stack)
        try:
            yield
        finally:
            _kept.reset(token)


@contextlib.contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _acquired(folder, name)
            # Not before: until then the files are those of somebody else.
            stack.callback(_release, folder, lock)
            write_json(folder / HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
        except OSError as error:
            # With the name that the user knows.
            raise OSError(error.errno, error.strerror, os.fspath(folder)) from error
        yield


def _release(folder: Path, lock: Any) -> None:
    """Remove both files, while nobody else can hold the lock, and release it."""
    for name in (HOLDER, LOCK):
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)
    if lock is not None:
        lock.release()


def _acquired(folder: Path, name: str) -> Any:
    """Return the folder's lock, held; None where the file system has no locks."""
    from filelock import Timeout

    path = folder / LOCK
    try:
        while True:
            lock = _new_lock(path)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                lock.acquire(timeout=PATIENCE)
                # What was locked is what has this name, unless a holder has just removed it.
                if _is_still(file, path):
                    return lock
                lock.release()
            finally:
                os.close(file)
    except Timeout:
        raise ValueError(
            f"{name}: {folder} is being written by {_holder(folder)}; a results folder has one "
            "writer at a time"
        ) from None
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    warnings.warn(
        f"{folder}: its file system has no locks, so that nothing keeps another process from "
        "writing there at the same time",
        stacklevel=2,
    )
    return None


def _new_lock(path: Path) -> Any:
    from filelock import FileLock

    try:  # a mark instead of a lock would outlive a holder that is killed
        return FileLock(path, fallback_to_soft=False)
    except TypeError:  # older versions have no marks either
        return FileLock(path)


def _is_still(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(folder: Path) -> str:
    try:
        told = read_json(folder / HOLDER)
        return f"process {told['pid']} on {told['host']}"
    except (ValueError, OSError, KeyError, TypeError):  # it has not said so yet
        return "another process"
