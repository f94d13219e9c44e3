"""Data sets by name or by path."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from tightframe.checks import whole_number
from tightframe.data.arrays import load_arrays
from tightframe.data.dataset import Dataset, Samples, pool_dataset
from tightframe.data.images import IMAGE_SOURCES
from tightframe.data.places import given_folder
from tightframe.data.source import Request, Source
from tightframe.data.synthetic import gaussian_mixture
from tightframe.data.text import is_text


@dataclass(frozen=True)
class Digits:
    """The 8 x 8 grey images that come with scikit-learn.

    Attributes
    ----------
    train_per_class : int
        Training samples of every class by default; the smallest class has 174 samples in all.
    input_shape : (int, int, int)
    """

    train_per_class: int = 140
    input_shape: tuple[int, int, int] = (1, 8, 8)

    def load(self, request: Request) -> Dataset:
        """Return the images divided by 16, split by the seed; nothing is looked for or fetched."""
        # Imported here: scikit-learn takes a second, and only this data set needs it.
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        asked = request.train_per_class
        return pool_dataset(
            request.name,
            10,
            Samples((images / 16.0).astype(np.float32), labels.astype(np.int64)),
            input_shape=self.input_shape,
            train_per_class=self.train_per_class if asked is None else asked,
            seed=request.seed,
        )


class GaussianMixture:
    """`gaussian_mixture` with its defaults."""

    def load(self, request: Request) -> Dataset:
        """Return the mixture; nothing is looked for or fetched."""
        if request.train_per_class is None:
            return gaussian_mixture(seed=request.seed)
        return gaussian_mixture(train_per_class=request.train_per_class, seed=request.seed)


#: All data sets that have a name: one `Source` each.
SOURCES: dict[str, Source] = {
    "digits": Digits(),
    **IMAGE_SOURCES,
    "gaussian_mixture": GaussianMixture(),
}


def names() -> tuple[str, ...]:
    """Return the names that `load` knows; it also takes the path of a user's own arrays."""
    return tuple(SOURCES)


def known_class_names(name: str) -> tuple[str, ...] | None:
    """Return what the classes of a data set are called, where its authors have names for them."""
    return getattr(SOURCES.get(name), "class_names", None)


def known_input_shape(name: str) -> tuple[int, ...] | None:
    """Return the shape of a data set's inputs, where it is known without its files."""
    return getattr(SOURCES.get(name), "input_shape", None)


def check_name(name: str | os.PathLike[str]) -> str:
    """Return what `load` takes as the name of a data set; nothing is read.

    Raises
    ------
    ValueError
        If it is neither one of `names` nor a path: something that ends in ``.npz``, has a folder
        in it, or is a folder.
    """
    if isinstance(name, str) and name in SOURCES:
        return name
    if is_text(name):
        raise ValueError(
            f"data: got {os.fspath(name)!r}, which is text without classes: it is for "
            "tightframe.data.read_text, and for runs with a TextConfig"
        )
    if not _is_path(name):
        raise ValueError(
            f"data: got {name!r}, allowed are {', '.join(SOURCES)}, "
            "or the path of an .npz file or a folder of arrays"
        )
    return os.fspath(name)


def load(
    name: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    train_per_class: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set, the same for the same seed.

    Parameters
    ----------
    name : str or path-like
        One of `names`, or a path.

        - ``"digits"``: 8 x 8 grey images that come with scikit-learn, divided by 16 and split by
          the seed, 140 training samples a class unless told otherwise.
        - ``"mnist"``, ``"fashion_mnist"``: IDX files, plain or ``.gz``.
        - ``"cifar10"``, ``"cifar100"`` (its 100 fine classes): the authors' binary or Python
          version, unpacked or as ``.tar.gz``.
        - ``"svhn"``: cropped house numbers, the authors' MATLAB files of 32 x 32 images; class k is
          the digit k.
        - ``"gaussian_mixture"``: `gaussian_mixture` with its defaults.
        - a path that ends in ``.npz``, or of a folder: the user's own arrays, see
          `tightframe.data.arrays.load_arrays`.
    root : path-like, optional
        Where to look first for image files: a folder of data sets, or the very folder of the
        files. Then come the folder that the environment variable ``TIGHTFRAME_DATA`` names, the
        user's cache (``$XDG_CACHE_HOME/tightframe`` or ``~/.cache/tightframe``), and for
        Fashion-MNIST Debian's package ``dataset-fashion-mnist``. A relative path as ``name`` is
        taken from here.
    download : bool
        Fetch image files that are nowhere from the authors' server or its official mirror, checked
        by SHA-256, into the first of those folders. Nothing is ever downloaded unasked.
    train_per_class : int, optional
        Training samples of every class, chosen by the seed. None: all there are, for sets that
        come split into training and test samples.
    seed : int
        Of choices and splits; test samples of sets that come split do not depend on it.

    Returns
    -------
    Dataset
        Float32 inputs, images in [0, 1], and int64 labels, in the order of the source.

    Raises
    ------
    ValueError
        If the name is unknown, the files are nowhere (the message says which files belong where)
        or not what they should be (the message names the file), or a class has too few samples.
    OSError
        If a download fails.
    """
    name = check_name(name)
    if not isinstance(download, (bool, np.bool_)):
        raise ValueError(f"download: got {download!r}, need True or False")
    if root is not None and not isinstance(root, (str, os.PathLike)):
        raise ValueError(f"root: got {root!r}, need the path of a folder")
    if train_per_class is not None:
        train_per_class = whole_number("train_per_class", train_per_class, 1)
    seed = whole_number("seed", seed, 0)
    if name in SOURCES:
        return SOURCES[name].load(Request(name, root, bool(download), train_per_class, seed))
    path = name if root is None else given_folder(root) / name
    return load_arrays(path, train_per_class=train_per_class, seed=seed)


def _is_path(name: object) -> bool:
    if isinstance(name, os.PathLike):
        return True
    return isinstance(name, str) and (
        name.endswith(".npz") or os.path.basename(name) != name or os.path.isdir(name)
    )
