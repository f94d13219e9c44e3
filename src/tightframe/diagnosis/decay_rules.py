"""When a model of another weight decay may speak, and how far it was off where it does.

Measured on small networks of ten classes that were trained from scratch at both decays.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tightframe.checks import plain_number, positive_float

#: A predicted margin up to this is a risk: none of 159 classes above it was lost.
AT_RISK = 1.0

#: Largest share of the objective that the head may lie above its optimum.
MOST_SUBOPTIMAL = 0.01

#: The same with batch norm, whose features in eval mode are not those of training: networks at
#: 1 to 5 % were predicted as well as others, below the angles here.
MOST_SUBOPTIMAL_BATCH_NORM = 0.05

#: The same of AdamW: no head whose decay is decoupled from the objective came below 4 %.
MOST_SUBOPTIMAL_DECOUPLED = 0.15

#: With more classes the matrix model was further off: its bar held for 83 of 120 only.
MOST_CLASSES = 10

#: More classes than this were asked about once: 100, of which the small ones were 6.9 nats off.
MOST_CLASSES_AT_ALL = 30

#: How many times the decay may be asked about with AdamW: at 2.5 and 4 times the small classes were
#: off by .2 to .8 nats (`make bench-practice`), at 10 times and more by .45 to 3.3.
MOST_TIMES_DECOUPLED = 8.0

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


class Network(NamedTuple):
    """What a network is made of, which decides on the model.

    Attributes
    ----------
    layers : int or None
        Weight matrices, the head among them; None only with batch norm.
    batch_norm, convolutional : bool
    num_classes : int
    coupled : bool
        Whether its decay is a term of the objective, as SGD's is.
    """

    layers: int | None
    batch_norm: bool
    convolutional: bool
    num_classes: int
    coupled: bool

    @property
    def model_layers(self) -> int:
        """Layers of the model: what is below a batch norm costs nothing."""
        return 2 if self.batch_norm else int(self.layers or 2)

    @property
    def has_directions(self) -> bool:
        """Whether the matrix model speaks."""
        plain = not (self.batch_norm or self.convolutional) and self.coupled
        return plain and self.layers == 3

    @property
    def bar(self) -> Bar:
        """How far the model was off for a larger decay."""
        if not self.coupled or self.convolutional:
            return ROUGH
        if self.batch_norm:
            return BATCH_NORM
        if self.has_directions and self.num_classes > MOST_CLASSES:
            return ROUGH
        return {2: TWO_LAYERS, 3: THREE_LAYERS}.get(self.model_layers, ROUGH)

    @property
    def most_suboptimal(self) -> float:
        """Largest share of the objective that the head may lie above its optimum."""
        if not self.coupled:
            return MOST_SUBOPTIMAL_DECOUPLED
        return MOST_SUBOPTIMAL_BATCH_NORM if self.batch_norm else MOST_SUBOPTIMAL

    @property
    def words(self) -> str:
        """Which model speaks."""
        if self.batch_norm:
            return "neurons are scaled, what is below the last batch norm costs nothing"
        below = "" if self.model_layers == 2 else ", the layers below all alike"
        if self.has_directions:
            below = ", the layer below direction by direction"
        roughly = "roughly, " if self.bar == ROUGH else ""
        ridge = ", at the ridge that fits the head" if not self.coupled else ""
        return f"{roughly}neurons are scaled{below}{ridge}"

    @property
    def silence(self) -> str | None:
        """Why no model speaks of such a network, if none does."""
        if not self.batch_norm and self.model_layers > MOST_LAYERS:
            return (
                f"a network of {self.layers} layers; from {MOST_LAYERS + 1} on, training from "
                "scratch ends in worse minima than any model of the optimum sees (off by .8 to 1.4 "
                "nats). tf.training.continue_at asks the network itself"
            )
        if self.num_classes > MOST_CLASSES_AT_ALL:
            return (
                f"a network of {self.num_classes} classes; up to {MOST_CLASSES_AT_ALL} were "
                "measured, and one of 100 was 6.9 nats off. tf.training.continue_at asks the "
                "network itself"
            )
        if self.batch_norm and not self.coupled:
            return "batch norm with AdamW was not measured"
        return None

    @property
    def is_bounded(self) -> bool:
        """Whether the formula's value bounds the true objective."""
        return not self.batch_norm and self.coupled


class Pace(NamedTuple):
    """How large the steps of a training are.

    Attributes
    ----------
    lr : float or None
    momentum : float
    full_batch : bool
    """

    lr: float | None
    momentum: float
    full_batch: bool

    @classmethod
    def of(cls, lr: Any, momentum: Any, full_batch: bool) -> Pace:
        """Check the arguments.

        Raises
        ------
        ValueError
            If one is out of range.
        """
        value = plain_number(momentum)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"momentum: got {momentum!r}, need a number from 0 to below 1")
        rate = None if lr is None else positive_float("lr", lr)
        return cls(rate, float(value), bool(full_batch))

    @property
    def limit(self) -> float:
        """Largest angle of a step at which training reached the optimum."""
        return MOST_TURN_FULL_BATCH if self.full_batch else MOST_TURN

    def turn(self, weight_decay: float) -> float | None:
        """Return the angle by which a step turns scale-invariant weights in the end."""
        if self.lr is None:
            return None
        return math.sqrt(2 * self.lr * weight_decay / (1 - self.momentum))

    def unreachable(self, weight_decay: float) -> str | None:
        """Return why training with batch norm would not come to the optimum, if so."""
        turn = self.turn(weight_decay)
        if turn is None:
            return (
                "but with batch norm it depends on lr and momentum whether training reaches it; "
                "give them"
            )
        if turn <= self.limit:
            return None
        return (
            "but with this learning rate training will not reach it (a step turns the weights "
            f"before a batch norm by {turn:.2g} rad, at most {self.limit:g} is safe): lower lr, or "
            "exclude the weights before batch norm from decay"
        )
