"""The first screen as the page's script moves it: sentences, wheel, tree and table along lambda."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures import svg
from tightframe.geometry.states import LOST, States
from tightframe.metrics.wheels import network_view
from tightframe.pages.explore import compute
from tightframe.pages.explore.followed import Followed, Tell, follow
from tightframe.pages.explore.margins import is_grouped
from tightframe.pages.explore.sentences import Members, counts_of, sentence, who
from tightframe.pages.explore.state import State
from tightframe.pages.explore.upload import Measured
from tightframe.problem.class_names import shown_names
from tightframe.problem.problem import Problem
from tightframe.solution import Solution
from tightframe.theory.thresholds import overall_decay
from tightframe.views.merge_tree import merge_tree
from tightframe.views.wheel import (
    MOST_MARKS,
    Homes,
    Sent,
    View,
    class_homes,
    decay_label,
    sent_by_solution,
)
from tightframe.views.wheel import wheel as wheel_of

#: Letters of a class's name in the table.
_NAME = 24

#: What a scene is as JSON.
Scene = dict[str, Any]


def scenes(state: State, measured: Measured | None, tell: Tell) -> Iterator[Scene]:
    """Yield the first screen: at the state's lambda, then along all, at last exactly.

    Parameters
    ----------
    state : State
    measured : Measured, optional
        A network that is laid over if it fits.
    tell : callable
        Told how many decays of how many are done.

    Raises
    ------
    ValueError
        If the state cannot be shown; the message says why.
    """
    problem = state.problem()
    over = measured if measured is not None and measured.fits(problem) else None
    shown = problem if over is None else over.naming(problem)
    solution = compute.solve(problem)
    yield _at_once(shown, solution, over)
    try:
        last: Scene = {}
        for found in follow(problem, tell):
            last = _along(shown, found, over)
            yield last
        if not last["final"]:
            yield last | {"final": True, "note": "Exact places of the changes are not known here."}
    except ValueError as error:
        yield _at_once(shown, solution, over) | {"note": f"No slider: {error}.", "final": True}


def _at_once(problem: Problem, solution: Solution, measured: Measured | None) -> Scene:
    """Return the screen at the problem's own lambda."""
    homes = class_homes(problem)
    here = overall_decay(problem)
    members = _members(problem, solution)
    sent = sent_by_solution(solution, homes)
    label = decay_label(problem)
    states = _of_rows(problem, solution)
    return {
        "wheel": _wheel(problem, [_view(problem, homes, sent, label, here, measured)], homes),
        "tree": "",
        "decays": [here],
        "spans": [_span(here, problem, members)],
        "rows": [
            row | {"parts": [[here, str(own)]], "until": None}
            for row, own in zip(_rows(problem), states.state, strict=True)
        ],
        "margin": [_short(states.decision_margin)],
        "own": [_short(_row_values(problem, sent.own))],
        "taker": [[_taken_for(problem, states, i) for i in range(len(states))]],
        "now": here,
        "measured": measured is not None,
        "note": "",
        "final": False,
    }


def _along(problem: Problem, found: Followed, measured: Measured | None) -> Scene:
    """Return the screen along lambda."""
    homes = class_homes(problem)
    here = overall_decay(problem)
    decays = found.decays.tolist()
    views, margins, owns = [], [], []
    for i, (decay, solution) in enumerate(zip(decays, found.solutions, strict=True)):
        sent = sent_by_solution(solution, homes)
        groups = replace(solution.group_states, state=found.states[i], rival=_rivals(found, i))
        sent = replace(sent, states=groups.of_classes(problem.class_groups, problem.class_names))
        views.append(_view(problem, homes, sent, f"λ = {decay:.3g}", decay, measured))
        margins.append(_short(_row_values(problem, sent.states.decision_margin)))
        owns.append(_short(_row_values(problem, sent.own)))
    changes = replace(found.changes, problem=problem)
    low, high = decays[0], decays[-1]
    inside = here if low <= here <= high else None
    tree = merge_tree(changes, low=low, high=high, now=inside, title="")
    if not found.exact:
        step = (found.decays[1:] / found.decays[:-1]).max() - 1
        known = f"Joins are good to {100 * step:.0f} % until all is solved;"
        tree = replace(tree, note=tree.note.replace("Joins are exact;", known))
    groups_of = _row_groups(problem)
    return {
        "wheel": _wheel(problem, views, homes),
        "tree": svg.draw(tree, "tree", key=False),
        "low": low,
        "high": high,
        "decays": decays,
        "spans": list(_spans(problem, found)),
        "rows": [
            row | {"parts": found.parts_of(g), "until": found.since(g)}
            for row, g in zip(_rows(problem), groups_of.tolist(), strict=True)
        ],
        "margin": margins,
        "own": owns,
        "taker": [
            [_group_name(problem, taker) for taker in own[groups_of].tolist()]
            for own in found.takers
        ],
        "now": here,
        "measured": measured is not None,
        "note": "",
        "final": found.exact,
    }


