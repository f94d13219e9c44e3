import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from tests.data import files
from tightframe.data import cifar, load
from tightframe.data.archives import read_members

pytestmark = pytest.mark.usefixtures("no_places")


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_every_form_reads_the_same(tmp_path, num_classes, binary, packed):
    batches = files.write_cifar(tmp_path, num_classes, binary=binary, packed=packed)
    dataset = load(f"cifar{num_classes}", root=tmp_path)
    pixels = np.concatenate([pixels for pixels, _ in batches[:-1]])
    labels = np.concatenate([labels for _, labels in batches[:-1]])
    assert np.array_equal(dataset.train_inputs, (pixels / 255.0).astype(np.float32))
    assert np.array_equal(dataset.train_labels, labels)
    assert np.array_equal(dataset.test_inputs, (batches[-1][0] / 255.0).astype(np.float32))
    assert np.array_equal(dataset.test_labels, batches[-1][1])
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.num_classes == num_classes


def test_planes_are_channels(tmp_path):
    # One image: red 10, green 20, blue 30, and one pixel in the second row, third column of green.
    plane = np.zeros((3, 32, 32), np.uint8) + np.array([10, 20, 30], np.uint8)[:, None, None]
    plane[1, 1, 2] = 255
    batch = (plane.reshape(1, -1), np.array([3]))
    folder, names = files.cifar_names(10, binary=True)
    (tmp_path / folder).mkdir()
    for name in names:
        (tmp_path / folder / name).write_bytes(files.cifar_binary(*batch, 10))
    dataset = load("cifar10", root=tmp_path)
    image = dataset.train_inputs[0].reshape(dataset.input_shape)
    assert np.allclose(image[:, 0, 0], np.array([10, 20, 30]) / 255)
    assert image[1, 1, 2] == 1


def test_python_3_pickles_of_the_same_content(tmp_path):
    batch = files.cifar_batches(100)[0]
    for protocol in (2, 3, 4):
        data = files.cifar_pickle(*batch, 100, lambda x, p=protocol: pickle.dumps(x, protocol=p))
        samples = cifar.CIFAR100_PYTHON._samples(data, "train")
        assert np.array_equal(samples.inputs.reshape(-1, 3072), batch[0])
        assert np.array_equal(samples.labels, batch[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "has 61459 bytes, need records of 3073"),
        (lambda data: b"", "has no sample"),
        (lambda data: data[:3073] + b"\x0a" + data[3074:], "label: got 10 at 1, need 0 to 9"),
    ],
)
def test_damaged_binary_files_are_named(tmp_path, change, message):
    files.write_cifar(tmp_path, 10, binary=True, packed=False)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        load("cifar10", root=tmp_path)
    assert str(error.value).startswith(str(path))


PIXELS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": PIXELS}, "'fine_labels' is no list of 2 whole numbers"),
        ({"data": PIXELS, "fine_labels": [1]}, "'fine_labels' is no list of 2 whole numbers"),
        ({"data": PIXELS, "fine_labels": [1, "a"]}, "'fine_labels' is no list of 2"),
        ({"data": PIXELS, "fine_labels": [1, True]}, "'fine_labels' is no list of 2"),
        ({"data": PIXELS, "fine_labels": [1, 100]}, "label: got 100 at 1, need 0 to 99"),
        ({"data": PIXELS, "fine_labels": [-1, 0]}, "fine_labels': got -1 at 0"),
        (
            {"data": PIXELS[:, 1:], "fine_labels": [1, 2]},
            r"'data' is no array of shape \(N, 3072\)",
        ),
        ({"fine_labels": [1, 2]}, "'data' is no array"),
        ({"data": PIXELS[:0], "fine_labels": []}, "has no sample"),
        ({"data": PIXELS.astype("i4"), "fine_labels": [1, 2]}, "refused, its array has another"),
        ([1], "it holds a list, need a dict"),
    ],
)
def test_damaged_python_files_are_named(tmp_path, content, message):
    files.write_cifar(tmp_path, 100, binary=False, packed=False)
    path = tmp_path / "cifar-100-python" / "train"
    path.write_bytes(files.python2_pickle(content))
    with pytest.raises(ValueError, match=message) as error:
        load("cifar100", root=tmp_path)
    assert str(error.value).startswith(str(path))


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("packed", [True, False])
def test_a_malicious_batch_is_refused_and_not_run(tmp_path, packed):
    target = tmp_path / "ran"
    folder, names = files.cifar_names(10, binary=False)
    data = pickle.dumps({"data": Runs(target), "labels": []}, protocol=2)
    if packed:
        files.tar_gz(
            tmp_path / "cifar-10-python.tar.gz", [(f"{folder}/{name}", data) for name in names]
        )
    else:
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=r"data_batch_1: refused, it refers to 'posix.mkdir'"):
        load("cifar10", root=tmp_path)
    assert not target.exists()


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a/x", b"1")], "has no a/y$"),
        ([("../a/x", b"1"), ("/a/x", b"1"), ("./a/x", b"1"), ("b/a/x", b"1")], "has no a/x, a/y$"),
        ([("a/x", b"1"), ("a/y", b"2"), ("a/x", b"3")], "a/x is double or not a plain file"),
        ([(link("a/x", "/etc/passwd"), b""), ("a/y", b"2")], "a/x is double or not a plain file"),
        ([("a/y", b""), (link("a/x", "a/y", tarfile.LNKTYPE), b"")], "a/x is double or not"),
        ([(link("a/x", "", tarfile.FIFOTYPE), b""), ("a/y", b"2")], "a/x is double or not"),
    ],
)
def test_archive_members_are_matched_exactly_and_plain(tmp_path, members, message):
    path = files.tar_gz(tmp_path / "x.tar.gz", members)
    with pytest.raises(ValueError, match=message) as error:
        read_members(path, ["a/x", "a/y"])
    assert str(error.value).startswith(str(path))
    assert os.listdir(tmp_path) == ["x.tar.gz"]


def test_archive_reads_members_in_any_order_and_leaves_the_rest(tmp_path):
    path = files.tar_gz(
        tmp_path / "x.tar.gz", [("a/y", b"2"), ("../b", b"?"), ("a/x", b"1" * 9999)]
    )
    assert read_members(path, ["a/x", "a/y"]) == {"a/x": b"1" * 9999, "a/y": b"2"}
    assert os.listdir(tmp_path) == ["x.tar.gz"]


def test_archive_that_unpacks_into_too_much_is_stopped(tmp_path):
    path = files.tar_gz(tmp_path / "x.tar.gz", [("big", bytes(10**6)), ("a/x", b"1")])
    assert path.stat().st_size < 10**4
    assert read_members(path, ["a/x"], max_bytes=2 * 10**6) == {"a/x": b"1"}
    with pytest.raises(ValueError, match="unpacks into more than is accepted"):
        read_members(path, ["a/x"], max_bytes=10**6)


def test_damaged_archives_are_named(tmp_path):
    good = files.tar_gz(tmp_path / "x.tar.gz", [("a/x", os.urandom(30000))]).read_bytes()
    path = tmp_path / "damaged.tar.gz"
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w:gz").close()
    for data in (b"", b"not gzip", good[:1000], good[:-20], good[:20], empty.getvalue()):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"damaged\.tar\.gz: "):
            read_members(path, ["a/x"])
    with pytest.raises(ValueError, match="no such file"):
        read_members(tmp_path / "absent.tar.gz", ["a/x"])
