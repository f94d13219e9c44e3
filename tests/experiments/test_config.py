import json

import pytest

from tightframe.experiments.config import RunConfig
from tightframe.problem import Problem


def test_defaults_lie_on_the_two_sides_of_the_threshold():
    problems = RunConfig().problems
    assert [p.logit_decay for p in problems] == pytest.approx([2e-3, 8e-3])
    assert problems[0].logit_decay < 10**0.5 / 550 < problems[1].logit_decay
    assert {p.dim for p in problems} == {20}


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig(
            counts=[7, 7, 2],
            settings=[((0.1, 0.2), 0.3)],
            depth=2,
            bias="decayed",
            bias_decay=0.5,
            hidden=[3],
            batch_size=4,
        ),
    ],
)
def test_dict_round_trip_through_json(config):
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_problems_give_the_shared_arguments():
    problems = [
        Problem("9x2,3", "mse", weight_decay=w, feature_decay=0.1, bias="free") for w in (0.1, 0.2)
    ]
    config = RunConfig(settings=problems)
    assert (config.counts, config.loss, config.bias) == ("9x2,3", "mse", "free")
    assert config.settings == ((0.1, 0.1), (0.2, 0.1))
    assert config.setting_names == ("w0.1-h0.1", "w0.2-h0.1")
    assert [p.replace(dim=None) for p in config.problems] == problems


def test_names_of_layerwise_decays():
    assert RunConfig(settings=[((0.1, 0.2), 1e-5)], depth=2).setting_names == ("w0.1_0.2-h1e-05",)


def test_replace():
    assert RunConfig().replace(seed=3).seed == 3


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"data": "mnist"}, "data: got 'mnist'"),
        ({"counts": "10x0"}, "counts: '10x0' has a zero"),
        ({"settings": ()}, "settings: got"),
        ({"settings": "ab"}, "settings: got 'ab'"),
        ({"settings": (0.1, 0.2)}, "settings: got 0.1, need a pair"),
        ({"settings": [(0.1, 0.2, 0.3)]}, "need a pair"),
        ({"settings": [(-1, 0.2)]}, "weight_decay: got -1"),
        ({"settings": [(0.1, float("nan"))]}, "feature_decay: got nan"),
        ({"settings": [(0.1, 0.2), (0.1, 0.2)]}, "settings: w0.1-h0.2 is given twice"),
        (
            {"settings": [Problem([2, 2], weight_decay=1, feature_decay=1), (0.1, 0.2)]},
            "settings: got pairs and Problems",
        ),
        (
            {"settings": [Problem([2, n], weight_decay=1, feature_decay=1) for n in (2, 3)]},
            "settings: the Problems differ in counts",
        ),
        ({"loss": "hinge"}, "loss: got 'hinge'"),
        ({"bias": "decayed"}, "bias_decay: missing"),
        ({"features": "relu"}, "features: got 'relu'"),
        ({"depth": 0}, "depth: got 0"),
        ({"hidden": 5}, "hidden: got 5"),
        ({"hidden": (5, 0)}, "hidden: got 0"),
        ({"feature_dim": 0}, "feature_dim: got 0"),
        ({"optimizer": "lion"}, "optimizer: got 'lion'"),
        ({"lr": -1.0}, "lr: got -1.0"),
        ({"momentum": 1.5}, "momentum: got 1.5"),
        ({"schedule": "linear"}, "schedule: got 'linear'"),
        ({"epochs": 0}, "epochs: got 0"),
        ({"epochs": 2.5}, "epochs: got 2.5"),
        ({"batch_size": 551}, "batch_size: got 551, more than the 550"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"measure_every": 0}, "measure_every: got 0"),
        ({"seed": -1}, "seed: got -1"),
        ({"device": "tpu"}, "device: got 'tpu'"),
        ({"threads": 0}, "threads: got 0"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**kwargs)


def test_unknown_argument():
    with pytest.raises(ValueError, match="learning_rate: not an argument"):
        RunConfig.from_dict({"learning_rate": 1})


def test_configuration_loads_no_torch():
    import subprocess
    import sys

    code = "import sys, tightframe.experiments.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
