"""What a training configuration says of weight decay, batch size and label smoothing, or why not.

Knows PyTorch's optimisers, Lightning's, Hugging Face's and timm's arguments, and files like
theirs, by the names that they use. A setting that stands in two places with two values, or under
a name that may mean it, is refused with the places: a wrong decay makes every prediction wrong.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightframe.checks import is_whole, shortened
from tightframe.problem.config_entries import (
    MAX_ENTRIES,
    NOT_TRAINING,
    Entry,
    entries_of,
    listed_entries,
    own_name,
)
from tightframe.problem.config_files import read_config
from tightframe.problem.loss_settings import loss_settings
from tightframe.problem.optimizers import FLAGS, SHORT_FLAGS, decouples, names_of
from tightframe.shown import record


@record
@dataclass(frozen=True)
class TrainingSettings:
    """What a configuration says of the last layer's problem; None where it says nothing.

    Attributes
    ----------
    weight_decay : float or None
    batch_size : int or None
        Samples of one optimiser step: of all accumulated batches, on all devices of all nodes.
    decoupled : bool
        Whether the optimiser decouples its weight decay from the loss (AdamW): that is no penalty,
        so that ``weight_decay`` is not the UFM's.
    label_smoothing : float
        0 where it names none.
    """

    weight_decay: float | None
    batch_size: int | None
    decoupled: bool
    label_smoothing: float = 0.0


def training_settings(source: Any) -> TrainingSettings:
    """Read weight decay, batch size and label smoothing from a training configuration.

    Parameters
    ----------
    source : path-like, mapping or object
        A file, JSON, YAML or TOML: a Lightning command's ``config.yaml``, timm's ``args.yaml``, or
        what Hugging Face's ``TrainingArguments.to_json_string()`` returns. Such a mapping, an
        object with ``to_dict`` (``TrainingArguments``), or a PyTorch optimiser. Files are read as
        YAML 1.2 and JSON define them, so that ``5e-4`` is a number and ``"5e-4"`` is text. Where no
        optimiser is named, the decay is taken for a penalty, as that of SGD and Adam is. The
        devices are those of a Lightning trainer's part (``devices``, ``num_nodes``), of
        ``world_size`` or ``num_processes``, or of ``TrainingArguments`` itself, as it is in the
        training process.

    Raises
    ------
    ValueError
        If the file is no such file, or a setting is given as something else, in two places with
        two values or only under a name that may mean it (``wd``). The message names the places.

    Warns
    -----
    RuntimeWarning
        If the batch is that of one device and the configuration does not say how many there were
        (``devices: auto``): ``batch_size`` is then that of one. If the configuration mixes samples
        (mixup, CutMix): no problem here has such labels. If it names another loss, or a setting
        that may change the loss: class weights, margins, scales.

    Examples
    --------
    >>> training_settings({"optimizer": {"class_path": "torch.optim.SGD",
    ...     "init_args": {"weight_decay": 5e-4}}, "data": {"batch_size": 128}})
    TrainingSettings(weight_decay=0.0005, batch_size=128, decoupled=False, label_smoothing=0.0)
    """
    found = Configuration.of(source)
    loss_settings(found, None, ())  # warns of what is not read
    return TrainingSettings(
        found.weight_decay(),
        found.batch_size(),
        found.decoupled_by() is not None,
        found.label_smoothing() or 0.0,
    )


# -- what the names mean ---------------------------------------------------------------------------

#: Names that may mean a weight decay: of parameters, of a schedule, or in a script's own words.
_MAY_DECAY = re.compile(r".*weightdecay.*|w(eight)?d(ecay)?|l2(reg|penalty|lambda|decay|coef).*|l2")
#: Share of the label that is spread: PyTorch and Lightning; Hugging Face; timm; MMPretrain.
_SMOOTHING = ("labelsmoothing", "labelsmoothingfactor", "smoothing", "labelsmoothval")
#: Names that may mean it.
_MAY_SMOOTH = re.compile(r"(label|target)?smooth(ing|ed)?(labels?|alpha|eps(ilon)?|factor|val)?")
#: Weights of samples that are mixed with others; timm, torchvision and MMPretrain.
_MIXING = re.compile(r"(mixup|cutmix)(alpha|prob)?")
#: Of a device, of a device or of all, of all accumulated batches on all devices.
_DEVICE_BATCH = (
    "perdevicetrainbatchsize",
    "pergputrainbatchsize",
    "trainmicrobatchsizepergpu",
    "samplespergpu",
    "batchsizepergpu",
    "batchsizeperdevice",
    "microbatchsize",
)
_BATCH_SIZE = ("batchsize", "trainbatchsize", *_DEVICE_BATCH)
_WHOLE_BATCH = ("globalbatchsize", "effectivebatchsize", "totalbatchsize")
#: Processes, one a device; devices of a process.
_PROCESSES = ("worldsize", "numprocesses")
_OWN_DEVICES = ("ngpu", "numgpus", "ngpus")
_OPTIMIZER = re.compile(r".*optim.*|opt|type|name|classpath|target|algorithm")
#: Settings that only a configuration for DeepSpeed has.
_DEEPSPEED = ("trainmicrobatchsizepergpu", "zerooptimization")


class Configuration:
    """A configuration in which settings are looked up, each on its own.

    Parameters
    ----------
    name : str
        For messages.
    config : mapping
    """

    def __init__(self, name: str, config: Mapping[Any, Any]) -> None:
        self.title = shortened(name, 200)
        self.entries: list[Entry] = []
        try:
            for entry in entries_of(config):
                self.entries.append(entry)
                if len(self.entries) > MAX_ENTRIES:
                    raise ValueError(f"has more than {MAX_ENTRIES} entries")
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
            names = names_of(source)
            named = {"optimizer": names[0] if len(names) == 1 else names}
            mode = getattr(source, "adam_w_mode", None)  # Apex and DeepSpeed have no group's flag
            flag = {} if mode is None else {"adam_w_mode": bool(mode)}
            return cls(name, named | flag | {"param_groups": groups})
        if callable(getattr(source, "to_dict", None)):
            # What `TrainingArguments` know in the training process only.
            here = {key: getattr(source, key, None) for key in ("world_size", "n_gpu")}
            known = {key: value for key, value in here.items() if value is not None}
            return cls(name, source.to_dict() | known)
        raise ValueError(f"config: got {name}, need a file, a mapping or an optimiser")

    def weight_decay(self) -> float | None:
        """Return the one weight decay, None if there is none."""
        own, kin = [], []
        for entry in self.entries:
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
            raise self._error(
                f"has {listed_entries(kin)}, which may be a weight decay; give weight_decay"
            )
        kin = [entry for entry in kin if _may_decay(entry)]
        if len({_as_float(entry.value) for entry in own + kin}) > 1:
            raise self._error(
                f"has several weight decays, {listed_entries(own + kin)}; give weight_decay"
            )
        return float(own[0].value) if own else None

    def label_smoothing(self) -> float | None:
        """Return the share of every label that is spread over all, None if none is named."""
        self._warn_of_mixing()
        found = [
            entry
            for entry in self._training(lambda name: bool(_MAY_SMOOTH.fullmatch(name)))
            if _MAY_SMOOTH.fullmatch(own_name(entry))
        ]
        own = [entry for entry in found if own_name(entry) in _SMOOTHING]
        for entry in own:
            if not entry.is_number or not 0 <= _as_float(entry.value) < 1:
                raise self._error(
                    f"has {entry}, need a number from 0 to below 1; give label_smoothing"
                )
        kin = [entry for entry in found if entry.is_number and entry.value != 0]
        if kin and not own:
            raise self._error(
                f"has {listed_entries(kin)}, which may be label smoothing; give label_smoothing"
            )
        if len({_as_float(entry.value) for entry in own}) > 1:
            raise self._error(
                f"has several label smoothings, {listed_entries(own)}; give label_smoothing"
            )
        return self._smoothed_by(own[0]) if own else None

    def _smoothed_by(self, share: Entry) -> float:
        """Return the share as PyTorch means it: MMPretrain has modes that mean others."""
        value = float(share.value)
        modes = [
            e for e in self.entries if own_name(e) == "mode" and e.path[:-1] == share.path[:-1]
        ]
        if own_name(share) != "labelsmoothval" or not modes or not value:
            return value
        if modes[0].value == "classy_vision":
            return value / (1 + value)
        if modes[0].value != "original":
            raise self._error(f"has {modes[0]}, which is no label smoothing; give label_smoothing")
        return value

    def _warn_of_mixing(self) -> None:
        mixed = [
            entry
            for entry in self._training(lambda name: bool(_MIXING.fullmatch(name)))
            if entry.is_number and entry.value != 0 and not own_name(entry).endswith("prob")
        ]
        if mixed:
            warnings.warn(
                f"config: {self.title} has {listed_entries(mixed)}: samples are "
                "mixed, which no problem here has",
                RuntimeWarning,
                stacklevel=4,
            )

    def batch_size(self) -> int | None:
        """Return the samples of one optimiser step, None if no batch size is named."""
        whole = (*_WHOLE_BATCH, "trainbatchsize") if self._is_deepspeed() else _WHOLE_BATCH
        total = [entry for entry in self._training(lambda name: name in whole) if entry.is_number]
        if total:
            return self._one_whole("batch sizes", total)
        sizes = self._training(lambda name: name in _BATCH_SIZE and name not in whole)
        if not sizes:
            return None
        size = self._one_whole("batch sizes", sizes)
        steps = self._training(lambda name: "accum" in name and not name.startswith("eval"))
        steps = [entry for entry in steps if entry.is_number and entry.value != 0]
        size *= self._one_whole("numbers of accumulated batches", steps) if steps else 1
        return size * self._devices(sizes[0], size)

    def decoupled_by(self) -> str | None:
        """Return what says that weight decay is no penalty of the loss, None if nothing does."""
        flags = [entry for entry in self.entries if _is_flag(entry)]
        chosen = [entry for entry in flags if entry.value]
        if chosen:
            return str(chosen[0])
        flag, deepspeed = False if flags else None, self._is_deepspeed()
        for entry in self.entries:
            named = entry.names and _OPTIMIZER.fullmatch(own_name(entry))
            if named and isinstance(entry.value, str):
                read = deepspeed and entry.names[-2:] == ["optimizer", "type"]
                if decouples(entry.value, flag, deepspeed=read):
                    return str(entry)
        return None

    def _training(self, wanted: Callable[[str], bool]) -> list[Entry]:
        """Return what stands under a name, unless in a part about validation or tests."""
        return [
            entry
            for entry in self.entries
            if entry.value is not None
            and not isinstance(entry.value, bool)
            and any(wanted(name) for name in entry.names)
            and not any(NOT_TRAINING.fullmatch(name) for name in entry.names)
        ]

    def _one_whole(self, what: str, entries: list[Entry]) -> int:
        for entry in entries:
            whole = is_whole(entry.value) or (entry.is_number and entry.value % 1 == 0)
            if not whole or not 1 <= entry.value < 2**63 or not _is_value(entry):
                raise self._error(
                    f"has {entry}, need a whole number, at least 1 and below 2**63; give batch_size"
                )
        if len({entry.value for entry in entries}) > 1:
            raise self._error(f"has several {what}, {listed_entries(entries)}; give batch_size")
        return int(entries[0].value)

    def _devices(self, batch: Entry, size: int) -> int:
        """Return on how many devices the batch is, 1 with a warning where that is not said."""
        known: list[int | None] = [self._lightning(part) for part in ("devices", "numnodes")]
        trained = any("trainer" in entry.names for entry in self.entries)
        of_one = own_name(batch) in _DEVICE_BATCH
        processes = self._told(_PROCESSES)
        for entry in (*processes, *self._told(_OWN_DEVICES)):
            if entry.value > 1 and not of_one:
                raise self._error(
                    f"has {batch} and {entry}: is the batch that of one device or of all? give "
                    "batch_size"
                )
        if of_one:
            for told in (processes, self._told(_OWN_DEVICES)):
                known.append(self._one_whole("numbers of devices", told) if told else 1)
        unsaid = None in known if trained else of_one and not processes
        if unsaid:
            warnings.warn(
                f"config: {self.title} does not say on how many devices it was "
                f"trained; the batch size, {size}, is that of one: give batch_size if there were "
                "more",
                RuntimeWarning,
                stacklevel=4,
            )
        return math.prod(count or 1 for count in known)

    def _told(self, names: tuple[str, ...]) -> list[Entry]:
        """Return numbers of devices that are there under a name, but for the CPU's 0."""
        return [
            entry
            for entry in self._training(lambda name: name in names)
            if _stands_as(entry, names) and is_whole(entry.value) and entry.value > 0
        ]

    def _lightning(self, part: str) -> int | None:
        """Return how many devices or nodes a Lightning trainer's part names, None for "auto"."""
        entries = [entry for entry in self.entries if _of_trainer(entry, part)]
        if len(entries) == 1 and isinstance(entries[0].path[-1], str):
            value = entries[0].value
            if is_whole(value):
                return int(value) if value > 0 else None  # -1: all that are there
            if isinstance(value, str) and value not in ("auto", "-1"):
                raise self._error(f"has {entries[0]}, need a whole number; give batch_size")
            return None
        if not entries and part == "devices":
            return None
        return max(len(entries), 1)  # a list of devices

    def _is_deepspeed(self) -> bool:
        return any(name in _DEEPSPEED for entry in self.entries for name in entry.names)

    def _error(self, message: str) -> ValueError:
        return ValueError(f"config: {self.title} {message}")


