"""The chains of one width, and which widths are worth chains."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tightframe.geometry.blocks import Array
from tightframe.solvers.search.budget import Budget
from tightframe.solvers.search.chains import Chain, climb, race, settle, try_moves
from tightframe.solvers.search.factors import Factors
from tightframe.solvers.search.guesses import (
    deep_starts,
    narrow_starts,
    orthant_starts,
    structured_starts,
)
from tightframe.solvers.search.moves import NEIGHBOURHOODS
from tightframe.solvers.search.options import SearchOptions


class Field:
    """The chains of one width.

    Parameters
    ----------
    f : Factors
    starts : int
        Random starts.
    seed : int
    relaxed : ndarray, shape (K, K), or None
        With one layer: X of the solution without a width.
    iterations : int
        The most for any descent.
    options : SearchOptions
    budget : Budget

    Attributes
    ----------
    chains : list of Chain
    climbed : int
        How many of them have gone as far as their moves take them.
    endings : list of float
        Values at which starts and chains ended.
    """

    def __init__(
        self,
        f: Factors,
        starts: int,
        seed: int,
        relaxed: Array | None,
        iterations: int,
        options: SearchOptions,
        budget: Budget,
    ) -> None:
        self.f, self.options, self.budget = f, options, budget
        self._starts, self._seed, self._relaxed = starts, seed, relaxed
        self._iterations = iterations
        self.chains: list[Chain] = []
        self.climbed = 0
        self.endings: list[float] = []
        self.explored = self.open()

    @property
    def best(self) -> Chain | None:
        """The lowest chain, or None where none has a finite value."""
        return min(self.chains, key=lambda chain: chain.value, default=None)

    @property
    def value(self) -> float:
        """The objective of the best chain."""
        return math.inf if self.best is None else self.best.value

    @property
    def agreed(self) -> int:
        """How many chains that have climbed ended at the best objective of all."""
        limit = self.value * (1 + self.options.improvement)
        return sum(chain.value <= limit for chain in self.chains[: self.climbed])

    def open(self) -> int:
        """Start chains, each from the best of some starts; return the number of starts."""
        number = self.options.chains
        first = len(self.chains)
        rngs = [np.random.default_rng((self._seed, self.f.width, first + i)) for i in range(number)]
        if self._relaxed is not None:
            each = max(1, self._starts // 2)
            draw = narrow_starts if self.f.signed else orthant_starts
            starts = [draw(self.f, self._relaxed, each, rng) for rng in rngs]
        else:
            shares = [len(range(i, self._starts, number)) for i in range(number)]
            starts = [deep_starts(self.f, n, rng) for n, rng in zip(shares, rngs, strict=True) if n]
        if first == 0 and self.f.signed:
            structured = structured_starts(self.f, rngs[-1])
            starts += [structured[[i]] for i in range(len(structured))]
        # Structured starts go to the chains that have the fewest.
        owners = [
            np.full(len(x), (i if i < number else -1 - i) % number) for i, x in enumerate(starts)
        ]
        points, values, owned, endings = race(
            self.f,
            np.concatenate(starts),
            np.concatenate(owners),
            self.options.starting.within(self._iterations),
            self.options,
            self.budget,
        )
        self.endings += endings[np.isfinite(endings)].tolist()
        self.chains += [
            Chain(point[None], value, rngs[owner])
            for point, value, owner in zip(points, values.tolist(), owned.tolist(), strict=True)
        ]
        return len(endings)

    def climb(self, patient: bool) -> None:
        """Let the chains that have not done so climb; where asked to, try their moves again."""
        if self._iterations <= self.options.racing.lengths[0]:
            return  # not enough to tell moves apart
        new = self.chains[self.climbed :]
        self._climb(new)
        self.climbed = len(self.chains)
        if patient:
            for _ in range(self.options.max_rounds):
                if self.budget.over() or not self._climb_patiently():
                    break

    def _climb(self, chains: list[Chain]) -> None:
        if not chains:
            return
        climb(self.f, chains, self._iterations, self.options, self.budget)
        settle(
            self.f, chains, min(self.options.settling, self._iterations), self.options, self.budget
        )
        self.endings += [chain.value for chain in chains]

    def _climb_patiently(self) -> bool:
        """Let the moves of the best ends descend for longer; tell whether one helped.

        A move of frequent classes costs more than others for some fifty steps before it pays.
        Chains that ended at one point go on together.
        """
        ends: list[list[Chain]] = []
        for chain in sorted(self.chains[: self.climbed], key=lambda chain: chain.value):
            if ends and chain.value <= ends[-1][0].value * (1 + self.options.improvement):
                ends[-1].append(chain)
            else:
                ends.append([chain])
        active = [chains for chains in ends[: self.options.max_patient] if not chains[0].patient]
        rules = self.options.patient.within(self._iterations)
        moved: list[Chain] = []
        for kind in range(len(NEIGHBOURHOODS)):
            trying = [chains for chains in active if chains[0] not in moved]
            if not trying:
                break
            improved = try_moves(
                self.f, [(chains[0], kind) for chains in trying], rules, self.options, self.budget
            )
            moved += [chains[0] for chains, ok in zip(trying, improved, strict=True) if ok]
        for chains in active:
            for chain in chains:
                chain.patient = True
        self._climb(moved)
        for chains in active:
            for chain in chains[1:]:
                chain.point, chain.value = chains[0].point, chains[0].value
            for chain in chains if chains[0] in moved else []:
                chain.patient = False
        return bool(moved)


def search_widths(look: Callable[[int], float], full: int, options: SearchOptions) -> None:
    """Look at the widths that may be the best: all of few; of many, those about the lowest value.

    The best value as a function of the width has one minimum, as far as is known.

    Parameters
    ----------
    look : callable
        Returns the best value at a width; what it has found is kept by the caller.
    full : int
        The largest width.
    """
    if full <= options.max_widths:
        for width in range(1, full + 1):
            look(width)
        return
    values: dict[int, float] = {}
    ladder = sorted({round(width) for width in 2 ** np.arange(0, math.log2(full), 0.5)} | {full})
    for width in ladder:
        values[width] = look(width)
        behind = [value for value in list(values.values())[-2:] if value > min(values.values())]
        if len(behind) == 2 and values[width] >= behind[0]:
            break
    while True:
        best = min(values, key=lambda width: values[width])
        tried = sorted(values)
        place = tried.index(best)
        gaps = [
            (best + other) // 2
            for other in tried[max(place - 1, 0) : place + 2]
            if abs(other - best) > 1
        ]
        if not gaps:
            return
        for width in gaps:
            values[width] = look(width)
