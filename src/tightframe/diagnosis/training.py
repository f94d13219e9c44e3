"""`Training`: what the loss of a trained network saw of every class, as far as it is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import choice, positive_float
from tightframe.heads.last_layer import LastLayer, loss_terms
from tightframe.heads.ridge import RidgeProblem
from tightframe.heads.terms import LossTerms
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
    terms : LossTerms
        Of the loss; their weights are 1 on average, those of the samples.
    told : tuple of str
        What else changed the loss: ``"label smoothing 0.1"``, ``"class margins"``, ...
    """

    weight_decay: float | None
    ridge: float | None
    weights: Array
    adjustment: Array
    prior: Array
    natural: bool
    terms: LossTerms
    told: tuple[str, ...] = ()

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
        weighted_mean: bool = True,
        **others: Any,
    ) -> Training:
        """Read what is known, see `tightframe.diagnosis.diagnose.diagnose`.

        Others are further arguments of `Problem`: ``label_smoothing``, ... Class weights of a
        weighted mean divide the loss, as PyTorch's do; those of a problem do not.
        """
        terms = loss_terms(
            layer.counts, class_weights, logit_adjustment, layer.class_names, **others
        )
        counts = terms.counts
        draws = np.ones(len(counts))
        if sampler is not None:
            draws = (1.0 if sampler == "balanced" else _shares(sampler, terms)) / counts
        weights = draws * terms.class_weights
        soft, mean = LossTerms.of(terms), weights[layer.labels].mean()
        factors = draws * (terms.class_weights if soft.weights is None else soft.weights)
        weights = weights / mean
        seen = counts * weights
        decay = weight_decay
        if decay is not None:
            decay = positive_float("weight_decay", decay, or_zero=True)
        natural = bool(np.allclose(weights, weights[0]))
        coupled = choice("optimizer", optimizer, OPTIMIZERS) == "sgd"
        return cls(
            decay,
            (decay if weighted_mean else decay / mean) if decay and coupled else None,
            weights,
            terms.logit_adjustment,
            np.log(seen / seen.sum()),
            natural,
            replace(soft, weights=factors / mean),
            _told(terms),
        )

    def ridge_problem(
        self, layer: LastLayer, ridge: float, bias: bool, bias_scale: float = 1.0
    ) -> RidgeProblem:
        """Return the head's problem on the features of a layer, with the loss of the training."""
        weights = self.weights if self.terms.weights is None else self.terms.weights
        terms = self.terms if self.terms.are_soft else None
        arrays = layer.features, layer.labels, weights, self.adjustment
        return RidgeProblem(*arrays, ridge, bias, bias_scale, terms)

    def has_loss_of(self, other: Training) -> bool:
        """Whether another training had the same loss."""
        pairs = zip(vars(self.terms).values(), vars(other.terms).values(), strict=True)
        same = all(
            np.allclose(a, b) if a is not None and b is not None else a is b for a, b in pairs
        )
        return same and np.allclose(self.adjustment, other.adjustment)

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


def _told(terms: Problem) -> tuple[str, ...]:
    named = {
        f"label smoothing {terms.label_smoothing:g}": terms.label_smoothing,
        "class margins": terms.margin_runs,
        "logit scales": terms.scale_runs,
    }
    return tuple(name for name, value in named.items() if value)


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
