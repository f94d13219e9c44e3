"""Small networks whose classifier is not simply a linear layer called ``fc`` at the end."""

import torch
from torch import nn

K, D = 3, 8
LABELS = torch.arange(60) % K
INPUTS = torch.randn(60, 5, generator=torch.Generator().manual_seed(3)) + LABELS[:, None]
BATCHES = [(INPUTS[:40], LABELS[:40]), (INPUTS[40:], LABELS[40:])]
OFFSET = [-2.0, 0.5, 1.0]


class Net(nn.Module):
    """Features of width D, a classifier ``fc``, and what a subclass does behind it."""

    def __init__(self, fc=None):
        super().__init__()
        torch.manual_seed(4)
        self.body = nn.Sequential(nn.Linear(5, D), nn.ReLU())
        self.fc = nn.Linear(D, K) if fc is None else fc

    def after(self, logits):
        return logits

    def forward(self, x):
        return self.after(self.fc(self.body(x)))


class Behind(Net):
    """Multiplied, shifted and squashed by what is given."""

    def __init__(self, factor=1.0, offset=0.0, squash=None):
        super().__init__()
        self.factor = nn.Parameter(torch.as_tensor(factor))
        self.register_buffer("offset", torch.as_tensor(offset))
        self.squash = squash

    def logits(self):
        with torch.no_grad():
            return self.factor * self.fc(self.body(INPUTS)) + self.offset

    def after(self, logits):
        logits *= self.factor  # in place, after the head gave it out
        logits += self.offset
        return logits if self.squash is None else self.squash(logits)


class Projected(nn.Module):
    """Of the usual names the inner layer has one, and not the classifier."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(9)
        self.proj, self.output = nn.ModuleDict({"linear": nn.Linear(5, D)}), nn.Linear(D, K)

    def forward(self, x):
        return self.output(self.proj["linear"](x).relu())


def mean_logits(logits, labels=LABELS):
    """Column k is the mean of the logits of class k."""
    logits = logits.detach().double()
    return torch.stack([logits[labels == k].mean(0) for k in range(K)], dim=1).numpy()
