"""Fig. 1-2 of Hong & Ling: within-class collapse and the block structure of the predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import Chart, Curve, HeatMaps, Matrix, Panel, block_borders
from tightframe.reproduce.judging import below, largest
from tightframe.reproduce.papers.hong_ling import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict

_BLOCKS = {
    "paper": {"1": "5000x4,4000x3,3000x3", "2": "5000x4,3000x2,1000x4"},
    "cpu": {"1": "100x4,80x3,60x3", "2": "100x4,60x2,20x4"},
    "smoke": {"1": "100x4,80x3,60x3", "2": "100x4,60x2,20x4"},
}


def _tasks(scale: str) -> list[Task]:
    tasks = []
    for structure, counts in _BLOCKS[scale].items():
        # The paper's decays: lambda_W = 1e-3, lambda_H = 1e-6 without the one half.
        decay = math.sqrt(2e-3 * 2e-6) if scale == "paper" else 2e-3
        more = {
            "settings": [[2e-3, 2e-6]],
            "epochs": 1000,
            "milestones": [333],
            "warmup_epochs": 0,
            "backbone_weight_decay": 5e-4,
        }
        label: dict[str, Any] = {"structure": structure}
        tasks.append(shared.theory([shared.problem(counts, decay)], **label))
        tasks.append(shared.ufm(scale, [shared.problem(counts, decay)], **label))
        backbones: list[Mapping[str, Any]] = [{}]
        if scale == "paper":
            backbones = [{}, {"network": "vgg11"}, {"network": "vgg13", "data": "fashion_mnist"}]
        for i, backbone in enumerate(backbones):
            merged = {**more, **backbone} if scale == "paper" else backbone
            if "vgg" in merged.get("network", ""):
                merged = {**merged, "network_options": {}}
            tasks.append(shared.network(scale, counts, decay, merged, network=i, **label))
    return tasks


def block_deviation(logits: NDArray[Any], groups: NDArray[Any]) -> float:
    """Return how far a K x K matrix is from being constant on blocks, relative to its norm.

    A block's diagonal, for a group of classes with itself, may differ from its other entries
    (Hong & Ling 2023: ``a_j I + b_j J``).
    """
    z = np.asarray(logits, dtype=np.float64)
    fitted = z.copy()
    for i in np.unique(groups):
        for j in np.unique(groups):
            inside = np.ix_(groups == i, groups == j)
            block = z[inside]
            if i != j:
                fitted[inside] = block.mean()
                continue
            diagonal = np.eye(len(block), dtype=bool)
            filled = np.full_like(block, block[~diagonal].mean() if len(block) > 1 else 0.0)
            filled[diagonal] = block[diagonal].mean()
            fitted[inside] = filled
    return float(np.linalg.norm(z - fitted) / np.linalg.norm(z))


def _deviation(run: Run) -> float:
    return block_deviation(run.array("logits"), run.problem.class_groups)


def _judge(results: Results) -> list[Verdict]:
    networks = results.select(what="network")
    smoke = results.scale == "smoke"
    nc1 = largest(networks, lambda run: run.measured("nc1"))
    verdicts = [
        below(
            nc1,
            1e-2,
            networks,
            decidable=not smoke,
            criterion="NC1 of every network ends below 1e-2",
            claimed="the features of a class collapse to their mean (NC1 tends to 0)",
            sentence=f"The largest NC1 at the end of training is {nc1:.2g}"
            + (shared.SHORT if smoke else "."),
        )
    ]
    for what, part, tolerance in (
        ("UFM", results.select(what="UFM"), 1e-2),
        ("networks", networks, 5e-2),
    ):
        worst = largest(part, _deviation)
        short = smoke and what == "networks"
        verdicts.append(
            below(
                worst,
                tolerance,
                part,
                decidable=not short,
                criterion=f"the mean logits of the {what} differ from block-constant ones by less "
                f"than {tolerance:g} of their norm",
                claimed="classes with as many samples form blocks in the mean logits",
                sentence=f"{what}: the mean logits differ from their own block averages by "
                f"{worst:.2g} of their norm" + (shared.SHORT if short else "."),
            )
        )
    return verdicts


def _draw(results: Results) -> list[Panel]:
    curves = []
    for color, run in enumerate(results.select(what="network").done):
        label = f"structure {run.labels['structure']}"
        if results.scale == "paper":
            label += f", {run.task.arguments['config']['network']}"
        history = run.history
        curves.append(Curve(label, list(history["epoch"]), list(history["nc1"]), color))
    title = f"NC1 during training, {shared.NETWORKS[results.scale]}"
    panels: list[Panel] = [
        Chart(title, "epoch", "NC1 = tr(Σ_W Σ_B⁺)/K", curves, log_y=True),
    ]
    for structure, counts in _BLOCKS[results.scale].items():
        maps: list[Matrix] = []
        borders: list[float] = []
        for what, name in (("UFM", "UFM"), ("network", shared.NETWORKS[results.scale])):
            for run in results.select(what=what, structure=structure).done[:1]:
                if not maps:
                    maps.append(Matrix("predicted", run.array("predicted_logits")))
                maps.append(Matrix(name, run.array("logits")))
                borders = block_borders(run.problem.counts)
        panels.append(HeatMaps(f"Mean logits, samples per class {counts}", maps, borders=borders))
    return panels


FIGURE = Figure(
    "block-structure",
    "Within-class collapse and the block structure of the predictions",
    "Fig. 1-2",
    claim="Features collapse to their class means (NC1 tends to 0), and the mean logits "
    "have a block structure: classes with equally many samples are interchangeable.",
    caption="NC1 falls over training; in the maps every block between two groups of "
    "classes has one colour, except for the diagonals of the blocks on the diagonal.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note="At scales smoke and cpu: MLPs on digits with λ = 2e-3 and counts in the paper's "
    "proportions (structure 2: 100, 60, 20). At scale paper VGG11 on CIFAR10 and VGG13 on "
    "Fashion-MNIST stand for the paper's further networks, and the optimiser's decay of "
    "5e-4 is that of the backbone alone; the paper's acts on W and b besides λ_W and λ_b.",
    place=1,
)
