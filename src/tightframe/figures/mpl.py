"""The Matplotlib backend: draws every panel of `figures.model`, without pyplot's global state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, LogNorm, Normalize, to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from tightframe.checks import choice
from tightframe.figures import style
from tightframe.figures.diagrams import MergeTree, Wheel
from tightframe.figures.fonts import fit_fonts, told_before
from tightframe.figures.model import (
    Area,
    Block,
    Cells,
    Chart,
    Curve,
    HeatMaps,
    Mark,
    Mesh,
    Panel,
    Sheet,
    Stack,
    Table,
    band,
    drawn,
    has_points,
)
from tightframe.figures.mpl_axes import (
    MARKERS,
    empty_axis,
    label_axis,
    plain,
    style_axis,
    wrapped,
)
from tightframe.figures.mpl_diagrams import draw_tree, draw_wheel
from tightframe.figures.notebook import Drawn, Picture
from tightframe.figures.style import LIGHT, Ink, color_of, log_ticks
from tightframe.files import replacing

_DPI = 150

#: What a picture can be written as, and what keeps the date and the release out of each: the same
#: record gives the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(_METADATA)

_DIVERGING = LinearSegmentedColormap.from_list("tightframe", style.DIVERGING)
_SEQUENTIAL = LinearSegmentedColormap.from_list("cividis", style.SEQUENTIAL)
_SHADES = ListedColormap([style.shade_of(i / 255) for i in range(256)])

_DASHES = {"solid": "-", "dashed": "--", "dotted": ":", "dashdot": "-."}
#: At most so many rows are in a drawn table, and so many letters side by side in a legend.
_TABLE_ROWS = 24
_LEGEND_LETTERS = 15  # an inch

#: More letters than this below an axis would run into each other unless they are turned.
_LETTERS_BELOW = 50


# -- whole pictures --------------------------------------------------------------------------------


def draw(sheet: Sheet, ink: Ink = LIGHT) -> Figure:
    """Return a picture as a Matplotlib figure."""
    figure = new_figure(sheet.width, sheet.height, ink=ink)
    if sheet.title:
        title = wrapped(plain(sheet.title), sheet.width, style.SHEET_TITLE)
        figure.suptitle(title, fontsize=style.SHEET_TITLE, color=ink.text)
    blocks = sheet.blocks
    if len(blocks) == 1 and not blocks[0].title:
        _draw_block(figure, blocks[0], sheet.width, ink)
        fit_fonts(figure)
        return figure
    heights = [_rows(block) * block.height + 0.3 * bool(block.title) for block in blocks]
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, block in zip(parts, blocks, strict=True):
        part.set_facecolor(ink.paper)
        if block.title:
            part.suptitle(
                wrapped(plain(block.title), sheet.width, style.TITLE + 1), color=ink.text,
                fontsize=style.TITLE + 0.5, weight="bold",
                x=0.01, ha="left",
            )  # fmt: skip
        _draw_block(part, block, sheet.width, ink)
    fit_fonts(figure)
    return figure


def drawn_sheet(sheet: Sheet) -> Drawn:
    """Return a picture as its figure and a list of its axes."""
    figure = draw(sheet)
    return Drawn(figure, figure.axes)


def plot(panel: Panel, ax: Axes | None = None, ink: Ink = LIGHT) -> Drawn:
    """Draw a panel with one pair of axes into given ones, or into a figure of its own.

    Parameters
    ----------
    panel : Panel
        A `Chart`, a `Wheel`, a `MergeTree`, a `Table`, or `HeatMaps` of one matrix.
    ax : matplotlib.axes.Axes, optional
    ink : Ink

    Returns
    -------
    fig, ax

    Raises
    ------
    ValueError
        If the panel needs more than one pair of axes.
    """
    if isinstance(panel, Stack) or (isinstance(panel, HeatMaps) and len(panel.maps) != 1):
        raise ValueError(f"panel: got a {type(panel).__name__}, which needs axes of its own")
    size = (6.0, 4.2)
    if isinstance(panel, Wheel):
        size = (5.0, 5.2)
    elif isinstance(panel, MergeTree):
        size = (8.6, 1.6 + (panel.height + panel.top) / 110)
    axis = new_figure(*size, ink=ink).subplots() if ax is None else ax
    if isinstance(panel, HeatMaps):
        _draw_map(axis, panel, 0, ink, lowest=True, leftmost=True)
        _colorbar([axis], panel, ink)
    elif isinstance(panel, Table):
        _draw_table(axis, panel, ink)
    elif isinstance(panel, Wheel):
        draw_wheel(axis, panel, ink)
    elif isinstance(panel, MergeTree):
        draw_tree(axis, panel, ink)
    else:
        _draw_chart(axis, panel, ink)
        _draw_shades([axis], panel, ink)
    fit_fonts(axis)
    return Drawn(axis.figure, axis)


def new_figure(width: float, height: float, *, ink: Ink = LIGHT) -> Figure:
    """Return an empty figure of a size in inches."""
    engine = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)
    figure = Picture(figsize=(width, height), layout=engine, facecolor=ink.paper)
    FigureCanvasAgg(figure)
    return figure


def pixels(figure: Figure, dpi: int = 120) -> NDArray[np.uint8]:
    """Return a figure as an image, shape (height, width, 3)."""
    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)
    with told_before():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: Figure, path: Path, dpi: int = _DPI) -> Path:
    """Write a figure as its path's ending says, atomically; return the path."""
    ending = path.suffix[1:]
    with (
        replacing(path) as temporary,
        # Letters stay letters, and names in an SVG do not change from run to run.
        mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tightframe", "pdf.fonttype": 42}),
        told_before(),
    ):
        figure.savefig(temporary, format=ending, dpi=dpi, metadata=_METADATA[ending])
    return path


