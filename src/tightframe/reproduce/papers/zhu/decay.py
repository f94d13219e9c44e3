"""Fig. 5 of Zhu et al.: decay of all parameters and of W, H, b."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tightframe.figures.model import Panel
from tightframe.problem.counts import counts_array
from tightframe.reproduce.judging import decided, largest, sorted_by, verdict
from tightframe.reproduce.papers.zhu import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict

#: W, H, b and all layers before the features: what remains of a difference is then not theirs.
_BOTH = "W, H, b, backbone"

#: One of small networks says nothing about accuracies that differ by a hundredth.
_SEEDS = {"smoke": range(1), "cpu": range(3), "paper": range(1)}


def _networks(scale: str) -> list[tuple[str, dict[str, Any]]]:
    """Return data sets and configurations; at scale cpu the narrow ResNet18 alone."""
    found = [
        (data, {**(shared.RESNET_SGD if config else shared.sgd(scale, 64)), **config})
        for _, data, config in shared.networks(scale)
    ]
    return found[-1:] if scale == "cpu" else found


def _tasks(scale: str) -> list[Task]:
    tasks = []
    for data, config in _networks(scale):
        everywhere = shared.network_task(scale, data, config).arguments["config"]
        decay = everywhere["settings"][0][0]
        samples = int(counts_array(everywhere["counts"]).sum())
        on_features = shared.on_features(decay, samples)
        for seed in _SEEDS[scale]:
            decays: dict[str, dict[str, Any]] = {"all": {}, "features": on_features}
            if scale == "cpu" and not seed:
                decays[_BOTH] = {**on_features, "backbone_weight_decay": decay}
            for place, own in decays.items():
                # The first seed is the default, so that equal tasks of other figures run once.
                own = {**config, **own, **({"seed": seed} if seed else {})}
                tasks.append(shared.network_task(scale, data, own, place=place, seed=seed))
    return tasks


def _judge(results: Results) -> list[Verdict]:
    collapse = [
        shared.judge_collapse(
            results.select(what="network", place=place),
            f"Decay on {name}",
            f"the network collapses with decay on {name}",
        )
        for place, name in shared.PLACES.items()
    ]
    return [*collapse, _judge_accuracies(results), _judge_margins(results)]


def _judge_accuracies(results: Results) -> Verdict:
    evidence = [run for place in shared.PLACES for run in results.select(place=place).runs]
    apart, error, found = math.nan, 0.0, []
    for data, runs in sorted_by(evidence, lambda run: str(run.labels["data"])).items():
        accuracies = _accuracies(runs)
        if not len(accuracies):
            continue
        everywhere, head = accuracies.mean(axis=0)
        own_error = shared.standard_error(accuracies[:, 0] - accuracies[:, 1])
        text = f"{shared.NAMES[data]} {everywhere:.3f} and {head:.3f}"
        if len(accuracies) > 1:
            text += f", means of {len(accuracies)} seeds that differ by "
            text += f"{everywhere - head:+.3f} ± {own_error:.3f}"
        found.append(text)
        if not abs(everywhere - head) <= apart:
            apart, error = abs(float(everywhere - head)), own_error
    smoke = results.scale == "smoke"
    unclear = not smoke and abs(apart - shared.SIMILAR) < 2 * error
    sentence = f"Test accuracy with decay on all parameters and on W, H, b: {'; '.join(found)}"
    if unclear:
        sentence += ", which does not decide"
    return verdict(
        decided(
            evidence, None if smoke else apart < shared.SIMILAR, refuted=False, unclear=unclear
        ),
        criterion=f"the two test accuracies differ by less than {shared.SIMILAR:g} (means over "
        "seeds); undecided if the difference is within two standard errors over the seeds of that",
        claimed="both decays generalise similarly",
        predicted=0.0,
        measured=apart,
        tolerance=shared.SIMILAR,
        sentence=sentence + (shared.SHORT if smoke else "." + _cause(results)),
    )


def _cause(results: Results) -> str:
    """Say what is left of the difference where the layers before decay as well."""
    text = ""
    for run in results.select(place=_BOTH).done:
        seed = run.labels["seed"]
        same = [results.select(place=place, seed=seed).done for place in shared.PLACES]
        beside = " and ".join(f"{shared.accuracy_of(other):.3f}" for own in same for other in own)
        text += f" With decay on W, H, b and on the layers before seed {seed} has "
        text += f"{shared.accuracy_of(run):.3f}, beside {beside}."
    return text


def _accuracies(runs: Sequence[Run]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return test accuracies, a row a seed both of whose networks ended, a column a place."""
    rows = []
    for own in sorted_by(runs, lambda run: int(run.labels["seed"])).values():
        if not any(run.failed for run in own):
            by_place = {run.labels["place"]: shared.accuracy_of(run) for run in own}
            rows.append([by_place[place] for place in shared.PLACES])
    return np.reshape(np.array(rows, dtype=np.float64), (-1, len(shared.PLACES)))


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


def _draw(results: Results) -> list[Panel]:
    networks = results.select(what="network").done
    first = [run for run in networks if run.labels["seed"] == 0]
    data = [name for name, _ in _networks(results.scale)]
    names = {**shared.PLACES, _BOTH: _BOTH}

    def style(labels: Mapping[str, Any]) -> tuple[str, int, str]:
        name = names[labels["place"]]
        return name, list(names.values()).index(name), shared.LINES[data.index(labels["data"])]

    columns = ("nc1", "classifier_to_etf", "self_duality", "bias_alignment", "test_accuracy")
    heads = {"data": "data", "place": "decay on"}
    table = shared.metrics_table(
        networks, heads, "End of training, means over seeds", {**shared.NAMES, **names}
    )
    groups = [shared.NAMES[name] for name in data]
    return [*shared.history_charts(first, columns, style, groups), table]


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
    note=shared.SMALL
    + shared.NARROW
    + "The features' decay 1e-4 of the paper's code is summed over a batch of "
    "64, which makes it 1e-4 · 64 / N in the objective; all scales keep the ratio of the paper's "
    "decays, of all parameters to W and b to H. At scale cpu a network with decay on W, H and b "
    "and, beside it, on the layers before is shown too; it decides nothing, but tells on which "
    "decay the accuracy depends. When the criterion got its standard errors one seed was known, at "
    "a learning rate of 0.4: 0.786, 0.731, and 0.774 with the layers before. With twenty times the "
    "paper's decay, which was here before, MLPs had 0.712 and 0.797.",
    place=4,
)
