"""The command: reads options, calls the library, prints. Thin, no logic.

Exit codes: 0 done, 2 bad input, 3 not converged, 130 interrupted (what was finished is kept).
"""

from __future__ import annotations

import contextlib
import io
import json as json_text
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from typer.exceptions import TyperException

from tightframe.advice.advise import FEATURE_DECAY_OF, Advice
from tightframe.advice.advise import advise as make_advice
from tightframe.advice.calibrate import Calibration
from tightframe.advice.prediction import Outlook, describe
from tightframe.files import format_json, read_arrays, write_npz
from tightframe.geometry.dense import Geometry
from tightframe.path import RankChange, rank_changes
from tightframe.problem.problem import BIASES, FEATURES, LOSSES, Problem, with_loss_terms
from tightframe.problem.scripts import REDUCTIONS, described_problem
from tightframe.solution import Solution
from tightframe.solve import solve as solve_problem
from tightframe.solvers.search.multistart import STARTS
from tightframe.solvers.search.record import Search
from tightframe.theory.certificate import Certificate
from tightframe.theory.certificate import certify as certify_candidate
from tightframe.theory.thresholds import Thresholds
from tightframe.theory.thresholds import thresholds as find_thresholds
from tightframe.training.options import DECAY_ON, OPTIMIZERS, SCHEDULES
from tightframe.version import __version__

if TYPE_CHECKING:
    from tightframe.reproduce.folder import FigureRecord
    from tightframe.reproduce.spec import Paper
    from tightframe.runs.config import RunConfig
    from tightframe.sweeps.grid import Grid
    from tightframe.sweeps.phase import PhaseDiagram

app = typer.Typer(
    help="Predict, measure and steer the geometry of a classifier's last layer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: Panel of the help; how many class groups have a column in a printed path, and a row in advice.
PHASE = "Phase diagram"
MAX_GROUPS = 5
MAX_ROWS = 12

BAD_INPUT, NOT_CONVERGED, INTERRUPTED = 2, 3, 130


# -- options shared by the commands ----------------------------------------------------------------


def _number(text: str | float) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"got {text!r}, need a number") from None


def _numbers(text: str | float) -> Any:
    """Read one number, or several with commas between (one a layer)."""
    if isinstance(text, str) and "," in text:
        return tuple(_number(part) for part in text.split(","))
    return _number(text)


def _whole(text: str | int) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"got {text!r}, need a whole number") from None


def _wholes(text: str | tuple[int, ...]) -> tuple[int, ...]:
    """Read whole numbers with commas between."""
    return tuple(_whole(part) for part in text.split(",")) if isinstance(text, str) else text


def _assignment(text: str | tuple[str, Any]) -> tuple[str, Any]:
    """Read NAME=VALUE; the value is JSON, or else text."""
    if not isinstance(text, str):
        return text
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"got {text!r}, need NAME=VALUE")
    try:
        return name, json_text.loads(value)
    except ValueError:
        return name, value


def _choices(values: tuple[str, ...]) -> str:
    return "|".join(values)


