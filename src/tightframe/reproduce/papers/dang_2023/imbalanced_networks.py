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

#: A fifth of the paper's, for CPUs.
_FIFTH = "20x2,40x2,60x2,80x2,100x2"

#: Data sets of the MLPs, and what they are called.
_DATA = {
    "smoke": {"digits": "digits"},
    "cpu": {"digits": "digits", "fashion_mnist": "Fashion-MNIST"},
    "paper": {"cifar10": "CIFAR10"},
}


def _tasks(scale: str) -> list[Task]:
    counts = IMBALANCED_CIFAR if scale == "paper" else _FIFTH
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
    depths = shared.IMBALANCED_DEPTHS[:2] if scale == "smoke" else shared.IMBALANCED_DEPTHS
    for data, name in _DATA[scale].items():
        labels = {"network": f"MLP on {name}"}
        for depth in depths:
            own = {"data": data, "depth": depth, **more}
            tasks.append(shared.network(scale, counts, setting, own, layers=depth, **labels))
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
    smoke = results.scale == "smoke"
    verdicts = []
    for name, part in shared.by_network(results).items():
        claim = f"{name}: NC1 and the distances to the general orthogonal frame fall to near 0"
        ratio = largest(part, _share)
        verdicts += [
            shared.judge_collapse(part, "network", claim, name),
            below(
                ratio,
                0.5,
                part,
                decidable=not smoke,
                criterion="W Wᵀ and H̄ᵀH̄ of every network are less than half as far from the "
                "general orthogonal frame of the counts as from the frame of equal lengths",
                claimed=f"{name}: lengths depend on the number of samples: larger classes have "
                "longer classifier rows",
                sentence=f"{name}: the distance to the predicted frame is at most {ratio:.2g} of "
                "that to an orthogonal frame of equal lengths"
                + (", after a short training." if smoke else "."),
            ),
            shared.judge_partial(part, "network", name),
        ]
    return verdicts


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for name, part in shared.by_network(results).items():
        panels += shared.collapse_charts(part, name, "epoch")
        title = f"Squared lengths, the paper's formula and the {name}"
        panels.append(length_table(part.done, title))
        panels.append(shared.final_table(part, f"{name}, end of training"))
    return panels


FIGURE = Figure(
    "imbalanced-networks",
    "Imbalanced classes, networks with deep linear heads",
    "multilayer perceptron experiment, imbalanced",
    claim="Networks on imbalanced data converge to the general orthogonal frame of their counts.",
    caption="The metrics of the networks over training; the table compares lengths.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.NETWORK_NOTE
    + " At cpu the same MLP on Fashion-MNIST, too. Counts are a fifth of the "
    "paper's.",
    place=4,
)
