"""What the figures of Hong & Ling share: problems, trainings, and margins over a sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tightframe.figures.model import Chart, Curve, HeatMaps, Mark, Matrix
from tightframe.problem.counts import format_runs
from tightframe.problem.problem import Problem
from tightframe.reproduce.judging import sorted_by
from tightframe.reproduce.results import Run
from tightframe.reproduce.spec import Task

#: Bias decay of the paper (0.01 without the one half), in our convention.
_BIAS: dict[str, Any] = {"bias": "decayed", "bias_decay": 0.02}

NETWORKS = {
    "smoke": "MLP on digits",
    "cpu": "narrow ResNet18 on Fashion-MNIST",
    "paper": "ResNet18 on CIFAR10",
}

#: How a sentence about networks of a smoke run ends.
SHORT = " after a short training."

#: Points of the grids at which a smoke run trains a network.
_SMOKE_POINTS = (1, 5)

#: What narrow networks are, in sentences of notes.
NARROW = (
    "At scale cpu networks have 8 channels where the paper's have 64, ResNet18 has the 7 x 7 stem, "
    "and Adam trains them in full batches; epochs and learning rate were chosen on trial runs. "
)

SCALED = (
    "The networks are MLPs on digits at scale smoke, ResNet18s on Fashion-MNIST at scale cpu (the "
    "paper's on CIFAR10), with fewer samples; λ is moved so that it stands in the same ratio to "
    "the threshold as in the paper. " + NARROW + "The UFM has the paper's counts at every scale."
)

#: A tenth of the decays in the first sixth, for decays near the thresholds.
WARMUP: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {"warmup_epochs": 33, "warmup_decay_factor": 0.1},
    "paper": {"warmup_epochs": 333, "warmup_decay_factor": 0.1},
}

WARMED = (
    " The decays are a tenth in the first sixth, as in the paper's code; at scale cpu since a part "
    "of `minority-lambda` had been run: there strong decays shrank features before anything was "
    "learned, margins ended up to 0.8 nats too low and the switch came one grid step early."
)


# -- problems and tasks ----------------------------------------------------------------------------


def problem(counts: str, decay: float, bias: Mapping[str, Any] = _BIAS) -> dict[str, Any]:
    """Return a problem with equal decays, for a task."""
    return Problem(counts, weight_decay=decay, feature_decay=decay, **bias).to_dict()


def step(classes: int, majority: int, minority: int) -> str:
    """Return counts of 10 classes, ``classes`` of them in the majority."""
    return format_runs([(majority, classes), (minority, 10 - classes)])


def total(classes: int, majority: int, minority: int) -> int:
    """Return how many samples that are."""
    return classes * majority + (10 - classes) * minority


def small(scale: str) -> tuple[int, int]:
    """Return majority and minority counts of the networks."""
    return {"smoke": (100, 20), "cpu": (25, 5), "paper": (500, 100)}[scale]


def grid_points(scale: str, values: Sequence[Any]) -> list[Any]:
    """Return where networks are trained."""
    return [values[i] for i in _SMOKE_POINTS] if scale == "smoke" else list(values)


def theory(problems: Sequence[Mapping[str, Any]], **labels: Any) -> Task:
    """Solve problems."""
    return Task("solve", {"problems": list(problems)}, {"what": "theory", **labels})


def ufm(
    scale: str, problems: Sequence[Mapping[str, Any]], *, lr: float = 10.0, **labels: Any
) -> Task:
    """Train the UFM."""
    iterations = {"smoke": 2_500, "cpu": 30_000, "paper": 100_000}[scale]
    options = {
        "problems": list(problems),
        "seeds": [0] if scale == "smoke" else [0, 1, 2],
        "dim": 12,
        "lr": lr,
        "momentum": 0.9,
        "iterations": iterations,
        "per_sample": False,
        "arrays": True,
    }
    return Task("ufm", options, {"what": "UFM", **labels})


def split(decay: float, ratio: float) -> list[float]:
    """Return decays of weights and features that have lambda and this ratio."""
    return [decay * math.sqrt(ratio), decay / math.sqrt(ratio)]


def network(
    scale: str, counts: str, decay: float, more: Mapping[str, Any] | None = None, **labels: Any
) -> Task:
    """Train a network."""
    config: dict[str, Any] = {
        "counts": counts,
        "settings": [split(decay, 100)],
        **_BIAS,
        **_TRAINING[scale],
        **(more or {}),
    }
    own = {"what": "network", **labels, "counts": counts, "lambda": decay}
    return Task("network", {"config": config, "arrays": True}, own)


#: Options of the networks of scale cpu.
NARROW_OPTIONS: dict[str, dict[str, Any]] = {
    "resnet18": {"stem": "imagenet", "width": 8},
    "vgg11": {"width": 8},
    "vgg13": {"width": 8},
}

_TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {"data": "digits", "hidden": [64], "epochs": 150, "measure_every": 50},
    "cpu": {
        "data": "fashion_mnist",
        "network": "resnet18",
        "network_options": NARROW_OPTIONS["resnet18"],
        "lr": 1e-2,
        "epochs": 200,
        "measure_every": 200,
    },
    "paper": {
        "data": "cifar10",
        "network": "resnet18",
        "network_options": {"stem": "cifar"},
        "feature_dim": 512,
        "optimizer": "sgd",
        "momentum": 0.9,
        # The code's first two phases have the same rate.
        "lr": 0.01,
        "schedule": "milestones",
        "milestones": [1333],
        "batch_size": 128,
        "epochs": 2000,
        "measure_every": 20,
    },
}


# -- runs ------------------------------------------------------------------------------------------


def majority(run: Run) -> int:
    """Return how many samples a majority class has."""
    return run.problem.groups[0].count


def minority_margin(run: Run) -> float:
    """Return the margin of the classes with fewer samples; balanced, all are one group."""
    return float(run.margins[-1])


def margin_chart(
    title: str,
    x_label: str,
    at: Callable[[Run], float],
    predicted: Iterable[Run],
    measured: Iterable[Run],
    label: str,
    marks: Sequence[Mark] = (),
) -> Chart:
    """Draw predicted (dashed) and measured margins of minority (blue) and majority (orange)."""
    line = [own[0] for own in sorted_by(predicted, at).values()]
    found = sorted_by(measured, at)
    x = [at(run) for run in line]
    curves = []
    for color, (name, group) in enumerate((("minority", -1), ("majority", 0))):
        y = [run.predicted_margins[group] for run in line]
        curves.append(Curve(f"{name}, predicted", x, y, color, "dashed"))
        margins = [[run.margins[group] for run in own] for own in found.values()]
        spread = any(len(own) > 1 for own in margins)
        if found:
            curves.append(
                Curve(
                    f"{name}, {label}",
                    list(found),
                    [float(np.mean(own)) for own in margins],
                    color,
                    "line+points",
                    [min(own) for own in margins] if spread else None,
                    [max(own) for own in margins] if spread else None,
                )
            )
    return Chart(title, x_label, "margin (nats)", curves, marks)


def logit_maps(
    title: str, runs: Iterable[Run], at: Callable[[Run], float], name: str, border: int
) -> HeatMaps:
    """Draw the mean logits of the first seed over a sweep; ``name`` has a place for its value."""
    maps = [
        Matrix(name.format(f"{value:g}"), own[0].array("logits"))
        for value, own in sorted_by(runs, at).items()
    ]
    return HeatMaps(title, maps, borders=[float(border)])
