"""One grammar for what is said class by class, ``"500x5,100x5"``: read, written and joined."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import shortened

#: What ``counts`` may be: one integer a class, or the compact text ``"500x5,100x5"``.
CountsLike = str | Iterable[int]


#: What may be said of every class: one number a class, the compact text ``"1x5,5x5"``, or a rule's
#: name.
PerClass = str | Iterable[float]


#: Numbers in class order, run-length encoded: pairs of a value and how many classes have it.
Runs = tuple[tuple[float, int], ...]


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


def parse_counts(counts: CountsLike) -> tuple[Group, ...]:
    """Read class counts into runs of equal counts, in class order.

    Parameters
    ----------
    counts : str or iterable of int
        Samples per class: ``[500, 500, 100]`` or compactly ``"500x2,100"``.

    Returns
    -------
    tuple of Group
        Run-length form; neighbouring equal counts are joined.

    Raises
    ------
    ValueError
        If a count is not a positive integer, or there are fewer than two classes.
    """
    if isinstance(counts, tuple) and counts and isinstance(counts[0], Group):
        return counts  # read before
    pairs = _parse_text(counts) if isinstance(counts, str) else _parse_sequence(counts)
    runs: list[Group] = []
    for count, classes in pairs:
        if runs and runs[-1].count == count:
            runs[-1] = Group(count, runs[-1].classes + classes)
        else:
            runs.append(Group(count, classes))
    total = sum(run.classes for run in runs)
    if total < 2:
        raise ValueError(f"counts: got {total} class{'es' if total != 1 else ''}, need at least 2")
    if sum(run.count * run.classes for run in runs) > 2**53:
        raise ValueError("counts: more than 2**53 samples in all, which float64 cannot count")
    return tuple(runs)


def _parse_text(text: str) -> list[tuple[int, int]]:
    pairs = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})\s*(?:[x*]\s*(\d{1,18})\s*)?", part, re.ASCII)
        if match is None:
            raise ValueError(
                f"counts: cannot read {part.strip()!r} in {shortened(text)!r}; "
                "write COUNT or COUNTxCLASSES with positive whole numbers, as in '500x5,100x5'"
            )
        count, classes = int(match[1]), int(match[2] or 1)
        if count < 1 or classes < 1:
            raise ValueError(f"counts: {part.strip()!r} has a zero; both numbers must be positive")
        pairs.append((count, classes))
    return pairs


def _parse_sequence(counts: Iterable[int]) -> list[tuple[int, int]]:
    if isinstance(counts, (bytes, bytearray)):
        raise ValueError(f"counts: got bytes, {shortened(repr(counts))}; need text or integers")
    try:
        array = np.asarray(counts if isinstance(counts, np.ndarray) else list(counts))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"counts: got {shortened(repr(counts))}; give one positive integer a class, "
            "or text such as '500x5,100x5'"
        ) from None
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"counts: got an array of shape {array.shape}; need one positive integer a class"
        )
    if array.dtype.kind not in "iuf":
        raise ValueError(f"counts: entries of type {array.dtype} are not positive integers")
    bad = ~np.isfinite(array) | (array < 1) | (array != np.floor(array)) | (array > 2**53)
    if bad.any():
        k = int(np.argmax(bad))
        raise ValueError(f"counts: class {k} has count {array[k]}; counts are positive integers")
    return [(int(count), classes) for count, classes in _run_lengths(array)]


def _run_lengths(array: NDArray[Any]) -> Runs:
    # By comparison with the previous entry: one pass, no Python loop over classes.
    starts = np.flatnonzero(np.r_[True, array[1:] != array[:-1]])
    lengths = np.diff(np.r_[starts, array.size])
    return tuple(zip(array[starts].tolist(), lengths.tolist(), strict=True))


def format_counts(runs: Iterable[Group]) -> str:
    """Write runs of counts as compact text, the inverse of `parse_counts`."""
    return ",".join(
        str(run.count) if run.classes == 1 else f"{run.count}x{run.classes}" for run in runs
    )


def format_runs(runs: Runs) -> str:
    """Write numbers as compact text that gives exactly these again."""
    return ",".join(repr(v) if n == 1 else f"{v!r}x{n}" for v, n in runs)


def spread(runs: Runs) -> NDArray[np.float64]:
    """Return the number of every class, shape (K,)."""
    return np.repeat([float(value) for value, _ in runs], [classes for _, classes in runs])


def parse_per_class(
    name: str,
    value: PerClass | None,
    counts: tuple[Group, ...],
    is_allowed: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
    allowed: str,
) -> Runs:
    """Read one number a class, or compact text, into runs of equal numbers."""
    if value is None:
        return ()
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        runs: Runs = value  # read before
    elif isinstance(value, str):
        runs = _join(_number_and_classes(name, part, allowed) for part in value.split(","))
    else:
        try:
            array = np.asarray(value if isinstance(value, (np.ndarray, bytes)) else list(value))
        except (TypeError, ValueError):
            array = np.array("")
        if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iuf":
            raise ValueError(
                f"{name}: got {shortened(repr(value))}, need one number a class or compact text "
                f"such as '1x5,5x5': {allowed}"
            )
        runs = _run_lengths(array.astype(np.float64))
    bad = np.flatnonzero(~is_allowed(np.array([number for number, _ in runs])))
    if len(bad):
        raise ValueError(f"{name}: got {runs[bad[0]][0]:g}, need {allowed}")
    classes = sum(run.classes for run in counts)
    if (given := sum(number for _, number in runs)) != classes:
        raise ValueError(f"{name}: got {given} numbers for {classes} classes")
    return runs


def _number_and_classes(name: str, part: str, allowed: str) -> tuple[float, int]:
    number, _, classes = part.replace("*", "x").partition("x")
    try:
        pair = float(number), int(classes or 1)
    except ValueError:
        pair = math.nan, 1
    if not math.isfinite(pair[0]) or pair[1] < 1:
        raise ValueError(
            f"{name}: cannot read {shortened(part.strip())!r}; write NUMBER or NUMBERxCLASSES, as "
            f"in '1x5,5x5': {allowed}"
        )
    return pair


def _join(pairs: Iterable[tuple[float, int]]) -> Runs:
    runs: list[tuple[float, int]] = []
    for value, classes in pairs:
        if runs and runs[-1][0] == value:
            runs[-1] = value, runs[-1][1] + classes
        else:
            runs.append((value, classes))
    return tuple(runs)
