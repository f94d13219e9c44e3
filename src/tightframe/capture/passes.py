"""One forward pass compared with its head: weight and bias of what leaves the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from tightframe.capture.agreement import EIGHT_BITS, FEWEST_ROWS, Relation, gap, relation
from tightframe.capture.witness import Output, Seen, some
from tightframe.heads.affine import Affine, agrees, in_eval_mode, linear_map, rounding_unit
from tightframe.heads.find import Head, codes_of


@dataclass(frozen=True, eq=False)
class Reading:
    """Weight and bias at one moment: a copy, for the parameters go on changing.

    Attributes
    ----------
    name : str
    weight : Tensor, shape (K, D)
    bias : Tensor, shape (K,), or None
    factors : tuple of Tensor
        Layers of a deep linear head, empty where its product is not the weight.
    unit : bool
        The weight acts on features of unit length.
    notes : tuple of str
        What a report must say of it.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    factors: tuple[Tensor, ...] = ()
    unit: bool = False
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.weight)


@dataclass(frozen=True, eq=False)
class Moment:
    """The parameters as they were when a batch met them."""

    state: tuple[Any, ...]
    own: Affine
    factors: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass, to be compared with its head.

    ``rows`` are the features as they are measured, one row a label, where there is one each.
    """

    head: Head
    met: Moment
    features: Tensor
    rows: Tensor | None
    seen: Seen | None
    outputs: list[Output]
    outermost: str | None

    def reading(self) -> Reading:
        """Return weight and bias of what leaves the model.

        Raises
        ------
        ValueError
            If that is no affine map of the features.
        """
        head = self.head
        own = self.met.own
        self._require_width(own)
        eps = rounding_unit(self.features, own.weight, None if self.seen is None else self.seen.y)
        if codes_of(head.module):
            eps = max(eps, EIGHT_BITS)
        applied, notes = self._applied(own, eps)
        applied, after, more = self._followed(applied, eps)
        affine = after.applied(applied)
        return Reading(
            head.name,
            affine.weight,
            affine.bias,
            self.met.factors if affine is own else (),
            affine.unit,
            (*notes, *more),
        )

    def _require_width(self, own: Affine) -> None:
        shape = self.features.shape
        widths = {shape[-1], shape[min(1, len(shape) - 1)]}
        if self.rows is not None:
            widths.add(self.rows.shape[1])
        k, width = own.weight.shape
        if width not in widths:
            turned = ": pass its transpose" if k in widths else ""
            raise ValueError(
                f"weight: got shape ({k}, {width}), the features at {self.head.name!r} have shape "
                f"{tuple(shape)}; need (K, D){turned}"
            )

    def _applied(self, own: Affine, eps: float) -> tuple[Affine, list[str]]:
        """Return what the head's module itself computes, as an affine map, and notes on it."""
        head, seen = self.head, self.seen
        pair = None if seen is None else _pair(self.rows, seen)
        if seen is None or pair is None:
            return own, []
        x, y = pair
        if _same(own, x, y, eps):
            return own, []
        what = f"{head.name!r} ({type(head.module).__name__})"
        tried, found = [replace(own, unit=True)], y
        if head.given is None:
            like: Tensor = head.layers[-1].weight
            applied = linear_map(head.module, like, x.shape[1])
            if applied is not None and applied.weight.shape == own.weight.shape:
                tried = [applied, replace(applied, unit=True)]
            if seen.training:  # what is random inside the head comes in train mode only
                settled = in_eval_mode(head.module, x.to(like.dtype))
                found = y if settled is None or settled.shape != y.shape else settled
        for affine in tried:
            if _same(affine, x, found, eps):
                return affine, _applied_notes(what, own, affine)
        if y.shape[1] != len(own.weight) and head.given is not None:
            return own, []  # the model may leave out some classes; its output tells
        if y.shape[1] != len(own.weight):
            raise ValueError(
                f"head: {what} gives {y.shape[1]} columns, its weight has {len(own.weight)} rows"
            )
        expected, _ = own.logits(x, eps)
        square = own.weight.shape[0] == own.weight.shape[1]
        turned = square and _same(Affine(own.weight.T, own.bias), x, y, eps)
        raise ValueError(
            f"head: {what} does not give W h + b of "
            f"{'the given weight' if head.given else 'its weight'} and bias: they "
            f"{gap(y, expected)}"
            + ("; the transpose of the weight fits" if turned else "")
            + "; pass what it computes as weight= and bias="
        )

    def _followed(self, affine: Affine, eps: float) -> tuple[Affine, Relation, list[str]]:
        """Return what the model does to the head's logits on their way out, and notes on it."""
        name = self.head.name
        unchecked = f"Whether the logits of {name!r} leave the model as they are was not checked: "
        if not self.outputs:
            why = "its forward did not run." if self.outermost is None else "it gives no logits."
            return affine, Relation(), [unchecked + why]
        closest: tuple[Tensor, Tensor, str] | None = None
        for output in self.outputs:
            for known, expected, slack in self._expected(affine, output, eps):
                after = relation(output.rows, expected, slack)
                if after is None:
                    closest = closest or (output.rows, expected, output.name)
                    continue
                notes = [after.note(name)] if after.note(name) else []
                if not output.primary:
                    notes.append(f"{name!r} gives {output.name}.")
                if known is not affine:
                    notes += _applied_notes(f"What follows {name!r}", affine, known)
                if self.outermost:
                    notes.append(
                        f"The logits were followed to the output of {self.outermost!r}; the "
                        "model's own forward did not run."
                    )
                return known, after, notes
        passed = [output.name for output in self.outputs]
        if closest is None and not self._of_other_classes():
            shapes = " and ".join(str(output.shape) for output in self.outputs)
            why = f"what it gives, of shape {shapes}, has no row for every row of features."
            return affine, Relation(), [unchecked + why]
        if closest is None:
            differ = f"it has {self.outputs[0].shape[-1]} columns"
        else:
            found, expected, passed[0] = closest
            differ = f"they {gap(found, expected)}"
            if len(found) < FEWEST_ROWS:
                differ += f" (below {FEWEST_ROWS} an offset is not recognised)"
        raise ValueError(
            f"head: what leaves the model ({passed[0]}) is not W h + b of {name!r}, with "
            f"{len(affine.weight)} classes, nor that times a factor, plus an offset or in a "
            f"softmax: {differ}; name the classifier by head=, or pass what the model computes as "
            "weight= and bias="
        )

    def _of_other_classes(self) -> bool:
        """Whether what leaves the model has other columns than the head, row for row."""
        if self.seen is None or len(self.outputs) != 1 or self.outputs[0].shape[-1] == 1:
            return False
        found, given = self.outputs[0].shape, self.seen.shape
        return found[:-1] == given[:-1] and found[-1] != given[-1]

    def _expected(
        self, affine: Affine, output: Output, eps: float
    ) -> Iterator[tuple[Affine, Tensor, Tensor]]:
        """Yield maps, their logits and slack in the order of an output's rows, where it has any."""
        seen, k = self.seen, len(affine.weight)
        if output.rows.shape[1] not in (1, k):
            return
        if seen is not None and output.shape == seen.shape and output.shape[-1] != 1:
            logits = seen.y.double()
            yield affine, logits, rounding_unit(seen.y, output.rows) * logits.abs()
            return
        x = self._features_of(output)
        if x is not None:
            yield affine, *affine.logits(x, max(eps, rounding_unit(output.rows)))
            if seen is None and not affine.unit:  # nothing but the output tells what it computes
                unit = replace(affine, unit=True)
                yield unit, *unit.logits(x, max(eps, rounding_unit(output.rows)))

    def _features_of(self, output: Output) -> Tensor | None:
        """Return the features, as rows, that an output has logits of: one row each, or tokens."""
        rows, tokens = self.rows, self.features
        if rows is not None and len(output.shape) == 2 and output.shape[0] == len(rows):
            return rows[some(len(rows), output.shape[1])]
        if tokens.ndim > 2 and tokens.shape[:-1] == output.shape[:-1]:
            flat = tokens.reshape(-1, tokens.shape[-1])
            return flat[some(len(flat), output.shape[-1])]
        return None


