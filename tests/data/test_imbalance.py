import numpy as np
import pytest

from tightframe.data import Dataset, load, long_tailed_counts, step_counts, subset


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def rows(dataset: Dataset, k: int) -> set[bytes]:
    return {row.tobytes() for row in dataset.train_inputs[dataset.train_labels == k]}


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda d: subset(d, "100x4,141,10x5"),
            "class 4 wants 141 training samples, digits has 140",
        ),
        (lambda d: subset(d, "10x9"), "counts: got 9 classes, digits has 10"),
        (lambda d: subset(d, "10x1000000000000"), "counts: got 1000000000000 classes"),
        (lambda d: subset(d, "10x10", seed=1.5), "seed: got 1.5"),
        (lambda d: step_counts(10, 100), "ratio, minority: give exactly one"),
        (
            lambda d: step_counts(10, 100, ratio=10, minority=10),
            "ratio, minority: give exactly one",
        ),
        (lambda d: step_counts(10, 100, minority=101), "minority: got 101, more than"),
        (lambda d: step_counts(10, 100, ratio=0.5), "ratio: got 0.5"),
        (lambda d: step_counts(10, 100, ratio="10"), "ratio: got '10'"),
        (lambda d: step_counts(10, 100, ratio=10, fraction=1.0), "fraction: got 1.0"),
        (lambda d: step_counts(1, 100, ratio=10), "num_classes: got 1"),
        (lambda d: long_tailed_counts(10, 0, 10), "majority: got 0"),
        (lambda d: long_tailed_counts(10, 10, float("nan")), "ratio: got nan"),
        (lambda d: long_tailed_counts(10, 10, float("inf")), "ratio: got inf"),
    ],
)
def test_bad_input(digits, call, message):
    with pytest.raises(ValueError, match=message):
        call(digits)
