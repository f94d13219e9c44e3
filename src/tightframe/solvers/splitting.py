"""Operator splitting for the convex form, where groups are many: a Newton step a column, then SVT.

Douglas-Rachford on ``f(X) + lambda ||X||_*``, X the reduced matrix of the logits. The data fit
falls apart into one small problem a group, whose Hessian is a diagonal less a rank-one matrix: one
Newton step from the last iterate is enough. The norm's proximal map, singular value thresholding
(SVT), takes one eigendecomposition and finds the rank by itself. So cost and steps hardly depend on
rank and decay, and Anderson's acceleration keeps the steps to some ten. A bias belongs to the data
fit's side, where it couples the columns by one G x G system; margins inside the groups are singular
values of their own, shrunk apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import require_positive_fields
from tightframe.geometry.blocks import Array, BlockMatrix
from tightframe.geometry.eigen import all_above, eigenpairs_above
from tightframe.problem.problem import Problem, at_most
from tightframe.solvers.anderson import PART, Anderson, AndersonOptions
from tightframe.solvers.stats import Round
from tightframe.theory.certificate import Certificate, certify_blocks, without_constant

#: From few steps, it never waits.
ANDERSON = AndersonOptions(memory=8, ridge=1e-10, idle=10**9, single_size=1)


@dataclass(frozen=True)
class SplittingOptions:
    """How the splitting is tuned; the answer's certificate does not depend on it. Measured.

    Attributes
    ----------
    first_share, far_share, square_share : float
        The first penalty, in units of the data fit's curvature, over the decay's share of the one
        at which everything collapses: as a rule; where the first guess is further away, with
        adjusted logits and free biases; for squared errors, whose curvature is the same everywhere.
    crowd : float
        Where groups have more classes than this, on average, the first penalty falls like one over
        their number, to 0.3 of it: without a bias, as a rule.
    adapt_every, adapt_until : int
        The penalty is balanced after every so many steps, up to so many.
    band, longest_change : float
        It is left alone within a factor of the former, and changes by the latter at most.
    longest_step : float
        Of one Newton step, in logits.
    few : float
        Where the last rank was below this share of all, only those eigenvectors are computed.
    anderson : AndersonOptions
        The acceleration.
    max_steps, patience : int
        Steps allowed, and steps in which the gap must halve.
    margin : float
        A certificate is asked for at this share of the tolerance: its bound is looser than the
        estimate, and one that fails costs as much as three steps.
    safe_condition : float
        Singular values of which the squares are further apart than this are computed anew.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    first_share: float = 0.006
    far_share: float = 0.03
    square_share: float = 3.0
    crowd: float = 3.0
    adapt_every: int = 10
    adapt_until: int = 40
    band: float = 1.25
    longest_change: float = 2.5
    longest_step: float = 4.0
    few: float = 0.3
    anderson: AndersonOptions = ANDERSON
    max_steps: int = 200
    patience: int = 40
    margin: float = 0.3
    safe_condition: float = 1e-9

    def __post_init__(self) -> None:
        require_positive_fields(self)


DEFAULTS = SplittingOptions()


class Split(NamedTuple):
    """Where the splitting stopped: the logits with their decomposition, and the work done."""

    logits: BlockMatrix
    bias: Array
    certificate: Certificate
    history: tuple[Round, ...]


class _Shrunk(NamedTuple):
    """What the norm's proximal map gives: a matrix, its values and right vectors, and margins."""

    values: Array
    right: Array
    matrix: Array
    within: Array


