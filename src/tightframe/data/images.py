"""MNIST, Fashion-MNIST, CIFAR-10 and -100, SVHN: their files, and how these become a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tightframe.data import cifar, svhn
from tightframe.data.dataset import Dataset, Samples, check_range, split_dataset
from tightframe.data.download import RemoteFile, download
from tightframe.data.idx import read_idx
from tightframe.data.places import Layout, download_folder, find_files, given_folder, missing
from tightframe.data.source import Request


@dataclass(frozen=True)
class ImageSource:
    """A set of images that its authors split into training and test samples.

    Attributes
    ----------
    num_classes : int
    input_shape : (int, int, int)
        Channels, height and width of its images.
    layouts : tuple of Layout
        The forms it is read in.
    remote : tuple of RemoteFile
        What a download fetches; the files of one of the layouts.
    system : tuple of Path
        Folders where packages of the operating system put the files.
    package : str, optional
        Debian's package of it.
    class_names : tuple of str, optional
        As its authors call the classes.
    """

    num_classes: int
    input_shape: tuple[int, int, int]
    layouts: tuple[Layout, ...]
    remote: tuple[RemoteFile, ...]
    system: tuple[Path, ...] = ()
    package: str | None = None
    class_names: tuple[str, ...] | None = None

    def load(self, request: Request) -> Dataset:
        """Find the files, download them if asked to and they are nowhere, and read them.

        Raises
        ------
        ValueError
            If ``root`` is no folder, the files are nowhere, or they are not what their names say.
        OSError
            If the download fails.
        """
        name, root = request.name, request.root
        if root is not None and not request.download and not given_folder(root).is_dir():
            raise ValueError(f"root: got {os.fspath(root)!r}, which is no folder")
        found = find_files(self.layouts, root, self.system)
        if found is None and request.download:
            folder = download_folder(root, name)
            for file in self.remote:
                download(file, folder)
            found = find_files(self.layouts, root)
        if found is None:
            raise missing(name, self.layouts, root, self.package)
        layout, paths = found
        train, test = layout.read(paths)
        return split_dataset(
            name,
            self.num_classes,
            train,
            test,
            input_shape=train.inputs.shape[1:],
            train_per_class=request.train_per_class,
            seed=request.seed,
            class_names=self.class_names,
        )


def _read_mnist(paths: Sequence[Path]) -> tuple[Samples, Samples]:
    """Read the four IDX files, in the order of `_MNIST_FILES`."""
    parts = []
    for images_path, labels_path in (paths[:2], paths[2:]):
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.ndim != 3 or images.dtype != np.uint8 or images.size == 0:
            raise ValueError(
                f"{images_path}: got shape {images.shape} of {images.dtype}, "
                "need images (N, height, width) of uint8"
            )
        if labels.shape != images.shape[:1] or labels.dtype != np.uint8:
            raise ValueError(
                f"{labels_path}: got shape {labels.shape} of {labels.dtype}, need "
                f"({len(images)},) of uint8, a label for each of {images_path.name}"
            )
        check_range(f"{labels_path}: label", labels, 10)
        parts.append(Samples(images[:, None], labels.astype(np.int64)))
    train, test = parts
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise ValueError(
            f"{paths[2]}: images of shape {test.inputs.shape[2:]}, "
            f"those of {paths[0].name} have {train.inputs.shape[2:]}"
        )
    return train, test


_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _mnist_layout(*names: str) -> Layout:
    return Layout(names, _MNIST_FILES, _read_mnist, endings=("", ".gz"), also=_other_mnist_names)


def _other_mnist_names(file: str) -> tuple[str, ...]:
    """Return the name with a dot, and each in a folder of its name, as Kaggle packs them."""
    dotted = file.replace("-idx", ".idx")
    return dotted, f"{file}/{file}", f"{file}/{dotted}", f"{dotted}/{dotted}"


def _mnist_remote(
    mirrors: Sequence[str], known: Sequence[tuple[int, str]]
) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(f"{file}.gz", tuple(f"{url}/{file}.gz" for url in mirrors), sha256, size)
        for file, (size, sha256) in zip(_MNIST_FILES, known, strict=True)
    )


def _cifar_layouts(
    name: str, binary: cifar.CifarFormat, python: cifar.CifarFormat, archives: tuple[str, str]
) -> tuple[Layout, ...]:
    unpacked = tuple(
        Layout((form.folder, f"{name}/{form.folder}", name), form.files, form.read_files)
        for form in (binary, python)
    )
    # "": the archives' names say which data set they are.
    packed = tuple(
        Layout(("", name), (archive,), form.read_archive)
        for form, archive in zip((binary, python), archives, strict=True)
    )
    return unpacked + packed


# Sizes and SHA-256 are those of TensorFlow Datasets (tensorflow_datasets/url_checksums), retrieved
# from its repository; torchvision publishes MD5 alone, which we do not rely on.
_TORONTO = "https://www.cs.toronto.edu/~kriz"
_STANFORD = "https://ufldl.stanford.edu/housenumbers"

#: Image sets by name.
IMAGE_SOURCES = {
    "mnist": ImageSource(
        10,
        (1, 28, 28),
        (_mnist_layout("mnist", "MNIST", "MNIST/raw"),),
        _mnist_remote(
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist",
                "https://storage.googleapis.com/cvdf-datasets/mnist",
            ),
            (
                (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
                (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
                (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
            ),
        ),
    ),
    "fashion_mnist": ImageSource(
        10,
        (1, 28, 28),
        (_mnist_layout("fashion_mnist", "fashion-mnist", "FashionMNIST", "FashionMNIST/raw"),),
        _mnist_remote(
            # The authors' own server has no https.
            (
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            ),
            (
                (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
                (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
                (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
                (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
            ),
        ),
        system=(
            Path("/usr/share/datasets/fashion-mnist"),  # Debian 12
            Path("/usr/share/dataset-fashion-mnist"),
        ),
        package="dataset-fashion-mnist",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
    "cifar10": ImageSource(
        10,
        cifar.IMAGE_SHAPE,
        _cifar_layouts(
            "cifar10",
            cifar.CIFAR10_BINARY,
            cifar.CIFAR10_PYTHON,
            ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
        ),
        (
            RemoteFile(
                "cifar-10-binary.tar.gz",
                (f"{_TORONTO}/cifar-10-binary.tar.gz",),
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                170052171,
            ),
        ),
        class_names=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
    ),
    "cifar100": ImageSource(
        100,
        cifar.IMAGE_SHAPE,
        _cifar_layouts(
            "cifar100",
            cifar.CIFAR100_BINARY,
            cifar.CIFAR100_PYTHON,
            ("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
        ),
        (
            RemoteFile(
                "cifar-100-binary.tar.gz",
                (f"{_TORONTO}/cifar-100-binary.tar.gz",),
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                168513733,
            ),
        ),
    ),
    "svhn": ImageSource(
        10,
        cifar.IMAGE_SHAPE,
        (Layout(("svhn", "SVHN"), svhn.FILES, svhn.read_svhn),),
        # Their authors link to them with http; the same server is asked over https.
        (
            RemoteFile(
                "train_32x32.mat",
                (f"{_STANFORD}/train_32x32.mat",),
                "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
                182040794,
            ),
            RemoteFile(
                "test_32x32.mat",
                (f"{_STANFORD}/test_32x32.mat",),
                "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
                64275384,
            ),
        ),
    ),
}
