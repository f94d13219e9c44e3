"""The command measure: saved features against every known geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tightframe.cli.console import print_measurement
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    Bias,
    BiasDecay,
    FeatureDecay,
    Features,
    Json,
    Loss,
    WeightDecay,
)
from tightframe.files import format_json, read_arrays


def measure(
    file: Annotated[
        Path,
        typer.Argument(
            help=".npz or .safetensors with features (N, D), labels (N,), weight (K, D), bias (K,)."
        ),
    ],
    weight_decay: WeightDecay = None,
    feature_decay: FeatureDecay = None,
    loss: Loss = "cross_entropy",
    bias: Bias = "none",
    bias_decay: BiasDecay = None,
    features: Features = "real",
    json: Json = False,
) -> None:
    """Measure saved features against every known geometry, with the gap of their class means.

    Give the decays to have the geometry predicted; without them the frames are compared only.
    """
    from tightframe.runs.measure import measure as measure_arrays

    if (weight_decay is None) != (feature_decay is None):
        missing = "weight_decay" if weight_decay is None else "feature_decay"
        raise ValueError(f"{missing}: missing; give both decays or neither")
    decays: dict[str, Any] = {}
    if weight_decay is not None:
        decays = {
            "weight_decay": weight_decay,
            "feature_decay": feature_decay,
            "loss": loss,
            "bias": bias,
            "bias_decay": bias_decay,
            "features": features,
        }
    result = measure_arrays(read_arrays(file), **decays)
    if json:
        print(format_json(result.to_dict()))
    else:
        print_measurement(result)
    if result.solution is not None and result.solution.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)
