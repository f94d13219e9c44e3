"""Plots, tables and self-contained HTML pages of runs and reproductions; plots of a grid.

`tightframe.report.summary` needs neither Matplotlib nor Plotly, because the command line prints its
tables; so the functions here are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tightframe.report.html import write_report
    from tightframe.report.latex import write_tables
    from tightframe.report.path_plots import save_grid_plots
    from tightframe.report.plots import save_plots
    from tightframe.report.reproduction import write_reproduction
    from tightframe.report.reproduction_plots import save_reproduction_plots

__all__ = [
    "save_grid_plots",
    "save_plots",
    "save_reproduction_plots",
    "write_report",
    "write_reproduction",
    "write_tables",
]

_HOMES = {
    "save_grid_plots": "path_plots",
    "save_plots": "plots",
    "save_reproduction_plots": "reproduction_plots",
    "write_report": "html",
    "write_reproduction": "reproduction",
    "write_tables": "latex",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
