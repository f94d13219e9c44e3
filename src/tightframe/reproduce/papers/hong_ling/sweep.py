"""Minority collapse along a sweep, of decays or of counts: tasks, verdicts and panels.

The UFM has the paper's counts and grid, networks at the small scales a grid that stands in the same
ratio to the threshold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from tightframe.figures.model import Mark, Panel
from tightframe.reproduce.judging import decided, largest, switch, verdict
from tightframe.reproduce.papers.hong_ling import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Task, Verdict
from tightframe.runs.verdicts import COLLAPSE_TOLERANCE as COLLAPSED

#: Majority classes of the two experiments, of 10 classes.
MAJORITY_CLASSES = (5, 3)


class Sweep(ABC):
    """One experiment with 5 and with 3 majority classes; ``what`` is ``"UFM"`` or ``"network"``."""

    #: What is swept: in sentences, in titles of maps, on the axis; and what is claimed.
    unit: str
    symbol: str
    x_label: str
    claimed: str

    @abstractmethod
    def at(self, run: Run) -> float:
        """Return where on the sweep a run is."""

    @abstractmethod
    def grid(self, scale: str, what: str, classes: int) -> list[Any]:
        """Return where models are trained."""

    @abstractmethod
    def dense(self, scale: str, what: str, classes: int) -> Iterable[Any]:
        """Return where the theory is drawn."""

    @abstractmethod
    def setting(self, scale: str, what: str, classes: int, value: Any) -> tuple[str, float]:
        """Return counts and lambda at a point of the sweep."""

    @abstractmethod
    def thresholds(self, scale: str, what: str, classes: int) -> dict[str, float]:
        """Return where the minority merges, then what else is known, by the names of marks."""

    @abstractmethod
    def described(self, scale: str, what: str, classes: int) -> str:
        """Return what stays the same along the sweep, for titles."""

    def tasks(self, scale: str) -> list[Task]:
        """Return the tasks of a figure."""
        tasks = []
        for classes in MAJORITY_CLASSES:
            label: dict[str, Any] = {"majority_classes": classes}
            for what in ("UFM", "network"):
                grid = self.grid(scale, what, classes)
                points = [self.setting(scale, what, classes, value) for value in grid]
                line = self.dense(scale, what, classes)
                problems = [shared.problem(*self.setting(scale, what, classes, v)) for v in line]
                tasks.append(shared.theory(problems, of=what, **label))
                if what == "UFM":
                    tasks.append(
                        shared.ufm(scale, [shared.problem(*own) for own in points], **label)
                    )
                elif scale != "smoke" or classes == MAJORITY_CLASSES[0]:
                    tasks += [
                        shared.network(scale, counts, decay, shared.WARMUP[scale], **label)
                        for counts, decay in shared.grid_points(scale, points)
                    ]
        return tasks

    def _parts(self, results: Results) -> Iterator[tuple[int, str, str, Results]]:
        """Yield majority classes, what was trained, its name and its results."""
        for classes in MAJORITY_CLASSES:
            for what, name in (("UFM", "UFM"), ("network", shared.NETWORKS[results.scale])):
                part = results.select(what=what, majority_classes=classes)
                if part.tasks:
                    yield classes, what, name, part

    def judge(self, results: Results) -> list[Verdict]:
        """Judge whether the minority's margin vanishes where predicted, within one grid step."""
        return [
            self._judge(part, what, classes, f"{name}, {classes} majority classes")
            for classes, what, name, part in self._parts(results)
        ]

    def _judge(self, part: Results, what: str, classes: int, name: str) -> Verdict:
        threshold, *_ = self.thresholds(part.scale, what, classes).values()
        found = switch(
            part, threshold, self.at, lambda runs: largest(runs, shared.minority_margin) < COLLAPSED
        )
        short = what == "network" and part.scale == "smoke"
        measured = found.interval(found.found)
        sentence = (
            f"{name}: the minority's margin falls below {COLLAPSED} nats for good {measured}; the "
            f"theory's threshold is {self.unit} = {threshold:.6g}, "
            f"{found.interval(found.expected)} on this grid."
        )
        if short:
            sentence += " Too few points and too short a training to decide."
        return verdict(
            decided(part, None if short else found.holds, refuted=not short and found.refuted),
            criterion="the measured switch lies within one grid step of the predicted threshold "
            f"(switch: from there on the minority's margin is below {COLLAPSED} nats)",
            claimed=f"{name}: {self.claimed}",
            predicted=found.interval(found.expected),
            measured=measured,
            tolerance="1 grid step",
            sentence=sentence,
        )

    def draw(self, results: Results) -> list[Panel]:
        """Draw margins over the sweep, and how the mean logits of the UFM and networks change."""
        panels: list[Panel] = []
        for classes, what, name, part in self._parts(results):
            places = self.thresholds(results.scale, what, classes).items()
            panels.append(
                shared.margin_chart(
                    ("UFM by gradient descent" if what == "UFM" else name)
                    + f": {self.described(results.scale, what, classes)}",
                    self.x_label,
                    self.at,
                    results.select(what="theory", of=what, majority_classes=classes).done,
                    part.done,
                    what,
                    [Mark(value, label, color=i) for i, (label, value) in enumerate(places)],
                )
            )
        for classes, what, name, part in self._parts(results):
            fixed = self.described(results.scale, what, classes)
            title = f"{name}, mean logits over {self.symbol}: {fixed}"
            value = f"{self.symbol} = {{}}"
            panels.append(shared.logit_maps(title, part.done, self.at, value, classes))
        return panels
