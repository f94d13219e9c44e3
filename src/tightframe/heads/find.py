"""The last layer of anybody's network: found by its name, or as the last linear layer."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tightframe.geometry.dense import product_of

#: Last parts of the names under which classifiers are looked for, in no order.
HEAD_NAMES = ("classifier", "fc", "head", "heads", "linear", "lm_head", "score")

#: Linear layers that a message names, at most.
_MOST_NAMES = 5


@dataclass(frozen=True, eq=False)
class Head:
    """A model's classifier: where its features come in, and its linear layers.

    Attributes
    ----------
    name : str
        Dotted name of ``module`` in the model.
    module : nn.Module
        Its input are the features.
    layers : tuple of nn.Module
        ``W_1`` (next to the features) to ``W_M``; one layer for an ordinary classifier.
    """

    name: str
    module: nn.Module
    layers: tuple[Any, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return int(self.layers[-1].weight.shape[0])

    @property
    def weight(self) -> Tensor:
        """The weight as it is now, shape (K, D), detached; the product of several layers."""
        product: Tensor = product_of(layer.weight.detach() for layer in self.layers)
        return product

    @property
    def bias(self) -> Tensor | None:
        """The bias as it is now, shape (K,), detached, or None."""
        bias = self.layers[-1].bias
        return None if bias is None else bias.detach()


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return a module by its dotted name.

    Parameters
    ----------
    model : nn.Module
        Names are looked up inside `torch.compile`, ``DistributedDataParallel`` and
        ``DataParallel`` wrappers too.
    name : str
        As in ``model.named_modules()``.

    Raises
    ------
    ValueError
        If there is none; the message lists near names.
    """
    inner = unwrapped(model)
    for candidate in (model, inner):
        try:
            if name:
                return candidate.get_submodule(name)
        except AttributeError:
            continue
    names = [n for n, _ in inner.named_modules() if n]
    leaf = name.rpartition(".")[2]
    near = [n for n in names if n.rpartition(".")[2] == leaf]
    near += [n for n in difflib.get_close_matches(name, names, 5, 0.4) if n not in near]
    hint = f"near names: {', '.join(near[:5])}" if near else f"it has {', '.join(names[:10])}"
    raise ValueError(f"{type(inner).__name__} has no module {name!r}; {hint}")


def find_head(model: nn.Module, name: str | None = None) -> Head:
    """Return a model's classifier.

    Parameters
    ----------
    model : nn.Module
    name : str, optional
        Dotted name of a linear layer (anything with a K x D ``weight``, ``in_features`` and
        ``out_features``), of a `torch.nn.Sequential` of linear layers without bias before the
        last, which counts as their product, or of a module that contains linear layers, of which
        the last is taken (``out_proj`` of a Hugging Face classification head). None looks for a
        module named as in `HEAD_NAMES`, the one nearest to the top.

    Raises
    ------
    ValueError
        If there is no such module, it has no linear layer, or several could be meant.
    """
    if name is not None:
        module = find_module(model, name)
        head = _linear_part(name, module)
        if head is None:
            raise ValueError(
                f"head: {name!r} is a {type(module).__name__} without a linear layer, so it has no "
                f"weight of shape (K, D); linear layers are {_linear_names(model)}"
            )
        return head
    named = [
        (n.count("."), n, m)
        for n, m in unwrapped(model).named_modules()
        if n.rpartition(".")[2] in HEAD_NAMES
    ]
    found = [(depth, head) for depth, n, m in named if (head := _linear_part(n, m)) is not None]
    nearest = [head for depth, head in found if depth == min(d for d, _ in found)]
    if len(nearest) != 1:
        what = " and ".join(repr(head.name) for head in nearest) if nearest else "none"
        raise ValueError(
            f"head: got None, and of the usual names ({', '.join(HEAD_NAMES)}) the model has "
            f"{what}; name the classifier, linear layers are {_linear_names(model)}"
        )
    return nearest[0]


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile`, DDP and DataParallel wrappers."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while True:
        if isinstance(model, wrappers):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _is_linear(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    named = hasattr(module, "in_features") and hasattr(module, "out_features")
    return named and isinstance(weight, Tensor) and weight.ndim == 2 and hasattr(module, "bias")


def _linear_part(name: str, module: nn.Module) -> Head | None:
    if _is_linear(module):
        return Head(name, module, (module,))
    layers = list(module.children())
    if isinstance(module, nn.Sequential) and layers and all(map(_is_linear, layers)):
        inner: list[Any] = layers[:-1]
        if all(layer.bias is None for layer in inner):
            return Head(name, module, tuple(layers))
    inside = [(n, m) for n, m in module.named_modules() if n and _is_linear(m)]
    if not inside:
        return None
    last, layer = inside[-1]
    return Head(f"{name}.{last}", layer, (layer,))


def _linear_names(model: nn.Module) -> str:
    names = [n for n, m in unwrapped(model).named_modules() if n and _is_linear(m)]
    return (
        ", ".join(["...", *names[-_MOST_NAMES:]] if len(names) > _MOST_NAMES else names) or "none"
    )
