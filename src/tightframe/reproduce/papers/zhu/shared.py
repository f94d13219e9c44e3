"""What the figures of Zhu et al. share: networks, their four metrics, and how these are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import Chart, Curve, Panel, Table
from tightframe.geometry.dense import normalized_distance, simplex_etf
from tightframe.problem.problem import Problem
from tightframe.reproduce.judging import below, largest, largest_each, least
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Task, Verdict

#: A network has collapsed if all four metrics are below this.
COLLAPSED = 0.1

#: How far a test accuracy may be below another where the paper calls them similar.
SIMILAR = 0.01


CLASSES = 10

#: Features without a decay of their own: this one only shapes the prediction, an ETF for all.
FEATURE_DECAY = 1e-6

#: What a sentence about networks of a smoke run ends in.
SHORT = " (a short training, which decides nothing)."

METRICS = ("NC1", "NC2", "NC3", "NC4")


# -- networks --------------------------------------------------------------------------------------

MLP_OPTIONS = {"batch_norm": True, "last_relu": True}

DATA: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {"digits": {"counts": "100x10"}},
    "cpu": {"digits": {"counts": "100x10"}, "fashion_mnist": {"counts": "100x10"}},
    "paper": {"mnist": {"counts": "5000x10"}, "cifar10": {"counts": "5000x10"}},
}

_BACKBONES: dict[str, dict[str, Any]] = {
    "smoke": {"hidden": [64], "feature_dim": 32, "network_options": MLP_OPTIONS},
    "cpu": {"hidden": [128, 128], "feature_dim": 64, "network_options": MLP_OPTIONS},
    "paper": {
        "network": "resnet18",
        "network_options": {"stem": "imagenet", "last_relu": True},
    },
}

#: A narrow network of the paper's kind for scale cpu, with fewer samples: its steps are dear.
RESNET: dict[str, Any] = {
    "network": "resnet18",
    "network_options": {"stem": "imagenet", "last_relu": True, "width": 8},
    "counts": "50x10",
    "settings": [[5e-3, FEATURE_DECAY]],
}

#: SGD for that network.
RESNET_SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.2,
    "momentum": 0.9,
    "batch_size": 125,
    "epochs": 400,
    "measure_every": 50,
}

_EPOCHS = {"smoke": 30, "cpu": 1200, "paper": 200}
DECAYS = {"smoke": 1e-2, "cpu": 1e-2, "paper": 5e-4}

NAMES = {"digits": "digits", "fashion_mnist": "Fashion-MNIST", "mnist": "MNIST"}
NAMES["cifar10"] = "CIFAR10"

#: What decays.
PLACES = {"all": "all parameters", "features": "W, H and b"}

SMALL = (
    "At scales smoke and cpu: MLPs (linear, batch norm, ReLU; no batch norm before the features) "
    "on digits and Fashion-MNIST with 100 "
    "samples a class. They take a tenth of the paper's steps, with twice its learning rate, which "
    "falls along half a cosine instead of to a tenth four times, and larger weight decay (1e-2, "
    "2e-3 with random labels; paper: 5e-4 and 1e-4), so that decay comes as far. These "
    "settings were chosen among about 20 by the same metrics: they show that such ones exist. "
)

NARROW = (
    "At scale cpu a ResNet18 with the paper's 7 x 7 stem, of width 8, learns 50 samples of each "
    "class of Fashion-MNIST with ten times the paper's decay (5e-3), a learning rate of 0.2 and "
    "batches of 125. These settings are the last of five for decay on all parameters, tried on "
    "one seed and judged by how far it collapses; test accuracies were seen. Decay 2e-3, 100 "
    "samples and batches of 128 ended at NC2 0.18; two trials with batches of 64 were stopped at "
    "three quarters, at 0.24 and 0.22; with a learning rate of 0.4 and batches of 250 one run "
    "collapsed (NC2 0.02) and another blew up on its way. "
)


def sgd(scale: str, batch_size: int, lr: float = 0.05) -> dict[str, Any]:
    """Return SGD with the paper's batch size and learning rate, or those of small data."""
    if scale != "paper":
        batch_size, lr = 128, 0.1
    return {"optimizer": "sgd", "lr": lr, "momentum": 0.9, "batch_size": batch_size}


