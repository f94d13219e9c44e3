"""The last layer of anybody's network: found by its name, or given as weight and bias."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from tightframe.checks import number_of
from tightframe.data.batches import as_tensor
from tightframe.geometry.dense import product_of

#: Last parts of the names under which classifiers are looked for, in no order.
HEAD_NAMES = ("classifier", "fc", "head", "heads", "linear", "lm_head", "score")

#: Linear layers that a message names, at most.
_MOST_NAMES = 5

#: Classes that run another module, ``module``, as it is (and may not be installed).
_WRAPPERS = (
    "AveragedModel",
    "DataParallel",
    "DeepSpeedEngine",
    "DistributedDataParallel",
    "FullyShardedDataParallel",
)


class NoWeight(ValueError):  # noqa: N818  (the ValueError is what callers know)
    """A module is no linear layer with a weight that can be read; it may be given, see `remedy`.

    Attributes
    ----------
    remedy : str
        What to pass to functions that take a weight.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


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
        ``W_1`` (next to the features) to ``W_M``; one layer for an ordinary classifier. Empty where
        weight and bias were given.
    given : tuple of weight and bias, optional
        What the caller says that the classifier is, as for `given_head`.
    at_output : bool
        The features are the module's output instead.
    fewest : int
        Least rows of a weight that is given: one of a regression.
    """

    name: str
    module: nn.Module
    layers: tuple[Any, ...]
    given: tuple[Any, Any] | None = None
    at_output: bool = False
    fewest: int = 2

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        last = self.weight if self.given is not None else _weight_of(self.layers[-1])
        return int(last.shape[0])

    @property
    def factors(self) -> tuple[Tensor, ...]:
        """The layers' weights as they are now, detached, the one next to the features first."""
        if self.given is not None:
            return (_given_weight(self.given[0], self.fewest),)
        return tuple(_weight_of(layer).detach() for layer in self.layers)

    @property
    def weight(self) -> Tensor:
        """The weight as it is now, shape (K, D), detached; the product of several layers."""
        product: Tensor = product_of(self.factors)
        return product

    @property
    def bias(self) -> Tensor | None:
        """The bias as it is now, shape (K,), detached, or None."""
        if self.given is not None:
            return _given_bias(self.given[1], self.num_classes)
        bias = self.layers[-1].bias
        return None if bias is None else bias.detach()


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return a module by its dotted name.

    Parameters
    ----------
    model : nn.Module
        Names are looked up inside its wrappers too, see `unwrapped`.
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


