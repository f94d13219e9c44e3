"""The command advise: what merges or vanishes, and what keeps the classes apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from tightframe.advice.advise import FEATURE_DECAY_OF
from tightframe.advice.advise import advise as make_advice
from tightframe.cli.console import print_advice
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    ARRAYS,
    FLAG,
    JSON,
    NETWORK,
    NUMBER,
    PATH,
    PROBLEM,
    WHOLE,
    Option,
    about,
    changed,
    one_of,
    with_options,
)
from tightframe.files import format_json
from tightframe.problem.scripts import REDUCTIONS, described_problem

_COUNTS, _WEIGHT_DECAY, _FEATURE_DECAY, *_PROBLEM = changed(
    PROBLEM,
    counts={"help": "Samples per class: 500x5,100x5; or", "default": None},
    weight_decay={"default": None},
    feature_decay={"default": None},
    depth=None,
    dim=None,
)
*_PROBLEM, _LOGIT_ADJUSTMENT, _CLASS_NAMES = _PROBLEM
#: What a training script knows of its problem, see `described_problem`.
_DESCRIBED = (
    _COUNTS,
    Option("labels", PATH, "a file of the training labels: .npy, .npz, .csv, .parquet, .txt."),
    _WEIGHT_DECAY,
    _FEATURE_DECAY,
    Option("batch_feature_decay", NUMBER, "Instead: decay of the features summed in a batch."),
    Option(
        "config",
        PATH,
        "Weight decay and batch size from a Lightning config.yaml or the JSON of Hugging Face's "
        "TrainingArguments.",
    ),
    Option("batch_size", WHOLE),
    Option("reduction", one_of(*REDUCTIONS), "Of the loss in a batch.", "mean"),
)
_WEIGHTED_MEAN = Option(
    "weighted_mean", FLAG, "Class weights divide the loss, as PyTorch's mean does.", False
)
_FOUND_IN_RUN = tuple(o.name for o in _DESCRIBED if o.name not in ("batch_size", "reduction"))
_RUN = (
    Option(
        "from_run",
        PATH,
        "Fit both decays to a trained network: a folder of 'run', or a file as for 'measure'.",
    ),
    *NETWORK,
)


@with_options(
    *_DESCRIBED,
    *_RUN,
    *_PROBLEM,
    _WEIGHTED_MEAN,
    _LOGIT_ADJUSTMENT,
    _CLASS_NAMES,
    Option(
        "margin",
        NUMBER,
        "Wanted: own minus largest other logit; default 1 (MSE: 0.5). Or",
    ),
    Option(
        "angle", NUMBER._replace(metavar="DEGREES"), "between the classifiers of any two classes."
    ),
    Option(
        "feature_decay_of",
        one_of(*FEATURE_DECAY_OF),
        "What stays when the number of samples changes: the decay of every sample, or that of "
        "their mean.",
        "sample",
    ),
    JSON,
)
def advise(
    *,
    from_run: Path | None,
    keys: str | None,
    held_out: Path | None,
    class_names: str | None,
    ignore_index: int,
    setting: str | None,
    margin: float | None,
    angle: float | None,
    feature_decay_of: str,
    json: bool,
    **given: Any,
) -> None:
    """Tell which classes merge or vanish, how far that is, and what keeps them apart."""
    described = {o.name: given[o.name] for o in (*_DESCRIBED, _WEIGHTED_MEAN)}
    options = {
        option.name: given[option.name]
        for option in (*_PROBLEM, _LOGIT_ADJUSTMENT)
        if given[option.name] != option.default
    }
    fitted = None
    if from_run is not None:
        from tightframe.runs.calibrated import calibrate_saved

        if any(described[name] is not None for name in _FOUND_IN_RUN):
            raise ValueError("from_run: given with counts or decays, which it sets")
        with about(from_run, () if from_run.is_dir() else ARRAYS, **options):
            fitted = calibrate_saved(
                from_run,
                setting,
                keys=keys,
                ignore_index=ignore_index,
                class_names=class_names,
                **options,
            )
        problem = fitted.problem
    else:
        problem = described_problem(
            **described, class_names=class_names, ignore_index=ignore_index, **options
        )
    advice = make_advice(problem, margin=margin, angle=angle, feature_decay_of=feature_decay_of)
    if json:
        calibration = None if fitted is None else fitted.to_dict()
        print(format_json(advice.to_dict() | {"calibration": calibration}))
    else:
        print_advice(advice, fitted)
    if advice.now.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)
