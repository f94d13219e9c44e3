import numpy as np
import pytest

from tightframe.data import load, names


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_digits_has_140_training_samples_a_class_and_tests_on_the_rest(digits):
    assert digits.train_counts.tolist() == [140] * 10
    assert digits.test_counts.sum() == 1797 - 1400
    assert digits.test_counts.min() >= 34


def test_digits_types_and_range(digits):
    for inputs, labels in (
        (digits.train_inputs, digits.train_labels),
        (digits.test_inputs, digits.test_labels),
    ):
        assert (inputs.dtype, labels.dtype) == (np.float32, np.int64)
        assert inputs.shape == (len(labels), 64)
        assert inputs.min() == 0
        assert inputs.max() == 1


def test_split_is_a_partition_of_the_source(digits):
    from sklearn.datasets import load_digits

    images, _ = load_digits(return_X_y=True)
    ours = np.concatenate([digits.train_inputs, digits.test_inputs]) * 16
    assert np.array_equal(np.sort(ours, axis=0), np.sort(images, axis=0))


def test_split_depends_on_the_seed_alone(digits):
    again, other = load("digits"), load("digits", seed=1)
    assert np.array_equal(again.train_inputs, digits.train_inputs)
    assert not np.array_equal(other.train_inputs, digits.train_inputs)


def test_names():
    assert "digits" in names()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "mnist"}, "data: got 'mnist', allowed are digits"),
        ({"name": None}, "data: got None"),
        ({"name": "digits", "train_per_class": 174}, "class 8 of digits has 174 samples"),
        ({"name": "digits", "train_per_class": 0}, "train_per_class: got 0"),
        ({"name": "digits", "train_per_class": 1.5}, "train_per_class: got 1.5"),
        ({"name": "digits", "seed": -1}, "seed: got -1"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        load(**kwargs)
