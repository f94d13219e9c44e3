import numpy as np
import pytest

from tightframe.data import gaussian_mixture


def test_shapes_and_classes():
    mixture = gaussian_mixture(3, 5, 4, test_per_class=2)
    assert mixture.train_inputs.shape == (12, 5)
    assert mixture.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert mixture.test_counts.tolist() == [2, 2, 2]
    assert mixture.input_shape == (5,)


def test_moments_are_those_of_the_mixture():
    means = 3 * np.eye(2, 4)
    mixture = gaussian_mixture(2, 4, 40_000, means=means, separation=2.0, noise=0.5, seed=1)
    for k in range(2):
        inputs = mixture.train_inputs[mixture.train_labels == k].astype(np.float64)
        # Standard errors: 0.5 / 200 of the mean, 0.25 sqrt(2) / 200 of a variance.
        assert np.abs(inputs.mean(axis=0) - 2 * means[k]).max() < 5 * 0.5 / 200
        assert np.abs(np.cov(inputs.T) - 0.25 * np.eye(4)).max() < 5 * 0.25 * 1.5 / 200


def test_means_have_the_length_that_was_asked_for():
    mixture = gaussian_mixture(10, 32, 1, test_per_class=1, noise=0.0, separation=7.0)
    assert np.allclose(np.linalg.norm(mixture.train_inputs, axis=1), 7)
    assert np.array_equal(mixture.train_inputs, mixture.test_inputs)
    cosines = mixture.train_inputs @ mixture.train_inputs.T / 49
    assert np.abs(cosines - np.eye(10)).max() < 0.8  # ten different directions
    etf = np.eye(4) - 1 / 4
    frame = gaussian_mixture(4, 4, 1, means=etf, separation=2.0, noise=0.0)
    assert np.allclose(frame.train_inputs, 2 * etf)


def test_seeds_and_nesting():
    few, many = gaussian_mixture(train_per_class=5), gaussian_mixture(train_per_class=9)
    assert np.array_equal(few.test_inputs, many.test_inputs)
    for k in range(10):
        ours = few.train_inputs[few.train_labels == k]
        assert np.array_equal(ours, many.train_inputs[many.train_labels == k][:5])
    assert not np.array_equal(few.test_inputs, gaussian_mixture(seed=1).test_inputs)
    assert not np.array_equal(few.train_inputs[:5], few.test_inputs[:5])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_classes": 1}, "num_classes: got 1"),
        ({"dim": 0}, "dim: got 0"),
        ({"train_per_class": 0}, "train_per_class: got 0"),
        ({"test_per_class": 1.5}, "test_per_class: got 1.5"),
        ({"separation": -1}, "separation: got -1"),
        ({"noise": float("nan")}, "noise: got nan"),
        ({"noise": True}, "noise: got True"),
        ({"noise": 1e300}, "not finite in float32"),
        ({"means": np.zeros((3, 3))}, r"means: got shape \(3, 3\) of float64, need \(10, 32\)"),
        ({"means": np.full((10, 32), np.inf)}, "means: NaN or infinite"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        gaussian_mixture(**kwargs)
