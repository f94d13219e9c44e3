"""What a run keeps of every class at every measurement, ``classes.npz``: made, checked and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array
from tightframe.geometry.states import STATES, States
from tightframe.metrics.wheels import sent_by_network
from tightframe.problem.problem import Problem
from tightframe.runs.store import SettingRecord
from tightframe.views.wheel import Homes, Sent, class_homes

if TYPE_CHECKING:  # tables are read without PyTorch
    from tightframe.runs.task import Arrays
    from tightframe.training.callbacks import Measured

Indices = NDArray[np.intp]

#: Of more classes no logits are kept, whose squares would be most of a record: where the wheel has
#: each class, and its nearest other, instead.
MOST_LOGITS = 128

#: Float16 ends here; no softmax tells larger logits apart.
_LARGEST = 6e4

#: Axes and kind of the arrays of a record: E epochs, K classes; those of few and of many classes.
_ALWAYS = {"epochs": ("E", "i"), "train_accuracy": ("EK", "f"), "test_accuracy": ("EK", "f")}
_FEW = {"logits": ("EKK", "f"), "bias": ("EK", "f"), "test_confusion": ("KK", "i")}
_MANY = {
    "places": ("EK2", "f"),
    "cross": ("E2", "f"),
    "margin": ("EK", "f"),
    "own": ("EK", "f"),
    "taker": ("EK", "i"),
    "taken": ("EK", "f"),
    "state": ("EK", "i"),
    "prediction": ("EK", "i"),
    "taken_for": ("K", "i"),
    "taken_for_share": ("K", "f"),
}

#: Larger numbers of a kind are nobody's: what is computed of them would overflow.
_MOST = {"f": float(np.finfo(np.float32).max), "i": 2**31 - 1}

#: What there is with test samples only.
_OF_TESTS = ("test_confusion", "taken_for", "taken_for_share")


# -- made ------------------------------------------------------------------------------------------


def keeper(problem: Problem) -> Callable[[Measured], Arrays]:
    """Return what takes from a measurement the arrays that are kept of it."""
    homes = class_homes(problem)

    def keep(measured: Measured) -> Arrays:
        classes = range(problem.num_classes)
        rows = {
            f"{part}_accuracy": np.array(
                [measured.row[f"class{k}_{part}_accuracy"] for k in classes], np.float16
            )
            for part in ("train", "test")
        }
        logits = measured.geometry.logits
        bias = np.zeros(len(logits)) if measured.bias is None else measured.bias.numpy()
        if len(logits) <= MOST_LOGITS:
            return rows | {"logits": _half(logits), "bias": bias.astype(np.float32)}
        return rows | _wheel_row(problem, logits, bias, homes)

    return keep


def _wheel_row(problem: Problem, logits: Array, bias: NDArray[Any], homes: Homes) -> Arrays:
    """Return what is kept of many classes in place of their logits."""
    sent = sent_by_network(problem, logits, bias, homes)
    states = sent.states
    others = problem.loss_object.predictions(logits + bias[:, None])
    np.fill_diagonal(others, -np.inf)
    return {
        "places": _half(sent.places),  # of squared errors they may be anywhere
        "cross": _half(sent.cross),
        "margin": _half(states.decision_margin),
        "own": _half(sent.own),
        "taker": others.argmax(axis=0).astype(np.int32),
        "taken": _half(others.max(axis=0)),
        "state": np.array([STATES.index(state) for state in states.state.tolist()], np.int8),
        "prediction": states.prediction.astype(np.int32),
    }


def _half(values: Array) -> NDArray[np.float16]:
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)


def class_arrays(kept: Sequence[Arrays], final: Measured) -> Arrays:
    """Return what ``classes.npz`` holds.

    Parameters
    ----------
    kept : sequence of dict
        What `keeper` took from every measurement, with its ``epoch``.
    final : Measured
        The last one.
    """
    arrays = {"epochs": np.array([row["epoch"] for row in kept], np.int64)}
    for name in kept[-1]:
        if name != "epoch":
            arrays[name] = np.stack([row[name] for row in kept])
    if final.held_out is None or final.test_answers is None:
        return arrays
    k = len(final.weight)
    confusion = confusion_of(final.test_answers.numpy(), final.held_out[1].numpy(), k)
    if k <= MOST_LOGITS:
        return arrays | {"test_confusion": confusion.astype(np.int32)}
    who, share = most_taken(confusion)
    return arrays | {"taken_for": who.astype(np.int32), "taken_for_share": share.astype(np.float16)}


def confusion_of(answers: NDArray[Any], labels: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return how many samples of every class, a column, are taken for each, a row, shape (K, K)."""
    return np.bincount(answers * k + labels, minlength=k * k).reshape(k, k)


