"""Thrampoulidis et al.: minority angles over the imbalance."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tightframe.figures.model import Chart, Curve, Mark, Panel
from tightframe.geometry.dense import seli
from tightframe.problem.problem import Problem
from tightframe.reproduce.judging import decided, mean_by, rises, switch, verdict
from tightframe.reproduce.papers.thrampoulidis import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict

RATIO_AXIS = "imbalance R"


def _ratios_of(scale: str) -> tuple[int, ...]:
    """Return the imbalances of curves over R."""
    return shared.RATIOS if scale == "smoke" else shared.MORE_RATIOS


def _minimisers(problems: Sequence[Mapping[str, Any]], of: str) -> Task:
    options = {"problems": list(problems), "arrays": True}
    return Task("solve", options, {"what": "theory", "of": of})


_DENSE_RATIOS = (1, 2, 3, 5, 7, 10, 14, 20, 30, 50, 70, 100, 200, 300, 1000, 10_000)
_FAR_RATIOS = (10**5, 10**6, 10**8, 10**10, 10**12)

#: A decay that stays as the majority grows, with one sample of each minority class.
_FIXED_DECAY = 1e-3
_FIXED_RATIOS = (1, 2, 5, 10, 20, 40, 70, 100, 120, 140, 160, 180, 190, 200, 220, 250, 300, 500)

#: A mean cosine this close to 1 counts as one common direction.
_MERGED = 1e-6


def _tasks(scale: str) -> list[Task]:
    data, network = shared.NETWORKS[scale][0]
    ratios = [r for r in _DENSE_RATIOS if r <= 1000]
    fixed = [
        Problem(shared.step(r), weight_decay=_FIXED_DECAY, feature_decay=_FIXED_DECAY).to_dict()
        for r in _FIXED_RATIOS
    ]
    tasks = [
        _minimisers([shared.problem(shared.step(r), shared.RIDGE) for r in ratios], "UFM"),
        _minimisers(fixed, "fixed decay"),
    ]
    if scale != "paper":
        problems = [
            shared.problem(shared.network_counts(scale, r), shared.NETWORK_RIDGE)
            for r in shared.MORE_RATIOS
        ]
        tasks.append(_minimisers(problems, "network"))
    tasks += [shared.ufm(scale, ratio) for ratio in _ratios_of(scale)]
    return tasks + [shared.network_task(scale, ratio, data, network) for ratio in _ratios_of(scale)]


def _own_ratio(run: Run) -> float:
    """Return the imbalance R of a run's problem."""
    counts = run.problem.counts
    return float(counts[0] / counts[-1])


def _angle(run: Run, key: str = "w_minor") -> float:
    return shared.values_of(shared.measured(run))[key]


def _judge(results: Results) -> list[Verdict]:
    name, networks = next(shared.networks_of(results))
    smoke = results.scale == "smoke"
    own = f"UFM, ridge {shared.RIDGE:g}"
    # At scale paper the networks' ridge is unknown.
    beside = None if results.scale == "paper" else results.select(what="theory", of="network").runs
    ufm_theory = results.select(what="theory", of="UFM").runs
    return [
        _judge_seli(),
        _judge_fixed(results),
        _judge_models(own, shared.ufm_runs(results, shared.RIDGE), ufm_theory, 0.02, results.scale),
        _judge_models(name, networks.runs, beside, 0.1, results.scale, short=smoke),
    ]


def _judge_seli() -> Verdict:
    ratios = [*_DENSE_RATIOS, *_FAR_RATIOS]
    exact = [shared.values_of(seli(shared.step(ratio)))["w_minor"] for ratio in ratios]
    last = exact[-1]
    return verdict(
        decided((), rises(exact) and 0.999 < last < 1),
        criterion="in SELI the cosine of two minority classifiers rises at every step of R "
        "from 1 to 1e12, to above 0.999 and below 1",
        claimed="minority classifiers merge asymptotically, as R grows, and are distinct at "
        "every finite R",
        predicted=1.0,
        measured=last,
        tolerance=0.001,
        sentence=f"The cosine rises from {exact[0]:.3f} at R = 1 over "
        f"{exact[ratios.index(100)]:.3f} at R = 100 to 1 - {1 - last:.1g} at R = 1e12.",
    )


def _judge_models(
    name: str,
    runs: Sequence[Run],
    theory: Sequence[Run] | None,
    tolerance: float,
    scale: str,
    *,
    short: bool = False,
) -> Verdict:
    """Judge models of all R; without ``theory`` there is nothing but the order to compare."""
    shared.check_ratios(name, runs, _ratios_of(scale))
    found = {float(ratio): float(v) for ratio, v in mean_by(runs, shared.ratio_of, _angle).items()}
    ends = list(found.items()) or [(math.nan, math.nan)]
    (low, first), (high, last) = ends[0], ends[-1]
    formula = shared.step_values(shared.CLASSES, max(_ratios_of(scale)))["w_minor"]
    predicted, near, off = formula, True, math.nan
    if theory is not None:
        minima = {_own_ratio(run): _angle(run) for run in theory if not run.failed}
        off = float(np.max([abs(v - minima.get(r, math.nan)) for r, v in ends]))
        predicted, near = minima.get(high, math.nan), off < tolerance
    return verdict(
        decided(
            (*runs, *(theory or ())),
            None if short else rises(found.values()) and near,
            refuted=False,
        ),
        criterion="the cosine of two minority classifiers (mean over seeds) rises at every step "
        "of R" + (f", within {tolerance:g} of the certified minimiser's" if theory else ""),
        claimed=f"{name}: the angle between minority classifiers closes as R grows",
        predicted=predicted,
        measured=last,
        tolerance=tolerance if theory else None,
        sentence=f"{name}: the cosine goes from {first:.3f} at R = {low:g} to {last:.3f} at R = "
        f"{high:g} (SELI {formula:.3f}"
        + (f"; at most {off:.2g} from the minimisers" if theory else "")
        + ")"
        + (f"{shared.SHORT}." if short else "."),
    )


