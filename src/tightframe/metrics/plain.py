"""Compute without a graph, and on ordinary tensors even under ``torch.inference_mode``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")


class plain_tensors(ExitStack):  # noqa: N801, used like torch.no_grad
    """Compute without a graph, and on ordinary tensors even under ``torch.inference_mode``.

    State allocated as inference tensors could never be updated outside that mode. A context
    manager and a decorator, like `torch.no_grad`.
    """

    def __enter__(self) -> plain_tensors:
        if torch.is_inference_mode_enabled():
            self.enter_context(torch.inference_mode(False))
        if torch.is_grad_enabled():
            self.enter_context(torch.no_grad())
        return self

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a function."""

        @wraps(function)
        def plain(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            # Changing modes takes as long as several small products, and metrics call each other.
            if torch.is_inference_mode_enabled():
                with plain_tensors():
                    return function(*args, **kwargs)
            if not torch.is_grad_enabled():
                return function(*args, **kwargs)
            torch.set_grad_enabled(False)
            try:
                return function(*args, **kwargs)
            finally:
                torch.set_grad_enabled(True)

        return plain
