import sys
import types

import pytest
import torch
from torch import nn

from tightframe.heads.savings import layer_parameters, parameter_savings
from tightframe.training import (
    VGG,
    AdaptedModel,
    CollapseModule,
    ResNet,
    adapted,
    build_backbone,
    linear_head,
)

NAMES = ["mlp", "resnet18", "resnet50", "vgg11", "vgg13", "vgg16"]


def dense(shape=(1, 8, 8), feature_dim=None, features="real", **options):
    torch.manual_seed(0)
    return build_backbone("densenet_cifar", shape, feature_dim, features, width=2, **options)


def small(name, shape=(1, 8, 8), feature_dim=6, features="real", **options):
    torch.manual_seed(0)
    narrow = {"hidden": (7,)} if name == "mlp" else {"width": 2}
    return build_backbone(name, shape, feature_dim, features, **(narrow | options))


def images(shape, n=5):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


def parameters(model):
    return sum(p.numel() for p in model.parameters())


# -- shapes and counts -----------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["real", "nonnegative"])
@pytest.mark.parametrize("name", NAMES)
def test_features_have_the_width_and_sign_asked_for(name, features):
    model = small(name, features=features)
    rows = images((64,))
    found = model(rows)
    assert found.shape == (5, 6) == (5, model.feature_dim)
    assert bool((found < 0).any()) == (features == "real")
    model.eval()  # batch norm of the batch would not repeat
    assert torch.equal(model(rows), model(rows.reshape(5, 1, 8, 8)))


@pytest.mark.parametrize("name", NAMES)
def test_usual_networks_end_in_a_relu_beside_a_real_problem(name):
    assert small(name, last_relu=True)(images((64,))).min() >= 0


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 7, 5)])
@pytest.mark.parametrize(
    ("name", "options"),
    [("vgg11", {}), ("vgg13", {}), ("resnet18", {}), ("resnet18", {"stem": "imagenet"})],
)
def test_images_of_any_size_and_channels(name, options, shape):
    assert small(name, shape, **options)(images(shape, 2)).shape == (2, 6)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_have_the_papers_parameters(name):
    """Backbone and classifier of 10 classes, counted from shapes in `tightframe.heads.savings`."""
    with torch.device("meta"):
        full = ResNet(name, (3, 224, 224), stem="imagenet")
        narrow = ResNet(name, (3, 224, 224), 10, stem="imagenet")
        cifar = ResNet(name, (3, 32, 32))
    saved = parameter_savings(name, 10, width=10)
    assert parameters(full) + full.feature_dim * 10 + 10 == saved.parameters_before
    assert parameters(narrow) + 10 * 10 + 10 == saved.parameters_after
    # A 3 x 3 stem instead of 7 x 7.
    assert parameters(full) - parameters(cifar) == 3 * 64 * (49 - 9)
    layers, width = layer_parameters(name, 10)
    assert full.feature_dim == width
    for layer, count in layers.items():
        if layer != "head":
            assert parameters(full.get_submodule(layer)) == count


def test_vggs_have_the_parameters_of_the_usual_cifar_code():
    shapes = {
        "vgg11": [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512)] + [(512, 512)] * 3,
        "vgg13": [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512)]
        + [(512, 512)] * 3,
        "vgg16": [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
        + [(256, 512)]
        + [(512, 512)] * 5,
    }
    for name, convolutions in shapes.items():
        with torch.device("meta"):
            model = VGG(name, (3, 32, 32))
        # Weight and bias of a convolution, weight and bias of its batch norm.
        assert parameters(model) == sum(9 * a * b + 3 * b for a, b in convolutions)
        assert model.feature_dim == 512
        pools = sum(isinstance(layer, nn.MaxPool2d) for layer in model.layers)
        assert pools == 5


def test_densenet_has_the_parameters_of_the_usual_cifar_code():
    """With a classifier of 10 classes 1,000,618 (kuangliu/pytorch-cifar, densenet_cifar)."""
    with torch.device("meta"):
        model = build_backbone("densenet_cifar", (3, 32, 32))
    assert model.feature_dim == 384
    assert parameters(model) + 384 * 10 + 10 == 1_000_618


