"""Time `tf.solve` of contexts with label distributions against CVXPY, V, m, rank and one SVD.

    python -m benchmarks.contexts [--quick] [--large] [--out benchmarks/results]

Instances have five random labels a context (Dirichlet), counts 1000/j and ``lambda`` a share of the
one at which all collapses; some have objectives that were found and certified elsewhere. A peer's
answer is certified like any candidate (`tf.certify`), and ours is then asked for the same gap.
Every row is measured in a process of its own, on one thread; seconds are those of the processor,
which other work on the machine changes little, medians of up to `REPEATS` solves. A peer gets
``--peer-limit`` seconds of the clock. Writes ``contexts.csv`` and ``contexts.png``.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.sparse import csc_array, csr_array

import tightframe as tf
from tightframe.figures.mpl import label_axis, new_figure, save_figure, style_axis
from tightframe.figures.style import LIGHT, PALETTE
from tightframe.files import replacing

#: Solves that a median is of, unless they take longer than `ENOUGH` seconds together.
REPEATS = 7
ENOUGH = 5.0

#: CVXPY's options of every peer.
PEERS: dict[str, dict[str, Any]] = {
    "CLARABEL": {},
    "SCS": {"eps": 1e-7, "max_iters": 10**6},
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One instance; ``objective`` where it is known."""

    series: str
    labels: int
    contexts: int
    tol: float
    share: float = 0.05
    objective: float | None = None


PEER_CASES = (Case("peers", 20, 40, 1e-9), Case("peers", 40, 100, 1e-9))

CASES = (
    *PEER_CASES,
    Case("known", 20, 60, 1e-10, objective=1.692979059073),
    Case("known", 200, 1000, 1e-9, objective=2.513859274496),
    Case("known", 2000, 400, 1e-8, objective=3.413423858038),
    Case("known", 500, 2000, 1e-8, share=0.01, objective=1.769640484862),
    Case("known", 500, 2000, 1e-8, objective=3.11135671),
    *(Case("m = 4 V", v, 4 * v, 1e-6) for v in (25, 50, 100, 200, 400, 800)),
    *(Case("V = 100", 100, m, 1e-6) for m in (50, 200, 800, 3200, 12800)),
    *(Case("m = 100", v, 100, 1e-6) for v in (50, 200, 800, 3200)),
    *(Case("rank", 200, 1000, 1e-6, share) for share in (0.5, 0.2, 0.1, 0.05, 0.01, 0.002)),
)

LARGE = (
    Case("large", 2000, 10000, 1e-6, objective=4.41012121),
    Case("large", 10000, 2000, 1e-6),
)


def problem_of(case: Case) -> tf.Problem:
    """Return the instance, of numpy's generator 0."""
    rng = np.random.default_rng(0)
    v, m = case.labels, case.contexts
    seen = np.argpartition(rng.random((m, v)), 5, axis=1)[:, :5]
    shares = rng.dirichlet(np.ones(5), m)
    starts = np.arange(0, 5 * m + 1, 5)
    targets = csr_array((shares.ravel(), seen.ravel(), starts), shape=(m, v))
    counts = np.ceil(1000 / (np.arange(m) + 1)).astype(int)
    decay = case.share * _largest(targets, np.sqrt(counts) / counts.sum())
    return tf.Problem(counts, targets=csc_array(targets.T), weight_decay=decay, feature_decay=decay)


def _largest(targets: csr_array, factors: np.ndarray) -> float:
    """Return the norm of the slope at zero logits, ``diag(factors) (1/V - P)``."""
    from scipy.sparse.linalg import LinearOperator, svds

    m, v = targets.shape
    slope = LinearOperator(
        (m, v),
        matvec=lambda x: factors * (x.mean() - targets @ x.ravel()),
        rmatvec=lambda y: (y.ravel() @ factors) / v - targets.T @ (factors * y.ravel()),
    )
    start = np.ones(min(m, v))
    return float(svds(slope, k=1, tol=1e-13, v0=start, return_singular_vectors=False)[0])


# -- what runs in a process of its own -------------------------------------------------------------


def own_row(case: Case, tol: float) -> Row:
    """Solve to a tolerance, and decompose a matrix of the same size."""
    problem = problem_of(case)
    solution, seconds, wall = timed(lambda: tf.solve(problem, tol))
    row: Row = {"seconds": seconds, "wall_seconds": wall, "gap": solution.gap / solution.objective}
    row |= {"objective": solution.objective, "rank": solution.rank}
    if case.objective is not None:
        row["above_known"] = solution.objective - case.objective
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row |= {"iterations": solution.stats.iterations, "peak_mib": peak}
    if case.series != "large":
        matrix = np.random.default_rng(0).normal(size=(case.labels, case.contexts))
        svd = timed(lambda: np.linalg.svd(matrix, full_matrices=False))[1]
        row |= {"svd_seconds": svd, "svd_units": seconds / svd}
    return row


