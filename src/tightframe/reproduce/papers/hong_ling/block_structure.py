"""Fig. 1-2 of Hong & Ling: within-class collapse and the block structure of the predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import Chart, Curve, HeatMaps, Matrix, Panel, block_borders
from tightframe.reproduce.judging import below, largest
from tightframe.reproduce.papers.hong_ling import shared
from tightframe.reproduce.results import Array, Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict

_BLOCKS = {
    "paper": {"1": "5000x4,4000x3,3000x3", "2": "5000x4,3000x2,1000x4"},
    "cpu": {"1": "100x4,80x3,60x3", "2": "100x4,60x2,20x4"},
    "smoke": {"1": "100x4,80x3,60x3", "2": "100x4,60x2,20x4"},
}


#: Networks and data of the paper, which trains each on both structures.
_NETWORKS = {
    "smoke": [("digits", "mlp")],
    "cpu": [("digits", "mlp")],
    "paper": [
        (data, network)
        for data in ("cifar10", "fashion_mnist")
        for network in ("resnet18", "vgg11", "vgg13")
    ],
}
_NAMES = {
    "digits": "digits",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR10",
    "mlp": "MLP",
    "resnet18": "ResNet18",
    "vgg11": "VGG11",
    "vgg13": "VGG13",
}


def _decay(scale: str) -> float:
    """Return lambda; the paper's are lambda_W = 1e-3, lambda_H = 1e-6 without the one half."""
    return math.sqrt(2e-3 * 2e-6) if scale == "paper" else 2e-3


def network_tasks(scale: str) -> list[Task]:
    """Train every network of a scale on both structures."""
    tasks = []
    for structure, counts in _BLOCKS[scale].items():
        for data, network in _NETWORKS[scale]:
            more: dict[str, Any] = {}
            if scale == "paper":
                more = {
                    "data": data,
                    "network": network,
                    "network_options": {"stem": "cifar"} if network == "resnet18" else {},
                    "settings": [[2e-3, 2e-6]],
                    "epochs": 1000,
                    "milestones": [333],
                    "warmup_epochs": 0,
                    "backbone_weight_decay": 5e-4,
                }
            label = {"structure": structure, "data": data, "network": network}
            tasks.append(shared.network(scale, counts, _decay(scale), more, **label))
    return tasks


def network_name(run: Run) -> str:
    """Return what a network is, and on what it was trained."""
    labels = run.labels
    where = f"{_NAMES[labels['network']]} on {_NAMES[labels['data']]}"
    return f"{where}, structure {labels['structure']}"


def _tasks(scale: str) -> list[Task]:
    tasks = []
    for structure, counts in _BLOCKS[scale].items():
        problems = [shared.problem(counts, _decay(scale))]
        tasks.append(shared.theory(problems, structure=structure))
        tasks.append(shared.ufm(scale, problems, structure=structure))
    return [*tasks, *network_tasks(scale)]


def min_max(logits: Array) -> Array:
    """Return a matrix moved and scaled to the range from 0 to 1, as the paper's maps are."""
    low, high = logits.min(), logits.max()
    scaled: Array = (logits - low) / (high - low) if high > low else np.zeros_like(logits)
    return scaled


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
            claimed="networks: the features of a class collapse to their mean (NC1 tends to 0)",
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
                claimed=f"{what}: classes with as many samples form blocks in the mean logits",
                sentence=f"{what}: the mean logits differ from their own block averages by "
                f"{worst:.2g} of their norm" + (shared.SHORT if short else "."),
            )
        )
    return verdicts


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    networks = results.select(what="network").done
    for structure in _BLOCKS[results.scale]:
        curves = [
            Curve(network_name(run), list(run.history["epoch"]), list(run.history["nc1"]), color)
            for color, run in enumerate(networks)
            if run.labels["structure"] == structure
        ]
        title = f"NC1 during training, structure {structure}"
        panels.append(Chart(title, "epoch", "NC1 = tr(Σ_W Σ_B⁺)/K", curves, log_y=True))
    for structure, counts in _BLOCKS[results.scale].items():
        maps: list[Matrix] = []
        borders: list[float] = []
        own = results.select(what="UFM", structure=structure).done[:1]
        for run in (*own, *(run for run in networks if run.labels["structure"] == structure)):
            if not maps:
                maps.append(Matrix("predicted", min_max(run.array("predicted_logits"))))
            name = "UFM" if run.labels["what"] == "UFM" else network_name(run)
            maps.append(Matrix(name, min_max(run.array("logits"))))
            borders = block_borders(run.problem.counts)
        title = f"Mean logits, min-max standardised, samples per class {counts}"
        panels.append(HeatMaps(title, maps, borders=borders, limit=1.0))
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
    "proportions (structure 2: 100, 60, 20). At scale paper the optimiser's decay of 5e-4 is that "
    "of the backbone alone; the paper's acts on W and b besides λ_W and λ_b.",
    place=1,
)
