"""Variables of MATLAB's own files, versions 4 to 7, every size and type checked before it is used.

SciPy's reader takes these on trust: a damaged byte can end the process. Formats: "MAT-File Format"
(MathWorks). What is no array of numbers or text (sparse matrices, objects) is left out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Variables = Iterator[tuple[str, NDArray[Any]]]

#: Types of stored numbers, and encodings of stored texts, by their codes.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
_STORED |= {13: "u8"}
_ENCODED = {1: "utf-8", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15

#: Classes of variables.
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8"}
_NUMBERS |= {15: "u8"}
_IS_COMPLEX = 0x800

#: Types of stored numbers in version 4.
_OLD = ("f8", "f4", "i4", "i2", "u2", "u1")

_HEADER = 128


class HDF5Error(ValueError):
    """Raised for version 7.3, which is an HDF5 file."""


def variables(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the variables of a file by their names; those inside a struct have dotted names.

    Columns and rows are arrays of one axis, and cells of texts are arrays of text.

    Parameters
    ----------
    content : bytes

    Raises
    ------
    HDF5Error
        Of version 7.3.
    ValueError
        If it is damaged.
    """
    if len(content) < 20:
        raise ValueError("it is cut off")
    # Text begins a later file, a number below 5,000 one of version 4.
    try:
        found = [*(_old if 0 in content[:4] else _new)(content)]
    except (zlib.error, IndexError) as error:
        raise ValueError(f"it is damaged: {error}") from None
    # Every variable of MATLAB has two axes at least.
    return {
        name: array.ravel() if array.ndim == 2 and 1 in array.shape else array
        for name, array in found
        if name
    }


# -- versions 5 to 7 -------------------------------------------------------------------------------


def _new(content: bytes) -> Variables:
    marks = {b"IM": ("<", 125), b"MI": (">", 124)}
    order, place = marks.get(content[126:_HEADER], ("", 0))
    if order and content[place] == 2:
        raise HDF5Error
    if not order or content[place] != 1:
        raise ValueError("its header has no version that there is")
    for kind, data in _elements(memoryview(content)[_HEADER:], order):
        if kind == _COMPRESSED:
            for inner, unpacked in _elements(memoryview(zlib.decompress(data)), order):
                yield from _variable(inner, unpacked, order)
        else:
            yield from _variable(kind, data, order)


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield types and contents of what follows one another."""
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            raise ValueError("it is cut off")
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start, padding = at + 8, -size % 8
        if kind >> 16:  # at most four bytes are in the place of their number
            kind, size = kind & 0xFFFF, kind >> 16
            start, padding = at + 4, 4 - size
        if padding < 0 or start + size > len(data):
            raise ValueError("it is cut off, or damaged")
        yield kind, data[start : start + size]
        at = start + size + (0 if kind == _COMPRESSED else padding)


def _variable(kind: int, data: memoryview, order: str) -> Variables:
    """Yield a variable, or the fields of a struct; nothing of other kinds."""
    if kind != _MATRIX:
        raise ValueError(f"it has data of type {kind} where a variable should be")
    parts = list(_elements(data, order))
    if len(parts) < 3:  # an empty cell, or an object
        return
    flags = int(_numbers(*parts[0], order)[0])
    shape = tuple(_numbers(*parts[1], order).tolist())
    name, rest = bytes(parts[2][1]).decode("utf-8", "replace"), parts[3:]
    if min(shape, default=-1) < 0:
        raise ValueError(f"{name} has shape {shape}")
    form = flags & 0xFF
    if form in _NUMBERS and rest:
        array = _numbers(*rest[0], order).astype(_NUMBERS[form])
        if flags & _IS_COMPLEX:
            array = array + 1j * _numbers(*rest[1], order)
        yield name, array.reshape(shape, order="F")
    elif form == _CHAR:
        yield name, _texts(_decoded(*rest[0], order) if rest else "", shape)
    elif form == _CELL:
        cells = [[found for _, found in _variable(*cell, order)] for cell in rest]
        if cells and all(_is_text(cell) for cell in cells):
            yield name, np.array([str(found) for cell in cells for found in cell[0]])
    elif form == _STRUCT and len(rest) >= 2 and set(shape) == {1}:
        length = int(_numbers(*rest[0], order)[0])
        names = bytes(rest[1][1])
        for number, field in enumerate(rest[2:]):
            own = names[number * length :][:length].partition(b"\0")[0].decode("utf-8", "replace")
            for inner, found in _variable(*field, order):
                yield f"{name}.{own}{'.' if inner else ''}{inner.removeprefix('.')}", found


def _numbers(kind: int, data: memoryview, order: str) -> NDArray[Any]:
    if kind not in _STORED:
        raise ValueError(f"it has numbers of type {kind}, which there is none of")
    return np.frombuffer(data, f"{order}{_STORED[kind]}")


def _decoded(kind: int, data: memoryview, order: str) -> str:
    if kind not in _ENCODED:
        raise ValueError(f"it has a text of type {kind}, which there is none of")
    encoding = _ENCODED[kind]
    ends = "" if encoding == "utf-8" else "-le" if order == "<" else "-be"
    return bytes(data).decode(encoding + ends)


def _texts(text: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the rows of a matrix of letters, which are padded with spaces."""
    if len(shape) != 2:
        raise ValueError(f"it has a text of shape {shape}")
    rows, columns = shape
    if rows <= 1:
        return np.array([text.rstrip()])
    if len(text) != rows * columns:
        raise ValueError("it is cut off, or damaged")
    return np.array([text[row::rows].rstrip() for row in range(rows)])


def _is_text(cell: list[NDArray[Any]]) -> bool:
    return len(cell) == 1 and cell[0].dtype.kind == "U" and cell[0].size == 1


# -- version 4 -------------------------------------------------------------------------------------


def _old(content: bytes) -> Variables:
    order = "<" if 0 <= struct.unpack_from("<i", content)[0] < 5000 else ">"
    at = 0
    while at < len(content):
        if len(content) - at < 20:
            raise ValueError("it is cut off")
        kind, rows, columns, has_imaginary, length = struct.unpack_from(f"{order}5i", content, at)
        stored, form = kind // 10 % 10, kind % 10
        if kind < 0 or stored >= len(_OLD) or min(rows, columns, length) < 0:
            raise ValueError("its header has no version that there is")
        dtype, count = np.dtype(f"{order}{_OLD[stored]}"), rows * columns
        start = at + 20 + length
        at = start + count * dtype.itemsize * (1 + (has_imaginary != 0))
        if at > len(content):
            raise ValueError("it is cut off, or damaged")
        name = content[start - length : start].partition(b"\0")[0].decode("utf-8", "replace")
        array = np.frombuffer(content, dtype, count, start).astype(dtype.newbyteorder("="))
        if form == 1:
            yield name, _texts("".join(map(chr, array.astype(int) % 0x110000)), (rows, columns))
        elif form == 0:
            if has_imaginary:
                later = start + count * dtype.itemsize
                array = array + 1j * np.frombuffer(content, dtype, count, later)
            yield name, array.reshape((rows, columns), order="F")