Counts = Annotated[
    str, typer.Option(help="Samples per class: 500,100,100 or, compactly, 500x5,100x5.")
]
WeightDecay = Annotated[
    Any,
    typer.Option(
        parser=_numbers, metavar="NUMBER", help="lambda_W in (lambda_W/2)||W||^2; W1,W2,.. a layer."
    ),
]
FeatureDecay = Annotated[
    Any,
    typer.Option(
        parser=_number, metavar="NUMBER", help="lambda_H in (lambda_H/2) sum_i ||h_i||^2."
    ),
]
Loss = Annotated[str, typer.Option(metavar=_choices(LOSSES), help="Averaged over the samples.")]
Bias = Annotated[str, typer.Option(metavar=_choices(BIASES), help="Bias of the classifier.")]
BiasDecay = Annotated[
    Any, typer.Option(parser=_number, metavar="NUMBER", help="With --bias decayed.")
]
Features = Annotated[
    str, typer.Option(metavar=_choices(FEATURES), help="nonnegative: ReLU features.")
]
Depth = Annotated[
    Any, typer.Option(parser=_whole, metavar="INTEGER", help="Linear layers after the features.")
]
Dim = Annotated[
    Any,
    typer.Option(
        parser=_whole, metavar="INTEGER", help="Width of the features; default: as needed."
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
    Any, typer.Option(parser=_number, metavar="NUMBER", help="Certified relative gap wanted.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


VALUES = "NUMBER,..|LOW:HIGH:POINTS"
Jobs = Annotated[
    Any,
    typer.Option(parser=_whole, metavar="INTEGER", help="Processes here; -1: one for every core."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="tcp://HOST:PORT", help="Run on the Dask cluster there instead."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Predict, measure and steer the geometry of a classifier's last layer."""


# -- theory ----------------------------------------------------------------------------------------


@app.command()
def solve(
    counts: Counts,
    weight_decay: WeightDecay,
    feature_decay: FeatureDecay,
    loss: Loss = "cross_entropy",
    bias: Bias = "none",
    bias_decay: BiasDecay = None,
    features: Features = "real",
    depth: Depth = 1,
    dim: Dim = None,
    class_weights: ClassWeights = None,
    logit_adjustment: LogitAdjustment = None,
    tol: Tol = 1e-8,
    starts: Annotated[
        Any,
        typer.Option(
            parser=_whole,
            metavar="INTEGER",
            help="Random starts at every width, where nothing is certified.",
        ),
    ] = STARTS,
    seed: Annotated[
        Any, typer.Option(parser=_whole, metavar="INTEGER", help="Of the random starts.")
    ] = 0,
    json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Also write logits, bias, factors and Grams to this .npz.")
    ] = None,
) -> None:
    """Solve for the global minimiser with its certificate; else for the best of many starts."""
    problem = Problem(
        counts,
        loss,
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        bias=bias,
        bias_decay=bias_decay,
        features=features,
        depth=depth,
        dim=dim,
        class_weights=class_weights,
        logit_adjustment=logit_adjustment,
    )
    if out is not None and out.suffix != ".npz":
        raise ValueError(f"out: got {str(out)!r}, need a name that ends in .npz")
    solution = solve_problem(problem, tol=tol, starts=starts, seed=seed)
    if out is not None:
        layers = {f"weight_{m}": layer for m, layer in enumerate(solution.weights, start=1)}
        write_npz(
            out,
            logits=solution.logits,
            bias=solution.bias,
            class_means=solution.class_means,
            classifier_gram=solution.geometry.classifier,
            means_gram=solution.geometry.means,
            **layers,
        )
    if json:
        print(format_json(solution.to_dict()))
    else:
        _print_solution(solution, Console())
    if solution.status == "not_converged":
        raise typer.Exit(NOT_CONVERGED)


@app.command()
def thresholds(
    counts: Counts,
    weight_decay: WeightDecay,
    feature_decay: FeatureDecay,
    loss: Loss = "cross_entropy",
    bias: Bias = "none",
    bias_decay: BiasDecay = None,
    features: Features = "real",
    depth: Depth = 1,
    class_weights: ClassWeights = None,
    logit_adjustment: LogitAdjustment = None,
    ranks: Annotated[
        bool, typer.Option("--ranks", help="Also tell where the rank of the logits changes.")
    ] = False,
    json: Json = False,
) -> None:
    """Tell at which decays, totals and counts each class group collapses."""
    problem = Problem(
        counts,
        loss,
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        bias=bias,
        bias_decay=bias_decay,
        features=features,
        depth=depth,
        class_weights=class_weights,
        logit_adjustment=logit_adjustment,
    )
    result = find_thresholds(problem)
    changes = rank_changes(problem) if ranks else None
    if json:
        values = result.to_dict() | {"problem": problem.to_dict()}
        if changes is not None:
            values["rank_changes"] = [change._asdict() for change in changes]
        print(format_json(values))
    else:
        _print_thresholds(problem, result, changes)


@app.command()
def path(
    context: typer.Context,
    counts: Annotated[
        list[str] | None,
        typer.Option(
            help="As for solve; every further --counts is a path of its own. With fixed decays, "
            "the counts are the path."
        ),
    ] = None,
    weight_decay: Annotated[
        str | None, typer.Option(metavar=VALUES, help="lambda_W; W1/W2/.. gives one a layer.")
    ] = None,
    feature_decay: Annotated[str | None, typer.Option(metavar=VALUES, help="lambda_H.")] = None,
    logit_decay: Annotated[
        str | None,
        typer.Option("--lambda", metavar=VALUES, help="Sets lambda_W = lambda_H = lambda."),
    ] = None,
    loss: Loss = "cross_entropy",
    bias: Bias = "none",
    bias_decay: Annotated[
        str | None, typer.Option(metavar=VALUES, help="With --bias decayed.")
    ] = None,
    features: Features = "real",
    depth: Depth = 1,
    dim: Dim = None,
    class_weights: ClassWeights = None,
    logit_adjustment: LogitAdjustment = None,
    ratios: Annotated[
        str | None,
        typer.Option(
            metavar=VALUES,
            help="Imbalance ratios of a phase diagram with STEP counts, instead of --counts.",
            rich_help_panel=PHASE,
        ),
    ] = None,
    classes: Annotated[
        Any,
        typer.Option(
            parser=_whole, metavar="INTEGER", help="Number of classes.", rich_help_panel=PHASE
        ),
    ] = None,
    minority: Annotated[
        Any,
        typer.Option(
            parser=_whole,
            metavar="INTEGER",
            help="Samples of each minority class in all rows; or",
            rich_help_panel=PHASE,
        ),
    ] = None,
    majority: Annotated[
        Any,
        typer.Option(
            parser=_whole,
            metavar="INTEGER",
            help="samples of each majority class in all rows.",
            rich_help_panel=PHASE,
        ),
    ] = None,
    fraction: Annotated[
        Any,
        typer.Option(
            parser=_number,
            metavar="NUMBER",
            help="Part of the classes in the minority.",
            rich_help_panel=PHASE,
        ),
    ] = 0.5,
    tol: Tol = 1e-8,
    json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for every row, a table and a picture.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the finished rows in --out, solve the others.")
    ] = False,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
) -> None:
    """Solve along decays or counts; over several counts, or ratios and lambda, as a grid.

    Several swept options go together, value by value. With --resume and no options of the problem,
    the grid stored in --out is used. A phase diagram: tightframe path --classes 10 --minority 20
    --ratios 1:50:20 --lambda 1e-4:1e-1:30
    """
    from tightframe.sweeps.grid import grid_file, read_grid, run_grid, shortfalls
    from tightframe.sweeps.phase import PhaseDiagram

    if resume and out is None:
        raise ValueError("out: missing; --resume goes on with the grid in a folder")
    started = out is not None and grid_file(out).exists()
    if resume and not started:
        print(f"tightframe: nothing to resume in {out}, a new grid starts", file=sys.stderr)
    if resume and started and out is not None and not _given(context):
        grid = read_grid(out)
    else:
        decays = _sweeps(weight_decay, feature_decay, bias_decay, logit_decay)
        step = (classes, ratios, majority, minority, fraction)
        terms = {"class_weights": class_weights, "logit_adjustment": logit_adjustment}
        grid = _grid(counts, step, decays, loss, bias, features, depth, dim, terms, tol)
    console = Console(stderr=json)
    try:
        with _rows_display(console) as progress:
            rows = run_grid(
                grid, out, resume=resume, jobs=jobs, scheduler=scheduler, progress=progress
            )
    except KeyboardInterrupt:
        if out is not None and grid_file(out).exists():
            hint = f"kept; go on with: tightframe path --out {out} --resume"
            print(f"tightframe: {hint}", file=sys.stderr)
        raise
    diagram = None if grid.ratios is None else PhaseDiagram.from_rows(grid, rows)
    pictures = [] if out is None else _draw_grid(grid, rows, out)
    if json:
        result = {"grid": grid.to_dict(), "rows": rows, "out": out, "pictures": pictures}
        if diagram is not None:
            result["phase_diagram"] = diagram.to_dict()
        print(format_json(result))
    elif diagram is not None:
        _print_phases(diagram, console)
    else:
        for row in rows:
            _print_row(row, console)
    if not json and out is not None:
        console.print(f"kept in {out}", highlight=False, soft_wrap=True)
    problems = shortfalls(rows)
    for sentence in problems:
        print(f"tightframe: {sentence}", file=sys.stderr)
    if problems:
        raise typer.Exit(NOT_CONVERGED)


@app.command()
def certify(
    file: Annotated[
        Path,
        typer.Argument(
            help=".npz or .safetensors with logits (K, K), or weight (K, d) and class_means "
            "(d, K); and bias (K,) if there is one."
        ),
    ],
    counts: Counts,
    weight_decay: WeightDecay,
    feature_decay: FeatureDecay,
    loss: Loss = "cross_entropy",
    bias: Bias = "none",
    bias_decay: BiasDecay = None,
    features: Features = "real",
    depth: Depth = 1,
    dim: Dim = None,
    class_weights: ClassWeights = None,
    logit_adjustment: LogitAdjustment = None,
    json: Json = False,
) -> None:
    """Bound how far any candidate is from the global minimum."""
    problem = Problem(
        counts,
        loss,
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        bias=bias,
        bias_decay=bias_decay,
        features=features,
        depth=depth,
        dim=dim,
        class_weights=class_weights,
        logit_adjustment=logit_adjustment,
    )
    arrays = read_arrays(file)
    if "logits" in arrays:
        logits = arrays["logits"]
    elif {"weight", "class_means"} <= arrays.keys():
        logits = Geometry.from_vectors(arrays["weight"], arrays["class_means"]).logits
    else:
        raise ValueError(
            f"{file}: need logits, or weight and class_means; it has {', '.join(arrays) or 'none'}"
        )
    own = certify_candidate(problem, logits, arrays.get("bias"))
    solution = solve_problem(problem)
    bound = own.dual if solution.lower_bound is None else max(own.dual, solution.lower_bound)
    best = Certificate(own.primal, bound)
    if json:
        values = {
            "primal": best.primal,
            "lower_bound": best.dual,
            "gap": best.gap,
            "own_gap": own.gap,
            "status": solution.status,
            "problem": problem.to_dict(),
        }
        print(format_json(values))
    else:
        table = _table("", "value")
        table.add_row("objective of the candidate", f"{best.primal:.12g}")
        table.add_row("lower bound of the minimum", f"{best.dual:.12g}")
        table.add_row("gap (certified)", f"{best.gap:.3g}")
        table.add_row("gap from the candidate alone", f"{own.gap:.3g}")
        Console().print(table)
    if solution.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)


@app.command()
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
            parser=_number,
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
    batch_size: Annotated[Any, typer.Option(parser=_whole, metavar="INTEGER")] = None,
    reduction: Annotated[
        str, typer.Option(metavar=_choices(REDUCTIONS), help="Of the loss in a batch.")
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
            parser=_number,
            metavar="NUMBER",
            help="Wanted: own minus largest other logit; default 1 (MSE: 0.5). Or",
        ),
    ] = None,
    angle: Annotated[
        Any,
        typer.Option(
            parser=_number, metavar="DEGREES", help="between the classifiers of any two classes."
        ),
    ] = None,
    feature_decay_of: Annotated[
        str,
        typer.Option(
            metavar=_choices(FEATURE_DECAY_OF),
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
        _print_advice(advice, fitted)
    if advice.now.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)


def _given(context: typer.Context) -> list[str]:
    """Return which options that define the grid are on the command line."""
    others = ("out", "resume", "jobs", "scheduler", "json")
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [
        name
        for name, source in sources.items()
        if name not in others and source is not None and source.name == "COMMANDLINE"
    ]


def _sweeps(
    weight_decay: str | None,
    feature_decay: str | None,
    bias_decay: str | None,
    logit_decay: str | None,
) -> dict[str, list[Any]]:
    """Read the values of every decay."""
    from tightframe.sweeps.grid import parse_values

    texts = {"weight_decay": weight_decay, "feature_decay": feature_decay}
    if logit_decay is not None:
        for name, text in texts.items():
            if text is not None:
                raise ValueError(f"{name}: given with --lambda, which sets both decays")
        values = parse_values("lambda", logit_decay)
        decays = {"weight_decay": values, "feature_decay": values}
    else:
        for name, text in texts.items():
            if text is None:
                raise ValueError(f"{name}: missing; give both decays, or --lambda")
        decays = {name: parse_values(name, str(text)) for name, text in texts.items()}
    if bias_decay is not None:
        decays["bias_decay"] = parse_values("bias_decay", bias_decay)
    return decays


def _grid(
    counts: Sequence[str] | None,
    step: tuple[Any, ...],
    decays: Mapping[str, Sequence[Any]],
    loss: str,
    bias: str,
    features: str,
    depth: int,
    dim: int | None,
    terms: Mapping[str, Any],
    tol: float,
) -> Grid:
    from tightframe.sweeps.grid import Grid, parse_values
    from tightframe.sweeps.phase import step_rows

    classes, ratios, majority, minority, fraction = step
    real_ratios = None
    if ratios is not None:
        if counts:
            raise ValueError("counts: given with --ratios, which set them")
        if classes is None:
            raise ValueError("classes: missing; --ratios need it")
        counts, real_ratios = step_rows(
            classes,
            parse_values("ratios", ratios),
            majority=majority,
            minority=minority,
            fraction=fraction,
        )
    elif not counts:
        raise ValueError("counts: missing; give --counts, or --ratios and --classes")
    elif (classes, majority, minority) != (None, None, None):
        raise ValueError("classes, majority, minority: for phase diagrams; --ratios is missing")
    for name, text in terms.items():
        if text is not None and (real_ratios is not None or len(counts) > 1):
            raise ValueError(f"{name}: got {text!r}, which belongs to one --counts, not to several")
    problem = Problem(
        counts[0],
        loss,
        **{name: values[0] for name, values in decays.items()},
        bias=bias,
        features=features,
        depth=depth,
        dim=dim,
        **terms,
    )
    sweep = {name: values for name, values in decays.items() if len(values) > 1}
    if not sweep and real_ratios is None and len(counts) > 1:
        return Grid(problem, {"counts": counts}, tol=tol)
    return Grid(problem, sweep or decays, counts, real_ratios, tol=tol)


def _draw_grid(grid: Grid, rows: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:
    try:
        from tightframe.sweeps.plots import save_grid_plots
    except ImportError as error:  # the numbers are there without it
        print(f"tightframe: no picture, {error.name} is not installed", file=sys.stderr)
        return []
    return save_grid_plots(grid, rows, out)


# -- networks --------------------------------------------------------------------------------------


@app.command()
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
        _print_measurement(result)
    if result.solution is not None and result.solution.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)


@app.command()
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
            parser=_numbers,
            metavar="NUMBER",
            help="lambda_W, once a setting; default 0.02 and 0.08.",
        ),
    ] = None,
    feature_decay: Annotated[
        list[Any] | None,
        typer.Option(
            parser=_number,
            metavar="NUMBER",
            help="lambda_H, once a setting; default 2e-4 and 8e-4.",
        ),
    ] = None,
    loss: Annotated[str | None, typer.Option(metavar=_choices(LOSSES))] = None,
    class_weights: ClassWeights = None,
    logit_adjustment: LogitAdjustment = None,
    bias: Annotated[str | None, typer.Option(metavar=_choices(BIASES))] = None,
    bias_decay: BiasDecay = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar=_choices(FEATURES),
            help="nonnegative: ReLU features; give them room, --feature-dim 128.",
        ),
    ] = None,
    depth: Annotated[
        Any, typer.Option(parser=_whole, metavar="INTEGER", help="Linear layers of the head.")
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
            parser=_assignment,
            metavar="NAME=VALUE",
            help="Of the network: width=16; repeat.",
        ),
    ] = None,
    hidden: Annotated[
        Any,
        typer.Option(
            parser=_wholes,
            metavar="INTEGERS",
            help="Widths of the MLP's hidden layers; default 256,256.",
        ),
    ] = None,
    feature_dim: Annotated[
        Any,
        typer.Option(
            parser=_whole,
            metavar="INTEGER",
            help="Width of the features; default 20 for the MLP, else the network's own.",
        ),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(metavar=_choices(OPTIMIZERS))] = None,
    lr: Annotated[Any, typer.Option(parser=_number, metavar="NUMBER")] = None,
    momentum: Annotated[Any, typer.Option(parser=_number, metavar="NUMBER", help="Of sgd.")] = None,
    schedule: Annotated[str | None, typer.Option(metavar=_choices(SCHEDULES))] = None,
    milestones: Annotated[
        Any,
        typer.Option(
            parser=_wholes,
            metavar="INTEGERS",
            help="Epochs from which on lr is a further tenth: 100,150.",
        ),
    ] = None,
    decay_on: Annotated[
        str | None,
        typer.Option(
            metavar=_choices(DECAY_ON), help="all: decay every parameter instead of the features."
        ),
    ] = None,
    backbone_weight_decay: Annotated[
        Any, typer.Option(parser=_number, metavar="NUMBER", help="Of all layers but the head.")
    ] = None,
    warmup_epochs: Annotated[
        Any, typer.Option(parser=_whole, metavar="INTEGER", help="With smaller decays.")
    ] = None,
    warmup_decay_factor: Annotated[
        Any, typer.Option(parser=_number, metavar="NUMBER", help="How much smaller; default 0.1.")
    ] = None,
    epochs: Annotated[Any, typer.Option(parser=_whole, metavar="INTEGER")] = None,
    batch_size: Annotated[
        Any, typer.Option(parser=_whole, metavar="INTEGER", help="Default: all samples.")
    ] = None,
    measure_every: Annotated[
        Any, typer.Option(parser=_whole, metavar="INTEGER", help="Epochs.")
    ] = None,
    max_seconds: Annotated[
        Any, typer.Option(parser=_number, metavar="NUMBER", help="A setting; then it ends.")
    ] = None,
    seed: Annotated[Any, typer.Option(parser=_whole, metavar="INTEGER")] = None,
    device: Annotated[str | None, typer.Option(metavar="cpu|gpu|auto")] = None,
    devices: Annotated[
        Any, typer.Option(parser=_whole, metavar="INTEGER", help="Processes (DDP), one a device.")
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
        with _training_display(console, config) as (progress, on_prediction):
            results = train(
                config, out, resume=resume, progress=progress, on_prediction=on_prediction
            )
        page = _write_report(out)
    except KeyboardInterrupt:
        if run_file(out).exists():
            hint = f"kept; go on with: tightframe run --out {out} --resume"
            print(f"tightframe: {hint}", file=sys.stderr)
        raise
    if json:
        print(format_json({"results": results, "report": page}))
    else:
        _print_run(console, out)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    if any(result["predicted"]["status"] != "optimal" for result in results):
        raise typer.Exit(NOT_CONVERGED)


@app.command()
def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="PAPER[/FIGURE]|all", help="What to reproduce; see --list."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results, pictures and the page.")
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            metavar="smoke|cpu|paper",
            help="Seconds a figure; minutes; or the original settings, for a GPU.",
        ),
    ] = "smoke",
    seed: Annotated[
        Any, typer.Option(parser=_whole, metavar="INTEGER", help="Added to all seeds.")
    ] = 0,
    device: Annotated[
        str | None,
        typer.Option(metavar="cpu|gpu|auto", help="Default: auto at scale paper, else cpu."),
    ] = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --out; figures can be added.")
    ] = False,
    data_root: Annotated[Path | None, typer.Option(help="Folder with data sets.")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch data sets that are nowhere.")
    ] = False,
    devices: Annotated[
        Any, typer.Option(parser=_whole, metavar="INTEGER", help="Processes (DDP), one a device.")
    ] = 1,
    list_: Annotated[bool, typer.Option("--list", help="List papers and figures.")] = False,
    json: Json = False,
) -> None:
    """Reproduce figures of the papers: claim, prediction, measurement and verdict side by side.

    A claim that is not reproduced is a result, not an error; failed runs give exit code 3.
    """
    from tightframe.reproduce.spec import papers

    if list_:
        _print_papers(list(papers().values()), json)
        return
    if not names:
        raise ValueError("names: need a paper, PAPER/FIGURE or all; --list shows what there is")
    if out is None:
        raise ValueError("out: name a folder for the results")
    from tightframe.pages.reproduction import write_reproduction
    from tightframe.reproduce.folder import reproduce as run_figures
    from tightframe.reproduce.folder import reproduction_file
    from tightframe.reproduce.plots import save_figure_plot

    console = Console(stderr=json)
    try:
        with _tasks_display(console) as progress:
            records = run_figures(
                names,
                out,
                scale=scale,
                seed=seed,
                device=device,
                jobs=jobs,
                scheduler=scheduler,
                resume=resume,
                data_root=data_root,
                download=download,
                devices=devices,
                progress=progress,
                on_figure=save_figure_plot,
            )
        page = write_reproduction(out)
    except KeyboardInterrupt:
        if reproduction_file(out).exists():
            print(
                "tightframe: kept; go on with the same command and --resume",
                file=sys.stderr,
            )
        raise
    if json:
        print(format_json({"figures": [r.to_dict() for r in records], "report": page}))
    else:
        _print_verdicts(records, console)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    shortfalls = [sentence for record in records for sentence in record.shortfalls]
    for sentence in shortfalls:
        print(f"tightframe: {sentence}", file=sys.stderr)
    if shortfalls:
        raise typer.Exit(NOT_CONVERGED)


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(help="What 'run' or 'reproduce' wrote; may be unfinished.")
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", metavar="png|svg|pdf", help="Of the plots; may be given several times."
        ),
    ] = None,
    latex: Annotated[
        bool, typer.Option("--latex", help="Also write the tables for LaTeX.")
    ] = False,
) -> None:
    """Write report.html, plots and, if asked for, LaTeX tables of a run or a reproduction again."""
    # By its name, not by the module that knows it: a run's report needs nothing of that.
    write = _write_report
    if (folder / "reproduce.json").exists():
        write = _write_reproduction
    print(write(folder, formats or ["png"]))
    if latex:
        from tightframe.report import write_tables

        for path in write_tables(folder):
            print(path)


