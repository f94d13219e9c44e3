"""`larger_decay`: what another weight decay would do, from one trained network's last layer.

The models are in `tightframe.diagnosis.neuron_model`; when one may speak, and with which bar, in
`tightframe.diagnosis.decay_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import (
    is_several,
    positive_float,
    require_dense,
    whole_number,
)
from tightframe.diagnosis.decay_rules import (
    AT_RISK,
    MOST_TIMES_DECOUPLED,
    MOST_UNEVEN,
    ROUGH,
    Bar,
    Network,
    Pace,
)
from tightframe.diagnosis.neuron_model import Fitted, NeuronModel
from tightframe.diagnosis.training import Training
from tightframe.files import to_plain
from tightframe.heads.fitted import minimise
from tightframe.heads.last_layer import LastLayer
from tightframe.heads.ridge import RidgeProblem
from tightframe.heads.scores import Scores, own_margins
from tightframe.metrics.answers import WEAK_BELOW
from tightframe.problem.class_names import NamesLike, listed
from tightframe.problem.counts import PerClass
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame, plot

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Value of `larger_decay`'s loss arguments: as the network was trained.
SAME = "same"

#: What `ask_decay` has to know of the whole network, by name.
KNOWN_OF_NETWORK = (
    "layers",
    "batch_norm",
    "convolutional",
    "lr",
    "momentum",
    "full_batch",
    "layer_norms",
)

#: Relative gap to which the best head is known.
TOL = 1e-4


@dataclass(frozen=True, eq=False)
class LargerDecay(Shown, Saved):
    """Margins that a network would have at other weight decays.

    One row for every decay asked about. A row where no model may speak has NaN margins and a
    sentence in `reasons`.

    Attributes
    ----------
    weight_decay : float
        With which the network was trained.
    at : ndarray, shape (A,)
        The decays asked about.
    counts : ndarray of int, shape (K,)
    now : ndarray, shape (K,)
        Decision margins at the class means of the network as it is, in nats: own minus largest
        other logit. NaN for a class without samples.
    margins : ndarray, shape (A, K), or None
        The same at the other decays. None if no row speaks.
    error : ndarray, shape (A, K), or None
        Bars: 90 % of the classes of networks trained from scratch were within.
    at_risk : ndarray of bool, shape (A, K), or None
        Predicted up to `AT_RISK`: a class may be lost there, or not. Above it none was.
    objective : ndarray, shape (A,), or None
        "At most": the least value of the training objective (mean loss and half the decay times
        all squares) is not larger, if the network is a stationary point of its own. NaN in rows
        without such a bound.
    model : str
        Which model speaks, in words.
    suboptimality : float
        How far the head is above its optimum on these features, as a share of the objective.
    reasons : tuple of (str or None), length A
        Why a row does not speak.
    converged : ndarray of bool, shape (A,)
        Whether the model's minimisation came to its end in the rows that speak.
    class_names : tuple of str or None
    """

    weight_decay: float
    at: Array
    counts: NDArray[np.int64]
    now: Array
    margins: Array | None
    error: Array | None
    at_risk: Flags | None
    objective: Array | None
    model: str
    suboptimality: float
    reasons: tuple[str | None, ...]
    converged: Flags
    class_names: tuple[str, ...] | None = None

    @property
    def note(self) -> str:
        """What there is to say: which model speaks, and why rows do not."""
        silent: dict[str, list[str]] = {}
        for decay, reason in zip(self.at, self.reasons, strict=True):
            if reason is not None:
                silent.setdefault(reason, []).append(f"{decay:g}")
        sentences = [] if self.margins is None else [f"Model: {self.model}."]
        for reason, decays in silent.items():
            every = len(decays) == len(self.at)
            start = "No prediction" if every else f"No prediction at {', '.join(decays)}"
            sentences.append(f"{start}: {reason}.")
        unfinished = [
            f"{decay:g}"
            for decay, done, reason in zip(self.at, self.converged, self.reasons, strict=True)
            if reason is None and not done
        ]
        if unfinished:
            sentences.append(
                f"The minimisation did not come to its end at {', '.join(unfinished)}."
            )
        return " ".join(sentences)

    def __repr__(self) -> str:
        """Name the decays and how many classes are at risk."""
        at = ", ".join(f"{decay:g}" for decay in self.at)
        if self.at_risk is None:
            return f"LargerDecay(at=[{at}], no prediction)"
        risks = ", ".join(
            "no prediction" if reason is not None else str(int(row.sum()))
            for row, reason in zip(self.at_risk, self.reasons, strict=True)
        )
        return f"LargerDecay(at=[{at}], at_risk=[{risks}] of {len(self.now)} classes)"

    def name(self, label: int) -> str:
        """Return a class's name, or its label where classes have no names."""
        return str(label) if self.class_names is None else self.class_names[label]

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready; margins without value are None."""
        values = {name: value for name, value in vars(self).items() if name != "class_names"}
        names = None if self.class_names is None else list(self.class_names)
        plain: dict[str, Any] = to_plain(values | {"note": self.note, "class_names": names})
        return plain

    def to_frame(self) -> pd.DataFrame:
        """Return one row a decay and class, as a DataFrame, see `tightframe.shown.frame`."""
        rows, classes = len(self.at), len(self.now)
        gaps = np.full((rows, classes), math.nan)
        margins = gaps if self.margins is None else self.margins
        errors = gaps if self.error is None else self.error
        risks = np.zeros((rows, classes), bool) if self.at_risk is None else self.at_risk
        return frame(
            {
                "weight_decay": np.repeat(self.at, classes),
                "class": np.tile(np.arange(classes), rows),
                "name": [self.name(k) for k in range(classes)] * rows,
                "count": np.tile(self.counts, rows),
                "now": np.tile(self.now, rows),
                "margin": margins.ravel(),
                "error": errors.ravel(),
                "at_risk": risks.ravel(),
            }
        )

    def blocks(self) -> Iterator[Block]:
        """Yield the table of classes, and what there is to say, in reading order."""
        from tightframe.diagnosis.larger_decay_pictures import blocks_of

        yield from blocks_of(self)

    _blocks = blocks

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the margins along the decays, with their bars, see `tightframe.shown.plot`."""
        from tightframe.diagnosis.larger_decay_pictures import chart_of

        return plot(chart_of(self), ax)


