"""Fig. 6 of Zhu et al. and its table: a classifier fixed to a simplex ETF, and d = K."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tightframe.figures.model import Panel, Table
from tightframe.heads.savings import layer_parameters, parameter_savings
from tightframe.reproduce.judging import certified, decided, largest, least, sorted_by, verdict
from tightframe.reproduce.papers.zhu import shared
from tightframe.reproduce.results import Results
from tightframe.reproduce.spec import Figure, Task, Verdict

_VARIANTS = (
    ("linear", "wide", "learned, d large"),
    ("fixed_etf", "wide", "fixed, d large"),
    ("linear", "narrow", "learned, d = K"),
    ("fixed_etf", "narrow", "fixed, d = K"),
)

#: Parameters saved by a fixed ETF with d = K, in percent, as the paper quotes them.
_QUOTED = {"resnet18": 20.70, "resnet50": 4.45}

#: Cases of the table of parameters.
_CASES = (("resnet18", 10), ("resnet50", 10), ("resnet18", 100), ("resnet50", 1000))


#: What trials beside the record showed about networks that do not collapse.
_CAUSE = (
    "Why trained classifiers of d = K do not collapse: scales of batch norms are decayed, as the "
    "paper decays all parameters, but by 1e-2 instead of 5e-4. Found in trials beside this record "
    "(the same networks and steps in a plain loop). MLP, seeds 0 to 2: none of three collapses "
    "(NC2 0.40 to 0.43; the smallest of the classifier's nine singular values is 0.001 to 0.11, "
    "the others 1.1 to 1.8); the scales of 112 to 116 of the 128 units of the first layer go to "
    "zero, and class means lose the ninth direction in the second layer already (seeds 0 and 2; "
    "four classes lie as two nearly opposite pairs instead of as a tetrahedron). Without decay of "
    "the batch norms' scales and shifts, nothing else changed, no unit dies and three of three "
    "collapse (NC2 0.04 to 0.08). The last ReLU is not the cause: without it two of two still end "
    "with rank 8 and 7 (400 epochs). What is lost does not come back: 300 more epochs without that "
    "decay, or with a twentieth of all decay, end at NC2 0.43 to 0.59 (two seeds). A fifth of the "
    "decay with twice the learning rate keeps nine directions (the smallest singular value is "
    "0.9), but NC2 only comes to 0.31 in as many steps, so the paper's decay does not fit here. "
    "ResNet18, one seed, 240 epochs instead of the 100 here: with d = K the ninth singular value "
    "ends at 0.15 and NC2 at 0.42; without that decay at 0.57 (the largest is 0.71) and 0.14, "
    "still falling. At d = 64 the 100 epochs are too few: with 240 NC2 ends at 0.08, all decayed. "
)


def _fixed_networks(scale: str) -> dict[str, dict[str, Any]]:
    """Return configurations by the network's name, at its own width."""
    if scale == "smoke":
        return {"MLP": {"data": "digits"}}
    if scale == "cpu":
        resnet = {
            "data": "fashion_mnist",
            "network": "resnet18",
            "network_options": {"width": 8, "stem": "imagenet", "last_relu": True},
            "feature_dim": 64,
            "epochs": 100,
            "measure_every": 10,
        }
        return {"ResNet18": resnet, "MLP": {"data": "fashion_mnist"}}
    options = {"stem": "cifar", "last_relu": True}
    return {
        name: {
            "data": "cifar10",
            "network": name.lower(),
            "network_options": options,
            "feature_dim": width,
        }
        for name, width in (("ResNet18", 512), ("ResNet50", 2048))
    }


#: Seeds at scale cpu. The first four of the ResNet18 and three of the MLP left it open: they lost
#: .007 and .006 with standard errors of .004. As many as fit into 20 minutes on two cores, 26 of
#: the ResNet18 first, which that scatter asks for.
_SEEDS = {"ResNet18": 26, "MLP": 14}


def _fixed_seeds(scale: str, network: str) -> range:
    """Return seeds: on Fashion-MNIST those of one network differ by more than `SIMILAR`."""
    return range(_SEEDS[network] if scale == "cpu" else 1)


