"""Where data sets come from: what is asked of a source, and what one has to do."""

from __future__ import annotations

import os
from typing import NamedTuple, Protocol

from tightframe.data.dataset import Dataset


class Request(NamedTuple):
    """What `tightframe.data.load` was asked for, checked.

    Attributes
    ----------
    name : str
        Under which the data set is registered.
    root : path-like or None
        Where to look for files first.
    download : bool
        Whether files that are nowhere may be fetched.
    train_per_class : int or None
        None: what the source has by default.
    seed : int
    """

    name: str
    root: str | os.PathLike[str] | None
    download: bool
    train_per_class: int | None
    seed: int


class Source(Protocol):
    """Where a data set comes from."""

    def load(self, request: Request) -> Dataset:
        """Return the data set under the name of the request."""
