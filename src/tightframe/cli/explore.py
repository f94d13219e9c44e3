"""The command explore: predictions on a web page of this computer."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tightframe.cli.options import (
    whole,
)


def explore(
    port: Annotated[
        Any, typer.Option(parser=whole, metavar="INTEGER", help="0: any free one.")
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
