"""Dang et al. 2023: imbalanced classes, the deep linear UFM with MSE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tightframe.figures.model import HeatMaps, Matrix, Panel, block_borders
from tightframe.reproduce.judging import decided, first_by, largest, unless_early, verdict
from tightframe.reproduce.papers.dang_2023 import shared
from tightframe.reproduce.papers.dang_2023.frames import length_table, lengths
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict


def _length_error(run: Run) -> float:
    """Return how far matrices are from the paper's diagonal ones, over the largest entry."""
    return max(
        float(np.abs(run.array(name) - np.diag(expected)).max() / expected.max())
        for name, expected in lengths(run).items()
    )


def _imbalanced_problem(depth: int) -> dict[str, Any]:
    return shared.mse(shared.IMBALANCED, shared.SYNTHETIC_DECAY, depth)


def _tasks(scale: str) -> list[Task]:
    return [
        shared.theory([_imbalanced_problem(depth) for depth in shared.IMBALANCED_DEPTHS]),
        *(
            shared.ufm(scale, [_imbalanced_problem(depth)], layers=depth, bias="none")
            for depth in shared.IMBALANCED_DEPTHS
        ),
    ]


def _judge_lengths(part: Results, tolerance: float, what: str) -> Verdict:
    worst = largest(part, _length_error)
    holds = unless_early(part, worst < tolerance, part.scale)
    return verdict(
        decided(part, holds),
        criterion="every entry of W Wᵀ, H̄ᵀH̄ and W H̄ is within "
        f"{tolerance:g} of the largest from the diagonal matrices of the paper's formula",
        claimed=f"{what}: minimisers are general orthogonal frames whose lengths follow from the "
        "counts",
        predicted=0.0,
        measured=worst,
        tolerance=tolerance,
        sentence=f"{what}: entries differ from the formula's by at most {worst:.1g} of the largest"
        + ("; not converged yet." if holds is None else "."),
    )


def _judge(results: Results) -> list[Verdict]:
    theory, part = results.select(what="theory"), results.select(what="UFM")
    claim = "UFM: NC1 and the distances to the general orthogonal frame fall to near 0"
    return [
        _judge_lengths(theory, 1e-6, "Certified minimisers"),
        _judge_lengths(part, shared.UFM_LIMIT, "UFM"),
        shared.judge_collapse(part, "UFM", claim, "UFM"),
        shared.judge_partial(part, "UFM", "UFM"),
    ]


def _diagonal_maps(runs: Sequence[Run], title: str) -> HeatMaps:
    chosen = first_by(runs, lambda run: run.problem.depth)
    maps = []
    for run in sorted(chosen, key=lambda run: run.problem.depth):
        gram = run.array("classifier")
        maps.append(Matrix(f"M = {run.problem.depth}", gram / np.abs(gram).max()))
    borders = block_borders(chosen[0].problem.counts) if chosen else []
    return HeatMaps(title, maps, "class", "class", borders, 1.0)


def _draw(results: Results) -> list[Panel]:
    part = results.select(what="UFM")
    return [
        *shared.collapse_charts(part, "UFM", "iteration"),
        length_table(part.done, "Squared lengths, the paper's formula and the trained UFM"),
        _diagonal_maps(part.done, "W Wᵀ of the trained UFM over its largest entry"),
    ]


FIGURE = Figure(
    "imbalanced-ufm",
    "Imbalanced classes, deep linear UFM with MSE: general orthogonal frames",
    "direct optimisation experiment, imbalanced",
    claim="Without bias W Wᵀ, H̄ᵀH̄ and W H̄ are diagonal, with lengths that follow from the "
    "number of samples: larger classes have longer rows of W.",
    caption="The metrics against the general orthogonal frame fall to numerical zero, and "
    "the lengths are those of the paper's formula.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.DESCENT_NOTE,
    place=3,
)
