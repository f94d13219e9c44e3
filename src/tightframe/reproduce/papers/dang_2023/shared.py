"""What the figures of Dang et al. 2023 share: problems, trainings, metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tightframe.figures.model import Chart, Curve, Panel, Table
from tightframe.problem.problem import Problem
from tightframe.reproduce.judging import (
    at_minimum,
    decided,
    largest,
    sorted_by,
    unless_early,
    verdict,
)
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Task, Verdict

#: Numbers of linear layers M, with balanced and with imbalanced classes.
DEPTHS = (1, 3, 6, 9)
IMBALANCED_DEPTHS = (1, 3, 6)

#: What NC1 and the distances (NC2, NC3) must fall below: UFM, networks.
UFM_LIMIT = 1e-2
_NETWORK_LIMITS = {"nc1": 5e-2, "distance": 1e-1}

#: A mean logit of its own class below this has vanished; labels are 0 and 1.
VANISHED = 0.02


BIAS_NAMES = {"none": "no bias", "free": "last-layer bias"}

NC1 = "NC1 = tr(Σ_W Σ_B⁺)/K"
_DISTANCE = "normalised Frobenius distance"


# -- problems and tasks ----------------------------------------------------------------------------


def mse(counts: str, decay: float, depth: int, **rest: Any) -> dict[str, Any]:
    """Return a problem with equal decays, for a task."""
    given: dict[str, Any] = {"weight_decay": decay, "feature_decay": decay, "depth": depth, **rest}
    return Problem(counts, "mse", **given).to_dict()


def theory(problems: Sequence[Mapping[str, Any]], **labels: Any) -> Task:
    """Solve problems."""
    return Task("solve", {"problems": list(problems), "arrays": True}, {"what": "theory", **labels})


def descent(scale: str, dim: int | None = None) -> dict[str, Any]:
    """Return the options of gradient descent: the paper's, or for smoke narrower and faster.

    What starting layers do to a vector's length, ``init_std sqrt(d)``, is the paper's at any width.
    """
    paper = {"dim": 64, "init_std": 0.1, "lr": 0.1, "momentum": 0.9, "iterations": 30_000}
    if scale == "smoke":
        return {
            **_width(dim or 16),
            "lr": 0.2,
            "schedule": [[300, 5.0]],
            "iterations": 1200,
            "records": 30,
            "seeds": [0],
        }
    return {**paper, **({} if dim is None else _width(dim)), "seeds": [0, 1, 2]}


def _width(dim: int) -> dict[str, Any]:
    return {"dim": dim, "init_std": round(0.8 / math.sqrt(dim), 6)}


def ufm(
    scale: str,
    problems: Sequence[Mapping[str, Any]],
    dim: int | None = None,
    options: Mapping[str, Any] | None = None,
    **labels: Any,
) -> Task:
    """Train the UFM as the paper does."""
    arguments = {
        "problems": list(problems),
        "arrays": True,
        **descent(scale, dim),
        **(options or {}),
    }
    return Task("ufm", arguments, {"what": "UFM", **labels})


#: Standard deviations of the starts over the paper's, where the least objective of all counts: with
#: several layers descent from one start ends in a local minimum as often as not.
STARTS = tuple(round(float(factor), 3) for factor in np.geomspace(0.3, 2.0, 12))


def ufm_starts(
    scale: str,
    problems: Sequence[Mapping[str, Any]],
    dim: int | None = None,
    options: Mapping[str, Any] | None = None,
    **labels: Any,
) -> list[Task]:
    """Train the UFM from starts of several lengths: a task each, for `best_by`."""
    given = {**descent(scale, dim), **(options or {})}
    tasks = []
    for seed, factor in enumerate(STARTS[::4] if scale == "smoke" else STARTS):
        own = {"init_std": round(factor * given.get("init_std", 0.1), 6), "seeds": [seed]}
        if factor > 1:  # long layers have a curvature that the paper's step does not bear
            own["lr"] = given["lr"] / 5
        tasks.append(ufm(scale, problems, dim, {**(options or {}), **own}, start=factor, **labels))
    return tasks


def starts_sentence(runs: Sequence[Run]) -> str:
    """Say that the best of several starts counts, and how many did not find it."""
    done = [run for run in runs if not run.failed]
    starts = len({run.labels["start"] for run in done})
    return (
        f"The best of {starts} starts counts, of standard deviations from {STARTS[0]:g} to "
        f"{STARTS[-1]:g} times the paper's; {above(done)} of all {len(done)} runs end above the "
        "certified minimum."
    )


#: The paper's heads. PyTorch's layers shorten vectors, and with the decays on from the first step
#: six or nine of them collapse to zero.
ORTHOGONAL = {"head_init": "orthogonal"}

_TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {
        "data": "digits",
        "hidden": [64],
        "feature_dim": 32,
        "lr": 5e-3,
        "epochs": 100,
        "measure_every": 25,
    },
    "cpu": {
        "data": "digits",
        "hidden": [128, 128],
        "feature_dim": 64,
        "lr": 2e-3,
        "batch_size": 100,
        "epochs": 500,
        "measure_every": 20,
    },
    "paper": {
        "data": "cifar10",
        "hidden": [2048] * 6,
        "feature_dim": 2048,
        "optimizer": "adam",
        "lr": 1e-4,
        "schedule": "milestones",
        "milestones": [50, 100, 150],
        "batch_size": 128,
        "epochs": 200,
        "measure_every": 5,
    },
}


def network(
    scale: str, counts: str, setting: Sequence[float], more: Mapping[str, Any], **labels: Any
) -> Task:
    """Train a network, an MLP if ``more`` has no other."""
    training = _TRAINING[scale]
    if "network" in more:  # which has widths of its own
        training = {k: v for k, v in training.items() if k not in ("hidden", "feature_dim")}
    given = {"counts": counts, "settings": [list(setting)], "loss": "mse"}
    config = {**given, **training, **more}
    return Task("network", {"config": config, "arrays": True}, {"what": "network", **labels})


def small(scale: str) -> dict[str, Any]:
    """Return the options of the networks on digits in which nothing is swept but the decays.

    All samples in one step, which converges fast; without decays at first where layers are deep.
    """
    if scale == "smoke":
        return {"epochs": 60, "measure_every": 60}
    return {
        "data": "digits",
        "hidden": [128, 128],
        "feature_dim": 64,
        "batch_size": None,
        "lr": 5e-3,
        "schedule": "cosine",
        "milestones": [],
        "warmup_epochs": 250,
        "warmup_decay_factor": 0.0,
        "epochs": 1000,
        "measure_every": 50,
    }


def paper_setting(counts: str, decay: float, batch_size: int, samples: int) -> list[float]:
    """Return ``(weight_decay, feature_decay)`` of a run of the paper's code, moved to ``counts``.

    Parameters
    ----------
    counts : str
    decay : float
        The code's ``weight_decay`` and ``feature_decay_rate``.
    batch_size, samples : int
        The paper's.
    """
    k = Problem(counts, **ANY).num_classes
    original = Problem.from_batch_features(
        [samples // k] * k,
        "mse",
        weight_decay=decay,
        feature_decay=decay,
        batch_size=batch_size,
        loss_scale=1 / k,
    )
    moved = original.feature_decay * samples / Problem(counts, **ANY).num_samples
    return [float(f"{value:.8g}") for value in (original.weight_decays[0], moved)]


#: Decays where only the counts of a problem matter.
ANY: dict[str, Any] = {"weight_decay": 1.0, "feature_decay": 1.0}


DESCENT_NOTE = (
    "At scales cpu and paper the UFM is trained with the paper's settings (d = 64, N(0, 0.1²), "
    "lr 0.1, momentum 0.9, 30,000 steps, here with three seeds); at scale smoke with d = 16, the "
    "same lengths at the start and larger steps. Partial products are compared at the end of the "
    "training by their Gram matrices: of the rows of W_M … W_j, of the columns of W_{j-1} … W_1 H̄."
)
STARTS_NOTE = (
    "The theorem is about global minimisers, and with several layers descent also ends in local "
    "ones, so the best of twelve starts counts; an earlier rule asked every one of three starts of "
    f"one length, and failed with more than one layer. That the starts go to {STARTS[-1]:g} times "
    "the paper's length was chosen on a trial: from 3 times three layers diverge, at a fifth of "
    "the paper's step too."
)
NETWORK_NOTE = (
    "At scales smoke and cpu: MLPs on digits with two hidden layers, the decays of the paper's "
    "code converted and moved to the number of samples. Heads start orthogonal, as the paper's, "
    "and all decays act from the first step. (Earlier runs at cpu started with PyTorch's layers, "
    "without decays in the first half: six imbalanced layers then ended out of balance, a partial "
    "product at 0.113 against the limit of 0.1, which was set before and is the same now.)"
)


_BALANCED = "100x4"
SYNTHETIC_DECAY = 5e-4

#: Imbalanced counts of the synthetic experiment.
IMBALANCED = "200,100,50x2"


def balanced_problem(depth: int, bias: str, **rest: Any) -> dict[str, Any]:
    """Return the balanced problem of the paper's synthetic experiment."""
    return mse(_BALANCED, SYNTHETIC_DECAY, depth, bias=bias, **rest)


