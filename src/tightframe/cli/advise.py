"""The command advise: what becomes of the classes, and what helps, by theory or of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from tightframe.advice.advise import advise as make_advice
from tightframe.advice.proposals import FEATURE_DECAY_OF
from tightframe.cli.console import plain_console, print_advice, steps_display, waiting
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    ARRAYS,
    FLAG,
    IGNORE_INDEX,
    JSON,
    NETWORK,
    NUMBER,
    NUMBERS,
    PATH,
    PROBLEM,
    SOFTENED,
    WHOLE,
    Option,
    about,
    changed,
    one_of,
    text,
    with_options,
)
from tightframe.cli.options import given as typed_options
from tightframe.diagnosis.training import OPTIMIZERS
from tightframe.files import format_json
from tightframe.problem.scripts import REDUCTIONS, described_problem

_COUNTS, _WEIGHT_DECAY, _FEATURE_DECAY, _LAMBDA, *_PROBLEM = changed(
    PROBLEM,
    counts={"help": "Samples per class: 500x5,100x5.", "unset": "this or --labels"},
    weight_decay={"unset": "needed, or --config"},
    feature_decay={"unset": "this or --batch-feature-decay"},
    depth=None,
    dim=None,
)
*_PROBLEM, _CLASS_NAMES = _PROBLEM
#: What stands behind --weighted-mean.
_PROBLEM, _ADJUSTMENTS = _PROBLEM[: -1 - len(SOFTENED)], _PROBLEM[-1 - len(SOFTENED) :]
_CONFIG = Option(
    "config",
    PATH,
    "Weight decay, batch size, label smoothing and what is known of the loss, from a Lightning "
    "config.yaml or the JSON of Hugging Face's TrainingArguments.",
    unset="none",
)
#: What a training script knows of its problem, see `described_problem`.
_DESCRIBED = (
    _COUNTS,
    Option(
        "labels",
        PATH,
        "File of the training labels: .npy, .npz, .csv, .parquet, .txt.",
        unset="this or --counts",
    ),
    _WEIGHT_DECAY,
    _FEATURE_DECAY,
    Option(
        "batch_feature_decay",
        NUMBER,
        "Decay of the features summed in a batch.",
        unset="this or --feature-decay",
    ),
    _CONFIG,
    Option(
        "batch_size",
        WHOLE,
        "Samples of a batch.",
        unset="needed with a summed loss or --batch-feature-decay",
    ),
    Option("reduction", one_of(*REDUCTIONS), "Of the loss in a batch.", "mean"),
)
_WEIGHTED_MEAN = Option(
    "weighted_mean", FLAG, "Class weights divide the loss, as PyTorch's mean does.", False
)
#: What describes a problem and not a network; the decay of a training is known of both.
_OF_BOTH = ("batch_size", "reduction", "weight_decay", "config")
_FOUND_IN_RUN = tuple(o.name for o in _DESCRIBED if o.name not in _OF_BOTH)
_NETWORK = "A trained network"
#: Where a trained network is.
_RUN = (
    Option(
        "from_run",
        PATH,
        "Say what a trained network does and what helps: a folder of 'run', or a file as for "
        "'measure'.",
        panel=_NETWORK,
        unset="theory alone",
    ),
    *(option.but(panel=_NETWORK) for option in NETWORK if option is not IGNORE_INDEX),
)
#: What is said of labels, wherever they are.
_LABELLED = (_CLASS_NAMES, IGNORE_INDEX)
#: What is known of its training.
_TRAINING = (
    Option(
        "sampler",
        text("SHARES|balanced"),
        "How often samples of every class were drawn.",
        panel=_NETWORK,
        unset="as often as there are",
    ),
    Option(
        "optimizer",
        one_of(*OPTIMIZERS),
        "adamw: any whose decay is no term of the objective.",
        panel=_NETWORK,
        unset="sgd",
    ),
)
#: What else is known where another weight decay is asked about.
_AT = (
    Option(
        "at_weight_decay",
        NUMBERS,
        "Margins at other decays: 1e-2,5e-2; needs --weight-decay and --layers.",
        panel=_NETWORK,
        unset="none",
    ),
    Option(
        "layers", WHOLE, "Weight matrices of the whole network.", panel=_NETWORK, unset="not known"
    ),
    Option("batch_norm", FLAG, "It has batch norm.", False, panel=_NETWORK),
    Option("convolutional", FLAG, "It has convolutions.", False, panel=_NETWORK),
    Option("lr", NUMBER, "Learning rate at its largest.", panel=_NETWORK, unset="not known"),
    Option("momentum", NUMBER, "Of the optimizer.", panel=_NETWORK, unset="not known"),
    Option("full_batch", FLAG, "Every step took all samples.", False, panel=_NETWORK),
)


@with_options(
    *_DESCRIBED[:4],
    _LAMBDA,
    *_DESCRIBED[4:],
    *_PROBLEM,
    _WEIGHTED_MEAN,
    *_ADJUSTMENTS,
    *_LABELLED,
    Option(
        "margin",
        NUMBER,
        "Wanted: own minus largest other logit.",
        unset="1, MSE: 0.5",
    ),
    Option(
        "angle",
        NUMBER._replace(metavar="DEGREES"),
        "Wanted: between the classifiers of any two classes.",
        unset="none",
    ),
    Option(
        "feature_decay_of",
        one_of(*FEATURE_DECAY_OF),
        "What stays when the number of samples changes: the decay of every sample, or that of "
        "their mean.",
        "sample",
    ),
    *_RUN,
    *_TRAINING,
    *_AT,
    JSON,
)
def advise(context: typer.Context, *, from_run: Path | None, json: bool, **given: Any) -> None:
    """Tell what becomes of the classes, and what helps: by theory, or of a trained network.

    Examples
    --------
        tightframe advise --counts 5000x5,50x5 --weight-decay 5e-4 --feature-decay 1e-5
        tightframe advise --from-run features.npz --weight-decay 5e-4 --held-out test.npz
    """
    typed = typed_options(context)
    if from_run is not None:
        _of_network(from_run, json, given, typed)
    else:
        _of_problem(json, given, typed)


def _of_problem(json: bool, given: dict[str, Any], typed: list[str]) -> None:
    alone = [o.name for o in (*_RUN[1:], *_TRAINING, *_AT) if given[o.name] != o.default]
    if alone:
        raise ValueError(f"{alone[0]}: given without --from-run, for which it is")
    described = {o.name: given[o.name] for o in (*_DESCRIBED, _WEIGHTED_MEAN)}
    said: list[str] = []
    problem = described_problem(
        **described,
        **_told(given, typed, *_PROBLEM, *_ADJUSTMENTS, *_LABELLED),
        notice=said.append,
    )
    advice = make_advice(problem, **{name: given[name] for name in _WANTED})
    _say(said)
    if json:
        print(format_json(advice.to_dict() | {"calibration": None}))
    else:
        print_advice(advice)
    if advice.now.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)


def _of_network(source: Path, json: bool, given: dict[str, Any], typed: list[str]) -> None:
    with waiting("loading PyTorch", silent=json):
        from tightframe.runs.diagnosed import diagnose_saved

    if any(given[name] is not None for name in _FOUND_IN_RUN):
        raise ValueError("from_run: given with counts or decays, which it sets")
    for name, usual in (("batch_size", None), ("reduction", "mean")):
        if given[name] != usual:
            raise ValueError(f"{name}: given with --from-run; --weight-decay is beside a mean loss")
    where = _told(given, typed, *_RUN[1:], *_LABELLED)
    options = (_WEIGHT_DECAY, _CONFIG, *_PROBLEM, *_ADJUSTMENTS, *_TRAINING, *_AT)
    known = _told(given, typed, *options)
    said: list[str] = []
    if "config" in known:
        known["notice"] = said.append
    wanted = {name: given[name] for name in _WANTED}
    with (
        about(source, () if source.is_dir() else ARRAYS, **known),
        steps_display(plain_console(stderr=True), silent=json) as progress,
    ):
        found = diagnose_saved(source, **where, **known, **wanted, progress=progress)
    _say(said)
    if json:
        print(format_json(found.to_dict()))
    else:
        plain_console().print(found)
    if not found.converged:
        raise typer.Exit(NOT_CONVERGED)


#: What is wanted of every class.
_WANTED = ("margin", "angle", "feature_decay_of")


def _told(given: dict[str, Any], typed: list[str], *options: Option) -> dict[str, Any]:
    """Return the values of options that were typed, though it be as their defaults, or differ."""
    return {o.name: given[o.name] for o in options if o.name in typed or given[o.name] != o.default}


def _say(lines: list[str]) -> None:
    """Print what was read; only at the end, as an error is one line alone."""
    for line in lines:
        plain_console(stderr=True).print(line, highlight=False, soft_wrap=True, markup=False)
