"""The command path: one problem along its decays or counts, and grids of several."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tightframe.cli.console import (
    is_watched,
    plain_console,
    print_new_start,
    print_phases,
    print_row,
    rows_display,
)
from tightframe.cli.contexts import (
    TARGETS,
    WITH_TARGETS,
    asked_problem,
    print_context_path,
    require_tokens,
)
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    FLAG,
    JOBS,
    JSON,
    NUMBER,
    PATH,
    SCHEDULER,
    TEXT,
    TOL,
    WHOLE,
    Option,
    changed,
    given,
    require_decays,
    text,
    with_options,
)
from tightframe.files import format_json
from tightframe.path import path as solve_path
from tightframe.problem.problem import LOSS_ARGUMENTS, Problem

if TYPE_CHECKING:
    from tightframe.sweeps.grid import Grid

VALUES = text("NUMBER,..|LOW:HIGH:POINTS")

_PROBLEM = changed(
    WITH_TARGETS,
    counts={
        "kind": TEXT.repeated,
        "help": "As for solve; every further --counts is a path of its own. With fixed decays, "
        "the counts are the path.",
        "unset": "needed, or --ratios",
    },
    **{
        name: {"kind": VALUES}
        for name in ("weight_decay", "feature_decay", "logit_decay", "bias_decay")
    },
)
_PHASE = tuple(
    option.but(panel="Phase diagram")
    for option in (
        Option(
            "ratios",
            VALUES,
            "Imbalance ratios of a phase diagram with STEP counts, instead of --counts.",
            unset="no phase diagram",
        ),
        Option("classes", WHOLE, "Number of classes.", unset="needed with --ratios"),
        Option(
            "minority",
            WHOLE,
            "Samples of each minority class in all rows.",
            unset="this or --majority",
        ),
        Option(
            "majority",
            WHOLE,
            "Samples of each majority class in all rows.",
            unset="this or --minority",
        ),
        Option("fraction", NUMBER, "Part of the classes in the minority.", 0.5),
    )
)
#: One number a class, which belong to one path's counts.
_OF_CLASSES = tuple(
    name for name in LOSS_ARGUMENTS if name not in ("label_smoothing", "smoothing_weights")
)
#: What says where label distributions are.
_OF_TARGETS = {option.name for option in TARGETS}
#: What says how the grid is solved and kept, not what it is.
_PLACE = (
    JSON,
    Option("out", PATH, "Folder for every row, a table and a picture.", unset="printed only"),
    Option("resume", FLAG, "Keep the finished rows in --out, solve the others.", False),
    JOBS,
    SCHEDULER,
)


@with_options(*_PROBLEM, *_PHASE, TOL, *_PLACE)
def path(
    context: typer.Context,
    *,
    json: bool,
    out: Path | None,
    resume: bool,
    jobs: int,
    scheduler: str | None,
    logit_decay: str | None,
    **asked: Any,
) -> None:
    """Solve along decays or counts; over several counts, or ratios and lambda, as a grid.

    Several swept options go together, value by value. With --resume and no options of the problem,
    the grid stored in --out is used.

    Examples
    --------
        tightframe path --counts 500x5,100x5 --lambda 1e-4:1e-1:30
        tightframe path --classes 10 --minority 20 --ratios 1:50:20 --lambda 1e-4:1e-1:30
    """
    asked["logit_decay"] = logit_decay  # named above, so that it comes as a sweep
    if asked["targets"] is not None or asked["tokens"] is not None:
        if resume:
            raise ValueError("resume: a path of label distributions is kept when it is finished")
        if jobs != 1 or scheduler is not None:
            name, value = ("jobs", jobs) if scheduler is None else ("scheduler", scheduler)
            raise ValueError(f"{name}: got {value}; a path of label distributions is one task")
        _along_decays(json=json, out=out, **asked)
        return
    require_tokens(asked)
    asked = {name: asked[name] for name in asked.keys() - _OF_TARGETS}
    from tightframe.runs.writer import keeping_folders
    from tightframe.sweeps.grid import grid_file, read_grid, run_grid, shortfalls
    from tightframe.sweeps.phase import PhaseDiagram

    if resume and out is None:
        raise ValueError("out: missing; --resume goes on with the grid in a folder")
    started = out is not None and grid_file(out).exists()
    if resume and not started and out is not None:
        print_new_start(out, "grid")
    place = {option.name for option in _PLACE}
    if resume and started and out is not None and not set(given(context)) - place:
        grid = read_grid(out)
    else:
        grid = _grid(**asked)
    console = plain_console(stderr=json)
    try:
        with keeping_folders():
            with rows_display(console) as progress:
                rows = run_grid(
                    grid, out, resume=resume, jobs=jobs, scheduler=scheduler, progress=progress
                )
            pictures = [] if out is None else _draw_grid(grid, rows, out)
    except KeyboardInterrupt:
        if out is not None and grid_file(out).exists():
            hint = f"kept; go on with: tightframe path --out {out} --resume"
            print(f"tightframe: {hint}", file=sys.stderr)
        raise
    diagram = None if grid.ratios is None else PhaseDiagram.from_rows(grid, rows)
    if json:
        result = {"grid": grid.to_dict(), "rows": rows, "out": out, "pictures": pictures}
        if diagram is not None:
            result["phase_diagram"] = diagram.to_dict()
        print(format_json(result))
    elif diagram is not None:
        print_phases(diagram, grid.problem, console)
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


def _along_decays(
    *,
    json: bool,
    out: Path | None,
    tol: float,
    counts: Sequence[str] | None,
    weight_decay: str | None,
    feature_decay: str | None,
    bias_decay: str | None,
    logit_decay: str | None,
    **rest: Any,
) -> None:
    """Solve a problem of label distributions along its decays."""
    for option in _PHASE:
        if rest.pop(option.name) != option.default:
            raise ValueError(f"{option.name}: for phase diagrams, which are of classes")
    if counts and len(counts) > 1:
        raise ValueError(f"counts: got {len(counts)}, need one for label distributions")
    decays = _sweeps(weight_decay, feature_decay, bias_decay, logit_decay)
    first = {name: values[0] for name, values in decays.items()}
    problem, _ = asked_problem(counts=counts[0] if counts else None, **first, **rest)
    several: dict[str, Any] = {name: v for name, v in decays.items() if len(v) > 1}
    if out is None:
        watched = is_watched(silent=json)
        found = solve_path(problem, **(several or decays), tol=tol, progress=watched)
    else:
        from tightframe.sweeps.context_path import solve_into

        found = solve_into(out, problem, several or decays, tol)
    if json:
        print(format_json(found.to_dict() | {"out": out}))
    else:
        print_context_path(found, plain_console())
        if out is not None:
            plain_console().print(f"kept in {out}", highlight=False, soft_wrap=True)
    if any(solution.status == "not_converged" for solution in found.solutions):
        raise typer.Exit(NOT_CONVERGED)


def _sweeps(
    weight_decay: str | None,
    feature_decay: str | None,
    bias_decay: str | None,
    logit_decay: str | None,
    also: Sequence[str] = (),
) -> dict[str, list[Any]]:
    """Read the values of every decay; ``also``: what is missing besides."""
    from tightframe.sweeps.grid import parse_values

    texts = {"weight_decay": weight_decay, "feature_decay": feature_decay}
    if logit_decay is not None:
        for name, text in texts.items():
            if text is not None:
                raise ValueError(f"{name}: given with --lambda, which sets both decays")
        values = parse_values("lambda", logit_decay)
        decays = {"weight_decay": values, "feature_decay": values}
    else:
        require_decays(texts, also=also)
        decays = {name: parse_values(name, str(text)) for name, text in texts.items()}
    if bias_decay is not None:
        decays["bias_decay"] = parse_values("bias_decay", bias_decay)
    return decays


def _grid(
    counts: Sequence[str] | None,
    weight_decay: str | None,
    feature_decay: str | None,
    logit_decay: str | None,
    bias_decay: str | None,
    ratios: str | None,
    classes: int | None,
    majority: int | None,
    minority: int | None,
    fraction: float,
    tol: float,
    **rest: Any,
) -> Grid:
    """Make the grid that the options ask for; ``rest`` is the same in every problem."""
    from tightframe.sweeps.grid import Grid, parse_values
    from tightframe.sweeps.phase import FEATURE_WEIGHTS, step_rows

    also = ("counts",) if ratios is None and not counts else ()
    decays = _sweeps(weight_decay, feature_decay, bias_decay, logit_decay, also)
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
    for name in _OF_CLASSES:
        value = rest[name]
        of_any = value is None or (name == "feature_weights" and value in FEATURE_WEIGHTS)
        if not of_any and (real_ratios is not None or len(counts) > 1):
            raise ValueError(
                f"{name}: got {value!r}, which belongs to one --counts, not to several"
            )
    problem = Problem(counts[0], **{name: values[0] for name, values in decays.items()}, **rest)
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
