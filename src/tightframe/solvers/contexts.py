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
from tightframe.geometry.eigen import all_above, eigenpairs_above
from tightframe.solvers.anderson import Anderson, AndersonOptions
from tightframe.solvers.stats import Round
from tightframe.theory.contexts.certificate import (
    Bounds,
    bias_alone,
    certify_nothing,
    certify_with,
    collapse_decay,
    without_constant,
)
from tightframe.theory.contexts.form import Array, ContextForm, Factors
from tightframe.theory.contexts.symmetry import CellFactors, SymmetricForm

Floats = NDArray[Any]

ANDERSON = AndersonOptions()


@dataclass(frozen=True)
class ContextOptions:
    """How the solver is tuned; the answer's certificate does not depend on it. Measured.

    Attributes
    ----------
    first_share : float
        The first penalty, in units of the data fit's curvature times the decay's share of the one
        at which everything collapses.
    adapt_every, adapt_until : int
        The penalty may be balanced after every so many steps, up to so many.
    slow : float
        It is where the estimated gap is above this share of that so many steps ago.
    band, longest_change : float
        It is left alone within a factor of the former, and changes by the latter at most.
    few : float
        Where the last rank was below this share of all, only those eigenvectors are computed.
    anderson : AndersonOptions
        The acceleration.
    check_every : int
        The gap is estimated after every so many steps.
    patience : int
        Steps in which the estimate must halve.
    margin : float
        A certificate is asked for at this share of the tolerance.
    single_size : int
        Problems of at least so many entries begin in single precision.
    single_gap : float
        Below this estimated gap they go on in double precision.
    rough : float
        So they do where the certified gap is more than so many times the estimated one.
    retries : tuple of float
        Penalties, in units of the first, that are tried in turn where the estimate has stalled.

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    first_share: float = 0.1
    adapt_every: int = 10
    adapt_until: int = 100
    slow: float = 0.5
    band: float = 1.25
    longest_change: float = 2.5
    few: float = 0.3
    anderson: AndersonOptions = ANDERSON
    check_every: int = 5
    patience: int = 40
    margin: float = 0.3
    single_size: int = 400_000
    single_gap: float = 1e-7
    rough: float = 3.0
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

    x: Factors | CellFactors
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
        bounds = certify_nothing(form, bias, enough=tol)
        if bounds.primal - bounds.dual <= tol * bounds.primal:
            history = (Round(0, bounds.primal, bounds.dual, 0),)
            m, v = form.shape[0], len(form.label_weights)
            nothing = Factors(np.zeros((m, 0)), np.zeros(0), np.zeros((v, 0)))
            x = _whole(form, nothing, form.within(np.zeros(form.shape))[0])
            return Found(x, bias, bounds, history, True, None)
    return _iterate(_Splitting(form, collapse, start, options), tol, max_iterations)


def _iterate(f: _Splitting, tol: float, max_iterations: int) -> Found:
    o, form = f.options, f.form
    accelerated = Anderson(o.anderson, f.state)
    wanted, best, since, dual = o.margin * tol, np.inf, 0, 0.0
    gap = before = np.inf
    history: list[Round] = []
    found: Found | None = None
    last: Floats | None = None
    step = tries = 0
    rough = False
    while True:
        if rough and f.is_single:
            # Continued from the same point: nothing is lost.
            f.to_double()
            accelerated = Anderson(o.anderson, f.state)
            wanted, last, best, since = o.margin * tol, None, gap, step
        point = f.shrink()
        stop = step >= max_iterations
        if step % o.check_every == 0 or stop:
            gap = f.estimated_gap(point)
            if gap < best / 2:
                best, since = gap, step
            stalled = step - since > o.patience
            rough = stalled or wanted < gap <= o.single_gap
            if rough and f.is_single:
                continue
            if gap <= wanted or stop or stalled:
                x, bias = f.answer(point)
                bounds = certify_with(form, x, bias, f.residual(point), enough=tol)
                dual = max(dual, bounds.dual)
                bounds = bounds._replace(dual=min(dual, bounds.primal))
                history.append(Round(step, bounds.primal, bounds.dual, x.rank))
                certified = bounds.primal - bounds.dual
                if found is None or certified <= found.bounds.primal - found.bounds.dual:
                    found = Found(x, bias, bounds, tuple(history), False, None)
                done = certified <= tol * bounds.primal
                if done or stop or (stalled and tries == len(o.retries)):
                    state = State(f.governing, f.bias, f.penalty, form.decay)
                    return found._replace(history=tuple(history), state=state)
                if stalled:
                    # Balanced for where it was, the penalty may hold it there.
                    f.rescale(point, f.first_penalty * o.retries[tries] / f.penalty)
                    accelerated = Anderson(o.anderson, f.state)
                    tries, last, best, since = tries + 1, None, np.inf, step
                    continue
                wanted *= o.margin
                rough = certified > o.rough * gap * bounds.primal
        f.fit_rows(point)
        move = f.move(point)
        if last is not None:
            if gap > o.slow * before:
                f.rescale(point, f.imbalance(point, last, move))
            before = gap
        due = (step + 1) % o.adapt_every == 0 and step < o.adapt_until
        last = point.matrix if due else None
        f.moved_to(accelerated.next(f.state, move))
        step += 1


class _Shrunk(NamedTuple):
    """What the norm's proximal map gives: X, and as ``tall wide^T`` and what deviates inside."""

    matrix: Floats
    tall: Floats
    values: Array
    wide: Floats
    deviations: Floats | None
    norm: float


