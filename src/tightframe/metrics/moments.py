"""Class means and covariances of a stream of features, in one pass and in float64.

Every class has an *anchor*, its first sample, which is subtracted before anything is summed or
multiplied. The anchor lies inside its class, so the sums are of the size of the class's spread
and nothing cancels, however far from zero the features are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tightframe.problem import whole_number

#: How classes are averaged: all alike, or by their share of the samples.
WEIGHTINGS = ("class", "sample")

#: Larger features are refused: sums of their squares could overflow float64.
MAX_FEATURE = 1e140

#: Entries of one float64 working block (16 MiB); longer batches are taken in pieces.
BLOCK_ENTRIES = 2**21

_EPS = torch.finfo(torch.float64).eps
_TENSORS = ("counts", "anchors", "sums", "squares", "products")


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Compute without a graph, and on ordinary tensors even under ``torch.inference_mode``.

    State allocated as inference tensors could never be updated outside that mode.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


class ClassMoments:
    """Counts, means and covariances of the features of every class, gathered in one pass.

    Parameters
    ----------
    num_classes : int
        Number of classes K; labels run from 0 to K - 1.
    dim : int, optional
        Width D of the features. ``None`` takes it from the first batch.
    scatter : bool
        Keep the pooled D x D matrix that `within` and NC1 need. Without it an update costs
        O(B D), not O(B D^2), and everything else still works.
    device : torch.device or str, optional
        Where the sums live. ``None`` takes the device of the first batch. It must know float64.

    Raises
    ------
    ValueError
        If ``num_classes`` or ``dim`` is not a positive whole number.

    Notes
    -----
    Covariances are divided by the number of samples, not by one less, as in Papyan et al. (2020).
    Memory is 16 K D + 8 D^2 bytes. Labels are never expanded to one-hot rows.

    Examples
    --------
    >>> import torch
    >>> moments = ClassMoments(num_classes=2)
    >>> moments.update(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1]))
    ClassMoments(num_classes=2, dim=2, scatter=True, num_samples=3)
    >>> moments.means.tolist()
    [[2.0, 0.0], [0.0, 5.0]]
    """

    _counts: Tensor  # (K,) int64
    _anchors: Tensor  # (K, D), zero for classes without samples
    _sums: Tensor  # (K, D), of x - anchor
    _squares: Tensor  # (K,), of ||x - anchor||^2
    _products: Tensor  # (D, D), of (x - anchor)(x - anchor)^T; (0, 0) without scatter

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        *,
        scatter: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        self._num_classes = whole_number("num_classes", num_classes)
        self._dim = None if dim is None else whole_number("dim", dim)
        self._scatter = bool(scatter)
        self._device = None if device is None else torch.device(device)
        # Arrays of width D wait for the first batch, which may bring D and the device.
        with plain_tensors():
            self._set_state(_zeros(self._num_classes, 0, self._scatter, self._device))

    def __repr__(self) -> str:
        """Show sizes, not numbers."""
        return (
            f"ClassMoments(num_classes={self.num_classes}, dim={self.dim}, "
            f"scatter={self.scatter}, num_samples={self.num_samples})"
        )

    # -- gathering -----------------------------------------------------------------------------

    @plain_tensors()
    def update(self, features: Any, labels: Any) -> ClassMoments:
        """Add a batch of samples.

        A refused batch changes nothing. Gradients are not followed and no graph is kept alive.

        Parameters
        ----------
        features : tensor or array_like, shape (B, D)
            Any floating type; B may be 0 or 1. Converted to float64 before the first subtraction.
        labels : tensor or array_like, shape (B,) or (B, 1)
            Whole numbers from 0 to K - 1.

        Returns
        -------
        ClassMoments
            This object.

        Raises
        ------
        ValueError
            If a shape, type or label is wrong, or a feature is NaN, infinite or above 1e140.
        """
        x = checked_features(features, self._dim)
        y = self._checked_labels(labels, x.shape[0])
        if x.shape[0] == 0:
            return self
        device = self._device or x.device
        x, y = x.to(device), y.to(device)
        if self._anchors.shape[1] != x.shape[1]:
            self._device, self._dim = device, x.shape[1]
            self._set_state(_zeros(self._num_classes, x.shape[1], self._scatter, device))

        # Only the batch's own classes are touched: a batch of 128 costs no K x D array.
        classes, place, counts = torch.unique(y, return_inverse=True, return_counts=True)
        order = torch.arange(len(x), device=device)
        first = torch.full_like(classes, len(x)).scatter_reduce_(0, place, order, "amin")
        fresh = self._counts[classes] == 0
        anchors = torch.where(fresh[:, None], x[first].double(), self._anchors[classes])

        sums = torch.zeros_like(anchors)
        squares = torch.zeros_like(anchors[:, 0])
        products = self._products
        step = max(1, BLOCK_ENTRIES // x.shape[1])
        for start in range(0, len(x), step):
            where = place[start : start + step]
            deviations = x[start : start + step].double() - anchors[where]
            sums.index_add_(0, where, deviations)
            squares.index_add_(0, where, torch.linalg.vecdot(deviations, deviations))
            if self._scatter and start + step < len(x):
                products = torch.addmm(products, deviations.T, deviations)

        # All sums are made, and the state is still the old one. The last block is added in place:
        # for a batch of one block that saves a copy of D x D.
        if self._scatter:
            self._products = products.addmm_(deviations.T, deviations)
        self._anchors[classes] = anchors
        self._sums.index_add_(0, classes, sums)
        self._squares.index_add_(0, classes, squares)
        self._counts.index_add_(0, classes, counts)
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
        if other.num_samples == 0:
            return self
        device = self._device or other._counts.device
        counts, anchors, sums, squares, products = (t.to(device) for t in other._state())
        self._dim, self._device = other._dim, device
        if self.num_samples == 0:
            self._set_state([t.clone() for t in (counts, anchors, sums, squares, products)])
            return self

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
            state[name] = tensor.clone()
        return state

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
    @plain_tensors()
    def counts(self) -> Tensor:
        """Samples of every class, shape (K,), int64."""
        return self._counts.clone()

    @property
    def missing(self) -> list[int]:
        """Classes without samples, in order."""
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
        return self._anchors + self._sums / self._counts[:, None]

    @property
    @plain_tensors()
    def origin(self) -> Tensor:
        """Where `offsets` are taken from: the first sample of the first class, shape (D,)."""
        self._require_samples("origin")
        return self._anchors[int(torch.nonzero(self._counts)[0])].clone()

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
        self._require_all("mean_errors")
        lengths: Tensor = torch.linalg.vector_norm(self._offsets(), dim=1)
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
        mean: Tensor = self.origin + self.shares(weighting) @ self._offsets()
        return mean

    @plain_tensors()
    def centered_means(self, weighting: str = "class") -> Tensor:
        """Return the class means less their `global_mean`, shape (K, D), float64."""
        self._require_all("centered_means")
        offsets = self._offsets()
        return offsets - self.shares(weighting) @ offsets

    @property
    @plain_tensors()
    def traces(self) -> Tensor:
        """Trace of every class's covariance, its mean squared distance to its mean, (K,)."""
        self._require_all("traces")
        n = self._counts.double()
        shifts = torch.linalg.vecdot(self._sums, self._sums) / n
        traces: Tensor = (self._squares - shifts) / n
        return traces.clamp(min=0.0)

    @plain_tensors()
    def within(self) -> Tensor:
        """Return the within-class covariance Sigma_W, shape (D, D), float64.

        ``(1/N) sum_i (h_i - mu_{y_i})(h_i - mu_{y_i})^T``, an average over samples.

        Raises
        ------
        ValueError
            If it was not kept (``scatter=False``) or there are no samples.
        """
        if not self._scatter:
            raise ValueError("scatter: got False, Sigma_W needs ClassMoments(..., scatter=True)")
        self._require_samples("within")
        roots = self._counts.clamp(min=1).double().sqrt()
        shifts = self._sums / roots[:, None]
        covariance = (self._products - shifts.T @ shifts) / self.num_samples
        return (covariance + covariance.T) / 2

    @plain_tensors()
    def between(self, weighting: str = "class") -> Tensor:
        """Return the between-class covariance Sigma_B, shape (D, D), float64.

        ``sum_k p_k (mu_k - mu)(mu_k - mu)^T`` with the `shares` p and the `global_mean` mu of the
        same weighting.
        """
        shares = self.shares(weighting)
        offsets = self._offsets()
        centered = offsets - shares @ offsets
        return centered.T @ (centered * shares[:, None])

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

    def _state(self) -> list[Tensor]:
        return [self._counts, self._anchors, self._sums, self._squares, self._products]

    def _set_state(self, state: list[Tensor]) -> None:
        self._counts, self._anchors, self._sums, self._squares, self._products = state

    def _offsets(self) -> Tensor:
        # Anchors are samples, so their difference is taken before the small offsets are added.
        n = self._counts.clamp(min=1)[:, None]
        offsets = (self._anchors - self.origin) + self._sums / n
        return torch.where((self._counts > 0)[:, None], offsets, 0.0)

    def _require_samples(self, what: str) -> None:
        if self.num_samples == 0:
            raise ValueError(f"{what}: no samples were gathered; call update() first")

    def _require_all(self, what: str) -> None:
        self._require_samples(what)
        if self.missing:
            raise ValueError(
                f"{what}: {describe_classes(self.missing)} without samples; "
                "every class needs one, or use present()"
            )

    def _checked_labels(self, labels: Any, batch: int) -> Tensor:
        y = as_tensor("labels", labels)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if tuple(y.shape) != (batch,):
            raise ValueError(
                f"labels: got shape {tuple(y.shape)}, need ({batch},) or ({batch}, 1) "
                "as there are features"
            )
        if batch == 0:
            return y.long()
        if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise ValueError(f"labels: got type {y.dtype}, need whole numbers (class indices)")
        y = y.long()
        bad = (y < 0) | (y >= self._num_classes)
        if bool(bad.any()):
            i = int(torch.nonzero(bad)[0])
            raise ValueError(
                f"labels: got {int(y[i])} in row {i}, allowed are 0 to {self._num_classes - 1}"
            )
        return y