def _stands_as(entry: Entry, names: tuple[str, ...]) -> bool:
    """Tell whether an entry is what its name has, not part of what stands under it."""
    return bool(entry.names) and own_name(entry) in names


def _is_flag(entry: Entry) -> bool:
    """Tell whether an entry says whether an optimiser decouples its decay."""
    if not entry.names or entry.value not in (True, False):  # 0 and 1, too
        return False
    short = own_name(entry) in SHORT_FLAGS and any("opt" in name for name in entry.names)
    return short or own_name(entry) in FLAGS


def _of_trainer(entry: Entry, part: str) -> bool:
    """Tell whether an entry is an argument of a Lightning trainer, as its commands write them."""
    names = [name for name in entry.names if name != "initargs"]
    return names[-2:] == ["trainer", part] or names[-3:] == ["trainer", part, "value"]


def _is_value(entry: Entry) -> bool:
    return isinstance(entry.path[-1], str) and not entry.path[-1].isdigit()


def _may_decay(entry: Entry) -> bool:
    return any(_MAY_DECAY.fullmatch(name) for name in entry.names)


def _is_optimizer_decay(entry: Entry) -> bool:
    """Tell whether it is an optimiser's plain "decay": of the weights, or of the learning rate."""
    *sections, name = entry.names or [""]
    return name == "decay" and any("optim" in section for section in sections)


def _is_group_without(entry: Entry, others: list[Entry]) -> bool:
    """Tell whether it is a parameter group without decay (biases, norms) beside one with it."""
    if entry.value != 0:
        return False
    place = _group(entry)
    return place is not None and any(_group(o) == place and o.value != 0 for o in others)


def _group(entry: Entry) -> tuple[str | int, ...] | None:
    for i, part in enumerate(entry.path):
        if isinstance(part, int) and i and re.search("group|param", str(entry.path[i - 1])):
            return entry.path[:i]
    return None


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
