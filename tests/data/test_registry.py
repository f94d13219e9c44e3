import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data import files
from tightframe.data import images, load, names, subset
from tightframe.data.registry import check_name


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_digits_has_140_training_samples_a_class_and_tests_on_the_rest(digits):
    assert digits.train_counts.tolist() == [140] * 10
    assert digits.test_counts.sum() == 1797 - 1400
    assert digits.test_counts.min() >= 34
    assert digits.input_shape == (1, 8, 8)


def test_digits_types_and_range(digits):
    for inputs, labels in (
        (digits.train_inputs, digits.train_labels),
        (digits.test_inputs, digits.test_labels),
    ):
        assert (inputs.dtype, labels.dtype) == (np.float32, np.int64)
        assert inputs.shape == (len(labels), 64)
        assert inputs.min() == 0
        assert inputs.max() == 1


def test_split_is_a_partition_of_the_source(digits):
    from sklearn.datasets import load_digits

    images, _ = load_digits(return_X_y=True)
    ours = np.concatenate([digits.train_inputs, digits.test_inputs]) * 16
    assert np.array_equal(np.sort(ours, axis=0), np.sort(images, axis=0))


def test_split_depends_on_the_seed_alone(digits):
    again, other = load("digits"), load("digits", seed=1)
    assert np.array_equal(again.train_inputs, digits.train_inputs)
    assert not np.array_equal(other.train_inputs, digits.train_inputs)


