import io
import json
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from tightframe import files


def test_json_has_no_nan(tmp_path):
    value = {"a": np.float64("nan"), "b": [np.inf, np.int64(3)], "c": np.eye(2), "d": tmp_path}
    files.write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert "NaN" not in text
    assert files.read_json(tmp_path / "x.json") == {
        "a": None,
        "b": [None, 3],
        "c": [[1.0, 0.0], [0.0, 1.0]],
        "d": os.fspath(tmp_path),
    }


def test_floats_keep_all_their_digits():
    value = 0.1 + 0.2
    assert json.loads(files.format_json({"x": value}))["x"] == value


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, 1)
    with pytest.raises(TypeError):
        files.write_json(path, object())

    def fail():
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert files.read_json(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_an_unwritable_place_names_the_target(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"x\.json"):
        files.write_json(tmp_path / "file" / "x.json", 1)


def test_npz_round_trip_and_refusals(tmp_path):
    files.write_npz(tmp_path / "x.npz", a=np.arange(3), b=np.eye(2))
    arrays = files.read_arrays(tmp_path / "x.npz")
    assert arrays["a"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="Python objects"):
        files.write_npz(tmp_path / "y.npz", a=np.array([object()]))
    np.savez(tmp_path / "pickled.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"not an \.npz file of arrays"):
        files.read_arrays(tmp_path / "pickled.npz")


def test_a_header_that_announces_more_than_memory_is_refused(tmp_path):
    header = io.BytesIO()
    huge = {"descr": "<f8", "fortran_order": False, "shape": (2**56,)}
    np.lib.format.write_array_header_1_0(header, huge)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"x\.npz: its arrays do not fit into memory"):
        files.read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04broken", b"\xff" * 64])
def test_garbage_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: not a"):
        files.read_arrays(tmp_path / name)


def test_damaged_archives_are_named(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(3))
    (tmp_path / "renamed.npz").write_bytes((tmp_path / "x.npy").read_bytes())
    np.savez_compressed(tmp_path / "whole.npz", a=np.random.default_rng(0).normal(size=1000))
    data = bytearray((tmp_path / "whole.npz").read_bytes())
    data[200:260] = b"\xff" * 60
    (tmp_path / "spoilt.npz").write_bytes(data)
    (tmp_path / "folder.npz").mkdir()
    for name in ("renamed.npz", "spoilt.npz", "folder.npz"):
        with pytest.raises(ValueError, match=name):
            files.read_arrays(tmp_path / name)


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors", "x.json"])
def test_missing_files_are_named(tmp_path, name):
    read = files.read_json if name.endswith("json") else files.read_arrays
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        read(tmp_path / name)


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in '\.pt', need \.npz or \.safetensors"):
        files.read_arrays(tmp_path / "x.pt")


def test_safetensors_with_bfloat16(tmp_path):
    tensors = {"h": torch.ones(2, 3, dtype=torch.bfloat16), "y": torch.tensor([0, 1])}
    save_file(tensors, tmp_path / "x.safetensors")
    arrays = files.read_arrays(tmp_path / "x.safetensors")
    assert arrays["h"].dtype == np.float32
    assert arrays["y"].dtype == np.int64
    assert (arrays["h"] == 1).all()


def test_a_limit_is_checked_before_anything_is_unpacked(tmp_path):
    arrays = {"a": np.zeros(1000), "b": np.ones((10, 10))}
    files.write_npz(tmp_path / "x.npz", **arrays)
    save_file({"a": torch.zeros(1000, dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    assert files.read_npz(tmp_path / "x.npz", limit=10_000)["b"].sum() == 100
    assert len(files.read_arrays(tmp_path / "x.safetensors", limit=4000)["a"]) == 1000
    with pytest.raises(ValueError, match=r"x\.npz: its arrays take 0\.0\d+ MiB unpacked, allowed"):
        files.read_arrays(tmp_path / "x.npz", limit=8000)
    # As float32, which they are read into.
    with pytest.raises(ValueError, match=r"x\.safetensors: its arrays take 0\.0038"):
        files.read_arrays(tmp_path / "x.safetensors", limit=3999)


@pytest.mark.parametrize("shape", [(2**40,), (2**20, 2**20)])
@pytest.mark.parametrize("kind", ["<f8", "|V0"])
def test_with_a_limit_a_header_s_promise_counts(tmp_path, shape, kind):
    header = io.BytesIO()
    values = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, values)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"x\.npz: its arrays take .* unpacked"):
        files.read_npz(tmp_path / "x.npz", limit=2**30)


def test_with_a_limit_a_zip64_directory_is_refused(tmp_path):
    files.write_npz(tmp_path / "x.npz", a=np.zeros(3))
    content = (tmp_path / "x.npz").read_bytes()
    end = content.rfind(b"PK\x05\x06")
    locator = b"PK\x06\x07" + bytes(16)
    (tmp_path / "x.npz").write_bytes(content[:end] + locator + content[end:])
    with pytest.raises(ValueError, match="its zip directory has a 64-bit size"):
        files.read_npz(tmp_path / "x.npz", limit=2**30)


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04broken", b"\xff" * 64])
def test_garbage_is_named_with_a_limit_too(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: not a"):
        files.read_arrays(tmp_path / name, limit=2**20)


# -- whatever a reader raises ----------------------------------------------------------------------

READERS = {
    "x.json": files.read_json,
    "x.npz": files.read_arrays,
    "x.safetensors": files.read_arrays,
    "x.npy": files.read_npy,
    "x.csv": files.read_table,
    "x.parquet": files.read_table,
}


def npy(header):
    """Return a file that NumPy's reader takes for an array with such a header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode("latin-1")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }('\n",  # tokenize.TokenError
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3L,), }\\\n",
        "{'descr': '<f8', 'fortran_order': 0, 'shape': (3,), }\n",
        "{'descr': ('<f8', ('x',)), 'fortran_order': False, 'shape': (3,), }\n",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,), }\n",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True,), }\n",
        "{" * 500 + "\n",
        "-" * 2000 + "1\n",
        "\x00\n",
        "\n",
    ],
)
def test_damaged_headers_are_named(tmp_path, header):
    content = npy(header)
    (tmp_path / "x.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ValueError, match=r"x\.npy: not an \.npy file of numbers") as error:
        files.read_npy(tmp_path / "x.npy")
    assert "\n" not in str(error.value)
    for limit in (None, 2**20):
        with pytest.raises(ValueError, match=r"x\.npz: not an \.npz file of arrays"):
            files.read_npz(tmp_path / "x.npz", limit)


@pytest.mark.filterwarnings("error")
def test_files_of_python_2_are_read_without_a_word(tmp_path):
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2L,), }\n"
    (tmp_path / "x.npy").write_bytes(npy(header) + np.arange(2.0).tobytes())
    assert files.read_npy(tmp_path / "x.npy").tolist() == [0, 1]


def test_an_archive_is_no_array(tmp_path):
    files.write_npz(tmp_path / "x.npz", a=np.eye(2))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"x\.npy: not an \.npy file of numbers \(it is an arch"):
        files.read_npy(tmp_path / "x.npy")


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_named(tmp_path, name):
    arrays = {"labels": np.arange(8), "x": np.eye(3)}
    table = pd.DataFrame({"labels": np.arange(8), "x": ["a", "b"] * 4})
    {
        "x.json": lambda path: files.write_json(path, {"a": [1, {"b": None}], "c": "d"}),
        "x.npz": lambda path: np.savez(path, **arrays),
        "x.safetensors": lambda path: save_file(
            {k: torch.tensor(v) for k, v in arrays.items()}, path
        ),
        "x.npy": lambda path: np.save(path, arrays["x"]),
        "x.csv": lambda path: table.to_csv(path),
        "x.parquet": lambda path: table.to_parquet(path),
    }[name](path := tmp_path / name)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    signs = np.frombuffer(b"(){}[]',:\"\\ \n#019-eEOfix<>|\0\xff", np.uint8)
    refused = 0
    for _ in range(200):
        content = np.frombuffer(whole, np.uint8).copy()
        content[rng.integers(len(content), size=3)] = rng.choice(signs, 3)
        content = np.delete(content, rng.integers(len(content), size=rng.integers(3)))
        path.write_bytes(content.tobytes()[: rng.integers(2) * len(whole) or len(whole)])
        message = refusal(READERS[name], path)
        assert not message or (message.startswith(f"{path}: ") and "\n" not in message)
        refused += bool(message)
    assert refused > 10 or name == "x.csv"


def refusal(read, path):
    """Return what a reader says against a file; nothing where it reads it."""
    try:
        read(path)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("depth", [101, 900, 100_000])
def test_json_is_not_nested_without_end(tmp_path, depth):
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        (tmp_path / "x.json").write_text(opening * depth + "1" + closing * depth)
        with pytest.raises(ValueError, match=r"x\.json: not a JSON file \("):
            files.read_json(tmp_path / "x.json")


def test_json_of_our_own_depth_is_read(tmp_path):
    value = 1
    for _ in range(40):
        value = {"a": [value]}
    files.write_json(tmp_path / "x.json", value)
    assert files.read_json(tmp_path / "x.json") == value


def test_json_with_a_number_without_end_is_named(tmp_path):
    (tmp_path / "x.json").write_text("1" * 5000)
    with pytest.raises(ValueError, match=r"x\.json: not a JSON file"):
        files.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="is no regular file"):
        READERS[name](tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="is a folder, need a file"):
        READERS[name](tmp_path / name)
    (tmp_path / name).rmdir()
    with pytest.raises(ValueError, match="no such file"):
        READERS[name](tmp_path / name)


def test_names_of_arrays(tmp_path):
    files.write_npz(tmp_path / "x.npz", a=np.eye(2), b=np.eye(2))
    assert files.npz_names(tmp_path / "x.npz") == ["a", "b"]
    (tmp_path / "y.npz").write_bytes(b"PK no archive")
    assert files.npz_names(tmp_path / "y.npz") == files.npz_names(tmp_path / "z.npz") == []
