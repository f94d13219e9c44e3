"""`Course`: what is kept of the measurements of a training while it lasts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from tightframe.capture.pictures import is_shown
from tightframe.capture.record import MeanLogits, TrainingRecord
from tightframe.capture.sample import Sample
from tightframe.metrics.report import CollapseReport
from tightframe.problem.problem import Problem

#: Mean logits of more classes are not kept.
MOST_CLASSES = 128


class Course:
    """Mean logits of some measurements, accuracies of all, and some features of the last.

    Attributes
    ----------
    sample : Sample
        To be handed to what measures.
    report : CollapseReport or None
        The last.
    """

    def __init__(self) -> None:
        self.sample = Sample()
        self.report: CollapseReport | None = None
        self._moments: list[MeanLogits] = []
        self._last: MeanLogits | None = None
        self._accuracies: list[tuple[float, Any]] = []

    def add(self, report: CollapseReport, number: int, epoch: float, step: int) -> None:
        """Take note of the measurement of a number, from 1, after so many epochs and steps."""
        self.report, self._last = report, None
        if report.class_accuracy is not None:
            self._accuracies.append((epoch, report.class_accuracy.astype(np.float32)))
        if report.missing or len(report.counts) > MOST_CLASSES:
            return
        own = report.geometry.logits
        self._last = MeanLogits.of(epoch, step, own, (report.logits - own)[:, 0])
        if is_shown(number):
            self._moments.append(self._last)

    def record(
        self,
        network: str,
        history: Iterable[Mapping[str, Any]],
        *,
        on_training_set: bool | None,
        problem: Problem | None,
    ) -> TrainingRecord:
        """Return everything as a record.

        Raises
        ------
        ValueError
            If nothing was measured.
        """
        report = self.report
        if report is None:
            raise ValueError("record: nothing was measured yet")
        moments = list(self._moments)
        if self._last is not None and (not moments or moments[-1] is not self._last):
            moments.append(self._last)
        means, weight, bias = report.vectors()
        return TrainingRecord(
            network,
            report.measured_on,
            on_training_set,
            tuple(dict(row) for row in history),
            report.class_table(history=self._accuracies or None, problem=problem),
            tuple(moments),
            report.counts,
            means,
            weight,
            bias,
            *self.sample.arrays(),
            problem,
            report.remarks,
        )

    # -- in checkpoints ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what was kept of the measurements as tensors and numbers."""
        return {
            "moments": [(*m[:2], *map(torch.as_tensor, m[2:])) for m in self._moments],
            "accuracies": [(epoch, torch.as_tensor(own)) for epoch, own in self._accuracies],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what a checkpoint has."""
        self._moments = [
            MeanLogits(epoch, step, logits.numpy(), bias.numpy())
            for epoch, step, logits, bias in state["moments"]
        ]
        self._accuracies = [(epoch, own.numpy()) for epoch, own in state["accuracies"]]
