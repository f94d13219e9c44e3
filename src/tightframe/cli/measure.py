"""The command measure: saved features against every known geometry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tightframe.cli.console import (
    plain_console,
    print_features,
    print_measurement,
    print_notes,
    print_table,
    waiting,
)
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    ARRAYS,
    FLAG,
    JSON,
    NETWORK,
    PROBLEM,
    Option,
    about,
    changed,
    given,
    one_of,
    require_decays,
    text,
    with_options,
)
from tightframe.files import format_json

#: Options of the problem that a regression has.
_OF_REGRESSION = ("weight_decay", "feature_decay", "bias")


@with_options(
    *changed(
        PROBLEM,
        counts=None,
        weight_decay={"unset": "nothing predicted"},
        feature_decay={"unset": "nothing predicted"},
        depth=None,
        dim=None,
    ),
    *NETWORK,
    Option(
        "center",
        one_of("class", "sample"),
        "Mean that class means are less: of classes, or of all samples as in the papers' code.",
        "class",
    ),
    Option(
        "regression",
        FLAG,
        "The labels are real-valued targets (N, q), also called 'targets': NRC1 to NRC3.",
        False,
    ),
    Option(
        "layers",
        text("NAME|FILE|FILE:NAME,.."),
        "With --regression, features of hidden layers: names in the file, or other files.",
        unset="none",
    ),
    JSON,
)
def measure(
    file: Annotated[
        Path,
        typer.Argument(
            help="With features (N, D), labels (N,) and, where there are any, weight (K, D), bias "
            "(K,): .npz, .safetensors, .pt, .csv, .parquet, .npy; or a folder of 'run'."
        ),
    ],
    context: typer.Context,
    *,
    keys: str | None,
    held_out: Path | None,
    class_names: str | None,
    ignore_index: int,
    setting: str | None,
    center: str,
    regression: bool,
    layers: str | None,
    json: bool,
    **options: Any,
) -> None:
    """Measure saved features against every known geometry, with the gap of their class means.

    Give the decays to have the geometry predicted; without them the frames are compared only.

    Examples
    --------
        tightframe measure features.npz
        tightframe measure features.npz --held-out test.npz --weight-decay 5e-4 --feature-decay 1e-5
    """
    with waiting("loading PyTorch", silent=json):
        from tightframe.runs.features_only import measure_features
        from tightframe.runs.measure import measure as measure_arrays
        from tightframe.runs.network_files import read_network

    if regression:
        _measure_regression(file, keys, layers, given(context), json=json, **options)
        return
    if layers is not None:
        raise ValueError(f"layers: got {layers!r}, which belongs to --regression")
    weight_decay = options["weight_decay"]
    if (weight_decay is None) != (options["feature_decay"] is None):
        require_decays(options, hint="give both decays or neither")
    with about(file, ARRAYS, **options), waiting(f"measuring {file.name}", silent=json) as ready:
        network = read_network(
            file,
            keys,
            ignore_index=ignore_index,
            class_names=class_names,
            held_out=held_out,
            setting=setting,
        )
        if network.weight is None and weight_decay is None:
            features = measure_features(network, center=center)
            ready()
            print_notes(network)
            print(format_json(features.to_dict())) if json else print_features(features)
            return
        decays = {} if weight_decay is None else options
        result = measure_arrays(network, center=center, **decays)
    print_notes(network)
    if json:
        print(format_json(result.to_dict()))
    else:
        print_measurement(result)
    if result.solution is not None and result.solution.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)


def _measure_regression(
    file: Path,
    keys: str | None,
    layers: str | None,
    typed: list[str],
    *,
    json: bool,
    **options: Any,
) -> None:
    """Measure real-valued targets; options that are about classes are refused."""
    from tightframe.metrics.regression_layer import table_of_layers
    from tightframe.runs.regression import LAST, measure_regression

    others = set(typed) - {"file", "regression", "json", "keys", "layers", *_OF_REGRESSION}
    if others:
        name = min(others, key=typed.index)
        raise ValueError(f"{name}: got a value with --regression, which has no classes")
    chosen = {name: options[name] for name in _OF_REGRESSION}
    if "bias" not in typed:
        chosen["bias"] = None
    names = [name.strip() for name in layers.split(",")] if layers else []
    with about(file, (*ARRAYS, "targets"), **options):
        reports = measure_regression(file, keys, layers=names, **chosen)
    last = reports[LAST]
    for note in last.notes:
        print(f"tightframe: {note}", file=sys.stderr)
    if json:
        found = last.to_dict()
        if names:
            found["layers"] = {name: reports[name].to_dict() for name in names}
        print(format_json(found))
        return
    if names:
        print_table(table_of_layers(reports), plain_console())
    print_table(last.to_table(), plain_console())
