"""`larger_decay`: what another weight decay would do, from one trained network's last layer.

The models are in `tightframe.diagnosis.neuron_model`; here is when one may speak, and how far it
was off on networks that were trained from scratch at the other decay. The rules and the bars are
measured, on small networks of ten classes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import (
    choice,
    is_several,
    plain_number,
    positive_float,
    require_dense,
    whole_number,
)
from tightframe.diagnosis.neuron_model import NeuronModel
from tightframe.files import to_plain
from tightframe.heads.fitted import fit_head
from tightframe.heads.last_layer import LastLayer
from tightframe.heads.ridge import RidgeProblem
from tightframe.heads.scores import Scores
from tightframe.problem.counts import PerClass
from tightframe.problem.problem import Problem
from tightframe.solve import NotConvergedWarning

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table as RichTable

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

OPTIMIZERS = ("sgd", "adamw")

#: Value of `larger_decay`'s loss arguments: as the network was trained.
SAME = "same"

#: A predicted margin up to this is a risk: none of 223 classes above it was lost.
AT_RISK = 1.0

#: Training accuracy below which a class is weak, or lost.
WEAK_ACCURACY = 0.9

#: Largest share of the objective that the head may lie above its optimum. No head that AdamW
#: trained comes below 1 %.
MOST_SUBOPTIMAL = {"sgd": 0.01, "adamw": 0.15}

#: Largest ratio of two layers' squared norms where training has ended.
MOST_UNEVEN = 1.6

#: More layers than this: training from scratch ends elsewhere than any model of the optimum.
MOST_LAYERS = 4

#: Largest angle of a step at which training with batch norm reached the optimum: with batches,
#: and with all samples in one.
MOST_TURN, MOST_TURN_FULL_BATCH = 0.05, 0.15


class Bar(NamedTuple):
    """How far predictions were off, in nats: 90 % of the classes were within.

    Attributes
    ----------
    error : float
    at_risk : float
        The same of predictions up to `AT_RISK`.
    """

    error: float
    at_risk: float


TWO_LAYERS, THREE_LAYERS, BATCH_NORM, ROUGH = Bar(0.3, 0.3), Bar(0.5, 0.6), Bar(0.6, 0.6), Bar(1, 1)


@dataclass(frozen=True, eq=False)
class LargerDecay:
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
        sentences = [] if self.margins is None else [self.model]
        for reason, decays in silent.items():
            at = "" if len(decays) == len(self.at) else f"at {', '.join(decays)}: "
            sentences.append(f"{at}no prediction: {reason}")
        unfinished = [
            f"{decay:g}"
            for decay, done, reason in zip(self.at, self.converged, self.reasons, strict=True)
            if reason is None and not done
        ]
        if unfinished:
            sentences.append(f"at {', '.join(unfinished)} the minimisation did not come to its end")
        return "; ".join(sentences) + "."

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
        """Return one row a decay and class, as a DataFrame.

        Raises
        ------
        ImportError
            If pandas is missing (``pip install 'tightframe[report]'``).
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install 'tightframe[report]'") from error
        rows, classes = len(self.at), len(self.now)
        gaps = np.full((rows, classes), math.nan)
        margins = gaps if self.margins is None else self.margins
        errors = gaps if self.error is None else self.error
        risks = np.zeros((rows, classes), bool) if self.at_risk is None else self.at_risk
        return pd.DataFrame(
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

    def to_table(self) -> RichTable:
        """Return the classes, those with the smallest margins first, as a Rich table."""
        from tightframe.diagnosis.larger_decay_pictures import table_of

        return table_of(self)

    def __rich__(self) -> RichTable:
        """Show the table in Rich."""
        return self.to_table()

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the margins along the decays, with their bars.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Drawn on a figure of its own by default.

        Returns
        -------
        tuple of figure and axes

        Raises
        ------
        ImportError
            If Matplotlib is missing (``pip install 'tightframe[report]'``).
        """
        from tightframe.diagnosis.larger_decay_pictures import chart_of
        from tightframe.figures.mpl import plot

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
    at_class_weights: PerClass | None = SAME,
    at_logit_adjustment: PerClass | None = SAME,
    class_names: Sequence[str] | None = None,
) -> LargerDecay:
    """Predict the margins that a network would have at another weight decay, from its last layer.

    For ordinary networks: plain ReLU layers, cross-entropy, the same decay on all parameters,
    trained to the end. The shapes of the features stay; every last-layer neuron is scaled freely,
    the layers below are scaled with it, and the head is free: the best such network, in closed form
    up to a small minimisation. Which of the models speaks, with which bar, or none and why, depends
    on the kind of network (docs/theory.md, section 9). `tightframe.training.continue_at` is more
    exact where the network itself is at hand.

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
    class_weights, logit_adjustment
        Of the loss that the network was trained with, as in `tightframe.heads.fit_head`.
    at_class_weights, at_logit_adjustment
        Of the loss at the other decays; ``"same"`` by default.
    class_names : sequence of str, optional

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
    require_dense(layer.num_classes, "weight")
    kind = _Kind(
        None if layers is None else whole_number("layers", layers, 2),
        bool(batch_norm),
        bool(convolutional),
        choice("optimizer", optimizer, OPTIMIZERS),
    )
    if kind.layers is None and not kind.batch_norm:
        raise ValueError(
            "layers: missing; need the number of weight matrices of the whole network, the head "
            "among them"
        )
    pace = _Pace.of(lr, momentum, full_batch)
    decay = positive_float("weight_decay", weight_decay)
    decays = [positive_float("at", value) for value in (at if is_several(at) else [at])]
    if not decays:
        raise ValueError("at: got none, need at least one weight decay")
    trained = _Loss.of(layer, class_weights, logit_adjustment)
    asked = _Loss.of(
        layer,
        class_weights if _is_same(at_class_weights) else at_class_weights,
        logit_adjustment if _is_same(at_logit_adjustment) else at_logit_adjustment,
    )
    return _Outlook(layer, kind, pace, decay, trained, asked, _norms(layer_norms)).at(decays)


# -- what is known of the network ------------------------------------------------------------------


class _Kind(NamedTuple):
    """What a network is made of."""

    layers: int | None
    batch_norm: bool
    convolutional: bool
    optimizer: str

    @property
    def model_layers(self) -> int:
        """Layers of the model: what is below a batch norm costs nothing."""
        return 2 if self.batch_norm else int(self.layers or 2)

    @property
    def has_directions(self) -> bool:
        """Whether the matrix model speaks."""
        plain = not (self.batch_norm or self.convolutional) and self.optimizer == "sgd"
        return plain and self.layers == 3

    @property
    def bar(self) -> Bar:
        """How far the model was off for a larger decay."""
        if self.optimizer == "adamw" or self.convolutional:
            return ROUGH
        if self.batch_norm:
            return BATCH_NORM
        return {2: TWO_LAYERS, 3: THREE_LAYERS}.get(self.model_layers, ROUGH)

    @property
    def words(self) -> str:
        """Which model speaks."""
        if self.batch_norm:
            return "neurons scaled, what is below the last batch norm free of cost"
        below = "" if self.model_layers == 2 else ", the layers below scaled all alike"
        if self.has_directions:
            below = ", the layers below scaled direction by direction"
        roughly = "roughly: " if self.bar == ROUGH else ""
        ridge = ", with the ridge that fits the head" if self.optimizer == "adamw" else ""
        return f"{roughly}neurons scaled{below}{ridge}"

    @property
    def is_bounded(self) -> bool:
        """Whether the formula's value bounds the true objective."""
        return not self.batch_norm and self.optimizer == "sgd"


class _Pace(NamedTuple):
    """How large the steps of the training are."""

    lr: float | None
    momentum: float
    full_batch: bool

    @classmethod
    def of(cls, lr: Any, momentum: Any, full_batch: bool) -> _Pace:
        value = plain_number(momentum)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"momentum: got {momentum!r}, need a number from 0 to below 1")
        rate = None if lr is None else positive_float("lr", lr)
        return cls(rate, float(value), bool(full_batch))

    @property
    def limit(self) -> float:
        return MOST_TURN_FULL_BATCH if self.full_batch else MOST_TURN

    def turn(self, weight_decay: float) -> float | None:
        """Return the angle by which a step turns scale-invariant weights in the end."""
        if self.lr is None:
            return None
        return math.sqrt(2 * self.lr * weight_decay / (1 - self.momentum))