def network_problem(
    counts: str, setting: Sequence[float], depth: int, bias: str = "none"
) -> dict[str, Any]:
    """Return the problem that a network is compared with."""
    weight_decay, feature_decay = setting
    problem = Problem(
        counts,
        "mse",
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        depth=depth,
        bias=bias,
    )
    return problem.to_dict()


# -- what several figures share --------------------------------------------------------------------


def measures(run: Run) -> dict[str, float]:
    """Return the paper's NC1, NC2 (``W``, ``H``) and NC3 (``W H``) of a run; NaN if undefined.

    The means are centred where a bias takes their mean.
    """
    means = "centered_means" if run.problem.bias == "free" else "means"
    columns = {"W": "classifier", "H": means, "W H": "logits"}
    found = {name: run.measured(f"{part}_to_predicted") for name, part in columns.items()}
    return {"NC1": run.measured("nc1"), **found}


def _distances(run: Run) -> list[float]:
    _, *distances = measures(run).values()
    return distances


def by_network(results: Results) -> dict[str, Results]:
    """Return the trained networks by their names, in the order of the tasks."""
    part = results.select(what="network")
    names = dict.fromkeys(run.labels["network"] for run in part.runs)
    return {name: part.select(network=name) for name in names}


def judge_collapse(part: Results, what: str, claimed: str, name: str) -> Verdict:
    """Judge whether NC1 and all distances to the predicted geometry end below their limits."""
    network = what == "network"
    limits = _NETWORK_LIMITS if network else {"nc1": UFM_LIMIT, "distance": UFM_LIMIT}
    nc1 = largest(part, lambda run: run.measured("nc1"))
    worst = largest(part, _distances)  # a zero matrix has no direction: NaN
    depths = sorted_by(part.done, lambda run: run.problem.depth)
    ends = ", ".join(
        f"{largest(runs, _distances):.2g} (M = {depth})" for depth, runs in depths.items()
    )
    holds = unless_early(part, nc1 < limits["nc1"] and worst < limits["distance"], part.scale)
    if network and part.scale == "smoke":
        holds = None
    return verdict(
        decided(part, holds),
        criterion=f"every run ends with NC1 below {limits['nc1']:g} and the distances of W Wᵀ, "
        f"H̄ᵀH̄ and W H̄ to the predicted geometry below {limits['distance']:g}",
        claimed=claimed,
        predicted=0.0,
        measured=max(nc1, worst) if math.isfinite(worst) else math.nan,
        tolerance=limits["distance"],
        sentence=f"{name}: NC1 ends at most at {nc1:.2g}, the largest distance at {ends}"
        + (", after a training too short to decide." if holds is None else "."),
    )


