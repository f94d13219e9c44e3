"""Named modules of any network, and what passes through them, caught by forward hooks."""

from __future__ import annotations

import contextlib
import difflib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Last parts of the names under which classifiers are looked for, in no order.
HEAD_NAMES = ("classifier", "fc", "head", "heads", "linear", "lm_head", "score")


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
        product: Tensor = self.layers[0].weight.detach()
        for layer in self.layers[1:]:
            product = layer.weight.detach() @ product
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


class Recorder:
    """Forward hooks that keep what a head takes in and what layers give out, one pass at a time.

    A context manager; the hooks exist inside it only.

    Parameters
    ----------
    model : nn.Module
    head : Head or None
        Its input is kept, under its name.
    layers : sequence of str
        Names of modules whose output is kept.

    Raises
    ------
    ValueError
        If a module does not exist or a name is given twice.
    """

    def __init__(self, model: nn.Module, head: Head | None, layers: Sequence[str] = ()) -> None:
        if isinstance(layers, str):
            raise ValueError(f"layers: got the text {layers!r}, need a list of names")
        self._model, self._head = model, head
        self._modules = {name: find_module(model, name) for name in layers}
        self.names = [*layers, *([] if head is None else [head.name])]
        twice = [name for i, name in enumerate(self.names) if name in self.names[:i]]
        if twice:
            raise ValueError(f"layers: {twice[0]!r} is there twice (the head is always measured)")
        self._seen: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Recorder:
        """Register the hooks."""
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._on_output(name)))
        if self._head is not None:
            hook = self._on_input(self._head.name)
            self._handles.append(
                self._head.module.register_forward_pre_hook(hook, with_kwargs=True)
            )
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the hooks and what they kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._seen.clear()

    @property
    def filled(self) -> bool:
        """Whether anything passed since the last `take`."""
        return bool(self._seen)

    def take(self) -> dict[str, Tensor]:
        """Return what the last forward pass left, detached, by name; and forget it.

        Raises
        ------
        ValueError
            If one of the modules did not run.
        """
        seen, self._seen = self._seen, {}
        missing = [name for name in self.names if name not in seen]
        if missing:
            raise ValueError(
                f"layers: {missing[0]!r} did not run in the forward pass (a module called by "
                "another name, or a model compiled before the hooks were there)"
            )
        return seen

    def _on_output(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._keep(name, output)

        return hook

    def _on_input(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._keep(name, [*inputs, *named.values()])

        return hook

    def _keep(self, name: str, value: Any) -> None:
        tensor = _first_tensor(value)
        if tensor is None:
            raise ValueError(f"layers: {name!r} passed on no tensor but {type(value).__name__}")
        if name in self._seen:
            self._seen.clear()
            raise ValueError(
                f"layers: {name!r} ran twice before its features were used; name a module that "
                "runs once in a forward pass, and give labels for every pass"
            )
        # A copy, for what follows may work in place (ReLU after batch norm does).
        self._seen[name] = tensor.detach().clone()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode and without gradients; afterwards every submodule is as before."""
    modes = [(child, child.training) for child in model.modules()]
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        if was_training:
            model.train()  # modules that do more than set a flag undo it here
        for child, mode in modes:
            if child.training != mode:  # setting an attribute of a module is slow
                child.training = mode


@contextlib.contextmanager
def preserved_rng() -> Iterator[None]:
    """Leave the random states of torch (CPU and CUDA), NumPy and Python as they were."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if used else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


# -- inside --------------------------------------------------------------------------------------


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


def _linear_names(model: nn.Module, limit: int = 5) -> str:
    names = [n for n, m in unwrapped(model).named_modules() if n and _is_linear(m)]
    return ", ".join(["...", *names[-limit:]] if len(names) > limit else names) or "none"


def _first_tensor(value: Any) -> Tensor | None:
    """Return the tensor itself or the first in a tuple, list or mapping (a model's output)."""
    if isinstance(value, Tensor):
        return value
    parts: Any = ()
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, list | tuple):
        parts = value
    return next((t for t in map(_first_tensor, parts) if t is not None), None)
