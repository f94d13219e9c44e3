import lightning
import pytest
import torch
from torch import nn

from tightframe.problem import Problem
from tightframe.training import MLP, CollapseModule, linear_head
from tightframe.training.options import lr_factor

PROBLEM = Problem([4, 2, 2], weight_decay=0.05, feature_decay=0.01)


def module(**kwargs):
    torch.manual_seed(0)
    return CollapseModule(MLP(6, 5, (7,)), linear_head(5, 3), PROBLEM, **kwargs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_step_is_plain_gradient_descent_on_the_objective(optimizer):
    """Three epochs of Lightning equal three hand-written steps, with decay on the backbone too."""
    lr, decay, momentum = 0.05, 0.3, 0.5
    trained = module(
        optimizer=optimizer, lr=lr, momentum=momentum, backbone_weight_decay=decay
    ).double()
    byhand = module().double()
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)).double()
    y = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(trained, torch.utils.data.DataLoader([(x, y)], batch_size=None))

    maker = {
        "adam": lambda p: torch.optim.Adam(p, lr=lr),
        "sgd": lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum),
    }[optimizer]
    steps = maker(byhand.parameters())
    factor = lr_factor("cosine", 3)
    for i in range(3):
        steps.param_groups[0]["lr"] = lr * factor(i)
        loss = byhand.loss(byhand.backbone(x), y, byhand.head)
        loss = loss + decay / 2 * sum(p.square().sum() for p in byhand.backbone.parameters())
        steps.zero_grad()
        loss.backward()
        steps.step()
    for ours, theirs in zip(trained.parameters(), byhand.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_schedules():
    cosine, step, constant = (lr_factor(name, 100) for name in ("cosine", "step", "constant"))
    assert [cosine(0), cosine(50), cosine(100)] == pytest.approx([1, 0.5, 0], abs=1e-15)
    assert [step(i) for i in (0, 49, 50, 74, 75, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert constant(99) == 1


def test_any_backbone_will_do():
    backbone = nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 5, 8), nn.Flatten())
    model = CollapseModule(backbone, nn.Linear(5, 3, bias=False), PROBLEM)
    x = torch.randn(4, 8)
    assert model(x).shape == (4, 3)
    assert model.training_step((x, torch.tensor([0, 1, 2, 0])), 0).ndim == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"optimizer": "adamw"}, "optimizer: got 'adamw', allowed are adam, sgd"),
        ({"schedule": "warm"}, "schedule: got 'warm'"),
        ({"lr": 0.0}, "lr: got 0.0"),
        ({"lr": float("nan")}, "lr: got nan"),
        ({"momentum": 1.0}, "momentum: got 1.0"),
        ({"backbone_weight_decay": -1.0}, "backbone_weight_decay: got -1.0"),
    ],
)
def test_bad_optimizer(kwargs, message):
    with pytest.raises(ValueError, match=message):
        module(**kwargs)


@pytest.mark.parametrize(
    ("head", "changes", "message"),
    [
        (linear_head(5, 3, depth=2), {}, "head: got 2 layers, the problem has depth 1"),
        (linear_head(5, 4), {}, "head: got 4 outputs, the problem has 3 classes"),
        (linear_head(5, 3, bias=True), {}, "head: it has a bias, the problem's bias is 'none'"),
        (linear_head(5, 3), {"bias": "free"}, "head: it has no bias"),
        (linear_head(5, 3), {"dim": 6}, "head: features of width 5, the problem's dim is 6"),
    ],
)
def test_head_that_is_not_the_problems(head, changes, message):
    with pytest.raises(ValueError, match=message):
        CollapseModule(MLP(6, 5), head, PROBLEM.replace(**changes))
