"""Where a measured network sends its classes, as a wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import MAX_DENSE_CLASSES
from tightframe.figures.diagrams import Wheel
from tightframe.geometry.states import measured_states
from tightframe.problem.problem import Problem
from tightframe.solution import Solution
from tightframe.views.wheel import (
    Homes,
    Sent,
    View,
    class_homes,
    sent_by_logits,
    sent_by_solution,
    wheel,
)

if TYPE_CHECKING:  # runs are read without PyTorch
    from tightframe.metrics.report import CollapseReport

Array = NDArray[np.float64]


def network_view(
    problem: Problem,
    logits: ArrayLike,
    bias: ArrayLike | None,
    homes: Homes,
    rings: Array | None = None,
    label: str = "",
    value: float | None = None,
) -> View:
    """Return what a wheel shows of a network.

    Parameters
    ----------
    problem : Problem
    logits : array_like, shape (K, K)
        Mean logits without bias, column k of class k.
    bias : array_like, shape (K,), or None
    homes : Homes
    rings : ndarray, shape (K, 2), optional
        Where the prediction sends the classes.
    label : str
    value : float, optional
        Decay or epoch.

    Raises
    ------
    ValueError
        As `measured_states`.
    """
    return View(label, sent_by_network(problem, logits, bias, homes), rings, value)


def sent_by_network(
    problem: Problem, logits: ArrayLike, bias: ArrayLike | None, homes: Homes
) -> Sent:
    """Return where mean logits and a bias send the classes, see `network_view`."""
    states = measured_states(problem, logits, bias)
    z = np.asarray(logits, dtype=np.float64)
    b = np.zeros(len(z)) if bias is None else np.asarray(bias, dtype=np.float64)
    return sent_by_logits(problem, z, b, states, homes)


def assumed_problem(
    counts: NDArray[np.int64], with_bias: bool, class_names: tuple[str, ...] | None
) -> Problem:
    """Return what a network may have been trained as where nobody says: with cross-entropy.

    Its decays stand for nothing. Classes of the same count are siblings; a bias is free.
    """
    return Problem(
        counts,
        weight_decay=1.0,
        feature_decay=1.0,
        bias="free" if with_bias else "none",
        class_names=class_names,
    )


def report_wheel(
    report: CollapseReport,
    known: Problem | Solution | None = None,
    title: str = "",
    label: str = "",
) -> Wheel | None:
    """Return where the network of a report sends its classes.

    Parameters
    ----------
    report : CollapseReport
    known : Problem or Solution, optional
        What it was trained as: names of classes, loss, bias, and, of a Solution, the prediction as
        rings. By default as `assumed_problem`. One of other classes is not used.
    title, label : str

    Returns
    -------
    Wheel or None
        None where classes are missing or more than 4096.
    """
    if report.missing or len(report.counts) > MAX_DENSE_CLASSES:
        return None
    problem = known.problem if isinstance(known, Solution) else known
    rings = None
    if problem is None or problem.targets is not None or problem.num_classes != len(report.counts):
        known = problem = None
    if problem is None:
        problem = assumed_problem(report.counts, report.head.has_bias, report.class_names)
    homes = class_homes(problem)
    if isinstance(known, Solution):
        rings = sent_by_solution(known, homes).places
    own = report.geometry.logits
    view = network_view(problem, own, (report.logits - own)[:, 0], homes, rings, label)
    return wheel(problem, [view], homes, title=title)
