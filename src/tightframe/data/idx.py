"""The IDX format of MNIST: a header of type and shape, then the values, most significant first."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.files import require_fetched

#: Type code, the third byte of the file, to the type of the values.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

_MAX_BYTES = 2**31
_MAX_DIMENSIONS = 32  # NumPy's own limit before 2.0


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = _MAX_BYTES) -> NDArray[Any]:
    """Read an array from an IDX file, plain or compressed with gzip.

    Which of the two it is says its content, not its name. Nothing is read beyond what the header
    announces, so a small file cannot unpack into a large one.

    Parameters
    ----------
    path : path-like
    max_bytes : int
        Largest array to accept, 2 GiB.

    Returns
    -------
    ndarray
        In the shape of the header; uint8, int8, int16, int32, float32 or float64, native order.

    Raises
    ------
    ValueError
        If the file is missing, not an IDX file, of another length than its header says, or larger
        than ``max_bytes``; the message names it.

    References
    ----------
    Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", section
    "File formats".
    """
    name = os.fspath(path)
    if not Path(path).is_file():  # a pipe or a device would never end
        raise ValueError(f"{name}: no such file")
    try:
        require_fetched(path)
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed:
                return _read(file, name, max_bytes)
            with gzip.open(file) as unpacked:
                return _read(unpacked, name, max_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name}: cannot be read as an IDX file ({error})") from None


def _read(file: IO[bytes] | gzip.GzipFile, name: str, max_bytes: int) -> NDArray[Any]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise ValueError(f"{name}: not an IDX file (it starts with {magic!r}, need two zero bytes)")
    code, dimensions = magic[2], magic[3]
    if code not in _TYPES:
        allowed = ", ".join(f"0x{known:02X}" for known in _TYPES)
        raise ValueError(f"{name}: IDX type 0x{code:02X}, allowed are {allowed}")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise ValueError(
            f"{name}: IDX array of {dimensions} dimensions, allowed are 1 to {_MAX_DIMENSIONS}"
        )
    header = file.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise ValueError(f"{name}: ends within its IDX header")
    shape = struct.unpack(f">{dimensions}I", header)
    dtype = np.dtype(_TYPES[code])
    size = math.prod(shape) * dtype.itemsize
    if size > max_bytes:
        raise ValueError(
            f"{name}: IDX array of shape {shape} takes {size} bytes, at most {max_bytes} are read"
        )
    values = _read_up_to(file, size + 1)  # one byte more, to see that the file ends there
    if len(values) != size:
        raise ValueError(
            f"{name}: the header announces {size} bytes of shape {shape}, the file has "
            f"{'more' if len(values) > size else len(values)}"
        )
    array = np.frombuffer(values, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_up_to(file: IO[bytes] | gzip.GzipFile, size: int) -> bytearray:
    """Read at most ``size`` bytes; memory grows with what is there, not with what is announced."""
    values = bytearray()
    while len(values) < size and (part := file.read(min(size - len(values), 2**20))):
        values += part
    return values
