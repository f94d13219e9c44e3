"""Does a small network collapse as predicted? Watched from an ordinary PyTorch loop."""

import torch
from torch import nn

import tightframe as tf
from tightframe.metrics import watch

COUNTS = [60, 60, 60, 12, 12, 12]


def clusters(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy points around one random centre a class, imbalanced."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    centers = 2 * torch.randn(len(COUNTS), 8, generator=generator)
    return centers[labels] + 0.3 * torch.randn(len(labels), 8, generator=generator), labels


def main() -> None:
    """Train with decays on classifier and features, and measure every 200 steps."""
    torch.manual_seed(0)
    problem = tf.Problem(COUNTS, weight_decay=5e-3, feature_decay=5e-5)
    solution = tf.solve(problem)
    inputs, labels = clusters()
    model = nn.Sequential()
    model.add_module("body", nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 16)))
    model.add_module("fc", nn.Linear(16, len(COUNTS), bias=False))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = list(zip(inputs.split(64), labels.split(64), strict=True))
    watched = watch(model, head="fc", targets=[solution, "etf"], nc4=True)

    for step in range(601):
        if step % 200 == 0:
            model.eval()
            watched.reset()
            with watched, torch.no_grad():
                for x, y in batches:  # the loop that you have anyway
                    model(x)
                    watched.labels(y)
            model.train()
            numbers = watched.scalars()
            print(
                f"step {step:4d}  NC1 {numbers['nc1']:9.4f}  NC4 {numbers['nc4']:.3f}  "
                f"logits to prediction {numbers['logits_to_predicted']:.3f}, "
                f"to ETF {numbers['logits_to_simplex_etf']:.3f}"
            )
        features = model.body(inputs)
        loss = nn.functional.cross_entropy(model.fc(features), labels)
        loss = loss + problem.weight_decay / 2 * model.fc.weight.square().sum()
        loss = loss + problem.feature_decay / 2 * features.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"objective {loss.item():.4f}, certified minimum {solution.objective:.4f}")


if __name__ == "__main__":
    main()