@app.command()
def explore(
    port: Annotated[
        Any, typer.Option(parser=_whole, metavar="INTEGER", help="0: any free one.")
    ] = 8050,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Whether to open it in the browser.")
    ] = True,
) -> None:
    """Show predictions on a web page of this computer (127.0.0.1) until Ctrl-C.

    Counts, decays, loss, bias, features and depth as controls; a features file can be laid over.
    """
    try:
        from tightframe.pages.explore.server import serve
    except ImportError as error:
        raise ValueError(
            f"{error.name}: not installed; pip install 'tightframe[explore]'"
        ) from None

    serve(port, open_)


def _settings(weight_decay: Any, feature_decay: Any) -> list[tuple[Any, float]] | None:
    if not weight_decay and not feature_decay:
        return None
    if len(weight_decay or ()) != len(feature_decay or ()):
        raise ValueError(
            f"feature_decay: given {len(feature_decay or ())} times, weight_decay "
            f"{len(weight_decay or ())} times; a setting needs both"
        )
    return list(zip(weight_decay, feature_decay, strict=True))


def _write_report(folder: Path, formats: Sequence[str] = ("png",)) -> Path:
    from tightframe.report import save_plots, write_report
    from tightframe.runs.store import load_run

    save_plots(load_run(folder), folder / "plots", formats)
    return write_report(folder)


