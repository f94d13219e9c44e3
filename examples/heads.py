"""Classifiers that are fixed beforehand: how well they learn, and what they save."""

import torch
from rich.console import Console
from torch import nn

import tightframe as tf
from tightframe.heads import (
    freeze_to_etf,
    freeze_to_frame,
    parameter_savings,
    project_features,
    savings_table,
)
from tightframe.metrics import collapse_report

COUNTS = [80, 80, 80, 20, 20, 20]


def train(model: nn.Sequential, inputs: torch.Tensor, labels: torch.Tensor) -> str:
    """Train a model in place and return one line about it."""
    # After the head was replaced: the optimiser sees what is left to train.
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(4 * model(inputs), labels).backward()
        optimizer.step()
    *_, report = collapse_report(model, [(inputs, labels)], targets="etf").values()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{trained:6d} trained  accuracy {report.accuracy:.3f}  NC1 {report.nc1:.4f}"


def main() -> None:
    """Compare four heads on the same data, then print the table of savings."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(6), torch.tensor(COUNTS))
    centers = 2 * torch.randn(6, 8, generator=generator)
    inputs = centers[labels] + 0.5 * torch.randn(len(labels), 8, generator=generator)
    solution = tf.solve(tf.Problem(COUNTS, weight_decay=1e-3, feature_decay=1e-5))
    heads = {
        "learned": lambda model: None,
        "fixed ETF": lambda model: freeze_to_etf(model, "fc"),
        "fixed prediction": lambda model: freeze_to_frame(model, solution, "fc", scale=0.5),
        "fixed ETF, d = K": lambda model: project_features(model, "fc"),
    }
    for name, change in heads.items():
        torch.manual_seed(0)
        model = nn.Sequential()
        model.add_module("body", nn.Sequential(nn.Linear(8, 64), nn.ReLU()))
        model.add_module("fc", nn.Linear(64, 6, bias=False))
        change(model)
        print(f"{name:17s} {train(model, inputs, labels)}")

    Console(width=120).print(savings_table())
    paper = parameter_savings("resnet18", 10, width=10)
    print(f"ResNet-18, 10 classes, d = K = 10: {paper.saved:,} fewer, {paper.percent:.2f} %")


if __name__ == "__main__":
    main()