def split(
    problem: Problem,
    start: tuple[BlockMatrix, Array],
    tol: float,
    max_iterations: int,
    options: SplittingOptions = DEFAULTS,
) -> Split:
    """Minimise the convex form from a start until the certified gap is within the tolerance.

    Or until it no longer falls, or the iterations are used up.

    Parameters
    ----------
    problem : Problem
        One linear layer, real features, wide enough.
    start : tuple
        Logits, over the partition to be used, and a bias of shape (G,).
    tol : float
        Relative to the objective.
    max_iterations : int
    options : SplittingOptions
    """
    f = _Splitting(problem, *start, options)
    del start  # large matrices are held no longer than needed, here and below
    accelerated = Anderson(options.anderson, f.governing)
    wanted, best, since = options.margin * tol, np.inf, 0
    history: list[Round] = []
    last, step = None, 0
    while True:
        point = f.shrink()
        gap = f.estimated_gap(point)
        if gap < best / 2:
            best, since = gap, step
        done = step >= min(options.max_steps, max_iterations) or step - since > options.patience
        if gap <= wanted or done:
            logits, bias, certificate = f.certified(point, tol)
            rank = len(point.values)
            history.append(Round(step, certificate.primal, certificate.dual, rank))
            if done or certificate.gap <= tol * certificate.primal:
                return Split(logits, bias, certificate, tuple(history))
            del logits
            wanted *= options.margin
        f.fit_columns(point)
        move = f.move(point)
        balance = step and step % options.adapt_every == 0 and step <= options.adapt_until
        change = f.imbalance(point, last, move) if balance and last is not None else 1.0
        last = point.matrix if (step + 1) % options.adapt_every == 0 else None
        if change != 1.0:
            f.rescale(point, change)
            f.governing = f.governing + move
            accelerated.forget()
        else:
            f.governing = accelerated.next(f.governing, move)
        del point, move
        step += 1


