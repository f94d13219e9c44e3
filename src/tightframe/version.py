"""The version of tightframe."""

__version__ = "0.1.0"
