"""Whether logits are W h + b of given features, within rounding; and if not, what they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe.checks import number_of
from tightframe.heads.affine import Affine, agrees, rounding_unit

#: Rounding of an 8-bit layer, which rounds its inputs too.
EIGHT_BITS = 2.0**-6

#: The kind of a `Relation` that sets some logits to zero.
DROPOUT = "dropout"

#: Rows below which an offset for every class is not told from one for every sample.
FEWEST_ROWS = 4


@dataclass(frozen=True, eq=False)
class Relation:
    """What a model does to logits on their way out: ``kind`` of ``factor * logits + offset``.

    The factor is a number, or one for every class. The kinds (softmax and so on) keep the order of
    the logits; an empty one is none at all.
    """

    kind: str = ""
    factor: float | Tensor = 1.0
    offset: Tensor | None = None

    @property
    def scaled(self) -> bool:
        """Whether the factor is not one."""
        return isinstance(self.factor, Tensor) or self.factor != 1

    def applied(self, affine: Affine) -> Affine:
        """Return the map from features to what leaves the model (before a softmax)."""
        if not self.scaled and self.offset is None:
            return affine
        weight, bias = affine.weight, affine.bias
        if self.scaled:
            factor = torch.as_tensor(self.factor).to(weight)
            weight = factor.reshape(-1, 1) * weight
            bias = None if bias is None else factor * bias
        if self.offset is not None:
            offset = self.offset.to(weight)
            bias = offset if bias is None else bias + offset
        return Affine(weight, bias, affine.unit)

    def note(self, name: str) -> str:
        """Return what a report says of it; nothing if the logits leave the model as they are."""
        sentences, parts = [], []
        if isinstance(self.factor, Tensor):
            parts.append(f"times a factor for every class ({_range(self.factor)})")
        elif self.scaled:
            parts.append(f"times {self.factor:.6g}")
        if self.offset is not None:
            parts.append(f"plus an offset for every class ({_range(self.offset)})")
        if parts:
            sentences.append(
                f"The model's logits are W h + b of {name!r} {' '.join(parts)}; weight and bias "
                "are measured with that."
            )
        if self.kind == DROPOUT:
            sentences.append(
                f"Dropout acted on the logits of {name!r}, as it does in train mode; they are "
                "measured without."
            )
        elif self.kind:
            sentences.append(
                f"The model's output is the {self.kind} of the logits of {name!r}; the logits are "
                "measured."
            )
        return " ".join(sentences)


def gap(found: Tensor, expected: Tensor) -> str:
    """Return in words by how much two arrays differ."""
    error = found.double() - expected
    share = float(error.norm() / expected.norm().clamp_min(torch.finfo(torch.float64).tiny))
    return (
        f"differ by {float(error.abs().max()):.3g} at most, {share:.2%} on average, "
        f"on {number_of(len(found), 'row')}"
    )


def relation(found: Tensor, expected: Tensor, slack: Tensor) -> Relation | None:
    """Return how a model's prediction comes from logits, None if in no way that is known.

    Known are the logits themselves, times a positive factor or one for every class, plus an offset
    for every class; with a softmax, log-softmax or sigmoid behind; capped by a tanh; the one logit
    of two classes; and dropout.

    Parameters
    ----------
    found : Tensor, shape (n, K), or (n, 1) where K = 2
        What left the model.
    expected, slack : Tensor, shape (n, K), float64
        As `Affine.logits` returns.
    """
    z = found.double()
    if z.shape == expected.shape and agrees(z, expected, slack):
        return Relation()
    if z.shape[1] == 1 and expected.shape[1] == 2:
        difference, room = expected[:, 1:] - expected[:, :1], slack.sum(1, keepdim=True)
        if agrees(z, difference, room):
            return Relation("difference")
        if agrees(z, difference.sigmoid(), room / 4 + rounding_unit(found)):
            return Relation("sigmoid of the difference")
        return None
    if z.shape != expected.shape:
        return None
    eps = 4 * rounding_unit(found)
    ones = z.new_ones(len(z))
    loose = max(1e-5, 2 * eps)
    if bool((z >= 0).all()) and torch.allclose(z.sum(1), ones, rtol=loose, atol=0):
        if agrees(z, expected.softmax(1), (slack + eps) * expected.softmax(1)):
            return Relation("softmax")
        usable = z > math.sqrt(torch.finfo(found.dtype).tiny)
        return _fitted("softmax", z.clamp_min(1e-300).log(), expected, slack + eps, usable)
    if bool((z <= 0).all()) and torch.allclose(z.logsumexp(1), 0 * ones, rtol=0, atol=loose):
        room = slack + eps * (1 + z.abs())
        if agrees(z, expected.log_softmax(1), room):
            return Relation("log-softmax")
        return _fitted("log-softmax", z, expected, room)
    if bool(((z >= 0) & (z <= 1)).all()) and agrees(z, expected.sigmoid(), slack / 4 + eps):
        return Relation("sigmoid")
    return (
        _fitted("", z, expected, slack + eps * z.abs())
        or _capped(z, expected, slack + eps * z.abs())
        or _dropped(z, expected, slack)
    )


# -- inside --------------------------------------------------------------------------------------


def _fitted(
    kind: str, z: Tensor, logits: Tensor, slack: Tensor, usable: Tensor | None = None
) -> Relation | None:
    """Return the factor and offset that explain ``z``, the simplest that do.

    Behind a softmax every row is known up to a constant only, so rows are centred there.
    """
    if usable is not None and not bool(usable.all()):
        return None
    if kind:
        z, logits = z - z.mean(1, keepdim=True), logits - logits.mean(1, keepdim=True)
    within = logits - logits.mean(0)
    whole = float(logits.square().sum())
    choices = []
    if whole > 0:
        choices.append((float((z * logits).sum()) / whole, False))
    if len(z) >= FEWEST_ROWS:
        choices.append((1.0, True))
    if len(z) >= FEWEST_ROWS and float(within.norm()) > 0:
        choices.append((float(((z - z.mean(0)) * within).sum() / within.square().sum()), True))
    for factor, shifted in choices:
        if not (math.isfinite(factor) and factor > 0):
            continue
        offset = (z - factor * logits).mean(0) if shifted else None
        expected = factor * logits if offset is None else factor * logits + offset
        if agrees(z, expected, factor * slack + slack):
            return Relation(kind, factor, offset)
    if kind or len(z) < FEWEST_ROWS:
        return None
    factors = ((z - z.mean(0)) * within).sum(0) / within.square().sum(0)
    offset = z.mean(0) - factors * logits.mean(0)
    if not bool(factors.isfinite().all() & (factors > 0).any()):
        return None
    for shift in (0 * offset, offset):
        if agrees(z, factors * logits + shift, factors.abs() * slack + slack):
            return Relation(kind, factors, shift if bool(shift.any()) else None)
    return None


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.4g} to {float(values.max()):.4g}"


def _capped(z: Tensor, logits: Tensor, slack: Tensor) -> Relation | None:
    """Return the relation ``cap * tanh(logits / cap)``, as of Gemma 2, if there is such a cap."""
    largest = int(logits.abs().argmax())
    size, seen = abs(float(logits.flatten()[largest])), abs(float(z.flatten()[largest]))
    if not 0 < seen < size:
        return None
    low, high = seen, 1e4 * size  # the capped value grows with the cap, from below `seen` on
    for _ in range(100):
        cap = math.sqrt(low * high)
        low, high = (cap, high) if cap * math.tanh(size / cap) < seen else (low, cap)
    if agrees(z, high * (logits / high).tanh(), slack):
        return Relation(f"tanh cap at {high:.4g}")
    return None


def _dropped(z: Tensor, logits: Tensor, slack: Tensor) -> Relation | None:
    """Return the relation of dropout: some entries are zero, the others larger by a factor."""
    kept = z != 0
    size = float(logits[kept].square().sum())
    if bool(kept.all()) or size == 0:
        return None
    factor = float((z[kept] * logits[kept]).sum()) / size
    if factor > 1 and agrees(z[kept], factor * logits[kept], factor * slack[kept]):
        return Relation(DROPOUT)
    return None
