"""Wheels and merge trees as plain data: what becomes of classes, at one decay and along all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tightframe.figures.style import STATES
from tightframe.problem.class_names import display_width

#: Radius of a wheel's rim in pixels, to which its sizes refer; and what surrounds it, there.
RIM = 150.0
NAME_AT, CAPTION_AT, LETTER, LINE_HEIGHT = 17.0, 41.0, 8.2, 15.0

#: Width and least height of a merge tree's axes in pixels.
TREE_WIDTH = 680.0

_NOTHING = "nothing to draw"

#: A place on a wheel and what stands there.
Caption = tuple[float, float, str]


@dataclass(frozen=True)
class Callout:
    """What is said below marks that lie in one place of a `Wheel`.

    Parameters
    ----------
    x, y : float
        Its middle, in radii of the rim.
    text : str
    state : str
        Of `figures.style.STATES`: gives its colour.
    """

    x: float
    y: float
    text: str
    state: str

    def __post_init__(self) -> None:
        _check_states([self.state])


@dataclass(frozen=True)
class Moment:
    """What a `Wheel` shows at one decay or one epoch.

    Parameters
    ----------
    label : str
        As ``"λ = 0.008"`` or ``"epoch 1200"``.
    places : array_like, shape (n, 2)
        Of every mark, in radii of the rim: y grows upwards.
    states : sequence of str
        Of every mark, of `figures.style.STATES`; empty: there is no mark.
    value : float, optional
        The decay or epoch, by which moments are found.
    rings : array_like, shape (n, 2), optional
        Where the prediction has every mark.
    cross : pair of float
        Where no decision is.
    callouts : sequence of Callout
    tips : sequence of str
        What is said of a mark that is pointed at.
    takers : sequence of sequence of (int, float)
        Of every mark the homes that its prediction has besides its own, with their shares.

    Raises
    ------
    ValueError
        If lengths differ or a state is unknown.
    """

    label: str
    places: Any
    states: Sequence[str]
    value: float | None = None
    rings: Any = None
    cross: Sequence[float] = (0.0, 0.0)
    callouts: Sequence[Callout] = ()
    tips: Sequence[str] = ()
    takers: Sequence[Sequence[tuple[int, float]]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", [str(state) for state in self.states])
        _check_states(self.states)
        for name in ("places", "rings"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _pairs(name, getattr(self, name), len(self.states)))
        for name in ("tips", "takers"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.states):
                raise ValueError(
                    f"{name}: got {len(getattr(self, name))} for {len(self.states)} marks"
                )
        takers = [[(int(home), float(share)) for home, share in own] for own in self.takers]
        object.__setattr__(self, "takers", takers)
        object.__setattr__(self, "cross", [float(value) for value in self.cross])


@dataclass(frozen=True)
class Wheel:
    """Where every class is sent: its home on the rim, its mark at what is predicted of it.

    A mark lies at the mean of all homes, weighted with the prediction's shares: on the rim where
    it is certain, at the cross where it decides nothing. Siblings that share a prediction lie in
    one place. Colour and shape of a mark are its state.

    Parameters
    ----------
    title : str
    names : sequence of str
        Of the marks.
    homes : array_like, shape (n, 2)
        On the unit circle.
    sizes : sequence of float
        Radii of the marks, in radii of the rim.
    moments : sequence of Moment
        Backends without time draw the last.
    named : sequence of int
        Marks whose names stand on the rim.
    captions : sequence of (x, y, text)
        Outside the rim.
    joined : bool
        Whether marks are joined to their homes.
    note : str
    ring_label : str
        What rings are; in the key.

    Raises
    ------
    ValueError
        If lengths differ.
    """

    title: str
    names: Sequence[str]
    homes: Any
    sizes: Sequence[float]
    moments: Sequence[Moment]
    named: Sequence[int] = ()
    captions: Sequence[Caption] = ()
    joined: bool = True
    note: str = ""
    ring_label: str = "predicted"

    def __post_init__(self) -> None:
        object.__setattr__(self, "homes", _pairs("homes", self.homes, len(self.names)))
        object.__setattr__(self, "sizes", [float(size) for size in self.sizes])
        object.__setattr__(self, "captions", [tuple(caption) for caption in self.captions])
        for name, values in (("sizes", self.sizes), *(("moments", m.states) for m in self.moments)):
            if len(values) != len(self.names):
                raise ValueError(f"{name}: got {len(values)} marks for {len(self.names)} names")

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not (self.moments and self.names)

    @property
    def reach(self) -> tuple[float, float]:
        """How far names and captions go from the middle, across and up, in radii of the rim."""
        across, up = 1 + 14 / RIM, 1 + 14 / RIM
        for i in self.named:
            x, y = self.homes[i]
            wide = text_width(self.names[i])
            # Names beside the rim start at it, those above and below are centred.
            across = max(across, abs(x) * (1 + NAME_AT / RIM) + wide * (1 + abs(x)) / 2 / RIM)
            up = max(up, abs(y) * (1 + NAME_AT / RIM) + 12 / RIM)
        for x, y, text in self.captions:
            beside = abs(x) > 0.7
            across = max(across, abs(x) + text_width(text) * (1.0 if beside else 0.5) / RIM)
            up = max(up, abs(y) + 10 / RIM)
        return across + 4 / RIM, up + 4 / RIM

    @property
    def shown_states(self) -> list[str]:
        """States that some moment has, in the order of the table."""
        there = {state for moment in self.moments for state in moment.states}
        return [state for state in STATES if state in there]


@dataclass(frozen=True)
class Run:
    """A part of a `Lane` in one state.

    Parameters
    ----------
    state : str
    x, y : sequence of float
        Decays and heights; where heights differ, an S-curve in the decay's logarithm joins them.
    """

    state: str
    x: Sequence[float]
    y: Sequence[float]

    def __post_init__(self) -> None:
        _check_states([self.state])
        for name in ("x", "y"):
            object.__setattr__(self, name, [float(value) for value in getattr(self, name)])
        if len(self.x) != len(self.y):
            raise ValueError(f"y: got {len(self.y)} values for {len(self.x)} of x")


@dataclass(frozen=True)
class Lane:
    """The line of one class in a `MergeTree`.

    Parameters
    ----------
    name : str
        Empty: none is written.
    width : float
        In pixels.
    runs : sequence of Run
        From the smallest decay up. None where the class has vanished.
    ends : sequence of (decay, height)
        Where it vanishes, marked with a cross.
    """

    name: str
    width: float
    runs: Sequence[Run]
    ends: Sequence[tuple[float, float]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", [(float(x), float(y)) for x, y in self.ends])

    def at(self, decay: float) -> tuple[str, float] | None:
        """Return state and height at a decay, None where it has vanished."""
        for run in reversed(self.runs):
            if run.x[0] <= decay <= run.x[-1]:
                i = min(int(np.searchsorted(run.x, decay, side="right")), len(run.x) - 1)
                ends = [math.log(x) for x in run.x[i - 1 : i + 1]]
                reach = ends[1] - ends[0]
                place = (math.log(decay) - ends[0]) / reach if reach > 0 else 1.0
                low, high = run.y[i - 1], run.y[i]
                return run.state, low + (high - low) * s_curve(place)
        return None


def s_curve(place: float) -> float:
    """Return the height from 0 to 1 of the curve ``C .5,0 .5,1 1,1`` from (0, 0)."""
    low, high = 0.0, 1.0
    for _ in range(40):
        t = (low + high) / 2
        if 1.5 * t * (1 - t) + t**3 < place:
            low = t
        else:
            high = t
    return low * low * (3 - 2 * low)


@dataclass(frozen=True)
class Change:
    """A decay at which states change, a line across a `MergeTree`.

    Parameters
    ----------
    value : float
    state : str
        The state afterwards: gives the colour.
    label : str
        Empty: none is written.
    row : int
        Of the label: 0 is the lower one.
    """

    value: float
    state: str
    label: str = ""
    row: int = 0

    def __post_init__(self) -> None:
        _check_states([self.state])


@dataclass(frozen=True)
class Network:
    """A trained network on a `MergeTree`: a line at its decay, a mark a class.

    Parameters
    ----------
    value : float
        Its decay.
    letter : str
    states : sequence of str
        Of the lanes, as measured; empty: no marks.
    """

    value: float
    letter: str
    states: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", [str(state) for state in self.states])
        _check_states(self.states)


@dataclass(frozen=True)
class MergeTree:
    """Which class joins, is taken by another, or vanishes, along the decay on a log axis.

    Where curves end is exact; heights are not to scale.

    Parameters
    ----------
    title, x_label : str
    low, high : float
        Ends of the axis.
    height : float
        Of the axes in pixels, downwards, to which heights refer; they are `TREE_WIDTH` wide.
    lanes : sequence of Lane
        From the top.
    changes : sequence of Change
    captions : sequence of (height, text)
        Left of the names, of groups.
    networks : sequence of Network
    now : float, optional
        A decay that is looked at.
    note : str
    nothing : str
        Stands in place of a tree without lanes.

    Raises
    ------
    ValueError
        If the ends are no range of positive numbers, or a network has other lanes.
    """

    title: str
    x_label: str
    low: float
    high: float
    height: float
    lanes: Sequence[Lane]
    changes: Sequence[Change] = ()
    captions: Sequence[tuple[float, str]] = ()
    networks: Sequence[Network] = ()
    now: float | None = None
    note: str = ""
    nothing: str = _NOTHING

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"low, high: got {self.low} and {self.high}, need 0 < low < high")
        for network in self.networks:
            if network.states and len(network.states) != len(self.lanes):
                raise ValueError(
                    f"networks: got {len(network.states)} states for {len(self.lanes)} lanes"
                )
        object.__setattr__(self, "captions", [tuple(caption) for caption in self.captions])

    @property
    def empty(self) -> bool:
        """Whether there is no lane."""
        return not self.lanes

    @property
    def crosses(self) -> list[tuple[float, float, float]]:
        """Decay, height and size in pixels of the lanes' crosses; those of a cable share one."""
        found: list[tuple[float, float, float]] = []
        ends = [(x, y, min(9.0, 4 + 2 * lane.width)) for lane in self.lanes for x, y in lane.ends]
        for x, y, size in sorted(ends):
            if not found or found[-1][0] != x or y - found[-1][1] >= size:
                found.append((x, y, size))
        return found

    @property
    def left(self) -> float:
        """Pixels that names and captions take left of the axes."""
        return 12 + self.name_width + (24 if self.captions else 0)

    @property
    def name_width(self) -> float:
        """Pixels of the longest name."""
        return max((text_width(lane.name) for lane in self.lanes), default=0.0)

    @property
    def top(self) -> float:
        """Pixels that the labels of changes take above the axes."""
        rows = [change.row for change in self.changes if change.label]
        return 10 + LINE_HEIGHT * (max(rows, default=-1) + 1)

    @property
    def shown_states(self) -> list[str]:
        """States that some class has, in the order of the table."""
        there = {run.state for lane in self.lanes for run in lane.runs}
        there |= {state for network in self.networks for state in network.states}
        there |= {"vanished"} if any(lane.ends for lane in self.lanes) else set()
        return [state for state in STATES if state in there]


def text_width(text: str) -> float:
    """Return about how wide a text is drawn, in pixels."""
    return LETTER * display_width(text)


def _pairs(name: str, values: Any, length: int) -> list[list[float]]:
    pairs = np.asarray(values, dtype=np.float64)
    if pairs.shape != (length, 2) or not np.isfinite(pairs).all():
        raise ValueError(f"{name}: got shape {pairs.shape}, need finite numbers, {(length, 2)}")
    return pairs.tolist()  # type: ignore[no-any-return]


def _check_states(states: Sequence[str]) -> None:
    for state in dict.fromkeys(states):
        if state and state not in STATES:
            raise ValueError(f"state: got {state!r}, allowed are {', '.join(STATES)}")
