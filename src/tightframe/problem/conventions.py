"""Decays and class weights as papers and training scripts write them, in the units of `Problem`.

Each function takes the numbers of another convention and returns those of ours; the constructors
``Problem.from_*`` and `tightframe.problem.scripts` are thin around them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import is_zero, positive_float, whole_number

#: What there is in the place of decays of zero.
_LIMIT = (
    "what small decays tend to is tf.path_limits and tf.seli, and "
    "tightframe.training.train_ufm(..., normalized=True) descends without decays"
)
_WITHOUT = {"bias_decay": "bias='free' does not decay"}


def positive_decay(name: str, value: Any) -> float:
    """Return a decay as a float.

    Raises
    ------
    ValueError
        If it is no finite number above 0; of 0 the message says what there is instead.
    """
    try:
        return positive_float(name, value)
    except ValueError as error:
        if not is_zero(value):
            raise
        raise ValueError(f"{error}; {_WITHOUT.get(name, _LIMIT)}") from None


class Decays(NamedTuple):
    """The decays of a problem, checked to be positive numbers by `Decays.given`.

    Attributes
    ----------
    weight_decay, feature_decay : float
    bias_decay : float or None
        None: the bias does not decay.
    """

    weight_decay: float
    feature_decay: float
    bias_decay: float | None

    @classmethod
    def given(cls, weight_decay: Any, feature_decay: Any, bias_decay: Any = None) -> Decays:
        """Check what a caller gave."""
        return cls(
            positive_decay("weight_decay", weight_decay),
            positive_decay("feature_decay", feature_decay),
            None if bias_decay is None else positive_decay("bias_decay", bias_decay),
        )

    def scaled(self, by: float, features_by: float | None = None) -> Decays:
        """Multiply all decays, those of the features perhaps by another factor."""
        return Decays(
            by * self.weight_decay,
            (by if features_by is None else features_by) * self.feature_decay,
            None if self.bias_decay is None else by * self.bias_decay,
        )


def no_half(decays: Decays) -> Decays:
    """Convert penalties ``decay * ||.||^2``, without the one half.

    Examples
    --------
    >>> no_half(Decays(0.25, 0.5, None))
    Decays(weight_decay=0.5, feature_decay=1.0, bias_decay=None)
    """
    return decays.scaled(2.0)


def summed_loss(decays: Decays, num_samples: int) -> Decays:
    """Convert the decays beside a loss that is summed over the ``num_samples`` samples."""
    return decays.scaled(1 / num_samples)


def batch_features(
    decays: Decays, num_samples: int, batch_size: int, loss_scale: float = 1.0
) -> Decays:
    """Convert the decays of a training step whose features are summed over the batch.

    The step minimises ``loss_scale * mean loss + (weight_decay / 2) ||W||^2
    + (feature_decay / 2) sum_{i in batch} ||h_i||^2``.

    Raises
    ------
    ValueError
        If the batch is larger than the training set, or the scale no positive number.
    """
    batch_size = batch_of(batch_size, num_samples)
    scale = positive_float("loss_scale", loss_scale)
    return decays.scaled(1 / scale, batch_size / (num_samples * scale))


def weighted_mean(weights: NDArray[np.float64], samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """Convert weights whose sum over the samples divides the loss; one a class or group each."""
    return weights * float(samples.sum() / (samples @ weights))


def batch_of(batch_size: Any, num_samples: int) -> int:
    """Return a batch size, or refuse one that is larger than the training set."""
    size = whole_number("batch_size", batch_size)
    if size > num_samples:
        raise ValueError(f"batch_size: got {size}, more than the {num_samples} samples")
    return size
