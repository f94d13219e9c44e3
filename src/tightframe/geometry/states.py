"""States: what becomes of every class, in one vocabulary for predicted and measured class means.

A class is, the first that holds: **vanished** (``W h_k = 0``: only the bias speaks), **lost** (a
class that does not share its prediction has a logit at least as large at its class mean, so that
it is taken for that one), **merged** (it shares one prediction with others) or **distinct**.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import MAX_DENSE_CLASSES
from tightframe.geometry.blocks import RANK_TOLERANCE, Array, BlockMatrix
from tightframe.losses.base import Loss
from tightframe.problem.problem import Problem, require_no_targets
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame, plot, record

if TYPE_CHECKING:
    import pandas as pd

Indices = NDArray[np.intp]

#: The states in the order in which they are asked for, worst first.
STATES = VANISHED, LOST, MERGED, DISTINCT = ("vanished", "lost", "merged", "distinct")

#: What has no class mean has no state.
ABSENT = "absent"

#: Room for any state.
_LONGEST = f"<U{max(map(len, (*STATES, ABSENT)))}"

#: Entries of a block of logits (16 MiB).
_BLOCK_ENTRIES = 2**21

#: Relative error of shares whose exponentials are in float32, with room to spare.
_SHARE_ROUNDING = 1e-4

#: Measured predictions closer than this in total variation are one prediction: training stops at
#: a finite precision. For two classes that nobody else competes with, that is a margin of 0.04.
SAME_PREDICTION = 0.02


@record
class ClassState(NamedTuple):
    """State of one class.

    Attributes
    ----------
    label : int
        The class.
    state : {"vanished", "lost", "merged", "distinct"}
    shares_with : tuple of int
        Other classes that have the same prediction.
    rival : int or None
        The class it is taken for, if it is lost; otherwise the nearest: of those that do not share
        its prediction, the one with the largest logit at its class mean. None if there is none.
    decision_margin : float
        Own minus largest other logit at the class mean, bias included, without adjustment: what
        decides. Nats for cross-entropy.
    sibling_margin : float or None
        Own minus the largest logit of a class of the same count (weight and adjustment): what
        merging is about. None for a class alone with its count.
    name : str or None
        None where classes have no names.
    """

    label: int
    state: str
    shares_with: tuple[int, ...]
    rival: int | None
    decision_margin: float
    sibling_margin: float | None
    name: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready; ``shares_with`` is called ``"with"``."""
        values = self._asdict()
        if self.name is None:
            del values["name"]
        return {("with" if k == "shares_with" else k): v for k, v in values.items()}


