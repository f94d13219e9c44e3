"""`continue_at`: against the certified head, and what has no fixed objective is refused."""

import itertools
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tightframe as tf
from tightframe.training import continue_at

COUNTS = (40, 20, 6)


def some_data(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(range(3), COUNTS)
    inputs = np.eye(3)[labels] @ rng.normal(size=(3, 4)) + rng.normal(size=(66, 4))
    return torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels)


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))


def batches():
    x, y = some_data()
    return [(x[start : start + 25], y[start : start + 25]) for start in (0, 25, 50)]


@pytest.mark.parametrize(
    "loss",
    [
        {},
        {"class_weights": "balanced"},
        {"logit_adjustment": "prior"},
        {"label_smoothing": 0.1},
        {
            "class_weights": "balanced",
            "label_smoothing": 0.1,
            "smoothing_weights": "labels",
            "class_margins": [0.1, 0.3, 0.5],
            "logit_scale": [1, 0.8, 0.6],
        },
    ],
    ids=str,
)
def test_a_linear_network_ends_at_the_certified_head(loss):
    torch.manual_seed(0)
    x, y = some_data()
    found = continue_at(nn.Linear(4, 3), batches(), weight_decay=0.02, **loss)
    head = tf.heads.fit_head(x, y, weight_decay=0.02, tol=1e-10, **loss)
    assert found.converged
    assert found.gradient < 1e-4
    assert found.objective == pytest.approx(head.objective, rel=1e-8)
    np.testing.assert_allclose(found.model.weight.detach(), head.weight, atol=1e-4)
    np.testing.assert_allclose(found.accuracy, head.training.recalls)
    means = np.stack([x[y == k].double().numpy().mean(axis=0) for k in range(3)])
    logits = means @ head.weight.T + head.bias
    own = logits.diagonal().copy()
    np.fill_diagonal(logits, -np.inf)
    np.testing.assert_allclose(found.margins, own - logits.max(axis=1), atol=1e-3)
    assert found.counts.tolist() == list(COUNTS)


def test_objective_is_that_of_torch_and_falls():
    model = small_network()
    before = [p.clone() for p in model.parameters()]
    found = continue_at(model, batches(), weight_decay=0.01, iterations=40, tol=1.0)
    x, y = some_data()
    squares = sum(float(p.detach().double().square().sum()) for p in found.model.parameters())
    loss = nn.functional.cross_entropy(found.model(x), y).item()
    assert found.objective == pytest.approx(loss + 0.005 * squares, rel=1e-5)
    assert (np.diff(found.history) <= 0).all()
    assert found.history[-1] == found.objective
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert next(found.model.parameters()).dtype == torch.float32
    assert found.model.training


def test_it_repeats_itself_whatever_the_batches():
    x, y = some_data()
    options = {"weight_decay": 0.01, "iterations": 20, "tol": 1.0}
    whole = continue_at(small_network(), [(x, y)], **options)
    parts, again = (continue_at(small_network(), batches(), **options) for _ in range(2))
    assert again.objective == parts.objective
    assert whole.objective == pytest.approx(parts.objective, rel=1e-6)


def test_data_too_large_to_keep_are_gone_through(monkeypatch):
    kept = continue_at(small_network(), batches(), weight_decay=0.01, iterations=10, tol=1.0)
    monkeypatch.setattr("tightframe.training.continuing.MOST_CACHED", 0)
    streamed = continue_at(small_network(), batches(), weight_decay=0.01, iterations=10, tol=1.0)
    assert streamed.objective == kept.objective


def test_shuffled_loaders_are_one_data_set_and_leave_the_random_state():
    loader = DataLoader(TensorDataset(*some_data()), batch_size=20, shuffle=True)
    model, state = nn.Linear(4, 3), torch.get_rng_state()
    found = continue_at(model, loader, weight_decay=0.05)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.counts.sum() == sum(COUNTS)


