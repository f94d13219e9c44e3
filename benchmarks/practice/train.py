"""Train one network and keep what a judge needs of it: one file a network, written atomically.

The training is what practice.md describes and anybody writes: nothing of the library is in it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.practice.networks import PLAIN, Network, dataset
from tightframe.data.dataset import Dataset
from tightframe.files import replacing

BATCH = 128
STEPS = {"mlp": 1500, "cnn": 1200}
WIDTHS = (128, 64)
CHANNELS = (16, 32, 64)
RATES = {"sgd": 0.1, "adamw": 1e-3}
MOMENTUM = 0.9
SMOOTHING = 0.1

#: LDAM-DRW (Cao et al. 2019) as published: scale, largest margin, when and how far it reweights.
SCALE, MARGIN, DEFERRED, EFFECTIVE = 30.0, 0.5, 0.8, 0.9999


class CosineHead(nn.Module):
    """LDAM's head: scaled cosines of features and rows."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, width).uniform_(-1, 1))

    def forward(self, features: Tensor) -> Tensor:
        return SCALE * functional.linear(
            functional.normalize(features), functional.normalize(self.weight)
        )


def build(network: Network, data: Dataset) -> tuple[nn.Module, nn.Module]:
    """Return the body, inputs to features, and the head."""
    if network.kind == "cnn":
        # A third less time on a CPU.
        body = _convolutional(network.batch_norm).to(memory_format=torch.channels_last)
        width = CHANNELS[-1]
    else:
        body = _perceptron(data.train_inputs.shape[1], network.batch_norm)
        width = WIDTHS[-1]
    if network.remedy == "LDAM-DRW":
        return body, CosineHead(width, data.num_classes)
    return body, nn.Linear(width, data.num_classes)


def _perceptron(inputs: int, norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for width in WIDTHS:
        layers.append(nn.Linear(inputs, width))
        layers += [nn.BatchNorm1d(width)] if norm else []
        layers.append(nn.ReLU())
        inputs = width
    return nn.Sequential(*layers)


def _convolutional(norm: bool) -> nn.Module:
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 14, 14))]
    inputs = 1
    for width in CHANNELS:
        layers.append(nn.Conv2d(inputs, width, 3, padding=1))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers.append(nn.ReLU())
        layers += [nn.MaxPool2d(2)] if width != CHANNELS[-1] else []
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Objective:
    """The loss of a batch of logits under a remedy."""

    def __init__(self, network: Network, counts: Tensor, steps: int) -> None:
        n, classes = counts.sum(), len(counts)
        self.weights = n / (classes * counts) if "balanced weights" in network.remedy else None
        self.shift = (counts / n).log() if "logit adjustment" in network.remedy else None
        self.smoothing = SMOOTHING if network.extra == "smoothing" else 0.0
        self.margins, self.later = None, steps
        if network.remedy == "LDAM-DRW":
            falling = counts**-0.25
            self.margins = SCALE * MARGIN * falling / falling.max()
            self.later = round(DEFERRED * steps)
            effective = (1 - EFFECTIVE) / (1 - EFFECTIVE**counts)
            self.deferred = classes * effective / effective.sum()

    def __call__(self, logits: Tensor, labels: Tensor, step: int) -> Tensor:
        weights = self.weights
        if self.shift is not None:
            logits = logits + self.shift
        if self.margins is not None:
            logits = logits - self.margins * functional.one_hot(labels, logits.shape[1])
            weights = self.deferred if step >= self.later else None
        return functional.cross_entropy(
            logits, labels, weight=weights, label_smoothing=self.smoothing
        )


class Batches:
    """Indices of the samples of every step: epochs without replacement, or a weighted draw."""

    def __init__(self, network: Network, labels: Tensor, counts: Tensor) -> None:
        self.generator = torch.Generator().manual_seed(network.seed)
        indices = torch.arange(len(labels))
        if network.remedy == "oversampling":
            indices = _repeated(labels, counts, self.generator)
        self.indices = indices
        # A remedy by weights or prior takes the place of the sampler.
        drawn = network.extra == "sampler" and network.remedy in (PLAIN, "smaller decay")
        self.chances = 1.0 / counts[labels] if drawn else None
        self.size = len(indices) if network.full_batch else BATCH
        self.left = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        if self.chances is not None:
            return torch.multinomial(
                self.chances, self.size, replacement=True, generator=self.generator
            )
        if self.size == len(self.indices):
            return self.indices
        if len(self.left) < self.size:
            order = torch.randperm(len(self.indices), generator=self.generator)
            self.left = self.indices[order]
        batch, self.left = self.left[: self.size], self.left[self.size :]
        return batch


