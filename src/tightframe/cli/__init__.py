"""The command."""

from tightframe.cli.commands import app, main, run_command

__all__ = ["app", "main", "run_command"]
