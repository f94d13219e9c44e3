"""Data sets and class-imbalance protocols."""

from tightframe.data.dataset import Dataset
from tightframe.data.imbalance import (
    long_tailed_counts,
    oversample,
    random_labels,
    step_counts,
    subset,
)
from tightframe.data.registry import load, names
from tightframe.data.scaling import standardize
from tightframe.data.synthetic import gaussian_mixture
from tightframe.data.text import Text, read_text

__all__ = [
    "Dataset",
    "Text",
    "gaussian_mixture",
    "load",
    "long_tailed_counts",
    "names",
    "oversample",
    "random_labels",
    "read_text",
    "standardize",
    "step_counts",
    "subset",
]
