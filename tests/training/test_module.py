import lightning
import numpy as np
import pytest
import torch
from torch import nn

from tightframe.heads import FixedETF
from tightframe.problem.problem import Problem
from tightframe.training import MLP, CollapseCallback, CollapseModule, linear_head
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


X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)).double()
Y = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])


def fit(model, epochs, *callbacks, batches=1):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader([(X, Y)] * batches, batch_size=None))
    return trainer


def squares(module):
    return sum(p.square().sum() for p in module.parameters())


def parameters(model):
    """Head first, as the module has them: L-BFGS sums over them in this order."""
    return [*model.head.parameters(), *model.backbone.parameters()]


def byhand(model, optimizer, epochs, penalty, lr=lambda epoch: 1.0):
    """Full-batch steps on data loss + penalty(epoch), written out."""
    base = optimizer.param_groups[0]["lr"]
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = base * lr(epoch)

        def closure(epoch=epoch):
            optimizer.zero_grad()
            features = model.backbone(X)
            loss = model.loss.data_loss(model.head(features), Y) + penalty(features, epoch)
            loss.backward()
            return loss

        optimizer.step(closure)


def ufm_penalty(model, features):
    # lambda_H / 2 ||H||^2 over all samples and lambda_W / 2 ||W||^2.
    return 0.01 / 2 * features.square().sum() + 0.05 / 2 * squares(model.head)


def assert_equal_parameters(one, other):
    # The line searches of L-BFGS blow up the last digits, in which the two sums differ.
    loose = one.optimizer_name == "lbfgs"
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        difference = (ours - theirs).abs().max().item()
        assert difference <= (1e-6 if loose else 1e-9) * theirs.abs().max().item()


MAKERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.5),
    "lbfgs": lambda p: torch.optim.LBFGS(
        p, lr=0.05, history_size=10, line_search_fn="strong_wolfe"
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer", list(MAKERS))
def test_decay_on_all_is_one_weight_decay_on_every_parameter(optimizer):
    options = {"optimizer": optimizer, "lr": 0.05, "momentum": 0.5, "schedule": "constant"}
    trained, other = module(decay_on="all", **options).double(), module().double()
    trainer = fit(trained, 3)
    if optimizer != "lbfgs":
        groups = trainer.optimizers[0].param_groups
        assert [group["weight_decay"] for group in groups] == [0.05, 0.05]
        assert sum(len(g["params"]) for g in groups) == len(list(trained.parameters()))
    byhand(other, MAKERS[optimizer](parameters(other)), 3, lambda h, e: 0.05 / 2 * squares(other))
    assert_equal_parameters(trained, other)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer", list(MAKERS))
def test_warmup_multiplies_every_decay(optimizer):
    options = {"optimizer": optimizer, "lr": 0.05, "momentum": 0.5, "schedule": "constant"}
    warm = {"warmup_epochs": 2, "warmup_decay_factor": 0.2, "backbone_weight_decay": 0.3}
    trained, other = module(**options, **warm).double(), module().double()
    fit(trained, 4)
    byhand(
        other,
        MAKERS[optimizer](parameters(other)),
        4,
        lambda h, epoch: (
            (0.2 if epoch < 2 else 1.0)
            * (ufm_penalty(other, h) + 0.3 / 2 * squares(other.backbone))
        ),
    )
    assert_equal_parameters(trained, other)


@pytest.mark.filterwarnings("ignore")
def test_warmup_of_ordinary_weight_decay():
    options = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.5, "schedule": "constant"}
    warm = {"warmup_epochs": 1, "warmup_decay_factor": 0.0, "decay_on": "all"}
    trained, other = module(**options, **warm).double(), module().double()
    fit(trained, 3)
    byhand(
        other,
        MAKERS["sgd"](parameters(other)),
        3,
        lambda h, epoch: (0.05 / 2 * squares(other)) * float(epoch >= 1),
    )
    assert_equal_parameters(trained, other)


@pytest.mark.filterwarnings("ignore")
def test_milestones_are_epochs():
    options = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.5}
    trained = module(schedule="milestones", milestones=(1, 3), **options).double()
    other = module().double()
    fit(trained, 4)
    byhand(
        other,
        MAKERS["sgd"](parameters(other)),
        4,
        lambda h, epoch: ufm_penalty(other, h),
        lambda epoch: (1.0, 0.1, 0.1, 0.01)[epoch],
    )
    assert_equal_parameters(trained, other)


