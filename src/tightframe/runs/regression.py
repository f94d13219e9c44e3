"""Measure a regression network from saved arrays: NRC1 to NRC3 and the predicted geometry."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.table import Column, Table
from tightframe.metrics.regression import NRC3Details, nrc1, nrc2, nrc3_details
from tightframe.relatives.regression import (
    RegressionCollapse,
    matrix_of,
    regression_collapse,
    targets_of,
)
from tightframe.runs.network_files import KeysLike, classifier_of, found_arrays, parse_keys
from tightframe.theory.certificate import Certificate

#: Keys of the numbers, and what they are called.
_NAMES = {
    "nrc1": "NRC1, features off their principal components",
    "nrc2": "NRC2, features off the rows of the layer",
    "nrc3": "NRC3, Gram matrix of the layer to that of the targets",
    "gamma": "constant of NRC3 that was fitted",
    "nrc1_centered": "NRC1 of centred features",
    "nrc2_centered": "NRC2 of centred features",
    "mean_squared_error": "squared error, summed over targets, mean over samples",
    "r_squared": "share of the targets' variance that is fitted",
}

#: The same of the prediction.
_PREDICTED = {
    "rank": "target directions that the features keep",
    "gamma_predicted": "constant of NRC3 at these decays",
    "gram_distance": "Gram matrix of the layer to the predicted one",
    "objective": "the network's objective at these decays",
    "lower_bound": "certified least objective",
    "gap": "the network's distance from it",
}


@dataclass(frozen=True, eq=False)
class RegressionMeasurement:
    """What saved features, targets and a linear layer say of a regression.

    Attributes
    ----------
    num_samples, num_targets, width : int
    numbers : dict of str to float
        NRC1 to NRC3, the constant of NRC3, and how well the targets are fitted.
    prediction : RegressionCollapse or None
        If decays were given.
    gram_distance : float or None
        Of the layer's Gram matrix from the predicted one, from 0 to 2.
    certificate : Certificate or None
        Of the network's own factors.
    notes : tuple of str
        What was decided in reading that the files do not say.
    """

    num_samples: int
    num_targets: int
    width: int
    numbers: dict[str, float]
    prediction: RegressionCollapse | None
    gram_distance: float | None
    certificate: Certificate | None
    notes: tuple[str, ...] = ()

    @property
    def compared(self) -> dict[str, float | int | None]:
        """The numbers of the comparison with the prediction; empty without decays."""
        if self.prediction is None or self.certificate is None:
            return {}
        return {
            "rank": self.prediction.rank,
            "gamma_predicted": self.prediction.gamma,
            "gram_distance": self.gram_distance,
            "objective": self.certificate.primal,
            "lower_bound": self.certificate.dual,
            "gap": self.certificate.gap,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready (numbers that are not finite are left to the writer)."""
        found: dict[str, Any] = {
            "num_samples": self.num_samples,
            "num_targets": self.num_targets,
            **self.numbers,
            **self.compared,
        }
        if self.prediction is not None:
            found["prediction"] = self.prediction.to_dict()
        return found

    def to_table(self) -> Table:
        """Return the numbers as a table."""
        names = _NAMES | _PREDICTED
        rows = [[key, value, names[key]] for key, value in (self.numbers | self.compared).items()]
        columns: list[str | Column] = [
            "metric",
            Column("value", align="right", format=".6g"),
            "what it is",
        ]
        title = (
            f"{self.num_samples} samples, {self.num_targets} real targets, {self.width} features"
        )
        note = "" if self.prediction else "Give both decays to have the geometry predicted."
        return Table(title, columns, rows, missing="-", note=note)


def measure_regression(
    path: str | os.PathLike[str],
    keys: KeysLike = None,
    *,
    weight_decay: float | None = None,
    feature_decay: float | None = None,
    bias: str | None = None,
) -> RegressionMeasurement:
    """Measure a saved regression network, and compare it with the prediction if decays are given.

    Parameters
    ----------
    path : path-like
        A file with ``features`` (N, D), ``targets`` (N, q) of real numbers, ``weight`` (q, D) and,
        if there is one, ``bias`` (q,), as `tightframe.runs.network_files.read_network` reads them;
        the targets go by any name that labels go by.
    keys : mapping or str, optional
        Which other names they go by; ``targets`` says where the targets are.
    weight_decay, feature_decay : float, optional
        Both or neither; see `tightframe.regression_collapse` for their convention.
    bias : {"free", "none"}, optional
        By default free if the file has a bias.

    Raises
    ------
    ValueError
        If an array is missing or not what it should be, or only one decay is given.
    """
    if (weight_decay is None) != (feature_decay is None):
        missing = "weight_decay" if weight_decay is None else "feature_decay"
        raise ValueError(f"{missing}: missing; give both decays or neither")
    if Path(path).is_dir():
        raise ValueError(f"{os.fspath(path)}: is a folder; targets are read from a file of arrays")
    notes: list[str] = []
    arrays = found_arrays(path, parse_keys(_with_labels(keys)), notes)
    if "weight" not in arrays:
        raise ValueError(
            "weight: missing; say where the last layer is by keys (--keys weight=NAME)"
        )
    features, targets = matrix_of("features", arrays["features"]), targets_of(arrays["labels"])
    layer = arrays["weight"]
    if layer.ndim == 1 and layer.shape[0] == features.shape[1]:
        layer = layer[None, :]  # of a single target
    weight = matrix_of("weight", classifier_of(layer, features, notes))
    offset = None if "bias" not in arrays else matrix_of("bias", arrays["bias"].reshape(-1))[:, 0]
    samples, count = targets.shape
    _require_fitting(features, targets, weight, offset)
    fitted = nrc3_details(weight, targets)
    missed = features @ weight.T + (0.0 if offset is None else offset) - targets
    variance = float(np.square(targets - targets.mean(axis=0)).sum())
    error = float(np.vdot(missed, missed))
    numbers = {
        "nrc1": nrc1(features, count),
        "nrc2": nrc2(features, weight),
        **_of_nrc3(fitted),
        "nrc1_centered": nrc1(features, count, center=True),
        "nrc2_centered": nrc2(features, weight, center=True),
        "mean_squared_error": error / samples,
        "r_squared": 1 - error / variance if variance > 0 else float("nan"),
    }
    if weight_decay is None or feature_decay is None:
        return RegressionMeasurement(
            samples, count, features.shape[1], numbers, None, None, None, tuple(notes)
        )
    kind = bias or ("none" if offset is None else "free")
    prediction = regression_collapse(
        targets,
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        bias=kind,
        dim=features.shape[1],
    )
    certificate = prediction.certify(targets, features, weight, offset)
    distance = prediction.distance(weight) if prediction.rank else float("nan")
    return RegressionMeasurement(
        samples,
        count,
        features.shape[1],
        numbers,
        prediction,
        distance,
        certificate,
        tuple(notes),
    )


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


def _of_nrc3(fitted: NRC3Details) -> dict[str, float]:
    return {"nrc3": fitted.distance, "gamma": fitted.gamma}


def _require_fitting(
    features: NDArray[Any],
    targets: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
) -> None:
    count = targets.shape[1]
    if len(targets) != len(features):
        raise ValueError(f"targets: got {len(targets)} rows, features has {len(features)}")
    if weight.shape != (count, features.shape[1]):
        raise ValueError(
            f"weight: got shape {weight.shape}, need {(count, features.shape[1])}, one row a target"
        )
    if bias is not None and len(bias) != count:
        raise ValueError(f"bias: got {len(bias)} entries, need {count}, one a target")
