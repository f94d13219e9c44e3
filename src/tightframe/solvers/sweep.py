"""Sweeps of decays: a few points are solved, those between are interpolated and certified.

Between changes of the rank and merging thresholds the minimiser is a smooth function of the decays,
and the certified gap is of the order of the square of an error in it: a polynomial through a few
solved points meets the tolerance. Every point has its own certificate; what misses the tolerance is
solved, and becomes a node of the polynomial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import require_positive_fields
from tightframe.geometry.blocks import Array, BlockMatrix, Partition, svd
from tightframe.problem.problem import Problem
from tightframe.progress import Progress, told
from tightframe.solvers.interpolation import lagrange
from tightframe.solvers.newton import DEFAULTS as NEWTON
from tightframe.solvers.newton import minimise_from, polish
from tightframe.solvers.starts import Factors
from tightframe.solvers.stats import Stats
from tightframe.theory.certificate import Certificate, certify_batch, without_constant


@dataclass(frozen=True)
class SweepOptions:
    """How much of a sweep is solved; what is interpolated is certified to the same tolerance.

    Attributes
    ----------
    max_nodes : int
        Nodes of one polynomial, at most.
    least_nodes, nodes_a_digit, more_a_decade : float
        Nodes of a stretch: at least, for each factor of ten that the gap must fall, and how many
        more of those it takes for each decade of decays. Measured; what they miss is solved.
    max_excess : float
        A gap that is more than this times too large says nothing.
    power : float
        Polynomials are in a power of the decay, between its logarithm, which small decays ask for,
        and itself, which large ones do: this over the decades that are swept.
    node_tolerance : float
        Nodes are solved to this share of the tolerance.
    batch_entries : int
        Entries of the logits of one batch: what fits into a core's cache.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    max_nodes: int = 10
    least_nodes: float = 1.9
    nodes_a_digit: float = 1.0
    more_a_decade: float = 0.15
    max_excess: float = 1e8
    power: float = 0.7
    node_tolerance: float = 0.5
    batch_entries: int = 2**16

    def __post_init__(self) -> None:
        require_positive_fields(self)


DEFAULTS = SweepOptions()

#: How a node is made of a prediction.
POLISHED = "grouped Newton"

#: Squares of singular values may be so far apart for eigenvectors to give the singular vectors.
SAFE_CONDITION = 1e-6


class Point(NamedTuple):
    """A certified point of a sweep; ``solved`` by a method, or else interpolated."""

    logits: BlockMatrix
    bias: Array
    certificate: Certificate
    solved: str | None
    stats: Stats = Stats()


class Node(NamedTuple):
    """A solved point: its residual in units of lambda, bias, where margins are positive, rank."""

    within: Array
    mean: Array
    bias: Array
    shown: NDArray[np.bool_]
    rank: int


