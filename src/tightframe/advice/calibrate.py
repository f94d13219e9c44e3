"""Calibrate: the decays for which a trained network would be a stationary point of the UFM.

A network's features mostly decay through the weights before them, so that no ``feature_decay`` is
written anywhere. Where training has ended, the loss pulls classifier and features as hard as their
decays push back: one number a decay follows from what was measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from tightframe.advice.alternatives import Alternative, alternatives, sentences
from tightframe.advice.stationarity import Fit, Trained, fit_decays
from tightframe.checks import MAX_DENSE_CLASSES, detached
from tightframe.geometry.dense import Geometry
from tightframe.problem.problem import Problem
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame
from tightframe.solution import Solution
from tightframe.solve import solve

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Calibration(Shown, Saved):
    """Decays fitted to a trained network, and how well they fit.

    Attributes
    ----------
    problem : Problem
        The one given, with the fitted decays.
    weight_decay, feature_decay : float
        Effective: those for which the network is as nearly stationary as it can be.
    weight_error, feature_error : float
        What is left of the gradient by the classifier and by the features, over the decay's part of
        it: 0 at a stationary point. A small ``weight_error`` says nothing about the features;
        whether the minimiser describes the network is asked of its margins (`tightframe.advise`).
    solution : Solution
        The fitted problem's minimiser.
    logits_distance : float
        Normalised distance (0 to 2) of the network's mean logits from the minimiser's.
    bias_error : float or None
        What is left of the bias's gradient, over the mean absolute pulls on it; None without bias.
    alternatives : tuple of Alternative
        Other losses (label smoothing, margins, scales, weights that the problem does not have) that
        explain the network better; where there are none those that do as well with other decays.
        None where it is too large to look for them.
    """

    problem: Problem
    weight_decay: float
    feature_decay: float
    weight_error: float
    feature_error: float
    solution: Solution
    logits_distance: float
    bias_error: float | None = None
    alternatives: tuple[Alternative, ...] | None = ()

    @property
    def warnings(self) -> list[str]:
        """What must not be overlooked: other losses that explain the network, a sentence or none.

        Errors near 0 do not say that the loss is the training's: of balanced classes smoothed
        labels are exactly extra decay.
        """
        return sentences(self.alternatives, self._fit)

    @property
    def _fit(self) -> Fit:
        return Fit(*(getattr(self, name) for name in Fit._fields))

    def __repr__(self) -> str:
        return (
            f"Calibration(weight_decay={self.weight_decay:.6g}, feature_decay="
            f"{self.feature_decay:.6g}, weight_error={self.weight_error:.3g}, feature_error="
            f"{self.feature_error:.3g}, {len(self.alternatives or ())} other losses)"
        )

    def _blocks(self) -> Iterator[Block]:
        from tightframe.figures.table import Column, Table

        columns: list[str | Column] = [Column("loss", wrapped=True)]
        heads = ("weight decay", "feature decay", "error")
        columns += [Column(head, align="right", format=".5g") for head in heads]
        keys = ("loss", "weight_decay", "feature_decay", "error")
        rows = [[row[key] for key in keys] for row in self._rows()]
        yield Table("Effective decays", columns, rows, "error: what is left of the gradients.")
        yield f"Normalised distance of the logits from the minimiser's: {self.logits_distance:.4g}."
        yield from self.warnings

    def _rows(self) -> list[dict[str, Any]]:
        fit = self._fit
        rows = [("as told", self.weight_decay, self.feature_decay, fit.error(fit))]
        rows += [
            (one.text.rstrip(","), one.weight_decay, one.feature_decay, one.error)
            for one in self.alternatives or ()
        ]
        keys = ("loss", "weight_decay", "feature_decay", "error")
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a loss, that which was told first: its decays, and the error left.

        See `tightframe.shown.frame`.
        """
        return frame(self._rows())

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw where the fitted problem's minimiser sends the classes, as `Solution.plot`."""
        return self.solution.plot(ax)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "weight_decay": self.weight_decay,
            "feature_decay": self.feature_decay,
            "logit_decay": self.problem.logit_decay,
            "weight_error": self.weight_error,
            "feature_error": self.feature_error,
            "bias_error": self.bias_error,
            "logits_distance": self.logits_distance,
            "alternatives": [one.to_dict() for one in self.alternatives or ()],
            "warnings": self.warnings,
            "predicted": {"objective": self.solution.objective, "gap": self.solution.gap},
            "problem": self.problem.to_dict(),
        }


