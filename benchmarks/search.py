"""Judge the search for narrow and deep problems against the best values known: one table.

    python -m benchmarks.search values [--only 0:300]   # finds tests/solvers/search.csv (hours)
    python -m benchmarks.search judge [--against SRC]   # hit rate, and time against another version

The random problems follow from their numbers. The best known value of each is the lowest of the
search with 20 times its chains and of 600 random starts; a row is written as soon as it is known,
and known ones are kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tightframe as tf
from tightframe.theory.coverage import coverage

TABLE = Path(__file__).parents[1] / "tests" / "solvers" / "search.csv"
HARD = TABLE.with_name("search_hard.csv")
FIELDS = ("name", "counts", "decay", "bias", "bias_decay", "depth", "dim", "best")

#: How many problems are one layer of narrow features; the others are deep.
NARROW_SHARE = 2 / 3

#: Relative difference of objectives within which the best known one counts as found.
FOUND = 1e-7

MANY_STARTS = 600


def make(number: int) -> tf.Problem:
    """Return a random problem of 4 to 12 classes that has to be searched for."""
    rng = np.random.default_rng((20261128, number))
    while True:
        k = int(rng.integers(4, 13))
        narrow = number % 3 < 3 * NARROW_SHARE - 1e-9
        depth = 1 if narrow else int(rng.integers(2, 4))
        dim = int(rng.integers(1, k - 1)) if narrow else int(rng.integers(1, k + 1))
        bias = str(rng.choice(["none", "free", "decayed"]))
        counts = sorted((int(_between(rng, 2, 300)) for _ in range(k)), reverse=True)
        decay = _between(rng, 5e-5, 2e-3)
        problem = tf.Problem(
            counts,
            weight_decay=decay,
            feature_decay=decay,
            bias=bias,
            bias_decay=_between(rng, 1e-5, 0.1) if bias == "decayed" else None,
            depth=depth,
            dim=dim if narrow or dim < k - 1 else None,
        )
        if coverage(problem).outcome != "searched":
            continue
        if not narrow or tf.solve(problem.replace(dim=None)).rank > dim:
            return problem


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def to_row(name: str, problem: tf.Problem, best: float) -> dict[str, Any]:
    """Return a row of the table."""
    return {
        "name": name,
        "counts": " ".join(map(str, problem.counts.tolist())),
        "decay": repr(problem.feature_decay),
        "bias": problem.bias,
        "bias_decay": repr(problem.bias_decay) if problem.bias == "decayed" else "",
        "depth": problem.depth,
        "dim": "" if problem.dim is None else problem.dim,
        "best": repr(best),
    }


def from_row(row: Mapping[str, str]) -> tuple[tf.Problem, float]:
    """Return the problem and the best known value of a row of the table."""
    decay = float(row["decay"])
    problem = tf.Problem(
        [int(count) for count in row["counts"].split()],
        weight_decay=decay,
        feature_decay=decay,
        bias=row["bias"],
        bias_decay=float(row["bias_decay"]) if row["bias_decay"] else None,
        depth=int(row["depth"]),
        dim=int(row["dim"]) if row["dim"] else None,
    )
    return problem, float(row["best"])


def read_table(path: Path = TABLE) -> list[dict[str, str]]:
    """Return the rows of a table of problems: the random ones, or those found hard before."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# -- the best known values -------------------------------------------------------------------------


def best_known(problem: tf.Problem) -> float:
    """Return the lowest value of a long search and of many starts."""
    from tightframe.solvers.search import multistart
    from tightframe.solvers.search.options import SearchOptions

    relaxed = None
    if problem.depth == 1:
        wide = tf.solve(problem.replace(dim=None))
        relaxed = (wide.blocks, wide.lower_bound)
    chains = 50 if problem.depth == 1 else 20
    options = SearchOptions(chains=chains, max_chains=2 * chains, max_patient=6)
    found = multistart.search(problem, starts=12, seed=20, relaxed=relaxed, options=options)
    return min(found.objective, _many_starts(problem, relaxed))


