"""What loggers take besides numbers: those of TensorBoard, Weights & Biases and MLflow.

They are known by the names of their classes, so that none of them is imported here. What is not
known takes numbers only (`CSVLogger`, and everybody else's loggers).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.capture.embedding import Embedding

Pixels = NDArray[np.uint8]


class Sink(ABC):
    """A place for images, and perhaps for embeddings.

    Parameters
    ----------
    logger : object
        What has the methods.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    @abstractmethod
    def image(self, name: str, pixels: Pixels, step: int) -> None:
        """Log an image, shape (height, width, 3)."""

    def embedding(self, name: str, found: Embedding, step: int) -> None:  # noqa: B027
        """Log vectors with names; nothing, where there is no place for them."""


class _TensorBoard(Sink):
    """A ``SummaryWriter``; the projector shows the embedding."""

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        self.logger.add_image(name, pixels, global_step=step, dataformats="HWC")

    def embedding(self, name: str, found: Embedding, step: int) -> None:
        self.logger.add_embedding(
            found.vectors,
            metadata=found.rows,
            metadata_header=list(found.columns),
            global_step=step,
            tag=name,
        )
        self.logger.flush()


class _LightningTensorBoard(_TensorBoard):
    def __init__(self, logger: Any) -> None:
        super().__init__(logger.experiment)


class _HuggingFaceTensorBoard(_TensorBoard):
    def __init__(self, callback: Any) -> None:
        super().__init__(callback.tb_writer)

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        super().image(_rewritten(name), pixels, step)

    def embedding(self, name: str, found: Embedding, step: int) -> None:
        super().embedding(_rewritten(name), found, step)


class _LightningWandb(Sink):
    def image(self, name: str, pixels: Pixels, step: int) -> None:
        self.logger.log_image(key=name, images=[pixels], step=step)

    def embedding(self, name: str, found: Embedding, step: int) -> None:
        columns, rows = found.table()
        self.logger.log_table(key=name, columns=columns, data=rows, step=step)


class _HuggingFaceWandb(Sink):
    def __init__(self, callback: Any) -> None:
        super().__init__(callback._wandb)

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        self._log(name, self.logger.Image(pixels), step)

    def embedding(self, name: str, found: Embedding, step: int) -> None:
        columns, rows = found.table()
        self._log(name, self.logger.Table(columns=columns, data=rows), step)

    def _log(self, name: str, value: Any, step: int) -> None:
        self.logger.log({_rewritten(name): value, "train/global_step": step})


class _LightningMlflow(Sink):
    def image(self, name: str, pixels: Pixels, step: int) -> None:
        self.logger.experiment.log_image(self.logger.run_id, pixels, key=name, step=step)


class _HuggingFaceMlflow(Sink):
    def __init__(self, callback: Any) -> None:
        super().__init__(callback._ml_flow)

    def image(self, name: str, pixels: Pixels, step: int) -> None:
        self.logger.log_image(pixels, key=name, step=step)


def _rewritten(name: str) -> str:
    """Return a name as transformers' callbacks rewrite those of numbers, to stand beside them."""
    for split in ("eval", "test"):
        if name.startswith(f"{split}_"):
            return f"{split}/{name.removeprefix(f'{split}_')}"
    return f"train/{name}"


#: By the class of a Lightning logger, or of one of transformers' callbacks.
_SINKS: dict[str, type[Sink]] = {
    "TensorBoardLogger": _LightningTensorBoard,
    "WandbLogger": _LightningWandb,
    "MLFlowLogger": _LightningMlflow,
    "TensorBoardCallback": _HuggingFaceTensorBoard,
    "WandbCallback": _HuggingFaceWandb,
    "MLflowCallback": _HuggingFaceMlflow,
}


def sinks(loggers: Iterable[Any], failed: Callable[[str, Any, Exception], None]) -> list[Sink]:
    """Return the places that Lightning's loggers, or a ``transformers.Trainer``'s callbacks, have.

    Whatever takes no images has none.

    Parameters
    ----------
    loggers : iterable
    failed : callable
        Given the name of a sink, its logger and the error where there is no getting at the place: a
        logger may open its files, or ask its server, only then.
    """
    found = []
    for logger in loggers:
        kind = next(
            (_SINKS[c.__name__] for c in type(logger).__mro__ if c.__name__ in _SINKS), None
        )
        if kind is None:
            continue
        try:
            found.append(kind(logger))
        except Exception as error:
            failed(kind.__name__, logger, error)
    return [sink for sink in found if sink.logger is not None]
