"""ReLU features and one layer: axes are added until a bound shows that the minimum is reached.

Over factors of any width the minimum is that of a convex problem (docs/theory.md section 5): where
no direction of the orthant lowers the objective, a local minimum is global, and a bound shows it
(`tightframe.theory.orthant`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import RANK_TOLERANCE, Array, BlockMatrix, Partition
from tightframe.problem.problem import Problem
from tightframe.solvers.search.budget import Budget
from tightframe.solvers.search.orthant import descend
from tightframe.solvers.search.orthant_factors import OrthantFactors
from tightframe.solvers.search.record import Candidate, Search
from tightframe.theory.axes import Axes, written_width
from tightframe.theory.certificate import bound_from, without_constant
from tightframe.theory.orthant import steepest_axes

#: Rounds of descent and new axes, and of those without a gain in a row.
MAX_ROUNDS, MAX_STUCK = 12, 3

#: A direction lowers the objective where its pull exceeds the decay by more than this share.
STEEP = 1e-8

#: Rounds go on while the objective falls by more than this share, or a descent got stuck.
LEAST_GAIN = 1e-11

#: A point whose objective is so near the bound, relatively, is a minimum whatever its gradient.
NEAR = 1e-6

#: Axes this long, relatively, and differences of classes, vanish.
VANISHING = 1e-7

#: Cosine above which two new axes are one.
SAME_AXIS = 0.99


@dataclass(frozen=True)
class Found:
    """A local minimum over the orthant, decays balanced: both factors carry the mean decay.

    Attributes
    ----------
    partition : Partition
        Whose classes share logits.
    axes : Axes
        See `OrthantFactors`.
    objective : float
    lower_bound : float
        Of the minimum over factors of any width.
    converged : bool
        Whether the gradient became as small as it can, or the bound is near.
    """

    partition: Partition
    axes: Axes
    objective: float
    lower_bound: float
    converged: bool

    @property
    def width(self) -> int:
        """Number of axes, written out for single classes."""
        return written_width(self.partition, self.axes)

    def blocks(self, problem: Problem) -> tuple[BlockMatrix, Array]:
        """Return the logits and a bias per group; by class where classes of a group differ.

        The problem without ``dim`` is convex in the logits: those of classes of a group agree.
        """
        p, axes = self.partition, self.axes
        reduced = axes.left @ axes.right.T
        within = np.where(p.sizes > 1, axes.spread * np.square(axes.right).sum(axis=1), 0.0)
        # A descent may stop beside zero. Classes whose logits are so small have none.
        lengths = np.sqrt(np.square(reduced).sum(axis=0) + (p.sizes - 1) * within**2)
        lengths /= np.sqrt(p.sizes)
        root = np.sqrt(p.counts)
        zero = lengths <= RANK_TOLERANCE * max(lengths.max(), root.max())
        reduced[:, zero] = 0.0
        within[zero] = 0.0
        found = BlockMatrix(p, within / root, reduced / p.scale)
        limit = VANISHING * float(np.abs(found.mean).max() + found.within.max())
        if (p.sizes > 1).any():
            found.within[found.within <= limit] = 0.0
            return found, axes.bias
        z = found.mean
        groups, sizes = problem.class_groups, np.array([n for _, n in problem.groups])
        bias = np.bincount(groups, axes.bias) / sizes
        blocks = BlockMatrix.averaged(Partition.coarsest(problem), z)
        blocks.within[np.abs(blocks.within) <= limit] = 0.0
        scale = limit + VANISHING * float(np.abs(axes.bias).max())
        if (
            np.abs(blocks.to_dense() - z).max() <= scale
            and np.abs(bias[groups] - axes.bias).max() <= scale
        ):
            return blocks, bias
        return found, axes.bias

    def record(self, problem: Problem, seed: int, stopped: str | None) -> Search:
        """Return the record of one descent to a minimum that no further axis lowers."""
        rank = self.blocks(problem)[0].rank
        full = min(problem.loss_object.max_rank(problem.num_classes), self.width)
        return Search(
            starts=1,
            seed=seed,
            widths=(self.width,),
            candidates=(Candidate("search", rank, self.objective, 1),),
            winner="full-rank" if rank == full else "low-rank",
            chains=1,
            agreed=1,
            stopped=stopped,
            converged=self.converged,
            relaxed_bound=self.lower_bound,
        )

    def renamed(self, problem: Problem, places: NDArray[np.intp]) -> Found:
        """Return that of a problem whose class k was in place ``places[k]``; classes alone."""
        axes = Axes(*(part[places] for part in self.axes))
        return replace(self, partition=Partition.singletons(problem), axes=axes)


def minimise(
    problem: Problem,
    partition: Partition,
    *,
    max_iterations: int,
    budget: Budget | None = None,
) -> Found:
    """Descend to a local minimum that no further axis lowers: the global one, where bounds close.

    Parameters
    ----------
    problem : Problem
        One layer, non-negative features; ``dim`` is not used.
    partition : Partition
        Into groups of interchangeable classes, or with every class alone: that finds as few axes
        as there are classes mostly, and this takes no longer for many classes than for few.
    max_iterations : int
        Quasi-Newton iterations allowed to a descent.
    budget : Budget, optional
        Ends the descents early, and hears how far they are.
    """
    f = OrthantFactors(problem, partition, partition.num_groups)
    budget = Budget() if budget is None else budget
    budget.tell(0, MAX_ROUNDS + 1, "descent in the orthant")
    best, stuck = _descended(f, _first_guess(f), max_iterations, budget), 0
    for rounds in range(MAX_ROUNDS):
        if budget.over():
            break
        lengths, axes = steepest_axes(*best.f.slopes(best.points), partition.sizes)
        steep = lengths > 1 + STEEP
        if not steep.any():
            break
        steepest = axes[steep][np.argsort(-lengths[steep])]
        wider = _with_axes(best.f, best.points, steepest)
        budget.tell(rounds + 1, MAX_ROUNDS + 1, f"descent with {wider[0].width} axes")
        following = _descended(*wider, max_iterations, budget)
        gain = best.value - following.value
        stuck = stuck + 1 if gain < LEAST_GAIN * best.value else 0
        over = stuck > 0 and (best.converged or stuck == MAX_STUCK)
        if gain > 0 or (following.converged and not best.converged):
            best = following
        if over:
            break
    return found(best.f, best.points, best.converged)


class _Descended(NamedTuple):
    """Where a round ended."""

    f: OrthantFactors
    points: Array
    value: float
    converged: bool


def _descended(f: OrthantFactors, points: Array, max_iterations: int, budget: Budget) -> _Descended:
    points, converged = descend(f, points, max_iterations, budget)
    f, points = _without_spare_axes(f, points)
    return _Descended(f, points, float(f(points)[0][0]), converged)


def _first_guess(f: OrthantFactors) -> Array:
    """Return a point with an axis a class, or group: the shape of the closed form without bias."""
    p = f.partition
    root, eye = np.sqrt(p.sizes), np.eye(p.num_groups)
    codes = eye - np.outer(root, root) * f.problem.loss_object.ignores_constants / p.num_classes
    size = np.sqrt(f.root.mean())
    return f.point(Axes(size * codes, size * eye, np.ones(len(eye)), np.zeros(len(eye))))


def _without_spare_axes(f: OrthantFactors, points: Array) -> tuple[OrthantFactors, Array]:
    """Drop axes that vanish and join those that point the same way, which costs no more."""
    u, v, spread, bias = f.axes(points)
    lengths = np.linalg.norm(v, axis=0)
    kept = lengths > VANISHING * max(lengths.max(initial=0.0), 1e-3)
    if not kept.any():
        kept[0] = True
        u, v, lengths = 0 * u, 0 * v, np.ones_like(lengths)
    u, v, lengths = u[:, kept], v[:, kept], lengths[kept]
    same = (v / lengths).T @ (v / lengths) > 1 - VANISHING**2
    leaders = same.argmax(axis=1)
    joined = []
    for leader in np.unique(leaders):
        members = leaders == leader
        # X's part is of rank one, and so is that of Q.
        size = np.linalg.norm(lengths[members])
        joined.append(
            (u[:, members] @ lengths[members] / size, v[:, leader] / lengths[leader] * size)
        )
    left, right = (np.array([pair[side] for pair in joined]).T for side in (0, 1))
    smaller = OrthantFactors(f.problem, f.partition, len(joined))
    return smaller, smaller.point(Axes(left, right, spread, bias))


def _with_axes(f: OrthantFactors, points: Array, axes: Array) -> tuple[OrthantFactors, Array]:
    """Add axes along which the objective falls, the steepest first, none twice."""
    chosen: list[Array] = []
    for axis in axes:
        if all(axis @ other < SAME_AXIS for other in chosen):
            chosen.append(axis)
    u, v, spread, bias = f.axes(points)
    slope, within = f.slopes(points)
    # Where no axis reaches a group yet, nothing has said how its spread shall be.
    unset = np.square(v).sum(axis=1) <= (VANISHING * f.root) ** 2
    spread = np.where(unset, np.abs(within) * (np.abs(within) > 1), spread)
    new_v = np.array(chosen).T
    new_u = -slope @ new_v  # the best for short axes
    wider = OrthantFactors(f.problem, f.partition, f.width + len(chosen))
    lengths = np.sqrt(f.root.mean()) * np.geomspace(1e-3, 3.0, 12)
    trials = np.concatenate(
        [wider.point(Axes(np.c_[u, s * new_u], np.c_[v, s * new_v], spread, bias)) for s in lengths]
    )
    best = int(wider(trials)[0].argmin())
    return wider, trials[[best]]


def found(f: OrthantFactors, points: Array, converged: bool) -> Found:
    """Return what a point (1, P) is, with the bound that its own residual gives."""
    axes, p = f.axes(points), f.partition
    axes = axes._replace(bias=without_constant(f.problem, axes.bias, p))
    bound = max(bound_from(f.problem, f.fit, f.residual(points), axes.bias), 0.0)
    value = float(f(points)[0][0])
    return Found(p, axes, value, bound, converged or value - bound <= NEAR * value)
