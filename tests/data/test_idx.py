import gzip
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tests.data.files import IDX_CODES, idx_bytes
from tightframe.data.idx import read_idx

arrays = st.sampled_from(sorted(IDX_CODES)).flatmap(
    lambda code: npst.arrays(
        np.dtype(code), npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)
    )
)


@given(array=arrays, packed=st.booleans())
def test_round_trip(tmp_path_factory, array, packed):
    path = tmp_path_factory.mktemp("idx") / "file"
    data = idx_bytes(array)
    path.write_bytes(gzip.compress(data) if packed else data)
    back = read_idx(path)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.dtype.isnative
    assert back.tobytes() == array.tobytes()  # NaN too


def test_bytes_of_the_published_description(tmp_path):
    # http://yann.lecun.com/exdb/mnist: magic, sizes most significant byte first, then the values.
    path = tmp_path / "file"
    path.write_bytes(bytes.fromhex("00000B02 00000002 00000003 0001 0100 FFFF 7FFF 8000 0000"))
    assert read_idx(path).tolist() == [[1, 256, -1], [32767, -32768, 0]]


GOOD = idx_bytes(np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\x01" + GOOD[1:], "not an IDX file"),
        (GOOD[:2] + b"\x0a" + GOOD[3:], "IDX type 0x0A, allowed are 0x08, 0x09, 0x0B"),
        (GOOD[:3] + b"\0" + GOOD[4:], "of 0 dimensions"),
        (GOOD[:3] + b"\xff" + GOOD[4:], "of 255 dimensions"),
        (GOOD[:9], "ends within its IDX header"),
        (GOOD[:-1], r"6 bytes of shape \(2, 3\), the file has 5"),
        (GOOD + b"\0", r"6 bytes of shape \(2, 3\), the file has more"),
        (b"\0\0\x08\x02" + b"\xff" * 8 + b"1234", "takes 18446744065119617025 bytes, at most"),
        # Announces 2 GiB less a little and has 4 bytes: nothing of that size is allocated.
        (b"\0\0\x08\x01" + struct.pack(">I", 2**31 - 1) + b"1234", "the file has 4"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_hostile_files_are_refused_by_name(tmp_path, data, message, packed):
    path = tmp_path / "hostile-idx"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(path)
    assert str(error.value).startswith(str(path))


def test_damaged_gzip_is_refused_by_name(tmp_path):
    path = tmp_path / "damaged.gz"
    whole = gzip.compress(GOOD)
    for data in (whole[:-9], whole[:12] + b"\xff" * 8 + whole[20:], whole[:-8] + b"\0" * 8):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"damaged\.gz: "):
            read_idx(path)


def test_a_small_gzip_does_not_unpack_into_a_large_array(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(GOOD + bytes(50_000_000)))
    with pytest.raises(ValueError, match="the file has more"):
        read_idx(path)
    path.write_bytes(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 2000) + bytes(2000)))
    with pytest.raises(ValueError, match="takes 2000 bytes, at most 1999 are read"):
        read_idx(path, max_bytes=1999)
    assert read_idx(path, max_bytes=2000).shape == (2000,)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait forever
    for name in ("pipe", "absent", "."):
        with pytest.raises(ValueError, match="no such file"):
            read_idx(tmp_path / name)
