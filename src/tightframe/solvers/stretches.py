"""Smooth stretches: minimisers along the decay, interpolated between the changes of their rank.

Of many classes the rank changes about once a class, and thousands of pairs of logits cross on the
way. Between two changes of the rank the logits are analytic in the decay: a dozen solves there give
a polynomial, and that gives all crossings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix, Partition, singular_values, svd
from tightframe.geometry.states import group_gaps
from tightframe.problem.problem import Problem
from tightframe.solvers.interpolation import lagrange
from tightframe.solvers.newton import settle, slope
from tightframe.solvers.starts import Factors

#: Relative gap that the solves at nodes go for, and the Newton steps allowed.
NODE_GAP = 1e-15
STEPS = 200

#: Nodes are added until the next one is met to this, in logits; or where no states change, to this
#: share of what keeps them apart.
TOLERANCE = 2e-6
CLEARLY = 0.02

#: A stretch is cut where it is wider, in logarithms, and given up where it takes more nodes.
WIDEST = 0.7
MOST_NODES = 40

#: Nodes keep this share of the width away from the end, where a singular value is nearly zero and a
#: solve takes long; more, until the polynomial is good to `ROUGH` logits. The next stretch's first
#: one lies so far beyond it.
SHY, SHYER, BEYOND = 0.02, 0.12, 0.003
ROUGH = 1e-2

#: The end is known well enough to choose nodes when it moves by less than the former share of the
#: width, or is as near as the latter.
FOUND, NEARLY = 0.03, 0.35

#: The second and third nodes are no further than these shares of the last stretch's width from the
#: first one, or this share of the way to where all point: a node beyond the end takes long.
FIRST, SECOND, CAREFUL = 0.25, 0.5, 0.7

#: Mean logits keep this norm where they end, and with it the order that they have until there.
LEAST_NORM = 1e-30

#: Times that are nearer are one.
SAME = 1e-7

#: The nearest nodes that tell where the end is, and from which a solve outside them starts.
NEAREST = 5


class _Node(NamedTuple):
    """A minimiser: its factors, the least singular value, and logits in a form that can vanish.

    ``values``: the norm of the mean logits, these over the norm, margins within groups, and bias.
    """

    time: float
    factors: Factors
    product: Array
    least: float
    values: Array

    @property
    def rank(self) -> int:
        return int(self.factors.left.shape[1])


class _Slope(NamedTuple):
    """How a node changes with the logarithm of the decay."""

    product: Array
    within: Array
    bias: Array
    least: float


class Stretch:
    """Minimisers of one rank, as a function of the logarithm of the decay.

    Attributes
    ----------
    low, high : float
        Between these logarithms it holds.
    """

    def __init__(self, partition: Partition, low: float, node: _Node) -> None:
        self.partition, self.low, self.high = partition, low, node.time
        self.nodes = [node]
        self.slope: _Slope | None = None  # at the first node

    @property
    def rank(self) -> int:
        """Rank of the logits between groups."""
        return self.nodes[0].rank

    @property
    def within(self) -> Array:
        """Margins within groups at the first node: which are zero is the same all along."""
        return self.nodes[0].factors.within

    @property
    def times(self) -> Array:
        """Logarithms of the nodes' decays."""
        return np.array([node.time for node in self.nodes])

    def is_alike(self, node: _Node) -> bool:
        """Tell whether a node lies on the same stretch, as far as its rank tells."""
        return node.rank == self.rank and np.array_equal(node.factors.within > 0, self.within > 0)

    def add(self, node: _Node) -> None:
        """Add a node that lies on it."""
        self.nodes.append(node)

    def weights(self, times: Array) -> Array:
        """Return the weights of the nodes at some times, shape (T, n)."""
        return lagrange(self.times, times, len(self.nodes))

    def gaps(self, times: Array) -> Array:
        """Return `group_gaps` at some times, infinite on the diagonal, shape (T, G, G)."""
        return np.array([self._gaps(values) for values in self._values(times)])

    def column(self, group: int) -> Callable[[float], Array]:
        """Return the function that gives one group's gaps at a time, shape (G,)."""
        p, g = self.partition, self.partition.num_groups
        norm, mean, within, bias = self._parts(np.array([node.values for node in self.nodes]))
        mean, share = mean[..., group], (p.sizes[group] - 1) / p.sizes[group]
        within = within[:, group] * share
        times = self.times
        apart = times[:, None] - times
        np.fill_diagonal(apart, 1.0)
        barycentric = 1 / apart.prod(axis=1)
        parts = np.concatenate([norm[:, None], within[:, None], mean, bias], axis=1)

        def gaps(time: float) -> Array:
            away = time - times
            if not away.all():
                values = parts[int(np.flatnonzero(away == 0)[0])]
            else:
                weights = barycentric / away
                values = weights @ parts / weights.sum()
            scores = max(values[0], LEAST_NORM) * values[2 : 2 + g] + values[2 + g :]
            found: Array = scores[group] + values[1] - scores
            found[group] = np.inf
            return found

        return gaps

    def factors(self, time: float, rank: int, most: int | None = None) -> Factors:
        """Return balanced factors of interpolated logits.

        Those of the nodes are not interpolated: they bend like a root where a singular value ends.
        """
        if len(self.nodes) == 1 and self.slope is not None:
            (node,), change = self.nodes, self.slope
            away = time - node.time
            product = node.product + away * change.product
            within = node.factors.within + away * change.within
            bias = node.factors.bias + away * change.bias
        else:
            (weights,) = lagrange(self.times, np.array([time]), most or len(self.nodes))
            product = np.tensordot(weights, np.array([node.product for node in self.nodes]), axes=1)
            within = weights @ np.array([node.factors.within for node in self.nodes])
            bias = weights @ np.array([node.factors.bias for node in self.nodes])
        left, values, right = svd(product)
        root = np.sqrt(values[:rank])
        return Factors(left[:, :rank] * root, right[:rank].T * root, within, bias)

    def ending(self) -> float:
        """Return where the least singular value becomes zero, infinity if it does not fall."""
        if len(self.nodes) == 1 and self.slope is not None and self.slope.least < 0:
            return self.nodes[0].time - self.nodes[0].least / self.slope.least
        nodes = sorted(self.nodes, key=lambda node: node.time)[-NEAREST:]
        least = np.array([node.least for node in nodes])
        if self.rank == 0 or len(nodes) < 2 or not (np.diff(least) < 0).all():
            return math.inf
        (weights,) = lagrange(least, np.zeros(1), NEAREST)
        time = float(weights @ np.array([node.time for node in nodes]))
        if time > nodes[-1].time:
            return time
        # Far from the zero a polynomial may bend; the last two nodes always point ahead.
        (weights,) = lagrange(least[-2:], np.zeros(1), 2)
        return float(weights @ np.array([node.time for node in nodes[-2:]]))

    def _values(self, times: Array) -> Array:
        values = np.array([node.values for node in self.nodes])
        found: Array = self.weights(times) @ values
        return found

    def _parts(self, values: Array) -> tuple[Array, Array, Array, Array]:
        g = self.partition.num_groups
        norm, mean, within, bias = np.split(values, [1, 1 + g * g, 1 + g * g + g], axis=-1)
        return norm[..., 0], mean.reshape(*mean.shape[:-1], g, g), within, bias

    def _gaps(self, values: Array) -> Array:
        norm, mean, within, bias = self._parts(values)
        gaps = group_gaps(
            BlockMatrix(self.partition, within, max(float(norm), LEAST_NORM) * mean), bias
        )
        np.fill_diagonal(gaps, np.inf)
        return gaps


