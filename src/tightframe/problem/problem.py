"""The problem: class counts, loss, decays, bias, features' sign and depth, in one convention.

Everything in tightframe minimises (``N`` samples, ``K`` classes, ``M`` linear layers)

    (1/N) sum_i loss(W_M ... W_1 h_i + b, y_i)
        + sum_m (weight_decay_m / 2) ||W_m||^2 + (feature_decay / 2) sum_i ||h_i||^2
        + (bias_decay / 2) ||b||^2

over the classifier, the bias and the features (the unconstrained feature model, UFM). The loss may
weigh the classes, and cross-entropy change what it sees: ``class_weights[y_i] * loss(logit_scale *
(...) + logit_adjustment - class_margins[y_i] e_{y_i}, y_i)``, its label smoothed. Papers and
training scripts that write it differently are converted by the ``Problem.from_*`` constructors, see
`tightframe.problem.conventions`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import (
    choice,
    is_several,
    is_unordered,
    number_of,
    positive_float,
    shortened,
    whole_number,
)
from tightframe.lazy import loaded
from tightframe.losses.base import Loss
from tightframe.losses.registry import LOSSES as KNOWN_LOSSES
from tightframe.problem import conventions
from tightframe.problem.class_names import NamesLike, class_names_of
from tightframe.problem.conventions import Decays
from tightframe.problem.counts import (
    CountsLike,
    Group,
    PerClass,
    Runs,
    by_label,
    counts_array,
    format_runs,
    joined,
    lasting,
    names_in,
    num_classes,
    num_samples,
    parse_counts,
    parse_per_class,
    spread,
)
from tightframe.problem.targets import Targets, TargetsLike, label_sets, read_targets
from tightframe.problem.tokens import NextTokens, next_tokens
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame, plot

if TYPE_CHECKING:
    import pandas as pd

LOSSES = tuple(KNOWN_LOSSES)
BIASES = ("none", "free", "decayed")
FEATURES = ("real", "nonnegative")
SMOOTHING_WEIGHTS = ("own", "labels")


#: Arguments of `Problem` that change the loss or the decay cost of single classes or labels.
LOSS_ARGUMENTS = (
    "class_weights",
    "logit_adjustment",
    "label_smoothing",
    "smoothing_weights",
    "class_margins",
    "logit_scale",
    "feature_weights",
)

#: Decays outside this range would under- or overflow when multiplied.
DECAY_RANGE = (1e-100, 1e100)

#: Class weights outside this range, and logit adjustments or margins beyond this, are refused.
WEIGHT_RANGE = (1e-9, 1e9)
MAX_ADJUSTMENT = 1e3

#: Logit scales outside this range are refused.
SCALE_RANGE = (1e-3, 1e3)

#: More linear layers than this are refused.
MAX_DEPTH = 1000

#: Counts, or names, that take more letters are not written out where a problem is shown.
MOST_WRITTEN = 200

#: Two sides of a collapse threshold this close, relatively, are equal but for rounding.
THRESHOLD_ROUNDING = 1e-14


class Grouped(Protocol):
    """Classes in groups."""

    @property
    def num_groups(self) -> int:
        """Number of groups G."""

    @property
    def class_groups(self) -> NDArray[np.intp]:
        """Group of every class, shape (K,)."""


@dataclass(frozen=True, init=False)
class Problem(Shown, Saved):
    """One regularised classification problem of the unconstrained feature model.

    Parameters
    ----------
    counts : str, iterable of int, or mapping
        Samples per class, as a sequence, compactly (``"500x5,100x5"``), or by label: a mapping (or
        pandas Series) whose keys are the whole numbers 0 to K - 1, or names, which are taken in
        alphabetical order.
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
    dim : int or sequence of int, optional
        Width of the features and of what is between the linear layers. One number serves all; a
        sequence gives ``depth`` numbers, the features' first, then behind W_1, W_2 and so on.
        ``None`` means as wide as needed.
    class_weights : str, iterable of float, or mapping, optional
        Factor of the loss of every class's samples: a sequence, compact text (``"1x5,5x5"``), by
        label like ``counts``, or ``"balanced"`` for ``N / (K n_k)``. The sum
        is still divided by N; PyTorch's weighted mean divides by the samples' weights, see
        `from_weighted_mean`.
    logit_adjustment : str, iterable of float, or mapping, optional
        Added to the logits inside the loss only (Menon et al. 2021), cross-entropy only, in nats:
        a sequence, compact text, by label, or ``"prior"`` for ``log(n_k / N)``, with a factor in
        front (``"0.5*prior"``) if wanted. A constant added to all changes nothing.
    label_smoothing : float
        Share of every label that is spread evenly over all K classes, from 0 to below 1,
        cross-entropy only (Szegedy et al. 2016).
    smoothing_weights : {"own", "labels"}
        With class weights, what weighs the part of the loss that smoothing spreads over the
        labels: the weight of the sample's own class, or that of every label, as in PyTorch's
        ``CrossEntropyLoss(weight=..., label_smoothing=...)``, see `from_weighted_mean`.
    class_margins : str, iterable of float, or mapping, optional
        Taken off the own class's logit inside the loss (LDAM, Cao et al. 2019), one a class, in
        nats, cross-entropy only; below zero only without label smoothing.
    logit_scale : str, iterable of float, or mapping, optional
        Factor of every class's logit, its bias included, inside the loss (CDT, Ye et al. 2020; VS,
        Kini et al. 2021), one a class, cross-entropy only.
    feature_weights : {"samples", "contexts"} or str, iterable of float, or mapping
        Factor of ``(feature_decay / 2) ||h||^2`` of every class's mean: its count (decay of every
        sample), 1, or one number a class (LDT, factors kappa of the class's features: ``n /
        kappa^2``).
    targets : array_like or SciPy sparse matrix, shape (V, m), optional
        Label distributions: column j is what samples of context j are labelled with. ``counts``,
        ``class_weights`` and ``feature_weights`` are then one a context, and the classes are the V
        labels: next tokens, several labels a sample, label noise, soft labels. Cross-entropy with
        real features and one layer. Solved, certified, followed and trained; what needs one class
        a context refuses such problems by name.
    class_names : sequence of str, mapping, str or path-like, optional
        What tables, sentences and pictures call the classes, see
        `tightframe.problem.class_names.class_names_of`; by default the keys of ``counts`` where
        those are names. Keys of mappings may then be names too. Problems that differ in names only
        are equal.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it, what came and what is allowed.

    Examples
    --------
    >>> Problem("500x5,100x5", weight_decay=5e-3, feature_decay=1e-3).num_classes
    10
    >>> decays = {"weight_decay": 5e-3, "feature_decay": 1e-3}
    >>> Problem("500x5,100x5", class_weights="balanced", **decays).class_weights[[0, -1]].tolist()
    [0.6, 3.0]
    """

    runs: tuple[Group, ...]
    loss: str
    weight_decays: tuple[float, ...]
    feature_decay: float
    bias: str
    bias_decay: float
    features: str
    depth: int
    dim: int | tuple[int, ...] | None
    weight_runs: Runs
    adjustment_runs: Runs
    label_smoothing: float
    smoothing_weights: str
    margin_runs: Runs
    scale_runs: Runs
    feature_runs: Runs
    targets: Targets | None
    class_names: tuple[str, ...] | None = field(default=None, compare=False)

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
        dim: int | Iterable[int] | None = None,
        class_weights: PerClass | None = None,
        logit_adjustment: PerClass | None = None,
        label_smoothing: float = 0.0,
        smoothing_weights: str = "own",
        class_margins: PerClass | None = None,
        logit_scale: PerClass | None = None,
        feature_weights: PerClass = "samples",
        targets: TargetsLike | None = None,
        class_names: NamesLike | None = None,
    ) -> None:
        depth = whole_number("depth", depth)
        if depth > MAX_DEPTH:
            raise ValueError(f"depth: got {depth}, need at most {MAX_DEPTH}")
        set_field = object.__setattr__  # the class is frozen
        own = names_in(counts) if class_names is None else ()  # keys are then these alone
        names = (own or None) if class_names is None else class_names_of(class_names)
        terms = {
            "class_weights": class_weights,
            "logit_adjustment": logit_adjustment,
            "class_margins": class_margins,
            "logit_scale": logit_scale,
            "feature_weights": feature_weights,
        }
        if targets is not None and own:
            raise ValueError("targets: counts by name are of classes, need one count a context")
        if class_names is not None and targets is None:
            counts = by_label("counts", counts, names)
            terms = {name: by_label(name, value, names) for name, value in terms.items()}
        set_field(self, "runs", parse_counts(counts))
        table = None if targets is None else read_targets(targets, self.num_contexts)
        set_field(self, "targets", table)
        if names is not None and len(names) != self.num_classes:
            raise ValueError(
                f"class_names: got {len(names)}, counts are of {self.num_classes} classes"
            )
        set_field(self, "class_names", names)
        set_field(self, "loss", choice("loss", loss, LOSSES))
        set_field(self, "weight_decays", _layer_decays(weight_decay, depth))
        set_field(self, "feature_decay", _decay("feature_decay", feature_decay))
        set_field(self, "bias", choice("bias", bias, BIASES))
        set_field(self, "bias_decay", _bias_decay(bias, bias_decay))
        set_field(self, "features", choice("features", features, FEATURES))
        set_field(self, "depth", depth)
        set_field(self, "dim", _widths(dim, depth))
        for name, term in _TERMS.items():
            value = terms[name]
            runs = () if value is None else term.read(value, self.runs, own)
            runs = joined(runs)
            # What changes nothing is not kept: equal problems compare as equal.
            set_field(self, term.field, () if term.is_neutral(runs, self.runs) else runs)
        set_field(self, "label_smoothing", _smoothing(label_smoothing))
        weighs = choice("smoothing_weights", smoothing_weights, SMOOTHING_WEIGHTS)
        differ = self.label_smoothing and not self.has_equal_weights
        set_field(self, "smoothing_weights", weighs if differ else "own")
        self._require_terms_of_the_loss()
        if self.targets is not None:
            self._require_terms_of_targets()
        least = min((margin for margin, _ in self.margin_runs), default=0.0)
        if self.label_smoothing and least < 0:
            raise ValueError(
                f"class_margins: got {least:g} with label_smoothing {self.label_smoothing:g}; "
                "margins below zero are known without smoothing only"
            )

    def _require_terms_of_targets(self) -> None:
        """Refuse what problems with label distributions do not have."""
        settings = {
            "loss": (self.loss, "cross_entropy"),
            "features": (self.features, "real"),
            "depth": (self.depth, 1),
        }
        for name, (given, needed) in settings.items():
            if given != needed:
                raise ValueError(f"{name}: got {given!r} with targets, need {needed!r}")
        for name, term in _TERMS.items():
            if term.of_softmax and getattr(self, term.field):
                raise ValueError(f"{name}: got numbers with targets, which do not have it")
        if self.label_smoothing:
            raise ValueError(
                f"label_smoothing: got {self.label_smoothing} with targets; mix it into these"
            )
        assert self.targets is not None
        seen = np.zeros(self.targets.num_labels, dtype=bool)
        seen[self.targets.labels] = True
        if self.bias == "free" and not seen.all():
            raise ValueError(
                f"targets: no context has label {int(np.argmin(seen))}, whose bias would fall "
                "without end; leave it out, or use bias 'decayed' or 'none'"
            )

    def _require_terms_of_the_loss(self) -> None:
        if self.loss_object.takes_adjustment:
            return
        able = [repr(loss.name) for loss in KNOWN_LOSSES.values() if loss.takes_adjustment]
        need = f"need loss {' or '.join(able)}"
        for name, term in _TERMS.items():
            if term.of_softmax and getattr(self, term.field):
                raise ValueError(f"{name}: got numbers with loss {self.loss!r}, {need}")
        if self.label_smoothing:
            raise ValueError(
                f"label_smoothing: got {self.label_smoothing} with loss {self.loss!r}, {need}"
            )

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
        decays = conventions.no_half(Decays.given(weight_decay, feature_decay, bias_decay))
        return cls(counts, loss, **decays._asdict(), **rest)

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
        counts = lasting(counts)
        given = Decays.given(weight_decay, feature_decay, bias_decay)
        decays = conventions.summed_loss(given, num_samples(parse_counts(counts)))
        return cls(counts, loss, **decays._asdict(), **rest)

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
        counts = lasting(counts)
        total = num_samples(parse_counts(counts))
        given = Decays.given(weight_decay, feature_decay, bias_decay)
        decays = conventions.batch_features(given, total, batch_size, loss_scale)
        return cls(counts, loss, **decays._asdict(), **rest)

    @classmethod
    def from_weighted_mean(
        cls, counts: CountsLike, *, class_weights: PerClass | None = None, **rest: Any
    ) -> Problem:
        """Convert class weights whose sum over the samples divides the loss.

        That is PyTorch's ``CrossEntropyLoss(weight=...)`` with its mean reduction, over the whole
        training set; in a batch the divisor varies around that. Other parameters are those of
        `Problem`. With ``label_smoothing`` too, PyTorch's loss of a sample of class y is ``(1 -
        label_smoothing) w_y (-log q_y) + label_smoothing / K sum_j w_j (-log q_j)``, divided by
        the mean of the samples' ``w_y``: ``smoothing_weights`` is ``"labels"`` unless given.

        Raises
        ------
        ValueError
            If there are no class weights, or as `Problem`.
        """
        if class_weights is None:
            raise ValueError("class_weights: missing; a weighted mean needs them")
        rest = {"smoothing_weights": "labels"} | rest
        given = cls(counts, class_weights=class_weights, **rest)
        counted, sizes = np.array(given.groups).T
        weights = conventions.weighted_mean(given.group_weights, counted * sizes)
        return given.replace(class_weights=given.runs_of(weights))

    @classmethod
    def from_tokens(
        cls, tokens: Any, *, context: int = 2, min_count: int = 1, **rest: Any
    ) -> Problem:
        """Return the problem of next tokens after every context of some tokens.

        A context's count is how often it occurs, its target the distribution of what followed; the
        labels, with their names, are the tokens that follow (Zhao et al. 2024).

        Parameters
        ----------
        tokens, context, min_count
            As in `tightframe.problem.tokens.next_tokens`, which also says how much memory that
            takes and which contexts there are: the columns, in that order.
        **rest
            Other arguments of `Problem`, without ``counts``, ``targets`` and ``class_names``.

        Raises
        ------
        ValueError
            As `next_tokens` and `Problem`.

        Examples
        --------
        >>> decays = {"weight_decay": 1e-3, "feature_decay": 1e-3}
        >>> problem = Problem.from_tokens("abab aba abc", context=1, **decays)
        >>> problem.class_names, problem.targets
        ((' ', 'a', 'b', 'c'), <4 labels x 3 contexts>)
        """
        _require_own(rest, ("counts", "targets", "class_names"), "the tokens say it")
        return cls.from_next_tokens(next_tokens(tokens, context, min_count), **rest)

    @classmethod
    def from_next_tokens(cls, found: NextTokens, **rest: Any) -> Problem:
        """Return `from_tokens` of what `tightframe.problem.tokens.next_tokens` has counted.

        Raises
        ------
        ValueError
            As `Problem`, or if an argument is given that the tokens say, or if only one token
            follows, only one context is there or a token is empty.
        """
        _require_own(rest, ("counts", "targets", "class_names"), "the tokens say it")
        if min(found.counts.shape) < 2:
            only = "token follows" if found.counts.shape[0] < 2 else "context is there"
            raise ValueError(f"tokens: only one {only}, need at least two")
        if "" in found.labels:
            raise ValueError("tokens: got an empty one, which is no name of a label")
        return cls(found.occurrences, targets=found.targets, class_names=found.labels, **rest)

    @classmethod
    def from_label_matrix(cls, labels: Any, **rest: Any) -> Problem:
        """Return the problem of samples with several labels each, all of which are picked.

        The pick-all-labels loss (Li et al. 2024) of a sample with label set S is the sum of the
        cross-entropies of its labels: that of a context, one for every set that occurs, whose
        target is even over S and whose class weight is ``|S|``. Sets are in order of appearance.

        Parameters
        ----------
        labels : array_like or SciPy sparse matrix, shape (N, V)
            Zeros and ones, or booleans; every row has a one.
        **rest
            Other arguments of `Problem`, without ``counts``, ``targets`` and ``class_weights``.

        Raises
        ------
        ValueError
            If the entries are others, a sample has no label, or as `Problem`.

        Examples
        --------
        >>> decays = {"weight_decay": 1e-2, "feature_decay": 1e-2}
        >>> sets = [[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]]
        >>> problem = Problem.from_label_matrix(sets, **decays)
        >>> problem.counts.tolist(), problem.class_weights.tolist()
        ([2, 1, 1], [1.0, 2.0, 1.0])
        """
        _require_own(rest, ("counts", "targets", "class_weights"), "the label matrix says it")
        counts, targets, sizes = label_sets(labels)
        return cls(counts, targets=targets, class_weights=sizes, **rest)

    def replace(self, **changes: Any) -> Problem:
        """Return a copy with some arguments of `Problem` changed.

        Class weights and the like are kept as numbers, whatever rule they came from.
        """
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
            "class_weights": self.weight_runs or None,
            "logit_adjustment": self.adjustment_runs or None,
            "label_smoothing": self.label_smoothing,
            "smoothing_weights": self.smoothing_weights,
            "class_margins": self.margin_runs or None,
            "logit_scale": self.scale_runs or None,
            "feature_weights": self.feature_runs or "samples",
            "targets": self.targets,
            "class_names": self.class_names,
        }
        if (
            "counts" in changes
            and self.targets is None
            and num_classes(self.runs) != num_classes(parse_counts(changes["counts"]))
        ):
            fields["class_names"] = None
        unknown = sorted(set(changes) - set(fields))
        if unknown:
            raise ValueError(f"{unknown[0]}: not an argument of Problem; there are {list(fields)}")
        return Problem(**(fields | changes))

    def reordered(self, order: ArrayLike) -> Problem:
        """Return the problem with its classes renamed: class k was class ``order[k]``."""
        require_no_targets(self, "an order of classes")
        index = np.asarray(order)
        terms = {
            name: spread(runs)[index]
            for name, term in _TERMS.items()
            if (runs := getattr(self, term.field))
        }
        return self.replace(
            counts=self.counts[index],
            class_names=self.class_names and [self.class_names[k] for k in index.tolist()],
            **terms,
        )

    # -- derived quantities --------------------------------------------------------------------

    @property
    def loss_object(self) -> Loss:
        """The loss itself, with all that is known about it."""
        return KNOWN_LOSSES[self.loss]

    @cached_property
    def _cells(self) -> list[tuple[_Kind, int]]:
        """Runs of classes that agree in count and in all terms: these, and how many."""
        given = [getattr(self, term.field) for term in _TERMS.values()]
        neutral = tuple(term.neutral for term in _TERMS.values())
        if not any(len(runs) > 1 for runs in given):
            terms = tuple(
                runs[0][0] if runs else value for runs, value in zip(given, neutral, strict=True)
            )
            return [((count, *terms), n) for count, n in self.runs]
        parts: list[Any] = [self.runs]
        parts += [
            runs or ((value, self.num_contexts),)
            for runs, value in zip(given, neutral, strict=True)
        ]
        ends = [np.cumsum([classes for _, classes in part]) for part in parts]
        every = np.unique(np.concatenate(ends))
        values = [
            np.array([value for value, _ in part])[np.searchsorted(end, every)].tolist()
            for part, end in zip(parts, ends, strict=True)
        ]
        sizes = np.diff(every, prepend=0).tolist()
        return list(zip(zip(*values, strict=True), sizes, strict=True))

    @cached_property
    def _kinds(self) -> dict[_Kind, int]:
        """How many classes have a count and terms, by first appearance."""
        sizes: dict[_Kind, int] = {}
        for kind, classes in self._cells:
            sizes[kind] = sizes.get(kind, 0) + classes
        return sizes

    def _group_term(self, name: str) -> NDArray[np.float64]:
        place = list(_TERMS).index(name) + 1
        return np.array([kind[place] for kind in self._kinds], dtype=np.float64)

    def _class_term(self, name: str) -> NDArray[np.float64]:
        term = _TERMS[name]
        return spread(getattr(self, term.field) or ((term.neutral, self.num_contexts),))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Interchangeable classes, in order of first appearance: distinct counts, mostly.

        Classes of one count with different weights, adjustments, margins, scales or weights of
        their features are different groups.
        """
        return tuple(Group(int(kind[0]), classes) for kind, classes in self._kinds.items())

    @property
    def group_weights(self) -> NDArray[np.float64]:
        """Class weight of every group, shape (G,); ones where none were given."""
        return self._group_term("class_weights")

    @property
    def has_equal_weights(self) -> bool:
        """Whether all classes have the same class weight."""
        return len({weight for weight, _ in self.weight_runs}) <= 1

    @property
    def group_adjustment(self) -> NDArray[np.float64]:
        """Logit adjustment of every group, shape (G,); zeros where none was given."""
        return self._group_term("logit_adjustment")

    @property
    def group_margins(self) -> NDArray[np.float64]:
        """Margin that the loss takes off the own logit, of every group, shape (G,)."""
        return self._group_term("class_margins")

    @property
    def group_scales(self) -> NDArray[np.float64]:
        """Factor of the logits inside the loss, of every group, shape (G,)."""
        return self._group_term("logit_scale")

    @property
    def group_feature_weights(self) -> NDArray[np.float64]:
        """Factor of the squared class means in the decay cost, of every group, shape (G,)."""
        weights = self._group_term("feature_weights")
        counts = np.array([kind[0] for kind in self._kinds], dtype=np.float64)
        return np.where(weights > 0, weights, counts)

    @property
    def group_terms(self) -> list[dict[str, float]]:
        """What sets the loss of every group's classes apart, by name.

        Always ``class_weight`` and ``logit_adjustment``; where there are any ``class_margin``,
        ``logit_scale`` and ``feature_weight``.
        """
        columns = {"class_weight": self.group_weights, "logit_adjustment": self.group_adjustment}
        if self.margin_runs:
            columns["class_margin"] = self.group_margins
        if self.scale_runs:
            columns["logit_scale"] = self.group_scales
        if self.feature_runs:
            columns["feature_weight"] = self.group_feature_weights
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    @cached_property
    def class_groups(self) -> NDArray[np.intp]:
        """Index into `groups` for every class, shape (K,)."""
        index = {kind: i for i, kind in enumerate(self._kinds)}
        groups = [index[kind] for kind, _ in self._cells]
        return np.repeat(np.array(groups, dtype=np.intp), [classes for _, classes in self._cells])

    def runs_of(self, numbers: ArrayLike) -> Runs:
        """Return numbers, one a group, as runs in class order: what `Problem` takes per class.

        They take no memory of the size of K.
        """
        index = {kind: i for i, kind in enumerate(self._kinds)}
        values = np.asarray(numbers).tolist()
        return joined((values[index[kind]], classes) for kind, classes in self._cells)

    @property
    def class_weights(self) -> NDArray[np.float64]:
        """Factor of the loss of every class, shape (K,); ones where none were given."""
        return self._class_term("class_weights")

    @property
    def logit_adjustment(self) -> NDArray[np.float64]:
        """What is added to the logits inside the loss, shape (K,); zeros where none was given."""
        return self._class_term("logit_adjustment")

    @property
    def class_margins(self) -> NDArray[np.float64]:
        """What is taken off the own logit inside the loss, shape (K,)."""
        return self._class_term("class_margins")

    @property
    def logit_scale(self) -> NDArray[np.float64]:
        """Factor of every logit inside the loss, shape (K,)."""
        return self._class_term("logit_scale")

    @property
    def feature_weights(self) -> NDArray[np.float64]:
        """Factor of every squared class mean in the decay cost, shape (K,): counts by default."""
        return (
            self._class_term("feature_weights")
            if self.feature_runs
            else self.counts.astype(np.float64)
        )

    @property
    def has_soft_labels(self) -> bool:
        """Whether labels are smoothed, or margins taken off the own logit."""
        return bool(self.label_smoothing or self.margin_runs)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is weighed, adjusted, scaled or smoothed."""
        given = any(getattr(self, term.field) for term in _TERMS.values())
        return not given and not self.label_smoothing and self.targets is None

    @property
    def counts(self) -> NDArray[np.int64]:
        """Samples of every class, shape (K,)."""
        return counts_array(self.runs)

    @property
    def compact_counts(self) -> str:
        """The counts as compact text, ``"500x5,100x5"``."""
        return format_runs(self.runs)

    @property
    def num_classes(self) -> int:
        """Number of classes K; of labels V where there are targets."""
        return self.num_contexts if self.targets is None else self.targets.num_labels

    @property
    def num_contexts(self) -> int:
        """Number of counts: of contexts m where there are targets, else of classes."""
        return num_classes(self.runs)

    def name(self, label: int) -> str:
        """Return a class's name, or its label where classes have no names."""
        return str(label) if self.class_names is None else self.class_names[label]

    def group_names(self, partition: Grouped | None = None) -> list[list[str]]:
        """Return the names of the classes of every group; none where classes have no names.

        Parameters
        ----------
        partition : optional
            Other groups than `groups`: what has ``num_groups`` and ``class_groups`` (K,).
        """
        count = len(self.groups) if partition is None else partition.num_groups
        names: list[list[str]] = [[] for _ in range(count)]
        if self.class_names is not None:
            # Only here: classes without names may be too many to be listed.
            own = self.class_groups if partition is None else partition.class_groups
            for group, name in zip(own.tolist(), self.class_names, strict=True):
                names[group].append(name)
        return names

    @property
    def num_samples(self) -> int:
        """Number of samples N."""
        return num_samples(self.runs)

    @property
    def weight_decay(self) -> float | tuple[float, ...]:
        """The layers' decay: one number where they agree, else one a layer."""
        return self.weight_decays[0] if len(set(self.weight_decays)) == 1 else self.weight_decays

    @property
    def dims(self) -> tuple[int, ...] | None:
        """Width of what goes into every layer, the features' first; None: as needed."""
        return (self.dim,) * self.depth if isinstance(self.dim, int) else self.dim

    @property
    def width(self) -> int | None:
        """The least of `dims`, which bounds the rank of the logits; None: as needed."""
        return None if self.dims is None else min(self.dims)

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
        if self.depth == 1:
            return self.logit_decay
        # By mantissas and exponents, which keeps all digits: the logarithm of 1e-100 costs two.
        parts = [math.frexp(decay) for decay in (*self.weight_decays, self.feature_decay)]
        number = len(parts)
        exponent, rest = divmod(sum(exponent for _, exponent in parts), number)
        product = math.prod(mantissa for mantissa, _ in parts)
        return math.ldexp(math.ldexp(product, rest) ** (1 / number), exponent)

    # -- what people see, and files ------------------------------------------------------------

    def __repr__(self) -> str:
        """Return the call that makes it again; a summary with targets or very many counts.

        Names that take more than `MOST_WRITTEN` letters are left out: equality is without them.
        """
        counts = self.compact_counts
        arguments = {n: v for n, v in self._arguments().items() if v != _DEFAULTS.get(n)}
        if self.targets is not None or len(counts) > MOST_WRITTEN:
            most, least = max(self.runs)[0], min(self.runs)[0]
            told = [f"{self.num_contexts} counts from {least} to {most}"]
            shown = {n: v for n, v in arguments.items() if n not in ("counts", "class_names")}
            told += [f"{name}={shortened(repr(value), 40)}" for name, value in shown.items()]
            return f"<Problem: {', '.join(told)}>"
        if len(repr(self.class_names)) > MOST_WRITTEN:
            del arguments["class_names"]
        told = [repr(counts), *(f"{n}={v!r}" for n, v in arguments.items() if n != "counts")]
        return f"Problem({', '.join(told)})"

    def _blocks(self) -> Iterator[Block]:
        given = self._arguments() | {"counts": None, "class_names": None, "targets": None}
        what = ("class", "classes") if self.targets is None else ("context", "contexts")
        yield ", ".join(
            [f"{number_of(self.num_contexts, *what)}, {number_of(self.num_samples, 'sample')}"]
            + ([] if self.targets is None else [f"{self.num_classes} labels"])
            + [
                f"{name} {value}"
                for name, value in given.items()
                if name not in _TERMS and value not in (None, 0.0, _DEFAULTS.get(name))
            ]
        )
        yield loaded("tightframe.views.problems.problem_table")(self)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a group of classes (contexts) that are alike: its count and its terms.

        See `tightframe.shown.frame`.
        """
        return frame(loaded("tightframe.views.problems.problem_rows")(self))

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the samples of every class (context), see `tightframe.shown.plot`."""
        return plot(loaded("tightframe.views.problems.problem_chart")(self), ax)

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of `Problem` as they would be written down."""
        values: dict[str, Any] = {
            "counts": self.compact_counts,
            "loss": self.loss,
            "weight_decay": self.weight_decay,
            "feature_decay": self.feature_decay,
            "bias": self.bias,
            "bias_decay": self.bias_decay if self.bias == "decayed" else None,
            "features": self.features,
            "depth": self.depth,
            "dim": self.dim,
        }
        for name, term in _TERMS.items():
            if runs := getattr(self, term.field):
                rules = (rule for rule in term.rules if term.read(rule, self.runs, ()) == runs)
                values[name] = next(rules, None) or format_runs(runs)
        return values | {
            "label_smoothing": self.label_smoothing,
            "smoothing_weights": self.smoothing_weights,
            "targets": self.targets,
            "class_names": self.class_names,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments of `Problem` as JSON-ready values.

        What a plain problem has not, and names, only where there are any: records and hashes of
        plain problems are older than those.
        """
        values = self._packed()
        return values if self.targets is None else values | {"targets": self.targets.to_dict()}

    def _packed(self) -> dict[str, Any]:
        """Return `to_dict` with the targets as they are: what files hold."""
        decays = self.weight_decay
        values: dict[str, Any] = {
            "counts": self.compact_counts,
            "loss": self.loss,
            "weight_decay": list(decays) if isinstance(decays, tuple) else decays,
            "feature_decay": self.feature_decay,
            "bias": self.bias,
            "bias_decay": self.bias_decay if self.bias == "decayed" else None,
            "features": self.features,
            "depth": self.depth,
            "dim": list(self.dim) if isinstance(self.dim, tuple) else self.dim,
        }
        for name, term in _TERMS.items():
            if runs := getattr(self, term.field):
                values[name] = format_runs(runs)
        if self.label_smoothing:
            values["label_smoothing"] = self.label_smoothing
        if self.smoothing_weights != "own":
            values["smoothing_weights"] = self.smoothing_weights
        if self.targets is not None:
            values["targets"] = self.targets
        return (
            values if self.class_names is None else values | {"class_names": list(self.class_names)}
        )