def _repeated(labels: Tensor, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Return indices in which every class comes as often as the largest."""
    most = int(counts.max())
    parts = []
    for k in range(len(counts)):
        own = torch.nonzero(labels == k).flatten()
        whole, rest = divmod(most, len(own))
        extra = own[torch.randperm(len(own), generator=generator)[:rest]]
        parts += [own.repeat(whole), extra]
    return torch.cat(parts)


def augmented(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Return images moved by up to two pixels, half of the batches mirrored."""
    images = inputs.view(-1, 14, 14)
    dx, dy = torch.randint(-2, 3, (2,), generator=generator).tolist()
    images = functional.pad(images, (2, 2, 2, 2), value=float(images.min()))
    images = images[:, 2 + dy : 16 + dy, 2 + dx : 16 + dx]
    if torch.rand((), generator=generator) < 0.5:
        images = images.flip(2)
    return images.reshape(len(inputs), 196)


def train(network: Network, folder: Path, steps: int | None = None) -> float:
    """Train a network and write its record; return the seconds that it took.

    A file that is there is kept, and nothing is trained.
    """
    file = folder / network.file
    if file.is_file():
        return 0.0
    torch.set_num_threads(1)
    started = time.perf_counter()
    data = dataset(network.data, network.seed, folder)
    body, head, objective = fit(network, data, STEPS[network.kind] if steps is None else steps)
    keep(file, network, data, body, head, objective, time.perf_counter() - started)
    return time.perf_counter() - started


def fit(network: Network, data: Dataset, steps: int) -> tuple[nn.Module, nn.Module, Objective]:
    """Return the trained body and head, and the loss that they were trained with."""
    inputs = torch.from_numpy(data.train_inputs)
    labels = torch.from_numpy(data.train_labels)
    counts = torch.from_numpy(data.train_counts).float()
    torch.manual_seed(network.seed)
    body, head = build(network, data)
    parameters = [*body.parameters(), *head.parameters()]
    rate, decay = RATES[network.optimizer], network.used_decay
    optimizer: torch.optim.Optimizer
    if network.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            parameters, lr=rate, momentum=MOMENTUM, weight_decay=decay, fused=True
        )
    else:
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    objective, batches = Objective(network, counts, steps), Batches(network, labels, counts)
    for step in range(steps):
        batch = batches.next()
        x = inputs[batch]
        if network.extra == "augmented":
            x = augmented(x, batches.generator)
        optimizer.zero_grad()
        objective(head(body(x)), labels[batch], step).backward()
        optimizer.step()
        schedule.step()
    return body.eval(), head.eval(), objective


@torch.no_grad()
def keep(
    file: Path,
    network: Network,
    data: Dataset,
    body: nn.Module,
    head: nn.Module,
    objective: Objective,
    seconds: float,
) -> None:
    """Write what the judge reads: answers of every network, features of those without remedy."""
    features = body(torch.from_numpy(data.train_inputs))
    held_out = body(torch.from_numpy(data.test_inputs))
    logits, labels = head(features), torch.from_numpy(data.train_labels)
    squares = sum(p.square().sum().item() for m in (body, head) for p in m.parameters())
    record: dict[str, Any] = {
        "labels": data.train_labels,
        "predicted": logits.argmax(1).numpy(),
        "held_out_labels": data.test_labels,
        "held_out_predicted": head(held_out).argmax(1).numpy(),
        "mean_logits": _class_means(logits, labels, data.num_classes),
        "objective": objective(logits, labels, 0).item() + network.used_decay / 2 * squares,
        "seconds": seconds,
    }
    if network.remedy == PLAIN:
        record |= {
            "features": features.numpy(),
            "held_out_features": held_out.numpy(),
            "weight": head.weight.numpy(),
            "bias": head.bias.numpy(),
        }
    with replacing(file) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **record)


def _class_means(logits: Tensor, labels: Tensor, classes: int) -> Any:
    """Return the mean logits of every class, shape (K, K), a row a class of samples."""
    sums = torch.zeros(classes, classes).index_add_(0, labels, logits)
    return (sums / labels.bincount(minlength=classes).clamp(min=1)[:, None]).numpy()