def as_tensor(name: str, value: Any) -> Tensor:
    """Return a tensor without graph from a tensor, array or nested list of real numbers.

    Raises
    ------
    ValueError
        If it cannot be read as one; the message names the argument.
    """
    if isinstance(value, Tensor):
        return value.detach()
    try:
        array = np.asarray(value)
        # Torch refuses foreign byte orders and negative strides, and warns of read-only memory.
        native = array.dtype.newbyteorder("=")
        return torch.from_numpy(np.require(array, native, requirements=["C", "W"]))
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}: got {type(value).__name__}, need a tensor or an array of real numbers"
        ) from None


def checked_features(features: Any, dim: int | None) -> Tensor:
    """Return features as a detached floating tensor of shape (B, D) with finite entries.

    Raises
    ------
    ValueError
        If the shape or type is wrong or an entry is NaN, infinite or above `MAX_FEATURE`.
    """
    x = as_tensor("features", features)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"features: got shape {tuple(x.shape)}, need (B, D), one row a sample")
    if not x.is_floating_point():
        raise ValueError(f"features: got type {x.dtype}, need a floating type")
    if dim is not None and x.shape[1] != dim:
        raise ValueError(f"features: got {x.shape[1]} columns, need {dim} as before")
    if x.element_size() == 1:
        x = x.float()  # the 8-bit types have no arithmetic
    if x.shape[0] == 0:
        return x
    low, high = torch.aminmax(x)  # NaN if any entry is
    if not (float(low) >= -MAX_FEATURE and float(high) <= MAX_FEATURE):
        bad = ~(x.cpu().double().abs() <= MAX_FEATURE).all(dim=1)
        row = int(torch.nonzero(bad)[0])
        raise ValueError(
            f"features: row {row} has an entry that is NaN, infinite or above {MAX_FEATURE:g}"
        )
    return x


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
