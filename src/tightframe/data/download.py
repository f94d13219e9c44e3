"""Files from the web, checked against a published checksum before they get their name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tightframe.files import replacing

_TIMEOUT = 30.0  # seconds without a byte
_PART = 2**18


@dataclass(frozen=True)
class RemoteFile:
    """A file of known content on the web.

    Attributes
    ----------
    name : str
        Its name on disk.
    urls : tuple of str
        Mirrors, tried in turn.
    sha256 : str
        Checksum in hexadecimal.
    size : int
        Bytes; no more are read.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    size: int


def download(file: RemoteFile, folder: Path) -> Path:
    """Fetch a file into a folder, unless it is there.

    It is written under a temporary name, checked, and then renamed: what bears its name has its
    content, whatever happens on the way. A terminal shows the progress, on standard error.

    Parameters
    ----------
    file : RemoteFile
    folder : Path
        Made if need be.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If a file of this name but another content is there; it is left alone.
    OSError
        If no mirror delivers the file, with the reason of each; or it cannot be written.
    """
    target = folder / file.name
    if target.exists():
        if _checksum(target) == file.sha256:
            return target
        raise ValueError(
            f"{target}: is not the published file (SHA-256 {file.sha256}); move it away to "
            "download that one"
        )
    reasons = []
    for url in file.urls:
        try:
            with replacing(target) as temporary:
                _fetch(url, temporary, file)
            return target
        except _FailedError as error:
            reasons.append(f"{url}: {error}")
    raise OSError(f"{target}: cannot be downloaded ({'; '.join(reasons)})")


class _FailedError(Exception):
    """A mirror that does not deliver; no OSError, which would be one of writing the file."""


def _fetch(url: str, path: Path, file: RemoteFile) -> None:
    # What only a download needs: it takes longer to import than the rest of the package.
    import http.client
    import urllib.request

    digest = hashlib.sha256()
    size = 0
    try:
        response = urllib.request.urlopen(url, timeout=_TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        raise _FailedError(str(error)) from None
    with response, open(path, "wb") as out, _Progress(file) as advance:
        while part := _receive(response, http.client.HTTPException):
            size += len(part)
            if size > file.size:
                raise _FailedError(f"is larger than the published {file.size} bytes")
            digest.update(part)
            out.write(part)
            advance(len(part))
    if size < file.size:
        raise _FailedError(f"ends after {size} of {file.size} bytes")
    if digest.hexdigest() != file.sha256:
        raise _FailedError(f"has SHA-256 {digest.hexdigest()}, published is {file.sha256}")


def _receive(response: IO[bytes], failure: type[Exception]) -> bytes:
    try:
        return response.read(_PART)
    except (OSError, failure) as error:
        raise _FailedError(str(error)) from None


class _Progress:
    """A bar on a terminal's standard error; nothing elsewhere."""

    def __init__(self, file: RemoteFile) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        self._bar = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self._bar.add_task(file.name, total=file.size)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        return lambda size: self._bar.advance(self._task, size)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