def _write_reproduction(folder: Path, formats: Sequence[str] = ("png",)) -> Path:
    from tightframe.report import save_reproduction_plots, write_reproduction

    save_reproduction_plots(folder, formats)
    return write_reproduction(folder)


# -- printing --------------------------------------------------------------------------------------


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _print_solution(solution: Solution, console: Console) -> None:
    table = _table("classes", "samples each", "margin", "state", title="Predicted class groups")
    for group in solution.to_dict()["groups"]:
        state = "collapsed" if group["collapsed"] else "distinct"
        count = with_loss_terms(
            str(group["count"]), group["class_weight"], group["logit_adjustment"]
        )
        table.add_row(str(group["classes"]), count, f"{group['margin']:.6g}", state)
    console.print(table)
    gap = "none" if solution.gap is None else f"{solution.gap:.2g} ({solution.note})"
    console.print(
        f"objective {solution.objective:.12g}, gap {gap}, rank {solution.rank}\n"
        f"{solution.status}; {solution.method}; {solution.seconds:.3f} s",
        highlight=False,
    )
    if solution.search is not None:
        _print_search(solution, solution.search, console)


def _print_advice(advice: Advice, fitted: Calibration | None) -> None:
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False)

    if fitted is not None:
        say(
            f"fitted to the network: weight_decay {fitted.weight_decay:.4g} (error "
            f"{fitted.weight_error:.2g}), feature_decay {fitted.feature_decay:.4g} (error "
            f"{fitted.feature_error:.2g}); its logits are {fitted.logits_distance:.2g} from the "
            "prediction"
        )
    title = f"As it is: lambda {advice.problem.logit_decay:.4g}"
    factors = [f"{safety.factor:.3g}" for safety in advice.safety]
    console.print(_outlook_table(advice.now, title, safety=factors))
    for warning in advice.warnings:
        say(warning)
    decays = advice.largest_decays
    say(
        f"all classes are distinct below lambda {advice.largest_decay:.4g}: weight_decay "
        f"{decays['weight_decay']:.4g} or feature_decay {decays['feature_decay']:.4g}"
    )
    if advice.met:
        say(f"every class has {advice.wanted}: nothing to change")
    else:
        say(f"\nWhat gives every class {advice.wanted}:")
    for proposal in advice.proposals:
        say(f"- {proposal.text}")
        if proposal.after is not None:
            console.print(_outlook_table(proposal.after, None))
    if advice.plain_remedies:
        say("\nFor comparison, plain remedies:")
    for remedy in advice.plain_remedies:
        if remedy.after is not None:
            say(
                f"- {remedy.text} Smallest margin {remedy.after.margin:.4g}, smallest angle "
                f"{remedy.after.angle:.4g}."
            )
    for times, found in advice.more_data:
        say(
            f"{times} times the data, feature_decay of the {advice.feature_decay_of} as it is: "
            f"smallest margin {found.margin:.4g}, smallest angle {found.angle:.4g}"
        )
    say(advice.limits)