def save_figures(
    figure: Figure, path: Path, formats: Sequence[str] = FORMATS[:1], dpi: int = _DPI
) -> list[Path]:
    """Write a figure under one name in several `FORMATS`; return the paths."""
    return [save_figure(figure, path.with_name(f"{path.name}.{end}"), dpi) for end in formats]


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return formats once each, or raise a ValueError that names what is allowed."""
    for ending in formats:
        choice("formats", ending, FORMATS)
    return tuple(dict.fromkeys(formats))


def _rows(block: Block) -> int:
    return max(-(-len(block.cells) // block.columns), 1)


def _draw_block(part: Figure | SubFigure, block: Block, width: float, ink: Ink) -> None:
    rows, columns = _rows(block), block.columns
    grid = part.add_gridspec(rows, columns, width_ratios=block.widths or [1] * columns)
    maps: dict[int, list[Axes]] = {}
    for place, (panel, i) in enumerate(block.cells):
        row, column = divmod(place, columns)
        spec = grid[row, column]
        if isinstance(panel, Stack):
            _draw_stack(part, spec, panel, ink)
        elif isinstance(panel, HeatMaps):
            axis = part.add_subplot(spec)
            # Once a row and a column is enough where the classes have no names.
            lowest = bool(panel.ticks) or place + columns >= len(block.cells)
            leftmost = bool(panel.ticks) or i == 0 or column == 0
            _draw_map(axis, panel, i, ink, lowest=lowest, leftmost=leftmost)
            maps.setdefault(id(panel), []).append(axis)
        elif isinstance(panel, Table):
            _draw_table(part.add_subplot(spec), panel, ink)
        elif isinstance(panel, Wheel):
            draw_wheel(part.add_subplot(spec), panel, ink)
        elif isinstance(panel, MergeTree):
            draw_tree(part.add_subplot(spec), panel, ink)
        else:
            axis = part.add_subplot(spec)
            _draw_chart(axis, panel, ink, width / columns)
            _draw_shades([axis], panel, ink)
    for panel in block.panels:
        if isinstance(panel, HeatMaps) and not panel.empty:
            _colorbar(maps[id(panel)], panel, ink)


# -- charts ----------------------------------------------------------------------------------------


def _draw_chart(axis: Axes, chart: Chart, ink: Ink, width: float = 5.0) -> None:
    """Draw a chart; its width in inches says how many entries of a legend stand side by side."""
    label_axis(axis, chart.title, chart.x_label, chart.y_label, ink)
    if chart.empty:
        empty_axis(axis, chart.nothing, ink)
        return
    style_axis(axis, ink)
    if chart.log_x:
        axis.set_xscale("log")
    if chart.log_y:
        axis.set_yscale("log")
    handles: list[Any] = []
    if chart.cells is not None:
        handles += _draw_cells(axis, chart, chart.cells, ink)
    if chart.mesh is not None:
        _draw_mesh(axis, chart.mesh, ink)
    for area in chart.areas:
        handles.append(_draw_area(axis, area, ink))
    for bars in chart.bars:
        draw_bars = axis.barh if bars.across else axis.bar
        values = [math.nan if value is None else value for value in bars.values]
        look: dict[str, Any] = {"facecolor": color_of(bars.color, ink), "edgecolor": ink.paper}
        look["hatch"] = "///" if bars.hatched else None
        draw_bars(bars.places, values, bars.width, label=plain(bars.label), **look)
        handles.append(Patch(label=plain(bars.label), **look))
    for curve in chart.curves:
        handle = _draw_curve(axis, chart, curve, ink)
        if handle is not None and curve.label and curve.shade is None:
            handles.append(handle)
    handles += _draw_marks(axis, chart, chart.marks, ink)
    if chart.hollow_label and any(any(drawn(chart, c)[2]) for c in chart.curves):
        handles.append(
            _entry(chart.hollow_label, ink, marker="o", linestyle="none", fillstyle="none")
        )
    for note in chart.notes:
        axis.annotate(
            plain(note.text),
            (note.x, note.y),
            xytext=(0, 7),
            textcoords="offset points",
            ha="right",
            fontsize=10,
            fontweight="bold",
            color=color_of(note.color, ink),
            bbox={"facecolor": ink.paper, "edgecolor": "none", "alpha": 0.6, "pad": 0},
        )
    _set_scales(axis, chart)
    _draw_legend(axis, chart, handles, ink, width)


def _draw_shades(axes: list[Axes], chart: Chart, ink: Ink) -> None:
    """Draw the scale of a chart's shades beside all axes of its stack."""
    if chart.shades is not None and not chart.empty:
        norm = LogNorm(*chart.shades.ends)
        mapped = ScalarMappable(norm, _SHADES)
        _scale(axes, mapped, chart.shades.label, ink, written_out=True)


