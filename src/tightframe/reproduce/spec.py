"""What a reproduction consists of: papers, their figures, the tasks behind them, the verdicts.

A paper is a package in `tightframe.reproduce.papers` with a constant ``PAPER``, a figure a module
of it with a constant ``FIGURE``; both are found by looking. A figure says which tasks it needs at
each scale, what decides whether the claim holds (`Figure.judge`), and what is drawn
(`Figure.draw`); `tightframe.reproduce.tasks` runs the tasks and `tightframe.reproduce.folder` keeps
everything in a folder.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tightframe.checks import choice
from tightframe.figures.model import Panel
from tightframe.files import to_plain
from tightframe.runs.folder import config_hash

if TYPE_CHECKING:
    from tightframe.reproduce.results import Results

#: How much is spent: seconds a figure; at most twenty minutes a figure on two cores; the original
#: settings, for a GPU.
SCALES = ("smoke", "cpu", "paper")

#: What a task can be, see `tightframe.reproduce.tasks`.
KINDS = ("solve", "path", "ufm", "network")

REPRODUCED, NOT_REPRODUCED, NOT_AT_THIS_SCALE = "reproduced", "not reproduced", "not at this scale"

#: Runs that the criterion rests on have failed, and the others do not refute it; or their seeds
#: differ too much to say.
UNDECIDED = "undecided"

OUTCOMES = (REPRODUCED, NOT_REPRODUCED, NOT_AT_THIS_SCALE, UNDECIDED)

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Task:
    """One thing to run; equal tasks of several figures run once.

    Parameters
    ----------
    kind : {"solve", "path", "ufm", "network"}
    arguments : mapping
        What it depends on, JSON-ready; see the function of that name in
        `tightframe.reproduce.tasks`.
    labels : mapping
        Columns that every row of its results gets, for ``results.select``; texts and numbers. They
        are the figure's own: tasks that differ in labels only are equal.

    Raises
    ------
    ValueError
        If the kind is unknown or something is not plain data.
    """

    kind: str
    arguments: Mapping[str, Any]
    labels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the task can be stored and sent."""
        choice("kind", self.kind, KINDS)
        try:
            plain = to_plain(self.arguments)
            json.dumps(plain, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"arguments: not JSON-ready ({error})") from None
        for name, value in self.labels.items():
            if not isinstance(value, (str, int, float, bool)):
                raise ValueError(f"labels: {name} is {value!r}, need text or a number")
        object.__setattr__(self, "arguments", plain)
        object.__setattr__(self, "labels", dict(self.labels))

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of kind and arguments, the name of the task's folder."""
        return config_hash({"kind": self.kind, "arguments": self.arguments})

    @property
    def name(self) -> str:
        """The task in words: its kind and labels."""
        text = ", ".join(f"{name} {value}" for name, value in self.labels.items())
        return f"{self.kind} ({text})" if text else self.kind


