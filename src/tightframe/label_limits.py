"""label_limits: what cross-entropy tends to for any label distributions as the decays vanish."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import choice, positive_float, whole_number
from tightframe.geometry.blocks import Array
from tightframe.geometry.dense import SELI_NAMES
from tightframe.problem.counts import CountsLike, PerClass, counts_array
from tightframe.problem.label_law import LabelLaw, feature_weights_of, logit_scales
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame, plot
from tightframe.solution import Status
from tightframe.solve import NotConvergedWarning
from tightframe.solvers.max_margin import max_margin
from tightframe.theory.certificate import settled
from tightframe.theory.max_margin import CLOSED, Cost, SignTest, cost, sign_test
from tightframe.theory.supports import Supports

if TYPE_CHECKING:
    import pandas as pd

#: Singular values of the direction below this share of the largest count as zero: a solver's
#: direction has margins of one to the last digit, and low rank but for its gap.
RANK_FLOOR = 1e-6

#: What is known of the support matrix, and how.
IS_BY_SIGNS = (
    "The centred support matrix is the max-margin direction: no entry off the supports of its "
    "polar factor is positive."
)
IS_BY_BOUND = (
    "The centred support matrix is the max-margin direction: the solver's bound meets its norm."
)
IS_NOT_BY_SIGNS = (
    "The centred support matrix is not the max-margin direction: {wrong:.1%} of the entries off "
    "the supports of its polar factor are positive, and its rank, {rank}, leaves no other dual."
)
IS_NOT_BY_NORM = (
    "The centred support matrix is not the max-margin direction: its norm is {ratio:.9g} times "
    "that of logits with the same margins."
)
UNKNOWN = (
    "The centred support matrix may be the max-margin direction: neither logits of smaller norm "
    "nor a bound that meets its own were found."
)
FINITE = "Every context has every label: the logits stay finite, and tend to finite_logits."

#: Of nothing: no margin is asked for.
NO_TEST = SignTest(Cost(0.0, 0.0), 0.0, 0, -1.0, 0.0, False)


@dataclass(frozen=True, eq=False)
class LabelLimits(Shown, Saved):
    """Both parts of the limit: log ratios inside the supports, and a direction that grows.

    Logits are W h before their scale. Their size grows like ``log(1 / logit_decay)`` along
    `direction`, while differences between labels that a context has tend to those of `log_ratios`.

    Attributes
    ----------
    law : LabelLaw
        The labels of every context and their probabilities.
    counts, feature_weights : ndarray, shape (m,), float64
        Of the contexts.
    logit_scale : ndarray, shape (V,), float64
        Of the labels.
    bias : str
        Bias of the head, ``"none"`` or ``"free"``.
    merged : Supports
        The labels (R) and contexts (C) that the max-margin problem tells apart.
    reduced : ndarray, shape (R, C), float64
        Its minimiser in their terms; `direction` writes it out.
    norm : float
        Nuclear norm of ``direction * sqrt(feature_weights)``, the least with margins of one; 0
        where every context has every label.
    lower_bound : float
        Certified lower bound of that minimum.
    is_max_margin : bool or None
        Whether `support_matrix` is the direction: True (its own gap is at most 1e-9 of its norm),
        False (proven), or None where neither could be shown; `note` says how.
    test : SignTest
        What the signs of the support matrix's polar factor say.
    status : Status
        ``"optimal"`` iff the gap of `norm` is within the tolerance asked for.
    note : str
        What is known of the support matrix, and how.
    steps : int
        Of the solver; 0 where the support matrix is certified.
    """

    law: LabelLaw
    counts: Array
    feature_weights: Array
    logit_scale: Array
    bias: str
    merged: Supports
    reduced: Array
    norm: float
    lower_bound: float
    is_max_margin: bool | None
    test: SignTest
    status: Status
    note: str
    steps: int

    @property
    def gap(self) -> float:
        """Certified absolute gap of `norm` to the least one."""
        return self.norm - self.lower_bound

    @property
    def support_norm(self) -> float:
        """Nuclear norm of ``support_matrix * sqrt(feature_weights)``, at least `norm`."""
        return self.test.cost.norm

    @property
    def largest_off_support(self) -> float:
        """Largest entry off the supports of ``U V^T``, that matrix's polar factor.

        Equal labels and contexts are merged in it. The support matrix is the direction if none is
        positive, and at the largest rank only then. -1 where there are no such entries.
        """
        return self.test.largest

    @property
    def wrong_signs(self) -> float:
        """Share of the entries off the supports that are positive there."""
        return self.test.wrong

    @cached_property
    def rank(self) -> int:
        """Rank of the direction, or of `finite_logits`: the width that the features need."""
        x = self._finite_x if self.stays_finite else self.reduced
        return int(np.linalg.matrix_rank(x, rtol=RANK_FLOOR)) if x.any() else 0

    @property
    def stays_finite(self) -> bool:
        """Whether every context has every label, so that no logit grows without bound."""
        return bool((self.law.sizes == self.law.num_labels).all())

    @cached_property
    def entropy(self) -> float:
        """``sum_j n_j H(p_j) / N`` in nats: what the objective tends to."""
        return float(self.counts @ self.law.entropies / self.counts.sum())

    def objective(self, logit_decay: float) -> float:
        """Return the leading terms of the least objective at a small decay, in nats.

        ``entropy + logit_decay log(1 / logit_decay) norm``; what is left out is of the order of
        ``logit_decay``. Where the logits stay finite, ``entropy + logit_decay`` times the nuclear
        norm of ``finite_logits * sqrt(feature_weights)``, and only its square is left out.

        Parameters
        ----------
        logit_decay : float
            ``sqrt(weight_decay feature_decay)``, above 0 and below 1.

        Raises
        ------
        ValueError
            If it is out of range.
        """
        decay = positive_float("logit_decay", logit_decay)
        if decay >= 1:
            raise ValueError(f"logit_decay: got {decay:g}, need a small decay, below 1")
        if self.stays_finite:
            return self.entropy + decay * float(np.linalg.norm(self._finite_x, "nuc"))
        return self.entropy + decay * math.log(1 / decay) * self.norm

    # -- arrays of labels and contexts, built on request --------------------------------------

    @cached_property
    def supports(self) -> NDArray[np.bool_]:
        """Which labels every context has, shape (V, m)."""
        return self.law.dense(self.law.probabilities, 0.0) > 0

    @cached_property
    def log_ratios(self) -> Array:
        """The finite part, shape (V, m): ``log p`` less its mean over the labels of the context.

        The scaled logits of a context's labels, bias included, tend to differ as these do. Minus
        infinity for labels that the context lacks.
        """
        logs = np.log(self.law.probabilities)
        means = self.law.sum(logs) / self.law.sizes
        return self.law.dense(logs - np.repeat(means, self.law.sizes), -math.inf)

    @cached_property
    def support_matrix(self) -> Array:
        """The centred support matrix, with margins of one, shape (V, m): the literature's proxy.

        With equal logit scales ``S - 1 (1^T S) / V``, S the 0/1 matrix of the supports; with a free
        bias less its weighted mean over the contexts.
        """
        return self.merged.written_out(self.merged.support_matrix, self.logit_scale)

    @cached_property
    def direction(self) -> Array:
        """The max-margin logits, shape (V, m); zero where all stay finite."""
        return self.merged.written_out(self.reduced, self.logit_scale)

    def part(self, labels: NDArray[np.intp], contexts: NDArray[np.intp]) -> Array:
        """Return `finite_logits` or `direction`, whichever there is, of some labels and contexts.

        Where those are too many to be written out, too.
        """
        if (logits := self.finite_logits) is not None:
            return logits[np.ix_(labels, contexts)]
        return self.merged.part(self.reduced, self.logit_scale, labels, contexts)

    @cached_property
    def finite_logits(self) -> Array | None:
        """What the logits tend to, shape (V, m), if every context has every label; else None.

        With equal logit scales and no bias ``log p`` less its mean over the labels.
        """
        return self._finite_x / np.sqrt(self.feature_weights) if self.stays_finite else None

    @cached_property
    def _finite_x(self) -> Array:
        """Return the limit of the logits times the roots of the feature weights, centred."""
        x = self.log_ratios / self.logit_scale[:, None] * np.sqrt(self.feature_weights)
        left, right = 1 / self.logit_scale, np.sqrt(self.feature_weights)
        x = x - np.outer(left, left @ x) / (left @ left)
        return x - np.outer(x @ right, right) / (right @ right) if self.bias == "free" else x

    @cached_property
    def _grams(self) -> tuple[Array, Array]:
        if not self.stays_finite:
            return self.merged.grams(self.reduced, self.logit_scale)
        left, values, right = np.linalg.svd(self._finite_x, full_matrices=False)
        roots = np.sqrt(self.feature_weights)
        return (left * values) @ left.T, (right.T * values) @ right / np.outer(roots, roots)

    @property
    def classifier(self) -> Array:
        """Gram matrix of the classifier's rows in the limit, up to scale, shape (V, V)."""
        return self._grams[0]

    @property
    def means(self) -> Array:
        """Gram matrix of the contexts' features in the limit, up to scale, shape (m, m)."""
        return self._grams[1]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary, JSON-ready."""
        return {
            "labels": self.law.num_labels,
            "contexts": self.law.num_contexts,
            "distinct_labels": len(self.merged.inside),
            "distinct_contexts": self.merged.inside.shape[1],
            "bias": self.bias,
            "stays_finite": self.stays_finite,
            "is_max_margin": self.is_max_margin,
            "norm": self.norm,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "support_norm": self.support_norm,
            "largest_off_support": self.largest_off_support,
            "wrong_signs": self.wrong_signs,
            "support_rank": self.test.rank,
            "rank": self.rank,
            "entropy": self.entropy,
            "status": self.status.value,
            "note": self.note,
            "steps": self.steps,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row a context: its count, feature weight, labels, entropy, and its support.

        Contexts of the same ``support`` have the same direction; -1 where it is zero.

        See `tightframe.shown.frame`.
        """
        return frame(
            {
                "count": self.counts.astype(np.int64),
                "feature_weight": self.feature_weights,
                "labels": self.law.sizes,
                "entropy": self.law.entropies,
                "support": self.merged.columns,
            }
        )

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the max-margin direction as a map of labels and contexts.

        Where all logits stay finite, what they tend to. Of many labels and contexts those of most
        samples are drawn; contexts of one most frequent label stand side by side.

        See `tightframe.shown.plot`.
        """
        from tightframe.views.contexts import limits_map

        return plot(limits_map(self), ax)

    def _blocks(self) -> Iterator[Block]:
        from tightframe.views.contexts import limits_table

        yield limits_table(self)

    def __repr__(self) -> str:
        return (
            f"LabelLimits({self.law.num_labels} labels, {self.law.num_contexts} contexts, "
            f"norm {self.norm:.6g}, gap {self.gap:.1e}, is_max_margin {self.is_max_margin})"
        )


def label_limits(
    targets: Any,
    counts: CountsLike,
    *,
    feature_weights: PerClass = "samples",
    logit_scale: PerClass | None = None,
    bias: str = "none",
    tol: float = 1e-8,
    max_iterations: int = 5000,
) -> LabelLimits:
    """Return what the minimiser for any label distributions tends to as the decays vanish.

    Contexts (columns) may have any label distribution: next tokens, several labels, soft labels.
    Two parts are left of it. Among the labels that a context has, differences of logits tend to
    log ratios of their probabilities. Over all other labels margins grow without bound, along the
    max-margin direction: the least nuclear norm with equal logits inside the supports and margins
    of one over the rest. Only supports, feature weights and logit scales matter there. The
    literature takes the centred support matrix for it (Zhao, Behnia, Vakilian and Thrampoulidis
    2024), which holds for one label a context (SELI) and many symmetric cases but not in general,
    and for no real text seen yet: it comes with its certificate (docs/theory.md section 5).

    Parameters
    ----------
    targets : array_like or SciPy sparse, shape (V, m)
        Label distributions of the contexts as columns.
    counts : str or iterable of int
        Samples of every context; compact text such as ``"500x5,100x5"`` too.
    feature_weights : {"samples", "contexts"} or one number a context
        Weights of the features' decay: a context's count (decay of every sample), one (decay of
        every distinct context), or others.
    logit_scale : str, iterable of float, or mapping, optional
        Factor of every label's logit in the loss (CDT, VS); ones by default.
    bias : {"none", "free"}
        Bias of the head. Every label then needs a context.
    tol : float
        Certified gap allowed, relative to the norm.
    max_iterations : int
        Steps of the solver, which is needed only where the support matrix is not certified.

    Returns
    -------
    LabelLimits

    Raises
    ------
    ValueError
        If an argument is malformed or out of range.

    Warns
    -----
    NotConvergedWarning
        If the gap is not reached; the bound and the direction are valid nevertheless.

    Examples
    --------
    >>> one_hot = label_limits([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "50,20,5")
    >>> one_hot.is_max_margin, one_hot.direction.round(3)[0].tolist()
    (True, [0.667, -0.333, -0.333])
    >>> targets = [[0.6, 1, 0, 0, 0.5], [0.4, 0, 0.8, 0, 0], [0, 0, 0.2, 1, 0], [0, 0, 0, 0, 0.5]]
    >>> limits = label_limits(targets, "40,9,30,20,25")
    >>> limits.is_max_margin, limits.gap <= 1e-8 * limits.norm, limits.log_ratios[:, 0].round(3)
    (False, True, array([ 0.203, -0.203,   -inf,   -inf]))
    """
    law = LabelLaw.read(targets)
    n = counts_array(counts).astype(np.float64)
    if len(n) != law.num_contexts:
        raise ValueError(
            f"counts: got {len(n)} numbers for the {law.num_contexts} contexts (columns) of targets"
        )
    weights = feature_weights_of(feature_weights, n)
    scale = logit_scales(logit_scale, law.num_labels)
    free = choice("bias", bias, SELI_NAMES) == "free"
    tol = positive_float("tol", tol)
    max_iterations = whole_number("max_iterations", max_iterations)
    unseen = np.flatnonzero(np.bincount(law.labels, minlength=law.num_labels) == 0)
    if free and unseen.size:
        raise ValueError(
            f"targets: no context has label {unseen[0]}, whose bias then falls without bound; with "
            "bias='free' every label needs a context"
        )
    merged = Supports.merged(law, scale, weights, free)
    if (law.sizes == law.num_labels).all():
        found = _Direction(np.zeros(merged.inside.shape), 0.0, 0.0, True, NO_TEST, FINITE, 0)
    else:
        found = _direction(merged, tol, max_iterations)
    optimal = found.norm - found.lower_bound <= tol * found.norm
    if not optimal:
        warnings.warn(
            f"label_limits: the gap is {found.norm - found.lower_bound:.1e} of {found.norm:.6g} "
            f"after {found.steps} steps; raise max_iterations or tol",
            NotConvergedWarning,
            stacklevel=2,
        )
    status = Status.OPTIMAL if optimal else Status.NOT_CONVERGED
    return LabelLimits(
        *(law, n, weights, scale, bias, merged, found.x, found.norm, found.lower_bound),
        *(found.is_max_margin, found.test, status, found.note, found.steps),
    )


class _Direction(NamedTuple):
    """What is known of the max-margin direction, as fields of `LabelLimits`."""

    x: Array
    norm: float
    lower_bound: float
    is_max_margin: bool | None
    test: SignTest
    note: str
    steps: int


def _direction(merged: Supports, tol: float, max_iterations: int) -> _Direction:
    """Return the max-margin direction, and what is known of the support matrix beside it."""
    test = sign_test(merged)
    x, own, subject = merged.support_matrix, test.cost, f"supports of {merged.inside.tolist()}"
    if test.closed and not test.excluded:
        bound = settled(own.norm, test.bound, own.rounding, subject)
        return _Direction(x, own.norm, bound, True, test, IS_BY_SIGNS, 0)
    found = max_margin(merged, test, tol, max_iterations)
    least = cost(found.x)
    bound = settled(least.norm, found.bound, least.rounding, subject)
    if not test.excluded and bound >= own.norm * (1 - CLOSED):
        bound = settled(own.norm, bound, own.rounding, subject)
        return _Direction(x, own.norm, bound, True, test, IS_BY_BOUND, found.steps)
    known: bool | None = False
    if test.excluded:
        note = IS_NOT_BY_SIGNS.format(wrong=test.wrong, rank=test.rank)
    elif least.norm + least.rounding + own.rounding < own.norm * (1 - CLOSED):
        note = IS_NOT_BY_NORM.format(ratio=own.norm / least.norm)
    else:
        known, note = None, UNKNOWN
    return _Direction(found.x, least.norm, bound, known, test, note, found.steps)
