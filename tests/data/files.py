"""Files in the formats of MNIST and CIFAR, written from their descriptions."""

import gzip
import io
import pickle
import struct
import tarfile
from typing import ClassVar

import numpy as np
import scipy.io

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    code = IDX_CODES[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder, *, train=40, test=20, size=(4, 5), seed=0, packed=False, labels=None):
    """Write the four files of a small MNIST; return what is in them."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    content = []
    for part, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, *size), dtype=np.uint8)
        numbers = np.arange(count, dtype=np.uint8) % 10 if labels is None else labels
        for kind, array in (("images-idx3", images), ("labels-idx1", numbers)):
            data = idx_bytes(array)
            name = f"{part}-{kind}-ubyte"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data, mtime=0))
            else:
                (folder / name).write_bytes(data)
        content += [images, numbers.astype(np.int64)]
    return content


def cifar_batches(num_classes, *, count=20, seed=0):
    """Return (pixels, labels) of every file of a small CIFAR; the last one is the test batch."""
    rng = np.random.default_rng(seed)
    files = 6 if num_classes == 10 else 2
    count = max(count, num_classes)
    return [
        (
            rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            (np.arange(count) * 7 + i) % num_classes,
        )
        for i in range(files)
    ]


def cifar_names(num_classes, *, binary):
    ten = num_classes == 10
    folder = {
        (True, True): "cifar-10-batches-bin",
        (True, False): "cifar-10-batches-py",
        (False, True): "cifar-100-binary",
        (False, False): "cifar-100-python",
    }[ten, binary]
    stems = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"] if ten else ["train", "test"]
    return folder, [stem + (".bin" if binary else "") for stem in stems]


def cifar_binary(pixels, labels, num_classes):
    records = b""
    for row, label in zip(pixels, labels, strict=True):
        coarse = b"" if num_classes == 10 else bytes([19])
        records += coarse + bytes([label]) + row.tobytes()
    return records


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote: byte strings for str and bytes, and NumPy 1's module names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, text):
        data = text.encode("latin-1") if isinstance(text, str) else text
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[str] = save_string
    dispatch[bytes] = save_string


def python2_pickle(value):
    out = io.BytesIO()
    Python2Pickler(out, protocol=2).dump(value)
    return out.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar_pickle(pixels, labels, num_classes, dump=python2_pickle):
    if num_classes == 10:
        content = {"batch_label": "training batch 1 of 5", "labels": [int(k) for k in labels]}
    else:
        content = {"fine_labels": [int(k) for k in labels], "coarse_labels": [19] * len(labels)}
    return dump(content | {"data": pixels, "filenames": [f"{i}.png" for i in range(len(labels))]})


def tar_gz(path, members):
    """Write an archive of (TarInfo or name, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_cifar(folder, num_classes, *, binary, packed, seed=0):
    """Write a small CIFAR in one of its forms; return the batches."""
    batches = cifar_batches(num_classes, seed=seed)
    inner, names = cifar_names(num_classes, binary=binary)
    write = cifar_binary if binary else cifar_pickle
    data = [write(*batch, num_classes) for batch in batches]
    if packed:
        name = f"cifar-{num_classes}-{'binary' if binary else 'python'}.tar.gz"
        readme = (f"{inner}/readme.html", b"<html>")
        # In another order than they are read in.
        members = [(f"{inner}/{n}", d) for n, d in zip(names, data, strict=True)]
        tar_gz(folder / name, [readme, *reversed(members)])
    else:
        (folder / inner).mkdir(parents=True)
        for name, content in zip(names, data, strict=True):
            (folder / inner / name).write_bytes(content)
    return batches


def write_svhn(folder, *, count=20, seed=0, name="X", dtype=np.uint8, last=10):
    """Write the two MATLAB files of a small SVHN; return images (H, W, C, N) and digits of each."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    content = []
    for part in ("train", "test"):
        images = rng.integers(0, 256, (32, 32, 3, count)).astype(dtype)
        digits = (np.arange(count) % last + 1).astype(np.uint8)
        scipy.io.savemat(folder / f"{part}_32x32.mat", {name: images, "y": digits[:, None]})
        content.append((images, digits))
    return content
