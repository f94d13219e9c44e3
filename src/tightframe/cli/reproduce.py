"""The command reproduce: figures of the papers, with their verdicts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tightframe.cli.console import print_papers, print_verdicts, tasks_display
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    Jobs,
    Json,
    Scheduler,
    whole,
)
from tightframe.files import format_json


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
        Any, typer.Option(parser=whole, metavar="INTEGER", help="Added to all seeds.")
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
        Any, typer.Option(parser=whole, metavar="INTEGER", help="Processes (DDP), one a device.")
    ] = 1,
    list_: Annotated[bool, typer.Option("--list", help="List papers and figures.")] = False,
    json: Json = False,
) -> None:
    """Reproduce figures of the papers: claim, prediction, measurement and verdict side by side.

    A claim that is not reproduced is a result, not an error; failed runs give exit code 3.
    """
    from tightframe.reproduce.spec import papers

    if list_:
        print_papers(list(papers().values()), json)
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
        with tasks_display(console) as progress:
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
        print_verdicts(records, console)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    shortfalls = [sentence for record in records for sentence in record.shortfalls]
    for sentence in shortfalls:
        print(f"tightframe: {sentence}", file=sys.stderr)
    if shortfalls:
        raise typer.Exit(NOT_CONVERGED)
