"""Time `tightframe.state_changes` of long tails: 500 samples down to a ratio, one count a class.

    OMP_NUM_THREADS=1 python -m benchmarks.changes [--classes 10,30,100] [--repeats 3]

One line a number of classes: groups of equal counts, changes, and the median of the seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import tightframe as tf


def long_tail(classes: int, most: int = 500, ratio: float = 100) -> list[int]:
    """Return CIFAR-100-LT's counts, of any number of classes."""
    return [round(most * ratio ** (-k / (classes - 1))) for k in range(classes)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", default="10,30,100")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    for classes in map(int, asked.classes.split(",")):
        problem = tf.Problem(long_tail(classes), weight_decay=1e-3, feature_decay=1e-3)
        for takers in (False, True):
            seconds = []
            for _ in range(asked.repeats):
                begun = time.perf_counter()
                changes = tf.state_changes(problem, takers=takers)
                seconds.append(time.perf_counter() - begun)
            print(
                f"{classes} classes, {len(problem.groups)} groups, takers={takers}: "
                f"{len(changes)} changes, {statistics.median(seconds):.1f} s"
            )


if __name__ == "__main__":
    main()
