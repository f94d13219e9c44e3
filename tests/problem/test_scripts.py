"""Training descriptions: conversions against a batch's objective written out."""

import numpy as np
import pytest

import tightframe as tf
from tightframe.problem.scripts import described_problem, training_problem
from tightframe.theory.certificate import factored_objective

LABELS = np.array([0, 1, 1, 2, 2, 2])


# -- problems --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_problem_is_the_batch_objective_over_its_samples(reduction):
    """With one batch of everything, the step's objective is a multiple of the problem's."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    w, b, h = rng.normal(size=(3, 4)), rng.normal(size=3), rng.normal(size=(6, 4))
    problem = training_problem(
        "1,2,3",
        weight_decay=0.3,
        batch_feature_decay=0.2,
        batch_size=6,
        reduction=reduction,
        bias="decayed",
        bias_decay=0.1,
    )
    logits = torch.tensor(h @ w.T + b)
    step = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS), reduction=reduction)
    step = step.item() + 0.15 * (w**2).sum() + 0.1 * (h**2).sum() + 0.05 * (b**2).sum()
    scale = 1 if reduction == "mean" else 6
    assert scale * factored_objective(problem, [w], h, LABELS, b) == pytest.approx(step)


def test_class_weights_of_a_weighted_mean():
    problem = training_problem(
        "9,3", weight_decay=1e-2, feature_decay=1e-3, class_weights=[1, 2], weighted_mean=True
    )
    assert problem.class_weights == pytest.approx(np.array([1, 2]) * 12 / 15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_decay": None}, "got neither, need one; .*--from-run"),
        ({"batch_feature_decay": 1e-3}, "got both"),
        ({"reduction": "none"}, "reduction: got 'none'"),
        ({"reduction": "sum"}, "batch_size: missing"),
        ({"batch_size": 100}, "batch_size: got 100, more than the 12 samples"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"weight_decay": -1}, "weight_decay: got -1"),
    ],
)
def test_bad_descriptions_are_named(changes, message):
    given = {"weight_decay": 1e-2, "feature_decay": 1e-3} | changes
    with pytest.raises(ValueError, match=message):
        training_problem("9,3", **given)


def test_described_problem_takes_what_the_config_has(tmp_path):
    config = {"weight_decay": 1e-2, "per_device_train_batch_size": 4}
    problem = described_problem(labels=LABELS, config=config, batch_feature_decay=0.3)
    expected = tf.Problem("1,2,3", weight_decay=1e-2, feature_decay=0.3 * 4 / 6)
    assert problem == expected
    given = described_problem("1,2,3", config=config, weight_decay=5e-3, feature_decay=0.2)
    assert given.weight_decay == 5e-3


def test_what_is_given_settles_what_the_config_leaves_open():
    config = {"a": {"weight_decay": 1, "batch_size": 2}, "b": {"weight_decay": 2, "batch_size": 3}}
    plain = described_problem("1,2,3", config=config, weight_decay=5e-3, feature_decay=0.2)
    assert plain == tf.Problem("1,2,3", weight_decay=5e-3, feature_decay=0.2)
    given = {"weight_decay": 5e-3, "batch_feature_decay": 0.3}
    with pytest.raises(ValueError, match="several batch sizes"):
        described_problem("1,2,3", config=config, **given)
    given["batch_size"] = 4
    assert described_problem("1,2,3", config=config, **given) == training_problem("1,2,3", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "counts, labels: got neither"),
        ({"counts": "3x2", "labels": LABELS}, "counts, labels: got both"),
        ({"counts": "3x2", "feature_decay": 1}, "weight_decay: missing$"),
        ({"counts": "3x2", "config": {}}, "weight_decay: missing, which the configuration"),
        ({"counts": "3x2", "config": {"optim": "adamw_torch", "weight_decay": 1}}, "AdamW"),
    ],
)
def test_what_is_missing_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        described_problem(**given)


def test_label_smoothing_of_a_config_is_used_and_said():
    config = {"weight_decay": 5e-3, "label_smoothing_factor": 0.1}
    said = []
    problem = described_problem("1,2,3", config=config, feature_decay=0.2, notice=said.append)
    assert problem.label_smoothing == 0.1
    assert said == ["config: read weight_decay 0.005, label_smoothing 0.1"]
    given = described_problem("1,2,3", config=config, feature_decay=0.2, label_smoothing=0)
    assert given.label_smoothing == 0
    # Of weighted means PyTorch weighs what is spread by the labels.
    weighted = {"class_weights": "1,2,3", "weighted_mean": True}
    problem = described_problem("1,2,3", config=config, feature_decay=0.2, **weighted)
    assert problem.smoothing_weights == "labels"
