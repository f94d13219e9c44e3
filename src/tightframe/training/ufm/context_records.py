"""What is recorded of trained unconstrained features models of contexts: one row a run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tightframe.context_solution import ContextSolution
from tightframe.geometry.dense import gram_distance, normalized_distance
from tightframe.problem.problem import Problem
from tightframe.training.context_measures import distance_to_etf, singular_values
from tightframe.training.ufm.descent import Descent, Evaluation
from tightframe.training.ufm.records import (
    RANK_SHARE,
    Array,
    Row,
    State,
    evaluated,
    floor,
    plain_rows,
)

#: Columns of a row that depend on the run's state, in order.
COLUMNS = (
    "loss",
    "objective",
    "excess",
    "gradient_norm",
    "train_accuracy",
    "nc1_quotient",
    "logits_to_predicted",
    "classifier_to_predicted",
    "classifier_to_etf",
    "means_to_predicted",
    "spectrum_to_predicted",
    "rank",
    "bias_norm",
)


class ContextRecorder:
    """Measures a batch of runs, as `tightframe.training.ufm.records.Recorder` does of classes.

    Parameters
    ----------
    problems : sequence of Problem
        One a run, with targets; alike but for their decays.
    references : sequence of ContextSolution
        What each run is compared with.
    """

    def __init__(self, problems: Sequence[Problem], references: Sequence[ContextSolution]) -> None:
        self.columns = list(COLUMNS)
        self._problem = problems[0]
        self._predicted = [(s.weights[0], s.class_means, s.logits) for s in references]
        self._floors = np.array([floor(s) for s in references])

    def rows(self, descent: Descent, now: Evaluation, runs: NDArray[np.intp]) -> list[Row]:
        """Return one row a run of the descent; ``runs`` are their places in the batch."""
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of zero matrices: NaN
            state = State.of(descent)
            columns = evaluated(descent, now, state, self._floors[runs])
            found = [
                self._distances(state.classifier[r], state.class_means[r], self._predicted[run])
                for r, run in enumerate(runs.tolist())
            ]
        columns |= {name: np.array([row[name] for row in found]) for name in found[0]}
        return plain_rows(columns, self.columns, len(runs))

    def _distances(
        self, weight: Array, features: Array, predicted: tuple[Array, Array, Array]
    ) -> dict[str, float]:
        names = [name for name in COLUMNS if "_to_" in name]
        if not (np.isfinite(weight).all() and np.isfinite(features).all()):  # about to diverge
            return dict.fromkeys(names, math.nan) | {"rank": 0}
        best_weight, best_features, best_logits = predicted
        values = singular_values(self._problem, weight, features)
        best = singular_values(self._problem, best_weight, best_features)
        padded = np.zeros((2, max(len(values), len(best))))
        padded[0, : len(values)], padded[1, : len(best)] = values, best
        return {
            "logits_to_predicted": normalized_distance(weight @ features, best_logits),
            "classifier_to_predicted": gram_distance(weight.T, best_weight.T),
            "classifier_to_etf": distance_to_etf(weight),
            "means_to_predicted": gram_distance(features, best_features),
            "spectrum_to_predicted": normalized_distance(padded[0], padded[1]),
            "rank": int((values > RANK_SHARE * values[0]).sum()) if values[0] > 0 else 0,
        }