def test_names(tmp_path):
    assert set(names()) == {
        *("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"),
        "gaussian_mixture",
    }
    assert [check_name(name) for name in names()] == list(names())
    assert check_name("some.npz") == "some.npz"
    assert check_name(tmp_path) == str(tmp_path)
    assert check_name("folder/of/arrays") == "folder/of/arrays"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "imagenet"}, "data: got 'imagenet', allowed are digits, mnist, fashion_mnist"),
        ({"name": None}, "data: got None"),
        ({"name": "digits", "train_per_class": 174}, "class 8 of digits has 174 samples"),
        ({"name": "digits", "train_per_class": 0}, "train_per_class: got 0"),
        ({"name": "digits", "train_per_class": 1.5}, "train_per_class: got 1.5"),
        ({"name": "digits", "seed": -1}, "seed: got -1"),
        ({"name": "mnist", "seed": -1}, "seed: got -1"),
        ({"name": "mnist", "root": "/nowhere"}, "root: got '/nowhere', which is no folder"),
        ({"name": "mnist", "root": 3}, "root: got 3"),
        ({"name": "mnist", "download": "no"}, "download: got 'no', need True or False"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        load(**kwargs)


def test_gaussian_mixture_by_name():
    few = load("gaussian_mixture", train_per_class=7, seed=3)
    assert few.train_counts.tolist() == [7] * 10
    many = load("gaussian_mixture", seed=3)
    assert many.train_counts.tolist() == [100] * 10
    assert np.array_equal(many.test_inputs, few.test_inputs)


# -- image files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["dots", "Kaggle", "Kaggle's dots"])
def test_mnist_under_other_names(no_places, form, packed):
    train = files.write_mnist(no_places / "mnist", packed=packed)[0]
    for path in list((no_places / "mnist").iterdir()):
        name = path.name if form == "Kaggle" else path.name.replace("-idx", ".idx")
        place = path.with_name(name)
        if form != "dots":
            folder = path.with_name(path.name.removesuffix(".gz"))
            path = path.rename(path.with_name("moved"))
            folder.mkdir()
            place = folder / name
        path.rename(place)
    assert np.array_equal(load("mnist").train_inputs.reshape(train.shape), train / np.float32(255))


def test_classes_with_names(no_places):
    files.write_mnist(no_places / "fashion_mnist")
    fashion = load("fashion_mnist")
    assert fashion.class_names[6] == "Shirt"
    some = subset(fashion, {name: 1 + (name == "Shirt") for name in fashion.class_names})
    assert some.train_counts.tolist() == [1] * 6 + [2] + [1] * 3
    with pytest.raises(ValueError, match="counts: got the key 'Skirt', need the names T-shirt/top"):
        subset(fashion, {"Skirt": 1})


def test_a_pointer_is_called_that(no_places):
    files.write_mnist(no_places / "mnist")
    place = no_places / "mnist" / "train-labels-idx1-ubyte"
    place.write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 3\n")
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte: is a Git LFS pointer"):
        load("mnist")


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_keeps_its_split_and_order(no_places, packed):
    train, train_labels, test, test_labels = files.write_mnist(no_places / "mnist", packed=packed)
    dataset = load("mnist", seed=5)
    assert np.array_equal(dataset.train_inputs, (train / 255).reshape(40, 20).astype(np.float32))
    assert np.array_equal(dataset.test_inputs, (test / 255).reshape(20, 20).astype(np.float32))
    assert np.array_equal(dataset.train_labels, train_labels)
    assert np.array_equal(dataset.test_labels, test_labels)
    assert (dataset.name, dataset.num_classes, dataset.input_shape) == ("mnist", 10, (1, 4, 5))


def test_train_per_class_is_a_choice_by_seed_that_keeps_the_test_samples(no_places):
    files.write_mnist(no_places / "mnist")
    whole = load("mnist")
    some = load("mnist", train_per_class=3, seed=1)
    assert some.train_counts.tolist() == [3] * 10
    assert np.array_equal(some.test_inputs, whole.test_inputs)
    rows = {row.tobytes() for row in whole.train_inputs}
    assert all(row.tobytes() in rows for row in some.train_inputs)
    again, other = (load("mnist", train_per_class=3, seed=seed) for seed in (1, 2))
    assert np.array_equal(again.train_inputs, some.train_inputs)
    assert not np.array_equal(other.train_inputs, some.train_inputs)
    every = load("mnist", train_per_class=4)
    assert np.array_equal(every.train_inputs, whole.train_inputs)
    with pytest.raises(ValueError, match="train_per_class: got 5; class 0 of mnist has 4 training"):
        load("mnist", train_per_class=5)


def first_pixel(name, **kwargs):
    return load(name, **kwargs).train_inputs[0, 0] * 255


def test_places_are_searched_in_order(no_places, tmp_path, monkeypatch):
    def write(folder, seed):
        return files.write_mnist(folder, seed=seed)[0][0, 0, 0]

    variable, root = tmp_path / "variable", tmp_path / "root"
    cached = write(no_places / "mnist", 1)
    assert first_pixel("mnist") == pytest.approx(cached)
    monkeypatch.setenv("TIGHTFRAME_DATA", str(variable))
    assert first_pixel("mnist") == pytest.approx(cached)  # not there yet
    named = write(variable / "MNIST" / "raw", 2)  # as torchvision lays it out
    assert first_pixel("mnist") == pytest.approx(named)
    inner = write(root / "mnist", 3)
    assert first_pixel("mnist", root=root) == pytest.approx(inner)
    assert first_pixel("mnist", root=str(root / "mnist")) == pytest.approx(inner)
    assert len({int(cached), int(named), int(inner)}) == 3


def test_home_is_the_cache_where_xdg_says_nothing(no_places, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    files.write_mnist(tmp_path / "home" / ".cache" / "tightframe" / "mnist")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert len(load("mnist").train_labels) == 40
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert len(load("mnist").train_labels) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="looks up the user by number")
def test_without_a_home_there_is_no_cache(no_places, tmp_path, monkeypatch):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="this user has no home folder, and so no cache"):
        load("mnist")
    with pytest.raises(ValueError, match="mnist can be downloaded to no place"):
        load("mnist", download=True)
    with pytest.raises(ValueError, match="root: got '~/sets', but there is no such home"):
        load("mnist", root="~/sets")
    monkeypatch.setenv("TIGHTFRAME_DATA", "~/sets")
    with pytest.raises(ValueError, match="TIGHTFRAME_DATA: got '~/sets', but there is no such"):
        load("mnist")
    files.write_mnist(tmp_path / "mnist")
    monkeypatch.setenv("TIGHTFRAME_DATA", str(tmp_path))
    assert len(load("mnist").train_labels) == 40


