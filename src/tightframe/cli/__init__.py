"""The command."""

from tightframe.cli.entry import app, main, run_command

__all__ = ["app", "main", "run_command"]
