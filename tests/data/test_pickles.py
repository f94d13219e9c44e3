import contextlib
import io
import os
import pickle
import pickletools
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tests.data.files import python2_pickle
from tightframe.data.pickles import read_plain_pickle

plain = st.dictionaries(
    st.text(st.characters(max_codepoint=255), max_size=5),
    st.one_of(
        st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5),
        st.text(st.characters(max_codepoint=255), max_size=300),
        st.booleans(),
        npst.arrays(np.uint8, npst.array_shapes(max_dims=3, min_side=1, max_side=6)),
    ),
    max_size=4,
)


def same(a, b):
    if isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and a.dtype == np.uint8 and np.array_equal(a, b)
    return type(a) is type(b) and a == b


@given(value=plain, protocol=st.sampled_from([2, 3, 4]))
def test_reads_what_python_writes(value, protocol):
    back = read_plain_pickle(pickle.dumps(value, protocol=protocol), "file")
    assert back.keys() == value.keys()
    assert all(same(back[key], value[key]) for key in value)


@given(value=plain)
def test_reads_what_python_2_wrote(value):
    data = python2_pickle(value)
    if any(isinstance(x, np.ndarray) for x in value.values()):
        assert b"numpy.core.multiarray" in data
    back = read_plain_pickle(data, "file")
    assert all(same(back[key], value[key]) for key in value)


def test_reads_the_opcodes_of_a_cifar_file():
    # The opcodes of data_batch_1 in cifar-10-python.tar.gz (Python 2.7, NumPy 1), two images of
    # two bytes.
    data = (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04"
        b"]q\x05(K\x06K\x09eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07"
        b"cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09(K\x01K\x02K\x02\x86cnumpy\ndtype\nq\x0a"
        b"U\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T\x04\x00\x00\x00\x00\x7f\x80\xfftbu."
    )
    # Python's own unpickler agrees.
    assert pickle.loads(data, encoding="latin1")["data"].tolist() == [[0, 127], [128, 255]]
    back = read_plain_pickle(data, "file")
    assert back["batch_label"] == "training batch 1 of 5"
    assert back["labels"] == [6, 9]
    assert back["data"].tolist() == [[0, 127], [128, 255]]


def test_fortran_order():
    array = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    back = read_plain_pickle(pickle.dumps({"data": array}, protocol=2), "file")
    assert np.array_equal(back["data"], array)


class Runs:
    """Unpickled, makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    target = tmp_path / "ran"
    data = pickle.dumps({"data": Runs(target)}, protocol=protocol)
    with pytest.raises(ValueError, match=r"batch: refused, it") as error:
        read_plain_pickle(data, "batch")
    if protocol >= 2:
        assert "refers to 'posix.mkdir'" in str(error.value)
    assert not target.exists()
    pickle.loads(data)  # Python's unpickler does run it: the test can fail
    assert target.exists()


NESTED = b"\x80\x04]\x94" + b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(50))
CALL_EVAL = b"\x80\x02c__builtin__\neval\n(U\x011tR."


@pytest.mark.parametrize(
    "data",
    [
        CALL_EVAL,
        CALL_EVAL.replace(b"__builtin__\neval", b"numpy\nload"),
        CALL_EVAL.replace(b"__builtin__\neval", b"numpy.core.multiarray\nfromfile"),
        b"\x80\x04\x8c\x05numpy\x8c\x04load\x93(tR.",
        b"\x80\x02i__builtin__\neval\n.",  # INST
        b"\x80\x02(cnumpy\nndarray\no.",  # OBJ
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pid\n.",  # PERSID
        b"\x80\x02cnumpy\nndarray\nK\x01\x85R.",  # ndarray itself is only named, never called
        b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.",  # Python objects
        b"\x80\x02c_codecs\nencode\nU\x01aU\x03rot\x86R.",  # any other codec
        b"\x80\x02c_codecs\nencode\n}b.",  # state of a function
        b"\x80\x02}((tK\x01u.",  # a tuple as a key
        b"\x80\x02K\x01K\x02a.",  # append to a number
        NESTED + b"]\x93.",  # names that are no strings, but 2**50 lists if written out
    ],
)
def test_everything_else_is_refused(data):
    with pytest.raises(ValueError, match="file: refused"):
        read_plain_pickle(data, "file")


@pytest.mark.parametrize(
    "data",
    [b"", b".", b"\x80\x02", b"\x80\x02}", b"\x80\x02].", b"\x80\x02R.", b"\x80\x02h\x05."],
)
def test_damaged_pickles_are_refused(data):
    with pytest.raises(ValueError, match=r"^file: "):
        read_plain_pickle(data, "file")


GOOD = pickle.dumps({"labels": [1, 2], "data": np.zeros((2, 3), np.uint8)}, protocol=2)


@given(st.data())
def test_a_damaged_file_never_ends_in_anything_but_a_value_error(data):
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        read_plain_pickle(bytes(raw), "file")


def test_the_shape_must_be_that_of_the_bytes():
    shape = b"K\x02K\x03\x86"
    assert GOOD.count(shape) == 1
    for wrong in (b"K\x02K\x04\x86", b"K\x02K\x02\x86"):
        with pytest.raises(ValueError, match="another number of bytes than its shape says"):
            read_plain_pickle(GOOD.replace(shape, wrong), "file")


def test_memory_stays_with_what_the_file_holds():
    # One string, encoded a thousand times over; and a memo index that an array would have to hold.
    text = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x00"
    encode = b"c_codecs\nencode\nh\x00U\x06latin1\x86R"
    again = b"\x80\x02" + text + encode * 1000 + b"."
    sparse = b"\x80\x02}r\xff\xff\xff\xff."
    pickletools.dis(sparse, out=io.StringIO())  # well-formed
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpacks into more than it holds"):
        read_plain_pickle(again, "file")
    assert read_plain_pickle(sparse, "file") == {}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e7
