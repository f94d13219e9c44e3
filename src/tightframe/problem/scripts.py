"""What training scripts know: weight decay and batch size of their configurations.

Imports no torch; objects of PyTorch, Lightning and Hugging Face are known by what they have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightframe.checks import choice, positive_float
from tightframe.problem.conventions import Decays, batch_features, batch_of
from tightframe.problem.counts import CountsLike, lasting, num_samples, parse_counts
from tightframe.problem.labels import label_counts
from tightframe.problem.problem import Problem

REDUCTIONS = ("mean", "sum")

#: Files larger than this are refused as configurations.
_MAX_CONFIG_BYTES = 2**20


# -- settings --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingSettings:
    """What a configuration says of the last layer's problem; None where it says nothing.

    Attributes
    ----------
    weight_decay : float or None
    batch_size : int or None
        Samples of one optimiser step, on all devices that the configuration names.
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
        A file, JSON or YAML: a Lightning command's ``config.yaml``, or what Hugging Face's
        ``TrainingArguments.to_json_string()`` returns. Such a mapping, an object with ``to_dict``
        (``TrainingArguments``), or a PyTorch optimiser.

    Raises
    ------
    ValueError
        If the file is no such file, or the settings contradict each other.

    Examples
    --------
    >>> training_settings({"optimizer": {"class_path": "torch.optim.SGD",
    ...     "init_args": {"weight_decay": 5e-4}}, "data": {"batch_size": 128}})
    TrainingSettings(weight_decay=0.0005, batch_size=128, decoupled=False)
    """
    name = type(source).__name__
    if isinstance(source, (str, os.PathLike)):
        config, name = _read_config(Path(source)), os.fspath(source)
    elif isinstance(source, Mapping):
        config = source
    elif hasattr(source, "param_groups"):
        config = {"optimizer": name, "groups": [dict(group) for group in source.param_groups]}
    elif callable(getattr(source, "to_dict", None)):
        config = source.to_dict()
    else:
        raise ValueError(f"config: got {name}, need a file, a mapping or an optimiser")
    found = list(_leaves(config))
    decays = {float(v) for key, v in found if key == "weight_decay" and _is_number(v)}
    # A group without decay (biases, norms) beside one that has it is the usual recipe.
    decays = decays - {0.0} or decays
    if len(decays) > 1:
        listed = ", ".join(f"{decay:g}" for decay in sorted(decays))
        raise ValueError(f"config: {name} has several weight decays, {listed}; give weight_decay")
    optimizers = [str(v).lower() for key, v in found if key in _OPTIMIZER_KEYS]
    return TrainingSettings(
        decays.pop() if decays else None,
        _batch_size(dict(found)),
        any("adamw" in optimizer for optimizer in optimizers),
    )


#: Where configurations name their optimiser.
_OPTIMIZER_KEYS = ("optimizer", "class_path", "optim", "name", "optimizer_name")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _leaves(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    """Give all (key, plain value) of nested mappings and lists."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, str(name))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


def _batch_size(leaves: Mapping[str, Any]) -> int | None:
    for name in ("batch_size", "train_batch_size", "per_device_train_batch_size"):
        size = leaves.get(name)
        if isinstance(size, int) and not isinstance(size, bool) and size > 0:
            steps = leaves.get("gradient_accumulation_steps") or 1
            steps = leaves.get("accumulate_grad_batches") or steps
            return size * (steps if isinstance(steps, int) else 1)
    return None


def _read_config(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"config: {path} is no file")
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise ValueError(f"config: {path} is larger than a configuration, 1 MiB")
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        config = json.loads(text)
    except ValueError:
        try:
            import yaml
        except ImportError:
            raise ValueError(
                f"config: {path} is not JSON, and YAML needs PyYAML (pip install pyyaml)"
            ) from None
        try:
            config = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            line = " ".join(str(error).split())[:200]
            raise ValueError(f"config: {path} is neither JSON nor YAML ({line})") from None
    except RecursionError:
        raise ValueError(f"config: {path} is nested too deeply") from None
    if not isinstance(config, Mapping):
        raise ValueError(f"config: {path} holds {type(config).__name__}, need names and values")
    return config


