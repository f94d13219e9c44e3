"""Oversampling lifts minority collapse, as Hong & Ling's threshold implies."""

from __future__ import annotations

import math

from tightframe.figures.model import Panel, Table
from tightframe.reproduce.judging import decided, largest, least, sorted_by, verdict
from tightframe.reproduce.papers.hong_ling import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict
from tightframe.runs.verdicts import COLLAPSE_TOLERANCE as COLLAPSED

_FACTORS = (1, 2, 3, 4, 5)
_DECAY = 0.004


def _tasks(scale: str) -> list[Task]:
    problems = [shared.problem(shared.step(5, 500, 100 * r), _DECAY) for r in _FACTORS]
    majority, minority = shared.small(scale)
    # Between the thresholds without and with oversampling, as 0.004 is for 500 and 100.
    decay = _DECAY * math.sqrt(minority / 100) * 3000 / shared.total(5, majority, minority)
    counts, decay = shared.step(5, majority, minority), round(decay, 8)
    tasks = [shared.theory(problems), shared.ufm(scale, problems)]
    for factor in (1, 5) if scale == "smoke" else _FACTORS:
        more = dict(shared.WARMUP[scale])
        if factor > 1:
            more["oversample"] = [1] * 5 + [factor] * 5
        tasks.append(shared.network(scale, counts, decay, more, factor=factor))
    return tasks


def _factor(run: Run) -> int:
    """Return how often each minority sample is repeated."""
    return int(run.labels.get("factor", run.problem.groups[-1].count // 100))


def _predicted(run: Run) -> float:
    return float(run.predicted_margins[-1])


def _judge(results: Results) -> list[Verdict]:
    verdicts = []
    for what, name, tolerance in (
        ("UFM", "UFM", 0.05),
        ("network", shared.NETWORKS[results.scale], 0.2),
    ):
        runs = results.select(what=what).runs
        plain = [run for run in runs if _factor(run) == 1]
        repeated = [run for run in runs if _factor(run) > 1]
        before, after = (
            largest(plain, shared.minority_margin),
            least(repeated, shared.minority_margin),
        )
        off = largest(repeated, lambda run: abs(shared.minority_margin(run) - _predicted(run)))
        short = what == "network" and results.scale == "smoke"
        lifted = after > COLLAPSED and off < tolerance
        verdicts.append(
            verdict(
                decided(plain, None if short else before < COLLAPSED)
                & decided(repeated, None if short else lifted),
                criterion=f"the minority's margin is below {COLLAPSED} nats without oversampling "
                f"and above with it, there within {tolerance:g} of the predicted margin",
                claimed=f"{name}: oversampling the minority lifts its collapse",
                predicted=least(repeated, _predicted),
                measured=after,
                tolerance=tolerance,
                sentence=f"{name}: the minority's margin is {before:.2g} as it is and at least "
                f"{after:.3g} when oversampled, at most {off:.2g} from the prediction"
                + (" (a short training)." if short else "."),
            )
        )
    return verdicts


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    ufms, networks = results.select(what="UFM").done, results.select(what="network").done
    network_name = shared.NETWORKS[results.scale]
    for name, runs, label in (
        ("UFM by gradient descent", ufms, "UFM"),
        (network_name, networks, "network"),
    ):
        if runs:
            x_label = "how often each minority sample is repeated"
            panels.append(shared.margin_chart(name, x_label, _factor, runs, runs, label))
    if networks:
        accuracies = ("train_accuracy", "test_accuracy")
        panels.append(
            Table(
                f"{network_name}: accuracy",
                ["repeated", "minority margin", "predicted", "training", "test"],
                [
                    [factor, shared.minority_margin(run), _predicted(run)]
                    + [run.measured(name) for name in accuracies]
                    for factor, (run,) in sorted_by(networks, _factor).items()
                ],
                "The training accuracy counts every repetition.",
            )
        )
    if ufms:
        title = "UFM, mean logits over the repetition"
        panels.append(shared.logit_maps(title, ufms, _factor, "repeated {} times", 5))
    return panels


FIGURE = Figure(
    "oversampling",
    "Oversampling lifts minority collapse",
    "follows from the threshold (no figure)",
    claim="A minority that has collapsed becomes distinct again when its samples are "
    "repeated, because the threshold √n_B / N of the repeated set is above λ.",
    caption="The minority's margin leaves zero as soon as its samples are repeated.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note="λ = 0.004 lies between the thresholds without (0.00333) and with twofold "
    "repetition (0.00404). " + shared.SCALED + shared.WARMED,
    place=7,
)
