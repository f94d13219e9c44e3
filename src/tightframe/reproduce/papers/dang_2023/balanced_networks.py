"""Dang et al. 2023: balanced classes, networks with deep linear heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tightframe.figures.model import Panel
from tightframe.reproduce.papers.dang_2023 import shared
from tightframe.reproduce.results import Results
from tightframe.reproduce.spec import Figure, Task, Verdict

_CIFAR = "5000x10"
_WIDTHS = (512, 1024, 2048)


def _tasks(scale: str) -> list[Task]:
    counts = _CIFAR if scale == "paper" else "100x10"
    setting = shared.paper_setting(counts, 1e-4, 128, 50_000)
    tasks = [
        shared.theory(
            [shared.network_problem(counts, setting, depth, bias)], layers=depth, bias=bias
        )
        for depth in shared.DEPTHS
        for bias in shared.BIAS_NAMES
    ]
    # Twenty epochs are too few for more than three linear layers.
    depths = shared.DEPTHS[:2] if scale == "smoke" else shared.DEPTHS
    for depth in depths:
        for bias in shared.BIAS_NAMES:
            for name, own, more in _backbones(scale, setting):
                labels = {"layers": depth, "bias": bias, "network": name}
                given = {"depth": depth, "bias": bias, **shared.ORTHOGONAL, **more}
                tasks.append(shared.network(scale, counts, own, given, **labels))
    return tasks


def _backbones(
    scale: str, setting: Sequence[float]
) -> Iterator[tuple[str, Sequence[float], dict[str, Any]]]:
    """Yield name, decays and options of the networks."""
    if scale != "paper":
        yield "MLP", setting, {}
        return
    for width in _WIDTHS:
        more = {"hidden": [width] * 6, "feature_dim": width}
        yield f"MLP, width {width}", setting, {**more, "network_options": {"batch_norm": True}}
    # These decay all parameters, of a mean over entries: 2 / K of our loss. SGD sees the factor.
    scaled = [1e-4 * 10 / 2, setting[1]]
    sgd = {"optimizer": "sgd", "momentum": 0.9, "lr": 1e-3 * 2 / 10, "decay_on": "all"}
    for name in ("resnet18", "vgg16"):
        yield name, scaled, {"network": name, "hidden": [256, 256], "feature_dim": 512, **sgd}


def _judge(results: Results) -> list[Verdict]:
    verdicts = []
    for bias, name in shared.BIAS_NAMES.items():
        frame = "simplex ETF" if bias == "free" else "orthogonal frame"
        part = results.select(what="network", bias=bias)
        claim = f"networks with {name}: NC1 and the distances to the {frame} fall to near 0"
        verdicts.append(
            shared.judge_collapse(part, "network", claim, f"{shared.title_of(results)}, {name}")
        )
    part, name = results.select(what="network"), shared.title_of(results)
    return [*verdicts, shared.judge_partial(part, "network", name)]


def _draw(results: Results) -> list[Panel]:
    part = results.select(what="network")
    table = shared.final_table(part, f"{shared.title_of(results)}, end of training")
    return [*shared.collapse_charts(part, shared.title_of(results), "epoch"), table]


FIGURE = Figure(
    "balanced-networks",
    "Balanced classes, networks with deep linear heads",
    "multilayer perceptron and deep learning experiments, balanced",
    claim="Networks with one to nine linear layers on top show the same geometry as the "
    "UFM: an orthogonal frame without bias, a simplex ETF with bias.",
    caption="The metrics of the networks over training.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.NETWORK_NOTE + " At scale paper charts show the MLP of width 2048; "
    "ResNet18 and VGG16 decay all parameters, as the paper's do.",
    place=2,
)