def require_no_targets(problem: Problem, what: str) -> None:
    """Refuse a problem with label distributions, for which ``what`` is not known.

    Raises
    ------
    ValueError
        If the problem has targets.
    """
    if problem.targets is not None:
        raise ValueError(
            f"targets: {what} needs one class a context; problems with targets have solve, "
            "certify, path, thresholds, advise, label_limits and training"
        )


#: What `Problem.group_terms` and records of groups call the terms, how sentences do, and what says
#: nothing.
_NAMED_TERMS = {
    "class_weight": ("weight", 1),
    "logit_adjustment": ("adjustment", 0),
    "class_margin": ("margin in the loss", 0),
    "logit_scale": ("logit scale", 1),
    "feature_weight": ("feature weight", None),
}


def terms_in(group: Mapping[str, Any]) -> dict[str, float]:
    """Return those of a record's entries that `loss_terms` takes; old records have none."""
    return {name: group[name] for name in _NAMED_TERMS if group.get(name) is not None}


def loss_terms(
    class_weight: float = 1.0, logit_adjustment: float = 0.0, **others: float
) -> list[str]:
    """Say what sets a class's loss apart: ``["weight 5", "adjustment -2"]``; nothing if plain.

    Parameters are the entries of `Problem.group_terms`.
    """
    given = {"class_weight": class_weight, "logit_adjustment": logit_adjustment, **others}
    return [
        f"{word} {given[name]:g}"
        for name, (word, neutral) in _NAMED_TERMS.items()
        if name in given and given[name] != neutral
    ]


