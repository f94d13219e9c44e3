"""Measure what a sweep of `train_ufm` costs beside one run, and beside ``torch.func``.

    python -m benchmarks.ufm [--runs 16] [--repeat 5] [--steps 400] [--out benchmarks/results]

Writes ``ufm.json``. One run and the batch alternate in this process, so that whatever else the
machine does meets both; the numbers are medians. ``ratio`` is the time of the batch over that of
one run: the number of runs if batching gained nothing, 1 if it cost nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import tightframe as tf
from benchmarks.solver import environment
from tightframe.files import write_json
from tightframe.training.ufm import train_ufm

#: Counts, width, columns: the papers' synthetic sizes and smaller ones.
CASES = (
    ("10x4", 8, True),
    ("10x10", 20, True),
    ("100x4", 64, True),
    ("100x4", 64, False),
    ("500x5,100x5", 20, True),
    ("500x5,100x5", 20, False),
)


@dataclass(frozen=True)
class Settings:
    """How it was measured."""

    runs: int = 16
    repeat: int = 5
    steps: int = 400
    threads: int = 1


def sweep(counts: str, runs: int) -> list[tf.Problem]:
    """Return problems that differ in their decays only."""
    return [
        tf.Problem(counts, weight_decay=5e-4 * (1 + i / runs), feature_decay=5e-4)
        for i in range(runs)
    ]


def seconds_per_step(problems: list[tf.Problem], dim: int, per_sample: bool, steps: int) -> float:
    """Return the time of a step of all runs: records, looks and all else but `solve`."""

    def timed(iterations: int) -> float:
        began = time.perf_counter()
        options: dict[str, Any] = {"dim": dim, "per_sample": per_sample, "tol": 0}
        train_ufm(problems, iterations=iterations, records=12, **options)
        return time.perf_counter() - began

    return (timed(2 * steps) - timed(steps)) / steps


def functional_step(problems: list[tf.Problem], dim: int) -> Callable[[], None]:
    """Return the same step by torch.func: vmap over runs of grad of the written-out objective."""
    problem = problems[0]
    counts = torch.as_tensor(problem.counts)
    labels = torch.arange(len(counts)).repeat_interleave(counts)
    decays = torch.tensor([p.weight_decays[0] for p in problems], dtype=torch.float64)

    def objective(weight: Tensor, features: Tensor, decay: Tensor) -> Tensor:
        loss = functional.cross_entropy(features @ weight.T, labels)
        decayed = decay * weight.square().sum() + problem.feature_decay * features.square().sum()
        return loss + decayed / 2

    gradients = torch.func.vmap(torch.func.grad(objective, argnums=(0, 1)))
    sizes = [(len(problems), len(counts), dim), (len(problems), len(labels), dim)]
    state = [0.1 * torch.randn(size, dtype=torch.float64) for size in sizes]
    velocities = [torch.zeros_like(x) for x in state]

    def step() -> None:
        for x, v, g in zip(state, velocities, gradients(*state, decays), strict=True):
            v.mul_(0.9).add_(g)
            x.add_(v, alpha=-0.1)

    return step


def measure(counts: str, dim: int, per_sample: bool, settings: Settings) -> dict[str, Any]:
    """Return the medians of one case."""
    problems, steps = sweep(counts, settings.runs), settings.steps
    one, batch, vmap = [], [], []
    step = functional_step(problems, dim)
    for _ in range(settings.repeat):
        one.append(seconds_per_step(problems[:1], dim, per_sample, steps))
        batch.append(seconds_per_step(problems, dim, per_sample, steps))
        few = max(steps // 20, 1)
        began = time.perf_counter()
        for _ in range(few):
            step()
        vmap.append((time.perf_counter() - began) / few)
    single, many = statistics.median(one), statistics.median(batch)
    return {
        "counts": counts,
        "dim": dim,
        "per_sample": per_sample,
        "one_us": 1e6 * single,
        "batch_us": 1e6 * many,
        "ratio": many / single,
        "torch_func_us": 1e6 * statistics.median(vmap) if per_sample else None,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("runs", "repeat", "steps", "threads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    settings = Settings(**options)
    torch.set_num_threads(settings.threads)
    about = environment(settings, quick=False)
    about["versions"]["torch"] = torch.__version__
    rows = []
    for counts, dim, per_sample in CASES:
        row = measure(counts, dim, per_sample, settings)
        rows.append(row)
        vmap = row["torch_func_us"]
        print(
            f"{counts:>14} d={dim:<3} {'per sample' if per_sample else 'per class':10} "
            f"one {row['one_us']:6.0f} us, {settings.runs} runs {row['batch_us']:7.0f} us, "
            f"ratio {row['ratio']:5.2f}"
            + (f", torch.func {vmap:7.0f} us" if vmap is not None else "")
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "ufm.json", {"environment": about, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