def _whole(form: ContextForm, factors: Factors, deviations: Floats | None) -> Factors | CellFactors:
    if deviations is None:
        return factors
    assert isinstance(form, SymmetricForm)
    return CellFactors(form, factors, deviations.astype(np.float64))


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
        self.rank = min(m, len(form.label_weights))
        self.root_label = np.sqrt(form.label_weights)
        self.root_context = np.sqrt(form.feature_weights)
        self.length = float(np.linalg.norm(self.root_context))
        if start is None:
            curvature = (
                float(form.weights @ (form.weights / form.feature_weights)) / form.weights.sum()
            )
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
        return self.form.lifted(np.outer(self.root_context, self.root_label * self.bias)).astype(
            kind
        )

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
            part[:] = -form.shared(q, rows)
            form.add_targets(part, rows, 1.0)
            part *= factor[rows, None].astype(kind)
            part *= form.scale_at(rows).astype(kind)
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
            along = axis @ form.between(u)
            if form.bias == "free":
                self.bias = (along / self.length / self.root_label).astype(np.float64)
            u = u - self._bias_part(u.dtype)
        point = self._threshold(u, size)
        if form.bias == "decayed":
            # X and bias in turn, once a step.
            rest = along.astype(np.float64) - (axis @ form.between(point.matrix))
            share = self.penalty * self.length / (self.penalty * self.length**2 + form.bias_decay)
            self.before, self.bias = self.bias, share * rest / self.root_label
        return point

    def _threshold(self, matrix: Floats, size: float) -> _Shrunk:
        form, u = self.form, self.form.between(matrix)
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
        values -= size
        shrunk, norm = form.lifted(tall @ wide.T), float(values.sum())
        deviations, lengths = form.within(matrix)
        if deviations is not None:
            least = size * form.within_costs
            kept = np.maximum(lengths - least, 0.0)
            deviations *= form.in_cells(kept / np.maximum(lengths, 1e-300)).astype(u.dtype)
            shrunk += deviations
            norm += float(form.within_costs @ kept)
        return _Shrunk(shrunk, tall, values, wide, deviations, norm)

    def _leading(self, gram: Floats, least: float) -> tuple[Floats, Floats]:
        """Return the eigenvalues above a number, ascending, and their vectors."""
        if self.rank <= self.options.few * len(gram):
            return eigenpairs_above(gram, least)
        return all_above(gram, least)

    def fit_rows(self, point: _Shrunk) -> None:
        """Take a Newton step of the data fit's proximal map from where it stands.

        The target is ``2 (point + bias part) - governing``; in place, a block at a time.
        """
        form, x = self.form, self.fitted
        kind = x.dtype
        has_bias = form.bias != "none"
        moved = (self.root_label * self.bias).astype(kind)
        penalty = kind.type(self.penalty)
        for rows in form.blocks():
            here, label_scale = x[rows], form.scale_at(rows).astype(kind)
            context_scale = form.context_scale[rows, None].astype(kind)
            slope = (form.weights * form.context_scale)[rows, None].astype(kind)
            q = here * context_scale
            q *= label_scale
            q += form.shifts_at(rows).astype(kind)
            q -= q.max(axis=1, keepdims=True)
            np.exp(q, out=q)
            q /= q.sum(axis=1, keepdims=True)
            gradient = q * slope
            form.add_targets(gradient, rows, -(form.weights * form.context_scale)[rows])
            gradient *= label_scale
            pull = here - 2 * point.matrix[rows]
            pull += self.governing[rows]
            if has_bias:
                pull -= form.lifted(
                    np.outer((2 * self.root_context[rows]).astype(kind), moved), rows
                )
            pull *= penalty
            gradient += pull
            unscaled = q.copy()
            q *= label_scale
            inverse = q * (slope * context_scale)
            inverse *= label_scale
            inverse += penalty
            np.divide(1, inverse, out=inverse)
            gradient *= inverse  # the step, but for its sign and the rank-one part
            # One less the share of q^T inverse q, without cancellation: q sums to one.
            gain = penalty * np.einsum("jv,jv->j", unscaled, inverse)
            gain = slope[:, 0] * context_scale[:, 0] * np.einsum("jv,jv->j", q, gradient) / gain
            q *= inverse
            q *= gain[:, None]
            gradient += q
            # The loss's curvature changes along a step by at most its factor to the power of the
            # range of logits that it moves: so damped, a step surely descends.
            np.multiply(gradient, label_scale, out=q)
            reach = q.max(axis=1) - q.min(axis=1)
            reach *= context_scale[:, 0]
            reach = np.maximum(reach, 1)
            gradient *= (np.log2(1 + reach) / reach)[:, None]
            here -= gradient

    @property
    def state(self) -> Floats:
        """The governing matrix, and as one more row a decayed bias, in the matrix's units."""
        if self.form.bias != "decayed":
            return self.governing
        return self._with_row(self.governing, self.before)

    def _with_row(self, matrix: Floats, bias: Array) -> Floats:
        row = np.zeros((1, matrix.shape[1]), dtype=matrix.dtype)
        row[0, : len(bias)] = self.length * self.root_label * bias
        return np.concatenate([matrix, row])

    def moved_to(self, state: Floats) -> None:
        """Take the next state."""
        if self.form.bias == "decayed":
            row = state[-1, : len(self.bias)].astype(np.float64)
            self.bias = row / self.length / self.root_label
            state = state[:-1]
        self.governing = state

    def move(self, point: _Shrunk) -> Floats:
        """Return how far the two sides are apart: the state's step."""
        move: Floats = self.fitted - point.matrix
        if self.form.bias != "none":
            move -= self._bias_part(move.dtype)
        if self.form.bias == "decayed":
            move = self._with_row(move, self.bias - self.before)
        return move

    def estimated_gap(self, point: _Shrunk) -> float:
        """Estimate the relative gap: what SVT cuts off is a dual point of feasible norm."""
        form = self.form
        primal = form.decay * point.norm
        primal += form.bias_decay / 2 * float(form.label_weights @ self.bias**2)
        dual = 0.0
        cells_sum = np.zeros(form.shape[1])
        moved = self.root_label * self.bias
        for rows in form.blocks():
            x = point.matrix[rows].astype(np.float64)
            cut = x - self.governing[rows]
            if form.bias != "none":
                cut += form.lifted(np.outer(self.root_context[rows], moved), rows)
            x *= form.context_scale[rows, None]
            x *= form.scale_at(rows)
            x += form.in_cells(self.bias) + form.shifts_at(rows)
            x -= x.max(axis=1, keepdims=True)
            fit = form.target_dot(x, rows)
            np.exp(x, out=x)
            weights = form.weights[rows]
            primal += float(weights @ (np.log(x.sum(axis=1)) - fit))
            axis = form.axis_at(rows)
            cut -= np.einsum("jv,jv->j", cut, np.broadcast_to(axis, cut.shape))[:, None] * axis
            cut *= self.penalty * form.roots_at(rows)
            cut /= (form.weights * form.context_scale)[rows, None]
            form.add_targets(cut, rows, 1.0)
            np.maximum(cut, 0, out=cut)
            cut /= cut.sum(axis=1, keepdims=True)
            logs = np.log(np.maximum(cut, 1e-300))
            dual -= float(weights @ np.einsum("jv,jv->j", cut, logs))
            dual += form.spread_gain(cut, rows)[0]
            cells_sum += weights @ cut
        rows_sum = form.grouped(cells_sum)
        rows_sum -= form.marginal
        dual += float(rows_sum @ form.shifts)
        if form.bias == "decayed":
            dual -= float(form.label_scale**2 @ rows_sum**2) / (2 * form.bias_decay)
        elif form.bias == "free":
            dual -= float(rows_sum @ -self.bias)
        gap = (primal - dual) / primal
        return abs(gap) if np.isfinite(gap) else np.inf

    def answer(self, point: _Shrunk) -> tuple[Factors | CellFactors, Array]:
        """Return the point in orthonormal factors, and the bias, in double precision."""
        between = Factors.of_product(point.tall.astype(np.float64), point.wide.astype(np.float64))
        x = _whole(self.form, between, point.deviations)
        return x, without_constant(self.form, self.bias)

    def residual(self, point: _Shrunk) -> Array:
        """Return the dual point that the norm's side has, as `certify_with` takes it."""
        cut: Array = point.matrix.astype(np.float64)
        cut -= self.governing
        if self.form.bias != "none":
            cut += self._bias_part(np.float64)
        cut *= self.penalty
        return cut

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
        if change == 1.0:
            return
        self.penalty *= change
        base = point.matrix + self._bias_part(self.governing.dtype)
        self.governing = base + (self.governing - base) / self.governing.dtype.type(change)
