"""Thresholds of problems with label distributions: what merges from which decay on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import number_of
from tightframe.problem.problem import Problem, at_most
from tightframe.saved import Saved, kept
from tightframe.shown import Block, Shown, frame, plot, record
from tightframe.theory.contexts.certificate import collapse_decay
from tightframe.theory.contexts.form import ContextForm, form_of, merged
from tightframe.theory.contexts.symmetry import exchangeable_groups

if TYPE_CHECKING:
    import pandas as pd

#: Why a label has no threshold.
ALONE = (
    "no other label can take its place: exchanging it with any one changes the problem, and where "
    "its logits meet another's there is no exact threshold; total_collapse holds for it too"
)
EQUAL = "its row of the targets equals that of another label: they share their logits always"
EXCHANGED = (
    "it may be exchanged with others of its set, with which it shares its logits from there on"
)

Members = tuple[int, ...]
Whole = NDArray[np.intp]


@kept
@record
@dataclass(frozen=True)
class LabelThreshold:
    """Labels that may be exchanged, and from which decay on they share their logits.

    Attributes
    ----------
    labels : tuple of int
    contexts : tuple of int
        Those whose targets tell the labels apart. Where the labels share their logits, contexts
        that differ in the order of these labels only do too.
    logit_decay : float
        They share their logits iff ``sqrt(weight_decay feature_decay)`` is at least this.
    collapsed : bool or None
        Whether that is so at the problem's decays; None where none were given.
    """

    labels: Members
    contexts: Members
    logit_decay: float
    collapsed: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "labels": list(self.labels),
            "contexts": list(self.contexts),
            "logit_decay": self.logit_decay,
            "collapsed": self.collapsed,
        }


@dataclass(frozen=True, repr=False)
class ContextThresholds(Shown, Saved):
    """What merges from which decay on, of a problem with targets.

    Attributes
    ----------
    problem : Problem
    logit_decay : float or None
        ``sqrt(weight_decay feature_decay)`` of the problem; None where none were given.
    total_collapse : float
        From this logit decay on, all logits are zero and only the bias speaks.
    sets : tuple of LabelThreshold
        Labels that may be exchanged.
    equal_labels : tuple of tuple of int
        Labels with equal rows of the targets: they share their logits at every decay.
    equal_contexts : tuple of tuple of int
        Contexts of the same targets and the same loss weight per feature weight: the same.
    alone : tuple of int
        Labels in neither, which have no threshold of their own (`reason` says why).
    """

    problem: Problem = field(compare=False)
    logit_decay: float | None
    total_collapse: float
    sets: tuple[LabelThreshold, ...]
    equal_labels: tuple[Members, ...]
    equal_contexts: tuple[Members, ...]
    alone: Members

    def of_label(self, label: int) -> float | None:
        """Return from which logit decay on a label shares its logits with another one.

        0 for labels with equal rows; None where no threshold is known.

        Raises
        ------
        ValueError
            If there is no such label.
        """
        self._require(label)
        if any(label in own for own in self.equal_labels):
            return 0.0
        return next((own.logit_decay for own in self.sets if label in own.labels), None)

    def reason(self, label: int) -> str:
        """Say why `of_label` is what it is, or why there is none."""
        place = self.of_label(label)
        return ALONE if place is None else EXCHANGED if place else EQUAL

    def _require(self, label: int) -> None:
        if not 0 <= label < self.problem.num_classes:
            raise ValueError(f"label: got {label}, need 0 to {self.problem.num_classes - 1}")

    def without_decays(self) -> ContextThresholds:
        """Return these without what belongs to the problem's own decays."""
        sets = tuple(replace(own, collapsed=None) for own in self.sets)
        return replace(self, logit_decay=None, sets=sets)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready, without the problem."""
        return {
            "logit_decay": self.logit_decay,
            "total_collapse": self.total_collapse,
            "sets": [own.to_dict() for own in self.sets],
            "equal_labels": [list(own) for own in self.equal_labels],
            "equal_contexts": [list(own) for own in self.equal_contexts],
            "alone": list(self.alone),
            "note": ALONE if self.alone else "",
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row a label: its name, from where it merges (0: always), and with whom.

        See `tightframe.shown.frame`.
        """
        size = self.problem.num_classes
        places, shares = np.full(size, np.nan), np.full(size, None, dtype=object)
        for own in self.sets:
            places[list(own.labels)] = own.logit_decay
            shares[list(own.labels)] = [own.labels] * len(own.labels)
        for members in self.equal_labels:
            places[list(members)] = 0.0
            shares[list(members)] = [members] * len(members)
        names = [self.problem.name(v) for v in range(size)]
        return frame({"label": names, "merges": places, "with": shares})

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw how many labels share their logits with others along the decay.

        See `tightframe.shown.plot`.
        """
        from tightframe.views.thresholds import merging_chart

        return plot(merging_chart(self), ax)

    def _blocks(self) -> Iterator[Block]:
        from tightframe.views.contexts import thresholds_table

        yield thresholds_table(self)

    def __repr__(self) -> str:
        return (
            f"ContextThresholds(total_collapse {self.total_collapse:.6g}, "
            f"{number_of(len(self.sets), 'set')} of "
            f"exchangeable labels, {len(self.equal_labels)} of equal labels, "
            f"{len(self.equal_contexts)} of equal contexts, "
            f"{number_of(len(self.alone), 'label')} alone)"
        )


def context_thresholds(problem: Problem) -> ContextThresholds:
    """Return what merges from which decay on (docs/theory.md section 10).

    Of labels any of which may be exchanged (with an order of the contexts), the targets' part of
    the slope that tells two of them apart is the same for all logits that do not: they share their
    logits iff ``|(p_i - p_j) a / sqrt(omega)| <= sqrt(2) lambda``, p_i and p_j their rows of the
    targets, a and omega the contexts' weights in loss and decay cost. For a block of k labels and
    k contexts that is ``c a / sqrt(omega) <= lambda``, c own less sibling probability.
    """
    small = merged(form_of(problem))
    labels, contexts = _members(small.label_of), _members(small.context_of)
    decay = problem.logit_decay
    sets = []
    groups = _members(exchangeable_groups(small.form))
    for own in (np.array(group) for group in groups if len(group) > 1):
        place = _apart(small.form, own)
        every = sorted(v for label in own.tolist() for v in labels[label])
        telling = sorted(j for k in _telling(small.form, own).tolist() for j in contexts[k])
        sets.append(
            LabelThreshold(tuple(every), tuple(telling), place, bool(at_most(place, decay)))
        )
    equal = tuple(own for own in labels if len(own) > 1)
    known = {v for own in sets for v in own.labels} | {v for own in equal for v in own}
    return ContextThresholds(
        problem,
        decay,
        collapse_decay(small.form)[0],
        tuple(sorted(sets, key=lambda own: own.logit_decay)),
        equal,
        tuple(own for own in contexts if len(own) > 1),
        tuple(v for v in range(problem.num_classes) if v not in known),
    )


def _members(number_of: Whole) -> list[Members]:
    """Return the members of every merged label or context."""
    order = np.argsort(number_of, kind="stable")
    starts = np.cumsum(np.bincount(number_of))[:-1]
    return [tuple(own.tolist()) for own in np.split(order, starts)]


def _apart(form: ContextForm, labels: Whole) -> float:
    """Return the slope of the targets that tears two labels of a set apart."""
    pair = form.targets.T.tocsr()[labels[:2]].toarray()
    pull = (pair[0] - pair[1]) * form.weights * form.context_scale
    return float(np.linalg.norm(pull) / np.sqrt(2 * form.label_weights[labels[0]]))


def _telling(form: ContextForm, labels: Whole) -> Whole:
    """Return the contexts in which labels have different probabilities."""
    rows = form.targets.T.tocsr()[labels]
    largest = rows.max(axis=0).toarray().ravel()
    least = rows.min(axis=0).toarray().ravel()
    return np.flatnonzero(largest > least * (1 + 1e-12))
