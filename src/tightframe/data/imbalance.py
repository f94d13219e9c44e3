"""Protocols: class counts, the subset that has them, oversampling, and random labels."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import plain_number, shortened, whole_number
from tightframe.data.dataset import Dataset, pick, require_dataset
from tightframe.problem.counts import (
    MAX_SAMPLES,
    CountsLike,
    by_label,
    compact_counts,
    counts_array,
    num_classes,
    parse_counts,
)

#: Counts that are longer than this, as text, are not told in an error.
_COPIED = 200


def step_counts(
    num_classes: int,
    majority: int,
    *,
    ratio: float | None = None,
    minority: int | None = None,
    fraction: float = 0.5,
) -> tuple[int, ...]:
    """Return STEP counts: the first classes large, the last ones small (Buda et al. 2018).

    Parameters
    ----------
    num_classes : int
        Number of classes K, at least 2.
    majority : int
        Samples of each majority class.
    ratio : float, optional
        Majority count over minority count, at least 1; give this or ``minority``. The quotient is
        rounded to a whole number, at least 1.
    minority : int, optional
        Samples of each minority class, at most ``majority``.
    fraction : float
        Part of the classes in the minority, strictly between 0 and 1; rounded to a whole number
        of classes, at least one of each kind.

    Returns
    -------
    tuple of int, length K

    Raises
    ------
    ValueError
        If an argument is out of range, or not exactly one of ``ratio`` and ``minority`` is given.
    """
    num_classes, majority = _sizes(num_classes, majority)
    if (ratio is None) == (minority is None):
        raise ValueError("ratio, minority: give exactly one of the two")
    if ratio is not None:
        small = max(1, round(majority / _ratio(ratio)))
    else:
        small = whole_number("minority", minority, 1)
        if small > majority:
            raise ValueError(f"minority: got {small}, more than the majority's {majority}")
    part = _number(fraction)
    if not 0 < part < 1:
        raise ValueError(f"fraction: got {fraction!r}, need a number strictly between 0 and 1")
    minorities = min(max(round(num_classes * part), 1), num_classes - 1)
    return (majority,) * (num_classes - minorities) + (small,) * minorities


def long_tailed_counts(num_classes: int, majority: int, ratio: float) -> tuple[int, ...]:
    """Return exponentially falling counts, ``majority * ratio**(-k / (K - 1))`` (Cui et al. 2019).

    Parameters
    ----------
    num_classes : int
        Number of classes K, at least 2.
    majority : int
        Samples of class 0.
    ratio : float
        Largest count over smallest, at least 1.

    Returns
    -------
    tuple of int, length K
        Truncated to whole numbers, as the code of Cao et al. 2019 (LDAM-DRW) does, on which the
        long-tailed benchmarks rest, and at least 1.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> sum(long_tailed_counts(100, 500, 100))  # CIFAR-100-LT
    10847
    """
    num_classes, majority = _sizes(num_classes, majority)
    share = 1 / _ratio(ratio)
    # A whole number that rounding put just below itself stays.
    exact = (majority * share ** (k / (num_classes - 1)) for k in range(num_classes))
    return tuple(max(1, int(count * (1 + 1e-12))) for count in exact)


def subset(dataset: Dataset, counts: CountsLike, seed: int = 0) -> Dataset:
    """Return the data set with exactly ``counts[k]`` training samples of every class k.

    Parameters
    ----------
    dataset : Dataset
        Its test samples are kept as they are.
    counts : str, iterable of int, or mapping
        Training samples of every class, ``"100x5,10x5"`` for short; a mapping by label, or by name
        where the data set's classes have names.
    seed : int
        Of the choice. Choices of one seed are nested: a larger count of a class only adds samples.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If there are not as many counts as classes, or a class has too few training samples; the
        message names the class, what was wanted and what there is.
    """
    require_dataset(dataset)
    wanted = _per_class("counts", counts, dataset)
    available = dataset.train_counts
    short = wanted > available
    if short.any():
        k = int(np.argmax(short))
        raise ValueError(
            f"counts: class {k} wants {wanted[k]} training samples, "
            f"{dataset.name} has {available[k]} of it{_all_counts(dataset)}"
        )
    chosen = pick(dataset.train_labels, wanted, seed)
    if len(chosen) == len(dataset.train_labels):
        return dataset  # all of them: no copy of what may be large
    return _take(dataset, chosen)


def oversample(
    dataset: Dataset, factors: CountsLike | Literal["balance"] = "balance", seed: int = 0
) -> Dataset:
    """Return the data set with training samples repeated, class by class.

    Repeating every sample of class k ``factors[k]`` times has the same empirical risk as weighting
    the class by that factor; Fang et al. 2021, section "Improving Recovery from Minority Collapse",
    repeat minority samples until their margins come back.

    Parameters
    ----------
    dataset : Dataset
        Its test samples are kept as they are.
    factors : str, iterable of int or mapping, or "balance"
        How often each sample of every class appears, ``"1x5,10x5"`` for short. ``"balance"``: every
        class comes to the count of the largest one; each sample appears equally often, but for a
        random choice of them that appears once more where the counts do not divide.
    seed : int
        Of that choice.

    Returns
    -------
    Dataset
        Copies stand next to each other, in the order of the samples.

    Raises
    ------
    ValueError
        If there are not as many factors as classes, one is not a whole number, at least 1, or a
        class to be balanced has no training sample.

    References
    ----------
    C. Fang, H. He, Q. Long, W. J. Su, "Exploring deep neural networks via layer-peeled model:
    Minority collapse in imbalanced training", PNAS 118(43), 2021.
    """
    require_dataset(dataset)
    counts = dataset.train_counts
    labels = dataset.train_labels
    if isinstance(factors, str) and factors == "balance":
        if counts.min() == 0:
            raise ValueError(
                f"factors: class {int(np.argmin(counts))} of {dataset.name} has no training sample "
                "to repeat"
            )
        whole, rest = np.divmod(counts.max(), counts)
        times = whole[labels]
        times[pick(labels, rest, seed)] += 1
    else:
        times = _per_class("factors", factors, dataset)[labels]
    return _take(dataset, np.repeat(np.arange(len(labels)), times))


def random_labels(dataset: Dataset, seed: int = 0) -> Dataset:
    """Return the data set with its training labels permuted at random, so that counts are kept.

    Inputs say nothing about such labels; a network that still fits and collapses them shows that
    the collapse is one of optimisation, not of the data (Zhu et al. 2021, figure 4).

    Parameters
    ----------
    dataset : Dataset
        Its inputs and test samples are kept as they are, and shared.
    seed : int

    Returns
    -------
    Dataset

    References
    ----------
    Z. Zhu, T. Ding, J. Zhou, X. Li, C. You, J. Sulam, Q. Qu, "A geometric analysis of neural
    collapse with unconstrained features", NeurIPS 2021.
    """
    require_dataset(dataset)
    generator = np.random.default_rng(whole_number("seed", seed, 0))
    return dataclasses.replace(dataset, train_labels=generator.permutation(dataset.train_labels))


def _per_class(name: str, numbers: CountsLike, dataset: Dataset) -> NDArray[np.int64]:
    runs = parse_counts(by_label(name, numbers, dataset.class_names), name)
    classes = num_classes(runs)
    if classes != dataset.num_classes:
        there = _all_counts(dataset) if name == "counts" else ""
        raise ValueError(
            f"{name}: got {classes} classes, {dataset.name} has {dataset.num_classes}{there}"
        )
    return counts_array(runs)


def _all_counts(dataset: Dataset) -> str:
    """Return the counts to give for all samples, where they are short enough to be copied."""
    counts = compact_counts(dataset.train_counts.tolist())
    return f" (all training samples: {counts})" if len(counts) <= _COPIED else ""


def _take(dataset: Dataset, chosen: NDArray[np.intp]) -> Dataset:
    return dataclasses.replace(
        dataset,
        train_inputs=dataset.train_inputs[chosen],
        train_labels=dataset.train_labels[chosen],
    )


def _sizes(num_classes: int, majority: int) -> tuple[int, int]:
    sizes = whole_number("num_classes", num_classes, 2), whole_number("majority", majority, 1)
    # A count a class is written out, and counts are exact as floats.
    for name, size, most in zip(
        ("num_classes", "majority"), sizes, (10**7, MAX_SAMPLES), strict=True
    ):
        if size > most:
            raise ValueError(f"{name}: got {shortened(str(size))}, need at most {most}")
    return sizes


def _ratio(ratio: float) -> float:
    number = _number(ratio)
    if not 1 <= number < math.inf:
        raise ValueError(f"ratio: got {ratio!r}, need a finite number, at least 1")
    return number


def _number(value: Any) -> float:
    """Return a real number as float; NaN, which no range contains, for anything else."""
    value = plain_number(value)
    real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    return float(value) if real else math.nan