def with_loss_terms(
    name: str, class_weight: float = 1.0, logit_adjustment: float = 0.0, **others: float
) -> str:
    """Return a group's name with its `loss_terms`: ``"5 classes of 100 with weight 5"``."""
    terms = loss_terms(class_weight, logit_adjustment, **others)
    return f"{name} with {' and '.join(terms)}" if terms else name


def with_smoothing(title: str, problem: Problem) -> str:
    """Return a title with the problem's label smoothing, which all its groups share."""
    share = problem.label_smoothing
    return f"{title}, label smoothing {share:g}" if share else title


def at_most(a: float | NDArray[np.float64], b: float | NDArray[np.float64]) -> Any:
    """Return ``a <= b`` up to rounding: how every collapse threshold is compared."""
    return np.asarray(a) <= np.asarray(b) * (1 + THRESHOLD_ROUNDING)


def _require_own(rest: Mapping[str, Any], taken: Iterable[str], who: str) -> None:
    for name in taken:
        if name in rest:
            raise ValueError(f"{name}: {who}, got {name} too")


def _decay(name: str, value: Any) -> float:
    number = conventions.positive_decay(name, value)
    low, high = DECAY_RANGE
    if not low <= number <= high:
        raise ValueError(f"{name}: got {value}, need a number from {low:g} to {high:g}")
    return number


