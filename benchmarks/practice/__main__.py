"""Train ordinary networks, let the library judge them, and write what holds.

    python -m benchmarks.practice [train | judge | table] [--only NAME] [--quick] [--jobs 2]
                                  [--runs practice-run] [--out benchmarks/results]

Every step goes on where an earlier one stopped, and only does what is not there yet; without a
name all three are done. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from benchmarks.practice.judge import collect, judge, said_file
from benchmarks.practice.networks import Network, plain_networks, retrained
from benchmarks.practice.pages import write
from benchmarks.practice.train import train
from tightframe.parallel import runner
from tightframe.runs.folder import environment

#: What a quick run has: enough to see whether all of it runs.
QUICK_NAME, QUICK_STEPS = "dg10 mlp sgd", 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the steps asked for; return 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.practice",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", nargs="?", choices=["train", "judge", "table"])
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--quick", action="store_true", help="a few networks of a few steps")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--runs", type=Path, default=Path("practice-run"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args(arguments)
    folder = asked.runs / "quick" if asked.quick else asked.runs
    folder.mkdir(parents=True, exist_ok=True)
    networks = [n for n in plain_networks(asked.seeds) if asked.only in n.name]
    if asked.quick:
        networks = [n for n in networks if QUICK_NAME in n.name and n.seed == 0]
    again = [other for network in networks for other in retrained(network)]
    # Of joblib's processes, which inherit it; this one has loaded its libraries already.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    threadpool_limits(1)
    if asked.step in (None, "train"):
        left = [n for n in networks + again if not (folder / n.file).is_file()]
        steps = {"steps": QUICK_STEPS} if asked.quick else {}
        do(train, left, folder, asked.jobs, **steps)
    if asked.step in (None, "judge"):
        trained = [n for n in networks if (folder / n.file).is_file()]
        left = [n for n in trained if not said_file(folder, n).is_file()]
        do(judge, left, folder, asked.jobs)
    if asked.step in (None, "table"):
        judged = [n for n in networks if said_file(folder, n).is_file()]
        if not judged:
            parser.error(f"no network in {folder} is judged yet")
        about = {"networks": len(networks), "retrained": len(again), "machine": machine()}
        for criterion in write([collect(n, folder) for n in judged], asked.out, about):
            holds = {True: "pass", False: "FAIL", None: "    "}[criterion.holds]
            print(f"{holds}  {criterion.name}: {criterion.figure} (asked: {criterion.asked})")
    return 0


def do(
    function: Callable[..., object],
    networks: Sequence[Network],
    folder: Path,
    jobs: int,
    **more: int,
) -> None:
    """Run a function for every network, and say on the way how far it is."""
    started = time.perf_counter()
    tasks = [{"network": network, "folder": folder, **more} for network in networks]
    with runner(jobs) as run:
        for done, outcome in enumerate(run(function, tasks), 1):
            network = networks[outcome.index]
            print(
                f"{function.__name__} {done}/{len(tasks)} {network.name}, {network.remedy}"
                f"{'' if outcome.reason is None else ': ' + outcome.reason} "
                f"({time.perf_counter() - started:.0f} s)",
                file=sys.stderr,
                flush=True,
            )


def machine() -> str:
    """Return the machine and the versions in a sentence."""
    about = environment(["torch", "numpy", "scipy", "tightframe"])
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"{about['processor']}, {about['cores']} cores; {versions}"


if __name__ == "__main__":
    sys.exit(main())