def find_head(model: nn.Module, name: str | None = None, *, fewest: int = 2) -> Head:
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
    fewest : int
        Least rows: two of a classifier, one of a regression.

    Raises
    ------
    ValueError
        If there is no such module, it has no linear layer, several could be meant, or its weight
        is no weight (codes of a quantised layer) or has one row (a sigmoid).
    """
    if name is not None:
        module = find_module(model, name)
        heads = _linear_parts(name, module)
        if not heads:
            raise NoWeight(
                f"head: {name!r} is a {type(module).__name__} without a linear layer, so it has no "
                f"weight of shape (K, D); linear layers are {_linear_names(model)}",
                "where it computes W h + b all the same, pass weight= and bias= beside its name",
            )
        if len(heads) > 1:
            raise ValueError(
                f"head: {name!r} is a {type(module).__name__} of several heads; name one of "
                + ", ".join(head.name for head in heads)
            )
        _require_classifier(heads[0], fewest)
        return heads[0]
    named = [
        (n.count("."), head)
        for n, m in unwrapped(model).named_modules()
        if n.rpartition(".")[2] in HEAD_NAMES
        for head in _linear_parts(n, m)
    ]
    # A head of one row is one of several classes only where there is no other.
    found = [(d, head) for d, head in named if _num_rows(head) >= fewest] or named
    nearest = [head for depth, head in found if depth == min(d for d, _ in found)]
    if len(nearest) != 1:
        what = " and ".join(repr(head.name) for head in nearest) if nearest else "none"
        raise NoWeight(
            f"head: got None, and of the usual names ({', '.join(HEAD_NAMES)}) the model has "
            f"{what}; name the classifier, linear layers are {_linear_names(model)}",
            "where it is none of them, pass weight= and bias= beside the name of its module",
        )
    _require_classifier(nearest[0], fewest)
    return nearest[0]


def given_head(
    model: nn.Module,
    weight: Any,
    bias: Any = None,
    head: str | None = None,
    features: str | None = None,
    *,
    fewest: int = 2,
) -> Head:
    """Return a classifier whose weight and bias are given.

    For what is no linear layer: weights with K along the columns, 1 x 1 convolutions,
    ``F.linear(x, self.weight)`` in a model's own forward, quantised layers, sigmoids.

    Parameters
    ----------
    model : nn.Module
    weight : tensor, array_like, or callable that returns one, shape (K, D) or (K, D, 1, 1)
        A parameter is read when it is needed, and so is a callable called; what was computed from
        parameters stays as it was.
    bias : tensor, array_like, or callable that returns one, shape (K,), optional
    head : str, optional
        Dotted name of the module whose *input* are the features.
    features : str, optional
        Instead, dotted name of the module whose *output* they are.
    fewest : int
        Least rows: two of a classifier, one of a regression.

    Raises
    ------
    ValueError
        If neither or both names are given, there is no such module, or a shape is wrong.
    """
    name = head if features is None else features
    if name is None or (head is not None and features is not None):
        raise ValueError(
            "weight: needs the place of the features too, either head= (the name of the module "
            "that takes them in) or features= (of the one that gives them out)"
        )
    found = Head(name, find_module(model, name), (), (weight, bias), features is not None, fewest)
    _ = found.weight, found.bias  # a wrong shape is refused here
    return found


def features_head(model: nn.Module, name: str) -> Head:
    """Return the place of a module's input, whatever the module computes.

    Of a module that contains linear layers it is the last one's, as in `find_head`; a weight may
    not be there.

    Raises
    ------
    ValueError
        If there is no such module, or it contains several heads.
    """
    module = find_module(model, name)
    heads = _linear_parts(name, module)
    return find_head(model, name) if len(heads) > 1 else (heads or [Head(name, module, ())])[0]


def linear_heads(model: nn.Module, fewest: int = 2) -> list[Head]:
    """Return every linear layer of a model that could be a classifier, of so many rows or more."""
    found = [Head(n, m, (m,)) for n, m in unwrapped(model).named_modules() if n and _is_linear(m)]
    return [head for head in found if _num_rows(head) >= fewest and not codes_of(head.module)]


def codes_of(module: nn.Module) -> str:
    """Return in words what a quantised layer stores for its weight, or nothing."""
    weight = _weight_of(module)
    if callable(weight) and not isinstance(weight, Tensor):  # as of torch.ao
        return "packed codes"
    if isinstance(weight, Tensor):
        if weight.is_quantized or not weight.is_floating_point() or weight.element_size() < 2:
            return f"codes of type {str(weight.dtype).removeprefix('torch.')}"
        return ""
    packed = next((n for n in ("qweight", "weight_packed") if hasattr(module, n)), None)
    return "" if packed is None else f"codes in {packed!r}"


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile`, DDP, DataParallel and the like."""
    return wrapping(model)[-1]


