"""Fit effective decays to what is on disk: a run's folder, or saved features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from tightframe.advice.calibrate import Calibration, calibrate
from tightframe.files import read_arrays
from tightframe.problem.labels import label_counts
from tightframe.problem.problem import Problem
from tightframe.runs.folder import using_record
from tightframe.runs.store import load_run


def calibrate_saved(
    source: str | os.PathLike[str], setting: str | None = None, **options: Any
) -> Calibration:
    """Fit effective decays to a trained network.

    Parameters
    ----------
    source : path-like
        A folder that ``tightframe run`` wrote, or an ``.npz`` or ``.safetensors`` file with
        features (N, D), labels (N,), weight (K, D) and, where there is one, bias (K,).
    setting : str, optional
        Which of a run's settings; needed if it has several.
    **options
        Of a file: other arguments of `Problem` than counts and decays.

    Raises
    ------
    ValueError
        If the source lacks something, options are given for a run, or nothing can be fitted.
    """
    if Path(source).is_dir():
        return _of_run(Path(source), setting, options)
    if setting is not None:
        raise ValueError(f"setting: got {setting!r}, but {os.fspath(source)} is no run's folder")
    arrays = read_arrays(source)
    for name in ("features", "labels", "weight"):
        if name not in arrays:
            raise ValueError(
                f"{os.fspath(source)}: has no {name}; there are {', '.join(arrays) or 'none'}"
            )
    counts = label_counts(arrays["labels"])
    problem = Problem(counts, weight_decay=1.0, feature_decay=1.0, **options)
    bias = arrays.get("bias")
    if problem.bias == "none" and bias is not None and not np.any(bias):
        bias = None
    return calibrate(problem, arrays["weight"], arrays["features"], arrays["labels"], bias)


def _of_run(folder: Path, setting: str | None, options: dict[str, Any]) -> Calibration:
    if options:
        raise ValueError(f"{min(options)}: given for a run's folder, whose record has it")
    settings = {record.name: record for record in load_run(folder).settings}
    names = ", ".join(settings)
    if setting is None and len(settings) > 1:
        raise ValueError(f"setting: {folder} has several, name one: {names}")
    record = settings.get(setting or next(iter(settings), ""))
    if record is None:
        raise ValueError(f"setting: got {setting!r}, {folder} has {names or 'none'}")
    with using_record(folder, "run"):
        if record.problem is None or record.final is None:
            raise ValueError(f"setting: {record.name} of {folder} has not been trained to the end")
        final = record.final
        bias = None if record.problem.bias == "none" else final["bias"]
        return calibrate(record.problem, final["weight"], final["features"], final["labels"], bias)