def larger_decay(
    features: ArrayLike,
    labels: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    weight_decay: float,
    at: float | Iterable[float],
    layers: int | None = None,
    batch_norm: bool = False,
    convolutional: bool = False,
    optimizer: str = "sgd",
    lr: float | None = None,
    momentum: float = 0.0,
    full_batch: bool = False,
    layer_norms: Iterable[float] | None = None,
    class_weights: PerClass | None = None,
    logit_adjustment: PerClass | None = None,
    label_smoothing: float = 0.0,
    smoothing_weights: str = "own",
    class_margins: PerClass | None = None,
    logit_scale: PerClass | None = None,
    at_class_weights: PerClass | None = SAME,
    at_logit_adjustment: PerClass | None = SAME,
    at_label_smoothing: float | str = SAME,
    at_class_margins: PerClass | None = SAME,
    at_logit_scale: PerClass | None = SAME,
    class_names: NamesLike | None = None,
) -> LargerDecay:
    """Predict the margins that a network would have at another weight decay, from its last layer.

    For ordinary networks: plain ReLU layers, cross-entropy, the same decay on all parameters,
    trained to the end. With label smoothing, margins or logit scales the bar is the widest. The
    shapes of the features stay; every last-layer neuron is scaled freely, the layers below are
    scaled with it, and the head is free: the best such network, in closed form up to a small
    minimisation. Which of the models speaks, with which bar, or none and why, depends on the kind
    of network (docs/theory.md, section 9). `tightframe.training.continue_at` is more exact where
    the network itself is at hand.

    Parameters
    ----------
    features : array_like, shape (N, D)
        Inputs of the head for the training samples, with the network in eval mode.
    labels : array_like, shape (N,), int
    weight : array_like, shape (K, D)
        The trained head.
    bias : array_like, shape (K,), optional
    weight_decay : float
        With which the network was trained, as in ``torch.optim.SGD``.
    at : float or iterable of float, length A
        The decays asked about.
    layers : int, optional
        Weight matrices of the whole network, the head among them: 2 for one hidden layer. Needed
        without batch norm.
    batch_norm : bool
        Whether a batch norm stands before the last ReLU.
    convolutional : bool
        Whether layers below the head are convolutions.
    optimizer : {"sgd", "adamw"}
        ``"sgd"``, or any other whose decay is a term of the objective.
    lr, momentum : float
        Of SGD, at their largest: with batch norm they decide whether training reaches the optimum.
    full_batch : bool
        Whether every step takes all samples.
    layer_norms : iterable of float, optional
        Frobenius norms of the weights of all layers, where they are known: they tell whether
        training has ended.
    class_weights, logit_adjustment, label_smoothing, smoothing_weights, class_margins, logit_scale
        Of the loss that the network was trained with, as in `tightframe.heads.fit_head`.
    at_class_weights, at_logit_adjustment, at_label_smoothing, at_class_margins, at_logit_scale
        Of the loss at the other decays; ``"same"`` by default.
    class_names : sequence of str, mapping, str or path-like, optional

    Returns
    -------
    LargerDecay

    Raises
    ------
    ValueError
        If an argument is out of range, or ``layers`` is missing.

    Examples
    --------
    A network with one hidden layer at its optimum: features and head of two classes.

    >>> features = np.repeat([[2.0, 0.0], [0.0, 2.0]], [30, 10], axis=0)
    >>> labels = np.repeat([0, 1], [30, 10])
    >>> from tightframe.heads import fit_head
    >>> head = fit_head(features, labels, weight_decay=0.01)
    >>> found = larger_decay(
    ...     features, labels, head.weight, head.bias, weight_decay=0.01, at=[0.02, 0.1], layers=2
    ... )
    >>> found.margins.shape
    (2, 2)
    >>> bool((found.margins[1] < found.margins[0]).all())
    True
    """
    layer = LastLayer.of(features, labels, weight, bias, class_names=class_names)
    terms: dict[str, Any] = {
        "class_weights": class_weights,
        "logit_adjustment": logit_adjustment,
        "label_smoothing": label_smoothing,
        "class_margins": class_margins,
        "logit_scale": logit_scale,
    }
    changes = {
        "class_weights": at_class_weights,
        "logit_adjustment": at_logit_adjustment,
        "label_smoothing": at_label_smoothing,
        "class_margins": at_class_margins,
        "logit_scale": at_logit_scale,
    }
    asked = terms | {name: value for name, value in changes.items() if not _is_same(value)}
    training = Training.of(
        layer,
        weight_decay=positive_float("weight_decay", weight_decay),
        optimizer=optimizer,
        smoothing_weights=smoothing_weights,
        **terms,
    )
    try:
        loss = Training.of(layer, smoothing_weights=smoothing_weights, **asked)
    except ValueError as error:  # of the present loss there was none
        raise ValueError(f"at_{error}") from None
    return ask_decay(
        layer,
        training,
        at=at,
        layers=layers,
        batch_norm=batch_norm,
        convolutional=convolutional,
        lr=lr,
        momentum=momentum,
        full_batch=full_batch,
        layer_norms=layer_norms,
        loss=loss,
    )


