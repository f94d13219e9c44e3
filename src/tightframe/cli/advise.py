"""The command advise: what merges or vanishes, and what keeps the classes apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tightframe.advice.advise import FEATURE_DECAY_OF
from tightframe.advice.advise import advise as make_advice
from tightframe.cli.console import print_advice
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    Bias,
    BiasDecay,
    ClassWeights,
    FeatureDecay,
    Features,
    Json,
    LogitAdjustment,
    Loss,
    WeightDecay,
    choices,
    number,
    whole,
)
from tightframe.files import format_json
from tightframe.problem.scripts import REDUCTIONS, described_problem


def advise(
    counts: Annotated[str | None, typer.Option(help="Samples per class: 500x5,100x5; or")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="a file of the training labels: .npy, .npz, .csv, .parquet, .txt."),
    ] = None,
    weight_decay: WeightDecay = None,
    feature_decay: FeatureDecay = None,
    batch_feature_decay: Annotated[
        Any,
        typer.Option(
            parser=number,
            metavar="NUMBER",
            help="Instead: decay of the features summed in a batch.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Weight decay and batch size from a Lightning config.yaml or the JSON of Hugging "
            "Face's TrainingArguments."
        ),
    ] = None,
    batch_size: Annotated[Any, typer.Option(parser=whole, metavar="INTEGER")] = None,
    reduction: Annotated[
        str, typer.Option(metavar=choices(REDUCTIONS), help="Of the loss in a batch.")
    ] = "mean",
    from_run: Annotated[
        Path | None,
        typer.Option(
            help="Fit both decays to a trained network: a folder of 'run', or a file as for "
            "'measure'."
        ),
    ] = None,
    setting: Annotated[
        str | None, typer.Option(help="Which setting of the run, if it has several.")
    ] = None,
    loss: Loss = "cross_entropy",
    bias: Bias = "none",
    bias_decay: BiasDecay = None,
    features: Features = "real",
    class_weights: ClassWeights = None,
    weighted_mean: Annotated[
        bool,
        typer.Option(
            "--weighted-mean", help="Class weights divide the loss, as PyTorch's mean does."
        ),
    ] = False,
    logit_adjustment: LogitAdjustment = None,
    margin: Annotated[
        Any,
        typer.Option(
            parser=number,
            metavar="NUMBER",
            help="Wanted: own minus largest other logit; default 1 (MSE: 0.5). Or",
        ),
    ] = None,
    angle: Annotated[
        Any,
        typer.Option(
            parser=number, metavar="DEGREES", help="between the classifiers of any two classes."
        ),
    ] = None,
    feature_decay_of: Annotated[
        str,
        typer.Option(
            metavar=choices(FEATURE_DECAY_OF),
            help="What stays when the number of samples changes: the decay of every sample, or "
            "that of their mean.",
        ),
    ] = "sample",
    json: Json = False,
) -> None:
    """Tell which classes merge or vanish, how far that is, and what keeps them apart."""
    given = {
        "loss": loss,
        "bias": bias,
        "bias_decay": bias_decay,
        "features": features,
        "class_weights": class_weights,
        "logit_adjustment": logit_adjustment,
    }
    defaults = {"loss": "cross_entropy", "bias": "none", "features": "real"}
    options = {k: v for k, v in given.items() if v != defaults.get(k)}
    fitted = None
    if from_run is not None:
        from tightframe.runs.calibrated import calibrate_saved

        others = (counts, labels, weight_decay, feature_decay, batch_feature_decay, config)
        if any(value is not None for value in others):
            raise ValueError("from_run: given with counts or decays, which it sets")
        fitted = calibrate_saved(from_run, setting, **options)
        problem = fitted.problem
    else:
        problem = described_problem(
            counts,
            labels=labels,
            config=config,
            weight_decay=weight_decay,
            feature_decay=feature_decay,
            batch_feature_decay=batch_feature_decay,
            batch_size=batch_size,
            reduction=reduction,
            weighted_mean=weighted_mean,
            **options,
        )
    advice = make_advice(problem, margin=margin, angle=angle, feature_decay_of=feature_decay_of)
    if json:
        calibration = None if fitted is None else fitted.to_dict()
        print(format_json(advice.to_dict() | {"calibration": calibration}))
    else:
        print_advice(advice, fitted)
    if advice.now.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)
