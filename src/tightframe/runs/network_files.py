"""Features, labels and classifier of a trained network from files, whatever their format and names.

`read_last_layer` is what commands read a network with; `read_network` also reads features without a
classifier.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.array_files import NAMED, ONLY, UNNAMED, read_named
from tightframe.checks import wide
from tightframe.heads.last_layer import LastLayer
from tightframe.problem.class_names import Indexed, NamesLike, class_names_of, given_names, indexed
from tightframe.problem.labels import IGNORED, LABEL_NAMES, all_ignored
from tightframe.runs.folder import using_record

Arrays = dict[str, NDArray[Any]]

#: Names under which arrays are looked for, in the order tried.
NAMES: dict[str, tuple[str, ...]] = {
    "features": ("features", "embeddings", "feats", "feat", "fts", "X", "x", "H"),
    "labels": LABEL_NAMES,
    "weight": (
        "weight",
        *(f"{head}.weight" for head in ("fc", "classifier", "head", "linear", "score", "lm_head")),
    ),
    "bias": ("bias",),
    "held_out_features": ("held_out_features",),
    "held_out_labels": ("held_out_labels",),
    "class_names": ("class_names",),
}

#: What `keys` may name, and where else it may say that an array is.
KeysLike = Mapping[str, str | os.PathLike[str]] | str | None


@dataclass(frozen=True, eq=False)
class SavedNetwork:
    """What files hold of a trained network: features and labels, and a classifier if they have one.

    Attributes
    ----------
    features : ndarray, shape (N, D)
        Without the samples whose label is to be ignored.
    labels : ndarray, shape (N,), int64
    weight : ndarray, shape (K, D), or None
    bias : ndarray, shape (K,), or None
    held_out : tuple of (features, labels) or None
    class_names : tuple of str or None
        In class order.
    notes : tuple of str
        What was decided in reading that the files do not say.
    """

    features: NDArray[Any]
    labels: NDArray[np.int64]
    weight: NDArray[Any] | None = None
    bias: NDArray[Any] | None = None
    held_out: tuple[NDArray[Any], NDArray[np.int64]] | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes K: the classifier's rows, else the names, else what the labels say."""
        if self.weight is not None:
            return len(self.weight)
        if self.class_names is not None:
            return len(self.class_names)
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    def last_layer(self) -> LastLayer:
        """Return the last layer, checked.

        Raises
        ------
        ValueError
            If there is no classifier, or as `LastLayer.of`.
        """
        if self.weight is None:
            raise ValueError(
                "weight: missing; say where the classifier is by keys (--keys weight=NAME, or "
                "weight=FILE:NAME in another file)"
            )
        return LastLayer.of(
            self.features,
            self.labels,
            self.weight,
            self.bias,
            held_out=self.held_out,
            class_names=self.class_names,
        )


def read_last_layer(
    path: str | os.PathLike[str],
    keys: KeysLike = None,
    ignore_index: int | None = IGNORED,
    class_names: NamesLike | None = None,
    held_out: str | os.PathLike[str] | None = None,
    setting: str | None = None,
) -> LastLayer:
    """Read the last layer of a trained network.

    Parameters
    ----------
    path, keys, ignore_index, class_names, held_out, setting
        As for `read_network`.

    Returns
    -------
    LastLayer

    Raises
    ------
    ValueError
        As `read_network`, or if there is no classifier.

    Warns
    -----
    UserWarning
        Of what was decided that the files do not say, see `SavedNetwork.notes`.
    """
    network = read_network(
        path,
        keys,
        ignore_index=ignore_index,
        class_names=class_names,
        held_out=held_out,
        setting=setting,
    )
    layer = network.last_layer()
    for note in network.notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    return layer


