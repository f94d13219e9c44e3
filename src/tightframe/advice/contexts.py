"""Advice on label distributions: what collapses, what is one, and the width that the data need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.checks import positive_float
from tightframe.context_solution import ContextSolution
from tightframe.problem.problem import Problem
from tightframe.saved import Saved
from tightframe.shown import Block, Shown
from tightframe.solve import solve
from tightframe.theory.contexts.certificate import collapse_decay
from tightframe.theory.contexts.form import Merged, form_of, merged

if TYPE_CHECKING:
    import pandas as pd

#: Probabilities of labels this close, relatively, are equally likely.
EQUALLY_LIKELY = 1e-12

LIMITS = (
    "Unconstrained feature model: contexts with features of their own, fitted to the end. Margins, "
    "angles and proposals are of problems with one class a context."
)


@dataclass(frozen=True)
class ContextAdvice(Shown, Saved):
    """What `advise` says of a problem with targets.

    Attributes
    ----------
    problem : Problem
    solution : ContextSolution
        The minimiser, with its certificate.
    total_collapse : float
        From this ``sqrt(weight_decay feature_decay)`` on all logits are zero, and only the bias
        speaks.
    distinct_labels, distinct_contexts : int
        So many are told apart at any decay. Labels with equal rows of the targets have equal
        logits, and so have contexts of the same targets whose class weight times count agrees per
        feature weight.
    loss, entropy : float
        Mean loss of the minimiser, weighted as in the problem, and what no logits go below, nats.
    answered : float
        Share of the loss's weights in contexts whose likeliest label has the largest logit, bias
        included, and no other has.
    """

    problem: Problem
    solution: ContextSolution
    total_collapse: float
    distinct_labels: int
    distinct_contexts: int
    loss: float
    entropy: float
    answered: float
    limits: str = LIMITS

    @property
    def safety(self) -> float:
        """`total_collapse` over the problem's decay: below 1 all logits are zero."""
        return self.total_collapse / self.problem.logit_decay

    @property
    def width(self) -> int:
        """Rank of the minimiser: the width of the features that the data need at this decay."""
        return self.solution.rank

    @property
    def warnings(self) -> list[str]:
        """What goes wrong at these decays, a sentence each."""
        said = []
        if self.width == 0:
            said.append(
                "all logits are zero: no context is told from another "
                f"(safety factor {self.safety:.3g})"
            )
        if self.answered < 1 - EQUALLY_LIKELY:
            said.append(
                f"contexts with {1 - self.answered:.1%} of the loss's weight do not have their "
                "likeliest label first"
            )
        return said

    @property
    def sentences(self) -> list[str]:
        """Everything in words, in reading order."""
        p = self.problem
        parts = (
            (self.distinct_labels, p.num_classes, "labels"),
            (self.distinct_contexts, p.num_contexts, "contexts"),
        )
        told = " and ".join(f"{few} of {all_} {what}" for few, all_, what in parts)
        return [
            f"{told} are told apart; the others are one with these at every decay",
            f"lambda {p.logit_decay:.4g}: features of width {self.width} are enough "
            f"(rank of the minimiser, certified gap {self.solution.gap:.1e})",
            f"all logits are zero from lambda {self.total_collapse:.4g} on "
            f"(safety factor {self.safety:.3g})",
            f"loss {self.loss:.4g} nats, of which the labels' own entropy is {self.entropy:.4g}",
            *self.warnings,
            self.limits,
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "problem": self.problem.to_dict(),
            "warnings": self.warnings,
            "total_collapse": self.total_collapse,
            "safety": self.safety,
            "width": self.width,
            "distinct_labels": self.distinct_labels,
            "distinct_contexts": self.distinct_contexts,
            "loss": self.loss,
            "entropy": self.entropy,
            "answered": self.answered,
            "objective": self.solution.objective,
            "gap": self.solution.gap,
            "status": self.solution.status.value,
            "limits": self.limits,
        }

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    def __repr__(self) -> str:
        p = self.problem
        return (
            f"ContextAdvice({p.num_classes} labels x {p.num_contexts} contexts, width {self.width} "
            f"is enough, safety factor {self.safety:.4g})"
        )

    def _blocks(self) -> Iterator[Block]:
        yield from self.sentences

    def to_frame(self) -> pd.DataFrame:
        """Return one row a context, as `ContextSolution.to_frame` of the minimiser."""
        return self.solution.to_frame()

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the minimiser's logits, as `ContextSolution.plot`."""
        return self.solution.plot(ax)


def advise_contexts(
    problem: Problem,
    *,
    margin: float | None = None,
    angle: float | None = None,
    feature_decay_of: str = "sample",
    tol: float = 1e-8,
) -> ContextAdvice:
    """Say of a problem with targets what collapses, what is one, and which width its data need.

    Parameters
    ----------
    problem : Problem
        With targets.
    margin, angle, feature_decay_of
        Of problems with one class a context only; refused.
    tol : float
        Certified relative gap of the solve.

    Raises
    ------
    ValueError
        If an argument is out of range, or of problems without targets.

    Examples
    --------
    >>> targets = [[0.7, 0.1, 0.0], [0.3, 0.6, 0.5], [0.0, 0.3, 0.5]]
    >>> problem = Problem([40, 30, 20], targets=targets, weight_decay=1e-2, feature_decay=1e-2)
    >>> found = advise_contexts(problem)
    >>> found.width, round(found.safety, 1)
    (2, 4.2)
    """
    wanted = (("margin", margin, None), ("angle", angle, None))
    for name, given, usual in (*wanted, ("feature_decay_of", feature_decay_of, "sample")):
        if given != usual:
            raise ValueError(f"{name}: got {given!r} with targets, which have no proposals")
    solution = solve(problem, positive_float("tol", tol))
    assert isinstance(solution, ContextSolution)
    form = form_of(problem)
    small = merged(form)
    bias = problem.bias_decay / 2 * float(solution.bias @ solution.bias)
    return ContextAdvice(
        problem,
        solution,
        collapse_decay(small.form)[0],
        *small.form.shape[::-1],
        solution.objective - problem.logit_decay * solution.nuclear_norm - bias,
        form.target_entropy,
        _answered(solution, small),
    )


def _answered(solution: ContextSolution, small: Merged) -> float:
    """Return the share of the loss in contexts whose largest logit is that of a likeliest label."""
    form = small.form
    many = np.bincount(small.label_of)
    right = np.zeros(form.shape[0], dtype=bool)
    for rows in form.blocks():
        logits = solution.features[:, rows].T @ solution.classifier.T + solution.label_bias
        shares = np.zeros(logits.shape)
        form.add_targets(shares, rows, 1.0)
        shares /= many  # of a single label
        largest = logits >= logits.max(axis=1, keepdims=True)
        given = np.where(largest, shares, np.inf).min(axis=1)
        right[rows] = given >= shares.max(axis=1) * (1 - EQUALLY_LIKELY)
    return float(form.weights[right].sum() / form.weights.sum())
