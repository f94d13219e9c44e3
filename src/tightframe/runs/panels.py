"""What the pictures of all runs share: curves over epochs, levels, sheets of charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tightframe.figures.model import Block, Chart, Curve, Note, Sheet, Tick
from tightframe.figures.table import format_number
from tightframe.runs.store import SettingRecord
from tightframe.runs.tables import certified, setting_title

NOTHING = "no finite measurement"

#: Names on one axis, at most.
_MOST_TICKS = 12


def loss_charts(setting: SettingRecord) -> dict[str, Chart]:
    """Return the objective with the certified bound, and the difference on a log scale."""
    bound = (setting.prediction or {}).get("lower_bound")
    objective = history_curve(setting, "objective", "measured", "training objective")
    curves = [objective] if objective else []
    if objective and bound is not None:
        label = "certified lower bound" if certified(setting) else "lower bound (not tight)"
        curves.append(level_line(objective, "bound", label, bound))
    excess = history_curve(setting, "excess", "measured", "objective minus bound", log=True)
    left = "Distance left to the bound"
    return {
        "objective": over_epochs("Training objective", "objective", curves),
        "excess": over_epochs(left, "objective above bound", [excess] if excess else [], log=True),
    }


def over_epochs(title: str, y_label: str, curves: Sequence[Curve], *, log: bool = False) -> Chart:
    """Return a chart of what was measured over training; on a log axis from a decade on."""
    drawn = [value for curve in curves for value in curve.y if value is not None]
    single = all(len(curve.x) == 1 for curve in curves)
    return Chart(
        title,
        "epoch",
        y_label,
        curves,
        # Only from a decade on, or the axis has no labels.
        log_y=log and bool(drawn) and max(drawn) >= 10 * min(drawn),
        x_range=(0, 1 if single else None),
        whole=("x",),
        legend="inside",
        nothing=NOTHING,
    )


def history_curve(
    setting: SettingRecord,
    column: str,
    role: str,
    label: str,
    *,
    log: bool = False,
    style: str = "solid",
) -> Curve | None:
    """Return a history column as a curve; None if there is nothing of it to draw."""
    history = setting.history
    if history is None or column not in history:
        return None
    y = [value if _is_drawn(value, log) else None for value in history[column]]
    if all(value is None for value in y):
        return None
    return Curve(label, [float(x) for x in history["epoch"]], y, role, style)


def level_line(like: Curve, role: str, label: str, value: float | None) -> Curve:
    """Return a horizontal line as wide as a curve."""
    return Curve(label, [like.x[0], like.x[-1]], [value, value], role, "dashed")


def _is_drawn(value: float | None, positive: bool) -> bool:
    return value is not None and math.isfinite(value) and (value > 0 or not positive)


def with_end_values(chart: Chart) -> Chart:
    """Write the last value of every curve at its end."""
    notes = [
        Note(curve.x[-1], last, format_number(last, 2), curve.color)
        for curve in chart.curves
        if (last := curve.y[-1]) is not None
    ]
    return replace(chart, notes=notes)


def chart_sheet(
    setting: SettingRecord, what: str, charts: Mapping[str, Chart], columns: int
) -> Sheet:
    """Return charts of a setting as one picture."""
    panels = list(charts.values()) or [Chart("", "", "", [], nothing=NOTHING)]
    columns = min(len(panels), columns)
    return Sheet(sheet_title(setting, what), [Block(panels, columns, 3.0)], 4.75 * columns)


def sheet_title(setting: SettingRecord, what: str) -> str:
    """Return the title of a picture: what it shows, and of which setting."""
    return f"{what[0].upper()}{what[1:]}\n{setting_line(setting)}"


def setting_line(setting: SettingRecord, states: str = "") -> str:
    """Return a setting's title, perhaps with its states, and whether it is unfinished."""
    text = ": ".join(part for part in (setting_title(setting), states) if part)
    return text if setting.finished else f"{text} [unfinished]"


def thinned(ticks: list[Tick], most: int = _MOST_TICKS) -> list[Tick]:
    """Return ticks of which an axis has room for all, evenly chosen."""
    return ticks[:: -(-len(ticks) // most)] if ticks else ticks
