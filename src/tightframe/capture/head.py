"""The classifier of a network in use: which it is, what it computes, and when that was read.

Weight and bias are parameters; what counts is what the network does with them. So the first batch
is compared with ``W h + b``, and a batch after every change of the parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tightframe.capture.agreement import EIGHT_BITS, FEWEST_ROWS, Relation, gap, relation
from tightframe.capture.hooks import Recorder
from tightframe.capture.witness import Output, Seen, Witness, seen_of, some
from tightframe.data.batches import Reduction, sample_rows
from tightframe.heads.affine import Affine, agrees, in_eval_mode, linear_map, rounding_unit
from tightframe.heads.find import (
    Head,
    NoWeight,
    codes_of,
    find_head,
    given_head,
    linear_heads,
    unwrapped,
)


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


class HeadInUse:
    """Finds, checks and reads a model's classifier; a context manager around the passes.

    Parameters
    ----------
    model : nn.Module
    layers : sequence of str
        Other modules whose output is recorded.
    head, weight, bias, features
        As in `tightframe.capture.layers.collapse_report`.
    copy : bool
        Whether the parameters may change before the report is made.

    Attributes
    ----------
    head : Head or None
        None as long as it has no usual name and no batch has passed.
    recorder : Recorder
        Of the layers and of what the head takes in.

    Raises
    ------
    ValueError
        If a module does not exist or a weight cannot be read.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] = (),
        head: str | None = None,
        weight: Any = None,
        bias: Any = None,
        features: str | None = None,
        *,
        copy: bool = True,
    ) -> None:
        self._model = model
        self._unnamed: ValueError | None = None
        candidates: list[Head] = []
        self.head: Head | None = None
        if weight is not None:
            self.head = given_head(model, weight, bias, head, features)
        elif bias is not None or features is not None:
            which = "features" if bias is None else "bias"
            raise ValueError(
                f"{which}: given without weight; a classifier that is found has its own"
            )
        else:
            candidates = [] if head is not None else linear_heads(model)
            try:
                self.head = find_head(model, head)
            except NoWeight as error:
                self._unnamed = ValueError(f"{error}; {error.remedy}")
                if not candidates:
                    raise self._unnamed from None
        self._choosing = bool(candidates)
        own = [] if self.head is None else [self.head]
        self._candidates = [c for c in candidates if not own or c.name != own[0].name] + own
        self._witness = Witness(model, self._candidates, inputs=self._choosing)
        self.recorder = Recorder(model, self.head, layers)
        self._copy = copy
        self._handle: Any = None
        self._probing = False
        self.forget()

    def __enter__(self) -> HeadInUse:
        """Register the hooks."""
        self.recorder.__enter__()
        self._witness.__enter__()
        self._follow()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the hooks; what was read stays."""
        self.recorder.__exit__()
        self._witness.__exit__()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def forget(self) -> None:
        """Forget what was read, to begin anew."""
        self._met: _Moment | None = None
        self._reading: Reading | None = None
        self._read: _Moment | None = None
        self._changes = 0

    def _follow(self) -> None:
        """Read the parameters in every pass, as the head runs."""
        if self._handle is not None:
            self._handle.remove()
        if self.head is not None:
            self._handle = self.head.module.register_forward_hook(lambda *_: self._meet())

    # -- which it is ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the head, as far as it is known."""
        return "the classifier" if self.head is None else self.head.name

    @property
    def ran(self) -> bool:
        """Whether anything was recorded since the last `take` or `clear`."""
        if self.recorder.filled or not self._choosing:
            return self.recorder.filled
        # Layers that could be the head ran; the one with the usual name did not, or was refused.
        seen = self._witness.seen
        return bool(seen) and (self.head is None or self.head.name not in seen)

    def clear(self) -> None:
        """Forget the last pass."""
        if self.recorder.filled:
            self.recorder.take()
        self._witness.clear()

    def take(self) -> dict[str, Tensor]:
        """Return what the last pass left, by name; after the first pass, settle which is the head.

        Raises
        ------
        ValueError
            If no layer or several could be the one that gives the model's prediction, or a module
            did not run.
        """
        if self._choosing:
            chosen = self._choice()
            if chosen is not self.head:
                seen = self._witness.seen[chosen.name]
                if seen.input is None or seen.times > 1:
                    raise ValueError(
                        f"head: got None, and the model's output is that of {chosen.name!r}, which "
                        "runs early or several times; name it if it is meant"
                    )
                self.recorder.follow(chosen, seen.input)
            self.adopt(chosen)
        return self.recorder.take()

    def adopt(self, head: Head) -> None:
        """Settle which is the head; the hooks on the others go."""
        if head is not self.head:
            self._met = None
        self.head, self._choosing = head, False
        self._witness.keep(head)
        if self._handle is not None or self.recorder.active:
            self._follow()

    def _choice(self) -> Head:
        """Return the candidate whose output is the model's prediction."""
        seen = self._witness.seen
        # Where the model's own forward did not run, one module around all of them may have.
        tops = {self._witness.outermost(c) for c in self._candidates if c.name in seen}
        outputs = self._witness.outputs.get(tops.pop() or "", []) if len(tops) == 1 else []
        fitting = [c for c in self._candidates if _gives(c, seen, outputs)]
        fitting = fitting or [c for c in self._candidates if _may_give(c, seen, outputs)]
        if self.head is not None:
            primary = [output for output in outputs if output.primary]
            first = _gives(self.head, seen, primary) or _may_give(self.head, seen, primary)
            if first or not fitting:
                return self.head
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            names = ", ".join(repr(head.name) for head in fitting)
            raise ValueError(
                f"head: got None, and {names} all give an output of the model; name the one that "
                "is meant"
            )
        if not all(bool(output.rows.isfinite().all()) for output in outputs):
            raise ValueError(
                "model: its output is not finite, so that it cannot tell which layer is the head"
            )
        assert self._unnamed is not None
        raise self._unnamed

    # -- what it computes ----------------------------------------------------------------------

    @property
    def reading(self) -> Reading:
        """What was read last, with what a report must say of it and of the moment."""
        assert self.head is not None
        if self._reading is None:  # no batch passed here; another process may have had some
            return _plain(self.head)
        notes = list(self._reading.notes)
        if self._changes:
            notes.append(
                f"The parameters changed {self._changes} time{'s' * (self._changes > 1)} while "
                "batches passed: features are those of a changing network, the classifier is the "
                "one that the last batch met."
            )
        if self._read is not None and self._read.state != self._now():
            notes.append(
                "The classifier is the one that the last batch met; the model's parameters have "
                "changed since."
            )
        return replace(self._reading, notes=tuple(notes))

    def read(
        self, features: Tensor, labels: Tensor, how: Reduction, mask: Tensor | None
    ) -> Reading:
        """Compare the last pass with the head, if it is the first or the model changed since.

        Parameters
        ----------
        features : Tensor
            What the head took in.
        labels, how, mask
            As for `sample_rows`.

        Raises
        ------
        ValueError
            If what leaves the model is not what the head computes.
        """
        assert self.head is not None
        seen, outermost = self._witness.seen.get(self.head.name), self._witness.outermost(self.head)
        outputs = [] if outermost is None else self._witness.outputs[outermost]
        if seen is None or self._met is None:  # compiled, or only now known to be the head
            self._meet()
        met = self._met
        assert met is not None
        self._witness.clear()
        if self._reading is not None and met is self._read:
            return self._reading
        if not bool(features.isfinite().all()):
            return _plain(self.head)  # the features are refused for it
        rows = _rows(features, labels, how, mask)
        passed = _Pass(self.head, met, features, rows, seen, outputs, outermost)
        self._probing = True
        try:
            with self.recorder.paused(), self._witness.paused():
                if seen is None and not self.head.at_output:
                    passed = replace(passed, seen=_run_again(self.head, features))
                reading = passed.reading()
        finally:
            self._probing = False
        if self._reading is not None:
            self._changes += 1
            if reading.unit != self._reading.unit:
                raise ValueError(f"head: {self.name!r} changed what it computes between batches")
        self._reading, self._read = reading, met
        return reading

    def share(self) -> None:
        """Agree with the other processes of a ``torch.distributed`` group; all must call it.

        Where no batch passed, what another process found is taken; and where the weight is not
        simply the parameter, one process's, for rounding differs.
        """
        own = self._reading
        mine = None if own is None else (own.name, bool(own.notes))
        all_of_them: list[tuple[str, bool] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(all_of_them, mine)
        with_any = [rank for rank, other in enumerate(all_of_them) if other is not None]
        simple = all(other is not None and not other[1] for other in all_of_them)
        if simple or not with_any:
            return  # parameters as they are, the same everywhere
        found: list[Any] = [None]
        if own is not None and dist.get_rank() == with_any[0]:
            bias = None if own.bias is None else own.bias.cpu()
            factors = tuple(factor.cpu() for factor in own.factors)
            found = [replace(own, weight=own.weight.cpu(), bias=bias, factors=factors)]
        dist.broadcast_object_list(found, with_any[0])
        self._reading = found[0]
        if self._choosing:
            self.adopt(find_head(self._model, found[0].name))

    def _meet(self) -> None:
        """Keep the head's parameters as they are now, unless that was done."""
        if torch.compiler.is_compiling() or self._probing or self.head is None:
            return
        head, state = self.head, self._now()
        if self._met is not None and self._met.state == state:
            return
        weight, bias = head.weight, head.bias
        factors = head.factors if head.layers[1:] else ()
        if self._copy:
            weight, bias = weight.clone(), None if bias is None else bias.clone()
            factors = tuple(factor.clone() for factor in factors)
        self._met = _Moment(state, Affine(weight, bias), factors)

    def _now(self) -> tuple[Any, ...]:
        """Return what tells one state of the parameters from another."""
        head = self.head
        assert head is not None
        if not self._copy:
            return ()
        marks: list[Any] = []
        for parameter in unwrapped(self._model).parameters():
            version = 0 if parameter.is_inference() else parameter._version
            marks += [id(parameter), version]
        # Averages of weights are often swapped in through .data, which counts no version.
        own: list[Tensor] = [*head.module.parameters(), *head.module.buffers()]
        if head.given is not None:
            own = [*head.factors, *([] if head.bias is None else [head.bias])]
        return (*marks, *map(_sum, own))


@dataclass(frozen=True, eq=False)
class _Moment:
    """The parameters as they were when a batch met them."""

    state: tuple[Any, ...]
    own: Affine
    factors: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class _Pass:
    """One forward pass, to be compared with its head.

    ``rows`` are the features as they are measured, one row a label, where there is one each.
    """

    head: Head
    met: _Moment
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


def _sum(tensor: Tensor) -> float:
    """Return the sum of a tensor's entries, without a copy of it."""
    short = tensor.element_size() < 4
    return float(tensor.detach().sum(dtype=torch.float32 if short else None))


def _run_again(head: Head, features: Tensor) -> Seen | None:
    """Return what a head makes of features, where it was not seen to."""
    logits = in_eval_mode(head.module, features)
    return None if logits is None else seen_of(head, features, logits)


def _plain(head: Head) -> Reading:
    factors = head.factors if len(head.layers) > 1 else ()
    return Reading(head.name, head.weight, head.bias, factors)


def _gives(head: Head, seen: Mapping[str, Seen], outputs: Sequence[Output]) -> bool:
    """Whether an output of the model is what a head gave, as far as `relation` knows."""
    passed = seen.get(head.name)
    if passed is None:
        return False
    logits = passed.y.double()
    slack = rounding_unit(passed.y) * logits.abs()
    return any(
        output.shape == passed.shape and relation(output.rows, logits, slack) is not None
        for output in outputs
    )


def _may_give(head: Head, seen: Mapping[str, Seen], outputs: Sequence[Output]) -> bool:
    """Whether an output may be the logits of one token of a head, or the mean of all."""
    passed = seen.get(head.name)
    return passed is not None and any(
        output.rows.shape[1] == passed.y.shape[1]
        and output.shape[0] == passed.shape[0]
        and len(output.shape) < len(passed.shape)
        for output in outputs
    )


def _rows(features: Tensor, labels: Tensor, how: Reduction, mask: Tensor | None) -> Tensor | None:
    """Return the rows that are measured, one a label; None if they are not that many."""
    places = torch.arange(labels.numel(), device=labels.device).reshape(labels.shape)
    try:
        rows, kept = sample_rows(features, places, how, mask, ignore_index=None)
    except ValueError:
        return None  # the features are refused for it, with the labels
    return rows if len(kept) == labels.numel() and len(rows) == labels.numel() else None


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