def _layer_decays(value: Any, depth: int) -> tuple[float, ...]:
    if not is_several(value) or is_unordered(value):
        return (_decay("weight_decay", value),) * depth
    decays = tuple(_decay("weight_decay", item) for item in value)
    if len(decays) != depth:
        raise ValueError(
            f"weight_decay: got {len(decays)} numbers for depth {depth}; give one, or one a layer"
        )
    return decays


def _widths(value: Any, depth: int) -> int | tuple[int, ...] | None:
    if value is None:
        return None
    if not is_several(value) or is_unordered(value):
        return whole_number("dim", value)
    widths = tuple(whole_number("dim", item) for item in value)
    if len(widths) != depth:
        raise ValueError(
            f"dim: got {len(widths)} numbers for depth {depth}; give one, or one a layer"
        )
    return widths[0] if len(set(widths)) == 1 else widths


def _class_weights(value: PerClass | None, counts: tuple[Group, ...], names: Sequence[str]) -> Runs:
    if isinstance(value, str) and value.strip() == "balanced":
        classes, total = num_classes(counts), num_samples(counts)
        return tuple((total / (classes * run.count), run.classes) for run in counts)
    low, high = WEIGHT_RANGE
    return parse_per_class(
        "class_weights",
        value,
        counts,
        lambda weights: (weights >= low) & (weights <= high),
        f"numbers from {low:g} to {high:g}, or 'balanced'",
        names,
    )