def _draw_curve(axis: Axes, chart: Chart, curve: Curve, ink: Ink) -> Line2D | None:
    """Draw a curve and return its entry in the legend."""
    places, y, hollow = drawn(chart, curve)
    if all(value is None for value in y):
        return None
    x, values = (np.array(part, dtype=np.float64) for part in (places, y))  # None is NaN
    color = _color(chart, curve, ink)
    marked = has_points(curve, y)
    line: dict[str, Any] = {
        "color": color,
        "linestyle": _DASHES[curve.dash] if curve.has_line else "none",
        "linewidth": style.LINE * curve.width,
    }
    if curve.style == "steps":
        line["drawstyle"] = "steps-mid"
    if curve.seam:
        # A seam, so that the line is seen on dark colours.
        line["path_effects"] = [withStroke(linewidth=4 * curve.width, foreground=ink.paper)]
    point: dict[str, Any] = {
        "marker": MARKERS[curve.marker],
        "markersize": style.POINT * curve.size,
        "fillstyle": {"half": "left"}.get(curve.marker, "full"),
    }
    entry = _entry(curve.label, ink, **line, **(point if marked else {}))
    if isinstance(curve.hollow, bool):
        if curve.hollow:
            point["fillstyle"] = "none"
            entry.set_fillstyle("none")
        axis.plot(x, values, label=plain(curve.label) or None, **line, **(point if marked else {}))
    else:
        axis.plot(x, values, label=plain(curve.label) or None, **line)
        point |= {"color": color, "linestyle": "none"}
        axis.plot(x, np.where(hollow, math.nan, values), **point)
        # Not cut off at the edge, where points that vanished lie.
        axis.plot(
            x, np.where(hollow, values, math.nan), zorder=3, clip_on=False,
            **(point | {"fillstyle": "none"}),
        )  # fmt: skip
    ends = band(chart, curve)
    if ends:
        across, low, high = zip(*ends, strict=True)
        axis.fill_between(across, low, high, color=color, alpha=0.18, linewidth=0)
    return entry


