"""The measuring callback: collapse of the training set, compared with the prediction."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tightframe.geometry.dense import PARTS, Geometry, seli_of_head, simplex_etf
from tightframe.heads.modes import evaluating
from tightframe.metrics import ClassMoments, CollapseReport, self_duality
from tightframe.metrics.registry import LEADING
from tightframe.problem.problem import Problem
from tightframe.theory.certificate import finite_array
from tightframe.training.margins import group_margins
from tightframe.training.measuring import Arrays, MeasuringCallback, Row
from tightframe.training.module import CollapseModule
from tightframe.training.networks import head_bias, head_layers, head_weight

Array = NDArray[np.float64]

#: Batches of (inputs, labels), iterable any number of times.
Batches = Iterable[tuple[Tensor, Tensor]]

#: What the parts of the geometry are compared with.
TARGETS = ("predicted", "etf", "seli")


#: The accuracies of at most so many classes have columns of their own.
MOST_CLASSES = 100


#: Relative errors of logits and bias, which know their sizes too: Frobenius norm, largest entry.
ERRORS = ("logits_error", "logits_largest_error", "bias_error", "bias_largest_error")


def history_columns(num_groups: int, num_classes: int = 0) -> list[str]:
    """Return the columns of a history row, in order.

    Parameters
    ----------
    num_groups : int
        Groups of interchangeable classes, ``len(problem.groups)``.
    num_classes : int
        Classes whose accuracies are in it; none by default, and none of more than `MOST_CLASSES`.
    """
    classes = range(num_classes if num_classes <= MOST_CLASSES else 0)
    return [
        "epoch",
        "step",
        "seconds",
        "loss",
        "objective",
        "excess",
        "train_accuracy",
        "test_accuracy",
        *(metric.key for metric in LEADING),
        "self_duality_to_predicted",
        *(f"{part}_to_{target}" for part in PARTS for target in TARGETS),
        *ERRORS,
        *(f"group{i}_margin" for i in range(num_groups)),
        *(f"class{k}_{part}_accuracy" for part in ("train", "test") for k in classes),
    ]


@dataclass(frozen=True, eq=False)
class Measured:
    """What one pass over the training set gives.

    Attributes
    ----------
    row : dict of str to float
        All columns of `history_columns` but epoch, step and seconds.
    features : Tensor, shape (N, d)
        On the CPU, in the order of the batches.
    labels : Tensor, shape (N,), int64
    weight : Tensor, shape (K, d)
        The classifier, on the CPU.
    layers : tuple of Tensor
        What it is the product of, W_1 (next to the features) first; on the CPU.
    bias : Tensor or None, shape (K,)
    geometry : Geometry
        The measured one.
    held_out : tuple of (Tensor, Tensor) or None
        Features and labels of the test samples, if there are any.
    test_answers : Tensor or None, shape (N_test,), int64
        Classes that the test samples are taken for.
    """

    row: Row
    features: Tensor
    labels: Tensor
    weight: Tensor
    layers: tuple[Tensor, ...]
    bias: Tensor | None
    geometry: Geometry
    held_out: tuple[Tensor, Tensor] | None = None
    test_answers: Tensor | None = None


class CollapseCallback(MeasuringCallback[Measured]):
    """Measure the collapse of the training set at the start, every n epochs, and at the end.

    Each measurement is a row of `history`, whose columns are those of `history_columns`:

    - epoch, step, seconds: epochs and optimiser steps done, training time (without measuring) so
      far, over interruptions;
    - loss, objective, excess: mean data loss, regularised objective of the UFM (both over the
      whole training set), and objective minus the certified lower bound of its minimum;
    - train_accuracy, test_accuracy: shares of correct predictions;
    - the metrics of `CollapseReport`, and ``self_duality_to_predicted``, the distance of the
      classifier to the one that the prediction has for the measured class means
      (`tightframe.metrics.self_duality`; the NC2_W of Dang et al. 2024);
    - ``<part>_to_predicted``, ``<part>_to_etf``, ``<part>_to_seli``: normalised Frobenius distances
      of every part of the geometry to the predicted one, to the simplex ETF and to the SELI
      geometry of the counts, for a head with a bias that of a free bias
      (`tightframe.geometry.dense.seli_of_head`);
    - logits_error, bias_error: relative errors ``||Z - Z*|| / ||Z*||`` of the mean logits W H (no
      bias in them) and of the bias, sizes included (Frobenius norm), and logits_largest_error,
      bias_largest_error: the same with the largest absolute entry as the norm (Hong & Ling 2023,
      Fig. 3); NaN where the prediction is zero or not given;
    - ``group<i>_margin``: see `group_margins`, in logit units (nats for cross-entropy);
    - ``class<k>_train_accuracy``, ``class<k>_test_accuracy`` of up to `MOST_CLASSES` classes.

    The history is part of the callback's state in a checkpoint: a resumed run continues it. The
    scalars also go to the Trainer's loggers.

    Parameters
    ----------
    problem : Problem
        Of the training set; its counts are compared with what the batches hold.
    predicted : Geometry
        What the theory predicts, ``solution.geometry``.
    train : iterable of (inputs, labels)
        The whole training set; iterated once a measurement. Not the shuffled training loader,
        unless it covers every sample.
    test : iterable of (inputs, labels), optional
        Without it the test accuracy is NaN.
    predicted_bias : array_like, shape (K,), optional
        ``solution.bias``; without it the errors of the bias are NaN.
    lower_bound : float, optional
        Certified lower bound of the objective; without it the excess is NaN.
    every : int or collection of int
        Epochs between measurements, or the epochs after which to measure.
    on_measure : callable, optional
        Called with the history after every measurement.
    keep : callable, optional
        Called with every `Measured`; the arrays that it returns are kept in `kept`, with their
        ``epoch``, and in checkpoints.

    Raises
    ------
    ValueError
        If ``every`` is below 1 or the geometry has another number of classes.
    """

    def __init__(
        self,
        problem: Problem,
        predicted: Geometry,
        train: Batches,
        test: Batches | None = None,
        *,
        predicted_bias: ArrayLike | None = None,
        lower_bound: float | None = None,
        every: int | Collection[int] = 1,
        on_measure: Callable[[list[Row]], None] | None = None,
        keep: Callable[[Measured], Arrays] | None = None,
    ) -> None:
        columns = history_columns(len(problem.groups), problem.num_classes)
        super().__init__(columns, every, on_measure, keep)
        if predicted.num_classes != problem.num_classes:
            raise ValueError(
                f"predicted: got a geometry of {predicted.num_classes} classes, "
                f"the problem has {problem.num_classes}"
            )
        self.problem = problem
        limit = seli_of_head(problem.compact_counts, problem.bias != "none")
        goals = (predicted, simplex_etf(problem.num_classes), limit)
        self._targets = dict(zip(TARGETS, goals, strict=True))
        self._predicted_bias: Array | None = None
        if predicted_bias is not None and problem.bias != "none":
            shape = (problem.num_classes,)
            self._predicted_bias = finite_array("predicted_bias", predicted_bias, shape)
        self._train = train
        self._test = test
        self._lower_bound = math.nan if lower_bound is None else float(lower_bound)

    @torch.no_grad()  # the metrics see to that as well, but each time it takes its time
    def measure(self, module: CollapseModule) -> Measured:
        """Run the training set through a module, in eval mode and without gradients.

        The mode of every submodule is as before afterwards.

        Raises
        ------
        ValueError
            If the batches hold other counts than the problem, or features below zero where the
            problem wants none; or features or loss are not finite, because training diverged.
        """
        problem = self.problem
        with evaluating(module):
            features, labels, logits = _forward(module, self._train)
            test_accuracy, shares = math.nan, {"train": _class_accuracies(logits, labels)}
            held_out = test_answers = None
            if self._test is not None:
                test_features, test_labels, test_logits = _forward(module, self._test)
                test_accuracy = _accuracy(test_logits, test_labels)
                shares["test"] = _class_accuracies(test_logits, test_labels)
                held_out, test_answers = (test_features, test_labels), test_logits.argmax(dim=1)
            weight = head_weight(module.head).detach().cpu()
            layers = tuple(layer.weight.detach().cpu() for layer in head_layers(module.head))
            bias = head_bias(module.head)
            bias = None if bias is None else bias.detach().cpu().clone()
            # float64: the excess over the bound is the small difference of two such sums.
            loss = float(module.loss.data_loss(logits.double(), labels))
            penalty = float(module.loss.feature_penalty(features.double(), labels))
            penalty += float(module.loss.head_penalty(module.head))
        self._check(features, labels, loss)
        moments = ClassMoments(problem.num_classes, features.shape[1])
        moments.update(features, labels)
        with warnings.catch_warnings():
            # What has no value (a distance to zero, NC1 of merged means) is NaN or infinite in
            # the row; merging classes are what is looked for here, no reason to warn every time.
            named = "|".join(metric.key for metric in LEADING)
            warnings.filterwarnings("ignore", f"(distance to|{named})", RuntimeWarning)
            report = CollapseReport.measure(moments, weight, bias, features=features)
            row: Row = {
                "loss": loss,
                "objective": loss + penalty,
                "excess": loss + penalty - self._lower_bound,
                "train_accuracy": _accuracy(logits, labels),
                "test_accuracy": test_accuracy,
            }
            row |= {metric.key: float(report.numbers[metric.key]) for metric in LEADING}
            duality = self_duality(moments, weight, self._targets["predicted"])
            row["self_duality_to_predicted"] = duality
            for name, target in self._targets.items():
                for part, distance in report.distances(target).items():
                    row[f"{part}_to_{name}"] = float(distance)
        row |= self._errors(report.geometry.logits, None if bias is None else bias.double().numpy())
        for i, margin in enumerate(group_margins(problem, report.logits)):
            row[f"group{i}_margin"] = float(margin)
        for part in ("train", "test"):
            for k in range(problem.num_classes):
                row[f"class{k}_{part}_accuracy"] = shares[part][k] if part in shares else math.nan
        layers = tuple(layer.clone() for layer in layers)
        return Measured(
            row,
            features,
            labels,
            weight.clone(),
            layers,
            bias,
            report.geometry,
            held_out,
            test_answers,
        )

    def _errors(self, logits: Array, bias: Array | None) -> Row:
        """Return the `ERRORS` of mean logits and bias."""
        pairs = ((logits, self._targets["predicted"].logits), (bias, self._predicted_bias))
        found: list[float] = []
        for measured, predicted in pairs:
            size = 0.0 if measured is None or predicted is None else float(np.abs(predicted).max())
            if measured is None or predicted is None or size == 0:
                found += [math.nan, math.nan]
                continue
            off = measured - predicted
            found.append(float(np.linalg.norm(off) / np.linalg.norm(predicted)))
            found.append(float(np.abs(off).max() / size))
        return dict(zip(ERRORS, found, strict=True))

    def _check(self, features: Tensor, labels: Tensor, loss: float) -> None:
        counts = np.bincount(labels.numpy(), minlength=self.problem.num_classes)
        if not np.array_equal(counts, self.problem.counts):
            raise ValueError(
                f"train: the batches hold counts {counts.tolist()}, "
                f"the problem has {self.problem.compact_counts}"
            )
        if not math.isfinite(loss) or not bool(torch.isfinite(features).all()):
            raise ValueError("lr: training diverged, loss or features are not finite; lower it")
        if self.problem.features == "nonnegative" and float(features.min()) < 0:
            raise ValueError(
                f"features: the backbone returned {float(features.min())}, "
                "the problem has non-negative features; end the backbone with a ReLU"
            )


def _forward(module: CollapseModule, batches: Batches) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, labels and logits of all batches, on the CPU."""
    features, labels, logits = [], [], []
    for inputs, targets in batches:
        hidden = module.backbone(inputs.to(module.device))
        features.append(hidden.cpu())
        logits.append(module.head(hidden).cpu())
        labels.append(targets.cpu())
    if not labels:
        raise ValueError("train, test: no batches to measure (an iterator can be used only once)")
    return torch.cat(features), torch.cat(labels), torch.cat(logits)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(dim=1) == labels).double().mean())


def _class_accuracies(logits: Tensor, labels: Tensor) -> list[float]:
    """Return the accuracy of every class, NaN without samples."""
    k = logits.shape[1]
    right = (logits.argmax(dim=1) == labels).double()
    counts = torch.bincount(labels, minlength=k)
    shares: list[float] = (torch.bincount(labels, right, k) / counts).tolist()
    return shares
