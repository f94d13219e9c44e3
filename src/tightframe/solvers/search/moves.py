"""What a chain of local search tries: classes that change places.

Where descents end is decided by which class sits where; a descent seldom lets classes pass each
other, so the moves do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.solvers.search.factors import Classes, Objective

#: How often a class is put at a random place, in one neighbourhood.
RANDOM_PLACES = 1

#: Returns moved points of one point (1, P), at most so many of them, shape (B, P).
Neighbourhood = Callable[[Objective, Array, np.random.Generator, int], Array]


def exchanges(f: Objective, x: Array, rng: np.random.Generator, most: int) -> Array:
    """Two classes change places, or one goes to the other side of zero.

    Classes that the problem does not tell apart are not exchanged.
    """
    k, kinds = f.num_classes, f.problem.class_groups
    first, second = np.triu_indices(k, 1)
    apart = kinds[first] != kinds[second]
    swaps = np.column_stack([first[apart], second[apart]])
    flips = np.repeat(np.arange(k)[:, None], 2, axis=1) if f.signed else swaps[:0]
    pairs = _some(np.concatenate([swaps, flips]), rng, most)
    moved = _copies(f, x, len(pairs))
    points, (i, j) = np.arange(len(pairs)), pairs.T
    for part in moved[:3]:
        part[points, i], part[points, j] = part[points, j].copy(), part[points, i].copy()
    flipped = i == j
    for part in moved[:2]:
        part[points[flipped], i[flipped]] *= -1
    return f.from_classes(moved)


def relocations(f: Objective, x: Array, rng: np.random.Generator, most: int) -> Array:
    """One class joins another in its place, or goes to a random one."""
    k = f.num_classes
    i, j = (side.ravel() for side in np.meshgrid(np.arange(k), np.arange(k), indexing="ij"))
    joins = np.column_stack([i, j])[i != j]
    alone = np.repeat(np.arange(k), RANDOM_PLACES)
    pairs = _some(np.concatenate([joins, np.column_stack([alone, alone])]), rng, most)
    moved = _copies(f, x, len(pairs))
    points, (i, j) = np.arange(len(pairs)), pairs.T
    for part in moved[:3]:
        part[points, i] = part[points, j]
    free = i == j
    directions = rng.standard_normal((int(free.sum()), f.width))
    if not f.signed:
        directions = np.abs(directions)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for part in moved[:2]:
        length = np.linalg.norm(part[0], axis=1).mean()
        part[points[free], i[free]] = length * directions
    return f.from_classes(moved)


#: In the order in which they are tried: the second where the first holds nothing better.
NEIGHBOURHOODS: tuple[Neighbourhood, ...] = (exchanges, relocations)


def _some(pairs: NDArray[np.intp], rng: np.random.Generator, most: int) -> NDArray[np.intp]:
    if len(pairs) <= most:
        return pairs
    return pairs[np.sort(rng.choice(len(pairs), most, replace=False))]


def _copies(f: Objective, x: Array, times: int) -> Classes:
    return Classes(*(np.repeat(part, times, axis=0) for part in f.classes(x)))