@dataclass(frozen=True, eq=False)
class States(Shown, Saved):
    """States of classes, or of groups whose classes are alike: one entry each, in arrays.

    Attributes
    ----------
    state : ndarray of str, shape (E,)
        Of `STATES`.
    decision_margin : ndarray, shape (E,)
        Own minus largest other logit at the class mean, bias included, without adjustment.
    sibling_margin : ndarray, shape (E,)
        Own minus the largest logit of a class of the same count; NaN for a class alone with it.
    rival : ndarray of int, shape (E,)
        Entry that it is taken for, or which is nearest, see `ClassState`; the entry itself where
        that is another class of the same group. -1 if there is none.
    prediction : ndarray of int, shape (E,)
        Entries with one number share one prediction.
    sizes : ndarray of int, shape (E,)
        Classes in each entry; ones if the entries are classes.
    names : tuple of str or None
        Of the entries, if these are classes that have names.
    """

    state: NDArray[np.str_]
    decision_margin: Array
    sibling_margin: Array
    rival: Indices
    prediction: Indices
    sizes: Indices
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.state)

    def __getitem__(self, entry: int) -> ClassState:
        """Return one entry; its ``shares_with`` and ``rival`` are entries too."""
        if not -len(self) <= entry < len(self):
            raise IndexError(f"entry {entry} of {len(self)}")
        k, sibling, rival = entry % len(self), self.sibling_margin[entry], self.rival[entry]
        return ClassState(
            k,
            str(self.state[k]),
            tuple(
                i for i in np.flatnonzero(self.prediction == self.prediction[k]).tolist() if i != k
            ),
            None if rival < 0 else int(rival),
            float(self.decision_margin[k]),
            None if np.isnan(sibling) else float(sibling),
            None if self.names is None else self.names[k],
        )

    @property
    def collapsed(self) -> NDArray[np.bool_]:
        """Whether each entry shares its prediction with other classes, or vanishes, shape (E,).

        Not the same as a state: classes that share a prediction are lost where another takes them.
        """
        numbers, times = np.unique(self.prediction, return_counts=True)
        several = times[np.searchsorted(numbers, self.prediction)] > 1
        together = (self.sizes > 1) & (self.sibling_margin == 0)
        collapsed: NDArray[np.bool_] = several | together | (self.state == VANISHED)
        return collapsed

    @property
    def counts(self) -> dict[str, int]:
        """How many classes are in each state, worst first; states without classes are left out."""
        number = {name: int(self.sizes[self.state == name].sum()) for name in STATES}
        return {name: classes for name, classes in number.items() if classes}

    def of_classes(self, class_groups: Indices, names: tuple[str, ...] | None = None) -> States:
        """Spread groups over their classes.

        Parameters
        ----------
        class_groups : ndarray of int, shape (K,)
            Entry of every class.
        names : tuple of str, optional
            Of the classes.
        """
        order = np.argsort(class_groups, kind="stable")
        starts = np.searchsorted(class_groups[order], np.arange(len(self)))
        first, second = order[starts], order[np.minimum(starts + 1, len(order) - 1)]
        classes = np.arange(len(class_groups))
        rival_group = self.rival[class_groups]
        # A sibling: the first class of the own group that is not the class itself.
        own = np.where(first[class_groups] == classes, second[class_groups], first[class_groups])
        rival = np.where(rival_group == class_groups, own, first[rival_group])
        prediction = self.prediction[class_groups]
        # Classes of a group that stay apart have predictions of their own.
        apart = (self.sizes > 1) & (
            (self.state == DISTINCT) | ((self.state == LOST) & (self.sibling_margin != 0))
        )
        return States(
            self.state[class_groups],
            self.decision_margin[class_groups],
            self.sibling_margin[class_groups],
            np.where(rival_group < 0, -1, rival),
            np.where(apart[class_groups], len(self) + classes, prediction),
            np.ones(len(class_groups), dtype=np.intp),
            names,
        )

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dict an entry, JSON-ready."""
        return [self[k].to_dict() for k in range(len(self))]

    def to_frame(self) -> pd.DataFrame:
        """Return one row an entry: state, margins, rival (-1: none), classes, prediction.

        Names, where there are any, are the first column.
        """
        names = {} if self.names is None else {"name": self.names}
        return frame(
            {
                **names,
                "state": self.state,
                "decision_margin": self.decision_margin,
                "sibling_margin": self.sibling_margin,
                "rival": self.rival,
                "prediction": self.prediction,
                "classes": self.sizes,
            }
        )

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the decision margins, marked by state, see `tightframe.shown.plot`."""
        from tightframe.views.solutions import margins_chart

        return plot(margins_chart(self, repr(self)), ax)

    def _blocks(self) -> Iterator[Block]:
        from tightframe.views.solutions import states_table

        yield states_table(self)

    def __repr__(self) -> str:
        found = ", ".join(f"{classes} {name}" for name, classes in self.counts.items())
        return f"States({found})"


def block_states(
    logits: BlockMatrix, bias: Array, kinds: Indices | None = None, *, exact: bool = True
) -> States:
    """Return the states that logits in block form predict, one entry a group of the partition.

    Parameters
    ----------
    logits : BlockMatrix
        Mean logits without bias. With a free bias a minimiser's sample-weighted mean is zero.
    bias : ndarray, shape (G,)
    kinds : ndarray of int, shape (G,), optional
        Groups of one kind have the same count (weight, adjustment): their classes are siblings. By
        default every group is a kind of its own.
    exact : bool
        Whether zeros are exact, as those of closed forms and of the solver are: whether a group
        merges does not depend on rounding. Otherwise what is below `RANK_TOLERANCE` is zero.
    """
    p = logits.partition
    groups = np.arange(p.num_groups)
    kinds = groups if kinds is None else kinds
    several = p.sizes > 1
    norms = logits.column_norms
    vanished = norms <= (0.0 if exact else RANK_TOLERANCE * norms.max())
    together = several & ((logits.within == 0) | vanished)  # the group's classes share
    prediction = _shared_columns(logits, kinds, vanished)

    gaps = group_gaps(logits, bias)
    shared = prediction[:, None] == prediction
    # A sibling's: what is not merged is proven positive, and rounding must not say otherwise.
    sibling = np.where(together, 0.0, np.maximum(logits.within, np.finfo(np.float64).tiny))
    gaps[groups, groups] = np.where(several, sibling, np.inf)
    found = _judge(gaps, groups, shared, vanished, kinds, together)
    return States(*found, prediction, p.sizes.astype(np.intp))


