"""`ClassMoments`: counts, means and covariances of a stream of features, gathered in one pass.

Deviations from the anchors wait in a block of rows, so that small batches share one large product.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tightframe.checks import choice, is_whole, number_of, whole_number
from tightframe.metrics.moments import (
    Moments,
    add_,
    choose_anchors_,
    empty,
    merge,
    of_frequent,
    of_present,
)
from tightframe.metrics.panels import PRODUCT_TYPES, mirror
from tightframe.metrics.plain import plain_tensors
from tightframe.metrics.readings import Readings
from tightframe.metrics.samples import NONFINITE, accepted
from tightframe.metrics.tall import BLOCK_ENTRIES, is_tall
from tightframe.shown import Shown

#: Rows of one product: more gain nothing, fewer leave the processor's peak.
BLOCK_ROWS = 1024

#: Entries between two rows of the block: apart by a power of two, they would fall on the same
#: lines of the processor's cache.
_PADDING = 16

#: Entries of a saved state.
_TENSORS = Moments._fields[:5]
_TALLIES = Moments._fields[5:]


class ClassMoments(Shown, Readings):
    """Counts, means and covariances of the features of every class, gathered in one pass.

    Parameters
    ----------
    num_classes : int
        Number of classes K; labels run from 0 to K - 1.
    dim : int, optional
        Width D of the features. ``None`` takes it from the first batch.
    scatter : bool
        Keep the pooled D x D matrix that `within` and NC1 need. Without it ("trace only") an
        update costs O(B D), not O(B D^2), and everything else still works.
    dtype : torch.float64 or torch.float32
        Type in which the products behind that matrix are computed; all sums are float64 anyway.
        float32 costs accuracy in `within` alone, see the notes. On CUDA it obeys
        `torch.set_float32_matmul_precision`.
    device : torch.device or str, optional
        Where the sums live; batches are moved there. ``None`` takes the device of the first batch,
        or the CPU where that device has no float64 (MPS).
    buffer : int, optional
        Rows gathered before they are multiplied. ``None`` takes 1024, or as many as fit in 16 MiB.
        Whatever is read is complete: readers add the waiting rows first.
    ignore_index : int, optional
        Rows with this label are left out unseen and counted in `num_ignored`: -100 marks padding
        in language models. It may be one of the classes, which then stays without samples.
    nonfinite : {"raise", "drop"}
        Refuse a batch that has a NaN, an infinite entry or one above 1e140, or drop such rows with
        a RuntimeWarning the first time and count them in `num_dropped`.

    Raises
    ------
    ValueError
        If ``num_classes``, ``dim`` or ``buffer`` is not a positive whole number, ``ignore_index``
        not a whole number, another option not one of those above, or the device has no float64.

    Notes
    -----
    Covariances are divided by the number of samples, not by one less, as in Papyan et al. (2020).
    Memory is 16 K D + 8 D^2 bytes and 8 D for every row of the buffer. Where K x D float64 numbers
    take at most 16 MiB, the few such matrices that metrics derive stay until the next update. Where
    they take more than 256 MiB, as of a large vocabulary, float32 samples need 12 K D, 16-bit ones
    10 K D, and metrics compute what they derive in blocks of rows.
    Labels are never expanded to one-hot rows.

    Products are computed only up to the diagonal, in little more than half the operations of a
    general product. With ``dtype=torch.float32`` the relative error of NC1 on the three cases of
    ``benchmarks/README.md`` is up to 3e-7 (float64: 3e-15). On the CPU that saves no time worth
    having (at D = 2048 none was measured); it is for devices whose float64 is slow.

    Examples
    --------
    >>> import torch
    >>> moments = ClassMoments(num_classes=2)
    >>> moments.update(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1]))
    ClassMoments(num_classes=2, dim=2, scatter=True, num_samples=3)
    >>> moments.means.tolist()
    [[2.0, 0.0], [0.0, 5.0]]
    """

    _block: Block | None = None  # rows that are not summed yet
    _narrow = True  # whether large anchors may have the samples' own type
    _shared = False  # whether others read the tensors, which are then not written to

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        *,
        scatter: bool = True,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
        buffer: int | None = None,
        ignore_index: int | None = None,
        nonfinite: str = "raise",
    ) -> None:
        num_classes = whole_number("num_classes", num_classes)
        self._dim = None if dim is None else whole_number("dim", dim)
        self._scatter = bool(scatter)
        if dtype not in PRODUCT_TYPES:
            allowed = ", ".join(str(t) for t in PRODUCT_TYPES)
            raise ValueError(f"dtype: got {dtype}, allowed are {allowed}")
        self._dtype = dtype
        self._device = None if device is None else torch.device(device)
        if self._device is not None and float64_device(self._device) != self._device:
            raise ValueError(f"device: got {device}, need one that has float64, such as 'cpu'")
        self._buffer = None if buffer is None else whole_number("buffer", buffer)
        if ignore_index is not None and not is_whole(ignore_index):
            raise ValueError(f"ignore_index: got {ignore_index!r}, need a whole number or None")
        self._ignore_index = ignore_index
        choice("nonfinite", nonfinite, NONFINITE)
        self._nonfinite = nonfinite
        # Arrays of width D wait for the first batch, which may bring D and the device.
        with plain_tensors():
            self._moments = empty(num_classes, 0, self._scatter, self._device)

    def __repr__(self) -> str:
        """Show sizes, not numbers."""
        return (
            f"ClassMoments(num_classes={self.num_classes}, dim={self.dim}, "
            f"scatter={self.scatter}, num_samples={self.num_samples})"
        )

    def _blocks(self) -> Iterator[str]:
        yield repr(self)

    @property
    def dim(self) -> int | None:
        """Width D of the features, None while unknown."""
        return super().dim or self._dim

    @plain_tensors()
    def __getstate__(self) -> dict[str, Any]:
        self._add_block()
        # A copy makes its own block when it needs one.
        return self.__dict__ | {"_block": None, "_snapshot": None}

    @plain_tensors()
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.adopt(self._moments)

    # -- gathering -----------------------------------------------------------------------------

    @plain_tensors()
    def update(self, features: Any, labels: Any) -> ClassMoments:
        """Add a batch of samples.

        A refused batch changes nothing. Gradients are not followed and no graph is kept alive.

        Parameters
        ----------
        features : tensor or array_like, shape (B, D) or (..., D)
            Of any floating or whole-number type; B may be 0 or 1. Converted to float64 before the
            first subtraction. More axes are samples too, such as the tokens of a batch of
            sequences (B, T, D); rows are then counted as if flattened.
        labels : tensor or array_like, shape (B,) or (B, 1), or (...)
            Whole numbers from 0 to K - 1, or ``ignore_index``.

        Returns
        -------
        ClassMoments
            This object.

        Raises
        ------
        ValueError
            If a shape, type or label is wrong, or a feature is NaN, infinite or above 1e140 (and
            is not to be dropped).
        """
        x, y, ignored, dropped = accepted(
            features,
            labels,
            num_classes=self.num_classes,
            dim=self.dim,
            ignore_index=self._ignore_index,
            nonfinite=self._nonfinite,
        )
        if dropped and not self.num_dropped:
            warnings.warn(
                f"features: dropped {number_of(dropped, 'row')} with NaN, infinite or too "
                f"large entries; "
                "num_dropped counts those to come",
                RuntimeWarning,
                stacklevel=3,
            )
        if self._shared:
            self.adopt(Moments(*(t.clone() for t in self._moments)))
        if ignored or dropped:
            self._moments.ignored.add_(ignored)
            self._moments.dropped.add_(dropped)
        if x.shape[0] == 0:
            return self
        if self._moments.anchors.shape[1] != x.shape[1]:
            device = self._device or float64_device(x.device)
            kind = _kind(x) if self._narrow else torch.float64
            kind = kind if is_tall(self.num_classes, x.shape[1]) else torch.float64
            fresh = empty(self.num_classes, x.shape[1], self._scatter, device, kind)
            tallies = (n.to(device) for n in (self._moments.ignored, self._moments.dropped))
            self.adopt(Moments(*fresh[:5], *tallies))
        self._snapshot = None
        kind = torch.promote_types(self._moments.anchors.dtype, _kind(x))
        if kind != self._moments.anchors.dtype:  # a sample that is an anchor loses nothing
            self._moments = self._moments._replace(anchors=self._moments.anchors.to(kind))
        x, y = x.to(self.device), y.to(self.device)
        if self._block is None:
            self._block = Block(self._moments, self._buffer)
        choose_anchors_(self._moments, self._block.known, x, y)
        start = 0
        while start < len(x):
            start += self._block.fill(x[start:], y[start:], self._moments.anchors)
            if self._block.waiting == len(self._block.rows):
                self._add_block()
        return self

    @plain_tensors()
    def merge(self, other: ClassMoments) -> ClassMoments:
        """Add the samples gathered by another object, for example on another machine.

        The order of merges does not matter beyond rounding, and either side may be empty.

        Parameters
        ----------
        other : ClassMoments
            Of the same ``num_classes``, ``dim`` and ``scatter``; it is left unchanged.

        Returns
        -------
        ClassMoments
            This object.

        Raises
        ------
        ValueError
            If the two do not fit together.
        """
        if not isinstance(other, ClassMoments):
            raise ValueError(f"other: got {type(other).__name__}, need a ClassMoments")
        for name in ("num_classes", "scatter", "dim"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs and not (name == "dim" and None in (mine, theirs)):
                raise ValueError(f"other: its {name} is {theirs}, need {mine} as here")
        mine, theirs = self.tensors(), other.tensors()
        if other.num_samples == 0:
            tallies = (a + b.to(self.device) for a, b in zip(mine[5:], theirs[5:], strict=True))
            self._moments = Moments(*mine[:5], *tallies)
            return self
        device = self._device or (self.device if self.num_samples else theirs.counts.device)
        theirs = Moments(*(t.to(device) for t in theirs))
        if self.num_samples == 0:
            tallies = (a.to(device) + b for a, b in zip(mine[5:], theirs[5:], strict=True))
            return self.adopt(Moments(*(t.clone() for t in theirs[:5]), *tallies))
        return self.adopt(merge(mine, theirs))

    @plain_tensors()
    def present(self) -> ClassMoments:
        """Return the moments of the classes that have samples, renumbered in order.

        For streams in which classes are missing: ``moments.present().means`` has no row for them.

        Raises
        ------
        ValueError
            If there are no samples at all.
        """
        self._require_samples("present")
        moments = of_present(self.tensors())
        out = ClassMoments(len(moments.counts), scatter=self._scatter, device=self._device)
        return out.adopt(moments)

    @plain_tensors()
    def at_least(self, min_count: int) -> ClassMoments:
        """Return the moments without the samples of classes that have fewer than so many.

        Of a language model's vocabulary: the mean of a class seen once is that sample, its
        variance is 0, and two such classes in one context make CDNV infinite.

        Parameters
        ----------
        min_count : int
            1 or more. Rarer classes stay in their place, as if they had no samples. The scatter
            within classes is kept of all together and its trace of each, so Sigma_W gets the trace
            of the classes that are left; of classes seen once that is exact.

        Raises
        ------
        ValueError
            If it is no whole number above 0.
        """
        least = whole_number("min_count", min_count)
        out = ClassMoments(self.num_classes, scatter=self._scatter, device=self._device)
        out.adopt(of_frequent(self.share(), least))
        out.share()
        out.least = least
        return out

    # -- saving --------------------------------------------------------------------------------

    @plain_tensors()
    def state_dict(self) -> dict[str, Tensor | int]:
        """Return the state as tensors and whole numbers.

        ``torch.save`` it and ``torch.load(..., weights_only=True)``, or send it between processes.
        """
        state: dict[str, Tensor | int] = {
            "version": 1,
            "num_classes": self.num_classes,
            "dim": self.dim or 0,
            "scatter": int(self._scatter),
        }
        moments = {name: tensor.clone() for name, tensor in self.tensors()._asdict().items()}
        mirror(moments["products"])
        # One form, whatever is kept of them here.
        moments["anchors"] = moments["anchors"].double()
        moments["sums"][moments["counts"] == 0] = 0.0
        state |= {name: moments[name] for name in _TENSORS}
        return state | {name: int(moments[name]) for name in _TALLIES}

    @plain_tensors()
    def load_state_dict(self, state: Mapping[str, Tensor | int]) -> ClassMoments:
        """Replace what was gathered by a saved state; a refused state changes nothing.

        Parameters
        ----------
        state : mapping
            From `state_dict`, of the same ``num_classes``, ``scatter`` and (where given) ``dim``.

        Returns
        -------
        ClassMoments
            This object.

        Raises
        ------
        ValueError
            If an entry is missing, does not fit this object or is not finite.
        """
        missing = [
            n for n in ("version", "num_classes", "dim", "scatter", *_TENSORS) if n not in state
        ]
        if missing:
            raise ValueError(f"state: has no entry {missing[0]!r}; give what state_dict() returned")
        if state["version"] != 1:
            raise ValueError(f"state: got version {state['version']}, this release reads version 1")
        for name, mine in (("num_classes", self.num_classes), ("scatter", int(self._scatter))):
            if state[name] != mine:
                raise ValueError(f"state: its {name} is {state[name]}, need {mine} as here")
        dim = int(state["dim"])
        if self.dim is not None and dim not in (0, self.dim):
            raise ValueError(f"state: its dim is {dim}, need {self.dim} as here")
        counts = state["counts"]
        filled = isinstance(counts, Tensor) and bool(counts.any())
        like = empty(self.num_classes, dim if filled else 0, self._scatter)
        loaded = []
        for name, model in zip(_TENSORS, like[:5], strict=True):
            tensor = state[name]
            if (
                not isinstance(tensor, Tensor)
                or tensor.shape != model.shape
                or tensor.dtype != model.dtype
            ):
                got = getattr(tensor, "shape", type(tensor).__name__)
                raise ValueError(
                    f"state: {name} is {got}, need {model.dtype} of shape {tuple(model.shape)}"
                )
            if not bool(torch.isfinite(tensor).all()) or (name == "counts" and tensor.min() < 0):
                raise ValueError(f"state: {name} has entries out of range")
            loaded.append(tensor.to(self._device, copy=True))
        # States of before they were counted have no tallies.
        tallies = []
        for name in _TALLIES:
            tally = state.get(name, 0)
            if type(tally) is not int or tally < 0:
                raise ValueError(f"state: {name} is {tally!r}, need a whole number, at least 0")
            tallies.append(torch.tensor(tally, device=loaded[0].device))
        self._dim = dim or self._dim
        return self.adopt(Moments(*loaded, *tallies))

    # -- inside --------------------------------------------------------------------------------

    @plain_tensors()
    def tensors(self) -> Moments:
        """Return the state itself, not a copy, for `adopt`; `state_dict` is for everyone else."""
        self._add_block()
        return self._moments

    @plain_tensors()
    def adopt(self, moments: Moments) -> ClassMoments:
        """Go on from what another object's `tensors` returned, unchecked and not copied.

        Rows that wait are forgotten.
        """
        # What was made under inference mode could not be written to outside.
        self._moments = Moments(*(t.clone() if t.is_inference() else t for t in moments))
        self._block = self._snapshot = None
        self._shared = False
        return self

    def share(self) -> Moments:
        """Return `tensors`; the next update is made to a copy of them."""
        moments = self.tensors()
        self._shared = True
        return moments

    def _counts(self) -> Tensor:
        if self._block is None or not self._block.waiting:
            return self._moments.counts
        waiting = self._block.labels[: self._block.waiting]
        return self._moments.counts + torch.bincount(waiting, minlength=self.num_classes)

    def _add_block(self) -> None:
        """Add the waiting rows to the sums."""
        if self._block is not None and self._block.waiting:
            add_(self._moments, *self._block.take(), self._dtype)


class Block:
    """Rows that wait to be summed together, as deviations from their anchors.

    Parameters
    ----------
    moments : Moments
        What they will be added to.
    rows : int, optional
        How many; None takes `BLOCK_ROWS`, or as many as fit in `BLOCK_ENTRIES`.

    Attributes
    ----------
    rows : Tensor, shape (R, D + padding), float64
    labels : Tensor, shape (R,), int64
    waiting : int
        How many of them are filled.
    known : Tensor, shape (K,), bool
        Which classes have an anchor: a class whose first rows wait has one before it has a count.
    """

    def __init__(self, moments: Moments, rows: int | None = None) -> None:
        dim = moments.anchors.shape[1]
        size = rows or max(1, min(BLOCK_ROWS, BLOCK_ENTRIES // dim))
        self.rows = moments.sums.new_empty(size, dim + _PADDING)
        self.rows[:, dim:] = 0.0
        self.labels = moments.counts.new_empty(size)
        self.waiting = 0
        self.known = moments.counts > 0

    def fill(self, x: Tensor, y: Tensor, anchors: Tensor) -> int:
        """Take as many rows as there is room for, and return how many."""
        stop = min(self.waiting + len(x), len(self.rows))
        taken = stop - self.waiting
        into = self.rows[self.waiting : stop, : anchors.shape[1]]
        # Into rows that exist: fresh ones would cost more than the subtraction.
        if anchors.dtype == into.dtype:
            torch.index_select(anchors, 0, y[:taken], out=into)
        else:
            into.copy_(anchors[y[:taken]])
        torch.sub(x[:taken], into, out=into)
        self.labels[self.waiting : stop] = y[:taken]
        self.waiting = stop
        return taken

    def take(self) -> tuple[Tensor, Tensor]:
        """Return the waiting rows with their labels, which wait no longer."""
        stop, self.waiting = self.waiting, 0
        return self.rows[:stop], self.labels[:stop]


def _kind(x: Tensor) -> torch.dtype:
    """Return the type that holds the rows of a batch as they are."""
    return x.dtype if x.is_floating_point() else torch.float64


def float64_device(device: torch.device) -> torch.device:
    """Return the device, or the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device
