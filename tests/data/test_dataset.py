import dataclasses

import numpy as np
import pytest

from tightframe.data import Dataset


def tiny(**changes):
    values = {
        "name": "tiny",
        "num_classes": 3,
        "train_inputs": np.zeros((4, 6), np.float32),
        "train_labels": np.array([0, 1, 1, 0]),
        "test_inputs": np.zeros((2, 6), np.float32),
        "test_labels": np.array([2, 2]),
    }
    return Dataset(**values | changes)


def test_counts_have_every_class_and_vectors_are_the_default_shape():
    dataset = tiny()
    assert dataset.train_counts.tolist() == [2, 2, 0]
    assert dataset.test_counts.tolist() == [0, 0, 2]
    assert dataset.input_shape == (6,)
    assert tiny(input_shape=[1, 2, 3]).input_shape == (1, 2, 3)
    assert dataclasses.replace(tiny(input_shape=(1, 2, 3)), name="x").input_shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_inputs": np.zeros((4, 6))}, "train_inputs: got shape .* of float64"),
        ({"test_inputs": np.zeros((2, 3, 2), np.float32)}, r"test_inputs: got shape \(2, 3, 2\)"),
        ({"test_inputs": np.zeros((2, 5), np.float32)}, "test_inputs: got 5 values a row"),
        ({"train_labels": np.array([0, 1, 1])}, r"train_labels: got shape \(3,\).*need \(4,\)"),
        ({"train_labels": np.zeros(4)}, "train_labels: got shape .* of float64"),
        ({"train_labels": np.array([0, 1, -1, 0])}, "train_labels: got -1 at 2, need 0 to 2"),
        ({"test_labels": np.array([0, 3])}, "test_labels: got 3 at 1, need 0 to 2"),
        ({"input_shape": (1, 2, 4)}, r"input_shape: got \(1, 2, 4\), but a row has 6 values"),
        ({"input_shape": (-1, -6)}, "input_shape: got -1"),
        ({"num_classes": 0}, "num_classes: got 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)
