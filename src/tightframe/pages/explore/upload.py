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

from tightframe.array_files import read_named
from tightframe.pages.explore.margins import Margins, of_logits
from tightframe.problem.counts import compact_counts
from tightframe.problem.labels import class_counts
from tightframe.problem.problem import Problem

if TYPE_CHECKING:
    from tightframe.metrics import ClassTable, CollapseReport
    from tightframe.runs.network_files import SavedNetwork

#: Most bytes of a file, and of its arrays once they are unpacked.
MAX_UPLOAD = 256 * 2**20
MAX_UNPACKED = 512 * 2**20

#: Most columns of the features (their scatter matrix is D x D), classes, and numbers in the
#: features, which are computed with as float64.
MAX_WIDTH = 2048
MAX_CLASSES = 1000
MAX_NUMBERS = 2**26

#: Most bytes of a file of labels, and those that hold nothing else.
MAX_LABELS = 32 * 2**20
_LABELS = (".txt", ".csv", ".tsv", ".npy")

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
    def counts(self) -> str | None:
        """Samples of every class, as compact text; None where a class has none."""
        return None if self.report.missing else compact_counts(self.report.counts)

    @property
    def has_bias(self) -> bool:
        """Whether the classifier has a bias that is not zero."""
        return self.bias is not None and bool(np.any(self.bias))

    @property
    def samples(self) -> str:
        """How many samples there are, in words."""
        absent = len(self.report.missing)
        classes = f"counts {self.counts}"
        if absent:
            classes = f"{len(self.report.counts)} classes, {absent} of them without samples"
        return f"{self.report.num_samples} samples, {classes}"

    def fits(self, problem: Problem) -> bool:
        """Tell whether a problem has as many classes, and each of them is there."""
        return problem.num_classes == len(self.report.counts) and not self.report.missing

    def naming(self, problem: Problem) -> Problem:
        """Return a problem of these classes with their names."""
        return problem.replace(class_names=self.report.class_names)

    def margins(self, problem: Problem) -> Margins:
        """Return the mean margins of every group."""
        return of_logits(problem, self.report.logits)


def measure_file(
    path: Path, name: str, limit: int | None = MAX_UNPACKED, **options: Any
) -> Measured:
    """Read and measure a file.

    Parameters
    ----------
    path : Path
    name : str
        What the page calls it.
    limit : int, optional
        Most bytes of its arrays; None for a file of one's own, in any format.
    **options
        Of `tightframe.runs.network_files.read_network`.

    Raises
    ------
    ValueError
        If it is not what `tightframe measure` reads, or larger than the limits.
    """
    from tightframe.runs.measure import measure
    from tightframe.runs.network_files import read_network

    try:
        network = read_network(path, limit=limit, **options)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), name)) from None
    _require_small(network)
    found = measure(network)
    return Measured(name, found.report, found.classes, network.bias)


def _require_small(network: SavedNetwork) -> None:
    features, weight = network.features, np.asarray(network.weight)
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


def _has_labels_alone(path: Path) -> bool:
    """Tell whether a file can only be one of labels: nothing in it is a matrix."""
    if path.suffix in _LABELS:
        return True
    if path.suffix not in (".npz", ".safetensors") or path.stat().st_size > MAX_LABELS:
        return False
    try:
        arrays = read_named(path, MAX_UNPACKED)
    except ValueError:
        return False  # which measuring it says
    flat = all(array.ndim < 2 for array in arrays.values())
    return flat and bool(arrays) and not {"features", "weight"} & arrays.keys()


def _label_counts(path: Path, name: str) -> str:
    if path.stat().st_size > MAX_LABELS:
        raise ValueError(f"{name}: larger than {MAX_LABELS // 2**20} MiB, what labels may take")
    try:
        return compact_counts(class_counts(path).counts)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), name)) from None


class Shelf:
    """The files measured lately, by a name that cannot be guessed."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, Measured] = OrderedDict()
        self._lock = threading.Lock()  # one file at a time: the limits are for one

    def add(self, stream: IO[bytes], name: str) -> tuple[str, Measured] | tuple[None, str]:
        """Measure an uploaded file and return it with its key; of labels alone their counts.

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
            if _has_labels_alone(path):
                return None, _label_counts(path, name)
            measured = measure_file(path, name)
            return self.keep(measured), measured

    def keep(self, measured: Measured) -> str:
        """Put a file there and return its key."""
        key = secrets.token_urlsafe(16)
        self._files[key] = measured
        while len(self._files) > KEPT:
            self._files.popitem(last=False)
        return key

    def get(self, key: str | None) -> Measured | None:
        """Return a file, or None if it is not there (any more)."""
        return self._files.get(key or "")
