"""Every network of scale paper makes a step, as wide as the papers have it, on made-up images."""

import json
import math

import lightning
import numpy as np
import pytest
import torch

from tightframe.data import Dataset
from tightframe.data.registry import known_input_shape
from tightframe.reproduce import spec
from tightframe.reproduce.tasks import run_task
from tightframe.runs import class_task
from tightframe.runs.config import RunConfig
from tightframe.solve import solve

#: What two networks that make the same step may differ in.
_SAME_STEP = {
    *("seed", "counts", "oversample", "settings", "lr", "schedule", "milestones", "momentum"),
    *("epochs", "batch_size", "measure_every", "warmup_epochs", "warmup_decay_factor", "labels"),
    *("device", "max_seconds"),
}

_BATCH = 4


def networks(paper):
    """Return a configuration of every different network of a paper, and the figures that have it.

    All tasks make their configuration here, whether or not their network is another's.
    """
    found = {}
    for figure in paper.figures:
        for task in figure.tasks("paper"):
            if task.kind != "network":
                continue
            config = RunConfig.from_dict(task.arguments["config"])
            key = {k: v for k, v in config.to_dict().items() if k not in _SAME_STEP}
            key["classes"] = config.problems[0].num_classes
            # Images of one shape are as good as another's.
            key["data"] = known_input_shape(config.data)
            found.setdefault(json.dumps(key, sort_keys=True), (config, set()))[1].add(figure.name)
    return list(found.values())


def images(num_classes, shape, per_class=1):
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(num_classes), per_class)
    return rng.random((len(labels), *shape), dtype=np.float32), labels


def finite(row):
    """Return the numbers of a measurement that should be finite, whether or not there is a bias."""
    return {name: value for name, value in row.items() if not name.startswith("bias_")}


def step(config, monkeypatch):
    """Make one optimiser step of a few images; return what is measured after it."""
    classes, shape = config.problems[0].num_classes, known_input_shape(config.data)
    inputs, labels = images(classes, shape)
    rows = inputs.reshape(len(labels), -1)
    data = Dataset("made up", classes, rows, labels, rows, labels, shape)
    monkeypatch.setattr(class_task, "_dataset", lambda config: data)
    small = config.replace(counts=f"1x{classes}", oversample=None, batch_size=None, device="cpu")
    task, solution = class_task.ClassTask(small), solve(small.problems[0])
    module = task.module(solution)
    before = [p.detach().clone() for p in module.parameters()]
    batch = torch.from_numpy(rows[:_BATCH]), torch.from_numpy(labels[:_BATCH])
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader([batch], batch_size=None))
    assert trainer.global_step == 1
    moved = [not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
    assert moved[-1] or config.head == "fixed_etf"
    assert sum(moved) > len(moved) / 2
    return task.callback(solution, None).measure(module).row


@pytest.mark.slow  # two minutes in all
@pytest.mark.filterwarnings("ignore")  # Lightning's advice
@pytest.mark.parametrize("paper", spec.papers())
def test_every_network_makes_a_step_and_is_measured(monkeypatch, paper):
    found = networks(spec.papers()[paper])
    assert found
    for config, figures in found:
        row = step(config, monkeypatch)
        lost = [name for name, value in finite(row).items() if not math.isfinite(value)]
        assert not lost, (sorted(figures), config.network, lost)


@pytest.mark.slow  # starts two programs
@pytest.mark.parametrize("network", ["MLP, cifar10", "VGG11, cifar10"])
def test_two_devices_train_a_network_of_the_paper_scale(tmp_path, network):
    ((_, figure),) = spec.find_figures("dang-2024/networks")
    (task,) = (task for task in figure.tasks("paper") if task.labels["network"] == network)
    inputs, labels = images(10, (3, 32, 32), per_class=2)
    arrays = {"inputs": inputs, "labels": labels}
    both = {f"{part}_{name}": a for part in ("train", "test") for name, a in arrays.items()}
    np.savez(tmp_path / "images.npz", **both)
    config = {
        **task.arguments["config"],
        "data": str(tmp_path / "images.npz"),
        "counts": "2x10",
        "batch_size": 10,
        "epochs": 2,
        "measure_every": 2,
        "schedule": "constant",
        "milestones": [],
        "device": "cpu",
    }
    (two,) = run_task("network", {"config": config}, str(tmp_path / "2"), devices=2).rows
    assert (two["status"], two["step"]) == ("trained", 4)
    assert math.isfinite(two["objective"])
    if network.startswith("MLP"):  # batch norm normalises each device's share by itself
        (one,) = run_task("network", {"config": config}, str(tmp_path / "1")).rows
        assert two["objective"] == pytest.approx(one["objective"], rel=1e-4)
