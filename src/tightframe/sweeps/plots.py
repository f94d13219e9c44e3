"""The pictures of grids: margins and rank along paths, and phase diagrams."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import (
    Block,
    Cells,
    Chart,
    Curve,
    Mark,
    Panel,
    Shades,
    Sheet,
    Stack,
    Tick,
    evenly,
)
from tightframe.figures.mpl import check_formats, draw, save_figures
from tightframe.figures.style import (
    GROUP_DASHES,
    GROUP_WIDTHS,
    margin_kind,
    margin_label,
)
from tightframe.problem.problem import Problem, with_smoothing
from tightframe.runs.tables import group_name
from tightframe.sweeps.grid import Grid
from tightframe.sweeps.phase import PhaseDiagram
from tightframe.sweeps.phase_picture import Columns, picture, ratio_ticks, up_to_threshold
from tightframe.views.paths import state_marks, zero_at

#: More paths than this are not drawn in one picture; evenly chosen ones are, and the title says so.
MAX_PATHS = 6

_LAMBDA = "λ = √(weight decay · feature decay)"


def save_grid_plots(
    grid: Grid,
    rows: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Write a grid's picture, each file atomically.

    Parameters
    ----------
    grid : Grid
    rows : sequence of mapping
        As `tightframe.sweeps.grid.run_grid` returned them.
    folder : path-like
        Made if need be.
    formats : sequence of {"png", "svg", "pdf"}

    Returns
    -------
    list of Path
        ``path.png``; for a grid with imbalance ratios ``phase.png``; likewise in other formats.

    Raises
    ------
    ValueError
        If a format is not allowed.
    """
    formats = check_formats(formats)
    if grid.ratios is None:
        return save_figures(draw(path_sheet(rows)), Path(folder) / "path", formats)
    diagram = PhaseDiagram.from_rows(grid, rows)
    return save_figures(draw(phase_sheet(diagram, grid.problem)), Path(folder) / "phase", formats)


# -- paths -----------------------------------------------------------------------------------------


def path_sheet(rows: Sequence[Mapping[str, Any]]) -> Sheet:
    """Return margins and rank along every row, with the predicted thresholds.

    Points of merged, lost and vanished classes have the marks of their states, points that did not
    converge stars.
    """
    shown = [rows[i] for i in evenly(len(rows), MAX_PATHS)]
    title = "What is predicted along the path"
    if len(shown) < len(rows):
        title += f" ({len(shown)} of {len(rows)} rows)"
    columns = min(len(shown), 3)
    panels: list[Panel] = [
        Chart(_row_title(row), "", "", [], nothing="failed")
        if row["status"] == "failed"
        else _row_stack(row)
        for row in shown
    ]
    return Sheet(title, [Block(panels, columns, 5.3)], 5.9 * columns)


def _row_title(row: Mapping[str, Any]) -> str:
    title = f"Samples per class: {_shortened(row['counts'])}"
    share = row["points"][0]["problem"].get("label_smoothing") if row["points"] else None
    return f"{title}, label smoothing {share:g}" if share else title


def _shortened(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True)
class _Horizontal:
    """The horizontal axis of a path: what varies along it."""

    label: str
    values: list[float]
    is_lambda: bool = False
    ticks: list[str] | None = None


def _horizontal(points: Sequence[Mapping[str, Any]]) -> _Horizontal:
    """Choose lambda if it varies, else what does; values on a log axis, or numbered counts."""
    problems = [point["problem"] for point in points]
    decays = [point["lambda"] for point in points]
    counts = [problem["counts"] for problem in problems]
    if len(set(counts)) > 1:
        return _Horizontal(
            "samples per class", [float(i) for i in range(len(points))], ticks=counts
        )
    if max(decays) <= min(decays) * (1 + 1e-9):
        for name in ("bias_decay", "feature_decay"):
            values = [problem[name] for problem in problems]
            if len(set(values)) > 1:
                return _Horizontal(name.replace("_", " "), values)
    depth = problems[0]["depth"]
    label = _LAMBDA if depth == 1 else "λ, geometric mean of all decays"
    return _Horizontal(label, decays, is_lambda=True)


