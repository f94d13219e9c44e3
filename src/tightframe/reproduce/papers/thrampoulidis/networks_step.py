"""Thrampoulidis et al.: networks under STEP imbalance, towards SELI or the ETF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tightframe.figures.model import Chart, Curve, Panel, Table
from tightframe.reproduce.judging import below, decided, largest, mean_by, rises, verdict
from tightframe.reproduce.papers.thrampoulidis import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict


def _tasks(scale: str) -> list[Task]:
    return [
        shared.network_task(scale, ratio, data, network)
        for data, network in shared.NETWORKS[scale]
        for ratio in shared.RATIOS
    ]


def _judge(results: Results) -> list[Verdict]:
    return [
        verdict
        for name, part in shared.networks_of(results)
        for verdict in _judge_network(name, part.runs, results.scale)
    ]


def _judge_network(name: str, runs: Sequence[Run], scale: str) -> Iterator[Verdict]:
    shared.check_ratios(name, runs, shared.RATIOS)
    smoke = scale == "smoke"
    ending = f"{shared.SHORT}." if smoke else "."
    share = largest(shared.imbalanced(runs), shared.seli_or_etf)
    yield below(
        share,
        0.5,
        shared.imbalanced(runs),
        decidable=not smoke,
        predicted=None,
        criterion="at R > 1, classifier and class means end less than half as far from "
        "SELI as from the ETF",
        claimed=f"{name}: the Gram matrices converge to SELI, not to the ETF",
        sentence=f"{name}: the distance to SELI is at most {share:.2g} of that to the ETF{ending}",
    )
    left = mean_by(runs, shared.ratio_of, lambda run: shared.from_seli(run).max()).values()
    yield verdict(
        decided(runs, None if smoke else rises(left)),
        criterion="the largest final distance to SELI (classifier, class means, logits) "
        "rises with R",
        claimed=f"{name}: convergence worsens with increasing imbalance",
        predicted=None,
        measured=shared.listed(left),
        tolerance=None,
        sentence=f"{name}: the largest distance to SELI is {shared.listed(left)} at R = "
        f"{', '.join(str(ratio) for ratio in shared.RATIOS)}{ending}",
    )
    if scale == "paper":
        return  # the ridge that all parameters' decay amounts to is unknown
    worst = largest(runs, shared.from_minimiser)
    yield below(
        worst,
        shared.NEAR,
        runs,
        decidable=not smoke,
        criterion=f"all three end within {shared.NEAR:g} of the certified minimiser of the ridge",
        claimed=f"{name}: the network does what the UFM does",
        sentence=f"{name}: the networks end at most {worst:.2g} from the UFM's certified "
        f"minimiser{ending}" + ("" if smoke else _last_quarter(runs)),
    )


def _last_quarter(runs: Sequence[Run]) -> str:
    """Say how far the network that ends farthest from its minimiser still came near it."""
    done = [run for run in runs if not run.failed]
    if not done:
        return ""
    farthest = max(done, key=lambda run: shared.from_minimiser(run).max())
    key = list(shared.PARTS)[int(shared.from_minimiser(farthest).argmax())]
    own = farthest.history
    late = own.loc[own["epoch"] >= 0.75 * own["epoch"].max(), f"{key}_to_predicted"]
    return (
        f" Over the last quarter of training, as the learning rate falls to 0, the farthest (the "
        f"{shared.PARTS[key]} at R = {shared.ratio_of(farthest)}) came from {late.iloc[0]:.2g} to "
        f"{late.iloc[-1]:.2g}."
    )


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    tables: list[Panel] = []
    for name, part in shared.networks_of(results):
        runs = sorted(part.done, key=shared.ratio_of)
        if not runs:
            continue
        panels += [_chart(name, runs, key, results.scale) for key in shared.PARTS]
        ends = ("nc1", "test_accuracy")
        table = [
            [
                shared.ratio_of(run),
                *shared.distance_row(run),
                *(run.measured(column) for column in ends),
            ]
            for run in runs
        ]
        columns = ["R", *shared.distance_titles(), "NC1", "accuracy"]
        note = "Distances of W, H and Z = W H; the accuracy is that on test data."
        tables.append(Table(f"{name}: at the end of training", columns, table, note))
    return panels + tables


def _chart(name: str, runs: Sequence[Run], key: str, scale: str) -> Chart:
    # One legend entry a ratio, which covers no curve.
    column = "centered_means" if scale == "paper" and key == "means" else key
    curves = []
    for color, run in enumerate(runs):
        own = run.history
        x = list(own["epoch"])
        curves.append(
            Curve(f"R = {shared.ratio_of(run)}", x, list(own[f"{column}_to_predicted"]), color)
        )
        if shared.ratio_of(run) > 1:
            curves.append(Curve("", x, list(own[f"{column}_to_etf"]), color, "dashed"))
        end = float(shared.from_seli(run)[list(shared.PARTS).index(key)])
        curves.append(Curve("", x[-1:], [end], color, "points"))
    axis = "distance to minimiser (—), ETF (- -), SELI (•)"
    note = f"The minimiser is the UFM's at ridge {shared.network_ridge(scale):g}."
    return Chart(f"{name}: {shared.PARTS[key]}", "epoch", axis, curves, note=note)


FIGURE = Figure(
    "networks-step",
    "Networks under STEP imbalance: towards SELI or the ETF",
    "network experiments",
    claim="The classifier and class means of networks converge to SELI under STEP "
    "imbalance, and the less so the larger R is.",
    caption="The distance to the minimiser of the ridge (solid) falls to nearly nothing, "
    "that to the ETF (dashed, for R > 1) stays; the points at the end are the distances to "
    "SELI, which the ridge leaves. Logits of SELI and the ETF are the same.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.NETWORK_NOTE + shared.FASHION_NOTE,
    place=2,
)
