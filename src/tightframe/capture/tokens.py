"""Sequence models: which label belongs to a token, and which token a classifier decides by."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.capture.gather import LayerMoments
from tightframe.data.batches import Batch
from tightframe.heads.find import Head, unwrapped
from tightframe.problem.labels import LABEL_NAMES

#: Classes of Hugging Face whose loss compares a token's logits with the next token's label, and
#: those that do so unless they are encoder-decoders.
_CAUSAL = re.compile(r".*(ForCausalLM|LMHeadModel|LMHead)")
_MAYBE_CAUSAL = re.compile(r".*ForConditionalGeneration")

#: The label that these losses leave out.
_IGNORED = -100

#: Losses of a 16-bit model agree that far.
_SAME_LOSS = 0.02


def takes_labels(model: nn.Module, parts: Batch) -> bool:
    """Tell whether a model has an argument for labels of tokens, from which it computes a loss."""
    labels = parts.labels
    if labels.ndim != 2 or labels.shape[1] < 2 or labels.is_floating_point():
        return False
    if "labels" in parts.kwargs:
        return False
    try:
        return "labels" in inspect.signature(model.forward).parameters
    except ValueError:  # compiled code has no signature
        return False


def read_sequences(
    features: dict[str, Tensor],
    gathered: LayerMoments,
    model: nn.Module,
    head: Head | None,
    parts: Batch,
    output: Any = None,
) -> None:
    """Settle what was left open of a batch of sequences, before its features become rows.

    Of labels (B, T): which label belongs to a token, once. Of one label a sequence: the head's
    features become those of the token that decided, if that can be told.

    Parameters
    ----------
    features : dict of str to Tensor
        By layer; changed in place.
    gathered : LayerMoments
        Where they go.
    model, head
    parts : Batch
    output : optional
        What the model gave, if that is known.

    Raises
    ------
    ValueError
        As `shifts_labels` and `deciding_token`.
    """
    open_ = [n for n, x in features.items() if x.ndim == 3 and gathered.is_automatic(n)]
    labels = parts.labels
    if any(features[n].shape[:2] == labels.shape and labels.shape[1] > 1 for n in open_):
        if gathered.shifted is None:
            gathered.shifted = shifts_labels(model, head, parts, output)
    elif head is not None and head.name in open_ and len(labels) == labels.numel():
        rows = deciding_token(features[head.name], head, model, parts, output)
        if rows is not None:
            features[head.name] = rows


def shifts_labels(
    model: nn.Module, head: Head | None, parts: Batch, output: Any = None
) -> bool | None:
    """Tell whether a model predicts at every token the label of the next one, as causal models do.

    Their labels are the inputs themselves; the loss shifts them. Labels that are the next inputs
    were shifted already.

    Parameters
    ----------
    model : nn.Module
    head : Head or None
    parts : Batch
        Its labels have the shape (B, T).
    output : optional
        What the model made of it, with labels: its own loss decides. Otherwise its class does.

    Returns
    -------
    bool or None
        None if no label of the batch counts, so that another batch must tell.

    Raises
    ------
    ValueError
        If neither decides and the labels are the inputs themselves.
    """
    if not bool((parts.labels != _IGNORED).any()):
        return None
    if _are_inputs(parts, 1):
        return False
    told = _by_own_loss(output, parts.labels)
    if told is None:
        told = _by_class(unwrapped(model), head)
    if told is None and _are_inputs(parts, 0):
        raise ValueError(
            "reduce: the labels are the inputs themselves, token by token, and the model's loss "
            "does not tell which of them it predicts; pass reduce='next_token' for the next one, "
            "'tokens' for the token's own"
        )
    return bool(told)


def deciding_token(
    features: Tensor, head: Head, model: nn.Module, parts: Batch, output: Any
) -> Tensor | None:
    """Return of every sequence the features by which the model decided, shape (B, D).

    The token is that whose logits the model gave; where several have the same, the one that is
    usual: the last that is not padding.

    Parameters
    ----------
    features : Tensor, shape (B, T, D)
        Input of the head.
    head, model
    parts : Batch
        Its labels are one a sequence.
    output
        What the model gave.

    Returns
    -------
    Tensor or None
        None if the output has no logits (B, K) and the model's class does not say either.

    Raises
    ------
    ValueError
        If it gave the logits of no single token.
    """
    usual = _last_token(features, unwrapped(model), parts)
    given = _logits(output)
    batch = torch.arange(len(features), device=features.device)
    if given is None or given.shape != (len(features), head.num_classes):
        return None if usual is None else features[batch, usual]
    logits = _token_logits(features, head)
    off = (logits - given.to(logits)[:, None]).abs().amax(dim=2)
    scale = logits.abs().amax(dim=(1, 2)) + given.abs().amax(dim=1).to(logits)
    slack = math.sqrt(max(torch.finfo(t.dtype).eps for t in (features, given))) * scale
    token = off.argmin(dim=1)
    if usual is not None:
        token = torch.where(off[batch, usual] <= slack, usual, token)
    if not bool((off[batch, token] <= slack).all()):
        raise ValueError(
            f"reduce: {head.name!r} takes in features of shape {tuple(features.shape)}, and the "
            "model's prediction is that of no single token; say which rows are meant: 'mean', "
            "'first', 'last' or a function"
        )
    return features[batch, token]


# -- inside --------------------------------------------------------------------------------------


def _token_logits(features: Tensor, head: Head) -> Tensor:
    """Return what the head makes of every token, adapters on it included, shape (B, T, K)."""
    wide = torch.promote_types(features.dtype, torch.float32)
    with torch.no_grad():
        # Not by a call: hooks would take it for another pass.
        logits = head.module.forward(features) if head.layers else None
    shape = (*features.shape[:2], head.num_classes)
    if isinstance(logits, Tensor) and tuple(logits.shape) == shape:
        return logits.to(wide)
    weight, bias = head.weight.to(features.device, wide), head.bias
    logits = features.to(wide) @ weight.T
    return logits if bias is None else logits + bias.to(logits)


def _by_own_loss(output: Any, labels: Tensor) -> bool | None:
    """Tell by a model's own loss which label belongs to a token; None if it does not tell."""
    loss, logits = _field(output, "loss"), _logits(output)
    if loss is None or logits is None or loss.numel() != 1:
        return None
    if logits.ndim != 3 or logits.shape[:2] != labels.shape:
        return None
    logits, labels = logits.detach().float(), labels.to(logits.device).long()
    kept = labels[labels != _IGNORED]
    if not len(kept) or int(kept.min()) < 0 or int(kept.max()) >= logits.shape[2]:
        return None
    own, following = (
        float(nn.functional.cross_entropy(x.flatten(0, 1), y.flatten(), ignore_index=_IGNORED))
        for x, y in ((logits, labels), (logits[:, :-1], labels[:, 1:]))
    )
    value = float(loss)
    # NaN, where nothing is left to predict, is near nothing.
    fits = [abs(value - other) <= _SAME_LOSS * (1e-3 + abs(other)) for other in (own, following)]
    if fits[0] == fits[1]:
        return None
    return fits[1]


