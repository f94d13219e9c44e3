"""The problem: class counts, loss, decays, bias, features' sign and depth, in one convention.

Everything in tightframe minimises (``N`` samples, ``K`` classes, ``M`` linear layers)

    (1/N) sum_i loss(W_M ... W_1 h_i + b, y_i)
        + sum_m (weight_decay_m / 2) ||W_m||^2 + (feature_decay / 2) sum_i ||h_i||^2
        + (bias_decay / 2) ||b||^2

over the classifier, the bias and the features (the unconstrained feature model, UFM). Papers and
training scripts that write it differently are converted here, by the ``Problem.from_*``
constructors, and nowhere else.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LOSSES = ("cross_entropy", "mse")
BIASES = ("none", "free", "decayed")
FEATURES = ("real", "nonnegative")

#: Above this many classes a K x K array is refused (4096^2 doubles are 128 MiB).
MAX_DENSE_CLASSES = 4096

#: Decays outside this range would under- or overflow when multiplied.
DECAY_RANGE = (1e-100, 1e100)

#: More linear layers than this are refused.
MAX_DEPTH = 1000

#: Two sides of a collapse threshold this close, relatively, are equal but for rounding.
THRESHOLD_ROUNDING = 1e-14

#: What ``counts`` may be: one integer a class, or the compact text ``"500x5,100x5"``.
CountsLike = str | Iterable[int]


class Group(NamedTuple):
    """Classes of equal sample count.

    Attributes
    ----------
    count : int
        Samples in each of these classes.
    classes : int
        How many classes have that count.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    classes: int


def parse_counts(counts: CountsLike) -> tuple[Group, ...]:
    """Read class counts into runs of equal counts, in class order.

    Parameters
    ----------
    counts : str or iterable of int
        Samples per class: ``[500, 500, 100]`` or compactly ``"500x2,100"``.

    Returns
    -------
    tuple of Group
        Run-length form; neighbouring equal counts are joined.

    Raises
    ------
    ValueError
        If a count is not a positive integer, or there are fewer than two classes.
    """
    if isinstance(counts, tuple) and counts and isinstance(counts[0], Group):
        return counts  # read before
    pairs = _parse_text(counts) if isinstance(counts, str) else _parse_sequence(counts)
    runs: list[Group] = []
    for count, classes in pairs:
        if runs and runs[-1].count == count:
            runs[-1] = Group(count, runs[-1].classes + classes)
        else:
            runs.append(Group(count, classes))
    total = sum(run.classes for run in runs)
    if total < 2:
        raise ValueError(f"counts: got {total} class{'es' if total != 1 else ''}, need at least 2")
    if sum(run.count * run.classes for run in runs) > 2**53:
        raise ValueError("counts: more than 2**53 samples in all, which float64 cannot count")
    return tuple(runs)


def _parse_text(text: str) -> list[tuple[int, int]]:
    pairs = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})\s*(?:[x*]\s*(\d{1,18})\s*)?", part, re.ASCII)
        if match is None:
            raise ValueError(
                f"counts: cannot read {part.strip()!r} in {_shorten(text)!r}; "
                "write COUNT or COUNTxCLASSES with positive whole numbers, as in '500x5,100x5'"
            )
        count, classes = int(match[1]), int(match[2] or 1)
        if count < 1 or classes < 1:
            raise ValueError(f"counts: {part.strip()!r} has a zero; both numbers must be positive")
        pairs.append((count, classes))
    return pairs


def _parse_sequence(counts: Iterable[int]) -> list[tuple[int, int]]:
    if isinstance(counts, (bytes, bytearray)):
        raise ValueError(f"counts: got bytes, {_shorten(repr(counts))}; need text or integers")
    try:
        array = np.asarray(counts if isinstance(counts, np.ndarray) else list(counts))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"counts: got {_shorten(repr(counts))}; give one positive integer a class, "
            "or text such as '500x5,100x5'"
        ) from None
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"counts: got an array of shape {array.shape}; need one positive integer a class"
        )
    if array.dtype.kind not in "iuf":
        raise ValueError(f"counts: entries of type {array.dtype} are not positive integers")
    bad = ~np.isfinite(array) | (array < 1) | (array != np.floor(array)) | (array > 2**53)
    if bad.any():
        k = int(np.argmax(bad))
        raise ValueError(f"counts: class {k} has count {array[k]}; counts are positive integers")
    # Run lengths by comparison with the previous entry: one pass, no Python loop over classes.
    starts = np.flatnonzero(np.r_[True, array[1:] != array[:-1]])
    lengths = np.diff(np.r_[starts, array.size])
    return [(int(array[s]), int(length)) for s, length in zip(starts, lengths, strict=True)]


