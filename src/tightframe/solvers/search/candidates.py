"""The critical points that a search compares: closed forms, and what it found."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.problem.problem import Problem
from tightframe.solvers.search.record import Candidate
from tightframe.theory.certificate import best_bias, objective, without_constant

#: Halvings that exhaust float64.
BISECTIONS = 100


@dataclass(frozen=True)
class Entry:
    """A candidate with its logits."""

    candidate: Candidate
    logits: BlockMatrix
    bias: Array
    converged: bool

    def renamed(self, problem: Problem, places: NDArray[np.intp]) -> Entry:
        """Return the entry with class k moved from place ``places[k]``."""
        dense = self.logits.mean[np.ix_(places, places)]
        logits = BlockMatrix.from_dense(problem, dense)
        return Entry(self.candidate, logits, self.bias[places], self.converged)


def closed_forms(problem: Problem) -> list[Entry]:
    """Return the zero solution and, where there is one, the simplex ETF."""
    partition = Partition.coarsest(problem)
    g = partition.num_groups
    zero = BlockMatrix(partition, np.zeros(g), np.zeros((g, g)))
    bias = np.zeros(g)
    if problem.bias != "none":
        bias = best_bias(problem, problem.loss_object.datafit(partition), zero, bias)
    bias = without_constant(problem, bias, partition)
    points = [("zero", zero, bias)]
    balanced = problem.loss_object.is_softmax and problem.depth > 1 and g == 1
    wide = problem.width is None or problem.width >= problem.loss_object.max_rank(
        problem.num_classes
    )
    if balanced and wide and (margin := etf_margin(problem)) is not None:
        points.append(("ETF", BlockMatrix(partition, np.array([margin]), zero.mean), np.zeros(g)))
    return [
        Entry(Candidate(name, z.rank, objective(problem, z, b), None), z, b, True)
        for name, z, b in points
    ]


def compare(
    closed: list[Entry], polished: list[Entry], full_rank: int, tolerance: float
) -> tuple[str, list[Entry]]:
    """Return who wins, and the winner followed by the others in the order of their objectives."""
    lowest: dict[int, Entry] = {}
    for entry in sorted(polished, key=_value):
        lowest.setdefault(entry.candidate.rank, entry)
    # A search that only finds a closed form again has not beaten it.
    entries = closed + [
        entry
        for rank, entry in lowest.items()
        if not any(
            form.candidate.rank == rank and _unbeaten(form, entry, tolerance) for form in closed
        )
    ]
    best = next(
        (form for form in closed if all(_unbeaten(form, entry, tolerance) for entry in entries)),
        min(entries, key=_value),
    )
    name = best.candidate.name
    if name == "search":
        name = "low-rank" if best.candidate.rank < full_rank else "full-rank"
    others = sorted((entry for entry in entries if entry is not best), key=_value)
    return name, [best, *others]


def _value(entry: Entry) -> float:
    return entry.candidate.objective


def _unbeaten(form: Entry, entry: Entry, tolerance: float) -> bool:
    return form.candidate.objective <= entry.candidate.objective * (1 + tolerance)


def etf_margin(problem: Problem) -> float | None:
    """Return the largest stationary margin m of ``Z = m (I - 11^T/K)``, balanced cross-entropy.

    The larger root of ``m^{1-p} = mu n^{1/(M+1)} (e^m + K - 1)``, ``p = 2/(M+1)``, M >= 2: there
    the objective has a local minimum over m, the other being m = 0. None where there is no root.
    Equal class weights divide mu.
    """
    ((count, k),) = problem.groups
    p = 2 / (problem.depth + 1)
    target = math.log(problem.mean_decay) + math.log(count) / (problem.depth + 1)
    target -= math.log(problem.group_weights[0])

    def excess(m: float) -> float:  # concave in m
        return (1 - p) * math.log(m) - float(np.logaddexp(m, math.log(k - 1))) - target

    # Its peak: m e^m / (e^m + K - 1) = 1 - p, increasing in m.
    low, high = 0.0, math.log(k) + 2
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = middle / (1 + (k - 1) * math.exp(-middle)) > 1 - p
        low, high = (low, middle) if above else (middle, high)
    if excess(high) <= 0:
        return None
    low, high = high, 2 * high
    while excess(high) > 0:
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return low