def calibrate(
    problem: Problem,
    weight: ArrayLike,
    features: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None = None,
) -> Calibration:
    """Fit effective decays to a trained network's last layer.

    At a stationary point ``grad_W + weight_decay W = 0`` and ``grad_h_i + feature_decay h_i = 0``,
    gradients of the mean loss. Multiplied by W and by the features both give
    ``c = (1/N) sum_i <W h_i, y_i - p_i>``, the least-squares fits ``c / ||W||^2`` and
    ``c / sum_i ||h_i||^2`` (with feature weights ``f_i ||h_i||^2``, the features' residual then
    weighed by ``1 / f_i``). Label smoothing, margins and scales change the gradients only: a
    problem that does not name those of the training fits other decays. Those that people use are
    tried, see `Calibration.alternatives`. With non-negative features
    the second gradient vanishes only where ``h_i > 0`` and is at least zero elsewhere, which gives
    the same number; features that end in a ReLU are such.

    Parameters
    ----------
    problem : Problem
        Loss with all its terms (label smoothing, ...), bias and feature weights are taken from it,
        and N; its decays are not used. One linear layer.
    weight : array_like, shape (K, d)
        Classifier.
    features : array_like, shape (N, d)
        Of the training samples, one row each.
    labels : array_like, shape (N,), int
    bias : array_like, shape (K,), optional

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        If shapes, values or counts are off, features of a problem with non-negative ones are below
        zero, the problem has several layers, or the loss does not pull at all: the network is not
        trained, or zero.

    Warns
    -----
    RuntimeWarning
        If another loss explains the network better, or as well with other decays.

    Examples
    --------
    >>> problem = Problem("20x2,5x2", weight_decay=1e-2, feature_decay=1e-3)
    >>> trained = solve(problem)
    >>> labels = np.repeat(range(4), problem.counts)
    >>> fit = calibrate(problem, trained.weights[0], trained.class_means.T[labels], labels)
    >>> round(fit.weight_decay, 6), round(fit.feature_decay, 6)
    (0.01, 0.001)
    """
    found = fitted(problem, weight, features, labels, bias)
    for sentence in found.warnings:
        warnings.warn(f"calibrate: {sentence}", RuntimeWarning, stacklevel=3)
    return found


def fitted(
    problem: Problem,
    weight: ArrayLike,
    features: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    known: bool = False,
    whole: bool = True,
) -> Calibration:
    """Return `calibrate`, which warns too.

    Parameters
    ----------
    problem, weight, features, labels, bias
        As there.
    known : bool
        Whether the problem is a record of the training: then no other loss is looked for.
    whole : bool
        Whether the samples are all of the training; otherwise some of every class, which stand for
        the others.
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    if problem.depth != 1:
        raise ValueError(f"problem: calibration needs one linear layer, got depth {problem.depth}")
    k = problem.num_classes
    if k > MAX_DENSE_CLASSES:
        raise ValueError(f"problem: got {k} classes, need at most {MAX_DENSE_CLASSES}")
    trained = _checked(problem, weight, features, labels, bias, whole)
    fit = fit_decays(problem, trained)
    if fit is None:
        raise ValueError(
            "features: the loss does not pull classifier and features outwards, as it does in a "
            "trained network: no decays fit"
        )
    decays = {"weight_decay": fit.weight_decay, "feature_decay": fit.feature_decay}
    changed = problem.replace(**decays, dim=None)
    solution = solve(changed)
    measured = Geometry.from_vectors(trained.weight, trained.class_means.T)
    return Calibration(
        changed,
        **decays,
        weight_error=fit.weight_error,
        feature_error=fit.feature_error,
        solution=solution,
        logits_distance=solution.geometry.distance(measured, "logits"),
        bias_error=fit.bias_error,
        alternatives=() if known else alternatives(problem, trained, fit),
    )


def _checked(
    problem: Problem,
    weight: ArrayLike,
    features: ArrayLike,
    labels: ArrayLike,
    bias: Any,
    whole: bool,
) -> Trained:
    k = problem.num_classes
    w, h, y = (np.asarray(detached(value)) for value in (weight, features, labels))
    b = np.zeros(k) if bias is None else np.asarray(detached(bias))
    for name, array, dims in (("weight", w, 2), ("features", h, 2), ("bias", b, 1)):
        if array.dtype.kind not in "iuf" or array.ndim != dims:
            raise ValueError(
                f"{name}: got {array.dtype} of shape {array.shape}, need numbers, {dims}-D"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: entries must be finite")
    if problem.features == "nonnegative" and h.size and h.min() < 0:
        raise ValueError(f"features: got {h.min():g}, need none below 0, as the problem says")
    if w.shape[0] != k or b.shape != (k,) or h.shape[1] != w.shape[1]:
        raise ValueError(
            f"weight, features, bias: got shapes {w.shape}, {h.shape} and {b.shape} for {k} classes"
        )
    if y.shape != (len(h),) or y.dtype.kind not in "iu":
        raise ValueError(f"labels: got {y.dtype} of shape {y.shape}, need a whole number a sample")
    if len(y) and (y.min() < 0 or y.max() >= k):
        raise ValueError(f"labels: from {y.min()} to {y.max()}, need 0 to {k - 1}")
    if problem.bias == "none" and b.any():
        raise ValueError(
            "bias: got a non-zero bias for a problem with bias='none', need 'free' or 'decayed'"
        )
    counts = np.bincount(y, minlength=k)
    if not whole and not counts.all():
        raise ValueError(f"labels: no sample of class {int(np.argmin(counts))}")
    if whole and not np.array_equal(counts, problem.counts):
        raise ValueError(f"labels: their counts are not the problem's, {problem.compact_counts}")
    return Trained(w.astype(np.float64), h, y, b.astype(np.float64))
