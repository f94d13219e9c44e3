"""What networks will take: counted by hand for an MLP, known for ResNet18."""

import dataclasses

import pytest

from tests.reproduce.toy_paper import GOOD, SHARED
from tightframe.reproduce import estimate as module
from tightframe.reproduce import spec
from tightframe.reproduce.estimate import estimate, network_cost, throughput
from tightframe.reproduce.papers.dang_2024 import shared as dang_2024
from tightframe.reproduce.spec import Task

MLP = {
    "data": "digits",
    "counts": "6x10",
    "hidden": [16, 12],
    "feature_dim": 8,
    "batch_size": 25,
    "epochs": 4,
    "measure_every": 3,
    "settings": [[1e-2, 1e-3], [2e-2, 2e-3]],
}


def network(**changes):
    return Task("network", {"config": {**MLP, **changes}}, {"what": "n"})


def test_an_mlp_is_counted_as_by_hand():
    cost = network_cost(network())
    weights = 64 * 16 + 16 * 12 + 12 * 8 + 8 * 10
    assert cost.parameters == weights + 16 + 12 + 8
    assert cost.multiply_adds == weights
    # Two settings; training three times a forward pass; measured before, after epoch 3, at the end.
    assert cost.total == 2 * weights * 60 * (3 * 4 + 3)
    assert cost.steps == 2 * 4 * 3
    # Adam: weight, gradient, two moments. Kept: what every linear layer takes in.
    kept = 64 + 16 + 12 + 8
    assert cost.memory == 4 * (4 * cost.parameters + 25 * kept)
    assert network_cost(network(), devices=2).memory == 4 * (4 * cost.parameters + 13 * kept)


def test_optimisers_differ_in_memory_and_evaluations():
    adam, sgd = network_cost(network()), network_cost(network(optimizer="sgd"))
    assert adam.memory - sgd.memory == 4 * adam.parameters
    lbfgs = network_cost(network(optimizer="lbfgs", batch_size=None, lr=1.0))
    assert lbfgs.memory > adam.memory
    assert lbfgs.total > 10 * adam.total


def test_resnet18_on_cifar_takes_its_known_multiply_adds():
    """11.17 million parameters and 0.56 thousand million multiply-adds (kuangliu/pytorch-cifar)."""
    (task,) = (
        t for t in dang_2024.network_tasks("paper") if t.labels["network"] == "ResNet18, cifar10"
    )
    cost = network_cost(task)
    assert cost.parameters == pytest.approx(11.17e6, rel=1e-3)
    assert cost.multiply_adds == pytest.approx(0.56e9, rel=1e-2)
    assert cost.total == pytest.approx(cost.multiply_adds * 30_000 * (3 * 4000 + 101))


@pytest.fixture
def figures(monkeypatch):
    """Two figures with networks, one of which they share, and one without."""
    monkeypatch.setattr(module, "throughput", lambda shape, batch, device: 1e9)
    first, second = network(), network(seed=1)
    figure = GOOD["toy"].figures[0]
    work = {"one": [first, SHARED], "two": [first, second], "none": [SHARED]}
    made = [
        dataclasses.replace(figure, name=name, tasks=lambda scale, tasks=tasks: tasks)
        for name, tasks in work.items()
    ]
    monkeypatch.setattr(
        spec, "papers", lambda: {"toy": dataclasses.replace(GOOD["toy"], figures=made)}
    )
    return network_cost(first)


def test_figures_share_tasks_and_all_counts_them_once(figures):
    found = estimate("all", devices=2)
    assert [(f.name, f.networks) for f in found.figures] == [
        ("toy/one", 1),
        ("toy/two", 2),
        ("all", 2),
    ]
    one, two, everything = found.figures
    assert (two.multiply_adds, everything.multiply_adds) == (2 * figures.total, 2 * figures.total)
    assert one.seconds == pytest.approx(figures.total / 1e9 / 2 + 2e-3 * figures.steps)
    assert found.measured
    assert "timed here, devices: 2" in found.basis


def test_without_networks_nothing_is_estimated(figures):
    assert estimate("toy/none").figures == ()


def test_a_gpu_that_is_not_here_is_assumed(figures, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = estimate("toy/one", device="gpu")
    assert not found.measured
    expected = figures.total / module.GPU_THROUGHPUT + 2e-3 * figures.steps
    assert found.figures[0].seconds == pytest.approx(expected)
    assert "assumed: no GPU is here" in found.basis


def test_the_throughput_is_that_of_a_step_of_at_most_the_batch(monkeypatch):
    """A step that takes a second does what its samples take, of which there are not too many."""
    seen = []
    monkeypatch.setattr(module, "_step_seconds", lambda model, x: seen.append(len(x)) or 1.0)
    cost = network_cost(network())
    assert throughput(cost.shape, 25, "cpu") == 3 * cost.multiply_adds * 25
    monkeypatch.setitem(module._MEASURED, "cpu", 3 * cost.multiply_adds * 7)
    assert throughput(cost.shape, 26, "cpu") == 3 * cost.multiply_adds * 7
    monkeypatch.setitem(module._MEASURED, "cpu", 1)
    throughput(cost.shape, 27, "cpu")
    assert seen == [25, 25, 7, 7, 2, 2]


def test_a_step_is_timed():
    assert throughput(network_cost(network()).shape, 24, "cpu") > 0


def test_bad_arguments_are_refused(figures):
    for arguments, message in (
        ({"scale": "big"}, "scale: got 'big'"),
        ({"device": "tpu"}, "device: got 'tpu'"),
        ({"devices": 0}, "devices: got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            estimate("toy", **arguments)