# -- sentences -------------------------------------------------------------------------------------


def _members(problem: Problem, solution: Solution) -> list[Members]:
    """Return what becomes of all classes by a solution, whose siblings may differ (too narrow)."""
    whole = is_grouped(solution)
    states = solution.group_states if whole else solution.states
    entry = problem.class_groups if whole else np.arange(problem.num_classes)
    classes = [np.flatnonzero(entry == g) for g in range(len(states))]
    none = np.array([], dtype=np.intp)
    return [
        Members(
            own,
            str(state),
            np.setdiff1d(classes[rival], own) if state == LOST and rival >= 0 else none,
            int(number),
        )
        for own, state, rival, number in zip(
            classes, states.state, states.rival.tolist(), states.prediction, strict=True
        )
    ]


def _span(
    since: float, problem: Problem, members: Sequence[Members], upcoming: Any = None
) -> Scene:
    return {
        "from": since,
        "text": sentence(problem, members, upcoming),
        "counts": counts_of(members),
        "next": None if upcoming is None else upcoming.decay,
    }


def _spans(problem: Problem, found: Followed) -> Iterator[Scene]:
    """Yield a sentence for every stretch of lambda in which nothing changes."""
    before = None
    for i, decay in enumerate(found.decays.tolist()):
        upcoming = found.upcoming(i)
        now = (found.states[i].tolist(), found.takers[i].tolist(), upcoming and upcoming.decay)
        if now != before:
            yield _span(decay, problem, found.members(i), upcoming)
            before = now


# -- wheel -----------------------------------------------------------------------------------------


def _view(
    problem: Problem, homes: Homes, sent: Sent, label: str, decay: float, measured: Measured | None
) -> View:
    if measured is None:
        return View(label, sent, None, decay)
    logits = measured.report.geometry.logits
    view = network_view(problem, logits, measured.bias, homes, sent.places, label)
    return view._replace(value=decay)


def _wheel(problem: Problem, views: Sequence[View], homes: Homes) -> str:
    return svg.draw(wheel_of(problem, views, homes), "wheel", key=False)


def _rivals(found: Followed, i: int) -> NDArray[np.intp]:
    own: NDArray[np.intp] = found.solutions[i].group_states.rival
    return np.where(found.takers[i] >= 0, found.takers[i], own)


# -- table -----------------------------------------------------------------------------------------


def _row_groups(problem: Problem) -> NDArray[np.intp]:
    """Return the group of every row: a row a class, of very many a row a group."""
    if problem.num_classes > MOST_MARKS:
        return np.arange(len(problem.groups))
    return problem.class_groups


def _rows(problem: Problem) -> list[Scene]:
    if problem.num_classes <= MOST_MARKS:
        names = shown_names([problem.name(k) for k in range(problem.num_classes)], _NAME)
        return [
            {"name": name, "samples": int(count), "mark": k}
            for k, (name, count) in enumerate(zip(names, problem.counts.tolist(), strict=True))
        ]
    return [
        {"name": f"{group.classes} classes", "samples": group.count, "mark": None}
        for group in problem.groups
    ]


def _of_rows(problem: Problem, solution: Solution) -> States:
    return solution.states if problem.num_classes <= MOST_MARKS else solution.group_states


def _row_values(problem: Problem, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if problem.num_classes <= MOST_MARKS:
        return values
    firsts = np.unique(problem.class_groups, return_index=True)[1]
    return values[firsts]


def _taken_for(problem: Problem, states: States, i: int) -> str:
    if states.state[i] != LOST or states.rival[i] < 0:
        return ""
    rival = int(states.rival[i])
    if problem.num_classes > MOST_MARKS:
        return _group_name(problem, rival)
    return shown_names([problem.name(rival)], _NAME)[0]


def _group_name(problem: Problem, group: int) -> str:
    """Return the name of a group's classes, of many what they are; empty for none (-1)."""
    if group < 0:
        return ""
    classes = np.flatnonzero(problem.class_groups == group)
    if len(classes) <= 2:
        return " or ".join(shown_names([problem.name(k) for k in classes.tolist()], _NAME))
    return f"one of {who(problem, classes).removeprefix('classes ')}"


def _short(values: NDArray[np.float64]) -> list[float | None]:
    """Return numbers with the digits that are shown; None for what is no number."""
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values.tolist()]
