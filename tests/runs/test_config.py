import json
import pickle

import numpy as np
import pytest

from tightframe.problem.problem import Problem
from tightframe.runs.config import RunConfig
from tightframe.runs.folder import config_hash


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
        RunConfig(
            network="resnet18",
            network_options={"width": 16, "stem": "imagenet"},
            labels="random",
            oversample="1x5,3x5",
            schedule="milestones",
            milestones=[100, 400],
            warmup_epochs=200,
            warmup_decay_factor=0.2,
            max_seconds=60,
            data_root="/data",
            devices=2,
            strategy="ddp",
        ),
        RunConfig(head="fixed_etf", decay_on="all", optimizer="lbfgs", lr=0.1),
        RunConfig(class_weights=[1] * 9 + [0.1], logit_adjustment="-0.7*prior"),
        RunConfig(network="timm:resnet34", feature_dim=512, network_options={"drop_rate": 0.1}),
    ],
)
def test_dict_round_trip_through_json(config):
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.to_dict() == config.to_dict()
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(again) == hash(config)


def test_default_run_keeps_its_hash():
    """The hash of version 0.1, under which run folders are stored; new arguments must not move it.

    It was computed by the code before these arguments existed. That default run was measured every
    30 epochs; without saying so a run is another one, which is measured more densely at the start.
    """
    assert config_hash(RunConfig(measure_every=30).to_dict()) == "ff2aa941258da2b5"
    assert config_hash(RunConfig().to_dict()) == "3f3dba91f8f0f64e"
    assert RunConfig().identity() == RunConfig().to_dict()
    written_out = RunConfig(
        network_options={"batch_norm": False, "last_relu": None},
        oversample="1x10",
        feature_dim=20,
        milestones=[],
        class_weights=np.ones(10),
        logit_adjustment="-3x10",
    )
    assert written_out == RunConfig()
    assert written_out.to_dict() == RunConfig().to_dict()


NEW = {
    "network": {"network": "vgg11", "feature_dim": 20},
    "network_options": {"network_options": {"batch_norm": True}},
    "labels": {"labels": "random"},
    "oversample": {"oversample": "balance"},
    "head": {"head": "fixed_etf"},
    "head_init": {"head_init": "orthogonal"},
    "milestones": {"schedule": "milestones", "milestones": (5,)},
    "warmup_epochs": {"warmup_epochs": 3},
    "warmup_decay_factor": {"warmup_decay_factor": 0.5},
    "decay_on": {"decay_on": "all"},
    "max_seconds": {"max_seconds": 5.0},
    "class_weights": {"class_weights": "balanced"},
    "logit_adjustment": {"logit_adjustment": "prior"},
}


@pytest.mark.parametrize("name", list(NEW))
def test_what_changes_the_numbers_changes_the_identity(name):
    base, changed = RunConfig(), RunConfig(**NEW[name])
    assert name in changed.identity()
    assert config_hash(changed.identity()) != config_hash(base.identity())
    assert changed != base


def test_where_it_runs_is_not_part_of_the_identity():
    moved = RunConfig(data_root="/elsewhere", devices=4, strategy="ddp")
    assert moved.identity() == RunConfig().identity()
    assert moved == RunConfig()
    assert moved.to_dict()["data_root"] == "/elsewhere"
    assert moved.replace(seed=1).devices == 4


def test_width_of_the_features_is_the_networks_own_unless_given():
    assert RunConfig().feature_dim == 20
    widths = {"resnet18": 512, "resnet50": 2048, "vgg11": 512, "vgg13": 512, "vgg16": 512}
    widths |= {"densenet_cifar": 384}
    for network, width in widths.items():
        assert RunConfig(network=network).feature_dim == width
        assert RunConfig(network=network).problems[0].dim == width
    assert RunConfig(network="resnet50", network_options={"width": 8}).feature_dim == 256
    assert RunConfig(network="resnet18", feature_dim=10).feature_dim == 10
    assert RunConfig().replace(network="resnet18").feature_dim == 512
    assert RunConfig(network="resnet18").replace(network_options={"width": 4}).feature_dim == 32
    assert RunConfig(feature_dim=12).replace(network="resnet18").feature_dim == 12


@pytest.mark.parametrize(
    ("oversample", "expected"),
    [
        ("1x2,3", [6, 6, 9]),
        ([1, 1, 3], [6, 6, 9]),
        (np.array([2, 1, 1]), [12, 6, 3]),
        ("balance", [6, 6, 6]),
        (None, [6, 6, 3]),
    ],
)
def test_problems_have_the_counts_after_oversampling(oversample, expected):
    config = RunConfig(counts=[6, 6, 3], oversample=oversample, settings=[(0.1, 0.2)])
    assert config.problems[0].counts.tolist() == expected
    assert config.counts == "6x2,3"
    assert RunConfig.from_dict(config.to_dict()) == config