_PRIOR = re.compile(r"\s*(?:([^*\s]+)\s*\*\s*)?prior\s*")


def _logit_adjustment(
    value: PerClass | None, counts: tuple[Group, ...], names: Sequence[str]
) -> Runs:
    allowed = f"numbers from {-MAX_ADJUSTMENT:g} to {MAX_ADJUSTMENT:g}, 'prior' or 'FACTOR*prior'"
    if isinstance(value, str) and (match := _PRIOR.fullmatch(value)):
        try:
            factor = float(match[1] or 1.0)
        except ValueError:
            factor = math.nan
        if not abs(factor) <= MAX_ADJUSTMENT:
            raise ValueError(f"logit_adjustment: got {shortened(repr(value))}, need {allowed}")
        total = num_samples(counts)
        return tuple((factor * math.log(run.count / total), run.classes) for run in counts)
    return parse_per_class(
        "logit_adjustment",
        value,
        counts,
        lambda numbers: np.abs(numbers) <= MAX_ADJUSTMENT,
        allowed,
        names,
    )


def _class_margins(value: PerClass | None, counts: tuple[Group, ...], names: Sequence[str]) -> Runs:
    return parse_per_class(
        "class_margins",
        value,
        counts,
        lambda numbers: np.abs(numbers) <= MAX_ADJUSTMENT,
        f"numbers from {-MAX_ADJUSTMENT:g} to {MAX_ADJUSTMENT:g}",
        names,
    )


