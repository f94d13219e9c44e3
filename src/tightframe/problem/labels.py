"""Labels: where a batch or a file has them, and how many samples every class has.

`find_labels` decides for everything that reads batches. It imports no torch; tensors are known by
what they have.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.array_files import NAMED, ONLY, UNNAMED, read_named
from tightframe.checks import wide
from tightframe.problem.class_names import MAX_LABEL, NamesLike, given_names, indexed

#: Names under which batches and files may have their labels, in the order tried.
LABEL_NAMES = ("labels", "label", "targets", "target", "y")

#: Labels are a key, a position in a tuple, or a function of the batch; None: look for them.
LabelsLike = str | int | Callable[[Any], Any] | None

#: The label of what PyTorch's losses leave out, as padding.
IGNORED = -100


def require_several_classes(counts: NDArray[np.integer[Any]]) -> None:
    """Refuse samples of fewer than two classes, (K,) counts: nothing can be told apart.

    Raises
    ------
    ValueError
        It names the labels.
    """
    have = int((counts > 0).sum())
    if have < 2:
        raise ValueError(f"labels: {have} of {len(counts)} classes have samples, need at least 2")


def all_ignored(name: str, count: int, ignore_index: int | None, where: str = "") -> ValueError:
    """Return the error of samples all of which have the label that is left out."""
    return ValueError(
        f"{name}: all {count}{where} are {ignore_index}, which is left out (ignore_index); none "
        "is left"
    )


# -- where they are --------------------------------------------------------------------------------


class Found(NamedTuple):
    """The labels of a batch, and what the batch has beside them.

    Attributes
    ----------
    labels : Any
    rest : Any
        The other entries of a tuple, or of a mapping. The whole batch where a function found the
        labels.
    """

    labels: Any
    rest: Any


def find_labels(batch: Any, labels: LabelsLike = None) -> Found:
    """Find the labels of a batch.

    Parameters
    ----------
    batch : mapping, tuple or list
        - Pairs ``(inputs, labels)``, as of torchvision: the second entry, whatever the inputs are.
        - Longer tuples, as of a ``TensorDataset``: the entry after the first that is one whole
          number a sample, shape (B,) or (B, 1). Float vectors are weights, not labels. If there is
          none, the entry that is one whole number a token, of the shape (B, T) of the first entry;
          masks, of zeros and ones, are left out. So ``(inputs, mask, labels)`` and ``(inputs,
          labels, weights)`` are read, while ``(inputs, labels, index)`` is refused: both could be
          the labels. So are sentences with lengths and a label a token, in either order.
        - Labels inside the labels' entry, as ``(inputs, (labels, index))``, need a function.
        - Mappings, as of Hugging Face's collators: the entry under one of `LABEL_NAMES`. If there
          are several, they have to agree. Named tuples with such a field are read by it.
        - What Lightning's ``CombinedLoader`` gives, batches in a mapping or a list, needs a
          function: nothing says which batch is meant.
    labels : str, int or callable, optional
        A key of a mapping or field of a named tuple; a position in a tuple; or a function of the
        batch, which may then have any form.

    Raises
    ------
    ValueError
        If the batch has another form, no labels, or several entries that could be its labels; the
        message says what to pass as ``labels``.

    Examples
    --------
    >>> find_labels(([[0.5], [0.1]], [1, 0], [0.9, 1.2])).labels
    [1, 0]
    >>> find_labels({"pixels": [[0.5], [0.1]], "label": [1, 0]}).rest
    {'pixels': [[0.5], [0.1]]}
    """
    if callable(labels):
        return Found(labels(batch), batch)
    if isinstance(batch, Mapping):
        entries = dict(batch)
        return Found(_alone(entries.pop(_label_name(entries, labels, "a batch"))), entries)
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise ValueError(
            f"labels: a batch is {_described(batch)}, need (inputs, labels) or a mapping with one "
            f"of {', '.join(LABEL_NAMES)}; of other forms pass labels as a function of the batch"
        )
    fields = getattr(batch, "_fields", ())
    if isinstance(labels, str) or (labels is None and set(fields) & set(LABEL_NAMES)):
        named = dict(zip(fields, batch, strict=False))
        labels = fields.index(_label_name(named, labels, "a batch"))
    place = _label_place(batch) if labels is None else labels
    if not isinstance(place, int) or not -len(batch) <= place < len(batch):
        raise ValueError(
            f"labels: got {labels!r}, need a position in a batch of {len(batch)} entries"
        )
    rest = list(batch)
    return Found(_alone(rest.pop(place)), tuple(rest))


def _alone(labels: Any) -> Any:
    """Return labels that are no collection of several arrays, of which each could be them."""
    if isinstance(labels, Mapping) or _holds_arrays(labels):
        raise ValueError(
            f"labels: a batch has {_described(labels)} where its labels should be, need one array "
            "or list; pass labels as a function of the batch"
        )
    return labels


def _label_name(entries: Mapping[str, Any], name: Any, what: str) -> str:
    """Return the name of the labels among named entries."""
    wanted = LABEL_NAMES if name is None else (name,)
    there = [known for known in wanted if known in entries]
    if not there:
        raise ValueError(
            f"labels: {what} has {', '.join(map(str, entries)) or 'nothing'}; need one of "
            f"{', '.join(map(str, wanted))}"
        )
    if not all(_agree(entries[there[0]], entries[other]) for other in there[1:]):
        raise ValueError(
            f"labels: {what} has {' and '.join(there)}, which differ; pass one of these names as "
            "labels"
        )
    return there[0]


def _label_place(entries: tuple[Any, ...] | list[Any]) -> int:
    """Return the position of the labels in a tuple."""
    if len(entries) == 2:
        return 1
    shape = _shape(_first_array(entries[0]))
    later = [i for i in range(1, len(entries)) if _is_whole(entries[i])]
    shapes = {i: _shape(entries[i]) for i in later}
    places = [i for i in later if _is_vector(shapes[i]) and (not shape or shapes[i][0] == shape[0])]
    if len(shape) > 1:
        tokens = [i for i in later if shapes[i] == shape[:2] and i not in places]
        tokens = [i for i in tokens if not _is_mask(entries[i])]
        if not places or not _are_second_inputs(tokens, places, entries):
            places = sorted(places + tokens)
    if len(places) == 1:
        return places[0]
    if places:
        found = f"entries {' and '.join(map(str, places))} of a batch of {len(entries)} could each"
    else:
        found = f"no entry of {_described(entries)} can"
    raise ValueError(
        f"labels: {found} be the labels, whole numbers, one a sample; pass their position as "
        "labels (0 is the first), or a function of the batch"
    )


def _are_second_inputs(
    tokens: list[int], places: list[int], entries: tuple[Any, ...] | list[Any]
) -> bool:
    """Tell whether entries of whole numbers, one a token, are inputs and no labels.

    They are in ``(tokens, other tokens, labels)``. In ``(tokens, labels of tokens, lengths)`` the
    vector has lengths, of which the largest is that of the array.
    """
    inputs = _first_array(entries[0])
    shape = _shape(inputs)
    if not tokens or len(shape) > 3:  # the second axis of images is no tokens
        return True
    if not _is_whole(inputs) or max(tokens) > min(places):
        return False
    return all(int(_array(entries[i]).max()) != shape[1] for i in places)


def _first_array(inputs: Any) -> Any:
    """Return the first array of nested inputs."""
    while _holds_arrays(inputs):
        inputs = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs[0]
    return inputs


def _holds_arrays(value: Any) -> bool:
    """Tell whether a value is no array, but a mapping, or a sequence of arrays or mappings."""
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, (tuple, list)) and any(
        isinstance(entry, Mapping) or bool(getattr(entry, "shape", ())) for entry in value
    )


def _array(value: Any) -> Any:
    """Return a tensor or array as it is, and a list as an array; None where it is neither."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return value
    if not isinstance(value, (list, tuple)):
        return None
    try:
        return np.asarray(value)
    except (TypeError, ValueError):  # ragged
        return None