def training_problem(
    counts: CountsLike,
    *,
    weight_decay: float,
    feature_decay: float | None = None,
    batch_feature_decay: float | None = None,
    batch_size: int | None = None,
    reduction: str = "mean",
    weighted_mean: bool = False,
    **rest: Any,
) -> Problem:
    """Return the problem that a training script's settings amount to.

    Parameters
    ----------
    counts
        As `Problem` takes them.
    weight_decay : float
        Of the optimiser, ``(weight_decay / 2) ||W||^2`` beside the batch's loss.
    feature_decay : float, optional
        As of `Problem`: per sample, beside the mean loss. Or:
    batch_feature_decay : float, optional
        ``(batch_feature_decay / 2) sum_{i in batch} ||h_i||^2`` beside the batch's loss.
    batch_size : int, optional
        Needed with ``batch_feature_decay`` and with ``reduction="sum"``.
    reduction : {"mean", "sum"}
        Of the loss in a batch.
    weighted_mean : bool
        Whether ``class_weights`` divide the loss, as PyTorch's mean does.
    **rest
        Other arguments of `Problem`.

    Raises
    ------
    ValueError
        If an argument is missing or out of range.
    """
    choice("reduction", reduction, REDUCTIONS)
    if (feature_decay is None) == (batch_feature_decay is None):
        what = "got neither" if feature_decay is None else "got both"
        raise ValueError(
            f"feature_decay, batch_feature_decay: {what}, need one; where features decay only "
            "through the network's weights, fit it to a trained network with calibrate (--from-run)"
        )
    counts = lasting(counts)
    total = num_samples(parse_counts(counts))
    if batch_size is not None:
        batch_size = batch_of(batch_size, total)
    elif reduction == "sum" or batch_feature_decay is not None:
        raise ValueError("batch_size: missing; a summed loss or batch_feature_decay needs it")
    share = 1.0
    if batch_feature_decay is not None:
        share = positive_float("batch_feature_decay", batch_feature_decay)
    size = batch_size or 1
    decays = batch_features(
        Decays.given(weight_decay, share, rest.pop("bias_decay", None)),
        total,
        size,
        loss_scale=size if reduction == "sum" else 1,
    )
    if feature_decay is not None:  # of a sample, beside the mean loss: in our units
        decays = decays._replace(feature_decay=feature_decay)
    make = Problem.from_weighted_mean if weighted_mean else Problem
    return make(counts, **decays._asdict(), **rest)


def described_problem(
    counts: str | None = None,
    *,
    labels: Any = None,
    config: Any = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
    **rest: Any,
) -> Problem:
    """Return the problem of a training that is described in parts: by numbers, files or objects.

    Parameters
    ----------
    counts : str, optional
        Or ``labels``, see `label_counts`.
    config : optional
        See `training_settings`: gives weight decay and batch size where those are left out.
    weight_decay, batch_size, **rest
        As for `training_problem`.

    Raises
    ------
    ValueError
        If something is missing, given twice or out of range.
    """
    if (counts is None) == (labels is None):
        what = "got neither" if counts is None else "got both"
        raise ValueError(f"counts, labels: {what}, need one of them")
    if config is not None:
        found = training_settings(config)
        if weight_decay is None and found.decoupled:
            raise ValueError(
                "config: AdamW's weight decay is no penalty of the loss, so that it is not the "
                "theory's; fit the decays to a trained network (--from-run), or give weight_decay"
            )
        weight_decay = found.weight_decay if weight_decay is None else weight_decay
        batch_size = found.batch_size if batch_size is None else batch_size
    if weight_decay is None:
        where = "" if config is None else ", which the configuration does not name"
        raise ValueError(f"weight_decay: missing{where}")
    return training_problem(
        label_counts(labels) if counts is None else counts,
        weight_decay=weight_decay,
        batch_size=batch_size,
        **rest,
    )