def _row_stack(row: Mapping[str, Any]) -> Stack:
    """Return the margins of a row over its rank."""
    points = row["points"]
    across = _horizontal(points)
    order = np.argsort(across.values, kind="stable")
    points = [points[i] for i in order]
    x = [across.values[i] for i in order]
    names = None if across.ticks is None else [across.ticks[i] for i in order]
    groups = max(len(point["groups"]) for point in points)
    shades = _shades(points, groups)
    margin = _margin(points)
    curves = [
        _group_curve(x, points, g, shades, margin, to_zero=across.is_lambda) for g in range(groups)
    ]
    if shades is None:  # of many groups they would hide the curves
        own = [point["groups"] for point in points]
        curves += state_marks(x, own, range(groups), margin)
    stopped = [place for place, p in zip(x, points, strict=True) if p["status"] == "not_converged"]
    if stopped:
        zeros = [0.0] * len(stopped)
        curves.append(Curve("not converged", stopped, zeros, "ink", "points", marker="star"))
    axis: dict[str, Any] = _across(x, names)
    sizes = [group["classes"] for point in points for group in point["groups"]]
    kind = margin_kind(sizes) if margin == "margin" else "margin to the nearest class"
    margins = Chart(
        "Samples per class vary" if names else _row_title(row),
        "",
        margin_label(points[0]["problem"]["loss"], kind),
        curves,
        _thresholds(points, x, shades) if across.is_lambda else [],
        shades=shades,
        legend="inside",
        **axis,
    )
    rank = Chart(
        "",
        across.label,
        "rank",
        [Curve("rank", x, [p["rank"] for p in points], "ink", "line+points", size=0.6)],
        y_range=(-0.5, None),
        whole=("y",),
        legend="none",
        **axis,
    )
    return Stack("", [margins, rank], [3.2, 0.9])


def _across(x: Sequence[float], names: Sequence[str] | None) -> dict[str, Any]:
    """Return what the x axes of margins and rank have in common."""
    low, high = min(x), max(x)
    if names is None:
        room = max((high / low) ** 0.03, 1.01)
        return {"log_x": True, "x_range": (low / room, high * room)}
    ticks: list[Tick] = [(x[i], _shortened(names[i], 16)) for i in evenly(len(x), 6)]
    room = max(0.03 * (high - low), 0.1)
    return {"x_ticks": ticks, "x_range": (low - room, high + room)}


def _shades(points: Sequence[Mapping[str, Any]], groups: int) -> Shades | None:
    """Return a scale over the sample counts where there are more groups than dashes."""
    if groups <= len(GROUP_DASHES):
        return None
    counts = [group["count"] for group in points[0]["groups"]]
    return Shades("samples per class", min(counts), max(max(counts), min(counts) + 1))


def _margin(points: Sequence[Mapping[str, Any]]) -> str:
    """Return the key of what is drawn: the decision margin, which records of 0.1 have not."""
    has = all("decision_margin" in group for point in points for group in point["groups"])
    return "decision_margin" if has else "margin"


def _group_curve(
    x: Sequence[float],
    points: Sequence[Mapping[str, Any]],
    g: int,
    shades: Shades | None,
    margin: str,
    *,
    to_zero: bool,
) -> Curve:
    groups = [point["groups"][g] if g < len(point["groups"]) else None for point in points]
    places, margins = list(x), [None if group is None else group[margin] for group in groups]
    if to_zero:
        states = [None if group is None else group.get("state") for group in groups]
        limit = next((group["threshold"] for group in groups if group is not None), None)
        places, margins = zero_at(limit, places, margins, states)
    names = {group_name(group) for group in groups if group is not None}
    counts = [group["count"] for group in points[0]["groups"]]  # may vary along the path
    return Curve(
        names.pop() if len(names) == 1 else f"group {g + 1}",
        places,
        margins,
        "ink",
        "line+points" if shades else GROUP_DASHES[g % len(GROUP_DASHES)],
        size=0.5,
        width=1.0 if shades else GROUP_WIDTHS[g % len(GROUP_WIDTHS)],
        shade=counts[min(g, len(counts) - 1)] if shades else None,
    )