def _outlook_table(found: Outlook, title: str | None, **more: list[str]) -> Table:
    """Tabulate an outlook by group, the worst groups if there are many."""
    lengths = ("classifier norm", "mean norm")
    table = _table("classes", "margin", "angle", *lengths, *more, "state", title=title)
    worst = sorted(range(len(found.groups)), key=lambda i: found.groups[i].margin)[:MAX_ROWS]
    for i in sorted(worst):
        group = found.groups[i]
        numbers = (group.margin, group.angle, group.classifier_norm, group.mean_norm)
        table.add_row(
            describe(group),
            *(f"{number:.4g}" for number in numbers),
            *(column[i] for column in more.values()),
            group.state,
        )
    if len(found.groups) > MAX_ROWS:
        table.caption = f"the {MAX_ROWS} smallest margins of {len(found.groups)} groups"
    return table


def _print_search(solution: Solution, search: Search, console: Console) -> None:
    table = _table("candidate", "rank", "objective", "starts that found it")
    for c in search.candidates:
        found = "closed form" if c.found is None else str(c.found)
        table.add_row(c.name, str(c.rank), f"{c.objective:.12g}", found)
    console.print(table)
    bound = ""
    if search.relaxed_bound is not None:
        bound = f"; certified without dim: at least {search.relaxed_bound:.12g}"
    console.print(
        f"{solution.note} (seed {search.seed}){bound}. Nothing certifies that there is no better "
        "solution.",
        highlight=False,
    )


