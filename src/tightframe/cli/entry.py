"""The command as a whole: its subcommands, and what becomes of an error.

Every failure is one line on stderr and an exit code, no traceback.
"""

from __future__ import annotations

import inspect
import logging
import re
import signal
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from tightframe.cli.advise import advise
from tightframe.cli.exit_codes import BAD_INPUT, INTERRUPTED, TERMINATED
from tightframe.cli.explore import explore
from tightframe.cli.measure import measure
from tightframe.cli.path import path
from tightframe.cli.report import report
from tightframe.cli.reproduce import reproduce
from tightframe.cli.run import run
from tightframe.cli.streams import writing_to_streams
from tightframe.cli.theory import certify, solve, thresholds
from tightframe.version import __version__

app = typer.Typer(
    help="Predict, measure and steer the geometry of a classifier's last layer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Predict, measure and steer the geometry of a classifier's last layer."""


def _unwrapped(text: str) -> str:
    """Return paragraphs of a docstring, a line each, which the help breaks where there is room."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")).strip()


for _command in (
    solve,
    thresholds,
    path,
    certify,
    advise,
    measure,
    run,
    reproduce,
    report,
    explore,
):
    _help, _examples = re.split(r"\n *Examples\n *-+\n", _command.__doc__ or "")
    _epilog = f"Examples:\n{inspect.cleandoc(_examples)}"
    app.command(help=_unwrapped(_help), epilog=_epilog)(_command)


def main() -> NoReturn:
    """Run the command; every failure is one line on stderr and an exit code, no traceback."""
    # SIGTERM, which batch systems send, ends the command as Ctrl-C does, with its own exit code.
    ended: list[int] = []

    def end(number: int, _: Any) -> None:
        ended.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    code = writing_to_streams(lambda: run_command(sys.argv[1:]))
    sys.exit(TERMINATED if ended and code == INTERRUPTED else code)


def run_command(arguments: list[str]) -> int:
    """Run the command with arguments and return its exit code."""
    warnings.showwarning = _show_warning
    # Matplotlib tells in sentences that it may not write into the home folder.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
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
    print("tightframe: warning: " + " ".join(str(message).split()), file=sys.stderr)
