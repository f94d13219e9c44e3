"""Features with labels and classifiers that are drawn for the metrics' tests, and gathered."""

import numpy as np
import torch
from hypothesis import assume, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from tests.reference import two_pass
from tightframe.metrics import ClassMoments

#: An example costs milliseconds to tenths of a second here.
quick = settings(deadline=None, max_examples=25)


@st.composite
def streams(draw, min_classes=1):
    """Draw (x float64, y, K): every class has samples, in random order and of random scale."""
    k = draw(st.integers(min_classes, 6))
    d = draw(st.integers(1, 7))
    counts = draw(st.lists(st.integers(1, 9), min_size=k, max_size=k))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = 10.0 ** draw(st.integers(-3, 3))
    y = rng.permutation(np.repeat(np.arange(k), counts))
    x = rng.normal(size=(k, d))[y] + spread * rng.normal(size=(len(y), d))
    return x, y, k


@st.composite
def networks(draw, max_dim=7):
    """Draw (x, y, K, W, b): random class means that are not nearly equal, random spread."""
    k = draw(st.integers(2, 6))
    d = draw(st.integers(1, max_dim))
    counts = draw(st.lists(st.integers(1, 8), min_size=k, max_size=k))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = rng.permutation(np.repeat(np.arange(k), counts))
    x = rng.normal(size=(k, d))[y] + 10.0 ** draw(st.integers(-3, 1)) * rng.normal(size=(len(y), d))
    means = two_pass.class_means(x, y, k)
    distances = np.linalg.norm(means[:, None] - means, axis=2) + np.eye(k)
    assume(distances.min() > 1e-3)
    values = np.linalg.svd(means - means.mean(axis=0))[1]
    assume(values[min(k - 1, d) - 1] > 1e-3)
    return x, y, k, rng.normal(size=(k, d)), rng.normal(size=k)


def gather(x, y, k, cuts=(), **options):
    """Return the moments of samples that come in batches, cut at these rows."""
    moments = ClassMoments(k, **options)
    for rows in np.split(np.arange(len(y)), sorted(cuts)):
        moments.update(x[rows], y[rows])
    return moments


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


class Sizes(TorchFunctionMode):
    """Keeps the number of entries of every tensor that PyTorch gives while it is entered."""

    def __init__(self):
        super().__init__()
        self.all = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.all.extend(t.numel() for t in (out,) if isinstance(t, torch.Tensor))
        return out

    @property
    def largest(self):
        return max(self.all)
