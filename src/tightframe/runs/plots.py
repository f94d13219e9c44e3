"""Matplotlib plots of a run, without pyplot and its global state."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator, NullLocator

from tightframe.figures.mpl import (
    check_formats,
    empty_axis,
    label_axis,
    new_figure,
    save_figures,
    style_axis,
)
from tightframe.figures.style import COLORS, DIVERGING, LIGHT
from tightframe.runs.pictures import (
    HeatMap,
    Panel,
    collapse_panels,
    distance_panels,
    heat_maps,
    loss_panels,
    margin_panels,
)
from tightframe.runs.store import RunRecord, SettingRecord
from tightframe.runs.tables import (
    format_number,
    predicted_groups,
    predicted_states,
    setting_title,
)

_DIVERGING = LinearSegmentedColormap.from_list("tightframe", DIVERGING)
_NOTHING = "no finite measurement"


def loss_figure(setting: SettingRecord) -> Figure:
    """Draw the training objective falling onto the certified lower bound."""
    return _figure(setting, "training objective and certified bound", loss_panels(setting), 2)


def distance_figure(setting: SettingRecord) -> Figure:
    """Draw the distances to the predicted geometry (solid) and to the ETF (dashed)."""
    return _figure(
        setting, "distance to the prediction and to the ETF", distance_panels(setting), 2
    )


def collapse_figure(setting: SettingRecord) -> Figure:
    """Draw the collapse metrics over training."""
    return _figure(setting, "collapse metrics", collapse_panels(setting), 3)


def margin_figure(setting: SettingRecord) -> Figure:
    """Draw the measured margin of every class group and the predicted one as a level."""
    return _figure(setting, "margins inside the class groups", margin_panels(setting), 2)


def logits_figure(setting: SettingRecord) -> Figure:
    """Draw predicted and measured mean logits and their difference, on one diverging scale."""
    figure = new_figure(13.0, 4.6)
    _title(figure, setting, "mean logits")
    maps = heat_maps(setting)
    if not maps:
        empty_axis(figure.subplots(), "no prediction yet")
        return figure
    axes = figure.subplots(1, 3)
    for axis, heat in zip(axes, maps, strict=True):
        _draw_heat_map(axis, heat)
    _colorbar(figure, list(axes), maps[0])
    return figure


def summary_figure(run: RunRecord) -> Figure:
    """Draw every setting in one row: loss, distances, predicted and measured logits.

    At the default resolution of `save_plots` the picture is 1600 pixels wide or a little more.
    """
    rows = max(len(run.settings), 1)
    figure = new_figure(16.0, 0.5 + 3.75 * rows)
    parts = figure.subfigures(rows, 1, squeeze=False)[:, 0]
    for part, setting in zip(parts, run.settings, strict=False):
        few = 0 < len(predicted_groups(setting)) <= 3
        states = f"predicted {predicted_states(setting)}" if few else ""
        part.suptitle(
            _setting_line(setting, states), fontsize=12.5, color=LIGHT.text, fontweight="bold"
        )
        axes = part.subplots(1, 4, width_ratios=[1.25, 1.25, 1, 1])
        objective, excess = loss_panels(setting)
        _draw_panel(axes[0], objective if excess.empty else excess, end_values=True)
        label_axis(axes[0], "Objective falls onto the certified bound")
        _draw_panel(axes[1], distance_panels(setting)[0], end_values=True)
        label_axis(axes[1], "Logits: distance to prediction and ETF")
        maps = heat_maps(setting)
        for axis, heat in zip(axes[2:], maps, strict=False):
            _draw_heat_map(axis, heat)
        if maps:
            _colorbar(part, list(axes[2:]), maps[0])
        else:
            for axis in axes[2:]:
                empty_axis(axis, "no prediction yet")
    return figure


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
        ``summary.png`` and, for every setting that was started, ``<setting>-<plot>.png``; likewise
        in the other formats.

    Raises
    ------
    ValueError
        If a format is not allowed.
    """
    target, formats = Path(folder), check_formats(formats)
    paths = save_figures(summary_figure(run), target / "summary", formats, dpi=100)
    for setting in run.settings:
        if setting.prediction is None and setting.history is None:
            continue  # the summary says that it was not started
        for name, draw in _FIGURES.items():
            paths += save_figures(draw(setting), target / f"{setting.name}-{name}", formats)
    return paths


_FIGURES: dict[str, Callable[[SettingRecord], Figure]] = {
    "loss": loss_figure,
    "distance": distance_figure,
    "margin": margin_figure,
    "collapse": collapse_figure,
    "logits": logits_figure,
}


# -- drawing ---------------------------------------------------------------------------------------


