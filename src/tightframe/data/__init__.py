"""Real data sets and class-imbalance protocols."""

from tightframe.data.imbalance import long_tailed_counts, step_counts, subset
from tightframe.data.registry import Dataset, load, names

__all__ = ["Dataset", "load", "long_tailed_counts", "names", "step_counts", "subset"]
