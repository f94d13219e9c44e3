"""Networks beyond the theorem of Dang et al. 2024: with a bias, or features that end in no ReLU."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tightframe.figures.model import Chart, Curve, Panel, Table
from tightframe.geometry.dense import cosines
from tightframe.problem.problem import Problem
from tightframe.reproduce.judging import decided, number, verdict
from tightframe.reproduce.papers.dang_2024 import shared
from tightframe.reproduce.results import Array, Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict
from tightframe.solution import Solution
from tightframe.solve import solve

#: What the theorem assumes, and what else networks have; the first is the theorem's own network.
_WITHIN = "as in the theorem"
_VARIANTS: dict[str, dict[str, Any]] = {
    _WITHIN: {},
    "bias": {"bias": "free"},
    "no last ReLU": {"features": "real"},
    "bias, no last ReLU": {"bias": "free", "features": "real"},
}

#: The networks that are trained so; `shared.network_tasks` has them as the theorem does.
_NETWORKS = {
    "smoke": ("MLP, digits",),
    "cpu": ("MLP, Fashion-MNIST",),
    "paper": tuple(f"{name}, fashion_mnist" for name in shared.PAPER_NETWORKS),
}

#: A network has arrived where its Grams stay this close to a minimiser's.
_NEAR = 0.1

_PARTS = {"classifier": "classifier", "means": "class means", "logits": "logits"}


def _tasks(scale: str) -> list[Task]:
    """Return networks as the theorem has them, and the same ones without its assumptions."""
    return [
        shared.network(base.labels["network"], base.arguments["config"] | changes, variant=variant)
        for base in shared.network_tasks(scale)
        if base.labels["network"] in _NETWORKS[scale]
        for variant, changes in _VARIANTS.items()
    ]


@cache
def _solved(problem: Problem) -> Solution:
    return solve(problem)


def _own(run: Run) -> Solution:
    """Return the certified minimiser of the network's own problem."""
    return _solved(run.problem)


def _theorem(run: Run) -> Solution:
    """Return what the theorem predicts, whether or not it is about this network."""
    return _solved(run.problem.replace(features="nonnegative", bias="none"))


def _away(run: Run, solution: Solution) -> Array:
    """Return the distances of `_PARTS` to a minimiser, shape (3,)."""
    return np.array([run.geometry.distance(solution.geometry, part) for part in _PARTS])


def _name(run: Run) -> str:
    return f"{run.labels['network']}, {run.labels['variant']}"


def _judge(results: Results) -> list[Verdict]:
    return [
        _judge_one(run, results.scale)
        for run in results.select(what="network").runs
        if run.labels["variant"] != _WITHIN
    ]


def _judge_one(run: Run, scale: str) -> Verdict:
    nothing = np.full(len(_PARTS), np.nan)
    own = nothing if run.failed else _away(run, _own(run))
    theorem = nothing if run.failed else _away(run, _theorem(run))
    worst = list(_PARTS.values())[int(np.argmax(theorem))]
    fits = own.max() < _NEAR and 2 * own.max() < theorem.max()
    return verdict(
        decided([run], None if scale == "smoke" else fits),
        criterion="classifier, class means and logits end within "
        f"{_NEAR:g} of the certified minimiser of the network's own problem, and the farthest "
        "less than half as far from it as the farthest is from the theorem's",
        claimed=f"{_name(run)}: (not in the paper) a network that breaks an assumption of the "
        "theorem has the minimiser of its own problem, not the theorem's",
        predicted=0.0,
        measured=float(own.max()),
        tolerance=_NEAR,
        sentence=f"{_name(run)}: at most {number(own.max())} from the minimiser of cross-entropy "
        f"with {_words(run.problem)}; the theorem's prediction is {number(theorem.max())} off "
        f"(the {worst})" + (shared.SHORT if scale == "smoke" else "."),
    )


