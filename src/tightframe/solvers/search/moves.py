"""What a chain of local search tries: classes that change places.

Where descents end is decided by which class sits where; a descent seldom lets classes pass each
other, so the moves do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.solvers.search.factors import Classes, Objective


class Place(NamedTuple):
    """Where a class may go in its random direction.

    Attributes
    ----------
    side : int
        The direction, or its opposite.
    mean, row : float
        Lengths of its mean and its row, in units of the longest ones where that is ``outside``,
        else of the average ones.
    """

    side: int
    mean: float
    row: float
    outside: bool = True


PLACES = (Place(1, 1.0, 1.0, outside=False), Place(1, 2.0, 1.3), Place(-1, 2.0, 1.3))

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
    """One class joins another in its place, or goes to a random place, among the others or outside.

    Descents do not bring a class from among the others to the outside, where the rarest are at
    home.
    """
    k = f.num_classes
    i, j = (side.ravel() for side in np.meshgrid(np.arange(k), np.arange(k), indexing="ij"))
    joins = np.column_stack([i, j])[i != j]
    alone = np.repeat(np.arange(k), len(PLACES))
    pairs = _some(np.concatenate([joins, np.column_stack([alone, alone])]), rng, most)
    moved = _copies(f, x, len(pairs))
    points, (i, j) = np.arange(len(pairs)), pairs.T
    for part in moved[:3]:
        part[points, i] = part[points, j]
    directions = rng.standard_normal((k, f.width))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    if not f.signed:
        directions = np.abs(directions)
    rows, means, bias, _ = moved
    lengths = {
        outside: [float(unit(np.linalg.norm(part[0], axis=1))) for part in (rows, means)]
        for outside, unit in ((False, np.mean), (True, np.max))
    }
    taken = np.zeros(k, dtype=np.intp)
    for point in np.flatnonzero(i == j):
        who = i[point]
        place = PLACES[taken[who]]
        taken[who] += 1
        direction = directions[who] * (place.side if f.signed else 1)
        row_length, mean_length = lengths[place.outside]
        row, mean = direction * row_length * place.row, direction * mean_length * place.mean
        # With its bias it becomes the first choice half way to its mean.
        others = np.arange(k) != who
        best = (rows[point, others] @ mean / 2 + bias[point, others]).max()
        rows[point, who], means[point, who] = row, mean
        if f.problem.bias != "none":
            bias[point, who] = best - row @ mean / 2
    return f.from_classes(moved)


#: In the order in which they are tried: the second where the first holds nothing better.
NEIGHBOURHOODS: tuple[Neighbourhood, ...] = (exchanges, relocations)


def _some(pairs: NDArray[np.intp], rng: np.random.Generator, most: int) -> NDArray[np.intp]:
    if len(pairs) <= most:
        return pairs
    return pairs[np.sort(rng.choice(len(pairs), most, replace=False))]


def _copies(f: Objective, x: Array, times: int) -> Classes:
    return Classes(*(np.repeat(part, times, axis=0) for part in f.classes(x)))
