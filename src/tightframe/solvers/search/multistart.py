"""Search for the best local minimum where nothing is known to certify one.

Several layers make the decay cost of logits ``(M+1)/2 mu sum sigma^{2/(M+1)}``, concave in every
singular value, and features that are too narrow forbid ranks: such problems are not convex. The
search runs independent chains of local search from many starts and says what they found, no more
(docs/theory.md section 5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.problem.problem import Problem
from tightframe.solvers.search.budget import Budget
from tightframe.solvers.search.candidates import Entry, closed_forms, compare
from tightframe.solvers.search.factors import Factors
from tightframe.solvers.search.fields import Field, search_widths
from tightframe.solvers.search.options import SearchOptions, options_for
from tightframe.solvers.search.polish import Polished, nearly, polish
from tightframe.solvers.search.record import Candidate, Search
from tightframe.theory.certificate import without_constant
from tightframe.theory.rank_one import rank_one_bound

#: More classes than this are refused: no symmetry is used, and the work grows with their cube.
MAX_CLASSES = 100

#: Random starts at every width, if not told otherwise.
STARTS = 6


@dataclass(frozen=True)
class Found:
    """The winner of a search: logits, bias per group, objective, and the record of the search."""

    logits: BlockMatrix
    bias: Array
    objective: float
    search: Search


def search(
    problem: Problem,
    *,
    starts: int = STARTS,
    seed: int = 0,
    max_iterations: int = 5000,
    relaxed: tuple[BlockMatrix, float | None] | None = None,
    budget: Budget | None = None,
    options: SearchOptions | None = None,
) -> Found:
    """Return the best local minimum that chains of local search and closed forms reach.

    Parameters
    ----------
    problem : Problem
        Real features, at most `MAX_CLASSES` classes.
    starts : int
        Random starts at every width; with one layer, twice those of a chain. Structured ones are
        added: merged classes on a cross-polytope and on a simplex, and the encoded labels cut to
        the width.
    seed : int
        Of all random numbers. Renaming classes of different counts does not change the answer.
    max_iterations : int
        Iterations allowed to the best points (to every start and move at most what ``options``
        say).
    relaxed : tuple of BlockMatrix and float, optional
        With one layer: solution and lower bound of the problem without ``dim``.
    budget : Budget, optional
        Ends the search early, with what it has found, and hears how far it is.
    options : SearchOptions, optional
        If not given, those for the number of classes.

    Raises
    ------
    ValueError
        If there are too many classes.
    """
    require_few_classes(problem)
    k = problem.num_classes
    # One order of the classes, so that the answer does not depend on how they are named.
    keys = problem.logit_adjustment, -problem.class_weights, -problem.counts
    more = problem.logit_scale, problem.feature_weights, problem.class_margins
    order = np.lexsort((*more, *keys))
    places = np.argsort(order)
    options = options_for(k) if options is None else options
    budget = Budget() if budget is None else budget
    ordered, start = problem.reordered(order), None
    if relaxed is not None:
        start = relaxed[0].to_dense()[np.ix_(order, order)] * np.sqrt(ordered.feature_weights)
    fields, best = _explored(ordered, starts, seed, start, max_iterations, options, budget)
    endings = np.array([value for field in fields for value in field.endings])

    def entry(polished: Polished) -> Entry:
        near = np.abs(endings - polished.objective) <= options.found_tolerance * polished.objective
        logits = BlockMatrix.from_dense(problem, polished.logits[np.ix_(places, places)])
        bias = without_constant(problem, polished.bias, Partition.singletons(ordered))[places]
        found = Candidate("search", polished.rank, polished.objective, int(near.sum()))
        return Entry(found, logits, bias, polished.converged)

    budget.tell(len(fields) + 1, len(fields) + 2, "polishing")
    (f, point), *others = _best_of_each_rank(fields)
    finished = [polish(f, point, max_iterations, options, budget)]
    finished += [nearly(f, point, options, budget) for f, point in others]
    polished = [entry(found) for found in finished if found is not None]
    full = _full_rank(problem)
    winner, entries = compare(closed_forms(problem), polished, full, options.tie_tolerance)
    top = entries[0]
    climbed = best.chains[: best.climbed]
    lowest = top.candidate.objective if top.candidate.found is None else best.value
    record = Search(
        starts=sum(field.explored for field in fields),
        seed=seed,
        widths=tuple(sorted(field.f.width for field in fields)),
        candidates=tuple(entry.candidate for entry in entries),
        winner=winner,
        chains=len(climbed),
        agreed=sum(chain.value <= lowest * (1 + options.improvement) for chain in climbed),
        stopped=budget.stopped,
        converged=top.converged and (finished[0] is None or finished[0].converged),
        relaxed_bound=_lower_bound(problem, None if relaxed is None else relaxed[1]),
    )
    return Found(top.logits, top.bias, top.candidate.objective, record)


def require_few_classes(problem: Problem) -> None:
    """Refuse a problem of more classes than a search takes."""
    if (k := problem.num_classes) > MAX_CLASSES:
        raise ValueError(
            f"counts: got {k} classes; nothing certifies this kind of problem, and the multi-start "
            f"search takes at most {MAX_CLASSES}"
        )


def _full_rank(problem: Problem) -> int:
    """Return the highest rank a solution can have."""
    k = problem.num_classes
    return min(problem.loss_object.max_rank(k), problem.width or k)


def _lower_bound(problem: Problem, relaxed: float | None) -> float | None:
    """Return the larger of the bounds that are known, or None."""
    known = [bound for bound in (relaxed, rank_one_bound(problem)) if bound is not None]
    return max(known, default=None)


def _explored(
    problem: Problem,
    starts: int,
    seed: int,
    relaxed: Array | None,
    iterations: int,
    options: SearchOptions,
    budget: Budget,
) -> tuple[list[Field], Field]:
    """Return the chains of every width that was looked at, and those that hold the best point."""
    fields: dict[int, Field] = {}
    full = _full_rank(problem)

    def look(width: int) -> float:
        if width not in fields and not (fields and budget.over()):
            budget.tell(len(fields), min(full, options.max_widths) + 2, f"width {width}")
            f = Factors(problem, width)
            fields[width] = Field(f, starts, seed, relaxed, iterations, options, budget)
        return fields[width].value if width in fields else np.inf

    if problem.depth == 1:
        look(full)  # ranks grow and shrink freely with one layer
    else:
        search_widths(look, full, options)
    for field in _worth_chains(fields.values(), options):
        if not budget.over():
            budget.tell(len(fields), len(fields) + 2, f"chains of width {field.f.width}")
            field.climb(patient=problem.depth == 1)
    best = min(fields.values(), key=lambda field: field.value)
    while best.climbed and not budget.over():
        enough = max(options.chains, options.majority * best.climbed)
        if best.agreed >= enough or best.climbed >= options.max_chains:
            break
        best.open()
        best.climb(patient=True)
    return list(fields.values()), best


def _worth_chains(fields: Iterable[Field], options: SearchOptions) -> list[Field]:
    """Return the fields whose best start is near the best of all, best first."""
    ordered = sorted(fields, key=lambda field: field.value)
    limit = ordered[0].value * (1 + options.near)
    return [field for field in ordered if field.value <= limit]


def _best_of_each_rank(fields: list[Field]) -> list[tuple[Factors, Array]]:
    """Return the lowest point (1, P) of every rank, the winner first, then by value."""
    best: dict[int, tuple[float, Factors, Array]] = {}
    for field in fields:
        for chain in field.chains:
            rank = int(field.f.ranks(field.f.decompose(chain.point)[1])[0])
            if rank not in best or chain.value < best[rank][0]:
                best[rank] = (chain.value, field.f, chain.point)
    ordered = sorted(best.values(), key=lambda item: item[0])
    return [(f, point) for _, f, point in ordered]