def most_taken(confusion: NDArray[Any]) -> tuple[Indices, Array]:
    """Return what samples of every class are most often taken for, wrongly, and their share.

    Where no sample is taken for another class it is -1, and the share 0.
    """
    totals, wrong = confusion.sum(axis=0), confusion.copy()
    np.fill_diagonal(wrong, 0)
    who, times = wrong.argmax(axis=0), wrong.max(axis=0)
    return np.where(times > 0, who, -1), times / np.maximum(totals, 1)


# -- read ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ClassEpochs:
    """What a setting's network did with its classes, epoch by epoch.

    Attributes
    ----------
    epochs : list of int
    sent : list of Sent
        States, margins and places of the classes.
    train_accuracy, test_accuracy : ndarray, shape (E, K), or None
        None where the record has none.
    taken_for : ndarray of int, shape (K,), or None
        What test samples of every class are most often taken for at the last epoch, wrongly; -1
        where none is. None without test samples.
    taken_share : ndarray, shape (K,), or None
        The share of them.
    recorded : bool
        Whether the record has its classes over the epochs; otherwise only the end is known.
    """

    epochs: list[int]
    sent: list[Sent]
    train_accuracy: Array | None
    test_accuracy: Array | None
    taken_for: Indices | None
    taken_share: Array | None
    recorded: bool


def class_epochs(
    setting: SettingRecord, homes: Homes, most: int | None = None
) -> ClassEpochs | None:
    """Return what the record of a setting has of its classes over the epochs.

    Records of earlier versions have the end alone. None on text, and before there is anything.

    Parameters
    ----------
    setting : SettingRecord
    homes : Homes
        Of `class_homes`.
    most : int, optional
        Of more epochs some are left out, evenly; never the first and the last.

    Raises
    ------
    ValueError
        If ``classes.npz`` does not hold what it should; the message names it.
    """
    problem, final = setting.problem, setting.final
    if problem is None or setting.on_text:
        return None
    arrays = checked_classes(setting)
    if arrays is None and final is None:
        return None
    epochs = [_last_epoch(setting)] if arrays is None else arrays["epochs"].tolist()
    number = len(epochs) if most is None else min(max(most, 2), len(epochs))
    places = np.linspace(0, len(epochs) - 1, number).round().astype(int).tolist()
    sent = [
        _kept_sent(problem, arrays, i, homes)
        for i in (places if arrays is not None else ())
        if final is None or i < len(epochs) - 1
    ]
    if final is not None:  # whose numbers have all their digits
        sent.append(sent_by_network(problem, final["logits"], final["bias"], homes))
    chosen = [epochs[i] for i in places]
    taken_for, taken_share = _taken(setting, arrays) or (None, None)
    return ClassEpochs(
        chosen,
        sent,
        train_accuracy=_shares_at(setting, "train", chosen),
        test_accuracy=_shares_at(setting, "test", chosen),
        taken_for=taken_for,
        taken_share=taken_share,
        recorded=arrays is not None,
    )


def class_accuracies(setting: SettingRecord, part: str) -> tuple[list[int], Array] | None:
    """Return epochs and accuracies of all classes, a row a measurement; None where none are kept.

    The history has those of few classes with all their digits, ``classes.npz`` those of many.

    Parameters
    ----------
    setting : SettingRecord
    part : {"train", "test"}
    """
    history, problem = setting.history, setting.problem
    if problem is None or setting.on_text:
        return None
    columns = [f"class{k}_{part}_accuracy" for k in range(problem.num_classes)]
    if history is not None and len(history) and set(columns) <= set(history.columns):
        shares: Array = history[columns].to_numpy(dtype=np.float64)
        return history["epoch"].astype(int).tolist(), shares
    arrays = checked_classes(setting)
    if arrays is None:
        return None
    return arrays["epochs"].tolist(), arrays[f"{part}_accuracy"].astype(np.float64)


def checked_classes(setting: SettingRecord) -> Arrays | None:
    """Return the arrays of ``classes.npz`` after a look at what they hold; None without the file.

    Raises
    ------
    ValueError
        If they are no record of the problem's classes; the message names the file.
    """
    arrays, problem = setting.classes, setting.problem
    if arrays is None or problem is None:
        return None
    try:
        _check(arrays, problem.num_classes)
    except ValueError as error:
        raise ValueError(f"{setting.paths.classes}: not a record of classes ({error})") from None
    return arrays


