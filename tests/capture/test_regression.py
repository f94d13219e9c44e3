"""Regression networks in memory: NRC1 to NRC3 of every layer, and the prediction."""

import numpy as np
import pytest
import torch
from torch import nn

import tightframe as tf

DECAYS = {"weight_decay": 0.02, "feature_decay": 0.0005}


def targets(count=3, samples=60):
    rng = np.random.default_rng(0)
    return rng.normal(size=(samples, count)) @ rng.normal(size=(count, count)) + 3


class Free(nn.Module):
    """Features that are free, turned into eight dimensions, and linear layers behind them."""

    def __init__(self, found):
        super().__init__()
        turn = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0][:, : found.rank]
        features = torch.tensor(found.features @ turn.T)
        self.body = nn.Embedding.from_pretrained(features)
        layers = [found.weights[0] @ turn.T, *found.weights[1:]]
        linear = [nn.Linear(w.shape[1], len(w), bias=w is layers[-1]).double() for w in layers]
        for layer, w in zip(linear, layers, strict=True):
            layer.weight.data = torch.tensor(w)
        linear[-1].bias.data = torch.tensor(found.bias)
        self.head = nn.Sequential(*linear) if len(layers) > 1 else linear[0]

    def forward(self, x):
        return self.head(self.body(x))


def loader(y, size=25):
    places = torch.arange(len(y))
    return [(places[i : i + size], torch.tensor(y[i : i + size])) for i in range(0, len(y), size)]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_minimum_is_recognised(depth):
    y = targets()
    found = tf.regression_collapse(y, **DECAYS, depth=depth)
    reports = tf.metrics.regression_report(Free(found), loader(y), ["body"], "head", **DECAYS)
    assert list(reports) == ["body", "head"]
    head, body = reports["head"], reports["body"]
    assert head.certificate.gap < 1e-10
    assert head.gram_distance < 1e-10
    assert head.nrc1 < 1e-20
    assert head.nrc2 < 1e-20
    assert head.prediction.objective == pytest.approx(found.objective)
    if depth == 1:
        assert head.nrc3 < 1e-20
        assert head.gamma == pytest.approx(found.gamma, rel=1e-6)
    # The body's output is what the head takes in; least squares do without its decay.
    assert body.nrc1 == pytest.approx(head.nrc1, abs=1e-20)
    assert 1 >= body.r_squared > head.r_squared
    with pytest.raises(AttributeError, match="no 'nrc3'"):
        _ = body.nrc3


def test_numbers_are_those_of_the_arrays():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2)).train()
    x, y = torch.randn(30, 4), torch.randn(30, 2)
    batches = [{"x": x[:20], "targets": y[:20]}, {"x": x[20:], "targets": y[20:]}]
    found = tf.metrics.regression_report(
        model, batches, ["1"], forward=lambda net, batch: net(batch["x"])
    )
    assert model.training
    features, (weight, bias) = model[:2](x).detach(), model[2].parameters()
    assert found["2"].nrc1 == pytest.approx(tf.metrics.nrc1(features, 2))
    assert found["2"].nrc2 == pytest.approx(tf.metrics.nrc2(features, weight))
    assert found["2"].nrc3 == pytest.approx(tf.metrics.nrc3(weight, y))
    missed = (features @ weight.T + bias - y).square().sum().item()
    assert found["2"].mean_squared_error == pytest.approx(missed / 30, rel=1e-5)
    total = (y - y.mean(0)).square().sum().item()
    assert found["2"].r_squared == pytest.approx(1 - missed / total, rel=1e-5)
    design = np.column_stack([features, np.ones(30)])
    rest = y.numpy() - design @ np.linalg.lstsq(design, y.numpy(), rcond=None)[0]
    assert found["1"].r_squared == pytest.approx(1 - np.square(rest).sum() / total, rel=1e-5)
    assert found["2"].prediction is None
    frame = found["2"].to_frame()
    assert frame.value[0] == found["2"].nrc1
    assert "NRC1" in repr(found["1"])
    _, ax = found["2"].plot()
    assert [bar.get_height() for bar in ax.patches] == [found["2"].nrc1, *frame.value[1:3]]


@pytest.mark.parametrize("shape", [(30,), (30, 1)])
def test_a_single_target_and_what_the_model_does_to_it(shape):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.out = nn.Linear(4, 8), nn.Linear(8, 1)

        def forward(self, x):
            return 3 * self.out(self.body(x).relu()).squeeze(-1)

    torch.manual_seed(0)
    model, x, y = Scaled(), torch.randn(30, 4), torch.randn(shape)
    with pytest.warns(UserWarning, match="W h \\+ b of 'out' times 3"):
        found = tf.metrics.regression_report(model, [(x, y)])["out"]
    assert (found.num_targets, found.nrc3) == (1, 0)
    missed = (model(x) - y.reshape(-1)).square().mean().item()
    assert found.mean_squared_error == pytest.approx(missed, rel=1e-4)
    assert "times 3" in found.notes[0]
    given = {"weight": 3 * model.out.weight, "bias": 3 * model.out.bias}
    same = tf.metrics.regression_report(model, [(x, y)], head="out", **given)["out"]
    assert same.numbers == pytest.approx(found.numbers, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([(torch.randn(9, 4), torch.randn(9, 2))], {}, "targets: a batch has 2 a sample, '0' giv"),
        ([(torch.randn(9, 4), torch.randn(9, 3, 2))], {}, r"targets: a batch has shape \(9, 3, 2"),
        ([(torch.randn(9, 4), torch.full((9, 3), torch.nan))], {}, "targets: row 0 has an entry"),
        ([], {}, "loader: no batch seen"),
        (None, {}, "loader: got NoneType"),
        ([(torch.randn(9, 4), torch.randn(9, 3))], {"weight_decay": 1}, "feature_decay: missing"),
        ([(torch.randn(9, 4), torch.randn(9, 3))], {"layers": "0"}, "layers: got the text '0'"),
        ([(torch.randn(9, 4), torch.randn(9, 3))], {"layers": ["5"]}, "has no module '5'"),
    ],
)
def test_bad_input_is_named(batches, options, message):
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(ValueError, match=message):
        tf.metrics.regression_report(model, batches, **options)


def test_decays_need_a_layer():
    report = tf.metrics.RegressionReport
    y = targets()
    for options, name in [(DECAYS, "weight_decay"), ({"bias": np.ones(3)}, "bias")]:
        with pytest.raises(ValueError, match=f"{name}: got a value without weight"):
            report.measure(y, y, **options)
    with pytest.raises(ValueError, match=r"weight_2: got shape \(3, 4\), need \(3, 5\), one row"):
        report.measure(y, y, [np.ones((5, 3)), np.ones((3, 4))])
