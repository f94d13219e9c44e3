"""Dropped files: read within limits, measured once, kept for the page in memory."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.files import read_arrays
from tightframe.pages.explore.margins import Margins, of_logits
from tightframe.problem.counts import compact_counts
from tightframe.problem.problem import Problem

if TYPE_CHECKING:
    from tightframe.metrics import ClassTable, CollapseReport

#: Most bytes of a file, and of its arrays once they are unpacked.
MAX_UPLOAD = 256 * 2**20
MAX_UNPACKED = 512 * 2**20

#: Most columns of the features (their scatter matrix is D x D), classes, and numbers in the
#: features, which are computed with as float64.
MAX_WIDTH = 2048
MAX_CLASSES = 1000
MAX_NUMBERS = 2**26

#: Files that are kept; the oldest is forgotten first.
KEPT = 4

_BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class Measured:
    """A network's features, measured.

    Attributes
    ----------
    name : str
        Of the file.
    report : CollapseReport
    classes : ClassTable
    bias : ndarray, shape (K,), or None
    """

    name: str
    report: CollapseReport
    classes: ClassTable
    bias: NDArray[Any] | None

    @property
    def counts(self) -> str:
        """Samples of every class, as compact text."""
        return compact_counts(self.report.counts)

    def fits(self, problem: Problem) -> bool:
        """Tell whether a problem has as many classes."""
        return problem.num_classes == len(self.report.counts)

    def margins(self, problem: Problem) -> Margins:
        """Return the mean margins of every group."""
        return of_logits(problem, self.report.logits)


def measure_file(path: Path, name: str) -> Measured:
    """Read and measure a file.

    Raises
    ------
    ValueError
        If it is not what `tightframe measure` reads, or larger than the limits.
    """
    from tightframe.runs.measure import measure

    try:
        arrays = read_arrays(path, MAX_UNPACKED)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), name)) from None
    _require_small(arrays)
    found = measure(arrays)
    return Measured(name, found.report, found.classes, arrays.get("bias"))


def _require_small(arrays: dict[str, NDArray[Any]]) -> None:
    features, weight = (np.asarray(arrays.get(name, 0)) for name in ("features", "weight"))
    if features.ndim == 2 and features.shape[1] > MAX_WIDTH:
        raise ValueError(
            f"features: got {features.shape[1]} columns, this page measures up to {MAX_WIDTH}"
        )
    if features.size > MAX_NUMBERS:
        raise ValueError(
            f"features: got {features.size} numbers, this page measures up to {MAX_NUMBERS}"
        )
    if weight.ndim and len(weight) > MAX_CLASSES:
        raise ValueError(
            f"weight: got {len(weight)} classes, this page measures up to {MAX_CLASSES}"
        )


class Shelf:
    """The files measured lately, by a name that cannot be guessed."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, Measured] = OrderedDict()
        self._lock = threading.Lock()  # one file at a time: the limits are for one

    def add(self, stream: IO[bytes], name: str) -> tuple[str, Measured]:
        """Measure an uploaded file and return its key.

        Raises
        ------
        ValueError
            If it is refused; the message says why.
        """
        name = Path(name.replace("\\", "/")).name[:100] or "file"
        with self._lock, tempfile.TemporaryDirectory(prefix="tightframe-") as folder:
            path = Path(folder) / f"upload{Path(name).suffix[:16]}"
            size = 0
            with open(path, "wb") as file:
                while block := stream.read(_BLOCK):
                    size += len(block)
                    if size > MAX_UPLOAD:
                        raise ValueError(f"{name}: larger than {MAX_UPLOAD // 2**20} MiB")
                    file.write(block)
            measured = measure_file(path, name)
            key = secrets.token_urlsafe(16)
            self._files[key] = measured
            while len(self._files) > KEPT:
                self._files.popitem(last=False)
        return key, measured

    def get(self, key: str | None) -> Measured | None:
        """Return a file, or None if it is not there (any more)."""
        return self._files.get(key or "")
