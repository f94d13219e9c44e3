"""The table of classes: what a network does with each of them, worst first.

Everything is read off features, labels and classifier; no theory is asked. What is said of few
samples and of class means alone was measured on 162 ordinary networks (2,880 classes, 334 of them
lost; benchmarks/results/practice.md). Needs NumPy only, SciPy for class means.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import first_few
from tightframe.figures.table import Column, Table
from tightframe.geometry.blocks import Array
from tightframe.geometry.states import (
    ABSENT,
    DISTINCT,
    LOST,
    VANISHED,
    States,
    states_of_means,
)
from tightframe.heads.last_layer import LastLayer
from tightframe.losses.registry import LOSSES
from tightframe.metrics.answers import BLOCK_ENTRIES, LOST_BELOW, WEAK_BELOW, Answers, answers_of
from tightframe.metrics.class_picture import MOST_ROWS, chart_of
from tightframe.problem.class_names import shown_names
from tightframe.problem.problem import Problem, require_no_targets
from tightframe.saved import Saved, kept
from tightframe.shown import Block, Shown, frame, plot, record

if TYPE_CHECKING:
    import pandas as pd

#: States that accuracies give, worst first; the first and the last are also states of class means.
WEAK = "weak"
ACCURACY_STATES = (LOST, WEAK, DISTINCT)

#: From class means alone a class counts as lost, or near it, up to this margin at its mean: 15
#: false alarms and 47 missed, 37 of them in networks of 100 classes (10 classes: 13 and 10 of 174).
NEAR_MARGIN = 0.25

#: Draws of a normal distribution, by which class means and covariances are judged.
DRAWS = 2000

#: Few samples, and not many.
FEW, SOME = 30, 100

#: How many classes had a held-out recall below .5, of how many, in 162 networks: by the
#: training accuracy that they reach, for up to `FEW`, up to `SOME`, and more samples.
RECALL_BELOW_HALF = (
    (WEAK_BELOW, ((143, 643), (16, 795), (0, 698))),
    (0.7, ((79, 118), (20, 97), (0, 108))),
    (LOST_BELOW, ((50, 60), (9, 23), (0, 4))),
)

#: Most classes that a row lists as having its prediction; before training it would be all of them.
MOST_SHARED = 100


@kept
@record
@dataclass(frozen=True)
class ClassRow:
    """What a network does with one class.

    Numbers that are not known are None: those of samples where only class means are.

    Attributes
    ----------
    label : int
    name : str
        The label, where classes have no names.
    count : int
        Training samples; 0 of a class that has held-out samples only.
    state : str
        From class means, of `tightframe.geometry.states`; ``"absent"`` without training samples.
    accuracy_state : {"lost", "weak", "distinct"} or None
        From samples: training accuracy below .5, from .5 to .9, at least .9.
    decision_margin, sibling_margin : float or None
        At the class mean, see `tightframe.geometry.states.ClassState`.
    rival : int or None
        Most frequent wrong answer on its training samples; where none is wrong, the class that is
        nearest by class means.
    rival_name : str or None
    rival_share : float or None
        Share of its samples that are taken for the rival.
    shares_with : tuple of int
        Other classes that have the same prediction at their means, at most `MOST_SHARED` of them;
        ``"with"`` in dicts.
    accuracy : float or None
        Share of its training samples that are answered right.
    held_out_recall : float or None
        The same of held-out samples: the truth, of which training accuracies of few samples say
        little.
    median_margin : float or None
        Of its training samples: own logit minus the largest other one.
    separable : bool or None
        Of a lost class: whether a balanced head on the same features would not lose it.
    near_lost : bool or None
        Where only class means are known: whether its margin there is at most `NEAR_MARGIN`, or,
        with class covariances, whether its `normal_accuracy` is that of a lost class.
    normal_accuracy : float or None
        Where only class means and covariances are known: the share that would be answered right of
        samples with a normal distribution of that mean and covariance, from `DRAWS` of them.
    since : Any
        When its accuracy state began, of the history; None without one.
    warning : str or None
        What few samples, or class means alone, leave open, with the evidence.
    """

    label: int
    name: str
    count: int
    state: str
    accuracy_state: str | None = None
    decision_margin: float | None = None
    sibling_margin: float | None = None
    rival: int | None = None
    rival_name: str | None = None
    rival_share: float | None = None
    shares_with: tuple[int, ...] = ()
    accuracy: float | None = None
    held_out_recall: float | None = None
    median_margin: float | None = None
    separable: bool | None = None
    near_lost: bool | None = None
    normal_accuracy: float | None = None
    since: Any = None
    warning: str | None = None

    @property
    def verdict(self) -> str:
        """The row's state in words, with what a lost class is taken for."""
        if self.accuracy_state is None:
            return "near lost" if self.near_lost and self.state != LOST else self.state
        if self.accuracy_state != LOST:
            return self.accuracy_state
        taken = "" if self.rival_name is None else f", taken for {self.rival_name}"
        apart = {
            True: "; its features still separate it",
            False: f"; merged with {self.rival_name or 'others'} in the features",
            None: "",
        }
        return f"{LOST}{taken}{apart[self.separable]}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready; ``shares_with`` is called ``"with"``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {("with" if k == "shares_with" else k): v for k, v in values.items()}


