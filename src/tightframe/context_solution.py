"""ContextSolution: the minimiser of a problem with label distributions, and what it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import array_of, choice, shortened
from tightframe.geometry.blocks import Array
from tightframe.lazy import needed
from tightframe.problem.problem import Problem
from tightframe.problem.targets import SUM_TOLERANCE
from tightframe.shown import Block, plot
from tightframe.solution import Solution, Status
from tightframe.solvers.context_sweep import ContextSweep
from tightframe.solvers.stats import Stats
from tightframe.theory.contexts.embedding import Embedding, Trained, embedded
from tightframe.theory.contexts.form import BLOCK, ContextForm, Factors, Merged, form_of, merged
from tightframe.theory.contexts.symmetry import CellFactors, Symmetry, symmetry

if TYPE_CHECKING:
    import pandas as pd

Form = TypeVar("Form", bound=ContextForm)

#: Logits of more entries than this are not written out (0.8 GB).
MAX_LOGITS = 10**8

#: More merged entries than this are refused: the solver holds some ten arrays of them.
MAX_ENTRIES = 10**8

#: What only solutions with one class a context have.
_OF_CLASSES = frozenset(
    {"blocks", "group_bias", "group_states", "group_margins", "group_collapsed", "states"}
    | {"margins", "collapsed", "geometry", "grouped_geometry", "averaged"}
)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class ContextSolution(Solution):
    """A minimiser of a `Problem` with targets and how well that is certified.

    As `Solution`, of V labels and m contexts: ``logits`` (V, m), ``bias`` (V,), ``weights``, one
    layer (V, d), ``class_means`` (d, m). What needs one class a context (blocks, states, margins)
    raises a ValueError.

    Attributes
    ----------
    classifier : ndarray, shape (V', d)
        Rows of the classifier of distinct labels, d being the rank.
    features : ndarray, shape (d, m')
        Mean features of distinct contexts.
    label_bias : ndarray, shape (V',)
    label_of, context_of : ndarray of int, shapes (V,) and (m,)
        Which of the distinct ones every label and context is: equal rows of the targets have equal
        logits, and so have contexts of equal targets whose loss weight per feature weight agrees.
    nuclear_norm : float
        Of the logits, times the roots of the feature weights.
    """

    classifier: Array = field(default_factory=lambda: np.zeros((0, 0)))
    features: Array = field(default_factory=lambda: np.zeros((0, 0)))
    label_bias: Array = field(default_factory=lambda: np.zeros(0))
    label_of: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    context_of: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    nuclear_norm: float = 0.0

    def __init__(self, **values: Any) -> None:
        for name, value in ({"search": None, "factors": None, "axes": None} | values).items():
            object.__setattr__(self, name, value)  # the class is frozen

    def __getattribute__(self, name: str) -> Any:
        if name in _OF_CLASSES:
            raise ValueError(f"targets: {name} needs one class a context")
        return super().__getattribute__(name)

    @property
    def rank(self) -> int:
        """Rank of the logits: the width that the data need."""
        return int(self.classifier.shape[1])

    @property
    def bias(self) -> Array:
        """Bias of every label, shape (V,); zeros without bias."""
        return self.label_bias[self.label_of]

    @cached_property
    def logits(self) -> Array:
        """Mean logits without bias, shape (V, m); column j holds the samples of context j."""
        v, m = len(self.label_of), len(self.context_of)
        if v * m > MAX_LOGITS:
            raise ValueError(
                f"logits: {v} x {m} are not written out; weights[0] @ class_means[:, j] are those "
                "of context j"
            )
        return (self.classifier @ self.features)[self.label_of][:, self.context_of]

    @property
    def weights(self) -> list[Array]:
        """The one linear layer, shape (V, d); d is ``problem.dim`` or the rank."""
        return [_widened(self.classifier[self.label_of], self._width)]

    @property
    def class_means(self) -> Array:
        """Mean features of the contexts as columns, shape (d, m), matching `weights`."""
        return _widened(self.features[:, self.context_of].T, self._width).T

    @property
    def _width(self) -> int:
        return self.problem.width or self.rank

    def embed(
        self,
        targets: ArrayLike,
        *,
        counts: float | ArrayLike = 1,
        class_weights: float | ArrayLike = 1.0,
        feature_weights: float | ArrayLike | None = None,
    ) -> Embedding:
        """Return logits and features of contexts that were not trained.

        Each gets the feature of least loss and decay under this classifier, which is what training
        with it would give but for its own pull on the classifier (docs/theory.md section 10): a
        context that was trained gets its own logits again.

        Parameters
        ----------
        targets : array_like, shape (V,) or (V, k)
            The label distribution of every context.
        counts, class_weights : float or array_like of shape (k,)
            Samples and class weight of every context, as in `Problem`.
        feature_weights : float or array_like of shape (k,), optional
            By default as the problem's: counts, or ones. Needed where its are other numbers.

        Returns
        -------
        Embedding
            ``logits`` (V, k), ``features`` (d, k) matching `weights`, and ``errors`` (k,), bounds
            of the features' distance from the exact ones for this classifier. How far those can be
            from a trained context is known before they are: at most ``bounds`` (k,) from the
            feature of context ``nearest`` (k,).

        Raises
        ------
        ValueError
            If an argument has another shape, is no distribution or not positive, or the feature
            weights are missing.

        Examples
        --------
        >>> import tightframe as tf
        >>> shares = [[0.7, 0.1, 0.0], [0.2, 0.6, 0.5], [0.1, 0.3, 0.5]]
        >>> decays = {"weight_decay": 0.02, "feature_decay": 0.02}
        >>> problem = tf.Problem([40, 30, 20], targets=shares, **decays)
        >>> s = tf.solve(problem, tol=1e-12)
        >>> found = s.embed([0.1, 0.6, 0.3], counts=30)
        >>> bool(abs(found.logits[:, 0] - s.logits[:, 1]).max() < 1e-5)
        True
        """
        p, v = _numbers("targets", targets), len(self.label_of)
        if p.ndim not in (1, 2) or len(p) != v or p.size == 0:
            raise ValueError(f"targets: got shape {p.shape}, need ({v},) or ({v}, contexts)")
        p = p.reshape(v, -1)
        sums, k = p.sum(axis=0), p.shape[1]
        good = (p >= 0).all(axis=0) & (np.abs(sums - 1) <= SUM_TOLERANCE)
        if not good.all():
            raise ValueError(f"targets: column {int(np.argmin(good))} is no distribution")
        n = _positive("counts", counts, k)
        if feature_weights is not None:
            omega = _positive("feature_weights", feature_weights, k)
        elif not self.problem.feature_runs:
            omega = n
        elif {weight for weight, _ in self.problem.feature_runs} == {1.0}:
            omega = np.ones(k)
        else:
            raise ValueError(
                "feature_weights: missing; the problem's are numbers of its own contexts"
            )
        curvatures = _positive("class_weights", class_weights, k) * n
        curvatures /= self.problem.num_samples * omega
        found = embedded(
            self.classifier[self.label_of],
            self.bias,
            p / sums,
            curvatures,
            self.problem.feature_decay,
            Trained(self.features, self._pulls),
        )
        _, first = np.unique(self.context_of, return_index=True)
        wide = _widened(found.features.T, self._width).T
        return found._replace(features=wide, nearest=first[found.nearest])

    @cached_property
    def _pulls(self) -> Array:
        """``W^T softmax(W h + b)`` of every distinct context, shape (r, m')."""
        pulls, merged = np.empty_like(self.features), np.bincount(self.label_of)
        size = max(1, BLOCK // len(merged))
        for start in range(0, pulls.shape[1], size):
            part = slice(start, start + size)
            scores = (self.classifier @ self.features[:, part]).T + self.label_bias
            q = np.exp(scores - scores.max(axis=1, keepdims=True)) * merged
            pulls[:, part] = (q / q.sum(axis=1, keepdims=True) @ self.classifier).T
        return pulls

    def __repr__(self) -> str:
        gap = "no gap" if self.gap is None else f"gap {self.gap:.1e}"
        return (
            f"<ContextSolution: {len(self.label_of)} labels x {len(self.context_of)} contexts, "
            f"objective {self.objective:.10g}, {gap}, rank {self.rank}, {self.status.value}>"
        )

    def to_frame(self, context_names: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row a context.

        Its count, feature weight, entropy, most frequent label with its ``share``; the label of the
        largest logit with its ``probability`` (softmax of logits and bias); ``kl``, the divergence
        of that softmax from the label distribution in nats; and the ``norm`` of its feature.

        Parameters
        ----------
        context_names : sequence of str, optional
            What the contexts are called, such as their tokens; numbers by default.

        Raises
        ------
        ValueError
            If there is not one name a context.
        ImportError
            If pandas is missing (``pip install 'tightframe[report]'``).
        """
        from tightframe.views.contexts import contexts_frame

        with needed("to_frame", "pandas"):
            return contexts_frame(self, context_names)

    def plot(self, ax: Any = None, *, what: str = "logits") -> tuple[Any, Any]:
        """Draw the logits, bias included, as a map of labels and contexts.

        Of many those of most samples are drawn; contexts of one predicted label stand side by side.

        See `tightframe.shown.plot`; ``what`` has one choice.
        """
        from tightframe.views.contexts import solution_map

        choice("what", what, ("logits",))
        return plot(lambda: solution_map(self), ax)

    def _blocks(self) -> Iterator[Block]:
        from tightframe.views.contexts import contexts_table

        yield repr(self)[1:-1]
        yield contexts_table(self)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready summary; without logits, which `save` keeps as factors."""
        return self._summary() | {
            "bias": self.bias.tolist(),
            "problem": self.problem.to_dict(),
        }

    def _summary(self) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "gap": self.gap,
            "lower_bound": self.lower_bound,
            "status": self.status.value,
            "method": self.method,
            "note": self.note,
            "labels": len(self.label_of),
            "contexts": len(self.context_of),
            "distinct_labels": len(self.classifier),
            "distinct_contexts": self.features.shape[1],
            "rank": self.rank,
            "nuclear_norm": self.nuclear_norm,
            "seconds": self.seconds,
        }


class ContextMemory:
    """What problems that differ in their decays only hand on to each other along a sweep."""

    def __init__(self) -> None:
        self.forms: tuple[Merged, Symmetry | None] | None = None
        self.sweep = ContextSweep()

    def forms_at(self, problem: Problem) -> tuple[Merged, Symmetry | None]:
        """Return the next problem's merged form, and what its symmetry leaves of that.

        No decay changes what merges, or what may be exchanged.
        """
        if self.forms is None:
            small = merged(form_of(problem))
            self.forms = small, symmetry(small.form)
        small, symmetric = self.forms
        if symmetric is not None:
            symmetric = replace(symmetric, form=_at_decays(symmetric.form, problem))
        return replace(small, form=_at_decays(small.form, problem)), symmetric


def _at_decays(form: Form, problem: Problem) -> Form:
    return replace(form, decay=problem.logit_decay, bias_decay=problem.bias_decay)


def solve_contexts(
    problem: Problem, tol: float, max_iterations: int, memory: ContextMemory | None = None
) -> ContextSolution:
    """Return the certified minimiser of a problem with targets.

    Parameters
    ----------
    problem : Problem
    tol, max_iterations
        As in `tightframe.solve`.
    memory : ContextMemory, optional
        Of a sweep of decays.

    Raises
    ------
    ValueError
        If there are too many distinct labels and contexts, or ``dim`` is less than the rank.
    """
    memory = ContextMemory() if memory is None else memory
    small, symmetric = memory.forms_at(problem)
    m, v = small.form.shape
    form, constant = small.form, small.constant
    if symmetric is not None:
        form, constant = symmetric.form, constant + symmetric.constant
    if form.shape[0] * form.shape[1] > MAX_ENTRIES:
        raise ValueError(
            f"targets: got {v} distinct labels x {m} distinct contexts; at most {MAX_ENTRIES} "
            "entries are solved"
        )
    found = memory.sweep.minimise(form, tol, max_iterations)
    primal = found.bounds.primal + constant
    dual = max(found.bounds.dual - found.bounds.rounding + constant, 0.0)
    if (m + v) * found.x.rank > MAX_ENTRIES:
        raise ValueError(
            f"targets: got {v} distinct labels and {m} distinct contexts, whose logits have rank "
            f"{found.x.rank}; factors of at most {MAX_ENTRIES} entries are written out"
        )
    x, bias = found.x, found.bias
    if isinstance(x, CellFactors):
        assert symmetric is not None
        x, bias = symmetric.expanded(x), bias[symmetric.label_group]
    if problem.width is not None and problem.width < x.rank:
        raise ValueError(
            f"dim: got {problem.width}, and the minimiser has rank {x.rank}; problems with targets "
            "are solved for dim of at least that, or none"
        )
    balance = np.sqrt(np.sqrt(problem.feature_decay / problem.weight_decays[0]))
    lengths = np.sqrt(x.values)
    return ContextSolution(
        problem=problem,
        objective=primal,
        lower_bound=min(dual, primal),
        method="every label and context collapsed" if found.collapsed else "splitting of contexts",
        status=Status.OPTIMAL if primal - dual <= tol * primal else Status.NOT_CONVERGED,
        note="duality gap",
        seconds=0.0,
        stats=Stats(iterations=found.history[-1].iteration, starts=1, history=found.history),
        classifier=_rows(x, small.form.label_scale, balance * lengths),
        features=(x.left * (lengths / balance)).T * small.form.context_scale,
        label_bias=bias,
        label_of=small.label_of,
        context_of=small.context_of,
        nuclear_norm=x.norm,
    )


def _rows(x: Factors, scale: Array, lengths: Array) -> Array:
    rows: Array = (x.right * lengths) * scale[:, None]
    return rows


def _widened(rows: Array, width: int) -> Array:
    wide = np.zeros((len(rows), width))
    wide[:, : rows.shape[1]] = rows
    return wide


def _numbers(name: str, value: Any) -> Array:
    array = array_of(name, value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: got {shortened(repr(value))}, need numbers")
    return array.astype(np.float64)


def _positive(name: str, value: Any, size: int) -> Array:
    numbers = _numbers(name, value)
    if numbers.shape not in ((), (size,)) or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ValueError(
            f"{name}: got {shortened(repr(value))}, need a positive number, or one for each of "
            f"{size} contexts"
        )
    return np.broadcast_to(numbers, (size,)).copy()
