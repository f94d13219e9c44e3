"""ReLU features with fewer axes than the minimiser wants: chains of local search in the orthant."""

from __future__ import annotations

import numpy as np

from tightframe.geometry.blocks import BlockMatrix, Partition
from tightframe.problem.problem import Problem
from tightframe.solvers.search.axes import Found, found
from tightframe.solvers.search.budget import Budget
from tightframe.solvers.search.candidates import Entry, closed_forms, compare
from tightframe.solvers.search.fields import Field
from tightframe.solvers.search.options import SearchOptions, options_for
from tightframe.solvers.search.orthant import Orthant, descend
from tightframe.solvers.search.orthant_factors import OrthantFactors
from tightframe.solvers.search.record import Candidate, Search
from tightframe.theory.axes import Axes


def search(
    problem: Problem,
    wide: Found,
    *,
    starts: int,
    seed: int,
    max_iterations: int,
    budget: Budget | None = None,
    options: SearchOptions | None = None,
) -> tuple[Found, Search]:
    """Return the best local minimum that chains find with ``problem.dim`` axes, and their record.

    Parameters
    ----------
    problem : Problem
        One layer, non-negative features, a ``dim``.
    wide : Found
        Of the problem without ``dim``: where starts are taken from, and the bound.
    starts, seed, max_iterations, budget, options
        As in `multistart.search`.
    """
    order = np.lexsort((problem.logit_adjustment, -problem.class_weights, -problem.counts))
    ordered, places = problem.reordered(order), np.argsort(order)
    width = problem.width or problem.num_classes
    budget = Budget() if budget is None else budget
    options = options_for(problem.num_classes) if options is None else options
    budget.tell(0, 2, f"chains of width {width}")
    f = Orthant(ordered, width)
    plain = OrthantFactors(ordered, Partition.singletons(ordered), width)
    relaxed = (wide.axes.left @ wide.axes.right.T)[np.ix_(order, order)]
    field = Field(f, starts, seed, relaxed, max_iterations, options, budget)
    field.climb(patient=True)
    while not budget.over() and field.climbed:
        if field.agreed >= options.chains or field.climbed >= options.max_chains:
            break
        field.open()
        field.climb(patient=True)
    budget.tell(1, 2, "polishing")
    best = field.best
    entries, converged = [], True
    if best is not None:
        points, converged = descend(plain, f.leave(best.point), max_iterations, budget)
        result = found(plain, points, converged).renamed(problem, places)
        reduced = result.axes.left @ result.axes.right.T
        z = BlockMatrix.from_dense(problem, reduced / np.sqrt(problem.counts))
        near = np.abs(np.array(field.endings) - result.objective)
        hits = int((near <= options.found_tolerance * result.objective).sum())
        candidate = Candidate("search", z.rank, result.objective, hits)
        entries.append(Entry(candidate, z, result.axes.bias, converged))
    full = min(problem.loss_object.max_rank(problem.num_classes), width)
    winner, compared = compare(closed_forms(problem), entries, full, options.tie_tolerance)
    top = compared[0]
    if best is None or winner == "zero":
        result = _nothing(problem, top, wide.lower_bound)
    climbed = field.chains[: field.climbed]
    limit = top.candidate.objective * (1 + options.improvement)
    record = Search(
        starts=field.explored,
        seed=seed,
        widths=(width,),
        candidates=tuple(entry.candidate for entry in compared),
        winner=winner,
        chains=len(climbed),
        agreed=sum(chain.value <= limit for chain in climbed),
        stopped=budget.stopped,
        converged=converged,
        relaxed_bound=wide.lower_bound,
    )
    return result, record


def _nothing(problem: Problem, zero: Entry, bound: float) -> Found:
    """Return the zero solution, with one axis that vanishes."""
    k = problem.num_classes
    none = np.zeros((k, 1))
    bias = zero.bias[zero.logits.partition.class_groups]
    axes = Axes(none, none, np.ones(k), bias)
    return Found(Partition.singletons(problem), axes, zero.candidate.objective, bound, True)