def _check(arrays: Arrays, k: int) -> None:
    epochs = arrays.get("epochs")
    if epochs is None or epochs.ndim != 1 or not len(epochs) or epochs.dtype.kind != "i":
        raise ValueError("epochs: need whole numbers")
    if epochs[0] < 0 or (np.diff(epochs) <= 0).any():
        raise ValueError("epochs: need rising numbers from 0 on")
    for name, (letters, kind) in (_ALWAYS | (_FEW if k <= MOST_LOGITS else _MANY)).items():
        values = arrays.get(name)
        if values is None:
            if name not in _OF_TESTS:
                raise ValueError(f"{name}: missing")
            continue
        sizes = {"E": len(epochs), "K": k, "2": 2}
        shape = tuple(sizes[letter] for letter in letters)
        if values.shape != shape or values.dtype.kind != kind:
            raise ValueError(
                f"{name}: got shape {values.shape} of {values.dtype}, need {shape} of "
                f"{'whole ' if kind == 'i' else ''}numbers"
            )
        if "accuracy" in name or name == "taken_for_share":
            no_share = (values < 0) | (values > 1)  # of an accuracy NaN is one: no samples
            if (no_share if "accuracy" in name else no_share | np.isnan(values)).any():
                raise ValueError(f"{name}: got entries that are no shares")
        elif not (np.abs(values.astype(np.float64)) <= _MOST[kind]).all():
            raise ValueError(f"{name}: got entries that are not finite, or too large")
    if ("taken_for" in arrays) != ("taken_for_share" in arrays):
        raise ValueError("taken_for, taken_for_share: one is missing")
    for name, low, high, what in (
        ("state", 0, len(STATES), "states"),
        ("taker", 0, k, "classes"),
        ("taken_for", -1, k, "classes"),
        ("test_confusion", 0, np.inf, "counts"),
    ):
        values = arrays.get(name)
        if values is not None and ((values < low) | (values >= high)).any():
            raise ValueError(f"{name}: got entries that are no {what}")


def _kept_sent(problem: Problem, arrays: Arrays | None, i: int, homes: Homes) -> Sent:
    assert arrays is not None
    if "logits" in arrays:
        return sent_by_network(problem, arrays["logits"][i], arrays["bias"][i], homes)
    k = problem.num_classes
    names = np.array(STATES)
    states = States(
        names[arrays["state"][i]],
        arrays["margin"][i].astype(np.float64),
        np.full(k, np.nan),
        arrays["taker"][i].astype(np.intp),
        arrays["prediction"][i].astype(np.intp),
        np.ones(k, dtype=np.intp),
        problem.class_names,
    )
    places, cross, own = (arrays[name][i].astype(float) for name in ("places", "cross", "own"))
    return Sent(states, places, cross, own, None)


def _shares_at(setting: SettingRecord, part: str, epochs: Sequence[int]) -> Array | None:
    """Return the accuracies at some epochs, NaN where there are none; None if there are no others.

    The end of a record without test accuracies may still have its test samples.
    """
    problem = setting.problem
    assert problem is not None
    shares = np.full((len(epochs), problem.num_classes), np.nan)
    found = class_accuracies(setting, part)
    if found is not None:
        rows = dict(zip(*found, strict=True))
        for place, epoch in enumerate(epochs):
            if epoch in rows:
                shares[place] = rows[epoch]
    if part == "test" and np.isnan(shares[-1]).all():
        confusion = _final_confusion(setting)
        if confusion is not None:
            with np.errstate(invalid="ignore"):
                shares[-1] = np.diagonal(confusion) / confusion.sum(axis=0)
    return None if np.isnan(shares).all() else shares


def _taken(setting: SettingRecord, arrays: Arrays | None) -> tuple[Indices, Array] | None:
    if arrays is not None and "taken_for" in arrays:
        return arrays["taken_for"].astype(np.intp), arrays["taken_for_share"].astype(np.float64)
    if arrays is not None and "test_confusion" in arrays:
        return most_taken(arrays["test_confusion"])
    confusion = _final_confusion(setting)
    return None if confusion is None else most_taken(confusion)


def _final_confusion(setting: SettingRecord) -> NDArray[np.int64] | None:
    """Return the test confusion at the end, of the test samples in ``final.npz``."""
    final = setting.final
    if final is None or "held_out_features" not in final or not len(final["held_out_labels"]):
        return None
    scores = final["held_out_features"] @ final["weight"].T + final["bias"]
    k = len(final["weight"])
    return confusion_of(scores.argmax(axis=1), final["held_out_labels"], k)


def _last_epoch(setting: SettingRecord) -> int:
    history = setting.history
    return int(history["epoch"].iloc[-1]) if history is not None and len(history) else 0
