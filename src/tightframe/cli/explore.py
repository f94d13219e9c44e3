"""The command explore: predictions on a web page of this computer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tightframe.cli.console import waiting
from tightframe.cli.options import (
    ARRAYS,
    CLASS_NAMES,
    FLAG,
    NETWORK,
    WHOLE,
    Option,
    about,
    with_options,
)


@with_options(
    Option("port", WHOLE, "0: any free one.", 8050),
    Option("open_", FLAG, "Whether to open it in the browser.", True, flag="--open/--no-open"),
    *(option for option in NETWORK if option.name != "held_out"),
    CLASS_NAMES,
)
def explore(
    file: Annotated[
        Path | None,
        typer.Argument(help="A trained network, as for 'measure', to lay over the prediction."),
    ] = None,
    *,
    port: int,
    open_: bool,
    **reading: Any,
) -> None:
    """Show predictions on a web page of this computer (127.0.0.1) until Ctrl-C.

    Counts, decays, loss, bias, features and depth as controls; a features file can be laid over.

    Examples
    --------
        tightframe explore
        tightframe explore features.npz --port 8051
    """
    try:
        with waiting("loading PyTorch"):
            from tightframe.pages.explore.server import serve
            from tightframe.pages.explore.upload import measure_file
            from tightframe.runs.store import trained_setting
    except ImportError as error:
        raise ValueError(
            f"{error.name}: not installed; pip install 'tightframe[explore]'"
        ) from None

    opened = problem = None
    if file is not None:
        with about(file, ARRAYS):
            opened = measure_file(file, str(file), limit=None, **reading)
            if file.is_dir():  # a run knows its decays
                problem = trained_setting(file, reading["setting"]).problem
    serve(port, open_, opened, problem)
