"""What measuring callbacks have in common: when they measure, and what they keep of it."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import lightning

from tightframe.training.module import CollapseModule

#: One measurement: column name to number (NaN where a quantity is undefined).
Row = dict[str, float]


class HasRow(Protocol):
    """What one pass over the training set gives: numbers, and more."""

    @property
    def row(self) -> Row:
        """All columns but epoch, step and seconds."""


MeasuredT = TypeVar("MeasuredT", bound=HasRow)


class MeasuringCallback(lightning.Callback, ABC, Generic[MeasuredT]):
    """Measure at the start, every n epochs, and at the end.

    Each measurement is a row of `history`, which is part of the callback's state in a checkpoint: a
    resumed run continues it. The scalars also go to the Trainer's loggers.

    Parameters
    ----------
    columns : list of str
        Of a row, in order: epoch, step and seconds among them.
    every : int
        Epochs between measurements.
    on_measure : callable, optional
        Called with the history after every measurement.

    Raises
    ------
    ValueError
        If ``every`` is below 1.
    """

    def __init__(
        self,
        columns: list[str],
        every: int,
        on_measure: Callable[[list[Row]], None] | None,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every: got {every}, need at least 1")
        self.history: list[Row] = []
        self.final: MeasuredT | None = None
        self._columns = columns
        self._every = every
        self._on_measure = on_measure
        self._seconds = 0.0
        self._clock = time.perf_counter()

    @abstractmethod
    def measure(self, module: CollapseModule) -> MeasuredT:
        """Run the training set through a module, in eval mode and without gradients."""

    # -- Lightning's hooks -------------------------------------------------------------------------

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Measure the untrained network; after a resume the history has that row already."""
        self._clock = time.perf_counter()
        if not self.history:
            self._record(trainer, pl_module, epoch=0)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Measure, if it is time to."""
        epoch = trainer.current_epoch + 1
        if epoch % self._every == 0 or epoch == trainer.max_epochs:
            self._record(trainer, pl_module, epoch)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Measure once more if training stopped between two measurements (early stopping)."""
        if self.history and self.history[-1]["step"] != trainer.global_step:
            self._record(trainer, pl_module, trainer.current_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the history and the training time."""
        return {"history": [dict(row) for row in self.history], "seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the history of a checkpoint."""
        self.history = [dict(row) for row in state_dict["history"]]
        self._seconds = float(state_dict["seconds"])

    def _record(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, epoch: int
    ) -> None:
        if not isinstance(module, CollapseModule):
            raise ValueError(f"pl_module: got {type(module).__name__}, need a CollapseModule")
        self._seconds += time.perf_counter() - self._clock
        self.final = self.measure(module)
        row = {"epoch": epoch, "step": trainer.global_step, "seconds": self._seconds}
        row |= self.final.row
        self.history.append({name: row[name] for name in self._columns})
        scalars = {name: value for name, value in row.items() if math.isfinite(value)}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=trainer.global_step)
        if self._on_measure is not None:
            self._on_measure(self.history)
        self._clock = time.perf_counter()
