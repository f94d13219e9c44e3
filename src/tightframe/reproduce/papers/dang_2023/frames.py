"""General orthogonal frames: lengths by the paper's formula, and how far runs are from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from tightframe.figures.model import Table
from tightframe.reproduce.judging import first_by
from tightframe.reproduce.results import Array, Run
from tightframe.reproduce.tasks import GRAMS


def gof_lengths(
    counts: ArrayLike, depth: int, weight_decay: float, feature_decay: float
) -> tuple[Array, Array, Array]:
    """Return the general orthogonal frame by the paper's formula: MSE, no bias, any counts.

    For every class x is the larger root of ``b / n = M x^{M-1} / (x^M + 1)^2`` with
    ``b = M N (N weight_decay^M feature_decay)^{1/M}``, and ``W H = x^M / (x^M + 1)``; the class
    vanishes unless ``b / n < (M-1)^{(M-1)/M} / M`` (Dang et al. 2023 and their code).

    Parameters
    ----------
    counts : array_like, shape (K,)
    depth : int
        Number M of linear layers.
    weight_decay, feature_decay : float

    Returns
    -------
    classifier, means, logits : ndarray, shape (K,)
        Diagonals of ``W W^T``, ``H^T H`` (class means) and ``W H``; all else is zero.
    """
    n = np.asarray(counts, dtype=np.float64)
    m, total = depth, float(n.sum())
    shrinkage = total * feature_decay
    b = m * total * (total * weight_decay**m * feature_decay) ** (1 / m)
    limit = (m - 1) ** ((m - 1) / m) / m
    squares = np.array([_root(float(b / one), m) ** m if b / one < limit else 0.0 for one in n])
    classifier = shrinkage * squares  # s^{2M}
    return classifier, classifier / (classifier + shrinkage) ** 2, squares / (squares + 1)


def _root(ratio: float, m: int) -> float:
    """Return the larger root of ``M x^{M-1} / (x^M + 1)^2 = ratio``; there are two."""
    peak = ((m - 1) / (m + 1)) ** (1 / m)

    def excess(x: float) -> float:
        return m * x ** (m - 1) / (x**m + 1) ** 2 - ratio

    high = max(2 * peak, 1.0)
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, peak, high, xtol=1e-15, rtol=1e-14))


def lengths(run: Run) -> dict[str, Array]:
    """Return the paper's lengths for a run's problem, by the names of its arrays."""
    problem = run.problem
    decays = problem.weight_decays[0], problem.feature_decay
    return dict(zip(GRAMS, gof_lengths(problem.counts, problem.depth, *decays), strict=True))


def length_table(runs: Sequence[Run], title: str) -> Table:
    """Put predicted and measured squared lengths side by side, of the first seed."""
    lines: list[list[Any]] = []
    for run in first_by(runs, lambda run: run.problem.depth):
        expected = lengths(run)
        for g, group in enumerate(run.problem.groups):
            members = run.problem.class_groups == g
            line: list[Any] = [run.problem.depth, group.count]
            for name, values in expected.items():
                found = np.diagonal(run.array(name))
                line += [float(values[members].mean()), float(found[members].mean())]
            lines.append(line)
    columns = ["M", "samples"]
    for name in ("|w|²", "|h|²", "w·h"):
        columns += [f"{name} predicted", f"{name} measured"]
    return Table(title, columns, lines, "Means over the classes with so many samples.")