def _print_thresholds(
    problem: Problem, result: Thresholds, changes: tuple[RankChange, ...] | None
) -> None:
    console = Console()
    decay = "sqrt(weight_decay feature_decay)"
    if problem.depth > 1:
        decay = "geometric mean of all decays"
    table = _table(
        "classes",
        "samples each",
        f"{result.kind} from lambda",
        "now",
        "from N",
        "distinct for counts in",
        title=f"lambda = {decay} = {result.logit_decay:.6g}",
    )
    terms = zip(problem.group_weights, problem.group_adjustment, strict=True)
    for group, own in zip(result.groups, terms, strict=True):
        interval = group.distinct_counts
        table.add_row(
            str(group.classes),
            with_loss_terms(str(group.count), *own),
            _optional(group.logit_decay),
            {True: "collapsed", False: "distinct", None: "-"}[group.collapsed],
            _optional(group.total_samples),
            "-" if interval is None else f"({interval[0]:.4g}, {interval[1]:.4g})",
        )
    console.print(table)
    console.print(f"all class means are zero from lambda = {result.total_collapse:.6g}")
    if changes is not None:
        table = _table("lambda", "rank above", "rank below", title="Where the rank changes")
        for change in changes:
            ranks = str(change.rank_above), str(change.rank_below)
            table.add_row(f"{change.logit_decay:.6g}", *ranks)
        console.print(table)


