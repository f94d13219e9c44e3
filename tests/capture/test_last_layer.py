"""The last layer of a model in memory: its features, its effective head, and its classes' names."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import tightframe as tf
from tightframe.capture.last_layer import last_layer
from tightframe.heads.last_layer import LastLayer

NAMES = ["cat", "dog", "eel"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(20, 4, generator=generator), torch.arange(20) % 3)


def test_features_labels_and_classifier(model, data):
    held_out = DataLoader(Subset(data, range(5)), 2)
    layer = last_layer(model, DataLoader(data, 6), held_out=held_out)
    assert isinstance(layer, LastLayer)
    x, y = data.tensors
    with torch.no_grad():
        features = model[1](model[0](x))
    assert torch.allclose(torch.tensor(layer.features), features.double())
    assert layer.labels.tolist() == y.tolist()
    assert np.array_equal(layer.weight, model[3].weight.detach().double())
    assert np.array_equal(layer.bias, model[3].bias.detach().double())
    assert np.allclose(layer.held_out[0], layer.features[:5])
    assert layer.held_out[1].tolist() == [0, 1, 2, 0, 1]
    assert layer.class_names is None
    assert model.training


def test_what_follows_the_classifier_is_part_of_it(data):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            return 3 * self.fc(self.body(x))

    scaled = Scaled()
    with pytest.warns(UserWarning, match="times 3"):
        layer = last_layer(scaled, DataLoader(data, 8))
    with torch.no_grad():
        logits = scaled(data.tensors[0])
    assert np.allclose(layer.logits(), logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["given", "classes", "inside a subset", "id2label", "ClassLabel"])
def test_names_are_given_or_known(model, data, kind):
    loader, options = DataLoader(data, 6), {}
    if kind == "given":
        options = {"class_names": NAMES}
    elif kind == "classes":
        data.classes = NAMES
    elif kind == "inside a subset":
        data.classes = NAMES
        loader = DataLoader(Subset(data, range(12)), 6)
    elif kind == "id2label":
        config = pytest.importorskip("transformers").PretrainedConfig
        model.config = config(id2label=dict(enumerate(NAMES)))
    else:
        label = type("ClassLabel", (), {"names": NAMES})()
        data.features = {"label": label}
    assert last_layer(model, loader, **options).class_names == tuple(NAMES)
    (report,) = tf.metrics.collapse_report(model, loader, **options).values()
    assert sorted(report.classes()["name"]) == NAMES


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1", "LABEL_2"], NAMES[:2]])
def test_what_is_no_name_is_not_taken(model, data, names):
    data.classes = names  # placeholders of Hugging Face, or names of something else
    assert last_layer(model, DataLoader(data, 6)).class_names is None
    with pytest.raises(ValueError, match="class_names: got 2, the classifier has 3 rows"):
        last_layer(model, DataLoader(data, 6), class_names=NAMES[:2])


def test_labels_of_batches_may_be_names(model, data):
    x, y = data.tensors
    batches = [(x[:8], [NAMES[k] for k in y[:8]]), (x[8:], [NAMES[k] for k in y[8:]])]
    layer = last_layer(model, batches, class_names=NAMES)
    assert layer.labels.tolist() == y.tolist()
    with pytest.raises(ValueError, match="labels: got names; pass class_names"):
        last_layer(model, batches)
    with pytest.raises(ValueError, match="labels: got 'eel', which is none of the 3 class names"):
        last_layer(model, batches, class_names=["cat", "dog", "fox"])
    (report,) = tf.metrics.collapse_report(model, batches, class_names=NAMES).values()
    assert report.counts.tolist() == np.bincount(y).tolist()


def test_a_watch_knows_the_names(model, data):
    x, y = data.tensors
    with tf.metrics.watch(model, class_names=NAMES) as watched:
        model(x)
        watched.labels(y)
    assert watched.report().class_names == tuple(NAMES)


def test_loaders_without_samples(model):
    with pytest.raises(ValueError, match="loader: no batch seen"):
        last_layer(model, [])
    with pytest.raises(ValueError, match="loader: got int, need an iterable of batches"):
        last_layer(model, 3)


def test_loaders_of_which_all_labels_are_ignored_say_so(model, data):
    x, y = data.tensors
    for batches, ignored in (([(x, 0 * y - 100)], -100), ([(x[:9], y[:9] * 0 + 7)] * 2, 7)):
        count = sum(len(labels) for _, labels in batches)
        said = f"loader: labels: all {count} are {ignored}, which is left out"
        for entry in (last_layer, tf.metrics.collapse_report, tf.calibrate):
            with pytest.raises(ValueError, match=said):
                entry(model, batches, ignore_index=ignored)


def test_decays_of_a_model_in_one_line(model, data):
    """As of its arrays."""
    loader = DataLoader(data, 6)
    torch.optim.LBFGS(model.parameters(), max_iter=50).step(lambda: _loss(model, data))
    layer = last_layer(model, loader)
    problem = tf.Problem(layer.counts, weight_decay=1, feature_decay=1, bias="free")
    expected = tf.calibrate(problem, layer.weight, layer.features, layer.labels, layer.bias)
    found = tf.calibrate(model, loader, class_names=NAMES)
    assert found.weight_decay == pytest.approx(expected.weight_decay, rel=1e-12)
    assert found.feature_decay == pytest.approx(expected.feature_decay, rel=1e-12)
    assert found.problem.class_names == tuple(NAMES)
    with pytest.raises(ValueError, match="bias: got a non-zero bias for a problem with"):
        tf.calibrate(model, loader, bias="none")
    with pytest.raises(
        ValueError, match="loader: missing; decays are fitted to a model's training"
    ):
        tf.calibrate(model)
    with pytest.raises(ValueError, match="labels: class 2 has no samples"):
        tf.calibrate(model, [(data.tensors[0][:2], data.tensors[1][:2])])
    with pytest.raises(ValueError, match="class_names: given with a problem, which has it"):
        tf.calibrate(problem, layer.weight, layer.features, layer.labels, class_names=NAMES)


def _loss(model, data):
    x, y = data.tensors
    model.zero_grad()
    loss = nn.functional.cross_entropy(model[3](model[1](model[0](x))), y)
    loss = loss + 1e-2 * sum(p.square().sum() for p in model.parameters())
    loss.backward()
    return loss


def test_what_is_wrong_with_held_out_batches_is_said_of_them(model):
    x, y = torch.randn(6, 4), torch.arange(6) % 3
    with pytest.raises(ValueError, match=r"^held_out: labels: a batch is a tensor of shape"):
        last_layer(model, [(x, y)], held_out=(x, y))
