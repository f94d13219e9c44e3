"""Train a network for every setting of a configuration, measured against its prediction."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import data as torch_data

from tightframe.data import Dataset, load, oversample, random_labels, subset
from tightframe.geometry.dense import simplex_etf
from tightframe.heads.fixed import FixedETF
from tightframe.runs import store
from tightframe.runs.config import RunConfig
from tightframe.runs.folder import environment, open_folder
from tightframe.runs.verdicts import Verdict, described, group_verdicts, state_of
from tightframe.solution import Solution
from tightframe.solve import solve_certified
from tightframe.training.backbones import build_backbone
from tightframe.training.callbacks import CollapseCallback, Measured
from tightframe.training.margins import group_margins
from tightframe.training.module import CollapseModule
from tightframe.training.networks import linear_head
from tightframe.training.options import package_model

__all__ = ["Prediction", "Progress", "RunConfig", "run"]

#: Called as ``progress(setting, epoch, epochs, row)``: name of the setting, epochs done and to do,
#: and the latest history row (empty before the first). At most some ten times a second, and once
#: at the end of every setting.
Progress = Callable[[str, int, int, Mapping[str, float]], None]

#: Called as ``on_prediction(setting, solution)`` before the setting is trained.
Prediction = Callable[[str, Solution], None]

_PACKAGES = ("tightframe", "numpy", "scipy", "torch", "lightning", "pandas", "scikit-learn")
_PROGRESS_SECONDS = 0.1
_BATCH = {True: 4096, False: 256}  # samples a forward pass when measuring: the MLP, images

#: Status of a setting's result: all epochs done, or ended by ``max_seconds``.
TRAINED, OUT_OF_TIME = "trained", "out of time"

# A predicted classifier this near to a simplex ETF (normalised distance) is one.
_ETF_TOLERANCE = 1e-6


def run(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: Progress | None = None,
    on_prediction: Prediction | None = None,
) -> list[dict[str, Any]]:
    """Solve, train, measure and judge every setting of a configuration; keep all in a folder.

    The folder's layout is in `tightframe.runs.store`. Interrupted by Ctrl-C (which comes
    out as KeyboardInterrupt), SIGTERM (SystemExit with code 143) or a kill, it keeps the finished
    settings, and of the unfinished one the history and the last checkpoint. Resumed from there, a
    run ends in the same numbers as one that was never interrupted (with ``max_seconds`` it may end
    at another epoch, and on a GPU some layers of image networks add in no fixed order).

    With ``devices`` above 1 Lightning starts the program that calls this function again for every
    further device (or torchrun or SLURM has done so already); all of them train, the first one
    alone measures for the record and writes. It is for programs of their own, such as the command
    ``tightframe run``, not for workers of a pool.

    Parameters
    ----------
    config : RunConfig
    out : path-like
        A folder that is new or empty; or, with ``resume``, holds a run of the same configuration.
    resume : bool
        Skip what is finished in ``out``, continue what is not.
    progress : callable, optional
        See `Progress`.
    on_prediction : callable, optional
        See `Prediction`.

    Returns
    -------
    list of dict
        The content of every setting's ``result.json``. ``status`` is `TRAINED` or `OUT_OF_TIME`,
        ``epochs`` how many were done, ``notes`` has a sentence for all in which the training is
        not that of the predicted problem; its verdicts then agree with nothing (None).

    Raises
    ------
    ValueError
        If ``out`` holds a run and ``resume`` is False, or a run of another configuration, or
        something else, or another process writes there; or the data set has too few samples for
        the counts; or training diverges.
    """
    # What can be refused is refused before anything is written.
    dataset = _dataset(config)
    solutions = [solve_certified(problem) for problem in config.problems]
    _check_network(config, solutions[0], dataset)
    if config.device == "gpu" and not torch.accelerator.is_available():
        raise ValueError("device: got 'gpu', but PyTorch finds none; use 'cpu' or 'auto'")
    results = []
    with _opened(config, out, resume=resume):
        for name, solution in zip(config.setting_names, solutions, strict=True):
            paths = store.setting_paths(out, name)
            if (finished := store.read_result(paths)) is not None:
                results.append(finished)
                continue
            # The caller's random numbers and threads are none of our business.
            with torch.random.fork_rng(devices=[]), _threads(config.threads), _quiet():
                result = _run_setting(
                    config, name, solution, dataset, paths, progress, on_prediction
                )
            results.append(result)
    return results


def _opened(
    config: RunConfig, out: str | os.PathLike[str], *, resume: bool
) -> contextlib.AbstractContextManager[None]:
    """Return the block in which this process may write the record; the other devices' read it."""
    if not _is_main(config):
        return contextlib.nullcontext()
    return open_folder(store.run_file(out), "run", _record(config), resume=resume)


