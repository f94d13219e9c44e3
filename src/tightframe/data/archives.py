"""Members of a .tar.gz archive, read into memory; nothing is unpacked onto the disk."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Collection
from pathlib import Path

from tightframe.files import require_fetched

#: The CIFAR archives unpack into 0.2 GB.
_MAX_BYTES = 2**30

_DAMAGED = (OSError, EOFError, ValueError, OverflowError, zlib.error)


def read_members(
    path: str | os.PathLike[str], names: Collection[str], *, max_bytes: int = _MAX_BYTES
) -> dict[str, bytes]:
    """Read some members of a ``.tar.gz`` archive, in one pass.

    Parameters
    ----------
    path : path-like
    names : collection of str
        Full names of the members, matched exactly; others are passed over.
    max_bytes : int
        The archive may unpack into as much, 1 GiB; a small file that unpacks into a huge one is
        stopped there.

    Returns
    -------
    dict
        Bytes of every member in ``names``.

    Raises
    ------
    ValueError
        If the archive is missing or damaged, unpacks into more than ``max_bytes``, or a member is
        missing, double or not a file; the message names the archive.
    """
    import tarfile

    archive = os.fspath(path)
    if not Path(path).is_file():
        raise ValueError(f"{archive}: no such file")
    found: dict[str, bytes] = {}
    try:
        require_fetched(path)
        with (
            gzip.open(path) as unpacked,
            tarfile.open(fileobj=_Limited(unpacked, max_bytes), mode="r|") as members,  # type: ignore[call-overload]  # any object that reads
        ):
            for member in members:
                if member.name not in names:
                    continue
                file = members.extractfile(member) if member.isreg() else None
                if file is None or member.name in found:
                    raise tarfile.ReadError(f"{member.name} is double or not a plain file")
                found[member.name] = file.read()
                if len(found[member.name]) != member.size:
                    raise tarfile.ReadError(f"it ends within {member.name}")
    # RecursionError: a chain of headers that each announce another one.
    except (*_DAMAGED, tarfile.TarError, RecursionError) as error:
        raise ValueError(f"{archive}: cannot be read as .tar.gz ({error})") from None
    missing = sorted(set(names) - set(found))
    if missing:
        raise ValueError(f"{archive}: has no {', '.join(missing)}")
    return found


class _Limited:
    """The reading end of a stream, up to a number of bytes."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int) -> bytes:
        data = self._stream.read(max(0, min(size, self._left + 1)))
        self._left -= len(data)
        if self._left < 0:
            raise OSError("it unpacks into more than is accepted")
        return data
