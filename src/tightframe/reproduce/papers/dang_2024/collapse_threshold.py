"""Each class vanishes at its own threshold, as the theorem of Dang et al. 2024 implies."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tightframe.figures.model import (
    Chart,
    Curve,
    HeatMaps,
    Mark,
    Matrix,
    Panel,
    Table,
    block_borders,
)
from tightframe.reproduce.judging import (
    Switch,
    at_minimum,
    best_by,
    best_switch,
    decided,
    intervals,
    sorted_by,
    verdict,
)
from tightframe.reproduce.papers.dang_2024 import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict
from tightframe.runs.verdicts import COLLAPSE_TOLERANCE as COLLAPSED
from tightframe.theory.thresholds import thresholds

LAMBDA = "λ = √(weight decay · feature decay)"


#: lambda in units of the smallest class's threshold: at least two points between two thresholds,
#: which are at 1, sqrt(2), ..., sqrt(5), and beyond the last, so that a switch two steps off shows.
_GRID = (0.4, 0.8, 0.95, 1.05, 1.2, 1.35, 1.48, 1.66, 1.8, 1.93, 2.07, 2.17, 2.3, 2.45)

#: Points of the grid at which a smoke run trains a network.
_SMOKE_POINTS = (0, 6)


def _unit(counts: str) -> float:
    """Return the decay at which the smallest class vanishes."""
    groups = thresholds(shared.problem_of(counts, 1.0)).groups
    return float(min(group.logit_decay or math.inf for group in groups))


def _tasks(scale: str) -> list[Task]:
    tasks = []
    counts = {"UFM": shared.COUNTS["MNIST, Fashion-MNIST"], "network": shared.DIGITS}
    if scale == "paper":
        counts["network"] = shared.COUNTS["MNIST, Fashion-MNIST"]
    for of, own in counts.items():
        dense = [float(round(u * _unit(own), 9)) for u in np.linspace(_GRID[0], _GRID[-1], 39)]
        problems = [shared.problem_of(own, decay).to_dict() for decay in dense]
        tasks.append(Task("solve", {"problems": problems}, {"what": "theory", "of": of}))
    decays = [round(u * _unit(counts["UFM"]), 9) for u in _GRID]
    options: dict[str, Any] = {"per_sample": False, "dim": 40, "lr": 20.0}
    options |= {"iterations": 4000, "records": 5}
    options["seeds"] = list(range(3 if scale == "smoke" else 10))
    tasks.append(
        shared.ufm([shared.problem_of(counts["UFM"], decay) for decay in decays], {}, **options)
    )
    for i, u in enumerate(_GRID):
        if scale == "smoke" and i not in _SMOKE_POINTS:
            continue
        decay = float(round(u * _unit(counts["network"]), 9))
        config: dict[str, Any] = {"counts": counts["network"]}
        config["settings"] = [[10 * decay, decay / 10]]
        if scale == "paper":
            config |= {
                "data": "fashion_mnist",
                **shared.PAPER_NETWORKS["MLP"],
                **shared.PAPER_TRAINING,
            }
        else:
            config |= {"data": "digits", **shared.MLP[scale]}
        if scale == "cpu":
            config |= {"feature_dim": 256, "epochs": 500, "measure_every": 100}
        # With full decays from the start on, classes above their threshold vanish for good.
        config["warmup_epochs"] = config["epochs"] * 3 // 10
        tasks.append(shared.network("MLP", config, **{"lambda": decay}))
    return tasks


def _switches(runs: Sequence[Run]) -> dict[int, tuple[float, Switch]]:
    """Return by count where a group of classes vanishes, and measured where it does."""
    found = {}
    problem = runs[0].problem
    for g, (group, known) in enumerate(
        zip(problem.groups, thresholds(problem).groups, strict=True)
    ):
        threshold = float(known.logit_decay or math.nan)
        found[group.count] = (
            threshold,
            best_switch(runs, threshold, _decay, functools.partial(_vanished, g)),
        )
    return found


def _decay(run: Run) -> float:
    return run.decay


def _vanished(group: int, run: Run) -> bool:
    return not run.margins[group] > COLLAPSED


def _judge(results: Results) -> list[Verdict]:
    verdicts = []
    for what in ("UFM", "network"):
        part = results.select(what=what)
        found = _switches(part.runs)
        switches = [switch for _, switch in found.values()]
        predicted, measured = intervals({f"n_k = {n}": switch for n, (_, switch) in found.items()})
        smoke = what == "network" and results.scale == "smoke"
        sentence = f"{what}: the classes vanish at λ of {measured}."
        if what == "UFM":
            above = sum(not at_minimum(run) for run in part.done)
            sentence += (
                f" {above} of all {len(part.done)} runs end above the minimum, because classes "
                "that vanish too early stay at zero; of each λ the best run counts."
            )
        if smoke:
            sentence += " Too few points and too short a training to decide."
        holds = all(switch.holds for switch in switches)
        refuted = any(switch.refuted for switch in switches)
        verdicts.append(
            verdict(
                decided(part, None if smoke else holds, refuted=refuted and not smoke),
                criterion="for each of the five counts the switch lies within one grid step of the "
                f"predicted threshold (switch: from there on the margin is below {COLLAPSED} nats)",
                claimed=f"{what}: class k vanishes iff N √(λ_W λ_H) ≥ √(n_k (K-1)/K)",
                predicted=predicted,
                measured=measured,
                tolerance="1 grid step",
                sentence=sentence,
            )
        )
    return verdicts


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    table: list[list[Any]] = []
    note = "Dashed: closed form; points: measured; vertical lines: predicted thresholds."
    for what, title in (("UFM", "UFM, best of its starts"), ("network", "MLP")):
        line = sorted(results.select(what="theory", of=what).done, key=lambda run: run.decay)
        part = results.select(what=what)
        best = best_by(part, _decay)
        curves = []
        for g, group in enumerate(line[0].problem.groups if line else ()):
            x, y = [run.decay for run in line], [run.margins[g] for run in line]
            curves.append(Curve(f"n_k = {group.count}", x, y, g, "dashed"))
            if best:
                y = [run.margins[g] for run in best.values()]
                curves.append(Curve("", list(best), y, g, "points"))
        if line:
            title = f"{title}, n = {line[0].problem.compact_counts}"
        marks = _marks(line)
        panels.append(Chart(title, LAMBDA, "margin (nats)", curves, marks, note=note))
        if part.done:
            table += [
                [
                    what,
                    count,
                    threshold,
                    switch.interval(switch.found, ".3g", "{} to {}"),
                    abs(switch.steps),
                ]
                for count, (threshold, switch) in _switches(part.runs).items()
            ]
    ufms = results.select(what="UFM").done
    if ufms:
        share = {
            decay: float(np.mean([at_minimum(run) for run in own]))
            for decay, own in sorted_by(ufms, lambda run: run.decay).items()
        }
        curve = Curve("", list(share), list(share.values()), style="line+points")
        title = "UFM: share of the runs that end at the minimum"
        panels.append(Chart(title, LAMBDA, "share", [curve], _marks(ufms)))
    columns = ["", "samples n_k", "predicted λ", "measured between", "grid steps off"]
    panels.append(Table("Where classes vanish", columns, table))
    if ufms:
        maps = [
            Matrix(f"λ = {decay:.3g}", run.array("logits"))
            for decay, run in best_by(ufms, _decay).items()
        ]
        borders = block_borders(ufms[0].problem.counts)
        panels.append(HeatMaps("UFM, mean logits over λ", maps, borders=borders))
    return panels


def _marks(runs: Sequence[Run]) -> list[Mark]:
    """Mark each group's threshold in the group's colour."""
    groups = thresholds(runs[0].problem).groups if runs else ()
    return [Mark(group.logit_decay or 0.0, "", color=g) for g, group in enumerate(groups)]


FIGURE = Figure(
    "collapse-threshold",
    "Each class vanishes at its own threshold",
    "follows from the theorem (no figure)",
    claim="Class k vanishes, h_k = 0, exactly when N √(λ_W λ_H) ≥ √(n_k (K-1)/K).",
    caption="The margin of each group of classes falls to zero at the vertical line of its "
    "colour, the rarest classes first.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note="The UFM has the paper's counts and one column a class. A vanished class is also "
    "a local minimum below its threshold, so the run with the least objective counts; "
    "networks have one start and, as Hong & Ling's, a tenth of the decays in the first 30% "
    "of the training: without that, classes vanish before their threshold. " + shared.SMALL,
    place=4,
)
