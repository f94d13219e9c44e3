"""Dang et al. 2023: balanced classes, the deep linear UFM with MSE."""

from __future__ import annotations

from tightframe.figures.model import Panel
from tightframe.geometry.dense import orthogonal_frame, simplex_etf
from tightframe.reproduce.judging import certified, decided, largest, relative_gap, verdict
from tightframe.reproduce.papers.dang_2023 import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict
from tightframe.reproduce.tasks import GRAMS

#: Widths of the features and between three layers, which the theorems leave free above the rank.
_WIDTHS = {"smoke": [16, 12, 8], "cpu": [64, 32, 16], "paper": [64, 32, 16]}


def _tasks(scale: str) -> list[Task]:
    widths = _WIDTHS[scale]
    tapered = {
        bias: shared.balanced_problem(len(widths), bias, dim=widths) for bias in shared.BIAS_NAMES
    }
    problems = [
        shared.balanced_problem(depth, bias)
        for depth in shared.DEPTHS
        for bias in shared.BIAS_NAMES
    ]
    return [
        shared.theory([*problems, *tapered.values()]),
        *(
            shared.ufm(scale, [shared.balanced_problem(depth, bias)], layers=depth, bias=bias)
            for depth in shared.DEPTHS
            for bias in shared.BIAS_NAMES
        ),
        *(
            shared.ufm(
                scale,
                [problem],
                options={"dim": widths},
                what="widths",
                layers=len(widths),
                bias=bias,
            )
            for bias, problem in tapered.items()
        ),
    ]


def _frame_distance(run: Run) -> float:
    """Return how far a minimiser is from the paper's frame: orthogonal, or simplex ETF with bias.

    The largest distance of the three matrices.
    """
    k = run.problem.num_classes
    frame = simplex_etf(k) if run.problem.bias == "free" else orthogonal_frame(k)
    return max(run.geometry.distance(frame, part) for part in GRAMS)


def _judge(results: Results) -> list[Verdict]:
    theory = results.select(what="theory")
    worst, gap = largest(theory, _frame_distance), largest(theory, relative_gap)
    verdicts = [
        verdict(
            decided(theory, worst < 1e-6 and certified(theory)),
            criterion="W Wᵀ, H̄ᵀH̄ and W H̄ of every certified minimiser are within 1e-6 of an "
            "orthogonal frame (no bias) or a simplex ETF (last-layer bias)",
            claimed="global minimisers form an orthogonal frame without bias and a simplex ETF "
            "with a last-layer bias, for any number of linear layers",
            predicted=0.0,
            measured=worst,
            tolerance=1e-6,
            sentence=f"The {len(theory.done)} certified minimisers (relative gap at most "
            f"{gap:.1g}) are within {worst:.1g} of the claimed frames.",
        )
    ]
    for bias, name in shared.BIAS_NAMES.items():
        frame = "simplex ETF" if bias == "free" else "orthogonal frame"
        part = results.select(what="UFM", bias=bias)
        claim = f"with {name}, NC1 and the distances to the {frame} fall to near 0"
        verdicts.append(shared.judge_collapse(part, "UFM", claim, f"UFM, {name}"))
    name = _tapered(results)
    claim = f"{name}: NC1 and the distances to the same frames fall to near 0"
    verdicts.append(shared.judge_collapse(results.select(what="widths"), "UFM", claim, name))
    return [*verdicts, shared.judge_partial(results.select("ufm"), "UFM", "UFM")]


def _tapered(results: Results) -> str:
    return f"UFM, widths {', '.join(map(str, _WIDTHS[results.scale]))}"


def _draw(results: Results) -> list[Panel]:
    part = results.select(what="UFM")
    return [
        *shared.collapse_charts(part, "UFM", "iteration"),
        shared.final_table(part, "UFM, end of training"),
        shared.final_table(results.select(what="widths"), f"{_tapered(results)}, end of training"),
    ]


FIGURE = Figure(
    "balanced-ufm",
    "Balanced classes, deep linear UFM with MSE",
    "direct optimisation experiment, balanced",
    claim="For any number of linear layers features collapse, and W, H̄ and W H̄ form an "
    "orthogonal frame without bias and a simplex ETF with a last-layer bias.",
    caption="All four metrics fall to numerical zero, for one to nine linear layers, "
    "without bias (solid) and with (dashed).",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.DESCENT_NOTE + " Layers of widths that differ start with the same N(0, 0.1²).",
    place=1,
)