def _color(chart: Chart, part: Curve | Mark, ink: Ink) -> Any:
    if part.shade is None or chart.shades is None:
        return color_of(part.color, ink)
    return to_rgba(style.shade_of(chart.shades.fraction(part.shade)))


def _entry(label: str, ink: Ink, **look: Any) -> Line2D:
    return Line2D([], [], label=plain(label), **({"color": ink.muted} | look))


def _draw_marks(axis: Axes, chart: Chart, marks: Sequence[Mark], ink: Ink) -> list[Line2D]:
    """Draw marks with the labels that stand along them; return the others' entries."""
    entries: dict[tuple[str, str], Line2D] = {}
    for mark in marks:
        upright = mark.axis == "x"
        color = _color(chart, mark, ink)
        along = axis.get_xaxis_transform() if upright else axis.get_yaxis_transform()
        look: dict[str, Any] = {"marker": "^" if upright else ">", "linestyle": "none"}
        if mark.style == "triangle":
            place = ([mark.value], [0]) if upright else ([0], [mark.value])
            axis.plot(*place, transform=along, color=color, clip_on=False, zorder=4, **look)
        else:
            look = {"linestyle": _DASHES[mark.style], "linewidth": 1.4}
            (axis.axvline if upright else axis.axhline)(mark.value, color=color, **look)
        if mark.label and mark.in_legend:
            entries.setdefault((mark.label, mark.style), _entry(mark.label, ink, **look))
        elif mark.label:
            axis.annotate(
                plain(mark.label),
                (mark.value, 0.97) if upright else (0.99, mark.value),
                xycoords=along,
                xytext=(-3, 0) if upright else (0, 3),
                textcoords="offset points",
                rotation=90 if upright else 0,
                ha="right",
                va="top" if upright else "bottom",
                fontsize=style.SMALL,
                color=color,
            )
    return list(entries.values())


def _draw_cells(axis: Axes, chart: Chart, cells: Cells, ink: Ink) -> list[Patch]:
    """Draw coloured cells with their scale; return the legend's entries of those without value."""
    edges = _edges(cells.x, chart.log_x), _edges(cells.y, chart.log_y)
    values = np.ma.masked_invalid(np.array(cells.values, dtype=np.float64))
    mesh = axis.pcolormesh(*edges, values, cmap=_SEQUENTIAL, norm=Normalize(*cells.limits))
    entries = []
    for state in cells.shown_states:
        own = np.ma.masked_where(np.array(cells.states) != state, np.zeros(values.shape))
        area, hatch = style.area_of(state, ink), style.STATES[state].hatch
        look: dict[str, Any] = {"hatch": hatch, "edgecolor": color_of(state, ink), "linewidth": 0.0}
        axis.pcolor(*edges, own, cmap=ListedColormap([area]), **look)
        entries.append(Patch(facecolor=area, label=state, **look))
    if cells.missing and cells.missing_label:
        entries.append(Patch(facecolor=ink.paper, edgecolor=ink.muted, label=cells.missing_label))
    axis.set_xlim(edges[0][0], edges[0][-1])
    axis.set_ylim(edges[1][0], edges[1][-1])
    axis.grid(False)
    _scale(axis, mesh, cells.label, ink)
    return entries


def _draw_mesh(axis: Axes, mesh: Mesh, ink: Ink) -> None:
    """Draw shades between the nodes, with contours and their scale."""
    y, values = np.array(mesh.y), np.array(mesh.values)
    x = np.broadcast_to(np.array(mesh.x)[:, None], y.shape)
    colors = LinearSegmentedColormap.from_list("margins", list(style.margin_colors(ink)))
    norm = Normalize(mesh.bottom, mesh.top)
    # Thousands of triangles with shades of their own: as an image in vector formats.
    shades = axis.pcolormesh(
        x, y, values, shading="gouraud", cmap=colors, norm=norm, rasterized=True
    )
    if mesh.levels:
        lines = axis.contour(x, y, values, levels=mesh.levels, colors=ink.paper, linewidths=0.8)
        axis.clabel(lines, fontsize=style.SMALL, fmt="%g")
    axis.grid(False)
    _scale(axis, shades, mesh.label, ink)


