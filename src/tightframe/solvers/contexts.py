"""The solver of contexts with label distributions: Douglas-Rachford, a Newton step a column.

The data fit falls apart into one small problem a context, whose Hessian is a diagonal less a
rank-one matrix: one Newton step from the last iterate is enough. The norm's proximal map, singular
value thresholding (SVT), takes one eigendecomposition of the smaller Gram matrix and finds the rank
by itself. A bias moves X along one direction, the root of the feature weights: a free one is left
out of the norm by a projection, a decayed one is shrunk beside it. Anderson's acceleration keeps
the steps to some hundred at any size, rank and decay. Large problems are iterated in single
precision until that says no more; the certificate is in double precision always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import require_positive_fields
from tightframe.geometry.eigen import eigenpairs_above
from tightframe.solvers.stats import Round
from tightframe.theory.contexts.certificate import (
    Bounds,
    Factors,
    bias_alone,
    certify_factors,
    collapse_decay,
    without_constant,
)
from tightframe.theory.contexts.form import Array, ContextForm

Floats = NDArray[Any]


@dataclass(frozen=True)
class ContextOptions:
    """How the solver is tuned; the answer's certificate does not depend on it. Measured.

    Attributes
    ----------
    first_share : float
        The first penalty, in units of the data fit's curvature times the decay's share of the one
        at which everything collapses.
    adapt_every, adapt_until : int
        The penalty is balanced after every so many steps, up to so many.
    band, longest_change : float
        It is left alone within a factor of the former, and changes by the latter at most.
    few : float
        Where the last rank was below this share of all, only those eigenvectors are computed.
    memory : int
        Steps that Anderson's acceleration combines.
    memory_bytes : float
        Of those it keeps fewer where they take more than this.
    ridge : float
        Relative, of its normal equations.
    restart : float
        It forgets where the residual grows by more than this.
    falling, idle
        Where the residual has not fallen to the former share of its least in so many steps, as many
        plain steps follow.
    check_every : int
        The gap is estimated after every so many steps.
    patience : int
        Steps in which the estimate must halve.
    margin : float
        A certificate is asked for at this share of the tolerance.
    single_size : int
        Problems of at least so many entries begin in single precision.
    retries : tuple of float
        Penalties, in units of the first, that are tried in turn where the estimate has stalled.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    first_share: float = 0.1
    adapt_every: int = 10
    adapt_until: int = 50
    band: float = 1.25
    longest_change: float = 2.5
    few: float = 0.3
    memory: int = 5
    memory_bytes: float = 8e8
    ridge: float = 1e-7
    restart: float = 2.0
    falling: float = 0.9
    idle: int = 10
    check_every: int = 5
    patience: int = 40
    margin: float = 0.3
    single_size: int = 400_000
    retries: tuple[float, ...] = (1.0, 0.2, 5.0)

    def __post_init__(self) -> None:
        require_positive_fields(self)


DEFAULTS = ContextOptions()


class State(NamedTuple):
    """What a warm start needs: the governing matrix (m, V), the bias and the penalty."""

    governing: Floats
    bias: Array
    penalty: float
    decay: float


class Found(NamedTuple):
    """Where the solver stopped: X in factors, the bias, the certificate and the work done."""

    x: Factors
    bias: Array
    bounds: Bounds
    history: tuple[Round, ...]
    collapsed: bool
    state: State | None


def minimise_contexts(
    form: ContextForm,
    tol: float,
    max_iterations: int,
    start: State | None = None,
    options: ContextOptions = DEFAULTS,
) -> Found:
    """Minimise a form until its certified gap is within the tolerance, or no longer falls.

    Parameters
    ----------
    form : ContextForm
        Best `merged`.
    tol : float
        Relative to the objective.
    max_iterations : int
    start : State, optional
        Of a form that differs in its decay only.
    options : ContextOptions
    """
    collapse, bias = collapse_decay(form)
    if collapse <= form.decay:
        m, v = form.shape
        nothing = Factors(np.zeros((m, 0)), np.zeros(0), np.zeros((v, 0)))
        bounds = certify_factors(form, nothing, bias, enough=tol)
        if bounds.primal - bounds.dual <= tol * bounds.primal:
            history = (Round(0, bounds.primal, bounds.dual, 0),)
            return Found(nothing, bias, bounds, history, True, None)
    return _iterate(_Splitting(form, collapse, start, options), tol, max_iterations)


