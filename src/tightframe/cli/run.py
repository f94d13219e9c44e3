"""The command run: predict, train, measure and report on real data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from tightframe.cli.console import (
    plain_console,
    print_new_start,
    print_run,
    training_display,
    waiting,
)
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    ASSIGNMENT,
    DATA_ROOT,
    DEVICES,
    FLAG,
    JSON,
    NUMBER,
    NUMBERS,
    PATH,
    PROBLEM,
    SOFTENED,
    TEXT,
    WHOLE,
    WHOLES,
    Option,
    changed,
    one_of,
    text,
    with_options,
)
from tightframe.cli.report import write_run_report
from tightframe.files import format_json
from tightframe.training.options import DECAY_ON, HEAD_INITS, OPTIMIZERS, SCHEDULES

# What is left out has the default of `RunConfig` or `TextConfig`, or of the stored configuration:
# an option has none of its own, and its help says theirs.
_PROBLEM = {
    option.name: option
    for option in changed(
        PROBLEM,
        counts={"help": "Training samples per class.", "unset": "100x5,10x5"},
        weight_decay={
            "kind": NUMBERS.repeated,
            "help": "lambda_W, once a setting; W1/W2/.. gives one a layer.",
            "unset": "0.02 and 0.08, of text 3e-3",
            "fills": ("weight_decay", "settings"),
        },
        feature_decay={
            "kind": NUMBER.repeated,
            "help": "lambda_H, once a setting.",
            "unset": "2e-4 and 8e-4, of text 3e-7",
            "fills": ("feature_decay", "settings"),
        },
        logit_decay={
            "kind": NUMBER.repeated,
            "help": "Sets lambda_W = lambda_H = lambda, once a setting.",
        },
        loss={"default": None, "unset": "cross_entropy"},
        bias={"default": None, "unset": "none"},
        features={
            "help": "nonnegative: ReLU features; give them room, --feature-dim 128.",
            "default": None,
            "unset": "real",
        },
        depth={"help": "Linear layers of the head.", "default": None, "unset": "1"},
        label_smoothing={"default": None, "unset": "0.0"},
        smoothing_weights={"default": None, "unset": "own"},
        feature_weights={"default": None, "unset": "samples"},
        dim={
            "name": "feature_dim",
            "help": "Width of the features.",
            "fills": ("feature_dim", "dim"),
            "unset": "20 of the MLP, else the network's own, of text the certified rank and 8",
        },
    )
}
#: All arguments of `RunConfig` and `TextConfig`, whose modules would load too much for the help.
CONFIG = (
    Option("data", TEXT, "Data set, .npz file or folder; text, text:FILE or .txt.", unset="digits"),
    DATA_ROOT,
    _PROBLEM["counts"],
    Option(
        "oversample",
        text("FACTORS|balance"),
        "How often each class's samples are repeated: 1x5,10x5.",
        unset="once",
    ),
    Option("labels", one_of("true", "random"), "Random: permuted.", unset="true"),
    Option(  # --tokens is a file in other commands
        "token_kind",
        one_of("letters", "characters", "words"),
        "What the tokens of text are.",
        fills=("tokens",),
        unset="letters",
    ),
    Option(  # Typer has a context of its own
        "context_length",
        WHOLE,
        "Of text: tokens before the next.",
        flag="--context",
        fills=("context",),
        unset="2",
    ),
    Option("min_count", WHOLE, "Of text: how often a context must be seen.", unset="100"),
    _PROBLEM["weight_decay"],
    _PROBLEM["feature_decay"],
    _PROBLEM["logit_decay"],
    _PROBLEM["loss"],
    _PROBLEM["class_weights"],
    _PROBLEM["logit_adjustment"],
    *(_PROBLEM[option.name] for option in SOFTENED),
    _PROBLEM["class_names"],
    _PROBLEM["bias"],
    _PROBLEM["bias_decay"],
    _PROBLEM["features"],
    _PROBLEM["depth"],
    Option("head", one_of("linear", "fixed_etf"), "fixed_etf: not trained.", unset="linear"),
    Option("head_init", one_of(*HEAD_INITS), "Initial weights of a linear head.", unset="uniform"),
    Option(
        "network",
        TEXT,
        "mlp, resnet18, resnet50, vgg11, vgg13, vgg16, densenet_cifar, timm:MODEL, ...",
        unset="mlp",
    ),
    Option(
        "network_option",
        ASSIGNMENT.repeated,
        "Of the network: width=16; repeat.",
        fills=("network_options",),
        unset="the network's own",
    ),
    Option("hidden", WHOLES, "Widths of the MLP's hidden layers.", unset="256,256, of text 256"),
    Option("embedding_dim", WHOLE, "Of text: width of a token's embedding.", unset="64"),
    _PROBLEM["feature_dim"],
    Option("optimizer", one_of(*OPTIMIZERS), "Of all parameters.", unset="adam"),
    Option("lr", NUMBER, "Learning rate at its largest.", unset="0.005, of text 0.01"),
    Option("momentum", NUMBER, "Of sgd.", unset="0.9"),
    Option("schedule", one_of(*SCHEDULES), "Of the learning rate.", unset="cosine"),
    Option(
        "milestones",
        WHOLES,
        "Epochs from which on lr is a further tenth: 100,150.",
        unset="needed with that schedule",
    ),
    Option(
        "decay_on",
        one_of(*DECAY_ON),
        "all: decay every parameter instead of the features.",
        unset="features",
    ),
    Option("backbone_weight_decay", NUMBER, "Of all layers but the head.", unset="0.0"),
    Option("warmup_epochs", WHOLE, "With smaller decays.", unset="0"),
    Option("warmup_decay_factor", NUMBER, "How much smaller.", unset="0.1"),
    Option("epochs", WHOLE, "Passes over the samples.", unset="1200, of text 2000"),
    Option("batch_size", WHOLE, "Samples of a step.", unset="all"),
    Option(
        "measure_every",
        WHOLE,
        "Epochs from one measurement to the next.",
        unset="41 measurements, most of them early; of text 50",
    ),
    Option("max_seconds", NUMBER, "Of a setting; then it ends.", unset="none"),
    Option("seed", WHOLE, "Of the weights, the samples and their order.", unset="0"),
    Option("device", one_of("cpu", "gpu", "auto"), "Where the network is trained.", unset="cpu"),
    DEVICES,
    Option("strategy", one_of("auto", "ddp"), "Of Lightning.", unset="auto"),
    Option("threads", WHOLE, "CPU threads of PyTorch; others round differently.", unset="1"),
)


@with_options(
    Option("out", PATH, "Folder for the record and the report.", Path("tightframe-run")),
    Option("resume", FLAG, "Continue the run in --out, keep what is finished.", False),
    *CONFIG,
    JSON,
)
def run(
    *,
    out: Path,
    resume: bool,
    json: bool,
    weight_decay: list[Any] | None,
    feature_decay: list[float] | None,
    network_option: list[Any] | None,
    token_kind: str | None,
    context_length: int | None,
    **asked: Any,
) -> None:
    """Predict, train, measure and report on real data; by default in two settings on digits.

    At the first the minority classes stay distinct, at the second they must merge. With --data text
    a small network learns which letter of real text follows. With --resume and no other options,
    the configuration stored in --out is used.

    Examples
    --------
        tightframe run --out digits
        tightframe run --data fashion_mnist --counts 100x5,20x5 --lambda 2e-3 --out fashion
    """
    values = {name: value for name, value in asked.items() if value is not None}
    if weight_decay or feature_decay:
        one_layer = not resume and values.get("depth", 1) == 1
        values["settings"] = _settings(weight_decay or [], feature_decay or [], one_layer)
    with waiting("loading PyTorch", silent=json):
        from tightframe.runs.folder import using_record
        from tightframe.runs.outcome import outcome
        from tightframe.runs.store import load_run, read_run_file, run_file
        from tightframe.runs.text_config import configuration
        from tightframe.runs.train import run as train
        from tightframe.runs.writer import keeping_folders

    if network_option:
        values["network_options"] = dict(network_option)
    for name, value in {"tokens": token_kind, "context": context_length}.items():
        if value is not None:
            values[name] = value
    started = run_file(out).exists()
    if resume and not started:
        print_new_start(out, "run")
    stored = read_run_file(out)["config"] if resume and started else {}
    config = configuration(stored | values)
    console = plain_console(stderr=json)
    try:
        with keeping_folders():
            with (
                waiting(f"preparing {config.data}", silent=json) as ready,
                training_display(console, config, ready) as (progress, on_prediction),
            ):
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
        with using_record(out, "run"):
            record = load_run(out)
            said = {} if record.on_text else {"outcome": outcome(record)}
        print(format_json({"results": results, **said, "report": page}))
    else:
        print_run(console, out)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    with using_record(out, "run"):  # whose finished settings were read
        statuses = {result["predicted"]["status"] for result in results}
    if statuses != {"optimal"}:
        raise typer.Exit(NOT_CONVERGED)


def _settings(
    weight_decay: list[Any], feature_decay: list[float], one_layer: bool
) -> list[tuple[Any, float]]:
    for decay in weight_decay:
        if one_layer and isinstance(decay, tuple):
            repeated = " ".join(f"--weight-decay {number:g}" for number in decay)
            raise ValueError(
                f"weight_decay: got {len(decay)} numbers for depth 1; give one, or for a setting "
                f"each: {repeated}"
            )
    if len(weight_decay) != len(feature_decay):
        raise ValueError(
            f"feature_decay: given {_times(feature_decay)}, --weight-decay {_times(weight_decay)}; "
            "a setting needs both"
        )
    return list(zip(weight_decay, feature_decay, strict=True))


def _times(given: list[Any]) -> str:
    return "once" if len(given) == 1 else f"{len(given)} times"