def logit_scale_runs(
    value: PerClass | None, counts: tuple[Group, ...], names: Sequence[str] = ()
) -> Runs:
    """Read the factor of every class's logit inside the loss; None gives no runs.

    Raises
    ------
    ValueError
        If a factor is out of range or there is not one a class.
    """
    low, high = SCALE_RANGE
    return parse_per_class(
        "logit_scale",
        value,
        counts,
        lambda scales: (scales >= low) & (scales <= high),
        f"numbers from {low:g} to {high:g}",
        names,
    )


def _feature_weights(
    value: PerClass | None, counts: tuple[Group, ...], names: Sequence[str]
) -> Runs:
    if isinstance(value, str) and value.strip() == "samples":
        return ()
    if isinstance(value, str) and value.strip() == "contexts":
        return ((1.0, num_classes(counts)),)
    low, high = WEIGHT_RANGE
    return parse_per_class(
        "feature_weights",
        value,
        counts,
        lambda weights: (weights >= low) & (weights <= high),
        f"'samples', 'contexts' or numbers from {low:g} to {high:g}",
        names,
    )


def _smoothing(value: Any) -> float:
    share = positive_float("label_smoothing", value, or_zero=True)
    if share >= 1:
        raise ValueError(f"label_smoothing: got {value}, need a number from 0 to below 1")
    return share


