"""The command measure: saved features against every known geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tightframe.cli.console import print_measurement
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import ARRAYS, JSON, PROBLEM, about, changed, with_options
from tightframe.files import format_json, read_arrays


@with_options(
    *changed(
        PROBLEM,
        counts=None,
        weight_decay={"default": None},
        feature_decay={"default": None},
        depth=None,
        dim=None,
    ),
    JSON,
)
def measure(
    file: Annotated[
        Path,
        typer.Argument(
            help=".npz or .safetensors with features (N, D), labels (N,), weight (K, D), bias (K,)."
        ),
    ],
    *,
    json: bool,
    **options: Any,
) -> None:
    """Measure saved features against every known geometry, with the gap of their class means.

    Give the decays to have the geometry predicted; without them the frames are compared only.
    """
    from tightframe.runs.measure import measure as measure_arrays

    weight_decay = options["weight_decay"]
    if (weight_decay is None) != (options["feature_decay"] is None):
        missing = "weight_decay" if weight_decay is None else "feature_decay"
        raise ValueError(f"{missing}: missing; give both decays or neither")
    arrays = read_arrays(file)
    with about(file, ARRAYS, **options):
        result = measure_arrays(arrays, **({} if weight_decay is None else options))
    if json:
        print(format_json(result.to_dict()))
    else:
        print_measurement(result)
    if result.solution is not None and result.solution.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)