def _record(config: RunConfig) -> dict[str, Any]:
    return {
        "format": store.FORMAT,
        "config": config.identity(),
        "settings": config.setting_names,
        "environment": environment(_PACKAGES)
        | {
            "device": config.device,
            "devices": config.devices,
            "strategy": config.strategy,
            "threads": config.threads,
            "seed": config.seed,
        },
    }


def _is_main(config: RunConfig) -> bool:
    """Return whether this process writes the record; of several devices the first one's does."""
    return config.devices == 1 or getattr(rank_zero_only, "rank", 0) == 0


def _dataset(config: RunConfig) -> Dataset:
    """Load the data set and make it what the configuration says."""
    try:
        dataset = load(config.data, root=config.data_root, seed=config.seed)
    except ValueError as error:
        if str(error).startswith("root:"):  # which is called otherwise here
            raise ValueError(f"data_{error}") from None
        raise
    dataset = subset(dataset, config.counts, seed=config.seed)
    if config.labels == "random":
        dataset = random_labels(dataset, seed=config.seed)
    if config.oversample is not None:
        dataset = oversample(dataset, config.oversample, seed=config.seed)
    return dataset


# -- one setting -----------------------------------------------------------------------------------


def _run_setting(
    config: RunConfig,
    name: str,
    solution: Solution,
    dataset: Dataset,
    paths: store.SettingPaths,
    progress: Progress | None,
    on_prediction: Prediction | None,
) -> dict[str, Any]:
    start = time.perf_counter()
    problem, is_main = solution.problem, _is_main(config)
    prediction = _write_prediction(paths, name, solution) if is_main else {}
    if on_prediction is not None and is_main:
        on_prediction(name, solution)

    module = _module(config, solution, dataset)
    callback = CollapseCallback(
        problem,
        solution.geometry,
        _chunks(dataset.train_inputs, dataset.train_labels, _BATCH[config.network == "mlp"]),
        _chunks(dataset.test_inputs, dataset.test_labels, _BATCH[config.network == "mlp"]),
        lower_bound=solution.lower_bound,
        every=config.measure_every,
        on_measure=(
            (lambda rows: store.write_parquet(paths.history, pd.DataFrame(rows)))
            if is_main
            else None
        ),
    )
    deadline = _Deadline(config.max_seconds)
    report = _Report(name, callback, progress if is_main else None)
    trainer = _trainer(config, paths, [callback, report, deadline])
    loader = _loader(dataset, config.batch_size, config.seed)
    _fit(trainer, module, loader, paths.checkpoint)
    # The last epoch need not be one that is checkpointed.
    trainer.save_checkpoint(paths.checkpoint)

    # A run killed between its last checkpoint and its result comes back with no epoch to train.
    final = callback.final or callback.measure(module)
    if not is_main:
        trainer.strategy.barrier()  # until the first process has written
        return store.read_result(paths) or {}
    store.write_parquet(paths.history, pd.DataFrame(callback.history))
    _write_final(paths, final)
    notes = _notes(config, solution)
    epochs = int(callback.history[-1]["epoch"])
    result = {
        "name": name,
        "status": TRAINED if epochs == config.epochs else OUT_OF_TIME,
        "epochs": epochs,
        "notes": notes,
        "problem": problem.to_dict(),
        "predicted": {
            key: prediction[key] for key in ("objective", "gap", "lower_bound", "status", "rank")
        },
        "first": callback.history[0],
        "last": callback.history[-1],
        "verdicts": [
            (_undecided(verdict, notes[0]) if notes else verdict).to_dict()
            for verdict in group_verdicts(problem, solution, _scores(final), _bias(final))
        ],
        "seconds": time.perf_counter() - start,
        "finished": True,
    }
    store.write_json(paths.result, result)
    trainer.strategy.barrier()
    if progress is not None:
        progress(name, config.epochs, config.epochs, callback.history[-1])
    plain: dict[str, Any] = store.to_plain(result)
    return plain


