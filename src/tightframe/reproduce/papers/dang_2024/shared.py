"""What the figures of Dang et al. 2024 share: problems, trainings, and their five metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tightframe.figures.model import Curve, HeatMaps, Matrix, block_borders
from tightframe.problem.counts import num_samples, parse_counts
from tightframe.problem.problem import Problem
from tightframe.reproduce.results import Run
from tightframe.reproduce.spec import Task

#: The paper's metrics and the columns that they are; NC2_W needs more than one Gram (`nc2_w`).
METRICS = {
    "NC1": "nc1",
    "NC2_H": "means_to_predicted",
    "NC2_W": "nc2_w",
    "NC2_WWᵀ": "classifier_to_predicted",
    "NC3_WH": "logits_to_predicted",
}

#: Samples per class of the paper's data sets, as in its code.
COUNTS = {
    "MNIST, Fashion-MNIST": "100x2,200x2,300x2,400x2,500x2",
    "CIFAR10": "1000x2,2000x2,3000x2,4000x2,5000x2",
    "CIFAR100": "100x20,200x20,300x20,400x20,500x20",
}

#: Its training step: CE/2 + (decay/2) ||W||^2 + (decay/2) (features summed over the batch).
WEIGHT_DECAY, FEATURE_DECAY, _BATCH, _HALF = 1e-4, 1e-5, 256, 0.5

#: The same proportions as the paper's, for a UFM with one column a sample and for networks.
SAMPLES = {"smoke": "10x2,20x2,30x2,40x2,50x2", "cpu": COUNTS["MNIST, Fashion-MNIST"]}
SAMPLES["paper"] = SAMPLES["cpu"]
DIGITS, _HALF_DIGITS = "28x2,56x2,84x2,112x2,140x2", "14x2,28x2,42x2,56x2,70x2"

#: N lambda over the root of the smallest count, of these UFMs and networks.
STRENGTH = {"UFM": 0.15, "network": 0.3}


# -- problems and tasks ----------------------------------------------------------------------------


def paper_problem(counts: str) -> Problem:
    """Return the UFM whose decays the paper's networks were trained with."""
    return Problem.from_batch_features(
        counts,
        weight_decay=WEIGHT_DECAY,
        feature_decay=FEATURE_DECAY,
        batch_size=_BATCH,
        loss_scale=_HALF,
        features="nonnegative",
    )


def problem_of(counts: str, decay: float) -> Problem:
    """Return a problem with equal decays."""
    return Problem(counts, weight_decay=decay, feature_decay=decay, features="nonnegative")


def decay_of(counts: str, strength: float) -> float:
    """Return lambda for a strength ``N lambda / sqrt(smallest count)``; margins depend on it."""
    runs = parse_counts(counts)
    return strength * math.sqrt(min(run.count for run in runs)) / num_samples(runs)


def ufm(problems: Sequence[Problem], labels: Mapping[str, Any], **options: Any) -> Task:
    """Train the UFM of problems."""
    given = {"problems": [p.to_dict() for p in problems], "momentum": 0.9, "arrays": True}
    return Task("ufm", {**given, **options}, {"what": "UFM", **labels})


def sampled(scale: str, counts: str, labels: Mapping[str, Any], **options: Any) -> Task:
    """Train the UFM with one column a sample, so that NC1 can be measured.

    The starting values are N(0, 1): from smaller ones classes vanish, see the figure ``ufm``.
    """
    problem = problem_of(counts, decay_of(counts, STRENGTH["UFM"]))
    given = {
        "seeds": [0, 1] if scale == "smoke" else [0, 1, 2, 3],
        "dim": 20,
        "lr": problem.num_samples / 60,
        "iterations": 3000,
        "init_std": 1.0,
        "records": 30,
    }
    return ufm([problem], labels, **{**given, **options})


def network(name: str, config: Mapping[str, Any], **labels: Any) -> Task:
    """Train a network."""
    given = {"features": "nonnegative", **config}
    own = {"what": "network", "network": name, **labels}
    return Task("network", {"config": given, "arrays": True}, own)


