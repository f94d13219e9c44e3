"""Fit effective decays to what is on disk: a run's folder, or saved features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tightframe.advice.calibrate import Calibration, fitted
from tightframe.diagnosis.calibrated import calibrate_layer
from tightframe.problem.class_names import NamesLike
from tightframe.problem.labels import IGNORED
from tightframe.runs.folder import using_record
from tightframe.runs.network_files import KeysLike, read_last_layer
from tightframe.runs.store import trained_setting


def calibrate_saved(
    source: str | os.PathLike[str],
    setting: str | None = None,
    *,
    keys: KeysLike = None,
    ignore_index: int | None = IGNORED,
    class_names: NamesLike | None = None,
    **options: Any,
) -> Calibration:
    """Fit effective decays to a trained network.

    Parameters
    ----------
    source : path-like
        A folder that ``tightframe run`` wrote, or a file of a network.
    setting : str, optional
        Which of a run's settings; needed if it has several.
    keys, ignore_index, class_names
        Of a file: see `tightframe.runs.network_files.read_network`.
    **options
        Of a file: other arguments of `Problem` than counts and decays.

    Raises
    ------
    ValueError
        If the source lacks something, options are given for a run, or nothing can be fitted.
    """
    if Path(source).is_dir():
        return _of_run(Path(source), setting, options)
    layer = read_last_layer(source, keys, ignore_index, class_names, setting=setting)
    return calibrate_layer(layer, **options)


def _of_run(folder: Path, setting: str | None, options: dict[str, Any]) -> Calibration:
    if options:
        raise ValueError(f"{min(options)}: given for a run's folder, whose record has it")
    record = trained_setting(folder, setting)
    assert record.problem is not None
    with using_record(folder, "run"):
        layer = record.last_layer()
        assert layer is not None
        arrays = layer.weight, layer.features, layer.labels, layer.bias
        return fitted(record.problem, *arrays, known=True)