def trace(
    problem: Problem,
    partition: Partition,
    first: Factors,
    low: float,
    high: float,
    width: float = WIDEST,
) -> Iterator[Stretch]:
    """Yield the stretches between two logarithms of the decay, as far as they are found.

    Parameters
    ----------
    problem : Problem
        One linear layer, real features, wide enough; its decays are not used.
    partition : Partition
    first : Factors
        The minimiser at ``low``, or near it.
    low, high : float
        No groups merge between them.
    width : float
        What the first stretch may have.
    """
    return _Tracer(problem, partition, high).run(first, low, width)


class _Tracer:
    def __init__(self, problem: Problem, partition: Partition, high: float) -> None:
        self.problem, self.partition, self.high = problem, partition, high

    def run(self, first: Factors, low: float, width: float) -> Iterator[Stretch]:
        node, begin = self._node(low, first), low
        while node is not None:
            stretch = Stretch(self.partition, begin, node)
            stretch.slope = self._slope(node)
            follower = self._follow(stretch, width)
            yield stretch
            if stretch.high >= self.high or follower is None:
                break
            width = stretch.high - stretch.low
            # What lies between stretches that do not meet is for the caller.
            meets = follower.rank in (stretch.rank, stretch.rank - 1)
            node, begin = follower, stretch.high if meets else follower.time

    def _node(self, time: float, start: Factors) -> _Node | None:
        decay = math.exp(time)
        problem = self.problem.replace(weight_decay=decay, feature_decay=decay)
        factors = settle(start, problem, self.partition, NODE_GAP, STEPS)
        if factors is None:
            return None
        product = factors.left @ factors.right.T
        rank = factors.left.shape[1]
        least = float(singular_values(product)[rank - 1]) if rank else 0.0
        mean = product / self.partition.scale
        norm = float(np.linalg.norm(mean))
        values = np.r_[norm, mean.ravel() / (norm or 1.0), factors.within, factors.bias]
        return _Node(time, factors, product, least, values)

    def _slope(self, node: _Node) -> _Slope | None:
        if node.rank == 0:
            return None
        decay = math.exp(node.time)
        problem = self.problem.replace(weight_decay=decay, feature_decay=decay)
        factors = node.factors
        change = slope(factors, problem, self.partition)
        product = factors.left @ change.right.T + change.left @ factors.right.T
        left, _, right = svd(node.product)
        least = float(left[:, node.rank - 1] @ product @ right[node.rank - 1])
        return _Slope(product, change.within, change.bias, least)

    def _follow(self, stretch: Stretch, width: float) -> _Node | None:
        """Add nodes until the stretch is known; return the first one of the next, if there is."""
        limit = min(self.high, stretch.low + WIDEST)
        beyond: _Node | None = None  # the nearest node that is known to lie on another stretch
        end, settled, error = math.inf, False, math.inf
        while len(stretch.nodes) < MOST_NODES:
            last = float(stretch.times.max())
            last_end, end = end, min(stretch.ending(), limit if beyond is None else beyond.time)
            halve = beyond is not None and end == beyond.time  # the polynomial knows no better
            span, shy = end - stretch.low, SHYER if error > ROUGH else SHY
            if not settled:
                near = end - last < NEARLY * span
                same = len(stretch.nodes) > 2 and abs(end - last_end) < FOUND * span
                settled = same or (near and len(stretch.nodes) > 3) or last >= limit - SHYER * span
            if not settled:
                time = (last + end) / 2 if halve else self._ahead(stretch, last, end, width)
            else:
                time = self._between(stretch, end - shy * span)
            predicted = stretch.gaps(np.array([time]))[0] if settled else None
            inside = time < last
            start = stretch.factors(time, stretch.rank, None if inside else NEAREST)
            node = self._node(time, start)
            if node is None:
                return None
            if not stretch.is_alike(node):
                if inside:  # the rank falls and rises again: not one stretch
                    return None
                beyond, settled = node, False
                if beyond.time - last < SAME:
                    stretch.high = last
                    return beyond
                continue
            stretch.add(node)
            if predicted is None:
                continue
            found, apart = stretch.gaps(np.array([time]))[0], ~np.eye(len(predicted), dtype=bool)
            error = float(np.abs(found[apart] - predicted[apart]).max(initial=0.0))
            if shy == SHY and error <= self._needed(stretch, end):
                follower = self._next(stretch, beyond, limit)
                if follower is None or not stretch.is_alike(follower) or stretch.high >= limit:
                    return follower
                stretch.add(follower)  # the end was not right
                settled = False
        return None

    def _ahead(self, stretch: Stretch, last: float, end: float, width: float) -> float:
        """Return the next time on the way to the end."""
        known = len(stretch.nodes)
        first = float(stretch.times.min())
        near = first + (FIRST if known < 2 else SECOND if known == 2 else math.inf) * width
        share = FIRST if known < 2 else CAREFUL
        return min(near, last + share * (end - last))

    def _between(self, stretch: Stretch, end: float) -> float:
        """Return the time that a polynomial needs most: as far as can be from all nodes."""
        times = np.linspace(float(stretch.times.min()), end, 65)
        with np.errstate(divide="ignore"):
            apart = np.log(np.abs(times[:, None] - stretch.times)).sum(axis=1)
        return float(times[apart.argmax()])

    def _needed(self, stretch: Stretch, end: float) -> float:
        """Return how exact the stretch has to be: as what is read from it."""
        gaps = np.sort(stretch.gaps(np.linspace(stretch.low, end, 9)), axis=1)
        least = gaps[:, 0]
        if (least > 0).all():
            return max(TOLERANCE, CLEARLY * float(least.min()))
        return TOLERANCE

    def _next(self, stretch: Stretch, beyond: _Node | None, limit: float) -> _Node | None:
        """Set where the stretch ends and return the first node after it."""
        end = stretch.ending()
        if beyond is not None:
            end = min(end, beyond.time)
        if end >= limit - SAME:
            stretch.high = limit
            if limit >= self.high:
                return None
            return self._node(limit, stretch.factors(limit, stretch.rank, NEAREST))
        stretch.high = end
        step = BEYOND * (end - stretch.low)
        start = stretch.factors(end, max(stretch.rank - 1, 0))
        node = None
        for _ in range(4):
            time = min(end + step, self.high)
            node = self._node(time, start)
            if node is None or node.rank in (stretch.rank, stretch.rank - 1):
                break
            step /= 8
        return node
