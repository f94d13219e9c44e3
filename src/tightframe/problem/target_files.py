"""Label distributions out of a file, with the counts of their contexts and the names of labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.files import read_npy, read_npz, read_table

if TYPE_CHECKING:
    import pandas as pd

#: Endings that are read.
ENDINGS = (".npz", ".npy", ".csv", ".tsv")

#: Columns of a table that have the contexts' counts.
COUNTS = ("count", "counts")

#: What `scipy.sparse.save_npz` writes of a matrix by columns or rows.
_BY_LINES = {"data", "indices", "indptr", "shape", "format"}
_BY_ENTRIES = {"data", "row", "col", "shape", "format"}


class TargetsFile(NamedTuple):
    """What a file says: targets (V, m); counts of contexts and names of labels if it has them."""

    targets: Any
    counts: NDArray[Any] | None = None
    names: list[str] | None = None


def read_targets_file(path: str | os.PathLike[str]) -> TargetsFile:
    """Read label distributions.

    Parameters
    ----------
    path : path-like
        ``.npy`` and ``.npz`` are as in Python, (labels, contexts): the one array, or ``targets``
        beside ``counts`` and ``class_names``, or what ``scipy.sparse.save_npz`` wrote. ``.csv`` and
        ``.tsv`` have a row a context and a column a label, whose name is in the header if there is
        one; a column ``count`` has the contexts' counts.

    Raises
    ------
    ValueError
        If the file is missing, has another ending or other contents. What is no distribution is
        not looked for here.
    ImportError
        If pandas is missing and needed.
    """
    ending = Path(path).suffix
    if ending == ".npy":
        return TargetsFile(read_npy(path))
    if ending == ".npz":
        return _of_archive(read_npz(path), os.fspath(path))
    if ending in (".csv", ".tsv"):
        return _of_table(read_table(path), os.fspath(path))
    raise ValueError(f"{os.fspath(path)}: ends in {ending!r}, need {', '.join(ENDINGS)}")


def _of_archive(arrays: dict[str, NDArray[Any]], path: str) -> TargetsFile:
    if arrays.keys() >= _BY_LINES or arrays.keys() >= _BY_ENTRIES:
        return TargetsFile(_sparse(arrays, path))
    if "targets" in arrays:
        names = arrays.get("class_names")
        if names is not None and names.ndim != 1:
            raise ValueError(f"{path}: class_names has shape {names.shape}, need one a label")
        texts = None if names is None else [str(name) for name in names.tolist()]
        return TargetsFile(arrays["targets"], arrays.get("counts"), texts)
    if len(arrays) == 1:
        (only,) = arrays.values()
        return TargetsFile(only)
    raise ValueError(
        f"{path}: need an array targets, or a matrix of scipy.sparse.save_npz; it has "
        f"{', '.join(arrays) or 'none'}"
    )


def _sparse(arrays: dict[str, NDArray[Any]], path: str) -> Any:
    from scipy.sparse import coo_array, csc_array, csr_array

    written = arrays["format"].item()
    kind = written.decode("ascii", "replace") if isinstance(written, bytes) else str(written)
    try:
        shape = tuple(arrays["shape"].tolist())
        if kind == "coo":
            return coo_array((arrays["data"], (arrays["row"], arrays["col"])), shape=shape)
        if kind in ("csr", "csc"):
            make = csr_array if kind == "csr" else csc_array
            parts = (arrays["data"], arrays["indices"], arrays["indptr"])
            matrix = make(parts, shape=shape)
            matrix.check_format(full_check=True)
            return matrix
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: no sparse matrix that fits ({error})") from None
    raise ValueError(f"{path}: a sparse matrix of format {kind!r}, need csr, csc or coo")


def _of_table(table: pd.DataFrame, path: str) -> TargetsFile:
    headed = not all(isinstance(name, (int, np.integer)) for name in table.columns)
    counts = None
    own = [name for name in table.columns if str(name).strip().lower() in COUNTS]
    if len(own) > 1:
        raise ValueError(f"{path}: two columns of counts, {own[0]} and {own[1]}")
    if own:
        counts = table.pop(own[0]).to_numpy()
    for name in table.columns:
        if table[name].dtype.kind not in "biuf":
            raise ValueError(
                f"{path}: column {name} is not of numbers; a row is a context, a column a label"
            )
    names = [str(name) for name in table.columns] if headed else None
    return TargetsFile(table.to_numpy(dtype=np.float64).T, counts, names)