def _tasks(scale: str) -> list[Task]:
    problems = [shared.problem_of(dim) for dim in (512, shared.CLASSES)]
    tasks = [Task("solve", {"problems": problems}, {"what": "theory"})]
    for network, config in _fixed_networks(scale).items():
        data = config["data"]
        for seed in _fixed_seeds(scale, network):
            for head, width, variant in _VARIANTS:
                own = {**shared.sgd(scale, 128), **config, "head": head}
                if width == "narrow":
                    own["feature_dim"] = shared.CLASSES
                if seed:
                    own["seed"] = seed
                labels = {"network": network, "variant": variant, "seed": seed}
                tasks.append(shared.network_task(scale, data, own, **labels))
    return tasks


@functools.cache
def built_parameters(network: str, num_classes: int, width: int | None = None) -> int:
    """Return how many parameters a ResNet of tightframe has that is really built (on no device).

    Parameters
    ----------
    network : {"resnet18", "resnet50"}
        With the 7 x 7 stem.
    num_classes : int
    width : int, optional
        Of the features; None is the network's own.
    """
    import torch

    from tightframe.training.backbones import build_backbone

    with torch.device("meta"):
        backbone = build_backbone(network, (3, 224, 224), width, stem="imagenet")
        head = torch.nn.Linear(int(backbone.feature_dim), num_classes)  # type: ignore[arg-type]
    return sum(p.numel() for part in (backbone, head) for p in part.parameters())


def _judge(results: Results) -> list[Verdict]:
    verdicts = [_judge_savings(name, quoted) for name, quoted in _QUOTED.items()]
    verdicts.append(_judge_minima(results.select(what="theory")))
    for network in _fixed_networks(results.scale):
        part = results.select(what="network", network=network)
        verdicts += [
            shared.judge_collapse(
                part,
                f"{network}, all four variants",
                f"{network}: features collapse with fixed and with narrow classifiers",
            ),
            _judge_accuracy(part, network),
        ]
    return verdicts


def _judge_minima(part: Results) -> Verdict:
    apart = largest(part, lambda run: run.objective) - least(part, lambda run: run.objective)
    return verdict(
        decided(part, apart < 1e-9 and certified(part)),
        criterion="the certified minima of the UFM at d = 512 and d = K differ by less than 1e-9",
        claimed="d = K and an ETF as classifier cost nothing",
        predicted=0.0,
        measured=apart,
        tolerance=1e-9,
        sentence=f"The certified minima at d = 512 and d = 10 differ by {apart:.1g} nats, and "
        "at both the classifier is a simplex ETF.",
    )


def _judge_savings(name: str, quoted: float) -> Verdict:
    counted = parameter_savings(name, shared.CLASSES, width=shared.CLASSES)
    before, after = (built_parameters(name, shared.CLASSES, w) for w in (None, shared.CLASSES))
    percent = 100 * (before - after) / before
    same = (before, after) == (counted.parameters_before, counted.parameters_after)
    return verdict(
        decided((), same and abs(percent - quoted) < 0.005),
        criterion="parameters of the built networks equal the formula's, and the share saved is "
        "the quoted one to two decimals",
        claimed=f"a fixed ETF with d = K saves {quoted:.2f} % of the parameters of {name}",
        predicted=counted.percent,
        measured=percent,
        tolerance=0.005,
        sentence=f"{name}, 10 classes: {before:,} parameters, {before - after:,} or "
        f"{percent:.2f} % less with d = K and a fixed classifier.",
    )


