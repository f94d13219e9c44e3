"""Fig. 5 of Zhu et al.: decay of all parameters and of W, H, b."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tightframe.figures.model import Panel
from tightframe.reproduce.judging import below, decided, largest, sorted_by, verdict
from tightframe.reproduce.papers.zhu import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict

_PLACES = {"all": "all parameters", "features": "W, H and b"}

#: A fifth of the decay on all parameters, drawn where the full one is larger than the paper's.
_WEAKER = "all, a fifth"

#: Decays of classifier (and bias) and features; the paper's 1e-4 is per sample of a batch of 64.
_HEAD_DECAYS = {"smoke": (1e-2, 1e-4), "cpu": (1e-2, 1e-4), "paper": (5e-4, 1e-4 * 64 / 50_000)}


def _tasks(scale: str) -> list[Task]:
    tasks = []
    weight_decay, feature_decay = _HEAD_DECAYS[scale]
    for data in shared.DATA[scale]:
        common = shared.sgd(scale, 64)
        tasks.append(shared.network_task(scale, data, common, place="all"))
        if scale == "cpu":
            weaker = [[shared.DECAYS[scale] / 5, shared.FEATURE_DECAY]]
            tasks.append(
                shared.network_task(scale, data, {**common, "settings": weaker}, place=_WEAKER)
            )
        on_head = {
            "decay_on": "features",
            "settings": [[weight_decay, feature_decay]],
            "bias": "decayed",
            "bias_decay": weight_decay,
        }
        tasks.append(shared.network_task(scale, data, {**common, **on_head}, place="features"))
    return tasks


def _judge(results: Results) -> list[Verdict]:
    collapse = [
        shared.judge_collapse(
            results.select(what="network", place=place),
            f"Decay on {name}",
            f"the network collapses with decay on {name}",
        )
        for place, name in _PLACES.items()
    ]
    return [*collapse, _judge_accuracies(results), _judge_margins(results)]


def _judge_accuracies(results: Results) -> Verdict:
    runs = [run for place in _PLACES for run in results.select(place=place).runs]
    pairs = {
        data: [shared.accuracy_of(run) for run in own]
        for data, own in sorted_by(runs, lambda run: str(run.labels["data"])).items()
        if not any(run.failed for run in own)
    }
    apart = [abs(everywhere - head) for everywhere, head in pairs.values()]
    most = float(np.max(apart)) if apart else math.nan
    found = "; ".join(f"{shared.NAMES[data]} {a:.3f} and {b:.3f}" for data, (a, b) in pairs.items())
    smoke = results.scale == "smoke"
    return below(
        most,
        shared.SIMILAR,
        runs,
        decidable=not smoke,
        predicted=None,
        criterion=f"the two test accuracies differ by less than {shared.SIMILAR:g}",
        claimed="both decays generalise similarly",
        sentence=f"Test accuracy with decay on all parameters and on W, H, b: {found}"
        + (shared.SHORT if smoke else "." + _price_of_decay(results)),
    )


def _judge_margins(results: Results) -> Verdict:
    part = results.select(what="network", place="features")

    def off(run: Run) -> float:
        return abs(float(run.margins[0] / run.predicted_margins[0]) - 1)

    farthest = max(part.done, key=off, default=None)
    worst, smoke = largest(part, off), results.scale == "smoke"
    return verdict(
        decided(part, None if smoke else worst < 0.1),
        criterion="with decay on W, H, b the margin is within 10 % of the UFM's",
        claimed="with decays on W, H, b the network minimises the UFM's objective",
        predicted=None if farthest is None else float(farthest.predicted_margins[0]),
        measured=None if farthest is None else float(farthest.margins[0]),
        tolerance="10 %",
        sentence=f"The margins differ by at most {100 * worst:.0f} % from "
        "log(1/(λ√n) - K + 1)" + (" after a short training." if smoke else "."),
    )


def _price_of_decay(results: Results) -> str:
    """Say what a fifth of the decay on all parameters gives, where that was trained."""
    runs = results.select(what="network", place=_WEAKER).done
    if not runs:
        return ""
    found = "; ".join(
        f"{shared.NAMES[run.labels['data']]} {shared.accuracy_of(run):.3f} "
        f"(largest metric {shared.worst_of(run):.2g})"
        for run in runs
    )
    return f" With a fifth of the decay on all parameters: {found}."


def _draw(results: Results) -> list[Panel]:
    networks = results.select(what="network").done
    data = list(shared.DATA[results.scale])
    places = {**_PLACES, _WEAKER: _WEAKER}

    def style(labels: Mapping[str, Any]) -> tuple[str, int, str]:
        place = labels["place"]
        line = "dashed" if data.index(labels["data"]) else "solid"
        return places[place], list(places).index(place), line

    columns = ("nc1", "classifier_to_etf", "self_duality", "bias_alignment", "test_accuracy")
    heads = {"data": "data", "place": "decay on"}
    table = shared.metrics_table(networks, heads, "End of training", {**shared.NAMES, **places})
    return [
        *shared.history_charts(networks, columns, style, [shared.NAMES[name] for name in data]),
        table,
    ]


FIGURE = Figure(
    "decay",
    "Decay of all parameters and of W, H, b",
    "Fig. 5",
    claim="Networks collapse and generalise alike, whether all parameters decay (practice) "
    "or only classifier, features and bias (theory).",
    caption="All curves of NC1 to NC4 fall, further with decay on W, H and b; whether the "
    "test accuracies end together is in the last chart.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.SMALL + "At scale cpu a fifth of the decay on all parameters is shown as well; it "
    "decides nothing, but says what the large decay costs. "
    "The features' decay 1e-4 of the paper's code is summed over a batch of "
    "64, which makes it 1e-4 · 64 / N in the objective.",
    place=4,
)
