"""Norms and angles over training against the closed form of Dang et al. 2024."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tightframe.figures.model import Chart, Curve, Mark, Panel, Table
from tightframe.geometry.dense import cosines
from tightframe.reproduce.judging import below, largest, number
from tightframe.reproduce.papers.dang_2024 import shared
from tightframe.reproduce.results import Array, Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict
from tightframe.solve import solve


def _tasks(scale: str) -> list[Task]:
    return [shared.sampled(scale, shared.SAMPLES[scale], {}), *shared.network_tasks(scale)]


def norm_error(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Return the largest relative error of the lengths behind a Gram matrix.

    Parameters
    ----------
    measured, predicted : array_like, shape (K, K)

    Returns
    -------
    float
        Relative to the longest predicted vector, so that vanished ones count, too.
    """
    found, expected = (np.sqrt(np.diagonal(np.asarray(g))) for g in (measured, predicted))
    return float(np.abs(found - expected).max() / expected.max())


def angle_error(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Return the largest error of a cosine behind a Gram matrix.

    Pairs with a vector that is predicted to vanish have no angle; one that has vanished against
    the prediction counts as an error of 1.

    Parameters
    ----------
    measured, predicted : array_like, shape (K, K)
    """
    expected = cosines(predicted)
    known = np.isfinite(expected)
    errors = np.abs(cosines(measured) - expected)[known]
    return float(np.where(np.isfinite(errors), errors, 1.0).max(initial=0.0))


_VECTORS = {"classifier": "w_k", "means": "h_k"}


def _grams(run: Run, name: str) -> tuple[Array, Array]:
    """Return a measured Gram matrix and the closed form's."""
    predicted: Array = getattr(solve(run.problem).geometry, name)
    return run.array(name), predicted


def _norm_error(run: Run) -> float:
    return max(norm_error(*_grams(run, name)) for name in _VECTORS)


def _angle_error(run: Run) -> float:
    return max(angle_error(*_grams(run, name)) for name in _VECTORS)


def _judge(results: Results) -> list[Verdict]:
    ufms, networks = results.select(what="UFM").runs, results.select(what="network").runs
    short = results.scale == "smoke"
    return [
        _judge_part(ufms, "UFM", 0.01),
        *(_judge_part([run], run.labels["network"], 0.1, short=short) for run in networks),
    ]


def _judge_part(
    runs: Sequence[Run], name: str, tolerance: float, *, short: bool = False
) -> Verdict:
    lengths, angles = largest(runs, _norm_error), largest(runs, _angle_error)
    return below(
        float(np.max([lengths, angles])),
        tolerance,
        runs,
        decidable=not short,
        criterion=f"lengths of w_k and h_k are within {tolerance:g} of the longest "
        f"predicted one, and all cosines within {tolerance:g} of the closed form's",
        claimed=f"{name}: lengths and angles of classifier and class means follow the counts "
        "as in the closed form; class means are orthogonal",
        sentence=f"{name}: the lengths are at most {number(lengths)} off, the cosines "
        f"{number(angles)}" + (shared.SHORT if short else "."),
    )


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for run in results.select(what="UFM").done[:1]:
        panels += _ufm_charts(run)
    return panels + _network_lengths(results.select(what="network").done)


def _ufm_charts(run: Run) -> list[Panel]:
    panels: list[Panel] = []
    history = run.history[run.history["iteration"] > 0]
    problem = run.problem
    predicted = solve(problem).geometry
    first = [int(np.argmax(problem.class_groups == g)) for g in range(len(problem.groups))]
    for name, symbol in _VECTORS.items():
        lengths = getattr(predicted, f"{name}_norms")
        lines = {
            f"n_k = {group.count}": (f"group{g}_{name}_norm", float(lengths[first[g]]))
            for g, group in enumerate(problem.groups)
        }
        title = f"UFM: lengths of {symbol} by samples of the class"
        curves = _with_limits(history, lines)
        panels.append(Chart(title, "iteration", f"‖{symbol}‖", curves, log_x=True))
    last = len(problem.groups) - 1
    chosen = {"fewest": (0, 0), "fewest and most": (0, last), "most": (last, last)}
    for name, symbol in _VECTORS.items():
        angles = getattr(predicted, f"{name}_cosines")
        lines = {}
        for label, (i, j) in chosen.items():
            value = angles[first[i], first[j] + (i == j)]
            lines[label] = (f"group{i}_group{j}_{name}_cosine", float(value))
        title = f"UFM: cosines of {symbol} by samples of the classes"
        curves = _with_limits(history, lines)
        panels.append(Chart(title, "iteration", "mean cosine", curves, log_x=True))
    return panels


def _with_limits(history: pd.DataFrame, lines: Mapping[str, tuple[str, float]]) -> list[Curve]:
    """Draw columns of a history, and dashed in the same colour what is predicted for each."""
    x = list(history["iteration"])
    curves = []
    for color, (label, (column, limit)) in enumerate(lines.items()):
        curves.append(Curve(label, x, list(history[column]), color))
        title = "closed form" if color == 0 else ""
        curves.append(Curve(title, [x[0], x[-1]], [limit, limit], color, "dashed"))
    return curves


def _network_lengths(runs: Sequence[Run]) -> list[Panel]:
    """Compare the lengths of the networks' vectors with the closed form, class by class."""
    if not runs:
        return []
    table: list[list[Any]] = []
    charts: dict[str, list[Curve]] = {name: [] for name in _VECTORS}
    for color, run in enumerate(runs):
        shares = list(run.problem.counts / run.problem.counts.max())
        network = run.labels["network"]
        line: list[Any] = [network]
        for name in _VECTORS:
            grams = _grams(run, name)
            found, expected = (np.sqrt(np.diagonal(gram)) for gram in grams)
            ratio = [float(r) for r in found / expected]
            charts[name].append(Curve(network, shares, ratio, color, "points"))
            line += [norm_error(*grams), angle_error(*grams)]
        table.append(line)
    one = [Mark(1.0, "closed form", "y")]
    x_label = "samples of the class over the largest count"
    panels: list[Panel] = [
        Chart(f"Networks: ‖{symbol}‖ over the closed form's", x_label, "ratio", charts[name], one)
        for name, symbol in _VECTORS.items()
    ]
    columns = ["network", "length of w_k", "cosines of w_k", "length of h_k", "cosines of h_k"]
    panels.append(Table("Networks: largest errors against the closed form", columns, table))
    return panels


FIGURE = Figure(
    "norms-angles",
    "Norms and angles over training against the closed form",
    "follows from the theorem (no figure)",
    claim="Class means are orthogonal with ‖h_k‖² = √((K-1) λ_W / (K λ_H n_k)) M_k, and "
    "the classifier's rows are their scaled, centred images: more samples, longer w_k.",
    caption="Lengths and cosines of the UFM run into the dashed lines of the closed form; "
    "the last panels have the networks' lengths relative to it.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.SMALL + "The networks' lengths are known at the end of training only.",
    place=3,
)
