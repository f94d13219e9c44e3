import dataclasses
from collections import Counter

import numpy as np
import pytest

from tightframe.data import (
    Dataset,
    load,
    long_tailed_counts,
    oversample,
    random_labels,
    step_counts,
    subset,
)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def rows(dataset: Dataset, k: int) -> set[bytes]:
    return {row.tobytes() for row in dataset.train_inputs[dataset.train_labels == k]}


def without_class_3(dataset: Dataset) -> Dataset:
    kept = dataset.train_labels != 3
    return dataclasses.replace(
        dataset,
        train_inputs=dataset.train_inputs[kept],
        train_labels=dataset.train_labels[kept],
    )


def test_step_counts():
    assert step_counts(10, 100, ratio=10) == (100,) * 5 + (10,) * 5
    assert step_counts(10, 100, minority=20, fraction=0.3) == (100,) * 7 + (20,) * 3
    assert step_counts(2, 5, ratio=1) == (5, 5)
    assert step_counts(3, 5, ratio=1e9, fraction=0.01) == (5, 5, 1)
    assert step_counts(3, 5, minority=1, fraction=0.99) == (5, 1, 1)


def test_long_tailed_counts_fall_by_a_constant_factor():
    assert long_tailed_counts(3, 100, 100) == (100, 10, 1)
    counts = long_tailed_counts(10, 5000, 100)
    assert (counts[0], counts[-1]) == (5000, 50)
    assert np.allclose(np.diff(np.log(counts)), -np.log(100) / 9, atol=0.01)
    assert long_tailed_counts(4, 7, 1) == (7,) * 4


@pytest.mark.parametrize("ratio", [10, 20, 50, 100, 200])
@pytest.mark.parametrize(("classes", "majority"), [(100, 500), (10, 5000)])
def test_long_tailed_counts_are_the_benchmarks(classes, majority, ratio):
    """As Cao et al. 2019 write them: int(max * factor ** (k / (K - 1.0))), factor = 1 / ratio."""
    theirs = [int(majority * ((1 / ratio) ** (k / (classes - 1.0)))) for k in range(classes)]
    assert list(long_tailed_counts(classes, majority, ratio)) == theirs
    if (classes, ratio) == (100, 100):
        assert sum(theirs) == 10_847


def test_a_count_that_rounding_put_below_itself_stays():
    assert 98 * (1 / 49) < 2
    assert long_tailed_counts(2, 98, 49) == (98, 2)


def test_subset_has_exactly_the_counts_and_keeps_the_test_set(digits):
    part = subset(digits, "100x5,10x5", seed=3)
    assert part.train_counts.tolist() == [100] * 5 + [10] * 5
    assert part.test_inputs is digits.test_inputs
    for k in range(10):
        assert rows(part, k) <= rows(digits, k)


def test_subset_is_deterministic_nested_and_seeded(digits):
    small = subset(digits, [10] * 10, seed=3)
    again = subset(digits, [10] * 10, seed=3)
    assert np.array_equal(small.train_inputs, again.train_inputs)
    assert not np.array_equal(small.train_inputs, subset(digits, [10] * 10, seed=4).train_inputs)
    # A class's choice does not depend on the other classes' counts, and more samples only add.
    large = subset(digits, [10] * 5 + [40] * 5, seed=3)
    assert rows(small, 0) == rows(large, 0)
    assert rows(small, 9) < rows(large, 9)


def test_subset_of_everything_is_the_data_set_itself(digits):
    assert subset(digits, "140x10", seed=3) is digits


def copies(dataset: Dataset, k: int) -> Counter:
    return Counter(row.tobytes() for row in dataset.train_inputs[dataset.train_labels == k])


def test_oversample_repeats_every_sample_of_a_class_as_often(digits):
    part = subset(digits, "20x5,4x5")
    more = oversample(part, "1x5,3x4,10")
    assert more.train_counts.tolist() == [20] * 5 + [12] * 4 + [40]
    for k, times in enumerate([1] * 5 + [3] * 4 + [10]):
        assert copies(more, k) == Counter(dict.fromkeys(rows(part, k), times))
    assert more.test_inputs is part.test_inputs
    assert np.array_equal(oversample(part, [1] * 10).train_inputs, part.train_inputs)


