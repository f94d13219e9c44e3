"""What is recorded of a batch of trained unconstrained features models: one row a run.

Over a leading axis of runs: one by one, the records would take longer than the training of a small
problem. NC1 is computed by `tightframe.metrics.variability`; distances and angles are defined as
there and in `tightframe.geometry`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tightframe.geometry.dense import (
    PARTS,
    Geometry,
    orthogonal_frame,
    seli_of_head,
    simplex_etf,
)
from tightframe.metrics.moments import EPS, blur
from tightframe.metrics.variability import between_directions, nc1_along, trace_quotient
from tightframe.problem.problem import Problem
from tightframe.solution import Solution
from tightframe.training.margins import group_margins
from tightframe.training.ufm.descent import Descent, Evaluation

Array = NDArray[np.float64]
Row = dict[str, Any]

#: What every part of the geometry is compared with.
TARGETS = ("predicted", "etf", "seli", "orthogonal_frame")

#: Vectors whose lengths and angles are recorded by group.
VECTORS = ("classifier", "means", "logits")

#: Singular values of the logits below this share of the largest do not count to their rank.
RANK_SHARE = 1e-3


def row_columns(num_groups: int) -> list[str]:
    """Return the columns of a row that depend on the run's state, in order."""
    pairs = [(i, j) for i in range(num_groups) for j in range(i, num_groups)]
    return [
        "loss",
        "objective",
        "excess",
        "gradient_norm",
        "train_accuracy",
        "nc1",
        "nc1_quotient",
        *(f"{part}_to_{target}" for part in PARTS for target in TARGETS),
        "spectrum_to_predicted",
        "rank",
        *(f"group{i}_margin" for i in range(num_groups)),
        *(f"group{i}_{what}_norm" for what in VECTORS for i in range(num_groups)),
        *(f"group{i}_group{j}_{what}_cosine" for what in VECTORS for i, j in pairs),
        "bias_norm",
    ]


class Recorder:
    """Measures a batch of runs.

    Parameters
    ----------
    problems : sequence of Problem
        One a run; alike but for their decays.
    references : sequence of Solution or None
        What each run is compared with.
    """

    def __init__(self, problems: Sequence[Problem], references: Sequence[Solution | None]) -> None:
        self.problem = problems[0]
        k = self.problem.num_classes
        frames = {
            "etf": simplex_etf(k),
            "seli": seli_of_head(self.problem.compact_counts, self.problem.bias != "none"),
            "orthogonal_frame": orthogonal_frame(k),
        }
        nothing = np.full((k, k), np.nan)
        unknown = Geometry("unknown", nothing, nothing, nothing)
        predicted = [unknown if s is None else s.geometry for s in references]
        self._targets = {
            (part, name): _normalized(getattr(frame, part)[None])
            for part in PARTS
            for name, frame in frames.items()
        }
        for part in PARTS:
            parts = np.stack([getattr(geometry, part) for geometry in predicted])
            self._targets[part, "predicted"] = _normalized(parts)
        self._spectra = _normalized(
            _spectrum(self.problem, np.stack([g.logits for g in predicted]))
        )
        self._floors = np.array([math.nan if s is None else floor(s) for s in references])
        members = self.problem.class_groups[:, None] == np.arange(len(self.problem.groups))
        self._members = members.astype(np.float64)  # (K, G)
        self.columns = row_columns(len(self.problem.groups))

    def rows(self, descent: Descent, now: Evaluation, runs: NDArray[np.intp]) -> list[Row]:
        """Return one row a run of the descent; ``runs`` are their places in the batch."""
        with np.errstate(all="ignore"):  # runs that are about to diverge overflow
            return self._rows(descent, now, runs)

    def _rows(self, descent: Descent, now: Evaluation, runs: NDArray[np.intp]) -> list[Row]:
        state = State.of(descent)
        columns = evaluated(descent, now, state, self._floors[runs])
        grams = {
            "classifier": state.classifier @ state.classifier.swapaxes(1, 2),
            "means": state.class_means.swapaxes(1, 2) @ state.class_means,
            "centered_means": _gram(_centered(state.class_means)),
            "logits": state.logits,
        }
        for part, matrices in grams.items():
            own = _normalized(matrices)
            for target in TARGETS:
                goal = self._targets[part, target]
                goal = goal[runs] if target == "predicted" else goal
                columns[f"{part}_to_{target}"] = _norms(own - goal)
        spectrum = _spectrum(self.problem, state.logits)
        columns["spectrum_to_predicted"] = np.linalg.norm(
            (_normalized(spectrum) - self._spectra[runs])[:, 0], axis=1
        )
        columns["rank"] = (spectrum[:, 0] > RANK_SHARE * spectrum[:, 0, :1]).sum(axis=1)
        self._by_group(columns, grams, state)
        return plain_rows(columns, self.columns, len(runs))

    def _by_group(self, columns: dict[str, Array], grams: dict[str, Array], state: State) -> None:
        scores = state.logits + state.bias[:, :, None]
        margins = np.stack([group_margins(self.problem, z) for z in scores])
        sizes = self._members.sum(axis=0)
        for i in range(len(sizes)):
            columns[f"group{i}_margin"] = margins[:, i]
        for what in VECTORS:
            gram = _gram(state.logits) if what == "logits" else grams[what]
            lengths = np.sqrt(np.clip(np.diagonal(gram, axis1=1, axis2=2), 0.0, None))
            mean_lengths = lengths @ self._members / sizes
            cosines = self._mean_cosines(gram, lengths)
            for i in range(len(sizes)):
                columns[f"group{i}_{what}_norm"] = mean_lengths[:, i]
                for j in range(i, len(sizes)):
                    columns[f"group{i}_group{j}_{what}_cosine"] = cosines[:, i, j]

    def _mean_cosines(self, gram: Array, lengths: Array) -> Array:
        """Return mean cosines over pairs of distinct classes of two groups, shape (R, G, G).

        As `tightframe.metrics.group_angles`: zero vectors are left out, NaN where no pair is.
        """
        real = lengths > 0
        unit = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=real)
        cosines = np.clip(gram * unit[:, :, None] * unit[:, None, :], -1.0, 1.0)
        pairs = real[:, :, None] & real[:, None, :]
        for array in (cosines, pairs):
            array[:, np.arange(array.shape[1]), np.arange(array.shape[1])] = 0
        e = self._members
        sums, numbers = e.T @ cosines @ e, e.T @ pairs.astype(np.float64) @ e
        means: Array = np.divide(sums, numbers, out=np.full_like(sums, np.nan), where=numbers > 0)
        return means


