"""The record of a run on disk: one folder, plain files, each written atomically.

Layout of a run folder::

    run.json                           configuration, its hash, package versions, seed, device
    settings/<name>/prediction.json    problem, certified objective, lower bound, groups
    settings/<name>/prediction.npz     logits, bias, classifier (Gram), means (Gram)
    settings/<name>/history.parquet    one row a measurement (`tightframe.training.callbacks`)
    settings/<name>/classes.npz        every class at every measurement, see `CLASS_ARRAYS`
    settings/<name>/final.npz          features, labels, weight, bias, ..., see `FINAL_ARRAYS`
    settings/<name>/result.json        summary and verdicts; written last
    settings/<name>/checkpoints/last.ckpt
    settings/<name>/logs/              Lightning's CSV and TensorBoard logs

A setting is finished exactly if its ``result.json`` says so, because that file is written last.
Every file is written by `tightframe.files.replacing`, so that a reader (or a run killed at any
moment) sees the old file or the new one, never half of one. JSON holds no NaN or infinity: they
become ``null``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from tightframe.data.text import is_text
from tightframe.files import (
    read_json,
    read_npz,
    read_table,
    replacing,
    to_plain,
    write_json,
    write_npz,
)
from tightframe.geometry.dense import Geometry
from tightframe.heads.last_layer import LastLayer
from tightframe.problem.problem import Problem
from tightframe.runs.folder import config_hash, read_record, using_record
from tightframe.shown import record

__all__ = [
    "CLASS_ARRAYS",
    "FINAL_ARRAYS",
    "FORMAT",
    "PREDICTION_ARRAYS",
    "RunRecord",
    "SettingPaths",
    "SettingRecord",
    "config_hash",
    "load_run",
    "read_json",
    "read_npz",
    "read_run_file",
    "replacing",
    "run_file",
    "setting_paths",
    "to_plain",
    "trained_setting",
    "write_json",
    "write_npz",
    "write_parquet",
]

#: Version of the layout above, stored in ``run.json``; a reader refuses a newer one.
FORMAT = 1

#: Arrays of ``final.npz`` and what they are; `tightframe measure` reads the first four.
FINAL_ARRAYS = {
    "features": "(N, d) float32, the training set's features, one row a sample",
    "labels": "(N,) int64",
    "weight": "(K, d) float32, the classifier (the product of the head's layers)",
    "bias": "(K,) float32, zero without a bias",
    "class_means": "(d, K) float64, class means as columns",
    "logits": "(K, K) float64, mean logits without bias, column k for the samples of class k",
    "partial_classifiers": "(M, K, K) float64, of a head of several layers: Gram matrices of "
    "W_M ... W_j, j from 1; missing in older records",
    "partial_means": "(M, K, K) float64, Gram matrices of W_{j-1} ... W_1 times the class means",
    "held_out_features": "(N_test, d) float32, of the test samples; missing in older records",
    "held_out_labels": "(N_test,) int64",
}

#: Arrays of ``classes.npz`` and what they are. Up to 128 classes have logits and a confusion, of
#: more there is what a wheel shows; missing in older records.
CLASS_ARRAYS = {
    "epochs": "(E,) int64, after which was measured",
    "train_accuracy": "(E, K) float16, share of every class's samples that are answered right",
    "test_accuracy": "(E, K) float16, the same of test samples; NaN without any",
    "logits": "(E, K, K) float16, mean logits without bias, column k for the samples of class k",
    "bias": "(E, K) float32, zero without a bias",
    "test_confusion": "(K, K) int32 at the last epoch, test samples of class k in column k, a row "
    "for every answer",
    "places": "(E, K, 2) float16, where the wheel has each class, in radii of its rim",
    "cross": "(E, 2) float16, where it has no decision",
    "margin": "(E, K) float16, own minus largest other logit at the class mean",
    "own": "(E, K) float16, share of the own class in the prediction there",
    "taker": "(E, K) int32, the other class with the largest share",
    "taken": "(E, K) float16, that share",
    "state": "(E, K) int8, 0 vanished, 1 lost, 2 merged, 3 distinct",
    "prediction": "(E, K) int32, classes with one number share one prediction",
    "taken_for": "(K,) int32 at the last epoch, most frequent wrong answer on test samples, -1: "
    "none is wrong",
    "taken_for_share": "(K,) float16, how many of its test samples get it",
}

#: Arrays of ``prediction.npz`` and what they are.
PREDICTION_ARRAYS = {
    "logits": "(K, K) float64, mean logits without bias",
    "bias": "(K,) float64",
    "classifier": "(K, K) float64, Gram matrix of the classifier",
    "means": "(K, K) float64, Gram matrix of the class means",
}


#: The same of a run on text, with V next tokens after m contexts.
TEXT_FINAL_ARRAYS = {
    "features": "(m, d) float32, the features of the contexts, one row a context",
    "weight": "(V, d) float32, the classifier",
    "bias": "(V,) float32, zero without a bias",
}
TEXT_PREDICTION_ARRAYS = {
    "weight": "(V, r) float64, the classifier",
    "features": "(r, m) float64, the contexts' features as columns",
    "bias": "(V,) float64",
    "label_of": "(V,) int, which tokens have equal logits",
    "context_of": "(m,) int, which contexts have equal logits",
    "target_starts": "(m + 1,) int64, where every context's next tokens begin in the other two",
    "target_labels": "(E,) int32, next tokens of the contexts, one context after the other",
    "target_shares": "(E,) float64, how often each follows",
}


def split_targets(problem: Problem) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return a problem with targets as what JSON holds of it, and arrays."""
    targets = problem.targets
    assert targets is not None
    plain = problem.to_dict() | {"targets": {"num_labels": targets.num_labels}}
    arrays = {f"target_{name}": getattr(targets, name) for name in _TARGETS}
    return plain, arrays


