"""The command reproduce: figures of the papers, with their verdicts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tightframe.cli.console import (
    plain_console,
    print_estimate,
    print_papers,
    print_verdicts,
    tasks_display,
    waiting,
)
from tightframe.cli.exit_codes import INTERRUPTED, NOT_CONVERGED
from tightframe.cli.options import (
    DATA_ROOT,
    DEVICES,
    FLAG,
    JOBS,
    JSON,
    PATH,
    SCHEDULER,
    WHOLE,
    Option,
    one_of,
    text,
    with_options,
)
from tightframe.files import format_json

if TYPE_CHECKING:
    from tightframe.reproduce.spec import Task


@with_options(
    Option("out", PATH, "Folder for results, pictures and the page.", unset="needed to run"),
    Option(
        "scale",
        one_of("smoke", "cpu", "paper"),
        "Seconds a figure; minutes; or the original settings, for a GPU.",
        "smoke",
    ),
    Option("seed", WHOLE, "Added to all seeds.", 0),
    Option(
        "device",
        one_of("cpu", "gpu", "auto"),
        "Where networks are trained.",
        unset="auto at scale paper, else cpu",
    ),
    JOBS,
    SCHEDULER,
    Option("resume", FLAG, "Go on in --out; figures can be added.", False),
    Option(
        "limit",
        text("TIME"),
        "Stop after 90s, 15m or 2h, where tasks and epochs end; --resume goes on.",
        unset="none",
    ),
    DATA_ROOT,
    Option("download", FLAG, "Fetch data sets that are nowhere.", False),
    DEVICES.but(default=1),
    Option(
        "estimate",
        FLAG,
        "Only print what time and memory the networks will take; times a step of each.",
        False,
    ),
    Option("list_", FLAG, "List papers and figures.", False, flag="--list"),
    JSON,
)
def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="PAPER[/FIGURE]|all", help="What to reproduce; see --list."),
    ] = None,
    *,
    out: Path | None,
    resume: bool,
    estimate: bool,
    list_: bool,
    json: bool,
    **asked: Any,
) -> None:
    """Reproduce figures of the papers: claim, prediction, measurement and verdict side by side.

    A claim that is not reproduced is a result, not an error; failed runs give exit code 3, a
    --limit that left something 130. At scale paper an estimate of time and memory comes first.

    Examples
    --------
        tightframe reproduce hong-ling --out hong-ling
        tightframe reproduce zhu/landscape --scale cpu --jobs 2 --out zhu
    """
    from tightframe.reproduce.spec import find_figures, papers

    if list_:
        print_papers(list(papers().values()), json)
        return
    if not names:
        raise ValueError("names: need a paper, PAPER/FIGURE or all; --list shows what there is")
    find_figures(names)  # what was typed first is judged first
    console = plain_console(stderr=json)
    if estimate:
        from tightframe.reproduce.estimate import estimate as estimated

        place = {name: asked[name] for name in ("scale", "device", "devices", "data_root")}
        found = estimated(names, **place)
        if json:
            print(format_json(found.to_dict()))
        else:
            print_estimate(found, console)
        return
    if out is None:
        raise ValueError("out: name a folder for the results")
    with waiting("loading PyTorch", silent=json):
        from tightframe.pages.reproduction import write_reproduction
        from tightframe.reproduce.folder import reproduce as run_figures
        from tightframe.reproduce.folder import reproduction_file
        from tightframe.reproduce.plots import save_figure_plot
        from tightframe.runs.writer import keeping_folders

    def estimate_first(work: dict[str, list[Task]]) -> None:
        from tightframe.reproduce.estimate import estimate_tasks

        found = estimate_tasks(
            work,
            asked["device"] or "auto",
            devices=asked["devices"],
            data_root=asked["data_root"],
        )
        if found.figures:
            print_estimate(found, console)

    try:
        with keeping_folders():
            with tasks_display(console) as progress:
                records = run_figures(
                    names,
                    out,
                    resume=resume,
                    progress=progress,
                    on_figure=save_figure_plot,
                    on_start=estimate_first if asked["scale"] == "paper" else None,
                    **asked,
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
        if any(record.finished for record in records):
            print_verdicts(records, console)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    shortfalls = [sentence for record in records for sentence in record.shortfalls]
    for sentence in shortfalls:
        print(f"tightframe: {sentence}", file=sys.stderr)
    left = [record for record in records if not record.finished]
    if left:
        tasks = ", ".join(f"{r.num_tasks - r.num_done} of {r.num_tasks} of {r.name}" for r in left)
        print(
            f"tightframe: stopped at the limit; tasks left: {tasks}; "
            "kept; go on with the same command and --resume",
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED)
    if shortfalls:
        raise typer.Exit(NOT_CONVERGED)
