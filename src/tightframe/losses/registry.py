"""All losses by name: to add one, write its file and list it here."""

from __future__ import annotations

from tightframe.losses.base import Loss
from tightframe.losses.mse import MeanSquaredError
from tightframe.losses.soft_labels import SoftCrossEntropy

#: Name to loss; the first is the default of `Problem`.
LOSSES: dict[str, Loss] = {loss.name: loss for loss in (SoftCrossEntropy(), MeanSquaredError())}
