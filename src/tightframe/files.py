"""Files: atomic writes, and reads of JSON, .npz and .safetensors that never load a pickle."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What NumPy and zipfile raise on files that are not, or no longer, archives of plain arrays.
_DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path next to ``path`` that replaces it when the block ends well.

    The folder is made if need be. When the block raises, ``path`` keeps its old content and the
    temporary file is removed. A process killed inside the block leaves a stray file named
    ``.<name>.<random>.tmp``, which nothing reads.

    Parameters
    ----------
    path : path-like
        The file to write.

    Yields
    ------
    Path
        Where to write; on the same file system, so that the rename is atomic.

    Raises
    ------
    OSError
        With the name of ``path``, if it cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        # The user knows the target, not the temporary name.
        raise OSError(error.errno, error.strerror, os.fspath(target)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    # The rename itself lives in the folder; without this a power cut could undo it. Windows has
    # no such call for folders.
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as strict JSON, atomically; NaN and infinity become ``null``.

    Parameters
    ----------
    path : path-like
    value : object
        Dicts, sequences, strings, numbers, None; NumPy scalars and arrays, paths.

    Raises
    ------
    TypeError
        If something in ``value`` is none of these.
    """
    with replacing(path) as temporary:
        temporary.write_text(format_json(value) + "\n", encoding="utf-8")


def format_json(value: Any) -> str:
    """Return a value as strict JSON text, as `write_json` writes it."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False, ensure_ascii=False)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        If the file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{os.fspath(path)}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(path)}: not a JSON file ({error})") from None


def write_npz(path: str | os.PathLike[str], **arrays: NDArray[Any]) -> None:
    """Write named arrays as a compressed ``.npz`` without pickle, atomically.

    Raises
    ------
    ValueError
        If an array holds Python objects, which could only be pickled.
    """
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise ValueError(f"{name}: got an array of Python objects, need numbers")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **plain)  # type: ignore[arg-type]  # its stub's allow_pickle


def read_npz(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read all arrays of an ``.npz`` file, without pickle.

    Raises
    ------
    ValueError
        If the file is missing, not such a file, or larger than memory; the message names it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ValueError(f"{os.fspath(path)}: no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{os.fspath(path)}: is a folder, need a file") from None
    except MemoryError as error:  # a header of a few bytes can announce anything
        raise ValueError(
            f"{os.fspath(path)}: its arrays do not fit into memory ({error})"
        ) from None
    except _DAMAGED as error:
        raise ValueError(f"{os.fspath(path)}: not an .npz file of arrays ({error})") from None


def read_arrays(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read named arrays from an ``.npz`` or ``.safetensors`` file, without pickle.

    Parameters
    ----------
    path : path-like
        Its ending says which; bfloat16 tensors come as float32 (which needs torch).

    Raises
    ------
    ValueError
        If the file is missing, has another ending or is not what its ending says.
    """
    ending = Path(path).suffix
    if ending == ".npz":
        return read_npz(path)
    if ending == ".safetensors":
        return _read_safetensors(path)
    raise ValueError(f"{os.fspath(path)}: ends in {ending!r}, need .npz or .safetensors")


def _read_safetensors(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ValueError(
            f"{os.fspath(path)}: reading it needs safetensors (pip install 'tightframe[torch]')"
        ) from None
    try:
        # Through torch, because NumPy has no bfloat16.
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ValueError(f"{os.fspath(path)}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{os.fspath(path)}: not a safetensors file ({error})") from None
    return {
        name: (
            tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
        ).numpy()
        for name, tensor in tensors.items()
    }


def to_plain(value: Any) -> Any:
    """Convert a value to what strict JSON can hold; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [to_plain(item) for item in value]
    return value