def peer_row(case: Case, name: str) -> Row:
    """Solve with CVXPY, and certify what it found."""
    import cvxpy as cp

    problem = problem_of(case)
    assert problem.targets is not None
    targets, shares = problem.targets.by_context.toarray(), problem.counts / problem.num_samples
    start, clock = time.process_time(), time.perf_counter()
    z = cp.Variable(targets.shape)
    fit = shares @ cp.log_sum_exp(z, axis=1) - cp.sum(cp.multiply(shares[:, None] * targets, z))
    scale = np.sqrt(problem.counts)  # in units of the largest, else Clarabel gives up
    norm = cp.normNuc(np.diag(scale / scale.max()) @ z)
    whole = cp.Problem(cp.Minimize(fit + problem.logit_decay * scale.max() * norm))
    whole.solve(solver=name, **PEERS[name])
    seconds, wall = time.process_time() - start, time.perf_counter() - clock
    found = tf.certify(problem, z.value.T)
    # A peer is not charged for a loose dual point of its own.
    known = tf.solve(problem, 1e-12).lower_bound
    gap = (found.primal - known) / found.primal
    return {"seconds": seconds, "wall_seconds": wall, "gap": gap, "objective": found.primal}


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what is computed, and median seconds of the processor and of the clock."""
    seconds: list[float] = []
    walls: list[float] = []
    while not seconds or (len(seconds) < REPEATS and sum(seconds) < ENOUGH):
        start, clock = time.process_time(), time.perf_counter()
        result = work()
        seconds.append(time.process_time() - start)
        walls.append(time.perf_counter() - clock)
    return result, statistics.median(seconds), statistics.median(walls)


def _send(sender: Any, function: Callable[..., Row], arguments: tuple[Any, ...]) -> None:
    sender.send(function(*arguments))


def alone(limit: float | None, function: Callable[..., Row], *arguments: Any) -> Row | None:
    """Run in a process of its own; None where it takes too long or dies."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(limit) else None
    except EOFError:  # it ended without an answer
        return None
    finally:
        process.kill()
        process.join()


# -- rows ------------------------------------------------------------------------------------------


def rows_of(case: Case, peers: Sequence[str], limit: float) -> list[Row]:
    """Measure a case: ours, and every peer with ours at its gap."""
    about = {"date": time.strftime("%Y-%m-%d"), "load": round(os.getloadavg()[0], 1)}
    base = asdict(case) | about
    rows = [base | {"solver": "tightframe"} | (alone(None, own_row, case, case.tol) or {})]
    for name in peers if case.series == "peers" else ():
        row = base | {"solver": name} | (alone(limit, peer_row, case, name) or {"limit": limit})
        if "gap" in row:
            ours = alone(None, own_row, case, max(row["gap"], 1e-12)) or {}
            row |= {"our_seconds": ours["seconds"], "our_gap": ours["gap"]}
            row["ratio"] = row["seconds"] / ours["seconds"]
        else:
            row |= {"our_seconds": rows[0]["seconds"], "ratio_above": limit / rows[0]["seconds"]}
        rows.append(row)
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a table with every column that some row has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {
                k: f"{v:.6g}" if isinstance(v, float) and k != "objective" else v
                for k, v in r.items()
            }
            for r in rows
        )


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote."""
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw seconds, and units of one SVD, against V, m and rank."""
    drawing = new_figure(12, 4.4)
    axes = drawing.subplots(1, 3)
    lines = {
        "m = 4 V": ("labels", "V, with m = 4 V"),
        "m = 100": ("labels", "V, with m = 100"),
        "V = 100": ("contexts", "m, with V = 100"),
    }
    for color, (series, (x, name)) in zip(PALETTE, lines.items(), strict=False):
        chosen = [row for row in rows if row["series"] == series]
        _line(axes[0], chosen, x, "seconds", "o-", color, name)
        _line(axes[0], chosen, x, "svd_seconds", ":", color, f"one SVD, {name}")
        _line(axes[1], chosen, x, "svd_units", "o-", color, name)
    chosen = [row for row in rows if row["series"] == "rank"]
    _line(axes[2], chosen, "rank", "seconds", "o-", PALETTE[0], "V = 200, m = 1000")
    _line(axes[2], chosen, "rank", "svd_seconds", ":", LIGHT.muted, "one SVD")
    label_axis(axes[0], "", "V or m", "seconds of the processor, to 1e-6")
    label_axis(axes[1], "", "V or m", "in units of one SVD of that size")
    label_axis(axes[2], "", "rank of the minimiser, by the decay", "seconds")
    for each in axes:
        each.set_xscale("log")
        each.set_yscale("log")
        style_axis(each)
        if each.lines:
            each.legend(fontsize=7)
    save_figure(drawing, path)


def _line(
    axes: Axes, rows: Sequence[Row], x: str, y: str, style: str, color: str, label: str
) -> None:
    points = sorted((float(row[x]), float(row[y])) for row in rows if x in row and y in row)
    if points:
        axes.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=5)


def main() -> None:
    """Print a row at a time, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest case, Clarabel only")
    parser.add_argument("--large", action="store_true", help="the two largest cases only")
    parser.add_argument("--series", help="this series only")
    parser.add_argument("--peer-limit", type=float, default=300.0)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, help="folder; rows of other series there stay")
    options = parser.parse_args()
    cases = LARGE if options.large else CASES[:1] if options.quick else CASES
    cases = tuple(case for case in cases if options.series in (None, case.series))
    table = options.out / "contexts.csv" if options.out else None
    done = {case.series for case in cases} if not options.draw else set()
    kept = read_rows(table) if table and table.exists() else []
    rows: list[Row] = [row for row in kept if row["series"] not in done]
    for case in () if options.draw else cases:
        found = rows_of(case, list(PEERS)[: 1 if options.quick else None], options.peer_limit)
        rows += found
        for row in found:
            print({k: v for k, v in row.items() if v is not None}, flush=True)
        if table:
            write_rows(table, rows)
    if options.out:
        draw(rows, options.out / "contexts.png")


if __name__ == "__main__":
    main()
