"""What all result folders have in common: one JSON file that says what the folder is the record of.

It holds at least ``format`` (version of the folder's layout), ``config`` (everything that the
numbers in the folder depend on), ``config_hash`` and ``environment``. It is written first, and a
folder is only gone on with under the same configuration, by one process at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tightframe.files import read_json, to_plain, write_json
from tightframe.runs.writer import writing
from tightframe.version import __version__

_SHORT = reprlib.Repr()
_SHORT.maxlist = 2


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that identify a configuration.

    Equal for equal values, whatever the order of the keys.
    """
    text = json.dumps(to_plain(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment(packages: Iterable[str]) -> dict[str, Any]:
    """Return the machine and the versions of Python and of packages (None: not installed)."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            # Run from its sources, as the record of a commit is, it has a version all the same.
            versions[package] = __version__ if package == "tightframe" else None
    machine = {"platform": platform.platform(), "processor": processor(), "cores": cores()}
    return {"versions": versions, **machine}


def processor() -> str:
    """Return the processor's name, or what there is of it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_record(path: Path, what: str, layout: int, keys: Collection[str]) -> dict[str, Any]:
    """Read the file that says what a folder holds.

    Parameters
    ----------
    path : Path
    what : str
        What the folder should hold, for messages: ``"run"``.
    layout : int
        The version of the layout that is known.
    keys : collection of str
        What there must be in the file.

    Raises
    ------
    ValueError
        If the file is missing, is something else, or has another layout.
    """
    if not path.is_file():
        raise ValueError(f"{path.parent}: holds no {what} (there is no {path.name})")
    record = read_json(path)
    if not (
        isinstance(record, dict)
        and record.keys() >= set(keys)
        and isinstance(record["config"], dict)
    ):
        raise ValueError(f"{path}: not the record of a {what}")
    if record["format"] != layout:
        raise ValueError(f"{path}: layout {record['format']}, this version reads layout {layout}")
    return record


@contextlib.contextmanager
def using_record(folder: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Make whatever the use of a folder's record ends in a ValueError that names the folder.

    Its files are read for what they are; that a number in them is a number shows where it is
    used, in hundreds of places, and is never wrong unless somebody has changed it.

    Parameters
    ----------
    folder : path-like
    what : str
        As in `read_record`.

    Raises
    ------
    ValueError
    """
    try:
        yield
    except ValueError as error:
        if os.fspath(folder) in str(error):
            raise
        raise ValueError(f"{os.fspath(folder)}: {error}") from error
    except (ImportError, OSError, MemoryError):
        raise
    except Exception as error:  # a KeyError, jinja2's UndefinedError, ...
        raise ValueError(
            f"{os.fspath(folder)}: not the record of a {what} ({type(error).__name__}: {error})"
        ) from error


@contextlib.contextmanager
def open_folder(
    path: Path, what: str, record: Mapping[str, Any], *, resume: bool
) -> Iterator[None]:
    """Start a folder by writing its record, or go on with one of the same configuration.

    While the block runs nobody else writes there, see `tightframe.runs.writer.writing`.

    Parameters
    ----------
    path : Path
        The record's file, in the folder.
    what : str
        As in `read_record`.
    record : mapping
        ``format``, ``config``, ``environment`` and what else the layout has; ``config_hash`` is
        added.
    resume : bool
        Whether a folder that is there may be gone on with.

    Raises
    ------
    ValueError
        If the folder holds a record and ``resume`` is False, a record of another configuration, or
        something else; or somebody else writes there.
    """
    _refuse_foreign(path, what)  # before a lock is put among somebody's files
    with writing(path.parent):
        _refuse_foreign(path, what)
        if path.exists():
            _refuse_other(path, what, record, resume=resume)
        else:
            config = to_plain(record["config"])
            write_json(path, {**record, "config": config, "config_hash": config_hash(config)})
        yield


def _refuse_foreign(path: Path, what: str) -> None:
    """Refuse a folder with something in it that is no record."""
    out = path.parent
    if path.exists() or not os.path.lexists(out):
        return
    # Names with a dot in front are a lock, or the rest of a process killed while writing.
    if not (out.is_dir() and all(entry.name.startswith(".") for entry in out.iterdir())):
        raise ValueError(f"out: {out} is not an empty folder and holds no {what}")


def _refuse_other(path: Path, what: str, record: Mapping[str, Any], *, resume: bool) -> None:
    """Refuse a record that is not to be gone on with, or of another configuration."""
    out, config = path.parent, to_plain(record["config"])
    if not resume:
        raise ValueError(f"out: {out} already holds a {what}; resume it or name another folder")
    stored = read_record(path, what, record["format"], {*record, "config_hash"})["config"]
    for key in sorted(config.keys() | stored.keys()):
        if config.get(key) != stored.get(key):
            raise ValueError(
                f"out: {out} holds a {what} with another configuration ({key} is "
                f"{_SHORT.repr(stored.get(key))} there, {_SHORT.repr(config.get(key))} here)"
            )
