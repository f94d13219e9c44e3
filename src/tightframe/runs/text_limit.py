"""How far a prediction on text is from the limit of vanishing decays."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from tightframe.context_solution import ContextSolution
from tightframe.geometry.dense import normalized_distance
from tightframe.label_limits import label_limits

#: Labels times contexts for which the limit is solved, at most: a second or so.
MOST_ENTRIES = 50_000


def limit_facts(solution: ContextSolution) -> dict[str, Any] | None:
    """Return what `tightframe.label_limits` says of a problem, and distances of its solution to it.

    None where there are too many labels and contexts for it to be quick.
    """
    problem = solution.problem
    targets = problem.targets
    assert targets is not None
    if targets.num_labels * targets.num_contexts > MOST_ENTRIES:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the status says what did not converge
        limit = label_limits(
            targets,
            problem.compact_counts,
            feature_weights=problem.feature_weights,
            bias="none" if problem.bias == "none" else "free",
            tol=1e-6,
            max_iterations=1000,
        )
        scores = solution.logits + solution.bias[:, None]
        ratios = limit.log_ratios
        inside = np.isfinite(ratios)
        sizes = inside.sum(axis=0)
        own = np.where(inside, scores, 0.0)
        centered = own - own.sum(axis=0) / sizes
        errors = np.abs(centered - np.where(inside, ratios, 0.0))[inside]
        apart = [math.nan, math.nan]
        if not limit.stays_finite:
            pair = limit.direction, limit.support_matrix
            apart = [normalized_distance(solution.logits, matrix) for matrix in pair]
    return limit.to_dict() | {
        "log_ratio_error": float(errors.mean()),
        "distance_to_direction": apart[0],
        "distance_to_supports": apart[1],
    }