def _shape(value: Any) -> tuple[int, ...]:
    array = _array(value)
    return () if array is None else tuple(array.shape)


def _is_vector(shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def _is_whole(value: Any) -> bool:
    """Tell whether a value is an array of integers; truth values are none."""
    array = _array(value)
    if array is None or not tuple(array.shape):
        return False
    if isinstance(array.dtype, np.dtype):
        return array.dtype.kind in "iu"
    return "int" in str(array.dtype)  # torch.int64, jax's int32


def _is_mask(value: Any) -> bool:
    array = _array(value)
    return bool(((array == 0) | (array == 1)).all())


def _agree(one: Any, other: Any) -> bool:
    first, second = _array(one), _array(other)
    if first is None or second is None:
        return bool(one is other)
    return _shape(first) == _shape(second) and bool((first == second).all())


def _described(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {len(batch)}"
    if hasattr(batch, "shape"):
        return f"a {type(batch).__name__.lower()} of shape {tuple(batch.shape)}"
    return f"of type {type(batch).__name__}"


# -- how many --------------------------------------------------------------------------------------


def label_counts(source: Any, labels: LabelsLike = None) -> NDArray[np.int64]:
    """Count the labels of a training set, class by class; see `class_counts` for names.

    Parameters
    ----------
    source : array_like, path-like or iterable of batches
        The labels, whole numbers from 0; a file of them (see `class_counts`); or a ``DataLoader``
        (or any iterable) of batches, which is read once.
    labels : str, int or callable, optional
        Where a batch has its labels, if `find_labels` cannot tell: a key, a position, or a function
        of the batch. Of a file: the array's or column's name.

    Returns
    -------
    ndarray, shape (K,), int64
        K is one more than the largest label.

    Raises
    ------
    ValueError
        If there are no labels, one is no whole number from 0, a class has no samples, or it is
        unclear where a batch has its labels.

    Examples
    --------
    >>> label_counts([0, 1, 1, 0, 2]).tolist()
    [2, 2, 1]
    >>> inputs, index = [[0.5], [0.1], [0.3]], [7, 2, 5]
    >>> label_counts(iter([(inputs, [1, 0, 1], index)]), labels=1).tolist()
    [1, 2]
    """
    return _counted(_labels_of(source, labels), _where(source))


class ClassCounts(NamedTuple):
    """Samples of every class, and what the classes are called.

    Attributes
    ----------
    counts : ndarray, shape (K,), int64
    class_names : tuple of str or None
    """

    counts: NDArray[np.int64]
    class_names: tuple[str, ...] | None


def class_counts(
    source: Any,
    labels: LabelsLike = None,
    class_names: NamesLike | None = None,
    ignore_index: int | None = IGNORED,
) -> ClassCounts:
    """Count the labels of a training set, which may be names.

    Parameters
    ----------
    source, labels
        As for `label_counts`. A file is ``.npy``, ``.txt`` with one label a line, or one with
        named arrays or columns, as `tightframe.array_files.read_named` reads it, of which one is
        called as in `LABEL_NAMES`.
    class_names : sequence of str, mapping, str or path-like, optional
        See `tightframe.problem.class_names.class_names_of`. Without it, names are in the order of
        the alphabet.
    ignore_index : int, optional
        Samples of this label do not count.

    Raises
    ------
    ValueError
        As `label_counts`, or if a label is none of the names.

    Examples
    --------
    >>> class_counts(["dog", "cat", "dog"])
    ClassCounts(counts=array([1, 2]), class_names=('cat', 'dog'))
    """
    names = given_names(class_names)
    found = indexed(_labels_of(source, labels), names, ignore_index=ignore_index)
    if len(found.kept) and not found.kept.any():
        raise all_ignored("labels", len(found.kept), ignore_index, _where(source))
    counts = _counted(found.labels, _where(source), found.class_names)
    if found.class_names is not None and len(counts) < len(found.class_names):
        name = found.class_names[len(counts)]
        raise ValueError(f"labels: class {name!r} has no samples")
    return ClassCounts(counts, found.class_names)


def _where(source: Any) -> str:
    """Return where labels are, for messages."""
    return f" in {os.fspath(source)}" if isinstance(source, (str, os.PathLike)) else ""


def _labels_of(source: Any, labels: LabelsLike) -> Any:
    """Return the labels of a file, of batches, or as they are."""
    if isinstance(source, (str, os.PathLike)):
        return _file_labels(Path(source), labels)
    if hasattr(source, "__array__") or (
        isinstance(source, (list, tuple)) and not (source and _holds_arrays(source[0]))
    ):
        if labels is not None:
            raise ValueError(f"labels: got {labels!r} with labels, need batches or a file")
        return _read(source)
    if not isinstance(source, Iterable):
        raise ValueError(f"labels: got {type(source).__name__}, need labels, a file or batches")
    parts = [_read(find_labels(batch, labels).labels) for batch in source]
    if parts and all(_could_be_one_hot(part) for part in parts):
        raise ValueError(
            f"labels: got zeros and ones of shape {parts[0].shape}, which could be one-hot, need "
            "one whole number a sample; pass labels as a function of the batch that returns them"
        )
    return np.concatenate([part.ravel() for part in parts]) if parts else []


def _could_be_one_hot(labels: NDArray[Any]) -> bool:
    return labels.ndim == 2 and labels.shape[1] > 1 and _is_mask(labels)


def require_unmasked(name: str, value: Any) -> None:
    """Refuse a `numpy.ma` array with masked entries: as plain numbers they would count."""
    if np.ma.isMaskedArray(value) and (hidden := int(np.ma.getmaskarray(value).sum())):
        raise ValueError(
            f"{name}: {hidden} entries are masked, need plain numbers; leave masked samples out "
            f"({name}[~mask]), or fill masked labels with an ignored one, as -100"
        )


def _read(labels: Any) -> NDArray[Any]:
    require_unmasked("labels", labels)
    if callable(getattr(labels, "detach", None)):  # a tensor, with a gradient or on a device
        labels = labels.detach().cpu()
    try:
        return np.asarray(labels)
    except (TypeError, ValueError):
        raise ValueError(
            f"labels: got {_described(labels)}, need one whole number a sample"
        ) from None


def _counted(labels: Any, where: str = "", names: Sequence[str] | None = None) -> NDArray[np.int64]:
    array = _read(labels)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iuf":
        raise ValueError(
            f"labels: got {array.dtype} of shape {array.shape}{where}, need one whole number a "
            "sample"
        )
    array = wide(array)
    bad = ~np.isfinite(array) | (array < 0) | (array > MAX_LABEL) | (array != np.floor(array))
    if bad.any():
        k = int(np.argmax(bad))
        left_out = "; leave out what is ignored" if array[k] == IGNORED else ""
        raise ValueError(
            f"labels: sample {k}{where} has {array[k]}, need a whole number from 0{left_out}"
        )
    counts = np.bincount(array.astype(np.int64))
    if not counts.all():
        k = int(np.argmin(counts))
        called = k if names is None else repr(names[k])
        raise ValueError(
            f"labels: class {called} has no samples{where}; classes are 0 to {len(counts) - 1}"
        )
    return counts


def _file_labels(path: Path, labels: LabelsLike) -> Any:
    if not path.is_file():
        raise ValueError(f"labels: {path} is no file")
    if path.suffix not in (*NAMED, *UNNAMED):
        need = ", ".join((*NAMED, *UNNAMED))
        raise ValueError(f"labels: {path} ends in {path.suffix!r}, need {need}")
    try:
        if labels is not None and path.suffix in UNNAMED:
            raise ValueError(f"got {labels!r}, but the file has no names")
        arrays = read_named(path)
        return arrays[
            ONLY if len(arrays) == 1 and ONLY in arrays else _label_name(arrays, labels, str(path))
        ]
    except ValueError as error:
        text = " ".join(str(error).split())
        raise ValueError(text if str(path) in text else f"labels: {path}: {text}") from None
