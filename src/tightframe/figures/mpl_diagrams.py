"""Wheels and merge trees drawn by Matplotlib."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tightframe.figures import style
from tightframe.figures.diagrams import (
    LINE_HEIGHT,
    NAME_AT,
    RIM,
    TREE_WIDTH,
    MergeTree,
    Run,
    Wheel,
)
from tightframe.figures.mpl_axes import MARKERS, empty_axis, label_axis, plain
from tightframe.figures.style import Ink, color_of, log_ticks

#: Letters in pixels of a picture, and their least size in points.
_LETTERS, _SMALL_LETTERS, _LEAST = 12.5, 11.0, 5.5

#: Of marks and rings, in pixels: the ring is so much wider than the mark.
RING = 4.0


def draw_wheel(axis: Axes, wheel: Wheel, ink: Ink) -> None:
    """Draw the last moment of a wheel."""
    label_axis(axis, wheel.title, ink=ink)
    if wheel.empty:
        empty_axis(axis, "nothing to draw", ink)
        return
    moment, (across, up) = wheel.moments[-1], wheel.reach
    axis.set_axis_off()
    axis.set_aspect("equal")
    axis.set_xlim(-across, across)
    axis.set_ylim(-up, up)
    wide, high = _inches(axis)
    pixel = 72 * min(wide / (2 * across), high / (2 * up)) / RIM  # in points
    round_ = np.linspace(0, 2 * np.pi, 200)
    axis.plot(np.cos(round_), np.sin(round_), color=ink.grid, linewidth=max(1.2 * pixel, 0.6))
    axis.plot(
        *moment.cross, marker="+", color=ink.muted, markersize=14 * pixel, linestyle="none",
        markeredgewidth=max(1.3 * pixel, 0.6), gid="cross",
    )  # fmt: skip
    drawn = [i for i, state in enumerate(moment.states) if state]
    if wheel.joined:
        faint = 0.5 if len(wheel.names) <= 30 else 0.35
        for i in drawn:
            ends = np.array([wheel.homes[i], moment.places[i]]).T
            color = color_of(moment.states[i], ink)
            axis.plot(*ends, color=color, alpha=faint, linewidth=max(1.6 * pixel, 0.5))
            axis.plot(
                *wheel.homes[i], marker="o", markersize=5.5 * pixel, markerfacecolor=ink.paper,
                markeredgecolor=color, markeredgewidth=max(1.2 * pixel, 0.5),
            )  # fmt: skip
    # Large marks first: small ones lie on them.
    order = sorted(drawn, key=lambda i: -wheel.sizes[i])
    for i in order:
        size = 2 * RIM * wheel.sizes[i] * pixel
        axis.plot(
            *moment.places[i], gid=f"mark-{i}", zorder=3,
            **_mark(moment.states[i], size, ink, max(1.0 * pixel, 0.4)),
        )  # fmt: skip
    if moment.rings is not None:
        for i in order:
            axis.plot(*_ring(moment.rings[i], wheel.sizes[i] + RING / RIM), **_ring_look(ink))
    for i in wheel.named:
        x, y = wheel.homes[i]
        far = 1 + NAME_AT / RIM
        axis.text(
            x * far, y * far, plain(wheel.names[i]),
            ha="center" if abs(x) < 0.25 else "left" if x > 0 else "right", va="center",
            fontsize=_letters(pixel), weight="bold", color=ink.text,
        )  # fmt: skip
    for x, y, text in wheel.captions:
        axis.text(
            x, y, plain(text), ha="center" if abs(x) < 0.7 else "left" if x > 0 else "right",
            va="center", fontsize=_letters(pixel, _SMALL_LETTERS), color=ink.muted,
        )  # fmt: skip
    for callout in moment.callouts:
        axis.text(
            callout.x, callout.y, plain(callout.text), ha="center", va="center", zorder=4,
            fontsize=_letters(pixel), weight="bold", color=color_of(callout.state, ink),
            path_effects=[withStroke(linewidth=5 * pixel, foreground=ink.paper)],
        )  # fmt: skip
    shown = [state for state in wheel.shown_states if state in moment.states]
    _key(axis, shown, ink, wheel.ring_label if moment.rings is not None else "")


def draw_tree(axis: Axes, tree: MergeTree, ink: Ink) -> None:
    """Draw a merge tree."""
    label_axis(axis, tree.title, ink=ink)
    if tree.empty:
        empty_axis(axis, tree.nothing, ink)
        return
    wide, high = _inches(axis)
    pixel = 72 * min(wide / (TREE_WIDTH + tree.left), high / (tree.height + tree.top))
    axis.set_facecolor(ink.paper)
    axis.set_xscale("log")
    axis.set_xlim(tree.low, tree.high)
    axis.set_ylim(tree.height, -tree.top)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(ink.muted)
    axis.set_yticks([])
    _ticks(axis, tree, ink, _letters(pixel, _SMALL_LETTERS))
    axis.set_xlabel(plain(tree.x_label), fontsize=_letters(pixel), color=ink.muted)
    for change in tree.changes:
        color = color_of(change.state, ink)
        axis.plot(
            [change.value] * 2, [tree.height, -4], color=color, linestyle=(0, (3, 3)),
            linewidth=max(1.1 * pixel, 0.5), gid="change",
        )  # fmt: skip
        if change.label:
            axis.text(
                change.value, -4 - LINE_HEIGHT * (change.row + 0.3), plain(change.label),
                ha="center", va="center", color=color, weight="bold",
                fontsize=_letters(pixel, _SMALL_LETTERS),
            )  # fmt: skip
    for i, lane in enumerate(tree.lanes):
        for run in lane.runs:
            look: dict[str, Any] = {"linewidth": lane.width * pixel, "gid": f"lane-{i}"}
            axis.add_patch(
                PathPatch(
                    tree_path(run), facecolor="none", edgecolor=color_of(run.state, ink), **look
                )
            )
        start = lane.runs[0].y[0] if lane.runs else lane.ends[0][1]
        _beside(axis, tree, start, lane.name, pixel, ink)
    # A little beyond the lanes' ends, so that both are seen.
    beyond = (tree.high / tree.low) ** (7 / TREE_WIDTH)
    for x, y, size in tree.crosses:
        cross = _mark("vanished", size * pixel, ink, 0, wide=pixel)
        axis.plot(x * beyond, y, zorder=3, gid="cross", **cross)
    for height, text in tree.captions:
        place = -(tree.left - 10) / TREE_WIDTH
        axis.text(
            place, height, plain(text), transform=axis.get_yaxis_transform(), rotation=90,
            ha="center", va="center", color=ink.muted, fontsize=_letters(pixel, _SMALL_LETTERS),
        )  # fmt: skip
    if tree.now is not None:
        _upright(axis, tree, tree.now, max(1.6 * pixel, 0.8), ink)
    _networks(axis, tree, pixel, ink)
    _key(axis, tree.shown_states, ink, "", below=0.62)


def tree_path(run: Run) -> Path:
    """Return a run as a path over the decay: S-curves where heights differ."""
    vertices, codes = [(run.x[0], run.y[0])], [Path.MOVETO]
    for (x, y), (x1, y1) in zip(
        zip(run.x, run.y, strict=True), zip(run.x[1:], run.y[1:], strict=True), strict=False
    ):
        if y == y1:
            vertices.append((x1, y1))
            codes.append(Path.LINETO)
            continue
        middle = math.sqrt(x * x1)
        vertices += [(middle, y), (middle, y1), (x1, y1)]
        codes += [Path.CURVE4] * 3
    return Path(vertices, codes)


def _networks(axis: Axes, tree: MergeTree, pixel: float, ink: Ink) -> None:
    """Draw networks: a line with a letter, and a mark a class at its measured state."""
    for network in tree.networks:
        _upright(axis, tree, network.value, max(1.4 * pixel, 0.7), ink)
        axis.text(
            network.value, tree.height, plain(network.letter), ha="center", va="center", zorder=5,
            color=ink.paper, weight="bold", fontsize=_letters(pixel),
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": ink.text, "edgecolor": "none"},
        )  # fmt: skip
        for lane, state in zip(tree.lanes, network.states, strict=bool(network.states)):
            found = lane.at(network.value)
            height = found[1] if found else lane.ends[-1][1]
            if state:
                size = (6 + 1.5 * lane.width) * pixel
                axis.plot(network.value, height, zorder=4, **_mark(state, size, ink, 1.3 * pixel))


def _upright(axis: Axes, tree: MergeTree, decay: float, width: float, ink: Ink) -> None:
    axis.plot([decay] * 2, [tree.height, -4], color=ink.text, linewidth=width, zorder=2)


def _beside(axis: Axes, tree: MergeTree, y: float, name: str, pixel: float, ink: Ink) -> None:
    if name:
        axis.text(
            -8 / TREE_WIDTH, y, plain(name), transform=axis.get_yaxis_transform(), ha="right",
            va="center", color=ink.text, weight="bold", fontsize=_letters(pixel),
        )  # fmt: skip


def _ticks(axis: Axes, tree: MergeTree, ink: Ink, size: float) -> None:
    axis.tick_params(which="both", labelsize=size, colors=ink.muted)
    places = log_ticks(tree.low, tree.high)
    axis.xaxis.set_minor_locator(NullLocator())
    if places is not None:
        axis.xaxis.set_major_locator(FixedLocator(places))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.12g}"))


def _mark(
    state: str, size: float, ink: Ink, edge: float, *, wide: float | None = None
) -> dict[str, Any]:
    """Return how the mark of a state is drawn, on a seam in the colour of the ground."""
    marker, color = style.STATES[state].marker, color_of(state, ink)
    look: dict[str, Any] = {"marker": MARKERS[marker], "color": color, "linestyle": "none"}
    if marker == "cross":  # a line: it has no inside
        thick = max(2.2 * (wide or size / 9), 0.8)
        return look | {"markersize": 0.85 * size, "markeredgewidth": thick}
    # Of one area, whatever the shape.
    size *= {"diamond": 0.9, "right": 1.05}.get(marker, 1.0)
    look |= {"markersize": size, "markeredgecolor": ink.paper, "markeredgewidth": edge}
    return look | ({"fillstyle": "left"} if marker == "half" else {})


def _ring(place: list[float], radius: float) -> tuple[Any, Any]:
    round_ = np.linspace(0, 2 * np.pi, 41)
    return place[0] + radius * np.cos(round_), place[1] + radius * np.sin(round_)


def _ring_look(ink: Ink) -> dict[str, Any]:
    return {"color": ink.text, "linewidth": 0.9, "linestyle": (0, (2.2, 1.6)), "zorder": 3}


def _key(axis: Axes, states: list[str], ink: Ink, ring: str, below: float = 0.06) -> None:
    """Write below the picture what its marks mean."""
    handles = [Line2D([], [], label=state, **_mark(state, 6.5, ink, 0)) for state in states]
    if ring:
        around: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": ink.text}
        handles.append(Line2D([], [], marker="o", linestyle="none", label=ring, **around))
    figure = axis.get_figure()
    if not handles or figure is None:
        return
    from matplotlib.transforms import ScaledTranslation

    down = ScaledTranslation(0, -below, figure.dpi_scale_trans)
    axis.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(handles),
        bbox_transform=axis.transAxes + down, frameon=False, labelcolor=ink.muted,
        fontsize=style.SMALL, handletextpad=0.1, columnspacing=1.2, borderaxespad=0.0,
    )  # fmt: skip


def _letters(pixel: float, size: float = _LETTERS) -> float:
    return max(size * pixel, _LEAST)


def _inches(axis: Axes) -> tuple[float, float]:
    """Return about how wide and high axes are, before they are laid out."""
    part, spec = axis.get_figure(root=False), axis.get_subplotspec()
    assert part is not None
    wide, high = part.bbox.width / part.dpi, part.bbox.height / part.dpi
    if spec is None:
        place = axis.get_position(original=True)
        return place.width * wide, place.height * high
    # Layout leaves little room between them.
    grid = spec.get_gridspec()
    across = _share(spec.colspan, grid.get_width_ratios())
    down = _share(spec.rowspan, grid.get_height_ratios())
    return 0.95 * across * wide, 0.88 * down * high


def _share(own: range, ratios: Any) -> float:
    return float(sum(ratios[i] for i in own) / sum(ratios))
