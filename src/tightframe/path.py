"""Paths: certified solutions along a sweep of decays or counts, each started from the last ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tightframe.problem import CountsLike, Problem, format_counts, parse_counts
from tightframe.solution import Solution
from tightframe.solve import solve


@dataclass(frozen=True, eq=False)
class Path:
    """Solutions along a sweep.

    Attributes
    ----------
    sweep : dict
        The arguments that were swept, by name, one value a point.
    solutions : tuple of Solution
        One a point, in the order given.
    """

    sweep: dict[str, tuple[Any, ...]]
    solutions: tuple[Solution, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "sweep": {name: list(values) for name, values in self.sweep.items()},
            "points": [solution.to_dict() for solution in self.solutions],
        }


def path(
    problem: Problem,
    *,
    weight_decay: Iterable[Any] | None = None,
    feature_decay: Iterable[float] | None = None,
    bias_decay: Iterable[float] | None = None,
    counts: Iterable[CountsLike] | None = None,
    tol: float = 1e-8,
    max_iterations: int = 5000,
) -> Path:
    """Solve a problem along a sweep of one or more of its arguments.

    Parameters
    ----------
    problem : Problem
        What is not swept is taken from here.
    weight_decay, feature_decay, bias_decay : iterable of float, optional
        Swept together where more than one is given: they have equal lengths then.
    counts : iterable of counts, optional
        One entry a point, each as `Problem` takes it.
    tol, max_iterations
        As in `solve`, for every point.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If nothing is swept, lengths differ, or a point is not a valid problem.
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    given = {
        "weight_decay": weight_decay,
        "feature_decay": feature_decay,
        "bias_decay": bias_decay,
        "counts": None if counts is None else [format_counts(parse_counts(c)) for c in counts],
    }
    sweep = {name: tuple(values) for name, values in given.items() if values is not None}
    lengths = {len(values) for values in sweep.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "weight_decay, feature_decay, bias_decay, counts: give at least one, with at least one "
            "value, all of one length"
        )
    points = [
        problem.replace(**dict(zip(sweep, values, strict=True)))
        for values in zip(*sweep.values(), strict=True)
    ]
    return Path(sweep, tuple(solve(point, tol, max_iterations=max_iterations) for point in points))
