"""What a run on samples with classes trains on, records and judges."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import data as torch_data

from tightframe.data import Dataset, load, oversample, random_labels, subset
from tightframe.geometry.dense import partial_products, simplex_etf
from tightframe.heads.fixed import FixedETF
from tightframe.problem.problem import Problem
from tightframe.runs.batches import chunks, loader
from tightframe.runs.class_records import class_arrays, keeper
from tightframe.runs.config import RunConfig
from tightframe.runs.task import Arrays
from tightframe.runs.verdicts import Verdict, described, group_verdicts, state_of
from tightframe.solution import Solution
from tightframe.training.backbones import build_backbone
from tightframe.training.callbacks import CollapseCallback, Measured
from tightframe.training.margins import group_margins
from tightframe.training.measuring import Row
from tightframe.training.module import CollapseModule
from tightframe.training.networks import linear_head
from tightframe.training.options import measured_epochs

_BATCH = {True: 4096, False: 256}  # samples a forward pass when measuring: the MLP, images

# A predicted classifier this near to a simplex ETF (normalised distance) is one.
_ETF_TOLERANCE = 1e-6


class ClassTask:
    """A data set with one class a sample, and its problems; see `tightframe.runs.task.Task`."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self._dataset = _dataset(config)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problem of every setting."""
        return self.config.problems

    def module(self, solution: Solution) -> CollapseModule:
        """Return a new network with the loss of the problem."""
        return _module(self.config, solution, self._dataset)

    def callback(
        self, solution: Solution, on_measure: Callable[[list[Row]], None] | None
    ) -> CollapseCallback:
        """Return what measures the network against the solution."""
        data, size = self._dataset, _BATCH[self.config.network == "mlp"]
        return CollapseCallback(
            solution.problem,
            solution.geometry,
            chunks(data.train_inputs, data.train_labels, size),
            chunks(data.test_inputs, data.test_labels, size),
            predicted_bias=solution.bias,
            lower_bound=solution.lower_bound,
            every=measured_epochs(self.config.epochs, self.config.measure_every),
            on_measure=on_measure,
            keep=keeper(solution.problem),
        )

    def loader(self) -> torch_data.DataLoader[tuple[Tensor, ...]]:
        """Return the training batches."""
        data = self._dataset
        parts = torch.from_numpy(data.train_inputs), torch.from_numpy(data.train_labels)
        return loader(parts, self.config.batch_size, self.config.seed)

    def prediction(self, solution: Solution) -> tuple[dict[str, Any], Arrays]:
        """Return what ``prediction.json`` and ``prediction.npz`` hold."""
        return _prediction(solution)

    def class_arrays(self, kept: Sequence[Arrays], final: Measured) -> Arrays | None:
        """Return what ``classes.npz`` holds; None where a checkpoint of old has kept nothing."""
        return class_arrays(kept, final) if kept else None

    def final_arrays(self, final: Measured) -> Arrays:
        """Return what ``final.npz`` holds."""
        return _final_arrays(final)

    def judged(self, solution: Solution, final: Measured) -> tuple[list[str], list[dict[str, Any]]]:
        """Return what keeps the training from being that of the problem, and the verdicts."""
        notes = _notes(self.config, solution)
        found = group_verdicts(solution.problem, solution, _scores(final), _bias(final))
        return notes, [
            (_undecided(verdict, notes[0]) if notes else verdict).to_dict() for verdict in found
        ]


def _dataset(config: RunConfig) -> Dataset:
    """Load the data set and make it what the configuration says."""
    try:
        dataset = load(config.data, root=config.data_root, seed=config.seed)
    except ValueError as error:
        if str(error).startswith("root:"):  # which is called otherwise here
            raise ValueError(f"data_{error}") from None
        raise
    dataset = subset(dataset, config.counts, seed=config.seed)
    if config.labels == "random":
        dataset = random_labels(dataset, seed=config.seed)
    if config.oversample is not None:
        dataset = oversample(dataset, config.oversample, seed=config.seed)
    return dataset


