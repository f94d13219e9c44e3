"""Named modules of any network, and what passes through them, caught by forward hooks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.heads.find import Head, find_module


class Pausable:
    """Whose hooks can be told to let modules run unseen."""

    _is_paused = False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let modules run unseen inside."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False


class Recorder(Pausable):
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
        self._at_head: Any = None

    def __enter__(self) -> Recorder:
        """Register the hooks."""
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._on_output(name)))
        self._hook_head()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the hooks and what they kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._seen.clear()

    def follow(self, head: Head, features: Tensor) -> None:
        """Take another head for the rest, with the features that it met in the last pass.

        Raises
        ------
        ValueError
            If it is among the layers.
        """
        if head.name in self._modules:
            raise ValueError(f"layers: {head.name!r} is there twice (the head is always measured)")
        if self._head is not None:
            self._at_head.remove()
            self._handles.remove(self._at_head)
            self._seen.pop(self._head.name, None)
        self._head, self.names = head, [*self._modules, head.name]
        self._hook_head()
        self._seen[head.name] = features

    @property
    def active(self) -> bool:
        """Whether the hooks are there."""
        return bool(self._handles)

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

    def _hook_head(self) -> None:
        if self._head is None:
            return
        name, module = self._head.name, self._head.module
        if self._head.at_output:
            self._at_head = module.register_forward_hook(self._on_output(name))
        else:
            hook = self._on_input(name)
            self._at_head = module.register_forward_pre_hook(hook, with_kwargs=True)
        self._handles.append(self._at_head)

    def _on_output(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._keep(name, output)

        return hook

    def _on_input(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._keep(name, [*inputs, *named.values()])

        return hook

    def _keep(self, name: str, value: Any) -> None:
        if self._is_paused:
            return
        tensor = first_tensor(value)
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
def uncompiled() -> Iterator[None]:
    """Run compiled modules and functions eagerly: code compiled before runs no hooks.

    Without the compiler in memory nothing is compiled, and loading it would take seconds.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def random_in_training(model: nn.Module, head: nn.Module | None = None) -> str | None:
    """Return the first module whose output in training mode, as it is in, is another each time.

    What is inside the head comes after the features.
    """
    after = set() if head is None else set(head.modules())
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    for name, module in model.named_modules():
        random = module.training and isinstance(module, kinds) and getattr(module, "p", 1.0) > 0
        if random and module not in after:
            return f"{name} ({type(module).__name__})"
    return None


def first_tensor(value: Any) -> Tensor | None:
    """Return the tensor itself or the first in a tuple, list or mapping (a model's output)."""
    if isinstance(value, Tensor):
        return value
    parts: Any = ()
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, list | tuple):
        parts = value
    return next((t for t in map(first_tensor, parts) if t is not None), None)