class Sweep:
    """Solves problems that differ in their decays only; see `points`.

    Parameters
    ----------
    problems : sequence of Problem
        Convex form required; equal but for their decays.
    tol, max_iterations
        As in `minimise`.
    options : SweepOptions
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        tol: float,
        max_iterations: int,
        options: SweepOptions = DEFAULTS,
        tell: Progress | None = None,
    ) -> None:
        self.problems = problems
        self.tell = tell
        self.options = options
        self.partition = Partition.coarsest(problems[0])
        self.problem = problems[0]
        self.fit = self.problem.loss_object.datafit(self.partition)
        self.tol, self.max_iterations = tol, max_iterations
        self.decays = np.array([problem.logit_decay for problem in problems])
        self.bias_decays = np.array([problem.bias_decay for problem in problems])
        only_bias = np.ptp(self.decays) == 0 and np.ptp(self.bias_decays) > 0
        swept = self.bias_decays if only_bias else self.decays
        self.power = self.options.power / max(1.0, math.log10(swept.max() / swept.min()))
        self.times = swept**self.power
        # Of points that occur more than once, the first stands for all.
        same = {pair: i for i, pair in reversed([*enumerate(self._pairs())])}
        self.stands_in = [same[pair] for pair in self._pairs()]
        self.order = sorted(same.values(), key=self.times.__getitem__)
        self.nodes: dict[int, Node] = {}
        self.found: dict[int, Point] = {}

    def _pairs(self) -> list[tuple[float, float]]:
        return list(zip(self.decays.tolist(), self.bias_decays.tolist(), strict=True))

    def points(self) -> list[Point]:
        """Return the certified points, in the order of the problems."""
        last = len(self.order) - 1
        self._solve(last)
        if last:
            self._solve(0, self._predict([0], [last]))
        stretches = [(0, last)]
        while stretches:
            stretches += self._fill(*stretches.pop())
        return [self.found[i] for i in self.stands_in]

    # Below, a place is an index into the sorted order.

    def _fill(self, low: int, high: int) -> list[tuple[int, int]]:
        """Find all points of a stretch with solved ends, or return the stretches it splits into."""
        if high - low < 2:
            return []
        if not self._alike(low, high) or self._standing_still(low, high):
            middle = (low + high) // 2
            self._solve(middle)
            return [(low, middle), (middle, high)]
        nodes = [low, high]
        missing = list(range(low + 1, high))
        wanted = self._first_nodes(low, high) & set(missing)
        while missing:
            # From the middle outwards, which predicts best.
            for place in sorted(wanted, key=lambda place: abs(2 * place - low - high)):
                predicted = self._predict([place], nodes)
                # A polished node waits for its certificate with the others.
                if place in nodes or not self._polish(place, predicted):
                    missing.remove(place)
                    self._solve(place, predicted)
                    if not self._alike(low, place):
                        return [(low, place), (place, high)]
                nodes = sorted({*nodes, place})
            size = max(1, self.options.batch_entries // self.partition.num_groups**2)
            batches = [missing[start : start + size] for start in range(0, len(missing), size)]
            accepted = [self._accept(batch, self._predict(batch, nodes)) for batch in batches]
            missing = sorted(set(missing) - set().union(*accepted))
            told(self.tell, len(self.found), len(self.order))
            wanted = _middles(missing, nodes)
        return []

    def _first_nodes(self, low: int, high: int) -> set[int]:
        """Return the places nearest to as many Chebyshev points as the stretch should need.

        The gap in the middle, predicted from the ends alone, tells.
        """
        times = self.times[self.order]
        start, length = times[low], times[high] - times[low]

        def nearest(share: float) -> int:
            return int(np.abs(times - start - share * length).argmin())

        middle = nearest(0.5)
        primal, dual, _ = self._certify([middle], self._predict([middle], [low, high]))
        with np.errstate(invalid="ignore"):  # a wild prediction has an infinite objective
            excess = (primal[0] - dual[0]) / (self.tol * primal[0])
        o = self.options
        digits = math.log10(max(excess, 1.0) if excess < o.max_excess else o.max_excess)
        decades = math.log10(times[high] / times[low]) / self.power
        number = round(o.least_nodes + digits * (o.nodes_a_digit + o.more_a_decade * decades))
        angles = np.pi * np.arange(number) / (number - 1)
        return {nearest(share) for share in (1 - np.cos(angles)) / 2}

    def _standing_still(self, low: int, high: int) -> bool:
        """Tell whether places share a time: those differ in the other decay."""
        return bool(np.any(np.diff(self.times[self.order[low : high + 1]]) == 0))

    def _alike(self, a: int, b: int) -> bool:
        """Tell whether two solved places lie on one smooth stretch, as far as their ranks tell."""
        one, other = self.nodes[self.order[a]], self.nodes[self.order[b]]
        return one.rank == other.rank and np.array_equal(one.shown, other.shown)

    def _polish(self, place: int, predicted: tuple[BlockMatrix, Array]) -> bool:
        """Make a prediction a node by Newton steps; tell whether few were enough.

        With many groups the splitting, certificate included, costs less than they do.
        """
        if self.partition.num_groups > NEWTON.split_groups:
            return False
        index = self.order[place]
        problem, tol = self.problems[index], self.options.node_tolerance * self.tol
        start = _factors(predicted)
        factors = polish(start, problem, self.partition, tol, self.max_iterations)
        if factors is not None:
            self._add_node(index, factors)
        return factors is not None

    def _solve(self, place: int, predicted: tuple[BlockMatrix, Array] | None = None) -> None:
        """Solve one place, from a prediction where there is one, and make it a node."""
        index = self.order[place]
        # An interpolated point may be found already, but is no node.
        if index in self.found and index in self.nodes:
            return
        problem, tol = self.problems[index], self.options.node_tolerance * self.tol
        start = None if predicted is None else _factors(predicted)
        result = minimise_from(start, problem, self.partition, tol, self.max_iterations)
        self._add_node(index, result.factors)
        self.found[index] = Point(
            result.logits, result.factors.bias, result.certificate, result.method, result.stats
        )
        told(self.tell, len(self.found), len(self.order))

    def _add_node(self, index: int, factors: Factors) -> None:
        left, right, within, bias = factors
        scores = left @ right.T / self.partition.scale + bias[:, None]
        residual, unit = self.fit.residual(within, scores), 1 / self.decays[index]
        self.nodes[index] = Node(
            residual.within * unit, residual.mean * unit, bias, within > 0, left.shape[1]
        )

    def _predict(self, places: Sequence[int], nodes: Sequence[int]) -> tuple[BlockMatrix, Array]:
        """Interpolate between nodes; return logits, of the nodes' rank, and bias, a batch.

        What is interpolated is the residual in units of lambda, which changes far less than the
        logits do: at full rank it is a polar factor.
        """
        p = self.partition
        wanted = [self.order[place] for place in places]
        known = [self.order[node] for node in nodes]
        weights = lagrange(self.times[known], self.times[wanted], self.options.max_nodes)
        within, mean, bias = (
            np.tensordot(weights, np.array([self.nodes[i][part] for i in known]), axes=1)
            for part in range(3)
        )
        size = self.decays[wanted][:, None]
        residual = BlockMatrix(p, size * within, size[..., None] * mean)
        # Outside the domain of the loss there are no such logits: zeros, which certify nothing.
        within, scores = map(_finite, self.fit.scores(residual))
        within = np.where(self.nodes[known[0]].shown, within, 0.0)
        if self.problem.bias == "free":
            bias = scores @ p.shares
        parts = _leading_svd((scores - bias[..., None]) * p.scale, self.nodes[known[0]].rank)
        return BlockMatrix.from_svd(p, within, *parts), bias

    def _certify(
        self, places: Sequence[int], predicted: tuple[BlockMatrix, Array]
    ) -> tuple[Array, Array, Array]:
        indices = [self.order[place] for place in places]
        decays, bias_decays = self.decays[indices], self.bias_decays[indices]
        return certify_batch(self.problem, *predicted, decays, bias_decays)

    def _accept(self, places: Sequence[int], predicted: tuple[BlockMatrix, Array]) -> set[int]:
        """Certify predictions, keep those within the tolerance and return their places."""
        logits, bias = predicted
        primal, dual, rounding = self._certify(places, predicted)
        good = np.isfinite(primal) & (primal - dual <= self.tol * primal)
        accepted = np.flatnonzero(good).tolist()
        for i in accepted:
            self.found[self.order[places[i]]] = Point(
                BlockMatrix(self.partition, logits.within[i], logits.mean[i]),
                without_constant(self.problem, bias[i], self.partition),
                Certificate(float(primal[i]), float(dual[i]), rounding=float(rounding[i])),
                POLISHED if self.order[places[i]] in self.nodes else None,
            )
        return {places[i] for i in accepted}


def _factors(predicted: tuple[BlockMatrix, Array]) -> Factors:
    """Return the factors of a prediction for one place."""
    logits, bias = predicted
    left, values, right = (part[0] for part in logits.decomposition)
    return Factors.from_svd(left, values, right, logits.within[0], bias[0])


def _leading_svd(matrices: Array, rank: int) -> tuple[Array, Array, Array]:
    """Return the `rank` leading singular vectors and values of a batch.

    By eigenvectors of the Gram matrices, in half the time, where the squared values are so far
    apart at most that rounding stays below 1e-9; one step of Newton and Schulz makes the left
    vectors orthonormal to rounding again.
    """
    squares, vectors = np.linalg.eigh(matrices.swapaxes(-1, -2) @ matrices)
    squares, vectors = squares[:, ::-1][:, :rank], vectors[:, :, ::-1][:, :, :rank]
    if rank == 0 or np.any(squares[:, -1] <= SAFE_CONDITION * squares[:, 0]):
        left, values, right = svd(matrices)
        values[:, rank:] = 0.0
        return left, values, right
    values = np.sqrt(squares)
    left = matrices @ vectors / values[:, None, :]
    left = 1.5 * left - 0.5 * left @ (left.swapaxes(-1, -2) @ left)
    return left, values, vectors.swapaxes(-1, -2)


def _finite(array: Array) -> Array:
    return np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)


def _middles(missing: list[int], nodes: list[int]) -> set[int]:
    """Return the middle one of the missing places between every two neighbouring nodes."""
    between = np.searchsorted(nodes, missing)
    runs = [np.array(missing)[between == i] for i in range(len(nodes) + 1)]
    return {int(run[len(run) // 2]) for run in runs if len(run)}
