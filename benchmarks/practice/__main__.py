"""Train ordinary networks, let the library judge them, and write what holds: see README.md here.

python -m benchmarks.practice [train|judge|table] [--only NAME] [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.practice.networks import Network, plain_networks, retrained
from benchmarks.practice.train import train
from tightframe.parallel import runner


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.practice", description=__doc__)
    parser.add_argument("step", nargs="?", choices=["train", "judge", "table"])
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--quick", action="store_true", help="a few networks of a few steps")
    parser.add_argument("--plain", action="store_true", help="train no network again")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("practice-run"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args(arguments)
    networks = [n for n in plain_networks(asked.seeds) if asked.only in n.name]
    if asked.step in (None, "train"):
        again = [] if asked.plain else [r for n in networks for r in retrained(n)]
        train_all(networks + again, asked.runs, asked.jobs)


def train_all(networks: Sequence[Network], folder: Path, jobs: int) -> None:
    """Train what is not there yet, and say so on the way."""
    folder.mkdir(parents=True, exist_ok=True)
    left = [n for n in networks if not (folder / n.file).is_file()]
    started = time.perf_counter()
    # One thread each, also in the processes of joblib, which inherit this.
    os.environ["OMP_NUM_THREADS"] = "1"
    tasks = [{"network": n, "folder": folder} for n in left]
    with runner(jobs) as run:
        for done, outcome in enumerate(run(train, tasks), 1):
            network = left[outcome.index]
            what = outcome.reason or f"{outcome.value:.1f} s"
            print(
                f"{done}/{len(left)} {network.name} {network.remedy}: {what} "
                f"({time.perf_counter() - started:.0f} s)",
                file=sys.stderr,
                flush=True,
            )


if __name__ == "__main__":
    main()
