"""SVHN out of MATLAB files as its page has them: X (32, 32, 3, N), y with 10 for the digit 0."""

import numpy as np
import pytest

from tests.data import files
from tightframe.data import load

pytestmark = pytest.mark.usefixtures("no_places")


def test_images_and_digits_are_those_of_the_files(no_places):
    (images, digits), (test, _) = files.write_svhn(no_places / "svhn")
    dataset = load("svhn")
    assert (dataset.num_classes, dataset.input_shape) == (10, (3, 32, 32))
    found = dataset.train_inputs.reshape(-1, 3, 32, 32)
    for n, channel, row, column in ((0, 0, 0, 0), (7, 2, 5, 11), (19, 1, 31, 4)):
        expected = images[row, column, channel, n] / 255
        assert found[n, channel, row, column] == pytest.approx(expected, abs=1e-6)
    expected = test[3, 2, 1, 0] / 255
    assert dataset.test_inputs.reshape(-1, 3, 32, 32)[0, 1, 3, 2] == pytest.approx(expected)
    assert dataset.train_labels.tolist() == [0 if digit == 10 else digit for digit in digits]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Z"}, r"train_32x32\.mat: 'X' is no array of uint8 of shape \(32, 32, 3, N\)"),
        ({"dtype": np.float64}, r"train_32x32\.mat: 'X' is no array of uint8"),
        ({"last": 11}, r"train_32x32\.mat: digit: got 10 at 10, need 0 to 9"),
    ],
)
def test_what_is_no_svhn_is_refused(tmp_path, changes, message):
    files.write_svhn(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load("svhn", root=tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    files.write_svhn(tmp_path)
    (tmp_path / "test_32x32.mat").write_bytes(b"no MATLAB")
    with pytest.raises(ValueError, match=r"test_32x32\.mat"):
        load("svhn", root=tmp_path)
