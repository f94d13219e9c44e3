"""What a training configuration says of weight decay and batch size, or why that is not clear.

Knows PyTorch's optimisers, Lightning's, Hugging Face's and timm's arguments, and files like
theirs, by the names that they use. A setting that stands in two places with two values, or under
a name that may mean it, is refused with the places: a wrong decay makes every prediction wrong.
"""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tightframe.checks import is_whole, shortened
from tightframe.problem.config_files import read_config


@dataclass(frozen=True)
class TrainingSettings:
    """What a configuration says of the last layer's problem; None where it says nothing.

    Attributes
    ----------
    weight_decay : float or None
    batch_size : int or None
        Samples of one optimiser step, on all devices that a Lightning trainer's part names.
    decoupled : bool
        Whether the optimiser decouples its weight decay from the loss (AdamW): that is no penalty,
        so that ``weight_decay`` is not the UFM's.
    """

    weight_decay: float | None
    batch_size: int | None
    decoupled: bool


def training_settings(source: Any) -> TrainingSettings:
    """Read weight decay and batch size from a training configuration.

    Parameters
    ----------
    source : path-like, mapping or object
        A file, JSON, YAML or TOML: a Lightning command's ``config.yaml``, timm's ``args.yaml``, or
        what Hugging Face's ``TrainingArguments.to_json_string()`` returns. Such a mapping, an
        object with ``to_dict`` (``TrainingArguments``), or a PyTorch optimiser. Files are read as
        YAML 1.2 and JSON define them, so that ``5e-4`` is a number and ``"5e-4"`` is text. Where no
        optimiser is named, the decay is taken for a penalty, as that of SGD and Adam is.

    Raises
    ------
    ValueError
        If the file is no such file, or a setting is given as something else, in two places with
        two values or only under a name that may mean it (``wd``). The message names the places.

    Examples
    --------
    >>> training_settings({"optimizer": {"class_path": "torch.optim.SGD",
    ...     "init_args": {"weight_decay": 5e-4}}, "data": {"batch_size": 128}})
    TrainingSettings(weight_decay=0.0005, batch_size=128, decoupled=False)
    """
    found = Configuration.of(source)
    return TrainingSettings(
        found.weight_decay(), found.batch_size(), found.decoupled_by() is not None
    )


# -- where something stands ------------------------------------------------------------------------

#: Limits of what is searched: entries, those that aliases repeat counted anew, and levels.
_MAX_ENTRIES = 100_000
_MAX_DEPTH = 100


class _Entry(NamedTuple):
    """A plain value and the names and list places that lead to it."""

    path: tuple[str | int, ...]
    value: Any

    def __str__(self) -> str:
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.path)
        return f"{shortened(place.removeprefix('.'))} {shortened(repr(self.value))}"

    @property
    def names(self) -> list[str]:
        return [_plain(part) for part in self.path if isinstance(part, str)]

    @property
    def is_number(self) -> bool:
        return isinstance(self.value, numbers.Real) and not isinstance(self.value, bool)


def _plain(name: str) -> str:
    """Return a name as one word: ``WEIGHT-DECAY``, ``weight_decay``, ``weightDecay`` are one."""
    return name.lower().replace("_", "").replace("-", "")


