"""`Training`: what the loss of a trained network saw of every class, as far as it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import choice, positive_float
from tightframe.heads.last_layer import LastLayer, loss_terms
from tightframe.problem.counts import PerClass, parse_per_class, spread
from tightframe.problem.problem import Problem

Array = NDArray[np.float64]

#: ``"sgd"`` is any whose decay is a term of the objective, ``"adamw"`` any whose is not.
OPTIMIZERS = ("sgd", "adamw")

#: Adjustments up to this many nats between classes change next to nothing.
FLAT = 0.05


@dataclass(frozen=True, eq=False)
class Training:
    """Decay, weights, adjustment and sampling of a training.

    Attributes
    ----------
    weight_decay : float or None
        As written in the training, 0 if there was none; None where it is not known.
    ridge : float or None
        The same where it is a term of the objective: not 0, nor that of AdamW and its kind.
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
    ridge: float | None
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
        sampler: PerClass | None = None,
        optimizer: str = "sgd",
    ) -> Training:
        """Read what is known, see `tightframe.diagnosis.diagnose.diagnose`."""
        terms = loss_terms(layer.counts, class_weights, logit_adjustment, layer.class_names)
        counts = terms.counts
        draws = np.ones(len(counts))
        if sampler is not None:
            draws = (1.0 if sampler == "balanced" else _shares(sampler, terms)) / counts
        weights = draws * terms.class_weights
        weights = weights / weights[layer.labels].mean()
        seen = counts * weights
        decay = weight_decay
        if decay is not None:
            decay = positive_float("weight_decay", decay, or_zero=True)
        natural = bool(np.allclose(weights, weights[0]))
        coupled = choice("optimizer", optimizer, OPTIMIZERS) == "sgd"
        return cls(
            decay,
            decay if decay and coupled else None,
            weights,
            terms.logit_adjustment,
            np.log(seen / seen.sum()),
            natural,
        )

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


def _shares(sampler: Any, problem: Problem) -> Array:
    allowed = "'balanced' or a positive share of the draws for every class"
    runs = parse_per_class(
        "sampler",
        sampler,
        problem.runs,
        lambda shares: np.isfinite(shares) & (shares > 0),
        allowed,
        problem.class_names or (),
    )
    return spread(runs)