def _iterate(f: _Splitting, tol: float, max_iterations: int) -> Found:
    o, form = f.options, f.form
    accelerated = _Anderson(o, f.state)
    wanted, best, since = o.margin * tol, np.inf, 0
    history: list[Round] = []
    found: Found | None = None
    last: Floats | None = None
    step = tries = 0
    while True:
        point = f.shrink()
        stop = step >= max_iterations
        if step % o.check_every == 0 or stop:
            gap = f.estimated_gap(point)
            if gap < best / 2:
                best, since = gap, step
            stalled = step - since > o.patience
            if gap <= wanted or stop or stalled:
                x, bias = f.answer(point)
                bounds = certify_factors(form, x, bias, enough=tol)
                history.append(Round(step, bounds.primal, bounds.dual, x.rank))
                certified = bounds.primal - bounds.dual
                if found is None or certified <= found.bounds.primal - found.bounds.dual:
                    found = Found(x, bias, bounds, tuple(history), False, None)
                done = certified <= tol * bounds.primal
                if done or stop or (stalled and not f.is_single and tries == len(o.retries)):
                    state = State(f.governing, f.bias, f.penalty, form.decay)
                    return found._replace(history=tuple(history), state=state)
                if f.is_single and (stalled or certified > 2 * gap * bounds.primal):
                    # Continued from the same point: nothing is lost.
                    f.to_double()
                    accelerated = _Anderson(o, f.state)
                    last, best, since = None, gap, step
                    continue
                if stalled:
                    # Balanced for where it was, the penalty may hold it there.
                    f.rescale(point, f.first_penalty * o.retries[tries] / f.penalty)
                    accelerated = _Anderson(o, f.state)
                    tries, last, best, since = tries + 1, None, np.inf, step
                    continue
                wanted *= o.margin
        f.fit_rows(point)
        move = f.move(point)
        settling = step <= o.adapt_until
        if settling and step and step % o.adapt_every == 0 and last is not None:
            change = f.imbalance(point, last, move)
            if change != 1.0:
                f.rescale(point, change)
        last = point.matrix if settling and (step + 1) % o.adapt_every == 0 else None
        f.moved_to(accelerated.next(f.state, move))
        step += 1


class _Shrunk(NamedTuple):
    """What the norm's proximal map gives: X as a matrix, and as ``tall wide^T``."""

    matrix: Floats
    tall: Floats
    values: Array
    wide: Floats