def test_oversample_to_balance(digits):
    part = subset(digits, "20x5,8x4,20")
    more = oversample(part, seed=1)
    assert more.train_counts.tolist() == [20] * 10
    for k in range(5, 9):
        # 20 = 2 * 8 + 4: four of the eight appear once more.
        assert copies(more, k).keys() == rows(part, k)
        assert sorted(copies(more, k).values()) == [2] * 4 + [3] * 4
    assert np.array_equal(more.train_inputs, oversample(part, "balance", 1).train_inputs)
    assert copies(more, 5) != copies(oversample(part, seed=2), 5)


def test_random_labels_keep_inputs_counts_and_test_samples(digits):
    part = subset(digits, "100x5,10x5")
    shuffled = random_labels(part, seed=1)
    assert shuffled.train_inputs is part.train_inputs
    assert shuffled.test_labels is part.test_labels
    assert shuffled.train_counts.tolist() == part.train_counts.tolist()
    # Agreement by chance: sum of (n_k / N)^2 = 0.167, standard error 0.016.
    agreement = (shuffled.train_labels == part.train_labels).mean()
    assert agreement == pytest.approx(5 * (100 / 550) ** 2 + 5 * (10 / 550) ** 2, abs=0.06)
    again, other = random_labels(part, seed=1), random_labels(part, seed=2)
    assert np.array_equal(again.train_labels, shuffled.train_labels)
    assert not np.array_equal(other.train_labels, shuffled.train_labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda d: subset(d, "100x4,141,10x5"),
            "class 4 wants 141 training samples, digits has 140",
        ),
        (
            lambda d: subset(d, "10x9"),
            "counts: got 9 classes, digits has 10 .all training samples: 1",
        ),
        (lambda d: subset(d, "10x1000000000000"), "counts: got 1000000000000 classes"),
        (lambda d: subset(d, "10x10", seed=1.5), "seed: got 1.5"),
        (lambda d: oversample(d, "2x9"), "factors: got 9 classes, digits has 10"),
        (lambda d: oversample(d, [0] * 10), "factors: "),
        (lambda d: oversample(d, "1.5x10"), "factors: cannot read '1.5x10'"),
        (lambda d: oversample(d, "balanced"), "factors: cannot read 'balanced'"),
        (lambda d: oversample(d, seed=-1), "seed: got -1"),
        (lambda d: oversample(without_class_3(d)), "factors: class 3 of digits has no training"),
        (lambda d: random_labels(d, seed=1.5), "seed: got 1.5"),
        (lambda d: step_counts(10, 100), "ratio, minority: give exactly one"),
        (
            lambda d: step_counts(10, 100, ratio=10, minority=10),
            "ratio, minority: give exactly one",
        ),
        (lambda d: step_counts(10, 100, minority=101), "minority: got 101, more than"),
        (lambda d: step_counts(10, 0, ratio=10), "majority: got 0"),
        (lambda d: step_counts(10, 100, ratio=0.5), "ratio: got 0.5"),
        (lambda d: step_counts(10, 100, ratio="10"), "ratio: got '10'"),
        (lambda d: step_counts(10, 100, ratio=10, fraction=1.0), "fraction: got 1.0"),
        (lambda d: step_counts(1, 100, ratio=10), "num_classes: got 1"),
        (lambda d: long_tailed_counts(10, 0, 10), "majority: got 0"),
        (lambda d: step_counts(10**30, 100, ratio=10), "num_classes: got 1000.*at most 10000000"),
        (lambda d: long_tailed_counts(10, 10**400, 10), "majority: got 1000.*at most"),
        (lambda d: long_tailed_counts(10, 10, float("nan")), "ratio: got nan"),
        (lambda d: long_tailed_counts(10, 10, float("inf")), "ratio: got inf"),
    ],
)
def test_bad_input(digits, call, message):
    with pytest.raises(ValueError, match=message):
        call(digits)