def _by_class(model: nn.Module, head: Head | None) -> bool | None:
    """Tell by the class of the module around a head; None if it is no known one."""
    around = [model]
    if head is not None:
        for part in head.name.split("."):
            inner = getattr(around[-1], part, None)
            if not isinstance(inner, nn.Module):
                break
            around.append(inner)
    for module in around:
        name = type(module).__name__
        if _CAUSAL.fullmatch(name):
            return True
        if _MAYBE_CAUSAL.fullmatch(name):
            config = getattr(module, "config", None)
            return not getattr(config, "is_encoder_decoder", True)
        if re.fullmatch(r".*For(Masked|Token|PreTraining|Question).*", name):
            return False
    return None


def _are_inputs(parts: Batch, ahead: int) -> bool:
    """Tell whether the labels that count are the inputs, whole numbers, so many tokens ahead."""
    labels = parts.labels[:, : parts.labels.shape[1] - ahead]
    named = [value for name, value in parts.kwargs.items() if name not in LABEL_NAMES]
    for inputs in (*parts.args, *named):
        if not isinstance(inputs, Tensor) or inputs.shape != parts.labels.shape:
            continue
        if inputs.is_floating_point() or inputs.dtype == torch.bool:
            continue
        inputs = inputs[:, ahead:].to(labels.device)
        kept = labels != _IGNORED
        # Constant inputs, as masks are, say nothing.
        if len(torch.unique(inputs[kept])) > 1 and bool((inputs[kept] == labels[kept]).all()):
            return True
    return False


def _last_token(features: Tensor, model: nn.Module, parts: Batch) -> Tensor | None:
    """Return the place of the last token that is not padding, as transformers find it, (B,)."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    padding = getattr(config, "pad_token_id", None)
    inputs, mask = parts.kwargs.get("input_ids"), parts.mask
    if inputs is not None and padding is not None:
        mask = inputs != padding
    if config is None and mask is None:
        return None
    length = features.shape[1]
    places = torch.arange(length, device=features.device)
    if mask is None or tuple(mask.shape) != tuple(features.shape[:2]):
        return torch.full_like(places[:1], length - 1).expand(len(features))
    return ((mask != 0).to(features.device) * places).argmax(dim=1)


def _logits(output: Any) -> Tensor | None:
    """Return the logits among what a model gave: a tensor, a field, or an entry."""
    if isinstance(output, Tensor):
        return output.detach()
    logits = _field(output, "logits")
    return None if logits is None else logits.detach()


def _field(output: Any, name: str) -> Tensor | None:
    value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    return value if isinstance(value, Tensor) else None
