"""The Lightning monitor on LightningModules that know nothing of it."""

import csv

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from tightframe.capture.layers import collapse_report, layer_scalars
from tightframe.capture.lightning import CollapseMonitor

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LABELS = torch.arange(24) % 3
INPUTS = torch.randn(24, 5, generator=torch.Generator().manual_seed(2)) + LABELS[:, None]
BATCHES = [(INPUTS[:16], LABELS[:16]), (INPUTS[16:], LABELS[16:])]


class Plain(lightning.LightningModule):
    """Has no ``forward``: whatever the monitor does must work without."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.5))
        self.classifier = nn.Linear(6, 3)
        self.after = []

    def step(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.classifier(self.backbone(x)), y)

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.step(batch)

    def on_train_epoch_end(self):
        self.after.append({name: p.detach().clone() for name, p in self.state_dict().items()})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class WithForward(Plain):
    def forward(self, x):
        return self.classifier(self.backbone(x))


def loader(batches):
    return torch.utils.data.DataLoader(batches, batch_size=None)


def fit(
    monitor, model=None, *, logger=False, epochs=2, validation=BATCHES, callbacks=(), **options
):
    model = Plain() if model is None else model
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[monitor, *callbacks],
        logger=logger,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    if validation is BATCHES:
        validation = loader(BATCHES)
    trainer.fit(model, loader(BATCHES), validation)
    return trainer, model


def expected(state, layers=()):
    model = WithForward()
    model.load_state_dict(state)
    return layer_scalars(collapse_report(model, BATCHES, layers, targets="etf"))


def hooks(model):
    return [
        hook
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for hook in hooks
    ]


def test_validation_is_watched_without_a_forward_method():
    monitor = CollapseMonitor(layers=["backbone.0"])
    trainer, model = fit(monitor)
    assert [(row["epoch"], row["step"]) for row in monitor.history] == [(0, 2), (1, 4)]
    for row, state in zip(monitor.history, model.after, strict=True):
        for name, value in expected(state, ["backbone.0"]).items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert list(monitor.reports) == ["backbone.0", "classifier"]
    logged = {name: float(x) for name, x in trainer.callback_metrics.items()}
    assert logged["collapse/nc1"] == pytest.approx(monitor.history[-1]["nc1"], rel=1e-5)
    assert "collapse/backbone.0/nc1" in logged
    assert not hooks(model)


def test_a_named_loader_is_run_in_eval_mode():
    monitor = CollapseMonitor("classifier", loader=loader(BATCHES), every=2)
    _, model = fit(monitor, WithForward(), epochs=3, validation=None)
    assert [row["epoch"] for row in monitor.history] == [1]
    for name, value in expected(model.after[1]).items():
        assert monitor.history[0][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert not hooks(model)


def test_training_loader_and_a_forward_of_ones_own():
    monitor = CollapseMonitor(
        loader="train", forward=lambda module, batch: module.step(batch), nc4=False
    )
    _, model = fit(monitor, validation=None)
    assert monitor.history[-1]["nc1"] == pytest.approx(expected(model.after[-1])["nc1"], rel=1e-4)
    assert "nc4" not in monitor.history[-1]


@pytest.mark.parametrize("which", ["validation", "train"])
def test_training_is_the_same_with_it(which):
    def run(callbacks):
        torch.manual_seed(7)
        model = WithForward()
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=2,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = torch.utils.data.TensorDataset(INPUTS, LABELS)
        shuffled = torch.utils.data.DataLoader(data, batch_size=5, shuffle=True)
        torch.manual_seed(3)
        trainer.fit(model, shuffled, loader(BATCHES))
        return model.state_dict()

    with_it, without = run([CollapseMonitor(loader=which)]), run([])
    assert all(torch.equal(with_it[name], without[name]) for name in without)


def test_every_logger_gets_the_numbers(tmp_path):
    loggers = [CSVLogger(tmp_path, "csv"), TensorBoardLogger(tmp_path, "board")]
    checkpoint = ModelCheckpoint(tmp_path, monitor="collapse/nc1", mode="min")
    monitor = CollapseMonitor(prefix="collapse/")
    fit(monitor, logger=loggers, callbacks=[checkpoint])
    with open(tmp_path / "csv" / "version_0" / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["collapse/nc1"]]
    written = [float(row["collapse/nc1"]) for row in rows]
    assert written == pytest.approx([row["nc1"] for row in monitor.history], rel=1e-5)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "board" / "version_0"))
    events.Reload()
    board = [event.value for event in events.Scalars("collapse/nc1")]
    assert board == pytest.approx(written, rel=1e-5)

    best = min(monitor.history, key=lambda row: row["nc1"])
    assert float(checkpoint.best_model_score) == pytest.approx(best["nc1"], rel=1e-5)
    saved = torch.load(checkpoint.best_model_path, weights_only=True)["callbacks"]
    other = CollapseMonitor()
    other.load_state_dict(next(iter(state for key, state in saved.items() if "Monitor" in key)))
    assert other.history[0] == monitor.history[0]


def test_two_monitors_at_once(tmp_path):
    train = CollapseMonitor(loader=loader(BATCHES), prefix="train/")
    checkpoint = ModelCheckpoint(tmp_path, monitor="train/nc1")
    monitor = CollapseMonitor()
    fit(monitor, WithForward(), callbacks=[train, checkpoint])
    # The same data, measured after the same epochs in two ways.
    for watched, run in zip(monitor.history, train.history, strict=True):
        assert watched == pytest.approx(run, rel=1e-5, abs=1e-6)
    saved = torch.load(checkpoint.best_model_path, weights_only=True)["callbacks"]
    assert len([key for key in saved if "CollapseMonitor" in key]) == 2


def test_one_of_several_validation_loaders():
    shifted = [(INPUTS + 5, LABELS)]
    monitor = CollapseMonitor(dataloader_idx=1)
    _, model = fit(monitor, validation=[loader(shifted), loader(BATCHES)], epochs=1)
    assert monitor.history[0]["nc1"] == pytest.approx(expected(model.after[0])["nc1"], rel=1e-4)
    assert monitor.history[0]["accuracy"] == expected(model.after[0])["accuracy"]


def test_validate_without_fitting():
    monitor, model = CollapseMonitor(), Plain()
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[monitor],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    (result,) = trainer.validate(model, loader(BATCHES), verbose=False)
    assert result["collapse/nc1"] == pytest.approx(expected(model.state_dict())["nc1"], rel=1e-5)


class Diverging(Plain):
    def __init__(self, epochs):
        super().__init__()
        self.bad = epochs

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.step((x * float("nan") if self.current_epoch in self.bad else x, y))


def test_features_that_are_not_finite_end_the_measurement_not_the_training():
    monitor = CollapseMonitor()
    with pytest.warns(RuntimeWarning, match="not measured: features: those at 'classifier'"):
        fit(monitor, Diverging([1]), epochs=3)
    assert [row["epoch"] for row in monitor.history] == [0, 2]


def test_bad_input_and_hooks_after_an_error():
    with pytest.raises(ValueError, match="loader: got 'test', allowed are validation, train"):
        CollapseMonitor(loader="test")
    with pytest.raises(ValueError, match="every: got 0"):
        CollapseMonitor(every=0)
    model = Plain()
    with pytest.raises(ValueError, match="no module 'fc'"):
        fit(CollapseMonitor("fc"), model)
    with pytest.raises(ValueError, match="labels: got 3, need a position in a batch of 2"):
        fit(CollapseMonitor(labels=3), model)
    assert not hooks(model)
    # A head that never runs.
    model.spare = nn.Linear(6, 3)
    with pytest.raises(
        ValueError, match="no batch seen, nothing with a label passed through 'spare'"
    ):
        fit(CollapseMonitor("spare"), model)
    assert not hooks(model)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_true_half_and_double_precision_are_measured_on_the_training_set(precision):
    monitor = CollapseMonitor()
    fit(monitor, WithForward(), precision=precision)
    assert monitor.split == "train"
    assert len(monitor.history) == 2
    assert monitor.record().weight.dtype == np.float64
