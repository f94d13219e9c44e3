"""The command run: predict, train, measure and report on real data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tightframe.cli.console import print_run, training_display
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    BiasDecay,
    ClassWeights,
    Json,
    LogitAdjustment,
    assignment,
    choices,
    number,
    numbers,
    whole,
    wholes,
)
from tightframe.cli.report import write_run_report
from tightframe.files import format_json
from tightframe.problem.problem import BIASES, FEATURES, LOSSES
from tightframe.training.options import DECAY_ON, OPTIMIZERS, SCHEDULES


def run(
    out: Annotated[Path, typer.Option(help="Folder for the record and the report.")] = Path(
        "tightframe-run"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out, keep what is finished.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="Data set, or an .npz file or folder; default digits.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder with data sets.")] = None,
    counts: Annotated[
        str | None, typer.Option(help="Training samples per class; default 100x5,10x5.")
    ] = None,
    oversample: Annotated[
        str | None,
        typer.Option(
            metavar="FACTORS|balance", help="How often each class's samples are repeated: 1x5,10x5."
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="true|random", help="Random: permuted.")
    ] = None,
    weight_decay: Annotated[
        list[Any] | None,
        typer.Option(
            parser=numbers,
            metavar="NUMBER",
            help="lambda_W, once a setting; default 0.02 and 0.08.",
        ),
    ] = None,
    feature_decay: Annotated[
        list[Any] | None,
        typer.Option(
            parser=number,
            metavar="NUMBER",
            help="lambda_H, once a setting; default 2e-4 and 8e-4.",
        ),
    ] = None,
    loss: Annotated[str | None, typer.Option(metavar=choices(LOSSES))] = None,
    class_weights: ClassWeights = None,
    logit_adjustment: LogitAdjustment = None,
    bias: Annotated[str | None, typer.Option(metavar=choices(BIASES))] = None,
    bias_decay: BiasDecay = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar=choices(FEATURES),
            help="nonnegative: ReLU features; give them room, --feature-dim 128.",
        ),
    ] = None,
    depth: Annotated[
        Any, typer.Option(parser=whole, metavar="INTEGER", help="Linear layers of the head.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="linear|fixed_etf", help="fixed_etf: not trained.")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="mlp (default), resnet18, resnet50, vgg11, vgg13, timm:MODEL, ..."),
    ] = None,
    network_option: Annotated[
        list[Any] | None,
        typer.Option(
            parser=assignment,
            metavar="NAME=VALUE",
            help="Of the network: width=16; repeat.",
        ),
    ] = None,
    hidden: Annotated[
        Any,
        typer.Option(
            parser=wholes,
            metavar="INTEGERS",
            help="Widths of the MLP's hidden layers; default 256,256.",
        ),
    ] = None,
    feature_dim: Annotated[
        Any,
        typer.Option(
            parser=whole,
            metavar="INTEGER",
            help="Width of the features; default 20 for the MLP, else the network's own.",
        ),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(metavar=choices(OPTIMIZERS))] = None,
    lr: Annotated[Any, typer.Option(parser=number, metavar="NUMBER")] = None,
    momentum: Annotated[Any, typer.Option(parser=number, metavar="NUMBER", help="Of sgd.")] = None,
    schedule: Annotated[str | None, typer.Option(metavar=choices(SCHEDULES))] = None,
    milestones: Annotated[
        Any,
        typer.Option(
            parser=wholes,
            metavar="INTEGERS",
            help="Epochs from which on lr is a further tenth: 100,150.",
        ),
    ] = None,
    decay_on: Annotated[
        str | None,
        typer.Option(
            metavar=choices(DECAY_ON), help="all: decay every parameter instead of the features."
        ),
    ] = None,
    backbone_weight_decay: Annotated[
        Any, typer.Option(parser=number, metavar="NUMBER", help="Of all layers but the head.")
    ] = None,
    warmup_epochs: Annotated[
        Any, typer.Option(parser=whole, metavar="INTEGER", help="With smaller decays.")
    ] = None,
    warmup_decay_factor: Annotated[
        Any, typer.Option(parser=number, metavar="NUMBER", help="How much smaller; default 0.1.")
    ] = None,
    epochs: Annotated[Any, typer.Option(parser=whole, metavar="INTEGER")] = None,
    batch_size: Annotated[
        Any, typer.Option(parser=whole, metavar="INTEGER", help="Default: all samples.")
    ] = None,
    measure_every: Annotated[
        Any, typer.Option(parser=whole, metavar="INTEGER", help="Epochs.")
    ] = None,
    max_seconds: Annotated[
        Any, typer.Option(parser=number, metavar="NUMBER", help="A setting; then it ends.")
    ] = None,
    seed: Annotated[Any, typer.Option(parser=whole, metavar="INTEGER")] = None,
    device: Annotated[str | None, typer.Option(metavar="cpu|gpu|auto")] = None,
    devices: Annotated[
        Any, typer.Option(parser=whole, metavar="INTEGER", help="Processes (DDP), one a device.")
    ] = None,
    json: Json = False,
) -> None:
    """Predict, train, measure and report on real data; by default in two settings on digits.

    At the first the minority classes stay distinct, at the second they must merge. With --resume
    and no other options, the configuration stored in --out is used.
    """
    from tightframe.runs.store import read_run_file, run_file
    from tightframe.runs.train import RunConfig
    from tightframe.runs.train import run as train

    given: dict[str, Any] = {
        "data": data,
        "data_root": data_root,
        "counts": counts,
        "oversample": oversample,
        "labels": labels,
        "settings": _settings(weight_decay, feature_decay),
        "loss": loss,
        "class_weights": class_weights,
        "logit_adjustment": logit_adjustment,
        "bias": bias,
        "bias_decay": bias_decay,
        "features": features,
        "depth": depth,
        "head": head,
        "network": network,
        "network_options": dict(network_option) if network_option else None,
        "hidden": hidden,
        "feature_dim": feature_dim,
        "optimizer": optimizer,
        "lr": lr,
        "momentum": momentum,
        "schedule": schedule,
        "milestones": milestones,
        "decay_on": decay_on,
        "backbone_weight_decay": backbone_weight_decay,
        "warmup_epochs": warmup_epochs,
        "warmup_decay_factor": warmup_decay_factor,
        "epochs": epochs,
        "batch_size": batch_size,
        "measure_every": measure_every,
        "max_seconds": max_seconds,
        "seed": seed,
        "device": device,
        "devices": devices,
    }
    started = run_file(out).exists()
    if resume and not started:
        print(f"tightframe: nothing to resume in {out}, a new run starts", file=sys.stderr)
    stored = read_run_file(out)["config"] if resume and started else {}
    config = RunConfig.from_dict(stored | {k: v for k, v in given.items() if v is not None})
    console = Console(stderr=json)
    try:
        with training_display(console, config) as (progress, on_prediction):
            results = train(
                config, out, resume=resume, progress=progress, on_prediction=on_prediction
            )
        page = write_run_report(out)
    except KeyboardInterrupt:
        if run_file(out).exists():
            hint = f"kept; go on with: tightframe run --out {out} --resume"
            print(f"tightframe: {hint}", file=sys.stderr)
        raise
    if json:
        print(format_json({"results": results, "report": page}))
    else:
        print_run(console, out)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    if any(result["predicted"]["status"] != "optimal" for result in results):
        raise typer.Exit(NOT_CONVERGED)


def _settings(weight_decay: Any, feature_decay: Any) -> list[tuple[Any, float]] | None:
    if not weight_decay and not feature_decay:
        return None
    if len(weight_decay or ()) != len(feature_decay or ()):
        raise ValueError(
            f"feature_decay: given {len(feature_decay or ())} times, weight_decay "
            f"{len(weight_decay or ())} times; a setting needs both"
        )
    return list(zip(weight_decay, feature_decay, strict=True))