def read_network(
    path: str | os.PathLike[str],
    keys: KeysLike = None,
    *,
    ignore_index: int | None = IGNORED,
    class_names: NamesLike | None = None,
    held_out: str | os.PathLike[str] | None = None,
    setting: str | None = None,
    limit: int | None = None,
) -> SavedNetwork:
    """Read what files hold of a trained network, without pickle.

    Parameters
    ----------
    path : path-like
        A file as `tightframe.array_files.read_named` reads it, or a folder that ``tightframe run``
        wrote. Arrays go by the names ``features`` (N, D), ``labels`` (N,), and, where there are
        any, ``weight`` (K, D), ``bias`` (K,), ``held_out_features``, ``held_out_labels`` and
        ``class_names``, or by others that are usual. The features of a table are its columns of
        numbers; those of an ``.npy`` file are all of it.
    keys : mapping or str, optional
        Which other names they go by: ``{"features": "X", "weight": "classifier.weight"}`` or
        ``"features=X,weight=classifier.weight"``; also other files, ``"labels=labels.npy"``, and
        arrays in them, ``"weight=model.pt:fc.weight"``. The bias is taken from beside its weight.
    ignore_index : int, optional
        Samples of this label are left out.
    class_names : sequence of str, mapping, str or path-like, optional
        See `tightframe.problem.class_names.class_names_of`. Labels may then be names. Without it
        classes that are labelled by name are in the order of the alphabet.
    held_out : path-like, optional
        A file with features and labels of samples that were not trained on.
    setting : str, optional
        Which of a run's settings; needed if it has several.
    limit : int, optional
        Most bytes of arrays, see `tightframe.array_files.read_named`.

    Returns
    -------
    SavedNetwork

    Raises
    ------
    ValueError
        If something is missing, ambiguous, or not what it should be.
    """
    names = given_names(class_names)
    wanted = parse_keys(keys)
    notes: list[str] = []
    if Path(path).is_dir():
        if wanted:
            raise ValueError(f"keys: given for {os.fspath(path)}, a run's folder")
        found = _of_run(Path(path), setting)
    else:
        if setting is not None:
            raise ValueError(f"setting: got {setting!r}, but {os.fspath(path)} is no run's folder")
        found = found_arrays(path, wanted, notes, limit)
    if names is None and "class_names" in found:
        names = class_names_of(found["class_names"].tolist())
    weight, bias = found.get("weight"), found.get("bias")
    rows = None
    if weight is not None:
        weight = classifier_of(weight, found["features"], notes)
        rows = len(weight) if weight.ndim == 2 else None
    if names is not None and rows not in (None, len(names)):
        raise ValueError(f"class_names: got {len(names)}, weight has {rows} rows")
    features, own = _samples(found["features"], found["labels"], names, ignore_index, notes)
    _require_fitting(own, rows if names is None else len(names))
    if names is None and own.class_names is not None:
        notes.append(
            "the labels are names; their classes are taken in the order of the alphabet, "
            f"{own.class_names[0]!r} first"
        )
    apart = _held_out(path, held_out, found, wanted, own.class_names, ignore_index)
    return SavedNetwork(features, own.labels, weight, bias, apart, own.class_names, tuple(notes))


def parse_keys(keys: KeysLike) -> dict[str, str]:
    """Return where arrays are by what they are, of a mapping or text (see `read_network`).

    Raises
    ------
    ValueError
        If the text has another form or names something else than these arrays.

    Examples
    --------
    >>> parse_keys("features=X, weight=model.pt:fc.weight")
    {'features': 'X', 'weight': 'model.pt:fc.weight'}
    """
    if keys is None:
        return {}
    if isinstance(keys, str):
        parts = [part.strip().partition("=") for part in keys.split(",")]
        for array, equals, name in parts:
            if not (array and equals and name):
                raise ValueError(f"keys: got {keys!r}, need ARRAY=NAME with commas between them")
        keys = {array.strip(): name.strip() for array, _, name in parts}
    if not isinstance(keys, Mapping):
        raise ValueError(f"keys: got {type(keys).__name__}, need a mapping or text")
    for array in keys:
        if array not in NAMES:
            raise ValueError(f"keys: got {array!r}, allowed are {', '.join(NAMES)}")
    return {array: os.fspath(name) for array, name in keys.items()}


# -- finding the arrays ----------------------------------------------------------------------------


def found_arrays(
    path: str | os.PathLike[str],
    keys: Mapping[str, str],
    notes: list[str],
    limit: int | None = None,
) -> Arrays:
    """Return the arrays of a file by what they are, not yet checked."""
    files: dict[str, Arrays] = {}

    def arrays_of(file: str | os.PathLike[str]) -> Arrays:
        name = os.fspath(file)
        if name not in files:
            files[name] = read_named(file, limit)
        return files[name]

    own = arrays_of(path)
    found: Arrays = {}
    for array in NAMES:
        if array in keys:
            file, name = _place(keys[array], own)
            source = own if file is None else arrays_of(file)
            place = os.fspath(path) if file is None else file
            found[array] = source[_name(array, name, source, place)]
            if array == "weight" and "bias" not in keys:
                _take_bias(_name(array, name, source, place), source, found)
        elif array not in found and (there := _usual(array, own, path)) is not None:
            found[array] = own[there]
            if array == "weight" and "bias" not in keys:
                _take_bias(there, own, found)
    if "features" not in found:
        _take_other_columns(path, keys, own, found, notes)
    for array in ("features", "labels"):
        if array not in found:
            raise ValueError(
                f"{os.fspath(path)}: {array}: missing; there are {_listed(own)}; say where they "
                f"are by keys (--keys {array}=NAME or {array}=FILE)"
            )
    return found


