"""Pictures of predictions and measurements for the explorer, each with its text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import (
    Bars,
    Chart,
    Curve,
    HeatMaps,
    Mark,
    Matrix,
    Panel,
    Stack,
    block_borders,
)
from tightframe.figures.plotly import Options, draw
from tightframe.figures.style import (
    GROUP_DASHES,
    GROUP_WIDTHS,
    Ink,
    margin_kind,
    margin_label,
)
from tightframe.geometry.states import DISTINCT, VANISHED
from tightframe.pages.explore.margins import Margins
from tightframe.path import Path
from tightframe.problem.class_names import MAX_NAME, listed, shown_names
from tightframe.problem.problem import Problem, with_loss_terms, with_smoothing
from tightframe.sweeps.phase_picture import VERBS, Columns, picture
from tightframe.theory.thresholds import Thresholds, overall_decay

_LAMBDA = "λ = √(weight decay · feature decay)"
_MEAN_LAMBDA = "λ, geometric mean of all decays"
_MAX_TICKS = 10
_MAX_LEGEND = 5

#: Longest name in a legend or below bars, and beside a heat map.
_NAME_IN_LEGEND = 12
_NAME_BESIDE = 11


class Picture(NamedTuple):
    """A figure and what it shows in words.

    Attributes
    ----------
    figure : dict
        Plotly's data and layout.
    text : str
    """

    figure: dict[str, Any]
    text: str


def _picture(panel: Panel, text: str, ink: Ink) -> Picture:
    return Picture(draw(panel, Options(ink=ink, digits=6, packed=True)), text)


# -- heat maps -------------------------------------------------------------------------------------


def heat_map(
    values: NDArray[np.float64],
    problem: Problem,
    classes: NDArray[np.intp],
    title: str,
    ink: Ink,
    limit: float | None = None,
) -> Picture:
    """Draw a matrix over classes on a diverging scale.

    Parameters
    ----------
    values : ndarray, shape (k, k)
    problem : Problem
    classes : ndarray of int, shape (k,)
        Which classes the rows and columns are, sorted by group.
    title : str
        Starts the text.
    ink : Ink
    limit : float, optional
        The scale runs from minus to plus this; by default the largest entry.
    """
    groups = problem.class_groups[classes]
    borders = block_borders(groups)
    panel = HeatMaps(
        "",
        [Matrix(title, values)],
        "",
        "",
        borders,
        limit or float(np.abs(values).max()) or 1.0,
        ticks=_beside(problem, classes, groups, borders),
        names_below=False,
    )
    diagonal = np.diagonal(values)
    rest = values[~np.eye(len(values), dtype=bool)]
    text = (
        f"{title}: diagonal from {diagonal.min():.3g} to {diagonal.max():.3g}, the rest from "
        f"{rest.min():.3g} to {rest.max():.3g}"
    )
    if len(classes) < problem.num_classes:
        text += f"; {len(classes)} of {problem.num_classes} classes"
    return _picture(panel, text + ".", ink)


def _beside(
    problem: Problem,
    classes: NDArray[np.intp],
    groups: NDArray[np.intp],
    borders: Sequence[float],
) -> list[tuple[float, str]]:
    """Return what stands beside a heat map: the names of classes if there is room, or groups."""
    if problem.class_names is not None and len(classes) <= _MAX_TICKS:
        named = shown_names([problem.class_names[k] for k in classes.tolist()], _NAME_BESIDE)
        return [(float(place), name) for place, name in enumerate(named)]
    names = _broken(_counted(problem))
    shown = [names[g] for g in dict.fromkeys(groups.tolist())]
    edges = [0.0, *borders, float(len(classes))]
    places = [(low + high - 1) / 2 for low, high in pairwise(edges)]
    return _spaced(list(zip(places, shown, strict=True)), 0.07 * len(classes))


# -- margins ---------------------------------------------------------------------------------------


def margins(
    problem: Problem,
    predicted: Margins,
    measured: Margins | None,
    ink: Ink,
) -> Picture:
    """Draw the margins of every group: to a sibling class and to the nearest of all classes.

    Parameters
    ----------
    problem : Problem
    predicted : Margins
    measured : Margins, optional
        Of a network.
    ink : Ink
    """
    names = group_names(problem)
    shifted = [np.arange(len(names)) + shift for shift in (-0.2, 0.2)]
    about = ("to a sibling class", "to the nearest class")
    bars = [
        Bars(f"predicted {label}", places.tolist(), values.tolist(), "muted", 0.36, hatched=hatched)
        for label, places, values, hatched in zip(
            about, shifted, predicted[:2], (False, True), strict=True
        )
    ]
    curves = []
    if measured is not None:
        curves = [
            Curve(
                f"measured {label}", places.tolist(), values.tolist(), "measured", "points",
                marker=marker, size=1.4,
            )
            for label, places, values, marker in zip(
                about, shifted, measured[:2], ("circle", "diamond"), strict=True
            )
        ]  # fmt: skip
    ticks = list(enumerate(_broken(group_names(problem, _NAME_IN_LEGEND))))
    panel = Chart(
        "Sibling and decision margins",
        "group (classes of samples each)",
        margin_label(problem.loss, "sibling and decision margin"),
        curves,
        bars=bars,
        x_ticks=[(float(place), name) for place, name in _thinned(ticks)],
        legend="inside",
    )
    parts = [
        f"{value:.3g} for {name}" + (" (merged or vanished)" if collapsed else "")
        for name, value, collapsed in zip(
            names, predicted.sibling, predicted.collapsed, strict=True
        )
    ]
    kind = margin_kind(group.classes for group in problem.groups)
    return _picture(panel, f"Predicted {kind}: {_listed(parts)}.", ink)


# -- path ------------------------------------------------------------------------------------------


def path(
    line: Path | None,
    decays: NDArray[np.float64],
    problem: Problem,
    limits: Thresholds,
    measured: NDArray[np.float64] | None,
    ink: Ink,
) -> Picture:
    """Draw margins to the nearest class and rank along lambda, with the thresholds.

    Parameters
    ----------
    line : Path, optional
        None: only the thresholds are drawn.
    decays : ndarray
        Values of lambda.
    problem : Problem
        Where the page is.
    limits : Thresholds
    measured : ndarray, shape (G,), optional
        Decision margins of a network, drawn at the problem's lambda.
    ink : Ink
    """
    x, here = decays.tolist(), overall_decay(problem)
    names, entries = group_names(problem), group_names(problem, _NAME_IN_LEGEND)
    values = np.full((len(decays), len(names)), np.nan)
    ranks: list[int | None] = [None] * len(decays)
    states = np.full(values.shape, DISTINCT)
    rank_text = "Margins follow."
    if line is not None:
        values = np.array([point.group_states.decision_margin for point in line.solutions])
        states = np.array([point.group_states.state for point in line.solutions])
        ranks = line.rank.tolist()
        rank_text = f"Rank {line.rank.max()} to {line.rank.min()}."
    curves = [*_curves_of_states(x, values, states, entries)]
    if measured is not None:
        look: dict[str, Any] = {"size": 1.4}
        for g, (name, own) in enumerate(zip(entries, measured.tolist(), strict=True)):
            label = f"{name}, measured" if len(names) <= _MAX_LEGEND else "" if g else "measured"
            curves.append(Curve(label, [here], [own], "ink", "points", **look))
    marks = _threshold_marks(entries, limits)
    inside = bool(decays[0] <= here <= decays[-1])
    if inside:
        marks.append(Mark(here, "", "x", "ink", "solid"))
    axis: dict[str, Any] = {"log_x": True, "x_range": _with_room(decays)}
    negative = bool(np.nanmin(values) < 0) if np.isfinite(values).any() else False
    panel = Stack(
        with_smoothing("Path", problem),
        [
            Chart(
                "", "", margin_label(problem.loss, "margin to the nearest class"), curves, marks,
                y_range=(None if negative else 0, None),
                legend="inside" if len(names) <= 12 else "none", **axis,
            ),
            Chart(
                "", _LAMBDA if problem.depth == 1 else _MEAN_LAMBDA, "rank",
                [Curve("rank", x, ranks, "muted", "steps")],
                y_range=(0, None), whole=("y",), legend="none", **axis,
            ),
        ],
        [0.66, 0.24],
    )  # fmt: skip
    text = (
        f"Full line: λ = {here:.4g} of the controls{'' if inside else ' is outside'}. "
        f"Dashed: {_changes_text(names, limits)} Everything is zero from "
        f"{limits.total_collapse:.4g}. {rank_text}"
    )
    return _picture(panel, text, ink)


def _curves_of_states(
    x: Sequence[float],
    values: NDArray[np.float64],
    states: NDArray[np.str_],
    names: Sequence[str],
) -> Iterator[Curve]:
    """Yield a curve a group and state: to where the next state begins, there it touches that one.

    Groups have dashes and widths, states have colours.
    """
    for g, name in enumerate(names):
        look: dict[str, Any] = {
            "style": GROUP_DASHES[g // len(GROUP_WIDTHS) % len(GROUP_DASHES)],
            "width": GROUP_WIDTHS[g % len(GROUP_WIDTHS)],
        }
        for i, state in enumerate(dict.fromkeys(states[:, g].tolist())):
            own = states[:, g] == state
            reached = own | np.r_[False, own[:-1]]
            y = np.where(reached, values[:, g], np.nan).tolist()
            if state == VANISHED:
                look["style"] = "dotted"
            yield Curve("" if i else name, x, y, state, **look)


def _threshold_marks(names: Sequence[str], limits: Thresholds) -> list[Mark]:
    """Return a line for every threshold, each with what happens there if they are few."""
    places: dict[tuple[float, str], list[str]] = {}
    for name, group in zip(names, limits.groups, strict=True):
        for state, place in limits.places_of(group).items():
            places.setdefault((place, state), []).append(name)
    few = len(places) <= _MAX_LEGEND
    return [
        Mark(
            place,
            f"{' and '.join(own)} {state} {place:.3g}" if few and len(own) <= 2 else "",
            "x",
            state,
            "dashed",
        )
        for (place, state), own in sorted(places.items())
    ]


def _changes_text(names: Sequence[str], limits: Thresholds) -> str:
    """Say from which lambda on the classes of each group merge, are lost and vanish."""
    parts = []
    for name, group in zip(names, limits.groups, strict=True):
        found = [f"{state} from {place:.4g}".strip() for state, place in group.places.items()]
        if found:
            parts.append(f"{name} {', '.join(found)}")
    if limits.groups[0].changes is None:
        return (
            f"where classes {limits.kind}: {_listed(parts) or 'none'}. Of so many groups it is not "
            "followed from where on they are lost."
        )
    return f"where states change: {_listed(parts) or 'nowhere'}."


# -- phase diagram ---------------------------------------------------------------------------------


def phase(
    columns: Columns,
    problem: Problem,
    after: str,
    place: tuple[float, float] | None,
    state: str,
    ink: Ink,
) -> Picture:
    """Draw the minority's margin over imbalance ratio and lambda, with the thresholds.

    Parameters
    ----------
    columns : Columns
        Without margins: only the thresholds are drawn.
    problem : Problem
        Where the page is.
    after : {"merged", "lost", "vanished"}
        What becomes of the minority where it ends to be distinct.
    place : pair of float, optional
        Its ratio and lambda, if it is in the diagram.
    state : str
        Of its minority there.
    ink : Ink
    """
    solved = bool(np.isfinite(columns.margins).all())
    text = (
        f"{_two_sizes(problem)} "
        + ("Colour: margin of the minority to the nearest class" if solved else "Margins follow")
        + f". The minority {VERBS[after]} from λ = "
        f"{columns.ends[0]:.4g} at R = "
        f"{columns.ratios[0]:.3g}, from {columns.ends[-1]:.4g} at R = "
        f"{columns.ratios[-1]:.3g}."
    )
    more = []
    if place is not None:
        seen = columns.low <= place[1] <= columns.high
        text += f" The controls are at R = {place[0]:.4g}, λ = {place[1]:.4g}"
        text += "." if seen else ", outside."
        more.append(Curve("the controls", [place[0]], [place[1]], state, "points", size=1.6))
    panel = picture(
        columns,
        with_smoothing("Phase diagram", problem),
        f"minority's {margin_label(problem.loss, 'margin')}",
        more,
        after=after,
    )
    return _picture(panel, text, ink)


def _two_sizes(problem: Problem) -> str:
    """Say which counts a phase diagram is of, and whether they are those of a problem."""
    counts = problem.counts
    k, small = problem.num_classes, int(counts.min())
    few = int((counts < counts.max()).sum())
    share = f"{few} of them" if few else "half of them"
    text = (
        f"{k} classes: {share} with {small:,} samples, the minority, the others with R times that."
    )
    if len(np.unique(counts)) > 2:
        text += " The problem has more sizes than these two: look at the tree for its own changes."
    return text


# -- what the pictures share -----------------------------------------------------------------------


def _with_room(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of a log axis, a little wider than its values."""
    low, high = float(values[0]), float(values[-1])
    room = (high / low) ** 0.02
    return low / room, high * room