def test_densenet_is_a_backbone():
    for features, last_relu, negative in (
        ("real", None, True),
        ("nonnegative", None, False),
        ("real", True, False),
    ):
        model = dense(features=features, last_relu=last_relu)
        found = model(images((64,)))
        assert found.shape == (5, 64) == (5, model.feature_dim)
        assert bool((found < 0).any()) == negative
    for shape in ((1, 28, 28), (3, 32, 32), (2, 7, 5)):
        assert dense(shape)(images(shape, 2)).shape == (2, 64)
    with pytest.raises(ValueError, match="feature_dim: got 10, the features of densenet_cifar"):
        dense(feature_dim=10)


def test_a_dense_layer_hands_on_its_inputs_and_gradients_reach_every_parameter():
    model = dense().eval()
    x = images((4, 3, 3))
    out = model.layers[1](x)
    assert torch.equal(out[:, 2:], x)
    assert out.shape[1] == 4 + 2
    model.train()(images((64,), 16)).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        if parameter.ndim > 1:
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize(("name", "own"), [("resnet18", 24), ("resnet50", 96), ("vgg11", 24)])
def test_width_multiplies_the_channels(name, own):
    model = build_backbone(name, (1, 8, 8), width=3)
    assert model.feature_dim == own
    assert model(images((64,))).shape == (5, own)


def test_stride_and_pooling_of_the_stems():
    seen = []
    for stem in ("cifar", "imagenet"):
        model = small("resnet18", (3, 32, 32), stem=stem)
        model.layer1.register_forward_hook(lambda m, i, out: seen.append(out.shape[-1]))
        model.layer4.register_forward_hook(lambda m, i, out: seen.append(out.shape[-1]))
        model(images((3, 32, 32), 2))
    assert seen == [32, 4, 8, 1]


def test_a_block_adds_its_shortcut():
    """With the last batch norm of every block at zero the network is its shortcuts alone."""
    model = small("resnet18", feature_dim=16, features="nonnegative").eval()
    block = model.layer4[1]
    x = images((16, 1, 1)).abs()
    assert block.downsample is None
    nn.init.zeros_(block.bn2.weight)
    assert torch.equal(block(x), x)
    block.last_relu = False
    assert torch.equal(block(-x), -x)


@pytest.mark.parametrize("features", ["real", "nonnegative"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name, features):
    model = small(name, features=features, **({"batch_norm": True} if name == "mlp" else {}))
    model(images((64,), 16)).square().sum().backward()
    for key, parameter in model.named_parameters():
        # What comes before batch norm has a gradient that is zero in theory: a bias.
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all()
        if parameter.ndim > 1:
            assert parameter.grad.abs().max() > 0, key


def test_mlp_by_name():
    model = build_backbone("mlp", (64,), 5, hidden=(9, 8), batch_norm=True)
    assert [type(layer).__name__ for layer in model] == [
        *["Linear", "BatchNorm1d", "ReLU"] * 2,
        "Linear",
    ]
    assert model[0].in_features == 64


def test_same_seed_same_weights():
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            small("resnet18").state_dict().values(),
            small("resnet18").state_dict().values(),
            strict=True,
        )
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_backbone("alexnet", (3, 8, 8)), "network: got 'alexnet', allowed are mlp"),
        (lambda: build_backbone("mlp", (64,)), "feature_dim: missing"),
        (lambda: build_backbone("resnet18", (64,)), "network: resnet18 needs images"),
        (lambda: build_backbone("resnet18", (1, 8, 8), 0), "feature_dim: got 0"),
        (lambda: build_backbone("resnet18", (1, 8, 0)), "input_shape: got 0"),
        (lambda: small("resnet18", stem="big"), "stem: got 'big', allowed are cifar, imagenet"),
        (lambda: small("vgg11", width=0), "width: got 0"),
        (lambda: small("vgg11", stem="cifar"), "network_options: 'stem' is not an option of vgg11"),
        (lambda: small("mlp", batch_norm=1), "batch_norm: got 1, need true or false"),
        (lambda: small("vgg11", features="nonnegative", last_relu=False), "last_relu: got False"),
        (lambda: small("vgg11", features="relu"), "features: got 'relu'"),
        (lambda: ResNet("vgg11", (1, 8, 8)), "name: got 'vgg11', allowed are resnet18, resnet50"),
        (lambda: VGG("vgg11", (64,)), r"input_shape: got \(64,\), need \(channels"),
        (lambda: small("vgg11")(images((63,))), r"inputs: got shape \(5, 63\), need images"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- models of others ------------------------------------------------------------------------------


class Foreign(nn.Module):
    """A stand-in for a package's model: pooling, a hidden classifier layer, the classifier."""

    def __init__(self, channels=3, classes=10):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)
        self.classifier = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, classes))

    def forward(self, x):
        return self.classifier(self.conv(x).mean(dim=(2, 3)))


