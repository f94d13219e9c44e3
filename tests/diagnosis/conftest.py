"""Ordinary networks on the digits, 100x5,10x5, as anybody trains them."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

from tightframe.data import load, standardize, subset
from tightframe.heads import LastLayer


@functools.cache
def digits():
    return standardize(subset(load("digits", seed=0), "100x5,10x5", 0))


def trained(weight_decay, steps=500):
    """Train the MLP of the issue: SGD, momentum, cosine, full batches, decay on everything."""
    data = digits()
    x, y = torch.from_numpy(data.train_inputs), torch.from_numpy(data.train_labels)
    torch.manual_seed(0)
    sizes = (x.shape[1], 128, 64, 10)
    model = nn.Sequential(
        nn.Linear(sizes[0], sizes[1]),
        nn.ReLU(),
        nn.Linear(sizes[1], sizes[2]),
        nn.ReLU(),
        nn.Linear(sizes[2], sizes[3]),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def last_layer_of(model, held_out=False):
    data = digits()
    body, head = model[:-1], model[-1]
    with torch.no_grad():
        apart = None
        if held_out:
            apart = body(torch.from_numpy(data.test_inputs)), data.test_labels
        features = body(torch.from_numpy(data.train_inputs))
    return LastLayer.of(features, data.train_labels, head.weight, head.bias, held_out=apart)


@pytest.fixture(scope="session")
def lost_model():
    """Return a network that has lost its five small classes."""
    return trained(5e-2)


@pytest.fixture(scope="session")
def lost(lost_model):
    return last_layer_of(lost_model, held_out=True)


@pytest.fixture(scope="session")
def kept():
    """Return the last layer of a network with no lost class."""
    return last_layer_of(trained(5e-3), held_out=True)
