"""Which classes vanish, as the imbalanced theorems of Dang et al. 2023 imply."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tightframe.figures.model import Chart, Curve, Mark, Panel, Table
from tightframe.problem.problem import Problem, at_most
from tightframe.reproduce.judging import (
    Switch,
    best_by,
    best_switch,
    certified,
    decided,
    intervals,
    unless_early,
    verdict,
)
from tightframe.reproduce.papers.dang_2023 import shared
from tightframe.reproduce.results import Array, Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict
from tightframe.theory.thresholds import thresholds


def _own_logits(run: Run, group: int, name: str = "logits") -> Array:
    """Return the mean logits of a group's classes on themselves."""
    own: Array = np.diagonal(run.array(name))[run.problem.class_groups == group]
    return own


_CLAIM = "a class vanishes exactly when c_M n^{M/(M+1)} / N ≤ the decays' geometric mean"

_DEPTHS = (1, 2, 3)
_DECAYS = [round(float(decay), 6) for decay in np.geomspace(0.01, 0.045, 12)]

#: Networks on digits: three sizes of classes, whose thresholds with one layer lie in the grid.
_SMALL_COUNTS = "100x4,50x3,25x3"
_SMALL_DECAYS = [round(float(decay), 6) for decay in np.geomspace(0.006, 0.02, 8)]


def _tasks(scale: str) -> list[Task]:
    tasks = []
    for depth in _DEPTHS:
        problems = [shared.mse(shared.IMBALANCED, decay, depth) for decay in _DECAYS]
        tasks.append(shared.theory(problems, layers=depth))
        options = {"per_sample": False}
        tasks += shared.ufm_starts(scale, problems, options=options, layers=depth)
    for decay in _SMALL_DECAYS[2::4] if scale == "smoke" else _SMALL_DECAYS:
        # One layer, where only the product of the decays matters; this ratio trains well.
        setting = [float(f"{10 * decay:.8g}"), float(f"{decay / 10:.8g}")]
        tasks.append(shared.network(scale, _SMALL_COUNTS, setting, shared.small(scale), layers=1))
    return tasks


def local_minimum_ends(count: float, depth: int, num_samples: int) -> float:
    """Return the geometric mean decay from which on only zero is a local minimum of a class.

    With several layers a class has a local minimum beyond its threshold too, as long as
    ``(sqrt(n) - s) s^{(M-1)/(M+1)} = N mu`` has a root s > 0: up to the left side's peak. With one
    layer that is the threshold.
    """
    p = (depth - 1) / (depth + 1)
    peak = math.sqrt(count) * p / (1 + p)
    height: float = (math.sqrt(count) - peak) * peak**p / num_samples
    return height


def _limits(problem: Problem) -> list[float]:
    """Return the decay from which on each group of classes has vanished."""
    return [float(group.logit_decay or math.nan) for group in thresholds(problem).groups]


def _left(run: Run, group: int) -> bool:
    """Return whether a class of a group is left."""
    return bool(_own_logits(run, group).max() >= shared.VANISHED)


def _vanished(group: int, run: Run) -> bool:
    return not _left(run, group)


def _decay(run: Run) -> float:
    return run.decay


def _switches(part: Results) -> dict[int, Switch]:
    """Return by count where the classes of the best run vanish."""
    problem = part.runs[0].problem
    return {
        group.count: best_switch(part, limit, _decay, functools.partial(_vanished, g))
        for g, (group, limit) in enumerate(zip(problem.groups, _limits(problem), strict=True))
    }


def _judge_switch(part: Results, what: str, depth: int, sentence: str = "") -> Verdict:
    switches = _switches(part)
    found = ", ".join(f"{one.steps:+d} (n = {count})" for count, one in switches.items())
    predicted, measured = intervals({f"n = {count}": one for count, one in switches.items()})
    smoke_network = part.scale == "smoke" and "MLP" in what
    holds = unless_early(part, all(one.holds for one in switches.values()), part.scale)
    refuted = holds is False and any(one.refuted for one in switches.values())
    return verdict(
        decided(part, None, refuted=False)
        if smoke_network
        else decided(part, holds, refuted=refuted),
        criterion="for every count, the decay from which on its classes' own logits are below "
        f"{shared.VANISHED} is within one grid step of the predicted threshold",
        claimed=f"{what}, M = {depth}: {_CLAIM}",
        predicted=predicted,
        measured=measured,
        tolerance="1 grid step",
        sentence=f"{what}, M = {depth}: the switch is off by {found} grid steps."
        + (" Too few points and too short a training to decide." if smoke_network else sentence),
    )