def _draw_area(axis: Axes, area: Area, ink: Ink) -> Patch:
    """Draw a state's area and return its entry in the legend."""
    look: dict[str, Any] = {"facecolor": style.whole_area(ink), "linewidth": 0.0}
    if not area.whole:
        hatch, color = style.STATES[area.state].hatch, color_of(area.state, ink)
        look |= {"facecolor": style.area_of(area.state, ink), "hatch": hatch, "edgecolor": color}
    axis.fill_between(area.x, area.low, area.high, label=plain(area.label), **look)
    return Patch(label=plain(area.label), **look)


def _edges(middles: Sequence[float], log: bool) -> list[float]:
    """Return the borders of cells around their middles."""
    places = np.log(middles) if log else np.asarray(middles)
    if len(places) == 1:
        half = 0.05 if log else 0.5
        edges = np.array([places[0] - half, places[0] + half])
    else:
        between = (places[1:] + places[:-1]) / 2
        edges = np.r_[2 * places[0] - between[0], between, 2 * places[-1] - between[-1]]
    return (np.exp(edges) if log else edges).tolist()  # type: ignore[no-any-return]


def _scale(
    axis: Axes | list[Axes], mapped: Any, label: str, ink: Ink, *, written_out: bool = False
) -> None:
    """Draw a scale of colours beside axes."""
    first = axis[0] if isinstance(axis, list) else axis
    figure = first.get_figure(root=False)
    assert figure is not None
    bar = figure.colorbar(mapped, ax=axis, aspect=28, shrink=0.9, pad=0.02)
    bar.set_label(label, fontsize=style.LABEL, color=ink.muted)
    bar.ax.tick_params(which="both", labelsize=style.TICK, colors=ink.muted)
    bar.outline.set_edgecolor(ink.grid)  # type: ignore[operator,unused-ignore]
    if written_out:
        _set_log_ticks(bar.ax.yaxis, *bar.ax.get_ylim())


def _set_scales(axis: Axes, chart: Chart) -> None:
    """Set limits and ticks; after everything is drawn, since they may depend on it."""
    for name, ticks, limits, log in (
        ("x", chart.x_ticks, chart.x_range, chart.log_x),
        ("y", chart.y_ticks, chart.y_range, chart.log_y),
    ):
        own: Any = getattr(axis, f"{name}axis")
        if any(end is not None for end in limits):
            getattr(axis, f"set_{name}lim")(*limits)
        if ticks is not None:
            own.set_ticks([place for place, _ in ticks], [plain(text) for _, text in ticks])
            own.set_minor_locator(NullLocator())
            if name == "x" and max((len(text) for _, text in ticks), default=0) > 6:
                crowded = len(ticks) > 6 and sum(len(text) for _, text in ticks) > _LETTERS_BELOW
                own.set_tick_params(rotation=90 if crowded else 20)
                for label in own.get_ticklabels():
                    label.set_horizontalalignment("center" if crowded else "right")
        elif log:
            _set_log_ticks(own, *getattr(axis, f"get_{name}lim")())
        elif name in chart.whole:
            own.set_major_locator(MaxNLocator(5, integer=True))
    if chart.downwards:
        axis.invert_yaxis()


def _set_log_ticks(own: Any, low: float, high: float) -> None:
    # Matplotlib would label none or too many, and lay out minor ticks for a third of the time.
    own.set_minor_locator(NullLocator())
    places = log_ticks(low, high)
    if places is not None:
        own.set_major_locator(FixedLocator(places))
        own.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.12g}"))


def _draw_legend(axis: Axes, chart: Chart, handles: Sequence[Any], ink: Ink, width: float) -> None:
    if not handles or chart.legend == "none":
        return
    look: dict[str, Any] = {"handles": handles, "labelcolor": ink.text, "fontsize": style.LEGEND}
    if chart.legend == "inside":
        axis.legend(facecolor=ink.paper, edgecolor="none", framealpha=0.8, **look)
        return
    # Below the axes it can cover neither data nor marks.
    figure = axis.get_figure()
    assert figure is not None
    down = ScaledTranslation(0, -0.5 if chart.x_label else -0.28, figure.dpi_scale_trans)
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axis.transAxes + down,
        ncols=legend_columns([handle.get_label() for handle in handles], width),
        frameon=False,
        borderaxespad=0.0,
        **look,
    )