def _entries(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[_Entry]:
    if len(path) > _MAX_DEPTH:
        raise ValueError(f"is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _entries(inner, (*path, str(name)))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _entries(inner, (*path, i))
    else:
        yield _Entry(path, value)


# -- what the names mean ---------------------------------------------------------------------------

#: Names that may mean a weight decay: of parameters, of a schedule, or in a script's own words.
_MAY_DECAY = re.compile(r".*weightdecay.*|w(eight)?d(ecay)?|l2(reg|penalty|lambda|decay|coef).*|l2")
_BATCH_SIZE = ("batchsize", "trainbatchsize", "perdevicetrainbatchsize")
#: Parts of a configuration that are not about training.
_NOT_TRAINING = re.compile(r"(val(?!ue)|eval|test|predict|infer).*")
_OPTIMIZER = re.compile(r".*optim.*|opt|type|name|classpath|target|algorithm")
#: Optimisers whose weight decay is no penalty of the loss, as parts of their names.
_DECOUPLED = re.compile(
    r"adam_?w|adamp|sgd_?w|sgdp|madgrad_?w|adafactor|adabelief|sophia|muon"
    r"|(?<![a-z])(fused)?(lion|lamb|adan)(?![a-z])",
    re.IGNORECASE,
)
_DECOUPLING = ("decoupledweightdecay", "weightdecouple", "adamwmode")


class Configuration:
    """A configuration in which settings are looked up, each on its own.

    Parameters
    ----------
    name : str
        For messages.
    config : mapping
    """

    def __init__(self, name: str, config: Mapping[Any, Any]) -> None:
        self._name = name
        self._found: list[_Entry] = []
        try:
            for entry in _entries(config):
                self._found.append(entry)
                if len(self._found) > _MAX_ENTRIES:
                    raise ValueError(f"has more than {_MAX_ENTRIES} entries")
        except ValueError as error:
            raise self._error(str(error)) from None

    @classmethod
    def of(cls, source: Any) -> Configuration:
        """Take what `training_settings` takes."""
        name = type(source).__name__
        if isinstance(source, (str, os.PathLike)):
            return cls(os.fspath(source), read_config(Path(source)))
        if isinstance(source, Mapping):
            return cls(name, source)
        if hasattr(source, "param_groups"):
            groups = [
                {key: value for key, value in group.items() if key != "params"}
                for group in source.param_groups
            ]
            return cls(name, {"optimizer": name, "param_groups": groups})
        if callable(getattr(source, "to_dict", None)):
            return cls(name, source.to_dict())
        raise ValueError(f"config: got {name}, need a file, a mapping or an optimiser")

    def weight_decay(self) -> float | None:
        """Return the one weight decay, None if there is none."""
        own, kin = [], []
        for entry in self._found:
            if _stands_as(entry, ("weightdecay",)):
                own.append(entry)
            elif (
                entry.is_number
                and entry.value != 0
                and (_may_decay(entry) or _is_optimizer_decay(entry))
            ):
                kin.append(entry)
        own = [entry for entry in own if entry.value is not None]
        for entry in own:
            if not entry.is_number or not 0 <= _as_float(entry.value) < math.inf:
                raise self._error(
                    f"has {entry}, need a finite number, at least 0; give weight_decay"
                )
        own = [entry for entry in own if not _is_group_without(entry, own)]
        if kin and not own:
            raise self._error(f"has {_listed(kin)}, which may be a weight decay; give weight_decay")
        kin = [entry for entry in kin if _may_decay(entry)]
        if len({_as_float(entry.value) for entry in own + kin}) > 1:
            raise self._error(f"has several weight decays, {_listed(own + kin)}; give weight_decay")
        return float(own[0].value) if own else None

    def batch_size(self) -> int | None:
        """Return the samples of one optimiser step, None if no batch size is named."""
        sizes = self._training(lambda name: name in _BATCH_SIZE)
        if not sizes:
            return None
        size = self._one_whole("batch sizes", sizes)
        steps = self._training(lambda name: "accum" in name and not name.startswith("eval"))
        steps = [entry for entry in steps if entry.is_number and entry.value != 0]
        size *= self._one_whole("numbers of accumulated batches", steps) if steps else 1
        for part in ("devices", "numnodes"):
            size *= self._lightning(part)
        return size

    def decoupled_by(self) -> str | None:
        """Return what says that weight decay is no penalty of the loss, None if nothing does."""
        for entry in self._found:
            named = entry.names and _OPTIMIZER.fullmatch(entry.names[-1])
            if named and isinstance(entry.value, str) and _DECOUPLED.search(entry.value):
                return str(entry)
            if entry.value is True and entry.names and entry.names[-1] in _DECOUPLING:
                return str(entry)
        return None

    def _training(self, wanted: Callable[[str], bool]) -> list[_Entry]:
        """Return what stands under a name, unless in a part about validation or tests."""
        return [
            entry
            for entry in self._found
            if entry.value is not None
            and not isinstance(entry.value, bool)
            and any(wanted(name) for name in entry.names)
            and not any(_NOT_TRAINING.fullmatch(name) for name in entry.names)
        ]

    def _one_whole(self, what: str, entries: list[_Entry]) -> int:
        for entry in entries:
            whole = is_whole(entry.value) or (entry.is_number and entry.value % 1 == 0)
            if not whole or not 1 <= entry.value < 2**63 or not _is_value(entry):
                raise self._error(
                    f"has {entry}, need a whole number, at least 1 and below 2**63; give batch_size"
                )
        if len({entry.value for entry in entries}) > 1:
            raise self._error(f"has several {what}, {_listed(entries)}; give batch_size")
        return int(entries[0].value)

    def _lightning(self, part: str) -> int:
        """Return how many devices or nodes a Lightning trainer's part names, 1 if none."""
        entries = [entry for entry in self._found if entry.names[-2:] == ["trainer", part]]
        if len(entries) == 1 and isinstance(entries[0].path[-1], str):
            value = entries[0].value
            if is_whole(value):
                return max(int(value), 1)  # -1: all that are there, which are not named
            if isinstance(value, str) and value != "auto":
                raise self._error(f"has {entries[0]}, need a whole number; give batch_size")
            return 1
        return max(len(entries), 1)  # a list of devices

    def _error(self, message: str) -> ValueError:
        return ValueError(f"config: {shortened(self._name, 200)} {message}")


def _stands_as(entry: _Entry, names: tuple[str, ...]) -> bool:
    """Tell whether an entry is what its name has, not part of what stands under it."""
    return bool(entry.names) and _own_name(entry) in names


def _own_name(entry: _Entry) -> str:
    names = entry.names
    # Weights & Biases write {"weight_decay": {"value": 5e-4}}.
    return names[-2] if names[-1] == "value" and len(names) > 1 else names[-1]


def _is_value(entry: _Entry) -> bool:
    return isinstance(entry.path[-1], str) and not entry.path[-1].isdigit()


def _may_decay(entry: _Entry) -> bool:
    return any(_MAY_DECAY.fullmatch(name) for name in entry.names)


def _is_optimizer_decay(entry: _Entry) -> bool:
    """Tell whether it is an optimiser's plain "decay": of the weights, or of the learning rate."""
    *sections, name = entry.names or [""]
    return name == "decay" and any("optim" in section for section in sections)


def _is_group_without(entry: _Entry, others: list[_Entry]) -> bool:
    """Tell whether it is a parameter group without decay (biases, norms) beside one with it."""
    if entry.value != 0:
        return False
    place = _group(entry)
    return place is not None and any(_group(o) == place and o.value != 0 for o in others)


def _group(entry: _Entry) -> tuple[str | int, ...] | None:
    for i, part in enumerate(entry.path):
        if isinstance(part, int) and i and re.search("group|param", str(entry.path[i - 1])):
            return entry.path[:i]
    return None


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _listed(entries: list[_Entry]) -> str:
    shown = [str(entry) for entry in entries[:5]]
    return ", ".join(shown) + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