def _judge(results: Results) -> list[Verdict]:
    verdicts = [_judge_certified_switch(results.select(what="theory"))]
    for depth in _DEPTHS:
        part = results.select(what="UFM", layers=depth)
        verdicts.append(_judge_switch(part, "UFM", depth, _beyond(part)))
    return [*verdicts, _judge_switch(results.select(what="network"), "MLP on digits", 1)]


def _judge_certified_switch(theory: Results) -> Verdict:
    wrong = [
        bool(_own_logits(run, g).mean() > 0) == bool(at_most(limit, run.decay))
        for run in theory.done
        for g, limit in enumerate(_limits(run.problem))
    ]
    return verdict(
        decided(theory, not any(wrong) and certified(theory)),
        criterion="in every certified minimiser exactly the classes below their threshold are left",
        claimed=f"Certified minimisers: {_CLAIM}",
        predicted=0.0,
        measured=float(sum(wrong)),
        tolerance=0.0,
        sentence=f"{sum(wrong)} of {len(wrong)} classes (by count, depth and decay) are not "
        "as the threshold says.",
    )


def _beyond(part: Results) -> str:
    """Say how many starts ended above the certified minimum, and whether a minimum is there."""
    outside = sum(
        _left(run, g)
        and run.decay >= local_minimum_ends(group.count, run.problem.depth, run.problem.num_samples)
        for run in part.done
        for g, group in enumerate(run.problem.groups)
    )
    return (
        f" {shared.starts_sentence(part.runs)} {outside} classes stay where not even a local "
        "minimum is left."
    )


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for depth in _DEPTHS:
        theory = results.select(what="theory", layers=depth).done
        best = list(best_by(results.select(what="UFM", layers=depth), _decay).values())
        panels.append(_chart(theory, best, f"UFM, M = {depth}, best start", "logits"))
    networks = results.select(what="network").done
    panels.append(_chart(networks, networks, "MLP on digits, M = 1", "predicted_logits"))
    return [*panels, _table(results)]


def _chart(theory: Sequence[Run], measured: Sequence[Run], title: str, name: str) -> Chart:
    """Draw own logits over the decays: minimisers dashed, runs as points, thresholds marked."""
    curves, marks = [], []
    line, found = (sorted(runs, key=lambda run: run.decay) for runs in (theory, measured))
    problem = (line or found)[0].problem if line or found else None
    for g, group in enumerate(problem.groups if problem else ()):
        if line:
            limit = _limits(line[0].problem)[g]
            marks.append(Mark(limit, f"n = {group.count}", color=g))
            y = [float(_own_logits(run, g, name).mean()) for run in line]
            x = [run.decay for run in line]
            curves.append(Curve(f"n = {group.count}", x, y, g, "dashed"))
        if found:
            y = [float(_own_logits(run, g).mean()) for run in found]
            curves.append(Curve("", [run.decay for run in found], y, g, "points"))
    label = "geometric mean of the decays"
    note = "Dashed: the certified minimiser. Points: trained. Vertical: the predicted threshold."
    return Chart(title, label, "own mean logit", curves, marks, log_x=True, note=note)


def _table(results: Results) -> Table:
    """List thresholds, where local minima end, and the largest decay at which classes are left."""
    lines: list[list[Any]] = []
    for what, name in (("UFM", "UFM"), ("network", "MLP on digits")):
        for depth in _DEPTHS:
            runs = results.select(what=what, layers=depth).done
            if not runs:
                continue
            problem = runs[0].problem
            for g, group in enumerate(problem.groups):
                left = [run.decay for run in runs if _left(run, g)]
                end = local_minimum_ends(group.count, depth, problem.num_samples)
                limit, last = _limits(problem)[g], max(left, default=None)
                lines.append([name, depth, group.count, limit, end, last])
    columns = ["", "M", "samples", "threshold", "local minimum ends", "last decay left"]
    note = "Of all starts; decays are those of the grid."
    return Table("Thresholds and the largest decay at which a class is left", columns, lines, note)


FIGURE = Figure(
    "thresholds",
    "Which classes vanish",
    "follows from the imbalanced theorems (no figure)",
    claim="A class has zero features and classifier rows when its number of samples is too "
    "small for the decays; with several layers its length jumps to zero.",
    caption="Own logits of the classes over the decays: with one layer they go to zero "
    "continuously, with more they jump at the vertical line.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.STARTS_NOTE + " For every class with M > 1 zero is such a minimum. "
    "dang-2024/collapse-threshold has the same rule.",
    place=5,
)