def legend_columns(labels: Sequence[str], width: float) -> int:
    """Return how many columns a legend has: as many as fit below a chart of so many inches."""
    most = int(_LEGEND_LETTERS * width) // (max(map(len, labels), default=0) + 7)
    most = max(1, min(4, most))
    return math.ceil(len(labels) / math.ceil(len(labels) / most)) if labels else 1


def _draw_stack(part: Figure | SubFigure, spec: Any, stack: Stack, ink: Ink) -> None:
    grid = spec.subgridspec(len(stack.charts), 1, height_ratios=stack.heights)
    axes: list[Axes] = []
    for i, chart in enumerate(stack.charts):
        axis = part.add_subplot(grid[i, 0], sharex=axes[0] if axes else None)
        if axes and not chart.empty:
            first = stack.charts[0]
            lines = [mark for mark in first.marks if mark.style != "triangle"]
            _draw_marks(axis, first, [replace(mark, label="") for mark in lines], ink)
        _draw_chart(axis, chart, ink)
        if i < len(stack.charts) - 1:
            axis.tick_params(which="both", labelbottom=False)
        axes.append(axis)
    for chart in stack.charts:
        _draw_shades(axes, chart, ink)


# -- heat maps -------------------------------------------------------------------------------------


def _draw_map(
    axis: Axes, panel: HeatMaps, i: int, ink: Ink, *, lowest: bool, leftmost: bool
) -> None:
    matrix = panel.maps[i]
    x_label, y_label = panel.x_label if lowest else "", panel.y_label if leftmost else ""
    label_axis(axis, matrix.title, x_label, y_label, ink)
    if matrix.values is None:
        empty_axis(axis, panel.nothing, ink)
        return
    values = [[math.nan if v is None else v for v in row] for row in matrix.values]
    cmap = _DIVERGING if panel.signed else _SEQUENTIAL
    axis.imshow(values, cmap=cmap, norm=Normalize(*panel.limits), interpolation="nearest")
    places, names = [x for x, _ in panel.ticks], [plain(text) for _, text in panel.ticks]
    few = len(names) <= 4 and max(map(len, names), default=0) > 2
    # Without names there may be more rows than columns, and ticks beyond these would widen the map.
    below = (places, names) if panel.names_below else ([], [])
    axis.set_xticks(*below, rotation=0 if few or _are_short(names) else 90)
    axis.set_yticks(places, names, rotation=90 if few else 0, va="center")
    axis.tick_params(length=0, labelsize=style.TICK, colors=ink.muted)
    for place in panel.lines:
        axis.axhline(place, color=ink.muted, linewidth=0.8)
        axis.axvline(place, color=ink.muted, linewidth=0.8)
    for spine in axis.spines.values():
        spine.set_color(ink.grid)


def _are_short(names: Sequence[str]) -> bool:
    return max(map(len, names), default=0) <= 2


def _colorbar(axes: list[Axes], panel: HeatMaps, ink: Ink) -> None:
    cmap = _DIVERGING if panel.signed else _SEQUENTIAL
    mapped = ScalarMappable(Normalize(*panel.limits), cmap)
    _scale(axes, mapped, panel.scale_label, ink)


# -- tables ----------------------------------------------------------------------------------------


def _draw_table(axis: Axes, panel: Table, ink: Ink) -> None:
    title = panel.title
    if len(panel.rows) > _TABLE_ROWS:
        title += f" (the first {_TABLE_ROWS} of {len(panel.rows)} rows)"
    label_axis(axis, title, ink=ink)
    axis.set_axis_off()
    heads = panel.heads
    table = axis.table(
        [[plain(text) for text in row] for row in panel.texts[:_TABLE_ROWS]] or [[""] * len(heads)],
        colLabels=[plain(head.head) for head in heads],
        loc="upper center",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(style.TICK)
    for cell in table.get_celld().values():
        cell.set_edgecolor(ink.grid)
        cell.get_text().set_color(ink.text)


def table_height(panel: Table) -> float:
    """Return how high a table is drawn, in inches."""
    return 0.5 + 0.2 * (min(len(panel.rows), _TABLE_ROWS) + 1)
