"""A limit of the time that work may take: how it is written, and what ends when it is over."""

from __future__ import annotations

import re
import time
from typing import Any

from tightframe.checks import positive_float

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WRITTEN = re.compile(r"([0-9.]+)([smhd])")


class TimeIsUp(Exception):  # noqa: N818 - no error: what was done is kept, to go on with
    """Raised where work stops because its time is over, with a checkpoint to go on from."""


def seconds_of(limit: Any) -> float:
    """Return a limit in seconds.

    Parameters
    ----------
    limit : str or float
        ``"90s"``, ``"15m"``, ``"2h"``, ``"1d"``; a number is in seconds.

    Raises
    ------
    ValueError
        If it is written otherwise, or not positive.

    Examples
    --------
    >>> seconds_of("15m"), seconds_of(90)
    (900.0, 90.0)
    """
    found = _WRITTEN.fullmatch(limit.strip()) if isinstance(limit, str) else None
    try:
        if isinstance(limit, str) and found is None:
            raise ValueError
        number, unit = (found[1], found[2]) if found is not None else (limit, "s")
        return positive_float("limit", float(number)) * _UNITS[unit]
    except (TypeError, ValueError):
        raise ValueError(
            f"limit: got {limit!r}, need a positive time such as 90s, 15m, 2h or 1d"
        ) from None


def is_over(until: float | None) -> bool:
    """Return whether a time has come; ``until`` is one of `time.time`, or None for no limit."""
    return until is not None and time.time() >= until
