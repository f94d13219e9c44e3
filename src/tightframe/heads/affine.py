"""The affine map from features to logits that a module applies, whatever its parameters are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.heads.modes import evaluating, preserved_rng

#: Rows of features that a module is probed with.
_PROBES = 16

#: Classes whose logits are computed at once, which bounds the memory of a large vocabulary.
_CLASSES = 4096

#: Rounding of float32 products where they may be computed in TF32 or bfloat16.
_TENSOR_CORES = 2.0**-9


@dataclass(frozen=True, eq=False)
class Affine:
    """The map from features to logits, ``W h + b`` or, with `unit`, ``W h / ||h|| + b``."""

    weight: Tensor
    bias: Tensor | None
    unit: bool = False

    def logits(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Return logits of rows (n, D), shape (n, K), float64, and how far rounding may move each.

        ``eps`` is the rounding unit of the layer. Every rounded product moves a sum by at most
        ``eps |w h|``, in random directions, so their squares add up.
        """
        x = self.features(x.double())
        squares = x.square()
        # Made at once: small results between large temporaries would keep their memory apart.
        logits, size = x.new_empty(2, len(x), len(self.weight))
        for start in range(0, len(self.weight), _CLASSES):
            part = slice(start, start + _CLASSES)
            rows = self.weight[part].to(x.device, torch.float64, copy=True)
            logits[:, part] = x @ rows.T
            size[:, part] = (squares @ rows.square_().T).sqrt_() + logits[:, part].abs()
            if self.bias is not None:
                bias = self.bias[part].to(x.device).double()
                logits[:, part] += bias
                size[:, part] += bias.abs()
        # Sums of D terms are accumulated in 32 bits even where the terms have 16.
        accumulated = min(eps, torch.finfo(torch.float32).eps) * math.sqrt(x.shape[1])
        return logits, (eps + accumulated) * size

    def features(self, x: Tensor) -> Tensor:
        """Return the features that the weight acts on: as they are, or of unit length."""
        return nn.functional.normalize(x, dim=-1) if self.unit else x


def rounding_unit(*tensors: Tensor | None) -> float:
    """Return the coarsest rounding unit of some tensors and of how their products are computed."""
    units = [torch.finfo(t.dtype).eps for t in tensors if t is not None and t.is_floating_point()]
    if torch.get_float32_matmul_precision() != "highest" or any(
        t is not None and t.is_cuda and torch.backends.cudnn.allow_tf32 for t in tensors
    ):
        units += [_TENSOR_CORES] if torch.finfo(torch.float32).eps in units else []
    return max(units, default=torch.finfo(torch.float64).eps)


def agrees(found: Tensor, expected: Tensor, slack: Tensor) -> bool:
    """Whether two arrays are equal but for rounding, on average over their entries."""
    error = (found.double() - expected).norm()
    return bool(error <= 4 * slack.norm() + torch.finfo(torch.float64).tiny)


@torch.no_grad()
def applied_map(module: nn.Module, weight: Tensor, bias: Tensor | None) -> Affine | None:
    """Return the affine map that a module with these parameters applies, found by a probe.

    Its own parameters, if they are what it applies; None if it does not run on rows of features.

    Parameters
    ----------
    module : nn.Module
    weight : Tensor, shape (K, D)
    bias : Tensor, shape (K,), or None

    Raises
    ------
    ValueError
        If it applies no affine map, or one to features of unit length.
    """
    own = Affine(weight, bias)
    if type(module) is nn.Linear and not module._forward_hooks and not module._forward_pre_hooks:
        return own
    like = next((p for p in module.parameters() if p.is_floating_point()), weight)
    generator = torch.Generator().manual_seed(0)
    size = torch.logspace(-1, 1, _PROBES)[:, None]  # lengths that a norm would show in
    x = (size * torch.randn(_PROBES, weight.shape[1], generator=generator)).to(like)
    y = in_eval_mode(module, x)
    if y is None or y.ndim != 2:
        return None
    eps = rounding_unit(x, weight, y)

    def applies(affine: Affine) -> bool:
        return y.shape[1] == len(affine.weight) and agrees(y, *affine.logits(x, eps))

    if applies(own):
        return own
    kind = type(module).__name__
    applied = linear_map(module, like, x.shape[1])
    if applied is not None and applies(applied):
        return applied
    if applied is not None and applies(replace(applied, unit=True)):
        raise ValueError(
            f"classifier: got a {kind}, which acts on features of unit length; give such features, "
            "and the pair (weight, bias) that acts on them"
        )
    raise ValueError(
        f"classifier: got a {kind}, which does not give W h + b of its weight or of another; pass "
        "a pair (weight, bias), if there is one"
    )


def linear_map(module: Any, like: Tensor, width: int) -> Affine | None:
    """Return the weight and bias that a module applies if it is affine; None if it does not run.

    They are what it gives for plus and minus the D unit vectors, in eval mode, so they hold for
    whatever the module does with its parameters: low-rank updates, scales, norms.
    """
    unit = torch.eye(width, dtype=like.dtype, device=like.device)
    plus, minus = in_eval_mode(module, unit), in_eval_mode(module, -unit)
    if plus is None or minus is None or plus.ndim != 2:
        return None
    return Affine((plus - minus).T / 2, ((plus + minus) / 2).mean(dim=0))


def in_eval_mode(module: Any, x: Tensor) -> Tensor | None:
    """Return what a module gives in eval mode and full precision; None if it does not run so."""
    with evaluating(module), preserved_rng(), torch.autocast(x.device.type, enabled=False):
        try:
            result = module(x)
        except (TypeError, ValueError, RuntimeError):  # it needs labels too, for example
            return None
    return result if isinstance(result, Tensor) else None
