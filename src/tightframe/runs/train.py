"""Train a network for every setting of a configuration, measured against its prediction."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils import data as torch_data

from tightframe.progress import watched
from tightframe.runs import store
from tightframe.runs.batches import mix
from tightframe.runs.class_task import ClassTask
from tightframe.runs.config import RunConfig
from tightframe.runs.folder import environment, open_folder
from tightframe.runs.limit import TimeIsUp, is_over
from tightframe.runs.task import Task
from tightframe.runs.text_config import TextConfig
from tightframe.runs.text_task import TextTask
from tightframe.solution import Solution
from tightframe.solve import solve_certified
from tightframe.training.measuring import MeasuringCallback, Row
from tightframe.training.module import CollapseModule
from tightframe.training.options import MEASUREMENTS, package_model

__all__ = ["Prediction", "Progress", "RunConfig", "run"]

#: Called as ``progress(setting, epoch, epochs, row)``: name of the setting, epochs done and to do,
#: and the latest history row (empty before the first). At most some ten times a second, and once
#: at the end of every setting.
Progress = Callable[[str, int, int, Mapping[str, float]], None]

#: Called as ``on_prediction(setting, solution)`` before the setting is trained.
Prediction = Callable[[str, Solution], None]

_PACKAGES = ("tightframe", "numpy", "scipy", "torch", "lightning", "pandas", "scikit-learn")
_PROGRESS_SECONDS = 0.1

#: Status of a setting's result: all epochs done, or ended by ``max_seconds``.
TRAINED, OUT_OF_TIME = "trained", "out of time"


def run(
    config: RunConfig | TextConfig,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: Progress | bool | None = None,
    on_prediction: Prediction | None = None,
    until: float | None = None,
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
    config : RunConfig or TextConfig
    out : path-like
        A folder that is new or empty; or, with ``resume``, holds a run of the same configuration.
    resume : bool
        Skip what is finished in ``out``, continue what is not.
    progress : callable or bool, optional
        See `Progress`. True, False and None as in `tightframe.solve`.
    on_prediction : callable, optional
        See `Prediction`.
    until : float, optional
        A time of `time.time`. The first epoch that ends after it is the last one of this call, with
        a checkpoint; unlike with ``max_seconds`` the run is then not finished.

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
    TimeIsUp
        At ``until``, unless all was finished before; `resume` goes on.
    """
    # What can be refused is refused before anything is written.
    task: Task = TextTask(config) if isinstance(config, TextConfig) else ClassTask(config)
    config = task.config
    solutions = [solve_certified(problem) for problem in task.problems]
    _check_network(task, solutions[0])
    if config.device == "gpu" and not torch.accelerator.is_available():
        raise ValueError("device: got 'gpu', but PyTorch finds none; use 'cpu' or 'auto'")
    results = []
    with contextlib.ExitStack() as work:
        work.enter_context(_opened(config, out, resume=resume))
        heard = _heard(progress, work) if _is_main(config) else None
        for name, solution in zip(config.setting_names, solutions, strict=True):
            paths = store.setting_paths(out, name)
            if (finished := store.read_result(paths)) is not None:
                results.append(finished)
                continue
            # The caller's random numbers and threads are none of our business.
            with torch.random.fork_rng(devices=[]), _threads(config.threads), _quiet():
                result = _run_setting(task, name, solution, paths, heard, on_prediction, until)
            results.append(result)
    return results


def _heard(progress: Progress | bool | None, work: contextlib.ExitStack) -> Progress | None:
    """Return who is told how far the training is, if anybody is; a line goes with the work."""
    if progress is not None and not isinstance(progress, bool):
        return progress
    tell = work.enter_context(watched(progress, "epochs"))
    if tell is None:
        return None

    def say(name: str, epoch: int, epochs: int, row: Mapping[str, float]) -> None:
        tell(epoch, epochs, name)

    return say


def _opened(
    config: RunConfig | TextConfig, out: str | os.PathLike[str], *, resume: bool
) -> contextlib.AbstractContextManager[None]:
    """Return the block in which this process may write the record; the other devices' read it."""
    if not _is_main(config):
        return contextlib.nullcontext()
    return open_folder(store.run_file(out), "run", _record(config), resume=resume)


def _record(config: RunConfig | TextConfig) -> dict[str, Any]:
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


def _is_main(config: RunConfig | TextConfig) -> bool:
    """Return whether this process writes the record; of several devices the first one's does."""
    return config.devices == 1 or getattr(rank_zero_only, "rank", 0) == 0