def _merging() -> float:
    """Return from which R on the minority merges at the fixed decay: ``N lambda = sqrt(n_min)``."""
    return (1 / _FIXED_DECAY - shared.CLASSES // 2) / (shared.CLASSES // 2)


def _judge_fixed(results: Results) -> Verdict:
    """Judge at which R the certified minimiser of a fixed decay merges the minority."""
    part = results.select(what="theory", of="fixed decay")
    found = switch(
        part,
        _merging(),
        _own_ratio,
        lambda runs: all(_angle(run) > 1 - _MERGED for run in runs),
    )
    ratios = found.values
    at = found.found
    where = f"R = {ratios[at]:g}" if at < len(ratios) else f"no R up to {ratios[-1]:g}"
    return verdict(
        decided(part, found.holds, refuted=found.refuted),
        criterion="at a fixed decay the certified minimiser's minority classifiers are distinct "
        f"below one R of the grid and have cosine 1 (within {_MERGED:g}) from it on; that R is the "
        "theory's, √n_min / N ≤ λ, within one step of the grid",
        claimed="(Hong & Ling 2023) with any fixed decay minorities merge at a finite R; that they "
        "merge only asymptotically is a statement on the vanishing ridge",
        predicted=ratios[found.expected] if found.expected < len(ratios) else None,
        measured=ratios[at] if at < len(ratios) else None,
        tolerance="1 grid step",
        sentence=f"At λ = {_FIXED_DECAY:g} the minority classifiers have one direction from "
        f"{where} on.",
    )


def _draw(results: Results) -> list[Panel]:
    def theory(of: str) -> list[Run]:
        return sorted(results.select(what="theory", of=of).done, key=_own_ratio)

    name, networks = next(shared.networks_of(results))
    ufms = [run for run in shared.ufm_runs(results, shared.RIDGE) if not run.failed]
    beside = theory("network") if results.scale != "paper" else []
    models = ((f"UFM, ridge {shared.RIDGE:g}", theory("UFM"), ufms), (name, beside, networks.done))
    dense = [r for r in _DENSE_RATIOS if r <= 1000]
    panels: list[Panel] = []
    for key, title in (
        ("w_minor", "Cosine of two minority classifiers"),
        ("h_minor", "Cosine of two minority class means"),
        ("wh_minor", "Cosine of a minority's classifier and mean"),
    ):
        curves = [
            Curve(
                "SELI",
                dense,
                [shared.step_values(shared.CLASSES, r)[key] for r in dense],
                "predicted",
            )
        ]
        for color, (label, minima, points) in enumerate(models, start=1):
            if minima:
                words = f"minimiser of the {'UFM' if color == 1 else 'network'}'s ridge"
                x, y = [_own_ratio(run) for run in minima], [_angle(run, key) for run in minima]
                curves.append(Curve(words, x, y, color, "dashed"))
            if points:
                means = mean_by(points, _own_ratio, functools.partial(_angle, key=key))
                curves.append(Curve(label, list(means), list(means.values()), color, "points"))
        marks = [Mark(1.0 if key == "wh_minor" else -1 / 9, "simplex ETF", "y", "etf")]
        panels.append(Chart(title, RATIO_AXIS, "cosine", curves, marks, log_x=True))
    fixed = theory("fixed decay")
    x = [_own_ratio(run) for run in fixed]
    curves = [
        Curve(
            "SELI", x, [shared.step_values(shared.CLASSES, r)["w_minor"] for r in x], "predicted"
        ),
        Curve("minimiser", x, [_angle(run) for run in fixed], "measured", "line+points"),
    ]
    panels.append(
        Chart(
            f"Minority classifiers at λ = {_FIXED_DECAY:g} (dotted: predicted merging)",
            RATIO_AXIS,
            "cosine",
            curves,
            [Mark(_merging(), "", "x", "bound")],  # a label would lie on the curve
            log_x=True,
        )
    )
    return panels


FIGURE = Figure(
    "minority-angles",
    "Minority angles over the imbalance",
    "asymptotic minority collapse",
    claim="The angle between minority classifiers closes as R grows, while minority class "
    "means spread; for every finite R they stay distinct.",
    caption="Minority classifiers turn towards each other, their class means apart (at the "
    "ridges of the runs hardly), and so the two lose their alignment. With a "
    "fixed decay (last chart) minorities merge at a finite R.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.NETWORK_NOTE + " " + shared.UFM_NOTE,
    place=6,
)
