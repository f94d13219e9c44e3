"""Chains of local search: descend, try moves, go on from the best, until no move helps.

All moves of all chains descend as one batch and race: most are left after a few steps. The best of
few steps is nearly always the best in the end, so that costs little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.solvers.search.budget import Budget
from tightframe.solvers.search.factors import Objective
from tightframe.solvers.search.lbfgs import MEMORY, Descents
from tightframe.solvers.search.moves import NEIGHBOURHOODS
from tightframe.solvers.search.options import Race, SearchOptions


@dataclass(eq=False)
class Chain:
    """One chain of local search.

    Attributes
    ----------
    point : ndarray, shape (1, P)
    value : float
        The objective there.
    rng : numpy.random.Generator
        Its own random numbers.
    rounds : int
        How often it has tried moves.
    patient : bool
        Whether all moves from here have been given time to pay, and none did.
    """

    point: Array
    value: float
    rng: np.random.Generator
    rounds: int = 0
    patient: bool = False


def race(
    f: Objective,
    x: Array,
    owners: NDArray[np.intp],
    rules: Race,
    options: SearchOptions,
    budget: Budget,
) -> tuple[Array, Array, NDArray[np.intp], Array]:
    """Descend from points and return the last ones left, by owner, and where all others stopped.

    Parameters
    ----------
    x : ndarray, shape (B, P)
    owners : ndarray, shape (B,)
        Only points of one owner are compared.

    Returns
    -------
    points, values, owners : ndarray
        The best of each owner, in the order of the owners; those without a finite value are left.
    endings : ndarray, shape (B,)
        Where every point was when it was left.
    """
    descents = Descents(f, x, lambda v, g: f.is_small(options.explore_accuracy, v, g))
    endings = np.empty(len(x))
    rows, done = np.arange(len(x)), 0
    for length, kept in zip(rules.lengths, (*rules.kept, 0.0), strict=True):
        descents.run(length - done, budget.over)
        done = length
        endings[rows] = descents.values
        best = _best(descents.values, owners, kept, rules.least if kept else 1)
        descents.keep(best)
        rows, owners = rows[best], owners[best]
    finite = np.isfinite(descents.values)
    return descents.x[finite], descents.values[finite], owners[finite], endings


def _best(values: Array, owners: NDArray[np.intp], share: float, least: int) -> NDArray[np.intp]:
    """Return the places of the lowest values of each owner: a share of them, at least so many."""
    order = np.lexsort((np.where(np.isfinite(values), values, np.inf), owners))
    sorted_owners = owners[order]
    first = np.searchsorted(sorted_owners, sorted_owners)
    sizes = np.searchsorted(sorted_owners, sorted_owners, side="right") - first
    places = np.arange(len(order)) - first
    chosen: NDArray[np.intp] = order[places < np.maximum(np.ceil(share * sizes), least)]
    return chosen


def climb(
    f: Objective,
    chains: list[Chain],
    iterations: int,
    options: SearchOptions,
    budget: Budget,
) -> None:
    """Move every chain until neither neighbourhood holds a better point."""
    rules = options.racing.within(iterations)
    active = [(chain, 0) for chain in chains]
    while active and not budget.over():
        improved = try_moves(f, active, rules, options, budget)
        going_on = []
        for (chain, kind), better in zip(active, improved, strict=True):
            chain.rounds += 1
            following = 0 if better else kind + 1
            if following < len(NEIGHBOURHOODS) and chain.rounds < options.max_rounds:
                going_on.append((chain, following))
        active = going_on


def try_moves(
    f: Objective,
    active: list[tuple[Chain, int]],
    rules: Race,
    options: SearchOptions,
    budget: Budget,
) -> list[bool]:
    """Take the best move of the given neighbourhood of every chain; tell which improved."""
    held = 2 * MEMORY * active[0][0].point.shape[1] + 8 * f.num_classes**2
    most = max(1, options.batch_numbers // held // len(active))
    moved = [
        NEIGHBOURHOODS[kind](f, c.point, c.rng, min(most, rules.most[kind])) for c, kind in active
    ]
    owners = np.repeat(np.arange(len(active)), [len(points) for points in moved])
    points, values, owners, _ = race(f, np.concatenate(moved), owners, rules, options, budget)
    improved = [False] * len(active)
    for i, owner in enumerate(owners.tolist()):
        chain = active[owner][0]
        if values[i] < chain.value * (1 - options.improvement):
            chain.point, chain.value = points[i][None], float(values[i])
            improved[owner] = True
    return improved


def settle(
    f: Objective, chains: list[Chain], iterations: int, options: SearchOptions, budget: Budget
) -> None:
    """Descend from where the chains are, so that their values can be compared."""
    x = np.concatenate([chain.point for chain in chains])
    end = Descents(f, x, lambda v, g: f.is_small(options.explore_accuracy, v, g))
    end.run(iterations, budget.over)
    for chain, point, value in zip(chains, end.x, end.values.tolist(), strict=True):
        chain.point, chain.value = point[None], value
