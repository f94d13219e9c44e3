"""Names of classes that a model or a loader's data set knows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from tightframe.heads.find import unwrapped
from tightframe.problem.class_names import NamesLike, class_names_of, given_names

#: What Hugging Face calls classes that have no names.
_PLACEHOLDER = re.compile(r"LABEL_\d+")


def names_for(
    class_names: NamesLike | None,
    model: nn.Module,
    loader: Iterable[Any],
    num_classes: int | None = None,
) -> tuple[str, ...] | None:
    """Return the names of the classes: those given, or else those that are known.

    Known are the ``config.id2label`` (Hugging Face) of the model or, where they agree, of the
    models inside it (of a LightningModule, for example), and of the loader's data set
    ``classes`` (torchvision) and the names of its label (Hugging Face's ``datasets``), where they
    are as many as there are classes; ``num_classes`` is None as long as that is not known.

    Raises
    ------
    ValueError
        If those given are not as many.
    """
    if class_names is not None:
        return given_names(class_names, num_classes, f"the classifier has {num_classes} rows")
    inner = unwrapped(model)
    known = _usable([_id2label(inner)], num_classes)
    known = known or _usable(map(_id2label, inner.modules()), num_classes)
    if len(known) != 1:  # of several models inside it any could be the one that is measured
        known = _usable(_of_data(loader), num_classes)
    return next(iter(known), None)


def _usable(candidates: Iterable[Any], num_classes: int | None) -> dict[tuple[str, ...], None]:
    """Return the candidates that are names of so many classes, each once, in order."""
    found: dict[tuple[str, ...], None] = {}
    for candidate in candidates:
        with contextlib.suppress(ValueError):
            names = class_names_of(candidate)
            fits = num_classes in (None, len(names))
            if fits and not all(map(_PLACEHOLDER.fullmatch, names)):
                found[names] = None
    return found


def _id2label(module: nn.Module) -> Any:
    return getattr(getattr(module, "config", None), "id2label", None) or ()


def _of_data(loader: Iterable[Any]) -> Iterator[Any]:
    dataset = getattr(loader, "dataset", None)
    while dataset is not None:
        yield getattr(dataset, "classes", None) or ()
        features = getattr(dataset, "features", None)
        if isinstance(features, dict):
            for name in ("label", "labels"):
                yield getattr(features.get(name), "names", None) or ()
        inner = getattr(dataset, "dataset", None)  # of torch's Subset
        dataset = inner if inner is not dataset else None
