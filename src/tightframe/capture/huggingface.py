"""Collapse of a Hugging Face model, measured and logged by its ``Trainer``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from tightframe.capture.course import Course
from tightframe.capture.gather import NonFiniteFeatures
from tightframe.capture.layers import collapse_report, layer_scalars
from tightframe.capture.pictures import Pictures, known_of
from tightframe.capture.record import TrainingRecord
from tightframe.capture.splits import SPLIT_NAMES, announce, split_scalars
from tightframe.checks import choice, whole_number
from tightframe.data.batches import LabelsLike, Reduction
from tightframe.heads.find import unwrapped
from tightframe.metrics import CollapseReport
from tightframe.metrics.moments import WEIGHTINGS
from tightframe.metrics.targets import Target, target_list
from tightframe.problem.class_names import NamesLike, given_names
from tightframe.problem.problem import Problem

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
    metrics that ``evaluate`` returns only.

    Collapse is a property of the *training* set, so while training that is what is measured, at the
    end of epochs; outside training, evaluated data are. With ``loader="evaluation"`` those are
    measured after each evaluation, under its own prefix: ``eval_collapse/nc1``, and of several
    evaluation sets ``eval_<set>_collapse/nc1``. So they are, too, where ``metric_for_best_model``
    has such a name. ``collapse/on_training_set`` is 1 or 0, and every report says what it was
    measured on.

    What ``report_to`` names of TensorBoard, W&B and MLflow is also given the wheel, where every
    class is sent, of the 1st, 2nd, 3rd, 4th, 6th, 8th, 11th, 16th, ... and the last measurement;
    TensorBoard and W&B the class means, classifier and up to 2,000 features with the names of their
    classes, at the Trainer's last step.

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
    loader : {"train", "evaluation"} or iterable of batches, optional
        What is measured: the evaluation's own data after each evaluation, or other data at the end
        of epochs. None: the training set, see above. A batch is a mapping with labels.
    num_classes : int, optional
        Number of classes K; None takes the classifier's rows.
    weight, bias, features, class_names
        As in `tightframe.capture.layers.collapse_report`.
    targets : target or iterable of targets, optional
        What NC2 and NC3 are compared with, as for `CollapseReport.measure`: ``"etf"``, or a
        `Solution` for the imbalanced prediction, which wheels then have as rings.
    problem : Problem, optional
        What the model is trained as, for the certificate gap, the wheel and `record`: by default
        a wheel takes cross-entropy for the loss.
    every : int
        Evaluations (of each set), or epochs, between measurements.
    reduce : str, callable, or mapping of layer names to them
        As in `tightframe.capture.layers.collapse_report`; for the head ``"auto"`` is as above.
    labels : str, int or callable, optional
        Where a batch has its labels, if not under a usual key.
    nc4 : bool
        Compute NC4, by a second pass over the data.
    scatter, ignore_index, min_count, center
        As in `tightframe.capture.layers.collapse_report`.
    prefix : str
        Of the logged names.
    pictures : bool
        Whether loggers that take pictures are given some.

    Attributes
    ----------
    history : list of dict
        One row a measurement: epoch, step and the numbers, NaN and infinity included; of several
        evaluation sets also ``"set"``, the prefix.
    reports : dict of str to CollapseReport
        Of the last measurement, by layer; the head last.
    split : str or None
        What was measured last: ``"train"``, ``"evaluation"`` or ``"loader"``.

    Raises
    ------
    ValueError
        If an argument is out of range; when measuring, as `collapse_report`.

    Warns
    -----
    RuntimeWarning
        If dropout, augmentation or a collator's masking acts, or features are not finite; at the
        end of the training if nothing was measured, with the reason.

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
        loader: str | Iterable[Any] | None = None,
        num_classes: int | None = None,
        weight: Any = None,
        bias: Any = None,
        features: str | None = None,
        class_names: NamesLike | None = None,
        targets: Target | Iterable[Target] | None = ("etf",),
        every: int = 1,
        reduce: Reduction | Mapping[str, Reduction] = "auto",
        labels: LabelsLike = None,
        nc4: bool = True,
        scatter: bool = True,
        ignore_index: int | None = -100,
        min_count: int = 1,
        center: str = "class",
        prefix: str = "collapse/",
        problem: Problem | None = None,
        pictures: bool = True,
    ) -> None:
        if isinstance(loader, str) and loader not in _LOADERS:
            raise ValueError(
                f"loader: got {loader!r}, allowed are {', '.join(_LOADERS)} or batches"
            )
        self.history: list[dict[str, Any]] = []
        self.reports: dict[str, CollapseReport] = {}
        self._head, self._layers, self._loader = head, list(layers), loader
        self._every = whole_number("every", every)
        self._prefix = prefix
        self._options: dict[str, Any] = {
            "num_classes": num_classes,
            "weight": weight,
            "bias": bias,
            "features": features,
            "class_names": given_names(class_names),
            "targets": None if targets is None else target_list(targets),
            "labels": labels,
            "reduce": reduce,
            "nc4": nc4,
            "scatter": scatter,
            "ignore_index": ignore_index,
            "min_count": min_count,
            "center": choice("center", center, WEIGHTINGS),
            "problem": problem,
        }
        # By the evaluation set, which is measured apart from others.
        self._courses: dict[str, Course] = {}
        self._pictures: dict[str, Pictures] | None = {} if pictures else None
        self._network, self._last = "", ""
        self.split: str | None = None
        self._calls: dict[str, int] = {}
        self._due_ones = 0
        self._checked = False
        self._trainer: Any = None

    def attach(self, trainer: Any) -> CollapseTrainerCallback:
        """Add this callback to a ``transformers.Trainer``, so that its numbers go through its log.

        Returns
        -------
        CollapseTrainerCallback
            This object.
        """
        self._trainer = trainer
        if self not in trainer.callback_handler.callbacks:  # or everything is measured twice
            trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say what will be measured."""
        self._calls, self._due_ones = {}, 0
        if self._loader is None and self._chosen(args, training=True) == "train":
            announce("train", "loader='evaluation' measures what is evaluated")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the data that were just evaluated."""
        metrics = kwargs.get("metrics")
        prefix = _prefix_of(metrics)
        training = kwargs.get("train_dataloader") is not None
        if self._chosen(args, training) != "evaluation" or not self._due(prefix):
            return
        loader = kwargs.get("eval_dataloader")
        if loader is None:
            raise ValueError("loader: got 'evaluation', but the trainer has no evaluation data")
        scalars = self._measure(kwargs["model"], loader, state, "evaluation", prefix)
        logged = {f"{prefix}_{name}": x for name, x in scalars.items()}
        if metrics is not None:
            metrics.update(logged)
        self._log(logged, state)
        if scalars:
            self._show(prefix, f"{prefix}_{self._prefix}", state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the training data or the loader that was given."""
        chosen = self._chosen(args, training=True)
        if chosen == "evaluation" or not self._due(chosen):
            return
        loader: Any = kwargs["train_dataloader"] if chosen == "train" else self._loader
        scalars = self._measure(kwargs["model"], loader, state, chosen)
        self._log(scalars, state)
        if scalars:
            self._show("eval", self._prefix, state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Warn if nothing was measured."""
        if self._due_ones:
            return
        evaluated = self._chosen(args, training=True) == "evaluation"
        times = max(self._calls.values(), default=0)
        if evaluated and not times:
            strategy = getattr(args.eval_strategy, "value", args.eval_strategy)
            why = f"loader is 'evaluation', and there was none (eval_strategy={strategy!r})"
        else:
            what = "evaluations" if evaluated else "epochs"
            why = f"every={self._every}, and there were {times} {what}"
        warnings.warn(
            f"CollapseTrainerCallback: measured nothing: {why}", RuntimeWarning, stacklevel=2
        )

    def record(self) -> TrainingRecord:
        """Return what was measured so far, for `tightframe.report.write_training` and to be saved.

        Of several evaluation sets it is that which was measured last.

        Raises
        ------
        ValueError
            If nothing was measured.
        """
        return self._courses.get(self._last, Course()).record(
            self._network,
            self._rows_of(self._last),
            on_training_set=None if self.split == "loader" else self.split == "train",
            problem=self._options["problem"],
        )

    # -- inside --------------------------------------------------------------------------------

    def _chosen(self, args: Any, training: bool) -> str:
        """Return what is to be measured."""
        if self._loader is not None:
            return self._loader if isinstance(self._loader, str) else "loader"
        best = getattr(args, "metric_for_best_model", None) or ""
        wanted = bool(self._prefix) and self._prefix in best
        return "train" if training and not wanted else "evaluation"

    def _due(self, what: str) -> bool:
        self._calls[what] = self._calls.get(what, 0) + 1
        due = self._calls[what] % self._every == 0
        self._due_ones += due
        return due

    def _measure(
        self, model: nn.Module, loader: Iterable[Any], state: Any, split: str, prefix: str = "eval"
    ) -> dict[str, float]:
        course = self._courses.setdefault(prefix, Course())
        try:
            reports = collapse_report(
                model,
                loader,
                self._layers,
                self._head,
                check=not self._checked,
                synchronize=True,
                sample=course.sample,
                **self._options,
            )
        except NonFiniteFeatures as error:
            warnings.warn(f"not measured: {error}", RuntimeWarning, stacklevel=2)
            return {}
        self._checked, self.split = True, split
        named = f" {prefix.removeprefix('eval_')!r}" if prefix != "eval" else ""
        where = f"{SPLIT_NAMES[split]}{named}, after step {state.global_step}"
        self.reports = {name: replace(part, measured_on=where) for name, part in reports.items()}
        scalars = layer_scalars(reports)
        row: dict[str, Any] = {"epoch": float(state.epoch or 0), "step": float(state.global_step)}
        if prefix != "eval":
            row["set"] = prefix
        self.history.append(row | scalars)
        self._network, self._last = type(unwrapped(model)).__name__, prefix
        head, number = list(self.reports.values())[-1], len(self._rows_of(prefix))
        course.add(head, number, row["epoch"], state.global_step)
        logged = scalars | split_scalars(split)
        return {self._prefix + name: x for name, x in logged.items() if math.isfinite(x)}

    def _rows_of(self, prefix: str) -> list[dict[str, Any]]:
        return [row for row in self.history if row.get("set", "eval") == prefix]

    def _show(self, prefix: str, logged_as: str, state: Any, control: Any) -> None:
        """Send pictures of what was just measured; the Trainer's loggers close before its end."""
        if self._pictures is None or self._trainer is None or not state.is_world_process_zero:
            return
        if prefix not in self._pictures:
            known = known_of(self._options["problem"], self._options["targets"])
            self._pictures[prefix] = Pictures(logged_as, known)
        pictures, course = self._pictures[prefix], self._courses[prefix]
        loggers, report = self._trainer.callback_handler.callbacks, course.report
        assert report is not None
        title = report.measured_on[0].upper() + report.measured_on[1:]
        number = len(self._rows_of(prefix))
        pictures.measured(loggers, report, number, title, state.global_step)
        if state.global_step >= state.max_steps or control.should_training_stop:
            pictures.ended(loggers, course.sample)

    def _log(self, scalars: dict[str, float], state: Any) -> None:
        if not scalars:
            return
        if self._trainer is not None:
            self._trainer.log(dict(scalars))
        else:
            state.log_history.append({**scalars, "epoch": state.epoch, "step": state.global_step})


def _prefix_of(metrics: Mapping[str, Any] | None) -> str:
    """Return the prefix of an evaluation's metrics: that of one set among several has its name."""
    timed = [name for name in metrics or () if name.endswith("_runtime")]
    return timed[0].removesuffix("_runtime") if timed else "eval"
