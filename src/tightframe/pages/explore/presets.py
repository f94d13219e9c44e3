"""What the page can be opened with: problems that are known, and a file to try it with."""

from __future__ import annotations

import io
from functools import cache
from typing import NamedTuple

import numpy as np

from tightframe.data.imbalance import long_tailed_counts
from tightframe.geometry.states import Indices
from tightframe.pages.explore.state import State
from tightframe.problem.counts import compact_counts
from tightframe.solve import solve


class Preset(NamedTuple):
    """A problem by its name.

    Attributes
    ----------
    name : str
    state : State
    about : str
        In a few words.
    """

    name: str
    state: State
    about: str


def _preset(name: str, counts: str, decays: tuple[str, str], about: str) -> Preset:
    weight_decay, feature_decay = decays
    state = State(counts=counts, weight_decay=weight_decay, feature_decay=feature_decay)
    return Preset(name, state, about)


def _tail(classes: int, majority: int) -> str:
    return compact_counts(long_tailed_counts(classes, majority, 100))


#: In the order of the page.
PRESETS = (
    _preset("Balanced", "100x10", ("0.005", "0.001"), "10 classes of 100 samples"),
    _preset("STEP 10:1", "100x5,10x5", ("0.01", "0.002"), "5 classes of 100 samples, 5 of 10"),
    _preset(
        "CIFAR-10-LT", _tail(10, 5000), ("0.002", "0.0005"), "the benchmark's long tail, 5000 to 50"
    ),
    _preset(
        "CIFAR-100-LT", _tail(100, 500), ("0.0005", "0.0002"), "the benchmark's long tail, 500 to 5"
    ),
    _preset("Three classes", "100,50,10", ("0.05", "0.01"), "of 100, 50 and 10 samples"),
)

#: Where the page has its sample file.
SAMPLE_FILE = "/sample.npz"

#: Of it: the problem that its network was made for.
SAMPLE = State(counts="40x5,8x5", weight_decay="0.02", feature_decay="0.004")

_NOISE, _SEED = 0.15, 0


@cache
def sample_file() -> bytes:
    """Return a small features file: a minimiser of `SAMPLE` with noise on every sample."""
    problem = SAMPLE.problem()
    solution = solve(problem)
    rng = np.random.default_rng(_SEED)
    means, weight = solution.class_means, solution.weights[0]
    labels: Indices = np.repeat(np.arange(problem.num_classes), problem.counts)
    features = means.T[labels]
    features = features + _NOISE * np.abs(means).max() * rng.standard_normal(features.shape)
    out = io.BytesIO()
    arrays = {"features": features, "labels": labels, "weight": weight}
    np.savez_compressed(
        out, **{n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in arrays.items()}
    )
    return out.getvalue()
