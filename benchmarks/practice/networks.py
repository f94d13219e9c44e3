"""Which networks are trained, and on what: the list that everything else goes through."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tightframe.data import gaussian_mixture, load, standardize, subset
from tightframe.data.dataset import Dataset
from tightframe.files import replacing

#: Classes of the long tail in no order that a network could know of.
TAIL_SEED = 7
LARGE, SMALL, RARE = 1000, 100, 10

#: What everybody standardises Fashion-MNIST by.
IMAGE_MEAN, IMAGE_DEVIATION = 0.2860, 0.3530

#: How many samples the largest class has over a class that is called small.
SMALL_SHARE = 5

SGD_DECAYS = (5e-4, 5e-3, 2e-2, 5e-2)
ADAMW_DECAYS = (0.05, 0.5, 2.0, 5.0)
CNN_DECAYS = (5e-4, 5e-3, 2e-2)

#: What is changed where a network is trained again: its decay over ten, its loss, its samples.
REMEDIES = (
    "balanced weights",
    "oversampling",
    "logit adjustment",
    "smaller decay",
    "smaller decay + logit adjustment",
    "smaller decay + balanced weights",
    "LDAM-DRW",
)
PLAIN = "plain"


@dataclass(frozen=True)
class Network:
    """One network: what it is trained on, how, and with which remedy.

    Attributes
    ----------
    data : str
        A key of `DATA`.
    batch_norm : bool
    optimizer : {"sgd", "adamw"}
    weight_decay : float
        Of the network without a remedy, on every parameter.
    seed : int
        Of the choice of samples, the initial weights and the order of the batches.
    kind : {"mlp", "cnn"}
    extra : {"", "smoothing", "sampler", "augmented"}
        What the training has besides.
    remedy : str
        ``"plain"`` or one of `REMEDIES`.
    """

    data: str
    batch_norm: bool
    optimizer: str
    weight_decay: float
    seed: int
    kind: str = "mlp"
    extra: str = ""
    remedy: str = PLAIN

    @property
    def name(self) -> str:
        """Words that are in no other network's name."""
        words = [self.data, self.kind]
        words += ["BN"] if self.batch_norm else []
        words += [self.extra] if self.extra else []
        return " ".join([*words, self.optimizer, f"{self.weight_decay:g}", f"s{self.seed}"])

    @property
    def file(self) -> str:
        """Name of the record."""
        words = self.name if self.remedy == PLAIN else f"{self.name} {self.remedy}"
        return words.replace(" + ", "+").replace(" ", "_") + ".npz"

    @property
    def layers(self) -> int:
        """Layers with weights, the head included."""
        return 4 if self.kind == "cnn" else 3

    @property
    def full_batch(self) -> bool:
        """Whether a step sees all samples."""
        return self.data == "dg10"

    @property
    def used_decay(self) -> float:
        """The weight decay that the training has."""
        return self.weight_decay / (10 if self.remedy.startswith("smaller decay") else 1)

    def plain(self) -> Network:
        """Return the network without the remedy."""
        return dataclasses.replace(self, remedy=PLAIN)

    def with_remedy(self, remedy: str) -> Network:
        """Return the network with a remedy."""
        return dataclasses.replace(self, remedy=remedy)


def table(seed: int) -> Iterator[Network]:
    """Give the 54 networks of the reference table."""
    for data in ("dg10", "fm10", "fmlt"):
        for norm in (False, True):
            for decay in SGD_DECAYS:
                yield Network(data, norm, "sgd", decay, seed)
            for decay in ADAMW_DECAYS:
                yield Network(data, norm, "adamw", decay, seed)
    for norm in (False, True):
        for decay in CNN_DECAYS:
            yield Network("fmlt", norm, "sgd", decay, seed, kind="cnn")


def others(seed: int) -> Iterator[Network]:
    """Give the networks that are not in the reference table."""
    for norm in (False, True):
        for decay in SGD_DECAYS:
            yield Network("fmr", norm, "sgd", decay, seed)
    for data in ("dg10", "fm10", "fmlt"):
        for decay in (5e-3, 2e-2):
            yield Network(data, False, "sgd", decay, seed, extra="smoothing")
    for data in ("fm10", "fmlt"):
        for decay in (5e-3, 2e-2):
            yield Network(data, False, "sgd", decay, seed, extra="sampler")
    for norm in (False, True):
        for decay in (5e-4, 5e-3):
            yield Network("fm100", norm, "sgd", decay, seed)
    for decay in (5e-4, 5e-3, 2e-2):
        yield Network("mix100", False, "sgd", decay, seed)
    if seed == 0:
        for norm in (False, True):
            for decay in (5e-4, 5e-3):
                yield Network("fmlt", norm, "sgd", decay, seed, kind="cnn", extra="augmented")