def _many_starts(problem: tf.Problem, relaxed: Any) -> float:
    from tightframe.solvers.search.factors import Factors
    from tightframe.solvers.search.guesses import deep_starts, narrow_starts
    from tightframe.solvers.search.lbfgs import lbfgs

    full = min(problem.loss_object.max_rank(problem.num_classes), problem.dim or 100)
    widths = [full] if problem.depth == 1 else list(range(1, full + 1))
    rng = np.random.default_rng(600)
    best = np.inf
    for width in widths:
        f = Factors(problem, width)
        n = min(100, MANY_STARTS // len(widths))
        for _ in range(0, MANY_STARTS // len(widths) + 1, 100):
            if relaxed is None:
                starts = deep_starts(f, n, rng)
            else:
                starts = narrow_starts(f, relaxed[0].to_dense() * f.root, n, rng)
            end = lbfgs(f, starts, partial(f.is_small, 1e-12), 400)
            best = min(best, float(np.nanmin(end.values)))
    return best


def find_values(first: int, last: int) -> None:
    """Write the best known values of the problems with these numbers, in order."""
    done = {row["name"] for row in read_table()} if TABLE.exists() else set()
    for number in range(first, last):
        if str(number) in done:
            continue
        start, problem = time.process_time(), make(number)
        row = to_row(str(number), problem, best_known(problem))
        new = not TABLE.exists()
        with TABLE.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(row["name"], row["best"], f"{time.process_time() - start:.1f} s", flush=True)


# -- how the search does ---------------------------------------------------------------------------

#: What a version of the package is asked, in a process of its own: rows in, a line of JSON each.
ASK = """
import json, sys, time, warnings
sys.path.insert(0, {root!r})
warnings.simplefilter("ignore")
import tightframe as tf
from benchmarks.search import from_row
for line in sys.stdin:
    problem, best = from_row(json.loads(line))
    start = time.process_time()
    found = tf.solve(problem)
    seconds = time.process_time() - start
    unsure = getattr(found.search, "unsure", None)
    print(json.dumps([found.objective / best - 1, seconds, unsure]), flush=True)
"""


def ask(rows: list[dict[str, str]], source: Path) -> list[list[Any]]:
    """Return excess over the best known, seconds of CPU and whether unsure, of every row."""
    root = str(Path(__file__).parents[1])
    given = "".join(json.dumps(row) + "\n" for row in rows)
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(root=root)],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def judge(rows: list[dict[str, str]], against: Path | None) -> None:
    """Print how often the best is found, how often the search is unsure, and what it costs."""
    own = ask(rows, Path(tf.__file__).parents[1])
    missed = [row for row, (excess, *_) in zip(rows, own, strict=True) if excess > FOUND]
    print(f"found within {FOUND:g}: {len(rows) - len(missed)} of {len(rows)}")
    for row, (excess, seconds, unsure) in zip(rows, own, strict=True):
        if excess > FOUND or excess < -FOUND:
            word = "missed" if excess > 0 else "better than known"
            print(f"  {word}: {row['name']} by {excess:.1e}, unsure {unsure}, {seconds:.2f} s")
    print(f"unsure: {sum(bool(unsure) for *_, unsure in own)}")
    print(f"seconds of CPU: median {statistics.median(s for _, s, _ in own):.3f}, "
          f"mean {statistics.fmean(s for _, s, _ in own):.3f}")  # fmt: skip
    if against is not None:
        other = ask(rows, against)
        ratios = [mine[1] / theirs[1] for mine, theirs in zip(own, other, strict=True)]
        print(f"{against}: found {sum(excess <= FOUND for excess, *_ in other)}")
        print(f"time ratio: median {statistics.median(ratios):.2f}")


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("values", "judge"))
    parser.add_argument("--only", default="0:300", help="numbers of problems, first:last")
    parser.add_argument("--against", type=Path, help="src folder of another version")
    given = parser.parse_args()
    warnings.simplefilter("ignore", tf.NotConvergedWarning)
    first, last = (int(part) for part in given.only.split(":"))
    if given.command == "values":
        find_values(first, last)
    else:
        judge(read_table()[first:last], given.against)


if __name__ == "__main__":
    main()