_TARGETS = ("starts", "labels", "shares")


def write_parquet(path: str | os.PathLike[str], table: pd.DataFrame) -> None:
    """Write a table as Parquet, atomically."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


# -- paths -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SettingPaths:
    """Where the files of one setting are.

    Attributes
    ----------
    folder : Path
        ``<run>/settings/<name>``.
    """

    folder: Path

    @property
    def prediction(self) -> Path:
        """The prediction's numbers, JSON."""
        return self.folder / "prediction.json"

    @property
    def prediction_arrays(self) -> Path:
        """The prediction's matrices, npz."""
        return self.folder / "prediction.npz"

    @property
    def history(self) -> Path:
        """The measurements, Parquet."""
        return self.folder / "history.parquet"

    @property
    def classes(self) -> Path:
        """What every class did at every measurement, npz."""
        return self.folder / "classes.npz"

    @property
    def final(self) -> Path:
        """The final state's arrays, npz."""
        return self.folder / "final.npz"

    @property
    def result(self) -> Path:
        """The summary, JSON; written last."""
        return self.folder / "result.json"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def logs(self) -> Path:
        """Folder of Lightning's logs."""
        return self.folder / "logs"


def run_file(folder: str | os.PathLike[str]) -> Path:
    """Return the path of a run folder's ``run.json``."""
    return Path(folder) / "run.json"


def setting_paths(folder: str | os.PathLike[str], name: str) -> SettingPaths:
    """Return the paths of one setting of a run folder.

    Raises
    ------
    ValueError
        If ``name`` is not a plain file name.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) is None:
        raise ValueError(f"name: got {name!r}, need letters, digits and . _ + - only")
    return SettingPaths(Path(folder) / "settings" / name)


# -- reading ---------------------------------------------------------------------------------------


@record
@dataclass(frozen=True, eq=False)
class SettingRecord:
    """What a run folder holds about one setting; absent files are None.

    Attributes
    ----------
    name : str
        Name of the setting, also of its folder.
    paths : SettingPaths
        Its files.
    prediction : dict or None
        ``prediction.json``: problem, objective, gap, lower_bound, status, method, note, rank,
        groups (a list of {count, classes, members, margin, collapsed}), seconds.
    prediction_arrays : dict of ndarray or None
        ``prediction.npz``, see `PREDICTION_ARRAYS`.
    history : DataFrame or None
        One row a measurement, in time order; complete for a finished setting, and up to the last
        measurement for an interrupted one.
    final : dict of ndarray or None
        ``final.npz``, see `FINAL_ARRAYS`.
    result : dict or None
        ``result.json``: name, problem, predicted, first, last, verdicts, seconds, finished.
    classes : dict of ndarray or None
        ``classes.npz``, see `CLASS_ARRAYS`; as complete as the history.
    """

    name: str
    paths: SettingPaths
    prediction: dict[str, Any] | None
    prediction_arrays: dict[str, NDArray[Any]] | None
    history: pd.DataFrame | None
    final: dict[str, NDArray[Any]] | None
    result: dict[str, Any] | None
    classes: dict[str, NDArray[Any]] | None = None

    @property
    def finished(self) -> bool:
        """Whether this setting was trained and measured to the end."""
        return self.result is not None and bool(self.result.get("finished"))

    @property
    def on_text(self) -> bool:
        """Whether the problem is one of contexts and next tokens, see `TEXT_FINAL_ARRAYS`."""
        return self.prediction is not None and "targets" in self.prediction["problem"]

    @cached_property
    def problem(self) -> Problem | None:
        """The problem that was solved; None before its prediction is there."""
        if self.prediction is None:
            return None
        values = dict(self.prediction["problem"])
        if "targets" in values:
            if self.prediction_arrays is None:
                return None
            parts = {name: self.prediction_arrays[f"target_{name}"] for name in _TARGETS}
            values["targets"] = values["targets"] | parts
        return Problem(**values)

    @cached_property
    def predicted(self) -> Geometry | None:
        """The predicted geometry; None before it is there, and on text, which has no classes."""
        arrays = self.prediction_arrays
        if arrays is None or self.on_text:
            return None
        return Geometry("predicted", arrays["classifier"], arrays["means"], arrays["logits"])

    @cached_property
    def measured(self) -> Geometry | None:
        """The trained network's geometry; None before it is there, and on text."""
        if self.final is None or self.on_text:
            return None
        return Geometry.from_vectors(self.final["weight"], self.final["class_means"])

    def last_layer(self) -> LastLayer | None:
        """Return the trained network's last layer, test samples held out; None before it is there.

        Records of version 0.1 have no held-out samples. None on text, whose contexts have no class.
        """
        final, problem = self.final, self.problem
        if final is None or problem is None or self.on_text:
            return None
        held_out = final.get("held_out_features"), final.get("held_out_labels")
        return LastLayer.of(
            final["features"],
            final["labels"],
            final["weight"],
            None if problem.bias == "none" else final["bias"],
            held_out=None if held_out[0] is None else held_out,
            class_names=problem.class_names,
        )


