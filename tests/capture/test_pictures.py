"""Wheels and embeddings reach the loggers that take them, and nothing that fails ends a training.

Fakes have exactly the methods that are used, which are compared with the real ones' where those are
installed.
"""

import inspect
import itertools
import warnings

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

import tightframe as tf
from tests.capture.test_attach_lightning import INPUTS, LABELS, WithForward, fit
from tightframe.capture import embedding, loggers, pictures
from tightframe.capture.embedding import embedding_of
from tightframe.capture.lightning import CollapseMonitor
from tightframe.capture.sample import Sample
from tightframe.metrics import ClassMoments, CollapseReport
from tightframe.metrics.wheels import report_wheel

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

NAMES = ["a cat", "dog", "x\ty"]


class Calls(list):
    def taker(self, name):
        def take(*args, **kwargs):
            self.append((name, args, kwargs))

        return take

    def of(self, name):
        return [kwargs for called, _, kwargs in self if called == name]


class Writer:
    """A ``SummaryWriter``."""

    def __init__(self):
        self.calls = Calls()
        for name in ("add_image", "add_embedding", "flush"):
            setattr(self, name, self.calls.taker(name))


class Numbers(CSVLogger):
    """A logger that takes numbers, as all of Lightning's do."""

    def __init__(self, folder):
        super().__init__(folder)
        self.calls = Calls()


class WandbLogger(Numbers):
    def __init__(self, folder):
        super().__init__(folder)
        self.log_image = self.calls.taker("log_image")
        self.log_table = self.calls.taker("log_table")


class MLFlowLogger(Numbers):
    run_id = "run"

    @property
    def experiment(self):
        client = super().experiment
        client.log_image = self.calls.taker("log_image")
        return client


class Unknown(Numbers):
    def log_image(self, *args, **kwargs):
        raise AssertionError("nobody knows what this takes")


def report_of(counts=(4, 3, 5), dim=6, names=NAMES):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    features = rng.normal(size=(len(labels), dim)) + 1
    weight = rng.normal(size=(len(counts), dim))
    moments = ClassMoments(len(counts))
    moments.update(features, labels)
    report = CollapseReport.measure(
        moments, weight, features=features, labels=labels, class_names=names, targets="etf"
    )
    return report, features, labels, weight