@dataclass(frozen=True)
class Verdict:
    """Whether one claim holds, and what decides that.

    Attributes
    ----------
    criterion : str
        The rule, with its number: ``"the switch is within one grid step of the threshold"``.
    claimed : str
        What the paper says, first the part that is judged where several are.
    predicted : float, str or None
        What the theory gives, computed; None where it gives nothing.
    measured : float, str or None
        What the runs gave: the same quantity, in the same unit.
    tolerance : float, str or None
        What the criterion allows.
    outcome : {"reproduced", "not reproduced", "not at this scale", "undecided"}
    sentence : str
        The finding in one plain sentence.
    """

    criterion: str
    claimed: str
    predicted: float | str | None
    measured: float | str | None
    tolerance: float | str | None
    outcome: str
    sentence: str

    def __post_init__(self) -> None:
        """Check the outcome; a measured NaN is no evidence for a claim."""
        choice("outcome", self.outcome, OUTCOMES)
        measured = self.measured
        if isinstance(measured, float) and math.isnan(measured) and self.outcome == REPRODUCED:
            raise ValueError("measured: is NaN, which reproduces nothing")

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON-ready values."""
        plain: dict[str, Any] = to_plain(asdict(self))
        return plain


@dataclass(frozen=True)
class Figure:
    """A figure or table of a paper, as something to run, judge and draw.

    Parameters
    ----------
    name : str
        Lower-case words with hyphens: ``"minority-lambda"``.
    title : str
    source : str
        Where it is in the paper: ``"Fig. 5-6"``.
    claim : str
        What the paper claims, one or two sentences.
    caption : str
        What to see in the picture.
    tasks : callable
        Scale to list of `Task`.
    judge : callable
        `Results` to list of `Verdict`, at least one.
    draw : callable
        `Results` to list of `tightframe.figures.model.Panel`.
    note : str
        How this differs from the paper's own figure.
    place : int
        Among the figures of its paper, in the paper's order.
    """

    name: str
    title: str
    source: str
    claim: str
    caption: str
    tasks: Callable[[str], list[Task]]
    judge: Callable[[Results], list[Verdict]]
    draw: Callable[[Results], list[Panel]]
    note: str = ""
    place: int = 0

    def __post_init__(self) -> None:
        _check_name(self.name)


@dataclass(frozen=True)
class Paper:
    """A paper and what of it can be reproduced.

    Parameters
    ----------
    name : str
        As users give it: ``"hong-ling"``.
    citation : str
        Authors, year, title, venue.
    url : str
    figures : sequence of Figure
        In the paper's order.
    """

    name: str
    citation: str
    url: str
    figures: Sequence[Figure]

    def __post_init__(self) -> None:
        _check_name(self.name)
        names = [figure.name for figure in self.figures]
        doubles = {name for name in names if names.count(name) > 1}
        if doubles:
            raise ValueError(f"figures: two are named {min(doubles)!r}")


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"name: got {name!r}, need lower-case words joined by hyphens")


# -- found by looking ------------------------------------------------------------------------------


def papers() -> dict[str, Paper]:
    """Return all papers there are, by name, in the order of their addresses: by arXiv number."""
    found: list[Paper] = list(_constants("tightframe.reproduce.papers", "PAPER"))
    return {paper.name: paper for paper in sorted(found, key=lambda paper: paper.url)}


def figures_in(package: str) -> list[Figure]:
    """Return the figures of a paper's package, by their place: for its ``PAPER``."""
    found: list[Figure] = list(_constants(package, "FIGURE"))
    return sorted(found, key=lambda figure: (figure.place, figure.name))


def _constants(package: str, name: str) -> Iterator[Any]:
    """Yield a constant of all modules of a package that have it."""
    places = importlib.import_module(package).__path__
    for module in pkgutil.iter_modules(places, f"{package}."):
        value = getattr(importlib.import_module(module.name), name, None)
        if value is not None:
            yield value


def find_figures(names: str | Sequence[str]) -> list[tuple[Paper, Figure]]:
    """Return the figures that names stand for, each once, in the papers' order.

    Parameters
    ----------
    names : str or sequence of str
        ``"all"``, a paper (``"hong-ling"``) or one of its figures (``"hong-ling/limit"``).

    Raises
    ------
    ValueError
        If a name is unknown; the message lists what there is.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted:
        raise ValueError("names: need a paper, PAPER/FIGURE or all")
    known = papers()
    chosen: set[tuple[str, str]] = set()
    for name in wanted:
        if name == "all":
            chosen |= {(p.name, f.name) for p in known.values() for f in p.figures}
            continue
        paper_name, slash, figure_name = name.partition("/")
        if paper_name not in known:
            raise ValueError(f"names: got {name!r}, allowed are all, {', '.join(known)}")
        figures = [figure.name for figure in known[paper_name].figures]
        if slash and figure_name not in figures:
            raise ValueError(
                f"names: got {name!r}, the figures of {paper_name} are {', '.join(figures)}"
            )
        chosen |= {(paper_name, figure) for figure in ([figure_name] if slash else figures)}
    return [
        (paper, figure)
        for paper in known.values()
        for figure in paper.figures
        if (paper.name, figure.name) in chosen
    ]
