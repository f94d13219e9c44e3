import math

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn

from tightframe.geometry.dense import PARTS, seli, simplex_etf
from tightframe.problem.problem import Problem
from tightframe.solve import solve
from tightframe.training import (
    MLP,
    CollapseCallback,
    CollapseModule,
    group_margins,
    history_columns,
    linear_head,
)
from tightframe.training.networks import head_weight

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")

COUNTS = (6, 6, 3, 3)
PROBLEM = Problem(COUNTS, weight_decay=0.02, feature_decay=0.01)
LABELS = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
INPUTS = torch.randn(18, 5, generator=torch.Generator().manual_seed(3)) + LABELS[:, None] / 2
TEST = [(INPUTS[::2] + 0.3, LABELS[::2])]


def make(problem=PROBLEM, dropout=0.5):
    torch.manual_seed(0)
    backbone = nn.Sequential(MLP(5, 6, (8,)), nn.Dropout(dropout))
    head = linear_head(6, 4, depth=problem.depth, bias=problem.bias != "none")
    return CollapseModule(backbone, head, problem)


def train(callback, model=None, epochs=5):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = make() if model is None else model
    trainer.fit(model, torch.utils.data.DataLoader([(INPUTS, LABELS)], batch_size=None))
    return model


def expected_row(model, problem, solution):
    """The row in float64 NumPy, independent of the metrics module."""
    model.eval()
    with torch.no_grad():
        h = model.backbone(INPUTS).double().numpy()
        w = head_weight(model.head).double().numpy()
        bias = model.head[-1].bias
        b = np.zeros(4) if bias is None else bias.double().numpy()
        test_logits = model(TEST[0][0]).numpy()
    y = LABELS.numpy()
    z = h @ w.T + b
    moved = z + problem.logit_adjustment  # in the loss, not in what is predicted
    losses = np.log(np.exp(moved).sum(axis=1)) - moved[np.arange(len(y)), y]
    loss = np.mean(problem.class_weights[y] * losses)
    objective = loss + problem.feature_decay / 2 * (h**2).sum() + problem.bias_decay / 2 * b @ b
    for decay, layer in zip(problem.weight_decays, model.head, strict=True):
        objective += decay / 2 * float(layer.weight.detach().double().square().sum())
    means = np.stack([h[y == k].mean(axis=0) for k in range(4)])
    centred = means - means.mean(axis=0)
    within = sum(np.sum((h[y == k] - means[k]) ** 2) for k in range(4)) / len(y)
    grams = {
        "classifier": w @ w.T,
        "means": means @ means.T,
        "centered_means": centred @ centred.T,
        "logits": w @ means.T,
    }
    row = {
        "loss": loss,
        "objective": objective,
        "excess": objective - solution.lower_bound,
        "train_accuracy": np.mean(z.argmax(axis=1) == y),
        "test_accuracy": np.mean(test_logits.argmax(axis=1) == TEST[0][1].numpy()),
        "nc1_quotient": within / np.mean(np.sum(centred**2, axis=1)),
        "bias_alignment": np.linalg.norm(b + w @ means.mean(axis=0)),
    }
    answers = {"train": (z, y), "test": (test_logits, TEST[0][1].numpy())}
    for part, (scores, classes) in answers.items():
        for k in range(4):
            row[f"class{k}_{part}_accuracy"] = np.mean(scores[classes == k].argmax(axis=1) == k)
    for part, gram in grams.items():
        for name, target in (
            ("predicted", solution.geometry),
            ("etf", simplex_etf(4)),
            ("seli", seli(problem.counts, "none" if bias is None else "free")),
        ):
            goal = getattr(target, part)
            row[f"{part}_to_{name}"] = np.linalg.norm(
                gram / np.linalg.norm(gram) - goal / np.linalg.norm(goal)
            )
    dual = solution.logits @ np.linalg.pinv(solution.class_means.T @ solution.class_means) @ means
    row["self_duality_to_predicted"] = np.linalg.norm(
        w / np.linalg.norm(w) - dual / np.linalg.norm(dual)
    )
    logits = grams["logits"]
    off = logits - solution.logits
    row["logits_error"] = np.sqrt((off**2).sum() / (solution.logits**2).sum())
    row["logits_largest_error"] = abs(off).max() / abs(solution.logits).max()
    if problem.bias != "none":
        off = b - solution.bias
        row["bias_error"] = np.sqrt((off**2).sum() / (solution.bias**2).sum())
        row["bias_largest_error"] = abs(off).max() / abs(solution.bias).max()
    for i, (a, c) in enumerate(((0, 1), (2, 3))):
        row[f"group{i}_margin"] = (logits[a, a] - logits[c, a] + logits[c, c] - logits[a, c]) / 2
    return row


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bias": "decayed", "bias_decay": 0.1},
        {"class_weights": [1, 1, 4, 4], "logit_adjustment": "5*prior"},
    ],
)
def test_history_against_independent_numpy(changes):
    problem = PROBLEM.replace(**changes)
    solution = solve(problem)
    batches = [(INPUTS[:7], LABELS[:7]), (INPUTS[7:], LABELS[7:])]
    callback = CollapseCallback(
        problem,
        solution.geometry,
        batches,
        TEST,
        predicted_bias=solution.bias,
        lower_bound=solution.lower_bound,
        every=2,
    )
    first = expected_row(make(problem), problem, solution)
    model = train(callback, make(problem))
    assert [row["epoch"] for row in callback.history] == [0, 2, 4, 5]
    assert [row["step"] for row in callback.history] == [0, 2, 4, 5]
    assert all(list(row) == history_columns(2, 4) for row in callback.history)
    for row, expected in (
        (callback.history[0], first),
        (callback.history[-1], expected_row(model, problem, solution)),
    ):
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    seconds = [row["seconds"] for row in callback.history]
    assert seconds == sorted(seconds)