def test_files_of_one_set_are_not_taken_for_another(no_places, tmp_path, monkeypatch):
    # MNIST's files, right in a folder of data sets, might be Fashion-MNIST's.
    files.write_mnist(tmp_path / "sets")
    monkeypatch.setenv("TIGHTFRAME_DATA", str(tmp_path / "sets"))
    with pytest.raises(ValueError, match="fashion_mnist is not on this machine"):
        load("fashion_mnist")
    # But who names the folder knows what is in it.
    assert len(load("fashion_mnist", root=tmp_path / "sets").train_labels) == 40


def test_nothing_found_says_which_files_belong_where_and_downloads_nothing(no_places, monkeypatch):
    monkeypatch.setattr(images, "download", lambda *_: pytest.fail("downloaded unasked"))
    files.write_mnist(no_places / "fashion_mnist")
    os.remove(no_places / "fashion_mnist" / "t10k-labels-idx1-ubyte")
    with pytest.raises(ValueError, match="is not on this machine") as error:
        load("fashion_mnist")
    message = str(error.value)
    for part in (
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
        "t10k-labels-idx1-ubyte (or each with .gz)",
        f"into {no_places / 'fashion_mnist'}",
        "TIGHTFRAME_DATA",
        "load('fashion_mnist', download=True)",
        "dataset-fashion-mnist",
    ):
        assert part in message
    assert "\n" not in message
    with pytest.raises(ValueError, match=r"cifar-100-binary\.tar\.gz.*download=True"):
        load("cifar100")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-images-idx3-ubyte", np.zeros((40, 20), np.uint8), r"need images \(N, height"),
        ("train-images-idx3-ubyte", np.zeros((40, 4, 5), np.int32), "of int32, need images"),
        ("t10k-images-idx3-ubyte", np.zeros((0, 4, 5), np.uint8), "need images"),
        ("t10k-images-idx3-ubyte", np.zeros((20, 5, 4), np.uint8), r"images of shape \(5, 4\)"),
        ("train-labels-idx1-ubyte", np.zeros(39, np.uint8), r"need \(40,\) of uint8"),
        ("train-labels-idx1-ubyte", np.zeros(40, np.int32), "of int32, need"),
        ("t10k-labels-idx1-ubyte", np.full(20, 10, np.uint8), "got 10 at 0, need 0 to 9"),
    ],
)
def test_files_that_do_not_fit_are_named(no_places, name, array, message):
    files.write_mnist(no_places / "mnist")
    path = no_places / "mnist" / name
    path.write_bytes(files.idx_bytes(array))
    with pytest.raises(ValueError, match=message) as error:
        load("mnist")
    assert str(error.value).startswith(str(path))


FASHION = next((p for p in images.IMAGE_SOURCES["fashion_mnist"].system if p.is_dir()), None)


@pytest.mark.skipif(FASHION is None, reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_of_debian(monkeypatch, tmp_path):
    monkeypatch.delenv("TIGHTFRAME_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fashion = load("fashion_mnist")
    assert fashion.train_counts.tolist() == [6000] * 10
    assert fashion.test_counts.tolist() == [1000] * 10
    assert fashion.input_shape == (1, 28, 28)
    # Published: the first label is an ankle boot, mean 0.2860 and standard deviation 0.3530.
    assert fashion.train_labels[0] == 9
    assert fashion.train_inputs.mean(dtype=np.float64) == pytest.approx(0.2860, abs=5e-5)
    assert fashion.train_inputs[::10].std(dtype=np.float64) == pytest.approx(0.3530, abs=2e-3)
    assert Path("/usr/share") in FASHION.parents
