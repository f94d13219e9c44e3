"""Plots, tables and self-contained HTML pages of runs, reproductions and other people's trainings.

Wheels and merge trees are drawn here too.

`tightframe.runs.tables` needs neither Matplotlib nor Plotly, because the command line prints its
tables; so the functions here are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightframe.lazy import handed_on
from tightframe.progress import loading

if TYPE_CHECKING:
    from tightframe.pages.reproduction import write_reproduction
    from tightframe.pages.run import write_report
    from tightframe.pages.tables import write_tables
    from tightframe.pages.training import write_training
    from tightframe.reproduce.plots import save_reproduction_plots
    from tightframe.runs.plots import save_plots
    from tightframe.runs.wheels import merge_tree, wheel
    from tightframe.sweeps.plots import save_grid_plots

__all__ = [
    "merge_tree",
    "save_grid_plots",
    "save_plots",
    "save_reproduction_plots",
    "wheel",
    "write_report",
    "write_reproduction",
    "write_tables",
    "write_training",
]

__getattr__ = handed_on(
    __name__,
    {
        "tightframe.pages.tables": ("write_tables",),
        "tightframe.pages.reproduction": ("write_reproduction",),
        "tightframe.pages.run": ("write_report",),
        "tightframe.pages.training": ("write_training",),
        "tightframe.reproduce.plots": ("save_reproduction_plots",),
        "tightframe.runs.plots": ("save_plots",),
        "tightframe.runs.wheels": ("merge_tree", "wheel"),
        "tightframe.sweeps.plots": ("save_grid_plots",),
    },
    around=loading,
)
