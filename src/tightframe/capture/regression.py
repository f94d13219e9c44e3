"""A regression network in memory: features and targets in one pass, and a report a layer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.capture.gather import LayerMoments
from tightframe.capture.head import HeadInUse
from tightframe.capture.layers import Forward, check_repeatable, running
from tightframe.capture.passes import Reading
from tightframe.capture.splits import warn_of_augmentation, warn_of_sampler
from tightframe.checks import number_of
from tightframe.data.batches import LabelsLike, Reduction
from tightframe.metrics.regression_layer import RegressionReport


def regression_report(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Sequence[str] = (),
    head: str | None = None,
    *,
    weight: Any = None,
    bias: Any = None,
    features: str | None = None,
    weight_decay: float | Iterable[float] | None = None,
    feature_decay: float | None = None,
    reduce: Reduction | Mapping[str, Reduction] = "auto",
    targets: LabelsLike = None,
    forward: Forward | None = None,
    check: bool = True,
) -> dict[str, RegressionReport]:
    """Measure NRC1 to NRC3 of a regression network, and of any other named layers.

    The model runs once over the loader in eval mode without gradients, as in `collapse_report`, and
    all features are kept in memory. Hooks, modes and random states are afterwards as before.

    Parameters
    ----------
    model : nn.Module
    loader : iterable of batches
        ``(inputs, targets)``, targets of shape (B, q) or (B,), or mappings with one of the names
        that labels have (``targets``). The training set, without augmentation.
    layers : sequence of str
        Dotted names of modules whose outputs are measured too; the head is measured always.
    head : str, optional
        Dotted name of the linear layer to the targets, whose input are the features; or of a
        `torch.nn.Sequential` of linear layers (a deep linear head). None takes the linear layer
        whose output leaves the model.
    weight, bias, features
        Where it is no linear layer, as in `collapse_report`; one row of a single target.
    weight_decay, feature_decay : float, optional
        Both or neither: the decays of the network in the convention of
        `tightframe.regression_collapse`, to have the geometry predicted and compared. A sequence of
        weight decays has one for each layer of a deep linear head.
    reduce : str, callable, or mapping of layer names to them
        How features with more than two axes become rows, as in `collapse_report`; of sequences it
        has to be said.
    targets : str, int or callable, optional
        Where a batch has its targets, as ``labels`` there.
    forward : callable, optional
        ``forward(model, batch)`` runs the model where ``model(inputs)`` does not do.
    check : bool
        Send the first batch through twice and warn if its features differ; read some samples twice
        and warn if they differ.

    Returns
    -------
    dict of str to RegressionReport
        By layer name, in the order of ``layers``; the head last, under its full name. Notes say
        what the head computes beside ``W h + b``.

    Raises
    ------
    ValueError
        As `collapse_report`, or if targets and outputs are not equally many, a number is not
        finite, or only one decay is given.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> batches = [(torch.eye(4), torch.arange(4.0))]
    >>> reports = regression_report(model, batches, ["1"])
    >>> list(reports), reports["2"].num_targets
    (['1', '2'], 1)
    """
    if not isinstance(loader, Iterable):
        raise ValueError(f"loader: got {type(loader).__name__}, need an iterable of batches")
    use = HeadInUse(model, layers, head, weight, bias, features, copy=False, fewest=1)
    found: dict[str, list[Tensor]] = {}
    wanted: list[Tensor] = []
    # What turns features of any shape into rows; classes are not counted.
    rows: LayerMoments | None = None
    with running(model, loader, use, targets, forward) as run:
        if check:
            warn_of_augmentation(loader)
            warn_of_sampler(loader)
        for batch in loader:
            passed = run(batch)
            parts = passed.parts
            y = parts.labels if parts.labels.ndim == 2 else parts.labels[:, None]
            if y.ndim != 2:
                raise ValueError(
                    f"targets: a batch has shape {tuple(parts.labels.shape)}, need (B, q) or (B,)"
                )
            places = torch.arange(len(y), device=y.device)
            if rows is None:
                assert use.head is not None
                names = [*layers, use.name]
                rows = LayerMoments(2, names, reduce=reduce, scatter=False, ignore_index=None)
                how = rows.reduction(use.name)
                reading = use.read(passed.features[use.name], places, how, parts.mask)
                _require_rows(reading, y)
                rows.unit = reading.name if reading.unit else None
                if check:
                    check_repeatable(model, passed.features, run(batch).features)
            for name, (part, kept) in rows.rows(passed.features, places, parts.mask).items():
                if len(kept) != len(y):
                    raise ValueError(
                        f"reduce: {name!r} gives {number_of(len(kept), 'row')} for "
                        f"{number_of(len(y), 'sample')}"
                    )
                found.setdefault(name, []).append(_kept(part))
            wanted.append(_kept(y))
        if rows is None:
            raise ValueError("loader: no batch seen, nothing passed through the model")
        reading = use.reading
    every = torch.cat(wanted)
    reports = {}
    for name, parts_of in found.items():
        if name != reading.name:
            reports[name] = RegressionReport.measure(torch.cat(parts_of), every)
    factors = reading.factors or (reading.weight,)
    for note in reading.notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    reports[reading.name] = RegressionReport.measure(
        torch.cat(found[reading.name]),
        every,
        [_kept(factor) for factor in factors],
        None if reading.bias is None else _kept(reading.bias),
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        notes=reading.notes,
    )
    return reports


def _require_rows(reading: Reading, targets: Tensor) -> None:
    if len(reading.weight) != targets.shape[1]:
        raise ValueError(
            f"targets: a batch has {targets.shape[1]} a sample, {reading.name!r} gives "
            f"{len(reading.weight)}"
        )


def _kept(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, in a precision that NumPy has."""
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