# -- one setting -----------------------------------------------------------------------------------


def _run_setting(
    task: Task,
    name: str,
    solution: Solution,
    paths: store.SettingPaths,
    progress: Progress | None,
    on_prediction: Prediction | None,
    until: float | None,
) -> dict[str, Any]:
    start = time.perf_counter()
    config = task.config
    is_main = _is_main(config)
    prediction = _write_prediction(task, paths, name, solution) if is_main else {}
    if on_prediction is not None and is_main:
        on_prediction(name, solution)

    def keep(rows: list[Row]) -> None:
        store.write_parquet(paths.history, pd.DataFrame(rows))
        classes = task.class_arrays(callback.kept, callback.final)
        if classes is not None:
            store.write_npz(paths.classes, **classes)

    module = task.module(solution)
    callback = task.callback(solution, keep if is_main else None)
    deadline = _Deadline(config.max_seconds)
    report = _Report(name, callback, progress if is_main else None)
    # After the others: its checkpoint holds what they have noted of the epoch.
    pause = _Pause(until, paths.checkpoint)
    trainer = _trainer(config, paths, [callback, report, deadline, pause])
    _fit(trainer, module, task.loader(), paths.checkpoint)
    # The last epoch need not be one that is checkpointed.
    trainer.save_checkpoint(paths.checkpoint)

    # A run killed between its last checkpoint and its result comes back with no epoch to train.
    final = callback.final = callback.final or callback.measure(module)
    if not is_main:
        trainer.strategy.barrier()  # until the first process has written
        return store.read_result(paths) or {}
    keep(callback.history)
    store.write_npz(paths.final, **task.final_arrays(final))
    notes, verdicts = task.judged(solution, final)
    epochs = int(callback.history[-1]["epoch"])
    result = {
        "name": name,
        "status": TRAINED if epochs == config.epochs else OUT_OF_TIME,
        "epochs": epochs,
        "notes": notes,
        "problem": prediction["problem"],
        "predicted": {
            key: prediction[key] for key in ("objective", "gap", "lower_bound", "status", "rank")
        },
        "first": callback.history[0],
        "last": callback.history[-1],
        "verdicts": verdicts,
        "seconds": time.perf_counter() - start,
        "finished": True,
    }
    store.write_json(paths.result, result)
    trainer.strategy.barrier()
    if progress is not None:
        progress(name, config.epochs, config.epochs, callback.history[-1])
    plain: dict[str, Any] = store.to_plain(result)
    return plain


def _write_prediction(
    task: Task, paths: store.SettingPaths, name: str, solution: Solution
) -> dict[str, Any]:
    prediction, arrays = task.prediction(solution)
    prediction |= {"name": name}
    store.write_npz(paths.prediction_arrays, **arrays)
    store.write_json(paths.prediction, prediction)
    return prediction


# -- training with Lightning -----------------------------------------------------------------------


def _check_network(task: Task, solution: Solution) -> None:
    """Refuse a network that cannot be made of these inputs."""
    # Without memory for the weights; but what a package does there is not known.
    place = "cpu" if package_model(task.config.network) else "meta"
    with torch.random.fork_rng(devices=[]), torch.device(place):
        task.module(solution)


def _trainer(
    config: RunConfig | TextConfig, paths: store.SettingPaths, callbacks: list[lightning.Callback]
) -> lightning.Trainer:
    checkpoint = ModelCheckpoint(
        dirpath=paths.checkpoint.parent,
        filename=paths.checkpoint.stem,
        # Where they get rare, measurements are farther apart than one would like to lose.
        every_n_epochs=config.measure_every or max(config.epochs // (MEASUREMENTS - 1), 1),
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
        use_distributed_sampler=False,  # `Batches` shares the batches out
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


def _deterministic(config: RunConfig | TextConfig) -> Any:
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
        seed = mix(self._seed, trainer.current_epoch)
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


class _Pause(lightning.Callback):
    """Leave a training that is to go on later, with the epoch after which the time is up."""

    def __init__(self, until: float | None, checkpoint: Path) -> None:
        self._until = until
        self._checkpoint = checkpoint

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if self._until is None or is_last:
            return
        if trainer.strategy.reduce_boolean_decision(is_over(self._until), all=False):
            trainer.save_checkpoint(self._checkpoint)
            raise TimeIsUp


class _Report(lightning.Callback):
    """Report the progress, not too often."""

    def __init__(
        self, name: str, source: MeasuringCallback[Any], progress: Progress | None
    ) -> None:
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
