"""The command path: one problem along its decays or counts, and grids of several."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tightframe.cli.console import print_phases, print_row, rows_display
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    Bias,
    ClassWeights,
    Depth,
    Dim,
    Features,
    Jobs,
    Json,
    LogitAdjustment,
    Loss,
    Scheduler,
    Tol,
    number,
    whole,
)
from tightframe.files import format_json
from tightframe.problem.problem import Problem

if TYPE_CHECKING:
    from tightframe.sweeps.grid import Grid

#: Panel of the help.
PHASE = "Phase diagram"
VALUES = "NUMBER,..|LOW:HIGH:POINTS"


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
            parser=whole, metavar="INTEGER", help="Number of classes.", rich_help_panel=PHASE
        ),
    ] = None,
    minority: Annotated[
        Any,
        typer.Option(
            parser=whole,
            metavar="INTEGER",
            help="Samples of each minority class in all rows; or",
            rich_help_panel=PHASE,
        ),
    ] = None,
    majority: Annotated[
        Any,
        typer.Option(
            parser=whole,
            metavar="INTEGER",
            help="samples of each majority class in all rows.",
            rich_help_panel=PHASE,
        ),
    ] = None,
    fraction: Annotated[
        Any,
        typer.Option(
            parser=number,
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
        with rows_display(console) as progress:
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
        print_phases(diagram, console)
    else:
        for row in rows:
            print_row(row, console)
    if not json and out is not None:
        console.print(f"kept in {out}", highlight=False, soft_wrap=True)
    problems = shortfalls(rows)
    for sentence in problems:
        print(f"tightframe: {sentence}", file=sys.stderr)
    if problems:
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
