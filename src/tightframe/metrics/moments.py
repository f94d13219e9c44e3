"""Class means and covariances of a stream of features, in one pass and in float64.

Every class has an *anchor*, its first sample, which is subtracted before anything is summed or
multiplied. The anchor lies inside its class, so the sums are of the size of the class's spread
and nothing cancels, however far from zero the features are.

Deviations from the anchors wait in a block of rows, so that small batches share one large product.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from tightframe.checks import whole_number
from tightframe.data.batches import as_tensor

if TYPE_CHECKING:
    from tightframe.metrics.snapshot import Snapshot

#: How classes are averaged: all alike, or by their share of the samples.
WEIGHTINGS = ("class", "sample")

#: Larger features are refused: sums of their squares could overflow float64.
MAX_FEATURE = 1e140

#: Entries of one float64 working block (16 MiB); longer batches are taken in pieces.
BLOCK_ENTRIES = 2**21

#: Rows of one product: more gain nothing, fewer leave the processor's peak.
BLOCK_ROWS = 1024

#: Types in which the products of deviations may be computed; they are summed in float64.
PRODUCT_TYPES = (torch.float64, torch.float32)

#: What may happen to rows with NaN, infinite or too large entries.
NONFINITE = ("raise", "drop")

_EPS = torch.finfo(torch.float64).eps
_TENSORS = ("counts", "anchors", "sums", "squares", "products")
_TALLIES = ("ignored", "dropped")
#: Least width of a panel of the product, and entries between two rows of the block.
_PANEL = 128
_PADDING = 16
#: Deviations between 2^-40 and 2^40 have float32 squares that sum with 7 digits.
_FLOAT32_EXPONENT = 40


_P = ParamSpec("_P")
_R = TypeVar("_R")


class plain_tensors(ExitStack):  # noqa: N801, used like torch.no_grad
    """Compute without a graph, and on ordinary tensors even under ``torch.inference_mode``.

    State allocated as inference tensors could never be updated outside that mode. A context
    manager and a decorator, like `torch.no_grad`.
    """

    def __enter__(self) -> plain_tensors:
        if torch.is_inference_mode_enabled():
            self.enter_context(torch.inference_mode(False))
        if torch.is_grad_enabled():
            self.enter_context(torch.no_grad())
        return self

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a function."""

        @wraps(function)
        def plain(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            # Changing modes takes as long as several small products, and metrics call each other.
            if torch.is_inference_mode_enabled():
                with plain_tensors():
                    return function(*args, **kwargs)
            if not torch.is_grad_enabled():
                return function(*args, **kwargs)
            torch.set_grad_enabled(False)
            try:
                return function(*args, **kwargs)
            finally:
                torch.set_grad_enabled(True)

        return plain


class ClassMoments:
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
    take at most 16 MiB, the few such matrices that metrics derive stay until the next update.
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

    _counts: Tensor  # (K,) int64, waiting rows included
    _anchors: Tensor  # (K, D), zero for classes without samples
    _sums: Tensor  # (K, D), of x - anchor
    _squares: Tensor  # (K,), of ||x - anchor||^2
    # (D, D), of (x - anchor)(x - anchor)^T; (0, 0) without scatter. Only what `_panels` cover is
    # kept up, the rest is its mirror image.
    _products: Tensor
    # (R, D + padding), of x - anchor; the first `_waiting` rows are not yet summed.
    _block: Tensor | None
    _block_labels: Tensor | None  # (R,) int64
    _waiting: int
    # What metrics derived from this state; see `Snapshot.of`.
    _snapshot: Snapshot | None = None

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
        self._num_classes = whole_number("num_classes", num_classes)
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
        whole = isinstance(ignore_index, int | np.integer) and not isinstance(ignore_index, bool)
        if ignore_index is not None and not whole:
            raise ValueError(f"ignore_index: got {ignore_index!r}, need a whole number or None")
        self._ignore_index = ignore_index
        if nonfinite not in NONFINITE:
            raise ValueError(f"nonfinite: got {nonfinite!r}, allowed are {', '.join(NONFINITE)}")
        self._nonfinite = nonfinite
        self._ignored = self._dropped = 0
        # Arrays of width D wait for the first batch, which may bring D and the device.
        with plain_tensors():
            self._set_state(_zeros(self._num_classes, 0, self._scatter, self._device))

    def __repr__(self) -> str:
        """Show sizes, not numbers."""
        return (
            f"ClassMoments(num_classes={self.num_classes}, dim={self.dim}, "
            f"scatter={self.scatter}, num_samples={self.num_samples})"
        )

    @plain_tensors()
    def __getstate__(self) -> dict[str, Any]:
        self._add_block()
        # A copy makes its own block when it needs one.
        return self.__dict__ | {"_block": None, "_block_labels": None, "_snapshot": None}

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
        x, y = _flattened(as_tensor("features", features), as_tensor("labels", labels))
        x = feature_rows(x, self._dim)
        x, y, ignored, dropped = self._accepted(x, _label_column(y, x.shape[0]))
        if dropped and not self._dropped:
            warnings.warn(
                f"features: dropped {dropped} rows with NaN, infinite or too large entries; "
                "num_dropped counts those to come",
                RuntimeWarning,
                stacklevel=3,
            )
        self._ignored += ignored
        self._dropped += dropped
        if x.shape[0] == 0:
            return self
        device = self._device or float64_device(x.device)
        x, y = x.to(device), y.to(device)
        if self._anchors.shape[1] != x.shape[1]:
            self._device, self._dim = device, x.shape[1]
            self._set_state(_zeros(self._num_classes, x.shape[1], self._scatter, device))
        self._snapshot = None
        self._set_anchors(x, y)
        block, block_labels = self._open_block()
        start = 0
        while start < len(x):
            stop = start + min(len(block) - self._waiting, len(x) - start)
            rows, where = x[start:stop], y[start:stop]
            filled = self._waiting + len(rows)
            into = block[self._waiting : filled, : x.shape[1]]
            # Into rows that exist: fresh ones would cost more than the subtraction.
            torch.index_select(self._anchors, 0, where, out=into)
            torch.sub(rows, into, out=into)
            block_labels[self._waiting : filled] = where
            self._counts.index_add_(0, where, torch.ones_like(where))
            self._waiting, start = filled, stop
            if filled == len(block):
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
        self._ignored, self._dropped = (
            self._ignored + other._ignored,
            self._dropped + other._dropped,
        )
        if other.num_samples == 0:
            return self
        self._add_block()
        device = self._device or other._counts.device
        counts, anchors, sums, squares, products = (t.to(device) for t in other._state())
        self._dim, self._device = other._dim, device
        if self.num_samples == 0:
            self._set_state([t.clone() for t in (counts, anchors, sums, squares, products)])
            return self

        self._snapshot = None
        # Their sums, moved from their anchor to ours; the two lie within one class's spread.
        known = (self._counts > 0)[:, None]
        shift = torch.where(known & (counts > 0)[:, None], anchors - self._anchors, 0.0)
        total = counts.double()
        moved = shift * total[:, None]
        if self._scatter:
            cross = sums.T @ shift
            self._products = self._products + products + cross + cross.T + shift.T @ moved
        self._squares = (
            self._squares
            + squares
            + 2 * torch.linalg.vecdot(sums, shift)
            + torch.linalg.vecdot(moved, shift)
        )
        self._sums = self._sums + sums + moved
        self._anchors = torch.where(known, self._anchors, anchors)
        self._counts = self._counts + counts
        return self

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
        kept = self._counts > 0
        self._add_block()
        out = ClassMoments(int(kept.sum()), self._dim, scatter=self._scatter, device=self._device)
        rows = (self._counts, self._anchors, self._sums, self._squares)
        out._set_state([*(t[kept] for t in rows), self._products.clone()])
        return out

    # -- saving --------------------------------------------------------------------------------

    @plain_tensors()
    def state_dict(self) -> dict[str, Tensor | int]:
        """Return the state as tensors and whole numbers.

        ``torch.save`` it and ``torch.load(..., weights_only=True)``, or send it between processes.
        """
        state: dict[str, Tensor | int] = {
            "version": 1,
            "num_classes": self._num_classes,
            "dim": self._dim or 0,
            "scatter": int(self._scatter),
        }
        for name, tensor in zip(_TENSORS, self._state(), strict=True):
            state[name] = _mirror(tensor.clone()) if name == "products" else tensor.clone()
        return state | dict(zip(_TALLIES, (self._ignored, self._dropped), strict=True))

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
        for name, mine in (("num_classes", self._num_classes), ("scatter", int(self._scatter))):
            if state[name] != mine:
                raise ValueError(f"state: its {name} is {state[name]}, need {mine} as here")
        dim = int(state["dim"])
        if self._dim is not None and dim not in (0, self._dim):
            raise ValueError(f"state: its dim is {dim}, need {self._dim} as here")
        counts = state["counts"]
        filled = isinstance(counts, Tensor) and bool(counts.any())
        like = _zeros(self._num_classes, dim if filled else 0, self._scatter, None)
        loaded = []
        for name, model in zip(_TENSORS, like, strict=True):
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
            tallies.append(tally)
        self._ignored, self._dropped = tallies
        self._dim = dim or self._dim
        if filled:
            self._device = loaded[0].device
        self._set_state(loaded)
        return self

    # -- what was gathered ---------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self._num_classes

    @property
    def dim(self) -> int | None:
        """Width D of the features, None while unknown."""
        return self._dim

    @property
    def scatter(self) -> bool:
        """Whether the pooled D x D matrix is kept."""
        return self._scatter

    @property
    def device(self) -> torch.device:
        """Where the sums live."""
        return self._counts.device

    @property
    def num_samples(self) -> int:
        """Number of samples N."""
        return int(self._counts.sum())

    @property
    def num_ignored(self) -> int:
        """Number of rows left out because of their label, ``ignore_index``."""
        return self._ignored

    @property
    def num_dropped(self) -> int:
        """Number of rows dropped because of a NaN, infinite or too large entry."""
        return self._dropped

    @property
    @plain_tensors()
    def counts(self) -> Tensor:
        """Samples of every class, shape (K,), int64."""
        return self._counts.clone()

    @property
    def missing(self) -> list[int]:
        """Classes without samples, in order."""
        if int(self._counts.min()) > 0:
            return []
        return [int(k) for k in torch.nonzero(self._counts == 0)]

    @property
    @plain_tensors()
    def means(self) -> Tensor:
        """Class means, shape (K, D), float64.

        Raises
        ------
        ValueError
            If a class has no samples (see `present`); this goes for the properties below too.
        """
        self._require_all("means")
        self._add_block()
        return self._anchors + self._sums / self._counts[:, None]

    @property
    @plain_tensors()
    def origin(self) -> Tensor:
        """Where `offsets` are taken from: the first sample of the first class, shape (D,)."""
        self._require_samples("origin")
        return self._first_anchor().clone()

    @property
    @plain_tensors()
    def offsets(self) -> Tensor:
        """Class means less `origin`, shape (K, D), float64.

        Differences of means keep all their digits here when the features are far from zero.
        """
        self._require_all("offsets")
        return self._offsets()

    @property
    @plain_tensors()
    def mean_errors(self) -> Tensor:
        """Estimated rounding error of every row of `offsets`, shape (K,), as a length.

        ``2 eps (sqrt(n_k) r_k + ||offset||)`` with r_k the root mean square distance of the class
        from its anchor: n_k float64 additions of terms of that size, by random-walk rounding.
        """
        lengths: Tensor = torch.linalg.vector_norm(self.offsets, dim=1)  # adds waiting rows
        return 2 * _EPS * (self._squares.sqrt() + lengths)

    @plain_tensors()
    def global_mean(self, weighting: str = "class") -> Tensor:
        """Return the mean of the class means, shape (D,), float64.

        Parameters
        ----------
        weighting : {"class", "sample"}
            ``"class"`` averages the K means alike, ``"sample"`` is the mean of all samples.

        Raises
        ------
        ValueError
            If there are no samples, or, with ``"class"``, if a class has none.
        """
        mean: Tensor = self.origin + self._mean_offset(weighting)
        return mean

    @plain_tensors()
    def centered_means(self, weighting: str = "class") -> Tensor:
        """Return the class means less their `global_mean`, shape (K, D), float64."""
        self._require_all("centered_means")
        return self._offsets() - self._mean_offset(weighting)

    @property
    @plain_tensors()
    def traces(self) -> Tensor:
        """Trace of every class's covariance, its mean squared distance to its mean, (K,)."""
        self._require_all("traces")
        self._add_block()
        n = self._counts.double()
        shifts = torch.linalg.vector_norm(self._sums, dim=1) / n
        traces = torch.addcmul(self._squares / n, shifts, shifts, value=-1.0)
        return traces.clamp_(min=0.0)

    @plain_tensors()
    def within(self) -> Tensor:
        """Return the within-class covariance Sigma_W, shape (D, D), float64.

        ``(1/N) sum_i (h_i - mu_{y_i})(h_i - mu_{y_i})^T``, an average over samples.

        Raises
        ------
        ValueError
            If it was not kept (``scatter=False``) or there are no samples.
        """
        shifts, share = self._shifts("within"), 1 / self.num_samples
        covariance = torch.empty_like(self._products)
        for left, right in _panels(len(covariance)):
            torch.addmm(
                self._products[left:right, :right],
                shifts[:, left:right].T,
                shifts[:, :right],
                beta=share,
                alpha=-share,
                out=covariance[left:right, :right],
            )
        return _mirror(covariance)

    @plain_tensors()
    def within_inner(self, matrix: Tensor) -> Tensor:
        """Return ``tr(Sigma_W M)`` of a symmetric matrix M, a number.

        The same as from `within`, without another D x D matrix.

        Parameters
        ----------
        matrix : Tensor, shape (D, D), float64
            On the device of the sums.

        Raises
        ------
        ValueError
            As `within`.
        """
        shifts, total = self._shifts("within_inner"), self._squares.new_zeros(())
        for left, right in _panels(len(matrix)):
            panel = torch.addmm(
                self._products[left:right, :right],
                shifts[:, left:right].T,
                shifts[:, :right],
                alpha=-1.0,
            )
            panel *= matrix[left:right, :right]
            # What a panel holds before its diagonal block stands for its mirror image, too.
            total += 2 * panel.sum() - panel[:, left:].sum()
        return total / self.num_samples

    @plain_tensors()
    def within_along(self, directions: Tensor) -> Tensor:
        """Return the within-class variances ``v^T Sigma_W v`` along directions v, shape (R,).

        The same as from `within`, without another D x D matrix.

        Parameters
        ----------
        directions : Tensor, shape (D, R), float64
            As columns, on the device of the sums.

        Raises
        ------
        ValueError
            As `within`.
        """
        self._require_scatter("within_along")
        along = (self._sums @ directions).square_()
        return torch.addmv(
            _quadratic_forms(self._products, directions),
            along.T,
            self._counts.clamp(min=1).double().reciprocal_(),
            alpha=-1.0,
        ).div_(self.num_samples)

    @plain_tensors()
    def between(self, weighting: str = "class") -> Tensor:
        """Return the between-class covariance Sigma_B, shape (D, D), float64.

        ``sum_k p_k (mu_k - mu)(mu_k - mu)^T`` with the `shares` p and the `global_mean` mu of the
        same weighting.
        """
        centered = self._offsets() - self._mean_offset(weighting)
        return centered.T @ (centered * self.shares(weighting)[:, None])

    @plain_tensors()
    def shares(self, weighting: str = "class") -> Tensor:
        """Return the classes' weights p, shape (K,), float64: 1/K, or n_k/N.

        Raises
        ------
        ValueError
            If there are no samples, or, with ``"class"``, if a class has none.
        """
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting: got {weighting!r}, allowed are {', '.join(WEIGHTINGS)}")
        self._require_samples("shares")
        if weighting == "sample":
            return self._counts.double() / self.num_samples
        self._require_all("weighting 'class'")
        return torch.full_like(self._squares, 1 / self._num_classes)

    # -- inside --------------------------------------------------------------------------------

    @plain_tensors()
    def tensors(self) -> list[Tensor]:
        """Return the state itself, not a copy, for `adopt`; `state_dict` is for everyone else."""
        return self._state()

    @plain_tensors()
    def adopt(self, tensors: list[Tensor], ignored: int, dropped: int) -> ClassMoments:
        """Go on from what another object's `tensors` returned, unchecked and not copied."""
        self._dim = tensors[1].shape[1] or self._dim
        self._set_state(tensors)
        self._ignored, self._dropped = ignored, dropped
        return self

    def _state(self) -> list[Tensor]:
        self._add_block()
        return [self._counts, self._anchors, self._sums, self._squares, self._products]

    def _set_state(self, state: list[Tensor]) -> None:
        """Take over tensors; rows that wait are forgotten."""
        self._counts, self._anchors, self._sums, self._squares, self._products = state
        self._block = self._block_labels = self._snapshot = None
        self._waiting = 0

    def _accepted(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, int, int]:
        """Return the rows to add, as int64 labels, and how many were ignored and dropped."""
        rows: Tensor | None = None  # where they were in the batch; None if all are there still
        ignored = dropped = 0
        if self._ignore_index is not None:
            seen = y != self._ignore_index
            ignored = len(y) - int(seen.sum())
            if ignored:
                rows = torch.nonzero(seen)[:, 0]
                x, y = x[rows.to(x.device)], y[rows]
        if len(y) == 0:
            return x, y, ignored, dropped
        low, high = torch.aminmax(y)
        if int(low) < 0 or int(high) >= self._num_classes:
            i = int(torch.nonzero((y < 0) | (y >= self._num_classes))[0])
            row = i if rows is None else int(rows[i])
            raise ValueError(
                f"labels: got {int(y[i])} in row {row}, allowed are 0 to {self._num_classes - 1}"
            )
        bad = unusable_rows(x)
        if bad is not None:
            if self._nonfinite == "raise":
                i = int(torch.nonzero(bad)[0])
                refuse_row(i if rows is None else int(rows[i]))
            dropped = int(bad.sum())
            x, y = x[~bad], y[~bad.to(y.device)]
        return x, y, ignored, dropped

    def _set_anchors(self, x: Tensor, y: Tensor) -> None:
        """Make the first row of every class that has none yet its anchor."""
        fresh = torch.nonzero(self._counts[y] == 0)[:, 0]
        if len(fresh):
            classes, place = torch.unique(y[fresh], return_inverse=True)
            first = torch.full_like(classes, len(x)).scatter_reduce_(0, place, fresh, "amin")
            self._anchors[classes] = x[first].double()

    def _open_block(self) -> tuple[Tensor, Tensor]:
        if self._block is None or self._block_labels is None:
            dim = self._anchors.shape[1]
            rows = self._buffer or max(1, min(BLOCK_ROWS, BLOCK_ENTRIES // dim))
            # Rows apart by a power of two would fall on the same lines of the processor's cache.
            self._block = self._anchors.new_empty(rows, dim + _PADDING)
            self._block[:, dim:] = 0.0
            self._block_labels = self._counts.new_empty(rows)
        return self._block, self._block_labels

    def _add_block(self) -> None:
        """Add the waiting rows to the sums."""
        if not self._waiting:
            return
        block, block_labels = self._open_block()
        padded, where = block[: self._waiting], block_labels[: self._waiting]
        rows = padded[:, : self._anchors.shape[1]]
        self._waiting = 0
        # Rows with gaps between them are added slowly: first whole ones, a sum a class.
        classes, place = torch.unique(where, return_inverse=True)
        sums = padded.new_zeros(len(classes), padded.shape[1]).index_add_(0, place, padded)
        self._sums.index_add_(0, classes, sums[:, : rows.shape[1]])
        # Not vecdot, which makes a product of the block's size first.
        self._squares.index_add_(0, where, torch.linalg.vector_norm(rows, dim=1).square())
        if self._scatter:
            _add_products(self._products, rows, self._dtype)

    def _first_anchor(self) -> Tensor:
        first = int(torch.nonzero(self._counts)[0]) if self.missing else 0
        return self._anchors[first]

    def _offsets(self) -> Tensor:
        self._require_samples("offsets")
        self._add_block()
        n = self._counts.double()[:, None]
        # Anchors are samples, so their difference is taken before the small offsets are added.
        offsets = (self._anchors - self._first_anchor()).addcdiv_(self._sums, n)
        if self.missing:
            offsets.masked_fill_((self._counts == 0)[:, None], 0.0)
        return offsets

    def _mean_offset(self, weighting: str) -> Tensor:
        """Return the global mean less `origin`."""
        if weighting == "class":
            self._require_all("weighting 'class'")
            return self._offsets().mean(dim=0)
        return self.shares(weighting) @ self._offsets()

    def _shifts(self, what: str) -> Tensor:
        """Return S with ``N Sigma_W = products - S^T S``: class means less anchors, times sqrt n.

        Sigma_W is an average over samples, so it needs no sample in every class.
        """
        self._require_scatter(what)
        return self._sums / self._counts.clamp(min=1).double().sqrt()[:, None]

    def _require_scatter(self, what: str) -> None:
        if not self._scatter:
            raise ValueError("scatter: got False, Sigma_W needs ClassMoments(..., scatter=True)")
        self._require_samples(what)
        self._add_block()

    def _require_samples(self, what: str) -> None:
        if self.num_samples == 0:
            raise ValueError(f"{what}: no samples were gathered; call update() first")

    def _require_all(self, what: str) -> None:
        if self.missing:
            self._require_samples(what)
            raise ValueError(
                f"{what}: {describe_classes(self.missing)} without samples; "
                "every class needs one, or use present()"
            )


def feature_rows(features: Any, dim: int | None) -> Tensor:
    """Return features as a detached tensor of shape (B, D), of a floating or whole-number type.

    Raises
    ------
    ValueError
        If the shape or type is wrong.
    """
    x = as_tensor("features", features)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"features: got shape {tuple(x.shape)}, need (B, D), one row a sample")
    if x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"features: got type {x.dtype}, need real numbers")
    if dim is not None and x.shape[1] != dim:
        raise ValueError(f"features: got {x.shape[1]} columns, need {dim} as before")
    if x.is_floating_point():
        return x.float() if x.element_size() == 1 else x  # the 8-bit types have no arithmetic
    wide = x.dtype in (torch.uint16, torch.uint32, torch.uint64)  # nor have these
    return x.double() if wide else x


def unusable_rows(x: Tensor) -> Tensor | None:
    """Return which rows have an entry that is NaN, infinite or above `MAX_FEATURE`; None if none.

    The mask has shape (B,), bool, on the rows' device.
    """
    if x.shape[0] == 0 or not x.is_floating_point():
        return None
    low, high = torch.aminmax(x)  # NaN if any entry is
    if float(low) >= -MAX_FEATURE and float(high) <= MAX_FEATURE:
        return None
    # Only float64 can hold the limit itself.
    limit = min(MAX_FEATURE, torch.finfo(x.dtype).max)
    return ~(x.abs() <= limit).all(dim=1)


def refuse_row(row: int) -> NoReturn:
    """Raise the ValueError for an unusable row of features."""
    raise ValueError(
        f"features: row {row} has an entry that is NaN, infinite or above {MAX_FEATURE:g}"
    )


def checked_features(features: Any, dim: int | None) -> Tensor:
    """Return `feature_rows` whose entries are all finite.

    Raises
    ------
    ValueError
        If the shape or type is wrong or an entry is NaN, infinite or above `MAX_FEATURE`.
    """
    x = feature_rows(features, dim)
    bad = unusable_rows(x)
    if bad is not None:
        refuse_row(int(torch.nonzero(bad)[0]))
    return x


def float64_device(device: torch.device) -> torch.device:
    """Return the device, or the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def describe_classes(classes: list[int], limit: int = 10) -> str:
    """Return ``"class 3 is"`` or ``"classes 3, 5 are"``, shortened where there are many."""
    if len(classes) == 1:
        return f"class {classes[0]} is"
    shown = ", ".join(str(k) for k in classes[:limit])
    more = f" and {len(classes) - limit} more" if len(classes) > limit else ""
    return f"classes {shown}{more} are"


def _zeros(num_classes: int, dim: int, scatter: bool, device: torch.device | None) -> list[Tensor]:
    def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device or "cpu")

    return [
        zeros(num_classes, dtype=torch.int64),
        zeros(num_classes, dim),
        zeros(num_classes, dim),
        zeros(num_classes),
        zeros(dim, dim) if scatter else zeros(0, 0),
    ]


def _flattened(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (..., D) with labels (...) as rows; other shapes as they are."""
    if x.ndim <= 2:
        return x, y
    if y.shape != x.shape[:-1]:
        raise ValueError(
            f"features: got shape {tuple(x.shape)}, need (B, D), one row a sample, or (..., D) "
            f"with labels of shape (...), which are {tuple(y.shape)}"
        )
    return x.reshape(-1, x.shape[-1]), y.reshape(-1)


def _label_column(y: Tensor, batch: int) -> Tensor:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if tuple(y.shape) != (batch,):
        raise ValueError(
            f"labels: got shape {tuple(y.shape)}, need ({batch},) or ({batch}, 1) "
            "as there are features"
        )
    if batch and (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool):
        raise ValueError(f"labels: got type {y.dtype}, need whole numbers (class indices)")
    return y.long()


def _add_products(products: Tensor, rows: Tensor, dtype: torch.dtype) -> None:
    """Add ``rows^T rows``, computed in a type, to the panels of float64 products."""
    if dtype == torch.float64:
        _add_square(products, rows)
        return
    # Squares of very small or large deviations leave float32; powers of two move them exactly.
    exponent = math.frexp(float(torch.linalg.vector_norm(rows, ord=math.inf)))[1]
    if abs(exponent) > _FLOAT32_EXPONENT:
        exponent = max(exponent, -1000)
        rows = rows * math.ldexp(1.0, -exponent)
    else:
        exponent = 0
    part = rows.new_zeros(products.shape, dtype=dtype)
    _add_square(part, rows.to(dtype))
    products.add_(part, alpha=math.ldexp(1.0, 2 * exponent))


def _add_square(products: Tensor, rows: Tensor) -> None:
    for left, right in _panels(rows.shape[1]):
        products[left:right, :right].addmm_(rows[:, left:right].T, rows[:, :right])


def _panels(dim: int) -> Iterator[tuple[int, int]]:
    """Yield first and last column of the panels of a D x D matrix that end at the diagonal.

    Torch has no symmetric rank-k update. Panels come near to one: sixteen of them are 17/32 of
    the whole product's work, each still wide enough for the processor's full rate.
    """
    width = max(_PANEL, -(-dim // 16))
    for left in range(0, dim, width):
        yield left, min(left + width, dim)


def _quadratic_forms(products: Tensor, vectors: Tensor) -> Tensor:
    """Return ``v^T P v`` for columns v, of a symmetric matrix P of which the panels are given."""
    image, weighted = [], vectors.clone()
    for left, right in _panels(len(products)):
        image.append(products[left:right, :right] @ weighted[:right])
        if right < len(products):
            # What later panels hold before their diagonal blocks stands for its mirror image, too.
            weighted[left:right].mul_(2.0)
    return torch.cat(image).mul_(vectors).sum(dim=0)


def _mirror(products: Tensor) -> Tensor:
    """Complete a symmetric matrix in place from its panels, and return it."""
    for left, right in _panels(len(products)):
        products[:left, left:right] = products[left:right, :left].T
        square = products[left:right, left:right]  # symmetric but for rounding
        square.copy_((square + square.T) / 2)
    return products
