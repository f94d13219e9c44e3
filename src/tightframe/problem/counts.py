"""One grammar for what is said class by class, ``"500x5,100x5"``: read, written and joined.

Counts, weights and adjustments are given in class order, as a sequence or as text, or by class, as
a mapping. Inside they are runs: pairs of a value and how many neighbouring classes have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import detached, is_unordered, is_whole, shortened, wide


class Group(NamedTuple):
    """Classes that are interchangeable: of equal sample count (and weight and adjustment).

    Attributes
    ----------
    count : int
        Samples in each of these classes.
    classes : int
        How many classes have that count.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    classes: int


#: What ``counts`` may be: one integer a class, the compact text ``"500x5,100x5"``, or the count of
#: every label.
CountsLike = str | Iterable[int] | Mapping[int, int] | Mapping[str, int] | tuple[Group, ...]

#: What may be said of every class: one number a class, the compact text ``"1x5,5x5"``, a rule's
#: name, or the number of every label.
PerClass = str | Iterable[float] | Mapping[int, float] | Mapping[str, float]

#: Numbers in class order, run-length encoded.
Runs = tuple[tuple[float, int], ...]

_Value = TypeVar("_Value", int, float)

#: Samples beyond this cannot be counted in float64.
MAX_SAMPLES = 2**53


# -- counts ----------------------------------------------------------------------------------------


def parse_counts(counts: CountsLike, name: str = "counts") -> tuple[Group, ...]:
    """Read class counts into runs of equal counts, in class order.

    Parameters
    ----------
    counts : str, iterable of int, or mapping
        Samples per class: ``[500, 500, 100]``, or compactly ``"500x2,100"``, or by label
        ``{0: 500, 1: 500, 2: 100}`` (see `by_class`).
    name : str
        Of the argument, for messages.

    Returns
    -------
    tuple of Group
        Run-length form; neighbouring equal counts are joined.

    Raises
    ------
    ValueError
        If a count is not a positive integer, there are fewer than two classes, or a label is
        missing.

    Examples
    --------
    >>> parse_counts({1: 100, 0: 500, 2: 100})
    (Group(count=500, classes=1), Group(count=100, classes=2))
    """
    if isinstance(counts, tuple) and counts and isinstance(counts[0], Group):
        return cast("tuple[Group, ...]", counts)  # read before
    if isinstance(counts, str):
        groups = tuple(Group(*run) for run in joined(_counts_in(name, counts)))
    else:
        runs = _run_lengths(_counts_of(name, counts))
        groups = tuple(Group(int(count), classes) for count, classes in runs)
    total = num_classes(groups)
    if total < 2:
        raise ValueError(f"{name}: got {total} class{'es' if total != 1 else ''}, need at least 2")
    if num_samples(groups) > MAX_SAMPLES:
        raise ValueError(f"{name}: more than 2**53 samples in all, which float64 cannot count")
    return groups


def compact_counts(counts: CountsLike) -> str:
    """Return counts of any form as compact text, ``"500x5,100x5"``."""
    return format_runs(parse_counts(counts))


def lasting(counts: CountsLike) -> CountsLike:
    """Return counts that can be read more than once."""
    return list(counts) if isinstance(counts, Iterator) else counts


def num_classes(runs: Iterable[tuple[float, int]]) -> int:
    """Return the number of classes of some runs."""
    return sum(classes for _, classes in runs)


def num_samples(counts: Iterable[Group]) -> int:
    """Return the number of samples of some counts."""
    return sum(run.count * run.classes for run in counts)


def counts_array(counts: CountsLike) -> NDArray[np.int64]:
    """Return the count of every class, shape (K,)."""
    runs = parse_counts(counts)
    return np.repeat(
        np.array([run.count for run in runs], dtype=np.int64), [run.classes for run in runs]
    )


def _counts_in(name: str, text: str) -> list[tuple[int, int]]:
    pairs = []
    for part, count, classes in _parts(text):
        if count is None or re.fullmatch(r"\d{1,18}", count, re.ASCII) is None:
            raise ValueError(
                f"{name}: cannot read {part!r} in {shortened(text)!r}; "
                "write COUNT or COUNTxCLASSES with positive whole numbers, as in '500x5,100x5'"
            )
        if int(count) < 1 or classes < 1:
            raise ValueError(f"{name}: {part!r} has a zero; both numbers must be positive")
        pairs.append((int(count), classes))
    return pairs


def _counts_of(name: str, counts: Any) -> NDArray[Any]:
    if isinstance(counts, (bytes, bytearray)):
        raise ValueError(f"{name}: got bytes, {shortened(repr(counts))}; need text or integers")
    _require_ordered(name, counts)
    if is_by_class(counts):
        counts = by_class(name, counts)
    try:
        array = _array_of(counts)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{name}: got {shortened(repr(counts))}; give one positive integer a class, "
            "or text such as '500x5,100x5'"
        ) from None
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{name}: got an array of shape {array.shape}; need one positive integer a class"
        )
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: entries of type {array.dtype} are not positive integers")
    array = wide(array)
    bad = ~np.isfinite(array) | (array < 1) | (array != np.floor(array)) | (array > MAX_SAMPLES)
    if bad.any():
        k = int(np.argmax(bad))
        raise ValueError(f"{name}: class {k} has count {array[k]}; counts are positive integers")
    return array


