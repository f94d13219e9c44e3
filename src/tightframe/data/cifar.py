"""CIFAR-10 and CIFAR-100 in the two formats of their authors: binary records, pickled dicts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tightframe.data.archives import read_members
from tightframe.data.dataset import Samples, as_labels, check_range
from tightframe.data.pickles import read_plain_pickle
from tightframe.files import require_fetched

#: Three planes (red, green, blue) of 32 x 32 bytes, row by row.
IMAGE_SHAPE = (3, 32, 32)

_PIXELS = 3 * 32 * 32
_MAX_BYTES = 2**30  # of one file; the largest there is has 155 MB


@dataclass(frozen=True)
class CifarFormat:
    """Where labels and images stand in the files of one of the two data sets.

    Attributes
    ----------
    num_classes : int
    binary : bool
        Records of bytes (``.bin``); otherwise pickled dicts.
    folder : str
        The folder that the archive holds, and unpacks into.
    files : tuple of str
        Names in ``folder``; the last one has the test samples, the others the training samples.
    label_bytes : int
        Bytes before the pixels of a record; the last of them is the label.
    label_key : str
        Key of the labels in a pickled dict.
    """

    num_classes: int
    binary: bool
    folder: str
    files: tuple[str, ...]
    label_bytes: int
    label_key: str

    def read_files(self, paths: Sequence[Path]) -> tuple[Samples, Samples]:
        """Read training and test samples from unpacked files, in the order of ``files``.

        Raises
        ------
        ValueError
            If a file is missing or not in this format; the message names it.
        """
        return _joined([self._samples(_read_bytes(path), os.fspath(path)) for path in paths])

    def read_archive(self, paths: Sequence[Path]) -> tuple[Samples, Samples]:
        """Read training and test samples from the ``.tar.gz`` archive, without unpacking it.

        Raises
        ------
        ValueError
            If the archive is missing or does not hold this format; the message names it.
        """
        (path,) = paths
        names = [f"{self.folder}/{file}" for file in self.files]
        members = read_members(path, names)
        # Popped, so that a member's bytes go as soon as they are read.
        return _joined([self._samples(members.pop(name), f"{path}: {name}") for name in names])

    def _samples(self, data: bytes, name: str) -> Samples:
        images, labels = self._records(data, name) if self.binary else self._unpickled(data, name)
        if len(images) == 0:
            raise ValueError(f"{name}: has no sample")
        check_range(f"{name}: label", labels, self.num_classes)
        return Samples(images.reshape(-1, *IMAGE_SHAPE), labels)

    def _records(self, data: bytes, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        length = self.label_bytes + _PIXELS
        if len(data) % length:
            raise ValueError(f"{name}: has {len(data)} bytes, need records of {length}")
        records = np.frombuffer(data, np.uint8).reshape(-1, length)
        return records[:, self.label_bytes :], records[:, self.label_bytes - 1].astype(np.int64)

    def _unpickled(self, data: bytes, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        content = read_plain_pickle(data, name)
        images, labels = content.get("data"), content.get(self.label_key)
        if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != _PIXELS:
            raise ValueError(f"{name}: 'data' is no array of shape (N, {_PIXELS})")
        if (
            not isinstance(labels, list)
            or len(labels) != len(images)
            or any(type(label) is not int for label in labels)
        ):
            raise ValueError(
                f"{name}: {self.label_key!r} is no list of {len(images)} whole numbers"
            )
        return images, as_labels(f"{name}: {self.label_key!r}", labels or np.zeros(0, np.int64))


def _format(num_classes: int, *, binary: bool) -> CifarFormat:
    ten = num_classes == 10
    ending = ".bin" if binary else ""
    if ten:
        stems: tuple[str, ...] = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    else:
        stems = ("train", "test")
    return CifarFormat(
        num_classes,
        binary,
        folder=f"cifar-10-batches-{'bin' if binary else 'py'}"
        if ten
        else f"cifar-100-{'binary' if binary else 'python'}",
        files=tuple(stem + ending for stem in stems),
        label_bytes=1 if ten else 2,  # CIFAR-100: the superclass comes first
        label_key="labels" if ten else "fine_labels",
    )


CIFAR10_BINARY = _format(10, binary=True)
CIFAR10_PYTHON = _format(10, binary=False)
CIFAR100_BINARY = _format(100, binary=True)
CIFAR100_PYTHON = _format(100, binary=False)


def _joined(parts: list[Samples]) -> tuple[Samples, Samples]:
    *train, test = parts
    if len(train) == 1:
        return train[0], test
    images = np.concatenate([part.inputs for part in train])
    return Samples(images, np.concatenate([part.labels for part in train])), test


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        require_fetched(path)
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ValueError(f"{path}: has {size} bytes, at most {_MAX_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