class _Splitting:
    """The iteration's state: X, margins and bias of the data fit's side, and what governs it.

    The governing vector holds a matrix and the margins, these in units in which the vector's length
    is that of the K x K matrix it stands for.
    """

    def __init__(
        self, problem: Problem, start: BlockMatrix, bias: Array, options: SplittingOptions
    ) -> None:
        self.problem, self.options = problem, options
        self.partition = p = start.partition
        self.fit = problem.loss_object.datafit(p)
        self.decay = problem.logit_decay
        self.root = np.sqrt(p.counts)
        # Whether a group's margin is positive does not depend on the rest, without class margins.
        most = p.pull_range[1]
        merged = at_most(most / p.num_samples, self.decay)
        self.active: NDArray[np.bool_] = (p.sizes > 1) & ~merged
        self.unit = np.where(self.active, self.root * np.sqrt(p.sizes - 1), 0.0)
        self.has_bias = problem.bias != "none"
        self.bias = bias
        self.matrix = start.reduced
        self.rank = p.num_groups
        self.within = np.where(self.active, np.maximum(start.within, 0.0), 0.0)
        collapse = float(most.max()) / p.num_samples
        curvature = float(p.loss_shares.sum()) / p.num_samples
        share = options.first_share
        if problem.loss_object.is_quadratic:
            share = options.square_share
        elif problem.bias == "free" or p.adjustment.any():
            share = options.far_share
        elif problem.bias == "none":
            # Classes of a group share its curvature: where there are many, it is less.
            share *= min(1.0, max(0.3, options.crowd * p.num_groups / p.num_classes))
        self.penalty = share * min(1.0, self.decay / collapse) * curvature
        residual = self.fit.residual(self.within, start.mean + bias[:, None])
        reach = 1 / (self.penalty * p.num_samples)
        self.governing = np.empty(p.num_groups**2 + p.num_groups)
        self.governed[:] = self.matrix - reach * residual.reduced
        self.governing[p.num_groups**2 :] = self.unit * (self.within - reach * residual.within)

    @property
    def governed(self) -> Array:
        """The governing vector's matrix, a view."""
        g = self.partition.num_groups
        return self.governing[: g * g].reshape(g, g)

    def shrink(self) -> _Shrunk:
        """Shrink singular values and margins by the decay: the norm's proximal map."""
        matrix, size = self.governed, self.decay / self.penalty
        squares, vectors = self._leading(matrix.T @ matrix, size**2)
        values = np.sqrt(squares[::-1])
        vectors = vectors[:, ::-1]
        self.rank = len(values)
        left = matrix @ vectors
        left /= values
        values -= size
        left *= values
        right = vectors.T
        margins = self._margins()
        within = np.where(self.active, np.maximum(margins - size / self.root, 0.0), 0.0)
        return _Shrunk(values, right, left @ right, within)

    def _leading(self, gram: Array, least: float) -> tuple[Array, Array]:
        """Return the eigenvalues above a number, ascending, and their vectors."""
        if self.rank <= self.options.few * len(gram):
            return eigenpairs_above(gram, least)
        return all_above(gram, least)

    def _margins(self) -> Array:
        g = self.partition.num_groups
        margins: Array = self.governing[g * g :] / np.where(self.active, self.unit, 1.0)
        return margins

    def estimated_gap(self, point: _Shrunk) -> float:
        """Estimate the relative gap: what SVT cuts off is a dual point of feasible norm."""
        problem, p = self.problem, self.partition
        primal = self.fit.value(point.within, point.matrix / p.scale + self.bias[:, None])
        primal += self.decay * float(point.values.sum() + self.unit**2 / self.root @ point.within)
        primal += problem.bias_decay / 2 * float(p.sizes @ self.bias**2)
        reach = self.decay * p.num_samples / self.root
        cut = self.penalty * p.num_samples
        reduced = cut * (point.matrix - self.governed)
        if problem.loss_object.ignores_constants:
            reduced -= np.outer(p.ignored, p.ignored @ reduced)
        if problem.bias == "free":
            counts = np.sqrt(p.shares)
            reduced -= np.outer(reduced @ counts, counts)
        within = np.where(
            self.active,
            np.clip(cut * (point.within - self._margins()), -reach, reach),
            np.where(p.sizes > 1, -np.minimum(self._pull(point), reach), 0.0),
        )
        reduced /= p.scale
        residual = BlockMatrix(p, within, reduced)
        dual = self.fit.dual_value(residual)
        if dual == -np.inf:
            residual = self.fit.restrict(residual)
            dual = self.fit.dual_value(residual)
        if problem.bias == "decayed":
            dual -= float(p.sizes @ residual.row_average**2) / (2 * problem.bias_decay)
        gap = (primal - dual) / primal
        return abs(gap) if np.isfinite(gap) else np.inf

    def _pull(self, point: _Shrunk) -> Array:
        """Return what tears merged siblings apart: by their residuals."""
        p = self.partition
        if p.labels is None:
            return p.weights * p.scales
        scores = point.matrix / p.scale + self.bias[:, None]
        pull: Array = -self.fit.residual(point.within, scores).within
        return pull

    def certified(self, point: _Shrunk, tol: float) -> tuple[BlockMatrix, Array, Certificate]:
        """Return the point's logits and bias with their certificate."""
        p = self.partition
        values, right = point.values, point.right
        before = values + self.decay / self.penalty
        if len(values) and (before[-1] / before[0]) ** 2 > self.options.safe_condition:
            left = self.governed @ right.T
            left /= before
            # One step of Newton and Schulz makes the left vectors orthonormal to rounding.
            change = left @ (left.T @ left)
            change *= 0.5
            left *= 1.5
            left -= change
            del change
            logits = BlockMatrix.from_svd(p, point.within, left, values, right)
        else:
            logits = BlockMatrix(p, point.within, point.matrix / p.scale)
        bias = without_constant(self.problem, self.bias, p)
        certificate = certify_blocks(self.problem, logits, bias, enough=tol)
        return logits, bias, certificate

    def fit_columns(self, point: _Shrunk) -> None:
        """Take a Newton step of the data fit's proximal map, bias included, from where it stands.

        The target is ``2 point - governing``. With ``total`` the change of scores and bias, own
        scores counted with the slope of their margin, the Hessian of every column is
        ``diag(curvature + pull) - share q q^T``; margins, and then the bias, are eliminated.
        """
        p, own, penalty = self.partition, self.fit.groups, self.penalty
        scale = p.scale
        model = self.fit.columns(self.within, self.matrix / scale + self.bias[:, None])
        slope = np.where(self.active, model.slope, 0.0)
        force = self.matrix - 2 * point.matrix
        force += self.governed
        force *= penalty * scale
        pull = penalty * scale**2
        margin_pull = penalty * self.unit**2
        margin_force = margin_pull * (self.within - 2 * point.within + self._margins())
        gradient = model.by_score
        gradient += force
        if not self.has_bias:
            del force  # ten such matrices at a time would be most of the memory that a solve takes
        by_margin = model.by_margin + margin_force - slope * gradient[own, own]
        by_margin = np.where(self.active, by_margin, 0.0)
        own_pull = pull[own, own]
        bend = np.where(self.active, model.bend + margin_pull, 1.0)
        stiff = bend + slope**2 * own_pull
        pull[own, own] = own_pull * bend / stiff
        through_margin = own_pull * slope * by_margin / stiff
        gradient[own, own] += through_margin
        curvature, q, share = model.curvature, model.direction, model.share
        del model
        inverse = curvature + pull
        if not self.has_bias:
            del curvature
        np.divide(1, inverse, out=inverse)
        total = gradient
        total *= inverse
        total *= -1
        spread, gain = None, np.zeros(p.num_groups)
        if q is not None:
            spread = q * inverse
            # One less the share of q^T inverse q, without cancellation: q over scales sums to one.
            held = pull / p.scales[:, None] if p.is_scaled else pull
            gain = share / np.einsum("ji,ji->i", spread, held)
            _add(total, spread, gain * np.einsum("ji,ji->i", q, total))
        shift = np.zeros(p.num_groups)
        if self.has_bias:
            bias_cost = self.problem.bias_decay * p.sizes
            wanted = force.sum(axis=1) + np.einsum("ji,ji->j", pull, total)
            wanted += through_margin - bias_cost * self.bias
            inverse *= pull
            system = np.diag(np.einsum("ji,ji->j", inverse, curvature) + bias_cost)
            if spread is not None:
                pulled = pull * spread
                system -= (pulled * gain) @ pulled.T
            if not self.problem.bias_decay and self.problem.loss_object.ignores_constants:
                system += np.trace(system) / len(system) ** 2
            shift = np.linalg.solve(system, wanted)
            inverse *= shift[:, None]
            total += inverse
            if spread is not None and q is not None:
                _add(total, spread, gain * np.einsum("ji,ji->i", q, inverse))
        margin_step = (slope * own_pull * (total[own, own] - shift) - by_margin) / stiff
        margin_step = np.where(self.active, margin_step, 0.0)
        step = total
        step -= shift[:, None]
        step[own, own] -= slope * margin_step
        longest = np.maximum(step.max(axis=0), -step.min(axis=0))
        cut = np.minimum(1.0, self.options.longest_step / np.maximum(longest, 1e-300))
        if self.has_bias:
            # Columns of different length would not fit the bias, which all share.
            farthest = max(float(longest.max()), float(np.abs(shift).max()))
            cut = np.full_like(cut, min(1.0, self.options.longest_step / max(farthest, 1e-300)))
            shift = shift * cut
        step *= scale
        _add(self.matrix, step, cut)
        self.within = self.within + cut * margin_step
        self.bias = self.bias + shift

    def move(self, point: _Shrunk) -> Array:
        """Return how far the two sides are apart: the governing vector's step."""
        margins = self.unit * (self.within - point.within)
        return np.concatenate([(self.matrix - point.matrix).ravel(), margins])

    def imbalance(self, point: _Shrunk, last: Array, move: Array) -> float:
        """Return by what factor the penalty should change: primal over dual residual, the root."""
        size = float(np.linalg.norm(point.matrix))
        dual_size = float(np.linalg.norm(self.governed - point.matrix))
        primal = float(np.linalg.norm(move)) / max(size, 1e-300)
        dual = float(np.linalg.norm(point.matrix - last)) / max(dual_size, 1e-300)
        if primal == 0 or dual == 0:
            return 1.0
        o = self.options
        change = min(max((primal / dual) ** 0.5, 1 / o.longest_change), o.longest_change)
        return change if not 1 / o.band <= change <= o.band else 1.0

    def rescale(self, point: _Shrunk, change: float) -> None:
        """Multiply the penalty, at the same dual point."""
        g = self.partition.num_groups
        self.penalty *= change
        self.governing = self.governing / change
        self.governed[:] += (1 - 1 / change) * point.matrix
        self.governing[g * g :] += (1 - 1 / change) * self.unit * point.within


def _add(matrix: Array, change: Array, factors: Array) -> None:
    """Add a matrix with its columns times factors, in place, some rows at a time."""
    height = max(1, PART // len(factors))
    for start in range(0, len(matrix), height):
        rows = slice(start, start + height)
        matrix[rows] += change[rows] * factors