class _Loss(NamedTuple):
    """Weights and adjustment of the loss, and as what they were given."""

    class_weights: Array
    adjustment: Array

    @classmethod
    def of(cls, layer: LastLayer, class_weights: Any, logit_adjustment: Any) -> _Loss:
        # The grammar is that of `Problem`, which has no classes without samples.
        terms = Problem(
            np.maximum(layer.counts, 1),
            weight_decay=1.0,
            feature_decay=1.0,
            class_weights=class_weights,
            logit_adjustment=logit_adjustment,
            class_names=layer.class_names,
        )
        weights = terms.class_weights
        return cls(weights / weights[layer.labels].mean(), terms.logit_adjustment)

    def equals(self, other: _Loss) -> bool:
        return all(map(np.allclose, self, other))


def _is_same(value: Any) -> bool:
    return isinstance(value, str) and value == SAME


def _norms(values: Iterable[float] | None) -> list[float] | None:
    return None if values is None else [positive_float("layer_norms", value) for value in values]


# -- when to speak, and what -----------------------------------------------------------------------


class _Outlook:
    """Everything that is known before a decay is asked about."""

    def __init__(
        self,
        layer: LastLayer,
        kind: _Kind,
        pace: _Pace,
        decay: float,
        trained: _Loss,
        asked: _Loss,
        norms: list[float] | None,
    ) -> None:
        self.layer, self.kind, self.pace, self.decay = layer, kind, pace, decay
        self.asked, self.norms = asked, norms
        self.same_loss = trained.equals(asked)
        problem = self._problem(trained)
        own = layer.weight
        if layer.bias is not None:
            own = np.column_stack([own, layer.bias])
        loss, gradient = problem.value_and_gradient(own)
        squares = float(np.vdot(own, own))
        #: The decay under which the head would be stationary, for optimisers whose own says little.
        fitted = -float(np.vdot(gradient, own)) / squares if squares else 0.0
        self.ridge = decay if kind.optimizer == "sgd" else fitted
        self.suboptimality = 1.0
        if self.ridge > 0:
            objective = loss + self.ridge / 2 * squares
            self.suboptimality = max(objective - self._least(trained), 0.0) / objective
        recalls = Scores.of(layer.logits(), layer.labels).recalls
        self.poor = [k for k, recall in enumerate(recalls) if recall < WEAK_ACCURACY]
        sums = np.zeros_like(layer.weight)
        np.add.at(sums, layer.labels, layer.features)
        with np.errstate(invalid="ignore"):
            self.means = sums / layer.counts[:, None]

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
        if not kind.batch_norm and kind.model_layers > MOST_LAYERS:
            return (
                f"a network of {kind.layers} layers; from {MOST_LAYERS + 1} on, training from "
                "scratch ends in worse minima than any model of the optimum sees (off by .8 to 1.4 "
                "nats). tf.training.continue_at asks the network itself"
            )
        if kind.batch_norm and kind.optimizer == "adamw":
            return "batch norm with AdamW was not measured"
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
        most = MOST_SUBOPTIMAL[kind.optimizer]
        if self.suboptimality >= most:
            return (
                f"the head's objective is {self.suboptimality:.2%} above its least on these "
                f"features, and has to be within {most:.0%}: training has not ended, or the loss "
                "and the decay are not those given"
            )
        return None

    def _silence_at(self, decay: float) -> str | None:
        """Return why nothing is predicted at a decay."""
        if not self.poor or (decay >= self.decay and self.same_loss):
            return None
        what = "a smaller decay" if self.same_loss else "another loss"
        names = [self.layer.name(k) for k in self.poor]
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        return (
            f"{what} brings classes back that are lost or weak now ({listed}), which only the "
            "whole network can show: tf.training.continue_at, or train again"
        )

    def _unreachable(self, decay: float, margins: Array) -> str | None:
        """Return why training with batch norm would not come to a predicted optimum."""
        if not self.kind.batch_norm:
            return None
        kept = f"the optimum at this decay keeps margins of {np.nanmin(margins):.2f} and more"
        turn = self.pace.turn(decay)
        if turn is None:
            return (
                f"{kept}, but with batch norm it depends on lr and momentum whether training "
                "reaches it; give them"
            )
        if turn <= self.pace.limit:
            return None
        return (
            f"{kept}; with this learning rate training will not reach it (a step turns the weights "
            f"before a batch norm by {turn:.2g} rad, at most {self.pace.limit:g} is safe): lower "
            "lr, or exclude the weights before batch norm from decay"
        )

    def _bar(self, decay: float) -> Bar:
        return self.kind.bar if decay >= self.decay and self.same_loss else ROUGH

    def _predict(self, decay: float) -> tuple[Array, float, bool]:
        """Return margins, the bound of the objective (NaN if none), and whether it converged."""
        kind, bias = self.kind, self.layer.bias
        model = NeuronModel(
            self._problem(self.asked),
            self.layer.weight,
            self.ridge * decay / self.decay,
            kind.model_layers,
            kind.has_directions,
        )
        found = model.fit(bias)
        weight = found.scales.weight(model.below)
        # Where biases stand in hidden layers, the formula is a bound for smaller scales only.
        proven = kind.model_layers == 2 or model.share(weight) <= 1
        bound = model.least(weight, found.scales.bias) if kind.is_bounded and proven else math.nan
        return self._margins(weight, found.scales.bias), bound, found.converged

    def _margins(self, weight: Array, bias: Array | None) -> Array:
        logits = self.means @ weight.T + (0.0 if bias is None else bias)
        own = logits.diagonal().copy()
        np.fill_diagonal(logits, -np.inf)
        margins: Array = own - logits.max(axis=1)
        return margins

    def _problem(self, loss: _Loss) -> RidgeProblem:
        """Return a loss as a function of the head, without a ridge."""
        layer = self.layer
        has_bias = layer.bias is not None
        return RidgeProblem(layer.features, layer.labels, *loss, 0.0, has_bias)

    def _least(self, loss: _Loss) -> float:
        """Return a lower bound of what the best head on these features has."""
        with warnings.catch_warnings():  # the bound holds wherever it stopped
            warnings.simplefilter("ignore", NotConvergedWarning)
            head = fit_head(
                self.layer.features,
                self.layer.labels,
                weight_decay=self.ridge,
                class_weights=loss.class_weights,
                logit_adjustment=loss.adjustment,
                bias=self.layer.bias is not None,
                num_classes=self.layer.num_classes,
                tol=1e-4,
            )
        return head.lower_bound
