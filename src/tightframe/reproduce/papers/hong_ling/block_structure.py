"""Fig. 1-2 of Hong & Ling: within-class collapse and the block structure of the predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import Chart, Curve, HeatMaps, Matrix, Panel, block_borders
from tightframe.reproduce.judging import below, largest
from tightframe.reproduce.papers.hong_ling import shared
from tightframe.reproduce.results import Array, Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict

_BLOCKS = {
    "paper": {"1": "5000x4,4000x3,3000x3", "2": "5000x4,3000x2,1000x4"},
    "cpu": {"1": "20x4,16x3,12x3", "2": "25x4,15x2,5x4"},
    "smoke": {"1": "100x4,80x3,60x3", "2": "100x4,60x2,20x4"},
}

#: Every network is trained on every data set, with both structures.
_DATA = {
    "smoke": ("digits",),
    "cpu": ("fashion_mnist", "digits"),
    "paper": ("cifar10", "fashion_mnist"),
}
_CONVOLUTIONAL = ("resnet18", "vgg11", "vgg13")
_NETWORKS = {"smoke": ("mlp",), "cpu": _CONVOLUTIONAL, "paper": _CONVOLUTIONAL}
_NAMES = {
    "digits": "digits",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR10",
    "mlp": "MLP",
    "resnet18": "ResNet18",
    "vgg11": "VGG11",
    "vgg13": "VGG13",
}

#: The paper's are lambda_W = 1e-3, lambda_H = 1e-6 without the one half.
_DECAYS = {"smoke": 2e-3, "cpu": 6e-3, "paper": math.sqrt(2e-3 * 2e-6)}

#: lambda_W over lambda_H in these figures.
_RATIO = 1000

#: How long networks are trained at scale cpu; VGGs need a while to begin.
_LENGTHS = {
    "resnet18": {"epochs": 400, "measure_every": 40},
    "vgg11": {"epochs": 600, "measure_every": 60},
    "vgg13": {"epochs": 600, "measure_every": 60},
}


# -- the networks ----------------------------------------------------------------------------------


def network_tasks(scale: str) -> list[Task]:
    """Train every network of a scale on all its data, with both structures."""
    tasks = []
    for structure, counts in _BLOCKS[scale].items():
        for data in _DATA[scale]:
            for network in _NETWORKS[scale]:
                label = {"structure": structure, "data": data, "network": network}
                more = _training(scale, data, network)
                tasks.append(shared.network(scale, counts, _DECAYS[scale], more, **label))
    return tasks


def _training(scale: str, data: str, network: str) -> dict[str, Any]:
    """Return what differs from the networks of the other figures."""
    if scale == "smoke":
        return {}
    if scale == "cpu":
        return {
            "data": data,
            "network": network,
            "network_options": shared.NARROW_OPTIONS[network],
            "settings": [shared.split(_DECAYS[scale], _RATIO)],
            "lr": 1e-2,
            **_LENGTHS[network],
        }
    return {
        "data": data,
        "network": network,
        "network_options": {"stem": "cifar"} if network == "resnet18" else {},
        "settings": [[2e-3, 2e-6]],
        "epochs": 1000,
        "milestones": [333],
        "backbone_weight_decay": 5e-4,
    }


def short_name(run: Run) -> str:
    """Return what a network is, where data and structure are known."""
    return _NAMES[run.labels["network"]]


def network_name(run: Run) -> str:
    """Return what a network is, and on what it was trained."""
    labels = run.labels
    return f"{short_name(run)} on {_NAMES[labels['data']]}, structure {labels['structure']}"


class Cell(NamedTuple):
    """The networks of one data set and structure."""

    data: str
    structure: str
    networks: Results

    @property
    def name(self) -> str:
        """Both in words."""
        return f"{self.data}, structure {self.structure}"


def cells(results: Results) -> Iterator[Cell]:
    """Yield the networks by data set and structure."""
    for data in _DATA[results.scale]:
        for structure in _BLOCKS[results.scale]:
            part = results.select(what="network", data=data, structure=structure)
            yield Cell(_NAMES[data], structure, part)


def standardised_maps(title: str, networks: Results, *beside: Run) -> HeatMaps:
    """Draw the predicted mean logits and those of runs; the runs have one prediction."""
    runs = [*beside, *networks.done]
    maps = [Matrix("predicted", min_max(run.array("predicted_logits"))) for run in runs[:1]]
    for run in runs:
        name = "UFM" if run.labels["what"] == "UFM" else short_name(run)
        maps.append(Matrix(name, min_max(run.array("logits"))))
    borders = block_borders(runs[0].problem.counts) if runs else []
    counts = f", samples per class {runs[0].problem.compact_counts}" if runs else ""
    return HeatMaps(f"{title}{counts}", maps, borders=borders, limit=1.0, signed=False)


def _tasks(scale: str) -> list[Task]:
    tasks = []
    for structure, counts in _BLOCKS[scale].items():
        problems = [shared.problem(counts, _DECAYS[scale])]
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
    for cell in cells(results):
        curves = [
            Curve(short_name(run), list(run.history["epoch"]), list(run.history["nc1"]), color)
            for color, run in enumerate(cell.networks.done)
        ]
        title = f"NC1 during training, {cell.name}"
        panels.append(Chart(title, "epoch", "NC1 = tr(Σ_W Σ_B⁺)/K", curves, log_y=True))
    for cell in cells(results):
        own = results.select(what="UFM", structure=cell.structure).done[:1]
        title = f"Min-max standardised mean logits, {cell.name}"
        panels.append(standardised_maps(title, cell.networks, *own))
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
    note="Twelve networks as in the paper, but at scale cpu on Fashion-MNIST and digits, with "
    "counts in the paper's proportions, its λ_W : λ_H, and λ = 6e-3 (chosen on trial runs, too), "
    "one run each; at scale smoke MLPs on digits. "
    + shared.NARROW
    + "At scale paper the optimiser's decay of 5e-4 is that of the backbone alone; the paper's "
    "acts on W and b besides λ_W and λ_b.",
    place=1,
)