def test_adapted_model_returns_what_its_classifier_took_in():
    torch.manual_seed(0)
    model = Foreign()
    taken = []
    model.classifier[2].register_forward_pre_hook(lambda m, inputs: taken.append(inputs[0]))
    model(images((3, 8, 8)))
    for relu in (False, True):
        torch.manual_seed(0)
        backbone = adapted(Foreign(), input_shape=(3, 8, 8), last_relu=relu)
        assert isinstance(backbone, AdaptedModel)
        assert backbone.feature_dim == 6
        assert torch.equal(backbone(images((3, 8, 8)).flatten(1)), taken[0])
    signed = adapted(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), "1", last_relu=True)
    assert signed(images((3,))).min() == 0


def test_adapted_model_trains():
    from tightframe.problem.problem import Problem

    problem = Problem([2, 1], weight_decay=0.1, feature_decay=0.1)
    module = CollapseModule(adapted(Foreign()), linear_head(6, 2), problem)
    module.training_step((images((3, 8, 8), 3), torch.tensor([0, 0, 1])), 0).backward()
    assert all(p.grad is not None for p in module.parameters())


def test_adapted_model_without_a_classifier_or_with_other_features():
    with pytest.raises(ValueError, match="head: got None, and of the usual names"):
        adapted(nn.Sequential(nn.Conv2d(3, 3, 3)))
    wide = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Unflatten(1, (1, -1)))
    with pytest.raises(ValueError, match=r"it returns shape \(5, 1, 4\) for 5 inputs"):
        adapted(wide, "1")(images((3,)))


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_packages_models_by_name(package, monkeypatch):
    made = []

    def make(name, **options):
        if name != "net":
            raise RuntimeError(f"unknown model {name}")
        made.append(options)
        return Foreign(options.get("in_chans", 3))

    module = types.ModuleType(package)
    module.create_model = make
    monkeypatch.setitem(sys.modules, package, module)
    if package == "torchvision":
        models = types.ModuleType("torchvision.models")
        models.get_model = make
        monkeypatch.setitem(sys.modules, "torchvision.models", models)
    backbone = build_backbone(f"{package}:net", (3, 8, 8), 6, "nonnegative", drop=0.5)
    assert made[0]["drop"] == 0.5
    assert backbone(images((192,))).shape == (5, 6)
    assert backbone(images((192,))).min() >= 0
    with pytest.raises(ValueError, match=r"feature_dim: got 5, the features of .*net have 6"):
        build_backbone(f"{package}:net", (3, 8, 8), 5)
    with pytest.raises(ValueError, match=f"network: {package} makes no 'other'"):
        build_backbone(f"{package}:other", (3, 8, 8))
    if package == "timm":
        assert build_backbone("timm:net", (1, 8, 8))(images((64,))).shape == (5, 6)
    else:
        with pytest.raises(ValueError, match="takes 3 channels, the images have 1"):
            build_backbone("torchvision:net", (1, 8, 8))


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_package_that_is_absent(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ValueError, match=f"needs the package {package}, which cannot be imported"):
        build_backbone(f"{package}:resnet18", (3, 8, 8))