def _thresholds(
    points: Sequence[Mapping[str, Any]], x: Sequence[float], shades: Shades | None
) -> list[Mark]:
    """Return the predicted thresholds that lie on the path."""
    low, high = min(x), max(x)
    verbs = {"merge": "merges", "vanish": "vanishes"}
    after = "merged" if points[0]["collapse_kind"] == "merge" else "vanished"
    label = f"group {verbs.get(points[0]['collapse_kind'], 'collapses')} from here"
    total = points[0]["total_collapse"]
    same = total is not None and len({point["total_collapse"] for point in points}) == 1
    marks = [
        # With many groups, lines would hide the curves.
        Mark(group["threshold"], label, "x", "ink", "triangle", True, group["count"])
        if shades
        else Mark(group["threshold"], label, "x", after, "dashed", True)
        for g, group in enumerate(points[0]["groups"])
        if group["threshold"] is not None and low <= group["threshold"] <= high
        # The last group to merge vanishes: everything is zero from there.
        if shades or not (same and np.isclose(group["threshold"], total))
    ]
    drawn = any(np.isclose(total, mark.value) for mark in marks) if total else True
    if same and not drawn and low <= total <= high:
        marks.append(Mark(total, "all zero from here", "x", "vanished", "dotted", True))
    return marks


# -- phase diagrams --------------------------------------------------------------------------------


def phase_sheet(diagram: PhaseDiagram, problem: Problem | None = None) -> Sheet:
    """Return a picture of `phase_chart`."""
    return Sheet("", [Block([phase_chart(diagram, problem)], 1, 5.5)], 8.2)


def phase_chart(diagram: PhaseDiagram, problem: Problem | None = None) -> Chart:
    """Return the minority's margin over (imbalance ratio, lambda) with the exact thresholds.

    ``problem``: any of the diagram, whose label smoothing the title names.
    """
    along = np.argsort(diagram.logit_decays, kind="stable")
    across = np.argsort(diagram.ratios, kind="stable")
    cells = np.ix_(across, along)
    states, title = diagram.minority_state[cells], _phase_title(diagram)
    title = title if problem is None else with_smoothing(title, problem)
    limits = [
        own[across]
        for own in (diagram.minority_threshold, diagram.majority_threshold, diagram.total_collapse)
    ]
    decays, ratios = diagram.logit_decays[along], diagram.ratios[across]
    kind, margins = "sibling margin", diagram.minority_margin
    if diagram.minority_decision_margin is not None:
        kind, margins = "margin to the nearest class", diagram.minority_decision_margin
    label = f"minority's {kind} (logits)"
    collapsed = states[decays >= limits[0][:, None]]
    below = set(states[decays < limits[0][:, None]].tolist())
    found = set(collapsed.tolist())
    known = np.isfinite(limits[0]).all() and min(states.shape) > 1
    if known and below <= {"distinct"} and found <= {"merged", "vanished"}:
        columns = [
            up_to_threshold(decays, own, limit)
            for own, limit in zip(margins[cells], limits[0].tolist(), strict=True)
        ]
        nodes, values = (np.array(part) for part in zip(*columns, strict=True))
        shown = Columns(
            ratios,
            nodes,
            values,
            limits[0],
            _vanishing(decays, states),
            limits[2],
            float(decays[0]),
            float(decays[-1]),
        )
        return picture(shown, title, label, after="vanished" if found == {"vanished"} else "merged")
    curves = []
    for name, values, style in (
        ("minority threshold, closed form", limits[0], "solid"),
        ("majority threshold, closed form", limits[1], "dashed"),
        ("all class means are zero", limits[2], "dotted"),
    ):
        if np.isfinite(values).any() and not (
            values is limits[2] and np.allclose(values, limits[1])
        ):
            curves.append(Curve(name, ratios.tolist(), values.tolist(), "ink", style, seam=True))
    gone = ~np.isin(states, ["distinct", ""])
    return Chart(
        title,
        "imbalance ratio R = majority / minority count",
        _LAMBDA,
        curves,
        log_x=True,
        log_y=True,
        cells=Cells(
            ratios.tolist(),
            decays.tolist(),
            np.where(gone, np.nan, margins[cells]).T,
            label,
            np.where(gone, states, "").T,
            "failed",
        ),
        x_ticks=ratio_ticks(ratios),
    )


def _vanishing(decays: NDArray[np.float64], states: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return between which decays of the grid the minority vanishes, half-way; else NaN."""
    found = np.full(len(states), np.nan)
    for i, own in enumerate(states == "vanished"):
        if own.any():
            first = int(np.argmax(own))
            found[i] = decays[0] if first == 0 else np.sqrt(decays[first - 1] * decays[first])
    return found


def _phase_title(diagram: PhaseDiagram) -> str:
    return (
        f"Minority margin, counts {_shortened(diagram.counts[0], 30)} to "
        f"{_shortened(diagram.counts[-1], 30)}"
    )
