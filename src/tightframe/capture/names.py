"""Names of classes that a model or a loader's data set knows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from tightframe.heads.find import unwrapped
from tightframe.problem.class_names import NamesLike, class_names_of

#: What Hugging Face calls classes that have no names.
_PLACEHOLDER = re.compile(r"LABEL_\d+")


def names_for(
    class_names: NamesLike | None,
    model: nn.Module,
    loader: Iterable[Any],
    num_classes: int | None = None,
) -> tuple[str, ...] | None:
    """Return the names of the classes: those given, or else those that are known.

    Known are the model's ``config.id2label`` (Hugging Face), and of the loader's data set
    ``classes`` (torchvision) and the names of its label (Hugging Face's ``datasets``), where they
    are as many as there are classes; ``num_classes`` is None as long as that is not known.

    Raises
    ------
    ValueError
        If those given are not as many.
    """
    if class_names is not None:
        given = class_names_of(class_names)
        if num_classes not in (None, len(given)):
            raise ValueError(
                f"class_names: got {len(given)}, the classifier has {num_classes} rows"
            )
        return given
    for candidate in _candidates(model, loader):
        with contextlib.suppress(ValueError):
            names = class_names_of(candidate)
            fits = num_classes in (None, len(names))
            if fits and not all(map(_PLACEHOLDER.fullmatch, names)):
                return names
    return None


def _candidates(model: nn.Module, loader: Iterable[Any]) -> Iterator[Any]:
    config = getattr(unwrapped(model), "config", None)
    yield getattr(config, "id2label", None) or ()
    dataset = getattr(loader, "dataset", None)
    while dataset is not None:
        yield getattr(dataset, "classes", None) or ()
        features = getattr(dataset, "features", None)
        if isinstance(features, dict):
            for name in ("label", "labels"):
                yield getattr(features.get(name), "names", None) or ()
        inner = getattr(dataset, "dataset", None)  # of torch's Subset
        dataset = inner if inner is not dataset else None
