"""The regularisation path under several imbalances, which two figures read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tightframe.reproduce.judging import mean_by, sorted_by
from tightframe.reproduce.papers.thrampoulidis import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Task

_PATH_COUNTS = {"R = 1": shared.step(1), "R = 10": shared.step(10), "R = 100": shared.step(100)}
LONG_TAIL = "100,60,36,22,13,8,5,3,2,1"
PATH_RIDGES = (0.5, *(10.0**-power for power in range(1, 21)))


#: Label of a path, by the head's bias.
_PATHS = {"none": "path", "free": "path, free bias"}


def _path(name: str, counts: str, bias: str = "none") -> Task:
    given = shared.problem(counts, 1.0) | {"bias": bias}
    decays = [shared.problem(counts, ridge)["feature_decay"] for ridge in PATH_RIDGES]
    sweep = {"weight_decay": decays, "feature_decay": decays}
    options = {"problem": given, "sweep": sweep, "arrays": True}
    return Task("path", options, {"what": _PATHS[bias], "imbalance": name})


def _path_counts(scale: str) -> dict[str, str]:
    """Return counts by the name of the imbalance."""
    return _PATH_COUNTS if scale == "smoke" else {**_PATH_COUNTS, "long tail": LONG_TAIL}


def path_tasks(scale: str) -> list[Task]:
    """Return the paths, and the UFM to compare with."""
    paths = [_path(name, counts) for name, counts in _path_counts(scale).items()]
    return [*paths, *shared.ufm_tasks(scale)]


def free_bias_tasks() -> list[Task]:
    """Return the paths of a head with a free bias."""
    return [_path(name, counts, "free") for name, counts in _PATH_COUNTS.items()]


def paths_of(results: Results, bias: str = "none") -> dict[str, list[Run]]:
    """Return the runs of every path by its imbalance, the largest ridge first."""
    found: dict[str, list[Run]] = {}
    for run in sorted(
        results.select(what=_PATHS[bias]).runs, key=lambda run: -shared.ridge_of(run)
    ):
        found.setdefault(run.labels["imbalance"], []).append(run)
    return found


def ended(runs: Iterable[Run]) -> list[Run]:
    """Return the runs that did not fail."""
    return [run for run in runs if not run.failed]


def falls(values: Sequence[Any]) -> bool:
    """Return whether values, or arrays entry by entry, fall at every step."""
    return bool((np.diff(np.array(values, dtype=np.float64), axis=0) < 0).all())


def falls_with_ridge(runs: Iterable[Run], measure: Callable[[Run], Any]) -> bool:
    """Return whether means over seeds fall with the ridge, at every R > 1."""
    return all(
        falls(
            [
                mean
                for _, mean in sorted(mean_by(own, shared.ridge_of, measure).items(), reverse=True)
            ]
        )
        for own in sorted_by(shared.imbalanced(runs), shared.ratio_of).values()
    )
