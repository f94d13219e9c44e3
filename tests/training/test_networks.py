import pytest
import torch
from torch import nn

from tightframe.geometry.dense import simplex_etf
from tightframe.heads import FixedETF, FixedFrame
from tightframe.training import MLP, head_bias, head_layers, head_weight, linear_head


def test_mlp_returns_features_of_the_sign_asked_for():
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    real, relu = MLP(7, 5, (9,)), MLP(7, 5, (9,), features="nonnegative")
    assert real(x).shape == relu(x).shape == (50, 5)
    assert real(x).min() < 0
    assert relu(x).min() == 0
    assert [type(layer).__name__ for layer in real] == ["Linear", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in MLP(7, 5, ())] == ["Linear"]


def test_mlp_with_batch_norm_normalises_what_is_hidden():
    torch.manual_seed(0)
    model = MLP(7, 5, (9, 8), batch_norm=True)
    kinds = [type(layer).__name__ for layer in model]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    x = torch.randn(50, 7)
    first = model[1](model[0](x))
    assert torch.allclose(first.mean(0), torch.zeros(9), atol=1e-5)
    assert torch.allclose(first.var(0, correction=0), torch.ones(9), atol=1e-2)
    assert model(x).min() < 0


def test_mlp_ends_in_a_relu_when_asked_and_takes_images():
    torch.manual_seed(0)
    model = MLP(6, 5, (9,), last_relu=True)
    x = torch.randn(50, 6)
    assert model(x).min() == 0
    assert torch.equal(model(x.reshape(50, 1, 2, 3)), model(x))


def test_fixed_heads_are_heads():
    for fixed in (FixedETF(6, 4, bias=True, scale=3.0), FixedFrame(simplex_etf(4), 6, bias=True)):
        for head in (fixed, nn.Sequential(nn.Linear(6, 6, bias=False), fixed)):
            x = torch.randn(8, 6)
            assert head_layers(head)[-1] is fixed
            assert torch.allclose(x @ head_weight(head).T + head_bias(head), head(x), atol=1e-5)
    scaled = FixedETF(6, 4, scale=3.0, learnable_scale=True)
    assert torch.equal(head_weight(scaled), 3.0 * scaled.frame)
    assert head_bias(scaled) is None


def test_head_weight_is_the_product_of_the_layers():
    torch.manual_seed(0)
    head = linear_head(6, 4, depth=3, bias=True)
    x = torch.randn(8, 6)
    assert head_weight(head).shape == (4, 6)
    assert torch.allclose(x @ head_weight(head).T + head_bias(head), head(x), atol=1e-6)
    assert [layer.bias is None for layer in head_layers(head)] == [True, True, False]
    assert head_bias(linear_head(6, 4)) is None


def test_orthogonal_layers_keep_lengths():
    torch.manual_seed(0)
    features = torch.randn(6, 5)
    head = linear_head(6, 4, depth=5, bias=True, init="orthogonal")
    hidden = head[:-1](features.T)
    assert torch.allclose(hidden @ hidden.T, features.T @ features, atol=1e-5)
    # The last layer is a part of a rotation; several layers are not the same one.
    assert torch.allclose(head[-1].weight @ head[-1].weight.T, torch.eye(4), atol=1e-5)
    assert not torch.allclose(head[0].weight, head[1].weight, atol=0.1)
    plain = linear_head(6, 4, depth=5)
    assert torch.linalg.norm(plain[:-1](features.T)) < torch.linalg.norm(features) / 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MLP(3, 4, features="relu"), "features: got 'relu', allowed are real"),
        (lambda: MLP(3, 4, (0,)), "hidden: got 0"),
        (lambda: MLP(3, 4, features="nonnegative", last_relu=False), "last_relu: got False"),
        (
            lambda: head_layers(nn.Sequential(FixedETF(4, 4, bias=True), nn.Linear(4, 2))),
            "head: a layer before the last has a bias",
        ),
        (lambda: MLP(3, 4, (2 + 1j,)), "hidden: got"),
        (lambda: linear_head(3, 4, init="eye"), "init: got 'eye', allowed are uniform, orthogonal"),
        (lambda: linear_head(3, 4, depth=0), "depth: got 0"),
        (lambda: linear_head(3, 4, depth=2**63), "depth: got 9223372036854775808, need at most"),
        (lambda: head_layers(nn.ReLU()), "head: got ReLU, need torch.nn.Linear"),
        (lambda: head_layers(nn.Sequential()), "head: got Sequential"),
        (lambda: head_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), "head: got Sequential"),
        (
            lambda: head_layers(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))),
            "head: a layer before the last has a bias",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
