"""Measure a regression network from saved arrays: one report a layer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tightframe.array_files import read_named
from tightframe.metrics.regression_layer import RegressionReport
from tightframe.relatives.regression import matrix_of
from tightframe.runs.network_files import (
    Arrays,
    KeysLike,
    classifier_of,
    found_arrays,
    further_features,
    parse_keys,
)

#: What the report of the features that the linear layer takes in is called.
LAST = "last layer"


def measure_regression(
    path: str | os.PathLike[str],
    keys: KeysLike = None,
    *,
    layers: Sequence[str] = (),
    weight_decay: float | Iterable[float] | None = None,
    feature_decay: float | None = None,
    bias: str | None = None,
) -> dict[str, RegressionReport]:
    """Measure a saved regression network, and compare it with the prediction if decays are given.

    Parameters
    ----------
    path : path-like
        A file with ``features`` (N, D), ``targets`` (N, q) of real numbers, ``weight`` (q, D) and,
        if there is one, ``bias`` (q,), as `tightframe.runs.network_files.read_network` reads them;
        the targets go by any name that labels go by. Of a deep linear head ``weight_1`` (next to
        the features) to ``weight_M`` instead of the weight.
    keys : mapping or str, optional
        Which other names they go by; ``targets`` says where the targets are.
    layers : sequence of str
        Features of hidden layers, (N, D) each: names in the file, other files, or names in other
        files (``FILE:NAME``).
    weight_decay, feature_decay : float, optional
        Both or neither; see `tightframe.regression_collapse` for their convention.
    bias : {"free", "none"}, optional
        By default free if the file has a bias.

    Returns
    -------
    dict of str to RegressionReport
        By layer, in the order of ``layers``; `LAST` at the end, with notes of what was decided.

    Raises
    ------
    ValueError
        If an array is missing or not what it should be, or only one decay is given.
    """
    if Path(path).is_dir():
        raise ValueError(f"{os.fspath(path)}: is a folder; targets are read from a file of arrays")
    notes: list[str] = []
    arrays = found_arrays(path, parse_keys(_with_labels(keys)), notes)
    targets = arrays["labels"]
    hidden = {}
    for name, features in further_features(path, layers, "layers").items():
        try:
            hidden[name] = RegressionReport.measure(features, targets)
        except ValueError as error:
            raise ValueError(f"layers: {name!r}: {error}") from None
    last = RegressionReport.measure(
        arrays["features"],
        targets,
        _weight_of(path, arrays, notes),
        arrays.get("bias"),
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        bias_kind=bias,
        notes=notes,
    )
    return hidden | {LAST: last}


def _weight_of(path: str | os.PathLike[str], arrays: Arrays, notes: list[str]) -> Any:
    """Return the layer of a file, or the layers."""
    features = matrix_of("features", arrays["features"])
    if "weight" in arrays:
        layer = arrays["weight"]
        if layer.ndim == 1 and layer.shape[0] == features.shape[1]:
            return layer[None, :]  # of a single target
        return classifier_of(layer, features, notes)
    own = {name: array for name, array in read_named(path).items() if _number(name)}
    if not own:
        raise ValueError(
            "weight: missing; say where the last layer is by keys (--keys weight=NAME)"
        )
    numbers = sorted(map(_number, own))
    if numbers != list(range(1, len(own) + 1)):
        raise ValueError(f"weight: got weight_{numbers[-1]}, but not all of weight_1 to it")
    return [own[f"weight_{m}"] for m in numbers]


def _number(name: str) -> int:
    """Return m of ``weight_m``, 0 of other names."""
    found = re.fullmatch(r"weight_([1-9]\d{0,3})", name)
    return int(found[1]) if found else 0


def _with_labels(keys: KeysLike) -> KeysLike:
    """Return keys in which the targets are called labels, as everywhere else in a file."""
    if isinstance(keys, str):
        parts = [part.strip() for part in keys.split(",")]
        return ",".join(
            "labels" + part.removeprefix("targets") if part.startswith("targets=") else part
            for part in parts
        )
    if isinstance(keys, Mapping):
        return {"labels" if array == "targets" else array: name for array, name in keys.items()}
    return keys
