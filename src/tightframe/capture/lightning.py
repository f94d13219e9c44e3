"""Collapse of any LightningModule, measured on the way and logged by whatever logger there is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import lightning
from lightning.pytorch.plugins.precision import Precision

from tightframe.capture.course import Course
from tightframe.capture.distributed import own_samples
from tightframe.capture.gather import NonFiniteFeatures, share_error
from tightframe.capture.head import HeadInUse
from tightframe.capture.layers import Forward, collapse_report, layer_scalars, run_on
from tightframe.capture.names import names_for
from tightframe.capture.pictures import Pictures, known_of
from tightframe.capture.record import TrainingRecord
from tightframe.capture.splits import SPLIT_NAMES, announce, split_scalars
from tightframe.capture.watch import Watch
from tightframe.checks import choice, number_of, whole_number
from tightframe.data.batches import LabelsLike, Reduction, split_batch
from tightframe.metrics import CollapseReport
from tightframe.metrics.moments import WEIGHTINGS
from tightframe.metrics.targets import Target, target_list
from tightframe.problem.class_names import NamesLike, given_names
from tightframe.problem.problem import Problem

_LOADERS = ("validation", "train")


class CollapseMonitor(lightning.Callback):
    """Measure and log the collapse of the classifier of any LightningModule.

    Collapse is a property of the *training* set, so that is what is measured: its batches are sent
    through the module, in eval mode, at the end of training epochs; better than the Trainer's own
    loader is one without augmentation (``loader=``). With ``loader="validation"`` the validation
    loop is watched: the features are caught as the batches pass, so there is no forward pass more.
    That is also what is done, with a warning, where the training set cannot be measured: where the
    module has no ``forward``, and outside ``fit``.

    The numbers go through ``log_dict``: to every logger of the Trainer (CSV, TensorBoard, W&B,
    MLflow alike) and to ``callback_metrics``, where ``ModelCheckpoint`` and ``EarlyStopping`` find
    them, for example as ``"collapse/nc1"``. What is NaN or infinite is in `history` only.
    ``"collapse/on_training_set"`` is 1 or 0, and every report says what it was measured on.

    Loggers of TensorBoard, W&B and MLflow are also given the wheel, where every class is sent, of
    the 1st, 2nd, 3rd, 4th, 6th, 8th, 11th, 16th, ... and the last measurement; TensorBoard's and
    W&B's the class means, classifier and up to 2,000 features with the names of their classes, at
    the end of ``fit``. Other loggers get numbers only.

    Parameters
    ----------
    head : str, optional
        Dotted name of the classifier in the LightningModule, for example ``"model.fc"``; its input
        are the features. None looks for the usual names (`tightframe.heads.find.find_head`).
    layers : sequence of str
        Other modules, whose outputs are measured too; they are logged as ``collapse/<layer>/nc1``.
    loader : {"train", "validation"} or iterable of batches, optional
        What is measured. None: the training set, see above.
    num_classes : int, optional
        Number of classes K; None takes the classifier's rows.
    weight, bias, features, class_names
        As in `tightframe.capture.layers.collapse_report`.
    targets : target or iterable of targets, optional
        What NC2 and NC3 are compared with, as for `CollapseReport.measure`: ``"etf"``, or a
        `Solution` for the imbalanced prediction, which wheels then have as rings.
    problem : Problem, optional
        What the module is trained as, for the certificate gap, the wheel and `record`: by default
        a wheel takes cross-entropy for the loss.
    every : int
        Training epochs between measurements.
    labels, reduce, scatter, ignore_index, min_count, center
        As in `tightframe.capture.layers.collapse_report`.
    forward : callable, optional
        ``forward(pl_module, batch)`` runs the module on a batch of ``loader``, where
        ``pl_module(inputs)`` does not do. The validation loop needs none.
    nc4 : bool
        Compute NC4: a second pass over ``loader``; of the validation loop the features are kept on
        the CPU until its end, N x D numbers.
    dataloader_idx : int
        Which of several validation loaders is watched.
    prefix : str
        Of the logged names; of several monitors each needs its own.
    pictures : bool
        Whether loggers that take pictures are given some.

    Attributes
    ----------
    history : list of dict
        One row a measurement: epoch, step and the numbers. Part of a checkpoint.
    reports : dict of str to CollapseReport
        Of the last measurement, by layer; the head last.
    split : str or None
        What was measured last: ``"train"``, ``"validation"`` or ``"loader"``.

    Raises
    ------
    ValueError
        If an argument is out of range; when fitting, if a module does not exist, a batch has no
        labels that can be found, a label is out of range or a feature is not finite.

    Warns
    -----
    RuntimeWarning
        If batches skip the head, dropout or augmentation acts, features are not finite; at the end
        of the training if nothing was measured, with the reason.

    Notes
    -----
    Head and features are read at one moment: callbacks that swap the weights for the validation
    loop (weight averaging) may stand before or after this one. Compiled modules run eagerly while
    they are watched.

    Under DDP each process measures its share and the sums are merged; every process logs the same
    numbers. What a distributed sampler repeats, to make the shares equally long, counts once.
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
        labels: LabelsLike = None,
        reduce: Reduction | Mapping[str, Reduction] = "auto",
        forward: Forward | None = None,
        nc4: bool = True,
        scatter: bool = True,
        ignore_index: int | None = -100,
        min_count: int = 1,
        center: str = "class",
        dataloader_idx: int = 0,
        prefix: str = "collapse/",
        problem: Problem | None = None,
        pictures: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(loader, str) and loader not in _LOADERS:
            raise ValueError(
                f"loader: got {loader!r}, allowed are {', '.join(_LOADERS)} or batches"
            )
        self.history: list[dict[str, float]] = []
        self.reports: dict[str, CollapseReport] = {}
        self._head, self._layers, self._loader = head, list(layers), loader
        self._every = whole_number("every", every)
        self._prefix = prefix
        self._labels, self._forward = labels, forward
        self._dataloader_idx = whole_number("dataloader_idx", dataloader_idx, 0)
        self._options: dict[str, Any] = {
            "num_classes": num_classes,
            "weight": weight,
            "bias": bias,
            "features": features,
            "class_names": given_names(class_names),
            "targets": None if targets is None else target_list(targets),
            "reduce": reduce,
            "nc4": nc4,
            "scatter": scatter,
            "ignore_index": ignore_index,
            "min_count": min_count,
            "center": choice("center", center, WEIGHTINGS),
            "problem": problem,
        }
        self._course = Course()
        known = known_of(problem, self._options["targets"])
        self._pictures = Pictures(prefix, known) if pictures else None
        self._network = ""
        self._watch: Watch | None = None
        self._left: int | None = None  # samples to come that are no repeats
        self._names: Sequence[str] | None = None  # as far as they are known before a batch
        self._error: ValueError | None = None
        self.split: str | None = None
        self._chosen: str | None = None
        self._due_ones = self._measured = 0  # loops that were due, and measurements, of this fit

    # -- what is measured --------------------------------------------------------------------------

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Choose what is measured."""
        self._due_ones = self._measured = 0
        if self._loader is not None:
            self._chosen = self._loader if isinstance(self._loader, str) else "loader"
            return
        fitting, own = stage == "fit", lightning.LightningModule.forward
        runs = self._forward is not None or type(pl_module).forward is not own
        self._chosen = "train" if fitting and runs else "validation"
        if fitting and not runs:
            warnings.warn(
                "CollapseMonitor: the module has no forward, so the validation set is measured and "
                "not the training set; pass forward=, or loader='validation' to say so",
                RuntimeWarning,
                stacklevel=2,
            )
        elif fitting:
            announce("train", "loader='validation' watches the validation loop")

    # -- the validation loop is watched ------------------------------------------------------------

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin to watch, if it is time to."""
        if self._chosen == "validation" and not trainer.sanity_checking and self._due(trainer):
            self._due_ones += 1
            sample = self._course.sample
            watch = Watch(pl_module, self._head, self._layers, sample=sample, **self._options)
            self._watch = watch.__enter__()
            loader = self._validation_loader(trainer)
            self._left = own_samples(loader)
            self._names = names_for(self._options["class_names"], pl_module, loader)

    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Forget what else passed since the last batch."""
        if self._watch is not None:
            self._watch.discard()

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Give the features that passed their labels."""
        if self._watch is None:
            return
        if dataloader_idx == self._dataloader_idx:
            parts = split_batch(batch, self._labels, self._names)
            own = None
            if self._left is not None:
                own = min(self._left, len(parts.labels))
                self._left -= own
            try:
                self._watch.labels(parts.labels, parts.mask, own=own, batch=parts)
            except NonFiniteFeatures as error:
                # A measurement is no reason to end a training that may recover; other processes
                # hear of it at the end of the loop.
                self._error = error
        else:
            self._watch.discard()

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Report on what passed."""
        error = self._error
        watch = self._stop()
        if watch is None:
            return
        try:
            share_error(error)
        except NonFiniteFeatures as spoiled:
            warnings.warn(f"not measured: {spoiled}", RuntimeWarning, stacklevel=2)
        else:
            reports = watch.reports(synchronize=True)
            loader = self._validation_loader(trainer)
            for name, report in reports.items():
                if report.class_names is None:  # the data set may know them
                    names = names_for(None, pl_module, loader, len(report.counts))
                    reports[name] = replace(report, class_names=names)
            self._record(trainer, pl_module, reports)

    # -- or a loader is run ------------------------------------------------------------------------

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Run the named loader, if it is time to."""
        if self._chosen == "validation" or not self._due(trainer):
            return
        self._due_ones += 1
        loader: Any = trainer.train_dataloader if self._chosen == "train" else self._loader
        try:
            with trainer.precision_plugin.forward_context():
                reports = collapse_report(
                    pl_module,
                    loader,
                    self._layers,
                    self._head,
                    labels=self._labels,
                    forward=self._forward_of(trainer),
                    check=not self._measured,
                    synchronize=True,
                    sample=self._course.sample,
                    **self._options,
                )
        except NonFiniteFeatures as error:
            warnings.warn(f"not measured: {error}", RuntimeWarning, stacklevel=2)
            return
        except Exception as error:
            if self._loader is not None or self._measured:
                raise
            given = [self._options[name] for name in ("weight", "bias", "features")]
            # A wrong name is no reason to look elsewhere.
            HeadInUse(pl_module, self._layers, self._head, *given)
            self._chosen, self._due_ones = "validation", 0
            warnings.warn(
                f"CollapseMonitor: the training set cannot be measured ({error}), so the "
                "validation set is from now on; pass forward=, or loader='validation'",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        self._record(trainer, pl_module, reports)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Send the last pictures; warn if nothing was measured."""
        if self._pictures is not None and trainer.is_global_zero:
            self._pictures.ended(trainer.loggers, self._course.sample)
        if self._due_ones:
            return
        epochs, every = trainer.current_epoch, self._every
        if self._chosen == "validation" and not trainer.enable_validation:
            why = "there is no validation loader, or limit_val_batches is 0"
        elif self._chosen == "validation":
            why = (
                f"every={every}, and of {number_of(epochs, 'epoch')} none with that number "
                f"had a validation "
                f"loop (check_val_every_n_epoch={trainer.check_val_every_n_epoch})"
            )
        else:
            were = "was" if epochs == 1 else "were"
            why = f"every={every}, and there {were} {number_of(epochs, 'epoch')}"
        warnings.warn(f"CollapseMonitor: measured nothing: {why}", RuntimeWarning, stacklevel=2)

    # -- leaving nothing behind --------------------------------------------------------------------

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Take the hooks off."""
        self._stop()

    def teardown(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Take the hooks off."""
        self._stop()

    @property
    def state_key(self) -> str:
        """Name in a checkpoint: several monitors may log under different prefixes."""
        key: str = self._generate_state_key(prefix=self._prefix)
        return key

    def state_dict(self) -> dict[str, Any]:
        """Return the history, and what else `record` has of earlier measurements."""
        return {
            "history": [dict(row) for row in self.history],
            "course": self._course.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the history of a checkpoint."""
        self.history = [dict(row) for row in state_dict["history"]]
        if "course" in state_dict:  # not of earlier releases
            self._course.load_state_dict(state_dict["course"])

    def record(self) -> TrainingRecord:
        """Return what was measured so far, for `tightframe.report.write_training` and to be saved.

        Raises
        ------
        ValueError
            If nothing was measured.
        """
        return self._course.record(
            self._network,
            self.history,
            on_training_set=None if self.split == "loader" else self.split == "train",
            problem=self._options["problem"],
        )

    # -- inside ------------------------------------------------------------------------------------

    def _due(self, trainer: lightning.Trainer) -> bool:
        fitting = trainer.state.fn == "fit"
        return not fitting or (trainer.current_epoch + 1) % self._every == 0

    def _forward_of(self, trainer: lightning.Trainer) -> Forward | None:
        """Return what runs a batch; in half or double precision it is converted as in training."""
        plugin = trainer.precision_plugin
        if type(plugin).convert_input is Precision.convert_input:
            return self._forward

        def forward(module: Any, batch: Any) -> Any:
            batch = plugin.convert_input(batch)
            if self._forward is not None:
                return self._forward(module, batch)
            return run_on(module, split_batch(batch, self._labels, self._options["class_names"]))

        return forward

    def _validation_loader(self, trainer: lightning.Trainer) -> Any:
        loaders: Any = trainer.val_dataloaders
        if isinstance(loaders, Mapping):
            loaders = list(loaders.values())
        if not isinstance(loaders, Sequence):
            return loaders
        return loaders[self._dataloader_idx] if self._dataloader_idx < len(loaders) else None

    def _stop(self) -> Watch | None:
        watch, self._watch, self._error = self._watch, None, None
        if watch is not None:
            watch.discard()
            watch.__exit__(None, None, None)
        return watch

    def _record(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        reports: dict[str, CollapseReport],
    ) -> None:
        assert self._chosen is not None
        self.split = self._chosen
        self._measured += 1
        where = f"{SPLIT_NAMES[self.split]} in epoch {trainer.current_epoch}"
        where += f", after step {trainer.global_step}"
        self.reports = {name: replace(part, measured_on=where) for name, part in reports.items()}
        scalars = layer_scalars(reports)
        row = {"epoch": float(trainer.current_epoch), "step": float(trainer.global_step)}
        self.history.append(row | scalars)
        logged = scalars | split_scalars(self.split)
        finite = {self._prefix + name: x for name, x in logged.items() if math.isfinite(x)}
        number, head = len(self.history), list(self.reports.values())[-1]
        self._network = type(module).__name__
        self._course.add(head, number, trainer.current_epoch, trainer.global_step)
        # The numbers are merged already and equal; sync_dist keeps Lightning from doubting it.
        module.log_dict(finite, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        if self._pictures is not None and trainer.is_global_zero:
            title = where[0].upper() + where[1:]
            self._pictures.measured(trainer.loggers, head, number, title, trainer.global_step)
