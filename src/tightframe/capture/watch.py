"""Watch a network in an ordinary loop: features are gathered from the batches that pass anyway."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.capture.gather import LayerMoments, Mismatch, in_group
from tightframe.capture.head import HeadInUse
from tightframe.capture.hooks import random_in_training, uncompiled
from tightframe.capture.layers import layer_scalars
from tightframe.capture.names import names_for
from tightframe.capture.sample import Sample
from tightframe.capture.tokens import read_sequences
from tightframe.checks import choice, number_of, whole_number
from tightframe.data.batches import Batch, Reduction, as_tensor
from tightframe.metrics.class_moments import ClassMoments
from tightframe.metrics.moments import WEIGHTINGS
from tightframe.metrics.report import CollapseReport
from tightframe.metrics.targets import Target
from tightframe.problem.class_names import NamesLike, given_names
from tightframe.problem.problem import Problem

#: In the place of labels that are not known yet.
_NONE = torch.empty(0)


class Watch:
    """A context in which a network's features are gathered as its batches pass; also `watch`.

    Parameters
    ----------
    model : nn.Module
        Any network. It runs as you run it: the mode and the gradient mode are yours. The usual
        place is the evaluation loop, in eval mode; around a training epoch the features are those
        of a changing network. What is compiled runs eagerly inside, for compiled code has no hooks.
    head : str, optional
        Dotted name of the classifier, whose *input* are the features; None takes the linear layer
        whose output leaves the model in the first pass, or where that cannot be seen the one with a
        usual name (`tightframe.heads.find.find_head`). What it computes is compared with what
        leaves the model then and after every change of the parameters, as in `collapse_report`.
    layers : sequence of str
        Dotted names of other modules, whose outputs are measured too.
    num_classes : int, optional
        Number of classes K; None takes the classifier's rows.
    weight, bias, features
        As in `tightframe.capture.layers.collapse_report`.
    labels : str, optional
        The model's own argument that holds the labels, as ``"labels"`` of Hugging Face models;
        its ``attention_mask`` is used too. None: give them by `Watch.labels`.
    targets, problem, reduce, scatter, ignore_index, min_count, center
        As in `tightframe.capture.layers.collapse_report`.
    class_names : sequence of str, mapping, str or path-like, optional
        What the classes are called, by default as the model's ``config.id2label`` says; see
        `tightframe.capture.layers.collapse_report`.
    nc4 : bool
        Keep the features for NC4, on the CPU in their own dtype: N x D numbers a layer.
    sample : Sample, optional
        Is given some of the head's features.

    Attributes
    ----------
    moments : dict of str to ClassMoments
        By layer, the head last.
    skipped : int
        Batches with labels of which nothing passed through the head; reports warn of them.

    Raises
    ------
    ValueError
        If a module does not exist or the head has no weight; in the loop, if a forward pass and
        its labels do not come in pairs, a label is out of range, or a feature is not finite.

    Warns
    -----
    RuntimeWarning
        If dropout or batch statistics act in the passes, or batches skipped the head.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> inputs, targets = torch.eye(4).repeat(2, 1), torch.tensor([0, 1] * 4)
    >>> with watch(model, head="2") as watched:
    ...     for x, y in [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]:
    ...         logits = model(x)
    ...         watched.labels(y)
    >>> watched.report().num_samples
    8
    """

    # The pass and the labels that wait for each other, see `_forget`.
    _labels: Tensor | None
    _mask: Tensor | None
    _own: int | None
    _batch: Batch | None
    _output: Any
    _passed_by: bool
    skipped: int

    def __init__(
        self,
        model: nn.Module,
        head: str | None = None,
        layers: Sequence[str] = (),
        num_classes: int | None = None,
        *,
        weight: Any = None,
        bias: Any = None,
        features: str | None = None,
        targets: Target | Iterable[Target] | None = None,
        problem: Problem | None = None,
        class_names: NamesLike | None = None,
        labels: str | None = None,
        reduce: Reduction | Mapping[str, Reduction] = "auto",
        nc4: bool = False,
        scatter: bool = True,
        ignore_index: int | None = -100,
        min_count: int = 1,
        center: str = "class",
        sample: Sample | None = None,
    ) -> None:
        self._model, self._argument, self._nc4 = model, labels, bool(nc4)
        self._use = HeadInUse(model, layers, head, weight, bias, features)
        self._num_classes = (
            None if num_classes is None else whole_number("num_classes", num_classes, 2)
        )
        self._layers = list(layers)
        self._min_count = whole_number("min_count", min_count)
        if layers and not scatter:
            raise ValueError("scatter: got False, hidden layers need it")
        self._options: dict[str, Any] = {
            "reduce": reduce,
            "scatter": scatter,
            "ignore_index": ignore_index,
            "sample": sample,
        }
        self._goals: dict[str, Any] = {
            "targets": targets,
            "problem": problem,
            "center": choice("center", center, WEIGHTINGS),
        }
        self._class_names = given_names(class_names)
        self._handles: list[Any] = []
        self.reset()

    def __repr__(self) -> str:
        state = "watching" if self._handles else "not watching"
        return f"Watch({type(self._model).__name__}, {state})"

    # -- gathering -----------------------------------------------------------------------------

    def __enter__(self) -> Watch:
        """Put the hooks on the model."""
        if self._handles:
            raise ValueError("watch: it is active already; make another for a second loop")
        self._eager = uncompiled()
        self._eager.__enter__()
        self._use.__enter__()
        # The model's own hook says where a pass ends, and which labels it was given.
        hook = self._model.register_forward_hook(self._after_pass, with_kwargs=True)
        self._handles.append(hook)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Take the hooks off; a pass that never got its labels is left out with a warning."""
        try:
            if kind is None:
                self._pair()
                if self._passed_by and not self._use.ran:
                    self.discard()
            unpaired = kind is None and (self._use.ran or self._labels is not None)
        finally:
            self._close()
        if unpaired:
            warnings.warn(
                "watch: the last forward pass and its labels did not come as a pair and are left "
                "out; call labels(y) once for every pass",
                RuntimeWarning,
                stacklevel=2,
            )

    def labels(
        self, labels: Any, mask: Any = None, *, own: int | None = None, batch: Batch | None = None
    ) -> None:
        """Give the labels of a batch, before or after its forward pass, once for every pass.

        Parameters
        ----------
        labels : tensor or array_like, shape (B,), (B, 1), or (B, T) for tokens
        mask : tensor or array_like, shape (B, T), optional
            Attention mask of sequences.
        own : int, optional
            How many samples of the batch, the first ones, count; the others are what a distributed
            sampler repeats. None means all.
        batch : Batch, optional
            What they are part of, `tightframe.data.batches.split_batch`: it helps to tell whether
            a token's label is that of the next one. By default what the model was called with.

        Raises
        ------
        ValueError
            If the watch is not active, or labels were given already.
        """
        if not self._handles:
            raise ValueError("watch: labels() belongs inside the with block")
        if self._argument is not None:
            raise ValueError(
                f"labels: they come from the model's argument {self._argument!r} here; "
                "do not give them as well"
            )
        self._pair()
        if self._passed_by and not self._use.ran:
            if self._labels is None:  # the pass of these labels skipped the head
                self.skipped, self._passed_by = self.skipped + 1, False
                return
            self.discard()
        if self._labels is not None:
            raise ValueError(
                "labels: given twice without a forward pass through "
                f"{self._use.name!r} between; a model that was compiled before runs no hooks"
            )
        self._labels = as_tensor("labels", labels)
        self._mask = None if mask is None else as_tensor("mask", mask)
        self._own = own
        self._batch = batch or self._batch
        self._pair()

    def discard(self) -> None:
        """Forget a forward pass that has no labels, or labels that have no pass."""
        self.skipped += self._labels is not None
        self._use.clear()
        self._forget()

    def reset(self) -> None:
        """Forget everything gathered, to begin another epoch."""
        self._gathered = None if self._use.head is None else self._nothing()
        self._use.forget()
        self._kept: list[dict[str, tuple[Tensor, Tensor]]] = []
        self._warned = False
        self._forget()
        self.skipped = 0

    # -- what was gathered ---------------------------------------------------------------------

    @property
    def moments(self) -> dict[str, ClassMoments]:
        """Moments of every layer; none before the first batch has shown which is the head."""
        return {} if self._gathered is None else self._gathered.moments

    def report(self, *, synchronize: bool = False) -> CollapseReport:
        """Return the report of the last layer, with the classifier that the last batch met.

        Where the parameters changed while batches passed, or since, its `notes` say so.

        Parameters
        ----------
        synchronize : bool
            Merge what all processes of a ``torch.distributed`` group gathered; all must call it.

        Raises
        ------
        ValueError
            If no batch was seen.
        """
        return list(self.reports(synchronize=synchronize).values())[-1]

    def reports(self, *, synchronize: bool = False) -> dict[str, CollapseReport]:
        """Return a report a layer, as `tightframe.capture.layers.collapse_report`."""
        self._pair()
        if self.skipped:
            warnings.warn(
                f"watch: of {number_of(self.skipped, 'batch', 'batches')} with labels "
                f"nothing passed through "
                f"{self._use.name!r}; they are not measured",
                RuntimeWarning,
                stacklevel=3,
            )
        if synchronize and in_group():
            self._use.share()
        if self._use.head is None:
            raise ValueError("watch: no batch seen, nothing with a label passed through the model")
        gathered = self._gathered
        if gathered is None or self._use.name not in gathered.moments:  # no batch passed here
            gathered = self._nothing()
        gathered = gathered.synchronized() if synchronize else gathered
        gathered.require_samples("watch")
        gathered = gathered.at_least(self._min_count)
        reading = self._use.reading
        mismatch = None
        if self._nc4:
            mismatch = Mismatch(gathered.moments, reading)
            for rows in self._kept:
                mismatch.update(rows)
            if synchronize:
                mismatch.synchronize()
        k = gathered.moments[reading.name].num_classes
        names = names_for(self._class_names, self._model, (), k)
        return gathered.reports(reading, mismatch, class_names=names, **self._goals)

    def scalars(self) -> dict[str, float]:
        """Return all numbers for a logger, see `tightframe.capture.layers.layer_scalars`."""
        return layer_scalars(self.reports())

    # -- inside --------------------------------------------------------------------------------

    def _after_pass(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        if self._argument is not None:
            if self._argument not in kwargs:
                raise ValueError(
                    f"labels: the model was called without its argument {self._argument!r}; it got "
                    f"{', '.join(kwargs) or 'no named arguments'}"
                )
            self._labels = as_tensor("labels", kwargs[self._argument])
            self._mask = kwargs.get("attention_mask")
        if not self._use.ran:
            if self._argument is None:
                self._passed_by = True
            else:
                self.discard()
            return
        self._output = output
        if self._batch is None:
            self._batch = Batch(args, kwargs, _NONE, None)
        self._pair()

    def _pair(self) -> None:
        if self._labels is None or not self._use.ran:
            return
        labels, mask, own = self._labels, self._mask, self._own
        batch, output = self._batch or Batch((), {}, labels, mask), self._output
        self._forget()
        features = self._use.take()
        name = self._use.name
        if self._gathered is None or name not in self._gathered.moments:
            self._gathered = self._nothing()
        named = {key: value for key, value in batch.kwargs.items() if key != self._argument}
        parts = Batch(batch.args, named, labels, mask)
        read_sequences(features, self._gathered, self._model, self._use.head, parts, output)
        self._warn_of_noise()
        reading = self._use.read(features[name], labels, self._gathered.reduction(name), mask)
        self._gathered.unit = reading.name if reading.unit else None
        rows = self._gathered.update(features, labels, mask, own)
        if self._nc4:
            # Copies: a row may be a view of a whole sequence.
            self._kept.append(
                {name: (x.to("cpu", copy=True), y.cpu()) for name, (x, y) in rows.items()}
            )

    def _nothing(self) -> LayerMoments:
        """Return moments of no samples."""
        assert self._use.head is not None
        k = self._use.head.num_classes if self._num_classes is None else self._num_classes
        return LayerMoments(k, [*self._layers, self._use.head.name], **self._options)

    def _warn_of_noise(self) -> None:
        head = None if self._use.head is None else self._use.head.module
        if not self._warned and (noisy := random_in_training(self._model, head)) is not None:
            self._warned = True
            warnings.warn(
                f"watch: the network is in training mode, so what {noisy} and the like add may "
                "be in the features, and NC1 counts it; watch a loop in eval mode",
                RuntimeWarning,
                stacklevel=5,
            )

    def _close(self) -> None:
        self._use.__exit__()
        self._eager.__exit__(None, None, None)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    def _forget(self) -> None:
        """Forget the pass and the labels that wait for each other."""
        self._labels = None
        self._mask = None
        self._own = None
        self._batch = None
        self._output = None
        self._passed_by = False  # a pass that skipped the head waits for its labels


watch = Watch
