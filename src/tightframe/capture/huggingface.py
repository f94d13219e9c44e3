"""Collapse of a Hugging Face model, measured and logged by its ``Trainer``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from tightframe.capture.gather import NonFiniteFeatures
from tightframe.capture.layers import collapse_report, layer_scalars
from tightframe.checks import whole_number
from tightframe.data.batches import LabelsLike, Reduction
from tightframe.metrics import CollapseReport
from tightframe.metrics.targets import Target

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "CollapseTrainerCallback needs transformers: pip install 'tightframe[hf]'"
    ) from error

_LOADERS = ("evaluation", "train")


class CollapseTrainerCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Measure the collapse of a sequence classifier (or any other) and log it.

    One line attaches it: ``CollapseTrainerCallback().attach(trainer)``. The numbers then go through
    ``trainer.log``: to ``state.log_history`` and to everything in ``report_to``. Given to
    ``Trainer(callbacks=[...])`` it knows no trainer and reaches ``state.log_history`` and the
    metrics that ``evaluate`` returns only. After an evaluation the names begin with ``eval_``, so
    ``metric_for_best_model="eval_collapse/nc1"`` works.

    The features are the input of the classifier's last linear layer. Where that gives one logit
    vector a token (``score`` of GPT-2, Llama and others), the token is the one whose logits the
    model gives. A causal language model's token is of the class of the next one.

    Parameters
    ----------
    head : str, optional
        Dotted name of the classifier; None finds ``classifier``, ``score`` and the like, and in a
        head of several layers (dense, dropout, ``out_proj``) the last.
    layers : sequence of str
        Other modules, whose outputs are measured too, for example ``"bert.encoder.layer.1"``; say
        in ``reduce`` which token is meant.
    loader : {"evaluation", "train"} or iterable of batches
        What is measured: the evaluation's own data after each evaluation, or other data at the end
        of epochs. Collapse is a property of the *training* set. A batch is a mapping with labels.
    num_classes : int, optional
        Number of classes K; None takes the classifier's rows.
    targets : target or iterable of targets, optional
        What NC2 and NC3 are compared with, as for `CollapseReport.measure`: ``"etf"``, or a
        `Solution` for the imbalanced prediction.
    every : int
        Evaluations, or epochs, between measurements.
    reduce : str, callable, or mapping of layer names to them
        As in `tightframe.capture.layers.collapse_report`; for the head ``"auto"`` is as above.
    labels : str, int or callable, optional
        Where a batch has its labels, if not under a usual key.
    nc4 : bool
        Compute NC4, by a second pass over the data.
    scatter, ignore_index, min_count
        As in `tightframe.capture.layers.collapse_report`.
    prefix : str
        Of the logged names.

    Attributes
    ----------
    history : list of dict
        One row a measurement: epoch, step and the numbers, NaN and infinity included.
    reports : dict of str to CollapseReport
        Of the last measurement, by layer; the head last.

    Raises
    ------
    ValueError
        If an argument is out of range; when measuring, as `collapse_report`.

    Notes
    -----
    The data pass through the model once more than without the callback (twice with NC4). In a
    distributed run each process measures its share and the sums are merged; what accelerate or a
    distributed sampler repeats, to make the shares equally long, counts once. A loader of your own
    is then expected to give each process its share.
    """

    def __init__(
        self,
        head: str | None = None,
        layers: Sequence[str] = (),
        *,
        loader: str | Iterable[Any] = "evaluation",
        num_classes: int | None = None,
        targets: Target | Iterable[Target] | None = ("etf",),
        every: int = 1,
        reduce: Reduction | Mapping[str, Reduction] = "auto",
        labels: LabelsLike = None,
        nc4: bool = True,
        scatter: bool = True,
        ignore_index: int | None = -100,
        min_count: int = 1,
        prefix: str = "collapse/",
    ) -> None:
        if isinstance(loader, str) and loader not in _LOADERS:
            raise ValueError(
                f"loader: got {loader!r}, allowed are {', '.join(_LOADERS)} or batches"
            )
        self.history: list[dict[str, float]] = []
        self.reports: dict[str, CollapseReport] = {}
        self._head, self._layers, self._loader = head, list(layers), loader
        self._every = whole_number("every", every)
        self._prefix = prefix
        self._options: dict[str, Any] = {
            "num_classes": num_classes,
            "targets": targets,
            "labels": labels,
            "reduce": reduce,
            "nc4": nc4,
            "scatter": scatter,
            "ignore_index": ignore_index,
            "min_count": min_count,
        }
        self._calls = 0
        self._trainer: Any = None

    def attach(self, trainer: Any) -> CollapseTrainerCallback:
        """Add this callback to a ``transformers.Trainer``, so that its numbers go through its log.

        Returns
        -------
        CollapseTrainerCallback
            This object.
        """
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the data that were just evaluated."""
        if self._loader != "evaluation" or not self._due():
            return
        loader = kwargs.get("eval_dataloader")
        if loader is None:
            raise ValueError("loader: got 'evaluation', but the trainer has no evaluation data")
        scalars = self._measure(kwargs["model"], loader, state)
        logged = {f"eval_{name}": x for name, x in scalars.items()}
        metrics = kwargs.get("metrics")
        if metrics is not None:
            metrics.update(logged)
        self._log(logged, state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the training data or the loader that was given."""
        if self._loader == "evaluation" or not self._due():
            return
        loader: Any = kwargs["train_dataloader"] if self._loader == "train" else self._loader
        self._log(self._measure(kwargs["model"], loader, state), state)

    # -- inside --------------------------------------------------------------------------------

    def _due(self) -> bool:
        self._calls += 1
        return self._calls % self._every == 0

    def _measure(self, model: nn.Module, loader: Iterable[Any], state: Any) -> dict[str, float]:
        try:
            self.reports = collapse_report(
                model,
                loader,
                self._layers,
                self._head,
                check=not self.history,
                synchronize=True,
                **self._options,
            )
        except NonFiniteFeatures as error:
            warnings.warn(f"not measured: {error}", RuntimeWarning, stacklevel=2)
            return {}
        scalars = layer_scalars(self.reports)
        row = {"epoch": float(state.epoch or 0), "step": float(state.global_step)}
        self.history.append(row | scalars)
        return {self._prefix + name: x for name, x in scalars.items() if math.isfinite(x)}

    def _log(self, scalars: dict[str, float], state: Any) -> None:
        if not scalars:
            return
        if self._trainer is not None:
            self._trainer.log(dict(scalars))
        else:
            state.log_history.append({**scalars, "epoch": state.epoch, "step": state.global_step})
