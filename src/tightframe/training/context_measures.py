"""What is measured of classifier and context features, without a network."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tightframe.context_solution import ContextSolution
from tightframe.problem.label_law import LabelLaw
from tightframe.problem.problem import Problem

Array = NDArray[np.float64]


def predicted_row(solution: ContextSolution) -> dict[str, float]:
    """Return what `ContextCallback` measures of the minimiser, where that is not zero."""
    problem = solution.problem
    weight, features = solution.weights[0], solution.class_means
    scores = features.T @ weight.T + solution.bias
    bound = solution.objective if solution.lower_bound is None else solution.lower_bound
    decays = problem.weight_decays[0] * float((weight**2).sum())
    decays += problem.feature_decay * float(problem.feature_weights @ (features**2).sum(axis=0))
    decays += problem.bias_decay * float(solution.bias @ solution.bias)
    loss = solution.objective - decays / 2
    return {
        "loss": loss,
        "objective": bound,
        "divergence": loss - least_loss(problem),
        "train_accuracy": accuracy(problem, scores),
        "classifier_to_etf": distance_to_etf(weight),
        "directions": float(solution.rank),
    }


def least_loss(problem: Problem) -> float:
    """Return the loss of the data's own laws, in nats: no logits have less."""
    law = LabelLaw.read(problem.targets)
    shares = problem.class_weights * problem.counts / problem.num_samples
    return float(shares @ law.entropies)


def accuracy(problem: Problem, scores: Array) -> float:
    """Return the share of the samples whose label is the likeliest, by scores (m, V)."""
    assert problem.targets is not None
    rows = np.arange(problem.num_contexts)
    right = np.asarray(problem.targets.by_context[rows, scores.argmax(axis=1)]).ravel()
    return float(right @ problem.counts / problem.num_samples)


def singular_values(problem: Problem, weight: Array, features: Array) -> Array:
    """Return those of the logits ``weight @ features`` times the roots of the feature weights.

    They are what the minimiser's rank counts. The logits, (V, m), are not made.
    """
    left = np.linalg.qr(weight)[1]
    right = np.linalg.qr((features * np.sqrt(problem.feature_weights)).T)[1]
    values: Array = np.linalg.svd(left @ right.T, compute_uv=False)
    return values


def distance_to_etf(weight: Array) -> float:
    """Return `gram_distance` to the simplex ETF, whose vectors are not made: V x V numbers."""
    size = np.linalg.norm(weight.T @ weight)
    if size == 0:
        return math.nan
    centered = weight - weight.mean(axis=0)
    cosine = np.linalg.norm(centered) ** 2 / (size * math.sqrt(len(weight) - 1))
    return math.sqrt(max(2 - 2 * float(cosine), 0.0))