def further_features(path: str | os.PathLike[str], names: Sequence[str], argument: str) -> Arrays:
    """Return features of other layers, by the names that were given, of a file and of others.

    Parameters
    ----------
    path : path-like
    names : sequence of str
        As the values of ``keys``: names in the file, other files, ``FILE:NAME``.
    argument : str
        What the names are, for messages.

    Raises
    ------
    ValueError
        If a name is given twice or is empty, or there is no such array.
    """
    own = read_named(path) if names else {}
    found: Arrays = {}
    for given in names:
        if not given or given in found:
            what = f"{given!r} is there twice" if given else f"got {','.join(names)!r}, need names"
            raise ValueError(f"{argument}: {what}")
        file, name = _place(given, own)
        source, place = (own, os.fspath(path)) if file is None else (read_named(file), file)
        try:
            found[given] = source[_name("features", name, source, place)]
        except ValueError as error:
            raise ValueError(str(error).replace("keys:", f"{argument}:", 1)) from None
    return found


def _place(value: str, own: Arrays) -> tuple[str | None, str]:
    """Return the file, None for the one at hand, and the name of an array in it."""
    if value in own:
        return None, value
    if Path(value).suffix in (*NAMED, *UNNAMED) and Path(value).is_file():
        return value, ONLY
    file, colon, name = value.rpartition(":")
    if colon and Path(file).suffix in (*NAMED, *UNNAMED):
        return file, name
    return None, value


