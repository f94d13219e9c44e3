"""The pictures of a run as files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tightframe.figures.mpl import check_formats, draw, save_figures
from tightframe.runs.folder import using_record
from tightframe.runs.pictures import setting_sheets, summary_sheet
from tightframe.runs.store import RunRecord
from tightframe.runs.text_pictures import text_sheets, text_summary


def save_plots(
    run: RunRecord, folder: str | os.PathLike[str], formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write all plots, each file atomically.

    Parameters
    ----------
    run : RunRecord
    folder : path-like
        Made if need be; files in it of the same names are replaced.
    formats : sequence of {"png", "svg", "pdf"}

    Returns
    -------
    list of Path
        ``summary.png``, 1600 pixels wide, and, for every setting that was started,
        ``<setting>-<plot>.png``; likewise in the other formats.

    Raises
    ------
    ValueError
        If a format is not allowed.
    """
    target, formats = Path(folder), check_formats(formats)
    sheets, summary = setting_sheets, summary_sheet
    if run.on_text:
        sheets, summary = text_sheets, text_summary
    with using_record(run.folder, "run"):
        paths = save_figures(draw(summary(run)), target / "summary", formats, dpi=100)
        for setting in run.settings:
            if setting.prediction is None and setting.history is None:
                continue  # the summary says that it was not started
            for name, sheet in sheets(setting).items():
                paths += save_figures(draw(sheet), target / f"{setting.name}-{name}", formats)
    return paths
