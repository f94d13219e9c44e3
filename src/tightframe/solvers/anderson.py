"""Anderson's acceleration of a fixed-point iteration: type II, least squares of residuals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import require_positive_fields

Floats = NDArray[Any]

#: Entries that are worked on at a time.
PART = 2**16


@dataclass(frozen=True)
class AndersonOptions:
    """How the acceleration is tuned.

    Attributes
    ----------
    memory : int
        Steps that are combined.
    memory_bytes : float
        Of those it keeps fewer where they take more than this.
    ridge : float
        Relative, of its normal equations.
    restart : float
        It forgets where the residual grows by more than this.
    falling, idle
        Where the residual has not fallen to the former share of its least in so many steps, as many
        plain steps, which are sure to get on, follow.
    single_size : int
        Differences of vectors this long are held in single precision: they only correct the step.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    memory: int = 5
    memory_bytes: float = 8e8
    ridge: float = 1e-7
    restart: float = 2.0
    falling: float = 0.9
    idle: int = 10
    single_size: int = 400_000

    def __post_init__(self) -> None:
        require_positive_fields(self)


class Anderson:
    """The last steps of an iteration on vectors like one, and what they say about the next."""

    def __init__(self, options: AndersonOptions, like: Floats) -> None:
        self.options = options
        self.most = max(1, min(options.memory, int(options.memory_bytes / (8 * like.size))))
        self.kind = np.float32 if like.size >= options.single_size else np.float64
        self.least, self.waited, self.pause = np.inf, 0, 0
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.last: tuple[Floats, Floats] | None = None
        self.moves: list[Floats] = []
        self.sums: list[Floats] = []
        self.products = np.zeros((0, 0))

    def next(self, at: Floats, move: Floats) -> Floats:
        """Return the next point, given the current one and its plain step."""
        size = float(np.linalg.norm(move))
        if self._is_idle(size):
            plain: Floats = at + move
            return plain
        if self.last is not None:
            if size > self.options.restart * np.linalg.norm(self.last[1]):
                self.forget()
            else:
                self._add(at, move, *self.last)
        self.last = at, move
        following: Floats = at + move
        if self.moves:
            single = move.astype(self.kind, copy=False)
            target = np.array([_dot(past, single) for past in self.moves])
            # Where the residual stays as it is, all products may be zero.
            ridge = self.options.ridge * np.trace(self.products) or 1.0
            weights = np.linalg.solve(self.products + ridge * np.eye(len(target)), target)
            flat, kind = following.reshape(-1), following.dtype.type
            for part in _parts(flat.size):
                for weight, past in zip(weights, self.sums, strict=True):
                    flat[part] -= kind(weight) * past[part]
        return following

    def _is_idle(self, size: float) -> bool:
        """Tell whether the next step is a plain one, given the residual's size."""
        o = self.options
        self.waited = self.waited + 1 if size > o.falling * self.least else 0
        self.least = min(self.least, size)
        if self.waited > o.idle:
            self.forget()
            self.waited, self.pause, self.least = 0, o.idle, np.inf
        self.pause = max(self.pause - 1, -1)
        return self.pause >= 0

    def _add(self, at: Floats, move: Floats, before: Floats, last_move: Floats) -> None:
        """Remember how residual and point changed in the last step; the oldest is forgotten."""
        if len(self.moves) < self.most:
            change, total = np.empty((2, at.size), dtype=self.kind)
        else:
            change, total = self.moves.pop(0), self.sums.pop(0)
            self.products = self.products[1:, 1:]
        flat = [array.reshape(-1) for array in (at, move, before, last_move)]
        for part in _parts(at.size):
            here, moved, there, last_moved = (array[part] for array in flat)
            moved = moved - last_moved
            change[part] = moved
            total[part] = here - there + moved
        self.moves.append(change)
        self.sums.append(total)
        n = len(self.moves)
        products = np.empty((n, n))
        products[:-1, :-1] = self.products
        products[-1] = products[:, -1] = [_dot(past, change) for past in self.moves]
        self.products = products


def _dot(a: Floats, b: Floats) -> float:
    return float(np.dot(a.reshape(-1), b.reshape(-1)))


def _parts(size: int) -> Iterator[slice]:
    """Give slices that stay in a core's cache."""
    for start in range(0, size, PART):
        yield slice(start, start + PART)
