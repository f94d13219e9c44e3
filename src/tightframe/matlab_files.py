"""Variables of a MATLAB file, read by SciPy in another process, which a damaged byte can end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Exit code of the process for version 7.3, which is an HDF5 file.
_IS_HDF5 = 73


class HDF5Error(ValueError):
    """Raised for version 7.3, which is an HDF5 file."""


def variables(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Return the variables of a file by their names; those inside a struct have dotted names.

    Axes of length one are left out, and cells of texts are arrays of text. What is neither numbers
    nor text is left out.

    Raises
    ------
    HDF5Error
        Of version 7.3.
    ValueError
        If it is damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.npz"
        # Not as a module: the process needs nothing else of this package.
        line = [sys.executable, "-P", __file__, os.fspath(path), os.fspath(found)]
        done = subprocess.run(line, capture_output=True, check=False)
        if done.returncode == _IS_HDF5:
            raise HDF5Error
        if done.returncode or not found.is_file():
            raise ValueError("it is damaged")
        with np.load(found) as arrays:
            names, *values = (arrays[f"arr_{i}"] for i in range(len(arrays.files)))
    return dict(zip(names.tolist(), values, strict=True))


def _write(source: str, found: str) -> int:
    """Write the variables of a file as plain arrays, their names first; return the exit code."""
    from scipy.io import loadmat

    try:
        content = loadmat(source, appendmat=False, simplify_cells=True)
    except NotImplementedError:
        return _IS_HDF5
    own = {name: value for name, value in content.items() if not name.startswith("__")}
    arrays = dict(_plain("", own))
    np.savez(found, np.array([*arrays], dtype=str), *arrays.values())
    return 0


def _plain(name: str, value: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield a value as an array, or the fields of a struct; nothing of other kinds."""
    if isinstance(value, dict):
        for field, inner in value.items():
            yield from _plain(f"{name}.{field}" if name else field, inner)
        return
    array = np.atleast_1d(np.asarray(value))
    # An empty cell of text is an empty array.
    if array.dtype == object and all(isinstance(e, str) or np.size(e) == 0 for e in array.ravel()):
        array = np.array([e if isinstance(e, str) else "" for e in array.ravel()], dtype=str)
    if array.dtype.kind in "biufcU":
        yield name, array


if __name__ == "__main__":
    sys.exit(_write(*sys.argv[1:]))
