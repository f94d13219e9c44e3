"""What a classifier takes in and gives out, and what the model predicts, in one forward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.capture.hooks import Pausable, first_tensor
from tightframe.heads.find import Head, find_module, wrapping

#: Rows of logits that are compared, at most, and numbers in them.
_MOST_ROWS, _MOST_NUMBERS = 512, 2**20

#: Modules whose whole input is kept until it is known which is the classifier: the last that ran.
_KEPT = 4


@dataclass(eq=False)
class Seen:
    """One head in one forward pass.

    Attributes
    ----------
    times : int
        How often it ran.
    order : int
        The how manieth of all heads it was.
    input : Tensor or None
        A copy of what it took in, where it was asked for and not dropped since.
    shape : tuple of int
        Of what it gave out.
    x, y : Tensor or None
        Some rows of features (n, D) and what became of them (n, K); None if the shapes are no rows.
    axis : int
        Axis of the classes in what it gave out, 1 for images.
    training : bool
    """

    times: int
    order: int
    input: Tensor | None
    shape: tuple[int, ...]
    x: Tensor | None
    y: Tensor
    axis: int
    training: bool


@dataclass(frozen=True, eq=False)
class Output:
    """A tensor that left the model.

    Attributes
    ----------
    name : str
        In words, for example ``"logits"``.
    primary : bool
        Whether it is the prediction, as far as can be told.
    shape : tuple of int
        (B, 1) for a vector.
    rows : Tensor, shape (n, K)
        Some of its rows, those of `some`.
    """

    name: str
    primary: bool
    shape: tuple[int, ...]
    rows: Tensor


class Witness(Pausable):
    """Forward hooks on heads and on the modules around them; a context manager.

    Parameters
    ----------
    model : nn.Module
    heads : sequence of Head
        Those that could be the classifier.
    inputs : bool
        Keep what they take in, too.

    Attributes
    ----------
    seen : dict of str to Seen
        What the heads did in the last pass, by name.
    outputs : dict of str to list of Output
        What left the modules around them, by name, as far as it is understood; the whole model's
        name is empty.
    """

    def __init__(self, model: nn.Module, heads: Sequence[Head], *, inputs: bool = False) -> None:
        self._model, self._heads, self._inputs = model, heads, inputs
        self._handles: list[Any] = []
        self.clear()

    def clear(self) -> None:
        """Forget the last pass."""
        self.seen: dict[str, Seen] = {}
        self.outputs: dict[str, list[Output]] = {}
        self._before: dict[str, set[str]] = {}  # heads that ran before a module ended

    def __enter__(self) -> Witness:
        """Register the hooks."""
        for head in self._heads:
            if not head.at_output:
                hook = head.module.register_forward_hook(self._on_head(head), with_kwargs=True)
                self._handles.append(hook)
        names = sorted({name for head in self._heads for name in _around(head)})
        around = [(name, find_module(self._model, name)) for name in names]
        # Compiled code is not looked into, but what leaves its wrapper is seen.
        around += [("", module) for module in reversed(wrapping(self._model))]
        for name, module in around:
            self._handles.append(module.register_forward_hook(self._on_output(name)))
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the hooks and what they kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    def outermost(self, head: Head) -> str | None:
        """Return the name of the outermost module that ran around a head; None if none did.

        A module that ended before the head ran gave features only, and the caller ran the head.
        """
        for name in ("", *_around(head)):
            if name in self.outputs and (
                head.name in self._before[name] or head.name not in self.seen
            ):
                return name
        return None

    def keep(self, head: Head) -> None:
        """Look at one head only, from the next pass on."""
        own = self.seen.get(head.name)
        if own is not None:
            own.input = None
        self._heads, self._inputs = [head], False
        self.seen = {} if own is None else {head.name: own}
        if self._handles:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
            self.__enter__()

    def _on_head(self, head: Head) -> Any:
        def hook(
            module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any
        ) -> None:
            if torch.compiler.is_compiling() or self._is_paused:
                return
            value, result = first_tensor([*args, *named.values()]), first_tensor(output)
            if value is None or result is None or result.ndim == 0:
                return
            passed = seen_of(head, value.detach(), result.detach())
            if head.name in self.seen:
                passed.times += self.seen[head.name].times
            passed.order = len(self.seen)
            passed.input = value.detach().clone() if self._inputs else None
            self.seen[head.name] = passed
            self._drop_inputs()

        return hook

    def _drop_inputs(self) -> None:
        kept = [seen for seen in self.seen.values() if seen.input is not None]
        if len(kept) > _KEPT:
            min(kept, key=lambda seen: seen.order).input = None

    def _on_output(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if torch.compiler.is_compiling() or self._is_paused:
                return
            found = predictions(output)
            self.outputs[name] = [self._some_rows(*prediction) for prediction in found]
            self._before[name] = set(self.seen)

        return hook

    def _some_rows(self, name: str, primary: bool, tensor: Tensor) -> Output:
        tensor = tensor.detach()
        tensor = tensor[:, None] if tensor.ndim == 1 else tensor
        axes = [seen.axis for seen in self.seen.values() if seen.shape == tuple(tensor.shape)]
        rows = flat(tensor, axes[-1] if axes else -1)
        # A copy: what the caller does to the logits in place comes before the comparison.
        rows = rows[some(len(rows), rows.shape[1])].clone()
        return Output(name, primary, tuple(tensor.shape), rows)


def seen_of(head: Head, features: Tensor, logits: Tensor) -> Seen:
    """Return what a head did: it made these logits of these features."""
    width = int(head.factors[0].shape[1])
    rows = _rows(features, logits, width)
    return Seen(1, 0, None, tuple(logits.shape), *rows, head.module.training)


def predictions(output: Any) -> Iterator[tuple[str, bool, Tensor]]:
    """Return the tensors that a model gave: name, whether it is the prediction, and tensor.

    A tensor is; so are ``logits`` of an object (as of Hugging Face) or of a mapping; of another
    mapping any may be; of a tuple or list the first that is no scalar is, and others may be.
    """
    logits = output.get("logits") if isinstance(output, Mapping) else None
    logits = getattr(output, "logits", None) if logits is None else logits
    found: list[tuple[str, Any]] = []
    if isinstance(output, Tensor):
        found = [("the model's output", output)]
    elif isinstance(logits, Tensor):
        found = [("'logits' of the model's output", logits)]
    elif isinstance(output, Mapping):
        found = [(f"{name!r} of the model's output", value) for name, value in output.items()]
    elif isinstance(output, tuple | list):
        found = [(f"entry {i} of the model's output", value) for i, value in enumerate(output)]
    tensors = [(name, value) for name, value in found if _is_prediction(value)]
    for i, (name, value) in enumerate(tensors):
        yield name, i == 0 and (len(found) == 1 or not isinstance(output, Mapping)), value


def some(count: int, columns: int) -> slice:
    """Return which of ``count`` rows are compared: all, or some at equal distance."""
    most = max(8, min(_MOST_ROWS, _MOST_NUMBERS // max(columns, 1)))
    return slice(0, None, max(1, math.ceil(count / most)))


def flat(logits: Tensor, axis: int) -> Tensor:
    """Return logits as rows (n, K), given the axis of the classes."""
    return (logits if axis == -1 else logits.movedim(axis, -1)).reshape(-1, logits.shape[axis])


# -- inside --------------------------------------------------------------------------------------


def _around(head: Head) -> list[str]:
    """Return the names of the modules that contain a head, outer ones first."""
    parts = head.name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _is_prediction(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.ndim >= 1
        and value.is_floating_point()
        and value.numel() > 0
    )


def _rows(x: Tensor, y: Tensor, width: int) -> tuple[Tensor | None, Tensor, int]:
    """Return some rows of features and logits, and the axis of the classes."""
    axis = -1
    if x.ndim > 2 and x.ndim == y.ndim and x.shape[2:] == y.shape[2:] and x.shape[1] == width:
        # (B, D, H, W) to (B, K, H, W), unless every axis but the last stays, as for tokens.
        axis = -1 if x.shape[-1] == width and x.shape[:-1] == y.shape[:-1] else 1
    together = x.ndim == y.ndim and (
        x.shape[:-1] == y.shape[:-1] if axis == -1 else x.shape[0] == y.shape[0]
    )
    out = flat(y, axis)
    pick = some(len(out), out.shape[1])
    fits = together and width == x.shape[axis]
    return flat(x, axis)[pick].clone() if fits else None, out[pick].clone(), axis