def ask_decay(
    layer: LastLayer,
    training: Training,
    *,
    at: float | Iterable[float],
    layers: int | None = None,
    batch_norm: bool = False,
    convolutional: bool = False,
    lr: float | None = None,
    momentum: float = 0.0,
    full_batch: bool = False,
    layer_norms: Iterable[float] | None = None,
    loss: Training | None = None,
    argument: str = "at",
) -> LargerDecay:
    """Return `larger_decay` of a last layer whose training is known.

    Parameters
    ----------
    layer : LastLayer
    training : Training
        With its weight decay.
    at, layers, batch_norm, convolutional, lr, momentum, full_batch, layer_norms
        As in `larger_decay`.
    loss : Training, optional
        Whose weights and adjustment the loss has at the other decays; by default the same.
    argument : str
        What ``at`` is called, for messages.
    """
    require_dense(layer.num_classes, "weight")
    kind = Network(
        None if layers is None else whole_number("layers", layers, 2),
        bool(batch_norm),
        bool(convolutional),
        layer.num_classes,
        training.ridge is not None,
    )
    if kind.layers is None and not kind.batch_norm:
        raise ValueError(
            "layers: missing; need the number of weight matrices of the whole network, the head "
            "among them"
        )
    if not training.weight_decay:
        came = "missing" if training.weight_decay is None else "got 0"
        raise ValueError(f"weight_decay: {came}; need one that the network was trained with")
    decays = [positive_float(argument, value) for value in (at if is_several(at) else [at])]
    if not decays:
        raise ValueError(f"{argument}: got none, need at least one weight decay")
    norms = None if layer_norms is None else _norms(layer_norms, kind.layers)
    pace = Pace.of(lr, momentum, full_batch)
    return _Outlook(layer, kind, pace, training.weight_decay, training, loss, norms).at(decays)