def _judge_accuracy(part: Results, network: str) -> Verdict:
    by_seed = sorted_by(part.runs, lambda run: int(run.labels["seed"]))
    # Only seeds all of whose variants ended can be compared; the variants are in their order.
    accuracies = np.reshape(
        [
            [shared.accuracy_of(run) for run in own]
            for own in by_seed.values()
            if not any(run.failed for run in own)
        ],
        (-1, len(_VARIANTS)),
    )
    loss, values = math.nan, "no seed has all variants"
    refuted = False
    open_: list[str] = []
    seeds, smoke = len(accuracies), part.scale == "smoke"
    if seeds:
        losses = accuracies[:, :1] - accuracies[:, 1:]
        means = losses.mean(axis=0)
        loss = float(means.max())
        errors = [shared.standard_error(own) for own in losses.T]
        names = [variant for _, _, variant in _VARIANTS]
        told = zip(names, accuracies.mean(axis=0), strict=True)
        values = ", ".join(f"{variant} {mean:.4f}" for variant, mean in told)
        for name, mean, error in zip(names[1:], means, errors, strict=True):
            if abs(mean - shared.SIMILAR) < 2 * error:
                open_.append(f"{name} loses {mean:.3f} ± {error:.3f}")
            else:
                refuted |= bool(mean >= shared.SIMILAR)
        if seeds > 1:
            values += f" (means of {seeds} seeds; the largest loss is {loss:.3f} ± "
            values += f"{errors[int(means.argmax())]:.3f})"
        if open_ and not smoke and not refuted:
            values += f"; these seeds do not decide whether less than {shared.SIMILAR:g} is lost: "
            values += ", ".join(open_)
    return verdict(
        decided(
            part,
            None if smoke else loss < shared.SIMILAR,
            refuted=False,
            unclear=bool(open_) and not smoke and not refuted,
        ),
        criterion="fixed and narrow classifiers lose less than "
        f"{shared.SIMILAR:g} of test accuracy against the usual one (means over seeds); undecided "
        "if a loss is within two standard errors over the seeds of that and none is above",
        claimed=f"{network}: no loss of generalisation",
        predicted=0.0,
        measured=loss,
        tolerance=shared.SIMILAR,
        sentence=f"{network}, test accuracy: {values}" + (shared.SHORT if smoke else "."),
    )


def _draw(results: Results) -> list[Panel]:
    variants = [variant for _, _, variant in _VARIANTS]
    networks = list(_fixed_networks(results.scale))

    def style(labels: Mapping[str, Any]) -> tuple[str, int, str]:
        name = labels["variant"]
        line = "dashed" if networks.index(labels["network"]) else "solid"
        return name, variants.index(name), line

    runs = results.select(what="network").done
    first = [run for run in runs if run.labels["seed"] == 0]
    columns = ("test_accuracy", "nc1", "self_duality")
    heads = {"network": "network", "data": "data", "variant": "classifier"}
    return [
        *shared.history_charts(first, columns, style, networks, scaled=True),
        shared.metrics_table(runs, heads, "End of training, means over seeds"),
        _savings_table(),
    ]


def _savings_table() -> Table:
    body = []
    for architecture, classes in _CASES:
        saved = parameter_savings(architecture, classes, width=classes)
        layers, _ = layer_parameters(architecture, classes)
        body.append(
            [
                architecture,
                classes,
                saved.parameters_before,
                100 * layers["head"] / saved.parameters_before,
                saved.saved,
                round(saved.percent, 2),
                round(saved.memory_percent, 2),
            ]
        )
    return Table(
        "What a fixed simplex ETF with d = K saves",
        [
            "network",
            "K",
            "parameters",
            "classifier, %",
            "saved",
            "saved, %",
            "memory in training, %",
        ],
        body,
        "Memory: parameters, gradients and the momentum of SGD.",
    )


FIGURE = Figure(
    "fixed-etf",
    "A classifier fixed to a simplex ETF, and d = K",
    "Fig. 6 and its table",
    claim="Fixing the classifier as a simplex ETF and narrowing the features to d = K "
    "costs no accuracy and saves 20.70 % of the parameters of ResNet18.",
    caption="The four curves of test accuracy end together; the table counts parameters.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note="No random crops and flips, so accuracies are below the paper's at scale paper "
    "too. The README of the paper's code says over 20 % for ResNet18; the two decimals are "
    "quoted from memory. For ImageNet's 1000 classes d = K would add parameters to "
    "ResNet50. "
    + shared.SMALL
    + "At scale cpu there is a ResNet18 of width 8 with the 7 x 7 stem on Fashion-MNIST as well, "
    "100 epochs; until it was recorded with 10,000 test images, it was on digits, one seed, where "
    "0.01 of the test set were four images. Charts show the first seed. How many seeds there are, "
    "26 and 14, was fixed after the first four and three, which did not decide: what their scatter "
    "asks for, and for the MLP what 20 minutes on two cores leave. "
    "That the loss of every variant, not the largest alone, has to be clear of 0.01 by two "
    "standard errors was asked for after the runs. " + _CAUSE,
    place=5,
)