def _module(config: RunConfig, solution: Solution, dataset: Dataset) -> CollapseModule:
    problem = solution.problem
    torch.manual_seed(config.seed)
    options = dict(config.network_options)
    if config.network == "mlp":
        options["hidden"] = config.hidden
    width = int(config.feature_dim or 0)  # a number since the configuration was made
    backbone = build_backbone(
        config.network,
        dataset.input_shape,
        width,
        config.features,
        **options,
    )
    head: nn.Module
    if config.head == "fixed_etf":
        scale = _norm(solution) if config.decay_on == "features" else 1.0
        head = FixedETF(
            width,
            problem.num_classes,
            bias=config.bias != "none",
            seed=None if width >= problem.num_classes else config.seed,
            scale=scale or 1.0,
        )
    else:
        head = linear_head(
            width,
            problem.num_classes,
            depth=config.depth,
            bias=config.bias != "none",
            init=config.head_init,
        )
    return CollapseModule(
        backbone,
        head,
        problem,
        optimizer=config.optimizer,
        lr=config.lr,
        momentum=config.momentum,
        schedule=config.schedule,
        backbone_weight_decay=config.backbone_weight_decay,
        milestones=config.milestones,
        warmup_epochs=config.warmup_epochs,
        warmup_decay_factor=config.warmup_decay_factor,
        decay_on=config.decay_on,
    )


def _notes(config: RunConfig, solution: Solution) -> list[str]:
    """Return in which way the training is not that of the problem whose prediction it is beside."""
    notes = []
    if config.decay_on == "all":
        notes.append(
            "Training decayed all parameters and no features, so the decays of the prediction are "
            "not those of the training: what feature decay it amounts to is unknown, and only "
            "normalised distances to its geometry say something."
        )
    if config.head == "fixed_etf":
        etf = simplex_etf(solution.problem.num_classes)
        away = solution.geometry.distance(etf, "classifier") if _norm(solution) else np.inf
        if away > _ETF_TOLERANCE:
            notes.append(
                "The classifier was a fixed simplex ETF, the prediction's is trained and is none."
            )
    return notes


def _undecided(verdict: Verdict, note: str) -> Verdict:
    """Return a verdict without a judgement, for the prediction is not of this training."""
    sentence = (
        f"{described(verdict)} (decision margin {verdict.measured_decision_margin:.3f}). "
        f"No verdict: {note[0].lower()}{note[1:]}"
    )
    return dataclasses.replace(verdict, agrees=None, sentence=sentence)


def _norm(solution: Solution) -> float:
    """Return the root mean square length of the predicted classifier's rows."""
    return float(np.sqrt(np.diagonal(solution.geometry.classifier).mean()))


def _scores(final: Measured) -> NDArray[np.float64]:
    """Return the mean logits with bias."""
    return np.asarray(final.geometry.logits + _bias(final)[:, None])


def _bias(final: Measured) -> NDArray[np.float64]:
    """Return the bias, zeros where there is none."""
    k = final.geometry.num_classes
    return np.zeros(k) if final.bias is None else final.bias.numpy().astype(np.float64)


def _prediction(solution: Solution) -> tuple[dict[str, Any], Arrays]:
    problem = solution.problem
    margins = group_margins(problem, solution.logits + solution.bias[:, None])
    states, terms = solution.states, problem.group_terms
    groups = []
    for i, group in enumerate(problem.groups):
        members = np.flatnonzero(problem.class_groups == i)
        groups.append(
            {
                "count": group.count,
                "classes": group.classes,
                **terms[i],
                "members": members,
                "state": state_of(states, members),
                "decision_margin": states.decision_margin[members].mean(),
                "sibling_margin": states.sibling_margin[members].mean(),
                "margin": margins[i],
                "collapsed": bool(solution.collapsed[members].all()),
            }
        )
    geometry = solution.geometry
    arrays = {
        "logits": geometry.logits,
        "bias": solution.bias,
        "classifier": geometry.classifier,
        "means": geometry.means,
    }
    return solution.to_dict() | {"groups": groups, "bias": solution.bias}, arrays


def _final_arrays(final: Measured) -> Arrays:
    features, labels = final.features.numpy(), final.labels.numpy()
    weight = final.weight.numpy()
    num_classes = len(weight)
    means = np.stack(
        [features[labels == k].mean(axis=0, dtype=np.float64) for k in range(num_classes)], axis=1
    )
    partial = {}
    if len(final.layers) > 1:
        products = partial_products(final.layers, means)
        partial["partial_classifiers"] = np.stack([one.classifier for one in products])
        partial["partial_means"] = np.stack([one.means for one in products])
    held_out = {}
    if final.held_out is not None:
        parts = ("held_out_features", "held_out_labels")
        held_out = {name: part.numpy() for name, part in zip(parts, final.held_out, strict=True)}
    return {
        "features": features,
        "labels": labels,
        "weight": weight,
        "bias": np.zeros(num_classes, np.float32) if final.bias is None else final.bias.numpy(),
        "class_means": means,
        "logits": weight.astype(np.float64) @ means,
        **partial,
        **held_out,
    }