class _Splitting:
    """The iteration's state: X of the data fit's side, the bias, and what governs both.

    ``fitted`` is X with the bias, ``sqrt(omega) (B^{1/2} b)^T``, as the data fit sees it.
    """

    def __init__(
        self, form: ContextForm, collapse: float, start: State | None, options: ContextOptions
    ) -> None:
        self.form, self.options = form, options
        m, v = form.shape
        kind = np.float32 if m * v >= options.single_size else np.float64
        self.rank = min(m, v)
        self.root_label = np.sqrt(form.label_weights)
        self.root_context = np.sqrt(form.feature_weights)
        self.length = float(np.linalg.norm(self.root_context))
        if start is None:
            curvature = float(form.weights.sum() / form.feature_weights.sum())
            share = options.first_share * min(1.0, form.decay / max(collapse, 1e-300))
            self.penalty = share * curvature
            self.bias = self.before = bias_alone(form)
            self.fitted = np.zeros((m, v), dtype=kind)
            self.governing = self._first_governing(kind)
        else:
            self.bias = self.before = start.bias
            self.governing = start.governing.astype(kind)
            self.fitted = self.governing.copy()
            self.penalty = start.penalty
        self.first_penalty = self.penalty
        if start is not None:
            point = self.shrink()
            self.fitted = point.matrix + self._bias_part(kind)

    @property
    def is_single(self) -> bool:
        """Whether the iteration is in single precision."""
        return self.governing.dtype == np.float32

    def to_double(self) -> None:
        """Go on in double precision."""
        self.governing = self.governing.astype(np.float64)
        self.fitted = self.fitted.astype(np.float64)

    def _bias_part(self, kind: Any) -> Floats:
        if self.form.bias == "none":
            return np.zeros(1, dtype=kind)
        return np.outer(self.root_context, self.root_label * self.bias).astype(kind)

    def _first_governing(self, kind: Any) -> Floats:
        """Return X = 0 with its bias less the loss's slope there, over the penalty."""
        form = self.form
        self.fitted += self._bias_part(kind)
        q = np.exp(self.bias + form.shifts - np.max(self.bias + form.shifts))
        q /= q.sum()
        governing = np.empty(form.shape, dtype=kind)
        factor = form.weights * form.context_scale / self.penalty
        for rows in form.blocks():
            part = governing[rows]
            part[:] = -q
            form.add_targets(part, rows, 1.0)
            part *= factor[rows, None].astype(kind)
            part *= form.label_scale.astype(kind)
        governing += self.fitted
        return governing

    def shrink(self) -> _Shrunk:
        """Shrink singular values, and the bias beside them: the norm's proximal map.

        ``governing = X + bias part + dual / penalty``. With a free bias, X has no part along the
        context axis; a decayed bias takes its share of what X leaves of that.
        """
        form, u = self.form, self.governing
        size = form.decay / self.penalty
        if form.bias != "none":
            axis = form.context_axis.astype(u.dtype)
            along = axis @ u
            if form.bias == "free":
                self.bias = (along / self.length / self.root_label).astype(np.float64)
            u = u - self._bias_part(u.dtype)
        point = self._threshold(u, size)
        if form.bias == "decayed":
            # X and bias in turn, once a step.
            rest = along.astype(np.float64) - (axis @ point.matrix).astype(np.float64)
            share = self.penalty * self.length / (self.penalty * self.length**2 + form.bias_decay)
            self.before, self.bias = self.bias, share * rest / self.root_label
        return point

    def _threshold(self, u: Floats, size: float) -> _Shrunk:
        m, v = u.shape
        by_label = m >= v
        gram = u.T @ u if by_label else u @ u.T
        squares, vectors = self._leading(gram, size**2)
        values = np.sqrt(squares[::-1].astype(np.float64))
        vectors = vectors[:, ::-1]
        self.rank = len(values)
        other = u @ vectors if by_label else u.T @ vectors
        other *= (1 - size / values).astype(u.dtype)
        tall, wide = (other, vectors) if by_label else (vectors, other)
        return _Shrunk(tall @ wide.T, tall, values - size, wide)

    def _leading(self, gram: Floats, least: float) -> tuple[Floats, Floats]:
        """Return the eigenvalues above a number, ascending, and their vectors."""
        if self.rank <= self.options.few * len(gram):
            return eigenpairs_above(gram, least)
        squares, vectors = np.linalg.eigh(gram)
        first = int(np.searchsorted(squares, least, side="right"))
        return squares[first:], vectors[:, first:]

    def fit_rows(self, point: _Shrunk) -> None:
        """Take a Newton step of the data fit's proximal map from where it stands.

        The target is ``2 (point + bias part) - governing``; in place, a block at a time.
        """
        form, x = self.form, self.fitted
        kind = x.dtype
        has_bias = form.bias != "none"
        moved = (self.root_label * self.bias).astype(kind)
        shifts, penalty = form.shifts.astype(kind), kind.type(self.penalty)
        label_scale = form.label_scale.astype(kind)
        for rows in form.blocks():
            here = x[rows]
            context_scale = form.context_scale[rows, None].astype(kind)
            slope = (form.weights * form.context_scale)[rows, None].astype(kind)
            q = here * context_scale
            q *= label_scale
            q += shifts
            q -= q.max(axis=1, keepdims=True)
            np.exp(q, out=q)
            q /= q.sum(axis=1, keepdims=True)
            gradient = q * slope
            form.add_targets(gradient, rows, -(form.weights * form.context_scale)[rows])
            gradient *= label_scale
            pull = here - 2 * point.matrix[rows]
            pull += self.governing[rows]
            if has_bias:
                pull -= np.outer((2 * self.root_context[rows]).astype(kind), moved)
            pull *= penalty
            gradient += pull
            q *= label_scale
            inverse = q * (slope * context_scale)
            inverse *= label_scale
            inverse += penalty
            np.divide(1, inverse, out=inverse)
            gradient *= inverse  # the step, but for its sign and the rank-one part
            # One less the share of q^T inverse q, without cancellation: q sums to one.
            unscaled = q / label_scale
            gain = penalty * np.einsum("jv,jv->j", unscaled, inverse)
            gain = slope[:, 0] * context_scale[:, 0] * np.einsum("jv,jv->j", q, gradient) / gain
            q *= inverse
            q *= gain[:, None]
            gradient += q
            # The loss's curvature changes along a step by at most its factor to the power of the
            # range of logits that it moves: so damped, a step surely descends.
            reach = gradient.max(axis=1) - gradient.min(axis=1)
            reach *= context_scale[:, 0] * label_scale.max()
            reach = np.maximum(reach, 1)
            gradient *= (np.log2(1 + reach) / reach)[:, None]
            here -= gradient

    @property
    def state(self) -> Floats:
        """The governing matrix, and as one more row a decayed bias, in the matrix's units."""
        if self.form.bias != "decayed":
            return self.governing
        row = self.length * self.root_label * self.before
        return np.concatenate([self.governing, row[None].astype(self.governing.dtype)])

    def moved_to(self, state: Floats) -> None:
        """Take the next state."""
        if self.form.bias == "decayed":
            self.bias = state[-1].astype(np.float64) / self.length / self.root_label
            state = state[:-1]
        self.governing = state

    def move(self, point: _Shrunk) -> Floats:
        """Return how far the two sides are apart: the state's step."""
        move: Floats = self.fitted - point.matrix
        if self.form.bias != "none":
            move -= self._bias_part(move.dtype)
        if self.form.bias == "decayed":
            row = self.length * self.root_label * (self.bias - self.before)
            move = np.concatenate([move, row[None].astype(move.dtype)])
        return move

    def estimated_gap(self, point: _Shrunk) -> float:
        """Estimate the relative gap: what SVT cuts off is a dual point of feasible norm."""
        form = self.form
        primal = form.decay * float(point.values.sum())
        primal += form.bias_decay / 2 * float(form.label_weights @ self.bias**2)
        dual = 0.0
        rows_sum = np.zeros(form.shape[1])
        offset = self.bias + form.shifts
        root = self.root_label
        moved = self.root_label * self.bias
        axis = form.label_axis
        for rows in form.blocks():
            x = point.matrix[rows].astype(np.float64)
            cut = x - self.governing[rows]
            if form.bias != "none":
                cut += np.outer(self.root_context[rows], moved)
            x *= form.context_scale[rows, None]
            x *= form.label_scale
            x += offset
            x -= x.max(axis=1, keepdims=True)
            fit = form.target_dot(x, rows)
            np.exp(x, out=x)
            weights = form.weights[rows]
            primal += float(weights @ (np.log(x.sum(axis=1)) - fit))
            cut -= np.outer(cut @ axis, axis)
            cut *= self.penalty * root
            cut /= (form.weights * form.context_scale)[rows, None]
            form.add_targets(cut, rows, 1.0)
            np.maximum(cut, 0, out=cut)
            cut /= cut.sum(axis=1, keepdims=True)
            logs = np.log(np.maximum(cut, 1e-300))
            dual -= float(weights @ np.einsum("jv,jv->j", cut, logs))
            rows_sum += weights @ cut
        rows_sum -= form.marginal
        dual += float(rows_sum @ form.shifts)
        if form.bias == "decayed":
            dual -= float(form.label_scale**2 @ rows_sum**2) / (2 * form.bias_decay)
        elif form.bias == "free":
            dual -= float(rows_sum @ -self.bias)
        gap = (primal - dual) / primal
        return abs(gap) if np.isfinite(gap) else np.inf

    def answer(self, point: _Shrunk) -> tuple[Factors, Array]:
        """Return the point in orthonormal factors, and the bias, in double precision."""
        x = Factors.of_product(point.tall.astype(np.float64), point.wide.astype(np.float64))
        return x, without_constant(self.form, self.bias)

    def imbalance(self, point: _Shrunk, last: Floats, move: Floats) -> float:
        """Return by what factor the penalty should change: primal over dual residual, the root."""
        size = float(np.linalg.norm(point.matrix))
        dual = self.governing - point.matrix
        if self.form.bias != "none":
            dual -= self._bias_part(dual.dtype)
        dual_size = float(np.linalg.norm(dual))
        primal_rest = float(np.linalg.norm(move)) / max(size, 1e-300)
        dual_rest = float(np.linalg.norm(point.matrix - last)) / max(dual_size, 1e-300)
        if primal_rest == 0 or dual_rest == 0:
            return 1.0
        o = self.options
        change = min(max((primal_rest / dual_rest) ** 0.5, 1 / o.longest_change), o.longest_change)
        return change if not 1 / o.band <= change <= o.band else 1.0

    def rescale(self, point: _Shrunk, change: float) -> None:
        """Multiply the penalty, at the same dual point."""
        self.penalty *= change
        base = point.matrix + self._bias_part(self.governing.dtype)
        self.governing = base + (self.governing - base) / self.governing.dtype.type(change)


