"""Standard output and error: what cannot be written is never lost in silence.

Click and Rich turn a broken pipe into exit code 1, and Python drops what it cannot flush at its
end. Here every failed write is an error that neither of them knows.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable

from tightframe.cli.exit_codes import BAD_INPUT, BROKEN_PIPE


class _LostError(Exception):
    """What was written has not arrived."""


class _Checked(io.FileIO):
    """A file descriptor whose failed writes are a `_LostError`."""

    def write(self, data: object) -> int:
        """Write, as `io.FileIO.write`."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            raise _LostError(self.fileno(), error) from error


def writing_to_streams(command: Callable[[], int]) -> int:
    """Run a command with checked streams and return its exit code, or that of a failed write.

    A reader that leaves, as ``head`` does, ends the command with `BROKEN_PIPE` and without a word,
    like the system's own commands. Without a standard output nothing is begun.
    """
    if sys.stderr is None:  # `print` would write to standard output instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # to the very end
    if sys.stdout is None:
        print(
            "tightframe: standard output is closed; send it to /dev/null if it is not wanted",
            file=sys.stderr,
        )
        return BAD_INPUT
    sys.stdout, sys.stderr = _checked(sys.stdout), _checked(sys.stderr)
    try:
        code = command()
        sys.stdout.flush()
        sys.stderr.flush()
    except _LostError as lost:
        descriptor, error = lost.args
        _discard_the_rest()
        if error.errno == errno.EPIPE:
            return BROKEN_PIPE
        if descriptor == 1:
            print(f"tightframe: standard output: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    return code


def _checked(stream: object) -> io.TextIOWrapper:
    """Return a stream that writes to the same place, of one that Python opened."""
    if not (isinstance(stream, io.TextIOWrapper) and type(_raw(stream)) is io.FileIO):
        return stream  # type: ignore[return-value]  # a notebook's, or a Windows console
    return io.TextIOWrapper(
        io.BufferedWriter(_Checked(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors="replace",  # a terminal without Greek letters is no failure
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _raw(stream: io.TextIOWrapper) -> object:
    return getattr(stream.buffer, "raw", stream.buffer)  # with python -u it has no buffer


def _discard_the_rest() -> None:
    """Send what is still buffered for a lost stream nowhere, before Python tries again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except _LostError as lost:
            os.dup2(nowhere, lost.args[0])
            stream.flush()
    os.close(nowhere)