def judge_partial(part: Results, what: str, name: str) -> Verdict:
    """Judge whether all partial products of heads of several layers end at the predicted ones."""
    network = what == "network"
    limit = _NETWORK_LIMITS["distance"] if network else UFM_LIMIT
    deep = [run for run in part.runs if run.problem.depth > 1]
    depths = {
        depth: largest(runs, _partial)
        for depth, runs in sorted_by(deep, lambda run: run.problem.depth).items()
    }
    worst = largest(deep, _partial)
    holds = unless_early(deep, worst < limit, part.scale)
    if network and part.scale == "smoke":
        holds = None
    ends = ", ".join(f"{value:.2g} (M = {depth})" for depth, value in depths.items())
    return verdict(
        decided(deep, holds),
        criterion="the Gram matrices of all partial products W_M … W_j and W_{j-1} … W_1 H̄ of "
        f"every run with M ≥ 2 end within {limit:g} of the predicted ones",
        claimed=f"{name}: every partial product of the layers has the same frame, with powers of "
        "the same singular values",
        predicted=0.0,
        measured=worst,
        tolerance=limit,
        sentence=f"{name}: the largest distance of a partial product ends at {ends}"
        + (", after a training too short to decide." if holds is None else "."),
    )


def _partial(run: Run) -> float:
    return run.measured("partial_to_predicted")