def _notes(config: RunConfig, solution: Solution) -> list[str]:
    """Return in which way the training is not that of the problem whose prediction it is beside."""
    notes = []
    if config.decay_on == "all":
        notes.append(
            "Training decayed all parameters and no features, so the decays of the prediction are "
            "not those of the training: what feature decay it amounts to is unknown, and only "
            "normalised distances to its geometry say something."
        )
    if config.head == "fixed_etf":
        etf = simplex_etf(solution.problem.num_classes)
        away = solution.geometry.distance(etf, "classifier") if _norm(solution) else np.inf
        if away > _ETF_TOLERANCE:
            notes.append(
                "The classifier was a fixed simplex ETF, the prediction's is trained and is none."
            )
    return notes


def _undecided(verdict: Verdict, note: str) -> Verdict:
    """Return a verdict without a judgement, for the prediction is not of this training."""
    sentence = (
        f"{described(verdict)} (decision margin {verdict.measured_decision_margin:.3f}). "
        f"No verdict: {note[0].lower()}{note[1:]}"
    )
    return dataclasses.replace(verdict, agrees=None, sentence=sentence)


def _norm(solution: Solution) -> float:
    """Return the root mean square length of the predicted classifier's rows."""
    return float(np.sqrt(np.diagonal(solution.geometry.classifier).mean()))


def _scores(final: Measured) -> NDArray[np.float64]:
    """Return the mean logits with bias."""
    return np.asarray(final.geometry.logits + _bias(final)[:, None])


def _bias(final: Measured) -> NDArray[np.float64]:
    """Return the bias, zeros where there is none."""
    k = final.geometry.num_classes
    return np.zeros(k) if final.bias is None else final.bias.numpy().astype(np.float64)


def _write_prediction(paths: store.SettingPaths, name: str, solution: Solution) -> dict[str, Any]:
    problem = solution.problem
    margins = group_margins(problem, solution.logits + solution.bias[:, None])
    states, terms = solution.states, problem.group_terms
    groups = []
    for i, group in enumerate(problem.groups):
        members = np.flatnonzero(problem.class_groups == i)
        groups.append(
            {
                "count": group.count,
                "classes": group.classes,
                **terms[i],
                "members": members,
                "state": state_of(states, members),
                "decision_margin": states.decision_margin[members].mean(),
                "sibling_margin": states.sibling_margin[members].mean(),
                "margin": margins[i],
                "collapsed": bool(solution.collapsed[members].all()),
            }
        )
    prediction = solution.to_dict() | {"name": name, "groups": groups, "bias": solution.bias}
    geometry = solution.geometry
    store.write_npz(
        paths.prediction_arrays,
        logits=geometry.logits,
        bias=solution.bias,
        classifier=geometry.classifier,
        means=geometry.means,
    )
    store.write_json(paths.prediction, prediction)
    return prediction


def _write_final(paths: store.SettingPaths, final: Measured) -> None:
    features, labels = final.features.numpy(), final.labels.numpy()
    weight = final.weight.numpy()
    num_classes = len(weight)
    means = np.stack(
        [features[labels == k].mean(axis=0, dtype=np.float64) for k in range(num_classes)], axis=1
    )
    held_out = {}
    if final.held_out is not None:
        parts = ("held_out_features", "held_out_labels")
        held_out = {name: part.numpy() for name, part in zip(parts, final.held_out, strict=True)}
    store.write_npz(
        paths.final,
        features=features,
        labels=labels,
        weight=weight,
        bias=np.zeros(num_classes, np.float32) if final.bias is None else final.bias.numpy(),
        class_means=means,
        logits=weight.astype(np.float64) @ means,
        **held_out,
    )


# -- training with Lightning -----------------------------------------------------------------------


