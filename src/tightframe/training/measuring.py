"""What measuring callbacks have in common: when they measure, and what they keep of it."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, Generic, Protocol, TypeVar

import lightning
import numpy as np
import torch
from numpy.typing import NDArray

from tightframe.training.module import CollapseModule

#: One measurement: column name to number (NaN where a quantity is undefined).
Row = dict[str, float]

#: Arrays that are kept of one measurement besides its row.
Arrays = dict[str, NDArray[Any]]


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
    every : int or collection of int
        Epochs between measurements, or the epochs after which to measure.
    on_measure : callable, optional
        Called with the history after every measurement.
    keep : callable, optional
        Returns arrays of a measurement that are kept besides its row: in `kept`, with their
        ``epoch``, and in checkpoints.

    Raises
    ------
    ValueError
        If ``every`` is below 1.
    """

    def __init__(
        self,
        columns: list[str],
        every: int | Collection[int],
        on_measure: Callable[[list[Row]], None] | None,
        keep: Callable[[MeasuredT], Arrays] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(every, int) and every < 1:
            raise ValueError(f"every: got {every}, need at least 1")
        self.history: list[Row] = []
        self.kept: list[Arrays] = []
        self.final: MeasuredT | None = None
        self._columns = columns
        self._every = every if isinstance(every, int) else frozenset(every)
        self._on_measure = on_measure
        self._keep = keep
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
        every = self._every
        due = epoch % every == 0 if isinstance(every, int) else epoch in every
        if due or epoch == trainer.max_epochs:
            self._record(trainer, pl_module, epoch)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Measure once more if training stopped between two measurements (early stopping)."""
        if self.history and self.history[-1]["step"] != trainer.global_step:
            self._record(trainer, pl_module, trainer.current_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the history, what is kept besides, and the training time."""
        state: dict[str, Any] = {"history": [dict(row) for row in self.history]}
        if self.kept:  # as tensors: checkpoints are read without pickle
            state["kept"] = [
                {name: torch.from_numpy(array) for name, array in arrays.items()}
                for arrays in self.kept
            ]
        return state | {"seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the history of a checkpoint."""
        self.history = [dict(row) for row in state_dict["history"]]
        self.kept = [
            {name: tensor.numpy() for name, tensor in arrays.items()}
            for arrays in state_dict.get("kept", [])
        ]
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
        if self._keep is not None:
            self.kept.append({"epoch": np.array(epoch)} | self._keep(self.final))
        scalars = {name: value for name, value in row.items() if math.isfinite(value)}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, step=trainer.global_step)
        if self._on_measure is not None:
            self._on_measure(self.history)
        self._clock = time.perf_counter()