def group_gaps(logits: BlockMatrix, bias: Array) -> Array:
    """Return ``[j, i]``: own logit of a class of group i minus that of one of group j, (G, G).

    The diagonal says nothing: siblings differ by ``within``.
    """
    k = logits.partition.sizes
    scores = logits.mean + bias[:, None]
    gaps: Array = np.diagonal(scores) + logits.within * (k - 1) / k - scores
    return gaps


def measured_states(problem: Problem, logits: ArrayLike, bias: ArrayLike | None = None) -> States:
    """Return the states of a network's classes, by the same rules with one tolerance.

    Vanished: the prediction of ``W h_k`` without the bias is nearer than `SAME_PREDICTION` to the
    uniform one, in total variation; with a free bias ``W h_k`` less its sample-weighted mean.
    Classes of the same count whose predictions are nearer than that to each other share one.

    Parameters
    ----------
    problem : Problem
        Says which classes are siblings, and what the loss reads in logits.
    logits : array_like, shape (K, K)
        Mean logits ``W h_k`` without bias; column k holds the samples of class k.
    bias : array_like, shape (K,), optional

    Raises
    ------
    ValueError
        If a shape is wrong, an entry is not finite, or the problem has targets.
    """
    require_no_targets(problem, "a state")
    k = problem.num_classes
    z = np.asarray(logits, dtype=np.float64)
    b = np.zeros(k) if bias is None else np.asarray(bias, dtype=np.float64)
    if z.shape != (k, k):
        raise ValueError(f"logits: got shape {z.shape}, need ({k}, {k})")
    if b.shape != (k,):
        raise ValueError(f"bias: got shape {b.shape}, need ({k},)")
    for name, values in (("logits", z), ("bias", b)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: got entries that are not finite, need numbers")
    weights = problem.feature_weights
    middle = z @ weights / weights.sum() if problem.bias == "free" else np.zeros(k)
    kinds, loss = problem.class_groups, problem.loss_object
    return states_of_means(lambda classes: z[:, classes], b, middle, kinds, loss)


def states_of_means(
    logits: Callable[[Indices], Array],
    bias: Array,
    middle: Array,
    kinds: Indices,
    loss: Loss,
) -> States:
    """Return the states of a network's classes by the rules of `measured_states`, at any K.

    No K x K array is made above `MAX_DENSE_CLASSES` classes. There a class is compared only with
    the one that its mean is nearest to: what shares a prediction shares the answer that it gives.

    Parameters
    ----------
    logits : callable
        Returns the mean logits without bias of some classes, as columns, shape (K, len(classes)).
    bias : ndarray, shape (K,)
    middle : ndarray, shape (K,)
        Taken off before it is asked whether a class has vanished.
    kinds : ndarray of int, shape (K,)
        Classes of one kind are siblings. Negative for classes without samples: they have no mean
        and no state (`ABSENT`), but may be rivals.
    loss : Loss
        What predictions it makes of logits.
    """
    k = len(bias)
    present = np.flatnonzero(kinds >= 0)
    # Siblings one after the other: a block has few kinds.
    present = present[np.argsort(kinds[present], kind="stable")]
    firsts = np.flatnonzero(np.diff(kinds[present], prepend=-1))
    members = dict(zip(kinds[present[firsts]].tolist(), np.split(present, firsts[1:]), strict=True))
    vanished = np.zeros(k, dtype=bool)
    predictions = np.zeros((k, k)) if k <= MAX_DENSE_CLASSES else None
    state = np.full(k, ABSENT, dtype=_LONGEST)
    margins, siblings, rivals = np.full(k, np.nan), np.full(k, np.nan), np.full(k, -1)
    # Bounds of softmax predictions: least share of the class itself, most of any other.
    own_share, rival_share = np.zeros(k), np.ones(k)
    for classes in _blocks(present, k):
        z = logits(classes)
        vanished[classes] = _near_uniform(z - middle[:, None] if middle.any() else z, loss)
        z = z + bias[:, None] if bias.any() else z
        if predictions is not None:
            predictions[:, classes] = loss.predictions(z)
            continue
        columns = np.arange(len(classes))
        lengths = z[classes, columns]
        z[classes, columns] = -np.inf
        rivals[classes] = z.argmax(axis=0)
        margins[classes] = lengths - z[rivals[classes], columns]
        # The nearest of all is the nearest sibling, or it is another one.
        close = kinds[rivals[classes]] == kinds[classes]
        siblings[classes[close]] = margins[classes[close]]
        for kind in np.unique(kinds[classes[~close]]).tolist():
            some = np.flatnonzero(~close & (kinds[classes] == kind))
            if len(members[kind]) > 1:
                nearest = z[np.ix_(members[kind], some)].max(axis=0)
                siblings[classes[some]] = lengths[some] - nearest
        state[classes] = np.where(margins[classes] <= 0, LOST, DISTINCT)
        if loss.is_softmax:
            own_share[classes], rival_share[classes] = _share_bounds(z, margins[classes])
    if predictions is not None:
        prediction = _near_columns(predictions, kinds, vanished)
        unsure = present
    else:
        prediction = np.arange(k)
        pairs = present[(kinds[rivals] == kinds)[present]]
        if loss.is_softmax:
            # What one class has more of its own prediction than of the other's is a distance:
            # nearly all pairs are apart by it, without another logit.
            others = rivals[pairs]
            apart = np.maximum(
                own_share[pairs] - rival_share[others], own_share[others] - rival_share[pairs]
            )
            pairs = pairs[~(apart >= SAME_PREDICTION)]
        for classes in _blocks(pairs, 2 * k):
            both = (loss.predictions(logits(c) + bias[:, None]) for c in (classes, rivals[classes]))
            _join(prediction, classes, rivals[classes], total_variation(*both))
        prediction = _with_vanished(prediction, vanished)
        # Where nobody shares a prediction, the nearest class is the rival.
        unsure = present[
            (vanished | (np.bincount(prediction, minlength=k)[prediction] > 1))[present]
        ]
    for classes in _blocks(unsure, k):
        z = logits(classes) + bias[:, None]
        own = classes, np.arange(len(classes))
        gaps = z[own] - z
        gaps[own] = np.inf
        shared = prediction[:, None] == prediction[classes]
        none = np.zeros(len(classes), dtype=bool)
        found = _judge(gaps, classes, shared, vanished[classes], kinds, none)
        for whole, part in zip((state, margins, siblings, rivals), found, strict=True):
            whole[classes] = part
    return States(state, margins, siblings, rivals, prediction, np.ones(k, dtype=np.intp))


def _blocks(classes: Indices, width: int) -> list[Indices]:
    """Split classes so that as many columns of a width fill a block."""
    return np.array_split(classes, max(1, -(-len(classes) * width // _BLOCK_ENTRIES)))


def _near_uniform(logits: Array, loss: Loss) -> NDArray[np.bool_]:
    """Return which columns of logits predict all classes alike."""
    uniform = np.ones(logits.shape[1], dtype=bool)
    if loss.is_softmax:
        # By Jensen's inequality p_i <= exp(z_i - mean z) / K: what lies 1 below the mean has lost
        # 1 - 1/e of its share. That says it of nearly all classes, without an exponential.
        # A quarter of the logits says so of most.
        bound, reach = logits.mean(axis=0) - 1, SAME_PREDICTION * len(logits) / (1 - math.exp(-1))
        uniform = np.count_nonzero(logits[: len(logits) // 4] < bound, axis=0) < reach
        rest = logits[:, uniform]
        uniform[uniform] = np.count_nonzero(rest < bound[uniform], axis=0) < reach
    predictions = loss.predictions(logits[:, uniform])
    uniform[uniform] = total_variation(predictions, 1 / len(logits)) < SAME_PREDICTION
    return uniform


def _share_bounds(others: Array, margins: Array) -> tuple[Array, Array]:
    """Return the least softmax share of a column's own class, and the most of any other class.

    Parameters
    ----------
    others : ndarray, shape (K, C)
        Logits, minus infinity for the own class.
    margins : ndarray, shape (C,)
        Own minus largest other logit.
    """
    with np.errstate(over="ignore"):
        own = 1 / (1 + (len(others) - 1) * np.exp(-margins))
        rival = 1 / (1 + np.exp(margins))
        # Where others may add up to as much as the class itself they are summed, in float32.
        unsure = own < 0.5
        if unsure.any():
            rows = others.T[unsure]  # which lie together in memory
            total = np.exp((rows - rows.max(axis=1, keepdims=True)).astype(np.float32)).sum(axis=1)
            lead = np.exp(margins[unsure])  # of the class over the largest other one
            own[unsure] = (1 - _SHARE_ROUNDING) * lead / (total + lead)
            rival[unsure] = (1 + _SHARE_ROUNDING) / (total + lead)
    return own, rival


def total_variation(a: Array, b: Array | float) -> Array:
    """Return half the sum of absolute differences of every column."""
    result: Array = np.abs(a - b).sum(axis=0) / 2
    return result


def _judge(
    gaps: Array,
    entries: Indices,
    shared: NDArray[np.bool_],
    vanished: NDArray[np.bool_],
    kinds: Indices,
    together: NDArray[np.bool_],
) -> tuple[NDArray[np.str_], Array, Array, Indices]:
    """Apply the rules to some entries: their state, both margins and rival.

    Parameters
    ----------
    gaps : ndarray, shape (E, C)
        ``[j, i]``: own logit of the i-th of the entries minus logit j; its own: a sibling inside.
    entries : ndarray of int, shape (C,)
    shared : ndarray of bool, shape (E, C)
        Which share a prediction.
    vanished, together : ndarray of bool, shape (C,)
        ``together``: entries of several classes that share one prediction.
    kinds : ndarray of int, shape (E,)
    """
    own = entries, np.arange(len(entries))
    rivals = np.where(shared, np.inf, gaps)
    lost = rivals.min(axis=0) <= 0  # by other entries: siblings that stay apart never win
    # Siblings inside the entry may be the nearest.
    rivals[own] = np.where(together, np.inf, gaps[own])
    rival = np.where(np.isinf(rivals.min(axis=0)), -1, rivals.argmin(axis=0))
    # Without an opinion nobody is nearest: all logits are equal.
    rival[vanished & (np.ptp(np.where(np.isinf(gaps), 0.0, gaps), axis=0) == 0)] = -1
    merged = together | (shared.sum(axis=0) > 1)
    siblings = np.where(kinds[:, None] == kinds[entries], gaps, np.inf).min(axis=0)
    return (
        np.select([vanished, lost, merged], list(STATES[:3]), default=DISTINCT),
        gaps.min(axis=0) + 0.0,  # no negative zeros
        np.where(np.isinf(siblings), np.nan, siblings + 0.0),
        rival,
    )


def _shared_columns(logits: BlockMatrix, kinds: Indices, vanished: NDArray[np.bool_]) -> Indices:
    """Return numbers of predictions: equal for equal columns of a kind, and for all that vanish."""
    p = logits.partition
    prediction = np.arange(p.num_groups)
    # Classes of equal count that the solver kept apart (too narrow features) may still agree.
    if len(np.unique(kinds)) < p.num_groups:
        norms = logits.column_norms
        for i in prediction.tolist():
            later = np.flatnonzero((kinds == kinds[i]) & (np.arange(p.num_groups) > i))
            differences = logits.mean[:, later] - logits.mean[:, [i]]
            distances = np.sqrt(p.counts[i]) * np.linalg.norm(differences, axis=0)
            same = later[distances <= RANK_TOLERANCE * norms[i]]
            prediction[same] = prediction[i]
    return _with_vanished(prediction, vanished)


def _near_columns(predictions: Array, kinds: Indices, vanished: NDArray[np.bool_]) -> Indices:
    """Return numbers of predictions: equal along chains of siblings, each near to the next."""
    k = len(kinds)
    prediction = np.arange(k)
    for i in np.flatnonzero(kinds >= 0).tolist():
        later = np.flatnonzero((kinds == kinds[i]) & (np.arange(k) > i))
        # One entry that is as far apart is enough, and saves most of the work.
        later = later[np.abs(predictions[i, later] - predictions[i, i]) < SAME_PREDICTION]
        distances = total_variation(predictions[:, later], predictions[:, [i]])
        _join(prediction, np.full(len(later), i), later, distances)
    return _with_vanished(prediction, vanished)


def _join(prediction: Indices, first: Indices, second: Indices, distances: Array) -> None:
    """Give the classes of near pairs one number, in place, and all that have either's."""
    near = distances < SAME_PREDICTION
    for i, j in zip(first[near].tolist(), second[near].tolist(), strict=True):
        prediction[prediction == prediction[j]] = prediction[i]


def _with_vanished(prediction: Indices, vanished: NDArray[np.bool_]) -> Indices:
    none = np.flatnonzero(vanished)
    return np.where(vanished, none[0], prediction) if len(none) else prediction