class Rates(lightning.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.filterwarnings("ignore")
def test_milestones_count_epochs_whatever_the_steps():
    rates = Rates()
    fit(module(schedule="milestones", milestones=(1, 3), lr=0.5).double(), 4, rates, batches=2)
    assert rates.seen == pytest.approx([0.5, 0.5, *[0.05] * 4, 0.005, 0.005])


@pytest.mark.filterwarnings("ignore")
def test_lbfgs_decreases_the_objective_to_the_bound():
    from tightframe.solve import solve

    problem = PROBLEM.replace(dim=5)
    solution = solve(problem)
    trained = module(optimizer="lbfgs", lr=1.0, schedule="constant").double()
    callback = CollapseCallback(
        problem, solution.geometry, [(X, Y)], lower_bound=solution.lower_bound
    )
    fit(trained, 25, callback)
    objective = [row["objective"] for row in callback.history]
    assert np.all(np.diff(objective) <= 1e-12)
    assert 0 <= callback.history[-1]["excess"] < 1e-6 < callback.history[0]["excess"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("decay_on", ["features", "all"])
@pytest.mark.parametrize("optimizer", list(MAKERS))
def test_fixed_head_stays_fixed_and_is_measured(optimizer, decay_on):
    problem = PROBLEM.replace(bias="free")
    torch.manual_seed(0)
    head = FixedETF(5, 3, bias=True, scale=2.0)
    model = CollapseModule(
        MLP(6, 5, (7,)), head, problem, optimizer=optimizer, lr=0.05, decay_on=decay_on
    ).double()
    frame, bias = head.frame.clone(), head.bias.detach().clone()
    from tightframe.solve import solve

    callback = CollapseCallback(problem, solve(problem).geometry, [(X, Y)])
    fit(model, 3, callback)
    assert torch.equal(head.frame, frame)
    assert not torch.equal(head.bias, bias)
    assert callback.history[-1]["loss"] < callback.history[0]["loss"]
    assert callback.history[-1]["classifier_to_etf"] == pytest.approx(0, abs=1e-7)
    assert torch.equal(callback.final.weight, frame)


def test_fixed_head_without_bias_leaves_the_backbone_to_train():
    model = CollapseModule(MLP(6, 5, (7,)), FixedETF(5, 3), PROBLEM, schedule="constant")
    (group,) = model.configure_optimizers().param_groups
    assert group["params"] == list(model.backbone.parameters())


def test_schedules():
    cosine, step, constant = (lr_factor(name, 100) for name in ("cosine", "step", "constant"))
    assert [cosine(0), cosine(50), cosine(100)] == pytest.approx([1, 0.5, 0], abs=1e-15)
    assert [step(i) for i in (0, 49, 50, 74, 75, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert constant(99) == 1
    epochs = lr_factor("milestones", 0, (2, 5))
    assert [epochs(i) for i in (0, 1, 2, 4, 5, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_any_backbone_will_do():
    backbone = nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 5, 8), nn.Flatten())
    model = CollapseModule(backbone, nn.Linear(5, 3, bias=False), PROBLEM)
    x = torch.randn(4, 8)
    assert model(x).shape == (4, 3)
    assert model.training_step((x, torch.tensor([0, 1, 2, 0])), 0).ndim == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"optimizer": "adamw"}, "optimizer: got 'adamw', allowed are adam, sgd, lbfgs"),
        ({"schedule": "warm"}, "schedule: got 'warm'"),
        ({"lr": 0.0}, "lr: got 0.0"),
        ({"lr": float("nan")}, "lr: got nan"),
        ({"momentum": 1.0}, "momentum: got 1.0"),
        ({"backbone_weight_decay": -1.0}, "backbone_weight_decay: got -1.0"),
        (
            {"backbone_weight_decay": 0.1, "decay_on": "all"},
            "backbone_weight_decay: got 0.1, but decay_on='all'",
        ),
        ({"decay_on": "head"}, "decay_on: got 'head', allowed are features, all"),
        ({"schedule": "milestones"}, "milestones: missing"),
        ({"milestones": (2,)}, r"milestones: got \[2\], but the schedule is 'cosine'"),
        ({"schedule": "milestones", "milestones": (3, 2)}, r"milestones: got \[3, 2\], need incr"),
        ({"schedule": "milestones", "milestones": (0.5,)}, "milestones: got 0.5"),
        ({"schedule": "milestones", "milestones": 5}, "milestones: got 5, need a sequence"),
        ({"warmup_epochs": -1}, "warmup_epochs: got -1"),
        ({"warmup_decay_factor": 1.5}, "warmup_decay_factor: got 1.5"),
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
        (FixedETF(5, 4), {}, "head: got 4 outputs, the problem has 3 classes"),
        (FixedETF(5, 3, bias=True), {}, "head: it has a bias, the problem's bias is 'none'"),
        (FixedETF(5, 3), {"dim": 6}, "head: features of width 5, the problem's dim is 6"),
        (linear_head(5, 3), {"dim": 6}, "head: features of width 5, the problem's dim is 6"),
    ],
)
def test_head_that_is_not_the_problems(head, changes, message):
    with pytest.raises(ValueError, match=message):
        CollapseModule(MLP(6, 5), head, PROBLEM.replace(**changes))


def test_decay_on_all_needs_one_weight_decay():
    problem = PROBLEM.replace(depth=2, weight_decay=(0.1, 0.2))
    with pytest.raises(ValueError, match=r"decay_on: 'all' has one weight decay .*\[0.1, 0.2\]"):
        CollapseModule(MLP(6, 5), linear_head(5, 3, depth=2), problem, decay_on="all")