def _module(config: RunConfig, solution: Solution, dataset: Dataset) -> CollapseModule:
    problem = solution.problem
    torch.manual_seed(config.seed)
    options = dict(config.network_options)
    if config.network == "mlp":
        options["hidden"] = config.hidden
    width = int(config.feature_dim or 0)  # a number since the configuration was made
    backbone = build_backbone(
        config.network,
        dataset.input_shape,
        width,
        config.features,
        **options,
    )
    head: nn.Module
    if config.head == "fixed_etf":
        scale = _norm(solution) if config.decay_on == "features" else 1.0
        head = FixedETF(
            width,
            problem.num_classes,
            bias=config.bias != "none",
            seed=None if width >= problem.num_classes else config.seed,
            scale=scale or 1.0,
        )
    else:
        head = linear_head(
            width, problem.num_classes, depth=config.depth, bias=config.bias != "none"
        )
    return CollapseModule(
        backbone,
        head,
        problem,
        optimizer=config.optimizer,
        lr=config.lr,
        momentum=config.momentum,
        schedule=config.schedule,
        backbone_weight_decay=config.backbone_weight_decay,
        milestones=config.milestones,
        warmup_epochs=config.warmup_epochs,
        warmup_decay_factor=config.warmup_decay_factor,
        decay_on=config.decay_on,
    )


def _check_network(config: RunConfig, solution: Solution, dataset: Dataset) -> None:
    """Refuse a network that cannot be made of these inputs."""
    # Without memory for the weights; but what a package does there is not known.
    place = "cpu" if package_model(config.network) else "meta"
    with torch.random.fork_rng(devices=[]), torch.device(place):
        _module(config, solution, dataset)


