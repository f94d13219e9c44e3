"""What a run trains on, as `tightframe.runs.train` sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.utils import data as torch_data

from tightframe.problem.problem import Problem
from tightframe.training.measuring import Arrays, MeasuringCallback, Row
from tightframe.training.module import CollapseModule

__all__ = ["Arrays", "Task"]


class Task(Protocol):
    """A data set with its problems: what is trained, recorded and judged of a setting.

    A solution is that of a setting's problem, `final` what its callback measured last.
    """

    @property
    def config(self) -> Any:
        """The configuration, with what only the data say."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problem of every setting."""

    def module(self, solution: Any) -> CollapseModule:
        """Return a new network with the loss of the problem."""

    def callback(
        self, solution: Any, on_measure: Callable[[list[Row]], None] | None
    ) -> MeasuringCallback[Any]:
        """Return what measures the network against the solution."""

    def loader(self) -> torch_data.DataLoader[tuple[Tensor, ...]]:
        """Return the training batches."""

    def prediction(self, solution: Any) -> tuple[dict[str, Any], Arrays]:
        """Return what ``prediction.json`` and ``prediction.npz`` hold."""

    def class_arrays(self, kept: Sequence[Arrays], final: Any) -> Arrays | None:
        """Return what ``classes.npz`` holds, of what the callback has kept; None: no such file."""

    def final_arrays(self, final: Any) -> Arrays:
        """Return what ``final.npz`` holds."""

    def judged(self, solution: Any, final: Any) -> tuple[list[str], list[dict[str, Any]]]:
        """Return in which ways the training is not that of the problem, and the verdicts."""