class _Anderson:
    """Anderson's acceleration of a fixed-point iteration (type II, least squares of residuals).

    Large differences are held in single precision: they only correct the step. Where the residual
    does not fall, plain steps, which are sure to get on, take over for a while.
    """

    def __init__(self, options: ContextOptions, like: Floats) -> None:
        self.options = options
        self.most = max(1, min(options.memory, int(options.memory_bytes / (8 * like.size))))
        self.kind = np.float32 if like.size >= options.single_size else np.float64
        self.least, self.idle, self.pause = np.inf, 0, 0
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
        self.idle = self.idle + 1 if size > self.options.falling * self.least else 0
        self.least = min(self.least, size)
        if self.idle > self.options.idle:
            self.forget()
            self.idle, self.pause, self.least = 0, self.options.idle, np.inf
        if self.pause:
            self.pause -= 1
            plain: Floats = at + move
            return plain
        if self.last is not None:
            before, last_move = self.last
            if size > self.options.restart * np.linalg.norm(last_move):
                self.forget()
            else:
                change = move - last_move
                self._add(change, at - before + change)
        self.last = at, move
        following: Floats = at + move
        if self.moves:
            single = move.astype(self.kind, copy=False)
            target = np.array([_dot(past, single) for past in self.moves])
            ridge = self.options.ridge * np.trace(self.products)
            system = self.products + ridge * np.eye(len(target))
            for weight, past in zip(np.linalg.solve(system, target), self.sums, strict=True):
                following -= at.dtype.type(weight) * past
        return following

    def _add(self, change: Floats, total: Floats) -> None:
        keep = slice(max(0, len(self.moves) + 1 - self.most), None)
        self.moves = [*self.moves, change.astype(self.kind)][keep]
        self.sums = [*self.sums, total.astype(self.kind)][keep]
        n = len(self.moves)
        products = np.empty((n, n))
        products[:-1, :-1] = self.products[
            len(self.products) - n + 1 :, len(self.products) - n + 1 :
        ]
        products[-1] = products[:, -1] = [_dot(past, self.moves[-1]) for past in self.moves]
        self.products = products


def _dot(a: Floats, b: Floats) -> float:
    return float(np.dot(a.ravel(), b.ravel()))
