"""What a problem's loss does to logits and labels, its decay to features: a number a class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import class_labels
from tightframe.problem.label_law import require_entries
from tightframe.problem.problem import Problem

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LossTerms:
    """Arrays of shape (K,), in float64; None where a problem has nothing of the kind.

    Where the problem has targets they are of shape (m,), for its contexts, and `targets` is there.

    Attributes
    ----------
    weights : ndarray or None
        Factor of the loss of a class's samples.
    adjustment, margins, scales : ndarray or None
        The loss sees ``scales * (W h + b) + adjustment``, less the margin in the own logit.
    smoothing, spread : ndarray or None
        The label of class y is ``(1 - smoothing_y) e_y + smoothing_y spread``.
    feature_factors : ndarray or None
        Factor of ``(feature_decay / 2) ||h||^2`` of a sample of every class.
    targets : ndarray or None, shape (m, V)
        Label distributions, a row a context.
    """

    weights: Array | None
    adjustment: Array | None
    margins: Array | None
    scales: Array | None
    smoothing: Array | None
    spread: Array | None
    feature_factors: Array | None
    targets: Array | None = None

    @property
    def are_soft(self) -> bool:
        """Whether there are margins, scales or smoothed labels."""
        return not (self.margins is None and self.scales is None and self.smoothing is None)

    @classmethod
    def of(cls, problem: Problem) -> LossTerms:
        """Return those of a problem.

        Raises
        ------
        ValueError
            If there are targets of too many labels and contexts to be written out.
        """
        each = problem.feature_weights / problem.counts if problem.feature_runs else None
        if (table := problem.targets) is not None:
            require_entries(table.num_labels, table.num_contexts)
            weights = problem.class_weights if problem.weight_runs else None
            rows: Array = table.by_context.toarray()
            return cls(weights, None, None, None, None, None, each, rows)
        weights, labels = class_labels(problem)
        smoothed = labels is not None and problem.label_smoothing > 0
        return cls(
            weights if problem.weight_runs else None,
            problem.logit_adjustment if problem.adjustment_runs else None,
            problem.class_margins if problem.margin_runs else None,
            problem.logit_scale if problem.scale_runs else None,
            labels.smoothing if labels is not None and smoothed else None,
            labels.spread if labels is not None and smoothed else None,
            each,
        )
