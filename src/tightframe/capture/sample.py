"""Some of the features that pass, as many of every class: a training set is too large to keep."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Features that are kept, of all classes together.
MOST = 2000


class Sample:
    """The first features of every class that pass, on the CPU; none of more than `MOST` classes.

    Parameters
    ----------
    most : int
        Of all classes together.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.clear(1)

    def clear(self, num_classes: int) -> None:
        """Forget everything, to begin another pass over so many classes."""
        self._room = np.full(num_classes, self._most // num_classes)
        self._rows: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Take from a batch, shapes (B, D) and (B,), what there is room for."""
        if not self._room.any() or not len(labels):
            return
        own = labels.detach().cpu().numpy().astype(np.int64)
        order = np.argsort(own, kind="stable")
        ordered = own[order]
        # Which sample of its class in this batch each is.
        place = np.arange(len(own)) - np.searchsorted(ordered, ordered)
        taken = np.sort(order[place < self._room[ordered]])
        if not len(taken):
            return
        self._room -= np.bincount(own[taken], minlength=len(self._room))
        rows = features.detach()[torch.as_tensor(taken, device=features.device)]
        self._rows.append(rows.to("cpu", torch.float32))
        self._labels.append(torch.as_tensor(own[taken]))

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return what was kept: features (S, D) in single precision, and their labels (S,)."""
        if not self._rows:
            return np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.int64)
        return torch.cat(self._rows).numpy(), torch.cat(self._labels).numpy()