def _title(figure: Figure, setting: SettingRecord, what: str) -> None:
    text = f"{what[0].upper()}{what[1:]}\n{_setting_line(setting)}"
    figure.suptitle(text, fontsize=12, color=LIGHT.text)


def _setting_line(setting: SettingRecord, more: str = "") -> str:
    text = f"{setting_title(setting)}: {more}" if more else setting_title(setting)
    return text if setting.finished else f"{text} [unfinished]"


def _figure(
    setting: SettingRecord, what: str, panels: Sequence[Panel], most_columns: int
) -> Figure:
    """Draw panels in a grid."""
    columns = max(min(len(panels), most_columns), 1)
    rows = max(-(-len(panels) // columns), 1)
    # Room in inches for titles and labels, by hand: a layout engine doubles the time of a plot.
    gap, left, right, bottom, top = 0.85, 0.85, 0.2, 0.6, 0.95
    wide, high = 3.75, 2.2
    width = left + columns * wide + (columns - 1) * gap + right
    height = bottom + rows * high + (rows - 1) * gap + top
    figure = new_figure(width, height, layout=False)
    room = {
        "left": left / width,
        "right": 1 - right / width,
        "bottom": bottom / height,
        "top": 1 - top / height,
        "wspace": gap / wide,
        "hspace": gap / high,
    }
    _title(figure, setting, what)
    axes = list(figure.subplots(rows, columns, squeeze=False, gridspec_kw=room).flat)
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if not panels:
        empty_axis(axes[0], _NOTHING)
    return figure


def _draw_panel(axis: Axes, panel: Panel, *, end_values: bool = False) -> None:
    label_axis(axis, panel.title, panel.x_label, panel.y_label)
    if panel.empty:
        empty_axis(axis, _NOTHING)
        return
    style_axis(axis)
    for line in panel.lines:
        axis.plot(
            line.x,
            [float("nan") if value is None else value for value in line.y],
            label=line.label,
            color=COLORS[line.role],
            linestyle="none" if line.markers else "--" if line.dashed else "-",
            linewidth=2.0,
            marker=_marker(line.role) if line.markers or len(line.y) == 1 else None,
            markersize=8,
            fillstyle="none" if line.role == "predicted" else "full",
        )
        if end_values and line.y[-1] is not None:
            axis.annotate(
                format_number(line.y[-1], 2),
                (line.x[-1], line.y[-1]),
                xytext=(0, 7),
                textcoords="offset points",
                ha="right",
                fontsize=10,
                fontweight="bold",
                color=COLORS[line.role],
                bbox={"facecolor": LIGHT.paper, "edgecolor": "none", "alpha": 0.6, "pad": 0},
            )
    if panel.log_y:
        axis.set_yscale("log")
        # A panel spans a decade at least; laying out the minor ticks takes a third of the time.
        axis.yaxis.set_minor_locator(NullLocator())
    if panel.ticks is None:
        axis.set_xlim(0, None if len(panel.lines[0].x) > 1 else 1)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    else:
        axis.set_xticks([x for x, _ in panel.ticks], [text for _, text in panel.ticks])
    axis.legend(fontsize=9, frameon=False, labelcolor=LIGHT.text)


def _marker(role: str) -> str:
    return "s" if role == "predicted" else "o"


def _draw_heat_map(axis: Axes, heat: HeatMap) -> None:
    label_axis(axis, heat.title, "class of the samples", "logit of class")
    if heat.values is None:
        empty_axis(axis, _NOTHING)
        return
    norm = Normalize(-heat.limit, heat.limit)
    axis.imshow(heat.values, cmap=_DIVERGING, norm=norm, interpolation="nearest")
    places, names = [x for x, _ in heat.ticks], [text for _, text in heat.ticks]
    axis.set_xticks(places, names, rotation=90 if len(names) > 4 else 0)
    axis.set_yticks(places, names, rotation=0 if len(names) > 4 else 90, va="center")
    axis.tick_params(length=0, labelsize=9, colors=LIGHT.muted)
    for border in heat.borders if len(heat.borders) <= len(heat.classes) // 2 else []:
        axis.axhline(border, color=LIGHT.muted, linewidth=0.8)
        axis.axvline(border, color=LIGHT.muted, linewidth=0.8)
    for spine in axis.spines.values():
        spine.set_color(LIGHT.grid)


def _colorbar(figure: Figure | SubFigure, axes: list[Axes], heat: HeatMap) -> None:
    norm = Normalize(-heat.limit, heat.limit)
    bar = figure.colorbar(ScalarMappable(norm, _DIVERGING), ax=axes, shrink=0.85, aspect=25)
    bar.set_label("logit", fontsize=9.5, color=LIGHT.muted)
    bar.ax.tick_params(labelsize=9, colors=LIGHT.muted)
    bar.outline.set_edgecolor(LIGHT.grid)
