"""How nearly a trained last layer is a stationary point of a problem, and for which decays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tightframe.geometry.blocks import Array, Partition
from tightframe.problem.problem import Problem
from tightframe.theory.certificate import SAMPLE_CHUNK

#: Errors of weight, features and bias below these are one: they tell how long was trained, not
#: what. Of features more is always left, the scatter inside the classes.
LEAST_ERRORS = (1e-3, 5e-3, 1e-3)


@dataclass(frozen=True, eq=False)
class Trained:
    """A classifier, and features and labels of samples of all its classes.

    Attributes
    ----------
    weight : ndarray, shape (K, d)
    features : ndarray, shape (S, d)
    labels : ndarray of int, shape (S,)
    bias : ndarray, shape (K,)
    """

    weight: Array
    features: Any
    labels: Any
    bias: Array

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.weight)

    @property
    def class_means(self) -> Array:
        """Mean features of every class, shape (K, d)."""
        means = np.zeros((self.num_classes, self.features.shape[1]))
        for rows, own in self.chunks():
            np.add.at(means, own, rows)
        return means / np.bincount(self.labels, minlength=self.num_classes)[:, None]

    def chunks(self) -> Iterator[tuple[Array, Any]]:
        """Yield features in double precision and labels, some samples at a time."""
        for start in range(0, len(self.labels), SAMPLE_CHUNK):
            part = slice(start, start + SAMPLE_CHUNK)
            yield self.features[part].astype(np.float64, copy=False), self.labels[part]

    def thinned(self, samples: int) -> Trained:
        """Return the same with about so many samples, at equal steps in every class."""
        if len(self.labels) <= samples:
            return self
        order = np.argsort(self.labels, kind="stable")
        counts = np.bincount(self.labels, minlength=self.num_classes)
        kept = np.maximum(1, counts * samples // len(self.labels))
        starts = np.cumsum(counts) - counts
        chosen = [
            order[first + np.arange(k) * n // k]
            for first, n, k in zip(starts.tolist(), counts.tolist(), kept.tolist(), strict=True)
        ]
        rows = np.concatenate(chosen)
        features = self.features[rows].astype(np.float64)
        return Trained(self.weight, features, self.labels[rows], self.bias)


class Fit(NamedTuple):
    """Decays for which a last layer is as nearly stationary as it can be, and what is left.

    Attributes
    ----------
    weight_decay, feature_decay : float
    weight_error, feature_error : float
        What is left of the gradient, over the decay's part of it.
    bias_error : float or None
        Of the bias's gradient what no decay of its own takes up, over the mean absolute pulls on
        it; None without bias.
    """

    weight_decay: float
    feature_decay: float
    weight_error: float
    feature_error: float
    bias_error: float | None

    def error(self, told: Fit) -> float:
        """Return the geometric mean of what is left, over the decay's part of another fit.

        That scale is one for all losses that are compared: their own decays may be anything.
        """
        lefts = [
            self.weight_error * self.weight_decay / told.weight_decay,
            self.feature_error * self.feature_decay / told.feature_decay,
            *([] if self.bias_error is None else [self.bias_error]),
        ]
        logs = [math.log(math.hypot(*pair)) for pair in zip(lefts, LEAST_ERRORS, strict=False)]
        return math.exp(sum(logs) / len(logs))


def fit_decays(problem: Problem, trained: Trained) -> Fit | None:
    """Return the decays that fit, None where the loss does not pull outwards.

    Parameters
    ----------
    problem : Problem
        All but its decays.
    trained : Trained
        Samples of a class stand for all of it, however many there are.
    """
    w, k = trained.weight, trained.num_classes
    # The loss goes by the samples, whatever the features' decay goes by.
    counted = problem.replace(feature_weights="samples") if problem.feature_runs else problem
    fit = problem.loss_object.datafit(Partition.coarsest(counted))
    each = problem.feature_weights / problem.counts  # factor of the decay of a sample's features
    present = np.bincount(trained.labels, minlength=k)
    share = problem.counts / present  # how many samples one stands for
    pull, squares, force_squares = 0.0, 0.0, 0.0
    by_weight, by_bias, pulls = np.zeros_like(w), np.zeros(k), np.zeros(k)
    for rows, own in trained.chunks():
        residual = fit.sample_residuals(rows @ w.T + trained.bias, own) / problem.num_samples
        force = residual @ w  # gradient of the mean loss by the features
        factors, times = each[own, None], share[own, None]
        pull -= float(np.vdot(force, times * rows))
        squares += float(np.vdot(rows, factors * times * rows))
        residual *= times
        by_weight += residual.T @ rows
        by_bias += residual.sum(axis=0)
        pulls += np.abs(residual).sum(axis=0)
        if problem.features == "nonnegative":  # at the boundary only what points inside counts
            force = np.where(rows > 0, force, np.minimum(force, 0.0))
        force_squares += float(np.vdot(force, times / factors * force))
    weight_squares = float(np.vdot(w, w))
    if not (np.isfinite(pull) and pull > 0 and squares > 0 and weight_squares > 0):
        return None
    weight_decay, feature_decay = pull / weight_squares, pull / squares
    # Pythagoras: the decay's part is the projection of the gradient on what decays.
    left = max(force_squares - feature_decay**2 * squares, 0.0)
    weight_left = float(np.linalg.norm(by_weight + weight_decay * w))
    return Fit(
        weight_decay,
        feature_decay,
        weight_left / (weight_decay * weight_squares**0.5),
        left**0.5 / (feature_decay * squares**0.5),
        None if problem.bias == "none" else _bias_error(trained.bias, by_bias, pulls),
    )


def _bias_error(bias: Array, gradient: Array, pulls: Array) -> float:
    # Whether and how it decays is often not known, and not asked.
    inwards = min(float(bias @ gradient), 0.0)
    left = gradient - (bias * (inwards / float(bias @ bias)) if inwards else 0.0)
    return float(np.linalg.norm(left) / (np.linalg.norm(pulls) or 1.0))
