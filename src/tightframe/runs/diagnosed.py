"""Diagnose what is on disk: a run's folder, or a file of a trained network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tightframe.diagnosis.diagnose import Diagnosis, diagnose
from tightframe.problem.class_names import NamesLike
from tightframe.problem.labels import IGNORED
from tightframe.runs.folder import using_record
from tightframe.runs.network_files import KeysLike, read_last_layer
from tightframe.runs.store import trained_setting
from tightframe.runs.tables import class_history

#: What the record of a run has.
_OF_A_RECORD = (
    "weight_decay",
    "config",
    "class_weights",
    "logit_adjustment",
    "label_smoothing",
    "smoothing_weights",
    "class_margins",
    "logit_scale",
    "feature_weights",
    "sampler",
    "loss",
    "bias",
    "bias_decay",
    "features",
)


def diagnose_saved(
    source: str | os.PathLike[str],
    setting: str | None = None,
    *,
    keys: KeysLike = None,
    ignore_index: int | None = IGNORED,
    class_names: NamesLike | None = None,
    held_out: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Diagnosis:
    """Tell what a trained network does with its classes, since when, and what helps.

    Since when is known of a run, whose history has it.

    Parameters
    ----------
    source : path-like
        A folder that ``tightframe run`` wrote, or a file of a network.
    setting : str, optional
        Which of a run's settings; needed if it has several.
    keys, ignore_index, class_names, held_out
        Of a file: see `tightframe.runs.network_files.read_network`.
    **options
        Of `tightframe.diagnosis.diagnose.diagnose`; of a run, not what its record has.

    Raises
    ------
    ValueError
        If the source lacks something, or options are given for a run that its record has.
    """
    where = (source, keys, ignore_index, class_names, held_out, setting)
    if not Path(source).is_dir():
        return diagnose(read_last_layer(*where), **options)
    known = [name for name in _OF_A_RECORD if options.get(name) is not None]
    if known:
        raise ValueError(f"{min(known)}: given for a run's folder, whose record has it")
    with using_record(source, "run"):
        record = trained_setting(source, setting)
        history = class_history(record)
        layer = read_last_layer(*where)
    return diagnose(layer, problem=record.problem, recorded=True, history=history, **options)