def _trainer(
    config: RunConfig, paths: store.SettingPaths, callbacks: list[lightning.Callback]
) -> lightning.Trainer:
    checkpoint = ModelCheckpoint(
        dirpath=paths.checkpoint.parent,
        filename=paths.checkpoint.stem,
        every_n_epochs=config.measure_every,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    # A new version for every part of an interrupted run: Lightning would delete the older CSV.
    loggers = [
        CSVLogger(paths.logs, name="csv", flush_logs_every_n_steps=1),
        TensorBoardLogger(paths.logs, name="tensorboard"),
    ]
    return lightning.Trainer(
        accelerator=config.device,
        devices=config.devices,
        strategy=config.strategy,
        use_distributed_sampler=False,  # `_Batches` shares the batches out
        max_epochs=config.epochs,
        deterministic=_deterministic(config),
        logger=loggers,
        callbacks=[_EpochSeed(config.seed), *callbacks, checkpoint],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=paths.folder,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _deterministic(config: RunConfig) -> Any:
    """Return Lightning's switch, a global one: CPU kernels do not need it."""
    if config.device == "cpu":
        return False
    # Some layers of image networks have no deterministic gradient on a GPU: no error for those.
    return True if config.network == "mlp" else "warn"


def _fit(
    trainer: lightning.Trainer,
    module: CollapseModule,
    loader: torch_data.DataLoader[Any],
    checkpoint: Path,
) -> None:
    """Fit, from the last checkpoint if there is one; signals come out as Python's own."""
    if checkpoint.exists():
        try:
            torch.load(checkpoint, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{checkpoint}: cannot be read ({error}); delete it to train this setting anew"
            ) from None
    try:
        trainer.fit(
            module,
            loader,
            ckpt_path=checkpoint if checkpoint.exists() else None,
            weights_only=True,
        )
    except SIGTERMException:
        # Lightning raises it without a code, which would report success to the shell.
        raise SystemExit(143) from None
    except SystemExit as error:
        # Lightning turns Ctrl-C into sys.exit(1) from inside its handler.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints so that a kill at any moment leaves the previous one.

    Lightning's own (2.6) writes to the system's temporary folder and moves the file: where that is
    another file system the move is a copy, and a kill leaves half a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint under a temporary name next to ``path``, then rename it."""
        del storage_options
        with store.replacing(path) as temporary:
            torch.save(checkpoint, temporary)


class _EpochSeed(lightning.Callback):
    """Seed PyTorch's generator at every epoch's start, so a resumed run draws the same numbers.

    Only a backbone with dropout draws any.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        seed = _mix(self._seed, trainer.current_epoch)
        # torch.manual_seed would queue a stack trace for every absent kind of accelerator: 3 ms.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(seed)


class _Deadline(lightning.Callback):
    """End training with the epoch after which the time is up, counted over interruptions."""

    def __init__(self, seconds: float | None) -> None:
        self._limit = seconds
        self._before = 0.0
        self._start = time.perf_counter()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._start = time.perf_counter()
        self._check(trainer, self._before)  # of a resumed run the time may be up already

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._check(trainer, self._spent())

    def state_dict(self) -> dict[str, Any]:
        return {} if self._limit is None else {"seconds": self._spent()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = float(state_dict.get("seconds", 0.0))

    def _spent(self) -> float:
        return self._before + time.perf_counter() - self._start

    def _check(self, trainer: lightning.Trainer, seconds: float) -> None:
        if self._limit is not None:
            # The devices' clocks may differ, and all have to stop at the same epoch.
            over = trainer.strategy.reduce_boolean_decision(seconds >= self._limit, all=False)
            trainer.should_stop = trainer.should_stop or over


class _Report(lightning.Callback):
    """Report the progress, not too often."""

    def __init__(self, name: str, source: CollapseCallback, progress: Progress | None) -> None:
        self._name = name
        self._source = source
        self._progress = progress
        self._due = 0.0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._report(trainer, trainer.current_epoch)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if time.perf_counter() >= self._due:
            self._report(trainer, trainer.current_epoch + 1)

    def _report(self, trainer: lightning.Trainer, epoch: int) -> None:
        if self._progress is not None:
            row = self._source.history[-1] if self._source.history else {}
            self._progress(self._name, epoch, int(trainer.max_epochs or 0), row)
        self._due = time.perf_counter() + _PROGRESS_SECONDS


class _Samples(torch_data.Dataset[tuple[Tensor, Tensor]]):
    """Tensors in memory; an index is a whole batch, so nothing is collated sample by sample."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self._inputs = inputs
        self._labels = labels

    def __getitem__(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        return self._inputs[index], self._labels[index]

    def __len__(self) -> int:
        return len(self._labels)


class _Batches(torch_data.Sampler[Any]):
    """Batches of indices, shuffled anew every epoch, as a function of seed and epoch alone.

    Sizes differ by one at most: no small last batch with a noisy estimate. In distributed training
    every process gets its share of every batch.
    """

    def __init__(self, num_samples: int, batch_size: int | None, seed: int) -> None:
        self._num_samples = num_samples
        self._num_batches = -(-num_samples // (batch_size or num_samples))
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order; Lightning calls this before every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Tensor | slice]:
        # A generator, so that the epoch is read when the first batch is asked for: in the first
        # epoch of a resumed fit Lightning makes the iterator before it calls `set_epoch`.
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, world = (
            (torch.distributed.get_rank(), torch.distributed.get_world_size()) if shared else (0, 1)
        )
        if self._num_batches == 1 and world == 1:
            yield slice(None)  # a view of all samples: no copy, and no order to speak of
            return
        generator = torch.Generator().manual_seed(_mix(self._seed, self._epoch))
        order = torch.randperm(self._num_samples, generator=generator)
        for batch in torch.tensor_split(order, self._num_batches):
            yield torch.tensor_split(batch, world)[rank] if world > 1 else batch


def _loader(
    dataset: Dataset, batch_size: int | None, seed: int
) -> torch_data.DataLoader[tuple[Tensor, Tensor]]:
    inputs = torch.from_numpy(dataset.train_inputs)
    labels = torch.from_numpy(dataset.train_labels)
    sampler = _Batches(len(labels), batch_size, seed)
    return torch_data.DataLoader(_Samples(inputs, labels), batch_size=None, sampler=sampler)


def _chunks(
    inputs: NDArray[np.float32], labels: NDArray[np.int64], size: int
) -> list[tuple[Tensor, Tensor]]:
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(y), size)]


def _mix(seed: int, epoch: int) -> int:
    """Return a seed for one epoch of one run."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says about things that are as they should be here."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in (
                r".*does not have many workers",  # the data are in memory
                r".*Checkpoint directory .* exists and is not empty",  # a resumed run
                r".*GPU available but not used",  # device="cpu" was asked for
                r".*isinstance\(treespec, LeafSpec\)",  # Lightning 2.6 with PyTorch 2.13
            ):
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
