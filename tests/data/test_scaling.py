import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightframe.data import Dataset, load, standardize
from tightframe.data import rows as rows_module
from tightframe.data.rows import as_rows


def dataset(train, test, shape):
    return Dataset(
        "made",
        2,
        train.reshape(len(train), math.prod(shape)).astype(np.float32),
        np.arange(len(train)) % 2,
        test.reshape(len(test), math.prod(shape)).astype(np.float32),
        np.arange(len(test)) % 2,
        shape,
    )


def test_bytes_come_to_the_nearest_float_of_their_255th():
    rows = as_rows("x", np.arange(256, dtype=np.uint8).reshape(2, 2, 8, 8))
    assert rows.dtype == np.float32
    assert rows.shape == (2, 128)
    assert np.array_equal(rows.ravel(), (np.arange(256) / 255).astype(np.float32))


def test_other_types_keep_their_values_and_float32_is_not_copied():
    assert as_rows("x", np.array([[-3, 300]], np.int16)).tolist() == [[-3, 300]]
    assert as_rows("x", np.array([[True], [False]])).tolist() == [[1], [0]]
    x = np.ones((3, 2, 2), np.float32)
    assert np.shares_memory(as_rows("x", x), x)
    assert as_rows("x", np.zeros((0, 3, 3), np.uint8)).shape == (0, 9)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1.0], [np.nan]]), "name: NaN or infinite"),
        (np.array([[1e39]]), "name: NaN or infinite in float32"),
        (np.array([[1j]]), "name: got complex128, need real numbers"),
        (np.array([["a"]]), "name: got <U1"),
    ],
)
def test_what_is_no_finite_number_is_refused(array, message):
    with pytest.raises(ValueError, match=message):
        as_rows("name", array)


@given(
    shape=st.sampled_from([(3,), (1, 2, 3), (3, 2, 2)]),
    offset=st.sampled_from([0.0, 1.0, 1000.0]),
    block=st.sampled_from([1, 7, 2**22]),
    seed=st.integers(0, 99),
)
def test_standardize_against_two_passes_in_float64(shape, offset, block, seed):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 3, (shape[0], *[1] * (len(shape) - 1)))
    train = (offset + scale * rng.standard_normal((11, *shape))).astype(np.float32)
    test = (offset + scale * rng.standard_normal((5, *shape))).astype(np.float32)
    before = train.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "_CHUNK_VALUES", block)
        ours = standardize(dataset(train, test, shape))
    axes = (0, *range(2, len(shape) + 1))
    mean = train.astype(np.float64).mean(axis=axes, keepdims=True)
    deviation = train.astype(np.float64).std(axis=axes, keepdims=True)
    for rows, source in ((ours.train_inputs, train), (ours.test_inputs, test)):
        expected = ((source.astype(np.float64) - mean) / deviation).reshape(len(source), -1)
        assert np.allclose(rows, expected, rtol=1e-6, atol=1e-6)
    assert ours.input_shape == shape
    assert np.array_equal(train, before)


def test_a_constant_channel_is_centred_with_a_warning():
    rng = np.random.default_rng(0)
    train = rng.standard_normal((8, 2, 2, 2))
    train[:, 1] = 0.1  # no binary fraction: its mean is rounded
    test = rng.standard_normal((3, 2, 2, 2))
    with pytest.warns(RuntimeWarning, match="1 of 2 channels are constant"):
        ours = standardize(dataset(train, test, (2, 2, 2)))
    assert np.abs(ours.train_inputs.reshape(8, 2, 4)[:, 1]).max() < 1e-8
    tests = ours.test_inputs.reshape(3, 2, 4)[:, 1]
    assert np.allclose(tests, test[:, 1].reshape(3, 4) - 0.1, atol=1e-6)


def test_no_samples():
    rng = np.random.default_rng(0)
    train = rng.standard_normal((4, 3))
    assert standardize(dataset(train, train[:0], (3,))).test_inputs.shape == (0, 3)
    with pytest.raises(ValueError, match="made has no training sample"):
        standardize(dataset(train[:0], train, (3,)))


def test_digits_are_one_channel():
    digits = standardize(load("digits"))
    assert digits.train_inputs.mean(dtype=np.float64) == pytest.approx(0, abs=1e-7)
    assert digits.train_inputs.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)