def evaluated(descent: Descent, now: Evaluation, state: State, floors: Array) -> dict[str, Array]:
    """Return the columns that every kind of problem has, but for distances."""
    nc1, quotient = _variability(descent, state.class_means)
    return {
        "loss": _numpy(now.loss),
        "objective": _numpy(now.objective),
        "excess": _numpy(now.objective) - floors,
        "gradient_norm": _numpy(now.gradient_norm),
        "train_accuracy": _numpy(now.accuracy),
        "bias_norm": np.linalg.norm(state.bias, axis=1),
        "nc1": nc1,
        "nc1_quotient": quotient,
    }


def plain_rows(columns: dict[str, Array], names: list[str], number: int) -> list[Row]:
    """Return one row a run, of columns in order."""
    return [{name: _plain(name, columns[name][r]) for name in names} for r in range(number)]


class State:
    """What runs have arrived at, as float64 arrays with a leading axis of runs."""

    def __init__(
        self, layers: list[Array], class_means: Array, bias: Array, classifier: Array
    ) -> None:
        self.layers, self.class_means, self.bias = layers, class_means, bias
        self.classifier = classifier
        with np.errstate(all="ignore"):  # runs that have diverged
            self.logits = classifier @ class_means

    @classmethod
    def of(cls, descent: Descent) -> State:
        """Read the layers, the class means (R, d, K or m) and the bias (R, K; zeros without)."""
        layers = [_numpy(layer) for layer in descent.layers]
        classifier = _numpy(descent.product)
        shape = (len(classifier), descent.num_classes)
        bias = np.zeros(shape) if descent.bias is None else _numpy(descent.bias)[:, :, 0]
        return cls(layers, _numpy(descent.class_means), bias, classifier)


def floor(solution: Solution) -> float:
    """Return what `excess` is measured from: the certified bound, or the best objective found."""
    return solution.objective if solution.lower_bound is None else solution.lower_bound


def _variability(descent: Descent, class_means: Array) -> tuple[Array, Array]:
    """Return NC1 and ``tr Sigma_W / tr Sigma_B`` of every run, as `tightframe.metrics` does.

    NaN with one column a class: there is nothing that could vary.
    """
    runs, _, k = class_means.shape
    if descent.collapsed:
        nothing = np.full(runs, np.nan)
        return nothing, nothing
    means = torch.from_numpy(class_means).mT
    # A mean of n features of length r is rounded by about eps sqrt(n) r, if all additions are.
    floor = blur(2 * EPS * torch.linalg.vector_norm(means, dim=2))
    root = (means - means.mean(dim=1, keepdim=True)) / math.sqrt(k)
    between = between_directions(root, floor)
    deviations = descent.deviations()
    along = torch.bmm(between.vectors.mT.to(deviations.device), deviations)
    spread = along.square().sum(dim=2).cpu() / descent.num_samples
    within = deviations.square().sum(dim=(1, 2)).cpu() / descent.num_samples
    quotient = trace_quotient(within, torch.linalg.matrix_norm(root), floor)
    return _numpy(nc1_along(between, spread)), _numpy(quotient)


def _centered(columns: Array) -> Array:
    centered: Array = columns - columns.mean(axis=2, keepdims=True)
    return centered


def _gram(columns: Array) -> Array:
    gram: Array = columns.swapaxes(1, 2) @ columns
    return gram


def _spectrum(problem: Problem, logits: Array) -> Array:
    """Return the singular values of ``Z D^{1/2}`` as (R, 1, K)."""
    scaled = logits * np.sqrt(problem.feature_weights)
    known = np.isfinite(scaled).all(axis=(1, 2))
    values = np.full((len(scaled), 1, scaled.shape[1]), np.nan)
    values[known, 0] = np.linalg.svd(scaled[known], compute_uv=False)
    return values


def _normalized(matrices: Array) -> Array:
    """Divide every matrix by its Frobenius norm; NaN for a zero matrix, as there is no answer."""
    # The largest entry first keeps squares from over- and underflowing.
    top = np.abs(matrices).max(axis=(1, 2), keepdims=True)
    scaled = matrices / np.where(top > 0, top, np.nan)
    normalized: Array = scaled / _norms(scaled)[:, None, None]
    return normalized


def _norms(matrices: Array) -> Array:
    norms: Array = np.linalg.norm(matrices, axis=(1, 2))
    return norms


def _plain(name: str, value: Any) -> float | int:
    return int(value) if name == "rank" else float(value)


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.double().cpu().numpy()
    return array
