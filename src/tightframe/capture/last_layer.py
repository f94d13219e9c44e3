"""The last layer of a network that is in memory: its features on a loader, and its classifier."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.capture.gather import LayerMoments
from tightframe.capture.head import HeadInUse
from tightframe.capture.layers import Forward, Run, check_repeatable, running
from tightframe.capture.names import names_for
from tightframe.capture.splits import warn_of_augmentation, warn_of_sampler
from tightframe.data.batches import LabelsLike, Reduction
from tightframe.heads.last_layer import LastLayer
from tightframe.problem.class_names import NamesLike, given_names
from tightframe.problem.problem import FEATURES

#: Arguments of `last_layer` that nothing else is called, beside model, loader and held-out samples.
_OWN = ("class_names", "head", "weight", "reduce", "labels", "forward", "ignore_index")


def last_layer(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    held_out: Iterable[Any] | None = None,
    class_names: NamesLike | None = None,
    head: str | None = None,
    weight: Any = None,
    bias: Any = None,
    features: str | None = None,
    reduce: Reduction = "auto",
    labels: LabelsLike = None,
    forward: Forward | None = None,
    ignore_index: int | None = -100,
) -> LastLayer:
    """Return what is known of a network's last layer: features, labels and classifier.

    The model runs once over the loader in eval mode without gradients, as in `collapse_report`. All
    features are kept in memory.

    Parameters
    ----------
    model : nn.Module
    loader : iterable of batches
        The training set, without augmentation.
    held_out : iterable of batches, optional
        Samples that were not trained on.
    class_names : sequence of str, mapping, str or path-like, optional
        See `tightframe.problem.class_names.class_names_of`; by default those that the model or the
        loader's data set have: ``model.config.id2label`` (Hugging Face), ``dataset.classes``
        (torchvision).
    head, weight, bias, features, reduce, labels, forward, ignore_index
        As for `tightframe.metrics.collapse_report`.

    Returns
    -------
    LastLayer

    Raises
    ------
    ValueError
        As `collapse_report`, or if there is no sample.

    Warns
    -----
    UserWarning
        Of what the head computes beside ``W h + b``, see ``notes`` there.
    RuntimeWarning
        If dropout acts in eval mode, augmentation, or a sampler that draws samples several times.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> batches = [(torch.eye(4), torch.tensor([0, 1, 0, 1]))]
    >>> layer = last_layer(model, batches, head="2", class_names=["cat", "dog"])
    >>> layer.features.shape, layer.name(1)
    ((4, 3), 'dog')
    """
    use = HeadInUse(model, (), head, weight, bias, features)
    class_names = given_names(class_names)
    known = names_for(class_names, model, loader)
    with running(model, loader, use, labels, forward, known) as run:
        warn_of_augmentation(loader)
        warn_of_sampler(loader)
        own = _rows("loader", loader, run, use, reduce, ignore_index)
        apart = None
        if held_out is not None:
            try:
                apart = _rows("held_out", held_out, run, use, reduce, ignore_index)
            except ValueError as error:  # of the same kind for both loaders
                text = str(error)
                named = text if text.startswith("held_out") else f"held_out: {text}"
                raise ValueError(named) from error
        reading = use.reading
    for note in reading.notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    return LastLayer.of(
        *own,
        reading.weight.cpu(),
        None if reading.bias is None else reading.bias.cpu(),
        held_out=apart,
        class_names=names_for(class_names, model, loader, reading.num_classes),
    )


def taken_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of `last_layer` out of those of `tf.advise` and `tf.calibrate`.

    A `Problem` has a ``bias`` and ``features`` too, of a kind; with a ``weight`` that is given,
    anything else is the classifier's.
    """
    taken = {name: options.pop(name) for name in _OWN if name in options}
    if "weight" in taken:
        if not isinstance(options.get("bias"), str | None):
            taken["bias"] = options.pop("bias")
        if options.get("features") not in (None, *FEATURES):
            taken["features"] = options.pop("features")
    return taken


def _rows(
    argument: str,
    loader: Iterable[Any],
    run: Run,
    use: HeadInUse,
    reduce: Reduction,
    ignore_index: int | None,
) -> tuple[Tensor, Tensor]:
    """Return the features and labels of all samples of a loader, on the CPU."""
    if not isinstance(loader, Iterable):
        raise ValueError(f"{argument}: got {type(loader).__name__}, need an iterable of batches")
    parts: list[tuple[Tensor, Tensor]] = []
    gathered: LayerMoments | None = None
    for batch in loader:
        passed = run(batch)
        features, found, _ = passed
        name = use.name
        first = gathered is None
        if gathered is None:
            assert use.head is not None
            gathered = LayerMoments(
                use.head.num_classes,
                [name],
                reduce=reduce,
                scatter=False,
                ignore_index=ignore_index,
            )
        run.settle(passed, gathered)
        if first:
            reading = use.read(features[name], found.labels, reduce, found.mask)
            gathered.unit = reading.name if reading.unit else None
            again = run(batch)
            run.settle(again, gathered)
            check_repeatable(run.model, features, again.features)
        rows, labels = gathered.rows(features, found.labels, found.mask)[name]
        parts.append((rows.float().cpu() if rows.element_size() < 4 else rows.cpu(), labels.cpu()))
    if not sum(len(labels) for _, labels in parts):
        if gathered is not None:
            raise gathered.nothing(argument, use.name)
        raise ValueError(f"{argument}: no batch seen")
    return torch.cat([rows for rows, _ in parts]), torch.cat([labels for _, labels in parts])
