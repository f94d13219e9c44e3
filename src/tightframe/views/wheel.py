"""The wheel: where every class is sent, at one decay or over training.

A class has a home ``a_j`` on the unit circle and is drawn at ``sum_j p_j a_j``, where ``p`` is the
prediction at its class mean: one linear map of predictions, the same for every network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import number_of
from tightframe.figures.diagrams import (
    CAPTION_AT,
    RIM,
    Callout,
    Caption,
    Moment,
    Wheel,
    text_width,
)
from tightframe.figures.style import STATES
from tightframe.problem.class_names import shown_names
from tightframe.problem.problem import Problem, require_no_targets

if TYPE_CHECKING:
    from tightframe.geometry.states import States
    from tightframe.solution import Solution

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Up to so many groups stand on arcs of their own, so many slots apart.
MOST_ARCS, ARC_GAP = 4, 0.9

#: Of more classes marks are small and a few names are written; still more share marks, one for
#: every quantile of the counts.
FEW, MOST_MARKS = 30, 200

#: Between names, where not all are written.
NAMED = 10

#: Letters of a name on the rim.
NAME_WIDTH = 14

#: More classes than this in one place are counted, not named.
MOST_CALLED = 6

#: Classes that take a prediction are named, so many, from this share on.
TAKERS, LEAST_SHARE = 3, 0.01

#: With more marks in all moments together, what is said of each would be most of a page.
MOST_TIPS = 5000

#: Marks are drawn at most so far out: predictions of squared errors need not be shares.
FARTHEST = 1.08

#: Below a callout begins the next, in radii of the rim.
_CALLOUT_HEIGHT, _MOST_DOWN = 16 / RIM, 6


class Homes(NamedTuple):
    """Where the classes stand on the rim.

    Attributes
    ----------
    places : ndarray, shape (K, 2)
    order : ndarray of int, shape (K,)
        Classes from the largest count down, clockwise.
    arcs : tuple of (int, ndarray)
        Group and classes of every arc; empty where groups have no arcs of their own.
    """

    places: Array
    order: Indices
    arcs: tuple[tuple[int, Indices], ...]


@dataclass(frozen=True, eq=False)
class Sent:
    """Where the classes are sent by a solution or a network.

    Attributes
    ----------
    states : States
        One entry a class.
    places : ndarray, shape (K, 2)
    cross : ndarray, shape (2,)
        Where a class is sent whose class mean is zero.
    own : ndarray, shape (K,)
        Share of the own class in the prediction.
    predictions : ndarray, shape (K, K), or None
        None of more than `MOST_MARKS` classes.
    """

    states: States
    places: Array
    cross: Array
    own: Array
    predictions: Array | None


class View(NamedTuple):
    """What a wheel shows at one decay or one epoch.

    Attributes
    ----------
    label : str
    sent : Sent
        The marks.
    rings : ndarray, shape (K, 2), optional
        Places that are predicted, where the marks are measured.
    value : float, optional
        Decay or epoch.
    """

    label: str
    sent: Sent
    rings: Array | None = None
    value: float | None = None


# -- mathematics -----------------------------------------------------------------------------------


def class_homes(problem: Problem) -> Homes:
    """Place the classes on the unit circle, from the largest count down, clockwise.

    Up to `MOST_ARCS` groups of several classes stand on arcs, the middle of the largest at the top;
    otherwise the largest class is at the top, and the ring is open before it unless all are alike.
    """
    k, counts, groups = problem.num_classes, problem.counts, problem.class_groups
    order = np.argsort(-counts, kind="stable")
    sizes = np.array([group.classes for group in problem.groups])
    arcs: tuple[tuple[int, Indices], ...] = ()
    if k == 2:
        slots, total, top = np.arange(2.0), 2.0, 0.5  # left and right
    elif 1 < len(sizes) <= MOST_ARCS and sizes.max() > 1:
        largest = np.argsort([-group.count for group in problem.groups], kind="stable").tolist()
        arcs = tuple((group, np.flatnonzero(groups == group)) for group in largest)
        order = np.concatenate([classes for _, classes in arcs])
        gaps = np.repeat(ARC_GAP * np.arange(len(arcs)), sizes[largest])
        slots, total = np.arange(k) + gaps, k + ARC_GAP * len(arcs)
        top = (sizes[largest[0]] - 1) / 2
    else:
        alike = len(sizes) == 1
        slots, total, top = np.arange(float(k)), k + (0 if alike else max(1, 0.06 * k)), 0.0
    angles = np.pi / 2 - 2 * np.pi * (slots - top) / total
    places = np.empty((k, 2))
    places[order] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Homes(places, order.astype(np.intp), arcs)


def sent_by_solution(solution: Solution, homes: Homes) -> Sent:
    """Return where a solution sends its classes; at any number of them, from its groups."""
    problem, p = solution.problem, solution.blocks.partition
    groups, k = p.class_groups, problem.num_classes
    predict = problem.loss_object.predictions
    bias = solution.bias
    cross = predict(bias[:, None])[:, 0] @ homes.places
    if k <= MOST_MARKS:
        predictions = predict(solution.logits + bias[:, None])
        own, places = np.diagonal(predictions).copy(), predictions.T @ homes.places
        return Sent(solution.states, places, cross, own, predictions)
    blocks = solution.blocks
    scores = blocks.mean + solution.group_bias[:, None]
    sums = np.stack([np.bincount(groups, homes.places[:, axis]) for axis in (0, 1)], axis=1)
    shares, mine = _grouped_predictions(problem, scores, blocks.within, p.sizes)
    sibling = np.diagonal(shares)
    places = (shares.T @ sums)[groups] + (mine - sibling)[groups, None] * homes.places
    return Sent(solution.states, places, cross, mine[groups], None)


def _grouped_predictions(
    problem: Problem, scores: Array, within: Array, sizes: Array
) -> tuple[Array, Array]:
    """Return what a class of group i sends to one of group j, (G, G) as [j, i], and to itself.

    The diagonal is what it sends to a sibling. ``scores`` are means of blocks of the logits: on the
    diagonal a class's own logit is ``within (k - 1) / k`` above, a sibling's ``within / k`` below.
    """
    others, own = scores.copy(), np.diagonal(scores) + within * (sizes - 1) / sizes
    diagonal = np.arange(len(sizes))
    others[diagonal, diagonal] -= within / sizes
    if problem.loss_object.is_softmax:
        top = np.maximum(others.max(axis=0), own)
        odds, mine = np.exp(others - top), np.exp(own - top)
        total = sizes @ odds - np.diagonal(odds) + mine
        return odds / total, mine / total
    rest = (1 - (sizes @ others - np.diagonal(others) + own)) / sizes.sum()
    return others + rest, own + rest


def sent_by_logits(
    problem: Problem, logits: Array, bias: Array, states: States, homes: Homes
) -> Sent:
    """Return where a network sends its classes.

    Parameters
    ----------
    problem : Problem
    logits : ndarray, shape (K, K)
        Mean logits without bias, column k of class k.
    bias : ndarray, shape (K,)
    states : States
        Of `tightframe.geometry.states.measured_states`.
    homes : Homes
    """
    predict = problem.loss_object.predictions
    middle = np.zeros(len(bias))
    if problem.bias == "free":
        weights = problem.feature_weights
        middle = logits @ weights / weights.sum()
    predictions = predict(logits + bias[:, None])
    cross = predict((middle + bias)[:, None])[:, 0] @ homes.places
    kept = predictions if len(bias) <= MOST_MARKS else None
    own = np.diagonal(predictions).copy()
    return Sent(states, predictions.T @ homes.places, cross, own, kept)


# -- the picture -----------------------------------------------------------------------------------


def solution_wheel(solution: Solution, title: str = "") -> Wheel:
    """Return where a solution sends its classes."""
    homes = class_homes(solution.problem)
    label = decay_label(solution.problem)
    return wheel(
        solution.problem,
        [View(label, sent_by_solution(solution, homes))],
        homes,
        title=title or f"Predicted, {label}",
    )


def decay_label(problem: Problem) -> str:
    """Return at which decay a problem is: ``"λ = 0.008"``."""
    decay = problem.logit_decay if problem.depth == 1 else problem.mean_decay
    return f"λ = {decay:.3g}"


def wheel(
    problem: Problem,
    views: Sequence[View],
    homes: Homes | None = None,
    *,
    title: str = "",
) -> Wheel:
    """Return a wheel.

    Parameters
    ----------
    problem : Problem
        Its counts, names and groups.
    views : sequence of View
    homes : Homes, optional
        Of `class_homes`.
    title : str
    """
    require_no_targets(problem, "a wheel")
    homes = class_homes(problem) if homes is None else homes
    k = problem.num_classes
    bins = np.array_split(homes.order, MOST_MARKS) if k > MOST_MARKS else None
    middles = np.arange(k) if bins is None else np.array([own[len(own) // 2] for own in bins])
    counts = problem.counts
    few = k <= FEW
    sizes = 4.2 + 4.8 * np.sqrt(counts / counts.max()) if few else np.full(k, 3.2)
    names = shown_names([problem.name(i) for i in middles.tolist()], NAME_WIDTH)
    order = homes.order if bins is None else np.arange(len(bins))
    named = order if few else order[:: max(NAMED, len(order) // 10)]
    return Wheel(
        title,
        names,
        homes.places[middles],
        (sizes[middles] / RIM).tolist(),
        [
            _moment(problem, view, bins, told=len(middles) * len(views) <= MOST_TIPS)
            for view in views
        ],
        named.tolist(),
        [] if bins is not None and not homes.arcs else _captions(problem, homes),
        joined=bins is None,
        note="" if bins is None else _BINNED.format(len(bins), k),
    )


_BINNED = (
    "{} marks for {} classes, by their counts; each shows the class of the worst state among those "
    "it stands for."
)


def _captions(problem: Problem, homes: Homes) -> list[Caption]:
    """Return what stands outside the arcs: how many classes of how many samples."""
    found = []
    for group, classes in homes.arcs:
        out = homes.places[classes].mean(axis=0)
        middle = homes.places[classes[len(classes) // 2]]
        length = float(np.hypot(*out))
        x, y = out / length if length > 1e-9 else middle
        far = 1 + CAPTION_AT / RIM
        count, many = problem.groups[group].count, len(classes)
        text = f"{many} classes of {count}" if many > 1 else f"1 class of {count}"
        found.append((float(x) * far, float(y) * far, text))
    return found


def _moment(problem: Problem, view: View, bins: Sequence[Indices] | None, *, told: bool) -> Moment:
    sent, state = view.sent, view.sent.states.state
    if bins is None:
        shown = np.arange(len(state))
        tips = [_tip(problem, sent, i) for i in shown.tolist()] if told else []
    else:
        shown = np.array([own[_worst(state[own])] for own in bins])
        tips = [_bin_tip(problem, state[own], own) for own in bins] if told else []
    there = np.isin(state, list(STATES))
    return Moment(
        view.label,
        _inside(np.where(there[:, None], sent.places, 0.0)[shown]),
        np.where(there, state, "")[shown].tolist(),
        view.value,
        None if view.rings is None else _inside(view.rings[shown]),
        sent.cross.tolist(),
        list(_callouts(problem, sent)),
        tips,
        [_takers(sent, i) for i in range(len(state))]
        if told and sent.predictions is not None
        else [],
    )


def _worst(states: NDArray[np.str_]) -> int:
    """Return the place of the worst state, of equal ones the middle-most."""
    badness = np.array([_WORST_FIRST.get(str(state), len(STATES)) for state in states])
    worst = np.flatnonzero(badness == badness.min())
    return int(worst[len(worst) // 2])


#: "weak" is said of accuracies alone.
_WORST_FIRST = {name: i for i, name in enumerate(reversed([s for s in STATES if s != "weak"]))}


def _inside(places: Array) -> Array:
    lengths = np.hypot(*places.T)
    inside: Array = places * np.minimum(1, FARTHEST / np.maximum(lengths, FARTHEST))[:, None]
    return inside


def _tip(problem: Problem, sent: Sent, i: int) -> str:
    """Return what is said of a class that is pointed at."""
    states = sent.states
    name = shown_names([problem.name(i)])[0]
    head = name if problem.class_names is not None else f"class {name}"
    lines = [f"{head}: {number_of(problem.counts[i], 'sample')}", str(states.state[i])]
    rival = int(states.rival[i])
    if states.state[i] == "lost" and rival >= 0:
        lines[1] += f", taken for {shown_names([problem.name(rival)])[0]}"
    if np.isfinite(states.decision_margin[i]):
        lines.append(f"decision margin {states.decision_margin[i]:.3g}")
        lines.append(f"own share {sent.own[i]:.3g}")
    return "\n".join(lines)


def _bin_tip(problem: Problem, states: NDArray[np.str_], classes: Indices) -> str:
    counts = problem.counts[classes]
    low, high = int(counts.min()), int(counts.max())
    samples = f"{low}" if low == high else f"{low} to {high}"
    found = [f"{int((states == name).sum())} {name}" for name in _WORST_FIRST if name in states]
    who = f"{len(classes)} classes" if len(classes) > 1 else f"class {problem.name(classes[0])}"
    return "\n".join(
        [f"{who} of {samples} sample{'' if samples == '1' else 's'}", ", ".join(found)]
    )


def _takers(sent: Sent, i: int) -> list[tuple[int, float]]:
    assert sent.predictions is not None
    shares = sent.predictions[:, i].copy()
    shares[i] = -np.inf
    first = np.argsort(-shares, kind="stable")[:TAKERS].tolist()
    return [(j, round(float(shares[j]), 3)) for j in first if shares[j] >= LEAST_SHARE]


def _callouts(problem: Problem, sent: Sent) -> Iterator[Callout]:
    """Yield what is said below classes that share one prediction, none over another."""
    states = sent.states
    taken: list[tuple[float, float, float]] = []
    numbers = states.prediction
    for state in ("merged", "vanished"):
        own = np.flatnonzero(states.state == state)
        # All that vanished lie at the cross, where nothing else need share their number.
        sets = (
            [own]
            if state == "vanished"
            else [own[numbers[own] == n] for n in dict.fromkeys(numbers[own].tolist())]
        )
        for classes in sets:
            if len(classes) < 2:
                continue
            names = shown_names([problem.name(i) for i in classes[: MOST_CALLED + 1]], NAME_WIDTH)
            # Names with blanks in them could not be told apart.
            apart = " " if problem.class_names is None else ", "
            text = f"{apart.join(names)} {state}"
            if len(classes) > MOST_CALLED or text_width(text) > 2 * RIM:
                text = f"{len(classes)} classes {state}"
            half = text_width(text) / RIM / 2
            rest = np.delete(sent.places, classes, axis=0)
            x, y = _free_place(sent.places[classes].mean(axis=0), half, rest, taken)
            taken.append((x, y, half))
            yield Callout(x, y, text, state)


def _free_place(
    middle: Array, half: float, marks: Array, taken: Sequence[tuple[float, float, float]]
) -> tuple[float, float]:
    """Return a place for a callout below its marks that covers no other mark, if there is one."""
    x, y = float(middle[0]), float(middle[1]) - 20 / RIM
    for down in range(_MOST_DOWN):
        place = y - down * _CALLOUT_HEIGHT
        near = np.abs(marks - [x, place]) < [half + 6 / RIM, 13 / RIM]
        apart = all(
            abs(other - place) >= _CALLOUT_HEIGHT or abs(there - x) >= half + wide
            for there, other, wide in taken
        )
        if apart and not near.all(axis=1).any():
            return x, place
    return x, y
