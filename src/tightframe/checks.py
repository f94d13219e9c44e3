"""Checks of arguments: a ValueError that names the argument, what came and what is allowed."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

#: Above this many classes a K x K array is refused (4096^2 doubles are 128 MiB).
MAX_DENSE_CLASSES = 4096

#: Larger features are refused: sums of their squares could overflow float64.
MAX_FEATURE = 1e140

#: Types of tensors that NumPy does not have.
_NOT_OF_NUMPY = ("torch.bfloat16", "torch.float8")


def require_dense(num_classes: int, what: str) -> None:
    """Refuse a K x K array that would not fit comfortably in memory.

    Raises
    ------
    ValueError
        If ``num_classes`` exceeds `MAX_DENSE_CLASSES`.
    """
    if num_classes > MAX_DENSE_CLASSES:
        raise ValueError(
            f"{what}: {num_classes} classes would need a {num_classes} x {num_classes} array; "
            f"at most {MAX_DENSE_CLASSES} classes are written out (use the blocks instead)"
        )


def plain_number(value: Any) -> Any:
    """Return the number in an array or tensor without axes; anything else as it is."""
    if value is np.ma.masked:
        return value  # its item is a zero
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        try:
            return value.item()
        except (RuntimeError, ValueError, NotImplementedError):  # a tensor without data
            return value
    return value


def positive_float(name: str, value: Any, *, or_zero: bool = False) -> float:
    """Return ``value`` as a float, or raise a ValueError that names the argument."""
    value = plain_number(value)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        kind = "number from 0" if or_zero else "positive number"
        raise ValueError(f"{name}: got {shortened(repr(value))}, need a {kind}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0 or (number == 0 and not or_zero):
        least = "from 0" if or_zero else "above 0"
        raise ValueError(f"{name}: got {shortened(str(value))}, need a finite number {least}")
    return number


def is_zero(value: Any) -> bool:
    """Tell whether a value is the number 0, not a truth value."""
    number = plain_number(value)
    return not isinstance(number, bool) and isinstance(number, numbers.Real) and number == 0


def detached(value: Any) -> Any:
    """Return a PyTorch tensor as NumPy takes it; others as they are.

    Without its gradient, in main memory, and in single precision where NumPy lacks its type. What
    is masked in a masked array is NaN, not what the mask hides.
    """
    if isinstance(value, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(value)
        known = value.dtype.kind not in "biuf" or not hidden.any()
        return value if known else np.where(hidden, np.nan, value.data)
    if not callable(getattr(value, "detach", None)):
        return value
    found = value.detach().cpu()
    return found.float() if str(found.dtype).startswith(_NOT_OF_NUMPY) else found


def array_of(name: str, value: Any) -> NDArray[Any]:
    """Return an array or tensor as an array, or raise a ValueError that names the argument."""
    try:
        return np.asarray(detached(value))
    except ValueError:  # NumPy's text names no argument
        raise ValueError(f"{name}: got entries of several lengths, need an array") from None


def wide(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of floats in double precision; half floats have no number above 65,504."""
    return array.astype(np.float64, copy=False) if array.dtype.kind == "f" else array


def is_several(value: object) -> TypeGuard[Iterable[Any]]:
    """Tell whether a value can be gone through: no text or mapping, no array without axes."""
    if isinstance(value, (str, bytes, Mapping)) or getattr(value, "ndim", 1) == 0:
        return False
    return isinstance(value, Iterable)


def is_unordered(value: object) -> bool:
    """Tell whether a value is a set, which has no order and holds equal entries once."""
    return isinstance(value, (set, frozenset))


def is_whole(value: object) -> bool:
    """Tell whether a value is a whole number, not a truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return ``value`` as an int of at least ``least``, or raise a ValueError that names it."""
    value = plain_number(value)
    if not is_whole(value) or value < least:
        raise ValueError(
            f"{name}: got {shortened(repr(value))}, need a whole number, at least {least}"
        )
    return int(value)


def choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """Return ``value`` if it is one of ``allowed``, or raise a ValueError that names it."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: got {shortened(repr(value))}, allowed are {', '.join(allowed)}")
    return value


def shortened(text: str, limit: int = 60) -> str:
    """Return a text in one line, its beginning with dots where it is longer than ``limit``."""
    if "\n" in text:
        text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def first_few(names: Sequence[str], most: int) -> str:
    """Return names for a sentence: the first ones, and how many more there are.

    Examples
    --------
    >>> first_few(["cat", "dog", "deer", "frog"], 2)
    'cat, dog and 2 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def number_of(number: int, one: str, several: str | None = None) -> str:
    """Return how many there are of something, in words.

    Parameters
    ----------
    number : int
    one, several : str
        What it is, in the singular and the plural; by default that ends in an s.

    Examples
    --------
    >>> number_of(1, "class", "classes"), number_of(3, "sample")
    ('1 class', '3 samples')
    """
    return f"{number} {one if number == 1 else several or one + 's'}"


def require_positive_fields(options: Any) -> None:
    """Refuse a dataclass of options with a field that is no positive number of its type.

    Whole where the field is declared ``int``, any positive number where it is ``float``.
    """
    checks: dict[str, Callable[..., float]] = {"int": whole_number, "float": positive_float}
    for field in dataclasses.fields(options):
        check = checks.get(str(field.type))
        if check is not None:
            check(field.name, getattr(options, field.name))
