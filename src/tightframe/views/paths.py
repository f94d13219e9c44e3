"""What a path shows: a frame, a table and a chart of its points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.figures.model import Chart, Curve, evenly
from tightframe.figures.style import GROUP_DASHES, GROUP_WIDTHS
from tightframe.figures.table import Column, Table
from tightframe.problem.problem import terms_in, with_loss_terms

if TYPE_CHECKING:
    import pandas as pd

    from tightframe.path import Path
    from tightframe.solution import Solution

#: Class groups that have a curve, and points that have a row, at most.
MOST_CURVES, MOST_ROWS = 8, 20

#: What a square solution says of every class group, in a frame.
_OF_GROUPS = ("count", "classes", "state", "decision_margin", "sibling_margin")

LAMBDA = "λ = √(weight decay · feature decay)"
MEAN_LAMBDA = "λ, geometric mean of all decays"


def path_frame(path: Path) -> pd.DataFrame:
    """Return `path_rows` as a frame."""
    import pandas as pd

    return pd.DataFrame(path_rows(path))


def path_rows(path: Path) -> list[dict[str, Any]]:
    """Return one row a point and class group; with targets one row a point."""
    rows = []
    for i, solution in enumerate(path.solutions):
        shared = {"point": i}
        shared |= {name: _cell(values[i]) for name, values in path.sweep.items()}
        shared |= _of_point(solution)
        if solution.problem.targets is not None:
            rows.append(shared)
            continue
        for g, group in enumerate(solution.to_dict()["groups"]):
            own = {name: group[name] for name in _OF_GROUPS}
            rows.append(shared | {"group": g} | own | terms_in(group))
    return rows


def _of_point(solution: Solution) -> dict[str, Any]:
    problem = solution.problem
    one = problem.depth == 1
    decay = {"logit_decay": problem.logit_decay} if one else {"mean_decay": problem.mean_decay}
    norm = {"nuclear_norm": solution.nuclear_norm} if one else {}
    return (
        decay
        | {"objective": solution.objective, "gap": solution.gap, "rank": solution.rank}
        | norm
        | {"status": solution.status.value}
    )


def _cell(value: Any) -> Any:
    """Return a value of a sweep as one cell: of several layers as text."""
    several = isinstance(value, (list, tuple, np.ndarray))
    return "/".join(f"{v:g}" for v in value) if several else value


def path_table(path: Path) -> Table:
    """Return the points as a table, evenly chosen ones where they are many."""
    shown = evenly(len(path.solutions), MOST_ROWS)
    counts = path.sweep.get("counts")
    rows = []
    for i in shown:
        found = path.solutions[i]
        place = _decay_of(found) if counts is None else counts[i]
        norm = found.nuclear_norm if found.problem.depth == 1 else None
        rows.append([place, found.objective, found.gap, found.rank, norm, found.status.value])
    columns = [
        Column("lambda" if counts is None else "counts", format=".6g", align="left"),
        Column("objective", format=".9g"),
        Column("gap", format=".1e"),
        Column("rank"),
        Column("nuclear norm", format=".6g", spare=True),
        Column("status", spare=True),
    ]
    note = "" if len(shown) == len(path.solutions) else f"{len(shown)} of {len(path.solutions)}"
    return Table("Path", columns, rows, note, missing="-")


def _decay_of(solution: Solution) -> float:
    problem = solution.problem
    return problem.logit_decay if problem.depth == 1 else problem.mean_decay


def path_chart(path: Path, limits: Sequence[float | None] = ()) -> Chart:
    """Return decision margins along the path; with targets the rank, the width that data need.

    ``limits``: from which lambda on the classes of every group collapse, where that is known.
    """
    axis, x = _across(path)
    order = np.argsort(x, kind="stable").tolist()
    points = [path.solutions[i] for i in order]
    along = [x[i] for i in order]
    if points[0].problem.targets is not None:
        return _rank_chart(points, along, axis)
    groups = [point.to_dict()["groups"] for point in points]
    names = _group_names(groups)
    curves = []
    for number, g in enumerate(evenly(len(names), MOST_CURVES)):
        margins = [own[g]["decision_margin"] if g < len(own) else None for own in groups]
        states = [own[g]["state"] if g < len(own) else None for own in groups]
        limit = limits[g] if g < len(limits) else None
        look = GROUP_DASHES[number % len(GROUP_DASHES)]
        width = GROUP_WIDTHS[number % len(GROUP_WIDTHS)]
        curves.append(
            Curve(names[g], *zero_at(limit, along, margins, states), "ink", look, width=width)
        )
    more = len(names) - len(curves)
    curves += state_marks(along, groups, evenly(len(names), MOST_CURVES), "decision_margin")
    return Chart(
        "Decision margins along the path",
        axis.pop("x_label"),
        "decision margin",
        curves,
        note=f"{more} more class groups are not drawn." if more else "",
        **axis,
    )


def zero_at(
    limit: float | None,
    along: Sequence[float],
    margins: Sequence[float | None],
    states: Sequence[str | None],
) -> tuple[list[float], list[float | None]]:
    """Return a curve that is zero where its classes collapse, not from the next point on.

    Parameters
    ----------
    limit : float, optional
        From which lambda on they have merged or vanished.
    along : sequence of float
        Where the points are, ascending.
    margins, states : sequence
        Of the points.
    """
    x, y = list(along), list(margins)
    if limit is None:
        return x, y
    for i in range(1, len(x)):
        reached = states[i - 1] == "distinct" and states[i] in ("merged", "vanished")
        if reached and x[i - 1] < limit < x[i]:
            return [*x[:i], limit, *x[i:]], [*y[:i], 0.0, *y[i:]]
    return x, y


def state_marks(
    along: Sequence[float],
    groups: Sequence[Sequence[Mapping[str, Any]]],
    drawn: Sequence[int],
    margin: str,
) -> list[Curve]:
    """Return the marks of states on the curves of groups, a curve a state.

    Parameters
    ----------
    along : sequence of float
        Where the points are.
    groups : sequence of sequence of mapping
        A point's groups: ``"state"`` and margins.
    drawn : sequence of int
        Groups that have curves.
    margin : str
        Key of what is drawn.
    """
    curves = []
    for state in ("distinct", "merged", "lost", "vanished"):
        places = [
            (x, own[g][margin])
            for x, own in zip(along, groups, strict=True)
            for g in drawn
            if g < len(own) and own[g].get("state") == state
        ]
        if places:
            x, y = (list(part) for part in zip(*places, strict=True))
            curves.append(Curve(state, x, y, state, "points", size=0.9))
    return curves


def _rank_chart(points: Sequence[Solution], along: list[float], axis: dict[str, Any]) -> Chart:
    gaps = [p.gap / p.objective for p in points if p.gap is not None and p.objective > 0]
    return Chart(
        "Width that the data need",
        axis.pop("x_label"),
        "rank of the logits",
        [Curve("rank", along, [p.rank for p in points], "predicted", "line+points")],
        y_range=(-0.5, None),
        whole=("y",),
        legend="none",
        note=f"Certified: relative gaps are {max(gaps, default=0.0):.0e} at most.",
        **axis,
    )


def _across(path: Path) -> tuple[dict[str, Any], list[float]]:
    """Return the x axis, and where every point lies on it: lambda if it varies, else what does."""
    decays = [_decay_of(solution) for solution in path.solutions]
    if "counts" in path.sweep:
        names = [str(text) for text in path.sweep["counts"]]
        ticks = [(float(i), names[i][:16]) for i in evenly(len(names), 6)]
        who = "class" if path.solutions[0].problem.targets is None else "context"
        places = [float(i) for i in range(len(names))]
        return {"x_label": f"samples per {who}", "x_ticks": ticks}, places
    if max(decays) > min(decays) or "bias_decay" not in path.sweep:
        depth = path.solutions[0].problem.depth
        label = LAMBDA if depth == 1 else MEAN_LAMBDA
        return {"x_label": label, "log_x": True}, decays
    own = [solution.problem.bias_decay for solution in path.solutions]
    return {"x_label": "bias decay", "log_x": True}, own


def _group_names(groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return what every group is called; a number where its count varies along the path."""
    names = []
    for g in range(max(map(len, groups))):
        own = {
            with_loss_terms(f"{group[g]['classes']} of {group[g]['count']}", **terms_in(group[g]))
            for group in groups
            if g < len(group)
        }
        names.append(own.pop() if len(own) == 1 else f"group {g + 1}")
    return names
