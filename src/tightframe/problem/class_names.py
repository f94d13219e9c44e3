"""Classes have names: labels as names or numbers, and where the names come from."""

from __future__ import annotations

import numbers
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import (
    detached,
    is_several,
    is_unordered,
    is_whole,
    number_of,
    plain_number,
    shortened,
)
from tightframe.files import read_json, read_text

#: What may give the names of classes: names in class order; the names by label, or the labels by
#: name, as a mapping; or a file of them; or one text with commas.
NamesLike = Sequence[str] | Mapping[Any, Any] | str | os.PathLike[str]

#: Entries of a configuration that hold the names of its classes (Hugging Face, Magika).
_CONFIGURED = ("id2label", "label2id", "class_to_idx", "class_names", "target_labels_space")

#: Longer names are shortened in tables, sentences and pictures; never in JSON.
MAX_NAME = 24

#: Characters that can't be seen and belong to the letters beside them.
_JOINERS = ("\u200c", "\u200d")

#: Set around a name that is read from right to left, so that it leaves the numbers beside it where
#: they are (Unicode's first strong isolate, and its end); and what else steers the direction.
ISOLATE, END_ISOLATE = "\u2068", "\u2069"
_DIRECTIONS = dict.fromkeys(
    map(ord, "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
)

#: More classes than this are taken for something else than labels.
MAX_LABEL = 10_000_000


def class_names_of(value: NamesLike, name: str = "class_names") -> tuple[str, ...]:
    """Return the names of classes in class order, wherever they come from.

    Parameters
    ----------
    value : sequence of str, mapping, str or path-like
        Names in class order (``ImageFolder.classes``); ``{label: name}`` (``id2label``) or
        ``{name: label}`` (``class_to_idx``); text with commas, or the path of a file: ``.txt`` with
        one name a line, or ``.json`` with any of these, also inside a configuration.
    name : str
        Of the argument, for messages.

    Raises
    ------
    ValueError
        If there are no names, a label is missing, or two classes have one name.

    Examples
    --------
    >>> class_names_of({"0": "cat", "1": "dog"})
    ('cat', 'dog')
    >>> class_names_of("cat, dog")
    ('cat', 'dog')
    """
    if isinstance(value, (str, os.PathLike)):
        value = _read(name, value)
    if isinstance(value, Mapping):
        value = _in_order(name, value)
    elif is_unordered(value) or not is_several(value):
        raise ValueError(
            f"{name}: got {shortened(repr(value))}, need names in class order, or by label"
        )
    names = tuple(_text(name, label, entry) for label, entry in enumerate(value))
    if not names or not all(names):
        raise ValueError(f"{name}: got {'an empty name' if names else 'no names'}")
    if len(set(names)) < len(names):
        twice = next(entry for i, entry in enumerate(names) if entry in names[:i])
        raise ValueError(f"{name}: got {twice!r} for two classes, need different names")
    return names


def given_names(
    value: NamesLike | None,
    num_classes: int | None = None,
    rows: str = "",
    name: str = "class_names",
) -> tuple[str, ...] | None:
    """Return `class_names_of`, None of None; as many as there are classes, where that is known.

    Parameters
    ----------
    value : as for `class_names_of`, optional
    num_classes : int, optional
    rows : str
        What has so many classes, for messages: ``"weight has 3 rows"``.
    name : str
        Of the argument, for messages.

    Raises
    ------
    ValueError
        As `class_names_of`, or if they are not as many.
    """
    if value is None:
        return None
    names = class_names_of(value, name)
    if num_classes not in (None, len(names)):
        raise ValueError(f"{name}: got {len(names)}, {rows}")
    return names


def _text(name: str, label: int, entry: Any) -> str:
    """Return a name, or a number for a name, as text."""
    entry = plain_number(entry)
    if isinstance(entry, bytes):
        entry = entry.decode("utf-8", "replace")
    if isinstance(entry, str):
        return entry
    if isinstance(entry, numbers.Real) and entry == entry:  # no NaN of a table
        return str(entry)
    raise ValueError(f"{name}: got {shortened(repr(entry))} for label {label}, need a name")


def _read(name: str, value: str | os.PathLike[str]) -> Any:
    path = Path(value)
    if path.suffix == ".txt":
        return _lines(path)
    if path.suffix == ".json":
        found = read_json(path)
        if isinstance(found, dict):
            return next((found[key] for key in _CONFIGURED if found.get(key)), found)
        if not isinstance(found, list):
            raise ValueError(f"{name}: {path} holds neither a list of names nor names by label")
        return found
    if isinstance(value, str) and "," in value:
        return [part.strip() for part in value.split(",")]
    raise ValueError(
        f"{name}: got {os.fspath(value)!r}, need names with commas between them, or a .txt or "
        ".json file"
    )


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _in_order(name: str, given: Mapping[Any, Any]) -> list[Any]:
    """Return names by label, or labels by name, in the order of the labels."""
    pairs = list(given.items())
    if all(is_whole(label) for _, label in pairs):  # names to labels
        pairs = [(label, entry) for entry, label in pairs]
    try:
        by_label = {int(label): entry for label, entry in pairs}
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}: got {shortened(repr(given))}, need the name of every label, or its label of "
            "every name"
        ) from None
    for label in range(len(pairs)):
        if label not in by_label:
            raise ValueError(f"{name}: label {label} is missing; they are 0 to {len(pairs) - 1}")
    return [by_label[label] for label in range(len(pairs))]