#: The networks' architectures and trainings by scale. Features are wider than K, because in narrow
#: ReLU layers classes vanish more often than the theory has it.
MLP: dict[str, dict[str, Any]] = {
    "smoke": {"hidden": [64], "feature_dim": 64, "epochs": 80, "measure_every": 10},
    "cpu": {"hidden": [256, 256], "feature_dim": 128, "epochs": 1200, "measure_every": 30},
}
CNN: dict[str, dict[str, Any]] = {
    "smoke": {
        "network": "vgg11",
        "network_options": {"width": 4},
        "epochs": 4,
        "batch_size": 120,
        "measure_every": 1,
    },
    "cpu": {
        "network": "vgg11",
        "network_options": {"width": 8},
        "epochs": 500,
        "batch_size": 210,
        "measure_every": 10,
    },
}

#: Networks of scale cpu on Fashion-MNIST: the ratio of the decays and the training. Normalised
#: features are long by themselves, which a larger ratio suits.
_FASHION = "20x2,40x2,60x2,80x2,100x2"
FASHION: dict[str, tuple[float, dict[str, Any]]] = {
    "MLP": (1e2, MLP["cpu"]),
    "ResNet18": (
        1e4,
        {
            "network": "resnet18",
            "network_options": {"width": 8, "stem": "imagenet"},
            "epochs": 180,
            "batch_size": 100,
            "measure_every": 15,
        },
    ),
    "VGG11": (
        1e4,
        {
            "network": "vgg11",
            "network_options": {"width": 8},
            "epochs": 180,
            "batch_size": 100,
            "measure_every": 15,
        },
    ),
}

#: At scale cpu on digits: with images of 28 x 28 a step takes ten times the ResNet's.
DENSENET: dict[str, Any] = {
    "network": "densenet_cifar",
    "network_options": {"width": 4},
    "epochs": 200,
    "batch_size": 70,
    "measure_every": 20,
}
PAPER_TRAINING: dict[str, Any] = {
    "optimizer": "adam",
    "lr": 1e-4,
    "schedule": "milestones",
    "milestones": [2000],
    "batch_size": _BATCH,
    "epochs": 4000,
    "measure_every": 40,
    "seed": 1,
}
PAPER_NETWORKS: dict[str, dict[str, Any]] = {
    # Six ReLU layers, one more linear layer and a ReLU, all 1024 wide.
    "MLP": {"hidden": [1024] * 6, "feature_dim": 1024},
    "ResNet18": {"network": "resnet18"},
    "VGG11": {"network": "vgg11"},
    "DenseNet": {"network": "densenet_cifar"},
}
_PAPER_DATA = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST, Fashion-MNIST",
    "fashion_mnist": "MNIST, Fashion-MNIST",
    "svhn": "MNIST, Fashion-MNIST",
}


def setting(counts: str, ratio: float = 100.0) -> dict[str, Any]:
    """Return counts and decays of a small network: lambda as `decay_of`, in a ratio."""
    decay, root = decay_of(counts, STRENGTH["network"]), math.sqrt(ratio)
    return {"counts": counts, "settings": [[root * decay, decay / root]]}


def network_tasks(scale: str) -> list[Task]:
    """Return the networks whose metrics, norms and angles are measured."""
    if scale != "paper":
        small = {"data": "digits", **setting(DIGITS)}
        tasks = [network("MLP, digits", {**small, **MLP[scale]})]
        if scale == "cpu":
            tasks += [_on_fashion(name) for name in FASHION]
            dense = {"data": "digits", **setting(_HALF_DIGITS, 1e4), **DENSENET}
            tasks.append(network("DenseNet, digits", dense))
        return [*tasks, network("VGG11, digits", {**small, **CNN[scale]})]
    tasks = []
    for data, which in _PAPER_DATA.items():
        problem = paper_problem(COUNTS[which])
        settings = [[problem.weight_decays[0], problem.feature_decay]]
        for name, options in PAPER_NETWORKS.items():
            config = {"data": data, "counts": COUNTS[which], "settings": settings}
            tasks.append(network(f"{name}, {data}", {**config, **PAPER_TRAINING, **options}))
    return tasks


