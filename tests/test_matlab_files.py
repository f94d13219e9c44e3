"""MATLAB's files are read as they were written; of damaged ones an error is all that comes."""

import numpy as np
import pytest
from scipy.io import savemat

from tightframe.matlab_files import HDF5Error, variables

RNG = np.random.default_rng(0)
WIDE = RNG.normal(size=(5, 3))
NUMBERS = {
    "double": WIDE,
    "single": WIDE.astype(np.float32),
    "row": np.arange(7.0)[None],
    "column": np.arange(7.0)[:, None],
    "file": np.array([[3.5]]),
    **{f"i{n}": (np.arange(6).reshape(2, 3) - 3).astype(f"i{n}") for n in (1, 2, 4, 8)},
}
NESTED = {"net": {"weight": WIDE, "deep": {"names": np.array(["a", "bc"], dtype=object)}}}


def test_numbers_texts_and_structs(tmp_path):
    texts = {"cells": np.array(["cat", "", "日本"], dtype=object), "word": "horse"}
    savemat(tmp_path / "a.mat", NUMBERS | texts | NESTED, do_compression=True)
    found = variables(tmp_path / "a.mat")
    for name, array in NUMBERS.items():
        assert np.array_equal(found[name], array.ravel() if 1 in array.shape else array)
        assert found[name].dtype == array.dtype
    assert found["cells"].tolist() == ["cat", "", "日本"]
    assert found["word"].tolist() == ["horse"]
    assert np.array_equal(found["net.weight"], WIDE)
    assert found["net.deep.names"].tolist() == ["a", "bc"]
    assert len(found) == len(NUMBERS) + 4


@pytest.mark.parametrize("value", [241, 0])
def test_a_type_that_there_is_none_of_is_an_error(value, tmp_path):
    """SciPy takes it for a place in memory, and its process ends."""
    path = tmp_path / "a.mat"
    savemat(path, {"a": WIDE})
    content = bytearray(path.read_bytes())
    content[content.index(np.array([9, WIDE.nbytes], dtype="<u4").tobytes())] = value
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="it is damaged"):
        variables(path)


@pytest.mark.parametrize("content", [b"", b"no file of MATLAB's", bytes(200)])
def test_what_is_none_is_an_error(content, tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="it is damaged"):
        variables(path)


def test_hdf5_is_called_that(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 7.3".ljust(124) + b"\x00\x02IM" + bytes(100))
    with pytest.raises(HDF5Error):
        variables(path)