# -- numbers ---------------------------------------------------------------------------------------


def parse_per_class(
    name: str,
    value: PerClass | None,
    counts: tuple[Group, ...],
    is_allowed: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
    allowed: str,
    names: Sequence[str] = (),
) -> Runs:
    """Read one number a class into runs of equal numbers.

    Parameters
    ----------
    name : str
        Of the argument, for messages.
    value : str, iterable of float, mapping, or None
        Compact text, a number a class, or by label (see `by_class`); None gives no runs. A text of
        one number (``"0.5"``) gives it to every class.
    counts : tuple of Group
        They say how many classes there are.
    is_allowed : callable
        Tells of an array of numbers which are in range.
    allowed : str
        That range in words.
    names : sequence of str
        The classes' names in class order, where the counts are by name.

    Raises
    ------
    ValueError
        If the value has another form, a number is out of range or there is not one a class.
    """
    if value is None:
        return ()
    if (one := _one_number(value)) is not None:
        runs: Runs = ((one, num_classes(counts)),)
    elif _are_runs(value):
        runs = value  # read before
    elif isinstance(value, str):
        runs = joined(_numbers_in(name, value, allowed))
    else:
        runs = _run_lengths(_numbers_of(name, value, allowed, num_classes(counts), names))
    bad = np.flatnonzero(~is_allowed(np.array([number for number, _ in runs])))
    if len(bad):
        raise ValueError(f"{name}: got {runs[bad[0]][0]:g}, need {allowed}")
    classes = num_classes(counts)
    if (given := num_classes(runs)) != classes:
        raise ValueError(f"{name}: got {given} numbers for {classes} classes")
    return runs


def _are_runs(value: Any) -> TypeGuard[Runs]:
    """Tell runs that were read before from pairs that somebody gave."""
    return (
        isinstance(value, tuple)
        and len(value) > 0
        and all(
            isinstance(run, tuple)
            and len(run) == 2
            and type(run[0]) in (int, float)
            and is_whole(run[1])
            and run[1] >= 1
            for run in value
        )
    )


def spread(runs: Runs) -> NDArray[np.float64]:
    """Return the number of every class, shape (K,)."""
    return np.repeat([float(value) for value, _ in runs], [classes for _, classes in runs])


