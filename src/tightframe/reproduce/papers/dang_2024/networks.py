"""The main figure of Dang et al. 2024: the five metrics in networks."""

from __future__ import annotations

import math

import numpy as np

from tightframe.figures.model import Chart, Curve, Panel, Table
from tightframe.reproduce.judging import decided, number, verdict
from tightframe.reproduce.papers.dang_2024 import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Verdict


def _judge(results: Results) -> list[Verdict]:
    return [_judge_one(run, results.scale) for run in results.select(what="network").runs]


def _judge_one(run: Run, scale: str) -> Verdict:
    values = dict.fromkeys(shared.METRICS, math.nan) if run.failed else shared.metrics(run)
    nc1, *distances = values.values()
    far = float(np.max(distances))
    ends = ", ".join(f"{name} {number(value)}" for name, value in values.items())
    smoke = scale == "smoke"
    return verdict(
        decided([run], None if smoke else nc1 < 1e-2 and far < 0.1),
        criterion="NC1 ends below 1e-2 and each of the four distances below 0.1",
        claimed=f"{run.labels['network']}: the five metrics go towards 0 in practical networks",
        predicted=0.0,
        measured=far,
        tolerance=0.1,
        sentence=f"{run.labels['network']}: at the end of training {ends}"
        + (shared.SHORT if smoke else "."),
    )


def _draw(results: Results) -> list[Panel]:
    runs = results.select(what="network").done
    if not runs:
        return []
    names = [run.labels["network"].split(", ") for run in runs]
    families = sorted({family for family, _ in names})
    sets = list(dict.fromkeys(data for _, data in names))
    panels: list[Panel] = []
    for name, column in shared.METRICS.items():
        # The history has no vectors to compute NC2_W from.
        column = "self_duality_to_predicted" if column == "nc2_w" else column
        curves = []
        for run, (family, data) in zip(runs, names, strict=True):
            history = run.history
            share = list(history["epoch"] / history["epoch"].max())
            values = [shared.visible(value) for value in history[column]]
            style = shared.STYLES[sets.index(data)]
            label = run.labels["network"]
            curves.append(Curve(label, share, values, families.index(family), style))
        title, x_label = f"{name} of the networks", "share of the training"
        panels.append(Chart(title, x_label, name, curves, log_y=True))
    ends = [
        [*name, *shared.metrics(run).values(), run.measured("test_accuracy")]
        for run, name in zip(runs, names, strict=True)
    ]
    title = "The five metrics at the end of training"
    panels.append(Table(title, ["network", "data", *shared.METRICS, "accuracy"], ends))
    title = f"Mean logits, {runs[0].labels['network']}, n = {runs[0].problem.compact_counts}"
    return [*panels, shared.logit_maps(title, runs[0], "network")]


FIGURE = Figure(
    "networks",
    "The five metrics in networks",
    "main figure and appendix: MLP, ResNet18, VGG11, DenseNet",
    claim="The five metrics go towards 0 during the training of MLPs and convolutional "
    "networks with ReLU features on imbalanced data.",
    caption="Each metric over training, one curve a network; the table has where they end.",
    tasks=shared.network_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.SMALL + "At scale paper its MLP, ResNet18, VGG11 and DenseNet on CIFAR10, "
    "CIFAR100, MNIST, Fashion-MNIST and SVHN; all batches have 256 samples (the README has 32 for "
    "ResNet18 on CIFAR10).",
    place=2,
)