@dataclass(frozen=True)
class _Term:
    """One number a class that a problem may have.

    Attributes
    ----------
    field : str
        Of `Problem`, which holds the runs; none where nothing was given.
    neutral : float
        What classes have where nothing was given; 0 stands for the class's count.
    read : callable
        Reads what was given.
    of_softmax : bool
        Whether only losses with a softmax may have it.
    any_constant : bool
        Whether any number that all classes share changes nothing.
    rules : tuple of str
        Words that stand for numbers which follow from the counts.
    """

    field: str
    neutral: float
    read: Callable[[PerClass, tuple[Group, ...], Sequence[str]], Runs]
    of_softmax: bool = True
    any_constant: bool = False
    rules: tuple[str, ...] = ()

    def is_neutral(self, runs: Runs, counts: tuple[Group, ...]) -> bool:
        """Whether runs are what classes have anyway."""
        if self.field == "feature_runs":
            return bool(runs) and joined(runs) == joined((float(n), k) for n, k in counts)
        return len(runs) == 1 and (self.any_constant or runs[0][0] == self.neutral)


#: In the order of `Problem`'s groups: a count, then these.
_TERMS = {
    "class_weights": _Term(
        "weight_runs", 1.0, _class_weights, of_softmax=False, rules=("balanced",)
    ),
    "logit_adjustment": _Term(
        "adjustment_runs", 0.0, _logit_adjustment, any_constant=True, rules=("prior",)
    ),
    "class_margins": _Term("margin_runs", 0.0, _class_margins),
    "logit_scale": _Term("scale_runs", 1.0, logit_scale_runs),
    "feature_weights": _Term(
        "feature_runs", 0.0, _feature_weights, of_softmax=False, rules=("contexts",)
    ),
}

#: What arguments are where they are not given.
_DEFAULTS = {
    name: parameter.default for name, parameter in inspect.signature(Problem).parameters.items()
}

#: A count, and the terms that go with it.
_Kind = tuple[float, ...]


def _bias_decay(bias: str, bias_decay: Any) -> float:
    if bias == "decayed":
        if bias_decay is None:
            raise ValueError("bias_decay: missing; bias='decayed' needs a positive number")
        return _decay("bias_decay", bias_decay)
    if bias_decay is not None:
        raise ValueError(f"bias_decay: got {bias_decay} with bias={bias!r}; use bias='decayed'")
    return 0.0