@record
@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run folder read into memory.

    Attributes
    ----------
    folder : Path
        Where it is.
    config : dict
        The configuration, as `tightframe.runs.train.RunConfig.to_dict` wrote it.
    config_hash : str
        Its `config_hash`.
    environment : dict
        versions (dict of package to version), device, threads, platform.
    settings : tuple of SettingRecord
        All settings of the configuration in its order, started or not.
    """

    folder: Path
    config: dict[str, Any]
    config_hash: str
    environment: dict[str, Any]
    settings: tuple[SettingRecord, ...]

    @property
    def on_text(self) -> bool:
        """Whether it is a run on text."""
        return is_text(self.config.get("data"))

    @property
    def finished(self) -> bool:
        """Whether every setting is finished."""
        return all(setting.finished for setting in self.settings)


def read_run_file(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a run folder's ``run.json`` alone: format, config, config_hash, settings, environment.

    Raises
    ------
    ValueError
        If the folder holds no run, or one of a layout that this version does not know.
    """
    path = run_file(folder)
    keys = {"format", "config", "config_hash", "settings", "environment"}
    run = read_record(path, "run", FORMAT, keys)
    settings = run["settings"]
    if not (isinstance(settings, list) and all(isinstance(name, str) for name in settings)):
        raise ValueError(f"{path}: not the record of a run")
    return run


def load_run(folder: str | os.PathLike[str]) -> RunRecord:
    """Read a run folder.

    Parameters
    ----------
    folder : path-like
        As written by `tightframe.runs.train.run`; the run may be unfinished.

    Returns
    -------
    RunRecord

    Raises
    ------
    ValueError
        If the folder holds no run, a file in it cannot be read, or the layout is newer than this
        version knows.
    """
    run = read_run_file(folder)
    return RunRecord(
        folder=Path(folder),
        config=run["config"],
        config_hash=run["config_hash"],
        environment=run["environment"],
        settings=tuple(_load_setting(folder, name) for name in run["settings"]),
    )


def _load_setting(folder: str | os.PathLike[str], name: str) -> SettingRecord:
    paths = setting_paths(folder, name)
    return SettingRecord(
        name=name,
        paths=paths,
        prediction=read_json(paths.prediction) if paths.prediction.exists() else None,
        prediction_arrays=(
            read_npz(paths.prediction_arrays) if paths.prediction_arrays.exists() else None
        ),
        history=read_table(paths.history) if paths.history.exists() else None,
        final=read_npz(paths.final) if paths.final.exists() else None,
        result=read_result(paths),
        classes=read_npz(paths.classes) if paths.classes.exists() else None,
    )


def read_result(paths: SettingPaths) -> dict[str, Any] | None:
    """Return the content of a finished setting's ``result.json``; None if it is not finished.

    Raises
    ------
    ValueError
        If the file is there but is not JSON.
    """
    result = read_json(paths.result) if paths.result.exists() else None
    finished = isinstance(result, dict) and result.get("finished") is True
    return result if finished else None


def trained_setting(folder: str | os.PathLike[str], name: str | None = None) -> SettingRecord:
    """Return a setting of a run that has been trained to the end.

    Parameters
    ----------
    folder : path-like
    name : str, optional
        Needed if the run has several settings.

    Raises
    ------
    ValueError
        If there is no such setting, or it has not been trained to the end.
    """
    settings = {record.name: record for record in load_run(folder).settings}
    names = ", ".join(settings)
    if name is None and len(settings) > 1:
        raise ValueError(f"setting: {folder} has several, name one: {names}")
    record = settings.get(name or next(iter(settings), ""))
    if record is None:
        raise ValueError(f"setting: got {name!r}, {folder} has {names or 'none'}")
    with using_record(folder, "run"):
        if record.problem is None or record.final is None:
            raise ValueError(f"setting: {record.name} of {folder} has not been trained to the end")
        if record.on_text:
            raise ValueError(
                f"setting: {record.name} of {folder} is of a run on text, whose contexts have laws "
                "of next tokens and no class; need a run on samples with classes"
            )
    return record