def _norms(given: Any, layers: int | None) -> list[float]:
    norms = [positive_float("layer_norms", x) for x in (given if is_several(given) else [given])]
    if len(norms) != (layers or max(len(norms), 1)):
        every = "every layer" if layers is None else f"each of the {layers} layers"
        raise ValueError(f"layer_norms: got {len(norms)}, need one for {every}")
    return norms


def _is_same(value: Any) -> bool:
    return isinstance(value, str) and value == SAME


# -- when to speak, and what -----------------------------------------------------------------------


class _Outlook:
    """Everything that is known before a decay is asked about."""

    def __init__(
        self,
        layer: LastLayer,
        kind: Network,
        pace: Pace,
        decay: float,
        trained: Training,
        asked: Training | None,
        norms: list[float] | None,
    ) -> None:
        self.layer, self.kind, self.pace, self.decay = layer, kind, pace, decay
        self.trained, self.norms = trained, norms
        self.asked = trained if asked is None else asked
        self.same_loss = trained.has_loss_of(self.asked)
        # A bias of zeros was not trained.
        self.bias = layer.bias if layer.bias is not None and layer.bias.any() else None
        head = layer.weight if self.bias is None else np.column_stack([layer.weight, self.bias])
        loss, gradient = self._problem(trained).value_and_gradient(head)
        squares = float(np.vdot(head, head))
        self.ridge = trained.ridge or decay
        if not kind.coupled:  # the ridge for which the head is as nearly stationary as it can be
            self.ridge = -float(np.vdot(gradient, head)) / squares if squares else 0.0
        self.suboptimality = 1.0
        if self.ridge > 0 and squares:
            objective = loss + self.ridge / 2 * squares
            _, least, gap = minimise(self._problem(trained, self.ridge), TOL)
            self.suboptimality = max(objective - (least - gap), 0.0) / objective
        recalls = Scores.of_head(layer.features, layer.labels, layer.weight, layer.bias).recalls
        self.poor = [k for k, recall in enumerate(recalls) if recall < WEAK_BELOW]
        self.means = layer.class_means

    def at(self, decays: list[float]) -> LargerDecay:
        layer, shape = self.layer, (len(decays), self.layer.num_classes)
        margins, error = np.full(shape, math.nan), np.full(shape, math.nan)
        objective, converged = np.full(shape[0], math.nan), np.zeros(shape[0], dtype=bool)
        whole = self._silence()
        reasons: list[str | None] = []
        for row, decay in enumerate(decays):
            reason = whole or self._silence_at(decay)
            if reason is None:
                predicted, bound, converged[row] = self._predict(decay)
                reason = self._unreachable(decay, predicted)
                if reason is None:
                    margins[row], objective[row] = predicted, bound
                    bar = self._bar(decay)
                    error[row] = np.where(predicted <= AT_RISK, bar.at_risk, bar.error)
            reasons.append(reason)
        speaks = any(reason is None for reason in reasons)
        return LargerDecay(
            self.decay,
            np.array(decays),
            layer.counts,
            self._margins(layer.weight, layer.bias),
            margins if speaks else None,
            error if speaks else None,
            margins <= AT_RISK if speaks else None,
            objective if speaks else None,
            self.kind.words,
            self.suboptimality,
            tuple(reasons),
            converged,
            layer.class_names,
        )

    def _silence(self) -> str | None:
        """Return why nothing is predicted at any decay."""
        kind = self.kind
        if kind.silence is not None:
            return kind.silence
        if self.layer.features.min() < 0:
            return (
                "the features go below zero, so they do not end in a plain ReLU, for which alone "
                "the models hold"
            )
        if self.norms is not None and not kind.batch_norm:
            uneven = (max(self.norms) / min(self.norms)) ** 2
            if uneven > MOST_UNEVEN:
                return (
                    f"the squared norms of the layers are {uneven:.2g} times apart, above "
                    f"{MOST_UNEVEN:g}: training has not ended, or the decay is not on all "
                    "parameters alike"
                )
        most = kind.most_suboptimal
        if self.suboptimality >= most:
            return (
                f"the head's objective could be {self.suboptimality:.2%} lower on these features, "
                f"at most {most:.0%} is safe: training has not ended, or the loss "
                "and the decay are not those given"
            )
        return None

    def _silence_at(self, decay: float) -> str | None:
        """Return why nothing is predicted at a decay."""
        times = decay / self.decay
        if not (self.kind.coupled or 1 / MOST_TIMES_DECOUPLED <= times <= MOST_TIMES_DECOUPLED):
            return (
                "with a decoupled decay the ridge follows it over a factor of "
                f"{MOST_TIMES_DECOUPLED:g} at most, not {max(times, 1 / times):.3g}"
            )
        if not self.poor or (decay >= self.decay and self.same_loss):
            return None
        what = "a smaller decay" if self.same_loss else "another loss"
        names = listed([self.layer.name(k) for k in self.poor], 5)
        return (
            f"{what} brings classes back that are lost or weak now ({names}), which only the "
            "whole network can show: tf.training.continue_at, or train again"
        )

    def _unreachable(self, decay: float, margins: Array) -> str | None:
        """Return why training with batch norm would not come to a predicted optimum."""
        if not self.kind.batch_norm:
            return None
        reason = self.pace.unreachable(decay)
        if reason is None:
            return None
        least = np.nanmin(margins)
        return f"the optimum at this decay keeps margins of {least:.2f} and more, {reason}"

    def _bar(self, decay: float) -> Bar:
        # Bars were measured without smoothing, margins and scales: the widest holds with them.
        soft = self.trained.terms.are_soft or self.asked.terms.are_soft
        return self.kind.bar if decay >= self.decay and self.same_loss and not soft else ROUGH

    def _predict(self, decay: float) -> tuple[Array, float, bool]:
        """Return margins, the bound of the objective (NaN if none), and whether it converged."""
        kind = self.kind
        model = NeuronModel(
            self._problem(self.asked),
            self.layer.weight,
            self.ridge * decay / self.decay,
            kind.model_layers,
            kind.has_directions,
        )
        found = model.fit(self.bias)
        weight = found.scales.weight(model.layers)
        margins = self._margins(weight, found.scales.bias)
        return margins, self._bound(model, found), found.converged

    def _bound(self, model: NeuronModel, found: Fitted) -> float:
        """Return what the best objective is at most, NaN where nothing is proven."""
        if not self.kind.is_bounded:
            return math.nan
        if model.directions:  # no bound itself
            model = replace(model, directions=False)
            found = model.fit(self.bias)
        weight, bias = found.scales.weight(model.layers), found.scales.bias
        # With biases in the layers below, only shrinking is known to cost no more than the formula.
        if model.layers > 2 and model.share(weight) > 1:
            return math.nan
        return model.least(weight, bias)

    def _margins(self, weight: Array, bias: Array | None) -> Array:
        logits = self.means @ weight.T + (0.0 if bias is None else bias)
        return own_margins(logits, np.arange(self.layer.num_classes))

    def _problem(self, loss: Training, ridge: float = 0.0) -> RidgeProblem:
        """Return a loss as a function of the head, with a ridge on it."""
        return loss.ridge_problem(self.layer, ridge, self.bias is not None)