def test_numbers_per_class_are_stored_in_one_form():
    given = [1, 1, 1, 1, 1, 10, 10, 10, 10, 10]
    config = RunConfig(class_weights=given)
    assert config.class_weights == "1.0x5,10.0x5"
    assert [p.class_weights.tolist() for p in config.problems] == [given] * 2
    for same in (iter(given), np.array(given), "1x5,10x5", " 1x5, 10.0*5"):
        again = RunConfig(class_weights=same)
        assert again == config
        assert config_hash(again.identity()) == config_hash(config.identity())
    balanced = RunConfig(class_weights="balanced", logit_adjustment="prior")
    for problem in balanced.problems:
        # N / (K n_c), two roundings whose order is not the rule's to say.
        np.testing.assert_allclose(problem.class_weights, 550 / 10 / problem.counts, rtol=1e-15)
        np.testing.assert_allclose(problem.logit_adjustment, np.log(problem.counts / 550))


def test_rules_refer_to_the_counts_after_oversampling():
    rules = {"class_weights": "balanced", "logit_adjustment": "prior"}
    (problem,) = RunConfig(
        counts=[6, 6, 3], oversample="1x2,4", settings=[(0.1, 0.2)], **rules
    ).problems
    assert problem.counts.tolist() == [6, 6, 12]
    assert problem.class_weights == pytest.approx([24 / 18, 24 / 18, 24 / 36])
    assert problem.logit_adjustment == pytest.approx(np.log([1 / 4, 1 / 4, 1 / 2]))
    assert RunConfig(counts=[6, 6, 3], oversample="balance", **rules).class_weights is None


def test_batches_are_at_most_the_oversampled_set():
    assert RunConfig(counts="4x2", oversample="2x2", batch_size=16).batch_size == 16
    with pytest.raises(ValueError, match="batch_size: got 17, more than the 16"):
        RunConfig(counts="4x2", oversample="2x2", batch_size=17)


def test_problems_give_the_shared_arguments():
    problems = [
        Problem("9x2,3", "mse", weight_decay=w, feature_decay=0.1, bias="free") for w in (0.1, 0.2)
    ]
    config = RunConfig(settings=problems)
    assert (config.counts, config.loss, config.bias) == ("9x2,3", "mse", "free")
    assert config.settings == ((0.1, 0.1), (0.2, 0.1))
    assert config.setting_names == ("w0.1-h0.1", "w0.2-h0.1")
    assert [p.replace(dim=None) for p in config.problems] == problems


def test_problems_give_class_weights_and_logit_adjustment():
    problems = [
        Problem(
            "9x2,3", weight_decay=w, feature_decay=0.1, class_weights="balanced",
            logit_adjustment="prior",
        )
        for w in (0.1, 0.2)
    ]  # fmt: skip
    config = RunConfig(settings=problems, class_weights="5x3")
    assert [p.replace(dim=None) for p in config.problems] == problems
    assert (
        RunConfig(settings=[p.replace(class_weights=None) for p in problems]).class_weights is None
    )


def test_names_of_layerwise_decays():
    assert RunConfig(settings=[((0.1, 0.2), 1e-5)], depth=2).setting_names == ("w0.1_0.2-h1e-05",)


