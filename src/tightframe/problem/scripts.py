"""The problem that a training script describes, by numbers, files or objects."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import choice, positive_float
from tightframe.problem.class_names import NamesLike
from tightframe.problem.conventions import Decays, batch_features, batch_of
from tightframe.problem.counts import (
    CountsLike,
    counts_array,
    lasting,
    num_samples,
    parse_counts,
)
from tightframe.problem.labels import IGNORED, class_counts
from tightframe.problem.loss_settings import loss_settings
from tightframe.problem.problem import Problem
from tightframe.problem.settings import Configuration
from tightframe.problem.settings import TrainingSettings as TrainingSettings
from tightframe.problem.settings import training_settings as training_settings

REDUCTIONS = ("mean", "sum")


def training_problem(
    counts: CountsLike,
    *,
    weight_decay: float,
    feature_decay: float | None = None,
    batch_feature_decay: float | None = None,
    batch_size: int | None = None,
    reduction: str = "mean",
    weighted_mean: bool = False,
    **rest: Any,
) -> Problem:
    """Return the problem that a training script's settings amount to.

    Parameters
    ----------
    counts
        As `Problem` takes them.
    weight_decay : float
        Of the optimiser, ``(weight_decay / 2) ||W||^2`` beside the batch's loss.
    feature_decay : float, optional
        As of `Problem`: per sample, beside the mean loss. Or:
    batch_feature_decay : float, optional
        ``(batch_feature_decay / 2) sum_{i in batch} ||h_i||^2`` beside the batch's loss.
    batch_size : int, optional
        Needed with ``batch_feature_decay`` and with ``reduction="sum"``.
    reduction : {"mean", "sum"}
        Of the loss in a batch.
    weighted_mean : bool
        Whether ``class_weights`` divide the loss, as PyTorch's mean does.
    **rest
        Other arguments of `Problem`.

    Raises
    ------
    ValueError
        If an argument is missing or out of range.
    """
    choice("reduction", reduction, REDUCTIONS)
    if (feature_decay is None) == (batch_feature_decay is None):
        what = "got neither" if feature_decay is None else "got both"
        raise ValueError(
            f"feature_decay, batch_feature_decay: {what}, need one; where features decay only "
            "through the network's weights, fit it to a trained network with calibrate (--from-run)"
        )
    counts = lasting(counts)
    total = num_samples(parse_counts(counts))
    if batch_size is not None:
        batch_size = batch_of(batch_size, total)
    elif reduction == "sum" or batch_feature_decay is not None:
        raise ValueError("batch_size: missing; a summed loss or batch_feature_decay needs it")
    share = 1.0
    if batch_feature_decay is not None:
        share = positive_float("batch_feature_decay", batch_feature_decay)
    size = batch_size or 1
    decays = batch_features(
        Decays.given(weight_decay, share, rest.pop("bias_decay", None)),
        total,
        size,
        loss_scale=size if reduction == "sum" else 1,
    )
    if feature_decay is not None:  # of a sample, beside the mean loss: in our units
        decays = decays._replace(feature_decay=feature_decay)
    make = Problem.from_weighted_mean if weighted_mean else Problem
    return make(counts, **decays._asdict(), **rest)


def told_loss(
    config: Configuration, counts: NDArray[np.int64], given: Container[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the terms of the loss that a configuration names and that are not given, and words.

    Parameters
    ----------
    config : Configuration
    counts : ndarray, shape (K,)
    given : container of str
        Arguments of `Problem` that are told otherwise.

    Raises
    ------
    ValueError
        If label smoothing is unclear.

    Warns
    -----
    RuntimeWarning
        If settings that may change the loss are not read.
    """
    terms, said = loss_settings(config, counts, given)
    if "label_smoothing" not in given and (share := config.label_smoothing()) is not None:
        return {"label_smoothing": share} | terms, [f"label_smoothing {share:g}", *said]
    return terms, said


def described_problem(
    counts: str | None = None,
    *,
    labels: Any = None,
    config: Any = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
    class_names: NamesLike | None = None,
    ignore_index: int | None = IGNORED,
    notice: Callable[[str], Any] | None = None,
    **rest: Any,
) -> Problem:
    """Return the problem of a training that is described in parts: by numbers, files or objects.

    Parameters
    ----------
    counts : str, optional
        Or ``labels``, see `class_counts`.
    config : optional
        See `training_settings`: gives weight decay, batch size, label smoothing and what is known
        of its loss where those are left out.
    weight_decay, batch_size, **rest
        As for `training_problem`.
    class_names : sequence of str, mapping, str or path-like, optional
        See `tightframe.problem.class_names.class_names_of`; labels may then be names.
    ignore_index : int, optional
        Labels that do not count.
    notice : callable, optional
        Called with one sentence, what was read from ``config``.

    Raises
    ------
    ValueError
        If something is missing, given twice or out of range.

    Warns
    -----
    RuntimeWarning
        As `training_settings`.
    """
    if (counts is None) == (labels is None):
        what = "got neither" if counts is None else "got both"
        raise ValueError(f"counts, labels: {what}, need one of them")
    if config is not None:
        found, read = Configuration.of(config), dict[str, float | None]()
        if weight_decay is None:
            decoupled = found.decoupled_by()
            if decoupled is not None:
                raise ValueError(
                    f"config: has {decoupled}; AdamW's weight decay, and that of its kind, is no "
                    "penalty of the loss, so that it is not the theory's; fit the decays to a "
                    "trained network (--from-run), or give weight_decay"
                )
            weight_decay = read["weight_decay"] = found.weight_decay()
        summed = rest.get("reduction") == "sum" or rest.get("batch_feature_decay") is not None
        if batch_size is None and summed:  # else it changes nothing
            batch_size = found.batch_size()
            read["batch_size"] = batch_size
        if weight_decay is None:
            raise ValueError("weight_decay: missing, which the configuration does not name")
    if weight_decay is None:
        no_decay = rest.get("feature_decay") is None and rest.get("batch_feature_decay") is None
        raise ValueError(f"weight_decay{', feature_decay' if no_decay else ''}: missing")
    counted: Any = counts
    if counts is None:
        counted, class_names = class_counts(
            labels, class_names=class_names, ignore_index=ignore_index
        )
    if config is not None:
        counted = lasting(counted)
        of_classes = counts_array(parse_counts(counted))
        terms, said = told_loss(found, of_classes, rest)
        rest |= terms
        if notice is not None:
            numbers = [f"{name} {value:g}" for name, value in read.items() if value is not None]
            notice(f"config: read {', '.join(numbers + said) or 'nothing of what is missing'}")
    return training_problem(
        counted,
        weight_decay=weight_decay,
        batch_size=batch_size,
        class_names=class_names,
        **rest,
    )
