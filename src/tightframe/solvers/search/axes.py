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
from tightframe.solvers.search.factors import Factors
from tightframe.solvers.search.orthant import descend, gradient, point
from tightframe.solvers.search.record import Candidate, Search
from tightframe.theory.certificate import bound_from, without_constant
from tightframe.theory.orthant import steepest_axes

#: Rounds of descent and new axes.
MAX_ROUNDS = 12

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
    left, right : ndarray, shapes (K, r) and (r, K)
        ``Z D^{1/2} = left @ right``, ``right >= 0``.
    bias : ndarray, shape (K,)
    objective : float
    lower_bound : float
        Of the minimum over factors of any width.
    converged : bool
        Whether the gradient became as small as it can, or the bound is near.
    """

    left: Array
    right: Array
    bias: Array
    objective: float
    lower_bound: float
    converged: bool

    @property
    def width(self) -> int:
        """Number of axes."""
        return len(self.right)

    def blocks(self, problem: Problem) -> tuple[BlockMatrix, Array]:
        """Return the logits and a bias per group; by class where classes of a group differ.

        The problem without ``dim`` is convex in the logits: those of classes of a group agree.
        """
        root = np.sqrt(problem.counts)
        z = self.left @ self.right / root
        # A descent may stop beside zero. Classes whose logits are so small have none.
        lengths = np.linalg.norm(z, axis=0) * root
        z[:, lengths <= RANK_TOLERANCE * max(lengths.max(), root.max())] = 0.0
        groups, sizes = problem.class_groups, np.array([n for _, n in problem.groups])
        bias = np.bincount(groups, self.bias) / sizes
        blocks = BlockMatrix.averaged(Partition.coarsest(problem), z)
        limit = VANISHING * float(np.abs(z).max())
        blocks.within[np.abs(blocks.within) <= limit] = 0.0
        scale = limit + VANISHING * float(np.abs(self.bias).max())
        if (
            np.abs(blocks.to_dense() - z).max() <= scale
            and np.abs(bias[groups] - self.bias).max() <= scale
        ):
            return blocks, bias
        return BlockMatrix.from_dense(problem, z), self.bias

    def factors(self, problem: Problem) -> tuple[list[Array], Array]:
        """Return the classifier and the class means, with axes that are zero up to ``dim``."""
        k, width = problem.num_classes, max(problem.width or problem.num_classes, self.width)
        weights, means = np.zeros((k, width)), np.zeros((width, k))
        decay = problem.mean_decay
        weights[:, : self.width] = self.left * np.sqrt(decay / problem.weight_decays[0])
        means[: self.width] = self.right * np.sqrt(decay / (problem.feature_decay * problem.counts))
        return [weights], means

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

    def renamed(self, places: NDArray[np.intp]) -> Found:
        """Return the same with class k moved from place ``places[k]``."""
        return replace(
            self, left=self.left[places], right=self.right[:, places], bias=self.bias[places]
        )


def minimise(problem: Problem, *, max_iterations: int, budget: Budget | None = None) -> Found:
    """Descend to a local minimum that no further axis lowers: the global one, where bounds close.

    Parameters
    ----------
    problem : Problem
        One layer, non-negative features; ``dim`` is not used.
    max_iterations : int
        Quasi-Newton iterations allowed to a descent.
    budget : Budget, optional
        Ends the descents early, and hears how far they are.
    """
    f = Factors(problem, problem.num_classes)
    budget = Budget() if budget is None else budget
    budget.tell(0, MAX_ROUNDS + 1, "descent in the orthant")
    best = _descended(f, _first_guess(f), max_iterations, budget)
    for rounds in range(MAX_ROUNDS):
        if budget.over():
            break
        slope = gradient(best.f, best.points)
        lengths, axes = steepest_axes(slope / f.decay)
        steep = lengths > 1 + STEEP
        if not steep.any():
            break
        steepest = axes[steep][np.argsort(-lengths[steep])]
        wider = _with_axes(best.f, best.points, slope, steepest)
        budget.tell(rounds + 1, MAX_ROUNDS + 1, f"descent with {wider[0].width} axes")
        following = _descended(*wider, max_iterations, budget)
        gain = best.value - following.value
        if best.converged and gain < LEAST_GAIN * best.value:
            break
        if gain > 0 or following.converged:
            best = following
    return found(best.f, best.points, best.converged)


class _Descended(NamedTuple):
    """Where a round ended."""

    f: Factors
    points: Array
    value: float
    converged: bool


def _descended(f: Factors, points: Array, max_iterations: int, budget: Budget) -> _Descended:
    points, converged = descend(f, points, max_iterations, budget)
    f, points = _without_spare_axes(f, points)
    return _Descended(f, points, float(f(points)[0][0]), converged)


def _first_guess(f: Factors) -> Array:
    """Return a point with an axis a class: the shape of the closed form without bias."""
    k = f.num_classes
    codes = np.eye(k) - f.problem.loss_object.ignores_constants / k
    size = np.sqrt(f.root.mean())
    return point(f, size * codes, size * np.eye(k), np.zeros(k))


def _without_spare_axes(f: Factors, points: Array) -> tuple[Factors, Array]:
    """Drop axes that vanish and join those that point the same way, which costs no more."""
    u, v, _, bias = (part[0] for part in f.split(points))
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
        # X's part is of rank one: w = -G v / lambda is parallel too, and lengths agree.
        product = u[:, members] @ v[:, members].T
        axis = v[:, leader] / lengths[leader]
        w = product @ axis
        size = np.sqrt(np.linalg.norm(w))
        joined.append((w / size if size else w, axis * size))
    left, right = (np.array([pair[side] for pair in joined]).T for side in (0, 1))
    smaller = Factors(f.problem, len(joined))
    return smaller, point(smaller, left, right, bias)


def _with_axes(f: Factors, points: Array, slope: Array, axes: Array) -> tuple[Factors, Array]:
    """Add axes along which the objective falls, the steepest first, none twice."""
    chosen: list[Array] = []
    for axis in axes:
        if all(axis @ other < SAME_AXIS for other in chosen):
            chosen.append(axis)
    u, v, _, bias = (part[0] for part in f.split(points))
    new_v = np.array(chosen).T
    new_u = -slope @ new_v
    new_u /= np.linalg.norm(new_u, axis=0)
    wider = Factors(f.problem, f.width + len(chosen))
    lengths = np.sqrt(f.root.mean()) * np.geomspace(1e-3, 3.0, 12)
    trials = np.concatenate(
        [point(wider, np.c_[u, s * new_u], np.c_[v, s * new_v], bias) for s in lengths]
    )
    best = int(wider(trials)[0].argmin())
    return wider, trials[[best]]


def found(f: Factors, points: Array, converged: bool) -> Found:
    """Return what a point (1, P) is, with the bound that its own residual gives."""
    u, v, _, bias = (part[0] for part in f.split(points))
    bias = without_constant(f.problem, bias, np.ones(f.num_classes))
    scores = u @ v.T / f.root + bias[:, None]
    residual = f.fit.residual(np.zeros(f.num_classes), scores)
    bound = max(bound_from(f.problem, f.fit, residual, bias), 0.0)
    value = float(f(points)[0][0])
    return Found(u, v.T, bias, value, bound, converged or value - bound <= NEAR * value)