def test_replace():
    assert RunConfig().replace(seed=3).seed == 3


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"data": "imagenet"}, "data: got 'imagenet', allowed are digits"),
        ({"data": 5}, "data: got 5"),
        ({"data_root": 5}, "data_root: got 5"),
        ({"network": "alexnet"}, "network: got 'alexnet', allowed are mlp, resnet18"),
        ({"network": "timm:resnet18"}, "feature_dim: missing, timm:resnet18"),
        ({"network": "keras:x"}, "network: got 'keras:x'"),
        ({"network": "vgg11", "hidden": (5,)}, r"hidden: got \[5\], but vgg11 has none"),
        ({"network_options": {"width": 5}}, "network_options: 'width' is not an option of mlp"),
        ({"network_options": [1]}, r"network_options: got \[1\], need a mapping"),
        ({"network_options": {"batch_norm": {1}}}, "network_options: not JSON-ready"),
        (
            {"features": "nonnegative", "network_options": {"last_relu": False}},
            "last_relu: got False",
        ),
        ({"labels": "noisy"}, "labels: got 'noisy', allowed are true, random"),
        ({"oversample": "1x5"}, "oversample: got factors of 5 classes, counts of 10"),
        ({"oversample": "0x10"}, "oversample: '0x10' has a zero"),
        ({"oversample": "equal"}, "oversample: cannot read 'equal'"),
        ({"head": "etf"}, "head: got 'etf', allowed are linear, fixed_etf"),
        ({"head": "fixed_etf", "depth": 2}, "head: 'fixed_etf' is one layer, but depth is 2"),
        ({"head_init": "normal"}, "head_init: got 'normal', allowed are uniform, orthogonal"),
        (
            {"head": "fixed_etf", "head_init": "orthogonal"},
            "head_init: got 'orthogonal', but a fixed head",
        ),
        ({"head": "fixed_etf", "feature_dim": 8}, "head: a simplex ETF of 10 classes needs"),
        ({"optimizer": "lbfgs", "batch_size": 50}, "batch_size: got 50, but L-BFGS"),
        ({"optimizer": "lbfgs", "devices": 2}, "devices: got 2, L-BFGS runs on one"),
        ({"schedule": "milestones", "milestones": (1200,)}, "milestones: got 1200, need epochs"),
        ({"warmup_epochs": 1201}, "warmup_epochs: got 1201, more than the 1200"),
        (
            {"decay_on": "all", "depth": 2, "settings": [((0.1, 0.2), 0.1)]},
            r"decay_on: 'all' has one .* a setting has \[0.1, 0.2\]",
        ),
        ({"max_seconds": 0}, "max_seconds: got 0"),
        ({"devices": 0}, "devices: got 0"),
        ({"devices": 4, "batch_size": 3}, "batch_size: got 3, fewer than the 4 devices"),
        ({"strategy": "fsdp"}, "strategy: got 'fsdp', allowed are auto, ddp"),
        ({"counts": "10x0"}, "counts: '10x0' has a zero"),
        ({"settings": ()}, "settings: got"),
        ({"settings": "ab"}, "settings: got 'ab'"),
        ({"settings": (0.1, 0.2)}, "settings: got 0.1, need a pair"),
        ({"settings": [(0.1, 0.2, 0.3)]}, "need a pair"),
        ({"settings": [(-1, 0.2)]}, "weight_decay: got -1"),
        ({"settings": [(0.1, 0)]}, "feature_decay: got 0, .*warmup_epochs=epochs, warmup_decay_f"),
        ({"settings": [((1.0, 0.0), 1)], "depth": 2}, r"weight_decay: got \(1.0, 0.0\), .*warmup"),
        ({"settings": [(0.1, 0.2), (0.1, 0.2)]}, "settings: w0.1-h0.2 is given twice"),
        (
            {"settings": [Problem([2, 2], weight_decay=1, feature_decay=1), (0.1, 0.2)]},
            "settings: got pairs and Problems",
        ),
        (
            {"settings": [Problem([2, n], weight_decay=1, feature_decay=1) for n in (2, 3)]},
            "settings: the Problems differ in counts",
        ),
        (
            {
                "settings": [
                    Problem([2, 2], weight_decay=1, feature_decay=1, class_weights=w)
                    for w in ("1,2", "1,3")
                ]
            },
            "settings: the Problems differ in class_weights",
        ),
        ({"class_weights": "1x5"}, "class_weights: got 5 numbers for 10 classes"),  # of Problem
        ({"features": "relu"}, "features: got 'relu'"),
        ({"hidden": 5}, "hidden: got 5"),
        ({"hidden": (5, 0)}, "hidden: got 0"),
        ({"feature_dim": 0}, "feature_dim: got 0"),
        ({"optimizer": "lion"}, "optimizer: got 'lion'"),  # of CollapseModule
        ({"epochs": 0}, "epochs: got 0"),
        ({"epochs": 2.5}, "epochs: got 2.5"),
        ({"batch_size": 551}, "batch_size: got 551, more than the 550"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"measure_every": 0}, "measure_every: got 0"),
        ({"seed": -1}, "seed: got -1"),
        ({"seed": 2**63}, "seed: got 9223372036854775808, need a whole number below"),
        ({"device": "tpu"}, "device: got 'tpu'"),
        ({"threads": 0}, "threads: got 0"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**kwargs)


def test_unknown_argument():
    with pytest.raises(
        ValueError, match="learning_rate: not an argument of RunConfig, there are d"
    ):
        RunConfig.from_dict({"learning_rate": 1})


def test_configuration_loads_no_torch():
    import subprocess
    import sys

    code = "import sys, tightframe.runs.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_mappings_are_read_by_their_labels():
    order = [3, 9, 0, 1, 2, 8, 7, 6, 5, 4]
    by_label = RunConfig(
        counts={k: 40 if k < 5 else 8 for k in order},
        oversample={k: 1 if k < 5 else 5 for k in order},
        class_weights={k: 1 if k < 5 else 2 for k in order},
    )
    assert by_label == RunConfig(counts="40x5,8x5", oversample="1x5,5x5", class_weights="1x5,2x5")
    with pytest.raises(ValueError, match="oversample: class 3 is missing"):
        RunConfig(oversample=dict.fromkeys(order[1:], 1))


def test_terms_of_the_loss_are_stored_and_handed_on():
    plain = RunConfig()
    terms = {
        "label_smoothing": 0.1,
        "class_margins": "0x5,0.5x5",
        "logit_scale": "1x5,0.6x5",
        "feature_weights": "contexts",
    }
    config = RunConfig(**terms)
    assert RunConfig.from_dict(config.to_dict()) == config
    for problem in config.problems:
        assert problem.label_smoothing == 0.1
        assert problem.class_margins.tolist() == [0] * 5 + [0.5] * 5
        assert problem.logit_scale.tolist() == [1] * 5 + [0.6] * 5
        assert problem.feature_weights.tolist() == [1] * 10
    assert RunConfig(settings=config.problems) == config
    # What changes nothing is no part of the identity; problems without terms take them away.
    nothing = RunConfig(class_margins=[0] * 10, logit_scale="1x10", feature_weights="100x5,10x5")
    assert nothing.identity() == plain.identity()
    assert RunConfig(settings=plain.problems, **terms) == plain