@dataclass(frozen=True, eq=False)
class ClassTable(Shown, Saved, Sequence[ClassRow]):
    """One row a class, worst first; made by `class_table` and `CollapseReport.class_table`.

    Attributes
    ----------
    rows : tuple of ClassRow
        By the smaller of training accuracy and held-out recall, then by margin.
    num_classes : int
        K.
    absent : tuple of int
        Classes without samples, which have no row. They may be rivals.
    names : tuple of str or None
        Of all classes.
    held_out : bool
        Whether there were held-out samples.
    class_accuracy : ndarray, shape (K,), or None
        Training accuracy by label; NaN without samples.
    since_in : str
        What `ClassRow.since` counts where it is a number: ``"epoch"`` or ``"measurement"``.
    """

    rows: tuple[ClassRow, ...]
    num_classes: int
    absent: tuple[int, ...] = ()
    names: tuple[str, ...] | None = None
    held_out: bool = False
    class_accuracy: Array | None = None
    since_in: str = "epoch"

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> ClassRow: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[ClassRow, ...]: ...
    def __getitem__(self, place: int | slice) -> ClassRow | tuple[ClassRow, ...]:
        """Return a row by its place, the worst first; `of` finds a class."""
        return self.rows[place]

    def __iter__(self) -> Iterator[ClassRow]:
        return iter(self.rows)

    def of(self, label: int) -> ClassRow:
        """Return the row of a class.

        Raises
        ------
        ValueError
            If it has none.
        """
        for row in self.rows:
            if row.label == label:
                return row
        raise ValueError(f"label: got {label}, which has no samples or is no class")

    @cached_property
    def _shown(self) -> dict[str, str]:
        """How every name is shown in a sentence."""
        if self.names is None:
            return {}
        return dict(zip(self.names, shown_names(self.names), strict=True))

    def shown(self, name: str) -> str:
        """Return the name of a class for a sentence: at most as long as has room there."""
        return self._shown.get(name, name)

    def listed(self, rows: Iterable[ClassRow], most: int = 10) -> str:
        """Return the names of classes for a sentence, the first ones where there are many."""
        return shortened_list([self.shown(row.name) for row in rows], most)

    @property
    def lost(self) -> tuple[ClassRow, ...]:
        """Rows of the lost classes; where only class means are known, of those near it too."""
        return tuple(
            row
            for row in self.rows
            if row.accuracy_state == LOST or (row.accuracy_state is None and row.near_lost)
        )

    @property
    def weak(self) -> tuple[ClassRow, ...]:
        """Rows of the weak classes."""
        return tuple(row for row in self.rows if row.accuracy_state == WEAK)

    @property
    def headline(self) -> str:
        """Which classes are lost and weak, and which others held-out samples show to be lost."""
        by_samples = any(row.accuracy_state is not None for row in self.rows)
        lost, weak = self.lost, self.weak
        word = LOST if by_samples else "lost or near it, by their means"
        number = f"{len(lost)} of {len(self.rows)} classes {'is' if len(lost) == 1 else 'are'}"
        text = f"{number} {word}: {self.listed(lost)}" if lost else f"No class is {word}"
        text += f"; weak: {self.listed(weak)}." if weak else "."
        named = {row.label for row in lost}
        unseen = [
            row
            for row in self.rows
            if row.held_out_recall is not None
            and row.held_out_recall < LOST_BELOW
            and row.label not in named
        ]
        return text + (
            f" Held-out recall below {LOST_BELOW}: {self.listed(unseen)}." if unseen else ""
        )

    def separated(self, separable: ArrayLike) -> ClassTable:
        """Return the table with `ClassRow.separable` of its lost classes, (K,) truth values.

        Raises
        ------
        ValueError
            If they are not one a class.
        """
        found, k = np.asarray(separable), self.num_classes
        if found.shape != (k,):
            raise ValueError(f"separable: got shape {found.shape}, need ({k},)")
        rows = (
            replace(row, separable=bool(found[row.label])) if row.accuracy_state == LOST else row
            for row in self.rows
        )
        return replace(self, rows=tuple(rows))

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dict a class, JSON-ready, worst first."""
        return [row.to_dict() for row in self.rows]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a class, worst first, see `tightframe.shown.frame`."""
        names = {f.name: "with" if f.name == "shares_with" else f.name for f in fields(ClassRow)}
        columns = {name: [getattr(row, key) for row in self.rows] for key, name in names.items()}
        return frame(columns)

    @property
    def remarks(self) -> list[str]:
        """What is to be said of the rows, a sentence each; the `headline` comes first."""
        lost = [row for row in self.rows if row.accuracy_state == LOST]
        apart = [row for row in lost if row.separable]
        merged = [row for row in lost if row.separable is False]
        said = [self.headline]
        if apart:
            said.append(f"The features still separate {self.listed(apart)}: a balanced head would.")
        if merged:
            verb, whom = ("has", "its rival") if len(merged) == 1 else ("have", "their rivals")
            said.append(f"In the features {self.listed(merged)} {verb} merged with {whom}.")
        began: dict[tuple[str | None, Any], list[ClassRow]] = {}
        for row in self.rows:
            if row.since is not None:
                began.setdefault((row.accuracy_state, row.since), []).append(row)
        said += [
            f"{self.listed(own)}: {state} since {self._when(since)}."
            for (state, since), own in began.items()
        ]
        warned: dict[str, list[ClassRow]] = {}
        for row in self.rows:
            if row.warning:
                warned.setdefault(row.warning, []).append(row)
        said += [f"{self.listed(rows)}: {warning}." for warning, rows in warned.items()]
        if self.absent:
            names = shortened_list([self.shown(_name(self.names, k)) for k in self.absent])
            rivals = "rivals" if len(self.absent) > 1 else "a rival"
            said.append(f"Without samples, but {rivals}: {names}.")
        if self.held_out:
            said.append("Held-out recall is the truth; training accuracy of few samples is not.")
        return said

    def _when(self, since: Any) -> str:
        """Return when a state began; a number alone does not say what it counts."""
        return f"{self.since_in} {since}" if isinstance(since, numbers.Number) else str(since)

    def to_table(self, most: int = MOST_ROWS, *, remarks: bool = True) -> Table:
        """Return the worst classes as a table for people.

        Parameters
        ----------
        most : int
            Rows; the note says how many classes are left out.
        remarks : bool
            Whether the `remarks` are in the note.
        """
        shown = self.rows[:most]
        rest = self.rows[len(shown) :]
        columns: list[str | Column] = [Column("class", align="left", names=True)]
        cells: list[list[Any]] = [[row.name] for row in shown]

        def add(column: Column, values: list[Any]) -> None:
            if any(value is not None for value in values):
                columns.append(column)
                for cell, value in zip(cells, values, strict=True):
                    cell.append(value)

        def number(name: str, format: str = "") -> Column:
            return Column(name, align="right", format=format)

        by_mean = all(row.median_margin is None for row in shown)
        add(Column("count", align="right", spare=True), [row.count for row in shown])
        add(number("accuracy", ".2f"), [row.accuracy for row in shown])
        add(number("recall", ".2f"), [row.held_out_recall for row in shown])
        margins = [row.decision_margin if by_mean else row.median_margin for row in shown]
        add(Column("margin", align="right", format=".2f", spare=True), margins)
        add(
            Column("rival", align="left", names=True, spare=True), [row.rival_name for row in shown]
        )
        add(Column("by samples", states=True), [row.accuracy_state for row in shown])
        if any(row.state != row.accuracy_state for row in shown):
            add(Column("by mean", states=True, spare=True), [row.state for row in shown])
        parts = self.remarks if remarks else []
        if rest:
            lost = sum(row.accuracy_state == LOST for row in rest)
            more = f", {lost} of them lost" if lost else ""
            parts = [f"{len(rest)} more {'class' if len(rest) == 1 else 'classes'}{more}.", *parts]
        # The heads of columns are short, so that a console of 80 letters has room for all.
        heads = ["margin at the mean"] if by_mean else ["training accuracy", "median margin"]
        heads[1:1] = ["held-out recall"] if self.held_out else []
        title = f"Classes, worst first: {', '.join(heads)}"
        return Table(title, columns, cells, " ".join(parts), missing="-")

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the accuracies of the worst classes; their margins where there are no samples.

        See `tightframe.shown.plot`.
        """
        return plot(chart_of(self), ax)

    def _blocks(self) -> Iterator[Block]:
        yield self.to_table()

    def __repr__(self) -> str:
        return f"ClassTable({self.headline.rstrip('.')})"


#: Which lost classes the features still separate: one truth value a class, or what returns that.
Separable = ArrayLike | Callable[[LastLayer], ArrayLike]


def class_table(
    layer: LastLayer,
    *,
    separable: Separable | None = None,
    history: Sequence[Any] | None = None,
    problem: Problem | None = None,
    recalls: ArrayLike | None = None,
    samples: bool = True,
) -> ClassTable:
    """Return what a network does with every class, worst first.

    Parameters
    ----------
    layer : LastLayer
        Classes without samples have no row but are rivals. Recall is given with ``held_out``.
    separable : array_like of bool, shape (K,), or callable, optional
        Whether a balanced head on the same features gets at least half of a class's training
        samples right; a function of the layer that returns it is called only if a class is lost.
    history : sequence, optional
        Earlier measurements in order, the present one last or not among them: reports, tables,
        accuracies of all classes, shape (K,), or pairs of when and one of these, where a number is
        an epoch and anything else is text, as ``"step 300"``. Says since when classes are lost or
        weak.
    problem : Problem, optional
        Which classes are siblings, the loss, and the kind of bias. By default classes of the same
        count are, the loss is cross-entropy, and a bias is free.
    recalls : array_like, shape (K,), optional
        Held-out recall of every class, NaN where unknown: where only that is left of the samples.
    samples : bool
        False judges from class means and covariances alone (`ClassRow.near_lost`), as where
        samples are not at hand.

    Raises
    ------
    ValueError
        If an argument has another number of classes, or a history has no accuracies.

    Examples
    --------
    >>> import numpy as np
    >>> from tightframe.heads import LastLayer
    >>> x = np.array([[2.0, 0.0], [2.0, 0.5], [0.0, 2.0], [1.0, 0.9]])
    >>> table = class_table(LastLayer.of(x, [0, 0, 1, 1], np.eye(2), class_names=["cat", "dog"]))
    >>> [(row.name, row.accuracy, row.rival_name, row.accuracy_state) for row in table]
    [('dog', 0.5, 'cat', 'weak'), ('cat', 1.0, 'dog', 'distinct')]
    """
    counts, means = layer.counts, layer.class_means
    answers = None
    if samples:
        answers = answers_of(layer.features, layer.labels, layer.weight, layer.bias)
    truth = None if recalls is None else np.asarray(recalls, dtype=np.float64)
    if truth is not None and truth.shape != (layer.num_classes,):
        raise ValueError(f"recalls: got shape {truth.shape}, need ({layer.num_classes},)")
    if layer.held_out is not None:
        truth = answers_of(*layer.held_out, layer.weight, layer.bias).accuracy
    table = table_of(
        counts,
        means,
        layer.weight,
        layer.bias,
        answers=answers,
        recalls=truth,
        normal_accuracies=None if samples else _normal_accuracies(layer),
        names=layer.class_names,
        history=history,
        problem=problem,
    )
    if separable is None or not table.lost:
        return table
    return table.separated(separable(layer) if callable(separable) else separable)


def table_of(
    counts: NDArray[np.int64],
    means: Array,
    weight: Array,
    bias: Array | None,
    *,
    answers: Answers | None = None,
    recalls: Array | None = None,
    normal_accuracies: Array | None = None,
    names: tuple[str, ...] | None = None,
    history: Sequence[Any] | None = None,
    problem: Problem | None = None,
) -> ClassTable:
    """Return the table from class means and what samples were answered, see `class_table`.

    Parameters
    ----------
    counts : ndarray of int, shape (K,)
    means : ndarray, shape (K, D)
        Anything in the rows of classes without samples.
    weight, bias
        The classifier; a bias of None is none.
    answers : Answers, optional
        On training samples.
    recalls : ndarray, shape (K,), optional
        On held-out samples; NaN where unknown.
    normal_accuracies : ndarray, shape (K,), optional
        `ClassRow.normal_accuracy`.
    """
    states = mean_states(counts, means, weight, bias, problem)
    known = None if answers is None or not len(answers) else _Tally(answers)
    since = None
    if history is not None and known is not None:
        since = _since([*_accuracies(history, len(counts)), (None, known.accuracy)])
    seen = (counts > 0) | (False if recalls is None else np.isfinite(recalls))
    merged = _members(states)
    rows = []
    for k in np.flatnonzero(seen).tolist():
        count, state, rival = int(counts[k]), str(states.state[k]), int(states.rival[k])
        margin = _number(states.decision_margin[k])
        values: dict[str, Any] = {
            "decision_margin": margin,
            "sibling_margin": _number(states.sibling_margin[k]),
            "shares_with": tuple(i for i in merged.get(int(states.prediction[k]), ()) if i != k),
            "held_out_recall": None if recalls is None else _number(recalls[k]),
        }
        if known is not None and not math.isnan(known.accuracy[k]):
            rival = int(known.rival[k]) if known.rival[k] >= 0 else rival
            accuracy = float(known.accuracy[k])
            values |= {
                "accuracy": accuracy,
                "accuracy_state": accuracy_state(accuracy),
                "median_margin": float(known.median_margin[k]),
                "rival_share": float(known.rival_share[k]),
                "since": None if since is None else since[k],
            }
        elif state != ABSENT:
            near = margin is not None and margin <= NEAR_MARGIN
            if normal_accuracies is not None:
                values["normal_accuracy"] = float(normal_accuracies[k])
                near = values["normal_accuracy"] < LOST_BELOW
            values["near_lost"] = bool(near or state == VANISHED)
        if rival >= 0:
            values |= {"rival": rival, "rival_name": _name(names, rival)}
        warning = _warning(count, values)
        rows.append(ClassRow(k, _name(names, k), count, state, warning=warning, **values))
    rows.sort(key=_worst_first)
    return ClassTable(
        tuple(rows),
        len(counts),
        tuple(np.flatnonzero(~seen).tolist()),
        names,
        recalls is not None,
        None if known is None else known.accuracy,
        "epoch" if history and _is_dated(history[-1]) else "measurement",
    )


def accuracy_state(accuracy: float) -> str:
    """Return the state of a training accuracy, of `ACCURACY_STATES`."""
    if accuracy < LOST_BELOW:
        return LOST
    return WEAK if accuracy < WEAK_BELOW else DISTINCT


def mean_states(
    counts: NDArray[np.int64],
    means: Array,
    weight: Array,
    bias: Array | None,
    problem: Problem | None = None,
) -> States:
    """Return the states of a network's class means, at any number of classes.

    By the rules of `tightframe.geometry.states.measured_states`. Parameters are those of
    `table_of`; entries of classes without samples are ``"absent"``.

    Raises
    ------
    ValueError
        If the problem has another number of classes, or targets.
    """
    if problem is not None:
        require_no_targets(problem, "a state")
    if problem is not None and problem.num_classes != len(counts):
        raise ValueError(
            f"problem: got one of {problem.num_classes} classes, the network has {len(counts)}"
        )
    loss = LOSSES["cross_entropy"] if problem is None else problem.loss_object
    kinds = np.unique(counts, return_inverse=True)[1] if problem is None else problem.class_groups
    kinds = np.where(counts > 0, kinds, -1)
    free = bias is not None if problem is None else problem.bias == "free"
    middle = np.zeros(len(weight))
    if free:
        present = counts > 0
        middle = weight @ (counts[present] @ means[present] / counts.sum())
    lift = np.zeros(len(weight)) if bias is None else bias
    # Columns that lie together in memory are gone through twice as fast.
    return states_of_means(lambda classes: (means[classes] @ weight.T).T, lift, middle, kinds, loss)


# -- inside ----------------------------------------------------------------------------------------


class _Tally:
    """What answers say of every class, computed once."""

    def __init__(self, answers: Answers) -> None:
        self.accuracy, self.rival = answers.accuracy, answers.rival
        self.median_margin = answers.median_margin
        classes, given, times = answers.wrong
        most = self.rival[classes] == given
        taken = np.zeros(len(self.rival))
        taken[classes[most]] = times[most]
        with np.errstate(invalid="ignore"):
            #: Of a class's samples, those that are taken for its rival.
            self.rival_share: Array = taken / answers.counts


def _normal_accuracies(layer: LastLayer) -> Array:
    """Return `ClassRow.normal_accuracy` of every class, NaN without samples."""
    k, width = layer.weight.shape
    half = np.random.default_rng(0).standard_normal((DRAWS // 2, width))
    directions = np.concatenate([half, -half])
    order = np.argsort(layer.labels, kind="stable")
    ends = np.cumsum(layer.counts)
    step = max(1, BLOCK_ENTRIES // k)
    accuracies = np.full(k, np.nan)
    for c in np.flatnonzero(layer.counts).tolist():
        own = layer.features[order[ends[c] - layer.counts[c] : ends[c]]]
        mean = own.mean(axis=0)
        # Its square over n is the covariance.
        root = np.linalg.qr(own - mean, mode="r")
        right = 0
        for start in range(0, DRAWS, step):
            drawn = directions[start : start + step, : len(root)] @ root / math.sqrt(len(own))
            logits = (mean + drawn) @ layer.weight.T
            if layer.bias is not None:
                logits += layer.bias
            answered = logits[:, c].copy()
            logits[:, c] = -np.inf
            right += int((answered > logits.max(axis=1)).sum())
        accuracies[c] = right / DRAWS
    return accuracies


def _members(states: States) -> dict[int, list[int]]:
    """Return the first classes of every prediction that several share."""
    order = np.argsort(states.prediction, kind="stable")
    numbers, starts, times = np.unique(
        states.prediction[order], return_index=True, return_counts=True
    )
    several = times > 1
    places = zip(numbers[several], starts[several], times[several], strict=True)
    return {
        int(number): order[start : start + min(count, MOST_SHARED)].tolist()
        for number, start, count in places
    }


def _warning(count: int, known: dict[str, Any]) -> str | None:
    """Return the warning of a row with so many training samples and these entries."""
    if known.get("near_lost"):
        rule = f"margin at its mean up to {NEAR_MARGIN} (15 false alarms, 47 of 334 missed)"
        if "normal_accuracy" in known:
            rule = (
                "of normally distributed samples of its mean and covariance fewer than half would "
                "be answered right (6 false alarms, 15 of 334 missed)"
            )
        return f"lost or near it, {rule}"
    accuracy, recall = known.get("accuracy"), known["held_out_recall"]
    if accuracy is None or accuracy < LOST_BELOW:
        return None
    if recall is not None:
        few = recall < LOST_BELOW
        return f"held-out recall below {LOST_BELOW}, whatever the accuracy" if few else None
    band = (count > FEW) + (count > SOME)
    for least, evidence in RECALL_BELOW_HALF:
        if accuracy >= least:
            below, all_known = evidence[band]
            if not below:
                return None
            counts = (f"up to {FEW}", f"{FEW + 1} to {SOME}", f"over {SOME}")[band]
            return (
                f"held-out recall unknown: it was below {LOST_BELOW} in {below} of {all_known} "
                f"classes of {counts} samples with this accuracy, of other networks"
            )
    return None


def _worst_first(row: ClassRow) -> tuple[Any, ...]:
    shares = [value for value in (row.accuracy, row.held_out_recall) if value is not None]
    margins = (row.median_margin, row.decision_margin)
    margin = next((value for value in margins if value is not None), math.inf)
    return (min(shares, default=0.0), margin, row.label)


def _name(names: tuple[str, ...] | None, label: int) -> str:
    return str(label) if names is None else names[label]


def shortened_list(names: Sequence[str], most: int = 10) -> str:
    """Return names with commas and an "and"; how many more where there are many."""
    if len(names) > most:
        return first_few(names, most)
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _accuracies(history: Sequence[Any], num_classes: int) -> Iterator[tuple[Any, Array]]:
    """Yield when every measurement of a history was made, and its accuracies."""
    for i, entry in enumerate(history):
        when, found = entry if _is_dated(entry) else (i, entry)
        values = found
        if not isinstance(found, (np.ndarray, list)):
            values = getattr(found, "class_accuracy", None)
        if values is None:
            raise ValueError(f"history: measurement {i} has no accuracies, need those of samples")
        values = np.asarray(values, dtype=np.float64)
        if values.shape != (num_classes,):
            raise ValueError(f"history: got shape {values.shape}, need ({num_classes},)")
        yield when, values


def _is_dated(entry: Any) -> bool:
    """Tell whether an entry of a history says when it was measured."""
    return isinstance(entry, tuple) and len(entry) == 2


def _since(history: Sequence[tuple[Any, Array]]) -> list[Any]:
    """Return since when every class is lost, or weak, without a break; None for distinct ones."""
    now = [accuracy_state(a) for a in history[-1][1].tolist()]
    since: list[Any] = [None] * len(now)
    going = np.array([state != DISTINCT for state in now])
    for when, values in reversed(history[:-1]):
        for k in np.flatnonzero(going).tolist():
            if accuracy_state(values[k]) == now[k]:
                since[k] = when
            else:
                going[k] = False
    return since