def _numbers_in(name: str, text: str, allowed: str) -> list[tuple[float, int]]:
    pairs = []
    for part, number, classes in _parts(text):
        try:
            value = float(number or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or classes < 1:
            raise ValueError(
                f"{name}: cannot read {shortened(part)!r}; write NUMBER or NUMBERxCLASSES, as "
                f"in '1x5,5x5': {allowed}"
            )
        pairs.append((value, classes))
    return pairs


def _numbers_of(
    name: str, value: Any, allowed: str, classes: int, names: Sequence[str]
) -> NDArray[np.float64]:
    _require_ordered(name, value)
    if is_by_class(value):
        value = by_class(name, value, classes, names)
    try:
        array = _array_of(value)
    except (TypeError, ValueError):
        array = np.array("")
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iuf":
        raise ValueError(
            f"{name}: got {shortened(repr(value))}, need one number a class or compact text "
            f"such as '1x5,5x5': {allowed}"
        )
    return array.astype(np.float64)


def _require_ordered(name: str, value: Any) -> None:
    if is_unordered(value):
        raise ValueError(
            f"{name}: got the set {shortened(repr(value))}, which has no order and holds equal "
            "numbers once; need one number a class, or one by label: {0: 500, 1: 100}"
        )


def _array_of(value: Any) -> NDArray[Any]:
    if isinstance(value, (np.ndarray, bytes)):
        return np.asarray(detached(value))
    if callable(getattr(value, "tolist", None)):  # a tensor: with a gradient, on any device
        value = value.tolist()
    return np.asarray(list(value))


# -- the grammar -----------------------------------------------------------------------------------

_PART = re.compile(r"\s*([^\sx*]+)\s*(?:[x*]\s*(\d{1,18})\s*)?", re.ASCII)


def _parts(text: str) -> Iterable[tuple[str, str | None, int]]:
    """Give every part of a compact text, its value and number of classes; no value if it's bad."""
    for part in text.split(","):
        match = _PART.fullmatch(part)
        yield part.strip(), match and match[1], int((match and match[2]) or 1)


def _one_number(value: Any) -> float | None:
    """Return the number of a text that has one alone, which stands for every class."""
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def format_runs(runs: Iterable[tuple[float, int]]) -> str:
    """Write runs as compact text that gives exactly these again."""
    return ",".join(repr(v) if n == 1 else f"{v!r}x{n}" for v, n in runs)


def joined(pairs: Iterable[tuple[_Value, int]]) -> tuple[tuple[_Value, int], ...]:
    """Join neighbours of equal value."""
    runs: list[tuple[_Value, int]] = []
    for value, classes in pairs:
        if runs and runs[-1][0] == value:
            runs[-1] = value, runs[-1][1] + classes
        else:
            runs.append((value, classes))
    return tuple(runs)


def _run_lengths(array: NDArray[Any]) -> Runs:
    # By comparison with the previous entry: one pass, no Python loop over classes.
    starts = np.flatnonzero(np.r_[True, array[1:] != array[:-1]])
    lengths = np.diff(np.r_[starts, array.size])
    return tuple(zip(array[starts].tolist(), lengths.tolist(), strict=True))


# -- by class --------------------------------------------------------------------------------------


def is_by_class(value: Any) -> bool:
    """Tell whether a value is a mapping, or a pandas Series, which is read by its index."""
    return isinstance(value, Mapping) or (hasattr(value, "items") and hasattr(value, "index"))


def names_in(counts: Any) -> tuple[str, ...]:
    """Return the sorted names of the classes if counts are by name, else nothing."""
    if not is_by_class(counts):
        return ()
    labels = [label for label, _ in counts.items()]
    named = all(isinstance(label, str) for label in labels) and not _are_digits(labels)
    return tuple(sorted(labels)) if named else ()


def by_label(name: str, value: Any, class_names: Sequence[str] | None) -> Any:
    """Return a mapping whose keys are names of classes with the classes' labels as its keys.

    Anything else is returned as it is: labels are labels where classes have names, too.

    Parameters
    ----------
    name : str
        Of the argument, for messages.
    value
        What may be said class by class.
    class_names : sequence of str or None
        In class order.

    Raises
    ------
    ValueError
        If a key is text and none of the names.

    Examples
    --------
    >>> by_label("counts", {"dog": 7, "cat": 9}, ["cat", "dog"])
    {1: 7, 0: 9}
    """
    if class_names is None or not is_by_class(value):
        return value
    pairs = list(value.items())
    if not all(isinstance(key, str) for key, _ in pairs):
        return value
    labels = {known: label for label, known in enumerate(class_names)}
    unknown = [key for key, _ in pairs if key not in labels]
    if unknown and _are_digits([key for key, _ in pairs]):
        return value
    if unknown:
        raise ValueError(
            f"{name}: got the key {unknown[0]!r}, need the names "
            f"{shortened(', '.join(class_names))}"
        )
    return {labels[key]: entry for key, entry in pairs}


def by_class(
    name: str, value: Any, classes: int | None = None, names: Sequence[str] = ()
) -> list[Any]:
    """Return the values of a mapping in class order, whatever the order of its keys.

    Parameters
    ----------
    name : str
        Of the argument, for messages.
    value : mapping or Series
        Keys are the labels: integers from 0, also written as text (as JSON does), or names, whose
        order is the alphabet's.
    classes : int, optional
        How many there are, where that is known.
    names : sequence of str
        The names that the classes have, where they have some.

    Raises
    ------
    ValueError
        If a label is missing or there are labels of several kinds.

    Examples
    --------
    >>> by_class("counts", {"dog": 7, "cat": 9})
    [9, 7]
    """
    labels = [label for label, _ in value.items()]
    if all(map(is_whole, labels)) or _are_digits(labels):
        labels = [int(label) for label in labels]
        wanted: Sequence[Any] = () if names else range(len(labels) if classes is None else classes)
    elif all(isinstance(label, str) for label in labels):
        wanted = names if classes is not None else sorted(labels)
    else:
        wanted = ()
    need = f"every whole number from 0 to {(classes or len(labels)) - 1}"
    if labels and wanted and labels == list(range(1, len(labels) + 1)):
        need += "; where labels begin with 1, take 1 off each"
    if names:
        need = f"the names {shortened(', '.join(names))}"
    if not wanted:
        kinds = " and ".join(sorted({type(label).__name__ for label in labels})) or "no"
        raise ValueError(f"{name}: got {kinds} keys; they are the classes' labels, need {need}")
    values = dict(zip(labels, (entry for _, entry in value.items()), strict=True))
    known = set(wanted)
    wrong = [f"class {label!r} is missing" for label in wanted if label not in values]
    wrong += [f"got the key {label!r}" for label in labels if label not in known]
    if len(values) < len(labels):
        wrong.append("a class is there twice")
    if wrong:
        raise ValueError(f"{name}: {wrong[0]}; keys are the classes' labels, need {need}")
    return [values[label] for label in wanted]


def _are_digits(labels: Sequence[Any]) -> bool:
    return all(isinstance(label, str) and label.isdecimal() for label in labels)