@dataclass(frozen=True, init=False)
class Problem:
    """One regularised classification problem of the unconstrained feature model.

    Parameters
    ----------
    counts : str or iterable of int
        Samples per class, as a sequence or compactly (``"500x5,100x5"``).
    loss : {"cross_entropy", "mse"}
        MSE is ``0.5 * ||z - e_y||^2``; both are averaged over the samples.
    weight_decay : float or sequence of float
        Decay of the linear layers, ``(weight_decay / 2) ||W||_F^2``. One number serves all
        ``depth`` layers; a sequence gives one number a layer, W_1 (next to the features) first.
    feature_decay : float
        Decay of the features, ``(feature_decay / 2) sum_i ||h_i||^2`` over all samples.
    bias : {"none", "free", "decayed"}
        Without bias, with an undecayed one, or with ``(bias_decay / 2) ||b||^2``.
    bias_decay : float, optional
        Required with ``bias="decayed"``, refused otherwise.
    features : {"real", "nonnegative"}
        ``"nonnegative"`` are ReLU features, ``H >= 0``.
    depth : int
        Number M of linear layers after the features.
    dim : int, optional
        Width of the features (and hidden linear layers). ``None`` means as wide as needed.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it, what came and what is allowed.

    Examples
    --------
    >>> Problem("500x5,100x5", weight_decay=5e-3, feature_decay=1e-3).num_classes
    10
    """

    runs: tuple[Group, ...]
    loss: str
    weight_decays: tuple[float, ...]
    feature_decay: float
    bias: str
    bias_decay: float
    features: str
    depth: int
    dim: int | None

    def __init__(
        self,
        counts: CountsLike,
        loss: str = "cross_entropy",
        *,
        weight_decay: float | Iterable[float],
        feature_decay: float,
        bias: str = "none",
        bias_decay: float | None = None,
        features: str = "real",
        depth: int = 1,
        dim: int | None = None,
    ) -> None:
        depth = whole_number("depth", depth)
        if depth > MAX_DEPTH:
            raise ValueError(f"depth: got {depth}, need at most {MAX_DEPTH}")
        set_field = object.__setattr__  # the class is frozen
        set_field(self, "runs", parse_counts(counts))
        set_field(self, "loss", _choice("loss", loss, LOSSES))
        set_field(self, "weight_decays", _layer_decays(weight_decay, depth))
        set_field(self, "feature_decay", _decay("feature_decay", feature_decay))
        set_field(self, "bias", _choice("bias", bias, BIASES))
        set_field(self, "bias_decay", _bias_decay(bias, bias_decay))
        set_field(self, "features", _choice("features", features, FEATURES))
        set_field(self, "depth", depth)
        set_field(self, "dim", None if dim is None else whole_number("dim", dim))

    # -- named constructors: other conventions, converted ------------------------------------

    @classmethod
    def from_no_half(
        cls,
        counts: CountsLike,
        loss: str = "cross_entropy",
        *,
        weight_decay: float,
        feature_decay: float,
        bias_decay: float | None = None,
        **rest: Any,
    ) -> Problem:
        """Convert decays written without the one half, ``decay * ||.||^2``.

        That is the convention of the Hong & Ling (2023) code: its ``reg_b`` is our
        ``bias_decay / 2``, and so for the others. Parameters are those of `Problem`.
        """
        decays = _scaled(2.0, 2.0, 2.0, weight_decay, feature_decay, bias_decay)
        return cls(counts, loss, **decays, **rest)

    @classmethod
    def from_summed_loss(
        cls,
        counts: CountsLike,
        loss: str = "cross_entropy",
        *,
        weight_decay: float,
        feature_decay: float,
        bias_decay: float | None = None,
        **rest: Any,
    ) -> Problem:
        """Convert an objective whose loss is summed, not averaged, over the samples.

        That is the ridge cross-entropy of Thrampoulidis et al. (2022). Dividing the objective by
        N leaves the minimisers alone and divides every decay by N.
        """
        runs = parse_counts(counts)  # once: counts may be an iterator
        share = 1 / sum(run.count * run.classes for run in runs)
        decays = _scaled(share, share, share, weight_decay, feature_decay, bias_decay)
        return cls(format_counts(runs), loss, **decays, **rest)

    @classmethod
    def from_batch_features(
        cls,
        counts: CountsLike,
        loss: str = "cross_entropy",
        *,
        weight_decay: float,
        feature_decay: float,
        batch_size: int,
        loss_scale: float = 1.0,
        bias_decay: float | None = None,
        **rest: Any,
    ) -> Problem:
        """Convert a training step whose features are summed over the batch.

        The step minimises ``loss_scale * mean loss + (weight_decay / 2) ||W||^2
        + (feature_decay / 2) sum_{i in batch} ||h_i||^2``, as the codes of Zhu et al. (2021) and
        Dang et al. (2023, 2024) do. Averaged over batches of ``batch_size`` from N samples, the
        features' sum over all samples carries ``feature_decay * batch_size / N``; dividing by
        ``loss_scale`` gives the UFM's constants.

        Parameters
        ----------
        batch_size : int
            Samples in one batch, at most N.
        loss_scale : float
            Factor in front of the mean loss: 1/2 in the Dang et al. codes' cross-entropy, and
            1/K where ``mse_loss / 2`` averages over all N K entries.
        """
        runs = parse_counts(counts)  # once: counts may be an iterator
        total = sum(run.count * run.classes for run in runs)
        batch_size = whole_number("batch_size", batch_size)
        if batch_size > total:
            raise ValueError(f"batch_size: got {batch_size}, more than the {total} samples")
        scale = positive_float("loss_scale", loss_scale)
        factors = (1 / scale, batch_size / (total * scale), 1 / scale)
        decays = _scaled(*factors, weight_decay, feature_decay, bias_decay)
        return cls(format_counts(runs), loss, **decays, **rest)

    def replace(self, **changes: Any) -> Problem:
        """Return a copy with some arguments of `Problem` changed."""
        fields: dict[str, Any] = {
            "counts": self.runs,
            "loss": self.loss,
            "weight_decay": self.weight_decays if self.depth > 1 else self.weight_decays[0],
            "feature_decay": self.feature_decay,
            "bias": self.bias,
            "bias_decay": self.bias_decay if self.bias == "decayed" else None,
            "features": self.features,
            "depth": self.depth,
            "dim": self.dim,
        }
        unknown = sorted(set(changes) - set(fields))
        if unknown:
            raise ValueError(f"{unknown[0]}: not an argument of Problem; there are {list(fields)}")
        return Problem(**(fields | changes))

    # -- derived quantities --------------------------------------------------------------------

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Distinct counts with their multiplicities, in order of first appearance."""
        sizes: dict[int, int] = {}
        for run in self.runs:
            sizes[run.count] = sizes.get(run.count, 0) + run.classes
        return tuple(Group(count, classes) for count, classes in sizes.items())

    @cached_property
    def class_groups(self) -> NDArray[np.intp]:
        """Index into `groups` for every class, shape (K,)."""
        index = {group.count: i for i, group in enumerate(self.groups)}
        return np.repeat(
            np.array([index[run.count] for run in self.runs], dtype=np.intp),
            [run.classes for run in self.runs],
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """Samples of every class, shape (K,)."""
        return np.repeat(
            np.array([run.count for run in self.runs], dtype=np.int64),
            [run.classes for run in self.runs],
        )

    @property
    def compact_counts(self) -> str:
        """The counts as compact text, ``"500x5,100x5"``."""
        return format_counts(self.runs)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return sum(run.classes for run in self.runs)

    @property
    def num_samples(self) -> int:
        """Number of samples N."""
        return sum(run.count * run.classes for run in self.runs)

    @property
    def weight_decay(self) -> float | tuple[float, ...]:
        """The layers' decay: one number where they agree, else one a layer."""
        return self.weight_decays[0] if len(set(self.weight_decays)) == 1 else self.weight_decays

    @property
    def logit_decay(self) -> float:
        """Factor of the nuclear norm of the logits, lambda = sqrt(weight_decay feature_decay).

        The papers' lambda_Z. Only for ``depth=1``.
        """
        if self.depth != 1:
            raise ValueError(
                f"logit_decay: defined for depth 1 only, this problem has {self.depth}"
            )
        return math.sqrt(self.weight_decays[0] * self.feature_decay)

    @property
    def mean_decay(self) -> float:
        """Geometric mean of all layers' decays and the features', ``mu``; lambda for one layer."""
        decays = (*self.weight_decays, self.feature_decay)
        return math.exp(math.fsum(map(math.log, decays)) / len(decays))

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments of `Problem` as JSON-ready values."""
        decays = self.weight_decay
        return {
            "counts": self.compact_counts,
            "loss": self.loss,
            "weight_decay": list(decays) if isinstance(decays, tuple) else decays,
            "feature_decay": self.feature_decay,
            "bias": self.bias,
            "bias_decay": self.bias_decay if self.bias == "decayed" else None,
            "features": self.features,
            "depth": self.depth,
            "dim": self.dim,
        }


def format_counts(runs: Iterable[Group]) -> str:
    """Write runs of counts as compact text, the inverse of `parse_counts`."""
    return ",".join(
        str(run.count) if run.classes == 1 else f"{run.count}x{run.classes}" for run in runs
    )


def require_dense(num_classes: int, what: str) -> None:
    """Refuse a K x K array that would not fit comfortably in memory.

    Raises
    ------
    ValueError
        If ``num_classes`` exceeds `MAX_DENSE_CLASSES`.
    """
    if num_classes > MAX_DENSE_CLASSES:
        raise ValueError(
            f"{what}: {num_classes} classes would need a {num_classes} x {num_classes} array; "
            f"at most {MAX_DENSE_CLASSES} classes are written out (use the blocks instead)"
        )


def positive_float(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise a ValueError that names the argument."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name}: got {_shorten(repr(value))}, need a positive number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"{name}: got {_shorten(str(value))}, need a finite number above 0")
    return number


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return ``value`` as an int of at least ``least``, or raise a ValueError that names it."""
    if (
        isinstance(value, (bool, np.bool_))
        or not isinstance(value, numbers.Integral)
        or value < least
    ):
        raise ValueError(
            f"{name}: got {_shorten(repr(value))}, need a whole number, at least {least}"
        )
    return int(value)