def group_names(problem: Problem, width: int = MAX_NAME) -> list[str]:
    """Return a short name of every group: how many classes, of how many samples each.

    With the classes' names, at most so wide, where they have some; a class alone is called by it.
    """
    if problem.class_names is not None and width < MAX_NAME:
        problem = problem.replace(class_names=shown_names(problem.class_names, width))
    parts = zip(_counted(problem), problem.groups, problem.group_names(), strict=True)
    return [
        name
        if not own
        else f"{listed(own)} ({name.removeprefix('1 of ')})"
        if group.classes == 1
        else f"{name} ({listed(own, 2)})"
        for name, group, own in parts
    ]


def _counted(problem: Problem) -> list[str]:
    """Return the names of groups without those of their classes."""
    return [
        with_loss_terms(
            f"{group.classes} of {group.count}",
            **{name: float(f"{x:.3g}") for name, x in terms.items()},
        )
        for group, terms in zip(problem.groups, problem.group_terms, strict=True)
    ]


def _broken(names: Sequence[str]) -> list[str]:
    """Break names over lines where they would not fit beside or below a picture."""
    return [re.sub(r" (with|and|\()", r"\n\1", name) if len(name) > 10 else name for name in names]


def _spaced(ticks: Sequence[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """Leave out labels that would run into the one before."""
    kept: list[tuple[float, str]] = []
    for place, name in ticks:
        if not kept or place - kept[-1][0] >= least:
            kept.append((place, name))
    return kept


def _thinned(entries: Sequence[Any]) -> list[Any]:
    return list(entries[:: -(-len(entries) // _MAX_TICKS)]) if entries else []


def _listed(parts: Sequence[str], most: int = 8) -> str:
    listed = "; ".join(parts[:most])
    return f"{listed}; and {len(parts) - most} more" if len(parts) > most else listed
