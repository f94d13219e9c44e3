"""Losses that configurations name: what is read, what is only said, and what is told otherwise."""

import warnings

import numpy as np
import pytest

from tightframe.problem.scripts import described_problem
from tightframe.problem.settings import training_settings

COUNTS = np.array([100, 50, 10])


def read(config, **told):
    """Return the problem, what was said to be read, and what was warned of."""
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problem = described_problem(
            "100,50,10",
            config={"weight_decay": 1e-3} | config,
            feature_decay=1e-3,
            notice=said.append,
            **told,
        )
    return problem, said[0], [str(warning.message) for warning in caught]


def published_logits(z, counts, gamma, tau):
    """Return what VSLoss of orparask/VS-Loss hands to the cross-entropy."""
    delta = (1 / counts) ** gamma
    return z / (delta / delta.min()) + tau * np.log(counts / counts.sum())


@pytest.mark.parametrize(
    ("kind", "gamma", "tau"),
    [("VS", 0.15, 1.25), ("CDT", 0.2, None), ("LA", None, 1.0), ("VSLoss", 0.3, 0.0)],
)
def test_losses_of_the_published_codes_are_read(kind, gamma, tau):
    config = {"loss_type": kind, "gamma": gamma or 0.5, "tau": tau or 0.0, "train_rule": "None"}
    problem, said, warned = read(config)
    z = np.random.default_rng(0).normal(size=3)
    theirs = published_logits(z, COUNTS, gamma or 0.0, tau or 0.0)
    assert problem.logit_scale * z + problem.logit_adjustment == pytest.approx(theirs)
    assert ("logit_scale (n / n_max)^" in said) == (gamma is not None)
    assert ("logit_adjustment" in said) == bool(tau)
    assert warned == []


@pytest.mark.parametrize("name", ["BalancedSoftmax", "balanced_softmax", "BalancedSoftmaxLoss"])
def test_balanced_softmax_is_logit_adjustment(name):
    problem, said, warned = read({"loss": {"type": name}})
    assert problem.logit_adjustment == pytest.approx(np.log(COUNTS / 160))
    assert said == "config: read weight_decay 0.001, logit_adjustment prior"
    assert warned == []


@pytest.mark.parametrize(
    "config",
    [
        # The arguments of a script: those of other losses change nothing.
        {"loss_type": "CE", "max_m": 0.5, "gamma": 0.3, "tau": 1.0, "train_rule": "None"},
        {"loss": {"type": "CrossEntropyLoss", "loss_weight": 1.0, "use_sigmoid": False}},
        {"criterion": {"_target_": "torch.nn.CrossEntropyLoss"}, "lr_scheduler": {"gamma": 0.1}},
        {"bce_loss": False, "bce_target_thresh": None},
        {"val_loss": "focal", "model": {"type": "ResNet"}, "optimizer": {"type": "SGD"}},
        {"use_drw": False, "class_weights": None, "use_logit_adjustment": False},
    ],
)
def test_plain_cross_entropy_is_left_alone(config):
    problem, said, warned = read(config)
    assert problem.is_plain
    assert said == "config: read weight_decay 0.001"
    assert warned == []


@pytest.mark.parametrize(
    ("config", "message", "told"),
    [
        ({"loss_type": "LDAM"}, "loss_type 'LDAM': not read; its published", "class_margins"),
        ({"max_m": 0.5}, "max_m 0.5: not read; give class_margins, '0' if", "class_margins"),
        ({"ldam_max_margin": 0.5}, "ldam_max_margin 0.5: not read", "class_margins"),
        ({"train_rule": "DRW"}, "train_rule 'DRW': not read; give class_weights", "class_weights"),
        ({"class_weights": [1, 5]}, r"class_weights[1] 5: not read", "class_weights"),
        ({"loss": {"weight": [2, 5]}}, r"loss.weight[0] 2, loss.weight[1] 5", "class_weights"),
        ({"loss": {"loss_weight": 0.5}}, "loss.loss_weight 0.5: not read", "class_weights"),
        ({"use_drw": True}, "use_drw True: not read", "class_weights"),
        ({"logit_adjustment": 1.0}, "logit_adjustment 1.0: not read", "logit_adjustment"),
        ({"loss_type": "VS"}, "loss_type 'VS': not read", "logit_scale"),
        ({"loss_type": "LA"}, "loss_type 'LA': not read", "logit_adjustment"),
        ({"criterion": "FocalLoss", "gamma": 2}, "criterion 'FocalLoss': not read", None),
        ({"loss": {"name": "seesaw"}}, "loss.name 'seesaw': not read", None),
        ({"bce_loss": True}, "bce_loss True: not read; no problem here has it", None),
        ({"loss": "CE", "use_sigmoid": True}, "use_sigmoid True: not read", None),
        ({"focal_gamma": 2.0}, "focal_gamma 2.0: not read", None),
        ({"loss": "mse"}, "loss 'mse': not read; give loss", None),
    ],
)
def test_what_is_not_read_is_said_unless_told(config, message, told):
    problem, _, warned = read(config)
    assert problem.is_plain
    assert len(warned) == 1
    assert message in warned[0]
    assert warned[0].startswith("config: dict has ")
    if told is not None:
        neutral = {"class_weights": "1", "logit_scale": "1"}.get(told, "0")
        problem, _, warned = read(config, **{told: neutral})
        assert problem.is_plain
        assert warned == []


def test_neutral_values_stand_against_the_configuration_s():
    config = {"label_smoothing": 0.1, "loss_type": "VS", "gamma": 0.2, "tau": 1.0}
    assert not read(config)[0].is_plain
    told = {"label_smoothing": 0.0, "logit_scale": "1", "logit_adjustment": "0"}
    problem, said, warned = read(config, **told)
    assert problem.is_plain
    assert said == "config: read weight_decay 0.001"
    assert warned == []
    problem, said, _ = read(config, logit_scale="1,0.9,0.8")
    assert problem.logit_scale == pytest.approx([1, 0.9, 0.8])
    assert problem.label_smoothing == 0.1


def test_settings_without_counts_say_what_they_leave_out():
    with pytest.warns(
        RuntimeWarning, match=r"loss_type 'CDT': its \(n / n_max\)\^0\.2 is not read"
    ):
        training_settings({"loss_type": "CDT", "gamma": 0.2})
    with pytest.warns(RuntimeWarning, match="class_weight 'balanced': not read"):
        training_settings({"class_weight": "balanced"})