def at_most(a: float | NDArray[np.float64], b: float | NDArray[np.float64]) -> Any:
    """Return ``a <= b`` up to rounding: how every collapse threshold is compared."""
    return np.asarray(a) <= np.asarray(b) * (1 + THRESHOLD_ROUNDING)


def _decay(name: str, value: Any) -> float:
    number = positive_float(name, value)
    low, high = DECAY_RANGE
    if not low <= number <= high:
        raise ValueError(f"{name}: got {value}, need a number from {low:g} to {high:g}")
    return number


def _scaled(
    by_weight: float,
    by_feature: float,
    by_bias: float,
    weight_decay: Any,
    feature_decay: Any,
    bias_decay: Any,
) -> dict[str, Any]:
    return {
        "weight_decay": by_weight * positive_float("weight_decay", weight_decay),
        "feature_decay": by_feature * positive_float("feature_decay", feature_decay),
        "bias_decay": (
            None if bias_decay is None else by_bias * positive_float("bias_decay", bias_decay)
        ),
    }


def _layer_decays(value: Any, depth: int) -> tuple[float, ...]:
    if isinstance(value, numbers.Real) or not isinstance(value, Iterable) or isinstance(value, str):
        return (_decay("weight_decay", value),) * depth
    decays = tuple(_decay("weight_decay", item) for item in value)
    if len(decays) != depth:
        raise ValueError(
            f"weight_decay: got {len(decays)} numbers for depth {depth}; give one, or one a layer"
        )
    return decays


def _bias_decay(bias: str, bias_decay: Any) -> float:
    if bias == "decayed":
        if bias_decay is None:
            raise ValueError("bias_decay: missing; bias='decayed' needs a positive number")
        return _decay("bias_decay", bias_decay)
    if bias_decay is not None:
        raise ValueError(f"bias_decay: got {bias_decay} with bias={bias!r}; use bias='decayed'")
    return 0.0


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: got {_shorten(repr(value))}, allowed are {', '.join(allowed)}")
    return value


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
