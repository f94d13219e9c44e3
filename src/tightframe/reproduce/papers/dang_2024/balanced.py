"""Balanced counts: the corollary of Dang et al. 2024 on a simplex ETF and an orthogonal frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tightframe.figures.model import Chart, Curve, HeatMaps, Matrix, Panel
from tightframe.problem.counts import format_runs
from tightframe.reproduce.judging import below, decided, largest, largest_each, number, verdict
from tightframe.reproduce.papers.dang_2024 import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict

#: Imbalance ratios of the closed form's own distances.
_RATIOS = (1, 2, 3, 5, 10, 20, 50, 100)

#: What is measured against what the theorem has for balanced counts.
_BALANCED = {
    "W to the simplex ETF": "classifier_to_etf",
    "H to the orthogonal frame": "means_to_orthogonal_frame",
}


def _tasks(scale: str) -> list[Task]:
    problems = []
    for ratio in _RATIOS:
        counts = format_runs([(100, 5), (100 * ratio, 5)])
        decay = shared.decay_of(counts, shared.STRENGTH["UFM"])
        problems.append(shared.problem_of(counts, decay).to_dict())
    tasks = [Task("solve", {"problems": problems, "arrays": True}, {"what": "theory"})]
    tasks.append(shared.sampled(scale, "30x10" if scale == "smoke" else "300x10", {}))
    if scale == "paper":
        problem = shared.paper_problem("300x10")
        config: dict[str, Any] = {"data": "fashion_mnist", "counts": "300x10"}
        config["settings"] = [[problem.weight_decays[0], problem.feature_decay]]
        for name, options in shared.PAPER_NETWORKS.items():
            given = {**config, **shared.PAPER_TRAINING, **options}
            tasks.append(shared.network(f"{name}, fashion_mnist", given))
        return tasks
    config = {"data": "digits", **shared.setting("84x10")}
    tasks.append(shared.network("MLP, digits", {**config, **shared.MLP[scale]}))
    if scale == "cpu":
        tasks.append(shared.network("VGG11, digits", {**config, **shared.CNN[scale]}))
    return tasks


def _distances(run: Run) -> list[float]:
    """Return the distances of `_BALANCED` from a run's Grams."""
    k = run.problem.num_classes
    found = []
    for name, frame in (("classifier", np.eye(k) - 1 / k), ("means", np.eye(k))):
        gram = run.array(name)
        size = np.linalg.norm(gram)
        unit = gram / size if size > 0 else np.full_like(gram, np.nan)
        found.append(float(np.linalg.norm(unit - frame / np.linalg.norm(frame))))
    return found


_CLAIM = "with balanced counts W is a simplex ETF and H an orthogonal frame"


def _judge(results: Results) -> list[Verdict]:
    ufms, networks = results.select(what="UFM").runs, results.select(what="network").runs
    short = results.scale == "smoke"
    return [
        _judge_theory(results.select(what="theory")),
        _judge_part(ufms, "UFM", 1e-3),
        *(_judge_part([run], run.labels["network"], 0.1, short=short) for run in networks),
    ]


def _judge_theory(part: Results) -> Verdict:
    runs = sorted(part.done, key=lambda run: run.problem.num_samples)
    distances = np.reshape([_distances(run) for run in runs], (-1, 2))
    nearest = float(distances[0].max()) if runs else math.nan
    grows = bool((np.diff(distances, axis=0) > 0).all())
    ends = distances[-1] if runs else (math.nan, math.nan)
    return verdict(
        decided(part, nearest < 1e-12 and grows),
        criterion="the closed form's distances to both frames are below 1e-12 for balanced "
        "counts and grow with the imbalance ratio",
        claimed=f"Closed form: {_CLAIM}",
        predicted=0.0,
        measured=nearest,
        tolerance=1e-12,
        sentence=f"Closed form: the distances are {nearest:.1g} for balanced counts and, at "
        f"ratio {_RATIOS[-1]}, {ends[0]:.2g} for W and {ends[1]:.2g} for H.",
    )


def _judge_part(
    runs: Sequence[Run], name: str, tolerance: float, *, short: bool = False
) -> Verdict:
    most = largest_each(runs, _distances)
    ends = ", ".join(f"{frame} {number(v)}" for frame, v in zip(_BALANCED, most, strict=False))
    return below(
        largest(runs, _distances),
        tolerance,
        runs,
        decidable=not short,
        criterion=f"both normalised distances end below {tolerance:g}",
        claimed=f"{name}: {_CLAIM}",
        sentence=f"{name}: {ends}" + (shared.SHORT if short else "."),
    )


def _draw(results: Results) -> list[Panel]:
    ufms, networks = results.select(what="UFM").done, results.select(what="network").done
    panels: list[Panel] = []
    for run in ufms[:1]:
        curves = [
            shared.history_curve(run, "iteration", column, name, color)
            for color, (name, column) in enumerate(_BALANCED.items())
        ]
        title = f"UFM, n = {run.problem.compact_counts}"
        y_label = "normalised distance"
        panels.append(Chart(title, "iteration", y_label, curves, log_x=True, log_y=True))
    # The means' prediction is the orthogonal frame, see the first verdict.
    columns = ("classifier_to_etf", "means_to_predicted")
    curves = [
        Curve(
            f"{run.labels['network']}: {name}",
            list(run.history["epoch"]),
            list(run.history[column]),
            color,
            shared.STYLES[i % len(shared.STYLES)],
        )
        for i, run in enumerate(networks)
        for color, (name, column) in enumerate(zip(_BALANCED, columns, strict=True))
    ]
    panels.append(Chart("Networks", "epoch", "normalised distance", curves, log_y=True))
    panels.append(_theory_chart(results.select(what="theory").done))
    for runs in (ufms, networks):
        for run in runs[:1]:
            maps = []
            for vectors, symbol in (("classifier", "W"), ("means", "H")):
                gram = run.array(vectors)
                maps.append(Matrix(f"{symbol}: {vectors}", gram / np.diagonal(gram).max()))
            name = run.labels.get("network", "UFM")
            title = f"{name}: Gram matrices over their largest entry"
            panels.append(HeatMaps(title, maps, x_label="class", y_label="class"))
    return panels


def _theory_chart(runs: Sequence[Run]) -> Chart:
    runs = sorted(runs, key=lambda run: run.problem.num_samples)
    points = [_distances(run) for run in runs]
    ratios = [run.problem.counts.max() / run.problem.counts.min() for run in runs]
    curves = [
        Curve(name, ratios, [point[i] for point in points], i, "line+points")
        for i, name in enumerate(_BALANCED)
    ]
    title = "Closed form under imbalance, 5 classes each"
    x_label = "imbalance ratio n_max / n_min"
    return Chart(title, x_label, "normalised distance", curves, log_x=True)


FIGURE = Figure(
    "balanced",
    "Balanced counts: simplex ETF and orthogonal frame",
    "corollary (no figure)",
    claim="With balanced counts W is a simplex ETF and the class means an orthogonal frame.",
    caption="Both distances fall to zero; the closed form leaves both frames as soon as "
    "the counts differ.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.SMALL + "Balanced: 84 a class on digits, lambda by the same rule; at scale "
    "paper 300 a class of Fashion-MNIST.",
    place=5,
)
