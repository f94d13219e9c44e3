"""All losses by name: to add one, write its file and list it here."""

from __future__ import annotations

from tightframe.losses.base import Loss
from tightframe.losses.cross_entropy import CrossEntropy
from tightframe.losses.mse import MeanSquaredError

#: Name to loss; the first is the default of `Problem`.
LOSSES: dict[str, Loss] = {loss.name: loss for loss in (CrossEntropy(), MeanSquaredError())}