def networks(scale: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return name, data set and configuration of every network that learns true labels."""
    if scale == "cpu":
        return [("MLP", "fashion_mnist", {}), ("ResNet18", "fashion_mnist", RESNET)]
    return [("ResNet18" if scale == "paper" else "MLP", data, {}) for data in DATA[scale]]


def on_features(decay: float, num_samples: int) -> dict[str, Any]:
    """Return decays of W, H and b in the paper's ratio to those of all parameters.

    The paper's code has 5e-4 for W and b, as for all parameters, and 1e-4 for features summed over
    a batch of 64, which is 1e-4 * 64 / N in the objective.
    """
    return {
        "decay_on": "features",
        "settings": [[decay, decay / 5 * 64 / num_samples]],
        "bias": "decayed",
        "bias_decay": decay,
    }


def network_task(scale: str, data: str, config: Mapping[str, Any], **labels: Any) -> Task:
    """Return a network's task: the scale's backbone, all parameters decayed, bias trained."""
    merged: dict[str, Any] = {
        "data": data,
        **DATA[scale][data],
        "settings": [[DECAYS[scale], FEATURE_DECAY]],
        "bias": "free",
        "decay_on": "all",
        "epochs": _EPOCHS[scale],
        **({} if "network" in config else _BACKBONES[scale]),
        **config,
    }
    epochs = merged["epochs"]
    merged.setdefault("measure_every", max(1, epochs // (6 if scale == "smoke" else 20)))
    if merged["optimizer"] == "lbfgs":
        merged["schedule"] = "constant"
    elif scale == "paper":
        # Five equal parts, the learning rate a tenth after each.
        merged["schedule"] = "milestones"
        merged["milestones"] = [epochs // 5 * i for i in (1, 2, 3, 4)]
    else:
        merged["schedule"] = "cosine"
    return Task(
        "network",
        {"config": merged, "arrays": True},
        {"what": "network", "data": data, **labels},
    )


_COUNTS = "20x10"
DECAY = 5e-3  # threshold: 1 / (K sqrt(n)) = 0.0224


def problem_of(dim: int | None = None, decay: float = DECAY, **more: Any) -> dict[str, Any]:
    """Return the UFM of the theorems with equal decays."""
    values: dict[str, Any] = {"weight_decay": decay, "feature_decay": decay, **more}
    return Problem(_COUNTS, dim=dim, **values).to_dict()


# -- runs ------------------------------------------------------------------------------------------


def collapse_metrics(
    row: Mapping[str, Any], logits: NDArray[Any]
) -> tuple[float, float, float, float]:
    """Return the paper's NC1 to NC4 of a trained network.

    Parameters
    ----------
    row : mapping
        With ``nc1``, ``classifier_to_etf`` (the paper's NC2) and ``bias_alignment``
        (``||b + W mu||``, its NC4) of the network.
    logits : ndarray, shape (K, K)
        Mean logits ``W H`` without bias, not centred.

    Returns
    -------
    tuple of float
        NC3 is the distance of ``W (H - mu 1^T)`` to the ETF; NC4 is in units of the root mean
        square length of that matrix's columns.
    """
    centered = logits - logits.mean(axis=1, keepdims=True)
    nc3 = normalized_distance(centered, simplex_etf(len(logits)).logits)
    length = float(np.linalg.norm(centered)) / math.sqrt(len(logits))
    nc4 = float(row["bias_alignment"]) / length if length > 0 else math.nan
    return float(row["nc1"]), float(row["classifier_to_etf"]), nc3, nc4


def metrics(run: Run) -> dict[str, float]:
    """Return the paper's four metrics of a network."""
    columns = ("nc1", "classifier_to_etf", "bias_alignment")
    row = {name: run.measured(name) for name in columns}
    return dict(zip(METRICS, collapse_metrics(row, run.array("logits")), strict=True))


def worst_of(run: Run) -> float:
    """Return the largest of the four metrics, NaN if one is NaN."""
    return float(np.max(list(metrics(run).values())))


def judge_collapse(part: Results, who: str, claimed: str) -> Verdict:
    """Judge whether all networks of a part of the results have collapsed."""
    most = largest_each(part, lambda run: list(metrics(run).values()))
    values = ", ".join(f"{name} {v:.2g}" for name, v in zip(METRICS, most, strict=False))
    smoke = part.scale == "smoke"
    return below(
        largest(part, worst_of),
        COLLAPSED,
        part,
        decidable=not smoke,
        criterion=f"NC1, NC2, NC3 and NC4 (relative to the logits) all end below {COLLAPSED:g} "
        "in every network",
        claimed=claimed,
        sentence=f"{who}: at the end of training at most {values}; training accuracy at least "
        f"{least(part, lambda run: run.measured('train_accuracy')):.3f}"
        + (SHORT if smoke else "." + _shortfall(part.done)),
    )


def _shortfall(runs: Sequence[Run]) -> str:
    """Say which networks have not collapsed, and whether the farthest was still on its way."""
    missed = [run for run in runs if not worst_of(run) < COLLAPSED]
    if not missed:
        return ""
    farthest = max(missed, key=lambda run: np.nan_to_num(worst_of(run), nan=-math.inf))
    where = NAMES[farthest.labels["data"]]
    if "variant" in farthest.labels:
        where += f", {farthest.labels['variant']}"
    text = f" {len(runs) - len(missed)} of {len(runs)} networks collapse; the farthest is {where}."
    found = metrics(farthest)
    name, column = max(("NC1", "nc1"), ("NC2", "classifier_to_etf"), key=lambda m: found[m[0]])
    own = farthest.history
    late = own.loc[own["epoch"] >= 0.75 * own["epoch"].max(), column]
    return (
        f"{text} Over the last quarter of its training its {name} went from "
        f"{late.iloc[0]:.2g} to {late.iloc[-1]:.2g}."
    )


#: How the groups of a chart are drawn, in turn.
LINES = ("solid", "dashed", "dotted")

#: Columns of the history that a chart shows: title, unit and whether its axis is logarithmic.
_HISTORY = {
    "nc1": ("NC1: variability within classes", "tr(Σ_W Σ_B⁺)/K", True),
    "classifier_to_etf": ("NC2: classifier and simplex ETF", "normalised distance", True),
    "self_duality": ("NC3: classifier and centred class means", "normalised distance", True),
    "bias_alignment": ("NC4: ‖b + W μ‖", "logit units", True),
    "train_accuracy": ("Training accuracy", "share", False),
    "test_accuracy": ("Test accuracy", "share", False),
}


def history_charts(
    runs: Iterable[Run],
    columns: Sequence[str],
    style: Callable[[Mapping[str, Any]], tuple[str, int, str]],
    groups: Sequence[str] = (),
    *,
    scaled: bool = False,
) -> list[Panel]:
    """Draw columns over epochs; ``style`` turns labels into a curve's label, colour and style.

    Of several ``groups`` the first is drawn solid, the others in the next of `LINES` and
    without a place in the legend, which would cover curves. ``scaled`` divides epochs by their
    number, where these differ much.
    """
    charts: list[Panel] = []
    axis = "share of the epochs" if scaled else "epoch"
    if len(groups) > 1:
        lines = zip(LINES, groups, strict=False)
        axis += f" ({', '.join(f'{line}: {group}' for line, group in lines)})"
    drawn = [run for run in runs if len(run.history)]
    for column in columns:
        title, unit, log_y = _HISTORY[column]
        curves = []
        for run in drawn:
            label, color, line = style(run.labels)
            epochs = run.history["epoch"] / (run.history["epoch"].max() if scaled else 1)
            values = list(run.history[column])
            label = label if line == "solid" else ""
            curves.append(Curve(label, list(epochs), values, color, line))
        charts.append(Chart(title, axis, unit, curves, log_y=log_y))
    return charts


def metrics_table(
    runs: Iterable[Run],
    columns: Mapping[str, str],
    title: str,
    names: Mapping[str, str] = NAMES,
) -> Table:
    """Show final metrics and accuracies, means over runs of the same labels.

    ``columns`` are labels and their headings, ``names`` what values of labels are called.
    """
    found: dict[tuple[str, ...], list[list[float]]] = {}
    for run in runs:
        own = tuple(names.get(run.labels[name], run.labels[name]) for name in columns)
        accuracies = (run.measured(f"{name}_accuracy") for name in ("train", "test"))
        found.setdefault(own, []).append([*metrics(run).values(), *accuracies])
    heads = [*columns.values(), *METRICS, "training accuracy", "test accuracy"]
    body = [[*own, *(float(v) for v in np.mean(rows, axis=0))] for own, rows in found.items()]
    return Table(title, heads, body, "NC4 relative to the logits.")


def standard_error(values: NDArray[Any]) -> float:
    """Return the standard error of a mean over seeds, 0 for a single one."""
    count = len(values)
    return float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else 0.0


def accuracy_of(run: Run) -> float:
    """Return the share of test samples that a network gets right."""
    return run.measured("test_accuracy")
