"""MATLAB's files are read as SciPy reads them; of damaged ones an error is all that comes."""

import io

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from tightframe.matlab_files import variables

RNG = np.random.default_rng(0)
WIDE = RNG.normal(size=(5, 3))
NUMBERS = {
    "double": WIDE,
    "single": WIDE.astype(np.float32),
    "complex": WIDE + 1j * WIDE[::-1],
    "row": np.arange(7.0)[None],
    "column": np.arange(7.0)[:, None],
    "number": 3.5,
    "cube": RNG.normal(size=(1, 2, 3)),
    **{f"u{n}": np.arange(6).reshape(2, 3).astype(f"u{n}") for n in (1, 2, 4, 8)},
    **{f"i{n}": (np.arange(6).reshape(2, 3) - 3).astype(f"i{n}") for n in (1, 2, 4, 8)},
    "logical": np.array([[True, False], [False, True]]),
    "nothing": np.zeros((0, 3)),
}
TEXTS = {
    "cells": np.array(["cat", "", "日本"], dtype=object),
    "letters": np.array(["cat", "horse", "ox"]),
    "word": "horse",
}
NESTED = {"net": {"weight": WIDE, "deep": {"names": np.array(["a", "bc"], dtype=object)}}}


def written(arrays, **options):
    stream = io.BytesIO()
    savemat(stream, arrays, oned_as="column", **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}])
def test_numbers_are_those_that_scipy_reads(options):
    old = "format" in options
    arrays = {k: v for k, v in NUMBERS.items() if not old or k in ("double", "single", "complex")}
    content = written(arrays, **options)
    found, expected = variables(content), loadmat(io.BytesIO(content))
    assert list(found) == list(arrays)
    for name, array in found.items():
        other = expected[name]
        assert np.array_equal(array, other.ravel() if array.ndim == 1 else other)
        assert array.dtype == other.dtype


def test_texts_and_structs():
    found = variables(written(TEXTS | NESTED))
    assert {name: found[name].tolist() for name in TEXTS} == {
        "cells": ["cat", "", "日本"],
        "letters": ["cat", "horse", "ox"],
        "word": ["horse"],
    }
    assert np.array_equal(found["net.weight"], WIDE)
    assert found["net.deep.names"].tolist() == ["a", "bc"]
    assert len(found) == 5
    assert variables(written({"a": "cat"}, format="4"))["a"].tolist() == ["cat"]


def test_a_type_that_there_is_none_of_is_an_error():
    """SciPy takes it for a place in memory, and the process ends."""
    content = bytearray(written({"a": WIDE}))
    place = content.index(np.array([9, WIDE.nbytes], dtype="<u4").tobytes())
    content[place] = 241
    with pytest.raises(ValueError, match="numbers of type 241"):
        variables(bytes(content))


def test_damaged_files_give_variables_or_an_error():
    rng = np.random.default_rng(1)
    good = [written(TEXTS | NESTED | {"a": WIDE}, do_compression=c) for c in (False, True)]
    good.append(written({"a": WIDE, "b": "cat"}, format="4"))
    said = []
    for i in range(600):
        content = bytearray(good[i % 3])
        for place in rng.integers(0, min(len(content), 900), size=1 + i % 4):
            content[place] = rng.integers(256)
        cut = len(content) if i % 5 else rng.integers(len(content))
        try:
            variables(bytes(content[:cut]))
        except ValueError as error:
            said.append(str(error) or type(error).__name__)
    assert 100 < len(said) < 600
    assert all(said)
