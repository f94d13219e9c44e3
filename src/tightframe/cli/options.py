"""Options that several commands share, and how the text of an option is read."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from tightframe.problem.problem import BIASES, FEATURES, LOSSES


def number(text: str | float) -> float:
    """Read one number."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"got {text!r}, need a number") from None


def numbers(text: str | float) -> Any:
    """Read one number, or several with commas between (one a layer)."""
    if isinstance(text, str) and "," in text:
        return tuple(number(part) for part in text.split(","))
    return number(text)


def whole(text: str | int) -> int:
    """Read one whole number."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"got {text!r}, need a whole number") from None


def wholes(text: str | tuple[int, ...]) -> tuple[int, ...]:
    """Read whole numbers with commas between."""
    return tuple(whole(part) for part in text.split(",")) if isinstance(text, str) else text


def assignment(text: str | tuple[str, Any]) -> tuple[str, Any]:
    """Read NAME=VALUE; the value is JSON, or else text."""
    if not isinstance(text, str):
        return text
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"got {text!r}, need NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def choices(values: tuple[str, ...]) -> str:
    """Return the metavar of an option that takes one of these words."""
    return "|".join(values)


Counts = Annotated[
    str, typer.Option(help="Samples per class: 500,100,100 or, compactly, 500x5,100x5.")
]
WeightDecay = Annotated[
    Any,
    typer.Option(
        parser=numbers, metavar="NUMBER", help="lambda_W in (lambda_W/2)||W||^2; W1,W2,.. a layer."
    ),
]
FeatureDecay = Annotated[
    Any,
    typer.Option(parser=number, metavar="NUMBER", help="lambda_H in (lambda_H/2) sum_i ||h_i||^2."),
]
Loss = Annotated[str, typer.Option(metavar=choices(LOSSES), help="Averaged over the samples.")]
Bias = Annotated[str, typer.Option(metavar=choices(BIASES), help="Bias of the classifier.")]
BiasDecay = Annotated[
    Any, typer.Option(parser=number, metavar="NUMBER", help="With --bias decayed.")
]
Features = Annotated[
    str, typer.Option(metavar=choices(FEATURES), help="nonnegative: ReLU features.")
]
Depth = Annotated[
    Any, typer.Option(parser=whole, metavar="INTEGER", help="Linear layers after the features.")
]
Dim = Annotated[
    Any,
    typer.Option(
        parser=whole, metavar="INTEGER", help="Width of the features; default: as needed."
    ),
]
ClassWeights = Annotated[
    str | None,
    typer.Option(metavar="WEIGHTS|balanced", help="Factor of each class's loss: 1x5,10x5."),
]
LogitAdjustment = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS|prior", help="Added to the logits inside the loss only; also 0.5*prior."
    ),
]
Tol = Annotated[
    Any, typer.Option(parser=number, metavar="NUMBER", help="Certified relative gap wanted.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Jobs = Annotated[
    Any,
    typer.Option(parser=whole, metavar="INTEGER", help="Processes here; -1: one for every core."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="tcp://HOST:PORT", help="Run on the Dask cluster there instead."),
]
