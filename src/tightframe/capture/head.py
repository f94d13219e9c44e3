"""The classifier of a network in use: which it is, what it computes, and when that was read.

Weight and bias are parameters; what counts is what the network does with them. So the first batch
is compared with ``W h + b``, and a batch after every change of the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tightframe.capture.agreement import relation
from tightframe.capture.hooks import Pausable, Recorder
from tightframe.capture.passes import Moment, Pass, Reading
from tightframe.capture.witness import Output, Seen, Witness, seen_of
from tightframe.data.batches import Reduction, sample_rows
from tightframe.heads.affine import Affine, in_eval_mode, rounding_unit
from tightframe.heads.find import (
    Head,
    NoWeight,
    find_head,
    given_head,
    linear_heads,
    unwrapped,
)


class HeadInUse(Pausable):
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
    fewest : int
        Least rows of the head, as for `find_head`.

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
        fewest: int = 2,
    ) -> None:
        self._model, self._fewest = model, fewest
        self._unnamed: ValueError | None = None
        candidates: list[Head] = []
        self.head: Head | None = None
        if weight is not None:
            self.head = given_head(model, weight, bias, head, features, fewest=fewest)
        elif bias is not None or features is not None:
            which = "features" if bias is None else "bias"
            raise ValueError(
                f"{which}: given without weight; a classifier that is found has its own"
            )
        else:
            candidates = [] if head is not None else linear_heads(model, fewest)
            try:
                self.head = find_head(model, head, fewest=fewest)
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
        self._met: Moment | None = None
        self._reading: Reading | None = None
        self._read: Moment | None = None
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
        passed = Pass(self.head, met, features, rows, seen, outputs, outermost)
        with self.paused(), self.recorder.paused(), self._witness.paused():
            if seen is None and not self.head.at_output:
                passed = replace(passed, seen=_run_again(self.head, features))
            reading = passed.reading()
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
            self.adopt(find_head(self._model, found[0].name, fewest=self._fewest))

    def _meet(self) -> None:
        """Keep the head's parameters as they are now, unless that was done."""
        if torch.compiler.is_compiling() or self._is_paused or self.head is None:
            return
        head, state = self.head, self._now()
        if self._met is not None and self._met.state == state:
            return
        weight, bias = head.weight, head.bias
        factors = head.factors if head.layers[1:] else ()
        if self._copy:
            weight, bias = weight.clone(), None if bias is None else bias.clone()
            factors = tuple(factor.clone() for factor in factors)
        self._met = Moment(state, Affine(weight, bias), factors)

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
