"""One head that is given, and one set of names, through every way to measure a model."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import tightframe as tf
from tests.capture.nets import INPUTS, LABELS, D, K

lightning = pytest.importorskip("lightning")
transformers = pytest.importorskip("transformers")

from tightframe.training import CollapseMonitor, CollapseTrainerCallback  # noqa: E402

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

NAMES = ("cat", "dog", "eel")


class Functional(nn.Module):
    """Its classifier is no module."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.body = nn.Sequential(nn.Linear(5, D), nn.ReLU())
        self.matrix, self.shift = nn.Parameter(torch.randn(K, D)), nn.Parameter(torch.randn(K))

    def forward(self, x):
        return functional.linear(self.body(x), self.matrix, self.shift)


class Module(lightning.LightningModule):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)

    def training_step(self, batch, batch_idx):
        return self.inner(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.inner(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class WithLoss(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, labels=None):
        logits = self.inner(x)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def loader():
    return DataLoader(TensorDataset(INPUTS, LABELS), 20)


def by_lightning(model, which, data=None, **options):
    monitor = CollapseMonitor(loader=which, **options)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[monitor],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Module(model), data or loader(), data or loader())
    return list(monitor.reports.values())[-1]


def by_trainer(model, folder, **options):
    rows = [{"x": x, "labels": y} for x, y in zip(INPUTS, LABELS, strict=True)]
    arguments = transformers.TrainingArguments(
        str(folder), report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = transformers.Trainer(WithLoss(model), arguments, eval_dataset=rows)
    callback = CollapseTrainerCallback(**options).attach(trainer)
    trainer.evaluate()
    return list(callback.reports.values())[-1]


def descended(model):
    """Return the loss after its gradient was made."""
    model.zero_grad()
    loss = functional.cross_entropy(model(INPUTS), LABELS)
    loss.backward()
    return loss


def accuracy(model):
    with torch.no_grad():
        return float((model(INPUTS).argmax(dim=1) == LABELS).float().mean())


@pytest.mark.parametrize("which", ["train", "validation"])
def test_a_given_head_in_lightning(which):
    model = Functional()
    given = {"weight": model.matrix, "bias": model.shift, "features": "inner.body"}
    report = by_lightning(model, which, class_names=NAMES, **given)
    assert report.accuracy == pytest.approx(accuracy(model))
    assert report.class_names == NAMES


def test_a_given_head_in_transformers(tmp_path):
    model = Functional()
    given = {"weight": model.matrix, "bias": model.shift, "features": "inner.body"}
    report = by_trainer(model, tmp_path, class_names=NAMES, **given)
    assert report.accuracy == pytest.approx(accuracy(model))
    assert report.class_names == NAMES


def test_a_given_head_in_advice_and_calibration():
    model = Functional()
    torch.optim.LBFGS(model.parameters(), max_iter=20).step(lambda: descended(model))
    given = {"weight": model.matrix, "bias": model.shift, "features": "body"}
    rows = tf.advise(model, loader(), class_names=NAMES, **given).classes.rows
    counts = np.array([row.count for row in rows])
    found = sum(row.accuracy * row.count for row in rows) / counts.sum()
    assert found == pytest.approx(accuracy(model))
    assert {row.name for row in rows} == set(NAMES)

    fit = tf.calibrate(model, loader=loader(), **given)
    with torch.no_grad():
        x, w, b = (t.double().numpy() for t in (model.body(INPUTS), model.matrix, model.shift))
    problem = tf.Problem([20, 20, 20], weight_decay=1, feature_decay=1, bias="free")
    expected = tf.calibrate(problem, w, x, LABELS.numpy(), b)
    assert fit.weight_decay == pytest.approx(expected.weight_decay, rel=1e-5)


def test_what_a_problem_calls_bias_and_features_stays_so():
    model = Named()
    torch.optim.LBFGS(model.parameters(), max_iter=20).step(lambda: descended(model))
    given = {"weight": model.fc.weight, "bias": model.fc.bias, "head": "fc"}
    found = tf.calibrate(model, loader=loader(), features="nonnegative", **given)
    assert found.problem.features == "nonnegative"
    assert found.problem.bias == "free"
    own = tf.calibrate(model, loader(), features="nonnegative", bias="decayed", bias_decay=0.1)
    assert own.problem.bias == "decayed"
    assert found.weight_decay == pytest.approx(own.weight_decay, rel=1e-6)


def test_a_loader_by_its_name():
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    nn.init.eye_(model[0].weight)
    batches = [(torch.eye(2), torch.tensor([0, 1]))]
    fit = tf.calibrate(model, loader=batches, head="0")
    assert fit.weight_decay == tf.calibrate(model, batches, head="0").weight_decay
    with pytest.raises(ValueError, match="loader: missing"):
        tf.calibrate(model)


# -- names ----------------------------------------------------------------------------------------


class Named(nn.Module):
    def __init__(self, names=None):
        super().__init__()
        self.net, self.fc = nn.Sequential(nn.Linear(5, D), nn.ReLU()), nn.Linear(D, K)
        if names is not None:
            self.config = transformers.PretrainedConfig(id2label=dict(enumerate(names)))

    def forward(self, x):
        return self.fc(self.net(x))


@pytest.mark.parametrize("which", ["train", "validation"])
def test_a_lightning_module_is_asked_for_the_names_of_the_model_inside(which):
    assert by_lightning(Named(NAMES), which).class_names == NAMES


def test_models_inside_that_differ_in_their_names_are_not_asked():
    both = nn.ModuleDict({"one": Named(NAMES), "other": Named(NAMES[::-1])})

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.models = both

        def forward(self, x):
            return self.models["one"](x)

    (report,) = tf.metrics.collapse_report(Outer(), loader(), head="models.one.fc").values()
    assert report.class_names is None


def test_the_validation_loop_knows_the_names_of_its_data_set(monkeypatch):
    monkeypatch.setattr(TensorDataset, "classes", list(NAMES), raising=False)
    assert by_lightning(Named(), "validation").class_names == NAMES


@pytest.mark.parametrize("which", ["train", "validation"])
def test_labels_in_lightning_may_be_names(which):
    rows = [(x, NAMES[int(y)]) for x, y in zip(INPUTS, LABELS, strict=True)]
    model = Named()
    report = by_lightning(model, which, DataLoader(rows, 20), class_names=NAMES)
    assert report.accuracy == pytest.approx(accuracy(model))
