"""One grammar for what is said layer by layer, ``"0.01/0.02"``: read and written.

One number says the same of every problem; several belong to the layers of a deep head, first to
last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def parse_layers(text: str, number: Callable[[str], float]) -> float | tuple[float, ...]:
    """Read one number, or several, one a layer.

    Parameters
    ----------
    text : str
    number : callable
        Reads one of them, and says in its own words if it is none.

    Notes
    -----
    Commas are read as slashes; in a sweep they stand between its values, not here.

    Examples
    --------
    >>> parse_layers("0.01", float), parse_layers("0.01/0.02", float)
    (0.01, (0.01, 0.02))
    """
    parts = re.split("[/,]", text)
    return number(text) if len(parts) == 1 else tuple(number(part) for part in parts)


def format_layers(values: Iterable[float]) -> str:
    """Write numbers, one a layer, as text that gives exactly these again."""
    return "/".join(map(repr, values))