@contextlib.contextmanager
def _rows_display(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show how many rows are done; on a terminal only, and not before the first can be solved."""
    bar = Progress(
        TextColumn("rows"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("rows", total=None)

    def progress(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield progress
    finally:
        bar.stop()


def _print_row(row: Mapping[str, Any], console: Console) -> None:
    """Print one path: margins along lambda, with a line at every threshold that is passed."""
    points = row["points"]
    if not points:
        return  # it failed, which is said on stderr
    varied = [
        name
        for name in ("counts", "weight_decay", "feature_decay", "bias_decay")
        if any(point["problem"][name] != points[0]["problem"][name] for point in points)
    ]
    by_lambda = "counts" not in varied and points[0]["lambda"] != points[-1]["lambda"]
    if by_lambda:
        points = sorted(points, key=lambda point: float(point["lambda"]))
    columns = ["lambda"] if by_lambda or not varied else [n.replace("_", " ") for n in varied]
    most = max(len(point["groups"]) for point in points)
    shown = min(most, MAX_GROUPS)
    if "counts" in varied:
        names = [f"margin {g + 1}" for g in range(shown)]
    else:
        names = [
            with_loss_terms(
                f"{group['classes']} of {group['count']}",
                group["class_weight"],
                group["logit_adjustment"],
            )
            for group in points[0]["groups"][:shown]
        ]
    title = "Margins" if "counts" in varied else f"Margins at samples per class {row['counts']}"
    table = _table(*columns, *names, "rank", "gap", "status", title=title)
    for i, point in enumerate(points):
        if by_lambda and i:
            for limit, cells in _passed(points[i - 1], point, shown):
                table.add_row(f"{limit:.6g}", *cells, "", "", "threshold", style="bold")
        place = [f"{point['lambda']:.6g}"]
        if varied and not by_lambda:
            place = [str(point["problem"][name]) for name in varied]
        margins = [
            "collapsed" if group["collapsed"] else f"{group['margin']:.6g}"
            for group in point["groups"][:shown]
        ]
        margins += [""] * (shown - len(margins))
        gap = "-" if point["gap"] is None else f"{point['gap']:.1e}"
        table.add_row(*place, *margins, str(point["rank"]), gap, point["status"])
    console.print(table)
    if most > shown:
        console.print(f"{most - shown} more groups: see --json or --out", highlight=False)


def _passed(
    before: Mapping[str, Any], after: Mapping[str, Any], shown: int
) -> list[tuple[float, list[str]]]:
    """Return the thresholds between two points of a path, and what collapses there, a cell each."""
    verb = {"merge": "merge", "vanish": "vanish"}.get(after["collapse_kind"], "")
    found: dict[float, list[str]] = {}
    for g, group in enumerate(after["groups"][:shown]):
        place = group["threshold"]
        if place is not None and before["lambda"] < place <= after["lambda"]:
            found.setdefault(place, [""] * shown)[g] = verb
    return sorted(found.items())


def _print_phases(diagram: PhaseDiagram, console: Console) -> None:
    table = _table(
        "samples per class",
        "ratio",
        "minority collapses from",
        "on the grid from",
        "rank",
        title="Phase diagram over the imbalance ratio and lambda",
    )
    for i, counts in enumerate(diagram.counts):
        collapsed = diagram.logit_decays[diagram.minority_collapsed[i]]
        solved = diagram.rank[i][diagram.rank[i] >= 0]
        limit = diagram.minority_threshold[i]
        table.add_row(
            counts,
            f"{diagram.ratios[i]:.4g}",
            "-" if limit != limit else f"{limit:.6g}",
            f"{collapsed.min():.6g}" if len(collapsed) else "-",
            f"{solved.max()} to {solved.min()}" if len(solved) else "failed",
        )
    console.print(table)


@contextlib.contextmanager
def _tasks_display(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Show how many tasks are done and which was the last; on a terminal only."""
    bar = Progress(
        TextColumn("tasks"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=None)

    def progress(done: int, total: int, name: str) -> None:
        bar.start()
        bar.update(task, completed=done, total=total, description=name)

    try:
        yield progress
    finally:
        bar.stop()


def _print_papers(papers: Sequence[Paper], json: bool) -> None:
    if json:
        about = ("name", "title", "source", "claim")
        plain = [
            {
                "name": paper.name,
                "citation": paper.citation,
                "url": paper.url,
                "figures": [{key: getattr(f, key) for key in about} for f in paper.figures],
            }
            for paper in papers
        ]
        print(format_json({"papers": plain}))
        return
    console = Console()
    for paper in papers:
        table = Table(title=paper.citation, title_justify="left", box=None, show_header=False)
        table.add_column(no_wrap=True)  # a name that is cut off cannot be typed again
        for figure in paper.figures:
            table.add_row(f"{paper.name}/{figure.name}", figure.source, figure.title)
        console.print(table)


def _print_verdicts(records: Sequence[FigureRecord], console: Console) -> None:
    table = Table(title="Verdicts", title_justify="left")
    for column in ("figure", "predicted", "measured", "outcome", "finding"):
        table.add_column(column)
    for record in records:
        for verdict in record.verdicts:
            numbers = (
                value if isinstance(value, str) else _optional(value)
                for value in (verdict.predicted, verdict.measured)
            )
            table.add_row(record.name, *numbers, verdict.outcome, verdict.sentence)
    console.print(table)


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _print_measurement(result: Any) -> None:
    console = Console()
    report = result.report
    table = _table("metric", "value", title=f"{report.num_samples} samples")
    for name in ("nc1", "nc1_quotient", "cdnv", "nc4", "self_duality", "bias_alignment"):
        value = getattr(report, name)
        table.add_row(name, "-" if value is None else f"{value:.6g}")
    console.print(table)
    parts = ("classifier", "means", "centered_means", "logits")
    table = _table("distance to", *parts, title="Normalised Frobenius distance (0 to 2)")
    for target in result.targets:
        distances = report.distances(target)
        table.add_row(target.name, *(f"{distances[part]:.4f}" for part in parts))
    console.print(table)
    if result.certificate is not None:
        console.print(
            f"objective of the class means {result.certificate.primal:.8g}, of the network "
            f"{result.objective:.8g}; certified lower bound {result.certificate.dual:.8g}\n"
            f"certified gap of the class means {result.certificate.gap:.3g}",
            highlight=False,
        )
    for verdict in result.verdicts:
        console.print(verdict.sentence, highlight=False)


@contextlib.contextmanager
def _training_display(console: Console, config: RunConfig) -> Iterator[tuple[Any, Any]]:
    """Show each setting's prediction when it is known, and a progress bar while it trains."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=console,
    )
    tasks: dict[str, TaskID] = {}

    def on_prediction(name: str, solution: Solution) -> None:
        training = f"{config.data}, training samples per class {config.counts}"
        bar.console.print(f"\nSetting {name}: {training}", style="bold", highlight=False)
        _print_solution(solution, bar.console)

    def progress(name: str, epoch: int, epochs: int, row: Mapping[str, float]) -> None:
        if name not in tasks:
            bar.start()  # not before there is something to show: bad input prints one line only
            tasks[name] = bar.add_task(name, total=epochs, state="")
        state = ""
        if row:
            state = (
                f"{row['excess']:.1e} above bound, logits {row['logits_to_predicted']:.3f} "
                f"from predicted, {row['logits_to_etf']:.3f} from ETF"
            )
        bar.update(tasks[name], completed=epoch, state=state)

    try:
        yield progress, on_prediction
    finally:
        if tasks:
            bar.stop()


def _print_run(console: Console, folder: Path) -> None:
    from tightframe.runs.store import load_run
    from tightframe.runs.tables import format_number, headline, metric_rows, setting_title

    for setting in load_run(folder).settings:
        table = _table(
            "metric", "start", "end", "to predicted", "to ETF", title=setting_title(setting)
        )
        for row in metric_rows(setting):
            numbers = (row.start, row.end, row.to_predicted, row.to_etf)
            table.add_row(row.label, *("" if n is None else format_number(n, 4) for n in numbers))
        console.print(table)
        console.print(headline(setting), highlight=False)
        for verdict in (setting.result or {}).get("verdicts", []):
            console.print(f"- {verdict['sentence']}", highlight=False)


# -- entry -----------------------------------------------------------------------------------------


def main() -> NoReturn:
    """Run the command; every failure is one line on stderr and an exit code, no traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters is no failure
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run the command with arguments and return its exit code."""
    warnings.showwarning = _show_warning
    try:
        code = int(app(arguments, standalone_mode=False) or 0)
    except TyperException as error:
        message = error.format_message()
        return _fail(message) if message else BAD_INPUT  # without arguments: the help was printed
    except typer.Abort:
        return _fail("aborted")
    except MemoryError:
        return _fail("out of memory")
    except ImportError as error:
        return _fail(f"{error.name}: not installed; pip install 'tightframe[all]'")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except ValueError as error:
        return _fail(str(error))
    if code == INTERRUPTED:  # Typer turns KeyboardInterrupt into this code
        print("tightframe: interrupted", file=sys.stderr)
    return code


def _fail(message: str) -> int:
    print("tightframe: " + " ".join(message.split()), file=sys.stderr)
    return BAD_INPUT


def _show_warning(message: Warning | str, *rest: Any, **options: Any) -> None:
    print(f"tightframe: warning: {message}", file=sys.stderr)
