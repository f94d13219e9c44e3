"""The command explore: predictions on a web page of this computer."""

from __future__ import annotations

from tightframe.cli.options import FLAG, WHOLE, Option, with_options


@with_options(
    Option("port", WHOLE, "0: any free one.", 8050),
    Option("open_", FLAG, "Whether to open it in the browser.", True, flag="--open/--no-open"),
)
def explore(*, port: int, open_: bool) -> None:
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