def test_lightning_loggers_get_wheels_and_an_embedding(tmp_path):
    wandb, mlflow, unknown = WandbLogger(tmp_path), MLFlowLogger(tmp_path), Unknown(tmp_path)
    board = TensorBoardLogger(tmp_path, "board")
    monitor = CollapseMonitor(class_names=NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit(
            monitor,
            WithForward(),
            epochs=5,
            logger=[wandb, mlflow, unknown, board, CSVLogger(tmp_path)],
        )
    steps = [2, 4, 6, 8, 10]  # the 1st to 4th measurement, and the last
    assert [call["step"] for call in wandb.calls.of("log_image")] == steps
    assert {call["key"] for call in wandb.calls.of("log_image")} == {"collapse/wheel"}
    assert [call["step"] for call in mlflow.calls.of("log_image")] == steps
    assert [args[0] for _, args, _ in mlflow.calls] == ["run"] * 5
    (table,) = wandb.calls.of("log_table")
    assert table["columns"][:5] == ["class", "vector", "samples", "state", "d0"]
    assert len(table["data"]) == 3 + 3 + 24
    assert {len(row) for row in table["data"]} == {len(table["columns"])} == {4 + 6}

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (tmp_path / "board").iterdir()
    events = EventAccumulator(str(folder), size_guidance={"images": 0})  # all
    events.Reload()
    images = events.Images("collapse/wheel")
    assert [image.step for image in images] == steps
    shown = wandb.calls.of("log_image")[-1]["images"][0]
    assert (images[-1].height, images[-1].width, 3) == shown.shape
    (projected,) = folder.glob("00010/*/metadata.tsv")
    rows = [line.split("\t") for line in projected.read_text().splitlines()]
    assert rows[0] == ["class", "vector", "samples", "state"]
    assert [row[:3] for row in rows[1:4]] == [
        ["a cat", "class mean", "8"],
        ["dog", "class mean", "8"],
        ["x y", "class mean", "8"],
    ]
    assert "collapse/embedding:00010" in (folder / "projector_config.pbtxt").read_text()


def test_without_pictures_only_numbers_are_logged(tmp_path):
    wandb = WandbLogger(tmp_path)
    fit(CollapseMonitor(pictures=False), WithForward(), logger=[wandb], epochs=1)
    assert wandb.calls == []


def test_targets_that_can_be_gone_through_once_are_there_at_every_measurement(tmp_path):
    monitor = CollapseMonitor(targets=(name for name in ("etf", "seli")))
    fit(monitor, WithForward(), logger=False, epochs=2)
    first, second = ({name for name in row if "_to_" in name} for row in monitor.history)
    assert first == second
    assert len(first) >= 4


@pytest.mark.parametrize("broken", ["log_image", "log_table"])
def test_what_fails_is_warned_of_once_and_training_goes_on(tmp_path, broken):
    wandb, mlflow = WandbLogger(tmp_path), MLFlowLogger(tmp_path)
    tried = []

    def fail(**call):
        tried.append(call)
        raise OSError("no room left")

    setattr(wandb, broken, fail)
    monitor = CollapseMonitor()
    with pytest.warns(RuntimeWarning, match="not logged by WandbLogger: no room left") as caught:
        fit(monitor, WithForward(), epochs=3, logger=[wandb, mlflow])
    assert len([w for w in caught if "no room" in str(w.message)]) == len(tried) == 1
    assert len(monitor.history) == len(mlflow.calls) == 3


def test_a_logger_without_a_place_is_warned_of_once_and_others_get_theirs(tmp_path):
    """Some open their place, or lose it, later than Lightning looks; others have a name alone."""

    class Lost:
        @property
        def experiment(self):
            raise OSError("the disk is gone")

    lost = type("TensorBoardLogger", (Lost,), {})()
    nameless = type("WandbCallback", (), {})()
    other = WandbLogger(tmp_path)
    report, *_ = report_of()
    sent, places = pictures.Pictures("collapse/"), [lost, nameless, other]

    def train():
        for number in (1, 2, 3):
            sent.measured(places, report, number, "title", number)
        sent.ended(places, Sample())

    with pytest.warns(RuntimeWarning, match="not logged by TensorBoardLogger: the disk") as caught:
        train()
    assert len(caught) == 2
    assert "pictures not logged by WandbCallback: " in str(caught[1].message)
    assert [name for name, *_ in other.calls] == ["log_image"] * 3 + ["log_table"]


def test_without_matplotlib_the_embedding_is_logged_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tightframe.figures.mpl", None)
    wandb = WandbLogger(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"wheel not drawn: .*tightframe\[report\]") as caught:
        fit(CollapseMonitor(), WithForward(), logger=[wandb], epochs=2)
    assert len([w for w in caught if "not drawn" in str(w.message)]) == 1
    assert [name for name, *_ in wandb.calls] == ["log_table"]


def test_a_class_without_samples_has_no_wheel():
    report, *_ = report_of()
    assert report_wheel(report) is not None
    moments = ClassMoments(3)
    moments.update(INPUTS[LABELS < 2], LABELS[LABELS < 2])
    with pytest.warns(RuntimeWarning):
        partial = CollapseReport.measure(moments, np.eye(3, 5), missing="leave_out")
    assert report_wheel(partial) is None


def test_a_wheel_has_the_rings_and_the_loss_of_what_is_known():
    problem = tf.Problem([4, 3, 5], "mse", weight_decay=0.01, feature_decay=0.01, class_names=NAMES)
    solution = tf.solve(problem)
    report, features, labels, weight = report_of()
    plain, squares, predicted = (report_wheel(report, x) for x in (None, problem, solution))
    assert plain.moments[0].rings is squares.moments[0].rings is None
    assert len(predicted.moments[0].rings) == 3
    means = np.stack([features[labels == k].mean(axis=0) for k in range(3)])
    scores = means @ weight.T
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(plain.moments[0].places, shares @ plain.homes, atol=1e-9)
    spread = scores + (1 - scores.sum(axis=1, keepdims=True)) / 3
    places = spread @ squares.homes
    lengths = np.linalg.norm(places, axis=1, keepdims=True)
    np.testing.assert_allclose(
        squares.moments[0].places, places * np.minimum(1, 1.08 / lengths), atol=1e-9
    )
    # Of another number of classes it says nothing.
    other = tf.Problem("5x4", weight_decay=0.1, feature_decay=0.1)
    assert report_wheel(report, other).moments[0].places == plain.moments[0].places


def test_pictures_are_dense_at_the_start():
    shown = [n for n in range(1, 1001) if pictures.is_shown(n)]
    assert shown[:10] == [1, 2, 3, 4, 6, 8, 11, 16, 23, 32]
    assert all(1.3 < b / a < 1.6 for a, b in itertools.pairwise(shown[2:]))


def test_a_sample_is_the_first_of_every_class():
    rng = np.random.default_rng(1)
    labels = rng.choice(4, size=500, p=[0.6, 0.3, 0.09, 0.01])
    features = torch.as_tensor(rng.normal(size=(500, 3)))
    sample = Sample(most=40)
    sample.clear(4)
    for start in range(0, 500, 37):
        part = slice(start, start + 37)
        sample.add(features[part], torch.as_tensor(labels[part]))
    expected = np.sort(np.concatenate([np.flatnonzero(labels == k)[:10] for k in range(4)]))
    kept, own = sample.arrays()
    assert own.tolist() == labels[expected].tolist()
    np.testing.assert_array_equal(kept, features[expected].numpy().astype(np.float32))
    sample.clear(50)  # more classes than there is room for
    sample.add(features, torch.as_tensor(labels))
    assert sample.arrays()[0].shape == (0, 0)


def test_an_embedding_is_means_classifier_and_samples_about_one_origin(monkeypatch):
    report, features, labels, weight = report_of()
    sample = Sample(most=6)
    sample.clear(3)
    sample.add(torch.as_tensor(features), torch.as_tensor(labels))
    found = embedding_of(report, sample)
    means = np.stack([features[labels == k].mean(axis=0) for k in range(3)])
    center = means.mean(axis=0)
    np.testing.assert_allclose(found.vectors[:3], means - center, atol=1e-6)
    rows = found.vectors[3:6]
    np.testing.assert_allclose(rows / np.linalg.norm(rows), weight / np.linalg.norm(weight), 1e-5)
    assert np.linalg.norm(rows) == pytest.approx(np.linalg.norm(means - center), rel=1e-5)
    first_two = [0, 1, 4, 5, 7, 8]
    np.testing.assert_allclose(found.vectors[6:], features[first_two] - center, atol=1e-6)
    assert [row[1] for row in found.rows] == 3 * ["class mean"] + 3 * ["classifier"] + 6 * [
        "sample"
    ]
    assert [row[0] for row in found.rows[6:]] == ["a cat", "a cat", "dog", "dog", "x y", "x y"]
    states = {row.label: row.accuracy_state for row in report.class_table()}
    assert [row[3] for row in found.rows[:3]] == [states[k] for k in range(3)]
    # As much as there is room for.
    monkeypatch.setattr(embedding, "MOST_ENTRIES", 6 * 6 + 2 * 6)
    assert [row[1] for row in embedding_of(report, sample).rows[6:]] == ["sample"] * 2
    monkeypatch.setattr(embedding, "MOST_ENTRIES", 6 * 6 - 1)
    assert embedding_of(report, sample) is None


# -- transformers' callbacks -----------------------------------------------------------------------


def made(name, **attributes):
    """An object whose class has a name, as those that are looked for."""
    thing = type(name, (), {})()
    vars(thing).update(attributes)
    return thing


class Module:
    """The modules ``wandb`` and ``mlflow``, as far as they are used."""

    def __init__(self):
        self.calls = Calls()
        self.log = lambda values: self.calls.append(("log", (values,), {}))
        self.log_image = self.calls.taker("log_image")
        self.Image = lambda pixels: ("image", pixels.shape)
        self.Table = lambda columns, data: ("table", columns, len(data))


def test_what_a_trainer_reports_to_gets_wheels_and_an_embedding(tmp_path):
    pytest.importorskip("transformers")
    from tests.capture.test_attach_huggingface import bert, make_trainer
    from tightframe.capture.huggingface import CollapseTrainerCallback

    writer, wandb, mlflow = Writer(), Module(), Module()
    trainer = make_trainer(bert(), tmp_path, eval_strategy="no", num_train_epochs=5)
    trainer.callback_handler.callbacks += [
        made("TensorBoardCallback", tb_writer=writer, **_deaf()),
        made("WandbCallback", _wandb=wandb, **_deaf()),
        made("MLflowCallback", _ml_flow=mlflow, **_deaf()),
        made("TensorBoardCallback", tb_writer=None, **_deaf()),
    ]
    callback = CollapseTrainerCallback(class_names=NAMES).attach(trainer)
    trainer.train()
    steps = [3, 6, 9, 12, 15]
    assert [call["global_step"] for call in writer.calls.of("add_image")] == steps
    assert [args[0] for name, args, _ in writer.calls if name == "add_image"] == [
        "train/collapse/wheel"
    ] * 5
    assert [call["step"] for call in mlflow.calls.of("log_image")] == steps
    logged = [args[0] for _, args, _ in wandb.calls]
    assert [values["train/global_step"] for values in logged] == [*steps, 15]
    assert [values["train/collapse/wheel"][0] for values in logged[:-1]] == ["image"] * 5
    assert logged[-1]["train/collapse/embedding"][0] == "table"
    (projected,) = writer.calls.of("add_embedding")
    assert projected["tag"] == "train/collapse/embedding"
    assert len(projected["metadata"]) == 3 + 3 + 18
    record = callback.record()
    assert [moment.step for moment in record.moments] == steps
    assert record.classes.names == ("a cat", "dog", "x\ty")


def _deaf():
    """What a Trainer calls of its callbacks: nothing here."""
    events = [name for name in dir(__import__("transformers").TrainerCallback) if name[:3] == "on_"]
    return dict.fromkeys(events, lambda *args, **kwargs: None)


# -- the real ones ---------------------------------------------------------------------------------


def takes(function, *names):
    parameters = inspect.signature(function).parameters
    return [name for name in names if name not in parameters] == []


def test_tensorboard_has_what_is_called():
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    assert takes(writer.add_image, "tag", "img_tensor", "global_step", "dataformats")
    names = ("mat", "metadata", "metadata_header", "global_step", "tag")
    assert takes(writer.add_embedding, *names)


def test_wandb_has_what_is_called():
    from lightning.pytorch.loggers import WandbLogger as Real

    assert takes(Real.log_image, "key", "images", "step")
    assert takes(Real.log_table, "key", "columns", "data", "step")
    wandb = pytest.importorskip("wandb")
    assert takes(wandb.Table, "columns", "data")
    assert takes(wandb.Image, "data_or_path")


def test_mlflow_has_what_is_called():
    from lightning.pytorch.loggers import MLFlowLogger as Real

    assert isinstance(Real.run_id, property)
    assert isinstance(inspect.getattr_static(Real, "experiment"), property)
    mlflow = pytest.importorskip("mlflow")
    assert takes(mlflow.MlflowClient.log_image, "run_id", "image", "key", "step")
    assert takes(mlflow.log_image, "image", "key", "step")


def test_the_classes_are_called_as_those_that_are_looked_for():
    lightning_loggers = {name for name in loggers._SINKS if name.endswith("Logger")}
    assert all(hasattr(lightning.pytorch.loggers, name) for name in lightning_loggers)
    transformers = pytest.importorskip("transformers.integrations")
    assert all(hasattr(transformers, name) for name in set(loggers._SINKS) - lightning_loggers)
