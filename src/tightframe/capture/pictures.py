"""Pictures of the classifier that is measured, for the loggers that take them, on the way."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tightframe.capture.embedding import embedding_of
from tightframe.capture.loggers import Sink, sinks
from tightframe.capture.sample import Sample
from tightframe.lazy import needed
from tightframe.metrics.report import CollapseReport
from tightframe.metrics.targets import Target
from tightframe.metrics.wheels import report_wheel
from tightframe.problem.problem import Problem
from tightframe.solution import Solution


def is_shown(number: int) -> bool:
    """Tell whether the measurement of a number, from 1, is one of those with a picture.

    They are dense at the start, where most happens: 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, ..., twenty
    of a thousand.
    """
    step = round(2 * math.log2(number))
    return round(2 ** (step / 2)) == number


class Pictures:
    """Sends wheels on the way and an embedding at the end; training goes on whatever happens.

    Parameters
    ----------
    prefix : str
        Of the logged names.
    known : Problem or Solution, optional
        What the network is trained as, see `tightframe.metrics.wheels.report_wheel`.
    """

    def __init__(self, prefix: str, known: Problem | Solution | None = None) -> None:
        self._prefix, self._known = prefix, known
        self._left: tuple[CollapseReport, str, int] | None = None  # measured, and not shown
        self._last: tuple[CollapseReport, int] | None = None
        self._refused: set[str] = set()

    def measured(
        self, loggers: Iterable[Any], report: CollapseReport, number: int, title: str, step: int
    ) -> None:
        """Send the wheel of a measurement, if its number is one that is shown.

        Parameters
        ----------
        loggers : iterable
            See `tightframe.capture.loggers.sinks`.
        report : CollapseReport
            Of the head.
        number : int
            Of the measurement, from 1.
        title : str
        step : int
            Of the training.
        """
        self._last = report, step
        self._left = report, title, step
        if is_shown(number):
            self._send_wheel(self._places(loggers))

    def ended(self, loggers: Iterable[Any], sample: Sample) -> None:
        """Send the last wheel, if it was not, and the embedding of the last measurement."""
        if self._last is None:
            return
        places = self._places(loggers)
        self._send_wheel(places)
        report, step = self._last
        self._last = None
        if places:
            self._send(
                places,
                "embedding",
                lambda: embedding_of(report, sample),
                lambda sink, name, made: sink.embedding(name, made, step),
            )

    def _places(self, loggers: Iterable[Any]) -> list[Sink]:
        def failed(place: str, logger: Any, error: Exception) -> None:
            if place not in self._refused:
                self._refuse(place, f"pictures not logged by {type(logger).__name__}", error)

        return sinks(loggers, failed)

    def _send_wheel(self, places: Sequence[Sink]) -> None:
        if self._left is None or not places:
            return
        (report, title, step), self._left = self._left, None
        self._send(
            places,
            "wheel",
            lambda: _drawn(report, self._known, title),
            lambda sink, name, made: sink.image(name, made, step),
        )

    def _send(
        self,
        places: Sequence[Sink],
        what: str,
        make: Callable[[], Any],
        give: Callable[[Sink, str, Any], None],
    ) -> None:
        """Make something and give it to all places; what fails is not tried again."""
        try:
            made = None if what in self._refused else make()
        except Exception as error:  # a picture is no reason to end somebody's training
            self._refuse(what, f"{what} not drawn", error)
            return
        if made is None:
            return
        for sink in places:
            place = type(sink).__name__
            if place in self._refused:
                continue
            try:
                give(sink, self._prefix + what, made)
            except Exception as error:
                logger = type(sink.logger).__name__
                self._refuse(place, f"{what} not logged by {logger}", error)

    def _refuse(self, key: str, what: str, error: Exception) -> None:
        self._refused.add(key)
        warnings.warn(f"{what}: {error}", RuntimeWarning, stacklevel=5)


def known_of(problem: Problem | None, targets: Sequence[Target] | None) -> Any:
    """Return what is known of a network: the first solution among its targets, or a problem."""
    return next((target for target in targets or () if isinstance(target, Solution)), problem)


def _drawn(report: CollapseReport, known: Problem | Solution | None, title: str) -> Any:
    wheel = report_wheel(report, known, title)
    if wheel is None:
        return None
    with needed("the wheel", "matplotlib"):
        from tightframe.figures.mpl import pixels, plot
    figure, _ = plot(wheel)
    return pixels(figure)
