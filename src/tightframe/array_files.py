"""Named arrays from a file of any kind: NumPy's, tables, texts, safetensors, PyTorch's, MATLAB's.

Only what is an array is read, and no pickle is loaded. Arrays inside others have dotted names.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.files import may_be_pickle, read_arrays, read_npy, read_table, read_text, reading
from tightframe.matlab_files import HDF5Error, variables

if TYPE_CHECKING:
    import pandas as pd

#: Endings of the files with names for their arrays, and of those that are one array.
NAMED = (
    *(".npz", ".safetensors", ".csv", ".tsv", ".parquet", ".pt", ".pth", ".bin", ".ckpt"),
    ".mat",
)
UNNAMED = (".npy", ".txt")

_SAVE = "save its arrays once with numpy.savez('FILE.npz', features=..., labels=...)"
_HDF5 = f"is read by h5py, which is not used here; {_SAVE}"
_PICKLE = f"is a pickle, which may run anything when it is loaded; {_SAVE}"

#: Endings of files that are not read, and what to do with them.
_REFUSED = {
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), _HDF5),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _PICKLE),
}

#: What the first line of a text of labels may say instead of one.
_HEADERS = ("label", "labels", "class", "classes", "target", "targets", "category", "y", "name")

#: Name of the one array of a file that has no names.
ONLY = ""


def read_named(path: str | os.PathLike[str], limit: int | None = None) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file by their names.

    Parameters
    ----------
    path : path-like
        Its ending says which: one of `NAMED` or `UNNAMED`. Columns of a table are arrays, and
        columns whose entries are lists of one length are matrices; a text has one entry a line.
    limit : int, optional
        Most bytes that the arrays may take together; only ``.npz`` and ``.safetensors``, which
        announce that, are read then.

    Returns
    -------
    dict of str to ndarray
        The array of a file without names is called `ONLY`. Arrays of text have NumPy's text type.

    Raises
    ------
    ValueError
        If the file is missing, has another ending or is not what its ending says.
    ImportError
        If pandas, pyarrow or torch is missing and needed.
    """
    ending = Path(path).suffix
    if ending in (".npz", ".safetensors") or limit is not None:
        found = read_arrays(path, limit)
        # What is no array of an .npz comes as bytes.
        return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
    if ending == ".npy":
        return {ONLY: read_npy(path)}
    if ending == ".txt":
        return {ONLY: _lines(path)}
    if ending in (".csv", ".tsv", ".parquet"):
        return _columns(read_table(path))
    if ending == ".mat":
        return _matlab(path)
    if ending in NAMED:
        return _tensors(path)
    if ending in _REFUSED:
        raise ValueError(f"{os.fspath(path)}: {_REFUSED[ending]}")
    raise ValueError(f"{os.fspath(path)}: ends in {ending!r}, need {', '.join((*NAMED, *UNNAMED))}")


# -- texts and tables ------------------------------------------------------------------------------


def _lines(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return the numbers of a text, one a line, or else its lines; a header is left out."""
    text = read_text(path).rstrip()
    if not text:
        return np.array([])
    for part in (text, text.partition("\n")[2]):
        try:
            return np.loadtxt(io.StringIO(part), ndmin=1) if part else np.array(text.splitlines())
        except ValueError:
            continue
    lines = [line.strip() for line in text.splitlines()]
    if lines[0].lower() in _HEADERS and lines[0] not in lines[1:]:
        lines = lines[1:]
    return np.array(lines)


def _columns(table: pd.DataFrame) -> dict[str, NDArray[Any]]:
    return {str(name): _plain(column.to_numpy()) for name, column in table.items()}


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return a column of text or of lists of one length as an array of text or a matrix."""
    if column.dtype != object or not len(column):
        return column
    if all(isinstance(entry, str) for entry in column):
        return column.astype(str)
    if all(isinstance(entry, (np.ndarray, list)) for entry in column):
        try:
            return np.stack([np.asarray(entry) for entry in column])
        except ValueError:  # of several lengths
            return column
    return column


# -- MATLAB ----------------------------------------------------------------------------------------


def _matlab(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    with reading(path, "a MATLAB file that is read here"):
        try:
            return variables(path)
        except HDF5Error:
            raise ValueError(f"MATLAB 7.3 {_HDF5}, or again in MATLAB with -v7") from None


# -- PyTorch ---------------------------------------------------------------------------------------


def _tensors(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file that ``torch.save`` wrote, wherever they are in it."""
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{os.fspath(path)}: reading it needs torch (pip install 'tightframe[torch]')"
        ) from None
    with reading(path, "a PyTorch file of tensors"):
        if not os.path.getsize(path):
            raise ValueError("it is empty")
        if not zipfile.is_zipfile(path):
            kind = "a pickle" if may_be_pickle(path) else "something else"
            raise ValueError(f"no such archive as torch.save writes since version 1.6, but {kind}")
        found = torch.load(path, map_location="cpu", weights_only=True)
        arrays = {}
        for name, value in _leaves(found):
            if isinstance(value, torch.Tensor):
                tensor = value.detach()
                short = tensor.is_floating_point() and tensor.itemsize < 4
                arrays[name] = (tensor.float() if short else tensor).numpy()
            elif isinstance(value, (list, tuple)):
                arrays[name] = np.array(value)
        return arrays


def _leaves(value: Any, name: str = ONLY) -> Iterator[tuple[str, Any]]:
    """Give what is inside mappings and sequences, by dotted names; lists of text whole."""
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, (list, tuple)) and not all(isinstance(item, str) for item in value):
        inside = enumerate(value)
    else:
        yield name, value
    for key, item in inside:
        yield from _leaves(item, f"{name}.{key}" if name else str(key))
