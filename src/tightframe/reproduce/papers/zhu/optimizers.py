"""Fig. 3 of Zhu et al.: collapse with three optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tightframe.figures.model import Panel
from tightframe.reproduce.papers.zhu import shared
from tightframe.reproduce.results import Results
from tightframe.reproduce.spec import Figure, Task, Verdict

_OPTIMIZERS = ("SGD", "Adam", "L-BFGS")


def _optimizer(scale: str, name: str) -> dict[str, Any]:
    paper = scale == "paper"
    if name == "SGD":
        return shared.sgd(scale, 128)
    if name == "Adam":
        lr, batch_size = (1e-4, 64) if paper else (1e-3, 128)
        return {"optimizer": "adam", "lr": lr, "batch_size": batch_size}
    # Of small data an epoch is one step of twenty iterations, with as many evaluations. The line
    # search starts at lr and takes 0.1 nearly always, a tenth of what curvature says; it stalls by
    # rounding before collapse.
    epochs, lr = {"smoke": (5, 1.0), "cpu": (160, 1.0), "paper": (200, 0.1)}[scale]
    return {"optimizer": "lbfgs", "lr": lr, "epochs": epochs}


def _tasks(scale: str) -> list[Task]:
    return [
        shared.network_task(scale, data, _optimizer(scale, name), optimizer=name)
        for data in shared.DATA[scale]
        for name in _OPTIMIZERS
    ]


def _judge(results: Results) -> list[Verdict]:
    return [
        shared.judge_collapse(
            results.select(what="network", optimizer=name),
            name,
            f"all metrics tend to 0 with {name}",
        )
        for name in _OPTIMIZERS
    ]


def _draw(results: Results) -> list[Panel]:
    networks = results.select(what="network").done
    data = list(shared.DATA[results.scale])

    def style(labels: Mapping[str, Any]) -> tuple[str, int, str]:
        name = labels["optimizer"]
        return name, _OPTIMIZERS.index(name), "dashed" if data.index(labels["data"]) else "solid"

    columns = ("nc1", "classifier_to_etf", "self_duality", "bias_alignment", "train_accuracy")
    heads = {"data": "data", "optimizer": "optimiser"}
    table = shared.metrics_table(networks, heads, "End of training")
    return [
        *shared.history_charts(networks, columns, style, [shared.NAMES[name] for name in data]),
        table,
    ]


FIGURE = Figure(
    "optimizers",
    "Collapse with three optimisers",
    "Fig. 3",
    claim="NC1 to NC4 fall towards zero whichever optimiser trains: SGD, Adam or L-BFGS.",
    caption="The curves of a metric fall on the logarithmic axis, whichever optimiser "
    "trains; one that stays up has not collapsed. An epoch of L-BFGS on small data is "
    "twenty iterations.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.SMALL + "L-BFGS takes the whole training set a step, twenty iterations an epoch, "
    "and its line search starts at 1; the paper takes batches of 2048 and 0.1, which on "
    "small data stalled before collapse. Batch norm makes the length of decayed weights "
    "meaningless, so L-BFGS keeps gaining by shrinking them. At scale paper the data sets "
    "have 5000 samples of each class. The curve of NC3 compares W with the centred class "
    "means; the table has the paper's W (H - μ) and ETF.",
    place=2,
)