def _on_fashion(name: str) -> Task:
    ratio, options = FASHION[name]
    config = {"data": "fashion_mnist", **setting(_FASHION, ratio), **options}
    return network(f"{name}, Fashion-MNIST", config)


# -- what several figures share --------------------------------------------------------------------


def nc2_w(counts: ArrayLike, logits: ArrayLike, classifier: ArrayLike, means: ArrayLike) -> float:
    """Return the paper's NC2_W from Gram matrices.

    It is the normalised distance of W to the matrix T with rows ``K sqrt(n_k) h_k - sum_m
    sqrt(n_m) h_m``, that is ``T = K (I - 11^T/K) D^{1/2} H^T``; ``<W, T>`` and ``||T||^2`` follow
    from the logits ``W H`` and from ``H^T H``.

    Parameters
    ----------
    counts : array_like, shape (K,)
    logits, classifier, means : array_like, shape (K, K)
        ``W H``, ``W W^T`` and ``H^T H``.

    Returns
    -------
    float
        From 0 to 2; NaN if W or T is zero.
    """
    n = np.asarray(counts, dtype=np.float64)
    z, ww, hh = (np.asarray(a, dtype=np.float64) for a in (logits, classifier, means))
    shape = (np.eye(len(n)) - 1 / len(n)) * np.sqrt(n)
    squares = float(np.trace(ww)), float(np.einsum("ij,jk,ik->", shape, hh, shape))
    if min(squares) <= 0:
        return math.nan
    inner = float((shape * z).sum()) / math.sqrt(squares[0]) / math.sqrt(squares[1])
    return math.sqrt(max(2 - 2 * inner, 0.0))


def metrics(run: Run) -> dict[str, float]:
    """Return the five metrics of a run, NaN where one is undefined."""
    grams = (run.array(name) for name in ("logits", "classifier", "means"))
    found = {name: run.measured(column) for name, column in METRICS.items()}
    return found | {"NC2_W": nc2_w(run.problem.counts, *grams)}


#: Below this a distance is rounding, and a logarithmic axis shows nothing else.
_DRAWN = 1e-10


def visible(value: float) -> float | None:
    """Return what a logarithmic axis can show."""
    return value if value > _DRAWN else None


def history_curve(run: Run, x: str, column: str, label: str, color: int) -> Curve:
    """Draw a column of a run's history on a logarithmic axis."""
    history = run.history[run.history[x] > 0]
    y = [visible(value) for value in history[column]]
    return Curve(label, list(history[x]), y, color)


def logit_maps(title: str, run: Run, name: str) -> HeatMaps:
    """Draw the mean logits of a run beside the closed form's."""
    maps = [
        Matrix("closed form", run.array("predicted_logits")),
        Matrix(name, run.array("logits")),
    ]
    return HeatMaps(title, maps, borders=block_borders(run.problem.counts))


#: How a sentence about networks of a smoke run ends.
SHORT = " (a short training)."

#: Line styles that tell networks apart.
STYLES = ("solid", "dashed", "dotted", "line+points", "dashdot")

SMALL = (
    "At scales smoke and cpu the networks are MLPs and narrow VGG11s on digits, and at cpu an MLP, "
    "ResNet18 and VGG11 (width 8, the ResNet with the stem of ImageNet) on Fashion-MNIST and a "
    "DenseNet (growth rate 4) on digits, with counts in the paper's proportions "
    f"({DIGITS}, of the DenseNet half of that; {_FASHION}) and larger decays, so that a short "
    "training gets there. The decays have the ratio 100, those of the new convolutional networks "
    "10,000, chosen on a trial of the ResNet: of 100, 500 steps left the class means 0.45 from the "
    "prediction, of 10,000 0.10. The DenseNet first had 600 steps, which left its class means 0.12 "
    "from the prediction (not reproduced); it has twice as many. "
)