def _words(problem: Problem) -> str:
    features = "features of any sign" if problem.features == "real" else "features from zero on"
    return f"{features} and {'no' if problem.bias == 'none' else 'a free'} bias"


def _draw(results: Results) -> list[Panel]:
    runs = results.select(what="network").done
    panels: list[Panel] = []
    for network in dict.fromkeys(run.labels["network"] for run in runs):
        own = [run for run in runs if run.labels["network"] == network]
        panels += [_distances(network, own), *_by_class(network, own), _table(network, own)]
    return panels


def _distances(network: str, runs: list[Run]) -> Chart:
    curves = []
    for color, run in enumerate(runs):
        history = run.history
        farthest = history[[f"{part}_to_predicted" for part in _PARTS]].max(axis=1)
        epochs = list(history["epoch"])
        curves.append(Curve(run.labels["variant"], epochs, list(farthest), color))
        end = float(_away(run, _theorem(run)).max())
        curves.append(Curve("", epochs[-1:], [end], color, "points"))
    title = f"{network}: the farthest of W, H and W H"
    axis = "distance to own minimiser (—), theorem's (•)"
    return Chart(title, "epoch", axis, curves, log_y=True)


def _by_class(network: str, runs: list[Run]) -> list[Panel]:
    """Compare margins and lengths of class means by the samples of the class."""
    charts: dict[str, list[Curve]] = {"margin": [], "‖h_k‖": []}
    for color, run in enumerate(runs):
        counts = [float(group.count) for group in run.problem.groups]
        first = [int(np.argmax(run.problem.class_groups == g)) for g in range(len(counts))]
        lengths = np.sqrt(np.diagonal(run.array("means")))[first]
        found = {
            "margin": (run.margins, run.predicted_margins),
            "‖h_k‖": (lengths, _own(run).geometry.means_norms[first]),
        }
        for name, (measured, predicted) in found.items():
            label = run.labels["variant"]
            charts[name].append(Curve(label, counts, [float(v) for v in measured], color, "points"))
            charts[name].append(Curve("", counts, [float(v) for v in predicted], color))
    note = "Lines: the minimiser of the network's own problem."
    return [
        Chart(f"{network}: {name} by class", "samples of the class", name, curves, note=note)
        for name, curves in charts.items()
    ]


def _table(network: str, runs: list[Run]) -> Table:
    rows = []
    for run in runs:
        grams = run.array("means"), _own(run).geometry.means
        off = ~np.eye(run.problem.num_classes, dtype=bool)
        rows.append(
            [
                run.labels["variant"],
                *(float(v) for v in _away(run, _own(run))),
                *(float(v) for v in _away(run, _theorem(run))),
                *(float(np.nanmean(cosines(gram)[off])) for gram in grams),
            ]
        )
    columns = ["", *(f"{symbol}, own" for symbol in ("W", "H", "Z"))]
    columns += [f"{symbol}, theorem" for symbol in ("W", "H", "Z")]
    columns += ["cos h", "own cos h"]
    note = "Distances of W, H and Z = W H to the minimiser of the network's own problem and to the "
    note += "theorem's; the mean cosine of two class means, which is 0 in the theorem."
    return Table(f"{network}: at the end of training", columns, rows, note)


FIGURE = Figure(
    "relaxed",
    "Networks beyond the theorem's assumptions",
    "follows from the theorem's assumptions (no figure)",
    claim="The theorem is about features that end in a ReLU and a head without bias. Networks "
    "with a bias, or without the last ReLU, have other minimisers: with a bias margins differ "
    "less, without the ReLU class means are not orthogonal but a (deformed) simplex.",
    caption="Curves fall to the minimiser of the network's own problem; the points at the end are "
    "the distances to the theorem's. By class, points are networks and lines their own "
    "minimisers.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.SMALL + "Each network is trained as the theorem has it (that one is judged in the "
    "figure networks), with a free bias in the classifier, without the ReLU after the last layer, "
    "and with both; all else is the same. At scale paper on Fashion-MNIST.",
    place=6,
)