def test_groups_of_an_optimiser_say_what_is_trained_and_decays():
    model = small_network()
    first, last = model[0], model[2]
    groups = [
        {"params": [first.weight], "weight_decay": 0.02},
        {"params": [first.bias], "weight_decay": 0.0},
        {"params": list(last.parameters()), "weight_decay": 0.01},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    last.bias.requires_grad_(False)
    found = continue_at(
        model, batches(), optimizer=optimizer, weight_decay=0.04, iterations=40, tol=1.0
    )
    assert torch.equal(found.model[2].bias, last.bias)
    squares = [float(p.detach().double().square().sum()) for p in found.model.parameters()]
    x, y = some_data()
    loss = nn.functional.cross_entropy(found.model(x), y).item()
    expected = loss + 0.02 * squares[0] + 0.01 * squares[2]
    assert found.objective == pytest.approx(expected, rel=1e-5)


class Wrapped(nn.Module):
    """Like Hugging Face: named inputs, an output with logits, labels that are to be ignored."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, pixels):
        return types.SimpleNamespace(logits=self.inner(pixels))


def test_outputs_with_logits_named_inputs_and_ignored_labels():
    x, y = some_data()
    plain = continue_at(small_network(), [(x, y)], weight_decay=0.02, iterations=20, tol=1.0)
    padded = torch.cat([x, x[:3]]), torch.cat([y, torch.full((3,), -100)])
    batch = [{"pixels": padded[0], "labels": padded[1]}]
    model = nn.DataParallel(Wrapped(small_network()))
    found = continue_at(model, batch, weight_decay=0.02, iterations=20, tol=1.0)
    assert isinstance(found.model, Wrapped)
    assert found.objective == pytest.approx(plain.objective, rel=1e-9)


def test_class_without_samples():
    x, y = some_data()
    model = nn.Linear(4, 4)
    found = continue_at(model, [(x, y)], weight_decay=0.02, class_weights="balanced")
    assert np.isnan(found.margins).tolist() == [False, False, False, True]


def test_too_few_steps_are_said():
    with pytest.warns(tf.NotConvergedWarning, match="still fell by a share of"):
        found = continue_at(small_network(), batches(), weight_decay=1e-3, iterations=10)
    assert not found.converged
    assert "still falling" in repr(found)


def test_result_has_what_results_have():
    found = continue_at(nn.Linear(4, 3), batches(), weight_decay=0.05)
    values = found.to_dict()
    assert values["converged"] is True
    assert values["iterations"] == len(values["history"]) - 1
    assert found.to_frame()["margin"].tolist() == found.margins.tolist()
    figure, axes = found.plot()
    assert axes.get_ylabel() == "objective"
    assert figure is axes.figure


class Noisy(nn.Module):
    """Dropout without a layer of that name."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(nn.functional.dropout(x, 0.5, self.training))


class Augmented:
    """A loader whose samples differ at every pass."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def __iter__(self):
        x, y = some_data()
        yield x + 0.1 * torch.randn(x.shape, generator=self.generator), y


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)), "batch norm .'1'"),
        (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).eval(), "batch norm"),
        (nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.2), nn.Linear(5, 3)), "dropout .'1', p = 0.2"),
        (Noisy(), "two passes"),
        (nn.Conv1d(1, 3, 4), "model: gives|Expected|expected"),
        (nn.Linear(4, 2), "labels from 1 to 2, need 0 to 1"),
        (nn.Identity(), "no parameter"),
    ],
)
def test_networks_without_a_fixed_objective_are_refused(model, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        continue_at(model, batches(), weight_decay=0.01)


def test_frozen_batch_norm_and_idle_dropout_are_fine():
    norm = nn.BatchNorm1d(5).eval()
    for parameter in norm.parameters():
        parameter.requires_grad_(False)
    model = nn.Sequential(nn.Linear(4, 5), norm, nn.ReLU(), nn.Dropout(0.0), nn.Linear(5, 3))
    norm.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tf.NotConvergedWarning)
        assert continue_at(model, batches(), weight_decay=0.01, iterations=5).iterations == 5


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (Augmented(), "two passes"),
        (
            DataLoader(TensorDataset(*some_data()), batch_size=20, shuffle=True, drop_last=True),
            "two passes",
        ),
        (iter(batches()), "many times"),
        ([], "no sample"),
        (5, "loader: got int"),
    ],
)
def test_data_that_change_are_refused(loader, message):
    torch.manual_seed(1)
    with pytest.raises(ValueError, match=message):
        continue_at(nn.Linear(4, 3), loader, weight_decay=0.01)


def test_labels_between_whole_numbers_are_refused():
    halves = [(x, y + 0.5) for x, y in batches()]
    with pytest.raises(ValueError, match=r"got torch\.float32 entries, need whole"):
        continue_at(nn.Linear(4, 3), halves, weight_decay=0.01)
    with pytest.raises(ValueError, match=r"model: got str, need a torch\.nn\.Module"):
        continue_at("model", batches(), weight_decay=0.01)


def test_arguments_out_of_range_are_refused():
    model = nn.Linear(4, 3)

    def refused(message, **options):
        with pytest.raises(ValueError, match=message):
            continue_at(model, batches(), **options)

    refused("got neither")
    refused("optimizer: got str, need one of torch.optim", optimizer="sgd")
    refused("weight_decay: got 0", weight_decay=0.0)
    refused("iterations", weight_decay=0.1, iterations=0)
    refused("tol", weight_decay=0.1, tol=-1)
    refused("class_weights", weight_decay=0.1, class_weights="none")
    refused("label_smoothing: got 1,", weight_decay=0.1, label_smoothing=1)
    refused("class_margins: got 2 numbers", weight_decay=0.1, class_margins=[1, 2])
    refused("logit_scale: ", weight_decay=0.1, logit_scale=[0, 1, 1])
    refused("AdamW, whose decay", optimizer=torch.optim.AdamW(model.parameters()))
    refused("has no decay", weight_decay=0.1, optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    refused("no parameter of the model", optimizer=other)
    decoupled = torch.optim.SGD(itertools.chain(model.parameters()), lr=1.0, weight_decay=0.1)
    decoupled.param_groups[0]["decoupled_weight_decay"] = True
    refused("whose decay is no term", optimizer=decoupled)