def wrapping(model: nn.Module) -> list[nn.Module]:
    """Return a model with what is inside it, wrapper by wrapper; the last is no wrapper."""
    found = [model]
    while True:
        outer = found[-1]
        wraps = any(kind.__name__ in _WRAPPERS for kind in type(outer).__mro__)
        inner = getattr(outer, "module" if wraps else "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return found
        found.append(inner)


# -- inside --------------------------------------------------------------------------------------


def _weight_of(module: nn.Module) -> Any:
    """Return a module's weight as its last pass had it, or None if there is none.

    In train mode spectral norms change themselves whenever they are read.
    """
    inner = module.parametrizations if parametrize.is_parametrized(module) else None
    training = [m for m in inner.modules() if m.training] if isinstance(inner, nn.Module) else []
    for part in training:
        part.training = False
    try:
        return getattr(module, "weight", None)
    finally:
        for part in training:
            part.training = True


def _given_weight(value: Any, fewest: int) -> Tensor:
    weight = as_tensor("weight", value() if callable(value) else value)
    if weight.ndim > 2 and weight.shape[2:].numel() == 1:
        weight = weight.flatten(1)
    if weight.ndim != 2 or weight.shape[0] < fewest or not weight.is_floating_point():
        raise ValueError(
            f"weight: got {str(weight.dtype).removeprefix('torch.')} of shape "
            f"{tuple(weight.shape)}, need real numbers of shape (K, D), one row a class and at "
            f"least {number_of(fewest, 'row')}"
        )
    return weight


def _given_bias(value: Any, num_classes: int) -> Tensor | None:
    value = value() if callable(value) else value
    if value is None:
        return None
    bias = as_tensor("bias", value)
    if bias.shape != (num_classes,) or not bias.is_floating_point():
        raise ValueError(
            f"bias: got {str(bias.dtype).removeprefix('torch.')} of shape {tuple(bias.shape)}, "
            f"need real numbers of shape ({num_classes},)"
        )
    return bias


def _is_linear(module: nn.Module) -> bool:
    named = hasattr(module, "in_features") and hasattr(module, "out_features")
    if not named or not hasattr(module, "bias"):
        return False
    weight = _weight_of(module)
    return (isinstance(weight, Tensor) and weight.ndim == 2) or bool(codes_of(module))


def _num_rows(head: Head) -> int:
    return int(getattr(head.layers[-1], "out_features", 0))


def _require_classifier(head: Head, fewest: int) -> None:
    """Refuse what has too few rows, or no weight that can be read."""
    kind = type(head.layers[-1]).__name__
    for layer in head.layers:
        if codes := codes_of(layer):
            raise NoWeight(
                f"head: {head.name!r} is a {type(layer).__name__}, quantised: it stores {codes}, "
                "not its weight",
                f"pass head={head.name!r} with weight= and bias= as real numbers (dequantised)",
            )
    if _num_rows(head) < fewest:
        raise NoWeight(
            f"head: {head.name!r} is a {kind} with one row w, as before a sigmoid; two classes are "
            "two rows",
            f"pass head={head.name!r}, weight=torch.cat([-w, w]) / 2 and "
            "bias=torch.cat([-b, b]) / 2",
        )


def _linear_parts(name: str, module: nn.Module) -> list[Head]:
    """Return the head that a module is or contains; of a list of heads, each."""
    if _is_linear(module):
        return [Head(name, module, (module,))]
    layers = list(module.children())
    if isinstance(module, nn.Sequential) and layers and all(map(_is_linear, layers)):
        inner: list[Any] = layers[:-1]
        if all(layer.bias is None for layer in inner):
            return [Head(name, module, tuple(layers))]
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        parts = [_linear_parts(f"{name}.{n}", m) for n, m in module.named_children()]
        return [head for part in parts for head in part]
    inside = [(n, m) for n, m in module.named_modules() if n and _is_linear(m)]
    if not inside:
        return []
    last, layer = inside[-1]
    return [Head(f"{name}.{last}", layer, (layer,))]


def _linear_names(model: nn.Module) -> str:
    names = [n for n, m in unwrapped(model).named_modules() if n and _is_linear(m)]
    return (
        ", ".join(["...", *names[-_MOST_NAMES:]] if len(names) > _MOST_NAMES else names) or "none"
    )