def plain_networks(seeds: int = 2) -> list[Network]:
    """Return all networks without a remedy, those of the reference table first."""
    return [network for part in (table, others) for seed in range(seeds) for network in part(seed)]


def retrained(network: Network) -> list[Network]:
    """Return a network with each remedy that it is trained again with.

    Convolutional networks take ten times as long, so only those of the first seed are; LDAM's
    margins and schedule are of SGD.
    """
    if network.kind == "cnn" and network.seed > 0:
        return []
    chosen = [
        remedy
        for remedy in REMEDIES
        if not (
            remedy == "LDAM-DRW"
            and (network.kind == "cnn" or network.optimizer == "adamw" or network.seed > 0)
        )
    ]
    return [network.with_remedy(remedy) for remedy in chosen]


# -- data ------------------------------------------------------------------------------------------


def step(large: int, small: int, *, first: bool = True) -> NDArray[np.int64]:
    """Return counts of ten classes, five of each size."""
    halves = (large, small) if first else (small, large)
    return np.repeat(np.array(halves, dtype=np.int64), 5)


def long_tail(classes: int, largest: int, ratio: float) -> NDArray[np.int64]:
    """Return geometrically falling counts in a random order."""
    counts = np.round(largest * ratio ** (-np.arange(classes) / (classes - 1))).astype(np.int64)
    return np.random.default_rng(TAIL_SEED).permutation(counts)


@functools.cache
def dataset(name: str, seed: int, cache: Path) -> Dataset:
    """Return a data set by its name here, cut to its counts by the seed."""
    if name == "dg10":
        return standardize(subset(load("digits", seed=seed), step(100, 10), seed))
    if name == "mix100":
        mixture = gaussian_mixture(
            100, 64, 200, test_per_class=50, separation=4.0, noise=0.5, seed=seed
        )
        return standardize(subset(mixture, long_tail(100, 200, 50), seed))
    images = pooled()
    if name == "fm100":
        parts = clusters(images, cache)
        counts = np.minimum(long_tail(100, 200, 50), parts.train_counts)
        return subset(parts, counts, seed)
    counts = {
        "fm10": step(LARGE, SMALL),
        "fmr": step(LARGE, SMALL, first=False),
        "fmlt": long_tail(10, LARGE, LARGE / RARE),
    }[name]
    return subset(images, counts, seed)


@functools.cache
def pooled() -> Dataset:
    """Return Fashion-MNIST with four pixels averaged to one, moved by its usual constants."""
    full = load("fashion_mnist")

    def halved(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        squares = inputs.reshape(-1, 14, 2, 14, 2)
        averages = squares.mean(axis=(2, 4)).reshape(len(inputs), 196)
        return np.ascontiguousarray((averages - IMAGE_MEAN) / IMAGE_DEVIATION, dtype=np.float32)

    return dataclasses.replace(
        full,
        train_inputs=halved(full.train_inputs),
        test_inputs=halved(full.test_inputs),
        input_shape=(1, 14, 14),
    )


def clusters(images: Dataset, cache: Path) -> Dataset:
    """Split every class into the ten clusters of its training images: 100 classes.

    A test image belongs to the nearest centre of its own class.
    """
    file = cache / "fm100-labels.npz"
    if not file.is_file():
        from sklearn.cluster import MiniBatchKMeans

        labels = {
            "train": np.empty_like(images.train_labels),
            "test": np.empty_like(images.test_labels),
        }
        for k in range(images.num_classes):
            means = MiniBatchKMeans(10, random_state=0, n_init=3)
            own = images.train_labels == k
            labels["train"][own] = 10 * k + means.fit_predict(images.train_inputs[own])
            own = images.test_labels == k
            labels["test"][own] = 10 * k + means.predict(images.test_inputs[own])
        with replacing(file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **labels)
    with np.load(file) as found:
        return dataclasses.replace(
            images,
            name="fashion_mnist in 100 clusters",
            num_classes=100,
            class_names=tuple(
                f"{name} {part}" for name in images.class_names or "" for part in range(10)
            ),
            train_labels=found["train"],
            test_labels=found["test"],
        )
