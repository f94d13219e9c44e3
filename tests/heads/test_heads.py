"""Fixed and narrow heads against exact frames and predictions; savings against real networks."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tightframe import Problem, seli, simplex_etf, solve
from tightframe.heads import (
    FixedETF,
    FixedFrame,
    freeze_to_etf,
    freeze_to_frame,
    narrow_last_block,
    project_features,
    replace_module,
)
from tightframe.heads.savings import (
    ARCHITECTURES,
    layer_parameters,
    parameter_savings,
    savings_table,
)

pytestmark = pytest.mark.filterwarnings("error")
IMBALANCED = solve(Problem("100x3,10x2", weight_decay=5e-3, feature_decay=1e-3))


def gram(head):
    w = head.weight.detach().double()
    return (w @ w.T).numpy()


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


# -- frames --------------------------------------------------------------------------------------


@given(st.integers(2, 12), st.integers(0, 9), st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_fixed_etf_is_the_exact_frame(k, extra, seed, scale):
    head = FixedETF(k - 1 + extra, k, seed=seed, scale=scale, dtype=torch.float64)
    exact = np.full((k, k), -1 / (k - 1))
    np.fill_diagonal(exact, 1)
    assert gram(head) == pytest.approx(scale**2 * exact, abs=1e-12 * scale**2)


def test_without_a_seed_the_frame_is_the_papers():
    head = FixedETF(7, 4, seed=None, dtype=torch.float64)
    weight = math.sqrt(4 / 3) * (np.eye(4) - 1 / 4)
    weight /= math.sqrt((weight**2).sum() / 4)  # their code: unit rows
    assert head.weight.numpy()[:, :4] == pytest.approx(weight, abs=1e-15)
    assert not head.weight[:, 4:].any()


def test_seeds_rotate():
    a, b, c = (FixedETF(8, 5, seed=s).weight for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c, atol=0.1)


@pytest.mark.parametrize("geometry", [simplex_etf(6), seli("50x3,5x3"), IMBALANCED])
@pytest.mark.parametrize("seed", [None, 3])
def test_fixed_frame_has_the_predicted_gram(geometry, seed):
    predicted = getattr(geometry, "geometry", geometry)
    d = np.linalg.matrix_rank(predicted.classifier, tol=1e-8)
    head = FixedFrame(geometry, int(d), seed=seed, scale=2.0, dtype=torch.float64)
    assert gram(head) == pytest.approx(4 * predicted.classifier, abs=1e-10)
    with pytest.raises(ValueError, match=f"in_features: got {d - 1}, the classifier of"):
        FixedFrame(geometry, int(d) - 1)


def test_bias_of_a_solution_is_where_training_starts():
    solution = solve(Problem("100x3,10x2", weight_decay=5e-3, feature_decay=1e-3, bias="free"))
    head = FixedFrame(solution, 5, bias=True, dtype=torch.float64)
    assert head.bias.detach().numpy() == pytest.approx(solution.bias)
    assert abs(solution.bias).max() > 0.1
    assert not FixedFrame(solution.geometry, 5, bias=True).bias.any()
    assert FixedFrame(solution, 5).bias is None


# -- as a module ---------------------------------------------------------------------------------


def make(**options):
    torch.manual_seed(0)
    return FixedETF(6, 4, bias=True, **options)


@pytest.mark.parametrize("learnable", [False, True])
def test_it_computes_what_linear_computes(learnable):
    head = make(scale=3.0, learnable_scale=learnable)
    nn.init.normal_(head.bias)
    x = torch.randn(2, 5, 6)
    expected = x @ head.weight.T + head.bias
    assert torch.allclose(head(x), expected, atol=1e-6)
    assert torch.allclose(head.to_linear()(x), expected, atol=1e-6)
    assert (head.in_features, head.out_features) == (6, 4)
    assert math.isclose(float(head.weight[0].detach().norm()), 3.0, rel_tol=1e-6)


@pytest.mark.parametrize("learnable", [False, True])
def test_training_moves_bias_and_scale_only(learnable):
    head = make(learnable_scale=learnable)
    frame = head.frame.clone()
    names = {name for name, _ in head.named_parameters()}
    assert names == ({"bias", "scale"} if learnable else {"bias"})
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    optimizer = torch.optim.SGD(head.parameters(), 0.5)
    nn.functional.cross_entropy(head(torch.randn(9, 6)), torch.arange(9) % 4).backward()
    optimizer.step()
    assert torch.equal(head.frame, frame)
    assert all(not torch.equal(p, before[name]) for name, p in head.named_parameters())


@pytest.mark.parametrize("learnable", [False, True])
def test_copies_states_scripts_and_compiles(learnable):
    head, x = make(seed=1, learnable_scale=learnable), torch.randn(3, 6)
    other = make(seed=2, learnable_scale=learnable)
    other.load_state_dict(head.state_dict())
    buffer = io.BytesIO()
    torch.save(head.state_dict(), buffer)
    buffer.seek(0)
    assert set(torch.load(buffer, weights_only=True)) == set(head.state_dict())
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.script"):
        scripted = torch.jit.script(head)
    compiled = torch.compile(head, backend="eager", fullgraph=True)
    for twin in (other, copy.deepcopy(head), scripted, compiled):
        assert torch.equal(twin(x), head(x))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert copy.deepcopy(head).to(dtype)(x.to(dtype)).dtype == dtype


def test_the_state_of_a_learned_classifier_is_refused():
    with pytest.raises(RuntimeError, match="frame"):
        make().load_state_dict(nn.Linear(6, 4).state_dict())


def test_bad_input():
    with pytest.raises(ValueError, match="in_features: got 2, a simplex ETF of 4 classes needs"):
        FixedETF(2, 4)
    with pytest.raises(ValueError, match="num_classes: got 1"):
        FixedETF(2, 1)
    with pytest.raises(ValueError, match="seed: got None, which needs in_features of at least 4"):
        FixedETF(3, 4, seed=None)
    with pytest.raises(ValueError, match="scale: got 0"):
        FixedETF(3, 4, scale=0)
    with pytest.raises(ValueError, match="geometry: got ndarray"):
        FixedFrame(np.eye(3), 3)
    bad = simplex_etf(3)
    bad = type(bad)("wrong", -bad.classifier, bad.means, bad.logits)
    with pytest.raises(ValueError, match="geometry: its classifier is zero or no Gram matrix"):
        FixedFrame(bad, 3)


# -- in a model ----------------------------------------------------------------------------------


def network():
    torch.manual_seed(0)
    layers = {"body": nn.Linear(5, 7), "act": nn.ReLU(), "fc": nn.Linear(7, 4)}
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


@pytest.mark.parametrize("name", ["fc", None])
def test_freeze_to_etf_keeps_shape_type_and_bias(name):
    model = network().double()
    bias = model.fc.bias.detach().clone()
    head = freeze_to_etf(model, name, scale=2.0)
    assert model.fc is head
    assert torch.equal(head.bias, bias)
    assert head.weight.dtype == torch.float64
    exact = 4 * simplex_etf(4).classifier * 4 / 3
    assert gram(head) == pytest.approx(exact)
    assert model(torch.randn(2, 5, dtype=torch.float64)).shape == (2, 4)


def test_freeze_to_frame_checks_the_classes():
    with pytest.raises(ValueError, match="geometry: got 5 classes, the classifier 'fc' has 4"):
        freeze_to_frame(network(), IMBALANCED, "fc")
    model = network()
    model.fc = nn.Linear(7, 5, bias=False)
    freeze_to_frame(model, IMBALANCED, "fc")
    assert gram(model.fc) == pytest.approx(IMBALANCED.geometry.classifier, abs=1e-5)
    assert model.fc.bias is None


def test_replace_module_by_a_dotted_name():
    model = nn.Sequential(network(), nn.ReLU())
    old = model[0].fc
    assert replace_module(model, "0.fc", nn.Identity()) is old
    assert isinstance(model[0].fc, nn.Identity)
    with pytest.raises(ValueError, match=r"has no module '0\.fcc'; near names: 0\.fc"):
        replace_module(model, "0.fcc", nn.Identity())


def test_project_features():
    model = network()
    head = project_features(model, "fc")
    assert [type(m).__name__ for m in head] == ["Linear", "FixedETF"]
    assert (head[0].out_features, head[1].in_features, head[1].out_features) == (4, 4, 4)
    assert model(torch.randn(2, 5)).shape == (2, 4)
    learned = project_features(network(), "fc", fixed=False)
    assert isinstance(learned[1], nn.Linear)


class Block(nn.Module):
    """A basic or bottleneck block with torchvision's names and shapes."""

    def __init__(self, channels, inner, stride, bottleneck):
        super().__init__()
        out = 4 * inner if bottleneck else inner
        if bottleneck:
            shapes = [(channels, inner, 1, 1), (inner, inner, 3, stride), (inner, out, 1, 1)]
        else:
            shapes = [(channels, inner, 3, stride), (inner, out, 3, 1)]
        for i, (a, b, kernel, step) in enumerate(shapes, start=1):
            conv = nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.depth, self.downsample = len(shapes), None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y if i == self.depth else y.relu()
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    def __init__(self, blocks, bottleneck, num_classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        channels, layers = 64, []
        for stage, count in enumerate(blocks):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                layers.append(Block(channels, 64 * 2**stage, stride, bottleneck))
                channels = 64 * 2**stage * (4 if bottleneck else 1)
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = self.layers(self.bn1(self.conv1(x)).relu())
        return self.fc(x.mean(dim=(2, 3)))


RESNETS = {"resnet18": ((2, 2, 2, 2), False), "resnet50": ((3, 4, 6, 3), True)}


@pytest.mark.parametrize(
    ("name", "before", "saved", "percent"),
    [("resnet18", 11_181_642, 2_314_100, "20.70"), ("resnet50", 23_528_522, 1_047_412, "4.45")],
)
def test_savings_are_the_papers_and_those_of_a_real_network(name, before, saved, percent):
    # The figures of Zhu et al. (2021); meta tensors have shapes and no memory.
    with torch.device("meta"):
        model = ResNet(*RESNETS[name], 10)
    assert num_parameters(model) == before
    result = parameter_savings(name, 10, width=10)
    assert (result.parameters_before, result.saved) == (before, saved)
    assert f"{result.percent:.2f}" == percent

    narrow_last_block(model, "fc", fixed=False)
    assert num_parameters(model) == before - saved == result.parameters_after
    assert result.trainable_after == before - saved - 100


def test_narrow_last_block_runs_and_trains():
    torch.manual_seed(0)
    model = ResNet((1, 1, 1, 1), False, 3).eval()
    head = narrow_last_block(model, "fc")
    assert isinstance(head, FixedETF)
    assert model.layers[3].conv2.out_channels == 3
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert model.layers[3].conv2.weight.grad.any()
    assert not model.layers[3].bn2.training
    with pytest.raises(ValueError, match="use project_features"):
        narrow_last_block(network(), "fc")
    with pytest.raises(ValueError, match=r"block: 'layers\.0' gives 64 channels"):
        narrow_last_block(ResNet((1, 1, 1, 1), False, 3), "fc", block="layers.0")


def test_shapes_of_known_networks():
    # Published parameter counts at 1000 classes (torchvision; ViT-S from timm).
    published = {
        "resnet18": 11_689_512,
        "resnet34": 21_797_672,
        "resnet50": 25_557_032,
        "resnet101": 44_549_160,
        "vit_s_16": 22_050_664,
        "vit_b_16": 86_567_656,
        "vit_l_16": 304_326_632,
    }
    assert set(published) == set(ARCHITECTURES)
    for name, count in published.items():
        assert sum(layer_parameters(name, 1000)[0].values()) == count


def test_memory_of_training():
    s = parameter_savings("vit_b_16", 100, optimizer="adam", bytes_per_number=2)
    assert s.parameters_before == s.parameters_after
    assert s.trainable_before - s.trainable_after == 768 * 100
    # Gradient and two moments of the fixed weight are not needed.
    assert s.memory_before - s.memory_after == 3 * 2 * 768 * 100
    assert s.memory_before == 4 * 2 * s.parameters_before


def test_savings_say_where_no_frame_fits():
    with pytest.raises(ValueError, match="width: the features have 768 columns"):
        parameter_savings("vit_b_16", 1000)
    with pytest.raises(ValueError, match="architecture: got 'vgg'"):
        parameter_savings("vgg", 10)
    with pytest.raises(ValueError, match="optimizer: got 'lion', allowed are sgd"):
        parameter_savings("resnet18", 10, optimizer="lion")


def test_table_prints():
    from rich.console import Console

    console = Console(file=io.StringIO(), width=140)
    console.print(savings_table([("resnet18", 10), ("vit_b_16", 1000)]))
    text = console.file.getvalue()
    assert "20.70 %" in text
    assert "2,314,100" in text
    assert "no ETF fits" in text
