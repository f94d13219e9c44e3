"""Pickles of plain data, read without running them.

``pickle.load`` calls whatever a file names, and even an unpickler that admits only NumPy's
functions hands a hostile file's arguments to them. Here the opcodes are interpreted: dicts, lists,
tuples, strings, whole numbers, and arrays of bytes, which we build ourselves. No object of the
file's choice is ever imported, made or called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The names that pickled arrays and, from Python 3, byte strings refer to.
_RECONSTRUCT = (
    "numpy.core.multiarray _reconstruct",  # NumPy 1
    "numpy._core.multiarray _reconstruct",  # NumPy 2
)
_ARRAY = "numpy ndarray"
_DTYPE = "numpy dtype"
_ENCODE = "_codecs encode"
_KNOWN = (*_RECONSTRUCT, _ARRAY, _DTYPE, _ENCODE)

_PUSHED = {
    *("BININT", "BININT1", "BININT2"),  # whole numbers
    *("BINSTRING", "SHORT_BINSTRING"),  # Python 2's byte strings
    *("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_plain_pickle(data: bytes, name: str) -> dict[str, Any]:
    """Read a pickled dict of plain values and arrays of uint8, as in CIFAR's Python version.

    Protocols 2 to 4 of Python 2 and 3 are read.

    Parameters
    ----------
    data : bytes
    name : str
        What an error calls the file.

    Returns
    -------
    dict
        Keys are str. Values are int, bool, None, str, bytes, list, tuple, dict, or arrays of uint8
        (read-only). Python 2's byte strings come as str, decoded as Latin-1.

    Raises
    ------
    ValueError
        If the file is damaged or refers to, or does, anything else; the message names it and what
        it asked for.
    """
    import pickletools

    machine = _Machine(len(data))
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.run(opcode.name, argument)
        value = machine.result()
    except _RefusedError as error:
        raise ValueError(f"{name}: refused, {error}") from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{name}: not a pickle of plain arrays ({error})") from None
    return value


class _RefusedError(Exception):
    """The pickle asks for something that plain data do not need."""


class _Name(str):
    """A name that the pickle refers to, one of `_KNOWN`; never looked up."""


class _Dtype:
    """A dtype; only uint8, so that its state says nothing more."""


class _Array:
    """An array, made by REDUCE and filled by BUILD as pickles do."""

    values: NDArray[np.uint8] | None = None


class _Machine:
    def __init__(self, budget: int) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        # A string that is referred to again and again may not be encoded again and again.
        self._budget = budget

    def run(self, opcode: str, argument: Any) -> None:
        """Do what one opcode says."""
        if opcode in _PUSHED:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif opcode in _TUPLES:
            size = _TUPLES[opcode]
            self._stack[-size:] = [tuple(self._stack[-size:])]
        elif opcode == "GLOBAL":
            self._refer(*argument.split(" ", 1))
        elif opcode in _STEPS:
            _STEPS[opcode](self)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise _RefusedError(f"it uses the opcode {opcode}, which plain arrays do not need")

    def result(self) -> dict[str, Any]:
        """Return the dict at the top, its arrays as NumPy's."""
        value = self._stack.pop()
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__}, need a dict")
        return {key: x.values if isinstance(x, _Array) else x for key, x in value.items()}

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise _RefusedError("it appends to something that is no list")
        target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise _RefusedError("it sets items of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, bytes):
                key = key.decode("latin-1")
            if not isinstance(key, str):  # hashing a deeply nested tuple could end the process
                raise _RefusedError(f"a key of its dict is a {type(key).__name__}, need a string")
            target[key] = value

    def _refer(self, module: Any, attribute: Any) -> None:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise _RefusedError("it refers to something that has no name")
        if f"{module} {attribute}" not in _KNOWN:
            raise _RefusedError(f"it refers to {f'{module}.{attribute}'!r:.80}")
        self._stack.append(_Name(f"{module} {attribute}"))

    def _reduce(self) -> None:
        arguments = self._stack.pop()
        function = self._stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise _RefusedError("it calls something that is no function")
        if function in _RECONSTRUCT:
            self._stack.append(_Array())
        elif function == _DTYPE:
            if not arguments or arguments[0] not in ("u1", b"u1", "|u1", b"|u1"):
                raise _RefusedError("its array has another type than uint8")
            self._stack.append(_Dtype())
        elif function == _ENCODE and arguments[1:] in (("latin1",), ("latin-1",)):
            self._stack.append(self._encode(arguments[0]))
        else:
            raise _RefusedError(f"it calls {function.replace(' ', '.')!r}")

    def _build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, _Dtype):
            return  # byte order and fields of uint8: there are none
        if not isinstance(target, _Array) or not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("it sets the state of something that is no array")
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype):
            raise _RefusedError("its array has no type")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError("the shape of its array is no tuple of whole numbers")
        if isinstance(raw, str):
            raw = self._encode(raw)
        if not isinstance(raw, bytes) or len(raw) != math.prod(shape):
            raise ValueError("its array has another number of bytes than its shape says")
        values = np.frombuffer(raw, np.uint8)
        target.values = values.reshape(shape[::-1]).T if fortran is True else values.reshape(shape)

    def _encode(self, text: Any) -> bytes:
        if not isinstance(text, str):
            raise _RefusedError("it encodes something that is no string")
        self._budget -= len(text)
        if self._budget < 0:
            raise _RefusedError("it unpacks into more than it holds")
        return text.encode("latin-1")


# Not kept in the machine, which would then refer to itself and outlive its reading.
_STEPS: dict[str, Callable[[_Machine], None]] = {
    "MARK": lambda m: m._marks.append(len(m._stack)),
    "EMPTY_DICT": lambda m: m._stack.append({}),
    "EMPTY_LIST": lambda m: m._stack.append([]),
    "EMPTY_TUPLE": lambda m: m._stack.append(()),
    "TUPLE": lambda m: m._stack.append(tuple(m._since_mark())),
    "APPEND": lambda m: m._extend([m._stack.pop()]),
    "APPENDS": lambda m: m._extend(m._since_mark()),
    "SETITEM": lambda m: m._update([m._stack.pop(-2), m._stack.pop()]),
    "SETITEMS": lambda m: m._update(m._since_mark()),
    "MEMOIZE": lambda m: m._memo.update({len(m._memo): m._stack[-1]}),
    "STACK_GLOBAL": lambda m: m._refer(m._stack.pop(-2), m._stack.pop()),
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}