def _curves(part: Results, column: str, x: str) -> list[Curve]:
    """Return one curve a depth and bias, of the first run of each task."""
    curves = []
    for run in (result.runs[0] for result in part.tasks if result.runs):
        history, labels = run.history, run.labels
        if not len(history):
            continue
        biased = labels.get("bias", "none") == "free"
        label = f"M = {labels['layers']}"
        centred = biased and column == "means_to_predicted"
        curves.append(
            Curve(
                label + (", bias" if biased else ""),
                list(history[x]),
                list(history["centered_means_to_predicted" if centred else column]),
                DEPTHS.index(labels["layers"]),
                "dashed" if biased else "solid",
            )
        )
    return curves


def collapse_charts(part: Results, name: str, x: str) -> list[Panel]:
    """Draw the paper's four metrics over training, of one network."""
    log_x = x == "iteration"
    metrics = {
        "NC1": ("nc1", NC1),
        "NC2, classifier W Wᵀ": ("classifier_to_predicted", _DISTANCE),
        "NC2, class means H̄ᵀH̄": ("means_to_predicted", _DISTANCE),
        "NC3, mean logits W H̄": ("logits_to_predicted", _DISTANCE),
    }
    return [
        Chart(f"{title}, {name}", x, label, _curves(part, column, x), log_x=log_x, log_y=True)
        for title, (column, label) in metrics.items()
    ]


def final_table(part: Results, title: str) -> Table:
    """List where the runs ended, the worst of the seeds."""
    columns = ["objective", "predicted_objective"]
    if any(run.task.kind == "network" for run in part.done):
        columns.append("test_accuracy")
    found: dict[tuple[int, str], list[list[float]]] = {}
    for run in part.done:
        own = run.problem.depth, BIAS_NAMES[run.problem.bias]
        values = [*measures(run).values(), *(run.measured(name) for name in columns)]
        found.setdefault(own, []).append(values)
    names = ["NC1", "W distance", "H distance", "W H distance", "objective", "certified minimum"]
    return Table(
        title,
        ["M", "bias", *names, *(["test accuracy"] if "test_accuracy" in columns else [])],
        [[*key, *(float(v) for v in np.max(rows, axis=0))] for key, rows in found.items()],
        "Distances of W Wᵀ, H̄ᵀH̄ and W H̄ to the predicted geometry, each divided by its norm first "
        "(H̄ centred where there is a bias). The largest of the seeds.",
    )


def above(runs: Sequence[Run]) -> int:
    """Return how many runs ended above the certified minimum."""
    return sum(not at_minimum(run) for run in runs if not run.failed)
