"""Results in one file: arrays as arrays, everything else as JSON, and no pickle.

The file is an ``.npz``: one array for every array of the result, named by its place
(``blocks.within``), and the text ``saved``, which says what they are parts of. Only classes that
are named here by `kept` are made again.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import os
from collections.abc import Mapping
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import plain_number
from tightframe.files import read_npz, reading, write_npz

#: Version of the layout, in every file, and the name of its text.
FORMAT, TEXT = 1, "saved"

#: Letters of an array's name.
_LONGEST_NAME = 200

_Kind = TypeVar("_Kind", bound=type)

#: What a file may hold parts of, by the name there.
_KINDS: dict[str, type] = {}


def kept(kind: _Kind) -> _Kind:
    """Let files hold a dataclass, named tuple or enumeration.

    Its fields are kept, or what its ``_packed()`` gives; it is made again by its constructor, or
    its ``_unpacked(fields)``.
    """
    assert kind.__name__ not in _KINDS, kind
    _KINDS[kind.__name__] = kind
    return kind


class Saved:
    """A result that is written to a file and read again, exactly."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        kept(cls)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to an ``.npz`` file, atomically, without pickle.

        Parameters
        ----------
        path : path-like
            The name is taken as it is.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {}
        value = _Writer(arrays).plain(self, "")
        text = json.dumps({"format": FORMAT, "value": value}, allow_nan=False)
        write_npz(path, **arrays, **{TEXT: np.frombuffer(text.encode("ascii"), dtype=np.uint8)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote, equal to the last bit.

        Raises
        ------
        ValueError
            If the file is missing or something else; the message names it.
        """
        arrays = read_npz(path)
        if TEXT not in arrays:
            raise ValueError(f"{os.fspath(path)}: no {cls.__name__} that was saved here")
        with reading(path, f"a saved {cls.__name__}"):
            stored = json.loads(arrays[TEXT].tobytes())
            if stored["format"] != FORMAT:
                raise ValueError(f"format {stored['format']}, need {FORMAT}")
            found = _made(stored["value"], arrays)
            if not isinstance(found, cls):
                raise ValueError(f"it holds a {type(found).__name__}")
            return found


def filed(kind: _Kind) -> _Kind:
    """Give a named tuple, or another class that can't inherit it, the methods of `Saved`."""
    methods: dict[str, Any] = {"save": Saved.save, "load": vars(Saved)["load"]}
    for name, method in methods.items():
        setattr(kind, name, method)
    return kept(kind)


class _Writer:
    """Values as JSON, whose arrays are gathered by their place; each array once."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._arrays = arrays
        self._names: dict[int, str] = {}
        self._alive: list[NDArray[Any]] = []

    def plain(self, value: Any, place: str) -> Any:
        """Return a value as JSON holds it."""
        if isinstance(value, np.ndarray):
            return {"array": self._name(value, place)}
        if _is_tensor(value):
            return {"tensor": self._name(_array_of(value), place)}
        value = plain_number(value)
        if _KINDS.get(name := type(value).__name__) is type(value):
            inside = {k: self.plain(v, _joined(place, k)) for k, v in _parts(value).items()}
            return {"kind": name, "fields": inside}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        if isinstance(value, (list, tuple)):
            items = [self.plain(item, _joined(place, i)) for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"tuple": items}
        if isinstance(value, Mapping):
            pairs = [(key, self.plain(v, _joined(place, key))) for key, v in value.items()]
            if all(isinstance(key, str) for key in value):
                return {"dict": dict(pairs)}
            return {"items": [[self.plain(key, place), v] for key, v in pairs]}
        raise TypeError(f"{place}: {type(value).__name__} is not kept in files")

    def _name(self, array: NDArray[Any], place: str) -> str:
        """Return what an array is called in the file; one that is there has its name already."""
        self._alive.append(array)  # no other may get its id
        if id(array) not in self._names:
            name = _file_name(place)
            while name in self._arrays or name == TEXT:
                name += "_"
            self._names[id(array)] = name
            self._arrays[name] = array
        return self._names[id(array)]


def _is_tensor(value: Any) -> bool:
    # Without loading PyTorch, which most results do without.
    return type(value).__module__.split(".")[0] == "torch" and hasattr(value, "detach")


def _array_of(tensor: Any) -> NDArray[Any]:
    """Return the numbers of a tensor, which are on the CPU when it is read again."""
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def _file_name(place: str) -> str:
    """Return a place as archives can name a file, and NumPy an array: it leaves out ``.npy``."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in place[:_LONGEST_NAME])
    return f"{plain}_" if plain.endswith(".npy") else plain


def _joined(place: str, name: Any) -> str:
    return f"{place}.{name}" if place else str(name)


def _parts(value: Any) -> dict[str, Any]:
    if hasattr(value, "_packed"):
        packed: dict[str, Any] = value._packed()
        return packed
    if isinstance(value, enum.Enum):
        return {"value": value.value}
    if hasattr(value, "_asdict"):
        fields: dict[str, Any] = value._asdict()
        return fields
    own = vars(value)
    return {field.name: own[field.name] for field in dataclasses.fields(value) if field.name in own}


def _made(stored: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Make again what `_Writer.plain` gave."""
    if isinstance(stored, list):
        return [_made(item, arrays) for item in stored]
    if not isinstance(stored, dict):
        return stored
    if "kind" in stored:
        kind = _KINDS[stored["kind"]]
        fields = {name: _made(item, arrays) for name, item in stored["fields"].items()}
        return getattr(kind, "_unpacked", lambda fields: kind(**fields))(fields)
    ((what, value),) = stored.items()
    if what == "array":
        return arrays[value]
    if what == "tensor":
        import torch

        return torch.from_numpy(arrays[value])
    if what == "float":
        return float(value)
    if what == "tuple":
        return tuple(_made(item, arrays) for item in value)
    if what == "items":
        return {_made(name, arrays): _made(item, arrays) for name, item in value}
    if what == "dict":
        return {name: _made(item, arrays) for name, item in value.items()}
    raise ValueError(f"a part that is {what!r}")