# -- inside --------------------------------------------------------------------------------------


def _pair(rows: Tensor | None, seen: Seen) -> tuple[Tensor, Tensor] | None:
    """Return features and what the head made of them, as rows."""
    if seen.x is not None:
        return seen.x, seen.y
    if rows is not None and len(seen.shape) == 2 and len(rows) == seen.shape[0]:
        return rows[some(len(rows), seen.shape[1])], seen.y
    return None


def _same(affine: Affine, x: Tensor, y: Tensor, eps: float) -> bool:
    """Whether rows of logits are those of a map, or their difference where there are two."""
    if affine.weight.shape[1] != x.shape[1]:
        return False
    expected, slack = affine.logits(x, max(eps, rounding_unit(y)))
    if y.shape[1] == 1:
        return relation(y, expected, slack) is not None
    return y.shape == expected.shape and agrees(y, expected, slack)


def _applied_notes(what: str, own: Affine, applied: Affine) -> list[str]:
    """Return what a report says where a head does not apply its parameters as they are."""
    notes = []
    if applied.weight is not own.weight:
        off = float((applied.weight - own.weight).norm() / applied.weight.norm())
        notes.append(
            f"{what} applies another weight than its parameter, which is off by {off:.2%}; "
            "measured is what it applies (low-rank updates merged, scales and norms included)."
        )
    if applied.unit:
        notes.append(
            f"{what} acts on features of unit length; they are measured so, with the weight that "
            "acts on them."
        )
    return notes
