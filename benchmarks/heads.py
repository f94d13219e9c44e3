"""Time `fit_head` against scikit-learn's LogisticRegression, to the same certified result.

    python -m benchmarks.heads [--quick] [--out benchmarks/results]

Both minimise the mean cross-entropy plus ``weight_decay / 2`` times the squares of weight and bias
on the same float32 features: ReLU features around class means of a long tail. scikit-learn (lbfgs,
a column of ones for the bias, features in float64 and in float32) starts at its default tolerance
and is tightened until its head is within the wanted relative gap of our lower bound; only that
solve counts. Ratios are theirs over ours, processor seconds of one process on one thread.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.solver import environment
from tightframe.files import write_json
from tightframe.heads.fitted import fit_head
from tightframe.heads.ridge import RidgeProblem

GAP = 1e-4
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7)


@dataclass(frozen=True)
class Case:
    """One problem."""

    samples: int
    dim: int
    classes: int
    weight_decay: float


CASES = (Case(60_000, 512, 100, 5e-4),)
QUICK = (Case(6_000, 128, 20, 5e-4),)


@dataclass(frozen=True)
class Settings:
    """What a row was asked for."""

    gap: float = GAP
    tolerances: tuple[float, ...] = TOLERANCES


def samples(case: Case, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return ReLU features around class means, of a long tail with R = 100."""
    rng = np.random.default_rng(seed)
    shares = 100.0 ** (-np.arange(case.classes) / (case.classes - 1))
    labels = rng.choice(case.classes, case.samples, p=shares / shares.sum())
    means = 0.3 * rng.normal(size=(case.classes, case.dim))
    scales = np.exp(-4 * np.arange(case.dim) / case.dim) / 4
    noise = rng.normal(size=(case.samples, case.dim)) * scales
    noise = noise @ rng.normal(size=(case.dim, case.dim))
    return np.maximum(means[labels] + noise, 0).astype(np.float32), labels


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return processor seconds and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def measure(case: Case) -> dict[str, Any]:
    """Return a row of the table."""
    x, y = samples(case)
    seconds, ours = timed(
        lambda: fit_head(x, y, weight_decay=case.weight_decay, num_classes=case.classes, tol=GAP)
    )
    row: dict[str, Any] = asdict(case) | {
        "seconds": seconds,
        "gap": ours.gap / ours.objective,
    }
    print(row, flush=True)
    ones = np.ones(case.classes)
    problem = RidgeProblem(x.astype(np.float64), y, ones, 0 * ones, case.weight_decay, True)
    for kind in ("float64", "float32"):
        columns = np.column_stack([x, np.ones(len(x))]).astype(kind)
        for tolerance in TOLERANCES:
            model = LogisticRegression(
                C=1 / (case.weight_decay * len(y)),
                fit_intercept=False,
                tol=tolerance,
                max_iter=5000,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs, _ = timed(lambda model=model, columns=columns: model.fit(columns, y))
            objective, _ = problem.value_and_gradient(model.coef_.astype(np.float64))
            gap = (objective - ours.lower_bound) / objective
            if gap <= GAP:
                break
        row |= {
            f"peer_seconds_{kind}": theirs,
            f"peer_gap_{kind}": gap,
            f"peer_tolerance_{kind}": tolerance,
            f"ratio_{kind}": theirs / seconds,
        }
        print(row, flush=True)
    return row


def main() -> None:
    """Measure and write ``heads.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    rows = []
    for case in QUICK if options.quick else CASES:
        rows.append(measure(case))
        content = {"environment": environment(Settings(), options.quick), "rows": rows}
        write_json(options.out / "heads.json", content)


if __name__ == "__main__":
    main()