def test_columns_are_as_documented():
    columns = history_columns(2)
    assert columns[:6] == ["epoch", "step", "seconds", "loss", "objective", "excess"]
    assert columns[-2:] == ["group0_margin", "group1_margin"]
    assert {f"{part}_to_etf" for part in PARTS} < set(columns)


def test_measuring_restores_the_mode_of_every_part():
    model = make()
    model.train()
    model.head.eval()
    before = [module.training for module in model.modules()]
    callback = CollapseCallback(PROBLEM, solve(PROBLEM).geometry, [(INPUTS, LABELS)])
    rows = [callback.measure(model).row for _ in range(2)]
    assert rows[0]["loss"] == rows[1]["loss"]  # dropout was off
    assert [module.training for module in model.modules()] == before
    assert math.isnan(rows[0]["excess"])
    assert math.isnan(rows[0]["test_accuracy"])
    assert all(p.grad is None for p in model.parameters())


def test_network_collapsed_to_zero_gives_nan_without_warning(recwarn):
    model = make()
    nn.init.zeros_(model.head[0].weight)
    callback = CollapseCallback(PROBLEM, solve(PROBLEM).geometry, [(INPUTS, LABELS)])
    row = callback.measure(model).row
    assert math.isnan(row["logits_to_etf"])
    assert row["group0_margin"] == 0
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_state_continues_the_history():
    solution = solve(PROBLEM)
    first = CollapseCallback(PROBLEM, solution.geometry, [(INPUTS, LABELS)])
    train(first, epochs=2)
    second = CollapseCallback(PROBLEM, solution.geometry, [(INPUTS, LABELS)])
    second.load_state_dict(first.state_dict())
    assert second.history == first.history
    second.history[0]["loss"] = -1.0
    assert first.history[0]["loss"] != -1.0


def test_on_measure_sees_every_row():
    lengths = []
    callback = CollapseCallback(
        PROBLEM,
        solve(PROBLEM).geometry,
        [(INPUTS, LABELS)],
        on_measure=lambda rows: lengths.append(len(rows)),
    )
    train(callback, epochs=2)
    assert lengths == [1, 2, 3]


def test_group_margins():
    problem = Problem([5, 5, 5, 2], weight_decay=1, feature_decay=1)
    z = np.array([[4.0, 1, 0, 2], [1, 5, 0, 2], [0, 0, 6, 1], [0, 0, 0, 1.5]])
    # (4-1) (4-0) (5-1) (5-0) (6-0) (6-0) over the pairs, and 1.5 less its largest rival 2.
    assert group_margins(problem, z).tolist() == [pytest.approx(28 / 6), -0.5]
    solution = solve(Problem("100x5,10x5", weight_decay=2e-3, feature_decay=2e-3))
    ours = group_margins(solution.problem, solution.logits)
    assert ours == pytest.approx(solution.group_margins, rel=1e-9)


def measure(problem=PROBLEM, inputs=INPUTS, labels=LABELS, model=None, batches=None):
    batches = [(inputs, labels)] if batches is None else batches
    callback = CollapseCallback(problem, solve(problem).geometry, batches)
    return callback.measure(make(problem) if model is None else model)


def test_bad_input():
    geometry = solve(PROBLEM).geometry
    with pytest.raises(ValueError, match="every: got 0"):
        CollapseCallback(PROBLEM, geometry, [], every=0)
    with pytest.raises(ValueError, match="predicted: got a geometry of 3 classes"):
        CollapseCallback(PROBLEM, simplex_etf(3), [])
    with pytest.raises(ValueError, match=r"train: the batches hold counts \[6, 6, 3, 2\]"):
        measure(inputs=INPUTS[:-1], labels=LABELS[:-1])
    with pytest.raises(ValueError, match="no batches to measure"):
        measure(batches=iter([]))
    with pytest.raises(ValueError, match="the problem has non-negative features"):
        measure(problem=PROBLEM.replace(features="nonnegative"))
    callback = CollapseCallback(PROBLEM, geometry, [(INPUTS, LABELS)])
    with pytest.raises(ValueError, match="pl_module: got BoringModel, need a CollapseModule"):
        train(callback, BoringModel())


def test_divergence_is_an_error():
    model = make()
    nn.init.constant_(model.head[0].weight, float("nan"))
    with pytest.raises(ValueError, match="lr: training diverged"):
        measure(model=model)
