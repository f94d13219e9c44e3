"""Files: atomic writes, and reads that load no pickle and name the file, whatever is wrong with it.

Readers of other packages raise anything at all on a damaged file (NumPy a `tokenize.TokenError`,
pandas a KeyError): all of it becomes a ValueError here, and nowhere else.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import os
import re
import secrets
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

#: Where sizes are limited: a list of contents longer than this is not read, and these are the
#: compressions that NumPy writes (LZMA's own header could ask for gigabytes).
_MAX_CONTENTS = 2**20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

#: What stands in a working copy for a large file whose content was not fetched: how it begins, what
#: it is, and what fetches the content.
_POINTERS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer", "git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer", "git annex get"),
)

#: JSON nested deeper than this is refused; what is written here is nested a dozen times.
_MAX_DEPTH = 100


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


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Make whatever a block raises about a file a ValueError that names it.

    Parameters
    ----------
    path : path-like
    what : str
        What the file should be, for messages: ``"a JSON file"``.

    Raises
    ------
    ValueError
        If the file is missing, no regular file (a pipe would be waited for), only the pointer to
        one that was not fetched, or not what it should be.
    ImportError
        As it comes.
    OSError
        As it comes, if the file may not be read.
    """
    name = os.fspath(path)
    if not os.path.isfile(path):
        if os.path.isdir(path):
            raise ValueError(f"{name}: is a folder, need a file")
        raise ValueError(f"{name}: {'is no regular' if os.path.exists(path) else 'no such'} file")
    require_fetched(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is about to be refused, or is read all right
            yield
    except (ImportError, PermissionError, _TooLargeError):
        raise
    except MemoryError as error:  # a header of a few bytes can announce anything
        raise ValueError(f"{name}: its arrays do not fit into memory ({error})") from None
    except Exception as error:
        raise ValueError(f"{name}: not {what} ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """Return what is wrong, without other packages' advice to load a pickle all the same."""
    text = " ".join(str(error).split())
    if "pickle" in text.lower() or "weights_only" in text:
        return (
            "it holds pickled Python objects, which can run code and are never loaded; save plain "
            "numbers, and names as text: numpy.savez(..., labels=labels.astype(str)), "
            "torch.save(model.state_dict(), ...)"
        )
    return text[:200] or type(error).__name__


def may_be_pickle(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file begins as pickles of Python 3 do."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def _require_numpy(path: str | os.PathLike[str]) -> None:
    """Refuse what is no file of NumPy: NumPy itself takes that for a pickle."""
    with open(path, "rb") as file:
        start = file.read(6)
    if start and not start.startswith((b"PK", b"\x93NUMPY", b"\x80")):
        raise ValueError("it does not begin as one")


def require_fetched(path: str | os.PathLike[str]) -> None:
    """Refuse a file that only stands for one whose content was not fetched.

    Raises
    ------
    ValueError
        The message names the file, what it is, and what fetches the content.
    """
    with open(path, "rb") as file:
        start = file.read(64)
    for beginning, what, command in _POINTERS:
        if start.startswith(beginning):
            raise ValueError(
                f"{os.fspath(path)}: is {what}, not the file itself; fetch that with {command}"
            )


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text in UTF-8, or in what its byte order mark says, which is no part of the text.

    Raises
    ------
    ValueError
        If the file is missing or no text; the message names it.
    """
    with reading(path, "a text in UTF-8 or UTF-16"):
        return _decoded(Path(path).read_bytes())


def _decoded(content: bytes) -> str:
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if utf16 else "utf-8-sig")
    if "\0" in text:
        raise ValueError("it has zero bytes; UTF-16 needs its byte order mark")
    return text


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        If the file is missing, is not JSON or is nested too deeply; the message names it.
    """
    with reading(path, "a JSON file"):
        value = json.loads(_decoded(Path(path).read_bytes()))
        _require_shallow(value)
        return value


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for outer in level
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {_MAX_DEPTH} times")


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


def read_npz(path: str | os.PathLike[str], limit: int | None = None) -> dict[str, NDArray[Any]]:
    """Read all arrays of an ``.npz`` file, without pickle.

    Parameters
    ----------
    path : path-like
    limit : int, optional
        Most bytes that the arrays may take together; what the file announces is added up before
        anything is unpacked.

    Raises
    ------
    ValueError
        If the file is missing, not such a file, or larger than memory or the limit; the message
        names it.
    """
    with reading(path, "an .npz file of arrays"):
        if limit is not None:
            _require_within(os.fspath(path), _npz_bytes(path, limit), limit)
        _require_numpy(path)
        # Opened here, because NumPy does not close what it finds to be damaged.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def npz_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the arrays of an ``.npz`` file; none where it is something else."""
    try:
        with reading(path, "an .npz file"), zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (ValueError, OSError):
        return []


def read_npy(path: str | os.PathLike[str], *, mapped: bool = False) -> NDArray[Any]:
    """Read an ``.npy`` file, without pickle.

    Parameters
    ----------
    path : path-like
    mapped : bool
        Leave the array on the disk; what is cast or chosen from is then not in memory as a whole.

    Raises
    ------
    ValueError
        If the file is missing or not such a file; the message names it.
    """
    with reading(path, "an .npy file of numbers"):
        _require_numpy(path)
        found: Any = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        if not isinstance(found, np.ndarray):  # whatever its name, NumPy opens an archive
            raise ValueError("it is an archive")
        return found


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a ``.csv`` (``.tsv``) or Parquet table.

    The columns of a text whose first line has numbers only are called 0, 1 and so on.

    Raises
    ------
    ValueError
        If the file is missing or not such a table; the message names it.
    ImportError
        If pandas or, for Parquet, pyarrow is missing.
    """
    import pandas as pd

    if Path(path).suffix in (".csv", ".tsv"):
        text = read_text(path)
        with reading(path, "a .csv table"):
            first = text.partition("\n")[0]
            separator = max(",;\t", key=first.count)
            header = None if all(map(_is_number, first.split(separator))) else 0
            return pd.read_csv(io.StringIO(text), sep=separator, header=header)
    with reading(path, "a Parquet table"):
        return pd.read_parquet(path)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_arrays(path: str | os.PathLike[str], limit: int | None = None) -> dict[str, NDArray[Any]]:
    """Read named arrays from an ``.npz`` or ``.safetensors`` file, without pickle.

    Parameters
    ----------
    path : path-like
        Its ending says which; bfloat16 tensors come as float32 (which needs torch).
    limit : int, optional
        Most bytes that the arrays may take together, as in `read_npz`.

    Raises
    ------
    ValueError
        If the file is missing, has another ending, is not what its ending says or is larger than
        the limit.
    """
    ending = Path(path).suffix
    if ending == ".npz":
        return read_npz(path, limit)
    if ending == ".safetensors":
        return _read_safetensors(path, limit)
    raise ValueError(f"{os.fspath(path)}: ends in {ending!r}, need .npz or .safetensors")


def _read_safetensors(
    path: str | os.PathLike[str], limit: int | None = None
) -> dict[str, NDArray[Any]]:
    name = os.fspath(path)
    try:
        from safetensors import safe_open
    except ImportError:
        raise ValueError(
            f"{name}: reading it needs safetensors (pip install 'tightframe[torch]')"
        ) from None
    with reading(path, "a safetensors file"):
        if limit is not None:
            with open(path, "rb") as raw:
                _require_short(int.from_bytes(raw.read(8), "little"))
        # Through torch, because NumPy has no bfloat16.
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if limit is not None:
                _require_within(name, sum(_tensor_bytes(file.get_slice(n)) for n in names), limit)
            tensors = {name: file.get_tensor(name) for name in names}
    return {
        name: (
            tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
        ).numpy()
        for name, tensor in tensors.items()
    }


# -- sizes, before anything is unpacked ------------------------------------------------------------


class _TooLargeError(ValueError):
    """A file announces more than its reader allows."""


def _require_within(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise _TooLargeError(
            f"{name}: its arrays take {size / 2**20:.4g} MiB unpacked, allowed are "
            f"{limit / 2**20:g} MiB"
        )


def _require_short(length: int) -> None:
    if length > _MAX_CONTENTS:
        raise ValueError(f"a list of contents of {length} bytes")


def _npz_bytes(path: str | os.PathLike[str], limit: int) -> int:
    """Return how many bytes the arrays of an archive take, by all that it announces."""
    with open(path, "rb") as file:
        _require_short(_directory_bytes(file))
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            for entry in entries:
                if entry.compress_type not in _COMPRESSIONS:
                    raise ValueError(f"{entry.filename} is compressed as NumPy never does")
            total = sum(entry.file_size for entry in entries)
            if total > limit:  # not even the headers are read then
                return total
            return sum(max(entry.file_size, _array_bytes(archive, entry)) for entry in entries)


def _directory_bytes(file: IO[bytes]) -> int:
    """Return the length of a zip file's directory; one that zip64 describes is refused."""
    end = file.seek(0, os.SEEK_END)
    start = max(end - 22 - 2**16 - 20, 0)
    file.seek(start)
    tail = file.read()
    file.seek(0)
    # As zipfile: the last record counts, and a zip64 locator before it would overrule it.
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) < place + 22:
        raise ValueError("it has no zip directory")
    if tail[max(place - 20, 0) : place].startswith(b"PK\x06\x07"):
        raise ValueError("its zip directory has a 64-bit size")
    return int(struct.unpack_from("<L", tail, place + 12)[0])


def _array_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Return how much memory the header of an array asks for."""
    with archive.open(entry) as member:
        if member.read(6) != b"\x93NUMPY":
            return 0  # taken as raw bytes
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"{entry.filename} has the .npy version {version}")
        shape, _, dtype = readers[version](member)
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds Python objects")
    return math.prod(shape) * max(dtype.itemsize, 1)


def _tensor_bytes(tensor: Any) -> int:
    """Return how much memory a tensor takes once it is read; short floats become float32."""
    name = tensor.get_dtype()
    digits = re.search(r"\d+", name)
    size = int(digits[0]) // 8 if digits else 1
    return int(math.prod(tensor.get_shape())) * (max(size, 4) if "F" in name else size)


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