# -- shown to people -------------------------------------------------------------------------------


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names for a sentence or a table: the first ones, shortened, and how many others.

    Examples
    --------
    >>> listed(["cat", "dog", "deer", "frog", "ship"])
    'cat, dog, deer and 2 others'
    """
    shown = ", ".join(shown_names(names[:most]))
    left = len(names) - most
    return shown if left <= 0 else f"{shown} and {number_of(left, 'other')}"


def shown_names(names: Sequence[str], width: int = MAX_NAME) -> list[str]:
    """Return names as they are shown to people: at most so wide, and still different.

    Letters of East Asian scripts and emoji are two wide. Of a longer name the middle is left out;
    names that would look alike lose what they begin with in common. What would break a line or
    steer a terminal becomes a space. Names that are read from right to left are isolated: they do
    not turn the order of what stands beside them.

    Parameters
    ----------
    names : sequence of str
        The same name may stand there more than once.
    width : int
        Of the longest, at least 8.

    Examples
    --------
    >>> shown_names(["cat", "American pit bull terrier, adult", "cat"])
    ['cat', 'American pit…rier, adult', 'cat']
    >>> shown_names(["animals/pit bull 1/all the images", "animals/pit bull 2/all the images"])
    ['…bull 1/all the images', '…bull 2/all the images']
    """
    plain = {name: on_one_line(name) for name in names}
    shown = {name: _fitted(text, width) for name, text in plain.items()}
    for alike in _alike(shown):
        start = _same([plain[name] for name in alike])
        for name in alike:
            shown[name] = _fitted_from(plain[name], start, width)
    for alike in _alike(shown):  # they differ in several places, or in what can't be seen
        for number, name in enumerate(alike, 1):
            shown[name] = f"{_fitted(plain[name], width - len(str(number)) - 1)}~{number}"
    return [_isolated(shown[name]) for name in names]


def _isolated(name: str) -> str:
    """Return a name such that its direction of reading ends with it."""
    if name.isascii() or not any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in name):
        return name
    return f"{ISOLATE}{name}{END_ISOLATE}"


def _alike(shown: Mapping[str, str]) -> list[list[str]]:
    """Return the names that look like others, in groups."""
    if len(set(shown.values())) == len(shown):
        return []
    groups: dict[str, list[str]] = {}
    for name, text in shown.items():
        groups.setdefault(text, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _same(texts: Sequence[str]) -> int:
    """Return how many letters texts begin with in common."""
    letters = zip(*texts, strict=False)
    return next((i for i, own in enumerate(letters) if len(set(own)) > 1), min(map(len, texts)))


def on_one_line(name: str) -> str:
    """Return a name without line ends and control characters; emoji keep their joiners."""
    if name.isprintable():
        return name
    name = name.translate(_DIRECTIONS)
    return "".join(c if c.isprintable() or c in _JOINERS else " " for c in name)


def _fitted(text: str, width: int) -> str:
    """Return a text, or its two ends where it is too wide."""
    if display_width(text) <= width:
        return text
    return f"{_start(text, width // 2)}…{_end(text, width - width // 2 - 1)}"


def _fitted_from(text: str, start: int, width: int) -> str:
    """Return what is at, and if there is room before, a place of a text that is too wide."""
    rest = text[start:]
    if display_width(rest) >= width - 1:
        return f"…{_start(rest, width - 2)}…"
    return f"…{_end(text, width - 1)}"


def _start(text: str, width: int) -> str:
    """Return as much of the beginning as is so wide; what joins letters stays with them."""
    end = taken = 0
    while end < len(text) and (taken := taken + display_width(text[end])) <= width:
        end += 1
    return text[:end].rstrip("".join(_JOINERS))


def _end(text: str, width: int) -> str:
    """Return as much of the end as is so wide; it starts with no mark of a letter left out."""
    start, taken = len(text), 0
    while start and (taken := taken + display_width(text[start - 1])) <= width:
        start -= 1
    while start < len(text) and not display_width(text[start]):
        start += 1
    return text[start:]


def display_width(text: str) -> int:
    """Return how many places of a console a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


# -- labels ----------------------------------------------------------------------------------------


