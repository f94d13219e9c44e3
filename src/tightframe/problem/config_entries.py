"""The entries of a training configuration: plain values, each with the names that lead to it."""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tightframe.checks import first_few, shortened

#: Limits of what is searched: entries, those that aliases repeat counted anew, and levels.
MAX_ENTRIES = 100_000
_MAX_DEPTH = 100

#: Parts of a configuration that are not about training.
NOT_TRAINING = re.compile(r"(val(?!ue)|eval|test|predict|infer).*")


class Entry(NamedTuple):
    """A plain value and the names and list places that lead to it."""

    path: tuple[str | int, ...]
    value: Any

    def __str__(self) -> str:
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.path)
        return f"{shortened(place.removeprefix('.'))} {shortened(repr(self.value))}"

    @property
    def names(self) -> list[str]:
        """The names that lead here, each as one word."""
        return [plain(part) for part in self.path if isinstance(part, str)]

    @property
    def is_number(self) -> bool:
        """Whether the value is a number, not a truth value."""
        return isinstance(self.value, numbers.Real) and not isinstance(self.value, bool)


def plain(name: str) -> str:
    """Return a name as one word: ``WEIGHT-DECAY``, ``weight_decay``, ``weightDecay`` are one."""
    return name.lower().replace("_", "").replace("-", "")


def entries_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Entry]:
    """Yield the plain values inside a value, whatever holds them."""
    if len(path) > _MAX_DEPTH:
        raise ValueError(f"is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from entries_of(inner, (*path, str(name)))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from entries_of(inner, (*path, i))
    else:
        yield Entry(path, value)


def own_name(entry: Entry) -> str:
    """Return the name that a value has, not those of the parts around it."""
    names = entry.names
    # Weights & Biases write {"weight_decay": {"value": 5e-4}}.
    return names[-2] if names[-1] == "value" and len(names) > 1 else names[-1]


def listed_entries(entries: list[Entry]) -> str:
    """Return places and values for a sentence."""
    return first_few([str(entry) for entry in entries], 5)
