"""Dang et al. 2023: imbalanced classes, networks with deep linear heads."""

from __future__ import annotations

from typing import Any

import numpy as np

from tightframe.figures.model import Panel
from tightframe.geometry.dense import normalized_distance
from tightframe.reproduce.judging import below, largest
from tightframe.reproduce.papers.dang_2023 import shared
from tightframe.reproduce.papers.dang_2023.frames import length_table
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict

IMBALANCED_CIFAR = "100x2,200x2,300x2,400x2,500x2"


def _tasks(scale: str) -> list[Task]:
    counts = IMBALANCED_CIFAR if scale == "paper" else "20x2,40x2,60x2,80x2,100x2"
    # The code takes all 3000 samples in one batch.
    setting = shared.paper_setting(counts, 1e-5, 3000, 3000)
    tasks = [
        shared.theory(
            [shared.network_problem(counts, setting, depth) for depth in shared.IMBALANCED_DEPTHS]
        )
    ]
    more: dict[str, Any] = dict(shared.ORTHOGONAL)
    if scale == "cpu":
        more |= {"epochs": 900, "measure_every": 30}
    if scale == "paper":
        more |= {"batch_size": None, "epochs": 12_000, "milestones": [6000], "measure_every": 200}
    for depth in shared.IMBALANCED_DEPTHS[:2] if scale == "smoke" else shared.IMBALANCED_DEPTHS:
        tasks.append(shared.network(scale, counts, setting, {"depth": depth, **more}, layers=depth))
    return tasks


def _share(run: Run) -> list[float]:
    """Return distances to the predicted frame over those to the frame of equal lengths."""
    equal = np.eye(run.problem.num_classes)
    return [
        float(
            run.measured(f"{name}_to_predicted")
            / np.float64(normalized_distance(run.array(name), equal))
        )
        for name in ("classifier", "means")
    ]


def _judge(results: Results) -> list[Verdict]:
    part = results.select(what="network")
    claim = "networks: NC1 and the distances to the general orthogonal frame fall to near 0"
    ratio = largest(part, _share)
    smoke = results.scale == "smoke"
    return [
        shared.judge_collapse(part, "network", claim, shared.title_of(results)),
        below(
            ratio,
            0.5,
            part,
            decidable=not smoke,
            criterion="W Wᵀ and H̄ᵀH̄ of every network are less than half as far from the general "
            "orthogonal frame of the counts as from the frame of equal lengths",
            claimed="lengths depend on the number of samples: larger classes have longer "
            "classifier rows",
            sentence=f"{shared.title_of(results)}: the distance to the predicted frame is at most "
            f"{ratio:.2g} of that to an orthogonal frame of equal lengths"
            + (", after a short training." if smoke else "."),
        ),
        shared.judge_partial(part, "network", shared.title_of(results)),
    ]


def _draw(results: Results) -> list[Panel]:
    part, name = results.select(what="network"), shared.title_of(results)
    return [
        *shared.collapse_charts(part, name, "epoch"),
        shared.final_table(part, f"{name}, end of training"),
        length_table(part.done, f"Squared lengths, the paper's formula and {name}"),
    ]


FIGURE = Figure(
    "imbalanced-networks",
    "Imbalanced classes, networks with deep linear heads",
    "multilayer perceptron experiment, imbalanced",
    claim="Networks on imbalanced data converge to the general orthogonal frame of their counts.",
    caption="The metrics of the networks over training; the table compares lengths.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.NETWORK_NOTE + " Counts are a fifth of the paper's.",
    place=4,
)