class Indexed(NamedTuple):
    """Labels as numbers.

    Attributes
    ----------
    labels : ndarray, shape (N,), int64
        Of the samples that are kept.
    kept : ndarray, shape (samples given,), bool
        False for samples whose label is the one to be ignored.
    class_names : tuple of str or None
        The names of all classes in class order: those given, or of labels that are names.
    """

    labels: NDArray[np.int64]
    kept: NDArray[np.bool_]
    class_names: tuple[str, ...] | None


def indexed(
    labels: Any,
    class_names: Sequence[str] | None = None,
    *,
    ignore_index: int | None = None,
    name: str = "labels",
) -> Indexed:
    """Return labels, which may be names, as numbers from 0.

    Parameters
    ----------
    labels : array_like, shape (N,) or (N, 1)
        Whole numbers of any type, or text: names of classes, or numbers written out.
    class_names : sequence of str, optional
        In class order; without it, names are in the order of the alphabet, as scikit-learn's
        ``LabelEncoder`` and torchvision's ``ImageFolder`` have them.
    ignore_index : int, optional
        Samples of this label are left out.
    name : str
        Of the argument, for messages.

    Raises
    ------
    ValueError
        If a label is no whole number from 0, or none of the names, or of a type that does not hold
        whole numbers of its size exactly.

    Examples
    --------
    >>> indexed(["dog", "cat", "dog"])
    Indexed(labels=array([1, 0, 1]), kept=array([ True,  True,  True]), class_names=('cat', 'dog'))
    """
    array = np.asarray(detached(labels))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name}: got shape {array.shape}, need (N,), one label a sample")
    names = None if class_names is None else tuple(class_names)
    if array.dtype.kind == "O":
        array = _of_objects(name, array)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind in "UT":
        kept = array != str(ignore_index)
        return _of_text(name, array.astype(str), kept, names)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: got {array.dtype} entries, need whole numbers from 0 or names")
    kept = np.ones(len(array), bool) if ignore_index is None else array != ignore_index
    return Indexed(_whole(name, array, kept), kept, names)


def _of_objects(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return a column of Python objects as text or numbers."""
    for i, entry in enumerate(array):
        if entry is None or entry != entry:  # NaN of a table
            raise ValueError(f"{name}: sample {i} has none")
    if all(isinstance(entry, str) for entry in array):
        return array.astype(str)
    if all(map(is_whole, array)):
        return _integers(name, array)
    kinds = " and ".join(sorted({type(entry).__name__ for entry in array}))
    raise ValueError(f"{name}: got entries of type {kinds}, need whole numbers from 0 or names")


def _of_text(
    name: str, array: NDArray[Any], kept: NDArray[np.bool_], names: tuple[str, ...] | None
) -> Indexed:
    array = np.char.strip(array)
    found, places = np.unique(array[kept], return_inverse=True)
    known = None if names is None else {entry: k for k, entry in enumerate(names)}
    unknown = [str(entry) for entry in found if known is not None and entry not in known]
    if (known is None or unknown) and all(entry.isdecimal() for entry in found):
        whole = _integers(name, array[kept])
        numbers = _whole(name, whole, np.ones(len(whole), bool))
        return Indexed(numbers, kept, names)
    if unknown:
        raise ValueError(
            f"{name}: got {unknown[0]!r}, which is none of the {len(names or ())} class names"
        )
    if known is None:
        names = tuple(found.tolist())
        return Indexed(places.reshape(-1).astype(np.int64), kept, names)
    order = np.array([known[str(entry)] for entry in found], dtype=np.int64)
    return Indexed(order[places.reshape(-1)], kept, names)


def _integers(name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    """Return whole numbers that are Python's, or written out, of which some may be too large."""
    try:
        return array.astype(np.int64)
    except OverflowError:
        largest = max(map(int, array), key=abs)
        raise ValueError(
            f"{name}: got {shortened(str(largest))}, need whole numbers up to {MAX_LABEL}"
        ) from None


def _whole(name: str, array: NDArray[Any], kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    # Half floats have no number above 65,504 to compare with.
    numbers = array.astype(np.float64) if array.dtype.kind == "f" else array
    bad = ~np.isfinite(numbers) | (numbers < 0) | (numbers > MAX_LABEL)
    bad |= numbers != np.floor(numbers)
    bad &= kept
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(f"{name}: got {array[i]} in row {i}, need a whole number from 0")
    whole = numbers[kept].astype(np.int64)
    if (
        array.dtype.kind == "f"
        and whole.size
        and whole.max() > (exact := 2 / np.finfo(array.dtype).eps)
    ):
        raise ValueError(
            f"{name}: got {array.dtype} with {whole.max()}, but that type holds whole numbers up "
            f"to {exact:.0f} only exactly; save them as integers"
        )
    return whole