def _name(array: str, name: str, arrays: Arrays, place: str) -> str:
    """Return the full name of an array; the end of a dotted name does where it is the only one."""
    if name in arrays:
        return name
    if name == ONLY:
        usual = next(iter(arrays)) if len(arrays) == 1 else _usual(array, arrays, place)
        if usual is None:
            raise ValueError(
                f"keys: {place} has {_listed(arrays)}; say which is {array}: {array}={place}:NAME"
            )
        return usual
    ends = [full for full in arrays if full.endswith(f".{name}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ValueError(f"keys: {name!r} in {place} may be {' or '.join(ends)}; give it whole")
    raise ValueError(f"keys: {place} has no {name!r}; it has {_listed(arrays)}")


def _usual(array: str, arrays: Arrays, path: str | os.PathLike[str]) -> str | None:
    """Return the name of an array that goes by one of its usual names."""
    if array == "features" and set(arrays) == {ONLY}:
        return ONLY
    there = [name for name in NAMES[array] if name in arrays]
    if not there and array == "weight":  # inside a checkpoint
        ends = tuple(f".{known}" for known in NAMES[array][1:])
        there = [name for name in arrays if name.endswith(ends)]
    if len(there) > 1 and not all(
        np.array_equal(arrays[there[0]], arrays[other]) for other in there[1:]
    ):
        raise ValueError(
            f"{array}: {os.fspath(path)} has {' and '.join(there)}, which differ; say which by "
            f"keys (--keys {array}=NAME)"
        )
    return there[0] if there else None


def _take_bias(weight: str, arrays: Arrays, found: Arrays) -> None:
    """Take the bias that stands beside a weight."""
    if weight.endswith("weight") and (name := weight.removesuffix("weight") + "bias") in arrays:
        found["bias"] = arrays[name]


def _take_other_columns(
    path: str | os.PathLike[str],
    keys: Mapping[str, str],
    arrays: Arrays,
    found: Arrays,
    notes: list[str],
) -> None:
    """Take the features of a table: its columns of numbers that are nothing else."""
    if Path(path).suffix not in (".csv", ".tsv", ".parquet"):
        return
    taken = {*keys.values(), *LABEL_NAMES}
    matrices = [name for name, column in arrays.items() if column.ndim == 2 and name not in taken]
    if len(matrices) == 1:
        found["features"] = arrays[matrices[0]]
        return
    columns = [
        name
        for name, column in arrays.items()
        if name not in taken
        and column.ndim == 1
        and column.dtype.kind in "iuf"
        and not name.startswith("Unnamed:")  # pandas' index
    ]
    if columns:
        found["features"] = np.column_stack([arrays[name] for name in columns])
        others = [name for name in arrays if name not in columns and name not in taken]
        left = f"; left out: {', '.join(others[:5])}" if others else ""
        notes.append(
            f"features are {len(columns)} columns of numbers, {columns[0]} to {columns[-1]}{left}"
        )


def _listed(arrays: Arrays) -> str:
    shown = [
        f"{name or 'one without a name'} {array.shape}".replace(",)", ")")
        for name, array in arrays.items()
    ]
    # The labels of a table are often its last column.
    return ", ".join([*shown[:6], "...", *shown[-2:]] if len(shown) > 8 else shown) or "no arrays"


def _of_run(folder: Path, setting: str | None) -> Arrays:
    """Return the final arrays of a setting of a run."""
    from tightframe.runs.store import trained_setting

    record = trained_setting(folder, setting)
    assert record.problem is not None
    assert record.final is not None
    with using_record(folder, "run"):
        held_out = {
            name for name in ("held_out_features", "held_out_labels") if name in record.final
        }
        arrays = {name: record.final[name] for name in ("features", "labels", "weight", *held_out)}
        if record.problem.bias != "none":
            arrays["bias"] = record.final["bias"]
        if record.problem.class_names is not None:
            arrays["class_names"] = np.array(record.problem.class_names)
        return arrays


# -- what they have to be --------------------------------------------------------------------------


def _samples(
    features: NDArray[Any],
    labels: NDArray[Any],
    names: tuple[str, ...] | None,
    ignore_index: int | None,
    notes: list[str],
    prefix: str = "",
) -> tuple[NDArray[Any], Indexed]:
    own = indexed(labels, names, ignore_index=ignore_index, name=f"{prefix}labels")
    rows = features.shape[0] if features.ndim else 0
    if rows != len(own.kept):
        raise ValueError(f"{prefix}labels: got {len(own.kept)}, {prefix}features has {rows} rows")
    if own.kept.all():
        return features, own
    left = len(own.kept) - len(own.labels)
    if left == len(own.kept):
        raise all_ignored(f"{prefix}labels", left, ignore_index)
    notes.append(f"{left} of {len(own.kept)} {prefix}samples are labelled {ignore_index}: left out")
    return features[own.kept], own


def classifier_of(weight: NDArray[Any], features: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """Return a classifier with one row a class."""
    if weight.dtype in (np.int8, np.uint8):
        raise ValueError(
            f"weight: got {weight.dtype}, which are codes of a quantised layer; need its weights "
            "as floating-point numbers"
        )
    if weight.ndim == 4 and weight.shape[2:] == (1, 1):
        notes.append(f"weight is a 1 x 1 convolution's, {weight.shape}")
        weight = weight[:, :, 0, 0]
    width = features.shape[1] if features.ndim == 2 else 0
    if weight.ndim == 2 and weight.shape[1] != width == weight.shape[0]:
        notes.append(f"weight has its classes along columns, {weight.shape}: it is turned")
        weight = weight.T
    return wide(weight)


def _require_fitting(own: Indexed, rows: int | None) -> None:
    """Refuse labels that are not those of a number of classes; None: any."""
    if rows is None or not len(own.labels):
        return
    if own.class_names is not None and len(own.class_names) != rows:
        raise ValueError(
            f"class_names: missing; the labels are {len(own.class_names)} names, the classifier "
            f"has {rows} rows: give the names of all of them, in the order of the rows"
        )
    if own.labels.max() >= rows:
        from_one = own.labels.max() == rows and own.labels.min() == 1
        hint = "; do they start from 1? Take 1 off" if from_one else ""
        raise ValueError(f"labels: got {own.labels.max()}, need 0 to {rows - 1}{hint}")


def _held_out(
    path: str | os.PathLike[str],
    held_out: str | os.PathLike[str] | None,
    found: Arrays,
    keys: Mapping[str, str],
    names: tuple[str, ...] | None,
    ignore_index: int | None,
) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    own = [found.get(f"held_out_{part}") for part in ("features", "labels")]
    if held_out is not None:
        if any(part is not None for part in own):
            raise ValueError(f"held_out: got a file, but {os.fspath(path)} has held-out samples")
        arrays = read_named(held_out)
        same = {
            part: keys[part]
            for part in ("features", "labels")
            if part in keys and any(f".{name}".endswith(f".{keys[part]}") for name in arrays)
        }
        apart = found_arrays(held_out, same, [])
        own = [apart[part] for part in ("features", "labels")]
    features, labels = own
    if features is None and labels is None:
        return None
    if features is None or labels is None:
        missing = "features" if features is None else "labels"
        raise ValueError(f"held_out: {os.fspath(path)} has no held_out_{missing}")
    if np.array_equal(features, found["features"]):
        raise ValueError(
            "held_out features: are those of the training, need samples not trained on"
        )
    rows, indices = _samples(features, labels, names, ignore_index, [], "held_out ")
    return rows, indices.labels
