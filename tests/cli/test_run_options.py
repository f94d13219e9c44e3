"""Every option of `tightframe run` reaches the configuration, or is refused by its name."""

import json

import pytest
import torch
from torch.nn import functional

import tightframe as tf
from tightframe.cli import run_command
from tightframe.runs import train
from tightframe.runs.config import RunConfig
from tightframe.runs.store import load_run

OPTIONS = {
    "data": ("digits", "digits"),
    "data_root": ("/data", "/data"),
    "counts": ("40x5,8x5", "40x5,8x5"),
    "oversample": ("1x5,5x5", "1x5,5x5"),
    "labels": ("random", "random"),
    "loss": ("mse", "mse"),
    "bias": ("decayed", "decayed"),
    "bias_decay": ("0.01", 0.01),
    "features": ("nonnegative", "nonnegative"),
    "depth": ("2", 2),
    "head_init": ("orthogonal", "orthogonal"),
    "hidden": ("32,16", (32, 16)),
    "feature_dim": ("24", 24),
    "optimizer": ("sgd", "sgd"),
    "lr": ("0.1", 0.1),
    "momentum": ("0.8", 0.8),
    "schedule": ("milestones", "milestones"),
    "milestones": ("2,3", (2, 3)),
    "backbone_weight_decay": ("1e-4", 1e-4),
    "warmup_epochs": ("1", 1),
    "warmup_decay_factor": ("0.2", 0.2),
    "epochs": ("4", 4),
    "batch_size": ("50", 50),
    "measure_every": ("2", 2),
    "max_seconds": ("60", 60.0),
    "seed": ("3", 3),
    "device": ("cpu", "cpu"),
    "devices": ("2", 2),
    "strategy": ("ddp", "ddp"),
    "threads": ("2", 2),
}


@pytest.fixture
def configured(monkeypatch):
    """Return what `run` is asked for, with the training replaced."""
    asked = []

    def refuse(config, out, **_):
        asked.append(config)
        raise ValueError("stop: here")

    monkeypatch.setattr(train, "run", refuse)

    def configure(*arguments):
        assert run_command(["run", *arguments]) == 2
        return asked.pop()

    return configure


def test_options_are_the_configuration(configured, tmp_path):
    flags = [f"--{name.replace('_', '-')}={text}" for name, (text, _) in OPTIONS.items()]
    config = configured("--out", str(tmp_path / "run"), *flags)
    want = {name: value for name, (_, value) in OPTIONS.items()}
    got = {name: getattr(config, name) for name in want}
    got |= {name: tuple(got[name]) for name in ("hidden", "milestones")}
    got["data_root"] = str(got["data_root"])
    assert got == want
    assert config.settings == RunConfig().settings


def test_a_network_and_its_options(configured, tmp_path):
    out = str(tmp_path / "run")
    config = configured(
        "--out", out, "--network", "resnet18", "--head", "fixed_etf", "--decay-on", "all",
        "--network-option", "width=4", "--network-option", "stem=imagenet",
    )  # fmt: skip
    assert (config.network, config.head, config.decay_on) == ("resnet18", "fixed_etf", "all")
    assert config.network_options == {"width": 4, "stem": "imagenet"}
    assert config.feature_dim == 32


def test_class_weights_and_logit_adjustment(configured, tmp_path):
    out = str(tmp_path / "run")
    config = configured("--out", out, "--class-weights", "1x5,4x5", "--logit-adjustment=-1x5,0x5")
    assert config == RunConfig(class_weights="1x5,4x5", logit_adjustment=[-1] * 5 + [0] * 5)
    config = configured("--out", out, "--class-weights=balanced", "--logit-adjustment", "2*prior")
    assert config == RunConfig(class_weights="balanced", logit_adjustment="2*prior")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "tightframe: --epochs: got 0"),
        (["--network", "timm:resnet18"], "tightframe: --feature-dim: missing, timm:resnet18"),
        (["--network-option", "depth=3"], "--network-option: 'depth' is not an option of mlp"),
        (["--network-option", "width"], "'--network-option': got 'width', need NAME=VALUE"),
        (["--hidden", "16,x"], "'--hidden': got 'x', need a whole number"),
        (["--weight-decay", "0.1"], "--feature-decay: given 0 times, --weight-decay once"),
        (
            [*["--weight-decay", "0.1"] * 3, "--feature-decay", "0.1"],
            "--feature-decay: given once, --weight-decay 3 times",
        ),
        (
            ["--weight-decay", "0.1,0.2", "--feature-decay", "0.1"],
            "give one, or for a setting each: --weight-decay 0.1 --weight-decay 0.2",
        ),
        (["--counts", "141x10"], "--counts: class 0 wants 141 training samples, digits has 140"),
        (["--feature-dim", "3", "--features", "nonnegative"], "and dim 3 have no closed form"),
    ],
)
def test_bad_options_are_named_before_a_folder_is_made(fails, tmp_path, flags, message):
    """Those of the configuration are in tests/runs/test_config.py; here how they are told."""
    assert message in fails("run", "--out", tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_a_small_residual_network_runs(tmp_path, command, unrendered):
    out = tmp_path / "run"
    code, text, _ = command(
        "run", "--json", f"--out={out}", "--network=resnet18", "--network-option=width=4",
        "--counts=6x10", "--weight-decay=0.02", "--feature-decay=2e-4", "--epochs=1",
    )  # fmt: skip
    assert code == 0
    result = json.loads(text)["results"][0]
    assert result["problem"]["dim"] == 32
    assert (out / "report.html").exists()


def test_a_run_with_class_weights_and_logit_adjustment(tmp_path, command, unrendered):
    """Record and page against PyTorch's loss and `tf.solve`; groups of one count stay apart."""
    out = tmp_path / "run"
    code, text, _ = command(
        "run", "--json", f"--out={out}", "--counts=6x10", "--class-weights=1x5,4x5",
        "--logit-adjustment=0x8,-0.5x2", "--weight-decay=0.02", "--feature-decay=2e-4",
        "--hidden=8", "--bias=free", "--epochs=2",
    )  # fmt: skip
    assert code == 0
    result = json.loads(text)["results"][0]
    assert result["problem"]["class_weights"] == "1.0x5,4.0x5"
    assert result["problem"]["logit_adjustment"] == "0.0x8,-0.5x2"
    assert [v["class_weight"] for v in result["verdicts"]] == [1, 4, 4]
    setting = load_run(out).settings[0]
    final = {name: torch.tensor(array).double() for name, array in setting.final.items()}
    labels = final["labels"].long()
    weights, adjustment = torch.ones(10).double(), torch.zeros(10).double()
    weights[5:], adjustment[8:] = 4, -0.5
    logits = final["features"] @ final["weight"].T + final["bias"]
    loss = functional.cross_entropy(logits + adjustment, labels, weights, reduction="sum") / 60
    assert result["last"]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
    assert result["last"]["train_accuracy"] == pytest.approx(accuracy)
    assert setting.problem.class_weights.tolist() == weights.tolist()
    solution = tf.solve(setting.problem)
    assert result["predicted"]["objective"] == pytest.approx(solution.objective, rel=1e-7)
    assert result["last"]["excess"] > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    for name in ("5 classes of 6", "3 classes of 6 with weight 4",
                 "2 classes of 6 with weight 4 and adjustment -0.5"):  # fmt: skip
        assert f">{name}<" in page
    assert "The 3 classes with 6 samples, weight 4 each are" in page
    assert ">1.0x5,4.0x5<" in page
