"""`calibrate`: fit decays to a last layer that is given as arrays, or to a model and its loader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike

from tightframe.advice.calibrate import Calibration
from tightframe.advice.calibrate import calibrate as of_arrays
from tightframe.heads.last_layer import LastLayer
from tightframe.problem.class_names import listed
from tightframe.problem.problem import Problem

if TYPE_CHECKING:
    from torch import nn


@overload
def calibrate(
    problem: Problem,
    weight: ArrayLike,
    features: ArrayLike,
    labels: ArrayLike,
    bias: ArrayLike | None = None,
) -> Calibration: ...
@overload
def calibrate(problem: nn.Module, weight: Iterable[Any], **options: Any) -> Calibration: ...
@overload
def calibrate(problem: nn.Module, *, loader: Iterable[Any], **options: Any) -> Calibration: ...
def calibrate(
    problem: Any,
    weight: Any = None,
    features: Any = None,
    labels: Any = None,
    bias: Any = None,
    **options: Any,
) -> Calibration:
    """Fit effective decays to a trained network's last layer.

    ``calibrate(problem, weight, features, labels, bias)`` takes the arrays, see
    `tightframe.advice.calibrate.calibrate`; ``calibrate(model, loader)`` runs the model once over
    its training samples.

    Parameters
    ----------
    problem : Problem or nn.Module
        Loss with all its terms (label smoothing, ...) and bias are taken from a problem, its decays
        are not used.
    weight : array_like, shape (K, d), or iterable of batches
        The classifier; of a model its training samples, without augmentation, which may be called
        ``loader`` too: beside it, ``weight`` is the classifier, as in
        `tightframe.capture.last_layer.last_layer`.
    features : array_like, shape (N, d)
        Of the training samples. Of a model as for `Problem`: ``"real"`` or ``"nonnegative"``;
        beside its classifier any other text is the name of a module.
    labels : array_like, shape (N,), int
        Of a model: where a batch has them, if that cannot be told.
    bias : array_like, shape (K,), optional
        Of a model as for `Problem`; by default ``"free"`` where the classifier has one. Beside its
        classifier, numbers are the classifier's.
    **options
        Of a model: ``class_names``, ``head``, ``reduce``, ``forward`` and ``ignore_index`` of
        `tightframe.capture.last_layer.last_layer`, and other arguments of `Problem` than counts
        and decays.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        As these functions, or if a class has no samples.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(model.weight)
    >>> fit = calibrate(nn.Sequential(model), [(torch.eye(2), torch.tensor([0, 1]))], head="0")
    >>> round(fit.weight_decay, 3)
    0.134
    """
    if not callable(getattr(problem, "named_modules", None)):
        if options:
            raise ValueError(f"{min(options)}: given with a problem, which has it")
        return of_arrays(problem, weight, features, labels, bias)
    given = {"weight": weight, "features": features, "labels": labels, "bias": bias}
    options |= {name: value for name, value in given.items() if value is not None}
    loader = options.pop("loader" if "loader" in options else "weight", None)
    if loader is None:
        raise ValueError("loader: missing; decays are fitted to a model's training samples")
    from tightframe.capture.last_layer import last_layer, taken_options

    layer = last_layer(problem, loader, **taken_options(options))
    options.setdefault("bias", "none" if layer.bias is None else "free")
    return calibrate_layer(layer, **options)


def calibrate_layer(layer: LastLayer, **options: Any) -> Calibration:
    """Fit effective decays to a last layer.

    Parameters
    ----------
    layer : LastLayer
    **options
        Other arguments of `Problem` than counts and decays.

    Raises
    ------
    ValueError
        If a class has no samples, or nothing can be fitted.
    """
    if not layer.counts.all():
        k = int(np.argmin(layer.counts))
        raise ValueError(
            f"labels: class {listed([layer.name(k)])} has no samples; the theory's problem needs "
            f"some of each of the {layer.num_classes} classes"
        )
    problem = Problem(
        layer.counts,
        weight_decay=1.0,
        feature_decay=1.0,
        class_names=layer.class_names,
        **options,
    )
    bias = layer.bias
    if problem.bias == "none" and bias is not None and not np.any(bias):
        bias = None
    return of_arrays(problem, layer.weight, layer.features, layer.labels, bias)
