"""`Training`: what the loss of a trained network saw of every class, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import positive_float
from tightframe.heads.last_layer import LastLayer
from tightframe.problem.counts import PerClass
from tightframe.problem.problem import Problem

Array = NDArray[np.float64]

#: Adjustments up to this many nats between classes change next to nothing.
FLAT = 0.05


@dataclass(frozen=True, eq=False)
class Training:
    """Decay, weights, adjustment and sampling of a training.

    Attributes
    ----------
    weight_decay : float or None
        As written in the training; None where it is not known.
    weights : ndarray, shape (K,)
        Factor of every class's loss, sampler and class weights together, of mean 1 over the
        samples.
    adjustment : ndarray, shape (K,)
        Added to the logits inside the loss.
    prior : ndarray, shape (K,)
        Logarithm of the classes' shares as the loss saw them. A class without samples counts as one
        of one sample.
    natural : bool
        Whether neither sampler nor weights changed what the loss saw.
    """

    weight_decay: float | None
    weights: Array
    adjustment: Array
    prior: Array
    natural: bool

    @classmethod
    def of(
        cls,
        layer: LastLayer,
        *,
        weight_decay: float | None = None,
        class_weights: PerClass | None = None,
        logit_adjustment: PerClass | None = None,
        sampler: str | Iterable[float] | None = None,
    ) -> Training:
        """Read what is known, see `tightframe.diagnosis.diagnose.diagnose`."""
        counts = np.maximum(layer.counts, 1)
        draws = _weights(counts, "balanced" if sampler == "balanced" else None)
        if sampler is not None and not isinstance(sampler, str):
            draws = _shares(sampler, len(counts)) / counts
        elif sampler not in (None, "balanced"):
            raise ValueError(
                f"sampler: got {sampler!r}, need 'balanced' or the share of every class"
            )
        terms = Problem(
            counts,
            weight_decay=1.0,
            feature_decay=1.0,
            class_weights=class_weights,
            logit_adjustment=logit_adjustment,
        )
        weights = draws * terms.class_weights
        weights = weights / weights[layer.labels].mean()
        seen = counts * weights
        decay = None if weight_decay is None else positive_float("weight_decay", weight_decay)
        natural = bool(np.allclose(weights, weights[0]))
        return cls(decay, weights, terms.logit_adjustment, np.log(seen / seen.sum()), natural)

    @property
    def post_hoc(self) -> Array:
        """What post-hoc logit adjustment adds at test time, shape (K,); 0 for the largest class.

        A classifier that fits its training has ``W h + b + adjustment`` = log-posterior of what the
        loss saw. Without that prior all classes are alike.
        """
        shift = self.adjustment - self.prior
        added: Array = shift - shift.min()
        return added

    @property
    def is_flat(self) -> bool:
        """Whether there is nothing to adjust: the loss saw all classes alike."""
        return float(np.ptp(self.post_hoc)) <= FLAT


def _weights(counts: NDArray[np.int64], rule: str | None) -> Array:
    return Problem(counts, weight_decay=1.0, feature_decay=1.0, class_weights=rule).class_weights


def _shares(sampler: Any, classes: int) -> Array:
    shares = np.asarray(list(sampler), dtype=np.float64)
    if shares.shape != (classes,) or not (np.isfinite(shares) & (shares > 0)).all():
        raise ValueError(
            f"sampler: got {shares.shape[0]} numbers, need a positive share of the draws for each "
            f"of {classes} classes"
        )
    return shares
